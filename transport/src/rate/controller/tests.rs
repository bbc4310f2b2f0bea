//! The rules one by one, on estimates made up for them. What they do together is in `tests/rate_*.rs`.

use super::*;

const MBIT: u64 = 1_000_000;

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_micros(millis * 1000)
}

/// An empty path of 50 ms that delivers `rate`.
fn path(rate: u64) -> Estimate {
    Estimate {
        queue: Duration::ZERO,
        delivery_rate: rate,
        srtt: Duration::from_millis(50),
        rtt_var: Duration::from_millis(1),
        loss_random: 0.0,
        loss_low: 0.0,
        loss_high: 0.0,
        high_total: (0, 0),
        loss_run: 1.0,
        train_first: None,
        train_recent: None,
        train_stretched: false,
    }
}

fn queued(rate: u64, queue_ms: u64) -> Estimate {
    Estimate { queue: Duration::from_millis(queue_ms), ..path(rate) }
}

fn at(rate: u64) -> Controller {
    Controller::new(ControllerConfig { rate_start: rate, ..ControllerConfig::default() })
}

/// Feeds one estimate every 20 ms, from `from` to `to` ms.
fn feed(controller: &mut Controller, from: u64, to: u64, estimate: impl Fn(&Controller) -> Estimate) {
    for millis in (from..to).step_by(20) {
        let estimate = estimate(controller);
        controller.on_estimate(ms(millis), &estimate);
    }
}

#[test]
fn a_call_starts_with_half_of_what_the_first_train_showed() {
    let mut fast = at(600_000);
    fast.on_estimate(ms(0), &Estimate { train_first: Some(3 * MBIT), ..path(600_000) });
    assert_eq!(fast.rate(), 1_500_000);
    let mut slow = at(600_000);
    slow.on_estimate(ms(0), &Estimate { train_first: Some(400_000), ..path(600_000) });
    assert_eq!(slow.rate(), 340_000, "less than it began with, if the path is slower");
}

#[test]
fn a_standing_queue_lowers_the_rate_below_what_arrives_and_then_it_holds() {
    let mut controller = at(3 * MBIT);
    controller.on_estimate(ms(0), &queued(2 * MBIT, 110));
    assert_eq!(controller.rate(), 1_400_000, "0.95 − 100/400 of what arrives");
    controller.on_estimate(ms(10), &queued(MBIT, 110));
    assert_eq!(controller.rate(), 1_400_000, "the report knows nothing of the last step yet");
    controller.on_estimate(ms(40), &queued(MBIT, 110));
    assert_eq!(controller.rate(), 700_000);
}

#[test]
fn loss_without_a_queue_never_lowers_the_rate() {
    let mut controller = at(MBIT);
    feed(&mut controller, 0, 10_000, |controller| Estimate {
        loss_random: 0.5,
        loss_low: 0.5,
        loss_high: 0.5,
        ..path(controller.rate() / 2)
    });
    assert!(controller.rate() > MBIT, "{}", controller.rate());
}

#[test]
fn loss_that_comes_with_a_queue_lowers_it() {
    let mut controller = at(MBIT);
    controller.on_estimate(ms(0), &Estimate { loss_high: 0.2, ..queued(MBIT, 20) });
    assert_eq!(controller.rate(), 850_000);
}

#[test]
fn it_grows_fast_to_what_was_known_and_slowly_near_it() {
    let mut controller = at(2 * MBIT);
    controller.on_estimate(ms(0), &queued(2 * MBIT, 200));
    let low = controller.rate();
    assert!(low < MBIT);
    feed(&mut controller, 40, 640, |controller| path(controller.rate()));
    assert!(controller.rate() > 1_700_000, "{}", controller.rate());
    feed(&mut controller, 640, 1140, |controller| path(controller.rate()));
    assert!(controller.rate() < 1_900_000, "{}", controller.rate());
}

#[test]
fn bursts_leave_as_fast_as_the_path_carries_them_and_probe_when_that_is_not_known() {
    let mut controller = at(MBIT);
    let train =
        |stretched| Estimate { train_recent: Some(2 * MBIT), train_stretched: stretched, ..path(MBIT) };
    controller.on_estimate(ms(0), &train(true));
    assert_eq!(controller.burst_rate(), 1_900_000);
    controller.on_estimate(ms(20), &train(false));
    assert_eq!(controller.burst_rate(), 2_400_000);
}

#[test]
fn a_stretched_train_bounds_growth() {
    let mut controller = at(MBIT);
    feed(&mut controller, 0, 20_000, |controller| Estimate {
        train_recent: Some(2 * MBIT),
        train_stretched: true,
        ..path(controller.rate())
    });
    assert_eq!(controller.rate(), 1_900_000);
}

#[test]
fn a_small_queue_holds_the_rate_where_it_is() {
    let mut controller = at(MBIT);
    feed(&mut controller, 0, 5000, |_| queued(MBIT, 20));
    assert_eq!(controller.rate(), MBIT);
}

#[test]
fn what_is_not_used_does_not_grow_and_decays() {
    let mut controller = at(MBIT);
    feed(&mut controller, 0, 20_000, |_| path(300_000));
    assert_eq!(controller.rate(), 530_000, "1.6 × 300 kbit/s + 50 kbit/s");
    feed(&mut controller, 20_000, 22_000, |_| path(0));
    assert!(controller.rate() > 450_000, "a muted camera does not forget the path at once");
}

#[test]
fn somebody_elses_queue_does_not_starve_us() {
    let mut controller = at(MBIT);
    feed(&mut controller, 0, 1000, |_| path(MBIT / 2));
    let before = controller.rate();
    let cubic = |controller: &Controller| Estimate {
        train_recent: Some(2 * MBIT),
        train_stretched: true,
        ..queued(controller.rate(), 150)
    };
    feed(&mut controller, 1000, 3000, cubic);
    assert!(controller.rate() < before / 4, "it gives way at first");
    feed(&mut controller, 3000, 10_000, cubic);
    assert!(controller.rate() > before / 2, "and stands up when that does not help: {}", controller.rate());
    let high = controller.rate();
    controller.on_estimate(ms(10_000), &Estimate { high_total: (100, 5), ..cubic(&controller) });
    assert_eq!(controller.rate(), (high as f64 * 0.7) as u64, "an overflow is answered");
    feed(&mut controller, 10_020, 14_000, |controller| path(controller.rate()));
    controller.on_estimate(ms(14_000), &queued(controller.rate(), 150));
    assert_eq!(controller.state(ms(14_000)), PathState::Overfull, "when they are gone, delay rules again");
}

#[test]
fn our_own_queue_is_not_taken_for_somebody_elses() {
    let mut controller = at(3 * MBIT);
    feed(&mut controller, 0, 6000, |_| Estimate {
        train_recent: Some(MBIT),
        train_stretched: true,
        ..queued(MBIT, 150)
    });
    assert!(controller.rate() <= 650_000, "{}", controller.rate());
}

#[test]
fn silence_opens_the_breaker_and_reports_close_it() {
    let mut controller = at(MBIT);
    controller.on_estimate(ms(0), &path(MBIT));
    let rate = controller.rate();
    controller.on_silence(Duration::from_millis(490));
    assert_eq!((controller.rate(), controller.state(ms(490))), (rate, PathState::Open));
    for _ in 0..2 {
        controller.on_silence(Duration::from_millis(1010));
    }
    assert_eq!((controller.rate(), controller.state(ms(1010))), (rate / 4, PathState::Broken));
    controller.on_silence(Duration::from_secs(1000));
    assert_eq!(controller.rate(), ControllerConfig::default().rate_min);
    controller.on_estimate(ms(1_000_000), &path(50_000));
    assert_eq!(controller.state(ms(1_000_000)), PathState::Open);
}

#[test]
fn heavy_loss_in_a_full_queue_opens_the_breaker() {
    let mut controller = at(MBIT);
    let choked = |_: &Controller| Estimate { loss_high: 0.5, ..queued(MBIT, 200) };
    feed(&mut controller, 0, 2000, choked);
    assert_ne!(controller.state(ms(2000)), PathState::Broken);
    feed(&mut controller, 2000, 2100, choked);
    assert_eq!((controller.rate(), controller.state(ms(2100))), (50_000, PathState::Broken));
    feed(&mut controller, 2100, 2200, |_| path(50_000));
    assert_eq!(controller.state(ms(2200)), PathState::Open);
}

#[test]
fn overfull_ends_by_itself() {
    let mut controller = at(MBIT);
    controller.on_estimate(ms(0), &queued(MBIT, 135));
    assert_eq!(controller.state(ms(99)), PathState::Overfull);
    assert_eq!(controller.state(ms(100)), PathState::Queued, "nothing is sent, so no report says so");
}

#[test]
fn the_window_never_limits_the_pacer() {
    let controller = at(MBIT);
    let (rtt, ack) = (Duration::from_millis(55), Duration::from_millis(25));
    assert_eq!(controller.quic_window(rtt, ack, 0), 25_000);
    assert_eq!(controller.quic_window(rtt, ack, 40_000), 80_000);
    assert_eq!(controller.quic_window(rtt, ack, u64::MAX), u64::MAX);
}

#[test]
fn a_path_is_calm_after_a_while_with_room_to_spare_and_neither_queue_nor_loss() {
    let roomy = |rate| Estimate { train_recent: Some(10 * MBIT), ..path(rate) };
    let mut controller = at(3 * MBIT);
    feed(&mut controller, 0, 1400, |_| roomy(2 * MBIT));
    assert!(!controller.is_calm(ms(1400)), "not yet");
    feed(&mut controller, 1400, 1800, |_| roomy(2 * MBIT));
    assert!(controller.is_calm(ms(1800)));
    let disturbances = [
        Estimate { train_recent: Some(4 * MBIT), ..path(2 * MBIT) },
        Estimate { queue: Duration::from_millis(40), ..roomy(2 * MBIT) },
        Estimate { loss_random: 0.005, ..roomy(2 * MBIT) },
    ];
    for (from, disturbance) in (1800..).step_by(1800).zip(disturbances) {
        controller.on_estimate(ms(from), &disturbance);
        assert!(!controller.is_calm(ms(from)), "{disturbance:?}");
        feed(&mut controller, from + 20, from + 1800, |_| roomy(2 * MBIT));
        assert!(controller.is_calm(ms(from + 1800)));
    }
    controller.on_silence(Duration::from_secs(1));
    assert!(!controller.is_calm(ms(7200)), "nobody says that anything arrives");
}
