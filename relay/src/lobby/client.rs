//! What the lobby knows of one connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parlor_transport::id::{StreamId, UserId};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::TrackWish;

use super::resume::{Attempt, Parked};
use super::tokens::Held;
use crate::limits::{REQUESTS_BURST_MAX, REQUESTS_PER_SECOND_MAX};
use crate::room::index::RoomKey;

/// One connection.
pub(super) struct Client {
    pub(super) phase: Phase,
    pub(super) budget: Budget,
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

pub(super) struct PlayRequest {
    pub(super) stream: StreamId,
    pub(super) wishes: Vec<TrackWish>,
}

impl Client {
    pub(super) fn new(now: Timestamp) -> Self {
        Client {
            phase: Phase::Connected,
            budget: Budget { left: REQUESTS_BURST_MAX, refilled: now },
            lanes: BTreeSet::new(),
            plays: BTreeMap::new(),
            token: None,
            parked: None,
            resumed_by: None,
            is_banned: false,
        }
    }
}

/// A token bucket for requests.
pub(super) struct Budget {
    left: u32,
    refilled: Timestamp,
}

impl Budget {
    /// Takes so many requests; false when there are too many.
    pub(super) fn spend(&mut self, now: Timestamp, requests: u32) -> bool {
        let each = Duration::from_secs(1) / REQUESTS_PER_SECOND_MAX;
        let earned = now.saturating_since(self.refilled).as_micros() / each.as_micros();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(earned).min(REQUESTS_BURST_MAX);
        self.refilled += each.saturating_mul(earned);
        match self.left.checked_sub(requests) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}
