//! Every way in which a token is not the right one, and its code.

use std::time::Duration;

use parlor_transport::token::claims::Date;
use parlor_transport::token::keys::{Algorithm, KeyId, NewKey, SigningKey};

use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_000_000);

fn app() -> AppId {
    AppId::new("shop").unwrap()
}

fn claims() -> Claims {
    let (user, room) = ("ann".parse().unwrap(), "sales-*".parse().unwrap());
    Claims { publish: true, ..Claims::new(app(), user, room, NOW + Duration::from_secs(60)) }
}

fn pair(algorithm: Algorithm, kid: Option<&str>) -> (SigningKey, VerifyingKey) {
    let signing = match NewKey::generate(algorithm).unwrap() {
        NewKey::Secret(secret) => SigningKey::from_secret(&secret).unwrap(),
        NewKey::Pair { private, .. } => SigningKey::from_private_pem(&private).unwrap(),
    };
    let signing = signing.named(kid.map(|kid| kid.parse::<KeyId>().unwrap()));
    let verifying = signing.verifying_key().unwrap();
    (signing, verifying)
}

fn admit(app: &App, token: Option<&Token>) -> Result<Grants, Code> {
    let (room, user) = (RoomId::new("sales-7").unwrap(), UserId::new("ann").unwrap());
    app.admit(NOW, token, &room, &user).map_err(|refusal| {
        let shown = refusal.to_string();
        assert!(token.is_none_or(|token| !shown.contains(token.as_str())), "{shown}");
        assert!(shown.contains(';'), "says what to do: {shown}");
        refusal.code
    })
}

#[test]
fn a_token_lets_in_whom_it_names_where_and_when_it_says() {
    let (signing, verifying) = pair(Algorithm::Hs256, None);
    let shop = App::with_keys(app(), vec![verifying]).unwrap();
    let with = |change: fn(&mut Claims)| {
        let mut claims = claims();
        change(&mut claims);
        admit(&shop, Some(&signing.sign(&claims).unwrap())).map(|_| ())
    };
    assert_eq!(with(|_| {}), Ok(()));
    assert_eq!(with(|claims| claims.app.0 = AppId::dev()), Err(Code::TokenForOther));
    assert_eq!(with(|claims| claims.user.0 = "bob".parse().unwrap()), Err(Code::TokenForOther));
    assert_eq!(with(|claims| claims.room = "sales".parse().unwrap()), Err(Code::TokenForOther));
    assert_eq!(with(|claims| claims.join = false), Err(Code::JoinForbidden));
    assert_eq!(with(|claims| claims.exp = Date(NOW)), Err(Code::TokenExpired));
    assert_eq!(with(|claims| claims.exp = Date(UnixTime::from_secs(0))), Err(Code::TokenExpired));
    assert_eq!(with(|claims| claims.exp = Date(UnixTime::from_secs(u64::MAX))), Ok(()));
    assert_eq!(with(|claims| claims.nbf = Some(Date(NOW + CLOCK_SKEW_MAX))), Ok(()));
    let later = |claims: &mut Claims| claims.nbf = Some(Date(NOW + CLOCK_SKEW_MAX + Duration::from_secs(1)));
    assert_eq!(with(later), Err(Code::TokenNotYetValid));
    assert_eq!(admit(&shop, None), Err(Code::TokenMissing));
    assert!(admit(&App::open(app()), None).is_ok_and(|grants| grants.expires().is_none()));
}

#[test]
fn only_the_apps_keys_vouch_and_each_in_its_own_way() {
    let (ed, ed_public) = pair(Algorithm::EdDsa, None);
    let (es, es_public) = pair(Algorithm::Es256, None);
    let shop = App::with_keys(app(), vec![ed_public, es_public.clone()]).unwrap();
    for key in [&ed, &es] {
        assert!(admit(&shop, Some(&key.sign(&claims()).unwrap())).is_ok());
    }
    for algorithm in Algorithm::ALL {
        let stranger = pair(algorithm, None).0.sign(&claims()).unwrap();
        assert_eq!(admit(&shop, Some(&stranger)), Err(Code::TokenInvalid), "{algorithm}");
    }
    // {"alg":"none"}; and a public key, which everybody may have, taken for a secret.
    let token = ed.sign(&claims()).unwrap();
    let payload = token.as_str().split('.').nth(1).unwrap();
    let none = Token::new(format!("eyJhbGciOiJub25lIn0.{payload}.")).unwrap();
    assert_eq!(admit(&shop, Some(&none)), Err(Code::TokenInvalid));
    let NewKey::Pair { private, public } = NewKey::generate(Algorithm::EdDsa).unwrap() else {
        panic!("a pair")
    };
    let public_key = VerifyingKey::from_public_pem(Algorithm::EdDsa, &public).unwrap();
    let forged = SigningKey::from_secret(&public).unwrap().sign(&claims()).unwrap();
    let shop = App::with_keys(app(), vec![public_key]).unwrap();
    assert_eq!(admit(&shop, Some(&forged)), Err(Code::TokenInvalid));
    let real = SigningKey::from_private_pem(&private).unwrap().sign(&claims()).unwrap();
    assert!(admit(&shop, Some(&real)).is_ok());
    for text in ["x", "a.b.c", "....", "e30.e30.e30", &"a".repeat(4096)] {
        assert_eq!(admit(&shop, Some(&Token::new(text).unwrap())), Err(Code::TokenInvalid), "{text}");
    }
}

#[test]
fn keys_are_found_by_name_or_all_are_tried() {
    let (old, old_public) = pair(Algorithm::Hs256, Some("1"));
    let (new, new_public) = pair(Algorithm::Hs256, Some("2"));
    let shop = App::with_keys(app(), vec![old_public.clone(), new_public.clone()]).unwrap();
    let token = |key: &SigningKey, kid: Option<&str>| {
        key.clone().named(kid.map(|kid| kid.parse().unwrap())).sign(&claims()).unwrap()
    };
    for (key, right, wrong) in [(&old, "1", "2"), (&new, "2", "1")] {
        assert!(admit(&shop, Some(&token(key, Some(right)))).is_ok());
        assert!(admit(&shop, Some(&token(key, None))).is_ok(), "all are tried");
        assert_eq!(admit(&shop, Some(&token(key, Some(wrong)))), Err(Code::TokenInvalid));
        assert_eq!(admit(&shop, Some(&token(key, Some("3")))), Err(Code::TokenInvalid));
    }
    // A key that the relay knows without a name is tried for any name that it does not know.
    let nameless = App::with_keys(app(), vec![old_public.clone().named(None), new_public.clone()]).unwrap();
    assert!(admit(&nameless, Some(&token(&old, Some("3")))).is_ok());

    assert_eq!(App::with_keys(app(), vec![]).unwrap_err(), AppError::NoKey(app()));
    let same = App::with_keys(app(), vec![old_public.clone(), old_public.clone()]).unwrap_err();
    assert_eq!(same, AppError::SameKey(app(), "1".to_owned()));
    let many = vec![old_public.named(None); KEYS_PER_APP_MAX + 1];
    assert!(matches!(App::with_keys(app(), many).unwrap_err(), AppError::TooManyKeys(..)));
}

#[test]
fn publishing_and_moderating_are_granted_by_name() {
    let (signing, verifying) = pair(Algorithm::Hs256, None);
    let shop = App::with_keys(app(), vec![verifying]).unwrap();
    let grants = |change: fn(&mut Claims)| {
        let mut claims = claims();
        change(&mut claims);
        admit(&shop, Some(&signing.sign(&claims).unwrap())).unwrap()
    };
    let publish = |grants: &Grants, stream: &str| {
        grants.check_publish(&StreamId::new(stream).unwrap()).map_err(|refusal| refusal.code)
    };
    assert_eq!(publish(&grants(|_| {}), "anything"), Ok(()));
    assert_eq!(publish(&grants(|claims| claims.publish = false), "cam"), Err(Code::PublishForbidden));
    let listed =
        grants(|claims| claims.streams = Some(vec!["ann-*".parse().unwrap(), "stage".parse().unwrap()]));
    assert_eq!(publish(&listed, "ann-cam"), Ok(()));
    assert_eq!(publish(&listed, "stage"), Ok(()));
    assert_eq!(publish(&listed, "bob-cam"), Err(Code::StreamNotAllowed));
    assert_eq!(publish(&grants(|claims| claims.streams = Some(vec![])), "cam"), Err(Code::StreamNotAllowed));
    assert!(grants(|claims| claims.moderate = true).may_moderate() && !listed.may_moderate());
    assert!(!Grants { claims: None }.may_moderate());
}
