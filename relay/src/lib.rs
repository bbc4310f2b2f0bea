#![cfg_attr(test, allow(clippy::unwrap_used))]
//! Parlor's relay: rooms, who is in them, and the forwarding of frames that nobody here looks into.

pub mod config;
mod connection;
pub mod forward;
pub mod limits;
pub mod lobby;
pub mod logging;
pub mod room;
pub mod server;

pub use config::{Config, ConfigError, Tls};
pub use server::{BindError, Relay, RelayHandle};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic elsewhere: what our locks guard is whole between any two statements
/// that can panic, and one connection's fault must not end the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
