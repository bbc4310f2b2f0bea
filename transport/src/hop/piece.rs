//! What is known of a frame that is not whole yet: a relay passes it on before it has the rest.

use bytes::Bytes;

use crate::repair::Shape;
use crate::wire::frame::FrameHeader;

/// Symbols of a frame that lacks others. It says nothing of whether the frame will ever be whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// What the frame says of itself.
    pub header: FrameHeader,
    /// How it is cut.
    pub shape: Shape,
    /// Symbols as they are, each with its index, in the order in which they became known.
    pub symbols: Vec<(usize, Bytes)>,
}

/// A piece that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceivedPiece {
    /// The publication that it came on.
    pub lane: u32,
    /// Its track.
    pub track: u8,
    /// The frame's place among the frames of its lane and track.
    pub sequence: u64,
    /// The symbols that no piece had before.
    pub piece: Piece,
}
