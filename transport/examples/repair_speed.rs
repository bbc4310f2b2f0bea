//! How fast the erasure code is on this machine, in time and in allocations. The figures of
//! `docs/decisions/0010-erasure-code.md` come from here:
//!
//! ```text
//! cargo run --release -p parlor-transport --example repair_speed
//! ```
#![expect(clippy::unwrap_used, reason = "a measurement of inputs that are valid")]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use parlor_transport::repair::field::Kernel;
use parlor_transport::repair::{Decoder, RepairId, SourceBlock, Window, encode_repair};

fn main() {
    println!("arithmetic, GB/s of source bytes (the best kernel here is {:?})", Kernel::best());
    println!("{:24} {:>9} {:>9} {:>9}", "", "1088 B", "1000 B", "80 B");
    for kernel in Kernel::available() {
        let speeds = [1088, 1000, 80].map(|length| {
            // 64 sources, as in a full window: they lie in the second-level cache.
            let sources = vec![0x5a; 64 * length];
            let mut sum = vec![0; length];
            let seconds = seconds_per_call(|| {
                for (factor, source) in sources.chunks(length).enumerate() {
                    kernel.mul_add(&mut sum, source, factor as u8 + 2);
                }
                black_box(&mut sum);
            });
            sources.len() as f64 / seconds / 1e9
        });
        println!(
            "{:24} {:9.2} {:9.2} {:9.2}",
            format!("mul_add, {kernel:?}"),
            speeds[0],
            speeds[1],
            speeds[2]
        );
    }

    println!("\n{:44} {:>9} {:>9} {:>9}", "per symbol, µs", "receive", "repair", "encode");
    for (name, length, frames, lost) in [
        ("sound: 4 frames of 1 symbol, 80 B; 1 lost", 80, 4, 1),
        ("1 Mbit/s: 4 frames of 4 symbols; 2 lost", 4170, 4, 2),
        ("2.5 Mbit/s: 4 frames of 9 symbols; 2 lost", 9792, 4, 2),
        ("2.5 Mbit/s: 4 frames of 9 symbols; 12 lost", 9792, 4, 12),
        ("a full window: 64 symbols; 3 lost", 64 * 1088, 1, 3),
        ("a full window: 64 symbols; 45 lost", 64 * 1088, 1, 45),
        ("a full window: 64 symbols; all lost", 64 * 1088, 1, 64),
    ] {
        let block = SourceBlock::new(Bytes::from(vec![0xa5; length])).unwrap();
        let case = Case { blocks: vec![block; frames], lost };
        let [receive, repair, encode] = case.measure();
        println!("{name:44} {receive:9.2} {repair:9.2} {encode:9.2}");
    }
}

/// A window of frames, of which the first few symbols are lost.
struct Case {
    blocks: Vec<SourceBlock>,
    lost: usize,
}

impl Case {
    /// µs a symbol: to take a source symbol, to take a repair symbol (its share of the recovery
    /// included), and to make one.
    fn measure(&self) -> [f64; 3] {
        let newest = self.blocks.len() as u64 - 1;
        let shapes = self.blocks.iter().map(|block| Some(block.shape()));
        let window = Window::new(newest, shapes, 0).unwrap();
        let symbols: Vec<(u64, usize)> = window.symbols().collect();
        let repairs: Vec<(RepairId, Bytes)> = (0..self.lost as u8)
            .map(|id| RepairId::new(id).unwrap())
            .map(|id| (id, encode_repair(&self.blocks, 0, id).unwrap()))
            .collect();
        let receive = || {
            let mut decoder = Decoder::default();
            for &(frame, index) in &symbols[self.lost..] {
                let block = &self.blocks[frame as usize];
                decoder.handle_source(frame, block.shape(), index, block.symbol(index)).unwrap();
                while decoder.poll_output().is_some() {}
            }
            decoder
        };
        let receive_seconds = seconds_per_call(|| drop(black_box(receive())));
        let repair_seconds = seconds_per_call(|| {
            let mut decoder = receive();
            for (id, repair) in &repairs {
                decoder.handle_repair(&window, *id, repair).unwrap();
                while decoder.poll_output().is_some() {}
            }
            assert_eq!(decoder.stats().recovered as usize, self.lost);
        }) - receive_seconds;
        let encode_seconds = seconds_per_call(|| {
            drop(black_box(encode_repair(&self.blocks, 0, RepairId::default()).unwrap()));
        });
        [
            receive_seconds * 1e6 / (symbols.len() - self.lost).max(1) as f64,
            repair_seconds * 1e6 / self.lost as f64,
            encode_seconds * 1e6,
        ]
    }
}

/// The best of several runs: what other work on the machine slowed down is not counted.
#[expect(clippy::disallowed_methods, reason = "measures the machine")]
fn seconds_per_call(mut call: impl FnMut()) -> f64 {
    const CALLS: u32 = 300;
    (0..60)
        .map(|_| {
            let start = Instant::now();
            (0..CALLS).for_each(|_| call());
            start.elapsed().as_secs_f64() / f64::from(CALLS)
        })
        .fold(f64::INFINITY, f64::min)
}
