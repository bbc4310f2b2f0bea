//! Frames of one track that are not whole yet, and what of them is to be passed on.
//!
//! A frame that comes in one go is not cut into pieces: it is whole before its first piece is due. So it is the link
//! that decides which frames are passed on as they come: those that take longer to arrive, for their size or because
//! something of them is being repaired.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::window::HELD_FRAMES_MAX;
use crate::hop::piece::Piece;
use crate::repair::Shape;
use crate::units::Timestamp;
use crate::wire::frame::FrameHeader;

/// What came of a frame is passed on when it has waited for so long. A burst of 4 kB takes as long at 10 Mbit/s; and each
/// piece wakes every subscriber's connection, which costs a relay more than the packets in it.
pub(in crate::hop) const PIECE_AGE: Duration = Duration::from_millis(4);

/// See the module.
#[derive(Default, Debug)]
pub(super) struct Growing {
    frames: BTreeMap<u64, Partial>,
}

#[derive(Debug)]
struct Partial {
    shape: Shape,
    /// Known from its first symbol on, which has the header: before that nobody can tell what to do with it.
    header: Option<FrameHeader>,
    /// Symbols that no piece had yet, and since when there are some.
    fresh: Vec<u16>,
    since: Timestamp,
}

impl Partial {
    fn due(&self) -> Option<Timestamp> {
        let is_due = self.header.is_some() && !self.fresh.is_empty();
        is_due.then(|| self.since + PIECE_AGE)
    }
}

impl Growing {
    /// A symbol became known, for the first time.
    pub(super) fn note(&mut self, now: Timestamp, frame: u64, shape: Shape, index: usize, bytes: &Bytes) {
        if shape.symbols() == 1 {
            return;
        }
        let partial = self.frames.entry(frame).or_insert_with(|| Partial {
            shape,
            header: None,
            fresh: Vec::new(),
            since: now,
        });
        if partial.fresh.is_empty() {
            partial.since = now;
        }
        // An index is below `SYMBOLS_MAX`, which is below 2^16.
        partial.fresh.push(index as u16);
        if index == 0 {
            // One that cannot be read is found out when the frame is whole.
            partial.header = FrameHeader::peek(bytes).ok();
        }
        while self.frames.len() > HELD_FRAMES_MAX {
            self.frames.pop_first();
        }
    }

    /// The frame is whole, or will not come.
    pub(super) fn forget(&mut self, frame: u64) {
        self.frames.remove(&frame);
    }

    /// All frames before `frame` are done with.
    pub(super) fn forget_before(&mut self, frame: u64) {
        self.frames = self.frames.split_off(&frame);
    }

    /// When the next piece is due.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.frames.values().filter_map(Partial::due).min()
    }

    /// The oldest frame's piece that is due; `known` has the symbols.
    pub(super) fn take(
        &mut self,
        now: Timestamp,
        known: impl Fn(u64, usize) -> Option<Bytes>,
    ) -> Option<(u64, Piece)> {
        let is_due = |partial: &Partial| partial.due().is_some_and(|due| due <= now);
        loop {
            let (&frame, partial) = self.frames.iter_mut().find(|(_, partial)| is_due(partial))?;
            let fresh = std::mem::take(&mut partial.fresh).into_iter().map(usize::from);
            let symbols: Option<Vec<_>> = fresh.map(|index| Some((index, known(frame, index)?))).collect();
            if let (Some(symbols), Some(header)) = (symbols, &partial.header) {
                return Some((frame, Piece { header: header.clone(), shape: partial.shape, symbols }));
            }
            // The decoder let go of it: it will not be whole.
            self.frames.remove(&frame);
        }
    }
}
