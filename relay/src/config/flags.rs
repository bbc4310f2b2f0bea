//! The command line, and the environment behind it. Flags win over environment, that over the file.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use parlor_transport::id::AppId;

use super::file::{File, FileError};
use super::http::{AdminToken, SecretError, WebhookError, Webhooks};
use super::{Config, ConfigError, Tls};
use crate::auth::App;
use crate::logging::LogFormat;
use crate::overload::Shed;

/// The Parlor relay: rooms of people who see and hear each other, over QUIC.
///
/// Try it:  parlor-relay --dev
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Task>,
    /// The settings.
    #[command(flatten)]
    pub flags: Flags,
    /// Print the annotated configuration file with all defaults, and exit.
    #[arg(long)]
    pub print_default_config: bool,
}

/// See [`Cli::command`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Subcommand)]
pub enum Task {
    /// Say whether the configuration will do, and exit.
    CheckConfig,
}

/// Settings given by flags or environment.
#[derive(Clone, Default, Debug, Args)]
pub struct Flags {
    /// Configuration file (TOML).
    #[arg(long, env = "PARLOR_CONFIG", global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Let anyone join any room of the app "dev".
    #[arg(long, env = "PARLOR_DEV", global = true)]
    dev: bool,
    /// Address and UDP port to listen on [default: 0.0.0.0:4433].
    #[arg(long, env = "PARLOR_LISTEN", global = true, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Host name in the addresses that are printed.
    #[arg(long, env = "PARLOR_HOST", global = true)]
    host: Option<String>,
    /// How many threads serve (0: one on a machine of up to two cores, otherwise one for each core).
    #[arg(long, env = "PARLOR_THREADS", global = true, value_name = "N")]
    threads: Option<usize>,
    /// PEM file with the certificate chain.
    #[arg(long, env = "PARLOR_CERTIFICATE", global = true, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// PEM file with the private key.
    #[arg(long, env = "PARLOR_KEY", global = true, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Where a self-signed certificate is kept, if none is given.
    #[arg(
        long,
        env = "PARLOR_TLS_DIRECTORY",
        global = true,
        value_name = "DIR",
        conflicts_with = "certificate"
    )]
    tls_directory: Option<PathBuf>,
    /// Connections at once.
    #[arg(long, env = "PARLOR_CONNECTIONS_MAX", global = true, value_name = "N")]
    connections_max: Option<usize>,
    /// Connections at once from one address (IPv6: one /64 network).
    #[arg(long, env = "PARLOR_CONNECTIONS_PER_ADDRESS_MAX", global = true, value_name = "N")]
    connections_per_address_max: Option<usize>,
    /// Handshakes under way at once.
    #[arg(long, env = "PARLOR_HANDSHAKES_MAX", global = true, value_name = "N")]
    handshakes_max: Option<usize>,
    /// Handshakes under way at once from one address that was proved.
    #[arg(long, env = "PARLOR_HANDSHAKES_PER_ADDRESS_MAX", global = true, value_name = "N")]
    handshakes_per_address_max: Option<usize>,
    /// Handshakes under way at once of clients who need not prove their address.
    #[arg(long, env = "PARLOR_HANDSHAKES_UNPROVEN_MAX", global = true, value_name = "N")]
    handshakes_unproven_max: Option<usize>,
    /// Handshakes a second of clients who need not prove their address.
    #[arg(long, env = "PARLOR_HANDSHAKES_UNPROVEN_PER_SECOND_MAX", global = true, value_name = "N")]
    handshakes_unproven_per_second_max: Option<u32>,
    /// Handshakes a second of clients who proved their address.
    #[arg(long, env = "PARLOR_HANDSHAKES_PER_SECOND_MAX", global = true, value_name = "N")]
    handshakes_per_second_max: Option<u32>,
    /// Of those, from one address.
    #[arg(long, env = "PARLOR_HANDSHAKES_PER_ADDRESS_PER_SECOND_MAX", global = true, value_name = "N")]
    handshakes_per_address_per_second_max: Option<u32>,
    /// UDP packets a second that one connection may send.
    #[arg(long, env = "PARLOR_PACKETS_PER_SECOND_MAX", global = true, value_name = "N")]
    packets_per_second_max: Option<u32>,
    /// Rooms at once.
    #[arg(long, env = "PARLOR_ROOMS_MAX", global = true, value_name = "N")]
    rooms_max: Option<usize>,
    /// Users in one room.
    #[arg(long, env = "PARLOR_USERS_PER_ROOM_MAX", global = true, value_name = "N")]
    users_per_room_max: Option<usize>,
    /// Streams one user publishes at once.
    #[arg(long, env = "PARLOR_PUBLISH_MAX", global = true, value_name = "N")]
    publish_max: Option<u32>,
    /// Bytes of frames a second that one user publishes on and on.
    #[arg(long, env = "PARLOR_PUBLISH_BYTES_PER_SECOND_MAX", global = true, value_name = "BYTES")]
    publish_bytes_per_second_max: Option<u32>,
    /// Bytes of frames that one user publishes at once.
    #[arg(long, env = "PARLOR_PUBLISH_BYTES_BURST_MAX", global = true, value_name = "BYTES")]
    publish_bytes_burst_max: Option<u32>,
    /// Streams one user plays at once.
    #[arg(long, env = "PARLOR_PLAY_MAX", global = true, value_name = "N")]
    play_max: Option<u32>,
    /// How many of the loudest voices a large room hears, beside whoever spoke last (0: all).
    #[arg(long, env = "PARLOR_LOUDEST_VOICES", global = true, value_name = "N")]
    loudest_voices: Option<usize>,
    /// With more tracks of sound than this a room is large.
    #[arg(long, env = "PARLOR_LOUDEST_VOICES_ABOVE", global = true, value_name = "N")]
    loudest_voices_above: Option<usize>,
    /// Requests that a client makes at once.
    #[arg(long, env = "PARLOR_REQUESTS_BURST_MAX", global = true, value_name = "N")]
    requests_burst_max: Option<u32>,
    /// Requests that a client makes a second on and on.
    #[arg(long, env = "PARLOR_REQUESTS_PER_SECOND_MAX", global = true, value_name = "N")]
    requests_per_second_max: Option<u32>,
    /// Bytes of one app message (at most 16384).
    #[arg(long, env = "PARLOR_MESSAGE_BYTES_MAX", global = true, value_name = "BYTES")]
    message_bytes_max: Option<usize>,
    /// What app messages of one user cost at once.
    #[arg(long, env = "PARLOR_MESSAGE_BURST_MAX", global = true, value_name = "N")]
    message_burst_max: Option<u32>,
    /// What app messages of one user cost a second on and on.
    #[arg(long, env = "PARLOR_MESSAGE_COST_PER_SECOND_MAX", global = true, value_name = "N")]
    message_cost_per_second_max: Option<u32>,
    /// Bytes of frames kept for each track and layer, for late joiners.
    #[arg(long, env = "PARLOR_CACHE_BYTES_MAX", global = true, value_name = "BYTES")]
    cache_bytes_max: Option<usize>,
    /// Age of the oldest frame kept for them.
    #[arg(long, env = "PARLOR_CACHE_AGE_MAX_MS", global = true, value_name = "MS")]
    cache_age_max_ms: Option<u64>,
    /// Least time between two keyframes asked of one publisher.
    #[arg(long, env = "PARLOR_KEYFRAME_INTERVAL_MIN_MS", global = true, value_name = "MS")]
    keyframe_interval_min_ms: Option<u64>,
    /// Frames of sound wait so long to share a packet with others, for a client that plays several streams; 0 to 20.
    #[arg(long, env = "PARLOR_VOICE_WINDOW_MS", global = true, value_name = "MS")]
    voice_window_ms: Option<u64>,
    /// A user is told so long before their token expires.
    #[arg(long, env = "PARLOR_TOKEN_NOTICE_MS", global = true, value_name = "MS")]
    token_notice_ms: Option<u64>,
    /// A user whose token has expired may stay for so long.
    #[arg(long, env = "PARLOR_TOKEN_GRACE_MS", global = true, value_name = "MS")]
    token_grace_ms: Option<u64>,
    /// A connection on which nothing was heard for this long is gone.
    #[arg(long, env = "PARLOR_IDLE_TIMEOUT_MS", global = true, value_name = "MS")]
    idle_timeout_ms: Option<u64>,
    /// How long a handshake may take.
    #[arg(long, env = "PARLOR_HANDSHAKE_TIMEOUT_MS", global = true, value_name = "MS")]
    handshake_timeout_ms: Option<u64>,
    /// A session whose connection is gone is kept this long for its client to come back.
    #[arg(long, env = "PARLOR_SESSION_GRACE_MS", global = true, value_name = "MS")]
    session_grace_ms: Option<u64>,
    /// Who is sent frames and takes none for so long is sent away (0: never).
    #[arg(long, env = "PARLOR_SLOW_SUBSCRIBER_TIMEOUT_MS", global = true, value_name = "MS")]
    slow_subscriber_timeout_ms: Option<u64>,
    /// How often a silent connection is kept alive.
    #[arg(long, env = "PARLOR_KEEP_ALIVE_MS", global = true, value_name = "MS")]
    keep_alive_ms: Option<u64>,
    /// Frames that a client may have under way at once on QUIC streams.
    #[arg(long, env = "PARLOR_FRAMES_IN_FLIGHT_MAX", global = true, value_name = "N")]
    frames_in_flight_max: Option<u32>,
    /// Write a qlog file for every connection into this directory.
    #[arg(long, env = "PARLOR_QLOG", global = true, value_name = "DIR")]
    qlog: Option<PathBuf>,
    /// How long a relay that was asked to end waits for its users to go elsewhere [default: 10000].
    #[arg(long, env = "PARLOR_DRAIN_TIMEOUT_MS", global = true, value_name = "MS")]
    drain_timeout_ms: Option<u64>,
    /// Leave out what this level of overload says (0: nothing, to 4: all video), whatever is measured; for drills.
    #[arg(
        long,
        env = "PARLOR_OVERLOAD_LEVEL",
        global = true,
        value_name = "LEVEL",
        value_parser = clap::value_parser!(u8).range(0..=4)
    )]
    overload_level: Option<u8>,
    /// Address and TCP port of health, metrics and the admin API [default: 127.0.0.1:4480].
    #[arg(long, env = "PARLOR_HTTP", global = true, value_name = "ADDRESS:PORT")]
    http: Option<SocketAddr>,
    /// No HTTP at all.
    #[arg(long, env = "PARLOR_NO_HTTP", global = true, conflicts_with = "http")]
    no_http: bool,
    /// File with the token that administrators show (or PARLOR_ADMIN_TOKEN: the token itself).
    #[arg(long, env = "PARLOR_ADMIN_TOKEN_FILE", global = true, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Where it is posted who and what comes and goes.
    #[arg(long, env = "PARLOR_WEBHOOK_URL", global = true, value_name = "URL")]
    webhook_url: Option<String>,
    /// File with the secret that these posts are signed with.
    #[arg(long, env = "PARLOR_WEBHOOK_SECRET_FILE", global = true, value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
    /// How log lines look [default: text].
    #[arg(long, env = "PARLOR_LOG_FORMAT", global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Which log lines are written: info, debug, "info,parlor_relay=trace" … [default: info].
    #[arg(long, env = "PARLOR_LOG", global = true, value_name = "FILTER")]
    log: Option<String>,
}

/// Settings that will not do.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The admin token.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The webhooks.
    #[error(transparent)]
    Webhooks(#[from] WebhookError),
    /// The whole.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Flags {
    /// The configuration: defaults, then the file, then environment and flags.
    ///
    /// # Errors
    /// [`SettingsError`], which names what is wrong.
    pub fn into_config(self) -> Result<Config, SettingsError> {
        let mut config = Config {
            tls: Tls::Development(data_directory(|name| env::var_os(name).map(PathBuf::from))),
            ..Config::default()
        };
        config.quic.key_log = env::var_os("SSLKEYLOGFILE").is_some();
        let mut admin_token_file = self.admin_token_file.clone();
        let admin_token = env::var("PARLOR_ADMIN_TOKEN").ok().filter(|_| admin_token_file.is_none());
        let (mut url, mut secret_file) = (self.webhook_url.clone(), self.webhook_secret_file.clone());
        if let Some(path) = &self.config {
            let file = File::read(path)?;
            let (said_url, said_secret) = file.webhooks();
            url = url.or_else(|| said_url.map(str::to_owned));
            secret_file = secret_file.or_else(|| said_secret.map(Path::to_owned));
            let apps = file.load_apps(path)?;
            admin_token_file = admin_token_file.or_else(|| file.admin_token_file().map(Path::to_owned));
            file.apply(&mut config);
            config.apps.extend(apps);
        }
        self.apply(&mut config);
        config.admin_token = match (admin_token, admin_token_file) {
            (Some(token), _) => Some(AdminToken::new(&token)?),
            (None, Some(path)) => Some(AdminToken::from_file(&path)?),
            (None, None) => None,
        };
        config.webhooks = match (url, secret_file) {
            (Some(url), Some(secret)) => Some(Webhooks::from_file(&url, &secret)?),
            (Some(_), None) => return Err(WebhookError::Missing("secret_file").into()),
            (None, Some(_)) => return Err(WebhookError::Missing("url").into()),
            (None, None) => None,
        };
        config.check()?;
        Ok(config)
    }

    fn apply(self, config: &mut Config) {
        fn set<T>(slot: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *slot = value;
            }
        }
        // Beside apps with keys it is refused, in `Config::check`.
        if self.dev && !config.apps.iter().any(App::is_open) {
            config.apps.push(App::open(AppId::dev()));
        }
        set(&mut config.listen, self.listen);
        config.host = self.host.or(config.host.take());
        set(&mut config.threads, self.threads);
        set(&mut config.tls, self.tls_directory.map(Tls::Development));
        if let (Some(certificate), Some(key)) = (self.certificate, self.key) {
            config.tls = Tls::Files { certificate, key };
        }
        let limits = &mut config.limits;
        set(&mut limits.connections_max, self.connections_max);
        set(&mut limits.connections_per_address_max, self.connections_per_address_max);
        set(&mut limits.handshakes_max, self.handshakes_max);
        set(&mut limits.handshakes_per_address_max, self.handshakes_per_address_max);
        set(&mut limits.handshakes_unproven_max, self.handshakes_unproven_max);
        set(&mut limits.handshakes_unproven_per_second_max, self.handshakes_unproven_per_second_max);
        set(&mut limits.handshakes_per_second_max, self.handshakes_per_second_max);
        set(&mut limits.handshakes_per_address_per_second_max, self.handshakes_per_address_per_second_max);
        set(&mut limits.packets_per_second_max, self.packets_per_second_max);
        set(&mut limits.publish_bytes_per_second_max, self.publish_bytes_per_second_max);
        set(&mut limits.publish_bytes_burst_max, self.publish_bytes_burst_max);
        set(&mut limits.requests_burst_max, self.requests_burst_max);
        set(&mut limits.requests_per_second_max, self.requests_per_second_max);
        set(&mut limits.message_bytes_max, self.message_bytes_max);
        set(&mut limits.message_burst_max, self.message_burst_max);
        set(&mut limits.message_cost_per_second_max, self.message_cost_per_second_max);
        set(&mut limits.handshake_timeout, self.handshake_timeout_ms.map(Duration::from_millis));
        set(&mut limits.rooms_max, self.rooms_max);
        set(&mut limits.users_per_room_max, self.users_per_room_max);
        set(&mut limits.publish_max, self.publish_max);
        set(&mut limits.play_max, self.play_max);
        set(&mut limits.loudest_voices, self.loudest_voices);
        set(&mut limits.loudest_voices_above, self.loudest_voices_above);
        set(&mut limits.session_grace, self.session_grace_ms.map(Duration::from_millis));
        let slow = self.slow_subscriber_timeout_ms;
        set(&mut limits.slow_subscriber_timeout, slow.map(Duration::from_millis));
        set(&mut limits.cache_bytes_max, self.cache_bytes_max);
        set(&mut limits.cache_age_max, self.cache_age_max_ms.map(Duration::from_millis));
        set(&mut limits.keyframe_interval_min, self.keyframe_interval_min_ms.map(Duration::from_millis));
        set(&mut limits.voice_window, self.voice_window_ms.map(Duration::from_millis));
        set(&mut limits.token_notice, self.token_notice_ms.map(Duration::from_millis));
        set(&mut limits.token_grace, self.token_grace_ms.map(Duration::from_millis));
        config.overload = self.overload_level.and_then(Shed::from_level).or(config.overload);
        set(&mut config.drain_timeout, self.drain_timeout_ms.map(Duration::from_millis));
        set(&mut config.http, self.http.map(Some));
        if self.no_http {
            config.http = None;
        }
        set(&mut config.quic.idle_timeout, self.idle_timeout_ms.map(Duration::from_millis));
        set(&mut config.quic.keep_alive, self.keep_alive_ms.map(Duration::from_millis));
        set(&mut config.quic.frames_in_flight_max, self.frames_in_flight_max);
        config.quic.qlog = self.qlog.or(config.quic.qlog.take());
        set(&mut config.log_format, self.log_format);
        set(&mut config.log_filter, self.log);
    }
}

/// Where a user's programs keep data, by the XDG convention.
fn data_directory(variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    data.or_else(|| variable("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_default()
        .join("parlor-relay")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;
    use parlor_transport::token::keys::VerifyingKey;

    fn config(arguments: &[&str], file: &str) -> Config {
        let cli = Cli::try_parse_from([&["parlor-relay"], arguments].concat()).unwrap();
        let mut config = Config::default();
        File::parse(file, Path::new("f")).unwrap().apply(&mut config);
        cli.flags.apply(&mut config);
        config
    }

    #[test]
    fn the_command_line_is_sound_and_every_flag_has_its_variable() {
        Cli::command().debug_assert();
        for argument in Cli::command().get_arguments().filter(|a| a.get_id() != "print_default_config") {
            let name = argument.get_id().as_str().to_uppercase();
            assert_eq!(argument.get_env().unwrap(), format!("PARLOR_{name}").as_str());
        }
    }

    /// The keys that a table of the file may have, as the refusal of an unknown one lists them.
    fn keys(table: &str) -> Vec<String> {
        let error =
            File::parse(&format!("{table}\nno-such-key = 1\n"), Path::new("f")).unwrap_err().to_string();
        let (_, list) = error.split_once(", expected ").unwrap();
        list.split('`').skip(1).step_by(2).take_while(|key| !key.contains('-')).map(str::to_owned).collect()
    }

    #[test]
    fn every_key_of_the_file_has_a_flag_that_does_the_same() {
        let command = Cli::command();
        let mut seen = 0;
        let tables = ["tls", "limits", "tokens", "connections", "http", "webhooks", "log"];
        // Apps are lists of keys: in the file alone.
        let is_plain = |key: &String| !tables.contains(&key.as_str()) && key != "apps";
        let all = keys("").into_iter().filter(is_plain).map(|key| ("", key));
        let all = all.chain(
            tables
                .into_iter()
                .flat_map(|table| keys(&format!("[{table}]")).into_iter().map(move |key| (table, key))),
        );
        for (table, key) in all {
            let flag = match (table, key.as_str()) {
                ("tls", "directory") => "tls_directory",
                ("tokens", "notice_ms") => "token_notice_ms",
                ("tokens", "grace_ms") => "token_grace_ms",
                ("webhooks", "url") => "webhook_url",
                ("webhooks", "secret_file") => "webhook_secret_file",
                ("http", "listen") => "http",
                ("http", "enabled") => "no_http",
                ("log", "format") => "log_format",
                ("log", "filter") => "log",
                (_, same) => same,
            };
            let argument = command.get_arguments().find(|argument| argument.get_id() == flag);
            let argument = argument.unwrap_or_else(|| panic!("[{table}] {key} has no flag --{flag}"));
            seen += 1;
            if !matches!(table, "limits" | "connections" | "tokens") || key == "qlog" {
                continue;
            }
            let value = "7654321";
            let given = config(&[&format!("--{}", argument.get_long().unwrap()), value], "");
            let written = config(&[], &format!("[{table}]\n{key} = {value}\n"));
            assert_eq!(given.limits, written.limits, "{key}");
            assert_ne!(format!("{given:?}"), format!("{:?}", Config::default()), "{key} does something");
            assert_eq!(format!("{given:?}"), format!("{written:?}"), "{key}");
        }
        assert_eq!(seen, 50, "the whole file was looked at");
    }

    #[test]
    fn flags_win_over_the_file_and_leave_the_rest_of_it() {
        let file = "listen = '127.0.0.1:1'\nhost = 'a'\n[limits]\nplay_max = 3\n[tls]\ndirectory = 'd'\n";
        let config = config(&["--listen", "127.0.0.1:2", "--dev"], file);
        assert_eq!(config.listen.port(), 2);
        assert_eq!((config.host.as_deref(), config.limits.play_max), (Some("a"), 3));
        assert_eq!(config.tls, Tls::Development("d".into()));
        assert!(config.apps.len() == 1 && config.apps[0].is_open());
    }

    #[test]
    fn a_certificate_needs_its_key() {
        assert!(Cli::try_parse_from(["parlor-relay", "--certificate", "c.pem"]).is_err());
        let config = config(&["--certificate", "c.pem", "--key", "k.pem"], "");
        assert_eq!(config.tls, Tls::Files { certificate: "c.pem".into(), key: "k.pem".into() });
    }

    #[test]
    fn what_cannot_work_is_said_with_the_way_out() {
        let text = |change: fn(&mut Config)| {
            let mut config = Config::dev();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(text(|config| config.apps.clear()).contains("`parlor app create NAME`"));
        let key = || VerifyingKey::from_secret("a secret of more than thirty-two bytes").unwrap();
        let shop = move || App::with_keys(AppId::new("shop").unwrap(), vec![key()]).unwrap();
        let mut config = Config { apps: vec![shop()], ..Config::default() };
        assert_eq!(config.check(), Ok(()));
        config.apps.push(shop());
        assert!(config.check().unwrap_err().to_string().contains("\"shop\" is configured twice"));
        config.apps[1] = App::open(AppId::dev());
        assert!(config.check().unwrap_err().to_string().contains("take out --dev"));
        assert_eq!(
            text(|config| config.quic.idle_timeout = Duration::from_millis(100)),
            "idle_timeout_ms is 100 ms, but must be at least 3000 ms; \
             change it in the file, the environment or the flags"
        );
        assert!(text(|config| config.limits.cache_bytes_max = 1).contains("at least 1048576 bytes"));
        assert!(text(|config| config.limits.rooms_max = 0).contains("limits.rooms_max is 0"));
        assert!(Config::dev().check().is_ok());
    }

    #[test]
    fn data_is_kept_where_the_user_keeps_it() {
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/ann"));
        assert_eq!(data_directory(home), Path::new("/home/ann/.local/share/parlor-relay"));
        let xdg = |name: &str| (name == "XDG_DATA_HOME").then(|| PathBuf::from("/data"));
        assert_eq!(data_directory(xdg), Path::new("/data/parlor-relay"));
        assert_eq!(data_directory(|_| None), Path::new("parlor-relay"));
    }
}
