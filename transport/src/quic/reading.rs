//! How long a socket is read before everybody else has a turn.
//!
//! quinn reads for 50 µs, some 32 packets, and then waits until every other task that is ready has run. Where a relay has
//! hundreds of subscribers these take tens of milliseconds, in which a thousand packets come: the socket overflows,
//! acknowledgements are lost, what they acknowledged is sent again, and the next turn of all is longer still. Here
//! reading goes on for as long as the others took, if there is so much to read.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime};

use crate::clock::Clock;
use crate::units::Timestamp;

/// However long the others took, they wait no longer than this: some thousands of packets.
const READING_MAX: Duration = Duration::from_millis(5);

/// A runtime for one endpoint, whose reading task has turns as long as the others'.
#[derive(Debug)]
pub(super) struct FairRuntime {
    inner: Arc<dyn Runtime>,
    clock: Clock,
    /// An endpoint spawns its reading task before all others.
    has_reading: AtomicBool,
}

impl FairRuntime {
    pub(super) fn new(clock: Clock) -> Self {
        FairRuntime { inner: clock.quinn_runtime(), clock, has_reading: AtomicBool::new(false) }
    }
}

impl Runtime for FairRuntime {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        self.inner.new_timer(deadline)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let is_reading = !self.has_reading.swap(true, Ordering::Relaxed);
        self.inner.spawn(if is_reading {
            Box::pin(Reading::new(self.clock.clone(), future))
        } else {
            future
        });
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.inner.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }
}

/// A task that wakes itself when it has more to do, polled again at once for as long as its turn lasts.
struct Reading<F> {
    task: F,
    clock: Clock,
    nudge: Arc<Nudge>,
    /// When its last turn ended.
    ended: Timestamp,
}

impl<F> Reading<F> {
    fn new(clock: Clock, task: F) -> Self {
        Reading { task, ended: clock.now(), clock, nudge: Arc::default() }
    }
}

impl<F: Future<Output = ()> + Unpin> Future for Reading<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let began = self.clock.now();
        let turn = began.saturating_since(self.ended).min(READING_MAX);
        let waker = Waker::from(self.nudge.clone());
        loop {
            self.nudge.begin(cx.waker());
            if Pin::new(&mut self.task).poll(&mut Context::from_waker(&waker)).is_ready() {
                return Poll::Ready(());
            }
            if !self.nudge.rest() {
                break;
            }
            // Without budget left, tokio's sockets and channels only pretend to have nothing.
            let now = self.clock.now();
            if now.saturating_since(began) >= turn || !tokio::task::coop::has_budget_remaining() {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.ended = self.clock.now();
        Poll::Pending
    }
}

/// The waker that the task gets: it tells a task that wakes itself from one that is woken while it rests.
#[derive(Default)]
struct Nudge(Mutex<Phase>);

#[derive(Default)]
enum Phase {
    /// Nobody has asked for a poll since the last one ended; who does, wakes this.
    Resting(Waker),
    Polled(Waker),
    /// A poll is due.
    #[default]
    Woken,
}

impl Nudge {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, waker: &Waker) {
        *self.phase() = Phase::Polled(waker.clone());
    }

    /// A poll ended; gives whether another is due.
    fn rest(&self) -> bool {
        let mut phase = self.phase();
        match std::mem::take(&mut *phase) {
            Phase::Polled(waker) | Phase::Resting(waker) => {
                *phase = Phase::Resting(waker);
                false
            }
            Phase::Woken => true,
        }
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let before = std::mem::take(&mut *self.phase());
        if let Phase::Resting(waker) = before {
            waker.wake();
        }
    }
}

impl<F> fmt::Debug for Reading<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("ended", &self.ended).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Works in steps, each of which takes a while; it wakes itself as long as there are more.
    struct Steps {
        left: usize,
        each: Duration,
        done: Arc<AtomicUsize>,
    }

    impl Future for Steps {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            if self.left == 0 {
                return Poll::Ready(());
            }
            self.left -= 1;
            self.done.fetch_add(1, Ordering::Relaxed);
            let step = tokio::time::advance(self.each);
            futures_util::future::FutureExt::now_or_never(step);
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_lasts_as_long_as_the_others_took_and_has_an_end() {
        let clock = Clock::system();
        let done = Arc::<AtomicUsize>::default();
        let steps = Steps { left: 1000, each: Duration::from_micros(50), done: done.clone() };
        let mut reading = Reading::new(clock.clone(), steps);
        let woken = Arc::<Count>::default();
        let waker = Waker::from(woken.clone());
        let mut turn = |others: Duration| {
            let before = done.load(Ordering::Relaxed);
            futures_util::future::FutureExt::now_or_never(tokio::time::advance(others));
            assert!(Pin::new(&mut reading).poll(&mut Context::from_waker(&waker)).is_pending());
            done.load(Ordering::Relaxed) - before
        };
        let turns = [0, 40, 1000, 5000, 60_000].map(|others| turn(Duration::from_micros(others)));
        assert_eq!(turns, [1, 1, 20, 100, 100]);
        assert_eq!(woken.0.load(Ordering::Relaxed), 5, "each time, there was more to do");
    }

    #[tokio::test]
    async fn one_that_rests_is_woken_once_by_whoever_wakes_it_from_any_thread() {
        for _ in 0..200 {
            let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
            let sum = Arc::<AtomicUsize>::default();
            let total = sum.clone();
            let task = Box::pin(async move {
                while let Some(number) = receive.recv().await {
                    total.fetch_add(number, Ordering::Relaxed);
                }
            });
            let reading = tokio::spawn(Reading::new(Clock::system(), task));
            let senders: Vec<_> = (0..2)
                .map(|_| {
                    let send = send.clone();
                    std::thread::spawn(move || (0..50).for_each(|number| _ = send.send(number)))
                })
                .collect();
            drop(send);
            reading.await.unwrap();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            assert_eq!(sum.load(Ordering::Relaxed), 2 * 49 * 50 / 2);
        }
    }
}
