//! Long work says how far it is, on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use parlor_transport::clock::Clock;
use parlor_transport::units::Timestamp;

/// Shows `text` in place of what was shown before; nothing clears it.
pub(super) fn show(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
        _ = std::io::stderr().flush();
    }
}

/// A line that counts runs and says how long the rest will take.
#[derive(Default)]
pub(super) struct Count {
    start: OnceLock<(Clock, Timestamp)>,
}

impl Count {
    /// So many of so many are done.
    pub(super) fn show(&self, done: usize, of: usize) {
        let (clock, start) = self.start.get_or_init(|| {
            let clock = Clock::system();
            let now = clock.now();
            (clock, now)
        });
        if done == of {
            return show("");
        }
        let passed = clock.now().saturating_since(*start);
        match passed.checked_div(done as u32) {
            Some(each) => {
                let left = each * (of - done) as u32;
                show(&format!("{done} of {of} runs, about {} s left", left.as_secs() + 1));
            }
            None => show(&format!("{done} of {of} runs")),
        }
    }
}
