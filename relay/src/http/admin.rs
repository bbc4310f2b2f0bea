//! The admin API as values: what a method, path and body ask for, and the answer as JSON. `docs/operating.md` lists it.
//! Who may ask is decided before.

use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::{AppId, IdError, RoomId, StreamId, UserId};
use parlor_transport::units::{Timestamp, UnixTime};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::limits::ADMIN_PAGE_MAX;
use crate::lobby::Lobby;
use crate::lobby::moderation::Ban;
use crate::overload::Shed;
use crate::room::index::RoomKey;
use crate::server::OverloadFigures;

/// Something to be done or told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Task {
    Rooms {
        app: Option<AppId>,
        page: Page,
    },
    Room(RoomKey),
    Users {
        room: RoomKey,
        page: Page,
    },
    Streams {
        room: RoomKey,
        page: Page,
    },
    CloseRoom(RoomKey),
    Kick {
        app: AppId,
        room: Option<RoomId>,
        user: UserId,
    },
    RemoveStream {
        room: RoomKey,
        stream: StreamId,
    },
    ForbidPublish {
        room: RoomKey,
        user: UserId,
        ban: Ban,
    },
    AllowPublish {
        room: RoomKey,
        user: UserId,
    },
    /// Of the machine, not the lobby: to leave out this whatever is measured, or again what is measured, or nothing new.
    Overload(Option<Option<Shed>>),
}

/// Which part of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Page {
    /// Behind this id; for rooms of all apps, app and room with a slash between.
    after: Option<String>,
    most: usize,
}

/// A status and a JSON body.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Answer { status: 200, body }
    }

    fn failure(status: u16, refusal: &Refusal) -> Self {
        let code = refusal.code.number();
        Answer { status, body: json!({ "code": code, "error": refusal.text }) }
    }

    /// The request is not one.
    fn bad(text: impl Into<String>) -> Self {
        Answer { status: 400, body: json!({ "error": text.into() }) }
    }

    fn unknown() -> Self {
        let text = "there is nothing at this path; docs/operating.md lists what there is";
        Answer { status: 404, body: json!({ "error": text }) }
    }
}

impl From<IdError> for Answer {
    fn from(error: IdError) -> Self {
        Answer::failure(400, &Refusal::new(Code::BadId, error.to_string()))
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            Code::NotFound | Code::NotPublishing => 404,
            _ => 409,
        };
        Answer::failure(status, &refusal)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BanBody {
    /// Seconds since 1970.
    until: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OverloadBody {
    level: u8,
    /// Only with level 4.
    video_eighths: Option<u8>,
}

/// What is asked for; `path` begins behind `/admin`.
///
/// # Errors
/// The answer when it is nothing that there is.
pub(super) fn parse(method: &str, path: &str, query: &str, body: &[u8]) -> Result<Task, Answer> {
    let parts: Option<Vec<String>> = path.split('/').skip(1).map(decode).collect();
    let parts =
        parts.ok_or_else(|| Answer::bad("the path has a % that is not followed by two digits of it"))?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let key = |app: &str, room: &str| -> Result<RoomKey, Answer> {
        Ok(RoomKey { app: AppId::new(app)?, room: RoomId::new(room)? })
    };
    let get = Method::of(method, "GET");
    let delete = Method::of(method, "DELETE");
    Ok(match parts[..] {
        ["rooms"] => get.then(Task::Rooms { app: None, page: page(query)? })?,
        ["apps", app, "rooms"] => {
            get.then(Task::Rooms { app: Some(AppId::new(app)?), page: page(query)? })?
        }
        ["apps", app, "rooms", room] => match method {
            "DELETE" => Task::CloseRoom(key(app, room)?),
            _ => Method { allow: "GET, DELETE", ..get }.then(Task::Room(key(app, room)?))?,
        },
        ["apps", app, "rooms", room, "users"] => {
            get.then(Task::Users { room: key(app, room)?, page: page(query)? })?
        }
        ["apps", app, "rooms", room, "streams"] => {
            get.then(Task::Streams { room: key(app, room)?, page: page(query)? })?
        }
        ["apps", app, "users", user] => {
            delete.then(Task::Kick { app: AppId::new(app)?, room: None, user: UserId::new(user)? })?
        }
        ["apps", app, "rooms", room, "users", user] => {
            let RoomKey { app, room } = key(app, room)?;
            delete.then(Task::Kick { app, room: Some(room), user: UserId::new(user)? })?
        }
        ["apps", app, "rooms", room, "streams", stream] => {
            let stream = StreamId::new(stream)?;
            delete.then(Task::RemoveStream { room: key(app, room)?, stream })?
        }
        ["apps", app, "rooms", room, "users", user, "publish-ban"] => {
            let (room, user) = (key(app, room)?, UserId::new(user)?);
            match method {
                "DELETE" => Task::AllowPublish { room, user },
                _ => {
                    let put = Method { allow: "PUT, DELETE", ..Method::of(method, "PUT") };
                    put.then(Task::ForbidPublish { room, user, ban: ban(body)? })?
                }
            }
        }
        ["overload"] => Task::Overload(match method {
            "PUT" => Some(Some(shed(body)?)),
            "DELETE" => Some(None),
            _ => Method { allow: "GET, PUT, DELETE", ..get }.then(None)?,
        }),
        _ => return Err(Answer::unknown()),
    })
}

struct Method {
    is_it: bool,
    allow: &'static str,
}

impl Method {
    fn of(method: &str, allow: &'static str) -> Self {
        Method { is_it: method == allow, allow }
    }

    fn then<T>(&self, task: T) -> Result<T, Answer> {
        let text = format!("this path takes {}", self.allow);
        if self.is_it { Ok(task) } else { Err(Answer { status: 405, body: json!({ "error": text }) }) }
    }
}

fn ban(body: &[u8]) -> Result<Ban, Answer> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Ban::Stay);
    }
    let body: BanBody = serde_json::from_slice(body).map_err(|error| {
        Answer::bad(format!(
            "the body is not as it should be: {error}; it looks like {{\"until\": 1795698000}} or {{}}"
        ))
    })?;
    Ok(body.until.map_or(Ban::Stay, |until| Ban::Until(UnixTime::from_secs(until.min(u64::MAX / 1_000_000)))))
}

fn shed(body: &[u8]) -> Result<Shed, Answer> {
    let form = "it looks like {\"level\": 2}, or {\"level\": 4, \"video_eighths\": 3}; levels go from 0 to 4, eighths from 1 to 8";
    let body: OverloadBody = serde_json::from_slice(body)
        .map_err(|error| Answer::bad(format!("the body is not as it should be: {error}; {form}")))?;
    let shed = match body.video_eighths {
        None => Shed::from_level(body.level),
        Some(eighths) => Shed::from_share(eighths).filter(|shed| shed.level() == body.level),
    };
    shed.ok_or_else(|| Answer::bad(format!("there is no such level; {form}")))
}

/// Whether the machine keeps up.
pub(super) fn overload(figures: &OverloadFigures) -> Answer {
    let OverloadFigures { shed, is_forced, lateness, is_full } = *figures;
    Answer::ok(json!({
        "level": shed.level(), "video_eighths": shed.share(), "forced": is_forced, "joins_refused": is_full,
        "lateness_ms": lateness.as_secs_f64() * 1000.0,
    }))
}

fn page(query: &str) -> Result<Page, Answer> {
    let mut page = Page { after: None, most: ADMIN_PAGE_MAX };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value)
            .ok_or_else(|| Answer::bad("the query has a % that is not followed by two digits of it"))?;
        match name {
            "after" => page.after = Some(value),
            "limit" => {
                let limit = value.parse::<usize>().ok().filter(|limit| (1..=ADMIN_PAGE_MAX).contains(limit));
                let text = || format!("limit is a number from 1 to {ADMIN_PAGE_MAX}");
                page.most = limit.ok_or_else(|| Answer::bad(text()))?;
            }
            _ => return Err(Answer::bad("the query knows limit and after, nothing else")),
        }
    }
    Ok(page)
}

/// Text with its %-escapes undone; `None` if one is none, or what comes is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Does it.
pub(super) fn execute(now: Timestamp, date: UnixTime, lobby: &mut Lobby, task: Task) -> Answer {
    try_execute(now, date, lobby, task).unwrap_or_else(|answer| answer)
}

fn try_execute(now: Timestamp, date: UnixTime, lobby: &mut Lobby, task: Task) -> Result<Answer, Answer> {
    Ok(match task {
        Task::Rooms { app, page } => {
            let after = page.after.as_deref().map(|after| room_after(app.as_ref(), after)).transpose()?;
            let rooms = lobby.list_rooms(app.as_ref(), after.as_ref(), page.most);
            let next = rooms.last().filter(|_| rooms.len() == page.most).map(|last| match &app {
                Some(_) => last.key.room.to_string(),
                None => format!("{}/{}", last.key.app, last.key.room),
            });
            let rooms: Vec<_> = rooms
                .iter()
                .map(|room| {
                    json!({
                        "app": room.key.app.as_str(), "room": room.key.room.as_str(), "epoch": room.epoch,
                        "users": room.users, "streams": room.streams,
                    })
                })
                .collect();
            Answer::ok(json!({ "rooms": rooms, "next": next }))
        }
        Task::Room(key) => {
            let room = lobby.room(&key).ok_or_else(|| {
                let text = format!("app {:?} has no room {:?} that anybody is in", key.app, key.room);
                Refusal::new(Code::NotFound, text)
            })?;
            let room = crate::lock(&room);
            Answer::ok(json!({
                "app": key.app.as_str(), "room": key.room.as_str(), "epoch": room.epoch(),
                "position": room.position(), "users": room.roster().len(), "streams": room.streams().iter().count(),
            }))
        }
        Task::Users { room, page } => {
            let after = page.after.map(UserId::new).transpose()?;
            let users = lobby.list_users(&room, after.as_ref(), page.most)?;
            let next = users.last().filter(|_| users.len() == page.most).map(|last| last.user.to_string());
            let users: Vec<_> = users
                .iter()
                .map(|user| json!({ "user": user.user.as_str(), "name": user.name.as_str() }))
                .collect();
            Answer::ok(json!({ "users": users, "next": next }))
        }
        Task::Streams { room, page } => {
            let after = page.after.map(StreamId::new).transpose()?;
            let streams = lobby.list_streams(&room, after.as_ref(), page.most)?;
            let full = streams.len() == page.most;
            let next = streams.last().filter(|_| full).map(|last| last.stream.to_string());
            let streams: Vec<_> = streams
                .iter()
                .map(|stream| {
                    let tracks: Vec<_> = (stream.tracks.iter())
                        .map(|track| {
                            json!({
                                "kind": format!("{:?}", track.kind), "codec": track.codec,
                                "spatial_layers": track.spatial_layers, "temporal_layers": track.temporal_layers,
                            })
                        })
                        .collect();
                    json!({ "stream": stream.stream.as_str(), "user": stream.user.as_str(), "tracks": tracks })
                })
                .collect();
            Answer::ok(json!({ "streams": streams, "next": next }))
        }
        Task::CloseRoom(key) => {
            let users = lobby.close_room(now, &key)?;
            Answer::ok(json!({ "users": users }))
        }
        Task::Kick { app, room, user } => {
            lobby.kick(now, &app, room.as_ref(), &user)?;
            Answer::ok(json!({}))
        }
        Task::RemoveStream { room, stream } => {
            lobby.remove_stream(now, &room, &stream)?;
            Answer::ok(json!({}))
        }
        Task::ForbidPublish { room, user, ban } => {
            lobby.forbid_publish(now, date, &room, &user, ban)?;
            Answer::ok(json!({}))
        }
        Task::Overload(_) => return Err(Answer::unknown()),
        Task::AllowPublish { room, user } => {
            Answer::ok(json!({ "lifted": lobby.allow_publish(&room, &user) }))
        }
    })
}

fn room_after(app: Option<&AppId>, after: &str) -> Result<RoomKey, Answer> {
    let (app, room) = match (app, after.split_once('/')) {
        (Some(app), _) => (app.clone(), after),
        (None, Some((app, room))) => (AppId::new(app)?, room),
        (None, None) => return Err(Answer::bad("after is APP/ROOM here, as next gave it")),
    };
    Ok(RoomKey { app, room: RoomId::new(room)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, path: &str, query: &str, body: &str) -> u16 {
        parse(method, path, query, body.as_bytes()).map_or_else(|answer| answer.status, |_| 200)
    }

    #[test]
    fn paths_mean_what_they_say_and_nothing_else_is_taken() {
        let key = RoomKey { app: AppId::dev(), room: RoomId::new("a,b").unwrap() };
        let user = UserId::new("ann").unwrap();
        assert_eq!(
            parse("DELETE", "/apps/dev/rooms/a%2Cb/users/ann", "", b""),
            Ok(Task::Kick { app: AppId::dev(), room: Some(key.room.clone()), user: user.clone() })
        );
        let path = "/apps/dev/rooms/a,b/users/ann/publish-ban";
        let forbid = |ban| Ok(Task::ForbidPublish { room: key.clone(), user: user.clone(), ban });
        assert_eq!(parse("PUT", path, "", b""), forbid(Ban::Stay));
        assert_eq!(parse("PUT", path, "", b" {} "), forbid(Ban::Stay));
        assert_eq!(parse("PUT", path, "", b"{\"until\": 5}"), forbid(Ban::Until(UnixTime::from_secs(5))));
        assert!(parse("PUT", path, "", format!("{{\"until\": {}}}", u64::MAX).as_bytes()).is_ok());
        for (method, path, query, body, expected) in [
            ("GET", "/rooms", "limit=5&after=dev%2Fr", "", 200),
            ("GET", "/rooms", "limit=0", "", 400),
            ("GET", "/rooms", "limit=1001", "", 400),
            ("GET", "/rooms", "users=1", "", 400),
            ("GET", "/rooms", "after=%f", "", 400),
            ("GET", "/rooms", "after=%ff", "", 400),
            ("POST", "/rooms", "", "", 405),
            ("GET", "/apps/dev/rooms/r", "", "", 200),
            ("DELETE", "/apps/dev/rooms/r", "", "", 200),
            ("PATCH", "/apps/dev/rooms/r", "", "", 405),
            ("GET", "/apps/dev/rooms/r%2", "", "", 400),
            ("GET", "/apps/dev/rooms/r%zz", "", "", 400),
            ("GET", "/apps/dev/rooms/r%20x", "", "", 400),
            ("GET", "/apps/dev/rooms//users", "", "", 400),
            ("GET", "/apps/dev/users/ann", "", "", 405),
            ("PUT", "/apps/dev/rooms/r/users/ann/publish-ban", "", "{\"until\": -1}", 400),
            ("PUT", "/apps/dev/rooms/r/users/ann/publish-ban", "", "{\"for\": 1}", 400),
            ("PUT", "/apps/dev/rooms/r/users/ann/publish-ban", "", "[[[[", 400),
            ("GET", "/overload", "", "", 200),
            ("PUT", "/overload", "", "{\"level\": 2}", 200),
            ("PUT", "/overload", "", "{\"level\": 4, \"video_eighths\": 3}", 200),
            ("PUT", "/overload", "", "{\"level\": 5}", 400),
            ("PUT", "/overload", "", "{\"level\": 3, \"video_eighths\": 3}", 400),
            ("PUT", "/overload", "", "{\"level\": 4, \"video_eighths\": 0}", 400),
            ("PUT", "/overload", "", "", 400),
            ("DELETE", "/overload", "", "", 200),
            ("POST", "/overload", "", "", 405),
            ("GET", "", "", "", 404),
            ("GET", "/", "", "", 404),
            ("GET", "/apps/dev/rooms/r/users/ann/x/y", "", "", 404),
        ] {
            assert_eq!(status(method, path, query, body), expected, "{method} {path}?{query} {body}");
        }
    }
}
