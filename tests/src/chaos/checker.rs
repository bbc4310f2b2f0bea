//! What has to be true: of every event as it is told, and of a call that has come to rest.

use std::collections::BTreeMap;

use parlor_client::room::{Difference, RoomEvent, RoomExtras, RoomReason, RoomState, RoomStatus, RoomView};
use parlor_client::{Departure, StreamInfo, UserId, UserInfo};
use parlor_relay::server::RoomSnapshot;

/// Follows what one reader is told, and takes no event that cannot be.
#[derive(Debug)]
pub struct Follower {
    me: String,
    view: RoomView,
    status: Option<RoomStatus>,
    /// Messages by sender, in order.
    messages: BTreeMap<UserId, Vec<String>>,
    faults: Vec<String>,
}

impl Follower {
    /// Of a reader who is `me` and knows nothing yet.
    pub fn new(me: String) -> Self {
        Follower {
            me,
            view: RoomView::default(),
            status: None,
            messages: BTreeMap::new(),
            faults: Vec::new(),
        }
    }

    /// The room as far as it was told.
    pub fn view(&self) -> &RoomView {
        &self.view
    }

    /// What `user` said.
    pub fn heard(&self, user: &UserId) -> &[String] {
        self.messages.get(user).map_or(&[], Vec::as_slice)
    }

    /// What was wrong since the last call.
    pub fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    /// The next event.
    pub fn apply(&mut self, event: &RoomEvent) {
        match event {
            RoomEvent::State(status) => {
                let is_end = |status: &RoomStatus| status.state == RoomState::Disconnected;
                self.check(!self.status.as_ref().is_some_and(is_end), || format!("{status:?} after the end"));
                self.status = Some(status.clone());
            }
            RoomEvent::UsersAdded { users, .. } => users.iter().for_each(|user| self.user_added(user)),
            RoomEvent::UserRemoved { user, reason, .. } => self.user_removed(user, Some(*reason)),
            RoomEvent::StreamsAdded(streams) => streams.iter().for_each(|stream| self.stream_added(stream)),
            RoomEvent::StreamRemoved { stream, .. } => self.stream_removed(stream),
            RoomEvent::TrackState { stream, .. } | RoomEvent::StreamInfo { stream, .. } => {
                self.check(self.view.streams.contains_key(stream), || {
                    format!("{event:?} of a stream that is not there")
                });
            }
            RoomEvent::Resync { difference, .. } => self.resync(difference),
            RoomEvent::Message { from, payload, .. } => {
                let text = String::from_utf8_lossy(payload).into_owned();
                self.messages.entry(from.clone()).or_default().push(text);
            }
            RoomEvent::MessagesMissed { count } => self.faults.push(format!("{count} messages were missed")),
            _ => {}
        }
        self.view.apply(event);
        if let Some(count) = event.count() {
            let known = self.view.users.len() as u32 + 1;
            // Who was put out, or lost the relay, may hear of others' end before it hears of its own.
            let is_out = matches!(event, RoomEvent::UserRemoved { .. }) && count + 1 == known;
            self.check(count == known || is_out, || {
                format!("{count} users told of where {known} are known: {event:?}")
            });
        }
    }

    fn resync(&mut self, difference: &Difference) {
        // A user or stream that went and came back as another is in both lists.
        let Difference { removed_streams, removed_users, added_users, added_streams, .. } = difference;
        let mut after = self.view.clone();
        for stream in removed_streams {
            self.check(after.streams.remove(&stream.stream).is_some(), || {
                format!("{stream:?} removed twice")
            });
        }
        for user in removed_users {
            self.check(after.users.remove(&user.user).is_some(), || format!("{user:?} removed twice"));
        }
        for user in added_users {
            let before = after.users.insert(user.user.clone(), user.clone());
            self.check(before.is_none(), || format!("{user:?} added twice"));
        }
        for stream in added_streams {
            let before = after.streams.insert(stream.stream.clone(), stream.clone());
            self.check(before.is_none(), || format!("{stream:?} added twice"));
        }
        let stranger = after.streams.values().find(|stream| !after.users.contains_key(&stream.user));
        let stranger = stranger.map(|stream| format!("{stream:?} is of nobody who is there"));
        self.faults.extend(stranger);
    }

    fn user_added(&mut self, user: &UserInfo) {
        let is_new = !self.view.users.contains_key(&user.user) && user.user.as_str() != self.me;
        self.check(is_new, || format!("{user:?} added twice, or is the reader"));
    }

    fn user_removed(&mut self, user: &UserInfo, reason: Option<Departure>) {
        self.check(self.view.users.contains_key(&user.user), || {
            format!("{user:?} removed twice ({reason:?})")
        });
        let left = self.view.streams.values().find(|stream| stream.user == user.user).cloned();
        self.check(left.is_none(), || format!("{user:?} removed before {left:?}"));
    }

    fn stream_added(&mut self, stream: &StreamInfo) {
        self.check(!self.view.streams.contains_key(&stream.stream), || format!("{stream:?} added twice"));
        self.check(self.view.users.contains_key(&stream.user), || {
            format!("{stream:?} added before its user")
        });
    }

    fn stream_removed(&mut self, stream: &StreamInfo) {
        self.check(self.view.streams.contains_key(&stream.stream), || format!("{stream:?} removed twice"));
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(what());
        }
    }
}

/// A room that a client sees, beside the relay's own: what is different.
pub fn compare(
    relay: &RoomSnapshot,
    me: &UserId,
    status: &RoomStatus,
    place: Option<(u64, u64)>,
    view: Option<&RoomView>,
) -> Vec<String> {
    let mut faults = Vec::new();
    if status.state != RoomState::Connected {
        faults.push(format!("is not in the room: {status:?}"));
        return faults;
    }
    if !matches!(status.reason, RoomReason::Joined | RoomReason::Reconnected) {
        faults.push(format!("is in the room for an odd reason: {status:?}"));
    }
    if place != Some((relay.epoch, relay.position)) {
        faults.push(format!("is at {place:?}, the relay at {:?}", (relay.epoch, relay.position)));
    }
    let expected = seen_by(relay, me);
    match view {
        None => faults.push("sees no room".to_owned()),
        Some(view) if *view != expected => {
            faults.push(format!("has another room than the relay: {:?}", view.difference_to(&expected)));
        }
        Some(_) => {}
    }
    faults
}

/// The relay's room without `me` and their streams.
pub fn seen_by(relay: &RoomSnapshot, me: &UserId) -> RoomView {
    let mut extras = RoomExtras::default();
    extras.apply(relay.extras.clone());
    let own = relay.streams.iter().filter(|stream| stream.user == *me);
    own.for_each(|stream| extras.forget_stream(&stream.stream));
    let users = relay.users.iter().filter(|user| user.user != *me);
    let streams = relay.streams.iter().filter(|stream| stream.user != *me);
    RoomView {
        users: users.map(|user| (user.user.clone(), user.clone())).collect(),
        streams: streams.map(|stream| (stream.stream.clone(), stream.clone())).collect(),
        extras,
    }
}
