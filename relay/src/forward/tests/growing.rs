//! Frames that go on before they are whole.

use parlor_transport::hop::Piece;
use parlor_transport::repair::SourceBlock;

use super::*;

/// What a player is told: a sequence, and what becomes of it.
#[derive(Debug, PartialEq)]
enum Told {
    Whole(u64, u64),
    Piece(u64, Vec<usize>),
    Gone(u64),
}

fn tell(play: &mut Play, now: Timestamp, next: &mut u64) -> Vec<Told> {
    let mut told = Vec::new();
    loop {
        match play.next(now, 0, FAST, |_| true) {
            Step::Send(frame) => {
                told.push(Told::Whole(*next, frame.header().number));
                *next += 1;
            }
            Step::Reserve => *next += 1,
            Step::SendPiece(sequence, piece) => {
                told.push(Told::Piece(sequence, piece.symbols.iter().map(|(index, _)| *index).collect()));
            }
            Step::SendReserved(sequence, frame) => told.push(Told::Whole(sequence, frame.header().number)),
            Step::GiveUp(sequence) => told.push(Told::Gone(sequence)),
            Step::Blocked | Step::Wait => return told,
        }
    }
}

/// These symbols of a frame.
pub(super) fn piece(frame: &Frame, which: std::ops::Range<usize>) -> Piece {
    let block = SourceBlock::new(frame.object().clone()).unwrap();
    let symbols = which.map(|index| (index, block.symbol(index))).collect();
    Piece { header: frame.header().clone(), shape: block.shape(), symbols }
}

const LARGE: usize = 10_000;

#[test]
fn a_frame_goes_on_as_it_grows_and_those_behind_it_do_not_wait() {
    let camera = Camera::new();
    let (mut play, mut next) = (camera.play(1), 0);
    let publication = &camera.publication;
    publication.take(at(0), 0, 0, frame(header(0, true), 100)).unwrap();
    let keyframe = frame(header(1, true), LARGE);
    publication.grow(at(33), 0, 1, piece(&keyframe, 0..3)).unwrap();
    assert_eq!(tell(&mut play, at(33), &mut next), [Told::Whole(0, 0), Told::Piece(1, vec![0, 1, 2])]);
    assert_eq!(tell(&mut play, at(34), &mut next), [], "nothing twice");
    publication.grow(at(37), 0, 1, piece(&keyframe, 4..6)).unwrap();
    publication.grow(at(41), 0, 1, piece(&keyframe, 6..9)).unwrap();
    publication.take(at(66), 0, 2, frame(header(2, false), 100)).unwrap();
    let told = tell(&mut play, at(66), &mut next);
    assert_eq!(told, [Told::Piece(1, vec![4, 5, 6, 7, 8]), Told::Whole(2, 2)]);
    let before = publication.cached_bytes();
    publication.take(at(90), 0, 1, keyframe.clone()).unwrap();
    assert_eq!(tell(&mut play, at(90), &mut next), [Told::Whole(1, 1)]);
    let symbols = piece(&keyframe, 0..3).symbols.into_iter().chain(piece(&keyframe, 4..9).symbols);
    let held: usize = symbols.map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(publication.cached_bytes(), before - held + keyframe.object().len());
}

#[test]
fn a_frame_that_is_begun_is_finished_or_told_to_be_gone() {
    let camera = Camera::new();
    let (mut play, mut next) = (camera.play(1), 0);
    let publication = &camera.publication;
    publication.take(at(0), 0, 0, frame(header(0, true), 100)).unwrap();
    let delta = frame(header(1, false), LARGE);
    publication.grow(at(33), 0, 1, piece(&delta, 0..3)).unwrap();
    publication.take(at(66), 0, 2, frame(header(2, false), 100)).unwrap();
    assert_eq!(tell(&mut play, at(66), &mut next).len(), 3);
    publication.give_up(at(200), 0, 1..2).unwrap();
    assert_eq!(tell(&mut play, at(200), &mut next), [Told::Gone(1)]);
    assert_eq!(publication.poll_keyframes(at(200)).0.len(), 1, "what follows does not decode");
    publication.grow(at(210), 0, 1, piece(&delta, 3..9)).unwrap();
    publication.take(at(220), 0, 1, delta).unwrap();
    assert_eq!(tell(&mut play, at(220), &mut next), [], "gone is gone");
    // And so it is when the publisher's connection ends, or nobody wants it any more.
    let keyframe = frame(header(3, true), LARGE);
    publication.grow(at(230), 0, 3, piece(&keyframe, 0..3)).unwrap();
    publication.take(at(240), 0, 3, keyframe).unwrap();
    let delta = frame(header(4, false), LARGE);
    publication.grow(at(250), 0, 4, piece(&delta, 0..3)).unwrap();
    assert_eq!(tell(&mut play, at(250), &mut next), [Told::Whole(3, 3), Told::Piece(4, vec![0, 1, 2])]);
    publication.restart(at(260));
    assert_eq!(tell(&mut play, at(260), &mut next), [Told::Gone(4)]);
}

#[test]
fn players_that_start_or_have_no_room_get_whole_frames() {
    let camera = Camera::new();
    let publication = &camera.publication;
    let keyframe = frame(header(0, true), LARGE);
    let (mut play, mut next) = (camera.play(1), 0);
    publication.grow(at(0), 0, 0, piece(&keyframe, 0..3)).unwrap();
    assert_eq!(tell(&mut play, at(0), &mut next), [], "it may still be given up");
    publication.take(at(20), 0, 0, keyframe).unwrap();
    assert_eq!(tell(&mut play, at(20), &mut next), [Told::Whole(0, 0)]);

    let delta = frame(header(1, false), LARGE);
    publication.grow(at(33), 0, 1, piece(&delta, 0..3)).unwrap();
    let mut asked = 0;
    let mut refuse = |bytes| {
        asked = bytes;
        false
    };
    assert!(matches!(play.next(at(33), 0, FAST, &mut refuse), Step::Blocked));
    assert_eq!(asked, delta.object().len(), "room is needed for all of it");
    publication.take(at(50), 0, 1, delta).unwrap();
    assert_eq!(tell(&mut play, at(50), &mut next), [Told::Whole(1, 1)]);
}

#[test]
fn a_frame_that_is_not_what_was_passed_on_of_it_ends_the_publication() {
    let begun = || {
        let camera = Camera::new();
        camera.publication.take(at(0), 0, 0, frame(header(0, true), 100)).unwrap();
        let promised = frame(header(1, false), LARGE);
        camera.publication.grow(at(33), 0, 1, piece(&promised, 0..3)).unwrap();
        camera.publication
    };
    let mut other = vec![0; LARGE];
    other[2000] = 1;
    for lie in [Frame::new(header(1, false), &other).unwrap(), frame(header(1, false), LARGE + 1)] {
        let refusal = begun().take(at(40), 0, 1, lie).unwrap_err();
        assert_eq!(refusal.code, Code::BadFrame);
    }
    let backwards = frame(header(0, false), LARGE);
    let refusal = begun().grow(at(41), 0, 2, piece(&backwards, 0..3)).unwrap_err();
    assert_eq!(refusal.code, Code::BadFrame);
}

#[test]
fn tracks_of_several_layers_take_frames_whole_and_begun_ones_are_bounded() {
    let layered = publication(vec![track(TrackKind::Video, 2, 1)]);
    layered.grow(at(0), 0, 0, piece(&frame(header(0, true), LARGE), 0..3)).unwrap();
    assert_eq!(layered.cached_bytes(), 0);

    let camera = Camera::new();
    camera.publication.take(at(0), 0, 0, frame(header(0, true), 100)).unwrap();
    for number in 1..200 {
        camera.publication.grow(at(1), 0, number, piece(&frame(header(number, false), LARGE), 0..1)).unwrap();
    }
    let one = piece(&frame(header(1, false), LARGE), 0..1).symbols[0].1.len();
    assert_eq!(camera.publication.cached_bytes() / one, 64, "as many as places are kept");
}
