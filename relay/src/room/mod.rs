//! A room as this relay knows it: a replica that changes only by what the index committed.
//!
//! It decides nothing: who may join or publish is `index`'s business, who is connected the lobby's.

mod coalesce;
pub mod events;
pub mod extras;
pub mod index;
pub mod pace;
pub mod roster;
pub mod streams;

use std::sync::Arc;

use bytes::Bytes;
use parlor_transport::id::{SessionId, StreamId};
use parlor_transport::wire::control::{
    self, ENTRIES_MAX, EventStamp, Presence, RoomExtra, RoomInfoChanged, RoomMessage, SnapshotPage,
    StreamAdded, StreamExtra, StreamInfo, StreamInfoChanged, StreamRemoved, TrackStateChanged, UserInfo,
    UserJoined, UserLeft, encode,
};

use crate::limits::{EVENT_BATCH_MAX, PAGE_BYTES_MAX, SNAPSHOT_USERS_PER_EVENT};
use events::{After, EventLog};
use extras::Extras;
use index::{Change, Committed, RoomKey};
use roster::Roster;
use streams::Streams;

/// One life of a room.
#[derive(Debug)]
pub struct Room {
    key: RoomKey,
    epoch: u64,
    roster: Roster,
    streams: Streams,
    extras: Extras,
    /// The history as each [`View`] has it, with positions of its own.
    logs: [EventLog; VIEWS],
    /// The last snapshot made of each [`View`]; serves everyone who needs one, until it is too old.
    snapshots: [Option<Snapshot>; VIEWS],
}

/// What a member is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// Everything.
    Everything,
    /// Not of users; positions count only the events that are told.
    WithoutUsers,
    /// Of users only while they publish: with their first stream they come, with their last one they go. Positions count
    /// these events; beside them it is told how many users there are.
    Publishers,
}

/// How many views there are.
const VIEWS: usize = 3;

impl View {
    /// Every view.
    pub const ALL: [View; VIEWS] = [View::Everything, View::WithoutUsers, View::Publishers];

    /// What a user hears who joined with these options.
    pub fn of(presence: Presence) -> Self {
        match presence {
            Presence { uninterested: true, .. } => View::WithoutUsers,
            Presence { publishers_only: true, .. } => View::Publishers,
            _ => View::Everything,
        }
    }
}

/// The whole room at one position, encoded.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The position it shows.
    pub position: u64,
    /// How many users stand in it.
    pub users: usize,
    /// Its pages, users before streams; at least one.
    pub pages: Arc<[Bytes]>,
}

/// What the index committed does not follow from what this room is: our own broken promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at {position} of epoch {epoch} the room cannot take {committed:?}")]
pub struct NotNext {
    epoch: u64,
    position: u64,
    committed: Box<Committed>,
}

impl Room {
    /// The empty room at position 0 of `epoch`.
    pub fn new(key: RoomKey, epoch: u64) -> Self {
        Room {
            key,
            epoch,
            roster: Roster::default(),
            streams: Streams::default(),
            extras: Extras::default(),
            logs: Default::default(),
            snapshots: Default::default(),
        }
    }

    /// Its name.
    pub fn key(&self) -> &RoomKey {
        &self.key
    }

    /// This life's number.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many changes this life has seen.
    pub fn position(&self) -> u64 {
        self.position_in(View::Everything)
    }

    /// The same as a member with this view counts it.
    pub fn position_in(&self, view: View) -> u64 {
        self.logs[view as usize].position()
    }

    /// Bytes of the events kept, of all views.
    pub fn log_bytes(&self) -> usize {
        self.logs.iter().map(EventLog::bytes).sum()
    }

    /// How many users a member with this view knows.
    fn users_in(&self, view: View) -> u32 {
        match view {
            View::Everything => self.roster.len() as u32,
            View::WithoutUsers => 0,
            View::Publishers => self.streams.publishers() as u32,
        }
    }

    /// Who is here.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// What is published.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// States of tracks, and what is attached to streams and the room.
    pub fn extras(&self) -> &Extras {
        &self.extras
    }

    /// Takes the next step of the room's history.
    ///
    /// # Errors
    /// [`NotNext`] when it is not the next step, or contradicts what is here; the room is then unchanged.
    pub fn apply(&mut self, committed: &Committed) -> Result<(), NotNext> {
        let position = self.position();
        let follows = committed.room == self.key
            && committed.epoch == self.epoch
            && committed.previous == position
            && committed.position == position + u64::from(committed.change.is_seen());
        let publisher = self.publisher_in(&committed.change);
        if !follows || !self.change(committed.position, &committed.change) {
            return Err(NotNext { epoch: self.epoch, position, committed: Box::new(committed.clone()) });
        }
        if committed.change.is_seen() {
            self.tell(committed, publisher);
        }
        Ok(())
    }

    /// Writes a change into the logs; `publisher` is who a stream of it is or was of.
    fn tell(&mut self, committed: &Committed, publisher: Option<UserInfo>) {
        let Committed { position, change, .. } = committed;
        self.push(View::Everything, event(*position, change));
        if change.is_about_users() {
            return;
        }
        self.push(View::WithoutUsers, event(*position, change));
        let streams = publisher.as_ref().map_or(0, |publisher| self.streams.count_of(&publisher.user));
        match (change, publisher) {
            (Change::StreamAdded { .. }, Some(user)) if streams == 1 => {
                self.push(View::Publishers, RoomMessage::UserJoined(UserJoined { stamp: NO_STAMP, user }));
                self.push(View::Publishers, event(*position, change));
            }
            (Change::StreamRemoved { reason, .. }, Some(user)) if streams == 0 => {
                // Until it is told that they go.
                let users = self.users_in(View::Publishers) + 1;
                self.push_counted(View::Publishers, event(*position, change), users);
                let UserInfo { user, .. } = user;
                let left = UserLeft { stamp: NO_STAMP, user, reason: *reason };
                self.push(View::Publishers, RoomMessage::UserLeft(left));
            }
            _ => self.push(View::Publishers, event(*position, change)),
        }
    }

    /// Writes the next event of one view, after which its members know all users of the view.
    fn push(&mut self, view: View, event: RoomMessage) {
        self.push_counted(view, event, self.users_in(view));
    }

    fn push_counted(&mut self, view: View, mut event: RoomMessage, users: u32) {
        let log = &mut self.logs[view as usize];
        let previous = log.position();
        event.set_stamp(EventStamp { epoch: self.epoch, position: previous + 1, previous, users });
        log.push(event);
    }

    /// Changes roster, streams or extras; false when the change contradicts them.
    fn change(&mut self, position: u64, change: &Change) -> bool {
        match change {
            Change::UserJoined { session, user, unseen: true } => {
                self.roster.add_unseen(*session, user.user.clone())
            }
            Change::UserJoined { session, user, unseen: false } => self.roster.add(*session, user.clone()),
            Change::UserLeft { session, user, unseen: true, .. } => self.roster.remove_unseen(*session, user),
            Change::UserLeft { session, user, unseen: false, .. } => {
                self.roster.session(user) == Some(*session)
                    && self.streams.count_of(user) == 0
                    && self.roster.remove(user)
            }
            Change::StreamAdded { session, stream } => {
                self.roster.session(&stream.user) == Some(*session) && self.streams.add(stream.clone())
            }
            Change::StreamRemoved { stream, .. } => {
                self.extras.forget_stream(stream);
                self.streams.remove(stream)
            }
            Change::TrackState { session, status } => {
                let of = self.published(*session, &status.stream);
                let holds = of.is_some_and(|stream| usize::from(status.track) < stream.tracks.len());
                if holds {
                    self.extras.set_track_state(status);
                }
                holds
            }
            Change::StreamInfo { session, stream, info } => {
                let holds = self.published(*session, stream).is_some();
                if holds {
                    self.extras.set_stream_info(stream, position, info);
                }
                holds
            }
            Change::RoomInfo { key, value, .. } => {
                self.extras.set_room_info(key, position, value);
                true
            }
        }
    }

    /// Whose stream begins or ends.
    fn publisher_in(&self, change: &Change) -> Option<UserInfo> {
        let user = match change {
            Change::StreamAdded { stream, .. } => &stream.user,
            Change::StreamRemoved { stream, .. } => &self.streams.get(stream)?.user,
            _ => return None,
        };
        self.roster.user(user)
    }

    /// The stream, if it is of this stay.
    fn published(&self, session: SessionId, stream: &StreamId) -> Option<&StreamInfo> {
        self.streams.get(stream).filter(|stream| self.roster.session(&stream.user) == Some(session))
    }

    /// What a member who has everything up to `position` is to be sent, at least as far as `wanted`; see
    /// [`EventLog::after`].
    pub fn after(&mut self, view: View, position: u64, wanted: u64) -> After {
        self.logs[view as usize].after(position, wanted)
    }

    /// The whole room as it is now or was a moment ago: what happened since then is still to be had with
    /// [`after`](Self::after).
    pub fn snapshot(&mut self, view: View) -> Snapshot {
        let log = &self.logs[view as usize];
        if let Some(snapshot) = &self.snapshots[view as usize] {
            let events = log.position() - snapshot.position;
            let events_max = (snapshot.users / SNAPSHOT_USERS_PER_EVENT).min(EVENT_BATCH_MAX);
            if events <= events_max as u64 && log.reaches(snapshot.position) {
                return snapshot.clone();
            }
        }
        let (position, users) = (log.position(), self.users_in(view) as usize);
        let snapshot = Snapshot { position, users, pages: self.pages(view).into() };
        self.snapshots[view as usize] = Some(snapshot.clone());
        snapshot
    }

    fn pages(&self, view: View) -> Vec<Bytes> {
        let mut pages = vec![self.page(view)];
        let (mut bytes, mut entries) = (0, 0);
        let mut make_room = |pages: &mut Vec<SnapshotPage>, entry: usize| {
            if bytes + entry > PAGE_BYTES_MAX || entries == ENTRIES_MAX {
                pages.push(self.page(view));
                (bytes, entries) = (0, 0);
            }
            bytes += entry;
            entries += 1;
            pages.len() - 1
        };
        let is_told = |user: &UserInfo| match view {
            View::Everything => true,
            View::WithoutUsers => false,
            View::Publishers => self.streams.count_of(&user.user) > 0,
        };
        for user in self.roster.iter().filter(is_told) {
            let at = make_room(&mut pages, size_of_user(&user));
            pages[at].users.push(user);
        }
        for stream in self.streams.iter() {
            let at = make_room(&mut pages, size_of_stream(stream));
            pages[at].streams.push(stream.clone());
        }
        for status in self.extras.track_states() {
            let at = make_room(&mut pages, status.stream.as_str().len() + 8);
            extras_of(&mut pages[at]).track_states.push(status);
        }
        for extra in self.extras.stream_infos() {
            let at = make_room(&mut pages, extra.stream.as_str().len() + extra.info.len() + 16);
            extras_of(&mut pages[at]).stream_infos.push(extra);
        }
        for extra in self.extras.room_infos() {
            let at = make_room(&mut pages, extra.key.len() + extra.value.len() + 16);
            extras_of(&mut pages[at]).room_infos.push(extra);
        }
        let last = pages.len() - 1;
        let numbered = pages.into_iter().enumerate().map(|(at, mut page)| {
            page.page = at as u32;
            page.last = at == last;
            encode(&RoomMessage::Page(page))
        });
        numbered.collect()
    }

    fn page(&self, view: View) -> SnapshotPage {
        SnapshotPage {
            epoch: self.epoch,
            position: self.position_in(view),
            page: 0,
            last: false,
            users_total: self.users_in(view),
            users: Vec::new(),
            streams: Vec::new(),
            extras: None,
        }
    }
}

fn extras_of(page: &mut SnapshotPage) -> &mut control::Extras {
    page.extras.get_or_insert_default()
}

/// What stands in an event before it has its place in a log.
const NO_STAMP: EventStamp = EventStamp { epoch: 0, position: 0, previous: 0, users: 0 };

/// The event, without its place; what it sets gets this version.
fn event(version: u64, change: &Change) -> RoomMessage {
    let stamp = NO_STAMP;
    match change.clone() {
        Change::UserJoined { user, .. } => RoomMessage::UserJoined(UserJoined { stamp, user }),
        Change::UserLeft { user, reason, .. } => RoomMessage::UserLeft(UserLeft { stamp, user, reason }),
        Change::StreamAdded { stream, .. } => RoomMessage::StreamAdded(StreamAdded { stamp, stream }),
        Change::StreamRemoved { stream, reason, .. } => {
            RoomMessage::StreamRemoved(StreamRemoved { stamp, stream, reason })
        }
        Change::TrackState { status, .. } => {
            RoomMessage::TrackStateChanged(TrackStateChanged { stamp, status })
        }
        Change::StreamInfo { stream, info, .. } => {
            let extra = StreamExtra { stream, version, info };
            RoomMessage::StreamInfoChanged(StreamInfoChanged { stamp, extra })
        }
        Change::RoomInfo { key, value, .. } => {
            let extra = RoomExtra { key, version, value };
            RoomMessage::RoomInfoChanged(RoomInfoChanged { stamp, extra })
        }
    }
}

/// Bytes of a user on a page, not less than it takes: two texts with their lengths.
fn size_of_user(user: &UserInfo) -> usize {
    user.user.as_str().len() + user.name.as_str().len() + 6
}

/// Bytes of a stream on a page, not less than it takes: texts with their lengths, and small numbers.
fn size_of_stream(stream: &StreamInfo) -> usize {
    let tracks: usize = stream.tracks.iter().map(|track| track.codec.len() + 6).sum();
    stream.stream.as_str().len() + stream.user.as_str().len() + tracks + 12
}

#[cfg(test)]
mod tests;
