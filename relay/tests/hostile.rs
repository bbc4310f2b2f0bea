//! If this fails, somebody who means harm costs others frames, or makes the relay hold without a bound.
//!
//! Every attack goes on for seconds beside a call of two, who must not lose a frame, be late, or hear of it. What one bad
//! message does is in `bad_input.rs`; here it is how often and how much.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use parlor_relay::lobby::Survey;
use parlor_relay::{App, Config};
use parlor_transport::error::Code;
use parlor_transport::id::{AppId, LoginId, SessionId, UserId};
use parlor_transport::quic::{ConnectError, Endpoint, Options, QUIC_STREAMS_FIRST, Session};
use parlor_transport::repair::Shape;
use parlor_transport::sim::{self, Direction, Loss, Profile, seeded};
use parlor_transport::token::Token;
use parlor_transport::token::claims::{Claims, Date};
use parlor_transport::token::keys::{Algorithm, NewKey, SigningKey};
use parlor_transport::units::{Timestamp, UnixTime};
use parlor_transport::wire::control::*;
use parlor_transport::wire::feedback::Feedback;
use parlor_transport::wire::frame::OBJECT_MAX;
use parlor_transport::wire::hop::HopHeader;
use parlor_transport::wire::packet::{Packet, Part};
use rand::RngExt;
use support::*;
use tokio::task::JoinSet;

const VIDEO: &[TrackKind] = &[TrackKind::Video];
const FRAME: Duration = Duration::from_micros(33_333);
/// One way for each, and three packets at the pace of a link that is not known yet: the relay waits for nobody.
const AGE_MAX: Duration = Duration::from_millis(52);

/// The most there was of everything while an attack went on.
#[derive(Clone, Copy, Default, Debug)]
struct Peak {
    survey: Survey,
    handshakes: usize,
    unproven: usize,
    origins: usize,
}

impl Peak {
    fn look(&mut self, world: &World) {
        let (survey, gate) = (world.relay.survey(), world.relay.counters().gate);
        let most = &mut self.survey;
        most.connections = most.connections.max(survey.connections);
        most.rooms = most.rooms.max(survey.rooms);
        most.users = most.users.max(survey.users);
        most.streams = most.streams.max(survey.streams);
        most.plays = most.plays.max(survey.plays);
        most.cached_bytes = most.cached_bytes.max(survey.cached_bytes);
        most.queued_bytes = most.queued_bytes.max(survey.queued_bytes);
        most.pending = most.pending.max(survey.pending);
        self.handshakes = self.handshakes.max(gate.handshakes);
        self.unproven = self.unproven.max(gate.unproven);
        self.origins = self.origins.max(gate.origins);
    }
}

fn link() -> Profile {
    Profile::perfect().with_rtt(RTT)
}

/// Runs `attack` beside a call of two for as long as it takes, and a second more; gives the most that the relay held.
fn beside(seed: u64, config: Config, attack: impl AsyncFn(&World)) -> Peak {
    beside_with(seed, config, |_| None, attack)
}

/// The same, where those in the call show tokens.
fn beside_with(
    seed: u64,
    config: Config,
    token: impl Fn(&str) -> Option<Token>,
    attack: impl AsyncFn(&World),
) -> Peak {
    sim::run(seed, async |sim| {
        let world = World::start_with(&sim, config).await;
        let enter = async |user: &str| {
            let mut client = world.connect(user, link()).await;
            client.send(hello()).await;
            let ClientMessage::Join(join) = join("call", user) else { panic!("a join") };
            client.send(ClientMessage::Join(Join { token: token(user), ..join })).await;
            assert!(matches!(client.answer().await, RelayMessage::Welcome(_)));
            assert!(matches!(client.answer().await, RelayMessage::Joined(_)));
            client
        };
        let (mut u1, mut u2) = (enter("u1").await, enter("u2").await);
        let mut cam = u1.publish("cam", Delivery::Datagram, VIDEO).await;
        u2.play("cam", Delivery::Datagram).await;
        assert!(matches!(u2.answer().await, RelayMessage::PlayStarted(_)));
        world.pass(millis(100)).await;
        for _ in 0..3 {
            u1.event().await;
        }
        for _ in 0..2 {
            u2.event().await;
        }

        let sent = Arc::new(Mutex::new(Vec::new()));
        let filming = tokio::spawn({
            let (clock, sent) = (sim.clock().clone(), sent.clone());
            async move {
                for number in 0.. {
                    sent.lock().unwrap().push(clock.now());
                    cam.send(0, number % 30 == 0, 3000);
                    clock.sleep(FRAME).await;
                }
            }
        });
        let mut peak = Peak::default();
        {
            let mut attack = Box::pin(attack(&world));
            loop {
                tokio::select! {
                    biased;
                    () = &mut attack => break,
                    () = world.pass(millis(10)) => peak.look(&world),
                }
            }
        }
        world.pass(millis(1000)).await;
        peak.look(&world);
        filming.abort();
        world.pass(millis(100)).await;

        let sent = sent.lock().unwrap().clone();
        for (number, captured) in sent.iter().enumerate() {
            let received = u2.frame().await;
            let header = received.frame.header();
            assert_eq!((header.number, received.missed), (number as u64, 0), "of {}", sent.len());
            let age = received.arrived.saturating_since(*captured);
            assert!(age <= AGE_MAX, "frame {number} took {age:?}");
        }
        for client in [&mut u1, &mut u2] {
            assert!(client.events.try_recv().is_err(), "what happens elsewhere is not told");
        }
        assert_eq!(world.room("call").unwrap().users.len(), 2);
        u1.hang_up();
        u2.hang_up();
        world.assert_empty().await;
        let gate = world.relay.counters().gate;
        assert_eq!((gate.handshakes, gate.unproven), (0, 0), "no place at the gate is lost");
        peak
    })
}

/// A connection that says nothing yet and reads nothing but what QUIC itself reads.
async fn open(world: &World, name: &str) -> (Endpoint, Session) {
    world.open(name, link(), world.trust).await.unwrap()
}

/// Waits for the end of an attacker's connection, which must come for this reason.
async fn cut_off(session: &Session, code: Code) {
    let ended = session.closed().await;
    assert_eq!((ended.code, ended.by_peer), (code, true), "{ended}");
}

fn probe() -> ClientMessage {
    ClientMessage::ProbeClock(ProbeClock { sent: Timestamp::ZERO })
}

#[test]
fn requests_as_fast_as_they_go_connection_after_connection() {
    let peak = beside(1, Config::dev(), async |world| {
        for round in 0..5 {
            let mut attackers = JoinSet::new();
            for number in 0..4 {
                let mut client = world.connect(&format!("x{round}.{number}"), link()).await;
                client.send(hello()).await;
                client.send(join("flood", &format!("x{number}"))).await;
                let clock = world.sim.clock().clone();
                attackers.spawn(async move {
                    // All of it: its tasks read the answers.
                    let (mut client, mut sent) = (client, 0);
                    // A hundred thousand a second.
                    while client.requests.send(&probe()).await.is_ok() {
                        sent += 1;
                        if sent % 100 == 0 {
                            clock.sleep(millis(1)).await;
                        }
                    }
                    cut_off(&client.session, Code::TooManyRequests).await;
                });
            }
            while let Some(done) = attackers.join_next().await {
                done.unwrap();
            }
        }
    });
    assert!(peak.survey.connections <= 2 + 2 * 4 && peak.survey.rooms <= 2, "{peak:?}");
}

#[test]
fn messages_to_one_who_does_not_read_them() {
    let peak = beside(2, Config::dev(), async |world| {
        let mut speaker = world.enter("loud", "speaker").await;
        let (_endpoint, deaf) = open(world, "deaf").await;
        let (mut requests, _answers) = deaf.open_requests().await.unwrap();
        requests.send(&hello()).await.unwrap();
        requests.send(&join("loud", "deaf")).await.unwrap();
        world.pass(millis(200)).await;
        // The budget of the speaker: 12 at once, then 4 a second.
        for _ in 0..200 {
            speaker.say(&["deaf"], false, vec![7; 16 * 1024].into()).await;
            world.pass(millis(220)).await;
            if world.room("loud").is_none_or(|room| room.users.len() < 2) {
                break;
            }
        }
        cut_off(&deaf, Code::PeerTooSlow).await;
        speaker.hang_up();
    });
    assert!(peak.survey.queued_bytes > 1 << 20, "it came to a queue: {peak:?}");
    assert!(peak.survey.queued_bytes <= parlor_relay::limits::MESSAGES_WAITING_BYTES_MAX, "{peak:?}");
}

#[test]
fn one_who_plays_everything_and_reads_nothing() {
    for delivery in [Delivery::QuicStream, Delivery::Datagram] {
        let config = Config::dev();
        let cache = config.limits.cache_bytes_max;
        let peak = beside(3, config, async |world| {
            let mut source = world.enter("tv", "source").await;
            let mut cam = source.publish("tv", delivery, VIDEO).await;
            let (_endpoint, deaf) = open(world, "deaf").await;
            let (mut requests, _answers) = deaf.open_requests().await.unwrap();
            requests.send(&hello()).await.unwrap();
            requests.send(&join("tv", "deaf")).await.unwrap();
            let stream = "tv".parse().unwrap();
            requests.send(&ClientMessage::Play(Play { request: 2, stream, wishes: vec![] })).await.unwrap();
            for frame in 0..300 {
                cam.send(0, frame % 30 == 0, 20_000);
                if frame % 10 == 0 {
                    // Events that nobody takes.
                    let guest = world.enter("tv", &format!("{delivery:?}{frame}")).await;
                    guest.hang_up();
                }
                world.pass(FRAME).await;
            }
            source.hang_up();
            deaf.close(Code::Ok, "");
        });
        // Two streams with one layer each; who reads them has no copy.
        assert!(peak.survey.cached_bytes <= 2 * cache, "{delivery:?}: {peak:?}");
        assert!(peak.survey.connections <= 2 + 2 + 3, "{delivery:?}: {peak:?}");
    }
}

/// A relay that takes few packets, so that a flood need not be large.
fn narrow() -> Config {
    let mut config = Config::dev();
    config.limits.packets_per_second_max = 500;
    config
}

#[test]
fn datagrams_of_every_kind_without_end() {
    let symbol = |lane| {
        let hop = HopHeader { lane, track: 0, sequence: 0 };
        let part = Part::Source { hop, shape: Shape::new(10).unwrap(), index: 0, bytes: vec![1; 10].into() };
        Packet { tx_seq: 0, burst: 0, is_calm: false, parts: vec![part] }.encode()
    };
    let report = Feedback::new(1_000_000, Timestamp::ZERO, Duration::ZERO).encode();
    for (number, datagram) in [symbol(77), report].into_iter().enumerate() {
        let peak = beside(4, narrow(), async |world| {
            let client = world.enter("flood", &format!("x{number}")).await;
            let flooding = async {
                loop {
                    // Spread over time, or our own side would drop what does not fit.
                    for _ in 0..10 {
                        _ = client.session.send_raw_datagram(datagram.clone());
                    }
                    world.pass(millis(2)).await;
                }
            };
            tokio::select! {
                biased;
                () = cut_off(&client.session, Code::TooManyPackets) => {}
                () = flooding => {}
            }
        });
        assert!(peak.survey.connections <= 3, "{peak:?}");
    }
}

#[test]
fn quic_streams_opened_and_broken_off_without_end() {
    beside(5, narrow(), async |world| {
        let mut client = world.enter("flood", "x").await;
        client.publish("flood-x", Delivery::QuicStream, VIDEO).await;
        let flooding = async {
            loop {
                let kind = vec![StreamKind::Frame as u8].into();
                if let Ok(stream) = client.session.hold_raw_stream(kind).await {
                    drop(stream);
                    world.pass(Duration::from_micros(500)).await;
                }
            }
        };
        tokio::select! {
            biased;
            () = cut_off(&client.session, Code::TooManyPackets) => {}
            () = flooding => {}
        }
    });
}

#[test]
fn frames_that_are_begun_and_never_finished_are_given_up_and_hold_little() {
    beside(6, Config::dev(), async |world| {
        let mut client = world.enter("half", "x").await;
        client.publish("half-x", Delivery::QuicStream, VIDEO).await;
        let begun = Bytes::from([&[StreamKind::Frame as u8, 2, 0, 0][..], &[7; 1000]].concat());
        let mut held = Vec::new();
        let start = world.now();
        // All that are permitted; then the next waits for the relay to give one up.
        for _ in 0..QUIC_STREAMS_FIRST + Options::default().frames_in_flight_max {
            held.push(client.session.hold_raw_stream(begun.clone()).await.unwrap());
        }
        assert!(world.now().saturating_since(start) < millis(1000), "they were permitted at once");
        for stream in &held {
            stream.stopped().await;
        }
        let took = world.now().saturating_since(start);
        assert!((millis(5000)..millis(6500)).contains(&took), "{took:?}");
        held.clear();
        client.hang_up();

        // Who begins more than a connection may hold is cut off at once.
        let mut client = world.enter("half", "y").await;
        client.publish("half-y", Delivery::QuicStream, VIDEO).await;
        let begun = Bytes::from([&[StreamKind::Frame as u8, 2, 0, 0][..], &[7; 900_000]].concat());
        let mut held = JoinSet::new();
        for _ in 0..20 {
            let (session, begun) = (client.session.clone(), begun.clone());
            held.spawn(async move {
                if let Ok(stream) = session.hold_raw_stream(begun).await {
                    stream.stopped().await;
                }
            });
        }
        cut_off(&client.session, Code::TooLarge).await;
    });
}

#[test]
fn who_publishes_more_than_allowed_is_told_and_then_loses_the_stream() {
    let mut config = Config::dev();
    config.limits.publish_bytes_per_second_max = 100_000;
    config.limits.publish_bytes_burst_max = OBJECT_MAX as u32;
    let cache = config.limits.cache_bytes_max;
    let peak = beside(7, config, async |world| {
        let mut client = world.enter("big", "x").await;
        let mut viewer = world.enter("big", "y").await;
        let mut cam = client.publish("big", Delivery::Datagram, VIDEO).await;
        viewer.play("big", Delivery::Datagram).await;
        let mut told = Vec::new();
        for frame in 0.. {
            cam.send(0, frame % 30 == 0, 20_000);
            world.pass(FRAME).await;
            while let Ok(answer) = client.answers.try_recv() {
                match answer {
                    RelayMessage::FramesRefused(refused) => {
                        assert_eq!((refused.lane, refused.refusal.code), (cam.lane, Code::TooManyBytes));
                        told.push(world.now());
                    }
                    RelayMessage::Refused(refused) => {
                        assert_eq!((refused.request, refused.refusal.code), (cam.lane, Code::TooManyBytes));
                        let since = world.now().saturating_since(told[0]);
                        assert!((millis(9_900)..millis(10_500)).contains(&since), "{since:?}");
                        assert_eq!(told.len(), 5, "every two seconds");
                        world.pass(millis(100)).await;
                        assert!(world.room("big").unwrap().streams.is_empty());
                        let dropped = world.relay.counters().frames_over_limit;
                        // 18,000 kB in twelve seconds, of which 2,200 kB are allowed.
                        assert!((200..500).contains(&dropped), "{dropped} dropped");
                        client.hang_up();
                        viewer.hang_up();
                        return;
                    }
                    RelayMessage::KeyframeWanted(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    });
    assert!(peak.survey.cached_bytes <= 2 * cache, "{peak:?}");
}

#[test]
fn handshakes_from_addresses_that_are_made_up_fill_nothing_and_keep_nobody_out() {
    let limits = Config::dev().limits;
    let peak = beside(8, Config::dev(), async |world| {
        let mut spoofing = JoinSet::new();
        let flood = async {
            for number in 0..3000 {
                let (sim, trust, address) = (world.sim.clone(), world.trust, world.address);
                spoofing.spawn(async move {
                    let mut profile = link();
                    profile.down.loss = Loss::Random(1.0);
                    let host = sim.host(&format!("spoofed{number}"), profile);
                    // Not even that it gave up is heard of it.
                    host.link_outage(Direction::Up, millis(20), Duration::from_secs(60));
                    let endpoint = Endpoint::client(host.binding(0).unwrap(), Options::default()).unwrap();
                    let opening = endpoint.connect(address, "relay", trust);
                    _ = sim.clock().timeout(millis(60), opening).await;
                });
                world.pass(millis(1)).await;
            }
        };
        let guest = async {
            world.pass(millis(2500)).await;
            let start = world.now();
            let guest = world.enter("r", "guest").await;
            // One round trip more than without the proof.
            let took = world.now().saturating_since(start);
            assert!(took >= 3 * RTT && took <= 3 * RTT + millis(5), "{took:?}");
            guest.hang_up();
        };
        tokio::join!(biased; flood, guest);
        spoofing.shutdown().await;
        let gate = world.relay.counters().gate;
        assert!(gate.proofs_asked > 1000, "{gate:?}");
        // What was begun without a proof ends with the handshakes' own timeout.
        world.pass(limits.handshake_timeout + millis(1000)).await;
        assert_eq!(world.relay.counters().gate.handshakes, 0);
    });
    assert!(peak.unproven <= limits.handshakes_unproven_max, "{peak:?}");
    assert!(peak.handshakes <= limits.handshakes_unproven_max + 3, "{peak:?}");
    assert!(peak.origins <= 4, "nothing is kept of them: {peak:?}");
    assert!(peak.survey.connections <= 3, "{peak:?}");
}

#[test]
fn handshakes_from_one_address_are_its_own_trouble() {
    let mut config = Config::dev();
    config.limits.handshakes_unproven_per_second_max = 10;
    config.limits.handshakes_per_address_per_second_max = 5;
    config.limits.connections_per_address_max = 10;
    let peak = beside(9, config, async |world| {
        let host = world.sim.host("busy", link());
        let endpoint = Endpoint::client(host.binding(0).unwrap(), Options::default()).unwrap();
        let mut attempts = JoinSet::new();
        for _ in 0..100 {
            let (endpoint, address, trust) = (endpoint.clone(), world.address, world.trust);
            attempts.spawn(async move { endpoint.connect(address, "relay", trust).await });
            world.pass(millis(5)).await;
        }
        let (mut refused, mut ended, mut sessions) = (0, 0, Vec::new());
        while let Some(attempt) = attempts.join_next().await {
            match attempt.unwrap() {
                Ok(session) => sessions.push(session),
                Err(ConnectError { code: Code::RelayBusy, .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        // Ten a second without a proof, five with one and twenty of those at once.
        assert!((60..80).contains(&refused), "{refused} of 100");
        let guest = world.enter("r", "guest").await;
        for session in &sessions {
            let is_over = tokio::select! {
                biased;
                ended = session.closed() => Some(ended),
                () = world.pass(millis(20)) => None,
            };
            if let Some(over) = is_over {
                assert_eq!((over.code, over.by_peer), (Code::TooManyConnections, true), "{over}");
                ended += 1;
            }
        }
        assert_eq!(sessions.len() - ended, 10, "of {}", sessions.len());
        guest.hang_up();
        sessions.iter().for_each(|session| session.close(Code::Ok, ""));
    });
    assert!(peak.survey.connections <= 2 + 1 + 10, "{peak:?}");
}

#[test]
fn tokens_that_are_forged_expired_or_for_others_in_a_loop() {
    let key = |secret: NewKey| match secret {
        NewKey::Secret(secret) => SigningKey::from_secret(&secret).unwrap(),
        NewKey::Pair { .. } => panic!("a secret"),
    };
    let (ours, theirs) =
        (key(NewKey::generate(Algorithm::Hs256).unwrap()), key(NewKey::generate(Algorithm::Hs256).unwrap()));
    let app = App::with_keys(AppId::dev(), vec![ours.verifying_key().unwrap()]).unwrap();
    let config = Config { apps: vec![app], ..Config::dev() };
    let claims = |user: &str, room: &str| Claims {
        publish: true,
        ..Claims::new(
            AppId::dev(),
            UserId::new(user).unwrap(),
            room.parse().unwrap(),
            UnixTime::from_secs(3600),
        )
    };
    let good = |user: &str| Some(ours.sign(&claims(user, "call")).unwrap());
    let bad: Vec<(Code, Token)> = vec![
        (Code::TokenInvalid, theirs.sign(&claims("x", "call")).unwrap()),
        (Code::TokenForOther, ours.sign(&claims("x", "elsewhere")).unwrap()),
        (Code::TokenForOther, ours.sign(&claims("u1", "call")).unwrap()),
        (
            Code::TokenExpired,
            ours.sign(&Claims { exp: Date(UnixTime::from_secs(0)), ..claims("x", "call") }).unwrap(),
        ),
    ];
    let peak = beside_with(10, config, good, async |world| {
        for round in 0..20 {
            let mut client = world.connect(&format!("x{round}"), link()).await;
            client.send(hello()).await;
            assert!(matches!(client.answer().await, RelayMessage::Welcome(_)));
            // A check costs as much as fifty requests, so that after twelve the connection is over.
            for attempt in 0.. {
                let (code, token) = &bad[(round + attempt) % bad.len()];
                let ClientMessage::Join(join) = join("call", "x") else { panic!("a join") };
                let join = ClientMessage::Join(Join { token: Some(token.clone()), ..join });
                if client.requests.send(&join).await.is_err() {
                    break;
                }
                match client.answers.recv().await {
                    Some(RelayMessage::Refused(refused)) => assert_eq!(refused.refusal.code, *code),
                    Some(RelayMessage::Closing(closing)) => {
                        assert_eq!(closing.refusal.code, Code::TooManyRequests);
                        assert!((10..14).contains(&attempt), "{attempt}");
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            cut_off(&client.session, Code::TooManyRequests).await;
        }
    });
    assert!(peak.survey.users == 2 && peak.survey.rooms == 1, "{peak:?}");
}

#[test]
fn sessions_of_others_with_secrets_that_are_guessed() {
    let peak = beside(11, Config::dev(), async |world| {
        let mut rng = world.sim.rng("guesses");
        for round in 0..5 {
            let mut client = world.connect(&format!("x{round}"), link()).await;
            client.send(hello()).await;
            assert!(matches!(client.answer().await, RelayMessage::Welcome(_)));
            for guess in 0..100 {
                client
                    .send(ClientMessage::Resume(Resume {
                        request: 0,
                        // Those in the call have the first two.
                        session: SessionId(1 + guess % 4),
                        secret: ResumeSecret(rng.random()),
                        attempt: LoginId(rng.random()),
                        known: None,
                    }))
                    .await;
                assert_eq!(client.refusal().await.0, Code::SessionGone);
            }
            client.hang_up();
        }
    });
    assert!(peak.survey.users == 2 && peak.survey.connections <= 4, "{peak:?}");
}

#[test]
fn rooms_without_end_and_users_without_end() {
    let mut config = Config::dev();
    config.limits.rooms_max = 5;
    config.limits.users_per_room_max = 4;
    config.limits.connections_max = 12;
    let peak = beside(12, config, async |world| {
        let mut clients = Vec::new();
        let mut codes = Vec::new();
        for number in 0..20 {
            let room = if number < 6 { format!("r{number}") } else { "r0".to_owned() };
            let mut client = world.connect(&format!("x{number}"), link()).await;
            client.requests.send(&hello()).await.unwrap();
            client.requests.send(&join(&room, &format!("x{number}"))).await.unwrap();
            let mut answer = client.answers.recv().await;
            if let Some(RelayMessage::Welcome(_)) = answer {
                answer = client.answers.recv().await;
            }
            codes.push(match answer {
                Some(RelayMessage::Joined(_)) => Code::Ok,
                Some(RelayMessage::Refused(refused)) => refused.refusal.code,
                None => client.ended().await.code,
                other => panic!("{other:?}"),
            });
            clients.push(client);
        }
        let count = |code| codes.iter().filter(|other| **other == code).count();
        // Four rooms beside the call's; three more users in one of them; and then no connection is free.
        assert_eq!(count(Code::Ok), 4 + 3, "{codes:?}");
        assert_eq!(codes[4..6], [Code::RelayFull; 2], "{codes:?}");
        assert_eq!(codes[9], Code::RoomFull, "{codes:?}");
        assert_eq!(codes[10..], [Code::RelayFull; 10], "{codes:?}");
        clients.into_iter().for_each(Client::hang_up);
    });
    assert_eq!((peak.survey.rooms, peak.survey.connections), (5, 12), "{peak:?}");
}

#[test]
fn bytes_that_mean_nothing_on_every_kind_of_quic_stream() {
    let peak = beside(13, Config::dev(), async |world| {
        let mut rng = seeded(13, "garbage");
        for round in 0..60 {
            let (_endpoint, session) = open(world, &format!("x{round}")).await;
            let mut bytes: Vec<u8> = (0..rng.random_range(1..2000)).map(|_| rng.random()).collect();
            bytes[0] = rng.random_range(1..6);
            _ = session.send_raw_stream(bytes[0] == StreamKind::Requests as u8, bytes.into()).await;
            // Closed for what came, or for what did not.
            let ended = session.closed().await;
            let codes = [
                Code::ProtocolViolation,
                Code::TooLarge,
                Code::BadId,
                Code::HeartbeatTimeout,
                Code::BadFrame,
                Code::Ok,
            ];
            assert!(ended.by_peer && codes.contains(&ended.code), "{ended}");
        }
    });
    assert!(peak.survey.users == 2 && peak.survey.connections <= 4, "{peak:?}");
}

#[test]
fn a_reload_changes_what_the_next_ones_may_and_a_bad_one_changes_nothing() {
    sim::run(14, async |sim| {
        let limits = |connections, requests| {
            let mut config = Config::dev();
            config.limits.connections_max = connections;
            config.limits.requests_burst_max = requests;
            config
        };
        let next = Arc::new(Mutex::new(Ok(limits(3, 600))));
        let world = World::start_from(&sim, limits(3, 600), next.clone()).await;
        let set = |config: Result<Config, String>| *next.lock().unwrap() = config;
        let room_for_one_more = async |name: &str| {
            let client = world.connect(name, link()).await;
            world.pass(millis(200)).await;
            let is_full = world.relay.survey().connections;
            client.hang_up();
            world.pass(millis(200)).await;
            world.relay.survey().connections < is_full
        };
        let mut u1 = world.enter("r", "u1").await;
        let u2 = world.enter("r", "u2").await;
        assert!(room_for_one_more("a").await);

        set(Ok(limits(2, 100)));
        let reloaded = world.relay.reload().unwrap();
        assert_eq!((reloaded.apps, reloaded.needs_restart), (vec!["dev".to_owned()], vec![]));
        assert!(!room_for_one_more("b").await);
        // It holds for who is there, too: 100 requests at once are too many now.
        for _ in 0..300 {
            if u1.requests.send(&probe()).await.is_err() {
                break;
            }
        }
        assert_eq!(u1.ended().await.code, Code::TooManyRequests);

        let unusable = [
            (Err("relay.toml:3: nonsense".to_owned()), "relay.toml:3: nonsense; the old configuration"),
            (Ok(limits(0, 600)), "limits.connections_max is 0"),
            (Ok(Config { apps: vec![], ..limits(9, 600) }), "no app is configured"),
        ];
        for (config, why) in unusable {
            set(config);
            let error = world.relay.reload().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("old configuration stays in force"), "{error}");
        }
        let u3 = world.enter("r", "u3").await;
        assert!(!room_for_one_more("c").await, "still two");
        u2.hang_up();
        u3.hang_up();
        world.assert_empty().await;
    });
}
