//! What a relay costs: one publisher, many subscribers over real UDP on loopback, the relay in a
//! process of its own whose CPU time is read from the system.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::{Delivery, Engine, JoinOptions, PlayOptions, PublishOptions, Scenario};

use crate::quantile::Delays;
use crate::source::{Shape, Source};

/// The argument that turns this program into the relay of a measurement.
pub const RELAY_COMMAND: &str = "relay-for-fanout";
const STREAM: &str = "fanout";
/// Time for everybody to be there and for caches and windows to settle.
const WARM_UP: Duration = Duration::from_secs(2);
/// Arrival delays kept for each subscriber.
const DELAYS_MAX: usize = 100_000;

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Fanout {
    /// How many play the stream.
    pub subscribers: usize,
    /// What is sent.
    pub shape: Shape,
    /// How frames travel.
    pub delivery: Delivery,
    /// How long is measured.
    pub length: Duration,
}

/// What it gave.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Frames that reached their subscriber during the measurement.
    pub delivered: u64,
    /// Frames that should have.
    pub due: u64,
    /// CPU time of the relay process; `None` where the system does not tell.
    pub cpu: Option<Duration>,
    /// From capture to arrival at a subscriber, by the wall clock of this machine.
    pub age: Delays,
}

impl Outcome {
    /// CPU time for one delivered frame.
    pub fn cpu_per_frame(&self) -> Option<Duration> {
        let frames = u32::try_from(self.delivered).ok().filter(|&frames| frames > 0)?;
        self.cpu.map(|cpu| cpu / frames)
    }
}

/// A child process that ends with this value.
struct RelayProcess {
    child: Child,
    address: String,
}

impl RelayProcess {
    fn start() -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(RELAY_COMMAND)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut address)?;
        }
        let address = address.trim().to_owned();
        if address.is_empty() {
            _ = child.kill();
            return Err(io::Error::other("the relay process did not start"));
        }
        Ok(RelayProcess { child, address })
    }

    /// CPU time so far. The relay runs on one thread, so its main thread is all of it.
    fn cpu(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/schedstat", self.child.id())).ok()?;
        stat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Fanout {
    /// Runs the measurement; takes its length and a few seconds.
    ///
    /// # Errors
    /// When the relay process does not start or somebody cannot join.
    pub async fn run(&self) -> io::Result<Outcome> {
        let relay = RelayProcess::start()?;
        let failed = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
        let engine = || Engine::new(Scenario::StandardCall).map_err(|error| failed(&error));

        let publishing = engine()?;
        let room =
            publishing.join(JoinOptions::new(&relay.address, "publisher")).map_err(|error| failed(&error))?;
        let options = PublishOptions::new(STREAM).video("bench").delivery(self.delivery);
        let publisher = room.publish(options).map_err(|error| failed(&error))?;
        publisher.publishing().await.map_err(|error| failed(&error))?;

        let counting = Arc::new(AtomicU64::new(0));
        let mut subscribers = Vec::new();
        for number in 0..self.subscribers {
            let engine = engine()?;
            let room = engine
                .join(JoinOptions::new(&relay.address, format!("subscriber-{number}")))
                .map_err(|error| failed(&error))?;
            room.joined().await.map_err(|error| failed(&error))?;
            let player = room.play(STREAM, PlayOptions::new()).map_err(|error| failed(&error))?;
            let counting = Arc::clone(&counting);
            subscribers.push(tokio::spawn(async move {
                let mut frames = player.frames();
                let (mut delivered, mut ages) = (0u64, Vec::new());
                while let Some(frame) = frames.next().await {
                    match counting.load(Ordering::Relaxed) {
                        0 => {}
                        1 => {
                            delivered += 1;
                            if ages.len() < DELAYS_MAX {
                                ages.push(Some(frame.age()));
                            }
                        }
                        _ => break,
                    }
                }
                drop((player, room, engine));
                (delivered, ages)
            }));
        }

        let mut source = Source::new(self.shape);
        let start = publishing.now();
        let (mut due, mut cpu_before) = (0, None);
        for number in 0u32.. {
            let captured = start + self.shape.interval() * number;
            publishing.clock().sleep_until(captured).await;
            let elapsed = captured.saturating_since(start);
            if elapsed >= WARM_UP && counting.load(Ordering::Relaxed) == 0 {
                cpu_before = relay.cpu();
                counting.store(1, Ordering::Relaxed);
            }
            if elapsed >= WARM_UP + self.length {
                break;
            }
            if !publisher.take_keyframe_requests().is_empty() {
                source.force_keyframe();
            }
            let made = source.make();
            due += u64::from(elapsed >= WARM_UP) * self.subscribers as u64;
            _ = publisher.send_frame(EncodedFrame {
                keyframe: made.keyframe,
                ..EncodedFrame::new(0, captured, made.payload)
            });
        }
        // What is under way belongs to the measurement.
        publishing.clock().sleep(Duration::from_millis(200)).await;
        let cpu_after = relay.cpu();
        counting.store(2, Ordering::Relaxed);
        // One more frame lets every subscriber notice that it is over.
        source.force_keyframe();
        let made = source.make();
        _ = publisher.send_frame(EncodedFrame {
            keyframe: true,
            ..EncodedFrame::new(0, publishing.now(), made.payload)
        });
        let (mut delivered, mut ages) = (0, Vec::new());
        for subscriber in subscribers {
            let (frames, mut age) = subscriber.await.map_err(|error| failed(&error))?;
            delivered += frames;
            ages.append(&mut age);
        }
        let cpu = cpu_before.zip(cpu_after).map(|(before, after)| after.saturating_sub(before));
        Ok(Outcome { delivered, due, cpu, age: Delays::new(ages) })
    }
}
