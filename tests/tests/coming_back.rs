//! If this fails, somebody in a call of ten whose address changed, or whose network was away for five seconds, is seen
//! and sees the others later than promised, or the others are told of it. Prints the figures (`--nocapture`).
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::room::RoomEvent;
use parlor_client::{Frames, PlayOptions, Player, PublishOptions, Publisher, Room, RoomEvents, Timestamp};
use parlor_tests::chaos::frames::Label;
use parlor_tests::world::{Person, World};
use parlor_transport::sim::{Profile, Sim, Simulation};

const PEOPLE: usize = 10;
const RTT: Duration = Duration::from_millis(50);
const FRAME: Duration = Duration::from_millis(33);

struct Seat {
    person: Person,
    room: Room,
    publisher: Publisher,
    plays: Vec<(usize, Player, Frames)>,
    events: RoomEvents,
}

/// A frame that came.
struct Came {
    by: usize,
    of: usize,
    made: Timestamp,
    arrived: Timestamp,
}

/// Ten people who all play all.
struct Call {
    sim: Sim,
    seats: Vec<Seat>,
    number: u32,
    came: Vec<Came>,
    /// What people were told of others.
    heard: Vec<RoomEvent>,
    _world: World,
}

fn stream(person: usize) -> String {
    format!("cam-{person}")
}

impl Call {
    async fn new(sim: &Sim) -> Self {
        let world = World::new(sim).await;
        let mut seats = Vec::new();
        for number in 0..PEOPLE {
            let person = world.person(&format!("p{number}"), Profile::perfect().with_rtt(RTT));
            let room = person.join(&world);
            let publisher = room.publish(PublishOptions::new(stream(number)).video("x")).unwrap();
            let others = (0..PEOPLE).filter(|other| *other != number);
            let play = |other| {
                let player = room.play(stream(other), PlayOptions::new()).unwrap();
                let frames = player.frames();
                (other, player, frames)
            };
            let (plays, events) = (others.map(play).collect(), room.events());
            seats.push(Seat { person, room, publisher, plays, events });
        }
        let mut call =
            Call { sim: sim.clone(), seats, number: 0, came: vec![], heard: vec![], _world: world };
        call.go_on(Duration::from_secs(3)).await;
        (call.came, call.heard) = (vec![], vec![]);
        call
    }

    /// Everybody sends and reads for so long.
    async fn go_on(&mut self, length: Duration) {
        let until = self.sim.clock().now() + length;
        while self.sim.clock().now() < until {
            let now = self.sim.clock().now();
            for (number, seat) in self.seats.iter_mut().enumerate() {
                let keyframe =
                    self.number.is_multiple_of(120) || !seat.publisher.take_keyframe_requests().is_empty();
                let label =
                    Label { person: number as u8, stream: 0, publication: 0, number: self.number, made: now };
                _ = seat
                    .publisher
                    .send_frame(EncodedFrame { keyframe, ..EncodedFrame::new(0, now, label.frame()) });
                for (of, player, frames) in &mut seat.plays {
                    while let Some(frame) = frames.try_next() {
                        if frame.missed > 0 {
                            player.request_keyframe(0);
                        }
                        let made = Label::read(&frame.payload).unwrap().made;
                        self.came.push(Came { by: number, of: *of, made, arrived: frame.arrived });
                    }
                }
                let events = std::iter::from_fn(|| seat.events.try_next());
                // What becomes of their own connection is everybody's own business.
                let is_of_others =
                    |event: &RoomEvent| !matches!(event, RoomEvent::State(_) | RoomEvent::Recovered { .. });
                self.heard.extend(events.filter(is_of_others));
            }
            self.number += 1;
            self.sim.clock().sleep(FRAME).await;
        }
    }

    /// How long after `from` the last of nine players of `who` has a frame that was made since; and how long after it
    /// `who` has such a frame of the last of the nine.
    fn first_new(&self, who: usize, from: Timestamp) -> (Duration, Duration) {
        let first = |by: usize, of: usize| {
            let mut new = self.came.iter().filter(|came| (came.by, came.of) == (by, of) && came.made >= from);
            let first = new.next().unwrap_or_else(|| panic!("nothing new of {of} came to {by}"));
            first.arrived.saturating_since(from)
        };
        let others = || (0..PEOPLE).filter(|other| *other != who);
        let seen = others().map(|other| first(other, who)).max().unwrap();
        let sees = others().map(|other| first(who, other)).max().unwrap();
        (seen, sees)
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[test]
fn a_new_address_costs_two_round_trips_and_a_frame() {
    for by_the_app in [false, true] {
        Simulation::new(1).run(async |sim| {
            let mut call = Call::new(&sim).await;
            let person = &call.seats[4].person;
            match by_the_app {
                true => person.engine.rebind(person.host.binding(0).unwrap()).unwrap(),
                false => person.host.move_to("10.9.9.9".parse().unwrap()),
            }
            let moved = sim.clock().now();
            call.go_on(Duration::from_secs(3)).await;
            let (seen, sees) = call.first_new(4, moved);
            let how = if by_the_app { "another socket" } else { "another address" };
            println!("{how}: seen again after {:.1} ms, sees after {:.1} ms", ms(seen), ms(sees));
            let limit = RTT * 2 + FRAME + Duration::from_millis(5);
            assert!(seen <= limit && sees <= limit, "{seen:?} {sees:?}");
            assert_eq!(call.heard, []);
            let recovery = call.seats[4].room.stats().recovery;
            assert_eq!((recovery.resumed, recovery.rejoined), (0, 0));
        });
    }
}

#[test]
fn an_outage_of_five_seconds_costs_three_round_trips_and_the_next_attempt() {
    Simulation::new(2).run(async |sim| {
        let mut call = Call::new(&sim).await;
        let length = Duration::from_secs(5);
        call.seats[4].person.host.outage(Duration::ZERO, length);
        call.go_on(length).await;
        let back = sim.clock().now();
        call.go_on(Duration::from_secs(3)).await;
        let (seen, sees) = call.first_new(4, back);
        println!("5 s without a network: seen again after {:.1} ms, sees after {:.1} ms", ms(seen), ms(sees));
        let limit = RTT * 3 + Duration::from_millis(250);
        assert!(seen <= limit && sees <= limit, "{seen:?} {sees:?}");
        assert_eq!(call.heard, []);
        let recovery = call.seats[4].room.stats().recovery;
        assert_eq!((recovery.resumed, recovery.rejoined), (1, 0));
    });
}
