//! How fast a connection may send. Pure machines: time and what happened come in as arguments,
//! rates and instants come out; nothing here knows QUIC.
//!
//! The receiver's [`FeedbackBuilder`] says what arrived and when. The sender's [`Estimator`] turns
//! that into delays, delivery rate and loss, its [`Controller`] turns those into a rate, and its
//! [`Pacer`] says when the next datagram may leave.
//!
//! The caller's part, on the sending side: before a frame is encoded, ask [`Pacer::source_rate`] and
//! [`Controller::state`]; [`Pacer::enqueue`] each datagram; when [`Pacer::next_send`] has come, send
//! one and tell [`Pacer::on_sent`] and [`Estimator::on_sent`]; with each report call
//! [`Estimator::on_feedback`], then [`Controller::on_estimate`], then [`Pacer::set_rates`]; and some
//! ten times a second while anything is sent, [`Controller::on_silence`] and [`Pacer::set_rates`].
//! `tests/rate_model/media.rs` does just this.

pub mod controller;
pub mod estimate;
pub mod pacer;
pub mod receive;

pub use controller::{Controller, ControllerConfig, PathState};
pub use estimate::{Estimate, EstimateStats, Estimator, FeedbackFault, SentPacket};
pub use pacer::Pacer;
pub use receive::{FeedbackBuilder, ReceiveStats};
