//! `parlor join`: a call on the command line, with a table of what is sent and received.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use parlor_client::pipeline::{Broadcast, Capture, Playback, Sources, media_clock};
use parlor_client::player::PlayerState;
use parlor_client::publisher::PublisherState;
use parlor_client::room::{RoomEvent, RoomReason, RoomState};
use parlor_client::{Departure, Engine, PlayOptions, Room, Scenario, StreamId, StreamInfo, Timestamp};
use parlor_media::play::{AudioPump, Mixer, NullSink, NullView};

use super::args::{Join, Source, Wanted, codec_build};
use super::table::{Screen, Table, millis};
use super::{Failure, engine, join, read, stopped};

/// How often the table is drawn: in place so that figures can be read, elsewhere so that logs stay short.
const REDRAW: Duration = Duration::from_millis(500);
const REDRAW_PLAIN: Duration = Duration::from_secs(5);

/// Joins, publishes, plays, and leaves at Ctrl-C, when the time is over or when the room ends.
pub(crate) async fn run(args: Join) -> Result<(), Failure> {
    let scenario = Scenario::from(args.quality);
    let engine = engine(&args.common, scenario)?;
    // Files and devices are tried before anybody in the room is bothered.
    let capture = match &args.publish {
        Some(source) => Some(open(&engine, source, scenario)?),
        None => None,
    };
    eprintln!("codec: {}", codec_build());
    let room = join(&engine, &args.common)?;
    let stream = args.stream.clone().unwrap_or_else(|| default_stream(room.user().as_str()));
    let broadcast = match &capture {
        Some(capture) => Some(capture.publish(&room, stream).map_err(Failure::usage)?),
        None => None,
    };
    let mixer = Mixer::new();
    let _sound = speaker(&args, &engine, &mixer)?;
    let token = args.common.token_file.clone();
    let token =
        token.map(|path| Ok(TokenFile { shown: read(&path)?, path, is_wanted: false })).transpose()?;
    let mut call =
        Call { room, broadcast, wanted: args.play.clone(), players: BTreeMap::new(), mixer, token };
    if let Wanted::These(streams) = &args.play {
        streams.iter().try_for_each(|stream| call.play(stream))?;
    }
    let outcome = call.run(&engine, args.seconds).await;
    // Publisher and players end with the room.
    let left = call.room.leave().await;
    drop(capture);
    engine.close().await;
    outcome.and(left.map_err(Failure::call))
}

fn open(engine: &Engine, source: &Source, scenario: Scenario) -> Result<Capture, Failure> {
    let sources = match source {
        Source::Pattern => Sources::pattern(std::process::id() as u16, scenario).map_err(Failure::usage),
        Source::Camera => devices(scenario).map_err(Failure::usage),
        Source::Files { video, audio } => {
            Sources::files(video.as_deref(), audio.as_deref(), scenario).map_err(Failure::usage)
        }
    };
    Capture::start(engine, sources?).map_err(Failure::call)
}

#[cfg(all(feature = "camera", feature = "audio-devices"))]
fn devices(scenario: Scenario) -> Result<Sources, parlor_client::pipeline::MediaError> {
    Sources::none().camera(scenario)?.microphone()
}

#[cfg(not(all(feature = "camera", feature = "audio-devices")))]
fn devices(_: Scenario) -> Result<Sources, String> {
    Err("this build has no camera and microphone; build it with --features camera,audio-devices, \
         or publish pattern or a file"
        .to_owned())
}

/// Somebody must pull the sound: the speaker, or a clock in its place.
#[cfg(feature = "audio-devices")]
fn speaker(args: &Join, engine: &Engine, mixer: &Mixer) -> Result<Box<dyn std::any::Any>, Failure> {
    if args.speaker {
        let speaker = parlor_media::play::Speaker::open(None, mixer.clone(), media_clock(engine.clock()));
        return Ok(Box::new(speaker.map_err(Failure::usage)?));
    }
    Ok(Box::new(pump(engine, mixer)?))
}

#[cfg(not(feature = "audio-devices"))]
fn speaker(_: &Join, engine: &Engine, mixer: &Mixer) -> Result<AudioPump, Failure> {
    pump(engine, mixer)
}

fn pump(engine: &Engine, mixer: &Mixer) -> Result<AudioPump, Failure> {
    AudioPump::start(media_clock(engine.clock()), mixer.clone(), NullSink).map_err(Failure::call)
}

/// Stream ids have fewer characters than user ids.
fn default_stream(user: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    user.chars().map(word).chain("-cam".chars()).collect()
}

/// A call under way.
struct Call {
    room: Room,
    broadcast: Option<Broadcast>,
    wanted: Wanted,
    players: BTreeMap<StreamId, Playback>,
    mixer: Mixer,
    token: Option<TokenFile>,
}

/// Where the token comes from.
struct TokenFile {
    path: PathBuf,
    /// What was in it last.
    shown: String,
    /// The token expires soon.
    is_wanted: bool,
}

impl Call {
    /// Until it is to be left, or the room has ended.
    async fn run(&mut self, engine: &Engine, seconds: Option<f64>) -> Result<(), Failure> {
        let mut events = self.room.events();
        let mut screen = Screen::new();
        let redraw = if screen.is_in_place() { REDRAW } else { REDRAW_PLAIN };
        let stop = stopped(engine, seconds);
        tokio::pin!(stop);
        let mut timer = engine.clock().timer();
        timer.reset(Some(engine.now() + redraw));
        loop {
            tokio::select! {
                biased;
                () = &mut stop => {
                    screen.draw(&self.table());
                    return match self.room.status().state {
                        RoomState::Connecting => Err(Failure::call("left before the relay had answered")),
                        _ => Ok(()),
                    };
                }
                event = events.next() => match event {
                    Some(RoomEvent::RelayLeaving { address }) => {
                        let way_out = address.map(|address| format!("; join {address} instead"));
                        screen.say(&format!("the relay ends soon{}", way_out.unwrap_or_default()));
                    }
                    Some(RoomEvent::RelayOverloaded { level: 0 }) => {
                        screen.say("the relay keeps up again: everything comes");
                    }
                    Some(RoomEvent::RelayOverloaded { level }) => {
                        screen.say(&format!("the relay is too slow: it leaves out some video (level {level} of 4)"));
                    }
                    Some(RoomEvent::TokenWillExpire { at }) => screen.say(&self.warn(engine, at)),
                    Some(event) => self.handle(event, &mut screen)?,
                    None => return self.ended(),
                },
                () = timer.expired() => {
                    if let Some(renewed) = self.renew().await {
                        screen.say(&renewed);
                    }
                    screen.draw(&self.table());
                    timer.reset(Some(engine.now() + redraw));
                }
            }
        }
    }

    /// What to say when the token is about to expire.
    fn warn(&mut self, engine: &Engine, at: Timestamp) -> String {
        let left = at.saturating_since(engine.now()).as_secs();
        let remedy = match &mut self.token {
            Some(file) => {
                file.is_wanted = true;
                format!("put another into {}", file.path.display())
            }
            None => "it can be renewed with --token-file".to_owned(),
        };
        format!("the token expires in {left} s; {remedy}")
    }

    /// Renews the token once there is another in its file; says what came of it.
    async fn renew(&mut self) -> Option<String> {
        let file = self.token.as_mut().filter(|file| file.is_wanted)?;
        // While it is being written it may be anything; the next look will tell.
        let found = read(&file.path).ok().filter(|found| found.trim() != file.shown.trim())?;
        file.shown.clone_from(&found);
        match self.room.renew_token(found).await {
            Ok(()) => {
                file.is_wanted = false;
                Some(format!("token renewed from {}", file.path.display()))
            }
            Err(error) => Some(format!("{}: {error}", file.path.display())),
        }
    }

    fn ended(&self) -> Result<(), Failure> {
        let status = self.room.status();
        match status.error {
            Some(error) => Err(Failure::call(error)),
            None => Ok(()),
        }
    }

    fn handle(&mut self, event: RoomEvent, screen: &mut Screen) -> Result<(), Failure> {
        if let RoomEvent::State(status) = &event {
            match status.reason {
                RoomReason::Joined => {
                    screen.say(&format!("joined {} as {}", self.room.id(), self.room.user()))
                }
                _ if status.state == RoomState::Connecting => screen.say("joining"),
                _ => {}
            }
        }
        if let RoomEvent::Recovered { rung, took } = &event {
            screen.say(&format!("back after {:.1} s ({rung:?})", took.as_secs_f64()));
        }
        self.remove(event.removed_streams());
        let count = event.count().unwrap_or(0);
        for user in event.removed_users() {
            let why =
                if let RoomEvent::UserRemoved { reason, .. } = &event { *reason } else { Departure::Left };
            screen.say(&format!("{} left ({why:?}); {count} in the room", user.user));
        }
        for user in event.added_users() {
            screen.say(&format!("{} is here; {count} in the room", user.user));
        }
        self.add(event.added_streams())
    }

    fn add(&mut self, streams: &[StreamInfo]) -> Result<(), Failure> {
        if self.wanted == Wanted::All {
            streams.iter().try_for_each(|stream| self.play(&stream.stream))?;
        }
        Ok(())
    }

    fn remove(&mut self, streams: &[StreamInfo]) {
        // Streams asked for by name are waited for until they come back.
        if self.wanted == Wanted::All {
            streams.iter().for_each(|stream| drop(self.players.remove(&stream.stream)));
        }
    }

    fn play(&mut self, stream: &StreamId) -> Result<(), Failure> {
        let player = self.room.play(stream, PlayOptions::new()).map_err(Failure::call)?;
        let playback = player.show(NullView, &self.mixer).map_err(Failure::call)?;
        self.players.insert(stream.clone(), playback);
        Ok(())
    }

    fn table(&self) -> Vec<String> {
        let heading =
            ["stream", "state", "frames/s", "kbit/s", "age p50 ms", "p99 ms", "frames", "lost", "dropped"];
        let mut table = Table::new(&heading);
        if let Some(broadcast) = &self.broadcast {
            let (publisher, stats) = (broadcast.publisher(), broadcast.publisher().stats());
            let status = publisher.status();
            let state = match (status.state, status.error) {
                (PublisherState::Idle, Some(error)) => error.to_string(),
                (state, _) => format!("{state:?}"),
            };
            let shown = if stats.video.age_p50.is_some() { stats.video } else { stats.audio };
            table.row([
                format!("> {}", publisher.stream()),
                state,
                format!("{:.1}", shown.frames_per_second),
                format!("{:.0}", stats.video.kbit_per_second + stats.audio.kbit_per_second),
                millis(shown.age_p50),
                millis(shown.age_p99),
                stats.counts.sent.to_string(),
                String::new(),
                stats.counts.dropped_total().to_string(),
            ]);
        }
        for (id, playback) in &self.players {
            let (status, stats) = (playback.player().status(), playback.stats());
            let state = match (status.state, status.error) {
                (PlayerState::Idle, Some(error)) => error.to_string(),
                (state, _) => format!("{state:?}"),
            };
            // Of a stream without pictures, its sound.
            let shown = if stats.video.age_p50.is_some() { stats.video } else { stats.player.audio };
            table.row([
                format!("< {id}"),
                state,
                format!("{:.1}", shown.frames_per_second),
                format!("{:.0}", stats.player.video.kbit_per_second + stats.player.audio.kbit_per_second),
                millis(shown.age_p50),
                millis(shown.age_p99),
                stats.player.frames.to_string(),
                stats.player.lost.to_string(),
                stats.player.skipped.to_string(),
            ]);
        }
        let stats = self.room.stats();
        let users = self.room.view().map_or(0, |view| view.users.len() + 1);
        let mut lines = vec![format!(
            "{} {:?}  users {users}  round trip {} ms  ages ±{} ms",
            self.room.id(),
            self.room.status().state,
            millis(stats.rtt),
            millis(stats.clock_error),
        )];
        lines.extend(table.lines());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_id_can_be_made_of_every_user_id() {
        assert_eq!(default_stream("ann@home:~!"), "ann_home___-cam");
        assert!(StreamId::new(default_stream("u1")).is_ok());
    }
}
