//! The hop receiver against everything a peer and a network can do to it: an input is a list of deeds.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use parlor_transport::hop::HopReceiver;
use parlor_transport::id::StreamAlias;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::Delivery;
use parlor_transport::wire::frame::{Frame, FrameHeader, OBJECT_MAX};
use parlor_transport::wire::hop::{Fragment, HopHeader, fragments};
use parlor_transport::wire::varint;

/// Lanes below this carry true frames only, though in any order, doubled or cut off; the one at it carries
/// what the input likes. Lanes above are never opened.
const LANE_HOSTILE: u32 = 2;
/// Fragments and frames in one run; it keeps a run within milliseconds.
const DEEDS_MAX: usize = 20_000;
/// The buffer that a UDP packet arrives in. A datagram is a part of it and keeps the whole of it alive.
const PACKET_BYTES: usize = 1200;

/// Every deed is four bytes: what, lane and track, and two that say more. Whatever happens, memory stays
/// within bounds (the table's runner sees to that), every call returns, and the true lanes give the frames
/// that were sent, bit for bit, in order, with the right number missed between them.
pub(super) fn receiver(input: &[u8]) {
    let mut run = Run {
        receiver: HopReceiver::default(),
        now: Timestamp::ZERO,
        base: 0,
        next: BTreeMap::new(),
        deeds: 0,
    };
    for deed in input.chunks_exact(4) {
        if run.handle(deed[0], deed[1], deed[2], deed[3]).is_none() || run.deeds > DEEDS_MAX {
            break;
        }
        run.check();
    }
    run.receiver.handle_timeout(Timestamp::MAX);
    run.check();
    assert_eq!(run.receiver.poll_timeout(), None, "nothing is waited for after the end of time");
}

struct Run {
    receiver: HopReceiver,
    now: Timestamp,
    /// Added to every sequence, so that the input reaches far with two bytes.
    base: u64,
    /// Per lane and track: the sequence after the last one given out or known to be missed.
    next: BTreeMap<(u32, u8), u64>,
    deeds: usize,
}

impl Run {
    /// Does one thing; `None` when the connection would be closed for it.
    fn handle(&mut self, what: u8, place: u8, a: u8, b: u8) -> Option<()> {
        let lane = u32::from(place >> 4 & 3);
        let is_hostile = lane == LANE_HOSTILE;
        // The bounds are each track's own; one track of the hostile lane is enough to see them.
        let track = if is_hostile { 0 } else { place & 7 };
        let hop = HopHeader { lane, track, sequence: self.base + u64::from(a) };
        self.deeds += 1;
        match what % 8 {
            0 if lane <= LANE_HOSTILE => {
                let delivery = if a & 1 == 0 { Delivery::Datagram } else { Delivery::QuicStream };
                self.receiver.open_lane(lane, delivery);
            }
            1 => {
                self.receiver.close_lane(lane);
                self.next.retain(|&(other, _), _| other != lane);
            }
            2 if is_hostile => self.nonsense(hop, b)?,
            2 => {
                let object = true_frame(hop).object().clone();
                let mut datagrams = fragments(hop, &object);
                let datagram = datagrams.nth(usize::from(b) % datagrams.len())?;
                self.fragment(datagram)?;
            }
            3 => {
                for datagram in fragments(hop, true_frame(hop).object()) {
                    self.fragment(datagram)?;
                }
            }
            4 => {
                let object = if is_hostile { large_object(hop, b) } else { true_frame(hop).object().clone() };
                self.receiver.handle_object(self.now, hop, object).ok()?;
            }
            5 => self.receiver.handle_lost(self.now, hop),
            6 => {
                self.now = self.now.offset_by(i64::from(a) * 256 + i64::from(b));
                self.receiver.handle_timeout(self.now);
            }
            7 => self.base = (u64::from(a) << (b % 56)).min(varint::MAX - 255),
            _ => {}
        }
        Some(())
    }

    /// Small pieces of a frame that will never be whole, or pieces that contradict each other.
    fn nonsense(&mut self, hop: HopHeader, b: u8) -> Option<()> {
        let (first, count) = (u64::from(b >> 4) * 50, if b & 1 == 0 { 900 } else { 30 });
        for index in first..first + 50 {
            let mut datagram = vec![2];
            hop.encode(&mut datagram);
            varint::put(&mut datagram, index);
            varint::put(&mut datagram, count);
            datagram.resize(datagram.len() + usize::from(b >> 1 & 7) * 100 + 1, b);
            self.deeds += 1;
            self.fragment(datagram.into())?;
        }
        Some(())
    }

    fn fragment(&mut self, datagram: Bytes) -> Option<()> {
        let mut packet = BytesMut::with_capacity(PACKET_BYTES);
        packet.put(datagram);
        let fragment = Fragment::decode(packet.freeze()).ok()?;
        self.receiver.handle_fragment(self.now, fragment).ok()
    }

    fn check(&mut self) {
        while let Some(received) = self.receiver.poll_output() {
            assert!(received.lane <= LANE_HOSTILE, "only open lanes give frames");
            if received.lane == LANE_HOSTILE {
                continue;
            }
            let (lane, track) = (received.lane, received.track);
            let next = self.next.entry((lane, track)).or_default();
            let sequence = received.frame.header().number;
            assert_eq!(sequence, *next + received.missed, "lane {lane} track {track}");
            assert_eq!(received.frame, true_frame(HopHeader { lane, track, sequence }));
            *next = sequence + 1;
        }
    }
}

/// What the honest peer sends under this header: one to six datagrams, different for each.
fn true_frame(hop: HopHeader) -> Frame {
    let salt = hop.sequence ^ u64::from(hop.lane) << 7 ^ u64::from(hop.track) << 3;
    let payload: Vec<u8> = (0..salt % 7 * 1000).map(|at| (at ^ salt) as u8).collect();
    Frame::new(header(hop), &payload).expect("small enough for a frame")
}

/// A frame of up to the largest size.
fn large_object(hop: HopHeader, size: u8) -> Bytes {
    let empty = Frame::new(header(hop), b"").expect("small enough for a frame");
    let mut object = BytesMut::from(&empty.object()[..]);
    object.resize((usize::from(size) << 12 | 0xfff).clamp(object.len(), OBJECT_MAX), size);
    object.freeze()
}

fn header(hop: HopHeader) -> FrameHeader {
    FrameHeader {
        alias: StreamAlias(hop.lane),
        track: hop.track,
        spatial: 0,
        temporal: 0,
        number: hop.sequence,
        captured: Timestamp::ZERO,
        keyframe: false,
        discardable: false,
        level: None,
        metadata: Bytes::new(),
    }
}
