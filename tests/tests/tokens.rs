//! If this fails, somebody joins, publishes or stays without a right to, or somebody with the right is sent away.
//! Everything here is the real stack in virtual time; the clock of the simulation is the calendar, too.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::time::Duration;

use parlor_client::publisher::PublisherState;
use parlor_client::room::{RoomEvent, RoomReason, RoomState};
use parlor_client::{
    AppId, Code, Coded, Departure, JoinOptions, PublishOptions, RenewError, Room, RoomId, UserId,
};
use parlor_relay::{App, Config};
use parlor_tests::world::{Person, ROOM, World};
use parlor_transport::sim::{self, Profile, Sim};
use parlor_transport::token::claims::{Claims, Date};
use parlor_transport::token::keys::{Algorithm, KeyId, NewKey, SigningKey};
use parlor_transport::units::{Timestamp, UnixTime};

const APP: &str = "shop";

fn key(algorithm: Algorithm) -> SigningKey {
    match NewKey::generate(algorithm).unwrap() {
        NewKey::Secret(secret) => SigningKey::from_secret(&secret).unwrap(),
        NewKey::Pair { private, .. } => SigningKey::from_private_pem(&private).unwrap(),
    }
}

fn app(keys: &[&SigningKey]) -> App {
    let keys = keys.iter().map(|key| key.verifying_key().unwrap()).collect();
    App::with_keys(AppId::new(APP).unwrap(), keys).unwrap()
}

/// A relay with the app of these keys.
async fn world(sim: &Sim, keys: &[&SigningKey]) -> World {
    World::with_config(sim, Config { apps: vec![app(keys)], ..Config::dev() }).await
}

fn link() -> Profile {
    Profile::perfect().with_rtt(Duration::from_millis(50))
}

fn date(world: &World) -> UnixTime {
    UnixTime::from_micros(world.sim.clock().now().as_micros())
}

/// `user` may join the room and publish, for so long from now on.
fn claims(world: &World, user: &str, seconds: u64) -> Claims {
    let (app, user) = (AppId::new(APP).unwrap(), UserId::new(user).unwrap());
    let expires = date(world) + Duration::from_secs(seconds);
    Claims { publish: true, ..Claims::new(app, user, ROOM.parse().unwrap(), expires) }
}

fn join(world: &World, at: &Person, user: &str, token: Option<&str>) -> Room {
    let mut options = JoinOptions::new(world.address.to_string(), user).app(APP);
    if let Some(token) = token {
        options = options.token(token);
    }
    at.engine.join(options).unwrap()
}

async fn pass(world: &World, ms: u64) {
    world.sim.clock().sleep(Duration::from_millis(ms)).await;
}

#[test]
fn who_has_not_the_right_token_is_refused_for_good_and_nobody_notices() {
    sim::run(1, async |sim| {
        let (ours, ed, other) = (key(Algorithm::Hs256), key(Algorithm::EdDsa), key(Algorithm::Hs256));
        let world = world(&sim, &[&ours, &ed]).await;
        let (inside, outside) = (world.person("inside", link()), world.person("outside", link()));
        let ann_token = ours.sign(&claims(&world, "ann", 600)).unwrap();
        let ann = join(&world, &inside, "ann", Some(ann_token.as_str()));
        ann.snapshot().await.unwrap();
        let mut events = ann.events();
        while events.try_next().is_some() {}
        let before = ann.place();

        let good = claims(&world, "bob", 600);
        let signed = |change: &dyn Fn(&mut Claims)| {
            let mut claims = good.clone();
            change(&mut claims);
            ours.sign(&claims).unwrap().as_str().to_owned()
        };
        let payload = signed(&|_| {}).split('.').nth(1).unwrap().to_owned();
        let now = date(&world);
        let later = Date(now + Duration::from_secs(590));
        // The public key is no secret, so that a relay must not take it for one.
        let NewKey::Pair { public, .. } = NewKey::generate(Algorithm::EdDsa).unwrap() else {
            panic!("a pair")
        };
        let forged = SigningKey::from_secret(&public).unwrap().sign(&good).unwrap();
        for (what, token, code) in [
            ("no token", None, Code::TokenMissing),
            ("wrong key", Some(other.sign(&good).unwrap().as_str().to_owned()), Code::TokenInvalid),
            ("none", Some(format!("eyJhbGciOiJub25lIn0.{payload}.")), Code::TokenInvalid),
            ("public key as a secret", Some(forged.as_str().to_owned()), Code::TokenInvalid),
            (
                "another way",
                Some(key(Algorithm::Es256).sign(&good).unwrap().as_str().to_owned()),
                Code::TokenInvalid,
            ),
            ("expired", Some(signed(&|claims| claims.exp = Date(now))), Code::TokenExpired),
            ("not yet valid", Some(signed(&|claims| claims.nbf = Some(later))), Code::TokenNotYetValid),
            ("other app", Some(signed(&|claims| claims.app.0 = AppId::dev())), Code::TokenForOther),
            (
                "other room",
                Some(signed(&|claims| claims.room = "backstage".parse().unwrap())),
                Code::TokenForOther,
            ),
            ("other user", Some(ann_token.as_str().to_owned()), Code::TokenForOther),
            ("may not join", Some(signed(&|claims| claims.join = false)), Code::JoinForbidden),
        ] {
            let connections = world.relay.counters().connections;
            let bob = join(&world, &outside, "bob", token.as_deref());
            let publisher = bob.publish(PublishOptions::new("bob-cam").video("x")).unwrap();
            let error = bob.joined().await.unwrap_err();
            assert_eq!((error.code, error.is_retryable()), (code, false), "{what}: {error}");
            assert!(token.is_none_or(|token| !error.text.contains(&token)), "{what}: {error}");
            let status = bob.status();
            assert_eq!(
                (status.state, status.reason),
                (RoomState::Disconnected, RoomReason::JoinFailed),
                "{what}"
            );
            assert_eq!(publisher.status().state, PublisherState::Idle, "{what}");
            pass(&world, 30_000).await;
            assert_eq!(world.relay.counters().connections, connections + 1, "{what}: no second try");
            assert_eq!((ann.place(), events.try_next()), (before, None), "{what}: ann heard of it");
            let survey = world.relay.survey();
            assert_eq!((survey.users, survey.rooms, survey.streams), (1, 1, 0), "{what}");
        }
        // Any of the app's keys will do.
        let bob = join(&world, &outside, "bob", Some(ed.sign(&claims(&world, "bob", 600)).unwrap().as_str()));
        bob.joined().await.unwrap();
    });
}

#[test]
fn a_token_is_renewed_in_time_or_its_user_is_sent_away() {
    sim::run(2, async |sim| {
        let key = key(Algorithm::EdDsa);
        let world = world(&sim, &[&key]).await;
        let (here, there) = (world.person("here", link()), world.person("there", link()));
        let token = |user: &str, seconds| key.sign(&claims(&world, user, seconds)).unwrap();
        let start = world.sim.clock().now();
        let since = |time: Timestamp| time.saturating_since(start).as_millis();
        let ann = join(&world, &here, "ann", Some(token("ann", 1_000).as_str()));
        ann.snapshot().await.unwrap();
        let mut at_ann = ann.events();
        while at_ann.try_next().is_some() {}

        let bob = join(&world, &there, "bob", Some(token("bob", 120).as_str()));
        let publisher = bob.publish(PublishOptions::new("bob-cam").video("x")).unwrap();
        publisher.publishing().await.unwrap();
        let mut at_bob = bob.events();
        let will_expire = async |events: &mut parlor_client::RoomEvents| loop {
            if let RoomEvent::TokenWillExpire { at } = events.next().await.unwrap() {
                return at;
            }
        };
        let at = will_expire(&mut at_bob).await;
        let now = world.sim.clock().now();
        // 30 s before, and half a round trip.
        assert!((90_025..90_030).contains(&since(now)), "{}", since(now));
        assert!((120_024..120_030).contains(&at.saturating_since(start).as_millis()), "{}", since(at));

        // What will not do changes nothing.
        let error = bob.renew_token(token("ann", 600).as_str()).await.unwrap_err();
        assert!(
            matches!(&error, RenewError::Refused(refusal) if refusal.code == Code::TokenForOther),
            "{error}"
        );
        assert_eq!(bob.renew_token("not a token").await.unwrap_err().code(), Code::TokenInvalid);
        bob.renew_token(token("bob", 120).as_str()).await.unwrap();
        let renewed = world.sim.clock().now();
        will_expire(&mut at_bob).await;
        assert!((89_900..90_030).contains(&world.sim.clock().now().saturating_since(renewed).as_millis()));
        assert!(publisher.publishing().await.is_ok());
        assert_eq!(bob.status().state, RoomState::Connected);

        // Nobody renews it: 10 s after it expired bob is out.
        let ended = loop {
            match at_bob.next().await {
                Some(RoomEvent::State(status)) if status.state == RoomState::Disconnected => break status,
                Some(_) => {}
                None => panic!("the end is told"),
            }
        };
        let stayed = world.sim.clock().now().saturating_since(renewed).as_millis();
        assert!((129_900..130_100).contains(&stayed), "{stayed} ms");
        let error = ended.error.unwrap();
        assert_eq!((ended.reason, error.code), (RoomReason::KickedOut, Code::TokenExpired), "{error}");
        assert_eq!(publisher.status().state, PublisherState::Idle);
        let late = bob.renew_token(token("bob", 120).as_str()).await.unwrap_err();
        assert!(matches!(&late, RenewError::Ended(refusal) if refusal.code == Code::TokenExpired), "{late}");
        pass(&world, 1_000).await;
        let events: Vec<_> = std::iter::from_fn(|| at_ann.try_next()).collect();
        let gone: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                RoomEvent::StreamRemoved { stream, reason } => Some((stream.stream.to_string(), *reason)),
                RoomEvent::UserRemoved { user, reason, .. } => Some((user.user.to_string(), *reason)),
                _ => None,
            })
            .collect();
        let expired = Departure::TokenExpired;
        assert_eq!(gone, [("bob-cam".to_owned(), expired), ("bob".to_owned(), expired)]);
        assert_eq!(ann.status().state, RoomState::Connected);
    });
}

/// A token that is offered at the last moment keeps its user in the call, on whichever side of the cut it arrives; one
/// that will not do either ends it, and is not tried again and again.
#[test]
fn a_token_that_is_renewed_as_the_one_before_ends_brings_its_user_back() {
    let link = Duration::from_millis(25);
    // From the cut (10 s after the token's end) at the relay to the call of `renew_token`.
    for offset in (-60..=20_i64).step_by(10).chain([24]) {
        sim::run(3, async |sim| {
            let key = key(Algorithm::EdDsa);
            let world = world(&sim, &[&key]).await;
            let (here, there) = (world.person("here", self::link()), world.person("there", self::link()));
            let token = |user: &str, seconds| key.sign(&claims(&world, user, seconds)).unwrap();
            let ann = join(&world, &here, "ann", Some(token("ann", 1_000).as_str()));
            let bob = join(&world, &there, "bob", Some(token("bob", 40).as_str()));
            let publisher = bob.publish(PublishOptions::new("bob-cam").video("x")).unwrap();
            publisher.publishing().await.unwrap();
            ann.joined().await.unwrap();
            let cut_at = Timestamp::from_micros(50_000_000);
            let renew_at = cut_at.as_micros() as i64 + offset * 1000;
            world.sim.clock().sleep_until(Timestamp::from_micros(renew_at as u64)).await;
            assert_eq!(bob.status().state, RoomState::Connected, "{offset} ms: the end is not known yet");

            bob.renew_token(token("bob", 120).as_str())
                .await
                .unwrap_or_else(|error| panic!("{offset} ms: {error}"));
            pass(&world, 1_000).await;
            let status = bob.status();
            assert_eq!((status.state, status.error), (RoomState::Connected, None), "{offset} ms");
            assert_eq!(publisher.status().state, PublisherState::Publishing);
            let is_late = offset > -(link.as_millis() as i64);
            assert_eq!(bob.stats().recovery.rejoined, u32::from(is_late), "{offset} ms");
            assert_eq!(ann.view().unwrap().streams.len(), 1);
            // And it is the new token that holds: nothing is told of its end for a while.
            let mut events = bob.events();
            pass(&world, 60_000).await;
            let told = std::iter::from_fn(|| events.try_next());
            assert_eq!(told.filter(|event| matches!(event, RoomEvent::TokenWillExpire { .. })).count(), 0);

            // The next one ends too, and what is offered in its place is no better.
            let rest = Timestamp::from_micros(renew_at as u64 + 130_000_000);
            world.sim.clock().sleep_until(rest - Duration::from_millis(1_500)).await;
            let connections = world.relay.counters().connections;
            let useless = key
                .sign(&Claims { exp: Date(UnixTime::from_secs(100)), ..claims(&world, "bob", 1) })
                .unwrap();
            let end = loop {
                match bob.renew_token(useless.as_str()).await {
                    Err(RenewError::Ended(refusal)) => break refusal,
                    Err(RenewError::Refused(refusal)) => assert_eq!(refusal.code, Code::TokenExpired),
                    other => panic!("{other:?}"),
                }
                pass(&world, 200).await;
            };
            assert_eq!(end.code, Code::TokenExpired);
            pass(&world, 60_000).await;
            assert_eq!(
                (bob.status().reason, bob.status().error.unwrap().code),
                (RoomReason::KickedOut, Code::TokenExpired)
            );
            assert!(world.relay.counters().connections <= connections + 1, "nobody tries again and again");
        });
    }
}

#[test]
fn what_may_be_published_follows_the_token() {
    sim::run(3, async |sim| {
        let key = key(Algorithm::Hs256);
        let world = world(&sim, &[&key]).await;
        let person = world.person("person", link());
        let token = |change: &dyn Fn(&mut Claims)| {
            let mut claims = claims(&world, "ann", 600);
            change(&mut claims);
            key.sign(&claims).unwrap()
        };
        let streams = |names: &[&str]| Some(names.iter().map(|name| name.parse().unwrap()).collect());
        let room = join(&world, &person, "ann", Some(token(&|claims| claims.publish = false).as_str()));
        let publish = |stream: &str| room.publish(PublishOptions::new(stream).video("x")).unwrap();
        let refused = async |stream: &str| {
            let publisher = publish(stream);
            let error = publisher.publishing().await.unwrap_err();
            assert_eq!(publisher.status().state, PublisherState::Idle);
            error.code
        };
        assert_eq!(refused("ann-cam").await, Code::PublishForbidden);
        room.renew_token(token(&|claims| claims.streams = streams(&["ann-*"])).as_str()).await.unwrap();
        assert_eq!(refused("bob-cam").await, Code::StreamNotAllowed);
        assert_eq!(world.relay.survey().streams, 0);
        let (camera, microphone) = (publish("ann-cam"), publish("ann-mic"));
        camera.publishing().await.unwrap();
        microphone.publishing().await.unwrap();

        // The next token takes one of them back.
        room.renew_token(token(&|claims| claims.streams = streams(&["*-mic"])).as_str()).await.unwrap();
        pass(&world, 100).await;
        let (camera, microphone) = (camera.status(), microphone.status());
        assert_eq!(camera.state, PublisherState::Idle);
        assert_eq!(camera.error.unwrap().code, Code::StreamNotAllowed);
        assert_eq!(microphone.state, PublisherState::Publishing);
        assert_eq!(world.relay.survey().streams, 1);
    });
}

#[test]
fn keys_are_changed_while_people_talk() {
    sim::run(4, async |sim| {
        let name = |kid: &str| Some(kid.parse::<KeyId>().unwrap());
        let (old, new) = (key(Algorithm::Hs256).named(name("1")), key(Algorithm::Es256).named(name("2")));
        let world = world(&sim, &[&old]).await;
        let (here, there) = (world.person("here", link()), world.person("there", link()));
        let ann = join(&world, &here, "ann", Some(old.sign(&claims(&world, "ann", 600)).unwrap().as_str()));
        ann.joined().await.unwrap();
        let by_new = new.sign(&claims(&world, "bob", 600)).unwrap();
        assert_eq!(
            join(&world, &there, "bob", Some(by_new.as_str())).joined().await.unwrap_err().code,
            Code::TokenInvalid
        );
        world.relay.set_apps(vec![app(&[&old, &new])]);
        let bob = join(&world, &there, "bob", Some(by_new.as_str()));
        bob.joined().await.unwrap();
        world.relay.set_apps(vec![app(&[&new])]);
        let again = old.sign(&claims(&world, "ann", 900)).unwrap();
        assert_eq!(ann.renew_token(again.as_str()).await.unwrap_err().code(), Code::TokenInvalid);
        ann.renew_token(new.sign(&claims(&world, "ann", 900)).unwrap().as_str()).await.unwrap();
        let room = world.relay.room(&AppId::new(APP).unwrap(), &RoomId::new(ROOM).unwrap()).unwrap();
        assert_eq!(room.users.len(), 2);
    });
}
