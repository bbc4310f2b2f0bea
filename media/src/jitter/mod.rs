//! Playout: when each frame is shown or heard, so that uneven arrival is not seen or heard.
//!
//! Pure machines: time comes in as an argument, nothing waits, sleeps or does I/O, every buffer has a bound. The
//! arrival clock and the capture clock may have different origins and drift apart; only their *offset* (arrival time
//! minus capture time, signed µs) is ever used. A frame captured at `c` is played at `c + offset`.

mod audio;
mod delay;
mod stretch;
mod video;

pub use audio::{AudioPlayout, AudioPlayoutStats};
pub use delay::{DELAY_MAX, DelayEstimator};
pub use video::{VideoPlayout, VideoPlayoutStats};
