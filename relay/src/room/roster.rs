//! Who is in a room. Changes only through `Room`.

use std::collections::BTreeMap;

use parlor_transport::id::{SessionId, UserId, UserName};
use parlor_transport::wire::control::UserInfo;

/// The users of one room, in the order of their ids.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Roster {
    members: BTreeMap<UserId, Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    session: SessionId,
    name: UserName,
}

impl Roster {
    /// How many users are in the room.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The stay of `user`, if they are here.
    pub fn session(&self, user: &UserId) -> Option<SessionId> {
        self.members.get(user).map(|member| member.session)
    }

    /// The stays of everyone, in the order of their users.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.members.values().map(|member| member.session)
    }

    /// Everyone, as everyone sees them.
    pub fn iter(&self) -> impl Iterator<Item = UserInfo> + '_ {
        self.members.iter().map(|(user, member)| UserInfo { user: user.clone(), name: member.name.clone() })
    }

    /// Adds a user; false if they are here already.
    pub(super) fn add(&mut self, session: SessionId, user: UserInfo) -> bool {
        if self.members.contains_key(&user.user) {
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
