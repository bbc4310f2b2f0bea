//! What a room's task and its handles share: the call, behind one lock that is never held across a wait, and
//! the bells that wake whoever waits for something in it.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parlor_transport::clock::Clock;
use parlor_transport::quic::Session;
use parlor_transport::units::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::call::Call;

/// Locks, also after a panic elsewhere: the machines behind our locks are whole between calls.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One joined room, shared by its task and its handles.
pub(super) struct Shared {
    pub(super) clock: Clock,
    /// Where tasks run, so that handles can be used on threads that know no runtime.
    pub(super) runtime: Handle,
    call: Mutex<Call>,
    /// Messages may wait to be sent.
    pub(super) messages: Notify,
    /// Messages to other users may wait to be sent.
    pub(super) app_messages: Notify,
    /// Frames, lanes or deadlines may have changed.
    pub(super) media: Notify,
    /// Statuses or events changed, or the task ended.
    changed: Notify,
    /// One bell for each publication and play that has a handle.
    bells: Mutex<BTreeMap<u32, Arc<Notify>>>,
    /// The connection, while one stands.
    session: Mutex<Option<Session>>,
    finished: AtomicBool,
}

impl Shared {
    pub(super) fn new(clock: Clock, runtime: Handle, call: Call) -> Self {
        Shared {
            clock,
            runtime,
            call: Mutex::new(call),
            messages: Notify::new(),
            app_messages: Notify::new(),
            media: Notify::new(),
            changed: Notify::new(),
            bells: Mutex::default(),
            session: Mutex::default(),
            finished: AtomicBool::new(false),
        }
    }

    /// The connection, while one stands.
    pub(super) fn session(&self) -> Option<Session> {
        lock(&self.session).clone()
    }

    pub(super) fn set_session(&self, session: Option<Session>) {
        *lock(&self.session) = session;
    }

    /// Does something with the call and wakes everyone whom it concerns.
    pub(super) fn act<T>(&self, action: impl FnOnce(Timestamp, &mut Call) -> T) -> T {
        let outcome = self.handle(action);
        self.messages.notify_one();
        self.media.notify_one();
        outcome
    }

    /// The same for frames that came, which rarely give the task anything to send.
    pub(super) fn handle<T>(&self, action: impl FnOnce(Timestamp, &mut Call) -> T) -> T {
        let now = self.clock.now();
        let mut call = lock(&self.call);
        let outcome = action(now, &mut call);
        let (changed, touched, messages) = (call.take_changed(), call.take_touched(), call.has_messages());
        let app_messages = call.has_app_messages();
        drop(call);
        if changed {
            self.changed.notify_waiters();
        }
        if messages {
            self.messages.notify_one();
        }
        if app_messages {
            self.app_messages.notify_one();
        }
        if !touched.is_empty() {
            let bells = lock(&self.bells);
            for bell in touched.iter().filter_map(|lane| bells.get(lane)) {
                bell.notify_waiters();
            }
        }
        outcome
    }

    /// Looks at the call without waking anybody.
    pub(super) fn look<T>(&self, look: impl FnOnce(Timestamp, &mut Call) -> T) -> T {
        look(self.clock.now(), &mut lock(&self.call))
    }

    /// The bell of a publication or play, made on first use.
    pub(super) fn bell(&self, lane: u32) -> Arc<Notify> {
        Arc::clone(lock(&self.bells).entry(lane).or_default())
    }

    /// Nobody has a handle to this lane any more.
    pub(super) fn drop_bell(&self, lane: u32) {
        lock(&self.bells).remove(&lane);
    }

    /// Waits until `ready` finds in the call what it looks for; statuses and events wake it.
    pub(super) async fn when<T>(&self, ready: impl FnMut(&mut Call) -> Option<T>) -> T {
        self.when_rung(&self.changed, ready).await
    }

    /// Waits until `ready` finds in the call what it looks for; `bell` wakes it.
    pub(super) async fn when_rung<T>(
        &self,
        bell: &Notify,
        mut ready: impl FnMut(&mut Call) -> Option<T>,
    ) -> T {
        loop {
            let mut rung = pin!(bell.notified());
            // Listening begins before looking, so that nothing falls in between.
            rung.as_mut().enable();
            if let Some(found) = self.look(|_, call| ready(call)) {
                return found;
            }
            rung.await;
        }
    }

    /// The task has ended.
    pub(super) fn finish(&self) {
        self.finished.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until the task has ended.
    pub(super) async fn finished(&self) {
        self.when(|_| self.finished.load(Ordering::Acquire).then_some(())).await;
    }
}
