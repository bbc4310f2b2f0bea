//! How long requests take: a histogram of fixed size for each operation.

use std::time::Duration;

use parlor_transport::wire::control::ClientMessage;

/// Upper ends of the buckets, µs: a request takes some 10 µs, one with a token up to 1 ms, and what takes 100 ms
/// waited for others.
pub const BUCKETS_US: [u64; 9] = [10, 25, 50, 100, 250, 1_000, 5_000, 25_000, 100_000];

/// Durations, counted in buckets.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Histogram {
    /// How many fell into each of [`BUCKETS_US`], and not into an earlier one.
    counts: [u64; BUCKETS_US.len()],
    count: u64,
    sum: Duration,
}

impl Histogram {
    /// Counts one more.
    pub fn record(&mut self, took: Duration) {
        let us = took.as_micros();
        if let Some(at) = BUCKETS_US.iter().position(|&end| us <= u128::from(end)) {
            self.counts[at] += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The upper end of each bucket, and how many were no longer than it.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let sum = |total: &mut u64, (&end, &count): (&u64, &u64)| {
            *total += count;
            Some((Duration::from_micros(end), *total))
        };
        BUCKETS_US.iter().zip(&self.counts).scan(0, sum)
    }
}

/// What a request is called in the metrics.
pub fn operation(message: &ClientMessage) -> &'static str {
    match message {
        ClientMessage::Hello(_) => "hello",
        ClientMessage::Join(_) => "join",
        ClientMessage::Leave(_) => "leave",
        ClientMessage::Publish(_) => "publish",
        ClientMessage::Unpublish(_) => "unpublish",
        ClientMessage::Play(_) => "play",
        ClientMessage::UpdatePlay(_) => "update_play",
        ClientMessage::StopPlay(_) => "stop_play",
        ClientMessage::RequestKeyframe(_) => "request_keyframe",
        ClientMessage::ProbeClock(_) => "probe_clock",
        ClientMessage::Resume(_) => "resume",
        ClientMessage::RenewToken(_) => "renew_token",
        ClientMessage::Moderate(_) => "moderate",
        ClientMessage::SetTrackState(_) => "set_track_state",
        ClientMessage::SetStreamInfo(_) => "set_stream_info",
        ClientMessage::SetRoomInfo(_) => "set_room_info",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_counted_once_and_the_longest_in_no_bucket() {
        let mut histogram = Histogram::default();
        for us in [0, 10, 11, 100, 100_000, 100_001] {
            histogram.record(Duration::from_micros(us));
        }
        let counts: Vec<_> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 3, 3, 4, 4, 4, 4, 4, 5]);
        assert_eq!((histogram.count(), histogram.sum()), (6, Duration::from_micros(200_122)));
    }
}
