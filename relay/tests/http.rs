//! If this fails, who runs a relay cannot see how it does, act on who is in it, or end it without cutting people off.
//!
//! Real processes and real sockets of this machine; everything is waited for, nothing timed.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::{env, fs, process};

use parlor_transport::address::RelayAddress;
use parlor_transport::error::Code;
use parlor_transport::quic::{Binding, Endpoint, MessageReceiver, MessageSender, Options, Session};
use parlor_transport::wire::control::*;
use serde_json::{Value, json};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A relay for development; ended when dropped.
struct Running {
    child: Child,
    directory: PathBuf,
    address: RelayAddress,
    http: SocketAddr,
}

impl Running {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let directory = env::temp_dir().join(format!("parlor-relay-http-{name}-{}", process::id()));
        _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_parlor-relay"));
        let settings = env::vars_os().map(|(name, _)| name);
        let settings = settings.filter(|name| name.to_string_lossy().starts_with("PARLOR_"));
        settings.for_each(|name| _ = command.env_remove(name));
        command.args(["--dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--tls-directory"]);
        command.arg(directory.join("tls")).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut http, mut address) = (None, None);
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap) {
            if let Some((_, rest)) = line.split_once("HTTP on http://") {
                http = Some(rest.split_once(": ").unwrap().0.parse().unwrap());
            }
            if let Some((_, rest)) = line.split_once("parlor join '") {
                address = Some(rest.split_once('\'').unwrap().0.parse().unwrap());
                break;
            }
        }
        Running { child, directory, address: address.unwrap(), http: http.unwrap() }
    }

    fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Sends bytes, and gives all that comes back.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        // One that is sent away may hear of it as a reset.
        _ = stream.read_to_string(&mut answer);
        answer
    }

    fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: relay\r\n{token}Content-Length: {length}\r\n\r\n{body}"
        );
        let answer = self.raw(request.as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {answer:?}"));
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, None, "")
    }

    fn administer(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.ask(method, &format!("/admin{path}"), Some(TOKEN), body);
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn join(&self, user: &str) -> Guest {
        let endpoint =
            Endpoint::client(Binding::udp("127.0.0.1:0".parse().unwrap()).unwrap(), Options::default())
                .unwrap();
        let to = (self.address.host.parse::<std::net::IpAddr>().unwrap(), self.address.port).into();
        let session = endpoint.connect(to, &self.address.host, self.address.trust()).await.unwrap();
        let (mut requests, mut answers) = session.open_requests().await.unwrap();
        let hello = Hello { version_min: 1, version_max: 1, features: 0, agent: "http test".into() };
        requests.send(&ClientMessage::Hello(hello)).await.unwrap();
        let join = Join {
            request: 1,
            app: parlor_transport::id::AppId::dev(),
            room: self.address.room.clone().unwrap(),
            user: user.parse().unwrap(),
            name: "A \"quoted\" name".parse().unwrap(),
            login: parlor_transport::id::LoginId([user.len() as u8; 16]),
            token: None,
            presence: Presence::default(),
        };
        requests.send(&ClientMessage::Join(join)).await.unwrap();
        assert!(matches!(answers.recv().await.unwrap(), Some(RelayMessage::Welcome(_))));
        Guest { _endpoint: endpoint, session, requests, answers }
    }

    /// Waits for its end, which has to be orderly; gives the log.
    fn ended(&mut self) -> String {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert!(self.child.wait().unwrap().success(), "{log}");
        log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        _ = fs::remove_dir_all(&self.directory);
    }
}

struct Guest {
    _endpoint: Endpoint,
    session: Session,
    requests: MessageSender,
    answers: MessageReceiver,
}

impl Guest {
    async fn next(&mut self) -> RelayMessage {
        self.answers.recv().await.unwrap().unwrap()
    }
}

fn in_runtime(scenario: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(scenario);
}

#[test]
fn health_metrics_and_administration() {
    let token = env::temp_dir().join(format!("parlor-relay-http-token-{}", process::id()));
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let relay = Running::start("admin", &["--admin-token-file", token.to_str().unwrap()]);
    assert_eq!(relay.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(relay.get("/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(relay.get("/nowhere").0, 404);
    assert_eq!(relay.get("/administrator").0, 404);
    assert_eq!(relay.ask("POST", "/metrics", None, "").0, 405);
    assert!(relay.get("/metrics").1.contains("\nparlor_users 0\n"));

    for wrong in [None, Some(""), Some("0123456789abcdef0123456789abcdee"), Some("Bearer")] {
        let (status, body) = relay.ask("DELETE", "/admin/apps/dev/rooms/standup", wrong, "");
        assert_eq!(status, 401, "{wrong:?}: {body}");
    }
    // What is no HTTP, too long, or never ends in time costs its own connection.
    assert!(relay.raw(b"\x16\x03\x01 nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    let long = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert!(!relay.raw(long.as_bytes()).starts_with("HTTP/1.1 200"));
    let path = "/apps/dev/rooms/standup/users/ann/publish-ban";
    assert_eq!(relay.ask("PUT", &format!("/admin{path}"), Some(TOKEN), &"x".repeat(5_000)).0, 413);
    assert_eq!(relay.administer("PUT", path, "nonsense").0, 400);
    assert_eq!(relay.administer("GET", "/rooms", ""), (200, json!({ "rooms": [], "next": null })));
    let (status, body) = relay.administer("DELETE", "/apps/dev/rooms/standup", "");
    assert_eq!((status, &body["code"]), (404, &json!(1041)), "{body}");

    let (status, overload) = relay.administer("GET", "/overload", "");
    assert_eq!((status, &overload["forced"]), (200, &json!(false)), "{overload}");
    assert_eq!(relay.administer("PUT", "/overload", "{\"level\": 5}").0, 400);
    let (_, overload) = relay.administer("PUT", "/overload", "{\"level\": 4, \"video_eighths\": 3}");
    assert_eq!((&overload["level"], &overload["video_eighths"]), (&json!(4), &json!(3)), "{overload}");
    assert!(relay.get("/metrics").1.contains("\nparlor_overload_level 4\n"));
    let (_, overload) = relay.administer("PUT", "/overload", "{\"level\": 0}");
    assert_eq!((&overload["level"], &overload["forced"]), (&json!(0), &json!(true)), "{overload}");
    let (_, overload) = relay.administer("DELETE", "/overload", "");
    assert_eq!(overload["forced"], json!(false), "{overload}");

    in_runtime(async {
        let mut ann = relay.join("ann").await;
        assert!(matches!(ann.next().await, RelayMessage::Joined(_)));
        let track =
            TrackInfo { kind: TrackKind::Data, codec: "x".into(), spatial_layers: 1, temporal_layers: 1 };
        let publish = |request| {
            ClientMessage::Publish(Publish {
                request,
                stream: "cam".parse().unwrap(),
                tracks: vec![track.clone()],
                delivery: Delivery::Datagram,
            })
        };
        ann.requests.send(&publish(2)).await.unwrap();
        assert!(matches!(ann.next().await, RelayMessage::Published(_)));

        let (_, rooms) = relay.administer("GET", "/apps/dev/rooms?limit=1", "");
        assert_eq!((&rooms["rooms"][0]["users"], &rooms["next"]), (&json!(1), &json!("standup")), "{rooms}");
        let (_, rest) = relay.administer("GET", "/apps/dev/rooms?after=standup", "");
        assert_eq!(rest["rooms"], json!([]));
        assert_eq!(relay.administer("GET", "/apps/dev/rooms/standup", "").1["streams"], json!(1));
        let (_, users) = relay.administer("GET", "/apps/dev/rooms/standup/users", "");
        assert_eq!(users["users"], json!([{ "user": "ann", "name": "A \"quoted\" name" }]));
        let (_, streams) = relay.administer("GET", "/apps/dev/rooms/standup/streams", "");
        assert_eq!(streams["streams"][0]["stream"], json!("cam"));
        let (_, metrics) = relay.get("/metrics");
        for line in
            ["parlor_users 1", "parlor_streams 1", "parlor_joins_total 1", "parlor_rtt_seconds_count 1"]
        {
            assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
        }

        assert_eq!(relay.administer("DELETE", "/apps/dev/rooms/standup/streams/cam", "").0, 200);
        let RelayMessage::Refused(refused) = ann.next().await else { panic!("the publisher hears it") };
        assert_eq!((refused.request, refused.refusal.code), (2, Code::StreamRemoved));
        assert_eq!(relay.administer("PUT", path, "{}").0, 200);
        ann.requests.send(&publish(3)).await.unwrap();
        let RelayMessage::Refused(refused) = ann.next().await else { panic!("nothing is published") };
        assert_eq!((refused.request, refused.refusal.code), (3, Code::PublishBanned));
        assert_eq!(relay.administer("DELETE", path, "").1, json!({ "lifted": true }));
        ann.requests.send(&publish(4)).await.unwrap();
        assert!(matches!(ann.next().await, RelayMessage::Published(_)));

        assert_eq!(relay.administer("DELETE", "/apps/dev/users/ann", "").0, 200);
        let RelayMessage::Closing(closing) = ann.next().await else { panic!("the user hears it") };
        assert_eq!(closing.refusal.code, Code::Kicked);
        assert_eq!(ann.session.closed().await.code, Code::Kicked);
        assert_eq!(relay.administer("DELETE", "/apps/dev/users/ann", "").0, 404);
    });
    assert!(relay.get("/metrics").1.contains("parlor_refused_total{code=\"2021\"} 1\n"));
    _ = fs::remove_file(token);
}

#[test]
fn a_relay_that_ends_lets_people_finish_and_tells_the_way_out() {
    let mut relay = Running::start("drain", &["--drain-timeout-ms", "600000", "--overload-level", "2"]);
    let (status, body) = relay.ask("GET", "/admin/rooms", Some(TOKEN), "");
    assert!(status == 403 && body.contains("--admin-token-file"), "{body}");
    in_runtime(async {
        let mut ann = relay.join("ann").await;
        assert!(matches!(ann.next().await, RelayMessage::Joined(_)));
        assert_eq!(ann.next().await, RelayMessage::Overload(Overload { level: 2 }));
        assert!(relay.get("/metrics").1.contains("\nparlor_overload_level 2\n"));
        relay.terminate();
        assert_eq!(ann.next().await, RelayMessage::GoAway(GoAway { address: None }));
        assert_eq!(relay.get("/readyz"), (503, "draining\n".to_owned()));
        assert_eq!(relay.get("/healthz").0, 200);
        let mut late = relay.join("late").await;
        let RelayMessage::Refused(refused) = late.next().await else { panic!("nobody joins any more") };
        assert_eq!(refused.refusal.code, Code::RelayShutdown);
        // Who is there goes on.
        ann.requests.send(&ClientMessage::Leave(Leave { request: 2 })).await.unwrap();
        assert_eq!(ann.next().await, RelayMessage::Done(Done { request: 2 }));
        ann.session.close(Code::Ok, "");
        late.session.close(Code::Ok, "");
        ann._endpoint.wait_idle().await;
        late._endpoint.wait_idle().await;
    });
    let log = relay.ended();
    assert!(log.contains("draining"), "{log}");
}

#[test]
fn a_second_signal_ends_a_relay_at_once() {
    let mut relay = Running::start("twice", &["--drain-timeout-ms", "600000"]);
    in_runtime(async {
        let mut ann = relay.join("ann").await;
        assert!(matches!(ann.next().await, RelayMessage::Joined(_)));
        relay.terminate();
        assert!(matches!(ann.next().await, RelayMessage::GoAway(_)));
        relay.terminate();
        assert!(matches!(ann.next().await, RelayMessage::Closing(_)));
        assert_eq!(ann.session.closed().await.code, Code::RelayShutdown);
    });
    relay.ended();
}

/// The body of one post, whose signature has to be right; `None` when somebody comes who posts nothing.
fn receive(listener: &TcpListener, secret: &str, answer: &str) -> Option<Value> {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream);
    let (mut length, mut signature) = (0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap();
            }
            Some((name, value)) if name.eq_ignore_ascii_case("parlor-signature") => {
                signature = value.strip_prefix("sha256=").unwrap().to_owned();
            }
            _ if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let byte = |at: usize| u8::from_str_radix(&signature[at..at + 2], 16).unwrap();
    let tag: Vec<u8> = (0..signature.len()).step_by(2).map(byte).collect();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    ring::hmac::verify(&key, &body, &tag).unwrap();
    write!(reader.get_mut(), "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").unwrap();
    Some(serde_json::from_slice(&body).unwrap())
}

#[test]
fn the_apps_server_is_told_in_order_and_until_it_takes_it() {
    let secret = "key-of-the-shop!";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}/hook");
    let file = env::temp_dir().join(format!("parlor-relay-http-secret-{}", process::id()));
    fs::write(&file, format!("{secret}\n")).unwrap();
    let hooks = ["--webhook-url", &url, "--webhook-secret-file", file.to_str().unwrap()];
    let mut relay = Running::start("webhook", &[&hooks[..], &["--drain-timeout-ms", "0"]].concat());
    let posts = std::thread::spawn(move || {
        let answers = ["500 No", "204 Yes"].into_iter().chain(std::iter::repeat("200 OK"));
        answers.map_while(|answer| receive(&listener, secret, answer)).collect::<Vec<_>>()
    });
    in_runtime(async {
        let mut ann = relay.join("ann").await;
        assert!(matches!(ann.next().await, RelayMessage::Joined(_)));
        let track =
            TrackInfo { kind: TrackKind::Data, codec: "x".into(), spatial_layers: 1, temporal_layers: 1 };
        let publish = Publish {
            request: 2,
            stream: "cam".parse().unwrap(),
            tracks: vec![track],
            delivery: Delivery::Datagram,
        };
        ann.requests.send(&ClientMessage::Publish(publish)).await.unwrap();
        assert!(matches!(ann.next().await, RelayMessage::Published(_)));
        ann.requests.send(&ClientMessage::Leave(Leave { request: 3 })).await.unwrap();
        assert_eq!(ann.next().await, RelayMessage::Done(Done { request: 3 }));
        ann.session.close(Code::Ok, "");
    });
    // What is on its way is still told when the relay ends.
    relay.terminate();
    let log = relay.ended();
    drop(TcpStream::connect(address).unwrap());
    let posts = posts.join().unwrap();
    assert_eq!(posts.len(), 7, "{log}");
    assert_eq!(posts[0], posts[1], "tried again");
    let told: Vec<_> = posts[1..].iter().map(|post| post["event"].as_str().unwrap()).collect();
    let expected =
        ["room_opened", "user_joined", "stream_added", "stream_removed", "user_left", "room_closed"];
    assert_eq!(told, expected);
    let numbers: Vec<_> = posts[1..].iter().map(|post| post["sequence"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert!(posts.iter().all(|post| post["room"] == "standup" && post["epoch"] == posts[0]["epoch"]));
    assert_eq!((&posts[2]["user"], &posts[2]["users"]), (&json!("ann"), &json!(1)));
    assert_eq!((&posts[4]["stream"], &posts[4]["reason"]), (&json!("cam"), &json!("Left")));
    _ = fs::remove_file(file);
}

#[test]
fn the_configuration_is_read_again_for_who_may_ask_and_a_bad_one_changes_nothing() {
    let directory = env::temp_dir().join(format!("parlor-relay-http-reload-file-{}", process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("relay.toml");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("[limits]\nusers_per_room_max = 1\n");
    let token = directory.join("admin.token");
    fs::write(&token, TOKEN).unwrap();
    let relay = Running::start(
        "reload",
        &["--config", file.to_str().unwrap(), "--admin-token-file", token.to_str().unwrap()],
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut ann = relay.join("ann").await;
        assert!(matches!(ann.answers.recv().await.unwrap(), Some(RelayMessage::Joined(_))));
        let is_full = async |user: &str| {
            let mut guest = relay.join(user).await;
            match guest.answers.recv().await.unwrap() {
                Some(RelayMessage::Refused(refused)) => {
                    assert_eq!(refused.refusal.code, Code::RoomFull);
                    true
                }
                Some(RelayMessage::Joined(_)) => false,
                other => panic!("{other:?}"),
            }
        };
        assert!(is_full("bobby").await);
        assert_eq!(relay.ask("POST", "/admin/reload", None, "").0, 401);
        assert_eq!(relay.administer("GET", "/reload", "").0, 405);

        write("[limits]\nusers_per_room_max = many\n");
        let (status, answer) = relay.administer("POST", "/reload", "");
        let error = answer["error"].as_str().unwrap();
        assert!(status == 409 && error.contains("relay.toml:2"), "{status} {error}");
        assert!(error.contains("the old configuration stays in force"), "{error}");
        assert!(is_full("bobby").await);

        write("host = \"elsewhere\"\n[limits]\nusers_per_room_max = 9\n");
        let (status, answer) = relay.administer("POST", "/reload", "");
        assert_eq!((status, answer), (200, json!({ "apps": ["dev"], "needs_restart": ["host"] })));
        assert!(!is_full("charly").await);
    });
    relay.terminate();
    _ = fs::remove_dir_all(&directory);
}
