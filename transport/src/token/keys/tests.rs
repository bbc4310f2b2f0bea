//! Keys of every kind, what they sign and what they do not believe.

use super::*;
use crate::id::AppId;
use crate::units::UnixTime;

fn claims() -> Claims {
    let app = AppId::new("shop").unwrap();
    Claims::new(app, "ann".parse().unwrap(), "r".parse().unwrap(), UnixTime::from_secs(1_000))
}

fn new_pair(algorithm: Algorithm) -> (SigningKey, VerifyingKey, String) {
    match NewKey::generate(algorithm).unwrap() {
        NewKey::Secret(secret) => {
            (SigningKey::from_secret(&secret).unwrap(), VerifyingKey::from_secret(&secret).unwrap(), secret)
        }
        NewKey::Pair { private, public } => (
            SigningKey::from_private_pem(&private).unwrap(),
            VerifyingKey::from_public_pem(algorithm, &public).unwrap(),
            public,
        ),
    }
}

#[test]
fn every_algorithm_signs_what_it_verifies_and_no_other_key_does() {
    let keys = Algorithm::ALL.map(|algorithm| (algorithm, new_pair(algorithm), new_pair(algorithm)));
    for (algorithm, (signing, verifying, _), (_, other, _)) in &keys {
        assert_eq!((signing.algorithm(), verifying.algorithm()), (*algorithm, *algorithm));
        let token = signing.sign(&claims()).unwrap();
        assert_eq!(verifying.verify(&token), Ok(claims()), "{algorithm}");
        assert_eq!(signing.verifying_key().unwrap().verify(&token), Ok(claims()), "{algorithm}");
        assert_eq!(other.verify(&token), Err(VerifyError::Signature), "{algorithm}");
        for (another, (_, verifying, _), _) in keys.iter().filter(|(another, ..)| another != algorithm) {
            assert_eq!(verifying.verify(&token), Err(VerifyError::Algorithm(*another)));
        }
    }
}

#[test]
fn a_changed_token_is_not_believed() {
    for algorithm in Algorithm::ALL {
        let (signing, verifying, _) = new_pair(algorithm);
        let token = signing.sign(&claims()).unwrap();
        let text = token.as_str();
        let second_dot = text.rfind('.').unwrap();
        // The last character of base64 may have bits that mean nothing, and those must be zero.
        for at in (0..text.len()).filter(|&at| text.as_bytes()[at] != b'.') {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = Token::new(String::from_utf8(changed).unwrap()).unwrap();
            assert!(verifying.verify(&changed).is_err(), "{algorithm}: byte {at} of {second_dot}+");
        }
        for cut in 0..text.len() {
            assert!(verifying.verify(&Token::from_wire(text[..cut].to_owned())).is_err());
        }
    }
}

#[test]
fn the_algorithm_is_the_keys_and_never_the_tokens() {
    let (_, verifying, public) = new_pair(Algorithm::EdDsa);
    // {"alg":"none"}, without a signature.
    let payload = new_pair(Algorithm::Hs256).0.sign(&claims()).unwrap();
    let payload = payload.as_str().split('.').nth(1).unwrap();
    for alg in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIn0"] {
        let none = Token::new(format!("{alg}.{payload}.")).unwrap();
        assert!(matches!(verifying.verify(&none), Err(VerifyError::Form(_))));
    }
    // The public key taken for a secret, which everybody knows.
    let forged = SigningKey::from_secret(&public).unwrap().sign(&claims()).unwrap();
    assert_eq!(verifying.verify(&forged), Err(VerifyError::Algorithm(Algorithm::EdDsa)));
    let forged = SigningKey::new(
        Algorithm::Hs256,
        EncodingKey::from_secret(verifying.key.try_get_as_bytes().unwrap()),
    );
    let forged = forged.sign(&claims()).unwrap();
    assert_eq!(verifying.verify(&forged), Err(VerifyError::Algorithm(Algorithm::EdDsa)));
}

#[test]
fn headers_that_must_be_understood_are_refused() {
    let (signing, verifying, _) = new_pair(Algorithm::Hs256);
    let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
    header.crit = Some(vec!["b64".to_owned()]);
    let token = Token::new(jsonwebtoken::encode(&header, &claims(), &signing.key).unwrap()).unwrap();
    assert_eq!(verifying.verify(&token), Err(VerifyError::Critical));
    let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some("k".to_owned());
    let claims = serde_json::json!({ "app": "shop" });
    let token = Token::new(jsonwebtoken::encode(&header, &claims, &signing.key).unwrap()).unwrap();
    let Err(VerifyError::Claims(why)) = verifying.verify(&token) else { panic!("claims are missing") };
    assert!(why.contains("missing field `user`"), "{why}");
    assert_eq!(head(&token).unwrap().key.as_deref(), Some("k"));
}

#[test]
fn keys_that_will_not_do_are_told_with_what_would() {
    let (_, _, ed) = new_pair(Algorithm::EdDsa);
    let (_, _, ec) = new_pair(Algorithm::Es256);
    let error = |error: KeyError| error.to_string();
    assert!(error(VerifyingKey::from_secret("short").unwrap_err()).contains("has 5 bytes; give 32 to 1024"));
    assert!(VerifyingKey::from_public_pem(Algorithm::Es256, &ed).is_err());
    assert!(error(VerifyingKey::from_public_pem(Algorithm::EdDsa, &ec).unwrap_err()).contains("Ed25519"));
    assert!(
        error(VerifyingKey::from_public_pem(Algorithm::Hs256, &ec).unwrap_err()).contains("needs a secret")
    );
    assert!(error(SigningKey::from_private_pem(&ec).unwrap_err()).contains("BEGIN PRIVATE KEY"));
    assert!(VerifyingKey::from_public_pem(Algorithm::EdDsa, "").is_err());
    assert!(error("RS256".parse::<Algorithm>().unwrap_err()).contains("choose HS256, EdDSA or ES256"));
    assert!("".parse::<KeyId>().is_err() && "a b".parse::<KeyId>().is_err());
    assert_eq!("eddsa".parse(), Ok(Algorithm::EdDsa));
}

#[test]
fn secrets_are_shown_nowhere() {
    let secret = "0123456789abcdef0123456789abcdef";
    let signing = SigningKey::from_secret(secret).unwrap();
    let shown = format!("{:?} {:?}", signing, signing.verifying_key().unwrap());
    assert!(!shown.contains("0123") && !shown.contains("48, 49"), "{shown}");
    assert!(!format!("{:?}", NewKey::Secret(secret.to_owned())).contains("0123"));
}

/// The key pair of RFC 8410, section 10, whose private key stands without its public one.
const RFC_8410: [&str; 2] = [
    "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----",
    "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
    -----END PUBLIC KEY-----",
];

/// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`, and `openssl pkey -pubout` of it.
const OPENSSL_P256: [&str; 2] = [
    "-----BEGIN PRIVATE KEY-----\n\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgnf5HMQbLUUl3lWce\n\
    I2zot7kpAOopWQIM+xnupLtXLR+hRANCAATXgOy5Jto+7BIawjAJtgMn7QgTR03u\n\
    vbicIH6h8n+2otatebMQBqjdXNlgc9KMnH4gIEo8UMfJUf6VkkP4dHpF\n\
    -----END PRIVATE KEY-----",
    "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE14DsuSbaPuwSGsIwCbYDJ+0IE0dN\n\
    7r24nCB+ofJ/tqLWrXmzEAao3VzZYHPSjJx+ICBKPFDHyVH+lZJD+HR6RQ==\n\
    -----END PUBLIC KEY-----",
];

#[test]
fn keys_that_others_made_will_do() {
    for (algorithm, [private, public]) in [(Algorithm::EdDsa, RFC_8410), (Algorithm::Es256, OPENSSL_P256)] {
        let signing = SigningKey::from_private_pem(private).unwrap();
        assert_eq!(signing.algorithm(), algorithm);
        let verifying = VerifyingKey::from_public_pem(algorithm, public).unwrap();
        assert_eq!(verifying.verify(&signing.sign(&claims()).unwrap()), Ok(claims()));
    }
}

/// Made with Python's hmac, json and base64.
const PYTHON_TOKEN: &str = "eyJhbGciOiAiSFMyNTYiLCAidHlwIjogIkpXVCJ9.\
    eyJhcHAiOiAic2hvcCIsICJ1c2VyIjogImFubiIsICJyb29tIjogInIiLCAiZXhwIjogMTAwMCwgImlhdCI6IDF9.\
    3f114fgN1Jiif3zPjQwxI1OFWHp1mE4i8UqwrCFvgco";

#[test]
fn a_token_that_another_program_signed_is_verified() {
    let secret = "a secret of more than thirty-two bytes";
    let verifying = VerifyingKey::from_secret(secret).unwrap();
    let token = Token::new(PYTHON_TOKEN).unwrap();
    assert_eq!(verifying.verify(&token), Ok(claims()));
}
