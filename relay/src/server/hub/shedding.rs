//! What is left out when the machine is too slow: measured, made known to all connections, and told to clients.

use std::sync::atomic::Ordering;
use std::time::Duration;

use parlor_transport::id::SessionId;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{self, RelayMessage};

use super::{Hub, Mail, Route, State};
use crate::limits::OVERLOAD_TOLD_PER_BEAT;
use crate::lobby::Notice;
use crate::lock;
use crate::overload::Shed;

/// Whether the machine keeps up, and what is left out.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct OverloadFigures {
    /// What is left out.
    pub shed: Shed,
    /// Because an operator said so.
    pub is_forced: bool,
    /// How late tasks are woken.
    pub lateness: Duration,
    /// Whether nobody may join.
    pub is_full: bool,
}

impl Hub {
    /// What is left out because the machine is too slow.
    pub(crate) fn shed(&self) -> Shed {
        Shed::from_bits(self.shed.load(Ordering::Relaxed))
    }

    /// A task that asked to be woken was woken so late.
    pub(crate) fn note_lateness(&self, now: Timestamp, late: Duration) {
        lock(&self.overload).sample(now, late);
        self.look_at_overload();
        if self.has_untold.load(Ordering::Relaxed) {
            let mut state = lock(&self.state);
            state.tell_overload();
            self.has_untold.store(state.untold.is_some(), Ordering::Relaxed);
        }
    }

    pub(crate) fn force_overload(&self, forced: Option<Shed>) {
        lock(&self.overload).force(self.clock.now(), forced);
        tracing::info!(level = ?forced.map(Shed::level), "the level of overload is set by an operator");
        self.look_at_overload();
    }

    pub(crate) fn overload(&self) -> OverloadFigures {
        let overload = lock(&self.overload);
        OverloadFigures {
            shed: overload.shed(),
            is_forced: overload.forced().is_some(),
            lateness: overload.lateness(),
            is_full: overload.is_full(),
        }
    }

    /// Makes known what is left out now.
    pub(super) fn look_at_overload(&self) {
        let OverloadFigures { shed, lateness, is_full, is_forced } = self.overload();
        let before = Shed::from_bits(self.shed.swap(shed.to_bits(), Ordering::Relaxed));
        let (level, video_eighths) = (shed.level(), shed.share());
        if shed > before {
            tracing::warn!(
                level,
                video_eighths,
                ?lateness,
                is_forced,
                "the machine is too slow: more is left out"
            );
        } else if shed < before {
            tracing::info!(level, video_eighths, ?lateness, is_forced, "less is left out");
        }
        if level != before.level() {
            let mut state = lock(&self.state);
            (state.level, state.untold) = (level, Some(SessionId(0)));
            self.has_untold.store(true, Ordering::Relaxed);
        }
        if is_full != self.is_full.swap(is_full, Ordering::Relaxed) {
            match is_full {
                true => tracing::warn!("the machine is too slow for those who are here: nobody may join"),
                false => tracing::info!("joins are taken again"),
            }
            self.operate(|_, _, lobby| lobby.set_full(is_full));
        }
    }
}

impl State {
    /// Tells some more clients the level of overload. To wake them all at once would add to it.
    fn tell_overload(&mut self) {
        let Some(from) = self.untold else { return };
        let mut routes = self.routes.range_mut(from..);
        for (_, route) in routes.by_ref().take(OVERLOAD_TOLD_PER_BEAT) {
            route.tell(self.level);
        }
        self.untold = routes.next().map(|(id, _)| *id);
    }
}

impl Route {
    /// Tells the client the level of overload, if it is in a room and was told another. One whose box is full is told the
    /// next one.
    pub(super) fn tell(&mut self, level: u8) {
        if !self.is_in || self.level == level {
            return;
        }
        let message = RelayMessage::Overload(control::Overload { level });
        if self.mail.try_send(Mail::Notice(Notice::Send(message))).is_ok() {
            self.level = level;
        }
    }
}
