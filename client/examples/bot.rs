//! A bot that repeats: it plays one stream and publishes the very same frames under another id. It needs no codec,
//! passes keyframe requests on, and says who comes and goes.
//!
//! `cargo run -p parlor-client --no-default-features --example bot -- 'parlor://…' ann-cam`

use std::error::Error;

use parlor_client::publisher::EncodedFrame;
use parlor_client::{
    Engine, EngineConfig, JoinOptions, PlayOptions, Player, PublishOptions, Publisher, Room, TrackKind,
};

/// Publishes a stream with the same tracks.
fn echo(room: &Room, player: &Player) -> Result<Publisher, Box<dyn Error>> {
    let played = player.played().ok_or("the stream has ended")?;
    let mut options = PublishOptions::new(format!("{}-echo", player.stream()));
    for track in &played.tracks {
        options = match track.kind {
            TrackKind::Audio => options.audio(&track.codec),
            TrackKind::Video => options.video(&track.codec),
            TrackKind::Data => options.data(&track.codec),
        }
        .layers(track.spatial_layers, track.temporal_layers);
    }
    Ok(room.publish(options)?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(stream)) = (args.next(), args.next()) else {
        return Err("usage: bot ADDRESS STREAM".into());
    };
    let engine = Engine::new(EngineConfig::default())?;
    let room = engine.join(JoinOptions::new(address, "echo-bot").name("Echo"))?;
    let mut events = room.events();
    let player = room.play(&stream, PlayOptions::new())?;
    let mut frames = player.frames();
    println!("waiting for {stream}; Ctrl-C ends");
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => return Ok(()),
        playing = player.playing() => playing?,
    }
    let publisher = echo(&room, &player)?;
    publisher.publishing().await?;
    loop {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => break,
            event = events.next() => {
                let Some(event) = event else { break };
                event.added_users().iter().for_each(|user| println!("{} is here", user.user));
                event.removed_users().iter().for_each(|user| println!("{} has left", user.user));
            }
            wanted = publisher.keyframe_wanted() => {
                if wanted.is_empty() {
                    break;
                }
                wanted.iter().for_each(|request| player.request_keyframe(request.track));
            }
            frame = frames.next() => {
                let Some(frame) = frame else { break };
                let header = frame.header;
                // The age goes on counting from the first capture.
                _ = publisher.send_frame(EncodedFrame {
                    track: header.track,
                    spatial: header.spatial,
                    temporal: header.temporal,
                    keyframe: header.keyframe,
                    discardable: header.discardable,
                    captured: frame.captured,
                    level: header.level,
                    metadata: header.metadata,
                    payload: frame.payload,
                });
            }
        }
    }
    room.leave().await?;
    engine.close().await;
    Ok(())
}
