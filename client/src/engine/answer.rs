//! The relay's answer to one request, for those who wait for it.

use std::fmt;
use std::sync::Arc;

use parlor_transport::error::Refusal;

use super::shared::Shared;

/// The answer to something that was asked of the relay, which was sent already. Dropping it takes nothing back: then
/// nobody hears whether it was refused.
pub struct Answer {
    shared: Arc<Shared>,
    request: u32,
}

impl Answer {
    pub(super) fn new(shared: Arc<Shared>, request: u32) -> Self {
        Answer { shared, request }
    }

    /// Waits until the relay has done it.
    ///
    /// # Errors
    /// Why the relay refused it, or why the room ended before it answered.
    pub async fn done(self) -> Result<(), Refusal> {
        self.shared.when(|call| call.answer(self.request)).await
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.shared.look(|_, call| call.release_answer(self.request));
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("request", &self.request).finish_non_exhaustive()
    }
}
