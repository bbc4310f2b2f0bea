//! Identifiers that cannot be wrong: validated once where text or bytes come in, then passed as types.
//!
//! Cheap to clone (shared text). Ordering and equality are bytewise.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Code, Coded};

/// Why a text is not the identifier it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem} ({})", Code::BadId.number())]
pub struct IdError {
    /// Which identifier: "room id", "user id", …
    pub what: &'static str,
    /// What is wrong with it.
    pub problem: IdProblem,
}

/// The ways in which an identifier can be wrong; the text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdProblem {
    /// Nothing at all where at least one byte is needed.
    #[error("is empty; give at least one character")]
    Empty,
    /// Longer than allowed.
    #[error("has {bytes} bytes; shorten it to at most {max}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The most that is allowed, in bytes.
        max: usize,
    },
    /// A character outside the allowed set.
    #[error("holds {character:?} at byte {at}; allowed are {allowed}")]
    BadCharacter {
        /// The first offending character.
        character: char,
        /// Its byte offset.
        at: usize,
        /// The allowed set, in words.
        allowed: &'static str,
    },
}

impl Coded for IdError {
    fn code(&self) -> Code {
        Code::BadId
    }
}

struct Rule {
    what: &'static str,
    bytes_min: usize,
    bytes_max: usize,
    allowed: &'static str,
    allows: fn(char) -> bool,
}

impl Rule {
    fn check(&self, text: &str) -> Result<(), IdError> {
        let problem = if text.len() < self.bytes_min {
            IdProblem::Empty
        } else if text.len() > self.bytes_max {
            IdProblem::TooLong { bytes: text.len(), max: self.bytes_max }
        } else if let Some((at, character)) = text.char_indices().find(|&(_, c)| !(self.allows)(c)) {
            IdProblem::BadCharacter { character, at, allowed: self.allowed }
        } else {
            return Ok(());
        };
        Err(IdError { what: self.what, problem })
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Printable ASCII without what has a meaning in an address or a path, so that a room id
/// stands in `parlor://host/room#…` as it is.
fn is_plain(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '%' | '\\' | '"')
}

fn is_text(c: char) -> bool {
    !c.is_control()
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $rule:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            const RULE: Rule = $rule;

            /// The most bytes it may have.
            pub const BYTES_MAX: usize = Self::RULE.bytes_max;

            /// Checks `text`.
            ///
            /// # Errors
            /// [`IdError`] when it is empty, too long or holds a character outside the set.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                Self::RULE.check(text)?;
                Ok(Self(text.into()))
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = IdError;
            fn try_from(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

identifier!(
    /// The app that rooms, users and stream ids belong to: 1–64 bytes of `[A-Za-z0-9_-]`.
    AppId,
    Rule { what: "app id", bytes_min: 1, bytes_max: 64, allowed: "letters, digits, '-' and '_'", allows: is_word }
);

impl AppId {
    /// The app that exists when none is configured.
    pub fn dev() -> Self {
        AppId("dev".into())
    }
}

identifier!(
    /// A room within an app: 1–128 bytes of printable ASCII without `/ ? # % \ "`.
    RoomId,
    Rule {
        what: "room id",
        bytes_min: 1,
        bytes_max: 128,
        allowed: "printable ASCII without spaces and / ? # % \\ \"",
        allows: is_plain,
    }
);

identifier!(
    /// A user within an app: 1–64 bytes of printable ASCII without `/ ? # % \ "`.
    UserId,
    Rule {
        what: "user id",
        bytes_min: 1,
        bytes_max: 64,
        allowed: "printable ASCII without spaces and / ? # % \\ \"",
        allows: is_plain,
    }
);

identifier!(
    /// A user's name for people to read: 0–256 bytes of UTF-8 without control characters.
    UserName,
    Rule { what: "user name", bytes_min: 0, bytes_max: 256, allowed: "text without control characters", allows: is_text }
);

identifier!(
    /// A published stream, unique within its app: 1–256 bytes of `[A-Za-z0-9_-]`.
    StreamId,
    Rule { what: "stream id", bytes_min: 1, bytes_max: 256, allowed: "letters, digits, '-' and '_'", allows: is_word }
);

/// The short number that stands for a published stream in frame headers, unique on one relay
/// for as long as the relay lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamAlias(pub u32);

/// One client's stay in one room, unique on one relay for as long as the relay lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// Names one login of one user, over all connections that are tried for it. Random, so that two logins
/// never share one; nothing is granted for knowing it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoginId(pub [u8; 16]);

impl fmt::Debug for LoginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoginId({:032x})", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_at_both_ends() {
        assert_eq!(RoomId::new("").unwrap_err().problem, IdProblem::Empty);
        assert!(RoomId::new("r".repeat(128)).is_ok());
        assert_eq!(
            RoomId::new("r".repeat(129)).unwrap_err().problem,
            IdProblem::TooLong { bytes: 129, max: 128 }
        );
        assert!(UserName::new("").is_ok(), "a name is optional");
        assert!(UserName::new("ü".repeat(129)).is_err(), "names are counted in bytes");
    }

    #[test]
    fn characters_are_checked_and_the_error_says_what_is_allowed() {
        let error = StreamId::new("cam u1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "stream id holds ' ' at byte 3; allowed are letters, digits, '-' and '_' (1004)"
        );
        assert!(UserId::new("ann@home:~!$&'()*+,;=.").is_ok());
        for bad in ["a/b", "a?b", "a#b", "a%b", "a\\b", "a\"b", "a b", "a\u{e4}", "a\n"] {
            assert!(RoomId::new(bad).is_err(), "{bad:?}");
        }
        assert!(UserName::new("Zoë 🎥").is_ok());
        assert!(UserName::new("a\u{7}").is_err());
    }
}
