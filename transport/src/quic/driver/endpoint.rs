//! The endpoint: which packets belong to whom, and where connections begin.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use quinn::{AsyncUdpSocket, ClientConfig, ConnectError, ConnectionError, EndpointConfig};
use quinn::{Runtime, ServerConfig, VarInt};
use quinn_proto::{ConnectionEvent, ConnectionHandle, EndpointEvent};
use tokio::sync::Notify;

use super::connection::{Conn, Connection, internal, is_blocked};
use super::task::Task;
use super::timers::Timers;

/// A socket with its connections. Clones stand for the same one; when the last is dropped it takes no more connections,
/// and those it has go on.
#[derive(Clone)]
pub(in super::super) struct Endpoint(Arc<Handle>);

/// What the application holds of an endpoint.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.router().is_held = false;
        self.0.wake();
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("socket", &self.shared().router().socket).finish_non_exhaustive()
    }
}

/// What the task of an endpoint shares with its connections and with the application.
pub(super) struct Shared {
    pub(super) runtime: Arc<dyn Runtime>,
    router: Mutex<Router>,
    timers: Mutex<Timers>,
    /// Connections with something to do. Gone with the task: nobody would take them out again.
    ready: Mutex<Option<Vec<Arc<Conn>>>>,
    /// Connections whose packets the socket did not take. Gone with the task.
    blocked: Mutex<Option<Vec<Arc<Conn>>>>,
    task: AtomicWaker,
    /// Somebody tries to connect, or the endpoint was closed.
    incoming: Notify,
    /// The last connection has drained.
    idle: Notify,
}

impl Shared {
    pub(super) fn router(&self) -> MutexGuard<'_, Router> {
        // As with connections: who panics does so inside quinn-proto, and others must not follow.
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn timers(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self) -> MutexGuard<'_, Option<Vec<Arc<Conn>>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blocked(&self) -> MutexGuard<'_, Option<Vec<Arc<Conn>>>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the task come by.
    pub(super) fn wake(&self) {
        self.task.wake();
    }

    pub(super) fn register(&self, cx: &std::task::Context<'_>) {
        self.task.register(cx.waker());
    }

    pub(super) fn push_ready(&self, conn: Arc<Conn>) {
        let mut list = self.ready();
        let Some(ready) = list.as_mut() else {
            drop(list);
            return drop(conn);
        };
        ready.push(conn);
        // The task takes all of them, so that only the first has to wake it.
        let is_first = ready.len() == 1;
        drop(list);
        if is_first {
            self.wake();
        }
    }

    pub(super) fn take_ready(&self, into: &mut VecDeque<Arc<Conn>>) {
        into.extend(self.ready().iter_mut().flat_map(|ready| ready.drain(..)));
    }

    pub(super) fn push_blocked(&self, conn: Arc<Conn>) {
        let mut list = self.blocked();
        let Some(blocked) = list.as_mut() else {
            drop(list);
            return drop(conn);
        };
        blocked.push(conn);
        drop(list);
        self.wake();
    }

    pub(super) fn has_blocked(&self) -> bool {
        self.blocked().as_ref().is_some_and(|blocked| !blocked.is_empty())
    }

    pub(super) fn take_blocked(&self) -> Vec<Arc<Conn>> {
        self.blocked().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The task has ended, and every connection with it.
    pub(super) fn abandon(&self) {
        let mut router = self.router();
        router.is_driven = false;
        while let Some(incoming) = router.incoming.pop_front() {
            router.proto.ignore(incoming);
        }
        router.connected = 0;
        let connections: Vec<_> = std::mem::take(&mut router.connections).into_iter().flatten().collect();
        drop(router);
        for conn in &connections {
            conn.abandon();
        }
        // Each by itself, so that what is dropped is dropped with no lock held.
        let listed = (self.ready().take(), self.blocked().take());
        drop(listed);
        self.incoming.notify_waiters();
        self.idle.notify_waiters();
    }

    pub(super) fn announce_incoming(&self) {
        self.incoming.notify_waiters();
    }
}

/// Which packets belong to which connection, and the socket they come from.
pub(super) struct Router {
    pub(super) proto: quinn_proto::Endpoint,
    pub(super) socket: Arc<dyn AsyncUdpSocket>,
    /// The socket before, until something comes on the one now.
    pub(super) previous: Option<Arc<dyn AsyncUdpSocket>>,
    is_ipv6: bool,
    /// By handle.
    connections: Vec<Option<Arc<Conn>>>,
    connected: usize,
    /// quinn-proto bounds them.
    pub(super) incoming: VecDeque<quinn_proto::Incoming>,
    pub(super) closed: Option<(VarInt, Bytes)>,
    /// The application still has the endpoint.
    is_held: bool,
    is_driven: bool,
}

impl Router {
    pub(super) fn connection(&self, handle: ConnectionHandle) -> Option<&Arc<Conn>> {
        self.connections.get(handle.0)?.as_ref()
    }

    /// Nothing is left to do, nor will be.
    pub(super) fn is_over(&self) -> bool {
        !self.is_held && self.connected == 0
    }

    fn insert(
        &mut self,
        shared: &Arc<Shared>,
        handle: ConnectionHandle,
        proto: quinn_proto::Connection,
    ) -> Arc<Conn> {
        let conn = Conn::new(Arc::clone(shared), handle, proto, Arc::clone(&self.socket));
        if self.connections.len() <= handle.0 {
            self.connections.resize(handle.0 + 1, None);
        }
        self.connections[handle.0] = Some(Arc::clone(&conn));
        self.connected += 1;
        conn
    }

    fn remove(&mut self, handle: ConnectionHandle) -> Option<Arc<Conn>> {
        let removed = self.connections.get_mut(handle.0)?.take();
        self.connected -= usize::from(removed.is_some());
        removed
    }

    pub(super) fn all(&self) -> Vec<Arc<Conn>> {
        self.connections.iter().flatten().cloned().collect()
    }
}

impl Shared {
    /// Takes what a connection says of itself, and gives what it is to know.
    pub(super) fn handle_event(&self, conn: &Conn, event: EndpointEvent) -> Option<ConnectionEvent> {
        let mut router = self.router();
        let handle = conn.handle;
        // It has drained before, and its handle may be another's; or the task has ended.
        router.connection(handle).filter(|known| std::ptr::eq(Arc::as_ptr(known), conn))?;
        let mut drained = None;
        if event.is_drained() {
            drained = router.remove(handle);
            if router.connected == 0 {
                self.idle.notify_waiters();
                // Nobody may be left who would wake it.
                self.wake();
            }
        }
        let answer = router.proto.handle_event(handle, event);
        drop(router);
        drop(drained);
        answer
    }
}

impl Endpoint {
    /// Starts the task that drives it.
    ///
    /// # Errors
    /// What the system says about the socket.
    pub(in super::super) fn new(
        config: EndpointConfig,
        server: Option<ServerConfig>,
        socket: Arc<dyn AsyncUdpSocket>,
        runtime: Arc<dyn Runtime>,
    ) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let proto =
            quinn_proto::Endpoint::new(Arc::new(config), server.map(Arc::new), !socket.may_fragment(), None);
        let router = Router {
            proto,
            socket,
            previous: None,
            is_ipv6: address.is_ipv6(),
            connections: Vec::new(),
            connected: 0,
            incoming: VecDeque::new(),
            closed: None,
            is_held: true,
            is_driven: true,
        };
        let shared = Arc::new(Shared {
            runtime: Arc::clone(&runtime),
            router: Mutex::new(router),
            timers: Mutex::default(),
            ready: Mutex::new(Some(Vec::new())),
            blocked: Mutex::new(Some(Vec::new())),
            task: AtomicWaker::new(),
            incoming: Notify::new(),
            idle: Notify::new(),
        });
        runtime.spawn(Box::pin(Task::new(Arc::clone(&shared))));
        Ok(Endpoint(Arc::new(Handle(shared))))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    /// The address the socket has.
    ///
    /// # Errors
    /// What the system says.
    pub(in super::super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared().router().socket.local_addr()
    }

    /// Goes on with another socket.
    ///
    /// # Errors
    /// What the system says about it; the one before stays in use.
    pub(in super::super) fn rebind(&self, socket: Arc<dyn AsyncUdpSocket>) -> io::Result<()> {
        let address = socket.local_addr()?;
        let connections = {
            let mut router = self.shared().router();
            router.previous = Some(std::mem::replace(&mut router.socket, Arc::clone(&socket)));
            router.is_ipv6 = address.is_ipv6();
            router.all()
        };
        for conn in connections {
            conn.rebind(&socket);
        }
        // The task is to wait for what comes on the new one.
        self.shared().wake();
        Ok(())
    }

    /// How connections are taken from now on.
    pub(in super::super) fn set_server_config(&self, config: ServerConfig) {
        self.shared().router().proto.set_server_config(Some(Arc::new(config)));
    }

    /// Begins a connection. It is there at once, its handshake goes on.
    ///
    /// # Errors
    /// When it cannot be begun.
    pub(in super::super) fn connect(
        &self,
        config: ClientConfig,
        address: SocketAddr,
        host: &str,
    ) -> Result<Connection, ConnectError> {
        let shared = self.shared();
        let conn = {
            let mut router = shared.router();
            if !router.is_driven || router.closed.is_some() {
                return Err(ConnectError::EndpointStopping);
            }
            let address = match address {
                SocketAddr::V6(_) if !router.is_ipv6 => {
                    return Err(ConnectError::InvalidRemoteAddress(address));
                }
                SocketAddr::V4(v4) if router.is_ipv6 => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
                address => address,
            };
            let (handle, proto) = router.proto.connect(shared.runtime.now(), config, address, host)?;
            router.insert(shared, handle, proto)
        };
        conn.mark_ready(&mut conn.lock());
        Ok(Connection::new(conn))
    }

    /// The next who tries to connect; `None` once the endpoint is closed.
    pub(in super::super) async fn accept(&self) -> Option<Incoming> {
        loop {
            let announced = self.shared().incoming.notified();
            {
                let mut router = self.shared().router();
                if let Some(proto) = router.incoming.pop_front() {
                    return Some(Incoming { proto: Some(proto), endpoint: self.clone() });
                }
                if !router.is_driven || router.closed.is_some() {
                    return None;
                }
            }
            announced.await;
        }
    }

    /// Ends every connection and takes no more.
    pub(in super::super) fn close(&self, code: VarInt, reason: &[u8]) {
        let reason = Bytes::copy_from_slice(reason);
        let connections = {
            let mut router = self.shared().router();
            router.closed = Some((code, reason.clone()));
            router.all()
        };
        for conn in connections {
            conn.close(&mut conn.lock(), code, reason.clone());
        }
        self.shared().announce_incoming();
    }

    /// Waits until every connection has drained.
    pub(in super::super) async fn wait_idle(&self) {
        loop {
            let idle = self.shared().idle.notified();
            if self.shared().router().connected == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// Somebody who tries to connect. Dropping it refuses.
pub(in super::super) struct Incoming {
    /// There until it is decided upon.
    proto: Option<quinn_proto::Incoming>,
    endpoint: Endpoint,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("proto", &self.proto).finish_non_exhaustive()
    }
}

impl Incoming {
    fn proto(&self) -> &quinn_proto::Incoming {
        self.proto.as_ref().expect("whoever decides consumes this")
    }

    pub(in super::super) fn remote_address(&self) -> SocketAddr {
        self.proto().remote_address()
    }

    /// Whether the client has shown that it is where it says.
    pub(in super::super) fn remote_address_validated(&self) -> bool {
        self.proto().remote_address_validated()
    }

    /// Takes the connection; its handshake goes on.
    ///
    /// # Errors
    /// Why it cannot be taken.
    pub(in super::super) fn accept(
        mut self,
        config: Option<Arc<ServerConfig>>,
    ) -> Result<Connection, ConnectionError> {
        let Some(incoming) = self.proto.take() else { unreachable!("whoever decides consumes this") };
        let shared = self.endpoint.shared();
        let mut response = Vec::new();
        let mut router = shared.router();
        if !router.is_driven {
            router.proto.ignore(incoming);
            return Err(internal("the endpoint's runtime has ended"));
        }
        match router.proto.accept(incoming, shared.runtime.now(), &mut response, config) {
            Ok((handle, proto)) => {
                let conn = router.insert(shared, handle, proto);
                let closed = router.closed.clone();
                drop(router);
                let mut state = conn.lock();
                match closed {
                    Some((code, reason)) => conn.close(&mut state, code, reason),
                    None => conn.mark_ready(&mut state),
                }
                drop(state);
                Ok(Connection::new(conn))
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    // A full socket loses it, as the network might.
                    _ = is_blocked(&*router.socket, &transmit, &response[..transmit.size]);
                }
                Err(error.cause)
            }
        }
    }

    /// Says no.
    pub(in super::super) fn refuse(mut self) {
        self.do_refuse();
    }

    fn do_refuse(&mut self) {
        if let Some(incoming) = self.proto.take() {
            let mut response = Vec::new();
            let mut router = self.endpoint.shared().router();
            let transmit = router.proto.refuse(incoming, &mut response);
            _ = is_blocked(&*router.socket, &transmit, &response[..transmit.size]);
        }
    }

    /// Forgets it without an answer.
    pub(in super::super) fn ignore(mut self) {
        if let Some(incoming) = self.proto.take() {
            self.endpoint.shared().router().proto.ignore(incoming);
        }
    }

    /// Asks the client to come again with a proof of its address; one that has one already is refused.
    pub(in super::super) fn retry(mut self) {
        let Some(incoming) = self.proto.take() else { return };
        let mut response = Vec::new();
        let mut router = self.endpoint.shared().router();
        match router.proto.retry(incoming, &mut response) {
            Ok(transmit) => _ = is_blocked(&*router.socket, &transmit, &response[..transmit.size]),
            Err(error) => {
                drop(router);
                self.proto = Some(error.into_incoming());
                self.do_refuse();
            }
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.do_refuse();
    }
}
