//! The newest frames of one track and spatial layer, as shared bytes.
//!
//! It holds only frames that decode, given the frames before them: from a loss up to the next
//! keyframe nothing is taken. Frames leave by age, by size, and soon after a newer group began.

use std::collections::VecDeque;
use std::time::Duration;

use parlor_transport::units::Timestamp;
use parlor_transport::wire::frame::Frame;

use crate::limits::{Limits, OLD_GROUP_AGE_MAX};

/// See the module's text.
#[derive(Debug)]
pub struct Cache {
    /// Indices count the frames taken, without gaps; the front has `first`.
    entries: VecDeque<Entry>,
    first: u64,
    bytes: usize,
    keyframe_newest: Option<u64>,
    keyframe_arrived: Option<Timestamp>,
    /// What comes next does not decode unless it is a keyframe.
    broken: bool,
    number_newest: Option<u64>,
    heard: Option<Timestamp>,
    bytes_max: usize,
    age_max: Duration,
}

/// A frame in the cache.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The frame; its bytes are shared.
    pub frame: Frame,
    /// When the relay had it whole.
    pub arrived: Timestamp,
    /// Decodes without any earlier frame.
    pub decodes_alone: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It is in the cache.
    Kept,
    /// It does not decode, because an earlier one was lost; a keyframe is needed.
    Undecodable,
    /// Its number is not above the last one.
    OutOfOrder,
}

impl Cache {
    /// An empty cache with the bounds of `limits`. Its first frame must be a keyframe.
    pub fn new(limits: &Limits) -> Self {
        Cache {
            entries: VecDeque::new(),
            first: 0,
            bytes: 0,
            keyframe_newest: None,
            keyframe_arrived: None,
            broken: true,
            number_newest: None,
            heard: None,
            bytes_max: limits.cache_bytes_max,
            age_max: limits.cache_age_max,
        }
    }

    /// Takes a frame. `lost` says that frames of this track may have been lost since the last one.
    pub fn push(&mut self, now: Timestamp, frame: Frame, decodes_alone: bool, lost: bool) -> Taken {
        let number = frame.header().number;
        if self.number_newest.is_some_and(|newest| number <= newest) {
            return Taken::OutOfOrder;
        }
        // A gap in the numbers alone is a frame that the publisher chose not to send.
        let gap = number != self.number_newest.map_or(0, |newest| newest + 1);
        self.number_newest = Some(number);
        self.heard = Some(now);
        self.broken = !decodes_alone && (self.broken || (lost && gap));
        if self.broken {
            self.evict(now);
            return Taken::Undecodable;
        }
        if decodes_alone {
            self.keyframe_newest = Some(self.end());
            self.keyframe_arrived = Some(now);
        }
        self.bytes += frame.object().len();
        self.entries.push_back(Entry { frame, arrived: now, decodes_alone });
        self.evict(now);
        Taken::Kept
    }

    /// Lets go of frames that are too old by `now`.
    pub fn evict(&mut self, now: Timestamp) {
        while let Some(oldest) = self.entries.front() {
            let age = now.saturating_since(oldest.arrived);
            let old_group = self.keyframe_newest.is_some_and(|keyframe| self.first < keyframe);
            if self.bytes <= self.bytes_max && age <= self.age_max && !(old_group && age > OLD_GROUP_AGE_MAX)
            {
                return;
            }
            self.bytes -= oldest.frame.object().len();
            self.entries.pop_front();
            self.first += 1;
        }
    }

    /// The frame at `index`, if it is here.
    pub fn get(&self, index: u64) -> Option<&Entry> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.entries.get(at)
    }

    /// The index of the oldest frame here; [`end`](Self::end) if there is none.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The index that the next frame will have.
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The newest frame.
    pub fn newest(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// The index of the newest keyframe, if it is still here.
    pub fn keyframe_newest(&self) -> Option<u64> {
        self.keyframe_newest.filter(|&keyframe| keyframe >= self.first)
    }

    /// When the newest keyframe came, even if it is gone.
    pub fn keyframe_arrived(&self) -> Option<Timestamp> {
        self.keyframe_arrived
    }

    /// When the last frame came, whether or not it was kept.
    pub fn heard(&self) -> Option<Timestamp> {
        self.heard
    }

    /// How many bytes the frames from `index` on have.
    pub fn bytes_from(&self, index: u64) -> usize {
        let skip = index.saturating_sub(self.first);
        self.entries
            .iter()
            .rev()
            .take(self.entries.len().saturating_sub(skip as usize))
            .map(|entry| entry.frame.object().len())
            .sum()
    }

    /// How many bytes all frames here have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
