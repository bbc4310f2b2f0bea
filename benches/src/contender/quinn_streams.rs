//! What an app gets that puts each frame on a QUIC stream of quinn's: ordered, reliable, and as fast as
//! quinn's congestion controller lets it.
//!
//! Older frames go first, because later ones build on them. A frame that has not arrived after a second is
//! reset and the next one is a keyframe. With two links, a relay between them passes on every frame that is
//! whole, in whatever order.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use parlor_client::Timestamp;
use parlor_transport::clock::Clock;
use parlor_transport::sim::{Host, Profile, Sim, Simulation};
use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::{Connection, RecvStream, TransportConfig, VarInt};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::meter::Hosts;
use super::{Contender, Fate, Run};
use crate::cell::{Cell, Feed};
use crate::source::{Source, number_of};

/// Frames on QUIC streams with one of quinn's own congestion controllers.
#[derive(Debug, Clone, Copy)]
pub struct QuinnStreams {
    /// Which one.
    pub congestion: Congestion,
}

/// quinn's congestion controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// The default.
    Cubic,
    /// Version 1, which quinn calls experimental.
    Bbr,
}

/// After the last frame this long is waited for stragglers.
const GRACE: Duration = Duration::from_secs(5);
/// Between the connection and the first frame.
const START: Duration = Duration::from_secs(1);
/// A frame that is older is reset: the same age at which Parlor gives up a frame on a QUIC stream.
const AGE_MAX: Duration = Duration::from_secs(1);
/// More than are ever under way at 60 frames/s in [`AGE_MAX`].
const STREAMS_MAX: u32 = 256;
/// The largest frame that is read.
const FRAME_MAX: usize = 4 * 1024 * 1024;
const PORT: u16 = 4433;
const HOST_NAME: &str = "contender";

type Came = Arc<Mutex<Vec<Option<Timestamp>>>>;

impl Contender for QuinnStreams {
    fn name(&self) -> String {
        match self.congestion {
            Congestion::Cubic => "quinn-cubic",
            Congestion::Bbr => "quinn-bbr",
        }
        .to_owned()
    }

    fn run(&self, cell: &Cell) -> Result<Run, String> {
        let limit = cell.length + START + GRACE + Duration::from_secs(120);
        Simulation::new(cell.seed).time_max(limit).run(async |sim| self.run_in(&sim, cell).await)
    }
}

impl QuinnStreams {
    async fn run_in(&self, sim: &Sim, cell: &Cell) -> Result<Run, String> {
        let hosts = Hosts::new(sim, cell);
        let identity = Identity::new()?;
        let clock = sim.clock().clone();
        let came: Came = Arc::new(Mutex::new(vec![None; cell.frames() as usize]));
        // The one who receives waits; who sends, or passes on, connects.
        let receive = {
            let (came, clock) = (came.clone(), clock.clone());
            move |frame: Bytes, _| {
                let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(slot) = number_of(&frame).and_then(|number| came.get_mut(number as usize)) {
                    *slot = Some(clock.now());
                }
                std::future::ready(())
            }
        };
        self.listen(&hosts.subscriber, &identity, receive)?;
        let target = if cell.publisher.is_some() && cell.subscriber.is_some() {
            let relay = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
            let onward = connect(self.congestion, &relay, &hosts.subscriber, &identity).await?;
            let clock = clock.clone();
            self.listen(&relay, &identity, move |frame, started| {
                let (onward, clock) = (onward.clone(), clock.clone());
                async move { _ = send(&onward, &clock, frame, started).await }
            })?;
            relay
        } else {
            hosts.subscriber.clone()
        };
        let connection = connect(self.congestion, &hosts.publisher, &target, &identity).await?;
        let meter = hosts.measure(cell);
        let mut run = self.publish(cell, &connection, &clock).await;
        clock.sleep(GRACE).await;
        meter.read(&mut run);
        let came = came.lock().unwrap_or_else(PoisonError::into_inner);
        run.frames.iter_mut().zip(came.iter()).for_each(|(frame, at)| frame.complete = *at);
        Ok(run)
    }

    /// Sends from one host to another, as fast as the congestion controller lets it, until the connection ends.
    pub(crate) async fn fill(&self, from: &Host, to: &Host) {
        let Ok(identity) = Identity::new() else { return };
        if self.listen(to, &identity, |_, _| std::future::ready(())).is_err() {
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

    async fn publish(&self, cell: &Cell, connection: &Connection, clock: &Clock) -> Run {
        let start = clock.now() + START;
        let mut source = Source::new(cell.shape);
        // A keyframe for every frame that is given up would be what fills the link: one a second at most.
        let mut keyframe_next = 0;
        let mut run = Run::default();
        let (given_up, mut lost) = tokio::sync::mpsc::channel(STREAMS_MAX as usize);
        for number in 0..cell.frames() {
            let captured = start + cell.shape.interval() * number as u32;
            clock.sleep_until(captured).await;
            if lost.try_recv().is_ok() {
                while lost.try_recv().is_ok() {}
                if number >= keyframe_next {
                    source.force_keyframe();
                }
            }
            let estimate = estimate(connection);
            if cell.feed == Feed::Follow {
                source.set_bitrate(estimate.min(cell.shape.bitrate));
            }
            run.target.push((captured, estimate));
            let made = source.make();
            if made.keyframe {
                keyframe_next = number + u64::from(cell.shape.frames_per_second);
            }
            run.frames.push(Fate {
                captured,
                keyframe: made.keyframe,
                bytes: made.payload.len(),
                complete: None,
            });
            let (connection, clock, given_up) = (connection.clone(), clock.clone(), given_up.clone());
            tokio::spawn(async move {
                if !send(&connection, &clock, made.payload, captured).await {
                    _ = given_up.try_send(());
                }
            });
        }
        run
    }

    fn listen<F>(
        &self,
        host: &Host,
        identity: &Identity,
        on_frame: impl Fn(Bytes, Timestamp) -> F + Send + Sync + 'static,
    ) -> Result<(), String>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let on_frame = Arc::new(on_frame);
        accepting(self.congestion, host, identity, move |mut stream| {
            let on_frame = on_frame.clone();
            async move {
                let mut captured = [0; 8];
                if stream.read_exact(&mut captured).await.is_err() {
                    return;
                }
                if let Ok(frame) = stream.read_to_end(FRAME_MAX).await {
                    let captured = Timestamp::from_micros(u64::from_be_bytes(captured));
                    on_frame(frame.into(), captured).await;
                }
            }
        })
    }
}

/// What the window lets through: the rate that an app has to go by.
pub(super) fn estimate(connection: &Connection) -> u64 {
    let path = connection.stats().path;
    (path.cwnd as f64 * 8.0 / path.rtt.as_secs_f64().max(1e-3)) as u64
}

/// Accepts connections on `host`; each stream of theirs is given to a task of its own.
pub(super) fn accepting<F>(
    congestion: Congestion,
    host: &Host,
    identity: &Identity,
    on_stream: impl Fn(RecvStream) -> F + Send + Sync + 'static,
) -> Result<(), String>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (chain, key) = (vec![identity.certificate.clone()], identity.key.clone_key());
    let mut config = quinn::ServerConfig::with_single_cert(chain, key).map_err(|error| error.to_string())?;
    config.transport_config(Arc::new(transport(congestion)));
    let endpoint = host.endpoint(PORT, Some(config)).map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connection) = incoming.await else { continue };
            while let Ok(stream) = connection.accept_uni().await {
                tokio::spawn(on_stream(stream));
            }
        }
    });
    Ok(())
}

/// Connects to whoever is [`accepting`] on `to`.
pub(super) async fn connect(
    congestion: Congestion,
    from: &Host,
    to: &Host,
    identity: &Identity,
) -> Result<Connection, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.certificate.clone()).map_err(|error| error.to_string())?;
    let mut config =
        quinn::ClientConfig::with_root_certificates(Arc::new(roots)).map_err(|error| error.to_string())?;
    config.transport_config(Arc::new(transport(congestion)));
    let endpoint = from.endpoint(0, None).map_err(|error| error.to_string())?;
    let connecting = endpoint.connect_with(config, (to.ip(), PORT).into(), HOST_NAME);
    connecting.map_err(|error| error.to_string())?.await.map_err(|error| error.to_string())
}

fn transport(congestion: Congestion) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .keep_alive_interval(Some(Duration::from_secs(1)))
        // Packets of the same size as everybody's.
        .mtu_discovery_config(None);
    match congestion {
        Congestion::Cubic => transport.congestion_controller_factory(Arc::new(CubicConfig::default())),
        Congestion::Bbr => transport.congestion_controller_factory(Arc::new(BbrConfig::default())),
    };
    transport
}

/// A certificate whose size is the same in every run.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(super) fn new() -> Result<Self, String> {
        let failed = |error: rcgen::Error| error.to_string();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(failed)?;
        let mut params = rcgen::CertificateParams::new(vec![HOST_NAME.to_owned()]).map_err(failed)?;
        params.serial_number = Some(1_u64.into());
        let certificate = params.self_signed(&key).map_err(failed)?.der().clone();
        Ok(Identity { certificate, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) })
    }
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
