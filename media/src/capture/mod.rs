//! Where pictures and sound come from: a test pattern, a file, a camera, a microphone.
//!
//! A [`VideoSource`] or [`AudioSource`] gives the next piece when asked; [`VideoCapture`] and [`AudioCapture`] ask at the
//! right rate, on an own thread, and hand it to any number of sinks: a preview that works with no call at all, an encoder.
//!
//! Cameras, microphones and speakers are thin adapters (features `camera` and `audio-devices`).

#[cfg(feature = "camera")]
mod camera;
#[cfg(feature = "files")]
mod clip;
#[cfg(feature = "audio-devices")]
mod microphone;
#[cfg(all(feature = "files", feature = "h264"))]
mod mp4;
#[cfg(all(feature = "files", feature = "h264"))]
mod mp4_index;
mod shell;
mod synthetic;
#[cfg(feature = "files")]
mod wav;
#[cfg(feature = "files")]
mod y4m;

use std::path::PathBuf;

#[cfg(feature = "camera")]
pub use camera::{Camera, cameras};
#[cfg(feature = "files")]
pub use clip::{ClipSource, open_clip};
#[cfg(feature = "audio-devices")]
pub use microphone::{Microphone, microphones, speakers};
pub use shell::{AudioCapture, CaptureStats, SinkId, VideoCapture};
pub use synthetic::{PatternSource, SilenceSource, ToneSource};
#[cfg(feature = "files")]
pub use wav::WavSource;

use crate::frame::{FrameError, MediaTime, Picture, Samples};

/// The size and rate of what a [`VideoSource`] gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VideoFormat {
    /// Width, pixels.
    pub width: u32,
    /// Height, pixels.
    pub height: u32,
    /// Pictures per second.
    pub fps: f32,
}

/// Gives pictures.
pub trait VideoSource: Send {
    /// What `next` gives; does not change.
    fn format(&self) -> VideoFormat;

    /// The picture for the moment `now`, stamped with it; `None` if there is no new one yet.
    ///
    /// # Errors
    /// [`CaptureError`]; the source is then at its end.
    fn next(&mut self, now: MediaTime) -> Result<Option<Picture>, CaptureError>;

    /// Whether `next` waits for its device, so that whoever asks need not keep time.
    fn is_paced(&self) -> bool {
        false
    }
}

/// Gives sound.
pub trait AudioSource: Send {
    /// 1 or 2; does not change.
    fn channels(&self) -> u8;

    /// The 20 ms that begin at `now`, stamped with it; `None` if they are not there yet.
    ///
    /// # Errors
    /// [`CaptureError`]; the source is then at its end.
    fn next(&mut self, now: MediaTime) -> Result<Option<Samples>, CaptureError>;

    /// Whether `next` waits for its device, so that whoever asks need not keep time.
    fn is_paced(&self) -> bool {
        false
    }
}

/// Why nothing can be captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// A size that no picture can have.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A file that cannot be read at all.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{} is no usable clip: {reason}", path.display())]
    NotAClip {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong and what would work.
        reason: String,
    },
    /// A rate that makes no sense.
    #[error("{0} pictures per second are not possible; choose 1 to 120")]
    Fps(f32),
    /// No thread could be started.
    #[error("no thread for capturing: {0}; end other threads or raise the limit")]
    Thread(std::io::Error),
    /// The device is missing or refuses.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Why a camera, a microphone or a speaker cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// There is none, or none of that name.
    #[error("no {kind} {}found ({reason}); connect one, or use the test pattern, a tone or a file instead",
        name.as_ref().map(|name| format!("named \"{name}\" ")).unwrap_or_default())]
    Missing {
        /// "camera", "microphone" or "speaker".
        kind: &'static str,
        /// The name asked for; `None` for the default.
        name: Option<String>,
        /// What the system said.
        reason: String,
    },
    /// It is there and does not do what is needed.
    #[error("the {kind} \"{name}\" cannot be used: {reason}")]
    Refused {
        /// "camera", "microphone" or "speaker".
        kind: &'static str,
        /// Its name.
        name: String,
        /// What the system said, or what it lacks.
        reason: String,
    },
    /// It was there and does not answer any more.
    #[error("the {kind} \"{name}\" stopped: {reason}; it is tried again by opening it again")]
    Lost {
        /// "camera", "microphone" or "speaker".
        kind: &'static str,
        /// Its name.
        name: String,
        /// What the system said.
        reason: String,
    },
}

/// A device that can be opened by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// What to open it by.
    pub name: String,
    /// What else the system says of it.
    pub description: String,
}

pub(crate) fn check_fps(fps: f32) -> Result<(), CaptureError> {
    if (1.0..=120.0).contains(&fps) { Ok(()) } else { Err(CaptureError::Fps(fps)) }
}
