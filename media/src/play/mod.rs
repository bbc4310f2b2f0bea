//! Where pictures and sound go: an app's window, a file, a speaker, a test.
//!
//! Pictures are pushed into a [`View`] when they are due. Sound is pulled: a device (or an [`AudioPump`] in its place)
//! asks an [`AudioFeed`] for the next block on its own clock. What is due when is decided in [`jitter`](crate::jitter).

#[cfg(feature = "files")]
mod claim;
mod mix;
mod pump;
#[cfg(feature = "files")]
mod raw;
#[cfg(feature = "files")]
mod recorder;
#[cfg(feature = "files")]
mod recorder_boxes;
#[cfg(feature = "files")]
mod sheet;
#[cfg(feature = "audio-devices")]
mod speaker;
mod view;

use std::path::{Path, PathBuf};

#[cfg(feature = "files")]
pub use claim::OutputClaim;
pub use mix::{FeedId, Mixer};
pub use pump::AudioPump;
#[cfg(feature = "files")]
pub use raw::{WavWriter, Y4mWriter};
#[cfg(feature = "files")]
pub use recorder::{Mp4Recorder, RecordedTracks};
#[cfg(feature = "files")]
pub use sheet::ContactSheet;
#[cfg(feature = "audio-devices")]
pub use speaker::Speaker;
pub use view::{AudioFeed, AudioSink, LatestPicture, NullSink, NullView, View};

/// Why something could not be played or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlayError {
    /// The file cannot be made or written.
    #[error("cannot write {}: {source}; choose a path in a folder that exists and may be written", path.display())]
    Output {
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was closed after an error or by `finish`.
    #[error("{} is closed; make a new writer", path.display())]
    Closed {
        /// The path of the file.
        path: PathBuf,
    },
    /// What was given does not fit what the file holds.
    #[error("{} cannot take this: {reason}", path.display())]
    Unfit {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// No thread could be started.
    #[error("no thread for playing: {0}; end other threads or raise the limit")]
    Thread(std::io::Error),
    /// The device is missing or refuses.
    #[cfg(feature = "audio-devices")]
    #[error(transparent)]
    Device(#[from] crate::capture::DeviceError),
}

impl PlayError {
    #[cfg_attr(not(feature = "files"), expect(dead_code, reason = "only files have paths"))]
    fn output(path: &Path) -> impl Fn(std::io::Error) -> PlayError + '_ {
        move |source| PlayError::Output { path: path.to_owned(), source }
    }
}
