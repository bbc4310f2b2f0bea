//! The packets that went out, for as long as a report may speak of them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units::Timestamp;

/// Two seconds at 20 Mbit/s.
const PACKETS_MAX: usize = 4096;
/// Nothing is to be learned from a report of a packet older than that.
const AGE_MAX: Duration = Duration::from_secs(10);
/// The same of a packet of which it is known what became of it: reports repeat a packet for some hundred ms, and the last
/// one is reported again when nothing follows. Most packets go so early, and a relay keeps them for every subscriber.
const SETTLED_AGE: Duration = Duration::from_secs(1);

/// A media datagram on its way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SentPacket {
    /// Its number.
    pub tx_seq: u64,
    /// When it goes out.
    pub at: Timestamp,
    /// Its size on the wire.
    pub bytes: u32,
    /// The number of the last packet of its burst, as it says itself: packets of one burst leave
    /// as close together as the pacer lets them, and show what the path carries.
    pub burst_end: u64,
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// No report has spoken of it.
    Unknown,
    /// Reported missing; `high` when its neighbours saw a queue.
    Missing { since: Timestamp, high: bool },
    /// It arrived.
    Arrived,
    /// It will not arrive.
    Lost,
}

/// Packets with neighbouring numbers, oldest first.
#[derive(Default, Debug)]
pub(super) struct Sent {
    packets: VecDeque<(SentPacket, Fate)>,
    next: u64,
}

impl Sent {
    /// Adds the next packet and forgets the oldest beyond the bounds; gives, for each of those that
    /// is missing to the end, whether it was sent into a queue.
    pub(super) fn push(&mut self, packet: SentPacket) -> Vec<bool> {
        if packet.tx_seq != self.next {
            debug_assert!(self.packets.is_empty(), "numbers are given out one after the other");
            self.packets.clear();
        }
        self.next = packet.tx_seq.saturating_add(1);
        self.packets.push_back((packet, Fate::Unknown));
        let mut given_up = Vec::new();
        while let Some((oldest, fate)) = self.packets.front() {
            let is_settled = matches!(fate, Fate::Arrived | Fate::Lost);
            let age_max = if is_settled { SETTLED_AGE } else { AGE_MAX };
            let is_old = packet.at.saturating_since(oldest.at) > age_max;
            if !is_old && self.packets.len() <= PACKETS_MAX {
                break;
            }
            if let Fate::Missing { high, .. } = fate {
                given_up.push(*high);
            }
            self.packets.pop_front();
        }
        given_up
    }

    /// The number of the next packet.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    pub(super) fn get(&self, tx_seq: u64) -> Option<SentPacket> {
        self.packets.get(self.index(tx_seq)?).map(|(packet, _)| *packet)
    }

    pub(super) fn get_mut(&mut self, tx_seq: u64) -> Option<(SentPacket, &mut Fate)> {
        let index = self.index(tx_seq)?;
        self.packets.get_mut(index).map(|(packet, fate)| (*packet, fate))
    }

    fn index(&self, tx_seq: u64) -> Option<usize> {
        let first = self.packets.front()?.0.tx_seq;
        usize::try_from(tx_seq.checked_sub(first)?).ok()
    }
}
