//! MoQ as moq-net does it: a group of pictures per QUIC stream, the newest group first, a relay that passes on what
//! it has of a group as it comes. moq-net takes the time from its caller, here the simulation's, and its transport is
//! quinn with one of quinn's own congestion controllers.
//!
//! There is always a relay, moq-net's own cache behind two sessions; a side without a link of its own sits beside it.
//! Nobody asks for keyframes. A group is given up when the next one is a second old.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use moq_net::origin::{self, Config};
use moq_net::track::{Info, Subscription};
use moq_net::{Client, Hop, Server, Timestamp as MoqTime, group, kio};
use parlor_client::Timestamp;
use parlor_transport::clock::Clock;
use parlor_transport::sim::{Profile, Sim};

use super::call::{AGE_MAX, Arrivals, Camera, GRACE, in_virtual_time};
use super::meter::Hosts;
use super::moq_transport::Session;
use super::quic::{Congestion, Identity, connect, estimate, listen};
use super::{Contender, Run};
use crate::cell::Cell;

/// moq-net on quinn.
#[derive(Debug, Clone, Copy)]
pub struct Moq {
    /// With which of quinn's congestion controllers.
    pub congestion: Congestion,
}

const BROADCAST: &str = "bench";
const TRACK: &str = "video";
/// The names of the three in routes; random ones would differ in length from run to run.
const HOPS: [u64; 3] = [1, 2, 3];
/// Publisher and subscriber find each other over clean links within a few round trips.
const CONNECT_MAX: Duration = Duration::from_secs(30);

impl Contender for Moq {
    fn name(&self) -> String {
        format!("moq-net-{}", self.congestion.name())
    }

    fn run(&self, cell: &Cell) -> Result<Run, String> {
        in_virtual_time(cell, async |sim| Box::pin(self.run_in(&sim, cell)).await)
    }
}

impl Moq {
    async fn run_in(&self, sim: &Sim, cell: &Cell) -> Result<Run, String> {
        let hosts = Hosts::new(sim, cell);
        let identity = Identity::new()?;
        let clock = sim.clock().clone();
        let [publisher, relay, subscriber] = HOPS.map(|hop| origin(hop, &clock));
        let (publisher, relay, subscriber) = (publisher?, relay?, subscriber?);

        let relay_host = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
        let endpoint = listen(self.congestion, &relay_host, &identity)?;
        let accepting = clock.clone();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let Ok(connection) = incoming.await else { continue };
                let (server, clock) = (Server::new().with_origin(relay.clone()), accepting.clone());
                tokio::spawn(async move {
                    let now = clock.to_std(clock.now());
                    if let Ok((session, driver)) = server.accept(now, Session::new(connection)).await {
                        drive(driver, clock).await;
                        drop(session);
                    }
                });
            }
        });

        let broadcast = publisher.create_broadcast(BROADCAST).map_err(failed)?;
        let info = Info::default().with_max_age(AGE_MAX);
        let track = broadcast.create_track(TRACK, info).map_err(failed)?;
        broadcast.announce(origin::Route::default()).map_err(failed)?;
        let up = connect(self.congestion, &hosts.publisher, &relay_host, &identity).await?;
        let down = connect(self.congestion, &hosts.subscriber, &relay_host, &identity).await?;
        let client = Client::new().with_publisher(&publisher);
        let _publishing = join(client, Session::new(up.clone()), &clock).await?;
        let client = Client::new().with_subscriber(subscriber.clone());
        let _subscribing = join(client, Session::new(down), &clock).await?;

        let arrivals = Arrivals::of(cell);
        let groups = subscribe(&subscriber);
        let groups = clock.timeout(CONNECT_MAX, groups).await.map_err(failed)??;
        tokio::spawn(receive(groups, arrivals.clone(), clock.clone()));
        clock.timeout(CONNECT_MAX, track.used()).await.map_err(failed)?.map_err(failed)?;

        let meter = hosts.measure(cell);
        let mut camera = Camera::new(cell, clock.now());
        let mut group: Option<group::Producer> = None;
        for captured in camera.due() {
            clock.sleep_until(captured).await;
            let (frame, is_keyframe) = camera.capture(captured, Some(estimate(&up)), None);
            if is_keyframe {
                if let Some(ended) = group.take() {
                    ended.finish().map_err(failed)?;
                }
                group = Some(track.append_group().map_err(failed)?);
            }
            if let Some(group) = &mut group {
                group.write_frame(presented(captured)?, frame).map_err(failed)?;
            }
        }
        clock.sleep(GRACE).await;
        let mut run = camera.into_run();
        meter.read(&mut run);
        arrivals.read(&mut run);
        Ok(run)
    }
}

/// What one of the three publishes and knows, and the task that keeps it in order.
fn origin(hop: u64, clock: &Clock) -> Result<origin::Producer, String> {
    let (origin, driver) = origin::Producer::new(Config::new(Hop::new(hop).map_err(failed)?));
    tokio::spawn(drive(driver, clock.clone()));
    Ok(origin)
}

async fn join(client: Client, transport: Session, clock: &Clock) -> Result<moq_net::Session, String> {
    let now = clock.to_std(clock.now());
    let (session, driver) = client.connect(now, transport).await.map_err(failed)?;
    tokio::spawn(drive(driver, clock.clone()));
    Ok(session)
}

/// Finds the track and subscribes to it.
async fn subscribe(subscriber: &origin::Producer) -> Result<moq_net::track::Subscriber, String> {
    let consumer = subscriber.consume();
    consumer.routed(BROADCAST).await.ok_or("moq-net: no route")?;
    let broadcast = consumer.request_broadcast(BROADCAST).await.map_err(failed)?;
    let subscription = Subscription::default().with_max_age(AGE_MAX);
    broadcast.track(TRACK).map_err(failed)?.subscribe(subscription).await.map_err(failed)
}

async fn receive(mut groups: moq_net::track::Subscriber, arrivals: Arrivals, clock: Clock) {
    while let Ok(Some(mut group)) = groups.recv_group().await {
        let (arrivals, clock) = (arrivals.clone(), clock.clone());
        tokio::spawn(async move {
            while let Ok(Some(frame)) = group.read_frame().await {
                arrivals.note(&frame.payload, clock.now());
            }
        });
    }
}

/// Gives a part of moq-net the time whenever it asks for it, until it ends.
async fn drive(mut driver: impl moq_net::time::Driver + Unpin, clock: Clock) {
    let mut timer = clock.timer();
    kio::wait(move |waiter| {
        loop {
            match driver.poll(clock.to_std(clock.now()), waiter) {
                // Rounded up to the clock's tick, or it would be asked again before that time has come.
                Ok(at) => timer.reset(at.map(|at| clock.from_std(at) + TICK)),
                Err(_) => return Poll::Ready(()),
            }
            if waiter.poll_future(pin!(timer.expired())).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

/// The finest step of simulated time.
const TICK: Duration = Duration::from_micros(10);

fn presented(captured: Timestamp) -> Result<MoqTime, String> {
    MoqTime::from_millis(captured.as_micros() / 1_000).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> String {
    format!("moq-net: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn without_loss_every_frame_comes_at_once_over_one_link_and_two_and_the_run_repeats() {
        let one = Cell { length: Duration::from_secs(9), ..Cell::default() };
        let two = Cell { subscriber: one.publisher.clone(), ..one.clone() };
        for cell in [one, two] {
            for congestion in [Congestion::Cubic, Congestion::Bbr] {
                let contender = Moq { congestion };
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
