//! Who may do what: an app's keys, the token that a user shows, and what follows from it.
//!
//! A machine without state: the date comes in as an argument. What the lobby does with the answer, and when
//! it asks again, is its own business.

use std::collections::BTreeSet;
use std::fmt;

use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::{AppId, RoomId, StreamId, UserId};
use parlor_transport::token::Token;
use parlor_transport::token::claims::Claims;
use parlor_transport::token::keys::{self, VerifyError, VerifyingKey};
use parlor_transport::units::UnixTime;

use crate::limits::{CLOCK_SKEW_MAX, KEYS_PER_APP_MAX};

/// An app: its name, and who may join its rooms.
///
/// ```
/// use parlor_relay::auth::App;
/// use parlor_transport::token::keys::VerifyingKey;
///
/// let key = VerifyingKey::from_secret("only-the-apps-server-and-the-relay-know-this")?;
/// let shop = App::with_keys("shop".parse()?, vec![key])?;
/// assert!(!shop.is_open());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct App {
    id: AppId,
    /// Empty for an open app.
    keys: Vec<VerifyingKey>,
}

/// Keys that will not do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppError {
    /// None.
    #[error("app {0:?} has no keys, so nobody could join; make one with `parlor app create`")]
    NoKey(AppId),
    /// More than are tried.
    #[error(
        "app {0:?} has {1} keys, but at most {KEYS_PER_APP_MAX} are tried; take out those that sign no more"
    )]
    TooManyKeys(AppId, usize),
    /// Two of one name.
    #[error("app {0:?} has two keys with the kid {1:?}; give each its own")]
    SameKey(AppId, String),
}

impl App {
    /// An app whose rooms anyone may join, for development.
    pub fn open(id: AppId) -> Self {
        App { id, keys: Vec::new() }
    }

    /// An app whose rooms those may join who show a token that one of `keys` vouches for. Several keys let
    /// the app's server go from one to the next.
    ///
    /// # Errors
    /// [`AppError`] when there are none, too many or two of one name.
    pub fn with_keys(id: AppId, keys: Vec<VerifyingKey>) -> Result<Self, AppError> {
        if keys.is_empty() {
            return Err(AppError::NoKey(id));
        }
        if keys.len() > KEYS_PER_APP_MAX {
            return Err(AppError::TooManyKeys(id, keys.len()));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = keys.iter().filter_map(|key| key.id()).find(|id| !names.insert(id.as_str())) {
            return Err(AppError::SameKey(id, twice.as_str().to_owned()));
        }
        Ok(App { id, keys })
    }

    /// Its name.
    pub fn id(&self) -> &AppId {
        &self.id
    }

    /// Whether anyone may join.
    pub fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    /// What `user` may do in `room` at `date`, having shown `token`. An open app does not look at it.
    ///
    /// # Errors
    /// Why not, with one of the codes 1024 to 1029.
    pub fn admit(
        &self,
        date: UnixTime,
        token: Option<&Token>,
        room: &RoomId,
        user: &UserId,
    ) -> Result<Grants, Refusal> {
        if self.is_open() {
            return Ok(Grants { claims: None });
        }
        let Some(token) = token else {
            let text = format!(
                "app {:?} asks for a token; get one from the app's server and join with it \
                 (`parlor token create` makes one by hand)",
                self.id
            );
            return Err(Refusal::new(Code::TokenMissing, text));
        };
        let claims = self.verify(date, token)?;
        let other = |what: &str, said: &dyn fmt::Debug, asked: &dyn fmt::Debug| {
            let text =
                format!("the token is for {what} {said:?}, not for {asked:?}; get one for this {what}");
            Err(Refusal::new(Code::TokenForOther, text))
        };
        if claims.app.0 != self.id {
            return other("app", &claims.app.0, &self.id);
        }
        if claims.user.0 != *user {
            return other("user", &claims.user.0, user);
        }
        if !claims.is_for_room(room) {
            return other("room", &claims.room.as_str(), room);
        }
        if !claims.join {
            return Err(Refusal::from(Code::JoinForbidden));
        }
        Ok(Grants { claims: Some(claims) })
    }

    /// What the token says, if one of the keys vouches for it and `date` is within its time.
    fn verify(&self, date: UnixTime, token: &Token) -> Result<Claims, Refusal> {
        let invalid = |why: &dyn fmt::Display| {
            let text =
                format!("the token is not valid: {why}; get a new one that a key of app {:?} signs", self.id);
            Refusal::new(Code::TokenInvalid, text)
        };
        let head = keys::head(token).map_err(|error| invalid(&error))?;
        let is_named = |key: &&VerifyingKey| key.id().map(|id| id.as_str()) == head.key.as_deref();
        // The key that it names; else those without a name; if it names none, all. Each is for one algorithm only.
        let candidates: Vec<_> = match &head.key {
            Some(_) if self.keys.iter().any(|key| is_named(&key)) => {
                self.keys.iter().filter(is_named).collect()
            }
            Some(_) => self.keys.iter().filter(|key| key.id().is_none()).collect(),
            None => self.keys.iter().filter(|key| head.algorithm == Some(key.algorithm())).collect(),
        };
        let mut last = match (&head.key, head.algorithm) {
            (Some(name), _) if candidates.is_empty() => {
                let name: String = name.chars().take(keys::KEY_ID_MAX).collect();
                invalid(&format!("the app has no key with the kid {name:?}"))
            }
            _ => invalid(&"it is signed in a way that none of the app's keys is for"),
        };
        for key in candidates {
            match key.verify(token) {
                Ok(claims) => return check_dates(date, claims),
                // The signature is right: no other key will say anything else.
                Err(error @ VerifyError::Claims(_)) => return Err(invalid(&error)),
                Err(error) => last = invalid(&error),
            }
        }
        Err(last)
    }
}

fn check_dates(date: UnixTime, claims: Claims) -> Result<Claims, Refusal> {
    let expires = claims.exp.0;
    if date >= expires {
        let ago = date.saturating_since(expires).as_secs();
        let text = format!("the token expired {ago} s ago; get a new one from the app's server");
        return Err(Refusal::new(Code::TokenExpired, text));
    }
    // Who makes tokens may have a clock that is a little ahead.
    let early =
        claims.nbf.map(|begins| begins.0.saturating_since(date)).filter(|&early| early > CLOCK_SKEW_MAX);
    if let Some(early) = early {
        let text = format!(
            "the token is valid only in {} s; wait until then, or check the clocks of the app's server and the relay",
            early.as_secs()
        );
        return Err(Refusal::new(Code::TokenNotYetValid, text));
    }
    Ok(claims)
}

/// What a user may do, from a token or because the app is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grants {
    claims: Option<Claims>,
}

impl Grants {
    /// When they end; never in an open app.
    pub fn expires(&self) -> Option<UnixTime> {
        self.claims.as_ref().map(|claims| claims.exp.0)
    }

    /// Whether the user may moderate the room. In an open app nobody may.
    pub fn may_moderate(&self) -> bool {
        self.claims.as_ref().is_some_and(|claims| claims.moderate)
    }

    /// Whether the user may publish `stream`.
    ///
    /// # Errors
    /// [`Code::PublishForbidden`] or [`Code::StreamNotAllowed`].
    pub fn check_publish(&self, stream: &StreamId) -> Result<(), Refusal> {
        let Some(claims) = &self.claims else { return Ok(()) };
        if !claims.publish {
            let text = format!(
                "stream {stream:?} cannot be published: the token does not let user {:?} publish; \
                 get one that does and renew",
                claims.user.0
            );
            return Err(Refusal::new(Code::PublishForbidden, text));
        }
        if !claims.allows_stream(stream) {
            let allowed = claims.streams.iter().flatten().map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
            let allowed: String = allowed.chars().take(200).collect();
            let text = format!(
                "the token does not allow stream {stream:?}, but {allowed:?}; choose one of these, \
                 or get another token and renew"
            );
            return Err(Refusal::new(Code::StreamNotAllowed, text));
        }
        Ok(())
    }
}

pub mod resume;

#[cfg(test)]
mod tests;
