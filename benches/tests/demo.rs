//! If this fails, the demonstration runs for its whole length before it says that its picture cannot be written.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::process::Command;

#[test]
fn a_picture_that_cannot_be_written_is_told_before_the_call() {
    // Under a file there is no folder, and a folder is no file.
    for out in ["Cargo.toml/demo.png", "src"] {
        let run = Command::new(env!("CARGO_BIN_EXE_parlor-demo")).args(["--out", out]).output().unwrap();
        let error = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(1), "{error}");
        assert!(error.contains(out.split('/').next().unwrap()) && error.contains("choose a"), "{error}");
        assert!(run.stdout.is_empty(), "nobody was bothered: {}", String::from_utf8_lossy(&run.stdout));
    }
}
