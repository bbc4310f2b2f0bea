//! Where one player is in one track, and which frame it gets next.
//!
//! A cursor never hands out a frame that does not decode: it starts at a keyframe, changes
//! layers at one, and after skipping goes on at one. It skips when it lags, so that lag does not grow.

use std::collections::BTreeMap;
use std::time::Duration;

use parlor_transport::hop::{CodedFrame, Piece};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{TrackKind, TrackWish};
use parlor_transport::wire::frame::FrameHeader;

use super::cache::{Cache, Entry, Growing, Slot};
use super::layer::Track;
use crate::limits::{CATCH_UP_MAX, LATENESS_DISCARDABLE_MAX, LATENESS_MAX, SLOW_KEYFRAME_INTERVAL_MIN};

/// What a cursor knows of the way to its player.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Bytes per second that can be sent, as estimated.
    pub rate: u64,
    /// Round-trip time.
    pub rtt: Duration,
    /// Whether the player takes what it is sent. For one that does not, nobody is asked for keyframes.
    pub is_heard: bool,
}

/// What a player does not get because the machine is too slow, although it wants it. Of video alone.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The highest of several layers, in size and in rate.
    pub layers: bool,
    /// Frames that no other frame needs.
    pub discardable: bool,
    /// Everything.
    pub video: bool,
}

/// Frames left out for a [`Cut`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CutFrames {
    /// Those of the highest layers: left out, or sent in a smaller size.
    pub layers: u64,
    /// Those that no other frame needs.
    pub discardable: u64,
    /// Those of a player that gets no video.
    pub video: u64,
}

/// What to do next for a track.
#[derive(Clone, Debug)]
pub enum Step {
    /// Send this frame, and ask again.
    Send(CodedFrame),
    /// Take a hop sequence for a frame that is not here yet, and ask again.
    Reserve,
    /// Send this frame under the sequence that was taken as the so-manieth of this track, and ask again.
    SendReserved(u64, CodedFrame),
    /// Send this of the frame under the sequence that was taken as the so-manieth of this track, and ask again. More of it follows, or the
    /// whole, or word that it will not come.
    SendPiece(u64, Piece),
    /// The frame of that sequence will not come: tell the player, and ask again.
    GiveUp(u64),
    /// There is a frame, but no room for it: ask again when room has grown.
    Blocked,
    /// Nothing until a frame comes.
    Wait,
}

/// A keyframe that somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyframeNeed {
    /// On which spatial layer.
    pub spatial: u8,
    /// It must arrive later than this.
    pub since: Timestamp,
}

/// See the module's text.
#[derive(Debug)]
pub struct Cursor {
    wish: TrackWish,
    cut: Cut,
    /// What of the wished rate is sent now, as of the last look.
    temporal_max: u8,
    /// A smaller layer is sent than could be, as of the last look.
    is_smaller: bool,
    /// While video is cut: the layer that would be sent, and up to where its frames were counted.
    withheld: Option<(u8, u64)>,
    cut_frames: CutFrames,
    /// Where it is; `None` before the first keyframe.
    place: Option<Place>,
    mode: Mode,
    /// When it began to wait for its first frame.
    started: Timestamp,
    /// It begins with a keyframe that comes later than that: what was withheld is not made up for.
    starts_fresh: bool,
    keyframe_sent: Option<Timestamp>,
    keyframe_asked_for_slowness: Option<Timestamp>,
    need: Option<KeyframeNeed>,
    /// Sequences taken for frames that were not here, or not whole. As many as the cache keeps places for.
    reserved: BTreeMap<u64, Reserved>,
    frames_sent: u64,
    frames_skipped: u64,
}

/// What a sequence was taken for.
#[derive(Clone, Copy, Debug)]
struct Reserved {
    spatial: u8,
    index: u64,
    /// How many symbols of the frame were sent.
    symbols: usize,
}

/// What is at the cursor's place, whole or not.
struct Here<'a> {
    header: &'a FrameHeader,
    bytes: usize,
    /// Since when it is here.
    arrived: Timestamp,
    decodes_alone: bool,
    /// The frame, if it is whole.
    frame: Option<&'a CodedFrame>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    spatial: u8,
    /// The next frame to look at. All before it in its group were sent, or nobody needs them.
    next: u64,
    /// Frames above are skipped; may fall at any time and rises at a keyframe.
    temporal_max: u8,
    /// When the last frame sent had arrived.
    reached: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// At the live end, or less than [`LATENESS_MAX`] behind it.
    Live,
    /// Behind, but on the way to live, allowed until then.
    CatchUp { until: Timestamp },
    /// Send the keyframe at hand, then wait for a fresh one: catching up would take too long.
    KeyframeOnly,
    /// Send nothing until a keyframe at or after the place.
    AwaitKeyframe { since: Timestamp, slow: bool },
}

/// Why a frame is passed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Skip {
    /// The player is too slow for it, or does not want it.
    Slow,
    /// See [`Cut::layers`].
    Layer,
    /// See [`Cut::discardable`].
    Discardable,
}

impl Cursor {
    /// A cursor that has sent nothing.
    pub fn new(now: Timestamp, wish: TrackWish) -> Self {
        Cursor {
            wish,
            cut: Cut::default(),
            temporal_max: wish.temporal_max,
            is_smaller: false,
            withheld: None,
            cut_frames: CutFrames::default(),
            place: None,
            mode: Mode::Live,
            started: now,
            starts_fresh: false,
            keyframe_sent: None,
            keyframe_asked_for_slowness: None,
            need: None,
            reserved: BTreeMap::new(),
            frames_sent: 0,
            frames_skipped: 0,
        }
    }

    /// Changes what the player wants. A track wanted again starts anew.
    pub fn set_wish(&mut self, now: Timestamp, wish: TrackWish) {
        if !wish.wanted || !self.wish.wanted {
            self.start_anew(now);
        }
        self.wish = wish;
    }

    /// What the player wants.
    pub fn wish(&self) -> TrackWish {
        self.wish
    }

    /// Leaves out this from now on. What comes back does so at a keyframe, which is asked for: to send what is kept since the
    /// last one, to everybody at once, would be too much again.
    pub fn set_cut(&mut self, now: Timestamp, cut: Cut) {
        if cut.video != self.cut.video {
            self.start_anew(now);
            self.starts_fresh = true;
            self.withheld = None;
        }
        self.cut = cut;
    }

    /// Frames left out for the cut since this was asked last.
    pub fn take_cut_frames(&mut self) -> CutFrames {
        std::mem::take(&mut self.cut_frames)
    }

    fn start_anew(&mut self, now: Timestamp) {
        self.place = None;
        self.mode = Mode::Live;
        self.started = now;
    }

    /// Whether anything of the track is to be sent.
    fn is_open(&self) -> bool {
        self.wish.wanted && !self.cut.video
    }

    /// Frames handed out so far: the hop sequence that the next one has.
    pub fn frames_sent(&self) -> u64 {
        self.frames_sent
    }

    /// Frames passed over so far: too late, or above the wished rate.
    pub fn frames_skipped(&self) -> u64 {
        self.frames_skipped
    }

    /// The player's decoder cannot go on without a keyframe.
    ///
    /// Nothing but a keyframe is of use to it, so nothing else is sent; unless one is on its way,
    /// which the player cannot have known when it asked.
    pub fn decoder_stuck(&mut self, now: Timestamp, link: Link) {
        if self.keyframe_sent.is_some_and(|sent| now.saturating_since(sent) < link.rtt) {
            return;
        }
        if matches!(self.mode, Mode::Live | Mode::CatchUp { .. }) && self.place.is_some() {
            self.mode = Mode::AwaitKeyframe { since: now, slow: false };
        }
    }

    /// The keyframe this cursor waits for, once each time it found that it does.
    pub fn take_need(&mut self) -> Option<KeyframeNeed> {
        self.need.take()
    }

    /// The next step. `admits` says whether a frame of so many bytes can be sent now.
    pub fn next(
        &mut self,
        now: Timestamp,
        track: &Track,
        link: Link,
        mut admits: impl FnMut(usize) -> bool,
    ) -> Step {
        if let Some(step) = self.redeem(track, &mut admits) {
            return step;
        }
        self.temporal_max = match self.cut.layers {
            true => self.wish.temporal_max.min(track.temporal_layers().saturating_sub(2)),
            false => self.wish.temporal_max,
        };
        if self.wish.wanted && self.cut.video {
            self.count_withheld(now, track);
        }
        if !self.is_open() || !self.settle(now, track, link) {
            return Step::Wait;
        }
        loop {
            let Some(place) = self.place else { return Step::Wait };
            let cache = track.layer(place.spatial);
            match self.mode {
                Mode::AwaitKeyframe { since, slow } => {
                    let Some(keyframe) = cache.keyframe_newest().filter(|&index| index >= place.next) else {
                        self.ask(now, place.spatial, since, slow);
                        return Step::Wait;
                    };
                    self.enter(now, place.spatial, keyframe, cache, link);
                    continue;
                }
                // A newer keyframe is the fresh one already.
                Mode::KeyframeOnly => {
                    if let Some(keyframe) = cache.keyframe_newest().filter(|&index| index > place.next) {
                        self.enter(now, place.spatial, keyframe, cache, link);
                        continue;
                    }
                }
                Mode::Live | Mode::CatchUp { .. } => {}
            }
            if place.next < cache.first() {
                self.fall_behind(now, cache, link);
                continue;
            }
            let Some(slot) = cache.get(place.next) else {
                self.mode = Mode::Live;
                return Step::Wait;
            };
            let here = match slot {
                Slot::Frame(entry) => Here::whole(entry),
                Slot::Growing(growing) => Here::growing(growing),
                Slot::Open(_) => {
                    self.reserve(place);
                    self.place = Some(Place { next: place.next + 1, ..place });
                    return Step::Reserve;
                }
                Slot::Lost => {
                    self.place = Some(Place { next: place.next + 1, ..place });
                    if track.kind() == TrackKind::Video {
                        self.mode = Mode::AwaitKeyframe { since: now, slow: false };
                    }
                    continue;
                }
            };
            let newest = cache.newest().map_or(here.arrived, |newest| newest.arrived);
            let behind = newest.saturating_since(here.arrived);
            if let Some(skip) = self.skips(&here, place, behind) {
                let counter = match skip {
                    Skip::Slow => &mut self.frames_skipped,
                    Skip::Layer => &mut self.cut_frames.layers,
                    Skip::Discardable => &mut self.cut_frames.discardable,
                };
                *counter += 1;
                self.pass(place, &here, false);
                continue;
            }
            let in_time = match self.mode {
                Mode::CatchUp { until } => now <= until,
                Mode::KeyframeOnly => true,
                Mode::Live | Mode::AwaitKeyframe { .. } => behind <= LATENESS_MAX,
            };
            if !in_time && behind > LATENESS_MAX {
                self.fall_behind(now, cache, link);
                continue;
            }
            if !admits(here.bytes) {
                return Step::Blocked;
            }
            if here.decodes_alone {
                self.keyframe_sent = Some(now);
            }
            self.cut_frames.layers += u64::from(self.is_smaller);
            let Some(frame) = here.frame.cloned() else {
                self.reserve(place);
                self.pass(place, &here, true);
                return Step::Reserve;
            };
            self.frames_sent += 1;
            self.pass(place, &here, true);
            if self.mode == Mode::KeyframeOnly {
                self.mode = Mode::AwaitKeyframe { since: now, slow: true };
                self.ask(now, place.spatial, now, true);
            }
            return Step::Send(frame);
        }
    }

    /// What became of the frames for which sequences were taken; one at a time, the oldest first.
    fn redeem(&mut self, track: &Track, admits: &mut impl FnMut(usize) -> bool) -> Option<Step> {
        let is_wanted = self.is_open();
        let found = self.reserved.iter().find_map(|(&sequence, &reserved)| {
            let slot = track.layer(reserved.spatial).get(reserved.index);
            match slot {
                Some(Slot::Open(_)) if is_wanted => None,
                Some(Slot::Growing(growing)) if is_wanted && growing.symbols() == reserved.symbols => None,
                _ => Some((sequence, reserved, slot.filter(|_| is_wanted))),
            }
        });
        let (sequence, reserved, slot) = found?;
        let bytes = match slot {
            Some(Slot::Frame(entry)) => entry.frame.object().len(),
            Some(Slot::Growing(growing)) => growing.length(),
            Some(Slot::Open(_) | Slot::Lost) | None => {
                self.reserved.remove(&sequence);
                return Some(Step::GiveUp(sequence));
            }
        };
        // A frame that is begun is finished.
        if reserved.symbols == 0 && !admits(bytes) {
            return Some(Step::Blocked);
        }
        match slot {
            Some(Slot::Growing(growing)) => {
                self.reserved.insert(sequence, Reserved { symbols: growing.symbols(), ..reserved });
                Some(Step::SendPiece(sequence, growing.piece(reserved.symbols)))
            }
            Some(Slot::Frame(entry)) => {
                self.reserved.remove(&sequence);
                Some(Step::SendReserved(sequence, entry.frame.clone()))
            }
            _ => None,
        }
    }

    /// Takes a sequence for what is at `place`.
    fn reserve(&mut self, place: Place) {
        let reserved = Reserved { spatial: place.spatial, index: place.next, symbols: 0 };
        self.reserved.insert(self.frames_sent, reserved);
        self.frames_sent += 1;
    }

    /// Finds a place if there is none, and changes layers where that is due and possible.
    /// False while there is no place.
    fn settle(&mut self, now: Timestamp, track: &Track, link: Link) -> bool {
        let wished = track.choose(self.wish.spatial_max, now);
        let chosen = match self.cut.layers {
            true => track.choose_below_top(self.wish.spatial_max, now),
            false => wished,
        };
        let Some(target) = chosen else {
            self.is_smaller = false;
            return self.place.is_some();
        };
        let cache = track.layer(target);
        match self.place {
            None => match self.start(now, track.kind(), cache) {
                Some(index) => self.enter(now, target, index, cache, link),
                None => self.ask(now, target, self.started, false),
            },
            Some(place) if place.spatial != target => {
                // Not back in time: the picture would jump.
                let keyframe = cache
                    .keyframe_newest()
                    .filter(|&index| arrived(cache, index).is_some_and(|arrived| arrived >= place.reached));
                match keyframe {
                    Some(index) => self.enter(now, target, index, cache, link),
                    None => self.ask(now, target, place.reached, false),
                }
            }
            // A rate above the one in force decodes only from the next keyframe on.
            Some(place) => {
                let highest = track.temporal_layers() - 1;
                if place.temporal_max.min(highest) < self.temporal_max.min(highest) {
                    self.ask(now, target, place.reached, false);
                }
            }
        }
        self.is_smaller =
            self.place.is_some_and(|place| Some(place.spatial) < wished && place.spatial == target);
        self.place.is_some()
    }

    /// Counts what has come since the last look and is not sent.
    fn count_withheld(&mut self, now: Timestamp, track: &Track) {
        let Some(spatial) = track.choose(self.wish.spatial_max, now) else { return };
        let end = track.layer(spatial).end();
        if let Some((_, counted)) = self.withheld.filter(|(of, _)| *of == spatial) {
            self.cut_frames.video += end - counted;
        }
        self.withheld = Some((spatial, end));
    }

    /// Where a new player starts: data at their newest frame, sound too unless that is old, because its voice is heard no
    /// more; pictures at the newest keyframe.
    fn start(&self, now: Timestamp, kind: TrackKind, cache: &Cache) -> Option<u64> {
        let is_late = |entry: &Entry| now.saturating_since(entry.arrived) > LATENESS_MAX;
        match kind {
            TrackKind::Audio if cache.newest().is_some_and(is_late) => Some(cache.end()),
            TrackKind::Audio | TrackKind::Data => cache.newest().map(|_| cache.end() - 1),
            TrackKind::Video => cache.keyframe_newest().filter(|&index| {
                !self.starts_fresh || arrived(cache, index).is_some_and(|arrived| arrived >= self.started)
            }),
        }
    }

    /// Goes to the keyframe at `index`, and decides whether what follows it can be sent in time.
    fn enter(&mut self, now: Timestamp, spatial: u8, index: u64, cache: &Cache, link: Link) {
        if let Some(place) = self.place.filter(|place| place.spatial == spatial) {
            self.frames_skipped += index.saturating_sub(place.next);
        }
        let reached = arrived(cache, index).unwrap_or(now);
        self.starts_fresh = false;
        self.place = Some(Place { spatial, next: index, temporal_max: self.temporal_max, reached });
        let in_time = u128::from(link.rate) * CATCH_UP_MAX.as_millis() / 1000;
        self.mode = if index + 1 == cache.end() {
            Mode::Live
        } else if cache.bytes_from(index) as u128 <= in_time {
            Mode::CatchUp { until: now + CATCH_UP_MAX }
        } else {
            Mode::KeyframeOnly
        };
    }

    /// Goes on at a newer keyframe, or stops until there is one.
    fn fall_behind(&mut self, now: Timestamp, cache: &Cache, link: Link) {
        let Some(place) = self.place else { return };
        match cache.keyframe_newest().filter(|&index| index >= place.next) {
            Some(index) => self.enter(now, place.spatial, index, cache, link),
            None => {
                self.frames_skipped += cache.end() - place.next;
                self.place = Some(Place { next: cache.end(), ..place });
                self.mode = Mode::AwaitKeyframe { since: now, slow: true };
            }
        }
    }

    /// Whether nobody misses what is `here`: it is above the rate to be sent, or late or cut and needed by no other frame.
    fn skips(&self, here: &Here<'_>, place: Place, behind: Duration) -> Option<Skip> {
        if here.decodes_alone {
            return None;
        }
        let FrameHeader { temporal, discardable, .. } = *here.header;
        if temporal > place.temporal_max.min(self.temporal_max) {
            let is_cut = self.cut.layers && temporal <= self.wish.temporal_max;
            return Some(if is_cut { Skip::Layer } else { Skip::Slow });
        }
        if discardable && self.cut.discardable {
            return Some(Skip::Discardable);
        }
        (discardable && behind > LATENESS_DISCARDABLE_MAX).then_some(Skip::Slow)
    }

    /// Moves past what is `here`.
    fn pass(&mut self, place: Place, here: &Here<'_>, sent: bool) {
        let temporal_max =
            if here.decodes_alone { self.temporal_max } else { place.temporal_max.min(self.temporal_max) };
        let reached = if sent { here.arrived } else { place.reached };
        self.place = Some(Place { next: place.next + 1, temporal_max, reached, ..place });
    }

    fn ask(&mut self, now: Timestamp, spatial: u8, since: Timestamp, slow: bool) {
        if slow {
            let last = self.keyframe_asked_for_slowness;
            if last.is_some_and(|last| now.saturating_since(last) < SLOW_KEYFRAME_INTERVAL_MIN) {
                return;
            }
            self.keyframe_asked_for_slowness = Some(now);
        }
        self.need = Some(KeyframeNeed { spatial, since });
    }
}

impl<'a> Here<'a> {
    fn whole(entry: &'a Entry) -> Self {
        let (header, bytes) = (entry.frame.header(), entry.frame.object().len());
        let Entry { frame, arrived, decodes_alone } = entry;
        Here { header, bytes, arrived: *arrived, decodes_alone: *decodes_alone, frame: Some(frame) }
    }

    fn growing(growing: &'a Growing) -> Self {
        let Growing { since, decodes_alone, .. } = *growing;
        Here { header: growing.header(), bytes: growing.length(), arrived: since, decodes_alone, frame: None }
    }
}

/// When the frame at `index` came, if it is here.
fn arrived(cache: &Cache, index: u64) -> Option<Timestamp> {
    cache.get(index)?.frame().map(|entry| entry.arrived)
}
