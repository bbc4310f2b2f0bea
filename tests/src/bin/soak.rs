//! The program behind `make soak`: hours of people coming and going, in virtual time or over loopback. It fails when
//! something is left over afterwards, when memory grew, or when something happened that must not.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use parlor_tests::soak::{Load, loopback, virtual_time};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

#[derive(Parser)]
#[command(about = "People who come and go, for minutes or days")]
struct Cli {
    #[command(subcommand)]
    stage: Stage,
    /// How many people.
    #[arg(long, global = true, default_value_t = 8)]
    users: usize,
    /// From which everything random follows; over loopback, what people do.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Next to no media, and all else slower.
    #[arg(long, global = true)]
    thin: bool,
}

#[derive(Subcommand)]
enum Stage {
    /// Relay and people on the simulated network.
    Virtual {
        /// Of virtual time.
        #[arg(long, default_value_t = 2.0)]
        hours: f64,
    },
    /// A relay of its own process, and people over UDP on loopback.
    Loopback {
        /// Of real time.
        #[arg(long, default_value_t = 15.0)]
        minutes: f64,
        /// The relay's program [default: the one beside this program].
        #[arg(long)]
        relay: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let Cli { stage, users, seed, thin } = Cli::parse();
    let load = if thin { Load::thin(users) } else { Load::full(users) };
    let outcome = match stage {
        Stage::Virtual { hours } => Ok(virtual_time::run(load, hours, seed, HEAP)),
        Stage::Loopback { minutes, relay } => {
            let beside = || std::env::current_exe().map(|program| program.with_file_name("parlor-relay"));
            match relay.map_or_else(beside, Ok) {
                Ok(relay) => loopback::run(&relay, load, minutes, seed),
                Err(error) => Err(format!("cannot tell where this program is: {error}")),
            }
        }
    };
    match outcome {
        Ok(wrong) if wrong.is_empty() => {
            println!("all is well");
            ExitCode::SUCCESS
        }
        Ok(wrong) => {
            wrong.iter().for_each(|what| eprintln!("soak: {what}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}
