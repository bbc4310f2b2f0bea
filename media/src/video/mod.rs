//! Pictures to bytes and back: H.264 by OpenH264 (feature `h264`).
//!
//! Codecs work in the calling thread and hold no queue; give each its own thread. What to send, when to ask for a
//! keyframe and how long to wait for a frame is decided elsewhere.

#[cfg(any(feature = "h264", feature = "files"))]
#[cfg_attr(
    not(all(feature = "h264", feature = "files")),
    allow(dead_code, reason = "the encoder reads units, files also write them")
)]
pub(crate) mod annexb;

#[cfg(feature = "h264")]
mod decoder;
#[cfg(feature = "h264")]
mod encoder;
#[cfg(feature = "h264")]
mod openh264;

#[cfg(all(feature = "h264", feature = "files"))]
pub(crate) use decoder::to_picture;
#[cfg(feature = "h264")]
pub use decoder::{Decoded, H264Decoder};
#[cfg(feature = "h264")]
pub use encoder::{H264Config, H264Encoder};
#[cfg(feature = "h264")]
pub use openh264::assembler_build;

use crate::frame::FrameError;

/// Why a picture could not be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VideoError {
    /// The size of a picture is impossible.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A setting is out of range.
    #[error("{setting} of {value} is not possible; choose {allowed}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What was asked for.
        value: String,
        /// What would be possible.
        allowed: &'static str,
    },
    /// A picture of another size than the encoder was made for.
    #[error(
        "a picture of {actual_width}x{actual_height} given to an encoder for {width}x{height}; scale it or make a new encoder"
    )]
    SizeChanged {
        /// Width of the encoder, pixels.
        width: u32,
        /// Height of the encoder, pixels.
        height: u32,
        /// Width given, pixels.
        actual_width: u32,
        /// Height given, pixels.
        actual_height: u32,
    },
    /// The codec library refused; the decoder now waits for a keyframe.
    #[error(
        "H.264 {operation} failed (OpenH264 code {code:#x}); ask the sender for a keyframe if this was decoding"
    )]
    Codec {
        /// What was being done.
        operation: &'static str,
        /// OpenH264's own code.
        code: i64,
    },
    /// The bytes are no decodable picture; the decoder now waits for a keyframe.
    #[error("{bytes} bytes are no whole H.264 picture; ask the sender for a keyframe")]
    NoPicture {
        /// Length of the access unit.
        bytes: usize,
    },
}
