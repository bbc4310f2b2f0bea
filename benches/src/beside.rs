//! One cell measured in virtual time and over real UDP: how far the two are apart.

use std::time::Duration;

use crate::measure::Measured;
use crate::quantile::millis;
use crate::report::describe;
use crate::table;

/// The quantiles that are compared.
pub const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];
/// So far the two may be apart, as a share.
pub const TOLERANCE: f64 = 0.15;

/// One quantile, twice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// In virtual time; `None` is "never".
    pub in_virtual: Option<Duration>,
    /// Over real UDP.
    pub live: Option<Duration>,
}

impl Pair {
    /// Live over virtual; none if one of them is "never" or virtual is zero.
    pub fn ratio(&self) -> Option<f64> {
        let (in_virtual, live) = self.in_virtual.zip(self.live)?;
        (!in_virtual.is_zero()).then(|| live.as_secs_f64() / in_virtual.as_secs_f64())
    }

    /// Whether the two are within [`TOLERANCE`] of each other, or both "never".
    pub fn agrees(&self) -> bool {
        match self.ratio() {
            Some(ratio) => (ratio - 1.0).abs() <= TOLERANCE,
            None => self.in_virtual == self.live,
        }
    }

    fn plus(&self, more: Duration) -> Pair {
        let add = |delay: Option<Duration>| delay.map(|delay| delay + more);
        Pair { in_virtual: add(self.in_virtual), live: add(self.live) }
    }
}

/// A table of each cell's quantiles, twice: beyond the links' one-way delay, which is the stricter figure, and from
/// capture. `live` and `in_virtual` are the same cells in the same order.
pub fn table(in_virtual: &[Measured], live: &[Measured]) -> String {
    let heading = [
        "link",
        "who",
        "figure",
        "virtual",
        "live",
        "ratio",
        "within 15 %",
        "from capture, ratio",
        "within 15 %",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (in_virtual, live) in in_virtual.iter().zip(live) {
        for (name, q) in QUANTILES {
            let of = |row: &Measured| row.outcome.complete.quantile(q);
            let pair = Pair { in_virtual: of(in_virtual), live: of(live) };
            let whole = pair.plus(in_virtual.outcome.one_way);
            let ratio = |pair: &Pair| pair.ratio().map_or("none".to_owned(), |ratio| format!("{ratio:.2}"));
            let verdict = |pair: &Pair| if pair.agrees() { "yes" } else { "no" }.to_owned();
            rows.push(vec![
                describe(&live.cell),
                in_virtual.who.clone(),
                name.to_owned(),
                millis(pair.in_virtual),
                millis(pair.live),
                ratio(&pair),
                verdict(&pair),
                ratio(&whole),
                verdict(&whole),
            ]);
        }
    }
    table::render(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_fifteen_of_a_hundred_either_way_agree() {
        let pair = |in_virtual: Option<u64>, live: Option<u64>| Pair {
            in_virtual: in_virtual.map(Duration::from_millis),
            live: live.map(Duration::from_millis),
        };
        for (in_virtual, live, agrees) in [
            (Some(100), Some(114), true),
            (Some(100), Some(86), true),
            (Some(100), Some(116), false),
            (Some(100), Some(84), false),
            (None, None, true),
            (Some(100), None, false),
            (None, Some(100), false),
            (Some(0), Some(0), true),
            (Some(0), Some(1), false),
        ] {
            assert_eq!(pair(in_virtual, live).agrees(), agrees, "{in_virtual:?} {live:?}");
        }
        let ratio = pair(Some(4), Some(6)).plus(Duration::from_millis(16)).ratio();
        assert!(ratio.is_some_and(|ratio| (ratio - 1.1).abs() < 1e-9), "{ratio:?}");
    }
}
