//! The relay's pulse: how late it is woken says whether the machine keeps up, and what follows from that is told.

use std::sync::Arc;

use super::Hub;
use crate::limits::OVERLOAD_HEARTBEAT;

/// Beats until it is dropped: by the clock, and not so long after the last beat, which would be in step with work that comes
/// at its own pace, and always wait for it. Beats that were missed are not made up for.
pub(super) async fn beat(hub: Arc<Hub>) {
    let clock = hub.clock().clone();
    let mut timer = clock.timer();
    let mut due = clock.now();
    loop {
        let missed = clock.now().saturating_since(due).as_micros() / OVERLOAD_HEARTBEAT.as_micros();
        due = due + OVERLOAD_HEARTBEAT * u32::try_from(missed + 1).unwrap_or(u32::MAX);
        timer.reset(Some(due));
        timer.expired().await;
        let now = clock.now();
        hub.note_lateness(now, now.saturating_since(due));
    }
}
