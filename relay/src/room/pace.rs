//! When the members of a room are told that there is something new.
//!
//! To tell one member costs a wake-up, a packet and its acknowledgement, whether it hears of one event or of a hundred.
//! So in a large room what happens waits: members stand in groups, and the groups are told one after the other, each once
//! within the room's *window*. A small room has none. When groups are told later than they were to be, the machine is
//! full, and the window grows until it keeps up.

use std::time::Duration;

use parlor_transport::units::Timestamp;

use crate::limits::{
    PACE_LATE_MAX, PACE_MEMBERS_MIN, PACE_PER_SECOND, PACE_PER_SECOND_MAX, WINDOW_FULL_MAX, WINDOW_MAX,
};

/// Groups of members: so many steps make up a window. At 250 ms a step is 4 ms, which timers of 1 ms can keep.
pub const GROUPS: usize = u64::BITS as usize;

/// Steps made at once after a delay: as long as a coarse timer may oversleep. What is later than that is not made up for.
const CATCH_UP_MAX: Duration = Duration::from_millis(2);

/// How long what happens in a room of so many members may wait while the machine has time.
pub fn window(members: usize) -> Duration {
    if members < PACE_MEMBERS_MIN {
        return Duration::ZERO;
    }
    let all_at = |per_second| Duration::from_micros(members as u64 * 1_000_000 / per_second);
    all_at(PACE_PER_SECOND).min(WINDOW_MAX).max(all_at(PACE_PER_SECOND_MAX)).min(WINDOW_FULL_MAX)
}

/// The pace of one room. `T` says how far members are to be told.
#[derive(Debug)]
pub struct Pace<T> {
    newest: T,
    /// Groups that were not told of the newest, a bit for each.
    behind: u64,
    /// The group whose turn it is.
    next: usize,
    /// When.
    next_at: Timestamp,
    window: Duration,
    /// By how much the window is longer than the room's size asks for, in percent.
    stretch: u32,
    /// Of this round: steps made, and how late they were together.
    steps: u32,
    late: Duration,
}

impl<T: Copy + PartialEq> Pace<T> {
    /// A pace for members who are all told of `newest`.
    pub fn new(newest: T) -> Self {
        Pace {
            newest,
            behind: 0,
            next: 0,
            next_at: Timestamp::ZERO,
            window: Duration::ZERO,
            stretch: 100,
            steps: 0,
            late: Duration::ZERO,
        }
    }

    /// Something changed in the room, in which so many members are told.
    pub fn change(&mut self, now: Timestamp, members: usize, newest: T) {
        self.window = window(members);
        if newest == self.newest {
            return;
        }
        self.newest = newest;
        if self.behind == 0 {
            self.next_at = self.next_at.max(now);
        }
        self.behind = u64::MAX;
    }

    /// When [`poll`](Self::poll) has something to do.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        (self.behind != 0).then_some(match self.window.is_zero() {
            true => Timestamp::ZERO,
            false => self.next_at,
        })
    }

    /// A group to be told now, and of what; to be asked until there is none.
    pub fn poll(&mut self, now: Timestamp) -> Option<(usize, T)> {
        if self.behind == 0 || now < self.poll_timeout()? {
            return None;
        }
        let ahead = self.behind.rotate_right(self.next as u32).trailing_zeros() as usize;
        let group = (self.next + ahead) % GROUPS;
        self.behind &= !(1 << group);
        self.next = (group + 1) % GROUPS;
        if !self.window.is_zero() {
            self.measure(now.saturating_since(self.next_at));
            let earliest = Timestamp::ZERO + now.saturating_since(Timestamp::ZERO + CATCH_UP_MAX);
            self.next_at = (self.next_at + self.current_window() / GROUPS as u32).max(earliest);
        }
        Some((group, self.newest))
    }

    /// The window as it is now.
    pub fn current_window(&self) -> Duration {
        let stretched = self.window * self.stretch / 100;
        stretched.min(WINDOW_FULL_MAX).max(self.window)
    }

    /// Takes how late a step was. After a round of them the window grows if the machine does not keep up, and shrinks
    /// again, more slowly, while it does.
    fn measure(&mut self, late: Duration) {
        self.steps += 1;
        self.late += late;
        if self.steps < GROUPS as u32 {
            return;
        }
        let mean = self.late / self.steps;
        let most = (WINDOW_FULL_MAX.as_micros() * 100 / self.window.as_micros().max(1)) as u32;
        if mean > PACE_LATE_MAX {
            self.stretch = (self.stretch * 3 / 2).min(most.max(100));
        } else if mean < PACE_LATE_MAX / 2 {
            self.stretch = (self.stretch - self.stretch / 16).max(100);
        }
        (self.steps, self.late) = (0, Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + MS * ms as u32
    }

    /// Lets time pass in steps of `step` ms, each of them noticed `late`; gives when which group was told of what.
    fn run(pace: &mut Pace<u64>, from: u64, until: u64, late: u64) -> Vec<(u64, usize, u64)> {
        let mut told = Vec::new();
        let mut now = from;
        while now < until {
            match pace.poll_timeout() {
                Some(due) if due <= at(now) => {
                    now += late;
                    while let Some((group, what)) = pace.poll(at(now)) {
                        told.push((now, group, what));
                    }
                    assert!(
                        pace.poll_timeout().is_none_or(|due| due > at(now)),
                        "polled until there is none"
                    );
                }
                _ => now += 1,
            }
        }
        told
    }

    #[test]
    fn the_window_grows_with_the_room_to_a_quarter_of_a_second() {
        assert_eq!(window(0), Duration::ZERO);
        assert_eq!(window(PACE_MEMBERS_MIN - 1), Duration::ZERO);
        assert!(window(PACE_MEMBERS_MIN) < 10 * MS);
        assert_eq!(window(2000), 200 * MS);
        assert_eq!([2500, 5000, 10_000, 1_000_000].map(window), [250 * MS, 250 * MS, 400 * MS, 1000 * MS]);
    }

    #[test]
    fn a_small_room_is_told_at_once() {
        let mut pace = Pace::new(0);
        for change in 1..5 {
            pace.change(at(7), 20, change);
            let mut groups = Vec::new();
            while let Some((group, what)) = pace.poll(at(7)) {
                assert_eq!(what, change);
                groups.push(group);
            }
            groups.sort_unstable();
            assert!(groups.into_iter().eq(0..GROUPS));
        }
    }

    #[test]
    fn in_a_large_room_every_group_is_told_once_in_a_window_and_never_all_at_once() {
        let mut pace = Pace::new(0);
        let mut told = Vec::new();
        // An event each ms for a second, then quiet.
        for ms in 0..1000 {
            pace.change(at(1000 + ms), 2000, ms + 1);
            told.extend(run(&mut pace, 1000 + ms, 1000 + ms + 1, 0));
        }
        told.extend(run(&mut pace, 2000, 3000, 0));
        assert_eq!(pace.poll_timeout(), None, "all are told of the last");
        for group in 0..GROUPS {
            let of_group: Vec<_> = told.iter().filter(|(_, of, _)| *of == group).collect();
            assert_eq!(of_group.last().unwrap().2, 1000);
            let gaps: Vec<u64> = of_group.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
            assert!(gaps.iter().all(|gap| (195..=205).contains(gap)), "{gaps:?}");
        }
        for ms in 1000..2200 {
            assert!(told.iter().filter(|(when, ..)| *when == ms).count() <= 2, "at {ms}");
        }
        let last = told.iter().map(|(when, ..)| *when).max().unwrap();
        assert!(last <= 2000 + 200, "the last event waited until {last}");
    }

    #[test]
    fn a_full_machine_makes_the_window_longer_up_to_a_second_and_a_free_one_short_again() {
        let mut pace = Pace::new(0);
        let mut change = 0;
        let mut live = |pace: &mut Pace<u64>, from: u64, until: u64, late: u64| {
            let mut now = from;
            while now < until {
                change += 1;
                pace.change(at(now), 5000, change);
                run(pace, now, now + 5, late);
                now += 5;
            }
        };
        live(&mut pace, 0, 1000, 0);
        assert_eq!(pace.current_window(), WINDOW_MAX);
        live(&mut pace, 1000, 60_000, 30);
        assert_eq!(pace.current_window(), WINDOW_FULL_MAX);
        live(&mut pace, 61_000, 120_000, 0);
        assert_eq!(pace.current_window(), WINDOW_MAX);
    }
}
