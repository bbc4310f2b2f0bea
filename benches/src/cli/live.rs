//! `parlor-bench live`: what `latency` measures, over real UDP.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use parlor_benches::cell::Cell;
use parlor_benches::contender::Contender;
use parlor_benches::contender::parlor::{DELIVERIES, Parlor};
use parlor_benches::live::{self, Live};
use parlor_benches::{beside, measure, report};
use parlor_transport::address::RelayAddress;

use super::{Failure, Measurement, latency, progress, scenario};

pub(super) const EXAMPLES: &str = "Examples:
  parlor-bench live --seconds 10
      a relay, a publisher and a player on loopback, nothing between them
  parlor-bench live --loss 5 --seconds 60 --beside-virtual
      5 % lost both ways, RTT 50 ms; then the same call in virtual time, and how far apart the two are
  parlor-bench live --relay 'parlor://127.0.0.1:4433/r#sha256=…' --loss 1 --rtt 80 --hop subscriber --html out.html
      with a relay that runs already (parlor-relay --dev prints its address)

Without any option of the link (--rtt to --hop) nothing stands between the two and the relay. With one, those not given
have the values above.";

/// Options that take several values, with commas between, are combined with each other; the runs follow one another.
#[derive(clap::Args, Debug, Clone)]
#[group(id = "live")]
pub(super) struct Args {
    /// A relay that runs already, as it prints its address; without it, each run has its own in this process.
    #[arg(long, value_name = "parlor://…")]
    relay: Option<RelayAddress>,
    /// A relay of its own for each run, on loopback; so it is without --relay, too.
    #[arg(long, conflicts_with = "relay")]
    spawn_relay: bool,
    /// Allows a relay that is not on this machine's loopback.
    #[arg(long)]
    allow_any_address: bool,
    /// Runs the same cells in virtual time too, and says how far apart p50, p95 and p99 are.
    #[arg(long)]
    beside_virtual: bool,
    #[command(flatten)]
    latency: latency::Args,
}

/// All runs together, real time; who wants more starts it twice.
const LENGTH_MAX: Duration = Duration::from_secs(2 * 3600);
/// The options that make a link.
const LINK_OPTIONS: [&str; 13] = [
    "--rtt",
    "--loss",
    "--loss-up",
    "--loss-down",
    "--burst",
    "--jitter",
    "--jitter-up",
    "--jitter-down",
    "--reorder",
    "--link-rate",
    "--trace",
    "--queue",
    "--hop",
];

/// Runs it. `arguments` are the program's, for reading them again with a scenario's in front.
pub(super) fn run(args: &Args, arguments: &[String]) -> Result<(), Failure> {
    let command = format!("parlor-bench {}", arguments.get(1..).unwrap_or_default().join(" "));
    let (args, arguments) = match &args.latency.scenario {
        Some(path) => match scenario::apply(path, arguments)? {
            (Measurement::Live(args), all) => (*args, all),
            _ => return Err("this scenario is not for live".into()),
        },
        None => (args.clone(), arguments.to_vec()),
    };
    if let Some(relay) = &args.relay {
        live::permit(live::resolve(&relay.host, relay.port)?, args.allow_any_address)?;
    }
    let seeds = args.latency.seeds.max(1);
    let modes = args.modes()?;
    let mut cells = args.latency.cells()?;
    if !has_link(&arguments) {
        cells.iter_mut().for_each(|cell| (cell.publisher, cell.subscriber) = (None, None));
    }
    let runs = (modes.len() as u64).saturating_mul(seeds);
    let length = length_of(&cells, runs).filter(|length| *length <= LENGTH_MAX).ok_or_else(|| {
        format!("all runs together would take more than {} s; ask for fewer", LENGTH_MAX.as_secs())
    })?;
    let real: Vec<Live> = modes
        .iter()
        .map(|mode| Live {
            delivery: mode.delivery,
            relay: args.relay.clone(),
            any_address: args.allow_any_address,
        })
        .collect();
    let tasks = grid(&cells, &real);
    let mut rows = counting_down(length, || measure::run_in_turn(&tasks, seeds))?;
    let mut text = String::new();
    if args.beside_virtual {
        let count = progress::Count::default();
        let in_virtual = measure::run_all(&grid(&cells, &modes), seeds, |done, of| count.show(done, of))?;
        text = beside::table(&in_virtual, &rows);
        rows.extend(in_virtual);
    }
    let table = report::table(&rows);
    println!(
        "Frame delay from capture to complete, ms beyond one-way delay, real UDP and this machine's clock"
    );
    println!("$ {command}\n\n{table}");
    if !text.is_empty() {
        println!("Virtual time beside real UDP, ms beyond one-way delay\n\n{text}");
    }
    let table = format!("{table}\n{text}");
    args.latency.finish(&command, "Frame delay over real UDP", &table, &rows)
}

impl Args {
    fn modes(&self) -> Result<Vec<Parlor>, Failure> {
        let all = DELIVERIES.map(Parlor::from);
        let named = |name: &String| {
            let found = all.iter().find(|parlor| parlor.name() == *name).copied();
            found.ok_or_else(|| {
                let names = all.iter().map(Parlor::name).collect::<Vec<_>>().join(", ");
                format!("--mode {name}: a live call is one of {names}").into()
            })
        };
        match self.latency.mode.as_slice() {
            [] => Ok(all[..1].to_vec()),
            modes => modes.iter().map(named).collect(),
        }
    }
}

fn has_link(arguments: &[String]) -> bool {
    let name = |argument: &String| argument.split('=').next().unwrap_or_default().to_owned();
    arguments.iter().map(name).any(|name| LINK_OPTIONS.contains(&name.as_str()))
}

/// What all runs take at most; none if that is beyond counting.
fn length_of(cells: &[Cell], runs: u64) -> Option<Duration> {
    let runs = u32::try_from(runs).ok()?;
    let mut each = cells.iter().map(|cell| cell.length.checked_add(Live::OVERHEAD));
    each.try_fold(Duration::ZERO, |sum, each| sum.checked_add(each?.checked_mul(runs)?))
}

fn grid<'a, C: Contender>(cells: &[Cell], contenders: &'a [C]) -> Vec<(Cell, &'a dyn Contender)> {
    let with_all = |cell: &Cell| {
        let cell = cell.clone();
        contenders.iter().map(move |contender| (cell.clone(), contender as &dyn Contender))
    };
    cells.iter().flat_map(with_all).collect()
}

/// Does `work`, which takes about `length`, and shows how much of that is left.
fn counting_down<T>(length: Duration, work: impl FnOnce() -> T) -> T {
    let (done, waiting) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for passed in 0.. {
                progress::show(&format!("about {} s left", length.as_secs().saturating_sub(passed)));
                match waiting.recv_timeout(Duration::from_secs(1)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            progress::show("");
        });
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Program;
    use super::*;

    fn parse(line: &str) -> Result<(Args, Vec<String>), String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match Program::try_parse_from(&words).map_err(|error| error.to_string())?.command {
            Measurement::Live(args) => Ok((*args, words)),
            _ => Err("another command".to_owned()),
        }
    }

    #[test]
    fn a_link_is_there_only_if_it_was_asked_for() {
        for (line, wanted) in [
            ("parlor-bench live --seconds 5", false),
            ("parlor-bench live --seconds 5 --loss 5", true),
            ("parlor-bench live --rtt=20", true),
            ("parlor-bench live --media-rate 1m --fps 30", false),
        ] {
            let (args, words) = parse(line).unwrap();
            assert_eq!(has_link(&words), wanted, "{line}");
            assert_eq!(args.modes().unwrap().len(), 1, "adaptive unless said");
        }
    }

    #[test]
    fn what_cannot_be_run_is_told_before_it_begins() {
        let refusal = |line: &str| {
            let (args, words) = parse(line).unwrap();
            run(&args, &words).unwrap_err().to_string()
        };
        assert!(refusal("parlor-bench live --mode quinn-bbr").contains("low-latency"));
        assert!(refusal("parlor-bench live --seconds 100000").contains("fewer"));
        assert!(refusal("parlor-bench live --seconds 18446744073709551615 --seeds 9").contains("fewer"));
        assert!(refusal("parlor-bench live --relay parlor://192.0.2.1/r").contains("--allow-any-address"));
        assert!(parse("parlor-bench live --relay 127.0.0.1:1").unwrap_err().contains("parlor://"));
        assert!(parse("parlor-bench live --spawn-relay --relay parlor://127.0.0.1/r").is_err());
    }
}
