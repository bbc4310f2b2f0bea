//! quinn's connection as moq-net wants its transport: operations that are polled, on clones that each keep what they
//! have begun. Nothing of MoQ is decided here.
//!
//! moq-net's own adapters cannot be used: they bring a runtime that reads the machine's clock, and are written for
//! a later version of the trait than moq-net takes.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use moq_net::web_transport_trait::{self as transport, poll};
use quinn::{Connection, VarInt};

use super::quic::estimate;

/// A connection. Clones have operations of their own under way.
pub(super) struct Session {
    connection: Connection,
    accept_uni: Pending<Result<quinn::RecvStream, Failure>>,
    accept_bi: Pending<Result<(quinn::SendStream, quinn::RecvStream), Failure>>,
    open_uni: Pending<Result<quinn::SendStream, Failure>>,
    open_bi: Pending<Result<(quinn::SendStream, quinn::RecvStream), Failure>>,
    send_datagram: Pending<Result<(), Failure>>,
    receive_datagram: Pending<Result<Bytes, Failure>>,
    closed: Pending<Failure>,
}

impl Session {
    /// `connection`, on which both ends have agreed to speak the newest protocol that moq-net offers.
    pub(super) fn new(connection: Connection) -> Self {
        Session {
            connection,
            accept_uni: Pending::default(),
            accept_bi: Pending::default(),
            open_uni: Pending::default(),
            open_bi: Pending::default(),
            send_datagram: Pending::default(),
            receive_datagram: Pending::default(),
            closed: Pending::default(),
        }
    }
}

impl Clone for Session {
    fn clone(&self) -> Self {
        Session::new(self.connection.clone())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.connection.stable_id()).finish()
    }
}

impl poll::Session for Session {
    type SendStream = SendStream;
    type RecvStream = RecvStream;
    type Error = Failure;

    fn poll_accept_uni(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, Failure>> {
        let connection = &self.connection;
        let stream = self.accept_uni.poll(cx, || {
            let connection = connection.clone();
            async move { connection.accept_uni().await.map_err(Failure::from) }
        });
        stream.map_ok(RecvStream)
    }

    fn poll_accept_bi(&mut self, cx: &mut Context<'_>) -> Poll<Result<(SendStream, RecvStream), Failure>> {
        let connection = &self.connection;
        let streams = self.accept_bi.poll(cx, || {
            let connection = connection.clone();
            async move { connection.accept_bi().await.map_err(Failure::from) }
        });
        streams.map_ok(|(send, receive)| (SendStream::new(send), RecvStream(receive)))
    }

    fn poll_open_uni(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, Failure>> {
        let connection = &self.connection;
        let stream = self.open_uni.poll(cx, || {
            let connection = connection.clone();
            async move { connection.open_uni().await.map_err(Failure::from) }
        });
        stream.map_ok(SendStream::new)
    }

    fn poll_open_bi(&mut self, cx: &mut Context<'_>) -> Poll<Result<(SendStream, RecvStream), Failure>> {
        let connection = &self.connection;
        let streams = self.open_bi.poll(cx, || {
            let connection = connection.clone();
            async move { connection.open_bi().await.map_err(Failure::from) }
        });
        streams.map_ok(|(send, receive)| (SendStream::new(send), RecvStream(receive)))
    }

    fn poll_send_datagram(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> Poll<Result<(), Failure>> {
        let connection = &self.connection;
        self.send_datagram.poll(cx, || {
            let (connection, payload) = (connection.clone(), Bytes::copy_from_slice(payload));
            async move { connection.send_datagram_wait(payload).await.map_err(Failure::other) }
        })
    }

    fn poll_recv_datagram(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Failure>> {
        let connection = &self.connection;
        self.receive_datagram.poll(cx, || {
            let connection = connection.clone();
            async move { connection.read_datagram().await.map_err(Failure::from) }
        })
    }

    fn max_datagram_size(&self) -> usize {
        self.connection.max_datagram_size().unwrap_or(0)
    }

    fn protocol(&self) -> Option<&str> {
        moq_net::ALPNS.first().copied()
    }

    fn close(&mut self, code: u32, reason: &str) {
        self.connection.close(VarInt::from_u32(code), reason.as_bytes());
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let connection = &self.connection;
        self.closed.poll(cx, || {
            let connection = connection.clone();
            async move { Failure::from(connection.closed().await) }
        })
    }

    fn stats(&self) -> impl transport::Stats {
        Stats { rtt: self.connection.rtt(), rate: estimate(&self.connection) }
    }
}

/// What moq-net may know of the path.
struct Stats {
    rtt: Duration,
    rate: u64,
}

impl transport::Stats for Stats {
    fn rtt(&self) -> Option<Duration> {
        Some(self.rtt)
    }

    fn estimated_send_rate(&self) -> Option<u64> {
        Some(self.rate)
    }
}

/// The sending half of a QUIC stream. Reset when dropped unfinished.
pub(super) struct SendStream {
    stream: quinn::SendStream,
    is_ended: bool,
    closed: Pending<Result<(), Failure>>,
}

impl SendStream {
    fn new(stream: quinn::SendStream) -> Self {
        SendStream { stream, is_ended: false, closed: Pending::default() }
    }
}

impl poll::SendStream for SendStream {
    type Error = Failure;

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, Failure>> {
        Pin::new(&mut self.stream).poll_write(cx, buf).map_err(|error| match error {
            quinn::WriteError::Stopped(code) => Failure::stream(code),
            quinn::WriteError::ConnectionLost(error) => error.into(),
            error => Failure::other(error),
        })
    }

    fn set_priority(&mut self, order: u8) {
        _ = self.stream.set_priority(order.into());
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.is_ended = true;
        self.stream.finish().map_err(Failure::other)
    }

    fn reset(&mut self, code: u32) {
        self.is_ended = true;
        _ = self.stream.reset(VarInt::from_u32(code));
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let stream = &self.stream;
        self.closed.poll(cx, || {
            let stopped = stream.stopped();
            async move {
                match stopped.await {
                    Ok(Some(code)) => Err(Failure::stream(code)),
                    Ok(None) => Ok(()),
                    Err(error) => Err(Failure::other(error)),
                }
            }
        })
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        // quinn would finish it, and the other end would take a part for the whole.
        if !self.is_ended {
            _ = self.stream.reset(VarInt::from_u32(0));
        }
    }
}

/// The receiving half of a QUIC stream. quinn stops it when it is dropped.
pub(super) struct RecvStream(quinn::RecvStream);

impl poll::RecvStream for RecvStream {
    type Error = Failure;

    fn poll_read(&mut self, cx: &mut Context<'_>, dst: &mut [u8]) -> Poll<Result<Option<usize>, Failure>> {
        if dst.is_empty() {
            return Poll::Ready(Ok(Some(0)));
        }
        let read = ready!(self.0.poll_read(cx, dst)).map_err(|error| match error {
            quinn::ReadError::Reset(code) => Failure::stream(code),
            quinn::ReadError::ConnectionLost(error) => error.into(),
            error => Failure::other(error),
        })?;
        // Nothing read into a buffer with room is quinn's way to say that the stream is over.
        Poll::Ready(Ok((read > 0).then_some(read)))
    }

    fn stop(&mut self, code: u32) {
        _ = self.0.stop(VarInt::from_u32(code));
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        // quinn keeps the waker with the stream, not with this future.
        let reset = pin!(self.0.received_reset());
        match ready!(reset.poll(cx)) {
            Ok(Some(code)) => Poll::Ready(Err(Failure::stream(code))),
            Ok(None) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(Failure::other(error))),
        }
    }
}

/// Why an operation failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    text: String,
    closed: Option<(u32, String)>,
    stream: Option<u32>,
}

impl Failure {
    fn other(error: impl fmt::Display) -> Self {
        Failure { text: error.to_string(), closed: None, stream: None }
    }

    fn stream(code: VarInt) -> Self {
        Failure { stream: Some(short(code)), ..Failure::other("the other end gave the stream up") }
    }
}

impl From<quinn::ConnectionError> for Failure {
    fn from(error: quinn::ConnectionError) -> Self {
        let closed = match &error {
            quinn::ConnectionError::ApplicationClosed(close) => {
                Some((short(close.error_code), String::from_utf8_lossy(&close.reason).into_owned()))
            }
            _ => None,
        };
        Failure { closed, ..Failure::other(error) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl transport::Error for Failure {
    fn session_error(&self) -> Option<(u32, String)> {
        self.closed.clone()
    }

    fn stream_error(&self) -> Option<u32> {
        self.stream
    }
}

/// moq-net's codes have 32 bits; a larger one is nothing that it knows.
fn short(code: VarInt) -> u32 {
    u32::try_from(code.into_inner()).unwrap_or(u32::MAX)
}

/// An operation of quinn's that is under way. It holds the wake-up, so it has to outlive the poll that began it.
struct Pending<T>(Mutex<Option<Pin<Box<dyn Future<Output = T> + Send>>>>);

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Pending(Mutex::new(None))
    }
}

impl<T> Pending<T> {
    /// Goes on with what is under way, or begins it.
    fn poll<F>(&mut self, cx: &mut Context<'_>, begin: impl FnOnce() -> F) -> Poll<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let slot = self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let future = slot.get_or_insert_with(|| Box::pin(begin()));
        let output = ready!(future.as_mut().poll(cx));
        *slot = None;
        Poll::Ready(output)
    }
}
