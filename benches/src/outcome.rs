//! From what a contender did to the figures that a report shows.

use std::time::Duration;

use parlor_client::Timestamp;

use crate::cell::Cell;
use crate::contender::{Fate, Run, Sample, Wire};
use crate::quantile::Delays;

/// The figures of one cell and contender, over all its seeds.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Capture to complete, beyond the links' one-way delay. What the source left out is missing, and late for ever.
    pub complete: Delays,
    /// Capture to complete with everything it builds on, beyond the links' one-way delay.
    pub decodable: Delays,
    /// `complete` of keyframes alone, and of all others.
    pub complete_by_type: [Delays; 2],
    /// 99th percentiles of `complete`, seed by seed.
    pub p99_by_seed: Vec<Option<Duration>>,
    /// What was seen of it where every frame is shown at once.
    pub shown: Shown,
    /// The same where every frame is shown [`PLAYOUT`] later than the links allow, or later.
    pub shown_later: Shown,
    /// What is concealed of sound, by the buffer that the player keeps beyond the links' one-way delay.
    pub concealed: [Concealed; BUFFERS.len()],
    /// Keyframes made, those included that were asked for.
    pub keyframes: usize,
    /// Time measured.
    pub length: Duration,
    /// Media bytes that the source made.
    pub media: u64,
    /// Media bytes that arrived whole.
    pub delivered: u64,
    /// What went over the links, link by link.
    pub wire: Vec<Wire>,
    /// How long packets waited before the bottleneck, link by link.
    pub queue: Vec<Delays>,
    /// The age of what the sender held.
    pub own_queue: Delays,
    /// The links' one-way delay.
    pub one_way: Duration,
}

/// A player that waits so long beyond the links' delay conceals, or shows late, what comes later.
pub const PLAYOUT: Duration = Duration::from_millis(100);
/// The buffers for which it is told what they conceal, ms beyond the links' one-way delay; [`PLAYOUT`] is one of them.
pub const BUFFERS: [u64; 4] = [60, 100, 150, 200];
/// A gap this long is no freeze any more, it is a pause.
const PAUSE: Duration = Duration::from_secs(5);

/// How smoothly pictures were shown, by the definitions of WebRTC's statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shown {
    /// Gaps between pictures of at least max(3 × the average, the average + 150 ms).
    pub freezes: usize,
    /// Time in those.
    pub frozen: Duration,
    /// Those of them that were longer than 5 s.
    pub pauses: usize,
    /// Time between pictures, and the sum of its squares, s and s².
    gaps: (f64, f64),
}

impl Shown {
    /// Pictures a second as the eye sees them: a gap weighs as long as it takes.
    pub fn harmonic_rate(&self) -> f64 {
        self.gaps.0 / self.gaps.1.max(f64::MIN_POSITIVE)
    }
}

/// Frames of sound that came too late for a buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Concealed {
    /// How many.
    pub frames: usize,
    /// In how many runs of neighbouring frames.
    pub events: usize,
}

impl Outcome {
    /// Evaluates the runs of `cell`, one for each seed.
    pub fn new(cell: &Cell, runs: &[Run]) -> Self {
        let mut all = Outcome {
            complete: Delays::new([]),
            decodable: Delays::new([]),
            complete_by_type: [Delays::new([]), Delays::new([])],
            p99_by_seed: Vec::new(),
            shown: Shown::default(),
            shown_later: Shown::default(),
            concealed: Default::default(),
            keyframes: 0,
            length: cell.length * runs.len() as u32,
            media: 0,
            delivered: 0,
            wire: (0..cell.links().count())
                .map(|link| {
                    let wires = runs.iter().filter_map(|run| run.wire.get(link).copied());
                    wires.reduce(Wire::plus).unwrap_or_default()
                })
                .collect(),
            queue: vec![Delays::new([]); cell.links().count()],
            own_queue: Delays::new([]),
            one_way: cell.one_way(),
        };
        runs.iter().for_each(|run| all.add(run));
        all
    }

    fn add(&mut self, run: &Run) {
        let shown = decodable(&run.frames);
        let beyond = |captured: Timestamp, at: Option<Timestamp>| {
            at.map(|at| at.saturating_since(captured).saturating_sub(self.one_way))
        };
        let complete = |frame: &Fate| beyond(frame.captured, frame.complete);
        for (all, keyframe) in self.complete_by_type.iter_mut().zip([true, false]) {
            all.join(Delays::new(run.frames.iter().filter(|frame| frame.keyframe == keyframe).map(complete)));
        }
        for (sum, buffer) in self.concealed.iter_mut().zip(BUFFERS.map(Duration::from_millis)) {
            let is_late = |frame: &Fate| complete(frame).is_none_or(|delay| delay > buffer);
            let late: Vec<bool> = run.frames.iter().map(is_late).collect();
            sum.frames += late.iter().filter(|late| **late).count();
            sum.events += late.chunk_by(|one, next| one == next).filter(|run| run[0]).count();
        }
        self.keyframes += run.frames.iter().filter(|frame| frame.keyframe && frame.bytes > 0).count();
        let frames = run.frames.iter().zip(&shown);
        let shown_after = Delays::new(frames.map(|(frame, at)| beyond(frame.captured, *at)));
        let complete = Delays::new(run.frames.iter().map(complete));
        self.p99_by_seed.push(complete.quantile(0.99));
        self.complete.join(complete);
        self.decodable.join(shown_after);
        for (sum, playout) in [(&mut self.shown, Duration::ZERO), (&mut self.shown_later, PLAYOUT)] {
            sum.add(&run.frames, &shown, self.one_way + playout);
        }
        self.media += run.frames.iter().map(|frame| frame.bytes as u64).sum::<u64>();
        let came = run.frames.iter().filter(|frame| frame.complete.is_some());
        self.delivered += came.map(|frame| frame.bytes as u64).sum::<u64>();
        let waits = |samples: &[Sample]| Delays::new(samples.iter().map(|(_, wait)| Some(*wait)));
        for (all, samples) in self.queue.iter_mut().zip(&run.queue) {
            all.join(waits(samples));
        }
        self.own_queue.join(waits(&run.own_queue));
    }

    /// UDP payload bytes of the media's way over media bytes, minus one, of one link.
    pub fn overhead(&self, link: usize) -> f64 {
        self.wire.get(link).map_or(0.0, |wire| wire.total as f64 / self.media.max(1) as f64 - 1.0)
    }

    /// The largest overhead of any link.
    pub fn overhead_max(&self) -> f64 {
        (0..self.wire.len()).map(|link| self.overhead(link)).fold(0.0, f64::max)
    }

    /// The share of frames complete within `limit` of their capture, the links' delay included.
    pub fn within(&self, limit: Duration) -> f64 {
        self.complete.share_within(limit.saturating_sub(self.one_way))
    }

    /// Parity and repair over media bytes, of the first link, if its sender keeps account of them.
    pub fn redundancy(&self) -> Option<f64> {
        let parts = self.wire.first()?.parts?;
        Some((parts.parity + parts.repair) as f64 / self.media.max(1) as f64)
    }

    /// The share of frames that a player with a buffer of [`PLAYOUT`] conceals.
    pub fn concealed_share(&self) -> f64 {
        1.0 - self.complete.share_within(PLAYOUT)
    }

    /// Freezes a minute.
    pub fn freezes_per_minute(&self) -> f64 {
        self.shown.freezes as f64 * 60.0 / self.length.as_secs_f64()
    }

    /// Frames shown per second.
    pub fn frames_per_second(&self) -> f64 {
        (self.decodable.len() - self.decodable.never()) as f64 / self.length.as_secs_f64()
    }

    /// Media delivered whole, bit/s.
    pub fn delivered_rate(&self) -> f64 {
        self.delivered as f64 * 8.0 / self.length.as_secs_f64()
    }
}

impl Shown {
    /// Adds a run of which `shown` says when each frame could be shown; none is earlier than `after` its capture.
    fn add(&mut self, frames: &[Fate], shown: &[Option<Timestamp>], after: Duration) {
        let due = frames.iter().map(|frame| frame.captured + after);
        let shown: Vec<Timestamp> =
            due.clone().zip(shown).filter_map(|(due, shown)| Some(due.max((*shown)?))).collect();
        for gap in shown.windows(2).map(|pair| pair[1].saturating_since(pair[0]).as_secs_f64()) {
            self.gaps = (self.gaps.0 + gap, self.gaps.1 + gap * gap);
        }
        let freezes = freezes(due, shown.into_iter());
        self.freezes += freezes.len();
        self.frozen += freezes.iter().sum::<Duration>();
        self.pauses += freezes.iter().filter(|gap| **gap > PAUSE).count();
    }
}

/// When each frame could be shown: once it and all frames back to its keyframe are there.
pub(crate) fn decodable(frames: &[Fate]) -> Vec<Option<Timestamp>> {
    let mut before = None;
    frames
        .iter()
        .map(|frame| {
            // What the source left out breaks nothing: the next frame builds on what there is.
            if frame.bytes == 0 {
                return None;
            }
            before = match (frame.keyframe, before, frame.complete) {
                (true, _, complete) => complete,
                (false, Some(before), Some(complete)) => Some(complete.max(before)),
                _ => None,
            };
            before
        })
        .collect()
}

/// The gaps between shown frames of at least max(3 × the average, the average + 150 ms), the average
/// being that of the last 30 gaps: freezes by WebRTC's definition. What that counts only when the next frame
/// comes counts here too if none does: a call that shows nothing more is frozen to its end, when the last frame
/// was `due`, and one that shows nothing for long is from its start.
fn freezes(due: impl Iterator<Item = Timestamp>, shown: impl Iterator<Item = Timestamp>) -> Vec<Duration> {
    let due: Vec<Timestamp> = due.collect();
    let (Some(&first), Some(&last)) = (due.first(), due.last()) else { return Vec::new() };
    let nominal = last.saturating_since(first) / (due.len() as u32 - 1).max(1);
    let shown: Vec<Timestamp> = [first].into_iter().chain(shown).chain([last]).collect();
    let gaps: Vec<Duration> = shown.windows(2).map(|pair| pair[1].saturating_since(pair[0])).collect();
    let is_freeze = |(at, gap): (usize, &Duration)| {
        // The first gap runs from when a picture was due, and says nothing of the distance of pictures.
        let recent = &gaps[at.saturating_sub(30).max(1).min(at)..at];
        let average = match recent.len() as u32 {
            0 => nominal,
            count => recent.iter().sum::<Duration>() / count,
        };
        (*gap >= (average * 3).max(average + Duration::from_millis(150))).then_some(*gap)
    };
    gaps.iter().enumerate().filter_map(is_freeze).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Timestamp {
        Timestamp::from_micros(n * 1000)
    }

    #[test]
    fn a_gap_of_a_third_of_a_second_is_a_freeze_and_so_is_no_picture_at_all() {
        let due: Vec<Timestamp> = (0..60).map(|n| ms(n * 33)).collect();
        let pauses = |shown: &[u64]| freezes(due.iter().copied(), shown.iter().map(|at| ms(*at)));
        let steady: Vec<u64> = (0..60).map(|n| n * 33).collect();
        assert!(pauses(&steady).is_empty());
        let gap = Duration::from_millis;
        let (before, after) = (&steady[..30], &steady[38..]);
        assert_eq!(pauses(&[before, after].concat()), [gap(9 * 33)]);
        assert_eq!(pauses(before), [gap(30 * 33)], "it ends frozen");
        assert_eq!(pauses(after), [gap(38 * 33)], "it begins frozen");
        assert_eq!(pauses(&[]), [gap(59 * 33)]);
    }

    #[test]
    fn a_frame_is_shown_when_all_it_builds_on_is_there() {
        let frame = |captured: u64, keyframe: bool, complete: Option<u64>| Fate {
            captured: ms(captured),
            keyframe,
            bytes: 1,
            complete: complete.map(ms),
        };
        let left_out = Fate { bytes: 0, ..frame(165, false, None) };
        let frames = [
            frame(0, true, Some(30)),
            frame(33, false, Some(100)),
            frame(66, false, Some(90)),
            frame(99, false, None),
            frame(132, false, Some(150)),
            frame(150, true, Some(190)),
            left_out,
            frame(200, false, Some(230)),
        ];
        let wanted = [Some(30), Some(100), Some(100), None, None, Some(190), None, Some(230)];
        assert_eq!(decodable(&frames), wanted.map(|at| at.map(ms)));
        let run = Run { frames: frames.to_vec(), ..Run::default() };
        let outcome = Outcome::new(&Cell::default(), &[run.clone(), run]);
        assert_eq!((outcome.complete.len(), outcome.complete.never(), outcome.p99_by_seed.len()), (16, 4, 2));
        assert_eq!((outcome.media, outcome.delivered, outcome.keyframes), (14, 12, 4));
        assert_eq!(
            outcome.complete_by_type.each_ref().map(|delays| (delays.len(), delays.never())),
            [(4, 0), (12, 4)]
        );
        assert_eq!(
            outcome.within(Duration::from_millis(30)),
            0.5,
            "four of eight came that soon after capture"
        );
    }

    #[test]
    fn sound_that_is_late_is_concealed_and_neighbours_are_one_event() {
        let ages = [Some(20), Some(90), None, Some(20), Some(170), Some(20)];
        let frames: Vec<Fate> = (0..)
            .zip(ages)
            .map(|(number, age)| Fate {
                captured: ms(20 * number),
                keyframe: true,
                bytes: 80,
                complete: age.map(|age| ms(20 * number + age)),
            })
            .collect();
        // A link of 20 ms: the ages beyond it are 10, 80, none, 10, 160 and 10 ms.
        let link = crate::cell::Link { rtt: Duration::from_millis(20), ..Default::default() };
        let cell = Cell { publisher: Some(link), ..Cell::default() };
        let outcome = Outcome::new(&cell, &[Run { frames, ..Run::default() }]);
        let concealed = outcome.concealed.map(|concealed| (concealed.frames, concealed.events));
        assert_eq!(concealed, [(3, 2), (2, 2), (2, 2), (1, 1)], "at 60, 100, 150 and 200 ms");
    }

    #[test]
    fn a_player_that_waits_sees_fewer_freezes() {
        let frames: Vec<Fate> = (0..90)
            .map(|number| Fate {
                captured: ms(33 * number),
                keyframe: number == 0,
                bytes: 1,
                // Two thirds of a second in, a frame is 200 ms late, and holds up those after it.
                complete: Some(ms(33 * number + if number == 20 { 225 } else { 25 })),
            })
            .collect();
        let outcome = Outcome::new(&Cell::default(), &[Run { frames, ..Run::default() }]);
        assert_eq!((outcome.shown.freezes, outcome.shown_later.freezes, outcome.shown.pauses), (1, 0, 0));
        assert_eq!(outcome.shown.frozen, Duration::from_millis(33 + 200));
        assert!(outcome.shown.harmonic_rate() < outcome.shown_later.harmonic_rate());
    }
}
