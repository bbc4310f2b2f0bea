//! Round trips, one-way delays and what is delivered.
//!
//! A one-way delay is a difference of two clocks that know nothing of each other. Only its change
//! means something: the least of the last ten seconds stands for the empty path, so the offset
//! cancels, and a drift of 100 ppm makes 1 ms.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units::Timestamp;

/// Two frames at 30 fps: among the packets of so long, at least one led its frame and met only
/// what others, or earlier frames, left in the queue.
const STANDING: Duration = Duration::from_millis(70);
/// A delivery rate is taken over this: six frames.
const DELIVERY: Duration = Duration::from_millis(200);
/// Packets held for either; 200 ms at 50 Mbit/s.
const ARRIVALS_MAX: usize = 1024;
/// The least delay and round trip are remembered for ten buckets of one second.
const BUCKETS: usize = 10;
const BUCKET: Duration = Duration::from_secs(1);
/// A one-way delay may differ this much more from its least than the round trip does from its own
/// before the clocks are suspected.
const DISAGREEMENT_MAX_US: i64 = 100_000;
/// So many reports in a row with a new time, and the clock has jumped; fewer may be a freak.
const DISAGREEMENTS: u32 = 3;
/// A clock that jumps more often than this in a minute is no clock: round trips are used instead.
const JUMPS_MAX: usize = 3;
const JUMPS_MEMORY: Duration = Duration::from_secs(60);

/// The least value of the last ten seconds.
#[derive(Default, Debug)]
struct Least {
    buckets: VecDeque<(Timestamp, i64)>,
}

impl Least {
    fn add(&mut self, now: Timestamp, value: i64) {
        while self
            .buckets
            .front()
            .is_some_and(|(start, _)| now.saturating_since(*start) >= BUCKET * BUCKETS as u32)
        {
            self.buckets.pop_front();
        }
        match self.buckets.back_mut() {
            Some((start, least)) if now.saturating_since(*start) < BUCKET => *least = value.min(*least),
            _ => self.buckets.push_back((now, value)),
        }
    }

    fn get(&self) -> Option<i64> {
        self.buckets.iter().map(|(_, least)| *least).min()
    }
}

/// Round trips as in RFC 6298, from the feedback alone.
#[derive(Default, Debug)]
pub(super) struct Rtt {
    smoothed_us: Option<f64>,
    deviation_us: f64,
    least: Least,
    /// The last three samples: their least is free of single late reports.
    last: [i64; 3],
}

impl Rtt {
    pub(super) fn add(&mut self, now: Timestamp, sample: Duration) {
        let sample_us = sample.as_micros() as i64;
        self.least.add(now, sample_us);
        let value = sample_us as f64;
        match &mut self.smoothed_us {
            None => {
                (self.smoothed_us, self.deviation_us) = (Some(value), value / 4.0);
                self.last = [sample_us; 3];
            }
            Some(smoothed) => {
                self.deviation_us += ((value - *smoothed).abs() - self.deviation_us) / 4.0;
                *smoothed += (value - *smoothed) / 8.0;
                self.last = [sample_us, self.last[0], self.last[1]];
            }
        }
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed_us.map(|micros| Duration::from_micros(micros as u64))
    }

    pub(super) fn deviation(&self) -> Duration {
        Duration::from_micros(self.deviation_us as u64)
    }

    /// How much longer than the shortest, µs.
    fn excess_us(&self, rtt: Duration) -> i64 {
        rtt.as_micros() as i64 - self.least.get().unwrap_or(0)
    }

    fn excess_recent(&self) -> Duration {
        let least = self.last.iter().min().copied().unwrap_or(0);
        Duration::from_micros((least - self.least.get().unwrap_or(0)).max(0) as u64)
    }
}

/// What a report's times are worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Agrees,
    Disagrees,
    Jumped,
}

/// One-way delays.
#[derive(Default, Debug)]
pub(super) struct Delay {
    least: Least,
    /// Arrival and delay of the packets of the last [`STANDING`], by the receiver's clock and in its order.
    recent: VecDeque<(Timestamp, i64)>,
    last_us: Option<i64>,
    disagreements: u32,
    jumps: VecDeque<Timestamp>,
}

impl Delay {
    /// Compares a one-way delay with the round trip it is part of. One part cannot have grown by
    /// more than the whole.
    pub(super) fn judge(&mut self, now: Timestamp, owd_us: i64, rtt: Duration, rtts: &Rtt) -> Verdict {
        while self.jumps.front().is_some_and(|at| now.saturating_since(*at) > JUMPS_MEMORY) {
            self.jumps.pop_front();
        }
        let Some(least) = self.least.get() else { return Verdict::Agrees };
        let excess = owd_us.saturating_sub(least);
        let agrees = excess > -DISAGREEMENT_MAX_US && excess < rtts.excess_us(rtt) + DISAGREEMENT_MAX_US;
        if agrees {
            self.disagreements = 0;
            return Verdict::Agrees;
        }
        self.disagreements += 1;
        if self.disagreements < DISAGREEMENTS {
            return Verdict::Disagrees;
        }
        self.jumps.push_back(now);
        if self.jumps.len() > JUMPS_MAX + 1 {
            self.jumps.pop_front();
        }
        let jumps = std::mem::take(&mut self.jumps);
        *self = Delay { jumps, ..Delay::default() };
        Verdict::Jumped
    }

    /// A packet arrived at `at` after `owd_us`, by the receiver's clock. Gives how long it queued.
    pub(super) fn add(&mut self, now: Timestamp, at: Timestamp, owd_us: i64) -> Duration {
        self.least.add(now, owd_us);
        self.last_us = Some(owd_us);
        insert_in_order(&mut self.recent, (at, owd_us));
        let newest = self.recent.back().map_or(at, |(at, _)| *at);
        let is_old = |(at, _): &(Timestamp, i64)| newest.saturating_since(*at) > STANDING;
        while self.recent.front().is_some_and(is_old) || self.recent.len() > ARRIVALS_MAX {
            self.recent.pop_front();
        }
        self.last_queue()
    }

    pub(super) fn last_owd_us(&self) -> Option<i64> {
        self.last_us
    }

    /// How long the last packet queued.
    pub(super) fn last_queue(&self) -> Duration {
        self.beyond_least(self.last_us)
    }

    /// The queue that stands.
    pub(super) fn queue(&self, rtt: &Rtt) -> Duration {
        if self.jumps.len() > JUMPS_MAX {
            return rtt.excess_recent();
        }
        self.beyond_least(self.recent.iter().map(|(_, owd_us)| *owd_us).min())
    }

    fn beyond_least(&self, owd_us: Option<i64>) -> Duration {
        let beyond = owd_us.zip(self.least.get()).map_or(0, |(owd, least)| owd.saturating_sub(least));
        Duration::from_micros(beyond.max(0) as u64)
    }
}

/// What arrives, by the receiver's clock.
#[derive(Default, Debug)]
pub(super) struct Delivery {
    /// Arrival and size, in order of arrival: those of the last [`DELIVERY`] and one before them.
    arrivals: VecDeque<(Timestamp, u32)>,
}

impl Delivery {
    pub(super) fn add(&mut self, at: Timestamp, bytes: u32) {
        insert_in_order(&mut self.arrivals, (at, bytes));
        let newest = self.arrivals.back().map_or(at, |(at, _)| *at);
        let spare = |second: Option<&(Timestamp, u32)>| {
            second.is_some_and(|(at, _)| newest.saturating_since(*at) >= DELIVERY)
        };
        while spare(self.arrivals.get(1)) || self.arrivals.len() > ARRIVALS_MAX {
            self.arrivals.pop_front();
        }
    }

    /// Bits per second between two arrivals that are [`DELIVERY`] apart or a little more: the later
    /// end of a frame to the later end of another, so that pauses between frames count in full.
    pub(super) fn rate(&self) -> u64 {
        let (Some((first, _)), Some((last, _))) = (self.arrivals.front(), self.arrivals.back()) else {
            return 0;
        };
        let span = last.saturating_since(*first).clamp(DELIVERY / 2, DELIVERY * 2);
        let bytes: u64 = self.arrivals.iter().skip(1).map(|(_, bytes)| u64::from(*bytes)).sum();
        bytes * 8_000_000 / span.as_micros() as u64
    }
}

/// Arrivals come in order but for reordering.
fn insert_in_order<T>(arrivals: &mut VecDeque<(Timestamp, T)>, arrival: (Timestamp, T)) {
    if arrivals.back().is_none_or(|(newest, _)| *newest <= arrival.0) {
        return arrivals.push_back(arrival);
    }
    let place = arrivals.partition_point(|(other, _)| *other <= arrival.0);
    arrivals.insert(place, arrival);
}
