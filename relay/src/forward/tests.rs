//! Cursors on caches: what a player gets decodes, comes in time, and stays within the bounds.

mod cuts;
mod growing;
mod layers;
mod model;
mod order;
mod players;
mod voices;

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use parlor_transport::error::Code;
use parlor_transport::id::{SessionId, StreamAlias, StreamId, UserId};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{Delivery, StreamInfo, TrackInfo, TrackKind};
use parlor_transport::wire::frame::{Frame, FrameHeader};

use super::cursor::{Link, Step};
use super::publication::{Play, Publication};
use super::voices::Voices;
use crate::limits::Limits;

const ALIAS: StreamAlias = StreamAlias(7);
const NONE: [u64; 0] = [];
const FAST: Link = Link { rate: 10_000_000, rtt: Duration::from_millis(50), is_heard: true };
const SLOW: Link = Link { rate: 10_000, ..FAST };

fn at(ms: u64) -> Timestamp {
    Timestamp::from_micros(ms * 1000)
}

fn track(kind: TrackKind, spatial_layers: u8, temporal_layers: u8) -> TrackInfo {
    TrackInfo { kind, codec: String::new(), spatial_layers, temporal_layers }
}

fn publication(tracks: Vec<TrackInfo>) -> Arc<Publication> {
    let info = StreamInfo {
        stream: StreamId::new("cam").unwrap(),
        user: UserId::new("u1").unwrap(),
        tracks,
        delivery: Delivery::QuicStream,
    };
    let limits = Limits::default();
    Arc::new(Publication::new(ALIAS, info, &limits, &Voices::new(&limits)))
}

fn header(number: u64, keyframe: bool) -> FrameHeader {
    FrameHeader {
        alias: ALIAS,
        track: 0,
        spatial: 0,
        temporal: 0,
        number,
        captured: Timestamp::ZERO,
        keyframe,
        discardable: false,
        level: None,
        metadata: Bytes::new(),
    }
}

fn frame(header: FrameHeader, size: usize) -> Frame {
    Frame::new(header, &vec![0; size]).unwrap()
}

/// A publication of one video track that gets a frame of 1,000 bytes every 33 ms.
struct Camera {
    publication: Arc<Publication>,
    number: u64,
    ms: u64,
}

impl Camera {
    fn new() -> Self {
        Camera { publication: publication(vec![track(TrackKind::Video, 1, 1)]), number: 0, ms: 0 }
    }

    fn now(&self) -> Timestamp {
        at(self.ms)
    }

    fn shoot(&mut self, keyframe: bool) {
        self.ms += 33;
        let frame = frame(header(self.number, keyframe), 1000);
        self.publication.push(self.now(), 0, frame, 0).unwrap();
        self.number += 1;
    }

    fn shoot_group(&mut self, deltas: usize) {
        self.shoot(true);
        (0..deltas).for_each(|_| self.shoot(false));
    }

    fn play(&self, session: u64) -> Play {
        let key = (SessionId(session), 1);
        Play::new(self.now(), self.publication.clone(), key, &[], Waker::noop().clone())
    }

    /// The numbers of all frames that `play` gets now without a bound on bytes.
    fn drain(&self, play: &mut Play, link: Link) -> Vec<u64> {
        drain(play, self.now(), link)
    }

    fn asked(&self) -> usize {
        self.publication.poll_keyframes(self.now()).0.len()
    }
}

fn drain(play: &mut Play, now: Timestamp, link: Link) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Step::Send(frame) = play.next(now, 0, link, |_| true) {
        numbers.push(frame.header().number);
    }
    numbers
}

fn drain_layers(play: &mut Play, now: Timestamp) -> Vec<(u8, u64)> {
    let mut frames = Vec::new();
    while let Step::Send(frame) = play.next(now, 0, FAST, |_| true) {
        frames.push((frame.header().spatial, frame.header().number));
    }
    frames
}

#[test]
fn frames_that_do_not_fit_are_refused_and_change_nothing() {
    let camera = publication(vec![track(TrackKind::Video, 1, 1), track(TrackKind::Audio, 1, 1)]);
    camera.push(at(0), 0, frame(header(5, true), 10), 0).unwrap();
    for (lane_track, wrong) in [
        (0, FrameHeader { alias: StreamAlias(8), ..header(6, true) }),
        (1, header(6, true)),
        (2, FrameHeader { track: 2, ..header(6, true) }),
        (0, FrameHeader { spatial: 1, ..header(6, true) }),
        (0, FrameHeader { temporal: 1, ..header(6, true) }),
        (0, header(5, true)),
        (0, header(4, true)),
    ] {
        let refusal = camera.push(at(1), lane_track, frame(wrong, 10), 0).unwrap_err();
        assert_eq!(refusal.code, Code::BadFrame);
        assert!(refusal.text.starts_with("a frame does not fit stream \"cam\": "), "{refusal}");
    }
    let mut play = Play::new(at(1), camera.clone(), (SessionId(1), 1), &[], Waker::noop().clone());
    assert_eq!(drain(&mut play, at(1), FAST), [5]);
}
