//! What happened to every packet: a list to read and a hash to compare.

use std::fmt;
use std::net::SocketAddr;

use crate::units::Timestamp;

/// The end of every packet of a simulation, in the order in which the ends came.
///
/// Two runs of the same scenario with the same seed have equal traces; [`Trace::hash`] says so in
/// eight bytes. `to_string()` gives one line for each packet:
///
/// ```text
/// 25140 10.0.0.2:49152 10.0.0.1:4433 1200 delivered +25100
/// ```
///
/// (the end's time in µs, from, to, bytes of UDP payload, fate, µs since it was sent.)
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    packets: Vec<PacketEnd>,
    total: u64,
    hash: Fnv,
}

/// What became of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketEnd {
    /// When it arrived or was dropped.
    pub at: Timestamp,
    /// When the sender handed it to its socket.
    pub sent: Timestamp,
    /// The sender's address as the receiver sees it.
    pub from: SocketAddr,
    /// Where it was sent.
    pub to: SocketAddr,
    /// Bytes of UDP payload.
    pub bytes: usize,
    /// What happened.
    pub fate: Fate,
}

/// How a packet ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// Put into the receiving socket's buffer.
    Delivered,
    /// Vanished by [`Loss`](super::Loss).
    Lost,
    /// Did not fit into the queue in front of a link's bottleneck.
    QueueFull,
    /// Sent during an outage.
    Outage,
    /// Larger than a link's MTU.
    TooBig,
    /// Nobody has the address, or no socket the port.
    NoSuchHost,
    /// The receiving socket's buffer was full: its owner does not read.
    BufferFull,
}

impl Trace {
    /// Packets kept for reading; later ones only count and enter the hash. About 100 bytes each.
    pub const KEPT_MAX: usize = 500_000;

    pub(super) fn new() -> Self {
        Trace { packets: Vec::new(), total: 0, hash: Fnv::new() }
    }

    pub(super) fn record(&mut self, end: PacketEnd) {
        self.total += 1;
        self.hash.write(&end.at.as_micros().to_le_bytes());
        self.hash.write(&end.sent.as_micros().to_le_bytes());
        self.hash.write_address(end.from);
        self.hash.write_address(end.to);
        self.hash.write(&(end.bytes as u64).to_le_bytes());
        self.hash.write(end.fate.name().as_bytes());
        if self.packets.len() < Self::KEPT_MAX {
            self.packets.push(end);
        }
    }

    /// The first [`Trace::KEPT_MAX`] packets.
    pub fn packets(&self) -> &[PacketEnd] {
        &self.packets
    }

    /// How many packets ended, those not kept included.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many of [`Trace::packets`] ended as `fate`.
    pub fn count(&self, fate: Fate) -> usize {
        self.packets.iter().filter(|end| end.fate == fate).count()
    }

    /// A number that differs between different traces (FNV-1a; the same on every machine).
    pub fn hash(&self) -> u64 {
        self.hash.0
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.packets.iter().try_for_each(|end| writeln!(f, "{end}"))
    }
}

impl fmt::Display for PacketEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PacketEnd { at, sent, from, to, bytes, fate } = self;
        let age = at.saturating_since(*sent).as_micros();
        write!(f, "{} {from} {to} {bytes} {fate} +{age}", at.as_micros())
    }
}

impl Fate {
    const fn name(self) -> &'static str {
        match self {
            Fate::Delivered => "delivered",
            Fate::Lost => "lost",
            Fate::QueueFull => "queue-full",
            Fate::Outage => "outage",
            Fate::TooBig => "too-big",
            Fate::NoSuchHost => "no-such-host",
            Fate::BufferFull => "buffer-full",
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// FNV-1a, 64 bits: the standard library's hasher may change between releases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fnv(pub(super) u64);

impl Fnv {
    pub(super) fn new() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_address(&mut self, address: SocketAddr) {
        match address.ip() {
            std::net::IpAddr::V4(ip) => self.write(&ip.octets()),
            std::net::IpAddr::V6(ip) => self.write(&ip.octets()),
        }
        self.write(&address.port().to_le_bytes());
    }
}
