//! Parlor: media.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod audio;
pub mod capture;
pub mod clock;
mod font;
pub mod frame;
pub mod jitter;
pub mod level;
pub mod pattern;
pub mod play;
pub mod scale;
pub mod sync;
pub mod video;
