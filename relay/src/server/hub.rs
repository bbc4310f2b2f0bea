//! The lobby behind its lock, and the way from its notices to the connections.

pub(super) mod shedding;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use parlor_transport::address::RelayAddress;
use parlor_transport::clock::Clock;
use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::SessionId;
use parlor_transport::quic::Session;
use parlor_transport::units::{Timestamp, UnixTime};
use parlor_transport::wire::control::{AppMessage, ClientMessage, Departure};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, watch};

use super::reload::{Reloading, Settings};
use crate::auth::App;
use crate::connection::messages::Messages;
use crate::forward::cursor::CutFrames;
use crate::forward::voices::Voices;
use crate::gate::{Gate, GateCounts};
use crate::http::webhooks::Outbox;
use crate::limits::NOTICES_MAX;
use crate::lobby::outbox::Put;
use crate::lobby::{Lobby, Notice, Output, SharedRoom, Survey};
use crate::lock;
use crate::metrics::latency::{self, Histogram};
use crate::overload::{Overload, Shed};
use crate::room::View;
use crate::room::index::RoomKey;
use crate::server::signals::{Signals, Told};

/// What all connections share. Its lock is held for one message at a time, never across an await.
pub(crate) struct Hub {
    clock: Clock,
    calendar: Calendar,
    /// Something is due sooner than the last answer of [`Hub::poll_timeout`] said.
    sooner: Notify,
    state: Mutex<State>,
    counts: Counts,
    readiness: AtomicU8,
    outbox: Arc<Outbox>,
    gate: Mutex<Gate>,
    overload: Mutex<Overload>,
    /// What is left out, for every frame to ask.
    shed: AtomicU8,
    /// Some clients have not been told of it. Set with the state's lock held.
    has_untold: AtomicBool,
    /// Nobody else can be served.
    is_full: AtomicBool,
    settings: watch::Sender<Arc<Settings>>,
    reloading: Reloading,
}

/// Whether the relay takes joins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Readiness {
    /// Not yet.
    Starting = 0,
    /// Yes.
    Serving = 1,
    /// No more.
    Draining = 2,
}

/// Where the date comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Calendar {
    /// From the system.
    System,
    /// From the clock, whose origin is taken for the beginning of 1970: in a simulation.
    Clock,
}

struct State {
    lobby: Lobby,
    /// What happened, for the app's server.
    outbox: Arc<Outbox>,
    clock: Clock,
    calendar: Calendar,
    /// What [`Hub::poll_timeout`] said last.
    told: Option<Timestamp>,
    /// How long requests took, by operation.
    latencies: BTreeMap<&'static str, Histogram>,
    /// By the session that a connection serves.
    routes: BTreeMap<SessionId, Route>,
    /// The sessions that connections resumed, by the session that they began with.
    resumed: BTreeMap<SessionId, SessionId>,
    /// Tells the members of rooms that there are new events.
    signals: Signals,
    /// The level of overload, and from which session on clients have not been told.
    level: u8,
    untold: Option<SessionId>,
}

struct Route {
    mail: mpsc::Sender<Mail>,
    messages: Arc<Messages>,
    session: Session,
    /// The session that the connection began with: its name here.
    connection: SessionId,
    /// The client is in a room.
    is_in: bool,
    /// The level of overload that it was told.
    level: u8,
}

/// What a connection gets when it comes.
pub(crate) struct Connected {
    pub(crate) id: SessionId,
    /// The way to put something into its box.
    pub(crate) mail: mpsc::Sender<Mail>,
    pub(crate) inbox: mpsc::Receiver<Mail>,
    /// App messages for it.
    pub(crate) messages: Arc<Messages>,
}

/// What a connection finds in its box, in order.
pub(crate) enum Mail {
    /// From the lobby.
    Notice(Notice),
    /// [`Notice::Entered`], with the signal of new events.
    Entered {
        room: SharedRoom,
        view: View,
        from: Option<u64>,
        changed: watch::Receiver<Told>,
        voices: Arc<Voices>,
    },
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicU64,
    pub(crate) frames_received: AtomicU64,
    pub(crate) frames_lost: AtomicU64,
    pub(crate) frames_sent: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) frames_skipped: AtomicU64,
    pub(crate) frames_cut: CutCounts,
    pub(crate) frames_gone: AtomicU64,
    pub(crate) frames_over_limit: AtomicU64,
    pub(crate) frames_unheard: AtomicU64,
    pub(crate) messages_sent: AtomicU64,
    pub(crate) messages_dropped: AtomicU64,
}

/// As [`CutFrames`].
#[derive(Default)]
pub(crate) struct CutCounts {
    layers: AtomicU64,
    discardable: AtomicU64,
    video: AtomicU64,
}

impl CutCounts {
    pub(crate) fn add(&self, cut: CutFrames) {
        let CutFrames { layers, discardable, video } = cut;
        for (count, more) in [(&self.layers, layers), (&self.discardable, discardable), (&self.video, video)]
        {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }
}

/// What happened since the relay started.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Connections taken.
    pub connections: u64,
    /// Frames received from publishers.
    pub frames_received: u64,
    /// Frames that publishers sent and that never came.
    pub frames_lost: u64,
    /// Frames sent to players, each counted once for each player.
    pub frames_sent: u64,
    /// Their bytes, headers included.
    pub bytes_sent: u64,
    /// Bytes of the frames received, headers included.
    pub bytes_received: u64,
    /// Frames left out for a player that was too slow for them or did not want them.
    pub frames_skipped: u64,
    /// Frames left out for a player because the machine was too slow.
    pub frames_cut: CutFrames,
    /// Frames that a player was to get and that were gone before their turn came.
    pub frames_gone: u64,
    /// Frames from publishers that were over their limit, and dropped.
    pub frames_over_limit: u64,
    /// Frames of sound that were passed on to nobody, because other voices of a large room are heard.
    pub frames_unheard: u64,
    /// What became of attempts to connect.
    pub gate: GateCounts,
    /// App messages passed on, each counted once for each receiver.
    pub messages_sent: u64,
    /// Lossy app messages dropped because their receiver was slow, counted likewise.
    pub messages_dropped: u64,
}

impl Hub {
    pub(crate) fn new(
        clock: Clock,
        calendar: Calendar,
        lobby: Lobby,
        settings: Settings,
        overload: Overload,
    ) -> Self {
        let outbox = Arc::<Outbox>::default();
        let now = clock.now();
        let state = State {
            lobby,
            outbox: outbox.clone(),
            clock: clock.clone(),
            calendar,
            told: None,
            latencies: BTreeMap::new(),
            routes: BTreeMap::new(),
            resumed: BTreeMap::new(),
            signals: Signals::default(),
            level: 0,
            untold: None,
        };
        let hub = Hub {
            clock,
            calendar,
            sooner: Notify::new(),
            state: Mutex::new(state),
            counts: Counts::default(),
            readiness: AtomicU8::new(0),
            outbox,
            gate: Mutex::new(Gate::new(now, settings.limits.clone())),
            overload: Mutex::new(overload),
            shed: AtomicU8::new(Shed::NONE.to_bits()),
            has_untold: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            settings: watch::Sender::new(Arc::new(settings)),
            reloading: Reloading::default(),
        };
        hub.look_at_overload();
        hub
    }

    /// Held for one question at a time, and with no other lock.
    pub(crate) fn gate(&self) -> MutexGuard<'_, Gate> {
        lock(&self.gate)
    }

    /// What holds now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.borrow().clone()
    }

    /// Tells of every change to them.
    pub(crate) fn watch_settings(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }

    /// Other settings from now on.
    pub(crate) fn set_settings(&self, settings: Settings) {
        let limits = settings.limits.clone();
        self.operate(|now, _, lobby| lobby.set_limits(now, &limits));
        self.gate().set_limits(self.clock.now(), limits);
        self.settings.send_replace(Arc::new(settings));
    }

    pub(crate) fn reloading(&self) -> &Reloading {
        &self.reloading
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    pub(crate) fn readiness(&self) -> Readiness {
        match self.readiness.load(Ordering::Relaxed) {
            0 => Readiness::Starting,
            1 => Readiness::Serving,
            _ => Readiness::Draining,
        }
    }

    pub(crate) fn set_readiness(&self, readiness: Readiness) {
        self.readiness.store(readiness as u8, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A connection came.
    pub(crate) fn connect(&self, session: Session) -> Result<Connected, Refusal> {
        let mut state = lock(&self.state);
        let id = state.lobby.connect(self.clock.now())?;
        let (mail, inbox) = mpsc::channel(NOTICES_MAX);
        let messages = Arc::<Messages>::default();
        let route = Route {
            mail: mail.clone(),
            messages: messages.clone(),
            session,
            connection: id,
            is_in: false,
            level: 0,
        };
        state.routes.insert(id, route);
        self.counts.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Connected { id, mail, inbox, messages })
    }

    /// A connection ended, or was lost.
    pub(crate) fn disconnect(&self, id: SessionId, reason: Departure, was_lost: bool) {
        let mut state = lock(&self.state);
        let session = state.session_of(id);
        state.resumed.remove(&id);
        // It may go on with another connection already.
        if state.routes.get(&session).is_some_and(|route| route.connection == id) {
            state.routes.remove(&session);
            match was_lost {
                true => state.lobby.lose(self.clock.now(), session, reason),
                false => state.lobby.disconnect(self.clock.now(), session, reason),
            }
            state.deliver(&self.counts);
        }
        self.tell_due(&state);
    }

    /// A client asked for something.
    pub(crate) fn handle(&self, id: SessionId, message: ClientMessage) {
        let operation = latency::operation(&message);
        let asked = self.clock.now();
        let mut state = lock(&self.state);
        let session = state.session_of(id);
        if state.routes.get(&session).is_some_and(|route| route.connection == id) {
            state.lobby.handle(self.clock.now(), self.date(), session, message);
            state.deliver(&self.counts);
            // With the time it waited for others: what clients wait for.
            let took = self.clock.now().saturating_since(asked);
            state.latencies.entry(operation).or_default().record(took);
        }
        self.tell_due(&state);
    }

    fn tell_due(&self, state: &State) {
        let due = state.poll_timeout();
        if due.is_some_and(|due| state.told.is_none_or(|told| due < told)) {
            self.sooner.notify_one();
        }
    }

    /// What a client publishes on `lane` ends: it is too much.
    pub(crate) fn end_stream_over_limit(&self, id: SessionId, lane: u32) {
        let mut state = lock(&self.state);
        let session = state.session_of(id);
        state.lobby.end_stream_over_limit(self.clock.now(), session, lane);
        state.deliver(&self.counts);
        self.tell_due(&state);
    }

    /// A client has something to say to others.
    pub(crate) fn handle_app_message(&self, id: SessionId, message: AppMessage) {
        let mut state = lock(&self.state);
        let session = state.session_of(id);
        if state.routes.get(&session).is_some_and(|route| route.connection == id) {
            state.lobby.handle_app_message(self.clock.now(), session, message);
            state.deliver(&self.counts);
        }
    }

    /// What was due is done.
    pub(crate) fn handle_timeout(&self) {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        if state.lobby.poll_timeout().is_some_and(|due| due <= now) {
            state.lobby.handle_timeout(now, self.date());
            state.deliver(&self.counts);
        }
        state.signals.handle_timeout(now);
    }

    /// When [`Hub::handle_timeout`] is due; to be asked again after [`Hub::sooner`].
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        let mut state = lock(&self.state);
        state.told = state.poll_timeout();
        state.told
    }

    /// Waits until [`Hub::poll_timeout`] has a sooner answer.
    pub(crate) async fn sooner(&self) {
        self.sooner.notified().await;
    }

    pub(crate) fn set_apps(&self, apps: Vec<App>) {
        lock(&self.state).lobby.set_apps(apps);
    }

    fn date(&self) -> UnixTime {
        self.calendar.date(&self.clock)
    }

    pub(crate) fn drain(&self, address: Option<&RelayAddress>) {
        self.operate(|_, _, lobby| lobby.drain(address.map(ToString::to_string).as_deref()));
    }

    pub(crate) fn close_all(&self, refusal: &Refusal) {
        let mut state = lock(&self.state);
        state.lobby.close_all(refusal);
        state.deliver(&self.counts);
    }

    /// Does something with the lobby that is not a client's request, and delivers what comes of it.
    pub(crate) fn operate<T>(&self, action: impl FnOnce(Timestamp, UnixTime, &mut Lobby) -> T) -> T {
        let mut state = lock(&self.state);
        let outcome = action(self.clock.now(), self.date(), &mut state.lobby);
        state.deliver(&self.counts);
        self.tell_due(&state);
        outcome
    }

    /// How long requests took, by operation.
    pub(crate) fn latencies(&self) -> BTreeMap<&'static str, Histogram> {
        lock(&self.state).latencies.clone()
    }

    /// Every connection's session.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        lock(&self.state).routes.values().map(|route| route.session.clone()).collect()
    }

    pub(crate) fn is_joined(&self, id: SessionId) -> bool {
        let state = lock(&self.state);
        state.lobby.is_joined(state.session_of(id))
    }

    /// Room and user of a connection, for the log.
    pub(crate) fn place(&self, id: SessionId) -> (String, String) {
        let state = lock(&self.state);
        state.lobby.place(state.session_of(id))
    }

    pub(crate) fn room(&self, key: &RoomKey) -> Option<SharedRoom> {
        lock(&self.state).lobby.room(key)
    }

    pub(crate) fn survey(&self) -> Survey {
        let state = lock(&self.state);
        let queued_bytes = state.routes.values().map(|route| route.messages.bytes()).sum();
        Survey { queued_bytes, ..state.lobby.survey() }
    }

    pub(crate) fn counters(&self) -> Counters {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counters {
            connections: get(&self.counts.connections),
            frames_received: get(&self.counts.frames_received),
            frames_lost: get(&self.counts.frames_lost),
            frames_sent: get(&self.counts.frames_sent),
            bytes_sent: get(&self.counts.bytes_sent),
            messages_sent: get(&self.counts.messages_sent),
            messages_dropped: get(&self.counts.messages_dropped),
            bytes_received: get(&self.counts.bytes_received),
            frames_skipped: get(&self.counts.frames_skipped),
            frames_cut: CutFrames {
                layers: get(&self.counts.frames_cut.layers),
                discardable: get(&self.counts.frames_cut.discardable),
                video: get(&self.counts.frames_cut.video),
            },
            frames_gone: get(&self.counts.frames_gone),
            frames_over_limit: get(&self.counts.frames_over_limit),
            frames_unheard: get(&self.counts.frames_unheard),
            gate: self.gate().counts(),
        }
    }
}

impl Calendar {
    fn date(self, clock: &Clock) -> UnixTime {
        match self {
            Calendar::System => system_date(),
            Calendar::Clock => UnixTime::from_micros(clock.now().as_micros()),
        }
    }
}

/// The date as the system has it.
pub(crate) fn system_date() -> UnixTime {
    #[expect(clippy::disallowed_methods, reason = "tokens and epochs are dated; simulations use their clock")]
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

impl State {
    /// The session that a connection serves now.
    fn session_of(&self, connection: SessionId) -> SessionId {
        self.resumed.get(&connection).copied().unwrap_or(connection)
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.lobby.poll_timeout().into_iter().chain(self.signals.poll_timeout()).min()
    }

    /// A session goes on with another connection.
    fn move_route(&mut self, session: SessionId, connection: SessionId) {
        let Some(route) = self.routes.remove(&connection) else { return };
        self.resumed.insert(connection, session);
        if let Some(before) = self.routes.insert(session, route) {
            before.session.close(Code::ConnectionLost, "the session goes on with another connection");
        }
    }

    /// Hands out what the lobby has to say. A connection whose box is full is given up: it does not read.
    fn deliver(&mut self, counts: &Counts) {
        while let Some(output) = self.lobby.poll_output() {
            match output {
                Output::RoomChanged(key) => {
                    if let Some(room) = self.lobby.room(&key) {
                        self.signals.change(self.clock.now(), &lock(&room));
                    }
                }
                Output::Message { to, message, lossy } => {
                    for id in to {
                        self.pass_on(counts, id, message.clone(), lossy);
                    }
                }
                Output::RoomEnded(key) => self.signals.end(&key),
                Output::Resumed { session, connection } => self.move_route(session, connection),
                Output::Happened(happening) => {
                    self.outbox.push(self.calendar.date(&self.clock), happening);
                }
                Output::Notice(id, notice) => {
                    let is_in = match &notice {
                        Notice::Entered { .. } => Some(true),
                        Notice::Left => Some(false),
                        _ => None,
                    };
                    let mail = match notice {
                        Notice::Entered { room, view, from, voices } => {
                            let changed = self.signals.subscribe(&lock(&room), view);
                            Mail::Entered { room, view, from, changed, voices }
                        }
                        notice => Mail::Notice(notice),
                    };
                    let Some(route) = self.routes.get_mut(&id) else { continue };
                    if let Err(TrySendError::Full(_)) = route.mail.try_send(mail) {
                        self.give_up(id);
                        continue;
                    }
                    route.is_in = is_in.unwrap_or(route.is_in);
                    if is_in.is_some() {
                        route.tell(self.level);
                    }
                }
            }
        }
    }

    /// Puts an app message into somebody's outbox.
    fn pass_on(&self, counts: &Counts, id: SessionId, message: Bytes, lossy: bool) {
        let Some(route) = self.routes.get(&id) else { return };
        match route.messages.put(message, lossy) {
            Put::Queued => _ = counts.messages_sent.fetch_add(1, Ordering::Relaxed),
            Put::Dropped => _ = counts.messages_dropped.fetch_add(1, Ordering::Relaxed),
            Put::Full => self.give_up(id),
        }
    }

    fn give_up(&self, id: SessionId) {
        let Some(route) = self.routes.get(&id) else { return };
        let (room, user) = self.lobby.place(id);
        tracing::warn!(session = id.0, room, user, "closing: it does not read what it is sent");
        route.session.close(Code::PeerTooSlow, Code::PeerTooSlow.text());
    }
}
