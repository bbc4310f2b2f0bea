//! Members who are told at the pace of a large room, who read slowly, or not at all for a while: each ends up with the
//! room as it is, through batches in which the newest wins and through fresh snapshots.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::pages::{committed, joined};
use super::*;
use crate::limits::EVENT_LOG_EVENTS_MAX;
use crate::room::pace::{GROUPS, Pace};

/// Somebody at the other end of an events stream.
struct Member {
    mirror: Mirror,
    group: usize,
    /// How far it was told.
    told: u64,
    /// It reads one in so many times that it is told.
    slowness: u32,
}

/// A room of some hundred people who come, publish, mute and go for a minute, with `seed` deciding all of it.
fn live(seed: u64, events: usize) -> (World, Vec<Member>) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut world = World::of(1000);
    // Somebody stays, so that it is one life of the room.
    let anchor = Step::Join { session: 1, app: 0, room: 0, user: 255, unseen: false };
    world.take(&anchor).unwrap();
    let mut pace: Pace<[u64; 3]> = Pace::new([0; 3]);
    let mut members: Vec<Member> = Vec::new();
    for number in 0..events as u64 {
        let now = Timestamp::from_micros(number * 2000);
        let session = rng.random_range(10..250u64);
        let stream = rng.random_range(0..40u8);
        let step = match rng.random_range(0..10u8) {
            0..4 => Step::Join { session, app: 0, room: 0, user: session as u8, unseen: session % 9 == 0 },
            4..6 => Step::Leave { session },
            6 => Step::Publish { session, stream },
            7 => Step::Unpublish { session, stream },
            8 => Step::State { session, stream, track: 0, state: rng.random_range(0..3u8) },
            _ => Step::Info { session, stream, info: ["", "a", "b"][rng.random_range(0..3)] },
        };
        // What is refused changes nothing.
        _ = world.take(&step);
        let room = world.rooms.get_mut(&key(0, 0)).unwrap();
        // More members than roster entries make a room of the size that has a window.
        pace.change(now, 2000, View::ALL.map(|view| room.position_in(view)));
        while let Some((group, told)) = pace.poll(now) {
            for member in members.iter_mut().filter(|member| member.group == group) {
                member.told = told[member.mirror.view as usize];
                if rng.random_range(0..member.slowness) == 0 {
                    member.mirror.read(room, member.told);
                    assert!(member.mirror.position >= member.told);
                }
            }
        }
        if number % 50 == 0 && members.len() < 90 {
            let view = View::ALL[rng.random_range(0..3)];
            let slowness = [1, 1, 3, 40, 1000][rng.random_range(0..5)];
            let group = members.len() % GROUPS;
            members.push(Member { mirror: Mirror::begin(room, view), group, told: 0, slowness });
        }
    }
    (world, members)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn every_mirror_ends_as_the_room_whatever_its_pace(seed in any::<u64>()) {
        let (mut world, mut members) = live(seed, 3000);
        let room = world.rooms.get_mut(&key(0, 0)).unwrap();
        for member in &mut members {
            member.mirror.read(room, u64::MAX);
            member.mirror.assert_equal(room);
        }
    }
}

#[test]
fn who_sleeps_through_the_whole_log_gets_the_room_anew_and_others_do_not() {
    let (mut world, mut members) = live(7, 6 * EVENT_LOG_EVENTS_MAX);
    let room = world.rooms.get_mut(&key(0, 0)).unwrap();
    assert!(room.position() > EVENT_LOG_EVENTS_MAX as u64 + 1000, "{}", room.position());
    let (mut anew, mut awake) = (0, 0);
    for member in &mut members {
        member.mirror.read(room, u64::MAX);
        member.mirror.assert_equal(room);
        anew += u32::from(member.mirror.snapshots > 1);
        awake += u32::from(member.slowness == 1);
        assert!(member.slowness > 3 || member.mirror.snapshots == 1, "slowness {}", member.slowness);
    }
    assert!(anew > 0 && awake > 0, "{anew} {awake}");
}

/// What is told of a run of events on streams and states that are all of one user.
fn told(room: &mut Room, from: u64) -> Vec<String> {
    let After::Events(batch) = room.after(View::Everything, from, u64::MAX) else { panic!("there is more") };
    let words = decode_all(&batch.bytes).into_iter().map(|event| {
        let stamp = event.stamp().unwrap();
        let what = match event {
            RoomMessage::UserJoined(event) => format!("+{}", event.user.user),
            RoomMessage::UserLeft(event) => format!("-{}", event.user),
            RoomMessage::StreamAdded(event) => format!("+{}", event.stream.stream),
            RoomMessage::StreamRemoved(event) => format!("-{}", event.stream),
            RoomMessage::TrackStateChanged(event) => format!("{:?}", event.status.state),
            other => format!("{other:?}"),
        };
        format!("{}→{} {what} ({})", stamp.previous, stamp.position, stamp.users)
    });
    words.collect()
}

#[test]
fn of_many_events_the_newest_win_and_visits_within_are_left_out() {
    let mut room = Room::new(key(0, 0), 1);
    let apply = |room: &mut Room, change| room.apply(&committed(room.position(), change)).unwrap();
    let added = |who: u8, id: u8| Change::StreamAdded {
        session: SessionId(who.into()),
        stream: StreamInfo {
            stream: stream(id),
            user: user(who).user,
            tracks: tracks(),
            delivery: Delivery::Datagram,
        },
    };
    let removed = |who: u8, id: u8| Change::StreamRemoved {
        session: SessionId(who.into()),
        stream: stream(id),
        reason: Departure::Left,
    };
    let state = |who: u8, id: u8, state: TrackState| Change::TrackState {
        session: SessionId(who.into()),
        status: TrackStatus { stream: stream(id), track: 0, state },
    };
    apply(&mut room, joined(1, 1));
    apply(&mut room, added(1, 1));
    let from = room.position();
    // A visit with a stream and its state; a stream that goes; one that is muted, opened, muted.
    for change in [joined(2, 2), added(2, 2), state(2, 2, TrackState::Muted)] {
        apply(&mut room, change);
    }
    for muted in [TrackState::Muted, TrackState::Open, TrackState::Muted] {
        apply(&mut room, state(1, 1, muted));
    }
    for change in [removed(2, 2), left(2), removed(1, 1), joined(3, 3), added(3, 3), left(1)] {
        apply(&mut room, change);
    }
    // Few of them are told one by one.
    assert_eq!(told(&mut room, from).len(), 12);
    for muted in [TrackState::Muted, TrackState::Open, TrackState::Muted, TrackState::Open] {
        apply(&mut room, state(3, 3, muted));
    }
    apply(&mut room, joined(1, 1));
    apply(&mut room, joined(4, 4));
    apply(&mut room, left(4));
    assert_eq!(
        told(&mut room, from),
        [
            "2→11 -s1 (1)",
            "11→12 +u3 (2)",
            "12→13 +s3 (2)",
            "13→14 -u1 (1)",
            "14→18 Open (1)",
            "18→19 +u1 (2)",
            "19→20 +u4 (3)",
            "20→21 -u4 (2)",
        ],
        "the last visit is told, so that the last position is reached"
    );
}

fn left(who: u8) -> Change {
    let (session, user) = (SessionId(who.into()), user(who).user);
    Change::UserLeft { session, user, reason: Departure::Left, unseen: false }
}
