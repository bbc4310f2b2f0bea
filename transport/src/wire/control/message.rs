//! What control messages say. Every type here is complete in meaning: ids are validated, lists bounded.

use bincode::{Decode, Encode};
use bytes::Bytes;

use super::extra::*;
use super::operate::{ActiveSpeaker, FramesRefused, GoAway, Moderate, Overload};
use crate::error::{Code, Refusal};
use crate::id::{AppId, LoginId, RoomId, SessionId, StreamAlias, StreamId, UserId, UserName};
use crate::token::Token;
use crate::units::Timestamp;

/// The protocol version this code speaks, and the oldest that it still understands.
pub const VERSION: u16 = 1;
/// See [`VERSION`].
pub const VERSION_MIN: u16 = 1;

/// The most tracks of one stream.
pub const TRACKS_PER_STREAM_MAX: usize = crate::wire::frame::TRACKS_MAX as usize;
/// The most bytes of a codec's name.
pub const CODEC_MAX: usize = 64;
/// The most bytes of a client software's name.
pub const AGENT_MAX: usize = 128;
/// The most bytes of an app message.
pub const APP_MESSAGE_MAX: usize = 16 * 1024;
/// The most users that an app message may be for; one for more is for the room.
pub const LISTED_MAX: usize = 256;

/// How a stream's frames travel, chosen by its publisher.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, Default)]
pub enum Delivery {
    /// QUIC datagrams, with as much redundancy and repair as the link's losses ask for.
    #[default]
    Adaptive,
    /// QUIC datagrams and nothing else: a lost packet loses its frame.
    Datagram,
    /// One QUIC stream for each frame: lost packets are sent again.
    QuicStream,
    /// As [`Delivery::Adaptive`] with so much redundancy that few frames wait for repair: some ten more
    /// bytes in a hundred at 5 % loss.
    LowLatency,
}

impl Delivery {
    /// Whether lost packets are repaired by redundancy and reports.
    pub const fn is_repaired(self) -> bool {
        matches!(self, Delivery::Adaptive | Delivery::LowLatency)
    }
}

/// What a track carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum TrackKind {
    /// Sound: every frame decodes by itself.
    Audio,
    /// Pictures.
    Video,
    /// The app's own data: every frame stands by itself.
    Data,
}

/// One track of a published stream. Its number is its place in the list.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct TrackInfo {
    /// What it carries.
    pub kind: TrackKind,
    /// The codec's name as in WebCodecs ("avc1.42e01f", "opus") or the app's own word; at most 64 bytes.
    pub codec: String,
    /// Number of spatial layers, 1–4.
    pub spatial_layers: u8,
    /// Number of temporal layers, 1–4.
    pub temporal_layers: u8,
}

/// Which frames of a track a player wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct TrackWish {
    /// The track's number.
    pub track: u8,
    /// False: send nothing of it.
    pub wanted: bool,
    /// The highest spatial layer wished for; the relay sends at most this one.
    pub spatial_max: u8,
    /// The highest temporal layer wished for.
    pub temporal_max: u8,
}

impl TrackWish {
    /// Everything of `track`.
    pub const fn all(track: u8) -> Self {
        TrackWish { track, wanted: true, spatial_max: u8::MAX, temporal_max: u8::MAX }
    }
}

/// Why a user is no longer in the room, or a stream no longer published.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Departure {
    /// The user left, or stopped publishing.
    Left,
    /// Nothing was heard of the user for too long.
    HeartbeatTimeout,
    /// The same user joined again from elsewhere.
    RepeatedLogin,
    /// Put out by a moderator or the server.
    Kicked,
    /// The user's connection was closed or broken.
    Disconnected,
    /// Removed by the server.
    RemovedByServer,
    /// The user's token expired and was not renewed.
    TokenExpired,
    /// A reason of a newer version.
    Other(u8),
}

impl Departure {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Departure::Left => 1,
            Departure::HeartbeatTimeout => 2,
            Departure::RepeatedLogin => 3,
            Departure::Kicked => 4,
            Departure::Disconnected => 5,
            Departure::RemovedByServer => 6,
            Departure::TokenExpired => 7,
            Departure::Other(number) => number,
        }
    }

    /// The reason with this number.
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Departure::Left,
            2 => Departure::HeartbeatTimeout,
            3 => Departure::RepeatedLogin,
            4 => Departure::Kicked,
            5 => Departure::Disconnected,
            6 => Departure::RemovedByServer,
            7 => Departure::TokenExpired,
            other => Departure::Other(other),
        }
    }
}

/// Client to relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientMessage {
    /// The first message of a connection.
    Hello(Hello),
    /// Enter a room.
    Join(Join),
    /// Leave it; streams end first.
    Leave(Leave),
    /// Publish a stream.
    Publish(Publish),
    /// Stop publishing it.
    Unpublish(Unpublish),
    /// Play a stream, now or when it appears.
    Play(Play),
    /// Change what is wanted of a stream being played.
    UpdatePlay(UpdatePlay),
    /// Stop playing it.
    StopPlay(StopPlay),
    /// A decoder cannot go on without a keyframe.
    RequestKeyframe(RequestKeyframe),
    /// What time is it at the relay?
    ProbeClock(ProbeClock),
    /// Go on with another token.
    RenewToken(RenewToken),
    /// Go on with a session whose connection is gone, instead of [`Join`].
    Resume(Resume),
    /// Do something about somebody in the room; for those whose token says so.
    Moderate(Moderate),
    /// Tell others why a track of a stream published here is seen and heard, or not.
    SetTrackState(SetTrackState),
    /// Attach info to a stream published here.
    SetStreamInfo(SetStreamInfo),
    /// Attach info to the room.
    SetRoomInfo(SetRoomInfo),
}

/// Relay to client, answers and notices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RelayMessage {
    /// The answer to [`Hello`].
    Welcome(Welcome),
    /// The answer to [`Join`]; the snapshot follows on the events stream.
    Joined(Joined),
    /// The request was carried out.
    Done(Done),
    /// The answer to [`Publish`].
    Published(Published),
    /// The stream to play exists; frames follow on the play's lane.
    PlayStarted(PlayStarted),
    /// The stream to play does not exist yet; the relay waits for it.
    PlayWaiting(PlayWaiting),
    /// The stream being played ended; the relay waits for it to appear again.
    PlayEnded(PlayEnded),
    /// The request was refused.
    Refused(Refused),
    /// Somebody needs a keyframe of a stream published here.
    KeyframeWanted(KeyframeWanted),
    /// The answer to [`ProbeClock`].
    ClockReply(ClockReply),
    /// The relay ends this connection.
    Closing(Closing),
    /// The token ends soon.
    TokenExpiring(TokenExpiring),
    /// The answer to [`Resume`]; room events go on where the client was, or with a snapshot.
    Resumed(Resumed),
    /// The relay ends soon.
    GoAway(GoAway),
    /// Frames published here are dropped; the stream goes on.
    FramesRefused(FramesRefused),
    /// Another voice leads in the room, or none.
    ActiveSpeaker(ActiveSpeaker),
    /// The relay's machine is too slow, or is not any more.
    Overload(Overload),
}

/// Either way, on an app-message stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AppMessage {
    /// Client to relay: for everyone in the room but the sender, or for some of them.
    Say(Say),
    /// Relay to client.
    Said(Said),
}

/// See [`ClientMessage::Hello`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Hello {
    /// The oldest version the client speaks.
    pub version_min: u16,
    /// The newest version the client speaks.
    pub version_max: u16,
    /// Optional abilities, one bit each; none is defined yet.
    pub features: u64,
    /// Name and version of the client's software, for the relay's log; at most 128 bytes.
    pub agent: String,
}

/// See [`ClientMessage::Join`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Join {
    /// Chosen by the client, repeated in the answer; never used twice on a connection.
    pub request: u32,
    /// The app.
    pub app: AppId,
    /// The room; created if it does not exist.
    pub room: RoomId,
    /// The user. Joining again from elsewhere ends the earlier stay.
    pub user: UserId,
    /// The user's name for people to read.
    pub name: UserName,
    /// The login that this join belongs to. A client on a bad link tries several connections at once;
    /// of those that join with one login the first counts, the others are refused.
    pub login: LoginId,
    /// What the app's server gave the user to show here. An app without keys asks for none.
    pub token: Option<Token>,
    /// Who sees whom; a message that ends before it has neither option.
    pub presence: Presence,
}

/// What a user is to the others in a room, and they to the user.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Presence {
    /// Others are not told of this user, who may then neither publish nor send messages.
    pub unseen: bool,
    /// This user is not told of others, only of their streams.
    pub uninterested: bool,
    /// This user is told of those who publish, and how many others there are. Counts only without `uninterested`.
    pub publishers_only: bool,
}

impl Presence {
    /// The bits on the wire.
    pub const fn bits(self) -> u8 {
        self.unseen as u8 | (self.uninterested as u8) << 1 | (self.publishers_only as u8) << 2
    }

    /// The options with these bits; those of newer versions are ignored.
    pub const fn from_bits(bits: u8) -> Self {
        Presence { unseen: bits & 1 != 0, uninterested: bits & 2 != 0, publishers_only: bits & 4 != 0 }
    }
}

/// See [`ClientMessage::Leave`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Leave {
    /// See [`Join::request`].
    pub request: u32,
}

/// See [`ClientMessage::Publish`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Publish {
    /// See [`Join::request`]; also the lane of the stream's frames, at most [`LANE_MAX`](crate::wire::hop::LANE_MAX).
    pub request: u32,
    /// The stream, unique within the app.
    pub stream: StreamId,
    /// Its tracks, 1 to [`TRACKS_PER_STREAM_MAX`].
    pub tracks: Vec<TrackInfo>,
    /// How its frames travel.
    pub delivery: Delivery,
}

/// See [`ClientMessage::Unpublish`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Unpublish {
    /// See [`Join::request`].
    pub request: u32,
    /// The stream.
    pub stream: StreamId,
}

/// See [`ClientMessage::Play`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Play {
    /// See [`Join::request`]; also the lane of the stream's frames, at most [`LANE_MAX`](crate::wire::hop::LANE_MAX).
    pub request: u32,
    /// The stream; it need not exist yet.
    pub stream: StreamId,
    /// What is wanted of it; a track without an entry is wanted whole.
    pub wishes: Vec<TrackWish>,
}

/// See [`ClientMessage::UpdatePlay`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct UpdatePlay {
    /// See [`Join::request`].
    pub request: u32,
    /// The stream.
    pub stream: StreamId,
    /// The new wishes; they replace all earlier ones.
    pub wishes: Vec<TrackWish>,
}

/// See [`ClientMessage::StopPlay`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct StopPlay {
    /// See [`Join::request`].
    pub request: u32,
    /// The stream.
    pub stream: StreamId,
}

/// See [`ClientMessage::RequestKeyframe`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct RequestKeyframe {
    /// The play's lane.
    pub lane: u32,
    /// The track.
    pub track: u8,
}

/// See [`ClientMessage::ProbeClock`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ProbeClock {
    /// The client's clock when it sent this.
    pub sent: Timestamp,
}

/// See [`ClientMessage::Resume`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Resume {
    /// Names this request in its answer.
    pub request: u32,
    /// The session, as [`Welcome`] named it.
    pub session: SessionId,
    /// Its secret, as [`Joined`] gave it.
    pub secret: ResumeSecret,
    /// Of several connections with one attempt the first counts, as with [`Join::login`].
    pub attempt: LoginId,
    /// Epoch and position up to which the client knows the room's events.
    pub known: Option<(u64, u64)>,
}

/// Proves that a client had a session. Whoever has it can take the session over, so it is never logged.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ResumeSecret(pub [u8; 16]);

impl std::fmt::Debug for ResumeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResumeSecret(…)")
    }
}

/// See [`ClientMessage::RenewToken`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct RenewToken {
    /// See [`Join::request`].
    pub request: u32,
    /// For the same app, room and user. If it is refused, the one before still holds.
    pub token: Token,
}

/// See [`RelayMessage::Welcome`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Welcome {
    /// The version to speak from here on.
    pub version: u16,
    /// The client's feature bits that the relay knows too.
    pub features: u64,
    /// This stay.
    pub session: SessionId,
    /// The relay's clock when it sent this.
    pub clock: Timestamp,
    /// The most streams this user may publish at once.
    pub publish_max: u32,
    /// The most streams this user may play at once.
    pub play_max: u32,
}

/// See [`RelayMessage::Joined`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Joined {
    /// The request.
    pub request: u32,
    /// The room's life; positions of different epochs do not compare.
    pub epoch: u64,
    /// The room's position just after this join.
    pub position: u64,
    /// Users in the room, this one included.
    pub users: u32,
    /// What a later connection shows to go on with this session.
    pub secret: ResumeSecret,
}

/// See [`RelayMessage::Resumed`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Resumed {
    /// The request.
    pub request: u32,
    /// What the session publishes, as lane and alias: these go on, and nothing else of the client's is known.
    pub publications: Vec<(u32, StreamAlias)>,
    /// The lanes of what it plays or waits to play.
    pub plays: Vec<u32>,
}

/// See [`RelayMessage::Done`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Done {
    /// The request.
    pub request: u32,
}

/// See [`RelayMessage::Published`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Published {
    /// The request.
    pub request: u32,
    /// What the stream's frame headers must say.
    pub alias: StreamAlias,
}

/// See [`RelayMessage::PlayStarted`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct PlayStarted {
    /// The play's request, which is its lane.
    pub lane: u32,
    /// What the stream's frame headers say.
    pub alias: StreamAlias,
    /// Who publishes it.
    pub user: UserId,
    /// Its tracks.
    pub tracks: Vec<TrackInfo>,
    /// How its frames travel.
    pub delivery: Delivery,
}

/// See [`RelayMessage::PlayWaiting`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct PlayWaiting {
    /// The play's lane.
    pub lane: u32,
}

/// See [`RelayMessage::PlayEnded`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct PlayEnded {
    /// The play's lane.
    pub lane: u32,
    /// Why.
    pub reason: Departure,
}

/// See [`RelayMessage::Refused`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Refused {
    /// The request.
    pub request: u32,
    /// Why, and what to do.
    pub refusal: Refusal,
}

/// See [`RelayMessage::KeyframeWanted`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct KeyframeWanted {
    /// The publication's lane.
    pub lane: u32,
    /// The track.
    pub track: u8,
    /// The spatial layer.
    pub spatial: u8,
}

/// See [`RelayMessage::ClockReply`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ClockReply {
    /// As it stood in the probe.
    pub probe_sent: Timestamp,
    /// The relay's clock when the probe came.
    pub received: Timestamp,
    /// The relay's clock when this was sent.
    pub sent: Timestamp,
}

/// See [`RelayMessage::Closing`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Closing {
    /// Why, and what to do.
    pub refusal: Refusal,
}

/// See [`RelayMessage::TokenExpiring`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct TokenExpiring {
    /// Seconds from now until the token expires, rounded down.
    pub seconds: u32,
}

/// See [`AppMessage::Say`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Say {
    /// See [`Join::request`]; answered with [`Done`] or [`Refused`] among the answers to requests.
    pub request: u32,
    /// Whom it is for, at most [`LISTED_MAX`]; everyone in the room if nobody is listed.
    pub to: Vec<UserId>,
    /// The relay may drop it on its way to somebody who takes less than is sent.
    pub lossy: bool,
    /// The app's bytes, at most [`APP_MESSAGE_MAX`].
    pub payload: Bytes,
}

/// See [`AppMessage::Said`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// Who sent it.
    pub from: UserId,
    /// Whether it is for listed users rather than for the room.
    pub direct: bool,
    /// The app's bytes, at most [`APP_MESSAGE_MAX`].
    pub payload: Bytes,
}

/// Checks a publication's tracks.
///
/// # Errors
/// [`Code::BadTracks`] when there are none or too many, or a layer count is out of range.
pub fn check_tracks(tracks: &[TrackInfo]) -> Result<(), Refusal> {
    let layers = 1..=crate::wire::frame::LAYERS_MAX;
    let fault = if tracks.is_empty() || tracks.len() > TRACKS_PER_STREAM_MAX {
        format!("a stream has 1 to {TRACKS_PER_STREAM_MAX} tracks, not {}", tracks.len())
    } else if let Some(at) = tracks
        .iter()
        .position(|t| !layers.contains(&t.spatial_layers) || !layers.contains(&t.temporal_layers))
    {
        format!("track {at} must have 1 to 4 spatial and 1 to 4 temporal layers")
    } else if let Some(at) = tracks.iter().position(|t| t.codec.len() > CODEC_MAX) {
        format!("the codec name of track {at} has more than {CODEC_MAX} bytes")
    } else {
        return Ok(());
    };
    Err(Refusal::new(Code::BadTracks, fault))
}
