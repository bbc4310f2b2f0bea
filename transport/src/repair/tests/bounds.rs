//! Peers that lie, flood or come too late: typed faults, bounded memory, and no frame but what was sent.

use proptest::prelude::*;

use super::super::decoder::FRAMES_MAX;
use super::*;

fn shape(length: usize) -> Shape {
    Shape::new(length).unwrap()
}

#[test]
fn symbols_that_do_not_fit_are_faults() {
    let mut decoder = Decoder::default();
    let of = |length: usize| Bytes::from(vec![7; length]);
    assert_eq!(
        decoder.handle_source(1, shape(3000), 3, of(1000)),
        Err(Fault::Index { frame: 1, index: 3, symbols: 3 })
    );
    assert_eq!(
        decoder.handle_source(1, shape(2999), 2, of(1000)),
        Err(Fault::SymbolBytes { bytes: 1000, expected: 999 })
    );
    decoder.handle_source(1, shape(2999), 2, of(999)).unwrap();
    let contradiction = |why| Err(Fault::Contradiction { frame: 1, why });
    assert_eq!(decoder.handle_source(1, shape(3000), 0, of(1000)), contradiction("its length changed"));
    assert_eq!(
        decoder.handle_source(1, shape(2999), 2, vec![8; 999].into()),
        contradiction("a symbol came with different bytes")
    );
    let window = Window::new(1, [Some(shape(3000))], 0).unwrap();
    assert_eq!(
        decoder.handle_repair(&window, RepairId::default(), &of(1000)),
        contradiction("its length changed")
    );
    let window = Window::new(1, [Some(shape(2999)), Some(shape(1050))], 0).unwrap();
    assert_eq!(
        decoder.handle_repair(&window, RepairId::default(), &of(1000)),
        Err(Fault::SymbolBytes { bytes: 1000, expected: 1050 })
    );
    // Nothing of it left a trace.
    assert_eq!((decoder.deficit(1), decoder.deficit(0)), (Some(2), None));
}

#[test]
fn equations_that_contradict_each_other_are_a_fault() {
    let mut noise = Noise(5);
    let sender = Sender { blocks: vec![noise.block(3000), noise.block(1000)] };
    let window = sender.window(1, 2, 0);
    let id = RepairId::new(9).unwrap();
    let mut forged = sender.repair(1, 2, 0, id).to_vec();
    forged[500] ^= 1;

    // Found by another repair symbol ...
    let mut decoder = Decoder::default();
    decoder.handle_repair(&window, id, &forged).unwrap();
    let again = sender.send_repair(&mut decoder, 1, 2, 0, id);
    assert!(matches!(again, Err(Fault::Contradiction { .. })), "{again:?}");
    // ... and by the source symbols themselves.
    let mut decoder = Decoder::default();
    decoder.handle_repair(&window, id, &forged).unwrap();
    (0..3).for_each(|index| sender.send_source(&mut decoder, 0, index).unwrap());
    let last = sender.send_source(&mut decoder, 1, 0);
    assert!(matches!(last, Err(Fault::Contradiction { .. })), "{last:?}");

    // A short symbol that turns out to have bytes beyond its end.
    let mut decoder = Decoder::default();
    (0..3).for_each(|index| sender.send_source(&mut decoder, 0, index).unwrap());
    let block = Sender { blocks: vec![sender.blocks[0].clone(), noise.block(10)] };
    let mut forged = block.repair(1, 2, 0, id).to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let fault = decoder.handle_repair(&block.window(1, 2, 0), id, &forged);
    assert_eq!(fault, Err(Fault::Contradiction { frame: 1, why: "a recovered symbol is too long" }));
    assert!(decoder.block(1).is_none());
}

#[test]
fn what_is_forgotten_stays_forgotten() {
    let mut noise = Noise(6);
    let sender = Sender { blocks: (0..4).map(|_| noise.block(2000)).collect() };
    let mut decoder = Decoder::default();
    for frame in [0, 1, 3] {
        sender.send_source(&mut decoder, frame, 0).unwrap();
    }
    // Three equations about the second symbols of frames 0 and 1.
    sender.send_repair(&mut decoder, 1, 2, 0, RepairId::default()).unwrap();
    assert_eq!((decoder.deficit(0), decoder.deficit(1)), (Some(0), Some(1)));
    decoder.forget_before(1);
    assert_eq!((decoder.deficit(0), decoder.deficit(1)), (None, Some(1)));
    assert!(std::iter::from_fn(|| decoder.poll_output()).all(|output| output.frame() >= 1));
    sender.send_source(&mut decoder, 0, 1).unwrap();
    sender.send_repair(&mut decoder, 1, 2, 0, RepairId::default().next()).unwrap();
    assert_eq!(decoder.stats().stale, 2);
    assert_eq!((decoder.deficit(0), decoder.deficit(1)), (None, Some(1)));
    // Going back is no remembering.
    decoder.forget_before(0);
    sender.send_source(&mut decoder, 0, 1).unwrap();
    assert_eq!((decoder.stats().stale, decoder.deficit(0)), (3, None));
    sender.send_source(&mut decoder, 1, 1).unwrap();
    assert_eq!(sender.drain(&mut decoder).0, [1]);
    decoder.forget_before(u64::MAX);
    assert_eq!(decoder.deficits().count(), 0);
}

#[test]
fn too_many_unknowns_are_refused_and_asked_for_again() {
    let mut noise = Noise(7);
    let sender = Sender { blocks: (0..3).map(|_| noise.block(64 * SYMBOL_BYTES_MAX)).collect() };
    let mut decoder = Decoder::default();
    let id = RepairId::default();
    (0..3).for_each(|frame| sender.send_repair(&mut decoder, frame, 1, 0, id).unwrap());
    assert_eq!((decoder.stats().refused, decoder.deficit(2)), (1, None));
    assert_eq!((decoder.deficit(0), decoder.deficit(1)), (Some(63), Some(63)));
    // When one frame is whole, or given up, there is room again.
    (0..64).for_each(|index| sender.send_source(&mut decoder, 0, index).unwrap());
    sender.send_repair(&mut decoder, 2, 1, 0, id).unwrap();
    assert_eq!((decoder.stats().refused, decoder.deficit(2)), (1, Some(63)));
    decoder.forget_before(2);
    for id in (1..64).map(|id| RepairId::new(id).unwrap()) {
        sender.send_repair(&mut decoder, 2, 1, 0, id).unwrap();
    }
    assert_eq!(sender.drain(&mut decoder).0, [2]);
}

#[test]
fn the_oldest_frames_make_room() {
    let mut decoder = Decoder::default();
    let most = FRAMES_MAX as u64;
    for frame in 0..most + 10 {
        decoder.handle_source(frame, shape(2000), 0, vec![0; 1000].into()).unwrap();
    }
    assert_eq!((decoder.deficit(9), decoder.deficit(10)), (None, Some(1)));
    assert_eq!(decoder.stats().evicted, 10);
    // Frames of any number: the peer harms its own frames only.
    decoder.handle_source(u64::MAX, shape(2000), 0, vec![0; 1000].into()).unwrap();
    decoder.handle_source(most + 10, shape(2000), 1, vec![0; 1000].into()).unwrap();
    assert_eq!(
        (decoder.deficit(11), decoder.deficit(12), decoder.deficit(u64::MAX)),
        (None, Some(1), Some(1))
    );

    let mut decoder = Decoder::default();
    let block = Noise(8).block(OBJECT_MAX);
    for frame in 0..4 {
        (0..964).for_each(|index| {
            decoder.handle_source(frame, block.shape(), index, block.symbol(index)).unwrap();
        });
    }
    // Three of the largest fit only without the tables of the one that is not whole yet.
    assert_eq!((decoder.block(1), decoder.block(2), decoder.block(3)), (None, Some(&block), Some(&block)));
    assert_eq!(decoder.stats().evicted, 2);
}

#[derive(Clone, Debug)]
enum Lie {
    Source { frame: u64, length: usize, index: usize, fill: u8 },
    Repair { newest: u64, lengths: Vec<usize>, slice: usize, id: u8, fill: u8 },
    Forget(u64),
}

fn lie() -> impl Strategy<Value = Lie> {
    let frame = prop_oneof![8 => 0..80u64, 1 => any::<u64>()];
    // Few lengths, so that lies often agree; 0 stands for a frame left out.
    let length = prop_oneof![
        6 => prop::sample::select(vec![1usize, 900, 3000, 4100]),
        1 => prop::sample::select(vec![0, 70_000, 140_000, OBJECT_MAX, OBJECT_MAX + 1]),
    ];
    let index = prop_oneof![6 => 0..4usize, 1 => 0..1000usize];
    let fill = 0..3u8;
    prop_oneof![
        6 => (frame.clone(), length.clone(), index, fill.clone())
            .prop_map(|(frame, length, index, fill)| Lie::Source { frame, length, index, fill }),
        6 => (frame.clone(), prop::collection::vec(length, 0..18), 0..3usize, 0..200u8, fill)
            .prop_map(|(newest, lengths, slice, id, fill)| Lie::Repair { newest, lengths, slice, id, fill }),
        1 => frame.prop_map(Lie::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any list of lies: no panic, all bounds hold at every step, and a frame that comes out has every symbol
    /// that was given for it.
    #[test]
    fn bounds_hold_against_any_list_of_symbols(lies in prop::collection::vec(lie(), 0..250)) {
        let mut decoder = Decoder::default();
        let mut given = std::collections::BTreeMap::new();
        let is_fault = |result: Result<(), Fault>| result.is_err();
        for lie in lies {
            match lie {
                Lie::Source { frame, length, index, fill } => {
                    let Ok(shape) = Shape::new(length) else { continue };
                    let bytes = Bytes::from(vec![fill; shape.range(index).len()]);
                    if !is_fault(decoder.handle_source(frame, shape, index, bytes.clone())) {
                        given.insert((frame, index), bytes);
                    }
                }
                Lie::Repair { newest, lengths, slice, id, fill } => {
                    let shapes = lengths.iter().map(|&length| Shape::new(length).ok());
                    let (Ok(window), Ok(id)) = (Window::new(newest, shapes, slice), RepairId::new(id)) else {
                        continue;
                    };
                    let _ = is_fault(decoder.handle_repair(&window, id, &vec![fill; window.symbol_bytes()]));
                }
                Lie::Forget(frame) => decoder.forget_before(frame),
            }
            decoder.assert_sound();
            while let Some(output) = decoder.poll_output() {
                let Output::Frame { frame, block } = output else { continue };
                for ((_, index), bytes) in given.range((frame, 0)..=(frame, usize::MAX)) {
                    prop_assert_eq!(&block.symbol(*index), bytes);
                }
            }
        }
    }
}
