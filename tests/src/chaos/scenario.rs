//! What happens in one run: who the ten people are, and what befalls them when. All of it follows from the seed;
//! nothing here knows how it is carried out.

use std::fmt;
use std::time::Duration;

use parlor_client::Delivery;
use parlor_transport::sim::{Direction, SimRng, seeded};
use rand::RngExt;

/// People in a call, each playing all others.
pub const PEOPLE: usize = 10;
/// Everybody has joined, published and played by then.
pub const BEGIN: Duration = Duration::from_secs(3);
/// The last step begins before this.
const STEPS_UNTIL: Duration = Duration::from_secs(32);
/// From the end of the last trouble to the verdict. The ladder probes four times a second for ten seconds; after 30 s
/// without a network it then waits up to four seconds before it probes again.
pub const QUIET: Duration = Duration::from_secs(18);

/// One run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Everything follows from it.
    pub seed: u64,
    /// What each person is like.
    pub people: Vec<Habits>,
    /// What happens, in the order of time.
    pub steps: Vec<Step>,
}

/// What a person is like, for the whole run.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Round trip to the relay.
    pub rtt: Duration,
    /// How the frames of the camera travel.
    pub delivery: Delivery,
    /// The camera has pictures, of which only some decode alone; else it is sound.
    pub has_pictures: bool,
    /// For how long the app's server lets a token live.
    pub token: Duration,
    /// Shares a screen from the beginning.
    pub shares_screen: bool,
}

/// Something that happens.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Step {
    /// When, from the start.
    pub at: Duration,
    /// What.
    pub act: Act,
}

/// See [`Step::act`]. People are numbered from 0; number 0 moderates and is neither kicked nor forgetful.
#[derive(Clone, Copy, PartialEq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Act {
    /// Nothing passes the link of a person.
    Outage { who: usize, length: Duration },
    /// The link goes and comes, several times.
    Flap { who: usize, times: u32, length: Duration },
    /// One direction of the link is dead.
    HalfOpen { who: usize, direction: Direction, length: Duration },
    /// The link loses much, both ways.
    Loss { who: usize, share: f64, length: Duration },
    /// The address on the internet is another one.
    Move { who: usize },
    /// The NAT forgets the ports.
    Renumber { who: usize },
    /// The app says that the network changed.
    Rebind { who: usize },
    /// Nothing passes the relay's link.
    RelayOutage { length: Duration },
    /// The relay ends, in order or without a word, and another begins in its place.
    Restart { in_order: bool, down: Duration },
    /// The relay drains for so long before it ends, and another begins in its place.
    Drain { patience: Duration, down: Duration },
    /// The same user joins from another device.
    Duplicate { who: usize },
    /// The app does not renew its token any more; sent away, it gets another.
    Forget { who: usize },
    /// A moderator puts somebody out, who comes back.
    Kick { who: usize, away: Duration },
    /// A moderator lets somebody publish nothing for a time.
    Forbid { who: usize, length: Duration },
    /// A moderator ends somebody's camera; its app publishes it again.
    RemoveStream { who: usize },
    /// Leaves in order and comes back.
    Leave { who: usize, away: Duration },
    /// The device dies without a word; its user comes back with another.
    Vanish { who: usize, away: Duration },
    /// A second stream begins or ends.
    Screen { who: usize },
    /// The camera is muted or not any more.
    Mute { who: usize },
    /// The camera's info is another one.
    Describe { who: usize },
    /// The room's info is another one.
    Topic { who: usize },
    /// Wants nothing of what `of` publishes for a time.
    Ignore { who: usize, of: usize, length: Duration },
    /// Stops playing what `of` publishes and begins anew soon after.
    Replay { who: usize, of: usize },
}

impl Scenario {
    /// The run of `seed`.
    pub fn new(seed: u64) -> Self {
        let rng = &mut seeded(seed, "chaos");
        let people = (0..PEOPLE).map(|_| Habits::new(rng)).collect();
        let mut draw = Draw { rng, relay_is_spared: false };
        let count = draw.rng.random_range(8..=16);
        let mut steps: Vec<Step> = Vec::new();
        for _ in 0..count {
            let at = draw.between(BEGIN, STEPS_UNTIL);
            let act = draw.act();
            steps.push(Step { at, act });
            // Troubles come together: what was asked for a moment before is on its way then.
            if let Some(who) = act.whom().filter(|_| draw.rng.random_bool(0.5)) {
                let after = draw.between(Duration::ZERO, Duration::from_secs(8));
                let act = draw.act_of(who);
                steps.push(Step { at: at + after, act });
            }
        }
        steps.sort_by_key(|step| step.at);
        Scenario { seed, people, steps }
    }

    /// When the last trouble is over.
    pub fn troubles_end(&self) -> Duration {
        self.steps.iter().map(|step| step.at + step.act.length()).max().unwrap_or_default()
    }
}

impl Habits {
    fn new(rng: &mut SimRng) -> Self {
        let delivery = match rng.random_range(0..3) {
            0 => Delivery::Adaptive,
            1 => Delivery::Datagram,
            _ => Delivery::QuicStream,
        };
        Habits {
            rtt: Duration::from_millis(rng.random_range(10..=150)),
            delivery,
            has_pictures: rng.random_bool(0.6),
            token: Duration::from_secs(rng.random_range(25..=70)),
            shares_screen: rng.random_bool(0.4),
        }
    }
}

struct Draw<'a> {
    rng: &'a mut SimRng,
    /// The relay ends once in a run at most: who published what is asked of one life.
    relay_is_spared: bool,
}

impl Draw<'_> {
    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        // In tenths of a second, which is how often the world moves.
        let tenths = |time: Duration| time.as_millis() as u64 / 100;
        Duration::from_millis(100 * self.rng.random_range(tenths(least)..=tenths(most)))
    }

    fn seconds(&mut self, least: u64, most: u64) -> Duration {
        self.between(Duration::from_secs(least), Duration::from_secs(most))
    }

    /// One to thirty seconds, short ones more often.
    fn outage(&mut self) -> Duration {
        let most = *[2, 5, 9, 14, 30].get(self.rng.random_range(0..5_usize)).unwrap_or(&30);
        self.seconds(1, most)
    }

    fn act(&mut self) -> Act {
        match self.rng.random_range(0..20) {
            0 if !self.relay_is_spared => {
                self.relay_is_spared = true;
                Act::Restart { in_order: self.rng.random_bool(0.5), down: self.seconds(4, 14) }
            }
            1 if !self.relay_is_spared => {
                self.relay_is_spared = true;
                Act::Drain { patience: self.seconds(1, 10), down: self.seconds(4, 8) }
            }
            2 => Act::RelayOutage { length: self.seconds(1, 12) },
            _ => {
                let who = self.rng.random_range(0..PEOPLE);
                self.act_of(who)
            }
        }
    }

    fn act_of(&mut self, who: usize) -> Act {
        let of = (who + self.rng.random_range(1..PEOPLE)) % PEOPLE;
        // The moderator stays in the call.
        let other = who.max(1);
        match self.rng.random_range(0..26) {
            0..=2 => Act::Outage { who, length: self.outage() },
            3 => {
                let times = self.rng.random_range(2..=6);
                Act::Flap {
                    who,
                    times,
                    length: self.between(Duration::from_millis(300), Duration::from_secs(4)),
                }
            }
            4 | 5 => {
                let direction = if self.rng.random_bool(0.5) { Direction::Up } else { Direction::Down };
                Act::HalfOpen { who, direction, length: self.outage() }
            }
            6 => Act::Loss { who, share: self.rng.random_range(0.1..0.6), length: self.seconds(2, 15) },
            7 => Act::Move { who },
            8 => Act::Renumber { who },
            9 => Act::Rebind { who },
            10 => Act::Duplicate { who: other },
            11 => Act::Forget { who: other },
            12 | 13 => Act::Kick { who: other, away: self.seconds(1, 12) },
            14 => Act::Forbid { who, length: self.seconds(1, 10) },
            15 => Act::RemoveStream { who },
            16 => Act::Leave { who: other, away: self.seconds(0, 6) },
            17 => Act::Vanish { who: other, away: self.seconds(2, 20) },
            18 | 19 => Act::Screen { who },
            20 => Act::Mute { who },
            21 | 22 => Act::Describe { who },
            23 => Act::Topic { who },
            24 => Act::Ignore { who, of, length: self.seconds(1, 8) },
            _ => Act::Replay { who, of },
        }
    }
}

impl Act {
    /// The person whom it befalls, if it is one.
    pub fn whom(&self) -> Option<usize> {
        use Act::*;
        match *self {
            RelayOutage { .. } | Restart { .. } | Drain { .. } => None,
            Outage { who, .. } | Flap { who, .. } | HalfOpen { who, .. } | Loss { who, .. } => Some(who),
            Move { who } | Renumber { who } | Rebind { who } | Duplicate { who } | Forget { who } => {
                Some(who)
            }
            Kick { who, .. } | Forbid { who, .. } | RemoveStream { who } | Leave { who, .. } => Some(who),
            Vanish { who, .. } | Screen { who } | Mute { who } | Describe { who } | Topic { who } => {
                Some(who)
            }
            Ignore { who, .. } | Replay { who, .. } => Some(who),
        }
    }

    /// How long it is before nothing of it is felt but what the ladder has to mend.
    pub fn length(&self) -> Duration {
        use Act::*;
        match *self {
            Outage { length, .. } | HalfOpen { length, .. } | Loss { length, .. } => length,
            RelayOutage { length } | Forbid { length, .. } | Ignore { length, .. } => length,
            // As long away as there.
            Flap { times, length, .. } => length * 2 * times,
            Restart { down, .. } => down,
            // A relay that ends waits 3 s for its connections.
            Drain { patience, down } => patience + Duration::from_secs(3) + down,
            Kick { away, .. } | Leave { away, .. } | Vanish { away, .. } => away,
            _ => Duration::ZERO,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5.1} s {:?}", self.at.as_secs_f64(), self.act)
    }
}
