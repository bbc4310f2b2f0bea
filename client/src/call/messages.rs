//! The part of a [`Call`] that sends messages to other users and takes theirs.

use bytes::Bytes;
use parlor_transport::error::Refusal;
use parlor_transport::wire::control::{APP_MESSAGE_MAX, AppMessage, LISTED_MAX, Say};

use super::{Call, violation};
use crate::error::MessageError;
use crate::room::Recipients;

/// Bytes of messages that wait to be sent: while there is no connection yet, or none that takes them.
const WAITING_BYTES_MAX: usize = 1 << 20;

impl Call {
    /// Sends a message; gives the request's number. It leaves as soon as the room is joined.
    ///
    /// # Errors
    /// [`MessageError`]; nothing was sent then.
    pub fn send_message(&mut self, to: Recipients, payload: Bytes, lossy: bool) -> Result<u32, MessageError> {
        if payload.len() > APP_MESSAGE_MAX {
            return Err(MessageError::TooLarge(payload.len()));
        }
        let to = match to {
            Recipients::Everyone => Vec::new(),
            Recipients::Users(users) if users.is_empty() => return Err(MessageError::Nobody),
            Recipients::Users(users) if users.len() > LISTED_MAX => {
                return Err(MessageError::TooManyListed(users.len()));
            }
            Recipients::Users(users) => users,
        };
        if self.messages_bytes + payload.len() > WAITING_BYTES_MAX {
            return Err(MessageError::TooManyRequests);
        }
        let request = self.begin_asking()?;
        self.messages_bytes += payload.len();
        self.messages.push_back(AppMessage::Say(Say { request, to, lossy, payload }));
        Ok(request)
    }

    /// The next message to send to others; none before the room is joined.
    pub fn poll_app_message(&mut self) -> Option<AppMessage> {
        if !self.is_joined() {
            return None;
        }
        let message = self.messages.pop_front()?;
        if let AppMessage::Say(say) = &message {
            self.messages_bytes -= say.payload.len();
        }
        Some(message)
    }

    /// Whether [`poll_app_message`](Self::poll_app_message) has something to give.
    pub fn has_app_messages(&self) -> bool {
        self.is_joined() && !self.messages.is_empty()
    }

    /// Takes a message of another user.
    ///
    /// # Errors
    /// What the relay did wrong; the call is over then.
    pub fn handle_app_message(&mut self, message: AppMessage) -> Result<(), Refusal> {
        if self.is_over() {
            return Ok(());
        }
        let outcome = match message {
            AppMessage::Said(said) => {
                self.feed.push_message(said);
                self.changed = true;
                Ok(())
            }
            AppMessage::Say(_) => Err(violation("what only a client says")),
        };
        self.end_on_fault(outcome)
    }

    pub(super) fn end_messages(&mut self) {
        self.messages.clear();
        self.messages_bytes = 0;
    }
}
