//! Telling the client whose voice leads in its room: what is so when there is room to say it, and nothing twice.

use std::sync::Arc;
use std::task::Waker;

use parlor_transport::clock::{Clock, Timer};
use parlor_transport::id::SessionId;
use parlor_transport::wire::control::{ActiveSpeaker, RelayMessage, Speaker};
use tokio::sync::Notify;

use super::requests::WakeNotify;
use crate::forward::voices::{Listener, Voices};

/// What one client was told, and from where there is news.
pub(super) struct Speech {
    clock: Clock,
    listener: Option<Listener>,
    told: Option<Speaker>,
    notify: Arc<Notify>,
    timer: Timer,
}

impl Speech {
    pub(super) fn new(clock: &Clock) -> Self {
        let (notify, timer) = (Arc::default(), clock.timer());
        Speech { clock: clock.clone(), listener: None, told: None, notify, timer }
    }

    /// The client is in a room with these voices, and was told of none.
    pub(super) fn enter(&mut self, id: SessionId, voices: Arc<Voices>) {
        let waker = Waker::from(Arc::new(WakeNotify(self.notify.clone())));
        // The one before ends first: both have the same place.
        self.listener = None;
        self.listener = Some(Listener::new(voices, id, waker));
        self.told = None;
        self.notify.notify_one();
    }

    /// It is in no room any more.
    pub(super) fn leave(&mut self) {
        self.listener = None;
        self.timer.reset(None);
    }

    /// Waits until there may be something to tell.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            biased;
            () = self.notify.notified() => {}
            () = self.timer.expired() => {}
        }
    }

    /// What to tell the client, if that is not what it was told last.
    pub(super) fn news(&mut self) -> Option<RelayMessage> {
        let (speaker, due) = self.listener.as_ref()?.poll(self.clock.now());
        self.timer.reset(due);
        if self.told == speaker {
            return None;
        }
        self.told.clone_from(&speaker);
        Some(RelayMessage::ActiveSpeaker(ActiveSpeaker { speaker }))
    }
}
