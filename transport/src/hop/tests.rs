//! Sender and receiver against each other over a link that loses, delays and reorders, both ways.

mod relayed;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::id::StreamAlias;
use crate::units::Timestamp;
use crate::wire::control::Delivery;
use crate::wire::feedback::Feedback;
use crate::wire::frame::{Frame, FrameHeader};
use crate::wire::packet::{Packet, Part};

const STEP: Duration = Duration::from_micros(100);

struct Scene {
    seed: u64,
    rtt: Duration,
    /// Share of packets lost on the way of the media, and on the way back.
    loss: f64,
    loss_back: f64,
    /// Bits a second; unlimited if zero.
    rate: u64,
    jitter: Duration,
    delivery: Delivery,
    frames: u64,
    /// Bytes of an ordinary frame; a keyframe has five times as many.
    size: usize,
    interval: Duration,
    urgent: bool,
    parity: bool,
}

impl Default for Scene {
    fn default() -> Self {
        Scene {
            seed: 1,
            rtt: Duration::from_millis(50),
            loss: 0.0,
            loss_back: 0.0,
            rate: 10_000_000,
            jitter: Duration::ZERO,
            delivery: Delivery::Adaptive,
            frames: 1800,
            size: 4032,
            interval: Duration::from_micros(33_333),
            urgent: false,
            parity: true,
        }
    }
}

struct Result {
    /// Delay beyond one way of each frame, by number; what is not there never came.
    delays: BTreeMap<u64, Duration>,
    frames: u64,
    /// Datagram bytes over object bytes, minus one.
    overhead: f64,
    stats: SendStats,
}

impl Result {
    fn quantile_ms(&self, q: f64) -> f64 {
        let mut sorted: Vec<f64> = self.delays.values().map(|delay| delay.as_secs_f64() * 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.resize(self.frames as usize, f64::INFINITY);
        sorted[((q * self.frames as f64) as usize).min(sorted.len() - 1)]
    }
}

fn frame(number: u64, scene: &Scene) -> CodedFrame {
    let keyframe = scene.urgent || number.is_multiple_of(120);
    let header = FrameHeader {
        alias: StreamAlias(1),
        track: 0,
        spatial: 0,
        temporal: 0,
        number,
        captured: Timestamp::from_micros(number),
        keyframe,
        discardable: false,
        level: None,
        metadata: Bytes::new(),
    };
    let size = if keyframe && !scene.urgent { scene.size * 5 } else { scene.size };
    let payload: Vec<u8> = (0..size as u64).map(|at| (at * 31 + number * 7) as u8).collect();
    Frame::new(header, &payload).unwrap().into()
}

fn play(scene: &Scene) -> Result {
    let mut rng = rand::rngs::Xoshiro256PlusPlus::seed_from_u64(scene.seed);
    let (mut sender, mut receiver) = (HopSender::default(), HopReceiver::default());
    sender.set_parity(scene.parity);
    receiver.open_lane(1, scene.delivery);
    receiver.set_rtt(scene.rtt);
    let mut now = Timestamp::from_micros(1_000_000);
    let start = now;
    let mut up: BTreeMap<(Timestamp, u64), Bytes> = BTreeMap::new();
    let mut down: BTreeMap<(Timestamp, u64), Bytes> = BTreeMap::new();
    let (mut link_free, mut order, mut next) = (now, 0u64, 0u64);
    let (mut delays, mut object_bytes) = (BTreeMap::new(), 0);
    let end = start + scene.interval * scene.frames as u32 + Duration::from_secs(2);
    while now < end {
        while next < scene.frames && start + scene.interval * next as u32 <= now {
            let frame = frame(next, scene);
            object_bytes += frame.object().len();
            sender.send(now, 1, scene.delivery, scene.urgent, &frame).unwrap();
            next += 1;
        }
        while let Some(packet) = sender.poll_transmit(now) {
            order += 1;
            link_free = link_free.max(now);
            if scene.rate > 0 {
                link_free += Duration::from_secs_f64((packet.len() + 30) as f64 * 8.0 / scene.rate as f64);
            }
            if rng.random::<f64>() >= scene.loss {
                let jitter = scene.jitter.mul_f64(rng.random::<f64>());
                up.insert((link_free + scene.rtt / 2 + jitter, order), packet);
            }
        }
        while let Some(entry) = up.first_entry()
            && entry.key().0 <= now
        {
            let packet = entry.remove();
            let bytes = packet.len();
            receiver.handle_packet(now, Packet::decode(packet).unwrap(), bytes).unwrap();
        }
        receiver.handle_timeout(now);
        if let Some(feedback) = receiver.poll_feedback(now) {
            order += 1;
            if rng.random::<f64>() >= scene.loss_back {
                down.insert((now + scene.rtt / 2, order), feedback.encode());
            }
        }
        while let Some(entry) = down.first_entry()
            && entry.key().0 <= now
        {
            let feedback = Feedback::decode(entry.remove()).unwrap();
            sender.handle_feedback(now, &feedback).unwrap();
        }
        while let Some(received) = receiver.poll_output() {
            let number = received.frame.header().number;
            assert_eq!(received.frame, *frame(number, scene), "frame or nothing");
            let offered = start + scene.interval * number as u32;
            let delay = received.arrived.saturating_since(offered).saturating_sub(scene.rtt / 2);
            assert!(delays.insert(number, delay).is_none(), "frame {number} came twice");
        }
        now += STEP;
    }
    let stats = sender.stats();
    let sent = stats.source + stats.parity + stats.repair;
    let overhead = sent as f64 / object_bytes as f64 - 1.0;
    Result { delays, frames: scene.frames, overhead, stats }
}

fn show(name: &str, result: &Result) {
    println!(
        "{name}: p50 {:.1} p95 {:.1} p99 {:.1} p99.9 {:.1} ms, {} of {} came, overhead {:.1} % (parity {:.1} %, repair {:.1} %)",
        result.quantile_ms(0.5),
        result.quantile_ms(0.95),
        result.quantile_ms(0.99),
        result.quantile_ms(0.999),
        result.delays.len(),
        result.frames,
        result.overhead * 100.0,
        result.stats.parity as f64 / result.stats.source as f64 * 100.0,
        result.stats.repair as f64 / result.stats.source as f64 * 100.0,
    );
}

#[test]
fn without_loss_nothing_is_added_and_nothing_waits() {
    let result = play(&Scene::default());
    show("0 %", &result);
    assert_eq!(result.delays.len(), 1800);
    assert!(result.quantile_ms(0.99) <= 8.0);
    assert_eq!((result.stats.parity, result.stats.repair), (0, 0));
}

#[test]
fn every_frame_comes_in_about_one_round_trip_however_much_is_lost() {
    for (loss, p99, overhead) in
        [(0.01, 66.0, 0.10), (0.05, 66.0, 0.25), (0.10, 70.0, 0.42), (0.20, 72.0, 0.77), (0.30, 80.0, 1.22)]
    {
        let result = play(&Scene { loss, loss_back: loss, ..Scene::default() });
        show(&format!("{} %", loss * 100.0), &result);
        assert_eq!(result.delays.len(), 1800, "{loss}");
        assert!(result.quantile_ms(0.99) <= p99, "{loss}");
        assert!(result.overhead <= overhead, "{loss}: {}", result.overhead);
    }
}

#[test]
fn a_call_lives_where_most_is_lost() {
    for (loss, p95, overhead) in [(0.5, 100.0, 2.3), (0.7, 200.0, 4.0)] {
        for loss_back in [0.0, loss] {
            let scene = Scene {
                loss,
                loss_back,
                rate: 5_000_000,
                size: 4_700,
                interval: Duration::from_micros(66_667),
                frames: 900,
                ..Scene::default()
            };
            let result = play(&scene);
            show(&format!("{} %, back {} %", loss * 100.0, loss_back * 100.0), &result);
            assert_eq!(result.delays.len(), 900, "{loss}");
            assert!(result.quantile_ms(0.95) <= p95, "{loss}");
            assert!(result.overhead <= overhead, "{loss}: {}", result.overhead);
        }
    }
}

#[test]
fn datagrams_without_repair_lose_frames_and_add_nothing() {
    let result =
        play(&Scene { loss: 0.05, loss_back: 0.05, delivery: Delivery::Datagram, ..Scene::default() });
    show("5 % datagram", &result);
    assert!((1300..1600).contains(&result.delays.len()), "{}", result.delays.len());
    assert_eq!((result.stats.parity, result.stats.repair), (0, 0));
}

#[test]
fn without_parity_losses_are_repaired_when_they_are_reported() {
    let scene = Scene { loss: 0.05, loss_back: 0.05, ..Scene::default() };
    let (with, without) = (play(&scene), play(&Scene { parity: false, ..scene }));
    show("5 % without parity", &without);
    assert!(with.stats.parity > 0 && without.stats.parity == 0);
    assert_eq!(without.delays.len(), 1800, "every frame comes all the same");
    // Voice carries what was said before in packets that leave anyway.
    let voice =
        Scene { loss: 0.2, loss_back: 0.2, size: 80, urgent: true, interval: STEP * 200, ..Scene::default() };
    let (with, without) = (play(&voice), play(&Scene { parity: false, ..voice }));
    assert_eq!((with.delays, with.stats), (without.delays, without.stats));
}

#[test]
fn reordering_is_not_taken_for_loss() {
    let result = play(&Scene { jitter: Duration::from_millis(10), ..Scene::default() });
    show("10 ms reordering", &result);
    assert_eq!(result.delays.len(), 1800);
    // Keyframes leave more slowly than the link would allow: jitter makes their trains look longer.
    assert!(result.quantile_ms(0.95) <= 18.0 && result.quantile_ms(0.99) <= 35.0);
    assert!(
        result.stats.repair * 20 < result.stats.source,
        "repair {} of {}",
        result.stats.repair,
        result.stats.source
    );
}

#[test]
fn voice_survives_heavy_loss() {
    for (loss, missing) in [(0.10, 0.002), (0.30, 0.03)] {
        let scene = Scene {
            loss,
            loss_back: loss,
            size: 80,
            interval: Duration::from_millis(20),
            frames: 5000,
            urgent: true,
            ..Scene::default()
        };
        let result = play(&scene);
        show(&format!("voice {} %", loss * 100.0), &result);
        let in_time = result.delays.values().filter(|delay| **delay <= Duration::from_millis(100)).count();
        let late = 1.0 - in_time as f64 / 5000.0;
        println!("  later than 100 ms or never: {:.3} %", late * 100.0);
        assert!(late <= missing, "{loss}: {late}");
    }
}

#[test]
fn a_lying_receiver_gets_no_more_than_the_rate_allows() {
    let mut sender = HopSender::default();
    let scene = Scene::default();
    let mut now = Timestamp::from_micros(1_000_000);
    for number in 0..60 {
        sender.send(now, 1, Delivery::Adaptive, false, &frame(number, &scene)).unwrap();
        while let Some(packet) = sender.poll_transmit(now) {
            drop(packet);
        }
        // Everything it ever got is missing, again and again.
        let highest = sender.stats().packets.saturating_sub(1);
        let mut feedback = Feedback::new(highest, now, Duration::ZERO);
        feedback.frames = (0..32)
            .map(|back| crate::wire::feedback::IncompleteFrame {
                lane: 1,
                track: 0,
                sequence: number.saturating_sub(back),
                deficit: 1023,
            })
            .collect();
        for _ in 0..10 {
            _ = sender.handle_feedback(now, &feedback);
        }
        now += Duration::from_millis(33);
    }
    let stats = sender.stats();
    // Two seconds at the rate before anything sensible was reported, and a burst.
    let all = stats.source + stats.parity + stats.repair;
    assert!(all * 8 <= 2 * 2 * sender.rate() + 8 * 64 * 1150, "{stats:?} at {}", sender.rate());
    let claims = Feedback::new(1 << 40, now, Duration::ZERO);
    assert!(sender.handle_feedback(now, &claims).is_err());
}

#[test]
fn a_loss_in_any_slice_of_a_large_keyframe_is_repaired() {
    let scene = Scene { size: 30_000, ..Scene::default() };
    let keyframe = frame(0, &scene);
    let symbols = crate::repair::Shape::new(keyframe.object().len()).unwrap().symbols();
    for lost in [0, 1, 2, symbols - 2, symbols - 1] {
        let (mut sender, mut receiver) = (HopSender::default(), HopReceiver::default());
        receiver.open_lane(1, Delivery::Adaptive);
        let mut now = Timestamp::from_micros(1_000_000);
        sender.send(now, 1, Delivery::Adaptive, false, &keyframe).unwrap();
        let mut sent = 0;
        let mut came = None;
        while came.is_none() {
            assert!(now < Timestamp::from_micros(1_600_000), "symbol {lost} of {symbols}");
            while let Some(packet) = sender.poll_transmit(now) {
                if sent != lost {
                    receiver.handle_packet(now, Packet::decode(packet).unwrap(), 1150).unwrap();
                }
                sent += 1;
            }
            if let Some(feedback) = receiver.poll_feedback(now) {
                sender.handle_feedback(now, &feedback).unwrap();
            }
            came = receiver.poll_output();
            now += STEP;
        }
        assert_eq!(came.unwrap().frame, *keyframe);
    }
}

#[test]
fn an_unfinished_last_frame_does_not_call_for_ever() {
    let scene = Scene::default();
    let (mut sender, mut receiver) = (HopSender::default(), HopReceiver::default());
    receiver.open_lane(1, Delivery::Adaptive);
    let mut now = Timestamp::from_micros(1_000_000);
    sender.send(now, 1, Delivery::Adaptive, false, &frame(1, &scene)).unwrap();
    let packet = sender.poll_transmit(now).unwrap();
    receiver.handle_packet(now, Packet::decode(packet).unwrap(), 1150).unwrap();
    let mut reports = 0;
    for _ in 0..600_000 {
        reports += u32::from(receiver.poll_feedback(now).is_some());
        now += STEP;
    }
    assert!((10..300).contains(&reports), "{reports} reports in a minute");
}

#[test]
fn a_reserved_sequence_keeps_the_order_and_one_given_up_keeps_nobody_waiting() {
    let scene = Scene::default();
    let (mut sender, mut receiver) = (HopSender::default(), HopReceiver::default());
    receiver.open_lane(1, Delivery::Adaptive);
    let mut now = Timestamp::from_micros(1_000_000);
    // What arrives within 50 ms, as (number, missed).
    let mut pass = |sender: &mut HopSender, now: &mut Timestamp| {
        for _ in 0..500 {
            while let Some(packet) = sender.poll_transmit(*now) {
                let bytes = packet.len();
                receiver.handle_packet(*now, Packet::decode(packet).unwrap(), bytes).unwrap();
            }
            *now += STEP;
        }
        std::iter::from_fn(|| receiver.poll_output())
            .map(|received| (received.frame.header().number, received.missed))
            .collect::<Vec<_>>()
    };
    sender.send(now, 1, Delivery::Adaptive, false, &frame(0, &scene)).unwrap();
    let (late, never) = (sender.reserve(1, 0), sender.reserve(1, 0));
    sender.send(now, 1, Delivery::Adaptive, false, &frame(3, &scene)).unwrap();
    assert_eq!(pass(&mut sender, &mut now), [(0, 0)]);
    sender.send_reserved(now, 1, late, Delivery::Adaptive, false, &frame(1, &scene)).unwrap();
    assert_eq!(pass(&mut sender, &mut now), [(1, 0)]);
    sender.give_up(now, 1, 0, never);
    assert_eq!(pass(&mut sender, &mut now), [(3, 1)]);
}

#[test]
fn an_eager_receiver_gives_frames_as_they_come_and_tells_what_it_gave_up() {
    let scene = Scene::default();
    let mut receiver = HopReceiver::eager();
    receiver.open_lane(1, Delivery::QuicStream);
    let ms = |n: u64| Timestamp::from_micros(n * 1000);
    let hop = |sequence| crate::wire::hop::HopHeader { lane: 1, track: 0, sequence };
    for (at, number) in [(0, 0), (10, 2), (20, 4), (30, 1)] {
        receiver.handle_object(ms(at), hop(number), frame(number, &scene).object().clone()).unwrap();
        let received = receiver.poll_output().unwrap();
        assert_eq!((received.sequence, &received.frame), (number, &*frame(number, &scene)));
    }
    assert_eq!((receiver.poll_output(), receiver.poll_given_up()), (None, None));
    receiver.handle_timeout(ms(2_000));
    let given_up = receiver.poll_given_up().unwrap();
    assert_eq!((given_up.lane, given_up.track, given_up.sequences), (1, 0, 3..4));
    receiver.handle_object(ms(2_010), hop(3), frame(3, &scene).object().clone()).unwrap();
    assert_eq!(receiver.poll_output(), None, "too late");
    assert_eq!(receiver.stats().missed, 1);
}

/// One relay, ten subscribers that lose different packets: what two of them need is coded once.
#[test]
fn a_frame_is_coded_once_for_all_subscribers() {
    let scene = Scene { size: 4000, ..Scene::default() };
    let (loss, count) = (0.05, 10);
    let mut rng = rand::rngs::Xoshiro256PlusPlus::seed_from_u64(9);
    let ms = |millis: u64| Timestamp::from_micros(1_000_000 + millis * 1000);
    let mut hops: Vec<_> = (0..count).map(|_| (HopSender::default(), HopReceiver::default())).collect();
    hops.iter_mut().for_each(|(_, receiver)| receiver.open_lane(1, Delivery::Adaptive));
    let (mut sent, mut frames) = (0, Vec::new());
    for now in (0..6000).map(ms) {
        if now.as_micros() % 40_000 == 0 {
            let frame = frame(frames.len() as u64, &scene);
            for (sender, _) in &mut hops {
                sender.send(now, 1, Delivery::Adaptive, false, &frame).unwrap();
            }
            frames.push(frame);
        }
        for (sender, receiver) in &mut hops {
            while let Some(datagram) = sender.poll_transmit(now) {
                let (packet, bytes) = (Packet::decode(datagram.clone()).unwrap(), datagram.len());
                sent += packet.parts.iter().filter(|part| matches!(part, Part::Repair { .. })).count();
                if rng.random::<f64>() >= loss {
                    receiver.handle_packet(now, packet, bytes).unwrap();
                }
            }
            receiver.handle_timeout(now);
            if let Some(feedback) = receiver.poll_feedback(now) {
                sender.handle_feedback(now, &feedback).unwrap();
            }
        }
    }
    let coded: usize = frames.iter().map(CodedFrame::combinations).sum();
    assert!(frames.len() == 150 && sent > 500, "{sent} combinations were sent");
    // Windows differ where one subscriber skipped or repaired what another did not.
    assert!(coded * 3 < sent, "{coded} were made for {sent} that were sent");
}
