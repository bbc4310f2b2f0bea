//! A simulated relay and raw clients: they speak the protocol message by message, and may break it.
//!
//! Times of the simulation: a client is 25 ms away from the relay, each way, unless its profile says otherwise.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use parlor_relay::server::RoomSnapshot;
use parlor_relay::{Config, Relay, RelayHandle};
use parlor_transport::error::Code;
use parlor_transport::hop::Received;
use parlor_transport::id::{AppId, LoginId, RoomId, StreamAlias, StreamId, UserId, UserName};
use parlor_transport::quic::inbound::Lanes;
use parlor_transport::quic::{
    Arrival, ConnectError, Ended, Endpoint, MessageReceiver, MessageSender, Options, Outgoing, Session, Trust,
};
use parlor_transport::sim::{Profile, Sim};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::*;
use parlor_transport::wire::frame::{Frame, FrameHeader};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

/// Round-trip time between a client and the relay.
pub const RTT: Duration = Duration::from_millis(50);

/// A relay in a simulation.
pub struct World {
    pub sim: Sim,
    pub relay: RelayHandle,
    pub address: SocketAddr,
    pub trust: Trust,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl World {
    pub async fn start(sim: &Sim) -> Self {
        Self::start_with(sim, Config::dev()).await
    }

    pub async fn start_with(sim: &Sim, config: Config) -> Self {
        Self::start_from(sim, config.clone(), Arc::new(Mutex::new(Ok(config)))).await
    }

    /// With the configuration that it finds when it reads it again.
    pub async fn start_from(sim: &Sim, config: Config, next: Arc<Mutex<Result<Config, String>>>) -> Self {
        let host = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
        let relay = Relay::bind_on(config, host.binding(4433).unwrap()).await.unwrap();
        relay.on_reload(move || next.lock().unwrap().clone());
        let trust = relay.address(None).trust();
        let handle = relay.handle();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(relay.run(async { _ = stopped.await }));
        World {
            sim: sim.clone(),
            relay: handle,
            address: (host.ip(), 4433).into(),
            trust,
            stop: Some(stop),
            running,
        }
    }

    pub fn now(&self) -> Timestamp {
        self.sim.clock().now()
    }

    /// Lets `duration` pass.
    pub async fn pass(&self, duration: Duration) {
        self.sim.clock().sleep(duration).await;
    }

    pub fn room(&self, room: &str) -> Option<RoomSnapshot> {
        self.relay.room(&AppId::dev(), &RoomId::new(room).unwrap())
    }

    /// A connection that has said nothing yet.
    pub async fn connect(&self, name: &str, profile: Profile) -> Client {
        self.try_connect(name, profile, self.trust).await.unwrap()
    }

    pub async fn try_connect(
        &self,
        name: &str,
        profile: Profile,
        trust: Trust,
    ) -> Result<Client, ConnectError> {
        let (endpoint, session) = self.open(name, profile, trust).await?;
        Ok(Client::new(name, endpoint, session).await)
    }

    /// A connection without any QUIC stream.
    pub async fn open(
        &self,
        name: &str,
        profile: Profile,
        trust: Trust,
    ) -> Result<(Endpoint, Session), ConnectError> {
        let host = self.sim.host(name, profile);
        let endpoint = Endpoint::client(host.binding(0).unwrap(), Options::default()).unwrap();
        let session = endpoint.connect(self.address, "relay", trust).await?;
        Ok((endpoint, session))
    }

    /// A user in a room; its host has the user's name.
    pub async fn enter(&self, room: &str, user: &str) -> Client {
        self.enter_with(room, user, Profile::perfect().with_rtt(RTT)).await
    }

    pub async fn enter_with(&self, room: &str, user: &str, profile: Profile) -> Client {
        let mut client = self.connect(user, profile).await;
        client.send(hello()).await;
        client.send(join(room, user)).await;
        assert!(matches!(client.answer().await, RelayMessage::Welcome(_)));
        assert!(matches!(client.answer().await, RelayMessage::Joined(_)));
        client
    }

    /// Asks the relay to shut down and waits until it has.
    pub async fn shut_down(&mut self) {
        drop(self.stop.take());
        (&mut self.running).await.unwrap();
    }

    /// Asserts that the relay holds nothing of anyone, once the last connection's end has got through.
    pub async fn assert_empty(&self) {
        self.pass(Duration::from_millis(200)).await;
        assert_eq!(self.relay.survey(), Default::default());
    }
}

/// One connection to the relay. What comes is sorted into answers, events and frames.
pub struct Client {
    pub session: Session,
    pub requests: MessageSender,
    pub answers: UnboundedReceiver<RelayMessage>,
    pub events: UnboundedReceiver<RoomMessage>,
    pub frames: UnboundedReceiver<Received>,
    /// What others said.
    pub said: UnboundedReceiver<AppMessage>,
    /// Set before anybody says anything: it does not read what others say.
    pub deaf: Arc<AtomicBool>,
    /// The QUIC stream on which this client says something, once it has.
    pub saying: Option<MessageSender>,
    pub lanes: Lanes,
    outgoing: UnboundedSender<Outgoing>,
    user: String,
    request: u32,
    reading: AbortHandle,
    _endpoint: Endpoint,
    _tasks: JoinSet<()>,
}

impl Client {
    async fn new(user: &str, endpoint: Endpoint, session: Session) -> Self {
        let (requests, receiver) = session.open_requests().await.unwrap();
        let (answers_in, answers) = unbounded_channel();
        let (events_in, events) = unbounded_channel();
        let (frames_in, frames) = unbounded_channel();
        let (said_in, said) = unbounded_channel();
        let deaf = Arc::<AtomicBool>::default();
        let is_deaf = deaf.clone();
        let (outgoing, outgoing_out) = unbounded_channel();
        let (mut inbound, lanes) = session.inbound();
        let mut tasks = JoinSet::new();
        let reading = tasks.spawn(forward(receiver, answers_in));
        tasks.spawn(send_frames(session.clone(), outgoing_out));
        tasks.spawn(async move {
            let (mut readers, mut unread) = (JoinSet::new(), Vec::new());
            while let Ok(arrival) = inbound.next().await {
                match arrival {
                    Arrival::Events(receiver) => _ = readers.spawn(forward(receiver, events_in.clone())),
                    // It stays open, and nobody reads it.
                    Arrival::AppMessages(receiver) if is_deaf.load(Ordering::Relaxed) => {
                        unread.push(receiver)
                    }
                    Arrival::AppMessages(receiver) => {
                        _ = readers.spawn(forward(receiver, said_in.clone()));
                    }
                    Arrival::Frame(received) => _ = frames_in.send(received),
                    other => panic!("the relay opens no such stream: {other:?}"),
                }
            }
        });
        Client {
            session,
            requests,
            answers,
            events,
            frames,
            said,
            deaf,
            saying: None,
            lanes,
            outgoing,
            user: user.to_owned(),
            request: 1,
            reading,
            _endpoint: endpoint,
            _tasks: tasks,
        }
    }

    pub async fn send(&mut self, message: ClientMessage) {
        self.requests.send(&message).await.unwrap();
    }

    /// The next answer; clock replies and the like included.
    pub async fn answer(&mut self) -> RelayMessage {
        self.answers.recv().await.unwrap_or_else(|| panic!("{} got no answer", self.user))
    }

    /// The next answer, which has to be a refusal.
    pub async fn refusal(&mut self) -> (Code, String) {
        match self.answer().await {
            RelayMessage::Refused(refused) => (refused.refusal.code, refused.refusal.text),
            other => panic!("{} got {other:?} instead of a refusal", self.user),
        }
    }

    /// Says something to everyone, or to `to`.
    pub async fn say(&mut self, to: &[&str], lossy: bool, payload: Bytes) -> u32 {
        let request = self.next_request();
        let to = to.iter().map(|user| UserId::new(user).unwrap()).collect();
        let saying = match &mut self.saying {
            Some(saying) => saying,
            None => self.saying.insert(self.session.open_messages(StreamKind::AppMessages).await.unwrap()),
        };
        saying.send(&AppMessage::Say(Say { request, to, lossy, payload })).await.unwrap();
        request
    }

    fn next_request(&mut self) -> u32 {
        self.request += 1;
        self.request
    }

    /// Asks to publish; gives the lane. The answer is not waited for.
    pub async fn ask_publish(&mut self, stream: &str, delivery: Delivery, tracks: &[TrackKind]) -> u32 {
        let request = self.next_request();
        let track = |&kind| TrackInfo { kind, codec: String::new(), spatial_layers: 1, temporal_layers: 1 };
        let tracks = tracks.iter().map(track).collect();
        let stream = StreamId::new(stream).unwrap();
        self.send(ClientMessage::Publish(Publish { request, stream, tracks, delivery })).await;
        request
    }

    /// Publishes a stream.
    pub async fn publish(&mut self, stream: &str, delivery: Delivery, tracks: &[TrackKind]) -> Publisher {
        let lane = self.ask_publish(stream, delivery, tracks).await;
        match self.answer().await {
            RelayMessage::Published(published) if published.request == lane => Publisher {
                lane,
                alias: published.alias,
                delivery,
                numbers: [0; 8],
                outgoing: self.outgoing.clone(),
                kinds: tracks.to_vec(),
            },
            other => panic!("{} got {other:?} instead of Published", self.user),
        }
    }

    /// Asks to play; gives the lane. The answer is not waited for.
    pub async fn play(&mut self, stream: &str, delivery: Delivery) -> u32 {
        let request = self.next_request();
        self.lanes.open(request, delivery);
        let stream = StreamId::new(stream).unwrap();
        self.send(ClientMessage::Play(Play { request, stream, wishes: vec![] })).await;
        request
    }

    pub async fn unpublish(&mut self, stream: &str) {
        let request = self.next_request();
        let stream = StreamId::new(stream).unwrap();
        self.send(ClientMessage::Unpublish(Unpublish { request, stream })).await;
    }

    pub async fn frame(&mut self) -> Received {
        self.frames.recv().await.unwrap_or_else(|| panic!("{} got no frame", self.user))
    }

    /// The next event in short, pages included.
    pub async fn event(&mut self) -> String {
        match self.events.recv().await.unwrap_or_else(|| panic!("{} got no event", self.user)) {
            RoomMessage::Page(page) => {
                let users: Vec<_> = page.users.iter().map(|user| user.user.as_str()).collect();
                let streams: Vec<_> = page.streams.iter().map(|stream| stream.stream.as_str()).collect();
                format!("page [{}] [{}]", users.join(" "), streams.join(" "))
            }
            RoomMessage::UserJoined(event) => format!("+{}", event.user.user),
            RoomMessage::UserLeft(event) => format!("-{} {:?}", event.user, event.reason),
            RoomMessage::StreamAdded(event) => format!("+{}/{}", event.stream.user, event.stream.stream),
            RoomMessage::StreamRemoved(event) => format!("-/{} {:?}", event.stream, event.reason),
            RoomMessage::TrackStateChanged(event) => {
                format!("{}/{} {:?}", event.status.stream, event.status.track, event.status.state)
            }
            RoomMessage::StreamInfoChanged(event) => format!("{}={}", event.extra.stream, event.extra.info),
            RoomMessage::RoomInfoChanged(event) => format!("{}={}", event.extra.key, event.extra.value),
            RoomMessage::Count(count) => format!("# {}", count.users),
            RoomMessage::Unknown(stamp) => format!("? {}", stamp.position),
        }
    }

    pub async fn ended(&self) -> Ended {
        self.session.closed().await
    }

    /// Gives up the QUIC stream on which answers come.
    pub fn stop_reading(&self) {
        self.reading.abort();
    }

    /// Closes without a word on the control stream.
    pub fn hang_up(self) {
        self.session.close(Code::Ok, "");
    }
}

/// Sends frames of one stream.
pub struct Publisher {
    pub lane: u32,
    pub alias: StreamAlias,
    pub delivery: Delivery,
    pub numbers: [u64; 8],
    outgoing: UnboundedSender<Outgoing>,
    kinds: Vec<TrackKind>,
}

impl Publisher {
    pub fn header(&self, track: u8, keyframe: bool) -> FrameHeader {
        FrameHeader {
            alias: self.alias,
            track,
            spatial: 0,
            temporal: 0,
            number: self.numbers[usize::from(track)],
            captured: Timestamp::ZERO,
            keyframe,
            discardable: false,
            level: None,
            metadata: Bytes::new(),
        }
    }

    /// Sends the next frame of `track`.
    pub fn send(&mut self, track: u8, keyframe: bool, size: usize) {
        let header = self.header(track, keyframe);
        self.send_as(header, size);
    }

    /// Sends a frame that says whatever `header` says.
    pub fn send_as(&mut self, header: FrameHeader, size: usize) {
        self.send_frame(Frame::new(header, &vec![7; size]).unwrap());
    }

    /// Sends a frame as it is.
    pub fn send_frame(&mut self, frame: Frame) {
        let header = frame.header();
        let track = usize::from(header.track);
        self.numbers[track] = header.number + 1;
        let urgent = self.kinds.get(track) == Some(&TrackKind::Audio);
        self.outgoing
            .send(Outgoing {
                lane: self.lane,
                delivery: self.delivery,
                urgent,
                sequence: None,
                frame: frame.into(),
            })
            .unwrap();
    }
}

pub fn hello() -> ClientMessage {
    ClientMessage::Hello(Hello {
        version_min: VERSION_MIN,
        version_max: VERSION,
        features: 0,
        agent: "relay tests".into(),
    })
}

/// Every join is a login of its own.
fn new_login() -> LoginId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    LoginId(u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes())
}

pub fn join(room: &str, user: &str) -> ClientMessage {
    ClientMessage::Join(Join {
        request: 1,
        app: AppId::dev(),
        room: RoomId::new(room).unwrap(),
        user: UserId::new(user).unwrap(),
        name: UserName::new("").unwrap(),
        login: new_login(),
        token: None,
        presence: Presence::default(),
    })
}

pub fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn forward<M: Message>(mut receiver: MessageReceiver, to: UnboundedSender<M>) {
    while let Ok(Some(message)) = receiver.recv::<M>().await {
        _ = to.send(message);
    }
}

async fn send_frames(session: Session, mut outgoing: UnboundedReceiver<Outgoing>) {
    let mut media = session.media_sender();
    loop {
        tokio::select! {
            biased;
            () = media.progress() => {}
            Some(frame) = outgoing.recv() => {
                media.send(frame);
                media.flush();
            }
        }
    }
}
