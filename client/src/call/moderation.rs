//! The part of a [`Call`] that does something about others in the room, for those whose token says so; and what
//! the relay says of its own end.

use parlor_transport::address::RelayAddress;
use parlor_transport::error::{Code, Refusal};
use parlor_transport::wire::control::{ClientMessage, GoAway, Moderate, ModerateAction};

use super::Call;
use crate::error::ModerateError;

/// Actions that wait for an answer, or whose answer waits to be read: a moderator empties a room by closing it, not
/// user by user.
const ACTIONS_MAX: usize = 64;

/// An action on its way, or its answer.
#[derive(Default, Debug)]
pub(super) struct Moderation {
    answer: Option<Result<(), Refusal>>,
    /// Nobody waits for the answer.
    is_unread: bool,
}

impl Call {
    /// Asks the relay to do something about somebody; gives the request's number.
    ///
    /// # Errors
    /// [`ModerateError`]; nothing was sent then.
    pub fn moderate(&mut self, action: ModerateAction) -> Result<u32, ModerateError> {
        if let Some(error) = self.ended() {
            return Err(ModerateError::Ended(error));
        }
        if self.is_full() || self.moderations.len() >= ACTIONS_MAX {
            return Err(ModerateError::TooManyRequests);
        }
        let request = self.next_request();
        self.push(ClientMessage::Moderate(Moderate { request, action }));
        self.moderations.insert(request, Moderation::default());
        Ok(request)
    }

    /// The relay's answer to an action, once it is there.
    pub fn moderation(&self, request: u32) -> Option<Result<(), Refusal>> {
        self.moderations.get(&request)?.answer.clone()
    }

    /// Nobody waits for the answer any more. What was asked for is done all the same.
    pub fn release_moderation(&mut self, request: u32) {
        match self.moderations.get_mut(&request) {
            Some(moderation) if moderation.answer.is_none() => moderation.is_unread = true,
            _ => _ = self.moderations.remove(&request),
        }
    }

    /// True if `request` was an action.
    pub(super) fn handle_moderation(&mut self, request: u32, answer: Result<(), Refusal>) -> bool {
        let Some(moderation) = self.moderations.get_mut(&request) else { return false };
        moderation.answer = Some(answer);
        if moderation.is_unread {
            self.moderations.remove(&request);
        }
        self.changed = true;
        true
    }

    pub(super) fn end_moderations(&mut self, error: &Refusal) {
        let error = if error.code == Code::Ok { Refusal::from(Code::Closed) } else { error.clone() };
        for request in self.moderations.keys().copied().collect::<Vec<_>>() {
            if self.moderation(request).is_none() {
                self.handle_moderation(request, Err(error.clone()));
            }
        }
    }

    pub(super) fn handle_go_away(&mut self, go_away: &GoAway) {
        // What is no address helps nobody, but the rest of the message holds.
        let address = go_away.address.as_deref().and_then(|text| text.parse::<RelayAddress>().ok());
        self.feed.push_leaving(address);
        self.changed = true;
    }
}
