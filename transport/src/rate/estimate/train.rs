//! Packet trains: packets that left close together arrive no closer than the narrowest link lets
//! them, so the times within a burst show what the path carries even while little is sent.
//! Only what arrived is counted, so loss makes the result too small, never too large.

use std::collections::VecDeque;
use std::time::Duration;

use super::sent::SentPacket;
use crate::units::Timestamp;

/// Fewer packets say too little of the path.
const PACKETS_MIN: u32 = 4;
/// The first estimate wants more, lost ones included: it decides how a call begins.
const PACKETS_MIN_FIRST: u64 = 8;
/// Trains remembered, and for how long: a good half second of single frames.
const RECENT_MAX: usize = 16;
const RECENT: Duration = Duration::from_millis(700);

/// A train that takes this much longer to arrive than to leave met a link slower than its pace.
const STRETCH_MIN: f64 = 1.1;

/// One that was not stretched is news when it arrived this much faster than known.
const NEWS_MIN: f64 = 1.1;

#[derive(Default, Debug)]
pub(super) struct Trains {
    current: Option<Train>,
    first: Option<u64>,
    /// When, what rate, and whether it was the path that set it.
    recent: VecDeque<(Timestamp, u64, bool)>,
}

#[derive(Debug)]
struct Train {
    burst_end: u64,
    /// Its first packet that arrived, and its last.
    numbers: (u64, u64),
    sent: (Timestamp, Timestamp),
    arrived: (Timestamp, Timestamp),
    packets: u32,
    /// Without the first packet, whose own way took place before `start`.
    bytes: u64,
}

impl Trains {
    /// A packet arrived, by the receiver's clock. Packets come in the order of their numbers.
    pub(super) fn add(&mut self, now: Timestamp, packet: &SentPacket, at: Timestamp) {
        match &mut self.current {
            Some(train) if train.burst_end == packet.burst_end => {
                train.packets += 1;
                train.bytes += u64::from(packet.bytes);
                train.numbers.1 = packet.tx_seq;
                train.sent.1 = packet.at;
                train.arrived.1 = train.arrived.1.max(at);
            }
            _ => {
                self.finish(now);
                self.current = Some(Train {
                    burst_end: packet.burst_end,
                    numbers: (packet.tx_seq, packet.tx_seq),
                    sent: (packet.at, packet.at),
                    arrived: (at, at),
                    packets: 1,
                    bytes: 0,
                });
            }
        }
        if packet.tx_seq == packet.burst_end {
            self.finish(now);
        }
    }

    /// Forgets a train whose packets were timed by two clocks.
    pub(super) fn abandon(&mut self) {
        self.current = None;
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.first
    }

    /// The median of the last half second.
    pub(super) fn recent(&self) -> Option<u64> {
        let mut rates: Vec<u64> = self.recent.iter().map(|(_, rate, _)| *rate).collect();
        rates.sort_unstable();
        rates.get(rates.len() / 2).copied()
    }

    /// Whether most of them arrived slower than they were sent.
    pub(super) fn are_stretched(&self) -> bool {
        self.recent.iter().filter(|(_, _, stretched)| *stretched).count() * 2 > self.recent.len()
    }

    fn finish(&mut self, now: Timestamp) {
        let Some(train) = self.current.take() else { return };
        while self.recent.front().is_some_and(|(at, ..)| now.saturating_since(*at) > RECENT) {
            self.recent.pop_front();
        }
        if train.packets < PACKETS_MIN {
            return;
        }
        // Times come in steps of 250 µs: a shorter train would look infinitely fast.
        // Times come in steps of 250 µs: a shorter train would look infinitely fast.
        let span_of = |(start, end): (Timestamp, Timestamp)| {
            end.saturating_since(start).max(Duration::from_micros(500))
        };
        let (span, sent) = (span_of(train.arrived), span_of(train.sent));
        let rate = train.bytes * 8_000_000 / span.as_micros() as u64;
        if train.numbers.1 - train.numbers.0 + 1 >= PACKETS_MIN_FIRST {
            self.first.get_or_insert(rate);
        }
        let stretched = span > sent.mul_f64(STRETCH_MIN);
        // A train at the very pace of the path proves nothing that is not known.
        if stretched || self.recent().is_none_or(|known| rate as f64 > NEWS_MIN * known as f64) {
            self.recent.push_back((now, rate, stretched));
        }
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }
}
