//! If this fails, a call does not outlive its connection: people have to join again after every tunnel, or others see
//! them come and go.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use parlor_client::publisher::{EncodedFrame, PublisherState};
use parlor_client::room::{RoomEvent, RoomReason, RoomState};
use parlor_client::{
    Engine, EngineConfig, JoinOptions, PlayOptions, PublishOptions, Publisher, Room, RoomId, Scenario,
    Timestamp,
};
use parlor_relay::config::Tls;
use parlor_relay::{Config, Relay};
use parlor_tests::world::{Person, World};
use parlor_transport::clock::Clock;
use parlor_transport::error::Code;
use parlor_transport::sim::{Host, Loss, Profile, Sim, Simulation};
use tokio::sync::oneshot;

const RTT: Duration = Duration::from_millis(50);
const FRAME: Duration = Duration::from_millis(33);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn link() -> Profile {
    Profile::perfect().with_rtt(RTT)
}

/// Two people: one publishes, the other plays and writes down what comes and what happens.
struct Call {
    world: World,
    ann: Person,
    bob: Person,
    ann_room: Room,
    bob_room: Room,
    frames: Arc<Mutex<Vec<(Timestamp, u64)>>>,
    events: Arc<Mutex<Vec<RoomEvent>>>,
}

async fn send(publisher: Publisher, clock: Clock) {
    for number in 0_u64.. {
        let keyframe = number.is_multiple_of(120) || !publisher.take_keyframe_requests().is_empty();
        let frame = EncodedFrame { keyframe, ..EncodedFrame::new(0, clock.now(), vec![7; 900]) };
        _ = publisher.send_frame(frame);
        clock.sleep(FRAME).await;
    }
}

impl Call {
    async fn new(sim: &Sim) -> Self {
        let world = World::new(sim).await;
        let (ann, bob) = (world.person("ann", link()), world.person("bob", link()));
        let (ann_room, bob_room) = (ann.join(&world), bob.join(&world));
        let publisher = ann_room.publish(PublishOptions::new("cam").video("x")).unwrap();
        publisher.publishing().await.unwrap();
        let player = bob_room.play("cam", PlayOptions::new()).unwrap();
        player.playing().await.unwrap();
        let frames: Arc<Mutex<Vec<(Timestamp, u64)>>> = Arc::default();
        let events: Arc<Mutex<Vec<RoomEvent>>> = Arc::default();
        let clock = sim.clock().clone();
        tokio::spawn(send(publisher, clock.clone()));
        let (came, mut incoming) = (frames.clone(), player.frames());
        tokio::spawn(async move {
            while let Some(frame) = incoming.next().await {
                if frame.missed > 0 {
                    player.request_keyframe(0);
                }
                came.lock().unwrap().push((frame.arrived, frame.header.number));
            }
        });
        let (happened, mut reader) = (events.clone(), bob_room.events());
        tokio::spawn(async move {
            while let Some(event) = reader.next().await {
                happened.lock().unwrap().push(event);
            }
        });
        clock.sleep(Duration::from_secs(2)).await;
        Call { world, ann, bob, ann_room, bob_room, frames, events }
    }

    fn clock(&self) -> &Clock {
        self.world.sim.clock()
    }

    /// What bob hears of others from now on.
    fn forget_events(&self) {
        self.events.lock().unwrap().clear();
    }

    fn heard_of_others(&self) -> Vec<RoomEvent> {
        let is_own = |event: &&RoomEvent| matches!(event, RoomEvent::State(_) | RoomEvent::Recovered { .. });
        let is_of_others = |event: &&RoomEvent| !is_own(event);
        self.events.lock().unwrap().iter().filter(is_of_others).cloned().collect()
    }

    /// The first frame that came at or after `from`.
    fn first_frame_after(&self, from: Timestamp) -> Option<Timestamp> {
        self.frames.lock().unwrap().iter().map(|(at, _)| *at).find(|at| *at >= from)
    }

    fn assert_no_frame_twice(&self) {
        let mut numbers: Vec<u64> = self.frames.lock().unwrap().iter().map(|(_, number)| *number).collect();
        let count = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
        assert!(numbers.is_sorted());
    }

    fn assert_everybody_is_there(&self) {
        let room = self.world.room().unwrap();
        assert_eq!((room.users.len(), room.streams.len()), (2, 1));
        for room in [&self.ann_room, &self.bob_room] {
            assert_eq!(room.status().state, RoomState::Connected);
        }
    }
}

/// Nothing passes the host's link for so long.
async fn outage(host: &Host, clock: &Clock, length: Duration) {
    host.outage(Duration::ZERO, length);
    clock.sleep(length).await;
}

#[test]
fn an_address_change_is_noticed_by_nobody() {
    for publisher_moves in [true, false] {
        Simulation::new(11).run(async |sim| {
            let call = Call::new(&sim).await;
            call.forget_events();
            let host = if publisher_moves { &call.ann.host } else { &call.bob.host };
            host.move_to("10.9.9.9".parse().unwrap());
            let moved = call.clock().now();
            call.clock().sleep(Duration::from_secs(5)).await;
            let first = call.first_frame_after(moved + RTT).unwrap();
            let limit = RTT * 2 + FRAME + ms(5);
            // A player moves with its next packet, which may be a report 50 ms later.
            let silent = if publisher_moves { Duration::ZERO } else { ms(60) };
            assert!(first.saturating_since(moved) <= limit + silent, "{:?}", first.saturating_since(moved));
            assert_eq!(call.heard_of_others(), []);
            assert_eq!(call.ann_room.stats().recovery, Default::default(), "the connection lived on");
            call.assert_everybody_is_there();
            call.assert_no_frame_twice();
        });
    }
}

#[test]
fn an_engine_told_of_another_network_keeps_its_connections() {
    Simulation::new(12).run(async |sim| {
        let call = Call::new(&sim).await;
        call.forget_events();
        for person in [&call.ann, &call.bob] {
            person.host.cut_sockets();
            person.engine.network_changed().unwrap();
        }
        let moved = call.clock().now();
        call.clock().sleep(Duration::from_secs(5)).await;
        let first = call.first_frame_after(moved + RTT).unwrap().saturating_since(moved);
        assert!(first <= RTT * 2 + FRAME + ms(5) + ms(60), "{first:?}");
        assert_eq!(call.heard_of_others(), []);
        for room in [&call.ann_room, &call.bob_room] {
            let recovery = room.stats().recovery;
            assert_eq!((recovery.migrated, recovery.resumed, recovery.rejoined), (1, 0, 0));
        }
        call.assert_everybody_is_there();
        call.assert_no_frame_twice();
    });
}

#[test]
fn a_silent_path_is_left_for_another_socket_by_itself() {
    for (seed, publisher_is_cut) in [(13, true), (14, false)] {
        Simulation::new(seed).run(async |sim| {
            let call = Call::new(&sim).await;
            call.forget_events();
            let person = if publisher_is_cut { &call.ann } else { &call.bob };
            person.host.cut_sockets();
            let cut = call.clock().now();
            call.clock().sleep(Duration::from_secs(5)).await;
            let room = if publisher_is_cut { &call.ann_room } else { &call.bob_room };
            let recovery = room.stats().recovery;
            assert_eq!((recovery.migrated, recovery.resumed, recovery.rejoined), (1, 0, 0), "{recovery:?}");
            // What was on its way arrived; then nothing for a second and at most one look at the path.
            let first = call.first_frame_after(cut + RTT + FRAME).unwrap().saturating_since(cut);
            let limit = Duration::from_secs(1) + ms(250) + RTT * 2 + FRAME + ms(5) + RTT / 2;
            // A player missed more than is caught up with: a keyframe is asked for and made.
            let keyframe = if publisher_is_cut { Duration::ZERO } else { RTT + FRAME + ms(60) };
            assert!(first <= limit + keyframe, "{first:?}");
            assert_eq!(call.heard_of_others(), []);
            call.assert_everybody_is_there();
            call.assert_no_frame_twice();
        });
    }
}

#[test]
fn a_quiet_room_keeps_its_socket() {
    Simulation::new(15).run(async |sim| {
        let world = World::new(&sim).await;
        let ann = world.person("ann", link().with_loss(Loss::Random(0.05)));
        let room = ann.join(&world);
        room.joined().await.unwrap();
        sim.clock().sleep(Duration::from_secs(120)).await;
        assert_eq!(room.stats().recovery, Default::default());
    });
}

#[test]
fn after_an_outage_the_session_goes_on_and_others_notice_nothing() {
    for (seed, publisher_is_out) in [(1, true), (2, false), (3, true), (4, false)] {
        Simulation::new(seed).run(async |sim| {
            let call = Call::new(&sim).await;
            call.forget_events();
            let person = if publisher_is_out { &call.ann } else { &call.bob };
            outage(&person.host, call.clock(), Duration::from_secs(5)).await;
            let back = call.clock().now();
            call.clock().sleep(Duration::from_secs(5)).await;
            let room = if publisher_is_out { &call.ann_room } else { &call.bob_room };
            let recovery = room.stats().recovery;
            assert_eq!((recovery.resumed, recovery.rejoined), (1, 0), "{recovery:?}");
            assert_eq!(room.status().reason, RoomReason::Reconnected);
            let first = call.first_frame_after(back).unwrap().saturating_since(back);
            // Three round trips, the next attempt, and the frame's own way.
            assert!(first <= RTT * 3 + ms(250) + RTT + FRAME, "{first:?} after the network came back");
            assert_eq!(call.heard_of_others(), []);
            call.assert_everybody_is_there();
            call.assert_no_frame_twice();
        });
    }
}

#[test]
fn after_a_long_outage_the_room_is_joined_anew_and_the_ghost_was_gone() {
    Simulation::new(5).run(async |sim| {
        let call = Call::new(&sim).await;
        call.forget_events();
        let away = call.clock().now();
        outage(&call.ann.host, call.clock(), Duration::from_secs(30)).await;
        let heard = call.heard_of_others();
        assert!(
            matches!(&heard[..], [RoomEvent::StreamRemoved { .. }, RoomEvent::UserRemoved { .. }]),
            "{heard:?}"
        );
        assert!(call.clock().now().saturating_since(away) >= Duration::from_secs(30));
        call.clock().sleep(Duration::from_secs(40)).await;
        let recovery = call.ann_room.stats().recovery;
        assert_eq!((recovery.resumed, recovery.rejoined), (0, 1));
        let heard = call.heard_of_others();
        assert!(
            matches!(&heard[2..], [RoomEvent::UsersAdded { .. }, RoomEvent::StreamsAdded(_)]),
            "{heard:?}"
        );
        let now = call.clock().now();
        assert!(call.first_frame_after(now - Duration::from_secs(1)).is_some(), "frames flow again");
        call.assert_everybody_is_there();
        call.assert_no_frame_twice();
    });
}

#[test]
fn after_a_restart_of_the_relay_everybody_comes_back() {
    Simulation::new(6).run(async |sim| {
        let directory = concat!(env!("CARGO_TARGET_TMPDIR"), "/recovery-restart");
        let config = || Config { tls: Tls::Development(directory.into()), ..Config::dev() };
        let host = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
        let start = async || {
            let relay = Relay::bind_on(config(), host.binding(4433).unwrap()).await.unwrap();
            let mut address = relay.address(Some(RoomId::new("stage").unwrap()));
            address.host = host.ip().to_string();
            let handle = relay.handle();
            let (stop, stopped) = oneshot::channel::<()>();
            let running = tokio::spawn(relay.run(async { _ = stopped.await }));
            (address.to_string(), handle, stop, running)
        };
        let (address, _, stop, running) = start().await;
        let people: Vec<(Engine, Room, Publisher)> = (0..4)
            .map(|number| {
                let name = format!("u{number}");
                let binding = sim.host(&name, link()).binding(0).unwrap();
                let engine = Engine::with_network(Scenario::StandardCall, binding).unwrap();
                let room = engine.join(JoinOptions::new(&address, &name)).unwrap();
                let publisher = room.publish(PublishOptions::new(format!("{name}-cam")).video("x")).unwrap();
                (engine, room, publisher)
            })
            .collect();
        for (_, room, publisher) in &people {
            room.joined().await.unwrap();
            publisher.publishing().await.unwrap();
        }
        stop.send(()).unwrap();
        running.await.unwrap();
        sim.clock().sleep(Duration::from_secs(4)).await;
        let (_, handle, _stop, _running) = start().await;
        sim.clock().sleep(Duration::from_secs(40)).await;
        let survey = handle.survey();
        assert_eq!((survey.users, survey.streams), (4, 4));
        for (_, room, publisher) in &people {
            assert_eq!(room.status().reason, RoomReason::Reconnected);
            assert_eq!(room.stats().recovery.rejoined, 1);
            assert_eq!(publisher.status().state, PublisherState::Publishing);
            let view = room.view().unwrap();
            assert_eq!((view.users.len(), view.streams.len()), (3, 3));
        }
    });
}

#[test]
fn who_joined_from_elsewhere_is_not_thrown_out_by_the_old_device() {
    Simulation::new(7).run(async |sim| {
        let call = Call::new(&sim).await;
        let lost = outage(&call.ann.host, call.clock(), Duration::from_secs(8));
        let other_host = sim.host("ann-phone", link());
        let binding = other_host.binding(0).unwrap();
        let phone = Engine::with_network(Scenario::StandardCall, binding).unwrap();
        let elsewhere = async {
            call.clock().sleep(Duration::from_secs(5)).await;
            let room = phone.join(JoinOptions::new(call.world.address.to_string(), "ann")).unwrap();
            room.joined().await.unwrap();
            room
        };
        let ((), newer) = tokio::join!(lost, elsewhere);
        call.clock().sleep(Duration::from_secs(5)).await;
        let status = call.ann_room.status();
        assert_eq!(status.reason, RoomReason::KickedOut, "{status:?}");
        assert_eq!(status.error.unwrap().code, Code::RepeatedLogin);
        assert_eq!(newer.status().state, RoomState::Connected);
    });
}

#[test]
fn a_call_that_is_not_to_come_back_ends() {
    Simulation::new(8).run(async |sim| {
        let world = World::new(&sim).await;
        let ann = world.person("ann", link());
        let config = EngineConfig { reconnect_timeout: Duration::ZERO, ..EngineConfig::default() };
        let engine = Engine::with_network(config, ann.host.binding(0).unwrap()).unwrap();
        let room = engine.join(JoinOptions::new(world.address.to_string(), "eve")).unwrap();
        room.joined().await.unwrap();
        outage(&ann.host, sim.clock(), Duration::from_secs(9)).await;
        assert_eq!(room.status().reason, RoomReason::ConnectionLost);
    });
}

/// A player's lane outlives the streams on it: if the next one counted its frames from 0 again, what the relay sends would
/// contradict itself, and the player's connection would be closed for it.
#[test]
fn a_stream_that_ends_and_comes_back_on_a_lossy_link_costs_its_player_nothing() {
    for seed in 1..4 {
        Simulation::new(seed).run(async |sim| {
            let world = World::new(&sim).await;
            let (ann, bob) = (world.person("ann", Profile::wifi_lossy()), world.person("bob", link()));
            let (ann_room, bob_room) = (ann.join(&world), bob.join(&world));
            let player = bob_room.play("cam", PlayOptions::new()).unwrap();
            let mut frames = player.frames();
            for stream in 0..6 {
                let publisher = ann_room.publish(PublishOptions::new("cam").video("x")).unwrap();
                publisher.publishing().await.unwrap();
                for number in 0_u64..90 {
                    let keyframe = number == 0 || !publisher.take_keyframe_requests().is_empty();
                    let frame = EncodedFrame::new(0, sim.clock().now(), vec![stream; 5_000]);
                    _ = publisher.send_frame(EncodedFrame { keyframe, ..frame });
                    sim.clock().sleep(FRAME).await;
                }
                assert_eq!(bob_room.status().state, RoomState::Connected, "{:?}", bob_room.status());
                let mut came = 0;
                while let Some(frame) = frames.try_next() {
                    came += usize::from(frame.payload[0] == stream);
                }
                assert!(came > 45, "{came} frames of the stream's {stream}th life");
            }
        });
    }
}
