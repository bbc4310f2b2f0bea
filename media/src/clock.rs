//! The real clock, and threads that tick on it: the shell under capture and playout.
//!
//! Everything else in this crate takes the time as an argument. Whoever wants another clock passes another [`Clock`].

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::frame::MediaTime;

/// Tells the time; must never go back.
pub type Clock = Arc<dyn Fn() -> MediaTime + Send + Sync>;

/// A clock that starts at zero now and runs with the machine's monotonic clock.
pub fn real_clock() -> Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place where this crate reads the machine's clock")]
    let origin = Instant::now();
    Arc::new(move || {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where this crate reads the machine's clock"
        )]
        let elapsed = origin.elapsed();
        MediaTime::from(elapsed)
    })
}

/// Ticks behind by more than this are left out instead of made up for.
const BEHIND_MAX: u32 = 5;

/// A thread that calls a function at a steady rate until it is dropped.
pub(crate) struct Ticker {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Calls `tick` with the present time every `interval`, measured from the start, so that the rate holds over hours;
    /// `None` for as fast as `tick` returns (it waits by itself). Ends when dropped or when `tick` breaks.
    ///
    /// # Errors
    /// The system's, if it gives no thread.
    pub(crate) fn start(
        name: &str,
        clock: Clock,
        interval: Option<Duration>,
        mut tick: impl FnMut(MediaTime) -> ControlFlow<()> + Send + 'static,
    ) -> std::io::Result<Ticker> {
        let (stop, stopped) = sync_channel(1);
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let mut due = clock();
            loop {
                let wait = due - clock();
                // With nothing to wait for, this only looks whether to stop.
                if !matches!(stopped.recv_timeout(wait), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
                let now = clock();
                if tick(now).is_break() {
                    return;
                }
                due = match interval {
                    Some(interval) if now - due > interval * BEHIND_MAX => now + interval,
                    Some(interval) => due + interval,
                    None => now,
                };
            }
        })?;
        Ok(Ticker { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic in `tick` was printed by its own thread; nothing is to be added here.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn ticks_are_as_far_apart_as_asked_and_stop_with_it() {
        // A clock that moves 1 ms each time it is read, so that the test does not depend on the machine.
        let reads = AtomicU64::new(0);
        let clock: Clock = Arc::new(move || MediaTime::from_millis(reads.fetch_add(1, Ordering::Relaxed)));
        let (sender, ticks) = std::sync::mpsc::channel();
        let ticker = Ticker::start("test", clock, Some(Duration::from_millis(10)), move |now| {
            if sender.send(now).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
        let times: Vec<MediaTime> = ticks.iter().take(20).collect();
        drop(ticker);
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ticks.try_iter().count() < 1_000, "stopped");
    }

    #[test]
    fn may_be_dropped_by_its_own_tick() {
        let holder: Arc<Mutex<Option<Ticker>>> = Arc::default();
        let (inner, (done, finished)) = (holder.clone(), std::sync::mpsc::channel());
        let mut guard = holder.lock().unwrap();
        let ticker = Ticker::start("test", real_clock(), None, move |_| {
            drop(inner.lock().unwrap().take());
            done.send(()).unwrap();
            ControlFlow::Break(())
        });
        *guard = Some(ticker.unwrap());
        drop(guard);
        finished.recv().unwrap();
    }
}
