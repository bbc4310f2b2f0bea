//! Control messages ↔ bytes, and the only place that knows bincode.
//!
//! On the wire: type (varint), length of the body (varint, at most [`BODY_MAX`]), body. Bodies
//! are bincode's standard configuration with a limit on every read: integers variable-length,
//! little end first, lists and texts preceded by their length. An integer type with a domain
//! of its own (codes, reasons) travels as its number.

use bincode::de::{Decode, Decoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::check::{Check, at_most};
use super::extra::*;
use super::message::*;
use super::operate::{ActiveSpeaker, FramesRefused, GoAway, Moderate, Overload};
use super::room::*;
use crate::error::{Code, Refusal};
use crate::id::{AppId, LoginId, RoomId, SessionId, StreamAlias, StreamId, UserId, UserName};
use crate::token::Token;
use crate::units::Timestamp;
use crate::wire::{WireError, varint};

/// The largest body: an app message for as many users as may be listed, each with the longest id.
pub const BODY_MAX: usize = 40 * 1024;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<{ 4 * BODY_MAX }>,
> = bincode::config::standard().with_limit::<{ 4 * BODY_MAX }>();

/// A set of messages that share a QUIC stream.
pub trait Message: Sized {
    /// Type number and body.
    fn to_parts(&self) -> (u64, Bytes);
    /// The message of this type; `None` when the type is unknown and to be skipped.
    ///
    /// # Errors
    /// [`WireError`] when the body is not what its type says.
    fn from_parts(kind: u64, body: Bytes) -> Result<Option<Self>, WireError>;
}

/// The message as it stands on its QUIC stream.
pub fn encode<M: Message>(message: &M) -> Bytes {
    let (kind, body) = message.to_parts();
    debug_assert!(body.len() <= BODY_MAX, "message {kind:#x} has {} bytes", body.len());
    let mut out = BytesMut::with_capacity(8 + body.len());
    varint::put(&mut out, kind);
    varint::put(&mut out, body.len() as u64);
    out.put(body);
    out.freeze()
}

/// Turns the bytes of a control QUIC stream into messages. Holds at most one message.
#[derive(Default, Debug)]
pub struct MessageReader {
    buffer: BytesMut,
}

impl MessageReader {
    /// Takes bytes as they came. Drain with [`read`](Self::read) before pushing more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, skipping unknown types; `None` until more bytes come.
    ///
    /// # Errors
    /// [`WireError`] when the peer announced too much or sent what is not a message; the
    /// stream cannot be read any further then.
    pub fn read<M: Message>(&mut self) -> Result<Option<M>, WireError> {
        loop {
            let mut head = &self.buffer[..];
            let kind = match varint::get(&mut head, "message type") {
                Ok(kind) => kind,
                Err(_) => return Ok(None),
            };
            let length = match varint::get_bounded(&mut head, "message length", BODY_MAX as u64) {
                Ok(length) => length as usize,
                Err(WireError::Truncated { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            if head.len() < length {
                return Ok(None);
            }
            let start = self.buffer.len() - head.len();
            self.buffer.advance(start);
            let body = self.buffer.split_to(length).freeze();
            if let Some(message) = M::from_parts(kind, body)? {
                return Ok(Some(message));
            }
        }
    }

    /// Whether the peer stopped in the middle of a message.
    pub fn is_mid_message(&self) -> bool {
        !self.buffer.is_empty()
    }
}

fn write(value: &impl Encode) -> Bytes {
    let bytes = bincode::encode_to_vec(value, CONFIG).expect("our own values encode into memory");
    bytes.into()
}

fn read<T: Decode<()> + Check>(body: &[u8]) -> Result<T, WireError> {
    let (value, _used): (T, usize) = read_part(body)?;
    value.check()?;
    Ok(value)
}

/// The value at the front of `body` and how many bytes it took.
fn read_part<T: Decode<()>>(body: &[u8]) -> Result<(T, usize), WireError> {
    match bincode::decode_from_slice(body, CONFIG) {
        Ok(read) => Ok(read),
        Err(DecodeError::UnexpectedEnd { .. }) => Err(WireError::Truncated { what: "message body" }),
        Err(DecodeError::LimitExceeded) => {
            Err(WireError::TooLarge { what: "message body", value: body.len() as u64, max: BODY_MAX as u64 })
        }
        // The only texts of our own in decoding are those of identifiers, see `as_text`.
        Err(DecodeError::OtherString(text)) => Err(WireError::BadId(text)),
        Err(error) => Err(WireError::invalid("message body", error.to_string())),
    }
}

macro_rules! messages {
    ($set:ident { $($name:ident($body:ident) = $kind:literal,)* }) => {
        impl Message for $set {
            fn to_parts(&self) -> (u64, Bytes) {
                match self {
                    $($set::$name(body) => ($kind, write(body)),)*
                }
            }

            fn from_parts(kind: u64, body: Bytes) -> Result<Option<Self>, WireError> {
                Ok(Some(match kind {
                    $($kind => $set::$name(read::<$body>(&body)?),)*
                    _ => return Ok(None),
                }))
            }
        }
    };
}

messages!(ClientMessage {
    Hello(Hello) = 0x01,
    Join(Join) = 0x02,
    Leave(Leave) = 0x03,
    Publish(Publish) = 0x04,
    Unpublish(Unpublish) = 0x05,
    Play(Play) = 0x06,
    UpdatePlay(UpdatePlay) = 0x07,
    StopPlay(StopPlay) = 0x08,
    RequestKeyframe(RequestKeyframe) = 0x09,
    ProbeClock(ProbeClock) = 0x0a,
    RenewToken(RenewToken) = 0x0b,
    Resume(Resume) = 0x0c,
    Moderate(Moderate) = 0x10,
    SetTrackState(SetTrackState) = 0x18,
    SetStreamInfo(SetStreamInfo) = 0x19,
    SetRoomInfo(SetRoomInfo) = 0x1a,
});

messages!(RelayMessage {
    Welcome(Welcome) = 0x21,
    Joined(Joined) = 0x22,
    Done(Done) = 0x23,
    Published(Published) = 0x24,
    PlayStarted(PlayStarted) = 0x25,
    PlayWaiting(PlayWaiting) = 0x26,
    PlayEnded(PlayEnded) = 0x27,
    Refused(Refused) = 0x28,
    KeyframeWanted(KeyframeWanted) = 0x29,
    ClockReply(ClockReply) = 0x2a,
    Closing(Closing) = 0x2b,
    TokenExpiring(TokenExpiring) = 0x2c,
    Resumed(Resumed) = 0x2d,
    GoAway(GoAway) = 0x30,
    FramesRefused(FramesRefused) = 0x32,
    ActiveSpeaker(ActiveSpeaker) = 0x38,
    Overload(Overload) = 0x3a,
});

const COUNT: u64 = 0x36;
const PAGE: u64 = 0x40;
const USER_JOINED: u64 = 0x41;
const USER_LEFT: u64 = 0x42;
const STREAM_ADDED: u64 = 0x43;
const STREAM_REMOVED: u64 = 0x44;
const TRACK_STATE_CHANGED: u64 = 0x45;
const STREAM_INFO_CHANGED: u64 = 0x46;
const ROOM_INFO_CHANGED: u64 = 0x47;
/// Types in this range are events: whatever else they hold, they begin with an [`EventStamp`].
const EVENTS: std::ops::RangeInclusive<u64> = 0x41..=0x5f;

impl Message for RoomMessage {
    fn to_parts(&self) -> (u64, Bytes) {
        match self {
            RoomMessage::Page(body) => (PAGE, write(body)),
            RoomMessage::UserJoined(body) => (USER_JOINED, write(body)),
            RoomMessage::UserLeft(body) => (USER_LEFT, write(body)),
            RoomMessage::StreamAdded(body) => (STREAM_ADDED, write(body)),
            RoomMessage::StreamRemoved(body) => (STREAM_REMOVED, write(body)),
            RoomMessage::TrackStateChanged(body) => (TRACK_STATE_CHANGED, write(body)),
            RoomMessage::StreamInfoChanged(body) => (STREAM_INFO_CHANGED, write(body)),
            RoomMessage::RoomInfoChanged(body) => (ROOM_INFO_CHANGED, write(body)),
            RoomMessage::Count(body) => (COUNT, write(body)),
            RoomMessage::Unknown(stamp) => (*EVENTS.end(), write(stamp)),
        }
    }

    fn from_parts(kind: u64, body: Bytes) -> Result<Option<Self>, WireError> {
        Ok(Some(match kind {
            COUNT => RoomMessage::Count(read(&body)?),
            PAGE => RoomMessage::Page(read(&body)?),
            USER_JOINED => RoomMessage::UserJoined(read(&body)?),
            USER_LEFT => RoomMessage::UserLeft(read(&body)?),
            STREAM_ADDED => RoomMessage::StreamAdded(read(&body)?),
            STREAM_REMOVED => RoomMessage::StreamRemoved(read(&body)?),
            TRACK_STATE_CHANGED => RoomMessage::TrackStateChanged(read(&body)?),
            STREAM_INFO_CHANGED => RoomMessage::StreamInfoChanged(read(&body)?),
            ROOM_INFO_CHANGED => RoomMessage::RoomInfoChanged(read(&body)?),
            kind if EVENTS.contains(&kind) => RoomMessage::Unknown(read(&body)?),
            _ => return Ok(None),
        }))
    }
}

const SAY: u64 = 0x60;
const SAID: u64 = 0x61;

// App messages are bytes that nobody here looks into: the payload is the rest of the body.
impl Message for AppMessage {
    fn to_parts(&self) -> (u64, Bytes) {
        match self {
            AppMessage::Say(say) => {
                (SAY, with_payload(&write(&(say.request, &say.to, say.lossy)), &say.payload))
            }
            AppMessage::Said(said) => (SAID, with_payload(&write(&(&said.from, said.direct)), &said.payload)),
        }
    }

    fn from_parts(kind: u64, mut body: Bytes) -> Result<Option<Self>, WireError> {
        let message = match kind {
            SAY => {
                let ((request, to, lossy), used) = read_part::<(u32, Vec<UserId>, bool)>(&body)?;
                at_most("number of listed users", to.len(), LISTED_MAX)?;
                body.advance(used);
                AppMessage::Say(Say { request, to, lossy, payload: body })
            }
            SAID => {
                let ((from, direct), used) = read_part::<(UserId, bool)>(&body)?;
                body.advance(used);
                AppMessage::Said(Said { from, direct, payload: body })
            }
            _ => return Ok(None),
        };
        let (AppMessage::Say(Say { payload, .. }) | AppMessage::Said(Said { payload, .. })) = &message;
        at_most("app message", payload.len(), APP_MESSAGE_MAX)?;
        Ok(Some(message))
    }
}

fn with_payload(head: &[u8], payload: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(head.len() + payload.len());
    body.put_slice(head);
    body.put_slice(payload);
    body.freeze()
}

macro_rules! as_text {
    ($($name:ident)*) => {$(
        impl Encode for $name {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                self.as_str().encode(encoder)
            }
        }

        impl<C> Decode<C> for $name {
            fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                let text = String::decode(decoder)?;
                $name::new(text).map_err(|error| DecodeError::OtherString(error.to_string()))
            }
        }

        bincode::impl_borrow_decode!($name);
    )*};
}

as_text!(AppId RoomId UserId UserName StreamId);

macro_rules! as_number {
    ($($name:ident: $number:ty, $to:expr, $from:expr;)*) => {$(
        impl Encode for $name {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                let to: fn(&$name) -> $number = $to;
                to(self).encode(encoder)
            }
        }

        impl<C> Decode<C> for $name {
            fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                let from: fn($number) -> $name = $from;
                <$number>::decode(decoder).map(from)
            }
        }

        bincode::impl_borrow_decode!($name);
    )*};
}

as_number! {
    Code: u32, |code| code.number(), Code::from_number;
    Departure: u8, |reason| reason.number(), Departure::from_number;
    TrackState: u8, |state| state.number(), TrackState::from_number;
    StreamAlias: u32, |alias| alias.0, StreamAlias;
    SessionId: u64, |session| session.0, SessionId;
    LoginId: [u8; 16], |login| login.0, LoginId;
    Timestamp: u64, |time| time.as_micros(), Timestamp::from_micros;
}

impl Encode for Token {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_str().encode(encoder)
    }
}

// Its length is checked with the message, what is in it by who knows the keys.
impl<C> Decode<C> for Token {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        String::decode(decoder).map(Token::from_wire)
    }
}

bincode::impl_borrow_decode!(Token);

impl Encode for Join {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Join { request, app, room, user, name, login, token, presence } = self;
        request.encode(encoder)?;
        app.encode(encoder)?;
        room.encode(encoder)?;
        user.encode(encoder)?;
        name.encode(encoder)?;
        login.encode(encoder)?;
        token.encode(encoder)?;
        presence.bits().encode(encoder)
    }
}

impl<C> Decode<C> for Join {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Join {
            request: Decode::decode(decoder)?,
            app: Decode::decode(decoder)?,
            room: Decode::decode(decoder)?,
            user: Decode::decode(decoder)?,
            name: Decode::decode(decoder)?,
            login: Decode::decode(decoder)?,
            token: added(decoder)?,
            presence: match u8::decode(decoder) {
                Ok(bits) => Presence::from_bits(bits),
                Err(DecodeError::UnexpectedEnd { .. }) => Presence::default(),
                Err(error) => return Err(error),
            },
        })
    }
}

impl<C> Decode<C> for SnapshotPage {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(SnapshotPage {
            epoch: Decode::decode(decoder)?,
            position: Decode::decode(decoder)?,
            page: Decode::decode(decoder)?,
            last: Decode::decode(decoder)?,
            users_total: Decode::decode(decoder)?,
            users: Decode::decode(decoder)?,
            streams: Decode::decode(decoder)?,
            extras: added(decoder)?,
        })
    }
}

/// An optional field that was added to the end of its message: one that ends before it does not have it.
fn added<C, D: Decoder<Context = C>, T: Decode<C>>(decoder: &mut D) -> Result<Option<T>, DecodeError> {
    match u8::decode(decoder) {
        Ok(0) | Err(DecodeError::UnexpectedEnd { .. }) => Ok(None),
        Ok(1) => T::decode(decoder).map(Some),
        Ok(found) => Err(DecodeError::UnexpectedVariant {
            type_name: "Option",
            allowed: &bincode::error::AllowedEnumVariants::Range { min: 0, max: 1 },
            found: found.into(),
        }),
        Err(error) => Err(error),
    }
}

impl Encode for GoAway {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.address.encode(encoder)
    }
}

impl<C> Decode<C> for GoAway {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(GoAway { address: added(decoder)? })
    }
}

impl Encode for Refusal {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.code.encode(encoder)?;
        self.text.encode(encoder)
    }
}

impl<C> Decode<C> for Refusal {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let code = Code::decode(decoder)?;
        Ok(Refusal::new(code, String::decode(decoder)?))
    }
}

bincode::impl_borrow_decode!(Refusal);
