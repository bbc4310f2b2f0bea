//! The frames of one lane and track that may still need repair.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::repair::code::{WINDOW_FRAMES_MAX, reach};
use crate::repair::{Fault, RepairId, SourceBlock, Window, encode_repair};
use crate::units::Timestamp;
use crate::wire::frame::Frame;

/// Frames kept, as many as the receiver's decoder remembers.
const FRAMES_MAX: usize = crate::repair::decoder::FRAMES_MAX;
/// Their bytes: as many as a receiver's decoder remembers.
const BYTES_MAX: usize = crate::repair::decoder::BYTES_MAX;

/// A frame that was handed in.
#[derive(Debug)]
pub(super) struct SentFrame {
    pub(super) block: SourceBlock,
    pub(super) offered: Timestamp,
    pub(super) urgent: bool,
    keyframe: bool,
    next_id: RepairId,
    /// The slice whose turn it is to be repaired.
    next_slice: usize,
}

impl SentFrame {
    pub(super) fn new(now: Timestamp, frame: &Frame, urgent: bool) -> Result<Self, Fault> {
        let block = SourceBlock::new(frame.object().clone())?;
        Ok(SentFrame {
            block,
            offered: now,
            urgent,
            keyframe: frame.header().keyframe,
            next_id: RepairId::default(),
            next_slice: 0,
        })
    }
}

/// One lane and track.
#[derive(Default, Debug)]
pub(super) struct Lane {
    /// The sequence of the next frame; the last one kept has the one before.
    next: u64,
    frames: VecDeque<SentFrame>,
    bytes: usize,
    /// Parity earned and not yet sent, in symbols.
    parity: f64,
}

impl Lane {
    /// Keeps a frame and gives it its sequence.
    pub(super) fn push(&mut self, frame: SentFrame) -> u64 {
        self.bytes += frame.block.object().len();
        self.frames.push_back(frame);
        while self.frames.len() > FRAMES_MAX || (self.bytes > BYTES_MAX && self.frames.len() > 1) {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.block.object().len();
        }
        self.next += 1;
        self.next - 1
    }

    /// Gives the next sequence to a frame that travels in another way and is not kept.
    pub(super) fn pass(&mut self) -> u64 {
        self.frames.clear();
        self.bytes = 0;
        self.next += 1;
        self.next - 1
    }

    /// The frame with this sequence, if it is still kept.
    pub(super) fn get(&self, sequence: u64) -> Option<&SentFrame> {
        self.frames.get(self.place(sequence)?)
    }

    fn place(&self, sequence: u64) -> Option<usize> {
        let first = self.next - self.frames.len() as u64;
        sequence.checked_sub(first).map(|place| place as usize).filter(|&place| place < self.frames.len())
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
        let Some(place) = self.place(sequence) else { return 0 };
        let frame = &mut self.frames[place];
        let first = frame.next_slice;
        frame.next_slice = (first + count) % frame.block.shape().slices();
        first
    }

    /// How many frames, ending with the newest, a combination may cover: at most `frames_max`, and
    /// none from before the latest keyframe.
    pub(super) fn reach(&self, frames_max: usize) -> usize {
        self.reach_from(self.frames.len().saturating_sub(1), frames_max)
    }

    fn reach_from(&self, newest: usize, frames_max: usize) -> usize {
        let mut ended = false;
        let shapes = self.frames.range(..=newest).rev().map_while(|frame| {
            let shape = (!ended).then(|| frame.block.shape());
            // Every sound is a keyframe and none needs another: there the window goes on.
            ended |= frame.keyframe && frame.block.shape().symbols() > 1;
            shape
        });
        reach(shapes, frames_max.min(WINDOW_FRAMES_MAX))
    }

    /// A combination never sent before over up to `frames` frames that end with `newest`.
    pub(super) fn combine(
        &mut self,
        newest: u64,
        frames: usize,
        slice: usize,
    ) -> Option<(Window, RepairId, Bytes)> {
        let place = self.place(newest)?;
        let frames = frames.min(self.reach_from(place, frames)).min(place + 1);
        let id = self.frames[place].next_id;
        self.frames[place].next_id = id.next();
        let range = place + 1 - frames..=place;
        let window = self.frames.range(range.clone()).rev().map(|frame| Some(frame.block.shape()));
        let window = Window::new(newest, window, slice).ok()?;
        let blocks = self.frames.range(range).rev().map(|frame| &frame.block);
        let bytes = encode_repair(blocks, slice, id).ok()?;
        Some((window, id, bytes))
    }
}
