//! Connections on real sockets and several threads: if this fails, a wake-up is lost where a connection is handed from its
//! user's thread to that of the endpoint's task, or back, or one never ends.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use bytes::Bytes;
use parlor_transport::error::Code;
use parlor_transport::hop::CodedFrame;
use parlor_transport::id::StreamAlias;
use parlor_transport::quic::{Arrival, Binding, Endpoint, Identity, Options, Outgoing, Session, Trust};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{ClientMessage, ClockReply, Delivery, ProbeClock, RelayMessage};
use parlor_transport::wire::frame::{Frame, FrameHeader};
use tokio::task::JoinSet;

const CLIENTS: u64 = 24;
const MESSAGES: u64 = 200;
const FRAMES: u64 = 60;
const LANE: u32 = 7;

fn frame(number: u64) -> Frame {
    let header = FrameHeader {
        alias: StreamAlias(1),
        track: 0,
        spatial: 0,
        temporal: 0,
        number,
        captured: Timestamp::from_micros(number),
        keyframe: number == 0,
        discardable: false,
        level: None,
        metadata: Bytes::new(),
    };
    Frame::new(header, &vec![number as u8; 3000]).unwrap()
}

/// Answers every probe with its own time, and looks at every frame, until the client closes.
async fn serve(session: Session) {
    let (mut inbound, lanes) = session.inbound();
    lanes.open(LANE, Delivery::Adaptive);
    let mut answering = JoinSet::new();
    let ended = loop {
        match inbound.next().await {
            Ok(Arrival::Requests(mut answers, mut asked)) => {
                _ = answering.spawn(async move {
                    while let Ok(Some(message)) = asked.recv::<ClientMessage>().await {
                        let ClientMessage::ProbeClock(ProbeClock { sent }) = message else {
                            panic!("{message:?}")
                        };
                        let reply = ClockReply { probe_sent: sent, received: sent, sent };
                        answers.send(&RelayMessage::ClockReply(reply)).await.unwrap();
                    }
                })
            }
            Ok(Arrival::Frame(received)) => assert_eq!(received.frame, frame(received.frame.header().number)),
            Ok(other) => panic!("{other:?}"),
            Err(ended) => break ended,
        }
    };
    assert_eq!((ended.code, ended.text.as_str()), (Code::Ok, "done"));
    assert!(answering.join_next().await.unwrap().is_ok());
}

/// Writes and reads at the same time, and sends frames from a third task.
async fn call(session: Session) {
    let (mut requests, mut answers) = session.open_requests().await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for number in 0..MESSAGES {
            let sent = Timestamp::from_micros(number);
            requests.send(&ClientMessage::ProbeClock(ProbeClock { sent })).await.unwrap();
        }
    });
    tasks.spawn(async move {
        for number in 0..MESSAGES {
            let Some(RelayMessage::ClockReply(reply)) = answers.recv().await.unwrap() else { panic!() };
            assert_eq!(reply.probe_sent, Timestamp::from_micros(number));
        }
    });
    let mut media = session.media_sender();
    tasks.spawn(async move {
        for number in 0..FRAMES {
            let frame = CodedFrame::from(frame(number));
            let outgoing =
                Outgoing { lane: LANE, delivery: Delivery::Adaptive, urgent: false, sequence: None, frame };
            media.send(outgoing);
            media.flush();
            tokio::task::yield_now().await;
        }
    });
    while let Some(finished) = tasks.join_next().await {
        finished.unwrap();
    }
    session.close(Code::Ok, "done");
    assert_eq!(session.closed().await.text, "done");
}

/// Anybody may send one, and the system hands it over like any other.
#[tokio::test]
async fn an_empty_packet_does_not_stop_an_idle_endpoint() {
    let identity = Identity::ephemeral().unwrap();
    let loopback = || Binding::udp((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let server = Endpoint::server(loopback(), &identity, Options::default()).unwrap();
    let address = server.local_addr().unwrap();
    let stranger = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // Before the endpoint's task runs, and between its turns: the runtime looks at sockets every 61 of them.
    for _ in 0..10 {
        stranger.send_to(&[], address).unwrap();
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
    let client = Endpoint::client(loopback(), Options::default()).unwrap();
    let trust = Trust::Pinned(identity.fingerprint());
    let accept = tokio::spawn(async move { server.accept().await.unwrap().accept().await.is_ok() });
    assert!(client.connect(address, "localhost", trust).await.is_ok());
    assert!(accept.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_between_threads() {
    let identity = Identity::ephemeral().unwrap();
    let loopback = || Binding::udp((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let server = Endpoint::server(loopback(), &identity, Options::default()).unwrap();
    let address = server.local_addr().unwrap();
    // Half of them share a socket.
    let shared = Endpoint::client(loopback(), Options::default()).unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let trust = Trust::Pinned(identity.fingerprint());
        let endpoint = match number % 2 {
            0 => shared.clone(),
            _ => Endpoint::client(loopback(), Options::default()).unwrap(),
        };
        tasks.spawn(async move {
            call(endpoint.connect(address, "localhost", trust).await.unwrap()).await;
            endpoint.wait_idle().await;
        });
    }
    for _ in 0..CLIENTS {
        let incoming = server.accept().await.unwrap();
        tasks.spawn(async move { serve(incoming.accept().await.unwrap()).await });
    }
    while let Some(finished) = tasks.join_next().await {
        finished.unwrap();
    }
    server.wait_idle().await;
    server.close(Code::Ok, "");
    assert!(server.accept().await.is_none());
}
