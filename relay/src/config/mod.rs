//! What a relay is told before it starts: a value that programs fill in themselves, and that the
//! `parlor-relay` command reads from flags, environment and file (`flags`, `file`).

mod apps;
pub mod file;
pub mod flags;
pub mod http;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use parlor_transport::address::PORT_DEFAULT;
use parlor_transport::id::AppId;
use parlor_transport::quic::Options;
use parlor_transport::wire::control::APP_MESSAGE_MAX;
use parlor_transport::wire::frame::OBJECT_MAX;

use crate::auth::App;
use crate::limits::{CACHE_BYTES_LEAST, DRAIN_DEFAULT, Limits, TOKEN_CHECK_COST, VOICE_WINDOW_MOST};
use crate::logging::LogFormat;
use crate::overload::Shed;
use http::{AdminToken, HTTP_DEFAULT, Webhooks};

/// Everything a relay has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen (UDP). Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The host in addresses to paste; without one, the address listened on.
    pub host: Option<String>,
    /// How many threads serve; 0 for what the machine suggests, see [`threads`](Self::threads).
    pub threads: usize,
    /// Where certificate and key come from.
    pub tls: Tls,
    /// The apps that exist, each with its keys; or one that is open.
    pub apps: Vec<App>,
    /// The bounds.
    pub limits: Limits,
    /// How connections are watched over, and what is recorded of them.
    pub quic: Options,
    /// Where health, metrics and the admin API are (TCP); `None` for nowhere. A relay in a simulation has none.
    pub http: Option<SocketAddr>,
    /// What administrators show; without it nobody administers over HTTP.
    pub admin_token: Option<AdminToken>,
    /// Where it is told who and what comes and goes; not by a relay in a simulation.
    pub webhooks: Option<Webhooks>,
    /// How long a relay that was asked to end waits for its users to go elsewhere.
    pub drain_timeout: Duration,
    /// What is left out as if the machine were too slow, whatever is measured; `None`: what is measured.
    pub overload: Option<Shed>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written, in the words of `tracing`: `info`, `parlor_relay=debug`, …
    pub log_filter: String,
}

/// Where a relay's certificate and key come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tls {
    /// PEM files, read again when they change.
    Files {
        /// The certificate chain, the relay's own first.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// A self-signed certificate kept in this directory, made on first use; clients pin it.
    Development(PathBuf),
    /// A self-signed certificate that lives as long as the relay; clients pin it.
    Ephemeral,
}

/// A configuration that cannot work.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// No app is configured.
    #[error(
        "no app is configured, so nobody could join; make one with `parlor app create NAME` and put it into the \
         configuration file, or start with --dev to let anyone join the app \"dev\""
    )]
    NoApp,
    /// An app that anyone may join beside apps that ask for tokens.
    #[error(
        "app {open:?} is open to anyone and app {other:?} asks for tokens; take out --dev (dev, PARLOR_DEV) or the \
         apps: a relay has the one or the other"
    )]
    OpenBesideKeys {
        /// The open one.
        open: AppId,
        /// One of the others.
        other: AppId,
    },
    /// One name for two apps.
    #[error("app {0:?} is configured twice; put its keys into one list")]
    AppTwice(AppId),
    /// A number outside its range.
    #[error("{key} is {value}, but must be {range}; change it in the file, the environment or the flags")]
    OutOfRange {
        /// The setting, as it is called in the file.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        range: String,
    },
}

impl Config {
    /// For development, tests and demonstrations: the app `dev` that anyone may join, on a free port
    /// of 127.0.0.1, with a certificate that lives as long as the relay, and without HTTP.
    pub fn dev() -> Self {
        Config {
            listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            tls: Tls::Ephemeral,
            http: None,
            apps: vec![App::open(AppId::dev())],
            ..Config::default()
        }
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.apps.is_empty() {
            return Err(ConfigError::NoApp);
        }
        let find = |open| self.apps.iter().find(|app| app.is_open() == open).map(|app| app.id().clone());
        if let (Some(open), Some(other)) = (find(true), find(false)) {
            return Err(ConfigError::OpenBesideKeys { open, other });
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = self.apps.iter().find(|app| !names.insert(app.id())) {
            return Err(ConfigError::AppTwice(twice.id().clone()));
        }
        let limits = &self.limits;
        let at_least = |key, value: u128, least: u128, unit: &str| {
            let (value, range) = (format!("{value}{unit}"), format!("at least {least}{unit}"));
            Err(ConfigError::OutOfRange { key, value, range })
        };
        for (key, value) in [
            ("limits.connections_max", limits.connections_max),
            ("limits.connections_per_address_max", limits.connections_per_address_max),
            ("limits.handshakes_max", limits.handshakes_max),
            ("limits.handshakes_per_address_max", limits.handshakes_per_address_max),
            ("limits.handshakes_per_second_max", limits.handshakes_per_second_max as usize),
            (
                "limits.handshakes_per_address_per_second_max",
                limits.handshakes_per_address_per_second_max as usize,
            ),
            ("limits.requests_per_second_max", limits.requests_per_second_max as usize),
            ("limits.packets_per_second_max", limits.packets_per_second_max as usize),
            ("limits.rooms_max", limits.rooms_max),
            ("limits.users_per_room_max", limits.users_per_room_max),
        ] {
            if value == 0 {
                return at_least(key, 0, 1, "");
            }
        }
        if limits.voice_window > VOICE_WINDOW_MOST {
            let (value, most) = (limits.voice_window.as_millis(), VOICE_WINDOW_MOST.as_millis());
            return Err(ConfigError::OutOfRange {
                key: "limits.voice_window_ms",
                value: format!("{value} ms"),
                range: format!("at most {most} ms"),
            });
        }
        if limits.cache_bytes_max < CACHE_BYTES_LEAST {
            let (value, least) = (limits.cache_bytes_max as u128, CACHE_BYTES_LEAST as u128);
            return at_least("limits.cache_bytes_max", value, least, " bytes");
        }
        // A token that is looked at, and the requests around it, must fit.
        let least = 2 * TOKEN_CHECK_COST;
        if limits.requests_burst_max < least {
            return at_least("limits.requests_burst_max", limits.requests_burst_max.into(), least.into(), "");
        }
        // Otherwise the largest frame could never be published.
        if (limits.publish_bytes_burst_max as usize) < OBJECT_MAX {
            let (value, least) = (limits.publish_bytes_burst_max.into(), OBJECT_MAX as u128);
            return at_least("limits.publish_bytes_burst_max", value, least, " bytes");
        }
        if limits.message_bytes_max > APP_MESSAGE_MAX {
            let (value, range) =
                (format!("{} bytes", limits.message_bytes_max), format!("at most {APP_MESSAGE_MAX} bytes"));
            return Err(ConfigError::OutOfRange { key: "limits.message_bytes_max", value, range });
        }
        if limits.handshake_timeout.is_zero() {
            return at_least("handshake_timeout_ms", 0, 1, " ms");
        }
        let (idle, keep_alive) = (self.quic.idle_timeout, self.quic.keep_alive);
        if keep_alive.is_zero() {
            return at_least("keep_alive_ms", 0, 1, " ms");
        }
        // One lost keep-alive must not end a connection.
        if idle < 3 * keep_alive {
            return at_least("idle_timeout_ms", idle.as_millis(), 3 * keep_alive.as_millis(), " ms");
        }
        Ok(())
    }
}

impl Config {
    /// How many threads are to serve. Where nothing is configured, one on a machine of up to two cores: two would hand
    /// each other work that one of them does for less, and the kernel and the app's other programs use what is left.
    pub fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        match (self.threads, cores) {
            (0, 0..=2) => 1,
            (0, cores) => cores,
            (threads, _) => threads,
        }
    }
}

/// No app, the usual port on all addresses, HTTP on the loopback address, a development certificate in the working directory.
impl Default for Config {
    fn default() -> Self {
        Config {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT_DEFAULT),
            host: None,
            threads: 0,
            tls: Tls::Development(PathBuf::from("parlor-relay-tls")),
            apps: Vec::new(),
            limits: Limits::default(),
            quic: Options::default(),
            http: Some(HTTP_DEFAULT),
            admin_token: None,
            webhooks: None,
            drain_timeout: DRAIN_DEFAULT,
            overload: None,
            log_format: LogFormat::Text,
            log_filter: "info".to_owned(),
        }
    }
}
