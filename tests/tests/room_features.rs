//! If this fails, people in a room do not hear what others say to them or of themselves: messages, the states of
//! tracks, extra info, presence. The real stack in virtual time.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::time::Duration;

use parlor_client::player::PlayerState;
use parlor_client::publisher::PublisherState;
use parlor_client::room::{Recipients, RoomEvent, RoomReason, RoomState};
use parlor_client::{
    Code, Coded, Departure, PlayOptions, PublishOptions, Room, RoomEvents, StreamId, TrackState,
};
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

/// What is told of tracks, streams and the room, in short.
fn extras(events: &[RoomEvent]) -> Vec<String> {
    let short = |event: &RoomEvent| match event {
        RoomEvent::TrackState { stream, track, state } => Some(format!("{stream}/{track} {state:?}")),
        RoomEvent::StreamInfo { stream, info, .. } => Some(format!("{stream}={info}")),
        RoomEvent::RoomInfo { key, value, .. } => Some(format!("{key}={value}")),
        _ => None,
    };
    events.iter().filter_map(short).collect()
}

#[test]
fn others_are_told_of_mutes_and_devices_and_late_joiners_find_them() {
    sim::run(4, async |sim| {
        let world = World::new(&sim).await;
        let [ann, bob, cid] = ["ann", "bob", "cid"].map(|name| world.person(name, Profile::wifi()));
        let (bob, mut at_bob) = enter(&world, &bob).await;
        let room = ann.join(&world);
        let mut at_ann = room.events();
        let publisher = room.publish(PublishOptions::new("cam").audio("opus").video("test")).unwrap();
        // Asked for before the room is joined: it is told with the stream.
        publisher.set_muted(0, true);
        publisher.set_track_state(1, TrackState::NoAuthorization);
        publisher.set_track_state(7, TrackState::Muted);
        publisher.publishing().await.unwrap();
        sleep(&world, 500).await;
        assert_eq!(extras(&drain(&mut at_bob)), ["cam/0 Muted", "cam/1 NoAuthorization"]);

        let (cid, _) = enter(&world, &cid).await;
        let cam = StreamId::new("cam").unwrap();
        let state = |room: &Room, track| room.view().unwrap().extras.track_state(&cam, track);
        assert_eq!((state(&cid, 0), state(&cid, 1)), (TrackState::Muted, TrackState::NoAuthorization));
        let first: Vec<_> = drain(&mut cid.events());
        assert_eq!(extras(&first), ["cam/0 Muted", "cam/1 NoAuthorization"]);

        publisher.set_muted(0, true);
        publisher.set_muted(0, false);
        publisher.set_track_state(1, TrackState::Open);
        sleep(&world, 500).await;
        assert_eq!(extras(&drain(&mut at_bob)), ["cam/0 Open", "cam/1 Open"]);
        assert_eq!((state(&cid, 0), state(&cid, 1)), (TrackState::Open, TrackState::Open));

        // The states go with the stream.
        publisher.set_muted(1, true);
        sleep(&world, 500).await;
        assert_eq!(state(&bob, 1), TrackState::Muted);
        drop(publisher);
        sleep(&world, 500).await;
        assert!(bob.view().unwrap().extras.is_empty());
        assert_eq!(world.room().unwrap().extras, Default::default());
        assert_eq!(extras(&drain(&mut at_ann)), [""; 0], "one's own are not reported");
    });
}

#[test]
fn info_is_what_was_written_last_and_everybody_agrees() {
    sim::run(5, async |sim| {
        let world = World::new(&sim).await;
        let links = [("ann", Profile::satellite()), ("bob", Profile::wifi_lossy())];
        let [ann, bob] = links.map(|(name, link)| world.person(name, link));
        let (ann, _) = enter(&world, &ann).await;
        let (bob, mut at_bob) = enter(&world, &bob).await;
        let cam = ann.publish(PublishOptions::new("cam").video("test")).unwrap();
        cam.publishing().await.unwrap();
        cam.set_info("{\"mirrored\":true}").unwrap().done().await.unwrap();
        sleep(&world, 1_000).await;
        assert_eq!(extras(&drain(&mut at_bob)), ["cam={\"mirrored\":true}"]);

        // Both write the same keys at once, over links of different speed.
        for round in 0..10 {
            for (writer, room) in [("ann", &ann), ("bob", &bob)] {
                drop(room.set_info("topic", format!("{writer} {round}")).unwrap());
                drop(room.set_info(format!("{writer}'s"), format!("{round}")).unwrap());
            }
            sleep(&world, 100).await;
        }
        drop(bob.set_info("bob's", "").unwrap());
        sleep(&world, 3_000).await;
        let late = world.person("late", Profile::wifi());
        let (late, _) = enter(&world, &late).await;
        let truth = world.room().unwrap().extras.room_infos;
        let keys: Vec<_> = truth.iter().map(|extra| extra.key.as_str()).collect();
        assert_eq!(keys, ["ann's", "topic"]);
        assert_eq!(truth[1].value, "ann 9", "what reached the relay last");
        for room in [&ann, &bob, &late] {
            let infos = room.view().unwrap().extras.room_infos;
            let seen: Vec<_> = infos.iter().map(|(key, info)| (key, info.version, &info.text)).collect();
            let there: Vec<_> = truth.iter().map(|extra| (&extra.key, extra.version, &extra.value)).collect();
            assert_eq!(seen, there);
        }
        let versions: Vec<u64> = drain(&mut at_bob)
            .iter()
            .filter_map(|event| match event {
                RoomEvent::RoomInfo { key, version, .. } if key == "topic" => Some(*version),
                _ => None,
            })
            .collect();
        assert!(versions.len() == 20 && versions.is_sorted(), "{versions:?}");
        let info = &late.view().unwrap().extras.stream_infos[&StreamId::new("cam").unwrap()];
        assert_eq!(info.text, "{\"mirrored\":true}");
    });
}

#[test]
fn bad_info_is_refused_with_a_code_and_changes_nothing() {
    sim::run(6, async |sim| {
        let world = World::new(&sim).await;
        let [ann, bob] = ["ann", "bob"].map(|name| world.person(name, Profile::perfect()));
        let (ann, _) = enter(&world, &ann).await;
        let (bob, _) = enter(&world, &bob).await;
        let cam = ann.publish(PublishOptions::new("cam").video("test")).unwrap();
        cam.publishing().await.unwrap();
        // Taken: bob does not publish it.
        let other = bob.publish(PublishOptions::new("cam").video("test")).unwrap();
        let answer = other.set_info("mine").unwrap();
        other.set_muted(0, true);
        assert_eq!(answer.done().await.unwrap_err().code(), Code::NotPublishing);
        assert_eq!(other.set_info("mine").unwrap_err().code(), Code::NotPublishing);

        assert_eq!(cam.set_info("x".repeat(1025)).unwrap_err().code(), Code::TooLarge);
        assert_eq!(ann.set_info("", "x").unwrap_err().code(), Code::BadId);
        assert_eq!(ann.set_info("k".repeat(129), "x").unwrap_err().code(), Code::TooLarge);
        assert_eq!(ann.set_info("k", "x".repeat(1025)).unwrap_err().code(), Code::TooLarge);
        for n in 0..32 {
            ann.set_info(format!("key{n:02}"), "x".repeat(1024)).unwrap().done().await.unwrap();
        }
        let refusal = ann.set_info("one more", "x").unwrap().done().await.unwrap_err();
        assert_eq!(refusal.code(), Code::TooManyKeys);
        let infos = world.room().unwrap().extras;
        assert_eq!((infos.room_infos.len(), infos.stream_infos.len(), infos.track_states.len()), (32, 0, 0));
        // A snapshot of several pages.
        let late = world.person("late", Profile::perfect());
        let (late, _) = enter(&world, &late).await;
        assert_eq!(late.view().unwrap().extras.room_infos.len(), 32);

        late.leave().await.unwrap();
        ann.leave().await.unwrap();
        assert_eq!(cam.set_info("gone").unwrap_err().code(), Code::NotPublishing);
    });
}

#[test]
fn nobody_hears_of_an_unseen_user_who_hears_everything() {
    sim::run(7, async |sim| {
        let world = World::new(&sim).await;
        let [ann, bob, ghost] = ["ann", "bob", "ghost"].map(|name| world.person(name, Profile::wifi()));
        // The first in the room: its life begins with somebody whom nobody sees.
        let unseen = ghost.join_with(&world, |options| options.unseen());
        unseen.snapshot().await.unwrap();
        let mut at_ghost = unseen.events();
        drain(&mut at_ghost);
        let (ann, mut at_ann) = enter(&world, &ann).await;
        let (bob, _) = enter(&world, &bob).await;
        let cam = ann.publish(PublishOptions::new("cam").video("test")).unwrap();
        sleep(&world, 500).await;
        let view = unseen.view().unwrap();
        assert_eq!((view.users.len(), view.streams.len()), (2, 1));
        assert_eq!(unseen.place(), ann.place());
        let counts: Vec<_> = drain(&mut at_ghost).iter().filter_map(RoomEvent::count).collect();
        assert_eq!(counts, [1, 2]);
        assert_eq!(world.room().unwrap().users.len(), 2);

        let player = unseen.play("cam", PlayOptions::new()).unwrap();
        let refused = unseen.publish(PublishOptions::new("ghost-cam").video("test")).unwrap();
        assert_eq!(refused.publishing().await.unwrap_err().code(), Code::Unseen);
        let said = unseen.send_message(Recipients::Everyone, "boo").unwrap();
        assert_eq!(said.done().await.unwrap_err().code(), Code::Unseen);
        let to_ghost = ann.send_message(Recipients::users(["ghost"]).unwrap(), "boo?").unwrap();
        assert_eq!(to_ghost.done().await.unwrap_err().code(), Code::UnknownUser);
        unseen.set_info("topic", "ghosts").unwrap().done().await.unwrap();
        sleep(&world, 500).await;
        assert_eq!(player.status().state, PlayerState::Playing);
        unseen.leave().await.unwrap();
        sleep(&world, 500).await;
        let heard = drain(&mut at_ann);
        let users: usize = heard.iter().map(|e| e.added_users().len() + e.removed_users().len()).sum();
        assert_eq!((users, extras(&heard)), (1, vec!["topic=ghosts".to_owned()]), "of bob alone: {heard:?}");

        // The last to go takes the room along.
        let unseen = ghost.join_with(&world, |options| options.unseen());
        unseen.joined().await.unwrap();
        drop(cam);
        ann.leave().await.unwrap();
        bob.leave().await.unwrap();
        assert_eq!(world.room().unwrap().users.len(), 0);
        unseen.leave().await.unwrap();
        assert_eq!(world.room(), None);
    });
}

#[test]
fn an_uninterested_user_hears_of_streams_and_not_of_users() {
    sim::run(8, async |sim| {
        let world = World::new(&sim).await;
        let [ann, bob, cid] = ["ann", "bob", "cid"].map(|name| world.person(name, Profile::wifi()));
        let (ann, _) = enter(&world, &ann).await;
        let cam = ann.publish(PublishOptions::new("cam").video("test")).unwrap();
        cam.publishing().await.unwrap();
        let room = bob.join_with(&world, |options| options.uninterested());
        room.snapshot().await.unwrap();
        let mut at_bob = room.events();
        let mut heard = drain(&mut at_bob);
        let (cid, mut at_cid) = enter(&world, &cid).await;
        cam.set_muted(0, true);
        let screen = cid.publish(PublishOptions::new("screen").video("test")).unwrap();
        screen.publishing().await.unwrap();
        cid.send_message(Recipients::Everyone, "hello").unwrap().done().await.unwrap();
        drop(screen);
        cid.leave().await.unwrap();
        sleep(&world, 500).await;

        heard.extend(drain(&mut at_bob));
        assert!(heard.iter().all(|event| event.count().is_none()), "{heard:?}");
        let streams: Vec<_> = heard.iter().flat_map(|event| event.added_streams()).collect();
        let names: Vec<_> =
            streams.iter().map(|stream| format!("{}/{}", stream.user, stream.stream)).collect();
        assert_eq!(names, ["ann/cam", "cid/screen"]);
        assert_eq!(heard.iter().flat_map(|event| event.removed_streams()).count(), 1);
        assert_eq!(extras(&heard), ["cam/0 Muted"]);
        assert!(heard.iter().any(|event| matches!(event, RoomEvent::Message { .. })));
        let view = room.view().unwrap();
        assert_eq!((view.users.len(), view.streams.len()), (0, 1));
        // Others see the user as any other.
        assert!(drain(&mut at_cid).is_empty() || ann.view().unwrap().users.len() == 1);
        assert_eq!(ann.view().unwrap().users.keys().next().unwrap().as_str(), "bob");
    });
}

#[test]
fn switching_rooms_leaves_one_and_joins_the_other_as_before() {
    sim::run(9, async |sim| {
        let world = World::new(&sim).await;
        let [ann, bob] = ["ann", "bob"].map(|name| world.person(name, Profile::wifi()));
        let (_bob, mut at_bob) = enter(&world, &bob).await;
        let mut room = ann.join_with(&world, |options| options.name("Ann"));
        room.joined().await.unwrap();
        room.snapshot().await.unwrap();
        let mut old_events = room.events();
        drain(&mut old_events);
        let publisher = room.publish(PublishOptions::new("cam").video("test")).unwrap();
        publisher.publishing().await.unwrap();
        let player = room.play("other", PlayOptions::new()).unwrap();

        assert_eq!(ann.engine.switch_room(&mut room, "not an id").await.unwrap_err().code(), Code::BadId);
        assert_eq!(room.status().state, RoomState::Connected, "it goes on");

        ann.engine.switch_room(&mut room, "lounge").await.unwrap();
        room.joined().await.unwrap();
        assert_eq!((room.id().as_str(), room.user().as_str()), ("lounge", "ann"));
        assert_eq!(publisher.status().state, PublisherState::Idle);
        assert_eq!(player.status().state, PlayerState::Idle);
        let RoomEvent::State(status) = drain(&mut old_events).pop().unwrap() else { panic!("it ended") };
        assert_eq!(status.reason, RoomReason::Left);
        // The id is free again, in the new room.
        let again = room.publish(PublishOptions::new("cam").video("test")).unwrap();
        again.publishing().await.unwrap();
        sleep(&world, 500).await;
        let heard = drain(&mut at_bob);
        let left = heard.iter().any(|event| {
            matches!(event, RoomEvent::UserRemoved { user, reason: Departure::Left, .. }
                if user.user.as_str() == "ann" && user.name.as_str() == "Ann")
        });
        assert!(left, "{heard:?}");
        assert_eq!(world.relay.survey().rooms, 2);
    });
}
