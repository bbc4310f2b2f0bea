//! Messages of those who run a room or a relay: moderators, a relay that is about to end, one that drops frames, one that
//! says who speaks, and one that is too slow.

use bincode::{Decode, Encode};

use crate::error::Refusal;
use crate::id::{StreamId, UserId};

/// The most bytes of an address in a message.
pub const ADDRESS_MAX: usize = 512;

/// See [`ClientMessage::Moderate`](super::ClientMessage::Moderate).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Moderate {
    /// See [`Join::request`](super::Join::request).
    pub request: u32,
    /// What is to be done.
    pub action: ModerateAction,
}

/// What a moderator does to somebody in the same room.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum ModerateAction {
    /// Put a user out of the room.
    Kick {
        /// Whom.
        user: UserId,
    },
    /// End a stream.
    RemoveStream {
        /// Which.
        stream: StreamId,
    },
    /// End the streams of a user and let them publish no others.
    ForbidPublish {
        /// Whom.
        user: UserId,
        /// For how long, also if they leave and come back; 0: as long as they stay in the room now.
        seconds: u32,
    },
}

/// See [`RelayMessage::GoAway`](super::RelayMessage::GoAway).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GoAway {
    /// Another relay to join at, if the operator named one; at most [`ADDRESS_MAX`] bytes.
    pub address: Option<String>,
}

/// See [`RelayMessage::FramesRefused`](super::RelayMessage::FramesRefused).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct FramesRefused {
    /// The lane of the stream whose frame was dropped last.
    pub lane: u32,
    /// Why, and what to do.
    pub refusal: Refusal,
}

/// See [`RelayMessage::ActiveSpeaker`](super::RelayMessage::ActiveSpeaker).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ActiveSpeaker {
    /// Whose voice leads from now on; `None` when nobody has spoken for a while.
    pub speaker: Option<Speaker>,
}

/// Somebody who speaks.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Speaker {
    /// The stream with the voice.
    pub stream: StreamId,
    /// Who publishes it.
    pub user: UserId,
}

/// See [`RelayMessage::Overload`](super::RelayMessage::Overload).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Overload {
    /// What the relay leaves out from now on: 0 nothing, 1 parity, 2 the highest layers as well, 3 discardable frames as
    /// well, 4 video of the streams that were wanted least recently as well. Others are those of newer relays.
    pub level: u8,
}
