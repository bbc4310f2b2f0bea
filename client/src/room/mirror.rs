//! The client's copy of the relay's room, changed only by what the relay sends: pages, then events.
//!
//! It checks that every event continues exactly where the last one ended. On a reliable QUIC stream
//! anything else is a broken promise of the relay, a typed error, and never a guess. The mirror holds
//! everyone, the app's own user too; hiding that one is [`Mirror::others`]' business.

use std::collections::BTreeMap;

use parlor_transport::error::{Code, Coded};
use parlor_transport::id::{StreamId, UserId, UserName};
use parlor_transport::wire::control::{
    Departure, EventStamp, Extras, RoomExtra, RoomMessage, SnapshotPage, StreamExtra, StreamInfo,
    TrackStatus, UserInfo,
};

use super::{RoomExtras, RoomView};

/// The most users and streams that a mirror takes: ten times the largest room that is tested, so that a
/// broken relay costs at most some 100 MB.
const ENTRIES_MAX: usize = 100_000;

/// How the mirror changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A snapshot is complete: the whole room is new.
    Replaced,
    /// A user came.
    UserAdded(UserInfo),
    /// A user went.
    UserRemoved(UserInfo, Departure),
    /// A stream began.
    StreamAdded(StreamInfo),
    /// A stream ended.
    StreamRemoved(StreamInfo, Departure),
    /// The state of a track of this user changed.
    TrackState(TrackStatus, UserId),
    /// The info of a stream of this user changed.
    StreamInfo(StreamExtra, UserId),
    /// The room's info changed.
    RoomInfo(RoomExtra),
    /// So many users are in the room; of most of them nothing else is told.
    Counted,
}

/// The relay sent what does not continue the room's history.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MirrorError {
    /// The event belongs elsewhere in the history.
    #[error(
        "room event {previous}→{position} of epoch {epoch} does not continue {at}; \
         update the older of client and relay, and report it if both are current"
    )]
    Gap {
        /// The event's epoch.
        epoch: u64,
        /// Where it leads.
        position: u64,
        /// Where it comes from.
        previous: u64,
        /// Where the mirror is, in words.
        at: String,
    },
    /// The event or page contradicts what is known of the room.
    #[error("the relay's room event is impossible: {0}; report it")]
    Impossible(String),
}

impl Coded for MirrorError {
    fn code(&self) -> Code {
        Code::ProtocolViolation
    }
}

/// A snapshot of which not all pages are there.
#[derive(Debug)]
struct Pages {
    epoch: u64,
    position: u64,
    next: u32,
    users_total: u32,
    users: BTreeMap<UserId, UserName>,
    streams: BTreeMap<StreamId, StreamInfo>,
    extras: RoomExtras,
}

/// The client's copy of the relay's room.
///
/// ```
/// use parlor_client::room::mirror::{Change, Mirror};
/// use parlor_transport::wire::control::{RoomMessage, SnapshotPage};
///
/// let mut mirror = Mirror::default();
/// let page = SnapshotPage {
///     epoch: 1, position: 1, page: 0, last: true, users_total: 0, users: vec![], streams: vec![],
///     extras: None,
/// };
/// assert_eq!(mirror.apply(RoomMessage::Page(page)), Ok(Some(Change::Replaced)));
/// assert_eq!(mirror.place(), Some((1, 1)));
/// ```
#[derive(Default, Debug)]
pub struct Mirror {
    /// Epoch and position; none before the first snapshot is complete.
    place: Option<(u64, u64)>,
    users: BTreeMap<UserId, UserName>,
    streams: BTreeMap<StreamId, StreamInfo>,
    extras: RoomExtras,
    /// The relay tells of no users.
    is_without_users: bool,
    /// How many users there are, where the relay tells of some of them only.
    counted: Option<u32>,
    /// While pages come in, the room stays as it was.
    pages: Option<Pages>,
}

impl Mirror {
    /// A mirror of a room whose users are not told: it never holds any.
    pub fn without_users() -> Self {
        Mirror { is_without_users: true, ..Mirror::default() }
    }

    /// Applies one message; `None` when nothing became visible (a page that is not the last, an event
    /// of a newer version).
    ///
    /// # Errors
    /// [`MirrorError`]; the mirror is then unchanged and the connection of no more use.
    pub fn apply(&mut self, message: RoomMessage) -> Result<Option<Change>, MirrorError> {
        let Some(stamp) = message.stamp() else {
            return match message {
                RoomMessage::Page(page) => self.apply_page(page),
                RoomMessage::Count(count) => {
                    self.counted = Some(count.users);
                    Ok(Some(Change::Counted))
                }
                _ => Ok(None),
            };
        };
        self.check_place(stamp)?;
        let users = self.users.len();
        let (change, users) = match message {
            RoomMessage::Page(_) | RoomMessage::Count(_) => unreachable!("they have no stamp"),
            RoomMessage::UserJoined(event) => {
                self.check(!self.is_without_users, || {
                    format!("told of user {}, where no users are told", event.user.user)
                })?;
                self.check(!self.users.contains_key(&event.user.user), || {
                    format!("user {} joined twice", event.user.user)
                })?;
                (Some(Change::UserAdded(event.user)), users + 1)
            }
            RoomMessage::UserLeft(event) => {
                let name = self.users.get(&event.user).cloned();
                let name = name.ok_or_else(|| impossible(format!("user {} left unseen", event.user)))?;
                self.check(!self.streams.values().any(|stream| stream.user == event.user), || {
                    format!("user {} left before their streams ended", event.user)
                })?;
                (Some(Change::UserRemoved(UserInfo { user: event.user, name }, event.reason)), users - 1)
            }
            RoomMessage::StreamAdded(event) => {
                let stream = &event.stream;
                self.check(!self.streams.contains_key(&stream.stream), || {
                    format!("stream {} began twice", stream.stream)
                })?;
                self.check(self.is_without_users || self.users.contains_key(&stream.user), || {
                    format!("stream {} is of {}, who is not in the room", stream.stream, stream.user)
                })?;
                (Some(Change::StreamAdded(event.stream)), users)
            }
            RoomMessage::StreamRemoved(event) => {
                let stream = self.streams.get(&event.stream).cloned();
                let stream =
                    stream.ok_or_else(|| impossible(format!("stream {} ended unseen", event.stream)))?;
                (Some(Change::StreamRemoved(stream, event.reason)), users)
            }
            RoomMessage::TrackStateChanged(event) => {
                let publisher = self.publisher_of(&event.status)?;
                (Some(Change::TrackState(event.status, publisher)), users)
            }
            RoomMessage::StreamInfoChanged(event) => {
                let stream = self.streams.get(&event.extra.stream);
                let publisher = stream.map(|stream| stream.user.clone()).ok_or_else(|| {
                    impossible(format!("info of stream {}, which is unknown", event.extra.stream))
                })?;
                (Some(Change::StreamInfo(event.extra, publisher)), users)
            }
            RoomMessage::RoomInfoChanged(event) => (Some(Change::RoomInfo(event.extra)), users),
            RoomMessage::Unknown(_) => (None, stamp.users as usize),
        };
        self.check(users == stamp.users as usize, || {
            format!("{} users announced where {users} are known", stamp.users)
        })?;
        let within =
            users <= ENTRIES_MAX && self.streams.len() < ENTRIES_MAX && self.extras.len() < ENTRIES_MAX;
        self.check(within, || format!("more than {ENTRIES_MAX} users, streams or infos"))?;
        self.place = Some((stamp.epoch, stamp.position));
        if let Some(change) = &change {
            self.carry_out(change);
        }
        Ok(change)
    }

    /// The connection is gone: a snapshot of which not all pages came will not be completed.
    pub fn interrupt(&mut self) {
        self.pages = None;
    }

    /// The room's epoch and position; `None` before the first snapshot is complete.
    pub fn place(&self) -> Option<(u64, u64)> {
        self.place
    }

    /// Everyone in the room, the app's own user too.
    pub fn users(&self) -> &BTreeMap<UserId, UserName> {
        &self.users
    }

    /// Every stream in the room, the app's own too.
    pub fn streams(&self) -> &BTreeMap<StreamId, StreamInfo> {
        &self.streams
    }

    /// Users in the room, the app's own included, also those of whom the relay does not tell.
    pub fn count(&self) -> u32 {
        self.counted.unwrap_or_else(|| u32::try_from(self.users.len()).unwrap_or(u32::MAX))
    }

    /// The room without `me` and their streams.
    pub fn others(&self, me: &UserId) -> RoomView {
        let info = |(user, name): (&UserId, &UserName)| {
            (user.clone(), UserInfo { user: user.clone(), name: name.clone() })
        };
        RoomView {
            users: self.users.iter().filter(|(user, _)| *user != me).map(info).collect(),
            streams: self
                .streams
                .iter()
                .filter(|(_, stream)| stream.user != *me)
                .map(|(id, stream)| (id.clone(), stream.clone()))
                .collect(),
            extras: self
                .extras
                .of_streams(|stream| self.streams.get(stream).is_some_and(|stream| stream.user != *me)),
        }
    }

    /// States of tracks and infos, those of the app's own streams too.
    pub fn extras(&self) -> &RoomExtras {
        &self.extras
    }

    fn publisher_of(&self, status: &TrackStatus) -> Result<UserId, MirrorError> {
        let TrackStatus { stream, track, .. } = status;
        let of = self.streams.get(stream).filter(|of| usize::from(*track) < of.tracks.len());
        let of =
            of.ok_or_else(|| impossible(format!("state of track {track} of {stream}, which is unknown")))?;
        Ok(of.user.clone())
    }

    fn carry_out(&mut self, change: &Change) {
        match change {
            Change::Replaced | Change::Counted => {}
            Change::UserAdded(user) => {
                self.users.insert(user.user.clone(), user.name.clone());
            }
            Change::UserRemoved(user, _) => {
                self.users.remove(&user.user);
            }
            Change::StreamAdded(stream) => {
                self.streams.insert(stream.stream.clone(), stream.clone());
            }
            Change::StreamRemoved(stream, _) => {
                self.streams.remove(&stream.stream);
                self.extras.forget_stream(&stream.stream);
            }
            Change::TrackState(status, _) => {
                self.extras.apply(Extras { track_states: vec![status.clone()], ..Extras::default() });
            }
            Change::StreamInfo(extra, _) => {
                self.extras.apply(Extras { stream_infos: vec![extra.clone()], ..Extras::default() });
            }
            Change::RoomInfo(extra) => {
                self.extras.apply(Extras { room_infos: vec![extra.clone()], ..Extras::default() });
            }
        }
    }

    fn check_place(&self, stamp: EventStamp) -> Result<(), MirrorError> {
        let continues = self.pages.is_none() && self.place == Some((stamp.epoch, stamp.previous));
        if continues && stamp.position > stamp.previous {
            return Ok(());
        }
        let at = match (&self.pages, self.place) {
            (Some(pages), _) => format!("a snapshot of which page {} is due", pages.next),
            (None, Some((epoch, position))) => format!("position {position} of epoch {epoch}"),
            (None, None) => "a room whose snapshot has not come".to_owned(),
        };
        Err(MirrorError::Gap { epoch: stamp.epoch, position: stamp.position, previous: stamp.previous, at })
    }

    fn check(&self, holds: bool, what: impl FnOnce() -> String) -> Result<(), MirrorError> {
        if holds { Ok(()) } else { Err(impossible(what())) }
    }

    fn apply_page(&mut self, page: SnapshotPage) -> Result<Option<Change>, MirrorError> {
        let mut pages = match self.pages.take() {
            // A relay may begin a new snapshot at any time; page 0 says so.
            _ if page.page == 0 => Pages {
                epoch: page.epoch,
                position: page.position,
                next: 0,
                users_total: page.users_total,
                users: BTreeMap::new(),
                streams: BTreeMap::new(),
                extras: RoomExtras::default(),
            },
            Some(pages) => pages,
            None => return Err(impossible(format!("page {} of a snapshot that did not begin", page.page))),
        };
        let head = (page.epoch, page.position, page.page, page.users_total);
        if head != (pages.epoch, pages.position, pages.next, pages.users_total) {
            return Err(impossible(format!("page {} does not continue its snapshot", page.page)));
        }
        pages.next += 1;
        let entries = pages.users.len() + page.users.len() + pages.streams.len() + page.streams.len();
        let entries = entries + pages.extras.len();
        if entries > ENTRIES_MAX || page.users_total as usize > ENTRIES_MAX {
            return Err(impossible(format!("more than {ENTRIES_MAX} users and streams")));
        }
        if self.is_without_users && (page.users_total > 0 || !page.users.is_empty()) {
            return Err(impossible("a snapshot with users, where no users are told".to_owned()));
        }
        for UserInfo { user, name } in page.users {
            if pages.users.insert(user.clone(), name).is_some() {
                return Err(impossible(format!("user {user} stands twice in a snapshot")));
            }
        }
        for stream in page.streams {
            if !self.is_without_users && !pages.users.contains_key(&stream.user) {
                return Err(impossible(format!("stream {} stands before its user", stream.stream)));
            }
            if let Some(twice) = pages.streams.insert(stream.stream.clone(), stream) {
                return Err(impossible(format!("stream {} stands twice in a snapshot", twice.stream)));
            }
        }
        if let Some(extras) = page.extras {
            let states = extras.track_states.iter().map(|status| &status.stream);
            let infos = extras.stream_infos.iter().map(|extra| &extra.stream);
            if let Some(unknown) = states.chain(infos).find(|stream| !pages.streams.contains_key(*stream)) {
                return Err(impossible(format!("states and infos of {unknown} stand before it")));
            }
            pages.extras.apply(extras);
        }
        if !page.last {
            self.pages = Some(pages);
            return Ok(None);
        }
        if pages.users.len() != pages.users_total as usize {
            return Err(impossible(format!(
                "a snapshot of {} users holds {}",
                pages.users_total,
                pages.users.len()
            )));
        }
        self.place = Some((pages.epoch, pages.position));
        self.users = pages.users;
        self.streams = pages.streams;
        self.extras = pages.extras;
        Ok(Some(Change::Replaced))
    }
}

fn impossible(what: String) -> MirrorError {
    MirrorError::Impossible(what)
}
