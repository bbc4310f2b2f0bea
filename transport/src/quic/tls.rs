//! Who the relay is (certificate and key) and whom a client trusts (a pinned fingerprint, or the
//! system's authorities). One crypto provider: ring.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// What clients and relay agree on besides the version in the first message. Nothing relies on it.
pub(crate) const ALPN: &[u8] = b"parlor/1";
/// The name on development certificates; a pinned fingerprint makes the name meaningless.
const DEVELOPMENT_NAME: &str = "parlor-development";
/// Session tickets that a relay remembers, of some 300 bytes each: rustls gives two to every connection, and 10,000
/// users may come back at once. The oldest are forgotten; who shows one of them makes a full handshake.
const TICKETS_MAX: usize = 20_000;
const CERTIFICATE_FILE: &str = "relay-cert.pem";
const KEY_FILE: &str = "relay-key.pem";

/// SHA-256 of a certificate, 64 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER form.
    pub fn of(certificate: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Fingerprint(bytes)
    }
}

/// A text that is not a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a certificate fingerprint is 64 hexadecimal digits; copy it anew from the relay's start-up lines")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(FingerprintError);
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| FingerprintError)?;
        }
        Ok(Fingerprint(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Why a relay's certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or is not PEM.
    #[error("cannot read {what} from {}: {source}; give a PEM file that this user may read", path.display())]
    Read {
        /// "certificate" or "private key".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not work together.
    #[error("certificate and private key cannot be used: {0}; do the two files belong together?")]
    Mismatch(#[from] rustls::Error),
    /// The development certificate cannot be made or kept.
    #[error("cannot keep the development certificate in {}: {why}; name a directory that this user may write", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
}

/// A relay's certificate chain and private key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Identity { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    /// Reads a certificate chain (the relay's own first) and its private key from PEM files.
    ///
    /// # Errors
    /// [`IdentityError`] when a file cannot be read or the two do not belong together.
    pub fn from_pem_files(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let read = |what, path: &Path, source| IdentityError::Read { what, path: path.to_owned(), source };
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .and_then(|chain| {
                if chain.is_empty() { Err(rustls::pki_types::pem::Error::NoItemsFound) } else { Ok(chain) }
            })
            .map_err(|source| read("a certificate", certificate, source))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|source| read("a private key", key, source))?;
        let identity = Identity { chain, key };
        identity.server_config(false)?;
        Ok(identity)
    }

    /// The self-signed certificate kept in `directory`, made on first use.
    ///
    /// # Errors
    /// [`IdentityError`] when it can be neither read nor written.
    pub fn development(directory: &Path) -> Result<Self, IdentityError> {
        let (certificate, key) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        if certificate.exists() && key.exists() {
            return Identity::from_pem_files(&certificate, &key);
        }
        let write = |path: &Path, why: &dyn fmt::Display| IdentityError::Write {
            path: path.to_owned(),
            why: why.to_string(),
        };
        let (made, key_pair) = self_signed().map_err(|error| write(directory, &error))?;
        fs::create_dir_all(directory).map_err(|error| write(directory, &error))?;
        // The key first: a certificate without its key would be made anew, a key without one is harmless.
        write_private(&key, &key_pair.serialize_pem()).map_err(|error| write(&key, &error))?;
        fs::write(&certificate, made.pem()).map_err(|error| write(&certificate, &error))?;
        Identity::from_pem_files(&certificate, &key)
    }

    /// A self-signed certificate that is gone with this value: for tests and demonstrations.
    ///
    /// # Errors
    /// [`IdentityError`] when the system has no randomness to make a key of.
    pub fn ephemeral() -> Result<Self, IdentityError> {
        let (certificate, key) = self_signed()
            .map_err(|error| IdentityError::Write { path: PathBuf::new(), why: error.to_string() })?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(Identity { chain: vec![certificate.der().clone()], key })
    }

    /// The fingerprint that clients pin.
    pub fn fingerprint(&self) -> Fingerprint {
        self.chain.first().map_or(Fingerprint([0; 32]), |certificate| Fingerprint::of(certificate))
    }

    pub(crate) fn server_config(&self, key_log: bool) -> Result<rustls::ServerConfig, rustls::Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Kept here and taken out when they are shown, so that 0-RTT data cannot be replayed.
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(TICKETS_MAX);
        config.max_early_data_size = u32::MAX;
        if key_log {
            config.key_log = Arc::new(rustls::KeyLogFile::new());
        }
        Ok(config)
    }
}

/// Ed25519 with a fixed serial number: its handshake always has the same number of bytes, which
/// reproducible runs in virtual time need.
fn self_signed() -> Result<(rcgen::Certificate, rcgen::KeyPair), rcgen::Error> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let mut params = rcgen::CertificateParams::new(vec![DEVELOPMENT_NAME.to_owned()])?;
    params.serial_number = Some(1u64.into());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, DEVELOPMENT_NAME);
    let certificate = params.self_signed(&key)?;
    Ok((certificate, key))
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

/// Which relay certificates a client accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// The one with this fingerprint, whatever name or date it bears.
    Pinned(Fingerprint),
    /// Those that the system's certificate authorities vouch for, for the host's name.
    System,
}

impl Trust {
    pub(crate) fn client_config(self, key_log: bool) -> Result<rustls::ClientConfig, rustls::Error> {
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let mut config = match self {
            Trust::Pinned(fingerprint) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pin { fingerprint, provider: provider() }))
                .with_no_client_auth(),
            Trust::System => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                builder.with_root_certificates(roots).with_no_client_auth()
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_early_data = true;
        if key_log {
            config.key_log = Arc::new(rustls::KeyLogFile::new());
        }
        Ok(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Accepts exactly one certificate. Signatures are checked as always: the peer must hold its key.
#[derive(Debug)]
struct Pin {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Fingerprint::of(end_entity) == self.fingerprint {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_read_back_and_refuse_everything_else() {
        let fingerprint = Identity::ephemeral().unwrap().fingerprint();
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        for bad in ["", "abc", &"g".repeat(64), &"a".repeat(63), &"ä".repeat(32)] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintError), "{bad:?}");
        }
    }

    #[test]
    fn the_development_certificate_stays_the_same_and_its_key_private() {
        let directory = std::env::temp_dir().join(format!("parlor-tls-test-{}", std::process::id()));
        let first = Identity::development(&directory).unwrap().fingerprint();
        let second = Identity::development(&directory).unwrap().fingerprint();
        assert_eq!(first, second);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(directory.join(KEY_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        fs::write(directory.join(KEY_FILE), "not a key").unwrap();
        assert!(Identity::development(&directory).unwrap_err().to_string().contains("private key"));
        fs::remove_dir_all(directory).unwrap();
    }
}
