//! When reports are due, and that they tell the truth.

use super::*;
use proptest::prelude::*;

fn us(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

/// A builder that has long been receiving packets 0 to `last`, 1 ms apart, and has just reported.
fn settled(last: u64) -> (FeedbackBuilder, u64) {
    let mut builder = FeedbackBuilder::default();
    let mut now = 0;
    for seq in 0..=last {
        now = 10_000_000 + seq * 1000;
        builder.on_packet(us(now), seq, seq | 7, 1000);
    }
    now += 60_000;
    builder.poll_feedback(us(now), &[]).unwrap();
    (builder, now)
}

#[test]
fn a_gap_is_reported_at_once_but_not_within_two_milliseconds() {
    let (mut builder, now) = settled(99);
    builder.on_packet(us(now + 500), 101, 101, 1000);
    assert_eq!(builder.poll_timeout(), Some(us(now + 2000)));
    assert!(builder.poll_feedback(us(now + 1999), &[]).is_none());
    let report = builder.poll_feedback(us(now + 2000), &[]).unwrap();
    assert_eq!((report.highest, report.hold.as_micros()), (101, 1500));
    assert_eq!(report.older[0], Reception::Missing);
    assert!(builder.poll_timeout().unwrap() > us(now + 20_000), "once is enough for one gap");
}

#[test]
fn reordering_is_learned_and_forgotten() {
    let (mut builder, mut now) = settled(99);
    builder.on_packet(us(now), 101, 101, 1000);
    builder.on_packet(us(now + 3000), 100, 100, 1000);
    assert_eq!(builder.reorder_wait().as_micros(), 3000);
    now += 10_000;
    builder.on_packet(us(now), 103, 103, 1000);
    assert_eq!(builder.poll_timeout(), Some(us(now + 3000)), "the gap may be reordering again");
    builder.on_packet(us(now + 1000), 102, 102, 1000);
    assert!(builder.poll_timeout().unwrap() > us(now + 3000), "and it was");
    now += 31_000_000;
    builder.on_packet(us(now), 104, 104, 1000);
    builder.poll_feedback(us(now), &[]).unwrap();
    assert_eq!(builder.reorder_wait(), Duration::ZERO);
    assert_eq!(builder.stats().lost, 0);
}

#[test]
fn a_lost_tail_is_claimed_when_the_burst_should_have_ended() {
    let (mut builder, now) = settled(103);
    builder.on_packet(us(now + 5000), 104, 107, 1000);
    let due = builder.poll_timeout().unwrap().as_micros() - now - 5000;
    assert!((7000..=9000).contains(&due), "4 ms + three spacings of 1 ms and the deviation, was {due}");
    let report = builder.poll_feedback(us(now + 5000 + due), &[]).unwrap();
    assert_eq!((report.highest, report.tail, report.covered()), (104, 3, 107));
    assert!(builder.poll_timeout().unwrap() > us(now + 20_000), "the same tail is claimed once");
}

#[test]
fn reports_come_regularly_and_end_with_the_packets() {
    let (mut builder, now) = settled(5000);
    assert_eq!(builder.poll_timeout(), Some(us(now + 50_000)));
    builder.set_incomplete(true);
    assert_eq!(builder.poll_timeout(), Some(us(now + 5_000)));
    builder.set_incomplete(false);
    let mut reports = 0;
    while let Some(due) = builder.poll_timeout() {
        assert!(builder.poll_feedback(due, &[]).is_some());
        reports += 1;
    }
    assert_eq!(reports, REPORTS_AFTER_LAST - 1);
}

#[test]
fn losses_and_their_runs_are_counted_once_settled() {
    let mut builder = FeedbackBuilder::default();
    for seq in (0..400u64).filter(|seq| !matches!(seq, 10..=12 | 50 | 52 | 390..)) {
        builder.on_packet(us(seq * 1000), seq, seq, 1000);
    }
    let report = builder.poll_feedback(us(500_000), &[]).unwrap();
    assert_eq!((report.lost, report.runs), (5, 3));
}

#[test]
fn absurd_numbers_cost_nothing() {
    let mut builder = FeedbackBuilder::default();
    builder.on_packet(us(1), 5, u64::MAX, 1000);
    builder.on_packet(us(2), u64::MAX - 1, u64::MAX, 1000);
    builder.on_packet(us(3), 6, 6, 1000);
    builder.on_packet(us(4), u64::MAX, 0, usize::MAX);
    let report = builder.poll_feedback(us(10_000), &[]).unwrap();
    assert_eq!((report.highest, report.older.len()), (u64::MAX, OLDER_MAX));
    assert_eq!(builder.stats().stale, 1);
}

proptest! {
    /// Whatever comes in whatever order: the report says exactly what arrived.
    #[test]
    fn reports_tell_the_truth(steps in proptest::collection::vec((0u64..300, 0u64..5000), 1..200)) {
        let mut builder = FeedbackBuilder::default();
        let mut arrived = std::collections::BTreeMap::new();
        let (mut now, mut first) = (0, None);
        for (seq, pause) in steps {
            now += pause;
            builder.on_packet(us(now), seq, seq + 3, 100);
            let highest = *arrived.keys().next_back().unwrap_or(&seq);
            if first.is_none_or(|first| seq >= first) && seq + (SETTLED as u64) > highest {
                arrived.entry(seq).or_insert(now);
            }
            first.get_or_insert(seq);
            if let Some(report) = builder.poll_feedback(us(now), &[]) {
                for (seq, reception) in report.packets() {
                    match reception {
                        Reception::Missing => prop_assert!(!arrived.contains_key(&seq)),
                        Reception::Received(Some(at)) => prop_assert_eq!(arrived.get(&seq), Some(&at.as_micros())),
                        Reception::Received(None) => prop_assert!(arrived.contains_key(&seq)),
                    }
                }
            }
        }
    }
}

/// Reports of two seconds in which a frame of seven packets comes every 33 ms; all arrive, but for those in `lost`.
fn reports(calm: bool, lost: &[u64]) -> Vec<(Timestamp, Feedback)> {
    let mut builder = FeedbackBuilder::default();
    builder.set_calm(calm);
    let mut reports = Vec::new();
    let mut next = 0;
    for tick in 10_000..12_000_u64 {
        let now = us(tick * 1000);
        for index in 0..if tick % 33 == 0 { 7 } else { 0 } {
            if !lost.contains(&next) {
                builder.on_packet(now, next, next / 7 * 7 + 6, 1000);
            }
            next += 1;
            // The frame is looked at after every packet.
            builder.set_incomplete(index < 6 || lost.iter().any(|lost| lost / 7 == (next - 1) / 7));
            reports.extend(builder.poll_feedback(now, &[]).map(|report| (now, report)));
        }
        reports.extend(builder.poll_feedback(now, &[]).map(|report| (now, report)));
    }
    reports
}

#[test]
fn on_a_calm_path_reports_are_few_and_short_but_a_gap_is_told_at_once() {
    let (usual, calm) = (reports(false, &[]), reports(true, &[]));
    // Ten in 2 s, and a few at the beginning.
    assert!(calm.len() <= 13, "{} and {}", calm.len(), usual.len());
    assert!(calm.len() * 2 < usual.len(), "{} and {}", calm.len(), usual.len());
    let covered: Vec<_> = calm.iter().skip(5).map(|(_, report)| report.older.len()).collect();
    assert!(covered.iter().all(|&packets| (42..120).contains(&packets)), "two or three reports: {covered:?}");

    // The middle of a frame, and the end of one.
    for lost in [213, 216] {
        let all = reports(true, &[lost]);
        let came = us((lost / 7 * 33 + 10_032) / 33 * 33 * 1000);
        let is_told = |report: &Feedback| {
            report.covered() >= lost
                && report.packets().all(|(packet, it)| packet != lost || it == Reception::Missing)
        };
        let (told, _) = all.iter().find(|(at, report)| *at >= came && is_told(report)).unwrap();
        let took = told.saturating_since(came);
        assert!(took <= Duration::from_millis(6), "packet {lost}: {took:?} after its frame");
        // Until the next frame, it lacks something: a report may be lost.
        let repeats =
            all.iter().filter(|(at, _)| (came..came + Duration::from_millis(33)).contains(at)).count();
        assert!(repeats >= 4, "packet {lost}: {repeats} reports");
    }
}
