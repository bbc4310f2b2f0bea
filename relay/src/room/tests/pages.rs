//! Steps that a room refuses, and rooms so large that they come in pages.

use super::*;

pub(super) fn committed(previous: u64, change: Change) -> Committed {
    Committed { ticket: Ticket(0), room: key(0, 0), epoch: 1, previous, position: previous + 1, change }
}

pub(super) fn joined(session: u64, who: u8) -> Change {
    Change::UserJoined { session: SessionId(session), user: user(who), unseen: false }
}

#[test]
fn a_room_refuses_what_does_not_follow() {
    let mut room = Room::new(key(0, 0), 1);
    room.apply(&committed(0, joined(1, 1))).unwrap();
    let published =
        StreamInfo { stream: stream(1), user: user(1).user, tracks: tracks(), delivery: Delivery::Datagram };
    room.apply(&committed(1, Change::StreamAdded { session: SessionId(1), stream: published.clone() }))
        .unwrap();
    let left = |who: u8, session| Change::UserLeft {
        session: SessionId(session),
        user: user(who).user,
        reason: Departure::Left,
        unseen: false,
    };
    for wrong in [
        committed(1, joined(2, 2)),
        committed(3, joined(2, 2)),
        Committed { epoch: 2, ..committed(2, joined(2, 2)) },
        Committed { room: key(0, 1), ..committed(2, joined(2, 2)) },
        committed(2, joined(2, 1)),
        committed(2, left(1, 1)),
        committed(2, left(2, 2)),
        committed(2, Change::StreamAdded { session: SessionId(1), stream: published }),
    ] {
        assert!(room.apply(&wrong).is_err(), "{wrong:?}");
        assert_eq!(room.position(), 2);
    }
    room.apply(&committed(2, joined(2, 2))).unwrap();
}

#[test]
fn a_large_room_comes_in_pages_that_fit_a_message() {
    let mut room = Room::new(key(0, 0), 1);
    let mut position = 0;
    for number in 0..1000u64 {
        let info = UserInfo {
            user: UserId::new(format!("{number:0>64}")).unwrap(),
            name: UserName::new("n".repeat(256)).unwrap(),
        };
        room.apply(&committed(
            position,
            Change::UserJoined { session: SessionId(number), user: info.clone(), unseen: false },
        ))
        .unwrap();
        let published = StreamInfo {
            stream: StreamId::new(format!("{number:0>256}")).unwrap(),
            user: info.user,
            tracks: vec![TrackInfo { codec: "c".repeat(64), ..tracks().remove(0) }; 8],
            delivery: Delivery::QuicStream,
        };
        room.apply(&committed(
            position + 1,
            Change::StreamAdded { session: SessionId(number), stream: published },
        ))
        .unwrap();
        position += 2;
    }
    let snapshot = room.snapshot(View::Everything);
    assert!(snapshot.pages.len() > 50);
    assert!(snapshot.pages.iter().all(|page| page.len() <= PAGE_BYTES_MAX + 256), "pages are bounded");
    assert_eq!(Mirror::begin(&mut room, View::Everything).contents, Contents::from(&room));
    let After::Events(last) = room.after(View::Everything, 1999, u64::MAX) else {
        panic!("there is one more")
    };
    assert_eq!(decode_all(&last.bytes).len(), 1);
}

#[test]
fn short_names_do_not_make_a_page_longer_than_clients_accept() {
    let mut room = Room::new(key(0, 0), 1);
    for number in 0..3000 {
        let (user, name) = (UserId::new(number.to_string()).unwrap(), UserName::new("").unwrap());
        let info = UserInfo { user, name };
        room.apply(&committed(
            number,
            Change::UserJoined { session: SessionId(number), user: info, unseen: false },
        ))
        .unwrap();
    }
    assert_eq!(Mirror::begin(&mut room, View::Everything).contents, Contents::from(&room));
}

fn enter(room: &mut Room, number: u64) {
    let user = UserId::new(format!("user-{number}")).unwrap();
    let user = UserInfo { user, name: UserName::new("").unwrap() };
    let change = Change::UserJoined { session: SessionId(number), user, unseen: false };
    room.apply(&committed(room.position(), change)).unwrap();
}

/// Otherwise each join of a storm would cost as much as the room is large.
#[test]
fn a_snapshot_serves_many_who_come_one_after_the_other() {
    let mut room = Room::new(key(0, 0), 1);
    (0..10_000).for_each(|number| enter(&mut room, number));
    let mut made = BTreeSet::new();
    for number in 10_000..11_000 {
        enter(&mut room, number);
        let snapshot = room.snapshot(View::Everything);
        made.insert(snapshot.position);
        let mut mirror = Mirror::begin(&mut room, View::Everything);
        if number % 100 == 0 {
            mirror.read(&mut room, u64::MAX);
            mirror.assert_equal(&room);
        }
    }
    assert_eq!(made.len(), 4, "one for each 312 events: {made:?}");
    let pages = room.snapshot(View::Everything).pages;
    assert!(pages.iter().all(|page| page.len() <= PAGE_BYTES_MAX + 256), "pages are bounded");
}

#[test]
fn in_a_small_room_a_snapshot_is_of_this_moment() {
    let mut room = Room::new(key(0, 0), 1);
    for number in 0..30 {
        enter(&mut room, number);
        assert_eq!(room.snapshot(View::Everything).position, number + 1);
    }
}
