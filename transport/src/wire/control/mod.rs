//! Control messages: type, length, body.
//!
//! Three kinds of QUIC stream carry them, each in its own direction and order: requests with
//! their answers ([`ClientMessage`], [`RelayMessage`]), room events ([`RoomMessage`]) and app
//! messages ([`AppMessage`]). A message of an unknown type is skipped; a body may grow at its
//! end, and what an older reader does not know there is ignored. How bodies are laid out is
//! `codec`'s business alone.

mod check;
mod codec;
mod extra;
mod message;
mod operate;
mod room;

pub use check::ENTRIES_MAX;
pub use codec::{BODY_MAX, Message, MessageReader, encode};
pub use extra::*;
pub use message::*;
pub use operate::*;
pub use room::*;

/// The first byte of a QUIC stream says what it carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum StreamKind {
    /// Client to relay and back (bidirectional): requests and answers.
    Requests = 0x01,
    /// Either way (unidirectional): one media frame.
    Frame = 0x02,
    /// Relay to client (unidirectional): room snapshots and events.
    Events = 0x03,
    /// Either way (unidirectional): messages between users.
    AppMessages = 0x04,
}

impl StreamKind {
    /// The kind that `byte` stands for.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0x01 => Some(StreamKind::Requests),
            0x02 => Some(StreamKind::Frame),
            0x03 => Some(StreamKind::Events),
            0x04 => Some(StreamKind::AppMessages),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
