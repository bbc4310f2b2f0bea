//! Receiving: packets and whole objects in, frames out, in the order of their hop sequence.
//!
//! Every lane and track has a window: the next sequence due, and what came ahead of it. A frame
//! that is missing is waited for, for as long as its way of travelling can still bring it, and
//! then given up; the frame after it says how many were missed. What the sender must know of it
//! goes back as reports. Nothing here decides whether a frame can be decoded.

mod cadence;
mod growing;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::piece::ReceivedPiece;
use super::policy::Link;
use crate::error::{Code, Coded};
use crate::rate::{FeedbackBuilder, ReceiveStats};
use crate::units::Timestamp;
use crate::wire::WireError;
use crate::wire::control::Delivery;
use crate::wire::feedback::{FRAMES_MAX, Feedback, IncompleteFrame};
use crate::wire::frame::{Frame, TRACKS_MAX};
use crate::wire::hop::HopHeader;
use crate::wire::packet::Packet;
#[cfg(test)]
pub(super) use growing::PIECE_AGE;
use window::Window;

/// How long a missing frame is waited for once a later one is whole, where packets are never sent
/// again: this only has to cover reordering, and jitter of access networks stays below it.
pub const HOLD_DATAGRAM: Duration = Duration::from_millis(30);
/// The same where they are: as long as the sender may try, see
/// [`FRAME_AGE_MAX`](crate::quic::media::FRAME_AGE_MAX).
pub const HOLD_QUIC_STREAM: Duration = Duration::from_millis(1000);

/// Sound and keyframes, which need no other frame, wait so long for those before them: these may be under
/// repair on an earlier hop, whose round trip nobody tells; a good one repairs within this.
pub const HOLD_ELSEWHERE: Duration = Duration::from_millis(100);

/// Incomplete frames of one track in one report.
const FRAMES_PER_TRACK: usize = 8;

/// A frame, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The publication or play it came on.
    pub lane: u32,
    /// Its track.
    pub track: u8,
    /// Its place among the frames of its lane and track.
    pub sequence: u64,
    /// The frame.
    pub frame: Frame,
    /// How many frames of this lane and track, just before this one, were sent but are lost. Always 0
    /// where frames are given out as they come.
    pub missed: u64,
    /// When its last byte came.
    pub arrived: Timestamp,
}

/// Frames that were given up: they will not be given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// The publication or play they were to come on.
    pub lane: u32,
    /// Their track.
    pub track: u8,
    /// Their sequences; a peer may jump, so that there can be any number.
    pub sequences: Range<u64>,
}

/// The peer broke a rule; the connection should be closed with [`Coded::code`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Bytes that cannot be read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Symbols that cannot be, or that contradict each other.
    #[error("on lane {lane}: {fault}")]
    Symbol {
        /// The lane.
        lane: u32,
        /// What is wrong.
        fault: crate::repair::Fault,
    },
}

impl Coded for Fault {
    fn code(&self) -> Code {
        match self {
            Fault::Wire(error) => error.code(),
            Fault::Symbol { fault, .. } => fault.code(),
        }
    }
}

/// What happened on a hop so far.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct HopStats {
    /// Frames given out.
    pub frames: u64,
    /// Bytes of their objects.
    pub bytes: u64,
    /// Frames that were sent and never became whole.
    pub missed: u64,
    /// Symbols and frames that came twice or after their frame was given up.
    pub stale: u64,
    /// Symbols and frames for lanes that are not open: the peer had not heard yet.
    pub homeless: u64,
}

/// Puts the frames of one connection together and in order, and reports what came.
#[derive(Debug, Default)]
pub struct HopReceiver {
    lanes: BTreeMap<u32, Lane>,
    /// Lanes and tracks where a whole frame waits for an earlier one.
    blocked: BTreeSet<(u32, u8)>,
    /// Lanes and tracks that want symbols.
    wanting: BTreeSet<(u32, u8)>,
    /// Lanes and tracks where a frame that is not whole is to be passed on.
    growing: BTreeSet<(u32, u8)>,
    /// When the next frame of a steady lane and track is late; by time, and by lane and track.
    expected: BTreeSet<(Timestamp, (u32, u8))>,
    expected_at: BTreeMap<(u32, u8), Timestamp>,
    link: Link,
    feedback: FeedbackBuilder,
    ready: VecDeque<Received>,
    /// Frames are given out as they come, and what was given up is told.
    eager: bool,
    given_up: VecDeque<GivenUp>,
    stats: HopStats,
}

#[derive(Debug)]
struct Lane {
    delivery: Delivery,
    tracks: [Window; TRACKS_MAX as usize],
}

impl HopReceiver {
    /// A receiver that gives out each frame as soon as it is whole, pieces of those that take longer, and
    /// tells which it gave up: for passing frames on.
    pub fn eager() -> Self {
        HopReceiver { eager: true, ..HopReceiver::default() }
    }

    /// Expects frames on `lane`. Opening it again keeps its place.
    pub fn open_lane(&mut self, lane: u32, delivery: Delivery) {
        self.lanes.entry(lane).or_insert_with(|| Lane { delivery, tracks: Default::default() }).delivery =
            delivery;
    }

    /// Forgets `lane` and what is held for it. Frames already in order still come out.
    pub fn close_lane(&mut self, lane: u32) {
        self.lanes.remove(&lane);
        self.blocked.retain(|&(other, _)| other != lane);
        self.wanting.retain(|&(other, _)| other != lane);
        self.growing.retain(|&(other, _)| other != lane);
        self.expected.retain(|&(_, (other, _))| other != lane);
        self.expected_at.retain(|&(other, _), _| other != lane);
        self.feedback.set_incomplete(!self.wanting.is_empty());
    }

    /// How long the link takes; a missing frame is waited for as long as repair may need.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.link.srtt = rtt;
    }

    /// Takes a media packet of `bytes` on the wire.
    ///
    /// # Errors
    /// [`Fault`] when the peer broke a rule.
    pub fn handle_packet(&mut self, now: Timestamp, packet: Packet, bytes: usize) -> Result<(), Fault> {
        self.feedback.set_calm(packet.is_calm);
        self.feedback.on_packet(now, packet.tx_seq, packet.tx_seq.saturating_add(packet.burst), bytes);
        for part in packet.parts {
            let hop = part.hop();
            let Some(lane) = self.lanes.get_mut(&hop.lane) else {
                self.stats.homeless += 1;
                continue;
            };
            let cuts = self.eager && lane.delivery != Delivery::QuicStream;
            let window = &mut lane.tracks[usize::from(hop.track)];
            let came =
                window.symbol(now, part, cuts).map_err(|fault| Fault::Symbol { lane: hop.lane, fault })?;
            for (sequence, object) in came {
                self.handle_object(now, HopHeader { sequence, ..hop }, object)?;
            }
            self.settle(hop);
        }
        Ok(())
    }

    /// Takes a whole object.
    ///
    /// # Errors
    /// [`Fault`] when it is not a frame.
    pub fn handle_object(&mut self, now: Timestamp, hop: HopHeader, object: Bytes) -> Result<(), Fault> {
        let frame = Frame::decode(object)?;
        if frame.header().track != hop.track {
            return Err(WireError::invalid("track", "frame header and hop header differ").into());
        }
        let Some(lane) = self.lanes.get_mut(&hop.lane) else {
            self.stats.homeless += 1;
            return Ok(());
        };
        if !lane.tracks[usize::from(hop.track)].whole(now, hop.sequence, frame) {
            self.stats.stale += 1;
        }
        self.settle(hop);
        Ok(())
    }

    /// The peer gave this frame up: it will not come.
    pub fn handle_lost(&mut self, hop: HopHeader) {
        let Some(lane) = self.lanes.get_mut(&hop.lane) else {
            self.stats.homeless += 1;
            return;
        };
        // A peer that finished it on one QUIC stream and reset another: what is whole stays.
        if !lane.tracks[usize::from(hop.track)].lost(hop.sequence) {
            self.stats.stale += 1;
        }
        self.settle(hop);
    }

    /// Gives up what was waited for too long. Call when [`poll_timeout`](Self::poll_timeout) has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        // A skip may uncover the next gap, itself overdue.
        loop {
            let due = self.waits().find(|(deadline, _)| *deadline <= now);
            let Some((_, hop)) = due else { break };
            if let Some(lane) = self.lanes.get_mut(&hop.lane) {
                lane.tracks[usize::from(hop.track)].skip();
            }
            self.settle(hop);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout), [`poll_feedback`](Self::poll_feedback) or
    /// [`poll_piece`](Self::poll_piece) is next needed.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let expected = self.expected.first().map(|&(due, _)| due);
        let grown = self.growing.iter().filter_map(|&key| self.piece_due(key)).min();
        let waits = self.waits().map(|(deadline, _)| deadline);
        waits.chain(expected).chain(grown).chain(self.feedback.poll_timeout()).min()
    }

    /// The next frame in order.
    pub fn poll_output(&mut self) -> Option<Received> {
        self.ready.pop_front()
    }

    /// What came of a frame that is not whole, of a receiver made by [`HopReceiver::eager`]. A frame that becomes
    /// whole, or is given up, is told of as all others are, whatever was passed on of it.
    pub fn poll_piece(&mut self, now: Timestamp) -> Option<ReceivedPiece> {
        let is_due = |&key: &(u32, u8)| self.piece_due(key).is_some_and(|due| due <= now);
        let key = self.growing.iter().copied().find(is_due)?;
        let (lane, track) = key;
        let window = &mut self.lanes.get_mut(&lane)?.tracks[usize::from(track)];
        let taken = window.take_piece(now);
        if window.piece_due().is_none() {
            self.growing.remove(&key);
        }
        taken.map(|(sequence, piece)| ReceivedPiece { lane, track, sequence, piece })
    }

    /// Frames that were given up, of a receiver made by [`HopReceiver::eager`].
    pub fn poll_given_up(&mut self) -> Option<GivenUp> {
        self.given_up.pop_front()
    }

    /// The report that the sender should have now, if one is due.
    pub fn poll_feedback(&mut self, now: Timestamp) -> Option<Feedback> {
        self.miss_late(now);
        if self.feedback.poll_timeout()? > now {
            return None;
        }
        let wait = self.feedback.reorder_wait();
        self.link.loss = self.feedback.loss();
        let mut frames = Vec::new();
        let given_up = now - (self.link.give_up() * 2).min(HOLD_QUIC_STREAM);
        for (lane, track) in self.wanting.clone() {
            if let Some(state) = self.lanes.get_mut(&lane) {
                let window = &mut state.tracks[usize::from(track)];
                window.stop_wanting(now, given_up);
                if !window.is_wanting() {
                    self.wanting.remove(&(lane, track));
                }
            }
        }
        self.feedback.set_incomplete(!self.wanting.is_empty());
        for &(lane, track) in &self.wanting {
            let Some(state) = self.lanes.get(&lane) else { continue };
            // A share for everyone: one track that lacks much must not hide the others.
            let wanted = state.tracks[usize::from(track)].wanted(now, wait).take(FRAMES_PER_TRACK);
            frames.extend(wanted.map(|(sequence, deficit)| IncompleteFrame {
                lane,
                track,
                sequence,
                deficit,
            }));
            if frames.len() >= FRAMES_MAX {
                break;
            }
        }
        self.feedback.poll_feedback(now, &frames)
    }

    /// What happened so far.
    pub fn stats(&self) -> HopStats {
        self.stats
    }

    /// What happened to packets so far.
    pub fn packet_stats(&self) -> ReceiveStats {
        self.feedback.stats()
    }

    fn piece_due(&self, (lane, track): (u32, u8)) -> Option<Timestamp> {
        self.lanes.get(&lane)?.tracks[usize::from(track)].piece_due()
    }

    /// Windows whose next frame is missing while a later one is whole, and until when to wait.
    fn waits(&self) -> impl Iterator<Item = (Timestamp, HopHeader)> + '_ {
        self.blocked.iter().filter_map(|&(lane, track)| {
            let state = self.lanes.get(&lane)?;
            let (sequence, arrived) = state.tracks[usize::from(track)].first_whole()?;
            let window = &state.tracks[usize::from(track)];
            let hold = match state.delivery {
                // Sound does not wait for sound, nor a keyframe for anything: not longer than one repair takes.
                delivery if delivery.is_repaired() && window.waits_for_nothing() => {
                    self.link.deadline().max(HOLD_ELSEWHERE)
                }
                Delivery::Datagram => HOLD_DATAGRAM,
                // What will not come, the sender says.
                Delivery::Adaptive | Delivery::LowLatency | Delivery::QuicStream => HOLD_QUIC_STREAM,
            };
            Some((arrived + hold, HopHeader { lane, track, sequence }))
        })
    }

    /// Asks for frames that should have come and did not.
    fn miss_late(&mut self, now: Timestamp) {
        while let Some(&(due, key)) = self.expected.first()
            && due <= now
        {
            self.expected.pop_first();
            self.expected_at.remove(&key);
            if let Some(lane) = self.lanes.get_mut(&key.0) {
                lane.tracks[usize::from(key.1)].miss_next();
                self.wanting.insert(key);
                self.feedback.set_incomplete(true);
                self.feedback.note_missing(now);
            }
        }
    }

    /// Gives out what is in order and brings the window back within its bounds.
    fn settle(&mut self, hop: HopHeader) {
        let key = (hop.lane, hop.track);
        let Some(lane) = self.lanes.get_mut(&hop.lane) else { return };
        let window = &mut lane.tracks[usize::from(hop.track)];
        if self.eager {
            for (sequence, frame, arrived) in window.take_whole() {
                self.stats.frames += 1;
                self.stats.bytes += frame.object().len() as u64;
                let HopHeader { lane, track, .. } = hop;
                self.ready.push_back(Received { lane, track, sequence, frame, missed: 0, arrived });
            }
        }
        loop {
            while let Some((frame, arrived, missed)) = window.release() {
                self.stats.frames += 1;
                self.stats.bytes += frame.object().len() as u64;
                let HopHeader { lane, track, .. } = hop;
                let sequence = window.next - 1;
                self.ready.push_back(Received { lane, track, sequence, frame, missed, arrived });
            }
            if window.is_bounded() {
                break;
            }
            window.skip();
        }
        for sequences in window.take_given_up() {
            // A peer may jump across the whole range, on every track.
            self.stats.missed = self.stats.missed.saturating_add(sequences.end - sequences.start);
            if self.eager {
                self.given_up.push_back(GivenUp { lane: hop.lane, track: hop.track, sequences });
            }
        }
        let note = |set: &mut BTreeSet<(u32, u8)>, is_in: bool| {
            if is_in {
                set.insert(key)
            } else {
                set.remove(&key)
            };
        };
        note(&mut self.blocked, window.first_whole().is_some());
        note(&mut self.growing, window.piece_due().is_some());
        note(&mut self.wanting, lane.delivery.is_repaired() && window.is_wanting());
        let due = window.cadence.due(self.feedback.reorder_wait()).filter(|_| lane.delivery.is_repaired());
        let before = match due {
            Some(due) => self.expected_at.insert(key, due),
            None => self.expected_at.remove(&key),
        };
        if before != due {
            before.map(|before| self.expected.remove(&(before, key)));
            self.expected.extend(due.map(|due| (due, key)));
        }
        self.feedback.set_incomplete(!self.wanting.is_empty());
    }
}

#[cfg(test)]
mod tests;
