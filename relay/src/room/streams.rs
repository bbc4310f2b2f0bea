//! What is published in a room. Changes only through `Room`.

use std::collections::BTreeMap;

use parlor_transport::id::{StreamId, UserId};
use parlor_transport::wire::control::StreamInfo;

/// The streams of one room, in the order of their ids.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Streams {
    streams: BTreeMap<StreamId, StreamInfo>,
    /// How many each user publishes; a user without any has no entry.
    counts: BTreeMap<UserId, usize>,
}

impl Streams {
    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether nothing is published.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// The stream with this id.
    pub fn get(&self, stream: &StreamId) -> Option<&StreamInfo> {
        self.streams.get(stream)
    }

    /// How many streams `user` publishes here.
    pub fn count_of(&self, user: &UserId) -> usize {
        self.counts.get(user).copied().unwrap_or(0)
    }

    /// How many users publish.
    pub fn publishers(&self) -> usize {
        self.counts.len()
    }

    /// All streams.
    pub fn iter(&self) -> impl Iterator<Item = &StreamInfo> {
        self.streams.values()
    }

    /// Adds a stream; false if its id is taken here.
    pub(super) fn add(&mut self, stream: StreamInfo) -> bool {
        if self.streams.contains_key(&stream.stream) {
            return false;
        }
        *self.counts.entry(stream.user.clone()).or_default() += 1;
        self.streams.insert(stream.stream.clone(), stream);
        true
    }

    /// Takes a stream out; false if it is not here.
    pub(super) fn remove(&mut self, stream: &StreamId) -> bool {
        let Some(info) = self.streams.remove(stream) else {
            return false;
        };
        if let Some(count) = self.counts.get_mut(&info.user) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&info.user);
            }
        }
        true
    }
}
