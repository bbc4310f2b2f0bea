//! What the lobby knows of one connection.

use std::collections::{BTreeMap, BTreeSet};

use parlor_transport::error::Refusal;
use parlor_transport::id::{SessionId, StreamId, UserId};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{Presence, TrackWish};

use super::resume::{Attempt, Parked};
use super::tokens::Held;
use crate::budget::Budget;
use crate::limits::Limits;
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
    /// The session that its client had before, which is gone.
    pub(super) returns_from: Option<SessionId>,
    /// It may publish nothing as long as it is in the room.
    pub(super) is_banned: bool,
    /// Publications that others ended, by lane, and why: told again when it comes back, as it may not have heard.
    pub(super) taken: BTreeMap<u32, Refusal>,
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
    pub(super) fn new(now: Timestamp, limits: &Limits) -> Self {
        Client {
            phase: Phase::Connected,
            budget: Budget::new(now, limits.requests_burst_max, limits.requests_per_second_max),
            presence: Presence::default(),
            message_budget: Budget::new(now, limits.message_burst_max, limits.message_cost_per_second_max),
            lanes: BTreeSet::new(),
            plays: BTreeMap::new(),
            token: None,
            parked: None,
            resumed_by: None,
            returns_from: None,
            is_banned: false,
            taken: BTreeMap::new(),
        }
    }
}

impl Client {
    /// Other limits from now on.
    pub(super) fn set_limits(&mut self, now: Timestamp, limits: &Limits) {
        self.budget.set(now, limits.requests_burst_max, limits.requests_per_second_max);
        self.message_budget.set(now, limits.message_burst_max, limits.message_cost_per_second_max);
    }

    /// Takes what a message of so many bytes costs; false when there is less.
    pub(super) fn pay_for_message(&mut self, now: Timestamp, bytes: usize) -> bool {
        let cost = 1 + u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX - 1);
        self.message_budget.spend(now, cost)
    }
}
