//! The command line: what it says, what it does with it, and how it ends.
//!
//! Exit codes: 0 when all was done (Ctrl-C is a way to be done), 1 when the call failed, 2 when what was asked
//! for is not valid.

mod app;
mod args;
mod join;
mod record;
mod room;
mod table;
mod token;

use std::fmt::Display;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use parlor_client::{Coded, Engine, EngineConfig, EngineError, JoinOptions, Scenario};

use args::{Command, Common};

/// Why a command did not do what was asked.
pub(crate) struct Failure {
    text: String,
    exit: u8,
}

impl Failure {
    /// The call failed.
    pub(crate) fn call(error: impl Display) -> Self {
        Failure { text: error.to_string(), exit: 1 }
    }

    /// What was asked for is not valid.
    pub(crate) fn usage(error: impl Display) -> Self {
        Failure { text: error.to_string(), exit: 2 }
    }
}

/// Runs the command line.
pub(crate) fn run() -> ExitCode {
    let cli = args::Cli::parse();
    let filter = match tracing_subscriber::EnvFilter::try_new(&cli.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("parlor: --log {:?}: {error}; use for example info or parlor_client=debug", cli.log);
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return finish(Err(Failure::call(format!("no threads to run on: {error}")))),
    };
    finish(runtime.block_on(async {
        match cli.command {
            Command::Join(join) => Box::pin(join::run(join)).await,
            Command::Record(record) => Box::pin(record::run(record)).await,
            Command::Room(room) => Box::pin(room::run(room)).await,
            Command::App(app) => app::run(app),
            Command::Token(token) => token::run(token),
        }
    }))
}

fn finish(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("parlor: {}", failure.text);
            ExitCode::from(failure.exit)
        }
    }
}

/// An engine as the flags want it.
fn engine(common: &Common, scenario: Scenario) -> Result<Engine, Failure> {
    let config = EngineConfig {
        qlog: common.qlog.clone(),
        reconnect_timeout: std::time::Duration::from_secs(common.reconnect),
        // The variable itself says where to; without it nothing is written.
        key_log: std::env::var_os("SSLKEYLOGFILE").is_some(),
        agent: concat!("parlor/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..EngineConfig::from(scenario)
    };
    Engine::new(config).map_err(|error| match error {
        EngineError::Qlog(_) => Failure::usage(error),
        _ => Failure::call(error),
    })
}

/// A file of the command line, as text.
fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}; check the path", path.display())))
}

/// Whom to join as, where.
fn join_options(common: &Common) -> Result<JoinOptions, Failure> {
    let user = common.user.clone().unwrap_or_else(|| format!("parlor-{}", std::process::id()));
    let mut options = JoinOptions::new(&common.address, user).app(&common.app).name(&common.name);
    if let Some(room) = &common.room {
        options = options.room(room);
    }
    if let Some(token) = &common.token {
        options = options.token(&token.0);
    }
    if let Some(path) = &common.token_file {
        options = options.token(read(path)?);
    }
    Ok(options)
}

/// Joins, or says what was wrong with what was asked.
fn join(engine: &Engine, common: &Common) -> Result<parlor_client::Room, Failure> {
    engine.join(join_options(common)?).map_err(|error| match error.code() {
        parlor_client::Code::Closed => Failure::call(error),
        _ => Failure::usage(error),
    })
}

/// Waits for Ctrl-C or for the time to be over.
fn stopped(engine: &Engine, seconds: Option<f64>) -> impl Future<Output = ()> + use<> {
    let mut timer = engine.clock().timer();
    timer.reset(seconds.map(|seconds| engine.now() + Duration::from_secs_f64(seconds)));
    async move {
        tokio::select! {
            biased;
            // Without a handler for it Ctrl-C ends the process anyway.
            _ = tokio::signal::ctrl_c() => {}
            () = timer.expired() => {}
        }
    }
}
