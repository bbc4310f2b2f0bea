//! Sound of a room in which not everybody is heard: what is left out leaves no trace.

use parlor_transport::wire::control::Speaker;
use parlor_transport::wire::frame::AudioLevel;

use super::*;
use crate::speaker::VoiceId;

/// A microphone in a room where only one other voice has a place. It sends a frame every 20 ms.
struct Microphone {
    voices: Arc<Voices>,
    publication: Arc<Publication>,
    others: Vec<VoiceId>,
    number: u64,
    ms: u64,
}

impl Microphone {
    fn new() -> Self {
        let limits = Limits { loudest_voices: 1, loudest_voices_above: 2, ..Limits::default() };
        let voices = Voices::new(&limits);
        let stream = StreamId::new("mic").unwrap();
        let user = UserId::new("u1").unwrap();
        let tracks = vec![track(TrackKind::Audio, 1, 1)];
        let info = StreamInfo { stream, user, tracks, delivery: Delivery::Adaptive };
        let publication = Arc::new(Publication::new(ALIAS, info, &limits, &voices));
        let other = |name: &str| {
            let (stream, user) = (StreamId::new(name).unwrap(), UserId::new(name).unwrap());
            voices.add(Speaker { stream, user })
        };
        let others = vec![other("u2"), other("u3")];
        Microphone { voices, publication, others, number: 0, ms: 1000 }
    }

    /// The next frame, which is made and does not arrive.
    fn lose(&mut self) -> (u64, Frame) {
        self.ms += 20;
        self.number += 1;
        self.frame(false)
    }

    fn frame(&self, speech: bool) -> (u64, Frame) {
        let level = AudioLevel { below_full_scale: if speech { 20 } else { 90 }, voice: speech };
        let header = FrameHeader { level: Some(level), ..header(self.number - 1, true) };
        (self.number - 1, frame(header, 60))
    }

    fn send(&mut self, speech: bool) {
        self.lose();
        let (sequence, frame) = self.frame(speech);
        self.publication.take(at(self.ms), 0, sequence, frame).unwrap();
    }

    /// Both others speak for some frames, so that they have the places.
    fn others_speak(&mut self) {
        for _ in 0..50 {
            self.send(false);
            for &other in &self.others {
                self.voices.hear(at(self.ms), other, AudioLevel { below_full_scale: 20, voice: true });
            }
        }
    }

    fn play(&self, session: u64) -> Play {
        let key = (SessionId(session), 1);
        Play::new(at(self.ms), self.publication.clone(), key, &[], Waker::noop().clone())
    }
}

/// What a player gets now: the numbers of the frames. Places that are kept, or given up, would be gaps.
fn heard(microphone: &Microphone, play: &mut Play) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        match play.next(at(microphone.ms), 0, FAST, |_| true) {
            Step::Send(frame) => numbers.push(frame.header().number),
            Step::Wait => return numbers,
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn what_is_not_heard_takes_no_place_and_loses_none() {
    let mut microphone = Microphone::new();
    let mut play = microphone.play(1);
    microphone.send(true);
    assert_eq!(heard(&microphone, &mut play), [0]);
    microphone.others_speak();
    let words = heard(&microphone, &mut play);
    assert!(words.len() < 30, "its place went to somebody else: {words:?}");

    // Some are lost on the way from the publisher, some come late: nobody hears of either.
    let (sequence, late) = microphone.lose();
    microphone.send(false);
    microphone.publication.take(at(microphone.ms), 0, sequence, late).unwrap();
    let (lost, _) = microphone.lose();
    microphone.send(false);
    microphone.publication.give_up(at(microphone.ms), 0, lost..lost + 1).unwrap();
    assert_eq!(heard(&microphone, &mut play), NONE);

    // Minutes later it speaks again: the frame, the first of the word, follows the last one without a gap.
    for _ in 0..3 * 60 * 50 {
        microphone.send(false);
    }
    assert_eq!(heard(&microphone, &mut play), NONE);
    let (sent, skipped) = (play.frames_sent(0), play.frames_skipped(0));
    microphone.send(true);
    assert_eq!(heard(&microphone, &mut play), [microphone.number - 1]);
    assert_eq!((play.frames_sent(0), play.frames_skipped(0)), (sent + 1, skipped));
}

#[test]
fn a_place_that_was_kept_is_filled_though_the_voice_is_heard_no_more() {
    let mut microphone = Microphone::new();
    let mut play = microphone.play(1);
    microphone.send(true);
    let mut next = |microphone: &Microphone| play.next(at(microphone.ms), 0, FAST, |_| true);
    assert!(matches!(next(&microphone), Step::Send(frame) if frame.header().number == 0));
    let (sequence, late) = microphone.lose();
    microphone.send(true);
    assert!(matches!(next(&microphone), Step::Reserve));
    assert!(matches!(next(&microphone), Step::Send(frame) if frame.header().number == 2));
    for other in microphone.others.clone() {
        for frame in 0..50 {
            let level = AudioLevel { below_full_scale: 0, voice: true };
            microphone.voices.hear(at(microphone.ms + 20 * frame), other, level);
        }
    }
    microphone.ms += 1000;
    microphone.publication.take(at(microphone.ms), 0, sequence, late).unwrap();
    assert!(matches!(next(&microphone), Step::SendReserved(1, frame) if frame.header().number == 1));
}

#[test]
fn who_joins_hears_nothing_of_a_voice_that_is_heard_no_more() {
    let mut microphone = Microphone::new();
    microphone.send(true);
    let mut early = microphone.play(1);
    assert_eq!(heard(&microphone, &mut early), [0], "the newest frame, so that sound begins at once");
    microphone.others_speak();
    for _ in 0..50 {
        microphone.send(false);
    }
    let mut late = microphone.play(2);
    assert_eq!(heard(&microphone, &mut late), NONE, "its newest frame is a second old");
    microphone.send(true);
    assert_eq!(heard(&microphone, &mut late), [microphone.number - 1]);
}

#[test]
fn sound_without_levels_is_always_heard() {
    let mut microphone = Microphone::new();
    microphone.others_speak();
    let mut play = microphone.play(1);
    for number in 0..10 {
        microphone.ms += 20;
        let number = microphone.number + number;
        microphone.publication.take(at(microphone.ms), 0, number, frame(header(number, true), 60)).unwrap();
    }
    assert_eq!(heard(&microphone, &mut play).len(), 1, "the newest, and from there on each");
    microphone.publication.end();
    assert_eq!(microphone.voices.len(), 2);
}
