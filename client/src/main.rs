//! The `parlor` command: join a room, record a stream, see who and what is in a room.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
