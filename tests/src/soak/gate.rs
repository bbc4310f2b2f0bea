//! A gate on loopback between one person and the relay, which can be shut for a while: what a tunnel does to a phone.
//! It only passes on; delays and losses are the simulation's business.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parlor_transport::clock::Clock;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// The largest datagram of UDP.
const DATAGRAM_MAX: usize = 65_535;

/// A way to the relay. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Gate {
    local: SocketAddr,
    is_shut: Arc<AtomicBool>,
    passing: JoinHandle<()>,
}

impl Gate {
    /// A gate in front of `relay`, for one socket at a time.
    pub(super) async fn open(relay: SocketAddr) -> io::Result<Self> {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        far.connect(relay).await?;
        let local = near.local_addr()?;
        let is_shut = Arc::<AtomicBool>::default();
        let passing = tokio::spawn(pass(near, far, is_shut.clone()));
        Ok(Gate { local, is_shut, passing })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Nothing passes for so long.
    pub(super) async fn shut(&self, clock: &Clock, length: Duration) {
        self.is_shut.store(true, Ordering::Relaxed);
        clock.sleep(length).await;
        self.is_shut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

async fn pass(near: UdpSocket, far: UdpSocket, is_shut: Arc<AtomicBool>) {
    let mut client = None;
    let (mut up, mut down) = (vec![0; DATAGRAM_MAX], vec![0; DATAGRAM_MAX]);
    loop {
        // What UDP cannot send is lost, as it would be on any link.
        tokio::select! {
            biased;
            Ok(size) = far.recv(&mut down) => {
                if let Some(client) = client.filter(|_| !is_shut.load(Ordering::Relaxed)) {
                    _ = near.send_to(&down[..size], client).await;
                }
            }
            Ok((size, from)) = near.recv_from(&mut up) => {
                client = Some(from);
                if !is_shut.load(Ordering::Relaxed) {
                    _ = far.send(&up[..size]).await;
                }
            }
            else => {}
        }
    }
}
