//! The engine: one socket, any number of joined rooms, each run by one task.
//!
//! Decisions are made by [`call::Call`](crate::call::Call); here is only what needs a runtime.

mod answer;
mod driver;
mod moderation;
mod path;
mod player;
mod publisher;
mod race;
mod room;
mod shared;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use parlor_transport::clock::Clock;
use parlor_transport::error::Code;
use parlor_transport::id::RoomId;
use parlor_transport::quic::{BindError, Binding, Endpoint, Options};
use parlor_transport::units::Timestamp;
use tokio::runtime::Handle;

use crate::call::{Call, Timeouts};
use crate::error::{EngineError, JoinError};
use crate::options::{EngineConfig, JoinOptions, JoinRequest};
pub use answer::Answer;
use driver::Patience;
pub use player::{Frames, Player};
pub use publisher::Publisher;
pub use room::{Room, RoomEvents};
use shared::{Shared, lock};

/// How long [`Engine::close`] waits for relays to hear of the end; after that they find out by themselves.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Where calls begin. Dropping it leaves every room.
///
/// A process may have several: tests, bots and servers do. Each has its own UDP socket.
///
/// ```
/// use parlor_client::{Engine, JoinOptions, Scenario};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let engine = Engine::new(Scenario::StandardCall)?;
/// // What is wrong is told before anything is sent.
/// let error = engine.join(JoinOptions::new("parlor://relay.example/standup", "not an id")).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "user id holds ' ' at byte 3; allowed are printable ASCII without spaces and / ? # % \\ \" (1004)"
/// );
/// # Ok::<(), parlor_client::EngineError>(()) }).unwrap();
/// ```
pub struct Engine {
    config: EngineConfig,
    endpoint: Endpoint,
    runtime: Handle,
    /// What was joined and may still run; emptied on close.
    rooms: Mutex<Rooms>,
}

#[derive(Default)]
struct Rooms {
    joined: Vec<Weak<Shared>>,
    closed: bool,
}

impl Engine {
    /// An engine for a [`Scenario`](crate::Scenario) or with a configuration of its own.
    ///
    /// # Errors
    /// [`EngineError`] outside a tokio runtime, when no UDP socket can be opened, or when
    /// qlog files are wanted and cannot be written.
    pub fn new(config: impl Into<EngineConfig>) -> Result<Self, EngineError> {
        let config = config.into();
        Handle::try_current().map_err(|_| EngineError::NoRuntime)?;
        let binding = bind(config.local).map_err(|error| EngineError::Socket(error.to_string()))?;
        Engine::with_network(config, binding)
    }

    /// An engine on any network and clock, for example a simulated one: see `parlor_transport::sim`.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn with_network(config: impl Into<EngineConfig>, binding: Binding) -> Result<Self, EngineError> {
        let config = config.into();
        let runtime = Handle::try_current().map_err(|_| EngineError::NoRuntime)?;
        let options = Options {
            qlog: config.qlog.clone(),
            key_log: config.key_log,
            ablation: config.ablation,
            ..Options::default()
        };
        options.check().map_err(|error| EngineError::Qlog(error.to_string()))?;
        let endpoint =
            Endpoint::client(binding, options).map_err(|error| EngineError::Socket(error.to_string()))?;
        Ok(Engine { config, endpoint, runtime, rooms: Mutex::default() })
    }

    /// The engine's configuration.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// The time on the engine's clock, which frames are stamped with.
    pub fn now(&self) -> Timestamp {
        self.clock().now()
    }

    /// The engine's clock.
    pub fn clock(&self) -> &Clock {
        self.endpoint.clock()
    }

    /// Joins a room. Returns at once in state [`Connecting`](crate::room::RoomState::Connecting): publish and
    /// play can be called right away and leave in the same flight. [`Room::joined`] waits for the outcome.
    ///
    /// # Errors
    /// [`JoinError`] when the options are not valid or the engine was closed; nothing was sent then.
    pub fn join(&self, options: JoinOptions) -> Result<Room, JoinError> {
        self.begin(options.check()?)
    }

    fn begin(&self, request: JoinRequest) -> Result<Room, JoinError> {
        let timeouts = Timeouts {
            join: self.config.join_timeout,
            leave: self.config.leave_timeout,
            reconnect: self.config.reconnect_timeout,
        };
        let login = self.endpoint.new_login().map_err(|error| JoinError::System(error.to_string()))?;
        let call = Call::new(self.now(), request, login, &self.config.agent, timeouts);
        let shared = Arc::new(Shared::new(self.clock().clone(), self.runtime.clone(), call));
        let mut rooms = lock(&self.rooms);
        if rooms.closed {
            return Err(JoinError::Closed);
        }
        rooms.joined.retain(|room| room.strong_count() > 0);
        rooms.joined.push(Arc::downgrade(&shared));
        shared.runtime.spawn(Box::pin(driver::drive(
            Arc::clone(&shared),
            self.endpoint.clone(),
            Patience { rebind_after: self.config.rebind_after, path_timeout: self.config.path_timeout },
        )));
        Ok(Room::new(shared))
    }

    /// Leaves `room` and joins the one called `to` with the same options; `room` is then that one, in state
    /// [`Connecting`](crate::room::RoomState::Connecting). Publishers, players and readers of events end with the room
    /// that was left. A `Capture` and its preview go on: publish it again, in the new room. A token must be good for
    /// both rooms.
    ///
    /// The new room is joined once the relay has confirmed the leave, or the time for that is over: a user is in one
    /// room of the app at a time.
    ///
    /// ```no_run
    /// # async fn change(engine: &parlor_client::Engine, mut room: parlor_client::Room) -> Result<(), parlor_client::JoinError> {
    /// engine.switch_room(&mut room, "lounge").await?;
    /// let events = room.events();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`JoinError`] when the id is not valid; then `room` goes on as it was. Also when the engine is being closed.
    pub async fn switch_room(&self, room: &mut Room, to: impl AsRef<str>) -> Result<(), JoinError> {
        let to = RoomId::new(to)?;
        if lock(&self.rooms).closed {
            return Err(JoinError::Closed);
        }
        room.end().await;
        // Its token may have been renewed meanwhile.
        let request = JoinRequest { room: to, ..room.request() };
        *room = self.begin(request)?;
        Ok(())
    }

    /// The machine's network changed, from Wi-Fi to mobile say: goes on with a new socket, so that rooms keep their
    /// connections. Without this call it happens by itself, but only after [`EngineConfig::rebind_after`].
    ///
    /// # Errors
    /// [`EngineError::Socket`] when no socket can be had; the one before stays in use.
    pub fn network_changed(&self) -> Result<(), EngineError> {
        self.endpoint.renew().map_err(|error| EngineError::Socket(error.to_string()))
    }

    /// The same on any network, with a binding on the engine's clock.
    ///
    /// # Errors
    /// As [`Engine::network_changed`].
    pub fn rebind(&self, binding: Binding) -> Result<(), EngineError> {
        self.endpoint.rebind(binding).map_err(|error| EngineError::Socket(error.to_string()))
    }

    /// Leaves every room and waits until it is done, at most as long as leaving may take.
    pub async fn close(self) {
        for room in self.leave_all() {
            room.finished().await;
        }
        self.endpoint.close(Code::Ok, "the engine was closed");
        // A relay that does not answer any more is not waited for.
        _ = self.clock().timeout(CLOSE_WAIT, self.endpoint.wait_idle()).await;
    }

    fn leave_all(&self) -> Vec<Arc<Shared>> {
        let mut rooms = lock(&self.rooms);
        rooms.closed = true;
        let joined: Vec<_> = rooms.joined.drain(..).filter_map(|room| room.upgrade()).collect();
        for room in &joined {
            room.act(|now, call| call.leave(now));
        }
        joined
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.leave_all();
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Where the app wants it, or wherever IPv6 and IPv4, or at least IPv4, can be spoken.
fn bind(local: Option<SocketAddr>) -> Result<Binding, BindError> {
    match local {
        Some(local) => Binding::udp(local),
        None => Binding::udp((Ipv6Addr::UNSPECIFIED, 0).into())
            .or_else(|_| Binding::udp((Ipv4Addr::UNSPECIFIED, 0).into())),
    }
}
