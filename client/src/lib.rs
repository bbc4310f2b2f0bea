//! Calls between many people: join a room, publish streams, play those of others, hear who comes and goes.
//!
//! A whole call, with the built-in capture and codecs:
//!
#![cfg_attr(feature = "codecs", doc = "```no_run")]
#![cfg_attr(not(feature = "codecs"), doc = "```ignore")]
#![doc = include_str!("../front_page.rs.in")]
//! ```
//!
//! - [`Engine`]: one UDP socket, any number of rooms. Everything needs a tokio runtime.
//! - [`Room`]: its [events](Room::events) tell of users and streams, first of all that are there; a reader that is
//!   too slow gets the difference instead, never a hole.
//! - [`Publisher`] and [`Player`]: encoded frames out and in, for apps with codecs of their own. Sending never
//!   waits; the answer says what became of the frame.
//! - `pipeline` (feature `codecs`): capture → encode → publish and play → decode → view and speaker, with H.264 and
//!   Opus.
//!
//! Dropping a handle stops what it stands for. Errors have a stable [`Code`] and say what to do next. The
//! tutorial is `docs/multi-party-call.md`, the wire `docs/protocol.md`.
//!
//! # Features
//! - `codecs` (default): built-in media. Without it there is no codec in the build.
//! - `cli` (default): the `parlor` command.
//! - `camera`, `audio-devices`: this machine's devices.
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

pub use engine::{Answer, Engine, Frames, Player, Publisher, Room, RoomEvents};
pub use error::{
    AskError, EngineError, InfoError, JoinError, MessageError, ModerateError, PlayError, PublishError,
    RenewError,
};
pub use options::{EngineConfig, JoinOptions, PlayOptions, PublishOptions, Scenario};
/// The media crate that [`pipeline`] is made of.
#[cfg(feature = "codecs")]
pub use parlor_media as media;
pub use parlor_transport::error::{Code, Coded, Refusal};
pub use parlor_transport::id::{AppId, RoomId, StreamId, UserId, UserName};
pub use parlor_transport::units::Timestamp;
pub use parlor_transport::wire::control::{
    Delivery, Departure, Speaker, StreamInfo, TrackInfo, TrackKind, TrackState, TrackWish, UserInfo,
};
pub use parlor_transport::wire::frame::AudioLevel;

/// The code of the tutorial compiles.
#[cfg(all(doctest, feature = "codecs"))]
#[doc = include_str!("../../docs/multi-party-call.md")]
struct Tutorial;
