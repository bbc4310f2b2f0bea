//! If this fails, an example of this crate does not do with a real relay what its first lines say. Cargo builds the
//! examples with the tests of the whole package.
#![cfg(all(feature = "codecs", not(feature = "audio-devices")))]
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

mod support;

use parlor_client::{Engine, JoinOptions, PlayOptions, Scenario};
use support::{Directory, Running, Served, program};

/// Starts `client/examples/NAME.rs`.
fn example(name: &str, arguments: &[&str]) -> Running {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not built; cargo test -p parlor-client without more builds it",
        path.display()
    );
    Running::start(program(path, arguments))
}

fn interrupt(running: Running) {
    running.interrupt();
    let (status, _, errors) = running.end();
    assert!(status.success(), "{errors}");
}

#[test]
fn numbers_pass_an_app_that_has_its_own_codec() {
    let served = Served::start();
    let (status, said, errors) = example("custom_encoder", &[&served.address]).end();
    assert!(status.success(), "{errors}");
    let numbers: Vec<u64> = said
        .lines()
        .filter_map(|line| line.split_once(", ").filter(|(_, age)| age.ends_with(" ms old")))
        .map(|(number, _)| number.trim().parse().unwrap())
        .collect();
    assert_eq!(numbers.len(), 50, "{said}");
    let are_squares = numbers.iter().all(|number| number.isqrt().pow(2) == *number);
    assert!(are_squares && numbers.is_sorted_by(|a, b| a < b), "{said}");
    served.shut_down();
}

#[test]
fn two_voices_hear_each_other() {
    let served = Served::start();
    let mut ann = example("voice_call", &[&served.address, "ann"]);
    let mut bob = example("voice_call", &[&served.address, "bob"]);
    ann.until(|line| line.contains("bob ") && line.ends_with('#'));
    bob.until(|line| line.contains("ann ") && line.ends_with('#'));
    interrupt(ann);
    interrupt(bob);
    served.shut_down();
}

#[test]
fn a_grid_shows_others_and_a_bot_repeats_one_of_them() {
    let served = Served::start();
    let directory = Directory::new("grid");
    let file = directory.path("grid.png");
    let mut ann = example("grid_of_views", &[&served.address, "ann", &file]);
    let mut bot = example("bot", &[&served.address, "ann-cam"]);
    bot.until(|line| line == "ann is here");
    // Ann herself, and what the bot repeats.
    ann.until(|line| line == format!("{file}: 2 views"));
    assert!(std::fs::read(&file).unwrap().starts_with(b"\x89PNG"));
    let keyframe = served.runtime.block_on(async {
        let engine = Engine::new(Scenario::StandardCall).unwrap();
        let room = engine.join(JoinOptions::new(&served.address, "eve")).unwrap();
        let mut frames =
            room.play("ann-cam-echo", PlayOptions::new()).map(|player| (player.frames(), player)).unwrap();
        let keyframe = loop {
            let frame = frames.0.next().await.unwrap();
            if frame.header.keyframe && frame.payload.starts_with(&[0, 0, 0, 1]) {
                break frame.payload;
            }
        };
        engine.close().await;
        keyframe
    });
    assert!(keyframe.len() > 100, "a picture as it was encoded");
    interrupt(bot);
    interrupt(ann);
    served.shut_down();
}
