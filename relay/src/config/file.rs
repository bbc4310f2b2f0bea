//! The configuration file: TOML, every key optional, unknown keys refused. `parlor-relay.toml` beside
//! this crate explains each of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use parlor_transport::id::AppId;
use serde::Deserialize;

use super::apps::AppSection;
use super::{Config, Tls};
use crate::auth::App;
use crate::logging::LogFormat;

/// The annotated file with all defaults, as `parlor-relay --print-default-config` prints it.
pub const DEFAULT: &str = include_str!("../../parlor-relay.toml");

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}; name another file with --config, or none for the defaults", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line in it is wrong.
    #[error("{}:{line}: {key}{why}; `parlor-relay --print-default-config` shows what may stand there", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What stands there, with a colon; empty if the line has no key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// An app in it cannot be used.
    #[error("{}: {why}", path.display())]
    App {
        /// The file.
        path: PathBuf,
        /// Which app, and what is wrong with it.
        why: String,
    },
}

/// What a file may say. What it does not say stays as it is.
#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    dev: Option<bool>,
    listen: Option<SocketAddr>,
    host: Option<String>,
    threads: Option<usize>,
    #[serde(default)]
    apps: Vec<AppSection>,
    #[serde(default)]
    tokens: Tokens,
    #[serde(default)]
    tls: TlsSection,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    connections: Connections,
    #[serde(default)]
    http: Http,
    #[serde(default)]
    webhooks: WebhookSection,
    #[serde(default)]
    log: Log,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    directory: Option<PathBuf>,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    connections_max: Option<usize>,
    connections_per_address_max: Option<usize>,
    handshakes_max: Option<usize>,
    handshakes_per_address_max: Option<usize>,
    handshakes_unproven_max: Option<usize>,
    handshakes_unproven_per_second_max: Option<u32>,
    handshakes_per_second_max: Option<u32>,
    handshakes_per_address_per_second_max: Option<u32>,
    packets_per_second_max: Option<u32>,
    rooms_max: Option<usize>,
    users_per_room_max: Option<usize>,
    publish_max: Option<u32>,
    publish_bytes_per_second_max: Option<u32>,
    publish_bytes_burst_max: Option<u32>,
    play_max: Option<u32>,
    loudest_voices: Option<usize>,
    loudest_voices_above: Option<usize>,
    requests_burst_max: Option<u32>,
    requests_per_second_max: Option<u32>,
    message_bytes_max: Option<usize>,
    message_burst_max: Option<u32>,
    message_cost_per_second_max: Option<u32>,
    cache_bytes_max: Option<usize>,
    cache_age_max_ms: Option<u64>,
    keyframe_interval_min_ms: Option<u64>,
    voice_window_ms: Option<u64>,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    notice_ms: Option<u64>,
    grace_ms: Option<u64>,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Connections {
    idle_timeout_ms: Option<u64>,
    handshake_timeout_ms: Option<u64>,
    session_grace_ms: Option<u64>,
    slow_subscriber_timeout_ms: Option<u64>,
    keep_alive_ms: Option<u64>,
    frames_in_flight_max: Option<u32>,
    qlog: Option<PathBuf>,
    drain_timeout_ms: Option<u64>,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    enabled: Option<bool>,
    listen: Option<SocketAddr>,
    admin_token_file: Option<PathBuf>,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookSection {
    url: Option<String>,
    secret_file: Option<PathBuf>,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    format: Option<LogFormat>,
    filter: Option<String>,
}

impl File {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`FileError`] with file, line and key.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text =
            fs::read_to_string(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads a file's text; `path` is for the errors.
    ///
    /// # Errors
    /// [`FileError::Wrong`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.get(..start).map_or(0, |before| before.matches('\n').count());
            let key = text.lines().nth(line).and_then(|line| line.split_once('='));
            FileError::Wrong {
                path: path.to_owned(),
                line: line + 1,
                key: key.map_or_else(String::new, |(key, _)| format!("{}: ", key.trim())),
                why: error.message().trim_end().replace('\n', ", "),
            }
        })
    }

    /// The apps in it, with their keys from wherever they are; `path` is for the errors.
    ///
    /// # Errors
    /// [`FileError::App`].
    pub fn load_apps(&self, path: &Path) -> Result<Vec<App>, FileError> {
        let load = |app: &AppSection| app.load().map_err(|why| FileError::App { path: path.to_owned(), why });
        self.apps.iter().map(load).collect()
    }

    /// Where the admin token is, if the file says it.
    pub fn admin_token_file(&self) -> Option<&Path> {
        self.http.admin_token_file.as_deref()
    }

    /// Where webhooks go and their secret is, as far as the file says it.
    pub fn webhooks(&self) -> (Option<&str>, Option<&Path>) {
        (self.webhooks.url.as_deref(), self.webhooks.secret_file.as_deref())
    }

    /// Changes `config` where the file says something, except for what stands in other files: see
    /// [`File::load_apps`], [`File::admin_token_file`] and [`File::webhooks`].
    pub fn apply(self, config: &mut Config) {
        let File {
            dev,
            listen,
            host,
            threads,
            apps: _,
            tokens,
            tls,
            limits,
            connections,
            http,
            webhooks: _,
            log,
        } = self;
        match dev {
            Some(true) => config.apps = vec![App::open(AppId::dev())],
            Some(false) => config.apps.clear(),
            None => {}
        }
        set(&mut config.listen, listen);
        config.host = host.or(config.host.take());
        set(&mut config.threads, threads);
        tls.apply(&mut config.tls);

        let bounds = &mut config.limits;
        set(&mut bounds.connections_max, limits.connections_max);
        set(&mut bounds.connections_per_address_max, limits.connections_per_address_max);
        set(&mut bounds.handshakes_max, limits.handshakes_max);
        set(&mut bounds.handshakes_per_address_max, limits.handshakes_per_address_max);
        set(&mut bounds.handshakes_unproven_max, limits.handshakes_unproven_max);
        set(&mut bounds.handshakes_unproven_per_second_max, limits.handshakes_unproven_per_second_max);
        set(&mut bounds.handshakes_per_second_max, limits.handshakes_per_second_max);
        set(&mut bounds.handshakes_per_address_per_second_max, limits.handshakes_per_address_per_second_max);
        set(&mut bounds.packets_per_second_max, limits.packets_per_second_max);
        set(&mut bounds.publish_bytes_per_second_max, limits.publish_bytes_per_second_max);
        set(&mut bounds.publish_bytes_burst_max, limits.publish_bytes_burst_max);
        set(&mut bounds.requests_burst_max, limits.requests_burst_max);
        set(&mut bounds.requests_per_second_max, limits.requests_per_second_max);
        set(&mut bounds.message_bytes_max, limits.message_bytes_max);
        set(&mut bounds.message_burst_max, limits.message_burst_max);
        set(&mut bounds.message_cost_per_second_max, limits.message_cost_per_second_max);
        set(&mut bounds.rooms_max, limits.rooms_max);
        set(&mut bounds.users_per_room_max, limits.users_per_room_max);
        set(&mut bounds.publish_max, limits.publish_max);
        set(&mut bounds.play_max, limits.play_max);
        set(&mut bounds.loudest_voices, limits.loudest_voices);
        set(&mut bounds.loudest_voices_above, limits.loudest_voices_above);
        set(&mut bounds.cache_bytes_max, limits.cache_bytes_max);
        set(&mut bounds.cache_age_max, limits.cache_age_max_ms.map(Duration::from_millis));
        set(&mut bounds.keyframe_interval_min, limits.keyframe_interval_min_ms.map(Duration::from_millis));
        set(&mut bounds.voice_window, limits.voice_window_ms.map(Duration::from_millis));

        set(&mut bounds.token_notice, tokens.notice_ms.map(Duration::from_millis));
        set(&mut bounds.token_grace, tokens.grace_ms.map(Duration::from_millis));

        set(&mut bounds.handshake_timeout, connections.handshake_timeout_ms.map(Duration::from_millis));
        set(&mut bounds.session_grace, connections.session_grace_ms.map(Duration::from_millis));
        let slow = connections.slow_subscriber_timeout_ms;
        set(&mut bounds.slow_subscriber_timeout, slow.map(Duration::from_millis));

        let quic = &mut config.quic;
        set(&mut quic.idle_timeout, connections.idle_timeout_ms.map(Duration::from_millis));
        set(&mut quic.keep_alive, connections.keep_alive_ms.map(Duration::from_millis));
        set(&mut quic.frames_in_flight_max, connections.frames_in_flight_max);
        quic.qlog = connections.qlog.or(quic.qlog.take());

        set(&mut config.drain_timeout, connections.drain_timeout_ms.map(Duration::from_millis));
        set(&mut config.http, http.listen.map(Some));
        if http.enabled == Some(false) {
            config.http = None;
        }

        set(&mut config.log_format, log.format);
        set(&mut config.log_filter, log.filter);
    }
}

impl TlsSection {
    fn apply(self, tls: &mut Tls) {
        match (self.certificate, self.key, self.directory) {
            // One without the other is found out when the files are read.
            (None, None, None) => {}
            (None, None, Some(directory)) => *tls = Tls::Development(directory),
            (certificate, key, _) => {
                *tls =
                    Tls::Files { certificate: certificate.unwrap_or_default(), key: key.unwrap_or_default() };
            }
        }
    }
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let mut config = Config::default();
        File::parse(text, Path::new("relay.toml")).map_err(|error| error.to_string())?.apply(&mut config);
        Ok(config)
    }

    #[test]
    fn the_annotated_file_says_the_defaults_and_every_key() {
        let said = parse(DEFAULT).unwrap();
        let default = Config::default();
        assert_eq!(said.listen, default.listen);
        assert_eq!(said.limits, default.limits);
        assert!(said.apps.is_empty() && default.apps.is_empty());
        assert_eq!((said.tls, said.host, said.threads), (default.tls, default.host, default.threads));
        assert_eq!(said.quic.idle_timeout, default.quic.idle_timeout);
        assert_eq!(said.quic.keep_alive, default.quic.keep_alive);
        assert_eq!(said.quic.frames_in_flight_max, default.quic.frames_in_flight_max);
        assert_eq!((said.http, said.drain_timeout), (default.http, default.drain_timeout));
        assert_eq!((said.log_format, said.log_filter), (default.log_format, default.log_filter));

        // What is commented out in it is valid too.
        let all: String = DEFAULT
            .lines()
            .map(|line| {
                line.strip_prefix("# ")
                    .filter(|rest| rest.contains(" = ") || rest.starts_with("[["))
                    .unwrap_or(line)
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        let all = parse(&all).unwrap();
        assert!(matches!(all.tls, Tls::Files { .. }));
        assert!(all.host.is_some() && all.quic.qlog.is_some());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_key() {
        for (text, expected) in [
            ("dev = true\nlisten = \"nowhere\"\n", "relay.toml:2: listen: invalid socket address"),
            ("[limits]\nusers = 5\n", "relay.toml:2: users: unknown field `users`, expected one of"),
            ("[limits]\npublish_max = -1\n", "relay.toml:2: publish_max: invalid value"),
            (
                "[log]\nformat = \"xml\"\n",
                "relay.toml:2: format: unknown variant `xml`, expected `text` or `json`",
            ),
            ("dev = \n", "relay.toml:1: dev: "),
            ("[[apps]]\nname = \"shop\"\nkey = []\n", "relay.toml:3: key: unknown field `key`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            assert!(error.ends_with("`parlor-relay --print-default-config` shows what may stand there"));
        }
    }
}
