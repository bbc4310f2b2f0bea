//! The rules of a call, written a second time and as plainly as they can be: every question is answered by looking at
//! everybody. What the lobby keeps in several places and carries from one to the other stands here once.

use std::collections::{BTreeMap, BTreeSet};

use parlor_relay::limits::{Limits, ROOM_INFO_KEYS_MAX, TAKEN_MAX, TOKEN_CHECK_COST};
use parlor_transport::error::Code;
use parlor_transport::id::LoginId;
use parlor_transport::token::Token;
use parlor_transport::token::claims::Claims;
use parlor_transport::wire::control::*;
use parlor_transport::wire::hop::LANE_MAX;

/// Logins remembered that gave way to a later one of the same user, as the relay has it.
const OUTLIVED_MAX: usize = 4;

/// App and room, by their ids.
pub(super) type Key = (String, String);

/// What the acting client must hear.
#[derive(Debug)]
pub(super) enum Expect {
    /// Nothing.
    Nothing,
    Welcome,
    Clock,
    Done,
    /// It joined, and so many users are there to be seen.
    Joined(usize),
    Published,
    /// The play begins, and this user publishes.
    Started(String),
    Waiting,
    /// Lanes of publications and plays that go on, and the session.
    Resumed(u64, Vec<u32>, Vec<u32>),
    /// One of the codes that apply.
    Refused(BTreeSet<Code>),
    Close(Code),
}

/// What others must hear, beside the room's events.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// The session ended, and its client hears why.
    Closed(u64, Code),
    /// A publication was taken from its publisher.
    Taken(u64, u32, Code),
}

pub(super) struct Client {
    pub(super) phase: Phase,
    /// The session that it proved to have had before.
    returns_from: Option<u64>,
    requests: Budget,
    messages: Budget,
}

pub(super) enum Phase {
    New,
    Greeted,
    In(Box<Member>),
    Out,
}

pub(super) struct Member {
    pub(super) room: Key,
    pub(super) user: String,
    pub(super) name: String,
    pub(super) presence: Presence,
    pub(super) streams: BTreeMap<String, Published>,
    /// Stream by lane.
    pub(super) plays: BTreeMap<u32, String>,
    /// When it is given up, in ms; it has no connection until then.
    pub(super) parked: Option<u64>,
    login: LoginId,
    /// Logins of this user that gave way to it, the last ones.
    outlived: Vec<LoginId>,
    grants: Option<Claims>,
    is_banned: bool,
    resumed_by: Option<LoginId>,
    /// Lanes of streams that others ended, and why.
    taken: BTreeMap<u32, Code>,
}

pub(super) struct Published {
    pub(super) lane: u32,
    pub(super) tracks: usize,
}

/// What a room holds beside its members.
#[derive(Default)]
pub(super) struct Books {
    /// Events so far that others were told of.
    pub(super) position: u64,
    pub(super) states: BTreeMap<(String, u8), TrackState>,
    /// With their versions.
    pub(super) stream_infos: BTreeMap<String, (u64, String)>,
    pub(super) room_infos: BTreeMap<String, (u64, String)>,
}

/// The relay, as it ought to be.
pub(super) struct Model {
    pub(super) limits: Limits,
    /// Apps, and whether they ask for tokens.
    pub(super) apps: BTreeMap<String, bool>,
    /// Tokens that were made, with what they say and whether the signature is good.
    pub(super) tokens: BTreeMap<String, (Claims, bool)>,
    pub(super) clients: BTreeMap<u64, Client>,
    pub(super) rooms: BTreeMap<Key, Books>,
    pub(super) effects: Vec<Effect>,
    pub(super) is_draining: bool,
    pub(super) joins: u64,
    pub(super) refused: u64,
    /// ms since the start; [`Model::date`] follows from it.
    pub(super) now: u64,
    sessions: u64,
    farewells: BTreeMap<u64, Code>,
    /// Until which date, in ms.
    bans: BTreeMap<(Key, String), u64>,
}

/// The date at the start, in ms since 1970.
pub(super) const DATE: u64 = 1_000_000_000;

impl Model {
    pub(super) fn new(limits: Limits, apps: BTreeMap<String, bool>) -> Self {
        Model {
            limits,
            apps,
            tokens: BTreeMap::new(),
            clients: BTreeMap::new(),
            rooms: BTreeMap::new(),
            effects: Vec::new(),
            is_draining: false,
            joins: 0,
            refused: 0,
            now: 0,
            sessions: 0,
            farewells: BTreeMap::new(),
            bans: BTreeMap::new(),
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (u64, &Member)> {
        self.clients.iter().filter_map(|(&session, client)| match &client.phase {
            Phase::In(member) => Some((session, &**member)),
            _ => None,
        })
    }

    pub(super) fn member(&self, session: u64) -> Option<&Member> {
        self.members().find(|(other, _)| *other == session).map(|(_, member)| member)
    }

    /// Whether a connection has not said Hello.
    pub(super) fn is_new(&self, session: u64) -> bool {
        self.clients.get(&session).is_some_and(|client| matches!(client.phase, Phase::New))
    }

    fn member_mut(&mut self, session: u64) -> Option<&mut Member> {
        match &mut self.clients.get_mut(&session)?.phase {
            Phase::In(member) => Some(member),
            _ => None,
        }
    }

    /// Who publishes a stream in an app.
    pub(super) fn publisher(&self, app: &str, stream: &str) -> Option<(u64, &Member)> {
        self.members().find(|(_, member)| member.room.0 == app && member.streams.contains_key(stream))
    }

    fn seen_user(&self, room: &Key, user: &str) -> Option<u64> {
        let mut members = self.members();
        members
            .find(|(_, m)| m.room == *room && m.user == user && !m.presence.unseen)
            .map(|(session, _)| session)
    }

    fn date(&self) -> u64 {
        DATE + self.now
    }

    pub(super) fn connect(&mut self) -> Option<u64> {
        if self.clients.len() >= self.limits.connections_max {
            self.refused += 1;
            return None;
        }
        self.sessions += 1;
        let limits = &self.limits;
        let client = Client {
            phase: Phase::New,
            returns_from: None,
            requests: Budget::new(self.now, limits.requests_burst_max, limits.requests_per_second_max),
            messages: Budget::new(self.now, limits.message_burst_max, limits.message_cost_per_second_max),
        };
        self.clients.insert(self.sessions, client);
        Some(self.sessions)
    }

    /// The connection is gone, for good or perhaps not.
    pub(super) fn disconnect(&mut self, session: u64, was_lost: bool) {
        let grace = self.limits.session_grace.as_millis() as u64;
        let until = self.now + grace;
        if let Some(member) = self.member_mut(session) {
            if was_lost && grace > 0 {
                member.parked = Some(until);
                return;
            }
            self.end(session, None);
        }
        self.clients.remove(&session);
    }

    /// Time passes, and what is due happens in its order.
    pub(super) fn advance(&mut self, to: u64) {
        loop {
            let grace = self.limits.token_grace.as_millis() as u64;
            let ends = self.members().flat_map(|(session, member)| {
                let expires =
                    member.grants.as_ref().map(|claims| claims.exp.0.as_micros() / 1000 + grace - DATE);
                // Of two at once the token's end is told to others, but its client is gone already.
                [expires.map(|at| (at, true, session)), member.parked.map(|at| (at, false, session))]
            });
            let Some((at, is_token, session)) = ends.flatten().filter(|(at, ..)| *at <= to).min() else {
                break;
            };
            let is_parked_end = self.member(session).is_some_and(|member| member.parked == Some(at));
            let farewell = (is_token && !is_parked_end).then_some(Code::TokenExpired);
            self.end(session, farewell);
            if is_parked_end {
                self.clients.remove(&session);
            }
        }
        self.now = to;
    }

    /// A stay is over: its streams end, then it leaves, and the room with the last one.
    fn end(&mut self, session: u64, farewell: Option<Code>) {
        let Some(member) = self.member(session) else { return };
        let (room, unseen, parked) = (member.room.clone(), member.presence.unseen, member.parked);
        let streams: Vec<_> = member.streams.keys().cloned().collect();
        streams.iter().for_each(|stream| self.end_stream(session, stream));
        if let Some(code) = farewell {
            self.effects.push(Effect::Closed(session, code));
            self.farewells.insert(session, code);
        }
        match parked {
            Some(_) => _ = self.clients.remove(&session),
            None => self.clients.get_mut(&session).expect("looked at above").phase = Phase::Out,
        }
        self.rooms.get_mut(&room).expect("somebody was in it").position += u64::from(!unseen);
        if self.members().all(|(_, other)| other.room != room) {
            self.rooms.remove(&room);
        }
    }

    fn end_stream(&mut self, session: u64, stream: &str) {
        let member = self.member_mut(session).expect("publishers are members");
        member.streams.remove(stream);
        let room = member.room.clone();
        let books = self.rooms.get_mut(&room).expect("somebody is in it");
        books.position += 1;
        books.states.retain(|(of, _), _| of != stream);
        books.stream_infos.remove(stream);
    }

    fn take_stream(&mut self, session: u64, stream: &str, code: Code) {
        let lane =
            self.member(session).and_then(|member| member.streams.get(stream)).expect("published").lane;
        self.effects.push(Effect::Taken(session, lane, code));
        self.refused += 1;
        let taken = &mut self.member_mut(session).expect("who publishes is a member").taken;
        taken.insert(lane, code);
        if taken.len() > TAKEN_MAX {
            taken.pop_first();
        }
        self.end_stream(session, stream);
    }

    /// What a request must lead to.
    pub(super) fn handle(&mut self, session: u64, message: &ClientMessage) -> Expect {
        let now = self.now;
        let client = self.clients.get_mut(&session).expect("only live connections ask");
        if !client.requests.spend(now, 1) {
            return Expect::Close(Code::TooManyRequests);
        }
        let is_new = matches!(client.phase, Phase::New);
        let outcome = match message {
            ClientMessage::Hello(hello) if is_new => {
                if hello.version_min > VERSION
                    || hello.version_max < VERSION_MIN
                    || hello.version_min > hello.version_max
                {
                    return Expect::Close(Code::VersionMismatch);
                }
                client.phase = Phase::Greeted;
                Ok(Expect::Welcome)
            }
            _ if is_new => return Expect::Close(Code::ProtocolViolation),
            ClientMessage::Hello(_) => return Expect::Close(Code::ProtocolViolation),
            ClientMessage::ProbeClock(_) => Ok(Expect::Clock),
            ClientMessage::RequestKeyframe(_) => Ok(Expect::Nothing),
            ClientMessage::Join(join) => self.join(session, join),
            ClientMessage::Resume(resume) => self.resume(session, resume),
            ClientMessage::Leave(_) => self.leave(session),
            ClientMessage::Publish(publish) => self.publish(session, publish),
            ClientMessage::Unpublish(Unpublish { stream, .. }) => self.unpublish(session, stream.as_str()),
            ClientMessage::Play(play) => self.play(session, play),
            ClientMessage::UpdatePlay(update) => {
                let is_long = update.wishes.len() > TRACKS_PER_STREAM_MAX;
                self.playing(session, update.stream.as_str())
                    .and_then(|_| if is_long { refuse(Code::TooLarge) } else { Ok(Expect::Done) })
            }
            ClientMessage::StopPlay(stop) => self.stop_play(session, stop.stream.as_str()),
            ClientMessage::RenewToken(renew) => self.renew(session, &renew.token),
            ClientMessage::Moderate(moderate) => self.moderate(session, &moderate.action),
            ClientMessage::SetTrackState(set) => self.set_track_state(session, set),
            ClientMessage::SetStreamInfo(set) => self.set_stream_info(session, set),
            ClientMessage::SetRoomInfo(set) => self.set_room_info(session, set),
        };
        self.count(outcome)
    }

    fn count(&mut self, outcome: Result<Expect, Expect>) -> Expect {
        self.refused += u64::from(matches!(outcome, Err(Expect::Refused(_))));
        outcome.unwrap_or_else(|refused| refused)
    }

    fn joined(&self, session: u64) -> Result<&Member, Expect> {
        self.member(session).ok_or_else(|| refused(Code::NotJoined))
    }

    /// The number of tracks of one's own stream.
    fn owned(&self, session: u64, stream: &str) -> Result<usize, Expect> {
        let own = self.joined(session)?.streams.get(stream);
        own.map(|published| published.tracks).ok_or_else(|| refused(Code::NotPublishing))
    }

    fn playing(&self, session: u64, stream: &str) -> Result<u32, Expect> {
        let plays = self.member(session).into_iter().flat_map(|member| &member.plays);
        let lane = plays.filter(|(_, of)| *of == stream).map(|(&lane, _)| lane).next();
        lane.ok_or_else(|| refused(Code::NotPlaying))
    }

    fn pay(&mut self, session: u64, bytes: usize) -> Result<(), Expect> {
        let cost = 1 + bytes.div_ceil(1024) as u64;
        let client = self.clients.get_mut(&session).expect("it asked");
        if client.messages.spend(self.now, cost) { Ok(()) } else { Err(refused(Code::TooManyMessages)) }
    }

    /// Everybody in the room hears of a change.
    fn tell(&mut self, session: u64, change: impl FnOnce(u64, &mut Books)) -> Result<Expect, Expect> {
        let room = self.joined(session)?.room.clone();
        let books = self.rooms.get_mut(&room).expect("somebody is in it");
        books.position += 1;
        change(books.position, books);
        Ok(Expect::Done)
    }

    fn set_track_state(&mut self, session: u64, set: &SetTrackState) -> Result<Expect, Expect> {
        if usize::from(set.track) >= self.owned(session, set.stream.as_str())? {
            return refuse(Code::BadTracks);
        }
        let key = (set.stream.to_string(), set.track);
        self.tell(session, |_, books| match set.state {
            TrackState::Open => _ = books.states.remove(&key),
            state => _ = books.states.insert(key, state),
        })
    }

    fn set_stream_info(&mut self, session: u64, set: &SetStreamInfo) -> Result<Expect, Expect> {
        self.pay(session, set.info.len())?;
        self.owned(session, set.stream.as_str())?;
        self.tell(session, |at, books| write(&mut books.stream_infos, set.stream.as_str(), at, &set.info))
    }

    fn set_room_info(&mut self, session: u64, set: &SetRoomInfo) -> Result<Expect, Expect> {
        self.pay(session, set.key.len() + set.value.len())?;
        let infos = &self.rooms[&self.joined(session)?.room].room_infos;
        if set.key.is_empty() {
            return refuse(Code::BadId);
        }
        if !set.value.is_empty() && !infos.contains_key(&set.key) && infos.len() >= ROOM_INFO_KEYS_MAX {
            return refuse(Code::TooManyKeys);
        }
        self.tell(session, |at, books| write(&mut books.room_infos, &set.key, at, &set.value))
    }

    /// What `user` may do in `room`; else all the reasons why not.
    fn admit(
        &mut self,
        session: u64,
        room: &Key,
        user: &str,
        token: Option<&Token>,
    ) -> Result<Option<Claims>, Expect> {
        let Some(&is_guarded) = self.apps.get(&room.0) else { return Err(refused(Code::UnknownApp)) };
        if !is_guarded {
            return Ok(None);
        }
        let Some(token) = token else { return Err(refused(Code::TokenMissing)) };
        let client = self.clients.get_mut(&session).expect("it asked");
        if !client.requests.spend(self.now, TOKEN_CHECK_COST.into()) {
            return Err(Expect::Close(Code::TooManyRequests));
        }
        let (claims, is_signed) = &self.tokens[token.as_str()];
        let is_expired = claims.exp.0.as_micros() / 1000 <= self.date();
        let is_for =
            claims.app.0.as_str() == room.0 && claims.user.0.as_str() == user && claims.room.matches(&room.1);
        let reasons: BTreeSet<_> = [
            (!is_signed, Code::TokenInvalid),
            (is_expired, Code::TokenExpired),
            (!is_for, Code::TokenForOther),
            (!claims.join, Code::JoinForbidden),
        ]
        .into_iter()
        .filter_map(|(holds, code)| holds.then_some(code))
        .collect();
        if reasons.is_empty() { Ok(Some(claims.clone())) } else { Err(Expect::Refused(reasons)) }
    }

    fn join(&mut self, session: u64, join: &Join) -> Result<Expect, Expect> {
        if !matches!(self.clients[&session].phase, Phase::Greeted) {
            return refuse(Code::AlreadyJoined);
        }
        if self.is_draining {
            return refuse(Code::RelayShutdown);
        }
        let room = (join.app.to_string(), join.room.to_string());
        let user = join.user.to_string();
        let grants = self.admit(session, &room, &user, join.token.as_ref())?;
        let earlier = self.members().find(|(_, m)| m.room.0 == room.0 && m.user == user);
        let earlier = earlier
            .map(|(session, member)| (session, member.login, member.room.clone(), member.outlived.clone()));
        let others = self.members().filter(|(_, m)| m.room == room && m.user != user).count();
        let is_room_new = !self.rooms.contains_key(&room);
        // A device that was away steals nothing from one that joined meanwhile.
        let returns_from = self.clients[&session].returns_from;
        if earlier.as_ref().zip(returns_from).is_some_and(|((newer, ..), from)| *newer > from) {
            return refuse(Code::RepeatedLogin);
        }
        if earlier.as_ref().is_some_and(|(_, login, ..)| *login == join.login) {
            return refuse(Code::LoginRaced);
        }
        if earlier.as_ref().is_some_and(|(.., outlived)| outlived.contains(&join.login)) {
            return refuse(Code::RepeatedLogin);
        }
        if !is_room_new && others >= self.limits.users_per_room_max {
            return refuse(Code::RoomFull);
        }
        if is_room_new && self.rooms.len() >= self.limits.rooms_max {
            return refuse(Code::RelayFull);
        }
        let mut outlived = Vec::new();
        if let Some((earlier, login, _, before)) = earlier {
            self.end(earlier, Some(Code::RepeatedLogin));
            outlived.extend(before);
            outlived.push(login);
            outlived.drain(..outlived.len().saturating_sub(OUTLIVED_MAX));
        }
        let member = Member {
            room: room.clone(),
            user,
            name: join.name.to_string(),
            presence: join.presence,
            streams: BTreeMap::new(),
            plays: BTreeMap::new(),
            parked: None,
            login: join.login,
            outlived,
            grants,
            is_banned: false,
            resumed_by: None,
            taken: BTreeMap::new(),
        };
        self.clients.get_mut(&session).expect("it asked").phase = Phase::In(Box::new(member));
        self.rooms.entry(room.clone()).or_default().position += u64::from(!join.presence.unseen);
        self.joins += 1;
        Ok(Expect::Joined(self.members().filter(|(_, m)| m.room == room && !m.presence.unseen).count()))
    }

    fn resume(&mut self, session: u64, resume: &Resume) -> Result<Expect, Expect> {
        if !matches!(self.clients[&session].phase, Phase::Greeted) {
            return refuse(Code::AlreadyJoined);
        }
        let earlier = resume.session.0;
        if resume.secret != super::secret_of(earlier) {
            return refuse(Code::SessionGone);
        }
        if let Some(&code) = self.farewells.get(&earlier) {
            return refuse(code);
        }
        self.clients.get_mut(&session).expect("it asked").returns_from = Some(earlier);
        let Some(member) = self.member_mut(earlier) else { return refuse(Code::SessionGone) };
        if member.resumed_by == Some(resume.attempt) {
            return refuse(Code::LoginRaced);
        }
        member.resumed_by = Some(resume.attempt);
        member.parked = None;
        let publications = member.streams.values().map(|published| published.lane).collect();
        let plays = member.plays.keys().copied().collect();
        let taken = member.taken.clone();
        self.effects.extend(taken.into_iter().map(|(lane, code)| Effect::Taken(earlier, lane, code)));
        self.clients.remove(&session);
        Ok(Expect::Resumed(earlier, publications, plays))
    }

    /// A request number that becomes a lane.
    fn take_lane(&mut self, session: u64, lane: u32) -> Result<(), Expect> {
        if lane > LANE_MAX {
            return Err(refused(Code::TooLarge));
        }
        let is_used = self.member(session).is_some_and(|member| {
            member.plays.contains_key(&lane)
                || member.streams.values().any(|published| published.lane == lane)
        });
        self.member_mut(session).into_iter().for_each(|member| _ = member.taken.remove(&lane));
        if is_used { Err(Expect::Close(Code::ProtocolViolation)) } else { Ok(()) }
    }

    fn publish(&mut self, session: u64, publish: &Publish) -> Result<Expect, Expect> {
        let lane = publish.request;
        self.take_lane(session, lane)?;
        let stream = publish.stream.to_string();
        let is_bad = check_tracks(&publish.tracks).is_err();
        let Some(member) = self.member(session) else {
            let codes = [Some(Code::NotJoined), is_bad.then_some(Code::BadTracks)];
            return Err(Expect::Refused(codes.into_iter().flatten().collect()));
        };
        let publisher = self.publisher(&member.room.0, &stream).map(|(session, _)| session);
        let claims = member.grants.as_ref();
        let ban = self.bans.get(&(member.room.clone(), member.user.clone()));
        let reasons: BTreeSet<_> = [
            (is_bad, Code::BadTracks),
            (claims.is_some_and(|claims| !claims.publish), Code::PublishForbidden),
            (
                claims.is_some_and(|claims| claims.publish && !claims.allows_stream(&publish.stream)),
                Code::StreamNotAllowed,
            ),
            (member.is_banned || ban.is_some_and(|until| *until > self.date()), Code::PublishBanned),
            (member.presence.unseen, Code::Unseen),
            (publisher == Some(session), Code::AlreadyPublishing),
            (publisher.is_some_and(|publisher| publisher != session), Code::StreamTaken),
            (member.streams.len() >= self.limits.publish_max as usize, Code::TooManyStreams),
        ]
        .into_iter()
        .filter_map(|(holds, code)| holds.then_some(code))
        .collect();
        if !reasons.is_empty() {
            return Err(Expect::Refused(reasons));
        }
        let published = Published { lane, tracks: publish.tracks.len() };
        let member = self.member_mut(session).expect("found above");
        member.streams.insert(stream, published);
        self.tell(session, |_, _| {}).map(|_| Expect::Published)
    }

    fn play(&mut self, session: u64, play: &Play) -> Result<Expect, Expect> {
        let lane = play.request;
        self.take_lane(session, lane)?;
        let member = self.joined(session)?;
        let stream = play.stream.to_string();
        let reasons: BTreeSet<_> = [
            (member.plays.values().any(|of| *of == stream), Code::AlreadyPlaying),
            (member.plays.len() >= self.limits.play_max as usize, Code::TooManyPlays),
            (play.wishes.len() > TRACKS_PER_STREAM_MAX, Code::TooLarge),
        ]
        .into_iter()
        .filter_map(|(holds, code)| holds.then_some(code))
        .collect();
        if !reasons.is_empty() {
            return Err(Expect::Refused(reasons));
        }
        let publisher = self.publisher(&member.room.0, &stream).filter(|(_, of)| of.room == member.room);
        let expect = publisher.map_or(Expect::Waiting, |(_, of)| Expect::Started(of.user.clone()));
        self.member_mut(session).expect("found above").plays.insert(lane, stream);
        Ok(expect)
    }

    fn leave(&mut self, session: u64) -> Result<Expect, Expect> {
        self.joined(session)?;
        self.end(session, None);
        Ok(Expect::Done)
    }

    fn unpublish(&mut self, session: u64, stream: &str) -> Result<Expect, Expect> {
        self.owned(session, stream)?;
        self.end_stream(session, stream);
        Ok(Expect::Done)
    }

    fn stop_play(&mut self, session: u64, stream: &str) -> Result<Expect, Expect> {
        let lane = self.playing(session, stream)?;
        self.member_mut(session).expect("who plays is in a room").plays.remove(&lane);
        Ok(Expect::Done)
    }

    fn renew(&mut self, session: u64, token: &Token) -> Result<Expect, Expect> {
        let member = self.joined(session)?;
        let (room, user) = (member.room.clone(), member.user.clone());
        let grants = self.admit(session, &room, &user, Some(token))?;
        let member = self.member_mut(session).expect("found above");
        let streams: Vec<_> = member.streams.keys().cloned().collect();
        member.grants.clone_from(&grants);
        for stream in streams {
            let Some(claims) = &grants else { break };
            let code = match (claims.publish, claims.allows_stream(&stream.parse().expect("it was one"))) {
                (true, true) => continue,
                (false, _) => Code::PublishForbidden,
                (true, false) => Code::StreamNotAllowed,
            };
            self.take_stream(session, &stream, code);
        }
        Ok(Expect::Done)
    }

    fn moderate(&mut self, session: u64, action: &ModerateAction) -> Result<Expect, Expect> {
        let member = self.joined(session)?;
        let room = member.room.clone();
        if !member.grants.as_ref().is_some_and(|claims| claims.moderate) {
            return refuse(Code::ModerateForbidden);
        }
        match action {
            ModerateAction::Kick { user } => {
                let of = self.seen_user(&room, user.as_str()).ok_or_else(|| refused(Code::NotFound))?;
                self.end(of, Some(Code::Kicked));
            }
            ModerateAction::RemoveStream { stream } => {
                self.remove_stream(&room, stream.as_str()).map_err(refused)?;
            }
            ModerateAction::ForbidPublish { user, seconds } => {
                let until = (*seconds > 0).then(|| self.date() + u64::from(*seconds) * 1000);
                self.forbid_publish(&room, user.as_str(), until).map_err(refused)?;
            }
        }
        Ok(Expect::Done)
    }

    /// The operator's: anybody, to be seen or not.
    pub(super) fn kick(&mut self, app: &str, room: Option<&str>, user: &str) -> Result<(), Code> {
        let mut members = self.members();
        let is_meant =
            |m: &Member| m.room.0 == app && room.is_none_or(|room| m.room.1 == room) && m.user == user;
        let of = members.find(|(_, m)| is_meant(m)).map(|(session, _)| session).ok_or(Code::NotFound)?;
        drop(members);
        self.end(of, Some(Code::Kicked));
        Ok(())
    }

    /// Everybody, to be seen or not.
    pub(super) fn close_room(&mut self, room: &Key) -> Result<usize, Code> {
        let sessions: Vec<_> =
            self.members().filter(|(_, m)| m.room == *room).map(|(session, _)| session).collect();
        if sessions.is_empty() {
            return Err(Code::NotFound);
        }
        sessions.iter().for_each(|&session| self.end(session, Some(Code::RoomClosed)));
        Ok(sessions.len())
    }

    pub(super) fn remove_stream(&mut self, room: &Key, stream: &str) -> Result<(), Code> {
        if !self.rooms.contains_key(room) {
            return Err(Code::NotFound);
        }
        let publisher = self.publisher(&room.0, stream).filter(|(_, m)| m.room == *room);
        let session = publisher.map(|(session, _)| session).ok_or(Code::NotPublishing)?;
        self.take_stream(session, stream, Code::StreamRemoved);
        Ok(())
    }

    /// For the stay, or until a date in ms.
    pub(super) fn forbid_publish(&mut self, room: &Key, user: &str, until: Option<u64>) -> Result<(), Code> {
        let session = self.seen_user(room, user).ok_or(Code::NotFound)?;
        match until {
            Some(until) => _ = self.bans.insert((room.clone(), user.to_owned()), until),
            None => self.member_mut(session).expect("just found").is_banned = true,
        }
        let streams: Vec<_> = self.member(session).expect("just found").streams.keys().cloned().collect();
        streams.iter().for_each(|stream| self.take_stream(session, stream, Code::PublishBanned));
        Ok(())
    }

    pub(super) fn allow_publish(&mut self, room: &Key, user: &str) -> bool {
        let lifted = self.bans.remove(&(room.clone(), user.to_owned())).is_some();
        let session = self.seen_user(room, user);
        let member = session.and_then(|session| self.member_mut(session));
        member.is_some_and(|member| std::mem::take(&mut member.is_banned)) || lifted
    }

    /// Whom a message reaches.
    pub(super) fn say(&mut self, session: u64, say: &Say) -> (Expect, Vec<u64>) {
        let client = self.clients.get_mut(&session).expect("only live connections speak");
        if !client.requests.spend(self.now, 1) {
            return (Expect::Close(Code::TooManyRequests), vec![]);
        }
        let outcome = self.receivers(session, say);
        match outcome {
            Ok(to) => (Expect::Done, to),
            Err(refused) => (self.count(Err(refused)), vec![]),
        }
    }

    fn receivers(&mut self, session: u64, say: &Say) -> Result<Vec<u64>, Expect> {
        let member = self.joined(session)?;
        if member.presence.unseen {
            return Err(refused(Code::Unseen));
        }
        let room = member.room.clone();
        let to: BTreeSet<u64> = match say.to.is_empty() {
            true => self.members().filter(|(_, m)| m.room == room).map(|(session, _)| session).collect(),
            false => {
                let listed = say.to.iter().map(|user| self.seen_user(&room, user.as_str()));
                listed.collect::<Option<_>>().ok_or_else(|| refused(Code::UnknownUser))?
            }
        };
        self.pay(session, say.payload.len())?;
        Ok(to.into_iter().filter(|to| *to != session).collect())
    }
}

fn refused(code: Code) -> Expect {
    Expect::Refused([code].into())
}

fn refuse<T>(code: Code) -> Result<T, Expect> {
    Err(refused(code))
}

fn write(infos: &mut BTreeMap<String, (u64, String)>, key: &str, version: u64, text: &str) {
    match text {
        "" => _ = infos.remove(key),
        text => _ = infos.insert(key.to_owned(), (version, text.to_owned())),
    }
}

/// What may be spent; the time between two requests is a multiple of 50 ms, in which every budget earns a whole number.
struct Budget {
    left: u64,
    burst: u64,
    /// In 50 ms.
    earned: u64,
    at: u64,
}

impl Budget {
    fn new(now: u64, burst: u32, per_second: u32) -> Self {
        Budget { left: burst.into(), burst: burst.into(), earned: u64::from(per_second) / 20, at: now }
    }

    fn spend(&mut self, now: u64, cost: u64) -> bool {
        self.left = (self.left + (now - self.at) / 50 * self.earned).min(self.burst);
        self.at = now;
        let is_enough = self.left >= cost;
        self.left -= if is_enough { cost } else { 0 };
        is_enough
    }
}
