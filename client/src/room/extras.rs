//! The states of tracks, and what is attached to streams and to a room, as a client knows them.

use std::collections::BTreeMap;

use parlor_transport::id::StreamId;
use parlor_transport::wire::control::{Extras, RoomExtra, StreamExtra, TrackState, TrackStatus};

/// A text that somebody attached to a stream or to the room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    /// Grows with every write in the room; of two writes the one with the higher version holds.
    pub version: u64,
    /// The text; never empty.
    pub text: String,
}

/// States and infos of one room.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RoomExtras {
    /// The states of tracks that are not open, by stream and track.
    pub track_states: BTreeMap<(StreamId, u8), TrackState>,
    /// What publishers attached to their streams.
    pub stream_infos: BTreeMap<StreamId, Info>,
    /// What was attached to the room, by key.
    pub room_infos: BTreeMap<String, Info>,
}

impl RoomExtras {
    /// The state of a track.
    pub fn track_state(&self, stream: &StreamId, track: u8) -> TrackState {
        self.track_states.get(&(stream.clone(), track)).copied().unwrap_or_default()
    }

    /// How much there is of it.
    pub fn len(&self) -> usize {
        self.track_states.len() + self.stream_infos.len() + self.room_infos.len()
    }

    /// Whether there is nothing of it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what changed.
    pub fn apply(&mut self, extras: Extras) {
        for TrackStatus { stream, track, state } in extras.track_states {
            match state {
                TrackState::Open => _ = self.track_states.remove(&(stream, track)),
                state => _ = self.track_states.insert((stream, track), state),
            }
        }
        for StreamExtra { stream, version, info } in extras.stream_infos {
            set(&mut self.stream_infos, stream, version, info);
        }
        for RoomExtra { key, version, value } in extras.room_infos {
            set(&mut self.room_infos, key, version, value);
        }
    }

    /// The stream ended, and with it what is known of it.
    pub fn forget_stream(&mut self, stream: &StreamId) {
        let all = (stream.clone(), u8::MIN)..=(stream.clone(), u8::MAX);
        let tracks: Vec<_> = self.track_states.range(all).map(|(key, _)| key.clone()).collect();
        tracks.iter().for_each(|key| _ = self.track_states.remove(key));
        self.stream_infos.remove(stream);
    }

    /// The same without what belongs to streams that are not `wanted`.
    pub(super) fn of_streams(&self, wanted: impl Fn(&StreamId) -> bool) -> RoomExtras {
        let mut extras = self.clone();
        extras.track_states.retain(|(stream, _), _| wanted(stream));
        extras.stream_infos.retain(|stream, _| wanted(stream));
        extras
    }

    /// What has to be applied to get from this to `now`. What is gone comes as open, or empty and with a version
    /// above the one that was.
    pub fn difference_to(&self, now: &RoomExtras) -> Extras {
        let states = changed(&self.track_states, &now.track_states);
        let track_states = states.map(|((stream, track), _, now)| TrackStatus {
            stream: stream.clone(),
            track: *track,
            state: now.copied().unwrap_or_default(),
        });
        let infos = changed(&self.stream_infos, &now.stream_infos);
        let stream_infos = infos.map(|(stream, old, now)| {
            let Info { version, text } = info(old, now);
            StreamExtra { stream: stream.clone(), version, info: text }
        });
        let infos = changed(&self.room_infos, &now.room_infos);
        let room_infos = infos.map(|(key, old, now)| {
            let Info { version, text } = info(old, now);
            RoomExtra { key: key.clone(), version, value: text }
        });
        Extras {
            track_states: track_states.collect(),
            stream_infos: stream_infos.collect(),
            room_infos: room_infos.collect(),
        }
    }
}

fn set<K: Ord>(infos: &mut BTreeMap<K, Info>, key: K, version: u64, text: String) {
    if text.is_empty() {
        infos.remove(&key);
    } else {
        infos.insert(key, Info { version, text });
    }
}

/// What is gone from `old`, then what is new or other in `now`.
fn changed<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    now: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let gone = old.iter().filter(|(key, _)| !now.contains_key(*key)).map(|(key, was)| (key, Some(was), None));
    let is = now.iter().map(|(key, value)| (key, old.get(key), Some(value)));
    gone.chain(is.filter(|(_, was, is)| was != is))
}

fn info(old: Option<&Info>, now: Option<&Info>) -> Info {
    let gone = || Info { version: old.map_or(0, |old| old.version.saturating_add(1)), text: String::new() };
    now.cloned().unwrap_or_else(gone)
}
