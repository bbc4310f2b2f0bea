//! What is told to the app's own server: who and what came and went, numbered, in order, in bounded memory.
//!
//! A machine: what happened goes in, bodies to post come out. Posting them is `http`'s business.

use std::collections::{BTreeMap, VecDeque};

use parlor_transport::id::{StreamId, UserId};
use parlor_transport::units::UnixTime;
use parlor_transport::wire::control::{Departure, StreamInfo, UserInfo};
use serde_json::{Value, json};

use crate::limits::WEBHOOK_QUEUE_MAX;
use crate::room::index::RoomKey;

/// Something that the app's server is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Happening {
    /// Where.
    pub room: RoomKey,
    /// The room's life.
    pub epoch: u64,
    /// What.
    pub what: What,
}

/// See [`Happening::what`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// The first user is about to come in.
    RoomOpened,
    /// A user came.
    UserJoined {
        /// Who.
        user: UserInfo,
        /// Users in the room now.
        users: usize,
    },
    /// A user went.
    UserLeft {
        /// Who.
        user: UserId,
        /// Why.
        reason: Departure,
        /// Users in the room now.
        users: usize,
    },
    /// A stream began.
    StreamAdded(StreamInfo),
    /// A stream ended.
    StreamRemoved {
        /// Which.
        stream: StreamId,
        /// Whose; `None` if this relay did not forward it.
        user: Option<UserId>,
        /// Why.
        reason: Departure,
    },
    /// The last user has gone.
    RoomClosed,
}

/// How posting goes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct WebhookCounters {
    /// Events that wait.
    pub waiting: usize,
    /// Events that the app's server took.
    pub delivered: u64,
    /// Events that were given up: more waited than may, or the server took none for too long.
    pub dropped: u64,
    /// Posts that failed and were tried again.
    pub failures: u64,
}

/// Events on their way.
#[derive(Default, Debug)]
pub struct Queue {
    events: VecDeque<Value>,
    /// The newest number of each room that is open.
    sequences: BTreeMap<RoomKey, u64>,
    counters: WebhookCounters,
}

impl Queue {
    /// Something happened at `date`. When too much waits, the oldest goes: the numbers tell that it is missing.
    pub fn push(&mut self, date: UnixTime, happening: Happening) {
        let Happening { room, epoch, what } = happening;
        let sequence = match &what {
            // Of an earlier life nothing is left.
            What::RoomOpened => 1,
            _ => self.sequences.get(&room).map_or(1, |last| last + 1),
        };
        match &what {
            What::RoomClosed => _ = self.sequences.remove(&room),
            _ => _ = self.sequences.insert(room.clone(), sequence),
        }
        let (event, more) = describe(what);
        let mut body = json!({
            "event": event, "sequence": sequence, "app": room.app.as_str(), "room": room.room.as_str(),
            "epoch": epoch, "at_ms": date.as_micros() / 1_000,
        });
        if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
            body.extend(more);
        }
        self.events.push_back(body);
        while self.events.len() > WEBHOOK_QUEUE_MAX {
            self.events.pop_front();
            self.counters.dropped += 1;
        }
    }

    /// The body to post next.
    pub fn pop(&mut self) -> Option<String> {
        self.events.pop_front().map(|body| body.to_string())
    }

    /// A body was posted, or given up.
    pub fn finish(&mut self, delivered: bool) {
        match delivered {
            true => self.counters.delivered += 1,
            false => self.counters.dropped += 1,
        }
    }

    /// A post failed and will be tried again.
    pub fn count_failure(&mut self) {
        self.counters.failures += 1;
    }

    /// How it goes.
    pub fn counters(&self) -> WebhookCounters {
        WebhookCounters { waiting: self.events.len(), ..self.counters }
    }
}

fn describe(what: What) -> (&'static str, Value) {
    let why = |reason: Departure| format!("{reason:?}");
    match what {
        What::RoomOpened => ("room_opened", json!({})),
        What::UserJoined { user, users } => {
            let more = json!({ "user": user.user.as_str(), "name": user.name.as_str(), "users": users });
            ("user_joined", more)
        }
        What::UserLeft { user, reason, users } => {
            ("user_left", json!({ "user": user.as_str(), "reason": why(reason), "users": users }))
        }
        What::StreamAdded(stream) => {
            ("stream_added", json!({ "stream": stream.stream.as_str(), "user": stream.user.as_str() }))
        }
        What::StreamRemoved { stream, user, reason } => {
            let user = user.as_ref().map(UserId::as_str);
            ("stream_removed", json!({ "stream": stream.as_str(), "user": user, "reason": why(reason) }))
        }
        What::RoomClosed => ("room_closed", json!({})),
    }
}

#[cfg(test)]
mod tests {
    use parlor_transport::id::{AppId, RoomId};

    use super::*;

    fn happening(room: &str, what: What) -> Happening {
        let room = RoomKey { app: AppId::dev(), room: RoomId::new(room).unwrap() };
        Happening { room, epoch: 7, what }
    }

    fn joined() -> What {
        let user = UserInfo { user: "ann".parse().unwrap(), name: "A \"q\"".parse().unwrap() };
        What::UserJoined { user, users: 1 }
    }

    fn next(queue: &mut Queue) -> Option<(String, u64)> {
        let body: Value = serde_json::from_str(&queue.pop()?).unwrap();
        Some((body["event"].as_str().unwrap().to_owned(), body["sequence"].as_u64().unwrap()))
    }

    #[test]
    fn every_room_counts_its_own_from_its_opening_and_leaves_nothing() {
        let mut queue = Queue::default();
        for (room, what) in [
            ("a", What::RoomOpened),
            ("b", What::RoomOpened),
            ("a", joined()),
            ("b", joined()),
            ("a", What::RoomClosed),
            ("a", What::RoomOpened),
        ] {
            queue.push(UnixTime::from_secs(5), happening(room, what));
        }
        let all: Vec<_> = std::iter::from_fn(|| next(&mut queue)).map(|(_, sequence)| sequence).collect();
        assert_eq!(all, [1, 1, 2, 2, 3, 1]);
        queue.push(UnixTime::from_secs(5), happening("a", What::RoomClosed));
        queue.push(UnixTime::from_secs(5), happening("b", What::RoomClosed));
        assert!(queue.sequences.is_empty());
    }

    #[test]
    fn when_nobody_takes_them_the_oldest_go_and_are_counted() {
        let mut queue = Queue::default();
        for _ in 0..WEBHOOK_QUEUE_MAX + 3 {
            queue.push(UnixTime::from_secs(5), happening("a", joined()));
        }
        let counters = queue.counters();
        assert_eq!((counters.waiting, counters.dropped), (WEBHOOK_QUEUE_MAX, 3));
        assert_eq!(next(&mut queue), Some(("user_joined".to_owned(), 4)));
        queue.finish(true);
        queue.count_failure();
        queue.finish(false);
        let counters = queue.counters();
        assert_eq!((counters.delivered, counters.dropped, counters.failures), (1, 4, 1));
    }
}
