//! What a report asks for, sent again: only what is not on its way already, and within a share of the rate.

use std::time::Duration;

use super::queues::{Class, Entry, FrameKey, QUEUE_REPAIR_MAX, Waiting};
use super::{Ablation, HopSender, Record};
use crate::rate::PathState;
use crate::units::Timestamp;
use crate::wire::feedback::{DEFICIT_MAX, FRAMES_MAX, Feedback, IncompleteFrame, Reception};
use crate::wire::packet::Packet;

/// Repair may run this far ahead of its share: the losses of a large frame.
const REPAIR_BURST: f64 = 64.0 * 1150.0;
/// Where a queue stands, it may have saved up no more than its share of so many seconds.
const REPAIR_QUEUED: f64 = 0.05;
/// Reports are answered with repair at this distance at least.
const REPAIR_SPACING: Duration = Duration::from_millis(1);

impl HopSender {
    /// Whether repair has not yet used up its share of the rate.
    pub(super) fn spend_repair(&mut self, now: Timestamp, bytes: usize) -> bool {
        let share = self.link.repair_share() * self.controller.rate() as f64 / 8.0;
        // What a full queue lost is not to be poured into it again.
        let most = match self.controller.state(now) {
            PathState::Open => REPAIR_BURST.max(share * 0.25),
            PathState::Queued | PathState::Overfull | PathState::Broken => share * REPAIR_QUEUED,
        };
        self.allowance.spend(now, bytes, share, most)
    }

    /// Queues what the report says is missing and is not on its way already.
    pub(super) fn repair(&mut self, now: Timestamp, feedback: &Feedback) {
        // An honest receiver keeps this distance; more would only cost work.
        if now.saturating_since(self.repaired_at) < REPAIR_SPACING {
            return;
        }
        self.repaired_at = now;
        let give_up = match self.ablation {
            Ablation::None => self.give_up,
            Ablation::PlainNack => return self.resend(now, feedback, None, usize::MAX),
            Ablation::ParityOnly => self.link.deadline(),
        };
        let mut under_way = self.under_way(now, feedback.covered());
        for wanted in &feedback.frames {
            let frame = FrameKey { lane: wanted.lane, track: wanted.track, sequence: wanted.sequence };
            let Some(lane) = self.lanes.get(&frame.track()) else { continue };
            match lane.get(frame.sequence) {
                None if lane.lacks(frame.sequence).is_some() => {
                    self.repair_open(now, frame, wanted.deficit, feedback, &mut under_way);
                }
                Some(sent) if now.saturating_since(sent.offered) <= give_up => {
                    let symbols = sent.block.shape().symbols();
                    let all = wanted.deficit >= DEFICIT_MAX;
                    let deficit = if all { symbols } else { (wanted.deficit as usize).min(symbols) };
                    self.repair_frame(now, frame, deficit, &mut under_way);
                }
                None if !lane.is_gone(frame.sequence) => {}
                // The word is on its way.
                _ if self.queues.waiting(frame) > 0 || under_way.iter().any(|it| it.frame == frame) => {}
                _ => self.give_up(now, frame.lane, frame.track, frame.sequence),
            }
        }
        for frame in self.lost_tail(feedback) {
            let Some(lane) = self.lanes.get(&frame.track()) else { continue };
            match lane.get(frame.sequence) {
                Some(sent) => {
                    let symbols = sent.block.shape().symbols();
                    self.repair_frame(now, frame, symbols, &mut under_way);
                }
                None if lane.lacks(frame.sequence).is_some() => {
                    self.repair_open(now, frame, DEFICIT_MAX, feedback, &mut under_way);
                }
                None => {}
            }
        }
    }

    /// Sends again what a frame lacks that is not whole here either: nothing can be coded of it, so it is the very
    /// symbols whose packets are missing. What has not come yet is no loss of this hop.
    fn repair_open(
        &mut self,
        now: Timestamp,
        frame: FrameKey,
        deficit: u64,
        feedback: &Feedback,
        under_way: &mut Vec<Record>,
    ) {
        let lacks = self.lanes.get(&frame.track()).and_then(|lane| lane.lacks(frame.sequence));
        let (Some(lacks), Ablation::None) = (lacks, self.ablation) else { return };
        let excused = lacks + self.queues.waiting(frame);
        let before = under_way.len();
        under_way.retain(|record| record.frame != frame);
        let excused = excused + before - under_way.len();
        let need = usize::try_from(deficit).unwrap_or(usize::MAX).saturating_sub(excused);
        self.resend(now, feedback, Some(frame), need);
    }

    /// Sends up to `most` source symbols again whose packets are missing, of one frame or of all, once for every packet.
    fn resend(&mut self, now: Timestamp, feedback: &Feedback, only: Option<FrameKey>, most: usize) {
        let first = self.tx_seq - self.records.len() as u64;
        let gaps = feedback.packets().filter(|(_, it)| *it == Reception::Missing).map(|(tx_seq, _)| tx_seq);
        let tail = feedback.highest + 1..=feedback.covered().min(self.tx_seq.saturating_sub(1));
        let mut resent = 0;
        for tx_seq in gaps.chain(tail) {
            if resent >= most {
                break;
            }
            let place = tx_seq.checked_sub(first).map(|place| place as usize);
            let Some(record) = place.and_then(|place| self.records.get_mut(place)) else { continue };
            if only.is_some_and(|only| only != record.frame) {
                continue;
            }
            let (frame, Some(index)) = (record.frame, record.symbol.take()) else { continue };
            let index = usize::from(index);
            let Some(lane) = self.lanes.get(&frame.track()) else { continue };
            let Some((shape, _, offered)) = lane.source(frame.sequence, index) else { continue };
            if now.saturating_since(offered) <= self.give_up {
                let bytes = shape.symbol_bytes() + Packet::HEAD_MAX + 16;
                let is_urgent = lane.get(frame.sequence).is_some_and(|sent| sent.urgent);
                let entry =
                    Entry { frame, waiting: Waiting::Source { index }, bytes, turn: (!is_urgent, offered) };
                self.enqueue(now, Class::Repair, entry);
                resent += 1;
            }
        }
    }

    fn repair_frame(&mut self, now: Timestamp, frame: FrameKey, deficit: usize, under_way: &mut Vec<Record>) {
        if self.ablation == Ablation::ParityOnly {
            return;
        }
        // What has not left yet is no loss, and parity that waits is as good as new repair.
        let mut need = deficit.saturating_sub(self.queues.waiting(frame));
        need -= self.hasten_parity(now, frame, need);
        // Parity of later frames may help too, but comes later than what is sent now.
        under_way.retain(|record| {
            let is_used = record.frame == frame && need > 0;
            need -= usize::from(is_used);
            !is_used
        });
        let Some(lane) = self.lanes.get_mut(&frame.track()) else { return };
        let Some(sent) = lane.get(frame.sequence) else { return };
        let (age, turn) = (now.saturating_since(sent.offered), (!sent.urgent, sent.offered));
        if need == 0 || age > self.give_up {
            return;
        }
        let shape = sent.block.shape();
        // The report does not say which slice lacks symbols: each gets its share, in turn.
        let count = self.link.repair(need, age, !turn.0) + shape.slices() - 1;
        let count = count.min(self.link.repairs_max(shape.symbols()).saturating_sub(sent.repaired));
        let first_slice = lane.turn(frame.sequence, count);
        for symbol in 0..count.min(QUEUE_REPAIR_MAX) {
            // A frame of one symbol is repaired by itself: the receiver need not solve anything.
            let waiting = match shape.symbols() {
                1 => Waiting::Source { index: 0 },
                _ => Waiting::Combination { frames: 1, slice: (first_slice + symbol) % shape.slices() },
            };
            let bytes = shape.symbol_bytes() + Packet::HEAD_MAX + 16;
            self.enqueue(now, Class::Repair, Entry { frame, waiting, bytes, turn });
        }
    }

    /// Makes repair of up to `need` parity symbols of a frame that wait; says how many.
    fn hasten_parity(&mut self, now: Timestamp, frame: FrameKey, need: usize) -> usize {
        let mut hastened = 0;
        while hastened < need
            && let Some(entry) = self.queues.take_parity(frame)
        {
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
        let recent = self.records.range(start..).chain(self.riders_from(covered.saturating_add(1)));
        recent.filter(|record| now.saturating_since(record.at) < horizon).copied().collect()
    }

    /// Frames of which the receiver has seen nothing because what it expected next did not come.
    fn lost_tail(&self, feedback: &Feedback) -> Vec<FrameKey> {
        let mut frames: Vec<FrameKey> = Vec::new();
        let Some(newest) = self.record(feedback.highest) else { return frames };
        for tx_seq in (feedback.highest + 1)..=feedback.covered().min(self.tx_seq.saturating_sub(1)) {
            if frames.len() >= FRAMES_MAX {
                break;
            }
            let Some(record) = self.record(tx_seq) else { continue };
            // What left so late that it cannot have come yet is not missing, whatever the receiver expected.
            if record.at.saturating_since(newest.at) > feedback.hold {
                break;
            }
            for record in std::iter::once(record).chain(self.riders_of(tx_seq)) {
                let is_of = |listed: &IncompleteFrame| {
                    (listed.lane, listed.track, listed.sequence)
                        == (record.frame.lane, record.frame.track, record.frame.sequence)
                };
                // Parity that is lost is no frame that is lost; and of a frame that began before the
                // tail the receiver knows and tells itself.
                if record.span == 0
                    && !frames.contains(&record.frame)
                    && !feedback.frames.iter().any(is_of)
                    && !self.began_before(feedback, record)
                {
                    frames.push(record.frame);
                }
            }
        }
        frames
    }

    /// Whether a packet of the same frame is known to have arrived.
    fn began_before(&self, feedback: &Feedback, of: &Record) -> bool {
        feedback
            .packets()
            .filter(|(_, reception)| *reception != Reception::Missing)
            .filter_map(|(tx_seq, _)| self.record(tx_seq))
            .any(|record| (record.frame, record.span) == (of.frame, 0))
    }

    /// What shared packets with others, from this number on.
    fn riders_from(&self, tx_seq: u64) -> impl Iterator<Item = &Record> {
        let start = self.riders.partition_point(|(of, _)| *of < tx_seq);
        self.riders.range(start..).map(|(_, record)| record)
    }

    /// What shared this packet.
    fn riders_of(&self, tx_seq: u64) -> impl Iterator<Item = &Record> {
        let start = self.riders.partition_point(|(of, _)| *of < tx_seq);
        self.riders.range(start..).take_while(move |(of, _)| *of == tx_seq).map(|(_, record)| record)
    }

    fn record(&self, tx_seq: u64) -> Option<&Record> {
        let first = self.tx_seq - self.records.len() as u64;
        self.records.get(tx_seq.checked_sub(first)? as usize)
    }
}

/// What repair may still take of its share of the rate.
#[derive(Debug)]
pub(super) struct Allowance {
    bytes: f64,
    since: Timestamp,
}

impl Default for Allowance {
    fn default() -> Self {
        Allowance { bytes: REPAIR_BURST, since: Timestamp::ZERO }
    }
}

impl Allowance {
    /// Takes `bytes` if there is anything left, with `share` bytes earned each second and at most `most` saved.
    fn spend(&mut self, now: Timestamp, bytes: usize, share: f64, most: f64) -> bool {
        let passed = now.saturating_since(self.since).as_secs_f64();
        self.since = now;
        self.bytes = (self.bytes + passed * share).min(most);
        if self.bytes < 0.0 {
            return false;
        }
        self.bytes -= bytes as f64;
        true
    }
}
