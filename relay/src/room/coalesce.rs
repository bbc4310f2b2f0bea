//! What a run of events comes to: for readers who hear of many at once.
//!
//! The newest wins: of several states of a track, infos of a stream or values of a key only the last is told; a stream
//! that began and ended within the run, and a user who came and went within it, are not told at all. What is left keeps
//! its order and leads without a gap from where the run began to where it ends, with the count of users that a mirror
//! has then.

use std::collections::BTreeMap;

use parlor_transport::id::{StreamId, UserId};
use parlor_transport::wire::control::{EventStamp, RoomMessage};

/// The events that lead as far as all of `run` (at least one); `None` if that takes them all.
///
/// The last event is always among them, so that its position is reached; if it ends what began within the run, so is
/// the beginning.
pub(super) fn coalesce<'a>(run: impl Iterator<Item = &'a RoomMessage>) -> Option<Vec<RoomMessage>> {
    let run: Vec<&RoomMessage> = run.collect();
    let (first, last) = (run.first()?.stamp()?, run.len() - 1);
    let is_told = Marks::of(&run);
    if is_told.iter().all(|told| *told) {
        return None;
    }
    let mut previous = first.previous;
    let mut users = i64::from(first.users) - users_added(run[0]);
    let mut events = Vec::new();
    for (event, _) in run.iter().zip(&is_told).filter(|(_, told)| **told) {
        let Some(stamp) = event.stamp() else { continue };
        users += users_added(event);
        let users = u32::try_from(users).unwrap_or(0);
        let mut event = (*event).clone();
        event.set_stamp(EventStamp { previous, users, ..stamp });
        previous = stamp.position;
        events.push(event);
    }
    debug_assert_eq!(Some(previous), run[last].stamp().map(|stamp| stamp.position));
    Some(events)
}

/// Which events of a run are told.
struct Marks<'a> {
    is_told: Vec<bool>,
    /// Where users came who have not gone.
    joined: BTreeMap<&'a UserId, usize>,
    /// Where streams began that have not ended.
    added: BTreeMap<&'a StreamId, usize>,
    /// The newest states and infos.
    newest: BTreeMap<Subject<'a>, usize>,
}

/// What a state or info is about.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Subject<'a> {
    Track(&'a StreamId, u8),
    Stream(&'a StreamId),
    Room(&'a str),
}

impl<'a> Marks<'a> {
    fn of(run: &[&'a RoomMessage]) -> Vec<bool> {
        let mut marks = Marks {
            is_told: vec![true; run.len()],
            joined: BTreeMap::new(),
            added: BTreeMap::new(),
            newest: BTreeMap::new(),
        };
        let mut last_began = None;
        for (at, &event) in run.iter().enumerate() {
            last_began = marks.take(at, event);
        }
        if let Some(last) = marks.is_told.last_mut() {
            *last = true;
        }
        if let Some(began) = last_began {
            marks.is_told[began] = true;
        }
        marks.is_told
    }

    /// Takes the next event; gives where began what it ends, if that was within the run.
    fn take(&mut self, at: usize, event: &'a RoomMessage) -> Option<usize> {
        match event {
            RoomMessage::UserJoined(event) => _ = self.joined.insert(&event.user.user, at),
            RoomMessage::UserLeft(event) => {
                let began = self.joined.remove(&event.user)?;
                self.is_told[began] = false;
                self.is_told[at] = false;
                return Some(began);
            }
            RoomMessage::StreamAdded(event) => _ = self.added.insert(&event.stream.stream, at),
            RoomMessage::StreamRemoved(event) => {
                let stream = &event.stream;
                self.forget(stream);
                let began = self.added.remove(stream)?;
                self.is_told[began] = false;
                self.is_told[at] = false;
                return Some(began);
            }
            RoomMessage::TrackStateChanged(event) => {
                self.replace(Subject::Track(&event.status.stream, event.status.track), at);
            }
            RoomMessage::StreamInfoChanged(event) => self.replace(Subject::Stream(&event.extra.stream), at),
            RoomMessage::RoomInfoChanged(event) => self.replace(Subject::Room(&event.extra.key), at),
            RoomMessage::Page(_) | RoomMessage::Count(_) | RoomMessage::Unknown(_) => {}
        }
        None
    }

    fn replace(&mut self, subject: Subject<'a>, at: usize) {
        if let Some(before) = self.newest.insert(subject, at) {
            self.is_told[before] = false;
        }
    }

    /// A stream ended, and with it what was told of it.
    fn forget(&mut self, stream: &'a StreamId) {
        let tracks = Subject::Track(stream, u8::MIN)..=Subject::Track(stream, u8::MAX);
        let told: Vec<usize> = self.newest.range(tracks).map(|(_, at)| *at).collect();
        let info = self.newest.get(&Subject::Stream(stream)).copied();
        told.into_iter().chain(info).for_each(|at| self.is_told[at] = false);
        self.newest.retain(
            |subject, _| !matches!(subject, Subject::Track(of, _) | Subject::Stream(of) if *of == stream),
        );
    }
}

/// By how much an event changes the number of users.
fn users_added(event: &RoomMessage) -> i64 {
    match event {
        RoomMessage::UserJoined(_) => 1,
        RoomMessage::UserLeft(_) => -1,
        _ => 0,
    }
}
