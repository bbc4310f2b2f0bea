//! Figures over the last seconds: rates, ages, counts. Values go in with their time; nothing here asks for it.

use std::collections::VecDeque;
use std::time::Duration;

pub use crate::call::{RecoveryStats, Rung};
use parlor_transport::quic::OutStats;
use parlor_transport::units::Timestamp;

/// How far back a [`Meter`] looks.
pub const WINDOW: Duration = Duration::from_secs(2);
/// Entries a [`Meter`] keeps: [`WINDOW`] of 20 ms sound and three layers of 60 frames/s, twice over.
const ENTRIES_MAX: usize = 1024;

/// Frames and bytes per second, and ages, over the last [`WINDOW`].
///
/// ```
/// use parlor_client::stats::Meter;
/// use parlor_transport::units::Timestamp;
/// use std::time::Duration;
///
/// let mut meter = Meter::default();
/// for frame in 0..40 {
///     meter.record(Timestamp::from_micros(frame * 50_000), 1000, Duration::from_millis(frame));
/// }
/// let rates = meter.rates(Timestamp::from_micros(2_000_000));
/// assert_eq!(rates.frames_per_second, 20.0);
/// assert_eq!(rates.kbit_per_second, 160.0);
/// assert_eq!(rates.age_p99, Some(Duration::from_millis(39)));
/// ```
#[derive(Debug, Default)]
pub struct Meter {
    /// Time, bytes and age of each frame.
    entries: VecDeque<(Timestamp, usize, Duration)>,
    /// The first frame of all: a meter younger than its window divides by its age.
    first: Option<Timestamp>,
}

/// What a [`Meter`] shows.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Rates {
    /// Frames per second.
    pub frames_per_second: f64,
    /// Payload, kbit/s (1,000 bit).
    pub kbit_per_second: f64,
    /// Median age; `None` without frames.
    pub age_p50: Option<Duration>,
    /// 99th percentile of the age.
    pub age_p99: Option<Duration>,
}

impl Meter {
    /// A frame of `bytes` was seen at `now`, `age` after its capture.
    pub fn record(&mut self, now: Timestamp, bytes: usize, age: Duration) {
        self.first.get_or_insert(now);
        self.entries.push_back((now, bytes, age));
        self.forget(now);
    }

    fn forget(&mut self, now: Timestamp) {
        let old = |entry: &(Timestamp, usize, Duration)| now.saturating_since(entry.0) > WINDOW;
        while self.entries.len() > ENTRIES_MAX || self.entries.front().is_some_and(old) {
            self.entries.pop_front();
        }
    }

    /// The figures at `now`.
    pub fn rates(&mut self, now: Timestamp) -> Rates {
        self.forget(now);
        let Some(first) = self.first else { return Rates::default() };
        let span = now.saturating_since(first).min(WINDOW).as_secs_f64();
        if span == 0.0 {
            return Rates::default();
        }
        let bytes: usize = self.entries.iter().map(|entry| entry.1).sum();
        let mut ages: Vec<_> = self.entries.iter().map(|entry| entry.2).collect();
        ages.sort_unstable();
        Rates {
            frames_per_second: self.entries.len() as f64 / span,
            kbit_per_second: bytes as f64 * 8.0 / 1000.0 / span,
            age_p50: percentile(&ages, 50),
            age_p99: percentile(&ages, 99),
        }
    }
}

/// The smallest value that `percent` of the sorted values do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// What one player received.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct PlayerStats {
    /// Frames of all tracks that came.
    pub frames: u64,
    /// Their payload, bytes.
    pub bytes: u64,
    /// Frames that were lost on the way.
    pub lost: u64,
    /// Frames left out because the app read too slowly.
    pub skipped: u64,
    /// Keyframes asked for here.
    pub keyframe_requests: u64,
    /// Video over the last 2 s; age is that on arrival.
    pub video: Rates,
    /// Sound over the last 2 s; age is that on arrival.
    pub audio: Rates,
}

/// What one publisher sent.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct PublisherStats {
    /// What became of the frames so far.
    pub counts: crate::publisher::outbox::SendCounts,
    /// Video over the last 2 s; age is the time between capture and leaving.
    pub video: Rates,
    /// Sound over the last 2 s; age is the time between capture and leaving.
    pub audio: Rates,
}

/// How the connection of a room does.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct RoomStats {
    /// The round trip to the relay; `None` before the connection stands.
    pub rtt: Option<Duration>,
    /// How far the estimate of the relay's clock, and so every age, may be wrong either way.
    pub clock_error: Option<Duration>,
    /// What this side may send and has sent; `None` before the connection stands. Publishers share it.
    pub uplink: Option<OutStats>,
    /// How often the room came back after its connection was lost.
    pub recovery: RecoveryStats,
    /// From the call of `join` to the relay's answer.
    pub join_time: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_forgets_and_never_grows() {
        let mut meter = Meter::default();
        assert_eq!(meter.rates(Timestamp::ZERO), Rates::default());
        for micros in 0..10_000 {
            meter.record(Timestamp::from_micros(micros), 1, Duration::ZERO);
        }
        assert_eq!(meter.entries.len(), ENTRIES_MAX);
        let quiet = meter.rates(Timestamp::from_micros(10_000_000));
        assert_eq!((quiet.frames_per_second, quiet.age_p50), (0.0, None));
    }

    #[test]
    fn percentiles_are_the_usual_ones() {
        let ages: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&ages, 50), Some(Duration::from_millis(100)));
        assert_eq!(percentile(&ages, 99), Some(Duration::from_millis(198)));
        assert_eq!(percentile(&ages[..1], 50), Some(Duration::from_millis(1)));
    }
}
