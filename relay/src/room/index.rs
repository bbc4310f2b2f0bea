//! The authority over rooms: who is where, which stream ids are taken, in which order things happen.
//!
//! A relay proposes, the index commits or refuses; rooms change only by what it commits. Today it
//! is [`MemoryIndex`], alone in one process; the trait is what several relays can share one day,
//! so nothing may rely on a verdict being there at once.

mod extras;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::{AppId, LoginId, RoomId, SessionId, StreamId, UserId};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{Delivery, Departure, StreamInfo, TrackInfo, TrackStatus, UserInfo};

use crate::limits::Limits;

/// A room's full name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RoomKey {
    /// The app it belongs to.
    pub app: AppId,
    /// Its id within the app.
    pub room: RoomId,
}

/// Names a proposal in its verdicts; chosen by who proposes, never twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// Something a session wants to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Names it.
    pub ticket: Ticket,
    /// Who proposes.
    pub session: SessionId,
    /// What.
    pub action: Action,
}

/// See [`Proposal::action`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Enter a room, which is created if need be. Ends the user's earlier stay, wherever in the app it is.
    Join {
        /// The room.
        room: RoomKey,
        /// The user.
        user: UserInfo,
        /// The login: of several joins with one login the first counts.
        login: LoginId,
        /// Others are not told of the user, who may not publish.
        unseen: bool,
        /// The stay that the client had before and that is over: it ends no later one, which is of another device.
        returns_from: Option<SessionId>,
    },
    /// Leave; the session's streams end first.
    Leave {
        /// Why.
        reason: Departure,
    },
    /// Publish a stream.
    Publish {
        /// Its id, unique within the app.
        stream: StreamId,
        /// Its tracks.
        tracks: Vec<TrackInfo>,
        /// How its frames travel.
        delivery: Delivery,
    },
    /// Stop publishing it.
    Unpublish {
        /// Its id.
        stream: StreamId,
        /// Why.
        reason: Departure,
    },
    /// Tell others of a track's state.
    SetTrackState(TrackStatus),
    /// Attach info to a stream.
    SetStreamInfo {
        /// The stream.
        stream: StreamId,
        /// The info; empty for none.
        info: String,
    },
    /// Attach info to the room.
    SetRoomInfo {
        /// The key.
        key: String,
        /// The value; empty removes the key.
        value: String,
    },
}

/// What became of a proposal. One proposal may commit several changes; they come in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A change everyone applies.
    Committed(Committed),
    /// Nothing changed.
    Refused {
        /// The proposal.
        ticket: Ticket,
        /// Why, and what to do.
        refusal: Refusal,
    },
}

/// One step in a room's history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The proposal that led to it.
    pub ticket: Ticket,
    /// The room.
    pub room: RoomKey,
    /// The room's life; each creation has a new one.
    pub epoch: u64,
    /// The position it leads from; 0 is the empty room.
    pub previous: u64,
    /// The position it leads to; the same if others are not told of the change.
    pub position: u64,
    /// What changed.
    pub change: Change,
}

/// See [`Committed::change`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A user came.
    UserJoined {
        /// The stay that began.
        session: SessionId,
        /// Who.
        user: UserInfo,
        /// Others are not told.
        unseen: bool,
    },
    /// A user went.
    UserLeft {
        /// The stay that ended.
        session: SessionId,
        /// Who.
        user: UserId,
        /// Why.
        reason: Departure,
        /// Others are not told.
        unseen: bool,
    },
    /// A stream began.
    StreamAdded {
        /// Whose stay it belongs to.
        session: SessionId,
        /// The stream.
        stream: StreamInfo,
    },
    /// A stream ended.
    StreamRemoved {
        /// Whose stay it belonged to.
        session: SessionId,
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: Departure,
    },
    /// A track's state changed.
    TrackState {
        /// Whose stay it belongs to.
        session: SessionId,
        /// The track and its state.
        status: TrackStatus,
    },
    /// A stream's info changed; its version is the position.
    StreamInfo {
        /// Whose stay it belongs to.
        session: SessionId,
        /// The stream.
        stream: StreamId,
        /// Its info.
        info: String,
    },
    /// The room's info changed; its version is the position.
    RoomInfo {
        /// Who wrote it.
        session: SessionId,
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
}

impl Change {
    /// Whether others are told; only then the room's position moves.
    pub fn is_seen(&self) -> bool {
        !matches!(self, Change::UserJoined { unseen: true, .. } | Change::UserLeft { unseen: true, .. })
    }

    /// Whether it is about users alone.
    pub fn is_about_users(&self) -> bool {
        matches!(self, Change::UserJoined { .. } | Change::UserLeft { .. })
    }
}

/// The authority. Verdicts come in the order of the proposals.
pub trait Index {
    /// Hands in a proposal.
    fn submit(&mut self, now: Timestamp, proposal: Proposal);
    /// The next verdict, if there is one.
    fn poll(&mut self) -> Option<Verdict>;
    /// Other limits from now on; who and what is there stays.
    fn set_limits(&mut self, limits: &Limits);
}

/// Logins remembered that gave way to a later one of the same user: devices that join within the same second.
const OUTLIVED_MAX: usize = 4;

/// The index of a relay that stands alone.
#[derive(Debug)]
pub struct MemoryIndex {
    limits: Limits,
    epoch_next: u64,
    rooms: BTreeMap<RoomKey, RoomBooks>,
    stays: BTreeMap<SessionId, Stay>,
    users: BTreeMap<(AppId, UserId), SessionId>,
    streams: BTreeMap<(AppId, StreamId), SessionId>,
    verdicts: VecDeque<Verdict>,
}

#[derive(Debug)]
struct RoomBooks {
    epoch: u64,
    position: u64,
    users: usize,
    /// Keys of the room's info.
    keys: BTreeSet<String>,
}

#[derive(Debug)]
struct Stay {
    room: RoomKey,
    user: UserId,
    login: LoginId,
    /// Logins that gave way to this one, the newest last: what comes late of them does not end it.
    outlived: Vec<LoginId>,
    unseen: bool,
    /// With the number of their tracks.
    streams: BTreeMap<StreamId, usize>,
}

impl MemoryIndex {
    /// An index without rooms. `epoch_first` must be above every epoch of an earlier run, so that
    /// clients never take a new room for the one they knew.
    pub fn new(limits: Limits, epoch_first: u64) -> Self {
        MemoryIndex {
            limits,
            epoch_next: epoch_first,
            rooms: BTreeMap::new(),
            stays: BTreeMap::new(),
            users: BTreeMap::new(),
            streams: BTreeMap::new(),
            verdicts: VecDeque::new(),
        }
    }

    /// Whether it knows of nothing and has nothing to say: nobody is in a room.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
            && self.stays.is_empty()
            && self.users.is_empty()
            && self.streams.is_empty()
            && self.verdicts.is_empty()
    }

    fn decide(&mut self, ticket: Ticket, session: SessionId, action: Action) -> Result<(), Refusal> {
        match action {
            Action::Join { room, user, login, unseen, returns_from } => {
                self.check_return(&room, &user.user, returns_from)?;
                self.join(ticket, session, room, user, login, unseen)
            }
            Action::Leave { reason } => {
                self.stay(session)?;
                self.end_stay(ticket, session, reason);
                Ok(())
            }
            Action::Publish { stream, tracks, delivery } => {
                self.publish(ticket, session, stream, tracks, delivery)
            }
            Action::Unpublish { stream, reason } => {
                let stay = self.stay(session)?;
                if stay.streams.remove(&stream).is_none() {
                    return Err(Refusal::new(
                        Code::NotPublishing,
                        format!("stream {stream:?} is not published by {:?}; nothing to stop", stay.user),
                    ));
                }
                let room = stay.room.clone();
                self.streams.remove(&(room.app.clone(), stream.clone()));
                self.commit(ticket, &room, Change::StreamRemoved { session, stream, reason });
                Ok(())
            }
            Action::SetTrackState(status) => self.set_track_state(ticket, session, status),
            Action::SetStreamInfo { stream, info } => self.set_stream_info(ticket, session, stream, info),
            Action::SetRoomInfo { key, value } => self.set_room_info(ticket, session, key, value),
        }
    }

    /// Whether a client that comes back is still the newest of its user. Sessions are numbered in the order they began.
    fn check_return(&self, room: &RoomKey, user: &UserId, from: Option<SessionId>) -> Result<(), Refusal> {
        let present = self.users.get(&(room.app.clone(), user.clone()));
        if from.zip(present).is_none_or(|(from, &present)| present <= from) {
            return Ok(());
        }
        Err(joined_elsewhere(user))
    }

    fn join(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        room: RoomKey,
        user: UserInfo,
        login: LoginId,
        unseen: bool,
    ) -> Result<(), Refusal> {
        if let Some(stay) = self.stays.get(&session) {
            return Err(Refusal::new(
                Code::AlreadyJoined,
                format!(
                    "this connection is in room {:?} already; open another one for room {:?}",
                    stay.room.room, room.room
                ),
            ));
        }
        let identity = (room.app.clone(), user.user.clone());
        let earlier = self.users.get(&identity).copied();
        if earlier.is_some_and(|earlier| self.stays[&earlier].login == login) {
            return Err(Refusal::from(Code::LoginRaced));
        }
        if earlier.is_some_and(|earlier| self.stays[&earlier].outlived.contains(&login)) {
            return Err(joined_elsewhere(&user.user));
        }
        // The seat that the same user gives up counts as free.
        let returns_here = earlier.is_some_and(|s| self.stays[&s].room == room);
        match self.rooms.get(&room) {
            Some(books) if books.users - usize::from(returns_here) >= self.limits.users_per_room_max => {
                return Err(Refusal::new(
                    Code::RoomFull,
                    format!(
                        "room {:?} holds {} users and no more; try later or ask for a larger limit",
                        room.room, self.limits.users_per_room_max
                    ),
                ));
            }
            None if self.rooms.len() >= self.limits.rooms_max => {
                return Err(Refusal::new(
                    Code::RelayFull,
                    format!(
                        "the relay holds {} rooms and no more, so room {:?} cannot be opened; \
                         try later or another relay",
                        self.limits.rooms_max, room.room
                    ),
                ));
            }
            _ => {}
        }
        let mut outlived = Vec::new();
        if let Some(earlier) = earlier {
            let Stay { login, outlived: before, .. } = &self.stays[&earlier];
            outlived = before[before.len().saturating_sub(OUTLIVED_MAX - 1)..].to_vec();
            outlived.push(*login);
            self.end_stay(ticket, earlier, Departure::RepeatedLogin);
        }
        let epoch_next = &mut self.epoch_next;
        let books = self.rooms.entry(room.clone()).or_insert_with(|| {
            let epoch = *epoch_next;
            *epoch_next += 1;
            RoomBooks { epoch, position: 0, users: 0, keys: BTreeSet::new() }
        });
        books.users += 1;
        self.users.insert(identity, session);
        let stay = Stay {
            room: room.clone(),
            user: user.user.clone(),
            login,
            outlived,
            unseen,
            streams: BTreeMap::new(),
        };
        self.stays.insert(session, stay);
        self.commit(ticket, &room, Change::UserJoined { session, user, unseen });
        Ok(())
    }

    fn publish(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        stream: StreamId,
        tracks: Vec<TrackInfo>,
        delivery: Delivery,
    ) -> Result<(), Refusal> {
        let publish_max = self.limits.publish_max as usize;
        let stay = self.stay(session)?;
        if stay.unseen {
            let text = format!(
                "{:?} is unseen in the room and cannot publish {stream:?}; join again to be seen",
                stay.user
            );
            return Err(Refusal::new(Code::Unseen, text));
        }
        let (room, user, published) = (stay.room.clone(), stay.user.clone(), stay.streams.len());
        match self.streams.get(&(room.app.clone(), stream.clone())) {
            Some(&owner) if owner == session => {
                return Err(Refusal::new(
                    Code::AlreadyPublishing,
                    format!("stream {stream:?} is being published by {user:?} already; unpublish it first"),
                ));
            }
            Some(owner) => {
                let owner = &self.stays[owner].user;
                return Err(Refusal::new(
                    Code::StreamTaken,
                    format!("stream {stream:?} is already published by {owner:?}; choose another stream id"),
                ));
            }
            None if published >= publish_max => {
                return Err(Refusal::new(
                    Code::TooManyStreams,
                    format!(
                        "{user:?} publishes {published} streams and may not publish {stream:?} too; \
                         unpublish one first or raise the relay's limit publish_max"
                    ),
                ));
            }
            None => {}
        }
        self.stay(session)?.streams.insert(stream.clone(), tracks.len());
        self.streams.insert((room.app.clone(), stream.clone()), session);
        let stream = StreamInfo { stream, user, tracks, delivery };
        self.commit(ticket, &room, Change::StreamAdded { session, stream });
        Ok(())
    }

    fn stay(&mut self, session: SessionId) -> Result<&mut Stay, Refusal> {
        self.stays.get_mut(&session).ok_or_else(|| Refusal::from(Code::NotJoined))
    }

    fn end_stay(&mut self, ticket: Ticket, session: SessionId, reason: Departure) {
        let Some(stay) = self.stays.remove(&session) else {
            return;
        };
        let Stay { room, user, streams, unseen, .. } = stay;
        for stream in streams.into_keys() {
            self.streams.remove(&(room.app.clone(), stream.clone()));
            self.commit(ticket, &room, Change::StreamRemoved { session, stream, reason });
        }
        self.users.remove(&(room.app.clone(), user.clone()));
        self.commit(ticket, &room, Change::UserLeft { session, user, reason, unseen });
        if let Some(books) = self.rooms.get_mut(&room) {
            books.users -= 1;
            if books.users == 0 {
                self.rooms.remove(&room);
            }
        }
    }

    fn commit(&mut self, ticket: Ticket, room: &RoomKey, change: Change) {
        let books = self.rooms.get_mut(room).expect("a room lives as long as somebody is in it");
        let previous = books.position;
        books.position += u64::from(change.is_seen());
        self.verdicts.push_back(Verdict::Committed(Committed {
            ticket,
            room: room.clone(),
            epoch: books.epoch,
            previous,
            position: books.position,
            change,
        }));
    }
}

fn joined_elsewhere(user: &UserId) -> Refusal {
    let text = format!("user {user:?} joined from elsewhere meanwhile; leave there before joining here");
    Refusal::new(Code::RepeatedLogin, text)
}

impl Index for MemoryIndex {
    fn submit(&mut self, _now: Timestamp, proposal: Proposal) {
        let Proposal { ticket, session, action } = proposal;
        if let Err(refusal) = self.decide(ticket, session, action) {
            self.verdicts.push_back(Verdict::Refused { ticket, refusal });
        }
    }

    fn poll(&mut self) -> Option<Verdict> {
        self.verdicts.pop_front()
    }

    fn set_limits(&mut self, limits: &Limits) {
        self.limits = limits.clone();
    }
}
