//! Calls of ten people to whom everything happens at once, in virtual time on the real stack, and what has to be true
//! afterwards. A seed is a run: `make chaos SEEDS=17` repeats it.
//!
//! [`scenario`] decides what happens, [`world`] carries it out, [`device`] is the app of each person, [`checker`] says
//! what is wrong.

pub mod checker;
pub mod device;
pub mod frames;
pub mod relay;
pub mod scenario;
mod verdict;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use parlor_transport::sim::Simulation;

use scenario::Scenario;

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What was wrong; nothing if all was well.
    pub faults: Vec<String>,
    /// What happened, with virtual times.
    pub log: Vec<String>,
    /// Of every packet and every delivery: two runs of one seed have the same.
    pub hash: u64,
    /// How much happened.
    pub counts: Counts,
}

/// See [`Outcome::counts`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Steps of the scenario.
    pub steps: usize,
    /// Virtual time.
    pub time: Duration,
    /// Frames that came to a player.
    pub frames: u64,
    /// Sessions that went on with another connection.
    pub resumed: u32,
    /// Rooms joined anew by a client itself.
    pub rejoined: u32,
    /// Devices that were in the call.
    pub devices: u32,
}

/// Runs the scenario of a seed.
pub fn run(seed: u64) -> Outcome {
    let scenario = Scenario::new(seed);
    let simulation = Simulation::new(seed).time_max(Duration::from_secs(300));
    let ran =
        catch_unwind(AssertUnwindSafe(|| simulation.run(async |sim| world::run(&sim, &scenario).await)));
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of an unknown kind");
        Outcome {
            seed,
            faults: vec![format!("a panic: {text}")],
            log: scenario.steps.iter().map(ToString::to_string).collect(),
            hash: 0,
            counts: Counts { steps: scenario.steps.len(), ..Counts::default() },
        }
    })
}

impl Outcome {
    /// The command that repeats it.
    pub fn command(&self) -> String {
        format!("make chaos SEEDS={}", self.seed)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { steps, time, frames, resumed, rejoined, devices } = self.counts;
        let verdict = if self.faults.is_empty() { "ok " } else { "RED" };
        write!(
            f,
            "{verdict} seed {:4}: {steps} steps in {:.0} s, {devices} devices, {frames} frames, {resumed} resumed, \
             {rejoined} rejoined, hash {:016x}",
            self.seed,
            time.as_secs_f64(),
            self.hash
        )?;
        for fault in &self.faults {
            write!(f, "\n    {fault}")?;
        }
        if !self.faults.is_empty() {
            write!(f, "\n    again: {}", self.command())?;
        }
        Ok(())
    }
}
