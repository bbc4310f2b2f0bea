//! How much one user may publish: frames within it pass, those beyond are dropped whole, and who goes on beyond it loses
//! the stream that takes most.
//!
//! A machine; it looks at sizes only.

use std::collections::BTreeMap;

use parlor_transport::units::Timestamp;

use crate::budget::Budget;
use crate::limits::{Limits, PUBLISH_OVER_FORGET, PUBLISH_OVER_MAX, PUBLISH_OVER_TELL_INTERVAL};

/// What becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It is forwarded.
    Passes,
    /// It is not; the publisher is told if `tell` says so.
    Dropped {
        /// A while passed since the publisher was told.
        tell: bool,
    },
    /// It is not, and this lane's stream has to end.
    EndsStream(u32),
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Allowance {
    per_second: u32,
    budget: Budget,
    over: Option<Over>,
}

/// A time in which frames are dropped.
#[derive(Debug)]
struct Over {
    since: Timestamp,
    last: Timestamp,
    told: Timestamp,
    /// What came meanwhile, by lane; as many as a user publishes.
    bytes: BTreeMap<u32, u64>,
}

impl Allowance {
    pub(crate) fn new(now: Timestamp, limits: &Limits) -> Self {
        let budget = Budget::new(now, limits.publish_bytes_burst_max, limits.publish_bytes_per_second_max);
        Allowance { per_second: limits.publish_bytes_per_second_max, budget, over: None }
    }

    /// Bytes a second that are passed on and on.
    pub(crate) fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Other limits from now on.
    pub(crate) fn set_limits(&mut self, now: Timestamp, limits: &Limits) {
        self.per_second = limits.publish_bytes_per_second_max;
        self.budget.set(now, limits.publish_bytes_burst_max, limits.publish_bytes_per_second_max);
    }

    /// Whether frames are being dropped.
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// A frame of so many bytes came on `lane`.
    pub(crate) fn take(&mut self, now: Timestamp, lane: u32, bytes: usize) -> Fate {
        let cost = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.over.take_if(|over| now.saturating_since(over.last) >= PUBLISH_OVER_FORGET);
        let passes = self.budget.spend(now, cost);
        if let Some(over) = &mut self.over {
            *over.bytes.entry(lane).or_default() += u64::from(cost);
        }
        if passes {
            return Fate::Passes;
        }
        let Some(over) = &mut self.over else {
            let bytes = [(lane, u64::from(cost))].into();
            self.over = Some(Over { since: now, last: now, told: now, bytes });
            return Fate::Dropped { tell: true };
        };
        over.last = now;
        if now.saturating_since(over.since) >= PUBLISH_OVER_MAX {
            let largest = over.bytes.iter().max_by_key(|(_, bytes)| **bytes).map_or(lane, |(lane, _)| *lane);
            self.over = None;
            return Fate::EndsStream(largest);
        }
        let tell = now.saturating_since(over.told) >= PUBLISH_OVER_TELL_INTERVAL;
        if tell {
            over.told = now;
        }
        Fate::Dropped { tell }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    fn allowance() -> Allowance {
        let limits = Limits {
            publish_bytes_per_second_max: 100_000,
            publish_bytes_burst_max: 200_000,
            ..Limits::default()
        };
        Allowance::new(at(0), &limits)
    }

    #[test]
    fn a_large_keyframe_passes_and_so_does_the_rate_on_and_on() {
        let mut allowance = allowance();
        assert_eq!(allowance.take(at(0), 1, 150_000), Fate::Passes);
        for frame in 1..3000 {
            assert_eq!(allowance.take(at(frame * 10), 1, 1000), Fate::Passes);
        }
    }

    #[test]
    fn who_sends_twice_the_rate_loses_half_is_told_at_intervals_and_then_loses_the_larger_stream() {
        let mut allowance = allowance();
        let (mut passed, mut told, mut first) = (0, 0, None);
        for ms in (0..).step_by(10) {
            let now = at(ms);
            for (lane, bytes) in [(1, 500), (2, 1500)] {
                match allowance.take(now, lane, bytes) {
                    Fate::Passes => passed += bytes,
                    Fate::Dropped { tell } => {
                        first.get_or_insert(now);
                        told += usize::from(tell);
                    }
                    Fate::EndsStream(lane) => {
                        let over = now.saturating_since(first.unwrap());
                        assert_eq!(lane, 2);
                        // To the next frame that does not fit.
                        assert!(
                            over >= PUBLISH_OVER_MAX && over.as_millis() < PUBLISH_OVER_MAX.as_millis() + 50
                        );
                        let intervals = PUBLISH_OVER_MAX.as_secs() / PUBLISH_OVER_TELL_INTERVAL.as_secs();
                        assert_eq!(told as u64, intervals);
                        assert!(passed as u64 <= 200_000 + ms * 100, "{passed} in {ms} ms");
                        return;
                    }
                }
            }
        }
    }

    #[test]
    fn a_peak_now_and_then_is_cut_and_forgotten() {
        let mut allowance = allowance();
        for minute in 0..10 {
            let now = minute * 60_000;
            assert_eq!(allowance.take(at(now), 1, 200_000), Fate::Passes);
            assert_eq!(allowance.take(at(now + 1), 1, 200_000), Fate::Dropped { tell: true });
            assert_eq!(allowance.take(at(now + 500), 1, 200_000), Fate::Dropped { tell: false });
        }
    }

    #[test]
    fn other_limits_hold_at_once() {
        let mut allowance = allowance();
        assert_eq!(allowance.take(at(0), 1, 200_000), Fate::Passes);
        assert_eq!(allowance.take(at(0), 1, 1000), Fate::Dropped { tell: true });
        let limits = Limits { publish_bytes_burst_max: 300_000, ..Limits::default() };
        allowance.set_limits(at(0), &limits);
        assert_eq!(allowance.take(at(0), 1, 100_000), Fate::Passes);
    }
}
