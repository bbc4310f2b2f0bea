//! `parlor-bench hostile`.

use std::path::PathBuf;
use std::time::Duration;

use parlor_benches::hostile::attack::Kind;
use parlor_benches::hostile::{Hostile, Outcome};
use parlor_benches::quantile::millis;
use parlor_benches::source::Shape;
use parlor_benches::table;

use super::{Failure, latency, progress};

/// A call over loopback, alone and beside clients who mean harm: age of its frames, memory of the relay.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Only these: requests, datagrams, reports, quic-streams, half-frames, slow-readers, handshakes, forged-tokens,
    /// guessed-secrets, garbage, large-frames, joins.
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    only: Vec<Kind>,
    /// How often alone and beside take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each turn is, s.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How many are in the call, all playing all.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=50))]
    people: u8,
    /// Media rate of each of them, kbit/s.
    #[arg(long, default_value_t = 1000)]
    media_rate: u64,
    /// Writes figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn kind(text: &str) -> Result<Kind, String> {
    let names = || Kind::ALL.map(Kind::name).join(", ");
    Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| format!("there are {}", names()))
}

pub(super) fn run(args: &Args, command: &str) -> Result<(), Failure> {
    let kinds = if args.only.is_empty() { Kind::ALL.to_vec() } else { args.only.clone() };
    let hostile = Hostile {
        kinds,
        people: args.people.into(),
        rounds: args.rounds.max(1),
        length: Duration::from_secs(args.seconds.max(1)),
        shape: Shape { bitrate: args.media_rate * 1000, ..Shape::default() },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcomes = runtime.block_on(hostile.run(progress::show))?;
    progress::show("");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "A call of {} beside clients who mean harm, over loopback; {cores} cores carry the call, the relay and \
         the attackers (wall clock: compare within a row)",
        args.people
    );
    println!("$ parlor-bench {command}\n");
    print!("{}", table::render(&rows(&outcomes)));
    if let Some(path) = &args.json {
        latency::write(path, &format!("{:#}\n", json(command, cores, &outcomes)))?;
    }
    Ok(())
}

fn rows(outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let heading = [
        "attack",
        "rate",
        "tried",
        "ended with",
        "p50 ms",
        "alone",
        "p99 ms",
        "alone",
        "rise",
        "goal",
        "met",
        "came %",
        "RSS MB",
        "rise MB",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for outcome in outcomes {
        let rise = outcome.rise();
        let ended: Vec<_> =
            outcome.ended.iter().map(|(code, count)| format!("{} × {count}", code.number())).collect();
        let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        rows.push(vec![
            outcome.kind.name().to_owned(),
            outcome.kind.rate().to_owned(),
            outcome.attempts.to_string(),
            if ended.is_empty() { "–".to_owned() } else { ended.join(", ") },
            millis(outcome.beside.quantile(0.5)),
            millis(outcome.alone.quantile(0.5)),
            millis(outcome.beside.quantile(0.99)),
            millis(outcome.alone.quantile(0.99)),
            millis(rise),
            format!("≤ {}", outcome.kind.rise_max().as_millis()),
            if rise.is_some_and(|rise| rise <= outcome.kind.rise_max()) { "yes" } else { "no" }.to_owned(),
            format!("{:.1}", 100.0 * outcome.delivered as f64 / outcome.due.max(1) as f64),
            outcome.memory.map_or_else(|| "not told".to_owned(), |(_, most)| megabytes(most)),
            outcome.memory.map_or_else(String::new, |(before, most)| megabytes(most.saturating_sub(before))),
        ]);
    }
    rows
}

fn json(command: &str, cores: usize, outcomes: &[Outcome]) -> serde_json::Value {
    let in_ms = |delay: Option<Duration>| delay.map(|delay| delay.as_secs_f64() * 1000.0);
    let rows: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            let ended: serde_json::Map<_, _> = outcome
                .ended
                .iter()
                .map(|(code, count)| (code.number().to_string(), (*count).into()))
                .collect();
            serde_json::json!({
                "attack": outcome.kind.name(), "rate": outcome.kind.rate(), "attempts": outcome.attempts,
                "ended": ended,
                "alone_p50_ms": in_ms(outcome.alone.quantile(0.5)),
                "alone_p99_ms": in_ms(outcome.alone.quantile(0.99)),
                "beside_p50_ms": in_ms(outcome.beside.quantile(0.5)),
                "beside_p99_ms": in_ms(outcome.beside.quantile(0.99)),
                "rise_p99_ms": in_ms(outcome.rise()), "goal_ms": in_ms(Some(outcome.kind.rise_max())),
                "frames_due": outcome.due, "frames_delivered": outcome.delivered,
                "rss_before_bytes": outcome.memory.map(|(before, _)| before),
                "rss_max_bytes": outcome.memory.map(|(_, most)| most),
            })
        })
        .collect();
    serde_json::json!({ "command": format!("parlor-bench {command}"), "cores": cores, "rows": rows })
}
