//! What the demonstration shows: the live table, the summary with its goals, the contact sheet.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use parlor_benches::quantile::{Delays, millis};
use parlor_benches::table;
use parlor_media::play::ContactSheet;

use crate::Failure;
use crate::person::{Person, lock};
use crate::score::Score;

/// The share of captured pictures that every player has to show.
const SHOWN_MIN: f64 = 0.95;
/// How old pictures may be when shown, 99th percentile.
const AGE_MAX: Duration = Duration::from_millis(250);

/// The live table: who sees whom, and how.
pub(crate) fn table(people: &[Person]) -> String {
    let heading =
        ["viewer", "sees", "frames/s", "kbit/s", "age p50 ms", "age p99 ms", "lost", "roster events"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for person in people {
        for (stream, playback) in person.playbacks() {
            let stats = playback.stats();
            rows.push(vec![
                person.name().to_owned(),
                stream.to_string(),
                format!("{:.1}", stats.video.frames_per_second),
                format!("{:.0}", stats.player.video.kbit_per_second + stats.player.audio.kbit_per_second),
                stats.video.age_p50.map_or("-".to_owned(), |age| millis(Some(age))),
                stats.video.age_p99.map_or("-".to_owned(), |age| millis(Some(age))),
                stats.player.lost.to_string(),
                person.events.to_string(),
            ]);
        }
    }
    table::render(&rows)
}

struct Line {
    viewer: String,
    stream: String,
    score: Score,
    lost: u64,
    ages: Delays,
}

impl Line {
    fn is_good(&self) -> bool {
        self.score.due > 0
            && self.score.shown as f64 >= SHOWN_MIN * self.score.due as f64
            && self.ages.quantile(0.99).is_some_and(|age| age <= AGE_MAX)
    }
}

/// The summary.
pub(crate) struct Report {
    lines: Vec<Line>,
    rosters_equal: bool,
}

impl Report {
    /// Sums up what everybody saw of everybody else.
    pub(crate) fn new(people: &[Person], rosters_equal: bool) -> Self {
        let mut lines = Vec::new();
        for viewer in people {
            for (stream, seen) in &viewer.seen {
                let other = people.iter().find(|person| stream.as_str() == format!("{}-cam", person.name()));
                let Some(other) = other else { continue };
                let (score, lost) = viewer.score(stream, other);
                let ages = Delays::new(lock(seen).ages.iter().copied().map(Some));
                let (viewer, stream) = (viewer.name().to_owned(), stream.to_string());
                lines.push(Line { viewer, stream, score, lost, ages });
            }
        }
        Report { lines, rosters_equal }
    }

    /// Whether everybody saw everybody else well.
    pub(crate) fn is_good(&self) -> bool {
        self.rosters_equal && self.lines.len() == 12 && self.lines.iter().all(Line::is_good)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = ["viewer", "sees", "shown", "of", "share", "age p50 ms", "age p99 ms", "lost", "goal"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        for line in &self.lines {
            rows.push(vec![
                line.viewer.clone(),
                line.stream.clone(),
                line.score.shown.to_string(),
                line.score.due.to_string(),
                format!("{:.1} %", 100.0 * line.score.shown as f64 / line.score.due.max(1) as f64),
                millis(line.ages.quantile(0.5)),
                millis(line.ages.quantile(0.99)),
                line.lost.to_string(),
                if line.is_good() { "met" } else { "MISSED" }.to_owned(),
            ]);
        }
        writeln!(f, "\n{}", table::render(&rows))?;
        writeln!(
            f,
            "goal for every player, from one second after it was asked for: at least 95 % of pictures shown, 99 % of them at most 250 ms old"
        )?;
        writeln!(
            f,
            "players: {} of 12; rosters equal to the relay's: {}",
            self.lines.len(),
            if self.rosters_equal { "yes" } else { "NO" }
        )?;
        writeln!(f, "{}", if self.is_good() { "all goals met" } else { "SOME GOALS MISSED" })
    }
}

/// Writes the picture: for each viewer what was seen of each other, twice.
pub(crate) fn write_sheet(people: &[Person], path: &Path) -> Result<(), Failure> {
    let mut sheet = ContactSheet::new(320, 180, 6)?;
    for viewer in people {
        for (stream, seen) in &viewer.seen {
            let seen = lock(seen);
            for at in 0..2 {
                let picture = seen.kept.get(at).and_then(Option::as_ref);
                sheet.add(picture, format!("{} sees {stream}", viewer.name()));
            }
        }
    }
    Ok(sheet.write_png(path)?)
}
