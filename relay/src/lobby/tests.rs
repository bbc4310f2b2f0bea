//! Requests and their answers, one by one; and any history of them leaves nothing behind.

use parlor_transport::error::Code;
use parlor_transport::id::{AppId, LoginId, RoomId, StreamId, UserId, UserName};
use parlor_transport::token::Token;
use parlor_transport::wire::control::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::room::index::MemoryIndex;

mod features;
mod moderation;
mod tokens;

const NOW: Timestamp = Timestamp::ZERO;
const DATE: UnixTime = UnixTime::from_secs(1_000_000);

fn lobby_with(limits: Limits) -> Lobby {
    Lobby::new([App::open(AppId::dev())], limits.clone(), Box::new(MemoryIndex::new(limits, 1)), resume_key())
}

fn resume_key() -> ResumeKey {
    ResumeKey::from_bytes(&[3; 32])
}

fn lobby() -> Lobby {
    lobby_with(Limits::default())
}

fn hello() -> ClientMessage {
    ClientMessage::Hello(Hello {
        version_min: VERSION,
        version_max: VERSION,
        features: 0,
        agent: "test".into(),
    })
}

/// Every join is a login of its own.
fn new_login() -> LoginId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    LoginId(u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes())
}

fn join(room: &str, user: &str) -> ClientMessage {
    ClientMessage::Join(Join {
        request: 1,
        app: AppId::dev(),
        room: RoomId::new(room).unwrap(),
        user: UserId::new(user).unwrap(),
        name: UserName::new("").unwrap(),
        login: new_login(),
        token: None,
        presence: Presence::default(),
    })
}

fn publish(request: u32, stream: &str) -> ClientMessage {
    let track =
        TrackInfo { kind: TrackKind::Video, codec: String::new(), spatial_layers: 1, temporal_layers: 1 };
    ClientMessage::Publish(Publish {
        request,
        stream: StreamId::new(stream).unwrap(),
        tracks: vec![track],
        delivery: Delivery::Datagram,
    })
}

fn play(request: u32, stream: &str) -> ClientMessage {
    ClientMessage::Play(Play { request, stream: StreamId::new(stream).unwrap(), wishes: vec![] })
}

fn stop_play(request: u32, stream: &str) -> ClientMessage {
    ClientMessage::StopPlay(StopPlay { request, stream: StreamId::new(stream).unwrap() })
}

fn unpublish(request: u32, stream: &str) -> ClientMessage {
    ClientMessage::Unpublish(Unpublish { request, stream: StreamId::new(stream).unwrap() })
}

/// What is to be done, as words: `session: what`, room outputs left out.
fn outputs(lobby: &mut Lobby) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(output) = lobby.poll_output() {
        let Output::Notice(session, notice) = output else { continue };
        let what = match notice {
            Notice::Send(message) => match message {
                RelayMessage::Welcome(_) => "Welcome".to_owned(),
                RelayMessage::Joined(joined) => format!("Joined {}", joined.users),
                RelayMessage::Done(done) => format!("Done {}", done.request),
                RelayMessage::Published(published) => format!("Published {}", published.request),
                RelayMessage::PlayStarted(started) => {
                    format!("PlayStarted {} {}", started.lane, started.user)
                }
                RelayMessage::PlayWaiting(waiting) => format!("PlayWaiting {}", waiting.lane),
                RelayMessage::PlayEnded(ended) => format!("PlayEnded {} {:?}", ended.lane, ended.reason),
                RelayMessage::Refused(refused) => {
                    format!("Refused {} {:?}", refused.request, refused.refusal.code)
                }
                other => format!("{other:?}"),
            },
            Notice::Entered { .. } => "events on".to_owned(),
            Notice::PublishStarted { lane, .. } => format!("in {lane} on"),
            Notice::PublishEnded { lane } => format!("in {lane} off"),
            Notice::PlayStarted { lane, .. } => format!("out {lane} on"),
            Notice::PlayChanged { lane, .. } => format!("out {lane} changed"),
            Notice::PlayPaused { lane } => format!("out {lane} paused"),
            Notice::PlayEnded { lane } => format!("out {lane} off"),
            Notice::Left => "events off".to_owned(),
            Notice::KeyframeAsked { lane, track } => format!("keyframe {lane}/{track}"),
            Notice::Close(refusal) => format!("Close {:?}", refusal.code),
        };
        words.push(format!("{}: {what}", session.0));
    }
    words
}

fn tell(lobby: &mut Lobby, session: u64, message: ClientMessage) -> Vec<String> {
    lobby.handle(NOW, DATE, SessionId(session), message);
    outputs(lobby)
}

/// A new connection of `user` in room "r".
fn enter(lobby: &mut Lobby, user: &str) -> u64 {
    let session = lobby.connect(NOW).unwrap().0;
    tell(lobby, session, hello());
    tell(lobby, session, join("r", user));
    session
}

#[test]
fn join_publish_and_play_in_one_flight() {
    let mut lobby = lobby();
    let session = lobby.connect(NOW).unwrap();
    for message in [hello(), join("r", "u1"), publish(2, "cam"), play(3, "cam"), play(4, "other")] {
        lobby.handle(NOW, DATE, session, message);
    }
    assert_eq!(
        outputs(&mut lobby),
        [
            "1: Welcome",
            "1: Joined 1",
            "1: events on",
            "1: in 2 on",
            "1: Published 2",
            "1: PlayStarted 3 u1",
            "1: out 3 on",
            "1: PlayWaiting 4",
        ]
    );
}

#[test]
fn a_play_waits_starts_ends_waits_again_and_stops() {
    let mut lobby = lobby();
    let (u1, u2) = (enter(&mut lobby, "u1"), enter(&mut lobby, "u2"));
    assert_eq!(tell(&mut lobby, u2, play(7, "cam")), ["2: PlayWaiting 7"]);
    let start = ["1: in 2 on", "1: Published 2", "2: PlayStarted 7 u1", "2: out 7 on"];
    assert_eq!(tell(&mut lobby, u1, publish(2, "cam")), start);
    let keyframe = ClientMessage::RequestKeyframe(RequestKeyframe { lane: 7, track: 0 });
    assert_eq!(tell(&mut lobby, u2, keyframe), ["2: keyframe 7/0"]);
    assert_eq!(
        tell(&mut lobby, u1, unpublish(3, "cam")),
        ["1: in 2 off", "2: out 7 paused", "2: PlayEnded 7 Left", "1: Done 3"]
    );
    assert_eq!(tell(&mut lobby, u1, publish(4, "cam")).len(), 4);
    lobby.disconnect(NOW, SessionId(u1), Departure::HeartbeatTimeout);
    assert_eq!(outputs(&mut lobby), ["1: in 4 off", "2: out 7 paused", "2: PlayEnded 7 HeartbeatTimeout"]);
    assert_eq!(tell(&mut lobby, u2, stop_play(8, "cam")), ["2: out 7 off", "2: Done 8"]);
    assert_eq!(tell(&mut lobby, u2, stop_play(9, "cam")), ["2: Refused 9 NotPlaying"]);
    assert_eq!(lobby.survey().play_entries, 0);
}

#[test]
fn the_later_publisher_is_refused_and_the_first_not_touched() {
    let mut lobby = lobby();
    let (u1, u2) = (enter(&mut lobby, "u1"), enter(&mut lobby, "u2"));
    tell(&mut lobby, u1, publish(2, "cam"));
    assert_eq!(tell(&mut lobby, u2, publish(2, "cam")), ["2: Refused 2 StreamTaken"]);
    assert_eq!(tell(&mut lobby, u1, publish(3, "cam")), ["1: Refused 3 AlreadyPublishing"]);
    assert_eq!(tell(&mut lobby, u2, publish(2, "cam2")), ["2: in 2 on", "2: Published 2"]);
    assert_eq!(lobby.survey().streams, 2);
}

#[test]
fn a_repeated_login_ends_the_earlier_stay_wherever_it_is() {
    let mut lobby = lobby();
    let u1 = enter(&mut lobby, "u1");
    tell(&mut lobby, u1, publish(2, "cam"));
    tell(&mut lobby, u1, play(3, "cam"));
    let again = lobby.connect(NOW).unwrap().0;
    tell(&mut lobby, again, hello());
    assert_eq!(
        tell(&mut lobby, again, join("elsewhere", "u1")),
        [
            "1: in 2 off",
            "1: out 3 paused",
            "1: PlayEnded 3 RepeatedLogin",
            "1: out 3 off",
            "1: events off",
            "1: Close RepeatedLogin",
            "2: Joined 1",
            "2: events on",
        ]
    );
    lobby.disconnect(NOW, SessionId(u1), Departure::Disconnected);
    assert_eq!(outputs(&mut lobby), [""; 0], "the new stay goes on");
    assert_eq!((lobby.survey().users, lobby.survey().rooms), (1, 1));
}

#[test]
fn what_comes_out_of_order_is_refused_or_ends_the_connection() {
    let mut lobby = lobby();
    let fresh = |lobby: &mut Lobby| lobby.connect(NOW).unwrap().0;
    let early = fresh(&mut lobby);
    assert_eq!(tell(&mut lobby, early, join("r", "u1")), ["1: Close ProtocolViolation"]);
    let old = fresh(&mut lobby);
    let versions = Hello { version_min: 7, version_max: 9, features: 0, agent: String::new() };
    assert_eq!(tell(&mut lobby, old, ClientMessage::Hello(versions)), ["2: Close VersionMismatch"]);

    let u1 = fresh(&mut lobby);
    tell(&mut lobby, u1, hello());
    for (message, answer) in [
        (publish(1, "cam"), "3: Refused 1 NotJoined"),
        (play(1, "cam"), "3: Refused 1 NotJoined"),
        (unpublish(1, "cam"), "3: Refused 1 NotJoined"),
        (ClientMessage::Leave(Leave { request: 1 }), "3: Refused 1 NotJoined"),
        (stop_play(1, "cam"), "3: Refused 1 NotPlaying"),
    ] {
        assert_eq!(tell(&mut lobby, u1, message), [answer]);
    }
    assert_eq!(tell(&mut lobby, u1, join("r", "u1")), ["3: Joined 1", "3: events on"]);
    assert_eq!(tell(&mut lobby, u1, join("r2", "u1")), ["3: Refused 1 AlreadyJoined"]);
    assert_eq!(tell(&mut lobby, u1, play(5, "cam")), ["3: PlayWaiting 5"]);
    assert_eq!(tell(&mut lobby, u1, play(6, "cam")), ["3: Refused 6 AlreadyPlaying"]);
    assert_eq!(tell(&mut lobby, u1, play(u32::MAX, "b")), [format!("3: Refused {} TooLarge", u32::MAX)]);
    let leave = ClientMessage::Leave(Leave { request: 9 });
    assert_eq!(tell(&mut lobby, u1, leave), ["3: out 5 off", "3: events off", "3: Done 9"]);
    assert_eq!(tell(&mut lobby, u1, join("r", "u1")), ["3: Refused 1 AlreadyJoined"]);
    assert_eq!(tell(&mut lobby, u1, hello()), ["3: Close ProtocolViolation"]);

    let u2 = enter(&mut lobby, "u2");
    tell(&mut lobby, u2, play(5, "cam"));
    assert_eq!(tell(&mut lobby, u2, publish(5, "mic")), ["4: Close ProtocolViolation"]);
}

#[test]
fn every_limit_is_a_refusal_that_names_it() {
    let limits = Limits {
        connections_max: 3,
        users_per_room_max: 2,
        publish_max: 1,
        play_max: 1,
        ..Limits::default()
    };
    let mut lobby = lobby_with(limits);
    let u1 = enter(&mut lobby, "u1");
    enter(&mut lobby, "u2");
    let u3 = lobby.connect(NOW).unwrap().0;
    tell(&mut lobby, u3, hello());
    assert_eq!(tell(&mut lobby, u3, join("r", "u3")), ["3: Refused 1 RoomFull"]);
    let mut other_app = join("r2", "u3");
    if let ClientMessage::Join(join) = &mut other_app {
        join.app = AppId::new("shop").unwrap();
    }
    assert_eq!(tell(&mut lobby, u3, other_app), ["3: Refused 1 UnknownApp"]);
    assert_eq!(tell(&mut lobby, u3, join("r2", "u3")), ["3: Joined 1", "3: events on"], "it may try again");
    assert_eq!(lobby.connect(NOW).unwrap_err().code, Code::RelayFull);
    tell(&mut lobby, u1, publish(2, "a"));
    assert_eq!(tell(&mut lobby, u1, publish(3, "b")), ["1: Refused 3 TooManyStreams"]);
    tell(&mut lobby, u1, play(4, "a"));
    assert_eq!(tell(&mut lobby, u1, play(5, "b")), ["1: Refused 5 TooManyPlays"]);
    let mut silly = publish(6, "c");
    if let ClientMessage::Publish(publish) = &mut silly {
        publish.tracks[0].spatial_layers = 9;
    }
    assert_eq!(tell(&mut lobby, u1, silly), ["1: Refused 6 BadTracks"]);
    let update =
        UpdatePlay { request: 7, stream: StreamId::new("a").unwrap(), wishes: vec![TrackWish::all(0); 9] };
    assert_eq!(tell(&mut lobby, u1, ClientMessage::UpdatePlay(update)), ["1: Refused 7 TooLarge"]);
}

#[test]
fn a_full_machine_takes_nobody_and_who_is_here_may_come_back() {
    let mut lobby = lobby();
    let u1 = enter(&mut lobby, "u1");
    lobby.set_full(true);
    let u2 = lobby.connect(NOW).unwrap().0;
    tell(&mut lobby, u2, hello());
    assert_eq!(tell(&mut lobby, u2, join("r", "u2")), ["2: Refused 1 RelayOverloaded"]);
    lobby.lose(NOW, SessionId(u1), Departure::HeartbeatTimeout);
    let back = lobby.connect(NOW).unwrap().0;
    tell(&mut lobby, back, hello());
    let secret = resume_key().secret_of(SessionId(u1));
    let resume = Resume { request: 5, session: SessionId(u1), secret, attempt: new_login(), known: None };
    let told = tell(&mut lobby, back, ClientMessage::Resume(resume));
    assert!(told[0].starts_with("1: Resumed"), "{told:?}");
    lobby.set_full(false);
    assert_eq!(tell(&mut lobby, u2, join("r", "u2"))[0], "2: Joined 2");
    assert_eq!(lobby.tally().refused[&Code::RelayOverloaded], 1);
}

#[test]
fn a_flood_of_requests_ends_the_connection_and_a_steady_stream_does_not() {
    let mut lobby = lobby();
    let u1 = enter(&mut lobby, "u1");
    let probe = || ClientMessage::ProbeClock(ProbeClock { sent: NOW });
    for tenth in 1..=500u64 {
        for _ in 0..10 {
            lobby.handle(Timestamp::from_micros(tenth * 100_000), DATE, SessionId(u1), probe());
        }
    }
    assert!(outputs(&mut lobby).iter().all(|output| !output.contains("Close")));
    let end = Timestamp::from_micros(50_000_000);
    (0..Limits::default().requests_burst_max).for_each(|_| lobby.handle(end, DATE, SessionId(u1), probe()));
    assert_eq!(outputs(&mut lobby).last().unwrap(), "1: Close TooManyRequests");
}

#[derive(Clone, Debug)]
enum Step {
    Connect,
    Disconnect(u64),
    Tell(u64, ClientMessage),
}

fn step() -> impl Strategy<Value = Step> {
    let session = || 1..8u64;
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let message = prop_oneof![
        2 => Just(hello()),
        4 => (name(), name()).prop_map(|(room, user)| join(room, user)),
        1 => (0..50u32).prop_map(|request| ClientMessage::Leave(Leave { request })),
        1 => (0..50u32).prop_map(|request| {
            ClientMessage::RenewToken(RenewToken { request, token: Token::new("any").unwrap() })
        }),
        4 => (0..50u32, name()).prop_map(|(request, stream)| publish(request, stream)),
        2 => (0..50u32, name()).prop_map(|(request, stream)| unpublish(request, stream)),
        4 => (0..50u32, name()).prop_map(|(request, stream)| play(request, stream)),
        2 => (0..50u32, name()).prop_map(|(request, stream)| stop_play(request, stream)),
    ];
    prop_oneof![
        2 => Just(Step::Connect),
        1 => session().prop_map(Step::Disconnect),
        9 => (session(), message).prop_map(|(session, message)| Step::Tell(session, message)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Plays and publications that connections were told of are held here as they would be there.
    #[test]
    fn any_history_leaves_nothing_behind(steps in prop::collection::vec(step(), 1..150)) {
        let mut lobby = lobby_with(Limits { publish_max: 2, play_max: 2, ..Limits::default() });
        let mut open: BTreeSet<(SessionId, u32, bool)> = BTreeSet::new();
        let mut gone: BTreeSet<SessionId> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Connect => _ = lobby.connect(NOW),
                Step::Disconnect(session) => {
                    lobby.disconnect(NOW, SessionId(session), Departure::Disconnected);
                    open.retain(|(other, ..)| other.0 != session);
                }
                Step::Tell(session, message) => lobby.handle(NOW, DATE, SessionId(session), message),
            }
            while let Some(output) = lobby.poll_output() {
                let Output::Notice(session, notice) = output else { continue };
                match notice {
                    Notice::PublishStarted { lane, .. } => prop_assert!(open.insert((session, lane, false))),
                    Notice::PublishEnded { lane } => _ = open.remove(&(session, lane, false)),
                    Notice::PlayStarted { lane, .. } => prop_assert!(open.insert((session, lane, true))),
                    Notice::PlayPaused { lane } | Notice::PlayEnded { lane } => {
                        open.remove(&(session, lane, true));
                    }
                    Notice::Close(_) => {
                        lobby.disconnect(NOW, session, Departure::Disconnected);
                        gone.insert(session);
                    }
                    _ => {}
                }
            }
            open.retain(|(session, ..)| !gone.contains(session));
            let survey = lobby.survey();
            prop_assert_eq!(survey.streams, open.iter().filter(|(.., play)| !play).count());
            prop_assert_eq!(survey.plays, survey.play_entries);
            prop_assert!(survey.plays >= open.iter().filter(|(.., play)| *play).count());
        }
        for session in 1..=lobby.sessions {
            lobby.disconnect(NOW, SessionId(session), Departure::Disconnected);
        }
        while lobby.poll_output().is_some() {}
        prop_assert_eq!(lobby.survey(), Survey::default());
    }
}
