#![cfg_attr(test, allow(clippy::unwrap_used))]
//! What Parlor's relay and clients share: identifiers, the wire, hops and QUIC sessions.

pub mod clock;
pub mod units;
pub mod error;
pub mod id;
#[cfg(feature = "sim")]
pub mod sim;
pub mod wire;
