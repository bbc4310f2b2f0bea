//! Receiving: fragments and whole objects in, frames out, in the order of their hop sequence.
//!
//! Every lane and track has a window: the next sequence due, and what came ahead of it. A frame
//! that is missing is waited for, for as long as its way of travelling can still bring it, and
//! then given up; the frame after it says how many were missed. Nothing here decides whether a
//! frame can be decoded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::error::{Code, Coded};
use crate::units::Timestamp;
use crate::wire::WireError;
use crate::wire::control::Delivery;
use crate::wire::frame::{Frame, OBJECT_MAX, TRACKS_MAX};
use crate::wire::hop::{Fragment, HopHeader};

/// How long a missing frame is waited for once a later one is whole. Datagrams are never sent
/// again, so this only has to cover reordering: jitter of access networks stays below it.
pub const HOLD_DATAGRAM: Duration = Duration::from_millis(30);
/// The same for QUIC streams: as long as the sender may try, see
/// [`FRAME_AGE_MAX`](crate::quic::media::FRAME_AGE_MAX).
pub const HOLD_QUIC_STREAM: Duration = Duration::from_millis(1000);
/// Frames held for one track while an earlier one is missing: one second at 60 frames/s.
const HELD_FRAMES_MAX: usize = 64;
/// Bytes held for one track: two of the largest objects.
const HELD_BYTES_MAX: usize = 2 * OBJECT_MAX;

/// What keeping one fragment costs beside its bytes: a map entry and an allocation.
const FRAGMENT_COST: usize = 64;

/// A frame, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The publication or play it came on.
    pub lane: u32,
    /// Its track.
    pub track: u8,
    /// The frame.
    pub frame: Frame,
    /// How many frames of this lane and track, just before this one, were sent but are lost.
    pub missed: u64,
    /// When its last byte came.
    pub arrived: Timestamp,
}

/// The peer broke a rule; the connection should be closed with [`Coded::code`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Bytes that cannot be read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Fragments of one frame that contradict each other.
    #[error("fragments of frame {sequence} on lane {lane} contradict each other: {why}")]
    Contradiction {
        /// The lane.
        lane: u32,
        /// The frame's hop sequence.
        sequence: u64,
        /// How.
        why: &'static str,
    },
}

impl Coded for Fault {
    fn code(&self) -> Code {
        match self {
            Fault::Wire(error) => error.code(),
            Fault::Contradiction { .. } => Code::ProtocolViolation,
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
    /// Fragments and frames that came twice or after their frame was given up.
    pub stale: u64,
    /// Fragments and frames for lanes that are not open: the peer had not heard yet.
    pub homeless: u64,
}

/// Puts the frames of one connection together and in order.
#[derive(Default, Debug)]
pub struct HopReceiver {
    lanes: BTreeMap<u32, Lane>,
    /// Lanes and tracks where a whole frame waits for an earlier one.
    blocked: BTreeSet<(u32, u8)>,
    ready: VecDeque<Received>,
    stats: HopStats,
}

#[derive(Debug)]
struct Lane {
    hold: Duration,
    tracks: [Window; TRACKS_MAX as usize],
}

#[derive(Default, Debug)]
struct Window {
    next: u64,
    ahead: BTreeMap<u64, Slot>,
    bytes: usize,
    /// Missed since the last frame given out.
    missed: u64,
}

#[derive(Debug)]
enum Slot {
    Partial(Assembly),
    Whole { frame: Frame, arrived: Timestamp },
    Lost,
}

#[derive(Debug)]
struct Assembly {
    count: u64,
    bytes: usize,
    fragments: BTreeMap<u64, Bytes>,
}

impl HopReceiver {
    /// Expects frames on `lane`. Opening it again keeps its place.
    pub fn open_lane(&mut self, lane: u32, delivery: Delivery) {
        let hold = match delivery {
            Delivery::Datagram => HOLD_DATAGRAM,
            Delivery::QuicStream => HOLD_QUIC_STREAM,
        };
        self.lanes.entry(lane).or_insert_with(|| Lane { hold, tracks: Default::default() }).hold = hold;
    }

    /// Forgets `lane` and what is held for it. Frames already in order still come out.
    pub fn close_lane(&mut self, lane: u32) {
        self.lanes.remove(&lane);
        self.blocked.retain(|&(blocked, _)| blocked != lane);
    }

    /// Takes a media datagram's content.
    ///
    /// # Errors
    /// [`Fault`] when the peer broke a rule.
    pub fn handle_fragment(&mut self, now: Timestamp, fragment: Fragment) -> Result<(), Fault> {
        let hop = fragment.hop;
        let Some(window) = self.window(hop) else { return Ok(()) };
        let contradiction = |why| Fault::Contradiction { lane: hop.lane, sequence: hop.sequence, why };
        let slot = window.ahead.entry(hop.sequence).or_insert_with(|| {
            Slot::Partial(Assembly { count: fragment.count, bytes: 0, fragments: BTreeMap::new() })
        });
        let Slot::Partial(assembly) = slot else {
            self.stats.stale += 1;
            return Ok(());
        };
        if assembly.count != fragment.count {
            return Err(contradiction("different fragment counts"));
        }
        let size = fragment.bytes.len();
        if assembly.fragments.contains_key(&fragment.index) {
            self.stats.stale += 1;
            return Ok(());
        }
        if assembly.bytes + size > OBJECT_MAX {
            return Err(contradiction("larger than a frame may be"));
        }
        // A copy: the datagram's own buffer may be a whole batch that quinn received at once.
        assembly.fragments.insert(fragment.index, Bytes::copy_from_slice(&fragment.bytes));
        assembly.bytes += size;
        window.bytes += size + FRAGMENT_COST;
        if assembly.fragments.len() as u64 == assembly.count {
            let mut object = BytesMut::with_capacity(assembly.bytes);
            assembly.fragments.values().for_each(|bytes| object.extend_from_slice(bytes));
            window.bytes -= assembly.held();
            window.ahead.remove(&hop.sequence);
            return self.handle_object(now, hop, object.freeze());
        }
        self.settle(now, hop);
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
        let Some(window) = self.window(hop) else { return Ok(()) };
        if window.ahead.contains_key(&hop.sequence) {
            self.stats.stale += 1;
            return Ok(());
        }
        window.bytes += frame.object().len();
        window.ahead.insert(hop.sequence, Slot::Whole { frame, arrived: now });
        self.settle(now, hop);
        Ok(())
    }

    /// The peer gave this frame up: it will not come.
    pub fn handle_lost(&mut self, now: Timestamp, hop: HopHeader) {
        let Some(window) = self.window(hop) else { return };
        match window.ahead.get(&hop.sequence) {
            // A peer that finished it on one QUIC stream and reset another: what is whole stays.
            Some(Slot::Whole { .. }) => {
                self.stats.stale += 1;
                return;
            }
            Some(Slot::Partial(assembly)) => window.bytes -= assembly.held(),
            Some(Slot::Lost) | None => {}
        }
        window.ahead.insert(hop.sequence, Slot::Lost);
        self.settle(now, hop);
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
            self.settle(now, hop);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next needed.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.waits().map(|(deadline, _)| deadline).min()
    }

    /// The next frame in order.
    pub fn poll_output(&mut self) -> Option<Received> {
        self.ready.pop_front()
    }

    /// What happened so far.
    pub fn stats(&self) -> HopStats {
        self.stats
    }

    /// Windows whose next frame is missing while a later one is whole, and until when to wait.
    fn waits(&self) -> impl Iterator<Item = (Timestamp, HopHeader)> + '_ {
        self.blocked.iter().filter_map(|&(lane, track)| {
            let state = self.lanes.get(&lane)?;
            let (sequence, arrived) = state.tracks[usize::from(track)].first_whole()?;
            Some((arrived + state.hold, HopHeader { lane, track, sequence }))
        })
    }

    /// The window that `hop` belongs to, unless it is closed or past.
    fn window(&mut self, hop: HopHeader) -> Option<&mut Window> {
        let Some(lane) = self.lanes.get_mut(&hop.lane) else {
            self.stats.homeless += 1;
            return None;
        };
        let window = &mut lane.tracks[usize::from(hop.track)];
        if hop.sequence < window.next {
            self.stats.stale += 1;
            return None;
        }
        Some(window)
    }

    /// Gives out what is in order and brings the window back within its bounds.
    fn settle(&mut self, now: Timestamp, hop: HopHeader) {
        let Some(lane) = self.lanes.get_mut(&hop.lane) else { return };
        let window = &mut lane.tracks[usize::from(hop.track)];
        loop {
            window.release(now, hop, &mut self.ready, &mut self.stats);
            let is_bounded = window.ahead.len() <= HELD_FRAMES_MAX && window.bytes <= HELD_BYTES_MAX;
            if is_bounded || window.ahead.is_empty() {
                debug_assert!(is_bounded);
                break;
            }
            window.skip();
        }
        if window.first_whole().is_some() {
            self.blocked.insert((hop.lane, hop.track));
        } else {
            self.blocked.remove(&(hop.lane, hop.track));
        }
    }
}

impl Assembly {
    /// What it counts for in its window.
    fn held(&self) -> usize {
        self.bytes + self.fragments.len() * FRAGMENT_COST
    }
}

impl Window {
    /// The first whole frame that waits for an earlier one.
    fn first_whole(&self) -> Option<(u64, Timestamp)> {
        self.ahead.iter().find_map(|(&sequence, slot)| match slot {
            Slot::Whole { arrived, .. } => Some((sequence, *arrived)),
            Slot::Partial(_) | Slot::Lost => None,
        })
    }

    /// Gives up everything before the first whole frame, or the oldest partial one if none is whole.
    fn skip(&mut self) {
        let target = match self.first_whole() {
            Some((sequence, _)) => sequence,
            None => match self.ahead.keys().next() {
                Some(&oldest) => oldest + 1,
                None => return,
            },
        };
        let kept = self.ahead.split_off(&target);
        for slot in std::mem::replace(&mut self.ahead, kept).into_values() {
            if let Slot::Partial(assembly) = slot {
                self.bytes -= assembly.held();
            }
        }
        self.missed += target - self.next;
        self.next = target;
    }

    fn release(
        &mut self,
        now: Timestamp,
        hop: HopHeader,
        ready: &mut VecDeque<Received>,
        stats: &mut HopStats,
    ) {
        while let Some(entry) = self.ahead.first_entry()
            && *entry.key() == self.next
        {
            match entry.get() {
                Slot::Partial(_) => break,
                Slot::Lost => {
                    entry.remove();
                    self.missed += 1;
                }
                Slot::Whole { .. } => {
                    if let Slot::Whole { frame, arrived } = entry.remove() {
                        let missed = std::mem::take(&mut self.missed);
                        self.bytes -= frame.object().len();
                        stats.frames += 1;
                        stats.bytes += frame.object().len() as u64;
                        // A peer may jump across the whole range, on every track.
                        stats.missed = stats.missed.saturating_add(missed);
                        debug_assert!(arrived <= now);
                        ready.push_back(Received {
                            lane: hop.lane,
                            track: hop.track,
                            frame,
                            missed,
                            arrived,
                        });
                    }
                }
            }
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests;
