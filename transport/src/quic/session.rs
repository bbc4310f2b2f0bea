//! One connection, and the control QUIC streams on it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::{ConnectionError, VarInt};

use super::congestion::WindowTarget;
use super::driver::{Broken, Connection, RecvStream, SendStream};
use super::inbound::{Inbound, Lanes};
use super::media::{MediaSender, Out};
use crate::clock::Clock;
use crate::error::{Code, Coded};
use crate::hop::Ablation;
use crate::hop::HopReceiver;
use crate::wire::WireError;
use crate::wire::control::{Message, MessageReader, StreamKind, encode};

/// How a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The stable code.
    pub code: Code,
    /// What happened, in the words of who ended it.
    pub text: String,
    /// The peer ended it, rather than this side or the network.
    pub by_peer: bool,
}

impl Ended {
    pub(crate) fn from_quinn(error: ConnectionError) -> Self {
        let (code, text, by_peer) = match error {
            ConnectionError::ApplicationClosed(close) => {
                let number = u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX);
                (Code::from_number(number), String::from_utf8_lossy(&close.reason).into_owned(), true)
            }
            ConnectionError::LocallyClosed => (Code::Ok, "closed on this side".to_owned(), false),
            ConnectionError::TimedOut => {
                (Code::HeartbeatTimeout, Code::HeartbeatTimeout.text().to_owned(), false)
            }
            ConnectionError::VersionMismatch => {
                (Code::VersionMismatch, "no QUIC version in common".to_owned(), false)
            }
            ConnectionError::TransportError(error) if is_certificate_alert(u64::from(error.code)) => {
                (Code::CertificateMismatch, Code::CertificateMismatch.text().to_owned(), false)
            }
            ConnectionError::ConnectionClosed(close)
                if close.error_code == quinn_proto::TransportErrorCode::CONNECTION_REFUSED =>
            {
                (Code::RelayBusy, Code::RelayBusy.text().to_owned(), true)
            }
            error @ ConnectionError::TransportError(_) => (Code::ProtocolViolation, error.to_string(), false),
            error => (Code::ConnectionLost, error.to_string(), false),
        };
        Ended { code, text, by_peer }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.code.number())
    }
}

impl std::error::Error for Ended {}

impl Coded for Ended {
    fn code(&self) -> Code {
        self.code
    }
}

/// TLS alerts that say "your certificate will not do", as QUIC carries them (RFC 9001, section 4.8).
fn is_certificate_alert(code: u64) -> bool {
    const ALERTS: [u64; 8] = [42, 43, 44, 45, 46, 48, 49, 116];
    code.checked_sub(0x100).is_some_and(|alert| ALERTS.contains(&alert))
}

/// Why nothing more can be read from a control QUIC stream.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecvError {
    /// The peer sent what is not a message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The connection ended.
    #[error(transparent)]
    Ended(#[from] Ended),
}

impl Coded for RecvError {
    fn code(&self) -> Code {
        match self {
            RecvError::Wire(error) => error.code(),
            RecvError::Ended(ended) => ended.code(),
        }
    }
}

/// One connection. Clones stand for the same one; it stays open until it is closed or lost.
#[derive(Clone, Debug)]
pub struct Session {
    pub(super) connection: Connection,
    pub(super) clock: Clock,
    pub(super) out: Arc<Out>,
    /// What the peer may open once it may send frames on QUIC streams.
    frames_in_flight_max: u32,
    closed_with: Arc<OnceLock<(Code, String)>>,
    /// A QUIC stream that the peer opened before the handshake was over.
    early: Arc<Mutex<Option<BothWays>>>,
}

/// A bidirectional QUIC stream.
pub(super) type BothWays = (SendStream, RecvStream);

impl Session {
    pub(super) fn new(
        connection: Connection,
        clock: Clock,
        window: WindowTarget,
        ablation: Ablation,
        frames_in_flight_max: u32,
    ) -> Self {
        let out = Arc::new(Out::new(connection.clone(), clock.clone(), window, ablation));
        let (closed_with, early) = Default::default();
        Session { connection, clock, out, frames_in_flight_max, closed_with, early }
    }

    /// The peer's address as it is now.
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// UDP datagrams that came on this connection so far, and that left.
    pub fn datagrams(&self) -> (u64, u64) {
        let stats = self.connection.stats();
        (stats.udp_rx.datagrams, stats.udp_tx.datagrams)
    }

    /// How much came so far that had to be looked at: UDP datagrams, or what came in them one by one (QUIC datagrams,
    /// pieces and resets of QUIC streams) where that is more. A peer may pack dozens into one.
    pub fn units_received(&self) -> u64 {
        let stats = self.connection.stats();
        let frames = stats.frame_rx;
        stats.udp_rx.datagrams.max(frames.datagram + frames.stream + frames.reset_stream)
    }

    /// The clock of the endpoint.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The smoothed round-trip time.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// UDP payload bytes and packets so far, and how many of those sent were lost.
    pub fn traffic(&self) -> Traffic {
        let stats = self.connection.stats();
        Traffic {
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            packets_sent: stats.path.sent_packets,
            packets_lost: stats.path.lost_packets,
        }
    }

    /// Ends the connection; the peer learns `code` and `text`. Only the first call counts.
    pub fn close(&self, code: Code, text: &str) {
        _ = self.closed_with.set((code, text.to_owned()));
        self.connection.close(VarInt::from_u32(code.number()), text.as_bytes());
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> Ended {
        let error = self.connection.closed().await;
        self.ended(error)
    }

    /// The client's first QUIC stream, for requests and their answers.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn open_requests(&self) -> Result<(MessageSender, MessageReceiver), Ended> {
        let (send, recv) = self.connection.open_bi().await.map_err(|error| self.ended(error))?;
        let sender = MessageSender::open(self.clone(), send, StreamKind::Requests).await?;
        Ok((sender, MessageReceiver::new(self.clone(), recv)))
    }

    /// A QUIC stream of messages in this direction only.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn open_messages(&self, kind: StreamKind) -> Result<MessageSender, Ended> {
        let send = self.connection.open_uni().await.map_err(|error| self.ended(error))?;
        MessageSender::open(self.clone(), send, kind).await
    }

    /// Sends a datagram as it is: for tests of peers that break the rules.
    ///
    /// # Errors
    /// How the connection ended.
    #[cfg(feature = "sim")]
    pub fn send_raw_datagram(&self, bytes: Bytes) -> Result<(), Ended> {
        let mut bytes = Some(bytes);
        self.connection.send_datagrams(|_| bytes.take()).map_err(|error| self.ended(error))
    }

    /// Opens a QUIC stream, sends these bytes on it and no more: for tests of peers that break the rules. `both_ways`
    /// chooses a bidirectional one.
    ///
    /// # Errors
    /// How the connection ended.
    #[cfg(feature = "sim")]
    pub async fn send_raw_stream(&self, both_ways: bool, bytes: Bytes) -> Result<(), Ended> {
        let opened = if both_ways {
            self.connection.open_bi().await.map(|(send, _)| send)
        } else {
            self.connection.open_uni().await
        };
        let mut stream = opened.map_err(|error| self.ended(error))?;
        // What becomes of it shows in how the connection ends.
        _ = stream.write(bytes).await;
        _ = stream.finish();
        Ok(())
    }

    /// Opens a QUIC stream one way, sends these bytes on it and leaves it unfinished until it is dropped: for tests of
    /// peers that break the rules.
    ///
    /// # Errors
    /// How the connection ended.
    #[cfg(feature = "sim")]
    pub async fn hold_raw_stream(&self, bytes: Bytes) -> Result<RawStream, Ended> {
        let mut stream = self.connection.open_uni().await.map_err(|error| self.ended(error))?;
        _ = stream.write(bytes).await;
        Ok(RawStream(stream))
    }

    /// What the peer sends, frames in order. To be called once for each connection.
    pub fn inbound(&self) -> (Inbound, Lanes) {
        Inbound::new(self.clone(), HopReceiver::default())
    }

    /// What the peer sends, each frame as soon as it is whole: for passing frames on. To be called once for
    /// each connection.
    pub fn inbound_eager(&self) -> (Inbound, Lanes) {
        Inbound::new(self.clone(), HopReceiver::eager())
    }

    /// The way out for frames. To be called once for each connection.
    pub fn media_sender(&self) -> MediaSender {
        MediaSender::new(self.clone())
    }

    /// How the connection ended, if it did.
    pub fn close_reason(&self) -> Option<Ended> {
        self.connection.close_reason().map(|error| self.ended(error))
    }

    /// Lets the peer send frames on QUIC streams, many at a time.
    pub(super) fn permit_frames_on_streams(&self) {
        let count = super::endpoint::QUIC_STREAMS_FIRST + self.frames_in_flight_max;
        self.connection.set_max_concurrent_uni_streams(VarInt::from_u32(count));
    }

    pub(super) fn set_early(&self, stream: BothWays) {
        *self.early.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    pub(super) fn take_early(&self) -> Option<BothWays> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// How the connection ended, in our own words if we ended it.
    pub(super) fn ended(&self, error: ConnectionError) -> Ended {
        match (self.closed_with.get(), error) {
            (Some((code, text)), ConnectionError::LocallyClosed) => {
                Ended { code: *code, text: text.clone(), by_peer: false }
            }
            (_, error) => Ended::from_quinn(error),
        }
    }

    /// The end of a connection whose QUIC stream just failed.
    async fn ended_or_broken(&self, broken: &'static str) -> Ended {
        match self.close_reason() {
            Some(ended) => ended,
            None => Ended { code: Code::ProtocolViolation, text: broken.to_owned(), by_peer: true },
        }
    }
}

/// A QUIC stream that was begun; see [`Session::hold_raw_stream`]. Dropping it gives it up.
#[cfg(feature = "sim")]
#[derive(Debug)]
pub struct RawStream(SendStream);

#[cfg(feature = "sim")]
impl RawStream {
    /// Waits until the peer wants no more of it, or the connection ends.
    pub async fn stopped(&self) {
        _ = self.0.delivered().await;
    }
}

#[cfg(feature = "sim")]
impl Drop for RawStream {
    fn drop(&mut self) {
        // A peer that broke off would do the same; what was stopped already needs none.
        self.0.reset(VarInt::from_u32(0));
    }
}

/// What a connection has carried, in UDP payload bytes and packets.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Sent, retransmissions included.
    pub bytes_sent: u64,
    /// Received.
    pub bytes_received: u64,
    /// Sent.
    pub packets_sent: u64,
    /// Of those, how many QUIC found lost.
    pub packets_lost: u64,
}

/// The sending side of a control QUIC stream.
#[derive(Debug)]
pub struct MessageSender {
    session: Session,
    stream: SendStream,
}

impl MessageSender {
    async fn open(session: Session, stream: SendStream, kind: StreamKind) -> Result<Self, Ended> {
        // Above all media, whose priorities are 0 and 1.
        let priority = match kind {
            StreamKind::Requests => 4,
            StreamKind::Events => 3,
            StreamKind::AppMessages | StreamKind::Frame => 2,
        };
        stream.set_priority(priority);
        let mut sender = MessageSender { session, stream };
        sender.send_encoded(Bytes::copy_from_slice(&[kind as u8])).await?;
        Ok(sender)
    }

    pub(super) fn answering(session: Session, stream: SendStream) -> Self {
        stream.set_priority(4);
        MessageSender { session, stream }
    }

    /// Sends one message. Waits while the peer does not read.
    ///
    /// # Errors
    /// How the connection ended, or that the peer stopped this QUIC stream.
    pub async fn send<M: Message>(&mut self, message: &M) -> Result<(), Ended> {
        self.send_encoded(encode(message)).await
    }

    /// Sends messages that are encoded already.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_encoded(&mut self, bytes: Bytes) -> Result<(), Ended> {
        match self.stream.write(bytes).await {
            Ok(()) => Ok(()),
            Err(Broken::Connection(error)) => Err(self.session.ended(error)),
            Err(Broken::Stream) => {
                Err(self.session.ended_or_broken("the peer stopped reading a control stream").await)
            }
        }
    }

    /// Says that no more follows, and waits until the peer has all of it or the connection ends.
    pub async fn finish(&mut self) {
        if self.stream.finish().is_ok() {
            _ = self.stream.delivered().await;
        }
    }
}

/// The receiving side of a control QUIC stream.
#[derive(Debug)]
pub struct MessageReceiver {
    session: Session,
    stream: RecvStream,
    reader: MessageReader,
}

/// How much is read from a control QUIC stream at once.
const READ_MAX: usize = 16 * 1024;

impl MessageReceiver {
    pub(super) fn new(session: Session, stream: RecvStream) -> Self {
        MessageReceiver { session, stream, reader: MessageReader::default() }
    }

    /// The next message; `None` when the peer has finished. Cancelling loses nothing.
    ///
    /// # Errors
    /// [`RecvError`] when the peer broke the protocol or the connection ended.
    pub async fn recv<M: Message>(&mut self) -> Result<Option<M>, RecvError> {
        loop {
            if let Some(message) = self.reader.read()? {
                return Ok(Some(message));
            }
            match self.stream.read(READ_MAX).await {
                Ok(Some(chunk)) => self.reader.push(&chunk),
                Ok(None) if self.reader.is_mid_message() => {
                    return Err(WireError::Truncated { what: "the last message" }.into());
                }
                Ok(None) => return Ok(None),
                Err(Broken::Connection(error)) => return Err(self.session.ended(error).into()),
                Err(Broken::Stream) => {
                    return Err(self.session.ended_or_broken("the peer reset a control stream").await.into());
                }
            }
        }
    }
}
