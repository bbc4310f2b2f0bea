//! The signatures of tokens, made and checked by ring, for `jsonwebtoken`, which leaves that to others.
//!
//! Its own backends would bring a second set of cryptography into the build. Three algorithms are enough:
//! a secret that the relay shares with the app's server, and the two kinds of key pair in common use.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, Result};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature as sign;
use ring::{hmac, signature::UnparsedPublicKey};

static RING: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // For JSON Web Keys, which nobody here uses.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes `jsonwebtoken` use ring. A process that chose something else for it before keeps that.
pub(super) fn install() {
    _ = RING.install_default();
}

/// A key of any algorithm, at work.
enum Ring {
    Hmac(hmac::Key),
    Ed(sign::Ed25519KeyPair),
    Ec(Box<sign::EcdsaKeyPair>),
    Public(Algorithm, UnparsedPublicKey<Vec<u8>>),
}

fn mismatch<T>() -> Result<T> {
    Err(Error::from(ErrorKind::InvalidAlgorithm))
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    let bytes = key.as_bytes();
    Ok(Box::new(match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Ring::Hmac(hmac::Key::new(hmac::HMAC_SHA256, bytes)),
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => {
            Ring::Ed(ed25519(bytes).ok_or(ErrorKind::InvalidEddsaKey)?)
        }
        (Algorithm::ES256, AlgorithmFamily::Ec) => {
            Ring::Ec(Box::new(p256(bytes).ok_or(ErrorKind::InvalidEcdsaKey)?))
        }
        _ => return mismatch(),
    }))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let bytes = key.try_get_as_bytes()?;
    let public = |by: &'static dyn sign::VerificationAlgorithm| {
        Ring::Public(*algorithm, UnparsedPublicKey::new(by, bytes.to_vec()))
    };
    Ok(Box::new(match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Ring::Hmac(hmac::Key::new(hmac::HMAC_SHA256, bytes)),
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => public(&sign::ED25519),
        (Algorithm::ES256, AlgorithmFamily::Ec) => public(&sign::ECDSA_P256_SHA256_FIXED),
        _ => return mismatch(),
    }))
}

/// An Ed25519 private key in PKCS #8, with its public key or without.
pub(super) fn ed25519(pkcs8: &[u8]) -> Option<sign::Ed25519KeyPair> {
    sign::Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()
}

/// A P-256 private key in PKCS #8.
pub(super) fn p256(pkcs8: &[u8]) -> Option<sign::EcdsaKeyPair> {
    sign::EcdsaKeyPair::from_pkcs8(&sign::ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new()).ok()
}

impl Ring {
    fn algorithm(&self) -> Algorithm {
        match self {
            Ring::Hmac(_) => Algorithm::HS256,
            Ring::Ed(_) => Algorithm::EdDSA,
            Ring::Ec(_) => Algorithm::ES256,
            Ring::Public(algorithm, _) => *algorithm,
        }
    }
}

impl JwtSigner for Ring {
    fn algorithm(&self) -> Algorithm {
        Ring::algorithm(self)
    }
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Algorithm {
        Ring::algorithm(self)
    }
}

impl Signer<Vec<u8>> for Ring {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, signature::Error> {
        match self {
            Ring::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Ring::Ed(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Ring::Ec(pair) => {
                let signed = pair.sign(&SystemRandom::new(), message);
                signed.map(|signed| signed.as_ref().to_vec()).map_err(|_| signature::Error::new())
            }
            Ring::Public(..) => Err(signature::Error::new()),
        }
    }
}

impl Verifier<Vec<u8>> for Ring {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        let verified = match self {
            Ring::Hmac(key) => hmac::verify(key, message, signed),
            Ring::Public(_, key) => key.verify(message, signed),
            // Private keys sign.
            Ring::Ed(_) | Ring::Ec(_) => Err(ring::error::Unspecified),
        };
        verified.map_err(|_| signature::Error::new())
    }
}
