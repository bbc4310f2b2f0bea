//! MoQ's way of sending on quinn's streams: a group of pictures per QUIC stream, frames in it one after the
//! other, the newest group first. It is that scheme written out on quinn, not a MoQ library: no sessions,
//! subscriptions or announcements, whose bytes are few beside the media's.
//!
//! There are no keyframe requests. A group is reset when its successor is a second old and it is still not
//! through. With two links, a relay between them passes on every frame that is whole, in its group's stream.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use parlor_client::Timestamp;
use parlor_transport::clock::Clock;
use parlor_transport::sim::{Host, Profile, Sim, Simulation};
use quinn::{Connection, RecvStream, VarInt};
use tokio::sync::mpsc;

use super::meter::Hosts;
use super::quinn_streams::{Congestion, Identity, accepting, connect, estimate};
use super::{Contender, Fate, Run};
use crate::cell::{Cell, Feed};
use crate::source::{Source, number_of};

/// Groups on QUIC streams with one of quinn's own congestion controllers.
#[derive(Debug, Clone, Copy)]
pub struct MoqScheme {
    /// Which one.
    pub congestion: Congestion,
}

/// After the last frame this long is waited for stragglers.
const GRACE: Duration = Duration::from_secs(5);
/// Between the connection and the first frame.
const START: Duration = Duration::from_secs(1);
/// What is left of a group when its successor is this old is not sent.
const STALE: Duration = Duration::from_secs(1);
/// Frames of one group that wait for their stream; a longer group loses its end.
const FRAMES_MAX: usize = 1_024;
/// The largest frame that is read.
const FRAME_MAX: usize = 4 * 1024 * 1024;

type Came = Arc<Mutex<Vec<Option<Timestamp>>>>;

impl Contender for MoqScheme {
    fn name(&self) -> String {
        match self.congestion {
            Congestion::Cubic => "moq-scheme-cubic",
            Congestion::Bbr => "moq-scheme-bbr",
        }
        .to_owned()
    }

    fn run(&self, cell: &Cell) -> Result<Run, String> {
        let limit = cell.length + START + GRACE + Duration::from_secs(120);
        Simulation::new(cell.seed).time_max(limit).run(async |sim| self.run_in(&sim, cell).await)
    }
}

impl MoqScheme {
    async fn run_in(&self, sim: &Sim, cell: &Cell) -> Result<Run, String> {
        let hosts = Hosts::new(sim, cell);
        let identity = Identity::new()?;
        let clock = sim.clock().clone();
        let came: Came = Arc::new(Mutex::new(vec![None; cell.frames() as usize]));
        self.subscribe(&hosts.subscriber, &identity, &came, &clock)?;
        let target = if cell.publisher.is_some() && cell.subscriber.is_some() {
            let relay = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
            let onward = connect(self.congestion, &relay, &hosts.subscriber, &identity).await?;
            self.relay(&relay, &identity, onward, &clock)?;
            relay
        } else {
            hosts.subscriber.clone()
        };
        let connection = connect(self.congestion, &hosts.publisher, &target, &identity).await?;
        let meter = hosts.measure(cell);
        let mut run = publish(cell, &connection, &clock).await;
        clock.sleep(GRACE).await;
        meter.read(&mut run);
        let came = came.lock().unwrap_or_else(PoisonError::into_inner);
        run.frames.iter_mut().zip(came.iter()).for_each(|(frame, at)| frame.complete = *at);
        Ok(run)
    }

    fn subscribe(&self, host: &Host, identity: &Identity, came: &Came, clock: &Clock) -> Result<(), String> {
        let (came, clock) = (came.clone(), clock.clone());
        accepting(self.congestion, host, identity, move |mut group| {
            let (came, clock) = (came.clone(), clock.clone());
            async move {
                if read_number(&mut group).await.is_none() {
                    return;
                }
                while let Some(frame) = read_frame(&mut group).await {
                    let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(slot) = number_of(&frame).and_then(|number| came.get_mut(number as usize)) {
                        *slot = Some(clock.now());
                    }
                }
            }
        })
    }

    fn relay(
        &self,
        host: &Host,
        identity: &Identity,
        onward: Connection,
        clock: &Clock,
    ) -> Result<(), String> {
        let clock = clock.clone();
        accepting(self.congestion, host, identity, move |mut group| {
            let (onward, clock) = (onward.clone(), clock.clone());
            async move {
                let Some(number) = read_number(&mut group).await else { return };
                let (frames, queue) = mpsc::channel(FRAMES_MAX);
                tokio::spawn(send_group(onward, number, queue, clock));
                while let Some(frame) = read_frame(&mut group).await {
                    if frames.try_send(frame).is_err() {
                        return;
                    }
                }
            }
        })
    }
}

async fn publish(cell: &Cell, connection: &Connection, clock: &Clock) -> Run {
    let start = clock.now() + START;
    let mut source = Source::new(cell.shape);
    let mut run = Run::default();
    let mut groups = 0;
    let mut group: Option<mpsc::Sender<Bytes>> = None;
    for number in 0..cell.frames() {
        let captured = start + cell.shape.interval() * number as u32;
        clock.sleep_until(captured).await;
        let estimate = estimate(connection);
        if cell.feed == Feed::Follow {
            source.set_bitrate(estimate.min(cell.shape.bitrate));
        }
        run.target.push((captured, estimate));
        let made = source.make();
        run.frames.push(Fate {
            captured,
            keyframe: made.keyframe,
            bytes: made.payload.len(),
            complete: None,
        });
        if made.keyframe {
            let (frames, queue) = mpsc::channel(FRAMES_MAX);
            tokio::spawn(send_group(connection.clone(), groups, queue, clock.clone()));
            group = Some(frames);
            groups += 1;
        }
        if let Some(group) = &group {
            _ = group.try_send(made.payload);
        }
    }
    run
}

/// Sends one group as its frames come. When there are no more, all but the end of it has been handed to quinn,
/// and the rest has [`STALE`] to be delivered.
async fn send_group(connection: Connection, number: u32, mut frames: mpsc::Receiver<Bytes>, clock: Clock) {
    let Ok(mut stream) = connection.open_uni().await else { return };
    // Higher goes first, and the newest group is wanted first.
    _ = stream.set_priority(number as i32);
    if stream.write_all(&number.to_be_bytes()).await.is_err() {
        return;
    }
    while let Some(frame) = frames.recv().await {
        let sent = async {
            stream.write_all(&(frame.len() as u32).to_be_bytes()).await?;
            stream.write_chunk(frame).await
        };
        if sent.await.is_err() {
            return;
        }
    }
    _ = stream.finish();
    if clock.timeout(STALE, stream.stopped()).await.is_err() {
        _ = stream.reset(VarInt::from_u32(1));
    }
}

async fn read_number(group: &mut RecvStream) -> Option<u32> {
    let mut number = [0; 4];
    group.read_exact(&mut number).await.ok()?;
    Some(u32::from_be_bytes(number))
}

async fn read_frame(group: &mut RecvStream) -> Option<Bytes> {
    let len = read_number(group).await? as usize;
    if len > FRAME_MAX {
        return None;
    }
    let mut frame = vec![0; len];
    group.read_exact(&mut frame).await.ok()?;
    Some(frame.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn without_loss_every_frame_comes_at_once_over_one_link_and_two() {
        let one = Cell { length: Duration::from_secs(5), ..Cell::default() };
        let two = Cell { subscriber: one.publisher.clone(), ..one.clone() };
        for cell in [one, two] {
            for congestion in [Congestion::Cubic, Congestion::Bbr] {
                let contender = MoqScheme { congestion };
                let run = contender.run(&cell).unwrap();
                let outcome = Outcome::new(&cell, std::slice::from_ref(&run));
                assert_eq!(outcome.complete.never(), 0, "{}", contender.name());
                let p95 = outcome.complete.quantile(0.95).unwrap();
                assert!(p95 < Duration::from_millis(30), "{}: {p95:?}", contender.name());
                assert_eq!(contender.run(&cell).unwrap(), run, "{} repeats", contender.name());
            }
        }
    }
}
