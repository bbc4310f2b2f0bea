//! The newest frames of one track and spatial layer, as shared bytes.
//!
//! It holds only frames that decode, given the frames before them: from a loss up to the next
//! keyframe nothing is taken. A frame may come after later ones: its place is kept open for it until
//! it comes or is given up. Frames leave by age, by size, and soon after a newer group began.

use std::collections::VecDeque;
use std::time::Duration;

use parlor_transport::hop::{CodedFrame, Piece};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::frame::{Frame, FrameHeader};

use crate::limits::{Limits, OLD_GROUP_AGE_MAX};

/// See the module's text.
#[derive(Debug)]
pub struct Cache {
    /// Indices count the frames taken and the places kept, without gaps; the front has `first`.
    slots: VecDeque<Slot>,
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

/// A place in the cache.
#[derive(Clone, Debug)]
pub enum Slot {
    /// A frame.
    Frame(Entry),
    /// Kept since then for a frame that may still come. A frame follows it.
    Open(Timestamp),
    /// A frame of which some is here.
    Growing(Growing),
    /// Its frame was given up: what follows does not decode, up to the next keyframe.
    Lost,
}

impl Slot {
    /// The frame that is here.
    pub fn frame(&self) -> Option<&Entry> {
        match self {
            Slot::Frame(entry) => Some(entry),
            Slot::Growing(_) | Slot::Open(_) | Slot::Lost => None,
        }
    }

    /// What the frame that is here says of itself, be it whole or not.
    fn header(&self) -> Option<&FrameHeader> {
        match self {
            Slot::Frame(entry) => Some(entry.frame.header()),
            Slot::Growing(growing) => Some(&growing.piece.header),
            Slot::Open(_) | Slot::Lost => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Slot::Frame(entry) => entry.frame.object().len(),
            Slot::Growing(growing) => growing.bytes,
            Slot::Open(_) | Slot::Lost => 0,
        }
    }
}

/// A frame in the cache that is not whole.
#[derive(Clone, Debug)]
pub struct Growing {
    /// All of it that came so far.
    piece: Piece,
    bytes: usize,
    /// When the first of it came.
    pub since: Timestamp,
    /// Decodes without any earlier frame.
    pub decodes_alone: bool,
}

impl Growing {
    fn new(since: Timestamp, piece: Piece, decodes_alone: bool) -> Self {
        let bytes = bytes_of(&piece);
        Growing { piece, bytes, since, decodes_alone }
    }

    /// What the frame says of itself.
    pub fn header(&self) -> &FrameHeader {
        &self.piece.header
    }

    /// How long its object will be, in bytes.
    pub fn length(&self) -> usize {
        self.piece.shape.length()
    }

    /// How many of its symbols are here.
    pub fn symbols(&self) -> usize {
        self.piece.symbols.len()
    }

    /// What came after the first `from` symbols.
    pub fn piece(&self, from: usize) -> Piece {
        let Piece { header, shape, symbols } = &self.piece;
        let symbols = symbols.get(from..).unwrap_or_default().to_vec();
        Piece { header: header.clone(), shape: *shape, symbols }
    }

    fn grow(&mut self, piece: Piece) {
        self.bytes += bytes_of(&piece);
        self.piece.symbols.extend(piece.symbols);
    }

    /// Whether `frame` is what its symbols promised: players have them already.
    fn becomes(&self, frame: &Frame) -> bool {
        let Piece { shape, symbols, .. } = &self.piece;
        let object = frame.object();
        object.len() == shape.length()
            && symbols.iter().all(|(index, bytes)| object[shape.range(*index)] == bytes[..])
    }
}

fn bytes_of(piece: &Piece) -> usize {
    piece.symbols.iter().map(|(_, bytes)| bytes.len()).sum()
}

/// A frame in the cache.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The frame; its bytes are shared, and what is coded of it.
    pub frame: CodedFrame,
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
    /// It is not what was passed on of it before it was whole.
    Contradictory,
}

impl Cache {
    /// An empty cache with the bounds of `limits`. Its first frame must be a keyframe.
    pub fn new(limits: &Limits) -> Self {
        Cache {
            slots: VecDeque::new(),
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

    /// Takes a frame that is newer than all others. `lost` says that frames of this track may have been
    /// lost since the last one.
    pub fn push(&mut self, now: Timestamp, frame: Frame, decodes_alone: bool, lost: bool) -> Taken {
        let taken = self.admit(now, frame.header().number, decodes_alone, lost);
        if taken == Taken::Kept {
            if decodes_alone {
                self.note_keyframe(now, self.end());
            }
            self.bytes += frame.object().len();
            self.slots.push_back(Slot::Frame(Entry { frame: frame.into(), arrived: now, decodes_alone }));
        }
        self.evict(now);
        taken
    }

    /// As [`push`](Self::push), of a frame that is not whole. Its index is the one before [`end`](Self::end) then.
    pub fn begin(&mut self, now: Timestamp, piece: Piece, decodes_alone: bool, lost: bool) -> Taken {
        let taken = self.admit(now, piece.header.number, decodes_alone, lost);
        if taken == Taken::Kept {
            let growing = Growing::new(now, piece, decodes_alone);
            self.bytes += growing.bytes;
            self.slots.push_back(Slot::Growing(growing));
        }
        self.evict(now);
        taken
    }

    /// Whether a frame that is newer than all others is to be kept.
    fn admit(&mut self, now: Timestamp, number: u64, decodes_alone: bool, lost: bool) -> Taken {
        if self.number_newest.is_some_and(|newest| number <= newest) {
            return Taken::OutOfOrder;
        }
        // A gap in the numbers alone is a frame that the publisher chose not to send.
        let gap = number != self.number_newest.map_or(0, |newest| newest + 1);
        self.number_newest = Some(number);
        self.heard = Some(now);
        self.broken = !decodes_alone && (self.broken || (lost && gap));
        // What is missing may be the keyframe.
        if self.broken && !self.is_open() { Taken::Undecodable } else { Taken::Kept }
    }

    /// Whether a place is kept for a frame that everything since may build on.
    fn is_open(&self) -> bool {
        let since = self.keyframe_newest().unwrap_or(self.first).max(self.first);
        self.slots
            .range((since - self.first) as usize..)
            .any(|slot| matches!(slot, Slot::Open(_) | Slot::Growing(_)))
    }

    /// Keeps the next place for a frame that comes after its successors. Gives its index.
    pub fn open(&mut self, now: Timestamp) -> u64 {
        self.slots.push_back(Slot::Open(now));
        self.end() - 1
    }

    /// Takes more of the frame that the place at `index` was kept for.
    pub fn grow(&mut self, now: Timestamp, index: u64, piece: Piece, decodes_alone: bool) -> Taken {
        if let Some(Slot::Open(_)) = self.get(index)
            && !self.is_in_order(index, piece.header.number)
        {
            return Taken::OutOfOrder;
        }
        let at = index.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(slot) = at.and_then(|at| self.slots.get_mut(at)) else { return Taken::Undecodable };
        let before = slot.bytes();
        match slot {
            Slot::Growing(growing) => growing.grow(piece),
            Slot::Open(since) => *slot = Slot::Growing(Growing::new(*since, piece, decodes_alone)),
            Slot::Frame(_) | Slot::Lost => return Taken::Undecodable,
        }
        self.bytes += slot.bytes() - before;
        self.heard = Some(now);
        self.evict(now);
        Taken::Kept
    }

    /// Takes the frame that the place at `index` was kept for.
    pub fn fill(&mut self, now: Timestamp, index: u64, frame: Frame, decodes_alone: bool) -> Taken {
        match self.get(index) {
            Some(Slot::Open(_)) if !self.is_in_order(index, frame.header().number) => {
                return Taken::OutOfOrder;
            }
            Some(Slot::Growing(growing)) if !growing.becomes(&frame) => return Taken::Contradictory,
            Some(slot @ (Slot::Open(_) | Slot::Growing(_))) => self.bytes -= slot.bytes(),
            // It came when its place was gone already; whoever needed it has been helped.
            Some(Slot::Frame(_) | Slot::Lost) | None => return Taken::Undecodable,
        }
        self.heard = Some(now);
        self.bytes += frame.object().len();
        if decodes_alone && (index..self.end()).all(|at| !matches!(self.get(at), Some(Slot::Lost))) {
            self.broken = false;
        }
        if decodes_alone && self.keyframe_newest.is_none_or(|newest| newest < index) {
            self.note_keyframe(now, index);
        }
        self.slots[(index - self.first) as usize] =
            Slot::Frame(Entry { frame: frame.into(), arrived: now, decodes_alone });
        Taken::Kept
    }

    /// Whether a frame with this number may stand at `index`.
    fn is_in_order(&self, index: u64, number: u64) -> bool {
        let number_at = |at: u64| self.get(at)?.header().map(|header| header.number);
        let before = (self.first..index).rev().find_map(number_at);
        let after = (index + 1..self.end()).find_map(number_at);
        before.is_none_or(|before| before < number) && after.is_none_or(|after| after > number)
    }

    /// The frame that the place at `index` was kept for will not come. True if later frames lack it.
    pub fn lose(&mut self, index: u64) -> bool {
        let Some(slot @ (Slot::Open(_) | Slot::Growing(_))) = self.get(index) else { return false };
        self.bytes -= slot.bytes();
        self.slots[(index - self.first) as usize] = Slot::Lost;
        self.break_off(index)
    }

    /// Nothing decodes from `index` on, up to the next keyframe. True if none is here.
    fn break_off(&mut self, index: u64) -> bool {
        let mended = self.keyframe_newest.is_some_and(|keyframe| keyframe > index);
        self.broken |= !mended;
        !mended
    }

    fn note_keyframe(&mut self, now: Timestamp, index: u64) {
        self.keyframe_newest = Some(index);
        self.keyframe_arrived = Some(now);
    }

    /// Lets go of frames that are too old by `now`.
    pub fn evict(&mut self, now: Timestamp) {
        while let Some(oldest) = self.slots.front() {
            let age = match oldest {
                Slot::Frame(Entry { arrived: since, .. })
                | Slot::Growing(Growing { since, .. })
                | Slot::Open(since) => now.saturating_since(*since),
                Slot::Lost => Duration::MAX,
            };
            let old_group = self.keyframe_newest.is_some_and(|keyframe| self.first < keyframe);
            if self.bytes <= self.bytes_max && age <= self.age_max && !(old_group && age > OLD_GROUP_AGE_MAX)
            {
                return;
            }
            self.bytes -= oldest.bytes();
            self.slots.pop_front();
            self.first += 1;
        }
    }

    /// What is at `index`, if that is still here.
    pub fn get(&self, index: u64) -> Option<&Slot> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get(at)
    }

    /// The index of the oldest place here; [`end`](Self::end) if there is none.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The index that the next frame will have.
    pub fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// The newest frame.
    pub fn newest(&self) -> Option<&Entry> {
        self.slots.iter().rev().find_map(Slot::frame)
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
        self.slots.iter().rev().take(self.slots.len().saturating_sub(skip as usize)).map(Slot::bytes).sum()
    }

    /// How many bytes all frames here have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
