//! The order in which the frames of a track come from the publisher's hop: not theirs.
//!
//! A hop passes frames on as they become whole and tells which it gave up. On a track with one spatial
//! layer a frame that comes late has its place kept in the cache, so that those behind it need not wait.
//! On a track with several nobody knows in whose cache a missing frame belongs: there frames wait here
//! until they are in order. Decides only; the cache holds frames.

use std::collections::BTreeMap;
use std::ops::Range;

use parlor_transport::wire::frame::Frame;

/// Places kept open and frames held of one track: as many as the hop itself holds while one is missing.
const MISSING_MAX: u64 = 64;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Intake {
    single_layer: bool,
    /// The sequence that follows all that came or were given up.
    next: u64,
    /// Places kept open: sequence and index in the cache.
    open: BTreeMap<u64, u64>,
    held: BTreeMap<u64, Frame>,
    /// Frames before the next were lost.
    lost: bool,
}

/// What is to be done with the cache, in this order.
#[derive(Debug, PartialEq)]
pub(super) enum Deed {
    /// Keep a place for the frame of this sequence; [`Intake::opened`] hears its index.
    Open(u64),
    /// Put the frame behind all others; `lost` says that some before it were.
    Push {
        /// The frame.
        frame: Frame,
        /// Frames before it were lost.
        lost: bool,
    },
    /// Put the frame where a place was kept.
    Fill {
        /// The frame.
        frame: Frame,
        /// The place.
        index: u64,
    },
    /// The frame for this place will not come.
    Lose {
        /// The place.
        index: u64,
    },
}

impl Intake {
    pub(super) fn new(single_layer: bool) -> Self {
        Intake { single_layer, next: 0, open: BTreeMap::new(), held: BTreeMap::new(), lost: false }
    }

    /// The sequence that follows all that came or were given up.
    #[cfg(test)]
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// A frame came.
    pub(super) fn take(&mut self, sequence: u64, frame: Frame) -> Vec<Deed> {
        if sequence < self.next {
            let index = self.open.remove(&sequence);
            return index.map(|index| Deed::Fill { frame, index }).into_iter().collect();
        }
        if !self.single_layer {
            self.held.insert(sequence, frame);
            return self.release();
        }
        let mut deeds = Vec::new();
        let missing = sequence - self.next;
        if missing as usize + self.open.len() > MISSING_MAX as usize {
            self.lost = true;
        } else {
            deeds.extend((self.next..sequence).map(Deed::Open));
        }
        self.next = sequence + 1;
        deeds.push(Deed::Push { frame, lost: std::mem::take(&mut self.lost) });
        deeds
    }

    /// A place is kept at `index` of the cache.
    pub(super) fn opened(&mut self, sequence: u64, index: u64) {
        self.open.insert(sequence, index);
    }

    /// The hop gave these up.
    pub(super) fn give_up(&mut self, sequences: Range<u64>) -> Vec<Deed> {
        let mut deeds = Vec::new();
        while let Some((&sequence, &index)) = self.open.range(sequences.clone()).next() {
            self.open.remove(&sequence);
            deeds.push(Deed::Lose { index });
        }
        if sequences.end > self.next {
            self.next = sequences.end;
            self.lost = true;
        }
        deeds.extend(self.release());
        deeds
    }

    /// What is in order of what is held.
    fn release(&mut self) -> Vec<Deed> {
        let mut deeds = Vec::new();
        // A hop holds no more than this before it gives something up; a peer cannot make it.
        if self.held.len() as u64 > MISSING_MAX
            && let Some((&first, _)) = self.held.first_key_value()
        {
            self.next = first;
            self.lost = true;
        }
        while let Some(entry) = self.held.first_entry()
            && *entry.key() <= self.next
        {
            self.next = entry.key() + 1;
            deeds.push(Deed::Push { frame: entry.remove(), lost: std::mem::take(&mut self.lost) });
        }
        deeds
    }
}
