//! One joined room, from the call of `join` to its end: what is asked of the relay, what its answers mean,
//! and when to give up.
//!
//! A machine: messages, frames and the time go in; messages, frames and changes come out. Connections and
//! tasks are `engine`'s business. Publishing is in `publications`, playing in `plays`, renewing in `tokens`,
//! messages in `messages`, what else ends with one answer in `asked`, and what nobody waits for in `unsettled`.

mod asked;
mod extras;
mod messages;
mod moderation;
mod plays;
mod publications;
mod recovery;
#[cfg(test)]
mod tests;
mod tokens;
mod unsettled;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use parlor_transport::error::{Code, Coded, Refusal};
use parlor_transport::id::{LoginId, SessionId, StreamId};
use parlor_transport::token::Token;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{
    self, AppMessage, ClientMessage, Delivery, Hello, Join, Leave, RelayMessage, RoomMessage,
};
use parlor_transport::wire::hop::LANE_MAX;

use crate::clock_sync::ClockSync;
use crate::options::JoinRequest;
use crate::publisher::ceiling::Ceiling;
use crate::room::feed::{Feed, Reader};
use crate::room::mirror::Mirror;
use crate::room::{RoomEvent, RoomReason, RoomState, RoomStatus};
use crate::stats::RoomStats;
use asked::Asked;
pub use plays::Play;
pub use publications::{OutgoingFrame, Publication};
use recovery::{Credentials, Recovery};
pub use recovery::{RecoveryStats, Rung};
use tokens::Renewal;
use unsettled::Unsettled;

/// Messages that wait to be sent. Requests beyond are refused; that many only wait while there is no
/// connection or the relay does not read.
const OUTGOING_MAX: usize = 4096;
/// The longest name of the app's software, in bytes.
const AGENT_MAX: usize = 128;

/// How long the steps of a call may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// From the start until the relay let us in.
    pub join: Duration,
    /// From the request to leave until the relay's answer.
    pub leave: Duration,
    /// From the loss of a connection until the call gives up coming back; zero never tries.
    pub reconnect: Duration,
}

/// How far the connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// No connection yet.
    Connecting,
    /// Greeted; the relay has not answered.
    Greeted,
    /// The relay knows us; requests are answered.
    Welcome,
    /// It is over: the connection is to be closed.
    Over,
}

/// A joined room, or one on the way there.
#[derive(Debug)]
pub struct Call {
    request: JoinRequest,
    timeouts: Timeouts,
    phase: Phase,
    status: RoomStatus,
    mirror: Mirror,
    feed: Feed,
    clock: ClockSync,
    started: Timestamp,
    joined_after: Option<Duration>,
    /// When a join or leave has taken too long.
    deadline: Option<Timestamp>,
    leaving: Option<u32>,
    hello: ClientMessage,
    login: LoginId,
    /// The session by the relay's name, on this connection.
    greeted: SessionId,
    credentials: Option<Credentials>,
    recovery: Option<Recovery>,
    recovery_stats: RecoveryStats,
    /// The relay does not let us in again for now; another connection may be luckier.
    setback: Option<Refusal>,
    /// The room's life, as the relay named it at the last join.
    epoch: u64,
    next_request: u32,
    outgoing: VecDeque<ClientMessage>,
    publications: BTreeMap<u32, Publication>,
    /// Of all publications together.
    ceiling: Ceiling,
    plays: BTreeMap<u32, Play>,
    /// Requests that end with one answer.
    asked: BTreeMap<u32, Asked>,
    /// Requests that are made again on another connection, until they are answered.
    unsettled: BTreeMap<u32, Unsettled>,
    /// Infos of publications (by lane) on their way, which hold once the relay says so.
    infos: BTreeMap<u32, (u32, String)>,
    /// Messages to other users that wait to be sent, and the bytes in them.
    messages: VecDeque<AppMessage>,
    messages_bytes: usize,
    renewals: BTreeMap<u32, Renewal>,
    /// The newest token that the relay has neither taken nor refused.
    token_offered: Option<Token>,
    /// The token of the last join.
    token_shown: Option<Token>,
    /// Renewals whose answer nobody waits for.
    unread_renewals: BTreeSet<u32>,
    /// Lanes to be opened for frames, or closed (`None`).
    lanes: BTreeMap<u32, Option<Delivery>>,
    /// Lanes with something new for whoever waits for them.
    touched: BTreeSet<u32>,
    /// Something changed in the room's status or events, or in the status of a publisher or player.
    changed: bool,
}

/// The request that every call begins with.
const JOIN: u32 = 1;

impl Call {
    /// A call that begins now, introducing itself as `agent`.
    pub fn new(
        now: Timestamp,
        request: JoinRequest,
        login: LoginId,
        agent: &str,
        timeouts: Timeouts,
    ) -> Self {
        let mut agent_end = agent.len().min(AGENT_MAX);
        while !agent.is_char_boundary(agent_end) {
            agent_end -= 1;
        }
        let hello = Hello {
            version_min: control::VERSION_MIN,
            version_max: control::VERSION,
            features: 0,
            agent: agent[..agent_end].to_owned(),
        };
        let hello = ClientMessage::Hello(hello);
        let mut call = Call {
            feed: Feed::new(request.user.clone()),
            mirror: if request.presence.uninterested { Mirror::without_users() } else { Mirror::default() },
            request,
            timeouts,
            phase: Phase::Connecting,
            status: RoomStatus::new(RoomReason::Joining),
            clock: ClockSync::new(now),
            started: now,
            joined_after: None,
            deadline: Some(now + timeouts.join),
            leaving: None,
            hello: hello.clone(),
            login,
            greeted: SessionId(0),
            credentials: None,
            recovery: None,
            recovery_stats: RecoveryStats::default(),
            setback: None,
            epoch: 0,
            next_request: JOIN + 1,
            outgoing: [hello].into(),
            publications: BTreeMap::new(),
            ceiling: Ceiling::default(),
            plays: BTreeMap::new(),
            asked: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            infos: BTreeMap::new(),
            messages: VecDeque::new(),
            messages_bytes: 0,
            renewals: BTreeMap::new(),
            token_offered: None,
            token_shown: None,
            unread_renewals: BTreeSet::new(),
            lanes: BTreeMap::new(),
            touched: BTreeSet::new(),
            changed: false,
        };
        let join = call.join_message();
        call.outgoing.push_back(join);
        call
    }

    fn join_message(&mut self) -> ClientMessage {
        // One that was to replace it is the better one.
        self.token_shown = self.token_offered.as_ref().or(self.request.token.as_ref()).cloned();
        ClientMessage::Join(Join {
            request: JOIN,
            app: self.request.app.clone(),
            room: self.request.room.clone(),
            user: self.request.user.clone(),
            name: self.request.name.clone(),
            login: self.login,
            token: self.token_shown.clone(),
            presence: self.request.presence,
        })
    }

    /// Whom we join, where, as whom.
    pub fn request(&self) -> &JoinRequest {
        &self.request
    }

    /// The room's state, reason and error.
    pub fn status(&self) -> &RoomStatus {
        &self.status
    }

    /// The room as far as the relay told.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// A reader that hears of what is, and of messages from here on.
    pub fn reader(&self) -> Reader {
        Reader::new(&self.feed)
    }

    /// The next event for `reader`.
    pub fn next_event(&self, reader: &mut Reader) -> Option<RoomEvent> {
        reader.next(&self.feed, &self.mirror, &self.status)
    }

    /// Whether the call is over: no more events will come, and the connection is to be closed.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Figures of the call; the round trip is the connection's business.
    pub fn stats(&self, now: Timestamp) -> RoomStats {
        RoomStats {
            rtt: None,
            uplink: None,
            clock_error: self.clock.error(now),
            join_time: self.joined_after,
            recovery: self.recovery_stats,
        }
    }

    /// Leaves. Ends at once if there is no connection. Idempotent.
    pub fn leave(&mut self, now: Timestamp) {
        match self.phase {
            Phase::Over => {}
            Phase::Connecting => self.end(RoomStatus::new(RoomReason::Left)),
            // Nobody has to be waited for on the way back to a room that is not wanted any more.
            Phase::Greeted if self.recovery.is_some() => self.end(RoomStatus::new(RoomReason::Left)),
            Phase::Greeted | Phase::Welcome if self.leaving.is_some() => {}
            Phase::Greeted | Phase::Welcome => {
                let request = self.next_request();
                self.leaving = Some(request);
                self.deadline = Some(now + self.timeouts.leave);
                self.outgoing.push_back(ClientMessage::Leave(Leave { request }));
                self.changed = true;
            }
        }
    }

    /// A connection stands: the first flight can leave.
    pub fn handle_connected(&mut self, now: Timestamp) {
        if self.phase == Phase::Connecting {
            self.phase = Phase::Greeted;
            self.clock.hello_sent(now);
        }
    }

    /// Of several connections that stood, the one whose flight left at `sent` is what the call goes on with.
    pub fn handle_chosen(&mut self, sent: Timestamp) {
        self.clock.hello_sent(sent);
    }

    /// Takes an answer or notice of the relay.
    ///
    /// # Errors
    /// What the relay did wrong; the call is over then.
    pub fn handle_message(&mut self, now: Timestamp, message: RelayMessage) -> Result<(), Refusal> {
        if self.is_over() {
            return Ok(());
        }
        let outcome = self.try_handle_message(now, message);
        self.end_on_fault(outcome)
    }

    fn try_handle_message(&mut self, now: Timestamp, message: RelayMessage) -> Result<(), Refusal> {
        match message {
            RelayMessage::Welcome(welcome) => {
                if self.phase != Phase::Greeted {
                    return Err(violation("a second welcome"));
                }
                if !(control::VERSION_MIN..=control::VERSION).contains(&welcome.version) {
                    return Err(Refusal::from(Code::VersionMismatch));
                }
                self.phase = Phase::Welcome;
                self.greeted = welcome.session;
                self.clock.handle_welcome(now, &welcome);
            }
            // The end of the connection follows, and with it the way back.
            RelayMessage::Closing(closing) if self.comes_back_from(closing.refusal.code) => {}
            RelayMessage::Closing(closing) => self.handle_end(closing.refusal),
            RelayMessage::Refused(refused) if self.phase == Phase::Greeted => {
                self.handle_refused(refused.request, refused.refusal);
            }
            _ if self.phase == Phase::Greeted => return Err(violation("an answer before the welcome")),
            RelayMessage::Joined(joined) => {
                let is_asked = match &self.recovery {
                    Some(recovery) => recovery.joining,
                    None => self.status.reason == RoomReason::Joining,
                };
                if joined.request != JOIN || !is_asked {
                    return Err(violation("a join that was not asked for"));
                }
                self.credentials = Some(Credentials { session: self.greeted, secret: joined.secret });
                self.epoch = joined.epoch;
                self.handle_token_taken();
                match self.recovery {
                    Some(_) => self.handle_rejoined(now),
                    None => self.handle_joined(now),
                }
            }
            RelayMessage::Resumed(resumed) => self.handle_resumed(now, &resumed)?,
            RelayMessage::Done(done) => {
                if self.leaving == Some(done.request) {
                    self.end(RoomStatus::new(RoomReason::Left));
                } else if !self.handle_settled(done.request, &Ok(()))
                    && !self.handle_answer(done.request, Ok(()))
                {
                    self.handle_renewal(done.request, Ok(()));
                }
            }
            RelayMessage::Published(published) => self.handle_published(&published),
            RelayMessage::PlayStarted(started) => self.handle_play_started(&started),
            RelayMessage::PlayWaiting(waiting) => self.handle_play_waiting(waiting.lane),
            RelayMessage::PlayEnded(ended) => self.handle_play_ended(ended.lane, ended.reason),
            RelayMessage::Refused(refused) => self.handle_refused(refused.request, refused.refusal),
            RelayMessage::KeyframeWanted(wanted) => self.handle_keyframe_wanted(&wanted),
            RelayMessage::ClockReply(reply) => self.clock.handle_reply(now, &reply),
            RelayMessage::TokenExpiring(expiring) => self.handle_token_expiring(now, &expiring),
            RelayMessage::GoAway(go_away) => self.handle_go_away(&go_away),
            RelayMessage::FramesRefused(refused) => {
                self.handle_frames_refused(now, refused.lane, refused.refusal);
            }
            RelayMessage::ActiveSpeaker(active) => {
                self.feed.set_speaker(active.speaker);
                self.changed = true;
            }
            RelayMessage::Overload(overload) => {
                self.feed.set_overload(overload.level);
                self.changed = true;
            }
        }
        Ok(())
    }

    fn handle_joined(&mut self, now: Timestamp) {
        self.joined_after = Some(now.saturating_since(self.started));
        if self.leaving.is_none() {
            self.deadline = None;
        }
        self.set_status(RoomStatus::new(RoomReason::Joined));
    }

    fn handle_refused(&mut self, request: u32, refusal: Refusal) {
        if self.handle_resume_refused(request, &refusal) {
            return;
        }
        if request == JOIN && !refusal.code.is_retryable() {
            self.handle_token_refused();
        }
        if request == JOIN && self.recovery.is_some() && self.comes_back_from(refusal.code) {
            self.setback = Some(refusal);
            self.changed = true;
        } else if request == JOIN {
            self.handle_end(refusal);
        } else if self.handle_settled(request, &Err(refusal.clone())) {
            // Then there is nothing to be ended or told any more.
        } else if self.leaving == Some(request) {
            self.end(RoomStatus::failed(RoomReason::LeaveFailed, refusal));
        } else if self.publications.contains_key(&request) {
            self.handle_publish_refused(request, refusal);
        } else if self.asked.contains_key(&request) {
            self.handle_answer(request, Err(refusal));
        } else if self.renewals.contains_key(&request) {
            // Not the token's fault: the room has just ended for us, and what follows answers it.
            if refusal.code != Code::NotJoined {
                self.handle_renewal(request, Err(refusal));
            }
        } else {
            self.handle_play_refused(request, refusal);
        }
    }

    /// Takes a page or event of the room.
    ///
    /// # Errors
    /// What the relay did wrong; the call is over then.
    pub fn handle_room_message(&mut self, message: RoomMessage) -> Result<(), Refusal> {
        if self.is_over() {
            return Ok(());
        }
        let outcome = self.mirror.apply(message);
        if let Ok(Some(change)) = &outcome {
            self.feed.push_change(change.clone(), self.mirror.count());
            self.changed = true;
        }
        let outcome = outcome.map(|_| ()).map_err(|error| Refusal::new(error.code(), error.to_string()));
        self.end_on_fault(outcome)
    }

    fn end_on_fault(&mut self, outcome: Result<(), Refusal>) -> Result<(), Refusal> {
        if let Err(refusal) = &outcome {
            self.handle_end(refusal.clone());
        }
        outcome
    }

    /// No connection came about, or it ended: this is why.
    pub fn handle_end(&mut self, error: Refusal) {
        let reason = match (self.status.reason, error.code()) {
            _ if self.leaving.is_some() => RoomReason::LeaveFailed,
            (RoomReason::Joining, _) => RoomReason::JoinFailed,
            (_, Code::RepeatedLogin | Code::Kicked | Code::RoomClosed | Code::TokenExpired) => {
                RoomReason::KickedOut
            }
            (RoomReason::Reconnecting, _) => RoomReason::ReconnectFailed,
            _ => RoomReason::ConnectionLost,
        };
        self.end(RoomStatus::failed(reason, error));
    }

    fn end(&mut self, status: RoomStatus) {
        if self.is_over() {
            return;
        }
        // Publishers and players that end with the room on request end without an error.
        let error = match status.reason {
            RoomReason::Left | RoomReason::LeaveFailed => Refusal::from(Code::Ok),
            _ => status.error.clone().unwrap_or_else(|| Refusal::from(Code::Closed)),
        };
        self.phase = Phase::Over;
        self.deadline = None;
        self.outgoing.clear();
        self.unsettled.clear();
        self.infos.clear();
        self.end_publications(&error);
        self.end_plays(&error);
        self.end_renewals(&error);
        self.end_messages();
        self.end_asked(&error);
        self.set_status(status);
    }

    fn set_status(&mut self, status: RoomStatus) {
        self.feed.push_status(status.clone());
        self.status = status;
        self.changed = true;
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let deadline = self.deadline.unwrap_or(Timestamp::MAX);
        Some(deadline.min(self.clock.poll_timeout())).filter(|&due| due < Timestamp::MAX && !self.is_over())
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.handle_end(Refusal::from(Code::ConnectTimeout));
        }
        let waits = self.recovery.is_some()
            || self.outgoing.iter().any(|message| matches!(message, ClientMessage::ProbeClock(_)));
        if let Some(probe) = self.clock.poll_probe(now).filter(|_| !waits && !self.is_over()) {
            self.outgoing.push_back(ClientMessage::ProbeClock(probe));
        }
    }

    /// The next message to send; none before the connection stands.
    pub fn poll_message(&mut self) -> Option<ClientMessage> {
        if self.phase == Phase::Connecting { None } else { self.outgoing.pop_front() }
    }

    /// Whether [`poll_message`](Self::poll_message) has something to give.
    pub fn has_messages(&self) -> bool {
        self.phase != Phase::Connecting && !self.outgoing.is_empty()
    }

    /// A lane to be opened for frames that travel like this, or closed (`None`).
    pub fn poll_lane(&mut self) -> Option<(u32, Option<Delivery>)> {
        self.lanes.pop_first()
    }

    /// Lanes with something new for whoever waits for them, since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.touched)
    }

    /// Whether status or events changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn next_request(&mut self) -> u32 {
        let request = self.next_request;
        debug_assert!(request <= LANE_MAX, "a billion requests in one call");
        self.next_request += 1;
        request
    }

    /// Why no new request can be made, if none can.
    fn ended(&self) -> Option<Refusal> {
        if self.is_over() {
            return Some(self.status.error.clone().unwrap_or_else(|| Refusal::from(Code::Closed)));
        }
        self.leaving.is_some().then(|| Refusal::from(Code::Closed))
    }

    fn is_full(&self) -> bool {
        let held = self.recovery.as_ref().map_or(0, |recovery| recovery.held.len());
        self.outgoing.len() + held + self.unsettled.len() >= OUTGOING_MAX
    }

    /// Whether the room is joined.
    pub fn is_joined(&self) -> bool {
        self.status.state == RoomState::Connected
    }

    /// Takes back a request that was not sent yet.
    fn take_back(&mut self, is_it: impl Fn(&ClientMessage) -> bool) -> bool {
        let before = self.outgoing.len();
        self.outgoing.retain(|message| !is_it(message));
        self.outgoing.len() < before
    }

    /// Whether a message is about a play, for taking it back.
    fn is_about(message: &ClientMessage, lane: u32, stream: &StreamId) -> bool {
        match message {
            ClientMessage::RequestKeyframe(request) => request.lane == lane,
            ClientMessage::UpdatePlay(update) => update.stream == *stream,
            _ => false,
        }
    }
}

fn violation(what: &str) -> Refusal {
    Refusal::new(
        Code::ProtocolViolation,
        format!("the relay sent {what}; update the older of the two, and report it if both are current"),
    )
}
