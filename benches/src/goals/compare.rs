//! Goals beside others: Parlor's modes among themselves, and Parlor beside its contenders.

use std::time::Duration;

use parlor_client::Delivery;

use super::rows::{both, one};
use super::{AHEAD, BURSTS, CAPACITY, Effort, MODES, Verdict};
use crate::cell::{Cell, Feed, Way};
use crate::contender::parlor::Parlor;
use crate::contender::{self, Contender};
use crate::measure::{self, Measured};

/// Hears how many of how many runs are done.
pub(super) type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);
/// Parlor's p99 and that of the best of the others, ms.
type Beside = (f64, f64);
/// The verdicts, and what was run for them.
pub(super) type Compared = Result<(Vec<Verdict>, Vec<Measured>), String>;

/// In no cell is the default more than 5 % later than the better of the other two modes.
pub(super) fn modes(effort: Effort, progress: Progress<'_>) -> Compared {
    let all = [Delivery::Adaptive, Delivery::Datagram, Delivery::QuicStream].map(Parlor::from);
    let mut cells: Vec<Cell> =
        [0.0, 0.01, 0.05, 0.1, 0.2, 0.3].map(|loss| lossy(effort, loss, 1.0, Feed::Fixed)).to_vec();
    cells.extend([3.0, 8.0].map(|burst| lossy(effort, 0.05, burst, Feed::Fixed)));
    let way = Way { loss: 0.05, ..Way::default() };
    cells.extend([20, 200].map(|rtt| Cell { length: effort.length, ..one(both(rtt, way.clone())) }));
    let reordering = Way { reorder: Duration::from_millis(10), ..Way::default() };
    cells.push(Cell { length: effort.length, ..one(both(50, reordering)) });
    let measured = run(&cells, &all.each_ref().map(|parlor| parlor as &dyn Contender), effort, progress)?;
    let verdicts = measured.chunks(3).map(|group| {
        let other = p99(&group[1]).min(p99(&group[2]));
        let cell = format!("{MODES}, {}", crate::report::describe(&group[0].cell));
        Verdict::at_most(&cell, "p99 ms", p99(&group[0]), other * 1.05)
    });
    Ok((verdicts.collect(), measured))
}

/// No later than any contender at 1 % loss, earlier than all from 2 % up; with a source that keeps its rate, and with one
/// that follows what each of them offers.
pub(super) fn ahead(effort: Effort, progress: Progress<'_>) -> Compared {
    let losses = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3];
    let (mut verdicts, mut all) = (Vec::new(), Vec::new());
    for (feed, source) in [(Feed::Fixed, ""), (Feed::Follow, ", follows")] {
        let cells: Vec<Cell> = losses.map(|loss| lossy(effort, loss, 1.0, feed)).to_vec();
        let (measured, groups) = against_all(&cells, effort, progress)?;
        verdicts.extend(groups.iter().zip(losses).map(|(&(ours, best), loss)| {
            let cell = format!("{AHEAD}, {} %{source}", loss * 100.0);
            if loss < 0.015 {
                Verdict::at_most(&cell, "p99 ms beside the best contender", ours, best)
            } else {
                Verdict::below(&cell, "p99 ms beside the best contender", ours, best)
            }
        }));
        all.extend(measured);
    }
    Ok((verdicts, all))
}

/// Long runs of losses: earlier than every contender, at no more bytes than the most expensive of them.
pub(super) fn bursts(effort: Effort, progress: Progress<'_>) -> Compared {
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
            dearest,
        ),
    ];
    Ok((verdicts, measured))
}

/// Little room: 1.2, 1.5 and 2 times the media, 5 % loss, and sources that follow.
pub(super) fn capacity(effort: Effort, progress: Progress<'_>) -> Compared {
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
        verdicts.push(Verdict::at_most(&cell, "freezes/min beside the best", own, freezes));
        verdicts.push(Verdict::at_least(
            &cell,
            "delivered kbit/s, of the best less 10 %",
            rows[0].outcome.delivered_rate() / 1e3,
            delivered * 0.9,
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
    let ours = Parlor::from(Delivery::Adaptive);
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
