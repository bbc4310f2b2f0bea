//! The one source of time in Parlor: reading it, waiting for it, and handing it to quinn.
//!
//! Every task, socket and connection takes its time from a [`Clock`], never from tokio or the
//! standard library, because in simulation (`sim`) the clock is stretched: tokio's timers tick in
//! milliseconds, and there one millisecond of tokio's paused time stands for 10 µs of Parlor's.
//! A call to `tokio::time::sleep` would be wrong by a factor of 100 there.
//!
//! Pure code does not come here: it takes a [`Timestamp`] as an argument.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::time::{Instant, Sleep};

use crate::units::Timestamp;

/// A clock that counts microseconds since its origin. Clones share the origin.
///
/// A process that compares timestamps made in different places takes one `Clock` and clones it:
/// two calls of [`Clock::system`] have different origins.
///
/// ```
/// use parlor_transport::clock::Clock;
/// use std::time::Duration;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
/// # runtime.block_on(async {
/// let clock = Clock::system();
/// let start = clock.now();
/// clock.sleep(Duration::from_millis(2)).await;
/// assert!(clock.now().saturating_since(start) >= Duration::from_millis(2));
/// # });
/// ```
#[derive(Clone)]
pub struct Clock {
    /// Where tokio's clock stood at this clock's zero.
    origin: Instant,
    /// Tokio time per Parlor time: 1 outside simulation.
    stretch: u32,
    /// What this clock shows at its origin, see [`Clock::ahead_by`].
    lead: Duration,
}

impl Clock {
    /// The machine's monotonic clock. Its origin is the moment of this call.
    ///
    /// Timers on it are as coarse as tokio's: they fire up to 1 ms late, never early.
    pub fn system() -> Self {
        Clock { origin: tokio_now(), stretch: 1, lead: Duration::ZERO }
    }

    /// The clock of a simulation, with its origin now. The caller runs a paused tokio runtime.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated() -> Self {
        Clock { origin: tokio_now(), stretch: TOKIO_TIME_PER_SIMULATED_TIME, lead: Duration::ZERO }
    }

    /// The same clock set ahead by `lead`: what another machine's clock might show.
    ///
    /// Lets a test give every simulated host its own time, so that code which forgets to convert
    /// between two hosts' clocks fails.
    pub fn ahead_by(&self, lead: Duration) -> Self {
        Clock { lead: self.lead + lead, ..self.clone() }
    }

    /// The time now, rounded down to a microsecond (in simulation: a multiple of 10 µs).
    pub fn now(&self) -> Timestamp {
        let elapsed = tokio_now().saturating_duration_since(self.origin);
        // Divided in simulation only: it is asked many times for each frame.
        let elapsed = if self.stretch == 1 { elapsed } else { elapsed / self.stretch };
        Timestamp::ZERO + (elapsed + self.lead)
    }

    /// Waits until `deadline`; returns at once if that has passed. Never early.
    pub async fn sleep_until(&self, deadline: Timestamp) {
        let mut timer = self.timer();
        timer.reset(Some(deadline));
        timer.expired().await;
    }

    /// Waits for `duration`. Never shorter.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }

    /// `future`'s output, or [`TimedOut`] if `duration` passes first (`future` is then dropped).
    ///
    /// A future that is ready when polled wins over a deadline that has passed.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Result<F::Output, TimedOut> {
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = self.sleep(duration) => Err(TimedOut),
        }
    }

    /// A timer on this clock, unset.
    pub fn timer(&self) -> Timer {
        Timer { clock: self.clone(), deadline: None, sleep: None }
    }

    /// The standard library's name for `timestamp`, as quinn understands it.
    ///
    /// In simulation it runs at Parlor's pace, so it compares only with values from here and from
    /// the quinn runtime of the same simulation. Times before the clock's origin give the origin.
    pub fn to_std(&self, timestamp: Timestamp) -> std::time::Instant {
        self.origin.into_std() + timestamp.saturating_since(Timestamp::ZERO + self.lead)
    }

    /// The timestamp of an `instant` that came from [`Clock::to_std`] or from quinn, rounded down
    /// to a microsecond. Instants before the clock's origin give the origin.
    pub fn from_std(&self, instant: std::time::Instant) -> Timestamp {
        Timestamp::ZERO + (instant.saturating_duration_since(self.origin.into_std()) + self.lead)
    }

    /// This clock as the runtime that a [`quinn::Endpoint`] needs.
    ///
    /// Its tasks are tokio tasks. In simulation it has no UDP sockets: use `sim::Host::endpoint`.
    pub fn quinn_runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(ClockRuntime { clock: self.clone(), told: AtomicU64::new(0) })
    }

    /// Tokio's name for `timestamp`.
    fn to_tokio(&self, timestamp: Timestamp) -> Instant {
        let since_origin = timestamp.saturating_since(Timestamp::ZERO + self.lead).min(WAIT_MAX);
        self.origin + since_origin * self.stretch
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("now", &self.now()).field("stretch", &self.stretch).finish()
    }
}

/// The time given to [`Clock::timeout`] ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct TimedOut;

/// A timer that can be moved: what a shell keeps beside a machine.
///
/// The shell sets it to the machine's `poll_timeout()` and waits for it among its other inputs.
/// It fires once for each [`reset`](Timer::reset); unset it never fires.
///
/// ```
/// # use parlor_transport::{clock::Clock, units::Timestamp};
/// # use std::time::Duration;
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
/// # runtime.block_on(async {
/// let clock = Clock::system();
/// let mut timer = clock.timer();
/// timer.reset(Some(clock.now() + Duration::from_millis(1)));
/// tokio::select! {
///     biased;
///     () = std::future::pending() => { /* an input for the machine */ }
///     () = timer.expired() => { /* machine.handle_timeout(clock.now()) */ }
/// }
/// # });
/// ```
#[derive(Debug)]
pub struct Timer {
    clock: Clock,
    deadline: Option<Timestamp>,
    /// Made at the first wait, because making it needs a running tokio.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Sets the timer to `deadline`, or unsets it with `None`.
    ///
    /// A deadline in the past fires at the next wait. A task already waiting in [`Timer::poll`]
    /// must poll again after this to be woken by the new deadline.
    pub fn reset(&mut self, deadline: Option<Timestamp>) {
        if self.deadline == deadline {
            return;
        }
        self.deadline = deadline;
        if let (Some(deadline), Some(sleep)) = (deadline, &mut self.sleep) {
            sleep.as_mut().reset(self.clock.to_tokio(deadline));
        }
    }

    /// What the timer is set to; `None` when it is unset or has fired.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    /// Ready once the deadline has come; the timer is then unset.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let at = self.clock.to_tokio(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio_sleep_until(at)));
        Future::poll(sleep.as_mut(), cx).map(|()| self.deadline = None)
    }

    /// Waits for the deadline, for ever if the timer is unset. Safe to drop and call again.
    pub async fn expired(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

/// quinn's view of a [`Clock`].
#[derive(Debug)]
struct ClockRuntime {
    clock: Clock,
    /// The time last told to quinn, ns since the clock's origin; only in simulation.
    told: AtomicU64,
}

impl Runtime for ClockRuntime {
    fn new_timer(&self, deadline: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        let sleep = tokio_sleep_until(self.clock.tokio_from_std(deadline));
        Box::pin(ClockTimer { clock: self.clock.clone(), sleep: Box::pin(sleep) })
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        if self.clock.stretch != 1 {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a simulation has no real UDP sockets; bind with sim::Host::socket",
            ));
        }
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> std::time::Instant {
        let now = self.clock.now_std();
        if self.clock.stretch == 1 {
            return now;
        }
        // quinn takes for granted that time passes while it works: on a link without delay its pacer
        // asks for waits that round to nothing, and it asks again until they are over. So each
        // question finds the time a nanosecond later, within what paused time calls one moment.
        let origin = self.clock.origin.into_std();
        let base = now.saturating_duration_since(origin).as_nanos() as u64;
        let told = (self.told.load(Ordering::Relaxed) + 1).clamp(base, base + MOMENT_NS - 1);
        self.told.store(told, Ordering::Relaxed);
        origin + Duration::from_nanos(told)
    }
}

/// What paused time calls one moment: the tick of tokio's timers, in simulated time.
const MOMENT_NS: u64 = 10_000;

/// Between quinn and tokio instants go unrounded: quinn re-arms a timer that fires a nanosecond
/// early, and in paused time that would repeat for ever.
impl Clock {
    fn now_std(&self) -> std::time::Instant {
        if self.stretch == 1 {
            return tokio_now().into_std();
        }
        let since_origin = tokio_now().saturating_duration_since(self.origin);
        self.origin.into_std() + since_origin / self.stretch
    }

    fn tokio_from_std(&self, instant: std::time::Instant) -> Instant {
        let since_origin = instant.saturating_duration_since(self.origin.into_std());
        self.origin + since_origin.min(WAIT_MAX) * self.stretch
    }
}

/// A timer for quinn, see [`ClockRuntime`].
#[derive(Debug)]
struct ClockTimer {
    clock: Clock,
    sleep: Pin<Box<Sleep>>,
}

impl AsyncTimer for ClockTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: std::time::Instant) {
        let deadline = self.clock.tokio_from_std(deadline);
        self.sleep.as_mut().reset(deadline);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Future::poll(self.sleep.as_mut(), cx)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock everybody else asks")]
fn tokio_now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the deadline was stretched to tokio's time")]
fn tokio_sleep_until(deadline: Instant) -> Sleep {
    tokio::time::sleep_until(deadline)
}

/// In simulation 1 ms of tokio's time is 10 µs of Parlor's: fine enough to tell packets of a
/// 1 Gbit/s link apart (12 µs each).
#[cfg(feature = "sim")]
const TOKIO_TIME_PER_SIMULATED_TIME: u32 = 100;

/// Later deadlines count as this far from the clock's origin (a year), so that
/// [`Timestamp::MAX`] ("never") does not overflow tokio's arithmetic.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn paused<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing from the system");
        runtime.block_on(test)
    }

    #[test]
    fn a_timer_fires_once_for_each_reset_and_can_be_moved_both_ways() {
        paused(async {
            let clock = Clock::system();
            let start = clock.now();
            let mut timer = clock.timer();
            let ms = |n| start + Duration::from_millis(n);

            timer.reset(Some(ms(50)));
            assert!(clock.timeout(Duration::from_millis(10), timer.expired()).await.is_err());
            timer.reset(Some(ms(20)));
            timer.expired().await;
            assert_eq!((clock.now(), timer.deadline()), (ms(20), None));
            assert!(clock.timeout(Duration::from_millis(100), timer.expired()).await.is_err());
            // The same deadline again, by now in the past, fires again.
            timer.reset(Some(ms(20)));
            timer.expired().await;
            assert_eq!(clock.now(), ms(120));
            timer.reset(Some(Timestamp::MAX));
            assert_eq!(clock.timeout(Duration::from_secs(1), timer.expired()).await, Err(TimedOut));
        });
    }

    #[test]
    fn timestamps_and_instants_convert_both_ways() {
        paused(async {
            for clock in [Clock::system(), Clock::system().ahead_by(Duration::from_secs(7))] {
                let later = clock.now() + Duration::from_millis(1500);
                assert_eq!(clock.from_std(clock.to_std(later)), later);
                clock.sleep_until(later).await;
                assert_eq!((clock.now(), clock.now_std()), (later, clock.to_std(later)));
            }
        });
    }

    #[cfg(feature = "sim")]
    #[test]
    fn simulated_timers_are_exact_to_ten_microseconds() {
        paused(async {
            let clock = Clock::simulated();
            clock.sleep(Duration::from_micros(30)).await;
            assert_eq!(clock.now(), Timestamp::from_micros(30));
            clock.sleep(Duration::from_micros(31)).await;
            assert_eq!(clock.now(), Timestamp::from_micros(70));
            // quinn sees the same time, and real sockets are refused rather than out of step.
            let runtime = clock.quinn_runtime();
            assert_eq!(clock.from_std(runtime.now()), clock.now());
            let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback exists");
            assert!(runtime.wrap_udp_socket(socket).is_err());
        });
    }
}
