//! A lossy link before real sockets: a UDP proxy that treats datagrams as the simulation's links do.
//!
//! The shell: sockets, a task that reads each of them, and a thread that sends what is due. A tokio timer would be up
//! to a millisecond late, which is what is measured here; a thread that waits is late by some 50 µs.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parlor_client::Timestamp;
use parlor_transport::clock::Clock;
use parlor_transport::sim::{Direction, LinkStats, Profile};
use tokio::task::AbortHandle;

use crate::contender::meter::Tap;
use sessions::{Counts, Output, Place, SessionId, Sessions};

pub mod sessions;

/// What a proxy does.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients find it; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The server behind it.
    pub to: SocketAddr,
    /// The link of each client: `up` is from the client to the server.
    pub profile: Profile,
    /// What is random follows from it.
    pub seed: u64,
    /// The first client's link is that of a simulated host with this name.
    pub name: String,
}

/// A running proxy. Dropping it closes its sockets.
pub struct Proxy {
    local: SocketAddr,
    shared: Arc<Shared>,
    listening: AbortHandle,
    sending: Option<JoinHandle<()>>,
}

/// The handle by which a proxy's link is changed and read while it runs.
#[derive(Clone)]
pub struct ProxyTap(Arc<Shared>);

struct Shared {
    clock: Clock,
    to: SocketAddr,
    /// Sends to clients.
    listener: UdpSocket,
    state: Mutex<State>,
    /// Something is due earlier than what the sender waits for, or it is over.
    earlier: Condvar,
}

struct State {
    sessions: Sessions,
    /// As many as there are sessions.
    upstreams: BTreeMap<SessionId, Upstream>,
    failed: Failed,
    stopped: bool,
}

/// A session's socket towards the server.
struct Upstream {
    socket: UdpSocket,
    reading: AbortHandle,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// What sockets refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failed {
    /// Datagrams that could not be sent.
    pub sent: u64,
    /// Reads that gave an error: nobody listens at the server's address, for instance.
    pub received: u64,
}

impl Proxy {
    /// Opens the sockets and begins. Needs a tokio runtime with I/O, and runs until it is dropped or the runtime ends.
    ///
    /// # Errors
    /// When the address cannot be had, or the system gives no thread.
    pub fn start(config: Config, clock: Clock) -> io::Result<Self> {
        let listener = UdpSocket::bind(config.listen)?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        let incoming = tokio::net::UdpSocket::from_std(listener.try_clone()?)?;
        let shared = Arc::new(Shared {
            clock,
            to: config.to,
            listener,
            state: Mutex::new(State {
                sessions: Sessions::new(&config.name, config.profile, config.seed),
                upstreams: BTreeMap::new(),
                failed: Failed::default(),
                stopped: false,
            }),
            earlier: Condvar::new(),
        });
        let sender = Arc::clone(&shared);
        let sending =
            std::thread::Builder::new().name("proxy".to_owned()).spawn(move || sender.send_what_is_due())?;
        let listening = tokio::spawn(Arc::clone(&shared).listen(incoming)).abort_handle();
        Ok(Proxy { local, shared, listening, sending: Some(sending) })
    }

    /// Where clients find it.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What happened so far, and what sockets refused.
    pub fn counts(&self) -> (Counts, Failed) {
        let state = self.shared.state();
        (state.sessions.counts(), state.failed)
    }

    /// The link of the first client, and of those that come.
    pub fn tap(&self) -> ProxyTap {
        ProxyTap(Arc::clone(&self.shared))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        {
            let mut state = self.shared.state();
            state.stopped = true;
            state.upstreams.clear();
        }
        self.shared.earlier.notify_one();
        // It has been told, and waits for nothing else.
        _ = self.sending.take().map(JoinHandle::join);
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what clients send.
    async fn listen(self: Arc<Self>, socket: tokio::net::UdpSocket) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((length, client)) => self.take_from_client(client, &buffer[..length]),
                Err(_) => self.read_failed().await,
            }
        }
    }

    /// Reads what the server sends to one client.
    async fn read(self: Arc<Self>, id: SessionId, socket: tokio::net::UdpSocket) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            match socket.recv(&mut buffer).await {
                Ok(length) => self.take(&mut self.state(), id, Direction::Down, &buffer[..length]),
                Err(_) => self.read_failed().await,
            }
        }
    }

    async fn read_failed(&self) {
        self.state().failed.received += 1;
        self.clock.sleep(FAILURE_PAUSE).await;
    }

    fn take_from_client(self: &Arc<Self>, client: SocketAddr, payload: &[u8]) {
        let mut state = self.state();
        if state.stopped {
            return;
        }
        let id = match state.sessions.place(self.clock.now(), client) {
            Place::Old(id) => id,
            Place::Refused => return,
            Place::New(id) => {
                let Ok(upstream) = self.open(id) else { return state.sessions.give_up(id) };
                state.upstreams.insert(id, upstream);
                id
            }
        };
        self.take(&mut state, id, Direction::Up, payload);
    }

    fn open(self: &Arc<Self>, id: SessionId) -> io::Result<Upstream> {
        let socket = UdpSocket::bind(any_port_towards(self.to))?;
        socket.connect(self.to)?;
        socket.set_nonblocking(true)?;
        let incoming = tokio::net::UdpSocket::from_std(socket.try_clone()?)?;
        let reading = tokio::spawn(Arc::clone(self).read(id, incoming)).abort_handle();
        Ok(Upstream { socket, reading })
    }

    fn take(&self, state: &mut State, id: SessionId, way: Direction, payload: &[u8]) {
        let before = state.sessions.poll_timeout();
        state.sessions.handle_datagram(self.clock.now(), id, way, Bytes::copy_from_slice(payload));
        if state.sessions.poll_timeout() < before || before.is_none() {
            self.earlier.notify_one();
        }
    }

    /// Until it is stopped.
    fn send_what_is_due(&self) {
        let mut state = self.state();
        while !state.stopped {
            while let Some(output) = state.sessions.poll_output(self.clock.now()) {
                self.send(&mut state, output);
            }
            let left = |until: Timestamp| until.saturating_since(self.clock.now());
            let wait = state.sessions.poll_timeout().map_or(WAIT_MAX, left);
            // A wait that ends early, for whatever reason, only looks again.
            state = self
                .earlier
                .wait_timeout(state, wait)
                .map_or_else(|poisoned| poisoned.into_inner().0, |it| it.0);
        }
    }

    fn send(&self, state: &mut State, output: Output) {
        let sent = match output {
            Output::ToClient(client, payload) => self.listener.send_to(&payload, client),
            Output::ToServer(id, payload) => match state.upstreams.get(&id) {
                Some(upstream) => upstream.socket.send(&payload),
                None => return debug_assert!(false, "every session has a socket"),
            },
            Output::Close(id) => return drop(state.upstreams.remove(&id)),
        };
        state.failed.sent += u64::from(sent.is_err());
    }
}

impl Tap for ProxyTap {
    fn set_profile(&self, profile: Profile) {
        self.0.state().sessions.set_profile(self.0.clock.now(), profile);
        self.0.earlier.notify_one();
    }

    fn stats(&self, way: Direction) -> Option<LinkStats> {
        self.0.state().sessions.stats(way)
    }

    fn log_queue(&self, way: Direction) {
        self.0.state().sessions.log_queue(way);
    }

    fn queue_log(&self, way: Direction) -> Vec<(Timestamp, Duration)> {
        self.0.state().sessions.queue_log(way)
    }
}

impl fmt::Debug for ProxyTap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProxyTap").field(&self.0.to).finish()
    }
}

/// A local address, any port, from which `to` can be reached: loopback for loopback, which the outside cannot reach.
pub fn any_port_towards(to: SocketAddr) -> SocketAddr {
    match (to, to.ip().is_loopback()) {
        (SocketAddr::V4(_), true) => (Ipv4Addr::LOCALHOST, 0).into(),
        (SocketAddr::V4(_), false) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        (SocketAddr::V6(_), true) => (Ipv6Addr::LOCALHOST, 0).into(),
        (SocketAddr::V6(_), false) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// What a UDP datagram can be; anything shorter would cut some in two.
const DATAGRAM_MAX: usize = 65_535;
/// After a socket's error, so that one that lasts costs next to nothing.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);
/// With nobody there, nothing is due; any length will do.
const WAIT_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    async fn receive(socket: &tokio::net::UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 2_000];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        buffer.truncate(length);
        (buffer, from)
    }

    /// If this fails, nothing gets through the proxy, or to the wrong client.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn datagrams_pass_both_ways_and_each_client_has_its_own_port() {
        let server = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
        let config = Config {
            listen: loopback(),
            to: server.local_addr().unwrap(),
            profile: Profile::perfect().with_rtt(Duration::from_millis(4)),
            seed: 1,
            name: "client".to_owned(),
        };
        let proxy = Proxy::start(config, Clock::system()).unwrap();
        let mut ports = Vec::new();
        let mut clients = Vec::new();
        for text in [b"one", b"two"] {
            let client = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
            client.send_to(text, proxy.local_addr()).await.unwrap();
            let (there, from) = receive(&server).await;
            assert_eq!(there, text);
            server.send_to(&there, from).await.unwrap();
            assert_eq!(receive(&client).await, (text.to_vec(), proxy.local_addr()));
            ports.push(from);
            clients.push(client);
        }
        assert_ne!(ports[0], ports[1]);
        // An old client again, the other way first.
        server.send_to(b"unasked", ports[0]).await.unwrap();
        assert_eq!(receive(&clients[0]).await.0, b"unasked");
        let (counts, failed) = proxy.counts();
        assert_eq!((counts.present, counts.up.delivered.packets, counts.down.delivered.packets), (2, 2, 3));
        assert_eq!(failed, Failed::default());
        // A link that loses everything passes nothing, and says so.
        let mut lost = Profile::perfect();
        lost.up.loss = parlor_transport::sim::Loss::Random(1.0);
        proxy.tap().set_profile(lost);
        clients[0].send_to(b"gone", proxy.local_addr()).await.unwrap();
        clients[1].send_to(b"gone", proxy.local_addr()).await.unwrap();
        while proxy.counts().0.up.lost < 2 {
            tokio::task::yield_now().await;
        }
    }
}
