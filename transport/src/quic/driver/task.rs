//! The task of an endpoint: reads the socket, watches over timers, serves connections that have something to do.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn::udp::{BATCH_SIZE, EcnCodepoint, RecvMeta};
use quinn::{AsyncTimer, AsyncUdpSocket, UdpPoller};
use quinn_proto::{ConnectionEvent, DatagramEvent};

use super::connection::{Conn, Served, is_blocked};
use super::endpoint::{Router, Shared};
use super::timers::NOBODY;

/// Packets, timers and connections that the task sees to before other tasks have their turn: some milliseconds of work. A
/// busy relay's socket gets hundreds of packets while all its other tasks run once, and drops what does not fit.
const TURN: usize = 256;
/// How many timers, and how many connections and trains of packets, before the socket is looked at again.
const ROUND: usize = 32;
/// What leaves in one system call counts as much as a packet that comes.
const TRAIN: usize = 10;
/// A socket that cannot be read is tried again after this.
const RETRY: Duration = Duration::from_millis(100);
/// quinn-proto's default limit for a UDP payload, and for each segment of a packet train.
const SEGMENT_MAX: usize = 1472;

thread_local! {
    /// Where packets are read to, before each batch gets memory of its own size: one for all endpoints of a thread.
    static RECEIVED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct Task {
    shared: Arc<Shared>,
    /// Ready connections, apart from those in the shared list.
    ready: VecDeque<Arc<Conn>>,
    /// Packets that were read, on their way to their connections.
    events: Vec<(Arc<Conn>, ConnectionEvent)>,
    timer: Option<(Instant, Pin<Box<dyn AsyncTimer>>)>,
    /// A socket that is full.
    full: Option<Full>,
    response: Vec<u8>,
}

struct Full {
    socket: Arc<dyn AsyncUdpSocket>,
    /// Tells when it takes packets again.
    poller: Pin<Box<dyn UdpPoller>>,
}

impl Task {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Task {
            shared,
            ready: VecDeque::new(),
            events: Vec::new(),
            timer: None,
            full: None,
            response: Vec::new(),
        }
    }

    /// Reads once what has come, and hands it to the connections. Gives the packets read.
    fn receive(&mut self, cx: &mut Context<'_>) -> usize {
        let shared = Arc::clone(&self.shared);
        let mut router = shared.router();
        let previous = router.previous.clone();
        let mut count = previous.map_or(0, |socket| self.receive_from(cx, &*socket, &mut router));
        let socket = Arc::clone(&router.socket);
        let before = self.events.len();
        count += self.receive_from(cx, &*socket, &mut router);
        if self.events.len() > before {
            // The way over the new socket works.
            router.previous = None;
        }
        if !router.incoming.is_empty() {
            shared.announce_incoming();
        }
        drop(router);
        for (conn, event) in self.events.drain(..) {
            if conn.handle_event(event) {
                self.ready.push_back(conn);
            }
        }
        count
    }

    fn receive_from(
        &mut self,
        cx: &mut Context<'_>,
        socket: &dyn AsyncUdpSocket,
        router: &mut Router,
    ) -> usize {
        let size = SEGMENT_MAX * socket.max_receive_segments();
        RECEIVED.with_borrow_mut(|buffer| {
            if buffer.len() < size * BATCH_SIZE {
                // Megabytes, of which the system gives only those that are ever used.
                *buffer = vec![0; size * BATCH_SIZE];
            }
            let mut metas = [RecvMeta::default(); BATCH_SIZE];
            let mut chunks = buffer.chunks_exact_mut(size);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            let messages = match socket.poll_recv(cx, &mut slices, &mut metas) {
                Poll::Ready(Ok(messages)) => messages,
                Poll::Pending => return 0,
                // A peer's host that has no such port says so; anybody may forge that.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return 1,
                Poll::Ready(Err(error)) => {
                    // Whatever it is, it is tried again; connections that hear nothing end meanwhile.
                    tracing::warn!(%error, "packets could not be read");
                    let at = self.shared.runtime.now() + RETRY;
                    self.shared.timers().set(NOBODY, None, at);
                    return 0;
                }
            };
            let mut count = 0;
            for (meta, slice) in metas.iter().zip(&slices).take(messages) {
                let mut rest = BytesMut::from(&slice[..meta.len]);
                while !rest.is_empty() {
                    let packet = rest.split_to(meta.stride.clamp(1, rest.len()));
                    self.route(router, socket, meta, packet);
                    count += 1;
                }
            }
            // Where nothing is in them they count as well: nobody wakes the task before it has found nothing to read.
            count.max(messages)
        })
    }

    /// Finds out whose packet it is.
    fn route(&mut self, router: &mut Router, socket: &dyn AsyncUdpSocket, meta: &RecvMeta, packet: BytesMut) {
        let ecn = meta.ecn.map(|ecn| match ecn {
            EcnCodepoint::Ect0 => quinn_proto::EcnCodepoint::Ect0,
            EcnCodepoint::Ect1 => quinn_proto::EcnCodepoint::Ect1,
            EcnCodepoint::Ce => quinn_proto::EcnCodepoint::Ce,
        });
        let now = self.shared.runtime.now();
        self.response.clear();
        let response = &mut self.response;
        let transmit = match router.proto.handle(now, meta.addr, meta.dst_ip, ecn, packet, response) {
            None => return,
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(conn) = router.connection(handle) {
                    self.events.push((Arc::clone(conn), event));
                }
                return;
            }
            Some(DatagramEvent::NewConnection(incoming)) if router.closed.is_none() => {
                router.incoming.push_back(incoming);
                return;
            }
            Some(DatagramEvent::NewConnection(incoming)) => router.proto.refuse(incoming, response),
            Some(DatagramEvent::Response(transmit)) => transmit,
        };
        // A full socket loses it, as the network might: who asked asks again.
        _ = is_blocked(socket, &transmit, &self.response[..transmit.size]);
    }

    /// Heeds timers that are due. Gives how many.
    fn expire(&mut self) -> usize {
        let now = self.shared.runtime.now();
        for count in 0..ROUND {
            // Each by itself: the lock must not be held when the next one is taken.
            let due = self.shared.timers().pop_due(now);
            let Some(handle) = due else { return count };
            let conn = self.shared.router().connection(handle).cloned();
            if let Some(conn) = conn
                && conn.handle_timer()
            {
                self.ready.push_back(conn);
            }
        }
        ROUND
    }

    /// Serves connections that are ready. Gives how many.
    fn serve(&mut self) -> usize {
        self.shared.take_ready(&mut self.ready);
        let mut count = 0;
        while count < ROUND
            && let Some(conn) = self.ready.pop_front()
        {
            let Served { is_ready, packets } = conn.serve();
            if is_ready {
                self.ready.push_back(conn);
            }
            count += 1 + packets / TRAIN;
        }
        count
    }

    /// Serves again whose packets the socket did not take, once it does. Gives how many.
    fn unblock(&mut self, cx: &mut Context<'_>) -> usize {
        if !self.shared.has_blocked() {
            return 0;
        }
        let socket = Arc::clone(&self.shared.router().socket);
        let full = match self.full.take() {
            Some(full) if Arc::ptr_eq(&full.socket, &socket) => full,
            _ => Full { poller: Arc::clone(&socket).create_io_poller(), socket },
        };
        let full = self.full.insert(full);
        match full.poller.as_mut().poll_writable(cx) {
            Poll::Pending => 0,
            // An error shows when it is sent again.
            Poll::Ready(_) => {
                self.full = None;
                let blocked = self.shared.take_blocked();
                let count = blocked.len();
                for conn in blocked {
                    if conn.unblock() {
                        self.ready.push_back(conn);
                    }
                }
                count
            }
        }
    }

    /// Waits for the next timer. True if it has come already.
    fn sleep(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(until) = self.shared.timers().sleep() else { return false };
        if until <= self.shared.runtime.now() {
            return true;
        }
        match &mut self.timer {
            Some((at, timer)) => {
                if *at != until {
                    timer.as_mut().reset(until);
                    *at = until;
                }
            }
            None => self.timer = Some((until, self.shared.runtime.new_timer(until))),
        }
        let is_over = self.timer.as_mut().is_some_and(|(_, timer)| timer.as_mut().poll(cx).is_ready());
        if is_over {
            // It is made anew, as it fires once.
            self.timer = None;
        }
        is_over
    }
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Before anything is looked at, so that nothing is missed that comes meanwhile.
        self.shared.register(cx);
        let mut done = 0;
        while done < TURN {
            let count = self.receive(cx) + self.expire() + self.serve() + self.unblock(cx);
            if count == 0 {
                if self.shared.router().is_over() {
                    return Poll::Ready(());
                }
                if !self.sleep(cx) {
                    return Poll::Pending;
                }
            }
            done += count.max(1);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}
