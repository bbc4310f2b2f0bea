//! Who may begin a handshake, and who has to prove an address first.
//!
//! A machine between the socket and the connections: it counts, and says what becomes of an attempt. An address that
//! was not proved may be anybody's, so that nothing is held against it: what those attempts may cost is bounded for all
//! of them together, and beyond that each has to prove its address, which costs the relay no memory and an honest
//! client one round trip. What an address proved is counted for it alone, so that nobody else pays for it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use parlor_transport::error::{Code, Refusal};
use parlor_transport::units::Timestamp;

use crate::budget::Budget;
use crate::limits::{HANDSHAKE_SECONDS_AT_ONCE, Limits, RETRIES_PER_SECOND_MAX};

/// What becomes of an attempt to connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// The handshake begins.
    Take(Pass),
    /// It has to prove its address first, in a packet that we keep nothing of.
    Prove,
    /// It is told, in one packet.
    Refuse,
    /// Not even that.
    Ignore,
}

/// A connection's place, from its first packet to its end. To be given back with [`Gate::leave`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pass {
    origin: Origin,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// In a handshake, from wherever it says.
    Unproven,
    /// In a handshake, from there.
    Proven,
    /// Beyond it.
    Standing,
}

/// Where something comes from, as far as limits tell one from another: of IPv6 the network, whose addresses one host may
/// all have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// One address.
    V4(Ipv4Addr),
    /// The upper 64 bits of it.
    V6(u64),
}

impl From<IpAddr> for Origin {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Origin::V4(ip),
            IpAddr::V6(ip) => Origin::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

/// What was refused, and how much there is now.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct GateCounts {
    /// Handshakes under way.
    pub handshakes: usize,
    /// Of those, from addresses that were not proved.
    pub unproven: usize,
    /// Origins with anything to remember.
    pub origins: usize,
    /// Attempts that had to prove their address.
    pub proofs_asked: u64,
    /// Attempts that were refused.
    pub refused: u64,
    /// Attempts that were not answered.
    pub ignored: u64,
}

/// See the module's text.
pub struct Gate {
    limits: Limits,
    /// Of those that are proved.
    rate: Budget,
    rate_unproven: Budget,
    rate_proofs: Budget,
    places: BTreeMap<Origin, Place>,
    /// So many places, and those that hold nothing any more are looked for.
    prune_at: usize,
    counts: GateCounts,
}

/// What is known of an origin.
struct Place {
    rate: Budget,
    handshakes: usize,
    connections: usize,
}

/// Places that are kept without looking for those that hold nothing.
const PLACES_LEAST: usize = 1024;

impl Gate {
    /// An open one.
    pub fn new(now: Timestamp, limits: Limits) -> Self {
        let proofs = RETRIES_PER_SECOND_MAX;
        Gate {
            rate: Budget::new(now, burst(limits.handshakes_per_second_max), limits.handshakes_per_second_max),
            rate_unproven: Budget::new(
                now,
                limits.handshakes_unproven_per_second_max,
                limits.handshakes_unproven_per_second_max,
            ),
            rate_proofs: Budget::new(now, proofs, proofs),
            places: BTreeMap::new(),
            prune_at: PLACES_LEAST,
            counts: GateCounts::default(),
            limits,
        }
    }

    /// Other limits from now on. Who is in stays in.
    pub fn set_limits(&mut self, now: Timestamp, limits: Limits) {
        let Limits {
            handshakes_per_second_max: all,
            handshakes_unproven_per_second_max: unproven,
            handshakes_per_address_per_second_max: own,
            ..
        } = limits;
        self.rate.set(now, burst(all), all);
        self.rate_unproven.set(now, unproven, unproven);
        self.places.values_mut().for_each(|place| place.rate.set(now, burst(own), own));
        self.limits = limits;
    }

    /// Somebody at `ip` wants to connect; `is_proven` if they have shown that they are there.
    pub fn admit(&mut self, now: Timestamp, ip: IpAddr, is_proven: bool) -> Admission {
        let origin = Origin::from(ip);
        let admission = match is_proven {
            true => self.admit_proven(now, origin),
            false => self.admit_unproven(now, origin),
        };
        match admission {
            Admission::Take(_) => self.counts.handshakes += 1,
            Admission::Prove => self.counts.proofs_asked += 1,
            Admission::Refuse => self.counts.refused += 1,
            Admission::Ignore => self.counts.ignored += 1,
        }
        admission
    }

    fn admit_unproven(&mut self, now: Timestamp, origin: Origin) -> Admission {
        let is_busy = self.counts.unproven >= self.limits.handshakes_unproven_max
            || self.counts.handshakes >= self.limits.handshakes_max;
        if !is_busy && self.rate_unproven.spend(now, 1) {
            self.counts.unproven += 1;
            return Admission::Take(Pass { origin, stage: Stage::Unproven });
        }
        if self.rate_proofs.spend(now, 1) { Admission::Prove } else { Admission::Ignore }
    }

    fn admit_proven(&mut self, now: Timestamp, origin: Origin) -> Admission {
        let is_full = self.counts.handshakes >= self.limits.handshakes_max;
        let (under_way, connections) =
            (self.limits.handshakes_per_address_max, self.limits.connections_per_address_max);
        let place = self.place(now, origin);
        // Those a little over are taken, to be told why in words.
        let is_over = place.handshakes >= under_way || place.connections >= connections + under_way;
        if is_full || is_over || !place.rate.spend(now, 1) {
            return Admission::Refuse;
        }
        place.handshakes += 1;
        if !self.rate.spend(now, 1) {
            self.place(now, origin).handshakes -= 1;
            return Admission::Refuse;
        }
        Admission::Take(Pass { origin, stage: Stage::Proven })
    }

    /// The handshake is over, so that the address is proved now if it was not; the connection stands until
    /// [`leave`](Self::leave).
    ///
    /// # Errors
    /// [`Code::TooManyConnections`] when its address has as many as it may. It holds its place until it has left, too.
    pub fn stand(&mut self, now: Timestamp, pass: &mut Pass) -> Result<(), Refusal> {
        self.end_handshake(now, pass);
        pass.stage = Stage::Standing;
        let max = self.limits.connections_per_address_max;
        let place = self.place(now, pass.origin);
        place.connections += 1;
        if place.connections <= max {
            return Ok(());
        }
        let text = format!(
            "there are {max} connections from this address and no more are taken; close some, or raise the relay's \
             limit connections_per_address_max"
        );
        Err(Refusal::new(Code::TooManyConnections, text))
    }

    /// The handshake failed or the connection ended.
    pub fn leave(&mut self, now: Timestamp, pass: Pass) {
        match pass.stage {
            Stage::Standing => self.place(now, pass.origin).connections -= 1,
            Stage::Unproven | Stage::Proven => self.end_handshake(now, &pass),
        }
    }

    /// What was refused, and how much there is now.
    pub fn counts(&self) -> GateCounts {
        GateCounts { origins: self.places.len(), ..self.counts }
    }

    fn end_handshake(&mut self, now: Timestamp, pass: &Pass) {
        self.counts.handshakes -= 1;
        match pass.stage {
            Stage::Unproven => self.counts.unproven -= 1,
            Stage::Proven => self.place(now, pass.origin).handshakes -= 1,
            Stage::Standing => debug_assert!(false, "a handshake ends once"),
        }
    }

    /// What is known of an origin that was proved. Bounded by who is here and who came lately: a place that holds nothing
    /// is as full as a new one after [`HANDSHAKE_SECONDS_AT_ONCE`], in which so many come as handshakes are taken.
    fn place(&mut self, now: Timestamp, origin: Origin) -> &mut Place {
        if self.places.len() >= self.prune_at && !self.places.contains_key(&origin) {
            self.places
                .retain(|_, place| place.connections > 0 || place.handshakes > 0 || !place.rate.is_full(now));
            self.prune_at = PLACES_LEAST.max(2 * self.places.len());
        }
        let own = self.limits.handshakes_per_address_per_second_max;
        let new = || Place { rate: Budget::new(now, burst(own), own), handshakes: 0, connections: 0 };
        self.places.entry(origin).or_insert_with(new)
    }
}

fn burst(per_second: u32) -> u32 {
    per_second.saturating_mul(HANDSHAKE_SECONDS_AT_ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    fn ip(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    fn small() -> Limits {
        Limits {
            connections_per_address_max: 3,
            handshakes_max: 20,
            handshakes_per_address_max: 5,
            handshakes_unproven_max: 4,
            handshakes_unproven_per_second_max: 10,
            handshakes_per_second_max: 10,
            handshakes_per_address_per_second_max: 2,
            ..Limits::default()
        }
    }

    fn take(gate: &mut Gate, now: Timestamp, ip: IpAddr, is_proven: bool) -> Pass {
        match gate.admit(now, ip, is_proven) {
            Admission::Take(pass) => pass,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_that_nobody_proved_are_not_held_against_their_owners() {
        let mut gate = Gate::new(at(0), small());
        let mut spoofed: Vec<_> = (0..4).map(|_| take(&mut gate, at(0), ip(1), false)).collect();
        for _ in 0..1000 {
            assert_eq!(gate.admit(at(0), ip(1), false), Admission::Prove);
        }
        assert_eq!(gate.counts().origins, 0, "nothing is kept of them");
        let mut own = take(&mut gate, at(0), ip(1), true);
        gate.stand(at(1), &mut own).unwrap();
        spoofed.drain(..).for_each(|pass| gate.leave(at(10_000), pass));
        let late = take(&mut gate, at(10_000), ip(1), false);
        gate.leave(at(10_000), late);
        gate.leave(at(10_000), own);
        assert_eq!((gate.counts().handshakes, gate.counts().unproven), (0, 0));
    }

    #[test]
    fn many_at_once_have_to_prove_where_they_are_and_floods_are_not_even_answered() {
        let mut gate = Gate::new(at(0), small());
        for number in 0..10 {
            let pass = take(&mut gate, at(0), ip(number), false);
            gate.leave(at(0), pass);
        }
        assert_eq!(gate.admit(at(0), ip(11), false), Admission::Prove, "ten in a second were enough");
        let mut ignored = 0;
        for _ in 0..RETRIES_PER_SECOND_MAX + 10 {
            ignored += u32::from(gate.admit(at(0), ip(11), false) == Admission::Ignore);
        }
        assert_eq!(ignored, 11);
        take(&mut gate, at(100), ip(12), false);
    }

    #[test]
    fn one_address_uses_up_its_own_share_and_not_that_of_others() {
        let mut gate = Gate::new(at(0), small());
        // Five under way, whether they go on or not.
        let half_open: Vec<_> = (0..5).map(|_| take(&mut gate, at(0), ip(1), true)).collect();
        assert_eq!(gate.admit(at(0), ip(1), true), Admission::Refuse);
        take(&mut gate, at(0), ip(2), true);
        half_open.into_iter().for_each(|pass| gate.leave(at(0), pass));
        // And eight in four seconds.
        for _ in 0..3 {
            let pass = take(&mut gate, at(0), ip(1), true);
            gate.leave(at(0), pass);
        }
        assert_eq!(gate.admit(at(0), ip(1), true), Admission::Refuse);
        take(&mut gate, at(0), ip(2), true);
        take(&mut gate, at(500), ip(1), true);
    }

    #[test]
    fn who_is_one_connection_over_is_told_in_words() {
        let mut gate = Gate::new(at(0), small());
        let mut passes: Vec<_> = (0..4).map(|_| take(&mut gate, at(0), ip(1), true)).collect();
        let told: Vec<_> = passes.iter_mut().map(|pass| gate.stand(at(0), pass)).collect();
        let codes: Vec<_> = told.into_iter().map(|told| told.err().map(|refusal| refusal.code)).collect();
        assert_eq!(codes, [None, None, None, Some(Code::TooManyConnections)]);
        gate.leave(at(0), passes.pop().unwrap());
        gate.leave(at(0), passes.pop().unwrap());
        let mut again = take(&mut gate, at(2000), ip(1), true);
        gate.stand(at(2000), &mut again).unwrap();
    }

    #[test]
    fn an_ipv6_network_is_one_origin_and_a_mapped_address_is_its_ipv4_one() {
        let origin = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(origin("2001:db8:0:1::1"), origin("2001:db8:0:1:ffff::2"));
        assert_ne!(origin("2001:db8:0:1::1"), origin("2001:db8:0:2::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
    }

    #[test]
    fn places_that_hold_nothing_are_forgotten() {
        let limits = Limits { handshakes_per_second_max: 1000, ..small() };
        let mut gate = Gate::new(at(0), limits);
        for number in 0..20_000 {
            let pass = take(&mut gate, at(u64::from(number) * 2), ip(number), true);
            gate.leave(at(u64::from(number) * 2), pass);
            // A place holds a spent handshake for half a second, in which 250 others come.
            assert!(gate.counts().origins <= PLACES_LEAST, "{}", gate.counts().origins);
        }
    }

    #[test]
    fn other_limits_hold_at_once_for_who_comes_and_leave_who_is_in() {
        let mut gate = Gate::new(at(0), small());
        let mut passes: Vec<_> = (0..3).map(|_| take(&mut gate, at(0), ip(1), true)).collect();
        passes.iter_mut().for_each(|pass| gate.stand(at(0), pass).unwrap());
        gate.set_limits(at(0), Limits { connections_per_address_max: 1, ..small() });
        let mut next = take(&mut gate, at(0), ip(1), true);
        assert!(gate.stand(at(0), &mut next).is_err());
        gate.set_limits(at(0), Limits { connections_per_address_max: 10, ..small() });
        gate.leave(at(0), next);
        let mut next = take(&mut gate, at(0), ip(1), true);
        gate.stand(at(0), &mut next).unwrap();
    }
}
