//! Where the search of a fuzz target begins: inputs that mean something. Most are the examples of
//! `docs/protocol.md`. `UPDATE_SEEDS=1 cargo test -p parlor-tests --lib` writes them into the corpus; without
//! the variable the same test fails when they are not there.

use std::time::Duration;

use parlor_transport::units::Timestamp;
use parlor_transport::wire::feedback::{Feedback, IncompleteFrame, Reception};

use crate::protocol::{Document, bytes};

/// One input of the corpus.
pub struct Seed {
    /// Whose input it is.
    pub target: &'static str,
    /// Its file in the target's folder.
    pub file: String,
    /// The input.
    pub input: Vec<u8>,
}

/// All seeds.
///
/// # Panics
/// When the document with the examples cannot be read.
pub fn all() -> Vec<Seed> {
    let document = Document::read();
    let mut seeds = Vec::new();
    let mut add = |target, name: &str, input: Vec<u8>| {
        seeds.push(Seed { target, file: format!("seed-{}", name.to_lowercase()), input });
    };
    for (target, group) in [
        ("control_app", "app"),
        ("control_client", "client"),
        ("control_relay", "relay"),
        ("control_room", "room"),
    ] {
        // In pieces of seven bytes, so that messages and pieces do not end together.
        let mut stream = vec![6];
        for example in document.examples.iter().filter(|example| example.group == group) {
            add(target, &example.name, [&[0], &example.bytes[..]].concat());
            stream.extend(&example.bytes);
        }
        add(target, "stream", stream);
    }
    for example in &document.examples {
        let target = match example.group.as_str() {
            "frame" => "frames",
            "hop" => "hop_headers",
            "packet" => "packets",
            "report" => "feedback",
            _ => continue,
        };
        add(target, &example.name, example.bytes.clone());
    }
    for example in document.examples.iter().filter(|example| example.group == "quic-stream") {
        // Without the kind of the QUIC stream: a hop header and an object.
        add("hop_headers", &example.name, example.bytes[1..].to_vec());
    }
    for (name, lost) in [("whole", 0u16), ("some", 0b1001), ("all", u16::MAX)] {
        let content: Vec<u8> = (0..=255).collect();
        add("repair", name, [&lost.to_be_bytes(), &content[..]].concat());
    }
    let varints = document.table(&["value", "bytes as a varint"]);
    varints.rows.iter().for_each(|row| add("varints", &row[0].replace(',', ""), bytes(&row[1])));
    TEXTS.iter().for_each(|(target, name, text)| add(target, name, text.as_bytes().to_vec()));
    DEEDS.iter().for_each(|(name, deeds)| add("hop_receiver", name, deeds.concat()));
    for (name, seed) in [("default", 1), ("small", 2), ("short-grace", 3), ("small-short-grace", 4)] {
        (0..5)
            .for_each(|n| add("lobby", &format!("{name}-{n}"), history(seed as u8 - 1, seed << 8 | n, 150)));
    }
    for (name, seed) in [("users", 0), ("without-users", 1)] {
        (0..4).for_each(|n| add("mirror", &format!("{name}-{n}"), history(seed as u8, seed << 8 | n, 100)));
    }
    feedback().into_iter().for_each(|(name, report)| add("feedback", name, report.encode().to_vec()));
    seeds
}

/// A history of so many operations that follows from `seed` (splitmix64): `first` says in which world.
pub fn history(first: u8, seed: u64, operations: usize) -> Vec<u8> {
    let mut state = seed;
    let random = std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as u8
    });
    std::iter::once(first).chain(random.take(operations * 4)).collect()
}

const TEXTS: &[(&str, &str, &str)] = &[
    (
        "addresses",
        "whole",
        "parlor://127.0.0.1:4433/standup#sha256=00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF",
    ),
    ("addresses", "ipv6", "parlor://[::1]:4433/a,b;c=d"),
    ("addresses", "name", "parlor://relay.example"),
    ("addresses", "bad-port", "parlor://h:99999/r#sha256="),
    ("fingerprints", "whole", "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"),
    ("fingerprints", "sign", "+0112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"),
    ("ids", "word", "cam-1_u2"),
    ("ids", "plain", "ann@home:~!$&'()*+,;=."),
    ("ids", "name", "Zoë 🎥"),
    ("ids", "control", "a\u{7}b\u{85}"),
    (
        "tokens",
        "signed",
        "eyJhbGciOiAiSFMyNTYiLCAidHlwIjogIkpXVCJ9.eyJhcHAiOiAiZGV2IiwgInVzZXIiOiAidSIsICJyb29tIjogIioiLCAicHVibGlzaCI6IHRydWUsICJzdHJlYW1zIjogWyJ1LSoiXSwgIm5iZiI6IDEsICJleHAiOiAyMDAwfQ.kAkC37bZCEQD5wFsNZxURbLQg7oty8APODGLBswAQ40",
    ),
    (
        "tokens",
        "none",
        "eyJhbGciOiAibm9uZSIsICJ0eXAiOiAiSldUIn0.eyJhcHAiOiAiZGV2IiwgInVzZXIiOiAidSIsICJyb29tIjogIioiLCAicHVibGlzaCI6IHRydWUsICJzdHJlYW1zIjogWyJ1LSoiXSwgIm5iZiI6IDEsICJleHAiOiAyMDAwfQ.",
    ),
    (
        "tokens",
        "other-user",
        "eyJhbGciOiAiSFMyNTYiLCAidHlwIjogIkpXVCJ9.eyJhcHAiOiAiZGV2IiwgInVzZXIiOiAidiIsICJyb29tIjogIioiLCAicHVibGlzaCI6IHRydWUsICJzdHJlYW1zIjogWyJ1LSoiXSwgIm5iZiI6IDEsICJleHAiOiAyMDAwfQ.r4dYc8iYYDWb-vFpFCaF70lyh5IdCZbD-6AcLPh2zCw",
    ),
    (
        "tokens",
        "expired",
        "eyJhbGciOiAiSFMyNTYiLCAidHlwIjogIkpXVCJ9.eyJhcHAiOiAiZGV2IiwgInVzZXIiOiAidSIsICJyb29tIjogIioiLCAicHVibGlzaCI6IHRydWUsICJzdHJlYW1zIjogWyJ1LSoiXSwgIm5iZiI6IDEsICJleHAiOiAxfQ.BWSKea2ofHB6RNy-ML4YAU6P1GTzlbZefnMHlSEGYwU",
    ),
    (
        "tokens",
        "claims",
        "{\"app\": \"dev\", \"user\": \"u\", \"room\": \"*\", \"publish\": true, \"streams\": [\"u-*\"], \"nbf\": 1, \"exp\": 2000}",
    ),
    ("tokens", "far", "{\"app\":\"dev\",\"user\":\"u\",\"room\":\"r\",\"exp\":18446744073709551615}"),
    ("tokens", "pattern", "a*b*c"),
];

/// See `fuzz::hop`: what, lane and track, and two bytes that say more. Lane 2 is the hostile one.
const DEEDS: &[(&str, &[[u8; 4]])] = &[
    ("in-order", &[[0, 0x00, 0, 0], [3, 0x00, 0, 0], [3, 0x00, 1, 0], [3, 0x00, 2, 0]]),
    (
        "lost-packet",
        &[
            [0, 0x01, 1, 0],
            [3, 0x01, 0, 0],
            [2, 0x01, 1, 1],
            [3, 0x01, 2, 0],
            [6, 0, 255, 0],
            [3, 0x01, 1, 0],
        ],
    ),
    (
        "repaired",
        &[
            [0, 0x01, 0, 0],
            [3, 0x01, 0, 0],
            [2, 0x01, 5, 0],
            [8, 0x01, 5, 1],
            [8, 0x01, 5, 2],
            [8, 0x01, 6, 0x43],
            [6, 0, 40, 0],
            [8, 0x01, 6, 0x44],
            [6, 0, 255, 255],
        ],
    ),
    ("reset", &[[0, 0x17, 2, 0], [4, 0x17, 1, 0], [4, 0x17, 2, 0], [5, 0x17, 0, 0], [4, 0x17, 2, 0]]),
    (
        "finished-and-reset",
        &[
            [0, 0x20, 2, 0],
            [4, 0x20, 5, 255],
            [5, 0x20, 5, 0],
            [4, 0x20, 6, 255],
            [5, 0x20, 6, 0],
            [4, 0x20, 7, 255],
            [5, 0x20, 7, 0],
            [5, 0x20, 0, 0],
        ],
    ),
    (
        "crumbs",
        &[[0, 0x20, 0, 0], [2, 0x20, 0, 0], [2, 0x20, 0, 0x41], [2, 0x20, 1, 0x82], [2, 0x20, 2, 0xff]],
    ),
    ("far-ahead", &[[0, 0x10, 0, 0], [2, 0x10, 0, 0], [7, 0, 255, 53], [2, 0x10, 9, 0], [6, 0, 0, 9]]),
    (
        "far-ahead-on-a-path-that-reorders",
        &[
            [0, 0x00, 0, 0],
            [3, 0x00, 0, 0],
            [9, 0x00, 3, 0],
            [3, 0x00, 1, 0],
            [6, 0x00, 20, 0],
            [9, 0x00, 3, 0x80],
            [2, 0x00, 3, 0],
            [6, 0x00, 38, 0],
            [7, 0x00, 255, 53],
            [9, 0x00, 9, 0],
            [2, 0x00, 9, 0],
            [6, 0x00, 2, 0],
            [6, 0x00, 2, 0],
            [6, 0x00, 2, 0],
            [6, 0x00, 2, 0],
            [6, 0x00, 2, 0],
        ],
    ),
    ("packets-jump", &[[0, 0x10, 0, 0], [3, 0x10, 0, 0], [9, 0, 255, 50], [3, 0x10, 1, 0], [6, 0, 9, 9]]),
];

fn feedback() -> [(&'static str, Feedback); 2] {
    let arrived = Timestamp::from_micros(600_000_000);
    let short = Feedback::new(0, arrived, Duration::ZERO);
    let older = [Some(4), None, Some(-6), Some(1)].map(|step| {
        step.map_or(Reception::Missing, |step: i64| Reception::Received(Some(arrived.offset_by(step * -250))))
    });
    let long = Feedback {
        tail: 3,
        older: older.into(),
        lost: 5,
        runs: 2,
        frames: vec![IncompleteFrame { lane: 2, track: 1, sequence: 70, deficit: 4 }],
        ..Feedback::new(100, arrived, Duration::from_micros(50))
    };
    [("short", short), ("long", long)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::env;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::fuzz::TARGETS;

    #[test]
    fn the_corpus_holds_the_seeds_and_no_old_ones() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        let seeds = all();
        let update = env::var_os("UPDATE_SEEDS").is_some();
        if update {
            for seed in &seeds {
                let folder = corpus.join(seed.target);
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join(&seed.file), &seed.input).unwrap();
            }
        }
        let mut names = BTreeSet::new();
        for seed in &seeds {
            let path = corpus.join(seed.target).join(&seed.file);
            assert!(names.insert(path.clone()), "two seeds are called {}", path.display());
            let there = fs::read(&path).ok();
            assert_eq!(
                there.as_deref(),
                Some(&seed.input[..]),
                "{}: run UPDATE_SEEDS=1 cargo test -p parlor-tests --lib",
                path.display()
            );
        }
        for target in TARGETS {
            let folder = corpus.join(target.name);
            let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            let old: Vec<_> = files
                .filter(|path| {
                    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-"))
                })
                .filter(|path| !names.contains(path))
                .collect();
            if update {
                old.iter().for_each(|path| fs::remove_file(path).unwrap());
            } else {
                assert!(old.is_empty(), "seeds that nothing makes any more: {old:#?}");
            }
        }
    }
}
