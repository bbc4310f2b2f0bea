//! Parlor: media.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod audio;
mod font;
pub mod frame;
pub mod level;
pub mod pattern;
pub mod scale;
pub mod video;
