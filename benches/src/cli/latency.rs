//! `parlor-bench latency`: any grid of links, over one hop or two.

use std::path::{Path, PathBuf};
use std::time::Duration;

use parlor_benches::cell::{Cell, Feed, Link, Way};
use parlor_benches::contender::{self, Contender};
use parlor_benches::measure::{self, Measured};
use parlor_benches::source::Shape;
use parlor_benches::{outcome, report};
use parlor_transport::sim::Schedule;

use super::{Failure, Measurement, progress, quantity, scenario};

/// Options that take several values, with commas between, are combined with each other.
#[derive(clap::Args, Debug, Clone)]
#[command(args_override_self = true)]
pub(super) struct Args {
    /// Round-trip times, ms.
    #[arg(long, value_delimiter = ',', default_value = "50")]
    rtt: Vec<u64>,
    /// Packets lost in each direction, %.
    #[arg(long, value_delimiter = ',', default_value = "0", value_parser = quantity::percent)]
    loss: Vec<f64>,
    /// Packets lost on the way from the host to the relay, %, instead of --loss.
    #[arg(long, value_parser = quantity::percent)]
    loss_up: Option<f64>,
    /// Packets lost on the way from the relay to the host, %, instead of --loss.
    #[arg(long, value_parser = quantity::percent)]
    loss_down: Option<f64>,
    /// Mean length of a run of lost packets; 1 is independent loss.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = quantity::burst)]
    burst: Vec<f64>,
    /// Mean jitter in each direction, ms, exponentially distributed, packets in order.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    jitter: Vec<u64>,
    /// Jitter from the host to the relay, ms, instead of --jitter.
    #[arg(long)]
    jitter_up: Option<u64>,
    /// Jitter from the relay to the host, ms, instead of --jitter.
    #[arg(long)]
    jitter_down: Option<u64>,
    /// Each packet is held up to so long on its own, ms, so that packets overtake each other.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    reorder: Vec<u64>,
    /// Rate of the link in each direction; 0 is unlimited.
    #[arg(long, value_delimiter = ',', default_value = "10m", value_parser = quantity::rate)]
    link_rate: Vec<u64>,
    /// Mahimahi trace for the media's direction, instead of --link-rate there.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// What the queue before the bottleneck holds, ms at its rate (drop-tail).
    #[arg(long, default_value_t = 300)]
    queue: u64,
    /// Whose link it is.
    #[arg(long, value_enum, default_value = "publisher")]
    hop: Hop,
    /// What is sent.
    #[arg(long, value_enum, default_value = "video")]
    media: Media,
    /// Media rate; for sound 32k if not set.
    #[arg(long, value_delimiter = ',', value_parser = quantity::rate)]
    media_rate: Vec<u64>,
    /// Frames per second of video.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    fps: u32,
    /// Whether the source keeps its rate or follows what the transport offers.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "fixed")]
    source: Vec<SourceKind>,
    /// Who carries the frames; `parlor-bench contenders` tells who they are. If not set, `latency` runs
    /// adaptive,datagram,quic-stream and `live`, which has Parlor's own modes, adaptive.
    #[arg(long, value_delimiter = ',')]
    pub(super) mode: Vec<String>,
    /// Length of the call, s.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// The first seed. Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds are run and counted together.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) seeds: u64,
    /// TOML file with any of these options as keys, lists for several values; the command line comes first.
    #[arg(long, value_name = "FILE")]
    pub(super) scenario: Option<PathBuf>,
    /// Writes the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes one line for each frame.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Writes a page with charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Hop {
    /// The publisher's; the subscriber sits beside the relay.
    Publisher,
    /// The subscriber's; the publisher sits beside the relay.
    Subscriber,
    /// Both have one.
    Both,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq)]
pub(super) enum Media {
    /// A keyframe of five ordinary frames every 4 s.
    Video,
    /// Opus frames of 20 ms.
    Audio,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq)]
enum SourceKind {
    /// Frames have their sizes whatever the link carries.
    Fixed,
    /// Frames get smaller with the rate that the transport offers.
    Follow,
}

impl SourceKind {
    fn feed(self) -> Feed {
        match self {
            SourceKind::Fixed => Feed::Fixed,
            SourceKind::Follow => Feed::Follow,
        }
    }
}

/// Runs it. `arguments` are the program's, for reading them again with a scenario's in front.
pub(super) fn run(args: &Args, arguments: &[String]) -> Result<(), Failure> {
    let command = format!("parlor-bench {}", arguments.get(1..).unwrap_or_default().join(" "));
    let args = match &args.scenario {
        Some(path) => match scenario::apply(path, arguments)? {
            (Measurement::Latency(args), _) => *args,
            _ => return Err("this scenario is not for latency".into()),
        },
        None => args.clone(),
    };
    let modes = match args.mode.as_slice() {
        [] => ["adaptive", "datagram", "quic-stream"].map(str::to_owned).to_vec(),
        modes => modes.to_vec(),
    };
    let contenders = named(&modes)?;
    let cells = args.cells()?;
    let tasks: Vec<(Cell, &dyn Contender)> = cells
        .iter()
        .flat_map(|cell| contenders.iter().map(move |contender| (cell.clone(), contender.as_ref())))
        .collect();
    let count = progress::Count::default();
    let rows = measure::run_all(&tasks, args.seeds, |done, of| count.show(done, of))?;
    let table = report::table(&rows);
    println!("Frame delay from capture to complete, ms beyond one-way delay, virtual time");
    println!("$ {command}\n\n{table}");
    args.finish(&command, "Frame delay on lossy links", &table, &rows)
}

/// The contenders with these names.
pub(super) fn named(names: &[String]) -> Result<Vec<Box<dyn Contender>>, Failure> {
    names
        .iter()
        .map(|name| {
            contender::named(name).ok_or_else(|| {
                format!("--mode {name}: nobody is called so; choose of {}", contender::names().join(", "))
                    .into()
            })
        })
        .collect()
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| format!("cannot write {}: {error}; does its folder exist?", path.display()).into())
}

impl Args {
    /// Says of sound what its listeners hear, and writes the files that were asked for.
    pub(super) fn finish(
        &self,
        command: &str,
        title: &str,
        table: &str,
        rows: &[Measured],
    ) -> Result<(), Failure> {
        if self.media == Media::Audio {
            for row in rows {
                let frames = row.outcome.complete.len().max(1) as f64;
                for (buffer, concealed) in outcome::BUFFERS.iter().zip(&row.outcome.concealed) {
                    println!(
                        "{}, {}: concealed with a buffer of {buffer} ms: {:.3} %, {} frames in {} events",
                        report::describe(&row.cell),
                        row.who,
                        concealed.frames as f64 * 100.0 / frames,
                        concealed.frames,
                        concealed.events,
                    );
                }
            }
        }
        let write = |path: &Option<PathBuf>, text: &dyn Fn() -> String| match path {
            Some(path) => write(path, &text()),
            None => Ok(()),
        };
        write(&self.json, &|| format!("{:#}\n", report::json(command, rows)))?;
        write(&self.csv, &|| report::csv(rows))?;
        write(&self.html, &|| report::page::page(title, command, table, rows))
    }

    /// The grid, in the order in which the options are listed.
    pub(super) fn cells(&self) -> Result<Vec<Cell>, Failure> {
        let schedule = self.trace.as_deref().map(read_schedule).transpose()?;
        let media_rates = match (self.media_rate.is_empty(), self.media) {
            (false, _) => self.media_rate.clone(),
            (true, Media::Video) => vec![1_000_000],
            (true, Media::Audio) => vec![32_000],
        };
        let has = |times: &[u64]| times.iter().any(|&time| time > 0);
        let jitter_of_way = self.jitter_up.into_iter().chain(self.jitter_down).any(|time| time > 0);
        if has(&self.reorder) && (has(&self.jitter) || jitter_of_way) {
            return Err(
                "--jitter keeps packets in order and --reorder does not: measure one after the other".into(),
            );
        }
        let mut cells = Vec::new();
        for &rtt in &self.rtt {
            for &loss in &self.loss {
                for &burst in &self.burst {
                    for &jitter in &self.jitter {
                        for &reorder in &self.reorder {
                            for &rate in &self.link_rate {
                                let way = |loss: f64, jitter: u64| Way {
                                    loss,
                                    burst,
                                    jitter: Duration::from_millis(jitter),
                                    reorder: Duration::from_millis(reorder),
                                    rate: Some(rate).filter(|&rate| rate > 0),
                                    schedule: None,
                                    queue: Duration::from_millis(self.queue),
                                };
                                let up = way(self.loss_up.unwrap_or(loss), self.jitter_up.unwrap_or(jitter));
                                let down =
                                    way(self.loss_down.unwrap_or(loss), self.jitter_down.unwrap_or(jitter));
                                for (&media_rate, source) in media_rates
                                    .iter()
                                    .flat_map(|rate| self.source.iter().map(move |source| (rate, source)))
                                {
                                    let cell = self.cell(rtt, media_rate, &up, &down, schedule.as_ref());
                                    cells.push(Cell { feed: source.feed(), ..cell });
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(cells)
    }

    fn cell(&self, rtt: u64, media_rate: u64, up: &Way, down: &Way, schedule: Option<&Schedule>) -> Cell {
        let link = |media: &Way, back: &Way| Link {
            rtt: Duration::from_millis(rtt),
            media: Way { schedule: schedule.cloned(), ..media.clone() },
            back: back.clone(),
        };
        Cell {
            publisher: (self.hop != Hop::Subscriber).then(|| link(up, down)),
            subscriber: (self.hop != Hop::Publisher).then(|| link(down, up)),
            shape: match self.media {
                Media::Video => {
                    Shape { bitrate: media_rate, frames_per_second: self.fps, ..Shape::default() }
                }
                Media::Audio => Shape::audio(media_rate),
            },
            feed: Feed::Fixed,
            length: Duration::from_secs(self.seconds),
            seed: self.seed,
        }
    }
}

fn read_schedule(path: &Path) -> Result<Schedule, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("--trace {}: cannot be read: {error}", path.display()))?;
    text.parse().map_err(|error| format!("--trace {}: {error}", path.display()).into())
}
