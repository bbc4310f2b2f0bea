//! Sessions whose connection is gone: kept for a while as if nothing had happened, and handed to the connection on which
//! their client comes back. Others hear nothing of either.

use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::{LoginId, SessionId};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{Departure, Refused, RelayMessage, Resume, Resumed};

use super::client::Phase;
use super::{Lobby, Notice, Output};
use crate::limits::FAREWELLS_MAX;
use crate::lock;
use crate::room::View;
use crate::room::index::Action;

/// A session without a connection.
#[derive(Clone, Copy)]
pub(super) struct Parked {
    until: Timestamp,
    /// What others are told if nobody comes back.
    reason: Departure,
}

impl Lobby {
    /// Keeps the session of a connection that was lost; false if it was in no room.
    pub(super) fn park(&mut self, now: Timestamp, session: SessionId, reason: Departure) -> bool {
        let Some(client) = self.clients.get_mut(&session) else { return false };
        if self.limits.session_grace.is_zero() || !matches!(client.phase, Phase::Joined { .. }) {
            return false;
        }
        let until = now + self.limits.session_grace;
        client.parked = Some(Parked { until, reason });
        self.parked.insert((until, session));
        tracing::info!(session = session.0, ?reason, "connection lost, session kept");
        true
    }

    /// When the first of the sessions that are kept is given up.
    pub(super) fn park_ends(&self) -> Option<Timestamp> {
        self.parked.first().map(|(until, _)| *until)
    }

    /// Ends the sessions for which nobody came back in time.
    pub(super) fn end_parked(&mut self, now: Timestamp) {
        while let Some(&(until, session)) = self.parked.first().filter(|(until, _)| *until <= now) {
            self.parked.remove(&(until, session));
            let parked = self.clients.get(&session).and_then(|client| client.parked);
            let Some(Parked { reason, .. }) = parked else { continue };
            self.release_token(session);
            self.drop_plays(session);
            self.clients.remove(&session);
            self.propose(now, session, Action::Leave { reason }, None);
        }
    }

    /// Others ended a session: its client is told so when it comes back, whether it hears of it now or not.
    pub(super) fn end_session(&mut self, session: SessionId, farewell: Option<Refusal>) {
        if let Some(refusal) = farewell {
            self.notify(session, Notice::Close(refusal.clone()));
            self.farewells.insert(session, refusal);
            if self.farewells.len() > FAREWELLS_MAX {
                self.farewells.pop_first();
            }
        }
        if let Some(parked) = self.clients.get(&session).and_then(|client| client.parked) {
            self.parked.remove(&(parked.until, session));
            self.clients.remove(&session);
        }
    }

    /// The client of `session` wants to go on with an earlier one.
    pub(super) fn resume(&mut self, now: Timestamp, session: SessionId, resume: &Resume) {
        if let Err(refusal) = self.try_resume(now, session, resume) {
            self.refuse(session, resume.request, refusal);
        }
    }

    fn try_resume(&mut self, now: Timestamp, session: SessionId, resume: &Resume) -> Result<(), Refusal> {
        let Resume { request, session: earlier, secret, attempt, known } = *resume;
        if self.clients.get(&session).is_none_or(|client| client.phase != Phase::Greeted) {
            let text = "this connection has had its room; open another one to resume";
            return Err(Refusal::new(Code::AlreadyJoined, text));
        }
        // Whoever does not know the secret learns nothing of the session, not even whether it is there.
        if !self.resume_key.is_secret_of(&secret, earlier) {
            return Err(Refusal::from(Code::SessionGone));
        }
        if let Some(refusal) = self.farewells.get(&earlier) {
            return Err(refusal.clone());
        }
        if let Some(client) = self.clients.get_mut(&session) {
            client.returns_from = Some(earlier);
        }
        let Some(Phase::Joined { room: key, .. }) =
            self.clients.get(&earlier).map(|client| client.phase.clone())
        else {
            return Err(Refusal::from(Code::SessionGone));
        };
        let Some(live) = self.rooms.get(&key) else { return Err(Refusal::from(Code::SessionGone)) };
        let (room, voices) = (live.room.clone(), live.voices.clone());
        let own = live.publications.values().filter(|published| published.session == earlier);
        let publications: Vec<_> =
            own.map(|published| (published.lane, published.publication.clone())).collect();
        let Some(client) = self.clients.get_mut(&earlier) else { return Ok(()) };
        if client.resumed_by == Some(attempt) {
            return Err(Refusal::from(Code::LoginRaced));
        }
        client.resumed_by = Some(attempt);
        if let Some(parked) = client.parked.take() {
            self.parked.remove(&(parked.until, earlier));
        }
        // What was asked for and never answered is not known here: the client asks again.
        client.lanes =
            publications.iter().map(|(lane, _)| *lane).chain(client.plays.keys().copied()).collect();
        let plays: Vec<u32> = client.plays.keys().copied().collect();
        let view = View::of(client.presence);
        self.clients.remove(&session);
        self.outputs.push_back(Output::Resumed { session: earlier, connection: session });
        tracing::info!(session = earlier.0, room = %key.room, "session resumed");
        let aliases = publications.iter().map(|(lane, publication)| (*lane, publication.alias())).collect();
        for (lane, publication) in publications {
            publication.restart(now);
            self.notify(earlier, Notice::PublishStarted { lane, publication });
        }
        // Before the answer, after which it publishes again what is not there any more.
        let taken = self.clients.get(&earlier).map(|client| client.taken.clone()).unwrap_or_default();
        for (lane, refusal) in taken {
            self.send(earlier, RelayMessage::Refused(Refused { request: lane, refusal }));
        }
        let resumed = Resumed { request, publications: aliases, plays: plays.clone() };
        self.send(earlier, RelayMessage::Resumed(resumed));
        self.tell_expiry_again(now, earlier);
        let from = known.filter(|(epoch, _)| *epoch == lock(&room).epoch()).map(|(_, position)| position);
        self.notify(earlier, Notice::Entered { room, view, from, voices });
        plays.into_iter().for_each(|lane| self.begin_play(earlier, lane));
        Ok(())
    }
}

/// Names the attempt that a session was resumed by last.
pub(super) type Attempt = LoginId;
