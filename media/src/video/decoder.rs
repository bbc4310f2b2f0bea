//! The H.264 decoder as a call uses it: it freezes rather than show a broken picture.
//!
//! Conceal nothing, guess nothing: after a gap or an error, every frame is refused until the next keyframe. It does not
//! reorder and does not notice a missing frame by itself; whoever puts frames in order calls [`H264Decoder::gap`].

use openh264::OpenH264API;
use openh264::decoder::{DecodedYUV, Decoder, DecoderConfig};
use openh264::formats::YUVSource;

use super::VideoError;
use crate::frame::{EncodedVideo, MediaTime, Picture};

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Its picture.
    Picture(Picture),
    /// Nothing: the decoder waits for a keyframe. Ask the sender for one, and keep showing the last picture.
    NeedKeyframe,
}

/// Decodes one stream.
pub struct H264Decoder {
    decoder: Decoder,
    frozen: bool,
}

impl H264Decoder {
    /// A decoder that waits for its first keyframe.
    ///
    /// # Errors
    /// [`VideoError::Codec`] if OpenH264 does not start.
    pub fn new() -> Result<H264Decoder, VideoError> {
        Ok(H264Decoder { decoder: start()?, frozen: true })
    }

    /// A frame that others depend on was lost: freezes until the next keyframe. A lost discardable frame is no gap.
    pub fn gap(&mut self) {
        self.frozen = true;
    }

    /// Whether only a keyframe can help now.
    pub fn needs_keyframe(&self) -> bool {
        self.frozen
    }

    /// Decodes the next frame of the stream; frames must come in order.
    ///
    /// # Errors
    /// [`VideoError::Codec`] or [`VideoError::NoPicture`] for bytes that do not decode; the decoder is then frozen.
    pub fn decode(&mut self, frame: &EncodedVideo) -> Result<Decoded, VideoError> {
        if self.frozen && !frame.keyframe {
            return Ok(Decoded::NeedKeyframe);
        }
        let result = decode(&mut self.decoder, &frame.data, frame.time);
        self.frozen = result.is_err();
        if self.frozen {
            // A decoder that met garbage is replaced, so that nothing of it can leak into the next keyframe's pictures.
            self.decoder = start()?;
        }
        result.map(Decoded::Picture)
    }
}

fn start() -> Result<Decoder, VideoError> {
    Decoder::with_api_config(OpenH264API::from_source(), DecoderConfig::new())
        .map_err(|error| VideoError::Codec { operation: "starting the decoder", code: error.native_code() })
}

fn decode(decoder: &mut Decoder, data: &[u8], time: MediaTime) -> Result<Picture, VideoError> {
    let decoded = decoder
        .decode(data)
        .map_err(|error| VideoError::Codec { operation: "decoding", code: error.native_code() })?
        .ok_or(VideoError::NoPicture { bytes: data.len() })?;
    to_picture(&decoded, time)
}

/// Copies a decoder's picture out of its padded buffers.
pub(crate) fn to_picture(decoded: &DecodedYUV<'_>, time: MediaTime) -> Result<Picture, VideoError> {
    let (width, height) = decoded.dimensions();
    let (y_stride, u_stride, v_stride) = decoded.strides();
    let mut pixels = Vec::with_capacity(width * height / 2 * 3);
    let halves = (width / 2, height / 2);
    for (plane, stride, (width, height)) in [
        (decoded.y(), y_stride, (width, height)),
        (decoded.u(), u_stride, halves),
        (decoded.v(), v_stride, halves),
    ] {
        for row in plane.chunks(stride.max(1)).take(height) {
            pixels.extend_from_slice(row.get(..width).unwrap_or(row));
        }
    }
    // A size too large for u32 is no picture size either, so the saturated value gives the right error.
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    Ok(Picture::new(side(width), side(height), pixels, time)?)
}
