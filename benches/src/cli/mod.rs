//! The command line: one file for each measurement.

mod fanout;
mod floor;
mod goals;
mod hostile;
mod latency;
mod live;
mod progress;
mod proxy;
mod quantity;
mod rate;
mod room;
mod scenario;

use clap::{Parser, Subcommand};
use parlor_benches::contender;
use parlor_benches::relay_process::RELAY_COMMAND;
use parlor_client::Delivery;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures Parlor: frame delay over lossy links, in virtual time and over real UDP, and the relay's cost over loopback.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Program {
    #[command(subcommand)]
    command: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// Frame delay over simulated links, in virtual time: exact, and the same on every machine.
    Latency(Box<latency::Args>),
    /// The same over real UDP with a running relay, its links being lossy proxies in this process: takes real time.
    #[command(after_help = live::EXAMPLES)]
    Live(Box<live::Args>),
    /// A lossy link before anything that speaks UDP, until Ctrl-C: the simulation's link between real sockets.
    #[command(after_help = proxy::EXAMPLES)]
    Proxy(proxy::Args),
    /// How well rate control finds what a link carries, in virtual time.
    Rate(rate::Args),
    /// What a relay costs over loopback: CPU time for each delivered frame, memory, delay, beside the machine's floor.
    #[command(after_help = fanout::EXAMPLES)]
    Fanout(Box<fanout::Args>),
    /// A room of thousands: how soon each hears of the others, whether all know the same, what it costs the relay.
    #[command(after_help = room::EXAMPLES)]
    Room(Box<room::Args>),
    /// What this machine cannot do for less: sealing packets and handing them to the kernel.
    Floor(floor::Args),
    /// A call beside clients who mean harm, over loopback: how late its frames are, and the relay's memory.
    Hostile(hostile::Args),
    /// Everything that Parlor means to reach, measured: value, goal, met or not.
    Goals(goals::Args),
    /// Who can carry frames: Parlor's modes and its contenders.
    Contenders,
    /// Latency and fanout, with the figures that docs/measurements.md shows.
    Report,
    #[command(name = RELAY_COMMAND, hide = true)]
    Relay(fanout::RelayArgs),
}

/// How frames travel.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Adaptive,
    Datagram,
    QuicStream,
}

impl Mode {
    fn delivery(self) -> Delivery {
        match self {
            Mode::Adaptive => Delivery::Adaptive,
            Mode::Datagram => Delivery::Datagram,
            Mode::QuicStream => Delivery::QuicStream,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Mode::Adaptive => "adaptive",
            Mode::Datagram => "datagram",
            Mode::QuicStream => "quic-stream",
        }
    }
}

/// Runs the program with these arguments, its own name first.
pub(crate) fn run(arguments: Vec<String>) -> Result<(), Failure> {
    let command = arguments.get(1..).unwrap_or_default().join(" ");
    match Program::parse_from(&arguments).command {
        Measurement::Latency(args) => latency::run(&args, &arguments),
        Measurement::Live(args) => live::run(&args, &arguments),
        Measurement::Proxy(args) => proxy::run(&args),
        Measurement::Rate(args) => rate::run(&args, &command),
        Measurement::Fanout(args) => fanout::run(&args, &command),
        Measurement::Room(args) => room::run(&args, &command),
        Measurement::Hostile(args) => hostile::run(&args, &command),
        Measurement::Goals(args) => goals::run(&args, &command),
        Measurement::Contenders => {
            contender::names().iter().for_each(|name| println!("{name}"));
            Ok(())
        }
        Measurement::Report => report(),
        Measurement::Floor(args) => floor::run(&args),
        Measurement::Relay(args) => fanout::relay(&args),
    }
}

fn report() -> Result<(), Failure> {
    for line in
        ["latency --rtt 50 --loss 0,1,5 --seconds 60", "fanout --subscribers 100 --seconds 8 --with-floor"]
    {
        run(std::iter::once("parlor-bench").chain(line.split(' ')).map(str::to_owned).collect())?;
        println!();
    }
    Ok(())
}
