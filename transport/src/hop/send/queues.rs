//! What waits to leave, by class. A queue is bounded where a peer could make it grow; what is beyond its bound
//! comes back to the caller, who keeps account of bytes.

use std::collections::VecDeque;

use crate::units::Timestamp;

/// Parity and repair waiting; what is beyond will be asked for again.
pub(super) const QUEUE_REPAIR_MAX: usize = 512;

/// Which queue a symbol waits in; lower leaves first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Class {
    Urgent,
    Repair,
    Base,
    Other,
    Parity,
}

const CLASSES: [Class; 5] = [Class::Urgent, Class::Repair, Class::Base, Class::Other, Class::Parity];

/// One frame on this hop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct FrameKey {
    pub(super) lane: u32,
    pub(super) track: u8,
    pub(super) sequence: u64,
}

impl FrameKey {
    /// The lane and track.
    pub(super) fn track(self) -> (u32, u8) {
        (self.lane, self.track)
    }
}

/// A symbol that waits. It is made when it leaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiting {
    Source {
        index: usize,
    },
    /// Word that the frame will not come.
    Gone,
    /// A whole small frame, with so many redundant symbols for those before it.
    Voice {
        redundancy: usize,
    },
    /// A combination over `frames` frames that ends with this one.
    Combination {
        frames: usize,
        slice: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) frame: FrameKey,
    pub(super) waiting: Waiting,
    pub(super) bytes: usize,
    /// Lower leaves first among repair: sound, then the oldest frame, which all later ones build on.
    pub(super) turn: (bool, Timestamp),
}

/// Symbols of one frame that wait.
#[derive(Clone, Copy, Default, Debug)]
struct Count {
    parity: usize,
    other: usize,
}

/// See the module.
#[derive(Default, Debug)]
pub(super) struct Queues {
    queues: [VecDeque<Entry>; CLASSES.len()],
    urgent_bytes: usize,
    len: usize,
    /// Of frames of which something waits, those that came last at the end: mostly one or two.
    counts: Vec<(FrameKey, Count)>,
}

impl Queues {
    /// Adds an entry; gives the one that had to go for it, which may be the same.
    pub(super) fn push(&mut self, class: Class, entry: Entry) -> Option<Entry> {
        self.note(class, &entry, 1);
        let queue = &mut self.queues[class as usize];
        let dropped = match class {
            Class::Repair => {
                let place = queue.partition_point(|other| other.turn <= entry.turn);
                queue.insert(place, entry);
                if queue.len() > QUEUE_REPAIR_MAX { queue.pop_back() } else { None }
            }
            Class::Parity => {
                queue.push_back(entry);
                if queue.len() > QUEUE_REPAIR_MAX { queue.pop_front() } else { None }
            }
            Class::Urgent | Class::Base | Class::Other => {
                queue.push_back(entry);
                None
            }
        };
        dropped.inspect(|dropped| self.note(class, dropped, -1))
    }

    /// The class whose turn it is, and its first entry.
    pub(super) fn first(&self) -> Option<(Class, &Entry)> {
        CLASSES.iter().find_map(|&class| Some((class, self.queues[class as usize].front()?)))
    }

    /// Takes the first entry of a class.
    pub(super) fn pop(&mut self, class: Class) -> Option<Entry> {
        let entry = self.queues[class as usize].pop_front();
        entry.inspect(|entry| self.note(class, entry, -1))
    }

    /// Takes a parity symbol of this frame.
    pub(super) fn take_parity(&mut self, frame: FrameKey) -> Option<Entry> {
        self.count(frame).filter(|count| count.parity > 0)?;
        let queue = &mut self.queues[Class::Parity as usize];
        let entry = queue.iter().position(|entry| entry.frame == frame).and_then(|at| queue.remove(at));
        entry.inspect(|entry| self.note(Class::Parity, entry, -1))
    }

    /// Symbols of this frame that wait, parity aside.
    pub(super) fn waiting(&self, frame: FrameKey) -> usize {
        self.count(frame).map_or(0, |count| count.other)
    }

    /// Bytes of voice that wait.
    pub(super) fn urgent_bytes(&self) -> usize {
        self.urgent_bytes
    }

    /// Entries of all classes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// When the frame was handed in that has waited longest, repair and parity aside.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let classes = [Class::Urgent, Class::Base, Class::Other];
        classes
            .iter()
            .filter_map(|&class| self.queues[class as usize].front())
            .map(|entry| entry.turn.1)
            .min()
    }

    fn note(&mut self, class: Class, entry: &Entry, change: isize) {
        let add = |value: &mut usize, by: isize| *value = value.saturating_add_signed(by);
        add(&mut self.len, change);
        if class == Class::Urgent {
            add(&mut self.urgent_bytes, change * entry.bytes as isize);
        }
        let place = self.counts.iter().rposition(|(frame, _)| *frame == entry.frame).unwrap_or_else(|| {
            self.counts.push((entry.frame, Count::default()));
            self.counts.len() - 1
        });
        let (_, count) = &mut self.counts[place];
        add(if class == Class::Parity { &mut count.parity } else { &mut count.other }, change);
        if (count.parity, count.other) == (0, 0) {
            self.counts.remove(place);
        }
    }

    fn count(&self, frame: FrameKey) -> Option<&Count> {
        self.counts.iter().rev().find_map(|(other, count)| (*other == frame).then_some(count))
    }
}
