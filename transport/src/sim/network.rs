//! The network as a scenario sees it, and the task that moves packets when they are due.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::udp::EcnCodepoint;
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, ServerConfig};
use rand::RngExt;
use tokio::sync::Notify;

use super::fabric::{Fabric, HostId};
use super::link::LinkStats;
use super::profile::{LinkConfig, Profile};
use super::socket::SimSocket;
use super::trace::Trace;
use super::{Direction, SimRng};
use crate::clock::Clock;
use crate::quic::Binding;
use crate::units::Timestamp;

/// A simulated internet: hosts with addresses, each behind a link of its own. Clones are the same
/// network.
///
/// It has no limits itself: a packet crosses the sender's uplink and the receiver's downlink, and
/// between those it takes no time.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    fabric: Mutex<Fabric>,
    /// Draws the seeds of endpoints, in the order in which they are made.
    seeds: Mutex<SimRng>,
    /// Something became due earlier than what the driver waits for.
    earlier: Notify,
}

impl Network {
    /// The caller runs [`Network::drive`].
    pub(super) fn new(clock: Clock, seed: u64) -> Self {
        let seeds = Mutex::new(super::seeded(seed, "endpoints"));
        let fabric = Mutex::new(Fabric::new(seed));
        Network { shared: Arc::new(Shared { clock, fabric, seeds, earlier: Notify::new() }) }
    }

    /// Adds a host. The first gets the address 10.0.0.1, the next 10.0.0.2, and so on.
    ///
    /// `name` seeds the host's links: the same name in another scenario with the same seed sees
    /// the same loss, whatever other hosts there are.
    ///
    /// # Panics
    /// If a host has this name already.
    pub fn host(&self, name: &str, profile: Profile) -> Host {
        self.host_add(name, None, profile)
    }

    /// Adds a host with an address of the caller's choice.
    ///
    /// # Panics
    /// If a host has this name or this address already.
    pub fn host_at(&self, name: &str, ip: IpAddr, profile: Profile) -> Host {
        self.host_add(name, Some(ip), profile)
    }

    /// The host of this name, if there is one.
    pub fn find(&self, name: &str) -> Option<Host> {
        let id = self.fabric().host_find(name)?;
        Some(Host { network: self.clone(), id })
    }

    /// What has happened to packets so far. A copy: take it once, at the end.
    pub fn trace(&self) -> Trace {
        self.fabric().trace().clone()
    }

    fn host_add(&self, name: &str, ip: Option<IpAddr>, profile: Profile) -> Host {
        let added = self.fabric().host_add(name, ip, profile);
        match added {
            Ok(id) => Host { network: self.clone(), id },
            Err(reason) => panic!("{reason}"),
        }
    }

    /// Moves packets when they are due, for ever.
    pub(super) async fn drive(self) {
        let mut timer = self.shared.clock.timer();
        loop {
            timer.reset(self.fabric().poll_timeout());
            tokio::select! {
                biased;
                () = self.shared.earlier.notified() => {}
                () = timer.expired() => {}
            }
            let readers = self.fabric().handle_timeout(self.shared.clock.now());
            readers.into_iter().for_each(|reader| reader.wake());
        }
    }

    pub(super) fn send(
        &self,
        host: HostId,
        port: u16,
        to: SocketAddr,
        ecn: Option<EcnCodepoint>,
        payload: Bytes,
    ) {
        let now = self.shared.clock.now();
        self.change(|fabric| fabric.send(now, host, port, to, ecn, payload));
    }

    pub(super) fn fabric(&self) -> MutexGuard<'_, Fabric> {
        // A panic elsewhere already fails the scenario; it need not hide behind a second one here.
        self.shared.fabric.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the fabric and wakes the driver if something is due earlier than it knows.
    fn change<T>(&self, change: impl FnOnce(&mut Fabric) -> T) -> T {
        let mut fabric = self.fabric();
        let before = fabric.poll_timeout();
        let result = change(&mut fabric);
        let after = fabric.poll_timeout();
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.shared.earlier.notify_one();
        }
        result
    }

    fn endpoint_seed(&self) -> [u8; 32] {
        self.shared.seeds.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("clock", &self.shared.clock).finish_non_exhaustive()
    }
}

/// A host on the simulated network. Clones are the same host.
///
/// Everything about its links can be changed while packets are on the way.
#[derive(Debug, Clone)]
pub struct Host {
    network: Network,
    id: HostId,
}

impl Host {
    /// The name given to [`Network::host`].
    pub fn name(&self) -> String {
        self.network.fabric().host_name(self.id).to_owned()
    }

    /// Where the internet finds this host now.
    pub fn ip(&self) -> IpAddr {
        self.network.fabric().ip_outside(self.id)
    }

    /// A quinn endpoint on this host. Port 0 asks for any; a `server` configuration lets it accept.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if the port is taken.
    pub fn endpoint(&self, port: u16, server: Option<ServerConfig>) -> io::Result<Endpoint> {
        self.endpoint_with(port, self.endpoint_config(), server)
    }

    /// The same with an endpoint configuration of one's own, best made from
    /// [`Host::endpoint_config`].
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if the port is taken.
    pub fn endpoint_with(
        &self,
        port: u16,
        config: EndpointConfig,
        server: Option<ServerConfig>,
    ) -> io::Result<Endpoint> {
        let runtime = self.network.shared.clock.quinn_runtime();
        Endpoint::new_with_abstract_socket(config, server, self.socket(port)?, runtime)
    }

    /// quinn's default endpoint configuration, with the next seed of this simulation: without
    /// one, an endpoint is seeded by the operating system and no run is like another.
    pub fn endpoint_config(&self) -> EndpointConfig {
        let mut config = EndpointConfig::default();
        config.rng_seed(Some(self.network.endpoint_seed()));
        config
    }

    /// A UDP socket on this host, open until its last reference is dropped. Port 0 asks for any.
    ///
    /// Its `local_addr` stays what it was when the host's address changes, as behind a NAT.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if the port is taken.
    pub fn socket(&self, port: u16) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let address = self.network.fabric().bind(self.id, port);
        let address = address.ok_or_else(|| {
            io::Error::new(io::ErrorKind::AddrInUse, format!("port {port} of this simulated host is taken"))
        })?;
        Ok(Arc::new(SimSocket::new(self.network.clone(), self.id, address)))
    }

    /// What a Parlor relay or client on this host is bound to. Port 0 asks for any.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if the port is taken.
    pub fn binding(&self, port: u16) -> io::Result<Binding> {
        let seed = self.network.endpoint_seed();
        let binding = Binding::custom(self.socket(port)?, self.network.shared.clock.clone(), Some(seed));
        let host = self.clone();
        Ok(if port == 0 { binding.renewable(move || host.socket(0)) } else { binding })
    }

    /// Replaces both links. Packets in a queue leave at the new rate; those past it arrive as planned.
    pub fn set_profile(&self, profile: Profile) {
        self.set_link(Direction::Up, profile.up);
        self.set_link(Direction::Down, profile.down);
    }

    /// Replaces one link, see [`Host::set_profile`].
    pub fn set_link(&self, direction: Direction, config: LinkConfig) {
        let now = self.network.shared.clock.now();
        self.change_link(direction, |link| link.configure(now, config));
    }

    /// One link as it is now, for instance to change one figure and pass it to [`Host::set_link`].
    pub fn link(&self, direction: Direction) -> LinkConfig {
        self.network.fabric().link_config(self.id, direction).clone()
    }

    /// Loses everything sent in both directions during `length`, beginning in `after` from now.
    /// Packets already on the way arrive.
    pub fn outage(&self, after: Duration, length: Duration) {
        self.link_outage(Direction::Up, after, length);
        self.link_outage(Direction::Down, after, length);
    }

    /// [`Host::outage`] in one direction.
    pub fn link_outage(&self, direction: Direction, after: Duration, length: Duration) {
        let now = self.network.shared.clock.now();
        self.change_link(direction, |link| link.outage(now, now + after, now + after + length));
    }

    /// Gives the host another address on the internet: another network, or a NAT that rebinds.
    /// Its sockets live on and do not notice. What is on the way to the old address is lost.
    ///
    /// # Panics
    /// If another host has the address.
    pub fn move_to(&self, ip: IpAddr) {
        let moved = self.network.fabric().move_to(self.id, ip);
        if let Err(reason) = moved {
            panic!("{reason}");
        }
    }

    /// Gives the host's sockets other ports on the internet, as a NAT does that forgot them.
    /// What is on the way to the old ports is lost.
    pub fn renumber_ports(&self) {
        self.network.fabric().renumber_ports(self.id);
    }

    /// Cuts off the sockets that are open now, as when the network they belong to is gone: what they send and what
    /// is sent to them is lost. Sockets opened later work.
    pub fn cut_sockets(&self) {
        self.network.fabric().cut_sockets(self.id);
    }

    /// What has passed one of the links so far. A copy.
    pub fn stats(&self, direction: Direction) -> LinkStats {
        self.network.fabric().link_stats(self.id, direction).clone()
    }

    /// Keeps how long each packet waits before the link's bottleneck from now on, the first 500,000 of them.
    pub fn log_queue(&self, direction: Direction) {
        self.change_link(direction, |link| link.log_queue());
    }

    /// When packets came to the link's bottleneck since [`Host::log_queue`], and how long each waited. A copy.
    pub fn queue_log(&self, direction: Direction) -> Vec<(Timestamp, Duration)> {
        self.network.fabric().with_link(self.id, direction, |link| link.queue_log().to_vec())
    }

    fn change_link(
        &self,
        direction: Direction,
        change: impl FnOnce(&mut super::link::Link<super::fabric::Packet>),
    ) {
        self.network.change(|fabric| fabric.with_link(self.id, direction, change));
    }
}
