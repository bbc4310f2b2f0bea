//! Runs cells with contenders, as many at once as there are cores, and evaluates them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cell::Cell;
use crate::contender::{Contender, Run};
use crate::outcome::Outcome;

/// One row of a report.
pub struct Measured {
    /// What was measured, its first seed named.
    pub cell: Cell,
    /// Who was.
    pub who: String,
    /// The runs, one for each seed.
    pub runs: Vec<Run>,
    /// The figures over all of them.
    pub outcome: Outcome,
}

/// Runs each cell with each of its seeds: `cell.seed` and those after it, `seeds` in all. `progress` hears after
/// every run how many of how many are done.
///
/// # Errors
/// The first contender's that could not run.
pub fn run_all(
    tasks: &[(Cell, &dyn Contender)],
    seeds: u64,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Vec<Measured>, String> {
    run_so_many_at_once(tasks, seeds, cores(), progress)
}

/// The same, one run after the other: for what takes real time and would disturb each other.
///
/// # Errors
/// The first contender's that could not run.
pub fn run_in_turn(tasks: &[(Cell, &dyn Contender)], seeds: u64) -> Result<Vec<Measured>, String> {
    run_so_many_at_once(tasks, seeds, 1, |_, _| {})
}

fn run_so_many_at_once(
    tasks: &[(Cell, &dyn Contender)],
    seeds: u64,
    threads: usize,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Vec<Measured>, String> {
    let single: Vec<(usize, Cell)> = (0..tasks.len())
        .flat_map(|task| (0..seeds).map(move |more| (task, more)))
        .map(|(task, more)| {
            let cell = &tasks[task].0;
            (task, Cell { seed: cell.seed + more, ..cell.clone() })
        })
        .collect();
    let runs = so_many_at_once(&single, threads, |(task, cell)| tasks[*task].1.run(cell), progress);
    let mut by_task: Vec<Vec<Run>> = tasks.iter().map(|_| Vec::new()).collect();
    for ((task, cell), run) in single.iter().zip(runs) {
        let who = tasks[*task].1.name();
        by_task[*task].push(run.map_err(|error| format!("{who}, seed {}: {error}", cell.seed))?);
    }
    Ok(tasks
        .iter()
        .zip(by_task)
        .map(|((cell, contender), runs)| Measured {
            outcome: Outcome::new(cell, &runs),
            cell: cell.clone(),
            who: contender.name(),
            runs,
        })
        .collect())
}

/// Does `work` for all `tasks`, as many at once as there are cores; the results are in the order of the tasks.
pub fn side_by_side<T: Sync, R: Send>(
    tasks: &[T],
    work: impl Fn(&T) -> R + Sync,
    progress: impl Fn(usize, usize) + Sync,
) -> Vec<R> {
    so_many_at_once(tasks, cores(), work, progress)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn so_many_at_once<T: Sync, R: Send>(
    tasks: &[T],
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
    progress: impl Fn(usize, usize) + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new((0, (0..tasks.len()).map(|_| None).collect::<Vec<Option<R>>>()));
    let threads = threads.min(tasks.len());
    progress(0, tasks.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(at) else { break };
                    let result = work(task);
                    let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    done.0 += 1;
                    done.1[at] = Some(result);
                    progress(done.0, tasks.len());
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).1.into_iter().flatten().collect()
}
