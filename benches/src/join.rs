//! How long it takes into a call on a link that loses most packets: from `join` and `play` in one flight to
//! the first complete keyframe. The whole real stack, in virtual time.

use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::{Engine, JoinOptions, PlayOptions, PublishOptions, Publisher, RoomId, Scenario};
use parlor_relay::{Config, Relay};
use parlor_transport::clock::Clock;
use parlor_transport::sim::{Host, Loss, Profile, Sim, Simulation};

use crate::quantile::Delays;
use crate::source::{Shape, Source};

/// The newcomer's link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Joining {
    /// Share of packets lost from the newcomer to the relay (0–1).
    pub loss_up: f64,
    /// Share of packets lost from the relay to the newcomer (0–1).
    pub loss_down: f64,
}

/// What became of all runs; who never got in, or saw nothing, is later than all others.
#[derive(Debug, Clone)]
pub struct Joined {
    /// From the call of `join` to the relay's answer.
    pub joined: Delays,
    /// From the call of `join` to the first complete keyframe.
    pub picture: Delays,
}

const RTT: Duration = Duration::from_millis(50);
/// Nobody waits longer than this for a picture.
const PATIENCE: Duration = Duration::from_secs(20);
/// The newcomer comes in the middle of a group of pictures.
const LATE: Duration = Duration::from_millis(700);

impl Joining {
    /// Runs it once for each of these seeds.
    pub fn run(&self, seeds: impl Iterator<Item = u64>) -> Joined {
        let times: Vec<_> = seeds.map(|seed| self.run_once(seed)).collect();
        Joined {
            joined: Delays::new(times.iter().map(|times| times.map(|(joined, _)| joined))),
            picture: Delays::new(times.iter().map(|times| times.map(|(_, picture)| picture))),
        }
    }

    fn run_once(&self, seed: u64) -> Option<(Duration, Duration)> {
        Simulation::new(seed).run(async |sim| self.run_in(&sim).await)
    }

    async fn run_in(&self, sim: &Sim) -> Option<(Duration, Duration)> {
        let clock = sim.clock().clone();
        let relay_host = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
        let relay = Relay::bind_on(Config::dev(), relay_host.binding(4433).ok()?).await.ok()?;
        let address = relay.address(RoomId::new("join").ok()).to_string();
        tokio::spawn(relay.run(std::future::pending()));

        let publishing = engine(&sim.host("publisher", Profile::perfect()))?;
        let room = publishing.join(JoinOptions::new(&address, "publisher")).ok()?;
        let publisher = room.publish(PublishOptions::new("cam").video("bench")).ok()?;
        publisher.publishing().await.ok()?;
        tokio::spawn(publish(publisher, clock.clone()));
        clock.sleep(LATE).await;

        let mut link =
            Profile::perfect().with_rtt(RTT).with_rates((5_000_000, 187_500), (5_000_000, 187_500));
        (link.up.loss, link.down.loss) = (Loss::Random(self.loss_up), Loss::Random(self.loss_down));
        let newcomer = engine(&sim.host("newcomer", link))?;
        let start = clock.now();
        let joining = newcomer.join(JoinOptions::new(&address, "newcomer")).ok()?;
        let player = joining.play("cam", PlayOptions::new()).ok()?;
        let mut frames = player.frames();
        let joined = async {
            joining.joined().await.ok()?;
            Some(clock.now().saturating_since(start))
        };
        let picture = async {
            loop {
                let frame = clock.timeout(PATIENCE, frames.next()).await.ok()??;
                if frame.header.keyframe {
                    return Some(frame.arrived.saturating_since(start));
                }
                // As a decoder does that cannot begin.
                player.request_keyframe(0);
            }
        };
        let (joined, picture) = tokio::join!(biased; joined, picture);
        joined.zip(picture)
    }
}

fn engine(host: &Host) -> Option<Engine> {
    Engine::with_network(Scenario::StandardCall, host.binding(0).ok()?).ok()
}

/// 640x360 at 15 frames/s and 600 kbit/s, until the publisher ends.
async fn publish(publisher: Publisher, clock: Clock) {
    let shape = Shape { bitrate: 600_000, frames_per_second: 15, ..Shape::default() };
    let mut source = Source::new(shape);
    loop {
        if !publisher.take_keyframe_requests().is_empty() {
            source.force_keyframe();
        }
        let made = source.make();
        let frame =
            EncodedFrame { keyframe: made.keyframe, ..EncodedFrame::new(0, publisher.now(), made.payload) };
        _ = publisher.send_frame(frame);
        clock.sleep(shape.interval()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails, someone on a bad link cannot get into a call.
    #[test]
    fn everybody_gets_in_where_seventy_of_a_hundred_packets_are_lost() {
        for (loss_up, loss_down, limit_ms) in [(0.7, 0.0, 2_500), (0.0, 0.7, 2_500), (0.7, 0.7, 5_000)] {
            let outcome = Joining { loss_up, loss_down }.run(0..100);
            let (median, last) = (outcome.picture.quantile(0.5), outcome.picture.quantile(1.0));
            let joined = outcome.joined.quantile(1.0);
            println!(
                "lost up {loss_up}, down {loss_down}: joined after at most {joined:?}, picture after {median:?}, at most {last:?}"
            );
            assert!(last.is_some_and(|last| last <= Duration::from_millis(limit_ms)), "{last:?}");
        }
    }
}
