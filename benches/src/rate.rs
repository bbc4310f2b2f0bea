//! How well Parlor finds out what a link carries: the cases of RFC 8867 and some more, on the whole real stack
//! in virtual time. Sources follow what the transport offers.
//!
//! *Use* is source and parity as they arrive, QUIC's and IP's headers included, over what the link can
//! deliver: what its bottleneck carries, less the share that is lost behind it. Repair brings source that was
//! lost and does not count by itself; nothing is sent as padding.

use std::sync::Arc;
use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::{
    Engine, JoinOptions, PlayOptions, PublishOptions, Publisher, Room, RoomId, Scenario, Timestamp,
};
use parlor_relay::{Config, Relay};
use parlor_transport::clock::Clock;
use parlor_transport::sim::{Direction, Host, Profile, Sim, Simulation};
use tokio::task::JoinSet;

use crate::cell::{Link, Way};
use crate::contender::quic::Congestion;
use crate::contender::quinn_streams::QuinnStreams;
use crate::quantile::Delays;
use crate::source::{Shape, Source, number_of};

mod cases;

pub use cases::{names, run_cases};

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Everything about the publishers' link but its rate.
    pub link: Link,
    /// From when on the link has which rate, bit/s.
    pub rates: Vec<(Duration, u64)>,
    /// When our flows start.
    pub flows: Vec<Duration>,
    /// When a Cubic flow without end starts that shares the bottleneck.
    pub cross: Option<Duration>,
    /// Length.
    pub length: Duration,
}

/// What happened in a case, in steps of [`STEP`].
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// When the case began.
    pub start: Timestamp,
    /// Bytes through the bottleneck, one entry a step.
    pub through: Vec<u64>,
    /// Bytes of source and parity of each of our flows, with their share of headers.
    pub flows: Vec<Vec<f64>>,
    /// The media rate offered to each flow, bit/s.
    pub targets: Vec<Vec<u64>>,
    /// How long packets waited before the bottleneck.
    pub queue: Vec<(Timestamp, Duration)>,
    /// Capture and age on arrival of each frame of the first flow; none if it never came.
    pub frames: Vec<(Timestamp, Option<Duration>)>,
}

/// Resolution of a [`Record`].
pub const STEP: Duration = Duration::from_millis(100);
/// What a source makes at most, bit/s: more than any case's link carries.
const SOURCE_MAX: u64 = 6_000_000;

impl Case {
    /// Runs it.
    ///
    /// # Errors
    /// When no call comes about.
    pub fn run(&self, seed: u64) -> Result<Record, String> {
        let limit = self.length + Duration::from_secs(60);
        Simulation::new(seed).time_max(limit).run(async |sim| self.run_in(&sim).await)
    }

    fn profile(&self, rate: u64) -> Profile {
        let media = Way { rate: Some(rate), ..self.link.media.clone() };
        Link { media, ..self.link.clone() }.upward()
    }

    async fn run_in(&self, sim: &Sim) -> Result<Record, String> {
        let clock = sim.clock().clone();
        let beside = Profile::perfect().with_rtt(Duration::ZERO);
        let relay_host = sim.host("relay", beside.clone());
        let binding = relay_host.binding(4433).map_err(|error| error.to_string())?;
        let relay = Relay::bind_on(Config::dev(), binding).await.map_err(|error| error.to_string())?;
        let address = relay.address(RoomId::new("rate").ok()).to_string();
        tokio::spawn(relay.run(std::future::pending()));

        let first_rate = self.rates.first().map_or(0, |(_, rate)| *rate);
        let senders = sim.host("publishers", self.profile(first_rate));
        senders.log_queue(Direction::Up);
        let viewer = engine_on(&sim.host("viewer", beside.clone()))?;
        let viewer_room = join(&viewer, &address, "viewer")?;
        let start = clock.now();
        let mut record = Record { start, ..Record::default() };
        let mut tasks = JoinSet::new();
        if let Some(after) = self.cross {
            let sink = sim.host("sink", beside);
            let (senders, clock) = (senders.clone(), clock.clone());
            tasks.spawn(async move {
                clock.sleep_until(start + after).await;
                QuinnStreams { congestion: Congestion::Cubic }.fill(&senders, &sink).await
            });
        }
        let mut frames = None;
        let mut flows: Vec<Option<Flow>> = self.flows.iter().map(|_| None).collect();
        record.flows = vec![Vec::new(); flows.len()];
        record.targets = vec![Vec::new(); flows.len()];
        let steps = (self.length.as_micros() / STEP.as_micros()) as u32;
        let mut through = senders.stats(Direction::Up).delivered.bytes;
        for step in 0..steps {
            let now = start + STEP * step;
            let changed = self.rates.iter().find(|(at, _)| start + *at == now && !at.is_zero());
            if let Some((_, rate)) = changed {
                senders.set_profile(self.profile(*rate));
            }
            for (at, after) in self.flows.iter().enumerate() {
                if start + *after == now {
                    let (flow, came) = {
                        let loss = self.link.media.loss;
                        Flow::start(&senders, &address, at, &viewer_room, &clock, loss, &mut tasks)?
                    };
                    flows[at] = Some(flow);
                    frames.get_or_insert(came);
                }
            }
            clock.sleep_until(now + STEP).await;
            let stats = senders.stats(Direction::Up);
            record.through.push(stats.delivered.bytes - through);
            through = stats.delivered.bytes;
            for (at, flow) in flows.iter_mut().enumerate() {
                let (sent, target) = flow.as_mut().map_or((0.0, 0), Flow::sent);
                record.flows[at].push(sent);
                record.targets[at].push(target);
            }
        }
        record.queue = senders.queue_log(Direction::Up);
        drop(flows);
        tasks.abort_all();
        _ = viewer_room.leave().await;
        if let Some(frames) = frames {
            record.frames = frames.await.map_err(|error| error.to_string())?;
        }
        Ok(record)
    }
}

/// One publisher with a source that follows.
struct Flow {
    room: Arc<Room>,
    _engine: Engine,
    /// The share of packets that the link lets through.
    passing: f64,
    sent: f64,
}

/// Capture and age of frames, once the flow has ended.
type Frames = tokio::task::JoinHandle<Vec<(Timestamp, Option<Duration>)>>;

/// What QUIC and IP add to a datagram: short header, packet number, frame, tag; IPv4 and UDP.
const HEADERS: f64 = 30.0 + 28.0;

impl Flow {
    fn start(
        host: &Host,
        address: &str,
        number: usize,
        viewer: &Room,
        clock: &Clock,
        loss: f64,
        tasks: &mut JoinSet<()>,
    ) -> Result<(Flow, Frames), String> {
        let name = format!("flow{number}");
        let engine = engine_on(host)?;
        let room = Arc::new(join(&engine, address, &name)?);
        let publisher =
            room.publish(PublishOptions::new(&name).video("bench")).map_err(|error| error.to_string())?;
        let player = viewer.play(&name, PlayOptions::new()).map_err(|error| error.to_string())?;
        let (captured, captures) = tokio::sync::mpsc::unbounded_channel();
        tasks.spawn(publish(publisher, Arc::clone(&room), clock.clone(), captured));
        let mut frames = player.frames();
        let came = tokio::spawn(async move {
            let mut arrived: std::collections::BTreeMap<u64, Timestamp> = std::collections::BTreeMap::new();
            while let Some(frame) = frames.next().await {
                if let Some(number) = number_of(&frame.payload) {
                    arrived.insert(number, frame.arrived);
                }
            }
            // It plays for as long as its player is there.
            drop(player);
            let mut captures = captures;
            let mut fates = Vec::new();
            while let Ok((number, at)) = captures.try_recv() {
                fates.push((at, arrived.get(&number).map(|came| came.saturating_since(at))));
            }
            fates
        });
        Ok((Flow { room, _engine: engine, passing: 1.0 - loss, sent: 0.0 }, came))
    }

    /// Bytes of source and parity since the last call, and the rate offered now.
    fn sent(&mut self) -> (f64, u64) {
        let Some(uplink) = self.room.stats().uplink else { return (0.0, 0) };
        // What is lost of the source comes again as repair, which does not count: source counts as it arrives.
        let source = uplink.sent.source as f64 / self.passing;
        let all = (uplink.sent.source + uplink.sent.parity + uplink.sent.repair).max(1) as f64;
        let own = source + uplink.sent.parity as f64;
        let sent = own + own / all * uplink.sent.packets as f64 * HEADERS;
        let more = sent - self.sent;
        self.sent = sent;
        (more, uplink.media_target)
    }
}

async fn publish(
    publisher: Publisher,
    room: Arc<Room>,
    clock: Clock,
    captured: tokio::sync::mpsc::UnboundedSender<(u64, Timestamp)>,
) {
    if publisher.publishing().await.is_err() {
        return;
    }
    let shape = Shape { bitrate: SOURCE_MAX, ..Shape::default() };
    let mut source = Source::new(shape);
    let mut next = clock.now();
    loop {
        next += shape.interval();
        if let Some(uplink) = room.stats().uplink {
            source.set_bitrate(uplink.media_target.min(SOURCE_MAX));
            if uplink.overfull {
                clock.sleep_until(next).await;
                continue;
            }
        }
        if !publisher.take_keyframe_requests().is_empty() {
            source.force_keyframe();
        }
        let made = source.make();
        _ = captured.send((made.number, clock.now()));
        let frame =
            EncodedFrame { keyframe: made.keyframe, ..EncodedFrame::new(0, clock.now(), made.payload) };
        _ = publisher.send_frame(frame);
        clock.sleep_until(next).await;
    }
}

fn engine_on(host: &Host) -> Result<Engine, String> {
    let binding = host.binding(0).map_err(|error| error.to_string())?;
    Engine::with_network(Scenario::StandardCall, binding).map_err(|error| error.to_string())
}

fn join(engine: &Engine, address: &str, user: &str) -> Result<Room, String> {
    engine.join(JoinOptions::new(address, user)).map_err(|error| error.to_string())
}

impl Record {
    /// The rate of flow `at` between two times after the start, bit/s.
    pub fn flow_rate(&self, at: usize, from: Duration, until: Duration) -> f64 {
        let steps = steps(from)..steps(until).min(self.flows[at].len());
        let length = (steps.len().max(1) as f64) * STEP.as_secs_f64();
        self.flows[at][steps].iter().sum::<f64>() * 8.0 / length
    }

    /// The rate of all our flows, bit/s.
    pub fn rate(&self, from: Duration, until: Duration) -> f64 {
        (0..self.flows.len()).map(|at| self.flow_rate(at, from, until)).sum()
    }

    /// The rate of everybody's, bit/s.
    pub fn all_rate(&self, from: Duration, until: Duration) -> f64 {
        let steps = steps(from)..steps(until).min(self.through.len());
        let length = (steps.len().max(1) as f64) * STEP.as_secs_f64();
        self.through[steps].iter().sum::<u64>() as f64 * 8.0 / length
    }

    /// How long packets waited that came to the bottleneck between two times.
    pub fn queue(&self, from: Duration, until: Duration) -> Delays {
        let (from, until) = (self.start + from, self.start + until);
        let within = self.queue.iter().filter(|(at, _)| *at >= from && *at < until);
        Delays::new(within.map(|(_, wait)| Some(*wait)))
    }

    /// How long after `from` our rate over half a second first reaches `rate`, if it does.
    pub fn reaches(&self, rate: f64, from: Duration) -> Option<Duration> {
        let window = Duration::from_millis(500);
        let last = STEP * self.through.len() as u32;
        (1..)
            .map(|step| from + STEP * step)
            .take_while(|until| *until <= last)
            .find(|until| self.rate(until.saturating_sub(window).max(from.min(*until)), *until) >= rate)
            .map(|until| until - from)
    }

    /// How long after `from` the last packet waited longer than `limit`, up to `until`.
    pub fn queue_falls_below(&self, limit: Duration, from: Duration, until: Duration) -> Duration {
        let (begin, end) = (self.start + from, self.start + until);
        let above = self.queue.iter().rev().find(|(at, wait)| *at >= begin && *at < end && *wait > limit);
        above.map_or(Duration::ZERO, |(at, _)| at.saturating_since(begin))
    }

    /// Of the frames of the first flow captured between two times: the age of the oldest on arrival, and how
    /// many never came, most of them dropped by the sender because the link was full.
    pub fn frame_ages(&self, from: Duration, until: Duration) -> (Duration, usize) {
        let (from, until) = (self.start + from, self.start + until);
        let within = || self.frames.iter().filter(|(at, _)| *at >= from && *at < until);
        let oldest = within().filter_map(|(_, age)| *age).max().unwrap_or_default();
        (oldest, within().filter(|(_, age)| age.is_none()).count())
    }
}

fn steps(time: Duration) -> usize {
    (time.as_micros() / STEP.as_micros()) as usize
}
