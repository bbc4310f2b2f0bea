//! Where requests are answered: who is connected, in which room, publishing and playing what.
//!
//! A machine: messages of clients and ends of connections go in, notices for connections come out.
//! What concerns everyone is decided by the index; the lobby proposes, and carries out its verdicts.
//! It moves no frames and writes to no connection.

mod client;
mod extras;
mod messages;
pub mod moderation;
mod notice;
pub mod outbox;
mod report;
mod resume;
mod tokens;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::{AppId, SessionId, StreamId, UserId};
use parlor_transport::units::{Timestamp, UnixTime};
use parlor_transport::wire::control::*;
use parlor_transport::wire::hop::LANE_MAX;

use crate::auth::App;
use crate::auth::resume::ResumeKey;
use crate::forward::publication::Publication;
use crate::forward::voices::Voices;
use crate::limits::{AGENT_BYTES_MAX, Limits};
use crate::lock;
use crate::room::Room;
use crate::room::index::{Action, Index, Proposal, RoomKey, Ticket};
use client::{Client, Phase, PlayRequest};
pub use notice::{Notice, Output, Survey, Tally};

/// A room that its members' connections read from. Locked after the lobby, never before it.
pub type SharedRoom = Arc<Mutex<Room>>;

/// See the module's text.
pub struct Lobby {
    apps: BTreeMap<AppId, App>,
    limits: Limits,
    index: Box<dyn Index + Send>,
    clients: BTreeMap<SessionId, Client>,
    rooms: BTreeMap<RoomKey, LiveRoom>,
    pending: BTreeMap<Ticket, Pending>,
    /// When tokens have to be looked at; one entry at most for each client.
    deadlines: BTreeSet<(Timestamp, SessionId)>,
    /// Sessions kept without a connection, and until when.
    parked: BTreeSet<(Timestamp, SessionId)>,
    /// Sessions that others ended, and what their clients are told should they come back; the oldest make room.
    farewells: BTreeMap<SessionId, Refusal>,
    resume_key: ResumeKey,
    /// Who may publish nothing for a time.
    bans: moderation::Bans,
    /// The relay ends soon.
    is_draining: bool,
    /// The machine is too slow for anybody else.
    is_full: bool,
    /// Somebody wants to be told what happens.
    is_reporting: bool,
    tally: Tally,
    outputs: VecDeque<Output>,
    sessions: u64,
    tickets: u64,
    aliases: u32,
}

/// A room with what this relay forwards in it.
struct LiveRoom {
    room: SharedRoom,
    voices: Arc<Voices>,
    publications: BTreeMap<StreamId, Published>,
    /// Who plays or waits to play a stream, by session and lane.
    players: BTreeMap<StreamId, BTreeSet<(SessionId, u32)>>,
}

struct Published {
    publication: Arc<Publication>,
    session: SessionId,
    lane: u32,
}

/// A proposal whose verdict somebody waits for.
struct Pending {
    session: SessionId,
    request: u32,
    asked: Asked,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Join,
    Leave,
    Publish,
    Unpublish,
    /// To change a state or an info.
    Extra,
}

impl Lobby {
    /// A lobby for `apps`, without anyone in it.
    pub fn new(
        apps: impl IntoIterator<Item = App>,
        limits: Limits,
        index: Box<dyn Index + Send>,
        resume_key: ResumeKey,
    ) -> Self {
        let mut lobby = Lobby {
            apps: BTreeMap::new(),
            limits,
            index,
            clients: BTreeMap::new(),
            rooms: BTreeMap::new(),
            pending: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            parked: BTreeSet::new(),
            farewells: BTreeMap::new(),
            resume_key,
            bans: moderation::Bans::default(),
            is_draining: false,
            is_full: false,
            is_reporting: false,
            tally: Tally::default(),
            outputs: VecDeque::new(),
            sessions: 0,
            tickets: 0,
            aliases: 0,
        };
        lobby.set_apps(apps);
        lobby
    }

    /// Other limits from now on. Who and what is over them stays until it goes by itself; a publication keeps the cache
    /// that it began with.
    pub fn set_limits(&mut self, now: Timestamp, limits: &Limits) {
        self.limits = limits.clone();
        self.index.set_limits(limits);
        self.clients.values_mut().for_each(|client| client.set_limits(now, limits));
        self.rooms.values().for_each(|live| live.voices.set_limits(limits));
    }

    /// Whether the machine is too slow for anybody else: then nobody joins. Who is here stays and may come back.
    pub fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// A connection came.
    ///
    /// # Errors
    /// [`Code::RelayFull`] when there are as many as there may be.
    pub fn connect(&mut self, now: Timestamp) -> Result<SessionId, Refusal> {
        if self.clients.len() >= self.limits.connections_max {
            self.tally.count_refused(Code::RelayFull);
            return Err(Refusal::new(
                Code::RelayFull,
                format!(
                    "the relay holds {} connections and no more; try later or another relay",
                    self.limits.connections_max
                ),
            ));
        }
        self.sessions += 1;
        let session = SessionId(self.sessions);
        self.clients.insert(session, Client::new(now, &self.limits));
        Ok(session)
    }

    /// A connection was lost for `reason`: who was in a room is kept for a while, others leave at once.
    pub fn lose(&mut self, now: Timestamp, session: SessionId, reason: Departure) {
        if !self.park(now, session, reason) {
            self.disconnect(now, session, reason);
        }
    }

    /// A connection ended: the user leaves for `reason`.
    pub fn disconnect(&mut self, now: Timestamp, session: SessionId, reason: Departure) {
        self.drop_plays(session);
        self.release_token(session);
        let Some(client) = self.clients.remove(&session) else { return };
        if matches!(client.phase, Phase::Joining { .. } | Phase::Joined { .. }) {
            self.propose(now, session, Action::Leave { reason }, None);
        }
        self.settle();
    }

    /// Ends every connection with `refusal`.
    pub fn close_all(&mut self, refusal: &Refusal) {
        let sessions: Vec<_> = self.clients.keys().copied().collect();
        sessions.into_iter().for_each(|session| self.notify(session, Notice::Close(refusal.clone())));
    }

    /// Answers a message; the date is `date`.
    pub fn handle(&mut self, now: Timestamp, date: UnixTime, session: SessionId, message: ClientMessage) {
        let Some(client) = self.clients.get_mut(&session) else { return };
        if !client.budget.spend(now, 1) {
            return self.end_flood(session);
        }
        let greeted = client.phase != Phase::Connected;
        match message {
            ClientMessage::Hello(hello) if !greeted => self.greet(now, session, hello),
            ClientMessage::Hello(_) => self.violation(session, "Hello came twice; send it once, first"),
            _ if !greeted => {
                self.violation(session, "the first message must be Hello; send it before any other")
            }
            ClientMessage::ProbeClock(probe) => {
                let reply = ClockReply { probe_sent: probe.sent, received: now, sent: now };
                self.send(session, RelayMessage::ClockReply(reply));
            }
            ClientMessage::Join(join) => self.join(now, date, session, join),
            ClientMessage::Leave(Leave { request }) => {
                let left = Action::Leave { reason: Departure::Left };
                self.propose_joined(now, session, request, left, Asked::Leave);
            }
            ClientMessage::Publish(publish) => self.publish(now, date, session, publish),
            ClientMessage::Unpublish(Unpublish { request, stream }) => {
                let unpublish = Action::Unpublish { stream, reason: Departure::Left };
                self.propose_joined(now, session, request, unpublish, Asked::Unpublish);
            }
            ClientMessage::Play(play) => self.play(session, play),
            ClientMessage::UpdatePlay(update) => self.update_play(session, update),
            ClientMessage::StopPlay(stop) => self.stop_play(session, &stop),
            ClientMessage::Resume(resume) => self.resume(now, session, &resume),
            ClientMessage::RenewToken(renew) => self.renew_token(now, date, session, renew),
            ClientMessage::Moderate(moderate) => self.moderate(now, date, session, moderate),
            ClientMessage::SetTrackState(set) => self.set_track_state(now, session, set),
            ClientMessage::SetStreamInfo(set) => self.set_stream_info(now, session, set),
            ClientMessage::SetRoomInfo(set) => self.set_room_info(now, session, set),
            ClientMessage::RequestKeyframe(RequestKeyframe { lane, track }) => {
                // A play that has just ended needs none: its client could not know.
                if self.clients.get(&session).is_some_and(|client| client.plays.contains_key(&lane)) {
                    self.notify(session, Notice::KeyframeAsked { lane, track });
                }
            }
        }
        self.settle();
    }

    /// What is to be done next, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether `session` is in a room or about to be.
    pub fn is_joined(&self, session: SessionId) -> bool {
        let phase = self.clients.get(&session).map(|client| &client.phase);
        matches!(phase, Some(Phase::Joining { .. } | Phase::Joined { .. }))
    }

    /// The room called `key`, if anyone is in it.
    pub fn room(&self, key: &RoomKey) -> Option<SharedRoom> {
        self.rooms.get(key).map(|live| live.room.clone())
    }

    /// How much there is of everything.
    pub fn survey(&self) -> Survey {
        let mut survey = Survey {
            connections: self.clients.len(),
            rooms: self.rooms.len(),
            plays: self.clients.values().map(|client| client.plays.len()).sum(),
            parked: self.parked.len(),
            deadlines: self.deadlines.len(),
            pending: self.pending.len() + self.outputs.len(),
            ..Survey::default()
        };
        for live in self.rooms.values() {
            let room = lock(&live.room);
            survey.users += room.roster().len() + room.roster().unseen();
            survey.log_bytes += room.log_bytes();
            drop(room);
            survey.streams += live.publications.len();
            survey.play_entries += live.players.values().map(BTreeSet::len).sum::<usize>();
            for published in live.publications.values() {
                survey.players += published.publication.players();
                survey.cached_bytes += published.publication.cached_bytes();
            }
        }
        survey
    }

    /// Something was refused before it came here.
    pub fn count_refused(&mut self, code: Code) {
        self.tally.count_refused(code);
    }

    /// What happened so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn greet(&mut self, now: Timestamp, session: SessionId, hello: Hello) {
        let version = VERSION.min(hello.version_max);
        if version < VERSION_MIN.max(hello.version_min) || hello.version_min > hello.version_max {
            let text = format!(
                "the client speaks versions {} to {}, this relay {VERSION_MIN} to {VERSION}; update the older side",
                hello.version_min, hello.version_max
            );
            return self.notify(session, Notice::Close(Refusal::new(Code::VersionMismatch, text)));
        }
        let agent: String = hello.agent.chars().filter(|c| !c.is_control()).take(AGENT_BYTES_MAX).collect();
        tracing::debug!(session = session.0, version, agent, "hello");
        if let Some(client) = self.clients.get_mut(&session) {
            client.phase = Phase::Greeted;
        }
        let welcome = Welcome {
            version,
            features: 0,
            session,
            clock: now,
            publish_max: self.limits.publish_max,
            play_max: self.limits.play_max,
        };
        self.send(session, RelayMessage::Welcome(welcome));
    }

    fn join(&mut self, now: Timestamp, date: UnixTime, session: SessionId, join: Join) {
        let Join { request, app, room, user, name, login, token, presence } = join;
        let Some(client) = self.clients.get_mut(&session) else { return };
        if client.phase != Phase::Greeted {
            let text = format!(
                "this connection has had its room, so it cannot join {room:?}; open another connection for it"
            );
            return self.refuse(session, request, Refusal::new(Code::AlreadyJoined, text));
        }
        if self.is_draining {
            return self.refuse(session, request, Refusal::from(Code::RelayShutdown));
        }
        if self.is_full {
            return self.refuse(session, request, Refusal::from(Code::RelayOverloaded));
        }
        let key = RoomKey { app, room };
        let Some(grants) = self.admit(now, date, session, request, token.as_ref(), &key, &user) else {
            return;
        };
        if let Some(client) = self.clients.get_mut(&session) {
            client.phase = Phase::Joining { room: key.clone(), user: user.clone() };
            client.presence = presence;
        }
        self.hold_token(now, date, session, grants);
        let Presence { unseen, .. } = presence;
        let returns_from = self.clients.get(&session).and_then(|client| client.returns_from);
        let action = Action::Join { room: key, user: UserInfo { user, name }, login, unseen, returns_from };
        self.propose(now, session, action, Some((request, Asked::Join)));
    }

    fn publish(&mut self, now: Timestamp, date: UnixTime, session: SessionId, publish: Publish) {
        let Publish { request, stream, tracks, delivery } = publish;
        if !self.take_lane(session, request) {
            return;
        }
        if let Err(refusal) = check_tracks(&tracks) {
            let refusal = Refusal::new(refusal.code, format!("stream {stream:?}: {}", refusal.text));
            self.free_lane(session, request);
            return self.refuse(session, request, refusal);
        }
        let token = self.clients.get(&session).and_then(|client| client.token.as_ref());
        let granted = token.map_or(Ok(()), |token| token.grants.check_publish(&stream));
        if let Err(refusal) = granted.and_then(|()| self.check_ban(date, session)) {
            self.free_lane(session, request);
            return self.refuse(session, request, refusal);
        }
        let action = Action::Publish { stream, tracks, delivery };
        self.propose_joined(now, session, request, action, Asked::Publish);
    }

    fn play(&mut self, session: SessionId, play: Play) {
        let Play { request, stream, wishes } = play;
        if !self.take_lane(session, request) {
            return;
        }
        if let Err(refusal) = self.add_play(session, request, &stream, wishes) {
            self.free_lane(session, request);
            self.refuse(session, request, refusal);
        }
    }

    fn add_play(
        &mut self,
        session: SessionId,
        lane: u32,
        stream: &StreamId,
        wishes: Vec<TrackWish>,
    ) -> Result<(), Refusal> {
        let play_max = self.limits.play_max as usize;
        let Some(client) = self.clients.get_mut(&session) else { return Ok(()) };
        let joined = match &client.phase {
            Phase::Joining { .. } => false,
            Phase::Joined { .. } => true,
            _ => return Err(not_joined(format!("stream {stream:?} cannot be played"))),
        };
        if client.plays.values().any(|play| play.stream == *stream) {
            let text = format!("stream {stream:?} is being played already; change its view instead");
            return Err(Refusal::new(Code::AlreadyPlaying, text));
        }
        if client.plays.len() >= play_max {
            let text = format!(
                "{play_max} streams are being played, so {stream:?} cannot be; \
                 stop one first or raise the relay's limit play_max"
            );
            return Err(Refusal::new(Code::TooManyPlays, text));
        }
        check_wishes(stream, &wishes)?;
        client.plays.insert(lane, PlayRequest { stream: stream.clone(), wishes });
        // Before the room is known, the play waits with the client; see `verdict`.
        if joined {
            self.begin_play(session, lane);
        }
        Ok(())
    }

    fn update_play(&mut self, session: SessionId, update: UpdatePlay) {
        let UpdatePlay { request, stream, wishes } = update;
        let Some(client) = self.clients.get_mut(&session) else { return };
        let play = client.plays.iter_mut().find(|(_, play)| play.stream == stream);
        let result = match play {
            None => Err(not_playing(&stream)),
            Some((&lane, play)) => check_wishes(&stream, &wishes).map(|()| {
                play.wishes.clone_from(&wishes);
                lane
            }),
        };
        match result {
            Err(refusal) => self.refuse(session, request, refusal),
            Ok(lane) => {
                self.notify(session, Notice::PlayChanged { lane, wishes });
                self.send(session, RelayMessage::Done(Done { request }));
            }
        }
    }

    fn stop_play(&mut self, session: SessionId, stop: &StopPlay) {
        let Some(client) = self.clients.get_mut(&session) else { return };
        let lane = client.plays.iter().find(|(_, play)| play.stream == stop.stream).map(|(&lane, _)| lane);
        match lane {
            None => self.refuse(session, stop.request, not_playing(&stop.stream)),
            Some(lane) => {
                self.drop_play(session, lane);
                self.notify(session, Notice::PlayEnded { lane });
                self.send(session, RelayMessage::Done(Done { request: stop.request }));
            }
        }
    }

    /// Reserves a lane; ends the connection if the client uses one twice.
    fn take_lane(&mut self, session: SessionId, lane: u32) -> bool {
        let Some(client) = self.clients.get_mut(&session) else { return false };
        if lane > LANE_MAX {
            let text = format!("request {lane} cannot be a lane; number requests from 1 to {LANE_MAX}");
            self.refuse(session, lane, Refusal::new(Code::TooLarge, text));
            return false;
        }
        let free = client.lanes.insert(lane);
        // Of what was there before, its client knows.
        client.taken.remove(&lane);
        if !free {
            self.violation(session, "a request number was used twice; count them up");
        }
        free
    }

    fn free_lane(&mut self, session: SessionId, lane: u32) {
        if let Some(client) = self.clients.get_mut(&session) {
            client.lanes.remove(&lane);
        }
    }

    /// Proposes what needs a room; refuses it if there is none.
    fn propose_joined(
        &mut self,
        now: Timestamp,
        session: SessionId,
        request: u32,
        action: Action,
        asked: Asked,
    ) {
        if self.is_joined(session) {
            return self.propose(now, session, action, Some((request, asked)));
        }
        let what = match action {
            Action::Publish { stream, .. } => {
                self.free_lane(session, request);
                format!("stream {stream:?} cannot be published")
            }
            Action::Unpublish { stream, .. } => format!("stream {stream:?} is not published"),
            Action::SetTrackState(TrackStatus { stream, .. }) | Action::SetStreamInfo { stream, .. } => {
                format!("stream {stream:?} is not published")
            }
            Action::SetRoomInfo { .. } => "there is no room to attach info to".to_owned(),
            Action::Join { .. } | Action::Leave { .. } => "there is no room to leave".to_owned(),
        };
        self.refuse(session, request, not_joined(what));
    }

    fn propose(&mut self, now: Timestamp, session: SessionId, action: Action, asked: Option<(u32, Asked)>) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if let Some((request, asked)) = asked {
            self.pending.insert(ticket, Pending { session, request, asked });
        }
        self.index.submit(now, Proposal { ticket, session, action });
    }

    fn refuse(&mut self, session: SessionId, request: u32, refusal: Refusal) {
        let (room, user) = self.place(session);
        tracing::info!(session = session.0, room, user, request, %refusal, "refused");
        self.tally.count_refused(refusal.code);
        self.send(session, RelayMessage::Refused(Refused { request, refusal }));
    }

    fn end_flood(&mut self, session: SessionId) {
        let text = format!(
            "too many requests at once; a client makes at most {} a second on and on",
            self.limits.requests_per_second_max
        );
        self.notify(session, Notice::Close(Refusal::new(Code::TooManyRequests, text)));
    }

    fn violation(&mut self, session: SessionId, text: &str) {
        self.notify(session, Notice::Close(Refusal::new(Code::ProtocolViolation, text)));
    }

    fn send(&mut self, session: SessionId, message: RelayMessage) {
        self.notify(session, Notice::Send(message));
    }

    fn notify(&mut self, session: SessionId, notice: Notice) {
        self.outputs.push_back(Output::Notice(session, notice));
    }

    /// Room and user of a session, for the log; empty before it joined.
    pub fn place(&self, session: SessionId) -> (String, String) {
        match self.clients.get(&session).map(|client| &client.phase) {
            Some(
                Phase::Joining { room, user } | Phase::Joined { room, user } | Phase::Left { room, user },
            ) => (room.room.to_string(), user.to_string()),
            _ => Default::default(),
        }
    }
}

fn not_joined(what: String) -> Refusal {
    Refusal::new(Code::NotJoined, format!("{what}: no room was joined on this connection; join first"))
}

fn not_playing(stream: &StreamId) -> Refusal {
    Refusal::new(Code::NotPlaying, format!("stream {stream:?} is not being played; play it first"))
}

fn check_wishes(stream: &StreamId, wishes: &[TrackWish]) -> Result<(), Refusal> {
    if wishes.len() <= TRACKS_PER_STREAM_MAX {
        return Ok(());
    }
    let text = format!(
        "{} wishes for stream {stream:?}, which has at most {TRACKS_PER_STREAM_MAX} tracks; send one for each",
        wishes.len()
    );
    Err(Refusal::new(Code::TooLarge, text))
}

fn repeated_login(user: &UserId) -> Refusal {
    let text =
        format!("user {user:?} joined again from elsewhere and took over; leave there before joining here");
    Refusal::new(Code::RepeatedLogin, text)
}
