//! What comes out of the lobby.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::SessionId;
use parlor_transport::wire::control::{RelayMessage, TrackWish};

use super::SharedRoom;
use crate::forward::publication::Publication;
use crate::forward::voices::Voices;
use crate::room::View;
use crate::room::index::RoomKey;
use crate::webhook::Happening;

/// Something to be done.
#[derive(Clone, Debug)]
pub enum Output {
    /// For one connection, in the order of its notices.
    Notice(SessionId, Notice),
    /// The session goes on with this connection, which had one of its own until now; the one before is to be closed.
    Resumed {
        /// The session.
        session: SessionId,
        /// The connection, by the session that it had.
        connection: SessionId,
    },
    /// An app message for these connections, encoded once for all of them.
    Message {
        /// Who gets it.
        to: Vec<SessionId>,
        /// The message.
        message: Bytes,
        /// It may be dropped on its way to somebody who is slow.
        lossy: bool,
    },
    /// The room has new events.
    RoomChanged(RoomKey),
    /// The last user left the room.
    RoomEnded(RoomKey),
    /// For the app's server.
    Happened(Happening),
}

/// Something for one connection to do.
#[derive(Clone, Debug)]
pub enum Notice {
    /// Send this answer.
    Send(RelayMessage),
    /// Begin to send the room's events after a position, or its snapshot and what follows.
    Entered {
        /// The room.
        room: SharedRoom,
        /// Which of its events.
        view: View,
        /// Up to where the client knows its events.
        from: Option<u64>,
        /// Where it is heard who speaks.
        voices: Arc<Voices>,
    },
    /// Send no more events.
    Left,
    /// Expect frames of this publication.
    PublishStarted {
        /// Where they come.
        lane: u32,
        /// Where they go.
        publication: Arc<Publication>,
    },
    /// Expect no more frames.
    PublishEnded {
        /// Where they came.
        lane: u32,
    },
    /// Begin to send frames.
    PlayStarted {
        /// Where to.
        lane: u32,
        /// From what.
        publication: Arc<Publication>,
        /// Which of them.
        wishes: Vec<TrackWish>,
    },
    /// Send other frames.
    PlayChanged {
        /// Of which play; it may be waiting for its stream.
        lane: u32,
        /// Which.
        wishes: Vec<TrackWish>,
    },
    /// Send no frames until the stream is there again.
    PlayPaused {
        /// Of which play.
        lane: u32,
    },
    /// Send no more frames; the lane is not used again.
    PlayEnded {
        /// Of which play; it may have been waiting for its stream.
        lane: u32,
    },
    /// The player cannot go on without a keyframe.
    KeyframeAsked {
        /// Of which play; it may be waiting for its stream.
        lane: u32,
        /// Of which track.
        track: u8,
    },
    /// End the connection.
    Close(Refusal),
}

/// How much there is of everything; all zero when nobody is connected.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Survey {
    /// Connections.
    pub connections: usize,
    /// Rooms.
    pub rooms: usize,
    /// Users in all rooms.
    pub users: usize,
    /// Streams published in all rooms.
    pub streams: usize,
    /// Plays asked for by all connections, begun or waiting for their stream.
    pub plays: usize,
    /// The same, as the rooms have them.
    pub play_entries: usize,
    /// Plays that frames go to.
    pub players: usize,
    /// Bytes of frames kept.
    pub cached_bytes: usize,
    /// Bytes of app messages that wait for their receivers.
    pub queued_bytes: usize,
    /// Bytes of room events kept for members who read slowly.
    pub log_bytes: usize,
    /// Sessions kept without a connection.
    pub parked: usize,
    /// Tokens that will be looked at again.
    pub deadlines: usize,
    /// Proposals without a verdict, and notices not yet handed out.
    pub pending: usize,
}

/// What happened in a lobby since it was made.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Users who joined.
    pub joins: u64,
    /// Requests and connections that were refused, by code: no more than there are codes.
    pub refused: BTreeMap<Code, u64>,
}

impl Tally {
    pub(super) fn count_refused(&mut self, code: Code) {
        *self.refused.entry(code).or_default() += 1;
    }
}
