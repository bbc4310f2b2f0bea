//! If this fails, a call of ten does not come through what befalls it: somebody sees another room than the relay has,
//! gets a frame twice or none, stays as a ghost, or is not let in again. `make chaos` runs more seeds.

use std::thread;

use parlor_tests::chaos;

fn all_is_well(seeds: std::ops::Range<u64>) {
    let outcomes = seeds.map(chaos::run);
    let red: Vec<_> = outcomes.filter(|outcome| !outcome.faults.is_empty()).collect();
    let shown: Vec<_> = red.iter().map(ToString::to_string).collect();
    assert!(red.is_empty(), "{}", shown.join("\n"));
}

#[test]
fn seeds_1_to_10() {
    all_is_well(1..11);
}

#[test]
fn seeds_11_to_20() {
    all_is_well(11..21);
}

#[test]
fn seeds_21_to_30() {
    all_is_well(21..31);
}

#[test]
fn seeds_31_to_40() {
    all_is_well(31..41);
}

#[test]
fn the_same_seed_is_the_same_run() {
    // 26: a relay that restarts, and many who come back.
    let hashes = [7, 26].map(|seed| {
        // On a thread of its own, as `make chaos` does it: nothing of a thread's or a process's past may count.
        let (first, again) =
            (chaos::run(seed), thread::spawn(move || chaos::run(seed)).join().expect("a run"));
        let parts = first.log.iter().zip(&again.log).find(|(first, again)| first != again);
        assert_eq!(parts, None, "the runs of seed {seed} part here");
        assert_eq!((first.hash, first.counts), (again.hash, again.counts), "seed {seed}");
        first.hash
    });
    assert_ne!(hashes[0], hashes[1], "another seed is another run");
}
