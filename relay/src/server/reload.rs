//! Reading the configuration again while the relay runs: all of it or, if anything in it will not do, nothing.

use std::sync::{Mutex, OnceLock};

use parlor_transport::quic::Options;

use super::Hub;
use crate::auth::App;
use crate::config::{Config, ConfigError};
use crate::limits::Limits;
use crate::lock;

/// Gives the configuration anew, or says what is wrong.
type Source = Box<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// What running connections and those to come go by.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    pub(crate) quic: Options,
}

/// Where a configuration comes from, and what the relay was started with.
#[derive(Default)]
pub(crate) struct Reloading {
    source: OnceLock<(Source, Config)>,
    /// One at a time: two would mix what they read.
    busy: Mutex<()>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reloaded {
    /// The names of the apps that there are now.
    pub apps: Vec<String>,
    /// Settings that are different and need a relay that is started anew.
    pub needs_restart: Vec<&'static str>,
}

/// The configuration was not read again; the one before is in force.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is none.
    #[error("this relay was not started from a configuration that could be read again")]
    NoSource,
    /// It will not do.
    #[error("{0}; the old configuration stays in force")]
    Unusable(String),
    /// It opens or closes the relay.
    #[error(
        "whether anyone may join (dev) cannot change while the relay runs; the old configuration stays in force, start \
         anew for that"
    )]
    Openness,
}

impl From<ConfigError> for ReloadError {
    fn from(error: ConfigError) -> Self {
        ReloadError::Unusable(error.to_string())
    }
}

impl Reloading {
    /// Only the first call counts.
    pub(crate) fn set_source(&self, started: Config, source: Source) {
        _ = self.source.set((source, started));
    }
}

impl Hub {
    /// Reads the configuration again and goes by it. May wait for files.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing changed then.
    pub(crate) fn reload(&self) -> Result<Reloaded, ReloadError> {
        let _busy = lock(&self.reloading().busy);
        let outcome = self.try_reload();
        match &outcome {
            Ok(Reloaded { apps, needs_restart }) => {
                let (apps, needs_restart) = (apps.join(", "), needs_restart.join(", "));
                tracing::info!(apps, needs_restart, "configuration reloaded");
            }
            Err(error) => tracing::warn!(%error, "configuration not reloaded"),
        }
        outcome
    }

    fn try_reload(&self) -> Result<Reloaded, ReloadError> {
        let (source, started) = self.reloading().source.get().ok_or(ReloadError::NoSource)?;
        let config = source().map_err(ReloadError::Unusable)?;
        config.check()?;
        let is_open = |config: &Config| config.apps.iter().any(App::is_open);
        if is_open(&config) != is_open(started) {
            return Err(ReloadError::Openness);
        }
        let reloaded = Reloaded {
            apps: config.apps.iter().map(|app| app.id().to_string()).collect(),
            needs_restart: needs_restart(started, &config),
        };
        // What is recorded was decided at the start.
        let quic = Options { qlog: started.quic.qlog.clone(), key_log: started.quic.key_log, ..config.quic };
        self.set_apps(config.apps);
        self.set_settings(Settings { limits: config.limits, quic });
        Ok(reloaded)
    }
}

/// What is different and was looked at only once.
fn needs_restart(started: &Config, now: &Config) -> Vec<&'static str> {
    let pairs = [
        ("listen", started.listen != now.listen),
        ("host", started.host != now.host),
        ("threads", started.threads != now.threads),
        ("tls", started.tls != now.tls),
        ("http", started.http != now.http),
        (
            "webhooks",
            started.webhooks.as_ref().map(|hooks| hooks.url())
                != now.webhooks.as_ref().map(|hooks| hooks.url()),
        ),
        ("connections.drain_timeout_ms", started.drain_timeout != now.drain_timeout),
        ("connections.qlog", started.quic.qlog != now.quic.qlog),
        ("log", (started.log_format, &started.log_filter) != (now.log_format, &now.log_filter)),
    ];
    pairs.into_iter().filter(|(_, is_different)| *is_different).map(|(name, _)| name).collect()
}
