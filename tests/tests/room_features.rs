//! If this fails, people in a room do not hear what others say to them or of themselves: messages, the states of
//! tracks, extra info, presence. The real stack in virtual time.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::time::Duration;

use parlor_client::room::{Recipients, RoomEvent};
use parlor_client::{Code, Coded, Room, RoomEvents};
use parlor_tests::world::{Person, World};
use parlor_transport::sim::{self, Profile};

/// Joins [`ROOM`](parlor_tests::world::ROOM) and reads everything that was there.
async fn enter(world: &World, person: &Person) -> (Room, RoomEvents) {
    let room = person.join(world);
    room.joined().await.unwrap();
    room.snapshot().await.unwrap();
    let mut events = room.events();
    drain(&mut events);
    (room, events)
}

fn drain(events: &mut RoomEvents) -> Vec<RoomEvent> {
    std::iter::from_fn(|| events.try_next()).collect()
}

async fn sleep(world: &World, ms: u64) {
    world.sim.clock().sleep(Duration::from_millis(ms)).await;
}

/// What was said, as `from: text`, with `>` for what was for listed users.
fn said(events: &mut RoomEvents) -> Vec<String> {
    let message = |event| match event {
        RoomEvent::Message { from, direct, payload } => {
            let text = String::from_utf8_lossy(&payload).into_owned();
            Some(format!("{from}{} {text}", if direct { ">" } else { ":" }))
        }
        _ => None,
    };
    drain(events).into_iter().filter_map(message).collect()
}

#[test]
fn messages_reach_the_room_or_listed_users_and_never_the_sender() {
    sim::run(1, async |sim| {
        let world = World::new(&sim).await;
        let [ann, bob, cid] = ["ann", "bob", "cid"].map(|name| world.person(name, Profile::wifi()));
        let (ann, mut at_ann) = enter(&world, &ann).await;
        let (bob, mut at_bob) = enter(&world, &bob).await;
        let (_cid, mut at_cid) = enter(&world, &cid).await;
        sleep(&world, 500).await;

        ann.send_message(Recipients::Everyone, "hello").unwrap().done().await.unwrap();
        let twice_and_myself = Recipients::users(["bob", "bob", "ann"]).unwrap();
        ann.send_message(twice_and_myself, "psst").unwrap().done().await.unwrap();
        bob.send_lossy_message(Recipients::Everyone, "me too").unwrap().done().await.unwrap();
        sleep(&world, 500).await;
        assert_eq!(said(&mut at_ann), ["bob: me too"]);
        assert_eq!(said(&mut at_bob), ["ann: hello", "ann> psst"]);
        assert_eq!(said(&mut at_cid), ["ann: hello", "bob: me too"]);
        assert_eq!(world.relay.counters().messages_sent, 5);
    });
}

#[test]
fn messages_of_one_user_come_whole_and_in_order_over_a_lossy_link() {
    sim::run(2, async |sim| {
        let world = World::new(&sim).await;
        let [ann, bob] = ["ann", "bob"].map(|name| world.person(name, Profile::wifi_lossy()));
        // Sent before the room is joined: they leave when it is.
        let (_bob, mut at_bob) = enter(&world, &bob).await;
        let ann = ann.join(&world);
        let mut answers = Vec::new();
        for number in 0..90u32 {
            let mut payload = number.to_be_bytes().to_vec();
            payload.resize(if number % 30 == 7 { 16 * 1024 } else { 100 }, 1);
            answers.push(ann.send_message(Recipients::Everyone, payload).unwrap());
            if number > 40 {
                sleep(&world, 40).await;
            }
        }
        for answer in answers {
            answer.done().await.unwrap();
        }
        sleep(&world, 2_000).await;
        let numbers: Vec<u32> = drain(&mut at_bob)
            .into_iter()
            .filter_map(|event| match event {
                RoomEvent::Message { payload, .. } => {
                    Some(u32::from_be_bytes(payload[..4].try_into().unwrap()))
                }
                _ => None,
            })
            .collect();
        assert_eq!(numbers, (0..90).collect::<Vec<_>>());
    });
}

#[test]
fn bad_messages_are_refused_with_a_code_and_reach_nobody() {
    sim::run(3, async |sim| {
        let world = World::new(&sim).await;
        let [ann, bob] = ["ann", "bob"].map(|name| world.person(name, Profile::perfect()));
        let (ann, _) = enter(&world, &ann).await;
        let (bob, mut at_bob) = enter(&world, &bob).await;

        let large = vec![0; 16 * 1024 + 1];
        assert_eq!(ann.send_message(Recipients::Everyone, large).unwrap_err().code(), Code::TooLarge);
        let many = Recipients::users((0..257).map(|n| format!("u{n}"))).unwrap();
        assert_eq!(ann.send_message(many, "all of you").unwrap_err().code(), Code::TooLarge);
        let nobody = Recipients::Users(vec![]);
        assert_eq!(ann.send_message(nobody, "?").unwrap_err().code(), Code::UnknownUser);
        let some = Recipients::users(["bob", "eve"]).unwrap();
        let refusal = ann.send_message(some, "psst").unwrap().done().await.unwrap_err();
        assert_eq!(refusal.code(), Code::UnknownUser);
        assert!(refusal.text.contains("\"eve\""), "{refusal}");

        // A burst is passed on, a flood is not; later there is room again.
        let send = || ann.send_message(Recipients::Everyone, "x").unwrap();
        let answers: Vec<_> = (0..150).map(|_| send()).collect();
        let mut refused = 0;
        for answer in answers {
            if let Err(refusal) = answer.done().await {
                assert_eq!((refusal.code(), refusal.is_retryable()), (Code::TooManyMessages, true));
                refused += 1;
            }
        }
        assert!((40..=50).contains(&refused), "{refused}");
        sleep(&world, 1_000).await;
        send().done().await.unwrap();
        sleep(&world, 100).await;
        assert_eq!(said(&mut at_bob).len(), 151 - refused);

        bob.leave().await.unwrap();
        let to_bob = Recipients::users(["bob"]).unwrap();
        let refusal = ann.send_message(to_bob, "gone?").unwrap().done().await.unwrap_err();
        assert_eq!(refusal.code(), Code::UnknownUser);
    });
}
