//! `parlor-bench`: measures Parlor and says how to repeat it.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use parlor_benches::fanout::{Fanout, RELAY_COMMAND};
use parlor_benches::latency::{Cell, Outcome};
use parlor_benches::quantile::millis;
use parlor_benches::source::Shape;
use parlor_benches::table;
use parlor_client::{Delivery, RoomId};
use parlor_relay::{Config, Relay};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures Parlor: frame delay over simulated links in virtual time, and the relay's cost over loopback.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Program {
    #[command(subcommand)]
    command: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// Frame delay over one simulated link, in virtual time: exact, and the same on every machine.
    Latency(LatencyArgs),
    /// CPU time of a relay for each delivered frame, over loopback.
    Fanout(FanoutArgs),
    /// Both, with the figures that docs/measurements.md shows.
    Report,
    #[command(name = RELAY_COMMAND, hide = true)]
    Relay,
}

#[derive(Args)]
struct LatencyArgs {
    /// Round-trip times, ms.
    #[arg(long, value_delimiter = ',', default_value = "50")]
    rtt: Vec<u64>,
    /// Packets lost in each direction, %.
    #[arg(long, value_delimiter = ',', default_value = "0,1,5")]
    loss: Vec<f64>,
    /// Mean length of a run of lost packets; 1 is independent loss.
    #[arg(long, default_value_t = 1.0)]
    burst: f64,
    /// Mean jitter in each direction, ms.
    #[arg(long, default_value_t = 0)]
    jitter: u64,
    /// Link rate in each direction, kbit/s; 0 is unlimited.
    #[arg(long, default_value_t = 10_000)]
    link_rate: u64,
    /// Media rate, kbit/s.
    #[arg(long, default_value_t = 1000)]
    media_rate: u64,
    /// How frames travel.
    #[arg(long, value_delimiter = ',', default_value = "adaptive,datagram,quic-stream")]
    mode: Vec<Mode>,
    /// Length of the call in virtual time, s.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct FanoutArgs {
    /// How many play the stream.
    #[arg(long, value_delimiter = ',', default_value = "1,10,50")]
    subscribers: Vec<usize>,
    /// How frames travel.
    #[arg(long, value_delimiter = ',', default_value = "adaptive,datagram,quic-stream")]
    mode: Vec<Mode>,
    /// Media rate, kbit/s.
    #[arg(long, default_value_t = 1000)]
    media_rate: u64,
    /// How long is measured, s.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Adaptive,
    Datagram,
    QuicStream,
}

impl Mode {
    fn delivery(self) -> Delivery {
        match self {
            Mode::Adaptive => Delivery::Adaptive,
            Mode::Datagram => Delivery::Datagram,
            Mode::QuicStream => Delivery::QuicStream,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Mode::Adaptive => "adaptive",
            Mode::Datagram => "datagram",
            Mode::QuicStream => "quic-stream",
        }
    }
}

fn main() -> std::process::ExitCode {
    let command: Vec<String> = std::env::args().skip(1).collect();
    let result = match Program::parse().command {
        Measurement::Latency(args) => latency(&args, &command.join(" ")),
        Measurement::Fanout(args) => fanout(&args, &command.join(" ")),
        Measurement::Report => report(),
        Measurement::Relay => relay(),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parlor-bench: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn report() -> Result<(), Failure> {
    let parse = |line: &str| Program::try_parse_from(std::iter::once("parlor-bench").chain(line.split(' ')));
    for line in ["latency --rtt 50 --loss 0,1,5 --seconds 60", "fanout --subscribers 1,10,50 --seconds 8"] {
        match parse(line)?.command {
            Measurement::Latency(args) => latency(&args, line)?,
            Measurement::Fanout(args) => fanout(&args, line)?,
            Measurement::Report | Measurement::Relay => {}
        }
        println!();
    }
    Ok(())
}

fn latency(args: &LatencyArgs, command: &str) -> Result<(), Failure> {
    let mut cells = Vec::new();
    for &rtt in &args.rtt {
        for &loss in &args.loss {
            if !(0.0..100.0).contains(&loss) {
                return Err(format!("--loss {loss}: give a percentage from 0 to below 100").into());
            }
            for &mode in &args.mode {
                let cell = Cell {
                    rtt: Duration::from_millis(rtt),
                    loss: loss / 100.0,
                    burst: args.burst,
                    jitter: Duration::from_millis(args.jitter),
                    link_rate: Some(args.link_rate * 1000).filter(|&rate| rate > 0),
                    delivery: mode.delivery(),
                    shape: Shape { bitrate: args.media_rate * 1000, ..Shape::default() },
                    length: Duration::from_secs(args.seconds),
                    seed: args.seed,
                };
                cells.push((cell, mode));
            }
        }
    }
    let outcomes = run_all(&cells.iter().map(|(cell, _)| cell.clone()).collect::<Vec<_>>());
    println!("Frame delay from capture to complete beyond one-way delay, ms, virtual time");
    println!("$ parlor-bench {command}\n");
    let heading = [
        "RTT ms",
        "loss %",
        "mode",
        "p50",
        "p95",
        "p99",
        "p99.9",
        "max",
        "lost",
        "decodable p99",
        "freezes",
        "overhead %",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let mut json = Vec::new();
    for ((cell, mode), outcome) in cells.iter().zip(&outcomes) {
        rows.push(latency_row(cell, *mode, outcome));
        json.push(latency_json(cell, *mode, outcome));
    }
    print!("{}", table::render(&rows));
    if let Some(path) = &args.json {
        let value = serde_json::json!({ "command": format!("parlor-bench {command}"), "cells": json });
        std::fs::write(path, serde_json::to_string_pretty(&value)?)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

fn latency_row(cell: &Cell, mode: Mode, outcome: &Outcome) -> Vec<String> {
    let delay = |q| millis(outcome.complete.quantile(q));
    vec![
        cell.rtt.as_millis().to_string(),
        format!("{}", cell.loss * 100.0),
        mode.name().to_owned(),
        delay(0.5),
        delay(0.95),
        delay(0.99),
        delay(0.999),
        delay(1.0),
        format!("{:.1} %", 100.0 * outcome.complete.never() as f64 / outcome.complete.len() as f64),
        millis(outcome.decodable.quantile(0.99)),
        outcome.freezes.to_string(),
        format!("{:.1}", outcome.overhead * 100.0),
    ]
}

fn latency_json(cell: &Cell, mode: Mode, outcome: &Outcome) -> serde_json::Value {
    let ms = |q| outcome.complete.quantile(q).map(|delay| delay.as_secs_f64() * 1000.0);
    serde_json::json!({
        "rtt_ms": cell.rtt.as_millis() as u64, "loss": cell.loss, "burst": cell.burst, "mode": mode.name(),
        "link_rate_bps": cell.link_rate, "media_rate_bps": cell.shape.bitrate, "seed": cell.seed,
        "seconds": cell.length.as_secs(), "frames": outcome.complete.len(), "never": outcome.complete.never(),
        "complete_ms": { "p50": ms(0.5), "p95": ms(0.95), "p99": ms(0.99), "p999": ms(0.999), "max": ms(1.0) },
        "decodable_share_200ms": outcome.decodable.share_within(Duration::from_millis(200)),
        "freezes": outcome.freezes, "overhead": outcome.overhead,
    })
}

/// Runs cells side by side, each on a thread of its own, and shows how far it is.
fn run_all(cells: &[Cell]) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new((0, (0..cells.len()).map(|_| None).collect::<Vec<Option<Outcome>>>()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(cells.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((at, cell)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, cells.get(at)?)))
                {
                    let outcome = cell.run();
                    let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    done.0 += 1;
                    done.1[at] = Some(outcome);
                    progress(&format!("{} of {} cells", done.0, cells.len()));
                }
            });
        }
    });
    progress("");
    done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).1.into_iter().flatten().collect()
}

fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
        _ = std::io::stderr().flush();
    }
}

fn fanout(args: &FanoutArgs, command: &str) -> Result<(), Failure> {
    println!(
        "Relay CPU over loopback, one publisher, one relay thread (wall clock: compare rows, not machines)"
    );
    println!("$ parlor-bench {command}\n");
    let heading = [
        "subscribers",
        "mode",
        "frames delivered",
        "of due",
        "CPU µs/frame",
        "CPU s",
        "age p50 ms",
        "age p99 ms",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for &subscribers in &args.subscribers {
        for &mode in &args.mode {
            progress(&format!("{subscribers} subscribers, {}", mode.name()));
            let outcome = runtime.block_on(
                Fanout {
                    subscribers,
                    shape: Shape { bitrate: args.media_rate * 1000, ..Shape::default() },
                    delivery: mode.delivery(),
                    length: Duration::from_secs(args.seconds),
                }
                .run(),
            )?;
            let or_unknown =
                |text: Option<String>| text.unwrap_or_else(|| "not told by this system".to_owned());
            rows.push(vec![
                subscribers.to_string(),
                mode.name().to_owned(),
                outcome.delivered.to_string(),
                format!("{:.1} %", 100.0 * outcome.delivered as f64 / outcome.due.max(1) as f64),
                or_unknown(outcome.cpu_per_frame().map(|cpu| format!("{:.1}", cpu.as_secs_f64() * 1e6))),
                or_unknown(outcome.cpu.map(|cpu| format!("{:.2}", cpu.as_secs_f64()))),
                millis(outcome.age.quantile(0.5)),
                millis(outcome.age.quantile(0.99)),
            ]);
        }
    }
    progress("");
    print!("{}", table::render(&rows));
    Ok(())
}

/// The relay of a fan-out measurement: prints its address, serves until it is killed.
fn relay() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let relay = Relay::bind(Config::dev()).await?;
        println!("{}", relay.address(RoomId::new("fanout").ok()));
        std::io::stdout().flush()?;
        relay.run(std::future::pending()).await;
        Ok(())
    })
}
