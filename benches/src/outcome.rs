//! From what a contender did to the figures that a report shows.

use std::time::Duration;

use parlor_client::Timestamp;

use crate::cell::Cell;
use crate::contender::{Fate, Run};
use crate::quantile::Delays;

/// The figures of one run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Capture to complete, beyond the links' one-way delay. What the source left out is missing, and late for ever.
    pub complete: Delays,
    /// Capture to complete with everything it builds on, beyond the links' one-way delay.
    pub decodable: Delays,
    /// Freezes by the definition of WebRTC's statistics, at zero playout delay.
    pub freezes: usize,
    /// Time frozen.
    pub frozen: Duration,
    /// UDP payload bytes of the media's way over media bytes, minus one; link by link.
    pub overhead: Vec<f64>,
    /// Media delivered, bit/s.
    pub delivered: f64,
}

impl Outcome {
    /// Evaluates `run` of `cell`.
    pub fn new(cell: &Cell, run: &Run) -> Self {
        let shown = decodable(&run.frames);
        let beyond = |captured: Timestamp, at: Option<Timestamp>| {
            at.map(|at| at.saturating_since(captured).saturating_sub(cell.one_way()))
        };
        let media: u64 = run.frames.iter().map(|frame| frame.bytes as u64).sum();
        let delivered: u64 =
            run.frames.iter().filter(|frame| frame.complete.is_some()).map(|frame| frame.bytes as u64).sum();
        let pauses = pauses(shown.iter().flatten().copied());
        Outcome {
            complete: Delays::new(run.frames.iter().map(|frame| beyond(frame.captured, frame.complete))),
            decodable: Delays::new(
                run.frames.iter().zip(&shown).map(|(frame, at)| beyond(frame.captured, *at)),
            ),
            freezes: pauses.len(),
            frozen: pauses.iter().sum(),
            overhead: run.wire.iter().map(|wire| wire.total as f64 / media.max(1) as f64 - 1.0).collect(),
            delivered: delivered as f64 * 8.0 / cell.length.as_secs_f64(),
        }
    }
}

/// When each frame could be shown: once it and all frames back to its keyframe are there.
fn decodable(frames: &[Fate]) -> Vec<Option<Timestamp>> {
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
/// being that of the last 30 gaps: freezes by WebRTC's definition.
fn pauses(shown: impl Iterator<Item = Timestamp>) -> Vec<Duration> {
    let shown: Vec<Timestamp> = shown.collect();
    let gaps: Vec<Duration> = shown.windows(2).map(|pair| pair[1].saturating_since(pair[0])).collect();
    let is_freeze = |(at, gap): (usize, &Duration)| {
        let recent = &gaps[at.saturating_sub(30)..at];
        let average = recent.iter().sum::<Duration>() / (recent.len() as u32).max(1);
        (!recent.is_empty() && *gap >= (average * 3).max(average + Duration::from_millis(150)))
            .then_some(*gap)
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
    fn a_gap_of_a_third_of_a_second_is_a_freeze() {
        let steady: Vec<Timestamp> = (0..30).map(|n| ms(n * 33)).collect();
        assert!(pauses(steady.iter().copied()).is_empty());
        let late = steady.iter().copied().chain([ms(29 * 33 + 300)]);
        assert_eq!(pauses(late), [Duration::from_millis(300)]);
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
    }
}
