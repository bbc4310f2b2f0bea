//! The `parlor-relay` command as a process: its first lines, its signals, its exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use parlor_transport::id::RoomId;
use parlor_transport::quic::Identity;
use tokio::signal::unix::{SignalKind, signal};

use super::Relay;
use crate::config::flags::{Cli, Task};
use crate::config::{Config, Tls, file};
use crate::logging;

/// What went wrong, for people; the command prints it and fails.
type Failure = Box<dyn std::error::Error>;

/// Does what the command line says. Errors go to standard error, with what to do about them.
pub fn main(cli: Cli) -> ExitCode {
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("parlor-relay: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> Result<(), Failure> {
    if cli.print_default_config {
        return Ok(io::stdout().write_all(file::DEFAULT.as_bytes())?);
    }
    let config = cli.flags.into_config()?;
    match cli.command {
        Some(Task::CheckConfig) => check(&config),
        None => {
            logging::start(config.log_format, &config.log_filter)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(serve(config))
        }
    }
}

/// Looks at the settings, the files of a certificate and the directory for qlog files. Whether a self-signed
/// certificate can be kept and the port can be had shows at the start.
fn check(config: &Config) -> Result<(), Failure> {
    logging::check(&config.log_filter)?;
    config.quic.check()?;
    let tls = match &config.tls {
        Tls::Files { certificate, key } => {
            Identity::from_pem_files(certificate, key)?;
            format!("certificate {}", certificate.display())
        }
        Tls::Development(directory) => format!("a self-signed certificate in {}", directory.display()),
        Tls::Ephemeral => "a passing self-signed certificate".to_owned(),
    };
    let apps: Vec<_> = config.apps.iter().map(|app| app.as_str()).collect();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "The configuration will do: listens on {}, {tls}, apps: {}.",
        config.listen,
        apps.join(", ")
    )?;
    Ok(())
}

async fn serve(config: Config) -> Result<(), Failure> {
    let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let relay = Relay::bind(config).await?;
    greet(&relay)?;
    let [terminate, interrupt] = &mut signals;
    let shutdown = async {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    relay.run(shutdown).await;
    Ok(())
}

/// The lines that tell people how to get in.
fn greet(relay: &Relay) -> io::Result<()> {
    let room = RoomId::new("standup").ok();
    let mut out = io::stdout().lock();
    writeln!(out, "parlor-relay {} listens on {} (UDP)", env!("CARGO_PKG_VERSION"), relay.local_addr())?;
    writeln!(out)?;
    writeln!(out, "  *** DEVELOPMENT: anyone who can reach this address may join any room. ***")?;
    writeln!(out)?;
    writeln!(out, "Join with:  parlor join '{}' --as u1", relay.address(room))?;
    out.flush()
}
