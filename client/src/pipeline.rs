//! The built-in media: capture → encode → publish, and play → decode → playout → view and speaker.
//!
//! Everything here is made of `parlor-media` and the public handles of this crate; an app with codecs of its
//! own does without (`default-features = false`) and uses [`Publisher`](crate::Publisher) and
//! [`Frames`](crate::Frames) directly.

mod encode;
mod map;
mod receive;
mod record;
mod send;

use std::sync::Arc;

use parlor_media::audio::AudioError;
use parlor_media::capture::CaptureError;
use parlor_media::frame::MediaTime;
use parlor_media::play::PlayError;
use parlor_media::video::VideoError;
use parlor_transport::clock::Clock;
use parlor_transport::error::{Code, Coded};
use parlor_transport::units::Timestamp;

use crate::error::PublishError;
pub use encode::{AudioEncoding, VideoEncoding};
pub use map::{AUDIO_CODEC, VIDEO_CODEC};
pub use receive::{Playback, PlaybackStats};
pub use record::{Recorded, Recording};
pub use send::{Broadcast, Capture, Preview, Sources};

/// The engine's clock for the media crate, so that capture, playout and network agree on the time.
pub fn media_clock(clock: &Clock) -> parlor_media::clock::Clock {
    let clock = clock.clone();
    Arc::new(move || map::media_time(clock.now()))
}

/// A media time as the engine's clock shows it.
pub fn timestamp(time: MediaTime) -> Timestamp {
    Timestamp::from_micros(time.as_micros())
}

/// Why built-in media do not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// A source cannot be used.
    #[error("{0} ({code})", code = Code::MediaFailed.number())]
    Capture(#[from] CaptureError),
    /// A picture encoder or decoder does not work.
    #[error("{0} ({code})", code = Code::MediaFailed.number())]
    Video(#[from] VideoError),
    /// A sound encoder or decoder does not work.
    #[error("{0} ({code})", code = Code::MediaFailed.number())]
    Audio(#[from] AudioError),
    /// A file or device for output cannot be used.
    #[error("{0} ({code})", code = Code::MediaFailed.number())]
    Play(#[from] PlayError),
    /// Nothing was asked of the relay.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// None of the stream's tracks can be read.
    #[error(
        "the stream's codecs ({0}) are not built in, only {VIDEO_CODEC} and {AUDIO_CODEC}; \
         read its frames with Player::frames ({code})",
        code = Code::MediaFailed.number()
    )]
    Codec(String),
    /// The stream is not there.
    #[error("the stream is not being played; wait for Player::playing first ({code})", code = Code::NotPlaying.number())]
    NotPlaying,
}

impl Coded for MediaError {
    fn code(&self) -> Code {
        match self {
            MediaError::Publish(error) => error.code(),
            MediaError::NotPlaying => Code::NotPlaying,
            _ => Code::MediaFailed,
        }
    }
}
