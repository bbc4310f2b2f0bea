//! A UDP socket on the simulated network, in the shape quinn asks for.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::fabric::HostId;
use super::network::Network;

/// An open socket. It closes, and its port becomes free, when it is dropped.
///
/// Sending never blocks: what does not fit is dropped by the link's queue, as in a real network.
/// Every packet goes out on its own (no segmentation offload), and none is ever fragmented.
pub(super) struct SimSocket {
    network: Network,
    host: HostId,
    /// As the host itself sees it.
    address: SocketAddr,
}

impl SimSocket {
    pub(super) fn new(network: Network, host: HostId, address: SocketAddr) -> Self {
        SimSocket { network, host, address }
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.network.fabric().close(self.host, self.address.port());
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(size) {
            let payload = Bytes::copy_from_slice(datagram);
            self.network.send(self.host, self.address.port(), transmit.destination, transmit.ecn, payload);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut fabric = self.network.fabric();
        let mut received = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            let Some(packet) = fabric.receive(self.host, self.address.port(), cx.waker()) else {
                break;
            };
            // As with a real socket, what does not fit into the buffer is cut off.
            let len = packet.payload.len().min(buf.len());
            buf[..len].copy_from_slice(&packet.payload[..len]);
            *meta = RecvMeta {
                addr: packet.from,
                len,
                stride: len,
                ecn: packet.ecn,
                dst_ip: Some(self.address.ip()),
            };
            received += 1;
        }
        if received == 0 { Poll::Pending } else { Poll::Ready(Ok(received)) }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSocket").field("address", &self.address).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
