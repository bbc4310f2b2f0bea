//! The frames of one lane and track that may still need repair, by sequence. A sequence can be given to
//! a frame before it is here.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::coded::{Coded, CodedFrame};
use crate::hop::piece::Piece;
use crate::repair::code::{WINDOW_FRAMES_MAX, reach};
use crate::repair::{Fault, RepairId, Shape, SourceBlock, Window, encode_repair};
use crate::units::Timestamp;

/// Frames kept, as many as the receiver's decoder remembers.
const FRAMES_MAX: usize = crate::repair::decoder::FRAMES_MAX;
/// Their bytes: as many as a receiver's decoder remembers.
const BYTES_MAX: usize = crate::repair::decoder::BYTES_MAX;

/// A frame that was handed in.
#[derive(Debug)]
pub(super) struct SentFrame {
    pub(super) block: SourceBlock,
    coded: Arc<Coded>,
    pub(super) offered: Timestamp,
    pub(super) urgent: bool,
    keyframe: bool,
    next_id: RepairId,
    /// The slice whose turn it is to be repaired.
    next_slice: usize,
    /// Symbols that left because a report asked for them.
    pub(super) repaired: usize,
}

impl SentFrame {
    pub(super) fn new(now: Timestamp, coded: &CodedFrame, urgent: bool) -> Result<Self, Fault> {
        let block = SourceBlock::new(coded.object().clone())?;
        Ok(SentFrame {
            block,
            coded: Arc::clone(coded.coded()),
            offered: now,
            urgent,
            keyframe: coded.header().keyframe,
            next_id: RepairId::default(),
            next_slice: 0,
            repaired: 0,
        })
    }
}

/// A frame of which only some symbols are here.
#[derive(Debug)]
struct OpenFrame {
    shape: Shape,
    symbols: Vec<Option<Bytes>>,
    bytes: usize,
    /// When the latest symbols were handed in.
    grown: Timestamp,
}

/// What a sequence stands for.
#[derive(Debug)]
enum Slot {
    Frame(SentFrame),
    /// The frame is on its way here.
    Open(OpenFrame),
    /// It was given to a frame of which nothing is here yet, or that is not kept.
    Empty,
    /// The frame will not come.
    Gone,
}

impl Slot {
    fn frame(&self) -> Option<&SentFrame> {
        match self {
            Slot::Frame(frame) => Some(frame),
            Slot::Open(_) | Slot::Empty | Slot::Gone => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Slot::Frame(frame) => frame.block.object().len(),
            Slot::Open(open) => open.bytes,
            Slot::Empty | Slot::Gone => 0,
        }
    }
}

/// One lane and track.
#[derive(Default, Debug)]
pub(super) struct Lane {
    /// The sequence of the next frame; the last slot kept has the one before.
    next: u64,
    slots: VecDeque<Slot>,
    bytes: usize,
    /// Parity earned and not yet sent, in symbols.
    parity: f64,
}

impl Lane {
    /// The next sequence, for a frame that comes later, or travels in another way.
    pub(super) fn reserve(&mut self) -> u64 {
        self.slots.push_back(Slot::Empty);
        self.next += 1;
        self.forget_old();
        self.next - 1
    }

    /// Keeps the frame of a sequence that was reserved. Gives the symbols that were handed in
    /// before, by index; `None` if the sequence was reserved too long ago.
    pub(super) fn fill(&mut self, sequence: u64, frame: SentFrame) -> Option<Vec<Option<Bytes>>> {
        let place = self.place(sequence)?;
        let before = self.put(place, Slot::Frame(frame));
        self.forget_old();
        self.place(sequence)?;
        match before {
            Slot::Open(open) => Some(open.symbols),
            Slot::Frame(_) | Slot::Empty | Slot::Gone => Some(Vec::new()),
        }
    }

    /// Keeps symbols of a frame that is not whole. Gives the indices of those that are new.
    pub(super) fn grow(&mut self, now: Timestamp, sequence: u64, piece: &Piece) -> Vec<usize> {
        let Some(place) = self.place(sequence) else { return Vec::new() };
        if matches!(self.slots[place], Slot::Empty) {
            let symbols = vec![None; piece.shape.symbols()];
            self.put(place, Slot::Open(OpenFrame { shape: piece.shape, symbols, bytes: 0, grown: now }));
        }
        let Slot::Open(open) = &mut self.slots[place] else { return Vec::new() };
        debug_assert_eq!(open.shape, piece.shape, "one frame has one shape");
        open.grown = now;
        let mut fresh = Vec::with_capacity(piece.symbols.len());
        for (index, bytes) in &piece.symbols {
            if let Some(slot @ None) = open.symbols.get_mut(*index) {
                *slot = Some(bytes.clone());
                open.bytes += bytes.len();
                self.bytes += bytes.len();
                fresh.push(*index);
            }
        }
        self.forget_old();
        fresh
    }

    /// The frame of this sequence will not come.
    pub(super) fn lose(&mut self, sequence: u64) {
        if let Some(place) = self.place(sequence) {
            self.put(place, Slot::Gone);
        }
    }

    fn put(&mut self, place: usize, slot: Slot) -> Slot {
        self.bytes += slot.bytes();
        self.bytes -= self.slots[place].bytes();
        std::mem::replace(&mut self.slots[place], slot)
    }

    fn forget_old(&mut self) {
        while self.slots.len() > FRAMES_MAX || (self.bytes > BYTES_MAX && self.slots.len() > 1) {
            let Some(oldest) = self.slots.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }

    /// Whether the frame with this sequence will not come, or has been let go of.
    pub(super) fn is_gone(&self, sequence: u64) -> bool {
        match self.place(sequence) {
            Some(place) => matches!(self.slots[place], Slot::Gone),
            None => sequence < self.next,
        }
    }

    /// How many symbols are still to come of a frame of which only some are here.
    pub(super) fn lacks(&self, sequence: u64) -> Option<usize> {
        match &self.slots[self.place(sequence)?] {
            Slot::Open(open) => Some(open.symbols.iter().filter(|symbol| symbol.is_none()).count()),
            Slot::Frame(_) | Slot::Empty | Slot::Gone => None,
        }
    }

    /// A symbol as it is, how its frame is cut, and when that was handed in.
    pub(super) fn source(&self, sequence: u64, index: usize) -> Option<(Shape, Bytes, Timestamp)> {
        match &self.slots[self.place(sequence)?] {
            Slot::Frame(frame) => Some((frame.block.shape(), frame.block.symbol(index), frame.offered)),
            Slot::Open(open) => Some((open.shape, open.symbols.get(index)?.clone()?, open.grown)),
            Slot::Empty | Slot::Gone => None,
        }
    }

    /// The frame with this sequence, if it is still kept.
    pub(super) fn get(&self, sequence: u64) -> Option<&SentFrame> {
        self.slots.get(self.place(sequence)?)?.frame()
    }

    fn place(&self, sequence: u64) -> Option<usize> {
        let first = self.next - self.slots.len() as u64;
        sequence.checked_sub(first).map(|place| place as usize).filter(|&place| place < self.slots.len())
    }

    /// Adds to the parity earned and takes the whole symbols out of it.
    pub(super) fn earn_parity(&mut self, symbols: f64) -> usize {
        self.parity += symbols;
        let whole = self.parity.floor();
        self.parity -= whole;
        whole as usize
    }

    /// The slice that repair of this frame begins with, `count` symbols before the next time.
    pub(super) fn turn(&mut self, sequence: u64, count: usize) -> usize {
        let Some(Slot::Frame(frame)) = self.place(sequence).map(|place| &mut self.slots[place]) else {
            return 0;
        };
        let first = frame.next_slice;
        frame.next_slice = (first + count) % frame.block.shape().slices();
        first
    }

    /// A symbol of this frame left because a report asked for it.
    pub(super) fn note_repair(&mut self, sequence: u64) {
        if let Some(Slot::Frame(frame)) = self.place(sequence).map(|place| &mut self.slots[place]) {
            frame.repaired += 1;
        }
    }

    /// How many frames, ending with `newest`, a combination may cover: at most `frames_max`, none
    /// from before the latest keyframe, and none that lie beyond one that is not here.
    pub(super) fn reach(&self, newest: u64, frames_max: usize) -> usize {
        self.place(newest).map_or(0, |place| self.reach_from(place, frames_max))
    }

    fn reach_from(&self, newest: usize, frames_max: usize) -> usize {
        let mut ended = false;
        let shapes = self.slots.range(..=newest).rev().map_while(|slot| {
            let frame = slot.frame().filter(|_| !ended)?;
            // Every sound is a keyframe and none needs another: there the window goes on.
            ended |= frame.keyframe && frame.block.shape().symbols() > 1;
            Some(frame.block.shape())
        });
        reach(shapes, frames_max.min(WINDOW_FRAMES_MAX))
    }

    /// A combination never sent before over up to `frames` frames that end with this one.
    pub(super) fn combine(
        &mut self,
        sequence: u64,
        frames: usize,
        slice: usize,
    ) -> Option<(Window, RepairId, Bytes)> {
        let place = self.place(sequence)?;
        let frames = self.reach_from(place, frames);
        let Slot::Frame(frame) = &mut self.slots[place] else { return None };
        let id = frame.next_id;
        frame.next_id = id.next();
        let kept = || self.slots.range(place + 1 - frames..=place).rev().filter_map(Slot::frame);
        let window = Window::new(sequence, kept().map(|frame| Some(frame.block.shape())), slice).ok()?;
        let newest = self.slots[place].frame()?;
        let older = kept().skip(1).map(|frame| &frame.coded);
        let make = || encode_repair(kept().map(|frame| &frame.block), slice, id);
        let bytes = newest.coded.get_or_make(older, slice, id, make).ok()?;
        Some((window, id, bytes))
    }
}
