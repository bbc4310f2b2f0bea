//! A published stream at the relay: its tracks' caches, who plays it, and which keyframes are due.
//!
//! Shared between the publisher's connection and its players' connections, under a lock of its
//! own that is held for one frame at a time and never across an await.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use parlor_transport::error::{Code, Refusal};
use parlor_transport::hop::Piece;
use parlor_transport::id::{SessionId, StreamAlias};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{Speaker, StreamInfo, TrackKind, TrackWish};
use parlor_transport::wire::frame::{Frame, FrameHeader};

use super::cache::Taken;
use super::cursor::{Cursor, Cut, CutFrames, Link, Step};
use super::intake::{Deed, Intake};
use super::keyframe::KeyframeGate;
use super::layer::Track;
use super::voices::Voices;
use crate::limits::Limits;
use crate::lock;
use crate::speaker::VoiceId;

/// See the module's text.
#[derive(Debug)]
pub struct Publication {
    alias: StreamAlias,
    info: StreamInfo,
    limits: Limits,
    /// Those of its room, and for each track which of them it is; only sound has one.
    voices: Arc<Voices>,
    voice_of: Vec<Option<VoiceId>>,
    media: Mutex<Media>,
}

/// Names one play: the player's session and the lane it chose.
pub type PlayKey = (SessionId, u32);

/// A keyframe to be asked of the publisher.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KeyframeDue {
    /// The track.
    pub track: u8,
    /// The spatial layer.
    pub spatial: u8,
}

#[derive(Debug)]
struct Media {
    tracks: Vec<Track>,
    gates: BTreeMap<KeyframeDue, KeyframeGate>,
    players: BTreeMap<PlayKey, Waker>,
    /// The players' wakers, to be woken outside the lock; `None` after the players changed.
    wakers: Option<Arc<[Waker]>>,
    publisher: Option<Waker>,
    /// Counts the connections that its frames came on.
    generation: u64,
}

/// Where the frames of one connection come in; what comes late, after the publication goes on with another connection, is
/// not looked at.
#[derive(Clone, Debug)]
pub struct Inlet {
    publication: Arc<Publication>,
    generation: u64,
}

impl Inlet {
    /// For the connection that the publication's frames come on from now on.
    pub fn new(publication: Arc<Publication>) -> Self {
        let generation = lock(&publication.media).generation;
        Inlet { publication, generation }
    }

    /// Where they go.
    pub fn publication(&self) -> &Publication {
        &self.publication
    }

    /// As [`Publication::take`]. False if the frame was left out because other voices are heard.
    ///
    /// # Errors
    /// The same.
    pub fn take(&self, now: Timestamp, track: u8, sequence: u64, frame: Frame) -> Result<bool, Refusal> {
        self.publication.take_of(now, track, Some(self.generation), sequence, frame)
    }

    /// As [`Publication::grow`].
    ///
    /// # Errors
    /// The same.
    pub fn grow(&self, now: Timestamp, track: u8, sequence: u64, piece: Piece) -> Result<(), Refusal> {
        self.publication.grow_of(now, track, Some(self.generation), sequence, piece)
    }

    /// As [`Publication::give_up`].
    ///
    /// # Errors
    /// The same.
    pub fn give_up(&self, now: Timestamp, track: u8, sequences: Range<u64>) -> Result<(), Refusal> {
        self.publication.give_up_of(now, track, Some(self.generation), sequences)
    }
}

impl Publication {
    /// A publication without frames, in a room with these voices. `info.tracks` was checked.
    pub fn new(alias: StreamAlias, info: StreamInfo, limits: &Limits, voices: &Arc<Voices>) -> Self {
        let add_voice = || voices.add(Speaker { stream: info.stream.clone(), user: info.user.clone() });
        let is_sound = |kind| kind == TrackKind::Audio;
        let voice_of = info.tracks.iter().map(|track| is_sound(track.kind).then(add_voice)).collect();
        let tracks = info.tracks.iter().map(|track| Track::new(track, limits)).collect();
        let media = Media {
            tracks,
            gates: BTreeMap::new(),
            players: BTreeMap::new(),
            wakers: None,
            publisher: None,
            generation: 0,
        };
        let (limits, voices) = (limits.clone(), voices.clone());
        Publication { alias, info, limits, voices, voice_of, media: Mutex::new(media) }
    }

    /// What its frame headers say.
    pub fn alias(&self) -> StreamAlias {
        self.alias
    }

    /// The stream as everyone sees it.
    pub fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// Takes the frame of `track` that has this sequence on the publisher's hop. Frames may come in any order.
    ///
    /// # Errors
    /// [`Code::BadFrame`] when it does not fit the publication; the publisher broke its own word.
    pub fn take(&self, now: Timestamp, track: u8, sequence: u64, frame: Frame) -> Result<(), Refusal> {
        self.take_of(now, track, None, sequence, frame).map(drop)
    }

    fn take_of(
        &self,
        now: Timestamp,
        track: u8,
        generation: Option<u64>,
        sequence: u64,
        frame: Frame,
    ) -> Result<bool, Refusal> {
        self.check(track, frame.header())?;
        let is_heard = self.is_heard(now, frame.header());
        self.change(now, track, generation, is_heard, |intake| intake.take(sequence, frame))?;
        Ok(is_heard)
    }

    /// Takes more of the frame of `track` that has this sequence on the publisher's hop. Once it is whole it is
    /// [taken](Self::take), or it is [given up](Self::give_up).
    ///
    /// # Errors
    /// As [`Publication::take`].
    pub fn grow(&self, now: Timestamp, track: u8, sequence: u64, piece: Piece) -> Result<(), Refusal> {
        self.grow_of(now, track, None, sequence, piece)
    }

    fn grow_of(
        &self,
        now: Timestamp,
        track: u8,
        generation: Option<u64>,
        sequence: u64,
        piece: Piece,
    ) -> Result<(), Refusal> {
        self.check(track, &piece.header)?;
        let is_heard = self.is_heard(now, &piece.header);
        self.change(now, track, generation, is_heard, |intake| intake.grow(sequence, piece))
    }

    /// Whether the room hears this frame: the voices know by its level. All else is always passed on.
    fn is_heard(&self, now: Timestamp, header: &FrameHeader) -> bool {
        let voice = self.voice_of.get(usize::from(header.track)).copied().flatten();
        let (Some(voice), Some(level)) = (voice, header.level) else { return true };
        self.voices.hear(now, voice, level)
    }

    /// The publisher's hop gave up the frames of `track` that have these sequences.
    ///
    /// # Errors
    /// As [`Publication::take`], for frames that waited for them.
    pub fn give_up(&self, now: Timestamp, track: u8, sequences: Range<u64>) -> Result<(), Refusal> {
        self.give_up_of(now, track, None, sequences)
    }

    fn give_up_of(
        &self,
        now: Timestamp,
        track: u8,
        generation: Option<u64>,
        sequences: Range<u64>,
    ) -> Result<(), Refusal> {
        if usize::from(track) >= self.info.tracks.len() {
            return Ok(());
        }
        self.change(now, track, generation, true, |intake| intake.give_up(sequences))
    }

    /// It is published no more: its voices make room for others.
    pub fn end(&self) {
        self.voice_of.iter().flatten().for_each(|&voice| self.voices.remove(voice));
    }

    /// Its frames come on another connection from now on; those under way on the one before are lost.
    pub fn restart(&self, now: Timestamp) {
        lock(&self.media).generation += 1;
        for track in 0..self.info.tracks.len() as u8 {
            // Losing frames refuses nothing.
            _ = self.change(now, track, None, true, Intake::restart);
        }
    }

    /// Does what the intake of `track` says, and wakes whom it concerns; nothing for a connection of the past. What is
    /// not heard takes no place in the cache, so that players neither see it nor miss it; places that they were
    /// promised before are filled.
    fn change(
        &self,
        now: Timestamp,
        track: u8,
        generation: Option<u64>,
        is_heard: bool,
        change: impl FnOnce(&mut Intake) -> Vec<Deed>,
    ) -> Result<(), Refusal> {
        let (mut changed, mut publisher, mut refused) = (false, None, None);
        let wakers = {
            let mut media = lock(&self.media);
            if generation.is_some_and(|generation| generation != media.generation) {
                return Ok(());
            }
            let deeds = change(&mut media.tracks[usize::from(track)].intake);
            let deeds = deeds.into_iter().filter(|deed| is_heard || !deed.takes_place());
            for deed in deeds {
                match media.carry_out(now, track, deed) {
                    Carried::Out => changed = true,
                    Carried::Lost(due) => {
                        changed = true;
                        publisher = media.request_if_played(&self.limits, due, now).or(publisher);
                    }
                    Carried::Undecodable(due) => {
                        publisher = media.request_if_played(&self.limits, due, now).or(publisher);
                    }
                    Carried::Refused(number, why) => refused = Some((number, why)),
                }
            }
            let Media { players, wakers, .. } = &mut *media;
            changed.then(|| wakers.get_or_insert_with(|| players.values().cloned().collect()).clone())
        };
        wakers.iter().flat_map(|wakers| wakers.iter()).for_each(Waker::wake_by_ref);
        if let Some(publisher) = publisher {
            publisher.wake();
        }
        match refused {
            Some((number, why)) => Err(self.bad(format!("frame {number} of track {track} {why}"))),
            None => Ok(()),
        }
    }

    /// Takes frames in order; `missed` of the track were given up before this one.
    #[cfg(test)]
    pub(super) fn push(&self, now: Timestamp, track: u8, frame: Frame, missed: u64) -> Result<(), Refusal> {
        self.check(track, frame.header())?;
        let next = lock(&self.media).tracks[usize::from(track)].intake.next();
        self.give_up(now, track, next..next + missed)?;
        self.take(now, track, next + missed, frame)
    }

    fn check(&self, track: u8, header: &FrameHeader) -> Result<(), Refusal> {
        if header.alias != self.alias {
            return Err(self.bad(format!("its frames carry alias {}, not {}", self.alias.0, header.alias.0)));
        }
        if header.track != track {
            return Err(self.bad(format!("a frame of track {} came as track {track}", header.track)));
        }
        let Some(info) = self.info.tracks.get(usize::from(track)) else {
            return Err(self.bad(format!("it has {} tracks, so no track {track}", self.info.tracks.len())));
        };
        if header.spatial >= info.spatial_layers || header.temporal >= info.temporal_layers {
            return Err(self.bad(format!(
                "track {track} has {} spatial and {} temporal layers, so no layer {}/{}",
                info.spatial_layers, info.temporal_layers, header.spatial, header.temporal
            )));
        }
        Ok(())
    }

    fn bad(&self, why: String) -> Refusal {
        let stream = &self.info.stream;
        Refusal::new(
            Code::BadFrame,
            format!("a frame does not fit stream {stream:?}: {why}; publish it anew"),
        )
    }

    /// Whom to wake when a keyframe is due.
    pub fn set_publisher(&self, waker: Waker) {
        lock(&self.media).publisher = Some(waker);
    }

    /// Keyframes to be asked of the publisher now, and when to look again.
    pub fn poll_keyframes(&self, now: Timestamp) -> (Vec<KeyframeDue>, Option<Timestamp>) {
        let mut media = lock(&self.media);
        let due = media.gates.iter_mut().filter_map(|(due, gate)| gate.poll(now).then_some(*due)).collect();
        (due, media.gates.values().filter_map(KeyframeGate::poll_timeout).min())
    }

    /// How many play it.
    pub fn players(&self) -> usize {
        lock(&self.media).players.len()
    }

    /// Bytes of frames kept.
    pub fn cached_bytes(&self) -> usize {
        let media = lock(&self.media);
        let layers =
            media.tracks.iter().flat_map(|track| (0..track.spatial_layers()).map(|s| track.layer(s)));
        layers.map(|layer| layer.bytes()).sum()
    }
}

/// What came of a [`Deed`].
enum Carried {
    Out,
    /// Players see a gap, and nothing decodes behind it without this keyframe.
    Lost(KeyframeDue),
    /// It was not kept, because it does not decode without this keyframe.
    Undecodable(KeyframeDue),
    /// A frame with this number cannot be, and why.
    Refused(u64, &'static str),
}

impl Media {
    fn carry_out(&mut self, now: Timestamp, track: u8, deed: Deed) -> Carried {
        let slot = &mut self.tracks[usize::from(track)];
        let is_video = slot.kind() == TrackKind::Video;
        let decodes_alone = |header: &FrameHeader| header.keyframe || !is_video;
        let is_whole = !matches!(deed, Deed::Begin { .. } | Deed::Grow { .. });
        let (header, taken) = match deed {
            Deed::Open(sequence) => {
                let index = slot.layer_mut(0).open(now);
                slot.intake.opened(sequence, index);
                return Carried::Out;
            }
            Deed::Lose { index } => {
                let is_lacking = slot.layer_mut(0).lose(index) && is_video;
                let due = KeyframeDue { track, spatial: 0 };
                return if is_lacking { Carried::Lost(due) } else { Carried::Out };
            }
            Deed::Push { frame, lost } => {
                let (header, lost) = (frame.header().clone(), slot.doubt(frame.header().spatial, lost));
                let layer = slot.layer_mut(header.spatial);
                let taken = layer.push(now, frame, decodes_alone(&header), lost);
                (header, taken)
            }
            Deed::Fill { frame, index } => {
                let header = frame.header().clone();
                let taken = slot.layer_mut(header.spatial).fill(now, index, frame, decodes_alone(&header));
                (header, taken)
            }
            Deed::Begin { sequence, piece, lost } => {
                let (header, lost) = (piece.header.clone(), slot.doubt(0, lost));
                let taken = slot.layer_mut(0).begin(now, piece, decodes_alone(&header), lost);
                if taken == Taken::Kept {
                    let index = slot.layer(0).end() - 1;
                    slot.intake.opened(sequence, index);
                }
                (header, taken)
            }
            Deed::Grow { index, piece } => {
                let header = piece.header.clone();
                let taken = slot.layer_mut(0).grow(now, index, piece, decodes_alone(&header));
                (header, taken)
            }
        };
        let due = KeyframeDue { track, spatial: header.spatial };
        match taken {
            Taken::Kept => {
                if is_whole
                    && decodes_alone(&header)
                    && let Some(gate) = self.gates.get_mut(&due)
                {
                    gate.keyframe_arrived(now);
                }
                Carried::Out
            }
            Taken::Undecodable => Carried::Undecodable(due),
            Taken::OutOfOrder => Carried::Refused(header.number, "has a number of another place"),
            Taken::Contradictory => Carried::Refused(header.number, "is not what was sent of it before"),
        }
    }

    fn request_if_played(&mut self, limits: &Limits, due: KeyframeDue, now: Timestamp) -> Option<Waker> {
        if self.players.is_empty() { None } else { self.request(limits, due, now) }
    }

    /// Asks for a keyframe; gives the publisher's waker if it has to hear of it.
    fn request(&mut self, limits: &Limits, due: KeyframeDue, since: Timestamp) -> Option<Waker> {
        let interval = limits.keyframe_interval_min;
        let gate = self.gates.entry(due).or_insert_with(|| KeyframeGate::new(interval));
        if gate.request(since) { self.publisher.clone() } else { None }
    }
}

/// One player's way through a publication: a cursor for each track. Ends its part in it when dropped.
#[derive(Debug)]
pub struct Play {
    publication: Arc<Publication>,
    key: PlayKey,
    cursors: Vec<Cursor>,
    /// When the player said last what it wants.
    wished: Timestamp,
}

impl Play {
    /// Begins to play; `waker` is woken at every frame.
    pub fn new(
        now: Timestamp,
        publication: Arc<Publication>,
        key: PlayKey,
        wishes: &[TrackWish],
        waker: Waker,
    ) -> Self {
        let tracks = publication.info.tracks.len() as u8;
        let cursors = (0..tracks).map(|track| Cursor::new(now, wish_for(track, wishes))).collect();
        {
            let mut media = lock(&publication.media);
            media.players.insert(key, waker);
            media.wakers = None;
        }
        Play { publication, key, cursors, wished: now }
    }

    /// What is played.
    pub fn publication(&self) -> &Publication {
        &self.publication
    }

    /// Changes what the player wants.
    pub fn set_wishes(&mut self, now: Timestamp, wishes: &[TrackWish]) {
        self.wished = now;
        for (track, cursor) in (0u8..).zip(&mut self.cursors) {
            cursor.set_wish(now, wish_for(track, wishes));
        }
    }

    /// When the player said last that it wants video of this; `None` if it wants none.
    pub fn video_wished(&self) -> Option<Timestamp> {
        let is_wanted =
            |(track, cursor): (u8, &Cursor)| self.kind(track) == TrackKind::Video && cursor.wish().wanted;
        (0u8..).zip(&self.cursors).any(is_wanted).then_some(self.wished)
    }

    /// Leaves out this of its video from now on.
    pub fn set_cut(&mut self, now: Timestamp, cut: Cut) {
        for (track, cursor) in self.publication.info.tracks.iter().zip(&mut self.cursors) {
            if track.kind == TrackKind::Video {
                cursor.set_cut(now, cut);
            }
        }
    }

    /// Frames of `track` left out for the cut since this was asked last.
    ///
    /// # Panics
    /// When there is no such track.
    pub fn take_cut_frames(&mut self, track: u8) -> CutFrames {
        self.cursors[usize::from(track)].take_cut_frames()
    }

    /// The player's decoder cannot go on without a keyframe of `track`; unknown tracks have none.
    pub fn decoder_stuck(&mut self, now: Timestamp, track: u8, link: Link) {
        if let Some(cursor) = self.cursors.get_mut(usize::from(track)) {
            cursor.decoder_stuck(now, link);
        }
    }

    /// What `track` carries.
    ///
    /// # Panics
    /// When there is no such track.
    pub fn kind(&self, track: u8) -> TrackKind {
        self.publication.info.tracks[usize::from(track)].kind
    }

    /// The next step for `track`, as [`Cursor::next`] has it.
    ///
    /// # Panics
    /// When there is no such track.
    pub fn next(&mut self, now: Timestamp, track: u8, link: Link, admits: impl FnMut(usize) -> bool) -> Step {
        let cursor = &mut self.cursors[usize::from(track)];
        let mut media = lock(&self.publication.media);
        let slot = &mut media.tracks[usize::from(track)];
        slot.evict(now);
        let step = cursor.next(now, slot, link, admits);
        let publisher = cursor.take_need().filter(|_| link.is_heard).and_then(|need| {
            let due = KeyframeDue { track, spatial: need.spatial };
            media.request(&self.publication.limits, due, need.since)
        });
        drop(media);
        if let Some(publisher) = publisher {
            publisher.wake();
        }
        step
    }

    /// Frames of `track` left out so far, because the player was too slow for them or did not want them.
    ///
    /// # Panics
    /// When there is no such track.
    pub fn frames_skipped(&self, track: u8) -> u64 {
        self.cursors[usize::from(track)].frames_skipped()
    }

    /// Frames of `track` handed out so far.
    ///
    /// # Panics
    /// When there is no such track.
    pub fn frames_sent(&self, track: u8) -> u64 {
        self.cursors[usize::from(track)].frames_sent()
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        let mut media = lock(&self.publication.media);
        media.players.remove(&self.key);
        media.wakers = None;
    }
}

/// The last wish for `track` counts; without one everything is wanted.
fn wish_for(track: u8, wishes: &[TrackWish]) -> TrackWish {
    wishes.iter().rev().find(|wish| wish.track == track).copied().unwrap_or(TrackWish::all(track))
}
