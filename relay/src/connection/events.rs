//! Room events to one member: a snapshot, then what follows it, for as long as the room has it.

use std::sync::Arc;

use bytes::Bytes;
use parlor_transport::quic::{Ended, Session};
use parlor_transport::wire::control::StreamKind;
use tokio::sync::watch;

use super::Connection;
use crate::lobby::SharedRoom;
use crate::lock;
use crate::room::View;
use crate::room::events::After;

/// Sends the room, from a position that the member knows or all of it, until it ends, the connection ends, or the task
/// is aborted because the user left.
pub(super) async fn send(
    connection: Arc<Connection>,
    room: SharedRoom,
    view: View,
    from: Option<u64>,
    changed: watch::Receiver<()>,
) {
    if let Err(ended) = follow(&connection.session, &room, view, from, changed).await {
        connection.give_up(&ended);
    }
}

async fn follow(
    session: &Session,
    room: &SharedRoom,
    view: View,
    mut position: Option<u64>,
    mut changed: watch::Receiver<()>,
) -> Result<(), Ended> {
    let mut sender = session.open_messages(StreamKind::Events).await?;
    loop {
        let Some((messages, reached)) = next(room, view, position) else {
            if changed.changed().await.is_err() {
                return Ok(());
            }
            continue;
        };
        for message in messages.iter() {
            sender.send_encoded(message.clone()).await?;
        }
        position = Some(reached);
    }
}

/// What a member at `position` is to be sent next, and where it is then. One who is new, or reads so
/// slowly that its next event is gone, gets the whole room.
fn next(room: &SharedRoom, view: View, position: Option<u64>) -> Option<(Arc<[Bytes]>, u64)> {
    let mut room = lock(room);
    let position = match position.map(|position| (position, room.after(view, position))) {
        Some((_, After::UpToDate)) => return None,
        Some((position, After::Events(events))) => {
            let reached = position + events.len() as u64;
            return Some((events.into(), reached));
        }
        Some((_, After::Behind)) | None => room.snapshot(view),
    };
    Some((position.pages, position.position))
}
