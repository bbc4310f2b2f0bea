//! The client's mirror of a room, and its readers, against a relay that may send anything: an input is a list of events
//! and pages, most of which go on where the mirror is.

use parlor_client::room::feed::{Feed, Reader};
use parlor_client::room::mirror::Mirror;
use parlor_client::room::{RoomStatus, RoomView};
use parlor_transport::id::{StreamId, UserId};
use parlor_transport::wire::control::*;

/// Messages in one run; it keeps a run within milliseconds.
const MESSAGES_MAX: usize = 1_000;
/// Events kept for readers: few, so that they are overtaken.
const EVENTS_KEPT: usize = 3;

/// The first byte says whether users are told, each message has four: what, two that say more, and how true it is.
/// Nothing panics; an error changes nothing that can be seen; users before their streams, always; and whoever applies
/// what a reader gives has the room as it is.
pub(super) fn mirror(input: &[u8]) {
    let Some((&kind, messages)) = input.split_first() else { return };
    let is_without_users = kind & 1 != 0;
    let mut mirror = if is_without_users { Mirror::without_users() } else { Mirror::default() };
    let me = user(0);
    let mut feed = Feed::with_capacity(me.clone(), EVENTS_KEPT);
    let mut readers = [(); 2].map(|()| (Reader::new(&feed), RoomView::default()));
    for bytes in messages.chunks_exact(4).take(MESSAGES_MAX) {
        let before =
            (mirror.place(), mirror.users().clone(), mirror.streams().clone(), mirror.extras().clone());
        match mirror.apply(message(&mirror, bytes[0], bytes[1], bytes[2], bytes[3])) {
            Ok(Some(change)) => feed.push_change(change, mirror.count()),
            Ok(None) => {}
            Err(_) => {
                let after = (mirror.place(), mirror.users(), mirror.streams(), mirror.extras());
                assert_eq!((before.0, &before.1, &before.2, &before.3), after, "an error changes nothing");
                // The connection is closed for it, and another one goes on.
                mirror.interrupt();
            }
        }
        check(&mirror, is_without_users);
        // The first reader reads at once, the other one when it is told to.
        let count = if bytes[3] & 0x80 == 0 { 1 } else { 2 };
        for (reader, view) in &mut readers[..count] {
            read(reader, view, &feed, &mirror, &me);
        }
    }
    for (reader, view) in &mut readers {
        read(reader, view, &feed, &mirror, &me);
    }
}

fn read(reader: &mut Reader, view: &mut RoomView, feed: &Feed, mirror: &Mirror, me: &UserId) {
    let status = RoomStatus {
        state: parlor_client::room::RoomState::Connected,
        reason: parlor_client::room::RoomReason::Joined,
        error: None,
    };
    while let Some(event) = reader.next(feed, mirror, &status) {
        view.apply(&event);
    }
    assert_eq!(*view, mirror.others(me), "what a reader was told is the room");
}

fn check(mirror: &Mirror, is_without_users: bool) {
    for stream in mirror.streams().values() {
        assert!(is_without_users || mirror.users().contains_key(&stream.user), "a stream without its user");
    }
    let extras = mirror.extras();
    let named = extras.track_states.keys().map(|(stream, _)| stream).chain(extras.stream_infos.keys());
    for stream in named {
        assert!(mirror.streams().contains_key(stream), "a state or an info without its stream");
    }
    assert!(!is_without_users || mirror.users().is_empty(), "users that were not asked for");
}

fn message(mirror: &Mirror, what: u8, a: u8, b: u8, truth: u8) -> RoomMessage {
    let (epoch, place) = mirror.place().unwrap_or((1, 0));
    // True but for every eighth: another epoch, a gap, a step back, another count.
    let lie = truth & 7;
    let previous = match lie {
        1 => place + 1,
        2 => place.saturating_sub(1),
        _ => place,
    };
    let users = mirror.users().len() as u32;
    let users = match what % 10 {
        0 | 1 => users + 1,
        2 => users.saturating_sub(1),
        _ => users,
    };
    let stamp = EventStamp {
        epoch: if lie == 3 { epoch + 1 } else { epoch },
        position: if lie == 4 { previous } else { previous.saturating_add(1 + u64::from(truth >> 3 & 1)) },
        previous,
        users: if lie == 5 { users + 1 } else { users },
    };
    match what % 10 {
        0 | 1 => RoomMessage::UserJoined(UserJoined { stamp, user: info(a) }),
        2 => RoomMessage::UserLeft(UserLeft { stamp, user: user(a), reason: Departure::from_number(b) }),
        3 | 4 => RoomMessage::StreamAdded(StreamAdded { stamp, stream: stream_info(a, b) }),
        5 => RoomMessage::StreamRemoved(StreamRemoved {
            stamp,
            stream: stream(a),
            reason: Departure::from_number(b),
        }),
        6 => RoomMessage::TrackStateChanged(TrackStateChanged { stamp, status: status(a, b) }),
        7 => RoomMessage::StreamInfoChanged(StreamInfoChanged { stamp, extra: stream_extra(a, b) }),
        8 if b == 0xff => RoomMessage::Unknown(stamp),
        8 => RoomMessage::RoomInfoChanged(RoomInfoChanged { stamp, extra: room_extra(a, b) }),
        _ => RoomMessage::Page(page(epoch, place, a, b, truth)),
    }
}

/// A page with up to three users and streams, and a state or an info.
fn page(epoch: u64, place: u64, a: u8, b: u8, truth: u8) -> SnapshotPage {
    let users: Vec<_> = (0..a & 3).map(|n| info((a >> 2).wrapping_add(n))).collect();
    let streams = (0..b & 3).map(|n| stream_info((b >> 2).wrapping_add(n), a >> 2)).collect();
    let extras = (b & 0x40 != 0).then(|| Extras {
        track_states: if a & 0x40 != 0 { vec![status(b >> 2, a)] } else { vec![] },
        stream_infos: if a & 0x20 != 0 { vec![stream_extra(b >> 2, a)] } else { vec![] },
        room_infos: vec![room_extra(a, b)],
    });
    let users_total = users.len() as u32 + u32::from(truth >> 5 & 3);
    SnapshotPage {
        epoch: epoch + u64::from(truth >> 3 & 1),
        position: place + u64::from(truth & 7),
        page: u32::from(truth >> 4 & 1),
        last: truth >> 6 & 1 == 0,
        users_total,
        users,
        streams,
        extras,
    }
}

fn user(n: u8) -> UserId {
    format!("u{}", n & 3).parse().expect("an id")
}

fn info(n: u8) -> UserInfo {
    UserInfo { user: user(n), name: format!("name{}", n >> 6).parse().expect("a name") }
}

fn stream(n: u8) -> StreamId {
    format!("s{}", n & 3).parse().expect("an id")
}

fn stream_info(n: u8, of: u8) -> StreamInfo {
    let track =
        TrackInfo { kind: TrackKind::Data, codec: String::new(), spatial_layers: 1, temporal_layers: 1 };
    StreamInfo {
        stream: stream(n),
        user: user(of),
        tracks: vec![track; usize::from(n >> 6 & 1) + 1],
        delivery: Delivery::default(),
    }
}

fn status(a: u8, b: u8) -> TrackStatus {
    TrackStatus { stream: stream(a), track: b & 1, state: TrackState::from_number(b >> 1) }
}

fn stream_extra(a: u8, b: u8) -> StreamExtra {
    StreamExtra { stream: stream(a), version: b.into(), info: "i".repeat(usize::from(b & 3)) }
}

fn room_extra(a: u8, b: u8) -> RoomExtra {
    RoomExtra { key: format!("k{}", a & 3), version: b.into(), value: "v".repeat(usize::from(b & 3)) }
}
