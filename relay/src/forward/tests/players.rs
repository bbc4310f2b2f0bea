//! One video or sound track: late joiners, slow players, losses, wishes, and who is woken.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use parlor_transport::wire::control::TrackWish;

use super::*;

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
