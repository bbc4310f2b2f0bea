//! Settings of what is spoken over HTTP: the listener, who may administer, and the webhooks.

use std::fmt::{self, Write as _};
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

/// Where events are posted to, and with what they are signed.
#[derive(Clone)]
pub struct Webhooks {
    url: hyper::Uri,
    secret: hmac::Key,
}

/// Webhooks that will not do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WebhookError {
    /// The address is not one that is posted to.
    #[error(
        "webhooks cannot go to {url:?}: {why}; give http://127.0.0.1:PORT/PATH, and for another machine or https a \
         proxy there"
    )]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// One of the two is missing.
    #[error("webhooks want url and secret_file, both; {0} is missing")]
    Missing(&'static str),
}

impl Webhooks {
    const WHAT: &'static str = "the webhook secret";

    /// Events go to `url`, signed with `secret`, which the receiver has, too.
    ///
    /// # Errors
    /// [`WebhookError`] when `url` is not plain HTTP to this machine, or the secret is too short or long.
    pub fn new(url: &str, secret: &str) -> Result<Self, WebhookError> {
        let bad = |why| WebhookError::Url { url: url.to_owned(), why };
        let uri: hyper::Uri = url.parse().map_err(|_| bad("it is no URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(bad("it does not begin with http://"));
        }
        if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(bad("a name or password stands in it"));
        }
        // What is posted can be read on its way.
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
            return Err(bad("it is not on this machine"));
        }
        if uri.port_u16() == Some(0)
            || uri
                .authority()
                .is_some_and(|a| a.port().is_none() && a.as_str() != uri.host().unwrap_or_default())
        {
            return Err(bad("its port is none"));
        }
        let secret = check(Self::WHAT, secret.trim())?;
        Ok(Webhooks { url: uri, secret: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()) })
    }

    /// The same, with the secret from a file.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub fn from_file(url: &str, secret: &Path) -> Result<Self, WebhookError> {
        Self::new(url, &read(Self::WHAT, secret)?)
    }

    /// Where events are posted to.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    pub(crate) fn host(&self) -> &str {
        self.url.host().unwrap_or_default().trim_matches(['[', ']'])
    }

    pub(crate) fn port(&self) -> u16 {
        self.url.port_u16().unwrap_or(80)
    }

    pub(crate) fn authority(&self) -> &str {
        self.url.authority().map_or("", |authority| authority.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.url.path_and_query().map_or("/", |path| path.as_str())
    }

    /// What stands in the header of a post with this body: HMAC-SHA256 of it, in hexadecimal.
    pub fn sign(&self, body: &[u8]) -> String {
        let mut text = String::from("sha256=");
        for byte in hmac::sign(&self.secret, body).as_ref() {
            // Writing into memory cannot fail.
            _ = write!(text, "{byte:02x}");
        }
        text
    }
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").field("url", &self.url).finish_non_exhaustive()
    }
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

    const SIGNED: &str = "sha256=72b1f94c418aaeb782de291e711c26d82cc93562e339d5aeec5f29e101b73adc";

    #[test]
    fn webhooks_stay_on_this_machine_and_are_signed() {
        let secret = "key-of-the-shop!";
        let hooks = Webhooks::new("http://127.0.0.1:8080/hook?x=1", secret).unwrap();
        assert_eq!((hooks.host(), hooks.port(), hooks.path()), ("127.0.0.1", 8080, "/hook?x=1"));
        // printf '{"a":1}' | openssl dgst -sha256 -hmac 'key-of-the-shop!'
        assert_eq!(hooks.sign(b"{\"a\":1}"), SIGNED);
        assert!(!format!("{hooks:?}").contains(secret));
        for good in ["http://localhost/", "http://[::1]:9/x", "http://127.9.9.9"] {
            Webhooks::new(good, secret).unwrap();
        }
        for (bad, why) in [
            ("", "no URL"),
            ("/hook", "does not begin"),
            ("https://127.0.0.1/", "does not begin"),
            ("http://example.com/", "not on this machine"),
            ("http://localhost.example.com/", "not on this machine"),
            ("http://ann:pw@127.0.0.1/", "a name or password"),
            ("http://127.0.0.1:0/", "its port"),
            ("http://127.0.0.1:99999/", "URL"),
        ] {
            let error = Webhooks::new(bad, secret).unwrap_err().to_string();
            assert!(error.contains(why) || bad.contains("99999"), "{bad}: {error}");
        }
        assert!(Webhooks::new("http://localhost/", "short").unwrap_err().to_string().contains("has 5 bytes"));
    }

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
