//! A room of hundreds knows who is in it: if this fails, somebody misses a user, hears of one too late, or one who reads
//! slowly is left with what was true long ago, or disturbs the others.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use parlor_client::room::{RoomEvent, RoomState};
use parlor_client::{PublishOptions, Room};
use parlor_tests::world::{Person, World};
use parlor_transport::clock::Clock;
use parlor_transport::id::{AppId, RoomId, UserId, UserName};
use parlor_transport::quic::{Endpoint, Options};
use parlor_transport::sim::{self, Direction, Profile, Sim};
use parlor_transport::wire::control::*;

/// As many as a room has a window of some 20 ms for.
const USERS: usize = 200;

fn is_equal(world: &World, person: &Person, room: &Room) -> bool {
    let (Some(truth), Some(view), Some(place)) = (world.room(), room.view(), room.place()) else {
        return false;
    };
    let others = truth.users.iter().filter(|info| info.user.as_str() != person.name);
    place == (truth.epoch, truth.position)
        && view.users.values().eq(others)
        && view.streams.values().eq(truth.streams.iter().filter(|info| info.user.as_str() != person.name))
}

/// Waits until `holds`; gives how long that took, or fails after `most`.
async fn until(clock: &Clock, most: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = clock.now();
    while !holds() {
        let waited = clock.now().saturating_since(begun);
        assert!(waited < most, "still not so after {waited:?}");
        clock.sleep(Duration::from_millis(10)).await;
    }
    clock.now().saturating_since(begun)
}

async fn fill(sim: &Sim, world: &World, users: usize, pace: Duration) -> Vec<(Person, Room)> {
    let mut people = Vec::new();
    for number in 0..users {
        let person = world.person(&format!("p{number:03}"), Profile::perfect());
        let room = person.join(world);
        people.push((person, room));
        sim.clock().sleep(pace).await;
    }
    people
}

#[test]
fn two_hundred_come_in_a_rush_and_half_of_them_change() {
    sim::run(21, async |sim| {
        let world = World::new(&sim).await;
        let mut people = fill(&sim, &world, USERS, Duration::from_millis(2)).await;
        let mut publishers = Vec::new();
        for (_, room) in people.iter().take(5) {
            let stream = format!("cam-{}", publishers.len());
            publishers.push(room.publish(PublishOptions::new(stream).video("test")).unwrap());
        }
        let all_equal = |people: &[(Person, Room)]| people.iter().all(|(p, room)| is_equal(&world, p, room));
        let took = until(sim.clock(), Duration::from_secs(2), || all_equal(&people)).await;
        assert!(took < Duration::from_millis(500), "{took:?} after the last one came");

        // From here on each is told little by little: in the window that the room has, not once for each event.
        let before = people[0].0.host.stats(Direction::Down).delivered.packets;
        for number in 0..USERS / 2 {
            people.remove(10);
            let person = world.person(&format!("q{number:03}"), Profile::perfect());
            let room = person.join(&world);
            people.push((person, room));
            sim.clock().sleep(Duration::from_millis(2)).await;
        }
        let took = until(sim.clock(), Duration::from_secs(2), || all_equal(&people)).await;
        assert!(took < Duration::from_millis(500), "{took:?} after the last one came");
        let packets = people[0].0.host.stats(Direction::Down).delivered.packets - before;
        let events = 2 * USERS as u64 / 2;
        assert!(packets < events / 2, "{packets} packets for {events} events");
    });
}

#[test]
fn an_audience_that_asks_for_publishers_knows_them_and_how_many_there_are() {
    sim::run(22, async |sim| {
        let world = World::new(&sim).await;
        let people = fill(&sim, &world, 100, Duration::from_millis(2)).await;
        let listener = world.person("listener", Profile::wifi());
        let room = listener.join_with(&world, |options| options.publishers_only());
        let mut events = room.events();
        let names = |room: &Room| -> Vec<String> {
            room.view().map(|view| view.users.keys().map(ToString::to_string).collect()).unwrap_or_default()
        };
        sim.clock().sleep(Duration::from_secs(1)).await;
        assert_eq!(names(&room), Vec::<String>::new(), "nobody publishes");
        let publish =
            |n: usize, id: &str| people[n].1.publish(PublishOptions::new(id).video("test")).unwrap();
        let (first, second, other) = (publish(3, "cam"), publish(3, "screen"), publish(4, "cam-4"));
        sim.clock().sleep(Duration::from_secs(1)).await;
        assert_eq!(names(&room), ["p003", "p004"]);
        assert_eq!(room.view().unwrap().streams.len(), 3);
        drop(first);
        drop(other);
        sim.clock().sleep(Duration::from_secs(1)).await;
        assert_eq!(names(&room), ["p003"], "one of two streams is left");
        drop(second);
        drop(people);
        sim.clock().sleep(Duration::from_secs(2)).await;
        assert_eq!(names(&room), Vec::<String>::new());
        let mut counts = Vec::new();
        while let Ok(Some(event)) = sim.clock().timeout(Duration::from_millis(100), events.next()).await {
            counts.extend(match event {
                RoomEvent::UsersCounted { count } => Some(count),
                RoomEvent::UsersAdded { users, .. } => {
                    assert!(users.iter().all(|user| ["p003", "p004"].contains(&user.user.as_str())));
                    None
                }
                _ => None,
            });
        }
        assert_eq!(counts.last(), Some(&1), "the listener is alone: {counts:?}");
    });
}

/// A session that joins and then takes nothing from the events stream.
async fn join_and_never_read(sim: &Sim, world: &World) -> parlor_transport::quic::Session {
    let host = sim.host("sleeper", Profile::perfect());
    let endpoint = Endpoint::client(host.binding(0).unwrap(), Options::default()).unwrap();
    let place = SocketAddr::new(world.address.host.parse().unwrap(), world.address.port);
    let session = endpoint.connect(place, &world.address.host, world.address.trust()).await.unwrap();
    let (mut requests, answers) = session.open_requests().await.unwrap();
    let hello = Hello { version_min: VERSION_MIN, version_max: VERSION, features: 0, agent: String::new() };
    requests.send(&ClientMessage::Hello(hello)).await.unwrap();
    let join = Join {
        request: 1,
        app: AppId::dev(),
        room: RoomId::new(parlor_tests::world::ROOM).unwrap(),
        user: UserId::new("sleeper").unwrap(),
        name: UserName::new("").unwrap(),
        login: endpoint.new_login().unwrap(),
        token: None,
        presence: Presence::default(),
    };
    requests.send(&ClientMessage::Join(join)).await.unwrap();
    // Kept open: who ends them leaves.
    Box::leak(Box::new((requests, answers, endpoint)));
    session
}

/// What waits for a member is its position: 64 KiB at most are on their way, whatever happens meanwhile.
#[test]
fn on_a_thin_link_one_hears_what_it_came_to_and_nobody_else_waits() {
    sim::run(23, async |sim| {
        let world = World::new(&sim).await;
        let people = fill(&sim, &world, 80, Duration::from_millis(5)).await;
        let sleeper = join_and_never_read(&sim, &world).await;
        // 16 kB/s, with a queue of 300 ms.
        let thin = Profile::perfect().with_rates((1_000_000, 100_000), (128_000, 5_000));
        let person = world.person("thin", thin);
        let slow = person.join(&world);
        until(sim.clock(), Duration::from_secs(5), || is_equal(&world, &person, &slow)).await;

        // 50 kB/s for 20 s: told one by one, the thin link would be 40 s behind.
        for number in 0..1000 {
            let value = format!("{number:0>1000}");
            people[number % 10].1.set_info(format!("key-{}", number % 10), value).unwrap();
            sim.clock().sleep(Duration::from_millis(20)).await;
        }
        let is_told = |room: &Room| {
            let truth = world.room().unwrap();
            room.place() == Some((truth.epoch, truth.position))
        };
        let others =
            until(sim.clock(), Duration::from_secs(2), || people.iter().all(|p| is_told(&p.1))).await;
        assert!(others < Duration::from_millis(500), "others waited {others:?}");
        let behind = until(sim.clock(), Duration::from_secs(60), || is_told(&slow)).await;
        assert!(behind < Duration::from_secs(7), "{behind:?} behind");
        assert_eq!(slow.status().state, RoomState::Connected);
        assert_eq!(slow.view().unwrap().extras, people[70].1.view().unwrap().extras);
        assert!(sleeper.close_reason().is_none(), "{:?}", sleeper.close_reason());
    });
}
