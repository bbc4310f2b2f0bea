//! `parlor-bench fanout`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use parlor_benches::fanout::{Fanout, Outcome};
use parlor_benches::floor::Floor;
use parlor_benches::quantile::millis;
use parlor_benches::relay_process::Which;
use parlor_benches::source::Shape;
use parlor_benches::table;
use parlor_client::{AppId, RoomId};
use parlor_relay::server::process;
use parlor_relay::{App, Config, Relay};
use parlor_transport::sim::Profile;
use parlor_transport::token::keys::VerifyingKey;
use serde_json::{Value, json};

use super::latency::{self, Media};
use super::{Failure, Mode, progress, quantity};

pub(super) const EXAMPLES: &str = "Examples:
  parlor-bench fanout --subscribers 100 --seconds 10 --with-floor
      the relay's CPU for a delivered packet, beside what this machine cannot do for less; five times, alternating
  parlor-bench fanout --subscribers 50 --link-rate 10m --rtt 50 --with-floor
      every subscriber behind a link of its own
  parlor-bench fanout --media audio --publishers 10 --subscribers 300 --media-rate 32k
      a room with ten who speak
  parlor-bench fanout --meeting --publishers 20 --subscribers 0 --media-rate 600k --fps 15
      everyone sees everyone
  parlor-bench fanout --relay 'parlor://127.0.0.1:4433/r#sha256=…' --relay-pid 1234
      a relay that runs already (parlor-relay --dev prints its address)

The load comes from this process, on the same machine: where it is the limit, frames are missing or late, and the
relay's CPU is that of what was delivered.";

/// Several values, with commas between, are measured one after another.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How many publish a stream each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=200))]
    publishers: u16,
    /// How many play all streams.
    #[arg(long, value_delimiter = ',', default_value = "1,10,50", value_parser = clap::value_parser!(u16).range(0..=1000))]
    subscribers: Vec<u16>,
    /// Those who publish play each other's streams, too.
    #[arg(long)]
    meeting: bool,
    /// Pictures or sound.
    #[arg(long, value_enum, default_value = "video")]
    media: Media,
    /// How frames travel.
    #[arg(long, value_delimiter = ',', default_value = "adaptive")]
    mode: Vec<Mode>,
    /// Media rate, bits/s; k and m may follow.
    #[arg(long, value_parser = quantity::rate, default_value = "2m")]
    media_rate: u64,
    /// Pictures per second.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=240))]
    fps: u32,
    /// Rate of each subscriber's link, bits/s, with a queue of 300 ms; without it they are on bare loopback.
    #[arg(long, value_parser = quantity::rate)]
    link_rate: Option<u64>,
    /// Round trip of each subscriber's link, ms.
    #[arg(long, default_value_t = 50, requires = "link_rate", value_parser = clap::value_parser!(u64).range(0..=1000))]
    rtt: u64,
    /// How long each is measured, s.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Measures the machine's floor too, alternating, and says how far the relay is above it.
    #[arg(long)]
    with_floor: bool,
    /// How often each is measured; the median counts. Default 5 with --with-floor, otherwise 1.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// Threads of the relay; by default as many as it chooses.
    #[arg(long, conflicts_with = "relay", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// A relay that runs already, as it prints its address; without it each measurement has its own.
    #[arg(long, value_name = "parlor://…")]
    relay: Option<String>,
    /// The process of that relay, to read its CPU time and memory.
    #[arg(long, requires = "relay")]
    relay_pid: Option<u32>,
    /// Allows a relay that is not on this machine's loopback.
    #[arg(long, requires = "relay")]
    allow_any_address: bool,
    /// Writes every figure as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a page with charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// One row: the median round, and all ratios to the floor.
struct Row {
    subscribers: u16,
    mode: Mode,
    outcome: Outcome,
    floor: Option<Duration>,
    ratios: Vec<f64>,
}

pub(super) fn run(args: &Args, command: &str) -> Result<(), Failure> {
    let which = match &args.relay {
        Some(address) => Which::running(address, args.relay_pid, args.allow_any_address)?,
        None => Which::New,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let shape = match args.media {
        Media::Video => Shape { bitrate: args.media_rate, frames_per_second: args.fps, ..Shape::default() },
        Media::Audio => Shape::audio(args.media_rate),
    };
    let length = Duration::from_secs(args.seconds);
    let rounds = args.rounds.unwrap_or(if args.with_floor { 5 } else { 1 });
    let mut rows = Vec::new();
    for &subscribers in &args.subscribers {
        for &mode in &args.mode {
            let what = format!("{subscribers} subscribers, {}", mode.name());
            let fanout = Fanout {
                publishers: args.publishers.into(),
                subscribers: subscribers.into(),
                is_meeting: args.meeting,
                shape,
                delivery: mode.delivery(),
                link: args.link_rate.map(|rate| link(rate, Duration::from_millis(args.rtt))),
                length,
                relay: which.clone(),
                relay_options: args
                    .threads
                    .map_or_else(Vec::new, |threads| vec!["--threads".to_owned(), threads.to_string()]),
            };
            let (mut outcomes, mut floors, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            for round in 1..=rounds {
                let tell = |step: &str| progress::show(&format!("{what}, round {round} of {rounds}: {step}"));
                let floor = if args.with_floor {
                    tell("floor");
                    Some(Floor { subscribers: usize::from(subscribers).max(1), shape, length }.run()?)
                } else {
                    None
                };
                let outcome = runtime.block_on(fanout.run(tell))?;
                if let Some((floor, cpu)) = floor.zip(outcome.cpu_per_packet()) {
                    floors.push(floor.cpu_per_packet());
                    ratios.push(cpu.as_secs_f64() / floor.cpu_per_packet().as_secs_f64());
                }
                outcomes.push(outcome);
            }
            outcomes.sort_by_key(Outcome::cpu_per_packet);
            floors.sort_unstable();
            ratios.sort_by(f64::total_cmp);
            rows.push(Row {
                subscribers,
                mode,
                outcome: outcomes.swap_remove(outcomes.len() / 2),
                floor: floors.get(floors.len() / 2).copied(),
                ratios,
            });
        }
    }
    progress::show("");
    let table = table::render(&cells(&rows));
    println!("The relay's cost over loopback. A packet: of the fewest that carry the frame");
    if args.media == Media::Audio {
        println!(
            "Sound: up to three speak at a time, for 2 s each; delivered is of their frames, CPU for all frames"
        );
    }
    println!("$ parlor-bench {command}\n\n{table}");
    let goal = goal(args);
    for row in rows.iter().filter(|row| row.subscribers == 100) {
        if let (Some(goal), Some(median)) = (goal, median(&row.ratios)) {
            let met = if median <= goal { "met" } else { "not met" };
            println!("{}: {median:.2} times the floor; goal ≤ {goal}: {met}", row.mode.name());
        }
    }
    let figures = json!({
        "command": format!("parlor-bench {command}"),
        "rows": rows.iter().map(json_row).collect::<Vec<_>>(),
    });
    if let Some(path) = &args.json {
        latency::write(path, &format!("{figures:#}\n"))?;
    }
    if let Some(path) = &args.html {
        latency::write(path, &page(command, &table, &rows, &figures))?;
    }
    Ok(())
}

/// Frames as on a real path: they arrive spread, and are acknowledged so.
fn link(rate: u64, rtt: Duration) -> Profile {
    let queue = (rate as f64 / 8.0 * 0.3) as usize;
    Profile::perfect().with_rtt(rtt).with_rates((rate, queue), (rate, queue))
}

/// The goal for a broadcast of 2 Mbit/s and 30 frames/s to 100 subscribers.
fn goal(args: &Args) -> Option<f64> {
    let is_it = args.media == Media::Video
        && (args.publishers, args.media_rate, args.fps) == (1, 2_000_000, 30)
        && !args.meeting;
    match args.link_rate {
        None => is_it.then_some(1.8),
        Some(10_000_000) if args.rtt == 50 => is_it.then_some(2.8),
        Some(_) => None,
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let heading = [
        "subscribers",
        "mode",
        "delivered",
        "CPU µs/frame",
        "CPU µs/packet",
        "floor µs/packet",
        "times floor",
        "CPU s/Gbit",
        "cores",
        "switches/frame",
        "kB/subscriber",
        "age p50 ms",
        "age p99 ms",
    ];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    for Row { subscribers, mode, outcome, floor, ratios } in rows {
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        let micros = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e6);
        lines.push(vec![
            subscribers.to_string(),
            mode.name().to_owned(),
            format!("{:.2} %", 100.0 * outcome.due_delivered as f64 / outcome.due.max(1) as f64),
            or_unknown(outcome.cpu_per_frame().map(micros)),
            or_unknown(outcome.cpu_per_packet().map(micros)),
            or_unknown(floor.map(micros)),
            or_unknown(median(ratios).map(|ratio| format!("{ratio:.2}"))),
            or_unknown(outcome.cpu_per_gigabit().map(|cpu| format!("{cpu:.3}"))),
            or_unknown(
                outcome
                    .usage
                    .map(|usage| format!("{:.3}", usage.cpu.as_secs_f64() / outcome.length.as_secs_f64())),
            ),
            or_unknown(
                outcome
                    .usage
                    .map(|usage| format!("{:.3}", usage.switches as f64 / outcome.delivered.max(1) as f64)),
            ),
            or_unknown(outcome.memory_per_subscriber.map(|bytes| format!("{:.0}", bytes as f64 / 1e3))),
            millis(outcome.age.quantile(0.5)),
            millis(outcome.age.quantile(0.99)),
        ]);
    }
    lines
}

fn json_row(row: &Row) -> Value {
    let Row { subscribers, mode, outcome, floor, ratios } = row;
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    json!({
        "subscribers": subscribers, "mode": mode.name(),
        "delivered_frames": outcome.delivered, "due_frames": outcome.due,
        "due_delivered_frames": outcome.due_delivered,
        "delivered_bytes": outcome.bytes, "packets": outcome.packets,
        "cpu_s": seconds(outcome.usage.map(|usage| usage.cpu)),
        "cpu_s_per_frame": seconds(outcome.cpu_per_frame()),
        "cpu_s_per_packet": seconds(outcome.cpu_per_packet()),
        "cpu_s_per_gigabit": outcome.cpu_per_gigabit(),
        "floor_s_per_packet": seconds(*floor), "times_floor": ratios,
        "context_switches": outcome.usage.map(|usage| usage.switches),
        "resident_bytes": outcome.usage.map(|usage| usage.memory),
        "bytes_per_subscriber": outcome.memory_per_subscriber,
        "age_p50_s": seconds(outcome.age.quantile(0.5)), "age_p99_s": seconds(outcome.age.quantile(0.99)),
    })
}

fn page(command: &str, table: &str, rows: &[Row], figures: &Value) -> String {
    use parlor_benches::report::chart::{Bars, Lines};
    use parlor_benches::report::page;
    let name = |row: &Row| format!("{} subscribers, {}", row.subscribers, row.mode.name());
    let micros = |time: Option<Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e6);
    let cost = Bars {
        title: "What a packet costs".to_owned(),
        x: "µs of CPU",
        parts: vec!["floor of this machine", "the relay beyond it"],
        bars: rows
            .iter()
            .map(|row| {
                let (cpu, floor) = (micros(row.outcome.cpu_per_packet()), micros(row.floor));
                let floor = if floor.is_nan() { 0.0 } else { floor };
                (name(row), vec![floor, cpu - floor])
            })
            .collect(),
    };
    let delay = Lines {
        title: "Share of frames that take longer than …".to_owned(),
        x: "ms from capture",
        y: "share of frames",
        log: true,
        series: rows
            .iter()
            .map(|row| {
                let all = row.outcome.age.len().max(1) as f64;
                let at =
                    |(at, delay): (usize, &Duration)| (delay.as_secs_f64() * 1e3, (all - at as f64) / all);
                (name(row), row.outcome.age.came().iter().enumerate().map(at).collect())
            })
            .collect(),
    };
    let note = "Measured on one machine, relay and load together: compare ratios, not machines.";
    let command = format!("parlor-bench {command}");
    page::assemble("What a relay costs", &command, note, table, &[cost.svg(), delay.svg()], figures)
}

/// Options of the relay of a measurement.
#[derive(clap::Args)]
pub(super) struct RelayArgs {
    /// Who joins shows a token that is signed with this.
    #[arg(long)]
    secret: Option<String>,
    /// So many users may come, more than by default also in one room.
    #[arg(long)]
    users: Option<usize>,
    /// So many threads serve, rather than what a relay chooses.
    #[arg(long)]
    threads: Option<usize>,
}

/// The relay of a measurement: prints its address, serves until it is killed.
pub(super) fn relay(args: &RelayArgs) -> Result<(), Failure> {
    let runtime = process::runtime(args.threads.unwrap_or_else(|| Config::dev().threads()))?;
    runtime.block_on(async {
        let mut config = Config::dev();
        if let Some(secret) = &args.secret {
            config.apps = vec![App::with_keys(AppId::dev(), vec![VerifyingKey::from_secret(secret)?])?];
        }
        if let Some(users) = args.users {
            parlor_benches::room::allow(&mut config, users);
        }
        let relay = Relay::bind(config).await?;
        println!("{}", relay.address(RoomId::new("fanout").ok()));
        std::io::stdout().flush()?;
        relay.run(std::future::pending()).await;
        Ok(())
    })
}
