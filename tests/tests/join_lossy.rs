//! Joining where most packets are lost: if this fails, someone on a bad link cannot get into a call at all.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::{PlayOptions, PublishOptions, Publisher};
use parlor_tests::world::World;
use parlor_transport::clock::Clock;
use parlor_transport::sim::{Loss, Profile, Simulation};

const RTT: Duration = Duration::from_millis(50);
const LOSS: f64 = 0.7;
const RUNS: u64 = 100;
/// Nobody waits longer than this for a picture.
const GIVE_UP: Duration = Duration::from_secs(20);
/// A call of 640x360 at 15 frames/s and 600 kbit/s, whose keyframes are five times as large as others.
const FRAME: usize = 4_600;

/// Publishes until the publisher ends.
async fn publish_video(publisher: Publisher, clock: Clock) {
    for number in 0u64.. {
        let keyframe = number % 60 == 0 || !publisher.take_keyframe_requests().is_empty();
        let size = if keyframe { 5 * FRAME } else { FRAME };
        let frame = EncodedFrame { keyframe, ..EncodedFrame::new(0, publisher.now(), vec![0; size]) };
        _ = publisher.send_frame(frame);
        clock.sleep(Duration::from_micros(66_667)).await;
    }
}

/// From the call of `join` to Joined, and to the first complete keyframe.
fn join_and_play(seed: u64, up: f64, down: f64) -> Option<(Duration, Duration)> {
    Simulation::new(seed).run(async |sim| {
        let world = World::new(&sim).await;
        let clock = sim.clock().clone();
        let ann = world.person("ann", Profile::perfect());
        let ann_room = ann.join(&world);
        let publisher = ann_room.publish(PublishOptions::new("ann-cam").video("test")).unwrap();
        publisher.publishing().await.unwrap();
        tokio::spawn(publish_video(publisher, clock.clone()));
        clock.sleep(Duration::from_millis(700)).await;

        let mut link =
            Profile::perfect().with_rtt(RTT).with_rates((5_000_000, 187_500), (5_000_000, 187_500));
        (link.up.loss, link.down.loss) = (Loss::Random(up), Loss::Random(down));
        let bob = world.person("bob", link);
        let start = clock.now();
        let room = bob.join(&world);
        let player = room.play("ann-cam", PlayOptions::new()).unwrap();
        let mut frames = player.frames();
        let joined = async {
            room.joined().await.ok()?;
            Some(clock.now().saturating_since(start))
        };
        let first = async {
            loop {
                let frame = clock.timeout(GIVE_UP, frames.next()).await.ok()??;
                if frame.header.keyframe {
                    return Some(frame.arrived.saturating_since(start));
                }
                // As a decoder does that cannot begin.
                player.request_keyframe(0);
            }
        };
        let (joined, first) = tokio::join!(biased; joined, first);
        joined.zip(first)
    })
}

fn everybody_within(limit: Duration, up: f64, down: f64) {
    let runs = (0..RUNS).map(|seed| (seed, join_and_play(seed, up, down)));
    let (mut joined, mut first, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (seed, times) in runs {
        match times {
            Some((join, picture)) => {
                joined.push(join);
                first.push(picture);
            }
            None => failed.push(seed),
        }
        if times.is_some_and(|(_, picture)| picture > limit) {
            failed.push(seed);
        }
    }
    joined.sort_unstable();
    first.sort_unstable();
    println!(
        "lost up {up}, down {down}: joined after {:?}, at most {:?}; first picture after {:?}, at most {:?}",
        joined[joined.len() / 2],
        joined[joined.len() - 1],
        first[first.len() / 2],
        first[first.len() - 1],
    );
    assert!(failed.is_empty(), "not within {limit:?}: seeds {failed:?}");
}

#[test]
fn seventy_percent_lost_upwards() {
    everybody_within(Duration::from_millis(2500), LOSS, 0.0);
}

#[test]
fn seventy_percent_lost_downwards() {
    everybody_within(Duration::from_millis(2500), 0.0, LOSS);
}

#[test]
fn seventy_percent_lost_both_ways() {
    everybody_within(Duration::from_millis(5000), LOSS, LOSS);
}
