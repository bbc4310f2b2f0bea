//! Soak: people who come and go, publish, play, say things and lose their network, for minutes or days. What is
//! looked for is what stays behind afterwards, and memory that grows while as many people are there as before.
//!
//! [`virtual_time`] runs relay and people in one simulation, [`loopback`] a relay's own process and people around it
//! over real UDP. Both are called by `src/bin/soak.rs`.

pub mod figures;
mod gate;
pub mod life;
pub mod loopback;
pub mod virtual_time;

use std::time::Duration;

/// How many people there are, and what they send.
#[derive(Clone, Debug)]
pub struct Load {
    /// People; the first of them stays from beginning to end, so that its room lives on and its log is full.
    pub users: usize,
    /// Between two frames of each stream.
    pub frame_interval: Duration,
    /// Bytes of each frame.
    pub frame_bytes: usize,
    /// The longest stay in a room; the shortest is a sixth of it.
    pub stay_max: Duration,
    /// The longest wait between two deeds of somebody in a room.
    pub deed_wait_max: Duration,
}

impl Load {
    /// A standard call: 600 kbit/s in 15 frames a second from each, stays of up to two minutes.
    pub fn full(users: usize) -> Self {
        Load {
            users,
            frame_interval: Duration::from_micros(66_667),
            frame_bytes: 5_000,
            stay_max: Duration::from_secs(120),
            deed_wait_max: Duration::from_secs(20),
        }
    }

    /// The same people and as many comings and goings a stay, but five times slower and with next to no media: what
    /// makes a day of it affordable.
    pub fn thin(users: usize) -> Self {
        Load {
            users,
            frame_interval: Duration::from_secs(1),
            frame_bytes: 200,
            stay_max: Duration::from_secs(600),
            deed_wait_max: Duration::from_secs(100),
        }
    }
}
