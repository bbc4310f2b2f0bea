//! `parlor-bench fanout`.

use std::io::Write;
use std::time::Duration;

use parlor_benches::fanout::Fanout;
use parlor_benches::quantile::millis;
use parlor_benches::source::Shape;
use parlor_benches::table;
use parlor_client::RoomId;
use parlor_relay::{Config, Relay};

use super::{Failure, Mode, progress};

#[derive(clap::Args)]
pub(super) struct Args {
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

pub(super) fn run(args: &Args, command: &str) -> Result<(), Failure> {
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
            progress::show(&format!("{subscribers} subscribers, {}", mode.name()));
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
    progress::show("");
    print!("{}", table::render(&rows));
    Ok(())
}

/// The relay of a fan-out measurement: prints its address, serves until it is killed.
pub(super) fn relay() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let relay = Relay::bind(Config::dev()).await?;
        println!("{}", relay.address(RoomId::new("fanout").ok()));
        std::io::stdout().flush()?;
        relay.run(std::future::pending()).await;
        Ok(())
    })
}
