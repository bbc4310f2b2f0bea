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

    /// The room was joined with the token that was shown.
    pub(super) fn handle_token_taken(&mut self) {
        let Some(token) = self.token_shown.take_if(|shown| self.token_offered.as_ref() == Some(shown)) else {
            return;
        };
        self.token_offered = None;
        self.feed.clear_token_expiry();
        for request in self.renewals_unanswered() {
            if self.renewals[&request].token == token {
                self.handle_renewal(request, Ok(()));
            }
        }
        self.request.token = Some(token);
    }

    /// The room could not be joined with the token that was shown, or for another reason that does not pass.
    pub(super) fn handle_token_refused(&mut self) {
        if self.token_offered == self.token_shown {
            self.token_offered = None;
        }
    }

    /// The connection is gone for `error`, and the renewals with it; but a token that came too late for the relay to keep
    /// us goes with the next join, whose answer is its own.
    pub(super) fn interrupt_renewals(&mut self, error: &Refusal) {
        for request in self.renewals_unanswered() {
            let is_offered = self.token_offered.as_ref() == Some(&self.renewals[&request].token);
            if error.code != Code::TokenExpired || !is_offered {
                self.handle_renewal(request, Err(error.clone()));
            }
        }
    }

    fn renewals_unanswered(&self) -> Vec<u32> {
        let waiting = self.renewals.iter().filter(|(_, renewal)| renewal.answer.is_none());
        waiting.map(|(&request, _)| request).collect()
    }

    pub(super) fn end_renewals(&mut self, error: &Refusal) {
        let error = if error.code == Code::Ok { Refusal::from(Code::Closed) } else { error.clone() };
        for request in self.renewals_unanswered() {
            self.handle_renewal(request, Err(error.clone()));
        }
    }
}
