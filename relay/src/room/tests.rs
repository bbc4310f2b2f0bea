//! Any history of proposals: the rooms are what a naive model says, and what a mirror is told makes it the room.

use std::collections::{BTreeMap, BTreeSet};

use parlor_transport::error::Code;
use parlor_transport::id::{AppId, LoginId, RoomId, SessionId, StreamId, UserId, UserName};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{Delivery, Departure, TrackInfo, TrackKind, TrackState, TrackStatus};
use proptest::prelude::*;

use super::index::{Action, Index, MemoryIndex, Proposal, Ticket, Verdict};
use super::*;
use crate::limits::{Limits, ROOM_INFO_KEYS_MAX};
use mirror::{Contents, Mirror};

mod mirror;
mod pages;
mod window;

pub(super) use mirror::decode_all;

const USERS_PER_ROOM_MAX: usize = 3;
const ROOMS_MAX: usize = 4;
const STREAMS_PER_USER_MAX: usize = 2;

/// Sessions come in pairs that belong to one login.
fn login(session: u64) -> LoginId {
    LoginId([(session / 2) as u8; 16])
}

#[derive(Clone, Debug)]
enum Step {
    Join {
        session: u64,
        app: u8,
        room: u8,
        user: u8,
        unseen: bool,
    },
    Leave {
        session: u64,
    },
    Publish {
        session: u64,
        stream: u8,
    },
    Unpublish {
        session: u64,
        stream: u8,
    },
    State {
        session: u64,
        stream: u8,
        track: u8,
        state: u8,
    },
    Info {
        session: u64,
        stream: u8,
        info: &'static str,
    },
    RoomInfo {
        session: u64,
        key: &'static str,
        value: &'static str,
    },
    /// A mirror of every room begins here.
    Watch,
    /// The mirrors read what there is.
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0..10u64;
    prop_oneof![
        6 => (session.clone(), 0..2u8, 0..3u8, 0..6u8, 0..4u8).prop_map(|(session, app, room, user, seen)| {
            Step::Join { session, app, room, user, unseen: seen == 0 }
        }),
        2 => session.clone().prop_map(|session| Step::Leave { session }),
        6 => (session.clone(), 0..8u8).prop_map(|(session, stream)| Step::Publish { session, stream }),
        2 => (session.clone(), 0..8u8).prop_map(|(session, stream)| Step::Unpublish { session, stream }),
        2 => (session.clone(), 0..8u8, 0..2u8, 0..3u8)
            .prop_map(|(session, stream, track, state)| Step::State { session, stream, track, state }),
        2 => (session.clone(), 0..8u8, word())
            .prop_map(|(session, stream, info)| Step::Info { session, stream, info }),
        2 => (session, word(), word())
            .prop_map(|(session, key, value)| Step::RoomInfo { session, key, value }),
        1 => Just(Step::Watch),
        1 => Just(Step::Read),
    ]
}

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b"])
}

fn key(app: u8, room: u8) -> RoomKey {
    RoomKey {
        app: AppId::new(format!("app{app}")).unwrap(),
        room: RoomId::new(format!("room{room}")).unwrap(),
    }
}

fn user(user: u8) -> UserInfo {
    UserInfo {
        user: UserId::new(format!("u{user}")).unwrap(),
        name: UserName::new(format!("User {user}")).unwrap(),
    }
}

fn stream(stream: u8) -> StreamId {
    StreamId::new(format!("s{stream}")).unwrap()
}

fn tracks() -> Vec<TrackInfo> {
    vec![TrackInfo { kind: TrackKind::Audio, codec: "opus".into(), spatial_layers: 1, temporal_layers: 1 }]
}

/// What should be true, in lists.
#[derive(Default)]
struct Model {
    stays: Vec<(u64, u8, u8, u8)>,
    unseen: BTreeSet<u64>,
    /// Logins that gave way to a stay, the last four.
    outlived: BTreeMap<u64, Vec<LoginId>>,
    streams: Vec<(u8, u8, u64)>,
}

impl Model {
    fn take(&mut self, step: &Step) -> Result<(), Code> {
        let at = |stays: &[(u64, u8, u8, u8)], s: u64| stays.iter().copied().find(|stay| stay.0 == s);
        match *step {
            Step::Join { session, app, room, user, unseen } => {
                if at(&self.stays, session).is_some() {
                    return Err(Code::AlreadyJoined);
                }
                let same_user = self.stays.iter().find(|stay| (stay.1, stay.3) == (app, user));
                if same_user.is_some_and(|stay| login(stay.0) == login(session)) {
                    return Err(Code::LoginRaced);
                }
                let mut outlived = Vec::new();
                if let Some(stay) = same_user {
                    outlived.extend(self.outlived.get(&stay.0).into_iter().flatten().copied());
                    if outlived.contains(&login(session)) {
                        return Err(Code::RepeatedLogin);
                    }
                    outlived.push(login(stay.0));
                    outlived.drain(..outlived.len().saturating_sub(4));
                }
                let others = |stay: &&(u64, u8, u8, u8)| (stay.1, stay.3) != (app, user);
                let here: Vec<_> = self.stays.iter().filter(|s| (s.1, s.2) == (app, room)).collect();
                if here.iter().copied().filter(others).count() >= USERS_PER_ROOM_MAX {
                    return Err(Code::RoomFull);
                }
                let rooms: BTreeSet<_> = self.stays.iter().map(|s| (s.1, s.2)).collect();
                if here.is_empty() && rooms.len() >= ROOMS_MAX {
                    return Err(Code::RelayFull);
                }
                if let Some(old) = self.stays.iter().copied().find(|s| (s.1, s.3) == (app, user)) {
                    self.forget(old.0);
                }
                self.stays.push((session, app, room, user));
                self.outlived.insert(session, outlived);
                if unseen {
                    self.unseen.insert(session);
                }
            }
            Step::Leave { session } => {
                at(&self.stays, session).ok_or(Code::NotJoined)?;
                self.forget(session);
            }
            Step::Publish { session, stream } => {
                let (_, app, _, _) = at(&self.stays, session).ok_or(Code::NotJoined)?;
                if self.unseen.contains(&session) {
                    return Err(Code::Unseen);
                }
                match self.streams.iter().find(|s| (s.0, s.1) == (app, stream)) {
                    Some(taken) if taken.2 == session => return Err(Code::AlreadyPublishing),
                    Some(_) => return Err(Code::StreamTaken),
                    None => {}
                }
                if self.streams.iter().filter(|s| s.2 == session).count() >= STREAMS_PER_USER_MAX {
                    return Err(Code::TooManyStreams);
                }
                self.streams.push((app, stream, session));
            }
            Step::Unpublish { session, stream } => {
                let (_, app, _, _) = at(&self.stays, session).ok_or(Code::NotJoined)?;
                let before = self.streams.len();
                self.streams.retain(|s| *s != (app, stream, session));
                if self.streams.len() == before {
                    return Err(Code::NotPublishing);
                }
            }
            Step::State { session, stream, .. } | Step::Info { session, stream, .. } => {
                let (_, app, _, _) = at(&self.stays, session).ok_or(Code::NotJoined)?;
                if !self.streams.contains(&(app, stream, session)) {
                    return Err(Code::NotPublishing);
                }
                if matches!(step, Step::State { track: 1, .. }) {
                    return Err(Code::BadTracks);
                }
            }
            Step::RoomInfo { session, key, .. } => {
                at(&self.stays, session).ok_or(Code::NotJoined)?;
                if key.is_empty() {
                    return Err(Code::BadId);
                }
            }
            Step::Watch | Step::Read => {}
        }
        Ok(())
    }

    fn forget(&mut self, session: u64) {
        self.stays.retain(|stay| stay.0 != session);
        self.unseen.remove(&session);
        self.streams.retain(|stream| stream.2 != session);
    }

    /// Every room with its users and its streams with their owners.
    fn rooms(&self) -> BTreeMap<RoomKey, Contents> {
        let mut rooms: BTreeMap<RoomKey, Contents> = BTreeMap::new();
        for &(session, app, room, who) in &self.stays {
            let contents = rooms.entry(key(app, room)).or_default();
            if !self.unseen.contains(&session) {
                contents.users.insert(user(who).user);
            }
            for published in self.streams.iter().filter(|s| s.2 == session) {
                contents.streams.insert(stream(published.1), user(who).user);
            }
        }
        rooms
    }
}

/// The index and the replicas it feeds.
struct World {
    index: MemoryIndex,
    rooms: BTreeMap<RoomKey, Room>,
    epochs: BTreeSet<u64>,
    mirrors: Vec<(RoomKey, Mirror)>,
    ticket: u64,
}

impl World {
    fn new() -> Self {
        World::of(USERS_PER_ROOM_MAX)
    }

    fn of(users_per_room_max: usize) -> Self {
        let limits = Limits {
            users_per_room_max,
            rooms_max: ROOMS_MAX,
            publish_max: STREAMS_PER_USER_MAX as u32,
            ..Limits::default()
        };
        World {
            index: MemoryIndex::new(limits, 1),
            rooms: BTreeMap::new(),
            epochs: BTreeSet::new(),
            mirrors: Vec::new(),
            ticket: 0,
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), Code> {
        let (session, action) = match *step {
            Step::Join { session, app, room, user: who, unseen } => {
                let (room, user, login) = (key(app, room), user(who), login(session));
                (session, Action::Join { room, user, login, unseen, returns_from: None })
            }
            Step::Leave { session } => (session, Action::Leave { reason: Departure::Left }),
            Step::Publish { session, stream: id } => (
                session,
                Action::Publish { stream: stream(id), tracks: tracks(), delivery: Delivery::Datagram },
            ),
            Step::Unpublish { session, stream: id } => {
                (session, Action::Unpublish { stream: stream(id), reason: Departure::Left })
            }
            Step::State { session, stream: id, track, state } => {
                let state = TrackState::from_number(state);
                (session, Action::SetTrackState(TrackStatus { stream: stream(id), track, state }))
            }
            Step::Info { session, stream: id, info } => {
                (session, Action::SetStreamInfo { stream: stream(id), info: info.to_owned() })
            }
            Step::RoomInfo { session, key, value } => {
                (session, Action::SetRoomInfo { key: key.to_owned(), value: value.to_owned() })
            }
            Step::Watch => {
                for (key, room) in &mut self.rooms {
                    for view in View::ALL {
                        self.mirrors.push((key.clone(), Mirror::begin(room, view)));
                    }
                }
                return Ok(());
            }
            Step::Read => {
                self.read();
                return Ok(());
            }
        };
        self.ticket += 1;
        let ticket = Ticket(self.ticket);
        self.index.submit(Timestamp::ZERO, Proposal { ticket, session: SessionId(session), action });
        let mut result = Ok(());
        while let Some(verdict) = self.index.poll() {
            match verdict {
                Verdict::Refused { ticket: refused, refusal } => {
                    assert_eq!(refused, ticket);
                    result = Err(refusal.code);
                }
                Verdict::Committed(committed) => {
                    assert_eq!(committed.ticket, ticket);
                    self.commit(&committed);
                }
            }
        }
        result
    }

    fn commit(&mut self, committed: &Committed) {
        let epochs = &mut self.epochs;
        let room = self.rooms.entry(committed.room.clone()).or_insert_with(|| {
            assert_eq!(committed.previous, 0, "a room's life begins at its beginning");
            assert!(epochs.insert(committed.epoch), "each life has an epoch of its own");
            Room::new(committed.room.clone(), committed.epoch)
        });
        room.apply(committed).expect("the index tells every step once and in order");
        if room.roster().is_empty() {
            self.read();
            self.mirrors.retain(|(key, _)| *key != committed.room);
            self.rooms.remove(&committed.room);
        }
    }

    fn read(&mut self) {
        for (key, mirror) in &mut self.mirrors {
            let room = self.rooms.get_mut(key).expect("mirrors of ended rooms are gone");
            mirror.read(room, u64::MAX);
            mirror.assert_equal(room);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_history_leaves_rooms_and_mirrors_as_the_model_says(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let (mut world, mut model) = (World::new(), Model::default());
        for step in &steps {
            prop_assert_eq!(world.take(step), model.take(step), "{:?}", step);
            let rooms: BTreeMap<_, _> =
                world.rooms.iter().map(|(key, room)| (key.clone(), Contents::from(room))).collect();
            prop_assert_eq!(rooms, model.rooms(), "after {:?}", step);
        }
        world.read();
    }
}

#[test]
fn the_later_publisher_is_told_who_has_the_stream() {
    let mut world = World::new();
    let join = |session, room, user| Step::Join { session, app: 0, room, user, unseen: false };
    for step in [join(1, 0, 1), join(2, 1, 2), Step::Publish { session: 2, stream: 1 }] {
        world.take(&step).unwrap();
    }
    let publish = Action::Publish { stream: stream(1), tracks: tracks(), delivery: Delivery::Datagram };
    let proposal = Proposal { ticket: Ticket(99), session: SessionId(1), action: publish };
    world.index.submit(Timestamp::ZERO, proposal);
    let Some(Verdict::Refused { refusal, .. }) = world.index.poll() else { panic!("taken in another room") };
    assert_eq!(
        refusal.to_string(),
        "stream \"s1\" is already published by \"u2\"; choose another stream id (2004)"
    );
    assert_eq!(world.take(&Step::Publish { session: 1, stream: 2 }), Ok(()));
}

#[test]
fn the_rooms_info_has_so_many_keys_and_a_removed_one_makes_room() {
    let mut world = World::new();
    let set = |world: &mut World, key: String, value: &str| {
        world.ticket += 1;
        let action = Action::SetRoomInfo { key, value: value.to_owned() };
        let proposal = Proposal { ticket: Ticket(world.ticket), session: SessionId(1), action };
        world.index.submit(Timestamp::ZERO, proposal);
        match world.index.poll().expect("a verdict") {
            Verdict::Committed(committed) => {
                world.commit(&committed);
                Ok(())
            }
            Verdict::Refused { refusal, .. } => Err(refusal.code),
        }
    };
    world.take(&Step::Join { session: 1, app: 0, room: 0, user: 0, unseen: false }).unwrap();
    for n in 0..ROOM_INFO_KEYS_MAX {
        assert_eq!(set(&mut world, format!("key{n}"), "x"), Ok(()));
    }
    assert_eq!(set(&mut world, "more".into(), "x"), Err(Code::TooManyKeys));
    assert_eq!(set(&mut world, "key0".into(), "another value"), Ok(()));
    assert_eq!(set(&mut world, "key1".into(), ""), Ok(()));
    assert_eq!(set(&mut world, "more".into(), "x"), Ok(()));
    let room = &world.rooms[&key(0, 0)];
    assert_eq!(room.extras().room_infos().count(), ROOM_INFO_KEYS_MAX);
}
