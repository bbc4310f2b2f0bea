//! What a room is to the app: its state, who and what is in it, and the events that tell of changes.
//!
//! Values only. How the relay's events become a view is [`mirror`]'s business, how readers of
//! different speed follow it [`feed`]'s.

mod extras;
pub mod feed;
pub mod mirror;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use parlor_transport::address::RelayAddress;
use parlor_transport::error::Refusal;
use parlor_transport::id::{IdError, StreamId, UserId};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{
    Departure, Extras, RoomExtra, Speaker, StreamExtra, StreamInfo, TrackState, TrackStatus, UserInfo,
};

pub use crate::call::Rung;
pub use extras::{Info, RoomExtras};

/// Where a room stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoomState {
    /// Not in the room, and nothing is being tried.
    Disconnected,
    /// The join is under way.
    Connecting,
    /// In the room: events flow.
    Connected,
}

/// Why a room is in its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RoomReason {
    /// [`Connecting`](RoomState::Connecting): connection and join are under way.
    Joining,
    /// [`Connected`](RoomState::Connected): the relay let us in.
    Joined,
    /// [`Disconnected`](RoomState::Disconnected): no connection, or the relay refused; the code says which.
    JoinFailed,
    /// [`Disconnected`](RoomState::Disconnected): put out, the token expired, or the same user joined from elsewhere.
    KickedOut,
    /// [`Disconnected`](RoomState::Disconnected): left on request.
    Left,
    /// [`Disconnected`](RoomState::Disconnected): left on request, but the relay did not confirm it.
    LeaveFailed,
    /// [`Disconnected`](RoomState::Disconnected): the connection is gone, and coming back was not wanted or makes no
    /// sense; join again to return.
    ConnectionLost,
    /// [`Connecting`](RoomState::Connecting): the connection was lost, and the call tries to come back by itself.
    Reconnecting,
    /// [`Connected`](RoomState::Connected): it came back. If the relay had kept the session, others noticed nothing.
    Reconnected,
    /// [`Disconnected`](RoomState::Disconnected): it did not come back in time, or the relay did not let it in again.
    ReconnectFailed,
}

/// A room's state, why it is so, and the error behind it if there is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomStatus {
    /// The state.
    pub state: RoomState,
    /// Why.
    pub reason: RoomReason,
    /// What went wrong: its code is stable, its text says what to do next.
    pub error: Option<Refusal>,
}

impl RoomStatus {
    /// A status without an error.
    pub(crate) fn new(reason: RoomReason) -> Self {
        let state = match reason {
            RoomReason::Joining | RoomReason::Reconnecting => RoomState::Connecting,
            RoomReason::Joined | RoomReason::Reconnected => RoomState::Connected,
            _ => RoomState::Disconnected,
        };
        RoomStatus { state, reason, error: None }
    }

    /// A status with an error.
    pub(crate) fn failed(reason: RoomReason, error: Refusal) -> Self {
        RoomStatus { error: Some(error), ..RoomStatus::new(reason) }
    }
}

/// Something happened in a room. The app's own user and streams are never reported to it,
/// but for [`ActiveSpeaker`](RoomEvent::ActiveSpeaker).
///
/// A reader that applies every event to an empty [`RoomView`] always ends with the room as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RoomEvent {
    /// The state changed; also the first event of every reader.
    State(RoomStatus),
    /// The path or the connection was lost, and is made up for. After [`Migrated`](Rung::Migrated) nothing else
    /// happened; the others come after the state [`Reconnected`](RoomReason::Reconnected).
    Recovered {
        /// How.
        rung: Rung,
        /// How long it took, from the loss; after a change of the network from the last packet before it.
        took: Duration,
    },
    /// Users came. The first of these holds everyone who was there before.
    UsersAdded {
        /// Who.
        users: Vec<UserInfo>,
        /// Users in the room now, this one included.
        count: u32,
    },
    /// A user went; their streams were removed before.
    UserRemoved {
        /// Who.
        user: UserInfo,
        /// Why.
        reason: Departure,
        /// Users in the room now, this one included.
        count: u32,
    },
    /// So many users are in the room now, this one included: for who joined with
    /// [`publishers_only`](crate::JoinOptions::publishers_only). Several changes of the number may be told as one.
    UsersCounted {
        /// How many.
        count: u32,
    },
    /// Streams began. The first of these holds all that were there before.
    StreamsAdded(Vec<StreamInfo>),
    /// A stream ended.
    StreamRemoved {
        /// Which.
        stream: StreamInfo,
        /// Why.
        reason: Departure,
    },
    /// A publisher told of one of its tracks. Before the first of these a track is
    /// [`Open`](TrackState::Open), and a stream that begins anew begins so.
    TrackState {
        /// The stream.
        stream: StreamId,
        /// The track's number.
        track: u8,
        /// Its state.
        state: TrackState,
    },
    /// A publisher attached info to its stream. It goes with the stream.
    StreamInfo {
        /// The stream.
        stream: StreamId,
        /// Grows with every write in the room.
        version: u64,
        /// The info; empty for none any more.
        info: String,
    },
    /// Somebody attached info to the room; what the app itself wrote comes, too. Of several writes to a key the last
    /// one holds, for everybody alike.
    RoomInfo {
        /// The key.
        key: String,
        /// Grows with every write in the room.
        version: u64,
        /// The value; empty when the key was removed.
        value: String,
    },
    /// The token expires at this time on the engine's clock, in 30 s or less: get another from the app's server and
    /// pass it to [`renew_token`](crate::Room::renew_token). Without that the relay sends the user away.
    TokenWillExpire {
        /// When.
        at: Timestamp,
    },
    /// The relay is about to end. The room goes on until then; who wants no break joins elsewhere meanwhile.
    RelayLeaving {
        /// Another relay, if the operator named one.
        address: Option<RelayAddress>,
    },
    /// The relay's machine is too slow for all it has to do, so that some of what is played does not come; or it is fast
    /// enough again (0). Before the first of these it is. Nothing has to be done: sound comes all the same, and what is
    /// left out comes back by itself. A slow reader gets the newest.
    RelayOverloaded {
        /// 1: lost frames come later than usual. 2: nor do the highest of several layers come. 3: nor do frames that no
        /// other needs. 4: nor does video of those streams whose view was changed least recently.
        level: u8,
    },
    /// Another voice leads in the room, or none since nobody has spoken for 2 s; before the first of these none does. By
    /// the levels that publishers send with their sound, this user's own as well: the one event that may be about the
    /// app's own user. At most about three a second; a slow reader gets the newest. Its stream may be unknown still,
    /// or gone already.
    ActiveSpeaker(Option<Speaker>),
    /// Another user sent a message. Those of one user come in the order they were sent, unless it sent them lossy
    /// and they were dropped. Between users, and with the other events, there is no order.
    Message {
        /// Who.
        from: UserId,
        /// Whether it was for listed users rather than for the room.
        direct: bool,
        /// What, at most 16 KiB.
        payload: Bytes,
    },
    /// The reader fell so far behind that messages were dropped here.
    MessagesMissed {
        /// How many.
        count: u64,
    },
    /// The reader fell behind (or the relay sent the room anew): instead of every event it gets
    /// the difference between what it last saw and what is.
    Resync {
        /// What is different.
        difference: Difference,
        /// Users in the room now, this one included.
        count: u32,
    },
}

/// The same questions to every event, so that an app need not care in which way it hears of a change.
///
/// Apply in this order: streams and users that are gone, then users and streams that are new, then states and infos.
impl RoomEvent {
    /// Streams that are gone.
    pub fn removed_streams(&self) -> &[StreamInfo] {
        match self {
            RoomEvent::StreamRemoved { stream, .. } => std::slice::from_ref(stream),
            RoomEvent::Resync { difference, .. } => &difference.removed_streams,
            _ => &[],
        }
    }

    /// Users who are gone.
    pub fn removed_users(&self) -> &[UserInfo] {
        match self {
            RoomEvent::UserRemoved { user, .. } => std::slice::from_ref(user),
            RoomEvent::Resync { difference, .. } => &difference.removed_users,
            _ => &[],
        }
    }

    /// Users who are new.
    pub fn added_users(&self) -> &[UserInfo] {
        match self {
            RoomEvent::UsersAdded { users, .. } => users,
            RoomEvent::Resync { difference, .. } => &difference.added_users,
            _ => &[],
        }
    }

    /// Streams that are new.
    pub fn added_streams(&self) -> &[StreamInfo] {
        match self {
            RoomEvent::StreamsAdded(streams) => streams,
            RoomEvent::Resync { difference, .. } => &difference.added_streams,
            _ => &[],
        }
    }

    /// States of tracks, and infos, that changed.
    pub fn extras(&self) -> Extras {
        let mut extras = Extras::default();
        match self.clone() {
            RoomEvent::TrackState { stream, track, state } => {
                extras.track_states.push(TrackStatus { stream, track, state });
            }
            RoomEvent::StreamInfo { stream, version, info } => {
                extras.stream_infos.push(StreamExtra { stream, version, info });
            }
            RoomEvent::RoomInfo { key, version, value } => {
                extras.room_infos.push(RoomExtra { key, version, value });
            }
            RoomEvent::Resync { difference, .. } => extras = difference.extras,
            _ => {}
        }
        extras
    }

    /// Users in the room now, this one included, if the event is about users.
    pub fn count(&self) -> Option<u32> {
        match self {
            RoomEvent::UsersAdded { count, .. }
            | RoomEvent::UserRemoved { count, .. }
            | RoomEvent::UsersCounted { count }
            | RoomEvent::Resync { count, .. } => Some(*count),
            _ => None,
        }
    }
}

/// Whom a message is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recipients {
    /// Everyone in the room but the sender.
    Everyone,
    /// These users, 1 to 256; all of them must be in the room. The sender gets no copy.
    Users(Vec<UserId>),
}

impl Recipients {
    /// Users by their ids.
    ///
    /// # Errors
    /// [`IdError`] when an id is not valid.
    pub fn users<U: AsRef<str>>(ids: impl IntoIterator<Item = U>) -> Result<Self, IdError> {
        ids.into_iter().map(UserId::new).collect::<Result<_, _>>().map(Recipients::Users)
    }
}

/// The difference between two views of a room.
///
/// A user or stream that went and came back as another (other name, tracks or publisher) is in both lists.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Difference {
    /// Streams that are gone; apply first.
    pub removed_streams: Vec<StreamInfo>,
    /// Users that are gone.
    pub removed_users: Vec<UserInfo>,
    /// Users that are new.
    pub added_users: Vec<UserInfo>,
    /// Streams that are new.
    pub added_streams: Vec<StreamInfo>,
    /// States and infos that are others; apply last.
    pub extras: Extras,
}

impl Difference {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self == &Difference::default()
    }
}

/// Everyone and everything in a room but the app's own user and streams.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RoomView {
    /// The other users.
    pub users: BTreeMap<UserId, UserInfo>,
    /// Their streams.
    pub streams: BTreeMap<StreamId, StreamInfo>,
    /// The states of their tracks, and what is attached to their streams and to the room.
    pub extras: RoomExtras,
}

impl RoomView {
    /// What has to be removed and added to get from this view to `now`.
    pub fn difference_to(&self, now: &RoomView) -> Difference {
        fn missing<K: Ord, V: Clone + PartialEq>(from: &BTreeMap<K, V>, of: &BTreeMap<K, V>) -> Vec<V> {
            of.iter().filter(|(key, value)| from.get(*key) != Some(value)).map(|(_, v)| v.clone()).collect()
        }
        let removed_streams = missing(&now.streams, &self.streams);
        let mut extras = self.extras.clone();
        removed_streams.iter().for_each(|stream| extras.forget_stream(&stream.stream));
        Difference {
            removed_streams,
            removed_users: missing(&now.users, &self.users),
            added_users: missing(&self.users, &now.users),
            added_streams: missing(&self.streams, &now.streams),
            extras: extras.difference_to(&now.extras),
        }
    }

    /// Brings the view up to date with an event.
    pub fn apply(&mut self, event: &RoomEvent) {
        for stream in event.removed_streams() {
            self.streams.remove(&stream.stream);
            self.extras.forget_stream(&stream.stream);
        }
        for user in event.removed_users() {
            self.users.remove(&user.user);
        }
        self.users.extend(event.added_users().iter().map(|user| (user.user.clone(), user.clone())));
        self.streams
            .extend(event.added_streams().iter().map(|stream| (stream.stream.clone(), stream.clone())));
        self.extras.apply(event.extras());
    }
}

#[cfg(test)]
mod tests;
