//! A token bucket: what may be spent at once, and what is earned a second.
//!
//! Counted in millionths, so that any rate is exact on a clock of microseconds.

use parlor_transport::units::Timestamp;

const MILLION: u64 = 1_000_000;

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    left: u64,
    burst: u64,
    per_second: u64,
    refilled: Timestamp,
}

impl Budget {
    /// Full: `burst` may be spent at once, `per_second` on and on.
    pub(crate) fn new(now: Timestamp, burst: u32, per_second: u32) -> Self {
        let burst = u64::from(burst) * MILLION;
        Budget { left: burst, burst, per_second: per_second.into(), refilled: now }
    }

    /// From now on with other bounds; what was spent stays spent.
    pub(crate) fn set(&mut self, now: Timestamp, burst: u32, per_second: u32) {
        self.refill(now);
        let spent = self.burst - self.left;
        self.burst = u64::from(burst) * MILLION;
        self.per_second = per_second.into();
        self.left = self.burst.saturating_sub(spent);
    }

    /// Takes so much; false when there is less, and nothing is taken then.
    pub(crate) fn spend(&mut self, now: Timestamp, cost: u32) -> bool {
        self.refill(now);
        match self.left.checked_sub(u64::from(cost) * MILLION) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Nothing of it is spent.
    pub(crate) fn is_full(&mut self, now: Timestamp) -> bool {
        self.refill(now);
        self.left == self.burst
    }

    fn refill(&mut self, now: Timestamp) {
        let elapsed = u64::try_from(now.saturating_since(self.refilled).as_micros()).unwrap_or(u64::MAX);
        self.left = self.left.saturating_add(elapsed.saturating_mul(self.per_second)).min(self.burst);
        self.refilled = self.refilled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    #[test]
    fn what_is_spent_comes_back_at_the_rate_and_never_beyond_the_burst() {
        let mut budget = Budget::new(at(0), 10, 4);
        assert!(budget.is_full(at(0)) && budget.spend(at(0), 10) && !budget.spend(at(0), 1));
        // Looking at it often loses nothing of what is earned in between.
        for ms in 1..250 {
            assert!(!budget.spend(at(ms), 1), "{ms}");
        }
        assert!(budget.spend(at(250), 1) && !budget.spend(at(250), 1));
        assert!(!budget.spend(at(9_000_000), 11) && budget.spend(at(9_000_000), 10));
    }

    #[test]
    fn a_clock_that_stands_or_a_rate_of_bytes_change_nothing() {
        let mut bytes = Budget::new(at(0), 8 << 20, 4_000_000);
        assert!(bytes.spend(at(0), 8 << 20) && !bytes.spend(at(0), 1));
        assert!(bytes.spend(at(1), 4000) && !bytes.spend(at(1), 1));
        assert!(!bytes.spend(at(0), 1), "time does not go back");
        assert!(bytes.spend(at(2), 4000) && !bytes.spend(at(2), 1));
    }

    #[test]
    fn other_bounds_hold_at_once_and_forgive_nothing() {
        let mut budget = Budget::new(at(0), 10, 1);
        assert!(budget.spend(at(0), 8));
        budget.set(at(0), 5, 1);
        assert!(!budget.spend(at(0), 1), "8 were spent");
        budget.set(at(0), 20, 1);
        assert!(budget.spend(at(0), 15), "5 of the smaller one were");
        assert!(!budget.spend(at(0), 1));
    }
}
