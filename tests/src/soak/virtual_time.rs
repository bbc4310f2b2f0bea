//! A soak on the simulated network: hours in minutes, exact and repeatable but for the machine's own memory.

use std::sync::Arc;
use std::time::Duration;

use parlor_relay::lobby::Survey;
use parlor_transport::sim::{Profile, Sim, Simulation};
use peak_alloc::PeakAlloc;
use tokio::runtime::Handle;

use super::Load;
use super::figures::{Deeds, Series, resident};
use super::life::{Link, Person};
use crate::world::World;

/// Time for everything to end in by itself after the last person left: a session that was lost is kept for 10 s.
const SETTLE: Duration = Duration::from_secs(30);
/// Between two looks at memory.
const LOOK: Duration = Duration::from_secs(60);
/// Memory may rise by this share of itself, and by [`RISE_BYTES`], before it counts as growing: at full load some
/// hundred frames are under way and in caches, more at one time than at another.
const RISE_SHARE: f64 = 0.10;
/// See [`RISE_SHARE`]: what a thousand forgotten sessions would take.
const RISE_BYTES: f64 = 4.0 * 1024.0 * 1024.0;

/// Runs for `hours` of virtual time and prints what happened. Gives what is wrong; nothing when all is well.
///
/// # Panics
/// When a part of it does.
pub fn run(load: Load, hours: f64, seed: u64, heap: PeakAlloc) -> Vec<String> {
    let length = Duration::from_secs_f64(hours * 3600.0);
    let simulation = Simulation::new(seed).time_max(length + 10 * SETTLE);
    simulation.run(async |sim| soak(&sim, load, length, heap).await)
}

async fn soak(sim: &Sim, load: Load, length: Duration, heap: PeakAlloc) -> Vec<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long it takes on this machine is said, and decides nothing"
    )]
    let began = std::time::Instant::now();
    #[expect(clippy::disallowed_methods, reason = "as above")]
    let took = || began.elapsed().as_secs_f64();
    let clock = sim.clock().clone();
    let world = World::new(sim).await;
    // The relay is up and nobody has come.
    clock.sleep(Duration::from_secs(1)).await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let tasks_before = tasks();
    let load = Arc::new(load);
    let deeds = Arc::<Deeds>::default();
    let until = clock.now() + length;
    let address = parlor_transport::address::RelayAddress { room: None, ..world.address.clone() };
    let mut people = tokio::task::JoinSet::new();
    for number in 0..load.users {
        // Links of all kinds, so that repair, resends and late packets take part.
        let link = [
            Profile::perfect().with_rtt(Duration::from_millis(20)),
            Profile::wifi(),
            Profile::wifi_lossy(),
            Profile::mobile(),
        ][number % 4]
            .clone();
        let person = Person {
            number,
            link: Link::Simulated(sim.host(&format!("host{number}"), link)),
            load: load.clone(),
            deeds: deeds.clone(),
            clock: clock.clone(),
            rng: sim.rng(&format!("life{number}")),
            address: address.to_string(),
            until,
        };
        people.spawn(person.live());
    }

    let (mut heap_used, mut resident_used) = (Series::default(), Series::default());
    let mut log_bytes_most = 0;
    let mut looks = 0;
    let mut wrong = Vec::new();
    while clock.now() < until {
        clock.sleep(LOOK.min(until.saturating_since(clock.now()))).await;
        let at = clock.now().as_micros() as f64 / 3.6e9;
        heap_used.push(at, heap.current_usage());
        if let Some(bytes) = resident(None) {
            resident_used.push(at, bytes);
        }
        let survey = world.relay.survey();
        log_bytes_most = log_bytes_most.max(survey.log_bytes);
        looks += 1;
        if looks % 10 == 0 {
            println!(
                "{at:6.2} h, {:5.0} s of real time: {} users, {} streams, {} players, {} parked, log {} KiB, heap {} KiB, \
                 resident {} KiB, {} tasks",
                took(),
                survey.users,
                survey.streams,
                survey.players,
                survey.parked,
                survey.log_bytes / 1024,
                heap.current_usage() / 1024,
                resident(None).unwrap_or(0) / 1024,
                tasks(),
            );
        }
        if people.is_empty() {
            break;
        }
    }
    while let Some(ended) = people.join_next().await {
        if let Err(error) = ended {
            wrong.push(format!("somebody's life ended with {error}"));
        }
    }
    clock.sleep(SETTLE).await;

    println!(
        "{:.2} h of virtual time in {:.0} s of real time: {}",
        clock.now().as_micros() as f64 / 3.6e9,
        took(),
        deeds.to_line()
    );
    let survey = world.relay.survey();
    println!("left over: {survey:?}, tasks {} (before: {tasks_before})", tasks());
    println!("event logs at most {} KiB", log_bytes_most / 1024);
    if survey != Survey::default() {
        wrong.push(format!("left over at the relay: {survey:?}"));
    }
    if tasks() != tasks_before {
        wrong.push(format!("{} tasks where {tasks_before} were before anybody came", tasks()));
    }
    for (name, series) in [("heap", &heap_used), ("resident", &resident_used)] {
        let Some(trend) = series.trend() else {
            println!("{name}: too few looks for a trend");
            continue;
        };
        println!("{}", trend.to_line(name));
        if trend.grows(RISE_SHARE, RISE_BYTES) {
            wrong.push(format!("memory grows: {}", trend.to_line(name)));
        }
    }
    super::figures::check_deeds(&deeds, &mut wrong);
    wrong
}
