//! Room events to one member: a snapshot, then what follows it, for as long as the room has it.
//!
//! Nothing waits here for a member but a position. What QUIC may hold for it is bounded: who has not acknowledged what was
//! sent gets no more, and hears later what it all came to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parlor_transport::quic::{Ended, MessageSender, Session};
use parlor_transport::wire::control::{RoomCount, RoomMessage, StreamKind};
use tokio::sync::{Notify, watch};

use super::Connection;
use crate::limits::EVENTS_UNDER_WAY_MAX;
use crate::lobby::SharedRoom;
use crate::lock;
use crate::room::View;
use crate::room::events::After;
use crate::server::Told;

/// Sends the room, from a position that the member knows or all of it, until it ends, the connection ends, or the task
/// is aborted because the user left. Whatever the room has when it begins is sent at once, the rest as it is told.
pub(super) async fn send(
    connection: Arc<Connection>,
    room: SharedRoom,
    view: View,
    from: Option<u64>,
    changed: watch::Receiver<Told>,
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
    mut changed: watch::Receiver<Told>,
) -> Result<(), Ended> {
    let mut sender = session.open_messages(StreamKind::Events).await?;
    let under_way = UnderWay::default();
    changed.borrow_and_update();
    let mut told = now_in(room, view);
    let mut users_sent = None;
    loop {
        under_way.few().await;
        if let Some((messages, reached)) = next(room, view, position, told.position) {
            for message in messages.iter() {
                under_way.send(&mut sender, message.clone()).await?;
            }
            position = Some(reached);
            continue;
        }
        if view == View::Publishers && users_sent != Some(told.users) {
            users_sent = Some(told.users);
            sender.send(&RoomMessage::Count(RoomCount { users: told.users })).await?;
        }
        if changed.changed().await.is_err() {
            return Ok(());
        }
        // A group may be told less than who just came knows already.
        told = *changed.borrow_and_update();
    }
}

fn now_in(room: &SharedRoom, view: View) -> Told {
    let room = lock(room);
    Told { position: room.position_in(view), users: room.roster().len() as u32 }
}

/// What a member at `position` is to be sent next to know as much as `wanted`, and where it is then. One who is new, or
/// reads so slowly that its next event is gone, gets the whole room.
fn next(room: &SharedRoom, view: View, position: Option<u64>, wanted: u64) -> Option<(Arc<[Bytes]>, u64)> {
    let mut room = lock(room);
    let snapshot = match position.map(|position| room.after(view, position, wanted)) {
        Some(After::UpToDate) => return None,
        Some(After::Events(batch)) => return Some(([batch.bytes].into(), batch.reached)),
        Some(After::Behind) | None => room.snapshot(view),
    };
    Some((snapshot.pages, snapshot.position))
}

/// Bytes that a member was sent and has not acknowledged.
#[derive(Clone, Default)]
struct UnderWay(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    /// There are few again.
    few: Notify,
}

impl UnderWay {
    /// Waits until the member has acknowledged all but [`EVENTS_UNDER_WAY_MAX`] of what it was sent.
    async fn few(&self) {
        while self.0.bytes.load(Ordering::Acquire) > EVENTS_UNDER_WAY_MAX {
            self.0.few.notified().await;
        }
    }

    async fn send(&self, sender: &mut MessageSender, bytes: Bytes) -> Result<(), Ended> {
        self.0.bytes.fetch_add(bytes.len(), Ordering::AcqRel);
        let sent = Sent { bytes, waiting: self.0.clone() };
        sender.send_encoded(Bytes::from_owner(sent)).await
    }
}

/// Shared bytes on their way to one member. QUIC drops them when they are acknowledged.
struct Sent {
    bytes: Bytes,
    waiting: Arc<Waiting>,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let before = self.waiting.bytes.fetch_sub(self.bytes.len(), Ordering::AcqRel);
        if before > EVENTS_UNDER_WAY_MAX && before - self.bytes.len() <= EVENTS_UNDER_WAY_MAX {
            self.waiting.few.notify_one();
        }
    }
}
