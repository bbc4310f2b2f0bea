//! Quantiles over values some of which never came: a frame that was lost counts as infinitely late.

use std::time::Duration;

/// Sorted delays; `None` stands for "never" and sorts last.
#[derive(Debug, Clone)]
pub struct Delays {
    sorted: Vec<Duration>,
    never: usize,
}

impl Delays {
    /// Takes one value for each thing that was waited for.
    pub fn new(values: impl IntoIterator<Item = Option<Duration>>) -> Self {
        let mut never = 0;
        let mut sorted: Vec<Duration> = Vec::new();
        for value in values {
            match value {
                Some(delay) => sorted.push(delay),
                None => never += 1,
            }
        }
        sorted.sort_unstable();
        Delays { sorted, never }
    }

    /// Adds those of another measurement.
    pub fn join(&mut self, other: Delays) {
        self.sorted.extend(other.sorted);
        self.sorted.sort_unstable();
        self.never += other.never;
    }

    /// Those that came, the smallest first.
    pub fn came(&self) -> &[Duration] {
        &self.sorted
    }

    /// The smallest delay that at least the share `q` (0–1) did not exceed; `None` is "never".
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let rank = ((q * self.len() as f64).ceil() as usize).max(1);
        self.sorted.get(rank - 1).copied()
    }

    /// The share (0–1) that came within `limit`.
    pub fn share_within(&self, limit: Duration) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        self.sorted.partition_point(|delay| *delay <= limit) as f64 / self.len() as f64
    }

    /// How many were waited for.
    pub fn len(&self) -> usize {
        self.sorted.len() + self.never
    }

    /// Whether nothing was waited for.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many never came.
    pub fn never(&self) -> usize {
        self.never
    }
}

/// A delay as a table shows it, in ms.
pub fn millis(delay: Option<Duration>) -> String {
    match delay {
        Some(delay) => format!("{:.1}", delay.as_secs_f64() * 1000.0),
        None => "never".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_came_is_later_than_everything() {
        let ms = Duration::from_millis;
        let delays = Delays::new((1..=99).map(|n| Some(ms(n))).chain([None]));
        assert_eq!(delays.quantile(0.5), Some(ms(50)));
        assert_eq!(delays.quantile(0.99), Some(ms(99)));
        assert_eq!(delays.quantile(1.0), None);
        assert_eq!(delays.share_within(ms(50)), 0.5);
        assert_eq!((delays.len(), delays.never()), (100, 1));
    }
}
