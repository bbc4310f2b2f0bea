//! If this fails, the `parlor` command says or returns something else than its help promises. The relay is a script on
//! this machine's loopback; with a real one the command is tried in `command.rs`.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::process::{Command, Output};

use parlor_transport::id::SessionId;
use parlor_transport::quic::tls::Identity;
use parlor_transport::quic::{Arrival, Binding, Endpoint, Options};
use parlor_transport::wire::control::{
    ClientMessage, Done, Joined, RelayMessage, ResumeSecret, RoomMessage, SnapshotPage, StreamKind, UserInfo,
    Welcome,
};

fn parlor(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parlor"));
    command.env_remove("PARLOR_TOKEN").env_remove("PARLOR_TOKEN_FILE");
    command.args(args).output().unwrap()
}

fn fails(args: &[&str], exit: i32, why: &str) {
    let output = parlor(args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {text}");
    assert!(text.contains(why), "{args:?}: {text}");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_sent() {
    let good = "parlor://127.0.0.1:9/room";
    fails(&["join", "http://here/room"], 2, "parlor://host:4433/room");
    fails(&["join", "parlor://127.0.0.1"], 2, "no room is named");
    fails(&["join", good, "--as", "a b"], 2, "user id holds ' '");
    fails(&["join", good, "--publish", "x.avi"], 2, "choose pattern, camera, or files");
    fails(&["join", good, "--publish", "missing.mp4"], 2, "missing.mp4");
    fails(&["join", good, "--publish", "Cargo.toml.y4m"], 2, "check the path");
    fails(&["join", good, "--play", "a b"], 2, "stream id holds ' '");
    fails(&["join", good, "--seconds", "0"], 2, "number of seconds");
    fails(&["record", good, "--stream", "s", "--out", "."], 2, "is a directory");
    fails(
        &["record", good, "--stream", "s", "--out", "nowhere/x.mp4"],
        2,
        "choose a path in a folder that exists",
    );
    fails(
        &["record", good, "--stream", "s", "--out", "Cargo.toml/x.mp4"],
        2,
        "cannot write Cargo.toml/x.mp4",
    );
    for command in ["join", "room"] {
        fails(&[command, good, "--qlog", "Cargo.toml"], 2, "choose a directory that may be written");
    }
    fails(&["record", good, "--stream", "s s", "--out", "x.mp4"], 2, "stream id holds ' '");
    fails(&[], 2, "Usage");
}

/// One connection, in whose room there is somebody else.
async fn serve(endpoint: Endpoint) {
    let session = endpoint.accept().await.unwrap().accept().await.unwrap();
    let (mut inbound, _lanes) = session.inbound();
    let Arrival::Requests(mut sender, mut receiver) = inbound.next().await.unwrap() else {
        panic!("requests")
    };
    let mut events = session.open_messages(StreamKind::Events).await.unwrap();
    let user = |id: &str| UserInfo { user: id.try_into().unwrap(), name: "Ann".try_into().unwrap() };
    while let Ok(Some(message)) = receiver.recv::<ClientMessage>().await {
        let answer = match message {
            ClientMessage::Hello(_) => {
                let (clock, session) = (session.clock().now(), SessionId(1));
                let (publish_max, play_max) = (1, 1);
                RelayMessage::Welcome(Welcome {
                    version: 1,
                    features: 0,
                    session,
                    clock,
                    publish_max,
                    play_max,
                })
            }
            ClientMessage::Join(join) => {
                let users = vec![user(join.user.as_str()), user("ann")];
                let (epoch, position, page, last) = (1, 1, 0, true);
                let page = SnapshotPage {
                    epoch,
                    position,
                    page,
                    last,
                    users_total: 2,
                    users,
                    streams: vec![],
                    extras: None,
                };
                events.send(&RoomMessage::Page(page)).await.unwrap();
                RelayMessage::Joined(Joined {
                    request: join.request,
                    epoch: 1,
                    position: 1,
                    users: 2,
                    secret: ResumeSecret([1; 16]),
                })
            }
            ClientMessage::Leave(leave) => RelayMessage::Done(Done { request: leave.request }),
            _ => continue,
        };
        sender.send(&answer).await.unwrap();
    }
}

#[test]
fn a_room_is_shown_and_a_wrong_certificate_is_not_trusted() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (identity, endpoint) = runtime.block_on(async {
        let identity = Identity::ephemeral().unwrap();
        let binding = Binding::udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = Endpoint::server(binding, &identity, Options::default()).unwrap();
        (identity, endpoint)
    });
    let here = format!("parlor://{}/standup", endpoint.local_addr().unwrap());
    let wrong = format!("{here}#sha256={}", "ab".repeat(32));
    let refused = endpoint.clone();
    runtime.spawn(async move { refused.accept().await.unwrap().accept().await.is_err() });
    fails(&["room", &wrong], 1, "certificate is not the expected one");

    runtime.spawn(serve(endpoint));
    let right = format!("{here}#sha256={}", identity.fingerprint());
    let output = parlor(&["room", &right, "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["room"], "standup");
    assert_eq!(json["users"], serde_json::json!([{ "id": "ann", "name": "Ann" }]));
}

/// A folder of its own, gone at the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("parlor-cli-{name}-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes what a command printed.
    fn keep(&self, name: &str, output: &Output) -> String {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(self.0.join(name), &output.stdout).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_app_is_made_with_its_keys_and_tokens_of_them_are_verified() {
    let folder = Folder::new("app");
    let here = folder.0.canonicalize().unwrap();
    let create = |rest: &[&str]| {
        parlor(&[&["app", "create", "shop", "--directory", here.to_str().unwrap()], rest].concat())
    };
    for (algorithm, sign, verify) in [
        ("HS256", ("--secret-file", "shop-HS256.secret"), ("--secret-file", "shop-HS256.secret")),
        ("EdDSA", ("--private-key", "shop-EdDSA.private.pem"), ("--public-key", "shop-EdDSA.public.pem")),
        ("ES256", ("--private-key", "shop-ES256.private.pem"), ("--public-key", "shop-ES256.public.pem")),
    ] {
        let made = create(&["--algorithm", algorithm, "--kid", algorithm]);
        let text = String::from_utf8(made.stdout.clone()).unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let file = here.join(verify.1).to_str().unwrap().to_owned();
        assert!(text.contains("[[apps]]\nname = \"shop\"\n") && text.contains(&file), "{text}");
        let (sign_file, verify_file) = (folder.path(sign.1), folder.path(verify.1));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&sign_file).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{sign_file} is for its owner alone");
        }
        let secret = std::fs::read_to_string(&sign_file).unwrap();
        assert!(
            !text.contains(secret.lines().nth(1).unwrap_or(&secret).trim()),
            "the secret stays in its file"
        );
        fails(
            &[
                "app",
                "create",
                "shop",
                "--directory",
                here.to_str().unwrap(),
                "--algorithm",
                algorithm,
                "--kid",
                algorithm,
            ],
            1,
            "choose another --kid",
        );

        let base = ["token", "create", "--app", "shop", "--as", "ann", "--room", "sales-*"];
        let rest = ["--stream", "ann-*", "--kid", algorithm, "--expires", "2h", sign.0, &sign_file];
        let token = folder.keep("token", &parlor(&[&base[..], &rest].concat()));
        let seen = parlor(&["token", "inspect", &token, verify.0, &verify_file, "--json"]);
        assert!(seen.status.success(), "{}", String::from_utf8_lossy(&seen.stderr));
        let json: serde_json::Value = serde_json::from_slice(&seen.stdout).unwrap();
        assert_eq!((json["algorithm"].as_str(), json["kid"].as_str()), (Some(algorithm), Some(algorithm)));
        assert_eq!((json["signature"].as_str(), json["state"].as_str()), (Some("good"), Some("valid now")));
        assert_eq!(json["claims"]["streams"], serde_json::json!(["ann-*"]));
        assert_eq!(json["claims"]["room"], "sales-*");
        let words = String::from_utf8(parlor(&["token", "inspect", &token]).stdout).unwrap();
        assert!(words.contains("publish    ann-*") && words.contains("not verified"), "{words}");
    }
    fails(
        &["token", "inspect", &folder.path("token"), "--public-key", &folder.path("shop-EdDSA.public.pem")],
        1,
        "does not vouch",
    );
    let printed = parlor(&["app", "create", "bank", "--print-secret"]);
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.status.success() && text.contains("secret = \""), "{text}");
}

#[test]
fn what_is_wrong_with_keys_and_tokens_is_said_with_the_way_out() {
    let folder = Folder::new("wrong");
    std::fs::write(folder.0.join("short"), "hunter2\n").unwrap();
    let (short, nowhere) = (folder.path("short"), folder.path("nowhere"));
    let token = ["token", "create", "--app", "shop", "--as", "ann", "--room", "r"];
    let create = |rest: &[&'static str]| -> Vec<String> {
        token.iter().chain(rest).map(|word| (*word).to_owned()).collect()
    };
    let fails =
        |args: Vec<String>, exit, why| fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), exit, why);
    fails(create(&[]), 2, "--secret-file");
    fails([create(&["--secret-file"]), vec![short.clone()]].concat(), 2, "has 7 bytes; give 32 to 1024");
    fails([create(&["--secret-file"]), vec![nowhere.clone()]].concat(), 2, "check the path");
    fails([create(&["--private-key"]), vec![short.clone()]].concat(), 2, "BEGIN PRIVATE KEY");
    fails(create(&["--expires", "soon", "--secret-file", "x"]), 2, "write 90s, 15m, 1h or 7d");
    fails(vec!["token".into(), "inspect".into(), short.clone()], 1, "is not a JSON Web Token");
    fails(vec!["app".into(), "create".into(), "sh op".into()], 2, "app id holds ' '");
    fails(
        vec!["app".into(), "create".into(), "a".into(), "--algorithm".into(), "none".into()],
        2,
        "choose HS256, EdDSA or ES256",
    );
    fails(
        vec!["app".into(), "create".into(), "a".into(), "--directory".into(), nowhere.clone()],
        1,
        "choose another --directory",
    );
    let join = |rest: &[&str]| -> Vec<String> {
        ["join", "parlor://127.0.0.1:9/r"].iter().chain(rest).map(|word| (*word).to_owned()).collect()
    };
    fails(join(&["--token", "sec ret"]), 2, "a character at byte 3 that no token has");
    fails(join(&["--token-file", &nowhere]), 2, "check the path");
}
