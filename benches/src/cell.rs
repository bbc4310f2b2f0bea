//! What is measured: a call, the links it runs over, and what its source does. Values only.

use std::time::Duration;

use parlor_transport::sim::{Jitter, LinkConfig, Loss, Profile, Reorder, Schedule};

use crate::source::Shape;

/// One measurement. The same cell gives the same run on every machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The publisher's link; without one the publisher sits beside the relay.
    pub publisher: Option<Link>,
    /// The subscriber's link; without one the subscriber sits beside the relay.
    pub subscriber: Option<Link>,
    /// What is sent.
    pub shape: Shape,
    /// Whether the source follows the transport's estimate.
    pub feed: Feed,
    /// Length of the call.
    pub length: Duration,
    /// Everything random follows from it.
    pub seed: u64,
}

/// What the source does with the rate that the transport says it may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Nothing: frames have the sizes of [`Shape::bitrate`].
    Fixed,
    /// It makes frames for the lesser of that rate and [`Shape::bitrate`].
    Follow,
}

/// A link with its two ways.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Round-trip time without queues; half of it each way.
    pub rtt: Duration,
    /// The way of the media.
    pub media: Way,
    /// The way back: reports, requests, acknowledgements.
    pub back: Way,
}

/// One way of a link.
#[derive(Debug, Clone, PartialEq)]
pub struct Way {
    /// Share of packets lost (0–1), after the bottleneck.
    pub loss: f64,
    /// Mean length of a run of lost packets; 1 is independent loss.
    pub burst: f64,
    /// Mean of the jitter, exponentially distributed, packets in order.
    pub jitter: Duration,
    /// Longest time for which a packet is held on its own, evenly distributed; packets overtake each other.
    pub reorder: Duration,
    /// Bits per second through the bottleneck; none is unlimited.
    pub rate: Option<u64>,
    /// A rate that changes as recorded, instead of `rate`.
    pub schedule: Option<Schedule>,
    /// What the queue in front of the bottleneck holds, as time at its rate.
    pub queue: Duration,
}

impl Default for Cell {
    /// A publisher behind [`Link::default`], one minute of 1 Mbit/s video.
    fn default() -> Self {
        Cell {
            publisher: Some(Link::default()),
            subscriber: None,
            shape: Shape::default(),
            feed: Feed::Fixed,
            length: Duration::from_secs(60),
            seed: 1,
        }
    }
}

impl Default for Link {
    /// 50 ms, the same both ways.
    fn default() -> Self {
        Link { rtt: Duration::from_millis(50), media: Way::default(), back: Way::default() }
    }
}

impl Default for Way {
    /// 10 Mbit/s with 300 ms of queue, nothing lost.
    fn default() -> Self {
        Way {
            loss: 0.0,
            burst: 1.0,
            jitter: Duration::ZERO,
            reorder: Duration::ZERO,
            rate: Some(10_000_000),
            schedule: None,
            queue: Duration::from_millis(300),
        }
    }
}

impl Cell {
    /// The links in the order in which frames pass them.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.publisher.iter().chain(&self.subscriber)
    }

    /// The least time from capture to complete that the links allow, without a byte's own time on them.
    pub fn one_way(&self) -> Duration {
        self.links().map(|link| link.rtt / 2).sum()
    }

    /// Frames that are due.
    pub fn frames(&self) -> u64 {
        (self.length.as_secs_f64() * f64::from(self.shape.frames_per_second)) as u64
    }
}

impl Link {
    /// The link as the publisher's host has it: media goes up.
    pub fn upward(&self) -> Profile {
        Profile { up: self.media.config(self.rtt / 2), down: self.back.config(self.rtt / 2) }
    }

    /// The link as the subscriber's host has it: media comes down.
    pub fn downward(&self) -> Profile {
        Profile { up: self.back.config(self.rtt / 2), down: self.media.config(self.rtt / 2) }
    }
}

impl Way {
    /// The way as the simulation takes it.
    pub fn config(&self, delay: Duration) -> LinkConfig {
        let loss = match (self.loss, self.burst) {
            (0.0, _) => Loss::None,
            (average, burst) if burst <= 1.0 => Loss::Random(average),
            (average, burst_mean) => Loss::Bursts { average, burst_mean },
        };
        let jitter = match (self.jitter, self.reorder) {
            (mean, _) if !mean.is_zero() => Jitter::InOrder { mean, max: mean * 10 },
            (_, max) if !max.is_zero() => Jitter::Uniform { max },
            _ => Jitter::None,
        };
        let rate = self.schedule.as_ref().map(Schedule::mean_rate).or(self.rate).unwrap_or(0);
        let queue = rate as f64 / 8.0 * self.queue.as_secs_f64();
        LinkConfig {
            delay,
            jitter,
            loss,
            rate: self.rate,
            schedule: self.schedule.clone(),
            // Less than one packet would pass nothing at all.
            queue_max: (queue as usize).max(1_500),
            reorder: Reorder { share: 0.0, held: Duration::ZERO },
            ..LinkConfig::default()
        }
    }
}
