//! What the network counted, the same way for everybody.

use std::fmt::Debug;
use std::time::Duration;

use parlor_client::Timestamp;
use parlor_transport::sim::{Direction, HEADER_IPV4, Host, LinkStats, Profile, Sim};

use super::{Run, Wire};
use crate::cell::{Cell, Link};

/// The links of a cell on their hosts, and what passed them since the call began.
#[derive(Debug)]
pub struct Meter {
    /// Each link and the way of the media.
    ways: Vec<(Box<dyn Tap>, Direction)>,
    before: Vec<[Option<LinkStats>; 2]>,
}

/// A link that can be measured: a simulated host's, or that of a proxy before real sockets.
pub trait Tap: Debug {
    /// Replaces both ways of the link.
    fn set_profile(&self, profile: Profile);
    /// What passed one way so far; none before there is anybody.
    fn stats(&self, way: Direction) -> Option<LinkStats>;
    /// Begins to keep how long packets wait before the bottleneck.
    fn log_queue(&self, way: Direction);
    /// What was kept.
    fn queue_log(&self, way: Direction) -> Vec<(Timestamp, Duration)>;
}

impl Tap for Host {
    fn set_profile(&self, profile: Profile) {
        Host::set_profile(self, profile);
    }

    fn stats(&self, way: Direction) -> Option<LinkStats> {
        Some(Host::stats(self, way))
    }

    fn log_queue(&self, way: Direction) {
        Host::log_queue(self, way);
    }

    fn queue_log(&self, way: Direction) -> Vec<(Timestamp, Duration)> {
        Host::queue_log(self, way)
    }
}

/// Where the frames come from and where they go.
#[derive(Debug)]
pub struct Hosts {
    /// The publisher's machine.
    pub publisher: Host,
    /// The subscriber's machine.
    pub subscriber: Host,
}

impl Hosts {
    /// Both machines, with the delays of the cell's links and nothing else yet, so that a call comes about.
    pub fn new(sim: &Sim, cell: &Cell) -> Self {
        Hosts {
            publisher: sim.host("publisher", clean(cell.publisher.as_ref())),
            subscriber: sim.host("subscriber", clean(cell.subscriber.as_ref())),
        }
    }

    /// The links become what is to be measured, and everything counts from now on.
    pub fn measure(&self, cell: &Cell) -> Meter {
        Meter::start(cell, Box::new(self.publisher.clone()), Box::new(self.subscriber.clone()))
    }
}

/// A link before it is measured: its delay and nothing else, so that a call comes about.
pub fn clean(link: Option<&Link>) -> Profile {
    Profile::perfect().with_rtt(link.map_or(Duration::ZERO, |link| link.rtt))
}

impl Meter {
    /// The cell's links become what is to be measured, and everything counts from now on. A link that the cell does
    /// not have is left alone.
    pub fn start(cell: &Cell, publisher: Box<dyn Tap>, subscriber: Box<dyn Tap>) -> Self {
        let mut ways = Vec::new();
        if let Some(link) = &cell.publisher {
            publisher.set_profile(link.upward());
            ways.push((publisher, Direction::Up));
        }
        if let Some(link) = &cell.subscriber {
            subscriber.set_profile(link.downward());
            ways.push((subscriber, Direction::Down));
        }
        ways.iter().for_each(|(tap, way)| tap.log_queue(*way));
        let before = ways.iter().map(both_ways).collect();
        Meter { ways, before }
    }

    /// Puts what was counted into `run`.
    pub fn read(&self, run: &mut Run) {
        run.queue = self.ways.iter().map(|(tap, way)| tap.queue_log(*way)).collect();
        run.wire =
            self.ways.iter().zip(&self.before).map(|(way, before)| wire(&both_ways(way), before)).collect();
    }
}

/// The way of the media, and the way back.
fn both_ways((tap, media): &(Box<dyn Tap>, Direction)) -> [Option<LinkStats>; 2] {
    let back = match media {
        Direction::Up => Direction::Down,
        Direction::Down => Direction::Up,
    };
    [tap.stats(*media), tap.stats(back)]
}

fn wire(after: &[Option<LinkStats>; 2], before: &[Option<LinkStats>; 2]) -> Wire {
    let offered = |stats: &Option<LinkStats>| stats.as_ref().map(|stats| stats.offered).unwrap_or_default();
    let payload = |way: usize| {
        let (after, before) = (offered(&after[way]), offered(&before[way]));
        let packets = after.packets - before.packets;
        (after.bytes - before.bytes - HEADER_IPV4 as u64 * packets, packets)
    };
    let ((total, packets), (feedback, _)) = (payload(0), payload(1));
    Wire { total, packets, feedback, ..Wire::default() }
}
