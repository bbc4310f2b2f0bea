//! What Parlor means to reach, and whether it does: one table of cells with their limits.
//!
//! All figures come from the real stack in virtual time. Delays are in ms from capture to complete beyond
//! one-way delay, overhead is all UDP payload bytes of the media's way over media bytes, minus one.

use std::time::Duration;

use parlor_client::Delivery;

use crate::cell::{Cell, Feed, Link, Way};
use crate::contender::parlor::Parlor;
use crate::contender::{self, Contender};
use crate::join::Joining;
use crate::measure::{self, Measured};
use crate::outcome::Outcome;
use crate::rate;
use crate::report::PLAYOUT;
use crate::source::Shape;

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
        Verdict { cell, what, value, limit: format!("≤ {limit}"), met: value <= limit }
    }

    /// `value` should be at least `limit`.
    pub fn at_least(cell: &str, what: &str, value: f64, limit: f64) -> Self {
        let (cell, what) = (cell.to_owned(), what.to_owned());
        Verdict { cell, what, value, limit: format!("≥ {limit}"), met: value >= limit }
    }

    /// A figure without a limit.
    pub fn shown(cell: &str, what: &str, value: f64) -> Self {
        let (cell, what) = (cell.to_owned(), what.to_owned());
        Verdict { cell, what, value, limit: "–".to_owned(), met: true }
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
    fn below(cell: &str, what: &str, value: f64, limit: f64) -> Self {
        let (cell, what) = (cell.to_owned(), what.to_owned());
        Verdict { cell, what, value, limit: format!("< {limit:.1}"), met: value < limit }
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

/// A figure of an outcome and how large or small it may be.
#[derive(Debug, Clone, Copy)]
enum Limit {
    /// A quantile of capture to complete, ms.
    Complete(f64, f64),
    /// A quantile of capture to decodable, ms from capture.
    Decodable(f64, f64),
    /// Share, %.
    Overhead(f64),
    /// A minute.
    Freezes(f64),
    /// Frames shown per second, at least.
    Shown(f64),
    /// Frames too late for a buffer of 100 ms, %.
    Concealed(f64),
}

impl Limit {
    fn judge(self, cell: &str, outcome: &Outcome) -> Verdict {
        let ms = |delay: Option<Duration>| delay.map_or(f64::INFINITY, |delay| delay.as_secs_f64() * 1e3);
        match self {
            Limit::Complete(q, most) => {
                Verdict::at_most(cell, &format!("p{} ms", percent(q)), ms(outcome.complete.quantile(q)), most)
            }
            Limit::Decodable(q, most) => {
                let shown = outcome.decodable.quantile(q).map(|delay| delay + outcome.one_way);
                Verdict::at_most(cell, &format!("capture to decodable p{} ms", percent(q)), ms(shown), most)
            }
            Limit::Overhead(most) => {
                Verdict::at_most(cell, "overhead %", outcome.overhead_max() * 100.0, most)
            }
            Limit::Freezes(most) => Verdict::at_most(cell, "freezes/min", outcome.freezes_per_minute(), most),
            Limit::Shown(least) => Verdict::at_least(cell, "frames/s", outcome.frames_per_second(), least),
            Limit::Concealed(most) => {
                let late = 1.0 - outcome.complete.share_within(PLAYOUT);
                Verdict::at_most(cell, "concealed %", late * 100.0, most)
            }
        }
    }
}

fn percent(q: f64) -> f64 {
    (q * 1e4).round() / 1e2
}

/// A row of the table: a cell, who carries it, and its limits.
struct Row {
    name: &'static str,
    cell: Cell,
    delivery: Delivery,
    limits: Vec<Limit>,
}

fn rows() -> Vec<Row> {
    use Limit::{Complete, Concealed, Decodable, Freezes, Overhead, Shown};
    let delays = |p95, p99, p999| [Complete(0.95, p95), Complete(0.99, p99), Complete(0.999, p999)];
    let row = |name, cell, limits: &[Limit], more: &[Limit]| Row {
        name,
        cell,
        delivery: Delivery::Adaptive,
        limits: limits.iter().chain(more).copied().collect(),
    };
    let lossy = |loss, rtt| one(both(rtt, Way { loss, ..Way::default() }));
    let bursts = |loss, burst| one(both(50, Way { loss, burst, ..Way::default() }));
    let calm = |most| [Overhead(most), Freezes(0.0)];
    let shown_at = |up, down| Cell {
        shape: Shape { bitrate: 600_000, frames_per_second: 15, ..Shape::default() },
        ..one(Link {
            media: Way { loss: up, rate: Some(5_000_000), ..Way::default() },
            back: Way { loss: down, rate: Some(5_000_000), ..Way::default() },
            ..Link::default()
        })
    };
    let sound = |loss| Cell { shape: Shape::audio(32_000), ..lossy(loss, 50) };
    let low = lossy(0.05, 50);
    let two_hops = Cell { subscriber: lossy(0.05, 50).publisher, ..lossy(0.05, 50) };
    let reordering = one(both(50, Way { reorder: Duration::from_millis(10), ..Way::default() }));
    let half = [Shown(14.9), Decodable(0.95, 200.0), Freezes(0.0)];
    let most = [Shown(14.5), Decodable(0.95, 400.0)];
    vec![
        row("0 %, RTT 50", lossy(0.0, 50), &delays(6.0, 8.0, 21.0), &calm(8.0)),
        row("1 %, RTT 50", lossy(0.01, 50), &delays(10.0, 68.0, 80.0), &calm(13.0)),
        row("5 %, RTT 20", lossy(0.05, 20), &delays(30.0, 42.0, 50.0), &calm(28.0)),
        row("5 %, RTT 50", lossy(0.05, 50), &delays(55.0, 66.0, 80.0), &calm(28.0)),
        Row {
            delivery: Delivery::LowLatency,
            ..row("5 %, RTT 50, low latency", low, &delays(10.0, 42.0, 75.0), &calm(37.0))
        },
        row("10 %, RTT 50", lossy(0.1, 50), &delays(56.0, 72.0, 88.0), &calm(45.0)),
        row("20 %, RTT 50", lossy(0.2, 50), &delays(45.0, 72.0, 90.0), &calm(80.0)),
        row("30 %, RTT 50", lossy(0.3, 50), &delays(45.0, 75.0, 92.0), &calm(125.0)),
        row("5 %, RTT 200", lossy(0.05, 200), &delays(42.0, 110.0, 220.0), &[Overhead(36.0)]),
        row(
            "5 % in runs of 3",
            bursts(0.05, 3.0),
            &delays(62.0, 92.0, 135.0),
            &[Overhead(40.0), Freezes(0.3)],
        ),
        row("10 ms reordering", reordering, &delays(18.0, 20.0, 30.0), &calm(12.0)),
        row("two hops, 5 + 5 %", two_hops, &delays(66.0, 78.0, 112.0), &calm(28.0)),
        row("sound, 10 %", sound(0.1), &[Concealed(0.05), Overhead(165.0)], &[]),
        row("sound, 30 %", sound(0.3), &[Concealed(1.4), Overhead(275.0)], &[]),
        row("50 % lost up", shown_at(0.5, 0.0), &half, &[]),
        row("50 % lost down", shown_at(0.0, 0.5), &half, &[]),
        row("70 % lost up", shown_at(0.7, 0.0), &most, &[]),
        row("70 % lost down", shown_at(0.0, 0.7), &most, &[]),
    ]
}

fn one(link: Link) -> Cell {
    Cell { publisher: Some(link), ..Cell::default() }
}

fn both(rtt: u64, way: Way) -> Link {
    Link { rtt: Duration::from_millis(rtt), media: way.clone(), back: way }
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
    let parlors: Vec<Parlor> = rows.iter().map(|row| Parlor { delivery: row.delivery }).collect();
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

type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);
/// Parlor's p99 and that of the best of the others, ms.
type Beside = (f64, f64);
type Compared = Result<(Vec<Verdict>, Vec<Measured>), String>;

/// In no cell is the default more than 5 % later than the better of the other two modes.
fn modes(effort: Effort, progress: Progress<'_>) -> Compared {
    let all =
        [Delivery::Adaptive, Delivery::Datagram, Delivery::QuicStream].map(|delivery| Parlor { delivery });
    let cells: Vec<Cell> = [0.0, 0.01, 0.05, 0.2].map(|loss| lossy(effort, loss, 1.0, Feed::Fixed)).to_vec();
    let measured = run(&cells, &all.each_ref().map(|parlor| parlor as &dyn Contender), effort, progress)?;
    let verdicts = measured.chunks(3).map(|group| {
        let other = p99(&group[1]).min(p99(&group[2]));
        let cell = format!("{MODES}, {}", crate::report::describe(&group[0].cell));
        Verdict::at_most(&cell, "p99 ms", p99(&group[0]), (other * 1.05 * 10.0).ceil() / 10.0)
    });
    Ok((verdicts.collect(), measured))
}

/// No later than any contender at 1 % loss, earlier than all from 2 % up.
fn ahead(effort: Effort, progress: Progress<'_>) -> Compared {
    let losses = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3];
    let cells: Vec<Cell> = losses.map(|loss| lossy(effort, loss, 1.0, Feed::Fixed)).to_vec();
    let (measured, groups) = against_all(&cells, effort, progress)?;
    let verdicts = groups.iter().zip(losses).map(|(&(ours, best), loss)| {
        let cell = format!("{AHEAD}, {} %", loss * 100.0);
        if loss < 0.015 {
            Verdict::at_most(&cell, "p99 ms beside the best contender", ours, best)
        } else {
            Verdict::below(&cell, "p99 ms beside the best contender", ours, best)
        }
    });
    Ok((verdicts.collect(), measured))
}

/// Long runs of losses: earlier than every contender, at no more bytes than the most expensive of them.
fn bursts(effort: Effort, progress: Progress<'_>) -> Compared {
    let cells = [lossy(effort, 0.1, 8.0, Feed::Fixed)];
    let (measured, groups) = against_all(&cells, effort, progress)?;
    let (ours, best) = groups[0];
    let dearest = measured[1..].iter().map(|row| row.outcome.overhead_max() * 100.0).fold(0.0, f64::max);
    let verdicts = vec![
        Verdict::below(BURSTS, "p99 ms beside the best contender", ours, best),
        Verdict::at_most(
            BURSTS,
            "overhead % beside the dearest contender",
            measured[0].outcome.overhead_max() * 100.0,
            (dearest * 10.0).round() / 10.0,
        ),
    ];
    Ok((verdicts, measured))
}

/// Little room: 1.2, 1.5 and 2 times the media, 5 % loss, and sources that follow.
fn capacity(effort: Effort, progress: Progress<'_>) -> Compared {
    let factors = [1.2, 1.5, 2.0];
    let cells = factors.map(|factor| {
        let way = Way { loss: 0.05, rate: Some((factor * 1e6) as u64), ..Way::default() };
        Cell { length: effort.length, feed: Feed::Follow, ..one(both(50, way)) }
    });
    let (measured, groups) = against_all(&cells, effort, progress)?;
    let mut verdicts = Vec::new();
    for ((rows, factor), (ours, best)) in
        measured.chunks(measured.len() / cells.len()).zip(factors).zip(groups)
    {
        let cell = format!("{CAPACITY} {factor}x");
        let best_of = |figure: fn(&Measured) -> f64, pick: fn(f64, f64) -> f64, start: f64| {
            rows[1..].iter().map(figure).fold(start, pick)
        };
        let freezes = best_of(|row| row.outcome.freezes_per_minute(), f64::min, f64::INFINITY);
        let delivered = best_of(|row| row.outcome.delivered_rate() / 1e3, f64::max, 0.0);
        verdicts.push(Verdict::below(&cell, "p99 ms beside the best contender", ours, best));
        let own = rows[0].outcome.freezes_per_minute();
        verdicts.push(Verdict::at_most(
            &cell,
            "freezes/min beside the best",
            own,
            (freezes * 10.0).round() / 10.0,
        ));
        verdicts.push(Verdict::at_least(
            &cell,
            "delivered kbit/s, of the best less 10 %",
            rows[0].outcome.delivered_rate() / 1e3,
            (delivered * 0.9).round(),
        ));
    }
    Ok((verdicts, measured))
}

fn lossy(effort: Effort, loss: f64, burst: f64, feed: Feed) -> Cell {
    let way = Way { loss, burst, ..Way::default() };
    Cell { length: effort.length, feed, ..one(both(50, way)) }
}

fn p99(row: &Measured) -> f64 {
    row.outcome.complete.quantile(0.99).map_or(f64::INFINITY, |delay| delay.as_secs_f64() * 1e3)
}

/// Every cell with every contender, cell by cell.
fn run(
    cells: &[Cell],
    contenders: &[&dyn Contender],
    effort: Effort,
    progress: Progress<'_>,
) -> Result<Vec<Measured>, String> {
    let tasks: Vec<_> = cells
        .iter()
        .flat_map(|cell| contenders.iter().map(move |contender| (cell.clone(), *contender)))
        .collect();
    measure::run_all(&tasks, effort.seeds, progress)
}

/// Parlor first, then everybody who is not Parlor; and for each cell Parlor's p99 and the best of the others.
fn against_all(
    cells: &[Cell],
    effort: Effort,
    progress: Progress<'_>,
) -> Result<(Vec<Measured>, Vec<Beside>), String> {
    let ours = Parlor { delivery: Delivery::Adaptive };
    let others = contender::strangers();
    let everybody: Vec<&dyn Contender> =
        std::iter::once(&ours as &dyn Contender).chain(others.iter().map(AsRef::as_ref)).collect();
    let measured = run(cells, &everybody, effort, progress)?;
    let groups = measured
        .chunks(everybody.len())
        .map(|rows| (p99(&rows[0]), rows[1..].iter().map(p99).fold(f64::INFINITY, f64::min)))
        .collect();
    Ok((measured, groups))
}
