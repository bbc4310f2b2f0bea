//! `parlor-demo`: a relay and four people in one room, in one process, over loopback UDP with real
//! TLS, pictures and sound. Shows what everybody sees, and fails if anybody saw too little.

mod person;
mod report;
mod score;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use parlor_client::{AppId, RoomId, Timestamp};
use parlor_media::play::OutputClaim;
use parlor_relay::{Config, Relay};
use parlor_transport::clock::Clock;
use person::{Content, Person};
use report::Report;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A relay and four people in one room, over loopback, with real TLS, video and sound.
#[derive(Parser)]
#[command(name = "parlor-demo", version)]
struct Options {
    /// How long the call lasts, s.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
    /// The clip that the first person shows (MP4 with H.264, or Y4M); the others show a test pattern.
    #[arg(long)]
    clip: Option<PathBuf>,
    /// Where the picture of what everybody saw is written (PNG).
    #[arg(long, default_value = "out/demo.png")]
    out: PathBuf,
}

const ROOM: &str = "demo";
/// How often the table is drawn.
const REDRAW: Duration = Duration::from_millis(500);
const REDRAW_PLAIN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("parlor-demo: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(&options));
    // Capture and codec threads end with their owners; nothing else is worth waiting for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("parlor-demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A name, when they join, and from when until when they are away, in shares of the call.
type Role = (&'static str, f64, Option<(f64, f64)>);

/// Who takes part.
const CAST: [Role; 4] =
    [("ann", 0.0, None), ("bob", 0.0, None), ("cem", 0.0, Some((0.45, 0.6))), ("dia", 0.2, None)];

async fn run(options: &Options) -> Result<bool, Failure> {
    if let Some(directory) = options.out.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)
            .map_err(|error| format!("cannot make {}: {error}; choose another --out", directory.display()))?;
    }
    let out = OutputClaim::new(&options.out)?;
    let relay = Relay::bind(beside_codecs()).await?;
    let room = RoomId::new(ROOM)?;
    let address = relay.address(Some(room.clone())).to_string();
    let handle = relay.handle();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(relay.run(async { _ = stopped.await }));
    println!("relay at {address}");
    let build =
        if parlor_media::video::assembler_build() { "assembler" } else { "C++ only (install nasm: faster)" };
    println!("OpenH264 build: {build}; {} s; the picture goes to {}", options.seconds, options.out.display());

    let clock = Clock::system();
    let start = clock.now();
    let length = Duration::from_secs(options.seconds);
    let at = |share: f64| start + length.mul_f64(share);
    let mut people: Vec<Person> = Vec::new();
    for (number, (name, _, _)) in CAST.iter().enumerate() {
        let content = match &options.clip {
            Some(clip) if number == 0 => Content::Clip(clip.clone()),
            _ => Content::Pattern(number as u16 + 1),
        };
        people.push(Person::new(name, &content)?);
    }
    let mut screen = Screen::new();
    let mut rosters_equal = true;
    let mut tiles_due = vec![0.4, 0.95];
    let mut redraw_at = start;
    while clock.now() < at(1.0) {
        let now = clock.now();
        for (person, (_, joins, away)) in people.iter_mut().zip(CAST) {
            let is_away = away.is_some_and(|(from, until)| (at(from)..at(until)).contains(&now));
            let wants = now >= at(joins) && !is_away;
            if wants && !person.is_in() {
                screen.say(&format!("{:>5.1} s  {} joins", since(start, now), person.name()));
                person.join(&address)?;
            } else if !wants && person.is_in() {
                screen.say(&format!("{:>5.1} s  {} leaves", since(start, now), person.name()));
                person.leave().await;
            }
            person.follow()?;
        }
        if tiles_due.first().is_some_and(|&share| now >= at(share)) {
            tiles_due.remove(0);
            people.iter_mut().for_each(Person::remember);
        }
        if now >= redraw_at {
            screen.draw(&report::table(&people));
            redraw_at = now + if screen.in_place { REDRAW } else { REDRAW_PLAIN };
        }
        clock.sleep(Duration::from_millis(20)).await;
    }
    // Events of the last moments are still under way.
    clock.sleep(Duration::from_millis(300)).await;
    let truth = handle.room(&AppId::dev(), &room);
    for person in &people {
        rosters_equal &= person.agrees_with(truth.as_ref());
    }
    screen.draw(&report::table(&people));
    let report = Report::new(&people, rosters_equal);
    report::write_sheet(&people, out.path())?;
    for person in &mut people {
        person.leave().await;
    }
    _ = stop.send(());
    serving.await?;
    print!("{report}");
    println!("what everybody saw: {}", options.out.display());
    Ok(report.is_good())
}

fn since(start: Timestamp, now: Timestamp) -> f64 {
    now.saturating_since(start).as_secs_f64()
}

/// A table that replaces itself on a terminal.
struct Screen {
    in_place: bool,
    drawn: usize,
}

impl Screen {
    fn new() -> Self {
        Screen { in_place: std::io::stdout().is_terminal(), drawn: 0 }
    }

    fn say(&mut self, line: &str) {
        self.erase();
        println!("{line}");
    }

    fn draw(&mut self, table: &str) {
        self.erase();
        println!("{table}");
        self.drawn = if self.in_place { table.lines().count() + 1 } else { 0 };
        _ = std::io::stdout().flush();
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            print!("\x1b[{}F\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }
}

/// A relay that leaves nothing out: codecs share its threads here, so that it is woken late without being too slow.
fn beside_codecs() -> Config {
    Config { overload: Some(parlor_relay::overload::Shed::NONE), ..Config::dev() }
}
