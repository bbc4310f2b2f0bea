//! A microphone as a source, by cpal.

use std::time::Duration;

use super::{AudioSource, CaptureError, DeviceInfo};
use crate::clock::Clock;
use crate::device::{DeviceStream, Direction, list};
use crate::frame::{AUDIO_FRAME_SAMPLES, MediaTime, Samples, samples_to_duration};

/// How long one call waits for sound; a device that is opened again is silent for longer.
const PATIENCE: Duration = Duration::from_millis(100);

/// Microphones that answer. Empty where there is none.
pub fn microphones() -> Vec<DeviceInfo> {
    list(Direction::Input)
}

/// Speakers that answer. Empty where there is none.
pub fn speakers() -> Vec<DeviceInfo> {
    list(Direction::Output)
}

/// Gives what a microphone hears, mono.
pub struct Microphone {
    stream: DeviceStream,
    clock: Clock,
}

impl Microphone {
    /// Opens the microphone of that name (as in [`microphones`]), or the system's default. `clock` stamps the sound.
    ///
    /// # Errors
    /// [`CaptureError::Device`] if there is none or it refuses.
    pub fn open(name: Option<&str>, clock: Clock) -> Result<Microphone, CaptureError> {
        Ok(Microphone { stream: DeviceStream::open(Direction::Input, name)?, clock })
    }
}

impl AudioSource for Microphone {
    fn channels(&self) -> u8 {
        1
    }

    fn next(&mut self, _now: MediaTime) -> Result<Option<Samples>, CaptureError> {
        let taken = self.stream.ring().take(AUDIO_FRAME_SAMPLES, PATIENCE);
        Ok(taken.map(|(samples, left)| {
            // The newest sample was heard now; what is left and this block were heard before it.
            let age = samples_to_duration(left + samples.len());
            Samples::mono(samples, (self.clock)() - age)
        }))
    }

    fn is_paced(&self) -> bool {
        true
    }
}
