//! A relay and people around it on the simulated network: the stage of most scenarios.

use std::net::SocketAddr;
use std::time::Duration;

use parlor_client::{AppId, Engine, EngineConfig, JoinOptions, Room, RoomId, Scenario};
use parlor_relay::server::RoomSnapshot;
use parlor_relay::{Config, Relay, RelayHandle};
use parlor_transport::address::RelayAddress;
use parlor_transport::sim::{Host, Profile, Sim};

/// The room that scenarios happen in.
pub const ROOM: &str = "stage";

/// A relay that runs in a simulation.
pub struct World {
    /// The simulation.
    pub sim: Sim,
    /// Looks into the relay.
    pub relay: RelayHandle,
    /// Where [`ROOM`] is.
    pub address: RelayAddress,
}

/// Somebody with a host and an engine of their own.
pub struct Person {
    /// Their user id.
    pub name: String,
    /// Their machine.
    pub host: Host,
    /// Their engine.
    pub engine: Engine,
}

impl World {
    /// Starts a relay whose own link is perfect: what people feel is their own link.
    pub async fn new(sim: &Sim) -> Self {
        Self::with_config(sim, Config::dev()).await
    }

    /// Starts a relay with a configuration of one's own.
    pub async fn with_config(sim: &Sim, config: Config) -> Self {
        let host = sim.host("relay", Profile::perfect().with_rtt(Duration::ZERO));
        let binding = host.binding(4433).expect("the first socket of a new host");
        let relay = Relay::bind_on(config, binding).await.expect("a relay on a new host");
        let room = RoomId::new(ROOM).expect("a valid room id");
        let mut address = relay.address(Some(room));
        let at = SocketAddr::new(host.ip(), 4433);
        address.host = at.ip().to_string();
        address.port = at.port();
        let handle = relay.handle();
        tokio::spawn(relay.run(std::future::pending()));
        World { sim: sim.clone(), relay: handle, address }
    }

    /// Somebody new, behind `link`.
    pub fn person(&self, name: &str, link: Profile) -> Person {
        let host = self.sim.host(name, link);
        let engine = engine_on(&host);
        Person { name: name.to_owned(), host, engine }
    }

    /// [`ROOM`] as the relay has it.
    pub fn room(&self) -> Option<RoomSnapshot> {
        self.relay.room(&AppId::dev(), &RoomId::new(ROOM).expect("a valid room id"))
    }
}

/// An engine with a new socket on `host`.
pub fn engine_on(host: &Host) -> Engine {
    let config = EngineConfig::from(Scenario::StandardCall);
    Engine::with_network(config, host.binding(0).expect("a free port"))
        .expect("an engine on a simulated host")
}

impl Person {
    /// Begins to join [`ROOM`] under their own name.
    pub fn join(&self, world: &World) -> Room {
        self.join_with(world, |options| options)
    }

    /// Begins to join [`ROOM`] under their own name, with further options.
    pub fn join_with(&self, world: &World, further: impl FnOnce(JoinOptions) -> JoinOptions) -> Room {
        let options = JoinOptions::new(world.address.to_string(), &self.name);
        self.engine.join(further(options)).expect("a valid address and name")
    }
}
