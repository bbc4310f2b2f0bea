//! Everybody knows who is there: if this fails, a mirror differs from the relay's room after people
//! came and went.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parlor_client::room::{RoomReason, RoomState, RoomView};
use parlor_client::{Code, Coded, PublishOptions, Publisher, Room, UserInfo};
use parlor_tests::world::{Person, World, engine_on};
use parlor_transport::sim::{self, Profile, Sim, Simulation};
use proptest::prelude::*;
use rand::seq::SliceRandom;

/// One of the six is unseen, another is not told of users.
const UNSEEN: &str = "p4";
/// See [`UNSEEN`].
const UNINTERESTED: &str = "p5";

/// Compares one mirror with the relay's room.
fn assert_equal(world: &World, person: &Person, room: &Room) {
    let truth = world.room().expect("somebody is there");
    let place =
        room.place().unwrap_or_else(|| panic!("{} has no snapshot: {:?}", person.name, room.status()));
    let is_uninterested = person.name == UNINTERESTED;
    assert_eq!(place.0, truth.epoch, "{}", person.name);
    assert!(is_uninterested || place.1 == truth.position, "{}: {place:?}", person.name);
    let view = room.view().unwrap();
    let is_told = |info: &&UserInfo| info.user.as_str() != person.name && !is_uninterested;
    let users: Vec<_> = truth.users.iter().filter(is_told).collect();
    assert_eq!(view.users.values().collect::<Vec<_>>(), users, "{}", person.name);
    let streams: Vec<_> = truth.streams.iter().filter(|info| info.user.as_str() != person.name).collect();
    assert_eq!(view.streams.values().collect::<Vec<_>>(), streams, "{}", person.name);
    let mut extras = RoomView::default();
    extras.extras.apply(truth.extras.clone());
    for own in truth.streams.iter().filter(|info| info.user.as_str() == person.name) {
        extras.extras.forget_stream(&own.stream);
    }
    assert_eq!(view.extras, extras.extras, "{}", person.name);
}

#[test]
fn sixty_people_come_and_go_in_random_order() {
    sim::run(11, async |sim| {
        let world = World::new(&sim).await;
        let mut rng = sim.rng("order");
        let links = [Profile::wifi, Profile::mobile, Profile::wifi_lossy, Profile::congested];
        let people: Vec<Person> =
            (0..60).map(|n| world.person(&format!("p{n:02}"), links[n % links.len()]())).collect();
        let mut order: Vec<usize> = (0..60).chain(0..60).collect();
        order.shuffle(&mut rng);
        let mut rooms: BTreeMap<usize, (Room, Publisher)> = BTreeMap::new();
        for number in order {
            if let Some((room, publisher)) = rooms.remove(&number) {
                drop(publisher);
                drop(room);
            } else {
                let room = people[number].join(&world);
                let options = PublishOptions::new(format!("cam-{number}")).video("test");
                let publisher = room.publish(options).unwrap();
                rooms.insert(number, (room, publisher));
            }
            sim.clock().sleep(Duration::from_millis(37)).await;
            if rooms.len() > 1 && number % 7 == 0 {
                sim.clock().sleep(Duration::from_secs(3)).await;
                for (number, (room, _)) in &rooms {
                    assert_equal(&world, &people[*number], room);
                }
            }
        }
        assert!(rooms.is_empty(), "everybody came once and went once");
        sim.clock().sleep(Duration::from_secs(5)).await;
        assert_eq!(world.room(), None, "the room ends with the last leave");
        assert_eq!(world.relay.survey().connections, 0, "{:?}", world.relay.survey());
    });
}

/// What one of six people does next.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Join,
    Leave,
    Publish,
    Unpublish,
    /// Mute the newest stream, or open it again.
    Mute(bool),
    /// Attach info to the newest stream and to the room.
    Write,
    /// The network goes away without a word.
    Vanish,
    /// The network is back and the person joins anew, perhaps before the relay has noticed anything.
    Reconnect,
    /// The same user joins on another machine.
    JoinElsewhere,
}

fn deeds() -> impl Strategy<Value = Vec<(usize, Deed, u16)>> {
    use Deed::{Join, JoinElsewhere, Leave, Mute, Publish, Reconnect, Unpublish, Vanish, Write};
    let deed = prop_oneof![
        4 => Just(Join), 2 => any::<bool>().prop_map(Mute), 2 => Just(Write), 2 => Just(Leave), 4 => Just(Publish), 2 => Just(Unpublish),
        1 => Just(Vanish), 1 => Just(Reconnect), 1 => Just(JoinElsewhere),
    ];
    proptest::collection::vec((0usize..6, deed, 0u16..1500), 1..40)
}

/// How a stay may end if the person's network was away meanwhile.
const CUT_OFF: [Code; 3] = [Code::HeartbeatTimeout, Code::ConnectTimeout, Code::ConnectionLost];

#[derive(Default)]
struct Stay {
    /// Each with the host that it was joined from.
    rooms: Vec<(Room, String)>,
    publishers: Vec<Publisher>,
    moves: u32,
    /// How often this user has joined, wherever.
    joins: u32,
    /// Hosts whose network was away.
    vanished: BTreeSet<String>,
}

impl Stay {
    fn join(&mut self, person: &Person, world: &World) {
        self.joins += 1;
        let room = person.join_with(world, |options| match person.name.as_str() {
            UNSEEN => options.unseen(),
            UNINTERESTED => options.uninterested(),
            _ => options,
        });
        self.rooms.push((room, person.host.ip().to_string()));
    }
}

async fn live(sim: &Sim, history: &[(usize, Deed, u16)]) {
    let world = World::new(sim).await;
    let links = [Profile::perfect, Profile::wifi, Profile::wifi_lossy, Profile::mobile, Profile::satellite];
    let mut people: Vec<Person> =
        (0..6).map(|n| world.person(&format!("p{n}"), links[n % links.len()]())).collect();
    let mut stays: Vec<Stay> = (0..6).map(|_| Stay::default()).collect();
    for &(number, deed, pause) in history {
        let (person, stay) = (&mut people[number], &mut stays[number]);
        match deed {
            Deed::Join if stay.rooms.is_empty() => stay.join(person, &world),
            Deed::Leave => {
                stay.publishers.clear();
                stay.rooms.clear();
            }
            Deed::Publish => {
                if let Some((room, _)) = stay.rooms.last() {
                    // Two people share each id: the later one is refused.
                    let options = PublishOptions::new(format!("cam-{}", number / 2)).video("test");
                    stay.publishers.extend(room.publish(options));
                }
            }
            Deed::Unpublish => stay.publishers.truncate(stay.publishers.len().saturating_sub(1)),
            Deed::Mute(muted) => {
                if let Some(publisher) = stay.publishers.last() {
                    publisher.set_muted(0, muted);
                }
            }
            Deed::Write => {
                let text = format!("{} at {pause}", person.name);
                if let Some(publisher) = stay.publishers.last() {
                    _ = publisher.set_info(&text);
                }
                if let Some((room, _)) = stay.rooms.last() {
                    // Two people share each key, and now and then one is removed.
                    let text = if pause % 4 == 0 { "" } else { &text };
                    _ = room.set_info(format!("key-{}", number / 2), text);
                }
            }
            Deed::Vanish => {
                stay.vanished.insert(person.host.ip().to_string());
                person.host.outage(Duration::ZERO, Duration::from_secs(30));
            }
            Deed::Reconnect => {
                person.host.outage(Duration::ZERO, Duration::ZERO);
                person.engine = engine_on(&person.host);
                stay.join(person, &world);
            }
            Deed::JoinElsewhere => {
                stay.moves += 1;
                let host = sim.host(&format!("p{number}-{}", stay.moves), Profile::wifi());
                person.engine = engine_on(&host);
                person.host = host;
                stay.join(person, &world);
            }
            Deed::Join => {}
        }
        sim.clock().sleep(Duration::from_millis(pause.into())).await;
    }
    // Long enough for outages to end and for the relay to notice who is gone.
    sim.clock().sleep(Duration::from_secs(60)).await;
    let mut connected = 0;
    for (person, stay) in people.iter().zip(&stays) {
        for (number, (room, host)) in stay.rooms.iter().enumerate() {
            let status = room.status();
            if status.state == RoomState::Connected {
                assert_equal(&world, person, room);
                connected += usize::from(person.name != UNSEEN);
                continue;
            }
            // Nobody left these rooms, so that each has a reason. A mirror that misses an event notices and ends the
            // call: that is no reason of ours.
            let Some(code) = status.error.as_ref().map(Coded::code) else {
                // Who joins anew gives up the engine before.
                let has_next = number + 1 < stay.rooms.len();
                assert!(has_next && status.reason == RoomReason::Left, "{}: {status:?}", person.name);
                continue;
            };
            // The join that reaches the relay last stays, and that need not be the one sent last: an earlier one may be
            // on its way from behind a satellite.
            let is_replaced = code == Code::RepeatedLogin && stay.joins > 1;
            let is_cut_off = CUT_OFF.contains(&code) && stay.vanished.contains(host);
            assert!(is_replaced || is_cut_off, "{}: {status:?}", person.name);
        }
    }
    let there = world.room().map_or(0, |room| room.users.len());
    assert_eq!(there, connected, "no ghost, and nobody missing");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any history of joins, leaves, publications, broken networks, reconnects and repeated logins
    /// leaves every mirror equal to the relay's room.
    #[test]
    fn any_history_leaves_every_mirror_equal_to_the_room(seed in 0u64..1000, history in deeds()) {
        Simulation::new(seed).run(async |sim| live(&sim, &history).await);
    }
}
