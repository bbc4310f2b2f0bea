//! The simulated internet: which host has which address, and what passes between them.
//!
//! A machine: it is told the time. The task that drives it is in `network`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::Waker;

use bytes::Bytes;
use quinn::udp::EcnCodepoint;

use super::link::{Link, LinkStats};
use super::profile::{HEADER_IPV4, HEADER_IPV6, LinkConfig, Profile};
use super::trace::{Fate, PacketEnd, Trace};
use super::{Direction, seeded};
use crate::units::Timestamp;

/// A packet on its way. Addresses are those seen on the internet.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) payload: Bytes,
    pub(super) sent: Timestamp,
}

/// Which host, by its place in [`Fabric::hosts`].
pub(super) type HostId = usize;

/// All hosts and everything on the way between them.
#[derive(Debug)]
pub(super) struct Fabric {
    seed: u64,
    hosts: Vec<HostState>,
    /// Addresses on the internet.
    by_ip: BTreeMap<IpAddr, HostId>,
    /// Which link has its next arrival when; equal times in the order of hosts.
    due: BTreeSet<(Timestamp, HostId, Direction)>,
    trace: Trace,
}

#[derive(Debug)]
struct HostState {
    name: String,
    /// What its own sockets believe their address is.
    ip_inside: IpAddr,
    /// What the internet sees.
    ip_outside: IpAddr,
    /// Added to every port on the way out, as by a NAT that renumbers.
    port_shift: u16,
    up: Link<Packet>,
    down: Link<Packet>,
    inboxes: BTreeMap<u16, Inbox>,
    /// Ports whose sockets belong to a network that is gone.
    cut: BTreeSet<u16>,
}

/// A socket's receive buffer.
#[derive(Debug, Default)]
struct Inbox {
    packets: VecDeque<Packet>,
    bytes: usize,
    reader: Option<Waker>,
}

/// Linux' `net.core.rmem_default`: what a socket gets that asks for nothing.
const INBOX_BYTES_MAX: usize = 212_992;

/// Where ports begin that are given out on request for port 0 (RFC 6335's dynamic range).
const PORT_DYNAMIC_MIN: u16 = 49_152;

impl Fabric {
    pub(super) fn new(seed: u64) -> Self {
        Fabric { seed, hosts: Vec::new(), by_ip: BTreeMap::new(), due: BTreeSet::new(), trace: Trace::new() }
    }

    pub(super) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Adds a host, or says what is wrong with its name or address.
    pub(super) fn host_add(
        &mut self,
        name: &str,
        ip: Option<IpAddr>,
        profile: Profile,
    ) -> Result<HostId, String> {
        if self.hosts.iter().any(|host| host.name == name) {
            return Err(format!("a host is already called {name:?}; names seed the links, so they differ"));
        }
        let id = self.hosts.len();
        let ip = match ip {
            Some(ip) => ip,
            None => self.ip_unused(id),
        };
        if self.by_ip.contains_key(&ip) {
            return Err(format!("a host already has the address {ip}"));
        }
        self.by_ip.insert(ip, id);
        self.hosts.push(HostState {
            name: name.to_owned(),
            ip_inside: ip,
            ip_outside: ip,
            port_shift: 0,
            up: Link::new(profile.up, seeded(self.seed, &format!("{name}/up"))),
            down: Link::new(profile.down, seeded(self.seed, &format!("{name}/down"))),
            inboxes: BTreeMap::new(),
            cut: BTreeSet::new(),
        });
        Ok(id)
    }

    pub(super) fn host_find(&self, name: &str) -> Option<HostId> {
        self.hosts.iter().position(|host| host.name == name)
    }

    pub(super) fn host_name(&self, host: HostId) -> &str {
        &self.hosts[host].name
    }

    pub(super) fn ip_outside(&self, host: HostId) -> IpAddr {
        self.hosts[host].ip_outside
    }

    /// Gives the host another address on the internet; its sockets do not notice.
    pub(super) fn move_to(&mut self, host: HostId, ip: IpAddr) -> Result<(), String> {
        if self.by_ip.get(&ip).is_some_and(|holder| *holder != host) {
            return Err(format!("a host already has the address {ip}"));
        }
        self.by_ip.remove(&self.hosts[host].ip_outside);
        self.by_ip.insert(ip, host);
        self.hosts[host].ip_outside = ip;
        Ok(())
    }

    /// Gives all the host's sockets other ports on the internet; they do not notice.
    pub(super) fn renumber_ports(&mut self, host: HostId) {
        // A prime far from common ports, so that an old port is not soon another socket's new one.
        self.hosts[host].port_shift = self.hosts[host].port_shift.wrapping_add(7_919);
    }

    /// Cuts off the sockets that the host has now.
    pub(super) fn cut_sockets(&mut self, host: HostId) {
        let HostState { inboxes, cut, .. } = &mut self.hosts[host];
        cut.extend(inboxes.keys());
    }

    pub(super) fn link_config(&self, host: HostId, direction: Direction) -> &LinkConfig {
        self.hosts[host].link(direction).config()
    }

    pub(super) fn link_stats(&self, host: HostId, direction: Direction) -> &LinkStats {
        self.hosts[host].link(direction).stats()
    }

    /// Changes a link through `change`, keeping track of when it is due.
    pub(super) fn with_link<T>(
        &mut self,
        host: HostId,
        direction: Direction,
        change: impl FnOnce(&mut Link<Packet>) -> T,
    ) -> T {
        let link = self.hosts[host].link_mut(direction);
        let before = link.poll_timeout();
        let result = change(link);
        let after = link.poll_timeout();
        if before != after {
            if let Some(at) = before {
                self.due.remove(&(at, host, direction));
            }
            if let Some(at) = after {
                self.due.insert((at, host, direction));
            }
        }
        result
    }

    /// Opens a socket; port 0 asks for any. `None` if the port is taken.
    pub(super) fn bind(&mut self, host: HostId, port: u16) -> Option<SocketAddr> {
        let HostState { inboxes, ip_inside, .. } = &mut self.hosts[host];
        let port = match port {
            0 => (PORT_DYNAMIC_MIN..=u16::MAX).find(|port| !inboxes.contains_key(port))?,
            taken if inboxes.contains_key(&taken) => return None,
            free => free,
        };
        inboxes.insert(port, Inbox::default());
        Some(SocketAddr::new(*ip_inside, port))
    }

    pub(super) fn close(&mut self, host: HostId, port: u16) {
        self.hosts[host].inboxes.remove(&port);
        self.hosts[host].cut.remove(&port);
    }

    /// Sends a datagram from a host's socket.
    pub(super) fn send(
        &mut self,
        now: Timestamp,
        host: HostId,
        port: u16,
        to: SocketAddr,
        ecn: Option<EcnCodepoint>,
        payload: Bytes,
    ) {
        let HostState { ip_outside, port_shift, .. } = self.hosts[host];
        let from = SocketAddr::new(ip_outside, port.wrapping_add(port_shift));
        let packet = Packet { from, to, ecn, payload, sent: now };
        if self.hosts[host].cut.contains(&port) {
            return self.end(now, &packet, Fate::NoSuchHost);
        }
        self.enter(now, host, Direction::Up, packet);
    }

    /// When something happens next.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// Moves on everything due by `now`. Returns the readers of sockets that received something.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) -> Vec<Waker> {
        let mut readers = Vec::new();
        while let Some(&(at, host, direction)) = self.due.first().filter(|(at, ..)| *at <= now) {
            let Some(packet) = self.with_link(host, direction, |link| link.poll_arrival(at)) else {
                debug_assert!(false, "a link is due only when a packet arrives on it");
                break;
            };
            // What happens at `at` is computed with `at`, however late the timer was.
            match direction {
                Direction::Up => match self.by_ip.get(&packet.to.ip()) {
                    Some(&receiver) => self.enter(at, receiver, Direction::Down, packet),
                    None => self.end(at, &packet, Fate::NoSuchHost),
                },
                Direction::Down => readers.extend(self.deliver(at, host, packet)),
            }
        }
        readers
    }

    /// Takes the next datagram from a socket's buffer, or leaves word whom to wake for one.
    pub(super) fn receive(&mut self, host: HostId, port: u16, reader: &Waker) -> Option<Packet> {
        let inbox = self.hosts[host].inboxes.get_mut(&port)?;
        let Some(packet) = inbox.packets.pop_front() else {
            inbox.reader = Some(reader.clone());
            return None;
        };
        inbox.bytes -= packet.payload.len();
        Some(packet)
    }

    fn enter(&mut self, now: Timestamp, host: HostId, direction: Direction, packet: Packet) {
        let header = if packet.to.is_ipv4() { HEADER_IPV4 } else { HEADER_IPV6 };
        let size = packet.payload.len() + header;
        if let Err((fate, packet)) =
            self.with_link(host, direction, |link| link.handle_packet(now, packet, size))
        {
            self.end(now, &packet, fate);
        }
    }

    fn deliver(&mut self, now: Timestamp, host: HostId, packet: Packet) -> Option<Waker> {
        let HostState { port_shift, inboxes, cut, .. } = &mut self.hosts[host];
        let port = packet.to.port().wrapping_sub(*port_shift);
        let Some(inbox) = inboxes.get_mut(&port).filter(|_| !cut.contains(&port)) else {
            self.end(now, &packet, Fate::NoSuchHost);
            return None;
        };
        let reader = inbox.reader.take();
        if inbox.bytes + packet.payload.len() > INBOX_BYTES_MAX {
            self.end(now, &packet, Fate::BufferFull);
            return reader;
        }
        inbox.bytes += packet.payload.len();
        let end = packet.end(now, Fate::Delivered);
        inbox.packets.push_back(packet);
        self.trace.record(end);
        reader
    }

    fn end(&mut self, at: Timestamp, packet: &Packet, fate: Fate) {
        self.trace.record(packet.end(at, fate));
    }

    /// 10.0.0.1 for the first host, 10.0.0.2 for the second, …; past those already given out.
    fn ip_unused(&self, id: HostId) -> IpAddr {
        let base = u32::from(Ipv4Addr::new(10, 0, 0, 1));
        (base + id as u32..)
            .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
            .find(|ip| !self.by_ip.contains_key(ip))
            .expect("there are more addresses than hosts fit into memory")
    }
}

impl HostState {
    fn link(&self, direction: Direction) -> &Link<Packet> {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    fn link_mut(&mut self, direction: Direction) -> &mut Link<Packet> {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

impl Packet {
    fn end(&self, at: Timestamp, fate: Fate) -> PacketEnd {
        PacketEnd { at, sent: self.sent, from: self.from, to: self.to, bytes: self.payload.len(), fate }
    }
}
