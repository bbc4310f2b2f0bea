//! A voice call without any camera: everybody hears everybody, and a line every second says who speaks.
//!
//! `cargo run -p parlor-client --example voice_call -- 'parlor://…' ann`
//!
//! Built with `--features audio-devices` it uses microphone and speaker, otherwise a tone and no ear.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use parlor_client::media::level::percent;
use parlor_client::media::play::{Mixer, NullView};
use parlor_client::pipeline::{Capture, Sources, media_clock};
use parlor_client::{Engine, JoinOptions, PlayOptions, Scenario};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(me)) = (args.next(), args.next()) else {
        return Err("usage: voice_call ADDRESS USER".into());
    };
    let engine = Engine::new(Scenario::VoiceCall)?;
    let mixer = Mixer::new();
    #[cfg(feature = "audio-devices")]
    let (microphone, _speaker) = (
        Sources::none().microphone()?,
        parlor_client::media::play::Speaker::open(None, mixer.clone(), media_clock(engine.clock()))?,
    );
    #[cfg(not(feature = "audio-devices"))]
    let (microphone, _speaker) = {
        use parlor_client::media::play::{AudioPump, NullSink};
        let pump = AudioPump::start(media_clock(engine.clock()), mixer.clone(), NullSink)?;
        (Sources::pattern(std::process::id() as u16, Scenario::VoiceCall)?, pump)
    };
    let capture = Capture::start(&engine, microphone)?;
    let room = engine.join(JoinOptions::new(address, &me))?;
    let _broadcast = capture.publish(&room, format!("{me}-mic"))?;
    room.joined().await?;

    let mut events = room.events();
    let mut voices = BTreeMap::new();
    let mut second = engine.clock().timer();
    loop {
        second.reset(Some(engine.now() + Duration::from_secs(1)));
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => break,
            event = events.next() => {
                let Some(event) = event else { break };
                for gone in event.removed_streams() {
                    voices.remove(&gone.stream);
                }
                for new in event.added_streams() {
                    let player = room.play(&new.stream, PlayOptions::new())?;
                    // Sound only: without a view there are no pictures to decode.
                    voices.insert(new.stream.clone(), (new.user.clone(), player.show(NullView, &mixer)?));
                }
            }
            () = second.expired() => {
                for (user, voice) in voices.values() {
                    let level = voice.stats().level.map_or(0, |level| percent(level.below_full_scale));
                    println!("{user:>12} {}", "#".repeat(usize::from(level / 5)));
                }
                println!();
            }
        }
    }
    room.leave().await?;
    engine.close().await;
    Ok(())
}
