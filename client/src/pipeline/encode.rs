//! Pictures and sound in, encoded frames out to a publisher, at the rate that its link offers.

use std::fmt;
use std::sync::Arc;

use parlor_media::audio::{OpusConfig, OpusEncoder};
use parlor_media::frame::{Picture, Samples};
use parlor_media::video::{H264Config, H264Encoder};

use super::MediaError;
use super::map::{from_audio, from_video};
use crate::engine::Publisher;
use crate::options::{AudioSettings, VideoSettings};
use crate::publisher::{Bitrate, PublisherState};

/// Below this a picture of any size is mud, bits/s.
const VIDEO_LEAST: u32 = 60_000;
/// Below this Opus is no pleasure to listen to, bits/s.
const AUDIO_LEAST: u32 = 12_000;
/// Sound takes no more than this share of a narrow link, so that pictures move at all.
const AUDIO_SHARE: u64 = 4;

/// Encodes pictures and hands them to a publisher: smaller where the link has less, none where it is full.
///
/// [`Capture`](super::Capture) feeds one by itself; an app with a loop of its own may feed another.
pub struct VideoEncoding {
    publisher: Arc<Publisher>,
    track: u8,
    encoder: H264Encoder,
    bitrate: Bitrate,
    /// What the sound beside it takes, bits/s.
    beside: u32,
    left_out: u64,
    warned: bool,
}

impl VideoEncoding {
    /// For `track` of `publisher`; `beside` is what the publication's sound takes, bits/s.
    ///
    /// # Errors
    /// [`MediaError::Video`] for settings that the encoder does not take.
    pub fn new(
        publisher: Arc<Publisher>,
        track: u8,
        settings: VideoSettings,
        beside: u32,
    ) -> Result<Self, MediaError> {
        let VideoSettings { width, height, frames_per_second, bitrate, keyframe_interval } = settings;
        let interval = keyframe_interval.as_secs_f64() * f64::from(frames_per_second);
        let encoder = H264Encoder::new(H264Config {
            keyframe_interval: Some((interval.round() as u32).max(1)),
            ..H264Config::new(width, height, frames_per_second as f32, bitrate)
        })?;
        let bitrate = Bitrate::new(VIDEO_LEAST, bitrate);
        Ok(VideoEncoding { publisher, track, encoder, bitrate, beside, left_out: 0, warned: false })
    }

    /// Encodes and sends a picture, while somebody takes it.
    pub fn push(&mut self, picture: &Picture) {
        if self.publisher.status().state != PublisherState::Publishing {
            return;
        }
        if let Err(error) = self.encode(picture)
            && !std::mem::replace(&mut self.warned, true)
        {
            tracing::warn!(stream = %self.publisher.stream(), %error, "a picture cannot be encoded");
        }
    }

    fn encode(&mut self, picture: &Picture) -> Result<(), parlor_media::video::VideoError> {
        if let Some(offer) = self.publisher.offer() {
            let own = offer.media.saturating_sub(self.beside.into());
            if let Some(bitrate) = self.bitrate.follow(self.publisher.now(), own) {
                self.encoder.set_bitrate(bitrate)?;
            }
            if offer.overfull {
                self.left_out += 1;
                return Ok(());
            }
        }
        if !self.publisher.take_keyframe_requests().is_empty() {
            self.encoder.force_keyframe()?;
        }
        // What was dropped is counted, and a keyframe asked for at the next picture if one is needed.
        if let Some(encoded) = self.encoder.encode(picture)? {
            _ = self.publisher.send_frame(from_video(self.track, encoded));
        }
        Ok(())
    }

    /// The bitrate in force, bits/s.
    pub fn bitrate(&self) -> u32 {
        self.bitrate.current()
    }

    /// Pictures left out because the link was full.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

impl fmt::Debug for VideoEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VideoEncoding").field("bitrate", &self.bitrate()).finish_non_exhaustive()
    }
}

/// Encodes sound and hands it to a publisher, at the bitrate that the link leaves it.
pub struct AudioEncoding {
    publisher: Arc<Publisher>,
    track: u8,
    encoder: OpusEncoder,
    bitrate: Bitrate,
    warned: bool,
}

impl AudioEncoding {
    /// For `track` of `publisher`.
    ///
    /// # Errors
    /// [`MediaError::Audio`] for settings that the encoder does not take.
    pub fn new(publisher: Arc<Publisher>, track: u8, settings: AudioSettings) -> Result<Self, MediaError> {
        let encoder = OpusEncoder::new(OpusConfig { bitrate: settings.bitrate, ..OpusConfig::default() })?;
        let bitrate = Bitrate::new(AUDIO_LEAST, settings.bitrate);
        Ok(AudioEncoding { publisher, track, encoder, bitrate, warned: false })
    }

    /// Encodes and sends 20 ms of sound, while somebody takes it. Silence that the other side can make itself is
    /// not sent.
    pub fn push(&mut self, samples: &Samples) {
        if self.publisher.status().state != PublisherState::Publishing {
            return;
        }
        if let Err(error) = self.encode(samples)
            && !std::mem::replace(&mut self.warned, true)
        {
            tracing::warn!(stream = %self.publisher.stream(), %error, "sound cannot be encoded");
        }
    }

    fn encode(&mut self, samples: &Samples) -> Result<(), parlor_media::audio::AudioError> {
        if let Some(offer) = self.publisher.offer()
            && let Some(bitrate) = self.bitrate.follow(self.publisher.now(), offer.media / AUDIO_SHARE)
        {
            self.encoder.set_bitrate(bitrate)?;
        }
        let encoded = self.encoder.encode(&samples.to_mono())?;
        if !encoded.dtx {
            _ = self.publisher.send_frame(from_audio(self.track, encoded));
        }
        Ok(())
    }

    /// The bitrate in force, bits/s.
    pub fn bitrate(&self) -> u32 {
        self.bitrate.current()
    }
}

impl fmt::Debug for AudioEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AudioEncoding").field("bitrate", &self.bitrate()).finish_non_exhaustive()
    }
}
