//! The sending side's view of the path: what was sent and what the receiver's reports say of it
//! become round-trip time, queueing delay, delivery rate and loss. It decides nothing.
//!
//! A receiver may be wrong or lie. Claims that cannot be true are a [`FeedbackFault`] and nothing
//! of that report is used; clocks that jump are noticed, because the round trip, which needs no
//! foreign clock, does not jump with them.

mod delay;
mod loss;
mod sent;
mod train;

use std::time::Duration;

use crate::error::{Code, Coded};
use crate::units::Timestamp;
use crate::wire::feedback::{Feedback, Reception};

use delay::{Delay, Delivery, Rtt};
use loss::Loss;
pub use sent::SentPacket;
use sent::{Fate, Sent};
use train::Trains;

/// A packet whose neighbours waited longer than this was sent into a queue; if it is lost, the
/// queue is to blame rather than the air.
const QUEUE_LOW: Duration = Duration::from_millis(10);
/// A packet reported missing may still come, reordered; it counts as lost after this.
const LOSS_PATIENCE: Duration = Duration::from_millis(30);
/// The receiver's timer may run a little faster than ours.
const HOLD_TOLERANCE: Duration = Duration::from_millis(2);
/// A builder makes at most one report in 2 ms; a path may bunch them. What is beyond is a flood.
const REPORT_INTERVAL_MIN: Duration = Duration::from_millis(1);
const REPORTS_AT_ONCE: u32 = 64;

/// A report that cannot be true. The connection may go on; count and, when they do not end, close.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedbackFault {
    /// It speaks of a packet that was not sent.
    #[error("feedback says that packet {highest} arrived, but {sent} were sent; ignore it")]
    NeverSent {
        /// The packet claimed.
        highest: u64,
        /// The number of the next packet.
        sent: u64,
    },
    /// It was held for longer than the packet has been under way.
    #[error("feedback was held for {hold:?}, but its packet was sent {elapsed:?} ago; ignore it")]
    HeldTooLong {
        /// The time it claims to have been held.
        hold: Duration,
        /// The time since the packet was sent.
        elapsed: Duration,
    },
    /// More reports than a receiver has reason to send.
    #[error("feedback comes more often than every {REPORT_INTERVAL_MIN:?}; ignore it")]
    TooOften,
}

impl Coded for FeedbackFault {
    fn code(&self) -> Code {
        Code::ProtocolViolation
    }
}

/// What is known of the path.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Estimate {
    /// The queue that stands in the path: delay of the last 70 ms beyond the least of 10 s, the
    /// bursts of single frames not counted.
    pub queue: Duration,
    /// What arrived over the last 200 ms, bits/s.
    pub delivery_rate: u64,
    /// Smoothed round-trip time, the receiver's hold time not counted.
    pub srtt: Duration,
    /// Its mean deviation.
    pub rtt_var: Duration,
    /// Share of packets lost without a queue, 0 to 1, remembering the bursts of the last 3 s.
    pub loss_random: f64,
    /// Share lost of the recent packets sent while there was no queue.
    pub loss_low: f64,
    /// Share lost of the recent packets sent into a queue.
    pub loss_high: f64,
    /// Packets sent into a queue since the beginning whose fate is known, and how many were lost.
    pub high_total: (u64, u64),
    /// Mean number of neighbouring packets lost together, 1 or more.
    pub loss_run: f64,
    /// What the path let through of the first burst, bits/s: the start-up estimate of its capacity.
    pub train_first: Option<u64>,
    /// The same of the bursts of the last second, their median.
    pub train_recent: Option<u64>,
    /// Whether those arrived slower than they were sent: then the path carries no more than that,
    /// else it carries at least that.
    pub train_stretched: bool,
}

/// What happened to the reports so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct EstimateStats {
    /// Reports used.
    pub reports: u64,
    /// Reports of packets so old that nothing is known of them any more.
    pub stale: u64,
    /// Reports that could not be true; see [`FeedbackFault`].
    pub faults: u64,
    /// Reports whose times disagreed with the round trip, and were not used.
    pub times_refused: u64,
    /// Times that the receiver's clock was found to have jumped.
    pub clock_jumps: u64,
    /// Packets known to have arrived.
    pub arrived: u64,
    /// Packets known to be lost.
    pub lost: u64,
}

/// Follows one connection's media packets.
///
/// ```
/// use std::time::Duration;
/// use parlor_transport::rate::{Estimator, SentPacket};
/// use parlor_transport::units::Timestamp;
/// use parlor_transport::wire::feedback::Feedback;
///
/// let ms = |millis: u64| Timestamp::from_micros(millis * 1000);
/// let mut estimator = Estimator::default();
/// estimator.on_sent(SentPacket { tx_seq: 0, at: ms(100), bytes: 1150, burst_end: 0 });
/// // The receiver's clock is nine seconds ahead; it waited 3 ms before it reported.
/// let feedback = Feedback::new(0, ms(9125), Duration::from_millis(3));
/// estimator.on_feedback(ms(153), &feedback)?;
/// let estimate = estimator.estimate().expect("there was feedback");
/// assert_eq!((estimate.srtt.as_millis(), estimate.queue.as_millis()), (50, 0));
/// # Ok::<(), parlor_transport::rate::FeedbackFault>(())
/// ```
#[derive(Default, Debug)]
pub struct Estimator {
    sent: Sent,
    rtt: Rtt,
    delay: Delay,
    delivery: Delivery,
    loss: Loss,
    trains: Trains,
    /// Since when packets have gone out with no report at all.
    unanswered: Option<Timestamp>,
    reports_allowed: Allowance,
    stats: EstimateStats,
}

impl Estimator {
    /// A packet goes out. Numbers are given out one after the other.
    pub fn on_sent(&mut self, packet: SentPacket) {
        self.unanswered.get_or_insert(packet.at);
        let given_up = self.sent.push(packet);
        for high in given_up {
            self.lose(packet.at, high);
        }
    }

    /// A report comes in.
    ///
    /// # Errors
    /// [`FeedbackFault`] when it cannot be true; nothing of it is used then.
    pub fn on_feedback(&mut self, now: Timestamp, feedback: &Feedback) -> Result<(), FeedbackFault> {
        self.check(now, feedback).inspect_err(|_| self.stats.faults += 1)?;
        let Some(newest) = self.sent.get(feedback.highest) else {
            self.stats.stale += 1;
            return Ok(());
        };
        self.stats.reports += 1;
        self.unanswered = None;
        let rtt = now.saturating_since(newest.at).saturating_sub(feedback.hold);
        self.rtt.add(now, rtt);
        let trusted = self.times_agree(now, feedback.arrived.signed_since(newest.at), rtt);
        // Oldest first, as they were sent.
        let packets: Vec<_> = feedback.packets().collect();
        for &(tx_seq, reception) in packets.iter().rev() {
            match reception {
                Reception::Received(at) => self.arrive(now, tx_seq, at.filter(|_| trusted)),
                Reception::Missing => self.miss(now, tx_seq),
            }
        }
        self.claim_tail(now, feedback);
        self.loss.add_runs(feedback.highest, feedback.lost, feedback.runs);
        Ok(())
    }

    /// What is known; `None` before the first report.
    pub fn estimate(&self) -> Option<Estimate> {
        let srtt = self.rtt.smoothed()?;
        Some(Estimate {
            queue: self.delay.queue(&self.rtt),
            delivery_rate: self.delivery.rate(),
            srtt,
            rtt_var: self.rtt.deviation(),
            loss_random: self.loss.random(),
            loss_low: self.loss.low(),
            loss_high: self.loss.high(),
            high_total: self.loss.high_total(),
            loss_run: self.loss.run_mean(),
            train_first: self.trains.first(),
            train_recent: self.trains.recent(),
            train_stretched: self.trains.are_stretched(),
        })
    }

    /// For how long packets have gone out and no report has come.
    pub fn silence(&self, now: Timestamp) -> Duration {
        self.unanswered.map_or(Duration::ZERO, |since| now.saturating_since(since))
    }

    /// A packet that was sent longer ago than this and is not in the reports is lost, or its
    /// report is: sRTT + max(4 × deviation, 3 ms).
    pub fn loss_horizon(&self) -> Duration {
        let srtt = self.rtt.smoothed().unwrap_or(Duration::from_millis(200));
        srtt + (self.rtt.deviation() * 4).max(Duration::from_millis(3))
    }

    /// What happened so far.
    pub fn stats(&self) -> EstimateStats {
        self.stats
    }

    fn check(&mut self, now: Timestamp, feedback: &Feedback) -> Result<(), FeedbackFault> {
        if !self.reports_allowed.take(now) {
            return Err(FeedbackFault::TooOften);
        }
        let sent = self.sent.next();
        if feedback.highest >= sent {
            return Err(FeedbackFault::NeverSent { highest: feedback.highest, sent });
        }
        if let Some(newest) = self.sent.get(feedback.highest) {
            let elapsed = now.saturating_since(newest.at);
            if feedback.hold > elapsed + HOLD_TOLERANCE {
                return Err(FeedbackFault::HeldTooLong { hold: feedback.hold, elapsed });
            }
        }
        Ok(())
    }

    /// Whether the receiver's clock says what the round trip allows. A clock that keeps to a new
    /// time is believed after a few reports, and everything learned by the old time is forgotten.
    fn times_agree(&mut self, now: Timestamp, owd_us: i64, rtt: Duration) -> bool {
        match self.delay.judge(now, owd_us, rtt, &self.rtt) {
            delay::Verdict::Agrees => true,
            delay::Verdict::Disagrees => {
                self.stats.times_refused += 1;
                false
            }
            delay::Verdict::Jumped => {
                self.stats.clock_jumps += 1;
                self.delivery = Delivery::default();
                self.trains.abandon();
                true
            }
        }
    }

    fn arrive(&mut self, now: Timestamp, tx_seq: u64, at: Option<Timestamp>) {
        let Some((packet, fate)) = self.sent.get_mut(tx_seq) else { return };
        if !matches!(fate, Fate::Unknown | Fate::Missing { .. }) {
            return;
        }
        *fate = Fate::Arrived;
        self.stats.arrived += 1;
        match at {
            Some(at) => {
                let queue = self.delay.add(now, at, at.signed_since(packet.at));
                self.loss.add(now, false, queue > QUEUE_LOW);
                self.delivery.add(at, packet.bytes);
                self.trains.add(now, &packet, at);
            }
            None => {
                // Known to have arrived, not when: about as long after its sending as the last one.
                self.loss.add(now, false, self.delay.last_queue() > QUEUE_LOW);
                if let Some(owd_us) = self.delay.last_owd_us() {
                    self.delivery.add(packet.at.offset_by(owd_us), packet.bytes);
                }
            }
        }
    }

    fn miss(&mut self, now: Timestamp, tx_seq: u64) {
        let high = self.delay.last_queue() > QUEUE_LOW;
        let Some((_, fate)) = self.sent.get_mut(tx_seq) else { return };
        match *fate {
            Fate::Unknown => *fate = Fate::Missing { since: now, high },
            Fate::Missing { since, high } if now.saturating_since(since) >= LOSS_PATIENCE => {
                *fate = Fate::Lost;
                self.lose(now, high);
            }
            _ => {}
        }
    }

    fn lose(&mut self, now: Timestamp, high: bool) {
        self.stats.lost += 1;
        self.loss.add(now, true, high);
    }

    /// The receiver calls a tail missing by its own timer; packets that cannot have reached it yet
    /// are not.
    fn claim_tail(&mut self, now: Timestamp, feedback: &Feedback) {
        let horizon = self.loss_horizon();
        let end = feedback.covered().min(self.sent.next().saturating_sub(1));
        for tx_seq in feedback.highest + 1..=end {
            if self.sent.get(tx_seq).is_some_and(|packet| now.saturating_since(packet.at) > horizon) {
                self.miss(now, tx_seq);
            }
        }
    }
}

/// So many at once, and one more in each interval.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Timestamp,
}

impl Default for Allowance {
    fn default() -> Self {
        Allowance { left: REPORTS_AT_ONCE, since: Timestamp::ZERO }
    }
}

impl Allowance {
    fn take(&mut self, now: Timestamp) -> bool {
        let earned = now.saturating_since(self.since).as_micros() / REPORT_INTERVAL_MIN.as_micros();
        if earned > 0 {
            self.left = self.left.saturating_add(earned.min(64) as u32).min(REPORTS_AT_ONCE);
            self.since = now;
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests;
