//! `parlor-bench room`.

use std::path::PathBuf;
use std::time::Duration;

use parlor_benches::quantile::millis;
use parlor_benches::relay_process::Which;
use parlor_benches::report::chart::Lines;
use parlor_benches::report::page;
use parlor_benches::room::{Crowd, Outcome, Part};
use parlor_benches::table;
use serde_json::{Value, json};

use super::{Failure, latency, progress};

pub(super) const EXAMPLES: &str = "Examples:
  parlor-bench room --users 2000 --joins-per-second 500 --streams 20 --churn 100 --seconds 60
      a room that fills, then a minute in which a hundred leave and a hundred come each second
  parlor-bench room --users 10000 --joins-per-second 100 --churn 0 --seconds 0
      who is there, for ten thousand
  parlor-bench room --virtual --users 10000 --joins-per-second 500 --churn 100 --seconds 20
      the same in virtual time: no CPU is measured, and no machine is too slow
  parlor-bench room --relay 'parlor://127.0.0.1:4433/r#sha256=…' --relay-pid 1234 --users 500
      a relay that runs already (parlor-relay --dev prints its address)

All users live in this process, on the same machine as the relay, to which they yield (nice 10 on Unix): where they are
the limit, joins fall short of the rate that was asked for and delays are longer, and the relay's CPU is that of what was
carried out.";

/// What the measurement is to show, for the two rooms that Parlor has goals for.
const GOALS: [Goal; 2] =
    [Goal { users: 2000, p50: Some(150), p99: 500 }, Goal { users: 10_000, p50: None, p99: 2000 }];
/// Delay in virtual time, ms.
const VIRTUAL_P99: u64 = 500;
/// Memory for an idle user, bytes.
const MEMORY_GOAL: u64 = 45_000;

struct Goal {
    users: usize,
    p50: Option<u64>,
    p99: u64,
}

#[derive(clap::Args)]
pub(super) struct Args {
    /// How many join.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(2..=20_000))]
    users: u16,
    /// How many of them a second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5000))]
    joins_per_second: u32,
    /// How many of them publish a stream.
    #[arg(long, default_value_t = 20)]
    streams: u16,
    /// So often a second somebody leaves and somebody else joins, once all are there.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=2000))]
    churn: u32,
    /// For how long, s.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=600))]
    seconds: u64,
    /// How many keep a full mirror, to be compared entry by entry.
    #[arg(long, default_value_t = 50)]
    mirrors: u16,
    /// What users are told of.
    #[arg(long, value_enum, default_value = "everyone")]
    interest: Interest,
    /// In virtual time.
    #[arg(long = "virtual", conflicts_with = "relay")]
    is_virtual: bool,
    /// What is random in virtual time follows from this.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A relay that runs already, instead of one of its own.
    #[arg(long, value_name = "ADDRESS")]
    relay: Option<String>,
    /// Its process, to be watched.
    #[arg(long, requires = "relay")]
    relay_pid: Option<u32>,
    /// The relay may be on another machine: one that is yours to load.
    #[arg(long)]
    allow_any_address: bool,
    /// Writes figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a page with figures and charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Interest {
    Everyone,
    Publishers,
}

pub(super) fn run(args: &Args, command: &str) -> Result<(), Failure> {
    let crowd = Crowd {
        users: args.users.into(),
        joins_per_second: args.joins_per_second,
        streams: args.streams.into(),
        churn_per_second: args.churn,
        length: Duration::from_secs(args.seconds),
        mirrors: args.mirrors.into(),
        publishers_only: args.interest == Interest::Publishers,
    };
    let outcome = if args.is_virtual {
        crowd.run_virtual(args.seed, progress::show)?
    } else {
        let relay = match &args.relay {
            Some(address) => Which::running(address, args.relay_pid, args.allow_any_address)?,
            None => Which::New,
        };
        parlor_benches::load::runtime()?.block_on(crowd.run(&relay, progress::show))?
    };
    progress::show("");
    let lines = [parts(&outcome), facts(args, &outcome)].map(|rows| table::render(&rows)).join("\n");
    let place =
        if args.is_virtual { "in virtual time" } else { "over loopback, relay and users on one machine" };
    println!("A room of {} users, {place}", args.users);
    println!("$ parlor-bench {command}\n\n{lines}");
    if let Some((code, why)) = outcome.failed.1.as_ref().map(|why| (outcome.failed.0, why)) {
        println!("{code} stays failed; the first: {why}");
    }
    if crowd.joins_per_second as f64 * 0.95 > outcome.join.joins_per_second() {
        println!("Joins fell short of what was asked for: this machine is the limit.");
    }
    let figures = figures(command, &outcome);
    if let Some(path) = &args.json {
        latency::write(path, &format!("{figures:#}\n"))?;
    }
    if let Some(path) = &args.html {
        latency::write(path, &html(args, command, &lines, &outcome, &figures))?;
    }
    match outcome.converged() {
        true => Ok(()),
        false => Err("not everybody knows who is in the room".into()),
    }
}

fn parts(outcome: &Outcome) -> Vec<Vec<String>> {
    let heading = ["", "s", "joins/s", "events heard", "p50 ms", "p99 ms", "max ms", "relay CPU s", "cores"];
    let row = |name: &str, part: &Part| {
        vec![
            name.to_owned(),
            format!("{:.1}", part.length.as_secs_f64()),
            format!("{:.1}", part.joins_per_second()),
            part.delays.len().to_string(),
            delay(part, 0.5),
            delay(part, 0.99),
            delay(part, 1.0),
            part.usage.map_or("–".to_owned(), |usage| format!("{:.2}", usage.cpu.as_secs_f64())),
            part.cores().map_or("–".to_owned(), |cores| format!("{cores:.2}")),
        ]
    };
    vec![
        heading.map(str::to_owned).to_vec(),
        row("joining", &outcome.join),
        row("idle", &outcome.idle),
        row("coming and going", &outcome.churn),
    ]
}

fn delay(part: &Part, q: f64) -> String {
    if part.delays.is_empty() { "–".to_owned() } else { millis(part.delays.quantile(q)) }
}

fn facts(args: &Args, outcome: &Outcome) -> Vec<Vec<String>> {
    let yes = |met: bool| if met { "met" } else { "not met" }.to_owned();
    let mut rows = vec![["", "value", "goal", ""].map(str::to_owned).to_vec()];
    let mut add = |name: &str, value: String, goal: &str, met: Option<bool>| {
        rows.push(vec![name.to_owned(), value, goal.to_owned(), met.map_or(String::new(), yes)]);
    };
    let all = format!("{} of {}", outcome.equal, outcome.users);
    add("users who know exactly who is there", all, "all", Some(outcome.equal == outcome.users));
    let (mirrors, equal) = outcome.mirrors;
    add("full mirrors equal", format!("{equal} of {mirrors}"), "all", Some(mirrors == equal));
    if let Some(agrees) = outcome.relay_agrees {
        add("the relay's own room is the same", agrees.to_string(), "true", Some(agrees));
    }
    add("events that did not follow", outcome.faults.to_string(), "0", Some(outcome.faults == 0));
    let settled = outcome.settled.map_or("never".to_owned(), |time| format!("{:.1}", time.as_secs_f64()));
    add("settled after the last change, s", settled, "", None);
    let worst =
        |q| [&outcome.join, &outcome.churn].map(|part| part.delays.quantile(q)).into_iter().max().flatten();
    let within = |q, ms| worst(q).is_none_or(|delay: Duration| delay <= Duration::from_millis(ms));
    let goal = GOALS.iter().find(|goal| goal.users == usize::from(args.users));
    let (p50, p99) = match (args.is_virtual, goal) {
        (true, _) => (None, Some(VIRTUAL_P99)),
        (false, Some(goal)) => (goal.p50, Some(goal.p99)),
        (false, None) => (None, None),
    };
    for (name, q, goal) in [("event delay p50, ms", 0.5, p50), ("event delay p99, ms", 0.99, p99)] {
        if let Some(ms) = goal {
            add(name, millis(worst(q)), &format!("≤ {ms}"), Some(within(q, ms)));
        }
    }
    add("from connecting to joined p50, ms", millis(outcome.joining.quantile(0.5)), "", None);
    add("from connecting to joined p99, ms", millis(outcome.joining.quantile(0.99)), "", None);
    if let Some(memory) = outcome.memory_per_user {
        let met = memory <= MEMORY_GOAL;
        add("relay memory per idle user, kB", format!("{:.1}", memory as f64 / 1e3), "≤ 45", Some(met));
    }
    add("kB sent to a user", format!("{:.1}", outcome.bytes_per_user as f64 / 1e3), "", None);
    add("fresh snapshots for who fell behind", outcome.fresh_snapshots.to_string(), "", None);
    add("stays that failed", outcome.failed.0.to_string(), "0", Some(outcome.failed.0 == 0));
    rows
}

fn figures(command: &str, outcome: &Outcome) -> Value {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let part = |part: &Part| {
        json!({
            "length_s": part.length.as_secs_f64(),
            "joins": part.joins,
            "joins_per_s": part.joins_per_second(),
            "events_heard": part.delays.len(),
            "delay_p50_s": seconds(part.delays.quantile(0.5)),
            "delay_p99_s": seconds(part.delays.quantile(0.99)),
            "delay_max_s": seconds(part.delays.quantile(1.0)),
            "relay_cpu_s": part.usage.map(|usage| usage.cpu.as_secs_f64()),
            "relay_switches": part.usage.map(|usage| usage.switches),
            "relay_resident_bytes": part.usage.map(|usage| usage.memory),
        })
    };
    json!({
        "command": format!("parlor-bench {command}"),
        "join": part(&outcome.join), "idle": part(&outcome.idle), "churn": part(&outcome.churn),
        "joining_p50_s": seconds(outcome.joining.quantile(0.5)),
        "joining_p99_s": seconds(outcome.joining.quantile(0.99)),
        "users": outcome.users, "equal": outcome.equal,
        "mirrors": outcome.mirrors.0, "mirrors_equal": outcome.mirrors.1,
        "relay_agrees": outcome.relay_agrees, "faults": outcome.faults,
        "settled_s": seconds(outcome.settled),
        "memory_bytes_per_user": outcome.memory_per_user,
        "bytes_per_user": outcome.bytes_per_user,
        "fresh_snapshots": outcome.fresh_snapshots,
        "failed": outcome.failed.0, "failed_first": outcome.failed.1,
    })
}

fn html(args: &Args, command: &str, table: &str, outcome: &Outcome, figures: &Value) -> String {
    let chart = Lines {
        title: "Share of events heard later than …".to_owned(),
        x: "ms from the join or leave",
        y: "share of events, of all who hear of them",
        log: true,
        series: vec![
            ("joining".to_owned(), outcome.join.delays.later()),
            ("coming and going".to_owned(), outcome.churn.delays.later()),
        ],
    };
    let note = match args.is_virtual {
        true => "In virtual time: the same command gives the same page on every machine.",
        false => "Measured on one machine, relay and users together.",
    };
    let title = format!("A room of {} users", args.users);
    page::assemble(&title, &format!("parlor-bench {command}"), note, table, &[chart.svg()], figures)
}
