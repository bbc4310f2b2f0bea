//! Links whose rate changes all the time, as recorded: the format of Mahimahi's traces.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// When a link can send: one opportunity of up to [`Schedule::OPPORTUNITY`] bytes at each of these times,
/// over and over. What Mahimahi's `mm-link` reads, and what cellular traces are published in.
///
/// ```
/// use parlor_transport::sim::Schedule;
///
/// // 1,500 bytes at 5 ms, twice that at 10 ms, then from the beginning: 3.6 Mbit/s.
/// let schedule: Schedule = "5\n10\n10\n".parse().unwrap();
/// assert_eq!(schedule.mean_rate(), 3_600_000);
/// assert!("5\n3\n".parse::<Schedule>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// ms since the start of a round, ascending; the last one is the round's length.
    times: Arc<[u32]>,
}

impl Schedule {
    /// Bytes that fit one opportunity; what a packet leaves of it serves the next packet.
    pub const OPPORTUNITY: usize = 1_500;
    /// Opportunities of a schedule: 24 hours at 1 Mbit/s.
    pub const OPPORTUNITIES_MAX: usize = 8_000_000;

    /// Bits per second in the long run.
    pub fn mean_rate(&self) -> u64 {
        let round = u64::from(self.round_ms());
        self.times.len() as u64 * Self::OPPORTUNITY as u64 * 8 * 1_000 / round
    }

    fn round_ms(&self) -> u32 {
        self.times.last().copied().unwrap_or(1)
    }

    /// When opportunity `index` comes, counted from the beginning of the simulation, ns.
    fn at_ns(&self, index: u64) -> u64 {
        let length = self.times.len() as u64;
        let (round, place) = (index / length, (index % length) as usize);
        (round * u64::from(self.round_ms()) + u64::from(self.times[place])) * 1_000_000
    }

    /// The first opportunity that comes at `ns` or later.
    fn first_at(&self, ns: u64) -> u64 {
        let ms = ns.div_ceil(1_000_000);
        let (round, rest) = (ms / u64::from(self.round_ms()), ms % u64::from(self.round_ms()));
        round * self.times.len() as u64 + self.times.partition_point(|&time| u64::from(time) < rest) as u64
    }
}

/// How far a link's queue has got on a [`Schedule`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    opportunity: u64,
    used: usize,
}

impl Progress {
    /// When the last of `size` bytes leaves that came at `now_ns`, behind all that came before.
    pub(super) fn send(&mut self, schedule: &Schedule, now_ns: u64, size: usize) -> u64 {
        let earliest = schedule.first_at(now_ns);
        if earliest > self.opportunity {
            *self = Progress { opportunity: earliest, used: 0 };
        }
        let mut left = size;
        loop {
            let taken = left.min(Schedule::OPPORTUNITY - self.used);
            self.used += taken;
            left -= taken;
            if left == 0 {
                return schedule.at_ns(self.opportunity);
            }
            *self = Progress { opportunity: self.opportunity + 1, used: 0 };
        }
    }
}

impl FromStr for Schedule {
    type Err = BadSchedule;

    fn from_str(text: &str) -> Result<Self, BadSchedule> {
        let mut times: Vec<u32> = Vec::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let bad = |problem: &'static str| BadSchedule { line: at + 1, problem };
            let time = line.trim().parse().map_err(|_| bad("is not a whole number of milliseconds"))?;
            if times.last().is_some_and(|last| time < *last) {
                return Err(bad("is earlier than the line before"));
            }
            if times.len() == Self::OPPORTUNITIES_MAX {
                return Err(bad("is beyond the 8,000,000 lines that are read"));
            }
            times.push(time);
        }
        match times.last() {
            None => Err(BadSchedule { line: 1, problem: "is missing: there is no time at all" }),
            Some(0) => Err(BadSchedule { line: 1, problem: "and all others are 0, which is no time" }),
            Some(_) => Ok(Schedule { times: times.into() }),
        }
    }
}

/// A text is not a [`Schedule`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSchedule {
    line: usize,
    problem: &'static str,
}

impl std::error::Error for BadSchedule {}

impl fmt::Display for BadSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} {}; a trace has one time in ms on each line, ascending", self.line, self.problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_share_opportunities_and_wait_for_them() {
        let schedule: Schedule = "5\n10\n10".parse().unwrap();
        let mut progress = Progress::default();
        let mut send = |at_ms: u64, size| progress.send(&schedule, at_ms * 1_000_000, size) / 1_000_000;
        assert_eq!([send(0, 1_000), send(0, 1_000), send(0, 1_500)], [5, 10, 10]);
        assert_eq!(send(12, 1_500), 15, "the next round");
        assert_eq!(send(1_000, 3_000), 1_010, "what nobody used is gone");
    }

    #[test]
    fn what_is_no_trace_says_where() {
        let error = |text: &str| text.parse::<Schedule>().unwrap_err().to_string();
        assert!(error("1\nx\n").starts_with("line 2 is not a whole number"));
        assert!(error("4\n\n3").starts_with("line 3 is earlier"));
        assert!(error("").contains("missing") && error("0\n0").contains("no time"));
    }
}
