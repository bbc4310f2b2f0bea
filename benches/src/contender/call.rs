//! What the calls of all contenders have in common: how long they take, what is captured when, and who notes what came.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use parlor_client::Timestamp;
use parlor_transport::sim::{Sim, Simulation};

use super::{Fate, Run};
use crate::cell::{Cell, Feed};
use crate::source::{Source, number_of};

/// After the last frame this long is waited for stragglers.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// Between the connection and the first frame.
pub(crate) const START: Duration = Duration::from_secs(1);
/// A frame that is older is given up by whoever can: the age at which Parlor gives one up on a QUIC stream.
pub(super) const AGE_MAX: Duration = Duration::from_secs(1);
/// Connecting, and all that is no frame, takes less than this of the simulation's time, or hangs.
const AROUND_MAX: Duration = Duration::from_secs(150);

/// Runs `call` in the cell's own simulation.
pub(super) fn in_virtual_time(
    cell: &Cell,
    call: impl AsyncFnOnce(Sim) -> Result<Run, String>,
) -> Result<Run, String> {
    Simulation::new(cell.seed).time_max(START + cell.length + GRACE + AROUND_MAX).run(call)
}

/// The camera of a call: frames when they are due, as large as the cell says.
#[derive(Debug)]
pub(crate) struct Camera<'a> {
    cell: &'a Cell,
    start: Timestamp,
    source: Source,
    run: Run,
}

impl<'a> Camera<'a> {
    /// A camera that starts [`START`] after `now`.
    pub(crate) fn new(cell: &'a Cell, now: Timestamp) -> Self {
        Camera { cell, start: now + START, source: Source::new(cell.shape), run: Run::default() }
    }

    /// When each frame is due, in order.
    pub(crate) fn due(&self) -> impl Iterator<Item = Timestamp> + use<> {
        let (start, interval) = (self.start, self.cell.shape.interval());
        (0..self.cell.frames()).map(move |number| start + interval * number as u32)
    }

    /// The next frame is a keyframe.
    pub(crate) fn force_keyframe(&mut self) {
        self.source.force_keyframe();
    }

    /// Makes the next frame. `rate` is what the transport offers, bit/s, if it says so; `held` the age of what it
    /// still holds.
    pub(crate) fn capture(
        &mut self,
        captured: Timestamp,
        rate: Option<u64>,
        held: Option<Duration>,
    ) -> (Bytes, bool) {
        if let (Feed::Follow, Some(rate)) = (self.cell.feed, rate) {
            self.source.set_bitrate(rate.min(self.cell.shape.bitrate));
        }
        self.run.target.extend(rate.map(|rate| (captured, rate)));
        self.run.own_queue.extend(held.map(|held| (captured, held)));
        let made = self.source.make();
        let (keyframe, bytes) = (made.keyframe, made.payload.len());
        self.run.frames.push(Fate { captured, keyframe, bytes, complete: None });
        (made.payload, keyframe)
    }

    /// What was captured.
    pub(crate) fn into_run(self) -> Run {
        self.run
    }
}

/// Who notes when which frame came. Clones note in one book.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals(Arc<Mutex<Vec<Option<Timestamp>>>>);

impl Arrivals {
    /// Nothing came of the cell's frames yet.
    pub(crate) fn of(cell: &Cell) -> Self {
        Arrivals(Arc::new(Mutex::new(vec![None; cell.frames() as usize])))
    }

    /// `frame` came whole. What has no number, or one that nobody sent, is not noted.
    pub(crate) fn note(&self, frame: &[u8], now: Timestamp) {
        let mut came = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = number_of(frame).and_then(|number| came.get_mut(number as usize)) {
            slot.get_or_insert(now);
        }
    }

    /// Puts what came into `run`.
    pub(crate) fn read(&self, run: &mut Run) {
        let came = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        run.frames.iter_mut().zip(came.iter()).for_each(|(frame, at)| frame.complete = *at);
    }
}
