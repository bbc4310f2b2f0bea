//! The program behind `make fuzz`: libFuzzer searching for an input that breaks one target of the table.
//! It decides nothing but which target that is. `scripts/fuzz.sh` builds and calls it.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use parlor_tests::fuzz::{TARGETS, Target};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fuzz_target!(|input: &[u8]| TARGET.get_or_init(chosen).run(input, HEAP));

/// The target that the environment variable `FUZZ_TARGET` names.
fn chosen() -> &'static Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    Target::find(&name).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("FUZZ_TARGET is '{name}'; it must be one of {}", names.join(", "));
        std::process::exit(2)
    })
}
