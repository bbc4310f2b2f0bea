//! The values that move through this crate: pictures and samples before a codec, encoded frames after one.
//!
//! Every value carries the time it was captured. Nothing here encodes, scales, waits or does I/O, and nothing knows how
//! a frame travels.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// The one sample rate inside Parlor, in Hz: what Opus works at and what devices are asked for.
pub const SAMPLE_RATE: u32 = 48_000;

/// How much sound one audio frame holds.
pub const AUDIO_FRAME: Duration = Duration::from_millis(20);

/// Samples per channel in one [`AUDIO_FRAME`].
pub const AUDIO_FRAME_SAMPLES: usize = 960;

/// The longest side of a picture, in pixels: the limit of the H.264 codec used here.
pub const PICTURE_SIDE_MAX: u32 = 3840;

/// The shortest side of a picture, in pixels: one macroblock.
pub const PICTURE_SIDE_MIN: u32 = 16;

/// A moment in microseconds since an origin that the owner of the clock chose.
///
/// Only differences between moments of one clock mean anything. Subtraction of a later from an earlier moment gives
/// zero; use [`MediaTime::micros_since`] where the sign matters or the clocks differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaTime(u64);

impl MediaTime {
    /// The origin of the clock.
    pub const ZERO: MediaTime = MediaTime(0);

    /// The moment `micros` µs after the origin.
    pub const fn from_micros(micros: u64) -> MediaTime {
        MediaTime(micros)
    }

    /// The moment `millis` ms after the origin (saturating).
    pub const fn from_millis(millis: u64) -> MediaTime {
        MediaTime(millis.saturating_mul(1_000))
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Signed microseconds from `earlier` to `self`, saturating at the ends of `i64`.
    pub fn micros_since(self, earlier: MediaTime) -> i64 {
        let difference = i128::from(self.0) - i128::from(earlier.0);
        i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX })
    }

    /// This moment moved by signed `micros`, saturating at the ends of the clock.
    pub fn offset_by(self, micros: i64) -> MediaTime {
        MediaTime(self.0.saturating_add_signed(micros))
    }
}

impl From<Duration> for MediaTime {
    /// The moment `since_origin` after the origin; saturates after 584,000 years.
    fn from(since_origin: Duration) -> MediaTime {
        MediaTime(micros(since_origin))
    }
}

impl Add<Duration> for MediaTime {
    type Output = MediaTime;

    fn add(self, rhs: Duration) -> MediaTime {
        MediaTime(self.0.saturating_add(micros(rhs)))
    }
}

impl Sub<Duration> for MediaTime {
    type Output = MediaTime;

    fn sub(self, rhs: Duration) -> MediaTime {
        MediaTime(self.0.saturating_sub(micros(rhs)))
    }
}

impl Sub for MediaTime {
    type Output = Duration;

    fn sub(self, rhs: MediaTime) -> Duration {
        Duration::from_micros(self.0.saturating_sub(rhs.0))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Why a picture or a block of samples could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A side is odd, shorter than [`PICTURE_SIDE_MIN`] or longer than [`PICTURE_SIDE_MAX`].
    #[error(
        "a picture of {width}x{height} is not possible; both sides must be even and within {PICTURE_SIDE_MIN}..={PICTURE_SIDE_MAX}"
    )]
    Size {
        /// Width asked for, pixels.
        width: u32,
        /// Height asked for, pixels.
        height: u32,
    },
    /// The pixel buffer does not fit the size.
    #[error(
        "{actual} bytes of I420 given where {width}x{height} needs {expected}; pass width*height*3/2 bytes, unpadded"
    )]
    PixelBytes {
        /// Width, pixels.
        width: u32,
        /// Height, pixels.
        height: u32,
        /// Bytes that size needs.
        expected: usize,
        /// Bytes given.
        actual: usize,
    },
    /// Neither mono nor stereo.
    #[error("{0} channels are not supported; mix down to 1 or 2")]
    Channels(u8),
    /// Interleaved samples that do not divide by the channels.
    #[error("{samples} samples do not divide into {channels} channels; pass whole interleaved frames")]
    Interleave {
        /// Samples given, all channels together.
        samples: usize,
        /// Channels declared.
        channels: u8,
    },
}

/// One raw picture: I420 (full-size luma, quarter-size chroma), planes packed without padding.
///
/// Cloning shares the pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    pixels: Arc<[u8]>,
    width: u32,
    height: u32,
    time: MediaTime,
}

impl Picture {
    /// Takes `pixels`: the Y, then U, then V plane, `width * height * 3 / 2` bytes together.
    ///
    /// # Errors
    /// [`FrameError::Size`] or [`FrameError::PixelBytes`].
    pub fn new(width: u32, height: u32, pixels: Vec<u8>, time: MediaTime) -> Result<Picture, FrameError> {
        let expected = pixel_bytes(width, height)?;
        if pixels.len() != expected {
            return Err(FrameError::PixelBytes { width, height, expected, actual: pixels.len() });
        }
        Ok(Picture { pixels: pixels.into(), width, height, time })
    }

    /// A picture of one colour, given as Y, U, V (16, 128, 128 is black).
    ///
    /// # Errors
    /// [`FrameError::Size`].
    pub fn filled(width: u32, height: u32, yuv: [u8; 3], time: MediaTime) -> Result<Picture, FrameError> {
        let total = pixel_bytes(width, height)?;
        let luma = total / 3 * 2;
        let mut pixels = vec![yuv[0]; total];
        pixels[luma..luma + total / 6].fill(yuv[1]);
        pixels[luma + total / 6..].fill(yuv[2]);
        Picture::new(width, height, pixels, time)
    }

    /// Width, pixels; even.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height, pixels; even.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// When the picture was captured.
    pub fn time(&self) -> MediaTime {
        self.time
    }

    /// The same pixels at another time.
    #[must_use]
    pub fn with_time(mut self, time: MediaTime) -> Picture {
        self.time = time;
        self
    }

    /// Brightness, `width * height` bytes, row by row.
    pub fn luma(&self) -> &[u8] {
        &self.pixels[..self.luma_len()]
    }

    /// First colour plane (U, Cb), `width / 2 * height / 2` bytes.
    pub fn u(&self) -> &[u8] {
        &self.pixels[self.luma_len()..][..self.luma_len() / 4]
    }

    /// Second colour plane (V, Cr), `width / 2 * height / 2` bytes.
    pub fn v(&self) -> &[u8] {
        &self.pixels[self.luma_len() / 4 * 5..]
    }

    /// All three planes, one after the other.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Peak signal-to-noise ratio of the luma planes in dB; 100 for equal planes, `None` if the sizes differ.
    pub fn psnr_luma(&self, other: &Picture) -> Option<f64> {
        if (self.width, self.height) != (other.width, other.height) {
            return None;
        }
        let squares: u64 =
            self.luma().iter().zip(other.luma()).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum();
        if squares == 0 {
            return Some(100.0);
        }
        let mean = squares as f64 / self.luma_len() as f64;
        Some(10.0 * (255.0 * 255.0 / mean).log10())
    }

    fn luma_len(&self) -> usize {
        self.width as usize * self.height as usize
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{} at {} us)", self.width, self.height, self.time.as_micros())
    }
}

/// Bytes of I420 that a picture of this size has.
///
/// # Errors
/// [`FrameError::Size`] for a size that no [`Picture`] can have.
pub fn pixel_bytes(width: u32, height: u32) -> Result<usize, FrameError> {
    let side_ok = |side: u32| (PICTURE_SIDE_MIN..=PICTURE_SIDE_MAX).contains(&side) && side.is_multiple_of(2);
    if !side_ok(width) || !side_ok(height) {
        return Err(FrameError::Size { width, height });
    }
    Ok(width as usize * height as usize / 2 * 3)
}

/// A block of sound at [`SAMPLE_RATE`], 16 bits, interleaved. Cloning shares the samples.
#[derive(Clone, PartialEq, Eq)]
pub struct Samples {
    data: Arc<[i16]>,
    channels: u8,
    time: MediaTime,
}

impl Samples {
    /// Takes interleaved samples of 1 or 2 channels; `time` is when the first one was captured.
    ///
    /// # Errors
    /// [`FrameError::Channels`] or [`FrameError::Interleave`].
    pub fn new(data: Vec<i16>, channels: u8, time: MediaTime) -> Result<Samples, FrameError> {
        if !(1..=2).contains(&channels) {
            return Err(FrameError::Channels(channels));
        }
        if !data.len().is_multiple_of(usize::from(channels)) {
            return Err(FrameError::Interleave { samples: data.len(), channels });
        }
        Ok(Samples { data: data.into(), channels, time })
    }

    /// `len` mono samples.
    pub fn mono(data: Vec<i16>, time: MediaTime) -> Samples {
        Samples { data: data.into(), channels: 1, time }
    }

    /// The interleaved samples.
    pub fn data(&self) -> &[i16] {
        &self.data
    }

    /// 1 or 2.
    pub fn channels(&self) -> u8 {
        self.channels
    }

    /// When the first sample was captured.
    pub fn time(&self) -> MediaTime {
        self.time
    }

    /// The same samples at another time.
    #[must_use]
    pub fn with_time(mut self, time: MediaTime) -> Samples {
        self.time = time;
        self
    }

    /// Samples per channel.
    pub fn len(&self) -> usize {
        self.data.len() / usize::from(self.channels)
    }

    /// Whether there is no sample in it.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// How long the block sounds.
    pub fn duration(&self) -> Duration {
        samples_to_duration(self.len())
    }

    /// One channel: the mean of both for stereo, itself for mono.
    #[must_use]
    pub fn to_mono(&self) -> Samples {
        if self.channels == 1 {
            return self.clone();
        }
        let mixed = self.data.chunks_exact(2).map(|pair| i16::midpoint(pair[0], pair[1])).collect();
        Samples::mono(mixed, self.time)
    }
}

impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Samples({}x{} at {} us)", self.len(), self.channels, self.time.as_micros())
    }
}

/// How long `samples` samples per channel sound.
pub fn samples_to_duration(samples: usize) -> Duration {
    Duration::from_micros(samples as u64 * 1_000_000 / u64::from(SAMPLE_RATE))
}

/// One encoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedVideo {
    /// A whole H.264 access unit as Annex B (start codes); a keyframe includes its parameter sets.
    pub data: Bytes,
    /// Decoding can start here.
    pub keyframe: bool,
    /// 0 is the base; a layer needs all layers below it.
    pub temporal_layer: u8,
    /// No other picture refers to this one: it may be left out without harm.
    pub discardable: bool,
    /// Capture time.
    pub time: MediaTime,
    /// Width, pixels.
    pub width: u32,
    /// Height, pixels.
    pub height: u32,
}

/// One encoded block of sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedAudio {
    /// An Opus packet.
    pub data: Bytes,
    /// Capture time of the first sample.
    pub time: MediaTime,
    /// How much sound is in it.
    pub duration: Duration,
    /// Loudness as in RFC 6464: dB below overload, 0 (loudest) to 127 (silence).
    pub level: u8,
    /// Somebody seems to be speaking.
    pub voice: bool,
    /// The encoder is in a pause: this packet carries nothing and need not be sent.
    pub dtx: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_where_i420_has_them() {
        let pixels: Vec<u8> = [vec![1; 16 * 32], vec![2; 8 * 16], vec![3; 8 * 16]].concat();
        let picture = Picture::new(16, 32, pixels, MediaTime::ZERO).unwrap();
        assert!(picture.luma().iter().all(|&p| p == 1) && picture.luma().len() == 512);
        assert!(picture.u().iter().all(|&p| p == 2) && picture.u().len() == 128);
        assert!(picture.v().iter().all(|&p| p == 3) && picture.v().len() == 128);
        assert_eq!(picture, {
            let mut p = Picture::filled(16, 32, [1, 2, 3], MediaTime::ZERO).unwrap();
            p.time = MediaTime::ZERO;
            p
        });
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (w, h) in [(0, 0), (15, 16), (17, 16), (16, 3842), (u32::MAX, u32::MAX)] {
            assert_eq!(pixel_bytes(w, h), Err(FrameError::Size { width: w, height: h }));
        }
        assert!(Picture::new(16, 16, vec![0; 383], MediaTime::ZERO).unwrap_err().to_string().contains("384"));
        assert_eq!(
            Samples::new(vec![0; 3], 2, MediaTime::ZERO),
            Err(FrameError::Interleave { samples: 3, channels: 2 })
        );
        assert_eq!(Samples::new(vec![], 3, MediaTime::ZERO), Err(FrameError::Channels(3)));
    }

    #[test]
    fn psnr_of_a_known_difference() {
        let a = Picture::filled(16, 16, [100, 128, 128], MediaTime::ZERO).unwrap();
        let b = Picture::filled(16, 16, [110, 128, 128], MediaTime::ZERO).unwrap();
        // 10 * log10(255^2 / 100)
        assert!((a.psnr_luma(&b).unwrap() - 28.131).abs() < 0.001);
        assert_eq!(a.psnr_luma(&a), Some(100.0));
        assert_eq!(a.psnr_luma(&Picture::filled(16, 18, [0; 3], MediaTime::ZERO).unwrap()), None);
    }

    #[test]
    fn times_never_wrap() {
        let early = MediaTime::from_micros(5);
        let late = MediaTime::from_millis(1);
        assert_eq!(early - late, Duration::ZERO);
        assert_eq!(early.micros_since(late), -995);
        assert_eq!(early.offset_by(-10), MediaTime::ZERO);
        assert_eq!(MediaTime::from_micros(u64::MAX).micros_since(MediaTime::ZERO), i64::MAX);
        assert_eq!(late - Duration::from_secs(1), MediaTime::ZERO);
    }

    #[test]
    fn stereo_mixes_down() {
        let stereo = Samples::new(vec![10, 20, i16::MAX, i16::MAX], 2, MediaTime::ZERO).unwrap();
        assert_eq!(stereo.to_mono().data(), &[15, i16::MAX]);
        assert_eq!(stereo.len(), 2);
    }
}
