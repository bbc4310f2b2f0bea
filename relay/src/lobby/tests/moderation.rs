//! What moderators and the operator do to others, and whom it reaches.

use std::time::Duration;

use parlor_transport::token::claims::Claims;
use parlor_transport::token::keys::{SigningKey, VerifyingKey};

use super::super::moderation::Ban;
use super::*;
use crate::limits::{BANS_MAX, BANS_PER_ROOM_MAX};

const SECRET: &str = "a secret of more than thirty-two bytes";

fn key(room: &str) -> RoomKey {
    RoomKey { app: AppId::dev(), room: RoomId::new(room).unwrap() }
}

fn user(user: &str) -> UserId {
    UserId::new(user).unwrap()
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> Code {
    outcome.unwrap_err().code
}

/// An app with tokens, u1 who moderates and u2 who does not, both in room "r".
fn moderated() -> (Lobby, u64, u64) {
    let app = App::with_keys(AppId::dev(), vec![VerifyingKey::from_secret(SECRET).unwrap()]).unwrap();
    let limits = Limits::default();
    let mut lobby = Lobby::new([app], limits.clone(), Box::new(MemoryIndex::new(limits, 1)), resume_key());
    let mut enter = |user: &str, moderate: bool| {
        let session = lobby.connect(NOW).unwrap().0;
        tell(&mut lobby, session, hello());
        let expires = DATE + Duration::from_secs(3600);
        let claims = Claims::new(AppId::dev(), user.parse().unwrap(), "r".parse().unwrap(), expires);
        let claims = Claims { publish: true, moderate, ..claims };
        let token = SigningKey::from_secret(SECRET).unwrap().sign(&claims).unwrap();
        let ClientMessage::Join(plain) = join("r", user) else { panic!("a join") };
        tell(&mut lobby, session, ClientMessage::Join(Join { token: Some(token), ..plain }));
        session
    };
    let (u1, u2) = (enter("u1", true), enter("u2", false));
    (lobby, u1, u2)
}

fn moderate(request: u32, action: ModerateAction) -> ClientMessage {
    ClientMessage::Moderate(Moderate { request, action })
}

fn kick(request: u32, who: &str) -> ClientMessage {
    moderate(request, ModerateAction::Kick { user: user(who) })
}

#[test]
fn who_is_kicked_goes_with_their_streams_and_does_not_come_back_on_that_connection() {
    let mut lobby = lobby();
    let (ann, bob) = (enter(&mut lobby, "ann"), enter(&mut lobby, "bob"));
    tell(&mut lobby, bob, publish(2, "cam"));
    tell(&mut lobby, ann, play(2, "cam"));
    let dev = AppId::dev();
    lobby.kick(NOW, &dev, None, &user("bob")).unwrap();
    assert_eq!(
        outputs(&mut lobby),
        [
            format!("{bob}: in 2 off"),
            format!("{ann}: out 2 paused"),
            format!("{ann}: PlayEnded 2 Kicked"),
            format!("{bob}: events off"),
            format!("{bob}: Close Kicked"),
        ]
    );
    assert_eq!(tell(&mut lobby, bob, join("r", "bob")), [format!("{bob}: Refused 1 AlreadyJoined")]);
    assert_eq!(code(lobby.kick(NOW, &dev, None, &user("bob"))), Code::NotFound);
    assert_eq!(code(lobby.kick(NOW, &dev, Some(&key("q").room), &user("ann"))), Code::NotFound);
    lobby.kick(NOW, &dev, Some(&key("r").room), &user("ann")).unwrap();
    lobby.disconnect(NOW, SessionId(ann), Departure::Disconnected);
    lobby.disconnect(NOW, SessionId(bob), Departure::Disconnected);
    outputs(&mut lobby);
    assert_eq!(lobby.survey(), Survey::default());
}

#[test]
fn a_closed_room_is_empty_and_a_new_one_can_be_opened() {
    let mut lobby = lobby();
    let (ann, bob) = (enter(&mut lobby, "ann"), enter(&mut lobby, "bob"));
    tell(&mut lobby, bob, publish(2, "cam"));
    assert_eq!(lobby.close_room(NOW, &key("r")), Ok(2));
    let words = outputs(&mut lobby);
    for session in [ann, bob] {
        assert!(words.contains(&format!("{session}: Close RoomClosed")), "{words:?}");
    }
    assert_eq!(code(lobby.close_room(NOW, &key("r"))), Code::NotFound);
    assert_eq!(lobby.list_rooms(None, None, 10), []);
    let again = enter(&mut lobby, "ann");
    assert_eq!(lobby.list_rooms(Some(&AppId::dev()), None, 10)[0].users, 1);
    assert!(lobby.is_joined(SessionId(again)));
}

#[test]
fn a_removed_stream_ends_and_may_come_again_a_forbidden_one_may_not() {
    let mut lobby = lobby();
    let (ann, bob) = (enter(&mut lobby, "ann"), enter(&mut lobby, "bob"));
    tell(&mut lobby, bob, publish(2, "cam"));
    tell(&mut lobby, ann, play(2, "cam"));
    let cam = StreamId::new("cam").unwrap();
    lobby.remove_stream(NOW, &key("r"), &cam).unwrap();
    assert_eq!(
        outputs(&mut lobby),
        [
            format!("{bob}: Refused 2 StreamRemoved"),
            format!("{bob}: in 2 off"),
            format!("{ann}: out 2 paused"),
            format!("{ann}: PlayEnded 2 RemovedByServer"),
        ]
    );
    assert_eq!(code(lobby.remove_stream(NOW, &key("r"), &cam)), Code::NotPublishing);
    tell(&mut lobby, bob, publish(3, "cam"));
    assert_eq!(lobby.survey().streams, 1);

    lobby.forbid_publish(NOW, DATE, &key("r"), &user("bob"), Ban::Stay).unwrap();
    assert_eq!(outputs(&mut lobby)[0], format!("{bob}: Refused 3 PublishBanned"));
    assert_eq!(tell(&mut lobby, bob, publish(4, "cam")), [format!("{bob}: Refused 4 PublishBanned")]);
    assert!(lobby.allow_publish(&key("r"), &user("bob")) && !lobby.allow_publish(&key("r"), &user("bob")));
    assert_eq!(tell(&mut lobby, bob, publish(5, "cam")).len(), 4);

    // Until a date: also for who comes back, and no longer.
    let until = DATE + Duration::from_secs(10);
    lobby.forbid_publish(NOW, DATE, &key("r"), &user("bob"), Ban::Until(until)).unwrap();
    outputs(&mut lobby);
    let again = enter(&mut lobby, "bob");
    assert_eq!(tell(&mut lobby, again, publish(2, "cam")), [format!("{again}: Refused 2 PublishBanned")]);
    lobby.handle(NOW, until, SessionId(again), publish(3, "cam"));
    assert!(outputs(&mut lobby).contains(&format!("{again}: Published 3")));
}

#[test]
fn what_happens_is_told_outside_in_the_order_of_the_room() {
    let told = |lobby: &mut Lobby| {
        let mut words = Vec::new();
        while let Some(output) = lobby.poll_output() {
            if let Output::Happened(happening) = output {
                let what = format!("{:?}", happening.what);
                words.push(what.split([' ', '(']).next().unwrap_or_default().to_owned());
            }
        }
        words
    };
    let mut lobby = lobby();
    lobby.report_happenings();
    let session = lobby.connect(NOW).unwrap();
    for message in [hello(), join("r", "ann"), publish(2, "cam")] {
        lobby.handle(NOW, DATE, session, message);
    }
    assert_eq!(told(&mut lobby), ["RoomOpened", "UserJoined", "StreamAdded"]);
    lobby.close_room(NOW, &key("r")).unwrap();
    assert_eq!(told(&mut lobby), ["StreamRemoved", "UserLeft", "RoomClosed"]);
}

#[test]
fn bans_are_bounded_for_each_room_and_in_all() {
    let mut lobby = lobby();
    let until = Ban::Until(DATE + Duration::from_secs(10));
    let mut count = 0;
    'rooms: for room in 0.. {
        let room = format!("r{room}");
        for number in 0..=BANS_PER_ROOM_MAX {
            let name = format!("u{count}");
            let session = lobby.connect(NOW).unwrap().0;
            tell(&mut lobby, session, hello());
            tell(&mut lobby, session, join(&room, &name));
            let banned = lobby.forbid_publish(NOW, DATE, &key(&room), &user(&name), until);
            lobby.disconnect(NOW, SessionId(session), Departure::Left);
            if number == BANS_PER_ROOM_MAX {
                assert_eq!(code(banned), Code::RelayFull);
            } else if count == BANS_MAX {
                assert_eq!(code(banned), Code::RelayFull);
                break 'rooms;
            } else {
                banned.unwrap();
                count += 1;
            }
        }
    }
    // When they are over they make room.
    let ann = enter(&mut lobby, "ann");
    let later = DATE + Duration::from_secs(10);
    let until = Ban::Until(later + Duration::from_secs(1));
    lobby.forbid_publish(NOW, later, &key("r"), &user("ann"), until).unwrap();
    assert!(lobby.is_joined(SessionId(ann)));
}

#[test]
fn only_who_may_moderate_does_and_only_in_their_room() {
    let (mut lobby, u1, u2) = moderated();
    assert_eq!(tell(&mut lobby, u2, kick(2, "u1")), [format!("{u2}: Refused 2 ModerateForbidden")]);
    assert_eq!(tell(&mut lobby, u1, kick(2, "u9")), [format!("{u1}: Refused 2 NotFound")]);
    let cam = StreamId::new("cam").unwrap();
    let remove = |request| moderate(request, ModerateAction::RemoveStream { stream: cam.clone() });
    assert_eq!(tell(&mut lobby, u1, remove(3)), [format!("{u1}: Refused 3 NotPublishing")]);
    tell(&mut lobby, u2, publish(3, "cam"));
    let words = tell(&mut lobby, u1, remove(4));
    assert_eq!(words.last(), Some(&format!("{u1}: Done 4")), "{words:?}");
    let forbid = ModerateAction::ForbidPublish { user: user("u2"), seconds: 60 };
    tell(&mut lobby, u1, moderate(5, forbid));
    assert_eq!(tell(&mut lobby, u2, publish(4, "cam")), [format!("{u2}: Refused 4 PublishBanned")]);
    assert_eq!(
        tell(&mut lobby, u1, kick(6, "u2")),
        [format!("{u2}: events off"), format!("{u2}: Close Kicked"), format!("{u1}: Done 6")]
    );
    // Also oneself, with an answer.
    assert_eq!(
        tell(&mut lobby, u1, kick(7, "u1")),
        [format!("{u1}: Done 7"), format!("{u1}: events off"), format!("{u1}: Close Kicked")]
    );
    assert_eq!(tell(&mut lobby, u1, kick(8, "u1")), [format!("{u1}: Refused 8 NotJoined")]);
    // In an app without keys nobody does.
    let mut open = super::lobby();
    let ann = enter(&mut open, "ann");
    assert_eq!(tell(&mut open, ann, kick(2, "ann")), [format!("{ann}: Refused 2 ModerateForbidden")]);
}

#[test]
fn a_lobby_that_drains_tells_everyone_and_lets_nobody_in() {
    let mut lobby = lobby();
    let ann = enter(&mut lobby, "ann");
    let silent = lobby.connect(NOW).unwrap().0;
    lobby.drain(Some("parlor://other:4433"));
    let words = outputs(&mut lobby);
    assert!(words.len() == 1 && words[0].starts_with(&format!("{ann}: GoAway")), "{words:?}");
    tell(&mut lobby, silent, hello());
    assert_eq!(tell(&mut lobby, silent, join("r", "bob")), [format!("{silent}: Refused 1 RelayShutdown")]);
    assert_eq!(tell(&mut lobby, ann, publish(2, "cam")).last(), Some(&format!("{ann}: Published 2")));
    assert_eq!(lobby.tally().refused.get(&Code::RelayShutdown), Some(&1));
}
