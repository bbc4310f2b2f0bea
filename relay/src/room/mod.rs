//! A room as this relay knows it: a replica that changes only by what the index committed.
//!
//! It decides nothing: who may join or publish is `index`'s business, who is connected the lobby's.

pub mod events;
pub mod index;
pub mod roster;
pub mod streams;

use std::sync::Arc;

use bytes::Bytes;
use parlor_transport::wire::control::{
    ENTRIES_MAX, EventStamp, RoomMessage, SnapshotPage, StreamAdded, StreamInfo, StreamRemoved, UserInfo,
    UserJoined, UserLeft, encode,
};

use crate::limits::PAGE_BYTES_MAX;
use events::{After, EventLog};
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
    log: EventLog,
    /// The last snapshot made; serves everyone who needs one at the same position.
    snapshot: Option<Snapshot>,
}

/// The whole room at one position, encoded.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The position it shows.
    pub position: u64,
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
            log: EventLog::default(),
            snapshot: None,
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
        self.log.position()
    }

    /// Who is here.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// What is published.
    pub fn streams(&self) -> &Streams {
        &self.streams
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
            && committed.position == position + 1;
        if !follows || !self.change(&committed.change) {
            return Err(NotNext { epoch: self.epoch, position, committed: Box::new(committed.clone()) });
        }
        let stamp = EventStamp {
            epoch: self.epoch,
            position: committed.position,
            previous: committed.previous,
            users: self.roster.len() as u32,
        };
        self.log.push(encode(&event(stamp, &committed.change)));
        self.snapshot = None;
        Ok(())
    }

    /// Changes roster or streams; false when the change contradicts them.
    fn change(&mut self, change: &Change) -> bool {
        match change {
            Change::UserJoined { session, user } => self.roster.add(*session, user.clone()),
            Change::UserLeft { session, user, .. } => {
                self.roster.session(user) == Some(*session)
                    && self.streams.count_of(user) == 0
                    && self.roster.remove(user)
            }
            Change::StreamAdded { session, stream } => {
                self.roster.session(&stream.user) == Some(*session) && self.streams.add(stream.clone())
            }
            Change::StreamRemoved { stream, .. } => self.streams.remove(stream),
        }
    }

    /// What a member who has everything up to `position` is to be sent.
    pub fn after(&self, position: u64) -> After {
        self.log.after(position)
    }

    /// The whole room as it is now.
    pub fn snapshot(&mut self) -> Snapshot {
        if let Some(snapshot) = &self.snapshot {
            return snapshot.clone();
        }
        let snapshot = Snapshot { position: self.position(), pages: self.pages().into() };
        self.snapshot = Some(snapshot.clone());
        snapshot
    }

    fn pages(&self) -> Vec<Bytes> {
        let mut pages = vec![self.page()];
        let (mut bytes, mut entries) = (0, 0);
        let mut make_room = |pages: &mut Vec<SnapshotPage>, entry: usize| {
            if bytes + entry > PAGE_BYTES_MAX || entries == ENTRIES_MAX {
                pages.push(self.page());
                (bytes, entries) = (0, 0);
            }
            bytes += entry;
            entries += 1;
            pages.len() - 1
        };
        for user in self.roster.iter() {
            let at = make_room(&mut pages, size_of_user(&user));
            pages[at].users.push(user);
        }
        for stream in self.streams.iter() {
            let at = make_room(&mut pages, size_of_stream(stream));
            pages[at].streams.push(stream.clone());
        }
        let last = pages.len() - 1;
        let numbered = pages.into_iter().enumerate().map(|(at, mut page)| {
            page.page = at as u32;
            page.last = at == last;
            encode(&RoomMessage::Page(page))
        });
        numbered.collect()
    }

    fn page(&self) -> SnapshotPage {
        SnapshotPage {
            epoch: self.epoch,
            position: self.position(),
            page: 0,
            last: false,
            users_total: self.roster.len() as u32,
            users: Vec::new(),
            streams: Vec::new(),
        }
    }
}

fn event(stamp: EventStamp, change: &Change) -> RoomMessage {
    match change.clone() {
        Change::UserJoined { user, .. } => RoomMessage::UserJoined(UserJoined { stamp, user }),
        Change::UserLeft { user, reason, .. } => RoomMessage::UserLeft(UserLeft { stamp, user, reason }),
        Change::StreamAdded { stream, .. } => RoomMessage::StreamAdded(StreamAdded { stamp, stream }),
        Change::StreamRemoved { stream, reason, .. } => {
            RoomMessage::StreamRemoved(StreamRemoved { stamp, stream, reason })
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
