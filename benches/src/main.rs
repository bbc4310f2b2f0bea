//! `parlor-bench`: measures Parlor and says how to repeat it.

mod cli;

/// The relay of a measurement is this program: it has the same as `parlor-relay`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    match cli::run(std::env::args().collect()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parlor-bench: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
