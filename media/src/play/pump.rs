//! A stand-in for a speaker: pulls a feed on a real clock where there is no sound card, and hands the sound to a sink.

use std::ops::ControlFlow;

use super::{AudioFeed, AudioSink, PlayError};
use crate::clock::{Clock, Ticker};
use crate::frame::{AUDIO_FRAME, AUDIO_FRAME_SAMPLES};

/// Pulls 20 ms of sound every 20 ms until it is dropped.
pub struct AudioPump {
    _ticker: Ticker,
}

impl AudioPump {
    /// Starts pulling from `feed` into `sink`, on an own thread.
    ///
    /// # Errors
    /// [`PlayError::Thread`].
    pub fn start(
        clock: Clock,
        mut feed: impl AudioFeed + 'static,
        mut sink: impl AudioSink + 'static,
    ) -> Result<AudioPump, PlayError> {
        let ticker = Ticker::start("parlor-audio-pump", clock, Some(AUDIO_FRAME), move |now| {
            sink.play(&feed.pull(now, AUDIO_FRAME_SAMPLES));
            ControlFlow::Continue(())
        });
        Ok(AudioPump { _ticker: ticker.map_err(PlayError::Thread)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::real_clock;
    use crate::frame::Samples;
    use crate::play::Mixer;
    use std::sync::mpsc::channel;

    #[test]
    fn blocks_of_20_ms_come_until_it_is_dropped() {
        let (sender, blocks) = channel();
        let pump = AudioPump::start(real_clock(), Mixer::new(), move |samples: &Samples| {
            // The receiver lives until the pump is gone.
            let _ = sender.send(samples.clone());
        });
        assert!(blocks.iter().take(3).all(|samples| samples.len() == 960));
        drop(pump);
        let _ = blocks.iter().count();
    }
}
