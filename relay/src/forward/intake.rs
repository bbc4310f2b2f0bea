//! The order in which the frames of a track come from the publisher's hop: not theirs.
//!
//! A hop passes frames on as they become whole and tells which it gave up. On a track with one spatial
//! layer a frame that comes late has its place kept in the cache, so that those behind it need not wait.
//! On a track with several nobody knows in whose cache a missing frame belongs: there frames wait here
//! until they are in order. Decides only; the cache holds frames.

use std::collections::BTreeMap;
use std::ops::Range;

use parlor_transport::hop::Piece;
use parlor_transport::wire::frame::{Frame, OBJECT_MAX};

/// Places kept open and frames held of one track: as many as the hop itself holds while one is missing.
const MISSING_MAX: u64 = 64;
/// Bytes held of one track while one frame is missing: two of the largest, as in the hop.
const HELD_BYTES_MAX: usize = 2 * OBJECT_MAX;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Intake {
    single_layer: bool,
    /// The sequence that follows all that came or were given up.
    next: u64,
    /// Places kept open: sequence and index in the cache.
    open: BTreeMap<u64, u64>,
    held: BTreeMap<u64, Frame>,
    held_bytes: usize,
    /// Frames before the next were lost.
    lost: bool,
}

/// What is to be done with the cache, in this order.
#[derive(Debug, PartialEq)]
pub(super) enum Deed {
    /// Keep a place for the frame of this sequence; [`Intake::opened`] hears its index.
    Open(u64),
    /// Put what there is of a frame behind all others; `lost` as below. [`Intake::opened`] hears its index.
    Begin {
        /// Its sequence.
        sequence: u64,
        /// What came of it.
        piece: Piece,
        /// Frames before it were lost.
        lost: bool,
    },
    /// Put more of a frame where a place was kept.
    Grow {
        /// The place.
        index: u64,
        /// What came of it.
        piece: Piece,
    },
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

impl Deed {
    /// Whether a place is taken behind all others.
    pub(super) fn takes_place(&self) -> bool {
        match self {
            Deed::Open(_) | Deed::Begin { .. } | Deed::Push { .. } => true,
            Deed::Grow { .. } | Deed::Fill { .. } | Deed::Lose { .. } => false,
        }
    }
}

impl Intake {
    pub(super) fn new(single_layer: bool) -> Self {
        Intake {
            single_layer,
            next: 0,
            open: BTreeMap::new(),
            held: BTreeMap::new(),
            held_bytes: 0,
            lost: false,
        }
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
            self.held_bytes += frame.object().len();
            if let Some(twice) = self.held.insert(sequence, frame) {
                self.held_bytes -= twice.object().len();
            }
            return self.release();
        }
        let mut deeds = Vec::new();
        let missing = sequence - self.next;
        if missing.saturating_add(self.open.len() as u64) > MISSING_MAX {
            self.lost = true;
        } else {
            deeds.extend((self.next..sequence).map(Deed::Open));
        }
        self.next = sequence + 1;
        deeds.push(Deed::Push { frame, lost: std::mem::take(&mut self.lost) });
        deeds
    }

    /// A part of a frame came. It is of no use on tracks with several layers.
    pub(super) fn grow(&mut self, sequence: u64, piece: Piece) -> Vec<Deed> {
        if sequence < self.next {
            let index = self.open.get(&sequence);
            return index.map(|&index| Deed::Grow { index, piece }).into_iter().collect();
        }
        let places = (sequence - self.next).saturating_add(self.open.len() as u64).saturating_add(1);
        if !self.single_layer || places > MISSING_MAX {
            // It will be taken when it is whole.
            return Vec::new();
        }
        let mut deeds: Vec<_> = (self.next..sequence).map(Deed::Open).collect();
        self.next = sequence + 1;
        deeds.push(Deed::Begin { sequence, piece, lost: std::mem::take(&mut self.lost) });
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

    /// The publisher's hop begins anew: what was waited for will not come, and sequences count from 0.
    pub(super) fn restart(&mut self) -> Vec<Deed> {
        let open = std::mem::take(&mut self.open);
        *self = Intake { lost: true, ..Intake::new(self.single_layer) };
        open.into_values().map(|index| Deed::Lose { index }).collect()
    }

    /// What is in order of what is held, or has to go because too much is held.
    fn release(&mut self) -> Vec<Deed> {
        let mut deeds = Vec::new();
        while let Some(entry) = self.held.first_entry() {
            let sequence = *entry.key();
            if sequence > self.next {
                let too_many = self.held.len() as u64 > MISSING_MAX || self.held_bytes > HELD_BYTES_MAX;
                if !too_many {
                    break;
                }
                self.lost = true;
                self.next = sequence;
                continue;
            }
            let frame = entry.remove();
            self.held_bytes -= frame.object().len();
            self.next = sequence + 1;
            deeds.push(Deed::Push { frame, lost: std::mem::take(&mut self.lost) });
        }
        deeds
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parlor_transport::id::StreamAlias;
    use parlor_transport::units::Timestamp;
    use parlor_transport::wire::frame::FrameHeader;

    use super::*;

    fn frame(number: u64, size: usize) -> Frame {
        let header = FrameHeader {
            alias: StreamAlias(1),
            track: 0,
            spatial: 0,
            temporal: 0,
            number,
            captured: Timestamp::ZERO,
            keyframe: true,
            discardable: false,
            level: None,
            metadata: Bytes::new(),
        };
        Frame::new(header, &vec![0; size]).unwrap()
    }

    #[test]
    fn a_publisher_that_withholds_one_frame_makes_us_hold_no_more_than_two_large_ones() {
        let mut intake = Intake::new(false);
        let mut pushed = 0;
        for sequence in 1..40 {
            pushed += intake.take(sequence, frame(sequence, OBJECT_MAX - 100)).len();
            assert!(intake.held_bytes <= HELD_BYTES_MAX);
        }
        assert!(pushed >= 37, "{pushed}");
    }

    #[test]
    fn several_layers_stay_in_order_and_go_on_when_one_is_given_up() {
        let mut intake = Intake::new(false);
        assert_eq!(intake.take(1, frame(1, 9)), []);
        let deeds = intake.take(0, frame(0, 9));
        assert!(matches!(&deeds[..], [Deed::Push { lost: false, .. }, Deed::Push { lost: false, .. }]));
        assert_eq!(intake.take(3, frame(3, 9)), []);
        assert!(matches!(&intake.give_up(2..3)[..], [Deed::Push { lost: true, .. }]));
        assert_eq!((intake.held_bytes, intake.held.len()), (0, 0));
    }
}
