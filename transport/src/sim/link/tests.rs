//! The arithmetic of one link, in numbers worked out by hand.

use super::*;
use crate::sim::{Loss, Reorder, seeded};

fn us(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn link(config: LinkConfig) -> Link<u32> {
    Link::new(config, seeded(1, "test"))
}

/// Everything that arrives from now on, with its time.
fn arrivals(link: &mut Link<u32>) -> Vec<(u64, u32)> {
    let mut all = Vec::new();
    while let Some(at) = link.poll_timeout() {
        while let Some(packet) = link.poll_arrival(at) {
            all.push((at.as_micros(), packet));
        }
    }
    all
}

fn fate(result: Result<(), (Fate, u32)>) -> Option<Fate> {
    result.err().map(|(fate, _)| fate)
}

/// 1,000 bytes take 1 ms.
const RATE: Option<u64> = Some(8_000_000);

#[test]
fn a_packet_takes_its_transmission_and_the_delay_and_waits_for_those_before() {
    let mut link = link(LinkConfig { delay: ms(10), rate: RATE, ..LinkConfig::default() });
    for n in 0..3 {
        link.handle_packet(us(0), n, 1_000).unwrap();
    }
    link.handle_packet(us(2_500), 3, 500).unwrap();
    link.handle_packet(us(9_000), 4, 1_000).unwrap();
    assert_eq!(link.poll_arrival(us(10_999)), None);
    assert_eq!(arrivals(&mut link), [(11_000, 0), (12_000, 1), (13_000, 2), (13_500, 3), (20_000, 4)]);
    assert_eq!(link.stats().queue_delay_max(), ms(2));
    assert_eq!(link.stats().queue_delay_quantile(0.5), Duration::from_micros(500));
    assert_eq!(link.stats().delivered, Tally { packets: 5, bytes: 4_500 });
}

#[test]
fn a_full_queue_drops_what_comes_last_and_takes_more_once_it_drains() {
    let mut link = link(LinkConfig { rate: RATE, queue_max: 3_000, ..LinkConfig::default() });
    for n in 0..3 {
        link.handle_packet(us(0), n, 1_000).unwrap();
    }
    assert_eq!(fate(link.handle_packet(us(0), 3, 1_000)), Some(Fate::QueueFull));
    assert_eq!(fate(link.handle_packet(us(999), 4, 1)), Some(Fate::QueueFull));
    assert_eq!(fate(link.handle_packet(us(1_000), 5, 1_000)), None);
    assert_eq!(arrivals(&mut link), [(1_000, 0), (2_000, 1), (3_000, 2), (4_000, 5)]);
    assert_eq!(link.stats().queue_full, Tally { packets: 2, bytes: 1_001 });
}

#[test]
fn fast_links_do_not_round_transmission_away() {
    let mut link =
        link(LinkConfig { rate: Some(1_000_000_000), queue_max: 1 << 20, ..LinkConfig::default() });
    for n in 0..500 {
        link.handle_packet(us(0), n, 1_228).unwrap();
    }
    // 500 × 9.824 µs.
    assert_eq!(arrivals(&mut link).last(), Some(&(4_912, 499)));
}

#[test]
fn a_new_rate_holds_for_what_still_waits() {
    let config = LinkConfig { delay: ms(10), rate: RATE, ..LinkConfig::default() };
    let mut link = link(config.clone());
    for n in 0..3 {
        link.handle_packet(us(0), n, 1_000).unwrap();
    }
    // Packet 0 is out and travels; of packet 1 half is out, the other half now takes 5 ms.
    link.configure(us(1_500), LinkConfig { rate: Some(800_000), ..config.clone() });
    link.handle_packet(us(1_500), 3, 1_000).unwrap();
    let mut quickened = Link::new(config.clone(), seeded(1, "test"));
    for n in 0..2 {
        quickened.handle_packet(us(0), n, 1_000).unwrap();
    }
    quickened.configure(us(500), LinkConfig { rate: None, ..config });
    assert_eq!(arrivals(&mut link), [(11_000, 0), (16_500, 1), (26_500, 2), (36_500, 3)]);
    assert_eq!(arrivals(&mut quickened), [(10_500, 0), (10_500, 1)]);
}

#[test]
fn a_lost_packet_has_used_its_share_of_the_rate() {
    let config = LinkConfig { rate: RATE, loss: Loss::Random(1.0), ..LinkConfig::default() };
    let mut link = link(config.clone());
    assert_eq!(fate(link.handle_packet(us(0), 0, 1_000)), Some(Fate::Lost));
    link.configure(us(0), LinkConfig { loss: Loss::None, ..config });
    link.handle_packet(us(0), 1, 1_000).unwrap();
    assert_eq!(arrivals(&mut link), [(2_000, 1)]);
}

#[test]
fn order_survives_a_shorter_delay_and_ordered_jitter() {
    let config = LinkConfig { delay: ms(50), ..LinkConfig::default() };
    let mut shortened = link(config.clone());
    shortened.handle_packet(us(0), 0, 100).unwrap();
    shortened.configure(us(1_000), LinkConfig { delay: ms(5), ..config.clone() });
    shortened.handle_packet(us(1_000), 1, 100).unwrap();
    assert_eq!(arrivals(&mut shortened), [(50_000, 0), (50_000, 1)]);

    let (mean, max) = (ms(10), ms(40));
    for (jitter, ordered) in
        [(Jitter::InOrder { mean, max }, true), (Jitter::Independent { mean, max }, false)]
    {
        let mut link = link(LinkConfig { jitter, ..config.clone() });
        for n in 0..1_000 {
            link.handle_packet(us(u64::from(n) * 1_000), n, 100).unwrap();
        }
        let all = arrivals(&mut link);
        assert_eq!(all.is_sorted_by_key(|(_, packet)| *packet), ordered);
        let late: Vec<_> = all.iter().map(|(at, packet)| at - u64::from(*packet) * 1_000 - 50_000).collect();
        // In order, a late packet holds up those behind it, but nobody for longer than the latest.
        assert!(late.iter().all(|late| *late <= 40_000));
        assert!(late.iter().any(|late| *late > 25_000) && late.iter().any(|late| *late < 5_000));
        if !ordered {
            let mean = late.iter().sum::<u64>() / 1_000;
            assert!((9_000..11_000).contains(&mean), "mean jitter {mean} µs");
        }
    }
}

#[test]
fn uniform_jitter_overtakes_and_fills_its_range_evenly() {
    let jitter = Jitter::Uniform { max: ms(10) };
    let mut link = link(LinkConfig { jitter, ..LinkConfig::default() });
    for n in 0..2_000 {
        link.handle_packet(us(u64::from(n) * 1_000), n, 100).unwrap();
    }
    let all = arrivals(&mut link);
    assert!(!all.is_sorted_by_key(|(_, packet)| *packet));
    let mut thirds = [0; 3];
    for (at, packet) in all {
        let late = at - u64::from(packet) * 1_000;
        assert!(late <= 10_000, "{late} µs");
        thirds[(late as usize * 3 / 10_001).min(2)] += 1;
    }
    assert!(thirds.iter().all(|third| (590..740).contains(third)), "{thirds:?}");
}

#[test]
fn a_packet_held_back_is_overtaken_and_holds_up_nobody() {
    let reorder = Reorder { share: 0.1, held: ms(7) };
    let mut link = link(LinkConfig { delay: ms(10), reorder, ..LinkConfig::default() });
    for n in 0..1_000 {
        link.handle_packet(us(u64::from(n) * 1_000), n, 100).unwrap();
    }
    let mut held = 0;
    for (at, packet) in arrivals(&mut link) {
        match at - u64::from(packet) * 1_000 {
            10_000 => {}
            17_000 => held += 1,
            other => panic!("packet {packet} took {other} µs"),
        }
    }
    assert!((75..125).contains(&held), "{held} of 1,000 held back");
}

#[test]
fn outages_and_the_mtu_drop_exactly_what_they_cover() {
    let mut link = link(LinkConfig { delay: ms(10), mtu: 1_280, ..LinkConfig::default() });
    link.outage(us(0), us(5_000), us(7_000));
    let fates = [4_999, 5_000, 6_999, 7_000].map(|at| fate(link.handle_packet(us(at), 0, 1_280)));
    assert_eq!(fates, [None, Some(Fate::Outage), Some(Fate::Outage), None]);
    assert_eq!(fate(link.handle_packet(us(8_000), 0, 1_281)), Some(Fate::TooBig));
    assert_eq!(arrivals(&mut link).len(), 2);
    assert_eq!((link.stats().outage.packets, link.stats().too_big.packets), (2, 1));
}

#[test]
fn packets_on_the_way_are_bounded() {
    let mut link = link(LinkConfig { delay: ms(1), ..LinkConfig::default() });
    let accepted = (0..70_000).filter(|n| link.handle_packet(us(0), *n, 100).is_ok()).count();
    assert_eq!(accepted, Link::<u32>::FLIGHTS_MAX);
}

#[test]
fn changing_jitter_leaves_the_pattern_of_loss_as_it_was() {
    let lost = |jitter| {
        let mut link = link(LinkConfig { jitter, loss: Loss::Random(0.3), ..LinkConfig::default() });
        (0..200).map(|n| link.handle_packet(us(u64::from(n)), n, 100).is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(lost(Jitter::None), lost(Jitter::InOrder { mean: ms(5), max: ms(50) }));
}
