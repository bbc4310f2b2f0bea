//! Why a call on the engine, a room, a publisher or a player was not carried out.
//!
//! Every error has a stable [`Code`] and says what to do next. What goes wrong later, while a call runs,
//! shows in the status of the room, publisher or player as a [`Refusal`] with the same codes.

use parlor_transport::address::AddressError;
use parlor_transport::error::{Code, Coded, Refusal};
use parlor_transport::id::{IdError, StreamId};
use parlor_transport::token::TokenError;
use parlor_transport::wire::control::{APP_MESSAGE_MAX, LISTED_MAX};

/// Why there is no engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no tokio runtime to run calls on.
    #[error(
        "an engine needs a tokio runtime ({code}); make it inside one, for example under #[tokio::main]",
        code = Code::Internal.number()
    )]
    NoRuntime,
    /// No UDP socket could be opened.
    #[error("{0} ({code})", code = Code::ConnectFailed.number())]
    Socket(String),
    /// Qlog files were asked for and cannot be written.
    #[error("{0} ({code})", code = Code::Internal.number())]
    Qlog(String),
}

impl Coded for EngineError {
    fn code(&self) -> Code {
        match self {
            EngineError::NoRuntime | EngineError::Qlog(_) => Code::Internal,
            EngineError::Socket(_) => Code::ConnectFailed,
        }
    }
}

/// Why nothing was tried to join a room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The address is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// App, room, user or name is not valid.
    #[error(transparent)]
    Id(#[from] IdError),
    /// What was given as a token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Neither the address nor the options name a room.
    #[error(
        "no room is named ({}); put it into the address (parlor://host:4433/room) or call JoinOptions::room",
        Code::BadAddress.number()
    )]
    NoRoom,
    /// The operating system refused something that every join needs.
    #[error("{0} ({code})", code = Code::Internal.number())]
    System(String),
    /// The engine was closed.
    #[error("the engine was closed ({}); make a new one", Code::Closed.number())]
    Closed,
}

impl Coded for JoinError {
    fn code(&self) -> Code {
        match self {
            JoinError::Address(error) => error.code(),
            JoinError::Id(error) => error.code(),
            JoinError::Token(error) => error.code(),
            JoinError::NoRoom => Code::BadAddress,
            JoinError::System(_) => Code::Internal,
            JoinError::Closed => Code::Closed,
        }
    }
}

/// Why nothing was tried to publish a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The stream id is not valid.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The list of tracks is not valid.
    #[error(transparent)]
    Tracks(Refusal),
    /// This room publishes the stream already.
    #[error(
        "stream {0:?} is being published here already ({code}); drop its publisher first",
        code = Code::AlreadyPublishing.number()
    )]
    AlreadyPublishing(StreamId),
    /// More requests wait than are kept.
    #[error("too many requests wait for the relay ({}); slow down", Code::TooManyRequests.number())]
    TooManyRequests,
    /// The room is not there any more; this is why.
    #[error("the room has ended: {0}")]
    Ended(Refusal),
}

impl Coded for PublishError {
    fn code(&self) -> Code {
        match self {
            PublishError::Id(error) => error.code(),
            PublishError::Tracks(refusal) | PublishError::Ended(refusal) => refusal.code(),
            PublishError::AlreadyPublishing(_) => Code::AlreadyPublishing,
            PublishError::TooManyRequests => Code::TooManyRequests,
        }
    }
}

/// Why a token was not renewed; the one before still holds, until it expires.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// What was given as a token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The relay does not take it; another token may do.
    #[error(transparent)]
    Refused(Refusal),
    /// More requests wait than are kept.
    #[error("too many requests wait for the relay ({}); slow down", Code::TooManyRequests.number())]
    TooManyRequests,
    /// The room is not there any more; this is why.
    #[error("the room has ended: {0}")]
    Ended(Refusal),
}

impl Coded for RenewError {
    fn code(&self) -> Code {
        match self {
            RenewError::Token(error) => error.code(),
            RenewError::Refused(refusal) | RenewError::Ended(refusal) => refusal.code(),
            RenewError::TooManyRequests => Code::TooManyRequests,
        }
    }
}

/// Why nothing was done about somebody in the room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModerateError {
    /// The id is not valid.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The relay does not do it: the token does not allow it, or there is no such user or stream.
    #[error(transparent)]
    Refused(Refusal),
    /// More requests wait than are kept.
    #[error("too many requests wait for the relay ({}); slow down", Code::TooManyRequests.number())]
    TooManyRequests,
    /// The room is not there any more; this is why.
    #[error("the room has ended: {0}")]
    Ended(Refusal),
}

/// Why something was not asked of the relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// More requests wait than are kept.
    #[error("too many requests wait for the relay ({}); slow down", Code::TooManyRequests.number())]
    TooManyRequests,
    /// The room is not there any more; this is why.
    #[error("the room has ended: {0}")]
    Ended(Refusal),
}

impl From<AskError> for ModerateError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::TooManyRequests => ModerateError::TooManyRequests,
            AskError::Ended(refusal) => ModerateError::Ended(refusal),
        }
    }
}

impl Coded for ModerateError {
    fn code(&self) -> Code {
        match self {
            ModerateError::Id(error) => error.code(),
            ModerateError::Refused(refusal) | ModerateError::Ended(refusal) => refusal.code(),
            ModerateError::TooManyRequests => Code::TooManyRequests,
        }
    }
}

impl Coded for AskError {
    fn code(&self) -> Code {
        match self {
            AskError::TooManyRequests => Code::TooManyRequests,
            AskError::Ended(refusal) => refusal.code(),
        }
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// It has so many bytes, which is too many.
    #[error(
        "a message of {0} bytes is too large ({code}); send at most {APP_MESSAGE_MAX} at once",
        code = Code::TooLarge.number()
    )]
    TooLarge(usize),
    /// It is for so many users, which is too many to list.
    #[error(
        "a message for {0} users is too large ({code}); list at most {LISTED_MAX}, or send it to everyone",
        code = Code::TooLarge.number()
    )]
    TooManyListed(usize),
    /// It is for nobody.
    #[error("the message is for nobody ({}); list at least one user", Code::UnknownUser.number())]
    Nobody,
    /// More messages wait than are kept.
    #[error("too many messages wait for the relay ({}); slow down", Code::TooManyRequests.number())]
    TooManyRequests,
    /// The room is not there any more; this is why.
    #[error("the room has ended: {0}")]
    Ended(Refusal),
}

impl Coded for MessageError {
    fn code(&self) -> Code {
        match self {
            MessageError::TooLarge(_) | MessageError::TooManyListed(_) => Code::TooLarge,
            MessageError::Nobody => Code::UnknownUser,
            MessageError::TooManyRequests => Code::TooManyRequests,
            MessageError::Ended(refusal) => refusal.code(),
        }
    }
}

impl From<AskError> for MessageError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::TooManyRequests => MessageError::TooManyRequests,
            AskError::Ended(refusal) => MessageError::Ended(refusal),
        }
    }
}

/// Why info was not attached to a stream or the room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InfoError {
    /// A key or text has too many bytes.
    #[error("info of {bytes} bytes is too large ({code}); at most {max} fit", code = Code::TooLarge.number())]
    TooLarge {
        /// How many it has.
        bytes: usize,
        /// How many there may be.
        max: usize,
    },
    /// The key is empty.
    #[error("the info's key is empty ({}); give it a name", Code::BadId.number())]
    NoKey,
    /// The publisher has ended.
    #[error("the stream is not being published ({}); publish it first", Code::NotPublishing.number())]
    NotPublishing,
    /// More requests wait than are kept.
    #[error("too many requests wait for the relay ({}); slow down", Code::TooManyRequests.number())]
    TooManyRequests,
    /// The room is not there any more; this is why.
    #[error("the room has ended: {0}")]
    Ended(Refusal),
}

impl Coded for InfoError {
    fn code(&self) -> Code {
        match self {
            InfoError::TooLarge { .. } => Code::TooLarge,
            InfoError::NoKey => Code::BadId,
            InfoError::NotPublishing => Code::NotPublishing,
            InfoError::TooManyRequests => Code::TooManyRequests,
            InfoError::Ended(refusal) => refusal.code(),
        }
    }
}

impl From<AskError> for InfoError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::TooManyRequests => InfoError::TooManyRequests,
            AskError::Ended(refusal) => InfoError::Ended(refusal),
        }
    }
}

/// Why nothing was tried to play a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlayError {
    /// The stream id is not valid.
    #[error(transparent)]
    Id(#[from] IdError),
    /// This room plays the stream already.
    #[error(
        "stream {0:?} is being played here already ({code}); give its player another view instead",
        code = Code::AlreadyPlaying.number()
    )]
    AlreadyPlaying(StreamId),
    /// More requests wait than are kept.
    #[error("too many requests wait for the relay ({}); slow down", Code::TooManyRequests.number())]
    TooManyRequests,
    /// The room is not there any more; this is why.
    #[error("the room has ended: {0}")]
    Ended(Refusal),
}

impl Coded for PlayError {
    fn code(&self) -> Code {
        match self {
            PlayError::Id(error) => error.code(),
            PlayError::Ended(refusal) => refusal.code(),
            PlayError::AlreadyPlaying(_) => Code::AlreadyPlaying,
            PlayError::TooManyRequests => Code::TooManyRequests,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_transport::token::Token;

    #[test]
    fn every_text_has_its_code_and_says_what_to_do() {
        let stream = StreamId::new("cam").unwrap();
        let refusal = Refusal::from(Code::Closed);
        let errors: Vec<Box<dyn CodedError>> = vec![
            Box::new(JoinError::NoRoom),
            Box::new(EngineError::NoRuntime),
            Box::new(EngineError::Qlog("the directory is a file".into())),
            Box::new(JoinError::Closed),
            Box::new(EngineError::Socket("the port is taken".into())),
            Box::new(PublishError::AlreadyPublishing(stream.clone())),
            Box::new(PublishError::Ended(refusal.clone())),
            Box::new(PublishError::TooManyRequests),
            Box::new(PlayError::AlreadyPlaying(stream)),
            Box::new(PlayError::Ended(refusal)),
            Box::new(PlayError::TooManyRequests),
            Box::new(JoinError::Token(Token::new("").unwrap_err())),
            Box::new(RenewError::Token(Token::new("a b").unwrap_err())),
            Box::new(RenewError::Refused(Refusal::from(Code::TokenExpired))),
            Box::new(RenewError::Ended(Refusal::from(Code::Closed))),
            Box::new(RenewError::TooManyRequests),
            Box::new(ModerateError::Refused(Refusal::from(Code::ModerateForbidden))),
            Box::new(ModerateError::Ended(Refusal::from(Code::Kicked))),
            Box::new(ModerateError::TooManyRequests),
            Box::new(AskError::TooManyRequests),
            Box::new(AskError::Ended(Refusal::from(Code::Closed))),
            Box::new(MessageError::TooLarge(20_000)),
            Box::new(MessageError::TooManyListed(300)),
            Box::new(MessageError::Nobody),
            Box::new(InfoError::TooLarge { bytes: 2000, max: 1024 }),
            Box::new(InfoError::NoKey),
            Box::new(InfoError::NotPublishing),
            Box::new(InfoError::TooManyRequests),
            Box::new(InfoError::Ended(Refusal::from(Code::Closed))),
            Box::new(MessageError::TooManyRequests),
            Box::new(MessageError::Ended(Refusal::from(Code::Closed))),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.contains(&format!("({})", error.code().number())), "{text}");
        }
    }

    trait CodedError: std::error::Error + Coded {}
    impl<T: std::error::Error + Coded> CodedError for T {}
}
