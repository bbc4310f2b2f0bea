//! A soak over real UDP: `parlor-relay` as a process of its own, as it is operated, and people around it on loopback.
//! The relay is watched from outside: its memory as the system sees it, its figures over HTTP.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parlor_transport::address::RelayAddress;
use parlor_transport::clock::Clock;
use parlor_transport::sim::seeded;
use tokio::task::JoinSet;

use super::Load;
use super::figures::{Deeds, Series, check_deeds, resident};
use super::gate::Gate;
use super::life::{Link, Person};

/// What the relay has as long as somebody is there, and none of it afterwards.
const LEFTOVERS: [&str; 7] =
    ["connections", "rooms", "users", "streams", "players", "cached_bytes", "pending"];
/// Time for everything to end in by itself after the last person left: a session that was lost is kept for 10 s.
const SETTLE: Duration = Duration::from_secs(30);
/// Between two looks at the relay.
const LOOK: Duration = Duration::from_secs(5);
/// Memory may rise by this share of itself, and by [`RISE_BYTES`], before it counts as growing: the system's allocator
/// keeps pages that were in use at the busiest moment, and a busier one comes now and then.
const RISE_SHARE: f64 = 0.10;
/// See [`RISE_SHARE`].
const RISE_BYTES: f64 = 4.0 * 1024.0 * 1024.0;
/// How long the relay may take to answer over HTTP.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Runs for `minutes` with the relay at `program` and prints what happened. Gives what is wrong; nothing when all is well.
///
/// # Errors
/// When the relay cannot be started or asked, in words.
pub fn run(program: &Path, load: Load, minutes: f64, seed: u64) -> Result<Vec<String>, String> {
    let mut relay = Process::start(program)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let length = Duration::from_secs_f64(minutes * 60.0);
    let outcome = runtime.block_on(soak(&mut relay, load, length, seed));
    drop(runtime);
    outcome
}

async fn soak(relay: &mut Process, load: Load, length: Duration, seed: u64) -> Result<Vec<String>, String> {
    let clock = Clock::system();
    let began = clock.now();
    let until = began + length;
    let (load, deeds) = (Arc::new(load), Arc::<Deeds>::default());
    let mut people = JoinSet::new();
    for number in 0..load.users {
        let gate = Gate::open(relay.udp).await.map_err(|error| format!("cannot open a socket: {error}"))?;
        let local = gate.local();
        let address =
            RelayAddress { host: local.ip().to_string(), port: local.port(), ..relay.address.clone() };
        let person = Person {
            number,
            link: Link::Loopback(gate),
            load: load.clone(),
            deeds: deeds.clone(),
            clock: clock.clone(),
            rng: seeded(seed, &format!("life{number}")),
            address: address.to_string(),
            until,
        };
        people.spawn(person.live());
    }

    let mut memory = Series::default();
    let mut looks = 0;
    while clock.now() < until {
        clock.sleep(LOOK.min(until.saturating_since(clock.now()))).await;
        let passed = clock.now().saturating_since(began).as_secs_f64();
        let bytes = resident(Some(relay.child.id())).ok_or("the relay's process is gone")?;
        memory.push(passed / 3600.0, bytes);
        looks += 1;
        if looks % 12 == 0 {
            let figures = relay.figures()?;
            let figures: Vec<_> = LEFTOVERS.iter().map(|name| format!("{name} {}", figures[*name])).collect();
            println!(
                "{:5.1} min: relay resident {} KiB, {}",
                passed / 60.0,
                bytes / 1024,
                figures.join(", ")
            );
        }
    }
    let mut wrong = Vec::new();
    while let Some(ended) = people.join_next().await {
        if let Err(error) = ended {
            wrong.push(format!("somebody's life ended with {error}"));
        }
    }
    clock.sleep(SETTLE).await;

    println!("{:.1} min: {}", clock.now().saturating_since(began).as_secs_f64() / 60.0, deeds.to_line());
    let figures = relay.figures()?;
    let left: Vec<_> = LEFTOVERS.iter().map(|name| format!("{name} {}", figures[*name])).collect();
    println!("left over: {}", left.join(", "));
    wrong.extend(
        LEFTOVERS
            .iter()
            .filter(|name| figures[**name] != 0.0)
            .map(|name| format!("left over at the relay: {name} {}", figures[*name])),
    );
    match memory.trend() {
        None => println!("too few looks for a trend"),
        Some(trend) => {
            println!("{}", trend.to_line("relay resident"));
            if trend.grows(RISE_SHARE, RISE_BYTES) {
                wrong.push(format!("memory grows: {}", trend.to_line("relay resident")));
            }
        }
    }
    check_deeds(&deeds, &mut wrong);
    Ok(wrong)
}

/// A relay's process; it ends when this is dropped.
struct Process {
    child: Child,
    udp: SocketAddr,
    http: SocketAddr,
    /// Without a room.
    address: RelayAddress,
}

impl Process {
    fn start(program: &Path) -> Result<Self, String> {
        let cannot = |error: io::Error| {
            format!("cannot start {}: {error}; build it with `cargo build --release`", program.display())
        };
        let mut child = Command::new(program)
            .args(["--dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log", "warn"])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(cannot)?;
        let lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
        let (mut udp, mut http, mut address) = (None, None, None);
        for line in lines {
            let line = line.map_err(cannot)?;
            if let Some((_, rest)) = line.split_once(" listens on ") {
                udp = rest.split(' ').next().and_then(|address| address.parse().ok());
            } else if let Some(rest) = line.strip_prefix("HTTP on http://") {
                http = rest.split(": ").next().and_then(|address| address.parse().ok());
            } else if line.starts_with("Join with:") {
                address = line.split('\'').nth(1).and_then(|address| address.parse::<RelayAddress>().ok());
                break;
            }
        }
        let (Some(udp), Some(http), Some(address)) = (udp, http, address) else {
            _ = child.kill();
            return Err(format!("{} does not say where it listens; is it parlor-relay?", program.display()));
        };
        Ok(Process { child, udp, http, address: RelayAddress { room: None, ..address } })
    }

    /// The relay's figures without labels, by name.
    fn figures(&self) -> Result<BTreeMap<String, f64>, String> {
        let text = self.get("/metrics").map_err(|error| format!("the relay gives no figures: {error}"))?;
        let samples = text.lines().filter_map(|line| line.strip_prefix("parlor_")?.split_once(' '));
        let figures: BTreeMap<_, _> =
            samples.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect();
        match LEFTOVERS.iter().find(|name| !figures.contains_key(**name)) {
            Some(missing) => Err(format!("the relay's figures have no {missing}")),
            None => Ok(figures),
        }
    }

    fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.http, ANSWER_MAX)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
