//! The fuzz targets: every decoder of bytes from outside, as a plain function that must survive any input.
//!
//! One table serves two runners. `make fuzz` searches for inputs that break a target (libFuzzer, in
//! `src/bin/fuzz.rs`); `make test` replays every input in `corpus/<name>/` (`tests/corpus.rs`). What the
//! search finds lands in the corpus, so a fault once found is tested for ever after.
//!
//! A new target is a function here, a line in [`TARGETS`], and a folder `corpus/<name>/` with a seed or two.

use std::time::Duration;

use parlor_transport::units::Timestamp;
use peak_alloc::PeakAlloc;

/// The longest input a target is given, in bytes: more than any message or datagram of the protocol.
pub const INPUT_MAX: usize = 64 * 1024;

/// The most heap a target may hold at any moment, in bytes. Far above what [`INPUT_MAX`] bytes can rightly
/// ask for, far below what a length field that was believed would take.
pub const HEAP_MAX: usize = 8 * 1024 * 1024;

/// One decoder under test.
pub struct Target {
    /// Its name: the folder in `corpus/`, and the `TARGET` of `make fuzz`.
    pub name: &'static str,
    /// Feeds one input to the decoder. Panics when a property that must hold for any input does not.
    run: fn(&[u8]),
}

/// All targets, by name.
pub const TARGETS: &[Target] = &[Target { name: "timestamps", run: timestamps }];

impl Target {
    /// The target called `name`.
    pub fn find(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Feeds `input` to the target. `heap` is the allocator of the running program.
    ///
    /// # Panics
    /// When the target does, or when it held more than [`HEAP_MAX`] bytes at once.
    pub fn run(&self, input: &[u8], heap: PeakAlloc) {
        heap.reset_peak_usage();
        let before = heap.current_usage();
        (self.run)(input);
        let held = heap.peak_usage().saturating_sub(before);
        assert!(held <= HEAP_MAX, "{} held {held} bytes for an input of {}", self.name, input.len());
    }
}

/// Arithmetic on timestamps that peers chose: it saturates, and the two ways to ask for a difference agree.
fn timestamps(input: &[u8]) {
    let Some((a, rest)) = input.split_first_chunk() else { return };
    let Some((b, rest)) = rest.split_first_chunk() else { return };
    let Some((offset, _)) = rest.split_first_chunk() else { return };
    let (a, b) =
        (Timestamp::from_micros(u64::from_be_bytes(*a)), Timestamp::from_micros(u64::from_be_bytes(*b)));
    let offset = i64::from_be_bytes(*offset);

    let forward = a.signed_since(b);
    assert_eq!(forward.is_positive(), a > b);
    assert_eq!(forward == 0, a == b);
    assert_eq!(b + a.saturating_since(b), a.max(b));
    assert_eq!(a - a.saturating_since(b), a.min(b));
    assert_eq!(a.offset_by(offset) >= a, offset >= 0 || a == Timestamp::ZERO);
    assert!(a + Duration::from_micros(offset.unsigned_abs()) >= a);
}
