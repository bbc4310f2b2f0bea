//! The estimator on an ideal path with one fault at a time, and against receivers that lie.

use super::*;
use crate::rate::FeedbackBuilder;
use proptest::prelude::*;

const OWD_US: u64 = 25_000;
const CLOCK_US: u64 = 9_000_000;

fn us(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

/// Packets of 1,200 bytes every 4 ms (2.4 Mbit/s) over a path; reports as they come.
#[derive(Default)]
struct Path {
    estimator: Estimator,
    builder: FeedbackBuilder,
    next: u64,
    now_us: u64,
}

impl Path {
    /// Sends until `end_us`. `fate` gives what a packet meets: extra delay in µs, or loss; `clock_us`
    /// is what the receiver's clock shows beyond ours.
    fn run(&mut self, end_us: u64, clock_us: u64, fate: impl Fn(u64) -> Option<u64>) {
        while self.now_us < end_us {
            let (seq, sent) = (self.next, us(self.now_us));
            self.estimator.on_sent(SentPacket { tx_seq: seq, at: sent, bytes: 1200, burst_end: seq | 7 });
            if let Some(queued) = fate(seq) {
                let arrival = self.now_us + OWD_US + queued;
                self.builder.on_packet(us(arrival + clock_us), seq, seq | 7, 1200);
                if let Some(report) = self.builder.poll_feedback(us(arrival + clock_us), &[]) {
                    _ = self.estimator.on_feedback(us(arrival + OWD_US), &report);
                }
            }
            self.next += 1;
            self.now_us += 4000;
        }
    }

    fn estimate(&self) -> Estimate {
        self.estimator.estimate().unwrap()
    }
}

#[test]
fn an_ideal_path_is_seen_as_it_is() {
    let mut path = Path::default();
    path.run(3_000_000, CLOCK_US, |_| Some(0));
    let estimate = path.estimate();
    assert_eq!((estimate.srtt.as_millis(), estimate.queue.as_millis()), (50, 0));
    assert!((2_390_000..2_410_000).contains(&estimate.delivery_rate), "{}", estimate.delivery_rate);
    assert_eq!((estimate.loss_random, estimate.loss_run), (0.0, 1.0));
    assert!(estimate.train_recent.is_some_and(|rate| (2_390_000..2_410_000).contains(&rate)));
    assert!(!estimate.train_stretched);
}

#[test]
fn a_standing_queue_shows_and_a_frames_burst_does_not() {
    let mut path = Path::default();
    path.run(1_000_000, CLOCK_US, |_| Some(0));
    path.run(1_500_000, CLOCK_US, |seq| Some(seq % 8 * 2000));
    assert!(path.estimate().queue < Duration::from_millis(1), "{:?}", path.estimate().queue);
    path.run(2_000_000, CLOCK_US, |seq| Some(20_000 + seq % 8 * 2000));
    assert_eq!(path.estimate().queue.as_millis(), 20);
    path.run(13_000_000, CLOCK_US, |_| Some(20_000));
    assert_eq!(path.estimate().queue, Duration::ZERO, "a path of ten seconds is the path");
}

#[test]
fn loss_is_told_apart_by_the_queue() {
    let mut path = Path::default();
    path.run(4_000_000, CLOCK_US, |seq| (seq % 10 != 0).then_some(0));
    let estimate = path.estimate();
    assert!((0.08..0.12).contains(&estimate.loss_random), "{}", estimate.loss_random);
    assert_eq!(estimate.loss_high, 0.0);
    path.run(6_000_000, CLOCK_US, |seq| (seq % 10 >= 4).then_some(40_000));
    let estimate = path.estimate();
    assert!((0.35..0.45).contains(&estimate.loss_high), "{}", estimate.loss_high);
    assert!((0.08..0.12).contains(&estimate.loss_random), "what a full queue loses is not the air's");
    assert!((2.0..4.0).contains(&estimate.loss_run), "runs of 4 after runs of 1: {}", estimate.loss_run);
    assert!(estimate.high_total.1 > 100);
}

#[test]
fn a_burst_of_losses_is_remembered_by_half() {
    let mut path = Path::default();
    path.run(2_000_000, CLOCK_US, |_| Some(0));
    path.run(2_500_000, CLOCK_US, |seq| (seq % 2 == 0).then_some(0));
    let worst = path.estimate().loss_random;
    assert!(worst > 0.15, "{worst}");
    path.run(4_700_000, CLOCK_US, |_| Some(0));
    assert!(path.estimate().loss_random >= worst / 2.5, "{}", path.estimate().loss_random);
    path.run(12_000_000, CLOCK_US, |_| Some(0));
    assert!(path.estimate().loss_random < 0.01);
}

#[test]
fn reordering_is_not_loss() {
    let mut path = Path::default();
    for seq in 0..500u64 {
        let at = us(seq * 4000);
        path.estimator.on_sent(SentPacket { tx_seq: seq, at, bytes: 1200, burst_end: seq });
        // Every tenth packet arrives with the one after next.
        let arrivals = match seq % 10 {
            0 => vec![],
            2 => vec![seq, seq - 2],
            _ => vec![seq],
        };
        for arrived in arrivals {
            path.builder.on_packet(at + Duration::from_micros(OWD_US), arrived, arrived, 1200);
        }
        if let Some(report) = path.builder.poll_feedback(at + Duration::from_micros(OWD_US), &[]) {
            path.estimator.on_feedback(at + Duration::from_micros(2 * OWD_US), &report).unwrap();
        }
    }
    assert_eq!((path.estimator.stats().lost, path.estimate().loss_random), (0, 0.0));
}

#[test]
fn a_clock_that_jumps_is_noticed_and_forgiven() {
    for jumped in [CLOCK_US + 3_000_000, CLOCK_US - 3_000_000] {
        let mut path = Path::default();
        path.run(2_000_000, CLOCK_US, |_| Some(0));
        // The builder is the receiver's, and a jump backwards must not stop it either.
        path.builder = FeedbackBuilder::default();
        path.run(4_000_000, jumped, |_| Some(0));
        assert_eq!(path.estimate().queue.as_millis(), 0, "{jumped}");
        assert_eq!(path.estimator.stats().clock_jumps, 1);
        path.run(5_000_000, jumped, |_| Some(30_000));
        assert_eq!(path.estimate().queue.as_millis(), 30, "and the new clock serves");
    }
}

#[test]
fn a_clock_that_keeps_jumping_is_not_used_any_more() {
    let mut path = Path::default();
    for jump in 0..8 {
        path.builder = FeedbackBuilder::default();
        // An honest clock would have shown the growing queue; this one hides it.
        path.run((jump + 1) * 1_000_000, CLOCK_US * (1 + jump % 2), |_| {
            Some(if jump < 2 { 0 } else { 60_000 })
        });
    }
    assert_eq!(path.estimate().queue.as_millis(), 60, "the round trip tells");
}

#[test]
fn impossible_claims_are_faults_and_change_nothing() {
    let mut path = Path::default();
    path.run(1_000_000, CLOCK_US, |_| Some(0));
    let before = path.estimate();
    let now = us(path.now_us);
    let never_sent = Feedback::new(path.next, us(CLOCK_US), Duration::ZERO);
    let fault = path.estimator.on_feedback(now, &never_sent).unwrap_err();
    assert_eq!(fault, FeedbackFault::NeverSent { highest: 250, sent: 250 });
    assert_eq!(fault.code(), Code::ProtocolViolation);
    let held = Feedback::new(path.next - 1, us(CLOCK_US), Duration::from_secs(5));
    assert!(matches!(path.estimator.on_feedback(now, &held), Err(FeedbackFault::HeldTooLong { .. })));
    assert_eq!((path.estimate(), path.estimator.stats().faults), (before, 2));
}

#[test]
fn a_flood_of_reports_is_cut_off() {
    let mut path = Path::default();
    path.run(1_000_000, CLOCK_US, |_| Some(0));
    let report = Feedback::new(path.next - 1, us(path.now_us + OWD_US + CLOCK_US), Duration::ZERO);
    let now = us(path.now_us + 2 * OWD_US);
    let used = (0..1000).filter(|_| path.estimator.on_feedback(now, &report).is_ok()).count();
    assert_eq!(used, 64);
    assert!(path.estimator.on_feedback(now + Duration::from_millis(1), &report).is_ok());
}

#[test]
fn history_is_bounded_and_old_reports_are_stale() {
    let mut estimator = Estimator::default();
    for seq in 0..10_000 {
        estimator.on_sent(SentPacket { tx_seq: seq, at: us(seq), bytes: 1200, burst_end: seq });
    }
    assert!(estimator.on_feedback(us(20_000), &Feedback::new(5000, us(1), Duration::ZERO)).is_ok());
    assert_eq!((estimator.stats().stale, estimator.estimate()), (1, None));
}

#[test]
fn silence_is_counted_from_the_first_unanswered_packet() {
    let mut path = Path::default();
    assert_eq!(path.estimator.silence(us(5_000_000)), Duration::ZERO, "nothing was sent");
    path.run(1_000_000, CLOCK_US, |_| Some(0));
    assert!(path.estimator.silence(us(1_000_000)) < Duration::from_millis(60));
    path.run(2_000_000, CLOCK_US, |_| None);
    assert!(path.estimator.silence(us(2_000_000)) > Duration::from_millis(900));
}

#[test]
fn a_claimed_tail_is_only_believed_when_it_should_have_arrived() {
    let mut path = Path::default();
    path.run(1_000_000, CLOCK_US, |_| Some(0));
    let highest = path.next - 1;
    for millis in 0..3 {
        let at = us(path.now_us + millis * 1000);
        path.estimator.on_sent(SentPacket { tx_seq: path.next, at, bytes: 1200, burst_end: path.next + 3 });
        path.next += 1;
    }
    let claim = |after_us: u64| Feedback {
        tail: 1024,
        ..Feedback::new(highest, us(CLOCK_US + 996_000 + OWD_US), Duration::from_micros(after_us - 46_000))
    };
    for after_us in [50_000, 90_000, 121_000] {
        path.estimator.on_feedback(us(996_000 + after_us + 4000), &claim(after_us)).unwrap();
        let lost = if after_us < 121_000 { 0 } else { 3 };
        assert_eq!(path.estimator.stats().lost, lost, "after {after_us} µs");
    }
}

proptest! {
    /// Whatever a receiver says, in whatever order: no panic, nothing absurd comes out.
    #[test]
    fn no_report_breaks_the_estimator(
        reports in proptest::collection::vec((0u64..600, any::<u64>(), 0u64..100_000, 0u64..2000, any::<[u8; 4]>()), 1..100),
    ) {
        let mut path = Path::default();
        path.run(2_000_000, CLOCK_US, |_| Some(0));
        let mut now = us(path.now_us);
        for (highest, arrived, hold, tail, older) in reports {
            now += Duration::from_millis(3);
            let mut report = Feedback::new(highest, us(arrived >> 2), Duration::from_micros(hold));
            report.tail = tail;
            report.lost = arrived;
            report.runs = arrived / 2;
            report.older = older
                .iter()
                .map(|byte| match byte % 3 {
                    0 => Reception::Missing,
                    1 => Reception::Received(None),
                    _ => Reception::Received(Some(us(arrived >> (byte % 60)))),
                })
                .collect();
            _ = path.estimator.on_feedback(now, &report);
            let estimate = path.estimate();
            prop_assert!(estimate.srtt <= Duration::from_secs(10));
            prop_assert!((0.0..=1.0).contains(&estimate.loss_random));
            prop_assert!((1.0..=500.0).contains(&estimate.loss_run));
        }
    }
}

#[test]
fn what_became_of_a_packet_is_not_kept_for_long() {
    let mut path = Path::default();
    // One in a hundred is lost.
    path.run(20_000_000, CLOCK_US, |seq| (seq % 100 != 7).then_some(0));
    let kept = path.estimator.sent.len();
    assert!((150..220).contains(&kept), "{kept} packets of 250 a second");
}
