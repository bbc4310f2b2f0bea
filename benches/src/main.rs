//! `parlor-bench`: measures Parlor and says how to repeat it.

mod cli;

fn main() -> std::process::ExitCode {
    match cli::run(std::env::args().collect()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parlor-bench: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
