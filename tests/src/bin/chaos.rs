//! The program behind `make chaos`: runs scenarios by their seeds, as many at once as the machine has cores.
//!
//!   chaos 1..200 [--verbose]      seeds 1 to 200; `17` is one
//!
//! `--verbose` prints what happened in each run, with virtual times. Ends with 1 if something was wrong.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parlor_tests::chaos;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let verbose = arguments.iter().position(|argument| argument == "--verbose");
    let verbose = verbose.map(|at| arguments.remove(at)).is_some();
    let [seeds] = &arguments[..] else { return usage() };
    let (first, last) = match seeds.split_once("..") {
        Some((first, last)) => (first.parse().ok(), last.trim_start_matches('=').parse().ok()),
        None => (seeds.parse().ok(), seeds.parse().ok()),
    };
    let (Some(first), Some(last)) = (first, last) else { return usage() };
    let (next, red) = (AtomicU64::new(first), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |cores| cores.get()) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        break;
                    }
                    let outcome = chaos::run(seed);
                    let log = if verbose { outcome.log.join("\n") + "\n" } else { String::new() };
                    println!("{log}{outcome}");
                    red.fetch_add(u64::from(!outcome.faults.is_empty()), Ordering::Relaxed);
                }
            });
        }
    });
    let (red, count) = (red.load(Ordering::Relaxed), (last + 1).saturating_sub(first));
    println!("{count} seeds, {red} red");
    if red == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("usage: chaos SEEDS [--verbose], where SEEDS is 17 or 1..200");
    ExitCode::from(2)
}
