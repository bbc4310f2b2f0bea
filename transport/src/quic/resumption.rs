//! What an endpoint keeps of the relays it spoke to, so that the next connection begins a round trip earlier.
//!
//! TLS session tickets let the first flight leave with the very first packet (0-RTT); QUIC's address tokens let a
//! relay answer with more than three times what it got. Relays take a ticket once only (`tls`), so that what was
//! recorded on the way cannot be played back to them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{TokenMemoryCache, TokenStore};

use super::driver;
use super::session::Session;
use super::tls::Trust;

/// Kinds of trust remembered at once: an app speaks to a few relays, a program that tries many forgets the oldest.
const TRUSTS_MAX: usize = 16;

/// The TLS configurations of an endpoint's own connections, and the tokens that relays gave to it.
///
/// A ticket is only of use with the configuration that it came by: it stands for a certificate that was checked
/// under this trust.
pub(super) struct Remembered {
    configs: Mutex<VecDeque<(Trust, Arc<QuicClientConfig>)>>,
    pub(super) tokens: Arc<dyn TokenStore>,
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

impl Default for Remembered {
    fn default() -> Self {
        Remembered { configs: Mutex::default(), tokens: Arc::new(TokenMemoryCache::default()) }
    }
}

impl Remembered {
    /// How relays are spoken to under `trust`; `None` when TLS cannot be set up.
    pub(super) fn config(&self, trust: Trust, key_log: bool) -> Option<Arc<QuicClientConfig>> {
        // Nothing that panics runs while it is held.
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = configs.iter().find(|(other, _)| *other == trust) {
            return Some(config.clone());
        }
        let config = Arc::new(QuicClientConfig::try_from(trust.client_config(key_log).ok()?).ok()?);
        if configs.len() == TRUSTS_MAX {
            configs.pop_front();
        }
        configs.push_back((trust, config.clone()));
        Some(config)
    }
}

/// A connection whose handshake may still be under way.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub session: Session,
    /// What is sent before the handshake is over leaves as 0-RTT data, which the relay may yet decline; `None`
    /// when the handshake is over.
    pub early: Option<Early>,
}

/// Tells what became of 0-RTT data.
pub struct Early(pub(super) driver::Connection);

impl fmt::Debug for Early {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Early")
    }
}

impl Early {
    /// Waits for the handshake: true if the relay took what was sent before. Otherwise every QUIC stream that was
    /// opened so far is void and all of it is to be sent again; or the connection has ended.
    pub async fn accepted(self) -> bool {
        self.0.handshake().await.unwrap_or(false)
    }
}
