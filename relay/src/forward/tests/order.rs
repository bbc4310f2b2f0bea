//! Frames that come out of order, late or never.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::growing::piece;
use super::*;
use crate::forward::publication::Inlet;

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
            Step::SendPiece(..) => {}
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
            let keyframe = number % 10 == 0;
            // Of every other frame a part comes first, be it given up or not.
            let of = frame(header(number, keyframe), 3000);
            if order[number as usize].2 % 2 == 0 {
                camera.publication.grow(at(now), 0, number, piece(&of, 0..2)).unwrap();
                if *poll {
                    for (sequence, number) in deal(&mut play, at(now), &mut next) {
                        prop_assert!(dealt.insert(sequence, number).is_none(), "sequence {sequence} twice");
                    }
                }
            }
            if comes {
                camera.publication.take(at(now), 0, number, of).unwrap();
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

#[test]
fn what_comes_late_on_a_connection_of_the_past_changes_nothing() {
    let camera = Camera::new();
    let mut play = camera.play(1);
    let mut next = 0;
    let before = Inlet::new(camera.publication.clone());
    before.take(at(0), 0, 0, frame(header(0, true), 1000)).unwrap();
    before.take(at(40), 0, 1, frame(header(1, false), 1000)).unwrap();
    camera.publication.restart(at(50));
    before.take(at(60), 0, 900, frame(header(2, false), 1000)).unwrap();
    before.give_up(at(60), 0, 2..5_000).unwrap();
    let after = Inlet::new(camera.publication.clone());
    after.take(at(80), 0, 0, frame(header(3, true), 1000)).unwrap();
    assert_eq!(deal(&mut play, at(80), &mut next), [(0, Some(3))], "a player begins at the newest keyframe");
}
