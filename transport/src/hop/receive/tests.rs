//! The hop receiver against loss, duplication, reordering and nonsense.

use super::window::{HELD_BYTES_MAX, HELD_FRAMES_MAX};
use super::*;
use crate::id::StreamAlias;
use crate::repair::SourceBlock;
use crate::wire::frame::FrameHeader;
use crate::wire::packet::Part;
use proptest::prelude::*;

const LANE: u32 = 5;

fn frame(number: u64, size: usize) -> Frame {
    let header = FrameHeader {
        alias: StreamAlias(1),
        track: 0,
        spatial: 0,
        temporal: 0,
        number,
        captured: Timestamp::from_micros(number * 33_333),
        keyframe: number == 0,
        discardable: false,
        level: None,
        metadata: Bytes::new(),
    };
    let payload: Vec<u8> = (0..size).map(|i| (i as u64 * 7 + number) as u8).collect();
    Frame::new(header, &payload).unwrap()
}

fn hop(sequence: u64) -> HopHeader {
    HopHeader { lane: LANE, track: 0, sequence }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_micros(millis * 1000)
}

fn receiver(delivery: Delivery) -> HopReceiver {
    let mut receiver = HopReceiver::default();
    receiver.open_lane(LANE, delivery);
    receiver
}

/// The frame as packets of one symbol each, numbered from `tx_seq`.
fn packets(tx_seq: u64, frame: &Frame) -> Vec<Packet> {
    let block = SourceBlock::new(frame.object().clone()).unwrap();
    let (shape, hop) = (block.shape(), hop(frame.header().number));
    (0..shape.symbols())
        .map(|index| {
            let part = Part::Source { hop, shape, index, bytes: block.symbol(index) };
            let burst = (shape.symbols() - index - 1) as u64;
            Packet { tx_seq: tx_seq + index as u64, burst, is_calm: false, parts: vec![part] }
        })
        .collect()
}

fn feed(receiver: &mut HopReceiver, now: Timestamp, frame: &Frame, skip: impl Fn(usize) -> bool) {
    for (index, packet) in packets(frame.header().number * 10, frame).into_iter().enumerate() {
        if !skip(index) {
            receiver.handle_packet(now, packet, 1150).unwrap();
        }
    }
}

fn numbers(receiver: &mut HopReceiver) -> Vec<(u64, u64)> {
    std::iter::from_fn(|| receiver.poll_output()).map(|r| (r.frame.header().number, r.missed)).collect()
}

#[test]
fn frames_come_out_in_order_whatever_way_they_came() {
    let mut receiver = receiver(Delivery::QuicStream);
    for number in [2, 0, 1] {
        receiver.handle_object(at(1), hop(number), frame(number, 100).object().clone()).unwrap();
    }
    assert_eq!(numbers(&mut receiver), [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(receiver.poll_timeout(), None);
}

#[test]
fn a_lost_datagram_loses_its_frame_and_the_next_one_says_so() {
    let mut receiver = receiver(Delivery::Datagram);
    feed(&mut receiver, at(0), &frame(0, 3000), |_| false);
    feed(&mut receiver, at(33), &frame(1, 3000), |index| index == 1);
    feed(&mut receiver, at(66), &frame(2, 3000), |_| false);
    assert_eq!(numbers(&mut receiver), [(0, 0)]);
    assert!(receiver.waits().any(|(until, _)| until == at(66) + HOLD_DATAGRAM));
    receiver.handle_timeout(at(66) + HOLD_DATAGRAM);
    assert_eq!(numbers(&mut receiver), [(2, 1)]);
    feed(&mut receiver, at(99), &frame(1, 3000), |_| false);
    assert_eq!(numbers(&mut receiver), [], "too late");
    assert_eq!(receiver.stats().missed, 1);
}

#[test]
fn a_frame_given_up_by_the_sender_is_not_waited_for() {
    let mut receiver = receiver(Delivery::QuicStream);
    receiver.handle_object(at(0), hop(1), frame(1, 10).object().clone()).unwrap();
    assert_eq!(numbers(&mut receiver), []);
    receiver.handle_lost(hop(0));
    assert_eq!(numbers(&mut receiver), [(1, 1)]);
}

#[test]
fn contradictions_and_nonsense_are_faults() {
    let mut receiver = receiver(Delivery::Datagram);
    let mut first = packets(0, &frame(0, 3000));
    let mut other = packets(0, &frame(0, 4000));
    receiver.handle_packet(at(0), first.remove(0), 1150).unwrap();
    let fault = receiver.handle_packet(at(0), other.remove(0), 1150).unwrap_err();
    assert_eq!(fault.code(), Code::ProtocolViolation);
    assert!(receiver.handle_object(at(0), hop(9), Bytes::from_static(&[0xff])).is_err());
    let other_track = HopHeader { track: 3, ..hop(9) };
    assert!(receiver.handle_object(at(0), other_track, frame(9, 1).object().clone()).is_err());
}

#[test]
fn what_is_held_is_bounded_however_far_ahead_the_peer_runs() {
    let mut receiver = receiver(Delivery::QuicStream);
    for number in 1..10_000u64 {
        receiver
            .handle_object(at(0), hop(number * 1000), frame(number * 1000, 900).object().clone())
            .unwrap();
        let window = &receiver.lanes[&LANE].tracks[0];
        assert!(window.ahead.len() <= HELD_FRAMES_MAX && window.bytes <= HELD_BYTES_MAX);
        receiver.poll_output();
    }
    for number in 0..10_000u64 {
        let head = packets(number * 4, &frame(20_000_000 + number, 3000)).remove(0);
        receiver.handle_packet(at(0), head, 1150).unwrap();
        assert!(receiver.lanes[&LANE].tracks[0].touched.len() <= HELD_FRAMES_MAX);
    }
}

#[test]
fn a_frame_both_finished_and_reset_is_kept_and_counted_once() {
    let mut receiver = receiver(Delivery::QuicStream);
    for number in 1..5u64 {
        receiver.handle_object(at(0), hop(number), frame(number, 900_000).object().clone()).unwrap();
        receiver.handle_lost(hop(number));
        feed(&mut receiver, at(0), &frame(number + 10, 3000), |index| index == 0);
        receiver.handle_lost(hop(number + 10));
    }
    receiver.handle_timeout(Timestamp::MAX);
    assert_eq!(numbers(&mut receiver), [(1, 1), (2, 0), (3, 0), (4, 0)]);
    receiver.handle_object(at(0), hop(15), frame(15, 10).object().clone()).unwrap();
    receiver.handle_timeout(Timestamp::MAX);
    assert_eq!(numbers(&mut receiver), [(15, 10)]);
    assert_eq!(receiver.lanes[&LANE].tracks[0].bytes, 0);
}

#[test]
fn frames_for_a_closed_lane_are_counted_and_dropped() {
    let mut receiver = receiver(Delivery::QuicStream);
    receiver.close_lane(LANE);
    receiver.handle_object(at(0), hop(0), frame(0, 1).object().clone()).unwrap();
    assert_eq!((numbers(&mut receiver), receiver.stats().homeless), (vec![], 1));
}

proptest! {
    /// Whatever is lost, doubled or reordered: every frame that comes out is bit-exact, in order,
    /// never twice, and given plus missed add up to the last number.
    #[test]
    fn the_frame_or_nothing(
        sizes in proptest::collection::vec(1usize..6000, 1..30),
        fates in proptest::collection::vec((0u8..10, 0usize..12), 200),
    ) {
        let mut receiver = receiver(Delivery::Datagram);
        let frames: Vec<Frame> = sizes.iter().enumerate().map(|(n, &size)| frame(n as u64, size)).collect();
        let mut sent: Vec<(usize, Packet)> = Vec::new();
        let all = frames.iter().flat_map(|f| packets(f.header().number * 10, f));
        for (place, (packet, (fate, shift))) in all.zip(fates.iter().cycle()).enumerate() {
            match fate {
                0 => {}
                1 => sent.extend([(place + shift, packet.clone()), (place, packet)]),
                2..4 => sent.push((place + shift, packet)),
                _ => sent.push((place, packet)),
            }
        }
        sent.sort_by_key(|(place, _)| *place);
        let mut out = Vec::new();
        for (place, packet) in sent {
            let now = at(place as u64 * 3);
            receiver.handle_timeout(now);
            receiver.handle_packet(now, packet, 1150).unwrap();
            out.extend(std::iter::from_fn(|| receiver.poll_output()));
        }
        receiver.handle_timeout(Timestamp::MAX);
        out.extend(std::iter::from_fn(|| receiver.poll_output()));
        let mut next = 0;
        for received in out {
            let number = received.frame.header().number;
            prop_assert_eq!(number, next + received.missed);
            prop_assert_eq!(&received.frame, &frames[number as usize]);
            next = number + 1;
        }
        prop_assert!(receiver.waits().next().is_none());
    }
}
