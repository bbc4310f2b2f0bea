//! What time is it at the relay? The offset between two clocks, estimated from probes, with a stated error.
//!
//! A probe whose answer took `rtt` puts the relay's clock within ± rtt/2. Of the recent probes the one
//! with the smallest bound now counts, where a bound grows with age because crystals differ. The offset in
//! use follows the estimate slowly, so that capture times of successive frames neither jump nor turn back.
//! It sends nothing: when a probe is due, [`ClockSync::poll_timeout`] says so.

use std::collections::VecDeque;
use std::time::Duration;

use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{ClockReply, ProbeClock, Welcome};

/// How far two clocks may drift apart: two crystals of 100 ppm, in opposite directions.
const DRIFT_PPM: u64 = 200;
/// How fast the offset in use follows the estimate: a hundredth of what would be heard as a change of pitch,
/// and more than clocks drift.
const SLEW_PPM: u64 = 500;
/// Probes remembered: as many as are sent in 40 s, over which drift adds 8 ms to an error bound.
const SAMPLES_MAX: usize = 8;
/// After the start, probes quickly find a packet that did not wait in a queue.
const FIRST_PROBES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(1000)];
/// Afterwards drift is all there is to follow: 1 ms in 5 s.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// One probe and its answer.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Relay's clock minus ours, µs.
    offset: i64,
    /// Half the round trip, µs: how far the offset may have been off at some time since `asked`.
    bound: u64,
    /// Drift counts from here: when in the round trip the relay looked at its clock is not known.
    asked: Timestamp,
}

impl Sample {
    fn bound_at(&self, now: Timestamp) -> u64 {
        let age = u64::try_from(now.saturating_since(self.asked).as_micros()).unwrap_or(u64::MAX);
        self.bound.saturating_add(age.saturating_mul(DRIFT_PPM) / 1_000_000)
    }
}

/// The estimate of the relay's clock.
///
/// ```
/// use parlor_client::clock_sync::ClockSync;
/// use parlor_transport::{units::Timestamp, wire::control::ClockReply};
/// use std::time::Duration;
///
/// let ms = |n: u64| Timestamp::from_micros(n * 1000);
/// let mut sync = ClockSync::new(ms(0));
/// // Asked at 10, answered at 30 our time; the relay's clock showed 1020 half way.
/// sync.handle_reply(ms(30), &ClockReply { probe_sent: ms(10), received: ms(1020), sent: ms(1020) });
/// assert_eq!(sync.to_relay(ms(30), ms(25)), Some(ms(1025)));
/// // Half of the round trip, and what two clocks may have drifted apart during it.
/// assert_eq!(sync.error(ms(30)), Some(Duration::from_micros(10_004)));
/// ```
#[derive(Debug)]
pub struct ClockSync {
    hello_sent: Timestamp,
    samples: VecDeque<Sample>,
    /// The offset in use, ns (slewing works in steps below a µs), and when it was last moved.
    in_use: Option<(i128, Timestamp)>,
    probes: usize,
    next_probe: Timestamp,
}

impl ClockSync {
    /// Nothing is known; the greeting goes out at `now`.
    pub fn new(now: Timestamp) -> Self {
        ClockSync {
            hello_sent: now,
            samples: VecDeque::new(),
            in_use: None,
            probes: 0,
            next_probe: Timestamp::MAX,
        }
    }

    /// The greeting that [`handle_welcome`](Self::handle_welcome) answers left at `now`.
    pub fn hello_sent(&mut self, now: Timestamp) {
        self.hello_sent = now;
    }

    /// The relay's first answer holds its clock: a first estimate. Probes begin.
    pub fn handle_welcome(&mut self, now: Timestamp, welcome: &Welcome) {
        self.add(now, self.hello_sent, welcome.clock, welcome.clock);
        self.next_probe = now + FIRST_PROBES[0];
    }

    /// An answer to a probe. One that cannot be (sent after it came) is ignored.
    pub fn handle_reply(&mut self, now: Timestamp, reply: &ClockReply) {
        self.add(now, reply.probe_sent, reply.received, reply.sent);
    }

    fn add(&mut self, now: Timestamp, asked: Timestamp, received: Timestamp, answered: Timestamp) {
        let (there, back) = (received.signed_since(asked), answered.signed_since(now));
        // there = offset + way out, back = offset − way back; their difference is the round trip.
        let Ok(round_trip) = u64::try_from(there.saturating_sub(back)) else { return };
        if answered < received || now < asked {
            return;
        }
        let offset = i64::midpoint(there, back);
        self.samples.push_back(Sample { offset, bound: round_trip.div_ceil(2), asked });
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.slew(now);
    }

    /// When the next probe is due; [`Timestamp::MAX`] before the welcome.
    pub fn poll_timeout(&self) -> Timestamp {
        self.next_probe
    }

    /// The probe that is due, if one is.
    pub fn poll_probe(&mut self, now: Timestamp) -> Option<ProbeClock> {
        if now < self.next_probe {
            return None;
        }
        self.probes += 1;
        self.next_probe = now + FIRST_PROBES.get(self.probes).copied().unwrap_or(PROBE_INTERVAL);
        Some(ProbeClock { sent: now })
    }

    /// Our `time` as the relay's clock would show it; `None` before the first answer.
    ///
    /// For times and calls that go forward the result goes forward.
    pub fn to_relay(&mut self, now: Timestamp, time: Timestamp) -> Option<Timestamp> {
        self.slew(now);
        self.offset_in_use().map(|offset| time.offset_by(offset))
    }

    /// The relay's `time` as our clock would show it; `None` before the first answer.
    pub fn from_relay(&mut self, now: Timestamp, time: Timestamp) -> Option<Timestamp> {
        self.slew(now);
        self.offset_in_use().map(|offset| time.offset_by(-offset))
    }

    /// How far [`to_relay`](Self::to_relay) may be wrong, either way; `None` before the first answer.
    pub fn error(&self, now: Timestamp) -> Option<Duration> {
        let best = self.best(now)?;
        let lag = best.offset.abs_diff(self.offset_in_use()?);
        Some(Duration::from_micros(best.bound_at(now).saturating_add(lag)))
    }

    fn best(&self, now: Timestamp) -> Option<Sample> {
        self.samples.iter().copied().min_by_key(|sample| sample.bound_at(now))
    }

    fn offset_in_use(&self) -> Option<i64> {
        self.in_use.and_then(|(nanos, _)| i64::try_from(nanos.div_euclid(1000)).ok())
    }

    /// Moves the offset in use towards the estimate.
    fn slew(&mut self, now: Timestamp) {
        let Some(best) = self.best(now) else { return };
        let target = i128::from(best.offset) * 1000;
        self.in_use = Some(match self.in_use {
            None => (target, now),
            Some((offset, moved)) => {
                let passed = now.saturating_since(moved).as_micros();
                let step = i128::try_from(passed * u128::from(SLEW_PPM) / 1000).unwrap_or(i128::MAX);
                (offset + (target - offset).clamp(-step, step), moved.max(now))
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn us(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn probes_are_quick_at_first_and_rare_later() {
        let mut sync = ClockSync::new(us(0));
        assert_eq!(sync.poll_timeout(), Timestamp::MAX);
        let welcome = Welcome {
            version: 1,
            features: 0,
            session: parlor_transport::id::SessionId(1),
            clock: us(0),
            publish_max: 1,
            play_max: 1,
        };
        sync.handle_welcome(us(50_000), &welcome);
        let mut sent = Vec::new();
        for _ in 0..5 {
            let due = sync.poll_timeout();
            assert_eq!(sync.poll_probe(us(due.as_micros() - 1)), None);
            sent.push(sync.poll_probe(due).unwrap().sent.as_micros() / 1000);
        }
        assert_eq!(sent, [150, 450, 1450, 6450, 11450]);
    }

    #[test]
    fn answers_that_cannot_be_are_ignored() {
        let mut sync = ClockSync::new(us(0));
        sync.handle_reply(us(10), &ClockReply { probe_sent: us(20), received: us(5), sent: us(5) });
        sync.handle_reply(us(10), &ClockReply { probe_sent: us(0), received: us(50), sent: us(40) });
        sync.handle_reply(us(10), &ClockReply { probe_sent: us(0), received: us(0), sent: us(500) });
        assert_eq!(sync.error(us(10)), None);
        assert_eq!(sync.to_relay(us(10), us(10)), None);
    }

    #[test]
    fn drift_during_a_long_round_trip_is_part_of_the_error() {
        // The relay looked at its clock at once; the answer took 150 ms, in which it gained 15 µs.
        let mut sync = ClockSync::new(us(0));
        sync.handle_reply(us(150_000), &ClockReply { probe_sent: us(0), received: us(0), sent: us(0) });
        let stamp = sync.to_relay(us(150_000), us(150_000)).unwrap();
        let error = sync.error(us(150_000)).unwrap().as_micros() as u64;
        assert!(stamp.signed_since(us(150_015)).unsigned_abs() <= error, "{stamp:?} ± {error} µs");
    }

    proptest! {
        /// Whatever the delays, the truth lies within the stated error, also while the clocks drift;
        /// and times that go forward stay so.
        #[test]
        fn the_truth_is_within_the_stated_error_and_time_never_turns_back(
            start in 0i64..3_600_000_000,
            drift_ppm in -150i64..150,
            probes in prop::collection::vec((0u64..400_000, 0u64..400_000, 1_000u64..8_000_000), 1..40),
        ) {
            let relay = |t: u64| us((t as i64 + start + t as i64 * drift_ppm / 1_000_000) as u64);
            let mut sync = ClockSync::new(us(0));
            let mut now = 1000;
            let mut last = Timestamp::ZERO;
            for (out, back, pause) in probes {
                let asked = now;
                let at_relay = relay(asked + out);
                now += out + back;
                sync.handle_reply(us(now), &ClockReply { probe_sent: us(asked), received: at_relay, sent: at_relay });
                for step in 0..4 {
                    let at = now + pause * step / 4;
                    let stamp = sync.to_relay(us(at), us(at)).unwrap();
                    let error = sync.error(us(at)).unwrap().as_micros() as u64;
                    // Rounding: 1 µs in each of the conversions.
                    prop_assert!(stamp.signed_since(relay(at)).unsigned_abs() <= error + 3);
                    prop_assert!(stamp >= last);
                    last = stamp;
                }
                now += pause;
            }
        }
    }
}
