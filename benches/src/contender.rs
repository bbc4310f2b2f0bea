//! Who takes part in a measurement, and what each of them has to tell.
//!
//! A contender carries the frames of a [`Cell`] over its links with a stack of its own, in virtual time and
//! with the same frames, links and seeds as all others. It counts nothing itself that the network can count.

use std::time::Duration;

use parlor_client::{Delivery, Timestamp};
use parlor_transport::hop::Ablation;

use crate::cell::Cell;

pub(crate) mod call;
pub mod meter;
#[cfg(feature = "peers")]
pub mod moq;
#[cfg(feature = "peers")]
mod moq_transport;
pub mod parlor;
pub mod quic;
pub mod quinn_streams;
#[cfg(feature = "peers")]
pub mod webrtc;

/// The contender with this name, if there is one.
pub fn named(name: &str) -> Option<Box<dyn Contender>> {
    all().into_iter().find(|contender| contender.name() == name)
}

/// The names of all contenders of this build.
pub fn names() -> Vec<String> {
    all().iter().map(|contender| contender.name()).collect()
}

fn all() -> Vec<Box<dyn Contender>> {
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    for delivery in parlor::DELIVERIES {
        all.push(Box::new(parlor::Parlor::from(delivery)));
    }
    // With parts of repair left out, under the same rate control: what each part is worth.
    for ablation in [Ablation::PlainNack, Ablation::ParityOnly] {
        all.push(Box::new(parlor::Parlor { delivery: Delivery::Adaptive, ablation }));
    }
    all.extend(strangers());
    all
}

/// Everybody who is not Parlor.
pub fn strangers() -> Vec<Box<dyn Contender>> {
    use quic::Congestion;
    let mut strangers: Vec<Box<dyn Contender>> = Vec::new();
    for congestion in [Congestion::Cubic, Congestion::Bbr] {
        strangers.push(Box::new(quinn_streams::QuinnStreams { congestion }));
        #[cfg(feature = "peers")]
        strangers.push(Box::new(moq::Moq { congestion }));
    }
    #[cfg(feature = "peers")]
    strangers.push(Box::new(webrtc::WebRtc));
    strangers
}

/// A way of carrying frames.
pub trait Contender: Send + Sync {
    /// Its name in tables and files: `parlor-adaptive`, `quinn-cubic`.
    fn name(&self) -> String;

    /// Carries the cell's frames. The same cell gives the same run.
    ///
    /// # Errors
    /// Why this contender cannot run the cell, for instance that no call came about.
    fn run(&self, cell: &Cell) -> Result<Run, String>;
}

/// What one contender did with one cell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// One entry for each frame that was due, in order.
    pub frames: Vec<Fate>,
    /// UDP payload bytes of the media's way, link by link, from the first frame on.
    pub wire: Vec<Wire>,
    /// How long packets waited before the bottleneck, link by link.
    pub queue: Vec<Vec<Sample>>,
    /// The age of the oldest frame that the sender still held when it captured one.
    pub own_queue: Vec<Sample>,
    /// The media rate that the transport asked for, bit/s.
    pub target: Vec<(Timestamp, u64)>,
}

/// What became of one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fate {
    /// When it was due to be captured.
    pub captured: Timestamp,
    /// Whether it was a keyframe.
    pub keyframe: bool,
    /// Its payload; 0 if the source left it out.
    pub bytes: usize,
    /// When the subscriber had all of it, in whatever order.
    pub complete: Option<Timestamp>,
}

/// Bytes of one link. `total` and `feedback` are what the network counted, the parts the sender's own account.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Wire {
    /// All UDP payload bytes of the media's way.
    pub total: u64,
    /// Packets of the media's way.
    pub packets: u64,
    /// What the media's way was used for, if the sender keeps account of it.
    pub parts: Option<Parts>,
    /// UDP payload bytes of the way back: reports and acknowledgements.
    pub feedback: u64,
}

/// What a sender used its way for, in bytes of what it gave to QUIC, its own heads included.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Parts {
    /// Media as it is, for the first time.
    pub source: u64,
    /// Redundancy sent unasked.
    pub parity: u64,
    /// What was sent because something was missing.
    pub repair: u64,
}

impl Wire {
    /// This and another run's. The parts are known if those of both are.
    pub fn plus(self, other: Wire) -> Wire {
        let parts = self.parts.zip(other.parts).map(|(one, other)| Parts {
            source: one.source + other.source,
            parity: one.parity + other.parity,
            repair: one.repair + other.repair,
        });
        Wire {
            total: self.total + other.total,
            packets: self.packets + other.packets,
            parts,
            feedback: self.feedback + other.feedback,
        }
    }

    /// What the parts leave of the total: QUIC's heads, acknowledgements and the control stream.
    pub fn headers(&self) -> Option<u64> {
        let parts = self.parts?;
        Some(self.total.saturating_sub(parts.source + parts.parity + parts.repair))
    }
}

/// A length of time, seen at a time.
pub type Sample = (Timestamp, Duration);
