//! The cases and their goals.

use std::time::Duration;

use super::{Case, Record};
use crate::cell::{Link, Way};
use crate::goals::Verdict;
use crate::measure;

const MBIT: u64 = 1_000_000;

/// The names of all cases.
pub fn names() -> Vec<&'static str> {
    cases().into_iter().map(|(case, _)| case.name).collect()
}

/// What is said of the cases, and each with its record.
type Run = (Vec<Verdict>, Vec<(Case, Record)>);
/// A case and what is said of its record.
type Judged = (Case, fn(&Case, &Record) -> Vec<Verdict>);

/// Runs the cases whose names contain `only`, each with `seeds` seeds, of which the worst counts; the first
/// seed's records come along.
///
/// # Errors
/// When somebody could not run.
pub fn run_cases(only: &str, seeds: u64, progress: impl Fn(usize, usize) + Sync) -> Result<Run, String> {
    let chosen: Vec<Judged> = cases().into_iter().filter(|(case, _)| case.name.contains(only)).collect();
    let tasks: Vec<(usize, u64)> =
        (0..chosen.len()).flat_map(|case| (1..=seeds).map(move |seed| (case, seed))).collect();
    let records = measure::side_by_side(&tasks, |&(case, seed)| chosen[case].0.run(seed), progress);
    let mut verdicts: Vec<Verdict> = Vec::new();
    let mut kept = Vec::new();
    for (&(case, seed), record) in tasks.iter().zip(records) {
        let (case, judge) = &chosen[case];
        let record = record.map_err(|error| format!("{}, seed {seed}: {error}", case.name))?;
        for verdict in judge(case, &record) {
            let same = |other: &&mut Verdict| {
                (&other.cell, &other.what, &other.limit) == (&verdict.cell, &verdict.what, &verdict.limit)
            };
            match verdicts.iter_mut().find(same) {
                Some(known) if known.is_better_than(&verdict) => *known = verdict,
                Some(_) => {}
                None => verdicts.push(verdict),
            }
        }
        if seed == 1 {
            kept.push((case.clone(), record));
        }
    }
    Ok((verdicts, kept))
}

fn cases() -> Vec<Judged> {
    let steady = |name, rate, media: Way, back: Way| Case {
        name,
        link: Link { media, back, ..Link::default() },
        rates: vec![(s(0), rate)],
        flows: vec![s(0)],
        cross: None,
        length: s(60),
    };
    let lossy = |loss| Way { loss, ..Way::default() };
    let jitter = Way { jitter: ms(15), ..Way::default() };
    let changing = |name, rtt, rates: &[(u64, f64)], flows: &[u64], length| Case {
        name,
        link: Link { rtt: ms(rtt), ..Link::default() },
        rates: rates.iter().map(|&(at, rate)| (s(at), (rate * 1e6) as u64)).collect(),
        flows: flows.iter().map(|&at| s(at)).collect(),
        cross: None,
        length: s(length),
    };
    let steps = changing("3 → 1 → 3 Mbit/s", 50, &[(0, 3.0), (30, 1.0), (50, 3.0)], &[0], 80);
    let beside_cubic =
        Case { cross: Some(s(5)), ..changing("beside one Cubic flow, 2 Mbit/s", 50, &[(0, 2.0)], &[0], 120) };
    let variable = [(0, 1.0), (40, 2.5), (60, 0.6), (80, 1.0)];
    let two = [(0, 4.0), (25, 2.0), (50, 3.5), (75, 1.0), (100, 2.0)];
    vec![
        (steady("3 Mbit/s", 3 * MBIT, Way::default(), Way::default()), short_queue),
        (steady("1.5 Mbit/s", 3 * MBIT / 2, Way::default(), Way::default()), short_queue),
        (steps, stepping),
        (steady("3 Mbit/s, 5 % lost", 3 * MBIT, lossy(0.05), lossy(0.05)), |case, record| {
            vec![used(case, record, 90.0)]
        }),
        (steady("3 Mbit/s, 20 % lost", 3 * MBIT, lossy(0.2), lossy(0.2)), |case, record| {
            vec![used(case, record, 80.0)]
        }),
        (steady("3 Mbit/s, 15 ms jitter back", 3 * MBIT, Way::default(), jitter), |case, record| {
            vec![used(case, record, 95.0)]
        }),
        (beside_cubic, shared),
        (changing("RFC 8867 5.1, variable capacity", 100, &variable, &[0], 100), phases),
        (changing("RFC 8867 5.2, two flows", 100, &two, &[0, 0], 125), phases),
        (changing("RFC 8867 5.4, three flows", 100, &[(0, 3.5)], &[0, 20, 40], 120), fair),
    ]
}

/// Before figures of a steady state count.
const SETTLED: Duration = Duration::from_secs(10);

fn short_queue(case: &Case, record: &Record) -> Vec<Verdict> {
    let queue = record.queue(SETTLED, case.length);
    let reached = record.reaches(0.9 * case.rates[0].1 as f64, s(0));
    vec![
        Verdict::at_most(case.name, "queue p95 ms", as_ms(queue.quantile(0.95)), 45.0),
        Verdict::at_most(case.name, "queue median ms", as_ms(queue.quantile(0.5)), 15.0),
        used(case, record, 90.0),
        Verdict::at_most(case.name, "90 % reached after s", as_ms(reached) / 1e3, 3.0),
    ]
}

fn stepping(case: &Case, record: &Record) -> Vec<Verdict> {
    let (down, up) = (case.rates[1].0, case.rates[2].0);
    let falls = record.queue_falls_below(ms(60), down, up);
    let (oldest, never) = record.frame_ages(down - s(1), up);
    let back = record.reaches(0.85 * case.rates[2].1 as f64, up);
    vec![
        Verdict::at_most(case.name, "queue below 60 ms after s", falls.as_secs_f64(), 1.0),
        Verdict::at_most(case.name, "oldest frame ms", as_ms(Some(oldest)), 600.0),
        Verdict::shown(case.name, "frames dropped", never as f64),
        Verdict::at_most(case.name, "back at 85 % after s", as_ms(back) / 1e3, 6.0),
    ]
}

/// Beside a flow that fills the queue. RFC 8867 5.6 has the same link.
fn shared(case: &Case, record: &Record) -> Vec<Verdict> {
    let (from, until) = (s(30), case.length);
    let share = 100.0 * record.rate(from, until) / record.all_rate(from, until).max(1.0);
    vec![
        Verdict::at_least(case.name, "share %", share, 35.0),
        Verdict::at_most(case.name, "share %", share, 65.0),
    ]
}

fn fair(case: &Case, record: &Record) -> Vec<Verdict> {
    let rates: Vec<f64> = (0..3).map(|flow| record.flow_rate(flow, s(60), case.length)).collect();
    let sum: f64 = rates.iter().sum();
    let jain = sum * sum / (3.0 * rates.iter().map(|rate| rate * rate).sum::<f64>()).max(1.0);
    vec![
        Verdict::at_least(case.name, "Jain's index", jain, 0.9),
        Verdict::shown(case.name, "used %", use_of(case, record, s(60), case.length)),
    ]
}

fn used(case: &Case, record: &Record, least: f64) -> Verdict {
    Verdict::at_least(case.name, "used %", use_of(case, record, SETTLED, case.length), least)
}

/// Use of the link in percent.
fn use_of(case: &Case, record: &Record, from: Duration, until: Duration) -> f64 {
    let rate = case.rates.iter().rev().find(|(at, _)| *at <= from).map_or(1, |(_, rate)| *rate);
    100.0 * record.rate(from, until) / rate as f64
}

/// Use and queue of each phase; no goals.
fn phases(case: &Case, record: &Record) -> Vec<Verdict> {
    let ends = case.rates.iter().skip(1).map(|(at, _)| *at).chain([case.length]);
    case.rates
        .iter()
        .zip(ends)
        .flat_map(|(&(from, rate), until)| {
            let phase = format!("at {} Mbit/s from {} s", rate as f64 / 1e6, from.as_secs());
            let queue = record.queue(from + s(3), until);
            [
                Verdict::shown(case.name, &format!("used % {phase}"), use_of(case, record, from, until)),
                Verdict::shown(case.name, &format!("queue p95 ms {phase}"), as_ms(queue.quantile(0.95))),
            ]
        })
        .collect()
}

fn as_ms(delay: Option<Duration>) -> f64 {
    delay.map_or(f64::INFINITY, |delay| delay.as_secs_f64() * 1e3)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_link_is_used_and_the_run_repeats() {
        let run = || run_cases("1.5 Mbit/s", 1, |_, _| {}).unwrap();
        let (verdicts, records) = run();
        assert_eq!((verdicts.len(), records.len()), (4, 1));
        let used = verdicts.iter().find(|verdict| verdict.what == "used %").unwrap();
        assert!(used.met, "{used:?}");
        assert_eq!(run().0, verdicts);
    }
}
