//! The timers of all connections of an endpoint.

use std::collections::BTreeSet;
use std::time::Instant;

use quinn_proto::ConnectionHandle;

/// The handle of no connection: for the task itself, which looks at everything when its time comes.
pub(super) const NOBODY: ConnectionHandle = ConnectionHandle(usize::MAX);

/// When which connection is to be looked at: one entry for each at most.
#[derive(Debug, Default)]
pub(super) struct Timers {
    entries: BTreeSet<(Instant, usize)>,
    /// What the task waits for.
    asleep_until: Option<Instant>,
}

impl Timers {
    /// Moves the entry of `handle` from `before` to `at`. True when the task would sleep past that.
    pub(super) fn set(&mut self, handle: ConnectionHandle, before: Option<Instant>, at: Instant) -> bool {
        if let Some(before) = before {
            self.entries.remove(&(before, handle.0));
        }
        self.entries.insert((at, handle.0));
        self.asleep_until.is_none_or(|until| at < until)
    }

    pub(super) fn remove(&mut self, handle: ConnectionHandle, at: Instant) {
        self.entries.remove(&(at, handle.0));
    }

    /// Takes the first entry that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<ConnectionHandle> {
        let (at, handle) = *self.entries.first()?;
        (at <= now).then(|| {
            self.entries.pop_first();
            ConnectionHandle(handle)
        })
    }

    /// When the task is to wake up; it is told of what comes before that from here on.
    pub(super) fn sleep(&mut self) -> Option<Instant> {
        self.asleep_until = self.entries.first().map(|(at, _)| *at);
        self.asleep_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::units::Timestamp;
    use std::time::Duration;

    #[test]
    fn each_connection_is_due_once_and_in_order() {
        let start = Clock::system().to_std(Timestamp::ZERO);
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        assert_eq!(timers.sleep(), None);
        assert!(timers.set(ConnectionHandle(1), None, at(20)), "it would sleep for ever");
        assert_eq!(timers.sleep(), Some(at(20)));
        assert!(!timers.set(ConnectionHandle(2), None, at(30)));
        assert!(timers.set(ConnectionHandle(2), Some(at(30)), at(10)));
        timers.set(ConnectionHandle(3), None, at(10));
        timers.remove(ConnectionHandle(3), at(10));

        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(20)), Some(ConnectionHandle(2)));
        assert_eq!(timers.pop_due(at(20)), Some(ConnectionHandle(1)));
        assert_eq!((timers.pop_due(at(99)), timers.sleep()), (None, None));
    }
}
