//! Spaces datagrams out, so that a frame does not fill the path's queue by itself. It knows sizes
//! and times only: the datagrams, and the order in which they leave, are the caller's.

use std::time::Duration;

use crate::units::Timestamp;

/// What a frame may be faster than the average rate: it leaves in two thirds of a frame time.
const PEAK: f64 = 1.5;
/// The same once more was sent than the rate allows (a keyframe): the path is full anyway.
const PEAK_LONG: f64 = 1.02;
/// How much more than the rate may leave at the peak before that: with what is earned meanwhile,
/// a frame half as large again as the average at 30 fps.
const SHORT: Duration = Duration::from_millis(15);
/// Back to back on any link: two packets are 12 ms of 1.5 Mbit/s.
const BURST_MIN_BYTES: f64 = 2400.0;
/// Back to back on fast links: what leaves in one go costs the host one system call and the peer one wake-up, and
/// makes a queue no longer than this.
const BURST: Duration = Duration::from_millis(5);
/// The same on a calm path: a frame of a stream that uses a small part of it leaves in one go.
const BURST_CALM: Duration = Duration::from_millis(10);
/// A queue left by a keyframe is to be gone after this.
const CLEAR: Duration = Duration::from_millis(500);
const BURST_MAX_BYTES: f64 = 16.0 * 1200.0;

/// Says when the next datagram may leave.
///
/// ```
/// use parlor_transport::rate::Pacer;
/// use parlor_transport::units::Timestamp;
///
/// let now = Timestamp::from_micros(1_000_000);
/// let mut pacer = Pacer::default();
/// pacer.set_rates(1_000_000, 0);
/// pacer.enqueue(now, 3600);
/// for _ in 0..2 {
///     assert!(pacer.next_send(now) <= now, "two packets may leave together");
///     pacer.on_sent(now, 1200);
/// }
/// assert!(pacer.next_send(now) > now);
/// ```
#[derive(Debug)]
pub struct Pacer {
    rate: f64,
    floor: f64,
    calm: bool,
    /// When the bytes sent so far have left at the pace they were given.
    free_at: Timestamp,
    /// Bytes that may still leave at [`PEAK`]; below zero after a long burst.
    credit: f64,
    credited: Timestamp,
    queued: u64,
    busy_since: Timestamp,
}

impl Default for Pacer {
    /// As before the first estimate: a first keyframe leaves all but at once.
    fn default() -> Self {
        Pacer {
            rate: 0.0,
            floor: 10e6,
            calm: false,
            free_at: Timestamp::ZERO,
            credit: 0.0,
            credited: Timestamp::ZERO,
            queued: 0,
            busy_since: Timestamp::ZERO,
        }
    }
}

impl Pacer {
    /// The average rate, and what the path is known to carry of a burst, both in bits/s.
    pub fn set_rates(&mut self, rate: u64, burst_rate: u64) {
        (self.rate, self.floor) = (rate.max(1) as f64, burst_rate as f64);
    }

    /// Whether the path carries far more than is used of it.
    pub fn set_calm(&mut self, calm: bool) {
        self.calm = calm;
    }

    /// A datagram is to be sent some time.
    pub fn enqueue(&mut self, now: Timestamp, bytes: usize) {
        if self.queued == 0 {
            self.busy_since = now;
        }
        self.queued = self.queued.saturating_add(bytes as u64);
    }

    /// A datagram that was to be sent is not.
    pub fn on_dropped(&mut self, bytes: usize) {
        self.queued = self.queued.saturating_sub(bytes as u64);
    }

    /// When the next datagram may leave; not after `now` means at once.
    pub fn next_send(&self, now: Timestamp) -> Timestamp {
        let pace = self.pace(now);
        let length = if self.calm { BURST_CALM } else { BURST };
        let burst = (pace / 8.0 * length.as_secs_f64()).clamp(BURST_MIN_BYTES, BURST_MAX_BYTES);
        // The burst's last packet leaves when all before it would have been through but for this.
        self.free_at - Duration::from_secs_f64((burst - 1200.0) * 8.0 / pace)
    }

    /// A datagram left.
    pub fn on_sent(&mut self, now: Timestamp, bytes: usize) {
        let pace = self.pace(now);
        self.credit = self.credit_at(now) - bytes as f64;
        self.credited = now;
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(bytes as f64 * 8.0 / pace);
        self.on_dropped(bytes);
    }

    /// What a source should produce, bits/s: the rate, less what clears the queue in half a second.
    /// To be asked before a frame is encoded, not after it was enqueued.
    pub fn source_rate(&self) -> u64 {
        (self.rate - self.queued as f64 * 8.0 / CLEAR.as_secs_f64()).max(0.0) as u64
    }

    /// Bytes waiting.
    pub fn queued(&self) -> u64 {
        self.queued
    }

    /// How long what waits now takes to leave.
    pub fn drain_time(&self, now: Timestamp) -> Duration {
        Duration::from_secs_f64(self.queued as f64 * 8.0 / self.pace(now))
    }

    /// For how long something has been waiting without a break.
    pub fn queue_age(&self, now: Timestamp) -> Duration {
        if self.queued == 0 { Duration::ZERO } else { now.saturating_since(self.busy_since) }
    }

    fn credit_at(&self, now: Timestamp) -> f64 {
        let earned = self.rate / 8.0 * now.saturating_since(self.credited).as_secs_f64();
        (self.credit + earned).min(self.rate / 8.0 * SHORT.as_secs_f64())
    }

    /// Bits per second.
    fn pace(&self, now: Timestamp) -> f64 {
        let peak = if self.credit_at(now) > 0.0 { PEAK } else { PEAK_LONG };
        (self.rate * peak).max(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    /// Sends packets of 1,200 bytes as soon as each may leave; gives the times in µs.
    fn send(pacer: &mut Pacer, start: u64, packets: usize) -> Vec<u64> {
        let mut now = us(start);
        pacer.enqueue(now, packets * 1200);
        let mut times = Vec::new();
        for _ in 0..packets {
            now = now.max(pacer.next_send(now));
            pacer.on_sent(now, 1200);
            times.push(now.as_micros() - start);
        }
        times
    }

    /// A pacer whose credit is full.
    fn pacer(rate: u64, burst_rate: u64) -> Pacer {
        let mut pacer = Pacer::default();
        pacer.set_rates(rate, burst_rate);
        pacer
    }

    #[test]
    fn a_frame_leaves_at_one_and_a_half_times_the_rate() {
        let times = send(&mut pacer(3_000_000, 0), 1_000_000, 10);
        assert_eq!(times[1], 0, "two packets together");
        let spacing = times[9] - times[8];
        assert!((2100..2200).contains(&spacing), "1,200 bytes at 4.5 Mbit/s take 2.13 ms, not {spacing} µs");
    }

    #[test]
    fn a_keyframe_falls_back_to_the_rate_itself() {
        let times = send(&mut pacer(3_000_000, 0), 1_000_000, 60);
        let spacing = times[59] - times[58];
        assert!((3100..3200).contains(&spacing), "1.02 × 3 Mbit/s: {spacing} µs");
    }

    #[test]
    fn what_the_path_carries_is_the_least_pace() {
        let times = send(&mut pacer(1_000_000, 9_600_000), 1_000_000, 50);
        assert_eq!(times[49] - times[48], 1000);
        assert!(times[49] < 50_000);
    }

    #[test]
    fn fast_links_get_longer_bursts_but_not_without_end() {
        let at_once = |burst_rate| {
            let times = send(&mut pacer(1, burst_rate), 1_000_000, 100);
            times.iter().filter(|time| **time == 0).count()
        };
        assert_eq!([at_once(1_000_000), at_once(10_000_000), at_once(400_000_000)], [2, 5, 16]);
    }

    #[test]
    fn on_a_calm_path_a_frame_leaves_in_one_go() {
        let at_once = |calm| {
            let mut pacer = pacer(1, 9_500_000);
            pacer.set_calm(calm);
            send(&mut pacer, 1_000_000, 100).iter().filter(|time| **time == 0).count()
        };
        assert_eq!([at_once(false), at_once(true)], [4, 9]);
    }

    #[test]
    fn a_pause_earns_no_more_than_a_burst() {
        let mut pacer = pacer(1_000_000, 0);
        send(&mut pacer, 1_000_000, 5);
        let times = send(&mut pacer, 60_000_000, 5);
        assert!(times[2] > 0, "two at once, however long the pause");
    }

    #[test]
    fn the_queue_is_known_and_the_source_is_told() {
        let mut pacer = pacer(1_000_000, 0);
        assert_eq!((pacer.queue_age(us(5)), pacer.source_rate()), (Duration::ZERO, 1_000_000));
        pacer.enqueue(us(1_000_000), 12_500);
        pacer.enqueue(us(1_050_000), 12_500);
        assert_eq!(pacer.queue_age(us(1_090_000)), Duration::from_millis(90));
        assert_eq!(pacer.source_rate(), 600_000, "200 kbit are to be gone in half a second");
        assert!(pacer.drain_time(us(1_090_000)) > Duration::from_millis(130));
        pacer.on_dropped(12_500);
        pacer.on_sent(us(1_090_000), 12_500);
        assert_eq!((pacer.queued(), pacer.queue_age(us(1_100_000))), (0, Duration::ZERO));
    }
}
