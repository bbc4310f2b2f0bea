//! Rooms of people who speak, are silent and interrupt each other, frame by frame.

use std::collections::BTreeSet;

use parlor_transport::id::{StreamId, UserId};
use proptest::prelude::*;

use super::*;

const SPEECH: AudioLevel = AudioLevel { below_full_scale: 20, voice: true };
const QUIET: AudioLevel = AudioLevel { below_full_scale: 90, voice: false };

fn at(ms: u64) -> Timestamp {
    Timestamp::from_micros(ms * 1000)
}

fn voice(below_full_scale: u8) -> AudioLevel {
    AudioLevel { below_full_scale, voice: true }
}

/// A room in which everybody sends a frame every 20 ms, one after the other.
struct Stage {
    speakers: Speakers,
    voices: Vec<VoiceId>,
    now: u64,
}

impl Stage {
    fn new(people: usize, limits: &Limits) -> Self {
        let mut speakers = Speakers::new(limits);
        let voices = (0..people)
            .map(|number| {
                let name = format!("u{number}");
                let (stream, user) = (StreamId::new(&name).unwrap(), UserId::new(&name).unwrap());
                speakers.add(Speaker { stream, user })
            })
            .collect();
        Stage { speakers, voices, now: 1000 }
    }

    fn large() -> Self {
        Stage::new(10, &Limits::default())
    }

    /// The next frames of all; gives who of them are heard.
    fn step(&mut self, level: impl Fn(usize) -> AudioLevel) -> BTreeSet<usize> {
        self.now += 20;
        let Stage { speakers, voices, now } = self;
        let numbered = voices.iter().enumerate();
        numbered.filter(|&(number, &id)| speakers.hear(at(*now), id, level(number))).map(|(n, _)| n).collect()
    }

    /// The same for a time; gives all who were heard, and how often it changed who is.
    fn run(&mut self, ms: u64, level: impl Fn(usize) -> AudioLevel) -> (BTreeSet<usize>, usize) {
        let (mut all, mut before, mut changes) = (BTreeSet::new(), None, 0);
        for _ in 0..ms / 20 {
            let heard = self.step(&level);
            assert!(self.speakers.placed().count() <= 4);
            let is_other = before.as_ref().is_some_and(|before| before != &heard);
            // Who gives up a place may have been heard earlier in the same 20 ms.
            assert!(heard.len() <= 4 || is_other || before.is_none(), "{heard:?}");
            changes += usize::from(is_other);
            all.extend(&heard);
            before = Some(heard);
        }
        (all, changes)
    }

    fn leader(&self) -> Option<&str> {
        self.speakers.leader().map(|speaker| speaker.user.as_str())
    }
}

fn speaking(who: &[usize]) -> impl Fn(usize) -> AudioLevel + '_ {
    move |number| if who.contains(&number) { SPEECH } else { QUIET }
}

#[test]
fn three_loud_ones_of_ten_are_heard_from_their_first_frame_on() {
    let mut stage = Stage::large();
    assert_eq!(stage.run(1000, |_| QUIET), (BTreeSet::new(), 0));
    assert_eq!(stage.step(speaking(&[1, 4, 7])), [1, 4, 7].into());
    assert_eq!(stage.run(5000, speaking(&[1, 4, 7])), ([1, 4, 7].into(), 0));
    // A fourth voice has a place beside the loudest; no more do.
    assert!(stage.step(speaking(&[1, 4, 7, 9])).contains(&9));
    let quieter = |number: usize| if number == 2 { voice(30) } else { speaking(&[1, 4, 7, 9])(number) };
    assert_eq!(stage.run(200, quieter), ([1, 4, 7, 9].into(), 0));
}

#[test]
fn small_rooms_and_relays_that_are_told_so_leave_nobody_out() {
    let everybody = |people: usize| (0..people).collect::<BTreeSet<_>>();
    let mut small = Stage::new(8, &Limits::default());
    assert_eq!(small.step(speaking(&[1, 2, 3, 4, 5])), everybody(8));
    let mut off = Stage::new(20, &Limits { loudest_voices: 0, ..Limits::default() });
    assert_eq!(off.step(|_| SPEECH), everybody(20));
    // It grows, and those who speak stay.
    let (stream, user) = (StreamId::new("new").unwrap(), UserId::new("new").unwrap());
    small.voices.push(small.speakers.add(Speaker { stream, user }));
    assert_eq!(small.step(speaking(&[1, 2, 3])), [1, 2, 3, 4].into());
    small.speakers.remove(small.voices[8]);
    small.voices.pop();
    assert_eq!(small.step(|_| QUIET), everybody(8));
}

#[test]
fn turns_change_within_three_frames_even_when_all_change_at_once() {
    let mut stage = Stage::large();
    stage.run(2000, speaking(&[0, 1, 2]));
    for turn in 1..20 {
        let now: Vec<usize> = (0..3).map(|place| (3 * turn + place) % 10).collect();
        let all = (0..4).map(|_| stage.step(speaking(&now))).last().unwrap();
        assert!(
            now.iter().all(|number| all.contains(number)),
            "turn {turn}: {now:?} speak, {all:?} are heard"
        );
        stage.run(1920, speaking(&now));
    }
}

#[test]
fn two_who_are_about_as_loud_do_not_take_turns() {
    // 0 to 2 have the places of the loudest, 3 that of the last; 4 speaks as loud as 3, and now one is louder by a
    // little, now the other.
    let mut stage = Stage::large();
    stage.run(1000, speaking(&[0, 1, 2]));
    stage.run(1000, speaking(&[0, 1, 2, 3]));
    let mut changes = 0;
    for round in 0..100 {
        let level = |number: usize| match number {
            0..=2 => SPEECH,
            3 => voice(22 + 2 * (round % 2)),
            4 => voice(24 - 2 * (round % 2)),
            _ => QUIET,
        };
        changes += stage.run(60, level).1;
    }
    assert!(changes <= 2, "who began last was let in once: {changes}");
}

#[test]
fn somebody_clearly_louder_is_heard_instead_of_the_quietest() {
    let mut stage = Stage::large();
    let level = |loud: u8| {
        move |number: usize| if number < 5 { voice(if number == 4 { loud } else { 40 }) } else { QUIET }
    };
    stage.run(3000, level(40));
    let (_, changes) = stage.run(1000, level(36));
    assert_eq!(changes, 0, "4 dB are not enough");
    stage.run(1000, level(30));
    assert!(stage.speakers.chosen.iter().any(|place| place.voice == stage.voices[4]));
}

#[test]
fn nothing_changes_in_a_silent_room_and_the_last_who_spoke_is_still_heard() {
    let mut stage = Stage::large();
    stage.run(1000, speaking(&[5]));
    for number in 0..4 {
        stage.run(1000, speaking(&[number]));
    }
    let (heard, changes) = stage.run(60_000, |_| QUIET);
    assert!(heard.contains(&3) && heard.len() == 4, "{heard:?}");
    assert_eq!(changes, 0);
    // After minutes of silence anybody is heard at once.
    assert!(stage.step(speaking(&[8])).contains(&8));
}

#[test]
fn a_muted_speaker_who_sends_nothing_makes_room() {
    let mut stage = Stage::large();
    stage.run(1000, speaking(&[0, 1, 2, 3]));
    let muted = stage.voices.drain(0..4).collect::<Vec<_>>();
    stage.run(600, |_| QUIET);
    assert_eq!(stage.step(speaking(&[0, 1, 2])), [0, 1, 2].into());
    assert_eq!(muted.len(), 4);
}

#[test]
fn the_leader_changes_when_another_is_louder_for_a_while_and_ends_with_silence() {
    let mut stage = Stage::large();
    stage.run(80, speaking(&[1]));
    assert_eq!(stage.leader(), None, "a cough is no speech");
    stage.run(60, speaking(&[1]));
    assert_eq!(stage.leader(), Some("u1"));
    let both = |mine: u8| {
        move |number: usize| match number {
            1 => voice(30),
            2 => voice(mine),
            _ => QUIET,
        }
    };
    stage.run(5000, both(28));
    assert_eq!(stage.leader(), Some("u1"), "2 dB are not enough");
    stage.run(200, both(20));
    assert_eq!(stage.leader(), Some("u1"), "nor is a moment");
    stage.run(200, both(20));
    assert_eq!(stage.leader(), Some("u2"));
    stage.run(1900, |_| QUIET);
    assert_eq!(stage.leader(), Some("u2"));
    // Nobody sends any more: the time alone ends it.
    let due = stage.speakers.poll_timeout().unwrap();
    assert!(due <= at(stage.now + 200));
    stage.speakers.handle_timeout(due);
    assert_eq!((stage.leader(), stage.speakers.poll_timeout()), (None, None));
    stage.run(400, speaking(&[3]));
    assert_eq!(stage.leader(), Some("u3"));
    stage.speakers.remove(stage.voices[3]);
    assert_eq!(stage.leader(), None, "who is gone does not lead");
}

#[test]
fn a_flood_of_voices_leaves_no_more_heard_and_nothing_behind() {
    let mut stage = Stage::new(2000, &Limits::default());
    let (mut before, mut since) = (stage.speakers.changes(), stage.now);
    for round in 0..200 {
        let heard = stage.step(|number| voice(((number * 7 + round * 13) % 128) as u8));
        // Who gave up a place may have been heard earlier in the same 20 ms.
        assert!(heard.len() <= 8, "{}", heard.len());
        assert!(stage.speakers.chosen.len() <= 3);
        if stage.speakers.changes() != before {
            assert!(stage.now - since >= 300 || before == 0, "{} ms", stage.now - since);
            (before, since) = (stage.speakers.changes(), stage.now);
        }
    }
    for id in std::mem::take(&mut stage.voices) {
        stage.speakers.remove(id);
    }
    let Speakers { voices, chosen, last, leader, rival, .. } = &stage.speakers;
    assert!(voices.is_empty() && chosen.is_empty());
    assert!(last.is_none() && leader.is_none() && rival.is_none());
}

proptest! {
    /// Whatever comes when: never more than the loudest and one are heard at a moment, nobody twice, and who speaks in a
    /// room with places to spare is heard.
    #[test]
    fn places_are_bounded_whatever_comes(
        frames in prop::collection::vec((0..12usize, 0..=127u8, any::<bool>(), 0..3000u64), 0..400),
        loudest in 1..5usize,
    ) {
        let limits = Limits { loudest_voices: loudest, loudest_voices_above: 0, ..Limits::default() };
        let mut stage = Stage::new(12, &limits);
        for (number, below_full_scale, voice, ms) in frames {
            stage.now += ms / 10;
            let id = stage.voices[number];
            let heard = stage.speakers.hear(at(stage.now), id, AudioLevel { below_full_scale, voice });
            let placed: Vec<_> = stage.speakers.placed().map(|place| place.voice).collect();
            prop_assert!(placed.len() <= loudest + 1);
            prop_assert_eq!(placed.iter().collect::<BTreeSet<_>>().len(), placed.len());
            prop_assert_eq!(heard, placed.contains(&id));
            let others_speak = placed.iter().filter(|&&other| stage.speakers.is_speaking(at(stage.now), other)).count();
            if voice && others_speak < loudest {
                prop_assert!(heard);
            }
        }
    }
}
