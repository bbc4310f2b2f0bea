//! The secrets by which a client proves that a session was its own: computed from the session's number and a key that
//! lives as long as the relay's process, so that nothing has to be kept for them.

use std::fmt;

use parlor_transport::id::SessionId;
use parlor_transport::wire::control::ResumeSecret;
use ring::hmac;
use ring::rand::SystemRandom;

/// The key behind all secrets of one run of a relay.
#[derive(Clone)]
pub struct ResumeKey(hmac::Key);

impl ResumeKey {
    /// A key that nobody knows; `None` when the operating system has no random numbers.
    pub fn generate() -> Option<Self> {
        hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok().map(ResumeKey)
    }

    /// A key of the caller's, for tests.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        ResumeKey(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The secret of a session.
    pub fn secret_of(&self, session: SessionId) -> ResumeSecret {
        let tag = hmac::sign(&self.0, &session.0.to_be_bytes());
        let mut secret = [0; 16];
        secret.copy_from_slice(&tag.as_ref()[..16]);
        ResumeSecret(secret)
    }

    /// Whether this is the secret of the session; takes as long for any wrong one.
    pub fn is_secret_of(&self, secret: &ResumeSecret, session: SessionId) -> bool {
        let right = self.secret_of(session).0;
        right.iter().zip(secret.0).fold(0, |wrong, (a, b)| wrong | (a ^ b)) == 0
    }
}

impl fmt::Debug for ResumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_its_own_session_of_its_own_relay() {
        let [key, other] = [1, 2].map(|byte| ResumeKey::from_bytes(&[byte; 32]));
        let secret = key.secret_of(SessionId(7));
        assert!(key.is_secret_of(&secret, SessionId(7)));
        assert!(!key.is_secret_of(&secret, SessionId(8)));
        assert!(!other.is_secret_of(&secret, SessionId(7)));
        let mut wrong = secret;
        wrong.0[15] ^= 1;
        assert!(!key.is_secret_of(&wrong, SessionId(7)));
        assert_eq!(format!("{secret:?} {key:?}"), "ResumeSecret(…) ResumeKey(…)");
    }
}
