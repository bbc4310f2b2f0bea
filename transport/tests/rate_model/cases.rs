//! The cases that the goals of rate control are stated for, and the figures of one run of each.

use std::fmt;

use super::{Flow, Link, jain, run};

/// A figure with its goal.
#[derive(Clone, Copy)]
pub struct Figure {
    pub what: &'static str,
    pub value: f64,
    pub goal: Goal,
}

#[derive(Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    Within(f64, f64),
    /// For information.
    None,
}

impl Figure {
    fn new(what: &'static str, value: f64, goal: Goal) -> Self {
        Figure { what, value, goal }
    }

    fn for_information(self) -> Self {
        Figure { goal: Goal::None, ..self }
    }

    pub fn is_met(&self) -> bool {
        match self.goal {
            Goal::AtMost(max) => self.value <= max,
            Goal::AtLeast(min) => self.value >= min,
            Goal::Within(min, max) => (min..=max).contains(&self.value),
            Goal::None => true,
        }
    }

    fn worse(self, other: Figure) -> Figure {
        let badness = |figure: &Figure| match figure.goal {
            Goal::AtMost(_) | Goal::None => figure.value,
            Goal::AtLeast(_) => -figure.value,
            Goal::Within(min, max) => (figure.value - (min + max) / 2.0).abs(),
        };
        if badness(&other) > badness(&self) { other } else { self }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let met = if self.is_met() { "met" } else { "**missed**" };
        write!(f, "{} | {:.2} | ", self.what, self.value)?;
        match self.goal {
            Goal::AtMost(max) => write!(f, "≤ {max} | {met}"),
            Goal::AtLeast(min) => write!(f, "≥ {min} | {met}"),
            Goal::Within(min, max) => write!(f, "{min}–{max} | {met}"),
            Goal::None => write!(f, "– | –"),
        }
    }
}

pub type Case = fn(u64) -> Vec<Figure>;

/// The worst figure of each kind over so many seeds.
pub fn worst(case: Case, seeds: u64) -> Vec<Figure> {
    (1..=seeds)
        .map(case)
        .reduce(|a, b| a.into_iter().zip(b).map(|(a, b)| a.worse(b)).collect())
        .unwrap_or_default()
}

pub const ALL: &[(&str, Case)] = &[
    ("3 Mbit/s, RTT 50", |seed| steady(3_000_000, 50, seed)),
    ("3 Mbit/s, RTT 100", |seed| steady(3_000_000, 100, seed)),
    ("1.5 Mbit/s, RTT 50", |seed| steady(1_500_000, 50, seed)),
    ("1.5 Mbit/s, RTT 100", |seed| steady(1_500_000, 100, seed)),
    ("10 Mbit/s, RTT 50", |seed| steady(10_000_000, 50, seed)),
    ("500 kbit/s, RTT 50", |seed| {
        steady(500_000, 50, seed).into_iter().map(Figure::for_information).collect()
    }),
    ("3→1→3 Mbit/s", step),
    ("3 Mbit/s, 2 % loss", |seed| lossy(0.02, 0.9, seed)),
    ("3 Mbit/s, 5 % loss", |seed| lossy(0.05, 0.9, seed)),
    ("3 Mbit/s, 20 % loss", |seed| lossy(0.2, 0.8, seed)),
    ("3 Mbit/s, 50 % loss", |seed| lossy(0.5, 0.5, seed)),
    ("3 Mbit/s, 20 % loss before it", lossy_before),
    ("return jitter 15 ms", return_jitter),
    ("forward jitter 5 ms", forward_jitter),
    ("60 ms buffer", |seed| shallow(60, seed)),
    ("20 ms buffer", |seed| shallow(20, seed)),
    ("1 Mbit/s media on 10 Mbit/s", unused),
    ("RFC 8867 5.1", rfc8867_5_1),
    ("RFC 8867 5.2", rfc8867_5_2),
    ("RFC 8867 5.4", rfc8867_5_4),
    ("one Cubic flow, RTT 50", |seed| against_cubic(50, seed)),
    ("one Cubic flow, RTT 100", |seed| against_cubic(100, seed)),
    ("a Cubic flow that goes again", cubic_leaves),
];

fn steady(rate: u64, rtt_ms: u64, seed: u64) -> Vec<Figure> {
    let outcome = run(&Link::new(rate, rtt_ms), &[Flow::media(0.0)], 120.0, seed);
    vec![
        Figure::new("used, %", 100.0 * outcome.utilisation(5.0, 120.0), Goal::AtLeast(90.0)),
        Figure::new("queue p50, ms", outcome.queue_ms(5.0, 120.0, 0.5), Goal::AtMost(15.0)),
        Figure::new("queue p95, ms", outcome.queue_ms(5.0, 120.0, 0.95), Goal::AtMost(45.0)),
        Figure::new("age p95, ms", outcome.age_ms(5.0, 120.0, 0.95), Goal::None),
        Figure::new("90 % reached after, s", outcome.reached(0, 0.0, 0.9), Goal::AtMost(3.0)),
        Figure::new("frames skipped, %", outcome.skipped[0] as f64 / 36.0, Goal::None),
    ]
}

fn lossy(loss: f64, goal: f64, seed: u64) -> Vec<Figure> {
    let link = Link { loss, return_loss: loss, ..Link::new(3_000_000, 50) };
    let outcome = run(&link, &[Flow::media(0.0)], 120.0, seed);
    vec![
        Figure::new("used, %", 100.0 * outcome.utilisation(5.0, 120.0), Goal::AtLeast(100.0 * goal)),
        Figure::new("queue p95, ms", outcome.queue_ms(5.0, 120.0, 0.95), Goal::None),
        Figure::new("loss estimate, %", 100.0 * outcome.loss_estimates[0], Goal::None),
    ]
}

fn lossy_before(seed: u64) -> Vec<Figure> {
    let link = Link { loss_before: 0.2, return_loss: 0.2, ..Link::new(3_000_000, 50) };
    let outcome = run(&link, &[Flow::media(0.0)], 120.0, seed);
    vec![
        Figure::new("used, %", 100.0 * outcome.utilisation(5.0, 120.0), Goal::AtLeast(80.0)),
        Figure::new("queue p95, ms", outcome.queue_ms(5.0, 120.0, 0.95), Goal::AtMost(45.0)),
    ]
}

fn step(seed: u64) -> Vec<Figure> {
    let mut link = Link::new(3_000_000, 50);
    link.rates = vec![(0.0, 3_000_000), (30.0, 1_000_000), (60.0, 3_000_000)];
    let outcome = run(&link, &[Flow::media(0.0)], 90.0, seed);
    vec![
        Figure::new("queue < 60 ms after, s", outcome.queue_below_from(30.0, 33.9, 60.0), Goal::AtMost(1.0)),
        Figure::new("oldest packet, ms", outcome.age_max_ms(30.0, 60.0), Goal::AtMost(600.0)),
        Figure::new("used at 1 Mbit/s, %", 100.0 * outcome.utilisation(32.0, 60.0), Goal::AtLeast(90.0)),
        Figure::new("back at 85 % after, s", outcome.reached(0, 60.0, 0.85), Goal::AtMost(6.0)),
        Figure::new("queue p95 after, ms", outcome.queue_ms(60.0, 90.0, 0.95), Goal::None),
    ]
}

fn return_jitter(seed: u64) -> Vec<Figure> {
    let link = Link { return_jitter_ms: 15.0, ..Link::new(3_000_000, 50) };
    let outcome = run(&link, &[Flow::media(0.0)], 120.0, seed);
    vec![
        Figure::new("used, %", 100.0 * outcome.utilisation(5.0, 120.0), Goal::AtLeast(95.0)),
        Figure::new("queue p95, ms", outcome.queue_ms(5.0, 120.0, 0.95), Goal::None),
    ]
}

fn forward_jitter(seed: u64) -> Vec<Figure> {
    let link = Link { jitter_ms: 5.0, ..Link::new(3_000_000, 50) };
    let outcome = run(&link, &[Flow::media(0.0)], 120.0, seed);
    vec![
        Figure::new("used, %", 100.0 * outcome.utilisation(5.0, 120.0), Goal::AtLeast(85.0)),
        Figure::new("queue p95, ms", outcome.queue_ms(5.0, 120.0, 0.95), Goal::None),
    ]
}

fn shallow(buffer_ms: u64, seed: u64) -> Vec<Figure> {
    let link = Link { buffer_ms, ..Link::new(3_000_000, 50) };
    let outcome = run(&link, &[Flow::media(0.0)], 120.0, seed);
    let share = outcome.dropped as f64 / outcome.passed.len() as f64;
    vec![
        Figure::new("used, %", 100.0 * outcome.utilisation(5.0, 120.0), Goal::AtLeast(90.0)),
        Figure::new("dropped, %", 100.0 * share, Goal::None),
    ]
}

fn unused(seed: u64) -> Vec<Figure> {
    let flow = Flow::Media { start: 0.0, keyframe_every: Some(4.0), source_max: 1_000_000 };
    let outcome = run(&Link::new(10_000_000, 50), &[flow], 120.0, seed);
    vec![
        Figure::new("age p50, ms", outcome.age_ms(5.0, 120.0, 0.5), Goal::None),
        Figure::new("age p95, ms", outcome.age_ms(5.0, 120.0, 0.95), Goal::None),
        Figure::new("age p99, ms", outcome.age_ms(5.0, 120.0, 0.99), Goal::None),
    ]
}

fn rfc8867_5_1(seed: u64) -> Vec<Figure> {
    let mut link = Link::new(1_000_000, 100);
    link.rates = vec![(0.0, 1_000_000), (40.0, 2_500_000), (60.0, 600_000), (80.0, 1_000_000)];
    let outcome = run(&link, &[Flow::media(0.0)], 100.0, seed);
    let used = |from, to| 100.0 * outcome.utilisation(from, to);
    vec![
        Figure::new("used 1.0 Mbit/s, %", used(0.0, 40.0), Goal::AtLeast(90.0)),
        Figure::new("used 2.5 Mbit/s, %", used(40.0, 60.0), Goal::AtLeast(80.0)),
        Figure::new("used 0.6 Mbit/s, %", used(60.0, 80.0), Goal::AtLeast(78.0)),
        Figure::new("used 1.0 Mbit/s again, %", used(80.0, 100.0), Goal::AtLeast(85.0)),
        Figure::new("queue p95, ms", outcome.queue_ms(5.0, 100.0, 0.95), Goal::None),
    ]
}

fn rfc8867_5_2(seed: u64) -> Vec<Figure> {
    let mut link = Link::new(4_000_000, 100);
    link.rates =
        vec![(0.0, 4_000_000), (25.0, 2_000_000), (50.0, 3_500_000), (75.0, 1_000_000), (100.0, 2_000_000)];
    let outcome = run(&link, &[Flow::media(0.0), Flow::media(0.0)], 125.0, seed);
    let shares = [outcome.throughput(0, 25.0, 125.0), outcome.throughput(1, 25.0, 125.0)];
    vec![
        Figure::new("used, %", 100.0 * outcome.utilisation(5.0, 125.0), Goal::AtLeast(85.0)),
        Figure::new("Jain 25–125 s", jain(&shares), Goal::AtLeast(0.9)),
        Figure::new("queue p95, ms", outcome.queue_ms(5.0, 125.0, 0.95), Goal::None),
    ]
}

fn rfc8867_5_4(seed: u64) -> Vec<Figure> {
    let flows = [Flow::media(0.0), Flow::media(20.0), Flow::media(40.0)];
    let outcome = run(&Link::new(3_500_000, 100), &flows, 120.0, seed);
    let shares = |from, to| [0, 1, 2].map(|flow| outcome.throughput(flow, from, to));
    vec![
        Figure::new("used, %", 100.0 * outcome.utilisation(5.0, 120.0), Goal::AtLeast(90.0)),
        Figure::new("Jain 60–120 s", jain(&shares(60.0, 120.0)), Goal::AtLeast(0.9)),
        Figure::new("Jain 45–60 s", jain(&shares(45.0, 60.0)), Goal::None),
        Figure::new("queue p50, ms", outcome.queue_ms(5.0, 120.0, 0.5), Goal::None),
        Figure::new("queue p95, ms", outcome.queue_ms(5.0, 120.0, 0.95), Goal::None),
    ]
}

fn against_cubic(rtt_ms: u64, seed: u64) -> Vec<Figure> {
    let flows = [Flow::media(5.0), Flow::Cubic { start: 0.0, stop: f64::INFINITY }];
    let outcome = run(&Link::new(2_000_000, rtt_ms), &flows, 120.0, seed);
    let ours = outcome.throughput(0, 15.0, 120.0);
    let theirs = outcome.throughput(1, 15.0, 120.0);
    vec![
        Figure::new("our share, %", 100.0 * ours / (ours + theirs), Goal::Within(35.0, 65.0)),
        Figure::new("used, %", 100.0 * outcome.utilisation(15.0, 120.0), Goal::AtLeast(90.0)),
        Figure::new("queue p50, ms", outcome.queue_ms(15.0, 120.0, 0.5), Goal::None),
    ]
}

fn cubic_leaves(seed: u64) -> Vec<Figure> {
    let flows = [Flow::media(0.0), Flow::Cubic { start: 20.0, stop: 60.0 }];
    let outcome = run(&Link::new(2_000_000, 50), &flows, 120.0, seed);
    vec![
        Figure::new("used after, %", 100.0 * outcome.utilisation(65.0, 120.0), Goal::AtLeast(90.0)),
        Figure::new("queue < 60 ms after, s", outcome.queue_below_from(60.0, 70.0, 60.0), Goal::None),
        Figure::new("queue p95 after, ms", outcome.queue_ms(70.0, 120.0, 0.95), Goal::AtMost(45.0)),
    ]
}
