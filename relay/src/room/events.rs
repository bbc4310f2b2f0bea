//! A room's history, ready to send: each event encoded once, shared by everyone who reads it.
//!
//! Members are positions on this log, not queues. What a member at some position is to be sent is a *batch*, made once
//! for all who stand there. Who falls off the log's end gets a fresh snapshot.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use parlor_transport::wire::control::{RoomMessage, encode};

use super::coalesce;
use crate::limits::{
    BATCHES_BYTES_MAX, BATCHES_MAX, COALESCE_EVENTS_MIN, EVENT_BATCH_MAX, EVENT_LOG_BYTES_MAX,
    EVENT_LOG_EVENTS_MAX,
};

/// The newest events of one life of a room.
#[derive(Default, Debug)]
pub struct EventLog {
    /// The event at `position - len + 1 + i` stands at `i`.
    events: VecDeque<Entry>,
    position: u64,
    bytes: usize,
    /// The newest batches, for others who stand where they begin.
    batches: VecDeque<Batch>,
}

#[derive(Debug)]
struct Entry {
    event: RoomMessage,
    encoded: Bytes,
}

/// What leads from one position to a later one, encoded. Clones share the bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The position it leads from.
    pub from: u64,
    /// The position it leads to.
    pub reached: u64,
    /// Its events, one behind the other.
    pub bytes: Bytes,
}

/// What a member at some position has to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum After {
    /// Nothing.
    UpToDate,
    /// This; perhaps there is more behind it.
    Events(Batch),
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

    /// Whether the event after `position` is still here, or `position` is the newest.
    pub fn reaches(&self, position: u64) -> bool {
        let missing = self.position.saturating_sub(position);
        usize::try_from(missing).is_ok_and(|missing| missing <= self.events.len())
    }

    /// What comes after `position`, at least as far as `wanted` (or [`EVENT_BATCH_MAX`] events). It may lead further, but
    /// while `wanted` was reached nothing is told: what came later waits for its time.
    pub fn after(&mut self, position: u64, wanted: u64) -> After {
        let wanted = wanted.min(self.position);
        if position >= wanted {
            return After::UpToDate;
        }
        if !self.reaches(position) {
            return After::Behind;
        }
        let enough = wanted.min(position + EVENT_BATCH_MAX as u64);
        let made = self.batches.iter().rev().find(|b| b.from == position && b.reached >= enough);
        if let Some(batch) = made {
            return After::Events(batch.clone());
        }
        let batch = self.batch(position);
        self.keep(batch.clone());
        After::Events(batch)
    }

    /// All that comes after `from`, at most [`EVENT_BATCH_MAX`] events.
    fn batch(&self, from: u64) -> Batch {
        let begin = self.events.len() - usize::try_from(self.position - from).unwrap_or(0);
        let end = self.events.len().min(begin + EVENT_BATCH_MAX);
        let reached = from + (end - begin) as u64;
        if end - begin == 1 {
            return Batch { from, reached, bytes: self.events[begin].encoded.clone() };
        }
        let entries = || self.events.range(begin..end);
        let whole = || {
            let mut bytes = BytesMut::with_capacity(entries().map(|entry| entry.encoded.len()).sum());
            entries().for_each(|entry| bytes.extend_from_slice(&entry.encoded));
            bytes
        };
        let bytes = match end - begin {
            count if count < COALESCE_EVENTS_MIN => whole(),
            _ => match coalesce::coalesce(entries().map(|entry| &entry.event)) {
                None => whole(),
                Some(events) => {
                    let mut bytes = BytesMut::new();
                    events.iter().for_each(|event| bytes.extend_from_slice(&encode(event)));
                    bytes
                }
            },
        };
        Batch { from, reached, bytes: bytes.freeze() }
    }

    fn keep(&mut self, batch: Batch) {
        self.batches.push_back(batch);
        let bytes = |batches: &VecDeque<Batch>| batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
        let is_too_much = |batches: &VecDeque<Batch>| {
            batches.len() > BATCHES_MAX || batches.len() > 1 && bytes(batches) > BATCHES_BYTES_MAX
        };
        while is_too_much(&self.batches) {
            self.batches.pop_front();
        }
    }

    /// Appends the event that leads to the next position; the oldest ones make room.
    pub(super) fn push(&mut self, event: RoomMessage) {
        let encoded = encode(&event);
        self.position += 1;
        self.bytes += encoded.len();
        self.events.push_back(Entry { event, encoded });
        while self.events.len() > EVENT_LOG_EVENTS_MAX || self.bytes > EVENT_LOG_BYTES_MAX {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.encoded.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use parlor_transport::wire::control::{EventStamp, RoomExtra, RoomInfoChanged};

    use super::super::tests::decode_all;
    use super::*;

    /// Events none of which replaces another.
    fn log_of(count: u64, size: usize) -> EventLog {
        let mut log = EventLog::default();
        for number in 0..count {
            let stamp = EventStamp { epoch: 1, position: number + 1, previous: number, users: 0 };
            let extra = RoomExtra { key: number.to_string(), version: 1, value: "v".repeat(size) };
            log.push(RoomMessage::RoomInfoChanged(RoomInfoChanged { stamp, extra }));
        }
        log
    }

    #[test]
    fn a_reader_gets_all_events_in_batches_and_then_nothing() {
        let count = EVENT_BATCH_MAX as u64 * 2 + 88;
        let mut log = log_of(count, 1);
        let (mut position, mut read) = (0, Vec::new());
        while let After::Events(batch) = log.after(position, u64::MAX) {
            assert!(batch.from == position && batch.reached - position <= EVENT_BATCH_MAX as u64);
            position = batch.reached;
            read.extend(decode_all(&batch.bytes));
        }
        assert_eq!(log.after(position, u64::MAX), After::UpToDate);
        let positions = read.iter().map(|event| event.stamp().unwrap().position);
        assert!(positions.eq(1..=count));
    }

    #[test]
    fn who_stands_at_one_place_shares_one_batch_and_nobody_is_told_early() {
        let mut log = log_of(30, 1);
        let After::Events(first) = log.after(10, 30) else { panic!("there is more") };
        let After::Events(second) = log.after(10, 20) else { panic!("there is more") };
        assert_eq!(first.bytes.as_ptr(), second.bytes.as_ptr(), "encoded once for both");
        assert_eq!(log.after(20, 20), After::UpToDate, "events after 20 wait for their time");
        assert!(log.batches.iter().map(|batch| batch.bytes.len()).sum::<usize>() <= BATCHES_BYTES_MAX);
    }

    #[test]
    fn both_bounds_hold_and_who_falls_off_is_behind() {
        let mut many = log_of(EVENT_LOG_EVENTS_MAX as u64 + 1, 1);
        assert_eq!(many.after(0, u64::MAX), After::Behind);
        assert!(matches!(many.after(1, u64::MAX), After::Events(_)));

        let mut large = log_of(1100, 1000);
        assert!(large.bytes <= EVENT_LOG_BYTES_MAX);
        let kept = large.events.len() as u64;
        assert!((1000..1100).contains(&kept));
        assert_eq!(large.after(1100 - kept - 1, u64::MAX), After::Behind);
        assert!(matches!(large.after(1100 - kept, u64::MAX), After::Events(_)));
        assert_eq!(large.after(1100, u64::MAX), After::UpToDate);
    }
}
