//! Mirror and feed against a relay's room that anything may happen in.

use std::collections::BTreeMap;

use parlor_transport::error::{Code, Coded, Refusal};
use parlor_transport::id::{StreamId, UserId, UserName};
use parlor_transport::wire::control::{
    Delivery, Departure, EventStamp, Extras, RoomCount, RoomExtra, RoomInfoChanged, RoomMessage, Said,
    SnapshotPage, Speaker, StreamAdded, StreamExtra, StreamInfo, StreamInfoChanged, StreamRemoved, TrackInfo,
    TrackKind, TrackState, TrackStateChanged, TrackStatus, UserInfo, UserJoined, UserLeft,
};
use proptest::prelude::*;

use super::feed::{Feed, Reader};
use super::mirror::{Change, Mirror};
use super::{RoomEvent, RoomExtras, RoomReason, RoomStatus, RoomView};

fn user(n: u8) -> UserId {
    UserId::new(format!("u{n}")).unwrap()
}

fn info(n: u8) -> UserInfo {
    UserInfo { user: user(n), name: UserName::new(format!("User {n}")).unwrap() }
}

fn stream(n: u8, of: u8) -> StreamInfo {
    StreamInfo {
        stream: StreamId::new(format!("s{n}")).unwrap(),
        user: user(of),
        tracks: vec![TrackInfo {
            kind: TrackKind::Data,
            codec: String::new(),
            spatial_layers: 1,
            temporal_layers: 1,
        }],
        delivery: Delivery::QuicStream,
    }
}

/// The relay's room: what the mirror must become.
#[derive(Default)]
struct Relay {
    epoch: u64,
    position: u64,
    users: BTreeMap<UserId, UserInfo>,
    streams: BTreeMap<StreamId, StreamInfo>,
    extras: RoomExtras,
}

impl Relay {
    fn step(&mut self) -> EventStamp {
        let previous = self.position;
        self.position += 1;
        let users = self.users.len() as u32;
        EventStamp { epoch: self.epoch, position: self.position, previous, users }
    }

    fn join(&mut self, n: u8, out: &mut Vec<RoomMessage>) {
        if self.users.insert(user(n), info(n)).is_none() {
            out.push(RoomMessage::UserJoined(UserJoined { stamp: self.step(), user: info(n) }));
        }
    }

    fn publish(&mut self, n: u8, of: u8, out: &mut Vec<RoomMessage>) {
        let added = stream(n, of);
        if self.users.contains_key(&user(of)) && !self.streams.contains_key(&added.stream) {
            self.streams.insert(added.stream.clone(), added.clone());
            out.push(RoomMessage::StreamAdded(StreamAdded { stamp: self.step(), stream: added }));
        }
    }

    fn set_state(&mut self, n: u8, state: u8, out: &mut Vec<RoomMessage>) {
        let id = stream(n, 0).stream;
        if self.streams.contains_key(&id) {
            let status = TrackStatus { stream: id, track: 0, state: TrackState::from_number(state) };
            self.extras.apply(Extras { track_states: vec![status.clone()], ..Extras::default() });
            out.push(RoomMessage::TrackStateChanged(TrackStateChanged { stamp: self.step(), status }));
        }
    }

    fn set_info(&mut self, n: u8, info: &str, out: &mut Vec<RoomMessage>) {
        let id = stream(n, 0).stream;
        if self.streams.contains_key(&id) {
            let stamp = self.step();
            let extra = StreamExtra { stream: id, version: stamp.position, info: info.to_owned() };
            self.extras.apply(Extras { stream_infos: vec![extra.clone()], ..Extras::default() });
            out.push(RoomMessage::StreamInfoChanged(StreamInfoChanged { stamp, extra }));
        }
    }

    fn set_room_info(&mut self, n: u8, value: &str, out: &mut Vec<RoomMessage>) {
        let stamp = self.step();
        let extra = RoomExtra { key: format!("key{n}"), version: stamp.position, value: value.to_owned() };
        self.extras.apply(Extras { room_infos: vec![extra.clone()], ..Extras::default() });
        out.push(RoomMessage::RoomInfoChanged(RoomInfoChanged { stamp, extra }));
    }

    fn unpublish(&mut self, id: &StreamId, reason: Departure, out: &mut Vec<RoomMessage>) {
        self.extras.forget_stream(id);
        if self.streams.remove(id).is_some() {
            let stamp = self.step();
            out.push(RoomMessage::StreamRemoved(StreamRemoved { stamp, stream: id.clone(), reason }));
        }
    }

    fn leave(&mut self, n: u8, reason: Departure, out: &mut Vec<RoomMessage>) {
        if !self.users.contains_key(&user(n)) {
            return;
        }
        let own: Vec<_> =
            self.streams.values().filter(|s| s.user == user(n)).map(|s| s.stream.clone()).collect();
        for id in own {
            self.unpublish(&id, reason, out);
        }
        self.users.remove(&user(n));
        out.push(RoomMessage::UserLeft(UserLeft { stamp: self.step(), user: user(n), reason }));
    }

    /// The room in pages of at most `size` entries.
    fn snapshot(&self, size: usize) -> Vec<RoomMessage> {
        let users: Vec<_> = self.users.values().cloned().collect();
        let streams: Vec<_> = self.streams.values().cloned().collect();
        let mut pages: Vec<_> = users
            .chunks(size)
            .map(|users| (users.to_vec(), vec![]))
            .chain(streams.chunks(size).map(|streams| (vec![], streams.to_vec())))
            .collect();
        if pages.is_empty() {
            pages.push(Default::default());
        }
        let last = pages.len() - 1;
        pages
            .into_iter()
            .enumerate()
            .map(|(page, (users, streams))| {
                RoomMessage::Page(SnapshotPage {
                    epoch: self.epoch,
                    position: self.position,
                    page: page as u32,
                    last: page == last,
                    users_total: self.users.len() as u32,
                    users,
                    streams,
                    extras: (page == last).then(|| RoomExtras::default().difference_to(&self.extras)),
                })
            })
            .collect()
    }

    fn view(&self, me: u8) -> RoomView {
        let extras = self.extras.of_streams(|stream| self.streams[stream].user != user(me));
        let mut view = RoomView { users: self.users.clone(), streams: self.streams.clone(), extras };
        view.users.remove(&user(me));
        view.streams.retain(|_, stream| stream.user != user(me));
        view
    }
}

/// A small room: u0 and u1 with the stream s1, brought to a mirror by a snapshot.
fn small_room() -> (Relay, Mirror) {
    let mut relay = Relay { epoch: 7, ..Relay::default() };
    let mut events = Vec::new();
    relay.join(0, &mut events);
    relay.join(1, &mut events);
    relay.publish(1, 1, &mut events);
    let mut mirror = Mirror::default();
    for page in relay.snapshot(1) {
        mirror.apply(page).unwrap();
    }
    assert_eq!(mirror.place(), Some((7, 3)));
    (relay, mirror)
}

#[test]
fn a_snapshot_shows_only_when_its_last_page_is_there() {
    let (relay, _) = small_room();
    let mut mirror = Mirror::default();
    let pages = relay.snapshot(1);
    assert_eq!(pages.len(), 3);
    for page in &pages[..2] {
        assert_eq!(mirror.apply(page.clone()), Ok(None));
        assert_eq!((mirror.place(), mirror.count()), (None, 0));
    }
    assert_eq!(mirror.apply(pages[2].clone()), Ok(Some(Change::Replaced)));
    assert_eq!(mirror.others(&user(0)), relay.view(0));
}

#[test]
fn every_reader_is_told_the_newest_voice_that_leads_and_nothing_twice() {
    let (relay, mirror) = small_room();
    let mut feed = Feed::new(user(0));
    let status = RoomStatus::new(RoomReason::Joined);
    let speaker = |n: u8| Some(Speaker { stream: stream(n, n).stream, user: user(n) });
    let told = |reader: &mut Reader, feed: &Feed| {
        let events = std::iter::from_fn(|| reader.next(feed, &mirror, &status));
        let led = events.filter_map(|event| match event {
            RoomEvent::ActiveSpeaker(speaker) => Some(speaker),
            _ => None,
        });
        led.collect::<Vec<_>>()
    };
    let (mut quick, mut slow) = (Reader::new(&feed), Reader::new(&feed));
    assert_eq!(told(&mut quick, &feed), []);
    feed.set_speaker(speaker(1));
    assert_eq!(told(&mut quick, &feed), [speaker(1)]);
    assert_eq!(told(&mut quick, &feed), []);
    feed.set_speaker(None);
    feed.set_speaker(speaker(1));
    assert_eq!(told(&mut quick, &feed), [], "it is what it was");
    for n in 0..100 {
        feed.set_speaker(speaker(n));
    }
    assert_eq!((told(&mut quick, &feed), told(&mut slow, &feed)), (vec![speaker(99)], vec![speaker(99)]));
    feed.set_speaker(None);
    assert_eq!(told(&mut slow, &feed), [None]);
    // Who else is there is known before whose voice leads.
    feed.set_speaker(speaker(1));
    let mut late = Reader::new(&feed);
    let events: Vec<_> = std::iter::from_fn(|| late.next(&feed, &mirror, &status)).collect();
    assert_eq!(events.last(), Some(&RoomEvent::ActiveSpeaker(speaker(1))));
    assert!(events.len() > 1 && relay.users.len() == 2);
}

#[test]
fn every_reader_is_told_the_newest_level_of_overload_and_nothing_twice() {
    let (_relay, mirror) = small_room();
    let mut feed = Feed::new(user(0));
    let status = RoomStatus::new(RoomReason::Joined);
    let told = |reader: &mut Reader, feed: &Feed| {
        let events = std::iter::from_fn(|| reader.next(feed, &mirror, &status));
        let levels = events.filter_map(|event| match event {
            RoomEvent::RelayOverloaded { level } => Some(level),
            _ => None,
        });
        levels.collect::<Vec<_>>()
    };
    let (mut quick, mut slow) = (Reader::new(&feed), Reader::new(&feed));
    assert!(told(&mut quick, &feed).is_empty());
    for level in [1, 2, 3] {
        feed.set_overload(level);
        assert_eq!(told(&mut quick, &feed), [level]);
    }
    assert_eq!((told(&mut quick, &feed), told(&mut slow, &feed)), (vec![], vec![3]));
    feed.set_overload(0);
    assert!(told(&mut Reader::new(&feed), &feed).is_empty(), "who comes later hears of what is");
    assert_eq!(told(&mut slow, &feed), [0]);
}

#[test]
fn an_event_dropped_or_two_swapped_is_found() {
    let (mut relay, mut mirror) = small_room();
    let mut events = Vec::new();
    relay.join(2, &mut events);
    relay.publish(2, 2, &mut events);
    let error = mirror.apply(events[1].clone()).unwrap_err();
    assert_eq!(error.code(), Code::ProtocolViolation);
    assert!(error.to_string().contains("4→5") && error.to_string().contains("position 3"), "{error}");
    assert_eq!(mirror.place(), Some((7, 3)), "an error changes nothing");
    for event in events {
        mirror.apply(event).unwrap();
    }
    assert_eq!(mirror.others(&user(0)), relay.view(0));
}

#[test]
fn impossible_events_are_refused_and_change_nothing() {
    let stamp = |users| EventStamp { epoch: 7, position: 4, previous: 3, users };
    let left = |n, users| {
        RoomMessage::UserLeft(UserLeft { stamp: stamp(users), user: user(n), reason: Departure::Left })
    };
    let id = StreamId::new("s9").unwrap();
    for bad in [
        RoomMessage::UserJoined(UserJoined { stamp: stamp(3), user: info(1) }),
        RoomMessage::UserJoined(UserJoined { stamp: stamp(9), user: info(5) }),
        left(5, 1),
        left(1, 1),
        RoomMessage::StreamAdded(StreamAdded { stamp: stamp(2), stream: stream(1, 1) }),
        RoomMessage::StreamAdded(StreamAdded { stamp: stamp(2), stream: stream(5, 5) }),
        RoomMessage::StreamRemoved(StreamRemoved { stamp: stamp(2), stream: id, reason: Departure::Left }),
        RoomMessage::Unknown(EventStamp { epoch: 8, ..stamp(2) }),
        RoomMessage::Unknown(EventStamp { position: 3, ..stamp(2) }),
    ] {
        let (relay, mut mirror) = small_room();
        assert!(mirror.apply(bad.clone()).is_err(), "{bad:?}");
        assert_eq!(mirror.others(&user(0)), relay.view(0), "{bad:?}");
    }
}

#[test]
fn states_and_infos_of_unknown_streams_are_refused() {
    let stamp = EventStamp { epoch: 7, position: 4, previous: 3, users: 2 };
    let status = |n, track| TrackStatus { stream: stream(n, 0).stream, track, state: TrackState::Muted };
    let extra = StreamExtra { stream: stream(9, 0).stream, version: 4, info: "x".into() };
    for bad in [
        RoomMessage::TrackStateChanged(TrackStateChanged { stamp, status: status(9, 0) }),
        RoomMessage::TrackStateChanged(TrackStateChanged { stamp, status: status(1, 1) }),
        RoomMessage::StreamInfoChanged(StreamInfoChanged { stamp, extra }),
    ] {
        let (relay, mut mirror) = small_room();
        assert!(mirror.apply(bad.clone()).is_err(), "{bad:?}");
        assert_eq!((mirror.others(&user(0)), mirror.place()), (relay.view(0), Some((7, 3))), "{bad:?}");
    }
    let (_, mut mirror) = small_room();
    let good = TrackStateChanged { stamp, status: status(1, 0) };
    mirror.apply(RoomMessage::TrackStateChanged(good)).unwrap();
    assert_eq!(mirror.others(&user(0)).extras.track_state(&stream(1, 1).stream, 0), TrackState::Muted);
    assert!(mirror.others(&user(1)).extras.is_empty(), "one's own do not show");
}

#[test]
fn a_reader_who_is_too_slow_for_messages_hears_how_many_it_missed() {
    let (_, mirror) = small_room();
    let joined = RoomStatus::new(RoomReason::Joined);
    let mut feed = Feed::new(user(0));
    let say = |feed: &mut Feed, n: u32| {
        let payload = n.to_be_bytes().to_vec().into();
        feed.push_message(Said { from: user(1), direct: false, payload });
    };
    (0..3).for_each(|n| say(&mut feed, n));
    let mut late = Reader::new(&feed);
    let mut early = Reader::default();
    (3..1030).for_each(|n| say(&mut feed, n));
    // A fresh snapshot does not displace messages.
    feed.push_change(Change::Replaced, 2);
    let read = |reader: &mut Reader| {
        let events: Vec<_> = std::iter::from_fn(|| reader.next(&feed, &mirror, &joined)).collect();
        let missed = events.iter().find_map(|event| match event {
            RoomEvent::MessagesMissed { count } => Some(*count),
            _ => None,
        });
        let is_message = |event: &&RoomEvent| matches!(event, RoomEvent::Message { .. });
        (missed, events.iter().filter(is_message).count())
    };
    assert_eq!(read(&mut early), (Some(6), 1024));
    assert_eq!(read(&mut late), (Some(3), 1024));
}

#[test]
fn pages_that_do_not_fit_together_are_refused() {
    let page = |page, last, users: Vec<UserInfo>, streams| {
        RoomMessage::Page(SnapshotPage {
            epoch: 1,
            position: 5,
            page,
            last,
            users_total: 1,
            users,
            streams,
            extras: None,
        })
    };
    for bad in [
        vec![page(1, true, vec![info(1)], vec![])],
        vec![page(0, false, vec![info(1)], vec![]), page(2, true, vec![], vec![])],
        vec![page(0, true, vec![], vec![])],
        vec![page(0, true, vec![info(1), info(1)], vec![])],
        vec![page(0, true, vec![info(1)], vec![stream(1, 2)])],
        vec![page(0, true, vec![info(1)], vec![stream(1, 1), stream(1, 1)])],
        vec![
            page(0, false, vec![info(1)], vec![]),
            RoomMessage::Unknown(EventStamp { epoch: 1, position: 6, previous: 5, users: 1 }),
        ],
    ] {
        let mut mirror = Mirror::default();
        let outcome: Result<Vec<_>, _> = bad.iter().map(|page| mirror.apply(page.clone())).collect();
        assert!(outcome.is_err(), "{bad:?}");
        assert_eq!(mirror.place(), None);
    }
}

#[test]
fn the_last_count_is_told_once_and_changes_nothing_else() {
    let joined = RoomStatus::new(RoomReason::Joined);
    let (_, mut mirror) = small_room();
    let (mut feed, mut reader) = (Feed::new(user(0)), Reader::default());
    while reader.next(&feed, &mirror, &joined).is_some() {}
    let (place, users) = (mirror.place(), mirror.users().clone());
    for users in [1000, 1001, 1002] {
        let change = mirror.apply(RoomMessage::Count(RoomCount { users })).unwrap().unwrap();
        feed.push_change(change, mirror.count());
    }
    assert_eq!((mirror.place(), mirror.users(), mirror.count()), (place, &users, 1002));
    let told: Vec<_> = std::iter::from_fn(|| reader.next(&feed, &mirror, &joined)).collect();
    assert_eq!(told, [RoomEvent::UsersCounted { count: 1002 }]);
    let change = mirror.apply(RoomMessage::Count(RoomCount { users: 1002 })).unwrap().unwrap();
    feed.push_change(change, mirror.count());
    assert_eq!(reader.next(&feed, &mirror, &joined), None, "it is the same");
}

#[test]
fn a_reader_hears_first_what_is_and_then_what_changes_but_nothing_of_itself() {
    let joined = RoomStatus::new(RoomReason::Joined);
    let (mut relay, mut mirror) = small_room();
    let mut feed = Feed::new(user(0));
    let mut reader = Reader::default();
    let mut events = Vec::new();
    relay.publish(0, 0, &mut events);
    relay.leave(1, Departure::Disconnected, &mut events);

    let first: Vec<_> = std::iter::from_fn(|| reader.next(&feed, &mirror, &joined)).collect();
    assert_eq!(
        first,
        [
            RoomEvent::State(joined.clone()),
            RoomEvent::UsersAdded { users: vec![info(1)], count: 2 },
            RoomEvent::StreamsAdded(vec![stream(1, 1)]),
        ]
    );
    for event in events {
        let change = mirror.apply(event).unwrap().unwrap();
        feed.push_change(change, mirror.count());
    }
    let failed = RoomStatus::failed(RoomReason::ConnectionLost, Refusal::from(Code::ConnectionLost));
    feed.push_status(failed.clone());
    let then: Vec<_> = std::iter::from_fn(|| reader.next(&feed, &mirror, &failed)).collect();
    let reason = Departure::Disconnected;
    assert_eq!(
        then,
        [
            RoomEvent::StreamRemoved { stream: stream(1, 1), reason },
            RoomEvent::UserRemoved { user: info(1), reason, count: 1 },
            RoomEvent::State(failed),
        ]
    );
}

#[derive(Clone, Debug)]
enum Step {
    Join(u8),
    Leave(u8),
    Publish(u8, u8),
    Unpublish(u8),
    State(u8, u8),
    Info(u8, &'static str),
    RoomInfo(u8, &'static str),
    /// The relay sends everything anew, in pages of this size.
    Snapshot(usize),
    /// A new life of the room.
    Epoch,
    /// One reader takes at most this many events.
    Read(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..6).prop_map(Step::Join),
        3 => (0u8..6).prop_map(Step::Leave),
        4 => (0u8..6, 0u8..6).prop_map(|(n, of)| Step::Publish(n, of)),
        3 => (0u8..6).prop_map(Step::Unpublish),
        2 => (0u8..6, 0u8..3).prop_map(|(n, state)| Step::State(n, state)),
        2 => (0u8..6, prop::sample::select(vec!["", "a", "b"])).prop_map(|(n, info)| Step::Info(n, info)),
        1 => (0u8..3, prop::sample::select(vec!["", "a", "b"])).prop_map(|(n, v)| Step::RoomInfo(n, v)),
        1 => (1usize..4).prop_map(Step::Snapshot),
        1 => Just(Step::Epoch),
        4 => (0usize..3, 0usize..6).prop_map(|(reader, events)| Step::Read(reader, events)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens in the room and however slowly each reader reads: the mirror equals the relay's
    /// room, and a reader that has read everything has a view equal to it, having seen no impossible step.
    #[test]
    fn every_view_ends_equal_to_the_relays_room(steps in prop::collection::vec(step(), 1..120)) {
        let joined = RoomStatus::new(RoomReason::Joined);
        let mut relay = Relay { epoch: 1, ..Relay::default() };
        let mut mirror = Mirror::default();
        let mut feed = Feed::with_capacity(user(0), 4);
        let mut readers: Vec<(Reader, RoomView)> = (0..3).map(|_| Default::default()).collect();
        for step in steps {
            let mut messages = Vec::new();
            match step {
                Step::Join(n) => relay.join(n, &mut messages),
                Step::Leave(n) => relay.leave(n, Departure::Left, &mut messages),
                Step::Publish(n, of) => relay.publish(n, of, &mut messages),
                Step::Unpublish(n) => relay.unpublish(&stream(n, 0).stream, Departure::Left, &mut messages),
                Step::State(n, state) => relay.set_state(n, state, &mut messages),
                Step::Info(n, info) => relay.set_info(n, info, &mut messages),
                Step::RoomInfo(n, value) => relay.set_room_info(n, value, &mut messages),
                Step::Snapshot(size) => messages = relay.snapshot(size),
                Step::Epoch => {
                    relay = Relay { epoch: relay.epoch + 1, ..Relay::default() };
                    messages = relay.snapshot(1);
                }
                Step::Read(reader, events) => {
                    let (reader, view) = &mut readers[reader];
                    for _ in 0..events {
                        let Some(event) = reader.next(&feed, &mirror, &joined) else { break };
                        check(view, &event)?;
                        view.apply(&event);
                    }
                }
            }
            if mirror.place().is_none() {
                // Nothing is sent before the first snapshot, which shows all of it.
                messages.retain(|message| matches!(message, RoomMessage::Page(_)));
            }
            for message in messages {
                if let Some(change) = mirror.apply(message).unwrap() {
                    feed.push_change(change, mirror.count());
                }
            }
            if mirror.place().is_some() {
                prop_assert_eq!(mirror.others(&user(0)), relay.view(0));
            }
        }
        for (mut reader, mut view) in readers {
            while let Some(event) = reader.next(&feed, &mirror, &joined) {
                check(&view, &event)?;
                view.apply(&event);
            }
            prop_assert_eq!(view, mirror.others(&user(0)));
        }
    }
}

/// Nobody comes twice or goes unseen, streams come after their users and go before them, and one's own
/// never show.
fn check(view: &RoomView, event: &RoomEvent) -> Result<(), TestCaseError> {
    let me = user(0);
    match event {
        RoomEvent::UsersAdded { users, .. } => {
            prop_assert!(users.iter().all(|u| u.user != me && !view.users.contains_key(&u.user)));
        }
        RoomEvent::UserRemoved { user, .. } => {
            prop_assert!(view.users.contains_key(&user.user));
            prop_assert!(view.streams.values().all(|stream| stream.user != user.user));
        }
        RoomEvent::StreamsAdded(streams) => {
            prop_assert!(streams.iter().all(|s| view.users.contains_key(&s.user)));
            prop_assert!(streams.iter().all(|s| !view.streams.contains_key(&s.stream)));
        }
        RoomEvent::StreamRemoved { stream, .. } => {
            prop_assert!(view.streams.contains_key(&stream.stream));
        }
        RoomEvent::Resync { difference, .. } => prop_assert!(!difference.is_empty()),
        RoomEvent::TrackState { stream, .. } | RoomEvent::StreamInfo { stream, .. } => {
            prop_assert!(view.streams.contains_key(stream));
        }
        RoomEvent::RoomInfo { .. }
        | RoomEvent::State(_)
        | RoomEvent::Recovered { .. }
        | RoomEvent::UsersCounted { .. }
        | RoomEvent::TokenWillExpire { .. }
        | RoomEvent::RelayLeaving { .. }
        | RoomEvent::RelayOverloaded { .. }
        | RoomEvent::ActiveSpeaker(_) => {}
        RoomEvent::Message { .. } | RoomEvent::MessagesMissed { .. } => panic!("nobody said anything"),
    }
    Ok(())
}
