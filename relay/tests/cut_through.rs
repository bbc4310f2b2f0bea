//! If this fails, a frame waits at the relay for its own end, or what is passed on before that comes out wrong.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use parlor_transport::repair::SourceBlock;
use parlor_transport::sim::{self, Loss, Profile};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::*;
use parlor_transport::wire::frame::Frame;
use parlor_transport::wire::hop::HopHeader;
use parlor_transport::wire::packet::{Packet, Part};
use support::*;

const VIDEO: &[TrackKind] = &[TrackKind::Video];
const INTERVAL: Duration = Duration::from_micros(33_333);
/// Bits a second of every link, and bytes that wait before it: 300 ms.
const LINK: (u64, usize) = (10_000_000, 375_000);

/// The frame of this number, which has contents of its own.
fn frame(cam: &Publisher, number: u64, keyframe: bool, size: usize) -> Frame {
    let mut header = cam.header(0, keyframe);
    header.number = number;
    let payload: Vec<u8> = (0..size as u64).map(|at| (at * 31 + at / 251 + number * 7) as u8).collect();
    Frame::new(header, &payload).unwrap()
}

#[test]
fn a_keyframe_takes_its_time_on_the_links_once_and_not_twice() {
    sim::run(1, async |sim| {
        const KEYFRAME: usize = 50_000;
        let world = World::start(&sim).await;
        let profile = Profile::perfect().with_rtt(RTT).with_rates(LINK, LINK);
        let mut u1 = world.enter_with("r", "u1", profile.clone()).await;
        let mut u2 = world.enter_with("r", "u2", profile).await;
        let mut cam = u1.publish("cam", Delivery::Adaptive, VIDEO).await;
        u2.play("cam", Delivery::Adaptive).await;
        world.pass(millis(200)).await;
        let mut delays = Vec::new();
        for number in 0..300 {
            let keyframe = number % 60 == 0;
            cam.send_frame(frame(&cam, number, keyframe, if keyframe { KEYFRAME } else { 4_000 }));
            let sent = world.now();
            world.pass(INTERVAL * if keyframe { 8 } else { 1 }).await;
            // The rate of the links is known by then.
            while let Ok(received) = u2.frames.try_recv() {
                if number >= 120 && keyframe && received.frame.header().number == number {
                    delays.push(received.arrived.saturating_since(sent).saturating_sub(RTT));
                }
            }
        }
        // Without what stands before its symbols.
        let once = Duration::from_secs_f64(KEYFRAME as f64 * 8.0 / LINK.0 as f64);
        println!("{delays:?} beyond the trip, {once:?} is one serialisation");
        assert_eq!(delays.len(), 3);
        // Whole frames only would take twice `once` at the least.
        assert!(delays.iter().all(|delay| *delay < once.mul_f64(1.35)), "{delays:?}, once {once:?}");
    });
}

#[test]
fn nothing_wrong_is_delivered_however_the_links_lose() {
    for (seed, loss, least) in [(1, 0.05, 295), (2, 0.2, 200)] {
        sim::run(seed, async |sim| {
            let world = World::start(&sim).await;
            let profile = Profile::perfect().with_rtt(RTT).with_rates(LINK, LINK);
            let lossy = profile.with_loss(Loss::Random(loss));
            let mut u1 = world.enter_with("r", "u1", lossy.clone()).await;
            let mut u2 = world.enter_with("r", "u2", lossy).await;
            let mut cam = u1.publish("cam", Delivery::Adaptive, VIDEO).await;
            u2.play("cam", Delivery::Adaptive).await;
            world.pass(millis(500)).await;
            let is_key = |number: u64| number.is_multiple_of(60);
            let size = |number| if is_key(number) { 20_000 } else { 4_000 };
            for number in 0..300 {
                cam.send_frame(frame(&cam, number, is_key(number), size(number)));
                world.pass(INTERVAL).await;
            }
            world.pass(millis(2000)).await;
            let mut came = 0;
            while let Ok(received) = u2.frames.try_recv() {
                let number = received.frame.header().number;
                assert_eq!(received.frame, frame(&cam, number, is_key(number), size(number)));
                came += 1;
            }
            assert!(came >= least, "{loss}: {came}");
        });
    }
}

#[test]
fn a_frame_that_the_publisher_never_finishes_ends_at_the_player_when_the_relay_gives_it_up() {
    sim::run(3, async |sim| {
        let world = World::start(&sim).await;
        let mut u1 = world.enter("r", "u1").await;
        let far = millis(200);
        let mut u2 = world.enter_with("r", "u2", Profile::perfect().with_rtt(far)).await;
        let cam = u1.publish("cam", Delivery::Adaptive, VIDEO).await;
        u2.play("cam", Delivery::Adaptive).await;
        world.pass(millis(500)).await;
        // It sends what it likes, and answers no report.
        let mut tx_seq = 0;
        let mut send = |sequence: u64, size: usize, symbols: usize| {
            let block = SourceBlock::new(frame(&cam, sequence, true, size).object().clone()).unwrap();
            for index in 0..symbols {
                let hop = HopHeader { lane: cam.lane, track: 0, sequence };
                let part = Part::Source { hop, shape: block.shape(), index, bytes: block.symbol(index) };
                let packet = Packet { tx_seq, burst: 0, is_calm: false, parts: vec![part] };
                u1.session.send_raw_datagram(packet.encode()).unwrap();
                tx_seq += 1;
            }
        };
        send(0, 500, 1);
        world.pass(millis(100)).await;
        send(1, 10_000, 5);
        world.pass(millis(30)).await;
        send(2, 500, 1);
        let sent: Timestamp = world.now();
        assert_eq!(u2.frame().await.frame.header().number, 0);
        let received = u2.frame().await;
        assert_eq!((received.frame.header().number, received.missed), (2, 1));
        // The relay waits 100 ms, as for every keyframe; the player, on its own, would for 315 after its own trip.
        let heard = world.now().saturating_since(sent + RTT / 2 + far / 2);
        assert!((millis(95)..millis(120)).contains(&heard), "{heard:?}");
    });
}
