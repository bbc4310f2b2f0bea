//! What the network counted, the same way for everybody.

use parlor_transport::sim::{Direction, HEADER_IPV4, Host, LinkStats, Profile, Sim};

use super::{Run, Wire};
use crate::cell::{Cell, Link};

/// The links of a cell on their hosts, and what passed them since the call began.
#[derive(Debug)]
pub struct Meter {
    /// Each link's host and the way of the media.
    ways: Vec<(Host, Direction)>,
    before: Vec<[LinkStats; 2]>,
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
        let clean = |link: &Option<Link>| {
            Profile::perfect().with_rtt(link.as_ref().map_or(std::time::Duration::ZERO, |link| link.rtt))
        };
        Hosts {
            publisher: sim.host("publisher", clean(&cell.publisher)),
            subscriber: sim.host("subscriber", clean(&cell.subscriber)),
        }
    }

    /// The links become what is to be measured, and everything counts from now on.
    pub fn measure(&self, cell: &Cell) -> Meter {
        let mut ways = Vec::new();
        if let Some(link) = &cell.publisher {
            self.publisher.set_profile(link.upward());
            ways.push((self.publisher.clone(), Direction::Up));
        }
        if let Some(link) = &cell.subscriber {
            self.subscriber.set_profile(link.downward());
            ways.push((self.subscriber.clone(), Direction::Down));
        }
        ways.iter().for_each(|(host, way)| host.log_queue(*way));
        let before = ways.iter().map(both_ways).collect();
        Meter { ways, before }
    }
}

impl Meter {
    /// Puts what was counted into `run`.
    pub fn read(&self, run: &mut Run) {
        run.queue = self.ways.iter().map(|(host, way)| host.queue_log(*way)).collect();
        run.wire =
            self.ways.iter().zip(&self.before).map(|(way, before)| wire(&both_ways(way), before)).collect();
    }
}

/// The way of the media, and the way back.
fn both_ways((host, media): &(Host, Direction)) -> [LinkStats; 2] {
    let back = match media {
        Direction::Up => Direction::Down,
        Direction::Down => Direction::Up,
    };
    [host.stats(*media), host.stats(back)]
}

fn wire(after: &[LinkStats; 2], before: &[LinkStats; 2]) -> Wire {
    let payload = |way: usize| {
        let (after, before) = (after[way].offered, before[way].offered);
        let packets = after.packets - before.packets;
        (after.bytes - before.bytes - HEADER_IPV4 as u64 * packets, packets)
    };
    let ((total, packets), (feedback, _)) = (payload(0), payload(1));
    Wire { total, packets, feedback, ..Wire::default() }
}
