//! One lane and track on the receiving side: what came ahead of the next frame due, and what is
//! known of frames that are not whole.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::cadence::Cadence;
use super::growing::Growing;
use crate::hop::piece::Piece;
use crate::repair::code::WINDOW_FRAMES_MAX;
use crate::repair::{Decoder, Fault, Output};
use crate::units::Timestamp;
use crate::wire::feedback::DEFICIT_MAX;
use crate::wire::frame::{Frame, OBJECT_MAX};
use crate::wire::packet::Part;

/// Frames held while an earlier one is missing: one second at 60 frames/s.
pub(super) const HELD_FRAMES_MAX: usize = 64;
/// Bytes held: two of the largest objects.
pub(super) const HELD_BYTES_MAX: usize = 2 * OBJECT_MAX;
/// Frames that a report may speak of without having seen anything of them.
const UNSEEN_MAX: usize = 16;

/// See the module.
#[derive(Default, Debug)]
pub(super) struct Window {
    pub(super) next: u64,
    pub(super) ahead: BTreeMap<u64, Slot>,
    pub(super) bytes: usize,
    /// Missed since the last frame given out.
    missed: u64,
    /// Given up since [`Window::take_given_up`] was called last.
    given_up: Vec<Range<u64>>,
    /// Made when the first symbol comes: most tracks never have one.
    decoder: Option<Box<Decoder>>,
    /// Frames that are not whole, to be passed on as they grow.
    growing: Growing,
    /// When a symbol last came for a frame that is not whole.
    pub(super) touched: BTreeMap<u64, Timestamp>,
    /// The newest frame heard of, and when it was first.
    newest: Option<(u64, Timestamp)>,
    /// When the next one should come.
    pub(super) cadence: Cadence,
    /// Whether it did not.
    late: bool,
}

#[derive(Debug)]
pub(super) enum Slot {
    Whole {
        frame: Frame,
        arrived: Timestamp,
    },
    /// Given out ahead of its turn.
    Given {
        arrived: Timestamp,
        keyframe: bool,
    },
    Lost,
}

impl Window {
    /// Takes a symbol; gives the objects that became whole by it. `cuts` says whether frames are passed on
    /// before they are whole.
    pub(super) fn symbol(
        &mut self,
        now: Timestamp,
        part: Part,
        cuts: bool,
    ) -> Result<Vec<(u64, Bytes)>, Fault> {
        let sequence = part.hop().sequence;
        let decoder = self.decoder.get_or_insert_default();
        match part {
            // A copy: the datagram's own buffer may be a whole batch that was received at once.
            Part::Source { shape, index, bytes, .. } => {
                decoder.handle_source(sequence, shape, index, Bytes::copy_from_slice(&bytes))?;
            }
            Part::Repair { window, id, bytes, .. } => decoder.handle_repair(&window, id, &bytes)?,
            Part::Gone { .. } => {
                self.lost(sequence);
                return Ok(Vec::new());
            }
        }
        let mut whole = Vec::new();
        while let Some(output) = decoder.poll_output() {
            match output {
                Output::Frame { frame, block } if frame >= self.next => {
                    self.touched.remove(&frame);
                    self.growing.forget(frame);
                    whole.push((frame, block.object().clone()));
                }
                Output::Frame { .. } => {}
                Output::Symbol { frame, shape, index, bytes, .. } => {
                    if frame >= self.next && !self.ahead.contains_key(&frame) {
                        self.touched.insert(frame, now);
                        if cuts {
                            self.growing.note(now, frame, shape, index, &bytes);
                        }
                    }
                }
            }
        }
        // Only parity came of it: it is wanted all the same.
        if sequence >= self.next
            && !self.ahead.contains_key(&sequence)
            && decoder.deficit(sequence).is_some_and(|deficit| deficit > 0)
        {
            self.touched.insert(sequence, now);
        }
        while self.touched.len() > HELD_FRAMES_MAX {
            self.touched.pop_first();
        }
        self.note(now, sequence);
        Ok(whole)
    }

    /// Takes a whole frame. False if it came before, or too late.
    pub(super) fn whole(&mut self, now: Timestamp, sequence: u64, frame: Frame) -> bool {
        if sequence < self.next || self.ahead.contains_key(&sequence) {
            return false;
        }
        self.bytes += frame.object().len();
        self.ahead.insert(sequence, Slot::Whole { frame, arrived: now });
        self.note(now, sequence);
        true
    }

    /// Notes that a frame will not come. False if it came, or is past.
    pub(super) fn lost(&mut self, sequence: u64) -> bool {
        if sequence < self.next || self.ahead.contains_key(&sequence) {
            return false;
        }
        self.ahead.insert(sequence, Slot::Lost);
        self.touched.remove(&sequence);
        self.growing.forget(sequence);
        true
    }

    /// When [`take_piece`](Self::take_piece) has something.
    pub(super) fn piece_due(&self) -> Option<Timestamp> {
        self.growing.due()
    }

    /// What has come of a frame that is not whole, if it has waited for long enough.
    pub(super) fn take_piece(&mut self, now: Timestamp) -> Option<(u64, Piece)> {
        let decoder = self.decoder.as_ref()?;
        self.growing.take(now, |frame, index| decoder.known(frame, index))
    }

    /// The first whole frame that waits for an earlier one.
    pub(super) fn first_whole(&self) -> Option<(u64, Timestamp)> {
        self.ahead.iter().find_map(|(&sequence, slot)| match slot {
            Slot::Whole { arrived, .. } | Slot::Given { arrived, .. } => Some((sequence, *arrived)),
            Slot::Lost => None,
        })
    }

    /// Whether what is held is within its bounds.
    pub(super) fn is_bounded(&self) -> bool {
        self.ahead.len() <= HELD_FRAMES_MAX && self.bytes <= HELD_BYTES_MAX
    }

    /// Gives up everything before the first whole frame, or before what follows the last lost one.
    pub(super) fn skip(&mut self) {
        let target = match (self.first_whole(), self.ahead.last_key_value()) {
            (Some((sequence, _)), _) => sequence,
            (None, Some((&last, _))) => last + 1,
            (None, None) => return,
        };
        self.ahead = self.ahead.split_off(&target);
        self.missed += target - self.next;
        self.given_up.push(self.next..target);
        self.advance(target);
    }

    /// The next frame in order, when it came, and how many before it are lost.
    pub(super) fn release(&mut self) -> Option<(Frame, Timestamp, u64)> {
        while let Some(entry) = self.ahead.first_entry()
            && *entry.key() == self.next
        {
            let slot = entry.remove();
            self.advance(self.next + 1);
            match slot {
                Slot::Lost => {
                    self.missed += 1;
                    self.given_up.push(self.next - 1..self.next);
                }
                Slot::Given { .. } => self.missed = 0,
                Slot::Whole { frame, arrived } => {
                    self.bytes -= frame.object().len();
                    return Some((frame, arrived, std::mem::take(&mut self.missed)));
                }
            }
        }
        None
    }

    /// The whole frames that were not given out yet, whatever is missing before them.
    pub(super) fn take_whole(&mut self) -> Vec<(u64, Frame, Timestamp)> {
        let mut whole = Vec::new();
        for (&sequence, slot) in &mut self.ahead {
            if let Slot::Whole { frame, arrived } = slot {
                let given = Slot::Given { arrived: *arrived, keyframe: frame.header().keyframe };
                self.bytes -= frame.object().len();
                whole.push((sequence, frame.clone(), *arrived));
                *slot = given;
            }
        }
        whole
    }

    /// The sequences that were given up since the last call.
    pub(super) fn take_given_up(&mut self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.given_up)
    }

    /// Gives up asking for what nothing was heard of since `before`.
    pub(super) fn stop_wanting(&mut self, now: Timestamp, before: Timestamp) {
        self.touched.retain(|_, &mut since| since >= before);
        if self.newest.is_some_and(|(_, since)| since < before) {
            self.newest = None;
        }
        self.late &= !self.cadence.is_over(now);
    }

    /// The next frame should have come.
    pub(super) fn miss_next(&mut self) {
        self.late = true;
    }

    /// Whether the first whole frame that waits needs none of those before it.
    pub(super) fn waits_for_nothing(&self) -> bool {
        self.ahead.values().any(|slot| match slot {
            Slot::Whole { frame, .. } => frame.header().keyframe,
            Slot::Given { keyframe, .. } => *keyframe,
            Slot::Lost => false,
        })
    }

    /// Whether some frame lacks symbols.
    pub(super) fn is_wanting(&self) -> bool {
        self.late || !self.touched.is_empty() || self.newest.is_some_and(|(newest, _)| newest > self.next)
    }

    /// The frames that lack symbols, and how many, the oldest first. What may only be reordered
    /// is left out for `wait`.
    pub(super) fn wanted(&self, now: Timestamp, wait: Duration) -> impl Iterator<Item = (u64, u64)> + '_ {
        let ripe = move |since: Timestamp| now.saturating_since(since) >= wait;
        let partial =
            self.touched.iter().filter(move |&(_, &since)| ripe(since)).filter_map(|(&frame, _)| {
                let deficit = self.decoder.as_ref()?.deficit(frame)?;
                (deficit > 0).then_some((frame, deficit as u64))
            });
        let (newest, since) = self.newest.unwrap_or_default();
        // A peer may jump across the whole range: no more is looked at than is held.
        let end = if ripe(since) { newest.min(self.next.saturating_add(HELD_FRAMES_MAX as u64)) } else { 0 };
        let unseen = (self.next..end)
            .filter(|frame| !self.ahead.contains_key(frame) && !self.touched.contains_key(frame))
            .take(UNSEEN_MAX)
            .map(|frame| (frame, DEFICIT_MAX));
        let late = if self.late { self.cadence.late(now, wait) } else { 0..0 };
        partial.chain(unseen).chain(late.map(|frame| (frame, DEFICIT_MAX)))
    }

    fn note(&mut self, now: Timestamp, sequence: u64) {
        if self.newest.is_none_or(|(newest, _)| sequence > newest) {
            self.newest = Some((sequence, now));
            self.cadence.note(now, sequence);
            self.late = false;
        }
    }

    fn advance(&mut self, next: u64) {
        self.next = next;
        self.touched = self.touched.split_off(&next);
        self.growing.forget_before(next);
        if let Some(decoder) = &mut self.decoder {
            // Whole frames stay for as long as a combination may reach back to them.
            decoder.forget_before(next.saturating_sub(WINDOW_FRAMES_MAX as u64));
        }
    }
}
