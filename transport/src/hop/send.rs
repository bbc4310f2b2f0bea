//! Sending: frames in, media packets out, at the pace that the link allows and with the redundancy
//! that its losses ask for.
//!
//! Frames are cut into symbols and queued by class; parity follows a frame, repair answers the
//! receiver's reports. Packets are numbered when they leave. A frame that is too old to be of use
//! leaves the queue unsent. Nothing here knows QUIC, and nothing decides whether a frame is worth
//! sending at all: the caller asks [`HopSender::has_room`] first.

mod ablation;
mod coded;
mod frames;
mod queues;
mod repair;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::piece::Piece;
use super::policy::{Haste, Link, WINDOW_VIDEO};
use crate::rate::{Controller, ControllerConfig, Estimator, FeedbackFault, Pacer, PathState, SentPacket};
use crate::repair::Fault;
use crate::units::Timestamp;
use crate::wire::control::Delivery;
use crate::wire::feedback::Feedback;
use crate::wire::frame::FrameHeader;
use crate::wire::hop::{DATAGRAM_MAX, HopHeader};
use crate::wire::packet::{BURST_MAX, PARTS_MAX, Packet, Part};
pub use ablation::Ablation;
pub use coded::CodedFrame;
use frames::{Lane, SentFrame};
use queues::{Class, Entry, FrameKey, QUEUE_REPAIR_MAX, Queues, Waiting};
use repair::Allowance;

/// A queue that takes longer than this to leave is full: the next frame waits outside, where it
/// can still be dropped whole.
const QUEUE_MAX: Duration = Duration::from_millis(60);
/// What may leave before the first report, in bytes: a keyframe and some. A newcomer's whole group at once
/// would fill the queue of a link of which nothing is known yet.
const FLIGHT_FIRST: u64 = 32 * 1024;
/// A frame that has waited for longer shows that the source makes too much: the next one would be older still.
const QUEUE_AGE_MAX: Duration = Duration::from_millis(150);
/// Voice gets through beside everything else, up to this many bytes at once.
const QUEUE_URGENT_MAX: usize = 64 * 1024;
/// Packets that a report may still speak of: two seconds of 20 Mbit/s.
const RECORDS_MAX: usize = 4096;
/// How long a receiver may hold an acknowledgement of QUIC's where the round trip is no shorter than that; on shorter ways it is
/// 25 ms. One costs a relay as much as five packets of a burst.
pub(crate) const ACK_DELAY_MAX: Duration = Duration::from_millis(50);
/// Packets of a burst that share an allocation at most: as many as leave in one go.
const BUFFER_PACKETS_MAX: u64 = 16;
/// A keyframe of 720p video with its parity.
const KEYFRAME_BYTES: u64 = 100_000;

/// What left longer ago than so many times [`Link::give_up`] is not kept: even if the link gets worse meanwhile, nobody
/// repairs it.
const RECORD_GIVE_UPS: u32 = 2;

/// What left in one packet: at most two are needed to know what its loss means.
#[derive(Clone, Copy, Debug)]
struct Record {
    at: Timestamp,
    frame: FrameKey,
    /// Frames that it helps, this one and older ones; 0 for a symbol as it is.
    span: u8,
    /// Which symbol it is, if it is one as it is, and was not sent again for this packet's loss.
    symbol: Option<u16>,
}

impl Record {
    fn is_old(&self, now: Timestamp, give_up: Duration) -> bool {
        now.saturating_since(self.at) > give_up * RECORD_GIVE_UPS
    }
}

/// What left so far, in bytes of datagrams.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct SendStats {
    /// Packets of all kinds.
    pub packets: u64,
    /// Symbols as they are.
    pub source: u64,
    /// Redundancy sent unasked.
    pub parity: u64,
    /// Redundancy sent because a report asked for it.
    pub repair: u64,
    /// Symbols that left the queue unsent, being too old.
    pub expired: u64,
    /// Reports that could not be true.
    pub feedback_faults: u64,
}

/// Sends the frames of one connection as packets.
#[derive(Debug)]
pub struct HopSender {
    ablation: Ablation,
    lanes: BTreeMap<(u32, u8), Lane>,
    queues: Queues,
    pacer: Pacer,
    estimator: Estimator,
    controller: Controller,
    link: Link,
    /// [`Link::give_up`], which every packet asks for.
    give_up: Duration,
    tx_seq: u64,
    /// What left, the newest last; the last one has number `tx_seq − 1`.
    records: VecDeque<Record>,
    /// What left in the same packets, with their numbers, the newest last.
    riders: VecDeque<(u64, Record)>,
    allowance: Allowance,
    repaired_at: Timestamp,
    /// Parity is sent before it is asked for.
    parity: bool,
    /// Room for packets of the burst under way: they are made one after the other in one allocation.
    buffer: BytesMut,
    stats: SendStats,
}

impl Default for HopSender {
    fn default() -> Self {
        HopSender {
            ablation: Ablation::None,
            lanes: BTreeMap::new(),
            queues: Queues::default(),
            pacer: Pacer::default(),
            estimator: Estimator::default(),
            controller: Controller::new(ControllerConfig::default()),
            link: Link::default(),
            give_up: Link::default().give_up(),
            tx_seq: 0,
            records: VecDeque::new(),
            riders: VecDeque::new(),
            allowance: Allowance::default(),
            repaired_at: Timestamp::ZERO,
            parity: true,
            buffer: BytesMut::new(),
            stats: SendStats::default(),
        }
    }
}

impl HopSender {
    /// A sender without parts of repair.
    pub fn without(ablation: Ablation) -> Self {
        HopSender { ablation, ..HopSender::default() }
    }

    /// Whether parity follows frames handed in from now on. Without it losses are repaired when they are reported; what
    /// sound carries of the sound before it stays.
    pub fn set_parity(&mut self, parity: bool) {
        self.parity = parity;
    }

    /// Whether a frame handed in now would leave soon. One frame always may, whatever its size.
    pub fn has_room(&self, now: Timestamp, bytes: usize, urgent: bool) -> bool {
        if urgent {
            let waiting = self.queues.urgent_bytes();
            return waiting == 0 || waiting + bytes <= QUEUE_URGENT_MAX;
        }
        if self.estimator.estimate().is_none() && self.stats.source + self.pacer.queued() > FLIGHT_FIRST {
            return false;
        }
        self.pacer.queued() == 0 || self.pacer.drain_time(now) <= QUEUE_MAX
    }

    /// Queues a frame under the next sequence of its lane and track.
    ///
    /// # Errors
    /// [`Fault`] when it cannot be cut, which a [`Frame`](crate::wire::frame::Frame) always can.
    pub fn send(
        &mut self,
        now: Timestamp,
        lane: u32,
        delivery: Delivery,
        urgent: bool,
        frame: &CodedFrame,
    ) -> Result<(), Fault> {
        let sequence = self.reserve(lane, frame.header().track);
        self.send_reserved(now, lane, sequence, delivery, urgent, frame)
    }

    /// Queues a frame under a sequence of its lane and track that was [reserved](Self::reserve) for it.
    ///
    /// # Errors
    /// As [`HopSender::send`].
    pub fn send_reserved(
        &mut self,
        now: Timestamp,
        lane: u32,
        sequence: u64,
        delivery: Delivery,
        urgent: bool,
        frame: &CodedFrame,
    ) -> Result<(), Fault> {
        let header = frame.header();
        let key = (lane, header.track);
        self.heed_silence(now);
        let sent = SentFrame::new(now, frame, urgent)?;
        let shape = sent.block.shape();
        let state = self.lanes.entry(key).or_default();
        let Some(before) = state.fill(sequence, sent) else {
            // The receiver has given it up long since.
            return Ok(());
        };
        let (frame, turn) = (FrameKey { lane, track: header.track, sequence }, (!urgent, now));
        let entry = |waiting, bytes| Entry { frame, waiting, bytes, turn };
        let bytes = shape.symbol_bytes() + Packet::HEAD_MAX + 16;
        if urgent && shape.symbols() == 1 {
            let (earned, _) = self.link.voice_redundancy();
            let is_coded = delivery.is_repaired() && self.ablation != Ablation::PlainNack;
            let redundancy = if is_coded { state.earn_parity(earned) } else { 0 };
            let waiting = Waiting::Voice { redundancy };
            self.enqueue(now, Class::Urgent, entry(waiting, bytes * (1 + redundancy)));
            return Ok(());
        }
        let class = class(header);
        for index in (0..shape.symbols()).filter(|&index| before.get(index).is_none_or(Option::is_none)) {
            self.enqueue(now, class, entry(Waiting::Source { index }, bytes));
        }
        if !self.parity || !delivery.is_repaired() || self.ablation == Ablation::PlainNack {
            return Ok(());
        }
        let drain = self.pacer.drain_time(now);
        let Some(state) = self.lanes.get_mut(&key) else { return Ok(()) };
        let is_hasty = delivery == Delivery::LowLatency || self.ablation == Ablation::ParityOnly;
        let haste = if is_hasty { Haste::High } else { Haste::Usual };
        // What is lost of the beginning of a frame that leaves slowly is asked for while the rest still leaves.
        let unasked = if is_hasty { 1.0 } else { self.link.unasked_share(drain) };
        let parity = self.link.parity(shape.symbols(), header.keyframe, haste) * unasked;
        let due = state.earn_parity(parity);
        let frames = state.reach(sequence, WINDOW_VIDEO);
        for symbol in 0..due.min(QUEUE_REPAIR_MAX) {
            let slice = symbol % shape.slices();
            self.enqueue(now, Class::Parity, entry(Waiting::Combination { frames, slice }, bytes));
        }
        Ok(())
    }

    /// Queues symbols of a frame that is not whole, under a sequence that was [reserved](Self::reserve) for it. The rest
    /// of it follows in further pieces, with the [whole frame](Self::send_reserved), which brings its parity, or not
    /// [at all](Self::give_up).
    pub fn send_piece(&mut self, now: Timestamp, lane: u32, sequence: u64, urgent: bool, piece: &Piece) {
        let track = piece.header.track;
        self.heed_silence(now);
        let fresh = self.lanes.entry((lane, track)).or_default().grow(now, sequence, piece);
        let bytes = piece.shape.symbol_bytes() + Packet::HEAD_MAX + 16;
        for index in fresh {
            let frame = FrameKey { lane, track, sequence };
            let (waiting, turn) = (Waiting::Source { index }, (!urgent, now));
            self.enqueue(now, class(&piece.header), Entry { frame, waiting, bytes, turn });
        }
    }

    /// The next sequence of a lane and track, for a frame that comes later, or travels on a QUIC stream.
    pub fn reserve(&mut self, lane: u32, track: u8) -> u64 {
        self.lanes.entry((lane, track)).or_default().reserve()
    }

    /// Tells the receiver that the frame of a reserved sequence will not come.
    pub fn give_up(&mut self, now: Timestamp, lane: u32, track: u8, sequence: u64) {
        let (frame, bytes) = (FrameKey { lane, track, sequence }, Packet::HEAD_MAX + 16);
        if let Some(state) = self.lanes.get_mut(&frame.track()) {
            state.lose(sequence);
        }
        self.enqueue(now, Class::Repair, Entry { frame, waiting: Waiting::Gone, bytes, turn: (false, now) });
    }

    /// The next packet, if one may leave now.
    pub fn poll_transmit(&mut self, now: Timestamp) -> Option<Bytes> {
        loop {
            let (class, unpaced) = self.next_class()?;
            if !unpaced && self.pacer.next_send(now) > now {
                return None;
            }
            let mut entry = self.queues.pop(class)?;
            if class == Class::Repair && !self.spend_repair(now, entry.bytes) {
                self.pacer.on_dropped(entry.bytes);
                continue;
            }
            let Some((mut parts, record)) = self.make(now, &entry) else {
                self.pacer.on_dropped(entry.bytes);
                self.stats.expired += 1;
                continue;
            };
            if class == Class::Urgent {
                entry.bytes += self.take_riders(now, &mut parts);
            }
            if let (Class::Repair, Some(lane)) = (class, self.lanes.get_mut(&entry.frame.track())) {
                lane.note_repair(entry.frame.sequence);
            }
            return Some(self.depart(now, class, &entry, parts, record));
        }
    }

    /// When [`poll_transmit`](Self::poll_transmit) may give something next.
    pub fn poll_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        let (_, unpaced) = self.next_class()?;
        Some(if unpaced { now } else { self.pacer.next_send(now) })
    }

    /// The queue whose turn it is, and whether its first packet waits for no pace: voice is too small to
    /// wait, and so is its repair.
    fn next_class(&self) -> Option<(Class, bool)> {
        let (class, first) = self.queues.first()?;
        let voice_repair = class == Class::Repair && !first.turn.0;
        Some((class, class == Class::Urgent || voice_repair))
    }

    /// Takes the receiver's report: the rate follows it, and what it misses is sent.
    ///
    /// # Errors
    /// [`FeedbackFault`] when it cannot be true; it is counted and not used.
    pub fn handle_feedback(&mut self, now: Timestamp, feedback: &Feedback) -> Result<(), FeedbackFault> {
        self.estimator.on_feedback(now, feedback).inspect_err(|_| self.stats.feedback_faults += 1)?;
        if let Some(estimate) = self.estimator.estimate() {
            self.controller.on_estimate(now, &estimate);
            self.link = estimate.into();
            self.give_up = self.link.give_up();
        }
        self.set_pace(now);
        self.repair(now, feedback);
        Ok(())
    }

    /// Forgets a lane that ended; what waits for it will not leave.
    pub fn forget_lane(&mut self, lane: u32) {
        self.lanes.retain(|&(other, _), _| other != lane);
    }

    /// What the link carries, bits/s; the rate that everything sent here keeps to.
    pub fn rate(&self) -> u64 {
        self.controller.rate()
    }

    /// Whether what is under way has to drain before a new frame makes sense: an encoder should leave
    /// the next ones out.
    pub fn is_overfull(&self, now: Timestamp) -> bool {
        matches!(self.controller.state(now), PathState::Overfull | PathState::Broken)
            || self.queue_age(now) > QUEUE_AGE_MAX
    }

    /// What is left of the rate for media once repair has its share, bits/s.
    pub fn media_target(&self) -> u64 {
        (self.rate() as f64 / (1.0 + self.link.overhead())) as u64
    }

    /// What the link would carry of something sent in one go, bits/s: half of what it carried of single
    /// frames, or the rate if that is more.
    pub fn burst_estimate(&self) -> u64 {
        (self.controller.burst_rate() / 2).max(self.media_target())
    }

    /// The window that QUIC needs so that it never holds back what the pace lets out, in bytes.
    pub fn quic_window(&self) -> u64 {
        self.controller.quic_window(self.link.srtt, ACK_DELAY_MAX, KEYFRAME_BYTES)
    }

    /// What is known of the link.
    pub fn link(&self) -> Link {
        self.link
    }

    /// For how long the oldest frame has waited that has not left entirely, repair aside.
    pub fn queue_age(&self, now: Timestamp) -> Duration {
        self.queues.oldest().map(|since| now.saturating_since(since)).unwrap_or_default()
    }

    /// For how long packets have gone out and no report has come.
    pub fn silence(&self, now: Timestamp) -> Duration {
        self.estimator.silence(now)
    }

    /// What left so far.
    pub fn stats(&self) -> SendStats {
        self.stats
    }

    /// Where no reports come, less and less is sent.
    fn heed_silence(&mut self, now: Timestamp) {
        self.controller.on_silence(self.estimator.silence(now));
        self.set_pace(now);
    }

    fn set_pace(&mut self, now: Timestamp) {
        let burst_pace = self.controller.burst_pace(now, self.pacer.queue_age(now));
        self.pacer.set_rates(self.controller.rate(), burst_pace);
        self.pacer.set_calm(self.controller.is_calm(now));
    }

    fn enqueue(&mut self, now: Timestamp, class: Class, entry: Entry) {
        self.pacer.enqueue(now, entry.bytes);
        if let Some(dropped) = self.queues.push(class, entry) {
            self.pacer.on_dropped(dropped.bytes);
        }
    }

    /// The symbols of a packet; `None` when its frame is gone or too old.
    fn make(&mut self, now: Timestamp, entry: &Entry) -> Option<(Vec<Part>, Record)> {
        let FrameKey { lane, track, sequence } = entry.frame;
        let hop = |sequence| HopHeader { lane, track, sequence };
        let record = Record { at: now, frame: entry.frame, span: 0, symbol: None };
        if let Waiting::Gone = entry.waiting {
            return Some((vec![Part::Gone { hop: hop(sequence) }], Record { span: 1, ..record }));
        }
        let give_up = self.give_up;
        let (_, voice_window) = self.link.voice_redundancy();
        let state = self.lanes.get_mut(&(lane, track))?;
        if let Waiting::Source { index } = entry.waiting {
            let (shape, bytes, offered) = state.source(sequence, index)?;
            if now.saturating_since(offered) > give_up {
                return None;
            }
            let parts = vec![Part::Source { hop: hop(sequence), shape, index, bytes }];
            return Some((parts, Record { symbol: Some(index as u16), ..record }));
        }
        let frame = state.get(sequence)?;
        if now.saturating_since(frame.offered) > give_up {
            return None;
        }
        match entry.waiting {
            Waiting::Gone | Waiting::Source { .. } => None,
            Waiting::Combination { frames, slice } => {
                let (window, id, bytes) = state.combine(sequence, frames, slice)?;
                let span = frames.max(1) as u8;
                Some((
                    vec![Part::Repair { hop: hop(sequence), window, id, bytes }],
                    Record { span, ..record },
                ))
            }
            Waiting::Voice { redundancy } => {
                let (shape, bytes) = (frame.block.shape(), frame.block.symbol(0));
                let mut parts = vec![Part::Source { hop: hop(sequence), shape, index: 0, bytes }];
                let before = sequence.checked_sub(1);
                for _ in 0..redundancy {
                    // Over the frames before: this one is in the packet anyway.
                    let Some((window, id, bytes)) =
                        before.and_then(|newest| state.combine(newest, voice_window, 0))
                    else {
                        break;
                    };
                    let part = Part::Repair { hop: hop(window.newest()), window, id, bytes };
                    let size: usize = parts.iter().map(Part::size).sum();
                    if Packet::HEAD_MAX + size + part.size() > DATAGRAM_MAX || parts.len() == PARTS_MAX {
                        break;
                    }
                    parts.push(part);
                }
                Some((parts, Record { symbol: Some(0), ..record }))
            }
        }
    }

    /// Adds what else there is of sound, as far as it fits into the packet: a packet more costs more than its bytes. Gives
    /// what the pacer counted for it.
    fn take_riders(&mut self, now: Timestamp, parts: &mut Vec<Part>) -> usize {
        let mut bytes = 0;
        if self.ablation != Ablation::None {
            return bytes;
        }
        let size = |parts: &[Part]| Packet::HEAD_MAX + parts.iter().map(Part::size).sum::<usize>();
        while let Some((Class::Urgent, entry)) = self.queues.first()
            && let Waiting::Voice { redundancy } = entry.waiting
            && size(parts) + entry.bytes / (1 + redundancy) <= DATAGRAM_MAX
            && parts.len() < PARTS_MAX
        {
            let Some(entry) = self.queues.pop(Class::Urgent) else { break };
            let Some((more, record)) = self.make(now, &entry) else {
                self.pacer.on_dropped(entry.bytes);
                self.stats.expired += 1;
                continue;
            };
            for (place, part) in more.into_iter().enumerate() {
                let fits = size(parts) + part.size() <= DATAGRAM_MAX && parts.len() < PARTS_MAX;
                debug_assert!(fits || place > 0, "there was room for the frame itself");
                if !fits {
                    break;
                }
                parts.push(part);
            }
            bytes += entry.bytes;
            self.riders.push_back((self.tx_seq, record));
            while self.riders.front().is_some_and(|(_, oldest)| oldest.is_old(now, self.give_up))
                || self.riders.len() > RECORDS_MAX
            {
                self.riders.pop_front();
            }
        }
        bytes
    }

    fn depart(
        &mut self,
        now: Timestamp,
        class: Class,
        entry: &Entry,
        parts: Vec<Part>,
        record: Record,
    ) -> Bytes {
        let tx_seq = self.tx_seq;
        self.tx_seq += 1;
        let burst = (self.queues.len() as u64).min(BURST_MAX);
        let is_calm = self.controller.is_calm(now);
        let datagram = self.encode(&Packet { tx_seq, burst, is_calm, parts });
        // The pacer counted what was estimated; what it did not know of, it learns now.
        self.pacer.on_sent(now, entry.bytes);
        self.estimator.on_sent(SentPacket {
            tx_seq,
            at: now,
            bytes: datagram.len() as u32,
            burst_end: tx_seq + burst,
        });
        self.records.push_back(record);
        while self.records.front().is_some_and(|oldest| oldest.is_old(now, self.give_up))
            || self.records.len() > RECORDS_MAX
        {
            self.records.pop_front();
        }
        self.stats.packets += 1;
        let counter = match entry.waiting {
            Waiting::Combination { .. } if class == Class::Parity => &mut self.stats.parity,
            _ if class == Class::Repair => &mut self.stats.repair,
            _ => &mut self.stats.source,
        };
        *counter += datagram.len() as u64;
        datagram
    }

    fn encode(&mut self, packet: &Packet) -> Bytes {
        let size = packet.size();
        if self.buffer.capacity() < size {
            let packets = 1 + packet.burst.min(BUFFER_PACKETS_MAX - 1) as usize;
            self.buffer = BytesMut::with_capacity(size * packets);
        }
        packet.encode_into(&mut self.buffer);
        let datagram = self.buffer.split().freeze();
        if packet.burst == 0 {
            // Nothing is kept between bursts.
            self.buffer = BytesMut::new();
        }
        datagram
    }
}

/// The queue that a frame of this kind waits in. What is too large for one packet is no voice, and waits its turn.
fn class(header: &FrameHeader) -> Class {
    if header.keyframe || header.temporal == 0 { Class::Base } else { Class::Other }
}
