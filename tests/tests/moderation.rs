//! If this fails, somebody is put out, silenced or sent away whom nobody had the right to, or stays although
//! somebody had; or the others see it wrongly. The real stack in virtual time.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::time::Duration;

use parlor_client::publisher::PublisherState;
use parlor_client::room::{RoomEvent, RoomReason, RoomState};
use parlor_client::{
    AppId, Code, Coded, Departure, JoinOptions, ModerateError, PublishOptions, Publisher, Room, RoomEvents,
    UserId,
};
use parlor_relay::{App, Config, Relay};
use parlor_tests::world::{Person, ROOM, World, engine_on};
use parlor_transport::address::RelayAddress;
use parlor_transport::sim::{self, Profile, Sim};
use parlor_transport::token::claims::Claims;
use parlor_transport::token::keys::SigningKey;
use parlor_transport::units::UnixTime;

const SECRET: &str = "a secret of more than thirty-two bytes";

async fn world(sim: &Sim) -> World {
    let key = SigningKey::from_secret(SECRET).unwrap().verifying_key().unwrap();
    let app = App::with_keys(AppId::dev(), vec![key]).unwrap();
    World::with_config(sim, Config { apps: vec![app], ..Config::dev() }).await
}

/// The person has to be kept: the engine ends with them.
fn enter(world: &World, user: &str, moderate: bool) -> (Person, Room) {
    let expires = UnixTime::from_secs(3_600);
    let claims = Claims::new(AppId::dev(), UserId::new(user).unwrap(), ROOM.parse().unwrap(), expires);
    let claims = Claims { publish: true, moderate, ..claims };
    let token = SigningKey::from_secret(SECRET).unwrap().sign(&claims).unwrap();
    let person = world.person(user, Profile::perfect().with_rtt(Duration::from_millis(50)));
    let options = JoinOptions::new(world.address.to_string(), user).token(token.as_str());
    let room = person.engine.join(options).unwrap();
    (person, room)
}

async fn pass(world: &World, ms: u64) {
    world.sim.clock().sleep(Duration::from_millis(ms)).await;
}

/// Streams and users that went, in order, with the reason.
fn gone(events: &mut RoomEvents) -> Vec<(String, Departure)> {
    std::iter::from_fn(|| events.try_next())
        .filter_map(|event| match event {
            RoomEvent::StreamRemoved { stream, reason } => Some((stream.stream.to_string(), reason)),
            RoomEvent::UserRemoved { user, reason, .. } => Some((user.user.to_string(), reason)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_moderator_removes_silences_and_kicks_and_nobody_else_does() {
    sim::run(1, async |sim| {
        let world = world(&sim).await;
        let (_ann, ann) = enter(&world, "ann", true);
        let (_bob, bob) = enter(&world, "bob", false);
        let (_eve, eve) = enter(&world, "eve", false);
        for room in [&ann, &bob, &eve] {
            room.joined().await.unwrap();
        }
        let mut at_eve = eve.events();
        let camera = bob.publish(PublishOptions::new("bob-cam").video("x")).unwrap();
        camera.publishing().await.unwrap();
        pass(&world, 100).await;
        assert_eq!(gone(&mut at_eve), []);

        let refused = eve.kick("bob").await.unwrap_err();
        assert_eq!(refused.code(), Code::ModerateForbidden, "{refused}");
        assert_eq!(ann.kick("nobody").await.unwrap_err().code(), Code::NotFound);
        assert_eq!(ann.kick("no body").await.unwrap_err().code(), Code::BadId);
        assert_eq!(ann.remove_stream("x").await.unwrap_err().code(), Code::NotPublishing);

        ann.remove_stream("bob-cam").await.unwrap();
        pass(&world, 100).await;
        let status = camera.status();
        assert_eq!((status.state, status.error.unwrap().code), (PublisherState::Idle, Code::StreamRemoved));
        assert_eq!(gone(&mut at_eve), [("bob-cam".to_owned(), Departure::RemovedByServer)]);
        drop(camera);
        let camera = bob.publish(PublishOptions::new("bob-cam").video("x")).unwrap();
        camera.publishing().await.unwrap();

        ann.forbid_publish("bob", Some(Duration::from_secs(20))).await.unwrap();
        pass(&world, 100).await;
        assert_eq!(camera.status().error.unwrap().code, Code::PublishBanned);
        let other = bob.publish(PublishOptions::new("bob-2").video("x")).unwrap();
        assert_eq!(other.publishing().await.unwrap_err().code, Code::PublishBanned);
        pass(&world, 20_000).await;
        let other = bob.publish(PublishOptions::new("bob-3").video("x")).unwrap();
        other.publishing().await.unwrap();
        gone(&mut at_eve);

        let connections = world.relay.counters().connections;
        ann.kick("bob").await.unwrap();
        pass(&world, 30_000).await;
        let status = bob.status();
        assert_eq!((status.state, status.reason), (RoomState::Disconnected, RoomReason::KickedOut));
        let error = status.error.unwrap();
        assert_eq!((error.code, error.is_retryable()), (Code::Kicked, false));
        assert_eq!(
            gone(&mut at_eve),
            [("bob-3".to_owned(), Departure::Kicked), ("bob".to_owned(), Departure::Kicked)]
        );
        assert_eq!(world.relay.counters().connections, connections, "nobody tries again");
        let late = bob.kick("ann").await.unwrap_err();
        assert!(matches!(&late, ModerateError::Ended(refusal) if refusal.code == Code::Kicked), "{late}");
        assert_eq!(ann.status().state, RoomState::Connected);
    });
}

/// What a moderator ends while its publisher has no network stays ended when the publisher is back, whether the relay had
/// noticed by then (after 6 s) or told a connection that was dead already.
#[test]
fn a_stream_that_is_ended_during_an_outage_does_not_come_back_by_itself() {
    for (seed, after) in [(4, 2_000), (5, 7_000)] {
        sim::run(seed, async |sim| {
            let world = world(&sim).await;
            let (_ann, ann) = enter(&world, "ann", true);
            let (bobs, bob) = enter(&world, "bob", false);
            let (cats, cat) = enter(&world, "cat", false);
            let (_eve, eve) = enter(&world, "eve", false);
            for room in [&ann, &bob, &cat, &eve] {
                room.joined().await.unwrap();
            }
            let publish = async |room: &Room, stream: &str| {
                let publisher = room.publish(PublishOptions::new(stream).audio("x")).unwrap();
                publisher.publishing().await.unwrap();
                publisher
            };
            let removed = publish(&bob, "bob-cam").await;
            let kept = publish(&bob, "bob-screen").await;
            let banned = publish(&cat, "cat-cam").await;
            let mut at_eve = eve.events();
            pass(&world, 100).await;
            gone(&mut at_eve);

            for person in [&bobs, &cats] {
                person.host.outage(Duration::ZERO, Duration::from_secs(8));
            }
            pass(&world, after).await;
            assert_eq!(world.relay.survey().parked, if after > 6_000 { 2 } else { 0 });
            ann.remove_stream("bob-cam").await.unwrap();
            ann.forbid_publish("cat", Some(Duration::from_secs(3))).await.unwrap();
            pass(&world, 20_000 - after).await;

            for room in [&bob, &cat] {
                let recovery = room.stats().recovery;
                assert_eq!((recovery.resumed, recovery.rejoined), (1, 0));
            }
            let end = |publisher: &Publisher| {
                let status = publisher.status();
                (status.state, status.error.map(|error| error.code))
            };
            assert_eq!(end(&removed), (PublisherState::Idle, Some(Code::StreamRemoved)));
            assert_eq!(end(&banned), (PublisherState::Idle, Some(Code::PublishBanned)));
            assert_eq!(end(&kept), (PublisherState::Publishing, None));
            let ended = |stream: &str| (stream.to_owned(), Departure::RemovedByServer);
            assert_eq!(gone(&mut at_eve), [ended("bob-cam"), ended("cat-cam")]);
            let streams = world.room().unwrap().streams;
            assert_eq!(
                streams.iter().map(|stream| stream.stream.as_str()).collect::<Vec<_>>(),
                ["bob-screen"]
            );

            // Another publication of the same name is another matter, and another outage does not end it.
            let again = publish(&bob, "bob-cam").await;
            bobs.host.outage(Duration::ZERO, Duration::from_secs(5));
            pass(&world, 10_000).await;
            assert_eq!(bob.stats().recovery.resumed, 2);
            assert_eq!(end(&again), (PublisherState::Publishing, None));
        });
    }
}

#[test]
fn a_room_that_the_operator_closes_ends_for_everyone_for_good() {
    sim::run(2, async |sim| {
        let world = world(&sim).await;
        let (_ann, ann) = enter(&world, "ann", false);
        let (_bob, bob) = enter(&world, "bob", false);
        ann.joined().await.unwrap();
        bob.joined().await.unwrap();
        let (app, room) = (AppId::dev(), ann.id());
        assert_eq!(world.relay.close_room(&app, &room).unwrap(), 2);
        assert_eq!(world.relay.close_room(&app, &room).unwrap_err().code, Code::NotFound);
        pass(&world, 30_000).await;
        for room in [&ann, &bob] {
            let status = room.status();
            assert_eq!(
                (status.reason, status.error.unwrap().code),
                (RoomReason::KickedOut, Code::RoomClosed)
            );
        }
        let survey = world.relay.survey();
        assert_eq!((survey.rooms, survey.connections), (0, 0));
        let (_again, again) = enter(&world, "again", false);
        again.joined().await.unwrap();
    });
}

#[test]
fn people_on_a_relay_that_drains_are_told_and_go_on_until_its_patience_ends() {
    sim::run(3, async |sim| {
        let host = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
        let config = Config { drain_timeout: Duration::from_secs(5), ..Config::dev() };
        let relay = Relay::bind_on(config, host.binding(4433).unwrap()).await.unwrap();
        let mut address = relay.address(Some(ROOM.parse().unwrap()));
        address.host = host.ip().to_string();
        let (ask, asked) = tokio::sync::oneshot::channel::<()>();
        let other: RelayAddress = "parlor://other:4433".parse().unwrap();
        let drain = {
            let other = other.clone();
            async move {
                _ = asked.await;
                Some(other)
            }
        };
        let running = tokio::spawn(relay.run_draining(drain, std::future::pending()));
        let here = sim.host("ann", Profile::perfect().with_rtt(Duration::from_millis(50)));
        let engine = engine_on(&here);
        let join = |user: &str| engine.join(JoinOptions::new(address.to_string(), user)).unwrap();
        let ann = join("ann");
        ann.joined().await.unwrap();
        let mut events = ann.events();
        while events.try_next().is_some() {}

        ask.send(()).unwrap();
        let start = sim.clock().now();
        assert_eq!(events.next().await, Some(RoomEvent::RelayLeaving { address: Some(other) }));
        let publisher = ann.publish(PublishOptions::new("cam").video("x")).unwrap();
        publisher.publishing().await.unwrap();
        assert_eq!(join("bob").joined().await.unwrap_err().code, Code::RelayShutdown);
        running.await.unwrap();
        let stayed = sim.clock().now().saturating_since(start);
        assert!(stayed >= Duration::from_secs(5) && stayed < Duration::from_secs(9), "{stayed:?}");
        let status = ann.status();
        assert_eq!(
            (status.reason, status.error.unwrap().code),
            (RoomReason::Reconnecting, Code::RelayShutdown)
        );
    });
}
