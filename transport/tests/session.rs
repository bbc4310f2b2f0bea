//! Sessions over the simulated network: if these fail, messages or frames do not get through, are
//! late without a reason, or a peer that breaks the rules is not told so.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use parlor_transport::error::Code;
use parlor_transport::id::StreamAlias;
use parlor_transport::quic::{
    Arrival, Endpoint, Identity, MessageReceiver, MessageSender, Options, Outgoing, RecvError, Session, Trust,
};
use parlor_transport::sim::{self, Jitter, Loss, Profile, Sim};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{
    ClientMessage, ClockReply, Delivery, Hello, ProbeClock, RelayMessage, VERSION,
};
use parlor_transport::wire::frame::{Frame, FrameHeader};
use tokio::task::JoinHandle;

const RTT: Duration = Duration::from_millis(50);

fn frame(number: u64, size: usize) -> Frame {
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
    Frame::new(header, &vec![number as u8; size]).unwrap()
}

fn hello() -> ClientMessage {
    ClientMessage::Hello(Hello {
        version_min: VERSION,
        version_max: VERSION,
        features: 0,
        agent: "test".into(),
    })
}

/// A server and a client, each on its host. The server's end comes half a round trip after the client's.
async fn pair(sim: &Sim, client_link: Profile) -> (Session, JoinHandle<Session>) {
    let identity = Identity::ephemeral().unwrap();
    let trust = Trust::Pinned(identity.fingerprint());
    let relay = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
    let server = Endpoint::server(relay.binding(4433).unwrap(), &identity, Options::default()).unwrap();
    let address = server.local_addr().unwrap();
    let host = sim.host("client", client_link);
    let client = Endpoint::client(host.binding(0).unwrap(), Options::default()).unwrap();
    let accept = tokio::spawn(async move { server.accept().await.unwrap().accept().await.unwrap() });
    let session = client.connect(address, "relay", trust).await.unwrap();
    (session, accept)
}

async fn requests(session: &Session) -> (MessageSender, MessageReceiver) {
    let (mut inbound, _) = session.inbound();
    match inbound.next().await.unwrap() {
        Arrival::Requests(send, recv) => {
            tokio::spawn(async move { while inbound.next().await.is_ok() {} });
            (send, recv)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_in_the_first_flight_is_answered_after_two_round_trips() {
    sim::run(1, async |sim| {
        let (client, server) = pair(&sim, Profile::perfect().with_rtt(RTT)).await;
        tokio::spawn(async move {
            let server = server.await.unwrap();
            let (mut answers, mut asked) = requests(&server).await;
            while let Ok(Some(message)) = asked.recv::<ClientMessage>().await {
                if let ClientMessage::ProbeClock(probe) = message {
                    let now = server.clock().now();
                    let reply = ClockReply { probe_sent: probe.sent, received: now, sent: now };
                    answers.send(&RelayMessage::ClockReply(reply)).await.unwrap();
                }
            }
        });
        let (mut send, mut recv) = client.open_requests().await.unwrap();
        send.send(&hello()).await.unwrap();
        send.send(&ClientMessage::ProbeClock(ProbeClock { sent: sim.clock().now() })).await.unwrap();
        let reply = recv.recv::<RelayMessage>().await.unwrap().unwrap();
        assert!(matches!(reply, RelayMessage::ClockReply(_)));
        let took = sim.clock().now().saturating_since(Timestamp::ZERO);
        assert!(took <= 2 * RTT + Duration::from_millis(1), "{took:?}");
    });
}

/// Sends `count` frames at 30/s and returns the ages and numbers of those that came.
async fn send_frames(sim: &Sim, link: Profile, delivery: Delivery, count: u64) -> Vec<(u64, Duration)> {
    send_frames_of(sim, link, delivery, count, 4000, &mut |_, _| {}).await
}

/// The same with frames of `size` bytes; `look` is shown the sender's session before each.
async fn send_frames_of(
    sim: &Sim,
    link: Profile,
    delivery: Delivery,
    count: u64,
    size: usize,
    look: &mut impl FnMut(u64, &Session),
) -> Vec<(u64, Duration)> {
    let (client, server) = pair(sim, link).await;
    let server = server.await.unwrap();
    let (mut inbound, lanes) = server.inbound();
    lanes.open(3, delivery);
    let clock = sim.clock().clone();
    let start = clock.now();
    let receive = tokio::spawn(async move {
        let mut came = Vec::new();
        while let Ok(Arrival::Frame(received)) = inbound.next().await {
            let number = received.frame.header().number;
            assert_eq!(received.frame, frame(number, size));
            let sent = start + Duration::from_micros(33_333) * number as u32;
            came.push((number, server.clock().now().saturating_since(sent)));
        }
        came
    });
    // A sender that hears no reports sends less and less.
    let (mut reports, _) = client.inbound();
    let listen = tokio::spawn(async move { while reports.next().await.is_ok() {} });
    let mut media = client.media_sender();
    for number in 0..count {
        let due = start + Duration::from_micros(33_333) * number as u32;
        loop {
            tokio::select! {
                biased;
                () = clock.sleep_until(due) => break,
                () = media.progress() => {}
            }
        }
        look(number, &client);
        media.send(Outgoing {
            lane: 3,
            delivery,
            urgent: false,
            sequence: None,
            frame: frame(number, size).into(),
        });
        media.flush();
    }
    _ = clock
        .timeout(Duration::from_secs(2), async {
            loop {
                media.progress().await
            }
        })
        .await;
    client.close(Code::Ok, "done");
    listen.await.unwrap();
    receive.await.unwrap()
}

#[test]
fn frames_arrive_in_order_either_way_and_at_once_without_loss() {
    for delivery in [Delivery::QuicStream, Delivery::Datagram] {
        let came =
            sim::run(2, async |sim| send_frames(&sim, Profile::perfect().with_rtt(RTT), delivery, 300).await);
        assert_eq!(came.len(), 300, "{delivery:?}");
        assert!(came.iter().enumerate().all(|(at, (number, _))| at as u64 == *number));
        let slowest = came.iter().map(|(_, age)| *age).max().unwrap();
        assert!(slowest <= RTT / 2 + Duration::from_millis(2), "{delivery:?} {slowest:?}");
    }
}

#[test]
fn lost_packets_lose_frames_as_datagrams_and_only_time_on_quic_streams() {
    let link = || Profile::perfect().with_rtt(RTT).with_loss(Loss::Random(0.02));
    let count = |delivery| sim::run(3, async |sim| send_frames(&sim, link(), delivery, 300).await.len());
    assert_eq!(count(Delivery::QuicStream), 300);
    let datagrams = count(Delivery::Datagram);
    assert!((240..300).contains(&datagrams), "{datagrams} of 300 frames of 4 packets at 2 %");
}

/// A relay does this for every subscriber and frame. Each packet more, in either direction, wakes it once more.
#[test]
fn where_nothing_is_lost_a_frame_is_answered_by_one_packet() {
    const FRAMES: u64 = 30 * 12;
    let jittered = Jitter::InOrder { mean: Duration::from_millis(2), max: Duration::from_millis(8) };
    for (link, jitter) in [(None, None), (Some(20_000_000), None), (None, Some(jittered))] {
        let mut profile = Profile::perfect().with_rtt(Duration::from_millis(10));
        if let Some(rate) = link {
            profile = profile.with_rates((rate, 200_000), (rate, 200_000));
        }
        if let Some(jitter) = jitter {
            profile = profile.with_jitter(jitter);
        }
        let mut counted = Vec::new();
        let came = sim::run(5, async |sim| {
            send_frames_of(&sim, profile, Delivery::Adaptive, FRAMES, 8000, &mut |number, session| {
                // The first seconds may be watched more closely.
                if number == 30 * 5 || number + 1 == FRAMES {
                    counted.push(session.datagrams());
                }
            })
            .await
        });
        assert_eq!(came.len() as u64, FRAMES);
        let frames = (FRAMES - 1 - 30 * 5) as f64;
        let [(rx_before, tx_before), (rx, tx)] = counted[..] else { panic!("{counted:?}") };
        let (answers, packets) = ((rx - rx_before) as f64 / frames, (tx - tx_before) as f64 / frames);
        // An acknowledgement for each, and five reports a second, which are acknowledged.
        assert!(answers <= 1.2, "{link:?} {jitter:?}: {answers} packets come back for a frame");
        assert!(packets <= 8.2, "{link:?} {jitter:?}: {packets} leave for one of 8");
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told_with_a_code() {
    sim::run(4, async |sim| {
        let (client, server) = pair(&sim, Profile::perfect().with_rtt(RTT)).await;
        tokio::spawn(async move {
            let server = server.await.unwrap();
            let (_, mut asked) = requests(&server).await;
            match asked.recv::<ClientMessage>().await {
                Err(RecvError::Wire(error)) => server.close(Code::TooLarge, &error.to_string()),
                other => panic!("{other:?}"),
            }
        });
        let (mut send, _) = client.open_requests().await.unwrap();
        send.send_encoded(Bytes::from_static(&[0x02, 0xbf, 0xff, 0xff, 0xff])).await.unwrap();
        let ended = client.closed().await;
        assert_eq!((ended.code, ended.by_peer), (Code::TooLarge, true));
        assert!(ended.text.contains("message length is"), "{ended}");
    });
}

#[test]
fn a_certificate_that_does_not_match_is_named_as_such() {
    sim::run(5, async |sim| {
        let relay = sim.host("relay", Profile::perfect());
        let identity = Identity::ephemeral().unwrap();
        let server = Endpoint::server(relay.binding(4433).unwrap(), &identity, Options::default()).unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            while let Some(incoming) = server.accept().await {
                _ = incoming.accept().await;
            }
        });
        let host = sim.host("client", Profile::perfect());
        let client = Endpoint::client(host.binding(0).unwrap(), Options::default()).unwrap();
        let other = Identity::ephemeral().unwrap().fingerprint();
        let error = client.connect(address, "relay", Trust::Pinned(other)).await.unwrap_err();
        assert_eq!(error.code, Code::CertificateMismatch, "{error}");
        let error = client.connect(address, "relay", Trust::System).await.unwrap_err();
        assert_eq!(error.code, Code::CertificateMismatch, "{error}");
    });
}
