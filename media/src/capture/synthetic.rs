//! Sources without a device or a file: the test pattern, its tone, and silence.

use super::{AudioSource, CaptureError, VideoFormat, VideoSource, check_fps};
use crate::frame::{AUDIO_FRAME_SAMPLES, MediaTime, Picture, Samples};
use crate::pattern::{Pattern, Tone};

/// The moving test picture of [`pattern`](crate::pattern), numbered from 0.
pub struct PatternSource {
    pattern: Pattern,
    format: VideoFormat,
    frame: u32,
}

impl PatternSource {
    /// The pattern of `publisher`.
    ///
    /// # Errors
    /// [`CaptureError::Frame`] or [`CaptureError::Fps`].
    pub fn new(publisher: u16, width: u32, height: u32, fps: f32) -> Result<PatternSource, CaptureError> {
        check_fps(fps)?;
        let pattern = Pattern::new(publisher, width, height)?;
        Ok(PatternSource { pattern, format: VideoFormat { width, height, fps }, frame: 0 })
    }
}

impl VideoSource for PatternSource {
    fn format(&self) -> VideoFormat {
        self.format
    }

    fn next(&mut self, now: MediaTime) -> Result<Option<Picture>, CaptureError> {
        let picture = self.pattern.picture(self.frame, now);
        self.frame = self.frame.wrapping_add(1);
        Ok(Some(picture))
    }
}

/// A steady tone.
pub struct ToneSource {
    tone: Tone,
}

impl ToneSource {
    /// The tone of `publisher`, see [`publisher_hz`](crate::pattern::publisher_hz).
    pub fn of_publisher(publisher: u16) -> ToneSource {
        ToneSource { tone: Tone::of_publisher(publisher) }
    }

    /// Any tone.
    pub fn new(tone: Tone) -> ToneSource {
        ToneSource { tone }
    }
}

impl AudioSource for ToneSource {
    fn channels(&self) -> u8 {
        1
    }

    fn next(&mut self, now: MediaTime) -> Result<Option<Samples>, CaptureError> {
        Ok(Some(self.tone.samples(AUDIO_FRAME_SAMPLES, now)))
    }
}

/// Digital silence.
#[derive(Clone, Copy, Debug, Default)]
pub struct SilenceSource;

impl AudioSource for SilenceSource {
    fn channels(&self) -> u8 {
        1
    }

    fn next(&mut self, now: MediaTime) -> Result<Option<Samples>, CaptureError> {
        Ok(Some(Samples::mono(vec![0; AUDIO_FRAME_SAMPLES], now)))
    }
}
