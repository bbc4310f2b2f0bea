//! The part of a [`Room`] for moderators.

use std::sync::Arc;
use std::time::Duration;

use parlor_transport::id::{StreamId, UserId};
use parlor_transport::wire::control::ModerateAction;

use super::answer::Answer;
use super::room::Room;
use crate::error::ModerateError;
use crate::room::RoomState;

impl Room {
    /// Puts a user out of the room and waits for the relay's answer. Their client does not come back by itself; the
    /// others see [`Departure::Kicked`](crate::Departure::Kicked). For those whose token says `moderate`.
    ///
    /// # Errors
    /// [`ModerateError`], for example when the token does not say it, or the user is not in the room.
    pub async fn kick(&self, user: impl AsRef<str>) -> Result<(), ModerateError> {
        self.moderate(ModerateAction::Kick { user: UserId::new(user)? }).await
    }

    /// Ends a stream of somebody in the room and waits for the relay's answer. Its publisher is told, and may
    /// publish it again. For those whose token says `moderate`.
    ///
    /// # Errors
    /// [`ModerateError`], for example when the token does not say it, or there is no such stream.
    pub async fn remove_stream(&self, stream: impl AsRef<str>) -> Result<(), ModerateError> {
        self.moderate(ModerateAction::RemoveStream { stream: StreamId::new(stream)? }).await
    }

    /// Ends the streams of a user and lets them publish no others: for so long, in whole seconds, also if they
    /// leave and come back; without a time, as long as they stay in the room now. Waits for the relay's answer. For
    /// those whose token says `moderate`.
    ///
    /// # Errors
    /// [`ModerateError`], for example when the token does not say it, or the user is not in the room.
    pub async fn forbid_publish(
        &self,
        user: impl AsRef<str>,
        time: Option<Duration>,
    ) -> Result<(), ModerateError> {
        let seconds = time.map_or(0, |time| {
            let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
            u32::try_from(seconds.max(1)).unwrap_or(u32::MAX)
        });
        self.moderate(ModerateAction::ForbidPublish { user: UserId::new(user)?, seconds }).await
    }

    async fn moderate(&self, action: ModerateAction) -> Result<(), ModerateError> {
        let shared = self.shared();
        let request = shared.act(|_, call| call.moderate(action))?;
        Answer::new(Arc::clone(shared), request).done().await.map_err(|refusal| match self.status().state {
            RoomState::Disconnected => ModerateError::Ended(refusal),
            _ => ModerateError::Refused(refusal),
        })
    }
}
