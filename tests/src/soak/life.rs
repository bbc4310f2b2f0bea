//! One person's life in a soak: joins, stays a while and does what people do, leaves, and comes again.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::room::{Recipients, RoomState};
use parlor_client::{
    Code, Engine, EngineConfig, JoinOptions, PlayOptions, Player, PublishOptions, Publisher, Refusal, Room,
    Scenario, Timestamp,
};
use parlor_transport::clock::Clock;
use parlor_transport::sim::{Host, SimRng};
use parlor_transport::wire::control::TrackState;
use rand::RngExt;
use tokio::task::{AbortHandle, JoinSet};

use super::Load;
use super::figures::Deeds;
use super::gate::Gate;

/// Everything one person needs.
pub(super) struct Person {
    pub(super) number: usize,
    pub(super) link: Link,
    pub(super) load: Arc<Load>,
    pub(super) deeds: Arc<Deeds>,
    pub(super) clock: Clock,
    pub(super) rng: SimRng,
    /// Of the relay, as this person reaches it, without a room.
    pub(super) address: String,
    /// When everything is to come to an end.
    pub(super) until: Timestamp,
}

/// A way to the relay that can break.
pub(super) enum Link {
    Simulated(Host),
    Loopback(Gate),
}

/// The rooms; the first person stays in the first of them.
const ROOMS: [&str; 2] = ["lounge", "kitchen"];
/// The shortest and the longest time somebody is away between two stays.
const AWAY: std::ops::Range<u64> = 500..8_000;
/// Outages in milliseconds: one that is hardly noticed, one that makes the client resume, and one that outlasts the
/// session (10 s), so that it joins again.
const OUTAGES: [(&str, u64); 3] = [("outage", 1_500), ("long outage", 6_000), ("lost session", 15_000)];

impl Person {
    /// Until it is time to end.
    pub(super) async fn live(mut self) {
        while self.clock.now() < self.until {
            let engine = match self.link.engine() {
                Ok(engine) => engine,
                Err(error) => return self.deeds.error(format!("no engine: {error}")),
            };
            let is_unseen = self.number != 0 && self.rng.random_bool(0.1);
            let room = if self.number == 0 { 0 } else { self.rng.random_range(0..ROOMS.len()) };
            let options = JoinOptions::new(&self.address, name(self.number)).room(ROOMS[room]);
            let options = if is_unseen { options.unseen() } else { options };
            let room = engine.join(options).expect("valid options and an engine that was not closed");
            self.deeds.count("joins");
            self.stay(&engine, &room, is_unseen).await;
            // In the way of people: said goodbye, hung up, or the program ended.
            match self.rng.random_range(0..3) {
                0 => {
                    match room.leave().await {
                        Ok(()) => {}
                        // The network was not back yet; the relay finds out by itself.
                        Err(refusal) if refusal.code.is_retryable() => self.deeds.count("unconfirmed leaves"),
                        Err(refusal) => self.deeds.error(format!("leave: {:?}", refusal.code)),
                    }
                    engine.close().await;
                }
                1 => {
                    drop(room);
                    engine.close().await;
                }
                _ => drop((room, engine)),
            }
            let away = Duration::from_millis(self.rng.random_range(AWAY));
            self.clock.sleep(away).await;
        }
    }

    async fn stay(&mut self, engine: &Engine, room: &Room, is_unseen: bool) {
        let mut stay = Stay::new(self, room);
        if !is_unseen {
            stay.publish(self, room);
        }
        for other in 0..self.load.users {
            stay.play(self, room, other);
        }
        let least = self.load.stay_max / 6;
        let length = self.rng.random_range(least..self.load.stay_max);
        let leave_at =
            if self.number == 0 { self.until } else { (self.clock.now() + length).min(self.until) };
        let mut last = "nothing";
        while self.clock.now() < leave_at {
            let wait = self.rng.random_range(Duration::ZERO..self.load.deed_wait_max);
            self.clock.sleep(wait.min(leave_at.saturating_since(self.clock.now()))).await;
            if room.status().state == RoomState::Disconnected {
                let status = room.status();
                let (who, at) = (name(self.number), self.clock.now());
                let what = format!("{who}'s room ended by itself: {:?} {:?}", status.reason, status.error);
                self.deeds.error(format!("{what}, {at:?}, after {last}"));
                return;
            }
            last = self.do_something(engine, room, &mut stay, is_unseen).await;
        }
    }

    /// One of the things that people do; which.
    async fn do_something(
        &mut self,
        engine: &Engine,
        room: &Room,
        stay: &mut Stay,
        is_unseen: bool,
    ) -> &'static str {
        match self.rng.random_range(0..10) {
            0 | 1 if !is_unseen => {
                stay.unpublish();
                let pause = Duration::from_millis(self.rng.random_range(0..2_000));
                self.clock.sleep(pause).await;
                stay.publish(self, room);
                "publishing anew"
            }
            2 | 3 => {
                let other = self.rng.random_range(0..self.load.users);
                if let Some(watching) = stay.players.remove(&other) {
                    watching.abort();
                }
                // The player is dropped when its task has been.
                self.clock.sleep(Duration::from_millis(1)).await;
                stay.play(self, room, other);
                "playing anew"
            }
            4 => {
                if let Some((publisher, _)) = &stay.publisher {
                    let states = [TrackState::Muted, TrackState::Disabled, TrackState::Open];
                    publisher.set_track_state(0, states[self.rng.random_range(0..states.len())]);
                    self.deeds.count("track states");
                }
                "a track state"
            }
            5 => {
                let key = format!("key{}", self.rng.random_range(0..8));
                let value = "x".repeat(self.rng.random_range(0..64));
                let answer = room.set_info(key, value).expect("short enough");
                stay.expect(self, "info", answer.done());
                "an info"
            }
            6 if !is_unseen => {
                let payload = vec![7; self.rng.random_range(1..2_000)];
                if self.rng.random_bool(0.5) {
                    let answer = room.send_message(Recipients::Everyone, payload).expect("short enough");
                    stay.expect(self, "messages", answer.done());
                } else {
                    _ = room.send_lossy_message(Recipients::Everyone, payload).expect("short enough");
                }
                "a message"
            }
            7 => {
                self.link.move_elsewhere(engine);
                self.deeds.count("moves");
                "a move"
            }
            8 => {
                let (what, length) = OUTAGES[self.rng.random_range(0..OUTAGES.len())];
                self.deeds.count(what);
                self.link.outage(&self.clock, Duration::from_millis(length)).await;
                // What was asked meanwhile comes through, or the client comes back, before it goes on.
                self.clock.sleep(Duration::from_secs(2)).await;
                what
            }
            _ => "nothing",
        }
    }
}

/// What runs while somebody is in a room; all of it ends when this is dropped.
struct Stay {
    publisher: Option<(Arc<Publisher>, AbortHandle)>,
    /// By the number of who is played.
    players: BTreeMap<usize, AbortHandle>,
    tasks: JoinSet<()>,
}

impl Stay {
    fn new(person: &Person, room: &Room) -> Self {
        let mut tasks = JoinSet::new();
        let (deeds, mut events) = (person.deeds.clone(), room.events());
        tasks.spawn(async move {
            while events.next().await.is_some() {
                deeds.count("room events");
            }
        });
        Stay { publisher: None, players: BTreeMap::new(), tasks }
    }

    fn publish(&mut self, person: &Person, room: &Room) {
        while self.tasks.try_join_next().is_some() {}
        let options = PublishOptions::new(stream(person.number)).video("soak");
        let publisher = match room.publish(options) {
            Ok(publisher) => Arc::new(publisher),
            // It may have just ended, which is looked at where the deeds are chosen.
            Err(_) => return,
        };
        person.deeds.count("publishes");
        let (load, deeds) = (person.load.clone(), person.deeds.clone());
        let sending = self.tasks.spawn(send(publisher.clone(), load, deeds));
        self.publisher = Some((publisher, sending));
    }

    fn unpublish(&mut self) {
        if let Some((publisher, sending)) = self.publisher.take() {
            publisher.stop();
            sending.abort();
        }
    }

    fn play(&mut self, person: &Person, room: &Room, other: usize) {
        if other == person.number || self.players.contains_key(&other) {
            return;
        }
        let Ok(player) = room.play(stream(other), PlayOptions::new()) else { return };
        person.deeds.count("plays");
        self.players.insert(other, self.tasks.spawn(watch(player, person.deeds.clone())));
    }

    /// The answer must be good, when it comes.
    fn expect(
        &mut self,
        person: &Person,
        what: &'static str,
        answer: impl Future<Output = Result<(), Refusal>> + Send + 'static,
    ) {
        let deeds = person.deeds.clone();
        self.tasks.spawn(async move {
            match answer.await {
                Ok(()) => deeds.count(what),
                // The room was left meanwhile, or the connection lost.
                Err(refusal) if refusal.code == Code::NotJoined || refusal.code.is_retryable() => {}
                Err(refusal) => deeds.error(format!("{what}: {:?}", refusal.code)),
            }
        });
    }
}

async fn send(publisher: Arc<Publisher>, load: Arc<Load>, deeds: Arc<Deeds>) {
    match publisher.publishing().await {
        Ok(()) => deeds.count("published"),
        Err(refusal) => deeds.error(format!("publish: {:?}", refusal.code)),
    }
    let clock = publisher.clock().clone();
    for number in 0_u64.. {
        let keyframe = number.is_multiple_of(60) || !publisher.take_keyframe_requests().is_empty();
        let payload = vec![7; load.frame_bytes];
        _ = publisher.send_frame(EncodedFrame { keyframe, ..EncodedFrame::new(0, clock.now(), payload) });
        clock.sleep(load.frame_interval).await;
    }
}

async fn watch(player: Player, deeds: Arc<Deeds>) {
    let mut frames = player.frames();
    while frames.next().await.is_some() {
        deeds.frames.fetch_add(1, Ordering::Relaxed);
    }
}

impl Link {
    fn engine(&self) -> Result<Engine, String> {
        let config = EngineConfig::from(Scenario::StandardCall);
        match self {
            Link::Simulated(host) => {
                let binding = host.binding(0).map_err(|error| error.to_string())?;
                Engine::with_network(config, binding).map_err(|error| error.to_string())
            }
            Link::Loopback(_) => {
                let local = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
                Engine::new(EngineConfig { local, ..config }).map_err(|error| error.to_string())
            }
        }
    }

    /// To another address or port, the connection being kept.
    fn move_elsewhere(&self, engine: &Engine) {
        match self {
            Link::Simulated(host) => match host.ip() {
                IpAddr::V4(ip) => {
                    let [a, b, c, d] = ip.octets();
                    host.move_to(IpAddr::from([a, b, c ^ 128, d]));
                }
                IpAddr::V6(_) => host.renumber_ports(),
            },
            Link::Loopback(_) => engine.network_changed().expect("loopback has ports to spare"),
        }
    }

    async fn outage(&self, clock: &Clock, length: Duration) {
        match self {
            Link::Simulated(host) => {
                host.outage(Duration::ZERO, length);
                clock.sleep(length).await;
            }
            Link::Loopback(gate) => gate.shut(clock, length).await,
        }
    }
}

/// The user id of somebody.
fn name(number: usize) -> String {
    format!("u{number}")
}

/// The stream that somebody publishes.
fn stream(number: usize) -> String {
    format!("u{number}-cam")
}
