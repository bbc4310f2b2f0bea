//! If this fails, a relay whose machine is too slow leaves out something else than it says, something that people need,
//! or does not give it back. The real stack in virtual time.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use parlor_client::player::ReceivedFrame;
use parlor_client::publisher::EncodedFrame;
use parlor_client::room::RoomEvent;
use parlor_client::{PlayOptions, Player, PublishOptions, Publisher, Room, Timestamp};
use parlor_relay::RelayHandle;
use parlor_relay::overload::Shed;
use parlor_tests::world::{Person, World};
use parlor_transport::clock::Clock;
use parlor_transport::error::Code;
use parlor_transport::sim::{self, Loss, Profile, Sim};

const SOUND: Duration = Duration::from_millis(20);
const SOUND_TRACK: u8 = 0;
const VIDEO_TRACK: u8 = 1;
/// Streams, all of them played by one.
const STREAMS: usize = 4;
/// Of what happens within this after a change nothing is asserted: layers change at keyframes.
const SETTLING: Duration = Duration::from_millis(1500);
const PHASE: Duration = Duration::from_secs(4);

fn link() -> Profile {
    Profile::perfect().with_rtt(Duration::from_millis(40))
}

/// 50 frames of sound a second, and 25 pictures in two sizes, every other one of the higher rate, every fourth discardable.
/// A keyframe comes first, and when somebody asks for one.
async fn film(publisher: Arc<Publisher>, clock: Clock, asked: Arc<Mutex<usize>>) {
    let start = clock.now();
    let mut due = [true; 2];
    for number in 0u32.. {
        clock.sleep_until(start + SOUND * number).await;
        let now = publisher.now();
        _ = publisher.send_frame(EncodedFrame::new(SOUND_TRACK, now, vec![1; 60]));
        if number % 2 == 1 {
            continue;
        }
        for request in publisher.take_keyframe_requests() {
            due[usize::from(request.spatial)] = true;
            *asked.lock().unwrap() += 1;
        }
        let picture = number / 2;
        for spatial in 0..2 {
            let keyframe = std::mem::take(&mut due[usize::from(spatial)]);
            let frame = EncodedFrame {
                spatial,
                temporal: if keyframe { 0 } else { (picture % 2) as u8 },
                discardable: !keyframe && picture % 4 == 2,
                keyframe,
                ..EncodedFrame::new(VIDEO_TRACK, now, vec![2; 900])
            };
            _ = publisher.send_frame(frame);
        }
    }
}

type Seen = Arc<Mutex<Vec<ReceivedFrame>>>;

/// Spatial and temporal layer, and whether discardable.
type Kind = (u8, u8, bool);
/// Which kinds of pictures come, and how many of them.
type Pictures = &'static [(Kind, usize)];

/// What came between two moments, by kind, and how old it was.
#[derive(Debug)]
struct Phase {
    sound: usize,
    sound_age_p99: Duration,
    missed: u64,
    pictures: BTreeMap<Kind, usize>,
}

fn phase(seen: &Seen, from: Timestamp, until: Timestamp) -> Phase {
    let seen = seen.lock().unwrap();
    let within = |frame: &&ReceivedFrame| (from..until).contains(&frame.captured);
    let mut phase = Phase { sound: 0, sound_age_p99: Duration::ZERO, missed: 0, pictures: BTreeMap::new() };
    let mut ages = Vec::new();
    for frame in seen.iter().filter(within) {
        let header = &frame.header;
        phase.missed += frame.missed;
        if header.track == SOUND_TRACK {
            phase.sound += 1;
            ages.push(frame.age());
        } else {
            let kind = (header.spatial, header.temporal, header.discardable);
            *phase.pictures.entry(kind).or_default() += 1;
        }
    }
    ages.sort_unstable();
    phase.sound_age_p99 = ages[ages.len() * 99 / 100];
    phase
}

struct Stage {
    world: World,
    _people: Vec<(Person, Room)>,
    _viewer: Person,
    viewer: Room,
    /// How much longer than on a clean link something may take that has to be sent again.
    slack: Duration,
    players: Vec<Arc<Player>>,
    seen: Vec<Seen>,
    levels: Arc<Mutex<Vec<u8>>>,
    /// Keyframes that the publishers were asked for.
    asked: Arc<Mutex<usize>>,
}

impl Stage {
    /// Somebody who plays the streams of the others, the first of them first.
    async fn new(sim: &Sim, viewing: Profile) -> Self {
        let is_clean = matches!(viewing.down.loss, Loss::None);
        let slack = if is_clean { Duration::ZERO } else { Duration::from_millis(200) };
        let world = World::new(sim).await;
        let clock = sim.clock();
        let asked = Arc::<Mutex<usize>>::default();
        let mut people = Vec::new();
        for number in 0..STREAMS {
            let person = world.person(&format!("p{number}"), link());
            let room = person.join(&world);
            let options = PublishOptions::new(format!("s{number}")).audio("test").video("test").layers(2, 2);
            let publisher = Arc::new(room.publish(options).unwrap());
            publisher.publishing().await.unwrap();
            tokio::spawn(film(publisher, clock.clone(), asked.clone()));
            people.push((person, room));
        }
        let person = world.person("viewer", viewing);
        let viewer = person.join(&world);
        viewer.joined().await.unwrap();
        let mut events = viewer.events();
        let levels = Arc::<Mutex<Vec<u8>>>::default();
        let told = levels.clone();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if let RoomEvent::RelayOverloaded { level } = event {
                    told.lock().unwrap().push(level);
                }
            }
        });
        let (mut players, mut seen) = (Vec::new(), Vec::new());
        for number in 0..STREAMS {
            let player = Arc::new(viewer.play(format!("s{number}"), PlayOptions::new()).unwrap());
            player.playing().await.unwrap();
            let (mut frames, list) = (player.frames(), Seen::default());
            seen.push(list.clone());
            tokio::spawn(async move {
                while let Some(frame) = frames.next().await {
                    list.lock().unwrap().push(frame);
                }
            });
            players.push(player);
            clock.sleep(Duration::from_millis(100)).await;
        }
        clock.sleep(SETTLING).await;
        Stage { world, _people: people, _viewer: person, viewer, slack, players, seen, levels, asked }
    }

    /// Leaves this out for a while; gives what came of each stream when that had settled.
    async fn live(&self, shed: Shed) -> Vec<Phase> {
        let clock = self.world.sim.clock();
        self.world.relay.force_overload(Some(shed));
        clock.sleep(SETTLING).await;
        let from = clock.now();
        clock.sleep(PHASE / 2).await;
        self.meet().await;
        clock.sleep_until(from + PHASE).await;
        self.seen.iter().map(|seen| phase(seen, from, from + PHASE - Duration::from_millis(200))).collect()
    }

    /// Somebody comes, asks for something and goes again: as fast as ever.
    async fn meet(&self) {
        let clock = self.world.sim.clock();
        let mut events = self.viewer.events();
        let began = clock.now();
        let name = format!("guest-{}", began.as_micros());
        let guest = self.world.person(&name, link());
        let room = guest.join(&self.world);
        room.joined().await.unwrap();
        assert!(clock.now().saturating_since(began) <= Duration::from_millis(130) + self.slack, "a join");
        let is_guest = |event: &RoomEvent| event.added_users().iter().any(|user| user.user.as_str() == name);
        let is_gone = |event: &RoomEvent| event.removed_users().iter().any(|user| user.user.as_str() == name);
        while !is_guest(&events.next().await.unwrap()) {}
        assert!(
            clock.now().saturating_since(began) <= Duration::from_millis(170) + self.slack,
            "others hear of it"
        );
        let asked = clock.now();
        room.set_info("topic", format!("{asked:?}")).unwrap().done().await.unwrap();
        assert!(clock.now().saturating_since(asked) <= Duration::from_millis(41) + self.slack, "an answer");
        let left = clock.now();
        room.leave().await.unwrap();
        while !is_gone(&events.next().await.unwrap()) {}
        assert!(
            clock.now().saturating_since(left) <= Duration::from_millis(61) + self.slack,
            "others hear of the end"
        );
    }
}

/// Of each kind so many come in a phase; all of them, give or take those at its ends.
fn comes(phase: &Phase, kinds: Pictures) -> bool {
    let near = |kind: &Kind, each: usize| phase.pictures.get(kind).is_some_and(|n| n.abs_diff(each) <= 2);
    phase.pictures.len() == kinds.len() && kinds.iter().all(|(kind, each)| near(kind, *each))
}

#[test]
fn each_level_leaves_out_what_it_says_and_sound_roster_and_answers_stay_as_they_are() {
    sim::run(1, async |sim| {
        let stage = Stage::new(&sim, link()).await;
        // Two of four pictures belong to the higher rate, one of the others is discardable: 25 a second for 3.8 s.
        let all: Pictures = &[((1, 0, false), 24), ((1, 0, true), 24), ((1, 1, false), 47)];
        let small: Pictures = &[((0, 0, false), 24), ((0, 0, true), 24)];
        let least: Pictures = &[((0, 0, false), 24)];
        let mut ages = Vec::new();
        let mut check = |level: &str, phases: &[Phase], expected: &[Pictures; STREAMS]| {
            for (phase, kinds) in phases.iter().zip(expected) {
                assert!(comes(phase, kinds), "{level}: {phase:?}");
                assert!(phase.sound.abs_diff(190) <= 1 && phase.missed == 0, "{level}: {phase:?}");
            }
            ages.push(phases.iter().map(|phase| phase.sound_age_p99).max().unwrap());
        };
        let cut = |relay: &RelayHandle| relay.counters().frames_cut;
        let asked = || std::mem::take(&mut *stage.asked.lock().unwrap());
        let relay = &stage.world.relay;

        check("0", &stage.live(Shed::NONE).await, &[all; STREAMS]);
        check("1", &stage.live(Shed::from_level(1).unwrap()).await, &[all; STREAMS]);
        assert_eq!(cut(relay), Default::default());
        asked();
        check("2", &stage.live(Shed::from_level(2).unwrap()).await, &[small; STREAMS]);
        assert_eq!(asked(), STREAMS, "a keyframe of each smaller one");
        let two = cut(relay);
        assert!(two.layers > 0 && (two.discardable, two.video) == (0, 0), "{two:?}");
        check("3", &stage.live(Shed::from_level(3).unwrap()).await, &[least; STREAMS]);
        assert_eq!(asked(), 0);
        let three = cut(relay);
        assert!(three.discardable > 0 && three.video == 0, "{three:?}");
        // Somebody looks at the first one again: so the second and third are those of least interest.
        stage.players[0].update(PlayOptions::new().layers_max(VIDEO_TRACK, 3, 3));
        sim.clock().sleep(Duration::from_millis(100)).await;
        check("4, half", &stage.live(Shed::from_share(4).unwrap()).await, &[least, &[], &[], least]);
        check("4", &stage.live(Shed::ALL).await, &[&[]; STREAMS]);
        assert!(cut(relay).video > 0);
        assert_eq!(asked(), 0);
        check("0 again", &stage.live(Shed::NONE).await, &[all; STREAMS]);
        assert_eq!(asked(), STREAMS, "a keyframe of each larger one");

        assert!(ages.iter().all(|age| *age == ages[0]), "sound is as old as ever: {ages:?}");
        println!("p99 age of sound at the levels 0, 1, 2, 3, 4 (half), 4, 0: {ages:?}");
        assert_eq!(*stage.levels.lock().unwrap(), [1, 2, 3, 4, 0]);
        // Of the higher rate, until the keyframe that brought it back.
        assert!(relay.counters().frames_skipped <= 2 * STREAMS as u64, "nothing else was left out");
    });
}

#[test]
fn without_parity_what_is_lost_comes_after_a_report_and_sound_as_before() {
    sim::run(2, async |sim| {
        let mut lossy = link();
        lossy.down.loss = Loss::Random(0.05);
        let stage = Stage::new(&sim, lossy).await;
        let sent = || {
            let all = stage.world.relay.sent();
            let sum =
                |count: fn(&parlor_transport::hop::SendStats) -> u64| all.iter().map(count).sum::<u64>();
            (sum(|sent| sent.parity), sum(|sent| sent.repair))
        };
        let lost = |phases: &[Phase]| {
            let (missed, sound): (u64, usize) =
                (phases.iter().map(|phase| phase.missed).sum(), phases.iter().map(|phase| phase.sound).sum());
            (missed, sound, phases.iter().map(|phase| phase.sound_age_p99).max().unwrap())
        };
        stage.live(Shed::NONE).await;
        let before = sent();
        let with = lost(&stage.live(Shed::NONE).await);
        let between = sent();
        let level = Shed::from_level(1).unwrap();
        stage.live(level).await;
        let still = sent();
        let without = lost(&stage.live(level).await);
        let after = sent();
        println!(
            "bytes of parity and repair in a phase: {} and {}, without parity {} and {}; missed, sound, its p99 age: \
             {with:?}, {without:?}",
            between.0 - before.0,
            between.1 - before.1,
            after.0 - still.0,
            after.1 - still.1,
        );
        assert!(between.0 > before.0, "there was parity to be left out");
        assert_eq!(after.0, still.0);
        assert!(after.1 - still.1 > between.1 - before.1, "losses are repaired all the same");
        assert!(with.0 <= 2 && without.0 <= 2 && without.1.abs_diff(with.1) <= 8, "{with:?}, {without:?}");
        assert!(without.2 <= with.2 + Duration::from_millis(5), "{with:?}, {without:?}");
        stage.live(Shed::NONE).await;
        assert!(sent().0 > after.0, "it comes back");
    });
}

/// A machine on which everything stands still for a while again and again: whoever asks to be woken in 20 ms is 15 ms late
/// where that is 35 ms.
async fn struggle(sim: &Sim, pause: Duration, duration: Duration) {
    let end = sim.clock().now() + duration;
    while sim.clock().now() < end {
        // Of tokio's time, which goes a hundred times as fast.
        tokio::time::advance(pause * 100).await;
        sim.clock().sleep(Duration::from_micros(10)).await;
    }
}

#[test]
fn a_machine_that_is_too_slow_is_noticed_and_one_that_is_not_any_more_is_too() {
    sim::run(3, async |sim| {
        let stage = Stage::new(&sim, link()).await;
        let relay = &stage.world.relay;
        let clock = sim.clock();
        assert_eq!(relay.overload().shed, Shed::NONE);
        let (slow, too_slow) = (Duration::from_millis(35), Duration::from_millis(45));
        struggle(&sim, slow, Duration::from_secs(2)).await;
        let shed = relay.overload().shed;
        assert!(shed.level() == 4 && shed < Shed::ALL, "{:?}", relay.overload());
        struggle(&sim, slow, Duration::from_secs(8)).await;
        assert!(relay.overload().shed == Shed::ALL && !relay.overload().is_full, "{:?}", relay.overload());
        struggle(&sim, too_slow, Duration::from_secs(7)).await;
        assert!(relay.overload().is_full, "{:?}", relay.overload());
        // Who is here stays and has its sound; who wants to come is told why not.
        let guest = stage.world.person("guest", link());
        let refused = guest.join(&stage.world).joined().await.unwrap_err();
        assert_eq!((refused.code, refused.code.is_retryable()), (Code::RelayOverloaded, true));
        clock.sleep(Duration::from_secs(1)).await;
        let from = clock.now();
        clock.sleep(Duration::from_secs(1)).await;
        for seen in &stage.seen {
            assert!(phase(seen, from, from + Duration::from_millis(800)).sound >= 39);
        }
        clock.sleep(Duration::from_secs(30)).await;
        assert_eq!((relay.overload().shed, relay.overload().is_full), (Shed::NONE, false));
        let from = clock.now();
        clock.sleep(Duration::from_secs(1)).await;
        for seen in &stage.seen {
            let phase = phase(seen, from, from + Duration::from_millis(800));
            assert!(phase.pictures.keys().any(|kind| kind.0 == 1) && phase.missed == 0, "{phase:?}");
        }
        assert_eq!(*stage.levels.lock().unwrap(), [1, 2, 3, 4, 3, 2, 1, 0]);
        stage.meet().await;
    });
}
