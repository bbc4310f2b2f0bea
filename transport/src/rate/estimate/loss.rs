//! Two kinds of loss, told apart by the queue that a lost packet's neighbours met: the air loses
//! packets whatever the queue, a full buffer only when it is full.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units::Timestamp;

/// Weight of the past for each packet: a memory of about 200 packets.
const KEEP: f64 = 0.995;
/// The same where a quick answer is needed: about 50 packets.
const KEEP_SHORT: f64 = 0.98;
/// Runs of losses are rare: a memory of about 500 packets.
const KEEP_RUNS: f64 = 0.998;
/// Half of the worst of so many buckets is believed still to be there: losses come in bursts.
const WORST_BUCKETS: usize = 6;
const WORST_BUCKET: Duration = Duration::from_millis(500);

/// A share with exponential memory, right from the first packet on.
#[derive(Debug)]
struct Share {
    keep: f64,
    hits: f64,
    total: f64,
}

impl Share {
    fn new(keep: f64) -> Self {
        Share { keep, hits: 0.0, total: 0.0 }
    }

    fn add(&mut self, hit: bool) {
        self.hits = self.hits * self.keep + f64::from(u8::from(hit));
        self.total = self.total * self.keep + 1.0;
    }

    /// One packet says little: a tenth of the memory is presumed to be without hits.
    fn get(&self) -> f64 {
        let presumed = 0.1 / (1.0 - self.keep);
        self.hits / self.total.max(presumed)
    }
}

#[derive(Debug)]
pub(super) struct Loss {
    random: Share,
    low: Share,
    high: Share,
    worst: VecDeque<(Timestamp, f64)>,
    runs: Runs,
    high_total: (u64, u64),
}

impl Default for Loss {
    fn default() -> Self {
        Loss {
            random: Share::new(KEEP),
            low: Share::new(KEEP_SHORT),
            high: Share::new(KEEP_SHORT),
            worst: VecDeque::new(),
            runs: Runs::default(),
            high_total: (0, 0),
        }
    }
}

impl Loss {
    /// The fate of a packet, sent into a queue (`high`) or not.
    pub(super) fn add(&mut self, now: Timestamp, lost: bool, high: bool) {
        if high {
            self.high.add(lost);
            self.high_total.0 += 1;
            self.high_total.1 += u64::from(lost);
            return;
        }
        self.low.add(lost);
        self.random.add(lost);
        let share = self.random.get();
        match self.worst.back_mut() {
            Some((start, worst)) if now.saturating_since(*start) < WORST_BUCKET => *worst = worst.max(share),
            _ => self.worst.push_back((now, share)),
        }
        if self.worst.len() > WORST_BUCKETS {
            self.worst.pop_front();
        }
    }

    /// The receiver's counters.
    pub(super) fn add_runs(&mut self, highest: u64, lost: u64, runs: u64) {
        self.runs.add(highest, lost, runs);
    }

    pub(super) fn random(&self) -> f64 {
        let worst = self.worst.iter().map(|(_, share)| *share).fold(0.0, f64::max);
        self.random.get().max(worst / 2.0)
    }

    pub(super) fn low(&self) -> f64 {
        self.low.get()
    }

    pub(super) fn high(&self) -> f64 {
        self.high.get()
    }

    /// Packets sent into a queue since the beginning, and how many of them were lost.
    pub(super) fn high_total(&self) -> (u64, u64) {
        self.high_total
    }

    pub(super) fn run_mean(&self) -> f64 {
        self.runs.mean()
    }
}

/// The receiver's counters of losses and of their runs, with a memory.
#[derive(Default, Debug)]
struct Runs {
    highest: u64,
    counted: (u64, u64),
    lost: f64,
    runs: f64,
}

impl Runs {
    fn add(&mut self, highest: u64, lost: u64, runs: u64) {
        let packets = highest.saturating_sub(self.highest);
        let (Some(new_lost), Some(new_runs)) =
            (lost.checked_sub(self.counted.0), runs.checked_sub(self.counted.1))
        else {
            return; // overtaken by a newer report
        };
        self.highest = self.highest.max(highest);
        self.counted = (lost, runs);
        let keep = KEEP_RUNS.powf(packets as f64);
        self.lost = self.lost * keep + new_lost as f64;
        self.runs = self.runs * keep + new_runs as f64;
    }

    /// At least one; at most what a whole memory of losses in one run would be.
    fn mean(&self) -> f64 {
        if self.runs < 0.5 { 1.0 } else { (self.lost / self.runs).clamp(1.0, 500.0) }
    }
}
