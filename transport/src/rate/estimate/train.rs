//! Packet trains: packets that left close together arrive no closer than the narrowest link lets
//! them, so the times within a burst show what the path carries even while little is sent.
//! Only what arrived is counted, so loss makes the result too small, never too large. A train that came mixed up was
//! spread by the path's reordering: it says that the path carries at least so much, and not that it carries no more.

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
    recent: VecDeque<Passed>,
}

/// A train that is through.
#[derive(Clone, Copy, Debug)]
struct Passed {
    at: Timestamp,
    rate: u64,
    /// The path set the rate.
    is_stretched: bool,
    is_mixed: bool,
}

#[derive(Debug)]
struct Train {
    burst_end: u64,
    /// Its first packet that arrived, and its last.
    numbers: (u64, u64),
    sent: (Timestamp, Timestamp),
    arrived: (Timestamp, Timestamp),
    packets: u32,
    /// Some came in another order than they were sent. A queue keeps the order, so that it was not a narrow link alone that
    /// spread them.
    is_mixed: bool,
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
                train.is_mixed |= at < train.arrived.1;
                train.arrived = (train.arrived.0.min(at), train.arrived.1.max(at));
            }
            _ => {
                self.finish(now);
                self.current = Some(Train {
                    burst_end: packet.burst_end,
                    numbers: (packet.tx_seq, packet.tx_seq),
                    sent: (packet.at, packet.at),
                    arrived: (at, at),
                    packets: 1,
                    is_mixed: false,
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

    /// The median of the last half second; on a path that reorders the largest, because each is too small.
    pub(super) fn recent(&self) -> Option<u64> {
        let mut rates: Vec<u64> = self.recent.iter().map(|passed| passed.rate).collect();
        rates.sort_unstable();
        let place = if self.is_mixing() { rates.len().saturating_sub(1) } else { rates.len() / 2 };
        rates.get(place).copied()
    }

    /// Whether most of them arrived slower than they were sent.
    pub(super) fn are_stretched(&self) -> bool {
        let stretched = self.recent.iter().filter(|passed| passed.is_stretched).count();
        stretched * 2 > self.recent.len() && !self.is_mixing()
    }

    /// Whether the path reorders.
    fn is_mixing(&self) -> bool {
        self.recent.iter().any(|passed| passed.is_mixed)
    }

    fn finish(&mut self, now: Timestamp) {
        let Some(train) = self.current.take() else { return };
        while self.recent.front().is_some_and(|passed| now.saturating_since(passed.at) > RECENT) {
            self.recent.pop_front();
        }
        if train.packets < PACKETS_MIN {
            return;
        }
        // Times come in steps of 250 µs: a shorter train would look infinitely fast.
        let span_of = |(start, end): (Timestamp, Timestamp)| {
            end.saturating_since(start).max(Duration::from_micros(500))
        };
        let (span, sent) = (span_of(train.arrived), span_of(train.sent));
        let rate = train.bytes * 8_000_000 / span.as_micros() as u64;
        if train.numbers.1 - train.numbers.0 + 1 >= PACKETS_MIN_FIRST {
            self.first.get_or_insert(rate);
        }
        let is_stretched = span > sent.mul_f64(STRETCH_MIN);
        let is_mixed = train.is_mixed;
        // A train at the very pace of the path proves nothing that is not known.
        if is_stretched || is_mixed || self.recent().is_none_or(|known| rate as f64 > NEWS_MIN * known as f64)
        {
            self.recent.push_back(Passed { at: now, rate, is_stretched, is_mixed });
        }
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight packets of 1,200 bytes that leave together, over and over; they arrive so many µs later, in turn.
    fn after(trains: &[[u64; 8]]) -> Trains {
        let mut seen = Trains::default();
        for (number, arrivals) in (0..).zip(trains) {
            let start = Timestamp::from_micros(1_000_000 + number * 33_000);
            for (place, micros) in (0..).zip(arrivals) {
                let tx_seq = number * 8 + place;
                let packet = SentPacket { tx_seq, at: start, bytes: 1200, burst_end: number * 8 + 7 };
                seen.add(start, &packet, start + Duration::from_micros(*micros));
            }
        }
        seen
    }

    #[test]
    fn a_narrow_link_sets_the_rate() {
        let seen = after(&[[0, 1000, 2000, 3000, 4000, 5000, 6000, 7000]; 3]);
        assert_eq!((seen.recent(), seen.are_stretched()), (Some(9_600_000), true));
    }

    #[test]
    fn reordering_is_no_narrow_link() {
        let wide = [7000, 1000, 9000, 0, 5000, 8000, 10_000, 2000];
        let close = [3000, 1000, 2000, 0, 4000, 3000, 1000, 2000];
        // In order by chance, and spread all the same.
        let ordered = [0, 1000, 3000, 4000, 5000, 6000, 8000, 10_000];
        let seen = after(&[wide, wide, close, ordered, wide, ordered]);
        let fastest = 8400 * 8_000_000 / 4_000_000 * 1000;
        assert!(!seen.are_stretched());
        assert!(seen.recent().is_some_and(|rate| rate >= fastest), "{:?} of {fastest}", seen.recent());
        assert!(seen.recent().is_some_and(|rate| rate < 2 * fastest), "{:?} of {fastest}", seen.recent());
    }
}
