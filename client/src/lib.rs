//! Parlor's client: join a room, publish streams, play those of others.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod call;
pub mod clock_sync;
pub mod engine;
pub mod error;
pub mod options;
#[cfg(feature = "codecs")]
pub mod pipeline;
pub mod player;
pub mod publisher;
pub mod room;
pub mod stats;

pub use engine::{Engine, Frames, Player, Publisher, Room, RoomEvents};
pub use error::{EngineError, JoinError, PlayError, PublishError};
pub use options::{EngineConfig, JoinOptions, PlayOptions, PublishOptions, Scenario};
pub use parlor_transport::error::{Code, Coded, Refusal};
pub use parlor_transport::id::{AppId, RoomId, StreamId, UserId, UserName};
pub use parlor_transport::units::Timestamp;
pub use parlor_transport::wire::control::{
    Delivery, Departure, StreamInfo, TrackInfo, TrackKind, TrackWish, UserInfo,
};
pub use parlor_transport::wire::frame::AudioLevel;
