//! If this fails, an app that joins, publishes, plays and leaves through a real relay is told something wrong, or
//! told late. Everything here is the real stack in virtual time.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::collections::BTreeMap;
use std::time::Duration;

use parlor_client::player::{PlayerState, ReceivedFrame};
use parlor_client::publisher::{DropReason, EncodedFrame, PublisherState, SendOutcome};
use parlor_client::room::{RoomEvent, RoomReason, RoomState, RoomView};
use parlor_client::{
    Code, Coded, Delivery, Departure, JoinOptions, PlayOptions, PublishOptions, Publisher, Room, RoomEvents,
};
use parlor_tests::world::{Person, World};
use parlor_transport::sim::{self, Profile};
use rand::RngExt;

const RTT: Duration = Duration::from_millis(50);

/// A link 50 ms of round trip away from the relay.
fn link() -> Profile {
    Profile::perfect().with_rtt(RTT)
}

fn join(world: &World, at: &Person, user: &str) -> Room {
    at.engine.join(JoinOptions::new(world.address.to_string(), user)).unwrap()
}

async fn sleep(world: &World, ms: u64) {
    world.sim.clock().sleep(Duration::from_millis(ms)).await;
}

fn now_ms(world: &World) -> f64 {
    world.sim.clock().now().as_micros() as f64 / 1000.0
}

/// One picture track, 15 frames a second of `size` bytes, until the publisher is dropped.
async fn film(publisher: &Publisher, size: usize, frames: u32) {
    publisher.publishing().await.unwrap();
    let clock = publisher.clock().clone();
    for number in 0..frames {
        let wanted = !publisher.take_keyframe_requests().is_empty();
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(size, 0);
        let frame = EncodedFrame { keyframe: wanted, ..EncodedFrame::new(0, publisher.now(), payload) };
        assert_eq!(publisher.send_frame(frame), SendOutcome::Queued, "frame {number}");
        clock.sleep(Duration::from_micros(66_667)).await;
    }
}

fn camera(stream: &str) -> PublishOptions {
    PublishOptions::new(stream).video("test")
}

/// Everything until the room is quiet.
fn drain(events: &mut RoomEvents) -> Vec<RoomEvent> {
    std::iter::from_fn(|| events.try_next()).collect()
}

#[test]
fn joining_takes_two_round_trips_and_others_hear_of_it_half_a_round_trip_later() {
    sim::run(1, async |sim| {
        let world = World::new(&sim).await;
        let (first, second) = (world.person("first", link()), world.person("second", link()));
        let ann = join(&world, &first, "ann");
        ann.joined().await.unwrap();
        let took = ann.stats().join_time.unwrap();
        assert!(took <= 2 * RTT + Duration::from_millis(5), "{took:?}");
        assert!(ann.snapshot().await.unwrap().users.is_empty());
        let mut events = ann.events();
        drain(&mut events);

        let start = now_ms(&world);
        let bob = join(&world, &second, "bob");
        let RoomEvent::UsersAdded { users, count: 2 } = events.next().await.unwrap() else {
            panic!("ann hears of bob")
        };
        assert_eq!(users[0].user.as_str(), "bob");
        // One and a half round trips until the relay has the join, half a one until ann has the event.
        let took = now_ms(&world) - start;
        assert!(took <= 2.0 * 50.0 + 5.0, "{took} ms");
        assert_eq!(bob.snapshot().await.unwrap().users.len(), 1);
    });
}

#[test]
fn join_and_play_in_one_flight_bring_the_newest_keyframe_with_the_answer() {
    sim::run(2, async |sim| {
        let world = World::new(&sim).await;
        let (publishing, playing) = (world.person("publishing", link()), world.person("playing", link()));
        let ann = join(&world, &publishing, "ann");
        let publisher = ann.publish(camera("ann-cam")).unwrap();
        let filming = film(&publisher, 4_000, 60);
        let watching = async {
            sleep(&world, 1_000).await;
            let start = now_ms(&world);
            let bob = join(&world, &playing, "bob");
            let player = bob.play("ann-cam", PlayOptions::new()).unwrap();
            let first = player.frames().next().await.unwrap();
            assert!(first.header.keyframe);
            let took = now_ms(&world) - start;
            assert!(took <= 2.0 * 50.0 + 5.0, "{took} ms to the first keyframe");
            assert_eq!(bob.status().state, RoomState::Connected);

            // From there on every frame comes, and its age is the way through the relay and the backlog.
            let mut frames = player.frames();
            let mut last = first;
            for _ in 0..20 {
                let next = frames.next().await.unwrap();
                assert_eq!((next.header.number, next.missed), (last.header.number + 1, 0));
                last = next;
            }
            let age = last.age();
            let path = RTT..RTT + Duration::from_millis(5);
            assert!(path.contains(&(age + Duration::from_millis(1))), "{age:?}");
        };
        tokio::join!(biased; filming, watching);
    });
}

#[test]
fn a_taken_stream_id_is_refused_and_the_first_publisher_goes_on() {
    sim::run(3, async |sim| {
        let world = World::new(&sim).await;
        let (first, second) = (world.person("first", link()), world.person("second", link()));
        let (ann, bob) = (join(&world, &first, "ann"), join(&world, &second, "bob"));
        let owner = ann.publish(camera("cam")).unwrap();
        owner.publishing().await.unwrap();
        let late = bob.publish(camera("cam")).unwrap();
        let refusal = late.publishing().await.unwrap_err();
        assert_eq!((refusal.code(), refusal.is_retryable()), (Code::StreamTaken, false));
        assert!(refusal.text.contains("\"ann\""), "{refusal}");
        assert_eq!((late.status().state, late.status().error), (PublisherState::Idle, Some(refusal)));
        assert_eq!(owner.status().state, PublisherState::Publishing);
        assert_eq!(bob.status().state, RoomState::Connected);
        // Free again: now it is bob's.
        drop(owner);
        sleep(&world, 100).await;
        let again = bob.publish(camera("cam")).unwrap();
        again.publishing().await.unwrap();
    });
}

/// 1.2 Mbit/s onto a link of 400 kbit/s: the sender never waits, whole frames go, and what arrives decodes.
#[test]
fn a_publisher_on_a_narrow_link_drops_whole_frames_and_asks_for_keyframes() {
    sim::run(11, async |sim| {
        let world = World::new(&sim).await;
        let mut narrow = link();
        narrow.up.rate = Some(400_000);
        let (first, second) = (world.person("first", narrow), world.person("second", link()));
        let (ann, bob) = (join(&world, &first, "ann"), join(&world, &second, "bob"));
        let publisher = ann.publish(camera("cam")).unwrap();
        let player = bob.play("cam", PlayOptions::new()).unwrap();
        player.playing().await.unwrap();
        let mut frames = player.frames();
        let mut newest = None;
        let mut received = Vec::new();
        for number in 0..300u32 {
            let wanted = !publisher.take_keyframe_requests().is_empty();
            let mut payload = number.to_be_bytes().to_vec();
            payload.resize(10_000, 0);
            let frame = EncodedFrame { keyframe: wanted, ..EncodedFrame::new(0, publisher.now(), payload) };
            // What is dropped, here or later in the queue, is counted with its reason.
            let _ = publisher.send_frame(frame);
            world.sim.clock().sleep(Duration::from_micros(66_667)).await;
            received.extend(std::iter::from_fn(|| frames.try_next()));
        }
        let counts = publisher.stats().counts;
        let congestion = [DropReason::Late, DropReason::Congested, DropReason::AwaitingKeyframe];
        let dropped: u64 = congestion.iter().map(|&reason| counts.dropped(reason)).sum();
        assert_eq!(dropped, counts.dropped_total(), "for no other reason");
        assert!(dropped > 100 && received.len() > 20, "{counts:?}, {} received", received.len());
        for frame in received {
            let number = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
            // Without its predecessor only a keyframe decodes.
            let decodes = frame.header.keyframe || (frame.missed == 0 && newest == Some(number - 1));
            assert!(decodes || frame.missed > 0, "frame {number} after {newest:?}");
            newest = Some(number);
        }
    });
}

#[test]
fn a_stream_that_does_not_exist_is_waited_for_each_time() {
    sim::run(4, async |sim| {
        let world = World::new(&sim).await;
        let (first, second) = (world.person("first", link()), world.person("second", link()));
        let (ann, bob) = (join(&world, &first, "ann"), join(&world, &second, "bob"));
        let player = ann.play("bob-cam", PlayOptions::new()).unwrap();
        bob.joined().await.unwrap();
        sleep(&world, 100).await;
        assert_eq!(player.status().state, PlayerState::Requesting);
        let mut frames = player.frames();
        for round in 0..3 {
            let publisher = bob.publish(camera("bob-cam")).unwrap();
            player.playing().await.unwrap();
            assert_eq!(player.played().unwrap().user.as_str(), "bob");
            film(&publisher, 500, 5).await;
            for number in 0..5 {
                let ReceivedFrame { header, payload, missed, .. } = frames.next().await.unwrap();
                assert_eq!((header.keyframe, missed), (number == 0, 0), "frame {number} of round {round}");
                assert_eq!(payload[..4], u32::to_be_bytes(number));
            }
            let playing = player.status();
            drop(publisher);
            let ended = player.changed_from(&playing).await;
            assert_eq!((ended.state, ended.error), (PlayerState::Requesting, None));
        }
    });
}

#[test]
fn sound_and_data_travel_as_datagrams_too() {
    sim::run(5, async |sim| {
        let world = World::new(&sim).await;
        let (first, second) = (world.person("first", link()), world.person("second", link()));
        let (ann, bob) = (join(&world, &first, "ann"), join(&world, &second, "bob"));
        let options = PublishOptions::new("mic").audio("test").data("test").delivery(Delivery::Datagram);
        let publisher = ann.publish(options).unwrap();
        let player = bob.play("mic", PlayOptions::new()).unwrap();
        player.playing().await.unwrap();
        for number in 0..50u8 {
            for track in 0..2 {
                let frame = EncodedFrame::new(track, publisher.now(), vec![number; 3000]);
                assert_eq!(publisher.send_frame(frame), SendOutcome::Queued);
            }
            sleep(&world, 20).await;
        }
        let mut frames = player.frames();
        let mut counts = [0u8; 2];
        while counts != [50, 50] {
            let frame = frames.next().await.unwrap();
            let count = &mut counts[usize::from(frame.header.track)];
            assert_eq!((frame.payload[0], frame.payload.len(), frame.missed), (*count, 3000, 0));
            *count += 1;
        }
    });
}

#[test]
fn dropping_a_handle_stops_what_it_stands_for() {
    sim::run(6, async |sim| {
        let world = World::new(&sim).await;
        let (first, second) = (world.person("first", link()), world.person("second", link()));
        let (ann, bob) = (join(&world, &first, "ann"), join(&world, &second, "bob"));
        let publisher = ann.publish(camera("ann-cam")).unwrap();
        let player = bob.play("ann-cam", PlayOptions::new()).unwrap();
        player.playing().await.unwrap();
        bob.snapshot().await.unwrap();
        assert_eq!(world.relay.survey().plays, 1);
        let mut events = bob.events();
        drain(&mut events);

        drop(player);
        sleep(&world, 100).await;
        assert_eq!(world.relay.survey().plays, 0);
        drop(publisher);
        let removed = events.next().await.unwrap();
        let left = Departure::Left;
        assert!(
            matches!(&removed, RoomEvent::StreamRemoved { stream, reason } if stream.stream.as_str() == "ann-cam" && *reason == left)
        );
        drop(ann);
        let gone = events.next().await.unwrap();
        assert!(
            matches!(&gone, RoomEvent::UserRemoved { user, reason, count: 1 } if user.user.as_str() == "ann" && *reason == left)
        );
        second.engine.close().await;
        sleep(&world, 100).await;
        assert_eq!(world.room(), None, "a room ends with its last user");
        assert_eq!(world.relay.survey().connections, 0);
    });
}

#[test]
fn a_second_login_puts_the_first_out_and_says_so_to_everyone() {
    sim::run(7, async |sim| {
        let world = World::new(&sim).await;
        let engines = ["old", "new", "other"].map(|name| world.person(name, link()));
        let old = join(&world, &engines[0], "ann");
        let publisher = old.publish(camera("ann-cam")).unwrap();
        publisher.publishing().await.unwrap();
        let other = join(&world, &engines[2], "bob");
        other.snapshot().await.unwrap();
        let mut events = other.events();
        drain(&mut events);

        let new = join(&world, &engines[1], "ann");
        new.joined().await.unwrap();
        sleep(&world, 100).await;
        let status = old.status();
        assert_eq!((status.state, status.reason), (RoomState::Disconnected, RoomReason::KickedOut));
        assert_eq!(status.error.unwrap().code(), Code::RepeatedLogin);
        assert_eq!(publisher.status().error.unwrap().code(), Code::RepeatedLogin);
        assert_eq!(new.status().state, RoomState::Connected);
        let repeated = Departure::RepeatedLogin;
        let heard = drain(&mut events);
        assert!(
            matches!(
                &heard[..],
                [
                    RoomEvent::StreamRemoved { reason: a, .. },
                    RoomEvent::UserRemoved { reason: b, .. },
                    RoomEvent::UsersAdded { count: 2, .. },
                ] if *a == repeated && *b == repeated
            ),
            "{heard:?}"
        );
    });
}

#[test]
fn a_lost_connection_is_told_on_both_sides_with_its_code() {
    sim::run(8, async |sim| {
        let world = World::new(&sim).await;
        let (first, second) = (world.person("first", link()), world.person("second", link()));
        let (ann, bob) = (join(&world, &first, "ann"), join(&world, &second, "bob"));
        let player = ann.play("nothing", PlayOptions::new()).unwrap();
        ann.snapshot().await.unwrap();
        bob.snapshot().await.unwrap();
        let (mut at_ann, mut at_bob) = (ann.events(), bob.events());
        sleep(&world, 100).await;
        drain(&mut at_ann);
        drain(&mut at_bob);
        let cut = now_ms(&world);
        world.sim.network().find("first").unwrap().outage(Duration::ZERO, Duration::from_secs(600));

        let RoomEvent::State(status) = at_ann.next().await.unwrap() else { panic!("ann is told") };
        assert_eq!((status.state, status.reason), (RoomState::Connecting, RoomReason::Reconnecting));
        let error = status.error.unwrap();
        assert_eq!((error.code(), error.is_retryable()), (Code::HeartbeatTimeout, true));
        assert_eq!(player.status().state, PlayerState::Requesting);
        assert!(now_ms(&world) - cut <= 4_500.0);

        let RoomEvent::UserRemoved { reason, .. } = at_bob.next().await.unwrap() else {
            panic!("bob is told")
        };
        assert_eq!(reason, Departure::HeartbeatTimeout);
        assert!(now_ms(&world) - cut <= 12_000.0);
    });
}

#[test]
fn a_reader_that_slept_through_a_crowd_gets_the_difference() {
    sim::run(9, async |sim| {
        let world = World::new(&sim).await;
        let engine = world.person("watcher", link());
        let room = join(&world, &engine, "watcher");
        room.snapshot().await.unwrap();
        let mut events = room.events();
        let mut view = RoomView::default();
        for event in drain(&mut events) {
            view.apply(&event);
        }
        // More events than are kept: 300 people come, publish and mostly go.
        let crowd = world.person("crowd", link());
        let mut staying = Vec::new();
        for n in 0..300 {
            let guest = join(&world, &crowd, &format!("guest{n}"));
            let publisher = guest.publish(camera(&format!("cam{n}"))).unwrap();
            publisher.publishing().await.unwrap();
            if n % 10 == 0 {
                staying.push((guest, publisher));
            } else {
                drop(publisher);
                guest.leave().await.unwrap();
            }
        }
        sleep(&world, 200).await;
        let first = events.try_next().unwrap();
        let RoomEvent::Resync { difference, count: 31 } = &first else { panic!("{first:?}") };
        assert_eq!((difference.added_users.len(), difference.added_streams.len()), (30, 30));
        view.apply(&first);
        assert_eq!(events.try_next(), None);
        assert_eq!(Some(view), room.view());
    });
}

/// 60 people come and go in random order; whoever is there at the end sees exactly the relay's room.
#[test]
fn sixty_people_coming_and_going_end_with_equal_rooms() {
    sim::run(10, async |sim| {
        let world = World::new(&sim).await;
        let mut rng = sim.rng("people");
        let engines: Vec<_> = (0..60).map(|n| world.person(&format!("host{n}"), link())).collect();
        let mut rooms: BTreeMap<usize, (Room, Publisher)> = BTreeMap::new();
        for _ in 0..120 {
            let n = rng.random_range(0..engines.len());
            if rooms.remove(&n).is_none() {
                let room = join(&world, &engines[n], &format!("user{n}"));
                let publisher = room.publish(camera(&format!("cam{n}"))).unwrap();
                rooms.insert(n, (room, publisher));
            }
            sleep(&world, rng.random_range(0..60)).await;
        }
        sleep(&world, 500).await;
        let relay = world.room().unwrap();
        assert_eq!((relay.users.len(), relay.streams.len()), (rooms.len(), rooms.len()));
        for (n, (room, publisher)) in &rooms {
            assert_eq!(publisher.status().state, PublisherState::Publishing);
            assert_eq!(room.place(), Some((relay.epoch, relay.position)), "user{n}");
            let me = room.user();
            let view = room.view().unwrap();
            let users: Vec<_> = relay.users.iter().filter(|u| u.user != me).cloned().collect();
            let streams: Vec<_> = relay.streams.iter().filter(|s| s.user != me).cloned().collect();
            assert_eq!(view.users.into_values().collect::<Vec<_>>(), users, "user{n}");
            assert_eq!(view.streams.into_values().collect::<Vec<_>>(), streams, "user{n}");
        }
    });
}
