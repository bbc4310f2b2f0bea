//! If this fails, a client no longer survives a relay that is slow, silent, newer, gone or broken; or its first
//! flight takes longer than the network does. The relay here is a script on real QUIC in virtual time.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::publisher::{DropReason, SendOutcome};
use parlor_client::room::{RoomEvent, RoomReason, RoomState, RoomStatus};
use parlor_client::{
    Code, Coded, Delivery, Departure, Engine, EngineConfig, JoinOptions, PlayOptions, PublishOptions,
    TrackInfo, TrackKind,
};
use parlor_transport::error::Refusal;
use parlor_transport::id::{SessionId, StreamAlias, UserId};
use parlor_transport::quic::tls::Identity;
use parlor_transport::quic::{
    Arrival, Endpoint, Inbound, Incoming, MessageReceiver, MessageSender, Options, Outgoing, Session,
};
use parlor_transport::sim::{self, Profile, Sim};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{
    ClientMessage, Closing, Done, EventStamp, Joined, PlayStarted, Published, RelayMessage, ResumeSecret,
    RoomMessage, SnapshotPage, StreamKind, UserInfo, UserLeft, Welcome,
};
use parlor_transport::wire::frame::{Frame, FrameHeader};

const PORT: u16 = 4433;
const RTT: Duration = Duration::from_millis(50);

/// A relay's end of one connection.
struct Relay {
    session: Session,
    inbound: Inbound,
    sender: MessageSender,
    receiver: MessageReceiver,
    events: MessageSender,
}

impl Relay {
    async fn next(&mut self) -> ClientMessage {
        loop {
            let message = self.receiver.recv::<ClientMessage>().await.unwrap().unwrap();
            if !matches!(message, ClientMessage::ProbeClock(_)) {
                return message;
            }
        }
    }

    async fn say(&mut self, message: RelayMessage) {
        self.sender.send(&message).await.unwrap();
    }

    async fn tell(&mut self, message: RoomMessage) {
        self.events.send(&message).await.unwrap();
    }

    /// Answers the greeting and the join.
    async fn let_in(&mut self) {
        assert!(matches!(self.next().await, ClientMessage::Hello(_)));
        let ClientMessage::Join(join) = self.next().await else { panic!("a join follows") };
        self.say(RelayMessage::Welcome(welcome(1, self.session.clock().now()))).await;
        self.say(RelayMessage::Joined(Joined {
            request: join.request,
            epoch: 1,
            position: 1,
            users: 2,
            secret: ResumeSecret([1; 16]),
        }))
        .await;
        self.tell(snapshot()).await;
    }
}

fn welcome(version: u16, clock: Timestamp) -> Welcome {
    Welcome { version, features: 0, session: SessionId(1), clock, publish_max: 4, play_max: 4 }
}

fn user(id: &str) -> UserInfo {
    UserInfo { user: UserId::new(id).unwrap(), name: "".try_into().unwrap() }
}

/// The room with "me" and "other" in it.
fn snapshot() -> RoomMessage {
    RoomMessage::Page(SnapshotPage {
        epoch: 1,
        position: 1,
        page: 0,
        last: true,
        users_total: 2,
        users: vec![user("me"), user("other")],
        streams: vec![],
        extras: None,
    })
}

struct World {
    sim: Sim,
    address: String,
    relay: Endpoint,
    engine: Engine,
}

impl World {
    fn new(sim: Sim) -> Self {
        let (host, client) = (sim.host("relay", Profile::perfect()), sim.host("client", Profile::perfect()));
        client.set_profile(Profile::perfect().with_rtt(RTT));
        let identity = Identity::ephemeral().unwrap();
        let relay = Endpoint::server(host.binding(PORT).unwrap(), &identity, Options::default()).unwrap();
        let address = format!("parlor://{}:{PORT}/r#sha256={}", host.ip(), identity.fingerprint());
        let engine = Engine::with_network(
            EngineConfig { reconnect_timeout: Duration::ZERO, ..EngineConfig::default() },
            client.binding(0).unwrap(),
        )
        .unwrap();
        World { sim, address, relay, engine }
    }

    fn options(&self) -> JoinOptions {
        JoinOptions::new(&self.address, "me")
    }

    async fn accept(&self) -> Relay {
        self.let_connect(self.relay.accept().await.unwrap()).await
    }

    async fn let_connect(&self, incoming: Incoming) -> Relay {
        let session = incoming.accept().await.unwrap();
        let (mut inbound, lanes) = session.inbound();
        // Requests 2 to 4 are the publications of these tests.
        (2..5).for_each(|lane| lanes.open(lane, Delivery::QuicStream));
        let Arrival::Requests(sender, receiver) = inbound.next().await.unwrap() else {
            panic!("requests come first")
        };
        let events = session.open_messages(StreamKind::Events).await.unwrap();
        Relay { session, inbound, sender, receiver, events }
    }
}

#[test]
fn the_first_flight_takes_two_round_trips_and_holds_everything_asked_so_far() {
    sim::run(1, async |sim| {
        let world = World::new(sim);
        let start = world.sim.clock().now();
        let room = world.engine.join(world.options()).unwrap();
        let _publisher = room.publish(PublishOptions::new("cam").video("x")).unwrap();
        let _player = room.play("other-cam", PlayOptions::new()).unwrap();
        assert_eq!(room.status().state, RoomState::Connecting);
        let mut relay = world.accept().await;
        relay.let_in().await;
        let at_relay = world.sim.clock().now();
        assert!(matches!(relay.next().await, ClientMessage::Publish(_)));
        assert!(matches!(relay.next().await, ClientMessage::Play(_)));
        assert_eq!(world.sim.clock().now(), at_relay, "they came with the join");
        room.joined().await.unwrap();
        let took = world.sim.clock().now().saturating_since(start);
        assert!(took <= 2 * RTT + Duration::from_millis(5), "{took:?}");
        assert_eq!(room.stats().join_time, Some(took));
    });
}

#[test]
fn an_attempt_that_is_refused_does_not_end_those_before_it() {
    sim::run(1, async |sim| {
        let world = World::new(sim);
        let room = world.engine.join(world.options()).unwrap();
        let first = world.relay.accept().await.unwrap();
        // No answer yet: the client tries beside it, and is refused there.
        for _ in 0..2 {
            world.relay.accept().await.unwrap().refuse();
        }
        world.sim.clock().sleep(2 * RTT).await;
        assert_eq!(room.status().state, RoomState::Connecting, "{:?}", room.status());
        let mut relay = world.let_connect(first).await;
        relay.let_in().await;
        room.joined().await.unwrap();
    });
}

#[test]
fn frames_go_out_and_come_in_and_dropping_handles_stops_them() {
    sim::run(2, async |sim| {
        let world = World::new(sim);
        let room = world.engine.join(world.options()).unwrap();
        let mut events = room.events();
        let publisher = room.publish(PublishOptions::new("cam").video("x")).unwrap();
        let player = room.play("other-cam", PlayOptions::new()).unwrap();
        let mut frames = player.frames();
        let mut relay = world.accept().await;
        relay.let_in().await;
        let ClientMessage::Publish(publish) = relay.next().await else { panic!("a publish follows") };
        let ClientMessage::Play(play) = relay.next().await else { panic!("a play follows") };

        let early = EncodedFrame::new(0, publisher.now(), &b"early"[..]).keyframe();
        assert_eq!(publisher.send_frame(early), SendOutcome::Dropped(DropReason::NotPublishing));
        let alias = StreamAlias(9);
        relay.say(RelayMessage::Published(Published { request: publish.request, alias })).await;
        publisher.publishing().await.unwrap();
        assert_eq!(publisher.keyframe_wanted().await.len(), 1, "a stream begins with a keyframe");
        let frame = EncodedFrame::new(0, publisher.now(), &b"picture"[..]).keyframe();
        assert_eq!(publisher.send_frame(frame), SendOutcome::Queued);
        let Arrival::Frame(received) = relay.inbound.next().await.unwrap() else { panic!("a frame comes") };
        assert_eq!(received.frame.payload(), &b"picture"[..]);
        assert_eq!((received.lane, received.frame.header().alias), (publish.request, alias));
        let age = world.sim.clock().now().signed_since(received.frame.header().captured);
        assert!((24_000..27_000).contains(&age), "half a round trip on the relay's clock, not {age} µs");

        // The frame overtakes the answer that says the stream has begun.
        let header = FrameHeader { number: 0, ..received.frame.header().clone() };
        let echo = Frame::new(header, b"other").unwrap();
        let mut media = relay.session.media_sender();
        let delivery = Delivery::QuicStream;
        media.send(Outgoing {
            lane: play.request,
            delivery,
            urgent: false,
            sequence: None,
            frame: echo.into(),
        });
        media.progress().await;
        let got = frames.next().await.unwrap();
        assert_eq!((&got.payload[..], got.missed), (&b"other"[..], 0));
        let kind = TrackKind::Video;
        let tracks = vec![TrackInfo { kind, codec: "x".into(), spatial_layers: 1, temporal_layers: 1 }];
        let (lane, other) = (play.request, UserId::new("other").unwrap());
        relay
            .say(RelayMessage::PlayStarted(PlayStarted { lane, alias, user: other, tracks, delivery }))
            .await;
        player.playing().await.unwrap();
        player.request_keyframe(0);
        assert!(matches!(relay.next().await, ClientMessage::RequestKeyframe(r) if r.lane == lane));

        drop(player);
        assert!(matches!(relay.next().await, ClientMessage::StopPlay(_)));
        assert!(frames.next().await.is_none());
        drop(publisher);
        assert!(matches!(relay.next().await, ClientMessage::Unpublish(_)));
        let leaving = async {
            let ClientMessage::Leave(leave) = relay.next().await else { panic!("a leave follows") };
            relay.say(RelayMessage::Done(Done { request: leave.request })).await;
        };
        let (left, ()) = tokio::join!(biased; room.leave(), leaving);
        left.unwrap();
        let room_status =
            RoomStatus { state: RoomState::Disconnected, reason: RoomReason::Left, error: None };
        assert_eq!(relay.session.closed().await.code, Code::Ok);
        let mut heard = Vec::new();
        while let Some(event) = events.next().await {
            heard.push(event);
        }
        assert!(heard.contains(&RoomEvent::UsersAdded { users: vec![user("other")], count: 2 }));
        assert!(heard.contains(&RoomEvent::State(room_status)));
    });
}

#[test]
fn dropping_the_engine_leaves_its_rooms() {
    sim::run(3, async |sim| {
        let world = World::new(sim);
        let room = world.engine.join(world.options()).unwrap();
        let mut relay = world.accept().await;
        relay.let_in().await;
        room.joined().await.unwrap();
        drop(world.engine);
        assert!(matches!(relay.next().await, ClientMessage::Leave(_)));
        assert_eq!(room.publish(PublishOptions::new("cam").video("x")).unwrap_err().code(), Code::Closed);
    });
}

/// What a room ended with after `script` played the relay.
fn outcome(seed: u64, script: impl AsyncFnOnce(&mut Relay)) -> (RoomReason, Refusal, Code) {
    sim::run(seed, async |sim| {
        let world = World::new(sim);
        let room = world.engine.join(world.options()).unwrap();
        let publisher = room.publish(PublishOptions::new("cam").video("x")).unwrap();
        let mut events = room.events();
        let mut relay = world.accept().await;
        script(&mut relay).await;
        while events.next().await.is_some() {}
        let status = room.status();
        assert_eq!(status.state, RoomState::Disconnected);
        let error = status.error.unwrap();
        assert_eq!(publisher.status().error, Some(error.clone()), "publishers end with the room's error");
        (status.reason, error, relay.session.closed().await.code)
    })
}

#[test]
fn a_relay_that_breaks_the_protocol_is_told_so_and_left() {
    let violation = Code::ProtocolViolation;
    let gap = outcome(1, async |relay: &mut Relay| {
        relay.let_in().await;
        let stamp = EventStamp { epoch: 1, position: 7, previous: 6, users: 1 };
        let left = UserLeft { stamp, user: UserId::new("other").unwrap(), reason: Departure::Left };
        relay.tell(RoomMessage::UserLeft(left)).await;
    });
    assert_eq!((gap.0, gap.1.code, gap.2), (RoomReason::ConnectionLost, violation, violation));
    assert!(gap.1.text.contains("6→7"), "{}", gap.1.text);

    let garbage = outcome(2, async |relay: &mut Relay| {
        relay.let_in().await;
        relay.events.send_encoded(vec![0x40, 0x41, 2, 0xff, 0xff].into()).await.unwrap();
    });
    assert_eq!((garbage.0, garbage.1.code, garbage.2), (RoomReason::ConnectionLost, violation, violation));

    let early = outcome(3, async |relay: &mut Relay| {
        relay.say(RelayMessage::Done(Done { request: 1 })).await;
    });
    assert_eq!((early.0, early.1.code, early.2), (RoomReason::JoinFailed, violation, violation));

    let newer = outcome(4, async |relay: &mut Relay| {
        relay.say(RelayMessage::Welcome(welcome(2, Timestamp::ZERO))).await;
    });
    let mismatch = Code::VersionMismatch;
    assert_eq!((newer.0, newer.1.code, newer.2), (RoomReason::JoinFailed, mismatch, mismatch));

    let two = outcome(5, async |relay: &mut Relay| {
        relay.let_in().await;
        let _second = relay.session.open_messages(StreamKind::Events).await.unwrap();
        relay.session.closed().await;
    });
    assert_eq!((two.0, two.1.code, two.2), (RoomReason::ConnectionLost, violation, violation));
}

#[test]
fn why_the_relay_ends_a_connection_reaches_the_app() {
    let kicked = outcome(1, async |relay: &mut Relay| {
        relay.let_in().await;
        let refusal = Refusal::new(Code::RepeatedLogin, "u1 joined from elsewhere");
        relay.say(RelayMessage::Closing(Closing { refusal })).await;
    });
    assert_eq!((kicked.0, kicked.1.code), (RoomReason::KickedOut, Code::RepeatedLogin));
    assert_eq!(kicked.1.to_string(), "u1 joined from elsewhere (1009)");

    let closed = outcome(2, async |relay: &mut Relay| {
        relay.let_in().await;
        // A close overtakes everything before it.
        relay.session.clock().sleep(RTT).await;
        relay.session.close(Code::RelayShutdown, "back in a minute");
    });
    assert_eq!((closed.0, closed.1.code), (RoomReason::ConnectionLost, Code::RelayShutdown));
    assert_eq!(closed.1.to_string(), "back in a minute (1017)");
    assert!(closed.1.is_retryable());
}

#[test]
fn a_silent_network_ends_a_join_and_a_room_in_known_time() {
    sim::run(1, async |sim| {
        let world = World::new(sim);
        let room = world.engine.join(world.options()).unwrap();
        let mut relay = world.accept().await;
        relay.let_in().await;
        room.joined().await.unwrap();
        let cut = world.sim.clock().now();
        world.sim.network().find("client").unwrap().outage(Duration::ZERO, Duration::from_secs(3600));
        let error = loop {
            if let Some(error) = room.status().error {
                break error;
            }
            world.sim.clock().sleep(Duration::from_millis(100)).await;
        };
        assert_eq!((room.status().reason, error.code), (RoomReason::ConnectionLost, Code::HeartbeatTimeout));
        let took = world.sim.clock().now().saturating_since(cut);
        assert!(took <= Duration::from_secs(12), "{took:?}");

        let start = world.sim.clock().now();
        let again = world.engine.join(world.options()).unwrap();
        assert_eq!(again.joined().await.unwrap_err().code, Code::ConnectTimeout);
        let took = world.sim.clock().now().saturating_since(start);
        assert!(took <= Duration::from_millis(10_010), "{took:?}");
        assert_eq!(again.status().reason, RoomReason::JoinFailed);
        again.leave().await.unwrap();
    });
}

#[test]
fn a_relay_with_another_certificate_is_not_trusted() {
    sim::run(1, async |sim| {
        let world = World::new(sim);
        let (address, _) = world.address.split_once('#').unwrap();
        let wrong = format!("{address}#sha256={}", "ab".repeat(32));
        let room = world.engine.join(JoinOptions::new(wrong, "me")).unwrap();
        let accepting = async {
            let _ = world.relay.accept().await.unwrap().accept().await;
        };
        let (joined, ()) = tokio::join!(biased; room.joined(), accepting);
        assert_eq!(joined.unwrap_err().code, Code::CertificateMismatch);
    });
}

#[test]
fn leaving_while_connecting_ends_at_once() {
    sim::run(1, async |sim| {
        let world = World::new(sim);
        let room = world.engine.join(world.options()).unwrap();
        let mut events = room.events();
        let start = world.sim.clock().now();
        room.leave().await.unwrap();
        assert_eq!(world.sim.clock().now(), start);
        let mut reasons = Vec::new();
        while let Some(RoomEvent::State(status)) = events.next().await {
            reasons.push(status.reason);
        }
        assert_eq!(reasons, [RoomReason::Left]);
    });
}
