//! `parlor-bench latency`.

use std::path::PathBuf;
use std::time::Duration;

use parlor_benches::cell::{Cell, Feed, Link, Way};
use parlor_benches::contender::Contender;
use parlor_benches::contender::parlor::Parlor;
use parlor_benches::outcome::Outcome;
use parlor_benches::quantile::millis;
use parlor_benches::source::Shape;
use parlor_benches::table;

use super::{Failure, Mode, progress};

#[derive(clap::Args)]
pub(super) struct Args {
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

pub(super) fn run(args: &Args, command: &str) -> Result<(), Failure> {
    let mut tasks = Vec::new();
    for &rtt in &args.rtt {
        for &loss in &args.loss {
            if !(0.0..100.0).contains(&loss) {
                return Err(format!("--loss {loss}: give a percentage from 0 to below 100").into());
            }
            for &mode in &args.mode {
                let way = Way {
                    loss: loss / 100.0,
                    burst: args.burst,
                    jitter: Duration::from_millis(args.jitter),
                    rate: Some(args.link_rate * 1000).filter(|&rate| rate > 0),
                    ..Way::default()
                };
                let cell = Cell {
                    links: vec![Link { rtt: Duration::from_millis(rtt), media: way.clone(), back: way }],
                    shape: Shape { bitrate: args.media_rate * 1000, ..Shape::default() },
                    feed: Feed::Fixed,
                    length: Duration::from_secs(args.seconds),
                    seed: args.seed,
                };
                tasks.push((cell, Parlor { delivery: mode.delivery() }));
            }
        }
    }
    let outcomes = progress::side_by_side(&tasks, |(cell, contender)| {
        contender.run(cell).map(|run| Outcome::new(cell, &run))
    });
    println!("Frame delay from capture to complete beyond one-way delay, ms, virtual time");
    println!("$ parlor-bench {command}\n");
    let heading = [
        "RTT ms",
        "loss %",
        "who",
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
    for ((cell, contender), outcome) in tasks.iter().zip(outcomes) {
        let outcome = outcome?;
        rows.push(row(cell, &contender.name(), &outcome));
        json.push(as_json(cell, &contender.name(), &outcome));
    }
    print!("{}", table::render(&rows));
    if let Some(path) = &args.json {
        let value = serde_json::json!({ "command": format!("parlor-bench {command}"), "cells": json });
        std::fs::write(path, serde_json::to_string_pretty(&value)?)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

fn row(cell: &Cell, name: &str, outcome: &Outcome) -> Vec<String> {
    let delay = |q| millis(outcome.complete.quantile(q));
    vec![
        cell.links[0].rtt.as_millis().to_string(),
        format!("{}", cell.links[0].media.loss * 100.0),
        name.to_owned(),
        delay(0.5),
        delay(0.95),
        delay(0.99),
        delay(0.999),
        delay(1.0),
        format!("{:.1} %", 100.0 * outcome.complete.never() as f64 / outcome.complete.len() as f64),
        millis(outcome.decodable.quantile(0.99)),
        outcome.freezes.to_string(),
        format!("{:.1}", outcome.overhead[0] * 100.0),
    ]
}

fn as_json(cell: &Cell, name: &str, outcome: &Outcome) -> serde_json::Value {
    let ms = |q| outcome.complete.quantile(q).map(|delay| delay.as_secs_f64() * 1000.0);
    let link = &cell.links[0];
    serde_json::json!({
        "rtt_ms": link.rtt.as_millis() as u64, "loss": link.media.loss, "burst": link.media.burst, "who": name,
        "link_rate_bps": link.media.rate, "media_rate_bps": cell.shape.bitrate, "seed": cell.seed,
        "seconds": cell.length.as_secs(), "frames": outcome.complete.len(), "never": outcome.complete.never(),
        "complete_ms": { "p50": ms(0.5), "p95": ms(0.95), "p99": ms(0.99), "p999": ms(0.999), "max": ms(1.0) },
        "decodable_share_200ms": outcome.decodable.share_within(Duration::from_millis(200)),
        "freezes": outcome.freezes, "overhead": outcome.overhead,
    })
}
