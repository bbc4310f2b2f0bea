//! What an app gets that puts each frame on a QUIC stream of quinn's: ordered, reliable, and as fast as
//! quinn's congestion controller lets it.
//!
//! Older frames go first, because later ones build on them. A frame that has not arrived after a second is
//! reset and the next one is a keyframe. With two links, a relay between them passes on every frame that is
//! whole, in whatever order.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parlor_client::Timestamp;
use parlor_transport::clock::Clock;
use parlor_transport::sim::{Host, Profile, Sim};
use quinn::{Connection, VarInt};

use super::call::{AGE_MAX, Arrivals, Camera, GRACE, in_virtual_time};
use super::meter::Hosts;
use super::quic::{Congestion, Identity, STREAMS_MAX, connect, estimate, listen};
use super::{Contender, Run};
use crate::cell::Cell;

/// Frames on QUIC streams with one of quinn's own congestion controllers.
#[derive(Debug, Clone, Copy)]
pub struct QuinnStreams {
    /// Which one.
    pub congestion: Congestion,
}

/// The largest frame that is read.
const FRAME_MAX: usize = 4 * 1024 * 1024;

impl Contender for QuinnStreams {
    fn name(&self) -> String {
        format!("quinn-{}", self.congestion.name())
    }

    fn run(&self, cell: &Cell) -> Result<Run, String> {
        in_virtual_time(cell, async |sim| self.run_in(&sim, cell).await)
    }
}

impl QuinnStreams {
    async fn run_in(&self, sim: &Sim, cell: &Cell) -> Result<Run, String> {
        let hosts = Hosts::new(sim, cell);
        let identity = Identity::new()?;
        let clock = sim.clock().clone();
        let arrivals = Arrivals::of(cell);
        // The one who receives waits; who sends, or passes on, connects.
        let receive = {
            let (arrivals, clock) = (arrivals.clone(), clock.clone());
            move |frame: Bytes, _| {
                arrivals.note(&frame, clock.now());
                std::future::ready(())
            }
        };
        self.accept(&hosts.subscriber, &identity, receive)?;
        let target = if cell.publisher.is_some() && cell.subscriber.is_some() {
            let relay = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
            let onward = connect(self.congestion, &relay, &hosts.subscriber, &identity).await?;
            let clock = clock.clone();
            self.accept(&relay, &identity, move |frame, started| {
                let (onward, clock) = (onward.clone(), clock.clone());
                async move { _ = send(&onward, &clock, frame, started).await }
            })?;
            relay
        } else {
            hosts.subscriber.clone()
        };
        let connection = connect(self.congestion, &hosts.publisher, &target, &identity).await?;
        let meter = hosts.measure(cell);
        let mut run = publish(cell, &connection, &clock).await;
        clock.sleep(GRACE).await;
        meter.read(&mut run);
        arrivals.read(&mut run);
        Ok(run)
    }

    /// Sends from one host to another, as fast as the congestion controller lets it, until the connection ends.
    pub(crate) async fn fill(&self, from: &Host, to: &Host) {
        let Ok(identity) = Identity::new() else { return };
        if self.accept(to, &identity, |_, _| std::future::ready(())).is_err() {
            return;
        }
        let Ok(connection) = connect(self.congestion, from, to, &identity).await else { return };
        let chunk = Bytes::from_static(&[0; 64 * 1024]);
        // The listener reads whole "frames", so that each of them is a QUIC stream.
        while let Ok(mut stream) = connection.open_uni().await {
            if stream.write_chunk(chunk.clone()).await.is_err() || stream.finish().is_err() {
                return;
            }
        }
    }

    /// Accepts connections on `host`; each frame of theirs that is whole is given on, with its capture time.
    fn accept<F>(
        &self,
        host: &Host,
        identity: &Identity,
        on_frame: impl Fn(Bytes, Timestamp) -> F + Send + Sync + 'static,
    ) -> Result<(), String>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let endpoint = listen(self.congestion, host, identity)?;
        let on_frame = Arc::new(on_frame);
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let Ok(connection) = incoming.await else { continue };
                while let Ok(mut stream) = connection.accept_uni().await {
                    let on_frame = on_frame.clone();
                    tokio::spawn(async move {
                        let mut captured = [0; 8];
                        if stream.read_exact(&mut captured).await.is_err() {
                            return;
                        }
                        if let Ok(frame) = stream.read_to_end(FRAME_MAX).await {
                            let captured = Timestamp::from_micros(u64::from_be_bytes(captured));
                            on_frame(frame.into(), captured).await;
                        }
                    });
                }
            }
        });
        Ok(())
    }
}

async fn publish(cell: &Cell, connection: &Connection, clock: &Clock) -> Run {
    let mut camera = Camera::new(cell, clock.now());
    // A keyframe for every frame that is given up would be what fills the link: one a second at most.
    let mut keyframe_next = Timestamp::ZERO;
    let (given_up, mut lost) = tokio::sync::mpsc::channel(STREAMS_MAX as usize);
    for captured in camera.due() {
        clock.sleep_until(captured).await;
        if lost.try_recv().is_ok() {
            while lost.try_recv().is_ok() {}
            if captured >= keyframe_next {
                camera.force_keyframe();
            }
        }
        let (frame, is_keyframe) = camera.capture(captured, Some(estimate(connection)), None);
        if is_keyframe {
            keyframe_next = captured + Duration::from_secs(1);
        }
        let (connection, clock, given_up) = (connection.clone(), clock.clone(), given_up.clone());
        tokio::spawn(async move {
            if !send(&connection, &clock, frame, captured).await {
                _ = given_up.try_send(());
            }
        });
    }
    camera.into_run()
}

/// Sends one frame; false if it was given up.
async fn send(connection: &Connection, clock: &Clock, frame: Bytes, captured: Timestamp) -> bool {
    let left = |now: Timestamp| (captured + AGE_MAX).saturating_since(now);
    let Ok(Ok(mut stream)) = clock.timeout(left(clock.now()), connection.open_uni()).await else {
        return false;
    };
    // Higher goes first, and the older frame is wanted first.
    _ = stream.set_priority(-((captured.as_micros() / 1_000) as i32));
    let delivery = async {
        stream.write_all(&captured.as_micros().to_be_bytes()).await.ok()?;
        stream.write_chunk(frame).await.ok()?;
        stream.finish().ok()?;
        stream.stopped().await.ok()
    };
    match clock.timeout(left(clock.now()), delivery).await {
        Ok(Some(None)) => true,
        Ok(_) => false,
        Err(_) => {
            _ = stream.reset(VarInt::from_u32(1));
            false
        }
    }
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
                let contender = QuinnStreams { congestion };
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
