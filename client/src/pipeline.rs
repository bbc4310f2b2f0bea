//! The built-in media: capture → encode → publish, and play → decode → playout → view and speaker.
//!
//! Everything here is made of `parlor-media` and the public handles of this crate; an app with codecs of its
//! own does without (`default-features = false`) and uses [`Publisher`](crate::Publisher) and
//! [`Frames`](crate::Frames) directly.

mod map;
mod receive;

use std::sync::Arc;

use parlor_media::frame::MediaTime;
use parlor_transport::clock::Clock;
use parlor_transport::units::Timestamp;

pub use map::{AUDIO_CODEC, VIDEO_CODEC};
pub use receive::{Playback, PlaybackStats};

/// The engine's clock for the media crate, so that capture, playout and network agree on the time.
pub fn media_clock(clock: &Clock) -> parlor_media::clock::Clock {
    let clock = clock.clone();
    Arc::new(move || map::media_time(clock.now()))
}

/// A media time as the engine's clock shows it.
pub fn timestamp(time: MediaTime) -> Timestamp {
    Timestamp::from_micros(time.as_micros())
}
