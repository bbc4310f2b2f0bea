//! Keyframe requests for one layer: many players ask, the publisher hears it once.

use std::time::Duration;

use parlor_transport::units::Timestamp;

/// Merges and spaces the requests for one track and spatial layer.
#[derive(Debug)]
pub struct KeyframeGate {
    interval_min: Duration,
    /// When the publisher was last asked.
    asked: Option<Timestamp>,
    /// When the newest keyframe came.
    arrived: Option<Timestamp>,
    /// Somebody waits for a keyframe that was not asked for since they began to.
    wanted: bool,
}

impl KeyframeGate {
    /// A gate through which a request passes at most every `interval_min`.
    pub fn new(interval_min: Duration) -> Self {
        KeyframeGate { interval_min, asked: None, arrived: None, wanted: false }
    }

    /// Somebody needs a keyframe that arrives after `since`. True if the gate was idle until now and has
    /// to be polled.
    pub fn request(&mut self, since: Timestamp) -> bool {
        let idle = !self.wanted;
        if self.arrived.is_none_or(|arrived| arrived < since) {
            self.wanted = true;
        }
        idle && self.wanted
    }

    /// A keyframe came; it serves everyone who asked.
    pub fn keyframe_arrived(&mut self, now: Timestamp) {
        self.arrived = Some(now);
        self.wanted = false;
    }

    /// Whether the publisher is to be asked now. True once for each time it is.
    pub fn poll(&mut self, now: Timestamp) -> bool {
        let due = self.poll_timeout().is_some_and(|at| at <= now);
        if due {
            self.asked = Some(now);
            self.wanted = false;
        }
        due
    }

    /// When [`poll`](Self::poll) will be true, unless a keyframe comes before; `None` if nobody waits.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.wanted.then(|| self.asked.map_or(Timestamp::ZERO, |asked| asked + self.interval_min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(500);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    #[test]
    fn many_requests_pass_as_one_and_again_only_after_the_interval() {
        let mut gate = KeyframeGate::new(INTERVAL);
        assert!(!gate.poll(at(0)), "nobody asked");
        assert_eq!((0..50).filter(|&ms| gate.request(at(ms))).count(), 1);
        assert!(gate.poll(at(50)));
        assert!(!gate.poll(at(51)));
        gate.request(at(100));
        assert_eq!(gate.poll_timeout(), Some(at(550)));
        assert!(!gate.poll(at(549)));
        assert!(gate.poll(at(550)), "the keyframe did not come: ask again");
    }

    #[test]
    fn a_keyframe_that_came_since_answers_everyone() {
        let mut gate = KeyframeGate::new(INTERVAL);
        gate.request(at(10));
        gate.keyframe_arrived(at(20));
        assert!(!gate.poll(at(30)));
        gate.request(at(15));
        assert!(!gate.poll(at(30)), "the need is older than the keyframe");
        gate.request(at(25));
        assert!(gate.poll(at(30)));
    }
}
