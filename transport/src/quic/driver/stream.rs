//! QUIC streams.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use quinn::{ConnectionError, StreamId, VarInt};
use quinn_proto::{FinishError, ReadError, WriteError};

use super::connection::Connection;

/// Why a QUIC stream is of no more use.
#[derive(Clone, Debug)]
pub(in super::super) enum Broken {
    /// The connection ended.
    Connection(ConnectionError),
    /// The peer gave it up or wants no more of it, or it was opened with 0-RTT data that the peer declined.
    Stream,
}

/// The sending side of a QUIC stream. Dropping it says that no more follows.
#[derive(Debug)]
pub(in super::super) struct SendStream {
    connection: Connection,
    id: StreamId,
    is_early: bool,
}

impl SendStream {
    pub(super) fn new(connection: Connection, id: StreamId, is_early: bool) -> Self {
        SendStream { connection, id, is_early }
    }

    /// Writes all of it; waits while the peer does not read. What was written when this is cancelled stays written.
    pub(in super::super) async fn write(&mut self, mut bytes: Bytes) -> Result<(), Broken> {
        while !bytes.is_empty() {
            poll_fn(|cx| {
                let mut state = self.connection.lock();
                if self.is_early && state.is_early_data_void() {
                    return Poll::Ready(Err(Broken::Stream));
                }
                if let Some(error) = &state.error {
                    return Poll::Ready(Err(Broken::Connection(error.clone())));
                }
                // What is left of a chunk stays in its place.
                match state.proto.send_stream(self.id).write_chunks(std::slice::from_mut(&mut bytes)) {
                    Ok(_) => {
                        self.connection.conn().mark_ready(&mut state);
                        Poll::Ready(Ok(()))
                    }
                    Err(WriteError::Blocked) => {
                        state.writers.insert(self.id, cx.waker().clone());
                        Poll::Pending
                    }
                    Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                        Poll::Ready(Err(Broken::Stream))
                    }
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Says that no more follows. Not an error if the peer wants no more: [`delivered`](Self::delivered) tells.
    pub(in super::super) fn finish(&mut self) -> Result<(), Broken> {
        let mut state = self.connection.lock();
        match state.proto.send_stream(self.id).finish() {
            Ok(()) => self.connection.conn().mark_ready(&mut state),
            Err(FinishError::Stopped(_)) => {}
            Err(FinishError::ClosedStream) => return Err(Broken::Stream),
        }
        Ok(())
    }

    /// Waits until the peer has all of it.
    ///
    /// # Errors
    /// [`Broken`] if the peer wants no more of it, or the connection ends.
    pub(in super::super) async fn delivered(&self) -> Result<(), Broken> {
        poll_fn(|cx| {
            let mut state = self.connection.lock();
            if self.is_early && state.is_early_data_void() {
                return Poll::Ready(Err(Broken::Stream));
            }
            match state.proto.send_stream(self.id).stopped() {
                // Nothing is known of it any more: it is over.
                Err(_) => return Poll::Ready(Ok(())),
                Ok(Some(_)) => return Poll::Ready(Err(Broken::Stream)),
                Ok(None) => {}
            }
            if let Some(error) = &state.error {
                return Poll::Ready(Err(Broken::Connection(error.clone())));
            }
            state.writers.insert(self.id, cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Gives it up: what has not left does not leave any more.
    pub(in super::super) fn reset(&mut self, code: VarInt) {
        let mut state = self.connection.lock();
        if self.is_early && state.is_early_data_void() {
            return;
        }
        // One that is over needs none.
        if state.proto.send_stream(self.id).reset(code).is_ok() {
            self.connection.conn().mark_ready(&mut state);
        }
    }

    /// Of those that have something to send, the one with the highest goes first.
    pub(in super::super) fn set_priority(&self, priority: i32) {
        // One that is over has none.
        _ = self.connection.lock().proto.send_stream(self.id).set_priority(priority);
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let mut state = self.connection.lock();
        state.writers.remove(&self.id);
        if state.error.is_some() || (self.is_early && state.is_early_data_void()) {
            return;
        }
        let mut stream = state.proto.send_stream(self.id);
        let is_news = match stream.finish() {
            Ok(()) => true,
            Err(FinishError::Stopped(code)) => stream.reset(code).is_ok(),
            Err(FinishError::ClosedStream) => false,
        };
        if is_news {
            self.connection.conn().mark_ready(&mut state);
        }
    }
}

/// The receiving side of a QUIC stream. Dropping it before its end tells the peer to stop.
#[derive(Debug)]
pub(in super::super) struct RecvStream {
    connection: Connection,
    id: StreamId,
    is_early: bool,
    /// How it ended, once the peer has nothing more to say on it.
    end: Option<Result<(), Broken>>,
}

impl RecvStream {
    pub(super) fn new(connection: Connection, id: StreamId, is_early: bool) -> Self {
        RecvStream { connection, id, is_early, end: None }
    }

    /// What comes next, up to `length` bytes; `None` at the end. Cancelling loses nothing.
    pub(in super::super) async fn read(&mut self, length: usize) -> Result<Option<Bytes>, Broken> {
        let RecvStream { connection, id, is_early, end } = self;
        poll_fn(|cx| {
            if let Some(end) = end {
                return Poll::Ready(end.clone().map(|()| None));
            }
            let mut state = connection.lock();
            if *is_early && state.is_early_data_void() {
                return Poll::Ready(Err(Broken::Stream));
            }
            let mut stream = state.proto.recv_stream(*id);
            let Ok(mut chunks) = stream.read(true) else { return Poll::Ready(Err(Broken::Stream)) };
            let read = chunks.next(length);
            if chunks.finalize().should_transmit() {
                connection.conn().mark_ready(&mut state);
            }
            match read {
                Ok(Some(chunk)) => Poll::Ready(Ok(Some(chunk.bytes))),
                Ok(None) => {
                    *end = Some(Ok(()));
                    Poll::Ready(Ok(None))
                }
                Err(ReadError::Reset(_)) => {
                    *end = Some(Err(Broken::Stream));
                    Poll::Ready(Err(Broken::Stream))
                }
                Err(ReadError::Blocked) => {
                    if let Some(error) = &state.error {
                        return Poll::Ready(Err(Broken::Connection(error.clone())));
                    }
                    state.readers.insert(*id, cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        let mut state = self.connection.lock();
        state.readers.remove(&self.id);
        let is_void = self.is_early && state.is_early_data_void();
        if self.end.is_some() || state.error.is_some() || is_void {
            return;
        }
        // One that is over needs none.
        if state.proto.recv_stream(self.id).stop(VarInt::from_u32(0)).is_ok() {
            self.connection.conn().mark_ready(&mut state);
        }
    }
}
