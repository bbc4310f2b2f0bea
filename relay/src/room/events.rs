//! A room's history, ready to send: each event encoded once, shared by everyone who reads it.
//!
//! Members are positions on this log, not queues. Who falls off its end gets a fresh snapshot.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::limits::{EVENT_BATCH_MAX, EVENT_LOG_BYTES_MAX, EVENT_LOG_EVENTS_MAX};

/// The newest events of one life of a room.
#[derive(Default, Debug)]
pub struct EventLog {
    /// The event at `position - len + 1 + i` stands at `i`.
    events: VecDeque<Bytes>,
    position: u64,
    bytes: usize,
}

/// What a member at some position has to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum After {
    /// Nothing.
    UpToDate,
    /// The next events, at most [`EVENT_BATCH_MAX`].
    Events(Vec<Bytes>),
    /// The next event is gone: a snapshot.
    Behind,
}

impl EventLog {
    /// The position of the newest event.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the events kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What comes after `position`.
    pub fn after(&self, position: u64) -> After {
        let missing = self.position.saturating_sub(position);
        if missing == 0 {
            return After::UpToDate;
        }
        match usize::try_from(missing).ok().and_then(|missing| self.events.len().checked_sub(missing)) {
            None => After::Behind,
            Some(from) => After::Events(self.events.range(from..).take(EVENT_BATCH_MAX).cloned().collect()),
        }
    }

    /// Appends the event that leads to the next position; the oldest ones make room.
    pub(super) fn push(&mut self, event: Bytes) {
        self.position += 1;
        self.bytes += event.len();
        self.events.push_back(event);
        while self.events.len() > EVENT_LOG_EVENTS_MAX || self.bytes > EVENT_LOG_BYTES_MAX {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(count: u64, size: usize) -> EventLog {
        let mut log = EventLog::default();
        for _ in 0..count {
            log.push(vec![0; size].into());
        }
        log
    }

    #[test]
    fn a_reader_gets_all_events_in_batches_and_then_nothing() {
        let mut log = EventLog::default();
        for number in 0..600u32 {
            log.push(Bytes::copy_from_slice(&number.to_be_bytes()));
        }
        let (mut position, mut read) = (0, Vec::new());
        while let After::Events(events) = log.after(position) {
            assert!(events.len() <= EVENT_BATCH_MAX);
            position += events.len() as u64;
            read.extend(events);
        }
        assert_eq!(log.after(position), After::UpToDate);
        assert!(read.iter().enumerate().all(|(at, event)| event[..] == (at as u32).to_be_bytes()));
        assert_eq!(read.len(), 600);
    }

    #[test]
    fn both_bounds_hold_and_who_falls_off_is_behind() {
        let many = log_of(EVENT_LOG_EVENTS_MAX as u64 + 1, 1);
        assert_eq!(many.after(0), After::Behind);
        assert!(matches!(many.after(1), After::Events(_)));

        let large = log_of(100, EVENT_LOG_BYTES_MAX / 10);
        assert!(large.bytes <= EVENT_LOG_BYTES_MAX);
        assert_eq!(large.after(89), After::Behind);
        assert!(matches!(large.after(90), After::Events(_)));
        assert_eq!(large.after(100), After::UpToDate);
    }
}
