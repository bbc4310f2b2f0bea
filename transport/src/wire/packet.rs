//! The media packet: one QUIC datagram with one or more symbols of frames.
//!
//! ```text
//! kind 0x03, plus 128 where the path is calm | tx_seq | burst | part … part
//! part: head byte | lane | sequence | … | bytes
//! head: 1 source symbol, 2 repair symbol, 3 a frame that will not come, 4 a frame of one symbol; plus 16 × track; plus 128
//!       on every part but the last, whose bytes end where the datagram ends; on others their number stands before them
//! source: … length of the object | index of the symbol
//! gone:   … nothing, and no bytes
//! whole:  … nothing: the symbol is the object
//! repair: … frames in the window | length of each object, newest first, 0 for one left out | slice | repair id byte
//! ```
//!
//! Every number is a varint unless it is called a byte. `tx_seq` counts the media packets of one
//! connection and direction; `burst` says how many more follow in the same burst, so that a lost
//! tail is noticed. On a *calm* path the sender needs reports less often. What symbols, windows and repair ids are is specified in
//! [`repair::code`](crate::repair::code).

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::OBJECT_MAX;
use super::hop::{DATAGRAM_MAX, HopHeader, LANE_MAX};
use super::{WireError, varint};
use crate::repair::code::{SYMBOLS_MAX, WINDOW_FRAMES_MAX};
use crate::repair::{RepairId, Shape, Window};

/// First byte of a media packet.
pub const KIND_PACKET: u8 = 0x03;
/// Added to it where the path is calm.
const CALM: u8 = 0x80;
/// The most parts of one packet: the window of a voice and some of its neighbours.
pub const PARTS_MAX: usize = 16;
/// The most packets that a burst may announce: more than the largest frame has.
pub const BURST_MAX: u64 = 2048;

const SOURCE: u8 = 0x01;
const REPAIR: u8 = 0x02;
const GONE: u8 = 0x03;
/// A source symbol that is its object: sound is small, and so should be what stands before it.
const WHOLE: u8 = 0x04;
const KIND: u8 = 0x0f;
const TRACK_SHIFT: u32 = 4;
const MORE: u8 = 0x80;

/// A symbol on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// A piece of a frame as it is.
    Source {
        /// The frame.
        hop: HopHeader,
        /// How it is cut.
        shape: Shape,
        /// Which piece.
        index: usize,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A combination of the symbols of one or more frames.
    Repair {
        /// Lane, track and the newest frame.
        hop: HopHeader,
        /// The frames it combines.
        window: Window,
        /// Which combination.
        id: RepairId,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A frame that has its sequence and will not come: the sender never had it whole. Symbols of it may have come.
    Gone {
        /// The frame.
        hop: HopHeader,
    },
}

impl Part {
    /// The lane, track and (newest) frame.
    pub fn hop(&self) -> HopHeader {
        match *self {
            Part::Source { hop, .. } | Part::Repair { hop, .. } | Part::Gone { hop } => hop,
        }
    }

    /// The symbol's bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Part::Source { bytes, .. } | Part::Repair { bytes, .. } => bytes,
            Part::Gone { .. } => &[],
        }
    }

    /// An upper bound of its bytes on the wire.
    pub fn size(&self) -> usize {
        let window = match self {
            Part::Source { .. } => 4 + 2,
            Part::Gone { .. } => 0,
            Part::Repair { window, .. } => 1 + window.frames().count().max(1) * 4 + 1 + 1,
        };
        1 + 4 + 8 + window + 2 + self.bytes().len()
    }

    fn kind(&self) -> u8 {
        match self {
            Part::Source { shape, .. } if shape.symbols() == 1 => WHOLE,
            Part::Source { .. } => SOURCE,
            Part::Repair { .. } => REPAIR,
            Part::Gone { .. } => GONE,
        }
    }

    fn encode(&self, is_last: bool, out: &mut BytesMut) {
        let more = if is_last { 0 } else { MORE };
        let hop = self.hop();
        out.put_u8(self.kind() | hop.track << TRACK_SHIFT | more);
        varint::put(out, hop.lane.into());
        varint::put(out, hop.sequence);
        match self {
            Part::Source { shape, .. } if shape.symbols() == 1 => {}
            Part::Source { shape, index, .. } => {
                varint::put(out, shape.length() as u64);
                varint::put(out, *index as u64);
            }
            Part::Repair { window, id, .. } => {
                let oldest = window.frames().last().map_or(window.newest(), |(frame, _)| frame);
                let count = window.newest() - oldest + 1;
                varint::put(out, count);
                let mut frames = window.frames().peekable();
                for frame in (oldest..=window.newest()).rev() {
                    let shape = frames.next_if(|(of, _)| *of == frame).map(|(_, shape)| shape);
                    varint::put(out, shape.map_or(0, |shape| shape.length() as u64));
                }
                varint::put(out, window.slice() as u64);
                out.put_u8(id.get());
            }
            Part::Gone { .. } => return,
        }
        if !is_last {
            varint::put(out, self.bytes().len() as u64);
        }
        out.put_slice(self.bytes());
    }

    fn decode(bytes: &mut Bytes) -> Result<(Self, bool), WireError> {
        let head = varint::get_u8(bytes, "part head")?;
        let is_last = head & MORE == 0;
        let track = (head & !MORE) >> TRACK_SHIFT;
        let lane = varint::get_bounded(bytes, "lane", LANE_MAX.into())? as u32;
        let hop = HopHeader { lane, track, sequence: varint::get(bytes, "hop sequence")? };
        let broken = |fault: crate::repair::Fault| WireError::invalid("symbol", fault.to_string());
        match head & KIND {
            WHOLE => {
                let bytes = get_bytes(bytes, is_last)?;
                let shape = Shape::new(bytes.len()).map_err(broken)?;
                if shape.symbols() != 1 {
                    return Err(WireError::invalid("symbol", "too long for a frame of one symbol"));
                }
                Ok((Part::Source { hop, shape, index: 0, bytes }, is_last))
            }
            SOURCE => {
                let shape = Shape::new(get_length(bytes)?).map_err(broken)?;
                if shape.symbols() == 1 {
                    return Err(WireError::invalid("symbol", "a frame of one symbol is sent as such"));
                }
                let index = varint::get_bounded(bytes, "symbol index", SYMBOLS_MAX as u64)? as usize;
                let bytes = get_bytes(bytes, is_last)?;
                Ok((Part::Source { hop, shape, index, bytes }, is_last))
            }
            REPAIR => {
                let count = varint::get_bounded(bytes, "frames in window", WINDOW_FRAMES_MAX as u64)?;
                let mut shapes = Vec::with_capacity(count as usize);
                for _ in 0..count {
                    let length = get_length(bytes)?;
                    shapes.push(if length == 0 { None } else { Some(Shape::new(length).map_err(broken)?) });
                }
                let slice = varint::get_bounded(bytes, "slice", SYMBOLS_MAX as u64)? as usize;
                let id = RepairId::new(varint::get_u8(bytes, "repair id")?).map_err(broken)?;
                let window = Window::new(hop.sequence, shapes, slice).map_err(broken)?;
                let bytes = get_bytes(bytes, is_last)?;
                Ok((Part::Repair { hop, window, id, bytes }, is_last))
            }
            GONE if is_last && !bytes.is_empty() => {
                Err(WireError::invalid("part", "bytes follow a frame that will not come"))
            }
            GONE => Ok((Part::Gone { hop }, is_last)),
            other => Err(WireError::invalid("part head", format!("{other:#04x} is unknown"))),
        }
    }
}

fn get_length(bytes: &mut Bytes) -> Result<usize, WireError> {
    varint::get_bounded(bytes, "object length", OBJECT_MAX as u64).map(|length| length as usize)
}

fn get_bytes(bytes: &mut Bytes, is_last: bool) -> Result<Bytes, WireError> {
    let length = if is_last {
        bytes.len()
    } else {
        varint::get_bounded(bytes, "symbol bytes", DATAGRAM_MAX as u64)? as usize
    };
    if length == 0 || length > bytes.len() {
        return Err(WireError::Truncated { what: "symbol" });
    }
    Ok(bytes.split_to(length))
}

/// A media packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Its number on this connection, in this direction.
    pub tx_seq: u64,
    /// How many more packets follow in its burst.
    pub burst: u64,
    /// The sender finds nothing on the path to watch over: as long as nothing is missing, reports may come slowly.
    pub is_calm: bool,
    /// One or more symbols.
    pub parts: Vec<Part>,
}

impl Packet {
    /// Bytes before the first part, at most.
    pub const HEAD_MAX: usize = 1 + 8 + 2;

    /// The packet as a datagram. The caller keeps the sum of the parts' [`Part::size`] and
    /// [`Packet::HEAD_MAX`] within [`DATAGRAM_MAX`].
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size());
        self.encode_into(&mut out);
        out.freeze()
    }

    /// An upper bound of its bytes as a datagram.
    pub fn size(&self) -> usize {
        Self::HEAD_MAX + self.parts.iter().map(Part::size).sum::<usize>()
    }

    /// Puts the packet behind what is in `out`, as [`encode`](Self::encode) makes it.
    pub fn encode_into(&self, out: &mut BytesMut) {
        out.put_u8(if self.is_calm { KIND_PACKET | CALM } else { KIND_PACKET });
        varint::put(out, self.tx_seq);
        varint::put(out, self.burst.min(BURST_MAX));
        for (at, part) in self.parts.iter().enumerate() {
            part.encode(at + 1 == self.parts.len(), out);
        }
    }

    /// Reads a media packet.
    ///
    /// # Errors
    /// [`WireError`] when it is not one, is cut short, or holds a symbol that cannot be.
    pub fn decode(mut datagram: Bytes) -> Result<Self, WireError> {
        if datagram.len() > DATAGRAM_MAX {
            let value = datagram.len() as u64;
            return Err(WireError::TooLarge { what: "media packet", value, max: DATAGRAM_MAX as u64 });
        }
        let kind = varint::get_u8(&mut datagram, "datagram kind")?;
        if kind & !CALM != KIND_PACKET {
            return Err(WireError::invalid("datagram kind", format!("{kind:#04x} is not a media packet")));
        }
        let is_calm = kind & CALM != 0;
        let tx_seq = varint::get(&mut datagram, "packet number")?;
        let burst = varint::get_bounded(&mut datagram, "burst", BURST_MAX)?;
        let mut parts = Vec::new();
        loop {
            let (part, is_last) = Part::decode(&mut datagram)?;
            parts.push(part);
            if is_last {
                return Ok(Packet { tx_seq, burst, is_calm, parts });
            }
            if parts.len() == PARTS_MAX {
                return Err(WireError::TooLarge {
                    what: "number of parts",
                    value: PARTS_MAX as u64 + 1,
                    max: PARTS_MAX as u64,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repair::{SourceBlock, encode_repair};

    fn hop(sequence: u64) -> HopHeader {
        HopHeader { lane: 3, track: 1, sequence }
    }

    fn packet() -> Packet {
        let blocks = [1200, 300, 900].map(|size| SourceBlock::new(vec![7; size].into()).unwrap());
        let window = Window::new(9, [Some(blocks[2].shape()), None, Some(blocks[0].shape())], 0).unwrap();
        let repair = encode_repair([&blocks[2], &blocks[0]], 0, RepairId::default()).unwrap();
        Packet {
            tx_seq: 70_000,
            burst: 4,
            is_calm: true,
            parts: vec![
                Part::Source { hop: hop(8), shape: blocks[1].shape(), index: 0, bytes: blocks[1].symbol(0) },
                Part::Source { hop: hop(9), shape: blocks[0].shape(), index: 1, bytes: blocks[0].symbol(1) },
                Part::Gone { hop: hop(7) },
                Part::Repair { hop: hop(9), window, id: RepairId::default(), bytes: repair.slice(..100) },
            ],
        }
    }

    #[test]
    fn a_packet_reads_back() {
        let packet = packet();
        let bytes = packet.encode();
        assert!(bytes.len() <= packet.size());
        assert_eq!(Packet::decode(bytes).unwrap(), packet);
    }

    #[test]
    fn the_largest_symbol_of_four_frames_fits_a_datagram() {
        let block = SourceBlock::new(vec![1; 16 * 1088].into()).unwrap();
        let sequence = varint::MAX;
        let hop = HopHeader { lane: crate::wire::hop::LANE_MAX, track: 7, sequence };
        let window = Window::new(sequence, [Some(block.shape()); 4], 0).unwrap();
        let bytes = encode_repair([&block; 4], 0, RepairId::default()).unwrap();
        let part = Part::Repair { hop, window, id: RepairId::default(), bytes };
        let packet = Packet { tx_seq: varint::MAX, burst: BURST_MAX, is_calm: false, parts: vec![part] };
        assert!(packet.encode().len() <= DATAGRAM_MAX, "{}", packet.encode().len());
    }

    #[test]
    fn nonsense_is_refused_and_no_cut_panics() {
        let good = packet().encode();
        for cut in 0..good.len() {
            _ = Packet::decode(good.slice(..cut));
        }
        assert!(Packet::decode(Bytes::new()).is_err());
        assert!(Packet::decode(good.slice(..40)).is_err());
        for at in 0..60 {
            for bad in [0, 0x3f, 0x7f, 0x80, 0xff] {
                let mut bytes = good.to_vec();
                bytes[at] = bad;
                _ = Packet::decode(bytes.into());
            }
        }
        assert!(Packet::decode(vec![KIND_PACKET; DATAGRAM_MAX + 1].into()).is_err());
    }
}
