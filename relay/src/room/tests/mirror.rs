//! What a client would make of what it is sent, strict about every promise.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use parlor_transport::id::{StreamId, UserId};
use parlor_transport::wire::control::{MessageReader, RoomExtra, RoomMessage, StreamExtra, TrackStatus};

use crate::room::events::After;
use crate::room::extras::Extras;
use crate::room::{Room, Snapshot, View};

/// Who and what is in a room.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) users: BTreeSet<UserId>,
    pub(super) streams: BTreeMap<StreamId, UserId>,
}

impl From<&Room> for Contents {
    fn from(room: &Room) -> Self {
        Contents {
            users: room.roster().iter().map(|user| user.user).collect(),
            streams: room.streams().iter().map(|s| (s.stream.clone(), s.user.clone())).collect(),
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) view: View,
    epoch: u64,
    pub(super) position: u64,
    pub(super) contents: Contents,
    extras: Extras,
    /// How many it was given.
    pub(super) snapshots: u32,
}

impl Mirror {
    pub(super) fn begin(room: &mut Room, view: View) -> Self {
        let snapshot = room.snapshot(view);
        let mut mirror = Mirror {
            view,
            epoch: room.epoch(),
            position: snapshot.position,
            contents: Contents::default(),
            extras: Extras::default(),
            snapshots: 1,
        };
        mirror.take_pages(&snapshot);
        mirror
    }

    fn take_pages(&mut self, snapshot: &Snapshot) {
        (self.contents, self.extras, self.position) = Default::default();
        self.position = snapshot.position;
        let last = snapshot.pages.len() - 1;
        for (at, bytes) in snapshot.pages.iter().enumerate() {
            let [RoomMessage::Page(page)] = &decode_all(bytes)[..] else {
                panic!("a snapshot is made of pages")
            };
            let page = page.clone();
            assert_eq!((page.epoch, page.position), (self.epoch, self.position));
            assert_eq!((page.page, page.last), (at as u32, at == last));
            assert_eq!(page.users_total as usize, snapshot.users);
            self.contents.users.extend(page.users.into_iter().map(|user| user.user));
            for stream in page.streams {
                let known = self.contents.users.contains(&stream.user);
                assert_eq!(known, self.view != View::WithoutUsers, "users before their streams");
                self.contents.streams.insert(stream.stream, stream.user);
            }
            let extras = page.extras.unwrap_or_default();
            extras.track_states.iter().for_each(|status| self.set_state(status));
            extras.stream_infos.iter().for_each(|extra| self.set_info(extra));
            extras.room_infos.iter().for_each(|extra| self.set_room_info(extra));
        }
        assert_eq!(self.contents.users.len(), snapshot.users);
    }

    /// Reads at least as far as `wanted`.
    pub(super) fn read(&mut self, room: &mut Room, wanted: u64) {
        loop {
            match room.after(self.view, self.position, wanted) {
                After::UpToDate => return,
                After::Behind => {
                    let snapshot = room.snapshot(self.view);
                    assert!(snapshot.position > self.position, "a snapshot leads on");
                    self.snapshots += 1;
                    self.take_pages(&snapshot);
                }
                After::Events(batch) => {
                    assert_eq!(batch.from, self.position);
                    decode_all(&batch.bytes).iter().for_each(|event| self.apply(event));
                    assert_eq!(batch.reached, self.position, "a batch leads to where it says");
                }
            }
        }
    }

    /// Compares with a room of which everything was read.
    pub(super) fn assert_equal(&self, room: &Room) {
        assert_eq!(self.position, room.position_in(self.view));
        let mut contents = Contents::from(room);
        match self.view {
            View::Everything => {}
            View::WithoutUsers => contents.users.clear(),
            View::Publishers => contents.users = contents.streams.values().cloned().collect(),
        }
        assert_eq!(self.contents, contents);
        assert_eq!(&self.extras, room.extras());
    }

    fn set_state(&mut self, status: &TrackStatus) {
        assert!(self.contents.streams.contains_key(&status.stream), "streams before their states");
        self.extras.set_track_state(status);
    }

    fn set_info(&mut self, extra: &StreamExtra) {
        assert!(self.contents.streams.contains_key(&extra.stream), "streams before their infos");
        self.extras.set_stream_info(&extra.stream, extra.version, &extra.info);
    }

    fn set_room_info(&mut self, extra: &RoomExtra) {
        self.extras.set_room_info(&extra.key, extra.version, &extra.value);
    }

    fn apply(&mut self, event: &RoomMessage) {
        let stamp = event.stamp().expect("the log holds events");
        assert_eq!((stamp.epoch, stamp.previous), (self.epoch, self.position), "no gap");
        assert!(stamp.position > stamp.previous);
        self.position = stamp.position;
        match event {
            RoomMessage::TrackStateChanged(event) => return self.set_state(&event.status),
            RoomMessage::StreamInfoChanged(event) => {
                assert!(self.view != View::Everything || event.extra.version == stamp.position);
                return self.set_info(&event.extra);
            }
            RoomMessage::RoomInfoChanged(event) => return self.set_room_info(&event.extra),
            RoomMessage::StreamRemoved(event) => self.extras.forget_stream(&event.stream),
            _ => {}
        }
        let Contents { users, streams } = &mut self.contents;
        match event {
            RoomMessage::UserJoined(event) => assert!(users.insert(event.user.user.clone())),
            RoomMessage::UserLeft(event) => {
                assert!(!streams.values().any(|user| *user == event.user), "streams end before the leave");
                assert!(users.remove(&event.user));
            }
            RoomMessage::StreamAdded(event) => {
                let known = users.contains(&event.stream.user);
                assert_eq!(known, self.view != View::WithoutUsers, "users come before their streams");
                let stream = &event.stream;
                assert_eq!(streams.insert(stream.stream.clone(), stream.user.clone()), None);
            }
            RoomMessage::StreamRemoved(event) => assert!(streams.remove(&event.stream).is_some()),
            _ => panic!("not an event: {event:?}"),
        }
        assert_eq!(stamp.users as usize, users.len(), "the count is exact");
    }
}

/// The messages that these bytes are.
pub(in crate::room) fn decode_all(bytes: &Bytes) -> Vec<RoomMessage> {
    let mut reader = MessageReader::default();
    reader.push(bytes);
    let messages = std::iter::from_fn(|| reader.read().unwrap()).collect();
    assert!(!reader.is_mid_message());
    messages
}
