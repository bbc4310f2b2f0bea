//! If this fails, the `parlor` command says or returns something else than its help promises. The relay is a script on
//! this machine's loopback; with a real one the command is tried in `command.rs`.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::process::{Command, Output};

use parlor_transport::id::SessionId;
use parlor_transport::quic::tls::Identity;
use parlor_transport::quic::{Arrival, Binding, Endpoint, Options};
use parlor_transport::wire::control::{
    ClientMessage, Done, Joined, RelayMessage, RoomMessage, SnapshotPage, StreamKind, UserInfo, Welcome,
};

fn parlor(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_parlor")).args(args).output().unwrap()
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
                let page =
                    SnapshotPage { epoch, position, page, last, users_total: 2, users, streams: vec![] };
                events.send(&RoomMessage::Page(page)).await.unwrap();
                RelayMessage::Joined(Joined { request: join.request, epoch: 1, position: 1, users: 2 })
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
