//! Playout of pictures: each is given out when due, none is thrown away.
//!
//! Frames must be pushed in decoding order and come out in that order; whether they are still encoded or already
//! decoded is the caller's choice. It asks for no keyframe and knows no codec.

use std::collections::VecDeque;
use std::time::Duration;

use super::delay::{DELAY_MAX, DelayEstimator};
use crate::frame::MediaTime;

/// Frames held at most: two seconds at 30 per second, four times [`DELAY_MAX`].
const HELD_MAX: usize = 64;

/// What a [`VideoPlayout`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VideoPlayoutStats {
    /// Frames given out.
    pub played: u64,
    /// Of these, frames that arrived after they were due and were given out at once.
    pub late: u64,
    /// Frames given out before they were due because too many were held.
    pub crowded: u64,
    /// Frames held now.
    pub held: usize,
    /// How long the fastest frames are held back now.
    pub delay: Duration,
}

/// Holds frames of type `T` until they are due.
///
/// ```
/// use parlor_media::frame::MediaTime;
/// use parlor_media::jitter::VideoPlayout;
///
/// let mut playout = VideoPlayout::new();
/// let ms = MediaTime::from_millis;
/// playout.push(ms(0), ms(50), "first");
/// assert_eq!(playout.poll(ms(50)), Some("first"));
/// assert_eq!(playout.poll(ms(50)), None);
/// ```
#[derive(Clone, Debug)]
pub struct VideoPlayout<T> {
    estimator: DelayEstimator,
    held: VecDeque<(MediaTime, T)>,
    /// Set from outside, for lip sync: do not play earlier than this offset.
    floor: Option<i64>,
    stats: VideoPlayoutStats,
}

impl<T> VideoPlayout<T> {
    /// Empty, with no delay until arrivals have been seen to be uneven.
    pub fn new() -> VideoPlayout<T> {
        VideoPlayout {
            estimator: DelayEstimator::new(Duration::ZERO),
            held: VecDeque::with_capacity(HELD_MAX),
            floor: None,
            stats: VideoPlayoutStats::default(),
        }
    }

    /// Takes the next frame, captured at `capture` and complete at `arrival`.
    ///
    /// Gives back the oldest frame if 64 are held already: use it now.
    #[must_use = "a frame given back has left the buffer and is to be used at once"]
    pub fn push(&mut self, capture: MediaTime, arrival: MediaTime, frame: T) -> Option<T> {
        self.estimator.observe(capture, arrival);
        if self.playout_offset().is_some_and(|offset| capture.offset_by(offset) < arrival) {
            self.stats.late += 1;
        }
        let crowded_out = (self.held.len() >= HELD_MAX).then(|| self.held.pop_front()).flatten();
        self.held.push_back((capture, frame));
        crowded_out.map(|(_, frame)| {
            self.stats.crowded += 1;
            self.stats.played += 1;
            frame
        })
    }

    /// The next frame, if it is due at `now`. Call until `None`; of several at once, show the last.
    pub fn poll(&mut self, now: MediaTime) -> Option<T> {
        if self.poll_timeout()? > now {
            return None;
        }
        self.stats.played += 1;
        self.held.pop_front().map(|(_, frame)| frame)
    }

    /// When the next frame is due; `None` while none is held.
    pub fn poll_timeout(&self) -> Option<MediaTime> {
        let (capture, _) = self.held.front()?;
        Some(capture.offset_by(self.playout_offset()?))
    }

    /// The offset that arrivals ask for, µs; the other stream of a lip sync needs to know.
    pub fn wished_offset(&self) -> Option<i64> {
        self.estimator.wished_offset()
    }

    /// The offset frames are played at, µs: what arrivals ask for, or the floor if that is later.
    pub fn playout_offset(&self) -> Option<i64> {
        let (wished, fastest) = (self.estimator.wished_offset()?, self.estimator.fastest()?);
        let most = fastest.saturating_add(DELAY_MAX.as_micros() as i64).max(wished);
        Some(self.floor.map_or(wished, |floor| floor.clamp(wished, most)))
    }

    /// Plays at `floor` µs or later (within [`DELAY_MAX`]), to wait for the sound; `None` to play when ready.
    pub fn set_floor(&mut self, floor: Option<i64>) {
        self.floor = floor;
    }

    /// Counters and the present delay.
    pub fn stats(&self) -> VideoPlayoutStats {
        VideoPlayoutStats { held: self.held.len(), delay: self.estimator.delay(), ..self.stats }
    }
}

impl<T> Default for VideoPlayout<T> {
    fn default() -> VideoPlayout<T> {
        VideoPlayout::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    /// Plays 600 frames, 33 ms apart, with up to `jitter` ms of uneven delay; gives the times between pictures in µs.
    fn intervals(jitter: u64, seed: u64) -> (Vec<u64>, VideoPlayoutStats) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut last = 0;
        let arrivals: Vec<u64> = (0..600)
            .map(|n| {
                // In order, as from a reorder buffer.
                last = last.max(n * 33_000 + 40_000 + rng.random_range(0..=jitter * 1_000));
                last
            })
            .collect();
        let mut playout = VideoPlayout::new();
        let mut shown = Vec::new();
        let mut next = 0;
        for now in (0..21_000_000).step_by(1_000) {
            while next < arrivals.len() && arrivals[next] <= now {
                let (capture, arrival) =
                    (MediaTime::from_micros(next as u64 * 33_000), MediaTime::from_micros(arrivals[next]));
                assert_eq!(playout.push(capture, arrival, next), None);
                next += 1;
            }
            while let Some(frame) = playout.poll(MediaTime::from_micros(now)) {
                assert_eq!(frame, shown.len(), "in order, none missing");
                shown.push(now);
            }
        }
        assert_eq!(shown.len(), 600);
        (shown.windows(2).skip(200).map(|pair| pair[1] - pair[0]).collect(), playout.stats())
    }

    #[test]
    fn jitter_is_smoothed_and_costs_no_more_than_it_is() {
        for seed in 0..5 {
            let (even, stats) = intervals(0, seed);
            assert!(stats.delay == Duration::ZERO && even.iter().all(|&step| step == 33_000), "{stats:?}");
            let (steps, stats) = intervals(60, seed);
            assert!(stats.delay <= Duration::from_millis(62), "{stats:?}");
            let rough = steps.iter().filter(|step| step.abs_diff(33_000) > 5_000).count();
            assert!(rough <= steps.len() / 12, "{rough} of {} steps are rough; seed {seed}", steps.len());
        }
    }

    #[test]
    fn a_late_frame_is_shown_at_once() {
        let ms = MediaTime::from_millis;
        let mut playout = VideoPlayout::new();
        for n in 0..200 {
            assert_eq!(playout.push(ms(n * 33), ms(n * 33 + 20), n), None);
            assert_eq!(playout.poll(ms(n * 33 + 20)), Some(n));
        }
        assert_eq!(playout.push(ms(200 * 33), ms(200 * 33 + 400), 200), None);
        assert_eq!(playout.poll(ms(200 * 33 + 400)), Some(200));
        assert_eq!(playout.stats().late, 1);
    }

    #[test]
    fn holds_a_bounded_number_of_frames() {
        let mut playout = VideoPlayout::new();
        let given_back = (0..1_000)
            .filter_map(|n| playout.push(MediaTime::from_millis(n * 33), MediaTime::from_millis(n * 33), n))
            .count();
        assert_eq!((given_back, playout.stats().held), (1_000 - HELD_MAX, HELD_MAX));
    }

    #[test]
    fn the_floor_delays_within_reason() {
        let ms = MediaTime::from_millis;
        let mut playout = VideoPlayout::new();
        assert_eq!(playout.push(ms(0), ms(10), ()), None);
        playout.set_floor(Some(130_000));
        assert_eq!((playout.poll(ms(129)), playout.poll_timeout()), (None, Some(ms(130))));
        playout.set_floor(Some(i64::MAX));
        assert_eq!(playout.poll_timeout(), Some(ms(510)));
        playout.set_floor(Some(i64::MIN));
        assert_eq!(playout.poll_timeout(), Some(ms(10)));
    }
}
