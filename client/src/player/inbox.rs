//! The frames of one player that wait for their reader: a queue bounded in frames and bytes.
//!
//! A reader that is too slow skips to a keyframe and is told how much it missed; it never holds up the
//! connection. The order is the one in which the transport gave the frames.

use std::collections::VecDeque;

use parlor_transport::wire::control::{TrackInfo, TrackKind};
use parlor_transport::wire::frame::{OBJECT_MAX, TRACKS_MAX};

use super::ReceivedFrame;

/// The bounds of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Frames of all tracks.
    pub frames: usize,
    /// Payload bytes of all tracks.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // 2 s of sound in 20 ms frames and pictures at 30 frames/s; two frames of the largest size.
        Limits { frames: 160, bytes: 2 * OBJECT_MAX }
    }
}

/// One track's state.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    /// Waiting for a keyframe.
    skipping: bool,
    /// Frames left out since the last one given.
    missed: u64,
}

/// Frames waiting for a reader.
#[derive(Debug)]
pub struct Inbox {
    limits: Limits,
    queue: VecDeque<ReceivedFrame>,
    bytes: usize,
    tracks: [Track; TRACKS_MAX as usize],
    /// What each track carries, once known: sound and data need no keyframes.
    video: [bool; TRACKS_MAX as usize],
    skipped: u64,
    closed: bool,
}

impl Inbox {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Inbox {
            limits,
            queue: VecDeque::new(),
            bytes: 0,
            tracks: Default::default(),
            video: [true; TRACKS_MAX as usize],
            skipped: 0,
            closed: false,
        }
    }

    /// The stream that is played began (anew) with these tracks.
    pub fn started(&mut self, tracks: &[TrackInfo]) {
        for (is_video, track) in self.video.iter_mut().zip(tracks) {
            *is_video = track.kind == TrackKind::Video;
        }
        self.tracks = Default::default();
    }

    /// No more frames will come. What waits can still be taken.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether no more frames will come; what waits can still be taken.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Adds a frame. `Some(track)` when the reader was too slow and the track now needs a keyframe.
    pub fn push(&mut self, mut frame: ReceivedFrame) -> Option<u8> {
        if self.closed {
            return None;
        }
        let number = frame.header.track;
        let at = usize::from(number);
        if self.tracks[at].skipping && !frame.header.keyframe {
            self.skip(&frame);
            return None;
        }
        frame.missed += std::mem::take(&mut self.tracks[at].missed);
        self.tracks[at].skipping = false;
        self.bytes += frame.payload.len();
        self.queue.push_back(frame);
        if self.fits() {
            return None;
        }
        self.skip_to_keyframes();
        while !self.fits() {
            self.skip_oldest();
        }
        self.tracks[at].skipping.then_some(number)
    }

    /// The next frame for the reader.
    pub fn pop(&mut self) -> Option<ReceivedFrame> {
        let mut frame = self.queue.pop_front()?;
        self.bytes -= frame.payload.len();
        if !self.tracks[usize::from(frame.header.track)].skipping {
            frame.missed += std::mem::take(&mut self.tracks[usize::from(frame.header.track)].missed);
        }
        Some(frame)
    }

    /// Frames waiting.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Frames left out because the reader was too slow.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn fits(&self) -> bool {
        self.queue.len() <= self.limits.frames && self.bytes <= self.limits.bytes
    }

    fn skip(&mut self, frame: &ReceivedFrame) {
        // What the transport missed before this frame is missed too.
        self.tracks[usize::from(frame.header.track)].missed += 1 + frame.missed;
        self.skipped += 1;
    }

    /// Leaves out, of each video track, what waits before its newest keyframe.
    fn skip_to_keyframes(&mut self) {
        let mut newest = [None; TRACKS_MAX as usize];
        for (at, frame) in self.queue.iter().enumerate() {
            if frame.header.keyframe && self.video[usize::from(frame.header.track)] {
                newest[usize::from(frame.header.track)] = Some(at);
            }
        }
        let queue = std::mem::take(&mut self.queue);
        for (at, mut frame) in queue.into_iter().enumerate() {
            let track = usize::from(frame.header.track);
            if newest[track].is_some_and(|keyframe| at < keyframe) {
                self.bytes -= frame.payload.len();
                self.skip(&frame);
            } else {
                frame.missed += std::mem::take(&mut self.tracks[track].missed);
                self.queue.push_back(frame);
            }
        }
    }

    /// Leaves out the oldest frame; a video track then has to wait for a keyframe that is not there yet.
    fn skip_oldest(&mut self) {
        let Some(oldest) = self.queue.pop_front() else { return };
        self.bytes -= oldest.payload.len();
        self.skip(&oldest);
        let number = oldest.header.track;
        let track = usize::from(number);
        if !self.video[track] {
            self.pass_on_missed(number);
            return;
        }
        let queue = std::mem::take(&mut self.queue);
        for frame in queue {
            if frame.header.track == number && !frame.header.keyframe && !self.has_kept(number) {
                self.bytes -= frame.payload.len();
                self.skip(&frame);
            } else {
                self.queue.push_back(frame);
            }
        }
        if self.has_kept(number) {
            self.pass_on_missed(number);
        } else {
            self.tracks[track].skipping = true;
        }
    }

    fn has_kept(&self, track: u8) -> bool {
        self.queue.iter().any(|frame| frame.header.track == track)
    }

    /// Counts what was left out on the next frame of the track, if one waits.
    fn pass_on_missed(&mut self, track: u8) {
        if let Some(next) = self.queue.iter_mut().find(|frame| frame.header.track == track) {
            next.missed += std::mem::take(&mut self.tracks[usize::from(track)].missed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use parlor_transport::id::StreamAlias;
    use parlor_transport::units::Timestamp;
    use parlor_transport::wire::frame::FrameHeader;
    use proptest::prelude::*;

    const AUDIO: u8 = 0;
    const VIDEO: u8 = 1;

    fn frame(track: u8, number: u64, keyframe: bool, size: usize) -> ReceivedFrame {
        let header = FrameHeader {
            alias: StreamAlias(1),
            track,
            spatial: 0,
            temporal: 0,
            number,
            captured: Timestamp::ZERO,
            keyframe: keyframe || track == AUDIO,
            discardable: false,
            level: None,
            metadata: Bytes::new(),
        };
        let payload = vec![0; size].into();
        ReceivedFrame { header, payload, missed: 0, arrived: Timestamp::ZERO, captured: Timestamp::ZERO }
    }

    fn inbox(limits: Limits) -> Inbox {
        let track = |kind| TrackInfo { kind, codec: "x".into(), spatial_layers: 1, temporal_layers: 1 };
        let mut inbox = Inbox::new(limits);
        inbox.started(&[track(TrackKind::Audio), track(TrackKind::Video)]);
        inbox
    }

    #[test]
    fn a_slow_reader_skips_to_the_keyframe_that_waits() {
        let mut inbox = inbox(Limits { frames: 4, bytes: 1000 });
        for (number, keyframe) in [(0, true), (1, false), (2, true), (3, false), (4, false)] {
            assert_eq!(inbox.push(frame(VIDEO, number, keyframe, 1)), None);
        }
        let got: Vec<_> = std::iter::from_fn(|| inbox.pop()).map(|f| (f.header.number, f.missed)).collect();
        assert_eq!(got, [(2, 2), (3, 0), (4, 0)]);
        assert_eq!(inbox.skipped(), 2);
    }

    #[test]
    fn without_a_keyframe_it_waits_for_one_and_asks_once() {
        let mut inbox = inbox(Limits { frames: 3, bytes: 1000 });
        let asked: Vec<_> = (0..6).map(|n| inbox.push(frame(VIDEO, n, n == 0, 1))).collect();
        assert_eq!(asked, [None, None, None, Some(VIDEO), None, None]);
        assert_eq!(inbox.push(frame(AUDIO, 0, true, 1)), None);
        assert_eq!(inbox.push(frame(VIDEO, 6, true, 1)), None);
        assert_eq!(inbox.pop().unwrap().header.track, AUDIO);
        let key = inbox.pop().unwrap();
        assert_eq!((key.header.number, key.missed), (6, 6));
    }

    #[test]
    fn after_the_end_only_what_waits_is_given() {
        let mut inbox = inbox(Limits::default());
        inbox.push(frame(AUDIO, 0, true, 1));
        inbox.close();
        inbox.push(frame(AUDIO, 1, true, 1));
        assert!(inbox.pop().is_some() && inbox.pop().is_none() && inbox.is_closed());
    }

    proptest! {
        /// The bounds hold; numbers rise; a video frame given decodes (keyframe, or nothing missed before it);
        /// and missed frames plus given frames are all frames.
        #[test]
        fn every_frame_is_given_or_counted(
            steps in prop::collection::vec((0u8..3, any::<bool>(), 0usize..400), 1..300),
        ) {
            let limits = Limits { frames: 6, bytes: 900 };
            let mut inbox = inbox(limits);
            let mut next = [0u64; 2];
            let mut accounted = [0u64; 2];
            for (what, keyframe, size) in steps {
                if what < 2 {
                    let number = next[usize::from(what)];
                    next[usize::from(what)] += 1;
                    inbox.push(frame(what, number, keyframe && size % 4 == 0 || number == 0, size));
                } else if let Some(frame) = inbox.pop() {
                    let at = usize::from(frame.header.track);
                    prop_assert_eq!(frame.header.number, accounted[at] + frame.missed);
                    prop_assert!(frame.header.keyframe || frame.missed == 0);
                    accounted[at] = frame.header.number + 1;
                }
                prop_assert!(inbox.fits());
                prop_assert_eq!(inbox.bytes, inbox.queue.iter().map(|f| f.payload.len()).sum::<usize>());
            }
        }
    }
}
