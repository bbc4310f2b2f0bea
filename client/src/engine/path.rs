//! Watches whether anything comes over a connection's path, and decides what is done when nothing does: first
//! another socket, for the network may have changed under it, then another connection.
//!
//! A machine: it is told the time and what passed.

use std::time::Duration;

use parlor_transport::units::Timestamp;

/// Packets that must have left without an answer before silence means anything: in a room where nobody publishes
/// there is a keep-alive a second, and its answer.
const UNANSWERED_MIN: u64 = 2;

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Go on with another socket.
    Rebind,
    /// The path works again after it had changed, or was silent, for so long.
    Migrated(Duration),
    /// The connection is lost.
    Lost,
}

/// UDP datagrams of a connection so far, and how often its endpoint has changed its socket.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Passed {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) rebinds: u64,
}

/// The state of a connection's path.
#[derive(Debug)]
pub(super) struct Path {
    rebind_after: Duration,
    lost_after: Duration,
    /// When something came last, and what had passed by then.
    heard: Timestamp,
    passed: Passed,
    /// Since when a change of the socket waits for proof that it works.
    changing: Option<Timestamp>,
    /// Another socket was asked for since something came.
    has_tried: bool,
}

impl Path {
    /// A path that works `now`.
    pub(super) fn new(now: Timestamp, passed: Passed, rebind_after: Duration, lost_after: Duration) -> Self {
        Path { rebind_after, lost_after, heard: now, passed, changing: None, has_tried: false }
    }

    /// Looks at what has passed by `now`.
    pub(super) fn look(&mut self, now: Timestamp, passed: Passed) -> Option<Step> {
        if passed.rebinds > self.passed.rebinds {
            // By us, by another room of this engine, or by the app. What came until now came over the old one.
            self.changing.get_or_insert(self.heard);
            self.passed = Passed { rebinds: passed.rebinds, received: passed.received, ..self.passed };
            return None;
        }
        if passed.received > self.passed.received {
            self.passed = passed;
            self.heard = now;
            self.has_tried = false;
            let since = self.changing.take();
            return since.map(|since| Step::Migrated(now.saturating_since(since)));
        }
        let silence = now.saturating_since(self.heard);
        if silence >= self.lost_after {
            return Some(Step::Lost);
        }
        let unanswered = passed.sent.saturating_sub(self.passed.sent);
        let is_suspect = silence >= self.rebind_after && unanswered >= UNANSWERED_MIN;
        if !is_suspect || self.has_tried || self.changing.is_some() || self.rebind_after.is_zero() {
            return None;
        }
        self.has_tried = true;
        Some(Step::Rebind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REBIND: Duration = Duration::from_secs(1);
    const LOST: Duration = Duration::from_secs(3);

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    fn passed(received: u64, sent: u64, rebinds: u64) -> Passed {
        Passed { received, sent, rebinds }
    }

    fn path() -> Path {
        Path::new(at(0), passed(10, 10, 0), REBIND, LOST)
    }

    #[test]
    fn a_silent_path_gets_another_socket_once_and_is_lost_later() {
        let mut path = path();
        assert_eq!(path.look(at(900), passed(10, 40, 0)), None);
        assert_eq!(path.look(at(1000), passed(10, 40, 0)), Some(Step::Rebind));
        assert_eq!(path.look(at(1250), passed(10, 40, 1)), None, "told of its own deed");
        assert_eq!(path.look(at(2750), passed(10, 60, 1)), None);
        assert_eq!(path.look(at(3000), passed(10, 60, 1)), Some(Step::Lost));
    }

    #[test]
    fn what_is_heard_after_a_change_proves_it() {
        let mut path = path();
        assert_eq!(path.look(at(1000), passed(10, 40, 0)), Some(Step::Rebind));
        assert_eq!(path.look(at(1250), passed(10, 41, 1)), None);
        let took = Duration::from_millis(1500);
        assert_eq!(path.look(at(1500), passed(11, 42, 1)), Some(Step::Migrated(took)));
        assert_eq!(path.look(at(1750), passed(12, 43, 1)), None);
    }

    #[test]
    fn a_quiet_room_is_not_a_silent_path() {
        let mut path = path();
        // One keep-alive has left, its answer is on its way.
        assert_eq!(path.look(at(1050), passed(10, 11, 0)), None);
        assert_eq!(path.look(at(1250), passed(11, 11, 0)), None);
        // A second one without an answer.
        assert_eq!(path.look(at(2500), passed(11, 13, 0)), Some(Step::Rebind));
    }

    #[test]
    fn an_app_may_keep_its_socket() {
        let mut path = Path::new(at(0), passed(0, 0, 0), Duration::ZERO, LOST);
        assert_eq!(path.look(at(2999), passed(0, 50, 0)), None);
        assert_eq!(path.look(at(3000), passed(0, 50, 0)), Some(Step::Lost));
    }
}
