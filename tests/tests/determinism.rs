//! One seed, one run: if this fails, something read a real clock, a thread's own randomness or the
//! order of a random map, and no figure or failure from a simulation can be repeated any more.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::room::RoomEvent;
use parlor_client::{Delivery, PlayOptions, PublishOptions};
use parlor_tests::world::World;
use parlor_transport::sim::{self, Profile, Sim};

/// Five people on five kinds of link: each joins in their turn, publishes, plays whatever appears,
/// and leaves before the others are done. Gives the number of frames each received.
async fn five_people(sim: &Sim) -> Vec<u64> {
    let world = World::new(sim).await;
    let links = [
        Profile::wifi(),
        Profile::wifi_lossy(),
        Profile::mobile(),
        Profile::satellite(),
        Profile::congested(),
    ];
    let mut people = Vec::new();
    for (number, link) in links.into_iter().enumerate() {
        let person = world.person(&format!("person-{number}"), link);
        let room = person.join(&world);
        let clock = sim.clock().clone();
        people.push(tokio::spawn(async move {
            clock.sleep(Duration::from_millis(400) * number as u32).await;
            let delivery = if number % 2 == 0 { Delivery::QuicStream } else { Delivery::Datagram };
            let options = PublishOptions::new(&person.name).audio("opus").video("test").delivery(delivery);
            let publisher = room.publish(options).unwrap();
            let mut events = room.events();
            let mut players = Vec::new();
            let mut received = 0;
            for tick in 0u64..300 {
                clock.sleep(Duration::from_millis(20)).await;
                let now = publisher.now();
                _ = publisher.send_frame(EncodedFrame::new(0, now, vec![0; 80]));
                if tick % 2 == 0 {
                    let keyframe = tick % 100 == 0 || !publisher.take_keyframe_requests().is_empty();
                    let size = if keyframe { 9000 } else { 1800 };
                    let frame = EncodedFrame { keyframe, ..EncodedFrame::new(1, now, vec![1; size]) };
                    _ = publisher.send_frame(frame);
                }
                while let Some(event) = events.try_next() {
                    if let RoomEvent::StreamsAdded(streams) = event {
                        for info in streams {
                            let player = room.play(&info.stream, PlayOptions::new()).unwrap();
                            let frames = player.frames();
                            players.push((player, frames));
                        }
                    }
                }
                for (_, frames) in &mut players {
                    received += std::iter::from_fn(|| frames.try_next()).count() as u64;
                }
            }
            drop((players, publisher));
            _ = room.leave().await;
            person.engine.close().await;
            received
        }));
    }
    let mut received = Vec::new();
    for person in people {
        received.push(person.await.unwrap());
    }
    received
}

fn run(seed: u64) -> (Vec<u64>, String) {
    sim::run(seed, async |sim| {
        let received = five_people(&sim).await;
        (received, sim.network().trace().to_string())
    })
}

#[test]
fn the_same_seed_gives_the_same_packets_to_the_byte() {
    let (received, trace) = run(7);
    assert!(received.iter().all(|frames| *frames > 300), "everybody took part: {received:?}");
    assert!(trace.lines().count() > 10_000, "{} packets", trace.lines().count());
    let (received_again, trace_again) = run(7);
    if let Some((line, (first, second))) =
        trace.lines().zip(trace_again.lines()).enumerate().find(|(_, (a, b))| a != b)
    {
        panic!("the runs part at packet {line}:\n  {first}\n  {second}");
    }
    assert_eq!((received, trace.len()), (received_again, trace_again.len()));
    assert_ne!(run(8).1, trace, "another seed is another run");
}
