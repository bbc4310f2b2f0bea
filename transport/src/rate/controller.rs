//! Decides the rate. Delay speaks first: a queue that stands in the path means that too much is
//! sent. Loss alone means nothing, because radio loses packets at any rate; loss that comes with a
//! queue means that the queue is full. It sends nothing and measures nothing itself.
//!
//! Three things keep the queue short. Packet trains say what the path carries: bursts leave no faster
//! than that, so that what is too much of a keyframe waits in the sender, where the encoder is told of
//! it, and the rate grows no further. When a queue stands in the path all the same, the rate falls
//! below what arrives until it has drained. And towards a rate that was too much before it grows
//! slowly, far from it fast, and not at all while a small queue shows that the path is just full.
//!
//! Where others fill the queue whatever we do, keeping it short would only mean to starve: see
//! the module `compete`.

mod compete;

use std::time::Duration;

use super::estimate::Estimate;
use crate::units::Timestamp;
use compete::Competition;

/// What a controller may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControllerConfig {
    /// Where it begins, bits/s; it holds until the first report.
    pub rate_start: u64,
    /// It never goes below, bits/s: speech and control.
    pub rate_min: u64,
    /// It never goes above, bits/s.
    pub rate_max: u64,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        ControllerConfig { rate_start: 600_000, rate_min: 50_000, rate_max: 50_000_000 }
    }
}

/// How the path looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathState {
    /// No queue, or a small one.
    Open,
    /// A queue stands; the rate was lowered.
    Queued,
    /// A queue stands that the lower rate drains too slowly: do not begin frames, drop discardable
    /// ones. It ends by itself after the time that the queue takes to drain.
    Overfull,
    /// The breaker is open: no reports come, or most packets are lost in a full queue. Send what
    /// keeps the connection alive; with the reports the rate comes back.
    Broken,
}

/// The standing queue that is too much, at infinite rate and for each bit/s of 1/rate. Slow flows
/// bear more: their packets take longer, and of two flows in one queue the faster one gives way,
/// which makes them equal in the end.
const TARGET_MS: (f64, f64) = (15.0, 20e6);
const TARGET_MAX_MS: f64 = 60.0;
/// So many targets are a queue for which the encoder has to pause.
const OVERFULL: f64 = 3.0;
const OVERFULL_MAX_MS: f64 = 300.0;
/// The share of a train's rate that bursts leave at, and that the rate does not grow beyond: the rest
/// drains what they leave behind. Tried from 0.97 to no bound at all: the queue's 95th percentile at
/// 1.5 Mbit/s goes from 31 to 48 ms, and what is used under 5 ms of forward jitter from 88 to 95 %.
const TRAIN_SHARE: f64 = 0.95;
/// A train that was not stretched only says "at least so much": try more with the next.
const TRAIN_PROBE: f64 = 1.2;
/// Trains say that there is room when they are this much faster than the rate.
const TRAIN_ROOM: f64 = 1.4;
/// Trains say that nothing is near its limit when they are this much faster than what is used …
const CALM_ROOM: f64 = 2.5;
/// … and fewer packets are lost than repair takes notice of.
const CALM_LOSS: f64 = 0.003;
/// No burst takes longer, but for what a path that became narrow leaves of it.
const BUSY_MAX: Duration = Duration::from_millis(700);
/// Bursts before the first train.
const BURST_START: f64 = 10e6;
/// The share of the first train that a call starts with: others may already use the path.
const START_SHARE: f64 = 0.5;
/// For so long after the first train its rate is corrected by what is found lost.
const START_SETTLES: Duration = Duration::from_millis(400);
/// No loss estimate is used above this: beyond it the division by what gets through is noise.
const LOSS_MAX: f64 = 0.8;
/// Growth, 1/s. As long as nothing is known of the path, neither a train nor a queue; back to what the path was known to carry; the last stretch before it, at 3 Mbit/s
/// (it goes with the root of the rate, so that slow flows catch up with fast ones); beyond it;
/// beyond it after [`CALM`]; and the same when trains say that there is room.
const GROWTH_START: f64 = 5.0;
const GROWTH_BACK: f64 = 1.5;
const GROWTH_NEAR: (f64, f64) = (0.08, 3e6);
const GROWTH_BEYOND: f64 = 0.12;
const GROWTH_CALM: f64 = 0.35;
const GROWTH_ROOM: f64 = 0.7;
const NEAR: std::ops::Range<f64> = 0.85..1.05;
const CALM: Duration = Duration::from_millis(1500);
/// The rate may be so far above what is used, as a factor and in bits/s, and otherwise decays by
/// this share in a second: an estimate that nothing is sent by ages.
const UNUSED: (f64, f64) = (1.6, 50_000.0);
const UNUSED_DECAY: f64 = 0.05;
/// The breaker opens after so long without a report, and so many round trips.
const SILENCE_MIN: Duration = Duration::from_millis(500);
const SILENCE_ROUND_TRIPS: u32 = 4;
/// The same before the first report, when the round trip is unknown.
const SILENCE_FIRST: Duration = Duration::from_secs(2);
/// It opens, too, when this share is lost in a queue for so long, although the rate was lowered.
const LOSS_HEAVY: f64 = 0.3;
const LOSS_HEAVY_TIME: Duration = Duration::from_secs(2);

/// The rate of one connection.
///
/// ```
/// use parlor_transport::rate::{Controller, ControllerConfig, PathState};
/// use parlor_transport::units::Timestamp;
///
/// let controller = Controller::new(ControllerConfig { rate_start: 300_000, ..Default::default() });
/// assert_eq!(controller.rate(), 300_000);
/// assert_eq!(controller.state(Timestamp::ZERO), PathState::Open);
/// ```
#[derive(Debug)]
pub struct Controller {
    config: ControllerConfig,
    rate: f64,
    burst_rate: f64,
    /// What arrived when the path was last full, bits/s as sent.
    capacity: Option<f64>,
    /// The last train's rate, however old.
    link: Option<f64>,
    /// When the first train was seen.
    started: Option<Timestamp>,
    ramping: bool,
    updated: Option<Timestamp>,
    congested_at: Timestamp,
    hold_until: Timestamp,
    competition: Competition,
    state: PathState,
    state_until: Timestamp,
    silence_max: Duration,
    /// How often the rate was halved in this silence.
    halved: u32,
    heavy_since: Option<Timestamp>,
    /// Since when the path carries far more than is used of it, see [`Controller::is_calm`].
    calm_since: Option<Timestamp>,
}

/// One report's figures as the rules use them: bits/s as sent, seconds, milliseconds.
struct Reading {
    now: Timestamp,
    dt: f64,
    queue_ms: f64,
    target_ms: f64,
    /// What arrives, with what the air lost on the way added.
    through: f64,
    train: Option<f64>,
    /// The most that the rate may be by what is used of it.
    usable: f64,
}

impl Controller {
    /// A controller before its first report.
    pub fn new(config: ControllerConfig) -> Self {
        Controller {
            config,
            rate: config.rate_start as f64,
            burst_rate: BURST_START,
            capacity: None,
            link: None,
            started: None,
            ramping: true,
            updated: None,
            congested_at: Timestamp::ZERO,
            hold_until: Timestamp::ZERO,
            competition: Competition::default(),
            state: PathState::Open,
            state_until: Timestamp::ZERO,
            silence_max: SILENCE_FIRST,
            halved: 0,
            heavy_since: None,
            calm_since: None,
        }
    }

    /// A report was used, and this is what is known now.
    pub fn on_estimate(&mut self, now: Timestamp, estimate: &Estimate) {
        let reading = self.read(now, estimate);
        self.updated = Some(now);
        self.halved = 0;
        self.silence_max = SILENCE_MIN.max((estimate.srtt + estimate.rtt_var * 4) * SILENCE_ROUND_TRIPS);
        // How much of the train was lost shows only later.
        let settled = self
            .started
            .is_some_and(|at| now.saturating_since(at) > START_SETTLES || self.congested_at != at);
        if let (false, Some(train)) = (settled, estimate.train_first) {
            self.start(now, train as f64 / passing(estimate), estimate.train_stretched);
        }
        let share = self.link.map_or(1.0, |link| estimate.delivery_rate as f64 / link);
        self.rate = self.competition.watch(self.rate, reading.queue_ms, share, reading.dt);
        self.ramping = false;
        if self.competition.is_on() {
            if self.competition.has_lost(now, estimate) {
                self.congested_at = now;
            }
            self.rate = self.competition.rate(self.rate, reading.dt, estimate, reading.usable);
        } else {
            self.follow_delay(&reading, estimate);
        }
        self.judge(&reading, estimate);
        // A queue on a path that carries so much more is not ours, and jitter of busy hosts looks like one.
        let is_calm = self.state == PathState::Open
            && estimate.loss_random < CALM_LOSS
            && self.link.is_none_or(|link| link > CALM_ROOM * estimate.delivery_rate as f64)
            && !self.competition.is_on();
        self.calm_since = is_calm.then(|| self.calm_since.unwrap_or(now));
        self.rate = self.rate.clamp(self.config.rate_min as f64, self.config.rate_max as f64);
    }

    /// To be called from time to time while packets are sent, with how long no report has come
    /// ([`Estimator::silence`](super::Estimator::silence)). Each time that this exceeds some round
    /// trips once more, the rate is halved. The pacer has to be told, as after every report.
    pub fn on_silence(&mut self, silence: Duration) {
        let due = silence.as_micros() / self.silence_max.as_micros().max(1);
        while u128::from(self.halved) < due && self.rate > self.config.rate_min as f64 {
            self.halved += 1;
            self.rate = (self.rate / 2.0).max(self.config.rate_min as f64);
        }
        if due > 0 {
            self.calm_since = None;
            self.state = PathState::Broken;
        }
    }

    /// What all datagrams together may use, bits/s on the wire.
    pub fn rate(&self) -> u64 {
        self.rate as u64
    }

    /// What the path carries of a burst, bits/s.
    pub fn burst_rate(&self) -> u64 {
        self.burst_rate as u64
    }

    /// How fast a burst may leave, bits/s: for [`Pacer::set_rates`](super::Pacer::set_rates). As fast as the path
    /// carries it, but a source that has been `busy` without a break for long does not stop, and would keep our own
    /// queue standing.
    pub fn burst_pace(&self, now: Timestamp, busy: Duration) -> u64 {
        match self.state(now) {
            // What the path carried once is no reason to send where nobody says that anything arrives.
            PathState::Broken => 0,
            PathState::Queued | PathState::Overfull if busy > BUSY_MAX && !self.competition.is_on() => 0,
            _ => self.burst_rate(),
        }
    }

    /// How the path looks.
    pub fn state(&self, now: Timestamp) -> PathState {
        match self.state {
            PathState::Overfull if now >= self.state_until => PathState::Queued,
            state => state,
        }
    }

    /// Whether there has been nothing to watch over for a while: the path carries far more than is used of it, loses nothing
    /// and has no queue that would be too long. Reports may come more slowly.
    pub fn is_calm(&self, now: Timestamp) -> bool {
        self.calm_since.is_some_and(|since| now.saturating_since(since) > CALM)
    }

    /// Whether the rate grows fast: more frequent reports help.
    pub fn is_ramping(&self) -> bool {
        self.ramping
    }

    /// The window that QUIC needs so that it never limits what the pacer lets out, in bytes:
    /// twice what is under way, or two keyframes if that is more.
    pub fn quic_window(&self, srtt: Duration, max_ack_delay: Duration, keyframe_bytes: u64) -> u64 {
        let way = srtt + Duration::from_millis(20) + max_ack_delay;
        let under_way = 2.0 * self.rate / 8.0 * way.as_secs_f64();
        (under_way as u64).max(keyframe_bytes.saturating_mul(2))
    }

    fn read(&mut self, now: Timestamp, estimate: &Estimate) -> Reading {
        let dt = self.updated.map_or(Duration::ZERO, |at| now.saturating_since(at));
        let through = estimate.delivery_rate as f64 / passing(estimate);
        if let Some(train) = estimate.train_recent {
            let share = if estimate.train_stretched { TRAIN_SHARE } else { TRAIN_PROBE };
            self.link = Some(train as f64);
            self.burst_rate = share * train as f64;
        }
        Reading {
            now,
            // After a pause nothing is known of the time between: growth counts a report's time only.
            dt: dt.as_secs_f64().min(0.2),
            queue_ms: estimate.queue.as_secs_f64() * 1e3,
            target_ms: (TARGET_MS.0 + TARGET_MS.1 / self.rate).min(TARGET_MAX_MS),
            through,
            train: estimate.train_recent.map(|train| train as f64 / passing(estimate)),
            usable: UNUSED.0 * through + UNUSED.1,
        }
    }

    /// The first long burst, a keyframe as a rule, has shown the path.
    fn start(&mut self, now: Timestamp, train: f64, stretched: bool) {
        let at = *self.started.get_or_insert(now);
        // At its own pace it has only shown that the path carries at least so much.
        self.capacity = stretched.then_some(train);
        self.rate = self.rate.max(START_SHARE * train).min(NEAR.start * train);
        self.congested_at = at;
    }

    fn follow_delay(&mut self, reading: &Reading, estimate: &Estimate) {
        let &Reading { now, queue_ms, target_ms, through, .. } = reading;
        let over = queue_ms > target_ms;
        // A buffer shorter than the target never gets there: it overflows instead.
        let overflows = estimate.loss_high > 2.0 * estimate.loss_low + 0.05 && queue_ms > target_ms / 3.0;
        if over || overflows {
            if now >= self.hold_until {
                // What lies in the queue is drained in some 400 ms, whatever its size.
                let drain = 0.95 - ((queue_ms - 10.0) / 400.0).clamp(0.0, 0.5);
                let lower = if over { through * drain } else { self.rate * 0.85 };
                self.rate = self.rate.min(lower);
                self.hold_until = now + estimate.srtt.mul_f64(0.6);
                self.capacity = Some(through);
            }
            self.congested_at = now;
        } else if queue_ms < target_ms / 3.0 && now >= self.hold_until {
            self.grow(reading, estimate);
        }
    }

    fn grow(&mut self, reading: &Reading, estimate: &Estimate) {
        let calm = reading.now.saturating_since(self.congested_at) > CALM;
        let has_room = reading.train.is_some_and(|train| train > TRAIN_ROOM * self.rate);
        let growth = match self.capacity {
            None => GROWTH_START,
            Some(capacity) if self.rate < NEAR.start * capacity => GROWTH_BACK,
            Some(capacity) if self.rate < NEAR.end * capacity => {
                GROWTH_NEAR.0 * (GROWTH_NEAR.1 / self.rate).sqrt()
            }
            _ if !calm => GROWTH_BEYOND,
            _ if has_room => GROWTH_ROOM,
            _ => GROWTH_CALM,
        };
        self.ramping = growth >= GROWTH_CALM;
        let carried = reading.train.filter(|_| estimate.train_stretched).map(|train| TRAIN_SHARE * train);
        let limit = reading.usable.min(carried.unwrap_or(f64::INFINITY));
        if self.rate > reading.usable {
            self.rate = (self.rate * (-UNUSED_DECAY * reading.dt).exp()).max(reading.usable);
        } else {
            self.rate = (self.rate * (growth * reading.dt).exp()).min(limit.max(self.rate));
        }
    }

    fn judge(&mut self, reading: &Reading, estimate: &Estimate) {
        let &Reading { now, queue_ms, target_ms, .. } = reading;
        if estimate.loss_high > LOSS_HEAVY + 2.0 * estimate.loss_low && queue_ms > target_ms {
            let since = *self.heavy_since.get_or_insert(now);
            if now.saturating_since(since) > LOSS_HEAVY_TIME {
                self.state = PathState::Broken;
                self.rate = 0.0;
                return;
            }
        } else {
            self.heavy_since = None;
        }
        self.state = if queue_ms <= target_ms {
            PathState::Open
        } else if queue_ms <= OVERFULL * target_ms || self.competition.is_on() {
            PathState::Queued
        } else {
            let drain_ms = (queue_ms - target_ms).min(OVERFULL_MAX_MS);
            self.state_until = now + Duration::from_secs_f64(drain_ms / 1e3);
            PathState::Overfull
        };
    }
}

/// The share of packets that the air lets through.
fn passing(estimate: &Estimate) -> f64 {
    1.0 - estimate.loss_random.min(LOSS_MAX)
}

#[cfg(test)]
mod tests;
