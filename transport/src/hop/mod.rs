//! What media meets between two hosts on one connection. Pure machines: time comes in as an
//! argument, bytes and frames go in and out, nothing here knows QUIC.
//!
//! [`receive::HopReceiver`] puts frames together and in order, whatever way they came.

pub mod receive;

pub use receive::{Fault, HopReceiver, HopStats, Received};
