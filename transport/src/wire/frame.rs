//! The frame header: what a frame says of itself. Written once by the publisher and passed on
//! unchanged by every relay, so that it can be authenticated end to end.
//!
//! A frame on the wire is header and payload as one run of bytes, the *object*; how an object
//! travels over one connection is the business of [`hop`](super::hop).

use bytes::{BufMut, Bytes, BytesMut};

use super::{WireError, varint};
use crate::id::StreamAlias;
use crate::units::Timestamp;

/// Tracks in one stream are numbered 0 to 7.
pub const TRACKS_MAX: u8 = 8;
/// Spatial (size) layers and temporal (rate) layers of one track are numbered 0 to 3.
pub const LAYERS_MAX: u8 = 4;
/// The largest object: a 4K keyframe has a few hundred kB; 1 MiB leaves room and bounds a receiver's memory.
pub const OBJECT_MAX: usize = 1 << 20;
/// The most metadata that an app may attach to one frame, in bytes.
pub const METADATA_MAX: usize = 4096;

/// The audio level of silence: 127 dB below full scale.
pub const SILENCE: u8 = 127;

const KEYFRAME: u8 = 1;
const DISCARDABLE: u8 = 2;
const AUDIO_LEVEL: u8 = 4;
const METADATA: u8 = 8;

/// Loudness of an audio frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioLevel {
    /// Decibels below full scale, 0 (loudest) to [`SILENCE`], as in RFC 6464.
    pub below_full_scale: u8,
    /// Whether the encoder found speech in it.
    pub voice: bool,
}

/// What a frame says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The stream it belongs to.
    pub alias: StreamAlias,
    /// The track within the stream, below [`TRACKS_MAX`].
    pub track: u8,
    /// Spatial layer, below [`LAYERS_MAX`]; 0 is the smallest picture.
    pub spatial: u8,
    /// Temporal layer, below [`LAYERS_MAX`]; 0 is needed by all others.
    pub temporal: u8,
    /// Counts the frames of one track and spatial layer from 0, without gaps at the publisher.
    pub number: u64,
    /// When the content was captured, on the relay's clock as the publisher estimates it.
    pub captured: Timestamp,
    /// Decodes without any earlier frame. True for every audio frame.
    pub keyframe: bool,
    /// No later frame needs it.
    pub discardable: bool,
    /// Loudness, for audio.
    pub level: Option<AudioLevel>,
    /// The app's own bytes, at most [`METADATA_MAX`]; empty when there are none.
    pub metadata: Bytes,
}

impl FrameHeader {
    fn encode(&self, out: &mut BytesMut) {
        let mut flags = 0;
        for (set, bit) in [
            (self.keyframe, KEYFRAME),
            (self.discardable, DISCARDABLE),
            (self.level.is_some(), AUDIO_LEVEL),
            (!self.metadata.is_empty(), METADATA),
        ] {
            flags |= if set { bit } else { 0 };
        }
        out.put_u8(flags);
        out.put_u8(self.track);
        out.put_u8(self.spatial << 4 | self.temporal);
        varint::put(out, self.alias.0.into());
        varint::put(out, self.number);
        varint::put(out, self.captured.as_micros());
        if let Some(level) = self.level {
            out.put_u8(level.below_full_scale | if level.voice { 0x80 } else { 0 });
        }
        if !self.metadata.is_empty() {
            varint::put(out, self.metadata.len() as u64);
            out.put_slice(&self.metadata);
        }
    }

    /// Reads the header at the beginning of an object of which the rest need not be here.
    ///
    /// # Errors
    /// [`WireError`] when it is cut short or holds a value out of range.
    pub fn peek(start: &Bytes) -> Result<Self, WireError> {
        Self::decode(&mut start.clone())
    }

    fn decode(bytes: &mut Bytes) -> Result<Self, WireError> {
        let flags = varint::get_u8(bytes, "frame flags")?;
        if flags & !(KEYFRAME | DISCARDABLE | AUDIO_LEVEL | METADATA) != 0 {
            return Err(WireError::invalid("frame flags", format!("unknown bits in {flags:#04x}")));
        }
        let track = bounded_u8(varint::get_u8(bytes, "track")?, "track", TRACKS_MAX)?;
        let layers = varint::get_u8(bytes, "layers")?;
        let spatial = bounded_u8(layers >> 4, "spatial layer", LAYERS_MAX)?;
        let temporal = bounded_u8(layers & 0xf, "temporal layer", LAYERS_MAX)?;
        let alias = varint::get_bounded(bytes, "stream alias", u32::MAX.into())? as u32;
        let number = varint::get(bytes, "frame number")?;
        let captured = Timestamp::from_micros(varint::get(bytes, "capture time")?);
        let level = if flags & AUDIO_LEVEL != 0 {
            let byte = varint::get_u8(bytes, "audio level")?;
            Some(AudioLevel { below_full_scale: byte & 0x7f, voice: byte & 0x80 != 0 })
        } else {
            None
        };
        let metadata = if flags & METADATA != 0 {
            let length = varint::get_bounded(bytes, "frame metadata", METADATA_MAX as u64)? as usize;
            if length == 0 {
                return Err(WireError::invalid("frame metadata", "announced but empty"));
            }
            if bytes.len() < length {
                return Err(WireError::Truncated { what: "frame metadata" });
            }
            bytes.split_to(length)
        } else {
            Bytes::new()
        };
        Ok(FrameHeader {
            alias: StreamAlias(alias),
            track,
            spatial,
            temporal,
            number,
            captured,
            keyframe: flags & KEYFRAME != 0,
            discardable: flags & DISCARDABLE != 0,
            level,
            metadata,
        })
    }
}

fn bounded_u8(value: u8, what: &'static str, end: u8) -> Result<u8, WireError> {
    if value < end {
        Ok(value)
    } else {
        Err(WireError::TooLarge { what, value: value.into(), max: (end - 1).into() })
    }
}

/// A frame: its header read, its bytes shared. Cloning copies no payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    header: FrameHeader,
    object: Bytes,
    payload_start: usize,
}

impl Frame {
    /// A new frame of `payload`.
    ///
    /// # Errors
    /// [`WireError::TooLarge`] when track, layers, level, metadata or the whole object are beyond their bounds.
    pub fn new(header: FrameHeader, payload: &[u8]) -> Result<Self, WireError> {
        if let Some(level) = header.level
            && level.below_full_scale > SILENCE
        {
            let value = level.below_full_scale.into();
            return Err(WireError::TooLarge { what: "audio level", value, max: SILENCE.into() });
        }
        bounded_u8(header.track, "track", TRACKS_MAX)?;
        bounded_u8(header.spatial, "spatial layer", LAYERS_MAX)?;
        bounded_u8(header.temporal, "temporal layer", LAYERS_MAX)?;
        for (what, value, max) in [
            ("frame metadata", header.metadata.len() as u64, METADATA_MAX as u64),
            ("frame number", header.number, varint::MAX),
            ("capture time", header.captured.as_micros(), varint::MAX),
        ] {
            if value > max {
                return Err(WireError::TooLarge { what, value, max });
            }
        }
        let mut object = BytesMut::with_capacity(32 + header.metadata.len() + payload.len());
        header.encode(&mut object);
        let payload_start = object.len();
        object.put_slice(payload);
        if object.len() > OBJECT_MAX {
            return Err(WireError::TooLarge {
                what: "frame",
                value: object.len() as u64,
                max: OBJECT_MAX as u64,
            });
        }
        Ok(Frame { header, object: object.freeze(), payload_start })
    }

    /// Reads an object as it came.
    ///
    /// # Errors
    /// [`WireError`] when it is cut short, too large or holds a value out of range.
    pub fn decode(object: Bytes) -> Result<Self, WireError> {
        if object.len() > OBJECT_MAX {
            return Err(WireError::TooLarge {
                what: "frame",
                value: object.len() as u64,
                max: OBJECT_MAX as u64,
            });
        }
        let mut rest = object.clone();
        let header = FrameHeader::decode(&mut rest)?;
        let payload_start = object.len() - rest.len();
        Ok(Frame { header, object, payload_start })
    }

    /// What the frame says of itself.
    pub fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// The encoded picture, sound or data.
    pub fn payload(&self) -> Bytes {
        self.object.slice(self.payload_start..)
    }

    /// Header and payload as they travel.
    pub fn object(&self) -> &Bytes {
        &self.object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            alias: StreamAlias(7),
            track: 1,
            spatial: 2,
            temporal: 1,
            number: 300,
            captured: Timestamp::from_micros(1_000_000),
            keyframe: true,
            discardable: false,
            level: Some(AudioLevel { below_full_scale: 30, voice: true }),
            metadata: Bytes::from_static(b"hi"),
        }
    }

    #[test]
    fn a_frame_reads_back_whole_and_every_cut_of_its_header_is_an_error() {
        let frame = Frame::new(header(), b"payload").unwrap();
        assert_eq!(Frame::decode(frame.object().clone()).unwrap(), frame);
        assert_eq!(&frame.payload()[..], b"payload");
        for cut in 0..frame.payload_start {
            assert!(Frame::decode(frame.object().slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn bounds_hold_when_writing_and_when_reading() {
        assert!(Frame::new(FrameHeader { track: TRACKS_MAX, ..header() }, b"").is_err());
        assert!(Frame::new(FrameHeader { spatial: LAYERS_MAX, ..header() }, b"").is_err());
        assert!(
            Frame::new(FrameHeader { metadata: vec![0; METADATA_MAX + 1].into(), ..header() }, b"").is_err()
        );
        assert!(Frame::new(header(), &vec![0; OBJECT_MAX]).is_err());
        for (at, bad) in [(0, 0x10), (1, TRACKS_MAX), (2, LAYERS_MAX << 4), (2, LAYERS_MAX)] {
            let mut bytes = Frame::new(header(), b"x").unwrap().object().to_vec();
            bytes[at] = bad;
            assert!(Frame::decode(bytes.into()).is_err(), "byte {at} = {bad:#x}");
        }
    }
}
