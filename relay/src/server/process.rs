//! The `parlor-relay` command as a process: its first lines, its signals, its exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use parlor_transport::id::RoomId;
use parlor_transport::quic::Identity;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::Relay;
use crate::auth::App;
use crate::config::flags::{Cli, Flags, Task};
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
    let config = cli.flags.clone().into_config()?;
    match cli.command {
        Some(Task::CheckConfig) => check(&config),
        None => {
            logging::start(config.log_format, &config.log_filter)?;
            runtime(config.threads())?.block_on(serve(config, cli.flags))
        }
    }
}

/// What a relay of so many threads runs on.
///
/// # Errors
/// When the system gives no threads.
pub fn runtime(threads: usize) -> io::Result<Runtime> {
    match threads {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
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
    let apps: Vec<_> = config.apps.iter().map(in_words).collect();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "The configuration will do: listens on {}, {tls}, apps: {}.",
        config.listen,
        apps.join(", ")
    )?;
    Ok(())
}

fn in_words(app: &App) -> String {
    let open = if app.is_open() { " (open to anyone)" } else { "" };
    format!("{}{open}", app.id())
}

async fn serve(config: Config, flags: Flags) -> Result<(), Failure> {
    let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let apps = config.apps.clone();
    // A relay for development has nothing to read again, and ends with its terminal.
    let mut hangup = match apps.iter().any(App::is_open) {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    let relay = Relay::bind(config).await?;
    greet(&relay, &apps)?;
    relay.on_reload(move || flags.clone().into_config().map_err(|error| error.to_string()));
    let handle = relay.handle();
    let (asked, mut first) = watch::channel(0_u32);
    let mut second = first.clone();
    tokio::spawn(async move {
        let [terminate, interrupt] = &mut signals;
        loop {
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            asked.send_modify(|times| *times += 1);
        }
    });
    let drain = async {
        loop {
            tokio::select! {
                biased;
                _ = first.wait_for(|times| *times >= 1) => return None,
                () = hung_up(&mut hangup) => {
                    let handle = handle.clone();
                    // Files may take their time, and what comes of it is logged.
                    _ = tokio::task::spawn_blocking(move || handle.reload()).await;
                }
            }
        }
    };
    let stop = async { _ = second.wait_for(|times| *times >= 2).await };
    relay.run_draining(drain, stop).await;
    Ok(())
}

async fn hung_up(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// The lines that tell people how to get in.
fn greet(relay: &Relay, apps: &[App]) -> io::Result<()> {
    let room = RoomId::new("standup").ok();
    let mut out = io::stdout().lock();
    writeln!(out, "parlor-relay {} listens on {} (UDP)", env!("CARGO_PKG_VERSION"), relay.local_addr())?;
    match relay.http_addr() {
        Some(address) => writeln!(out, "HTTP on http://{address}: /healthz /readyz /metrics /admin/")?,
        None => writeln!(out, "HTTP is off.")?,
    }
    writeln!(out)?;
    let address = relay.address(room);
    match apps.iter().find(|app| !app.is_open()) {
        None => {
            writeln!(out, "  *** DEVELOPMENT: anyone who can reach this address may join any room. ***")?;
            writeln!(out)?;
            writeln!(out, "Join with:  parlor join '{address}' --as u1")?;
        }
        Some(app) => {
            let names: Vec<_> = apps.iter().map(in_words).collect();
            writeln!(
                out,
                "Apps: {}. Who joins shows a token (`parlor token create --help`).",
                names.join(", ")
            )?;
            writeln!(
                out,
                "Join with:  parlor join '{address}' --as u1 --app {} --token-file FILE",
                app.id()
            )?;
        }
    }
    out.flush()
}
