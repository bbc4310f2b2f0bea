//! `parlor record`: writes a stream to a file as it comes, without decoding it.

use parlor_client::pipeline::Recording;
use parlor_client::{PlayOptions, Scenario};
use parlor_media::play::OutputClaim;

use super::args::Record;
use super::{Failure, engine, join, stopped};

/// Records until the end of the stream, Ctrl-C, or the time is over.
pub(crate) async fn run(args: Record) -> Result<(), Failure> {
    // A path that cannot be written is told before anybody is bothered.
    let out = args.out.display();
    if args.out.is_dir() {
        return Err(Failure::usage(format!("{out} is a directory; name a file in it")));
    }
    let claim = OutputClaim::new(&args.out).map_err(Failure::usage)?;
    let engine = engine(&args.common, Scenario::VoiceCall)?;
    let room = join(&engine, &args.common)?;
    let player = room.play(&args.stream, PlayOptions::new()).map_err(Failure::usage)?;
    let stop = stopped(&engine, args.seconds);
    tokio::pin!(stop);
    room.joined().await.map_err(Failure::call)?;
    eprintln!("waiting for {:?}; Ctrl-C stops", args.stream);
    tokio::select! {
        biased;
        playing = player.playing() => playing.map_err(Failure::call)?,
        () = &mut stop => {
            engine.close().await;
            return Err(Failure::call(format!("nobody published {:?}; nothing was recorded", args.stream)));
        }
    }
    let mut recording = Recording::start(&player, claim.path()).map_err(Failure::call)?;
    let outcome = tokio::select! {
        biased;
        outcome = recording.run() => outcome,
        () = &mut stop => Ok(()),
    };
    let summary = recording.finish();
    engine.close().await;
    outcome.map_err(Failure::call)?;
    let summary = summary.map_err(Failure::call)?;
    println!("{out}: {} pictures, {} sound packets", summary.pictures, summary.packets);
    Ok(())
}
