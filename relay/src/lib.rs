#![cfg_attr(test, allow(clippy::unwrap_used))]
//! Parlor's relay: rooms, who is in them, and the forwarding of frames that nobody here looks into.

pub mod limits;
pub mod room;
