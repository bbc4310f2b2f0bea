//! A simulated network in virtual time: run real QUIC endpoints, and your whole app, in a test.
//!
//! [`run`] starts a scenario on a paused clock. Its hosts have addresses, sockets and links with
//! delay, jitter, loss, rate limits, outages and address changes; quinn, TLS and everything above
//! are the real thing. Time passes only when nobody has anything left to do, so a minute of a
//! call takes a fraction of a second, timings are exact to 10 µs, and the same seed gives the same
//! [`Trace`] on every machine.
//!
//! ```
//! use parlor_transport::sim::{self, Fate, Profile};
//! use std::time::Duration;
//!
//! # let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
//! # let mut params = rcgen::CertificateParams::new(vec!["server".to_owned()]).unwrap();
//! # params.serial_number = Some(1_u64.into());
//! # let certificate = params.self_signed(&key).unwrap().der().clone();
//! # let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
//! # let server_config = quinn::ServerConfig::with_single_cert(vec![certificate.clone()], key).unwrap();
//! # let mut roots = rustls::RootCertStore::empty();
//! # roots.add(certificate).unwrap();
//! # let client_config = quinn::ClientConfig::with_root_certificates(std::sync::Arc::new(roots)).unwrap();
//! let (took, trace) = sim::run(7, async |sim| {
//!     let server = sim.host("server", Profile::perfect());
//!     let phone = sim.host("phone", Profile::mobile());
//!     let listener = server.endpoint(4433, Some(server_config)).unwrap();
//!     let endpoint = phone.endpoint(0, None).unwrap();
//!
//!     // The phone enters a tunnel for two seconds and then asks for a connection.
//!     phone.outage(Duration::ZERO, Duration::from_secs(2));
//!     let connecting = endpoint.connect_with(client_config, (server.ip(), 4433).into(), "server");
//!     let accepting = async { listener.accept().await.unwrap().await.unwrap() };
//!     let (connection, _) = tokio::join!(biased; connecting.unwrap(), accepting);
//!     assert!(connection.is_ok());
//!     (sim.clock().now(), sim.network().trace())
//! });
//! assert!((2_000_000..8_000_000).contains(&took.as_micros()));
//! assert!(trace.count(Fate::Outage) >= 2);
//! print!("{trace}");
//! ```
//!
//! # What keeps a scenario repeatable
//! - Time comes from [`Sim::clock`], in your code too: `tokio::time` runs 100 times too fast here.
//! - Randomness comes from [`Sim::rng`], endpoints from [`Host::endpoint`] (it seeds quinn).
//! - `tokio::select!` starts with `biased;` (unbiased, it draws from a generator of its own).
//! - Nothing iterates over a std `HashMap`.
//! - No threads, no `spawn_blocking`, no real sockets or files whose timing matters.
//! - Keys and certificates have constant sizes: Ed25519 ones do, ECDSA signatures do not.
//!
//! Bytes on the wire differ between runs, because TLS draws its keys from the operating system;
//! sizes and times do not, and those are what the trace holds.
//!
//! # What it does not model
//! Other traffic (set the rate to what is left), queues other than drop-tail, ECN marks, CPU time.

mod channel;
mod fabric;
mod link;
mod network;
mod profile;
mod schedule;
mod socket;
mod trace;

use std::time::Duration;

use rand::SeedableRng;

pub use link::{Link, LinkStats, Tally};
pub use network::{Host, Network};
pub use profile::{HEADER_IPV4, HEADER_IPV6, Jitter, LinkConfig, Loss, Profile, Reorder, UnknownProfile};
pub use schedule::{BadSchedule, Schedule};
pub use trace::{Fate, PacketEnd, Trace};

use crate::clock::Clock;

/// The random number generator of simulations: small, fast and the same on every machine.
pub type SimRng = rand::rngs::Xoshiro256PlusPlus;

/// Runs `scenario` in virtual time with the default limits: [`Simulation::run`] of a new one.
pub fn run<T>(seed: u64, scenario: impl AsyncFnOnce(Sim) -> T) -> T {
    Simulation::new(seed).run(scenario)
}

/// A simulation to be run.
#[derive(Debug, Clone)]
pub struct Simulation {
    seed: u64,
    time_max: Duration,
}

impl Simulation {
    /// A simulation in which everything random follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Simulation { seed, time_max: TIME_MAX_DEFAULT }
    }

    /// Virtual time after which the scenario counts as hung (10 minutes if not set).
    pub fn time_max(mut self, time_max: Duration) -> Self {
        self.time_max = time_max;
        self
    }

    /// Runs `scenario` to its end on this thread. Tasks it spawned and left running are dropped.
    ///
    /// # Panics
    /// If the scenario takes longer than the limit in virtual time (one in which everybody waits
    /// for everybody gets there at once), and with the scenario's own panics; either way the seed
    /// is printed. Also when called inside another tokio runtime.
    pub fn run<T>(self, scenario: impl AsyncFnOnce(Sim) -> T) -> T {
        let _seed = SeedOnPanic(self.seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O asks the system for nothing that it could refuse");
        runtime.block_on(async {
            let clock = Clock::simulated();
            let network = Network::new(clock.clone(), self.seed);
            tokio::spawn(network.clone().drive());
            let sim = Sim { clock: clock.clone(), network, seed: self.seed };
            match clock.timeout(self.time_max, Box::pin(scenario(sim))).await {
                Ok(output) => output,
                Err(_) => panic!(
                    "the simulation with seed {} was not over after {:?} of virtual time",
                    self.seed, self.time_max
                ),
            }
        })
    }
}

/// What a scenario is given. Clones are the same simulation.
#[derive(Debug, Clone)]
pub struct Sim {
    clock: Clock,
    network: Network,
    seed: u64,
}

impl Sim {
    /// The simulation's time; it begins at zero.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The seed, for messages.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Adds a host: [`Network::host`].
    ///
    /// # Panics
    /// If a host has this name already.
    pub fn host(&self, name: &str, profile: Profile) -> Host {
        self.network.host(name, profile)
    }

    /// A random number generator for the scenario's own use, the same for the same `purpose`.
    pub fn rng(&self, purpose: &str) -> SimRng {
        seeded(self.seed, &format!("scenario/{purpose}"))
    }
}

/// A direction of a host's connection to the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the host.
    Up,
    /// To the host.
    Down,
}

/// A generator of its own for everything that has a name, so that one drawing more or fewer
/// numbers changes nothing for the others. A host's links are `name/up` and `name/down`.
pub fn seeded(seed: u64, name: &str) -> SimRng {
    let mut hash = trace::Fnv::new();
    hash.write(&seed.to_le_bytes());
    hash.write(name.as_bytes());
    SimRng::seed_from_u64(hash.0)
}

/// Says on a panic how to see it again.
struct SeedOnPanic(u64);

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was a simulation with seed {}: the same seed gives the same run", self.0);
        }
    }
}

/// Ten minutes: longer than any scenario of Parlor's own, short enough that a hung one ends soon.
const TIME_MAX_DEFAULT: Duration = Duration::from_secs(600);
