//! The other ends: what each connection was told, each client's mirror of its room, and what the app's server heard.

use std::collections::{BTreeMap, BTreeSet};

use parlor_client::room::mirror::Mirror;
use parlor_relay::lobby::{Notice, Output, SharedRoom};
use parlor_relay::room::View;
use parlor_relay::room::events::After;
use parlor_relay::webhook::{Happening, What};
use parlor_transport::error::Code;
use parlor_transport::wire::control::{MessageReader, RelayMessage, RoomMessage};

use super::model::{Effect, Expect, Key, Member, Model};

/// Requests numbered by clients that count them; below are the numbers that the input chooses.
const REQUEST_FIRST: u32 = 100;

#[derive(Default)]
pub(super) struct Clients {
    connections: Vec<Connection>,
    readers: BTreeMap<u64, Reader>,
    server: Server,
    /// Sessions that there were before the operation.
    pub(super) known: BTreeSet<u64>,
    requests: u32,
    // Of the operation under way:
    sent: Vec<(u64, RelayMessage)>,
    closed: Vec<(u64, Code)>,
    message: Option<Vec<u64>>,
    message_expected: Option<Vec<u64>>,
}

struct Connection {
    /// The session that it began with, and the one that it serves.
    id: u64,
    serves: u64,
    is_entered: bool,
    is_closing: bool,
    /// Streams by lane.
    ins: BTreeMap<u32, String>,
    outs: BTreeMap<u32, String>,
}

/// A client's copy of its room, and how far it has read.
struct Reader {
    mirror: Mirror,
    room: SharedRoom,
    view: View,
    position: Option<u64>,
    /// It claimed to know what nobody had told it.
    is_lost: bool,
    /// It does not read for the time being.
    is_slow: bool,
}

impl Clients {
    pub(super) fn connect(&mut self, session: u64) {
        self.connections.push(Connection {
            id: session,
            serves: session,
            is_entered: false,
            is_closing: false,
            ins: BTreeMap::new(),
            outs: BTreeMap::new(),
        });
    }

    pub(super) fn disconnect(&mut self, session: u64) {
        self.connections.retain(|connection| connection.serves != session);
    }

    /// The session that one of the connections serves.
    pub(super) fn nth(&self, n: u8) -> Option<u64> {
        let at = usize::from(n).checked_rem(self.connections.len())?;
        Some(self.connections[at].serves)
    }

    pub(super) fn serving(&self) -> Vec<u64> {
        self.connections.iter().map(|connection| connection.serves).collect()
    }

    /// Connections that were told to end.
    pub(super) fn closing(&self) -> Vec<u64> {
        let closing = self.connections.iter().filter(|connection| connection.is_closing);
        closing.map(|connection| connection.serves).collect()
    }

    pub(super) fn next_request(&mut self) -> u32 {
        self.requests += 1;
        REQUEST_FIRST + self.requests
    }

    pub(super) fn toggle_reading(&mut self, session: u64) {
        if let Some(reader) = self.readers.get_mut(&session) {
            reader.is_slow = !reader.is_slow;
        }
    }

    /// Where a client is in its room's history.
    pub(super) fn place(&self, session: u64) -> Option<(u64, u64)> {
        self.readers.get(&session)?.mirror.place()
    }

    pub(super) fn expect_message(&mut self, to: Option<Vec<u64>>) {
        self.message_expected = to;
    }

    fn serving_mut(&mut self, session: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.serves == session)
    }

    /// Does what the relay's shell would do.
    pub(super) fn take(&mut self, output: Output, model: &Model) {
        match output {
            Output::Notice(session, notice) => {
                let session = session.0;
                let is_known = self.known.contains(&session) || model.clients.contains_key(&session);
                assert!(is_known, "{notice:?} for session {session}, which there is not");
                self.notice(session, notice);
            }
            Output::Resumed { session, connection } => {
                // The connection before is closed, and what it had is gone.
                self.connections.retain(|other| other.serves != session.0);
                let connection = self.connections.iter_mut().find(|other| other.id == connection.0);
                connection.expect("only connections resume").serves = session.0;
            }
            Output::Message { to, .. } => {
                let mut to: Vec<u64> = to.into_iter().map(|session| session.0).collect();
                to.sort_unstable();
                let before = self.message.replace(to);
                assert_eq!(before, None, "one message for one");
            }
            Output::Happened(happening) => self.server.take(happening),
            Output::RoomChanged(_) | Output::RoomEnded(_) => {}
        }
    }

    fn notice(&mut self, session: u64, notice: Notice) {
        match notice {
            Notice::Send(message) => self.sent.push((session, message)),
            Notice::Close(refusal) => {
                self.closed.push((session, refusal.code));
                if let Some(connection) = self.serving_mut(session) {
                    connection.is_closing = true;
                }
            }
            Notice::Entered { room, view, from, .. } => {
                let connection = self.serving_mut(session).expect("who enters is connected");
                assert!(!connection.is_entered, "a connection has one QUIC stream of events");
                connection.is_entered = true;
                let mirror = match view {
                    View::Everything | View::Publishers => Mirror::default(),
                    View::WithoutUsers => Mirror::without_users(),
                };
                let mut reader = self.readers.remove(&session).unwrap_or_else(|| Reader {
                    mirror,
                    room: room.clone(),
                    view,
                    position: None,
                    is_lost: false,
                    is_slow: false,
                });
                reader.mirror.interrupt();
                reader.is_lost =
                    from.is_some() && from != reader.mirror.place().map(|(_, position)| position);
                reader.position = from;
                self.readers.insert(session, reader);
            }
            Notice::Left => {
                self.readers.remove(&session);
                if let Some(connection) = self.serving_mut(session) {
                    assert!(std::mem::take(&mut connection.is_entered));
                }
            }
            Notice::PublishStarted { lane, publication } => {
                let connection = self.serving_mut(session).expect("who publishes is connected");
                let before = connection.ins.insert(lane, publication.info().stream.to_string());
                assert_eq!(before, None, "lane {lane} of {session} is in use");
            }
            Notice::PublishEnded { lane } => {
                if let Some(connection) = self.serving_mut(session) {
                    assert!(connection.ins.remove(&lane).is_some(), "lane {lane} of {session} is not in use");
                }
            }
            Notice::PlayStarted { lane, publication, .. } => {
                // A player without a connection is told when it comes back.
                if let Some(connection) = self.serving_mut(session) {
                    let before = connection.outs.insert(lane, publication.info().stream.to_string());
                    assert_eq!(before, None, "lane {lane} of {session} is in use");
                }
            }
            Notice::PlayPaused { lane } | Notice::PlayEnded { lane } => {
                if let Some(connection) = self.serving_mut(session) {
                    connection.outs.remove(&lane);
                }
            }
            Notice::PlayChanged { .. } | Notice::KeyframeAsked { .. } => {}
        }
    }

    /// Whether everyone was told what they ought to be, and nobody anything else.
    pub(super) fn check_answers(&mut self, asked: Option<(u64, u32, Expect)>, effects: &[Effect]) {
        let mut closed = std::mem::take(&mut self.closed);
        let mut refused = Vec::new();
        let mut answers = Vec::new();
        let mut plays = Vec::new();
        for (session, message) in std::mem::take(&mut self.sent) {
            match message {
                RelayMessage::Refused(told) => refused.push((session, told.request, told.refusal.code)),
                RelayMessage::PlayStarted(told) => {
                    plays.push((session, told.lane, Some(told.user.to_string())))
                }
                RelayMessage::PlayWaiting(told) => plays.push((session, told.lane, None)),
                RelayMessage::PlayEnded(_) | RelayMessage::TokenExpiring(_) | RelayMessage::GoAway(_) => {}
                answer => answers.push((session, answer)),
            }
        }
        for effect in effects {
            match effect {
                Effect::Closed(session, code) => take_out(&mut closed, &(*session, *code)),
                Effect::Taken(session, lane, code) => take_out(&mut refused, &(*session, *lane, *code)),
            }
        }
        if let Some((session, request, expect)) = asked {
            let mut answer = || match answers.pop() {
                Some((to, answer)) => {
                    assert_eq!(to, session, "{answer:?} to somebody who did not ask");
                    answer
                }
                None => panic!("{session} got no answer to {request}: {refused:?}, {closed:?}"),
            };
            match expect {
                Expect::Nothing => {}
                Expect::Welcome => {
                    assert!(matches!(answer(), RelayMessage::Welcome(w) if w.session.0 == session))
                }
                Expect::Clock => assert!(matches!(answer(), RelayMessage::ClockReply(_))),
                Expect::Done => {
                    assert!(matches!(answer(), RelayMessage::Done(done) if done.request == request))
                }
                Expect::Published => {
                    assert!(matches!(answer(), RelayMessage::Published(told) if told.request == request));
                }
                Expect::Joined(users) => {
                    let RelayMessage::Joined(told) = answer() else { panic!("not joined") };
                    let secret = super::secret_of(session);
                    assert_eq!((told.request, told.users as usize, told.secret), (request, users, secret));
                }
                Expect::Started(user) => assert!(plays.contains(&(session, request, Some(user)))),
                Expect::Waiting => assert!(plays.contains(&(session, request, None))),
                Expect::Resumed(session, publications, lanes) => {
                    let Some((to, RelayMessage::Resumed(told))) = answers.pop() else {
                        panic!("not resumed")
                    };
                    assert_eq!((to, told.request), (session, request));
                    let known: BTreeSet<u32> = told.publications.iter().map(|(lane, _)| *lane).collect();
                    assert_eq!(known, publications.into_iter().collect());
                    assert_eq!(told.plays, lanes);
                }
                Expect::Refused(codes) => {
                    let at = refused.iter().position(|(to, about, _)| (*to, *about) == (session, request));
                    let at =
                        at.unwrap_or_else(|| panic!("{request} of {session} must be refused: {codes:?}"));
                    let (.., code) = refused.remove(at);
                    assert!(codes.contains(&code), "{code:?} is none of {codes:?}");
                }
                Expect::Close(code) => take_out(&mut closed, &(session, code)),
            }
        }
        assert!(answers.is_empty(), "nobody asked for {answers:?}");
        assert!(refused.is_empty(), "nobody asked for the refusal of {refused:?}");
        assert!(closed.is_empty(), "no reason to close {closed:?}");
        let message = self.message.take();
        assert_eq!(message, self.message_expected.take(), "who gets the message");
    }

    /// Whether each connection's lanes and each client's mirror are what the model says.
    pub(super) fn check(&mut self, model: &Model, is_live: impl Fn(&str, &Member) -> bool) {
        for connection in &self.connections {
            let session = connection.serves;
            let (mut ins, mut outs) = (BTreeMap::new(), BTreeMap::new());
            let member = model.member(session);
            assert_eq!(connection.is_entered, member.is_some(), "events of {session}");
            if let Some(member) = member {
                ins.extend(member.streams.iter().map(|(stream, published)| (published.lane, stream.clone())));
                let live = member.plays.iter().filter(|(_, stream)| is_live(stream, member));
                outs.extend(live.map(|(&lane, stream)| (lane, stream.clone())));
            }
            assert_eq!(connection.ins, ins, "publications of {session}");
            assert_eq!(connection.outs, outs, "plays of {session}");
        }
        let connected: BTreeSet<u64> = self.connections.iter().map(|connection| connection.serves).collect();
        self.readers.retain(|session, _| model.member(*session).is_some());
        for (session, member) in model.members() {
            let reader = self.readers.get_mut(&session).expect("who is in a room has its events");
            if connected.contains(&session) && !reader.is_slow {
                reader.read();
                reader.check(model, member);
            }
        }
        self.server.check(model);
    }

    pub(super) fn check_end(&self) {
        assert!(self.connections.is_empty() && self.readers.is_empty());
        assert!(self.server.rooms.is_empty());
    }
}

fn take_out<T: PartialEq + std::fmt::Debug>(list: &mut Vec<T>, wanted: &T) {
    let at = list.iter().position(|other| other == wanted);
    list.remove(at.unwrap_or_else(|| panic!("{wanted:?} is missing among {list:?}")));
}

impl Reader {
    /// Everything there is, as the relay's shell sends it: a snapshot, or what follows.
    fn read(&mut self) {
        let mut room = self.room.lock().expect("one thread");
        loop {
            let messages = match self.position.map(|position| room.after(self.view, position, u64::MAX)) {
                Some(After::UpToDate) => return,
                Some(After::Events(batch)) => {
                    self.position = Some(batch.reached);
                    vec![batch.bytes]
                }
                Some(After::Behind) | None => {
                    let snapshot = room.snapshot(self.view);
                    self.position = Some(snapshot.position);
                    snapshot.pages.to_vec()
                }
            };
            for message in messages {
                let mut reader = MessageReader::default();
                reader.push(&message);
                while let Some(message) = reader.read::<RoomMessage>().expect("our own") {
                    // It finds gaps, doubles and what comes in the wrong order.
                    self.mirror.apply(message).expect("the room's history goes on");
                }
                assert!(!reader.is_mid_message(), "batches and pages are whole");
            }
        }
    }

    fn check(&self, model: &Model, member: &Member) {
        if self.is_lost {
            return;
        }
        let key = &member.room;
        let mut users = users_of(model, key);
        match self.view {
            View::Everything => {}
            View::WithoutUsers => users.clear(),
            View::Publishers => {
                let publishers: BTreeSet<_> = streams_of(model, key).into_values().collect();
                users.retain(|user, _| publishers.contains(user));
            }
        }
        let told = self.mirror.users().iter().map(|(user, name)| (user.to_string(), name.to_string()));
        assert_eq!(told.collect::<BTreeMap<_, _>>(), users, "users told to {}", member.user);
        let told = self.mirror.streams().iter().map(|(id, stream)| (id.to_string(), stream.user.to_string()));
        assert_eq!(
            told.collect::<BTreeMap<_, _>>(),
            streams_of(model, key),
            "streams told to {}",
            member.user
        );
        let (books, extras) = (&model.rooms[key], self.mirror.extras());
        let states =
            extras.track_states.iter().map(|((stream, track), state)| ((stream.to_string(), *track), *state));
        assert_eq!(states.collect::<BTreeMap<_, _>>(), books.states);
        let infos =
            extras.stream_infos.iter().map(|(id, info)| (id.to_string(), (info.version, info.text.clone())));
        assert_eq!(infos.collect::<BTreeMap<_, _>>(), books.stream_infos);
        let infos =
            extras.room_infos.iter().map(|(key, info)| (key.clone(), (info.version, info.text.clone())));
        assert_eq!(infos.collect::<BTreeMap<_, _>>(), books.room_infos);
    }
}

/// Who is in a room to be seen, with their names.
pub(super) fn users_of(model: &Model, key: &Key) -> BTreeMap<String, String> {
    let seen = model.members().filter(|(_, member)| member.room == *key && !member.presence.unseen);
    seen.map(|(_, member)| (member.user.clone(), member.name.clone())).collect()
}

/// What is published in a room, and by whom.
pub(super) fn streams_of(model: &Model, key: &Key) -> BTreeMap<String, String> {
    let members = model.members().filter(|(_, member)| member.room == *key);
    let streams = members.flat_map(|(_, m)| m.streams.keys().map(|stream| (stream.clone(), m.user.clone())));
    streams.collect()
}

/// The app's server, which is told what happens.
#[derive(Default)]
struct Server {
    rooms: BTreeMap<Key, Life>,
}

/// One life of a room, as the app's server knows it.
struct Life {
    epoch: u64,
    /// Everybody, the unseen too.
    users: BTreeSet<String>,
    streams: BTreeMap<String, String>,
}

impl Server {
    fn take(&mut self, happening: Happening) {
        let Happening { room, epoch, what } = happening;
        let key: Key = (room.app.to_string(), room.room.to_string());
        if what == What::RoomOpened {
            let life = Life { epoch, users: BTreeSet::new(), streams: BTreeMap::new() };
            assert!(self.rooms.insert(key, life).is_none(), "a room opens once");
            return;
        }
        let life = self.rooms.get_mut(&key).expect("a room opens before anything happens in it");
        assert_eq!(life.epoch, epoch);
        match what {
            What::RoomOpened => {}
            What::UserJoined { user, users } => {
                assert!(life.users.insert(user.user.to_string()), "a user comes once");
                assert!(users <= life.users.len());
            }
            What::UserLeft { user, users, .. } => {
                assert!(life.streams.values().all(|of| of != user.as_str()), "streams end before");
                assert!(life.users.remove(user.as_str()), "who goes was there");
                assert!(users <= life.users.len());
            }
            What::StreamAdded(stream) => {
                assert!(life.users.contains(stream.user.as_str()), "a user comes before their streams");
                let before = life.streams.insert(stream.stream.to_string(), stream.user.to_string());
                assert_eq!(before, None, "a stream begins once");
            }
            What::StreamRemoved { stream, user, .. } => {
                let of = life.streams.remove(stream.as_str());
                assert!(of.is_some() && of == user.map(|user| user.to_string()), "what ends had begun");
            }
            What::RoomClosed => {
                let life = self.rooms.remove(&key).expect("found above");
                assert!(life.users.is_empty() && life.streams.is_empty(), "the last one closes the room");
            }
        }
    }

    fn check(&self, model: &Model) {
        assert!(self.rooms.keys().eq(model.rooms.keys()));
        for (key, life) in &self.rooms {
            let users = model.members().filter(|(_, m)| m.room == *key).map(|(_, m)| m.user.clone());
            assert_eq!(life.users, users.collect());
            assert_eq!(life.streams, streams_of(model, key));
        }
    }
}
