//! Who is behind the proxy, and what is on the way: decides where each datagram goes, and when.
//!
//! A machine: it has no socket and is told the time. What a link does to a datagram is the simulation's own link.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use parlor_client::Timestamp;
use parlor_transport::sim::{self, Direction, HEADER_IPV4, HEADER_IPV6, Link, LinkStats, Profile, Tally};

/// Which client, in the order in which they came, from 1.
pub type SessionId = u64;

/// Clients at once: each costs two file descriptors, and an ordinary Linux process may have 1,024.
pub const SESSIONS_MAX: usize = 256;
/// A client that neither sends nor receives for so long is gone: twice the idle time after which QUIC gives up.
pub const IDLE_MAX: Duration = Duration::from_secs(60);
/// Payload bytes on the way at once, over all clients: 5 s of 400 Mbit/s. More is a link without a rate that somebody floods.
pub const BYTES_MAX: usize = 256 << 20;

/// All clients, each with a link of its own.
#[derive(Debug)]
pub struct Sessions {
    /// What the first client is called; later ones get a number. Names seed the links, as in the simulation.
    name: String,
    profile: Profile,
    seed: u64,
    /// Whether queues are logged, for clients that come later.
    logs: Option<Direction>,
    by_address: BTreeMap<SocketAddr, SessionId>,
    sessions: BTreeMap<SessionId, Session>,
    /// Those that came, ever.
    came: u64,
    /// Payload bytes on the way.
    under_way: usize,
    counts: Counts,
}

#[derive(Debug)]
struct Session {
    client: SocketAddr,
    up: Link<Bytes>,
    down: Link<Bytes>,
    /// When something last came from either side.
    active: Timestamp,
}

/// What happened so far, over all clients, those that are gone included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Clients that came.
    pub opened: u64,
    /// Clients that were silent for [`IDLE_MAX`].
    pub idle: u64,
    /// Clients that are there.
    pub present: u64,
    /// Datagrams of clients for whom there was no place.
    pub refused: u64,
    /// Datagrams dropped because [`BYTES_MAX`] were on the way.
    pub flooded: u64,
    /// From clients.
    pub up: Passed,
    /// To clients.
    pub down: Passed,
}

/// What one direction did with datagrams. Sizes are IP packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Came in.
    pub offered: Tally,
    /// Came out.
    pub delivered: Tally,
    /// Lost at random.
    pub lost: u64,
    /// Dropped because the queue was full.
    pub queue_full: u64,
    /// Dropped because they were larger than the link's MTU.
    pub too_big: u64,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this to the server from the session's own socket.
    ToServer(SessionId, Bytes),
    /// Send this to the client.
    ToClient(SocketAddr, Bytes),
    /// Close the session's socket.
    Close(SessionId),
}

/// Where a client's datagram belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A session that is there.
    Old(SessionId),
    /// A new session: it needs a socket.
    New(SessionId),
    /// There is no place for another client; counted.
    Refused,
}

impl Sessions {
    /// Nobody yet. Every client gets a link like `profile`. What is random follows from `seed` and `name`: the first
    /// client's link is that of a simulated host with this name.
    pub fn new(name: &str, profile: Profile, seed: u64) -> Self {
        Sessions {
            name: name.to_owned(),
            profile,
            seed,
            logs: None,
            by_address: BTreeMap::new(),
            sessions: BTreeMap::new(),
            came: 0,
            under_way: 0,
            counts: Counts::default(),
        }
    }

    /// Finds or makes the session of a client that sent something.
    pub fn place(&mut self, now: Timestamp, client: SocketAddr) -> Place {
        if let Some(&id) = self.by_address.get(&client) {
            return Place::Old(id);
        }
        if self.sessions.len() >= SESSIONS_MAX {
            self.counts.refused += 1;
            return Place::Refused;
        }
        self.came += 1;
        self.counts.opened += 1;
        let id = self.came;
        let number = if id == 1 { String::new() } else { format!("-{id}") };
        let name = |way: &str| format!("{}{number}/{way}", self.name);
        let mut session = Session {
            client,
            up: Link::new(self.profile.up.clone(), sim::seeded(self.seed, &name("up"))),
            down: Link::new(self.profile.down.clone(), sim::seeded(self.seed, &name("down"))),
            active: now,
        };
        if let Some(way) = self.logs {
            session.link(way).log_queue();
        }
        self.by_address.insert(client, id);
        self.sessions.insert(id, session);
        Place::New(id)
    }

    /// Forgets a session whose socket could not be opened. Its datagram counts as refused.
    pub fn give_up(&mut self, id: SessionId) {
        self.counts.refused += 1;
        self.remove(id);
    }

    /// Takes a datagram that came from a client (`Up`) or from the server (`Down`). Of a session that is gone: nothing.
    pub fn handle_datagram(&mut self, now: Timestamp, id: SessionId, way: Direction, payload: Bytes) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.active = now;
        let bytes = payload.len();
        if self.under_way + bytes > BYTES_MAX {
            self.counts.flooded += 1;
            return;
        }
        let header = if session.client.is_ipv4() { HEADER_IPV4 } else { HEADER_IPV6 };
        if session.link(way).handle_packet(now, payload, bytes + header).is_ok() {
            self.under_way += bytes;
        }
    }

    /// When there is something to do next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.sessions.values().map(Session::poll_timeout).min()
    }

    /// What there is to do now; call until `None`.
    pub fn poll_output(&mut self, now: Timestamp) -> Option<Output> {
        // In the order in which things are due; at most `SESSIONS_MAX` are looked at.
        let (due, id) = self.sessions.iter().map(|(id, session)| (session.poll_timeout(), *id)).min()?;
        if due > now {
            return None;
        }
        let session = self.sessions.get_mut(&id)?;
        let output = match (session.up.poll_arrival(now), session.client) {
            (Some(payload), _) => Output::ToServer(id, payload),
            (None, client) => match session.down.poll_arrival(now) {
                Some(payload) => Output::ToClient(client, payload),
                None => {
                    self.counts.idle += 1;
                    self.remove(id);
                    return Some(Output::Close(id));
                }
            },
        };
        if let Output::ToServer(_, payload) | Output::ToClient(_, payload) = &output {
            self.under_way -= payload.len();
        }
        Some(output)
    }

    /// From now on every link is like `profile`, those of clients that are there too.
    pub fn set_profile(&mut self, now: Timestamp, profile: Profile) {
        for session in self.sessions.values_mut() {
            session.up.configure(now, profile.up.clone());
            session.down.configure(now, profile.down.clone());
        }
        self.profile = profile;
    }

    /// Begins to keep how long datagrams wait before the bottleneck, for each client.
    pub fn log_queue(&mut self, way: Direction) {
        self.logs = Some(way);
        self.sessions.values_mut().for_each(|session| session.link(way).log_queue());
    }

    /// What was kept of the first client that is there.
    pub fn queue_log(&self, way: Direction) -> Vec<(Timestamp, Duration)> {
        let first = self.sessions.values().next();
        first.map(|session| session.way(way).queue_log().to_vec()).unwrap_or_default()
    }

    /// What passed the link of the first client that is there, if there is one.
    pub fn stats(&self, way: Direction) -> Option<LinkStats> {
        self.sessions.values().next().map(|session| session.way(way).stats().clone())
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { present: self.sessions.len() as u64, ..self.counts };
        for session in self.sessions.values() {
            counts.up.add(session.up.stats());
            counts.down.add(session.down.stats());
        }
        counts
    }

    fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.by_address.remove(&session.client);
            self.counts.up.add(session.up.stats());
            self.counts.down.add(session.down.stats());
        }
    }
}

impl Session {
    fn link(&mut self, way: Direction) -> &mut Link<Bytes> {
        match way {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    fn way(&self, way: Direction) -> &Link<Bytes> {
        match way {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// When a datagram arrives, or the session is idle: nobody is forgotten while something is on the way.
    fn poll_timeout(&self) -> Timestamp {
        let arrivals = self.up.poll_timeout().into_iter().chain(self.down.poll_timeout());
        arrivals.min().unwrap_or(self.active + IDLE_MAX)
    }
}

impl Passed {
    fn add(&mut self, stats: &LinkStats) {
        for (sum, more) in [(&mut self.offered, stats.offered), (&mut self.delivered, stats.delivered)] {
            sum.packets += more.packets;
            sum.bytes += more.bytes;
        }
        self.lost += stats.lost.packets + stats.outage.packets;
        self.queue_full += stats.queue_full.packets;
        self.too_big += stats.too_big.packets;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 10_000 + n))
    }

    fn ms(n: u64) -> Timestamp {
        Timestamp::from_micros(n * 1_000)
    }

    fn sessions(rtt: u64) -> Sessions {
        Sessions::new("client", Profile::perfect().with_rtt(Duration::from_millis(rtt)), 1)
    }

    fn payload(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_datagram_comes_out_on_the_other_side_after_the_delay() {
        let mut all = sessions(50);
        assert_eq!(all.place(ms(0), client(1)), Place::New(1));
        all.handle_datagram(ms(0), 1, Direction::Up, payload("there"));
        all.handle_datagram(ms(1), 1, Direction::Down, payload("back"));
        assert_eq!((all.poll_timeout(), all.poll_output(ms(24))), (Some(ms(25)), None));
        assert_eq!(all.poll_output(ms(25)), Some(Output::ToServer(1, payload("there"))));
        assert_eq!((all.poll_timeout(), all.poll_output(ms(25))), (Some(ms(26)), None));
        assert_eq!(all.poll_output(ms(26)), Some(Output::ToClient(client(1), payload("back"))));
        assert_eq!(all.place(ms(30), client(1)), Place::Old(1));
        let counts = all.counts();
        assert_eq!((counts.up.delivered.packets, counts.down.delivered.bytes), (1, 4 + 28));
        assert_eq!(all.under_way, 0);
    }

    #[test]
    fn there_is_place_for_so_many_clients_and_no_more() {
        let mut all = sessions(0);
        for n in 0..SESSIONS_MAX as u16 {
            assert_eq!(all.place(ms(0), client(n)), Place::New(u64::from(n) + 1));
        }
        assert_eq!(all.place(ms(1), client(50_000)), Place::Refused);
        assert_eq!(all.place(ms(1), client(3)), Place::Old(4));
        assert_eq!((all.counts().refused, all.counts().present), (1, SESSIONS_MAX as u64));
        // One that cannot have a socket makes place for another.
        all.give_up(4);
        assert_eq!(all.place(ms(2), client(50_000)), Place::New(SESSIONS_MAX as u64 + 1));
    }

    #[test]
    fn who_is_silent_is_forgotten_and_comes_back_as_another() {
        let mut all = sessions(0);
        all.place(ms(0), client(1));
        all.place(ms(0), client(2));
        all.handle_datagram(ms(30_000), 2, Direction::Down, payload("alive"));
        assert!(matches!(all.poll_output(ms(30_000)), Some(Output::ToClient(..))));
        assert_eq!((all.poll_timeout(), all.poll_output(ms(59_999))), (Some(ms(60_000)), None));
        assert_eq!(all.poll_output(ms(60_000)), Some(Output::Close(1)));
        assert_eq!(all.poll_output(ms(60_000)), None);
        assert_eq!((all.counts().idle, all.counts().present, all.counts().down.offered.packets), (1, 1, 1));
        all.handle_datagram(ms(60_001), 1, Direction::Up, payload("too late"));
        assert_eq!(all.place(ms(60_001), client(1)), Place::New(3));
        assert_eq!(all.poll_output(ms(90_000)), Some(Output::Close(2)));
        assert_eq!(all.counts().down.delivered.packets, 1, "what a client did is counted after it is gone");
    }

    #[test]
    fn a_flood_is_bounded_in_bytes() {
        let mut all = sessions(1_000);
        all.profile.up.mtu = BYTES_MAX * 2;
        all.place(ms(0), client(1));
        all.handle_datagram(ms(0), 1, Direction::Up, Bytes::from(vec![0; BYTES_MAX - 10]));
        all.handle_datagram(ms(0), 1, Direction::Down, payload("more than ten bytes"));
        assert_eq!((all.counts().flooded, all.counts().down.offered.packets), (1, 0));
        all.handle_datagram(ms(0), 1, Direction::Down, payload("ten bytes!"));
        assert_eq!((all.under_way, all.counts().flooded), (BYTES_MAX, 1));
        while all.poll_output(ms(1_000)).is_some() {}
        assert_eq!(all.under_way, 0);
    }
}
