//! Carrying out what the index decided: rooms change, answers go out, plays begin and end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::{SessionId, StreamAlias, StreamId, UserId};
use parlor_transport::wire::control::{self, *};

use super::client::Phase;
use super::{Asked, LiveRoom, Lobby, Notice, Output, Published, not_joined, repeated_login};
use crate::forward::publication::Publication;
use crate::forward::voices::Voices;
use crate::lock;
use crate::room::index::{Change, Committed, RoomKey, Ticket, Verdict};
use crate::room::{Room, View};

impl Lobby {
    /// Carries out every verdict there is.
    pub(super) fn settle(&mut self) {
        while let Some(verdict) = self.index.poll() {
            match verdict {
                Verdict::Committed(committed) => self.commit(committed),
                Verdict::Refused { ticket, refusal } => self.refused(ticket, refusal),
            }
        }
    }

    fn refused(&mut self, ticket: Ticket, refusal: Refusal) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        let session = pending.session;
        self.refuse(session, pending.request, refusal);
        match pending.asked {
            Asked::Publish => self.free_lane(session, pending.request),
            Asked::Join => {
                self.release_token(session);
                let Some(client) = self.clients.get_mut(&session) else { return };
                client.phase = Phase::Greeted;
                for (lane, play) in std::mem::take(&mut client.plays) {
                    self.free_lane(session, lane);
                    let stream = play.stream;
                    self.refuse(session, lane, not_joined(format!("stream {stream:?} cannot be played")));
                }
            }
            Asked::Leave | Asked::Unpublish | Asked::Extra => {}
        }
    }

    fn commit(&mut self, committed: Committed) {
        let Committed { ticket, room: key, epoch, previous, change, .. } = &committed;
        if *previous != 0 && !self.rooms.contains_key(key) {
            // The rest of a life that broke; the next one begins at 0.
            return self.refused(*ticket, Refusal::from(Code::Internal));
        }
        let live = self.rooms.entry(key.clone()).or_insert_with(|| LiveRoom {
            room: Arc::new(Mutex::new(Room::new(key.clone(), *epoch))),
            voices: Voices::new(&self.limits),
            publications: BTreeMap::new(),
            players: BTreeMap::new(),
        });
        let applied = lock(&live.room).apply(&committed);
        if let Err(error) = applied {
            debug_assert!(false, "{error}");
            tracing::error!(room = %key.room, %error, "the room's history broke; its members must join again");
            return self.fail_room(key);
        }
        self.outputs.push_back(Output::RoomChanged(key.clone()));
        self.report(&committed);
        match change.clone() {
            Change::UserJoined { session, user, .. } => {
                tracing::info!(session = session.0, room = %key.room, user = %user.user, "user joined");
                self.joined(*ticket, key, session, user.user);
            }
            Change::UserLeft { session, user, reason, .. } => {
                tracing::info!(session = session.0, room = %key.room, %user, ?reason, "user left");
                self.left(*ticket, key, session, user, reason);
            }
            Change::StreamAdded { session, stream } => {
                tracing::info!(
                    session = session.0, room = %key.room, user = %stream.user, stream = %stream.stream,
                    "stream added"
                );
                self.stream_added(*ticket, key, session, stream);
            }
            Change::StreamRemoved { session, stream, reason } => {
                self.stream_removed(*ticket, key, session, &stream, reason);
            }
            Change::TrackState { session, .. }
            | Change::StreamInfo { session, .. }
            | Change::RoomInfo { session, .. } => self.done(*ticket, session, Asked::Extra),
        }
    }

    fn joined(&mut self, ticket: Ticket, key: &RoomKey, session: SessionId, user: UserId) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        let (Some(client), Some(live)) = (self.clients.get_mut(&session), self.rooms.get(key)) else {
            return;
        };
        client.phase = Phase::Joined { room: key.clone(), user };
        let lanes: Vec<_> = client.plays.keys().copied().collect();
        let (room, voices) = (live.room.clone(), live.voices.clone());
        let view = View::of(client.presence);
        let joined = {
            let room = lock(&room);
            let (epoch, position) = (room.epoch(), room.position_in(view));
            let users = room.roster().len() as u32;
            let secret = self.resume_key.secret_of(session);
            Joined { request: pending.request, epoch, position, users, secret }
        };
        self.tally.joins += 1;
        self.send(session, RelayMessage::Joined(joined));
        self.notify(session, Notice::Entered { room, view, from: None, voices });
        lanes.into_iter().for_each(|lane| self.begin_play(session, lane));
    }

    fn left(&mut self, ticket: Ticket, key: &RoomKey, session: SessionId, user: UserId, reason: Departure) {
        for lane in self.drop_plays(session) {
            self.notify(session, Notice::PlayEnded { lane });
        }
        self.release_token(session);
        if let Some(client) = self.clients.get_mut(&session) {
            client.phase = Phase::Left { room: key.clone(), user: user.clone() };
            self.notify(session, Notice::Left);
            let farewell = match reason {
                Departure::RepeatedLogin => Some(repeated_login(&user)),
                Departure::TokenExpired => Some(Self::token_expired()),
                _ => Self::farewell_of(key, reason),
            };
            self.end_session(session, farewell);
        }
        self.done(ticket, session, Asked::Leave);
        let ended = self.rooms.get(key).is_some_and(|live| lock(&live.room).roster().is_empty());
        if ended {
            self.end_room(key);
        }
    }

    fn stream_added(&mut self, ticket: Ticket, key: &RoomKey, session: SessionId, info: StreamInfo) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        let Some(live) = self.rooms.get_mut(key) else { return };
        self.aliases += 1;
        let alias = StreamAlias(self.aliases);
        let lane = pending.request;
        let stream = info.stream.clone();
        let publication = Arc::new(Publication::new(alias, info, &self.limits, &live.voices));
        live.publications
            .insert(stream.clone(), Published { publication: publication.clone(), session, lane });
        let players = live.players.get(&stream).cloned().unwrap_or_default();
        // Its lane is open before the client hears that it may send.
        self.notify(session, Notice::PublishStarted { lane, publication });
        let published = control::Published { request: lane, alias };
        self.send(session, RelayMessage::Published(published));
        players.into_iter().for_each(|(player, lane)| self.start_play(key, player, lane, &stream));
    }

    fn stream_removed(
        &mut self,
        ticket: Ticket,
        key: &RoomKey,
        session: SessionId,
        stream: &StreamId,
        reason: Departure,
    ) {
        let Some(live) = self.rooms.get_mut(key) else { return };
        let published = live.publications.remove(stream);
        let players = live.players.get(stream).cloned().unwrap_or_default();
        if let Some(Published { publication, session, lane }) = published {
            publication.end();
            let user = &publication.info().user;
            tracing::info!(session = session.0, room = %key.room, %user, %stream, ?reason, "stream removed");
            self.free_lane(session, lane);
            self.notify(session, Notice::PublishEnded { lane });
        }
        for (player, lane) in players {
            self.notify(player, Notice::PlayPaused { lane });
            self.send(player, RelayMessage::PlayEnded(PlayEnded { lane, reason }));
        }
        self.done(ticket, session, Asked::Unpublish);
    }

    /// Answers the request behind `ticket`, if it asked for this.
    fn done(&mut self, ticket: Ticket, session: SessionId, asked: Asked) {
        let answers = |p: &super::Pending| p.session == session && p.asked == asked;
        if self.pending.get(&ticket).is_some_and(answers)
            && let Some(pending) = self.pending.remove(&ticket)
        {
            self.send(session, RelayMessage::Done(Done { request: pending.request }));
        }
    }

    /// Enters a play into its room: it starts if the stream is there, else it waits.
    pub(super) fn begin_play(&mut self, session: SessionId, lane: u32) {
        let Some(client) = self.clients.get(&session) else { return };
        let (Phase::Joined { room: key, .. }, Some(play)) = (client.phase.clone(), client.plays.get(&lane))
        else {
            return;
        };
        let stream = play.stream.clone();
        let Some(live) = self.rooms.get_mut(&key) else { return };
        live.players.entry(stream.clone()).or_default().insert((session, lane));
        if live.publications.contains_key(&stream) {
            self.start_play(&key, session, lane, &stream);
        } else {
            self.send(session, RelayMessage::PlayWaiting(PlayWaiting { lane }));
        }
    }

    fn start_play(&mut self, key: &RoomKey, session: SessionId, lane: u32, stream: &StreamId) {
        let wishes = self.clients.get(&session).and_then(|client| client.plays.get(&lane));
        let published = self.rooms.get(key).and_then(|live| live.publications.get(stream));
        let (Some(play), Some(published)) = (wishes, published) else { return };
        let publication = published.publication.clone();
        let info = publication.info();
        let started = PlayStarted {
            lane,
            alias: publication.alias(),
            user: info.user.clone(),
            tracks: info.tracks.clone(),
            delivery: info.delivery,
        };
        let wishes = play.wishes.clone();
        self.send(session, RelayMessage::PlayStarted(started));
        self.notify(session, Notice::PlayStarted { lane, publication, wishes });
    }

    /// Forgets one play, of a room or still without one.
    pub(super) fn drop_play(&mut self, session: SessionId, lane: u32) {
        let Some(client) = self.clients.get_mut(&session) else { return };
        client.lanes.remove(&lane);
        let Some(play) = client.plays.remove(&lane) else { return };
        let Phase::Joined { room, .. } = &client.phase else { return };
        let Some(live) = self.rooms.get_mut(room) else { return };
        if let Some(players) = live.players.get_mut(&play.stream) {
            players.remove(&(session, lane));
            if players.is_empty() {
                live.players.remove(&play.stream);
            }
        }
    }

    /// Forgets all plays of a session; gives their lanes.
    pub(super) fn drop_plays(&mut self, session: SessionId) -> BTreeSet<u32> {
        let client = self.clients.get(&session);
        let lanes: BTreeSet<_> =
            client.map(|client| client.plays.keys().copied().collect()).unwrap_or_default();
        lanes.iter().for_each(|&lane| self.drop_play(session, lane));
        lanes
    }

    /// A room whose history broke is of no use: everyone in it is sent away and may come again.
    fn fail_room(&mut self, key: &RoomKey) {
        let in_room = |phase: &Phase| matches!(phase, Phase::Joined { room, .. } if room == key);
        let members: Vec<_> =
            self.clients.iter().filter(|(_, c)| in_room(&c.phase)).map(|(&session, _)| session).collect();
        for session in members {
            self.drop_plays(session);
            self.notify(session, Notice::Close(Refusal::from(Code::Internal)));
        }
        self.end_room(key);
    }
}
