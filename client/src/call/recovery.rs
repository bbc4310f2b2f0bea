//! The part of a [`Call`] that outlives its connection: asks for the session on another one, or joins anew, and has
//! again what was published and played before.

use std::time::Duration;

use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::{LoginId, SessionId};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{ClientMessage, Resume, ResumeSecret, Resumed};

use super::{Call, Phase};
use crate::room::{RoomReason, RoomStatus};

/// Names the request to resume: joins have 1, all others are counted up.
const RESUME: u32 = 0;
/// After the first failure, which took ten seconds of attempts, the next waits up to so long, and twice as long each
/// time …
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// … up to this.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// What the app stopped or changed while there was no connection.
const HELD_MAX: usize = super::OUTGOING_MAX;

/// The relay's name for a session, and the proof that it is ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credentials {
    pub(super) session: SessionId,
    pub(super) secret: ResumeSecret,
}

/// A call without a connection, on its way back.
#[derive(Debug)]
pub(super) struct Recovery {
    /// When the connection was lost.
    pub(super) since: Timestamp,
    tries: u32,
    /// The session is gone: it is joined anew.
    pub(super) joining: bool,
    /// For the time after it.
    pub(super) held: Vec<ClientMessage>,
}

/// How a call went on after its path or connection was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rung {
    /// The connection lives on another path: others notice nothing.
    Migrated,
    /// The session lives on another connection: others notice nothing.
    Resumed,
    /// The session was gone and the room was joined anew: others saw the user go and come.
    Rejoined,
}

/// How often a call came back, and how.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct RecoveryStats {
    /// Paths that changed under a connection: others noticed nothing.
    pub migrated: u32,
    /// Sessions resumed: others noticed nothing.
    pub resumed: u32,
    /// Rooms joined anew, because the session was gone.
    pub rejoined: u32,
    /// From the loss of the path or connection until it was made up for, the last time.
    pub last: Option<Duration>,
}

impl Call {
    /// No connection came about, or it was lost for `error`. Gives how long to wait before the next attempt;
    /// `None` when the call is over.
    pub fn handle_lost(&mut self, now: Timestamp, error: Refusal) -> Option<Duration> {
        if self.is_over() {
            return None;
        }
        if !self.comes_back_from(error.code) {
            self.handle_end(error);
            return None;
        }
        // Before the first answer there is no session to resume; the join has its own deadline.
        let joining = self.status.reason == RoomReason::Joining;
        let recovery =
            self.recovery.get_or_insert_with(|| Recovery { since: now, tries: 0, joining, held: Vec::new() });
        recovery.tries += 1;
        let (since, tries) = (recovery.since, recovery.tries);
        if !joining {
            self.deadline = Some(since + self.timeouts.reconnect);
        }
        self.begin_again(error);
        Some(self.wait(tries))
    }

    /// Whether the call goes on without its connection after an end with this code.
    pub fn comes_back_from(&self, code: Code) -> bool {
        // A connection that stood and fell silent before the join was answered is no reason to give the join up.
        let is_joining = self.phase != Phase::Connecting && code == Code::HeartbeatTimeout;
        let is_on_its_way = self.is_joined() || self.recovery.is_some() || is_joining;
        // With a token that the relay has not seen yet the room may be joined anew.
        let may_pass = code.is_retryable() || code == Code::TokenExpired && self.token_offered.is_some();
        is_on_its_way && may_pass && !self.timeouts.reconnect.is_zero() && self.leaving.is_none()
    }

    /// The first flight of another connection.
    fn begin_again(&mut self, error: Refusal) {
        self.phase = Phase::Connecting;
        self.setback = None;
        self.login = next_login(self.login);
        self.outgoing.clear();
        self.outgoing.push_back(self.hello.clone());
        self.mirror.interrupt();
        if self.recovery.as_ref().is_none_or(|recovery| recovery.tries <= 1) {
            self.interrupt_renewals(&error);
            self.end_what_was_asked(&error);
            self.infos.clear();
        }
        self.pause_publications(&error);
        self.pause_plays();
        let joining = self.recovery.as_ref().is_some_and(|recovery| recovery.joining);
        match self.credentials.filter(|_| !joining) {
            Some(Credentials { session, secret }) => {
                let (attempt, known) = (self.login, self.mirror.place());
                let resume = Resume { request: RESUME, session, secret, attempt, known };
                self.outgoing.push_back(ClientMessage::Resume(resume));
            }
            None => self.join_again(),
        }
        if self.is_joined() {
            self.set_status(RoomStatus::failed(RoomReason::Reconnecting, error));
        }
    }

    fn join_again(&mut self) {
        let join = self.join_message();
        self.outgoing.push_back(join);
        // What was stopped is not there any more, and what is there is told anew.
        self.unsettled.clear();
        if let Some(recovery) = &mut self.recovery {
            recovery.joining = true;
        }
    }

    /// Sends a request now, or once the connection is made up for. What is published and played is asked for again
    /// then, so that it need not be kept.
    pub(super) fn push(&mut self, message: ClientMessage) {
        let Some(recovery) = &mut self.recovery else { return self.outgoing.push_back(message) };
        let is_asked_again = matches!(
            message,
            ClientMessage::Publish(_) | ClientMessage::Play(_) | ClientMessage::ProbeClock(_)
        );
        let is_void = matches!(message, ClientMessage::RequestKeyframe(_));
        if !is_asked_again && !is_void && recovery.held.len() < HELD_MAX {
            recovery.held.push(message);
        }
    }

    /// True if `refusal` answers the request to resume.
    pub(super) fn handle_resume_refused(&mut self, request: u32, refusal: &Refusal) -> bool {
        if request != RESUME || self.recovery.is_none() {
            return false;
        }
        // As above.
        let has_expired = refusal.code == Code::TokenExpired && self.token_offered.is_some();
        if refusal.code == Code::SessionGone || has_expired {
            self.join_again();
        } else {
            self.handle_end(refusal.clone());
        }
        true
    }

    /// Why the relay does not let us in on this connection, if that may pass: it is to be given up.
    pub fn setback(&self) -> Option<Refusal> {
        self.setback.clone()
    }

    /// The session goes on.
    pub(super) fn handle_resumed(&mut self, now: Timestamp, resumed: &Resumed) -> Result<(), Refusal> {
        let Some(recovery) = self.recovery.take_if(|recovery| !recovery.joining && resumed.request == RESUME)
        else {
            return Err(super::violation("a session that was not asked for"));
        };
        for &(lane, alias) in &resumed.publications {
            self.publication_goes_on(lane, alias);
        }
        let publications: Vec<u32> = resumed.publications.iter().map(|(lane, _)| *lane).collect();
        self.have_again(now, Rung::Resumed, &recovery, &publications, &resumed.plays);
        self.outgoing.extend(recovery.held);
        Ok(())
    }

    /// The room was joined anew, if it had to be.
    pub(super) fn handle_rejoined(&mut self, now: Timestamp) {
        if let Some(recovery) = self.recovery.take() {
            if self.status.reason == RoomReason::Joining {
                self.unsettled.clear();
                self.publish_again(&[]);
                self.play_again(&[]);
                self.outgoing.extend(recovery.held);
                return self.handle_joined(now);
            }
            self.unsettled.clear();
            self.have_again(now, Rung::Rejoined, &recovery, &[], &[]);
            self.outgoing.extend(recovery.held);
        }
    }

    /// Asks for what the relay does not have of what we publish and play.
    fn have_again(
        &mut self,
        now: Timestamp,
        rung: Rung,
        recovery: &Recovery,
        publications: &[u32],
        plays: &[u32],
    ) {
        self.deadline = None;
        // First what ends, as a stream or play of the same name may begin anew.
        self.settle_again(publications, plays);
        // The relay says anew who speaks, if anybody does, and what it leaves out.
        self.feed.set_speaker(None);
        self.feed.set_overload(0);
        self.publish_again(publications);
        self.play_again(plays);
        self.set_status(RoomStatus::new(RoomReason::Reconnected));
        self.note_recovered(rung, now.saturating_since(recovery.since));
    }

    /// The connection goes on over another path, `took` after the last packet on the one before.
    pub fn handle_migrated(&mut self, took: Duration) {
        if !self.is_over() {
            self.note_recovered(Rung::Migrated, took);
        }
    }

    fn note_recovered(&mut self, rung: Rung, took: Duration) {
        let count = match rung {
            Rung::Migrated => &mut self.recovery_stats.migrated,
            Rung::Resumed => &mut self.recovery_stats.resumed,
            Rung::Rejoined => &mut self.recovery_stats.rejoined,
        };
        *count += 1;
        self.recovery_stats.last = Some(took);
        self.feed.push_recovered(rung, took);
    }

    /// Full jitter: anything up to the longest wait, so that the clients of a relay do not all come at once.
    fn wait(&self, tries: u32) -> Duration {
        let Some(doublings) = tries.checked_sub(2) else { return Duration::ZERO };
        let longest = WAIT_FIRST.saturating_mul(1 << doublings.min(10)).min(WAIT_MAX);
        let [high, low, ..] = self.login.0;
        longest.mul_f64(f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX))
    }
}

/// Another login than `login`, which nobody else has either: it is random, and so is what follows from it.
fn next_login(login: LoginId) -> LoginId {
    // The multiplier of PCG, odd, so that no value comes twice.
    let next = u128::from_be_bytes(login.0).wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645);
    LoginId(next.wrapping_add(1).to_be_bytes())
}
