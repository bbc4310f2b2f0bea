//! Sending: frames in, media packets out, at the pace that the link allows and with the redundancy
//! that its losses ask for.
//!
//! Frames are cut into symbols and queued by class; parity follows a frame, repair answers the
//! receiver's reports. Packets are numbered when they leave. A frame that is too old to be of use
//! leaves the queue unsent. Nothing here knows QUIC, and nothing decides whether a frame is worth
//! sending at all: the caller asks [`HopSender::has_room`] first.

mod frames;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::policy::{Haste, Link, WINDOW_VIDEO};
use crate::rate::{Controller, ControllerConfig, Estimator, FeedbackFault, Pacer, PathState, SentPacket};
use crate::repair::Fault;
use crate::units::Timestamp;
use crate::wire::control::Delivery;
use crate::wire::feedback::{DEFICIT_MAX, FRAMES_MAX, Feedback, Reception};
use crate::wire::frame::Frame;
use crate::wire::hop::{DATAGRAM_MAX, HopHeader};
use crate::wire::packet::{BURST_MAX, PARTS_MAX, Packet, Part};
use frames::{Lane, SentFrame};

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
/// Parity and repair waiting; what is beyond will be asked for again.
const QUEUE_REPAIR_MAX: usize = 512;
/// Packets that a report may still speak of: two seconds of 20 Mbit/s.
const RECORDS_MAX: usize = 4096;
/// Repair may run this far ahead of its share: the losses of a large frame.
const REPAIR_BURST: f64 = 64.0 * 1150.0;

/// Where a queue stands, it may have saved up no more than its share of so many seconds.
const REPAIR_QUEUED: f64 = 0.05;

/// Reports are answered with repair at this distance at least.
const REPAIR_SPACING: Duration = Duration::from_millis(1);
/// QUIC's default: how long a receiver may hold an acknowledgement.
const ACK_DELAY_MAX: Duration = Duration::from_millis(25);
/// A keyframe of 720p video with its parity.
const KEYFRAME_BYTES: u64 = 100_000;

/// Which queue a symbol waits in; lower leaves first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Class {
    Urgent,
    Repair,
    Base,
    Other,
    Parity,
}

const CLASSES: usize = 5;

/// A symbol that waits. It is made when it leaves.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    Source {
        index: usize,
    },
    /// Word that the frame will not come.
    Gone,
    /// A whole small frame, with so many redundant symbols for those before it.
    Voice {
        redundancy: usize,
    },
    /// A combination over `frames` frames that ends with this one.
    Combination {
        frames: usize,
        slice: usize,
    },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    lane: u32,
    track: u8,
    sequence: u64,
    waiting: Waiting,
    bytes: usize,
    /// Lower leaves first among repair: sound, then the oldest frame, which all later ones build on.
    turn: (bool, Timestamp),
}

impl Entry {
    fn is_of(&self, key: (u32, u8), sequence: u64) -> bool {
        (self.lane, self.track, self.sequence) == (key.0, key.1, sequence)
    }
}

/// What left in one packet: at most two are needed to know what its loss means.
#[derive(Clone, Copy, Debug)]
struct Record {
    at: Timestamp,
    lane: u32,
    track: u8,
    sequence: u64,
    /// Frames that it helps, this one and older ones; 0 for a symbol as it is.
    span: usize,
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
    lanes: BTreeMap<(u32, u8), Lane>,
    queues: [VecDeque<Entry>; CLASSES],
    queued_urgent: usize,
    pacer: Pacer,
    estimator: Estimator,
    controller: Controller,
    link: Link,
    tx_seq: u64,
    /// What left, the newest last; the last one has number `tx_seq − 1`.
    records: VecDeque<Record>,
    repair_credit: f64,
    credited: Timestamp,
    repaired_at: Timestamp,
    stats: SendStats,
}

impl Default for HopSender {
    fn default() -> Self {
        HopSender {
            lanes: BTreeMap::new(),
            queues: Default::default(),
            queued_urgent: 0,
            pacer: Pacer::default(),
            estimator: Estimator::default(),
            controller: Controller::new(ControllerConfig::default()),
            link: Link::default(),
            tx_seq: 0,
            records: VecDeque::new(),
            repair_credit: REPAIR_BURST,
            credited: Timestamp::ZERO,
            repaired_at: Timestamp::ZERO,
            stats: SendStats::default(),
        }
    }
}

impl HopSender {
    /// Whether a frame handed in now would leave soon. One frame always may, whatever its size.
    pub fn has_room(&self, now: Timestamp, bytes: usize, urgent: bool) -> bool {
        if urgent {
            return self.queued_urgent == 0 || self.queued_urgent + bytes <= QUEUE_URGENT_MAX;
        }
        if self.estimator.estimate().is_none() && self.stats.source + self.pacer.queued() > FLIGHT_FIRST {
            return false;
        }
        self.pacer.queued() == 0 || self.pacer.drain_time(now) <= QUEUE_MAX
    }

    /// Queues a frame under the next sequence of its lane and track.
    ///
    /// # Errors
    /// [`Fault`] when it cannot be cut, which a [`Frame`] always can.
    pub fn send(
        &mut self,
        now: Timestamp,
        lane: u32,
        delivery: Delivery,
        urgent: bool,
        frame: &Frame,
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
        frame: &Frame,
    ) -> Result<(), Fault> {
        let header = frame.header();
        let key = (lane, header.track);
        self.heed_silence(now);
        let sent = SentFrame::new(now, frame, urgent)?;
        let shape = sent.block.shape();
        let state = self.lanes.entry(key).or_default();
        if !state.fill(sequence, sent) {
            // The receiver has given it up long since.
            return Ok(());
        }
        let turn = (!urgent, now);
        let entry = |waiting, bytes| Entry { lane, track: header.track, sequence, waiting, bytes, turn };
        let bytes = shape.symbol_bytes() + Packet::HEAD_MAX + 16;
        if urgent && shape.symbols() == 1 {
            let (earned, _) = self.link.voice_redundancy();
            let redundancy = if delivery.is_repaired() { state.earn_parity(earned) } else { 0 };
            let waiting = Waiting::Voice { redundancy };
            self.enqueue(now, Class::Urgent, entry(waiting, bytes * (1 + redundancy)));
            return Ok(());
        }
        let class = match () {
            // What is too large for one packet is no voice, and waits its turn.
            () if header.keyframe || header.temporal == 0 => Class::Base,
            () => Class::Other,
        };
        for index in 0..shape.symbols() {
            self.enqueue(now, class, entry(Waiting::Source { index }, bytes));
        }
        if !delivery.is_repaired() {
            return Ok(());
        }
        let Some(state) = self.lanes.get_mut(&key) else { return Ok(()) };
        let haste = if delivery == Delivery::LowLatency { Haste::High } else { Haste::Usual };
        let due = state.earn_parity(self.link.parity(shape.symbols(), header.keyframe, haste));
        let frames = state.reach(sequence, WINDOW_VIDEO);
        for symbol in 0..due.min(QUEUE_REPAIR_MAX) {
            let slice = symbol % shape.slices();
            self.enqueue(now, Class::Parity, entry(Waiting::Combination { frames, slice }, bytes));
        }
        Ok(())
    }

    /// The next sequence of a lane and track, for a frame that comes later, or travels on a QUIC stream.
    pub fn reserve(&mut self, lane: u32, track: u8) -> u64 {
        self.lanes.entry((lane, track)).or_default().reserve()
    }

    /// Tells the receiver that the frame of a reserved sequence will not come.
    pub fn give_up(&mut self, now: Timestamp, lane: u32, track: u8, sequence: u64) {
        let bytes = Packet::HEAD_MAX + 16;
        let turn = (false, now);
        self.enqueue(
            now,
            Class::Repair,
            Entry { lane, track, sequence, waiting: Waiting::Gone, bytes, turn },
        );
    }

    /// The next packet, if one may leave now.
    pub fn poll_transmit(&mut self, now: Timestamp) -> Option<Bytes> {
        loop {
            let (class, unpaced) = self.next_class()?;
            if !unpaced && self.pacer.next_send(now) > now {
                return None;
            }
            let entry = self.queues[class].pop_front()?;
            self.queued_urgent -= if class == Class::Urgent as usize { entry.bytes } else { 0 };
            if class == Class::Repair as usize && !self.spend_repair(now, entry.bytes) {
                self.pacer.on_dropped(entry.bytes);
                continue;
            }
            let Some((parts, record)) = self.make(now, &entry) else {
                self.pacer.on_dropped(entry.bytes);
                self.stats.expired += 1;
                continue;
            };
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
    fn next_class(&self) -> Option<(usize, bool)> {
        let (class, first) =
            self.queues.iter().enumerate().find_map(|(at, queue)| Some((at, queue.front()?)))?;
        let voice_repair = class == Class::Repair as usize && !first.turn.0;
        Some((class, class == Class::Urgent as usize || voice_repair))
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
        }
        self.pacer.set_rates(self.controller.rate(), self.controller.burst_rate());
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
        let classes = [Class::Urgent, Class::Base, Class::Other];
        let fronts = classes.iter().filter_map(|&class| self.queues[class as usize].front());
        fronts.map(|entry| now.saturating_since(entry.turn.1)).max().unwrap_or_default()
    }

    /// What left so far.
    pub fn stats(&self) -> SendStats {
        self.stats
    }

    /// Where no reports come, less and less is sent.
    fn heed_silence(&mut self, now: Timestamp) {
        self.controller.on_silence(self.estimator.silence(now));
        self.pacer.set_rates(self.controller.rate(), self.controller.burst_rate());
    }

    fn enqueue(&mut self, now: Timestamp, class: Class, entry: Entry) {
        self.pacer.enqueue(now, entry.bytes);
        if class == Class::Urgent {
            self.queued_urgent += entry.bytes;
        }
        let queue = &mut self.queues[class as usize];
        let dropped = match class {
            Class::Repair => {
                let place = queue.partition_point(|other| other.turn <= entry.turn);
                queue.insert(place, entry);
                if queue.len() > QUEUE_REPAIR_MAX { queue.pop_back() } else { None }
            }
            Class::Parity => {
                queue.push_back(entry);
                if queue.len() > QUEUE_REPAIR_MAX { queue.pop_front() } else { None }
            }
            Class::Urgent | Class::Base | Class::Other => {
                queue.push_back(entry);
                None
            }
        };
        if let Some(dropped) = dropped {
            self.pacer.on_dropped(dropped.bytes);
        }
    }

    /// The symbols of a packet; `None` when its frame is gone or too old.
    fn make(&mut self, now: Timestamp, entry: &Entry) -> Option<(Vec<Part>, Record)> {
        let (lane, track, sequence) = (entry.lane, entry.track, entry.sequence);
        let hop = |sequence| HopHeader { lane, track, sequence };
        if let Waiting::Gone = entry.waiting {
            let record = Record { at: now, lane, track, sequence, span: 1 };
            return Some((vec![Part::Gone { hop: hop(sequence) }], record));
        }
        let give_up = self.link.give_up();
        let (_, voice_window) = self.link.voice_redundancy();
        let state = self.lanes.get_mut(&(lane, track))?;
        let frame = state.get(sequence)?;
        if now.saturating_since(frame.offered) > give_up {
            return None;
        }
        let record = Record { at: now, lane, track, sequence, span: 0 };
        match entry.waiting {
            Waiting::Gone => None,
            Waiting::Source { index } => {
                let (shape, bytes) = (frame.block.shape(), frame.block.symbol(index));
                Some((vec![Part::Source { hop: hop(sequence), shape, index, bytes }], record))
            }
            Waiting::Combination { frames, slice } => {
                let (window, id, bytes) = state.combine(sequence, frames, slice)?;
                let span = frames.max(1);
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
                Some((parts, record))
            }
        }
    }

    fn depart(
        &mut self,
        now: Timestamp,
        class: usize,
        entry: &Entry,
        parts: Vec<Part>,
        record: Record,
    ) -> Bytes {
        let tx_seq = self.tx_seq;
        self.tx_seq += 1;
        let burst = self.queues.iter().map(VecDeque::len).sum::<usize>() as u64;
        let burst = burst.min(BURST_MAX);
        let datagram = Packet { tx_seq, burst, parts }.encode();
        // The pacer counted what was estimated; what it did not know of, it learns now.
        self.pacer.on_sent(now, entry.bytes);
        self.estimator.on_sent(SentPacket {
            tx_seq,
            at: now,
            bytes: datagram.len() as u32,
            burst_end: tx_seq + burst,
        });
        self.records.push_back(record);
        if self.records.len() > RECORDS_MAX {
            self.records.pop_front();
        }
        self.stats.packets += 1;
        let counter = match entry.waiting {
            Waiting::Combination { .. } if class == Class::Parity as usize => &mut self.stats.parity,
            _ if class == Class::Repair as usize => &mut self.stats.repair,
            _ => &mut self.stats.source,
        };
        *counter += datagram.len() as u64;
        datagram
    }

    /// Whether repair has not yet used up its share of the rate.
    fn spend_repair(&mut self, now: Timestamp, bytes: usize) -> bool {
        let passed = now.saturating_since(self.credited).as_secs_f64();
        self.credited = now;
        let share = self.link.repair_share() * self.controller.rate() as f64 / 8.0;
        // What a full queue lost is not to be poured into it again.
        let most = match self.controller.state(now) {
            PathState::Open => REPAIR_BURST.max(share * 0.25),
            PathState::Queued | PathState::Overfull | PathState::Broken => share * REPAIR_QUEUED,
        };
        self.repair_credit = (self.repair_credit + passed * share).min(most);
        if self.repair_credit < 0.0 {
            return false;
        }
        self.repair_credit -= bytes as f64;
        true
    }

    /// Queues what the report says is missing and is not on its way already.
    fn repair(&mut self, now: Timestamp, feedback: &Feedback) {
        // An honest receiver keeps this distance; more would only cost work.
        if now.saturating_since(self.repaired_at) < REPAIR_SPACING {
            return;
        }
        self.repaired_at = now;
        let mut under_way = self.under_way(now, feedback.covered());
        for wanted in &feedback.frames {
            let key = (wanted.lane, wanted.track);
            let Some(lane) = self.lanes.get(&key) else { continue };
            let Some(frame) = lane.get(wanted.sequence) else {
                if lane.is_past(wanted.sequence) && self.queued(key, wanted.sequence) == 0 {
                    self.give_up(now, wanted.lane, wanted.track, wanted.sequence);
                }
                continue;
            };
            if now.saturating_since(frame.offered) > self.link.give_up() {
                if self.queued(key, wanted.sequence) == 0 {
                    self.give_up(now, wanted.lane, wanted.track, wanted.sequence);
                }
                continue;
            }
            let symbols = frame.block.shape().symbols();
            let deficit =
                if wanted.deficit >= DEFICIT_MAX { symbols } else { (wanted.deficit as usize).min(symbols) };
            self.repair_frame(now, key, wanted.sequence, deficit, &mut under_way);
        }
        for (key, sequence) in self.lost_tail(feedback) {
            let Some(frame) = self.lanes.get(&key).and_then(|lane| lane.get(sequence)) else { continue };
            let symbols = frame.block.shape().symbols();
            self.repair_frame(now, key, sequence, symbols, &mut under_way);
        }
    }

    fn repair_frame(
        &mut self,
        now: Timestamp,
        key: (u32, u8),
        sequence: u64,
        deficit: usize,
        under_way: &mut Vec<Record>,
    ) {
        // What has not left yet is no loss, and parity that waits is as good as new repair.
        let mut need = deficit.saturating_sub(self.queued(key, sequence));
        need -= self.hasten_parity(now, key, sequence, need);
        // Parity of later frames may help too, but comes later than what is sent now.
        under_way.retain(|record| {
            let helps = ((record.lane, record.track), record.sequence) == (key, sequence);
            let is_used = helps && need > 0;
            need -= usize::from(is_used);
            !is_used
        });
        let Some(frame) = self.lanes.get(&key).and_then(|lane| lane.get(sequence)) else { return };
        let (age, turn) = (now.saturating_since(frame.offered), (!frame.urgent, frame.offered));
        if need == 0 || age > self.link.give_up() {
            return;
        }
        let shape = frame.block.shape();
        // The report does not say which slice lacks symbols: each gets its share, in turn.
        let count = self.link.repair(need, age, !turn.0) + shape.slices() - 1;
        let first_slice = self.lanes.get_mut(&key).map_or(0, |lane| lane.turn(sequence, count));
        for symbol in 0..count.min(QUEUE_REPAIR_MAX) {
            // A frame of one symbol is repaired by itself: the receiver need not solve anything.
            let waiting = match shape.symbols() {
                1 => Waiting::Source { index: 0 },
                _ => Waiting::Combination { frames: 1, slice: (first_slice + symbol) % shape.slices() },
            };
            let bytes = shape.symbol_bytes() + Packet::HEAD_MAX + 16;
            let (lane, track) = key;
            self.enqueue(now, Class::Repair, Entry { lane, track, sequence, waiting, bytes, turn });
        }
    }

    /// Symbols of a frame that wait, parity aside.
    fn queued(&self, key: (u32, u8), sequence: u64) -> usize {
        let classes = [Class::Repair, Class::Base, Class::Other];
        let entries = classes.iter().flat_map(|&class| &self.queues[class as usize]);
        entries.filter(|entry| entry.is_of(key, sequence)).count()
    }

    /// Makes repair of up to `need` parity symbols of a frame that wait; says how many.
    fn hasten_parity(&mut self, now: Timestamp, key: (u32, u8), sequence: u64, need: usize) -> usize {
        let mut hastened = 0;
        while hastened < need {
            let queue = &mut self.queues[Class::Parity as usize];
            let Some(entry) =
                queue.iter().position(|entry| entry.is_of(key, sequence)).and_then(|at| queue.remove(at))
            else {
                break;
            };
            self.pacer.on_dropped(entry.bytes);
            self.enqueue(now, Class::Repair, entry);
            hastened += 1;
        }
        hastened
    }

    /// What left after `covered` and may still arrive.
    fn under_way(&self, now: Timestamp, covered: u64) -> Vec<Record> {
        let horizon = self.link.horizon();
        let newer = self.tx_seq.saturating_sub(covered.saturating_add(1)).min(self.records.len() as u64);
        let start = self.records.len() - newer as usize;
        let recent = self.records.range(start..);
        recent.filter(|record| now.saturating_since(record.at) < horizon).copied().collect()
    }

    /// Frames of which the receiver has seen nothing because the end of a burst is missing.
    fn lost_tail(&self, feedback: &Feedback) -> Vec<((u32, u8), u64)> {
        if feedback.tail == 0 {
            return Vec::new();
        }
        let first = self.tx_seq.saturating_sub(self.records.len() as u64);
        let mut frames: Vec<((u32, u8), u64)> = Vec::new();
        for tx_seq in (feedback.highest + 1)..=feedback.covered().min(self.tx_seq.saturating_sub(1)) {
            if frames.len() >= FRAMES_MAX {
                break;
            }
            let Some(record) = tx_seq.checked_sub(first).and_then(|at| self.records.get(at as usize)) else {
                continue;
            };
            let frame = ((record.lane, record.track), record.sequence);
            let is_listed =
                feedback.frames.iter().any(|listed| ((listed.lane, listed.track), listed.sequence) == frame);
            // Parity that is lost is no frame that is lost; and of a frame that began before the
            // tail the receiver knows and tells itself.
            let began_before = self.began_before(feedback, record);
            if record.span == 0 && !is_listed && !began_before && !frames.contains(&frame) {
                frames.push(frame);
            }
        }
        frames
    }

    /// Whether a packet of the same frame is known to have arrived.
    fn began_before(&self, feedback: &Feedback, of: &Record) -> bool {
        let first = self.tx_seq.saturating_sub(self.records.len() as u64);
        feedback.packets().filter(|(_, reception)| *reception != Reception::Missing).any(|(tx_seq, _)| {
            tx_seq.checked_sub(first).and_then(|at| self.records.get(at as usize)).is_some_and(|record| {
                (record.lane, record.track, record.sequence, record.span)
                    == (of.lane, of.track, of.sequence, 0)
            })
        })
    }
}
