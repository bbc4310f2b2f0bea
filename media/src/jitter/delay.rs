//! How long to hold frames back: measured from how unevenly they arrive.
//!
//! The delay is short while frames come evenly, grows at once when they do not, and shrinks slowly. It only measures;
//! it holds no frames.

use std::collections::VecDeque;
use std::time::Duration;

use crate::frame::MediaTime;

/// No frame is held back longer than this for the sake of smoothness: beyond it, people talk over each other.
pub const DELAY_MAX: Duration = Duration::from_millis(500);

/// Arrivals remembered: 10 s of sound or 17 s of pictures at 30 per second.
const WINDOW: usize = 512;

/// Nor are arrivals remembered for longer than this: routes and clocks change.
const WINDOW_TIME: Duration = Duration::from_secs(10);

/// This part of the frames is to be in time; the rest is late and shown at once, or concealed.
const IN_TIME: f64 = 0.97;

/// How much of the delay is given back per second, in µs: sound must be able to follow by playing 2 % faster.
const SHRINK_PER_SECOND: i64 = 20_000;

/// Frames that stop coming less late for this long are those of the present.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// Less late by at least this, µs: more than a clock's error, less than what catching up gains in a frame.
const LESS_LATE: i64 = 5_000;

/// A frame this far from the others was captured on another clock: forget the old one.
const CLOCK_JUMP: i64 = 3_000_000;

/// Watches arrivals and says at which offset to play.
#[derive(Clone, Debug)]
pub struct DelayEstimator {
    /// Arrival time and offset (arrival minus capture, µs), oldest first.
    arrivals: VecDeque<(MediaTime, i64)>,
    /// Offset to play at.
    wished: Option<i64>,
    /// Added to what arrivals need, µs.
    margin: i64,
    /// The least offset so far and when it came, until that was [`SETTLED_AFTER`] ago: a newcomer is
    /// sent the past first, and how old that is says nothing of the network.
    settling: Option<(MediaTime, i64)>,
    is_settled: bool,
}

impl DelayEstimator {
    /// Asks for `margin` (at most [`DELAY_MAX`]) more delay than arrivals need.
    pub fn new(margin: Duration) -> DelayEstimator {
        let mut estimator = DelayEstimator {
            arrivals: VecDeque::with_capacity(WINDOW),
            wished: None,
            margin: 0,
            settling: None,
            is_settled: false,
        };
        estimator.set_margin(margin);
        estimator
    }

    /// Changes the margin, from the next arrival on.
    pub fn set_margin(&mut self, margin: Duration) {
        self.margin = margin.min(DELAY_MAX).as_micros() as i64;
    }

    /// Takes note of a frame captured at `capture` that arrived at `arrival`.
    pub fn observe(&mut self, capture: MediaTime, arrival: MediaTime) {
        let offset = arrival.micros_since(capture);
        if self.fastest().is_some_and(|fastest| offset.abs_diff(fastest) > CLOCK_JUMP as u64) {
            self.arrivals.clear();
            self.wished = None;
        }
        self.leave_the_past(arrival, offset);
        let since_last = self.arrivals.back().map_or(Duration::ZERO, |&(last, _)| arrival - last);
        self.arrivals.push_back((arrival, offset));
        while self.arrivals.len() > WINDOW
            || self.arrivals.front().is_some_and(|&(first, _)| arrival - first > WINDOW_TIME)
        {
            self.arrivals.pop_front();
        }
        let fastest = self.fastest().unwrap_or(offset);
        let delay = self.lateness(fastest).saturating_add(self.margin).min(DELAY_MAX.as_micros() as i64);
        let needed = fastest.saturating_add(delay);
        let shrink = SHRINK_PER_SECOND * since_last.as_millis().min(1_000) as i64 / 1_000;
        let kept = self.wished.map_or(needed, |wished| wished - shrink);
        let most = fastest.saturating_add(DELAY_MAX.as_micros() as i64);
        self.wished = Some(needed.max(kept).min(most));
    }

    /// Forgets what came before, for as long as frames come ever less late.
    fn leave_the_past(&mut self, arrival: MediaTime, offset: i64) {
        if self.is_settled {
            return;
        }
        match self.settling {
            Some((since, least)) if offset.saturating_add(LESS_LATE) > least => {
                self.is_settled = arrival - since > SETTLED_AFTER;
            }
            _ => {
                self.settling = Some((arrival, offset));
                self.arrivals.clear();
                self.wished = None;
            }
        }
    }

    /// The offset to play at, µs; `None` before the first frame.
    pub fn wished_offset(&self) -> Option<i64> {
        self.wished
    }

    /// The offset of the fastest frame of the last seconds, µs: nothing can be played sooner.
    pub fn fastest(&self) -> Option<i64> {
        self.arrivals.iter().map(|&(_, offset)| offset).min()
    }

    /// How long the fastest frames are held back, zero before the first frame.
    pub fn delay(&self) -> Duration {
        let held =
            self.wished.zip(self.fastest()).map_or(0, |(wished, fastest)| wished.saturating_sub(fastest));
        Duration::from_micros(u64::try_from(held).unwrap_or(0))
    }

    /// The lateness against the fastest that [`IN_TIME`] of the frames stay below, µs.
    fn lateness(&self, fastest: i64) -> i64 {
        let mut offsets: Vec<i64> = self.arrivals.iter().map(|&(_, offset)| offset).collect();
        let index = ((offsets.len() as f64 * IN_TIME) as usize).min(offsets.len() - 1);
        let (_, late, _) = offsets.select_nth_unstable(index);
        late.saturating_sub(fastest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `count` frames, 20 ms apart, from frame `start`, with `extra` ms of delay each.
    fn feed(delay: &mut DelayEstimator, start: u64, count: u64, extra: impl Fn(u64) -> u64) {
        for n in start..start + count {
            delay.observe(MediaTime::from_millis(n * 20), MediaTime::from_millis(1_000 + n * 20 + extra(n)));
        }
    }

    #[test]
    fn even_arrival_needs_no_delay() {
        let mut delay = DelayEstimator::new(Duration::ZERO);
        feed(&mut delay, 0, 100, |_| 0);
        assert_eq!((delay.delay(), delay.wished_offset()), (Duration::ZERO, Some(1_000_000)));
        assert_eq!(DelayEstimator::new(Duration::ZERO).wished_offset(), None);
    }

    #[test]
    fn grows_at_once_and_shrinks_slowly() {
        let mut delay = DelayEstimator::new(Duration::ZERO);
        feed(&mut delay, 0, 100, |_| 0);
        feed(&mut delay, 100, 10, |_| 80);
        assert_eq!(delay.delay(), Duration::from_millis(80));
        // The late ones stay among the worst 3 % for a while; then 20 ms are given back per second, 4 s for all of it.
        let shrinking = (110..2_000).filter(|&n| {
            let before = delay.delay();
            feed(&mut delay, n, 1, |_| 0);
            delay.delay() < before
        });
        assert_eq!(shrinking.count(), 200);
        assert_eq!(delay.delay(), Duration::ZERO);
    }

    #[test]
    fn one_straggler_in_a_hundred_changes_nothing() {
        let mut delay = DelayEstimator::new(Duration::ZERO);
        feed(&mut delay, 0, 500, |n| if n % 100 == 50 { 300 } else { 0 });
        assert_eq!(delay.delay(), Duration::ZERO);
    }

    #[test]
    fn bounded_and_over_a_clock_jump() {
        let mut delay = DelayEstimator::new(Duration::from_millis(20));
        feed(&mut delay, 0, 200, |n| n % 2 * 2_000);
        assert_eq!(delay.delay(), DELAY_MAX);
        feed(&mut delay, 200, 10, |_| 1_000_000);
        assert_eq!(delay.delay(), Duration::from_millis(20), "the margin");
        delay.observe(MediaTime::from_micros(u64::MAX), MediaTime::ZERO);
        delay.observe(MediaTime::ZERO, MediaTime::from_micros(u64::MAX));
        assert!(delay.delay() <= DELAY_MAX);
    }

    #[test]
    fn a_past_sent_in_one_go_is_not_taken_for_jitter() {
        let mut delay = DelayEstimator::new(Duration::ZERO);
        // 100 frames twice as fast as they were captured, with a pause, then one every 20 ms.
        for n in 0..200u64 {
            let arrival = 1_000 + 20 * n.max(50 + n / 2).max(if n > 80 { 92 } else { 0 });
            delay.observe(MediaTime::from_millis(n * 20), MediaTime::from_millis(arrival));
            if n > 100 {
                assert_eq!((delay.delay(), delay.wished_offset()), (Duration::ZERO, Some(1_000_000)));
            }
        }
    }

    #[test]
    fn a_slower_route_does_not_add_up_twice() {
        let mut delay = DelayEstimator::new(Duration::ZERO);
        feed(&mut delay, 0, 200, |_| 0);
        feed(&mut delay, 200, 800, |_| 100);
        assert!(delay.wished_offset().unwrap() <= 1_100_000, "{:?}", delay.wished_offset());
        assert_eq!(delay.delay(), Duration::ZERO);
    }
}
