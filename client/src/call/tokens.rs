//! The part of a [`Call`] that renews its token before it expires.

use std::time::Duration;

use parlor_transport::error::{Code, Refusal};
use parlor_transport::token::Token;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{ClientMessage, RenewToken, TokenExpiring};

use super::Call;
use crate::error::RenewError;

/// Renewals that wait for an answer, or whose answer waits to be read. One at a time is usual.
const RENEWALS_MAX: usize = 8;

/// A renewal on its way, or its answer.
#[derive(Debug)]
pub(super) struct Renewal {
    token: Token,
    answer: Option<Result<(), Refusal>>,
}

impl Call {
    /// Asks the relay to go on with another token; gives the request's number.
    ///
    /// # Errors
    /// [`RenewError`]; nothing was sent then.
    pub fn renew_token(&mut self, token: Token) -> Result<u32, RenewError> {
        if let Some(error) = self.ended() {
            return Err(RenewError::Ended(error));
        }
        if self.is_full() || self.renewals.len() >= RENEWALS_MAX {
            return Err(RenewError::TooManyRequests);
        }
        let request = self.next_request();
        self.push(ClientMessage::RenewToken(RenewToken { request, token: token.clone() }));
        self.token_offered = Some(token.clone());
        self.renewals.insert(request, Renewal { token, answer: None });
        Ok(request)
    }

    /// The relay's answer to a renewal, once it is there.
    pub fn renewal(&self, request: u32) -> Option<Result<(), Refusal>> {
        self.renewals.get(&request)?.answer.clone()
    }

    /// Nobody waits for the answer any more.
    pub fn release_renewal(&mut self, request: u32) {
        // One that was not answered yet stays: when it is, its token is the one that holds.
        match self.renewals.get_mut(&request) {
            Some(Renewal { answer: None, .. }) => _ = self.unread_renewals.insert(request),
            _ => _ = self.renewals.remove(&request),
        }
    }

    /// True if `request` was a renewal.
    pub(super) fn handle_renewal(&mut self, request: u32, answer: Result<(), Refusal>) -> bool {
        let Some(renewal) = self.renewals.get_mut(&request) else { return false };
        // One that was lost with its connection is still good for joining anew.
        let is_settled = answer.as_ref().err().is_none_or(|refusal| !refusal.code.is_retryable());
        if is_settled && self.token_offered.as_ref() == Some(&renewal.token) {
            self.token_offered = None;
        }
        if answer.is_ok() {
            self.request.token = Some(renewal.token.clone());
            self.feed.clear_token_expiry();
        }
        renewal.answer = Some(answer);
        if self.unread_renewals.remove(&request) {
            self.renewals.remove(&request);
        }
        self.changed = true;
        true
    }

    pub(super) fn handle_token_expiring(&mut self, now: Timestamp, expiring: &TokenExpiring) {
        self.feed.push_token_expiry(now + Duration::from_secs(expiring.seconds.into()));
        self.changed = true;
    }

    pub(super) fn end_renewals(&mut self, error: &Refusal) {
        let error = if error.code == Code::Ok { Refusal::from(Code::Closed) } else { error.clone() };
        for request in self.renewals.keys().copied().collect::<Vec<_>>() {
            if self.renewal(request).is_none() {
                self.handle_renewal(request, Err(error.clone()));
            }
        }
    }
}
