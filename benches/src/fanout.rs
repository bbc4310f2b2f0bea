//! What a relay costs: publishers and many subscribers over real UDP, the relay in a process of its own whose CPU
//! time, context switches and memory are read from the system.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::{
    AudioLevel, Delivery, Engine, EngineConfig, JoinOptions, PlayOptions, Player, PublishOptions, Publisher,
    Room, Scenario, Timestamp,
};
use parlor_transport::clock::Clock;
use parlor_transport::quic::Binding;
use parlor_transport::sim::Profile;
use tokio::task::JoinSet;

use crate::cpu::Usage;
use crate::floor;
use crate::link_socket::LinkSocket;
use crate::quantile::Delays;
use crate::relay_process::{RelayProcess, Which};
use crate::source::{Kind, Shape, Source, number_of};

/// Time for everybody to be there and for caches and windows to settle.
const WARM_UP: Duration = Duration::from_secs(2);
/// Arrival delays kept for each stream that is played.
const DELAYS_MAX: usize = 20_000;

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Fanout {
    /// How many publish, each one stream, their frames spread evenly over the time between two frames.
    pub publishers: usize,
    /// How many play all of them.
    pub subscribers: usize,
    /// Whether those who publish play the others, too: a meeting rather than a broadcast.
    pub is_meeting: bool,
    /// What is sent.
    pub shape: Shape,
    /// How frames travel.
    pub delivery: Delivery,
    /// The link that each subscriber is behind, if any.
    pub link: Option<Profile>,
    /// How long is measured.
    pub length: Duration,
    /// Whose cost is measured.
    pub relay: Which,
    /// Options of a relay that is started for it.
    pub relay_options: Vec<String>,
}

/// What it gave.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Frames that reached a subscriber during the measurement.
    pub delivered: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The fewest packets that carry them.
    pub packets: u64,
    /// Frames published then, times those who play them; of sound those of the ones who speak.
    pub due: u64,
    /// How many of those reached a subscriber.
    pub due_delivered: u64,
    /// What the relay used meanwhile; `None` where the system does not tell.
    pub usage: Option<Usage>,
    /// The relay's memory for each subscriber, bytes; `None` without subscribers, too.
    pub memory_per_subscriber: Option<u64>,
    /// How long was measured.
    pub length: Duration,
    /// From capture to arrival at a subscriber, on this machine's clock.
    pub age: Delays,
}

impl Outcome {
    /// CPU time of the relay for one delivered frame.
    pub fn cpu_per_frame(&self) -> Option<Duration> {
        let usage = self.usage.filter(|_| self.delivered > 0)?;
        Some(usage.cpu.div_f64(self.delivered as f64))
    }

    /// CPU time of the relay for one packet, of the fewest that carry what was delivered.
    pub fn cpu_per_packet(&self) -> Option<Duration> {
        let usage = self.usage.filter(|_| self.packets > 0)?;
        Some(usage.cpu.div_f64(self.packets as f64))
    }

    /// CPU seconds of the relay for a delivered gigabit.
    pub fn cpu_per_gigabit(&self) -> Option<f64> {
        (self.bytes > 0).then_some(self.usage?.cpu.as_secs_f64() / (self.bytes as f64 * 8e-9))
    }
}

const WARMING: u8 = 0;
const COUNTING: u8 = 1;
const LATE: u8 = 2;
/// What was published during the measurement may still come for so long.
const LATE_MAX: Duration = Duration::from_millis(300);

/// What publishers and subscribers tell of the measurement.
struct Tally {
    phase: AtomicU8,
    /// For each stream the numbers of the frames that count: the first, and the one after the last.
    counted: Vec<(AtomicU64, AtomicU64)>,
    shape: Shape,
    delivered: AtomicU64,
    due_delivered: AtomicU64,
    bytes: AtomicU64,
    packets: AtomicU64,
    ages: Mutex<Vec<Option<Duration>>>,
}

impl Tally {
    fn new(streams: usize, shape: Shape) -> Self {
        let none = || (AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX));
        Tally {
            phase: AtomicU8::new(WARMING),
            counted: (0..streams).map(|_| none()).collect(),
            shape,
            delivered: AtomicU64::default(),
            due_delivered: AtomicU64::default(),
            bytes: AtomicU64::default(),
            packets: AtomicU64::default(),
            ages: Mutex::default(),
        }
    }

    /// A frame is about to be published.
    fn publish(&self, stream: usize, number: u64) {
        let (first, end) = &self.counted[stream];
        match self.phase.load(Ordering::Relaxed) {
            COUNTING => _ = first.fetch_min(number, Ordering::Relaxed),
            LATE => _ = end.fetch_min(number, Ordering::Relaxed),
            _ => {}
        }
    }

    fn counts(&self, stream: usize, number: u64) -> bool {
        let (first, end) = &self.counted[stream];
        (first.load(Ordering::Relaxed)..end.load(Ordering::Relaxed)).contains(&number)
    }

    /// Whether this frame has to reach everybody: all pictures, and sound of those who speak.
    fn is_due(&self, stream: usize, number: u64) -> bool {
        self.shape.kind == Kind::Video || speaks(stream, self.counted.len(), number, &self.shape)
    }

    /// Frames of all streams that count and are due.
    fn due(&self) -> u64 {
        let count = |(stream, (first, end)): (usize, &(AtomicU64, AtomicU64))| {
            let numbers = first.load(Ordering::Relaxed)..end.load(Ordering::Relaxed);
            numbers.filter(|&number| self.is_due(stream, number)).count() as u64
        };
        self.counted.iter().enumerate().map(count).sum()
    }
}

/// How many speak at a time, and for how long.
const SPEAKERS: usize = 3;
/// See [`SPEAKERS`].
const SPEECH: Duration = Duration::from_secs(2);

/// Whether somebody speaks in this frame. One after the other begins, and stops when the third after them begins.
fn speaks(stream: usize, streams: usize, number: u64, shape: &Shape) -> bool {
    let speakers = SPEAKERS.min(streams);
    let turn = (SPEECH.as_secs_f64() * f64::from(shape.frames_per_second)) as u64 / speakers.max(1) as u64;
    let first = (number / turn.max(1)) as usize % streams.max(1);
    (stream + streams - first) % streams.max(1) < speakers
}

fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Fanout {
    /// Runs the measurement; takes its length and some seconds.
    ///
    /// # Errors
    /// When the relay process does not start or somebody cannot join.
    pub async fn run(&self, progress: impl Fn(&str)) -> io::Result<Outcome> {
        let relay = RelayProcess::get(&self.relay, &self.relay_options)?;
        let tally = Arc::new(Tally::new(self.publishers, self.shape));
        let mut stage = Vec::new();
        for number in 0..self.publishers {
            stage.push(self.publish(&relay, number).await?);
        }
        let before = relay.usage();
        let mut audience = Vec::new();
        let mut players = Vec::new();
        for number in 0..self.subscribers {
            if number % 25 == 0 {
                progress(&format!("{number} of {} subscribers are there", self.subscribers));
            }
            let engine = self.engine(number)?;
            let options = JoinOptions::new(relay.address(), format!("subscriber-{number}"));
            let room = engine.join(options).map_err(failed)?;
            room.joined().await.map_err(failed)?;
            for stream in 0..self.publishers {
                players.push((stream, room.play(name(stream), PlayOptions::new()).map_err(failed)?));
            }
            audience.push((engine, room));
        }
        if self.is_meeting {
            for (number, on_stage) in stage.iter().enumerate() {
                for stream in (0..self.publishers).filter(|&stream| stream != number) {
                    let player = on_stage.room.play(name(stream), PlayOptions::new()).map_err(failed)?;
                    players.push((stream, player));
                }
            }
        }
        let audience_size = players.len() as u64 / self.publishers.max(1) as u64;
        let mut tasks = JoinSet::new();
        for (stream, player) in players {
            tasks.spawn(watch(player, stream, Arc::clone(&tally)));
        }
        let clock = Clock::system();
        for (number, on_stage) in stage.iter().enumerate() {
            let phase = self.shape.interval() * number as u32 / self.publishers.max(1) as u32;
            let start = on_stage.engine.now() + phase;
            let (publisher, clock) = (on_stage.publisher.clone(), on_stage.engine.clock().clone());
            tasks.spawn(send(publisher, number, clock, start, Arc::clone(&tally)));
        }
        progress("warming up");
        clock.sleep(WARM_UP).await;
        let usage_before = relay.usage();
        tally.phase.store(COUNTING, Ordering::Relaxed);
        progress(&format!("measuring for {} s", self.length.as_secs()));
        clock.sleep(self.length).await;
        let usage_after = relay.usage();
        tally.phase.store(LATE, Ordering::Relaxed);
        clock.sleep(LATE_MAX).await;
        let due = tally.due() * audience_size;
        tasks.shutdown().await;
        drop((audience, stage));
        let usage = usage_before.zip(usage_after).map(|(before, after)| after.since(&before));
        let grown = before.zip(usage_after).map(|(before, after)| after.memory.saturating_sub(before.memory));
        let ages = std::mem::take(&mut *tally.ages.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Outcome {
            delivered: tally.delivered.load(Ordering::Relaxed),
            bytes: tally.bytes.load(Ordering::Relaxed),
            packets: tally.packets.load(Ordering::Relaxed),
            due,
            due_delivered: tally.due_delivered.load(Ordering::Relaxed),
            usage,
            memory_per_subscriber: grown.and_then(|bytes| bytes.checked_div(self.subscribers as u64)),
            length: self.length,
            age: Delays::new(ages),
        })
    }

    /// The engine of a subscriber: with a socket of its own, behind a link of its own.
    fn engine(&self, number: usize) -> io::Result<Engine> {
        let config = EngineConfig::from(Scenario::StandardCall);
        let Some(link) = &self.link else { return Engine::new(config).map_err(failed) };
        let clock = Clock::system();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let socket = clock.quinn_runtime().wrap_udp_socket(socket)?;
        let name = format!("subscriber-{number}");
        let socket = LinkSocket::new(socket, clock.clone(), link.clone(), number as u64, &name);
        Engine::with_network(config, Binding::custom(socket, clock, None)).map_err(failed)
    }

    async fn publish(&self, relay: &RelayProcess, number: usize) -> io::Result<OnStage> {
        let engine = Engine::new(Scenario::StandardCall).map_err(failed)?;
        let options = JoinOptions::new(relay.address(), format!("publisher-{number}"));
        let room = engine.join(options).map_err(failed)?;
        let options = PublishOptions::new(name(number)).delivery(self.delivery);
        let options = match self.shape.kind {
            Kind::Video => options.video("bench"),
            Kind::Audio => options.audio("bench"),
        };
        let publisher = room.publish(options).map_err(failed)?;
        publisher.publishing().await.map_err(failed)?;
        Ok(OnStage { engine, room, publisher: Arc::new(publisher) })
    }
}

/// Somebody who publishes.
struct OnStage {
    engine: Engine,
    room: Room,
    publisher: Arc<Publisher>,
}

fn name(stream: usize) -> String {
    format!("stream-{stream}")
}

/// Publishes until it is aborted.
async fn send(publisher: Arc<Publisher>, stream: usize, clock: Clock, start: Timestamp, tally: Arc<Tally>) {
    let shape = tally.shape;
    let mut source = Source::new(shape);
    for number in 0_u32.. {
        let captured = start + shape.interval() * number;
        clock.sleep_until(captured).await;
        if !publisher.take_keyframe_requests().is_empty() {
            source.force_keyframe();
        }
        let made = source.make();
        let keyframe = made.keyframe && shape.kind == Kind::Video;
        let level = match speaks(stream, tally.counted.len(), made.number, &shape) {
            true => AudioLevel { below_full_scale: 20, voice: true },
            false => AudioLevel { below_full_scale: 90, voice: false },
        };
        let level = (shape.kind == Kind::Audio).then_some(level);
        let frame = EncodedFrame { keyframe, level, ..EncodedFrame::new(0, captured, made.payload) };
        tally.publish(stream, made.number);
        // Counted whether it is taken or not: what the client drops is not delivered either.
        _ = publisher.send_frame(frame);
    }
}

/// Counts what comes until it is aborted.
async fn watch(player: Player, stream: usize, tally: Arc<Tally>) {
    let mut frames = player.frames();
    let mut kept = 0;
    while let Some(frame) = frames.next().await {
        let number = number_of(&frame.payload).filter(|&number| tally.counts(stream, number));
        let Some(number) = number else { continue };
        let bytes = frame.payload.len();
        tally.delivered.fetch_add(1, Ordering::Relaxed);
        tally.due_delivered.fetch_add(u64::from(tally.is_due(stream, number)), Ordering::Relaxed);
        tally.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        tally.packets.fetch_add(floor::packets(bytes) as u64, Ordering::Relaxed);
        if kept < DELAYS_MAX {
            kept += 1;
            let age = Some(frame.age());
            tally.ages.lock().unwrap_or_else(PoisonError::into_inner).push(age);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_speak_at_a_time_and_everybody_for_two_seconds() {
        let shape = Shape::audio(32_000);
        for number in (0..1000).step_by(7) {
            assert_eq!((0..10).filter(|&stream| speaks(stream, 10, number, &shape)).count(), 3);
            assert!((0..2).all(|stream| speaks(stream, 2, number, &shape)));
        }
        let spoken = (0..330).filter(|&number| speaks(4, 10, number, &shape)).count();
        assert_eq!(spoken, 99, "once in a round of ten turns, 33 frames a turn");
    }
}
