//! What only goes wrong when something else has.

use std::sync::{Arc, Weak};

use super::endpoint::Shared;
use crate::error::Code;
use crate::quic::{Endpoint, Identity, Options, Session, Trust};
use crate::sim::{self, Profile, Sim};

/// A server, and a client with two connections to it: the ends of both.
async fn world(sim: &Sim) -> (Endpoint, Endpoint, Vec<(Session, Session)>) {
    let identity = Identity::ephemeral().unwrap();
    let relay = sim.host("relay", Profile::perfect());
    let server = Endpoint::server(relay.binding(4433).unwrap(), &identity, Options::default()).unwrap();
    let host = sim.host("client", Profile::perfect());
    let client = Endpoint::client(host.binding(0).unwrap(), Options::default()).unwrap();
    let mut pairs = Vec::new();
    for _ in 0..2 {
        let trust = Trust::Pinned(identity.fingerprint());
        let accept = async { server.accept().await.unwrap().accept().await.unwrap() };
        let address = server.local_addr().unwrap();
        let (near, far) = tokio::join!(biased; client.connect(address, "relay", trust), accept);
        pairs.push((near.unwrap(), far));
    }
    (server, client, pairs)
}

fn shared(endpoint: &Endpoint) -> Weak<Shared> {
    Arc::downgrade(endpoint.driver.shared())
}

#[test]
fn a_connection_that_panics_ends_alone() {
    sim::run(1, async |sim| {
        let (server, client, pairs) = world(&sim).await;
        let [(near, far), (other_near, other_far)] = &pairs[..] else { panic!("two connections") };
        let conn = far.connection.conn();
        conn.guard(&mut conn.lock(), |_| -> () { panic!("on purpose") });
        assert_eq!(far.closed().await.code, Code::ProtocolViolation);
        // Whoever still has it finds it ended, and nothing touches its state.
        far.close(Code::Ok, "");
        assert!(far.open_messages(crate::wire::control::StreamKind::Events).await.is_err());

        let (mut sender, _answers) = other_near.open_requests().await.unwrap();
        sender.finish().await;
        assert!(other_near.close_reason().is_none() && other_far.close_reason().is_none());
        // The peer of the one that is gone hears nothing more.
        assert_eq!(near.closed().await.code, Code::ConnectionLost);
        other_near.close(Code::Ok, "");
        client.wait_idle().await;
        server.wait_idle().await;
    });
}

#[test]
fn nothing_is_left_of_connections_that_were_open_when_their_runtime_ended() {
    let mut endpoints = Vec::new();
    let kept = sim::run(1, async |sim| {
        let (server, client, pairs) = world(&sim).await;
        endpoints = vec![shared(&server), shared(&client)];
        // One side's are held for longer than the runtime, the other's end with it.
        let (near, far): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop((server, far));
        });
        (client, near)
    });
    assert!(endpoints[0].upgrade().is_none(), "the server's");
    let (client, near) = kept;
    assert_eq!(near[0].close_reason().unwrap().code, Code::ProtocolViolation);
    near[0].close(Code::Ok, "");
    drop((client, near));
    assert!(endpoints[1].upgrade().is_none(), "the client's");
}
