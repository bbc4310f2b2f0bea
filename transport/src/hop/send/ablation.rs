//! Repair with parts of it left out, so that benchmarks can tell what each is worth.

use super::HopSender;
use super::queues::{Class, Entry, Waiting};
use crate::units::Timestamp;
use crate::wire::feedback::{Feedback, Reception};
use crate::wire::packet::Packet;

/// What is left out. Only benchmarks choose it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ablation {
    /// Nothing.
    #[default]
    None,
    /// Everything coded: each packet that a report misses is sent again as it was, and that is all.
    PlainNack,
    /// Reports repair nothing: there is only parity, as much as for [`Delivery::LowLatency`].
    ///
    /// [`Delivery::LowLatency`]: crate::wire::control::Delivery::LowLatency
    ParityOnly,
}

impl HopSender {
    /// Sends each source symbol again whose packet is missing, once for every packet.
    pub(super) fn resend(&mut self, now: Timestamp, feedback: &Feedback) {
        let first = self.tx_seq - self.records.len() as u64;
        let gaps = feedback.packets().filter(|(_, it)| *it == Reception::Missing).map(|(tx_seq, _)| tx_seq);
        let tail = feedback.highest + 1..=feedback.covered().min(self.tx_seq.saturating_sub(1));
        for tx_seq in gaps.chain(tail) {
            let place = tx_seq.checked_sub(first).map(|place| place as usize);
            let Some(record) = place.and_then(|place| self.records.get_mut(place)) else { continue };
            let (frame, Some(index)) = (record.frame, record.symbol.take()) else { continue };
            let Some(sent) = self.lanes.get(&frame.track()).and_then(|lane| lane.get(frame.sequence)) else {
                continue;
            };
            if now.saturating_since(sent.offered) <= self.link.give_up() {
                let bytes = sent.block.shape().symbol_bytes() + Packet::HEAD_MAX + 16;
                let turn = (!sent.urgent, sent.offered);
                self.enqueue(
                    now,
                    Class::Repair,
                    Entry { frame, waiting: Waiting::Source { index }, bytes, turn },
                );
            }
        }
    }
}
