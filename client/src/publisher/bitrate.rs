//! What an encoder makes of the rate that a link offers: down at once, up in steps that it can settle in.

use std::time::Duration;

use parlor_transport::units::Timestamp;

/// Offers that differ by less, as a share, are not worth telling an encoder.
const STEP_DOWN: f64 = 0.03;
const STEP_UP: f64 = 0.05;
/// Up no sooner than this after the last change: an encoder's own rate control looks back about as far.
const SETTLE: Duration = Duration::from_millis(300);

/// What a link has for a publication's encoders, and a relay takes of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Bits/s of media, of all its tracks together.
    pub media: u64,
    /// The link is so full that pictures are better left out for now.
    pub overfull: bool,
}

/// The bitrate of one encoder.
///
/// ```
/// use parlor_client::publisher::Bitrate;
/// use parlor_transport::units::Timestamp;
///
/// let (mut bitrate, at) = (Bitrate::new(100_000, 600_000), Timestamp::from_micros);
/// assert_eq!(bitrate.follow(at(1_000_000), 2_000_000), None, "it has all it wants");
/// assert_eq!(bitrate.follow(at(1_100_000), 300_000), Some(300_000));
/// assert_eq!(bitrate.follow(at(1_200_000), 500_000), None, "it has just changed");
/// assert_eq!(bitrate.follow(at(1_400_000), 500_000), Some(500_000));
/// assert_eq!(bitrate.follow(at(1_500_000), 20_000), Some(100_000), "less would show nothing");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Bitrate {
    least: u32,
    most: u32,
    current: u32,
    changed: Timestamp,
}

impl Bitrate {
    /// Begins with `most`, and keeps to `least` and more, both in bits/s.
    pub fn new(least: u32, most: u32) -> Self {
        Bitrate { least: least.min(most), most, current: most, changed: Timestamp::ZERO }
    }

    /// The bitrate in force, bits/s.
    pub fn current(&self) -> u32 {
        self.current
    }

    /// The bitrate to change to, if `offered` bits/s ask for it.
    pub fn follow(&mut self, now: Timestamp, offered: u64) -> Option<u32> {
        let target = u32::try_from(offered).unwrap_or(u32::MAX).clamp(self.least, self.most);
        let (current, wanted) = (f64::from(self.current), f64::from(target));
        let is_lower = wanted < current * (1.0 - STEP_DOWN);
        let is_higher = wanted > current * (1.0 + STEP_UP) || (target == self.most && self.current < target);
        let is_settled = now.saturating_since(self.changed) >= SETTLE;
        if !(is_lower || is_higher && is_settled) {
            return None;
        }
        (self.current, self.changed) = (target, now);
        Some(target)
    }
}
