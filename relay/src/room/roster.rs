//! Who is in a room. Changes only through `Room`.

use std::collections::BTreeMap;

use parlor_transport::id::{SessionId, UserId, UserName};
use parlor_transport::wire::control::UserInfo;

/// The users of one room, in the order of their ids.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Roster {
    members: BTreeMap<UserId, Member>,
    /// Users of whom nobody is told.
    unseen: BTreeMap<UserId, SessionId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    session: SessionId,
    name: UserName,
}

impl Roster {
    /// How many users are in the room, unseen ones left out.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.unseen.is_empty()
    }

    /// How many unseen users are in the room.
    pub fn unseen(&self) -> usize {
        self.unseen.len()
    }

    /// The stay of `user`, if they are here to be seen.
    pub fn session(&self, user: &UserId) -> Option<SessionId> {
        self.members.get(user).map(|member| member.session)
    }

    /// The stay of `user`, if they are here, to be seen or not: for operators, and for nobody who could tell.
    pub fn session_of_anyone(&self, user: &UserId) -> Option<SessionId> {
        self.session(user).or_else(|| self.unseen.get(user).copied())
    }

    /// `user` as everyone sees them, if they are here to be seen.
    pub fn user(&self, user: &UserId) -> Option<UserInfo> {
        self.members.get(user).map(|member| UserInfo { user: user.clone(), name: member.name.clone() })
    }

    /// The stays of everyone, unseen users last.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.members.values().map(|member| member.session).chain(self.unseen.values().copied())
    }

    /// Everyone, as everyone sees them.
    pub fn iter(&self) -> impl Iterator<Item = UserInfo> + '_ {
        self.members.iter().map(|(user, member)| UserInfo { user: user.clone(), name: member.name.clone() })
    }

    /// Adds an unseen user; false if they are here already.
    pub(super) fn add_unseen(&mut self, session: SessionId, user: UserId) -> bool {
        !self.members.contains_key(&user) && self.unseen.insert(user, session).is_none()
    }

    /// Takes an unseen user out; false if they are not here with this stay.
    pub(super) fn remove_unseen(&mut self, session: SessionId, user: &UserId) -> bool {
        self.unseen.get(user) == Some(&session) && self.unseen.remove(user).is_some()
    }

    /// Adds a user; false if they are here already.
    pub(super) fn add(&mut self, session: SessionId, user: UserInfo) -> bool {
        if self.members.contains_key(&user.user) || self.unseen.contains_key(&user.user) {
            return false;
        }
        self.members.insert(user.user, Member { session, name: user.name });
        true
    }

    /// Takes a user out; false if they are not here.
    pub(super) fn remove(&mut self, user: &UserId) -> bool {
        self.members.remove(user).is_some()
    }
}
