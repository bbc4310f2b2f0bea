//! Putting frames together from source symbols and repair symbols in any order.
//!
//! One [`Decoder`] serves one track on one hop. It gives out every symbol once, as soon as it is known, whether
//! it came or was recovered, and every frame once it is whole. It knows no time: what is not worth waiting for
//! any longer is said by [`Decoder::forget_before`]. It does not put frames in order.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::code::{Fault, RepairId, Shape, SourceBlock, Window, coefficient};
use super::field;
use super::system::{Inconsistent, System, Unknown};
use crate::wire::frame::OBJECT_MAX;

/// The most frames that are remembered, whole or not: one second at 60 frames/s. The oldest go first.
pub const FRAMES_MAX: usize = 64;
/// The most bytes that are remembered, tables included: the largest keyframe whole, another one on its way,
/// and as much again for the frames between. The oldest frames go first.
pub const BYTES_MAX: usize = 3 * OBJECT_MAX;

/// What becomes known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// A symbol, the first time that it is known: what a relay passes on.
    Symbol {
        /// Its frame.
        frame: u64,
        /// How the frame is cut.
        shape: Shape,
        /// Its index.
        index: usize,
        /// Its bytes, as they were sent.
        bytes: Bytes,
        /// It did not come but was computed.
        is_recovered: bool,
    },
    /// A whole frame, once, after all its symbols.
    Frame {
        /// The frame.
        frame: u64,
        /// Its bytes, ready to be coded anew.
        block: SourceBlock,
    },
}

impl Output {
    /// The frame that it is about.
    pub fn frame(&self) -> u64 {
        match *self {
            Output::Symbol { frame, .. } | Output::Frame { frame, .. } => frame,
        }
    }
}

/// What is wanted to complete a frame, or one slice of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deficit {
    /// The frame.
    pub frame: u64,
    /// The slice; 0 for a frame that is not coded in slices.
    pub slice: usize,
    /// How many more symbols, at least 1: any that are missing, or repair symbols that combine them.
    pub symbols: usize,
}

/// What a decoder was given so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DecoderStats {
    /// Symbols that came.
    pub received: u64,
    /// Symbols that were computed.
    pub recovered: u64,
    /// Source symbols that were known already.
    pub duplicate: u64,
    /// Repair symbols that said nothing new.
    pub redundant: u64,
    /// Symbols for frames that are forgotten.
    pub stale: u64,
    /// Repair symbols dropped because too many symbols were missing.
    pub refused: u64,
    /// Frames forgotten because there were too many, or too many bytes.
    pub evicted: u64,
}

/// Recovers the frames of one track.
///
/// It holds at most [`FRAMES_MAX`] frames and [`BYTES_MAX`] bytes of them, at most 128 equations of a symbol
/// each, and the outputs that were not taken. Symbols are kept as they are handed in: if they are slices of
/// larger buffers, these live as long.
///
/// After a [`Fault`] it is still safe to use, but what the peer says is worth nothing.
#[derive(Default, Debug)]
pub struct Decoder {
    /// Frames before it are forgotten.
    floor: u64,
    frames: BTreeMap<u64, Frame>,
    /// What `frames` holds, as [`Frame::bytes`] counts it.
    bytes: usize,
    system: System,
    outputs: VecDeque<Output>,
    stats: DecoderStats,
}

#[derive(Debug)]
struct Frame {
    shape: Shape,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Partial { symbols: Vec<Option<Bytes>>, missing: usize, bytes: usize },
    Whole(SourceBlock),
}

impl Decoder {
    /// Takes source symbol `index` of `frame`, which is cut as `shape` says.
    ///
    /// # Errors
    /// [`Fault`] when the frame has no such symbol, its length is wrong, or it contradicts what came before.
    pub fn handle_source(
        &mut self,
        frame: u64,
        shape: Shape,
        index: usize,
        bytes: Bytes,
    ) -> Result<(), Fault> {
        if index >= shape.symbols() {
            return Err(Fault::Index { frame, index, symbols: shape.symbols() });
        }
        let expected = shape.range(index).len();
        if bytes.len() != expected {
            return Err(Fault::SymbolBytes { bytes: bytes.len(), expected });
        }
        if frame < self.floor {
            self.stats.stale += 1;
            return Ok(());
        }
        self.check_shape(frame, shape)?;
        if let Some(known) = self.symbol(frame, index) {
            if known != bytes {
                return Err(Fault::Contradiction { frame, why: "a symbol came with different bytes" });
            }
            self.stats.duplicate += 1;
            return Ok(());
        }
        self.stats.received += 1;
        self.expect_frame(frame, shape);
        self.accept(frame, index, bytes.clone(), false);
        let consistent = self.system.learn(unknown(frame, index), &bytes);
        self.settle(frame, consistent)
    }

    /// Takes a repair symbol.
    ///
    /// # Errors
    /// [`Fault`] when its length is wrong or it contradicts what came before.
    pub fn handle_repair(&mut self, window: &Window, id: RepairId, bytes: &[u8]) -> Result<(), Fault> {
        let expected = window.symbol_bytes();
        if bytes.len() != expected {
            return Err(Fault::SymbolBytes { bytes: bytes.len(), expected });
        }
        for (frame, shape) in window.frames() {
            if frame < self.floor {
                self.stats.stale += 1;
                return Ok(());
            }
            self.check_shape(frame, shape)?;
        }
        let missing = || window.symbols().filter(|&(frame, index)| self.symbol(frame, index).is_none());
        if missing().next().is_none() {
            self.stats.redundant += 1;
            return Ok(());
        }
        if !self.system.has_room(missing().map(|(frame, index)| unknown(frame, index))) {
            self.stats.refused += 1;
            return Ok(());
        }

        let mut data = bytes.to_vec();
        for (place, (frame, index)) in window.symbols().enumerate() {
            if let Some(symbol) = self.symbol(frame, index) {
                field::mul_add(&mut data[..symbol.len()], symbol, coefficient(id, place));
            }
        }
        window.frames().for_each(|(frame, shape)| self.expect_frame(frame, shape));
        let frames = &self.frames;
        let unknowns = window
            .symbols()
            .enumerate()
            .filter(|&(_, (frame, index))| {
                frames.get(&frame).is_none_or(|frame| frame.symbol(index).is_none())
            })
            .map(|(place, (frame, index))| (unknown(frame, index), coefficient(id, place)));
        let consistent = self.system.add(unknowns, data).map(|is_news| {
            self.stats.redundant += u64::from(!is_news);
        });
        self.settle(window.newest(), consistent)
    }

    /// What became known, in the order in which it did. Take it after every symbol handed in.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How many more symbols `frame` needs: those missing, less the equations known about them. 0 when none
    /// is needed, be it that the frame is whole or that it waits for what a newer one needs. `None` when
    /// nothing is known of the frame.
    ///
    /// An equation about several frames counts for the oldest, so that no loss is counted twice.
    pub fn deficit(&self, frame: u64) -> Option<usize> {
        let known = self.frames.get(&frame)?;
        let equations = self.system.pivots().filter(|&(of, _)| of == frame).count();
        Some(known.missing().saturating_sub(equations))
    }

    /// What is wanted for every frame heard of, the oldest first.
    pub fn deficits(&self) -> impl Iterator<Item = Deficit> + '_ {
        self.frames
            .iter()
            .filter(|(_, state)| state.missing() > 0)
            .flat_map(|(&frame, state)| (0..state.shape.slices()).map(move |slice| (frame, state, slice)))
            .filter_map(|(frame, state, slice)| {
                let missing = state.shape.slice(slice).filter(|&index| state.symbol(index).is_none()).count();
                let slices = state.shape.slices();
                let is_about = |&(of, index): &Unknown| of == frame && usize::from(index) % slices == slice;
                let symbols = missing.saturating_sub(self.system.pivots().filter(is_about).count());
                (symbols > 0).then_some(Deficit { frame, slice, symbols })
            })
    }

    /// The frame, if it is whole and not forgotten.
    pub fn block(&self, frame: u64) -> Option<&SourceBlock> {
        match &self.frames.get(&frame)?.content {
            Content::Whole(block) => Some(block),
            Content::Partial { .. } => None,
        }
    }

    /// Symbol `index` of `frame`, if it is known and the frame not forgotten. Copies no bytes.
    pub fn known(&self, frame: u64, index: usize) -> Option<Bytes> {
        match &self.frames.get(&frame)?.content {
            Content::Partial { symbols, .. } => symbols.get(index)?.clone(),
            Content::Whole(block) => Some(block.symbol(index)).filter(|symbol| !symbol.is_empty()),
        }
    }

    /// Gives up all frames before `frame`, with outputs about them. What was learned of later ones stays.
    ///
    /// A repair symbol over a window that begins before `frame` is of no use from now on: let whole frames live
    /// for as long as windows may reach back.
    pub fn forget_before(&mut self, frame: u64) {
        if frame <= self.floor {
            return;
        }
        self.floor = frame;
        let kept = self.frames.split_off(&frame);
        let forgotten = std::mem::replace(&mut self.frames, kept);
        self.bytes -= forgotten.values().map(Frame::bytes).sum::<usize>();
        self.system.forget_before(frame);
        self.outputs.retain(|output| output.frame() >= frame);
    }

    /// What it was given so far.
    pub fn stats(&self) -> DecoderStats {
        self.stats
    }

    /// Checks what must hold between any two calls.
    #[cfg(test)]
    pub(super) fn assert_sound(&self) {
        assert!(self.frames.len() <= FRAMES_MAX && self.bytes <= BYTES_MAX);
        assert_eq!(self.bytes, self.frames.values().map(Frame::bytes).sum::<usize>());
        assert!(self.frames.keys().all(|&frame| frame >= self.floor));
        self.system.assert_sound(|(frame, index)| self.frames[&frame].symbol(index.into()).is_none());
    }

    fn symbol(&self, frame: u64, index: usize) -> Option<&[u8]> {
        self.frames.get(&frame)?.symbol(index)
    }

    fn check_shape(&self, frame: u64, shape: Shape) -> Result<(), Fault> {
        match self.frames.get(&frame) {
            Some(known) if known.shape != shape => {
                Err(Fault::Contradiction { frame, why: "its length changed" })
            }
            _ => Ok(()),
        }
    }

    fn expect_frame(&mut self, frame: u64, shape: Shape) {
        self.frames.entry(frame).or_insert_with(|| {
            let symbols = vec![None; shape.symbols()];
            let content = Content::Partial { symbols, missing: shape.symbols(), bytes: 0 };
            let frame = Frame { shape, content };
            self.bytes += frame.bytes();
            frame
        });
    }

    /// Notes a symbol that was missing.
    fn accept(&mut self, frame: u64, index: usize, bytes: Bytes, is_recovered: bool) {
        let Some(state) = self.frames.get_mut(&frame) else { return };
        let Content::Partial { symbols, missing, bytes: held } = &mut state.content else { return };
        *missing -= 1;
        *held += bytes.len();
        self.bytes += bytes.len();
        symbols[index] = Some(bytes.clone());
        self.outputs.push_back(Output::Symbol { frame, shape: state.shape, index, bytes, is_recovered });
        if *missing > 0 {
            return;
        }
        let mut object = BytesMut::with_capacity(state.shape.length());
        symbols.iter().flatten().for_each(|symbol| object.extend_from_slice(symbol));
        let block = SourceBlock::new(object.freeze()).expect("it has the length of a shape");
        self.bytes -= state.bytes();
        state.content = Content::Whole(block.clone());
        self.bytes += state.bytes();
        self.outputs.push_back(Output::Frame { frame, block });
    }

    /// Takes over what was solved by a symbol about `frame`, and comes back within the bounds.
    fn settle(&mut self, frame: u64, consistent: Result<(), Inconsistent>) -> Result<(), Fault> {
        let mut result = consistent
            .map_err(|Inconsistent| Fault::Contradiction { frame, why: "equations have no solution" });
        while let Some(((frame, index), mut bytes)) = self.system.take_solved() {
            let Some(state) = self.frames.get(&frame) else { continue };
            let index = usize::from(index);
            let length = state.shape.range(index).len();
            // An equation is at least as long as each of its symbols; what goes beyond was zeros.
            if bytes.drain(length..).any(|byte| byte != 0) {
                result = Err(Fault::Contradiction { frame, why: "a recovered symbol is too long" });
                continue;
            }
            self.stats.recovered += 1;
            self.accept(frame, index, bytes.into(), true);
        }
        while self.frames.len() > FRAMES_MAX || self.bytes > BYTES_MAX {
            let Some((&oldest, _)) = self.frames.first_key_value() else { break };
            self.stats.evicted += 1;
            self.forget_before(oldest.saturating_add(1));
        }
        result
    }
}

impl Frame {
    fn symbol(&self, index: usize) -> Option<&[u8]> {
        match &self.content {
            Content::Partial { symbols, .. } => symbols.get(index)?.as_deref(),
            Content::Whole(block) => Some(block.symbol_slice(index)),
        }
    }

    fn missing(&self) -> usize {
        match self.content {
            Content::Partial { missing, .. } => missing,
            Content::Whole(_) => 0,
        }
    }

    /// Bytes held, table included.
    fn bytes(&self) -> usize {
        match &self.content {
            Content::Partial { symbols, bytes, .. } => symbols.len() * size_of::<Option<Bytes>>() + bytes,
            Content::Whole(block) => block.object().len(),
        }
    }
}

fn unknown(frame: u64, index: usize) -> Unknown {
    // An index is below `SYMBOLS_MAX`, which is below 2^16.
    (frame, index as u16)
}
