//! Where load runs: on threads that let the relay go first.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// How much nicer than the relay the threads of a load are (0 to 19): a tenth of its share of a core where both want all
/// of it. People's devices are elsewhere and take nothing from a relay; on one machine the load would have it wait.
#[cfg(unix)]
const NICE: i32 = 10;

/// A runtime whose threads yield to those of the relay, where the system knows how. A relay that the load starts itself must
/// be started from another thread, since it would be as nice.
///
/// # Errors
/// What the system says.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().on_thread_start(yield_to_others).build()
}

#[cfg(unix)]
fn yield_to_others() {
    // Without it figures are worse, not wrong.
    _ = rustix::process::nice(NICE);
}

#[cfg(not(unix))]
fn yield_to_others() {}
