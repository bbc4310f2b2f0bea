//! One person of the demonstration: captures, publishes, plays everybody else, and remembers what
//! was seen.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use parlor_client::pipeline::{Broadcast, Capture, Playback, Preview, Sources, media_clock, timestamp};
use parlor_client::{Engine, JoinOptions, PlayOptions, Room, RoomEvents, Scenario, StreamId};
use parlor_media::frame::{MediaTime, Picture};
use parlor_media::play::{AudioPump, Mixer, NullSink, View};
use parlor_relay::server::RoomSnapshot;
use parlor_transport::clock::Clock;

use crate::Failure;
use crate::score::{Play, Score};

/// What a person shows.
pub(crate) enum Content {
    /// A file, and the tone of publisher 1.
    Clip(PathBuf),
    /// The test pattern and tone of this publisher.
    Pattern(u16),
}

/// Captured pictures remembered: an hour of 15 frames/s.
const TIMES_MAX: usize = 60_000;

/// Times of the pictures that a person captured, on their engine's clock.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<MediaTime>>>);

impl View for Captured {
    fn show(&mut self, picture: &Picture) {
        let mut times = lock(&self.0);
        if times.len() < TIMES_MAX {
            times.push(picture.time());
        }
    }
}

/// What was seen of one stream, over all times it was played.
#[derive(Default)]
pub(crate) struct Seen {
    /// Each time it was played, on the viewer's clock.
    plays: Vec<Play>,
    /// How old each picture was when it was shown.
    pub(crate) ages: Vec<Duration>,
    latest: Option<Picture>,
    /// Pictures kept for the contact sheet.
    pub(crate) kept: Vec<Option<Picture>>,
    /// Frames lost, over all plays that have ended.
    lost: u64,
}

struct Watch {
    clock: Clock,
    seen: Arc<Mutex<Seen>>,
}

impl View for Watch {
    fn show(&mut self, picture: &Picture) {
        let now = self.clock.now();
        let captured = timestamp(picture.time());
        let mut seen = lock(&self.seen);
        let has_place = seen.ages.len() < TIMES_MAX;
        if has_place && seen.plays.last_mut().is_some_and(|play| play.show(captured)) {
            seen.ages.push(now.saturating_since(captured));
        }
        seen.latest = Some(picture.clone());
    }
}

/// Being in the room.
struct Stay {
    room: Room,
    events: RoomEvents,
    _broadcast: Broadcast,
    players: BTreeMap<StreamId, Playback>,
}

/// See the module.
pub(crate) struct Person {
    name: String,
    engine: Engine,
    capture: Capture,
    _preview: Preview,
    captured: Captured,
    mixer: Mixer,
    _pump: AudioPump,
    stay: Option<Stay>,
    /// What was seen, by stream.
    pub(crate) seen: BTreeMap<StreamId, Arc<Mutex<Seen>>>,
    /// People and streams that came and went.
    pub(crate) events: u64,
}

impl Person {
    /// Starts capturing, which needs no room.
    pub(crate) fn new(name: &str, content: &Content) -> Result<Self, Failure> {
        let scenario = Scenario::StandardCall;
        let engine = Engine::new(scenario)?;
        let sources = match content {
            Content::Pattern(number) => Sources::pattern(*number, scenario)?,
            Content::Clip(path) => Sources::files(Some(path), None, scenario)?
                .audio(parlor_media::capture::ToneSource::of_publisher(1)),
        };
        let capture = Capture::start(&engine, sources)?;
        let captured = Captured::default();
        let preview = capture.preview(captured.clone());
        let mixer = Mixer::new();
        let pump = AudioPump::start(media_clock(engine.clock()), mixer.clone(), NullSink)?;
        Ok(Person {
            name: name.to_owned(),
            engine,
            capture,
            _preview: preview,
            captured,
            mixer,
            _pump: pump,
            stay: None,
            seen: BTreeMap::new(),
            events: 0,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_in(&self) -> bool {
        self.stay.is_some()
    }

    /// Joins and publishes in one flight.
    pub(crate) fn join(&mut self, address: &str) -> Result<(), Failure> {
        let room = self.engine.join(JoinOptions::new(address, &self.name))?;
        let broadcast = self.capture.publish(&room, format!("{}-cam", self.name))?;
        let events = room.events();
        self.stay = Some(Stay { room, events, _broadcast: broadcast, players: BTreeMap::new() });
        Ok(())
    }

    /// Leaves and waits until it is done.
    pub(crate) async fn leave(&mut self) {
        let Some(stay) = self.stay.take() else { return };
        for (stream, playback) in stay.players {
            self.end(&stream, &playback);
        }
        _ = stay.room.leave().await;
    }

    /// Plays streams that appeared, stops those that ended.
    pub(crate) fn follow(&mut self) -> Result<(), Failure> {
        let Some(mut stay) = self.stay.take() else { return Ok(()) };
        while let Some(event) = stay.events.try_next() {
            self.events += (event.added_users().len() + event.removed_users().len()) as u64;
            self.events += (event.added_streams().len() + event.removed_streams().len()) as u64;
            for stream in event.removed_streams() {
                if let Some(playback) = stay.players.remove(&stream.stream) {
                    self.end(&stream.stream, &playback);
                }
            }
            for stream in event.added_streams() {
                let seen = self.seen.entry(stream.stream.clone()).or_default();
                lock(seen).plays.push(Play::start(self.engine.now()));
                let watch = Watch { clock: self.engine.clock().clone(), seen: Arc::clone(seen) };
                let player = stay.room.play(&stream.stream, PlayOptions::new())?;
                stay.players.insert(stream.stream.clone(), player.show(watch, &self.mixer)?);
            }
        }
        self.stay = Some(stay);
        Ok(())
    }

    fn end(&self, stream: &StreamId, playback: &Playback) {
        if let Some(seen) = self.seen.get(stream) {
            let mut seen = lock(seen);
            seen.lost += playback.stats().player.lost;
            if let Some(play) = seen.plays.last_mut() {
                play.end(self.engine.now());
            }
        }
    }

    /// Keeps what is seen now for the contact sheet.
    pub(crate) fn remember(&mut self) {
        for seen in self.seen.values() {
            let mut seen = lock(seen);
            let latest = seen.latest.clone();
            seen.kept.push(latest);
        }
    }

    /// What is being played now.
    pub(crate) fn playbacks(&self) -> impl Iterator<Item = (&StreamId, &Playback)> {
        self.stay.iter().flat_map(|stay| stay.players.iter())
    }

    /// Whether this person's view of the room is the relay's.
    pub(crate) fn agrees_with(&self, truth: Option<&RoomSnapshot>) -> bool {
        let Some(stay) = &self.stay else { return true };
        let (Some(view), Some(truth)) = (stay.room.view(), truth) else { return false };
        let users = truth.users.iter().filter(|info| info.user.as_str() != self.name);
        let streams = truth.streams.iter().filter(|info| info.user.as_str() != self.name);
        view.users.values().eq(users) && view.streams.values().eq(streams)
    }

    /// Pictures of `other` shown here and due here, over all plays, and frames lost on the way.
    pub(crate) fn score(&self, stream: &StreamId, other: &Person) -> (Score, u64) {
        let Some(seen) = self.seen.get(stream) else { return (Score::default(), 0) };
        let now = self.engine.now();
        // Two engines have two clocks; read one after the other they tell the difference.
        let offset = now.signed_since(other.engine.now());
        let captured: Vec<_> =
            lock(&other.captured.0).iter().map(|time| timestamp(time.offset_by(offset))).collect();
        let running: u64 = self
            .playbacks()
            .filter(|(id, _)| *id == stream)
            .map(|(_, playback)| playback.stats().player.lost)
            .sum();
        let seen = lock(seen);
        (seen.plays.iter().map(|play| play.score(&captured, now)).sum(), seen.lost + running)
    }
}

/// Locks also after a panic elsewhere: every value behind these locks is whole at any time.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
