//! Frame delay over one simulated link, in virtual time: publisher → lossy link → relay → player, the
//! whole real stack. The player's own link is perfect, so that what is seen is one hop.

use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::{
    Delivery, Engine, JoinOptions, PlayOptions, PublishOptions, RoomId, Scenario, Timestamp,
};
use parlor_relay::{Config, Relay};
use parlor_transport::sim::{Direction, HEADER_IPV4, Jitter, Loss, Profile, Sim, Simulation};

use crate::quantile::Delays;
use crate::source::{Shape, Source, number_of};

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Round-trip time of the link without queues.
    pub rtt: Duration,
    /// Share of packets lost in each direction (0–1).
    pub loss: f64,
    /// Mean length of a run of lost packets; 1 is independent loss.
    pub burst: f64,
    /// Mean of the jitter in each direction, exponentially distributed and in order.
    pub jitter: Duration,
    /// Rate of the link in each direction, bit/s; none is unlimited.
    pub link_rate: Option<u64>,
    /// How frames travel.
    pub delivery: Delivery,
    /// What is sent.
    pub shape: Shape,
    /// Length of the call.
    pub length: Duration,
    /// Everything random follows from it.
    pub seed: u64,
}

impl Default for Cell {
    /// 50 ms, no loss, 10 Mbit/s, one minute of 1 Mbit/s video.
    fn default() -> Self {
        Cell {
            rtt: Duration::from_millis(50),
            loss: 0.0,
            burst: 1.0,
            jitter: Duration::ZERO,
            link_rate: Some(10_000_000),
            delivery: Delivery::Adaptive,
            shape: Shape::default(),
            length: Duration::from_secs(60),
            seed: 1,
        }
    }
}

/// What became of one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fate {
    /// Whether it was a keyframe.
    pub keyframe: bool,
    /// When it was captured.
    pub captured: Timestamp,
    /// When the player had all of it, in its turn.
    pub complete: Option<Timestamp>,
    /// Whether everything it builds on had come too.
    pub decodable: bool,
}

/// What a cell gave.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// One entry for each captured frame.
    pub frames: Vec<Fate>,
    /// Capture to complete, beyond the one-way delay of the link.
    pub complete: Delays,
    /// Capture to complete with everything it builds on, beyond the one-way delay of the link.
    pub decodable: Delays,
    /// Freezes by the definition of WebRTC's statistics, at zero playout delay.
    pub freezes: usize,
    /// UDP payload bytes of the media direction over media bytes, minus one.
    pub overhead: f64,
}

/// After the last frame this long is waited for stragglers.
const GRACE: Duration = Duration::from_secs(5);
/// Joining, before frames count.
const START: Duration = Duration::from_secs(1);
const STREAM: &str = "bench";

impl Cell {
    fn profile(&self) -> Profile {
        let loss = match (self.loss, self.burst) {
            (0.0, _) => Loss::None,
            (average, burst) if burst <= 1.0 => Loss::Random(average),
            (average, burst_mean) => Loss::Bursts { average, burst_mean },
        };
        let mut profile = Profile::perfect().with_rtt(self.rtt).with_loss(loss);
        if self.jitter > Duration::ZERO {
            profile = profile.with_jitter(Jitter::InOrder { mean: self.jitter, max: self.jitter * 10 });
        }
        for link in [&mut profile.up, &mut profile.down] {
            link.rate = self.link_rate;
        }
        profile
    }

    /// Runs the call. The same cell gives the same outcome on every machine.
    ///
    /// # Panics
    /// When the call does not come about on a link without loss: there is nothing to measure then.
    pub fn run(&self) -> Outcome {
        let limit = self.length + START + GRACE + Duration::from_secs(120);
        Simulation::new(self.seed).time_max(limit).run(async |sim| self.run_in(&sim).await)
    }

    async fn run_in(&self, sim: &Sim) -> Outcome {
        let relay_host = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
        let binding = relay_host.binding(4433).expect("the first socket of a new host");
        let relay = Relay::bind_on(Config::dev(), binding).await.expect("a relay on a new host");
        let address = relay.address(RoomId::new("bench").ok()).to_string();
        tokio::spawn(relay.run(std::future::pending()));

        let player_host = sim.host("player", Profile::perfect().with_rtt(Duration::ZERO));
        let publisher_host = sim.host("publisher", Profile::perfect().with_rtt(self.rtt));
        let engine = |host: &parlor_transport::sim::Host| {
            let binding = host.binding(0).expect("the first socket of a new host");
            Engine::with_network(Scenario::StandardCall, binding).expect("an engine on a new host")
        };
        let (playing, publishing) = (engine(&player_host), engine(&publisher_host));
        let player_room = playing.join(JoinOptions::new(&address, "player")).expect("a valid address");
        let player = player_room.play(STREAM, PlayOptions::new()).expect("a valid stream id");
        let mut frames = player.frames();
        let room = publishing.join(JoinOptions::new(&address, "publisher")).expect("a valid address");
        let options = PublishOptions::new(STREAM).video("bench").delivery(self.delivery);
        let publisher = room.publish(options).expect("valid options");
        publisher.publishing().await.expect("a relay that takes streams");

        // The call exists; now the link becomes what is to be measured.
        publisher_host.set_profile(self.profile());
        let clock = sim.clock().clone();
        let before = publisher_host.stats(Direction::Up).offered;
        let start = clock.now() + START;
        let count = (self.length.as_secs_f64() * f64::from(self.shape.frames_per_second)) as u64;
        let receive = tokio::spawn(async move {
            let mut came = vec![None; count as usize];
            while let Some(frame) = frames.next().await {
                if player.played().is_some() && frame.missed > 0 {
                    player.request_keyframe(0);
                }
                if let Some(slot) = number_of(&frame.payload).and_then(|n| came.get_mut(n as usize)) {
                    *slot = Some((frame.arrived, frame.missed));
                }
            }
            came
        });
        let mut source = Source::new(self.shape);
        let mut fates = Vec::with_capacity(count as usize);
        let mut media_bytes = 0;
        for number in 0..count {
            let captured = start + self.shape.interval() * number as u32;
            clock.sleep_until(captured).await;
            if !publisher.take_keyframe_requests().is_empty() {
                source.force_keyframe();
            }
            let made = source.make();
            media_bytes += made.payload.len();
            let frame =
                EncodedFrame { keyframe: made.keyframe, ..EncodedFrame::new(0, captured, made.payload) };
            _ = publisher.send_frame(frame);
            fates.push(Fate { keyframe: made.keyframe, captured, complete: None, decodable: false });
        }
        clock.sleep(GRACE).await;
        let after = publisher_host.stats(Direction::Up).offered;
        drop((publisher, room));
        _ = player_room.leave().await;
        let came = receive.await.expect("the receiving task does not panic");
        let wire_bytes = (after.bytes - before.bytes) - HEADER_IPV4 as u64 * (after.packets - before.packets);
        self.outcome(fates, &came, wire_bytes as f64 / media_bytes as f64 - 1.0)
    }

    fn outcome(&self, mut frames: Vec<Fate>, came: &[Option<(Timestamp, u64)>], overhead: f64) -> Outcome {
        let mut chain = false;
        for (fate, came) in frames.iter_mut().zip(came) {
            fate.complete = came.map(|(arrived, _)| arrived);
            chain = came.is_some() && (fate.keyframe || chain);
            fate.decodable = chain;
        }
        let beyond = |fate: &Fate| {
            fate.complete.map(|at| at.saturating_since(fate.captured).saturating_sub(self.rtt / 2))
        };
        Outcome {
            complete: Delays::new(frames.iter().map(beyond)),
            decodable: Delays::new(frames.iter().map(|fate| beyond(fate).filter(|_| fate.decodable))),
            freezes: freezes(frames.iter().filter(|fate| fate.decodable).filter_map(|fate| fate.complete)),
            frames,
            overhead,
        }
    }
}

/// Counts gaps between shown frames of at least max(3 × the average, the average + 150 ms), the
/// average being that of the last 30 gaps.
fn freezes(shown: impl Iterator<Item = Timestamp>) -> usize {
    let shown: Vec<Timestamp> = shown.collect();
    let gaps: Vec<Duration> = shown.windows(2).map(|pair| pair[1].saturating_since(pair[0])).collect();
    let mut freezes = 0;
    for (at, gap) in gaps.iter().enumerate() {
        let recent = &gaps[at.saturating_sub(30)..at];
        if recent.is_empty() {
            continue;
        }
        let average = recent.iter().sum::<Duration>() / recent.len() as u32;
        if *gap >= (average * 3).max(average + Duration::from_millis(150)) {
            freezes += 1;
        }
    }
    freezes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_of_a_third_of_a_second_is_a_freeze() {
        let ms = |n: u64| Timestamp::from_micros(n * 1000);
        let steady: Vec<Timestamp> = (0..30).map(|n| ms(n * 33)).collect();
        assert_eq!(freezes(steady.iter().copied()), 0);
        let late = steady.iter().copied().chain([ms(29 * 33 + 300)]);
        assert_eq!(freezes(late), 1);
    }

    #[test]
    fn without_loss_every_frame_comes_at_once_and_the_run_repeats() {
        let cell = Cell { length: Duration::from_secs(5), ..Cell::default() };
        let outcome = cell.run();
        assert_eq!((outcome.complete.len(), outcome.complete.never()), (150, 0));
        let p99 = outcome.complete.quantile(0.99).unwrap();
        assert!(p99 < Duration::from_millis(30), "{p99:?}");
        assert_eq!(cell.run().frames, outcome.frames);
    }
}
