//! What is left out because the machine is too slow: that and nothing else, and it comes back.

use parlor_transport::wire::control::TrackWish;

use super::super::cursor::{Cut, CutFrames};
use super::super::publication::KeyframeDue;
use super::*;

const LAYERS: Cut = Cut { layers: true, discardable: false, video: false };
const DISCARDABLE: Cut = Cut { layers: false, discardable: true, video: false };
const VIDEO: Cut = Cut { layers: false, discardable: false, video: true };

/// Two spatial layers; of four frames the second and fourth are of temporal layer 1, the fourth is discardable.
struct Studio {
    publication: Arc<Publication>,
    number: u64,
}

impl Studio {
    fn new(spatial_layers: u8) -> Self {
        Studio { publication: publication(vec![track(TrackKind::Video, spatial_layers, 2)]), number: 0 }
    }

    fn now(&self) -> Timestamp {
        at(33 * self.number)
    }

    fn shoot(&mut self, keyframe: bool) {
        self.number += 1;
        let (number, now) = (self.number - 1, self.now());
        let header = FrameHeader {
            temporal: if keyframe { 0 } else { (number % 2) as u8 },
            discardable: !keyframe && number % 4 == 3,
            ..header(number, keyframe)
        };
        for spatial in 0..self.publication.info().tracks[0].spatial_layers {
            self.publication.push(now, 0, frame(FrameHeader { spatial, ..header.clone() }, 100), 0).unwrap();
        }
    }

    fn play(&self, wishes: &[TrackWish]) -> Play {
        Play::new(self.now(), self.publication.clone(), (SessionId(1), 1), wishes, Waker::noop().clone())
    }

    fn drain(&self, play: &mut Play) -> Vec<(u8, u64)> {
        drain_layers(play, self.now())
    }

    fn due(&self) -> Vec<KeyframeDue> {
        self.publication.poll_keyframes(self.now()).0
    }
}

#[test]
fn the_higher_rate_goes_at_once_and_comes_back_with_a_keyframe_that_is_asked_for() {
    let mut studio = Studio::new(1);
    studio.shoot(true);
    let mut play = studio.play(&[]);
    play.set_cut(studio.now(), LAYERS);
    (0..7).for_each(|_| studio.shoot(false));
    assert_eq!(studio.drain(&mut play), [(0, 0), (0, 2), (0, 4), (0, 6)]);
    assert_eq!(play.take_cut_frames(0), CutFrames { layers: 4, ..CutFrames::default() });
    assert_eq!((play.frames_skipped(0), studio.due()), (0, vec![]));
    play.set_cut(studio.now(), Cut::default());
    studio.shoot(false);
    studio.shoot(false);
    assert_eq!(studio.drain(&mut play), [(0, 8)], "it would not decode");
    assert_eq!(studio.due(), [KeyframeDue { track: 0, spatial: 0 }]);
    studio.shoot(true);
    studio.shoot(false);
    assert_eq!(studio.drain(&mut play), [(0, 10), (0, 11)]);
}

#[test]
fn the_largest_size_goes_at_a_keyframe_and_comes_back_at_one() {
    let mut studio = Studio::new(2);
    studio.shoot(true);
    let mut play = studio.play(&[]);
    studio.shoot(false);
    assert_eq!(studio.drain(&mut play), [(1, 0), (1, 1)]);
    play.set_cut(studio.now(), LAYERS);
    studio.shoot(false);
    studio.shoot(false);
    assert_eq!(studio.drain(&mut play), [(1, 2)], "until the smaller one decodes");
    assert_eq!(studio.due(), [KeyframeDue { track: 0, spatial: 0 }]);
    studio.shoot(true);
    studio.shoot(false);
    studio.shoot(false);
    assert_eq!(studio.drain(&mut play), [(0, 4), (0, 6)]);
    // 3 and 5 of the higher rate, 4 and 6 in the smaller size.
    assert_eq!(play.take_cut_frames(0).layers, 4);
    play.set_cut(studio.now(), Cut::default());
    studio.shoot(true);
    assert_eq!(studio.drain(&mut play), [(1, 7)]);
    assert_eq!(play.take_cut_frames(0), CutFrames::default());
}

#[test]
fn who_gets_no_highest_layer_keeps_what_it_has_and_the_last_layer_is_kept_by_all() {
    let mut studio = Studio::new(2);
    studio.shoot(true);
    let small = TrackWish { spatial_max: 0, temporal_max: 0, ..TrackWish::all(0) };
    let mut play = studio.play(&[small]);
    play.set_cut(studio.now(), LAYERS);
    (0..3).for_each(|_| studio.shoot(false));
    assert_eq!(studio.drain(&mut play), [(0, 0), (0, 2)]);
    assert_eq!((play.take_cut_frames(0), play.frames_skipped(0)), (CutFrames::default(), 2));
    // Only the larger one is sent.
    let studio = Studio::new(2);
    let header = FrameHeader { spatial: 1, ..header(0, true) };
    studio.publication.push(at(0), 0, frame(header, 100), 0).unwrap();
    let mut play = studio.play(&[]);
    play.set_cut(at(0), LAYERS);
    assert_eq!(studio.drain(&mut play), [(1, 0)]);
    assert_eq!(play.take_cut_frames(0), CutFrames::default());
}

#[test]
fn discardable_frames_go_and_come_back_at_once() {
    let mut studio = Studio::new(1);
    studio.shoot(true);
    let mut play = studio.play(&[]);
    play.set_cut(studio.now(), DISCARDABLE);
    (0..8).for_each(|_| studio.shoot(false));
    assert_eq!(studio.drain(&mut play), [0, 1, 2, 4, 5, 6, 8].map(|number| (0, number)));
    assert_eq!(play.take_cut_frames(0), CutFrames { discardable: 2, ..CutFrames::default() });
    play.set_cut(studio.now(), Cut::default());
    (0..3).for_each(|_| studio.shoot(false));
    assert_eq!(studio.drain(&mut play), [9, 10, 11].map(|number| (0, number)));
    assert_eq!((studio.due(), play.frames_skipped(0)), (vec![], 0));
}

#[test]
fn video_that_is_withheld_is_counted_and_comes_back_at_a_keyframe() {
    let mut studio = Studio::new(2);
    studio.shoot(true);
    let mut play = studio.play(&[]);
    assert_eq!(studio.drain(&mut play), [(1, 0)]);
    play.set_cut(studio.now(), VIDEO);
    assert_eq!(studio.drain(&mut play), []);
    for _ in 0..200 {
        studio.shoot(false);
        assert_eq!(studio.drain(&mut play), []);
    }
    assert_eq!(play.take_cut_frames(0), CutFrames { video: 200, ..CutFrames::default() });
    play.decoder_stuck(studio.now(), 0, FAST);
    assert_eq!(studio.due(), []);
    studio.shoot(true);
    (0..9).for_each(|_| studio.shoot(false));
    assert_eq!(studio.drain(&mut play), []);
    studio.shoot(false);
    play.set_cut(studio.now() + Duration::from_millis(1), Cut::default());
    studio.shoot(false);
    assert_eq!(studio.drain(&mut play), [], "what was withheld is not made up for");
    assert_eq!(studio.due(), [KeyframeDue { track: 0, spatial: 1 }]);
    studio.shoot(true);
    assert_eq!(studio.drain(&mut play), [(1, 213)]);
}

#[test]
fn sound_and_data_are_never_cut() {
    let tracks =
        vec![track(TrackKind::Audio, 1, 2), track(TrackKind::Data, 1, 2), track(TrackKind::Video, 1, 2)];
    let publication = publication(tracks);
    let mut play = Play::new(at(0), publication.clone(), (SessionId(1), 1), &[], Waker::noop().clone());
    play.set_cut(at(0), Cut { layers: true, discardable: true, video: true });
    for number in 0..10 {
        for track in 0..3 {
            let header = FrameHeader {
                track,
                temporal: (number % 2) as u8,
                discardable: true,
                ..header(number, true)
            };
            publication.push(at(number), track, frame(header, 10), 0).unwrap();
        }
        for track in 0..3 {
            let step = play.next(at(number), track, FAST, |_| true);
            assert_eq!(matches!(step, Step::Send(_)), track < 2, "{step:?}");
        }
    }
    assert_eq!((play.take_cut_frames(0), play.take_cut_frames(1).video), (CutFrames::default(), 0));
    assert_eq!(play.video_wished(), Some(at(0)));
    play.set_wishes(at(7), &[TrackWish { wanted: false, ..TrackWish::all(2) }]);
    assert_eq!(play.video_wished(), None);
    play.set_wishes(at(8), &[]);
    assert_eq!(play.video_wished(), Some(at(8)));
}

#[test]
fn for_who_does_not_take_anything_nobody_is_asked_for_keyframes() {
    let mut studio = Studio::new(1);
    studio.shoot(true);
    let mut play = studio.play(&[]);
    let deaf = Link { is_heard: false, ..SLOW };
    for _ in 0..300 {
        studio.shoot(false);
        assert!(!matches!(play.next(studio.now(), 0, deaf, |_| false), Step::Send(_)));
        assert_eq!(studio.due(), []);
    }
    // It is back.
    for _ in 0..90 {
        studio.shoot(false);
        assert_eq!(studio.drain(&mut play), []);
        if !studio.due().is_empty() {
            studio.shoot(true);
            assert_eq!(studio.drain(&mut play), [(0, studio.number - 1)]);
            return;
        }
    }
    panic!("no keyframe was asked for");
}
