//! If this fails, frames keep requests and room events waiting: on a link full of media nobody can leave, publish or
//! learn who came.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::room::RoomEvent;
use parlor_client::{Delivery, PlayOptions, PublishOptions, Publisher, Room, Timestamp};
use parlor_tests::world::World;
use parlor_transport::clock::Clock;
use parlor_transport::sim::{Profile, Simulation};

/// The narrow link, and the media for it: three times as much.
const NARROW: u64 = 1_000_000;
const FRAME_BYTES: usize = 3 * NARROW as usize / 8 / 30;
const RTT: Duration = Duration::from_millis(50);
/// A round trip and the queue that rate control lets stand, twice over. Frames on QUIC streams are under QUIC's window
/// alone, which fills the link's queue of 300 ms; for them it is twice that.
fn prompt(delivery: Delivery) -> Duration {
    Duration::from_millis(if delivery == Delivery::QuicStream { 650 } else { 150 })
}

fn narrow() -> Profile {
    let queue = (NARROW, NARROW as usize / 8 * 3 / 10);
    Profile::perfect().with_rtt(RTT).with_rates(queue, queue)
}

/// Hands in a frame 30 times a second, without end, whatever becomes of it.
async fn flood(publisher: Publisher, clock: Clock) {
    for number in 0_u64.. {
        let keyframe = number.is_multiple_of(120) || !publisher.take_keyframe_requests().is_empty();
        let payload = vec![number as u8; FRAME_BYTES];
        let frame = EncodedFrame { keyframe, ..EncodedFrame::new(0, clock.now(), payload) };
        _ = publisher.send_frame(frame);
        clock.sleep(Duration::from_millis(33)).await;
    }
}

fn worst(waits: &[Duration]) -> Duration {
    waits.iter().copied().max().unwrap()
}

async fn request_times(room: &Room, clock: &Clock) -> Vec<Duration> {
    let mut waits = Vec::new();
    for number in 0..30 {
        let asked = clock.now();
        let publisher = room.publish(PublishOptions::new(format!("data-{number}")).data("x")).unwrap();
        publisher.publishing().await.unwrap();
        waits.push(clock.now().saturating_since(asked));
        drop(publisher);
        clock.sleep(Duration::from_millis(317)).await;
    }
    waits
}

#[test]
fn requests_pass_a_publisher_that_sends_too_much() {
    for delivery in [Delivery::Adaptive, Delivery::Datagram, Delivery::QuicStream] {
        Simulation::new(3).run(async |sim| {
            let world = World::new(&sim).await;
            let ann = world.person("ann", narrow());
            let room = ann.join(&world);
            ann.host.log_queue(parlor_transport::sim::Direction::Up);
            let options = PublishOptions::new("flood").video("x").delivery(delivery);
            let publisher = room.publish(options).unwrap();
            publisher.publishing().await.unwrap();
            let bob = world.person("bob", Profile::perfect());
            let viewing = bob.join(&world);
            let player = viewing.play("flood", PlayOptions::new()).unwrap();
            player.playing().await.unwrap();
            let clock = sim.clock().clone();
            let flooding = tokio::spawn(flood(publisher, clock.clone()));
            clock.sleep(Duration::from_secs(3)).await;
            let waits = request_times(&room, &clock).await;
            assert!(worst(&waits) < prompt(delivery), "{delivery:?}: {:?}", worst(&waits));
            flooding.abort();
        });
    }
}

#[test]
fn events_pass_a_subscriber_whose_link_is_full() {
    for delivery in [Delivery::Adaptive, Delivery::Datagram, Delivery::QuicStream] {
        Simulation::new(4).run(async |sim| {
            let world = World::new(&sim).await;
            let ann = world.person("ann", Profile::perfect());
            let publishing = ann.join(&world);
            let options = PublishOptions::new("flood").video("x").delivery(delivery);
            let publisher = publishing.publish(options).unwrap();
            publisher.publishing().await.unwrap();
            let bob = world.person("bob", narrow());
            let viewing = bob.join(&world);
            let mut events = viewing.events();
            let player = viewing.play("flood", PlayOptions::new()).unwrap();
            player.playing().await.unwrap();
            let clock = sim.clock().clone();
            let flooding = tokio::spawn(flood(publisher, clock.clone()));
            let hearing = clock.clone();
            let heard = tokio::spawn(async move {
                let mut heard: Vec<(String, Timestamp)> = Vec::new();
                while let Some(event) = events.next().await {
                    if let RoomEvent::StreamsAdded(streams) = event {
                        heard.extend(streams.iter().map(|stream| (stream.stream.to_string(), hearing.now())));
                    }
                }
                heard
            });
            clock.sleep(Duration::from_secs(3)).await;
            let mut added = Vec::new();
            for number in 0..30 {
                let stream = format!("data-{number}");
                let publisher = publishing.publish(PublishOptions::new(&stream).data("x")).unwrap();
                publisher.publishing().await.unwrap();
                added.push((stream, clock.now()));
                clock.sleep(Duration::from_millis(317)).await;
            }
            clock.sleep(Duration::from_secs(1)).await;
            flooding.abort();
            viewing.leave().await.unwrap();
            let heard = heard.await.unwrap();
            for (stream, at) in added {
                let came = heard.iter().find(|(id, _)| *id == stream).map(|(_, came)| *came);
                let wait = came.map(|came| came.saturating_since(at));
                assert!(wait.is_some_and(|wait| wait < prompt(delivery)), "{delivery:?}, {stream}: {wait:?}");
            }
        });
    }
}
