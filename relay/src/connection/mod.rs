//! One connection: one user's stay in one room.
//!
//! Tasks, none of which waits for another: requests in (`requests`), answers out (`requests`), room events
//! out (`events`), messages between users in and out (`messages`), frames out (`plays`); frames come in here.
//! When one of them ends, the
//! connection ends, and the lobby hears of it once.

mod events;
pub(crate) mod messages;
mod plays;
mod requests;
mod speaker;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use parlor_transport::error::{Code, Coded, Refusal};
use parlor_transport::hop::{GivenUp, Received, ReceivedPiece};
use parlor_transport::id::SessionId;
use parlor_transport::quic::{Arrival, Ended, Session};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{Departure, FramesRefused, RelayMessage};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::allowance::{Allowance, Fate};
use crate::budget::Budget;
use crate::forward::publication::Inlet;
use crate::limits::{Limits, PACKET_SECONDS_AT_ONCE, PACKETS_CHECK_INTERVAL, UNJOINED_MAX};
use crate::lobby::Notice;
use crate::lock;
use crate::server::{Connected, Hub, Mail};
use messages::Messages;
use plays::Plays;

/// What the tasks of one connection share.
struct Connection {
    hub: Arc<Hub>,
    id: SessionId,
    session: Session,
    mail: mpsc::Sender<Mail>,
    /// App messages for this client.
    messages: Arc<Messages>,
    /// What this client publishes, by lane.
    publications: Mutex<BTreeMap<u32, Inlet>>,
    /// Some publication needs a keyframe.
    keyframes: Arc<Notify>,
    plays: Arc<Plays>,
}

impl Connection {
    /// Ends the connection for a fault of the client's, after telling it why.
    fn hang_up(&self, refusal: &Refusal) {
        let (room, user) = self.hub.place(self.id);
        tracing::warn!(session = self.id.0, room, user, %refusal, "closing");
        let mail = Mail::Notice(Notice::Close(refusal.clone()));
        if self.mail.try_send(mail).is_err() {
            self.session.close(refusal.code, &refusal.text);
        }
    }

    /// Tells what is published on `lane` of something that came; hangs up when it does not fit.
    fn forward(&self, lane: u32, tell: impl FnOnce(&Inlet, Timestamp) -> Result<(), Refusal>) {
        // None: it was unpublished a moment ago.
        let Some(inlet) = lock(&self.publications).get(&lane).cloned() else { return };
        if let Err(refusal) = tell(&inlet, self.hub.clock().now()) {
            // Once is enough: what else comes on this lane is not looked at.
            lock(&self.publications).remove(&lane);
            self.hang_up(&refusal);
        }
    }

    /// Takes a frame that came, if its publisher may publish so much.
    fn take(&self, allowance: &mut Allowance, received: Received) {
        let Received { lane, track, sequence, frame, .. } = received;
        let (now, bytes, counts) = (self.hub.clock().now(), frame.object().len(), self.hub.counts());
        counts.frames_received.fetch_add(1, Ordering::Relaxed);
        counts.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
        let fate = allowance.take(now, lane, bytes);
        if fate == Fate::Passes {
            return self.forward(lane, |inlet, now| {
                let is_heard = inlet.take(now, track, sequence, frame)?;
                counts.frames_unheard.fetch_add(u64::from(!is_heard), Ordering::Relaxed);
                Ok(())
            });
        }
        counts.frames_over_limit.fetch_add(1, Ordering::Relaxed);
        self.forward(lane, |inlet, now| inlet.give_up(now, track, sequence..sequence + 1));
        match fate {
            Fate::EndsStream(lane) => self.hub.end_stream_over_limit(self.id, lane),
            Fate::Dropped { tell: true } => {
                let (code, max) = (Code::TooManyBytes, allowance.per_second());
                tracing::info!(session = self.id.0, lane, max, "frames are dropped: too many bytes a second");
                self.hub.operate(|_, _, lobby| lobby.count_refused(code));
                let text = format!(
                    "frames are dropped: more than {max} bytes a second are published; lower the bitrate, or the stream \
                     is removed"
                );
                let refused = FramesRefused { lane, refusal: Refusal::new(code, text) };
                // Where there is no room, the next one says the same.
                _ = self.mail.try_send(Mail::Notice(Notice::Send(RelayMessage::FramesRefused(refused))));
            }
            Fate::Dropped { tell: false } | Fate::Passes => {}
        }
    }

    /// Ends a connection that sends more packets than it may.
    fn end_flood(&self, limits: &Limits) {
        let code = Code::TooManyPackets;
        let max = limits.packets_per_second_max;
        let text = format!("more than {max} packets a second came on this connection; send less");
        let (room, user) = self.hub.place(self.id);
        tracing::warn!(session = self.id.0, room, user, max, "closing: too many packets");
        self.hub.operate(|_, _, lobby| lobby.count_refused(code));
        // At once: what waits to be told in order would wait behind the flood.
        self.session.close(code, &text);
    }

    /// A QUIC stream failed with `ended`: either the connection is over, and there is nothing to do, or
    /// the client broke a control stream off, and it is over now.
    fn give_up(&self, ended: &Ended) {
        if ended.code == Code::ProtocolViolation {
            self.session.close(ended.code, &ended.text);
        }
    }
}

/// Serves a connection to its end.
pub(crate) async fn run(hub: Arc<Hub>, session: Session) {
    let remote = session.remote_address();
    let Connected { id, mail, inbox, messages } = match hub.connect(session.clone()) {
        Ok(connected) => connected,
        Err(refusal) => {
            tracing::warn!(%remote, %refusal, "connection refused");
            return session.close(refusal.code, &refusal.text);
        }
    };
    tracing::debug!(session = id.0, %remote, "connected");
    let connection = Arc::new(Connection {
        hub: hub.clone(),
        id,
        session: session.clone(),
        mail,
        messages,
        publications: Mutex::default(),
        keyframes: Arc::default(),
        plays: Arc::default(),
    });
    let mut tasks = JoinSet::new();
    let ended = receive(&connection, inbox, &mut tasks).await;
    // Nothing of this connection runs any more when the lobby hears that it is gone.
    tasks.shutdown().await;
    connection.plays.clear();
    let (room, user) = hub.place(id);
    tracing::info!(session = id.0, %remote, room, user, %ended, by_peer = ended.by_peer, "connection ended");
    hub.disconnect(id, departure(&ended), was_lost(&ended));
}

/// Takes what comes in until the connection ends.
async fn receive(
    connection: &Arc<Connection>,
    inbox: mpsc::Receiver<Mail>,
    tasks: &mut JoinSet<()>,
) -> Ended {
    let (mut inbound, lanes) = connection.session.inbound_eager();
    let mut inbox = Some(inbox);
    let mut has_messages = false;
    let clock = connection.hub.clock();
    let mut silence = clock.timer();
    silence.reset(Some(clock.now() + UNJOINED_MAX));
    let mut settings = connection.hub.watch_settings();
    let mut limits = settings.borrow_and_update().limits.clone();
    let mut allowance = Allowance::new(clock.now(), &limits);
    let mut packets = Packets::new(clock.now(), &limits);
    let mut packets_timer = clock.timer();
    packets_timer.reset(Some(clock.now() + PACKETS_CHECK_INTERVAL));
    loop {
        let arrival = tokio::select! {
            biased;
            arrival = inbound.next() => match arrival {
                Ok(arrival) => arrival,
                Err(ended) => return ended,
            },
            Some(finished) = tasks.join_next(), if !tasks.is_empty() => {
                if finished.is_err_and(|error| error.is_panic()) {
                    tracing::error!(session = connection.id.0, "a task of this connection panicked; please report it");
                    connection.session.close(Code::Internal, Code::Internal.text());
                }
                continue;
            }
            () = packets_timer.expired() => {
                if !packets.count(clock.now(), connection.session.units_received()) {
                    connection.end_flood(&limits);
                }
                packets_timer.reset(Some(clock.now() + PACKETS_CHECK_INTERVAL));
                continue;
            }
            Ok(()) = settings.changed() => {
                limits = settings.borrow_and_update().limits.clone();
                allowance.set_limits(clock.now(), &limits);
                packets.set_limits(clock.now(), &limits);
                continue;
            }
            () = silence.expired() => {
                let text = "no request came; open the QUIC stream for requests at once";
                connection.session.close(Code::HeartbeatTimeout, text);
                continue;
            }
        };
        match arrival {
            Arrival::Frame(received) => connection.take(&mut allowance, received),
            // The frame that it belongs to is counted, and perhaps dropped, when it is whole.
            Arrival::Piece(_) if allowance.is_over() => {}
            Arrival::Piece(ReceivedPiece { lane, track, sequence, piece }) => {
                connection.forward(lane, |inlet, now| inlet.grow(now, track, sequence, piece));
            }
            Arrival::GivenUp(GivenUp { lane, track, sequences }) => {
                // A peer may jump across the whole range.
                let lost = (sequences.end - sequences.start).min(u64::from(u32::MAX));
                connection.hub.counts().frames_lost.fetch_add(lost, Ordering::Relaxed);
                connection.forward(lane, |inlet, now| inlet.give_up(now, track, sequences));
            }
            Arrival::Requests(sender, receiver) => match inbox.take() {
                Some(inbox) => {
                    silence.reset(None);
                    tasks.spawn(requests::read(connection.clone(), receiver));
                    tasks.spawn(requests::write(connection.clone(), lanes.clone(), sender, inbox));
                    tasks.spawn(plays::send(connection.clone(), limits.voice_window));
                    tasks.spawn(messages::write(connection.clone()));
                }
                None => {
                    let text = "a second QUIC stream for requests; a connection has one";
                    connection.hang_up(&Refusal::new(Code::ProtocolViolation, text));
                }
            },
            Arrival::Events(_) => {
                let text = "only the relay opens a QUIC stream for room events";
                connection.hang_up(&Refusal::new(Code::ProtocolViolation, text));
            }
            Arrival::AppMessages(receiver) if !std::mem::replace(&mut has_messages, true) => {
                tasks.spawn(messages::read(connection.clone(), receiver));
            }
            Arrival::AppMessages(_) => {
                let text = "a second QUIC stream for app messages; a connection has one";
                connection.hang_up(&Refusal::new(Code::ProtocolViolation, text));
            }
        }
    }
}

/// How many packets a connection may send.
struct Packets {
    budget: Budget,
    counted: u64,
}

impl Packets {
    fn new(now: Timestamp, limits: &Limits) -> Self {
        let per_second = limits.packets_per_second_max;
        let budget = Budget::new(now, per_second.saturating_mul(PACKET_SECONDS_AT_ONCE), per_second);
        Packets { budget, counted: 0 }
    }

    fn set_limits(&mut self, now: Timestamp, limits: &Limits) {
        let per_second = limits.packets_per_second_max;
        self.budget.set(now, per_second.saturating_mul(PACKET_SECONDS_AT_ONCE), per_second);
    }

    /// So many have come in all; false when they are too many.
    fn count(&mut self, now: Timestamp, received: u64) -> bool {
        let came = u32::try_from(received - self.counted).unwrap_or(u32::MAX);
        self.counted = received;
        self.budget.spend(now, came)
    }
}

/// Whether neither side wanted the end, so that the client may come back. What a client closes with a code that may
/// pass, it gave up for lost.
fn was_lost(ended: &Ended) -> bool {
    matches!(ended.code(), Code::HeartbeatTimeout | Code::ConnectionLost)
        || ended.by_peer && ended.code().is_retryable()
}

/// What others are told of why the user is gone.
fn departure(ended: &Ended) -> Departure {
    match ended.code() {
        Code::Ok if ended.by_peer => Departure::Left,
        Code::HeartbeatTimeout => Departure::HeartbeatTimeout,
        _ => Departure::Disconnected,
    }
}
