//! Time as every part of Parlor sees it. Pure values: reading a clock is `clock`'s business.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A point in time, in microseconds since an origin that is fixed for one clock.
///
/// Timestamps of one host compare with each other; between hosts they compare only after
/// the offset between the two clocks was estimated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The clock's origin.
    pub const ZERO: Timestamp = Timestamp(0);
    /// Later than every real time; stands for "never" in comparisons.
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// The time `micros` µs after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Timestamp(micros)
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if `earlier` is later than `self`.
    pub const fn saturating_since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// `self − other` in µs, negative when `other` is later. Saturates at the range of `i64`.
    pub fn signed_since(self, other: Timestamp) -> i64 {
        i64::try_from(i128::from(self.0) - i128::from(other.0)).unwrap_or(if self.0 > other.0 {
            i64::MAX
        } else {
            i64::MIN
        })
    }

    /// The time moved by `micros` µs (either way), saturating at the origin and at [`Timestamp::MAX`].
    pub const fn offset_by(self, micros: i64) -> Timestamp {
        Timestamp(self.0.saturating_add_signed(micros))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, duration: Duration) -> Timestamp {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_add(micros))
    }
}

impl AddAssign<Duration> for Timestamp {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, duration: Duration) -> Timestamp {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_sub(micros))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// A date: microseconds since the beginning of 1970, without leap seconds. Tokens are dated by it; nothing
/// else is, because a machine's date may jump.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The date `micros` µs after the beginning of 1970.
    pub const fn from_micros(micros: u64) -> Self {
        UnixTime(micros)
    }

    /// The date `seconds` s after the beginning of 1970; the last one there is if that is too far.
    pub const fn from_secs(seconds: u64) -> Self {
        UnixTime(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since the beginning of 1970.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the beginning of 1970.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Time passed since `earlier`; zero if `earlier` is later than `self`.
    pub const fn saturating_since(self, earlier: UnixTime) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for UnixTime {
    type Output = UnixTime;
    fn add(self, duration: Duration) -> UnixTime {
        UnixTime((Timestamp(self.0) + duration).0)
    }
}

impl Sub<Duration> for UnixTime {
    type Output = UnixTime;
    fn sub(self, duration: Duration) -> UnixTime {
        UnixTime((Timestamp(self.0) - duration).0)
    }
}

impl fmt::Debug for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnixTime({}.{:06})", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Timestamp::ZERO - Duration::from_secs(1), Timestamp::ZERO);
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
        assert_eq!(Timestamp::ZERO.signed_since(Timestamp::MAX), i64::MIN);
        assert_eq!(Timestamp::from_micros(5).signed_since(Timestamp::from_micros(9)), -4);
        assert_eq!(Timestamp::from_micros(5).saturating_since(Timestamp::from_micros(9)), Duration::ZERO);
    }
}
