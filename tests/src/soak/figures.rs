//! What a soak counts and measures, and when it has failed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What people did, for the report: a soak in which nothing happens would find nothing.
#[derive(Default, Debug)]
pub struct Deeds {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    errors: Mutex<BTreeMap<String, u64>>,
    /// Frames that came to players.
    pub frames: AtomicU64,
}

impl Deeds {
    /// One more of these.
    pub fn count(&self, what: &'static str) {
        *self.counts.lock().expect("nobody panics with it").entry(what).or_default() += 1;
    }

    /// Something that must not happen.
    pub fn error(&self, what: String) {
        *self.errors.lock().expect("nobody panics with it").entry(what).or_default() += 1;
    }

    /// How often `what` was counted.
    pub fn of(&self, what: &str) -> u64 {
        self.counts.lock().expect("nobody panics with it").get(what).copied().unwrap_or(0)
    }

    /// What must not have happened, and how often it did.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().expect("nobody panics with it").clone()
    }

    /// All counts in one line.
    pub fn to_line(&self) -> String {
        let counts = self.counts.lock().expect("nobody panics with it");
        let mut line = format!("frames played {}", self.frames.load(Ordering::Relaxed));
        for (what, count) in counts.iter() {
            // Writing into memory cannot fail.
            _ = write!(line, ", {what} {count}");
        }
        line
    }
}

/// One quantity over time.
#[derive(Clone, Default, Debug)]
pub struct Series {
    /// Hours since the start, and the value in bytes.
    points: Vec<(f64, f64)>,
}

/// What a series says after its warm-up.
#[derive(Clone, Copy, Debug)]
pub struct Trend {
    /// Mean of the first third after the warm-up, bytes.
    pub early: f64,
    /// Mean of the last third, bytes.
    pub late: f64,
    /// Of the line that fits best, bytes an hour.
    pub slope: f64,
    /// How much that line rises from the end of the warm-up to the end, bytes.
    pub rise: f64,
}

impl Series {
    /// Takes a value.
    pub fn push(&mut self, hours: f64, bytes: usize) {
        self.points.push((hours, bytes as f64));
    }

    /// The trend after the first quarter, which is the warm-up; `None` with fewer than 12 points.
    pub fn trend(&self) -> Option<Trend> {
        let points = &self.points[self.points.len() / 4..];
        let count = points.len() as f64;
        let (first, last) = (points.first()?, points.last()?);
        if points.len() < 9 {
            return None;
        }
        let mean = |points: &[(f64, f64)]| points.iter().map(|(_, y)| y).sum::<f64>() / points.len() as f64;
        let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
        let mean_y = mean(points);
        let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        let slope = covariance / variance;
        let third = points.len() / 3;
        Some(Trend {
            early: mean(&points[..third]),
            late: mean(&points[points.len() - third..]),
            slope,
            rise: slope * (last.0 - first.0),
        })
    }
}

impl Trend {
    /// Whether it grows: by the fitted line and by the means of the first and last third alike, by more than `share`
    /// of what there was and by more than `least` bytes. One of the two alone is what comings and goings do.
    pub fn grows(&self, share: f64, least: f64) -> bool {
        let bound = (self.early * share).max(least);
        self.rise > bound && self.late - self.early > bound
    }

    /// In words.
    pub fn to_line(&self, name: &str) -> String {
        const KIB: f64 = 1024.0;
        format!(
            "{name}: {:.0} KiB after warm-up, {:.0} KiB at the end, slope {:+.1} KiB/h",
            self.early / KIB,
            self.late / KIB,
            self.slope / KIB
        )
    }
}

/// Adds to `wrong` what must not have happened, and that nothing did.
pub fn check_deeds(deeds: &Deeds, wrong: &mut Vec<String>) {
    wrong.extend(deeds.errors().iter().map(|(what, count)| format!("{what} ({count} times)")));
    if deeds.of("published") == 0 || deeds.frames.load(Ordering::Relaxed) == 0 {
        wrong.push("nothing was published or played".to_owned());
    }
}

/// Resident memory of a process in bytes, this one's without a number; `None` where /proc is not there.
pub fn resident(process: Option<u32>) -> Option<usize> {
    let whose = process.map_or("self".to_owned(), |id| id.to_string());
    let status = fs::read_to_string(format!("/proc/{whose}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<usize>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(value: impl Fn(usize) -> usize) -> Trend {
        let mut series = Series::default();
        (0..400).for_each(|at| series.push(at as f64 / 60.0, value(at)));
        series.trend().unwrap()
    }

    #[test]
    fn a_leak_is_told_from_comings_and_goings() {
        let noise = |at: usize| at * 7919 % 101 * 10_000;
        let flat = series(|at| 20_000_000 + noise(at));
        assert!(!flat.grows(0.05, 1e6), "{flat:?}");
        let leak = series(|at| 20_000_000 + noise(at) + at * 10_000);
        assert!(leak.grows(0.05, 1e6), "{leak:?}");
        assert!((550_000.0..650_000.0).contains(&leak.slope), "10,000 bytes a minute: {leak:?}");
        // What fills once is over when the warm-up is.
        let filled = series(|at| 20_000_000 + noise(at) + at.min(90) * 100_000);
        assert!(!filled.grows(0.05, 1e6), "{filled:?}");
        assert!(Series::default().trend().is_none());
    }

    #[test]
    fn resident_memory_can_be_read() {
        assert!(resident(None).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(resident(Some(u32::MAX)), None);
    }
}
