//! The code itself: how an object is cut, what a window is, and which combination a repair symbol is.
//! Decoding is the business of [`decoder`](super::decoder); what to send, of the sender's policy.
//!
//! # Specification
//!
//! **Cut.** An object of `L` bytes, 1 to [`OBJECT_MAX`], has `k = ceil(L / 1088)` source symbols of
//! `s = ceil(L / k)` bytes: symbol `i` is bytes `i*s` to `(i+1)*s`. The last one ends where the object ends;
//! it is never empty. For coding it is filled up to `s` with zeros, which are not sent. `L` travels with every
//! symbol, so that any one of them tells `k`, `s` and every length, and what is decoded needs no length
//! within.
//!
//! **Slices.** A frame of more than 64 symbols is coded in `n = ceil(k / 64)` slices: symbol `i` is in slice
//! `i mod n`. Neighbours are in different slices, so that a burst is shared out among all of them.
//!
//! **Window.** A repair symbol combines either all symbols of 1 to 16 frames, 64 symbols at most, none of them
//! of a frame in slices; or the symbols of one slice. Its *places* are numbered from 0: the newest frame's
//! symbols first, in the order of their index, then those of the next older frame, and so on; or the symbols
//! of the slice in the order of their index.
//!
//! **Repair symbol.** Numbered by a repair id `r`, 0 to 191. In GF(2^8) with polynomial 0x11d the symbol at
//! place `j` has the coefficient
//!
//! ```text
//! c(r, j) = 2^(j*j) / ((64 + r) xor j)
//! ```
//!
//! and the repair symbol is the sum of all symbols times their coefficients. It is as long as the longest
//! symbol in the window; shorter ones are continued with zeros.
//!
//! **Why these coefficients.** `1 / (x xor y)` is a Cauchy matrix: over one window, any repair symbols with
//! different ids repair as many losses as they are, without exception. The factor `2^(j*j)` takes nothing of
//! that away, and makes rows over windows that are shifted against each other look unrelated. Frame numbers do
//! not enter: the bytes are the same on every connection, however it counts, and are made once for all. Figures
//! in `docs/decisions/0010-erasure-code.md`.

use std::ops::Range;

use bytes::Bytes;

use super::field;
use crate::error::{Code, Coded};
use crate::wire::frame::OBJECT_MAX;

/// The most bytes of a symbol: a media datagram of 1,150 bytes less the longest header in front of a repair
/// symbol, which has to name up to 16 frames and their lengths.
pub const SYMBOL_BYTES_MAX: usize = 1088;
/// The most symbols of one object.
pub const SYMBOLS_MAX: usize = OBJECT_MAX.div_ceil(SYMBOL_BYTES_MAX);
/// The most symbols in one window: bounds the work for one repair symbol to 70 kB of multiply-add.
pub const WINDOW_SYMBOLS_MAX: usize = 64;
/// The most frames in one window: what sound, one symbol a frame, needs to outlast a burst of eight.
pub const WINDOW_FRAMES_MAX: usize = 16;

// With fewer symbols than bytes in each, the last symbol of an object cannot be empty.
const _: () = assert!(SYMBOLS_MAX <= SYMBOL_BYTES_MAX);

/// What is wrong with a symbol or a window. From a peer it is a broken promise: close the connection with
/// [`Coded::code`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An object of no bytes, or of more than [`OBJECT_MAX`].
    #[error("an object of {length} bytes cannot be cut; 1 to {OBJECT_MAX} are allowed")]
    Length {
        /// Its length, in bytes.
        length: usize,
    },
    /// A symbol that its frame does not have.
    #[error("symbol {index} of frame {frame}, which has {symbols}")]
    Index {
        /// The frame.
        frame: u64,
        /// The symbol.
        index: usize,
        /// How many there are.
        symbols: usize,
    },
    /// A symbol that is not as long as it must be.
    #[error("a symbol of {bytes} bytes where {expected} belong")]
    SymbolBytes {
        /// Its length, in bytes.
        bytes: usize,
        /// The length that follows from the lengths of the objects, in bytes.
        expected: usize,
    },
    /// A repair id beyond [`RepairId::COUNT`].
    #[error("repair id {id}; they end at {}", RepairId::COUNT - 1)]
    RepairId {
        /// The id.
        id: u8,
    },
    /// A window that cannot be.
    #[error("not a window: {why}")]
    Window {
        /// Why not.
        why: &'static str,
    },
    /// What was said of a frame does not fit what was said before.
    #[error("contradiction about frame {frame}: {why}")]
    Contradiction {
        /// The frame.
        frame: u64,
        /// How.
        why: &'static str,
    },
}

impl Coded for Fault {
    fn code(&self) -> Code {
        match self {
            Fault::Length { .. } => Code::TooLarge,
            _ => Code::ProtocolViolation,
        }
    }
}

/// How an object is cut: everything that follows from its length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    length: u32,
    symbols: u16,
    symbol_bytes: u16,
}

impl Shape {
    /// The shape of an object of `length` bytes.
    ///
    /// # Errors
    /// [`Fault::Length`] when it is 0 or above [`OBJECT_MAX`].
    pub fn new(length: usize) -> Result<Self, Fault> {
        if length == 0 || length > OBJECT_MAX {
            return Err(Fault::Length { length });
        }
        let symbols = length.div_ceil(SYMBOL_BYTES_MAX);
        let symbol_bytes = length.div_ceil(symbols);
        Ok(Shape { length: length as u32, symbols: symbols as u16, symbol_bytes: symbol_bytes as u16 })
    }

    /// The object's length, in bytes.
    pub fn length(self) -> usize {
        self.length as usize
    }

    /// How many symbols it has, 1 to [`SYMBOLS_MAX`].
    pub fn symbols(self) -> usize {
        self.symbols.into()
    }

    /// The length of its symbols as they are coded, in bytes.
    pub fn symbol_bytes(self) -> usize {
        self.symbol_bytes.into()
    }

    /// Where symbol `index` lies within the object; empty beyond the last.
    pub fn range(self, index: usize) -> Range<usize> {
        let at = |index: usize| index.saturating_mul(self.symbol_bytes()).min(self.length());
        at(index)..at(index.saturating_add(1))
    }

    /// In how many slices it is coded; 1 unless it has more than [`WINDOW_SYMBOLS_MAX`] symbols.
    pub fn slices(self) -> usize {
        self.symbols().div_ceil(WINDOW_SYMBOLS_MAX)
    }

    /// The symbols in `slice`, in the order of their places.
    pub fn slice(self, slice: usize) -> impl ExactSizeIterator<Item = usize> + Clone {
        (slice..self.symbols()).step_by(self.slices())
    }
}

/// A whole object, ready to be sent in symbols. Cloning copies no bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceBlock {
    object: Bytes,
    shape: Shape,
}

impl SourceBlock {
    /// Cuts `object`.
    ///
    /// # Errors
    /// [`Fault::Length`] when it is empty or larger than [`OBJECT_MAX`].
    pub fn new(object: Bytes) -> Result<Self, Fault> {
        Ok(SourceBlock { shape: Shape::new(object.len())?, object })
    }

    /// How it is cut.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The whole.
    pub fn object(&self) -> &Bytes {
        &self.object
    }

    /// Symbol `index` as it is sent; empty beyond the last.
    pub fn symbol(&self, index: usize) -> Bytes {
        self.object.slice(self.shape.range(index))
    }

    /// The same, borrowed.
    pub(super) fn symbol_slice(&self, index: usize) -> &[u8] {
        &self.object[self.shape.range(index)]
    }
}

/// Numbers the repair symbols of one sender, round and round.
///
/// Two repair symbols over one window need different ids to be worth more than one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Hash)]
pub struct RepairId(u8);

impl RepairId {
    /// How many there are: the elements of the field that places (0 to 63) leave over.
    pub const COUNT: u8 = 192;

    /// The id on the wire.
    ///
    /// # Errors
    /// [`Fault::RepairId`] from [`RepairId::COUNT`] on.
    pub fn new(id: u8) -> Result<Self, Fault> {
        if id < Self::COUNT { Ok(RepairId(id)) } else { Err(Fault::RepairId { id }) }
    }

    /// The number on the wire.
    pub fn get(self) -> u8 {
        self.0
    }

    /// The id after this one; 0 after the last.
    pub fn next(self) -> Self {
        RepairId((self.0 + 1) % Self::COUNT)
    }
}

/// The coefficient of the symbol at `place`, below [`WINDOW_SYMBOLS_MAX`]; never 0.
pub fn coefficient(id: RepairId, place: usize) -> u8 {
    debug_assert!(place < WINDOW_SYMBOLS_MAX);
    let difference = (WINDOW_SYMBOLS_MAX as u8 + id.0) ^ place as u8;
    field::product(field::power_of_two(place * place), field::inverse(difference))
}

/// Which symbols a repair symbol combines, in the frame numbers of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    newest: u64,
    /// Of `newest`, then of each frame before it; `None` for a frame left out.
    shapes: [Option<Shape>; WINDOW_FRAMES_MAX],
    slice: u8,
}

impl Window {
    /// The window of frame `newest` and frames before it: `shapes` gives the shape of `newest`, then that of
    /// each older one, or `None` where one is left out. `slice` is 0 unless `newest` is coded in slices.
    ///
    /// # Errors
    /// [`Fault::Window`] when `newest` is left out, there are more than [`WINDOW_FRAMES_MAX`] frames or more
    /// than [`WINDOW_SYMBOLS_MAX`] symbols, a frame lies before frame 0, a frame in slices is not alone, or there
    /// is no such slice.
    pub fn new(
        newest: u64,
        shapes: impl IntoIterator<Item = Option<Shape>>,
        slice: usize,
    ) -> Result<Self, Fault> {
        let mut window = Window { newest, shapes: [None; WINDOW_FRAMES_MAX], slice: 0 };
        for (age, shape) in shapes.into_iter().enumerate() {
            let Some(slot) = window.shapes.get_mut(age) else {
                return Err(Fault::Window { why: "more than 16 frames" });
            };
            if shape.is_some() && age as u64 > newest {
                return Err(Fault::Window { why: "a frame before frame 0" });
            }
            *slot = shape;
        }
        if window.shapes[0].is_none() {
            return Err(Fault::Window { why: "the newest frame is not in it" });
        }
        check(window.shapes.into_iter().flatten(), slice)?;
        // `check` found the slice among at most 16.
        window.slice = slice as u8;
        Ok(window)
    }

    /// The newest frame.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The slice of the newest frame that is combined; 0 for a frame that is not coded in slices.
    pub fn slice(&self) -> usize {
        self.slice.into()
    }

    /// The frames and their shapes, newest first.
    pub fn frames(&self) -> impl Iterator<Item = (u64, Shape)> + '_ {
        self.shapes
            .iter()
            .enumerate()
            .filter_map(|(age, shape)| shape.map(|shape| (self.newest - age as u64, shape)))
    }

    /// The symbols, as frame and index, in the order of their places.
    pub fn symbols(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.frames().flat_map(|(frame, shape)| shape.slice(self.slice()).map(move |index| (frame, index)))
    }

    /// The length of a repair symbol over it, in bytes.
    pub fn symbol_bytes(&self) -> usize {
        self.frames().map(|(_, shape)| shape.symbol_bytes()).max().unwrap_or(0)
    }
}

/// How many frames a window may have that begins at the newest of `shapes` and goes back: at most `frames_max`,
/// at most what one window holds, at least 1.
///
/// Let `shapes` end with the latest keyframe: what lies before it is no longer needed by anybody.
pub fn reach(shapes: impl IntoIterator<Item = Shape>, frames_max: usize) -> usize {
    let fitting = shapes
        .into_iter()
        .take(frames_max.min(WINDOW_FRAMES_MAX))
        .scan(0, |symbols, shape| {
            *symbols += shape.symbols();
            (*symbols <= WINDOW_SYMBOLS_MAX).then_some(())
        })
        .count();
    fitting.max(1)
}

/// Makes a repair symbol over the frames of `window`, newest first, or over one slice of its only frame.
///
/// It depends on nothing else: one made for one subscriber serves all that know the same frames.
///
/// # Errors
/// [`Fault::Window`] when there are no frames, more than [`WINDOW_FRAMES_MAX`] or more than
/// [`WINDOW_SYMBOLS_MAX`] symbols, or no such slice.
pub fn encode_repair<'a, I>(window: I, slice: usize, id: RepairId) -> Result<Bytes, Fault>
where
    I: IntoIterator<Item = &'a SourceBlock>,
    I::IntoIter: Clone,
{
    let window = window.into_iter();
    let symbol_bytes = check(window.clone().map(SourceBlock::shape), slice)?;
    let symbols =
        window.flat_map(|block| block.shape.slice(slice).map(move |index| block.symbol_slice(index)));
    let mut repair = vec![0; symbol_bytes];
    for (place, symbol) in symbols.enumerate() {
        field::mul_add(&mut repair[..symbol.len()], symbol, coefficient(id, place));
    }
    Ok(repair.into())
}

/// Checks that these shapes make a window; gives the length of its repair symbols, in bytes.
fn check(shapes: impl Iterator<Item = Shape>, slice: usize) -> Result<usize, Fault> {
    let (mut frames, mut symbols, mut symbol_bytes, mut slices) = (0, 0, 0, 1);
    for shape in shapes {
        frames += 1;
        slices = slices.max(shape.slices());
        symbols += shape.symbols();
        symbol_bytes = symbol_bytes.max(shape.symbol_bytes());
    }
    let why = match frames {
        0 => "no frames",
        1 if slice >= slices => "no such slice",
        1 => return Ok(symbol_bytes),
        _ if frames > WINDOW_FRAMES_MAX => "more than 16 frames",
        _ if symbols > WINDOW_SYMBOLS_MAX => "more than 64 symbols",
        _ if slice > 0 => "a slice of more than one frame",
        _ => return Ok(symbol_bytes),
    };
    Err(Fault::Window { why })
}
