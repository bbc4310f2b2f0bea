//! Bytes ↔ values. Total: any input gives a value or a [`WireError`], never a panic, never an
//! allocation that the input's own length does not pay for. `docs/protocol.md` is the specification.

pub mod control;
pub mod feedback;
pub mod frame;
pub mod hop;
pub mod packet;
pub mod varint;

use crate::error::{Code, Coded};

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end before the value does.
    #[error("{what} is cut short")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// A length, count or number beyond its bound.
    #[error("{what} is {value}; at most {max} is allowed")]
    TooLarge {
        /// What was being read.
        what: &'static str,
        /// The number found.
        value: u64,
        /// The bound.
        max: u64,
    },
    /// A value that has no meaning.
    #[error("{what} is not valid: {why}")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// An identifier that breaks its rule; the text says which and how.
    #[error("{0}")]
    BadId(String),
}

impl WireError {
    pub(crate) fn invalid(what: &'static str, why: impl Into<String>) -> Self {
        WireError::Invalid { what, why: why.into() }
    }
}

impl Coded for WireError {
    fn code(&self) -> Code {
        match self {
            WireError::Truncated { .. } | WireError::Invalid { .. } => Code::ProtocolViolation,
            WireError::TooLarge { .. } => Code::TooLarge,
            WireError::BadId(_) => Code::BadId,
        }
    }
}
