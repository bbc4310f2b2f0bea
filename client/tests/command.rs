//! If this fails, the `parlor` command does not hold a call with a real relay: real processes, sockets, codecs and
//! files of this machine.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use parlor_client::media::capture::{VideoSource, open_clip};
use parlor_client::media::frame::MediaTime;
use parlor_client::media::video::assembler_build;
use support::{Directory, Running, Served, program};

/// Ends a call that should have ended long ago.
const TOO_LONG: [&str; 2] = ["--seconds", "300"];

fn parlor(arguments: &[&str]) -> Command {
    program(env!("CARGO_BIN_EXE_parlor"), arguments)
}

fn join(address: &str, user: &str, more: &[&str]) -> Command {
    parlor(&[&["join", address, "--as", user], more, &TOO_LONG].concat())
}

/// Runs to the end: exit code, output, errors.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = parlor(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn codec_build() -> &'static str {
    if assembler_build() { "OpenH264 with assembler" } else { "OpenH264 without assembler" }
}

#[test]
fn the_version_says_how_the_codec_was_built() {
    let (exit, text, _) = run(&["--version"]);
    assert_eq!(exit, 0);
    let start = format!("parlor {} ({}", env!("CARGO_PKG_VERSION"), codec_build());
    assert!(text.starts_with(&start), "{text}");
}

#[test]
fn two_people_call_a_third_records_and_everybody_hears_how_it_ended() {
    let served = Served::start();
    let here = served.address.clone();
    let directory = Directory::new("command");
    let (keys, qlog) = (directory.path("keys"), directory.path("qlog"));

    let mut ann = join(&here, "ann", &["--publish", "pattern", "--stream", "ann-main", "--qlog", &qlog]);
    ann.env("SSLKEYLOGFILE", &keys);
    let mut ann = Running::start(ann);
    ann.until(|line| line == "joined standup as ann");
    let mut bob = Running::start(join(&here, "bob", &["--publish", "pattern"]));
    bob.until(|line| line == "joined standup as bob");
    ann.until(|line| line == "bob is here; 2 in the room");
    let is_playing = |line: &str, stream: &str| {
        let cells: Vec<_> = line.split_whitespace().collect();
        cells.starts_with(&["<", stream, "Playing"]) && cells[3] != "0.0"
    };
    ann.until(|line| is_playing(line, "bob-cam"));
    bob.until(|line| is_playing(line, "ann-main"));

    let (exit, text, error) = run(&["room", &here, "--as", "eve"]);
    assert_eq!(exit, 0, "{error}");
    assert!(text.starts_with("room standup, others: 2, streams: 2\n"), "{text}");
    let (exit, text, error) = run(&["room", &here, "--as", "eve", "--json"]);
    assert_eq!(exit, 0, "{error}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["streams"][0]["id"], &json["streams"][1]["user"]), (&"ann-main".into(), &"bob".into()));

    let file = directory.path("bob.mp4");
    let (exit, text, error) =
        run(&["record", &here, "--as", "dia", "--stream", "bob-cam", "--out", &file, "--seconds", "5"]);
    assert_eq!(exit, 0, "{error}");
    assert!(text.starts_with(&format!("{file}: ")) && text.ends_with(" sound packets\n"), "{text}");
    let mut clip = open_clip(Path::new(&file), 640, 360, None).unwrap();
    let picture = clip.next(MediaTime::ZERO).unwrap().unwrap();
    assert_eq!((picture.width(), picture.height()), (640, 360));

    // Who leaves is seen to leave, and Ctrl-C is a way to be done.
    bob.interrupt();
    let (status, said, error) = bob.end();
    assert_eq!(status.code(), Some(0), "{error}");
    assert!(said.contains("< ann-main "), "the last table: {said}");
    ann.until(|line| line == "bob left (Left); 1 in the room");

    // Somebody takes ann's place.
    let mut again = Running::start(join(&here, "ann", &["--reconnect", "0"]));
    again.until(|line| line == "joined standup as ann");
    let (status, _, error) = ann.end();
    assert_eq!(status.code(), Some(1), "{error}");
    assert!(error.lines().any(|line| line.starts_with("parlor: ") && line.contains("(1009)")), "{error}");
    assert!(error.contains(codec_build()), "{error}");
    let keys = fs::read_to_string(&keys).unwrap();
    assert!(keys.lines().any(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0 ")), "{keys}");
    let files: Vec<_> = fs::read_dir(&qlog).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("one connection, one qlog file: {files:?}") };
    let trace = fs::read_to_string(file).unwrap();
    assert!(trace.contains("qlog_version") && trace.contains("packet_sent"), "{:?}", trace.get(..400));

    served.shut_down();
    let (status, _, error) = again.end();
    assert_eq!(status.code(), Some(1), "{error}");
    assert!(error.contains("(1017)"), "{error}");
}

#[test]
fn what_a_relay_refuses_is_said_and_nothing_is_left_behind() {
    let served = Served::start();
    let directory = Directory::new("refused");
    let (exit, _, error) = run(&["room", &served.address, "--app", "other"]);
    assert_eq!(exit, 1);
    assert!(error.contains("(1016)"), "{error}");

    let file = directory.path("nobody.mp4");
    let (exit, text, error) =
        run(&["record", &served.address, "--stream", "nobody", "--out", &file, "--seconds", "0.1"]);
    assert_eq!((exit, text.as_str()), (1, ""));
    assert!(error.contains("nobody published \"nobody\"; nothing was recorded"), "{error}");
    assert!(!Path::new(&file).exists());
    served.shut_down();
}
