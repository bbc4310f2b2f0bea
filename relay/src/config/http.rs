//! Settings of what is spoken over HTTP: the listener, who may administer, and the webhooks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use ring::hmac;

/// Where health, metrics and the admin API are found unless something else is said.
pub const HTTP_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4480);
/// Secrets are this long: fewer bytes could be guessed, more are a wrong file.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=1024;

/// What an administrator shows as a bearer token. Kept as a digest, and shown nowhere.
#[derive(Clone)]
pub struct AdminToken {
    tag: hmac::Tag,
}

/// A secret that will not do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecretError {
    /// Its length is wrong.
    #[error(
        "{what} has {bytes} bytes; give {} to {}, for example of `openssl rand -hex 32`",
        SECRET_BYTES.start(), SECRET_BYTES.end()
    )]
    Length {
        /// Which secret.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// It holds what cannot stand in a header.
    #[error("{0} holds a space or a character that is not ASCII; give letters and digits")]
    Character(&'static str),
    /// Its file cannot be read.
    #[error("cannot read {what} from {path}: {why}; check the path")]
    File {
        /// Which secret.
        what: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        why: String,
    },
}

impl AdminToken {
    const WHAT: &'static str = "the admin token";

    /// Takes the text that administrators show; white space around it is left out.
    ///
    /// # Errors
    /// [`SecretError`] when it is too short, too long, or cannot stand in a header.
    pub fn new(text: &str) -> Result<Self, SecretError> {
        let text = check(Self::WHAT, text.trim())?;
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SecretError::Character(Self::WHAT));
        }
        Ok(AdminToken { tag: hmac::sign(&Self::key(text), Self::WHAT.as_bytes()) })
    }

    /// Reads it from a file.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        Self::new(&read(Self::WHAT, path)?)
    }

    /// Whether `shown` is it. How long this takes depends on `shown` alone.
    pub fn is(&self, shown: &str) -> bool {
        hmac::verify(&Self::key(shown), Self::WHAT.as_bytes(), self.tag.as_ref()).is_ok()
    }

    fn key(text: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

fn check<'a>(what: &'static str, text: &'a str) -> Result<&'a str, SecretError> {
    match SECRET_BYTES.contains(&text.len()) {
        true => Ok(text),
        false => Err(SecretError::Length { what, bytes: text.len() }),
    }
}

fn read(what: &'static str, path: &Path) -> Result<String, SecretError> {
    std::fs::read_to_string(path).map_err(|error| SecretError::File {
        what,
        path: path.display().to_string(),
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_is_the_token_and_none_is_shown() {
        let token = AdminToken::new("  0123456789abcdef0123\n").unwrap();
        assert!(token.is("0123456789abcdef0123"));
        for other in ["", "0123456789abcdef012", "0123456789abcdef0124", "0123456789abcdef0123 "] {
            assert!(!token.is(other), "{other:?}");
        }
        assert_eq!(format!("{token:?}"), "AdminToken(..)");
        for (bad, why) in [
            ("short".to_owned(), "has 5 bytes; give 16 to 1024"),
            ("x".repeat(1025), "has 1025 bytes"),
            ("a space inside it all".to_owned(), "a space or a character"),
        ] {
            let error = AdminToken::new(&bad).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains(&bad), "{error}");
        }
        let error = AdminToken::from_file(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("cannot read the admin token from /nowhere"), "{error}");
    }
}
