//! The hop receiver against everything a peer and a network can do to it: an input is a list of deeds.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use parlor_transport::hop::HopReceiver;
use parlor_transport::id::StreamAlias;
use parlor_transport::repair::{RepairId, SourceBlock, Window, encode_repair};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::Delivery;
use parlor_transport::wire::feedback::Feedback;
use parlor_transport::wire::frame::{Frame, FrameHeader, OBJECT_MAX};
use parlor_transport::wire::hop::HopHeader;
use parlor_transport::wire::packet::{Packet, Part};
use parlor_transport::wire::varint;

/// Lanes below this carry true frames only, though in any order, doubled or cut off; the one at it carries
/// what the input likes. Lanes above are never opened.
const LANE_HOSTILE: u32 = 2;
/// Symbols and frames in one run; it keeps a run within milliseconds.
const DEEDS_MAX: usize = 20_000;
/// The buffer that a UDP packet arrives in. A datagram is a part of it and keeps the whole of it alive.
const PACKET_BYTES: usize = 1200;

/// Every deed is four bytes: what, lane and track, and two that say more. Whatever happens, memory stays
/// within bounds (the table's runner sees to that), every call returns, reports can be read, and the true lanes
/// give the frames that were sent, bit for bit, in order, with the right number missed between them.
pub(super) fn receiver(input: &[u8]) {
    let mut run = Run {
        receiver: HopReceiver::default(),
        now: Timestamp::ZERO,
        base: 0,
        tx_seq: 0,
        next: BTreeMap::new(),
        deeds: 0,
    };
    for deed in input.chunks_exact(4) {
        if run.handle(deed[0], deed[1], deed[2], deed[3]).is_none() || run.deeds > DEEDS_MAX {
            break;
        }
        run.check();
    }
    run.now = Timestamp::MAX;
    run.receiver.handle_timeout(Timestamp::MAX);
    run.check();
}

struct Run {
    receiver: HopReceiver,
    now: Timestamp,
    /// Added to every sequence, so that the input reaches far with two bytes.
    base: u64,
    /// The number of the next packet.
    tx_seq: u64,
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
        match what % 10 {
            0 if lane <= LANE_HOSTILE => {
                let delivery =
                    [Delivery::Adaptive, Delivery::Datagram, Delivery::QuicStream, Delivery::LowLatency];
                self.receiver.open_lane(lane, delivery[usize::from(a % 4)]);
            }
            1 => {
                self.receiver.close_lane(lane);
                self.next.retain(|&(other, _), _| other != lane);
            }
            2 if is_hostile => self.nonsense(hop, b)?,
            2 => {
                let block = true_block(hop);
                self.source(hop, &block, usize::from(b) % block.shape().symbols())?;
            }
            3 => {
                let block = true_block(hop);
                (0..block.shape().symbols()).try_for_each(|index| self.source(hop, &block, index))?;
            }
            4 => {
                let object = if is_hostile { large_object(hop, b) } else { true_block(hop).object().clone() };
                self.receiver.handle_object(self.now, hop, object).ok()?;
            }
            5 => self.receiver.handle_lost(hop),
            6 => {
                self.now = self.now.offset_by(i64::from(a) * 256 + i64::from(b));
                self.receiver.handle_timeout(self.now);
            }
            7 => self.base = (u64::from(a) << (b % 56)).min(varint::MAX - 255),
            8 => self.repair(hop, usize::from(b >> 6) + 1, b & 63)?,
            // Packets that overtake each other, or are lost in great number.
            9 if b & 0x80 != 0 => self.tx_seq = self.tx_seq.saturating_sub(a.into()),
            9 => {
                let ahead = u64::from(a) << (b % 56);
                self.tx_seq = self.tx_seq.saturating_add(ahead).min(varint::MAX - (1 << 32));
            }
            _ => {}
        }
        Some(())
    }

    fn source(&mut self, hop: HopHeader, block: &SourceBlock, index: usize) -> Option<()> {
        self.packet(Part::Source { hop, shape: block.shape(), index, bytes: block.symbol(index) })
    }

    /// A true combination over the frame and those before it.
    fn repair(&mut self, hop: HopHeader, frames: usize, id: u8) -> Option<()> {
        let sequences = (0..=hop.sequence).rev().take(frames);
        let blocks: Vec<_> = sequences.map(|sequence| true_block(HopHeader { sequence, ..hop })).collect();
        let id = RepairId::new(id).expect("there are 192");
        let bytes = encode_repair(&blocks, 0, id).expect("frames of the true lanes are small");
        let window = Window::new(hop.sequence, blocks.iter().map(|block| Some(block.shape())), 0);
        self.packet(Part::Repair { hop, window: window.expect("just encoded"), id, bytes })
    }

    /// Pieces of frames that will never be whole, or that contradict each other.
    fn nonsense(&mut self, hop: HopHeader, b: u8) -> Option<()> {
        let object = large_object(hop, b | 0x3f);
        let block = SourceBlock::new(object).expect("not empty, and not too large");
        let symbols = block.shape().symbols();
        let first = usize::from(b & 7) * 40;
        (first..(first + 40).min(symbols - 1)).try_for_each(|index| self.source(hop, &block, index))?;
        let id = RepairId::new(b % RepairId::COUNT).expect("below the count");
        let slice = usize::from(b) % block.shape().slices();
        let window = Window::new(hop.sequence, [Some(block.shape())], slice).expect("one frame");
        self.packet(Part::Repair { hop, window, id, bytes: vec![b; block.shape().symbol_bytes()].into() })
    }

    fn packet(&mut self, part: Part) -> Option<()> {
        self.deeds += 1;
        let datagram = Packet {
            tx_seq: self.tx_seq,
            burst: self.tx_seq & 3,
            is_calm: self.tx_seq & 4 != 0,
            parts: vec![part],
        }
        .encode();
        self.tx_seq += 1;
        let mut buffer = BytesMut::with_capacity(PACKET_BYTES);
        buffer.put(datagram);
        let size = buffer.len();
        let packet = Packet::decode(buffer.freeze()).expect("our own packets can be read");
        self.receiver.handle_packet(self.now, packet, size).ok()
    }

    fn check(&mut self) {
        if let Some(report) = self.receiver.poll_feedback(self.now) {
            Feedback::decode(report.encode()).expect("our own reports can be read");
        }
        while let Some(received) = self.receiver.poll_output() {
            assert!(received.lane <= LANE_HOSTILE, "only open lanes give frames");
            if received.lane == LANE_HOSTILE {
                continue;
            }
            let (lane, track) = (received.lane, received.track);
            let next = self.next.entry((lane, track)).or_default();
            let sequence = received.frame.header().number;
            assert_eq!(sequence, *next + received.missed, "lane {lane} track {track}");
            assert_eq!(received.frame.object(), true_block(HopHeader { lane, track, sequence }).object());
            *next = sequence + 1;
        }
    }
}

/// What the honest peer sends under this header: one to six symbols, different for each.
fn true_block(hop: HopHeader) -> SourceBlock {
    let salt = hop.sequence ^ u64::from(hop.lane) << 7 ^ u64::from(hop.track) << 3;
    let payload: Vec<u8> = (0..salt % 7 * 1000).map(|at| (at ^ salt) as u8).collect();
    let frame = Frame::new(header(hop), &payload).expect("small enough for a frame");
    SourceBlock::new(frame.object().clone()).expect("a frame can be cut")
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
