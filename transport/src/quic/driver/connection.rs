//! One connection: its state machine, and who waits for what of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::udp::{self, EcnCodepoint};
use quinn::{AsyncUdpSocket, ConnectionError, ConnectionStats, Dir, StreamId, VarInt};
use quinn_proto::{ConnectionEvent, ConnectionHandle, EndpointEvent, Event, StreamEvent, Transmit};
use tokio::sync::Notify;

use super::endpoint::Shared;
use super::stream::{RecvStream, SendStream};

/// Packets that leave in one system call, at most: a frame of 2 Mbit/s has seven, and longer trains gain little.
const SEGMENTS_MAX: usize = 10;
/// Packets that a connection makes before others have their turn.
const TRANSMIT_TURN: usize = 60;

thread_local! {
    /// Where packets are made before they are sent: one is enough for all connections that a thread drives.
    static PACKETS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A QUIC connection. Clones stand for the same one; when the last is dropped, and every QUIC stream on it, it is closed.
#[derive(Clone)]
pub(in super::super) struct Connection(Arc<Handle>);

/// What the application holds of a connection.
struct Handle(Arc<Conn>);

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if !state.proto.is_closed() {
            self.0.close(&mut state, VarInt::from_u32(0), Bytes::new());
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("handle", &self.0.0.handle).finish_non_exhaustive()
    }
}

/// A connection, as the endpoint knows it.
pub(super) struct Conn {
    shared: Arc<Shared>,
    pub(super) handle: ConnectionHandle,
    state: Mutex<State>,
    /// The connection ended.
    closed: Notify,
    /// The peer permits more QUIC streams, or the connection ended.
    permitted: Notify,
}

pub(super) struct State {
    pub(super) proto: quinn_proto::Connection,
    pub(super) socket: Arc<dyn AsyncUdpSocket>,
    /// How it ended; there before it has drained.
    pub(super) error: Option<ConnectionError>,
    /// Whether 0-RTT data was accepted, once the handshake is over.
    handshake: Option<bool>,
    /// It is in a list of those that have something to do.
    is_ready: bool,
    /// Its entry among the timers.
    pub(super) armed: Option<Instant>,
    /// It is in the list of those whose packets the socket did not take.
    is_blocked: bool,
    /// Its state machine panicked, and is not driven any more.
    is_buried: bool,
    /// Packets that the socket did not take.
    unsent: Option<(Transmit, Box<[u8]>)>,
    /// Who waits to write to a QUIC stream, or to hear what became of it.
    pub(super) writers: BTreeMap<StreamId, Waker>,
    /// Who waits to read from a QUIC stream.
    pub(super) readers: BTreeMap<StreamId, Waker>,
    waits_for_handshake: Waiters,
    waits_for_datagram: Waiters,
    /// By direction.
    waits_for_stream: [Waiters; 2],
}

/// What came of serving a connection.
#[derive(Clone, Copy, Default)]
pub(super) struct Served {
    /// There is more to do at once.
    pub(super) is_ready: bool,
    /// Packets made.
    pub(super) packets: usize,
}

/// Who waits for something: hardly ever more than one task.
#[derive(Default)]
struct Waiters(Vec<Waker>);

impl Waiters {
    fn wait(&mut self, cx: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.0.push(cx.waker().clone());
        }
    }

    fn wake(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl State {
    /// Whether QUIC streams that were opened before the handshake was over are void.
    pub(super) fn is_early_data_void(&self) -> bool {
        let proto = &self.proto;
        !proto.is_handshaking() && !proto.accepted_0rtt() && proto.side().is_client()
    }

    /// Says how it ended, the first time, and lets everybody know who waits.
    fn terminate(&mut self, reason: ConnectionError, conn: &Conn) {
        if self.error.is_some() {
            return;
        }
        self.error = Some(reason);
        self.wake_streams();
        self.waits_for_handshake.wake();
        self.waits_for_datagram.wake();
        self.waits_for_stream.iter_mut().for_each(Waiters::wake);
        conn.permitted.notify_waiters();
        conn.closed.notify_waiters();
    }

    fn wake_streams(&mut self) {
        for waiting in [&mut self.writers, &mut self.readers] {
            std::mem::take(waiting).into_values().for_each(Waker::wake);
        }
    }
}

impl Conn {
    pub(super) fn new(
        shared: Arc<Shared>,
        handle: ConnectionHandle,
        proto: quinn_proto::Connection,
        socket: Arc<dyn AsyncUdpSocket>,
    ) -> Arc<Self> {
        let state = State {
            proto,
            socket,
            error: None,
            handshake: None,
            is_ready: false,
            armed: None,
            is_blocked: false,
            is_buried: false,
            unsent: None,
            writers: BTreeMap::new(),
            readers: BTreeMap::new(),
            waits_for_handshake: Waiters::default(),
            waits_for_datagram: Waiters::default(),
            waits_for_stream: Default::default(),
        };
        let (closed, permitted) = Default::default();
        Arc::new(Conn { shared, handle, state: Mutex::new(state), closed, permitted })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panics while driving the state machine does so in `guard`, which sees to it that it is not driven again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task is to come by: there is something to send, or to hear.
    pub(super) fn mark_ready(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_ready, true) {
            self.shared.push_ready(Arc::clone(self));
        }
    }

    /// The same, by the task itself, which puts it into its own list if this is true.
    pub(super) fn is_newly_ready(&self, state: &mut State) -> bool {
        !std::mem::replace(&mut state.is_ready, true)
    }

    /// Takes what came for it. True if it is newly ready.
    pub(super) fn handle_event(&self, event: ConnectionEvent) -> bool {
        let mut state = self.lock();
        if state.proto.is_drained() {
            return false;
        }
        self.guard(&mut state, |state| state.proto.handle_event(event));
        self.is_newly_ready(&mut state)
    }

    /// Its timer came. True if it is newly ready.
    pub(super) fn handle_timer(&self) -> bool {
        let mut state = self.lock();
        state.armed = None;
        self.is_newly_ready(&mut state)
    }

    /// What the task does for one that is ready.
    pub(super) fn serve(self: &Arc<Self>) -> Served {
        let mut state = self.lock();
        let served = self.guard(&mut state, |state| self.drive(state));
        state.is_ready = served.is_ready;
        served
    }

    /// The socket takes packets again. True if it is newly ready.
    pub(super) fn unblock(&self) -> bool {
        let mut state = self.lock();
        state.is_blocked = false;
        self.is_newly_ready(&mut state)
    }

    fn block(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_blocked, true) {
            self.shared.push_blocked(Arc::clone(self));
        }
    }

    /// Does something with the state machine. If that panics, the connection ends, and all others go on: they share a task,
    /// and a relay must not end with one of them.
    pub(super) fn guard<T: Default>(&self, state: &mut State, act: impl FnOnce(&mut State) -> T) -> T {
        if state.is_buried {
            return T::default();
        }
        catch_unwind(AssertUnwindSafe(|| act(state))).unwrap_or_else(|_| {
            tracing::error!("a connection panicked and is ended; please report it");
            state.is_buried = true;
            state.terminate(internal("the connection's state is broken"), self);
            if let Some(at) = state.armed.take() {
                self.shared.timers().remove(self.handle, at);
            }
            self.shared.handle_event(self, EndpointEvent::drained());
            T::default()
        })
    }

    pub(super) fn rebind(self: &Arc<Self>, socket: &Arc<dyn AsyncUdpSocket>) {
        let mut state = self.lock();
        if state.proto.is_drained() {
            return;
        }
        state.socket = Arc::clone(socket);
        self.guard(&mut state, |state| state.proto.local_address_changed());
        self.mark_ready(&mut state);
    }

    pub(super) fn close(self: &Arc<Self>, state: &mut State, code: VarInt, reason: Bytes) {
        let now = self.shared.runtime.now();
        self.guard(state, |state| state.proto.close(now, code, reason));
        state.terminate(ConnectionError::LocallyClosed, self);
        self.mark_ready(state);
    }

    /// Nobody drives it any more.
    pub(super) fn abandon(&self) {
        self.lock().terminate(internal("the endpoint's runtime has ended"), self);
    }

    /// Sends what may leave, heeds timers that are due, and passes on what happened.
    fn drive(self: &Arc<Self>, state: &mut State) -> Served {
        let mut turn = TRANSMIT_TURN;
        loop {
            self.transmit(state, &mut turn);
            let now = self.shared.runtime.now();
            let is_due = state.proto.poll_timeout().is_some_and(|at| at <= now);
            if is_due {
                state.proto.handle_timeout(now);
            }
            let is_answered = self.tell_endpoint(state);
            if turn == 0 || !(is_due || is_answered) {
                break;
            }
        }
        self.tell_application(state);
        self.arm(state);
        Served { is_ready: turn == 0, packets: TRANSMIT_TURN - turn }
    }

    /// Makes packets and sends them, as long as the state machine has some and `turn` lasts.
    fn transmit(self: &Arc<Self>, state: &mut State, turn: &mut usize) {
        if let Some((transmit, contents)) = state.unsent.take()
            && is_blocked(&*state.socket, &transmit, &contents)
        {
            state.unsent = Some((transmit, contents));
            self.block(state);
            return;
        }
        let now = self.shared.runtime.now();
        let segments = state.socket.max_transmit_segments().min(SEGMENTS_MAX);
        PACKETS.with_borrow_mut(|packets| {
            while *turn > 0 {
                packets.clear();
                let Some(transmit) = state.proto.poll_transmit(now, segments, packets) else { break };
                let contents = &packets[..transmit.size];
                *turn =
                    turn.saturating_sub(transmit.segment_size.map_or(1, |size| transmit.size.div_ceil(size)));
                if is_blocked(&*state.socket, &transmit, contents) {
                    state.unsent = Some((transmit, contents.into()));
                    self.block(state);
                    break;
                }
            }
        });
    }

    /// Passes on what concerns the endpoint. True if it answered.
    fn tell_endpoint(&self, state: &mut State) -> bool {
        let mut is_answered = false;
        while let Some(event) = state.proto.poll_endpoint_events() {
            if event.is_drained()
                && let Some(at) = state.armed.take()
            {
                self.shared.timers().remove(self.handle, at);
            }
            if let Some(answer) = self.shared.handle_event(self, event) {
                state.proto.handle_event(answer);
                is_answered = true;
            }
        }
        is_answered
    }

    /// Wakes who waits for what happened.
    fn tell_application(&self, state: &mut State) {
        while let Some(event) = state.proto.poll() {
            match event {
                Event::HandshakeDataReady | Event::DatagramsUnblocked => {}
                Event::Connected => {
                    state.handshake = Some(state.proto.accepted_0rtt());
                    state.waits_for_handshake.wake();
                    if state.is_early_data_void() {
                        state.wake_streams();
                    }
                }
                Event::ConnectionLost { reason } => state.terminate(reason, self),
                Event::DatagramReceived => state.waits_for_datagram.wake(),
                Event::Stream(StreamEvent::Opened { dir }) => state.waits_for_stream[dir as usize].wake(),
                Event::Stream(StreamEvent::Available { .. }) => self.permitted.notify_waiters(),
                Event::Stream(StreamEvent::Readable { id }) => wake(&mut state.readers, id),
                Event::Stream(
                    StreamEvent::Writable { id }
                    | StreamEvent::Finished { id }
                    | StreamEvent::Stopped { id, .. },
                ) => wake(&mut state.writers, id),
            }
        }
    }

    /// Sees to it that the connection is looked at in time.
    fn arm(&self, state: &mut State) {
        if let Some(at) = state.proto.poll_timeout()
            && state.armed.is_none_or(|armed| at < armed)
            && self.shared.timers().set(self.handle, state.armed.replace(at), at)
        {
            self.shared.wake();
        }
    }
}

/// The end of a connection for a reason of our own.
pub(super) fn internal(reason: &str) -> ConnectionError {
    ConnectionError::TransportError(quinn_proto::TransportError {
        code: quinn_proto::TransportErrorCode::INTERNAL_ERROR,
        frame: None,
        reason: reason.to_owned(),
    })
}

fn wake(waiting: &mut BTreeMap<StreamId, Waker>, id: StreamId) {
    if let Some(waker) = waiting.remove(&id) {
        waker.wake();
    }
}

/// Sends; true if the socket is full. Whatever else fails counts as lost on the way, as QUIC is made for.
pub(super) fn is_blocked(socket: &dyn AsyncUdpSocket, transmit: &Transmit, contents: &[u8]) -> bool {
    let transmit = udp::Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.map(|ecn| match ecn {
            quinn_proto::EcnCodepoint::Ect0 => EcnCodepoint::Ect0,
            quinn_proto::EcnCodepoint::Ect1 => EcnCodepoint::Ect1,
            quinn_proto::EcnCodepoint::Ce => EcnCodepoint::Ce,
        }),
        contents,
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    };
    match socket.try_send(&transmit) {
        Ok(()) => false,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
        Err(error) => {
            tracing::debug!(%error, destination = %transmit.destination, "a packet could not be sent");
            false
        }
    }
}

impl Connection {
    pub(super) fn new(conn: Arc<Conn>) -> Self {
        Connection(Arc::new(Handle(conn)))
    }

    pub(super) fn conn(&self) -> &Arc<Conn> {
        &self.0.0
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.conn().lock()
    }

    /// The peer's address as it is now.
    pub(in super::super) fn remote_address(&self) -> SocketAddr {
        self.lock().proto.remote_address()
    }

    pub(in super::super) fn rtt(&self) -> Duration {
        self.lock().proto.rtt()
    }

    pub(in super::super) fn stats(&self) -> ConnectionStats {
        self.lock().proto.stats()
    }

    /// How it ended, if it did.
    pub(in super::super) fn close_reason(&self) -> Option<ConnectionError> {
        self.lock().error.clone()
    }

    /// Ends it; the peer learns `code` and `reason`.
    pub(in super::super) fn close(&self, code: VarInt, reason: &[u8]) {
        self.conn().close(&mut self.lock(), code, Bytes::copy_from_slice(reason));
    }

    /// Waits for the end.
    pub(in super::super) async fn closed(&self) -> ConnectionError {
        loop {
            let closed = self.conn().closed.notified();
            if let Some(error) = self.close_reason() {
                return error;
            }
            closed.await;
        }
    }

    /// Whether something may be sent before the handshake is over.
    pub(in super::super) fn has_early_data(&self) -> bool {
        let state = self.lock();
        state.proto.has_0rtt() || state.proto.side().is_server()
    }

    /// Waits until the handshake is over: whether the peer accepted 0-RTT data.
    ///
    /// # Errors
    /// How the connection ended instead.
    pub(in super::super) async fn handshake(&self) -> Result<bool, ConnectionError> {
        poll_fn(|cx| {
            let mut state = self.lock();
            match (state.handshake, &state.error) {
                (Some(accepted), _) => Poll::Ready(Ok(accepted)),
                (None, Some(error)) => Poll::Ready(Err(error.clone())),
                (None, None) => {
                    state.waits_for_handshake.wait(cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    pub(in super::super) async fn open_uni(&self) -> Result<SendStream, ConnectionError> {
        let (id, is_early) = self.open(Dir::Uni).await?;
        Ok(SendStream::new(self.clone(), id, is_early))
    }

    pub(in super::super) async fn open_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        let (id, is_early) = self.open(Dir::Bi).await?;
        Ok((SendStream::new(self.clone(), id, is_early), RecvStream::new(self.clone(), id, is_early)))
    }

    async fn open(&self, dir: Dir) -> Result<(StreamId, bool), ConnectionError> {
        loop {
            let permitted = self.conn().permitted.notified();
            {
                let mut state = self.lock();
                if let Some(error) = &state.error {
                    return Err(error.clone());
                }
                if let Some(id) = state.proto.streams().open(dir) {
                    let is_early = state.proto.side().is_client() && state.proto.is_handshaking();
                    return Ok((id, is_early));
                }
            }
            permitted.await;
        }
    }

    /// The next QUIC stream that the peer opened one way.
    pub(in super::super) async fn accept_uni(&self) -> Result<RecvStream, ConnectionError> {
        let (id, is_early) = poll_fn(|cx| self.poll_accept(cx, Dir::Uni)).await?;
        Ok(RecvStream::new(self.clone(), id, is_early))
    }

    /// The next QUIC stream that the peer opened both ways.
    pub(in super::super) async fn accept_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        let (id, is_early) = poll_fn(|cx| self.poll_accept(cx, Dir::Bi)).await?;
        Ok((SendStream::new(self.clone(), id, is_early), RecvStream::new(self.clone(), id, is_early)))
    }

    fn poll_accept(&self, cx: &Context<'_>, dir: Dir) -> Poll<Result<(StreamId, bool), ConnectionError>> {
        let mut state = self.lock();
        if let Some(id) = state.proto.streams().accept(dir) {
            // The peer may get permission for another one.
            self.conn().mark_ready(&mut state);
            return Poll::Ready(Ok((id, state.proto.is_handshaking())));
        }
        if let Some(error) = &state.error {
            return Poll::Ready(Err(error.clone()));
        }
        state.waits_for_stream[dir as usize].wait(cx);
        Poll::Pending
    }

    /// How many QUIC streams the peer may have open one way.
    pub(in super::super) fn set_max_concurrent_uni_streams(&self, count: VarInt) {
        let mut state = self.lock();
        state.proto.set_max_concurrent_streams(Dir::Uni, count);
        self.conn().mark_ready(&mut state);
    }

    /// Sends datagrams as long as `next` gives some; it is told how many bytes there is still room for, and gives nothing
    /// when its next is too large. They leave before this returns, as far as congestion control lets them. What the peer
    /// does not take, or what is too large for the path, is left out.
    ///
    /// # Errors
    /// How the connection ended.
    pub(in super::super) fn send_datagrams(
        &self,
        mut next: impl FnMut(usize) -> Option<Bytes>,
    ) -> Result<(), ConnectionError> {
        let mut state = self.lock();
        if let Some(error) = &state.error {
            return Err(error.clone());
        }
        let mut datagrams = state.proto.datagrams();
        while let Some(datagram) = next(datagrams.send_buffer_space()) {
            if let Err(error) = datagrams.send(datagram, true) {
                tracing::debug!(%error, "a datagram is left out");
            }
        }
        if self.conn().guard(&mut state, |state| self.conn().drive(state)).is_ready {
            self.conn().mark_ready(&mut state);
        }
        Ok(())
    }

    /// The next datagram.
    ///
    /// # Errors
    /// How the connection ended.
    pub(in super::super) async fn read_datagram(&self) -> Result<Bytes, ConnectionError> {
        poll_fn(|cx| {
            let mut state = self.lock();
            if let Some(datagram) = state.proto.datagrams().recv() {
                return Poll::Ready(Ok(datagram));
            }
            if let Some(error) = &state.error {
                return Poll::Ready(Err(error.clone()));
            }
            state.waits_for_datagram.wait(cx);
            Poll::Pending
        })
        .await
    }
}
