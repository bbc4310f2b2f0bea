//! What a user shows to be let in: a JSON Web Token that the app's server made. `docs/identity.md` explains.
//!
//! [`Token`] is the text as it travels, which nobody looks into here. What stands in it ([`claims`]) and who
//! vouches for it ([`keys`]) are there with the feature `tokens`: relays, programs that make tokens.

#[cfg(feature = "tokens")]
pub mod claims;
#[cfg(feature = "tokens")]
pub mod keys;
#[cfg(feature = "tokens")]
mod provider;

use std::fmt;
use std::sync::Arc;

use crate::error::{Code, Coded};

/// A token as it travels. Who has it can join with it, so it shows itself nowhere, not in `Debug` either.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

/// Why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the token {problem} ({}); pass it as the app's server gave it", Code::TokenInvalid.number())]
pub struct TokenError {
    problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("is empty")]
    Empty,
    #[error("has {0} bytes, more than {max}", max = Token::BYTES_MAX)]
    TooLong(usize),
    #[error("holds a character at byte {0} that no token has")]
    BadCharacter(usize),
}

impl Coded for TokenError {
    fn code(&self) -> Code {
        Code::TokenInvalid
    }
}

impl Token {
    /// The most bytes of a token. One with a dozen stream ids has some 600.
    pub const BYTES_MAX: usize = 4096;

    /// Takes a token as the app's server gave it; white space around it is left out.
    ///
    /// # Errors
    /// [`TokenError`] when it cannot be one: empty, too long, or with other characters than letters, digits
    /// and `- _ .`
    pub fn new(text: impl AsRef<str>) -> Result<Self, TokenError> {
        let text = text.as_ref().trim();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let problem = if text.is_empty() {
            Problem::Empty
        } else if text.len() > Self::BYTES_MAX {
            Problem::TooLong(text.len())
        } else if let Some(at) = text.bytes().position(|byte| !is_plain(byte)) {
            Problem::BadCharacter(at)
        } else {
            return Ok(Token(text.into()));
        };
        Err(TokenError { problem })
    }

    /// What a peer sent; its length is checked with the message that it stands in.
    pub(crate) fn from_wire(text: String) -> Self {
        Token(text.into())
    }

    /// The token, for sending or verifying it; not for logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_token_is_told_at_once_and_never_shown() {
        assert_eq!(Token::new(" a.b.c\n").unwrap().as_str(), "a.b.c");
        for (bad, why) in [
            (String::new(), "is empty"),
            ("x".repeat(Token::BYTES_MAX + 1), "has 4097 bytes, more than 4096"),
            ("se cret".to_owned(), "holds a character at byte 2"),
        ] {
            let text = Token::new(&bad).unwrap_err().to_string();
            assert!(text.contains(why) && text.contains("(1025)") && !text.contains("se cret"), "{text}");
        }
        assert_eq!(format!("{:?}", Token::new("a.secret.c").unwrap()), "Token(10 bytes)");
    }
}
