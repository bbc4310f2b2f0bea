//! The relay of a run: ends, in order or without a word, and comes back at its address.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parlor_client::{AppId, RoomId, Timestamp, UserId};
use parlor_relay::config::Tls;
use parlor_relay::server::RoomSnapshot;
use parlor_relay::{App, BindError, Config, Relay, RelayHandle};
use parlor_transport::sim::{Host, Profile, Sim};
use parlor_transport::token::claims::Claims;
use parlor_transport::token::keys::SigningKey;
use parlor_transport::units::UnixTime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::world::ROOM;

const SECRET: &str = "what the relay and the app's server share";
const PORT: u16 = 4433;

/// A relay that can be ended and started again.
pub struct Lives {
    host: Host,
    key: SigningKey,
    directory: Directory,
    address: String,
    running: Option<Running>,
    /// When the next life begins.
    next: Option<Timestamp>,
    /// When the last life ended for those outside, and when the present one began.
    pub restarted: Option<Timestamp>,
}

struct Running {
    handle: RelayHandle,
    drain: Option<oneshot::Sender<()>>,
    stop: Option<oneshot::Sender<()>>,
    /// When a relay that drains is told to stop.
    stop_at: Option<Timestamp>,
    task: JoinHandle<()>,
}

impl Lives {
    /// A relay that serves.
    pub async fn new(sim: &Sim) -> Self {
        let host = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
        let key = SigningKey::from_secret(SECRET).expect("a long secret");
        let directory = Directory::new();
        let mut lives = Lives {
            host,
            key,
            directory,
            address: String::new(),
            running: None,
            next: None,
            restarted: None,
        };
        let begun = lives.begin().await;
        begun.expect("a relay on a new host");
        lives
    }

    async fn begin(&mut self) -> Result<(), BindError> {
        let key = self.key.verifying_key().expect("the key of a secret");
        let app = App::with_keys(AppId::dev(), vec![key]).expect("an app with one key");
        // The world says itself when it has drained long enough.
        let (tls, drain_timeout) = (Tls::Development(self.directory.0.clone()), Duration::from_secs(600));
        let config = Config { apps: vec![app], tls, drain_timeout, ..Config::dev() };
        let binding = self.host.binding(PORT).map_err(BindError::Endpoint)?;
        let relay = Relay::bind_on(config, binding).await?;
        let mut address = relay.address(Some(RoomId::new(ROOM).expect("a valid room id")));
        address.host = self.host.ip().to_string();
        self.address = address.to_string();
        let handle = relay.handle();
        let (drain, drained) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let serving = async move {
            let drained = async {
                _ = drained.await;
                None
            };
            relay.run_draining(drained, async { _ = stopped.await }).await;
        };
        let task = tokio::spawn(serving);
        let (drain, stop) = (Some(drain), Some(stop));
        self.running = Some(Running { handle, drain, stop, stop_at: None, task });
        Ok(())
    }

    /// Where to join.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A token of the app's server, for somebody who may publish, and moderate perhaps.
    pub fn token(&self, user: &str, moderate: bool, expires: Timestamp) -> String {
        let expires = UnixTime::from_micros(expires.as_micros());
        let user = UserId::new(user).expect("a valid user id");
        let claims = Claims::new(AppId::dev(), user, ROOM.parse().expect("a pattern"), expires);
        let claims = Claims { publish: true, moderate, ..claims };
        self.key.sign(&claims).expect("claims that can be signed").as_str().to_owned()
    }

    /// Nothing passes its link.
    pub fn outage(&self, length: Duration) {
        self.host.outage(Duration::ZERO, length);
    }

    /// Ends, in order after so long or without a word at once, and begins again some time later.
    pub fn end(&mut self, now: Timestamp, in_order: bool, patience: Duration, down: Duration) {
        let Some(mut running) = self.running.take() else { return };
        if in_order {
            running.drain.take().into_iter().for_each(|drain| _ = drain.send(()));
            running.stop_at = Some(now + patience);
            self.running = Some(running);
        } else {
            // Its last words are lost, as when a machine loses power.
            self.host.cut_sockets();
            running.task.abort();
        }
        self.next = Some(now + patience + down);
    }

    /// Does what is due. True if another life began.
    pub async fn tick(&mut self, now: Timestamp) -> bool {
        if let Some(running) = &mut self.running
            && running.stop_at.is_some_and(|at| now >= at)
        {
            running.stop.take().into_iter().for_each(|stop| _ = stop.send(()));
            if running.task.is_finished() {
                self.running = None;
                // What is left of a process that ended answers nobody.
                self.host.cut_sockets();
            }
        }
        if self.running.is_some() || self.next.is_none_or(|next| now < next) {
            return false;
        }
        // The port is free once the connections of the life before have drained.
        if self.begin().await.is_err() {
            return false;
        }
        (self.next, self.restarted) = (None, Some(now));
        true
    }

    /// Whether it serves, and is to go on.
    pub fn is_up(&self) -> bool {
        self.running.is_some() && self.next.is_none()
    }

    /// The room; none when nobody is in it or there is no relay.
    pub fn room(&self) -> Option<RoomSnapshot> {
        let room = RoomId::new(ROOM).expect("a valid room id");
        self.running.as_ref()?.handle.room(&AppId::dev(), &room)
    }

    /// Looks into it.
    pub fn handle(&self) -> Option<&RelayHandle> {
        self.running.as_ref().map(|running| &running.handle)
    }
}

/// A directory of its own for the certificate, which clients pin, so that it outlives the relay.
struct Directory(PathBuf);

static DIRECTORIES: AtomicU64 = AtomicU64::new(0);

impl Directory {
    fn new() -> Self {
        let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        Directory(std::env::temp_dir().join(format!("parlor-chaos-{}-{number}", std::process::id())))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}
