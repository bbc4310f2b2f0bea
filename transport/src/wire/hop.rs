//! The hop header: how a frame travels over one connection.
//!
//! A *lane* is one publication or one play on one connection; the client chose its number when
//! it asked to publish or play. Each track of a lane counts the frames sent on it from 0
//! without gaps, so that a receiver can tell a frame that was lost from one that was never sent.

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{OBJECT_MAX, TRACKS_MAX};
use super::{WireError, varint};

/// The most bytes of a media datagram, headers included: it fits a QUIC packet of 1,200 bytes.
pub const DATAGRAM_MAX: usize = 1150;
/// The most fragments of one frame: an object of [`OBJECT_MAX`] in datagrams with the longest headers.
pub const FRAGMENTS_MAX: u64 = (OBJECT_MAX / (DATAGRAM_MAX - HEADER_MAX) + 1) as u64;
/// The longest hop header: kind, lane, track, sequence, index, count.
const HEADER_MAX: usize = 1 + 4 + 1 + 8 + 2 + 2;

/// First byte of a media datagram.
const KIND_FRAGMENT: u8 = 0x02;

/// Where on a connection a frame belongs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct HopHeader {
    /// The publication or play.
    pub lane: u32,
    /// The track within the stream.
    pub track: u8,
    /// Counts the frames of this lane and track on this connection, from 0 without gaps.
    pub sequence: u64,
}

/// Lanes fit four bytes of a varint, so that [`HEADER_MAX`] is small.
pub const LANE_MAX: u32 = 0x3fff_ffff;

impl HopHeader {
    /// Appends the header as it stands at the front of a frame's QUIC stream.
    pub fn encode(&self, out: &mut impl BufMut) {
        varint::put(out, self.lane.into());
        out.put_u8(self.track);
        varint::put(out, self.sequence);
    }

    /// Reads the header off the front of `bytes`.
    ///
    /// # Errors
    /// [`WireError`] when it is cut short or out of range.
    pub fn decode(bytes: &mut Bytes) -> Result<Self, WireError> {
        let lane = varint::get_bounded(bytes, "lane", LANE_MAX.into())? as u32;
        let track = varint::get_u8(bytes, "track")?;
        if track >= TRACKS_MAX {
            return Err(WireError::TooLarge {
                what: "track",
                value: track.into(),
                max: (TRACKS_MAX - 1).into(),
            });
        }
        let sequence = varint::get(bytes, "hop sequence")?;
        Ok(HopHeader { lane, track, sequence })
    }
}

/// One datagram's share of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// The frame it belongs to.
    pub hop: HopHeader,
    /// Its place, below `count`.
    pub index: u64,
    /// How many fragments the frame has, 1 to [`FRAGMENTS_MAX`].
    pub count: u64,
    /// Its bytes, never empty.
    pub bytes: Bytes,
}

impl Fragment {
    /// Reads a media datagram.
    ///
    /// # Errors
    /// [`WireError`] when it is not one, is cut short, too long or its counts are impossible.
    pub fn decode(mut datagram: Bytes) -> Result<Self, WireError> {
        if datagram.len() > DATAGRAM_MAX {
            return Err(WireError::TooLarge {
                what: "media datagram",
                value: datagram.len() as u64,
                max: DATAGRAM_MAX as u64,
            });
        }
        let kind = varint::get_u8(&mut datagram, "datagram kind")?;
        if kind != KIND_FRAGMENT {
            return Err(WireError::invalid("datagram kind", format!("{kind:#04x} is unknown")));
        }
        let hop = HopHeader::decode(&mut datagram)?;
        let index = varint::get(&mut datagram, "fragment index")?;
        let count = varint::get_bounded(&mut datagram, "fragment count", FRAGMENTS_MAX)?;
        if index >= count {
            return Err(WireError::invalid("fragment", format!("number {index} of {count}")));
        }
        if datagram.is_empty() {
            return Err(WireError::Truncated { what: "fragment" });
        }
        Ok(Fragment { hop, index, count, bytes: datagram })
    }
}

/// Cuts an object into media datagrams of nearly equal size.
///
/// All of them share one allocation. An object of [`OBJECT_MAX`] or less gives at most
/// [`FRAGMENTS_MAX`] datagrams, each of at most [`DATAGRAM_MAX`] bytes.
pub fn fragments(hop: HopHeader, object: &Bytes) -> impl ExactSizeIterator<Item = Bytes> + use<> {
    let room = DATAGRAM_MAX - HEADER_MAX;
    let count = object.len().div_ceil(room).max(1);
    let share = object.len().div_ceil(count);
    let object = object.clone();
    let mut buffer = BytesMut::with_capacity(object.len() + count * HEADER_MAX);
    (0..count).map(move |index| {
        buffer.put_u8(KIND_FRAGMENT);
        hop.encode(&mut buffer);
        varint::put(&mut buffer, index as u64);
        varint::put(&mut buffer, count as u64);
        buffer.put_slice(&object[index * share..object.len().min((index + 1) * share)]);
        buffer.split().freeze()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP: HopHeader = HopHeader { lane: LANE_MAX, track: 7, sequence: varint::MAX };

    #[test]
    fn fragments_fit_and_add_up_to_the_object() {
        for size in [1, 2, 1131, 1132, 1133, 5000, 57_000, OBJECT_MAX] {
            let object: Bytes = (0..size).map(|i| i as u8).collect::<Vec<_>>().into();
            let datagrams: Vec<Bytes> = fragments(HOP, &object).collect();
            assert!(datagrams.len() as u64 <= FRAGMENTS_MAX);
            let mut joined = Vec::new();
            for (index, datagram) in datagrams.iter().enumerate() {
                assert!(datagram.len() <= DATAGRAM_MAX, "{} bytes", datagram.len());
                let fragment = Fragment::decode(datagram.clone()).unwrap();
                assert_eq!((fragment.hop, fragment.index), (HOP, index as u64));
                assert_eq!(fragment.count, datagrams.len() as u64);
                joined.extend_from_slice(&fragment.bytes);
            }
            assert_eq!(joined, object);
        }
    }

    #[test]
    fn impossible_fragments_are_refused() {
        let hop = HopHeader { lane: 1, track: 0, sequence: 2 };
        let good = fragments(hop, &Bytes::from_static(b"x")).next().unwrap().to_vec();
        assert_eq!(good, [2, 1, 0, 2, 0, 1, b'x']);
        for (at, bad) in [(0, 9), (2, TRACKS_MAX), (4, 1), (5, 0)] {
            let mut bytes = good.clone();
            bytes[at] = bad;
            assert!(Fragment::decode(bytes.into()).is_err(), "byte {at} = {bad}");
        }
        for cut in 0..good.len() {
            assert!(Fragment::decode(good[..cut].to_vec().into()).is_err(), "cut at {cut}");
        }
        assert!(Fragment::decode(vec![KIND_FRAGMENT; DATAGRAM_MAX + 1].into()).is_err());
    }
}
