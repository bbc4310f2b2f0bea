//! Playing a stream: its states, and the frames that come.
//!
//! Values only; the queue of incoming frames is [`inbox`], the requests to the relay are `call`'s business.

pub mod inbox;

use std::time::Duration;

use bytes::Bytes;
use parlor_transport::error::{Code, Coded, Refusal};
use parlor_transport::id::UserId;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{Departure, PlayStarted, TrackInfo};
use parlor_transport::wire::frame::FrameHeader;

/// Where a player stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlayerState {
    /// Nothing is played and nothing is being tried.
    Idle,
    /// Asked for, but nothing comes: the room is not joined yet, or nobody publishes the stream (any more).
    Requesting,
    /// The stream exists and its frames flow.
    Playing,
}

/// A player's state and the error behind it.
///
/// [`Idle`](PlayerState::Idle) with an error is final; [`Requesting`](PlayerState::Requesting) with an
/// error waits for the stream to come back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlayerStatus {
    /// The state.
    pub state: PlayerState,
    /// What went wrong: its code is stable, its text says what to do next.
    pub error: Option<Refusal>,
}

/// The stream that a player plays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlayedStream {
    /// Who publishes it.
    pub user: UserId,
    /// Its tracks.
    pub tracks: Vec<TrackInfo>,
}

/// A frame as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceivedFrame {
    /// What the publisher said of it. Its capture time is on the relay's clock: see
    /// [`captured`](Self::captured).
    pub header: FrameHeader,
    /// The encoder's output.
    pub payload: Bytes,
    /// Frames of this track that were lost on the way, or left out here, since the last one given. Of video this one is a
    /// keyframe then: what would not decode is not given, and the keyframe was asked for.
    pub missed: u64,
    /// When it was complete, on the engine's clock.
    pub arrived: Timestamp,
    /// When it was captured, on the engine's clock; as exact as `RoomStats::clock_error`.
    pub captured: Timestamp,
}

impl ReceivedFrame {
    /// How old it was on arrival; zero when the clocks' estimate would make it negative.
    pub fn age(&self) -> Duration {
        self.arrived.saturating_since(self.captured)
    }
}

/// The states of one play, from the request to its end.
///
/// ```
/// use parlor_client::player::{Lifecycle, PlayerState};
/// use parlor_client::Departure;
///
/// let mut player = Lifecycle::requesting();
/// player.waiting();
/// assert_eq!(player.status().state, PlayerState::Requesting);
/// player.ended(Departure::Kicked); // told why, and waiting again
/// assert!(player.status().error.is_some() && player.status().state == PlayerState::Requesting);
/// player.stopped();
/// assert_eq!(player.status().state, PlayerState::Idle);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lifecycle {
    status: PlayerStatus,
    stream: Option<PlayedStream>,
}

impl Lifecycle {
    /// The relay is being asked.
    pub fn requesting() -> Self {
        Lifecycle { status: PlayerStatus { state: PlayerState::Requesting, error: None }, stream: None }
    }

    /// The stream exists: its frames come. Ignored after the end.
    pub fn started(&mut self, message: &PlayStarted) {
        if self.status.state != PlayerState::Idle {
            self.status = PlayerStatus { state: PlayerState::Playing, error: None };
            self.stream = Some(PlayedStream { user: message.user.clone(), tracks: message.tracks.clone() });
        }
    }

    /// The stream does not exist yet; the relay waits for it. Ignored after the end.
    pub fn waiting(&mut self) {
        if self.status.state != PlayerState::Idle {
            self.status = PlayerStatus { state: PlayerState::Requesting, error: None };
            self.stream = None;
        }
    }

    /// The stream ended; the relay waits for it to come back. An end that its publisher did not want
    /// shows as an error.
    pub fn ended(&mut self, reason: Departure) {
        self.waiting();
        if self.status.state == PlayerState::Requesting {
            self.status.error = departure_code(reason).map(|code| {
                Refusal::new(code, "the stream ended unexpectedly; it is played again when it comes back")
            });
        }
    }

    /// The relay refused, or the room ended. An end is an end.
    pub fn refused(&mut self, error: Refusal) {
        if self.status.state != PlayerState::Idle {
            let error = (error.code() != Code::Ok).then_some(error);
            self.status = PlayerStatus { state: PlayerState::Idle, error };
            self.stream = None;
        }
    }

    /// Stopped on request. Idempotent; an earlier error stays.
    pub fn stopped(&mut self) {
        self.refused(Refusal::from(Code::Ok));
    }

    /// State and error.
    pub fn status(&self) -> &PlayerStatus {
        &self.status
    }

    /// The stream, while it is played.
    pub fn stream(&self) -> Option<&PlayedStream> {
        self.stream.as_ref()
    }
}

/// The code for an end that the publisher did not ask for.
fn departure_code(reason: Departure) -> Option<Code> {
    match reason {
        Departure::Left => None,
        Departure::HeartbeatTimeout => Some(Code::HeartbeatTimeout),
        Departure::RepeatedLogin => Some(Code::RepeatedLogin),
        Departure::Kicked | Departure::RemovedByServer | Departure::TokenExpired => Some(Code::Kicked),
        Departure::Disconnected | Departure::Other(_) => Some(Code::ConnectionLost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_transport::id::StreamAlias;
    use parlor_transport::wire::control::Delivery;

    fn started() -> PlayStarted {
        PlayStarted {
            lane: 1,
            alias: StreamAlias(1),
            user: UserId::new("u1").unwrap(),
            tracks: vec![],
            delivery: Delivery::QuicStream,
        }
    }

    #[test]
    fn a_stream_that_comes_and_goes_is_played_whenever_it_is_there() {
        let mut player = Lifecycle::requesting();
        player.waiting();
        player.started(&started());
        assert_eq!(player.status().state, PlayerState::Playing);
        assert_eq!(player.stream().unwrap().user.as_str(), "u1");
        player.ended(Departure::Disconnected);
        assert_eq!(player.status().state, PlayerState::Requesting);
        assert_eq!(player.status().error.as_ref().unwrap().code, Code::ConnectionLost);
        assert_eq!(player.stream(), None);
        player.started(&started());
        player.ended(Departure::Left);
        assert_eq!(player.status().error, None, "its publisher wanted that");
    }

    #[test]
    fn an_end_is_an_end() {
        let mut player = Lifecycle::requesting();
        player.refused(Refusal::from(Code::TooManyPlays));
        player.started(&started());
        player.ended(Departure::Kicked);
        player.stopped();
        assert_eq!(player.status().state, PlayerState::Idle);
        assert_eq!(player.status().error.as_ref().unwrap().code, Code::TooManyPlays);
    }
}
