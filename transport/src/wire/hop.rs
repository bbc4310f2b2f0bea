//! The hop header: how a frame travels over one connection.
//!
//! A *lane* is one publication or one play on one connection; the client chose its number when
//! it asked to publish or play. Each track of a lane counts the frames sent on it from 0
//! without gaps, so that a receiver can tell a frame that was lost from one that was never sent.

use bytes::{BufMut, Bytes};

use super::frame::TRACKS_MAX;
use super::{WireError, varint};

/// The most bytes of a media datagram, headers included: it fits a QUIC packet of 1,200 bytes.
pub const DATAGRAM_MAX: usize = 1150;
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

/// Lanes fit four bytes of a varint, so that headers are small.
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    #[test]
    fn a_header_reads_back_and_is_bounded() {
        let hop = HopHeader { lane: LANE_MAX, track: 7, sequence: varint::MAX };
        let mut bytes = BytesMut::new();
        hop.encode(&mut bytes);
        let bytes = bytes.freeze();
        assert_eq!(HopHeader::decode(&mut bytes.clone()), Ok(hop));
        for cut in 0..bytes.len() {
            assert!(HopHeader::decode(&mut bytes.slice(..cut)).is_err());
        }
        assert!(HopHeader::decode(&mut Bytes::from_static(&[1, TRACKS_MAX, 0])).is_err());
        assert!(HopHeader::decode(&mut Bytes::from_static(&[0xc0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0])).is_err());
    }
}
