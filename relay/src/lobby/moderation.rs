//! What moderators in a room and the relay's operator do to others: put users out, close rooms, end streams,
//! forbid to publish; and the end of the whole relay, announced.

use std::collections::BTreeMap;
use std::time::Duration;

use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::{AppId, RoomId, SessionId, StreamId, UserId};
use parlor_transport::units::{Timestamp, UnixTime};
use parlor_transport::wire::control::{
    Departure, Done, GoAway, Moderate, ModerateAction, RelayMessage, StreamInfo, UserInfo,
};

use super::client::Phase;
use super::{Lobby, Published, SharedRoom, not_joined};
use crate::limits::{BANS_MAX, BANS_PER_ROOM_MAX, TAKEN_MAX};
use crate::lock;
use crate::room::index::{Action, RoomKey};

/// How long somebody may publish nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ban {
    /// As long as they stay in the room now.
    Stay,
    /// Until then, also if they leave and come back.
    Until(UnixTime),
}

/// Users who may publish nothing in a room until some date, whether they are there or not.
#[derive(Default, Debug)]
pub(super) struct Bans {
    rooms: BTreeMap<RoomKey, BTreeMap<UserId, UnixTime>>,
    /// Of all rooms.
    count: usize,
}

impl Bans {
    /// Remembers a ban; of two for one user the newer counts.
    fn set(&mut self, date: UnixTime, room: &RoomKey, user: &UserId, until: UnixTime) -> Result<(), Refusal> {
        let is_known = self.rooms.get(room).is_some_and(|users| users.contains_key(user));
        if !is_known && self.is_full(room) {
            self.forget_ended(date);
        }
        if !is_known && self.is_full(room) {
            let text = format!(
                "the relay remembers as many users who may not publish as it can, so {user:?} cannot be added; \
                 kick them, or lift the bans of others"
            );
            return Err(Refusal::new(Code::RelayFull, text));
        }
        self.rooms.entry(room.clone()).or_default().insert(user.clone(), until);
        self.count += usize::from(!is_known);
        Ok(())
    }

    fn is_full(&self, room: &RoomKey) -> bool {
        let in_room = self.rooms.get(room).map_or(0, BTreeMap::len);
        self.count >= BANS_MAX || in_room >= BANS_PER_ROOM_MAX
    }

    fn forget_ended(&mut self, date: UnixTime) {
        self.rooms.retain(|_, users| {
            users.retain(|_, until| *until > date);
            !users.is_empty()
        });
        self.count = self.rooms.values().map(BTreeMap::len).sum();
    }

    fn lift(&mut self, room: &RoomKey, user: &UserId) -> bool {
        let Some(users) = self.rooms.get_mut(room) else { return false };
        let lifted = users.remove(user).is_some();
        self.count -= usize::from(lifted);
        if users.is_empty() {
            self.rooms.remove(room);
        }
        lifted
    }

    fn holds(&self, date: UnixTime, room: &RoomKey, user: &UserId) -> bool {
        self.rooms.get(room).and_then(|users| users.get(user)).is_some_and(|until| *until > date)
    }
}

/// A room in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomEntry {
    /// Its name.
    pub key: RoomKey,
    /// Its life.
    pub epoch: u64,
    /// Users in it.
    pub users: usize,
    /// Streams in it.
    pub streams: usize,
}

impl Lobby {
    /// Ends the stream on `lane`, whose publisher sends more than the relay takes, and hears so.
    pub fn end_stream_over_limit(&mut self, now: Timestamp, session: SessionId, lane: u32) {
        let room = self.clients.get(&session).and_then(|client| client.phase.room());
        let Some(live) = room.and_then(|room| self.rooms.get(room)) else { return };
        let is_it = |published: &Published| published.session == session && published.lane == lane;
        let stream = live.publications.iter().find(|(_, published)| is_it(published));
        let Some(stream) = stream.map(|(stream, _)| stream.clone()) else { return };
        let text = format!(
            "stream {stream:?} was removed: its user publishes more than {} bytes a second, on and on; lower the bitrate \
             or raise the relay's limit publish_bytes_per_second_max",
            self.limits.publish_bytes_per_second_max
        );
        self.take_stream(now, session, lane, stream, Refusal::new(Code::TooManyBytes, text));
        self.settle();
    }

    /// Rooms behind `after` in the order of their names, at most `most`.
    pub fn list_rooms(&self, app: Option<&AppId>, after: Option<&RoomKey>, most: usize) -> Vec<RoomEntry> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let rooms = self.rooms.range((from, std::ops::Bound::Unbounded));
        let rooms = rooms.filter(|(key, _)| app.is_none_or(|app| key.app == *app)).take(most);
        let entry = |(key, live): (&RoomKey, &super::LiveRoom)| {
            let room = lock(&live.room);
            let (epoch, users) = (room.epoch(), room.roster().len());
            RoomEntry { key: key.clone(), epoch, users, streams: live.publications.len() }
        };
        rooms.map(entry).collect()
    }

    /// Users of a room behind `after`, in the order of their ids, at most `most`.
    ///
    /// # Errors
    /// [`Code::NotFound`] when nobody is in it.
    pub fn list_users(
        &self,
        key: &RoomKey,
        after: Option<&UserId>,
        most: usize,
    ) -> Result<Vec<UserInfo>, Refusal> {
        let room = self.find_room(key)?;
        let room = lock(&room);
        let behind = room.roster().iter().filter(|user| after.is_none_or(|after| user.user > *after));
        Ok(behind.take(most).collect())
    }

    /// Streams of a room behind `after`, in the order of their ids, at most `most`.
    ///
    /// # Errors
    /// [`Code::NotFound`] when nobody is in it.
    pub fn list_streams(
        &self,
        key: &RoomKey,
        after: Option<&StreamId>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, Refusal> {
        let room = self.find_room(key)?;
        let room = lock(&room);
        let behind = room.streams().iter().filter(|stream| after.is_none_or(|after| stream.stream > *after));
        Ok(behind.take(most).cloned().collect())
    }

    /// Puts `user` out of `room`, or of whichever room of the app they are in; unseen users too.
    ///
    /// # Errors
    /// [`Code::NotFound`] when they are not there.
    pub fn kick(
        &mut self,
        now: Timestamp,
        app: &AppId,
        room: Option<&RoomId>,
        user: &UserId,
    ) -> Result<(), Refusal> {
        let session = match room {
            Some(room) => {
                let key = RoomKey { app: app.clone(), room: room.clone() };
                let room = self.find_room(&key)?;
                let found = lock(&room).roster().session_of_anyone(user);
                found.ok_or_else(|| not_there(&key, user))?
            }
            None => {
                let mut rooms = self.rooms.iter().filter(|(key, _)| key.app == *app);
                let found = rooms.find_map(|(_, live)| lock(&live.room).roster().session_of_anyone(user));
                let text = || format!("user {user:?} is in no room of app {app:?}; look who is there");
                found.ok_or_else(|| Refusal::new(Code::NotFound, text()))?
            }
        };
        self.propose(now, session, Action::Leave { reason: Departure::Kicked }, None);
        self.settle();
        Ok(())
    }

    /// Sends everyone in a room away, unseen users too, which ends it; gives how many they were. They may come again, to a
    /// new one.
    ///
    /// # Errors
    /// [`Code::NotFound`] when nobody is in it.
    pub fn close_room(&mut self, now: Timestamp, key: &RoomKey) -> Result<usize, Refusal> {
        let room = self.find_room(key)?;
        let sessions: Vec<_> = lock(&room).roster().sessions().collect();
        for &session in &sessions {
            self.propose(now, session, Action::Leave { reason: Departure::RemovedByServer }, None);
        }
        self.settle();
        Ok(sessions.len())
    }

    /// Ends a stream; its publisher hears why and may publish it again.
    ///
    /// # Errors
    /// [`Code::NotFound`] when nobody is in the room, [`Code::NotPublishing`] when it has no such stream.
    pub fn remove_stream(&mut self, now: Timestamp, key: &RoomKey, stream: &StreamId) -> Result<(), Refusal> {
        self.find_room(key)?;
        let live = self.rooms.get(key);
        let Some(published) = live.and_then(|live| live.publications.get(stream)) else {
            let text = format!(
                "stream {stream:?} is not published in room {:?}; look what is published there",
                key.room
            );
            return Err(Refusal::new(Code::NotPublishing, text));
        };
        let (session, lane) = (published.session, published.lane);
        let text = format!("stream {stream:?} was removed by a moderator or the server");
        self.take_stream(now, session, lane, stream.clone(), Refusal::new(Code::StreamRemoved, text));
        self.settle();
        Ok(())
    }

    /// Ends the streams of `user` in a room and lets them publish no others there. The newest ban counts.
    ///
    /// # Errors
    /// [`Code::NotFound`] when they are not there; [`Code::RelayFull`] when no more bans can be remembered.
    pub fn forbid_publish(
        &mut self,
        now: Timestamp,
        date: UnixTime,
        key: &RoomKey,
        user: &UserId,
        ban: Ban,
    ) -> Result<(), Refusal> {
        let session = self.find_user(key, user)?;
        match ban {
            Ban::Until(until) => self.bans.set(date, key, user, until)?,
            Ban::Stay => {
                if let Some(client) = self.clients.get_mut(&session) {
                    client.is_banned = true;
                }
            }
        }
        let live = self.rooms.get(key);
        let own = live.into_iter().flat_map(|live| &live.publications).filter(|(_, p)| p.session == session);
        let own: Vec<_> = own.map(|(stream, published)| (stream.clone(), published.lane)).collect();
        for (stream, lane) in own {
            self.take_stream(now, session, lane, stream, banned(user));
        }
        self.settle();
        Ok(())
    }

    /// Lets `user` publish again in a room, as far as their token does; false if nothing forbade it.
    pub fn allow_publish(&mut self, key: &RoomKey, user: &UserId) -> bool {
        let lifted = self.bans.lift(key, user);
        let session = self.find_user(key, user).ok();
        let client = session.and_then(|session| self.clients.get_mut(&session));
        client.is_some_and(|client| std::mem::take(&mut client.is_banned)) || lifted
    }

    /// From now on nobody joins, and who is connected is told so: there may be another relay at `address`.
    pub fn drain(&mut self, address: Option<&str>) {
        self.is_draining = true;
        let greeted = self.clients.iter().filter(|(_, client)| client.phase != Phase::Connected);
        let sessions: Vec<_> = greeted.map(|(&session, _)| session).collect();
        for session in sessions {
            let go_away = GoAway { address: address.map(str::to_owned) };
            self.send(session, RelayMessage::GoAway(go_away));
        }
    }

    /// A client wants something done about somebody in its room.
    pub(super) fn moderate(
        &mut self,
        now: Timestamp,
        date: UnixTime,
        session: SessionId,
        moderate: Moderate,
    ) {
        let Moderate { request, action } = moderate;
        let client = self.clients.get(&session);
        let Some(Phase::Joined { room, user: moderator }) = client.map(|client| client.phase.clone()) else {
            return self.refuse(session, request, not_joined("there is nobody to moderate".to_owned()));
        };
        let token = client.and_then(|client| client.token.as_ref());
        if !token.is_some_and(|token| token.grants.may_moderate()) {
            let text =
                format!("the token does not let user {moderator:?} moderate; get one that does and renew");
            return self.refuse(session, request, Refusal::new(Code::ModerateForbidden, text));
        }
        tracing::info!(session = session.0, room = %room.room, user = %moderator, ?action, "moderating");
        // Before what comes of it: who kicks themselves hears of it, too.
        let outcome = match &action {
            ModerateAction::Kick { user } => self.find_user(&room, user).map(drop),
            _ => Ok(()),
        };
        let outcome = outcome.and_then(|()| match action {
            ModerateAction::Kick { user } if user == moderator => {
                self.send(session, RelayMessage::Done(Done { request }));
                self.kick(now, &room.app, Some(&room.room), &user).map(|()| false)
            }
            ModerateAction::Kick { user } => {
                self.kick(now, &room.app, Some(&room.room), &user).map(|()| true)
            }
            ModerateAction::RemoveStream { stream } => self.remove_stream(now, &room, &stream).map(|()| true),
            ModerateAction::ForbidPublish { user, seconds } => {
                let ban = match seconds {
                    0 => Ban::Stay,
                    seconds => Ban::Until(date + Duration::from_secs(seconds.into())),
                };
                self.forbid_publish(now, date, &room, &user, ban).map(|()| true)
            }
        });
        match outcome {
            Ok(true) => self.send(session, RelayMessage::Done(Done { request })),
            Ok(false) => {}
            Err(refusal) => self.refuse(session, request, refusal),
        }
    }

    /// Whether a moderator or the operator lets `session` publish.
    pub(super) fn check_ban(&self, date: UnixTime, session: SessionId) -> Result<(), Refusal> {
        let Some(client) = self.clients.get(&session) else { return Ok(()) };
        let (Phase::Joining { room, user } | Phase::Joined { room, user }) = &client.phase else {
            return Ok(());
        };
        match client.is_banned || self.bans.holds(date, room, user) {
            true => Err(banned(user)),
            false => Ok(()),
        }
    }

    /// What a user who has left for `reason` is told, if the reason ends the connection.
    pub(super) fn farewell_of(room: &RoomKey, reason: Departure) -> Option<Refusal> {
        let room = &room.room;
        match reason {
            Departure::Kicked => {
                let text = format!("removed from room {room:?} by a moderator or the server");
                Some(Refusal::new(Code::Kicked, text))
            }
            Departure::RemovedByServer => {
                Some(Refusal::new(Code::RoomClosed, format!("room {room:?} was closed by the server")))
            }
            _ => None,
        }
    }

    /// Ends a stream whose publisher hears `refusal`, now or, if that is lost with its connection, when it comes back.
    pub(super) fn take_stream(
        &mut self,
        now: Timestamp,
        session: SessionId,
        lane: u32,
        stream: StreamId,
        refusal: Refusal,
    ) {
        self.refuse(session, lane, refusal.clone());
        if let Some(client) = self.clients.get_mut(&session) {
            client.taken.insert(lane, refusal);
            if client.taken.len() > TAKEN_MAX {
                client.taken.pop_first();
            }
        }
        let reason = Departure::RemovedByServer;
        self.propose(now, session, Action::Unpublish { stream, reason }, None);
    }

    fn find_room(&self, key: &RoomKey) -> Result<SharedRoom, Refusal> {
        self.room(key).ok_or_else(|| {
            let RoomKey { app, room } = key;
            let text = format!("app {app:?} has no room {room:?} that anybody is in; list its rooms");
            Refusal::new(Code::NotFound, text)
        })
    }

    fn find_user(&self, key: &RoomKey, user: &UserId) -> Result<SessionId, Refusal> {
        let room = self.find_room(key)?;
        let session = lock(&room).roster().session(user);
        session.ok_or_else(|| not_there(key, user))
    }
}

fn not_there(key: &RoomKey, user: &UserId) -> Refusal {
    let text = format!("user {user:?} is not in room {:?}; look who is there", key.room);
    Refusal::new(Code::NotFound, text)
}

fn banned(user: &UserId) -> Refusal {
    let text = format!("a moderator or the server has forbidden user {user:?} to publish; ask them");
    Refusal::new(Code::PublishBanned, text)
}
