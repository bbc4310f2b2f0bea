//! The lobby behind its lock, and the way from its notices to the connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use parlor_transport::clock::Clock;
use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::SessionId;
use parlor_transport::quic::Session;
use parlor_transport::units::{Timestamp, UnixTime};
use parlor_transport::wire::control::{AppMessage, ClientMessage, Departure};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, watch};

use crate::auth::App;
use crate::connection::messages::Messages;
use crate::limits::NOTICES_MAX;
use crate::lobby::outbox::Put;
use crate::lobby::{Lobby, Notice, Output, SharedRoom, Survey};
use crate::lock;
use crate::room::View;
use crate::room::index::RoomKey;

/// What all connections share. Its lock is held for one message at a time, never across an await.
pub(crate) struct Hub {
    clock: Clock,
    calendar: Calendar,
    /// Something is due sooner than the last answer of [`Hub::poll_timeout`] said.
    sooner: Notify,
    state: Mutex<State>,
    counts: Counts,
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
    /// What [`Hub::poll_timeout`] said last.
    told: Option<Timestamp>,
    routes: BTreeMap<SessionId, Route>,
    /// Tells the members of a room that it has new events.
    rooms: BTreeMap<RoomKey, watch::Sender<()>>,
}

struct Route {
    mail: mpsc::Sender<Mail>,
    messages: Arc<Messages>,
    session: Session,
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
    Entered(SharedRoom, View, watch::Receiver<()>),
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicU64,
    pub(crate) frames_received: AtomicU64,
    pub(crate) frames_lost: AtomicU64,
    pub(crate) frames_sent: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) messages_sent: AtomicU64,
    pub(crate) messages_dropped: AtomicU64,
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
    /// App messages passed on, each counted once for each receiver.
    pub messages_sent: u64,
    /// Lossy app messages dropped because their receiver was slow, counted likewise.
    pub messages_dropped: u64,
}

impl Hub {
    pub(crate) fn new(clock: Clock, calendar: Calendar, lobby: Lobby) -> Self {
        let state = State { lobby, told: None, routes: BTreeMap::new(), rooms: BTreeMap::new() };
        Hub { clock, calendar, sooner: Notify::new(), state: Mutex::new(state), counts: Counts::default() }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
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
        state.routes.insert(id, Route { mail: mail.clone(), messages: messages.clone(), session });
        self.counts.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Connected { id, mail, inbox, messages })
    }

    /// A connection ended.
    pub(crate) fn disconnect(&self, id: SessionId, reason: Departure) {
        let mut state = lock(&self.state);
        state.routes.remove(&id);
        state.lobby.disconnect(self.clock.now(), id, reason);
        state.deliver(&self.counts);
    }

    /// A client asked for something.
    pub(crate) fn handle(&self, id: SessionId, message: ClientMessage) {
        let mut state = lock(&self.state);
        state.lobby.handle(self.clock.now(), self.date(), id, message);
        state.deliver(&self.counts);
        let due = state.lobby.poll_timeout();
        if due.is_some_and(|due| state.told.is_none_or(|told| due < told)) {
            self.sooner.notify_one();
        }
    }

    /// A client has something to say to others.
    pub(crate) fn handle_app_message(&self, id: SessionId, message: AppMessage) {
        let mut state = lock(&self.state);
        state.lobby.handle_app_message(self.clock.now(), id, message);
        state.deliver(&self.counts);
    }

    /// What was due is done.
    pub(crate) fn handle_timeout(&self) {
        let mut state = lock(&self.state);
        state.lobby.handle_timeout(self.clock.now(), self.date());
        state.deliver(&self.counts);
    }

    /// When [`Hub::handle_timeout`] is due; to be asked again after [`Hub::sooner`].
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        let mut state = lock(&self.state);
        state.told = state.lobby.poll_timeout();
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
        match self.calendar {
            Calendar::System => system_date(),
            Calendar::Clock => UnixTime::from_micros(self.clock.now().as_micros()),
        }
    }

    pub(crate) fn close_all(&self, refusal: &Refusal) {
        let mut state = lock(&self.state);
        state.lobby.close_all(refusal);
        state.deliver(&self.counts);
    }

    pub(crate) fn is_joined(&self, id: SessionId) -> bool {
        lock(&self.state).lobby.is_joined(id)
    }

    /// Room and user of a connection, for the log.
    pub(crate) fn place(&self, id: SessionId) -> (String, String) {
        lock(&self.state).lobby.place(id)
    }

    pub(crate) fn room(&self, key: &RoomKey) -> Option<SharedRoom> {
        lock(&self.state).lobby.room(key)
    }

    pub(crate) fn survey(&self) -> Survey {
        lock(&self.state).lobby.survey()
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
    /// Hands out what the lobby has to say. A connection whose box is full is given up: it does not read.
    fn deliver(&mut self, counts: &Counts) {
        while let Some(output) = self.lobby.poll_output() {
            match output {
                Output::RoomChanged(key) => {
                    if let Some(signal) = self.rooms.get(&key) {
                        signal.send_replace(());
                    }
                }
                Output::Message { to, message, lossy } => {
                    for id in to {
                        self.pass_on(counts, id, message.clone(), lossy);
                    }
                }
                Output::RoomEnded(key) => _ = self.rooms.remove(&key),
                Output::Notice(id, notice) => {
                    let mail = match notice {
                        Notice::Entered(room, view) => {
                            let key = lock(&room).key().clone();
                            let signal = self.rooms.entry(key).or_insert_with(|| watch::Sender::new(()));
                            Mail::Entered(room, view, signal.subscribe())
                        }
                        notice => Mail::Notice(notice),
                    };
                    let Some(route) = self.routes.get(&id) else { continue };
                    if let Err(TrySendError::Full(_)) = route.mail.try_send(mail) {
                        self.give_up(id);
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
