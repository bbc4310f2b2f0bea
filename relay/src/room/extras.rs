//! The states of tracks, and what is attached to streams and to the room. Changes only through `Room`.

use std::collections::BTreeMap;

use parlor_transport::id::StreamId;
use parlor_transport::wire::control::{self, RoomExtra, StreamExtra, TrackState, TrackStatus};

/// States and infos of one room. How many there may be is the index's business.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Extras {
    /// Of tracks that are not open.
    states: BTreeMap<(StreamId, u8), TrackState>,
    streams: BTreeMap<StreamId, Versioned>,
    room: BTreeMap<String, Versioned>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Versioned {
    version: u64,
    text: String,
}

impl Extras {
    /// Tracks that are not open.
    pub fn track_states(&self) -> impl Iterator<Item = TrackStatus> + '_ {
        self.states.iter().map(|((stream, track), state)| TrackStatus {
            stream: stream.clone(),
            track: *track,
            state: *state,
        })
    }

    /// Streams with an info.
    pub fn stream_infos(&self) -> impl Iterator<Item = StreamExtra> + '_ {
        self.streams.iter().map(|(stream, info)| StreamExtra {
            stream: stream.clone(),
            version: info.version,
            info: info.text.clone(),
        })
    }

    /// The room's info.
    pub fn room_infos(&self) -> impl Iterator<Item = RoomExtra> + '_ {
        self.room.iter().map(|(key, info)| RoomExtra {
            key: key.clone(),
            version: info.version,
            value: info.text.clone(),
        })
    }

    /// All of it, as it travels.
    pub fn to_wire(&self) -> control::Extras {
        control::Extras {
            track_states: self.track_states().collect(),
            stream_infos: self.stream_infos().collect(),
            room_infos: self.room_infos().collect(),
        }
    }

    pub(super) fn set_track_state(&mut self, status: &TrackStatus) {
        let key = (status.stream.clone(), status.track);
        match status.state {
            TrackState::Open => _ = self.states.remove(&key),
            state => _ = self.states.insert(key, state),
        }
    }

    pub(super) fn set_stream_info(&mut self, stream: &StreamId, version: u64, info: &str) {
        set(&mut self.streams, stream.clone(), version, info);
    }

    pub(super) fn set_room_info(&mut self, key: &str, version: u64, value: &str) {
        set(&mut self.room, key.to_owned(), version, value);
    }

    /// The stream ended.
    pub(super) fn forget_stream(&mut self, stream: &StreamId) {
        let all = (stream.clone(), u8::MIN)..=(stream.clone(), u8::MAX);
        let tracks: Vec<_> = self.states.range(all).map(|(key, _)| key.clone()).collect();
        tracks.iter().for_each(|key| _ = self.states.remove(key));
        self.streams.remove(stream);
    }
}

fn set<K: Ord>(infos: &mut BTreeMap<K, Versioned>, key: K, version: u64, text: &str) {
    match text {
        "" => _ = infos.remove(&key),
        text => _ = infos.insert(key, Versioned { version, text: text.to_owned() }),
    }
}
