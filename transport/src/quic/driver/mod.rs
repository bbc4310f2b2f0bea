//! What drives QUIC: the sockets, the timers and the tasks around quinn-proto's state machines.
//!
//! quinn's own driver has a task for each connection and channels to it. A relay has thousands of connections, each of
//! which gets one packet now and then and a frame many times a second; there the tasks, wake-ups and channels cost as much
//! as the packets (`docs/decisions/0039-an-own-driver.md`). Here
//!
//! - one task for each endpoint ([`task`]) reads the socket, hands packets to their connections in place, and watches over
//!   the timers of all of them;
//! - who sends datagrams ([`Connection::send_datagrams`]) makes and sends their packets itself, in one go with one lock;
//! - what is written to QUIC streams leaves when the task comes by, so that small writes of a moment share packets.
//!
//! # Invariants
//! - Locks are taken in this order: a connection, the router, then one of the ready list, the blocked list and the timers.
//!   None is held while something waits.
//! - A connection with something to do is marked as ready, and is then in the ready list or in the task's own, once.
//! - A connection has at most one entry among the timers, at or before the time its state machine asks for. It may be
//!   before: a timer that moves away is looked at when the old time comes, because most move with every packet.
//! - A connection is in the router from its beginning until it has drained, and never after.

mod connection;
mod endpoint;
mod stream;
mod task;
mod timers;

#[cfg(all(test, feature = "sim"))]
#[allow(clippy::unwrap_used)]
mod tests;

pub(super) use connection::Connection;
pub(super) use endpoint::{Endpoint, Incoming};
pub(super) use stream::{Broken, RecvStream, SendStream};
