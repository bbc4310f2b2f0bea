//! One user of the load: a real session on the transport, without the client's engine around it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use parlor_client::room::mirror::Mirror;
use parlor_transport::clock::Clock;
use parlor_transport::error::Code;
use parlor_transport::id::{AppId, RoomId, StreamId, UserId, UserName};
use parlor_transport::quic::{Arrival, Endpoint, MessageReceiver, MessageSender, Session, Trust};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::*;
use tokio::sync::Notify;

use super::heard::Heard;
use super::seen::{News, Seen};
use super::tally::{Histogram, Times};

/// What all users of a load share.
pub(super) struct Stage {
    pub(super) clock: Clock,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) relay: SocketAddr,
    pub(super) trust: Trust,
    pub(super) room: RoomId,
    pub(super) presence: Presence,
    /// When who joined, and left.
    pub(super) came: Times,
    pub(super) went: Times,
    /// Delays of what happens now: while people join, then while they come and go.
    pub(super) delays: [Histogram; 2],
    pub(super) phase: AtomicUsize,
    /// How long it took from the beginning of a connection to the relay's yes.
    pub(super) joining: Histogram,
    pub(super) joined: AtomicU64,
    pub(super) failed: Mutex<Vec<String>>,
    /// UDP payload bytes that ended connections were sent.
    pub(super) bytes: AtomicU64,
}

/// A user as the load sees them.
pub(super) struct Member {
    pub(super) number: usize,
    pub(super) seen: Mutex<Seen>,
    /// Whether they publish a stream.
    pub(super) publishes: bool,
    /// Asks them to leave.
    pub(super) leave: Notify,
    pub(super) session: Mutex<Option<Session>>,
}

impl Member {
    /// A user who is about to join; `mirrors` lets them keep the client's own mirror as well.
    pub(super) fn new(number: usize, mirrors: bool, publishes: bool) -> Arc<Self> {
        let seen = Seen::new(mirrors.then(Mirror::default));
        Arc::new(Member {
            number,
            seen: Mutex::new(seen),
            publishes,
            leave: Notify::new(),
            session: Mutex::default(),
        })
    }

    pub(super) fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// UDP payload bytes that came so far; `None` without a connection.
    pub(super) fn bytes_received(&self) -> Option<u64> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.as_ref().map(|session| session.traffic().bytes_received)
    }
}

/// The name of a user; their number is found in it.
fn user_id(number: usize) -> UserId {
    UserId::new(format!("u{number}")).expect("a short id")
}

fn number_of(user: &UserId) -> Option<usize> {
    user.as_str().strip_prefix('u')?.parse().ok()
}

/// Joins, publishes a stream if asked to, and stays until told to leave or the connection ends.
pub(super) async fn live(stage: Arc<Stage>, member: Arc<Member>) {
    if let Err(why) = stay(&stage, &member).await {
        let mut failed = stage.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.push(format!("u{}: {why}", member.number));
    }
    let session = member.session.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(session) = session {
        stage.bytes.fetch_add(session.traffic().bytes_received, Ordering::Relaxed);
        session.close(Code::Ok, "");
    }
}

async fn stay(stage: &Stage, member: &Member) -> Result<(), String> {
    let number = member.number;
    let endpoint = &stage.endpoints[number % stage.endpoints.len()];
    // One clock for all: those of endpoints have origins of their own.
    let clock = &stage.clock;
    let begun = clock.now();
    // A host name of their own, so that nobody goes on with another user's TLS session.
    let host = format!("u{number}.invalid");
    let session = endpoint.connect(stage.relay, &host, stage.trust).await.map_err(|e| e.to_string())?;
    *member.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
    let (mut requests, mut answers) = session.open_requests().await.map_err(|e| e.to_string())?;
    let (mut inbound, _lanes) = session.inbound();
    let hello =
        Hello { version_min: VERSION_MIN, version_max: VERSION, features: 0, agent: "parlor-bench".into() };
    let join = Join {
        request: 1,
        app: AppId::dev(),
        room: stage.room.clone(),
        user: user_id(number),
        name: UserName::new(format!("User {number}")).expect("a short name"),
        login: endpoint.new_login().map_err(|e| e.to_string())?,
        token: None,
        presence: stage.presence,
    };
    send(&mut requests, ClientMessage::Hello(hello)).await?;
    stage.came.set(number, clock.now());
    send(&mut requests, ClientMessage::Join(join)).await?;
    if member.publishes {
        send(&mut requests, publish(number)).await?;
    }
    let mut events: Option<MessageReceiver> = None;
    let mut is_leaving = false;
    loop {
        tokio::select! {
            biased;
            event = next_event(&mut events), if events.is_some() => match event? {
                Some(message) => {
                    let news = member.seen().take(&message);
                    if let Some(news) = news {
                        record(stage, number, news, clock.now());
                    }
                }
                // The relay ends the events of who leaves.
                None => events = None,
            },
            answer = answers.recv::<RelayMessage>() => match answer.map_err(|e| e.to_string())? {
                Some(RelayMessage::Joined(_)) => {
                    stage.joining.record(clock.now().saturating_since(begun));
                    stage.joined.fetch_add(1, Ordering::Relaxed);
                }
                Some(RelayMessage::Done(_)) if is_leaving => return Ok(()),
                Some(RelayMessage::Refused(Refused { refusal, .. })) => return Err(refusal.to_string()),
                Some(RelayMessage::Closing(Closing { refusal })) => return Err(refusal.to_string()),
                Some(_) => {}
                None => return Err("the relay ended its answers".to_owned()),
            },
            () = member.leave.notified(), if !is_leaving => {
                is_leaving = true;
                stage.went.set(number, clock.now());
                send(&mut requests, ClientMessage::Leave(Leave { request: 3 })).await?;
            }
            arrival = inbound.next() => {
                if let Arrival::Events(receiver) = arrival.map_err(|ended| ended.to_string())? {
                    events = Some(receiver);
                }
            }
        }
    }
}

async fn send(requests: &mut MessageSender, message: ClientMessage) -> Result<(), String> {
    requests.send(&message).await.map_err(|ended| ended.to_string())
}

async fn next_event(events: &mut Option<MessageReceiver>) -> Result<Option<Heard>, String> {
    match events {
        Some(events) => events.recv().await.map_err(|error| error.to_string()),
        None => std::future::pending().await,
    }
}

fn publish(number: usize) -> ClientMessage {
    let track = TrackInfo {
        kind: TrackKind::Video,
        codec: "avc1.42e01f".into(),
        spatial_layers: 1,
        temporal_layers: 1,
    };
    ClientMessage::Publish(Publish {
        request: 2,
        stream: StreamId::new(format!("cam{number}")).expect("a short id"),
        tracks: vec![track],
        delivery: Delivery::Adaptive,
    })
}

/// Counts how much later than it happened a user hears of what another one did.
fn record(stage: &Stage, number: usize, news: News<'_>, now: Timestamp) {
    let (times, user) = match news {
        News::Came(user) => (&stage.came, user),
        News::Went(user) => (&stage.went, user),
    };
    let Some(delay) = number_of(user).and_then(|other| times.since(other, now)) else { return };
    // What happened before the user's own join, its snapshot may not have shown yet: nobody waited for that.
    if stage.came.since(number, now).is_some_and(|stay| delay < stay) {
        stage.delays[stage.phase.load(Ordering::Relaxed)].record(delay);
    }
}
