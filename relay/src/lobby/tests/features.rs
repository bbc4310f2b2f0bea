//! Messages, states, infos and presence: who gets what, and what is refused before anything happens.

use parlor_transport::id::SessionId;

use super::*;

fn enter_as(lobby: &mut Lobby, user: &str, presence: Presence) -> u64 {
    let session = lobby.connect(NOW).unwrap().0;
    tell(lobby, session, hello());
    let ClientMessage::Join(join) = join("r", user) else { panic!("a join") };
    tell(lobby, session, ClientMessage::Join(Join { presence, ..join }));
    session
}

fn users(to: &[&str]) -> Vec<UserId> {
    to.iter().map(|user| UserId::new(user).unwrap()).collect()
}

/// Says something; gives who gets it, or the code of the refusal.
fn say(lobby: &mut Lobby, now: Timestamp, from: u64, to: &[&str], bytes: usize) -> Result<Vec<u64>, Code> {
    let say = Say { request: 9, to: users(to), lossy: false, payload: vec![7; bytes].into() };
    lobby.handle_app_message(now, SessionId(from), AppMessage::Say(say));
    match lobby.poll_output().expect("an answer") {
        Output::Message { to, .. } => {
            let done = lobby.poll_output();
            assert!(matches!(done, Some(Output::Notice(_, Notice::Send(RelayMessage::Done(_))))), "{done:?}");
            Ok(to.into_iter().map(|session| session.0).collect())
        }
        Output::Notice(_, Notice::Send(RelayMessage::Refused(refused))) => Err(refused.refusal.code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_go_to_the_room_or_to_those_listed_once_and_never_back() {
    let mut lobby = lobby();
    let [u1, u2, u3] = ["u1", "u2", "u3"].map(|user| enter(&mut lobby, user));
    assert_eq!(say(&mut lobby, NOW, u1, &[], 1), Ok(vec![u2, u3]));
    assert_eq!(say(&mut lobby, NOW, u1, &["u3", "u1", "u3"], 1), Ok(vec![u3]));
    assert_eq!(say(&mut lobby, NOW, u1, &["u3", "u4"], 1), Err(Code::UnknownUser));
    let early = lobby.connect(NOW).unwrap().0;
    assert_eq!(say(&mut lobby, NOW, early, &[], 1), Err(Code::NotJoined));
    tell(&mut lobby, u2, ClientMessage::Leave(Leave { request: 9 }));
    assert_eq!(say(&mut lobby, NOW, u2, &[], 1), Err(Code::NotJoined));
    assert_eq!(say(&mut lobby, NOW, u1, &[], 1), Ok(vec![u3]));
}

#[test]
fn messages_and_infos_are_paid_for_from_one_budget() {
    let Limits { message_burst_max: burst, message_cost_per_second_max: per_second, .. } = Limits::default();
    let mut lobby = lobby();
    let (u1, u2) = (enter(&mut lobby, "u1"), enter(&mut lobby, "u2"));
    let sent = (0..).take_while(|_| say(&mut lobby, NOW, u1, &[], 16 * 1024).is_ok()).count();
    assert_eq!(sent as u32, burst / 17);
    let info = |value: &str| {
        ClientMessage::SetRoomInfo(SetRoomInfo { request: 3, key: "k".into(), value: value.repeat(1023) })
    };
    let left = burst % 17;
    for _ in 0..left / 2 {
        assert_eq!(tell(&mut lobby, u1, info("x")), ["1: Done 3"]);
    }
    assert_eq!(tell(&mut lobby, u1, info("y")), ["1: Refused 3 TooManyMessages"]);
    assert_eq!(say(&mut lobby, NOW, u2, &[], 1), Ok(vec![u1]), "others have their own");
    let second = Timestamp::from_micros(1_000_000);
    let sent = (0..).take_while(|_| say(&mut lobby, second, u1, &[], 1).is_ok()).count();
    assert_eq!(sent as u32, (per_second + left % 2) / 2);
}

#[test]
fn only_the_publisher_speaks_for_a_stream() {
    let mut lobby = lobby();
    let (u1, u2) = (enter(&mut lobby, "u1"), enter(&mut lobby, "u2"));
    tell(&mut lobby, u1, publish(2, "cam"));
    let stream = StreamId::new("cam").unwrap();
    let state = |track| {
        let (stream, state) = (stream.clone(), TrackState::Muted);
        ClientMessage::SetTrackState(SetTrackState { request: 7, stream, track, state })
    };
    let info = || {
        let (stream, info) = (stream.clone(), "x".to_owned());
        ClientMessage::SetStreamInfo(SetStreamInfo { request: 8, stream, info })
    };
    assert_eq!(tell(&mut lobby, u1, state(0)), ["1: Done 7"]);
    assert_eq!(tell(&mut lobby, u1, state(1)), ["1: Refused 7 BadTracks"]);
    assert_eq!(tell(&mut lobby, u1, info()), ["1: Done 8"]);
    assert_eq!(tell(&mut lobby, u2, state(0)), ["2: Refused 7 NotPublishing"]);
    assert_eq!(tell(&mut lobby, u2, info()), ["2: Refused 8 NotPublishing"]);
    let early = lobby.connect(NOW).unwrap().0;
    tell(&mut lobby, early, hello());
    assert_eq!(tell(&mut lobby, early, info()), ["3: Refused 8 NotJoined"]);
}

#[test]
fn an_unseen_user_hears_the_room_and_is_not_heard() {
    let mut lobby = lobby();
    let u1 = enter(&mut lobby, "u1");
    let unseen = Presence { unseen: true, ..Presence::default() };
    let ghost = enter_as(&mut lobby, "ghost", unseen);
    assert_eq!(tell(&mut lobby, ghost, publish(2, "cam")), ["2: Refused 2 Unseen"]);
    assert_eq!(say(&mut lobby, NOW, ghost, &[], 1), Err(Code::Unseen));
    assert_eq!(say(&mut lobby, NOW, u1, &[], 1), Ok(vec![ghost]));
    assert_eq!(say(&mut lobby, NOW, u1, &["ghost"], 1), Err(Code::UnknownUser));
    assert_eq!((lobby.survey().users, lobby.survey().rooms), (2, 1));
    // The room lives as long as somebody is in it, seen or not.
    lobby.disconnect(NOW, SessionId(u1), Departure::Left);
    assert_eq!((lobby.survey().users, lobby.survey().rooms), (1, 1));
    let back = enter_as(&mut lobby, "ghost", Presence::default());
    assert_eq!(outputs(&mut lobby), [""; 0]);
    assert_eq!(tell(&mut lobby, back, publish(2, "cam")), ["3: in 2 on", "3: Published 2"]);
    lobby.disconnect(NOW, SessionId(back), Departure::Left);
    lobby.disconnect(NOW, SessionId(ghost), Departure::Left);
    assert_eq!(lobby.survey().rooms, 0);
}

#[test]
fn the_operator_reaches_an_unseen_user_and_a_moderator_does_not_know_of_one() {
    let mut lobby = lobby();
    lobby.report_happenings();
    let unseen = Presence { unseen: true, uninterested: false, publishers_only: false };
    enter_as(&mut lobby, "ghost", unseen);
    enter(&mut lobby, "u1");
    let key = RoomKey { app: AppId::dev(), room: RoomId::new("r").unwrap() };
    let ghost = UserId::new("ghost").unwrap();
    let banned = lobby.forbid_publish(NOW, DATE, &key, &ghost, super::super::moderation::Ban::Stay);
    assert_eq!(banned.unwrap_err().code, Code::NotFound);
    lobby.kick(NOW, &key.app, Some(&key.room), &ghost).unwrap();
    assert_eq!(outputs(&mut lobby), ["1: events off", "1: Close Kicked"]);
    enter_as(&mut lobby, "ghost", unseen);
    lobby.kick(NOW, &key.app, None, &ghost).unwrap();
    assert_eq!(outputs(&mut lobby), ["3: events off", "3: Close Kicked"]);
    enter_as(&mut lobby, "ghost", unseen);
    assert_eq!(lobby.close_room(NOW, &key), Ok(2));
    assert_eq!((lobby.survey().rooms, lobby.survey().users), (0, 0), "nobody is left in a closed room");
}

#[test]
fn a_room_opens_once_also_when_the_first_one_in_it_is_unseen() {
    let mut lobby = lobby();
    lobby.report_happenings();
    let mut told = Vec::new();
    for (user, unseen) in [("ghost", true), ("u1", false), ("u2", false)] {
        let session = lobby.connect(NOW).unwrap();
        lobby.handle(NOW, DATE, session, hello());
        let ClientMessage::Join(join) = join("r", user) else { panic!("a join") };
        let presence = Presence { unseen, uninterested: false, publishers_only: false };
        lobby.handle(NOW, DATE, session, ClientMessage::Join(Join { presence, ..join }));
        while let Some(output) = lobby.poll_output() {
            if let Output::Happened(happening) = output {
                told.push(happening.what == crate::webhook::What::RoomOpened);
            }
        }
    }
    assert_eq!(told, [true, false, false, false]);
}
