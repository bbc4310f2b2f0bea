//! A window for everyone: each player draws into a view of its own, and every two seconds the newest pictures of
//! all go side by side into one PNG file. An app would give each player a widget instead.
//!
//! `cargo run -p parlor-client --example grid_of_views -- 'parlor://…' ann grid.png`

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use parlor_client::media::frame::Picture;
use parlor_client::media::play::{AudioPump, ContactSheet, LatestPicture, Mixer, NullSink, View};
use parlor_client::pipeline::{Capture, Sources, media_clock};
use parlor_client::{Engine, JoinOptions, PlayOptions, Scenario};

/// A view as an app would write one: it keeps the newest picture and counts them.
#[derive(Clone, Default)]
struct Tile {
    picture: LatestPicture,
}

impl View for Tile {
    // Called on a media thread: hand the picture over, and return.
    fn show(&mut self, picture: &Picture) {
        self.picture.show(picture);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(me), Some(file)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: grid_of_views ADDRESS USER FILE.png".into());
    };
    let engine = Engine::new(Scenario::StandardCall)?;
    let capture =
        Capture::start(&engine, Sources::pattern(std::process::id() as u16, Scenario::StandardCall)?)?;
    let mirror = Tile::default();
    let _preview = capture.preview(mirror.clone());
    let room = engine.join(JoinOptions::new(address, &me))?;
    let _broadcast = capture.publish(&room, format!("{me}-cam"))?;
    let mixer = Mixer::new();
    let _ear = AudioPump::start(media_clock(engine.clock()), mixer.clone(), NullSink)?;

    let mut events = room.events();
    let mut tiles = BTreeMap::new();
    let mut redraw = engine.clock().timer();
    redraw.reset(Some(engine.now() + Duration::from_secs(2)));
    loop {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => break,
            event = events.next() => {
                let Some(event) = event else { break };
                for gone in event.removed_streams() {
                    tiles.remove(&gone.stream);
                }
                for new in event.added_streams() {
                    let tile = Tile::default();
                    let player = room.play(&new.stream, PlayOptions::new())?;
                    let playback = player.show(tile.clone(), &mixer)?;
                    tiles.insert(new.stream.clone(), (tile, playback));
                }
            }
            () = redraw.expired() => {
                let mut sheet = ContactSheet::new(320, 180, 3)?;
                sheet.add(mirror.picture.get().as_ref(), format!("{me} (preview)"));
                for (stream, (tile, playback)) in &tiles {
                    let rate = playback.stats().video.frames_per_second;
                    sheet.add(tile.picture.get().as_ref(), format!("{stream} {rate:.0}/s"));
                }
                sheet.write_png(&file)?;
                println!("{file}: {} views", tiles.len() + 1);
                redraw.reset(Some(engine.now() + Duration::from_secs(2)));
            }
        }
    }
    room.leave().await?;
    engine.close().await;
    Ok(())
}
