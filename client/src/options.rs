//! What an app chooses: scenario, timeouts, whom to join as, what to publish and what to play.
//!
//! Options are plain values; they are checked where they are used, before anything is sent.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use parlor_transport::address::RelayAddress;
use parlor_transport::hop::Ablation;
use parlor_transport::id::{AppId, RoomId, StreamId, UserId, UserName};
use parlor_transport::token::Token;
use parlor_transport::wire::control::{Delivery, Presence, TrackInfo, TrackKind, TrackWish, check_tracks};

use crate::error::{JoinError, PublishError};

/// What a call is for; picks the defaults of the built-in capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scenario {
    /// Sound only: no camera is asked for.
    VoiceCall,
    /// 640x360 at 15 frames/s and 600 kbit/s, with sound.
    #[default]
    StandardCall,
    /// 1280x720 at 30 frames/s and 1,800 kbit/s, with sound.
    HighQualityCall,
}

/// How pictures are encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VideoSettings {
    /// Width, pixels; even.
    pub width: u32,
    /// Height, pixels; even.
    pub height: u32,
    /// Pictures per second, 1 to 60.
    pub frames_per_second: u32,
    /// Target, bit/s.
    pub bitrate: u32,
    /// At most this long between two keyframes. Players that need one sooner ask for it.
    pub keyframe_interval: Duration,
}

/// How sound is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioSettings {
    /// Target, bit/s.
    pub bitrate: u32,
}

impl Scenario {
    /// The video settings; `None` for a call without pictures.
    pub fn video(self) -> Option<VideoSettings> {
        let settings = |width, height, frames_per_second, bitrate| VideoSettings {
            width,
            height,
            frames_per_second,
            bitrate,
            keyframe_interval: Duration::from_secs(2),
        };
        match self {
            Scenario::VoiceCall => None,
            Scenario::StandardCall => Some(settings(640, 360, 15, 600_000)),
            Scenario::HighQualityCall => Some(settings(1280, 720, 30, 1_800_000)),
        }
    }

    /// The audio settings: full-band speech.
    pub fn audio(self) -> AudioSettings {
        AudioSettings { bitrate: 32_000 }
    }
}

/// What an engine does by default.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineConfig {
    /// What calls are for.
    pub scenario: Scenario,
    /// Where the UDP socket is bound; port 0 lets the system choose. Default: any address, IPv6 and IPv4, any
    /// port.
    pub local: Option<SocketAddr>,
    /// How long a join may take before it fails. Default 10 s.
    pub join_timeout: Duration,
    /// A connection that was silent for so long goes on with another socket, because the network may have changed;
    /// zero for never. A port of the app's own choice is kept. Default 1 s.
    pub rebind_after: Duration,
    /// A joined room whose connection was silent for so long tries another one. The relay sends something every
    /// second. Default 3 s.
    pub path_timeout: Duration,
    /// For how long a room whose connection was lost tries to come back by itself; zero: not at all. Default 20 min.
    pub reconnect_timeout: Duration,
    /// How long a leave waits for the relay's answer. Default 2 s.
    pub leave_timeout: Duration,
    /// Writes one qlog file for every connection into this directory.
    pub qlog: Option<PathBuf>,
    /// Writes TLS secrets to the file that the environment variable `SSLKEYLOGFILE` names.
    pub key_log: bool,
    /// Which parts of repair are left out. Default: none; benchmarks tell what each is worth.
    pub ablation: Ablation,
    /// Name and version of the app, for the relay's log; cut at 128 bytes.
    pub agent: String,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            scenario: Scenario::default(),
            local: None,
            join_timeout: Duration::from_secs(10),
            leave_timeout: Duration::from_secs(2),
            rebind_after: Duration::from_secs(1),
            path_timeout: Duration::from_secs(3),
            reconnect_timeout: Duration::from_secs(20 * 60),
            qlog: None,
            key_log: false,
            ablation: Ablation::None,
            agent: concat!("parlor-client/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl From<Scenario> for EngineConfig {
    fn from(scenario: Scenario) -> Self {
        EngineConfig { scenario, ..EngineConfig::default() }
    }
}

/// Which room to join, and as whom.
///
/// ```
/// use parlor_client::JoinOptions;
///
/// let options = JoinOptions::new("parlor://relay.example:4433/standup", "ann").name("Ann");
/// assert!(options.check().is_ok());
/// assert!(JoinOptions::new("parlor://relay.example/standup", "an n").check().is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct JoinOptions {
    address: String,
    user: String,
    room: Option<String>,
    name: String,
    app: String,
    token: Option<String>,
    presence: Presence,
}

/// Join options that were checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinRequest {
    /// Where the relay is.
    pub address: RelayAddress,
    /// The app.
    pub app: AppId,
    /// The room.
    pub room: RoomId,
    /// The user.
    pub user: UserId,
    /// The user's name for people to read.
    pub name: UserName,
    /// What the app's server gave the user to show to the relay.
    pub token: Option<Token>,
    /// Who sees whom.
    pub presence: Presence,
}

impl JoinOptions {
    /// Joins the room at `address` (`parlor://host:port/room#sha256=…`, as the relay prints it) as `user`
    /// (1–64 bytes of printable ASCII, unique within the app).
    pub fn new(address: impl Into<String>, user: impl Into<String>) -> Self {
        JoinOptions {
            address: address.into(),
            user: user.into(),
            room: None,
            name: String::new(),
            app: AppId::dev().to_string(),
            token: None,
            presence: Presence::default(),
        }
    }

    /// Another room than the address names: 1–128 bytes of printable ASCII.
    #[must_use]
    pub fn room(mut self, room: impl Into<String>) -> Self {
        self.room = Some(room.into());
        self
    }

    /// The name that others read, at most 256 bytes. Default: none.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The app: 1–64 bytes of `[A-Za-z0-9_-]`. Default `dev`.
    #[must_use]
    pub fn app(mut self, app: impl Into<String>) -> Self {
        self.app = app.into();
        self
    }

    /// The token that the app's server gave the user, at most 4,096 bytes. Apps with keys ask for one, `dev`
    /// does not. [`Room::renew_token`](crate::Room::renew_token) replaces it before it expires.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Others are not told of this user: not when it comes, not when it goes, and it is not counted. It plays, but can
    /// neither publish nor send messages (code 1053), nor be listed as a receiver of one.
    #[must_use]
    pub fn unseen(mut self) -> Self {
        self.presence.unseen = true;
        self
    }

    /// This user is told of streams, of what is attached to them and to the room, and of messages, but not of who
    /// comes and goes: for an app that shows no list of users, in rooms of thousands. No event about users comes, and
    /// places do not compare with those of others.
    #[must_use]
    pub fn uninterested(mut self) -> Self {
        self.presence.uninterested = true;
        self
    }

    /// This user is told how many users there are, and who they are only while they publish: for an audience of
    /// thousands. With their first stream users come, with their last one they go; places do not compare with those of
    /// others. Of no effect beside [`uninterested`](Self::uninterested), nor on relays of before this option, which tell of
    /// everyone.
    #[must_use]
    pub fn publishers_only(mut self) -> Self {
        self.presence.publishers_only = true;
        self
    }

    /// Checks everything that can be checked without the relay.
    ///
    /// # Errors
    /// [`JoinError`] with what is wrong and what would be right.
    pub fn check(&self) -> Result<JoinRequest, JoinError> {
        let address: RelayAddress = self.address.parse()?;
        let room = match &self.room {
            Some(room) => RoomId::new(room)?,
            None => address.room.clone().ok_or(JoinError::NoRoom)?,
        };
        Ok(JoinRequest {
            address,
            app: AppId::new(&self.app)?,
            room,
            user: UserId::new(&self.user)?,
            name: UserName::new(&self.name)?,
            token: self.token.as_ref().map(Token::new).transpose()?,
            presence: self.presence,
        })
    }
}

/// Without the token, which nobody else may see.
impl fmt::Debug for JoinOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JoinOptions { address, user, room, name, app, token, presence } = self;
        let mut options = f.debug_struct("JoinOptions");
        options.field("address", address).field("user", user).field("room", room).field("name", name);
        options.field("presence", presence);
        options.field("app", app).field("has_token", &token.is_some()).finish()
    }
}

/// Which stream to publish, with which tracks.
///
/// ```
/// use parlor_client::{Delivery, PublishOptions};
///
/// // Track 0 is sound, track 1 pictures with two temporal layers.
/// let options = PublishOptions::new("ann-cam").audio("opus").video("avc1.42e01f").layers(1, 2);
/// assert!(options.check().is_ok());
/// assert!(PublishOptions::new("no-track").check().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishOptions {
    stream: String,
    tracks: Vec<TrackInfo>,
    delivery: Delivery,
}

/// Publish options that were checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishRequest {
    /// The stream.
    pub stream: StreamId,
    /// Its tracks.
    pub tracks: Vec<TrackInfo>,
    /// How its frames travel.
    pub delivery: Delivery,
}

impl PublishOptions {
    /// A stream without tracks yet. The id (1–256 bytes of `[A-Za-z0-9_-]`) is unique within the app;
    /// `room_user` is a pattern that keeps it so.
    pub fn new(stream: impl Into<String>) -> Self {
        PublishOptions { stream: stream.into(), tracks: Vec::new(), delivery: Delivery::default() }
    }

    /// Adds a sound track; `codec` as in WebCodecs ("opus") or the app's own word, at most 64 bytes.
    #[must_use]
    pub fn audio(self, codec: impl Into<String>) -> Self {
        self.track(TrackKind::Audio, codec)
    }

    /// Adds a picture track; `codec` as in WebCodecs ("avc1.42e01f") or the app's own word, at most 64 bytes.
    #[must_use]
    pub fn video(self, codec: impl Into<String>) -> Self {
        self.track(TrackKind::Video, codec)
    }

    /// Adds a track of the app's own data.
    #[must_use]
    pub fn data(self, format: impl Into<String>) -> Self {
        self.track(TrackKind::Data, format)
    }

    fn track(mut self, kind: TrackKind, codec: impl Into<String>) -> Self {
        self.tracks.push(TrackInfo { kind, codec: codec.into(), spatial_layers: 1, temporal_layers: 1 });
        self
    }

    /// Gives the track added last 1–4 spatial and 1–4 temporal layers instead of one each.
    #[must_use]
    pub fn layers(mut self, spatial: u8, temporal: u8) -> Self {
        if let Some(track) = self.tracks.last_mut() {
            (track.spatial_layers, track.temporal_layers) = (spatial, temporal);
        }
        self
    }

    /// How frames travel. Default: [`Delivery::Adaptive`].
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// Checks everything that can be checked without the relay.
    ///
    /// # Errors
    /// [`PublishError::Id`] or [`PublishError::Tracks`].
    pub fn check(&self) -> Result<PublishRequest, PublishError> {
        let stream = StreamId::new(&self.stream)?;
        check_tracks(&self.tracks).map_err(PublishError::Tracks)?;
        Ok(PublishRequest { stream, tracks: self.tracks.clone(), delivery: self.delivery })
    }
}

/// What is wanted of a stream that is played.
///
/// ```
/// use parlor_client::PlayOptions;
/// // No pictures, whatever layers there are of the rest.
/// let options = PlayOptions::new().without_track(1);
/// assert_eq!(options.wishes().len(), 1);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PlayOptions {
    wishes: Vec<TrackWish>,
}

impl PlayOptions {
    /// Everything of every track.
    pub fn new() -> Self {
        PlayOptions::default()
    }

    /// Nothing of `track`: it is not sent, which saves its bandwidth.
    #[must_use]
    pub fn without_track(self, track: u8) -> Self {
        self.wish(TrackWish { wanted: false, ..TrackWish::all(track) })
    }

    /// Of `track` at most these spatial (size) and temporal (rate) layers, counted from 0.
    #[must_use]
    pub fn layers_max(self, track: u8, spatial_max: u8, temporal_max: u8) -> Self {
        self.wish(TrackWish { track, wanted: true, spatial_max, temporal_max })
    }

    fn wish(mut self, wish: TrackWish) -> Self {
        self.wishes.retain(|other| other.track != wish.track);
        self.wishes.push(wish);
        self
    }

    /// The wishes as they are sent; a track without one is wanted whole.
    pub fn wishes(&self) -> &[TrackWish] {
        &self.wishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_transport::error::{Code, Coded};

    #[test]
    fn what_is_wrong_is_told_before_anything_is_sent() {
        let good = JoinOptions::new("parlor://h/r", "u1");
        assert_eq!(good.check().unwrap().room.as_str(), "r");
        assert_eq!(good.clone().room("other").check().unwrap().room.as_str(), "other");
        let code = |options: JoinOptions| options.check().unwrap_err().code();
        assert_eq!(code(JoinOptions::new("http://h/r", "u1")), Code::BadAddress);
        assert_eq!(code(JoinOptions::new("parlor://h", "u1")), Code::BadAddress);
        assert_eq!(code(JoinOptions::new("parlor://h/r", "")), Code::BadId);
        assert_eq!(code(good.clone().room("a b")), Code::BadId);
        assert_eq!(code(good.clone().name("a\nb")), Code::BadId);
        assert_eq!(code(good.clone().app("ä")), Code::BadId);
        assert_eq!(code(good.clone().token("sec ret")), Code::TokenInvalid);
        assert_eq!(code(good.clone().token("x".repeat(4097))), Code::TokenInvalid);
        let shown = good.token("sec.r.et\n");
        let shown = format!("{shown:?} {:?}", shown.check().unwrap());
        assert!(!shown.contains("sec.r.et") && shown.contains("has_token: true"), "{shown}");
    }

    #[test]
    fn tracks_are_checked() {
        let code = |options: PublishOptions| options.check().unwrap_err().code();
        assert_eq!(code(PublishOptions::new("a b").audio("opus")), Code::BadId);
        assert_eq!(code(PublishOptions::new("s").video("x").layers(0, 1)), Code::BadTracks);
        let many = (0..9).fold(PublishOptions::new("s"), |options, _| options.data("x"));
        assert_eq!(code(many), Code::BadTracks);
    }

    #[test]
    fn a_later_wish_replaces_an_earlier_one() {
        let options = PlayOptions::new().without_track(1).layers_max(1, 0, 3);
        assert_eq!(options.wishes(), [TrackWish { track: 1, wanted: true, spatial_max: 0, temporal_max: 3 }]);
    }
}
