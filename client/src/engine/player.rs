//! The handle of a played stream, and the reader of its frames.

use std::fmt;
use std::sync::Arc;

use parlor_transport::clock::Clock;
use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::StreamId;
use tokio::sync::Notify;

use super::shared::Shared;
use crate::call::Call;
use crate::options::PlayOptions;
use crate::player::{PlayedStream, PlayerState, PlayerStatus, ReceivedFrame};
use crate::stats::PlayerStats;

/// A stream that is played, or waited for. Dropping it stops playing.
pub struct Player {
    shared: Arc<Shared>,
    lane: u32,
    stream: StreamId,
}

impl Player {
    pub(super) fn new(shared: Arc<Shared>, lane: u32, stream: StreamId) -> Self {
        Player { shared, lane, stream }
    }

    /// The stream.
    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// State and error as they are now.
    pub fn status(&self) -> PlayerStatus {
        self.shared.look(|_, call| status(call, self.lane))
    }

    /// Who publishes the stream and what its tracks are, while it is played.
    pub fn played(&self) -> Option<PlayedStream> {
        self.shared.look(|_, call| call.play_on(self.lane).and_then(|play| play.played().cloned()))
    }

    /// Waits until the status is another than `seen`, and returns it.
    pub async fn changed_from(&self, seen: &PlayerStatus) -> PlayerStatus {
        self.shared.when(|call| Some(status(call, self.lane)).filter(|now| now != seen)).await
    }

    /// Waits until the stream is there and plays.
    ///
    /// # Errors
    /// Why it cannot be played, or that the player was stopped. A stream that does not exist yet is waited for.
    pub async fn playing(&self) -> Result<(), Refusal> {
        self.shared
            .when(|call| {
                let status = status(call, self.lane);
                match status.state {
                    PlayerState::Requesting => None,
                    PlayerState::Playing => Some(Ok(())),
                    PlayerState::Idle => {
                        Some(Err(status.error.unwrap_or_else(|| Refusal::from(Code::NotPlaying))))
                    }
                }
            })
            .await
    }

    /// The encoded frames as they come. Two readers of one player share its frames between them.
    pub fn frames(&self) -> Frames {
        Frames { shared: Arc::clone(&self.shared), lane: self.lane, bell: self.shared.bell(self.lane) }
    }

    /// Changes what is wanted of the stream; replaces everything wished before.
    pub fn update(&self, options: PlayOptions) {
        self.shared.act(|_, call| call.update_play(self.lane, options.wishes()));
    }

    /// Asks the publisher for a keyframe of `track`, for a decoder that cannot go on. The relay merges the wishes of many,
    /// and sends nothing of the track before that keyframe. After missed frames this is done already.
    pub fn request_keyframe(&self, track: u8) {
        self.shared.act(|_, call| call.request_keyframe(self.lane, track));
    }

    /// What was received.
    pub fn stats(&self) -> PlayerStats {
        self.shared.look(|now, call| call.player_stats(now, self.lane))
    }

    /// Stops playing. Idempotent; dropping does the same.
    pub fn stop(&self) {
        self.shared.act(|_, call| call.stop_play(self.lane));
    }
}

fn status(call: &Call, lane: u32) -> PlayerStatus {
    match call.play_on(lane) {
        Some(play) => play.status().clone(),
        None => PlayerStatus { state: PlayerState::Idle, error: None },
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let bell = self.shared.bell(self.lane);
        self.shared.act(|_, call| call.release_play(self.lane));
        // Whoever still waits at the bell finds the end there.
        bell.notify_waiters();
        self.shared.drop_bell(self.lane);
    }
}

impl fmt::Debug for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Player")
            .field("stream", &self.stream)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// Reads the frames of a [`Player`].
///
/// At most 160 frames or 2 MiB wait here. A reader that is slower skips to a keyframe and finds in
/// [`ReceivedFrame::missed`] how many frames it did not get.
pub struct Frames {
    shared: Arc<Shared>,
    lane: u32,
    bell: Arc<Notify>,
}

impl Frames {
    /// The next frame; `None` once the player has ended and everything was read. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<ReceivedFrame> {
        self.shared
            .when_rung(&self.bell, |call| match call.pop_frame(self.lane) {
                Some(frame) => Some(Some(frame)),
                None => call.play_on(self.lane).is_none_or(|play| play.is_closed()).then_some(None),
            })
            .await
    }

    /// Who publishes the stream and what its tracks are; waits for the answer that a frame may have overtaken.
    /// `None` once the player has ended.
    pub async fn played(&mut self) -> Option<PlayedStream> {
        self.shared
            .when(|call| match call.play_on(self.lane) {
                Some(play) if !play.is_closed() => play.played().cloned().map(Some),
                _ => Some(None),
            })
            .await
    }

    /// Asks the publisher for a keyframe of `track`. The relay merges the wishes of many.
    pub fn request_keyframe(&self, track: u8) {
        self.shared.act(|_, call| call.request_keyframe(self.lane, track));
    }

    /// The engine's clock, which the frames' times are of.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Runs a task where the engine's tasks run.
    #[cfg(feature = "codecs")]
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.runtime.spawn(task);
    }

    /// The next frame if one waits.
    pub fn try_next(&mut self) -> Option<ReceivedFrame> {
        self.shared.look(|_, call| call.pop_frame(self.lane))
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("lane", &self.lane).finish_non_exhaustive()
    }
}
