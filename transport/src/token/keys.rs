//! Who vouches for a token: keys that sign and keys that verify, and the two acts themselves.
//!
//! A key belongs to one algorithm, and only that one is tried with it, whatever a token says of itself.
//! Secrets show themselves in no `Debug` output and in no error.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use rcgen::KeyPair;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::KeyPair as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use super::claims::Claims;
use super::{Token, provider};

/// The fewest bytes of a secret: as many as the hash has (RFC 7518, section 3.2).
pub const SECRET_BYTES_MIN: usize = 32;
/// The most bytes of a secret: more add nothing.
pub const SECRET_BYTES_MAX: usize = 1024;
/// The most bytes of a key's id.
pub const KEY_ID_MAX: usize = 64;

/// How tokens are signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// HMAC with SHA-256: a secret that relay and app's server share.
    Hs256,
    /// Ed25519: the app's server has the private key, the relay the public one.
    EdDsa,
    /// ECDSA with P-256 and SHA-256: as [`Algorithm::EdDsa`].
    Es256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 3] = [Algorithm::Hs256, Algorithm::EdDsa, Algorithm::Es256];

    /// Its name in tokens.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Es256 => "ES256",
        }
    }

    const fn of(other: jsonwebtoken::Algorithm) -> Option<Self> {
        match other {
            jsonwebtoken::Algorithm::HS256 => Some(Algorithm::Hs256),
            jsonwebtoken::Algorithm::EdDSA => Some(Algorithm::EdDsa),
            jsonwebtoken::Algorithm::ES256 => Some(Algorithm::Es256),
            _ => None,
        }
    }

    const fn as_jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let found = Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| KeyError::Algorithm(text.chars().take(32).collect()))
    }
}

/// A key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not an algorithm that is spoken here.
    #[error("{0:?} is not an algorithm for tokens; choose HS256, EdDSA or ES256")]
    Algorithm(String),
    /// A secret of the wrong length.
    #[error(
        "the secret has {0} bytes; give {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}, \
         best a fresh one from `parlor app create`"
    )]
    SecretLength(usize),
    /// A secret where a key pair belongs, or the other way round.
    #[error("{0} {1}")]
    Kind(Algorithm, &'static str),
    /// Not the public key that the algorithm needs.
    #[error("it is not a public key for {0}: a PEM file with BEGIN PUBLIC KEY ({1}) is needed")]
    Public(Algorithm, &'static str),
    /// Not the private key that the algorithm needs.
    #[error(
        "it is not a private key for {0}: a PEM file with BEGIN PRIVATE KEY ({1}) is needed; \
         `openssl pkcs8 -topk8 -nocrypt` makes one of other forms"
    )]
    Private(Algorithm, &'static str),
    /// Not a key id.
    #[error("a key id (kid) has 1 to {KEY_ID_MAX} bytes of printable ASCII")]
    Id,
    /// The system gave no randomness.
    #[error("the system gave no randomness for a new key; try again")]
    Randomness,
}

/// The kind of PEM's content that an algorithm needs, in words.
const fn curve(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Hs256 => "none",
        Algorithm::EdDsa => "Ed25519",
        Algorithm::Es256 => "P-256, not compressed",
    }
}

/// Names one of an app's keys: `kid` in a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyId(String);

impl KeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let is_good = (1..=KEY_ID_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if is_good { Ok(KeyId(text.to_owned())) } else { Err(KeyError::Id) }
    }
}

/// A key that tells whether a token was signed by its owner.
#[derive(Clone)]
pub struct VerifyingKey {
    id: Option<KeyId>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// A key that signs tokens.
#[derive(Clone)]
pub struct SigningKey {
    id: Option<KeyId>,
    algorithm: Algorithm,
    key: EncodingKey,
}

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The signature is not this key's.
    #[error("its signature is not of this key")]
    Signature,
    /// It is signed in another way than the key is for.
    #[error("it is not signed with {0}, which the key is for")]
    Algorithm(Algorithm),
    /// It has a header that has to be understood and is not.
    #[error("its header asks for extensions (crit), of which none is known")]
    Critical,
    /// The signature is right, but what it says is not.
    #[error("what it says cannot be used: {0}")]
    Claims(String),
    /// It is not a token.
    #[error("it is not a JSON Web Token: {0}")]
    Form(String),
}

/// What a token says of how it is signed; nobody has vouched for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The algorithm it claims; `None` for those that are not spoken here.
    pub algorithm: Option<Algorithm>,
    /// The key it names.
    pub key: Option<String>,
}

/// Reads a token's header without believing it.
///
/// # Errors
/// [`VerifyError::Form`] when there is none, or its algorithm is none that signs.
pub fn head(token: &Token) -> Result<Head, VerifyError> {
    let header = jsonwebtoken::decode_header(token.as_str()).map_err(|error| form(&error))?;
    if header.crit.is_some() {
        return Err(VerifyError::Critical);
    }
    Ok(Head { algorithm: Algorithm::of(header.alg), key: header.kid })
}

/// Reads what a token says without believing it: for people who look into one.
///
/// # Errors
/// [`VerifyError::Form`] or [`VerifyError::Claims`].
pub fn inspect(token: &Token) -> Result<Claims, VerifyError> {
    let claims = jsonwebtoken::dangerous::insecure_decode_claims::<Claims>(token.as_str());
    let claims = claims.map_err(|error| match error.kind() {
        ErrorKind::Json(error) => VerifyError::Claims(error.to_string()),
        _ => form(&error),
    })?;
    claims.check().map_err(VerifyError::Claims)?;
    Ok(claims)
}

fn form(error: &jsonwebtoken::errors::Error) -> VerifyError {
    let text = match error.kind() {
        ErrorKind::InvalidToken => "it has not three parts with dots between".to_owned(),
        ErrorKind::Json(error) => format!("its header cannot be read ({error})"),
        _ => "its parts are not in base64url".to_owned(),
    };
    VerifyError::Form(text)
}

impl VerifyingKey {
    /// The secret that the app's server signs with ([`Algorithm::Hs256`]): these bytes as they are.
    ///
    /// # Errors
    /// [`KeyError::SecretLength`].
    pub fn from_secret(secret: &str) -> Result<Self, KeyError> {
        let bytes = check_secret(secret)?;
        Ok(Self::new(Algorithm::Hs256, DecodingKey::from_secret(bytes)))
    }

    /// The public key to the private one that the app's server signs with: PEM, `BEGIN PUBLIC KEY`.
    ///
    /// # Errors
    /// [`KeyError`] when it is none of that algorithm.
    pub fn from_public_pem(algorithm: Algorithm, pem: &str) -> Result<Self, KeyError> {
        let prefix: &[u8] = match algorithm {
            Algorithm::Hs256 => return Err(KeyError::Kind(algorithm, "needs a secret, not a public key")),
            Algorithm::EdDsa => &ED25519_PREFIX,
            Algorithm::Es256 => &P256_PREFIX,
        };
        let wrong = || KeyError::Public(algorithm, curve(algorithm));
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong())?;
        // The one way to write each of these keys, so that nothing has to be parsed.
        let raw = der.strip_prefix(prefix).ok_or_else(wrong)?;
        let key = match (algorithm, raw.len()) {
            (Algorithm::EdDsa, 32) => DecodingKey::from_ed_der(raw),
            (Algorithm::Es256, 65) => DecodingKey::from_ec_der(raw),
            _ => return Err(wrong()),
        };
        Ok(Self::new(algorithm, key))
    }

    fn new(algorithm: Algorithm, key: DecodingKey) -> Self {
        provider::install();
        VerifyingKey { id: None, algorithm, key }
    }

    /// The key under a name.
    #[must_use]
    pub fn named(mut self, id: Option<KeyId>) -> Self {
        self.id = id;
        self
    }

    /// Its name, if it has one.
    pub fn id(&self) -> Option<&KeyId> {
        self.id.as_ref()
    }

    /// The one algorithm that it is for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What the token says, if the owner of this key signed it. Dates are not looked at.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(&self, token: &Token) -> Result<Claims, VerifyError> {
        if head(token)?.algorithm != Some(self.algorithm) {
            return Err(VerifyError::Algorithm(self.algorithm));
        }
        let mut validation = Validation::new(self.algorithm.as_jwt());
        validation.set_required_spec_claims::<&str>(&[]);
        // Dates are compared where the date is known; the crate would ask the system.
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let decoded = jsonwebtoken::decode::<Claims>(token.as_str(), &self.key, &validation);
        let claims = decoded.map_err(|error| match error.kind() {
            ErrorKind::Json(error) => VerifyError::Claims(error.to_string()),
            ErrorKind::Base64(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidToken => form(&error),
            _ => VerifyError::Signature,
        })?;
        claims.claims.check().map_err(VerifyError::Claims)?;
        Ok(claims.claims)
    }
}

/// The DER of an Ed25519 public key up to its 32 bytes (RFC 8410).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The DER of an uncompressed P-256 public key up to its 65 bytes (RFC 5480).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

fn check_secret(secret: &str) -> Result<&[u8], KeyError> {
    match secret.len() {
        SECRET_BYTES_MIN..=SECRET_BYTES_MAX => Ok(secret.as_bytes()),
        bytes => Err(KeyError::SecretLength(bytes)),
    }
}

impl SigningKey {
    /// Signs with a secret ([`Algorithm::Hs256`]): these bytes as they are.
    ///
    /// # Errors
    /// [`KeyError::SecretLength`].
    pub fn from_secret(secret: &str) -> Result<Self, KeyError> {
        let bytes = check_secret(secret)?;
        Ok(Self::new(Algorithm::Hs256, EncodingKey::from_secret(bytes)))
    }

    /// Signs with a private key: PEM, `BEGIN PRIVATE KEY`. Which algorithm it is for is found out.
    ///
    /// # Errors
    /// [`KeyError::Private`].
    pub fn from_private_pem(pem: &str) -> Result<Self, KeyError> {
        let wrong = || KeyError::Private(Algorithm::EdDsa, "Ed25519, or P-256 for ES256");
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong())?;
        let der = der.secret_pkcs8_der();
        if provider::ed25519(der).is_some() {
            Ok(Self::new(Algorithm::EdDsa, EncodingKey::from_ed_der(der)))
        } else if provider::p256(der).is_some() {
            Ok(Self::new(Algorithm::Es256, EncodingKey::from_ec_der(der)))
        } else {
            Err(wrong())
        }
    }

    fn new(algorithm: Algorithm, key: EncodingKey) -> Self {
        provider::install();
        SigningKey { id: None, algorithm, key }
    }

    /// The key under a name, which its tokens will bear.
    #[must_use]
    pub fn named(mut self, id: Option<KeyId>) -> Self {
        self.id = id;
        self
    }

    /// The one algorithm that it is for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key that verifies what this one signs.
    ///
    /// # Errors
    /// [`KeyError::Private`] for a private key that is none.
    pub fn verifying_key(&self) -> Result<VerifyingKey, KeyError> {
        let bytes = self.key.as_bytes();
        let wrong = || KeyError::Private(self.algorithm, curve(self.algorithm));
        let key = match self.algorithm {
            Algorithm::Hs256 => DecodingKey::from_secret(bytes),
            Algorithm::EdDsa => {
                DecodingKey::from_ed_der(provider::ed25519(bytes).ok_or_else(wrong)?.public_key().as_ref())
            }
            Algorithm::Es256 => {
                DecodingKey::from_ec_der(provider::p256(bytes).ok_or_else(wrong)?.public_key().as_ref())
            }
        };
        Ok(VerifyingKey::new(self.algorithm, key).named(self.id.clone()))
    }

    /// A token that says `claims`.
    ///
    /// # Errors
    /// What is wrong, in words: too many streams, or more than fits into a token.
    pub fn sign(&self, claims: &Claims) -> Result<Token, String> {
        claims.check()?;
        let mut header = Header::new(self.algorithm.as_jwt());
        header.kid = self.id.as_ref().map(|id| id.as_str().to_owned());
        let text = jsonwebtoken::encode(&header, claims, &self.key).map_err(|error| error.to_string())?;
        Token::new(text).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VerifyingKey { id, algorithm, .. } = self;
        f.debug_struct("VerifyingKey").field("id", id).field("algorithm", algorithm).finish_non_exhaustive()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SigningKey { id, algorithm, .. } = self;
        f.debug_struct("SigningKey").field("id", id).field("algorithm", algorithm).finish_non_exhaustive()
    }
}

/// A new key as text, for files.
pub enum NewKey {
    /// [`Algorithm::Hs256`].
    Secret(String),
    /// A key pair in PEM.
    Pair {
        /// For the app's server alone.
        private: String,
        /// For the relay.
        public: String,
    },
}

impl NewKey {
    /// A fresh key for `algorithm`.
    ///
    /// # Errors
    /// [`KeyError::Randomness`].
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let pair = |kind: &'static rcgen::SignatureAlgorithm| {
            let pair = KeyPair::generate_for(kind).map_err(|_| KeyError::Randomness)?;
            Ok(NewKey::Pair { private: pair.serialize_pem(), public: pair.public_key_pem() })
        };
        match algorithm {
            Algorithm::EdDsa => pair(&rcgen::PKCS_ED25519),
            Algorithm::Es256 => pair(&rcgen::PKCS_ECDSA_P256_SHA256),
            Algorithm::Hs256 => {
                let mut bytes = [0; SECRET_BYTES_MIN];
                SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Randomness)?;
                Ok(NewKey::Secret(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
            }
        }
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewKey(..)")
    }
}

#[cfg(test)]
mod tests;
