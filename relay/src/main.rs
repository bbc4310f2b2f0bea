//! The `parlor-relay` command. All of it is in the library, so that other programs can start a relay too.

use std::process::ExitCode;

use clap::Parser;
use parlor_relay::config::flags::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    parlor_relay::server::process::main(Cli::parse())
}
