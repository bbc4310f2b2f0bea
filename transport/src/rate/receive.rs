//! The receiving side: remembers which media datagrams arrived and when, and decides when the
//! sender must hear of it. What a report says of incomplete frames comes from the caller.
//!
//! A report is due
//! - at once when a gap in the numbers opens, or, on a path that was seen to reorder, when the gap
//!   has stayed open for as long as reordered packets usually take;
//! - when a burst should have ended and its tail did not come;
//! - every 5 ms for a while after something turned out to be missing, because a report may be lost too, and
//!   every 10 ms for as long as a frame is incomplete; but where the sender finds the path calm, a frame that is only just
//!   coming in lacks nothing: something has to be found missing;
//! - otherwise every 50 ms, 25 ms while the rate grows, and 200 ms where the sender finds the path calm, as long as
//!   packets come.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units::Timestamp;
use crate::wire::feedback::{Feedback, IncompleteFrame, OLDER_MAX, Reception, TAIL_MAX};

/// Reports keep this distance: a burst of losses is worth one report, not ten.
const SPACING_MIN: Duration = Duration::from_millis(2);
const INTERVAL_NEWS: Duration = Duration::from_millis(5);
/// A dozen reports: enough to be heard where most are lost.
const NEWS_FOR: Duration = Duration::from_millis(60);
const INTERVAL_INCOMPLETE: Duration = Duration::from_millis(10);
/// On a calm path, for so long what turned out to be missing may be why a frame is incomplete: none is repaired for longer.
const MISSED_FOR: Duration = Duration::from_millis(1000);
const INTERVAL_RAMPING: Duration = Duration::from_millis(25);
const INTERVAL: Duration = Duration::from_millis(50);
/// Every report costs the sender a wake-up: a relay with hundreds of receivers spends a third of its time on them. A queue
/// that forms on a calm path is heard of so much later at most; and if one is lost, the next comes before the sender takes
/// the silence for a broken path.
const INTERVAL_CALM: Duration = Duration::from_millis(200);
/// Bounds of the wait for a burst's tail; the upper one is some frames: where most packets are lost, what
/// looks like a tail is often the middle of a burst.
const TAIL_WAIT: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// Added to the time that the rest of a burst takes before it counts as late.
const TAIL_SLACK: Duration = Duration::from_millis(4);
/// Waiting longer for a reordered packet costs more than repairing it needlessly.
const REORDER_WAIT_MAX: Duration = Duration::from_millis(10);
/// A path that has not reordered for this long is taken to be in order again.
const REORDER_MEMORY: Duration = Duration::from_secs(30);
/// Reordering delays remembered: enough for a 95th percentile.
const REORDERS_MAX: usize = 64;
/// Gaps watched at once. More are open only under loss so heavy that reports are due anyway.
const GAPS_MAX: usize = 64;
/// After so many later packets a missing one counts as lost: far beyond any reordering.
const SETTLED: usize = 64;
/// A packet's bit is in the reports of at least this many and this long, its time in fewer: the
/// more of them are lost, the more must repeat it, and bits are cheaper than times.
const BIT_REPEATS: (usize, Duration) = (8, Duration::from_millis(150));
const TIME_REPEATS: (usize, Duration) = (6, Duration::from_millis(60));
/// Both on a calm path: nothing is lost there, and what is, is reported again as soon as a gap shows.
const CALM_REPEATS: (usize, Duration) = (1, Duration::from_millis(150));
/// Reports remembered for that: 150 ms of them at the closest spacing.
const MARKS_MAX: usize = 80;
/// Reports made after the last packet came, in case one is lost.
const REPORTS_AFTER_LAST: u32 = 4;
/// The first seconds of a connection are taken as ramping.
const RAMP_FIRST: Duration = Duration::from_secs(3);
/// Arrivals are compared over two halves of a second; growth by more than this is ramping.
const RAMP_HALF: Duration = Duration::from_millis(500);
const RAMP_GROWTH: f64 = 1.15;

/// What happened on the receiving side so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ReceiveStats {
    /// Datagrams that arrived, duplicates not counted.
    pub packets: u64,
    /// Datagrams that came twice, or so late that they count as lost.
    pub stale: u64,
    /// Datagrams that came after a later one.
    pub reordered: u64,
    /// Datagrams that never came.
    pub lost: u64,
    /// Reports made.
    pub reports: u64,
}

/// Makes the reports of one connection.
///
/// ```
/// use parlor_transport::rate::FeedbackBuilder;
/// use parlor_transport::units::Timestamp;
///
/// let ms = |millis: u64| Timestamp::from_micros(millis * 1000);
/// let mut builder = FeedbackBuilder::default();
/// builder.on_packet(ms(1), 0, 2, 1150);
/// builder.on_packet(ms(2), 2, 2, 1150); // 1 is missing: a report is due at once
/// assert_eq!(builder.poll_timeout(), Some(ms(2)));
/// let report = builder.poll_feedback(ms(2), &[]).expect("it is due");
/// assert_eq!((report.highest, report.older.len()), (2, 2));
/// assert!(builder.poll_feedback(ms(2), &[]).is_none());
/// ```
#[derive(Default, Debug)]
pub struct FeedbackBuilder {
    /// Arrivals, `window[0]` that of `highest`; at most [`OLDER_MAX`] + 1.
    window: VecDeque<Option<Timestamp>>,
    highest: u64,
    last_arrival: Timestamp,
    first_arrival: Timestamp,
    burst_end: u64,
    /// The tail up to here was called missing.
    claimed: u64,
    gaps: VecDeque<Gap>,
    reorders: Reorders,
    spacing: Spacing,
    growth: Growth,
    incomplete: bool,
    /// The sender needs reports less often.
    calm: bool,
    /// When something turned out to be missing last.
    news: Timestamp,
    /// `highest` and time of the reports made, newest first; at most [`MARKS_MAX`].
    marks: VecDeque<(u64, Timestamp)>,
    reports_left: u32,
    in_run: bool,
    runs: u64,
    stats: ReceiveStats,
}

#[derive(Debug)]
struct Gap {
    first: u64,
    last: u64,
    missing: u64,
    since: Timestamp,
    reported: bool,
}

impl FeedbackBuilder {
    /// A media datagram arrived: its number, the number of the last packet of its burst as it says
    /// itself, and its size on the wire.
    pub fn on_packet(&mut self, now: Timestamp, tx_seq: u64, burst_end: u64, bytes: usize) {
        if self.window.is_empty() {
            self.first_arrival = now;
            self.highest = tx_seq;
            self.window.push_front(Some(now));
        } else if tx_seq > self.highest {
            self.advance(now, tx_seq, burst_end);
        } else if !self.fill(now, tx_seq) {
            self.stats.stale += 1;
            return;
        }
        self.stats.packets += 1;
        self.last_arrival = now;
        self.burst_end = self.burst_end.max(burst_end.min(tx_seq.saturating_add(TAIL_MAX)));
        self.growth.add(now, bytes);
        self.reports_left = REPORTS_AFTER_LAST;
    }

    /// Whether some frame lacks symbols: reports come faster then.
    pub fn set_incomplete(&mut self, incomplete: bool) {
        self.incomplete = incomplete;
    }

    /// Whether the sender finds nothing on the path to watch over.
    pub fn set_calm(&mut self, calm: bool) {
        self.calm = calm;
    }

    /// Something turned out to be missing that no gap in the numbers shows.
    pub fn note_missing(&mut self, now: Timestamp) {
        self.news = now;
    }

    /// When the next report is due, unless something arrives before.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if self.window.is_empty() {
            return None;
        }
        let wait = self.reorders.wait();
        let gap = self.gaps.iter().find(|gap| !gap.reported).map(|gap| gap.since + wait);
        let tail = self.tail_is_open().then(|| self.tail_due());
        let Some(&(_, last)) = self.marks.front() else {
            // The first report says that something arrived; the sender's RTT hangs on it.
            return Some(self.last_arrival);
        };
        let is_coming = self.calm && (self.tail_is_open() || last > self.news + MISSED_FOR);
        let lacks = self.incomplete && !is_coming;
        let regular = if lacks {
            let next = last + INTERVAL_NEWS;
            Some(if next <= self.news + NEWS_FOR { next } else { last + INTERVAL_INCOMPLETE })
        } else if self.reports_left > 0 && self.calm {
            Some(last + INTERVAL_CALM)
        } else if self.reports_left > 0 {
            let ramping = self.growth.ramping || last < self.first_arrival + RAMP_FIRST;
            Some(last + if ramping { INTERVAL_RAMPING } else { INTERVAL })
        } else {
            None
        };
        [gap, tail, regular].into_iter().flatten().min().map(|due| due.max(last + SPACING_MIN))
    }

    /// The report, if one is due. `frames` are the incomplete ones, the most urgent first.
    pub fn poll_feedback(&mut self, now: Timestamp, frames: &[IncompleteFrame]) -> Option<Feedback> {
        if self.poll_timeout()? > now {
            return None;
        }
        let wait = self.reorders.wait();
        if self.tail_is_open() && self.tail_due() <= now {
            self.claimed = self.burst_end;
            self.news = now;
        }
        for gap in self.gaps.iter_mut().filter(|gap| gap.since + wait <= now) {
            gap.reported = true;
        }
        self.reorders.forget_old(now);
        let report = self.report(now, frames);
        self.marks.push_front((self.highest, now));
        self.marks.truncate(MARKS_MAX);
        self.reports_left = self.reports_left.saturating_sub(1);
        self.stats.reports += 1;
        Some(report)
    }

    /// For how long a gap is given the benefit of the doubt; zero until reordering was seen.
    pub fn reorder_wait(&self) -> Duration {
        self.reorders.wait()
    }

    /// The share of packets missing among the last few hundred, 0 to 1.
    pub fn loss(&self) -> f64 {
        let missing = self.window.iter().filter(|arrival| arrival.is_none()).count();
        missing as f64 / self.window.len().max(1) as f64
    }

    /// What happened so far.
    pub fn stats(&self) -> ReceiveStats {
        self.stats
    }

    fn tail_is_open(&self) -> bool {
        self.burst_end > self.highest.max(self.claimed)
    }

    /// When the last packet of the burst should have come.
    fn tail_due(&self) -> Timestamp {
        let left = self.burst_end.saturating_sub(self.highest);
        self.last_arrival + self.spacing.tail_wait(left) + self.reorders.wait()
    }

    fn report(&self, now: Timestamp, frames: &[IncompleteFrame]) -> Feedback {
        let is_quiet = self.calm && now.saturating_since(self.news) > NEWS_FOR;
        let repeats = if is_quiet { (CALM_REPEATS, CALM_REPEATS) } else { (BIT_REPEATS, TIME_REPEATS) };
        let (bits, times) = (self.packets_since(now, repeats.0), self.packets_since(now, repeats.1));
        let arrived = self.window.front().copied().flatten().unwrap_or(self.last_arrival);
        let mut feedback = Feedback::new(self.highest, arrived, now.saturating_since(arrived));
        feedback.tail = self.claimed.saturating_sub(self.highest);
        let older = self.window.iter().enumerate().skip(1).take(bits);
        feedback.older = older
            .map(|(back, arrival)| match arrival {
                None => Reception::Missing,
                Some(at) => Reception::Received((back <= times).then_some(*at)),
            })
            .collect();
        (feedback.lost, feedback.runs) = (self.stats.lost, self.runs);
        feedback.frames = frames.iter().take(crate::wire::feedback::FRAMES_MAX).copied().collect();
        feedback
    }

    /// How far back a report must go for every packet to be in enough of them.
    fn packets_since(&self, now: Timestamp, (repeats, age): (usize, Duration)) -> usize {
        let mark = self.marks.iter().skip(repeats).find(|(_, made)| now.saturating_since(*made) >= age);
        mark.map_or(OLDER_MAX, |(highest, _)| (self.highest - highest) as usize)
    }

    fn advance(&mut self, now: Timestamp, tx_seq: u64, burst_end: u64) {
        let step = tx_seq - self.highest;
        if step > 1 {
            self.news = now;
            self.gaps.push_back(Gap {
                first: self.highest + 1,
                last: tx_seq - 1,
                missing: step - 1,
                since: now,
                reported: false,
            });
            if self.gaps.len() > GAPS_MAX {
                self.gaps.pop_front();
            }
        } else if burst_end == self.burst_end {
            self.spacing.add(now.saturating_since(self.last_arrival));
        }
        // Beyond window and settling every further packet is lost for certain and can be counted unseen.
        let walked = step.min((OLDER_MAX + 1 + SETTLED) as u64);
        for _ in 0..walked {
            self.window.push_front(None);
            self.settle();
            self.window.truncate(OLDER_MAX + 1);
        }
        self.stats.lost = self.stats.lost.saturating_add(step - walked);
        if let Some(newest) = self.window.front_mut() {
            *newest = Some(now);
        }
        self.highest = tx_seq;
    }

    /// Counts the packet for which the wait is over now.
    fn settle(&mut self) {
        if let Some(arrival) = self.window.get(SETTLED) {
            let lost = arrival.is_none();
            self.runs += u64::from(lost && !self.in_run);
            self.stats.lost += u64::from(lost);
            self.in_run = lost;
        }
    }

    /// A packet below the highest. False if it came before, or too late.
    fn fill(&mut self, now: Timestamp, tx_seq: u64) -> bool {
        let back = (self.highest - tx_seq) as usize;
        match self.window.get_mut(back) {
            Some(slot @ None) if back < SETTLED => *slot = Some(now),
            _ => return false,
        }
        self.stats.reordered += 1;
        if let Some(at) = self.gaps.iter().position(|gap| (gap.first..=gap.last).contains(&tx_seq)) {
            let gap = &mut self.gaps[at];
            gap.missing -= 1;
            self.reorders.add(now, now.saturating_since(gap.since));
            if gap.missing == 0 {
                self.gaps.remove(at);
            }
        }
        true
    }
}

/// How late reordered packets come.
#[derive(Default, Debug)]
struct Reorders {
    delays: VecDeque<Duration>,
    last: Timestamp,
    wait: Duration,
}

impl Reorders {
    fn add(&mut self, now: Timestamp, delay: Duration) {
        self.delays.push_back(delay);
        if self.delays.len() > REORDERS_MAX {
            self.delays.pop_front();
        }
        self.last = now;
        let mut sorted: Vec<_> = self.delays.iter().copied().collect();
        sorted.sort_unstable();
        self.wait = sorted[sorted.len() * 95 / 100].min(REORDER_WAIT_MAX);
    }

    fn forget_old(&mut self, now: Timestamp) {
        if now.saturating_since(self.last) > REORDER_MEMORY {
            self.delays.clear();
            self.wait = Duration::ZERO;
        }
    }

    fn wait(&self) -> Duration {
        self.wait
    }
}

/// Mean and deviation of the time between two packets of a burst.
#[derive(Default, Debug)]
struct Spacing {
    mean_us: f64,
    deviation_us: f64,
}

impl Spacing {
    fn add(&mut self, distance: Duration) {
        const GAIN: f64 = 1.0 / 16.0;
        let distance = distance.as_micros() as f64;
        self.deviation_us += GAIN * ((distance - self.mean_us).abs() - self.deviation_us);
        self.mean_us += GAIN * (distance - self.mean_us);
    }

    /// For a burst of which `left` packets are to come.
    fn tail_wait(&self, left: u64) -> Duration {
        let expected = self.mean_us * left as f64 + 4.0 * self.deviation_us;
        let expected = Duration::from_micros(expected as u64);
        (TAIL_SLACK + expected).clamp(TAIL_WAIT.0, TAIL_WAIT.1)
    }
}

/// Whether more arrives than a little earlier.
#[derive(Default, Debug)]
struct Growth {
    half_end: Timestamp,
    bytes: u64,
    bytes_before: u64,
    ramping: bool,
}

impl Growth {
    fn add(&mut self, now: Timestamp, bytes: usize) {
        if now >= self.half_end {
            self.ramping = self.bytes as f64 > RAMP_GROWTH * self.bytes_before as f64;
            self.bytes_before = self.bytes;
            self.bytes = 0;
            self.half_end = now + RAMP_HALF;
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}

#[cfg(test)]
mod tests;
