//! If this fails, a repaired frame may be wrong, late or missing: the code against its specification, the
//! decoder against a slow and simple one, and both against peers that lie.

mod bounds;
mod model;
mod rank;

use bytes::Bytes;

use super::code::{SYMBOL_BYTES_MAX, SYMBOLS_MAX, WINDOW_SYMBOLS_MAX, coefficient, reach};
use super::*;
use crate::error::{Code, Coded};
use crate::wire::frame::OBJECT_MAX;

/// Repeatable noise (splitmix64).
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True in `per_mille` of 1,000 cases.
    pub(super) fn chance(&mut self, per_mille: usize) -> bool {
        self.below(1000) < per_mille
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    pub(super) fn block(&mut self, length: usize) -> SourceBlock {
        SourceBlock::new((0..length).map(|_| self.next() as u8).collect()).unwrap()
    }
}

/// Frames numbered from 0, as a sender keeps them.
pub(super) struct Sender {
    pub(super) blocks: Vec<SourceBlock>,
}

impl Sender {
    /// The window of `frames` frames that ends with `newest`.
    pub(super) fn window(&self, newest: usize, frames: usize, slice: usize) -> Window {
        let shapes = self.blocks[..=newest].iter().rev().take(frames).map(|block| Some(block.shape()));
        Window::new(newest as u64, shapes, slice).unwrap()
    }

    /// The repair symbol over that window.
    pub(super) fn repair(&self, newest: usize, frames: usize, slice: usize, id: RepairId) -> Bytes {
        encode_repair(self.blocks[..=newest].iter().rev().take(frames), slice, id).unwrap()
    }

    pub(super) fn send_source(&self, decoder: &mut Decoder, frame: usize, index: usize) -> Result<(), Fault> {
        let block = &self.blocks[frame];
        decoder.handle_source(frame as u64, block.shape(), index, block.symbol(index))
    }

    pub(super) fn send_repair(
        &self,
        decoder: &mut Decoder,
        newest: usize,
        frames: usize,
        slice: usize,
        id: RepairId,
    ) -> Result<(), Fault> {
        let window = self.window(newest, frames, slice);
        decoder.handle_repair(&window, id, &self.repair(newest, frames, slice, id))
    }

    /// Checks and counts what a decoder gives out: frames whole, symbols recovered.
    pub(super) fn drain(&self, decoder: &mut Decoder) -> (Vec<u64>, usize) {
        let (mut whole, mut recovered) = (Vec::new(), 0);
        while let Some(output) = decoder.poll_output() {
            let block = &self.blocks[output.frame() as usize];
            match output {
                Output::Symbol { index, bytes, is_recovered, shape, .. } => {
                    assert_eq!(shape, block.shape());
                    assert_eq!(bytes, block.symbol(index));
                    recovered += usize::from(is_recovered);
                }
                Output::Frame { frame, block: found } => {
                    assert_eq!(&found, block);
                    whole.push(frame);
                }
            }
        }
        (whole, recovered)
    }
}

/// The specification, step by step, with multiplication by its definition.
fn specified_repair(objects_newest_first: &[&[u8]], slice: usize, id: usize) -> Vec<u8> {
    let product = |a: u8, b: u8| {
        (0..8).rev().fold(0u16, |sum, bit| {
            let doubled = sum << 1;
            let reduced = if doubled & 0x100 != 0 { doubled ^ 0x11d } else { doubled };
            reduced ^ if b >> bit & 1 == 1 { u16::from(a) } else { 0 }
        }) as u8
    };
    let mut places = Vec::new();
    for object in objects_newest_first {
        let k = object.len().div_ceil(1088);
        let s = object.len().div_ceil(k);
        let n = k.div_ceil(64);
        places.extend((0..k).filter(|i| i % n == slice).map(|i| {
            let mut symbol = object[i * s..object.len().min((i + 1) * s)].to_vec();
            symbol.resize(s, 0);
            symbol
        }));
    }
    let mut repair = vec![0; places.iter().map(Vec::len).max().unwrap()];
    for (j, symbol) in places.iter().enumerate() {
        let numerator = (0..j * j).fold(1, |power, _| product(power, 2));
        let denominator = (64 + id as u8) ^ j as u8;
        let c = (1..=255).find(|&c| product(c, denominator) == numerator).unwrap();
        symbol.iter().zip(&mut repair).for_each(|(&byte, sum)| *sum ^= product(c, byte));
    }
    repair
}

#[test]
fn repair_symbols_are_as_specified() {
    let mut noise = Noise(1);
    let lengths = [1, 2, 1087, 1088, 1089, 5000, 20_000];
    let mut sender = Sender { blocks: lengths.iter().map(|&length| noise.block(length)).collect() };
    for (newest, frames) in [(0, 1), (1, 2), (2, 3), (4, 4), (5, 6), (6, 7)] {
        let objects: Vec<&[u8]> =
            sender.blocks[..=newest].iter().rev().take(frames).map(|block| &block.object()[..]).collect();
        for id in [0, 1, 63, 191] {
            let repair = sender.repair(newest, frames, 0, RepairId::new(id).unwrap());
            assert_eq!(
                repair,
                specified_repair(&objects, 0, id.into()),
                "{frames} frames to {newest}, id {id}"
            );
        }
    }
    sender.blocks.push(noise.block(200_000));
    for slice in 0..3 {
        let repair = sender.repair(7, 1, slice, RepairId::new(7).unwrap());
        assert_eq!(repair, specified_repair(&[sender.blocks[7].object()], slice, 7));
    }
    // Written down, so that both cannot change together.
    let tiny = Sender { blocks: vec![SourceBlock::new(Bytes::from_static(&[1])).unwrap()] };
    assert_eq!(tiny.repair(0, 1, 0, RepairId::default())[..], [field::inverse(64)]);
}

#[test]
fn every_length_is_cut_into_symbols_that_add_up() {
    let lengths = (1..20_000).chain((20_000..OBJECT_MAX).step_by(997)).chain([OBJECT_MAX]);
    for length in lengths {
        let shape = Shape::new(length).unwrap();
        assert!(shape.symbols() <= SYMBOLS_MAX && shape.symbol_bytes() <= SYMBOL_BYTES_MAX);
        let mut end = 0;
        for index in 0..shape.symbols() {
            let range = shape.range(index);
            assert_eq!(range.start, end, "length {length}, symbol {index}");
            assert!(!range.is_empty() && range.len() <= shape.symbol_bytes());
            assert!(range.len() == shape.symbol_bytes() || index == shape.symbols() - 1);
            end = range.end;
        }
        assert_eq!(end, length);
        assert!(shape.range(shape.symbols()).is_empty() && shape.range(usize::MAX).is_empty());

        let mut slices: Vec<usize> = (0..shape.slices()).flat_map(|slice| shape.slice(slice)).collect();
        slices.sort_unstable();
        assert!(slices.into_iter().eq(0..shape.symbols()));
        let sizes = (0..shape.slices()).map(|slice| shape.slice(slice).len());
        let (least, most) = (sizes.clone().min().unwrap(), sizes.max().unwrap());
        assert!(most <= WINDOW_SYMBOLS_MAX && most - least <= 1);
    }
    assert_eq!(Shape::new(0), Err(Fault::Length { length: 0 }));
    assert_eq!(Shape::new(OBJECT_MAX + 1), Err(Fault::Length { length: OBJECT_MAX + 1 }));
}

#[test]
fn coefficients_are_never_zero_and_any_two_rows_repair_any_two_losses() {
    let ids = || (0..RepairId::COUNT).map(|id| RepairId::new(id).unwrap());
    let table: Vec<Vec<u8>> =
        ids().map(|id| (0..WINDOW_SYMBOLS_MAX).map(|place| coefficient(id, place)).collect()).collect();
    assert!(table.iter().flatten().all(|&c| c != 0));
    for (i, a) in table.iter().enumerate() {
        for b in &table[..i] {
            // Two rows are dependent in two places when their quotients there are equal.
            let mut seen = [false; 256];
            for (&a, &b) in a.iter().zip(b) {
                let quotient = field::product(a, field::inverse(b));
                assert!(!std::mem::replace(&mut seen[usize::from(quotient)], true));
            }
        }
    }
    assert_eq!(ids().next_back().unwrap().next(), RepairId::default());
    assert_eq!(RepairId::new(192), Err(Fault::RepairId { id: 192 }));
}

/// Three source and three repair symbols: every subset in every order.
#[test]
fn any_subset_in_any_order_gives_all_that_can_be_known() {
    let mut noise = Noise(2);
    let sender = Sender { blocks: vec![noise.block(1500), noise.block(700)] };
    let sources = [(0, 0), (0, 1), (1, 0)];
    let mut orders = vec![vec![]];
    for packet in 0..6 {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..=order.len()).map(move |at| {
                    let mut order = order.clone();
                    order.insert(at, packet);
                    order
                })
            })
            .collect();
    }
    assert_eq!(orders.len(), 720);
    for subset in 0..64u32 {
        for order in &orders {
            let mut decoder = Decoder::default();
            for &packet in order.iter().filter(|&packet| subset >> packet & 1 == 1) {
                match sources.get(packet) {
                    Some(&(frame, index)) => sender.send_source(&mut decoder, frame, index),
                    None => sender.send_repair(&mut decoder, 1, 2, 0, RepairId::new(packet as u8).unwrap()),
                }
                .unwrap();
            }
            let (mut whole, recovered) = sender.drain(&mut decoder);
            whole.sort_unstable();
            let came = (subset & 7).count_ones() as usize;
            if subset.count_ones() >= 3 {
                assert_eq!(whole, [0, 1], "{subset:b} {order:?}");
                // A source symbol may come after it was recovered; then it is a duplicate.
                let late = decoder.stats().duplicate as usize;
                assert_eq!(recovered, 3 - came + late, "{subset:b} {order:?}");
            } else {
                // Less than three: no repair symbol can say anything definite.
                assert_eq!(recovered, 0);
                assert_eq!(whole.contains(&0), subset & 3 == 3);
                assert_eq!(whole.contains(&1), subset & 4 == 4);
                let deficits: usize = decoder.deficits().map(|deficit| deficit.symbols).sum();
                let unheard = [(0, 3), (1, 4)]
                    .iter()
                    .filter(|&&(frame, _)| decoder.deficit(frame).is_none())
                    .map(|&(frame, _)| sender.blocks[frame as usize].shape().symbols())
                    .sum::<usize>();
                assert_eq!(deficits + unheard, 3 - subset.count_ones() as usize);
            }
        }
    }
}

/// Two whole frames in a row are lost; the repair symbols that follow bring them back.
#[test]
fn windows_across_frames_outlast_a_burst() {
    let mut noise = Noise(3);
    let sender = Sender { blocks: (0..6).map(|_| noise.block(4200)).collect() };
    let mut decoder = Decoder::default();
    let mut id = RepairId::default();
    let mut whole = Vec::new();
    for frame in 0..6 {
        let is_lost = frame == 2 || frame == 3;
        if !is_lost {
            (0..4).for_each(|index| sender.send_source(&mut decoder, frame, index).unwrap());
        }
        // Three repair symbols a frame for windows of four, lost with their frames.
        for _ in 0..3 {
            id = id.next();
            if !is_lost {
                sender.send_repair(&mut decoder, frame, 4.min(frame + 1), 0, id).unwrap();
            }
        }
        whole.push(sender.drain(&mut decoder).0);
        if frame == 4 {
            // Eight are missing, three equations are known, and count for the oldest.
            assert_eq!(decoder.deficit(2), Some(1));
            assert_eq!(decoder.deficit(3), Some(4));
            sender.send_repair(&mut decoder, 3, 2, 0, id.next().next().next()).unwrap();
            sender.send_repair(&mut decoder, 3, 2, 0, id.next().next().next().next()).unwrap();
            assert_eq!(decoder.deficit(2), Some(0));
            assert_eq!(decoder.deficit(3), Some(3));
        }
    }
    assert_eq!(whole, [vec![0], vec![1], vec![], vec![], vec![4], vec![5, 2, 3]]);
    assert_eq!(decoder.stats().recovered, 8);
}

#[test]
fn a_keyframe_in_slices_is_repaired_slice_by_slice() {
    let mut noise = Noise(4);
    let sender = Sender { blocks: vec![noise.block(OBJECT_MAX)] };
    let shape = sender.blocks[0].shape();
    assert_eq!((shape.symbols(), shape.slices()), (964, 16));
    let mut decoder = Decoder::default();
    // A burst of 64 meets every slice four times.
    for index in (0..964).filter(|index| !(300..364).contains(index)) {
        sender.send_source(&mut decoder, 0, index).unwrap();
    }
    assert_eq!(decoder.deficit(0), Some(64));
    assert!(decoder.deficits().eq((0..16).map(|slice| Deficit { frame: 0, slice, symbols: 4 })));
    sender.drain(&mut decoder);
    for slice in 0..16 {
        for id in 0..4 {
            assert!(decoder.block(0).is_none());
            sender.send_repair(&mut decoder, 0, 1, slice, RepairId::new(id).unwrap()).unwrap();
            let expected = if id == 3 { 4 } else { 0 };
            let (whole, recovered) = sender.drain(&mut decoder);
            assert_eq!((whole.len(), recovered), (usize::from(slice == 15 && id == 3), expected));
        }
    }
    assert_eq!(decoder.block(0), Some(&sender.blocks[0]));
}

#[test]
fn a_window_reaches_back_as_far_as_it_may() {
    let shapes = |symbols: &[usize]| -> Vec<Shape> {
        symbols.iter().map(|&k| Shape::new(k * SYMBOL_BYTES_MAX).unwrap()).collect()
    };
    assert_eq!(reach(shapes(&[4, 4, 4, 4, 4]), 4), 4);
    assert_eq!(reach(shapes(&[4, 4]), 4), 2);
    assert_eq!(reach(shapes(&[4, 30, 30, 1]), 4), 3);
    assert_eq!(reach(shapes(&[4, 65, 4]), 4), 1);
    assert_eq!(reach(shapes(&[100, 4]), 4), 1);
    assert_eq!(reach(shapes(&[1; 40]), 40), 16);
    assert_eq!(reach(shapes(&[4, 4]), 0), 1);
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let of = |symbols: usize| Some(Shape::new(symbols * SYMBOL_BYTES_MAX).unwrap());
    let why = |newest, shapes: &[Option<Shape>], slice| {
        let fault = Window::new(newest, shapes.iter().copied(), slice).unwrap_err();
        assert_eq!(fault.code(), Code::ProtocolViolation);
        fault.to_string()
    };
    assert_eq!(why(9, &[], 0), "not a window: the newest frame is not in it");
    assert_eq!(why(9, &[None, of(1)], 0), "not a window: the newest frame is not in it");
    assert_eq!(why(99, &[of(1); 17], 0), "not a window: more than 16 frames");
    assert_eq!(why(2, &[of(1); 4], 0), "not a window: a frame before frame 0");
    assert_eq!(why(9, &[of(1), of(64)], 0), "not a window: more than 64 symbols");
    assert_eq!(why(9, &[of(1), of(1)], 1), "not a window: a slice of more than one frame");
    assert_eq!(why(9, &[of(64)], 1), "not a window: no such slice");
    assert_eq!(why(9, &[of(65)], 2), "not a window: no such slice");
    assert!(Window::new(9, [of(65)], 1).is_ok());
    assert!(Window::new(15, [of(4); 16], 0).is_ok());
    assert!(encode_repair([], 0, RepairId::default()).is_err());
    let gap = Window::new(9, [of(1), None, of(2)], 0).unwrap();
    assert!(gap.symbols().eq([(9, 0), (7, 0), (7, 1)]));
}
