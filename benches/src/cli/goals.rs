//! `parlor-bench goals`.

use std::path::PathBuf;
use std::time::Duration;

use parlor_benches::goals::{self, Effort, Verdict};
use parlor_benches::{report, table};

use super::{Failure, latency, progress};

/// Everything that Parlor means to reach, measured. Ends with 1 if a goal is not met.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Length of each run in virtual time, s.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Runs of each cell.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Only the cells whose names contain this.
    #[arg(long, default_value = "", hide_default_value = true)]
    only: String,
    /// Writes verdicts and the figures of all runs as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a page with charts of all runs.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) fn run(args: &Args, command: &str) -> Result<(), Failure> {
    let effort = Effort { length: Duration::from_secs(args.seconds), seeds: args.seeds };
    let count = progress::Count::default();
    let (verdicts, measured) = goals::judge(effort, &args.only, |done, of| count.show(done, of))?;
    if verdicts.is_empty() {
        let names = goals::names().join("\n  ");
        return Err(format!("--only {:?}: no goal is called so; there are\n  {names}", args.only).into());
    }
    let figures = render(&verdicts);
    println!(
        "Goals, {} s and {} seeds a cell, virtual time\n$ parlor-bench {command}\n\n{figures}",
        args.seconds, args.seeds
    );
    let command = format!("parlor-bench {command}");
    if let Some(path) = &args.json {
        let all = serde_json::json!({
            "verdicts": json(&command, &verdicts)["verdicts"],
            "measured": report::json(&command, &measured),
        });
        latency::write(path, &format!("{all:#}\n"))?;
    }
    if let Some(path) = &args.html {
        latency::write(path, &report::page::page("Parlor's goals", &command, &figures, &measured))?;
    }
    if !cfg!(feature = "peers") {
        println!("Beside quinn only: MoQ and WebRTC take part in builds with --features peers.");
    }
    let (told, result) = conclude(&verdicts);
    println!("{told}");
    result
}

/// How many goals are met; a failure if one is not.
fn conclude(verdicts: &[Verdict]) -> (String, Result<(), Failure>) {
    let goals = || verdicts.iter().filter(|verdict| verdict.has_limit());
    let missed = goals().filter(|verdict| !verdict.met).count();
    let told = format!("{} of {} goals met", goals().count() - missed, goals().count());
    (told, if missed == 0 { Ok(()) } else { Err(format!("{missed} goals are not met").into()) })
}

pub(super) fn render(verdicts: &[Verdict]) -> String {
    let mut rows = vec![["cell", "figure", "value", "goal", ""].map(str::to_owned).to_vec()];
    for Verdict { cell, what, value, limit, met } in verdicts {
        let value = if value.is_finite() { format!("{value:.2}") } else { "never".to_owned() };
        let met = match (limit.as_str(), met) {
            (Verdict::NO_LIMIT, _) => "",
            (_, true) => "met",
            (_, false) => "NOT MET",
        };
        rows.push(vec![cell.clone(), what.clone(), value, limit.clone(), met.to_owned()]);
    }
    table::render(&rows)
}

/// The verdicts, with the command that gave them.
pub(super) fn json(command: &str, verdicts: &[Verdict]) -> serde_json::Value {
    let rows: Vec<_> = verdicts
        .iter()
        .map(|Verdict { cell, what, value, limit, met }| {
            let value = value.is_finite().then_some(value);
            serde_json::json!({ "cell": cell, "figure": what, "value": value, "goal": limit, "met": met })
        })
        .collect();
    serde_json::json!({ "command": command, "verdicts": rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_goal_that_is_not_met_is_a_failure_and_a_figure_without_a_goal_is_none() {
        let met = Verdict::at_most("a cell", "p99 ms", 1.0, 2.0);
        let missed = Verdict::at_most("a cell", "p99 ms", f64::INFINITY, 2.0);
        let shown = Verdict::shown("a cell", "frames dropped", 3.0);
        let (told, result) = conclude(&[met.clone(), shown.clone()]);
        assert!(told == "1 of 1 goals met" && result.is_ok(), "{told}");
        let (told, result) = conclude(&[met.clone(), missed.clone(), shown.clone()]);
        assert!(told == "1 of 2 goals met" && result.is_err(), "{told}");
        let figures = render(&[met, missed, shown]);
        let lines: Vec<Vec<&str>> = figures
            .lines()
            .skip(2)
            .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
            .collect();
        assert_eq!(lines[0][2..], ["1.00", "≤ 2", "met"]);
        assert_eq!(lines[1][2..], ["never", "≤ 2", "NOT MET"]);
        assert_eq!(lines[2][2..], ["3.00", Verdict::NO_LIMIT]);
    }
}
