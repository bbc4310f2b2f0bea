//! If this fails, real QUIC on the simulated network is not exact, or one seed gives two different runs.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parlor_transport::sim::{self, Direction, Fate, Host, LinkConfig, Loss, Profile, Sim, Simulation, Trace};
use parlor_transport::units::Timestamp;
use quinn::congestion::BbrConfig;
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig};
use rustls::pki_types::PrivateKeyDer;

/// Both ends' configurations, with a certificate that has the same size every time.
fn configs() -> (ServerConfig, ClientConfig) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["sim".to_owned()]).unwrap();
    params.serial_number = Some(1_u64.into());
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let server = ServerConfig::with_single_cert(vec![certificate.clone()], key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    (server, ClientConfig::with_root_certificates(Arc::new(roots)).unwrap())
}

struct Pair {
    client_host: Host,
    server_host: Host,
    client: Connection,
    server: Connection,
    /// When the client had its connection.
    connected: Timestamp,
    /// Kept alive: a dropped endpoint closes its socket.
    _endpoints: [Endpoint; 2],
}

/// A client behind `profile`, connected to a server that is behind nothing.
async fn connect(sim: &Sim, profile: Profile) -> Pair {
    let (mut server_config, mut client_config) = configs();
    let mut transport = TransportConfig::default();
    // Cubic stops sending at 5 % loss; quinn's BBR does not care, and this is no test of either.
    transport.congestion_controller_factory(Arc::new(BbrConfig::default()));
    let transport = Arc::new(transport);
    server_config.transport_config(transport.clone());
    client_config.transport_config(transport);
    let server_host = sim.host("server", Profile::symmetric(LinkConfig::default()));
    let client_host = sim.host("client", profile);
    let listener = server_host.endpoint(4433, Some(server_config)).unwrap();
    let endpoint = client_host.endpoint(0, None).unwrap();
    let connecting = endpoint.connect_with(client_config, (server_host.ip(), 4433).into(), "sim").unwrap();
    let connecting = async { (connecting.await.unwrap(), sim.clock().now()) };
    let accepting = async { listener.accept().await.unwrap().await.unwrap() };
    let ((client, connected), server) = tokio::join!(biased; connecting, accepting);
    Pair { client_host, server_host, client, server, connected, _endpoints: [listener, endpoint] }
}

fn rtt_50() -> Profile {
    Profile::symmetric(LinkConfig::default()).with_rtt(Duration::from_millis(50))
}

/// 1,000 datagrams up, an answer down for each; then a second for the last. How many came back.
async fn datagrams(sim: Sim, profile: Profile) -> (usize, Trace) {
    let pair = connect(&sim, profile).await;
    let echo = tokio::spawn({
        let server = pair.server.clone();
        async move {
            while let Ok(datagram) = server.read_datagram().await {
                server.send_datagram(datagram).unwrap();
            }
        }
    });
    for n in 0..1_000_u32 {
        pair.client.send_datagram(vec![n as u8; 200 + (n % 7) as usize * 100].into()).unwrap();
        sim.clock().sleep(Duration::from_millis(2)).await;
    }
    sim.clock().sleep(Duration::from_secs(1)).await;
    echo.abort();
    let mut echoed = 0;
    while sim.clock().timeout(Duration::ZERO, pair.client.read_datagram()).await.is_ok() {
        echoed += 1;
    }
    (echoed, sim.network().trace())
}

#[test]
fn a_handshake_takes_one_round_trip() {
    sim::run(1, async |sim| {
        let pair = connect(&sim, rtt_50()).await;
        let (client, server) = (pair.connected.as_micros(), sim.clock().now().as_micros());
        // The client is done after one round trip; the server hears of it half a round trip later.
        assert!((50_000..51_000).contains(&client), "the client was connected after {client} µs");
        assert!((75_000..76_000).contains(&server), "the server was connected after {server} µs");
    });
}

#[test]
fn datagrams_arrive_but_for_the_loss() {
    let lossy = rtt_50().with_loss(Loss::Random(0.05));
    let (echoed, trace) = sim::run(2, async |sim| datagrams(sim, lossy).await);
    // 0.95² of 1,000; quinn sends acknowledgements besides, which lose their share too.
    assert!((870..935).contains(&echoed), "{echoed} of 1,000 came back");
    let lost = trace.count(Fate::Lost) as f64 / trace.packets().len() as f64;
    assert!((0.035..0.065).contains(&lost), "{lost} of packets lost");
    assert_eq!(trace.count(Fate::Lost) + trace.count(Fate::Delivered), trace.packets().len());
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_does_not() {
    for name in Profile::NAMES {
        let profile = || name.parse::<Profile>().unwrap();
        let run = |seed| sim::run(seed, async |sim| datagrams(sim, profile()).await);
        let (first, second) = (run(3), run(3));
        let (a, b) = (first.1.to_string(), second.1.to_string());
        let differs = a.lines().zip(b.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "{name}: two runs with one seed differ first here");
        assert_eq!((first.0, first.1.hash()), (second.0, second.1.hash()), "{name}");
        // A perfect link draws nothing, but quinn's own seed differs too.
        assert_ne!(first.1.hash(), run(4).1.hash(), "{name}");
        println!("{name}: {} packets, hash {:016x}", first.1.total(), first.1.hash());
    }
}

#[test]
fn a_stream_takes_its_size_by_the_rate() {
    sim::run(5, async |sim| {
        const SIZE: usize = 1_000_000;
        let profile = rtt_50().with_rates((4_000_000, 200_000), (50_000_000, 200_000));
        let pair = connect(&sim, profile).await;
        let start = sim.clock().now();
        let sending = async {
            let mut stream = pair.client.open_uni().await.unwrap();
            stream.write_all(&vec![1; SIZE]).await.unwrap();
            stream.finish().unwrap();
            stream.stopped().await.unwrap();
        };
        let receiving = async {
            let mut stream = pair.server.accept_uni().await.unwrap();
            stream.read_to_end(SIZE).await.unwrap().len()
        };
        let ((), received) = tokio::join!(biased; sending, receiving);
        let took = sim.clock().now().saturating_since(start).as_secs_f64();
        let stats = pair.client_host.stats(Direction::Up);
        let line = stats.delivered.bytes as f64 * 8.0 / 4_000_000.0;
        assert_eq!(received, SIZE);
        // 2 s for the payload alone; headers, slow start and the last acknowledgement are the rest.
        assert!((2.0..2.5).contains(&took), "1 MB at 4 Mbit/s took {took} s");
        assert!(took > line, "faster than the line: {took} s for {line} s of packets");
        // 200 kB at 4 Mbit/s.
        assert!(stats.queue_delay_max() <= Duration::from_millis(401));
    });
}

#[test]
fn a_connection_survives_new_addresses_new_ports_and_an_outage() {
    sim::run(6, async |sim| {
        let pair = connect(&sim, rtt_50()).await;
        let elsewhere: IpAddr = "192.0.2.77".parse().unwrap();
        for change in 0..3 {
            match change {
                0 => pair.client_host.move_to(elsewhere),
                1 => pair.client_host.renumber_ports(),
                _ => pair.client_host.outage(Duration::ZERO, Duration::from_secs(2)),
            }
            let (mut send, mut receive) = pair.client.open_bi().await.unwrap();
            send.write_all(b"still there?").await.unwrap();
            send.finish().unwrap();
            let (mut reply, mut asked) = pair.server.accept_bi().await.unwrap();
            assert_eq!(asked.read_to_end(100).await.unwrap(), b"still there?");
            reply.write_all(b"yes").await.unwrap();
            reply.finish().unwrap();
            assert_eq!(receive.read_to_end(100).await.unwrap(), b"yes");
        }
        assert_eq!(pair.server.remote_address().ip(), elsewhere);
        assert!(sim.network().trace().count(Fate::Outage) > 0);
        assert!(sim.clock().now().as_micros() > 2_000_000);
        assert_eq!(pair.server_host.ip(), "10.0.0.1".parse::<IpAddr>().unwrap());
    });
}

#[test]
fn a_link_with_a_small_mtu_still_carries_a_call() {
    let trace = sim::run(7, async |sim| {
        let mut profile = rtt_50();
        profile.up.mtu = 1_280;
        let pair = connect(&sim, profile).await;
        let mut stream = pair.client.open_uni().await.unwrap();
        stream.write_all(&vec![0; 100_000]).await.unwrap();
        stream.finish().unwrap();
        let mut incoming = pair.server.accept_uni().await.unwrap();
        assert_eq!(incoming.read_to_end(100_000).await.unwrap().len(), 100_000);
        sim.network().trace()
    });
    // quinn probes for larger packets, and they vanish.
    assert!(trace.count(Fate::TooBig) > 0);
    assert!(trace.packets().iter().all(|end| end.fate != Fate::Delivered || end.bytes + 28 <= 1_472 + 28));
}

#[test]
#[should_panic(expected = "the simulation with seed 8 was not over after 30s of virtual time")]
fn a_scenario_that_waits_for_nothing_ends_with_its_seed() {
    Simulation::new(8).time_max(Duration::from_secs(30)).run(async |_| std::future::pending::<()>().await);
}

/// Virtual seconds per second go to the test's output; they are a measurement, not a bound.
#[test]
fn a_minute_of_four_two_megabit_flows_runs_through() {
    #[expect(clippy::disallowed_methods, reason = "measures the simulation itself")]
    let started = std::time::Instant::now();
    let packets = sim::run(9, async |sim| {
        let profile = Profile::wifi();
        let pair = connect(&sim, profile).await;
        let mut tasks = Vec::new();
        for flow in 0..4_u8 {
            let (client, clock) = (pair.client.clone(), sim.clock().clone());
            tasks.push(tokio::spawn(async move {
                for _ in 0..30 * 60 {
                    for _ in 0..7 {
                        client.send_datagram(vec![flow; 1_150].into()).unwrap();
                    }
                    clock.sleep(Duration::from_micros(33_333)).await;
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert!(sim.clock().now().as_micros() > 60_000_000);
        sim.network().trace().total()
    });
    #[expect(clippy::disallowed_methods, reason = "measures the simulation itself")]
    let took = started.elapsed().as_secs_f64();
    println!("{packets} packets, {:.0} virtual seconds per second", 60.0 / took);
    assert!(packets > 30 * 60 * 7 * 4);
}
