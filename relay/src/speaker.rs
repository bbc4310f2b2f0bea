//! Who is heard in a large room, and whose voice leads: by the levels in frame headers, nothing is decoded.
//!
//! Heard are the loudest few and whoever spoke last beside them. Only a voice that speaks takes a place, and one that
//! is taken is kept: until its owner has been silent for a while, or somebody is clearly louder. So nothing changes in
//! a silent room, and two who are about as loud do not take turns word by word. It forwards nothing: `forward` asks for
//! every frame.

use std::collections::BTreeMap;
use std::time::Duration;

use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::Speaker;
use parlor_transport::wire::frame::{AudioLevel, SILENCE};

use crate::limits::Limits;

/// Loudness in thousandths of a decibel above digital silence.
type Loudness = u64;

/// Silence to full scale within the three frames of 20 ms in which a voice should be heard.
const ATTACK_PER_MS: Loudness = SILENCE as Loudness * 1000 / 60;
/// Speech (some 60 dB above a quiet room) to silence in half a second: longer than the gaps between words.
const RELEASE_PER_MS: Loudness = 127;
/// As loud as this is speech, whatever the encoder found: not all of them look. A quiet talker at arm's length.
const SPEECH_BELOW_FULL_SCALE: u8 = 45;
/// A challenger is louder by this: less is a matter of chance.
const MARGIN: Loudness = 6000;
/// Who was silent for so long does not speak any more, and a place is kept for so long: gaps between words are shorter.
const HOLD: Duration = Duration::from_millis(400);
/// Without frames for so long a voice fades: five of 20 ms, so that lost ones do not matter.
const QUIET_GAP: Duration = Duration::from_millis(100);

/// A voice leads only when it has spoken for so long: a cough is shorter.
const LEAD_SPEECH_MIN: Duration = Duration::from_millis(100);
/// It takes over from one who speaks only when louder by this…
const LEAD_MARGIN: Loudness = 3000;
/// …for so long. No two changes come closer.
const LEAD_INTERVAL_MIN: Duration = Duration::from_millis(300);
/// Nobody leads after so much silence.
const LEAD_SILENCE_MAX: Duration = Duration::from_secs(2);
/// Voices that are looked at for the lead where nobody is left out.
const PLACES_DEFAULT: usize = 3;

/// One track of sound in a room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct VoiceId(u64);

/// The voices of one room. As many as there are tracks of sound in it, which other limits bound: 128 for each user.
///
/// ```
/// use parlor_relay::limits::Limits;
/// use parlor_relay::speaker::Speakers;
/// use parlor_transport::id::{StreamId, UserId};
/// use parlor_transport::units::Timestamp;
/// use parlor_transport::wire::control::Speaker;
/// use parlor_transport::wire::frame::AudioLevel;
///
/// let limits = Limits { loudest_voices: 1, loudest_voices_above: 2, ..Limits::default() };
/// let mut speakers = Speakers::new(&limits);
/// let voices: Vec<_> = ["ann", "bob", "cid"]
///     .map(|user| {
///         let (stream, user) = (StreamId::new(user).unwrap(), UserId::new(user).unwrap());
///         speakers.add(Speaker { stream, user })
///     })
///     .into();
/// let speech = AudioLevel { below_full_scale: 20, voice: true };
/// let silence = AudioLevel { below_full_scale: 90, voice: false };
/// assert!(speakers.hear(Timestamp::ZERO, voices[0], speech));
/// assert!(!speakers.hear(Timestamp::ZERO, voices[1], silence));
/// ```
#[derive(Debug)]
pub struct Speakers {
    /// How many of the loudest are heard; 0 for everybody.
    loudest: usize,
    /// In rooms with more voices than this.
    above: usize,
    voices: BTreeMap<VoiceId, Voice>,
    made: u64,
    /// The loudest, in no order.
    chosen: Vec<Place>,
    /// Who spoke last beside them.
    last: Option<Place>,
    leader: Option<VoiceId>,
    /// When the leader changed last, and how often.
    led_since: Option<Timestamp>,
    changes: u64,
    /// Who is louder than the leader, and since when.
    rival: Option<(VoiceId, Timestamp)>,
}

#[derive(Debug)]
struct Voice {
    speaker: Speaker,
    loudness: Loudness,
    /// When its last frame came.
    heard: Option<Timestamp>,
    /// When it spoke last, and since when with no longer gap than [`HOLD`].
    spoke: Option<Timestamp>,
    began: Timestamp,
}

/// A place among those who are heard.
#[derive(Clone, Copy, Debug)]
struct Place {
    voice: VoiceId,
    since: Timestamp,
}

impl Speakers {
    /// A room without voices.
    pub fn new(limits: &Limits) -> Self {
        Speakers {
            loudest: limits.loudest_voices,
            above: limits.loudest_voices_above,
            voices: BTreeMap::new(),
            made: 0,
            chosen: Vec::new(),
            last: None,
            leader: None,
            led_since: None,
            changes: 0,
            rival: None,
        }
    }

    /// Other limits from now on.
    pub fn set_limits(&mut self, limits: &Limits) {
        (self.loudest, self.above) = (limits.loudest_voices, limits.loudest_voices_above);
        self.chosen.truncate(self.places());
    }

    /// A track of sound is published.
    pub fn add(&mut self, speaker: Speaker) -> VoiceId {
        self.made += 1;
        let id = VoiceId(self.made);
        let (loudness, began) = (0, Timestamp::ZERO);
        self.voices.insert(id, Voice { speaker, loudness, heard: None, spoke: None, began });
        id
    }

    /// It is published no more.
    pub fn remove(&mut self, id: VoiceId) {
        self.voices.remove(&id);
        self.chosen.retain(|place| place.voice != id);
        self.last = self.last.filter(|place| place.voice != id);
        self.rival = self.rival.filter(|(rival, _)| *rival != id);
        if self.leader == Some(id) {
            self.leader = None;
            self.changes += 1;
        }
    }

    /// A frame of this level came. False if it is not to be forwarded.
    pub fn hear(&mut self, now: Timestamp, id: VoiceId, level: AudioLevel) -> bool {
        let Some(voice) = self.voices.get_mut(&id) else { return true };
        if voice.hear(now, level) {
            self.seat(now, id);
        }
        self.elect(now);
        !self.is_selecting() || self.is_placed(id)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let spoke = self.voices.get(&self.leader?)?.spoke?;
        Some(spoke + LEAD_SILENCE_MAX)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.elect(now);
    }

    /// Whose voice leads.
    pub fn leader(&self) -> Option<&Speaker> {
        self.voices.get(&self.leader?).map(|voice| &voice.speaker)
    }

    /// How often the leader has changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How many voices there are.
    pub fn len(&self) -> usize {
        self.voices.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.voices.is_empty()
    }

    fn is_selecting(&self) -> bool {
        self.loudest > 0 && self.voices.len() > self.above
    }

    fn places(&self) -> usize {
        if self.loudest > 0 { self.loudest } else { PLACES_DEFAULT }
    }

    fn is_placed(&self, id: VoiceId) -> bool {
        self.placed().any(|place| place.voice == id)
    }

    /// Those who are heard when not everybody is.
    fn placed(&self) -> impl Iterator<Item = Place> + '_ {
        self.chosen.iter().copied().chain(self.last)
    }

    fn loudness(&self, now: Timestamp, id: VoiceId) -> Loudness {
        self.voices.get(&id).map_or(0, |voice| voice.loudness_at(now))
    }

    fn is_speaking(&self, now: Timestamp, id: VoiceId) -> bool {
        self.voices.get(&id).is_some_and(|voice| voice.is_speaking(now))
    }

    fn began(&self, id: VoiceId) -> Timestamp {
        self.voices.get(&id).map_or(Timestamp::ZERO, |voice| voice.began)
    }

    fn spoke(&self, id: VoiceId) -> Option<Timestamp> {
        self.voices.get(&id).and_then(|voice| voice.spoke)
    }

    /// Finds a place for a voice that speaks, if it has none among the loudest.
    fn seat(&mut self, now: Timestamp, id: VoiceId) {
        if self.chosen.iter().any(|place| place.voice == id) {
            return;
        }
        let taken = Place { voice: id, since: now };
        if self.chosen.len() < self.places() {
            self.chosen.push(taken);
            self.last = self.last.filter(|place| place.voice != id);
            return;
        }
        let Some((at, weakest)) = self.weakest(now) else { return };
        let is_silent = !self.is_speaking(now, weakest.voice);
        let is_louder = self.loudness(now, id) >= self.loudness(now, weakest.voice) + MARGIN;
        if is_silent || (is_louder && now.saturating_since(weakest.since) >= HOLD) {
            self.chosen[at] = taken;
            self.last = self.last.filter(|place| place.voice != id);
            // Who had it is the last who spoke, if nobody did since; it is given up to the next who begins.
            let spoke_since = |last: Place| self.spoke(last.voice) > self.spoke(weakest.voice);
            if !self.last.is_some_and(spoke_since) {
                self.last = Some(weakest);
            }
            return;
        }
        let is_free = self.last.is_none_or(|last| {
            let is_newer = self.began(id) > self.began(last.voice);
            !self.is_speaking(now, last.voice) || (is_newer && now.saturating_since(last.since) >= HOLD)
        });
        if is_free && self.last.is_none_or(|last| last.voice != id) {
            self.last = Some(taken);
        }
    }

    /// The place among the loudest that is the first to be given up: of those who are silent the one who is so for
    /// the longest, else the quietest.
    fn weakest(&self, now: Timestamp) -> Option<(usize, Place)> {
        let strength = |place: &Place| {
            let is_speaking = self.is_speaking(now, place.voice);
            let silent_since = self.spoke(place.voice).filter(|_| !is_speaking);
            (is_speaking, silent_since, self.loudness(now, place.voice))
        };
        self.chosen.iter().copied().enumerate().min_by_key(|(_, place)| strength(place))
    }

    /// Finds out who leads: only those who have a place, so that a large room costs no more than a small one.
    fn elect(&mut self, now: Timestamp) {
        let speaks = |place: &Place| {
            let since = now.saturating_since(self.began(place.voice));
            self.is_speaking(now, place.voice) && since >= LEAD_SPEECH_MIN
        };
        let of_placed = self.placed().filter(speaks).map(|place| place.voice);
        // Of two who are as loud the one who leads goes on.
        let loudest = of_placed.max_by_key(|&id| (self.loudness(now, id), Some(id) == self.leader));
        let Some(leader) = self.leader else {
            self.rival = None;
            if loudest.is_some() {
                self.lead(now, loudest);
            }
            return;
        };
        let Some(rival) = loudest.filter(|&id| id != leader) else {
            self.rival = None;
            let spoke = self.spoke(leader);
            if spoke.is_none_or(|spoke| now.saturating_since(spoke) >= LEAD_SILENCE_MAX) {
                self.lead(now, None);
            }
            return;
        };
        if !self.is_speaking(now, leader) {
            return self.lead(now, Some(rival));
        }
        if self.loudness(now, rival) < self.loudness(now, leader) + LEAD_MARGIN {
            self.rival = None;
            return;
        }
        let since = self.rival.filter(|(id, _)| *id == rival).map_or(now, |(_, since)| since);
        self.rival = Some((rival, since));
        if now.saturating_since(since) >= LEAD_INTERVAL_MIN {
            self.lead(now, Some(rival));
        }
    }

    /// Changes the leader, unless that was just done; the next frame asks again.
    fn lead(&mut self, now: Timestamp, leader: Option<VoiceId>) {
        if self.led_since.is_some_and(|since| now.saturating_since(since) < LEAD_INTERVAL_MIN) {
            return;
        }
        self.leader = leader;
        self.led_since = Some(now);
        self.rival = None;
        self.changes += 1;
    }
}

impl Voice {
    /// Takes the level of a frame. True if it is speech.
    fn hear(&mut self, now: Timestamp, level: AudioLevel) -> bool {
        let since = self.heard.map_or(Duration::ZERO, |heard| now.saturating_since(heard));
        let loudness = Loudness::from(SILENCE.saturating_sub(level.below_full_scale)) * 1000;
        // The first frame counts for what the shortest in use would.
        let ms = (since.as_micros() as Loudness / 1000).max(10);
        let rise = loudness.saturating_sub(self.loudness).min(ATTACK_PER_MS * ms);
        let fall = self.loudness.saturating_sub(loudness).min(RELEASE_PER_MS * ms);
        self.loudness = self.loudness + rise - fall;
        self.heard = Some(now);
        let is_speech = level.voice || level.below_full_scale <= SPEECH_BELOW_FULL_SCALE;
        if is_speech {
            if !self.is_speaking(now) {
                self.began = now;
            }
            self.spoke = Some(now);
        }
        is_speech
    }

    fn loudness_at(&self, now: Timestamp) -> Loudness {
        let since = self.heard.map_or(Duration::ZERO, |heard| now.saturating_since(heard));
        let faded = since.saturating_sub(QUIET_GAP).as_millis() as Loudness;
        self.loudness.saturating_sub(RELEASE_PER_MS.saturating_mul(faded))
    }

    fn is_speaking(&self, now: Timestamp) -> bool {
        self.spoke.is_some_and(|spoke| now.saturating_since(spoke) < HOLD)
    }
}

#[cfg(test)]
mod tests;
