//! What Parlor's relay and clients share: identifiers, the wire, hops and QUIC sessions.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod address;
pub mod clock;
pub mod error;
pub mod hop;
pub mod id;
pub mod quic;
pub mod rate;
pub mod repair;
#[cfg(feature = "sim")]
pub mod sim;
pub mod token;
pub mod units;
pub mod wire;
