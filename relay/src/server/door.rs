//! The door: from an attempt to connect to a connection that stands. Who gets through is the gate's decision.

use std::net::IpAddr;
use std::sync::Arc;

use parlor_transport::quic::Incoming;

use super::Hub;
use crate::connection;
use crate::gate::{Admission, Pass};

/// A place at the gate, given back when dropped.
pub(super) struct Entry {
    hub: Arc<Hub>,
    pass: Pass,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.hub.gate().leave(self.hub.clock().now(), self.pass);
    }
}

/// What becomes of an attempt; `None` if it was answered, or not even that.
pub(super) fn knock(hub: &Arc<Hub>, incoming: Incoming) -> Option<(Incoming, Entry)> {
    let ip: IpAddr = incoming.remote_address().ip();
    let admission = hub.gate().admit(hub.clock().now(), ip, incoming.is_proven());
    match admission {
        Admission::Take(pass) => return Some((incoming, Entry { hub: hub.clone(), pass })),
        Admission::Prove => incoming.ask_for_proof(),
        Admission::Refuse => incoming.refuse(),
        Admission::Ignore => incoming.ignore(),
    }
    None
}

/// Completes the handshake and serves the connection to its end.
pub(super) async fn welcome(hub: Arc<Hub>, incoming: Incoming, mut entry: Entry) {
    let remote = incoming.remote_address();
    let timeout = hub.settings().limits.handshake_timeout;
    let session = match hub.clock().timeout(timeout, incoming.accept()).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => return tracing::debug!(%remote, %error, "handshake failed"),
        Err(_) => return tracing::debug!(%remote, "the handshake took too long"),
    };
    let stands = hub.gate().stand(hub.clock().now(), &mut entry.pass);
    if let Err(refusal) = stands {
        // Not at the level of a warning, which one address could fill the log with.
        tracing::info!(%remote, %refusal, "connection refused");
        hub.operate(|_, _, lobby| lobby.count_refused(refusal.code));
        return session.close(refusal.code, &refusal.text);
    }
    connection::run(hub, session).await;
}
