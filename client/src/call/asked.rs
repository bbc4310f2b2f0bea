//! The part of a [`Call`] that asks for what ends with one answer: done, or refused and why.

use parlor_transport::error::{Code, Refusal};
use parlor_transport::wire::control::{AppMessage, ClientMessage};

use super::Call;
use crate::error::AskError;

/// Requests that wait for an answer, or whose answer waits to be read. The relay answers within a round trip,
/// in which nobody asks for a thousand things.
const ASKED_MAX: usize = 1024;

/// A request on its way, or its answer.
#[derive(Debug, Default)]
pub(super) struct Asked {
    answer: Option<Result<(), Refusal>>,
    /// Nobody waits for the answer.
    released: bool,
}

impl Call {
    /// The number of a request that is answered with done or refused.
    ///
    /// # Errors
    /// [`AskError`]; nothing is to be sent then.
    pub(super) fn begin_asking(&mut self) -> Result<u32, AskError> {
        if let Some(error) = self.ended() {
            return Err(AskError::Ended(error));
        }
        if self.is_full() || self.asked.len() >= ASKED_MAX {
            return Err(AskError::TooManyRequests);
        }
        let request = self.next_request();
        self.asked.insert(request, Asked::default());
        Ok(request)
    }

    /// Asks for what `message` makes of the request's number.
    ///
    /// # Errors
    /// [`AskError`]; nothing was sent then.
    pub(super) fn ask(&mut self, message: impl FnOnce(u32) -> ClientMessage) -> Result<u32, AskError> {
        let request = self.begin_asking()?;
        self.push(message(request));
        Ok(request)
    }

    /// The relay's answer, once it is there.
    pub fn answer(&self, request: u32) -> Option<Result<(), Refusal>> {
        self.asked.get(&request)?.answer.clone()
    }

    /// Nobody waits for the answer any more.
    pub fn release_answer(&mut self, request: u32) {
        match self.asked.get_mut(&request) {
            // Until it comes, its number must not be taken for a play's.
            Some(asked) if asked.answer.is_none() => asked.released = true,
            _ => _ = self.asked.remove(&request),
        }
    }

    /// True if `request` was asked for here.
    pub(super) fn handle_answer(&mut self, request: u32, answer: Result<(), Refusal>) -> bool {
        let Some(asked) = self.asked.get_mut(&request) else { return false };
        if let Err(refusal) = &answer {
            tracing::debug!(request, %refusal, "refused");
        }
        // What the relay took is told again should the stream have to be published anew.
        if let Some((lane, info)) = self.infos.remove(&request)
            && answer.is_ok()
            && let Some(publication) = self.publications.get_mut(&lane)
        {
            publication.info = info;
        }
        asked.answer = Some(answer);
        if asked.released {
            self.asked.remove(&request);
        }
        self.changed = true;
        true
    }

    /// The connection is gone: of what was sent nobody knows whether it was done. Messages that wait still leave.
    pub(super) fn end_what_was_asked(&mut self, error: &Refusal) {
        let waiting = self.messages.iter().filter_map(|message| match message {
            AppMessage::Say(say) => Some(say.request),
            AppMessage::Said(_) => None,
        });
        let waiting: Vec<u32> = waiting.collect();
        for request in self.asked.keys().copied().collect::<Vec<_>>() {
            if self.answer(request).is_none() && !waiting.contains(&request) {
                self.handle_answer(request, Err(error.clone()));
            }
        }
    }

    pub(super) fn end_asked(&mut self, error: &Refusal) {
        let error = if error.code == Code::Ok { Refusal::from(Code::Closed) } else { error.clone() };
        for request in self.asked.keys().copied().collect::<Vec<_>>() {
            if self.answer(request).is_none() {
                self.handle_answer(request, Err(error.clone()));
            }
        }
    }
}
