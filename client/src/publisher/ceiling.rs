//! How much a relay takes that said it was too much: far less at once, and slowly more again, as nobody says how much it
//! takes and its limit may be raised.
//!
//! A machine; one for all that a user publishes in a room, as the relay's limit is.

use std::collections::VecDeque;
use std::time::Duration;

use parlor_transport::units::Timestamp;

/// What was sent is looked at over this time: as long as a relay waits before it says again that it is too much.
const WINDOW: Duration = Duration::from_secs(2);
/// The window in steps, so that it stays small at any rate of frames.
const STEP: Duration = Duration::from_millis(100);
/// The first time, this much of what was sent is tried: most are over the limit by little.
const BACK_FIRST: f64 = 0.7;
/// While it is still too much, this. A relay takes a stream away after 10 s and says so every 2 s, of which the last 3 s
/// have to be within the limit: who sends five times as much is in time.
const BACK_AGAIN: f64 = 0.5;
/// Said again sooner than this, it was still too much; later, it is so anew.
const AGAIN_WITHIN: Duration = Duration::from_secs(5);
/// So long it is left at that, and twice as long each time that more was too much …
const WAIT_FIRST: Duration = Duration::from_secs(30);
/// … up to this: a frame lost every ten minutes is nobody's grief.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// Then it rises by this share each second: back where it was in 18 s.
const RISE: f64 = 1.02;
/// At so many times what was too much, there is no limit any more, or another one.
const LIFTED: f64 = 2.0;
/// Less would carry no voice, bits/s.
const LEAST: f64 = 24_000.0;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Ceiling {
    /// Bytes by the step in which they were sent.
    sent: VecDeque<(Timestamp, usize)>,
    refused: Option<Refused>,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    /// The last time.
    at: Timestamp,
    /// What was sent then, bits/s.
    rate: f64,
    /// What is sent since, bits/s.
    most: f64,
    wait: Duration,
}

impl Refused {
    /// What may be sent; none when the limit is forgotten.
    fn most(&self, now: Timestamp) -> Option<f64> {
        let seconds = now.saturating_since(self.at).saturating_sub(self.wait).as_secs().min(1_000);
        Some(self.most * RISE.powi(seconds as i32)).filter(|most| *most < self.rate * LIFTED)
    }
}

impl Ceiling {
    /// A frame of so many bytes was sent.
    pub(crate) fn sent(&mut self, now: Timestamp, bytes: usize) {
        self.forget(now);
        match self.sent.back_mut() {
            Some((at, sum)) if now.saturating_since(*at) < STEP => *sum += bytes,
            _ => self.sent.push_back((now, bytes)),
        }
    }

    /// The relay did not take all of it.
    pub(crate) fn refused(&mut self, now: Timestamp) {
        self.forget(now);
        let bytes: usize = self.sent.iter().map(|(_, bytes)| bytes).sum();
        let sent = bytes as f64 * 8.0 / WINDOW.as_secs_f64();
        let before = self.refused;
        let is_again = before.is_some_and(|refused| now.saturating_since(refused.at) < AGAIN_WITHIN);
        let allowed = before.and_then(|refused| refused.most(now));
        let rate = allowed.map_or(sent, |most| most.min(sent)).max(LEAST);
        let most = (rate * if is_again { BACK_AGAIN } else { BACK_FIRST }).max(LEAST);
        let wait = match before.filter(|_| allowed.is_some()) {
            Some(refused) if is_again => refused.wait,
            Some(refused) => (refused.wait * 2).min(WAIT_MAX),
            None => WAIT_FIRST,
        };
        self.refused = Some(Refused { at: now, rate, most, wait });
    }

    /// What may be sent of everything, bits/s; none while nobody minds.
    pub(crate) fn most(&self, now: Timestamp) -> Option<u64> {
        Some(self.refused?.most(now)? as u64)
    }

    fn forget(&mut self, now: Timestamp) {
        while self.sent.front().is_some_and(|(at, _)| now.saturating_since(*at) >= WINDOW) {
            self.sent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames every 50 ms at what may be sent and at most at `wanted`, to a relay that takes `limit` (bits/s) and has no
    /// patience for peaks. Gives when it refused, and what was sent in the last second.
    fn send(ceiling: &mut Ceiling, wanted: u64, limit: u64, ms: std::ops::Range<u64>) -> (Vec<u64>, u64) {
        let (mut refusals, mut told, mut rate) = (Vec::new(), None::<u64>, 0);
        for ms in ms.step_by(50) {
            let now = Timestamp::from_micros(ms * 1000);
            rate = ceiling.most(now).unwrap_or(u64::MAX).min(wanted);
            ceiling.sent(now, (rate / 8 / 20) as usize);
            if rate > limit && told.is_none_or(|told| ms - told >= 2_000) {
                ceiling.refused(now);
                refusals.push(ms);
                told = Some(ms);
            }
        }
        (refusals, rate)
    }

    #[test]
    fn five_times_the_limit_is_within_it_in_time() {
        for times in 11..=50 {
            let mut ceiling = Ceiling::default();
            assert_eq!(send(&mut ceiling, times * 100_000, u64::MAX, 0..3_000), (vec![], times * 100_000));
            let (refusals, rate) = send(&mut ceiling, times * 100_000, 1_000_000, 3_000..33_000);
            assert!(refusals.len() <= 4, "{times}: {refusals:?}");
            assert!((300_000..=1_000_000).contains(&rate), "{times}: {rate}");
            assert!(ceiling.sent.len() <= 21);
        }
    }

    #[test]
    fn it_is_tried_ever_more_seldom_whether_more_is_taken_and_forgotten_when_it_is() {
        let mut ceiling = Ceiling::default();
        send(&mut ceiling, 1_400_000, u64::MAX, 0..3_000);
        let (refusals, _) = send(&mut ceiling, 1_400_000, 1_000_000, 3_000..1_003_000);
        assert!((4..=7).contains(&refusals.len()), "{refusals:?}");
        let apart: Vec<_> = refusals.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(apart.is_sorted() && apart[0] > 30_000, "{apart:?}");

        let (refusals, rate) = send(&mut ceiling, 1_400_000, 2_000_000, 1_003_000..2_000_000);
        assert_eq!((refusals, rate), (vec![], 1_400_000));
        assert_eq!(ceiling.most(Timestamp::from_micros(2_000_000_000)), None);
    }

    #[test]
    fn a_voice_is_never_lowered_to_nothing() {
        let mut ceiling = Ceiling::default();
        for second in 0..100 {
            ceiling.refused(Timestamp::from_micros(second * 2_000_000));
        }
        assert_eq!(ceiling.most(Timestamp::from_micros(200_000_000)), Some(24_000));
    }
}
