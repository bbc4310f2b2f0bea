//! Tokens of strangers: as text that keys are tried on, and as claims that a key has vouched for.

use parlor_relay::App;
use parlor_transport::error::Code;
use parlor_transport::id::{AppId, RoomId, StreamId, UserId};
use parlor_transport::token::Token;
use parlor_transport::token::claims::{Claims, Pattern};
use parlor_transport::token::keys::{self, Algorithm, SigningKey, VerifyingKey};
use parlor_transport::units::UnixTime;

/// Everybody knows it: what it signs can be in the corpus.
const SECRET: &str = "a secret of more than thirty-two bytes";

/// The public key of RFC 8410, section 10.
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
    -----END PUBLIC KEY-----";

/// Whatever is believed was signed by a key, and says the same when it is signed again.
pub(super) fn tokens(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    if let Ok(claims) = serde_json::from_str::<Claims>(text) {
        vouched_for(&claims);
    }
    if let Ok(pattern) = text.parse::<Pattern>() {
        let name = pattern.as_str().replace('*', "");
        assert!(pattern.matches(&name) && pattern.matches(pattern.as_str()), "a star may stand for nothing");
    }
    let Ok(token) = Token::new(text) else { return };
    let secret = VerifyingKey::from_secret(SECRET).expect("long enough");
    let public = VerifyingKey::from_public_pem(Algorithm::EdDsa, PUBLIC).expect("a public key");
    for key in [&secret, &public] {
        let Ok(claims) = key.verify(&token) else { continue };
        assert_eq!(keys::head(&token).map(|head| head.algorithm), Ok(Some(key.algorithm())));
        assert_eq!(keys::inspect(&token), Ok(claims));
    }
    let app = App::with_keys(AppId::dev(), vec![secret, public]).expect("two keys");
    let (room, user) = (RoomId::new("r").expect("an id"), UserId::new("u").expect("an id"));
    if let Err(refusal) = app.admit(UnixTime::from_secs(1_000), Some(&token), &room, &user) {
        assert!((1025..=1029).contains(&refusal.code.number()) && refusal.code != Code::TokenMissing);
        assert!(
            token.as_str().len() < 32 || !refusal.text.contains(token.as_str()),
            "a token is never shown"
        );
    }
}

fn vouched_for(claims: &Claims) {
    if let Ok(token) = SigningKey::from_secret(SECRET).expect("long enough").sign(claims) {
        let read = VerifyingKey::from_secret(SECRET).expect("long enough").verify(&token);
        assert_eq!(read.as_ref(), Ok(claims));
    }
    let stream = StreamId::new("s").expect("an id");
    assert!(claims.streams.is_some() || claims.allows_stream(&stream));
}
