//! Parlor over real UDP: the call of [`crate::contender::parlor`] with a running relay, the cell's links being proxies
//! in this process. One process, so that one clock stamps what leaves and what arrives.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use parlor_client::{Delivery, Engine, RoomId, Scenario};
use parlor_relay::{Config, Relay};
use parlor_transport::address::RelayAddress;
use parlor_transport::clock::Clock;
use parlor_transport::quic::Binding;
use parlor_transport::sim::{Direction, LinkStats, Profile};
use parlor_transport::units::Timestamp;

use crate::cell::{Cell, Link};
use crate::contender::call::{GRACE, START};
use crate::contender::meter::{Meter, Tap, clean};
use crate::contender::parlor::{Captured, Parlor, Stage, call};
use crate::contender::{Contender, Run};
use crate::proxy::{self, Proxy, any_port_towards};

/// Parlor over real UDP. A cell's run takes its length and a few seconds of real time, and no two are alike.
#[derive(Debug, Clone)]
pub struct Live {
    /// How frames travel.
    pub delivery: Delivery,
    /// The relay; without one, each run starts its own on loopback.
    pub relay: Option<RelayAddress>,
    /// Whether the relay may be elsewhere than on loopback.
    pub any_address: bool,
}

/// Beyond that: joining and leaving. A relay that does not answer is given up sooner.
const SLACK: Duration = Duration::from_secs(30);
/// What a program that ends leaves to tasks that hang.
const SHUTDOWN: Duration = Duration::from_secs(1);

impl Live {
    /// What a run takes beyond the length of its cell, about.
    pub const OVERHEAD: Duration = START.saturating_add(GRACE);

    async fn run_in(&self, cell: &Cell) -> Result<Run, String> {
        let (address, serving) = match &self.relay {
            Some(address) => (address.clone(), None),
            None => {
                let relay = Relay::bind(unhurried()).await.map_err(|error| error.to_string())?;
                let address = relay.address(None);
                (address, Some(tokio::spawn(relay.run(std::future::pending()))))
            }
        };
        let relay = resolve(&address.host, address.port)?;
        permit(relay, self.any_address)?;
        let clock = Clock::system();
        let way = |link: Option<&Link>, name: &str| Way::new(link, name, &address, relay, cell.seed, &clock);
        let publishing = way(cell.publisher.as_ref(), "publisher")?;
        let subscribing = way(cell.subscriber.as_ref(), "subscriber")?;
        let stage = Stage {
            publisher: engine(&clock, relay)?,
            publisher_address: publishing.address.to_string(),
            subscriber: engine(&clock, relay)?,
            subscriber_address: subscribing.address.to_string(),
            captured: Captured::WhenMade,
        };
        let measure = || Meter::start(cell, publishing.tap(), subscribing.tap());
        let running = Box::pin(call(stage, self.delivery, cell, measure));
        let run = clock.timeout(cell.length + Live::OVERHEAD + SLACK, running).await;
        serving.inspect(|serving| serving.abort());
        run.map_err(|_| format!("the call with the relay at {relay} was not over in time; does it answer?"))?
    }
}

impl Contender for Live {
    fn name(&self) -> String {
        format!("{} (live)", Parlor::from(self.delivery).name())
    }

    /// Must not be called from a tokio runtime; makes its own.
    fn run(&self, cell: &Cell) -> Result<Run, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let run = runtime.block_on(self.run_in(cell));
        runtime.shutdown_timeout(SHUTDOWN);
        run
    }
}

/// How one of the two reaches the relay: through a proxy if it has a link.
struct Way {
    address: RelayAddress,
    proxy: Option<Proxy>,
}

impl Way {
    fn new(
        link: Option<&Link>,
        name: &str,
        address: &RelayAddress,
        relay: SocketAddr,
        seed: u64,
        clock: &Clock,
    ) -> Result<Self, String> {
        let room = address.room.clone().or_else(|| RoomId::new("bench").ok());
        let address = RelayAddress { room, ..address.clone() };
        let Some(link) = link else { return Ok(Way { address, proxy: None }) };
        if address.fingerprint.is_none() {
            return Err(format!(
                "{address} has no #sha256=…, so the certificate is checked by its host name, which a link's proxy \
                 does not have; give the whole address that the relay prints"
            ));
        }
        // The proxy stands beside the publisher and the subscriber, wherever the relay is.
        let listen = match relay {
            SocketAddr::V4(_) => SocketAddr::from(([127, 0, 0, 1], 0)),
            SocketAddr::V6(_) => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)),
        };
        let profile = clean(Some(link));
        let config = proxy::Config { listen, to: relay, profile, seed, name: name.to_owned() };
        let proxy = Proxy::start(config, clock.clone())
            .map_err(|error| format!("cannot open the {name}'s link on {listen}: {error}"))?;
        let local = proxy.local_addr();
        let address = RelayAddress { host: local.ip().to_string(), port: local.port(), ..address };
        Ok(Way { address, proxy: Some(proxy) })
    }

    fn tap(&self) -> Box<dyn Tap> {
        match &self.proxy {
            Some(proxy) => Box::new(proxy.tap()),
            None => Box::new(NoLink),
        }
    }
}

/// Nothing between here and the relay, so nothing to change and nothing to count.
#[derive(Debug)]
struct NoLink;

impl Tap for NoLink {
    fn set_profile(&self, _: Profile) {}

    fn stats(&self, _: Direction) -> Option<LinkStats> {
        None
    }

    fn log_queue(&self, _: Direction) {}

    fn queue_log(&self, _: Direction) -> Vec<(Timestamp, Duration)> {
        Vec::new()
    }
}

/// An engine on `clock`, so that both stamp frames alike.
fn engine(clock: &Clock, relay: SocketAddr) -> Result<Engine, String> {
    let failed = |error: std::io::Error| format!("cannot open a UDP socket: {error}");
    let socket = std::net::UdpSocket::bind(any_port_towards(relay)).map_err(failed)?;
    let socket = clock.quinn_runtime().wrap_udp_socket(socket).map_err(failed)?;
    Engine::with_network(Scenario::StandardCall, Binding::custom(socket, clock.clone(), None))
        .map_err(|error| error.to_string())
}

/// The address of a host that is named by a name or an address; asks the system.
///
/// # Errors
/// When nobody is called so.
pub fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    // An address needs no asking, so that a machine without a resolver works too.
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let mut found =
        (host, port).to_socket_addrs().map_err(|error| format!("{host} is not found: {error}"))?;
    found.next().ok_or_else(|| format!("{host} has no address"))
}

/// Whether traffic may go to `address`: a measurement is traffic that nobody elsewhere asked for.
///
/// # Errors
/// What to do, if it is not on loopback and `any` is not set.
pub fn permit(address: SocketAddr, any: bool) -> Result<(), String> {
    if any || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(format!("{address} is not on this machine's loopback; if it is yours, say --allow-any-address"))
}

/// A relay that leaves nothing out when this process is late: its load is not what is looked at.
fn unhurried() -> Config {
    Config { overload: Some(parlor_relay::overload::Shed::NONE), ..Config::dev() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_permitted_unless_said_otherwise() {
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(permit(address.parse().unwrap(), false), Ok(()), "{address}");
        }
        for address in ["0.0.0.0:1", "192.168.0.1:1", "[::]:1", "[2001:db8::1]:1"] {
            let address = address.parse().unwrap();
            assert!(permit(address, false).unwrap_err().contains("--allow-any-address"), "{address}");
            assert_eq!(permit(address, true), Ok(()));
        }
        assert_eq!(resolve("::1", 7), Ok(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 7))));
    }

    #[test]
    fn a_relay_elsewhere_is_refused_before_anything_is_sent() {
        let relay = "parlor://192.0.2.1:4433/r".parse().ok();
        let live = Live { delivery: Delivery::Adaptive, relay, any_address: false };
        assert!(live.run(&Cell::default()).unwrap_err().contains("192.0.2.1:4433"));
        // Without a fingerprint no proxy can stand in for it.
        let relay = "parlor://127.0.0.1:4433/r".parse().ok();
        let live = Live { relay, ..live };
        assert!(live.run(&Cell::default()).unwrap_err().contains("sha256"));
    }

    /// If this fails, a real call through the proxy does not carry its frames.
    #[test]
    fn a_short_call_over_loopback_delivers_every_frame() {
        let cell = Cell { length: Duration::from_secs(1), ..Cell::default() };
        let live = Live { delivery: Delivery::Adaptive, relay: None, any_address: false };
        let run = live.run(&cell).unwrap();
        assert_eq!(run.frames.len(), 30);
        assert!(run.frames.iter().all(|frame| frame.complete.is_some()), "{:?}", run.frames);
        assert!(run.wire[0].total > cell.shape.bitrate / 8 && run.wire[0].feedback > 0, "{:?}", run.wire);
    }
}
