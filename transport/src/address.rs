//! Addresses to paste: `parlor://host:port/room#sha256=fingerprint`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Code, Coded};
use crate::id::{IdError, RoomId};
use crate::quic::tls::{Fingerprint, FingerprintError, Trust};

/// The port when an address names none.
pub const PORT_DEFAULT: u16 = 4433;

/// Where a relay is, which room is meant, and how its certificate is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayAddress {
    /// Host name, IPv4 or IPv6 address (without brackets).
    pub host: String,
    /// UDP port.
    pub port: u16,
    /// The room, if the address names one.
    pub room: Option<RoomId>,
    /// The certificate's fingerprint; without one the system's authorities decide.
    pub fingerprint: Option<Fingerprint>,
}

/// A text that is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not of the shape `parlor://host:port/room#sha256=…`.
    #[error("{text:?} is not an address: {why}; it looks like parlor://host:4433/room#sha256=…")]
    Shape {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The room is not a room id.
    #[error(transparent)]
    Room(#[from] IdError),
    /// What follows `sha256=` is not a fingerprint.
    #[error(transparent)]
    Fingerprint(#[from] FingerprintError),
}

impl Coded for AddressError {
    fn code(&self) -> Code {
        match self {
            AddressError::Room(error) => error.code(),
            AddressError::Shape { .. } | AddressError::Fingerprint(_) => Code::BadAddress,
        }
    }
}

impl RelayAddress {
    /// Which certificates to accept there.
    pub fn trust(&self) -> Trust {
        self.fingerprint.map_or(Trust::System, Trust::Pinned)
    }
}

impl FromStr for RelayAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let shape = |why| AddressError::Shape { text: text.chars().take(300).collect(), why };
        let rest = text.strip_prefix("parlor://").ok_or_else(|| shape("it does not begin with parlor://"))?;
        let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(rest, f)| (rest, Some(f)));
        let (authority, room) =
            rest.split_once('/').map_or((rest, ""), |(authority, room)| (authority, room));
        let (host, port) = if let Some(inside) = authority.strip_prefix('[') {
            let (host, after) = inside.split_once(']').ok_or_else(|| shape("a '[' without its ']'"))?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(shape("after ']' comes ':' and the port")),
            }
        } else {
            authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
        };
        if host.is_empty() {
            return Err(shape("the host is missing"));
        }
        if !host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':')) {
            return Err(shape("the host holds a character that no host name or address has"));
        }
        let port = match port {
            None => PORT_DEFAULT,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err(shape("the port is not a number from 1 to 65535")),
                Ok(port) => port,
            },
        };
        let fingerprint = match fragment {
            None | Some("") => None,
            Some(fragment) => {
                let digits =
                    fragment.strip_prefix("sha256=").ok_or_else(|| shape("after '#' comes sha256="))?;
                Some(digits.parse()?)
            }
        };
        let room = if room.is_empty() { None } else { Some(RoomId::new(room)?) };
        Ok(RelayAddress { host: host.to_owned(), port, room, fingerprint })
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "parlor://[{}]:{}", self.host, self.port)?;
        } else {
            write!(f, "parlor://{}:{}", self.host, self.port)?;
        }
        if let Some(room) = &self.room {
            write!(f, "/{room}")?;
        }
        if let Some(fingerprint) = self.fingerprint {
            write!(f, "#sha256={fingerprint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        let print = "ab".repeat(32);
        for text in [
            format!("parlor://127.0.0.1:4433/standup#sha256={print}"),
            "parlor://relay.example:9/r".to_owned(),
            "parlor://[::1]:4433/a,b;c=d".to_owned(),
            "parlor://host:4433".to_owned(),
        ] {
            assert_eq!(text.parse::<RelayAddress>().unwrap().to_string(), text);
        }
        assert_eq!("parlor://host/r".parse::<RelayAddress>().unwrap().port, PORT_DEFAULT);
    }

    #[test]
    fn what_is_no_address_is_told_why() {
        for (text, why) in [
            ("https://host/r", "begin with parlor://"),
            ("parlor://", "host is missing"),
            ("parlor://:1/r", "host is missing"),
            ("parlor://[[a]:1/r", "host holds"),
            ("parlor://a b/r", "host holds"),
            ("parlor://h:0/r", "port"),
            ("parlor://h:x/r", "port"),
            ("parlor://h:99999/r", "port"),
            ("parlor://[::1/r", "']'"),
            ("parlor://h/a/b", "room id holds '/'"),
            ("parlor://h/r#md5=1", "sha256="),
            ("parlor://h/r#sha256=12", "64 hexadecimal"),
        ] {
            let error = text.parse::<RelayAddress>().unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
    }
}
