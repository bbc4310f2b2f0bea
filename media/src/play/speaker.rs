//! A speaker, by cpal: asks a feed for sound as fast as the device takes it.

use std::ops::ControlFlow;
use std::time::Duration;

use super::{AudioFeed, PlayError};
use crate::clock::{Clock, Ticker};
use crate::device::{DeviceStream, Direction};
use crate::frame::{AUDIO_FRAME_SAMPLES, samples_to_duration};

/// How often the ring is looked at: a fourth of a block.
const LOOK: Duration = Duration::from_millis(5);

/// Never more than this is asked for ahead, samples: 200 ms, whatever a device takes at once.
const AHEAD_MAX: usize = 9_600;

/// Plays a feed until dropped.
pub struct Speaker {
    _ticker: Ticker,
    _stream: DeviceStream,
}

impl Speaker {
    /// Opens the speaker of that name (as in [`speakers`](crate::capture::speakers)), or the system's default, and plays
    /// `feed` on it. A device that fails later is opened again, with growing pauses.
    ///
    /// # Errors
    /// [`PlayError::Device`] if there is none or it refuses; [`PlayError::Thread`].
    pub fn open(
        name: Option<&str>,
        clock: Clock,
        mut feed: impl AudioFeed + 'static,
    ) -> Result<Speaker, PlayError> {
        let stream = DeviceStream::open(Direction::Output, name)?;
        let ring = stream.ring().clone();
        let ticker = Ticker::start("parlor-speaker-feed", clock, Some(LOOK), move |now| {
            // One callback and one block ahead: the least that never runs dry between two looks.
            let wanted = (ring.callback_max() + AUDIO_FRAME_SAMPLES).min(AHEAD_MAX);
            let mut held = ring.len();
            while held < wanted {
                let block = feed.pull(now + samples_to_duration(held), AUDIO_FRAME_SAMPLES).to_mono();
                ring.push(block.data());
                // Counted here and not read again, so that a device that takes faster than we give ends the loop.
                held += AUDIO_FRAME_SAMPLES;
            }
            ControlFlow::Continue(())
        });
        Ok(Speaker { _ticker: ticker.map_err(PlayError::Thread)?, _stream: stream })
    }
}
