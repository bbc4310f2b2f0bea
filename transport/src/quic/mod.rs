//! The shells around QUIC: sockets, TLS, connections, QUIC streams. quinn is named here and in
//! `sim` only; what leaves this module are Parlor's own types, so that another transport
//! (WebTransport for browsers) can stand beside it.

mod congestion;
mod driver;
pub mod endpoint;
pub mod inbound;
pub mod media;
mod resumption;
pub mod session;
pub mod tls;

pub use endpoint::{
    BindError, Binding, ConnectError, Endpoint, Incoming, Options, QUIC_STREAMS_FIRST, QlogError,
};
pub use inbound::{Arrival, Inbound};
pub use media::{MediaSender, OutStats, Outgoing, Reception};
pub use resumption::{Connected, Early};
#[cfg(feature = "sim")]
pub use session::RawStream;
pub use session::{Ended, MessageReceiver, MessageSender, RecvError, Session};
pub use tls::{Fingerprint, Identity, IdentityError, Trust};
