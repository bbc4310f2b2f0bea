//! The cells that have limits of their own: one row each.

use std::time::Duration;

use parlor_client::Delivery;

use super::Verdict;
use super::bound::redundancy_least;
use crate::cell::{Cell, Link, Way};
use crate::outcome::Outcome;
use crate::source::Shape;

/// A figure of an outcome and how large or small it may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// A quantile of capture to complete, ms.
    Complete(f64, f64),
    /// A quantile of capture to decodable, ms from capture.
    Decodable(f64, f64),
    /// Share, %.
    Overhead(f64),
    /// A minute.
    Freezes(f64),
    /// Frames shown per second, at least.
    Shown(f64),
    /// Frames too late for a buffer of 100 ms, %.
    Concealed(f64),
    /// Parity and repair of media, beside 1.5 times what no code with one round of feedback can do without at
    /// this loss.
    Redundancy(f64),
}

impl Limit {
    /// The figure of `outcome` against the limit.
    pub(super) fn judge(self, cell: &str, outcome: &Outcome) -> Verdict {
        let ms = |delay: Option<Duration>| delay.map_or(f64::INFINITY, |delay| delay.as_secs_f64() * 1e3);
        match self {
            Limit::Complete(q, most) => {
                Verdict::at_most(cell, &format!("p{} ms", percent(q)), ms(outcome.complete.quantile(q)), most)
            }
            Limit::Decodable(q, most) => {
                let shown = outcome.decodable.quantile(q).map(|delay| delay + outcome.one_way);
                Verdict::at_most(cell, &format!("capture to decodable p{} ms", percent(q)), ms(shown), most)
            }
            Limit::Overhead(most) => {
                Verdict::at_most(cell, "overhead %", outcome.overhead_max() * 100.0, most)
            }
            Limit::Freezes(most) => Verdict::at_most(cell, "freezes/min", outcome.freezes_per_minute(), most),
            Limit::Shown(least) => Verdict::at_least(cell, "frames/s", outcome.frames_per_second(), least),
            Limit::Concealed(most) => {
                Verdict::at_most(cell, "concealed %", outcome.concealed_share() * 100.0, most)
            }
            Limit::Redundancy(loss) => {
                let most = BOUND_SHARE * redundancy_least(SYMBOLS, loss, MISS) * 100.0;
                let value = outcome.redundancy().map_or(f64::INFINITY, |share| share * 100.0);
                Verdict::at_most(cell, "parity and repair %", value, most)
            }
        }
    }
}

/// So far redundancy may be above its bound.
const BOUND_SHARE: f64 = 1.5;
/// Packets of an ordinary frame of 1 Mbit/s and 30 frames/s.
const SYMBOLS: usize = 4;
/// The share of frames that may need more than one round of feedback.
const MISS: f64 = 1e-3;

fn percent(q: f64) -> f64 {
    (q * 1e4).round() / 1e2
}

/// A row of the table: a cell, who carries it, and its limits.
pub(super) struct Row {
    pub name: &'static str,
    pub cell: Cell,
    pub delivery: Delivery,
    pub limits: Vec<Limit>,
}

/// All of them.
pub(super) fn rows() -> Vec<Row> {
    use Limit::{Complete, Concealed, Decodable, Freezes, Overhead, Redundancy, Shown};
    let delays = |p95, p99, p999| [Complete(0.95, p95), Complete(0.99, p99), Complete(0.999, p999)];
    let row = |name, cell, limits: &[Limit], more: &[Limit]| Row {
        name,
        cell,
        delivery: Delivery::Adaptive,
        limits: limits.iter().chain(more).copied().collect(),
    };
    let heavy = |loss, most| [Overhead(most), Redundancy(loss), Freezes(0.0)];
    let lossy = |loss, rtt| one(both(rtt, Way { loss, ..Way::default() }));
    let bursts = |loss, burst| one(both(50, Way { loss, burst, ..Way::default() }));
    let calm = |most| [Overhead(most), Freezes(0.0)];
    let lost = |share| Way { loss: share, rate: Some(5_000_000), ..Way::default() };
    let shown_over = |link: Link| Cell {
        shape: Shape { bitrate: 600_000, frames_per_second: 15, ..Shape::default() },
        ..one(link)
    };
    // On a host whose way up loses, what it publishes is lost, and its reports on what it plays; and so down.
    let media_lost = |share| Link { media: lost(share), back: lost(0.0), ..Link::default() };
    let reports_lost = |share| Link { media: lost(0.0), back: lost(share), ..Link::default() };
    let publishing = |link| shown_over(link);
    let playing = |link| Cell { publisher: None, subscriber: Some(link), ..shown_over(Link::default()) };
    let sound = |loss| Cell { shape: Shape::audio(32_000), ..lossy(loss, 50) };
    let low = lossy(0.05, 50);
    let two_hops = Cell { subscriber: lossy(0.05, 50).publisher, ..lossy(0.05, 50) };
    let reordering = one(both(50, Way { reorder: Duration::from_millis(10), ..Way::default() }));
    let half = [Shown(14.9), Decodable(0.95, 200.0), Freezes(0.0)];
    let most = [Shown(14.5), Decodable(0.95, 400.0)];
    vec![
        row("0 %, RTT 50", lossy(0.0, 50), &delays(6.0, 8.0, 21.0), &calm(8.0)),
        row("1 %, RTT 50", lossy(0.01, 50), &delays(10.0, 68.0, 80.0), &calm(13.0)),
        row("5 %, RTT 20", lossy(0.05, 20), &delays(30.0, 42.0, 50.0), &calm(28.0)),
        row("5 %, RTT 50", lossy(0.05, 50), &delays(55.0, 66.0, 80.0), &calm(28.0)),
        Row {
            delivery: Delivery::LowLatency,
            ..row("5 %, RTT 50, low latency", low, &delays(10.0, 42.0, 75.0), &calm(37.0))
        },
        row("10 %, RTT 50", lossy(0.1, 50), &delays(56.0, 72.0, 88.0), &heavy(0.1, 45.0)),
        row("20 %, RTT 50", lossy(0.2, 50), &delays(45.0, 72.0, 90.0), &heavy(0.2, 80.0)),
        row("30 %, RTT 50", lossy(0.3, 50), &delays(45.0, 75.0, 92.0), &heavy(0.3, 125.0)),
        row("5 %, RTT 200", lossy(0.05, 200), &delays(42.0, 110.0, 220.0), &[Overhead(36.0)]),
        row(
            "5 % in runs of 3",
            bursts(0.05, 3.0),
            &delays(62.0, 92.0, 135.0),
            &[Overhead(40.0), Freezes(0.3)],
        ),
        row("10 ms reordering", reordering, &delays(18.0, 20.0, 30.0), &calm(12.0)),
        row("two hops, 5 + 5 %", two_hops, &delays(66.0, 78.0, 112.0), &calm(28.0)),
        row("sound, 10 %", sound(0.1), &[Concealed(0.05), Overhead(165.0)], &[]),
        row("sound, 30 %", sound(0.3), &[Concealed(1.4), Overhead(275.0)], &[]),
        row("50 % lost up, publishing", publishing(media_lost(0.5)), &half, &[]),
        row("50 % lost up, playing", playing(reports_lost(0.5)), &half, &[]),
        row("50 % lost down, playing", playing(media_lost(0.5)), &half, &[]),
        row("50 % lost down, publishing", publishing(reports_lost(0.5)), &half, &[]),
        row("70 % lost up, publishing", publishing(media_lost(0.7)), &most, &[]),
        row("70 % lost up, playing", playing(reports_lost(0.7)), &most, &[]),
        row("70 % lost down, playing", playing(media_lost(0.7)), &most, &[]),
        row("70 % lost down, publishing", publishing(reports_lost(0.7)), &most, &[]),
    ]
}

/// A publisher behind `link`.
pub(super) fn one(link: Link) -> Cell {
    Cell { publisher: Some(link), ..Cell::default() }
}

/// A link that is the same both ways.
pub(super) fn both(rtt: u64, way: Way) -> Link {
    Link { rtt: Duration::from_millis(rtt), media: way.clone(), back: way }
}
