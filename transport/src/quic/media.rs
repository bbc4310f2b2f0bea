//! The way out for frames: each on a QUIC stream of its own, or cut into datagrams.
//!
//! A frame is handed to quinn only while there is room, so that what waits, waits where whole
//! frames can still be dropped. A frame that is not delivered within [`FRAME_AGE_MAX`] is given up.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::VarInt;

use super::session::Session;
use crate::error::Code;
use crate::wire::control::{Delivery, StreamKind};
use crate::wire::frame::Frame;
use crate::wire::hop::{HopHeader, fragments};

/// A frame that the peer has not acknowledged for this long is of no use in a call any more.
pub const FRAME_AGE_MAX: Duration = Duration::from_millis(1000);
/// Urgent frames get through beside everything else, up to this many unacknowledged bytes: two
/// seconds of 60 voices at 32 kbit/s, which no queue of a working link holds.
const URGENT_MAX: usize = 512 * 1024;
/// The share of the congestion window that frames may fill. Above one, so that quinn finds the
/// window full and lets it grow; the rest is at most one round trip of queue.
const WINDOW_SHARE: u64 = 2;
/// A connection's rate is not believed to be higher than this without proof (bytes/s, 10 Mbit/s):
/// the window of a connection that never filled it says nothing about the link.
const RATE_MAX: u64 = 1_250_000;

/// A frame to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The publication or play.
    pub lane: u32,
    /// How it travels.
    pub delivery: Delivery,
    /// Sound, or what else must not wait behind pictures.
    pub urgent: bool,
    /// The frame; its header names the track.
    pub frame: Frame,
}

struct Left {
    bytes: usize,
    urgent: bool,
    delivered: bool,
}

/// Sends the frames of one connection.
pub struct MediaSender {
    session: Session,
    sequences: BTreeMap<(u32, u8), u64>,
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = Left> + Send>>>,
    bytes: usize,
    bytes_urgent: usize,
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
            session,
            sequences: BTreeMap::new(),
            under_way: FuturesUnordered::new(),
            bytes: 0,
            bytes_urgent: 0,
            given_up: 0,
        }
    }

    /// Whether a frame of `bytes` would leave at once. One frame always may, whatever its size.
    pub fn has_room(&self, bytes: usize, urgent: bool) -> bool {
        if urgent {
            return self.bytes_urgent + bytes <= URGENT_MAX;
        }
        let window = self.session.quinn.stats().path.cwnd;
        self.bytes == 0 || (self.bytes + bytes) as u64 <= WINDOW_SHARE * window
    }

    /// What the connection carries, in bytes/s, as far as is known: for deciding what is worth sending.
    pub fn rate_estimate(&self) -> u64 {
        let path = self.session.quinn.stats().path;
        let rtt = path.rtt.max(Duration::from_millis(1));
        (path.cwnd.saturating_mul(1_000_000) / rtt.as_micros() as u64).min(RATE_MAX)
    }

    /// Sends a frame. It gets the next hop sequence of its lane and track. It begins to move at
    /// the next [`progress`](Self::progress).
    pub fn send(&mut self, outgoing: Outgoing) {
        let Outgoing { lane, delivery, urgent, frame } = outgoing;
        let track = frame.header().track;
        let next = self.sequences.entry((lane, track)).or_default();
        let hop = HopHeader { lane, track, sequence: *next };
        *next += 1;
        let bytes = frame.object().len();
        if urgent {
            self.bytes_urgent += bytes;
        } else {
            self.bytes += bytes;
        }
        let session = self.session.clone();
        self.under_way.push(Box::pin(async move {
            let clock = session.clock.clone();
            let delivered = match delivery {
                Delivery::QuicStream => send_on_stream(session, hop, frame, urgent).await,
                Delivery::Datagram => {
                    let sent = clock.timeout(FRAME_AGE_MAX, send_datagrams(session, hop, frame)).await;
                    sent.unwrap_or(false)
                }
            };
            Left { bytes, urgent, delivered }
        }));
    }

    /// Moves frames on their way. Returns when one has left and there may be more room; never
    /// returns while nothing is under way. Cancelling loses nothing.
    pub async fn progress(&mut self) {
        match self.under_way.next().await {
            Some(left) => {
                let bytes = if left.urgent { &mut self.bytes_urgent } else { &mut self.bytes };
                *bytes -= left.bytes;
                self.given_up += u64::from(!left.delivered);
            }
            None => std::future::pending().await,
        }
    }

    /// Forgets a lane that ended.
    pub fn forget_lane(&mut self, lane: u32) {
        self.sequences.retain(|&(other, _), _| other != lane);
    }

    /// Frames that were not delivered in time.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }
}

async fn send_on_stream(session: Session, hop: HopHeader, frame: Frame, urgent: bool) -> bool {
    let deadline = session.clock.now() + FRAME_AGE_MAX;
    let Ok(Ok(mut stream)) = session.clock.timeout(FRAME_AGE_MAX, session.quinn.open_uni()).await else {
        return false;
    };
    _ = stream.set_priority(i32::from(urgent));
    let mut head = BytesMut::with_capacity(16);
    head.put_u8(StreamKind::Frame as u8);
    hop.encode(&mut head);
    let left = deadline.saturating_since(session.clock.now());
    let delivery = async {
        stream.write_all_chunks(&mut [head.freeze(), frame.object().clone()]).await.ok()?;
        stream.finish().ok()?;
        stream.stopped().await.ok()
    };
    match session.clock.timeout(left, delivery).await {
        Ok(Some(None)) => true,
        Ok(_) => false,
        Err(_) => {
            _ = stream.reset(VarInt::from_u32(Code::PeerTooSlow.number()));
            false
        }
    }
}

async fn send_datagrams(session: Session, hop: HopHeader, frame: Frame) -> bool {
    for datagram in fragments(hop, frame.object()) {
        if session.quinn.send_datagram_wait(datagram).await.is_err() {
            return false;
        }
    }
    true
}
