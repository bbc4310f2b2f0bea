//! Telling the members of rooms that there is something new, each room at its pace.

use std::collections::{BTreeMap, BTreeSet};

use parlor_transport::units::Timestamp;
use tokio::sync::watch;

use crate::room::index::RoomKey;
use crate::room::pace::{GROUPS, Pace};
use crate::room::{Room, View};

/// How far a member is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    /// Up to which position of its view.
    pub(crate) position: u64,
    /// How many users there are; 0 for those who count them themselves.
    pub(crate) users: u32,
}

/// The same for members of every view.
type ToldAll = [Told; View::ALL.len()];

/// The signals of all rooms with members.
#[derive(Default)]
pub(super) struct Signals {
    rooms: BTreeMap<RoomKey, RoomSignals>,
    /// Rooms in which somebody is to be told later, and when.
    due: BTreeSet<(Timestamp, RoomKey)>,
}

struct RoomSignals {
    pace: Pace<ToldAll>,
    /// By view and group; a group is as many members as joined in turn.
    groups: BTreeMap<(usize, usize), watch::Sender<Told>>,
    group_next: usize,
    due: Option<Timestamp>,
}

impl Signals {
    /// A member of `room` wants to be told from here on.
    pub(super) fn subscribe(&mut self, room: &Room, view: View) -> watch::Receiver<Told> {
        let told = told_of(room);
        let signals = self.rooms.entry(room.key().clone()).or_insert_with(|| RoomSignals {
            pace: Pace::new(told),
            groups: BTreeMap::new(),
            group_next: 0,
            due: None,
        });
        let group = signals.group_next;
        signals.group_next = (group + 1) % GROUPS;
        let of = view as usize;
        signals.groups.entry((of, group)).or_insert_with(|| watch::Sender::new(told[of])).subscribe()
    }

    /// Something changed in a room.
    pub(super) fn change(&mut self, now: Timestamp, room: &Room) {
        let Some(signals) = self.rooms.get_mut(room.key()) else { return };
        let members = room.roster().len() + room.roster().unseen();
        signals.pace.change(now, members, told_of(room));
        self.advance(now, room.key());
    }

    /// The room ended.
    pub(super) fn end(&mut self, key: &RoomKey) {
        if let Some(RoomSignals { due: Some(due), .. }) = self.rooms.remove(key) {
            self.due.remove(&(due, key.clone()));
        }
    }

    /// When somebody is to be told.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Tells everyone whose turn it is.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        while let Some((_, key)) = self.due.first().filter(|(due, _)| *due <= now) {
            let key = key.clone();
            self.advance(now, &key);
        }
    }

    fn advance(&mut self, now: Timestamp, key: &RoomKey) {
        let Some(signals) = self.rooms.get_mut(key) else { return };
        while let Some((group, told)) = signals.pace.poll(now) {
            for (of, told) in told.into_iter().enumerate() {
                if let Some(sender) = signals.groups.get(&(of, group)) {
                    sender.send_if_modified(|before| std::mem::replace(before, told) != told);
                }
            }
        }
        let due = signals.pace.poll_timeout();
        if due != signals.due {
            signals.due.take().map(|due| self.due.remove(&(due, key.clone())));
            signals.due = due;
            self.due.extend(due.map(|due| (due, key.clone())));
        }
    }
}

/// How far everyone would be told now.
fn told_of(room: &Room) -> ToldAll {
    View::ALL.map(|view| Told {
        position: room.position_in(view),
        users: if view == View::Publishers { room.roster().len() as u32 } else { 0 },
    })
}
