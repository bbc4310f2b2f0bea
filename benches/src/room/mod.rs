//! Rooms of hundreds to thousands: people join at a rate, some publish, then people come and go, and everyone must know
//! who is there. How soon each hears of the others, whether all know the same in the end, and what it costs the relay.
//!
//! Each user is a session of its own on the transport (several share a socket), checks that no event is missing, and
//! keeps a digest of what it knows; some keep the client's own mirror beside it, entry by entry. All users live in one
//! process with one clock, the relay in another one; or everything in virtual time.

mod heard;
mod member;
pub mod seen;
pub mod tally;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use parlor_client::room::mirror::Mirror;
use parlor_relay::{Config, Relay, RelayHandle};
use parlor_transport::address::RelayAddress;
use parlor_transport::clock::Clock;
use parlor_transport::id::{AppId, RoomId};
use parlor_transport::quic::{Binding, Endpoint, Options};
use parlor_transport::sim::{Profile, Simulation};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::Presence;
use tokio::task::JoinSet;

use crate::cpu::Usage;
use crate::relay_process::{RelayProcess, Which};
use member::{Member, Stage};
use seen::Digest;
use tally::{Histogram, Times};

/// Users whose connections share a socket. Each socket has an address of its own where the relay is on this machine, so
/// that the relay's limits for one address, which are made for people behind one router, are not what is measured.
const USERS_PER_SOCKET: usize = 500;
/// Joins a second that one address may begin by a relay's defaults, with room to spare.
const JOINS_PER_SOCKET: usize = 50;
/// Handshakes under way at once. At more the machine is the limit, and the rate of joins drops to what it carries.
const JOINING_MAX: u64 = 400;
/// How long everyone may take to know the same once nothing happens any more.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// How often that is looked at.
const SETTLE_STEP: Duration = Duration::from_millis(100);
/// Time for memory and windows to settle before an idle relay is looked at.
const IDLE: Duration = Duration::from_secs(5);

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Crowd {
    /// How many join.
    pub users: usize,
    /// How many of them a second.
    pub joins_per_second: u32,
    /// How many of them publish a stream (and send no frames).
    pub streams: usize,
    /// So often a second somebody leaves and somebody else joins, once all are there.
    pub churn_per_second: u32,
    /// For how long.
    pub length: Duration,
    /// How many keep a full mirror.
    pub mirrors: usize,
    /// Users are told of publishers and the count only.
    pub publishers_only: bool,
}

/// What one part of it gave.
#[derive(Debug, Default)]
pub struct Part {
    /// How long it took.
    pub length: Duration,
    /// Joins carried out in it.
    pub joins: u64,
    /// From a join or leave to when each of the others heard of it.
    pub delays: Histogram,
    /// What the relay used.
    pub usage: Option<Usage>,
}

impl Part {
    /// Joins carried out a second.
    pub fn joins_per_second(&self) -> f64 {
        self.joins as f64 / self.length.as_secs_f64().max(1e-9)
    }

    /// How many cores the relay used.
    pub fn cores(&self) -> Option<f64> {
        Some(self.usage?.cpu.as_secs_f64() / self.length.as_secs_f64().max(1e-9))
    }
}

/// What the measurement gave.
#[derive(Debug, Default)]
pub struct Outcome {
    /// While people join.
    pub join: Part,
    /// While nothing happens.
    pub idle: Part,
    /// While people come and go.
    pub churn: Part,
    /// From the beginning of a connection to the relay's yes.
    pub joining: Histogram,
    /// Users in the room at the end, the one who looks included.
    pub users: usize,
    /// Of those, how many know exactly what a newcomer's snapshot says.
    pub equal: usize,
    /// Full mirrors that were compared entry by entry, and how many were equal.
    pub mirrors: (usize, usize),
    /// Whether the relay's own room is what the newcomer was told; `None` where it cannot be asked.
    pub relay_agrees: Option<bool>,
    /// How long it took after the last change.
    pub settled: Option<Duration>,
    /// Events that did not follow from the one before: a broken promise of the relay.
    pub faults: u64,
    /// Snapshots beyond each user's first: given to those who fell behind.
    pub fresh_snapshots: u64,
    /// UDP payload bytes that a user was sent, in the mean.
    pub bytes_per_user: u64,
    /// Relay memory for each user while nothing happens.
    pub memory_per_user: Option<u64>,
    /// Stays that ended otherwise than they should, and why the first did.
    pub failed: (usize, Option<String>),
}

impl Outcome {
    /// Whether everybody knows the same.
    pub fn converged(&self) -> bool {
        self.equal == self.users
            && self.mirrors.0 == self.mirrors.1
            && self.relay_agrees != Some(false)
            && self.faults == 0
    }
}

impl Crowd {
    /// Users who are ever there, the one who looks in the end included.
    fn numbers(&self) -> usize {
        self.users + (self.length.as_secs_f64() * f64::from(self.churn_per_second)) as usize + 2
    }

    fn presence(&self) -> Presence {
        Presence { publishers_only: self.publishers_only, ..Presence::default() }
    }

    fn sockets(&self) -> usize {
        self.users.div_ceil(USERS_PER_SOCKET).max(self.joins_per_second as usize / JOINS_PER_SOCKET).max(1)
    }

    /// Over UDP, with a relay in another process. Needs this program to answer to
    /// [`RELAY_COMMAND`](crate::relay_process::RELAY_COMMAND). `progress` hears how far it is.
    ///
    /// # Errors
    /// When the relay process does not start or its address is of no use.
    pub async fn run(&self, relay: &Which, progress: impl Fn(&str)) -> io::Result<Outcome> {
        let options = ["--users".to_owned(), self.numbers().to_string()];
        let process = RelayProcess::get(relay, &options)?;
        let address: RelayAddress = process.address().parse().map_err(io::Error::other)?;
        let mut places = (address.host.as_str(), address.port).to_socket_addrs()?;
        let place = places.next().ok_or_else(|| io::Error::other("the relay's name has no address"))?;
        let mut endpoints = Vec::new();
        for number in 0..self.sockets() {
            endpoints.push(Endpoint::client(bind(place.ip(), number)?, Options::default())?);
        }
        let stage = self.stage(Clock::system(), endpoints, place, &address)?;
        self.play(Arc::new(stage), &|| process.usage(), None, &progress).await
    }

    /// In virtual time, everybody behind a link of 40 ms of round trip: the same on every machine.
    ///
    /// # Errors
    /// When the relay cannot be set up.
    pub fn run_virtual(&self, seed: u64, progress: impl Fn(&str)) -> io::Result<Outcome> {
        Simulation::new(seed).time_max(Duration::from_secs(3600)).run(async |sim| {
            let host = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
            let mut config = Config::dev();
            allow(&mut config, self.numbers());
            let relay = Relay::bind_on(config, host.binding(4433)?).await.map_err(io::Error::other)?;
            let mut address = relay.address(None);
            let place = SocketAddr::new(host.ip(), 4433);
            address.host = place.ip().to_string();
            let handle = relay.handle();
            tokio::spawn(relay.run(std::future::pending()));
            let mut endpoints = Vec::new();
            for number in 0..self.sockets() {
                let link = Profile::perfect().with_rtt(Duration::from_millis(40));
                let binding = sim.host(&format!("users-{number}"), link).binding(0)?;
                endpoints.push(Endpoint::client(binding, Options::default())?);
            }
            let stage = self.stage(sim.clock().clone(), endpoints, place, &address)?;
            self.play(Arc::new(stage), &|| None, Some(&handle), &progress).await
        })
    }

    fn stage(
        &self,
        clock: Clock,
        endpoints: Vec<Endpoint>,
        relay: SocketAddr,
        address: &RelayAddress,
    ) -> io::Result<Stage> {
        let room = match &address.room {
            Some(room) => room.clone(),
            None => RoomId::new("crowd").map_err(io::Error::other)?,
        };
        Ok(Stage {
            clock,
            endpoints,
            relay,
            trust: address.trust(),
            room,
            presence: self.presence(),
            came: Times::new(self.numbers()),
            went: Times::new(self.numbers()),
            delays: Default::default(),
            phase: 0.into(),
            joining: Histogram::default(),
            joined: 0.into(),
            failed: Mutex::default(),
            bytes: 0.into(),
        })
    }

    async fn play(
        &self,
        stage: Arc<Stage>,
        usage: &dyn Fn() -> Option<Usage>,
        relay: Option<&RelayHandle>,
        progress: &dyn Fn(&str),
    ) -> io::Result<Outcome> {
        let clock = stage.clock.clone();
        let mut load = Load {
            stage: stage.clone(),
            tasks: JoinSet::new(),
            members: Vec::new(),
            next: 0,
            publishers_only: self.publishers_only,
        };
        let memory_before = usage().map(|usage| usage.memory);

        let timer = Timer::start(&clock, usage, &stage);
        let pace = Duration::from_secs(1) / self.joins_per_second.max(1);
        let mirror_step = self.users.checked_div(self.mirrors).unwrap_or(0).max(1);
        for number in 0..self.users {
            clock.sleep_until(timer.begun + pace * number as u32).await;
            load.make_room(&clock).await;
            let mirrors = self.mirrors > 0 && number % mirror_step == 0;
            load.enter(mirrors, number < self.streams);
            if number % 100 == 0 {
                progress(&format!("{number} of {} users join", self.users));
            }
        }
        load.all_joined(&clock, self.users as u64).await;
        let join = timer.stop(&clock, usage, &stage);
        progress("idle");
        // What was under way still counts as a delay of joining.
        clock.sleep(IDLE).await;
        let timer = Timer::start(&clock, usage, &stage);
        clock.sleep(IDLE).await;
        let idle = timer.stop(&clock, usage, &stage);
        let memory = memory_before.zip(usage()).map(|(before, now)| now.memory.saturating_sub(before));

        stage.phase.store(1, Ordering::Relaxed);
        let timer = Timer::start(&clock, usage, &stage);
        let changes = (self.length.as_secs_f64() * f64::from(self.churn_per_second)) as u32;
        for change in 0..changes {
            let pace = Duration::from_secs(1) / self.churn_per_second.max(1);
            clock.sleep_until(timer.begun + pace * change).await;
            load.make_room(&clock).await;
            load.leave_one();
            load.enter(false, false);
            if change % 100 == 0 {
                progress(&format!("{change} of {changes} came and went"));
            }
        }
        load.all_joined(&clock, self.users as u64 + u64::from(changes)).await;
        let churn = timer.stop(&clock, usage, &stage);

        // Who comes last hears of the room as the relay has it.
        let last_change = clock.now();
        progress("comparing");
        let looker = load.enter(true, false);
        load.all_joined(&clock, self.users as u64 + u64::from(changes) + 1).await;
        let settled = load.settle(&clock, &looker, last_change).await;
        let outcome = load.compare(&looker, relay);
        let Stage { failed, bytes, .. } = &*stage;
        let failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
        let present: u64 = load.members.iter().filter_map(|member| member.bytes_received()).sum();
        let [join_delays, churn_delays] = std::array::from_fn(|phase| stage.delays[phase].take());
        Ok(Outcome {
            join: Part { delays: join_delays, ..join },
            idle,
            churn: Part { delays: churn_delays, ..churn },
            joining: stage.joining.take(),
            settled,
            bytes_per_user: (present + bytes.load(Ordering::Relaxed)) / load.next.max(1) as u64,
            memory_per_user: memory.map(|memory| memory / self.users.max(1) as u64),
            failed: (failed.len(), failed.first().cloned()),
            ..outcome
        })
    }
}

/// Where the sockets of a load are.
fn bind(relay: IpAddr, number: usize) -> io::Result<Binding> {
    let any = match relay {
        IpAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        IpAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    };
    if relay.is_loopback() && relay.is_ipv4() {
        let own = Ipv4Addr::new(127, 0, 1, (number % 250) as u8 + 1);
        // Where only 127.0.0.1 is there, that has to do.
        if let Ok(binding) = Binding::udp((own, 0).into()) {
            return Ok(binding);
        }
    }
    Binding::udp(any).map_err(io::Error::other)
}

/// Lets so many users in.
pub fn allow(config: &mut Config, users: usize) {
    let limits = &mut config.limits;
    limits.connections_max = limits.connections_max.max(users);
    limits.users_per_room_max = limits.users_per_room_max.max(users);
}

/// One part of the measurement, under way.
struct Timer {
    begun: Timestamp,
    joined: u64,
    usage: Option<Usage>,
}

impl Timer {
    fn start(clock: &Clock, usage: &dyn Fn() -> Option<Usage>, stage: &Stage) -> Self {
        Timer { begun: clock.now(), joined: stage.joined.load(Ordering::Relaxed), usage: usage() }
    }

    fn stop(self, clock: &Clock, usage: &dyn Fn() -> Option<Usage>, stage: &Stage) -> Part {
        Part {
            length: clock.now().saturating_since(self.begun),
            joins: stage.joined.load(Ordering::Relaxed) - self.joined,
            delays: Histogram::default(),
            usage: usage().zip(self.usage).map(|(now, before)| now.since(&before)),
        }
    }
}

/// The users of a measurement.
struct Load {
    stage: Arc<Stage>,
    tasks: JoinSet<()>,
    /// Who is there, or about to be; those who were told to leave are gone from it.
    members: Vec<Arc<Member>>,
    next: usize,
    publishers_only: bool,
}

impl Load {
    fn enter(&mut self, mirrors: bool, publishes: bool) -> Arc<Member> {
        let member = Member::new(self.next, mirrors, publishes);
        self.next += 1;
        self.members.push(member.clone());
        self.tasks.spawn(member::live(self.stage.clone(), member.clone()));
        member
    }

    /// Tells somebody to leave who is there only to be there: whoever has been for longest.
    fn leave_one(&mut self) {
        let at = self.members.iter().position(|member| !member.publishes && member.seen().mirror.is_none());
        if let Some(at) = at {
            self.members.remove(at).leave.notify_one();
        }
    }

    fn under_way(&self) -> u64 {
        let done = self.stage.joined.load(Ordering::Relaxed) + self.failures();
        (self.next as u64).saturating_sub(done)
    }

    fn failures(&self) -> u64 {
        self.stage.failed.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// Waits until the next may begin to join.
    async fn make_room(&mut self, clock: &Clock) {
        while self.under_way() >= JOINING_MAX {
            clock.sleep(Duration::from_millis(1)).await;
        }
        while self.tasks.try_join_next().is_some() {}
    }

    async fn all_joined(&self, clock: &Clock, joins: u64) {
        let until = clock.now() + SETTLE_MAX;
        while self.stage.joined.load(Ordering::Relaxed) + self.failures() < joins && clock.now() < until {
            clock.sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until everybody knows what `looker` knows; gives how long that took since `begun`.
    async fn settle(&self, clock: &Clock, looker: &Member, begun: Timestamp) -> Option<Duration> {
        let until = clock.now() + SETTLE_MAX;
        while clock.now() < until {
            let truth = looker.seen().digest;
            if truth != Digest::default() && self.members.iter().all(|member| member.seen().digest == truth) {
                return Some(clock.now().saturating_since(begun));
            }
            clock.sleep(SETTLE_STEP).await;
        }
        None
    }

    /// Compares everybody with `looker`, and that one with the relay.
    fn compare(&self, looker: &Member, relay: Option<&RelayHandle>) -> Outcome {
        let truth = looker.seen().digest;
        let looker_mirror = looker.seen().mirror.take().unwrap_or_default();
        let is_equal = |mirror: &Mirror| {
            mirror.place() == looker_mirror.place()
                && mirror.count() == looker_mirror.count()
                && mirror.users() == looker_mirror.users()
                && mirror.streams() == looker_mirror.streams()
                && mirror.extras() == looker_mirror.extras()
        };
        let (mut equal, mut mirrors, mut faults, mut fresh) = (0, (0, 0), 0, 0);
        for member in &self.members {
            let seen = member.seen();
            equal += usize::from(seen.digest == truth && seen.is_consistent());
            faults += u64::from(seen.faults);
            fresh += u64::from(seen.snapshots.saturating_sub(1));
            if let Some(mirror) = &seen.mirror {
                mirrors.0 += 1;
                mirrors.1 += usize::from(is_equal(mirror));
            }
        }
        let room = relay.and_then(|relay| relay.room(&AppId::dev(), &self.stage.room));
        let relay_agrees = room.filter(|_| !self.publishers_only).map(|room| {
            let place = (room.epoch, room.position);
            let users = room.users.iter().map(|user| &user.user);
            let streams = room.streams.iter().map(|stream| &stream.stream);
            Digest::of(place, room.users.len() as u32, users, streams) == truth
        });
        Outcome {
            users: self.members.len(),
            equal,
            mirrors,
            relay_agrees,
            faults,
            fresh_snapshots: fresh,
            ..Outcome::default()
        }
    }
}
