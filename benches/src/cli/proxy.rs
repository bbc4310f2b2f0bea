//! `parlor-bench proxy`: a lossy link before anything that speaks UDP.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use parlor_benches::cell::{Link, Way};
use parlor_benches::live::{permit, resolve};
use parlor_benches::proxy::sessions::{Counts, Passed};
use parlor_benches::proxy::{Config, Failed, Proxy};
use parlor_transport::clock::Clock;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, quantity};

pub(super) const EXAMPLES: &str = "Examples:
  parlor-bench proxy --listen 127.0.0.1:5000 --to 127.0.0.1:4433 --loss-up 5 --loss-down 5 --rtt 50
      a relay on port 4433 as from a bad Wi-Fi: replace 4433 in its parlor:// address by 5000 and join
  parlor-bench proxy --listen 127.0.0.1:5000 --to 127.0.0.1:9000 --link-rate 2m --queue 500 --for 60
      two Mbit/s with half a second of queue, for one minute

Datagrams of more than 1,472 bytes (IPv4; 1,452 on IPv6) do not pass, as on Ethernet. ECN marks are not passed on.";

/// Up is from the client to the server. Every client (a UDP address) has a link of its own.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct Args {
    /// Where clients find the proxy; port 0 lets the system choose.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    listen: SocketAddr,
    /// The server behind it.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    to: SocketAddr,
    /// Packets lost on the way to the server, %.
    #[arg(long, default_value = "0", value_parser = quantity::percent)]
    loss_up: f64,
    /// Packets lost on the way to the client, %.
    #[arg(long, default_value = "0", value_parser = quantity::percent)]
    loss_down: f64,
    /// Mean length of a run of lost packets; 1 is independent loss.
    #[arg(long, default_value = "1", value_parser = burst)]
    burst: f64,
    /// Round-trip time that is added, ms; half of it each way.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MILLIS_MAX))]
    rtt: u64,
    /// Mean jitter in each direction, ms, exponentially distributed, packets in order.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MILLIS_MAX))]
    jitter: u64,
    /// Each packet is held up to so long on its own, ms, so that packets overtake each other; not with --jitter.
    #[arg(
        long, default_value_t = 0, conflicts_with = "jitter",
        value_parser = clap::value_parser!(u64).range(..=MILLIS_MAX)
    )]
    reorder: u64,
    /// Rate of the link in each direction (600k, 10m); 0 is unlimited.
    #[arg(long, default_value = "0", value_parser = quantity::rate)]
    link_rate: u64,
    /// What the queue before the bottleneck holds, ms at its rate (drop-tail).
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(..=MILLIS_MAX))]
    queue: u64,
    /// What is random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ends after so many seconds; without it, on Ctrl-C or SIGTERM.
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: Option<u64>,
    /// Allows addresses that are not on this machine's loopback.
    #[arg(long)]
    allow_any_address: bool,
}

/// Beyond a minute nothing that speaks UDP waits for an answer.
const MILLIS_MAX: u64 = 60_000;
/// A year.
const SECONDS_MAX: u64 = 365 * 86_400;
/// How often what passed is told.
const REPORT: Duration = Duration::from_secs(10);

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    permit(args.listen, args.allow_any_address)?;
    permit(args.to, args.allow_any_address)?;
    if args.listen == args.to {
        return Err("--listen and --to are the same, so that nothing would ever leave".into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: &Args) -> Result<(), Failure> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let clock = Clock::system();
    let link = args.link();
    let config = Config {
        listen: args.listen,
        to: args.to,
        profile: link.upward(),
        seed: args.seed,
        name: "client".to_owned(),
    };
    let proxy = Proxy::start(config, clock.clone())
        .map_err(|error| format!("--listen {}: cannot be had: {error}", args.listen))?;
    say(&format!("listens on {}, passes on to {}\n{}", proxy.local_addr(), args.to, args.describe()));
    let start = clock.now();
    let end = args.seconds.map(|seconds| start + Duration::from_secs(seconds));
    let mut ending = clock.timer();
    ending.reset(end);
    let mut telling = clock.timer();
    loop {
        telling.reset(Some(clock.now() + REPORT));
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = ending.expired() => break,
            () = telling.expired() => say(&line(clock.now().saturating_since(start), proxy.counts())),
        }
    }
    say(&format!("over; {}", line(clock.now().saturating_since(start), proxy.counts())));
    Ok(())
}

/// A reader that is gone is no reason to stop passing packets on.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

impl Args {
    fn link(&self) -> Link {
        let way = |loss: f64| Way {
            loss,
            burst: self.burst,
            jitter: Duration::from_millis(self.jitter),
            reorder: Duration::from_millis(self.reorder),
            rate: Some(self.link_rate).filter(|&rate| rate > 0),
            schedule: None,
            queue: Duration::from_millis(self.queue),
        };
        Link { rtt: Duration::from_millis(self.rtt), media: way(self.loss_up), back: way(self.loss_down) }
    }

    fn describe(&self) -> String {
        let rate = match self.link_rate {
            0 => "no limit of rate".to_owned(),
            rate => format!("{} Mbit/s with {} ms of queue", rate as f64 / 1e6, self.queue),
        };
        let percent = |share: f64| (share * 1e4).round() / 100.0;
        format!(
            "{} % lost up, {} % down, in runs of {}; {} ms of round trip, {} ms of jitter, {} ms of reordering; {rate}; seed {}",
            percent(self.loss_up),
            percent(self.loss_down),
            self.burst,
            self.rtt,
            self.jitter,
            self.reorder,
            self.seed
        )
    }
}

/// What passed, on one line.
fn line(after: Duration, (counts, failed): (Counts, Failed)) -> String {
    let way = |Passed { offered, delivered, lost, queue_full, too_big }: Passed| {
        let mut text = format!(
            "{} of {} packets ({} kB), {lost} lost",
            delivered.packets,
            offered.packets,
            offered.bytes / 1000
        );
        for (what, count) in [("queue full", queue_full), ("too big", too_big)] {
            if count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        text
    };
    let mut text = format!(
        "{} s: {} of {} clients; up {}; down {}",
        after.as_secs(),
        counts.present,
        counts.opened,
        way(counts.up),
        way(counts.down)
    );
    for (what, count) in [
        ("had no place", counts.refused),
        ("beyond the memory for packets", counts.flooded),
        ("not sent", failed.sent),
        ("failed reads (does the server run?)", failed.received),
    ] {
        if count > 0 {
            text += &format!("; {count} {what}");
        }
    }
    text
}

/// `127.0.0.1:4433`, `[::1]:4433`, `localhost:4433`.
fn address(text: &str) -> Result<SocketAddr, String> {
    let (host, port) =
        text.rsplit_once(':').ok_or_else(|| "give host:port, such as 127.0.0.1:4433".to_owned())?;
    let port = port.parse().map_err(|_| "the port is a number from 0 to 65535".to_owned())?;
    resolve(host.trim_start_matches('[').trim_end_matches(']'), port)
}

fn burst(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (1.0..=1_000.0).contains(value));
    value.ok_or_else(|| "give a mean length from 1 to 1000".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Measurement, Program};
    use super::*;

    fn parse(options: &str) -> Result<Args, String> {
        let line = format!("parlor-bench proxy --to 127.0.0.1:9 {options}");
        match Program::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?.command {
            Measurement::Proxy(args) => Ok(args),
            _ => Err("another command".to_owned()),
        }
    }

    #[test]
    fn options_become_a_link() {
        let args =
            parse("--listen [::1]:0 --loss-up 5 --loss-down 1 --rtt 50 --link-rate 2m --queue 100").unwrap();
        let profile = args.link().upward();
        assert_eq!(profile.up.loss, parlor_transport::sim::Loss::Random(0.05));
        assert_eq!(profile.down.loss, parlor_transport::sim::Loss::Random(0.01));
        assert_eq!(
            (profile.up.delay, profile.down.delay),
            (Duration::from_millis(25), Duration::from_millis(25))
        );
        assert_eq!((profile.up.rate, profile.up.queue_max), (Some(2_000_000), 25_000));
        let free = parse("--listen 127.0.0.1:0").unwrap().link().upward();
        assert_eq!((free.up.rate, free.up.loss), (None, parlor_transport::sim::Loss::None));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for bad in [
            "--listen 127.0.0.1",
            "--listen 127.0.0.1:x",
            "--listen 127.0.0.1:0 --loss-up 100",
            "--listen 127.0.0.1:0 --burst NaN",
            "--listen 127.0.0.1:0 --rtt 99999999",
            "--listen 127.0.0.1:0 --jitter 5 --reorder 5",
            "--listen 127.0.0.1:0 --for 0",
            "",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let itself = Args { to: ([127, 0, 0, 1], 9).into(), ..parse("--listen 127.0.0.1:9").unwrap() };
        assert!(run(&itself).unwrap_err().to_string().contains("the same"));
        let args = parse("--listen 127.0.0.1:0").unwrap();
        let listens = Args { listen: ([0, 0, 0, 0], 0).into(), ..args.clone() };
        let sends = Args { to: ([192, 0, 2, 1], 9).into(), ..args };
        for outside in [listens, sends] {
            assert!(run(&outside).unwrap_err().to_string().contains("--allow-any-address"), "{outside:?}");
        }
    }

    #[test]
    fn a_line_names_what_went_wrong_and_nothing_else() {
        let counts = Counts { opened: 2, present: 1, refused: 3, ..Counts::default() };
        let text = line(Duration::from_secs(10), (counts, Failed { sent: 0, received: 4 }));
        assert!(text.starts_with("10 s: 1 of 2 clients; up 0 of 0 packets (0 kB), 0 lost;"), "{text}");
        assert!(text.ends_with("; 3 had no place; 4 failed reads (does the server run?)"), "{text}");
    }
}
