//! What four bytes mean. Names are few, so that operations meet.

use std::time::Duration;

use bytes::Bytes;
use parlor_relay::lobby::moderation::Ban;
use parlor_relay::room::index::RoomKey;
use parlor_transport::error::Code;
use parlor_transport::id::{LoginId, SessionId, StreamId, UserId};
use parlor_transport::token::Token;
use parlor_transport::token::claims::Claims;
use parlor_transport::token::keys::SigningKey;
use parlor_transport::units::UnixTime;
use parlor_transport::wire::control::*;
use parlor_transport::wire::hop::LANE_MAX;

use super::model::{DATE, Expect, Key};
use super::{Run, SECRET};

/// Times that pass: within a second, about the grace of a session (4 s) and of a token (10 s), and long. All are multiples
/// of 50 ms, see the model's budgets.
const TIMES: [u64; 8] = [50, 500, 1_000, 3_950, 4_000, 10_000, 20_000, 70_000];
/// Seconds that tokens hold.
const SECONDS: [u64; 4] = [1, 15, 100, 1_000];

impl Run {
    /// Does what the bytes say; not everything is possible at any time.
    pub(super) fn operate(&mut self, what: u8, who: u8, a: u8, b: u8) {
        // The numbers of requests that become lanes: few, so that some are used twice, and one that is too large.
        let request = if who & 0x80 == 0 { 1 + u32::from(b >> 4) } else { self.clients.next_request() };
        match what % 32 {
            0 | 1 => return self.connect(),
            2 => return self.advance(TIMES[usize::from(a % 8)]),
            3 => return self.operator(a, b),
            _ => {}
        }
        let Some(session) = self.clients.nth(who & 0x7f) else { return };
        match what % 32 {
            4 => {
                let reason = if b & 1 == 0 { Departure::HeartbeatTimeout } else { Departure::Disconnected };
                self.disconnect(session, !a.is_multiple_of(4), reason);
            }
            5 => self.clients.toggle_reading(session),
            6 => self.say(session, request, a, b),
            7 => self.resume(session, request, a, b),
            8 => self.ask(session, request, ClientMessage::ProbeClock(ProbeClock { sent: self.now() })),
            // A good beginning in one operation: most of what happens needs a room.
            9..=12 => {
                if self.model.is_new(session) {
                    self.ask(session, 0, hello(0));
                }
                self.join(session, request, a, b);
            }
            13 => self.ask(session, 0, hello(a)),
            14 | 15 => self.join(session, request, a, b),
            16 => self.ask(session, request, ClientMessage::Leave(Leave { request })),
            17..=19 => self.ask(session, lane(request, a), publish(lane(request, a), a, b)),
            20 => {
                let stream = stream(a);
                self.ask(session, request, ClientMessage::Unpublish(Unpublish { request, stream }));
            }
            21 | 22 => {
                let play = Play { request: lane(request, b), stream: stream(a), wishes: wishes(a) };
                self.ask(session, play.request, ClientMessage::Play(play));
            }
            23 => {
                let update = UpdatePlay { request, stream: stream(a), wishes: wishes(a) };
                self.ask(session, request, ClientMessage::UpdatePlay(update));
            }
            24 => {
                let stop = StopPlay { request, stream: stream(a) };
                self.ask(session, request, ClientMessage::StopPlay(stop));
            }
            25 => {
                let (stream, track, state) = (stream(a), b & 3, TrackState::from_number(b >> 2 & 7));
                let set = SetTrackState { request, stream, track, state };
                self.ask(session, request, ClientMessage::SetTrackState(set));
            }
            26 => {
                let set = SetStreamInfo { request, stream: stream(a), info: text(b) };
                self.ask(session, request, ClientMessage::SetStreamInfo(set));
            }
            27 => {
                let key = if a == 0 { String::new() } else { format!("k{}", a % 40) };
                let set = SetRoomInfo { request, key, value: text(b) };
                self.ask(session, request, ClientMessage::SetRoomInfo(set));
            }
            28 => {
                let Some((app, room, user)) = self.place(session) else { return };
                let token = self.token(&app, &room, &user, a, b);
                self.ask(session, request, ClientMessage::RenewToken(RenewToken { request, token }));
            }
            29 | 30 => self.moderate(session, request, a, b),
            _ => {
                let ask = RequestKeyframe { lane: request, track: a & 3 };
                self.ask(session, request, ClientMessage::RequestKeyframe(ask));
            }
        }
    }

    fn place(&self, session: u64) -> Option<(String, String, String)> {
        let member = self.model.member(session)?;
        Some((member.room.0.clone(), member.room.1.clone(), member.user.clone()))
    }

    fn new_login(&mut self) -> LoginId {
        self.logins += 1;
        LoginId(self.logins.to_be_bytes())
    }

    fn join(&mut self, session: u64, request: u32, a: u8, b: u8) {
        let app = match a & 7 {
            0..=3 => "dev",
            4..=6 => "shop",
            _ => "nobody",
        };
        let (room, user) = (format!("r{}", a >> 3 & 1), format!("u{}", a >> 4 & 3));
        // One login for several joins, as a client makes that tries several connections at once.
        let login = if a & 0x40 == 0 { self.new_login() } else { LoginId([7; 16]) };
        let token = (app == "shop" || b & 1 != 0).then(|| self.token(app, &room, &user, b, b >> 4));
        let token = token.filter(|_| b & 0xf != 0xf);
        self.ask(
            session,
            request,
            ClientMessage::Join(Join {
                request,
                app: app.parse().expect("an id"),
                room: room.parse().expect("an id"),
                user: user.parse().expect("an id"),
                name: format!("name{session}").parse().expect("a name"),
                login,
                token,
                presence: Presence {
                    unseen: b & 0xe0 == 0xe0,
                    uninterested: b & 0x18 == 0x18,
                    publishers_only: b & 0x06 == 0x06,
                },
            }),
        );
    }

    /// A token that is mostly good.
    fn token(&mut self, app: &str, room: &str, user: &str, a: u8, b: u8) -> Token {
        let pick =
            |wrong: bool, name: &str, other: &str| if wrong { other.to_owned() } else { name.to_owned() };
        let odd = (a ^ b) & 0x0f;
        let expires = match odd {
            4 => DATE + self.model.now,
            _ => DATE + self.model.now + SECONDS[usize::from(b & 3)] * 1000,
        };
        let mut claims = Claims::new(
            pick(odd == 1, app, "bank").parse().expect("an id"),
            pick(odd == 2, user, "u9").parse().expect("an id"),
            pick(odd == 3, room, if a & 0x40 == 0 { "r9" } else { "r*" }).parse().expect("a pattern"),
            UnixTime::from_micros(expires * 1000),
        );
        claims.join = odd != 5;
        claims.publish = a & 0x30 != 0;
        claims.moderate = b & 4 != 0;
        claims.streams = (a & 0x30 == 0x30).then(|| vec!["s0".parse().expect("a pattern")]);
        let is_signed = odd != 6;
        let secret = if is_signed { SECRET } else { "another secret of more than thirty-two bytes" };
        let key = SigningKey::from_secret(secret).expect("long enough");
        let token = key.sign(&claims).expect("small enough");
        self.model.tokens.insert(token.as_str().to_owned(), (claims, is_signed));
        token
    }

    fn resume(&mut self, session: u64, request: u32, a: u8, b: u8) {
        // Sessions that there were, and some that there will be.
        let earlier = u64::from(a % 24) + 1;
        let secret =
            if b & 1 == 0 || b & 0x30 != 0 { super::secret_of(earlier) } else { super::secret_of(0) };
        let known = match b >> 1 & 3 {
            0 | 1 => self.clients.place(earlier),
            2 => None,
            // What the relay never said: it costs the client its events.
            _ => self.clients.place(earlier).map(|(epoch, position)| (epoch, position + 1_000)),
        };
        let attempt = if b & 8 == 0 { self.new_login() } else { LoginId([9; 16]) };
        if self.model.is_new(session) && b & 0x80 == 0 {
            self.ask(session, 0, hello(0));
        }
        let resume = Resume { request, session: SessionId(earlier), secret, attempt, known };
        self.ask(session, request, ClientMessage::Resume(resume));
    }

    fn say(&mut self, session: u64, request: u32, a: u8, b: u8) {
        let to = (0..a % 4).map(|n| user((a >> 2).wrapping_add(n))).collect();
        let payload = Bytes::from(vec![b; usize::from(b) * 64]);
        let say = Say { request, to, lossy: a & 0x80 != 0, payload };
        self.begin();
        let (expect, to) = self.model.say(session, &say);
        self.lobby.handle_app_message(self.now(), SessionId(session), AppMessage::Say(say));
        self.clients.expect_message(matches!(expect, Expect::Done).then_some(to));
        self.finish(Some((session, request, expect)));
    }

    fn moderate(&mut self, session: u64, request: u32, a: u8, b: u8) {
        let action = match a & 3 {
            0 => ModerateAction::Kick { user: user(b) },
            1 => ModerateAction::RemoveStream { stream: stream(b) },
            _ => ModerateAction::ForbidPublish { user: user(b), seconds: u32::from(a >> 2 & 3) * 30 },
        };
        self.ask(session, request, ClientMessage::Moderate(Moderate { request, action }));
    }

    /// What is done over the admin API.
    fn operator(&mut self, a: u8, b: u8) {
        let key: Key = (["dev", "shop"][usize::from(b & 1)].to_owned(), format!("r{}", b >> 1 & 1));
        let name = RoomKey { app: key.0.parse().expect("an id"), room: key.1.parse().expect("an id") };
        let (now, date, user, stream) = (self.now(), self.date(), user(b >> 2), stream(b >> 2));
        self.begin();
        let (did, ought): (Result<usize, Code>, Result<usize, Code>) = match a % 8 {
            0 | 1 => {
                let room = a.is_multiple_of(8).then_some(&name.room);
                let did = self.lobby.kick(now, &name.app, room, &user);
                let ought = self.model.kick(&key.0, room.map(|room| room.as_str()), user.as_str());
                (did.map(|()| 0).map_err(|refusal| refusal.code), ought.map(|()| 0))
            }
            2 if a & 0x30 == 0 => {
                let did = self.lobby.close_room(now, &name);
                (did.map_err(|refusal| refusal.code), self.model.close_room(&key))
            }
            3 => {
                let did = self.lobby.remove_stream(now, &name, &stream);
                let ought = self.model.remove_stream(&key, stream.as_str());
                (did.map(|()| 0).map_err(|refusal| refusal.code), ought.map(|()| 0))
            }
            4 => {
                let seconds = u64::from(a >> 3 & 3) * 30;
                let ban = match seconds {
                    0 => Ban::Stay,
                    seconds => Ban::Until(date + Duration::from_secs(seconds)),
                };
                let did = self.lobby.forbid_publish(now, date, &name, &user, ban);
                let until = (seconds > 0).then(|| DATE + self.model.now + seconds * 1000);
                let ought = self.model.forbid_publish(&key, user.as_str(), until);
                (did.map(|()| 0).map_err(|refusal| refusal.code), ought.map(|()| 0))
            }
            5 => {
                let did = self.lobby.allow_publish(&name, &user);
                (Ok(did.into()), Ok(self.model.allow_publish(&key, user.as_str()).into()))
            }
            // Rarely: nobody joins afterwards.
            6 if a >> 3 == 0 && b == 0 => {
                self.lobby.drain(Some("parlor://other:4433"));
                self.model.is_draining = true;
                (Ok(0), Ok(0))
            }
            _ => (Ok(0), Ok(0)),
        };
        assert_eq!(did, ought, "the operator's {a} in {key:?}");
        self.finish(None);
    }
}

fn hello(versions: u8) -> ClientMessage {
    let (version_min, version_max) = match versions % 8 {
        7 => (VERSION + 1, VERSION + 2),
        6 => (VERSION, 0),
        _ => (VERSION, VERSION),
    };
    ClientMessage::Hello(Hello { version_min, version_max, features: 0, agent: "fuzz".into() })
}

fn publish(request: u32, a: u8, b: u8) -> ClientMessage {
    let layers = if b & 0x0f == 0x0f { 9 } else { 1 };
    let track = TrackInfo {
        kind: TrackKind::Video,
        codec: String::new(),
        spatial_layers: layers,
        temporal_layers: 1,
    };
    let tracks = vec![track; usize::from(b & 3)];
    let tracks = if tracks.is_empty() && b & 4 == 0 { vec![audio()] } else { tracks };
    ClientMessage::Publish(Publish { request, stream: stream(a), tracks, delivery: Delivery::Adaptive })
}

fn audio() -> TrackInfo {
    TrackInfo { kind: TrackKind::Audio, codec: String::new(), spatial_layers: 1, temporal_layers: 1 }
}

/// Rarely a number that cannot be a lane.
fn lane(request: u32, a: u8) -> u32 {
    if a >= 0xf8 { LANE_MAX + 1 } else { request }
}

fn stream(n: u8) -> StreamId {
    format!("s{}", n & 3).parse().expect("an id")
}

fn user(n: u8) -> UserId {
    // One more than there are.
    format!("u{}", n % 5).parse().expect("an id")
}

fn wishes(a: u8) -> Vec<TrackWish> {
    let count = if a >= 0xf0 { TRACKS_PER_STREAM_MAX + 1 } else { usize::from(a >> 6) };
    (0..count).map(|track| TrackWish::all(track as u8)).collect()
}

/// Empty, short, or as long as may be.
fn text(b: u8) -> String {
    "x".repeat([0, 1, 40, 1_000][usize::from(b & 3)])
}
