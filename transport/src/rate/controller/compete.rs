//! Beside flows that fill the queue until it overflows (TCP with Reno or Cubic), a flow that gives
//! way to any queue gets nothing. This notices them and takes part in their game: grow much as
//! Reno does until something is lost in the queue, then give way by a third.
//!
//! They are told from our own queue by two signs: the queue stays although the rate was lowered, and
//! what arrives is much less than what the path carries of a burst, so somebody has the rest.

use std::time::Duration;

use crate::rate::estimate::Estimate;
use crate::units::Timestamp;

/// A standing queue of this counts, whatever the rate.
const QUEUE_MS: f64 = 25.0;
/// With more of the path than this, the queue is our own.
const SHARE_MAX: f64 = 0.85;
/// The time such a queue must stand is averaged over this, s. On above, off below: Cubic's queue
/// does empty now and then, and ours is gone in less than a second.
const MEMORY: f64 = 2.0;
const ON: f64 = 0.8;
const OFF: f64 = 0.3;
/// Growth in packets for each round trip. Reno's is 1; against one Cubic flow that takes 32 to 47 % of
/// the path, this 36 to 50 %.
const PACKETS: f64 = 1.5;
const PACKET_BITS: f64 = 9600.0;
/// The same at most, as a share of the rate in a second: short round trips would make it absurd.
const GROWTH_MAX: f64 = 0.5;
const SHRINK: f64 = 0.7;
/// A queue of this is too much for a call even then, ms.
const QUEUE_MAX_MS: f64 = 400.0;
/// So many more losses than the air's own are an overflow.
const LOSSES_MIN: f64 = 2.0;

#[derive(Default, Debug)]
pub(super) struct Competition {
    /// The share of the last seconds in which somebody else's queue stood.
    standing: f64,
    on: bool,
    /// The rate before it began.
    rate_before: f64,
    hold_until: Timestamp,
    /// The estimate's `high_total` up to which losses are answered.
    answered: (u64, u64),
    shrink: bool,
}

impl Competition {
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// A report's time and queue, and our share of the path. Gives the rate, higher when it was
    /// given away before the competition was noticed.
    pub(super) fn watch(&mut self, rate: f64, queue_ms: f64, share: f64, dt: f64) -> f64 {
        let stands = f64::from(u8::from(queue_ms > QUEUE_MS && share < SHARE_MAX));
        self.standing += (stands - self.standing) * (1.0 - (-dt / MEMORY).exp());
        if self.standing < OFF {
            self.on = false;
            self.rate_before = rate;
        } else if self.standing > ON && !self.on {
            self.on = true;
            return rate.max(SHRINK * self.rate_before);
        }
        rate
    }

    /// Whether the queue has overflowed, once for each time it does.
    pub(super) fn has_lost(&mut self, now: Timestamp, estimate: &Estimate) -> bool {
        if now < self.hold_until {
            self.answered = estimate.high_total;
            return false;
        }
        let (sent, lost) = estimate.high_total;
        let expected = 2.0 * estimate.loss_low * sent.saturating_sub(self.answered.0) as f64;
        let lost = lost.saturating_sub(self.answered.1) as f64;
        self.shrink = lost >= LOSSES_MIN + expected || estimate.queue.as_secs_f64() * 1e3 > QUEUE_MAX_MS;
        if self.shrink {
            self.hold_until = now + estimate.srtt.max(Duration::from_millis(20));
        }
        self.shrink
    }

    /// The next rate.
    pub(super) fn rate(&mut self, rate: f64, dt: f64, estimate: &Estimate, usable: f64) -> f64 {
        if std::mem::take(&mut self.shrink) {
            return rate * SHRINK;
        }
        let srtt = estimate.srtt.as_secs_f64().max(0.02);
        let growth = (PACKETS * PACKET_BITS / (srtt * srtt)).min(GROWTH_MAX * rate);
        (rate + growth * dt).min(usable.max(rate))
    }
}
