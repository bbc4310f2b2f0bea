//! A real UDP socket behind a simulated link: what a subscriber of a fan-out on a real path is to its relay.
//!
//! Packets wait here, in the process of the subscriber, so that the relay pays for nothing but its own work.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parlor_client::Timestamp;
use parlor_transport::clock::{Clock, Timer};
use parlor_transport::sim::{self, HEADER_IPV4, Link, Profile};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// Bytes read from the real socket at once.
const READ_MAX: usize = 65_536;

/// The socket.
pub struct LinkSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    up: Link<(SocketAddr, Bytes)>,
    down: Link<(SocketAddr, Bytes)>,
    timer: Timer,
    buffer: Vec<u8>,
    reader: Option<Waker>,
}

impl LinkSocket {
    /// Puts a link before `inner`; what is random follows from `seed` and `name`.
    pub fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        clock: Clock,
        profile: Profile,
        seed: u64,
        name: &str,
    ) -> Arc<Self> {
        let state = State {
            up: Link::new(profile.up, sim::seeded(seed, &format!("{name}/up"))),
            down: Link::new(profile.down, sim::seeded(seed, &format!("{name}/down"))),
            timer: clock.timer(),
            buffer: vec![0; READ_MAX],
            reader: None,
        };
        Arc::new(LinkSocket { inner, clock, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sends what is due; what the socket does not take is lost, as on a real path.
    fn send_due(&mut self, now: Timestamp, inner: &dyn AsyncUdpSocket) {
        while let Some((destination, payload)) = self.up.poll_arrival(now) {
            let contents = &payload[..];
            let transmit = Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None };
            _ = inner.try_send(&transmit);
        }
    }

    /// Takes in what has come to the real socket.
    fn read(&mut self, now: Timestamp, inner: &dyn AsyncUdpSocket, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            let mut metas = [RecvMeta::default()];
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            match inner.poll_recv(cx, &mut slices, &mut metas) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(_)) => {
                    let [meta] = metas;
                    for datagram in self.buffer[..meta.len].chunks(meta.stride.max(1)) {
                        let packet = (meta.addr, Bytes::copy_from_slice(datagram));
                        // What the link does not take is lost.
                        _ = self.down.handle_packet(now, packet, datagram.len() + HEADER_IPV4);
                    }
                }
            }
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.up.poll_timeout().into_iter().chain(self.down.poll_timeout()).min()
    }
}

impl AsyncUdpSocket for LinkSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let now = self.clock.now();
        let mut state = self.state();
        let before = state.next_due();
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(size) {
            let packet = (transmit.destination, Bytes::copy_from_slice(datagram));
            _ = state.up.handle_packet(now, packet, datagram.len() + HEADER_IPV4);
        }
        if state.next_due() != before
            && let Some(reader) = state.reader.take()
        {
            reader.wake();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        state.read(self.clock.now(), &*self.inner, cx)?;
        loop {
            let now = self.clock.now();
            state.send_due(now, &*self.inner);
            let mut count = 0;
            while count < bufs.len().min(metas.len())
                && let Some((from, payload)) = state.down.poll_arrival(now)
            {
                let length = payload.len().min(bufs[count].len());
                bufs[count][..length].copy_from_slice(&payload[..length]);
                metas[count] = RecvMeta { addr: from, len: length, stride: length, ecn: None, dst_ip: None };
                count += 1;
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            let due = state.next_due();
            state.timer.reset(due);
            state.reader = Some(cx.waker().clone());
            if state.timer.poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for LinkSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSocket").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// Links drop what does not fit, so there is always room.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
