//! The voices of one room, shared between its publishers' connections, which tell of every frame of sound, and its
//! members', which tell their clients whose voice leads.
//!
//! Under a lock of its own, held for one frame at a time. A member has one place here and no queue: who is woken reads
//! what is so now, and misses what was between.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use parlor_transport::id::SessionId;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::Speaker;
use parlor_transport::wire::frame::AudioLevel;

use crate::limits::Limits;
use crate::lock;
use crate::speaker::{Speakers, VoiceId};

/// See the module's text.
#[derive(Debug)]
pub struct Voices {
    books: Mutex<Books>,
}

#[derive(Debug)]
struct Books {
    speakers: Speakers,
    /// One for each member's connection.
    listeners: BTreeMap<SessionId, Waker>,
    /// Changes of the leader that listeners were woken for.
    told: u64,
}

impl Voices {
    /// Of a new room.
    pub fn new(limits: &Limits) -> Arc<Self> {
        let books = Books { speakers: Speakers::new(limits), listeners: BTreeMap::new(), told: 0 };
        Arc::new(Voices { books: Mutex::new(books) })
    }

    /// Other limits from now on.
    pub fn set_limits(&self, limits: &Limits) {
        lock(&self.books).speakers.set_limits(limits);
    }

    /// A track of sound is published.
    pub fn add(&self, speaker: Speaker) -> VoiceId {
        lock(&self.books).speakers.add(speaker)
    }

    /// It is published no more.
    pub fn remove(&self, voice: VoiceId) {
        self.change(|speakers| speakers.remove(voice));
    }

    /// A frame of this level came. False if it is not to be forwarded.
    pub fn hear(&self, now: Timestamp, voice: VoiceId, level: AudioLevel) -> bool {
        self.change(|speakers| speakers.hear(now, voice, level))
    }

    /// How many voices there are.
    pub fn len(&self) -> usize {
        lock(&self.books).speakers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many listen to who leads.
    pub fn listeners(&self) -> usize {
        lock(&self.books).listeners.len()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Speakers) -> T) -> T {
        let mut books = lock(&self.books);
        let outcome = change(&mut books.speakers);
        let wakers = books.news();
        drop(books);
        wakers.iter().for_each(Waker::wake_by_ref);
        outcome
    }
}

impl Books {
    /// Whom to wake because the leader has changed.
    fn news(&mut self) -> Vec<Waker> {
        let changes = self.speakers.changes();
        if std::mem::replace(&mut self.told, changes) == changes {
            return Vec::new();
        }
        self.listeners.values().cloned().collect()
    }
}

/// Hears whose voice leads. Ends its part in the room when dropped.
#[derive(Debug)]
pub struct Listener {
    voices: Arc<Voices>,
    id: SessionId,
}

impl Listener {
    /// Listens for the connection `id`; `waker` is woken when there is something to be read.
    pub fn new(voices: Arc<Voices>, id: SessionId, waker: Waker) -> Self {
        lock(&voices.books).listeners.insert(id, waker);
        Listener { voices, id }
    }

    /// Whose voice leads now, and when to look again even if nothing is heard until then: only one of the listeners
    /// has to, so that a large room has no more timers than a small one.
    pub fn poll(&self, now: Timestamp) -> (Option<Speaker>, Option<Timestamp>) {
        let is_due = |speakers: &Speakers| speakers.poll_timeout().is_some_and(|due| due <= now);
        self.voices.change(|speakers| {
            if is_due(speakers) {
                speakers.handle_timeout(now);
            }
        });
        let books = lock(&self.voices.books);
        let keeps_time = books.listeners.first_key_value().is_some_and(|(&first, _)| first == self.id);
        let due = books.speakers.poll_timeout().filter(|_| keeps_time);
        (books.speakers.leader().cloned(), due)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut books = lock(&self.voices.books);
        books.listeners.remove(&self.id);
        // Another one keeps the time now, perhaps.
        let next = books.listeners.first_key_value().filter(|&(&first, _)| first > self.id);
        let next = next.map(|(_, waker)| waker.clone());
        drop(books);
        if let Some(next) = next {
            next.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use parlor_transport::id::{StreamId, UserId};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    #[test]
    fn all_are_woken_for_a_change_and_one_keeps_the_time() {
        let voices = Voices::new(&Limits::default());
        let (stream, user) = (StreamId::new("s").unwrap(), UserId::new("u").unwrap());
        let voice = voices.add(Speaker { stream, user });
        let counts: Vec<_> = (0..3).map(|_| Arc::<Count>::default()).collect();
        let listen = |number: usize| {
            let waker = Waker::from(counts[number].clone());
            Listener::new(voices.clone(), SessionId(number as u64), waker)
        };
        let mut listeners: Vec<_> = (0..3).map(listen).collect();
        let speech = AudioLevel { below_full_scale: 20, voice: true };
        for frame in 0..10 {
            assert!(voices.hear(at(1000 + 20 * frame), voice, speech));
        }
        let woken = || counts.iter().map(|count| count.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert_eq!(woken(), [1, 1, 1]);
        let polled: Vec<_> = listeners.iter().map(|listener| listener.poll(at(1200))).collect();
        assert!(polled.iter().all(|(leader, _)| leader.as_ref().is_some_and(|l| l.user.as_str() == "u")));
        let due = polled[0].1.unwrap();
        assert_eq!((due, polled[1].1, polled[2].1), (at(1180) + Duration::from_secs(2), None, None));

        // The one who keeps the time goes.
        listeners.remove(0);
        assert_eq!(woken(), [1, 2, 1]);
        assert_eq!(listeners[0].poll(at(1300)).1, Some(due));
        assert_eq!(listeners[0].poll(due), (None, None));
        assert_eq!(woken(), [1, 3, 2], "the others hear that nobody leads");
        drop(listeners);
        assert_eq!(voices.listeners(), 0);
        voices.remove(voice);
        assert!(voices.is_empty());
    }
}
