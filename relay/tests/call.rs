//! If this fails, people cannot meet: join, see each other, publish, play, go.
#![allow(clippy::unwrap_used)]

mod support;

use parlor_transport::error::Code;
use parlor_transport::id::{StreamId, UserId};
use parlor_transport::sim::{self, Profile};
use parlor_transport::wire::control::*;
use support::*;

const VIDEO: &[TrackKind] = &[TrackKind::Video];

#[test]
fn a_frame_goes_from_one_to_the_other_by_either_way() {
    for delivery in [Delivery::QuicStream, Delivery::Datagram] {
        sim::run(1, async |sim| {
            let world = World::start(&sim).await;
            let mut u1 = world.enter("r", "u1").await;
            let mut u2 = world.enter("r", "u2").await;
            let lane = u2.play("cam", delivery).await;
            assert_eq!(u2.answer().await, RelayMessage::PlayWaiting(PlayWaiting { lane }));

            let mut cam = u1.publish("cam", delivery, VIDEO).await;
            let RelayMessage::PlayStarted(started) = u2.answer().await else { panic!("the stream is there") };
            assert_eq!((started.lane, started.alias, started.user.as_str()), (lane, cam.alias, "u1"));
            let sent = world.now();
            cam.send(0, true, 3_000);
            let received = u2.frame().await;
            assert_eq!((received.lane, received.track, received.missed), (lane, 0, 0));
            assert_eq!(received.frame.header(), &cam_header(&cam));
            assert!(received.frame.payload().iter().all(|&byte| byte == 7));
            assert_eq!(received.frame.payload().len(), 3_000);
            let took = world.now().saturating_since(sent);
            assert!(took <= RTT + millis(5), "{delivery:?} took {took:?}");

            u1.hang_up();
            let ended = PlayEnded { lane, reason: Departure::Left };
            assert_eq!(u2.answer().await, RelayMessage::PlayEnded(ended));
            u2.hang_up();
            world.assert_empty().await;
        });
    }
}

fn cam_header(cam: &Publisher) -> parlor_transport::wire::frame::FrameHeader {
    parlor_transport::wire::frame::FrameHeader { number: 0, ..cam.header(0, true) }
}

#[test]
fn everything_goes_out_in_one_flight_and_is_answered_after_one_round_trip() {
    sim::run(2, async |sim| {
        let world = World::start(&sim).await;
        let mut u1 = world.enter("r", "u1").await;
        let mut cam = u1.publish("cam", Delivery::QuicStream, VIDEO).await;
        cam.send(0, true, 30_000);
        world.pass(millis(100)).await;

        let start = world.now();
        let mut u2 = world.connect("u2", Profile::perfect().with_rtt(RTT)).await;
        assert_eq!(world.now().saturating_since(start).as_millis(), RTT.as_millis(), "the handshake");
        u2.send(hello()).await;
        u2.send(join("r", "u2")).await;
        let lane = u2.play("cam", Delivery::QuicStream).await;
        u2.ask_publish("mic", Delivery::Datagram, &[TrackKind::Audio]).await;
        let received = u2.frame().await;
        assert_eq!((received.lane, received.frame.payload().len()), (lane, 30_000));
        let took = world.now().saturating_since(start);
        assert!(took <= 2 * RTT + millis(5), "the first keyframe took {took:?}");
        for expected in ["Welcome", "Joined", "PlayStarted", "Published"] {
            let answer = format!("{:?}", u2.answer().await);
            assert!(answer.starts_with(expected), "{answer}");
        }
        assert!(world.now().saturating_since(start) <= 2 * RTT + millis(5));
    });
}

#[test]
fn members_see_everyone_come_and_go_in_order_and_soon() {
    sim::run(3, async |sim| {
        let world = World::start(&sim).await;
        let mut u1 = world.enter("r", "u1").await;
        assert_eq!(u1.event().await, "page [u1] []");
        let mut u2 = world.enter("r", "u2").await;
        assert_eq!(u2.event().await, "page [u1 u2] []");
        assert_eq!(u1.event().await, "+u2");

        let lane = u2.ask_publish("cam", Delivery::QuicStream, VIDEO).await;
        let asked = world.now();
        assert_eq!(u1.event().await, "+u2/cam");
        let took = world.now().saturating_since(asked);
        assert!(took <= RTT + millis(5), "half a round trip to the relay, half to the other: {took:?}");
        assert!(matches!(u2.answer().await, RelayMessage::Published(p) if p.request == lane));
        let mut u3 = world.enter("r", "u3").await;
        assert_eq!(u3.event().await, "page [u1 u2 u3] [cam]");

        let room = world.room("r").unwrap();
        assert_eq!((room.users.len(), room.streams.len(), room.position), (3, 1, 4));
        u2.send(ClientMessage::Leave(Leave { request: 99 })).await;
        assert_eq!(u2.answer().await, RelayMessage::Done(Done { request: 99 }));
        for member in [&mut u1, &mut u3] {
            while member.event().await != "-/cam Left" {}
            assert_eq!(member.event().await, "-u2 Left");
        }
    });
}

#[test]
fn a_stream_id_is_unique_in_all_rooms_and_the_first_publisher_goes_on() {
    sim::run(4, async |sim| {
        let world = World::start(&sim).await;
        let mut u1 = world.enter("r1", "u1").await;
        let mut u2 = world.enter("r2", "u2").await;
        let mut u3 = world.enter("r1", "u3").await;
        let mut cam = u1.publish("cam", Delivery::QuicStream, VIDEO).await;
        u3.play("cam", Delivery::QuicStream).await;
        u2.ask_publish("cam", Delivery::QuicStream, VIDEO).await;
        let (code, text) = u2.refusal().await;
        assert_eq!(code, Code::StreamTaken);
        assert_eq!(text, "stream \"cam\" is already published by \"u1\"; choose another stream id");
        cam.send(0, true, 100);
        assert_eq!(u3.frame().await.frame.payload().len(), 100);
        u1.unpublish("cam").await;
        assert!(matches!(u1.answer().await, RelayMessage::Done(_)));
        u2.publish("cam", Delivery::QuicStream, VIDEO).await;
    });
}

#[test]
fn a_play_survives_its_stream_ending_and_coming_back() {
    sim::run(5, async |sim| {
        let world = World::start(&sim).await;
        let mut u1 = world.enter("r", "u1").await;
        let mut u2 = world.enter("r", "u2").await;
        let lane = u2.play("cam", Delivery::QuicStream).await;
        assert!(matches!(u2.answer().await, RelayMessage::PlayWaiting(_)));
        for round in 0..3 {
            let mut cam = u1.publish("cam", Delivery::QuicStream, VIDEO).await;
            assert!(matches!(u2.answer().await, RelayMessage::PlayStarted(p) if p.lane == lane));
            for frame in 0..5 {
                cam.send(0, frame == 0, 1000);
                let received = u2.frame().await;
                let header = received.frame.header();
                assert_eq!((received.missed, header.number, header.alias), (0, frame, cam.alias), "{round}");
            }
            u1.unpublish("cam").await;
            assert!(matches!(u1.answer().await, RelayMessage::Done(_)));
            let ended = PlayEnded { lane, reason: Departure::Left };
            assert_eq!(u2.answer().await, RelayMessage::PlayEnded(ended));
        }
    });
}

#[test]
fn a_repeated_login_takes_over_and_the_earlier_connection_is_told_why() {
    sim::run(6, async |sim| {
        let world = World::start(&sim).await;
        let mut witness = world.enter("r", "w").await;
        let mut old = world.enter("r", "u1").await;
        old.publish("cam", Delivery::QuicStream, VIDEO).await;
        let mut new = world.connect("u1-again", Profile::perfect().with_rtt(RTT)).await;
        new.send(hello()).await;
        new.send(join("r", "u1")).await;
        let ended = old.ended().await;
        assert_eq!((ended.code, ended.by_peer), (Code::RepeatedLogin, true));
        let told = std::iter::from_fn(|| old.answers.try_recv().ok()).last();
        let Some(RelayMessage::Closing(closing)) = told else { panic!("told {told:?}") };
        assert_eq!(closing.refusal.code, Code::RepeatedLogin);
        assert_eq!(closing.refusal.text, ended.text);
        assert!(ended.text.contains("\"u1\""), "{ended}");
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(witness.event().await);
        }
        let expected = ["page [w] []", "+u1", "+u1/cam", "-/cam RepeatedLogin", "-u1 RepeatedLogin", "+u1"];
        assert_eq!(seen, expected);
        assert!(matches!(new.answer().await, RelayMessage::Welcome(_)));
        assert!(matches!(new.answer().await, RelayMessage::Joined(joined) if joined.users == 2));
        new.publish("cam", Delivery::QuicStream, VIDEO).await;
    });
}

#[test]
fn a_silent_client_is_gone_after_the_idle_timeout_and_leaves_nothing() {
    sim::run(7, async |sim| {
        let world = World::start(&sim).await;
        let mut u1 = world.enter("r", "u1").await;
        let mut u2 = world.enter("r", "u2").await;
        let mut cam = u2.publish("cam", Delivery::QuicStream, VIDEO).await;
        u1.play("cam", Delivery::QuicStream).await;
        cam.send(0, true, 10_000);
        u1.frame().await;
        let start = world.now();
        sim.network().find("u2").unwrap().outage(millis(0), millis(60_000));
        while u1.event().await != "-/cam HeartbeatTimeout" {}
        assert_eq!(u1.event().await, "-u2 HeartbeatTimeout");
        let took = world.now().saturating_since(start);
        assert!((millis(9_000)..millis(11_500)).contains(&took), "{took:?}");
        let survey = world.relay.survey();
        assert_eq!((survey.connections, survey.users, survey.streams, survey.cached_bytes), (1, 1, 0, 0));
        u1.hang_up();
        world.assert_empty().await;
    });
}

#[test]
fn shutdown_tells_everyone_and_returns() {
    sim::run(8, async |sim| {
        let mut world = World::start(&sim).await;
        let u1 = world.enter("r", "u1").await;
        let u2 = world.enter("r2", "u2").await;
        let start = world.now();
        world.shut_down().await;
        let took = world.now().saturating_since(start);
        assert!(took <= millis(3500), "{took:?}");
        for client in [&u1, &u2] {
            let ended = client.ended().await;
            assert_eq!((ended.code, ended.by_peer), (Code::RelayShutdown, true));
        }
        assert_eq!(world.relay.survey(), Default::default());
    });
}

#[test]
fn sixty_people_come_and_go_and_all_see_the_same() {
    sim::run(9, async |sim| {
        let world = World::start(&sim).await;
        let mut people = Vec::new();
        for number in 0..60 {
            let mut client = world.enter("r", &format!("u{number:02}")).await;
            client.publish(&format!("cam{number:02}"), Delivery::QuicStream, VIDEO).await;
            people.push(client);
        }
        for at in (0..60).rev().step_by(2) {
            people.remove(at).hang_up();
        }
        world.pass(millis(500)).await;
        let room = world.room("r").unwrap();
        assert_eq!((room.users.len(), room.streams.len(), room.position), (30, 30, 180));
        for person in &mut people {
            let mut mirror = Mirror::default();
            while let Ok(event) = person.events.try_recv() {
                mirror.apply(event);
            }
            assert_eq!(mirror.position, room.position);
            assert!(mirror.users.iter().eq(room.users.iter().map(|user| &user.user)));
            assert!(mirror.streams.iter().eq(room.streams.iter().map(|stream| &stream.stream)));
        }
        people.into_iter().for_each(Client::hang_up);
        world.assert_empty().await;
    });
}

/// The room as one member is told of it.
#[derive(Default)]
struct Mirror {
    position: u64,
    users: std::collections::BTreeSet<UserId>,
    streams: std::collections::BTreeSet<StreamId>,
}

impl Mirror {
    fn apply(&mut self, message: RoomMessage) {
        if let Some(stamp) = message.stamp() {
            assert_eq!(stamp.previous, self.position, "no gap");
            self.position = stamp.position;
        }
        match message {
            RoomMessage::Page(page) => {
                self.position = page.position;
                self.users.extend(page.users.into_iter().map(|user| user.user));
                self.streams.extend(page.streams.into_iter().map(|stream| stream.stream));
            }
            RoomMessage::UserJoined(event) => assert!(self.users.insert(event.user.user)),
            RoomMessage::UserLeft(event) => assert!(self.users.remove(&event.user)),
            RoomMessage::StreamAdded(event) => assert!(self.streams.insert(event.stream.stream)),
            RoomMessage::StreamRemoved(event) => assert!(self.streams.remove(&event.stream)),
            other => panic!("nobody asked for {other:?}"),
        }
    }
}
