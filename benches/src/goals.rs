//! What Parlor means to reach, and whether it does: one table of cells with their limits.
//!
//! All figures come from the real stack in virtual time. Delays are in ms from capture to complete beyond
//! one-way delay, overhead is all UDP payload bytes of the media's way over media bytes, minus one.

mod bound;
mod compare;
mod rows;

use std::time::Duration;

use crate::cell::Cell;
use crate::contender::Contender;
use crate::contender::parlor::Parlor;
use crate::join::Joining;
use crate::measure::{self, Measured};
use crate::rate;
use compare::{Compared, Progress, ahead, bursts, capacity, modes};
use rows::{Row, rows};

/// One figure against its limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Which cell.
    pub cell: String,
    /// Which figure, with its unit.
    pub what: String,
    /// What was measured.
    pub value: f64,
    /// The limit, with `≤`, `≥` or `<` before it.
    pub limit: String,
    /// Whether it is met.
    pub met: bool,
}

impl Verdict {
    /// `value` should be at most `limit`.
    pub fn at_most(cell: &str, what: &str, value: f64, limit: f64) -> Self {
        let (cell, what) = (cell.to_owned(), what.to_owned());
        Verdict { cell, what, value, limit: format!("≤ {}", short(limit)), met: value <= limit }
    }

    /// `value` should be at least `limit`.
    pub fn at_least(cell: &str, what: &str, value: f64, limit: f64) -> Self {
        let (cell, what) = (cell.to_owned(), what.to_owned());
        Verdict { cell, what, value, limit: format!("≥ {}", short(limit)), met: value >= limit }
    }

    /// A figure without a limit.
    pub fn shown(cell: &str, what: &str, value: f64) -> Self {
        let (cell, what) = (cell.to_owned(), what.to_owned());
        Verdict { cell, what, value, limit: Self::NO_LIMIT.to_owned(), met: true }
    }

    /// Stands for the limit of a figure that has none.
    pub const NO_LIMIT: &str = "–";

    /// Whether there is anything to be met.
    pub fn has_limit(&self) -> bool {
        self.limit != Self::NO_LIMIT
    }

    /// Whether this one is the better of two for the same limit; of figures without one the first counts.
    pub fn is_better_than(&self, other: &Verdict) -> bool {
        match self.limit.chars().next() {
            Some('≥') => self.value > other.value,
            Some('≤' | '<') => self.value < other.value,
            _ => false,
        }
    }

    /// `value` should be below `limit`.
    pub fn below(cell: &str, what: &str, value: f64, limit: f64) -> Self {
        let (cell, what) = (cell.to_owned(), what.to_owned());
        Verdict { cell, what, value, limit: format!("< {}", short(limit)), met: value < limit }
    }
}

/// How much is run.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Length of each run.
    pub length: Duration,
    /// Runs of each cell.
    pub seeds: u64,
}

/// The names that [`judge`] takes with `only`: a part of a name is enough.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = rows().iter().map(|row| row.name.to_owned()).collect();
    names.extend([JOINS, MODES, AHEAD, BURSTS, CAPACITY].map(str::to_owned));
    names.extend(rate::names().into_iter().map(str::to_owned));
    names
}

const JOINS: &str = "joining at 70 %";
const MODES: &str = "adaptive beside the other modes";
const AHEAD: &str = "ahead of the contenders";
const BURSTS: &str = "10 % in runs of 8";
const CAPACITY: &str = "capacity";

/// Runs the cells whose names contain `only` and compares them with their limits. What was run comes along.
///
/// # Errors
/// When somebody could not run.
pub fn judge(
    effort: Effort,
    only: &str,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<(Vec<Verdict>, Vec<Measured>), String> {
    let sized = |cell: &Cell| Cell { length: effort.length, ..cell.clone() };
    let rows: Vec<Row> = rows().into_iter().filter(|row| row.name.contains(only)).collect();
    let parlors: Vec<Parlor> = rows.iter().map(|row| Parlor::from(row.delivery)).collect();
    let tasks: Vec<(Cell, &dyn Contender)> =
        rows.iter().zip(&parlors).map(|(row, parlor)| (sized(&row.cell), parlor as &dyn Contender)).collect();
    let mut measured = measure::run_all(&tasks, effort.seeds, &progress)?;
    let mut verdicts = Vec::new();
    for (row, measured) in rows.iter().zip(&measured) {
        verdicts.extend(row.limits.iter().map(|limit| limit.judge(row.name, &measured.outcome)));
    }
    if JOINS.contains(only) {
        verdicts.extend(joins());
    }
    for (name, compare) in [
        (MODES, modes as fn(Effort, Progress<'_>) -> Compared),
        (AHEAD, ahead),
        (BURSTS, bursts),
        (CAPACITY, capacity),
    ] {
        if name.contains(only) {
            let (more, runs) = compare(effort, &progress)?;
            verdicts.extend(more);
            measured.extend(runs);
        }
    }
    verdicts.extend(rate::run_cases(only, effort.seeds, &progress)?.0);
    Ok((verdicts, measured))
}

fn joins() -> Vec<Verdict> {
    let join = |cell: &str, loss_up, loss_down, limit_s| {
        let outcome = Joining { loss_up, loss_down }.run(0..100);
        let last = outcome.picture.quantile(1.0).map_or(f64::INFINITY, |last| last.as_secs_f64());
        Verdict::at_most(cell, "the last of 100 sees a picture after s", last, limit_s)
    };
    vec![
        join("joining at 70 % up", 0.7, 0.0, 2.5),
        join("joining at 70 % down", 0.0, 0.7, 2.5),
        join("joining at 70 % both ways", 0.7, 0.7, 5.0),
    ]
}

/// A limit as it is read; what decides is the number itself.
fn short(limit: f64) -> String {
    ((limit * 1e3).round() / 1e3).to_string()
}
