//! Sockets and connections: where packets go in and out, and how a connection is made or taken.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::udp::UdpSocketState;
use quinn::{AckFrequencyConfig, AsyncUdpSocket, EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use quinn_proto::RandomConnectionIdGenerator;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

use super::congestion::WindowTarget;
use super::driver;
use super::resumption::{Connected, Early, Remembered};
use super::session::{Ended, Session};
use super::tls::{Identity, Trust};
use crate::clock::Clock;
use crate::error::{Code, Coded};
use crate::hop::{ACK_DELAY_MAX, Ablation};
use crate::id::LoginId;
use crate::units::Timestamp;
use crate::wire::frame::OBJECT_MAX;

/// What quinn may hold of datagrams that the congestion window does not let out yet: two
/// frames of 2 Mbit/s video. The real queue is ours, where whole frames are dropped.
const DATAGRAM_QUEUE: usize = 48 * 1024;
/// Datagrams received and not yet read: a keyframe and more, while the reading task waits its turn.
const DATAGRAM_RECEIVE: usize = 512 * 1024;
/// Round-trip time assumed before one was measured: the first retransmission comes after three of it. On
/// a longer way some packets of the handshake go out twice; on a lossy one this saves tenths of a second.
const RTT_INITIAL: Duration = Duration::from_millis(50);
/// Bytes of a connection id, in front of every packet: among four billion, those of all connections of a host are
/// told apart, and quinn makes another one when it meets one that is taken.
const CID_LEN: usize = 4;
/// Packets that a peer may acknowledge together. Media is accounted for by reports, so that QUIC's acknowledgements
/// serve control only; they still come in time for its retransmissions, and at once where a gap is.
const PACKETS_PER_ACK: u32 = 20;
/// QUIC streams that a peer may open before it may send frames on them: of events, of app messages, and one more that is
/// closing.
pub const QUIC_STREAMS_FIRST: u32 = 3;
/// Bytes of packets that may wait in a socket, in either direction. Each counts as 1 to 2 kB there: 10,000 users of a relay
/// acknowledge within some 100 ms what a room was told, while Linux's default holds 200 packets.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// Unread bytes of all QUIC streams of one connection.
const RECEIVE_WINDOW: u32 = 8 * 1024 * 1024;
/// Unacknowledged bytes of all QUIC streams of one connection.
const SEND_WINDOW: u64 = 4 * 1024 * 1024;

/// What a host allows its peers and how it watches over connections.
#[derive(Clone, Debug)]
pub struct Options {
    /// A connection on which nothing was received for this long is gone. Default 6 s: where
    /// most packets are lost, a handshake may be silent for some seconds.
    pub idle_timeout: Duration,
    /// How often a silent connection is kept alive. Default 1 s.
    pub keep_alive: Duration,
    /// How many frames the peer may have under way at once, each on its QUIC stream, once a lane is open on which frames
    /// travel so. quinn holds memory for every one that is permitted. Default 512: 60 streams of 30 frames/s with sound
    /// at 100 ms of round trip.
    pub frames_in_flight_max: u32,
    /// Writes one qlog file for every connection into this directory.
    pub qlog: Option<PathBuf>,
    /// Writes TLS secrets to the file that the environment variable `SSLKEYLOGFILE` names.
    pub key_log: bool,
    /// Which parts of repair are left out. Default: none; benchmarks tell what each is worth.
    pub ablation: Ablation,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            idle_timeout: Duration::from_secs(6),
            keep_alive: Duration::from_secs(1),
            frames_in_flight_max: 512,
            qlog: None,
            key_log: false,
            ablation: Ablation::None,
        }
    }
}

impl Options {
    /// Tries what would otherwise show when the first connection comes: makes the directory for qlog files, and a file
    /// in it, which goes again.
    ///
    /// # Errors
    /// [`QlogError`].
    pub fn check(&self) -> Result<(), QlogError> {
        let Some(directory) = &self.qlog else { return Ok(()) };
        let failed = |source| QlogError { directory: directory.clone(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let file = directory.join(format!(".parlor-{}", std::process::id()));
        std::fs::File::create(&file).and_then(|_| std::fs::remove_file(&file)).map_err(failed)
    }
}

/// No qlog file can be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write qlog files into {}: {source}; choose a directory that may be written", directory.display())]
pub struct QlogError {
    /// The directory asked for.
    pub directory: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// No socket could be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open UDP {address}: {source}{}", hint(source))]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has this port, choose another one or port 0",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege, choose a higher one",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address, try 0.0.0.0 or 127.0.0.1",
        _ => "",
    }
}

/// Where an endpoint's packets go in and out, and the clock it lives by.
#[derive(Clone)]
pub struct Binding {
    socket: Arc<dyn AsyncUdpSocket>,
    clock: Clock,
    seed: Option<[u8; 32]>,
    renew: Option<Renew>,
}

/// A UDP socket with room for bursts, as far as the system allows: what it does not is no reason to fail.
fn open_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    let state = UdpSocketState::new((&socket).into())?;
    _ = state.set_recv_buffer_size((&socket).into(), SOCKET_BUFFER);
    _ = state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER);
    Ok(socket)
}

/// Opens another socket of the same kind.
type Renew = Arc<dyn Fn() -> io::Result<Arc<dyn AsyncUdpSocket>> + Send + Sync>;

impl Binding {
    /// A UDP socket of this machine; port 0 lets the system choose. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] when the address cannot be had.
    pub fn udp(address: SocketAddr) -> Result<Self, BindError> {
        let clock = Clock::system();
        let runtime = clock.quinn_runtime();
        let open = move || runtime.wrap_udp_socket(open_udp(address)?);
        let socket = open().map_err(|source| BindError { address, source })?;
        let binding = Binding::custom(socket, clock, None);
        // A port that was asked for is taken as long as the socket before is open.
        Ok(if address.port() == 0 { binding.renewable(open) } else { binding })
    }

    /// Any socket on any clock. With a `seed`, connection ids and the like repeat from run to run.
    pub fn custom(socket: Arc<dyn AsyncUdpSocket>, clock: Clock, seed: Option<[u8; 32]>) -> Self {
        Binding { socket, clock, seed, renew: None }
    }

    /// The same, with the means to [renew](Endpoint::renew) it: `open` gives another socket.
    pub fn renewable(
        self,
        open: impl Fn() -> io::Result<Arc<dyn AsyncUdpSocket>> + Send + Sync + 'static,
    ) -> Self {
        Binding { renew: Some(Arc::new(open)), ..self }
    }

    /// The clock of this endpoint.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Why no connection came about.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot connect to {address}: {text} ({})", code.number())]
pub struct ConnectError {
    /// The relay's address.
    pub address: SocketAddr,
    /// The stable code.
    pub code: Code,
    /// What happened and what to do.
    pub text: String,
}

impl Coded for ConnectError {
    fn code(&self) -> Code {
        self.code
    }
}

/// A socket that makes connections, takes them, or both.
#[derive(Clone)]
pub struct Endpoint {
    pub(super) driver: driver::Endpoint,
    clock: Clock,
    options: Arc<Mutex<Options>>,
    server: Arc<Mutex<Option<quinn::ServerConfig>>>,
    remembered: Arc<Remembered>,
    connections: Arc<AtomicU64>,
    renew: Arc<Mutex<Option<Renew>>>,
    rebinds: Arc<AtomicU64>,
    /// Of a simulation; and the logins made so far.
    seed: Option<[u8; 32]>,
    logins: Arc<AtomicU64>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("driver", &self.driver).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint that only makes connections.
    ///
    /// # Errors
    /// An I/O error when the socket does not work.
    pub fn client(binding: Binding, options: Options) -> io::Result<Self> {
        Self::new(binding, options, None)
    }

    /// An endpoint that takes connections as `identity`.
    ///
    /// # Errors
    /// An I/O error when the socket does not work or the identity cannot be used.
    pub fn server(binding: Binding, identity: &Identity, options: Options) -> io::Result<Self> {
        let config = server_config(identity, &options, binding.clock())?;
        Self::new(binding, options, Some(config))
    }

    fn new(binding: Binding, options: Options, server: Option<quinn::ServerConfig>) -> io::Result<Self> {
        let mut config = EndpointConfig::default();
        config.rng_seed(binding.seed).cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CID_LEN)));
        let runtime = binding.clock.quinn_runtime();
        let driver = driver::Endpoint::new(config, server.clone(), binding.socket, runtime)?;
        Ok(Endpoint {
            driver,
            clock: binding.clock,
            options: Arc::new(Mutex::new(options)),
            server: Arc::new(Mutex::new(server)),
            remembered: Arc::default(),
            connections: Arc::default(),
            renew: Arc::new(Mutex::new(binding.renew)),
            rebinds: Arc::default(),
            seed: binding.seed,
            logins: Arc::default(),
        })
    }

    /// The address the socket has.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.driver.local_addr()
    }

    /// Goes on with another socket: connections migrate to its address. Its clock must be the same.
    ///
    /// # Errors
    /// An I/O error when the socket does not work; the one before stays in use.
    pub fn rebind(&self, binding: Binding) -> io::Result<()> {
        self.driver.rebind(binding.socket)?;
        *self.renew.lock().unwrap_or_else(PoisonError::into_inner) = binding.renew;
        self.rebinds.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Goes on with another socket of the same kind, on another port.
    ///
    /// # Errors
    /// When none can be had; the one before stays in use. [`io::ErrorKind::Unsupported`] for a binding that is bound
    /// to a port of its user's choice, or cannot be renewed.
    pub fn renew(&self) -> io::Result<()> {
        let renew = self.renew.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let renew = renew.ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "this socket is bound to a port of its user's choice")
        })?;
        self.driver.rebind(renew()?)?;
        self.rebinds.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How often the socket was changed.
    pub fn rebinds(&self) -> u64 {
        self.rebinds.load(Ordering::Relaxed)
    }

    /// The endpoint's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Connections from now on see this certificate; present ones go on.
    ///
    /// # Errors
    /// When certificate and key cannot be used.
    pub fn set_identity(&self, identity: &Identity) -> io::Result<()> {
        let config = server_config(identity, &self.options(), &self.clock)?;
        self.driver.set_server_config(config.clone());
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(config);
        Ok(())
    }

    /// Connections from now on are watched over and recorded by these options; present ones go on.
    pub fn set_options(&self, options: Options) {
        *self.options.lock().unwrap_or_else(PoisonError::into_inner) = options;
    }

    fn options(&self) -> Options {
        self.options.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A name for a login that nobody else has, from the operating system's random numbers.
    ///
    /// # Errors
    /// When the operating system has none.
    pub fn new_login(&self) -> io::Result<LoginId> {
        let mut bytes = [0; 16];
        if let Some(seed) = self.seed {
            // Waits are drawn from logins, so that in a simulation they have to repeat, too.
            let mut context = digest::Context::new(&digest::SHA256);
            context.update(&seed);
            context.update(&self.logins.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            bytes.copy_from_slice(&context.finish().as_ref()[..16]);
            return Ok(LoginId(bytes));
        }
        let failed = |_| io::Error::other("the operating system gives no random numbers");
        SystemRandom::new().fill(&mut bytes).map_err(failed)?;
        Ok(LoginId(bytes))
    }

    /// Makes a connection to the relay at `address`, whose certificate must satisfy `trust` for `host`.
    ///
    /// # Errors
    /// [`ConnectError`]; it takes at most the idle timeout.
    pub async fn connect(
        &self,
        address: SocketAddr,
        host: &str,
        trust: Trust,
    ) -> Result<Session, ConnectError> {
        let Connected { session, early } = self.connect_early(address, host, trust).await?;
        if let Some(early) = early
            && !early.accepted().await
            && let Some(ended) = session.close_reason()
        {
            return Err(ConnectError { address, code: ended.code, text: ended.text });
        }
        Ok(session)
    }

    /// The same; but where this endpoint has spoken to the relay before, the connection is there at once, and the
    /// handshake goes on beside the first data.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn connect_early(
        &self,
        address: SocketAddr,
        host: &str,
        trust: Trust,
    ) -> Result<Connected, ConnectError> {
        let failed = |code: Code, text: String| ConnectError { address, code, text };
        let crypto = self
            .remembered
            .config(trust, self.options().key_log)
            .ok_or_else(|| failed(Code::Internal, "TLS cannot be set up".to_owned()))?;
        let mut config = quinn::ClientConfig::new(crypto);
        let window = WindowTarget::default();
        config.transport_config(Arc::new(self.transport("client", &window)));
        config.token_store(self.remembered.tokens.clone());
        let connection = self
            .driver
            .connect(config, address, host)
            .map_err(|error| failed(Code::ConnectFailed, error.to_string()))?;
        if connection.has_early_data() {
            let early = Some(Early(connection.clone()));
            return Ok(Connected { session: self.session(connection, window), early });
        }
        match connection.handshake().await {
            Ok(_) => Ok(Connected { session: self.session(connection, window), early: None }),
            Err(quinn::ConnectionError::TimedOut) => {
                Err(failed(Code::ConnectTimeout, Code::ConnectTimeout.text().to_owned()))
            }
            Err(error) => {
                let ended = Ended::from_quinn(error);
                Err(failed(ended.code, ended.text))
            }
        }
    }

    fn session(&self, connection: driver::Connection, window: WindowTarget) -> Session {
        let Options { ablation, frames_in_flight_max, .. } = self.options();
        Session::new(connection, self.clock.clone(), window, ablation, frames_in_flight_max)
    }

    /// The next connection that somebody tries to make; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<Incoming> {
        let incoming = self.driver.accept().await?;
        Some(Incoming { incoming, endpoint: self.clone() })
    }

    /// Ends every connection and takes no more.
    pub fn close(&self, code: Code, text: &str) {
        self.driver.close(VarInt::from_u32(code.number()), text.as_bytes());
    }

    /// Waits until every ended connection has told its peer, or given up on it.
    pub async fn wait_idle(&self) {
        self.driver.wait_idle().await;
    }

    fn transport(&self, side: &str, window: &WindowTarget) -> TransportConfig {
        let options = self.options();
        let mut transport = transport_config(&options, window);
        if let Some(directory) = &options.qlog {
            let number = self.connections.fetch_add(1, Ordering::Relaxed);
            match qlog_stream(directory, side, number, &self.clock) {
                Ok(stream) => _ = transport.qlog_stream(stream),
                Err(error) => {
                    tracing::warn!(directory = %directory.display(), %error, "cannot write qlog; is it a directory?");
                }
            }
        }
        transport
    }
}

/// A connection that somebody tries to make.
#[derive(Debug)]
pub struct Incoming {
    incoming: driver::Incoming,
    endpoint: Endpoint,
}

impl Incoming {
    /// Where it comes from.
    pub fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Whether the client has shown that it is where it says, by answering [`ask_for_proof`](Self::ask_for_proof).
    pub fn is_proven(&self) -> bool {
        self.incoming.remote_address_validated()
    }

    /// Says no, in one packet; the client sees [`Code::RelayBusy`].
    pub fn refuse(self) {
        self.incoming.refuse();
    }

    /// Forgets it without an answer.
    pub fn ignore(self) {
        self.incoming.ignore();
    }

    /// Asks the client to try again from where it says it is, in one packet (QUIC's Retry) of which nothing is kept.
    pub fn ask_for_proof(self) {
        self.incoming.retry();
    }

    /// Completes the handshake, or begins with what the peer sent before it was complete (0-RTT data).
    ///
    /// # Errors
    /// Why it did not come about.
    pub async fn accept(self) -> Result<Session, Ended> {
        let config = self.endpoint.server.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let window = WindowTarget::default();
        let is_proven = self.incoming.remote_address_validated();
        let accepted = match config {
            Some(mut config) => {
                config.transport_config(Arc::new(self.endpoint.transport("relay", &window)));
                self.incoming.accept(Some(Arc::new(config)))
            }
            None => self.incoming.accept(None),
        };
        let connection = accepted.map_err(Ended::from_quinn)?;
        let session = self.endpoint.session(connection.clone(), window);
        tokio::select! {
            biased;
            complete = connection.handshake() => {
                complete.map_err(|error| session.ended(error))?;
            }
            // Only who has a ticket has said anything by then; who has not proved the address may be anybody: the handshake does it.
            stream = connection.accept_bi(), if is_proven => {
                session.set_early(stream.map_err(|error| session.ended(error))?);
            }
        }
        Ok(session)
    }
}

fn server_config(identity: &Identity, options: &Options, clock: &Clock) -> io::Result<quinn::ServerConfig> {
    let crypto = identity.server_config(options.key_log).map_err(io::Error::other)?;
    let crypto = QuicServerConfig::try_from(crypto).map_err(io::Error::other)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport_config(options, &WindowTarget::default())))
        .time_source(Arc::new(Calendar(clock.clone())));
    Ok(config)
}

/// The date by which proofs of address are too old: it is compared with itself only, so that our clock will do.
struct Calendar(Clock);

impl quinn::TimeSource for Calendar {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.0.now().saturating_since(Timestamp::ZERO)
    }
}

/// Each connection has its own `window`, also after it moved to another path.
fn transport_config(options: &Options, window: &WindowTarget) -> TransportConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements
        .ack_eliciting_threshold(VarInt::from_u32(PACKETS_PER_ACK))
        .max_ack_delay(Some(ACK_DELAY_MAX));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(IdleTimeout::try_from(options.idle_timeout).ok())
        .keep_alive_interval(Some(options.keep_alive))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(QUIC_STREAMS_FIRST))
        .stream_receive_window(VarInt::from_u32(OBJECT_MAX as u32 + 64 * 1024))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .send_fairness(false)
        .datagram_send_buffer_size(DATAGRAM_QUEUE)
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE))
        .initial_rtt(RTT_INITIAL)
        .ack_frequency_config(Some(acknowledgements))
        // Media is sized for 1,200 bytes; discovery's false alarms on lossy paths would drop it.
        .mtu_discovery_config(None)
        .congestion_controller_factory(Arc::new(window.clone()));
    transport
}

fn qlog_stream(
    directory: &Path,
    side: &str,
    number: u64,
    clock: &Clock,
) -> io::Result<Option<quinn::QlogStream>> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!("{side}-{}-{number}.sqlog", std::process::id()));
    let mut config = quinn::QlogConfig::default();
    config
        .writer(Box::new(io::BufWriter::new(std::fs::File::create(path)?)))
        .title(Some(format!("parlor {side} connection {number}")))
        .start_time(clock.to_std(clock.now()));
    Ok(config.into_stream())
}
