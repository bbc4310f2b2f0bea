//! The handle of a published stream.

use std::fmt;
use std::sync::Arc;

use parlor_transport::clock::Clock;
use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::StreamId;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{TrackInfo, TrackState};
use tokio::sync::Notify;

use super::answer::Answer;
use super::shared::Shared;
use crate::error::InfoError;
use crate::options::PublishRequest;
use crate::publisher::{EncodedFrame, KeyframeRequest, Offer, PublisherState, PublisherStatus, SendOutcome};
use crate::stats::PublisherStats;

/// A stream that is published, or on the way there. Dropping it stops publishing.
pub struct Publisher {
    shared: Arc<Shared>,
    lane: u32,
    request: PublishRequest,
    bell: Arc<Notify>,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>, lane: u32, request: PublishRequest) -> Self {
        let bell = shared.bell(lane);
        Publisher { shared, lane, request, bell }
    }

    /// The stream.
    pub fn stream(&self) -> &StreamId {
        &self.request.stream
    }

    /// Its tracks.
    pub fn tracks(&self) -> &[TrackInfo] {
        &self.request.tracks
    }

    /// State and error as they are now.
    pub fn status(&self) -> PublisherStatus {
        self.shared.look(|_, call| status(call, self.lane))
    }

    /// Waits until the status is another than `seen`, and returns it.
    pub async fn changed_from(&self, seen: &PublisherStatus) -> PublisherStatus {
        self.shared.when(|call| Some(status(call, self.lane)).filter(|now| now != seen)).await
    }

    /// Waits until the relay takes frames.
    ///
    /// # Errors
    /// Why it does not, or that the publisher was stopped.
    pub async fn publishing(&self) -> Result<(), Refusal> {
        self.shared
            .when(|call| {
                let status = status(call, self.lane);
                match status.state {
                    PublisherState::Requesting => None,
                    PublisherState::Publishing => Some(Ok(())),
                    PublisherState::Idle => {
                        Some(Err(status.error.unwrap_or_else(|| Refusal::from(Code::NotPublishing))))
                    }
                }
            })
            .await
    }

    /// The time on the engine's clock, for [`EncodedFrame::captured`].
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// The engine's clock.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// What the link has for this publication's encoders: an equal share of what it carries beside repair, or of what the
    /// relay takes, if it said that more was too much (code 2030). `None` before the room is joined.
    pub fn offer(&self) -> Option<Offer> {
        let uplink = self.shared.session()?.out_stats();
        let (sharing, most) =
            self.shared.look(|now, call| (call.publishing().max(1), call.publish_most(now)));
        let media = uplink.media_target.min(most.unwrap_or(u64::MAX)) / sharing as u64;
        Some(Offer { media, overfull: uplink.overfull })
    }

    /// Hands a frame over. Never waits: the frame is queued, or dropped and the reason told.
    pub fn send_frame(&self, frame: EncodedFrame) -> SendOutcome {
        let outcome = self.shared.handle(|now, call| call.offer_frame(now, self.lane, frame));
        self.shared.media.notify_one();
        outcome
    }

    /// The keyframes wanted since the last call: what an encoder asks before each frame.
    pub fn take_keyframe_requests(&self) -> Vec<KeyframeRequest> {
        self.shared.look(|_, call| call.take_keyframe_requests(self.lane))
    }

    /// Waits until keyframes are wanted; empty once the publisher has ended. Cancelling loses nothing.
    pub async fn keyframe_wanted(&self) -> Vec<KeyframeRequest> {
        self.shared
            .when_rung(&self.bell, |call| {
                let wanted = call.take_keyframe_requests(self.lane);
                let ended = status(call, self.lane).state == PublisherState::Idle;
                (ended || !wanted.is_empty()).then_some(wanted)
            })
            .await
    }

    /// Sends nothing of `track` while `muted`; others see its last picture, or hear silence, and are told by
    /// [`RoomEvent::TrackState`](crate::room::RoomEvent::TrackState).
    pub fn set_muted(&self, track: u8, muted: bool) {
        self.set_track_state(track, if muted { TrackState::Muted } else { TrackState::Open });
    }

    /// Tells others why they see or hear something of `track`, or nothing: it is muted, its device turned off, taken
    /// away or not allowed. Nothing is sent of it unless it is [`Open`](TrackState::Open).
    pub fn set_track_state(&self, track: u8, state: TrackState) {
        self.shared.act(|_, call| call.set_track_state(self.lane, track, state));
    }

    /// Attaches info to the stream, at most 1,024 bytes; empty for none. Others get it as
    /// [`RoomEvent::StreamInfo`](crate::room::RoomEvent::StreamInfo), those who come later with the stream.
    ///
    /// # Errors
    /// [`InfoError`] when it is too large or the publisher has ended. What the relay says of it is its [`Answer`].
    pub fn set_info(&self, info: impl Into<String>) -> Result<Answer, InfoError> {
        let info = info.into();
        let request = self.shared.act(|_, call| call.set_stream_info(self.lane, info))?;
        Ok(Answer::new(Arc::clone(&self.shared), request))
    }

    /// What was sent and dropped.
    pub fn stats(&self) -> PublisherStats {
        self.shared.look(|now, call| call.publisher_stats(now, self.lane))
    }

    /// Stops publishing. Idempotent; dropping does the same.
    pub fn stop(&self) {
        self.shared.act(|_, call| call.unpublish(self.lane));
    }
}

fn status(call: &crate::call::Call, lane: u32) -> PublisherStatus {
    match call.publication(lane) {
        Some(publication) => publication.status().clone(),
        None => PublisherStatus { state: PublisherState::Idle, error: None },
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.act(|_, call| call.release_publication(self.lane));
        // Whoever still waits at the bell finds the end there.
        self.bell.notify_waiters();
        self.shared.drop_bell(self.lane);
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("stream", self.stream())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
