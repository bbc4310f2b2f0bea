//! Cursors on caches: what a player gets decodes, comes in time, and stays within the bounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use parlor_transport::error::Code;
use parlor_transport::id::{SessionId, StreamAlias, StreamId, UserId};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{Delivery, StreamInfo, TrackInfo, TrackKind, TrackWish};
use parlor_transport::wire::frame::{Frame, FrameHeader};
use proptest::prelude::*;

use super::cursor::{Link, Step};
use super::publication::{KeyframeDue, Play, Publication};
use crate::limits::{Limits, OLD_GROUP_AGE_MAX};

const ALIAS: StreamAlias = StreamAlias(7);
const NONE: [u64; 0] = [];
const FAST: Link = Link { rate: 10_000_000, rtt: Duration::from_millis(50) };
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
    Arc::new(Publication::new(ALIAS, info, &Limits::default()))
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

#[test]
fn a_late_joiner_on_a_fast_link_gets_the_newest_group_at_once() {
    let mut camera = Camera::new();
    camera.shoot_group(9);
    camera.shoot_group(60);
    let mut play = camera.play(1);
    assert_eq!(camera.drain(&mut play, FAST), (10..71).collect::<Vec<_>>());
    assert_eq!(camera.asked(), 0);
    camera.shoot(false);
    assert_eq!(camera.drain(&mut play, FAST), [71]);
    assert_eq!(play.frames_sent(0), 62);
}

#[test]
fn a_late_joiner_on_a_slow_link_gets_the_keyframe_and_then_a_fresh_one() {
    let mut camera = Camera::new();
    camera.shoot_group(60);
    let mut play = camera.play(1);
    assert_eq!(camera.drain(&mut play, SLOW), [0]);
    assert_eq!(camera.asked(), 1, "a fresh keyframe is asked for");
    camera.shoot(false);
    assert_eq!(camera.drain(&mut play, SLOW), NONE, "what does not decode is not sent");
    assert_eq!(camera.asked(), 0, "once");
    camera.shoot(true);
    camera.shoot(false);
    assert_eq!(camera.drain(&mut play, SLOW), [62, 63]);
}

#[test]
fn a_late_joiner_asks_for_a_keyframe_when_none_is_kept() {
    let mut camera = Camera::new();
    camera.shoot_group(150);
    let mut play = camera.play(1);
    assert_eq!(camera.drain(&mut play, FAST), NONE, "the keyframe is older than 4 s");
    assert_eq!(camera.asked(), 1);
    camera.shoot(true);
    assert_eq!(camera.drain(&mut play, FAST), [151]);
}

#[test]
fn a_slow_player_skips_to_a_keyframe_and_others_get_everything() {
    let mut camera = Camera::new();
    camera.shoot_group(0);
    let (mut slow, mut fast) = (camera.play(1), camera.play(2));
    assert_eq!(camera.drain(&mut slow, FAST), [0]);
    let mut delivered = camera.drain(&mut fast, FAST);
    for number in 1..=30 {
        camera.shoot(false);
        delivered.extend(camera.drain(&mut fast, FAST));
        let step = slow.next(camera.now(), 0, SLOW, |_| false);
        let stuck = number >= 17;
        assert_eq!(matches!(step, Step::Blocked), !stuck, "frame {number}: stops when 500 ms behind");
    }
    assert_eq!(camera.asked(), 1);
    assert_eq!(camera.drain(&mut slow, SLOW), NONE, "nothing that does not decode");
    camera.shoot(true);
    camera.shoot(false);
    delivered.extend(camera.drain(&mut fast, FAST));
    assert_eq!(camera.drain(&mut slow, SLOW), [31, 32]);
    assert_eq!(delivered, (0..=32).collect::<Vec<_>>());
    assert_eq!(slow.frames_sent(0), 3, "hop sequences count what was sent");
}

#[test]
fn slowness_asks_for_a_keyframe_at_most_every_two_seconds() {
    let mut camera = Camera::new();
    camera.shoot_group(0);
    let mut play = camera.play(1);
    camera.drain(&mut play, FAST);
    // A minute of a link that takes nothing, and of a publisher that makes no keyframe.
    let asked: usize = (0..1818)
        .map(|_| {
            camera.shoot(false);
            let _ = play.next(camera.now(), 0, SLOW, |_| false);
            camera.asked()
        })
        .sum();
    assert!((28..=30).contains(&asked), "one in 2 s: {asked}");
}

#[test]
fn discardable_frames_are_skipped_when_late_and_only_then() {
    let mut camera = Camera::new();
    camera.shoot(true);
    let mut play = camera.play(1);
    camera.drain(&mut play, FAST);
    for discardable in [true, false].repeat(4) {
        camera.ms += 33;
        let header = FrameHeader { discardable, ..header(camera.number, false) };
        camera.publication.push(camera.now(), 0, frame(header, 100), 0).unwrap();
        camera.number += 1;
    }
    assert_eq!(camera.drain(&mut play, FAST), [2, 4, 5, 6, 7, 8]);
}

#[test]
fn after_a_loss_nothing_is_passed_on_until_a_keyframe_which_is_asked_for() {
    let mut camera = Camera::new();
    camera.shoot_group(2);
    let mut play = camera.play(1);
    camera.drain(&mut play, FAST);
    camera.publication.push(camera.now(), 0, frame(header(4, false), 100), 1).unwrap();
    assert_eq!(camera.drain(&mut play, FAST), NONE);
    assert_eq!(camera.asked(), 1);
    camera.number = 5;
    camera.shoot(false);
    assert_eq!(camera.drain(&mut play, FAST), NONE);
    camera.shoot(true);
    assert_eq!(camera.drain(&mut play, FAST), [6]);
}

#[test]
fn a_number_that_was_never_sent_is_not_a_loss() {
    let mut camera = Camera::new();
    camera.shoot_group(2);
    camera.number += 1;
    camera.shoot(false);
    assert_eq!(camera.drain(&mut camera.play(1), FAST), [0, 1, 2, 4]);
}

#[test]
fn a_stuck_decoder_gets_a_keyframe_next_unless_one_is_on_its_way() {
    let mut camera = Camera::new();
    camera.shoot_group(0);
    let mut play = camera.play(1);
    camera.drain(&mut play, FAST);
    play.decoder_stuck(camera.now() + Duration::from_millis(20), 0, FAST);
    camera.shoot(false);
    assert_eq!(camera.drain(&mut play, FAST), [1], "the keyframe left within the last round trip");
    camera.shoot(false);
    play.decoder_stuck(camera.now(), 0, FAST);
    assert_eq!(camera.drain(&mut play, FAST), NONE);
    assert_eq!(camera.asked(), 1);
    camera.shoot(true);
    assert_eq!(camera.drain(&mut play, FAST), [3]);
}

#[test]
fn sound_starts_at_the_newest_frame_and_jumps_when_late() {
    let publication = publication(vec![track(TrackKind::Audio, 1, 1)]);
    let push = |number| {
        publication.push(at(number * 20), 0, frame(header(number, true), 80), 0).unwrap();
    };
    (0..10).for_each(push);
    let mut play = Play::new(at(180), publication.clone(), (SessionId(1), 1), &[], Waker::noop().clone());
    assert_eq!(drain(&mut play, at(180), FAST), [9]);
    (10..14).for_each(push);
    assert_eq!(drain(&mut play, at(260), FAST), [10, 11, 12, 13]);
    (14..50).for_each(push);
    assert_eq!(drain(&mut play, at(980), FAST), [49]);
    assert!(publication.poll_keyframes(at(980)).0.is_empty(), "sound needs no keyframes");
}

#[test]
fn an_unwanted_track_is_not_sent_and_starts_anew_at_a_keyframe() {
    let mut camera = Camera::new();
    camera.shoot_group(3);
    let mut play = camera.play(1);
    play.set_wishes(camera.now(), &[TrackWish { wanted: false, ..TrackWish::all(0) }]);
    assert_eq!(camera.drain(&mut play, FAST), NONE);
    camera.shoot_group(1);
    play.set_wishes(camera.now(), &[]);
    assert_eq!(camera.drain(&mut play, FAST), [4, 5]);
}

/// Two spatial layers with 30 frames per second each.
struct Simulcast {
    publication: Arc<Publication>,
    numbers: [u64; 2],
}

impl Simulcast {
    fn new() -> Self {
        Simulcast { publication: publication(vec![track(TrackKind::Video, 2, 1)]), numbers: [0; 2] }
    }

    fn shoot(&mut self, now: Timestamp, spatial: u8, keyframe: bool) {
        let number = &mut self.numbers[usize::from(spatial)];
        let header = FrameHeader { spatial, ..header(*number, keyframe) };
        self.publication.push(now, 0, frame(header, 100), 0).unwrap();
        *number += 1;
    }

    fn due(&self, now: Timestamp) -> Vec<KeyframeDue> {
        self.publication.poll_keyframes(now).0
    }
}

fn drain_layers(play: &mut Play, now: Timestamp) -> Vec<(u8, u64)> {
    let mut frames = Vec::new();
    while let Step::Send(frame) = play.next(now, 0, FAST, |_| true) {
        frames.push((frame.header().spatial, frame.header().number));
    }
    frames
}

#[test]
fn layers_change_at_keyframes_which_are_asked_for() {
    let mut stream = Simulcast::new();
    let small = TrackWish { spatial_max: 0, ..TrackWish::all(0) };
    let mut play =
        Play::new(at(0), stream.publication.clone(), (SessionId(1), 1), &[small], Waker::noop().clone());
    for spatial in [0, 1] {
        stream.shoot(at(10), spatial, true);
        stream.shoot(at(43), spatial, false);
    }
    assert_eq!(drain_layers(&mut play, at(43)), [(0, 0), (0, 1)]);

    play.set_wishes(at(50), &[]);
    assert!(drain_layers(&mut play, at(50)).is_empty(), "the larger keyframe is older than what was sent");
    assert_eq!(stream.due(at(50)), [KeyframeDue { track: 0, spatial: 1 }]);
    stream.shoot(at(76), 0, false);
    stream.shoot(at(76), 1, false);
    assert_eq!(drain_layers(&mut play, at(76)), [(0, 2)], "the old layer goes on meanwhile");
    stream.shoot(at(109), 1, true);
    stream.shoot(at(109), 0, false);
    assert_eq!(drain_layers(&mut play, at(109)), [(1, 3)]);

    for ms in (0..3000).step_by(33) {
        stream.shoot(at(142 + ms), 0, ms % 990 == 0);
    }
    assert_eq!(drain_layers(&mut play, at(3112)).first(), Some(&(0, 94)), "a silent layer is left");
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn players_are_woken_by_frames_and_the_publisher_by_the_first_request() {
    let mut camera = Camera::new();
    let [player, publisher] = [Arc::new(Count::default()), Arc::new(Count::default())];
    camera.publication.set_publisher(publisher.clone().into());
    let plays: Vec<_> = (0..3)
        .map(|n| {
            let key = (SessionId(n), 1);
            Play::new(at(0), camera.publication.clone(), key, &[], player.clone().into())
        })
        .collect();
    camera.shoot(false);
    camera.shoot(false);
    assert_eq!(player.0.load(Ordering::Relaxed), 0, "undecodable");
    assert_eq!(publisher.0.load(Ordering::Relaxed), 1);
    assert_eq!(camera.asked(), 1);
    camera.shoot(true);
    assert_eq!(player.0.load(Ordering::Relaxed), 3);
    assert_eq!(camera.publication.players(), 3);
    drop(plays);
    assert_eq!(camera.publication.players(), 0);
    camera.shoot(false);
    assert_eq!(player.0.load(Ordering::Relaxed), 3);
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

#[derive(Clone, Debug)]
enum Act {
    Push { spatial: u8, temporal: u8, keyframe: bool, discardable: bool, size: usize, delivered: bool },
    Pass { ms: u64 },
    Poll { budget: usize, rate: u64 },
    Wish { wanted: bool, spatial_max: u8, temporal_max: u8 },
    Stuck,
}

fn act() -> impl Strategy<Value = Act> {
    let size = prop_oneof![20 => 1..5000usize, 1 => 100_000..700_000usize];
    let push = (0..2u8, 0..3u8, prop::bool::weighted(0.1), any::<bool>(), size, prop::bool::weighted(0.95));
    prop_oneof![
        12 => push.prop_map(|(spatial, temporal, keyframe, discardable, size, delivered)| Act::Push {
            spatial,
            temporal: if keyframe { 0 } else { temporal },
            keyframe,
            discardable: discardable && !keyframe,
            size,
            delivered,
        }),
        8 => (0..120u64).prop_map(|ms| Act::Pass { ms }),
        8 => (0..20_000usize, 0..500_000u64).prop_map(|(budget, rate)| Act::Poll { budget, rate }),
        1 => (prop::bool::weighted(0.8), 0..3u8, 0..4u8)
            .prop_map(|(wanted, spatial_max, temporal_max)| Act::Wish { wanted, spatial_max, temporal_max }),
        1 => Just(Act::Stuck),
    ]
}

/// A decoder that knows what the publisher made: a frame needs the last keyframe of its layer and all
/// frames since that are not discardable and not of a higher temporal layer.
#[derive(Default)]
struct Decoder {
    made: [Vec<(u8, bool, bool)>; 2],
    got: BTreeMap<u8, Vec<u64>>,
    current: Option<u8>,
}

impl Decoder {
    fn take(&mut self, header: &FrameHeader) {
        let FrameHeader { spatial, temporal, number, .. } = *header;
        if header.keyframe {
            self.current = Some(spatial);
            self.got.clear();
        }
        assert_eq!(self.current, Some(spatial), "layers change at a keyframe");
        let got = self.got.entry(spatial).or_default();
        assert!(got.last().is_none_or(|&last| number > last), "in order");
        if !header.keyframe {
            let made = &self.made[usize::from(spatial)][..number as usize];
            let keyframe = made.iter().rposition(|&(_, keyframe, _)| keyframe).expect("after a keyframe");
            for (at, &(other, _, discardable)) in made.iter().enumerate().skip(keyframe) {
                let needed = !discardable && other <= temporal;
                assert!(!needed || got.contains(&(at as u64)), "frame {number} needs frame {at}");
            }
        }
        got.push(number);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_player_gets_only_what_decodes_and_the_bounds_hold(
        acts in prop::collection::vec(act(), 1..300)
    ) {
        let limits = Limits::default();
        let publication = publication(vec![track(TrackKind::Video, 2, 3)]);
        let mut play = Play::new(at(0), publication.clone(), (SessionId(1), 1), &[], Waker::noop().clone());
        let (mut now, mut missed, mut wish) = (at(0), 0, TrackWish::all(0));
        let (mut decoder, mut sent) = (Decoder::default(), 0);
        for act in acts {
            match act {
                Act::Push { spatial, temporal, keyframe, discardable, size, delivered } => {
                    let made = &mut decoder.made[usize::from(spatial)];
                    let header =
                        FrameHeader { spatial, temporal, discardable, ..header(made.len() as u64, keyframe) };
                    made.push((temporal, keyframe, discardable));
                    if delivered {
                        publication.push(now, 0, frame(header, size), missed).unwrap();
                        missed = 0;
                    } else {
                        missed += 1;
                    }
                }
                Act::Pass { ms } => now += Duration::from_millis(ms),
                Act::Poll { budget, rate } => {
                    let mut left = budget;
                    let link = Link { rate, rtt: Duration::from_millis(40) };
                    let admits = |left: &mut usize, size| {
                        let fits = size <= *left;
                        if fits { *left -= size }
                        fits
                    };
                    while let Step::Send(frame) = play.next(now, 0, link, |size| admits(&mut left, size)) {
                        prop_assert!(wish.wanted);
                        let header = frame.header();
                        prop_assert!(header.keyframe || header.temporal <= wish.temporal_max);
                        decoder.take(header);
                        sent += 1;
                    }
                    prop_assert_eq!(play.frames_sent(0), sent);
                }
                Act::Wish { wanted, spatial_max, temporal_max } => {
                    wish = TrackWish { track: 0, wanted, spatial_max, temporal_max };
                    play.set_wishes(now, &[wish]);
                }
                Act::Stuck => play.decoder_stuck(now, 0, FAST),
            }
            prop_assert!(publication.cached_bytes() <= 2 * limits.cache_bytes_max);
        }
        // Whatever the state: with keyframes and room, it goes on.
        play.set_wishes(now, &[]);
        for spatial in [0, 1] {
            now += OLD_GROUP_AGE_MAX;
            let header = FrameHeader { spatial, ..header(decoder.made[usize::from(spatial)].len() as u64, true) };
            publication.push(now, 0, frame(header, 1000), missed).unwrap();
        }
        prop_assert!(drain_layers(&mut play, now).iter().any(|&(spatial, _)| spatial == 1));
    }
}

/// Everything that a player is told now, as (sequence, number of the frame or none if it was given up).
fn deal(play: &mut Play, now: Timestamp, next: &mut u64) -> Vec<(u64, Option<u64>)> {
    let mut dealt = Vec::new();
    loop {
        match play.next(now, 0, FAST, |_| true) {
            Step::Send(frame) => {
                dealt.push((*next, Some(frame.header().number)));
                *next += 1;
            }
            Step::Reserve => *next += 1,
            Step::SendReserved(sequence, frame) => dealt.push((sequence, Some(frame.header().number))),
            Step::GiveUp(sequence) => dealt.push((sequence, None)),
            Step::Blocked | Step::Wait => return dealt,
        }
    }
}

#[test]
fn those_behind_a_late_frame_do_not_wait_for_it() {
    let camera = Camera::new();
    let mut play = camera.play(1);
    let mut next = 0;
    let take = |ms, number| {
        camera.publication.take(at(ms), 0, number, frame(header(number, number == 0), 1000)).unwrap();
    };
    take(0, 0);
    take(40, 2);
    take(80, 3);
    assert_eq!(deal(&mut play, at(80), &mut next), [(0, Some(0)), (2, Some(2)), (3, Some(3))]);
    take(90, 1);
    assert_eq!(deal(&mut play, at(90), &mut next), [(1, Some(1))], "under the sequence kept for it");
    take(95, 1);
    assert_eq!(deal(&mut play, at(95), &mut next), [], "twice is once");
    // The next one never comes: what was sent behind it is of no use, and a keyframe is.
    take(130, 5);
    assert_eq!(deal(&mut play, at(130), &mut next), [(5, Some(5))]);
    assert_eq!(camera.publication.poll_keyframes(at(130)).0.len(), 0);
    camera.publication.give_up(at(200), 0, 4..5).unwrap();
    assert_eq!(deal(&mut play, at(200), &mut next), [(4, None)]);
    assert_eq!(camera.publication.poll_keyframes(at(200)).0.len(), 1);
    take(210, 6);
    assert_eq!(deal(&mut play, at(210), &mut next), [], "it does not decode");
    camera.publication.take(at(250), 0, 7, frame(header(7, true), 1000)).unwrap();
    assert_eq!(deal(&mut play, at(250), &mut next), [(6, Some(7))]);
}

#[test]
fn frames_behind_a_late_keyframe_are_kept_for_it() {
    let camera = Camera::new();
    let mut play = camera.play(1);
    let mut next = 0;
    for number in [1, 2] {
        camera.publication.take(at(number * 33), 0, number, frame(header(number, false), 1000)).unwrap();
    }
    assert_eq!(deal(&mut play, at(70), &mut next), [], "nothing decodes yet");
    camera.publication.take(at(75), 0, 0, frame(header(0, true), 1000)).unwrap();
    assert_eq!(deal(&mut play, at(75), &mut next), [(0, Some(0)), (1, Some(1)), (2, Some(2))]);
}

#[test]
fn a_frame_in_a_place_that_its_number_contradicts_ends_the_publication() {
    let camera = Camera::new();
    camera.publication.take(at(0), 0, 0, frame(header(0, true), 10)).unwrap();
    camera.publication.take(at(1), 0, 2, frame(header(2, false), 10)).unwrap();
    let refusal = camera.publication.take(at(2), 0, 1, frame(header(9, false), 10)).unwrap_err();
    assert_eq!(refusal.code, Code::BadFrame);
}

proptest! {
    /// However frames arrive and whichever are lost: every sequence is dealt once, in it is the frame it was kept
    /// for, and a player that decodes from keyframe to gap sees true pictures only.
    #[test]
    fn every_sequence_is_dealt_once_whatever_the_order_of_arrival(
        order in prop::collection::vec((0u64..12, 0u8..10, 0u64..40), 30..200),
        polls in prop::collection::vec(any::<bool>(), 200),
    ) {
        let camera = Camera::new();
        let mut play = camera.play(1);
        let (mut next, mut now) = (0, 0);
        let mut dealt = BTreeMap::new();
        // Frame n comes `late` frames after its turn, or never.
        let mut comings: Vec<(u64, u64, bool)> = Vec::new();
        for (number, &(late, fate, _)) in (0u64..).zip(&order) {
            comings.push((number + late, number, fate > 0));
        }
        comings.sort_unstable();
        for ((turn, number, comes), poll) in comings.into_iter().zip(polls.iter().cycle()) {
            now = now.max(turn * 33);
            if comes {
                let keyframe = number % 10 == 0;
                camera.publication.take(at(now), 0, number, frame(header(number, keyframe), 100)).unwrap();
            } else {
                camera.publication.give_up(at(now), 0, number..number + 1).unwrap();
            }
            if *poll {
                for (sequence, number) in deal(&mut play, at(now), &mut next) {
                    prop_assert!(dealt.insert(sequence, number).is_none(), "sequence {sequence} twice");
                }
            }
        }
        for (sequence, number) in deal(&mut play, at(now), &mut next) {
            prop_assert!(dealt.insert(sequence, number).is_none(), "sequence {sequence} twice");
        }
        let numbers: Vec<u64> = dealt.values().copied().flatten().collect();
        prop_assert!(numbers.is_sorted_by(|a, b| a < b), "sequences follow numbers: {numbers:?}");
    }
}
