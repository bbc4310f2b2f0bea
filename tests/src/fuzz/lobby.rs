//! The relay's lobby and rooms against lists of operations: an input is what people, networks, moderators and operators
//! do, one after the other, in two apps with two rooms each. Beside them runs [`model`], the same rules written down a
//! second time; after every operation the two must agree on everything that can be seen.

mod clients;
mod model;
mod operation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use parlor_relay::App;
use parlor_relay::auth::resume::ResumeKey;
use parlor_relay::limits::Limits;
use parlor_relay::lobby::{Lobby, Survey};
use parlor_relay::room::index::{Index, MemoryIndex, Proposal, RoomKey, Verdict};
use parlor_transport::id::{AppId, SessionId};
use parlor_transport::token::keys::VerifyingKey;
use parlor_transport::units::{Timestamp, UnixTime};
use parlor_transport::wire::control::{ClientMessage, Departure, ResumeSecret};

use clients::Clients;
use model::{DATE, Expect, Key, Model};

/// Everybody knows it: what it signs can be in the corpus.
const SECRET: &str = "a secret of more than thirty-two bytes";
/// Operations in one run; it keeps a run within some ten milliseconds.
const OPERATIONS_MAX: usize = 400;

/// The first byte says how small the relay is; each operation has four bytes: what, who, and two that say more.
pub(super) fn lobby(input: &[u8]) {
    let Some((&size, operations)) = input.split_first() else { return };
    let mut run = Run::new(size);
    for bytes in operations.chunks_exact(4).take(OPERATIONS_MAX) {
        run.operate(bytes[0], bytes[1], bytes[2], bytes[3]);
        run.check();
        if bytes[3] & 1 == 0 {
            run.hang_up();
        }
    }
    run.end();
}

/// The secret of a session.
fn secret_of(session: u64) -> ResumeSecret {
    ResumeKey::from_bytes(&[3; 32]).secret_of(SessionId(session))
}

/// The index, which can be looked at while the lobby has it.
#[derive(Clone)]
struct Watched(Arc<Mutex<MemoryIndex>>);

impl Index for Watched {
    fn submit(&mut self, now: Timestamp, proposal: Proposal) {
        self.0.lock().expect("one thread").submit(now, proposal);
    }

    fn poll(&mut self) -> Option<Verdict> {
        self.0.lock().expect("one thread").poll()
    }

    fn set_limits(&mut self, limits: &Limits) {
        self.0.lock().expect("one thread").set_limits(limits);
    }
}

struct Run {
    lobby: Lobby,
    index: Watched,
    model: Model,
    clients: Clients,
    /// Each login and each attempt to resume is another, unless the input says otherwise.
    logins: u128,
}

impl Run {
    fn new(size: u8) -> Self {
        let default = Limits::default();
        let grace = if size & 2 == 0 { default.session_grace } else { Duration::ZERO };
        let limits = match size & 1 {
            0 => Limits { session_grace: grace, ..default },
            _ => Limits {
                session_grace: grace,
                connections_max: 6,
                rooms_max: 2,
                users_per_room_max: 2,
                publish_max: 1,
                play_max: 2,
                ..default
            },
        };
        let key = VerifyingKey::from_secret(SECRET).expect("long enough");
        let apps = [
            App::open(AppId::dev()),
            App::with_keys("shop".parse().expect("an id"), vec![key]).expect("one key"),
        ];
        let guarded = apps.iter().map(|app| (app.id().to_string(), !app.is_open())).collect();
        let index = Watched(Arc::new(Mutex::new(MemoryIndex::new(limits.clone(), 1))));
        let resume_key = ResumeKey::from_bytes(&[3; 32]);
        let mut lobby = Lobby::new(apps, limits.clone(), Box::new(index.clone()), resume_key);
        lobby.report_happenings();
        Run { lobby, index, model: Model::new(limits, guarded), clients: Clients::default(), logins: 0 }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.model.now * 1000)
    }

    fn date(&self) -> UnixTime {
        UnixTime::from_micros((DATE + self.model.now) * 1000)
    }

    fn connect(&mut self) {
        let session = self.lobby.connect(self.now()).ok().map(|session| session.0);
        assert_eq!(session, self.model.connect(), "a connection comes in, or not");
        if let Some(session) = session {
            self.clients.connect(session);
        }
    }

    /// A client asks for something.
    fn ask(&mut self, session: u64, request: u32, message: ClientMessage) {
        self.begin();
        let expect = self.model.handle(session, &message);
        self.lobby.handle(self.now(), self.date(), SessionId(session), message);
        self.finish(Some((session, request, expect)));
    }

    fn disconnect(&mut self, session: u64, was_lost: bool, reason: Departure) {
        self.begin();
        self.clients.disconnect(session);
        self.model.disconnect(session, was_lost);
        match was_lost {
            true => self.lobby.lose(self.now(), SessionId(session), reason),
            false => self.lobby.disconnect(self.now(), SessionId(session), reason),
        }
        self.finish(None);
    }

    /// Connections that were told to end do so; what they had sent before may still be handled until then.
    fn hang_up(&mut self) {
        for session in self.clients.closing() {
            self.disconnect(session, false, Departure::Disconnected);
            self.check();
        }
    }

    /// Time passes. What is due is done when it is, as the relay's shell does it.
    fn advance(&mut self, ms: u64) {
        self.begin();
        let to = self.model.now + ms;
        let mut last = self.now();
        while let Some(due) = self.lobby.poll_timeout().filter(|due| due.as_micros() <= to * 1000) {
            assert!(due >= last, "what was due is done");
            last = due;
            self.lobby.handle_timeout(due, UnixTime::from_micros(due.as_micros() + DATE * 1000));
        }
        self.model.advance(to);
        self.finish(None);
    }

    /// Before every operation.
    fn begin(&mut self) {
        self.clients.known = self.model.clients.keys().copied().collect();
        self.model.effects.clear();
    }

    /// After every operation: what came out of it.
    fn finish(&mut self, asked: Option<(u64, u32, Expect)>) {
        while let Some(output) = self.lobby.poll_output() {
            self.clients.take(output, &self.model);
        }
        self.clients.check_answers(asked, &self.model.effects);
    }

    /// Whether lobby, rooms, index, model and what the clients know are one.
    fn check(&mut self) {
        let Run { lobby, model, clients, .. } = self;
        let survey = lobby.survey();
        let live = |stream: &str, member: &model::Member| {
            model.publisher(&member.room.0, stream).is_some_and(|(_, of)| of.room == member.room)
        };
        let plays: usize = model.members().map(|(_, member)| member.plays.len()).sum();
        let streams: usize = model.members().map(|(_, member)| member.streams.len()).sum();
        let parked = model.members().filter(|(_, member)| member.parked.is_some()).count();
        let users = model.members().count();
        assert_eq!(
            (survey.connections, survey.rooms, survey.users, survey.streams, survey.plays, survey.parked),
            (model.clients.len(), model.rooms.len(), users, streams, plays, parked)
        );
        assert_eq!((survey.play_entries, survey.pending), (plays, 0));
        let tally = lobby.tally();
        assert_eq!((tally.joins, tally.refused.values().sum::<u64>()), (model.joins, model.refused));
        let listed = lobby.list_rooms(None, None, usize::MAX);
        let listed: Vec<Key> =
            listed.into_iter().map(|entry| (entry.key.app.to_string(), entry.key.room.to_string())).collect();
        assert!(listed.iter().eq(model.rooms.keys()), "{listed:?}");
        for (key, books) in &model.rooms {
            let name = RoomKey { app: key.0.parse().expect("an id"), room: key.1.parse().expect("an id") };
            let room = lobby.room(&name).expect("it is listed");
            let room = room.lock().expect("one thread");
            assert_eq!(room.position(), books.position, "position of {key:?}");
            let seen = clients::users_of(model, key);
            let here: BTreeMap<_, _> =
                room.roster().iter().map(|user| (user.user.to_string(), user.name.to_string())).collect();
            assert_eq!(here, seen, "who is in {key:?}");
            let sessions: BTreeSet<u64> = room.roster().sessions().map(|session| session.0).collect();
            let stays = model.members().filter(|(_, m)| m.room == *key).map(|(session, _)| session).collect();
            assert_eq!(sessions, stays, "the stays of {key:?}");
            let published: BTreeMap<_, _> =
                room.streams().iter().map(|s| (s.stream.to_string(), s.user.to_string())).collect();
            assert_eq!(published, clients::streams_of(model, key), "what is published in {key:?}");
        }
        clients.check(model, live);
    }

    /// Everybody goes, and nothing is left.
    fn end(mut self) {
        for session in self.clients.serving() {
            self.disconnect(session, session % 2 == 0, Departure::HeartbeatTimeout);
            self.check();
        }
        self.advance(3_600_000);
        self.check();
        assert_eq!(self.lobby.survey(), Survey::default());
        assert_eq!(self.lobby.poll_timeout(), None);
        assert!(self.index.0.lock().expect("one thread").is_empty());
        assert!(self.model.clients.is_empty() && self.model.rooms.is_empty());
        self.clients.check_end();
    }
}

#[cfg(test)]
mod tests {
    use super::super::seeds::history;

    /// `HISTORIES=100000` looks further than a test run may.
    #[test]
    fn any_history_is_as_the_rules_say() {
        let count = std::env::var("HISTORIES").ok().and_then(|count| count.parse().ok()).unwrap_or(200);
        for seed in 0..count {
            let run = || super::lobby(&history(seed as u8, 0x1_0000 + seed, 250));
            if std::panic::catch_unwind(run).is_err() {
                panic!("history {seed} is not as the rules say");
            }
        }
    }
}
