//! If this fails, one client that breaks the rules harms others, or is not told what it did wrong.
//!
//! Every offence happens while two others are in a call, who must not lose a frame or an event.
#![allow(clippy::unwrap_used)]

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use parlor_transport::error::Code;
use parlor_transport::id::StreamAlias;
use parlor_transport::repair::Shape;
use parlor_transport::sim::{self, Profile};
use parlor_transport::wire::control::*;
use parlor_transport::wire::feedback::KIND_FEEDBACK;
use parlor_transport::wire::frame::FrameHeader;
use parlor_transport::wire::hop::HopHeader;
use parlor_transport::wire::packet::{KIND_PACKET, Packet, Part};
use parlor_transport::wire::varint;
use support::*;
use tracing_subscriber::fmt::MakeWriter;

const VIDEO: &[TrackKind] = &[TrackKind::Video];

/// Runs `offence` by a third client during a call of two, and checks that the call loses nothing. The
/// offender has to be sent away with `code` and a text that holds `why`.
fn offence(code: Code, why: &str, act: impl AsyncFn(&World, Client)) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    // Simulations run on one thread.
    let _logging = tracing::subscriber::set_default(subscriber);
    sim::run(1, async |sim| {
        let world = World::start(&sim).await;
        let mut u1 = world.enter("r", "u1").await;
        let mut u2 = world.enter("r", "u2").await;
        let mut cam = u1.publish("cam", Delivery::Datagram, VIDEO).await;
        u2.play("cam", Delivery::Datagram).await;
        let caller = tokio::spawn({
            let clock = sim.clock().clone();
            async move {
                for frame in 0..60 {
                    cam.send(0, frame % 30 == 0, 3000);
                    clock.sleep(millis(33)).await;
                }
            }
        });

        let offender = world.connect("offender", Profile::perfect().with_rtt(RTT)).await;
        let session = offender.session.clone();
        act(&world, offender).await;
        let ended = session.closed().await;
        assert_eq!((ended.code, ended.by_peer), (code, true), "{ended}");
        assert!(ended.text.contains(why), "{ended}");

        caller.await.unwrap();
        for number in 0..60 {
            let received = u2.frame().await;
            assert_eq!((received.frame.header().number, received.missed), (number, 0));
        }
        world.pass(millis(100)).await;
        assert_eq!(world.relay.survey().users, 2);
        log.assert_told_once(why);
        u1.hang_up();
        u2.hang_up();
        world.assert_empty().await;
    });
}

/// What the relay logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The relay's operator hears what was wrong: in one line when the connection ended, and in one before it if the
    /// offender could be told in a message. However often it was done.
    fn assert_told_once(&self, why: &str) {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = |what: &str| log.lines().filter(|line| line.contains(what)).collect::<Vec<_>>();
        let ended = lines("connection ended");
        assert!(ended.len() == 1 && ended[0].contains(why), "{log}");
        assert!(lines("closing").len() <= 1, "{log}");
        assert_eq!(lines(" ERROR "), [""; 0], "{log}");
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

/// Keeps the client alive until its connection ends.
async fn wait(client: Client) {
    client.ended().await;
}

async fn send_raw(client: &mut Client, bytes: impl Into<Bytes>) {
    client.requests.send_encoded(bytes.into()).await.unwrap();
}

#[test]
fn a_version_of_the_future() {
    offence(Code::VersionMismatch, "versions 7 to 9, this relay 1 to 1; update", async |_, mut client| {
        let hello = Hello { version_min: 7, version_max: 9, features: 0, agent: String::new() };
        client.send(ClientMessage::Hello(hello)).await;
        assert!(matches!(client.answer().await, RelayMessage::Closing(_)));
        wait(client).await;
    });
}

#[test]
fn a_join_before_hello() {
    offence(Code::ProtocolViolation, "first message must be Hello", async |_, mut client| {
        client.send(join("r", "u3")).await;
        wait(client).await;
    });
}

#[test]
fn hello_twice() {
    offence(Code::ProtocolViolation, "Hello came twice", async |_, mut client| {
        client.send(hello()).await;
        client.send(hello()).await;
        wait(client).await;
    });
}

#[test]
fn a_message_that_is_cut_short() {
    offence(Code::ProtocolViolation, "cut short", async |_, mut client| {
        client.send(hello()).await;
        let whole = encode(&join("r", "u3"));
        send_raw(&mut client, whole.slice(..whole.len() - 1)).await;
        client.requests.finish().await;
        wait(client).await;
    });
}

#[test]
fn a_body_that_is_cut_short() {
    offence(Code::ProtocolViolation, "cannot be read", async |_, mut client| {
        client.send(hello()).await;
        // Join, three bytes.
        send_raw(&mut client, Bytes::from_static(&[0x02, 3, 1, 3, b'd'])).await;
        wait(client).await;
    });
}

#[test]
fn a_message_that_is_too_long() {
    offence(Code::TooLarge, "at most 40960", async |_, mut client| {
        client.send(hello()).await;
        let mut head = BytesMut::new();
        varint::put(&mut head, 0x02);
        varint::put(&mut head, 1 << 40);
        send_raw(&mut client, head.freeze()).await;
        wait(client).await;
    });
}

#[test]
fn an_id_with_a_wrong_character() {
    offence(Code::BadId, "room id holds ' '", async |_, mut client| {
        client.send(hello()).await;
        let good = encode(&join("a_room", "u3"));
        let at = good.windows(6).position(|window| window == b"a_room").unwrap();
        let mut bad = good.to_vec();
        bad[at + 1] = b' ';
        send_raw(&mut client, bad).await;
        wait(client).await;
    });
}

#[test]
fn a_request_number_used_twice() {
    offence(Code::ProtocolViolation, "used twice", async |_, mut client| {
        client.send(hello()).await;
        client.send(join("r", "u3")).await;
        for stream in ["a", "b"] {
            let stream = parlor_transport::id::StreamId::new(stream).unwrap();
            client.send(ClientMessage::Play(Play { request: 5, stream, wishes: vec![] })).await;
        }
        wait(client).await;
    });
}

#[test]
fn more_requests_than_anyone_needs() {
    offence(Code::TooManyRequests, "too many requests", async |world, mut client| {
        client.send(hello()).await;
        client.send(join("r", "u3")).await;
        for _ in 0..1000 {
            let probe = ProbeClock { sent: world.now() };
            if client.requests.send(&ClientMessage::ProbeClock(probe)).await.is_err() {
                break;
            }
        }
        wait(client).await;
    });
}

#[test]
fn a_client_that_never_joins() {
    offence(Code::HeartbeatTimeout, "no room was joined", async |_, mut client| {
        client.send(hello()).await;
        wait(client).await;
    });
}

#[test]
fn a_client_that_does_not_read_its_answers() {
    offence(Code::ProtocolViolation, "stopped reading", async |_, mut client| {
        client.send(hello()).await;
        client.send(join("r", "u3")).await;
        client.stop_reading();
        for _ in 0..10 {
            _ = client
                .requests
                .send(&ClientMessage::ProbeClock(ProbeClock { sent: Default::default() }))
                .await;
        }
        wait(client).await;
    });
}

/// Frames that are well formed and do not fit what was published.
#[test]
fn frames_that_do_not_fit_their_publication() {
    type Change = fn(FrameHeader) -> FrameHeader;
    let cases: [(&str, Change); 4] = [
        ("alias", |header| FrameHeader { alias: StreamAlias(999), ..header }),
        ("no track 3", |header| FrameHeader { track: 3, ..header }),
        ("no layer 2/0", |header| FrameHeader { spatial: 2, ..header }),
        ("no layer 0/1", |header| FrameHeader { temporal: 1, ..header }),
    ];
    for (why, change) in cases {
        for delivery in [Delivery::QuicStream, Delivery::Datagram] {
            offence(Code::BadFrame, why, async |_, mut client| {
                client.send(hello()).await;
                client.send(join("r", "u3")).await;
                client.answer().await;
                client.answer().await;
                let mut stream = client.publish("bad", delivery, VIDEO).await;
                stream.send_as(change(stream.header(0, true)), 10);
                wait(client).await;
            });
        }
    }
}

/// Joins and publishes, and gives the lane.
async fn settle_in(client: &mut Client) -> u32 {
    client.send(hello()).await;
    client.send(join("r", "u3")).await;
    client.answer().await;
    client.answer().await;
    client.publish("bad", Delivery::Datagram, VIDEO).await.lane
}

#[test]
fn datagrams_that_are_none_of_ours() {
    let cases: [(&str, Code, &'static [u8]); 6] = [
        ("datagram kind", Code::ProtocolViolation, &[]),
        ("0x77 is not a media packet", Code::ProtocolViolation, &[0x77, 1, 2, 3]),
        ("cut short", Code::ProtocolViolation, &[KIND_PACKET, 0, 0]),
        ("0x09 is unknown", Code::ProtocolViolation, &[KIND_PACKET, 0, 0, 0x09, 2, 0, 0]),
        ("lane", Code::TooLarge, &[KIND_PACKET, 0, 0, 0x01, 0xc0, 0, 0, 0, 0x40, 0, 0, 0, 0]),
        ("cut short", Code::ProtocolViolation, &[KIND_FEEDBACK, 0x40]),
    ];
    for (why, code, bytes) in cases {
        offence(code, why, async |_, mut client| {
            settle_in(&mut client).await;
            // The first is enough; the others find nobody.
            for _ in 0..50 {
                _ = client.session.send_raw_datagram(Bytes::from_static(bytes));
            }
            wait(client).await;
        });
    }
}

#[test]
fn symbols_that_contradict_each_other() {
    let part = |lane, length: usize, index, byte| {
        let shape = Shape::new(length).unwrap();
        let bytes = vec![byte; shape.range(index).len()].into();
        Part::Source { hop: HopHeader { lane, track: 0, sequence: 0 }, shape, index, bytes }
    };
    type Second = (usize, usize, u8);
    let cases: [(&str, Second); 2] =
        [("its length changed", (5000, 1, 1)), ("different bytes", (3000, 0, 2))];
    for (why, (length, index, byte)) in cases {
        offence(Code::ProtocolViolation, why, async |_, mut client| {
            let lane = settle_in(&mut client).await;
            let parts = [part(lane, 3000, 0, 1), part(lane, length, index, byte)];
            for (tx_seq, part) in (0..).zip(parts) {
                let packet = Packet { tx_seq, burst: 0, is_calm: false, parts: vec![part] };
                client.session.send_raw_datagram(packet.encode()).unwrap();
            }
            wait(client).await;
        });
    }
}

#[test]
fn quic_streams_of_an_unknown_kind() {
    // A stream for requests goes both ways, so that one way its kind is as unknown as any.
    for kind in [0x77, StreamKind::Requests as u8] {
        offence(Code::ProtocolViolation, "QUIC stream kind", async |_, mut client| {
            settle_in(&mut client).await;
            for _ in 0..3 {
                _ = client.session.send_raw_stream(false, vec![kind, 1, 2, 3].into()).await;
            }
            wait(client).await;
        });
    }
    // The only one that may go both ways is the one for requests.
    sim::run(6, async |sim| {
        let world = World::start(&sim).await;
        let (_endpoint, session) = world.open("u1", Profile::perfect(), world.trust).await.unwrap();
        session.send_raw_stream(true, vec![0x77, 1, 2, 3].into()).await.unwrap();
        let ended = session.closed().await;
        assert_eq!((ended.code, ended.by_peer), (Code::ProtocolViolation, true), "{ended}");
        assert!(ended.text.contains("QUIC stream kind"), "{ended}");
        world.assert_empty().await;
    });
}

#[test]
fn symbols_of_a_lane_that_nobody_opened_are_ignored() {
    sim::run(5, async |sim| {
        let world = World::start(&sim).await;
        let mut client = world.connect("u1", Profile::perfect().with_rtt(RTT)).await;
        let lane = settle_in(&mut client).await;
        let hop = HopHeader { lane: lane + 1, track: 0, sequence: 0 };
        let part = Part::Source { hop, shape: Shape::new(10).unwrap(), index: 0, bytes: vec![1; 10].into() };
        let packet = Packet { tx_seq: 0, burst: 0, is_calm: false, parts: vec![part] };
        client.session.send_raw_datagram(packet.encode()).unwrap();
        world.pass(millis(200)).await;
        client.publish("good", Delivery::Datagram, VIDEO).await;
    });
}

#[test]
fn unknown_messages_are_skipped() {
    sim::run(2, async |sim| {
        let world = World::start(&sim).await;
        let mut client = world.connect("u1", Profile::perfect().with_rtt(RTT)).await;
        client.send(hello()).await;
        send_raw(&mut client, Bytes::from_static(&[0x40, 0xff, 3, b'n', b'e', b'w'])).await;
        client.send(join("r", "u1")).await;
        assert!(matches!(client.answer().await, RelayMessage::Welcome(_)));
        assert!(matches!(client.answer().await, RelayMessage::Joined(_)));
    });
}

#[test]
fn requests_that_cannot_be_granted_are_refused_and_the_connection_goes_on() {
    sim::run(3, async |sim| {
        let world = World::start(&sim).await;
        let mut client = world.connect("u1", Profile::perfect().with_rtt(RTT)).await;
        client.send(hello()).await;
        assert!(matches!(client.answer().await, RelayMessage::Welcome(_)));
        client.play("cam", Delivery::Datagram).await;
        assert_eq!(client.refusal().await.0, Code::NotJoined);
        client.ask_publish("cam", Delivery::Datagram, VIDEO).await;
        let (code, text) = client.refusal().await;
        assert_eq!(code, Code::NotJoined);
        assert_eq!(
            text,
            "stream \"cam\" cannot be published: no room was joined on this connection; join first"
        );
        client.send(join("r", "u1")).await;
        assert!(matches!(client.answer().await, RelayMessage::Joined(_)));
        client.ask_publish("cam", Delivery::Datagram, &[]).await;
        let (code, text) = client.refusal().await;
        assert_eq!(code, Code::BadTracks);
        assert!(text.starts_with("stream \"cam\": a stream has 1 to 8 tracks"), "{text}");
        client.send(join("r2", "u1")).await;
        assert_eq!(client.refusal().await.0, Code::AlreadyJoined);
        client.publish("cam", Delivery::Datagram, VIDEO).await;
    });
}

#[test]
fn a_relay_that_is_full_says_so() {
    sim::run(4, async |sim| {
        let mut config = parlor_relay::Config::dev();
        config.limits.connections_max = 1;
        let world = World::start_with(&sim, config).await;
        let u1 = world.enter("r", "u1").await;
        let late = world.connect("u2", Profile::perfect().with_rtt(RTT)).await;
        let ended = late.ended().await;
        assert_eq!((ended.code, ended.by_peer), (Code::RelayFull, true));
        u1.hang_up();
        world.pass(millis(100)).await;
        world.enter("r", "u3").await;
    });
}
