//! What people type or paste: addresses, identifiers, fingerprints. And times that peers chose.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use parlor_transport::address::RelayAddress;
use parlor_transport::error::{Code, Coded};
use parlor_transport::id::{AppId, IdError, RoomId, StreamId, UserId, UserName};
use parlor_transport::quic::tls::Fingerprint;
use parlor_transport::units::Timestamp;

/// An address that is understood means the same when it is printed and pasted.
pub(super) fn addresses(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    match text.parse::<RelayAddress>() {
        Ok(address) => {
            assert!(address.port != 0 && !address.host.is_empty());
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        Err(error) => {
            assert!(matches!(error.code(), Code::BadAddress | Code::BadId));
            assert!(error.to_string().len() < 16 * 1024, "an error message is not a copy of the input");
        }
    }
}

/// Every identifier against its rule, which stands here a second time in other words.
pub(super) fn ids(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let word = |c: char| matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_');
    let plain = |c: char| ('!'..='~').contains(&c) && !"/?#%\\\"".contains(c);
    id::<AppId>(text, 1..=64, word);
    id::<RoomId>(text, 1..=128, plain);
    id::<UserId>(text, 1..=64, plain);
    id::<UserName>(text, 0..=256, |c| !c.is_control());
    id::<StreamId>(text, 1..=256, word);
}

fn id<T: FromStr<Err = IdError> + Display>(
    text: &str,
    bytes: std::ops::RangeInclusive<usize>,
    allows: impl Fn(char) -> bool,
) {
    match text.parse::<T>() {
        Ok(id) => {
            assert!(bytes.contains(&text.len()) && text.chars().all(allows));
            assert_eq!(id.to_string(), text);
        }
        Err(error) => {
            assert!(!bytes.contains(&text.len()) || !text.chars().all(allows), "{error}");
            assert!(error.to_string().len() < 256);
        }
    }
}

/// A fingerprint is 64 hexadecimal digits and nothing else.
pub(super) fn fingerprints(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let right = text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
    let read = text.parse::<Fingerprint>();
    assert_eq!(read.is_ok(), right);
    if let Ok(fingerprint) = read {
        assert_eq!(fingerprint.to_string(), text.to_ascii_lowercase());
    }
}

/// Arithmetic on timestamps that peers chose: it saturates, and the two ways to ask for a difference agree.
pub(super) fn timestamps(input: &[u8]) {
    let Some((a, rest)) = input.split_first_chunk() else { return };
    let Some((b, rest)) = rest.split_first_chunk() else { return };
    let Some((offset, _)) = rest.split_first_chunk() else { return };
    let (a, b) =
        (Timestamp::from_micros(u64::from_be_bytes(*a)), Timestamp::from_micros(u64::from_be_bytes(*b)));
    let offset = i64::from_be_bytes(*offset);

    let forward = a.signed_since(b);
    assert_eq!(forward.is_positive(), a > b);
    assert_eq!(forward == 0, a == b);
    assert_eq!(b + a.saturating_since(b), a.max(b));
    assert_eq!(a - a.saturating_since(b), a.min(b));
    assert_eq!(a.offset_by(offset) >= a, offset >= 0 || a == Timestamp::ZERO);
    assert!(a + Duration::from_micros(offset.unsigned_abs()) >= a);
}
