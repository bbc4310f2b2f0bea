//! If this fails, some input that once broke a decoder, or that a fuzzer found worth keeping, breaks one now.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parlor_tests::fuzz::{INPUT_MAX, TARGETS};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// One test, not several: the heap is measured for the whole process, so nothing may run beside it.
#[test]
fn every_input_of_the_corpus_passes_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folders = entries(&corpus);
    let folders: Vec<_> = folders.iter().map(|path| file_name(path)).collect();
    let mut names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(folders, names, "each target has a folder in tests/corpus, and each folder a target");

    let mut broken = Vec::new();
    for target in TARGETS {
        let inputs = entries(&corpus.join(target.name));
        assert!(!inputs.is_empty(), "tests/corpus/{} has no input", target.name);
        for path in inputs {
            let input = fs::read(&path).unwrap();
            assert!(input.len() <= INPUT_MAX, "{} is longer than an input may be", path.display());
            if catch_unwind(AssertUnwindSafe(|| target.run(&input, HEAP))).is_err() {
                broken.push(path);
            }
        }
    }
    assert!(broken.is_empty(), "targets broke on {broken:#?}");
}

/// What a folder holds, sorted, so that every run goes the same way.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder can be read to its end").path())
        .collect();
    entries.sort_unstable();
    entries
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("corpus names are plain ASCII")
}
