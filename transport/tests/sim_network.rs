//! If this fails, packets on the simulated network end otherwise than its documentation says.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use parlor_transport::sim::{self, Direction, Fate, LinkConfig, Loss, Profile, Sim};
use quinn::AsyncUdpSocket;
use quinn::udp::{RecvMeta, Transmit};

/// Both ways 10 ms and nothing else.
fn ten_ms() -> Profile {
    Profile::symmetric(LinkConfig { delay: Duration::from_millis(10), ..LinkConfig::default() })
}

fn send(socket: &dyn AsyncUdpSocket, destination: SocketAddr, contents: &[u8]) {
    socket
        .try_send(&Transmit { destination, contents, ecn: None, segment_size: None, src_ip: None })
        .unwrap();
}

/// The next datagram and where it came from.
async fn receive(socket: &dyn AsyncUdpSocket) -> (Vec<u8>, SocketAddr) {
    let (mut buffer, mut metas) = ([0; 2_000], [RecvMeta::default()]);
    let received =
        poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut metas)).await.unwrap();
    assert_eq!(received, 1);
    (buffer[..metas[0].len].to_vec(), metas[0].addr)
}

fn fates(sim: &Sim) -> Vec<Fate> {
    sim.network().trace().packets().iter().map(|end| end.fate).collect()
}

#[test]
fn a_packet_crosses_both_links_and_leaves_one_line() {
    sim::run(1, async |sim| {
        let (alice, bob) = (sim.host("alice", ten_ms()), sim.host("bob", ten_ms()));
        let (from, to) = (alice.socket(0).unwrap(), bob.socket(5000).unwrap());
        sim.clock().sleep(Duration::from_millis(1)).await;
        send(&*from, to.local_addr().unwrap(), b"hello");
        assert_eq!(receive(&*to).await, (b"hello".to_vec(), "10.0.0.1:49152".parse().unwrap()));
        assert_eq!(sim.clock().now().as_micros(), 21_000);
        let trace = sim.network().trace();
        assert_eq!(trace.to_string(), "21000 10.0.0.1:49152 10.0.0.2:5000 5 delivered +20000\n");
        assert_eq!(alice.stats(Direction::Up).delivered.bytes, 33);
    });
}

#[test]
fn segments_of_one_send_travel_as_packets() {
    sim::run(1, async |sim| {
        let host = sim.host("host", ten_ms());
        let (from, to) = (host.socket(1).unwrap(), host.socket(2).unwrap());
        let destination = to.local_addr().unwrap();
        let ecn = Some(quinn::udp::EcnCodepoint::Ect0);
        from.try_send(&Transmit {
            destination,
            contents: b"aaabbbc",
            ecn,
            segment_size: Some(3),
            src_ip: None,
        })
        .unwrap();
        for expected in ["aaa", "bbb", "c"] {
            assert_eq!(receive(&*to).await.0, expected.as_bytes());
        }
    });
}

#[test]
fn packets_to_nobody_and_for_nobody_who_reads_are_dropped() {
    sim::run(1, async |sim| {
        let (alice, bob) = (sim.host("alice", ten_ms()), sim.host("bob", ten_ms()));
        let (socket, deaf) = (alice.socket(0).unwrap(), bob.socket(5000).unwrap());
        send(&*socket, "203.0.113.1:1".parse().unwrap(), b"nobody has the address");
        send(&*socket, (bob.ip(), 5001).into(), b"nobody has the port");
        for _ in 0..300 {
            send(&*socket, (bob.ip(), 5000).into(), &[0; 1_000]);
        }
        sim.clock().sleep(Duration::from_secs(1)).await;
        let fates = fates(&sim);
        let count = |fate| fates.iter().filter(|other| **other == fate).count();
        // 212,992 bytes hold 212 packets of 1,000.
        assert_eq!((count(Fate::NoSuchHost), count(Fate::Delivered), count(Fate::BufferFull)), (2, 212, 88));
        // Reading makes room.
        receive(&*deaf).await;
        send(&*socket, (bob.ip(), 5000).into(), &[0; 1_000]);
        sim.clock().sleep(Duration::from_secs(1)).await;
        assert_eq!(sim.network().trace().packets().last().unwrap().fate, Fate::Delivered);
    });
}

#[test]
fn a_port_is_taken_while_its_socket_lives() {
    sim::run(1, async |sim| {
        let host = sim.host("host", ten_ms());
        let socket = host.socket(7).unwrap();
        assert_eq!(host.socket(7).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        host.socket(7).unwrap();
        assert_ne!(
            host.socket(0).unwrap().local_addr().unwrap().port(),
            0,
            "port 0 stands for one that is free"
        );
    });
}

#[test]
fn after_a_move_replies_find_the_new_address_only() {
    sim::run(1, async |sim| {
        let (alice, server) = (sim.host("alice", ten_ms()), sim.host("server", ten_ms()));
        let (socket, listening) = (alice.socket(9).unwrap(), server.socket(4433).unwrap());
        let to = listening.local_addr().unwrap();
        send(&*socket, to, b"1");
        let (_, old) = receive(&*listening).await;
        alice.move_to("192.0.2.1".parse().unwrap());
        alice.renumber_ports();
        send(&*socket, to, b"2");
        let (_, new) = receive(&*listening).await;
        assert_eq!((old, new), ("10.0.0.1:9".parse().unwrap(), "192.0.2.1:7928".parse().unwrap()));
        send(&*listening, old, b"to where it was");
        send(&*listening, (new.ip(), old.port()).into(), b"to the port it had");
        send(&*listening, new, b"to where it is");
        assert_eq!(receive(&*socket).await.0, b"to where it is");
        assert_eq!(
            fates(&sim),
            [Fate::Delivered, Fate::Delivered, Fate::NoSuchHost, Fate::NoSuchHost, Fate::Delivered]
        );
        // The host itself notices nothing, and may go back.
        assert_eq!(socket.local_addr().unwrap(), "10.0.0.1:9".parse().unwrap());
        alice.move_to("10.0.0.1".parse().unwrap());
        assert_eq!(sim.network().find("alice").unwrap().ip(), "10.0.0.1".parse::<IpAddr>().unwrap());
    });
}

#[test]
fn one_link_can_be_changed_while_running_and_the_other_stays() {
    sim::run(1, async |sim| {
        let (alice, bob) = (sim.host("alice", ten_ms()), sim.host("bob", ten_ms()));
        let (a, b) = (alice.socket(1).unwrap(), bob.socket(1).unwrap());
        let mut up = alice.link(Direction::Up);
        up.loss = Loss::Random(1.0);
        alice.set_link(Direction::Up, up);
        send(&*a, b.local_addr().unwrap(), b"lost");
        send(&*b, a.local_addr().unwrap(), b"not lost");
        assert_eq!(receive(&*a).await.0, b"not lost");
        alice.set_profile(ten_ms());
        bob.link_outage(Direction::Down, Duration::from_millis(5), Duration::from_millis(10));
        // It reaches Bob's downlink in 10 ms, within the outage; the next after it.
        send(&*a, b.local_addr().unwrap(), b"caught by the outage");
        sim.clock().sleep(Duration::from_millis(5)).await;
        send(&*a, b.local_addr().unwrap(), b"after it");
        assert_eq!(receive(&*b).await.0, b"after it");
        assert_eq!(fates(&sim), [Fate::Lost, Fate::Delivered, Fate::Outage, Fate::Delivered]);
    });
}

#[test]
fn a_hosts_loss_does_not_depend_on_who_else_is_there() {
    let lost = |others: &[&str]| {
        sim::run(5, async |sim| {
            for name in others {
                sim.host(name, Profile::wifi_lossy());
            }
            let alice = sim.host("alice", ten_ms().with_loss(Loss::Random(0.3)));
            let socket = alice.socket(1).unwrap();
            for _ in 0..100 {
                send(&*socket, (alice.ip(), 1).into(), b"to itself");
                sim.clock().sleep(Duration::from_millis(1)).await;
            }
            sim.clock().sleep(Duration::from_secs(1)).await;
            let trace = sim.network().trace();
            trace.packets().iter().map(|end| (end.sent, end.fate)).collect::<Vec<_>>()
        })
    };
    assert_eq!(lost(&[]), lost(&["bob", "carol"]));
}

#[test]
#[should_panic(expected = "a host is already called \"alice\"")]
fn two_hosts_of_one_name_are_refused() {
    sim::run(1, async |sim| {
        sim.host("alice", ten_ms());
        sim.host("alice", ten_ms());
    });
}
