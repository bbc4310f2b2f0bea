//! The fuzz targets: every decoder of bytes from outside, and the machines that act on what was decoded, as plain
//! functions that must survive any input.
//!
//! One table serves two runners. `make fuzz` searches for inputs that break a target (libFuzzer, in
//! `src/bin/fuzz.rs`); `make test` replays every input in `corpus/<name>/` (`tests/corpus.rs`). What the
//! search finds lands in the corpus, so a fault once found is tested for ever after.
//!
//! A new target is a function in one of the modules below, a line in [`TARGETS`], and a folder
//! `corpus/<name>/`; the seeds in it are made by [`seeds`].

mod control;
mod hop;
mod lobby;
mod media;
mod mirror;
pub mod seeds;
mod text;
mod tokens;

use parlor_transport::wire::control::{AppMessage, ClientMessage, RelayMessage, RoomMessage};
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
pub const TARGETS: &[Target] = &[
    Target { name: "addresses", run: text::addresses },
    Target { name: "control_app", run: control::stream::<AppMessage> },
    Target { name: "control_client", run: control::stream::<ClientMessage> },
    Target { name: "control_relay", run: control::stream::<RelayMessage> },
    Target { name: "control_room", run: control::stream::<RoomMessage> },
    Target { name: "feedback", run: media::feedback },
    Target { name: "fingerprints", run: text::fingerprints },
    Target { name: "frames", run: media::frames },
    Target { name: "hop_headers", run: media::hop_headers },
    Target { name: "hop_receiver", run: hop::receiver },
    Target { name: "ids", run: text::ids },
    Target { name: "lobby", run: lobby::lobby },
    Target { name: "mirror", run: mirror::mirror },
    Target { name: "packets", run: media::packets },
    Target { name: "repair", run: media::repair },
    Target { name: "timestamps", run: text::timestamps },
    Target { name: "tokens", run: tokens::tokens },
    Target { name: "varints", run: media::varints },
];

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
