//! What the lobby knows of one connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parlor_transport::id::{StreamId, UserId};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{Presence, TrackWish};

use super::resume::{Attempt, Parked};
use super::tokens::Held;
use crate::limits::{
    MESSAGE_BURST_MAX, MESSAGE_COST_PER_SECOND_MAX, REQUESTS_BURST_MAX, REQUESTS_PER_SECOND_MAX,
};
use crate::room::index::RoomKey;

/// One connection.
pub(super) struct Client {
    pub(super) phase: Phase,
    pub(super) budget: Budget,
    /// As it joined.
    pub(super) presence: Presence,
    /// For app messages.
    pub(super) message_budget: Budget,
    /// Lanes in use, by publications and plays.
    pub(super) lanes: BTreeSet<u32>,
    /// What it plays or waits to play, by lane.
    pub(super) plays: BTreeMap<u32, PlayRequest>,
    /// What it may do, from joining to leaving.
    pub(super) token: Option<Held>,
    /// Until when it is kept without a connection.
    pub(super) parked: Option<Parked>,
    /// Which attempt to resume it succeeded last.
    pub(super) resumed_by: Option<Attempt>,
    /// It may publish nothing as long as it is in the room.
    pub(super) is_banned: bool,
}

/// How far it has come. One connection has one room: after leaving it, nothing more is joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Connected,
    Greeted,
    Joining { room: RoomKey, user: UserId },
    Joined { room: RoomKey, user: UserId },
    Left { room: RoomKey, user: UserId },
}

impl Phase {
    /// The room it is in, or about to be.
    pub(super) fn room(&self) -> Option<&RoomKey> {
        match self {
            Phase::Joining { room, .. } | Phase::Joined { room, .. } => Some(room),
            _ => None,
        }
    }
}

pub(super) struct PlayRequest {
    pub(super) stream: StreamId,
    pub(super) wishes: Vec<TrackWish>,
}

impl Client {
    pub(super) fn new(now: Timestamp) -> Self {
        Client {
            phase: Phase::Connected,
            budget: Budget::new(now, REQUESTS_BURST_MAX, REQUESTS_PER_SECOND_MAX),
            presence: Presence::default(),
            message_budget: Budget::new(now, MESSAGE_BURST_MAX, MESSAGE_COST_PER_SECOND_MAX),
            lanes: BTreeSet::new(),
            plays: BTreeMap::new(),
            token: None,
            parked: None,
            resumed_by: None,
            is_banned: false,
        }
    }
}

impl Client {
    /// Takes what a message of so many bytes costs; false when there is less.
    pub(super) fn pay_for_message(&mut self, now: Timestamp, bytes: usize) -> bool {
        let cost = 1 + u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX - 1);
        self.message_budget.spend(now, cost)
    }
}

/// A token bucket: for requests, and for app messages.
pub(super) struct Budget {
    left: u32,
    burst: u32,
    /// In which one is earned.
    each: Duration,
    refilled: Timestamp,
}

impl Budget {
    /// Full: `burst` may be spent at once, `per_second` (not 0) on and on.
    fn new(now: Timestamp, burst: u32, per_second: u32) -> Self {
        Budget { left: burst, burst, each: Duration::from_secs(1) / per_second, refilled: now }
    }

    /// Takes so much; false when there is less, and nothing is taken then.
    pub(super) fn spend(&mut self, now: Timestamp, cost: u32) -> bool {
        let earned = now.saturating_since(self.refilled).as_micros() / self.each.as_micros();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(earned).min(self.burst);
        self.refilled += self.each.saturating_mul(earned);
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}
