//! What one light client knows of its room: enough to compare it with others, in constant time for each event.

use parlor_client::room::mirror::Mirror;
use parlor_transport::id::{StreamId, UserId};
use parlor_transport::wire::control::RoomMessage;

/// A room's place, and a digest of who and what is in it. Equal ones are of equal rooms, but for one chance in 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// Epoch and position.
    pub place: (u64, u64),
    /// How many users the relay says there are.
    pub users: u32,
    /// Their ids and those of streams, whatever their order.
    sum: u64,
    /// How many they are.
    entries: u64,
}

impl Digest {
    fn add(&mut self, id: &str) {
        self.sum = self.sum.wrapping_add(hash(id));
        self.entries += 1;
    }

    fn remove(&mut self, id: &str) {
        self.sum = self.sum.wrapping_sub(hash(id));
        self.entries = self.entries.wrapping_sub(1);
    }

    /// The digest of these users and streams.
    pub fn of<'a>(
        place: (u64, u64),
        count: u32,
        users: impl IntoIterator<Item = &'a UserId>,
        streams: impl IntoIterator<Item = &'a StreamId>,
    ) -> Self {
        let mut digest = Digest { place, users: count, ..Digest::default() };
        users.into_iter().for_each(|user| digest.add(user.as_str()));
        streams.into_iter().for_each(|stream| digest.add(stream.as_str()));
        digest
    }
}

/// FNV-1a with a finish that lets every bit count in a sum.
fn hash(id: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in id.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Somebody came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News<'a> {
    /// Came.
    Came(&'a UserId),
    /// Went.
    Went(&'a UserId),
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Seen {
    /// The room as of the last event.
    pub digest: Digest,
    /// A snapshot of which not all pages came.
    pages: Digest,
    /// Snapshots that came whole.
    pub snapshots: u32,
    /// Events that came.
    pub events: u64,
    /// The client's own mirror, for some.
    pub mirror: Option<Mirror>,
    /// What did not follow from what was known; none may be.
    pub faults: u32,
}

impl Seen {
    /// Of somebody who knows nothing yet.
    pub fn new(mirror: Option<Mirror>) -> Self {
        Seen { mirror, ..Seen::default() }
    }

    /// Takes a message; gives who came or went with it.
    pub fn take<'a>(&mut self, message: &'a RoomMessage) -> Option<News<'a>> {
        if let Some(mirror) = &mut self.mirror
            && mirror.apply(message.clone()).is_err()
        {
            self.faults += 1;
        }
        if let Some(stamp) = message.stamp() {
            self.events += 1;
            self.faults += u32::from(self.digest.place != (stamp.epoch, stamp.previous));
            self.digest.place = (stamp.epoch, stamp.position);
            self.digest.users = stamp.users;
        }
        match message {
            RoomMessage::Page(page) => {
                if page.page == 0 {
                    self.pages = Digest { users: page.users_total, ..Digest::default() };
                    self.pages.place = (page.epoch, page.position);
                }
                page.users.iter().for_each(|user| self.pages.add(user.user.as_str()));
                page.streams.iter().for_each(|stream| self.pages.add(stream.stream.as_str()));
                if page.last {
                    self.digest = self.pages;
                    self.snapshots += 1;
                }
            }
            RoomMessage::Count(count) => self.digest.users = count.users,
            RoomMessage::UserJoined(event) => {
                self.digest.add(event.user.user.as_str());
                return Some(News::Came(&event.user.user));
            }
            RoomMessage::UserLeft(event) => {
                self.digest.remove(event.user.as_str());
                return Some(News::Went(&event.user));
            }
            RoomMessage::StreamAdded(event) => self.digest.add(event.stream.stream.as_str()),
            RoomMessage::StreamRemoved(event) => self.digest.remove(event.stream.as_str()),
            _ => {}
        }
        None
    }

    /// Whether the mirror, if there is one, holds what the digest says, entry by entry.
    pub fn is_consistent(&self) -> bool {
        let Some(mirror) = &self.mirror else { return true };
        let place = mirror.place().unwrap_or_default();
        Digest::of(place, mirror.count(), mirror.users().keys(), mirror.streams().keys()) == self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_tell_rooms_apart_whatever_the_order() {
        let user = |n: u32| UserId::new(format!("u{n}")).unwrap();
        let of = |ids: &[u32]| {
            let users: Vec<_> = ids.iter().map(|n| user(*n)).collect();
            Digest::of((1, 1), 3, &users, [])
        };
        assert_eq!(of(&[1, 2, 3]), of(&[3, 1, 2]));
        assert_ne!(of(&[1, 2, 3]), of(&[1, 2, 4]));
        let mut digest = of(&[1, 2, 4]);
        digest.remove("u4");
        digest.add("u3");
        assert_eq!(digest, of(&[1, 2, 3]));
    }
}
