//! Carries a scenario out: ten people with their devices around one relay, moved ten times a second; and looks, all the
//! time and at the end, whether what has to be true is.

use std::time::Duration;

use parlor_client::room::{RoomReason, RoomState};
use parlor_client::{Code, Coded, Engine, EngineConfig, JoinOptions, Refusal, Scenario as Preset, Timestamp};
use parlor_relay::RelayHandle;
use parlor_transport::sim::{Direction, Loss, Profile, Sim};

use super::device::{Device, Slot, Tick, Wanted, answer, slot, user_id};
use super::frames::fnv;
use super::relay::Lives;
use super::scenario::{Act, BEGIN, Habits, PEOPLE, QUIET, Scenario};
use super::verdict;
use super::{Counts, Outcome};

/// Between two moves of the world.
const TICK: Duration = Duration::from_millis(100);
/// Between two frames, while it is stormy …
const PERIOD: Duration = Duration::from_secs(1);
/// … and in the last seconds.
const PERIOD_LAST: Duration = Duration::from_millis(250);
/// How long before the verdict frames come more often, and everybody says something.
pub(super) const LAST: Duration = Duration::from_millis(2500);
/// A relay misses a client after 6 s and waits 4 s for it to come back; a packet may have been on its way.
pub(super) const GHOST_MAX: Duration = Duration::from_millis(10_600);
/// After everybody left: the relay gives up what was left without a word.
const AFTER: Duration = Duration::from_secs(14);

/// Everything of one run.
pub(super) struct World {
    pub(super) sim: Sim,
    pub(super) relay: Lives,
    pub(super) seats: Vec<Seat>,
    /// What a moderator asked for, until it is answered.
    asked: Vec<(Asked, Slot)>,
    removals: Vec<(Removal, Slot)>,
    publications: u32,
    devices: u32,
    addresses: u8,
    topics: u32,
    relay_cut: Option<Timestamp>,
    log: Vec<String>,
    hash: u64,
    pub(super) faults: Vec<String>,
    counts: Counts,
}

/// A person.
pub(super) struct Seat {
    pub(super) habits: Habits,
    pub(super) wanted: Wanted,
    /// All devices that are not over, the newest last.
    pub(super) devices: Vec<Device>,
    /// When another device joins.
    pub(super) returns: Option<Timestamp>,
    /// Since when there is none.
    pub(super) absent: Option<Timestamp>,
    /// A moderator was asked to put the person out, the last time.
    kick_asked: Option<Timestamp>,
    /// From another device, the last time.
    duplicated: Option<Timestamp>,
    /// How long it stays away once it is put out.
    away: Duration,
}

/// See [`World::asked`].
struct Asked {
    at: Timestamp,
    who: usize,
    /// The device whose session is in the room, and has to hear of it.
    device: Option<u32>,
}

/// A stream that a moderator was asked to end.
struct Removal {
    who: usize,
    device: u32,
    publication: u32,
}

/// Runs a scenario.
pub(super) async fn run(sim: &Sim, scenario: &Scenario) -> Outcome {
    let mut world = World::new(sim, scenario).await;
    let mut quiet_at = Timestamp::ZERO + BEGIN.max(scenario.troubles_end());
    let mut steps = scenario.steps.iter().peekable();
    let mut has_spoken = false;
    loop {
        let now = sim.clock().now();
        // A relay that ended gets its port again once the connections of the life before have drained, which takes three
        // times their probe timeout: many seconds after an outage.
        if !world.relay.is_up() {
            quiet_at = quiet_at.max(now);
        }
        let verdict_at = quiet_at + QUIET;
        if now >= verdict_at {
            break;
        }
        while let Some(step) = steps.next_if(|step| now >= Timestamp::ZERO + step.at) {
            world.note(format!("== {:?}", step.act));
            world.act(now, step.act);
        }
        if now >= quiet_at {
            // Who forgot to renew remembers, so that nobody is sent away just before the verdict.
            world.seats.iter_mut().flat_map(|seat| &mut seat.devices).for_each(|device| device.renews = true);
        }
        let is_last = now + LAST >= verdict_at;
        if is_last && !std::mem::replace(&mut has_spoken, true) {
            world.begin_last();
        }
        world.tick(now, if is_last { PERIOD_LAST } else { PERIOD }).await;
        sim.clock().sleep(TICK).await;
    }
    verdict::judge(&mut world, sim.clock().now());
    world.end(sim).await;
    world.outcome(scenario)
}

fn refusal(error: parlor_client::ModerateError) -> Refusal {
    Refusal::new(error.code(), error.to_string())
}

impl World {
    async fn new(sim: &Sim, scenario: &Scenario) -> Self {
        let relay = Lives::new(sim).await;
        let seat = |(number, habits): (usize, &Habits)| Seat {
            habits: habits.clone(),
            wanted: Wanted { screen: habits.shares_screen, ..Wanted::default() },
            devices: Vec::new(),
            // One after the other within the first second.
            returns: Some(Timestamp::ZERO + TICK * number as u32),
            absent: None,
            kick_asked: None,
            duplicated: None,
            away: Duration::ZERO,
        };
        World {
            sim: sim.clone(),
            relay,
            seats: scenario.people.iter().enumerate().map(seat).collect(),
            asked: Vec::new(),
            removals: Vec::new(),
            publications: 0,
            devices: 0,
            addresses: 0,
            topics: 0,
            relay_cut: None,
            log: Vec::new(),
            hash: 0,
            faults: Vec::new(),
            counts: Counts::default(),
        }
    }

    fn note(&mut self, line: String) {
        let line = format!("{:9.3} {line}", self.sim.clock().now().as_micros() as f64 / 1e6);
        self.hash = self.hash.wrapping_mul(31) ^ fnv(line.as_bytes());
        self.log.push(line);
    }

    pub(super) fn fault(&mut self, fault: String) {
        let at = self.sim.clock().now().as_micros() as f64 / 1e6;
        self.note(format!("!! {fault}"));
        self.faults.push(format!("at {at:.1} s: {fault}"));
    }

    fn act(&mut self, now: Timestamp, act: Act) {
        match act {
            Act::RelayOutage { length } => {
                self.relay_cut = Some(now + length);
                return self.relay.outage(length);
            }
            Act::Restart { in_order, down } => return self.relay.end(now, in_order, Duration::ZERO, down),
            Act::Drain { patience, down } => return self.relay.end(now, true, patience, down),
            _ => {}
        }
        let Some(who) = act.whom() else { return };
        self.act_on_wishes(now, who, act);
        if self.seats[who].devices.is_empty() {
            return;
        }
        match act {
            Act::Duplicate { .. } => {
                self.seats[who].duplicated = Some(now);
                self.join(now, who);
            }
            Act::Kick { away, .. } => {
                self.seats[who].away = away;
                let room = self.seats[0].devices.last().map(|device| device.room.clone());
                let Some(room) = room else { return };
                self.seats[who].kick_asked = Some(now);
                let device = self.session_holder(now, who);
                let user = user_id(who);
                let kicked = slot(async move { room.kick(user).await.map_err(refusal) });
                self.asked.push((Asked { at: now, who, device }, kicked));
            }
            Act::Forbid { length, .. } => {
                let room = self.seats[0].devices.last().map(|device| device.room.clone());
                let Some(room) = room else { return };
                let user = user_id(who);
                tokio::spawn(async move { _ = room.forbid_publish(user, Some(length)).await });
            }
            Act::RemoveStream { .. } => {
                let room = self.seats[0].devices.last().map(|device| device.room.clone());
                let Some(room) = room else { return };
                let stream = super::device::stream_id(who, 0);
                let removed = slot(async move { room.remove_stream(stream).await.map_err(refusal) });
                // Whose session is not known for sure may publish again what is removed now.
                let publication = self.seats[who].devices.last().and_then(Device::camera);
                if let Some((device, publication)) = self.session_holder(now, who).zip(publication) {
                    self.removals.push((Removal { who, device, publication }, removed));
                }
            }
            _ => self.act_on_device(now, who, act),
        }
    }

    fn act_on_wishes(&mut self, now: Timestamp, who: usize, act: Act) {
        let wanted = &mut self.seats[who].wanted;
        match act {
            Act::Screen { .. } => wanted.screen = !wanted.screen,
            Act::Mute { .. } => wanted.muted = !wanted.muted,
            Act::Describe { .. } => wanted.info = format!("described at {}", now.as_micros()),
            Act::Ignore { of, length, .. } => _ = wanted.ignored.insert(of, now + length),
            Act::Replay { of, .. } => _ = wanted.stopped.insert(of, now + TICK * 4),
            _ => {}
        }
    }

    fn act_on_device(&mut self, now: Timestamp, who: usize, act: Act) {
        self.topics += u32::from(matches!(act, Act::Topic { .. }));
        self.addresses += u8::from(matches!(act, Act::Move { .. }));
        let (topics, address) = (self.topics, std::net::Ipv4Addr::new(10, 9, 0, self.addresses));
        let rtt = self.seats[who].habits.rtt;
        let Some(device) = self.seats[who].devices.last_mut() else { return };
        match act {
            Act::Outage { length, .. } => {
                device.host.outage(Duration::ZERO, length);
                device.cut = Some((now, now + length));
            }
            Act::Flap { times, length, .. } => {
                for time in 0..times {
                    device.host.outage(length * 2 * time, length);
                }
            }
            Act::HalfOpen { direction, length, .. } => {
                device.host.link_outage(direction, Duration::ZERO, length);
                if direction == Direction::Up {
                    device.cut = Some((now, now + length));
                }
            }
            Act::Loss { share, length, .. } => {
                let (host, clock) = (device.host.clone(), self.sim.clock().clone());
                host.set_profile(Profile::perfect().with_rtt(rtt).with_loss(Loss::Random(share)));
                tokio::spawn(async move {
                    clock.sleep(length).await;
                    host.set_profile(Profile::perfect().with_rtt(rtt));
                });
            }
            Act::Move { .. } => device.host.move_to(address.into()),
            Act::Renumber { .. } => device.host.renumber_ports(),
            Act::Rebind { .. } => {
                let binding = device.host.binding(0).expect("a host has thousands of ports");
                device.engine.rebind(binding).expect("a simulated socket");
            }
            Act::Forget { .. } => device.renews = false,
            Act::Topic { .. } => {
                if let Ok(answer) = device.room.set_info(format!("topic-{}", topics % 5), topics.to_string())
                {
                    drop(answer);
                }
            }
            Act::Leave { away, .. } => {
                let seat = &mut self.seats[who];
                for device in std::mem::take(&mut seat.devices) {
                    self.counts.frames += device.frames;
                    drop(device.room);
                    tokio::spawn(device.engine.close());
                }
                (seat.returns, seat.absent) = (Some(now + away), Some(now));
            }
            Act::Vanish { away, .. } => {
                let seat = &mut self.seats[who];
                for device in std::mem::take(&mut seat.devices) {
                    self.counts.frames += device.frames;
                    device.host.outage(Duration::ZERO, Duration::from_secs(3600));
                }
                (seat.returns, seat.absent) = (Some(now + away), Some(now));
            }
            _ => {}
        }
    }

    /// The device whose own session is in the room for sure, if there is one.
    fn session_holder(&self, now: Timestamp, who: usize) -> Option<u32> {
        let seat = &self.seats[who];
        let [device] = &seat.devices[..] else { return None };
        let room = self.relay.room()?;
        let is_there = room.users.iter().any(|user| user.user.as_str() == user_id(who));
        // A room that is being joined anew may hold a session that its client does not know of yet.
        let is_settled = device.status().state == RoomState::Connected
            || device.cut.is_some_and(|(since, _)| now < since + Duration::from_secs(9));
        let rejoined = device.room.stats().recovery.rejoined;
        (is_there && is_settled && rejoined == 0 && self.relay.restarted.is_none() && self.relay.is_up())
            .then_some(device.number)
    }

    fn join(&mut self, now: Timestamp, who: usize) {
        let seat = &mut self.seats[who];
        self.devices += 1;
        self.counts.devices += 1;
        let number = self.devices;
        let host = self.sim.host(&format!("p{who}-{number}"), Profile::perfect().with_rtt(seat.habits.rtt));
        let config = EngineConfig::from(Preset::StandardCall);
        let binding = host.binding(0).expect("a new host has free ports");
        let engine = Engine::with_network(config, binding).expect("an engine on a simulated host");
        let expires = now + seat.habits.token;
        let token = self.relay.token(&user_id(who), who == 0, expires);
        let options = JoinOptions::new(self.relay.address(), user_id(who)).token(token);
        let room = engine.join(options).expect("a valid address and name");
        let device = Device::new(who, number, host, engine, room, seat.habits.clone(), expires);
        seat.devices.push(device);
        (seat.returns, seat.absent) = (None, None);
        self.note(format!("p{who}#{number} joins"));
    }

    async fn tick(&mut self, now: Timestamp, period: Duration) {
        if self.relay.tick(now).await {
            // It does not know whom the one before had put out.
            self.seats.iter_mut().flat_map(|seat| &mut seat.devices).for_each(|device| device.barred = None);
            self.note("the relay is there again".to_owned());
        }
        for who in 0..PEOPLE {
            if self.seats[who].returns.is_some_and(|returns| now >= returns) {
                self.join(now, who);
            }
        }
        let World { seats, relay, publications, log, hash, .. } = self;
        let mut faults = Vec::new();
        let at = now.as_micros() as f64 / 1e6;
        for (who, seat) in seats.iter_mut().enumerate() {
            let expires = now + seat.habits.token;
            let token = || (relay.token(&user_id(who), who == 0, expires), expires);
            for device in &mut seat.devices {
                let mut log = |line: String| {
                    let line = format!("{at:9.3} {line}");
                    *hash = hash.wrapping_mul(31) ^ fnv(line.as_bytes());
                    log.push(line);
                };
                let wanted = &seat.wanted;
                device.tick(&mut Tick { now, wanted, period, publications, token: &token, log: &mut log });
                faults.extend(device.take_faults());
            }
        }
        faults.into_iter().for_each(|fault| self.fault(fault));
        self.hear_moderator(now);
        self.bury(now);
        if now.as_micros().is_multiple_of(1_000_000) {
            self.look_for_ghosts(now);
        }
    }

    /// What a moderator asked for was done or not.
    fn hear_moderator(&mut self, now: Timestamp) {
        let answered: Vec<_> = self.asked.extract_if(.., |(_, slot)| answer(slot).is_some()).collect();
        for (Asked { at, who, device }, slot) in answered {
            self.note(format!("kick of p{who}: {:?}", answer(&slot)));
            if answer(&slot) != Some(Ok(())) {
                continue;
            }
            for device in self.seats[who].devices.iter_mut().filter(|other| Some(other.number) == device) {
                // The answer is on its way for a while, in which the frames of others do come no more.
                device.barred = Some(now.max(at));
            }
        }
        let removed: Vec<_> = self.removals.extract_if(.., |(_, slot)| answer(slot).is_some()).collect();
        for (Removal { who, device, publication }, slot) in removed {
            let devices = self.seats[who].devices.iter_mut();
            let holder = devices.filter(|other| other.number == device && answer(&slot) == Some(Ok(())));
            holder.for_each(|device| _ = device.removed.insert(publication));
        }
    }

    /// Takes away the devices whose rooms are over, and asks why.
    fn bury(&mut self, now: Timestamp) {
        for who in 0..PEOPLE {
            let seat = &mut self.seats[who];
            let over: Vec<_> = seat.devices.extract_if(.., |device| device.is_over()).collect();
            let others = (seat.devices.len() + over.len()).saturating_sub(1);
            for device in over {
                let status = device.status();
                self.counts.frames += device.frames;
                self.count_recovery(&device);
                let seat = &mut self.seats[who];
                let code = status.error.as_ref().map(|error| error.code);
                let returns = match (status.reason, code) {
                    (RoomReason::JoinFailed, Some(code)) if code.is_retryable() => {
                        Some(Duration::from_secs(1))
                    }
                    (RoomReason::KickedOut, Some(Code::Kicked)) if seat.kick_asked.is_some() => {
                        Some(seat.away)
                    }
                    // Tokens are dated in whole seconds.
                    (RoomReason::KickedOut, Some(Code::TokenExpired))
                        if now + Duration::from_secs(1) >= device.token_offered() =>
                    {
                        Some(Duration::from_secs(1))
                    }
                    (RoomReason::KickedOut, Some(Code::RepeatedLogin))
                        if seat.duplicated.is_some() && others > 0 =>
                    {
                        None
                    }
                    _ => {
                        let fault = format!("{} ended: {status:?}", device.name());
                        self.fault(fault);
                        Some(Duration::from_secs(1))
                    }
                };
                let seat = &mut self.seats[who];
                if seat.devices.is_empty() && seat.absent.is_none() {
                    (seat.absent, seat.returns) = (Some(now), Some(now + returns.unwrap_or_default()));
                }
            }
        }
    }

    fn count_recovery(&mut self, device: &Device) {
        let recovery = device.room.stats().recovery;
        self.counts.resumed += recovery.resumed;
        self.counts.rejoined += recovery.rejoined;
    }

    /// Nobody is in the room who has been away for too long.
    fn look_for_ghosts(&mut self, now: Timestamp) {
        let is_up = self.relay.is_up();
        let Some(room) =
            self.relay.room().filter(|_| is_up && self.relay_cut.is_none_or(|until| now > until))
        else {
            return;
        };
        let mut ghosts = Vec::new();
        for (who, seat) in self.seats.iter().enumerate() {
            let cut = |device: &Device| device.cut.filter(|(_, until)| now < *until).map(|(since, _)| since);
            let gone = match &seat.devices[..] {
                [] => seat.absent,
                [device] => cut(device),
                _ => None,
            };
            let is_there = room.users.iter().any(|user| user.user.as_str() == user_id(who));
            if is_there && gone.is_some_and(|since| now > since + GHOST_MAX) {
                ghosts.push(format!("p{who} is a ghost: gone since {:?}", gone));
            }
        }
        ghosts.into_iter().for_each(|ghost| self.fault(ghost));
    }

    /// Everybody says something.
    fn begin_last(&mut self) {
        for seat in &mut self.seats {
            if let Some(device) = seat.devices.last_mut() {
                device.say("good night");
            }
        }
    }

    /// Everybody leaves; the relay has to be as empty as it was.
    async fn end(&mut self, sim: &Sim) {
        for who in 0..PEOPLE {
            for device in std::mem::take(&mut self.seats[who].devices) {
                self.counts.frames += device.frames;
                self.count_recovery(&device);
                drop(device.room);
                tokio::spawn(device.engine.close());
            }
        }
        sim.clock().sleep(AFTER).await;
        let left = self.relay.handle().map(RelayHandle::survey);
        if left != Some(Default::default()) {
            self.fault(format!("after everybody left there is {left:?}"));
        }
    }

    fn outcome(mut self, scenario: &Scenario) -> Outcome {
        self.counts.steps = scenario.steps.len();
        self.counts.time = Duration::from_micros(self.sim.clock().now().as_micros());
        let hash = self.hash ^ self.sim.network().trace().hash();
        Outcome { seed: scenario.seed, faults: self.faults, log: self.log, hash, counts: self.counts }
    }
}
