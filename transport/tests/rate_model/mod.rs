//! A bottleneck in virtual time, with Parlor's rate control and its rivals in front of it. Not the
//! real stack: no QUIC, no codec; feedback travels as the real bytes.
//!
//! Every packet, of whatever flow, goes through one FIFO with a rate that may change and a drop-tail
//! buffer counted in time, then may be lost at random, then takes the one-way delay. Media is 30
//! frames a second that follow the rate with a frame of delay, sizes ±15 %, keyframes five times as
//! large with the average kept, 1,200 bytes a packet at most.
#![allow(dead_code, unreachable_pub, reason = "each test and the example use a part of it")]

pub mod cases;
mod cubic;
mod media;

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use cubic::Cubic;
use media::Media;

pub type Micros = u64;
pub const SECOND: Micros = 1_000_000;
pub const PACKET: u32 = 1200;

/// The path that all flows share.
#[derive(Clone)]
pub struct Link {
    /// From when (s) which rate (bits/s).
    pub rates: Vec<(f64, u64)>,
    pub buffer_ms: u64,
    /// Share lost at random behind the bottleneck.
    pub loss: f64,
    /// The same in front of it.
    pub loss_before: f64,
    /// One-way delay, both ways, ms.
    pub owd_ms: u64,
    /// Mean of an exponential jitter that keeps the order, forward, ms.
    pub jitter_ms: f64,
    /// The same and loss on the way back.
    pub return_jitter_ms: f64,
    pub return_loss: f64,
    /// From when until when (s) nothing comes back.
    pub return_outage: Option<(f64, f64)>,
}

impl Link {
    pub fn new(rate: u64, rtt_ms: u64) -> Self {
        Link {
            rates: vec![(0.0, rate)],
            buffer_ms: 300,
            loss: 0.0,
            loss_before: 0.0,
            owd_ms: rtt_ms / 2,
            jitter_ms: 0.0,
            return_jitter_ms: 0.0,
            return_loss: 0.0,
            return_outage: None,
        }
    }

    fn is_silent(&self, now: Micros) -> bool {
        self.return_outage.is_some_and(|(from, to)| (from..to).contains(&(now as f64 / 1e6)))
    }

    pub fn rate_at(&self, now: Micros) -> u64 {
        let seconds = now as f64 / 1e6;
        self.rates.iter().rev().find(|(from, _)| *from <= seconds).map_or(self.rates[0].1, |(_, rate)| *rate)
    }

    /// Bits that could have passed in a time, in seconds.
    pub fn capacity_bits(&self, from: f64, to: f64) -> f64 {
        let mut bits = 0.0;
        for (i, (start, rate)) in self.rates.iter().enumerate() {
            let end = self.rates.get(i + 1).map_or(f64::INFINITY, |(next, _)| *next);
            bits += (to.min(end) - from.max(*start)).max(0.0) * *rate as f64;
        }
        bits
    }
}

/// Who uses it.
#[derive(Clone, Copy)]
pub enum Flow {
    Media { start: f64, keyframe_every: Option<f64>, source_max: u64 },
    Cubic { start: f64, stop: f64 },
}

impl Flow {
    pub fn media(start: f64) -> Self {
        Flow::Media { start, keyframe_every: Some(4.0), source_max: u64::MAX }
    }
}

/// One packet under way.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub flow: usize,
    pub seq: u64,
    pub bytes: u32,
    pub burst_end: u64,
    pub captured: Micros,
    pub sent: Micros,
}

#[derive(Debug)]
enum Event {
    /// A frame is captured, or a Cubic flow begins.
    Tick(usize),
    /// The pacer lets something go.
    Pace(usize),
    /// The head of the bottleneck's queue has been sent.
    Depart,
    Arrive(Packet),
    /// The receiver's report is due.
    Report(usize),
    Feedback(usize, bytes::Bytes),
    Ack(usize, u64),
}

/// One packet that came through the bottleneck.
#[derive(Clone, Copy)]
pub struct Passed {
    pub flow: usize,
    pub entered: Micros,
    /// When it was through.
    pub left: Micros,
    /// How long it waited for others.
    pub queued_us: Micros,
    pub bytes: u32,
    /// Not lost behind the bottleneck.
    pub delivered: bool,
    pub captured: Micros,
}

/// What happened.
pub struct Outcome {
    pub link: Link,
    pub seconds: f64,
    pub passed: Vec<Passed>,
    pub dropped: u64,
    /// Time and rate of each media flow, at each frame.
    pub rates: Vec<Vec<(Micros, u64)>>,
    pub skipped: Vec<u64>,
    pub reports: Vec<(u64, u64)>,
    pub loss_estimates: Vec<f64>,
}

pub struct Model {
    link: Link,
    now: Micros,
    order: u64,
    events: BTreeMap<(Micros, u64), Event>,
    queue: VecDeque<(Packet, Micros)>,
    queue_bytes: u64,
    busy: Option<(Packet, Micros, Micros)>,
    flows: Vec<Kind>,
    rng: Xoshiro256PlusPlus,
    last_forward: Micros,
    last_return: Vec<Micros>,
    outcome: Outcome,
}

enum Kind {
    Media(Box<Media>),
    Cubic(Cubic),
}

/// Runs one case to its end.
pub fn run(link: &Link, flows: &[Flow], seconds: f64, seed: u64) -> Outcome {
    let mut model = Model {
        link: link.clone(),
        now: 0,
        order: 0,
        events: BTreeMap::new(),
        queue: VecDeque::new(),
        queue_bytes: 0,
        busy: None,
        flows: Vec::new(),
        rng: Xoshiro256PlusPlus::seed_from_u64(seed),
        last_forward: 0,
        last_return: vec![0; flows.len()],
        outcome: Outcome {
            link: link.clone(),
            seconds,
            passed: Vec::new(),
            dropped: 0,
            rates: vec![Vec::new(); flows.len()],
            skipped: vec![0; flows.len()],
            reports: vec![(0, 0); flows.len()],
            loss_estimates: vec![0.0; flows.len()],
        },
    };
    for (index, flow) in flows.iter().enumerate() {
        let (start, kind) = match *flow {
            Flow::Media { start, keyframe_every, source_max } => {
                (start, Kind::Media(Box::new(Media::new(index, keyframe_every, source_max))))
            }
            Flow::Cubic { start, stop } => (start, Kind::Cubic(Cubic::new(index, stop))),
        };
        model.flows.push(kind);
        // Frames of several flows are not in step.
        let offset = model.rng.random::<f64>() * 0.03;
        model.at(((start + offset) * 1e6) as Micros, Event::Tick(index));
    }
    let end = (seconds * 1e6) as Micros;
    while let Some(((at, _), event)) = model.events.pop_first() {
        if at > end {
            break;
        }
        model.now = at;
        model.handle(event);
    }
    model.outcome
}

impl Model {
    fn at(&mut self, time: Micros, event: Event) {
        self.order += 1;
        self.events.insert((time.max(self.now), self.order), event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick(flow) => match &mut self.flows[flow] {
                Kind::Media(_) => self.media_tick(flow),
                Kind::Cubic(_) => self.cubic_send(flow),
            },
            Event::Pace(flow) => self.media_pace(flow),
            Event::Depart => self.depart(),
            Event::Arrive(packet) => match &mut self.flows[packet.flow] {
                Kind::Media(_) => self.media_arrive(packet),
                Kind::Cubic(_) => {
                    let at = self.now + self.link.owd_ms * 1000;
                    self.at(at, Event::Ack(packet.flow, packet.seq));
                }
            },
            Event::Report(flow) => self.media_report(flow),
            Event::Feedback(flow, bytes) => self.media_feedback(flow, bytes),
            Event::Ack(flow, seq) => {
                if let Kind::Cubic(cubic) = &mut self.flows[flow] {
                    cubic.on_ack(self.now, seq);
                }
                self.cubic_send(flow);
            }
        }
    }

    /// A packet reaches the bottleneck.
    fn enter(&mut self, packet: Packet) {
        if self.link.loss_before > 0.0 && self.rng.random::<f64>() < self.link.loss_before {
            return;
        }
        let limit = self.link.rate_at(self.now) * self.link.buffer_ms / 8000;
        if self.queue_bytes + u64::from(packet.bytes) > limit {
            self.outcome.dropped += 1;
            return;
        }
        self.queue_bytes += u64::from(packet.bytes);
        self.queue.push_back((packet, self.now));
        if self.busy.is_none() {
            self.serve();
        }
    }

    fn serve(&mut self) {
        let Some((packet, entered)) = self.queue.pop_front() else { return };
        self.queue_bytes -= u64::from(packet.bytes);
        let took = u64::from(packet.bytes) * 8 * SECOND / self.link.rate_at(self.now);
        self.busy = Some((packet, entered, self.now - entered));
        self.at(self.now + took, Event::Depart);
    }

    fn depart(&mut self) {
        let Some((packet, entered, queued_us)) = self.busy.take() else { return };
        let delivered = self.rng.random::<f64>() >= self.link.loss;
        self.outcome.passed.push(Passed {
            flow: packet.flow,
            entered,
            left: self.now,
            queued_us,
            bytes: packet.bytes,
            delivered,
            captured: packet.captured,
        });
        if delivered {
            let jitter = self.exponential(self.link.jitter_ms);
            let at = (self.now + self.link.owd_ms * 1000 + jitter).max(self.last_forward);
            self.last_forward = at;
            self.at(at, Event::Arrive(packet));
        }
        self.serve();
    }

    fn exponential(&mut self, mean_ms: f64) -> Micros {
        if mean_ms == 0.0 {
            return 0;
        }
        (-(1.0 - self.rng.random::<f64>()).ln() * mean_ms * 1000.0) as Micros
    }

    fn cubic_send(&mut self, flow: usize) {
        let Kind::Cubic(cubic) = &mut self.flows[flow] else { return };
        let packets: Vec<Packet> = std::iter::from_fn(|| cubic.next(self.now)).collect();
        let retry = cubic.timeout();
        for packet in packets {
            self.enter(packet);
        }
        // One timer is enough: an early one finds nothing to do and is set again.
        if let Some(at) = retry {
            self.at(at, Event::Tick(flow));
        }
    }
}

impl Outcome {
    fn window(&self, from: f64, to: f64) -> impl Iterator<Item = &Passed> {
        let (from, to) = ((from * 1e6) as Micros, (to * 1e6) as Micros);
        self.passed.iter().filter(move |p| (from..to).contains(&p.left))
    }

    /// Delivered bits/s of a flow.
    pub fn throughput(&self, flow: usize, from: f64, to: f64) -> f64 {
        let bytes: u64 =
            self.window(from, to).filter(|p| p.flow == flow && p.delivered).map(|p| u64::from(p.bytes)).sum();
        bytes as f64 * 8.0 / (to - from)
    }

    /// Delivered share of what the link could deliver, all flows together.
    pub fn utilisation(&self, from: f64, to: f64) -> f64 {
        let bytes: u64 = self.window(from, to).filter(|p| p.delivered).map(|p| u64::from(p.bytes)).sum();
        bytes as f64 * 8.0 / (self.link.capacity_bits(from, to) * (1.0 - self.link.loss))
    }

    /// Queueing delay at the bottleneck, ms, of the packets of a time; `share` 0 to 1.
    pub fn queue_ms(&self, from: f64, to: f64, share: f64) -> f64 {
        let mut delays: Vec<Micros> = self.window(from, to).map(|p| p.queued_us).collect();
        delays.sort_unstable();
        let at = ((delays.len() as f64 * share) as usize).min(delays.len().saturating_sub(1));
        delays.get(at).map_or(0.0, |us| *us as f64 / 1000.0)
    }

    /// When after `from` the queue fell below `ms` for good (until `to`), in seconds after `from`.
    pub fn queue_below_from(&self, from: f64, to: f64, ms: f64) -> f64 {
        let last = self.window(from, to).filter(|p| p.queued_us as f64 > ms * 1000.0).map(|p| p.left).max();
        last.map_or(0.0, |at| at as f64 / 1e6 - from)
    }

    /// When after `from` the throughput over half a second first reached a share of the link's.
    pub fn reached(&self, flow: usize, from: f64, share: f64) -> f64 {
        let goal = self.link.rate_at(((from + 0.1) * 1e6) as Micros) as f64 * share * (1.0 - self.link.loss);
        let mut end = from + 0.5;
        while end <= self.seconds {
            if self.throughput(flow, end - 0.5, end) >= goal {
                return end - from;
            }
            end += 0.05;
        }
        f64::INFINITY
    }

    /// The oldest a frame's packet was when it was through, ms.
    pub fn age_max_ms(&self, from: f64, to: f64) -> f64 {
        self.window(from, to).map(|p| p.left - p.captured).max().map_or(0.0, |us| us as f64 / 1000.0)
    }

    /// How old a packet was when it was through, ms: sender's queue and bottleneck together.
    pub fn age_ms(&self, from: f64, to: f64, share: f64) -> f64 {
        let mut ages: Vec<Micros> = self.window(from, to).map(|p| p.left - p.captured).collect();
        ages.sort_unstable();
        let at = ((ages.len() as f64 * share) as usize).min(ages.len().saturating_sub(1));
        ages.get(at).map_or(0.0, |us| *us as f64 / 1000.0)
    }
}

/// Jain's index: 1 when all are equal, 1/n when one has all.
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|x| x * x).sum::<f64>())
}
