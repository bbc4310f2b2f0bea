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
const SETTLED_AGE: Duration = Duration::from_millis(600);

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

/// A packet as it is kept: a relay has [`SETTLED_AGE`] of them for every subscriber.
#[derive(Clone, Copy, Debug)]
struct Kept {
    at: Timestamp,
    bytes: u32,
    /// How many followed in its burst, as it said itself.
    burst: u16,
    fate: Fate,
}

/// Packets with neighbouring numbers, oldest first.
#[derive(Default, Debug)]
pub(super) struct Sent {
    packets: VecDeque<Kept>,
    next: u64,
}

impl Sent {
    /// Adds the next packet and forgets the oldest beyond the bounds; gives, for each of those that
    /// is missing to the end, whether it was sent into a queue.
    pub(super) fn push(&mut self, packet: SentPacket) -> Vec<bool> {
        let SentPacket { tx_seq, at, bytes, burst_end } = packet;
        if tx_seq != self.next {
            debug_assert!(self.packets.is_empty(), "numbers are given out one after the other");
            self.packets.clear();
        }
        self.next = tx_seq.saturating_add(1);
        let burst = u16::try_from(burst_end.saturating_sub(tx_seq)).unwrap_or(u16::MAX);
        self.packets.push_back(Kept { at, bytes, burst, fate: Fate::Unknown });
        let mut given_up = Vec::new();
        while let Some(oldest) = self.packets.front() {
            let is_settled = matches!(oldest.fate, Fate::Arrived | Fate::Lost);
            let age_max = if is_settled { SETTLED_AGE } else { AGE_MAX };
            let is_old = at.saturating_since(oldest.at) > age_max;
            if !is_old && self.packets.len() <= PACKETS_MAX {
                break;
            }
            if let Fate::Missing { high, .. } = oldest.fate {
                given_up.push(high);
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
        self.packets.get(self.index(tx_seq)?).map(|kept| kept.packet(tx_seq))
    }

    pub(super) fn get_mut(&mut self, tx_seq: u64) -> Option<(SentPacket, &mut Fate)> {
        let index = self.index(tx_seq)?;
        self.packets.get_mut(index).map(|kept| (kept.packet(tx_seq), &mut kept.fate))
    }

    fn index(&self, tx_seq: u64) -> Option<usize> {
        let first = self.next - self.packets.len() as u64;
        usize::try_from(tx_seq.checked_sub(first)?).ok()
    }
}

impl Kept {
    fn packet(&self, tx_seq: u64) -> SentPacket {
        let burst_end = tx_seq.saturating_add(self.burst.into());
        SentPacket { tx_seq, at: self.at, bytes: self.bytes, burst_end }
    }
}
