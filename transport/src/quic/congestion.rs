//! The congestion controller that quinn asks: it follows the rate that the hop's own controller set
//! from the receiver's reports, so that quinn never holds media back. Where no reports come,
//! because nothing but QUIC streams is sent, it keeps the queue short by round-trip times alone.
//!
//! Loss does not close the window in either case: radio loses packets at any rate.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

/// The window that a connection starts with, in bytes. A keyframe (40–60 kB at 720p) and a few
/// frames leave within the first round trip.
const WINDOW_INITIAL: u64 = 200_000;
/// Two packets and some: less could not tell a lossy link from a dead one.
const WINDOW_MIN: u64 = 8 * 1200;
/// 100 Mbit/s at 300 ms.
const WINDOW_MAX: u64 = 4_000_000;
/// A queue of this length is too much; without reports it cannot be told from jitter below it.
const QUEUE_MAX: Duration = Duration::from_millis(40);
/// What a window is multiplied by once in a round trip with such a queue.
const BACK_OFF: f64 = 0.8;
/// How long a rate that was set counts without being set again.
const FRESH: Duration = Duration::from_secs(2);
/// How long the least round-trip time is remembered.
const BASE_MEMORY: Duration = Duration::from_secs(10);

/// Where the hop's controller writes the window that its rate needs. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct WindowTarget(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    window: AtomicU64,
    /// Counts the times it was set.
    version: AtomicU64,
}

impl WindowTarget {
    /// The window follows, until nothing was set for some seconds.
    pub(super) fn set(&self, bytes: u64) {
        self.0.window.store(bytes, Ordering::Relaxed);
        self.0.version.fetch_add(1, Ordering::Relaxed);
    }
}

impl ControllerFactory for WindowTarget {
    fn build(self: Arc<Self>, now: Instant, _mtu: u16) -> Box<dyn Controller> {
        Box::new(Follow {
            target: (*self).clone(),
            seen: (0, now),
            own: WINDOW_INITIAL,
            base: Duration::MAX,
            base_at: now,
            round: Round { start: now, rtt_min: Duration::MAX, grew: 0 },
            started: false,
        })
    }
}

#[derive(Clone, Debug)]
struct Follow {
    target: WindowTarget,
    /// The version last seen, and when it was new.
    seen: (u64, Instant),
    /// The window by round-trip times alone.
    own: u64,
    base: Duration,
    base_at: Instant,
    round: Round,
    /// A queue was seen once: growth is slow from then on.
    started: bool,
}

#[derive(Clone, Debug)]
struct Round {
    start: Instant,
    rtt_min: Duration,
    /// Bytes acknowledged while the window was full.
    grew: u64,
}

impl Follow {
    fn is_followed(&self) -> bool {
        self.seen.0 > 0
    }

    fn note_version(&mut self, now: Instant) {
        let version = self.target.0.version.load(Ordering::Relaxed);
        if version != self.seen.0 {
            self.seen = (version, now);
        } else if self.seen.0 > 0 && now.saturating_duration_since(self.seen.1) > FRESH {
            // Zero means "not followed"; the next setting has another version.
            self.own = self.window();
            self.seen.0 = 0;
        }
    }

    fn end_round(&mut self, now: Instant, srtt: Duration) {
        let queue = self.round.rtt_min.saturating_sub(self.base);
        if queue > QUEUE_MAX {
            self.started = true;
            self.own = (self.own as f64 * BACK_OFF) as u64;
        } else if self.started {
            self.own += self.round.grew / 8;
        } else {
            self.own += self.round.grew;
        }
        self.own = self.own.clamp(WINDOW_MIN, WINDOW_MAX);
        if now.saturating_duration_since(self.base_at) > BASE_MEMORY {
            (self.base, self.base_at) = (self.round.rtt_min.min(srtt), now);
        }
        self.round = Round { start: now, rtt_min: Duration::MAX, grew: 0 };
    }
}

impl Controller for Follow {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.note_version(now);
        let sample = now.saturating_duration_since(sent);
        if sample <= self.base {
            (self.base, self.base_at) = (sample, now);
        }
        self.round.rtt_min = self.round.rtt_min.min(sample);
        if !app_limited {
            self.round.grew += bytes;
        }
        if now.saturating_duration_since(self.round.start) >= rtt.get() {
            self.end_round(now, rtt.get());
        }
    }

    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, is_persistent: bool, _lost_bytes: u64) {
        // Nothing came through for several round trips: begin again, carefully.
        if is_persistent && !self.is_followed() {
            self.own = (self.own / 2).max(WINDOW_MIN);
        }
    }

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        if self.is_followed() {
            self.target.0.window.load(Ordering::Relaxed).clamp(WINDOW_MIN, WINDOW_MAX)
        } else {
            self.own
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        WINDOW_INITIAL
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
