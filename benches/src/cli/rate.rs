//! `parlor-bench rate`.

use std::path::PathBuf;
use std::time::Duration;

use parlor_benches::rate::{self, Case, Record, STEP};

use super::{Failure, goals, latency, progress};

/// How well rate control finds what a link carries: RFC 8867 5.1, 5.2, 5.4 and 5.6, steps, loss, jitter on the way
/// back, and a Cubic flow through the same bottleneck. In virtual time.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Only the cases whose names contain this.
    #[arg(long, default_value = "", hide_default_value = true)]
    only: String,
    /// Runs of each case, of which the worst counts.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Writes rates, offers and queue of the first seed, one line for each tenth of a second.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Writes figures and goals as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &Args, command: &str) -> Result<(), Failure> {
    let count = progress::Count::default();
    let (verdicts, records) =
        rate::run_cases(&args.only, args.seeds.max(1), |done, of| count.show(done, of))?;
    if verdicts.is_empty() {
        let names = rate::names().join("\n  ");
        return Err(format!("--only {:?}: no case is called so; there are\n  {names}", args.only).into());
    }
    println!(
        "Rate control, virtual time; use is source and parity with all headers, over what the link carries"
    );
    println!("$ parlor-bench {command}\n\n{}", goals::render(&verdicts));
    if let Some(path) = &args.csv {
        latency::write(path, &csv(&records))?;
    }
    if let Some(path) = &args.json {
        let command = format!("parlor-bench {command}");
        latency::write(path, &format!("{:#}\n", goals::json(&command, &verdicts)))?;
    }
    Ok(())
}

fn csv(records: &[(Case, Record)]) -> String {
    let mut out = String::from("case,s,through_bps,flow,sent_bps,target_bps,queue_max_ms\n");
    for (case, record) in records {
        let name = case.name.replace(',', ";");
        for (step, through) in record.through.iter().enumerate() {
            let from = STEP * step as u32;
            let queue = record.queue(from, from + STEP).quantile(1.0).unwrap_or(Duration::ZERO);
            for (flow, sent) in record.flows.iter().enumerate() {
                let per_second = |bytes: f64| bytes * 8.0 / STEP.as_secs_f64();
                out += &format!(
                    "{name},{:.1},{:.0},{flow},{:.0},{},{:.1}\n",
                    from.as_secs_f64(),
                    per_second(*through as f64),
                    per_second(sent[step]),
                    record.targets[flow][step],
                    queue.as_secs_f64() * 1e3,
                );
            }
        }
    }
    out
}
