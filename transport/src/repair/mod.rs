//! Repair of loss on one hop: a systematic erasure code over a sliding window of frames.
//!
//! Every frame is cut into equal *source symbols*, which travel as they are. Beside them travel *repair
//! symbols*, linear combinations of the source symbols of a few frames; any one of them stands in for any
//! one lost symbol among those. How many to send, and when, is not decided here.
//!
//! [`SourceBlock`] cuts a frame, [`encode_repair`] combines, [`Decoder`] puts together. [`field`] is the
//! arithmetic below them. [`code`] specifies the code exactly enough to be implemented by a stranger.
//!
//! ```
//! use parlor_transport::repair::{Decoder, Output, RepairId, SourceBlock, Window, encode_repair};
//!
//! let frames = [SourceBlock::new(vec![1; 3000].into())?, SourceBlock::new(vec![2; 2000].into())?];
//! let mut decoder = Decoder::default();
//! // Frame 7 loses one of its three symbols, frame 8 arrives whole.
//! for (number, lost) in [(7, Some(1)), (8, None)] {
//!     let block = &frames[number as usize - 7];
//!     for index in (0..block.shape().symbols()).filter(|&index| Some(index) != lost) {
//!         decoder.handle_source(number, block.shape(), index, block.symbol(index))?;
//!     }
//! }
//! assert_eq!(decoder.deficit(7), Some(1));
//!
//! // One repair symbol over both frames, newest first.
//! let repair = encode_repair(frames.iter().rev(), 0, RepairId::default())?;
//! let window = Window::new(8, frames.iter().rev().map(|block| Some(block.shape())), 0)?;
//! decoder.handle_repair(&window, RepairId::default(), &repair)?;
//!
//! let whole = std::iter::from_fn(|| decoder.poll_output())
//!     .filter_map(|output| match output {
//!         Output::Frame { frame, block } => Some((frame, block.object().len())),
//!         Output::Symbol { .. } => None,
//!     })
//!     .collect::<Vec<_>>();
//! assert_eq!(whole, [(8, 2000), (7, 3000)]);
//! # Ok::<(), parlor_transport::repair::Fault>(())
//! ```

pub mod code;
pub mod decoder;
pub mod field;
mod system;

pub use code::{Fault, RepairId, Shape, SourceBlock, Window, encode_repair};
pub use decoder::{Decoder, DecoderStats, Deficit, Output};

#[cfg(test)]
mod tests;
