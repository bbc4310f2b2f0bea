//! A person's app on one device: joins, publishes what its user wants, plays everything that appears, renews its
//! token, and writes down what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use parlor_client::publisher::{EncodedFrame, PublisherState, SendOutcome};
use parlor_client::room::{Recipients, RoomEvent, RoomReason, RoomState, RoomStatus};
use parlor_client::{
    Code, Engine, Frames, PlayOptions, Player, PublishOptions, Publisher, Refusal, Room, RoomEvents,
    Timestamp,
};
use parlor_transport::sim::Host;

use super::checker::Follower;
use super::frames::Label;
use super::scenario::Habits;

/// What its user wants others to see and wants to see itself; outlives devices.
#[derive(Clone, Default, Debug)]
pub struct Wanted {
    /// A second stream.
    pub screen: bool,
    /// Nothing is sent of the camera.
    pub muted: bool,
    /// The info of the camera; empty for none.
    pub info: String,
    /// Of whom nothing is wanted, and until when.
    pub ignored: BTreeMap<usize, Timestamp>,
    /// Whose streams are not played, and until when.
    pub stopped: BTreeMap<usize, Timestamp>,
}

/// The answer to something asked of the relay, once it is there.
pub type Slot = Arc<Mutex<Option<Result<(), Refusal>>>>;

/// Puts the answer of `asking` into a slot when it comes.
pub fn slot(asking: impl Future<Output = Result<(), Refusal>> + Send + 'static) -> Slot {
    let slot = Slot::default();
    let answer = slot.clone();
    tokio::spawn(async move {
        let outcome = asking.await;
        *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    });
    slot
}

/// What is in a slot.
pub fn answer(slot: &Slot) -> Option<Result<(), Refusal>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// See the module's text.
pub struct Device {
    /// Whose it is.
    pub person: usize,
    /// Counts the devices of a run.
    pub number: u32,
    /// Where it is.
    pub host: Host,
    /// Its engine.
    pub engine: Engine,
    /// The room.
    pub room: Arc<Room>,
    /// Its app renews tokens.
    pub renews: bool,
    /// When the last token expires that the app offered and that was not refused.
    pub token_expires: Timestamp,
    /// It was in the room at some time.
    pub was_joined: bool,
    /// Put out of the room by then: nothing made later may come here.
    pub barred: Option<Timestamp>,
    /// Publications of its camera that a moderator ended in the session that it has.
    pub removed: BTreeSet<u32>,
    /// Since when nothing passes its link, and until when.
    pub cut: Option<(Timestamp, Timestamp)>,
    /// What it was told.
    pub follower: Follower,
    /// Frames that came.
    pub frames: u64,
    habits: Habits,
    events: RoomEvents,
    own: BTreeMap<u8, Own>,
    plays: BTreeMap<String, Played>,
    renewal: Option<(Timestamp, Slot)>,
    renew_at: Option<Timestamp>,
    faults: Vec<String>,
}

/// A stream of its own.
struct Own {
    publisher: Publisher,
    publication: u32,
    number: u32,
    next: Timestamp,
    again: Option<Timestamp>,
    has_pictures: bool,
    told: String,
    telling: Option<(String, Slot)>,
}

/// A stream of somebody else.
struct Played {
    player: Player,
    frames: Frames,
    is_ignored: bool,
    /// What was under way when its wishes changed may come first.
    has_changed: bool,
    seen: BTreeSet<(u32, u32)>,
    last: Option<Label>,
}

/// What a tick needs to know of the world.
pub struct Tick<'a> {
    /// The time.
    pub now: Timestamp,
    /// What its user wants.
    pub wanted: &'a Wanted,
    /// Between two frames.
    pub period: Duration,
    /// Names publications.
    pub publications: &'a mut u32,
    /// Makes another token of the app's server, and says when it expires.
    pub token: &'a dyn Fn() -> (String, Timestamp),
    /// Takes a line of the log.
    pub log: &'a mut dyn FnMut(String),
}

const CAMERA: u8 = 0;
const SCREEN: u8 = 1;

/// The id of a stream.
pub fn stream_id(person: usize, stream: u8) -> String {
    format!("p{person}-{}", if stream == CAMERA { "cam" } else { "screen" })
}

/// The id of a user.
pub fn user_id(person: usize) -> String {
    format!("p{person}")
}

impl Device {
    /// A device whose app has just asked to join.
    pub fn new(
        person: usize,
        number: u32,
        host: Host,
        engine: Engine,
        room: Room,
        habits: Habits,
        token_expires: Timestamp,
    ) -> Self {
        let events = room.events();
        Device {
            person,
            number,
            host,
            engine,
            room: Arc::new(room),
            renews: true,
            token_expires,
            was_joined: false,
            barred: None,
            removed: BTreeSet::new(),
            cut: None,
            follower: Follower::new(user_id(person)),
            frames: 0,
            habits,
            events,
            own: BTreeMap::new(),
            plays: BTreeMap::new(),
            renewal: None,
            renew_at: None,
            faults: Vec::new(),
        }
    }

    /// Its name in the log.
    pub fn name(&self) -> String {
        format!("p{}#{}", self.person, self.number)
    }

    /// State, reason and error of its room.
    pub fn status(&self) -> RoomStatus {
        self.room.status()
    }

    /// Whether its room is over for good.
    pub fn is_over(&self) -> bool {
        self.status().state == RoomState::Disconnected
    }

    /// What was wrong so far.
    pub fn take_faults(&mut self) -> Vec<String> {
        let mut faults = std::mem::take(&mut self.faults);
        faults.extend(self.follower.take_faults());
        let name = self.name();
        faults.into_iter().map(|fault| format!("{name}: {fault}")).collect()
    }

    /// Does what is to be done now.
    pub fn tick(&mut self, tick: &mut Tick<'_>) {
        self.read_events(tick);
        self.renew(tick);
        self.play(tick);
        self.read_frames(tick);
        if !self.is_over() {
            self.publish(tick, CAMERA, true);
            self.publish(tick, SCREEN, tick.wanted.screen);
        }
    }

    fn read_events(&mut self, tick: &mut Tick<'_>) {
        while let Some(event) = self.events.try_next() {
            (tick.log)(format!("{} {}", self.name(), brief(&event)));
            if let RoomEvent::TokenWillExpire { .. } = event {
                self.renew_at = Some(tick.now);
            }
            if matches!(&event, RoomEvent::State(status) if status.state == RoomState::Connected) {
                self.was_joined = true;
            }
            self.follower.apply(&event);
        }
    }

    fn renew(&mut self, tick: &mut Tick<'_>) {
        if let Some((expires, answered)) = &self.renewal {
            match answer(answered) {
                None => return,
                Some(Ok(())) => self.renew_at = None,
                Some(Err(_)) => self.renew_at = Some(tick.now + Duration::from_secs(1)),
            }
            self.token_expires = self.token_expires.max(*expires);
            self.renewal = None;
        }
        if !self.renews || self.is_over() || self.renew_at.is_none_or(|at| tick.now < at) {
            return;
        }
        let ((token, expires), room) = ((tick.token)(), Arc::clone(&self.room));
        let renewed = async move {
            room.renew_token(token).await.map_err(|error| Refusal::new(Code::TokenInvalid, error.to_string()))
        };
        self.renewal = Some((expires, slot(renewed)));
    }

    /// When the newest token expires that the app has given to the client.
    pub fn token_offered(&self) -> Timestamp {
        self.renewal.as_ref().map_or(self.token_expires, |(expires, _)| self.token_expires.max(*expires))
    }

    fn play(&mut self, tick: &mut Tick<'_>) {
        let is_stopped = |id: &str| {
            person_of(id)
                .is_some_and(|of| tick.wanted.stopped.get(&of).is_some_and(|until| tick.now < *until))
        };
        self.plays.retain(|id, _| !is_stopped(id));
        if self.is_over() {
            return;
        }
        let streams: Vec<_> = self.follower.view().streams.keys().map(ToString::to_string).collect();
        for id in streams.into_iter().filter(|id| !is_stopped(id)) {
            if !self.plays.contains_key(&id) {
                match self.room.play(&id, PlayOptions::new()) {
                    Ok(player) => {
                        let frames = player.frames();
                        let played = Played {
                            player,
                            frames,
                            is_ignored: false,
                            has_changed: false,
                            seen: BTreeSet::new(),
                            last: None,
                        };
                        self.plays.insert(id, played);
                    }
                    Err(error) => self.faults.push(format!("{id} cannot be played: {error}")),
                }
            }
        }
        for (id, played) in &mut self.plays {
            let until = person_of(id).and_then(|of| tick.wanted.ignored.get(&of));
            let ignored = until.is_some_and(|until| tick.now < *until);
            if played.is_ignored != ignored {
                played.is_ignored = ignored;
                played.has_changed = true;
                let options = PlayOptions::new();
                played.player.update(if ignored { options.without_track(0) } else { options });
                // What is wanted again begins anew, at a keyframe that may have come before.
                played.seen.clear();
                played.last = None;
            }
        }
    }

    fn read_frames(&mut self, tick: &mut Tick<'_>) {
        for (id, played) in &mut self.plays {
            while let Some(frame) = played.frames.try_next() {
                self.frames += 1;
                if frame.missed > 0 {
                    played.player.request_keyframe(0);
                }
                let label = match Label::read(&frame.payload) {
                    Ok(label) => label,
                    Err(error) => {
                        self.faults.push(format!("{id}: {error}"));
                        continue;
                    }
                };
                (tick.log)(format!(
                    "p{}#{} {id} {}/{}",
                    self.person, self.number, label.publication, label.number
                ));
                if stream_id(label.person.into(), label.stream) != *id {
                    self.faults.push(format!("a frame of {label:?} came to the player of {id}"));
                }
                if self.barred.is_some_and(|barred| label.made > barred) {
                    self.faults.push(format!(
                        "{label:?} came to somebody who had been put out at {:?}",
                        self.barred
                    ));
                }
                if !played.seen.insert((label.publication, label.number)) {
                    self.faults.push(format!("{id}: {label:?} came twice"));
                }
                let before = played.last.replace(label).filter(|last| last.publication == label.publication);
                let decodes = frame.header.keyframe || frame.missed > 0;
                match before {
                    Some(last) if label.number < last.number => {
                        self.faults.push(format!("{id}: {label:?} came behind {last:?}"));
                    }
                    Some(last) if label.number > last.number + 1 && !decodes => {
                        self.faults.push(format!(
                            "{id}: {label:?} came after {last:?}, and nothing was said of a gap"
                        ));
                    }
                    None if !decodes && !played.has_changed => {
                        self.faults.push(format!("{id} began with {label:?}, which is no keyframe"));
                    }
                    _ => {}
                }
            }
        }
    }

    fn publish(&mut self, tick: &mut Tick<'_>, stream: u8, wanted: bool) {
        let now = tick.now;
        if !wanted {
            self.own.remove(&stream);
            return;
        }
        let status = self.own.get(&stream).map(|own| own.publisher.status());
        if let (Some(status), Some(own)) = (&status, self.own.get_mut(&stream))
            && status.state == PublisherState::Idle
        {
            let code = status.error.as_ref().map(|error| error.code);
            let is_moderated = matches!(code, Some(Code::PublishBanned | Code::StreamRemoved));
            match own.again {
                None if is_moderated => own.again = Some(now + Duration::from_secs(2)),
                // The room ends with it; or something is wrong.
                None if self.room.status().state == RoomState::Disconnected => return,
                None => {
                    let id = stream_id(self.person, stream);
                    self.faults.push(format!("{id} is not published any more: {status:?}"));
                    own.again = Some(now + Duration::from_secs(2));
                }
                Some(again) if now >= again => _ = self.own.remove(&stream),
                Some(_) => {}
            }
        }
        if !self.own.contains_key(&stream) {
            let has_pictures = self.habits.has_pictures && stream == CAMERA;
            let options = PublishOptions::new(stream_id(self.person, stream)).delivery(self.habits.delivery);
            let options = if has_pictures { options.video("x") } else { options.audio("x") };
            match self.room.publish(options) {
                Ok(publisher) => {
                    *tick.publications += 1;
                    let publication = *tick.publications;
                    let own = Own {
                        publisher,
                        publication,
                        number: 0,
                        next: now,
                        again: None,
                        has_pictures,
                        told: String::new(),
                        telling: None,
                    };
                    self.own.insert(stream, own);
                }
                Err(error) => self.faults.push(format!("cannot publish: {error}")),
            }
        }
        let Some(own) = self.own.get_mut(&stream) else { return };
        if stream == CAMERA {
            own.publisher.set_muted(0, tick.wanted.muted);
            own.describe(&tick.wanted.info);
        }
        own.send(now, self.person, stream, tick.period);
    }

    /// Which publication its camera is.
    pub fn camera(&self) -> Option<u32> {
        self.own.get(&CAMERA).filter(|own| own.again.is_none()).map(|own| own.publication)
    }

    /// Whether its client published by itself what a moderator had ended. A session that was lost for good takes with it
    /// what was done to it.
    pub fn has_published_again(&self) -> bool {
        self.own.get(&CAMERA).is_some_and(|own| {
            self.removed.contains(&own.publication)
                && own.publisher.status().state == PublisherState::Publishing
                && self.room.stats().recovery.rejoined == 0
        })
    }

    /// Says something to everyone.
    pub fn say(&mut self, text: &str) {
        if let Err(error) = self.room.send_message(Recipients::Everyone, text.to_owned()) {
            self.faults.push(format!("cannot say {text:?}: {error}"));
        }
    }

    /// Whether the stream plays, and when the newest of its frames was made.
    pub fn played(&self, id: &str) -> Option<(String, Option<Timestamp>)> {
        let played = self.plays.get(id)?;
        Some((format!("{:?}", played.player.status()), played.last.map(|label| label.made)))
    }
}

impl Own {
    /// Has the relay attach `info`, if it was not told before.
    fn describe(&mut self, info: &str) {
        if let Some((text, answered)) = &self.telling {
            match answer(answered) {
                None => return,
                Some(Ok(())) => self.told.clone_from(text),
                Some(Err(_)) => {}
            }
            self.telling = None;
        }
        if self.told != info
            && let Ok(telling) = self.publisher.set_info(info)
        {
            self.telling = Some((info.to_owned(), slot(telling.done())));
        }
    }

    fn send(&mut self, now: Timestamp, person: usize, stream: u8, period: Duration) {
        if now < self.next || self.publisher.status().state != PublisherState::Publishing {
            return;
        }
        self.next = now + period;
        let label = Label {
            person: person as u8,
            stream,
            publication: self.publication,
            number: self.number,
            made: now,
        };
        let keyframe = !self.has_pictures
            || self.number.is_multiple_of(4)
            || !self.publisher.take_keyframe_requests().is_empty();
        let frame = EncodedFrame { keyframe, ..EncodedFrame::new(0, now, label.frame()) };
        match self.publisher.send_frame(frame) {
            SendOutcome::Queued => self.number += 1,
            // What follows has to decode alone, and then begins with a number that does.
            SendOutcome::Dropped(_) if self.has_pictures => self.number = self.number.next_multiple_of(4),
            SendOutcome::Dropped(_) => {}
        }
    }
}

/// Whose stream it is.
fn person_of(stream: &str) -> Option<usize> {
    stream.strip_prefix('p')?.split('-').next()?.parse().ok()
}

/// An event in a line.
fn brief(event: &RoomEvent) -> String {
    match event {
        RoomEvent::State(RoomStatus { state, reason, error }) => {
            let error = error.as_ref().map(|error| format!(" ({:?})", error.code)).unwrap_or_default();
            match reason {
                RoomReason::Joined => "joined".to_owned(),
                reason => format!("{state:?} {reason:?}{error}"),
            }
        }
        RoomEvent::UsersAdded { users, count } => {
            let users: Vec<_> = users.iter().map(|user| user.user.as_str()).collect();
            format!("+ {} ({count})", users.join(" "))
        }
        RoomEvent::UserRemoved { user, reason, count } => format!("- {} {reason:?} ({count})", user.user),
        RoomEvent::StreamsAdded(streams) => {
            let streams: Vec<_> = streams.iter().map(|stream| stream.stream.as_str()).collect();
            format!("+ {}", streams.join(" "))
        }
        RoomEvent::StreamRemoved { stream, reason } => format!("- {} {reason:?}", stream.stream),
        other => format!("{other:?}"),
    }
}
