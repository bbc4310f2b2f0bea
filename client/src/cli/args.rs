//! What can be said on the command line.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use parlor_client::{AppId, Scenario, StreamId, UserId};
use parlor_transport::token::claims::Pattern;
use parlor_transport::token::keys::{Algorithm, KeyId};

/// Calls between many people, over QUIC.
#[derive(Parser, Debug)]
#[command(name = "parlor", version = version(), arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log lines to standard error, as in `info` or `parlor_client=debug`
    #[arg(long, global = true, env = "PARLOR_LOG", default_value = "warn")]
    pub(crate) log: String,
}

/// Whether the H.264 codec has its assembler code, which nobody notices missing until pictures are late.
pub(crate) fn codec_build() -> &'static str {
    if parlor_media::video::assembler_build() {
        "OpenH264 with assembler"
    } else {
        "OpenH264 without assembler; install nasm and build again, it is about 2.5 times faster"
    }
}

fn version() -> &'static str {
    static VERSION: LazyLock<String> =
        LazyLock::new(|| format!("{} ({})", env!("CARGO_PKG_VERSION"), codec_build()));
    &VERSION
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Join a room, publish and play, until Ctrl-C
    Join(Join),
    /// Record a stream to an MP4 file, as it comes
    Record(Record),
    /// Show who and what is in a room
    Room(Room),
    /// Make an app and its keys for a relay's configuration
    #[command(subcommand)]
    App(App),
    /// Make a token for a user, or look into one
    #[command(subcommand)]
    Token(Token),
}

#[derive(Subcommand, Debug)]
pub(crate) enum App {
    /// Make a fresh key and print the app for the relay's configuration file (TOML)
    ///
    /// The key goes into files that only you can read: a secret (HS256), which relay and app's server share, or a key
    /// pair (EdDSA, ES256), of which the relay gets the public half. Run it again with another --kid to
    /// change keys: list both until no token of the old one is in use.
    #[command(after_help = "Example:  parlor app create shop --directory /etc/parlor >> relay.toml")]
    Create(AppCreate),
}

#[derive(Args, Debug)]
pub(crate) struct AppCreate {
    /// The app: 1 to 64 letters, digits, '-' and '_'
    pub(crate) name: AppId,
    /// How tokens are signed: HS256, EdDSA or ES256
    #[arg(long, default_value = "HS256", value_parser = Algorithm::from_str)]
    pub(crate) algorithm: Algorithm,
    /// The key's id, which its tokens bear
    #[arg(long, default_value = "1", value_parser = KeyId::from_str)]
    pub(crate) kid: KeyId,
    /// Where the files are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) directory: PathBuf,
    /// Write no file and put the secret into what is printed (HS256 only)
    #[arg(long)]
    pub(crate) print_secret: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Token {
    /// Print a token for a user
    ///
    /// What an app's server does for its users, by hand.
    #[command(
        after_help = "Example:  parlor token create --app shop --as ann --room 'sales-*' --stream 'ann-*' --secret-file shop-1.secret"
    )]
    Create(Box<TokenCreate>),
    /// Show what a token says and whether it counts now
    ///
    /// With a key it is verified, too, and the command fails if the key does not vouch for it.
    Inspect(TokenInspect),
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("key").required(true).args(["secret_file", "private_key"])))]
pub(crate) struct TokenCreate {
    /// The app
    #[arg(long)]
    pub(crate) app: AppId,
    /// The user it is for
    #[arg(long = "as", alias = "user", value_name = "USER")]
    pub(crate) user: UserId,
    /// The room, or a pattern with '*' for several
    #[arg(long, value_name = "PATTERN")]
    pub(crate) room: Pattern,
    /// The user may publish any stream
    #[arg(long)]
    pub(crate) publish: bool,
    /// The user may publish this stream, or those of a pattern with '*'; may be given several times
    #[arg(long = "stream", value_name = "PATTERN")]
    pub(crate) streams: Vec<Pattern>,
    /// The user may moderate
    #[arg(long)]
    pub(crate) moderate: bool,
    /// How long it lasts: 90s, 15m, 1h, 7d
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub(crate) expires: Duration,
    /// It counts only after this time from now on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) not_before: Option<Duration>,
    /// File with the secret to sign with (HS256)
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// PEM file with the private key to sign with (EdDSA, ES256)
    #[arg(long, value_name = "FILE")]
    pub(crate) private_key: Option<PathBuf>,
    /// The key's id, as the relay has it
    #[arg(long, value_parser = KeyId::from_str)]
    pub(crate) kid: Option<KeyId>,
}

#[derive(Args, Debug)]
pub(crate) struct TokenInspect {
    /// File with the token [default: standard input]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// File with the secret that it should be signed with
    #[arg(long, value_name = "FILE", conflicts_with = "public_key")]
    pub(crate) secret_file: Option<PathBuf>,
    /// PEM file with the public key that should vouch for it
    #[arg(long, value_name = "FILE")]
    pub(crate) public_key: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What all commands need to know.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// Where, as the relay prints it: parlor://host:port/room#sha256=…
    pub(crate) address: String,
    /// The user to join as, unique within the app [default: "parlor-" and the process id]
    #[arg(long = "as", value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The name that others read
    #[arg(long, default_value = "")]
    pub(crate) name: String,
    /// Another room than the address names
    #[arg(long)]
    pub(crate) room: Option<String>,
    /// The app
    #[arg(long, default_value = "dev")]
    pub(crate) app: String,
    /// File with the token that the app asks for; read again before it expires
    #[arg(long, env = "PARLOR_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// The token itself; other users of this machine can see it here, but not in the variable
    #[arg(long, env = "PARLOR_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<Hidden>,
    /// For how long to try to come back when the connection is lost, s; 0: not at all
    #[arg(long, value_name = "SECONDS", default_value_t = 1200)]
    pub(crate) reconnect: u64,
    /// Write a qlog file of the connection into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) qlog: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Join {
    #[command(flatten)]
    pub(crate) common: Common,
    /// What to publish: pattern, camera, or files: clip.mp4, pictures.y4m, sound.wav, clip.mp4+sound.wav
    #[arg(long, value_name = "SOURCE")]
    pub(crate) publish: Option<Source>,
    /// The stream to publish it as, unique within the app [default: the user's id and "-cam"]
    #[arg(long, value_name = "ID")]
    pub(crate) stream: Option<String>,
    /// What to play: all, none, or stream ids separated by commas
    #[arg(long, default_value = "all")]
    pub(crate) play: Wanted,
    /// Size and rate of what is published
    #[arg(long, value_enum, default_value_t = Quality::Standard)]
    pub(crate) quality: Quality,
    /// Play sound on this machine's speaker
    #[cfg(feature = "audio-devices")]
    #[arg(long)]
    pub(crate) speaker: bool,
    /// Leave after this long
    #[arg(long, value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
}

#[derive(Args, Debug)]
pub(crate) struct Record {
    #[command(flatten)]
    pub(crate) common: Common,
    /// The stream; waited for if nobody publishes it yet
    #[arg(long, value_name = "ID")]
    pub(crate) stream: String,
    /// The file to write
    #[arg(long, value_name = "FILE.mp4")]
    pub(crate) out: PathBuf,
    /// Stop after this long [default: until Ctrl-C or the end of the stream]
    #[arg(long, value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
}

#[derive(Args, Debug)]
pub(crate) struct Room {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Size and rate of what is published.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quality {
    /// Sound only
    Voice,
    /// 640x360, 15 pictures/s, 600 kbit/s
    Standard,
    /// 1280x720, 30 pictures/s, 1,800 kbit/s
    High,
}

impl From<Quality> for Scenario {
    fn from(quality: Quality) -> Self {
        match quality {
            Quality::Voice => Scenario::VoiceCall,
            Quality::Standard => Scenario::StandardCall,
            Quality::High => Scenario::HighQualityCall,
        }
    }
}

/// What to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The moving test picture and tone.
    Pattern,
    /// Camera and microphone.
    Camera,
    /// Pictures and sound of files, one of them or both.
    Files {
        /// An MP4 or Y4M file.
        video: Option<PathBuf>,
        /// A WAV file.
        audio: Option<PathBuf>,
    },
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pattern" => return Ok(Source::Pattern),
            "camera" => return Ok(Source::Camera),
            _ => {}
        }
        let (mut video, mut audio) = (None, None);
        for part in text.split('+') {
            let path = PathBuf::from(part);
            let place = match extension(&path).as_str() {
                "mp4" | "m4v" | "mov" | "y4m" => &mut video,
                "wav" => &mut audio,
                _ => {
                    let known = "pattern, camera, or files that end in .mp4, .y4m or .wav";
                    return Err(format!("{part:?} is not a source; choose {known}"));
                }
            };
            if place.replace(path).is_some() {
                return Err(format!("{text:?} names two sources of one kind; choose one"));
            }
        }
        Ok(Source::Files { video, audio })
    }
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

/// What to play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything that others publish.
    All,
    /// These, now or when they appear.
    These(Vec<StreamId>),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Wanted::All),
            "none" => Ok(Wanted::These(Vec::new())),
            ids => {
                let ids = ids.split(',').map(StreamId::new).collect::<Result<_, _>>();
                ids.map(Wanted::These).map_err(|error| error.to_string())
            }
        }
    }
}

/// A text that `Debug` does not show.
#[derive(Clone)]
pub(crate) struct Hidden(pub(crate) String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(..)")
    }
}

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Hidden(text)
    }
}

/// At most as long as a token should ever last.
const DURATION_MAX: u64 = 10 * 366 * 86_400;

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let unit = match &text[digits.len()..] {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = digits.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    let seconds = seconds.filter(|seconds| (1..=DURATION_MAX).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is not a time; write 90s, 15m, 1h or 7d"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let bad = || format!("{text:?} is not a number of seconds from 0.1 to 1000000");
    text.parse().ok().filter(|seconds| (0.1..=1e6).contains(seconds)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sources_are_told_apart_by_their_names() {
        let files = |video: Option<&str>, audio: Option<&str>| Source::Files {
            video: video.map(PathBuf::from),
            audio: audio.map(PathBuf::from),
        };
        for (text, source) in [
            ("pattern", Source::Pattern),
            ("camera", Source::Camera),
            ("a/clip.MP4", files(Some("a/clip.MP4"), None)),
            ("x.y4m", files(Some("x.y4m"), None)),
            ("y.wav+x.y4m", files(Some("x.y4m"), Some("y.wav"))),
        ] {
            assert_eq!(text.parse(), Ok(source));
        }
        for (bad, why) in
            [("x.avi", "not a source"), ("a.wav+b.wav", "one kind"), ("a.mp4+b.y4m", "one kind")]
        {
            let error = bad.parse::<Source>().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_to_play_and_how_long_is_checked() {
        assert_eq!("all".parse(), Ok(Wanted::All));
        assert_eq!("none".parse(), Ok(Wanted::These(vec![])));
        let Ok(Wanted::These(ids)) = "a,b-c".parse() else { panic!("two ids") };
        assert_eq!(ids.len(), 2);
        assert!("a, b".parse::<Wanted>().unwrap_err().contains("' '"));
        for (text, seconds) in [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in ["", "h", "0", "-1h", "1w", "1h5m", "99999999999d", "9999d"] {
            assert!(duration(bad).unwrap_err().contains("write 90s, 15m, 1h or 7d"), "{bad}");
        }
        assert_eq!(seconds("1.5"), Ok(1.5));
        for bad in ["0", "-1", "NaN", "inf", "x"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
