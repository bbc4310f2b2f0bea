//! What stands in a token: who may do what, where and until when. Values only; who vouches for them is the
//! business of [`keys`](super::keys), and what follows from them the relay's.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{AppId, RoomId, StreamId, UserId};
use crate::units::UnixTime;

/// The most stream patterns of one token: bounds what the stream of a publish request is compared with.
pub const STREAMS_MAX: usize = 64;

/// What the app's server says of a user. In a token they are JSON members of the same names.
///
/// ```
/// use parlor_transport::token::claims::Claims;
/// use parlor_transport::units::UnixTime;
///
/// let until = UnixTime::from_secs(2_000_000_000);
/// let mut claims = Claims::new("shop".parse()?, "ann".parse()?, "sales-*".parse()?, until);
/// claims.publish = true;
/// claims.streams = Some(vec!["ann-*".parse()?]);
/// assert!(claims.room.matches("sales-7") && claims.allows_stream(&"ann-cam".parse()?));
/// assert!(!claims.allows_stream(&"bob-cam".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// The app.
    pub app: Name<AppId>,
    /// The user.
    pub user: Name<UserId>,
    /// The room, or a pattern for several.
    pub room: Pattern,
    /// Whether the user may join; yes if it does not say.
    #[serde(default = "yes")]
    pub join: bool,
    /// Whether the user may publish; no if it does not say.
    #[serde(default)]
    pub publish: bool,
    /// Whether the user may moderate; no if it does not say.
    #[serde(default)]
    pub moderate: bool,
    /// Patterns of the stream ids that the user may publish; any if it does not say, none if it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<Vec<Pattern>>,
    /// From when on the token counts; at once if it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<Date>,
    /// When the token expires: from then on it does not count.
    pub exp: Date,
}

fn yes() -> bool {
    true
}

impl Claims {
    /// `user` may join `room` of `app` until `expires`, and do nothing there but play.
    pub fn new(app: AppId, user: UserId, room: Pattern, expires: UnixTime) -> Self {
        Claims {
            app: Name(app),
            user: Name(user),
            room,
            join: true,
            publish: false,
            moderate: false,
            streams: None,
            nbf: None,
            exp: Date::from(expires),
        }
    }

    /// Whether lists keep their bounds.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        match self.streams.as_ref().map_or(0, Vec::len) {
            many if many > STREAMS_MAX => Err(format!("it lists {many} streams, more than {STREAMS_MAX}")),
            _ => Ok(()),
        }
    }

    /// Whether it is for this room.
    pub fn is_for_room(&self, room: &RoomId) -> bool {
        self.room.matches(room.as_str())
    }

    /// Whether it lists this stream, or does not list any.
    pub fn allows_stream(&self, stream: &StreamId) -> bool {
        self.streams.as_ref().is_none_or(|streams| streams.iter().any(|s| s.matches(stream.as_str())))
    }
}

/// An identifier as a JSON text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name<T>(pub T);

impl<T: AsRef<str>> Serialize for Name<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_ref())
    }
}

impl<'de, T: std::str::FromStr<Err: fmt::Display>> Deserialize<'de> for Name<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Name).map_err(serde::de::Error::custom)
    }
}

/// A date in whole seconds, as JSON Web Tokens have it. Fractions are read and dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Date(pub UnixTime);

impl From<UnixTime> for Date {
    fn from(time: UnixTime) -> Self {
        Date(UnixTime::from_secs(time.as_secs()))
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.as_secs())
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Date;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a date in seconds since 1970")
            }
            fn visit_u64<E>(self, seconds: u64) -> Result<Date, E> {
                // The last date there is is no whole second.
                Ok(UnixTime::from_secs(seconds).into())
            }
            fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<Date, E> {
                if seconds.is_finite() && seconds >= 0.0 {
                    // Saturates at the last date there is.
                    return self.visit_u64(seconds as u64);
                }
                Err(E::invalid_value(serde::de::Unexpected::Float(seconds), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A name, or a pattern of names in which every `*` stands for any characters, none included.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(transparent)]
pub struct Pattern(String);

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has 1 to {max} characters of printable ASCII without spaces", max = Pattern::BYTES_MAX)]
pub struct PatternError(());

impl Pattern {
    /// The most bytes: as many as the longest name has.
    pub const BYTES_MAX: usize = 256;

    /// Whether `name` is one that the pattern describes.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut p) = (0, 0);
        // Where to go on when what follows the last `*` does not fit: it takes one more byte.
        let mut last: Option<(usize, usize)> = None;
        while at < name.len() {
            match (pattern.get(p), last) {
                (Some(b'*'), _) => {
                    p += 1;
                    last = Some((p, at));
                }
                (Some(&byte), _) if byte == name[at] => (p, at) = (p + 1, at + 1),
                (_, Some((after, taken))) => {
                    (p, at) = (after, taken + 1);
                    last = Some((after, at));
                }
                (_, None) => return false,
            }
        }
        pattern[p..].iter().all(|&byte| byte == b'*')
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        // What all names have in common; a pattern of anything else could not match one.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        match text.len() {
            1..=Self::BYTES_MAX if is_plain => Ok(Pattern(text.to_owned())),
            _ => Err(PatternError(())),
        }
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, good, bad) in [
            ("standup", &["standup"][..], &["standup2", "stand", "a-standup", ""][..]),
            ("*", &["", "a", "***"], &[]),
            ("a*", &["a", "ab", "aab"], &["ba", ""]),
            ("*-cam", &["ann-cam", "-cam", "a-cam-cam"], &["ann-cam2", "cam"]),
            ("a*b*c", &["abc", "a-b-c", "abbcbc"], &["acb", "ab", "abcd"]),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            assert!(good.iter().all(|name| pattern.matches(name)), "{pattern}");
            assert!(!bad.iter().any(|name| pattern.matches(name)), "{pattern}");
        }
        for bad in ["", "a b", "\u{1b}[2J", "ä", &"x".repeat(257)] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_a_token_does_not_say_is_not_granted() {
        let least = r#"{"app":"shop","user":"ann","room":"r","exp":9,"iat":1,"other":{"x":[1]}}"#;
        let claims: Claims = serde_json::from_str(least).unwrap();
        let expected = Claims::new(
            AppId::new("shop").unwrap(),
            UserId::new("ann").unwrap(),
            "r".parse().unwrap(),
            UnixTime::from_secs(9),
        );
        assert_eq!(claims, expected);
        assert!(claims.join && !claims.publish && !claims.moderate);
        let written = serde_json::to_string(&claims).unwrap();
        assert_eq!(serde_json::from_str::<Claims>(&written).unwrap(), claims);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let read = |json: &str| serde_json::from_str::<Claims>(json).map_err(|error| error.to_string());
        for (json, why) in [
            (r#"{"app":"shop","user":"ann","room":"r"}"#, "missing field `exp`"),
            (r#"{"app":"sh op","user":"ann","room":"r","exp":1}"#, "app id holds ' '"),
            (r#"{"app":"shop","user":7,"room":"r","exp":1}"#, "expected a string"),
            (r#"{"app":"shop","user":"ann","room":"","exp":1}"#, "a pattern has 1 to 256 characters"),
            (r#"{"app":"shop","user":"ann","room":"r","exp":"9999999999"}"#, "a date in seconds"),
            (r#"{"app":"shop","user":"ann","room":"r","exp":-1}"#, "a date in seconds"),
            (r#"{"app":"shop","user":"ann","room":"r","exp":1,"nbf":"soon"}"#, "a date in seconds"),
            (r#"{"app":"shop","user":"ann","room":"r","exp":1,"exp":9}"#, "duplicate field"),
            (r#"{"app":"shop","user":"ann","room":"r","exp":1,"publish":"yes"}"#, "expected a boolean"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(why), "{json}: {error}");
        }
        let half = read(r#"{"app":"shop","user":"ann","room":"r","exp":1.5}"#).unwrap();
        assert_eq!(half.exp.0, UnixTime::from_secs(1));
        for last in ["18446744073709551615", "1e300"] {
            let far = read(&format!(r#"{{"app":"a","user":"u","room":"r","exp":{last}}}"#)).unwrap();
            assert_eq!(read(&serde_json::to_string(&far).unwrap()), Ok(far));
        }
    }

    proptest! {
        /// The same as the plain recursive meaning.
        #[test]
        fn patterns_mean_what_they_say(pattern in "[ab*]{1,8}", name in "[ab]{0,8}") {
            fn meant(pattern: &[u8], name: &[u8]) -> bool {
                match pattern.split_first() {
                    None => name.is_empty(),
                    Some((b'*', rest)) => (0..=name.len()).any(|skip| meant(rest, &name[skip..])),
                    Some((byte, rest)) => name.first() == Some(byte) && meant(rest, &name[1..]),
                }
            }
            let parsed: Pattern = pattern.parse().unwrap();
            prop_assert_eq!(parsed.matches(&name), meant(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
