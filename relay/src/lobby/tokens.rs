//! Tokens of those who are in a room: how long they hold, the notice before they expire, and the end after.

use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::{SessionId, UserId};
use parlor_transport::token::Token;
use parlor_transport::units::{Timestamp, UnixTime};
use parlor_transport::wire::control::{Departure, Done, RelayMessage, RenewToken, TokenExpiring};

use super::client::Phase;
use super::{Lobby, not_joined};
use crate::auth::{App, Grants};
use crate::limits::{TOKEN_CHECK_COST, TOKEN_NOTICE_WAIT_MIN, TOKEN_RECHECK_INTERVAL};
use crate::room::index::{Action, RoomKey};

/// What a client may do, and when that is looked at again.
pub(super) struct Held {
    pub(super) grants: Grants,
    /// When the client is to be told that it ends; `None` once it was.
    tell: Option<UnixTime>,
    /// Its place among the lobby's deadlines.
    due: Option<Timestamp>,
}

impl Lobby {
    /// The apps that exist from now on. Who is in a room stays there, until the token has to be renewed.
    pub fn set_apps(&mut self, apps: impl IntoIterator<Item = App>) {
        self.apps = apps.into_iter().map(|app| (app.id().clone(), app)).collect();
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(due, _)| *due).into_iter().chain(self.park_ends()).min()
    }

    /// Time has passed; the date is `date`.
    pub fn handle_timeout(&mut self, now: Timestamp, date: UnixTime) {
        while let Some(&(due, session)) = self.deadlines.first().filter(|(due, _)| *due <= now) {
            self.deadlines.remove(&(due, session));
            self.look_at_token(now, date, session);
        }
        self.end_parked(now);
        self.settle();
    }

    /// What `user` may do in `room` with `token`; `None` when that was refused. A token costs its client as
    /// much as many requests: signatures are checked while everybody else's requests wait.
    #[expect(clippy::too_many_arguments, reason = "all of them decide")]
    pub(super) fn admit(
        &mut self,
        now: Timestamp,
        date: UnixTime,
        session: SessionId,
        request: u32,
        token: Option<&Token>,
        room: &RoomKey,
        user: &UserId,
    ) -> Option<Grants> {
        let admitted = match self.apps.get(&room.app) {
            Some(app) => {
                let is_checked = token.is_some() && !app.is_open();
                let client = self.clients.get_mut(&session)?;
                if is_checked && !client.budget.spend(now, TOKEN_CHECK_COST) {
                    self.end_flood(session);
                    return None;
                }
                app.admit(date, token, &room.room, user)
            }
            None => {
                let app = &room.app;
                let text = format!(
                    "the relay does not know app {app:?}; check the app id or the relay's configuration"
                );
                Err(Refusal::new(Code::UnknownApp, text))
            }
        };
        admitted.map_err(|refusal| self.refuse(session, request, refusal)).ok()
    }

    /// From now on `session` may do what `grants` say.
    pub(super) fn hold_token(&mut self, now: Timestamp, date: UnixTime, session: SessionId, grants: Grants) {
        self.release_token(session);
        let Some(client) = self.clients.get_mut(&session) else { return };
        let tell = grants.expires().map(|expires| {
            // Not at once, or a client that has no better token would renew in a circle.
            let wait = (expires.saturating_since(date) / 2).max(TOKEN_NOTICE_WAIT_MIN);
            (expires - self.limits.token_notice).max(date + wait.min(self.limits.token_notice))
        });
        let due = tell.map(|tell| now + tell.saturating_since(date).min(TOKEN_RECHECK_INTERVAL));
        client.token = Some(Held { grants, tell, due });
        self.deadlines.extend(due.map(|due| (due, session)));
    }

    /// `session` goes on with another connection: a notice may have been lost with the one before.
    pub(super) fn tell_expiry_again(&mut self, now: Timestamp, session: SessionId) {
        let Some(token) = self.clients.get_mut(&session).and_then(|client| client.token.as_mut()) else {
            return;
        };
        if token.tell.is_some() || token.grants.expires().is_none() {
            return;
        }
        token.tell = Some(UnixTime::from_secs(0));
        if let Some(due) = token.due.replace(now) {
            self.deadlines.remove(&(due, session));
        }
        self.deadlines.insert((now, session));
    }

    /// `session` is in no room any more.
    pub(super) fn release_token(&mut self, session: SessionId) {
        let token = self.clients.get_mut(&session).and_then(|client| client.token.take());
        if let Some(due) = token.and_then(|token| token.due) {
            self.deadlines.remove(&(due, session));
        }
    }

    pub(super) fn renew_token(
        &mut self,
        now: Timestamp,
        date: UnixTime,
        session: SessionId,
        renew: RenewToken,
    ) {
        let RenewToken { request, token } = renew;
        let phase = self.clients.get(&session).map(|client| client.phase.clone());
        let (Some(Phase::Joining { room, user }) | Some(Phase::Joined { room, user })) = phase else {
            return self.refuse(session, request, not_joined("there is no token to renew".to_owned()));
        };
        if let Some(grants) = self.admit(now, date, session, request, Some(&token), &room, &user) {
            tracing::debug!(session = session.0, room = %room.room, %user, "token renewed");
            self.hold_token(now, date, session, grants);
            self.send(session, RelayMessage::Done(Done { request }));
            self.end_forbidden_streams(now, session);
        }
    }

    /// Ends what is published but no longer granted; their publisher hears why.
    fn end_forbidden_streams(&mut self, now: Timestamp, session: SessionId) {
        let Some(client) = self.clients.get(&session) else { return };
        let (Phase::Joined { room, .. }, Some(token)) = (&client.phase, &client.token) else { return };
        let Some(live) = self.rooms.get(room) else { return };
        let own = live.publications.iter().filter(|(_, published)| published.session == session);
        let forbidden: Vec<_> = own
            .filter_map(|(stream, published)| {
                Some((stream.clone(), published.lane, token.grants.check_publish(stream).err()?))
            })
            .collect();
        for (stream, lane, refusal) in forbidden {
            self.take_stream(now, session, lane, stream, refusal);
        }
    }

    fn look_at_token(&mut self, now: Timestamp, date: UnixTime, session: SessionId) {
        let Some(token) = self.clients.get_mut(&session).and_then(|client| client.token.as_mut()) else {
            return;
        };
        let Some(expires) = token.grants.expires() else { return };
        let grace = self.limits.token_grace;
        if date >= expires + grace {
            token.due = None;
            let (room, user) = self.place(session);
            tracing::info!(session = session.0, room, user, "token expired");
            return self.propose(now, session, Action::Leave { reason: Departure::TokenExpired }, None);
        }
        let tell = token.tell.take_if(|tell| date >= *tell).is_some();
        let next = token.tell.unwrap_or(expires + grace).min(expires + grace);
        // The date may be set meanwhile, so that a long wait is made in steps.
        let due = now + next.saturating_since(date).min(TOKEN_RECHECK_INTERVAL);
        token.due = Some(due);
        self.deadlines.insert((due, session));
        if tell {
            let seconds = u32::try_from(expires.saturating_since(date).as_secs()).unwrap_or(u32::MAX);
            self.send(session, RelayMessage::TokenExpiring(TokenExpiring { seconds }));
        }
    }

    /// A user whose token had expired has left.
    pub(super) fn token_expired() -> Refusal {
        let text =
            "the token expired and was not renewed; get a new one from the app's server and join again";
        Refusal::new(Code::TokenExpired, text)
    }
}
