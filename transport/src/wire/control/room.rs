//! What the relay tells of a room: the room as it is, in pages, and what changes.

use bincode::{Decode, Encode};

use super::extra::*;
use super::message::{Delivery, Departure, TrackInfo};
use crate::id::{StreamId, UserId, UserName};

/// Relay to client, on the events stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RoomMessage {
    /// A part of the whole room as it is at one position.
    Page(SnapshotPage),
    /// Somebody came.
    UserJoined(UserJoined),
    /// Somebody went; their streams ended before.
    UserLeft(UserLeft),
    /// A stream began; its user came before.
    StreamAdded(StreamAdded),
    /// A stream ended, and with it what is known of its tracks and its info.
    StreamRemoved(StreamRemoved),
    /// A track's state changed.
    TrackStateChanged(TrackStateChanged),
    /// A stream's info changed.
    StreamInfoChanged(StreamInfoChanged),
    /// The room's info changed.
    RoomInfoChanged(RoomInfoChanged),
    /// How many users there are, for a user who is not told of them all.
    Count(RoomCount),
    /// A positioned event of a newer version: only its position counts.
    Unknown(EventStamp),
}

impl RoomMessage {
    /// The event's place in the history; a snapshot page and a count have none.
    pub fn stamp(&self) -> Option<EventStamp> {
        match self {
            RoomMessage::Page(_) | RoomMessage::Count(_) => None,
            RoomMessage::UserJoined(event) => Some(event.stamp),
            RoomMessage::UserLeft(event) => Some(event.stamp),
            RoomMessage::StreamAdded(event) => Some(event.stamp),
            RoomMessage::StreamRemoved(event) => Some(event.stamp),
            RoomMessage::TrackStateChanged(event) => Some(event.stamp),
            RoomMessage::StreamInfoChanged(event) => Some(event.stamp),
            RoomMessage::RoomInfoChanged(event) => Some(event.stamp),
            RoomMessage::Unknown(stamp) => Some(*stamp),
        }
    }

    /// Gives the event another place; what has none stays as it is.
    pub fn set_stamp(&mut self, stamp: EventStamp) {
        match self {
            RoomMessage::Page(_) | RoomMessage::Count(_) => {}
            RoomMessage::UserJoined(event) => event.stamp = stamp,
            RoomMessage::UserLeft(event) => event.stamp = stamp,
            RoomMessage::StreamAdded(event) => event.stamp = stamp,
            RoomMessage::StreamRemoved(event) => event.stamp = stamp,
            RoomMessage::TrackStateChanged(event) => event.stamp = stamp,
            RoomMessage::StreamInfoChanged(event) => event.stamp = stamp,
            RoomMessage::RoomInfoChanged(event) => event.stamp = stamp,
            RoomMessage::Unknown(before) => *before = stamp,
        }
    }
}

/// Where an event stands in the room's history. It may be applied only to a room that is at
/// `previous` of the same epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct EventStamp {
    /// The room's life.
    pub epoch: u64,
    /// The position this event leads to.
    pub position: u64,
    /// The position it leads from.
    pub previous: u64,
    /// Users in the room after it.
    pub users: u32,
}

/// A user as everyone sees them.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct UserInfo {
    /// Who.
    pub user: UserId,
    /// Their name for people to read.
    pub name: UserName,
}

/// A stream as everyone sees it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct StreamInfo {
    /// Which.
    pub stream: StreamId,
    /// Who publishes it.
    pub user: UserId,
    /// Its tracks.
    pub tracks: Vec<TrackInfo>,
    /// How its frames travel.
    pub delivery: Delivery,
}

/// See [`RoomMessage::Page`]. Pages of one snapshot follow each other; events of later
/// positions come after the last page.
#[derive(Clone, PartialEq, Eq, Debug, Encode)]
pub struct SnapshotPage {
    /// The room's life.
    pub epoch: u64,
    /// The position that the whole snapshot shows.
    pub position: u64,
    /// This page's number, from 0.
    pub page: u32,
    /// No further page follows.
    pub last: bool,
    /// Users in the room at that position, over all pages.
    pub users_total: u32,
    /// Users of this page.
    pub users: Vec<UserInfo>,
    /// Streams of this page; their users stand on this page or an earlier one.
    pub streams: Vec<StreamInfo>,
    /// States and infos of this page; their streams stand on this page or an earlier one.
    pub extras: Option<Extras>,
}

/// See [`RoomMessage::Count`]. It has no place in the history: the last one holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct RoomCount {
    /// Users in the room.
    pub users: u32,
}

/// See [`RoomMessage::UserJoined`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct UserJoined {
    /// Its place in the history.
    pub stamp: EventStamp,
    /// Who came.
    pub user: UserInfo,
}

/// See [`RoomMessage::UserLeft`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct UserLeft {
    /// Its place in the history.
    pub stamp: EventStamp,
    /// Who went.
    pub user: UserId,
    /// Why.
    pub reason: Departure,
}

/// See [`RoomMessage::StreamAdded`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct StreamAdded {
    /// Its place in the history.
    pub stamp: EventStamp,
    /// The stream.
    pub stream: StreamInfo,
}

/// See [`RoomMessage::StreamRemoved`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct StreamRemoved {
    /// Its place in the history.
    pub stamp: EventStamp,
    /// The stream.
    pub stream: StreamId,
    /// Why.
    pub reason: Departure,
}
