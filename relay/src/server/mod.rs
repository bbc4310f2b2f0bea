//! The relay as a whole: its socket, its certificate, its connections' lives.

mod door;
mod hub;
pub mod process;
mod pulse;
mod reload;
mod signals;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parlor_transport::address::RelayAddress;
use parlor_transport::clock::Clock;
use parlor_transport::error::{Code, Refusal};
use parlor_transport::hop::SendStats;
use parlor_transport::id::{AppId, RoomId, UserId};
use parlor_transport::quic::{self, Binding, Endpoint, Fingerprint, Identity, IdentityError};
use parlor_transport::wire::control::{Extras, StreamInfo, UserInfo};
use tokio::task::JoinSet;

use crate::auth::App;
use crate::auth::resume::ResumeKey;
use crate::config::http::Webhooks;
use crate::config::{Config, ConfigError, Tls};
use crate::http::{HttpError, Listener, webhooks};
use crate::limits::{CERTIFICATE_POLL_INTERVAL, SHUTDOWN_MAX};
use crate::lobby::{Lobby, Survey};
use crate::overload::{Overload, Shed};
use crate::room::index::{MemoryIndex, RoomKey};
use hub::{Calendar, system_date};
pub(crate) use hub::{Connected, Hub, Mail, Readiness};
pub use hub::{Counters, shedding::OverloadFigures};
use reload::Settings;
pub use reload::{ReloadError, Reloaded};
pub(crate) use signals::Told;

/// A relay that is bound to its socket. It serves once it [runs](Relay::run).
///
/// ```
/// use parlor_relay::{Config, Relay};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let relay = Relay::bind(Config::dev()).await?;
/// println!("parlor join {}", relay.address(None));
/// let handle = relay.handle();
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let running = tokio::spawn(relay.run(async { _ = stopped.await }));
/// assert_eq!(handle.survey().connections, 0);
/// drop(stop);
/// running.await.unwrap();
/// # Ok::<(), parlor_relay::BindError>(())
/// # }).unwrap();
/// ```
pub struct Relay {
    endpoint: Endpoint,
    local: SocketAddr,
    /// What clients pin; none when authorities vouch for the certificate.
    fingerprint: Option<Fingerprint>,
    certificate: Option<CertificateFiles>,
    http: Option<Listener>,
    webhooks: Option<Webhooks>,
    config: Config,
    hub: Arc<Hub>,
}

/// Why a relay could not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificate or key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Qlog files were asked for and cannot be written.
    #[error(transparent)]
    Qlog(#[from] quic::QlogError),
    /// The address cannot be had.
    #[error(transparent)]
    Socket(#[from] quic::BindError),
    /// The HTTP address cannot be had.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The socket does not work.
    #[error("cannot serve on the socket: {0}")]
    Endpoint(#[from] io::Error),
}

impl Relay {
    /// Binds to the address of `config`. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`], which says what to do.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        config.check()?;
        let binding = Binding::udp(config.listen)?;
        // Later runs have later epochs, as long as the machine's date does not go back.
        let epoch_first = system_date().as_micros();
        let http = match config.http {
            Some(address) => Some(Listener::bind(address, config.admin_token.clone()).await?),
            None => None,
        };
        let relay = Self::serve(config, binding, epoch_first, Calendar::System)?;
        let webhooks = relay.config.webhooks.clone();
        if webhooks.is_some() {
            relay.hub.operate(|_, _, lobby| lobby.report_happenings());
        }
        Ok(Relay { http, webhooks, ..relay })
    }

    /// Binds to `binding` instead of the address of `config`: in a simulation, its clock and network. The
    /// clock is the calendar, too: its origin is taken for the beginning of 1970 when tokens are dated. It serves
    /// no HTTP and posts nothing.
    ///
    /// # Errors
    /// [`BindError`], which says what to do.
    pub async fn bind_on(config: Config, binding: Binding) -> Result<Self, BindError> {
        config.check()?;
        let epoch_first = binding.clock().now().as_micros() + 1;
        Self::serve(config, binding, epoch_first, Calendar::Clock)
    }

    fn serve(
        config: Config,
        binding: Binding,
        epoch_first: u64,
        calendar: Calendar,
    ) -> Result<Self, BindError> {
        config.quic.check()?;
        let (identity, pinned, certificate) = match &config.tls {
            Tls::Files { certificate, key } => {
                let files = CertificateFiles::new(certificate.clone(), key.clone());
                (Identity::from_pem_files(certificate, key)?, false, Some(files))
            }
            Tls::Development(directory) => (Identity::development(directory)?, true, None),
            Tls::Ephemeral => (Identity::ephemeral()?, true, None),
        };
        let clock = binding.clock().clone();
        let settings = Settings { limits: config.limits.clone(), quic: config.quic.clone() };
        let endpoint = Endpoint::server(binding, &identity, config.quic.clone())?;
        let resume_key = ResumeKey::generate()
            .ok_or_else(|| io::Error::other("the operating system gives no random numbers"))?;
        let index = MemoryIndex::new(config.limits.clone(), epoch_first);
        let overload = Overload::new(clock.now(), config.overload);
        let lobby = Lobby::new(config.apps.clone(), config.limits.clone(), Box::new(index), resume_key);
        Ok(Relay {
            local: endpoint.local_addr()?,
            fingerprint: pinned.then(|| identity.fingerprint()),
            certificate,
            http: None,
            webhooks: None,
            config,
            hub: Arc::new(Hub::new(clock, calendar, lobby, settings, overload)),
            endpoint,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Where health, metrics and the admin API are (TCP), if anywhere.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Listener::local_addr)
    }

    /// The address to paste into `parlor join`, with the certificate's fingerprint if clients must pin it.
    pub fn address(&self, room: Option<RoomId>) -> RelayAddress {
        // Nobody can connect to 0.0.0.0; from this machine the loopback address does.
        let ip = match self.local.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let host = self.config.host.clone().unwrap_or_else(|| ip.to_string());
        RelayAddress { host, port: self.local.port(), room, fingerprint: self.fingerprint }
    }

    /// Where the configuration comes from when it is to be [read again](RelayHandle::reload): from `source`, which gives
    /// it or says what is wrong with it. Only the first call counts.
    pub fn on_reload(&self, source: impl Fn() -> Result<Config, String> + Send + Sync + 'static) {
        self.hub.reloading().set_source(self.config.clone(), Box::new(source));
    }

    /// A view of the relay for tests, demonstrations and programs around it.
    pub fn handle(&self) -> RelayHandle {
        RelayHandle { hub: self.hub.clone() }
    }

    /// Serves until `shutdown` is ready. Then nobody new comes in, everyone is told that the relay
    /// goes, and it returns when all are gone, or after 3 s.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let drain = async {
            shutdown.await;
            None
        };
        self.run_draining(drain, std::future::ready(())).await;
    }

    /// Serves until `drain` is ready. Then nobody joins any more, everyone is told so, with the address of
    /// another relay if `drain` gave one, and the relay goes on for those who are there: until all are gone,
    /// the configured time is over, or `stop` is ready. After that it ends as [`run`](Self::run) does.
    pub async fn run_draining(
        self,
        drain: impl Future<Output = Option<RelayAddress>>,
        stop: impl Future<Output = ()>,
    ) {
        let Relay { endpoint, hub, config, mut certificate, http, webhooks, .. } = self;
        let clock = hub.clock().clone();
        // Who can ask from here on has a socket to connect to.
        hub.set_readiness(Readiness::Serving);
        // Ends with this function.
        let mut beside = JoinSet::new();
        beside.spawn(pulse::beat(hub.clone()));
        if let Some(listener) = http {
            beside.spawn(listener.serve(hub.clone()));
        }
        let is_posting = webhooks.is_some();
        if let Some(webhooks) = webhooks {
            beside.spawn(webhooks::post_all(clock.clone(), webhooks, hub.outbox().clone()));
        }
        let mut drain_timer = clock.timer();
        let mut is_draining = false;
        let mut connections = JoinSet::new();
        let mut certificate_timer = clock.timer();
        if certificate.is_some() {
            certificate_timer.reset(Some(clock.now() + CERTIFICATE_POLL_INTERVAL));
        }
        let mut lobby_timer = clock.timer();
        let mut settings = hub.watch_settings();
        let (mut drain, mut stop) = (std::pin::pin!(drain), std::pin::pin!(stop));
        loop {
            if is_draining && connections.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                address = &mut drain, if !is_draining => {
                    is_draining = true;
                    hub.set_readiness(Readiness::Draining);
                    tracing::info!(connections = connections.len(), "draining: nobody joins any more");
                    hub.drain(address.as_ref());
                    drain_timer.reset(Some(clock.now() + config.drain_timeout));
                }
                () = &mut stop, if is_draining => break,
                () = drain_timer.expired(), if is_draining => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                incoming = endpoint.accept() => {
                    let Some(incoming) = incoming else { break };
                    if let Some((incoming, entry)) = door::knock(&hub, incoming) {
                        connections.spawn(door::welcome(hub.clone(), incoming, entry));
                    }
                }
                Ok(()) = settings.changed() => endpoint.set_options(settings.borrow_and_update().quic.clone()),
                () = hub.sooner() => lobby_timer.reset(hub.poll_timeout()),
                () = lobby_timer.expired() => {
                    hub.handle_timeout();
                    lobby_timer.reset(hub.poll_timeout());
                }
                () = certificate_timer.expired() => {
                    if let Some(files) = &mut certificate {
                        files.reload(&endpoint);
                    }
                    certificate_timer.reset(Some(clock.now() + CERTIFICATE_POLL_INTERVAL));
                }
            }
        }
        tracing::info!(connections = connections.len(), "shutting down");
        hub.close_all(&Refusal::from(Code::RelayShutdown));
        let ended = clock.timeout(SHUTDOWN_MAX, async { while connections.join_next().await.is_some() {} });
        if ended.await.is_err() {
            tracing::warn!(connections = connections.len(), "some connections did not end in time");
        }
        if is_posting && clock.timeout(SHUTDOWN_MAX, hub.outbox().empty()).await.is_err() {
            tracing::warn!(waiting = hub.outbox().counters().waiting, "events were not taken in time");
        }
        endpoint.close(Code::RelayShutdown, Code::RelayShutdown.text());
        _ = clock.timeout(SHUTDOWN_MAX, endpoint.wait_idle()).await;
    }
}

/// Certificate files, and when they were last changed.
struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    changed: [Option<SystemTime>; 2],
}

impl CertificateFiles {
    fn new(certificate: PathBuf, key: PathBuf) -> Self {
        let mut files = CertificateFiles { certificate, key, changed: [None; 2] };
        files.changed = files.look();
        files
    }

    fn look(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key].map(|path| path.metadata().and_then(|file| file.modified()).ok())
    }

    /// Reads the files if they changed. What cannot be used is logged, and the old certificate stays.
    fn reload(&mut self, endpoint: &Endpoint) {
        let changed = self.look();
        if changed == self.changed {
            return;
        }
        self.changed = changed;
        let loaded = Identity::from_pem_files(&self.certificate, &self.key)
            .map_err(|error| error.to_string())
            .and_then(|identity| endpoint.set_identity(&identity).map_err(|error| error.to_string()));
        match loaded {
            Ok(()) => tracing::info!(certificate = %self.certificate.display(), "certificate reloaded"),
            Err(error) => {
                tracing::warn!(error, "the new certificate cannot be used; the old one stays in service");
            }
        }
    }
}

/// A view of a running relay. Clones see the same one.
#[derive(Clone)]
pub struct RelayHandle {
    hub: Arc<Hub>,
}

/// A room at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomSnapshot {
    /// The room's life.
    pub epoch: u64,
    /// Its position.
    pub position: u64,
    /// Who is there, by user id.
    pub users: Vec<UserInfo>,
    /// What is published, by stream id.
    pub streams: Vec<StreamInfo>,
    /// States of tracks that are not open, and what is attached to streams and the room.
    pub extras: Extras,
}

impl RelayHandle {
    /// The room as it is now; `None` when nobody is in it.
    pub fn room(&self, app: &AppId, room: &RoomId) -> Option<RoomSnapshot> {
        let key = RoomKey { app: app.clone(), room: room.clone() };
        let room = self.hub.room(&key)?;
        let room = crate::lock(&room);
        Some(RoomSnapshot {
            epoch: room.epoch(),
            position: room.position(),
            users: room.roster().iter().collect(),
            streams: room.streams().iter().cloned().collect(),
            extras: room.extras().to_wire(),
        })
    }

    /// The apps that exist from now on, instead of those of the configuration. Who is in a room stays there
    /// until the token has to be renewed, which is done with the new keys.
    pub fn set_apps(&self, apps: Vec<App>) {
        self.hub.set_apps(apps);
    }

    /// Reads the configuration again, from where [`Relay::on_reload`] said, and goes by its apps, limits and timeouts. Who
    /// and what is over a new limit stays until it goes by itself. May wait for files.
    ///
    /// # Errors
    /// [`ReloadError`] when it will not do; nothing changed then.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        self.hub.reload()
    }

    /// Puts a user out of `room`, or of whichever room of the app they are in.
    ///
    /// # Errors
    /// [`Code::NotFound`] when they are not there.
    pub fn kick(&self, app: &AppId, room: Option<&RoomId>, user: &UserId) -> Result<(), Refusal> {
        self.hub.operate(|now, _, lobby| lobby.kick(now, app, room, user))
    }

    /// Sends everyone in a room away, which ends it; gives how many they were. They may come again, to a new one.
    ///
    /// # Errors
    /// [`Code::NotFound`] when nobody is in it.
    pub fn close_room(&self, app: &AppId, room: &RoomId) -> Result<usize, Refusal> {
        let key = RoomKey { app: app.clone(), room: room.clone() };
        self.hub.operate(|now, _, lobby| lobby.close_room(now, &key))
    }

    /// How much there is of everything now.
    pub fn survey(&self) -> Survey {
        self.hub.survey()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.hub.counters()
    }

    /// Leaves out this from now on as if the machine were too slow, whatever is measured; with `None` what is measured
    /// counts again. For drills, and to leave out nothing at all.
    pub fn force_overload(&self, shed: Option<Shed>) {
        self.hub.force_overload(shed);
    }

    /// Whether the machine keeps up, and what is left out.
    pub fn overload(&self) -> OverloadFigures {
        self.hub.overload()
    }

    /// What left on the connections that there are now, by kind.
    pub fn sent(&self) -> Vec<SendStats> {
        self.hub.sessions().iter().map(|session| session.out_stats().sent).collect()
    }

    /// The relay's clock.
    pub fn clock(&self) -> &Clock {
        self.hub.clock()
    }
}
