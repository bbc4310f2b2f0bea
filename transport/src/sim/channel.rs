//! Which packets a link loses: good and bad times, see [`Loss`].

use std::time::Duration;

use rand::RngExt;

use super::SimRng;
use super::profile::Loss;
use crate::units::Timestamp;

/// Where loss is decided: good and bad times, see [`Loss`].
#[derive(Debug)]
pub(super) struct Channel {
    rng: SimRng,
    bad: bool,
    /// When the present time ends, for [`Loss::Fades`] only.
    until: Option<Timestamp>,
}

impl Channel {
    pub(super) fn new(rng: SimRng) -> Self {
        Channel { rng, bad: false, until: None }
    }

    /// Whether the next packet, sent at `now`, is lost.
    pub(super) fn loses(&mut self, now: Timestamp, loss: Loss) -> bool {
        match loss {
            Loss::None => false,
            Loss::Random(share) => self.rng.random::<f64>() < share,
            Loss::Bursts { average, burst_mean } => {
                let average = average.clamp(0.0, 1.0);
                if average == 1.0 {
                    return true;
                }
                let odds = average / (1.0 - average);
                let burst_mean = burst_mean.max(1.0).max(odds);
                let leaves = if self.bad { 1.0 / burst_mean } else { odds / burst_mean };
                self.bad ^= self.rng.random::<f64>() < leaves;
                self.bad
            }
            Loss::Fades { average, fade_mean } => {
                let average = average.clamp(0.0, 1.0);
                if average == 0.0 || average == 1.0 || fade_mean.is_zero() {
                    return average == 1.0;
                }
                let clear_mean = fade_mean.mul_f64((1.0 - average) / average);
                let mut until = self.until.unwrap_or(now);
                while until <= now {
                    // The very first period is clear: `bad` starts as if one had just ended.
                    self.bad = self.until.is_some() && !self.bad;
                    let mean = if self.bad { fade_mean } else { clear_mean };
                    until += exponential(&mut self.rng, mean).max(Duration::from_micros(1));
                    self.until = Some(until);
                }
                self.bad
            }
        }
    }
}

/// An exponentially distributed time.
pub(super) fn exponential(rng: &mut SimRng, mean: Duration) -> Duration {
    // `random` is below 1, so the logarithm is finite.
    mean.mul_f64(-(1.0 - rng.random::<f64>()).ln())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::seeded;

    /// Share of packets lost and mean length of the runs, at one packet a millisecond.
    fn measure(loss: Loss, packets: u64) -> (f64, f64) {
        let mut channel = Channel::new(seeded(1, "test"));
        let (mut lost, mut runs, mut before) = (0, 0, false);
        for n in 0..packets {
            let now = channel.loses(Timestamp::from_micros(n * 1_000), loss);
            lost += u64::from(now);
            runs += u64::from(now && !before);
            before = now;
        }
        (lost as f64 / packets as f64, lost as f64 / runs.max(1) as f64)
    }

    fn assert_near(found: f64, wanted: f64, tolerance: f64, what: &str) {
        assert!((found - wanted).abs() <= tolerance * wanted, "{what}: {found}, not {wanted}");
    }

    #[test]
    fn random_loss_has_its_share_and_short_runs() {
        let (share, run) = measure(Loss::Random(0.05), 200_000);
        assert_near(share, 0.05, 0.05, "share");
        assert_near(run, 1.0 / 0.95, 0.02, "run");
    }

    #[test]
    fn bursts_have_their_average_and_their_length() {
        for (average, burst_mean) in [(0.01, 3.0), (0.05, 3.0), (0.2, 8.0), (0.7, 4.0)] {
            let (share, run) = measure(Loss::Bursts { average, burst_mean }, 400_000);
            assert_near(share, average, 0.08, "share");
            assert_near(run, burst_mean, 0.08, "run");
        }
        // Runs of 1 cannot add up to 80 %: the average wins.
        let (share, run) = measure(Loss::Bursts { average: 0.8, burst_mean: 1.0 }, 400_000);
        assert_near(share, 0.8, 0.02, "share");
        assert_near(run, 4.0, 0.05, "run");
    }

    #[test]
    fn fades_take_their_share_of_time_and_end_while_nobody_sends() {
        let fades = Loss::Fades { average: 0.1, fade_mean: Duration::from_millis(50) };
        let (share, run) = measure(fades, 1_000_000);
        assert_near(share, 0.1, 0.08, "share");
        // A run seen in whole packets is a little longer than the fade: those too short to hit one are not seen.
        assert_near(run, 50.5, 0.08, "run");

        let mut channel = Channel::new(seeded(1, "test"));
        let mut at = Timestamp::ZERO;
        let mut lost = 0;
        for _ in 0..2_000 {
            at += Duration::from_secs(10);
            lost += u32::from(channel.loses(at, fades));
        }
        assert!((140..260).contains(&lost), "{lost} of 2,000 single packets, not about 200");
    }

    #[test]
    fn nothing_and_everything_are_possible() {
        let fade_mean = Duration::from_millis(10);
        for (average, wanted) in [(0.0, 0.0), (1.0, 1.0), (-1.0, 0.0), (7.0, 1.0)] {
            assert_eq!(measure(Loss::Random(average), 1_000).0, wanted);
            assert_eq!(measure(Loss::Bursts { average, burst_mean: 3.0 }, 1_000).0, wanted);
            assert_eq!(measure(Loss::Fades { average, fade_mean }, 1_000).0, wanted);
        }
        assert_eq!(measure(Loss::None, 1_000).0, 0.0);
    }
}
