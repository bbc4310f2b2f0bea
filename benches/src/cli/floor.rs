//! `parlor-bench floor`.

use std::time::Duration;

use parlor_benches::floor::Floor;
use parlor_benches::source::Shape;
use parlor_benches::table;

use super::{Failure, progress, quantity};

#[derive(clap::Args)]
pub(super) struct Args {
    /// How many sockets get every frame.
    #[arg(long, value_delimiter = ',', default_value = "1,100", value_parser = clap::value_parser!(u16).range(1..=1000))]
    subscribers: Vec<u16>,
    /// Media rate, bits/s; k and m may follow.
    #[arg(long, value_parser = quantity::rate, default_value = "2m")]
    media_rate: u64,
    /// Frames per second.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    fps: u32,
    /// How long each is measured, s.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    println!(
        "AES-128-GCM, header protection and UDP sends with segmentation offload, nothing else; one thread\n"
    );
    let heading = ["subscribers", "CPU µs/packet", "CPU µs/frame", "packets", "received"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for &subscribers in &args.subscribers {
        progress::show(&format!("{subscribers} subscribers"));
        let shape = Shape { bitrate: args.media_rate, frames_per_second: args.fps, ..Shape::default() };
        let length = Duration::from_secs(args.seconds);
        let outcome = Floor { subscribers: subscribers.into(), shape, length }.run()?;
        rows.push(vec![
            subscribers.to_string(),
            format!("{:.2}", outcome.cpu_per_packet().as_secs_f64() * 1e6),
            format!("{:.2}", outcome.cpu_per_frame().as_secs_f64() * 1e6),
            outcome.packets.to_string(),
            format!("{:.1} %", 100.0 * outcome.received as f64 / outcome.packets.max(1) as f64),
        ]);
    }
    progress::show("");
    print!("{}", table::render(&rows));
    Ok(())
}
