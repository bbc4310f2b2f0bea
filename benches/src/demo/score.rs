//! How much a viewer saw of what was captured for them: pure counting, on the viewer's clock.

use std::time::Duration;

use parlor_client::Timestamp;

/// A newcomer is shown the past first, to be there at once; this is over by then.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(1);

/// A picture captured this long before the end may still be under way. As old as pictures may be when shown, so that
/// nothing is forgiven which is late.
pub(crate) const UNDER_WAY: Duration = Duration::from_millis(250);

/// A picture shown is the one captured if their times differ by no more than this: the error of the clocks' estimate, and
/// less than half the distance of pictures at 15 per second.
const MARGIN: Duration = Duration::from_millis(30);

/// One time that a stream was played.
pub(crate) struct Play {
    /// When playing was asked for.
    from: Timestamp,
    /// When it was over; `None` while it lasts.
    until: Option<Timestamp>,
    /// Capture times of the pictures shown, as they were shown.
    shown: Vec<Timestamp>,
}

impl Play {
    /// Asked for now.
    pub(crate) fn start(now: Timestamp) -> Self {
        Play { from: now, until: None, shown: Vec::new() }
    }

    /// A picture was shown; gives whether it counts.
    pub(crate) fn show(&mut self, captured: Timestamp) -> bool {
        let counts = captured >= self.due_from();
        self.shown.push(captured);
        counts
    }

    /// It is over.
    pub(crate) fn end(&mut self, now: Timestamp) {
        self.until.get_or_insert(now);
    }

    /// Pictures shown of those due, and those due: captured from one second after the play started until just before
    /// it, or the call, was over.
    pub(crate) fn score(&self, captured: &[Timestamp], now: Timestamp) -> Score {
        let until = self.until.unwrap_or(now);
        let mut score = Score::default();
        let due = |time: Timestamp| time >= self.due_from() && until.saturating_since(time) >= UNDER_WAY;
        let mut shown = self.shown.clone();
        shown.sort_unstable();
        for &time in captured.iter().filter(|&&time| due(time)) {
            score.due += 1;
            let next = shown.partition_point(|&other| other + MARGIN < time);
            score.shown += usize::from(shown.get(next).is_some_and(|&other| other <= time + MARGIN));
        }
        score
    }

    fn due_from(&self) -> Timestamp {
        self.from + CATCH_UP
    }
}

/// Counts of pictures.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Score {
    /// Shown, of those due.
    pub(crate) shown: usize,
    /// Due.
    pub(crate) due: usize,
}

impl std::iter::Sum for Score {
    fn sum<I: Iterator<Item = Score>>(scores: I) -> Score {
        scores.fold(Score::default(), |sum, score| Score {
            shown: sum.shown + score.shown,
            due: sum.due + score.due,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    /// Ten seconds at ten pictures a second.
    fn captured() -> Vec<Timestamp> {
        (0..100).map(|number| at(number * SECOND / 10)).collect()
    }

    fn seen(from: u64, show: impl Fn(Timestamp) -> bool, end: Option<u64>) -> Score {
        let mut play = Play::start(at(from));
        captured()
            .into_iter()
            .filter(|&time| show(time))
            .for_each(|time| _ = play.show(time + Duration::from_millis(20)));
        if let Some(end) = end {
            play.end(at(end));
        }
        play.score(&captured(), at(10 * SECOND))
    }

    #[test]
    fn a_viewer_who_froze_has_missed_the_rest() {
        let all = seen(0, |_| true, None);
        // From second 1 to a quarter of a second before second 10.
        assert_eq!(all, Score { shown: 88, due: 88 });
        let frozen = seen(0, |time| time < at(3 * SECOND), None);
        assert_eq!(frozen, Score { shown: 20, due: 88 });
        // Who froze in the first second, or saw nothing ever, had the same pictures due.
        assert_eq!(seen(0, |time| time < at(SECOND / 2), None), Score { shown: 0, due: 88 });
        assert_eq!(seen(0, |_| false, None), Score { shown: 0, due: 88 });
        // And who froze for a while has missed that.
        let froze = seen(0, |time| time < at(3 * SECOND) || time >= at(4 * SECOND), None);
        assert_eq!(froze, Score { shown: 78, due: 88 });
    }

    #[test]
    fn nothing_is_due_before_the_play_and_after_it() {
        assert_eq!(seen(4 * SECOND, |_| true, Some(6 * SECOND)), Score { shown: 8, due: 8 });
        // The past shown to a newcomer makes up for nothing.
        assert_eq!(
            seen(4 * SECOND, |time| time < at(5 * SECOND), Some(6 * SECOND)),
            Score { shown: 0, due: 8 }
        );
    }

    #[test]
    fn one_picture_shown_twice_is_not_two() {
        let mut play = Play::start(at(0));
        assert!(!play.show(at(SECOND / 2)));
        for _ in 0..88 {
            assert!(play.show(at(2 * SECOND)));
        }
        assert_eq!(play.score(&captured(), at(10 * SECOND)), Score { shown: 1, due: 88 });
    }
}
