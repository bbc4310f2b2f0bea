//! From a publisher to its players: one copy of each frame, one cursor for each player and track.
//!
//! The cache is the queue: nothing is queued per player, so a slow one costs nobody else anything.
//! No task and no socket here; `connection` moves the bytes.

pub mod cache;
pub mod cursor;
mod intake;
pub mod keyframe;
pub mod layer;
pub mod patience;
pub mod publication;
pub mod voices;

#[cfg(test)]
mod tests;
