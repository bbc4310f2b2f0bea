//! Clients who mean harm, on a thread of their own, at rates that are stated: a machine that is short of cores would
//! otherwise measure itself.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parlor_client::{AppId, RoomId, StreamId, UserId};
use parlor_transport::address::RelayAddress;
use parlor_transport::clock::Clock;
use parlor_transport::error::Code;
use parlor_transport::id::{LoginId, SessionId, StreamAlias, UserName};
use parlor_transport::quic::{
    Arrival, Binding, ConnectError, Endpoint, MessageReceiver, MessageSender, Options, Session,
};
use parlor_transport::repair::Shape;
use parlor_transport::token::Token;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::*;
use parlor_transport::wire::feedback::Feedback;
use parlor_transport::wire::hop::HopHeader;
use parlor_transport::wire::packet::{Packet, Part};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Attackers with a valid token.
pub const USERS: usize = 10;
/// Honest people who come to another room, see [`Kind::Joins`].
pub const CROWD: usize = 500;
/// How many of them come a second, until all are there and the first one comes again.
const JOINS_PER_SECOND: u32 = 100;
/// Addresses they come from: a relay takes fewer from one.
const JOIN_ADDRESSES: usize = 8;
/// Where they are, unless they are in the call.
const LAIR: &str = "lair";

/// The name of one of them.
pub fn user(number: usize) -> String {
    format!("raider-{number}")
}

/// What they do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Requests without end; 20 connections a second at most.
    Requests,
    /// Symbols for lanes that nobody opened: 12,000 datagrams a second.
    Datagrams,
    /// Reports of packets that were never sent: 12,000 a second.
    Reports,
    /// QUIC streams begun and broken off: 2,000 a second.
    QuicStreams,
    /// Frames begun and never finished: ten connections with as many as are permitted, 1 kB each.
    HalfFrames,
    /// Ten more in the call, who play everything and read nothing.
    SlowReaders,
    /// Handshakes begun and left, from 250 addresses: 500 a second.
    Handshakes,
    /// Forged tokens: 50 connections a second, each with as many as are looked at.
    ForgedTokens,
    /// Sessions of others with guessed secrets: 2,000 a second.
    GuessedSecrets,
    /// QUIC streams with bytes that mean nothing: 100 connections a second.
    Garbage,
    /// One who publishes 80 Mbit/s.
    LargeFrames,
    /// No harm is meant: a hundred people a second join another room, which holds 500.
    Joins,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 12] = [
        Kind::Requests,
        Kind::Datagrams,
        Kind::Reports,
        Kind::QuicStreams,
        Kind::HalfFrames,
        Kind::SlowReaders,
        Kind::Handshakes,
        Kind::ForgedTokens,
        Kind::GuessedSecrets,
        Kind::Garbage,
        Kind::LargeFrames,
        Kind::Joins,
    ];

    /// What it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Requests => "requests",
            Kind::Datagrams => "datagrams",
            Kind::Reports => "reports",
            Kind::QuicStreams => "quic-streams",
            Kind::HalfFrames => "half-frames",
            Kind::SlowReaders => "slow-readers",
            Kind::Handshakes => "handshakes",
            Kind::ForgedTokens => "forged-tokens",
            Kind::GuessedSecrets => "guessed-secrets",
            Kind::Garbage => "garbage",
            Kind::LargeFrames => "large-frames",
            Kind::Joins => "joins",
        }
    }

    /// What is done how often.
    pub fn rate(self) -> &'static str {
        match self {
            Kind::Requests => "20 connections/s",
            Kind::Datagrams | Kind::Reports => "12,000 datagrams/s",
            Kind::QuicStreams => "2,000 QUIC streams/s",
            Kind::HalfFrames => "10 connections, all they may begin",
            Kind::SlowReaders => "10 in the call",
            Kind::Handshakes => "500/s",
            Kind::ForgedTokens => "50 connections/s, 12 tokens each",
            Kind::GuessedSecrets => "2,000/s",
            Kind::Garbage => "100 connections/s",
            Kind::LargeFrames => "80 Mbit/s",
            Kind::Joins => "100 joins/s",
        }
    }

    /// How much later the 99th percentile of the call's frames may come.
    pub fn rise_max(self) -> Duration {
        Duration::from_millis(if self == Kind::Joins { 5 } else { 10 })
    }
}

/// Whom it is against.
#[derive(Clone, Debug)]
pub struct Target {
    /// The relay and the room of the call.
    pub address: RelayAddress,
    /// One for each of [`USERS`], and of [`CROWD`].
    pub tokens: Vec<Token>,
    /// The streams of the call.
    pub streams: Vec<String>,
    /// Signed with a key that the relay does not have.
    pub forged: Token,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Spoils {
    /// What was tried: in the unit of [`Kind::rate`].
    pub attempts: u64,
    /// How connections ended, by code.
    pub ended: BTreeMap<Code, u64>,
}

/// An attack that goes on until it is stopped.
pub struct Raid {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Spoils>,
}

impl Raid {
    /// Begins it.
    ///
    /// # Errors
    /// When there is no thread for it, or the relay's address is a name.
    pub fn start(kind: Kind, target: Target) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let ip: IpAddr = target.address.host.parse().map_err(io::Error::other)?;
        let relay = SocketAddr::new(ip, target.address.port);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("raid".to_owned()).spawn(move || {
            runtime.block_on(async {
                let raider =
                    Arc::new(Raider { relay, target, clock: Clock::system(), tally: Tally::default() });
                let mut tasks = JoinSet::new();
                spawn(kind, &raider, &mut tasks);
                _ = stopped.await;
                tasks.shutdown().await;
                raider.tally.spoils()
            })
        })?;
        Ok(Raid { stop, thread })
    }

    /// Ends it.
    pub fn stop(self) -> Spoils {
        _ = self.stop.send(());
        self.thread.join().unwrap_or_default()
    }
}

#[derive(Default)]
struct Tally {
    attempts: AtomicU64,
    ended: Mutex<BTreeMap<Code, u64>>,
}

impl Tally {
    fn attempt(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self, code: Code) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    fn spoils(&self) -> Spoils {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Spoils { attempts: self.attempts.load(Ordering::Relaxed), ended }
    }
}

struct Raider {
    relay: SocketAddr,
    target: Target,
    clock: Clock,
    tally: Tally,
}

/// A connection that has joined.
struct Inside {
    session: Session,
    requests: MessageSender,
    answers: MessageReceiver,
    _endpoint: Endpoint,
}

impl Raider {
    fn endpoint(&self, ip: Ipv4Addr) -> Option<Endpoint> {
        Endpoint::client(Binding::udp((ip, 0).into()).ok()?, Options::default()).ok()
    }

    async fn connect(&self) -> Option<(Endpoint, Session)> {
        self.connect_by(self.endpoint(Ipv4Addr::LOCALHOST)?).await
    }

    async fn connect_by(&self, endpoint: Endpoint) -> Option<(Endpoint, Session)> {
        match endpoint.connect(self.relay, "relay", self.target.address.trust()).await {
            Ok(session) => Some((endpoint, session)),
            Err(ConnectError { code, .. }) => {
                self.tally.end(code);
                None
            }
        }
    }

    fn join(&self, number: usize, room: &RoomId, token: &Token) -> Option<ClientMessage> {
        Some(ClientMessage::Join(Join {
            request: 1,
            app: AppId::dev(),
            room: room.clone(),
            user: UserId::new(user(number)).ok()?,
            name: UserName::new("").ok()?,
            login: LoginId(u128::from(self.clock.now().as_micros()).to_be_bytes()),
            token: Some(token.clone()),
            presence: Presence::default(),
        }))
    }

    async fn enter(&self, number: usize, room: &RoomId) -> Option<Inside> {
        let connected = self.connect().await?;
        self.enter_by(connected, number, room).await
    }

    async fn enter_by(
        &self,
        (endpoint, session): (Endpoint, Session),
        number: usize,
        room: &RoomId,
    ) -> Option<Inside> {
        let (mut requests, answers) = session.open_requests().await.ok()?;
        requests.send(&hello()).await.ok()?;
        requests.send(&self.join(number, room, &self.target.tokens[number])?).await.ok()?;
        Some(Inside { session, requests, answers, _endpoint: endpoint })
    }

    /// The same, with a stream published whose frames travel on QUIC streams, which are permitted from then on.
    async fn enter_and_publish(&self, number: usize) -> Option<(Inside, StreamAlias)> {
        let mut inside = self.enter(number, &lair()).await?;
        let stream = StreamId::new(format!("much-{number}")).ok()?;
        let (kind, codec) = (TrackKind::Video, String::new());
        let tracks = vec![TrackInfo { kind, codec, spatial_layers: 1, temporal_layers: 1 }];
        let publish = Publish { request: 2, stream, tracks, delivery: Delivery::QuicStream };
        inside.requests.send(&ClientMessage::Publish(publish)).await.ok()?;
        loop {
            if let RelayMessage::Published(published) = inside.answers.recv().await.ok()?? {
                return Some((inside, published.alias));
            }
        }
    }

    /// So often a second, without catching up on what it was too late for.
    async fn pace(&self, next: &mut Timestamp, per_second: u32) {
        *next = (*next + Duration::from_secs(1) / per_second).max(self.clock.now());
        self.clock.sleep_until(*next).await;
    }
}

fn hello() -> ClientMessage {
    ClientMessage::Hello(Hello {
        version_min: VERSION_MIN,
        version_max: VERSION,
        features: 0,
        agent: String::new(),
    })
}

fn lair() -> RoomId {
    RoomId::new(LAIR).unwrap_or_else(|_| unreachable!("a room id of letters"))
}

fn spawn(kind: Kind, raider: &Arc<Raider>, tasks: &mut JoinSet<()>) {
    match kind {
        Kind::Requests => _ = tasks.spawn(flood_requests(raider.clone())),
        Kind::Datagrams => {
            let hop = HopHeader { lane: 77, track: 0, sequence: 0 };
            let shape = Shape::new(10).unwrap_or_else(|_| unreachable!("ten bytes have a shape"));
            let part = Part::Source { hop, shape, index: 0, bytes: vec![1; 10].into() };
            let packet = Packet { tx_seq: 0, burst: 0, is_calm: false, parts: vec![part] }.encode();
            tasks.spawn(flood_datagrams(raider.clone(), packet));
        }
        Kind::Reports => {
            let report = Feedback::new(1_000_000, Timestamp::ZERO, Duration::ZERO).encode();
            tasks.spawn(flood_datagrams(raider.clone(), report));
        }
        Kind::QuicStreams => _ = tasks.spawn(flood_streams(raider.clone())),
        Kind::HalfFrames => {
            for number in 0..USERS {
                tasks.spawn(begin_frames(raider.clone(), number));
            }
        }
        Kind::SlowReaders => {
            for number in 0..USERS {
                tasks.spawn(play_and_not_read(raider.clone(), number));
            }
        }
        Kind::Handshakes => _ = tasks.spawn(begin_handshakes(raider.clone())),
        Kind::ForgedTokens => _ = tasks.spawn(show_forged(raider.clone())),
        Kind::GuessedSecrets => _ = tasks.spawn(guess(raider.clone())),
        Kind::Garbage => _ = tasks.spawn(send_garbage(raider.clone())),
        Kind::LargeFrames => _ = tasks.spawn(publish_much(raider.clone())),
        Kind::Joins => _ = tasks.spawn(come_and_go(raider.clone())),
    }
}

async fn flood_requests(raider: Arc<Raider>) {
    let mut next = raider.clock.now();
    loop {
        raider.pace(&mut next, 20).await;
        raider.tally.attempt();
        let Some(mut inside) = raider.enter(0, &lair()).await else { continue };
        let probe = ClientMessage::ProbeClock(ProbeClock { sent: Timestamp::ZERO });
        // Nothing here waits as long as there is room, and our own endpoint has to have its turn.
        for number in 1u64.. {
            if inside.requests.send(&probe).await.is_err() {
                break;
            }
            if number % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        raider.tally.end(inside.session.closed().await.code);
    }
}

/// In tens, because timers tick in milliseconds.
async fn flood_datagrams(raider: Arc<Raider>, datagram: Bytes) {
    let mut next = raider.clock.now();
    loop {
        raider.pace(&mut next, 10).await;
        let Some(inside) = raider.enter(0, &lair()).await else { continue };
        next = raider.clock.now();
        let ended = loop {
            raider.pace(&mut next, 1200).await;
            for _ in 0..10 {
                raider.tally.attempt();
                _ = inside.session.send_raw_datagram(datagram.clone());
            }
            if let Err(ended) = inside.session.send_raw_datagram(datagram.clone()) {
                break ended;
            }
        };
        raider.tally.end(ended.code);
    }
}

async fn flood_streams(raider: Arc<Raider>) {
    let mut next = raider.clock.now();
    loop {
        raider.pace(&mut next, 10).await;
        let Some((inside, _)) = raider.enter_and_publish(0).await else { continue };
        next = raider.clock.now();
        let ended = 'flood: loop {
            raider.pace(&mut next, 500).await;
            for _ in 0..4 {
                raider.tally.attempt();
                match inside.session.hold_raw_stream(Bytes::from_static(&[StreamKind::Frame as u8])).await {
                    Ok(stream) => drop(stream),
                    Err(ended) => break 'flood ended,
                }
            }
        };
        raider.tally.end(ended.code);
    }
}

async fn begin_frames(raider: Arc<Raider>, number: usize) {
    let begun = Bytes::from([&[StreamKind::Frame as u8, 2, 0, 0][..], &[7; 1000]].concat());
    let mut next = raider.clock.now();
    loop {
        raider.pace(&mut next, 1).await;
        let Some((inside, _)) = raider.enter_and_publish(number).await else { continue };
        let mut held = std::collections::VecDeque::new();
        let ended = loop {
            raider.tally.attempt();
            match inside.session.hold_raw_stream(begun.clone()).await {
                Ok(stream) => held.push_back(stream),
                Err(ended) => break ended,
            }
            // What the relay gave up is of no use any more.
            if held.len() > 600 {
                held.pop_front();
            }
        };
        raider.tally.end(ended.code);
    }
}

async fn play_and_not_read(raider: Arc<Raider>, number: usize) {
    let mut next = raider.clock.now();
    loop {
        raider.pace(&mut next, 1).await;
        raider.tally.attempt();
        let Some(room) = &raider.target.address.room else { return };
        let Some(mut inside) = raider.enter(number, room).await else { continue };
        for (request, stream) in (2..).zip(raider.target.streams.clone()) {
            let Ok(stream) = StreamId::new(stream) else { return };
            let play = Play { request, stream, wishes: vec![] };
            _ = inside.requests.send(&ClientMessage::Play(play)).await;
        }
        raider.tally.end(inside.session.closed().await.code);
    }
}

async fn begin_handshakes(raider: Arc<Raider>) {
    // Each from an address of its own; all of them are this machine's.
    let endpoints: Vec<_> =
        (0..250).filter_map(|n| raider.endpoint(Ipv4Addr::new(127, 1, 0, n + 1))).collect();
    let mut next = raider.clock.now();
    let mut attempts = JoinSet::new();
    for endpoint in endpoints.iter().cycle() {
        raider.pace(&mut next, 500).await;
        while attempts.try_join_next().is_some() {}
        let (raider, endpoint) = (raider.clone(), endpoint.clone());
        attempts.spawn(async move {
            raider.tally.attempt();
            let opening = endpoint.connect(raider.relay, "relay", raider.target.address.trust());
            // Long enough for the first packet to leave, too short for an answer to matter.
            if let Ok(Err(error)) = raider.clock.timeout(Duration::from_micros(200), opening).await {
                raider.tally.end(error.code);
            }
        });
    }
}

async fn show_forged(raider: Arc<Raider>) {
    let mut next = raider.clock.now();
    let mut attempts = JoinSet::new();
    loop {
        raider.pace(&mut next, 50).await;
        while attempts.try_join_next().is_some() {}
        let raider = raider.clone();
        attempts.spawn(async move {
            raider.tally.attempt();
            let Some((_endpoint, session)) = raider.connect().await else { return };
            let Ok((mut requests, _answers)) = session.open_requests().await else { return };
            _ = requests.send(&hello()).await;
            let Some(join) = raider.join(0, &lair(), &raider.target.forged) else { return };
            while requests.send(&join).await.is_ok() {
                raider.clock.sleep(Duration::from_millis(1)).await;
            }
            raider.tally.end(session.closed().await.code);
        });
    }
}

async fn guess(raider: Arc<Raider>) {
    let mut next = raider.clock.now();
    loop {
        raider.pace(&mut next, 10).await;
        let Some((_endpoint, session)) = raider.connect().await else { continue };
        let Ok((mut requests, mut answers)) = session.open_requests().await else { continue };
        _ = requests.send(&hello()).await;
        for number in 1u64.. {
            raider.pace(&mut next, 2000).await;
            raider.tally.attempt();
            let secret = ResumeSecret(u128::from(number).to_be_bytes());
            let (session, attempt) = (SessionId(1 + number % 3), LoginId([7; 16]));
            let resume = Resume { request: 0, session, secret, attempt, known: None };
            if requests.send(&ClientMessage::Resume(resume)).await.is_err() {
                break;
            }
            if !matches!(answers.recv::<RelayMessage>().await, Ok(Some(_))) {
                break;
            }
        }
        raider.tally.end(session.closed().await.code);
    }
}

async fn send_garbage(raider: Arc<Raider>) {
    let mut next = raider.clock.now();
    let mut attempts = JoinSet::new();
    for number in 0u32.. {
        raider.pace(&mut next, 100).await;
        while attempts.try_join_next().is_some() {}
        let raider = raider.clone();
        attempts.spawn(async move {
            raider.tally.attempt();
            let Some((_endpoint, session)) = raider.connect().await else { return };
            // Any bytes will do that are not a message: a multiplicative hash of their place.
            let mut bytes: Vec<u8> =
                (0..1000u32).map(|at| ((at ^ number).wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
            bytes[0] = 1 + (number % 5) as u8;
            _ = session.send_raw_stream(number % 5 == 0, bytes.into()).await;
            raider.tally.end(session.closed().await.code);
        });
    }
}

/// People with names of their own, who read what they are told of the room. Who comes again leaves first.
async fn come_and_go(raider: Arc<Raider>) {
    let addresses =
        (0..JOIN_ADDRESSES).filter_map(|number| raider.endpoint(Ipv4Addr::new(127, 0, 3, number as u8 + 1)));
    let endpoints: Vec<_> = addresses.collect();
    let Ok(hall) = RoomId::new("hall") else { return };
    let mut here: std::collections::VecDeque<tokio::task::AbortHandle> = std::collections::VecDeque::new();
    let mut stays = JoinSet::new();
    let mut next = raider.clock.now();
    for (number, endpoint) in (0..CROWD).cycle().zip(endpoints.iter().cycle()) {
        raider.pace(&mut next, JOINS_PER_SECOND).await;
        if here.len() == CROWD
            && let Some(first) = here.pop_front()
        {
            first.abort();
        }
        raider.tally.attempt();
        let (raider, endpoint, hall) = (raider.clone(), endpoint.clone(), hall.clone());
        here.push_back(stays.spawn(async move {
            let Some(connected) = raider.connect_by(endpoint).await else { return };
            let Some(inside) = raider.enter_by(connected, number, &hall).await else { return };
            let (mut inbound, _lanes) = inside.session.inbound();
            let mut events = JoinSet::new();
            while let Ok(arrival) = inbound.next().await {
                if let Arrival::Events(mut receiver) = arrival {
                    events.spawn(
                        async move { while let Ok(Some(_)) = receiver.recv::<RelayMessage>().await {} },
                    );
                }
            }
        }));
        while stays.try_join_next().is_some() {}
    }
}

async fn publish_much(raider: Arc<Raider>) {
    let mut next = raider.clock.now();
    loop {
        raider.pace(&mut next, 1).await;
        let Some((inside, alias)) = raider.enter_and_publish(0).await else { continue };
        let Inside { session, requests: _requests, mut answers, _endpoint } = inside;
        next = raider.clock.now();
        for sequence in 0u32.. {
            // 100 kB, a hundred times a second.
            raider.pace(&mut next, 100).await;
            raider.tally.attempt();
            if session.send_raw_stream(false, frame(alias, sequence)).await.is_err() {
                break;
            }
            let ended = raider.clock.timeout(Duration::ZERO, answers.recv::<RelayMessage>()).await;
            if let Ok(Ok(Some(RelayMessage::Refused(refused)))) = ended {
                raider.tally.end(refused.refusal.code);
                session.close(Code::Ok, "");
                break;
            }
        }
    }
}

/// A frame of 100 kB as it stands on a QUIC stream.
fn frame(alias: StreamAlias, sequence: u32) -> Bytes {
    let header = parlor_transport::wire::frame::FrameHeader {
        alias,
        track: 0,
        spatial: 0,
        temporal: 0,
        number: sequence.into(),
        captured: Timestamp::ZERO,
        keyframe: true,
        discardable: false,
        level: None,
        metadata: Bytes::new(),
    };
    let mut bytes = bytes::BytesMut::from(&[StreamKind::Frame as u8][..]);
    HopHeader { lane: 2, track: 0, sequence: sequence.into() }.encode(&mut bytes);
    match parlor_transport::wire::frame::Frame::new(header, &vec![7; 100_000]) {
        Ok(frame) => bytes.extend_from_slice(frame.object()),
        Err(_) => unreachable!("100 kB are less than a frame may have"),
    }
    bytes.freeze()
}
