//! The part of a [`Call`] that does something about others in the room, for those whose token says so; and what
//! the relay says of its own end.

use parlor_transport::address::RelayAddress;
use parlor_transport::wire::control::{ClientMessage, GoAway, Moderate, ModerateAction};

use super::Call;
use crate::error::ModerateError;

impl Call {
    /// Asks the relay to do something about somebody; gives the request's number.
    ///
    /// # Errors
    /// [`ModerateError`]; nothing was sent then.
    pub fn moderate(&mut self, action: ModerateAction) -> Result<u32, ModerateError> {
        Ok(self.ask(|request| ClientMessage::Moderate(Moderate { request, action }))?)
    }

    pub(super) fn handle_go_away(&mut self, go_away: &GoAway) {
        // What is no address helps nobody, but the rest of the message holds.
        let address = go_away.address.as_deref().and_then(|text| text.parse::<RelayAddress>().ok());
        self.feed.push_leaving(address);
        self.changed = true;
    }
}
