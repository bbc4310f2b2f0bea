#![cfg_attr(test, allow(clippy::unwrap_used))]
//! Parlor's relay: rooms, who is in them, and the forwarding of frames that nobody here looks into.
//!
//! As a program: `parlor-relay --dev`. As a library, for tests, demonstrations and programs of your own:
//! [`Relay::bind`] and [`Relay::run`].
//!
//! # Where what is
//! - [`room`]: what a room is, a replica that changes only by what an index (the authority) commits.
//! - [`lobby`]: requests of clients and their answers; carries out what the index decided.
//! - [`auth`]: apps, their keys, and what a token lets its user do.
//! - [`gate`]: who may begin a handshake. `allowance`: how much one user may publish.
//! - [`forward`]: frames, from a publication's cache to its players' cursors.
//! - [`speaker`]: which voices are heard in a large room, and whose leads.
//! - [`overload`]: when the machine is too slow, and what is left out then.
//! - [`metrics`]: what is counted, as text for Prometheus. `http`: health, metrics and administration.
//! - [`webhook`]: what the app's server is told.
//! - `connection`, [`server`], `http`: the shells, which move bytes and keep the time. quinn is not named here at all.
//! - [`limits`]: every bound with its reason. [`config`], [`logging`]: for the program.
//!
//! # What holds
//! - No lock is held across an await. Locks are taken in this order: hub (lobby), room; plays, publication; the gate's is
//!   held with no other, that of a room's voices with none but the hub's.
//! - Nothing is queued per player: a player is a cursor, and what it is too slow for it skips.
//! - A user's join comes before its streams, its streams' end before its leave, in everyone's events.
//! - A frame that goes out decodes, given what went out before it.

mod allowance;
pub mod auth;
mod budget;
pub mod config;
mod connection;
pub mod forward;
pub mod gate;
mod http;
pub mod limits;
pub mod lobby;
pub mod logging;
pub mod metrics;
pub mod overload;
pub mod room;
pub mod server;
pub mod speaker;
pub mod webhook;

pub use auth::App;
pub use config::{Config, ConfigError, Tls};
pub use server::{BindError, Relay, RelayHandle};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic elsewhere: what our locks guard is whole between any two statements
/// that can panic, and one connection's fault must not end the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
