//! Sound to bytes and back: Opus by libopus (feature `opus`), 20 ms at 48 kHz.
//!
//! Codecs work in the calling thread and hold no queue. When to use a packet, its repair or neither is decided by
//! [`jitter::AudioPlayout`](crate::jitter::AudioPlayout).

#[cfg(feature = "opus")]
mod opus;

#[cfg(feature = "opus")]
pub use opus::{OpusConfig, OpusDecoder, OpusEncoder};

use crate::frame::{EncodedAudio, FrameError, MediaTime, Samples};

/// Why sound could not be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AudioError {
    /// The samples are impossible.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A setting is out of range.
    #[error("{setting} of {value} is not possible; choose {allowed}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What was asked for.
        value: i64,
        /// What would be possible.
        allowed: &'static str,
    },
    /// A block that is not 20 ms of the encoder's channels.
    #[error(
        "{samples} samples of {channels} channels given; the encoder takes blocks of 960 samples of {expected} channels"
    )]
    Block {
        /// Samples per channel given.
        samples: usize,
        /// Channels given.
        channels: u8,
        /// Channels of the encoder.
        expected: u8,
    },
    /// The codec library refused.
    #[error("Opus {operation} failed: {reason}; conceal this packet and go on with the next")]
    Codec {
        /// What was being done.
        operation: &'static str,
        /// libopus' own words.
        reason: String,
    },
}

/// What a playout buffer needs of a decoder. [`OpusDecoder`] is one; a test may bring another.
///
/// Each call advances the decoder by one frame, so calls must come in playing order.
pub trait AudioDecode {
    /// 1 or 2; every block given has as many.
    fn channels(&self) -> u8;

    /// The sound of a packet.
    ///
    /// # Errors
    /// [`AudioError::Codec`] if it is no packet; conceal it then.
    fn decode(&mut self, packet: &EncodedAudio) -> Result<Samples, AudioError>;

    /// The 20 ms before `next`, rebuilt from the redundancy in `next` (FEC), or guessed if it carries none.
    ///
    /// # Errors
    /// [`AudioError::Codec`] if `next` is no packet.
    fn recover(&mut self, next: &EncodedAudio) -> Result<Samples, AudioError>;

    /// A guess of the next 20 ms, for a packet that did not come (PLC); fades to silence if repeated.
    fn conceal(&mut self, time: MediaTime) -> Samples;
}
