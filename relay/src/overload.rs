//! When the machine is too slow for what the relay has to do, and what is left out then.
//!
//! A machine: it is told how late a task was woken that asked to be woken soon, which is how long everything else waits,
//! too. Late for a while, and something more is left out; in time for a longer while, and something less. It leaves out
//! nothing itself: the connections ask for each frame.

use std::time::Duration;

use parlor_transport::units::Timestamp;

use crate::limits::{
    OVERLOAD_CALM_LATE_MAX, OVERLOAD_CALM_MAX, OVERLOAD_CALM_MIN, OVERLOAD_FULL_LATE_MIN, OVERLOAD_FULL_MAX,
    OVERLOAD_LATE_MAX, OVERLOAD_ROUND, OVERLOAD_SAMPLES_MIN,
};

/// What is left out: a step on the way from nothing to all video. Levels 1 to 3 are one step each; level 4 has
/// [`SHARES`](Shed::SHARES), each of which takes the video from as many more of a player's streams.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Shed(u8);

impl Shed {
    /// Nothing.
    pub const NONE: Shed = Shed(0);
    /// Everything that may be.
    pub const ALL: Shed = Shed(Self::LEVEL_MAX - 1 + Self::SHARES);
    /// The highest level.
    pub const LEVEL_MAX: u8 = 4;
    /// Level 4 takes video from so many parts of a player's streams, one after the other.
    pub const SHARES: u8 = 8;

    /// A level, from 0 (nothing) to 4: without parity, highest layers, discardable frames, all video.
    pub fn from_level(level: u8) -> Option<Self> {
        match level {
            0..Self::LEVEL_MAX => Some(Shed(level)),
            Self::LEVEL_MAX => Some(Shed::ALL),
            _ => None,
        }
    }

    /// Level 4 for so many eighths of a player's streams, from 1 to 8.
    pub fn from_share(share: u8) -> Option<Self> {
        (1..=Self::SHARES).contains(&share).then_some(Shed(Self::LEVEL_MAX - 1 + share))
    }

    /// The level, from 0 to 4.
    pub fn level(self) -> u8 {
        self.0.min(Self::LEVEL_MAX)
    }

    /// How many eighths of a player's streams come without video; not 0 from level 4 on.
    pub fn share(self) -> u8 {
        self.0.saturating_sub(Self::LEVEL_MAX - 1)
    }

    /// No parity is sent before it is asked for.
    pub fn parity(self) -> bool {
        self.level() >= 1
    }

    /// No frames of the highest layers are sent.
    pub fn layers(self) -> bool {
        self.level() >= 2
    }

    /// No frames that nobody needs are sent.
    pub fn discardable(self) -> bool {
        self.level() >= 3
    }

    /// Of so many streams that a player watches so many come without video: rounded down, so that who watches one
    /// keeps it to the last.
    pub fn withheld_of(self, streams: usize) -> usize {
        streams * usize::from(self.share()) / usize::from(Self::SHARES)
    }

    /// For what a connection keeps between looks.
    pub(crate) fn to_bits(self) -> u8 {
        self.0
    }

    /// See [`to_bits`](Self::to_bits).
    pub(crate) fn from_bits(bits: u8) -> Self {
        Shed(bits.min(Self::ALL.0))
    }

    fn more(self, steps: u8) -> Self {
        Shed((self.0 + steps).min(Self::ALL.0))
    }

    fn less(self) -> Self {
        Shed(self.0.saturating_sub(1))
    }
}

/// See the module's text.
///
/// ```
/// use parlor_relay::overload::{Overload, Shed};
/// use parlor_transport::units::Timestamp;
/// use std::time::Duration;
///
/// let mut overload = Overload::new(Timestamp::ZERO, None);
/// let mut now = Timestamp::ZERO;
/// for _ in 0..100 {
///     // To be woken every 20 ms, and 15 ms late.
///     now = now + Duration::from_millis(35);
///     overload.sample(now, Duration::from_millis(15));
/// }
/// assert_eq!(overload.shed(), Shed::ALL);
/// ```
#[derive(Debug)]
pub struct Overload {
    measured: Shed,
    forced: Option<Shed>,
    round: Round,
    /// Of the last round.
    late: Duration,
    /// Since when the machine keeps up.
    calm_since: Option<Timestamp>,
    /// It has to keep up for so long before something less is left out.
    calm_min: Duration,
    /// When it was something less last.
    relieved: Option<Timestamp>,
    /// Since when all is left out and the machine is much too slow nevertheless.
    full_since: Option<Timestamp>,
    /// Since when it is not.
    spare_since: Option<Timestamp>,
    is_full: bool,
}

/// How late the task was woken since then.
#[derive(Debug)]
struct Round {
    since: Timestamp,
    samples: u32,
    late: Duration,
    worst: Duration,
}

impl Round {
    fn new(since: Timestamp) -> Self {
        Round { since, samples: 0, late: Duration::ZERO, worst: Duration::ZERO }
    }

    /// The mean but for the worst: what stops everything once is over when it is noticed.
    fn mean(&self) -> Duration {
        (self.late - self.worst) / (self.samples - 1).max(1)
    }
}

impl Overload {
    /// Leaves out nothing, or what it is told to, whatever is measured.
    pub fn new(now: Timestamp, forced: Option<Shed>) -> Self {
        let mut overload = Overload {
            measured: Shed::NONE,
            forced,
            round: Round::new(now),
            late: Duration::ZERO,
            calm_since: None,
            calm_min: OVERLOAD_CALM_MIN,
            relieved: None,
            full_since: None,
            spare_since: None,
            is_full: false,
        };
        overload.look_full(now);
        overload
    }

    /// The task was woken so late; it asks to be woken about [`OVERLOAD_HEARTBEAT`](crate::limits::OVERLOAD_HEARTBEAT)
    /// after the last time.
    pub fn sample(&mut self, now: Timestamp, late: Duration) {
        let round = &mut self.round;
        round.samples += 1;
        round.late += late;
        round.worst = round.worst.max(late);
        if round.samples >= OVERLOAD_SAMPLES_MIN && now.saturating_since(round.since) >= OVERLOAD_ROUND {
            self.late = round.mean();
            self.round = Round::new(now);
            self.decide(now);
        }
        self.look_full(now);
    }

    /// Leaves out this from now on, whatever is measured; with `None` what is measured counts again.
    pub fn force(&mut self, now: Timestamp, forced: Option<Shed>) {
        if self.forced != forced {
            // What was measured under the other rule says nothing of joins.
            (self.full_since, self.spare_since, self.is_full) = (None, None, false);
        }
        self.forced = forced;
        self.look_full(now);
    }

    /// What is left out now.
    pub fn shed(&self) -> Shed {
        self.forced.unwrap_or(self.measured)
    }

    /// What it was told to leave out.
    pub fn forced(&self) -> Option<Shed> {
        self.forced
    }

    /// Whether all that may be has been left out for a while and it was not enough, so that nobody else can be served:
    /// until that has passed for as long, or there is video for everybody again.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// How late tasks were woken in the last round.
    pub fn lateness(&self) -> Duration {
        self.late
    }

    /// A round is over.
    fn decide(&mut self, now: Timestamp) {
        if self.late > OVERLOAD_CALM_LATE_MAX {
            self.calm_since = None;
        }
        if self.late >= OVERLOAD_LATE_MAX {
            let was_too_soon =
                self.relieved.take().is_some_and(|at| now.saturating_since(at) < self.calm_min);
            if was_too_soon {
                self.calm_min = (2 * self.calm_min).min(OVERLOAD_CALM_MAX);
            }
            let steps = if self.late >= 4 * OVERLOAD_LATE_MAX { 2 } else { 1 };
            self.measured = self.measured.more(steps);
        } else if self.late <= OVERLOAD_CALM_LATE_MAX {
            let since = *self.calm_since.get_or_insert(now);
            if now.saturating_since(since) < self.calm_min {
                return;
            }
            self.calm_since = Some(now);
            if self.measured == Shed::NONE || self.relieved.is_some() {
                // What was taken back before did no harm.
                self.calm_min = (self.calm_min / 2).max(OVERLOAD_CALM_MIN);
            }
            if self.measured > Shed::NONE {
                self.measured = self.measured.less();
                self.relieved = Some(now);
            }
        }
    }

    fn look_full(&mut self, now: Timestamp) {
        let shed = self.shed();
        // What an operator asks for is meant for joins, too, whatever is measured.
        let is_too_slow = shed == Shed::ALL && (self.forced.is_some() || self.late >= OVERLOAD_FULL_LATE_MIN);
        let since = if is_too_slow { &mut self.full_since } else { &mut self.spare_since };
        let lasted = now.saturating_since(*since.get_or_insert(now)) >= OVERLOAD_FULL_MAX;
        if is_too_slow {
            self.spare_since = None;
            self.is_full |= lasted;
        } else {
            self.full_since = None;
            self.is_full &= !lasted && shed.level() == Shed::LEVEL_MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use parlor_transport::sim::seeded;
    use rand::RngExt;

    use super::*;
    use crate::limits::OVERLOAD_HEARTBEAT;

    const MS: Duration = Duration::from_millis(1);

    struct World {
        overload: Overload,
        now: Timestamp,
    }

    impl World {
        fn new() -> Self {
            World { overload: Overload::new(Timestamp::ZERO, None), now: Timestamp::ZERO }
        }

        fn beat(&mut self, late: Duration) -> Shed {
            self.now = self.now + OVERLOAD_HEARTBEAT + late;
            self.overload.sample(self.now, late);
            self.overload.shed()
        }

        /// Lets `duration` pass, always as late as `late` says of what is left out; gives what was, with its time.
        fn run(&mut self, duration: Duration, late: impl Fn(Shed) -> Duration) -> Vec<(Timestamp, Shed)> {
            let (end, mut shed) = (self.now + duration, self.overload.shed());
            let mut changes = Vec::new();
            while self.now < end {
                let next = self.beat(late(self.overload.shed()));
                if next != shed {
                    changes.push((self.now, next));
                }
                shed = next;
            }
            changes
        }
    }

    #[test]
    fn levels_come_in_their_order_and_the_last_one_in_eighths() {
        let mut shed = Shed::NONE;
        let mut steps = Vec::new();
        while shed < Shed::ALL {
            shed = shed.more(1);
            steps.push((shed.level(), shed.share(), shed.parity(), shed.layers(), shed.discardable()));
        }
        assert_eq!(
            steps[..4],
            [
                (1, 0, true, false, false),
                (2, 0, true, true, false),
                (3, 0, true, true, true),
                (4, 1, true, true, true)
            ]
        );
        assert_eq!((steps.len(), steps[10]), (11, (4, 8, true, true, true)));
        assert!((1..5).all(|level| Shed::from_level(level).unwrap().level() == level));
        assert_eq!((Shed::from_level(4), Shed::from_share(8)), (Some(Shed::ALL), Some(Shed::ALL)));
        assert_eq!((Shed::from_level(5), Shed::from_share(0), Shed::from_share(9)), (None, None, None));
        let half = Shed::from_share(4).unwrap();
        assert_eq!([0, 1, 2, 3, 9].map(|streams| half.withheld_of(streams)), [0, 0, 1, 1, 4]);
        assert_eq!([1, 9].map(|streams| Shed::ALL.withheld_of(streams)), [1, 9]);
        assert_eq!(Shed::from_level(3).unwrap().withheld_of(100), 0);
    }

    #[test]
    fn it_rises_within_seconds_and_falls_within_half_a_minute() {
        let mut world = World::new();
        assert!(world.run(60_000 * MS, |_| 2 * MS).is_empty(), "timers are late by 2 ms anyway");
        let changes = world.run(4000 * MS, |_| 12 * MS);
        let steps: Vec<_> = changes.iter().map(|(_, shed)| shed.to_bits()).collect();
        assert_eq!(steps, (1..=11).collect::<Vec<_>>(), "one after the other");
        let start = Timestamp::ZERO + 60_000 * MS;
        assert!(
            changes[3].0.saturating_since(start) < 1300 * MS
                && changes[10].0.saturating_since(start) < 3500 * MS
        );
        let calm = world.now;
        let changes = world.run(60_000 * MS, |_| MS);
        let steps: Vec<_> = changes.iter().map(|(_, shed)| shed.to_bits()).collect();
        assert_eq!(steps, (0..11).rev().collect::<Vec<_>>());
        let took = changes[10].0.saturating_since(calm);
        assert!((20_000 * MS..30_000 * MS).contains(&took), "{took:?}");
    }

    #[test]
    fn a_machine_that_hardly_moves_sheds_twice_as_fast() {
        let mut world = World::new();
        let changes = world.run(4000 * MS, |_| 150 * MS);
        assert!(changes.iter().all(|(_, shed)| *shed == Shed::ALL || shed.to_bits() % 2 == 0));
        assert_eq!(world.overload.shed(), Shed::ALL, "{changes:?}");
    }

    #[test]
    fn what_stops_everything_once_is_no_overload() {
        let mut world = World::new();
        for _ in 0..100 {
            assert_eq!(world.beat(2000 * MS), Shed::NONE);
            assert!(world.run(1000 * MS, |_| MS).is_empty());
        }
    }

    #[test]
    fn between_late_and_in_time_everything_stays() {
        let mut world = World::new();
        world.run(700 * MS, |_| 12 * MS);
        // The round that was begun late.
        world.run(OVERLOAD_ROUND, |_| 7 * MS);
        let shed = world.overload.shed();
        assert!(shed > Shed::NONE);
        assert!(world.run(120_000 * MS, |_| 7 * MS).is_empty());
        assert_eq!(world.overload.shed(), shed);
    }

    /// A machine for which leaving out less than `enough` is not enough.
    #[test]
    fn where_there_is_a_right_step_it_is_found_and_tried_again_more_and_more_rarely() {
        for enough in 1..=Shed::ALL.to_bits() {
            let mut world = World::new();
            let late = |shed: Shed| if shed.to_bits() < enough { 20 * MS } else { MS };
            world.run(10_000 * MS, late);
            let changes = world.run(600_000 * MS, late);
            assert!(changes.iter().all(|(_, shed)| (enough - 1..=enough).contains(&shed.to_bits())));
            // Down and up again: at first every few seconds, then once in a minute.
            assert!((8..=36).contains(&changes.len()), "{enough}: {} changes in ten minutes", changes.len());
            let late_half = changes.iter().filter(|(at, _)| *at > Timestamp::ZERO + 310_000 * MS).count();
            assert!(late_half <= 12, "{enough}: {late_half} in the second half");
        }
    }

    #[test]
    fn a_full_relay_is_one_for_which_to_leave_out_all_is_not_enough() {
        let mut world = World::new();
        world.run(3200 * MS, |_| 12 * MS);
        assert_eq!((world.overload.shed(), world.overload.is_full()), (Shed::ALL, false));
        world.run(20_000 * MS, |_| 12 * MS);
        assert!(!world.overload.is_full(), "late for video is not yet too late for others");
        world.run(4500 * MS, |_| 25 * MS);
        assert!(!world.overload.is_full());
        world.run(1500 * MS, |_| 25 * MS);
        assert!(world.overload.is_full());
        world.run(4500 * MS, |_| 12 * MS);
        assert!(world.overload.is_full());
        world.run(1500 * MS, |_| 12 * MS);
        assert_eq!((world.overload.shed(), world.overload.is_full()), (Shed::ALL, false), "as before");
    }

    #[test]
    fn an_operator_has_the_last_word() {
        let mut world = World::new();
        world.overload.force(world.now, Shed::from_level(3));
        assert_eq!(world.beat(MS).level(), 3);
        world.overload.force(world.now, Some(Shed::NONE));
        assert!(world.run(10_000 * MS, |_| 50 * MS).is_empty());
        assert!(!world.overload.is_full());
        world.overload.force(world.now, None);
        assert_eq!(world.beat(50 * MS), Shed::ALL, "what was measured meanwhile");
        world.overload.force(world.now, Some(Shed::ALL));
        world.run(OVERLOAD_FULL_MAX, |_| MS);
        assert!(world.overload.is_full(), "a drill is one for joins, too");
        world.overload.force(world.now, None);
        assert!(!world.overload.is_full(), "and is over when it is");
        let started = Overload::new(Timestamp::ZERO, Shed::from_level(2));
        assert_eq!(started.shed().level(), 2);
    }

    #[test]
    fn whatever_is_measured_steps_are_small_and_down_only_after_a_calm() {
        for seed in 0..200 {
            let mut rng = seeded(seed, "lateness");
            let mut world = World::new();
            let (mut before, mut rose, mut worst) = (Shed::NONE, Timestamp::ZERO, 1);
            for _ in 0..5000 {
                if rng.random_range(0..50) == 0 {
                    worst = [1, 3, 8, 15, 60, 3000][rng.random_range(0..6)];
                }
                let shed = world.beat(Duration::from_micros(rng.random_range(0..=worst * 1000)));
                let (now, step, last) = (world.now, i16::from(shed.to_bits()), i16::from(before.to_bits()));
                assert!((-1..=2).contains(&(step - last)), "seed {seed}");
                if step < last {
                    assert!(now.saturating_since(rose) >= OVERLOAD_CALM_MIN, "seed {seed}");
                }
                if step != last {
                    rose = now;
                }
                assert!(!world.overload.is_full() || shed.level() == 4, "seed {seed}");
                before = shed;
            }
            world.run(1_000_000 * MS, |_| MS);
            assert_eq!(world.overload.shed(), Shed::NONE, "seed {seed}");
        }
    }
}
