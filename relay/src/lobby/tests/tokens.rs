//! Tokens at the door and in the room: nothing changes for who has not the right one, and every one ends.

use std::time::Duration;

use parlor_transport::token::claims::{Claims, Date};
use parlor_transport::token::keys::{SigningKey, VerifyingKey};

use super::*;

const SECRET: &str = "a secret of more than thirty-two bytes";

fn guarded() -> Lobby {
    let app = App::with_keys(AppId::dev(), vec![VerifyingKey::from_secret(SECRET).unwrap()]).unwrap();
    let limits = Limits::default();
    Lobby::new([app], limits.clone(), Box::new(MemoryIndex::new(limits, 1)), resume_key())
}

/// A token for u1 in room r that lasts `seconds`, changed.
fn token(seconds: u64, change: impl FnOnce(&mut Claims)) -> Token {
    let expires = DATE + Duration::from_secs(seconds);
    let mut claims = Claims::new(AppId::dev(), "u1".parse().unwrap(), "r".parse().unwrap(), expires);
    claims.publish = true;
    change(&mut claims);
    SigningKey::from_secret(SECRET).unwrap().sign(&claims).unwrap()
}

fn join_with(token: Option<Token>) -> ClientMessage {
    let ClientMessage::Join(plain) = join("r", "u1") else { panic!("a join") };
    ClientMessage::Join(Join { token, ..plain })
}

fn renew(request: u32, token: Token) -> ClientMessage {
    ClientMessage::RenewToken(RenewToken { request, token })
}

fn guest(lobby: &mut Lobby) -> u64 {
    let session = lobby.connect(NOW).unwrap().0;
    tell(lobby, session, hello());
    session
}

/// What comes out when `ms` have passed since [`NOW`] and [`DATE`].
fn pass(lobby: &mut Lobby, ms: u64) -> Vec<String> {
    let passed = Duration::from_millis(ms);
    lobby.handle_timeout(NOW + passed, DATE + passed);
    outputs(lobby)
}

#[test]
fn a_wrong_token_is_refused_before_anything_changes() {
    let mut lobby = guarded();
    let session = guest(&mut lobby);
    let forged = SigningKey::from_secret("another secret of more than thirty-two bytes").unwrap();
    let inside = token(60, |_| {});
    let payload = inside.as_str().split('.').nth(1).unwrap();
    let none = Token::new(format!("eyJhbGciOiJub25lIn0.{payload}.")).unwrap();
    let mine = Claims::new(
        AppId::dev(),
        "u1".parse().unwrap(),
        "r".parse().unwrap(),
        DATE + Duration::from_secs(60),
    );
    for (token, code) in [
        (None, "TokenMissing"),
        (Some(forged.sign(&mine).unwrap()), "TokenInvalid"),
        (Some(none), "TokenInvalid"),
        (Some(token(0, |_| {})), "TokenExpired"),
        (
            Some(token(60, |claims| claims.nbf = Some(Date(DATE + Duration::from_secs(9))))),
            "TokenNotYetValid",
        ),
        (Some(token(60, |claims| claims.app.0 = AppId::new("bank").unwrap())), "TokenForOther"),
        (Some(token(60, |claims| claims.room = "r2*".parse().unwrap())), "TokenForOther"),
        (Some(token(60, |claims| claims.user.0 = "u2".parse().unwrap())), "TokenForOther"),
        (Some(token(60, |claims| claims.join = false)), "JoinForbidden"),
    ] {
        assert_eq!(tell(&mut lobby, session, join_with(token)), [format!("1: Refused 1 {code}")]);
        let survey = lobby.survey();
        assert_eq!((survey.rooms, survey.users, survey.pending), (0, 0, 0), "{code}");
        assert_eq!((lobby.is_joined(SessionId(session)), lobby.poll_timeout()), (false, None), "{code}");
    }
    let joined = tell(&mut lobby, session, join_with(Some(inside)));
    assert_eq!(joined, ["1: Joined 1", "1: events on"], "it may try again");
}

#[test]
fn publishing_needs_the_right_and_the_stream_id() {
    let mut lobby = guarded();
    let session = guest(&mut lobby);
    tell(&mut lobby, session, join_with(Some(token(600, |claims| claims.publish = false))));
    assert_eq!(tell(&mut lobby, session, publish(2, "cam")), ["1: Refused 2 PublishForbidden"]);
    let listed = |names: &[&str]| {
        let streams = names.iter().map(|name| name.parse().unwrap()).collect();
        token(600, |claims| claims.streams = Some(streams))
    };
    assert_eq!(tell(&mut lobby, session, renew(3, listed(&["u1-*"]))), ["1: Done 3"]);
    assert_eq!(tell(&mut lobby, session, publish(2, "cam")), ["1: Refused 2 StreamNotAllowed"]);
    assert_eq!(lobby.survey().streams, 0);
    assert_eq!(tell(&mut lobby, session, publish(2, "u1-cam")), ["1: in 2 on", "1: Published 2"]);
    assert_eq!(tell(&mut lobby, session, publish(4, "u1-mic")), ["1: in 4 on", "1: Published 4"]);
    // What the next token does not allow any more ends, and only that.
    assert_eq!(
        tell(&mut lobby, session, renew(5, listed(&["*-mic"]))),
        ["1: Done 5", "1: Refused 2 StreamNotAllowed", "1: in 2 off"]
    );
    assert_eq!(lobby.survey().streams, 1);
}

#[test]
fn a_token_is_told_to_expire_renewed_and_at_last_enforced() {
    let mut lobby = guarded();
    let session = guest(&mut lobby);
    tell(&mut lobby, session, join_with(Some(token(100, |_| {}))));
    tell(&mut lobby, session, publish(2, "cam"));
    assert_eq!(lobby.poll_timeout(), Some(NOW + Duration::from_secs(60)), "the date is asked once a minute");
    assert_eq!(pass(&mut lobby, 60_000), [""; 0]);
    assert_eq!(lobby.poll_timeout(), Some(NOW + Duration::from_secs(70)));
    assert_eq!(pass(&mut lobby, 70_000), ["1: TokenExpiring(TokenExpiring { seconds: 30 })"]);
    assert_eq!(pass(&mut lobby, 70_001), [""; 0], "told once");

    let other = token(600, |claims| claims.user.0 = "u2".parse().unwrap());
    assert_eq!(tell(&mut lobby, session, renew(3, other)), ["1: Refused 3 TokenForOther"]);
    assert_eq!(lobby.poll_timeout(), Some(NOW + Duration::from_secs(110)), "the old one still holds");
    assert_eq!(tell(&mut lobby, session, renew(4, token(200, |_| {}))), ["1: Done 4"]);
    assert_eq!(pass(&mut lobby, 169_999), [""; 0]);
    assert_eq!(pass(&mut lobby, 170_000), ["1: TokenExpiring(TokenExpiring { seconds: 30 })"]);
    assert_eq!(pass(&mut lobby, 209_999), [""; 0], "within the grace");
    assert_eq!(pass(&mut lobby, 210_000), ["1: in 2 off", "1: events off", "1: Close TokenExpired"]);
    assert_eq!((lobby.survey().users, lobby.poll_timeout()), (0, None));
}

#[test]
fn a_short_token_is_told_at_half_its_time_and_leaving_forgets_it() {
    let mut lobby = guarded();
    let session = guest(&mut lobby);
    tell(&mut lobby, session, join_with(Some(token(7, |_| {}))));
    assert_eq!(lobby.poll_timeout(), Some(NOW + Duration::from_millis(3_500)));
    assert_eq!(pass(&mut lobby, 3_500), ["1: TokenExpiring(TokenExpiring { seconds: 3 })"]);
    tell(&mut lobby, session, ClientMessage::Leave(Leave { request: 9 }));
    assert_eq!(lobby.poll_timeout(), None);
    assert_eq!(tell(&mut lobby, session, renew(10, token(60, |_| {}))), ["1: Refused 10 NotJoined"]);
    let second = guest(&mut lobby);
    tell(&mut lobby, second, join_with(Some(token(7, |_| {}))));
    lobby.disconnect(NOW, SessionId(second), Departure::Disconnected);
    assert_eq!((lobby.poll_timeout(), lobby.survey().users), (None, 0));
}

#[test]
fn who_renews_with_the_same_token_is_not_told_in_a_circle() {
    let mut lobby = guarded();
    let session = guest(&mut lobby);
    let same = token(100, |_| {});
    tell(&mut lobby, session, join_with(Some(same.clone())));
    let mut told = Vec::new();
    let ended = loop {
        let due = lobby.poll_timeout().unwrap();
        let passed = due.saturating_since(NOW);
        lobby.handle_timeout(due, DATE + passed);
        match outputs(&mut lobby).pop() {
            Some(end) if end.contains("Close") => break passed,
            Some(_) => {
                told.push(passed.as_secs());
                lobby.handle(
                    due,
                    DATE + passed,
                    SessionId(session),
                    renew(9 + told.len() as u32, same.clone()),
                );
                outputs(&mut lobby);
            }
            None => {}
        }
    };
    assert_eq!(told, [70, 85, 92, 96, 98, 99, 100]);
    assert_eq!(ended, Duration::from_secs(110));
}

#[test]
fn tokens_that_are_looked_at_are_few() {
    let mut lobby = guarded();
    let session = guest(&mut lobby);
    let wrong = token(0, |_| {});
    let refused = (0..20)
        .take_while(|_| {
            tell(&mut lobby, session, join_with(Some(wrong.clone()))) == ["1: Refused 1 TokenExpired"]
        })
        .count();
    assert_eq!(refused, 11);
    assert_eq!(tell(&mut lobby, session, join_with(Some(wrong))), ["1: Close TooManyRequests"]);
}

#[test]
fn a_date_that_jumps_moves_the_end() {
    let mut lobby = guarded();
    let session = guest(&mut lobby);
    tell(&mut lobby, session, join_with(Some(token(1_000, |_| {}))));
    // Set an hour ahead: noticed within a minute.
    lobby.handle_timeout(NOW + Duration::from_secs(60), DATE + Duration::from_secs(3_660));
    assert_eq!(outputs(&mut lobby).last().unwrap(), "1: Close TokenExpired");
    let second = guest(&mut lobby);
    tell(&mut lobby, second, join_with(Some(token(100, |_| {}))));
    // Set an hour back: the token lasts as long as it says.
    lobby.handle_timeout(NOW + Duration::from_secs(110), DATE - Duration::from_secs(3_490));
    assert_eq!(outputs(&mut lobby), [""; 0]);
    assert!(lobby.is_joined(SessionId(second)));
}

#[test]
fn keys_change_for_whoever_comes_next() {
    let mut lobby = guarded();
    let session = guest(&mut lobby);
    tell(&mut lobby, session, join_with(Some(token(600, |_| {}))));
    let other = VerifyingKey::from_secret("another secret of more than thirty-two bytes").unwrap();
    lobby.set_apps([App::with_keys(AppId::dev(), vec![other]).unwrap()]);
    assert_eq!(outputs(&mut lobby), [""; 0]);
    assert_eq!(tell(&mut lobby, session, renew(3, token(700, |_| {}))), ["1: Refused 3 TokenInvalid"]);
    assert_eq!(tell(&mut lobby, session, publish(2, "cam")), ["1: in 2 on", "1: Published 2"]);
    lobby.set_apps([]);
    assert_eq!(tell(&mut lobby, session, renew(4, token(700, |_| {}))), ["1: Refused 4 UnknownApp"]);
}
