//! The decoder against a model that does the same slowly: it keeps every equation and solves them all anew.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What a simple decoder can know: for every symbol whether it is determined, by elimination of bytes only.
struct Model {
    columns: Vec<(usize, usize)>,
    rows: Vec<Vec<u8>>,
}

impl Model {
    fn new(sender: &Sender) -> Self {
        let columns = sender
            .blocks
            .iter()
            .enumerate()
            .flat_map(|(frame, block)| (0..block.shape().symbols()).map(move |index| (frame, index)))
            .collect();
        Model { columns, rows: Vec::new() }
    }

    fn add(&mut self, terms: impl Iterator<Item = ((usize, usize), u8)>) {
        let mut row = vec![0; self.columns.len()];
        for (symbol, coefficient) in terms {
            let column = self.columns.iter().position(|&column| column == symbol).unwrap();
            row[column] = coefficient;
        }
        self.rows.push(row);
    }

    /// The rows in reduced echelon form.
    fn solved(&self) -> Vec<Vec<u8>> {
        let mut rows = self.rows.clone();
        let mut rank = 0;
        for column in 0..self.columns.len() {
            let Some(at) = (rank..rows.len()).find(|&at| rows[at][column] != 0) else { continue };
            rows.swap(rank, at);
            let inverse = field::inverse(rows[rank][column]);
            rows[rank].iter_mut().for_each(|c| *c = field::product(*c, inverse));
            let pivot = rows[rank].clone();
            for (_, row) in rows.iter_mut().enumerate().filter(|&(at, _)| at != rank) {
                let factor = row[column];
                row.iter_mut().zip(&pivot).for_each(|(c, &p)| *c ^= field::product(factor, p));
            }
            rank += 1;
        }
        rows.truncate(rank);
        rows
    }

    /// The symbols that are determined.
    fn known(&self) -> BTreeSet<(usize, usize)> {
        let is_term = |&(_, &c): &(usize, &u8)| c != 0;
        self.solved()
            .iter()
            .filter(|row| row.iter().enumerate().filter(is_term).count() == 1)
            .filter_map(|row| row.iter().position(|&c| c != 0))
            .map(|column| self.columns[column])
            .collect()
    }
}

#[derive(Clone, Debug)]
enum Packet {
    Source(usize, usize),
    Repair { newest: usize, frames: usize, slice: usize, id: RepairId },
    Forget(u64),
}

/// Frames of these lengths with windows of four, `parity` repair symbols each.
fn packets(sender: &Sender, parity: usize) -> Vec<Packet> {
    let mut id = RepairId::new(150).unwrap();
    let mut packets = Vec::new();
    for (frame, block) in sender.blocks.iter().enumerate() {
        packets.extend((0..block.shape().symbols()).map(|index| Packet::Source(frame, index)));
        let frames = reach(sender.blocks[..=frame].iter().rev().map(SourceBlock::shape), 4);
        for slice in 0..block.shape().slices() {
            for _ in 0..parity {
                packets.push(Packet::Repair { newest: frame, frames, slice, id });
                id = id.next();
            }
        }
    }
    packets
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any subset of symbols in any order, some twice: exactly what can be known is known, at every step,
    /// every symbol and frame is given out once and is right, and deficits add up.
    #[test]
    fn everything_that_can_be_known_is_known_and_nothing_else(
        lengths in prop::collection::vec(prop_oneof![4 => 1..6000usize, 1 => 6000..14_000usize], 1..7),
        parity in 0..4usize,
        loss in 0..800usize,
        reorder in 0..60usize,
        forget in prop::option::of((0..40usize, 0..5u64)),
        seed in any::<u64>(),
    ) {
        let mut noise = Noise(seed);
        let sender = Sender { blocks: lengths.iter().map(|&length| noise.block(length)).collect() };
        let mut stream = packets(&sender, parity);
        stream.retain(|_| !noise.chance(loss));
        for _ in 0..reorder.min(stream.len()) {
            let (from, to) = (noise.below(stream.len()), noise.below(stream.len()));
            let packet = stream.remove(from);
            stream.insert(to, packet);
            stream.insert(noise.below(stream.len()), stream[from].clone());
        }
        if let Some((at, frame)) = forget {
            stream.insert(at.min(stream.len()), Packet::Forget(frame));
        }

        let mut decoder = Decoder::default();
        let mut model = Model::new(&sender);
        let mut floor = 0;
        let mut known = BTreeSet::new();
        let mut whole = BTreeSet::new();
        for packet in &stream {
            match *packet {
                Packet::Source(frame, index) => {
                    sender.send_source(&mut decoder, frame, index)?;
                    if frame as u64 >= floor {
                        model.add([((frame, index), 1)].into_iter());
                    }
                }
                Packet::Repair { newest, frames, slice, id } => {
                    sender.send_repair(&mut decoder, newest, frames, slice, id)?;
                    let window = sender.window(newest, frames, slice);
                    if window.frames().all(|(frame, _)| frame >= floor) {
                        model.add(window.symbols().enumerate().map(|(place, (frame, index))| {
                            ((frame as usize, index), coefficient(id, place))
                        }));
                    }
                }
                Packet::Forget(frame) => {
                    decoder.forget_before(frame);
                    floor = frame;
                }
            }
            while let Some(output) = decoder.poll_output() {
                let block = &sender.blocks[output.frame() as usize];
                match output {
                    Output::Symbol { frame, index, bytes, .. } => {
                        prop_assert_eq!(&bytes, &block.symbol(index));
                        prop_assert!(known.insert((frame as usize, index)), "given out twice");
                    }
                    Output::Frame { frame, block: found } => {
                        prop_assert_eq!(&found, block);
                        prop_assert!(whole.insert(frame), "given out twice");
                    }
                }
            }
            let is_live = |&(frame, _): &(usize, usize)| frame as u64 >= floor;
            let expected: BTreeSet<_> = model.known().into_iter().filter(is_live).collect();
            let live: BTreeSet<_> = known.iter().copied().filter(is_live).collect();
            prop_assert_eq!(&live, &expected);
        }

        // The deficits are what the model lacks, as far as frames were heard of.
        if floor == 0 {
            let heard = |frame: usize| decoder.deficit(frame as u64).is_some();
            let unheard: usize = (0..sender.blocks.len())
                .filter(|&frame| !heard(frame))
                .map(|frame| sender.blocks[frame].shape().symbols())
                .sum();
            let lacking = model.columns.len() - model.solved().len();
            prop_assert_eq!(decoder.deficits().map(|deficit| deficit.symbols).sum::<usize>() + unheard, lacking);
        }

        // A sender that answers the deficits makes every frame whole: nearly always in one round.
        let mut id = RepairId::default();
        for _round in 0..3 {
            for Deficit { frame, slice, symbols } in decoder.deficits().collect::<Vec<_>>() {
                for _ in 0..symbols {
                    sender.send_repair(&mut decoder, frame as usize, 1, slice, id)?;
                    id = id.next();
                }
            }
        }
        prop_assert_eq!(decoder.deficits().count(), 0);
        sender.drain(&mut decoder);
        for (frame, block) in sender.blocks.iter().enumerate() {
            let found = decoder.block(frame as u64);
            prop_assert!(found == Some(block) || decoder.deficit(frame as u64).is_none());
        }
    }
}
