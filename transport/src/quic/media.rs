//! The way out for frames: as packets at the pace of the hop, or each on a QUIC stream of its own.
//!
//! A frame is handed over only while there is room, so that what waits, waits where whole frames
//! can still be dropped. A frame that is not delivered within [`FRAME_AGE_MAX`] is given up.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::VarInt;
use tokio::sync::Notify;

use super::congestion::WindowTarget;
use super::driver::Connection;
use super::session::Session;
use crate::clock::{Clock, Timer};
use crate::error::Code;
use crate::hop::{Ablation, CodedFrame, HopSender, Piece, SendStats};
use crate::units::Timestamp;
use crate::wire::control::{Delivery, StreamKind};
use crate::wire::feedback::Feedback;
use crate::wire::frame::Frame;
use crate::wire::hop::{DATAGRAM_MAX, HopHeader};

/// A frame that the peer has not acknowledged for this long is of no use in a call any more.
pub const FRAME_AGE_MAX: Duration = Duration::from_millis(1000);
/// Urgent frames get through beside everything else, up to this many unacknowledged bytes: two
/// seconds of 60 voices at 32 kbit/s, which no queue of a working link holds.
const URGENT_MAX: usize = 512 * 1024;
/// The share of the congestion window that frames on QUIC streams may fill. Above one, so that
/// QUIC finds the window full and lets it grow; the rest is at most one round trip of queue.
const WINDOW_SHARE: u64 = 2;
/// Datagrams are handed over while there is room for two, with what QUIC counts for each beside its bytes, and some.
const DATAGRAM_ROOM: usize = 2 * (DATAGRAM_MAX + 64);
/// When QUIC's queue is full after all, it is asked again this much later.
const RETRY: Duration = Duration::from_millis(5);

/// A frame to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The publication or play.
    pub lane: u32,
    /// How it travels.
    pub delivery: Delivery,
    /// Sound, or what else must not wait behind pictures.
    pub urgent: bool,
    /// The sequence that was [reserved](MediaSender::reserve) for it, if one was.
    pub sequence: Option<u64>,
    /// The frame; its header names the track. Clones of one share what is coded of it.
    pub frame: CodedFrame,
}

/// The hop's sending side, shared between who sends frames and who reads reports.
#[derive(Debug)]
pub(super) struct Out {
    hop: Mutex<HopSender>,
    connection: Connection,
    clock: Clock,
    window: WindowTarget,
    /// A report changed what may leave, and when.
    reported: Notify,
}

impl Out {
    pub(super) fn new(
        connection: Connection,
        clock: Clock,
        window: WindowTarget,
        ablation: Ablation,
    ) -> Self {
        Out {
            hop: Mutex::new(HopSender::without(ablation)),
            connection,
            clock,
            window,
            reported: Notify::new(),
        }
    }

    fn hop(&self) -> MutexGuard<'_, HopSender> {
        // The machine keeps its invariants between calls, so a poisoned lock is as good as any.
        self.hop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a report, and sends at once what it asks for. A report that cannot be true is counted.
    pub(super) fn handle_feedback(&self, now: Timestamp, feedback: &Feedback) {
        let mut hop = self.hop();
        if hop.handle_feedback(now, feedback).is_ok() {
            self.window.set(hop.quic_window());
            self.pump(now, &mut hop);
            self.reported.notify_one();
        }
    }

    /// Sends what may leave now. Gives the time to come again.
    fn pump(&self, now: Timestamp, hop: &mut HopSender) -> Option<Timestamp> {
        let next = hop.poll_timeout(now)?;
        if next > now {
            return Some(next);
        }
        let mut is_full = false;
        let sent = self.connection.send_datagrams(|space| {
            is_full = space < DATAGRAM_ROOM;
            if is_full { None } else { hop.poll_transmit(now) }
        });
        match sent {
            Ok(()) if is_full => Some(now + RETRY),
            Ok(()) => hop.poll_timeout(now),
            Err(_) => None,
        }
    }
}

struct Left {
    bytes: usize,
    urgent: bool,
    delivered: bool,
}

/// Sends the frames of one connection.
pub struct MediaSender {
    session: Session,
    timer: Timer,
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = Left> + Send>>>,
    bytes: usize,
    bytes_urgent: usize,
    delivered: u64,
    given_up: u64,
}

impl std::fmt::Debug for MediaSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MediaSender").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl MediaSender {
    pub(super) fn new(session: Session) -> Self {
        MediaSender {
            timer: session.clock.timer(),
            session,
            under_way: FuturesUnordered::new(),
            bytes: 0,
            bytes_urgent: 0,
            delivered: 0,
            given_up: 0,
        }
    }

    /// Whether a frame of `bytes` would leave soon. One frame always may, whatever its size.
    pub fn has_room(&self, bytes: usize, delivery: Delivery, urgent: bool) -> bool {
        if delivery != Delivery::QuicStream {
            return self.session.out.hop().has_room(self.session.clock.now(), bytes, urgent);
        }
        if urgent {
            return self.bytes_urgent + bytes <= URGENT_MAX;
        }
        let window = self.session.connection.stats().path.cwnd;
        self.bytes == 0 || (self.bytes + bytes) as u64 <= WINDOW_SHARE * window
    }

    /// What the connection carries, in bytes/s, as far as is known: for deciding what is worth sending.
    pub fn rate_estimate(&self) -> u64 {
        self.session.out.hop().burst_estimate() / 8
    }

    /// Takes the next hop sequence of a lane and track, for a frame that is not here yet: others may leave
    /// before it, and the peer still gets them in order.
    pub fn reserve(&mut self, lane: u32, track: u8) -> u64 {
        self.session.out.hop().reserve(lane, track)
    }

    /// Tells the peer that the frame of a reserved sequence will not come.
    pub fn give_up(&mut self, lane: u32, track: u8, sequence: u64) {
        self.session.out.hop().give_up(self.session.clock.now(), lane, track, sequence);
    }

    /// Takes a frame, under the sequence that was reserved for it or the next of its lane and track. It leaves with the
    /// next [`flush`](Self::flush), together with what else was taken until then.
    pub fn send(&mut self, outgoing: Outgoing) {
        let Outgoing { lane, delivery, urgent, sequence, frame } = outgoing;
        let track = frame.header().track;
        let sequence = sequence.unwrap_or_else(|| self.reserve(lane, track));
        if delivery == Delivery::QuicStream {
            self.send_on_stream(HopHeader { lane, track, sequence }, urgent, Frame::clone(&frame));
            return;
        }
        let now = self.session.clock.now();
        if self.session.out.hop().send_reserved(now, lane, sequence, delivery, urgent, &frame).is_err() {
            debug_assert!(false, "an object of a frame can always be cut");
        }
    }

    /// Takes what came of a frame that is not whole, under the sequence that was reserved for it. Never of a stream that
    /// travels on QUIC streams.
    pub fn send_piece(&mut self, lane: u32, sequence: u64, urgent: bool, piece: &Piece) {
        self.session.out.hop().send_piece(self.session.clock.now(), lane, sequence, urgent, piece);
    }

    /// Lets leave what was taken, as far as the pace allows; the rest follows with [`progress`](Self::progress).
    pub fn flush(&mut self) {
        let out = &self.session.out;
        let next = out.pump(out.clock.now(), &mut out.hop());
        self.timer.reset(next);
    }

    /// Moves frames on their way. Returns when something has left and there may be more room; never
    /// returns while nothing is under way. Cancelling loses nothing.
    pub async fn progress(&mut self) {
        tokio::select! {
            biased;
            Some(left) = self.under_way.next(), if !self.under_way.is_empty() => {
                let bytes = if left.urgent { &mut self.bytes_urgent } else { &mut self.bytes };
                *bytes -= left.bytes;
                let counter = if left.delivered { &mut self.delivered } else { &mut self.given_up };
                *counter += 1;
            }
            () = self.session.out.reported.notified() => self.flush(),
            () = self.timer.expired() => self.flush(),
        }
    }

    /// Forgets a lane that ended.
    pub fn forget_lane(&mut self, lane: u32) {
        self.session.out.hop().forget_lane(lane);
    }

    /// Whether parity follows frames before losses are reported: [`HopSender::set_parity`].
    pub fn set_parity(&mut self, parity: bool) {
        self.session.out.hop().set_parity(parity);
    }

    /// What the peer has taken so far.
    pub fn reception(&self) -> Reception {
        let hop = self.session.out.hop();
        let silence = hop.silence(self.session.clock.now());
        Reception {
            packets: hop.stats().packets,
            silence,
            delivered: self.delivered,
            given_up: self.given_up,
        }
    }

    fn send_on_stream(&mut self, hop: HopHeader, urgent: bool, frame: Frame) {
        let bytes = frame.object().len();
        if urgent {
            self.bytes_urgent += bytes;
        } else {
            self.bytes += bytes;
        }
        let session = self.session.clone();
        self.under_way.push(Box::pin(async move {
            let delivered = send_on_stream(session, hop, frame, urgent).await;
            Left { bytes, urgent, delivered }
        }));
    }
}

/// What a peer has taken of what it was sent.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Reception {
    /// Packets of media that left.
    pub packets: u64,
    /// For how long some have gone out and no report has come.
    pub silence: Duration,
    /// Frames on QUIC streams that it has.
    pub delivered: u64,
    /// Frames on QUIC streams that it has not, in time.
    pub given_up: u64,
}

/// How the hop's sending side does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutStats {
    /// What the link carries, bits/s.
    pub rate: u64,
    /// What is left of it for media once repair has its share, bits/s.
    pub media_target: u64,
    /// Share of packets lost, 0 to 1.
    pub loss: f64,
    /// What repair of all kinds is expected to add to the media, as a share of it.
    pub overhead: f64,
    /// Whether the link is so full that the next frames are better left out.
    pub overfull: bool,
    /// For how long the oldest frame has waited that has not left entirely.
    pub queue_age: Duration,
    /// Bytes of datagrams by kind.
    pub sent: SendStats,
}

impl Session {
    /// How the sending side does: rate, loss, and what left.
    pub fn out_stats(&self) -> OutStats {
        let hop = self.out.hop();
        OutStats {
            rate: hop.rate(),
            media_target: hop.media_target(),
            loss: hop.link().loss,
            overhead: hop.link().overhead(),
            overfull: hop.is_overfull(self.clock.now()),
            queue_age: hop.queue_age(self.clock.now()),
            sent: hop.stats(),
        }
    }
}

async fn send_on_stream(session: Session, hop: HopHeader, frame: Frame, urgent: bool) -> bool {
    let deadline = session.clock.now() + FRAME_AGE_MAX;
    let Ok(Ok(mut stream)) = session.clock.timeout(FRAME_AGE_MAX, session.connection.open_uni()).await else {
        return false;
    };
    stream.set_priority(i32::from(urgent));
    let mut head = BytesMut::with_capacity(16);
    head.put_u8(StreamKind::Frame as u8);
    hop.encode(&mut head);
    let left = deadline.saturating_since(session.clock.now());
    let delivery = async {
        stream.write(head.freeze()).await?;
        stream.write(frame.object().clone()).await?;
        stream.finish()?;
        stream.delivered().await
    };
    match session.clock.timeout(left, delivery).await {
        Ok(delivered) => delivered.is_ok(),
        Err(_) => {
            stream.reset(VarInt::from_u32(Code::PeerTooSlow.number()));
            false
        }
    }
}
