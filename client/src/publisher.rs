//! Publishing a stream: its states, the frames an app hands in, and what becomes of them.
//!
//! Values only; the queue of outgoing frames is [`outbox`], the requests to the relay are `call`'s business.

mod bitrate;
pub(crate) mod ceiling;
pub mod outbox;

pub use bitrate::{Bitrate, Offer};
use bytes::Bytes;
use parlor_transport::error::{Code, Coded, Refusal};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::frame::AudioLevel;

/// Where a publisher stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublisherState {
    /// Nothing is published and nothing is being tried.
    Idle,
    /// The relay was asked and has not answered, or the room is not joined yet.
    Requesting,
    /// Frames flow.
    Publishing,
}

/// A publisher's state and the error behind it.
///
/// [`Idle`](PublisherState::Idle) with an error is final; [`Requesting`](PublisherState::Requesting) with
/// an error is being tried again; [`Publishing`](PublisherState::Publishing) with an error (code 2030) goes on, but the
/// relay dropped frames of it: send less.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublisherStatus {
    /// The state.
    pub state: PublisherState,
    /// What went wrong: its code is stable, its text says what to do next.
    pub error: Option<Refusal>,
}

/// A frame as it leaves an encoder, whatever the codec.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedFrame {
    /// The track: its place in the list given to `publish`.
    pub track: u8,
    /// Spatial layer, 0 (smallest) to 3.
    pub spatial: u8,
    /// Temporal layer, 0 (needed by all) to 3.
    pub temporal: u8,
    /// Decodes without any earlier frame. Audio and data frames always count as keyframes.
    pub keyframe: bool,
    /// No later frame needs it, so it may be left out when there is little room.
    pub discardable: bool,
    /// When it was captured, on the engine's clock (`Engine::now`).
    pub captured: Timestamp,
    /// Loudness, for audio.
    pub level: Option<AudioLevel>,
    /// The app's own bytes that travel with the frame, at most 4,096.
    pub metadata: Bytes,
    /// The encoder's output. With everything else at most 1 MiB.
    pub payload: Bytes,
}

impl EncodedFrame {
    /// A frame of layer 0 of `track`, captured at `captured`, that is no keyframe.
    pub fn new(track: u8, captured: Timestamp, payload: impl Into<Bytes>) -> Self {
        EncodedFrame {
            track,
            spatial: 0,
            temporal: 0,
            keyframe: false,
            discardable: false,
            captured,
            level: None,
            metadata: Bytes::new(),
            payload: payload.into(),
        }
    }

    /// The same frame as a keyframe.
    #[must_use]
    pub fn keyframe(self) -> Self {
        EncodedFrame { keyframe: true, ..self }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a dropped frame may call for a keyframe"]
pub enum SendOutcome {
    /// It stands in the queue and leaves as soon as the network takes it.
    Queued,
    /// It was not taken.
    Dropped(DropReason),
}

/// Why a frame was not taken, or left the queue unsent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum DropReason {
    /// The publisher is not in state [`Publishing`](PublisherState::Publishing).
    NotPublishing,
    /// The track is muted.
    Muted,
    /// The queue is full: the network takes less than the encoder makes. Encode less.
    Congested,
    /// An earlier frame of the layer was lost here; nothing decodes until the next keyframe. Encode one.
    AwaitingKeyframe,
    /// Payload and metadata are beyond the size limit. Encode less at once.
    TooLarge,
    /// No such track or layer was published.
    BadFrame,
    /// It waited in the queue until it was too old to be of use.
    Late,
}

impl DropReason {
    /// Every reason, in the order of [`SendCounts`](outbox::SendCounts).
    pub const ALL: [DropReason; 7] = [
        DropReason::NotPublishing,
        DropReason::Muted,
        DropReason::Congested,
        DropReason::AwaitingKeyframe,
        DropReason::TooLarge,
        DropReason::BadFrame,
        DropReason::Late,
    ];
}

/// Somebody cannot go on without a keyframe: the encoder should make one now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct KeyframeRequest {
    /// The track.
    pub track: u8,
    /// The spatial layer.
    pub spatial: u8,
}

/// The states of one publication, from the request to its end.
///
/// ```
/// use parlor_client::publisher::{Lifecycle, PublisherState};
/// use parlor_transport::error::{Code, Refusal};
///
/// let mut publisher = Lifecycle::requesting();
/// publisher.refused(Refusal::from(Code::StreamTaken));
/// assert_eq!(publisher.status().state, PublisherState::Idle);
/// publisher.published(); // too late: an end is an end
/// assert_eq!(publisher.status().state, PublisherState::Idle);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lifecycle(PublisherStatus);

impl Lifecycle {
    /// The relay is being asked.
    pub fn requesting() -> Self {
        Lifecycle(PublisherStatus { state: PublisherState::Requesting, error: None })
    }

    /// The relay took the stream. Ignored unless requested.
    pub fn published(&mut self) {
        if self.0.state == PublisherState::Requesting {
            self.0 = PublisherStatus { state: PublisherState::Publishing, error: None };
        }
    }

    /// The relay drops frames for `error`. Ignored unless published.
    pub fn limited(&mut self, error: Refusal) {
        if self.0.state == PublisherState::Publishing {
            self.0.error = Some(error);
        }
    }

    /// The connection is gone for `error`; the stream is published again once there is another. Ignored after the end.
    pub fn interrupted(&mut self, error: Refusal) {
        if self.0.state != PublisherState::Idle {
            self.0 = PublisherStatus { state: PublisherState::Requesting, error: Some(error) };
        }
    }

    /// The relay refused, or the room ended.
    pub fn refused(&mut self, error: Refusal) {
        if self.0.state != PublisherState::Idle {
            let error = (error.code() != Code::Ok).then_some(error);
            self.0 = PublisherStatus { state: PublisherState::Idle, error };
        }
    }

    /// Stopped on request. Idempotent; an earlier error stays.
    pub fn stopped(&mut self) {
        self.refused(Refusal::from(Code::Ok));
    }

    /// State and error.
    pub fn status(&self) -> &PublisherStatus {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_goes_through_its_states_and_ends_once() {
        let mut publisher = Lifecycle::requesting();
        assert_eq!(publisher.status().state, PublisherState::Requesting);
        publisher.published();
        assert_eq!(publisher.status().state, PublisherState::Publishing);
        publisher.limited(Refusal::from(Code::TooManyBytes));
        let PublisherStatus { state, error } = publisher.status();
        assert_eq!(
            (*state, error.as_ref().map(Coded::code)),
            (PublisherState::Publishing, Some(Code::TooManyBytes))
        );
        publisher.stopped();
        assert_eq!(*publisher.status(), PublisherStatus { state: PublisherState::Idle, error: None });
        publisher.refused(Refusal::from(Code::ConnectionLost));
        assert_eq!(publisher.status().error, None, "it was over already");
    }
}
