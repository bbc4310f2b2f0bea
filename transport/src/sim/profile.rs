//! What a simulated link is like: delay, jitter, loss, rate, and profiles with names.
//!
//! Values only. What they do to a packet is decided in `link`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::schedule::Schedule;

/// How one direction of a host's connection to the internet treats packets.
///
/// A packet passes, in this order: the size limit (`mtu`), outages, the queue in front of the
/// bottleneck (`queue_max`, `rate`), loss, then delay, jitter and reordering. A lost packet has
/// used its share of the rate, as on a radio link.
///
/// Sizes count the IP packet: the UDP payload and [`HEADER_IPV4`] or [`HEADER_IPV6`] bytes.
///
/// ```
/// use parlor_transport::sim::{LinkConfig, Loss};
/// use std::time::Duration;
///
/// let dsl_uplink = LinkConfig {
///     delay: Duration::from_millis(12),
///     rate: Some(2_000_000),
///     queue_max: 50_000,
///     loss: Loss::Random(0.002),
///     ..LinkConfig::default()
/// };
/// # let _ = dsl_uplink;
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LinkConfig {
    /// Time every packet takes.
    pub delay: Duration,
    /// Time that differs from packet to packet, added to `delay`.
    pub jitter: Jitter,
    /// Packets that vanish.
    pub loss: Loss,
    /// Bits a second through the bottleneck; `None` is no bottleneck.
    pub rate: Option<u64>,
    /// A bottleneck whose rate changes as recorded; `rate` does not count then.
    pub schedule: Option<Schedule>,
    /// Bytes that may wait for the bottleneck, the packet on its way out included; a packet that
    /// does not fit is dropped (drop-tail). Without `rate` or `schedule` nothing ever waits.
    pub queue_max: usize,
    /// Packets that are held back so that later ones overtake them.
    pub reorder: Reorder,
    /// The largest packet that passes, in bytes; larger ones vanish, as with a lost ICMP message.
    pub mtu: usize,
}

/// Bytes that IPv4 and UDP add to a payload.
pub const HEADER_IPV4: usize = 28;
/// Bytes that IPv6 and UDP add to a payload.
pub const HEADER_IPV6: usize = 48;

impl Default for LinkConfig {
    /// No delay, no loss, no limit but Ethernet's MTU of 1,500 bytes; a queue of 100 full packets
    /// for when a rate is set.
    fn default() -> Self {
        LinkConfig {
            delay: Duration::ZERO,
            jitter: Jitter::None,
            loss: Loss::None,
            rate: None,
            schedule: None,
            queue_max: 150_000,
            reorder: Reorder { share: 0.0, held: Duration::ZERO },
            mtu: 1_500,
        }
    }
}

/// Delay that differs from packet to packet; where a mean is given, exponentially distributed and cut off at `max`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter {
    /// Every packet takes the same time.
    None,
    /// A late packet holds up those behind it, as link-layer retransmission does.
    InOrder {
        /// Mean before the cut.
        mean: Duration,
        /// No packet is held longer for itself.
        max: Duration,
    },
    /// Packets overtake each other, as over several paths.
    Independent {
        /// Mean before the cut.
        mean: Duration,
        /// No packet is held longer.
        max: Duration,
    },
    /// Packets overtake each other, and every time up to `max` is as likely as any other.
    Uniform {
        /// No packet is held longer.
        max: Duration,
    },
}

/// Which packets vanish. Shares are from 0 to 1; values outside count as the nearest inside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// None.
    None,
    /// Each packet on its own (Bernoulli), with this probability.
    Random(f64),
    /// In bursts counted in packets (Gilbert–Elliott with states that lose nothing and everything).
    ///
    /// The state advances with packets, not with time: a sender that falls silent during a burst
    /// finds it unchanged afterwards. For loss that ends by itself use [`Loss::Fades`].
    Bursts {
        /// Share of packets lost in the long run.
        average: f64,
        /// Mean length of a run of lost packets, at least 1. An average of p is not possible with
        /// runs shorter than p / (1 − p), so they are then that long.
        burst_mean: f64,
    },
    /// In bursts counted in time (the same two states, each lasting exponentially distributed times).
    Fades {
        /// Share of time during which everything is lost.
        average: f64,
        /// Mean length of such a time.
        fade_mean: Duration,
    },
}

/// Packets picked at random and held back for a fixed time, without holding up others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reorder {
    /// Share of packets held back, 0 to 1.
    pub share: f64,
    /// For how long.
    pub held: Duration,
}

/// Both directions of a host's connection to the internet. Between two hosts a packet passes the
/// sender's `up` and the receiver's `down`.
///
/// The named profiles put the whole path to a nearby relay on the client's side; give the relay
/// [`Profile::perfect`]. Their figures are round ones of the project's own choosing, meant to be typical
/// and to stay the same so that results compare; the sources named are what guided the choice.
///
/// | name | delay each way | jitter (mean, max) | loss | Mbit/s up / down | queue up / down |
/// |---|---|---|---|---|---|
/// | `perfect` | 0.1 ms | – | – | – | – |
/// | `wifi` | 10 ms | 1.5, 30 ms | 0.1 % | 20 / 50 | 250 / 500 kB |
/// | `wifi_lossy` | 15 ms | 6, 100 ms | 5 %, runs of 3 | 8 / 15 | 150 / 250 kB |
/// | `mobile` | 30 ms | 8, 150 ms | 0.5 %, runs of 4 | 5 / 20 | 300 / 600 kB |
/// | `satellite` | 290 ms | 5, 60 ms | 0.5 % | 3 / 20 | 200 / 600 kB |
/// | `congested` | 20 ms | 3, 60 ms | 1 %, runs of 2 | 1.2 / 3 | 60 / 120 kB |
///
/// Jitter keeps packets in order everywhere: links that retransmit deliver in order.
///
/// ```
/// use parlor_transport::sim::{Loss, Profile};
/// use std::time::Duration;
///
/// let lossy = Profile::perfect().with_rtt(Duration::from_millis(50)).with_loss(Loss::Random(0.05));
/// let named: Profile = "mobile".parse().unwrap();
/// assert_eq!(named, Profile::mobile());
/// # let _ = lossy;
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// From the host to the internet.
    pub up: LinkConfig,
    /// From the internet to the host.
    pub down: LinkConfig,
}

impl Profile {
    /// The names that `parse` knows, in the order of the table.
    pub const NAMES: [&str; 6] = ["perfect", "wifi", "wifi_lossy", "mobile", "satellite", "congested"];

    /// The same link both ways.
    pub fn symmetric(link: LinkConfig) -> Self {
        Profile { up: link.clone(), down: link }
    }

    /// A cable in one room: 0.1 ms each way and nothing else.
    pub fn perfect() -> Self {
        Self::symmetric(LinkConfig { delay: micros(100), ..LinkConfig::default() })
    }

    /// Home Wi-Fi near the access point, on fibre or cable.
    pub fn wifi() -> Self {
        let link = LinkConfig {
            delay: millis(10),
            jitter: Jitter::InOrder { mean: micros(1_500), max: millis(30) },
            loss: Loss::Random(0.001),
            ..LinkConfig::default()
        };
        Self::symmetric(link).with_rates((20_000_000, 250_000), (50_000_000, 500_000))
    }

    /// Wi-Fi two walls away or on a crowded channel: the link layer gives up on packets in runs.
    /// 5 % with runs of 3 is the middle of the loss grid that RTC test plans (RFC 8868) use.
    pub fn wifi_lossy() -> Self {
        let link = LinkConfig {
            delay: millis(15),
            jitter: Jitter::InOrder { mean: millis(6), max: millis(100) },
            loss: Loss::Bursts { average: 0.05, burst_mean: 3.0 },
            ..LinkConfig::default()
        };
        Self::symmetric(link).with_rates((8_000_000, 150_000), (15_000_000, 250_000))
    }

    /// LTE in motion: deep queues (480 ms up), radio-layer retransmission, little loss.
    pub fn mobile() -> Self {
        let link = LinkConfig {
            delay: millis(30),
            jitter: Jitter::InOrder { mean: millis(8), max: millis(150) },
            loss: Loss::Bursts { average: 0.005, burst_mean: 4.0 },
            ..LinkConfig::default()
        };
        Self::symmetric(link).with_rates((5_000_000, 300_000), (20_000_000, 600_000))
    }

    /// A geostationary satellite: 240 ms up and down again (35,786 km twice at the speed of light),
    /// 50 ms of access scheduling and ground network.
    pub fn satellite() -> Self {
        let link = LinkConfig {
            delay: millis(290),
            jitter: Jitter::InOrder { mean: millis(5), max: millis(60) },
            loss: Loss::Random(0.005),
            ..LinkConfig::default()
        };
        Self::symmetric(link).with_rates((3_000_000, 200_000), (20_000_000, 600_000))
    }

    /// What others in the house leave of a DSL line: the rate is the problem (queue of 400 ms up).
    pub fn congested() -> Self {
        let link = LinkConfig {
            delay: millis(20),
            jitter: Jitter::InOrder { mean: millis(3), max: millis(60) },
            loss: Loss::Bursts { average: 0.01, burst_mean: 2.0 },
            ..LinkConfig::default()
        };
        Self::symmetric(link).with_rates((1_200_000, 60_000), (3_000_000, 120_000))
    }

    /// The profile with `rtt` as the sum of both directions' delays, half each.
    pub fn with_rtt(mut self, rtt: Duration) -> Self {
        self.up.delay = rtt / 2;
        self.down.delay = rtt / 2;
        self
    }

    /// The profile with this loss in both directions.
    pub fn with_loss(mut self, loss: Loss) -> Self {
        self.up.loss = loss;
        self.down.loss = loss;
        self
    }

    /// The profile with this jitter in both directions.
    pub fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.up.jitter = jitter;
        self.down.jitter = jitter;
        self
    }

    /// The profile with (bits a second, bytes of queue) up and down.
    pub fn with_rates(mut self, up: (u64, usize), down: (u64, usize)) -> Self {
        (self.up.rate, self.up.queue_max) = (Some(up.0), up.1);
        (self.down.rate, self.down.queue_max) = (Some(down.0), down.1);
        self
    }
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        Ok(match name {
            "perfect" => Self::perfect(),
            "wifi" => Self::wifi(),
            "wifi_lossy" => Self::wifi_lossy(),
            "mobile" => Self::mobile(),
            "satellite" => Self::satellite(),
            "congested" => Self::congested(),
            _ => return Err(UnknownProfile { name: name.to_owned() }),
        })
    }
}

/// No profile has this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownProfile {
    name: String,
}

impl std::error::Error for UnknownProfile {}

impl fmt::Display for UnknownProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no link profile is called {:?}; choose one of {}", self.name, Profile::NAMES.join(", "))
    }
}

const fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_parses_and_others_are_told_the_names() {
        for name in Profile::NAMES {
            name.parse::<Profile>().unwrap();
        }
        let error = "wi-fi".parse::<Profile>().unwrap_err().to_string();
        assert!(error.contains("\"wi-fi\"") && error.contains("wifi_lossy"), "{error}");
    }
}
