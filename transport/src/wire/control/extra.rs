//! What a room says beyond users and streams: the states of tracks, and info that the app attaches to streams and
//! to the room.

use bincode::{Decode, Encode};

use super::room::EventStamp;
use crate::id::StreamId;

/// The most bytes of a stream's info.
pub const STREAM_INFO_MAX: usize = 1024;
/// The most bytes of a key of the room's info.
pub const ROOM_INFO_KEY_MAX: usize = 128;
/// The most bytes of a value of the room's info.
pub const ROOM_INFO_VALUE_MAX: usize = 1024;

/// Why others see or hear something of a track, or nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub enum TrackState {
    /// Frames flow: the state of every track at first.
    #[default]
    Open,
    /// The user muted it.
    Muted,
    /// The user turned the device off.
    Disabled,
    /// The user or the system does not allow the device to be used.
    NoAuthorization,
    /// Another program has the device.
    Occupied,
    /// The system interrupted it, for a phone call.
    Interrupted,
    /// There is no device, or none any more.
    NoDevice,
    /// The device failed.
    Failed,
    /// A state of a newer version: nothing flows.
    Other(u8),
}

impl TrackState {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            TrackState::Open => 0,
            TrackState::Muted => 1,
            TrackState::Disabled => 2,
            TrackState::NoAuthorization => 3,
            TrackState::Occupied => 4,
            TrackState::Interrupted => 5,
            TrackState::NoDevice => 6,
            TrackState::Failed => 7,
            TrackState::Other(number) => number,
        }
    }

    /// The state with this number.
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => TrackState::Open,
            1 => TrackState::Muted,
            2 => TrackState::Disabled,
            3 => TrackState::NoAuthorization,
            4 => TrackState::Occupied,
            5 => TrackState::Interrupted,
            6 => TrackState::NoDevice,
            7 => TrackState::Failed,
            other => TrackState::Other(other),
        }
    }
}

/// See [`ClientMessage::SetTrackState`](super::ClientMessage::SetTrackState).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct SetTrackState {
    /// See [`Join::request`](super::Join::request).
    pub request: u32,
    /// The stream; the client must publish it.
    pub stream: StreamId,
    /// The track's number.
    pub track: u8,
    /// Its state from now on.
    pub state: TrackState,
}

/// See [`ClientMessage::SetStreamInfo`](super::ClientMessage::SetStreamInfo).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct SetStreamInfo {
    /// See [`Join::request`](super::Join::request).
    pub request: u32,
    /// The stream; the client must publish it.
    pub stream: StreamId,
    /// Its info from now on, at most [`STREAM_INFO_MAX`] bytes; empty for none.
    pub info: String,
}

/// See [`ClientMessage::SetRoomInfo`](super::ClientMessage::SetRoomInfo).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct SetRoomInfo {
    /// See [`Join::request`](super::Join::request).
    pub request: u32,
    /// The key, 1 to [`ROOM_INFO_KEY_MAX`] bytes.
    pub key: String,
    /// Its value from now on, at most [`ROOM_INFO_VALUE_MAX`] bytes; empty removes the key.
    pub value: String,
}

/// The state of one track.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct TrackStatus {
    /// The stream.
    pub stream: StreamId,
    /// The track's number.
    pub track: u8,
    /// Its state.
    pub state: TrackState,
}

/// What a publisher attached to its stream.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct StreamExtra {
    /// The stream.
    pub stream: StreamId,
    /// Grows with every write in the room; of two writes the one with the higher version holds.
    pub version: u64,
    /// The info; empty for none any more.
    pub info: String,
}

/// What somebody attached to the room.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct RoomExtra {
    /// The key.
    pub key: String,
    /// Grows with every write in the room; of two writes the one with the higher version holds.
    pub version: u64,
    /// The value; empty when the key was removed.
    pub value: String,
}

/// All of it, or a part.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Extras {
    /// States of tracks; in a snapshot those that are not open.
    pub track_states: Vec<TrackStatus>,
    /// Infos of streams.
    pub stream_infos: Vec<StreamExtra>,
    /// The room's info, key by key.
    pub room_infos: Vec<RoomExtra>,
}

impl Extras {
    /// Whether there is nothing of it.
    pub fn is_empty(&self) -> bool {
        self.track_states.is_empty() && self.stream_infos.is_empty() && self.room_infos.is_empty()
    }
}

/// See [`RoomMessage::TrackStateChanged`](super::RoomMessage::TrackStateChanged).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct TrackStateChanged {
    /// Its place in the history.
    pub stamp: EventStamp,
    /// The track and its state.
    pub status: TrackStatus,
}

/// See [`RoomMessage::StreamInfoChanged`](super::RoomMessage::StreamInfoChanged).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct StreamInfoChanged {
    /// Its place in the history.
    pub stamp: EventStamp,
    /// The stream and its info.
    pub extra: StreamExtra,
}

/// See [`RoomMessage::RoomInfoChanged`](super::RoomMessage::RoomInfoChanged).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct RoomInfoChanged {
    /// Its place in the history.
    pub stamp: EventStamp,
    /// The key and its value.
    pub extra: RoomExtra,
}
