//! How loud sound is, and whether somebody speaks. Pure arithmetic; nothing here changes the sound.

use crate::frame::Samples;

/// The level of digital silence, in dB below overload (RFC 6464).
pub const LEVEL_SILENT: u8 = 127;

/// Loudness of `samples` as RFC 6464 wants it: dB below overload, 0 (a full-scale square wave) to 127 (silence).
pub fn dbov(samples: &[i16]) -> u8 {
    if samples.is_empty() {
        return LEVEL_SILENT;
    }
    let squares: f64 = samples.iter().map(|&s| f64::from(s) * f64::from(s)).sum();
    let rms = (squares / samples.len() as f64).sqrt() / 32_768.0;
    if rms <= 0.0 {
        return LEVEL_SILENT;
    }
    // Full-scale samples are at most 0 dBov; 16-bit noise of one step is -90.3 dBov, so the clamp never cuts sound.
    (-20.0 * rms.log10()).round().clamp(0.0, 127.0) as u8
}

/// A level for people: 0 (silence) to 100 (overload), linear in dB over the 60 dB that speech uses.
pub fn percent(level: u8) -> u8 {
    let audible = 60u16.saturating_sub(u16::from(level.min(60)));
    // At most 60 * 100 / 60 = 100.
    (audible * 100 / 60) as u8
}

/// Tells speech from background noise by level alone: louder than the noise floor it has learnt.
///
/// Cheap and good enough to mark who is speaking; it does not know music or a dog from a voice.
#[derive(Clone, Debug)]
pub struct VoiceDetector {
    /// Learnt background level, dB below overload; larger is quieter.
    floor: f64,
    /// Blocks for which voice is still reported after the level fell.
    hangover: u8,
}

/// A block must be this much louder than the floor to count as voice.
const VOICE_ABOVE_FLOOR_DB: f64 = 12.0;

/// Quieter than this is never voice, however quiet the room is.
const VOICE_LEVEL_MIN: f64 = 55.0;

/// 15 blocks of 20 ms = 300 ms bridge the gaps between words.
const HANGOVER_BLOCKS: u8 = 15;

impl VoiceDetector {
    /// A detector that assumes a fairly quiet room (-60 dBov) until it has heard it.
    pub fn new() -> VoiceDetector {
        VoiceDetector { floor: 60.0, hangover: 0 }
    }

    /// Whether the block with this level (as from [`dbov`], blocks of 20 ms) belongs to speech.
    pub fn observe(&mut self, level: u8) -> bool {
        let level = f64::from(level);
        // The floor sinks to a quieter room within half a second and rises by 1 dB a second, so that a long sentence
        // does not become background while a fan that starts does.
        let step =
            if level > self.floor { 0.08 * (level - self.floor) } else { (level - self.floor).max(-0.02) };
        let loud = level + VOICE_ABOVE_FLOOR_DB <= self.floor && level <= VOICE_LEVEL_MIN;
        self.floor += step;
        self.hangover = if loud { HANGOVER_BLOCKS } else { self.hangover.saturating_sub(1) };
        self.hangover > 0
    }

    /// [`dbov`] and [`VoiceDetector::observe`] of one block of 20 ms.
    pub fn level_and_voice(&mut self, samples: &Samples) -> (u8, bool) {
        let level = dbov(samples.data());
        (level, self.observe(level))
    }
}

impl Default for VoiceDetector {
    fn default() -> VoiceDetector {
        VoiceDetector::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_known_signals() {
        assert_eq!(dbov(&[]), 127);
        assert_eq!(dbov(&[0; 960]), 127);
        assert_eq!(dbov(&[i16::MIN; 960]), 0);
        assert_eq!(dbov(&[3277; 960]), 20);
        assert_eq!(dbov(&[1; 960]), 90);
        assert_eq!((percent(0), percent(30), percent(60), percent(127)), (100, 50, 0, 0));
    }

    #[test]
    fn speech_stands_out_of_a_steady_fan() {
        let mut voice = VoiceDetector::new();
        let fan = (0..500).filter(|_| voice.observe(45)).count();
        assert!(fan < 500, "a fan is not voice for ever");
        let mut voice = VoiceDetector::new();
        for _ in 0..100 {
            assert!(!voice.observe(70), "a quiet room is not voice");
        }
        assert!(voice.observe(30), "speech is");
        let tail = (0..100).filter(|_| voice.observe(70)).count();
        assert_eq!(tail, usize::from(HANGOVER_BLOCKS) - 1);
    }
}
