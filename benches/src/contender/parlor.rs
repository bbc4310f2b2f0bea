//! Parlor itself, the whole real stack: client, relay, client. The call is the same in virtual time and over real
//! sockets ([`crate::live`]); only the `Stage` differs.

use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::{
    Delivery, Engine, EngineConfig, JoinOptions, PlayOptions, PublishOptions, Room, RoomId, Scenario,
};
use parlor_relay::{Config, Relay};
use parlor_transport::hop::{Ablation, SendStats};
use parlor_transport::sim::{Host, Profile, Sim};

use super::call::{Arrivals, Camera, GRACE, in_virtual_time};
use super::meter::{Hosts, Meter};
use super::{Contender, Parts, Run};
use crate::cell::Cell;
use crate::source::Kind;

/// Parlor with one way of delivering frames.
#[derive(Debug, Clone, Copy)]
pub struct Parlor {
    /// How frames travel.
    pub delivery: Delivery,
    /// Which parts of repair are left out, at the clients and at the relay.
    pub ablation: Ablation,
}

impl From<Delivery> for Parlor {
    /// Parlor as it is.
    fn from(delivery: Delivery) -> Self {
        Parlor { delivery, ablation: Ablation::None }
    }
}

/// The ways of delivering frames that are measured, in the order of tables.
pub const DELIVERIES: [Delivery; 4] =
    [Delivery::Adaptive, Delivery::LowLatency, Delivery::Datagram, Delivery::QuicStream];

const STREAM: &str = "bench";

impl Contender for Parlor {
    fn name(&self) -> String {
        match self.ablation {
            Ablation::PlainNack => return "parlor-plain-nack".to_owned(),
            Ablation::ParityOnly => return "parlor-parity-only".to_owned(),
            Ablation::None => {}
        }
        match self.delivery {
            Delivery::Adaptive => "adaptive",
            Delivery::LowLatency => "low-latency",
            Delivery::Datagram => "datagram",
            Delivery::QuicStream => "quic-stream",
        }
        .to_owned()
    }

    fn run(&self, cell: &Cell) -> Result<Run, String> {
        in_virtual_time(cell, async |sim| self.run_in(&sim, cell).await)
    }
}

impl Parlor {
    fn config(&self) -> Config {
        let mut config = Config::dev();
        config.quic.ablation = self.ablation;
        config
    }

    fn engine_on(&self, host: &Host) -> Result<Engine, String> {
        let binding = host.binding(0).map_err(|error| error.to_string())?;
        let config = EngineConfig { ablation: self.ablation, ..EngineConfig::from(Scenario::StandardCall) };
        Engine::with_network(config, binding).map_err(|error| error.to_string())
    }

    async fn run_in(&self, sim: &Sim, cell: &Cell) -> Result<Run, String> {
        let relay_host = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
        let binding = relay_host.binding(4433).map_err(|error| error.to_string())?;
        let relay = Relay::bind_on(self.config(), binding).await.map_err(|error| error.to_string())?;
        let address = relay.address(RoomId::new("bench").ok()).to_string();
        tokio::spawn(relay.run(std::future::pending()));

        let hosts = Hosts::new(sim, cell);
        let stage = Stage {
            subscriber: self.engine_on(&hosts.subscriber)?,
            subscriber_address: address.clone(),
            publisher: self.engine_on(&hosts.publisher)?,
            publisher_address: address,
            captured: Captured::WhenDue,
        };
        call(stage, self.delivery, cell, || hosts.measure(cell)).await
    }
}

/// Where a call takes place: two engines on one clock, and how each of them finds the relay.
pub(crate) struct Stage {
    pub(crate) publisher: Engine,
    pub(crate) publisher_address: String,
    pub(crate) subscriber: Engine,
    pub(crate) subscriber_address: String,
    pub(crate) captured: Captured,
}

/// When a frame counts as captured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Captured {
    /// When it was due: timers are exact.
    WhenDue,
    /// When the source woke for it: timers are up to a millisecond late, which is the source's doing.
    WhenMade,
}

/// Carries the cell's frames. `measure` makes the links what is to be measured, once the call has come about.
pub(crate) async fn call(
    stage: Stage,
    delivery: Delivery,
    cell: &Cell,
    measure: impl FnOnce() -> Meter,
) -> Result<Run, String> {
    let player_room = join(&stage.subscriber, &stage.subscriber_address, "player")?;
    let player = player_room.play(STREAM, PlayOptions::new()).map_err(|error| error.to_string())?;
    let mut frames = player.frames();
    let room = join(&stage.publisher, &stage.publisher_address, "publisher")?;
    let options = PublishOptions::new(STREAM).delivery(delivery);
    let options = match cell.shape.kind {
        Kind::Video => options.video("bench"),
        Kind::Audio => options.audio("bench"),
    };
    let publisher = room.publish(options).map_err(|error| error.to_string())?;
    publisher.publishing().await.map_err(|error| error.to_string())?;
    let meter = measure();
    let clock = stage.publisher.clock().clone();
    let mut camera = Camera::new(cell, clock.now());
    let arrivals = Arrivals::of(cell);
    let book = arrivals.clone();
    let receive = tokio::spawn(async move {
        while let Some(frame) = frames.next().await {
            book.note(&frame.payload, frame.arrived);
        }
    });
    for due in camera.due() {
        clock.sleep_until(due).await;
        let captured = match stage.captured {
            Captured::WhenDue => due,
            Captured::WhenMade => clock.now(),
        };
        if !publisher.take_keyframe_requests().is_empty() {
            camera.force_keyframe();
        }
        let uplink = room.stats().uplink;
        let rate = uplink.as_ref().map(|uplink| uplink.media_target);
        let (payload, keyframe) = camera.capture(captured, rate, uplink.map(|uplink| uplink.queue_age));
        _ = publisher.send_frame(EncodedFrame { keyframe, ..EncodedFrame::new(0, captured, payload) });
    }
    clock.sleep(GRACE).await;
    let mut run = camera.into_run();
    meter.read(&mut run);
    // Of what the relay sends nobody here keeps account.
    if let (Some(_), Some(wire), Some(uplink)) = (&cell.publisher, run.wire.first_mut(), room.stats().uplink)
    {
        let SendStats { source, parity, repair, .. } = uplink.sent;
        wire.parts = Some(Parts { source, parity, repair });
    }
    drop((publisher, room));
    _ = player_room.leave().await;
    receive.await.map_err(|error| error.to_string())?;
    arrivals.read(&mut run);
    Ok(run)
}

fn join(engine: &Engine, address: &str, user: &str) -> Result<Room, String> {
    engine.join(JoinOptions::new(address, user)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn without_loss_every_frame_comes_at_once_and_the_run_repeats() {
        let cell = Cell { length: Duration::from_secs(5), ..Cell::default() };
        let parlor = Parlor::from(Delivery::Adaptive);
        let run = parlor.run(&cell).unwrap();
        let outcome = Outcome::new(&cell, std::slice::from_ref(&run));
        assert_eq!((outcome.complete.len(), outcome.complete.never()), (150, 0));
        let p99 = outcome.complete.quantile(0.99).unwrap();
        assert!(p99 < Duration::from_millis(30), "{p99:?}");
        assert_eq!(parlor.run(&cell).unwrap(), run);
    }
}
