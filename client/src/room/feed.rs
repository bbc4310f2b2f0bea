//! Room events for readers of any speed, in bounded memory.
//!
//! The newest events are kept once for all readers; a reader is a cursor and its own view of the room. A
//! reader whose cursor was overtaken gets the difference between its view and the room as it is.

use std::collections::VecDeque;
use std::time::Duration;

use parlor_transport::address::RelayAddress;
use parlor_transport::id::UserId;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{Extras, RoomExtra, Said, Speaker, StreamExtra, TrackStatus};

use super::mirror::{Change, Mirror};
use super::{RoomEvent, RoomStatus, RoomView, Rung};

/// Events kept for readers: a join storm of a thousand people can be read one by one, and at some
/// 1 kB an event the memory stays about 1 MB.
pub const EVENTS_MAX: usize = 1024;

/// Messages kept for readers, and bytes in them: as many as events, or a hundred of the largest.
const MESSAGES_MAX: usize = 1024;
/// See [`MESSAGES_MAX`].
const MESSAGES_BYTES_MAX: usize = 100 * 16 * 1024;

/// The newest events of one room.
#[derive(Debug)]
pub struct Feed {
    me: UserId,
    events: VecDeque<RoomEvent>,
    /// The index of the first kept event, counted from the room's first.
    first: u64,
    capacity: usize,
    /// The newest messages of other users. They stand apart, so that neither a join storm nor a fresh snapshot
    /// displaces them.
    messages: VecDeque<Said>,
    messages_bytes: usize,
    /// Messages dropped for later ones.
    messages_first: u64,
    /// When the token expires, from the relay's notice on until it is renewed.
    token_expiry: Option<Timestamp>,
    /// Notices of that so far.
    token_notices: u64,
    /// How many users there are, where that is all the relay tells of most of them.
    count: Option<u32>,
    /// The relay ends soon; perhaps there is another one.
    leaving: Option<Option<RelayAddress>>,
    /// Whose voice leads. Not one event among others: a slow reader hears of the newest.
    speaker: Option<Speaker>,
    /// What the relay leaves out, likewise.
    overload: u8,
}

impl Feed {
    /// An empty feed for the user `me`, who hears nothing of themselves.
    pub fn new(me: UserId) -> Self {
        Feed::with_capacity(me, EVENTS_MAX)
    }

    /// A feed that keeps `capacity` events.
    pub fn with_capacity(me: UserId, capacity: usize) -> Self {
        Feed {
            me,
            events: VecDeque::new(),
            first: 0,
            capacity,
            token_expiry: None,
            token_notices: 0,
            count: None,
            leaving: None,
            speaker: None,
            overload: 0,
            messages: VecDeque::new(),
            messages_bytes: 0,
            messages_first: 0,
        }
    }

    /// Takes a change of the mirror, after which `count` users are in the room.
    pub fn push_change(&mut self, change: Change, count: u32) {
        let event = match change {
            // Nobody's cursor is valid any more: every reader gets the difference.
            Change::Replaced => {
                self.first = self.end() + 1;
                self.events.clear();
                return;
            }
            // Not one event among others: only the last count is of interest.
            Change::Counted => {
                self.count = Some(count);
                return;
            }
            Change::UserAdded(user) if user.user != self.me => {
                RoomEvent::UsersAdded { users: vec![user], count }
            }
            Change::UserRemoved(user, reason) if user.user != self.me => {
                RoomEvent::UserRemoved { user, reason, count }
            }
            Change::StreamAdded(stream) if stream.user != self.me => RoomEvent::StreamsAdded(vec![stream]),
            Change::StreamRemoved(stream, reason) if stream.user != self.me => {
                RoomEvent::StreamRemoved { stream, reason }
            }
            Change::TrackState(status, publisher) if publisher != self.me => track_state(status),
            Change::StreamInfo(extra, publisher) if publisher != self.me => stream_info(extra),
            Change::RoomInfo(extra) => room_info(extra),
            _ => return,
        };
        self.push(event);
    }

    /// Takes a change of the room's state.
    pub fn push_status(&mut self, status: RoomStatus) {
        self.push(RoomEvent::State(status));
    }

    /// Takes a step of the recovery ladder that worked.
    pub fn push_recovered(&mut self, rung: Rung, took: Duration) {
        self.push(RoomEvent::Recovered { rung, took });
    }

    /// Takes a message of another user.
    pub fn push_message(&mut self, said: Said) {
        self.messages_bytes += said.payload.len();
        self.messages.push_back(said);
        while self.messages.len() > MESSAGES_MAX || self.messages_bytes > MESSAGES_BYTES_MAX {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.messages_bytes -= oldest.payload.len();
            self.messages_first += 1;
        }
    }

    /// The token expires at `at`. Not one event among others, which a slow reader may miss: it is told to
    /// every reader until the token is renewed.
    pub fn push_token_expiry(&mut self, at: Timestamp) {
        self.token_expiry = Some(at);
        self.token_notices += 1;
    }

    /// The token was renewed.
    pub fn clear_token_expiry(&mut self) {
        self.token_expiry = None;
    }

    /// The relay ends soon. Told once to every reader, however slow.
    pub fn push_leaving(&mut self, address: Option<RelayAddress>) {
        self.leaving = Some(address);
    }

    /// Another voice leads, or none.
    pub fn set_speaker(&mut self, speaker: Option<Speaker>) {
        self.speaker = speaker;
    }

    /// The relay leaves out so much.
    pub fn set_overload(&mut self, level: u8) {
        self.overload = level;
    }

    fn push(&mut self, event: RoomEvent) {
        self.events.push_back(event);
        while self.events.len() > self.capacity {
            self.events.pop_front();
            self.first += 1;
        }
    }

    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

fn track_state(status: TrackStatus) -> RoomEvent {
    let TrackStatus { stream, track, state } = status;
    RoomEvent::TrackState { stream, track, state }
}

fn stream_info(extra: StreamExtra) -> RoomEvent {
    let StreamExtra { stream, version, info } = extra;
    RoomEvent::StreamInfo { stream, version, info }
}

fn room_info(extra: RoomExtra) -> RoomEvent {
    let RoomExtra { key, version, value } = extra;
    RoomEvent::RoomInfo { key, version, value }
}

/// One reader of a [`Feed`].
#[derive(Debug, Default)]
pub struct Reader {
    /// The next event to give; `None` before the first.
    next: Option<u64>,
    /// What the events given so far add up to.
    seen: RoomView,
    /// Whether the reader was told of a whole room before: until then a difference is an Add.
    synced: bool,
    status: Option<RoomStatus>,
    /// The next message to give.
    message: u64,
    /// Notices of the token's end that were told or came to nothing.
    token_notices: u64,
    /// The count that it was told last.
    count: Option<u32>,
    /// Whether it was told that the relay ends soon.
    told_leaving: bool,
    /// Whose voice it was told leads.
    speaker: Option<Speaker>,
    /// What it was told the relay leaves out.
    overload: u8,
    /// What a difference was cut into: a handful, and at first the states and infos that are there.
    pending: VecDeque<RoomEvent>,
}

impl Reader {
    /// A reader of what is, of every change, and of messages from here on.
    pub fn new(feed: &Feed) -> Self {
        let message = feed.messages_first + feed.messages.len() as u64;
        Reader { message, ..Reader::default() }
    }

    /// The next event, or `None` until there is one.
    pub fn next(&mut self, feed: &Feed, mirror: &Mirror, status: &RoomStatus) -> Option<RoomEvent> {
        if self.pending.is_empty() && self.next.is_none_or(|next| next < feed.first) {
            self.catch_up(feed, mirror, status);
        }
        if self.pending.is_empty() && self.token_notices != feed.token_notices {
            self.token_notices = feed.token_notices;
            if let Some(at) = feed.token_expiry {
                return Some(RoomEvent::TokenWillExpire { at });
            }
        }
        if self.pending.is_empty()
            && let Some(address) = feed.leaving.as_ref().filter(|_| !self.told_leaving)
        {
            self.told_leaving = true;
            return Some(RoomEvent::RelayLeaving { address: address.clone() });
        }
        let event = self.pending.pop_front().or_else(|| self.next_change(feed));
        let event = event.or_else(|| self.next_count(feed));
        let Some(event) = event else {
            let news = self.next_speaker(feed).or_else(|| self.next_overload(feed));
            return news.or_else(|| self.next_message(feed));
        };
        self.seen.apply(&event);
        if let RoomEvent::State(status) = &event {
            self.status = Some(status.clone());
        }
        Some(event)
    }

    fn next_change(&mut self, feed: &Feed) -> Option<RoomEvent> {
        let next = self.next?;
        let event = feed.events.get(usize::try_from(next - feed.first).ok()?)?.clone();
        self.next = Some(next + 1);
        Some(event)
    }

    fn next_count(&mut self, feed: &Feed) -> Option<RoomEvent> {
        let count = feed.count.filter(|count| self.count != Some(*count))?;
        self.count = Some(count);
        Some(RoomEvent::UsersCounted { count })
    }

    /// Changes come first: so a stream is known before its voice leads, if the relay told of both.
    fn next_speaker(&mut self, feed: &Feed) -> Option<RoomEvent> {
        if self.speaker == feed.speaker {
            return None;
        }
        self.speaker.clone_from(&feed.speaker);
        Some(RoomEvent::ActiveSpeaker(feed.speaker.clone()))
    }

    fn next_overload(&mut self, feed: &Feed) -> Option<RoomEvent> {
        let before = std::mem::replace(&mut self.overload, feed.overload);
        (before != feed.overload).then_some(RoomEvent::RelayOverloaded { level: feed.overload })
    }

    /// Changes come first: so a user is known before what they say, if the relay told of both.
    fn next_message(&mut self, feed: &Feed) -> Option<RoomEvent> {
        if let Some(count) = feed.messages_first.checked_sub(self.message).filter(|&count| count > 0) {
            self.message = feed.messages_first;
            return Some(RoomEvent::MessagesMissed { count });
        }
        let at = usize::try_from(self.message - feed.messages_first).ok()?;
        let Said { from, direct, payload } = feed.messages.get(at)?.clone();
        self.message += 1;
        Some(RoomEvent::Message { from, direct, payload })
    }

    /// Queues the way from what was seen to what is.
    fn catch_up(&mut self, feed: &Feed, mirror: &Mirror, status: &RoomStatus) {
        self.next = Some(feed.end());
        if self.status.as_ref() != Some(status) {
            self.pending.push_back(RoomEvent::State(status.clone()));
        }
        if mirror.place().is_none() {
            return;
        }
        let difference = self.seen.difference_to(&mirror.others(&feed.me));
        let count = mirror.count();
        if std::mem::replace(&mut self.synced, true) {
            if !difference.is_empty() {
                self.pending.push_back(RoomEvent::Resync { difference, count });
            }
            return;
        }
        if !difference.added_users.is_empty() {
            self.pending.push_back(RoomEvent::UsersAdded { users: difference.added_users, count });
        }
        if !difference.added_streams.is_empty() {
            self.pending.push_back(RoomEvent::StreamsAdded(difference.added_streams));
        }
        let Extras { track_states, stream_infos, room_infos } = difference.extras;
        self.pending.extend(track_states.into_iter().map(track_state));
        self.pending.extend(stream_infos.into_iter().map(stream_info));
        self.pending.extend(room_infos.into_iter().map(room_info));
    }
}
