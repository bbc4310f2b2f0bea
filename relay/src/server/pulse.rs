//! The relay's pulse: how late it is woken says whether the machine keeps up, and what follows from that is told.

use std::sync::Arc;

use super::Hub;
use crate::limits::OVERLOAD_HEARTBEAT;

/// Beats until it is dropped.
pub(super) async fn beat(hub: Arc<Hub>) {
    let clock = hub.clock().clone();
    let mut timer = clock.timer();
    loop {
        let due = clock.now() + OVERLOAD_HEARTBEAT;
        timer.reset(Some(due));
        timer.expired().await;
        let now = clock.now();
        hub.note_lateness(now, now.saturating_since(due));
    }
}
