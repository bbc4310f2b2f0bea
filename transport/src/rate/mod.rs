//! How fast a connection may send. Pure machines: time and what happened come in as arguments,
//! rates and instants come out; nothing here knows QUIC.
//!
//! The receiver's [`FeedbackBuilder`] says what arrived and when. The sender's [`Estimator`] turns
//! that into delays, delivery rate and loss, its [`Controller`] turns those into a rate, and its
//! [`Pacer`] says when the next datagram may leave.

pub mod controller;
pub mod estimate;
pub mod pacer;
pub mod receive;

pub use controller::{Controller, ControllerConfig, PathState};
pub use estimate::{Estimate, EstimateStats, Estimator, FeedbackFault, SentPacket};
pub use pacer::Pacer;
pub use receive::{FeedbackBuilder, ReceiveStats};
