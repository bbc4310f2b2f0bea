//! How long it takes to be there, in round trips: if this fails, a round trip or a wait crept into
//! the way from connecting to hearing, seeing and being seen.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::room::RoomEvent;
use parlor_client::{PlayOptions, PublishOptions, Publisher};
use parlor_tests::world::World;
use parlor_transport::sim::{self, Profile};

const RTT: Duration = Duration::from_millis(50);
const SLACK: Duration = Duration::from_millis(5);
/// 18 packets, as of 360p video.
const KEYFRAME: usize = 20_000;
const LINK_RATE: u64 = 10_000_000;

fn link() -> Profile {
    let mut profile = Profile::perfect().with_rtt(RTT);
    profile.up.rate = Some(LINK_RATE);
    profile.down.rate = Some(LINK_RATE);
    profile
}

/// Publishes 30 frames/s until the publisher ends.
async fn publish_video(publisher: Publisher, clock: parlor_transport::clock::Clock) {
    for number in 0u64.. {
        let keyframe = number % 120 == 0 || !publisher.take_keyframe_requests().is_empty();
        let size = if keyframe { KEYFRAME } else { 4000 };
        let frame = EncodedFrame { keyframe, ..EncodedFrame::new(0, publisher.now(), vec![0; size]) };
        _ = publisher.send_frame(frame);
        clock.sleep(Duration::from_millis(33)).await;
    }
}

#[test]
fn a_cold_join_takes_two_round_trips() {
    sim::run(1, async |sim| {
        let world = World::new(&sim).await;
        let ann = world.person("ann", link());
        let start = sim.clock().now();
        let room = ann.join(&world);
        room.joined().await.unwrap();
        let took = sim.clock().now().saturating_since(start);
        println!("connect to Joined: {took:?}");
        assert!(took <= 2 * RTT + SLACK, "{took:?}");
    });
}

#[test]
fn join_and_play_in_one_flight_show_a_keyframe_after_two_round_trips() {
    // Wherever in the group of pictures the newcomer falls: the newest keyframe comes at once.
    for late in [0, 100, 700, 1500, 3000] {
        sim::run(2, async |sim| {
            let world = World::new(&sim).await;
            let clock = sim.clock().clone();
            let ann = world.person("ann", Profile::perfect().with_rtt(Duration::ZERO));
            let ann_room = ann.join(&world);
            let publisher = ann_room.publish(PublishOptions::new("ann-cam").video("test")).unwrap();
            publisher.publishing().await.unwrap();
            tokio::spawn(publish_video(publisher, clock.clone()));
            clock.sleep(Duration::from_millis(200 + late)).await;

            let bob = world.person("bob", link());
            let start = clock.now();
            let room = bob.join(&world);
            let player = room.play("ann-cam", PlayOptions::new()).unwrap();
            let first = player.frames().next().await.unwrap();
            let took = first.arrived.saturating_since(start);
            assert!(first.header.keyframe);
            let serialisation = Duration::from_secs_f64(KEYFRAME as f64 * 8.0 * 1.07 / LINK_RATE as f64);
            println!("{late} ms into the group: first keyframe complete after {took:?}");
            assert!(took <= 2 * RTT + serialisation + SLACK, "{took:?}");
        });
    }
}

#[test]
fn who_was_here_before_joins_in_one_round_trip_and_sees_a_keyframe_as_soon() {
    sim::run(4, async |sim| {
        let world = World::new(&sim).await;
        let clock = sim.clock().clone();
        let ann = world.person("ann", Profile::perfect().with_rtt(Duration::ZERO));
        let ann_room = ann.join(&world);
        let publisher = ann_room.publish(PublishOptions::new("ann-cam").video("test")).unwrap();
        publisher.publishing().await.unwrap();
        tokio::spawn(publish_video(publisher, clock.clone()));
        let bob = world.person("bob", link());
        for visit in 0..4 {
            clock.sleep(Duration::from_millis(1700)).await;
            let start = clock.now();
            let room = bob.join(&world);
            let player = room.play("ann-cam", PlayOptions::new()).unwrap();
            let mut frames = player.frames();
            let joined = async {
                room.joined().await.unwrap();
                clock.now().saturating_since(start)
            };
            let (joined, first) = tokio::join!(joined, frames.next());
            let first = first.unwrap();
            let took = first.arrived.saturating_since(start);
            println!("visit {visit}: joined after {joined:?}, first keyframe complete after {took:?}");
            let trips = if visit == 0 { 2 } else { 1 };
            let serialisation = Duration::from_secs_f64(KEYFRAME as f64 * 8.0 * 1.07 / LINK_RATE as f64);
            assert!(first.header.keyframe);
            assert!(joined <= trips * RTT + SLACK, "{joined:?}");
            assert!(took <= trips * RTT + serialisation + SLACK, "{took:?}");
            room.leave().await.unwrap();
        }
    });
}

#[test]
fn others_hear_of_a_join_half_a_round_trip_after_the_relay() {
    sim::run(3, async |sim| {
        let world = World::new(&sim).await;
        let ann = world.person("ann", link());
        let room = ann.join(&world);
        room.joined().await.unwrap();
        let mut events = room.events();
        sim.clock().sleep(Duration::from_secs(1)).await;
        while events.try_next().is_some() {}

        let bob = world.person("bob", link());
        let relay = world.relay.clone();
        let clock = sim.clock().clone();
        let at_relay = tokio::spawn(async move {
            let stage = parlor_client::RoomId::new(parlor_tests::world::ROOM).unwrap();
            loop {
                if relay.room(&parlor_client::AppId::dev(), &stage).is_some_and(|room| room.users.len() == 2)
                {
                    break clock.now();
                }
                clock.sleep(Duration::from_micros(50)).await;
            }
        });
        let bob_room = bob.join(&world);
        loop {
            if let RoomEvent::UsersAdded { users, count } = events.next().await.unwrap() {
                assert_eq!((users[0].user.as_str(), count), ("bob", 2));
                break;
            }
        }
        let took = sim.clock().now().saturating_since(at_relay.await.unwrap());
        println!("relay to the other member: {took:?}");
        assert!(took <= RTT / 2 + SLACK, "{took:?}");
        drop(bob_room);
    });
}
