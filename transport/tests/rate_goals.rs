//! If this fails, rate control misses a goal that it has reached: on a model of a bottleneck in
//! virtual time (`rate_model`), not on the real stack, whose word `parlor-bench rate` has.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's way to fail")]

mod rate_model;

use rate_model::cases::{self, ALL};

/// Each is the worst of so many; `examples/rate_cases.rs` runs more.
const SEEDS: u64 = 3;

fn assert_met(names: &str) {
    let cases: Vec<_> = ALL.iter().filter(|(name, _)| name.contains(names)).collect();
    assert!(!cases.is_empty(), "no case is called {names}");
    let mut missed = Vec::new();
    for (name, case) in cases {
        for figure in cases::worst(*case, SEEDS) {
            println!("{name} | {figure}");
            if !figure.is_met() {
                missed.push(format!("{name}: {figure}"));
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn the_queue_stays_short_and_the_path_full() {
    assert_met("Mbit/s, RTT");
}

#[test]
fn a_step_down_drains_within_a_second_and_a_step_up_is_found() {
    assert_met("3→1→3");
}

#[test]
fn random_loss_does_not_close_the_window() {
    assert_met("% loss");
}

#[test]
fn jitter_on_either_way_is_not_a_queue() {
    assert_met("jitter");
}

#[test]
fn shallow_buffers_are_filled_without_much_loss() {
    assert_met("buffer");
}

#[test]
fn rfc_8867_5_1_one_flow_follows_the_capacity() {
    assert_met("RFC 8867 5.1");
}

#[test]
fn rfc_8867_5_2_two_flows_follow_it_together() {
    assert_met("RFC 8867 5.2");
}

#[test]
fn rfc_8867_5_4_late_flows_get_their_share() {
    assert_met("RFC 8867 5.4");
}

#[test]
fn beside_tcp_it_neither_starves_nor_starves_others() {
    assert_met("Cubic");
}

#[test]
fn one_seed_gives_one_run() {
    let run = || {
        let link = rate_model::Link { loss: 0.05, jitter_ms: 3.0, ..rate_model::Link::new(2_000_000, 60) };
        let outcome = rate_model::run(&link, &[rate_model::Flow::media(0.0)], 20.0, 7);
        outcome.passed.iter().map(|packet| (packet.left, packet.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

/// The receiver falls silent for three seconds: nothing more may be sent than keeps the connection
/// alive, and then the call goes on.
#[test]
fn silence_opens_the_breaker_and_the_rate_comes_back() {
    let mut link = rate_model::Link::new(3_000_000, 50);
    link.return_outage = Some((20.0, 23.0));
    let outcome = rate_model::run(&link, &[rate_model::Flow::media(0.0)], 40.0, 1);
    let before = outcome.throughput(0, 15.0, 20.0);
    let silent = outcome.throughput(0, 22.0, 23.0);
    assert!(before > 2_700_000.0 && silent < before / 10.0, "{before} {silent}");
    let back = outcome.reached(0, 23.0, 0.85);
    assert!(back < 4.0, "back after {back} s");
}
