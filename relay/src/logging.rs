//! Log lines of the `parlor-relay` command: as text for people or as JSON for machines, to standard error.
//! A program that uses the relay as a library installs its own subscriber instead.

use std::io;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text each.
    #[default]
    Text,
    /// One JSON object each.
    Json,
}

/// A filter that is not one.
#[derive(Debug, thiserror::Error)]
#[error("log filter {filter:?} is not one: {source}; it looks like info or info,parlor_relay=debug")]
pub struct FilterError {
    filter: String,
    source: ParseError,
}

/// Checks a filter.
///
/// # Errors
/// [`FilterError`].
pub fn check(filter: &str) -> Result<(), FilterError> {
    parse(filter).map(drop)
}

/// Begins to log, for the rest of the process.
///
/// # Errors
/// [`FilterError`].
pub fn start(format: LogFormat, filter: &str) -> Result<(), FilterError> {
    let filter = parse(filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::try_new(filter).map_err(|source| FilterError { filter: filter.to_owned(), source })
}
