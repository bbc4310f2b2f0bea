//! App messages that wait for one receiver: how many may, and what becomes of the others.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::limits::{
    LOSSY_WAITING_BYTES_MAX, LOSSY_WAITING_MAX, MESSAGES_WAITING_BYTES_MAX, MESSAGES_WAITING_MAX,
};

/// What waits for one receiver, in the order it came.
#[derive(Default, Debug)]
pub struct Outbox {
    waiting: VecDeque<Bytes>,
    bytes: usize,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// It waits.
    Queued,
    /// It was lossy, and others wait already.
    Dropped,
    /// It must not be lost and there is no room: the receiver does not read.
    Full,
}

impl Outbox {
    /// Takes a message, if there is room.
    pub fn put(&mut self, message: Bytes, lossy: bool) -> Put {
        let (count_max, bytes_max) = match lossy {
            true => (LOSSY_WAITING_MAX, LOSSY_WAITING_BYTES_MAX),
            false => (MESSAGES_WAITING_MAX, MESSAGES_WAITING_BYTES_MAX),
        };
        if self.waiting.len() >= count_max || self.bytes + message.len() > bytes_max {
            return if lossy { Put::Dropped } else { Put::Full };
        }
        self.bytes += message.len();
        self.waiting.push_back(message);
        Put::Queued
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next message to send.
    pub fn take(&mut self) -> Option<Bytes> {
        let message = self.waiting.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(size: usize) -> Bytes {
        vec![7; size].into()
    }

    #[test]
    fn lossy_messages_give_way_long_before_reliable_ones_are_too_many() {
        let mut outbox = Outbox::default();
        for _ in 0..LOSSY_WAITING_MAX {
            assert_eq!(outbox.put(message(1), true), Put::Queued);
        }
        assert_eq!(outbox.put(message(1), true), Put::Dropped);
        for _ in LOSSY_WAITING_MAX..MESSAGES_WAITING_MAX {
            assert_eq!(outbox.put(message(1), false), Put::Queued);
        }
        assert_eq!(outbox.put(message(1), false), Put::Full);
        assert_eq!(std::iter::from_fn(|| outbox.take()).count(), MESSAGES_WAITING_MAX);
        assert_eq!((outbox.bytes, outbox.put(message(1), true)), (0, Put::Queued));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut outbox = Outbox::default();
        let large = || message(16 * 1024);
        let lossy = (0..).take_while(|_| outbox.put(large(), true) == Put::Queued).count();
        assert_eq!(lossy, LOSSY_WAITING_BYTES_MAX / (16 * 1024));
        let reliable = (0..).take_while(|_| outbox.put(large(), false) == Put::Queued).count();
        assert_eq!(lossy + reliable, MESSAGES_WAITING_BYTES_MAX / (16 * 1024));
        assert_eq!(outbox.put(large(), false), Put::Full);
    }
}
