//! What comes in on a connection: control QUIC streams to hand over, frames to put in order.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::driver::{RecvStream, SendStream};
use super::session::{Ended, MessageReceiver, MessageSender, Session};
use crate::clock::{Clock, Timer};
use crate::error::Coded;
use crate::hop::{Fault, GivenUp, HopReceiver, HopStats, Received, ReceivedPiece};
use crate::wire::WireError;
use crate::wire::control::{Delivery, StreamKind};
use crate::wire::feedback::{Feedback, KIND_FEEDBACK};
use crate::wire::frame::OBJECT_MAX;
use crate::wire::hop::{DATAGRAM_MAX, HopHeader};
use crate::wire::packet::Packet;

/// QUIC streams being read at once; the peer's limit (`Options::frames_in_flight_max`) is what
/// normally counts, this one holds whatever that says.
const READING_MAX: usize = 1024;
/// Bytes of frames that are not whole yet, over all QUIC streams of a connection: eight of the
/// largest frames.
const READING_BYTES_MAX: usize = 8 * OBJECT_MAX;
/// How long a QUIC stream may take to say what it is, and a frame on one to be whole. Senders give frames up after a second;
/// one that is still begun after so long is held open to fill our memory. What a connection can hold of them is therefore
/// also bounded by what its link carries meanwhile.
const READ_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest hop header on a QUIC stream: lane, track, sequence.
const HOP_MAX: usize = 4 + 1 + 8;

/// Something that came.
#[derive(Debug)]
pub enum Arrival {
    /// The client opened its QUIC stream for requests.
    Requests(MessageSender, MessageReceiver),
    /// The relay opened its QUIC stream for room events.
    Events(MessageReceiver),
    /// The peer opened its QUIC stream for app messages.
    AppMessages(MessageReceiver),
    /// A frame: in its turn, or as soon as it is whole.
    Frame(Received),
    /// What came of a frame that is not whole; only where frames come as soon as they are whole.
    Piece(ReceivedPiece),
    /// Frames that will not come; only where frames come as soon as they are whole.
    GivenUp(GivenUp),
}

/// Says which lanes are expected. Clones act on the same connection.
#[derive(Clone, Debug)]
pub struct Lanes {
    hop: Arc<Mutex<HopReceiver>>,
    session: Session,
}

impl Lanes {
    /// Expects frames on `lane`; before that they are dropped.
    pub fn open(&self, lane: u32, delivery: Delivery) {
        if delivery == Delivery::QuicStream {
            self.session.permit_frames_on_streams();
        }
        self.hop().open_lane(lane, delivery);
    }

    /// Drops frames of `lane` from here on.
    pub fn close(&self, lane: u32) {
        self.hop().close_lane(lane);
    }

    /// What happened on the connection so far.
    pub fn stats(&self) -> HopStats {
        self.hop().stats()
    }

    fn hop(&self) -> MutexGuard<'_, HopReceiver> {
        // The machine keeps its invariants between calls, so a poisoned lock is as good as any.
        self.hop.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one QUIC stream turned out to be.
enum Read {
    Frame(HopHeader, Bytes),
    /// A frame that the peer gave up.
    Lost(HopHeader),
    Messages(StreamKind, RecvStream),
    Requests(SendStream, RecvStream),
    /// Given up before it said what it is.
    Nothing,
    Fault(WireError),
}

/// Everything that comes in on one connection.
pub struct Inbound {
    session: Session,
    lanes: Lanes,
    reading: FuturesUnordered<Pin<Box<dyn Future<Output = Read> + Send>>>,
    reading_bytes: Arc<AtomicUsize>,
    timer: Timer,
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Inbound {
    pub(super) fn new(session: Session, receiver: HopReceiver) -> (Self, Lanes) {
        let lanes = Lanes { hop: Arc::new(Mutex::new(receiver)), session: session.clone() };
        let inbound = Inbound {
            timer: session.clock.timer(),
            session,
            lanes: lanes.clone(),
            reading: FuturesUnordered::new(),
            reading_bytes: Arc::default(),
        };
        if let Some((send, recv)) = inbound.session.take_early() {
            inbound.reading.push(Box::pin(read_requests(send, recv)));
        }
        (inbound, lanes)
    }

    /// The next thing that came. Cancelling loses nothing.
    ///
    /// A peer that breaks a rule ends the connection, with the code that says which.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn next(&mut self) -> Result<Arrival, Ended> {
        loop {
            if let Some(received) = self.lanes.hop().poll_output() {
                return Ok(Arrival::Frame(received));
            }
            if let Some(given_up) = self.lanes.hop().poll_given_up() {
                return Ok(Arrival::GivenUp(given_up));
            }
            let now = self.session.clock.now();
            if let Some(piece) = self.lanes.hop().poll_piece(now) {
                return Ok(Arrival::Piece(piece));
            }
            let feedback = self.lanes.hop().poll_feedback(now);
            if let Some(feedback) = feedback {
                let mut datagram = Some(feedback.encode());
                // If it does not fit now, it would push out media; the next one says the same. If the connection has
                // ended, reading tells.
                _ = self
                    .session
                    .connection
                    .send_datagrams(|space| if space < DATAGRAM_MAX { None } else { datagram.take() });
            }
            let timeout = self.lanes.hop().poll_timeout();
            self.timer.reset(timeout);
            let connection = &self.session.connection;
            tokio::select! {
                biased;
                datagram = connection.read_datagram() => {
                    let datagram = datagram.map_err(|error| self.session.ended(error))?;
                    if let Err(fault) = self.handle_datagram(datagram) {
                        return Err(self.punish(&fault).await);
                    }
                }
                Some(read) = self.reading.next(), if !self.reading.is_empty() => {
                    if let Some(arrival) = self.handle_read(read).await? {
                        return Ok(arrival);
                    }
                }
                stream = connection.accept_uni(), if self.reading.len() < READING_MAX => {
                    let stream = stream.map_err(|error| self.session.ended(error))?;
                    let read = read(stream, Arc::clone(&self.reading_bytes));
                    self.reading.push(Box::pin(in_time(self.session.clock.clone(), read)));
                }
                stream = connection.accept_bi(), if self.reading.len() < READING_MAX => {
                    let (send, recv) = stream.map_err(|error| self.session.ended(error))?;
                    let read = read_requests(send, recv);
                    self.reading.push(Box::pin(in_time(self.session.clock.clone(), read)));
                }
                () = self.timer.expired() => {
                    let now = self.session.clock.now();
                    let mut hop = self.lanes.hop();
                    hop.set_rtt(self.session.connection.rtt());
                    hop.handle_timeout(now);
                }
            }
        }
    }

    fn handle_datagram(&self, datagram: Bytes) -> Result<(), Fault> {
        let now = self.session.clock.now();
        if datagram.first() == Some(&KIND_FEEDBACK) {
            self.session.out.handle_feedback(now, &Feedback::decode(datagram)?);
            return Ok(());
        }
        let bytes = datagram.len();
        self.lanes.hop().handle_packet(now, Packet::decode(datagram)?, bytes)
    }

    async fn handle_read(&mut self, read: Read) -> Result<Option<Arrival>, Ended> {
        let now = self.session.clock.now();
        match read {
            Read::Frame(hop, object) => {
                let taken = self.lanes.hop().handle_object(now, hop, object);
                if let Err(fault) = taken {
                    return Err(self.punish(&fault).await);
                }
            }
            Read::Lost(hop) => self.lanes.hop().handle_lost(hop),
            Read::Messages(kind, stream) => {
                let receiver = MessageReceiver::new(self.session.clone(), stream);
                return Ok(Some(match kind {
                    StreamKind::Events => Arrival::Events(receiver),
                    _ => Arrival::AppMessages(receiver),
                }));
            }
            Read::Requests(send, recv) => {
                let sender = MessageSender::answering(self.session.clone(), send);
                return Ok(Some(Arrival::Requests(sender, MessageReceiver::new(self.session.clone(), recv))));
            }
            Read::Nothing => {}
            Read::Fault(fault) => return Err(self.punish(&fault).await),
        }
        Ok(None)
    }

    async fn punish(&mut self, fault: &(impl Coded + std::fmt::Display)) -> Ended {
        self.session.close(fault.code(), &fault.to_string());
        self.session.closed().await
    }
}

/// Reads as `read` does, or gives up: a QUIC stream that is dropped is stopped.
async fn in_time(clock: Clock, read: impl Future<Output = Read>) -> Read {
    clock.timeout(READ_TIME_MAX, read).await.unwrap_or(Read::Nothing)
}

/// Reads a unidirectional QUIC stream as far as its kind asks for.
async fn read(mut stream: RecvStream, reading_bytes: Arc<AtomicUsize>) -> Read {
    let Ok(Some(kind)) = stream.read(1).await else { return Read::Nothing };
    match StreamKind::from_byte(kind[0]) {
        Some(StreamKind::Frame) => {
            let mut share = Share { total: reading_bytes, own: 0 };
            read_frame(stream, &mut share).await
        }
        Some(kind @ (StreamKind::Events | StreamKind::AppMessages)) => Read::Messages(kind, stream),
        Some(StreamKind::Requests) | None => {
            Read::Fault(WireError::invalid("QUIC stream kind", format!("{:#04x}", kind[0])))
        }
    }
}

/// Reads the kind of a bidirectional QUIC stream: there is only one.
async fn read_requests(send: SendStream, mut recv: RecvStream) -> Read {
    match recv.read(1).await {
        Ok(Some(kind)) if kind[0] == StreamKind::Requests as u8 => Read::Requests(send, recv),
        Ok(Some(kind)) => Read::Fault(WireError::invalid("QUIC stream kind", format!("{:#04x}", kind[0]))),
        Ok(None) | Err(_) => Read::Nothing,
    }
}

async fn read_frame(mut stream: RecvStream, share: &mut Share) -> Read {
    let mut bytes = BytesMut::new();
    loop {
        match stream.read(OBJECT_MAX).await {
            Ok(Some(chunk)) => {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > OBJECT_MAX + HOP_MAX || !share.grow(chunk.len()) {
                    let value = bytes.len() as u64;
                    return Read::Fault(WireError::TooLarge { what: "frame", value, max: OBJECT_MAX as u64 });
                }
            }
            Ok(None) => {
                let mut object = bytes.freeze();
                return match HopHeader::decode(&mut object) {
                    Ok(hop) => Read::Frame(hop, object),
                    Err(error) => Read::Fault(error),
                };
            }
            Err(_) => {
                return match HopHeader::decode(&mut bytes.freeze()) {
                    Ok(hop) => Read::Lost(hop),
                    Err(_) => Read::Nothing,
                };
            }
        }
    }
}

/// One frame's share of what its connection holds of unfinished frames; given back when dropped.
struct Share {
    total: Arc<AtomicUsize>,
    own: usize,
}

impl Share {
    fn grow(&mut self, bytes: usize) -> bool {
        self.own += bytes;
        self.total.fetch_add(bytes, Ordering::Relaxed) + bytes <= READING_BYTES_MAX
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.total.fetch_sub(self.own, Ordering::Relaxed);
    }
}
