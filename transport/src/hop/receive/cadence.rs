//! When the next frame of a track should come, learned from those that came: so that one of which nothing arrives is
//! noticed before its successor does, which may be lost too.

use std::time::Duration;

use crate::units::Timestamp;

/// So many steady distances make a cadence.
const STEADY_AFTER: u32 = 8;
/// Tracks with longer distances, slides for instance, have nothing to win; shorter ones are no frames of a call.
const DISTANCE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// A frame is late after so many mean deviations, but never for less than a timer's grain and a packet's own time.
const DEVIATIONS: f64 = 4.0;
const SLACK: Duration = Duration::from_millis(4);
/// Frames that may be late at once. After so many the source has paused.
const LATE_MAX: u32 = 3;
/// And for so long they are asked for, in distances: the reports of the last one may be lost, too.
const ASK_FOR: u32 = LATE_MAX + 2;
const GAIN: f64 = 1.0 / 16.0;

/// See the module.
#[derive(Default, Debug)]
pub(super) struct Cadence {
    newest: Option<(u64, Timestamp)>,
    mean_us: f64,
    deviation_us: f64,
    samples: u32,
}

impl Cadence {
    /// The first that came of a frame newer than all before.
    pub(super) fn note(&mut self, now: Timestamp, sequence: u64) {
        if let Some((before, at)) = self.newest.replace((sequence, now))
            && sequence == before.saturating_add(1)
        {
            let distance = now.saturating_since(at).as_micros() as f64;
            if self.samples == 0 {
                self.mean_us = distance;
            }
            self.deviation_us += GAIN * ((distance - self.mean_us).abs() - self.deviation_us);
            self.mean_us += GAIN * (distance - self.mean_us);
            self.samples = self.samples.saturating_add(1);
        }
    }

    /// When the next frame counts as late, on a path whose reordered packets come within `wait`.
    pub(super) fn due(&self, wait: Duration) -> Option<Timestamp> {
        let (_, at) = self.newest.filter(|_| self.is_steady())?;
        let late = Duration::from_micros((DEVIATIONS * self.deviation_us) as u64).max(SLACK);
        Some(at + self.distance() + late + wait)
    }

    /// The sequences that are late.
    pub(super) fn late(&self, now: Timestamp, wait: Duration) -> std::ops::Range<u64> {
        let (Some((newest, _)), Some(due)) = (self.newest, self.due(wait)) else { return 0..0 };
        if now < due || self.is_over(now) {
            return 0..0;
        }
        let more = now.saturating_since(due).as_micros() / self.distance().as_micros().max(1);
        let count = (more as u64 + 1).min(LATE_MAX.into());
        newest.saturating_add(1)..newest.saturating_add(1 + count)
    }

    /// Whether nothing came for so long that the source must have paused.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.newest.is_none_or(|(_, at)| now.saturating_since(at) > self.distance() * ASK_FOR)
    }

    fn distance(&self) -> Duration {
        Duration::from_micros(self.mean_us as u64)
    }

    fn is_steady(&self) -> bool {
        self.samples >= STEADY_AFTER
            && (DISTANCE.0..=DISTANCE.1).contains(&self.distance())
            && DEVIATIONS * self.deviation_us <= self.mean_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1000)
    }

    #[test]
    fn the_next_frame_of_a_steady_track_is_missed_and_that_of_a_wild_one_is_not() {
        let mut cadence = Cadence::default();
        for n in 0..20 {
            assert_eq!(cadence.due(Duration::ZERO).is_some(), n > u64::from(STEADY_AFTER), "after {n}");
            cadence.note(ms(20 * n), n);
        }
        let at = |millis: u64| cadence.late(ms(380 + millis), Duration::ZERO);
        assert_eq!([at(23), at(24), at(44), at(64), at(99)], [0..0, 20..21, 20..22, 20..23, 20..23]);
        assert_eq!((at(101), at(10_000)), (0..0, 0..0), "it has paused");
        assert_eq!(cadence.late(ms(380 + 25), Duration::from_millis(5)), 0..0, "it may be reordered");

        let mut wild = Cadence::default();
        for (n, at) in (0..40).zip([0, 3, 50, 55, 70, 110, 111, 150].iter().cycle()) {
            wild.note(ms(n / 8 * 160 + at), n);
        }
        assert_eq!(wild.due(Duration::ZERO), None);
    }
}
