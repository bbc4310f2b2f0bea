//! Messages between users: who gets them, and when there are too many. Waiting is `outbox`'s business.

use std::collections::BTreeSet;

use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::{SessionId, UserId};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{AppMessage, Done, RelayMessage, Said, Say, encode};

use super::client::Phase;
use super::{Lobby, Output, not_joined};
use crate::lock;
use crate::room::Room;

impl Lobby {
    /// Passes an app message on, or says why not.
    pub fn handle_app_message(&mut self, now: Timestamp, session: SessionId, message: AppMessage) {
        let Some(client) = self.clients.get_mut(&session) else { return };
        if !client.budget.spend(now, 1) {
            return self.end_flood(session);
        }
        match message {
            AppMessage::Say(say) => {
                let request = say.request;
                match self.say(now, session, say) {
                    Ok(output) => {
                        self.outputs.push_back(output);
                        self.send(session, RelayMessage::Done(Done { request }));
                    }
                    Err(refusal) => self.refuse(session, request, refusal),
                }
            }
            AppMessage::Said(_) => self.violation(session, "only the relay says who said something"),
        }
    }

    fn say(&mut self, now: Timestamp, session: SessionId, say: Say) -> Result<Output, Refusal> {
        let Say { request: _, to: listed, lossy, payload } = say;
        let client = self.clients.get_mut(&session);
        let client = client.filter(|client| matches!(client.phase, Phase::Joined { .. }));
        let Some((client, live)) = client.and_then(|client| {
            let live = client.phase.room().and_then(|key| self.rooms.get(key))?;
            Some((client, live))
        }) else {
            return Err(not_joined("the message is for nobody".to_owned()));
        };
        if client.presence.unseen {
            return Err(Refusal::from(Code::Unseen));
        }
        let bytes_max = self.limits.message_bytes_max;
        if payload.len() > bytes_max {
            let text =
                format!("the message has {} bytes, and the relay takes at most {bytes_max}", payload.len());
            return Err(Refusal::new(Code::TooLarge, text));
        }
        let room = lock(&live.room);
        let to = match listed.is_empty() {
            true => room.roster().sessions().filter(|other| *other != session).collect(),
            false => listed_sessions(&room, session, &listed)?,
        };
        let Phase::Joined { user: from, .. } = client.phase.clone() else {
            return Err(not_joined("the message is for nobody".to_owned()));
        };
        if !client.pay_for_message(now, payload.len()) {
            let text = format!("{from:?} sends more messages than the relay passes on; slow down");
            return Err(Refusal::new(Code::TooManyMessages, text));
        }
        let said = AppMessage::Said(Said { from, direct: !listed.is_empty(), payload });
        Ok(Output::Message { to, message: encode(&said), lossy })
    }
}

/// The stays of those who are listed, each once, without the sender.
fn listed_sessions(room: &Room, from: SessionId, listed: &[UserId]) -> Result<Vec<SessionId>, Refusal> {
    let mut to = BTreeSet::new();
    for user in listed {
        let session = room.roster().session(user).ok_or_else(|| {
            let text = format!("{user:?} is not in the room, so nobody got the message; leave {user:?} out");
            Refusal::new(Code::UnknownUser, text)
        })?;
        to.insert(session);
    }
    to.remove(&from);
    Ok(to.into_iter().collect())
}
