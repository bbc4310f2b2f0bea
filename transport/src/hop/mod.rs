//! What media meets between two hosts on one connection: symbols, repair, pace, order. Pure
//! machines: time comes in as an argument, bytes and frames go in and out, nothing here knows QUIC.
//!
//! [`HopSender`] turns frames into packets, [`HopReceiver`] turns packets into frames in order and
//! into reports, which the sender repairs by and takes its rate from. [`policy`] has the rules.

mod piece;
pub mod policy;
pub mod receive;
pub mod send;

pub use piece::{Piece, ReceivedPiece};
pub use receive::{Fault, GivenUp, HopReceiver, HopStats, Received};
pub(crate) use send::ACK_DELAY_MAX;
pub use send::{Ablation, CodedFrame, HopSender, SendStats};

#[cfg(test)]
mod tests;
