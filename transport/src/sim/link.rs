//! One direction of a host's connection: decides for each packet whether and when it comes out.
//!
//! A machine: time is an argument, randomness is seeded by the caller, and what travels is any `P`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;
use rand::{RngExt, SeedableRng};

use super::SimRng;
use super::channel::{Channel, exponential};
use super::profile::{Jitter, LinkConfig};
use super::schedule::Progress;
use super::trace::Fate;
use crate::units::Timestamp;

/// A link with the packets travelling on it: the machine under every simulated host, for programs that put such a
/// link somewhere else, for instance between real sockets.
///
/// What went in comes out of [`Link::poll_arrival`] once [`Link::poll_timeout`] has passed; time never runs backwards.
///
/// ```
/// use parlor_transport::sim::{self, Link, LinkConfig};
/// use parlor_transport::units::Timestamp;
/// use std::time::Duration;
///
/// let config = LinkConfig { delay: Duration::from_millis(20), ..LinkConfig::default() };
/// let mut link = Link::new(config, sim::seeded(1, "my link"));
/// link.handle_packet(Timestamp::ZERO, "a packet", 1_000).unwrap();
/// let at = link.poll_timeout().unwrap();
/// assert_eq!(at.as_micros(), 20_000);
/// assert_eq!(link.poll_arrival(at), Some("a packet"));
/// ```
#[derive(Debug)]
pub struct Link<P> {
    config: LinkConfig,
    channel: Channel,
    /// Apart from the channel's, so that changing jitter leaves the pattern of loss as it was.
    jitter_rng: SimRng,
    outages: Vec<(Timestamp, Timestamp)>,
    /// Packets not yet through the bottleneck, in order, and when each will be.
    queue: VecDeque<Queued>,
    /// Bytes in `queue`.
    waiting: usize,
    /// How far `queue` has got on the configuration's schedule, if there is one.
    progress: Progress,
    /// How long packets waited, once somebody asked for it.
    queue_log: Option<Vec<(Timestamp, Duration)>>,
    /// Packets that will arrive, by arrival and then by order of sending.
    flights: BTreeMap<FlightKey, Flight<P>>,
    sent: u64,
    /// The latest arrival that no later packet may overtake.
    arrival_last: Timestamp,
    stats: LinkStats,
}

type FlightKey = (Timestamp, u64);

#[derive(Debug)]
struct Queued {
    size: usize,
    /// When its last bit leaves. In nanoseconds: at 1 Gbit/s a packet takes 12 µs.
    out_ns: u64,
    /// `None` if it will be lost on the way.
    flight: Option<FlightKey>,
}

#[derive(Debug)]
struct Flight<P> {
    packet: P,
    size: usize,
}

/// What passed one direction of a host's connection, and what did not. Sizes are IP packets.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkStats {
    /// Handed to the link.
    pub offered: Tally,
    /// Came out at the other end.
    pub delivered: Tally,
    /// Lost at random.
    pub lost: Tally,
    /// Dropped at the queue.
    pub queue_full: Tally,
    /// Sent during an outage.
    pub outage: Tally,
    /// Larger than the MTU.
    pub too_big: Tally,
    /// µs that packets waited for those before them.
    queue_delay: Histogram<u32>,
}

/// Packets and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many.
    pub packets: u64,
    /// Their sizes added up.
    pub bytes: u64,
}

impl LinkStats {
    fn new() -> Self {
        let zero = Tally::default();
        LinkStats {
            offered: zero,
            delivered: zero,
            lost: zero,
            queue_full: zero,
            outage: zero,
            too_big: zero,
            queue_delay: Histogram::new(3).expect("3 significant digits are within the allowed 0 to 5"),
        }
    }

    /// The time within which the share `q` (0 to 1) of packets got through the queue to the
    /// bottleneck, correct to 0.1 %; `quantile(1.0)` is the longest. Zero without packets.
    pub fn queue_delay_quantile(&self, q: f64) -> Duration {
        Duration::from_micros(self.queue_delay.value_at_quantile(q))
    }

    /// The longest time a packet waited in the queue, correct to 0.1 %.
    pub fn queue_delay_max(&self) -> Duration {
        Duration::from_micros(self.queue_delay.max())
    }
}

impl Tally {
    fn add(&mut self, size: usize) {
        self.packets += 1;
        self.bytes += size as u64;
    }
}

impl<P> Link<P> {
    /// Packets on the way at once. Only a link without a rate gets there: 65,536 full packets in
    /// 100 ms are 7.8 Gbit/s, more than a simulation is for. Beyond, packets count as queue-full.
    const FLIGHTS_MAX: usize = 65_536;
    /// Waits kept for reading: ten minutes of 10 Mbit/s in full packets.
    const QUEUE_LOG_MAX: usize = 500_000;

    /// An empty link. `rng` decides what is lost and how jitter falls: the same packets at the same times meet the
    /// same fate with the same generator, see [`seeded`](super::seeded).
    pub fn new(config: LinkConfig, mut rng: SimRng) -> Self {
        Link {
            config,
            jitter_rng: SimRng::seed_from_u64(rng.random()),
            channel: Channel::new(rng),
            outages: Vec::new(),
            queue: VecDeque::new(),
            waiting: 0,
            progress: Progress::default(),
            queue_log: None,
            flights: BTreeMap::new(),
            sent: 0,
            arrival_last: Timestamp::ZERO,
            stats: LinkStats::new(),
        }
    }

    /// What the link is like now.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// What passed so far.
    pub fn stats(&self) -> &LinkStats {
        &self.stats
    }

    /// Takes a new configuration. Packets in the queue leave at the new rate from now on; those
    /// past it arrive as planned.
    pub fn configure(&mut self, now: Timestamp, config: LinkConfig) {
        self.forget_sent(now);
        let rate_old = self.config.rate;
        self.config = config;
        if rate_old == self.config.rate {
            return;
        }
        // From now: of the packet on its way out only what has not left yet takes the new rate.
        let (mut before_old, mut before_new) = (nanos(now), nanos(now));
        for queued in &mut self.queue {
            let out_old = queued.out_ns;
            let time = match (rate_old, self.config.rate) {
                (Some(old), Some(new)) => scale(out_old - before_old, old, new),
                _ => 0,
            };
            queued.out_ns = before_new + time;
            (before_old, before_new) = (out_old, queued.out_ns);
            if let Some(key) = queued.flight
                && let Some(flight) = self.flights.remove(&key)
            {
                let travel = nanos(key.0).saturating_sub(out_old);
                let moved = (from_nanos(queued.out_ns + travel), key.1);
                self.flights.insert(moved, flight);
                queued.flight = Some(moved);
                self.arrival_last = self.arrival_last.max(moved.0);
            }
        }
    }

    /// Loses everything sent from `from` until `until`. Packets already on the way arrive.
    pub fn outage(&mut self, now: Timestamp, from: Timestamp, until: Timestamp) {
        self.outages.retain(|(_, end)| *end > now);
        self.outages.push((from, until));
    }

    /// Sends `packet` of `size` bytes, headers included.
    ///
    /// # Errors
    /// If it will not arrive: why, and the packet.
    pub fn handle_packet(&mut self, now: Timestamp, packet: P, size: usize) -> Result<(), (Fate, P)> {
        self.stats.offered.add(size);
        self.forget_sent(now);
        if size > self.config.mtu {
            self.stats.too_big.add(size);
            return Err((Fate::TooBig, packet));
        }
        if self.outages.iter().any(|(from, until)| (*from..*until).contains(&now)) {
            self.stats.outage.add(size);
            return Err((Fate::Outage, packet));
        }
        let narrow = self.config.rate.is_some() || self.config.schedule.is_some();
        let full = narrow && self.waiting + size > self.config.queue_max;
        if full || self.flights.len() >= Self::FLIGHTS_MAX {
            self.stats.queue_full.add(size);
            return Err((Fate::QueueFull, packet));
        }

        let start_ns = self.queue.back().map_or(nanos(now), |last| last.out_ns);
        let out_ns = match (&self.config.schedule, self.config.rate) {
            (Some(schedule), _) => self.progress.send(schedule, nanos(now), size).max(start_ns),
            (None, Some(rate)) => start_ns + transmission_ns(size, rate),
            (None, None) => start_ns,
        };
        self.note_wait(now, start_ns - nanos(now));
        let lost = self.channel.loses(now, self.config.loss);
        let arrival = self.arrival(out_ns, lost);
        self.sent += 1;
        let key = (arrival, self.sent);
        if out_ns > nanos(now) {
            self.waiting += size;
            self.queue.push_back(Queued { size, out_ns, flight: (!lost).then_some(key) });
        }
        if lost {
            self.stats.lost.add(size);
            return Err((Fate::Lost, packet));
        }
        self.flights.insert(key, Flight { packet, size });
        Ok(())
    }

    /// When the next packet arrives.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.flights.first_key_value().map(|((arrival, _), _)| *arrival)
    }

    /// The next packet that has arrived by `now`.
    pub fn poll_arrival(&mut self, now: Timestamp) -> Option<P> {
        let first = self.flights.first_entry().filter(|entry| entry.key().0 <= now)?;
        let Flight { packet, size } = first.remove();
        self.stats.delivered.add(size);
        Some(packet)
    }

    /// When a packet arrives whose last bit leaves at `out_ns`. Draws the same random numbers
    /// whether the packet is lost or not, so that loss does not shift what later packets draw.
    fn arrival(&mut self, out_ns: u64, lost: bool) -> Timestamp {
        let mut arrival = from_nanos(out_ns) + self.config.delay;
        let ordered = match self.config.jitter {
            Jitter::None => true,
            Jitter::InOrder { mean, max } => {
                arrival += exponential(&mut self.jitter_rng, mean).min(max);
                true
            }
            Jitter::Independent { mean, max } => {
                arrival += exponential(&mut self.jitter_rng, mean).min(max);
                false
            }
            Jitter::Uniform { max } => {
                arrival += max.mul_f64(self.jitter_rng.random::<f64>());
                false
            }
        };
        let held =
            self.config.reorder.share > 0.0 && self.jitter_rng.random::<f64>() < self.config.reorder.share;
        if held {
            return arrival + self.config.reorder.held;
        }
        if ordered && !lost {
            // Also keeps order when the delay was shortened while packets were on the way.
            arrival = arrival.max(self.arrival_last);
            self.arrival_last = arrival;
        }
        arrival
    }

    /// Begins to keep how long packets wait, the first 500,000 of them.
    pub fn log_queue(&mut self) {
        self.queue_log.get_or_insert_default();
    }

    /// What was kept since [`Self::log_queue`]: when a packet came and how long it waits before the bottleneck.
    pub fn queue_log(&self) -> &[(Timestamp, Duration)] {
        self.queue_log.as_deref().unwrap_or_default()
    }

    fn note_wait(&mut self, now: Timestamp, wait_ns: u64) {
        self.stats.queue_delay.saturating_record(wait_ns / 1_000);
        if let Some(log) = &mut self.queue_log
            && log.len() < Self::QUEUE_LOG_MAX
        {
            log.push((now, Duration::from_nanos(wait_ns)));
        }
    }

    /// Drops from the queue what has left it.
    fn forget_sent(&mut self, now: Timestamp) {
        while let Some(queued) = self.queue.front().filter(|queued| queued.out_ns <= nanos(now)) {
            self.waiting -= queued.size;
            self.queue.pop_front();
        }
    }
}

/// Nanoseconds that `size` bytes take at `rate` bits a second, rounded up; a rate of 0 counts as 1.
fn transmission_ns(size: usize, rate: u64) -> u64 {
    (size as u64 * 8).saturating_mul(1_000_000_000).div_ceil(rate.max(1))
}

/// What takes `time` at the rate `old` takes this long at the rate `new`.
fn scale(time: u64, old: u64, new: u64) -> u64 {
    let scaled = u128::from(time) * u128::from(old.max(1)) / u128::from(new.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX / 2)
}

fn nanos(time: Timestamp) -> u64 {
    time.as_micros().saturating_mul(1_000)
}

/// Rounded up: nothing arrives before it was sent.
fn from_nanos(ns: u64) -> Timestamp {
    Timestamp::from_micros(ns.div_ceil(1_000))
}

#[cfg(test)]
mod tests;
