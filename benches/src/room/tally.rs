//! When people came and went, and how much later each of the others heard of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parlor_transport::units::Timestamp;

/// The longest delay that is told apart, in steps: later ones count as this.
const STEPS: usize = 60_000;
/// How finely.
const STEP: Duration = Duration::from_millis(1);

/// Delays of many millions of deliveries, to a millisecond.
#[derive(Debug)]
pub struct Histogram {
    counts: Vec<AtomicU64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: (0..STEPS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Histogram {
    /// Counts a delay.
    pub fn record(&self, delay: Duration) {
        let step = (delay.as_micros() / STEP.as_micros()) as usize;
        self.counts[step.min(STEPS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted so far, which then begins anew.
    pub fn take(&self) -> Histogram {
        let counts = self.counts.iter().map(|count| count.swap(0, Ordering::Relaxed).into()).collect();
        Histogram { counts }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The delay that the share `q` (0–1) did not exceed, rounded up to 1 ms; `None` without any.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let rank = ((q * self.len() as f64).ceil() as u64).max(1);
        let mut below = 0;
        let at = self.counts.iter().position(|count| {
            below += count.load(Ordering::Relaxed);
            below >= rank
        })?;
        Some(STEP * (at as u32 + 1))
    }

    /// The share of deliveries later than each delay, for a chart: (ms, share).
    pub fn later(&self) -> Vec<(f64, f64)> {
        let all = self.len().max(1) as f64;
        let mut came = 0;
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).enumerate();
        let steps = counts.filter(|(_, count)| *count > 0).map(|(step, count)| {
            let share = (all - came as f64) / all;
            came += count;
            (step as f64 * STEP.as_secs_f64() * 1e3, share)
        });
        steps.collect()
    }
}

/// Times of something that happened once to each of many users, by their numbers.
#[derive(Debug)]
pub struct Times(Vec<AtomicU64>);

impl Times {
    /// None yet, for so many users.
    pub fn new(users: usize) -> Self {
        Times((0..users).map(|_| AtomicU64::new(0)).collect())
    }

    /// It happens now.
    pub fn set(&self, user: usize, now: Timestamp) {
        if let Some(time) = self.0.get(user) {
            time.store(now.as_micros().max(1), Ordering::Relaxed);
        }
    }

    /// How long ago it was; `None` if it did not happen here.
    pub fn since(&self, user: usize, now: Timestamp) -> Option<Duration> {
        let time = self.0.get(user)?.load(Ordering::Relaxed);
        (time > 0).then(|| now.saturating_since(Timestamp::from_micros(time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_delays() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (0..100).for_each(|ms| histogram.record(Duration::from_millis(ms)));
        histogram.record(Duration::from_secs(3600));
        assert_eq!(histogram.quantile(0.5), Some(Duration::from_millis(51)));
        assert_eq!(histogram.quantile(0.99), Some(Duration::from_millis(100)));
        assert_eq!(histogram.quantile(1.0), Some(STEP * STEPS as u32));
        assert_eq!(histogram.len(), 101);
    }
}
