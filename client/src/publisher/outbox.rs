//! The frames of one publication on their way out: a queue bounded in bytes, frames and age.
//!
//! It never blocks: a frame is queued, or dropped whole and the reason given. Sound goes before pictures.
//! Where a frame that others need was dropped, nothing of its layer is taken before the next keyframe, and
//! that keyframe is asked for. How frames travel is the transport's business.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use parlor_transport::id::StreamAlias;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{TrackInfo, TrackKind};
use parlor_transport::wire::frame::{Frame, FrameHeader, LAYERS_MAX, METADATA_MAX, OBJECT_MAX};

use super::{DropReason, EncodedFrame, KeyframeRequest, SendOutcome};

/// The most that a frame's header takes beside the metadata: flags, track, layers, four varints, level.
const HEADER_MAX: usize = 40;

/// The bounds of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Payload bytes of pictures and data.
    pub bytes: usize,
    /// Picture and data frames.
    pub frames: usize,
    /// Audio frames.
    pub audio_frames: usize,
    /// How long a frame may wait.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // One frame of the largest size always fits, and 500 ms at 16 Mbit/s.
            bytes: OBJECT_MAX,
            // 500 ms of three simulcast layers at 30 frames/s.
            frames: 45,
            // 500 ms of 20 ms frames.
            audio_frames: 25,
            // What is older would be skipped by the relay's subscribers anyway.
            age: Duration::from_millis(500),
        }
    }
}

/// What became of the frames handed in so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SendCounts {
    /// Frames given to the network.
    pub sent: u64,
    /// Payload bytes given to the network.
    pub sent_bytes: u64,
    /// Frames dropped, by [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl SendCounts {
    /// Frames dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Frames dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

/// One track's layer.
#[derive(Clone, Copy, Debug, Default)]
struct Layer {
    /// The number of the next frame to leave.
    next: u64,
    /// A frame that later ones need was dropped.
    broken: bool,
}

#[derive(Debug)]
struct Track {
    kind: TrackKind,
    spatial_layers: u8,
    temporal_layers: u8,
    muted: bool,
    layers: [Layer; LAYERS_MAX as usize],
}

#[derive(Debug)]
struct Queued {
    at: Timestamp,
    frame: EncodedFrame,
}

/// The outgoing frames of one publication.
///
/// ```
/// use parlor_client::publisher::{DropReason, EncodedFrame, SendOutcome, outbox::{Limits, Outbox}};
/// use parlor_transport::{id::StreamAlias, units::Timestamp};
/// use parlor_transport::wire::control::{TrackInfo, TrackKind};
///
/// let video = TrackInfo { kind: TrackKind::Video, codec: "x".into(), spatial_layers: 1, temporal_layers: 1 };
/// let mut outbox = Outbox::new(&[video], Limits::default());
/// let now = Timestamp::ZERO;
/// let frame = || EncodedFrame::new(0, now, &b"picture"[..]);
/// assert_eq!(outbox.offer(now, frame()), SendOutcome::Dropped(DropReason::NotPublishing));
///
/// outbox.open(StreamAlias(7));
/// assert_eq!(outbox.take_keyframe_requests().len(), 1); // a stream begins with a keyframe
/// assert_eq!(outbox.offer(now, frame()), SendOutcome::Dropped(DropReason::AwaitingKeyframe));
/// assert_eq!(outbox.offer(now, frame().keyframe()), SendOutcome::Queued);
/// let sent = outbox.take(now, |captured| captured).unwrap();
/// assert_eq!((sent.header().number, sent.header().alias), (0, StreamAlias(7)));
/// ```
#[derive(Debug)]
pub struct Outbox {
    limits: Limits,
    tracks: Vec<Track>,
    alias: Option<StreamAlias>,
    audio: VecDeque<Queued>,
    rest: VecDeque<Queued>,
    /// Payload bytes in `rest`.
    rest_bytes: usize,
    /// At most one for each track and layer.
    wanted: BTreeSet<KeyframeRequest>,
    counts: SendCounts,
}

impl Outbox {
    /// The queue of a publication with these tracks, closed until the relay took the stream.
    pub fn new(tracks: &[TrackInfo], limits: Limits) -> Self {
        let track = |info: &TrackInfo| Track {
            kind: info.kind,
            spatial_layers: info.spatial_layers,
            temporal_layers: info.temporal_layers,
            muted: false,
            layers: [Layer { next: 0, broken: info.kind == TrackKind::Video }; LAYERS_MAX as usize],
        };
        Outbox {
            limits,
            tracks: tracks.iter().map(track).collect(),
            alias: None,
            audio: VecDeque::new(),
            rest: VecDeque::new(),
            rest_bytes: 0,
            wanted: BTreeSet::new(),
            counts: SendCounts::default(),
        }
    }

    /// The relay took the stream: frames may come, beginning with a keyframe of each video layer.
    pub fn open(&mut self, alias: StreamAlias) {
        self.alias = Some(alias);
        for (number, track) in (0..).zip(&self.tracks) {
            if track.kind == TrackKind::Video {
                self.wanted.extend(
                    (0..track.spatial_layers).map(|spatial| KeyframeRequest { track: number, spatial }),
                );
            }
        }
    }

    /// The publication ended: what is queued goes nowhere.
    pub fn close(&mut self) {
        self.alias = None;
        self.audio.clear();
        self.rest.clear();
        self.rest_bytes = 0;
        self.wanted.clear();
        // Should it be opened again, then as at first: with a keyframe.
        for track in &mut self.tracks {
            track.layers.iter_mut().for_each(|layer| layer.broken = track.kind == TrackKind::Video);
        }
    }

    /// Sends nothing of `track` while `muted`. A video track goes on with a keyframe afterwards.
    /// Tracks that were not published are ignored.
    pub fn set_muted(&mut self, track: u8, muted: bool) {
        let Some(state) = self.tracks.get_mut(usize::from(track)) else { return };
        if std::mem::replace(&mut state.muted, muted) == muted || muted || state.kind != TrackKind::Video {
            return;
        }
        for spatial in 0..state.spatial_layers {
            self.tracks[usize::from(track)].layers[usize::from(spatial)].broken = true;
            self.want(track, spatial);
        }
    }

    /// Takes a frame, or says why not.
    pub fn offer(&mut self, now: Timestamp, frame: EncodedFrame) -> SendOutcome {
        self.expire(now);
        match self.try_offer(now, frame) {
            Ok(()) => SendOutcome::Queued,
            Err(reason) => {
                self.counts.dropped[reason as usize] += 1;
                SendOutcome::Dropped(reason)
            }
        }
    }

    fn try_offer(&mut self, now: Timestamp, mut frame: EncodedFrame) -> Result<(), DropReason> {
        if self.alias.is_none() {
            return Err(DropReason::NotPublishing);
        }
        let track = self.tracks.get(usize::from(frame.track)).ok_or(DropReason::BadFrame)?;
        if frame.spatial >= track.spatial_layers || frame.temporal >= track.temporal_layers {
            return Err(DropReason::BadFrame);
        }
        if track.muted {
            return Err(DropReason::Muted);
        }
        let size = frame.payload.len() + frame.metadata.len();
        if size + HEADER_MAX > OBJECT_MAX || frame.metadata.len() > METADATA_MAX {
            self.breaks(&frame);
            return Err(DropReason::TooLarge);
        }
        match track.kind {
            TrackKind::Audio => {
                frame.keyframe = true;
                // The newest sound matters: the oldest makes room.
                if self.audio.len() >= self.limits.audio_frames {
                    self.audio.pop_front();
                    self.counts.dropped[DropReason::Congested as usize] += 1;
                }
                self.audio.push_back(Queued { at: now, frame });
                return Ok(());
            }
            TrackKind::Data => frame.keyframe = true,
            TrackKind::Video if frame.keyframe => self.mend(&frame),
            TrackKind::Video => {
                if track.layers[usize::from(frame.spatial)].broken {
                    self.want(frame.track, frame.spatial);
                    return Err(DropReason::AwaitingKeyframe);
                }
            }
        }
        if self.rest.len() >= self.limits.frames || self.rest_bytes + size > self.limits.bytes {
            self.breaks(&frame);
            return Err(DropReason::Congested);
        }
        self.rest_bytes += size;
        self.rest.push_back(Queued { at: now, frame });
        Ok(())
    }

    /// A keyframe came: its layer is whole again, and if the queue is full what waits before it is not needed.
    fn mend(&mut self, key: &EncodedFrame) {
        let layer = (key.track, key.spatial);
        self.tracks[usize::from(key.track)].layers[usize::from(key.spatial)].broken = false;
        self.wanted.remove(&KeyframeRequest { track: key.track, spatial: key.spatial });
        let size = key.payload.len() + key.metadata.len();
        if self.rest.len() >= self.limits.frames || self.rest_bytes + size > self.limits.bytes {
            self.drop_rest(DropReason::Congested, |frame| (frame.track, frame.spatial) == layer);
        }
    }

    /// `frame` is not going out: nothing of its layer decodes until a keyframe does.
    fn breaks(&mut self, frame: &EncodedFrame) {
        let track = &mut self.tracks[usize::from(frame.track)];
        if track.kind == TrackKind::Video && !frame.discardable {
            track.layers[usize::from(frame.spatial)].broken = true;
            self.want(frame.track, frame.spatial);
        }
    }

    fn want(&mut self, track: u8, spatial: u8) {
        self.wanted.insert(KeyframeRequest { track, spatial });
    }

    /// Drops what has waited too long, and what cannot be decoded without it.
    fn expire(&mut self, now: Timestamp) {
        let limit = self.limits.age;
        while self.audio.front().is_some_and(|queued| now.saturating_since(queued.at) > limit) {
            self.audio.pop_front();
            self.counts.dropped[DropReason::Late as usize] += 1;
        }
        while self.rest.front().is_some_and(|queued| now.saturating_since(queued.at) > limit) {
            let late = self.rest.pop_front().expect("the line above saw it").frame;
            self.rest_bytes -= late.payload.len() + late.metadata.len();
            self.counts.dropped[DropReason::Late as usize] += 1;
            self.cut_layer(&late);
        }
    }

    /// After `lost` nothing of its layer decodes up to the next keyframe in the queue, or the next to come.
    fn cut_layer(&mut self, lost: &EncodedFrame) {
        let is_video = self.tracks[usize::from(lost.track)].kind == TrackKind::Video;
        if !is_video || lost.discardable {
            return;
        }
        let layer = (lost.track, lost.spatial);
        let mut mended = false;
        self.drop_rest(DropReason::AwaitingKeyframe, |frame| {
            let same = (frame.track, frame.spatial) == layer;
            mended |= same && frame.keyframe;
            same && !mended
        });
        if !mended {
            self.breaks(lost);
        }
    }

    fn drop_rest(&mut self, reason: DropReason, mut dropped: impl FnMut(&EncodedFrame) -> bool) {
        let (counts, bytes) = (&mut self.counts, &mut self.rest_bytes);
        self.rest.retain(|queued| {
            let drop = dropped(&queued.frame);
            if drop {
                counts.dropped[reason as usize] += 1;
                *bytes -= queued.frame.payload.len() + queued.frame.metadata.len();
            }
            !drop
        });
    }

    /// Size in bytes and urgency (sound) of what [`take`](Self::take) would give; `None` when nothing waits.
    pub fn peek(&mut self, now: Timestamp) -> Option<(usize, bool)> {
        self.expire(now);
        let next = self.audio.front().or(self.rest.front())?;
        let size = next.frame.payload.len() + next.frame.metadata.len() + HEADER_MAX;
        Some((size, !self.audio.is_empty()))
    }

    /// When the frame that [`take`](Self::take) would give was queued.
    pub fn waiting_since(&self) -> Option<Timestamp> {
        self.audio.front().or(self.rest.front()).map(|queued| queued.at)
    }

    /// The next frame to send, numbered, its capture time translated by `to_relay`. Sound comes first.
    pub fn take(&mut self, now: Timestamp, to_relay: impl FnOnce(Timestamp) -> Timestamp) -> Option<Frame> {
        self.expire(now);
        let alias = self.alias?;
        let frame = match self.audio.pop_front() {
            Some(queued) => queued.frame,
            None => {
                let frame = self.rest.pop_front()?.frame;
                self.rest_bytes -= frame.payload.len() + frame.metadata.len();
                frame
            }
        };
        let layer = &mut self.tracks[usize::from(frame.track)].layers[usize::from(frame.spatial)];
        let header = FrameHeader {
            alias,
            track: frame.track,
            spatial: frame.spatial,
            temporal: frame.temporal,
            number: layer.next,
            captured: to_relay(frame.captured),
            keyframe: frame.keyframe,
            discardable: frame.discardable,
            level: frame.level,
            metadata: frame.metadata,
        };
        let wire = Frame::new(header, &frame.payload).ok()?;
        layer.next += 1;
        self.counts.sent += 1;
        self.counts.sent_bytes += frame.payload.len() as u64;
        Some(wire)
    }

    /// Somebody at the other end needs a keyframe. Layers that were not published are ignored.
    pub fn request_keyframe(&mut self, request: KeyframeRequest) {
        let known = self.tracks.get(usize::from(request.track));
        if known.is_some_and(|track| track.kind == TrackKind::Video && request.spatial < track.spatial_layers)
        {
            self.wanted.insert(request);
        }
    }

    /// Whether [`take_keyframe_requests`](Self::take_keyframe_requests) has something to give.
    pub fn wants_keyframes(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The keyframes wanted since the last call.
    pub fn take_keyframe_requests(&mut self) -> Vec<KeyframeRequest> {
        std::mem::take(&mut self.wanted).into_iter().collect()
    }

    /// What became of all frames so far.
    pub fn counts(&self) -> SendCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AUDIO: u8 = 0;
    const VIDEO: u8 = 1;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    fn open(limits: Limits) -> Outbox {
        let track = |kind| TrackInfo { kind, codec: "x".into(), spatial_layers: 1, temporal_layers: 2 };
        let mut outbox = Outbox::new(&[track(TrackKind::Audio), track(TrackKind::Video)], limits);
        outbox.open(StreamAlias(1));
        outbox.take_keyframe_requests();
        outbox
    }

    fn frame(track: u8, size: usize) -> EncodedFrame {
        EncodedFrame::new(track, Timestamp::ZERO, vec![0; size])
    }

    fn take(outbox: &mut Outbox, now: Timestamp) -> Option<Frame> {
        outbox.take(now, |captured| captured)
    }

    const KEY: KeyframeRequest = KeyframeRequest { track: VIDEO, spatial: 0 };

    #[test]
    fn sound_goes_before_pictures_and_numbers_have_no_gaps() {
        let mut outbox = open(Limits::default());
        for frame in [frame(VIDEO, 10).keyframe(), frame(VIDEO, 11), frame(AUDIO, 12)] {
            assert_eq!(outbox.offer(at(0), frame), SendOutcome::Queued);
        }
        let order: Vec<_> = std::iter::from_fn(|| take(&mut outbox, at(1)))
            .map(|frame| (frame.header().track, frame.header().number, frame.payload().len()))
            .collect();
        assert_eq!(order, [(AUDIO, 0, 12), (VIDEO, 0, 10), (VIDEO, 1, 11)]);
    }

    #[test]
    fn after_a_dropped_frame_everything_waits_for_a_keyframe_which_is_wanted() {
        let mut outbox = open(Limits { bytes: 2000, ..Limits::default() });
        assert_eq!(outbox.offer(at(0), frame(VIDEO, 900).keyframe()), SendOutcome::Queued);
        assert_eq!(outbox.offer(at(1), frame(VIDEO, 900)), SendOutcome::Queued);
        let discardable = EncodedFrame { discardable: true, temporal: 1, ..frame(VIDEO, 900) };
        assert_eq!(outbox.offer(at(2), discardable), SendOutcome::Dropped(DropReason::Congested));
        assert_eq!(outbox.offer(at(3), frame(VIDEO, 100)), SendOutcome::Queued, "nobody needed it");
        assert!(outbox.take_keyframe_requests().is_empty());

        assert_eq!(outbox.offer(at(4), frame(VIDEO, 900)), SendOutcome::Dropped(DropReason::Congested));
        assert_eq!(outbox.take_keyframe_requests(), [KEY]);
        assert_eq!(outbox.offer(at(5), frame(VIDEO, 1)), SendOutcome::Dropped(DropReason::AwaitingKeyframe));
        // The keyframe takes the place of everything that waits before it.
        assert_eq!(outbox.offer(at(6), frame(VIDEO, 1800).keyframe()), SendOutcome::Queued);
        assert!(outbox.take_keyframe_requests().is_empty(), "it has come");
        let sent = take(&mut outbox, at(7)).unwrap();
        assert!(sent.header().keyframe && sent.header().number == 0);
        assert_eq!(take(&mut outbox, at(7)), None);
        assert_eq!(outbox.counts().dropped(DropReason::Congested), 5);
    }

    #[test]
    fn late_frames_go_with_all_that_needs_them() {
        let mut outbox = open(Limits::default());
        let _ = outbox.offer(at(0), frame(VIDEO, 10).keyframe());
        let _ = outbox.offer(at(0), frame(AUDIO, 1));
        let _ = outbox.offer(at(400), frame(VIDEO, 11));
        let _ = outbox.offer(at(450), frame(VIDEO, 12).keyframe());
        assert_eq!(take(&mut outbox, at(501)).unwrap().payload().len(), 12);
        assert_eq!(outbox.counts().dropped(DropReason::Late), 2);
        assert_eq!(outbox.counts().dropped(DropReason::AwaitingKeyframe), 1);
        assert!(outbox.take_keyframe_requests().is_empty());

        let _ = outbox.offer(at(600), frame(VIDEO, 13));
        assert_eq!(outbox.peek(at(1101)), None);
        assert_eq!(outbox.take_keyframe_requests(), [KEY], "no keyframe was left in the queue");
    }

    #[test]
    fn what_was_not_published_is_refused() {
        let mut outbox = open(Limits::default());
        assert_eq!(outbox.offer(at(0), frame(2, 1)), SendOutcome::Dropped(DropReason::BadFrame));
        let layer = EncodedFrame { spatial: 1, ..frame(VIDEO, 1) };
        assert_eq!(outbox.offer(at(0), layer), SendOutcome::Dropped(DropReason::BadFrame));
        assert_eq!(outbox.offer(at(0), frame(AUDIO, OBJECT_MAX)), SendOutcome::Dropped(DropReason::TooLarge));
        outbox.request_keyframe(KeyframeRequest { track: AUDIO, spatial: 0 });
        outbox.request_keyframe(KeyframeRequest { track: VIDEO, spatial: 3 });
        assert!(outbox.take_keyframe_requests().is_empty());
    }

    #[test]
    fn a_muted_track_sends_nothing_and_comes_back_with_a_keyframe() {
        let mut outbox = open(Limits::default());
        assert_eq!(outbox.offer(at(0), frame(VIDEO, 1).keyframe()), SendOutcome::Queued);
        outbox.set_muted(VIDEO, true);
        outbox.set_muted(9, true);
        assert_eq!(outbox.offer(at(1), frame(VIDEO, 1)), SendOutcome::Dropped(DropReason::Muted));
        outbox.set_muted(VIDEO, false);
        assert_eq!(outbox.take_keyframe_requests(), [KEY]);
        assert_eq!(outbox.offer(at(2), frame(VIDEO, 1)), SendOutcome::Dropped(DropReason::AwaitingKeyframe));
    }

    proptest! {
        /// Whatever is offered and whenever it is taken: the bounds hold, every frame is sent or counted as
        /// dropped, and what is sent decodes (a keyframe first, then every frame that others need).
        #[test]
        fn what_leaves_decodes_and_nothing_is_lost_uncounted(
            steps in prop::collection::vec((0u8..4, 0u64..120, 1usize..600, any::<bool>()), 1..300),
        ) {
            let limits = Limits { bytes: 2000, frames: 5, audio_frames: 3, age: Duration::from_millis(300) };
            let mut outbox = open(limits);
            let (mut now, mut offered) = (at(0), 0u64);
            // Which of the encoder's frames are discardable, and the newest sent that others may need.
            let (mut encoded, mut newest) = (Vec::new(), None);
            for (what, wait, size, flag) in steps {
                now += Duration::from_millis(wait);
                if what == 0 {
                    offered += 1;
                    let _ = outbox.offer(now, frame(AUDIO, size));
                } else if what < 3 {
                    let asked = outbox.take_keyframe_requests().contains(&KEY);
                    let number = (encoded.len() as u32).to_be_bytes();
                    let mut next = EncodedFrame::new(VIDEO, now, [&number[..], &vec![0; size]].concat());
                    next.keyframe = encoded.is_empty() || (asked && flag);
                    next.discardable = !next.keyframe && size % 3 == 0;
                    encoded.push(next.discardable);
                    offered += 1;
                    let _ = outbox.offer(now, next);
                } else if let Some(sent) = take(&mut outbox, now).filter(|sent| sent.header().track == VIDEO) {
                    let number = u32::from_be_bytes(sent.payload()[..4].try_into().unwrap()) as usize;
                    if !sent.header().keyframe {
                        let newest: usize = newest.expect("a keyframe comes first");
                        let missed = &encoded[newest + 1..number];
                        prop_assert!(missed.iter().all(|&discardable| discardable), "{missed:?} missed");
                    }
                    if !sent.header().discardable {
                        newest = Some(number);
                    }
                }
                prop_assert!(outbox.rest.len() <= limits.frames && outbox.audio.len() <= limits.audio_frames);
                let bytes: usize =
                    outbox.rest.iter().map(|q| q.frame.payload.len() + q.frame.metadata.len()).sum();
                prop_assert!(bytes == outbox.rest_bytes && bytes <= limits.bytes);
                let waiting = (outbox.rest.len() + outbox.audio.len()) as u64;
                let counts = outbox.counts();
                prop_assert_eq!(offered, waiting + counts.sent + counts.dropped_total());
            }
        }
    }
}
