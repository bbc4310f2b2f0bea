//! A healthy call over loopback, alone and beside clients who mean harm: the age of its frames, and the memory of
//! the relay, which runs in a process of its own.
//!
//! Attackers, relay and call share this machine's cores, so that attackers send at rates that are stated, and what an
//! attack costs the call here is more than it would be with the attackers elsewhere. Alone and beside take turns.

pub mod attack;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use parlor_client::publisher::EncodedFrame;
use parlor_client::{
    AppId, Delivery, Engine, JoinOptions, PlayOptions, PublishOptions, Room, Scenario, UserId,
};
use parlor_transport::error::Code;
use parlor_transport::token::claims::Claims;
use parlor_transport::token::keys::{Algorithm, NewKey, SigningKey};
use parlor_transport::units::UnixTime;
use tokio::task::JoinSet;

use crate::quantile::Delays;
use crate::relay_process::{RelayProcess, Which};
use crate::source::{Shape, Source};
use attack::{Kind, Raid, Target};

/// Time for everybody to be there and for rates to settle.
const WARM_UP: Duration = Duration::from_secs(3);
/// After an attack began or ended; what happens in it counts for nobody.
const SETTLE: Duration = Duration::from_millis(500);
/// How often the relay's memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Hostile {
    /// Whom to measure beside.
    pub kinds: Vec<Kind>,
    /// How many are in the call, and publish and play all others.
    pub people: usize,
    /// How often alone and beside take turns.
    pub rounds: usize,
    /// How long each turn is.
    pub length: Duration,
    /// What each of the people sends.
    pub shape: Shape,
}

/// What it gave for one kind.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Beside whom.
    pub kind: Kind,
    /// Frame ages of the turns alone.
    pub alone: Delays,
    /// Frame ages of the turns beside.
    pub beside: Delays,
    /// Frames that should have come in these, about, and did.
    pub due: u64,
    /// See [`due`](Self::due).
    pub delivered: u64,
    /// Resident memory of the relay, in bytes: before the first attack, and the most during them.
    pub memory: Option<(u64, u64)>,
    /// What the attackers did.
    pub attempts: u64,
    /// How their connections ended, by code.
    pub ended: BTreeMap<Code, u64>,
}

impl Outcome {
    /// How much later the 99th percentile of the call's frames is beside than alone.
    pub fn rise(&self) -> Option<Duration> {
        Some(self.beside.quantile(0.99)?.saturating_sub(self.alone.quantile(0.99)?))
    }
}

/// Frame ages by turn; those of no turn go to nobody.
#[derive(Clone, Default)]
struct Ages {
    /// The turn that is being measured, from 1; 0 for none.
    turn: Arc<AtomicUsize>,
    by_turn: Arc<Mutex<BTreeMap<usize, Vec<Duration>>>>,
}

impl Ages {
    fn record(&self, age: Duration) {
        let turn = self.turn.load(Ordering::Relaxed);
        if turn > 0 {
            self.lock().entry(turn).or_default().push(age);
        }
    }

    fn take(&self, turn: usize) -> Vec<Duration> {
        self.lock().remove(&turn).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Vec<Duration>>> {
        self.by_turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keys of the call's app, and what goes with them.
struct Keys {
    secret: String,
    ours: SigningKey,
    theirs: SigningKey,
}

impl Keys {
    fn generate() -> io::Result<Self> {
        let secret = || match NewKey::generate(Algorithm::Hs256).map_err(io::Error::other)? {
            NewKey::Secret(secret) => Ok(secret),
            NewKey::Pair { .. } => Err(io::Error::other("HS256 has a secret")),
        };
        let key = |secret: &str| SigningKey::from_secret(secret).map_err(io::Error::other);
        let own = secret()?;
        Ok(Keys { ours: key(&own)?, theirs: key(&secret()?)?, secret: own })
    }
}

/// Everything, for any room, for longer than a measurement takes.
fn claims(user: &str) -> io::Result<Claims> {
    let failed = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    let user = UserId::new(user).map_err(|error| failed(&error))?;
    let room = "*".parse().map_err(|error| failed(&error))?;
    Ok(Claims { publish: true, ..Claims::new(AppId::dev(), user, room, UnixTime::from_secs(4_000_000_000)) })
}

impl Hostile {
    /// Runs the measurement; `progress` hears of each turn. Takes rounds × kinds × (2 × length + 1 s) and some seconds.
    ///
    /// # Errors
    /// When the relay process does not start or somebody cannot join.
    pub async fn run(&self, progress: impl Fn(&str)) -> io::Result<Vec<Outcome>> {
        let keys = Keys::generate()?;
        let relay = RelayProcess::get(&Which::New, &["--secret".to_owned(), keys.secret.clone()])?;
        let sign = |key: &SigningKey, user: &str| key.sign(&claims(user)?).map_err(io::Error::other);
        let ages = Ages::default();
        let mut call = JoinSet::new();
        let mut kept: Vec<(Engine, Room)> = Vec::new();
        for number in 0..self.people {
            let token = sign(&keys.ours, &person(number))?;
            kept.push(self.enter(&relay, number, token.as_str(), &mut call).await?);
        }
        for (number, (_, room)) in kept.iter().enumerate() {
            self.watch(room, number, &ages, &mut call)?;
        }
        let clock = kept[0].0.clock().clone();
        clock.sleep(WARM_UP).await;

        let target = Target {
            address: relay.address().parse().map_err(|_| io::Error::other("the relay's address is none"))?,
            tokens: (0..attack::USERS.max(attack::CROWD))
                .map(|number| sign(&keys.ours, &attack::user(number)))
                .collect::<Result<_, _>>()?,
            streams: (0..self.people).map(person).collect(),
            forged: sign(&keys.theirs, "forger")?,
        };
        let mut outcomes: Vec<Outcome> = self.kinds.iter().map(|&kind| Outcome::new(kind)).collect();
        let mut turn = 0;
        for round in 1..=self.rounds {
            for outcome in &mut outcomes {
                progress(&format!("round {round} of {}: {}", self.rounds, outcome.kind.name()));
                turn += 1;
                let before = memory(&relay);
                let alone = self.measure(&clock, &ages, turn, || ()).await;
                outcome.alone.join(Delays::new(alone.into_iter().map(Some)));

                let raid = Raid::start(outcome.kind, target.clone())?;
                clock.sleep(SETTLE).await;
                turn += 1;
                let mut most = memory(&relay);
                let beside = self.measure(&clock, &ages, turn, || most = most.max(memory(&relay))).await;
                let spoils = raid.stop();
                most = most.max(memory(&relay));
                outcome.delivered += beside.len() as u64;
                outcome.due += self.due();
                outcome.beside.join(Delays::new(beside.into_iter().map(Some)));
                outcome.attempts += spoils.attempts;
                for (code, count) in spoils.ended {
                    *outcome.ended.entry(code).or_default() += count;
                }
                let (first, highest) = outcome.memory.unzip();
                outcome.memory = first.or(before).zip(highest.max(most));
                clock.sleep(SETTLE).await;
            }
        }
        call.shutdown().await;
        Ok(outcomes)
    }

    /// Frames that are due in one turn: each plays all others.
    fn due(&self) -> u64 {
        let people = self.people as u64;
        let each = self.length.as_secs_f64() * f64::from(self.shape.frames_per_second);
        people * (people - 1) * each.round() as u64
    }

    /// The ages of one turn; `look` is called meanwhile.
    async fn measure(
        &self,
        clock: &parlor_transport::clock::Clock,
        ages: &Ages,
        turn: usize,
        mut look: impl FnMut(),
    ) -> Vec<Duration> {
        let end = clock.now() + self.length;
        ages.turn.store(turn, Ordering::Relaxed);
        while clock.now() < end {
            clock.sleep_until(end.min(clock.now() + MEMORY_INTERVAL)).await;
            look();
        }
        ages.turn.store(0, Ordering::Relaxed);
        ages.take(turn)
    }

    /// Somebody who publishes a stream.
    async fn enter(
        &self,
        relay: &RelayProcess,
        number: usize,
        token: &str,
        call: &mut JoinSet<()>,
    ) -> io::Result<(Engine, Room)> {
        let failed = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
        let name = person(number);
        let engine = Engine::new(Scenario::StandardCall).map_err(|error| failed(&error))?;
        let options = JoinOptions::new(relay.address(), &name).token(token);
        let room = engine.join(options).map_err(|error| failed(&error))?;
        let options = PublishOptions::new(name).video("bench").delivery(Delivery::Adaptive);
        let publisher = room.publish(options).map_err(|error| failed(&error))?;
        publisher.publishing().await.map_err(|error| failed(&error))?;
        let (clock, shape) = (engine.clock().clone(), self.shape);
        let start = engine.now();
        call.spawn(async move {
            let mut source = Source::new(shape);
            for number in 0u32.. {
                let captured = start + shape.interval() * number;
                clock.sleep_until(captured).await;
                if !publisher.take_keyframe_requests().is_empty() {
                    source.force_keyframe();
                }
                let made = source.make();
                let frame = EncodedFrame::new(0, captured, made.payload);
                _ = publisher.send_frame(EncodedFrame { keyframe: made.keyframe, ..frame });
            }
        });
        Ok((engine, room))
    }

    /// Plays the streams of the others.
    fn watch(&self, room: &Room, number: usize, ages: &Ages, call: &mut JoinSet<()>) -> io::Result<()> {
        for other in (0..self.people).filter(|&other| other != number) {
            let player = room.play(person(other), PlayOptions::new()).map_err(io::Error::other)?;
            let ages = ages.clone();
            call.spawn(async move {
                let mut frames = player.frames();
                while let Some(frame) = frames.next().await {
                    ages.record(frame.age());
                }
            });
        }
        Ok(())
    }
}

/// Who is in the call.
fn person(number: usize) -> String {
    format!("person-{number}")
}

/// Its resident memory now, in bytes.
fn memory(relay: &RelayProcess) -> Option<u64> {
    relay.usage().map(|usage| usage.memory)
}

impl Outcome {
    fn new(kind: Kind) -> Self {
        Outcome {
            kind,
            alone: Delays::new([]),
            beside: Delays::new([]),
            due: 0,
            delivered: 0,
            memory: None,
            attempts: 0,
            ended: BTreeMap::new(),
        }
    }
}
