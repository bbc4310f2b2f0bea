//! An app with a codec of its own: frames go out and come in as they are, and there is no codec in the build.
//!
//! `cargo run -p parlor-client --no-default-features --example custom_encoder -- 'parlor://…'`
//!
//! The "pictures" are numbers. A keyframe holds the number, every other frame the difference to the one before:
//! like any codec it can only start at a keyframe, and makes one when asked to.

use std::error::Error;
use std::time::Duration;

use parlor_client::publisher::{EncodedFrame, SendOutcome};
use parlor_client::{Engine, EngineConfig, JoinOptions, PlayOptions, PublishOptions, Publisher};

/// Encodes 25 numbers a second, with a keyframe whenever somebody needs one.
async fn encode(publisher: &Publisher, count: u64) -> Result<(), Box<dyn Error>> {
    publisher.publishing().await?;
    let mut last = 0;
    for n in 0..count {
        let number = n * n;
        let keyframe = !publisher.take_keyframe_requests().is_empty();
        let payload = if keyframe { number } else { number - last }.to_be_bytes().to_vec();
        let frame = EncodedFrame { keyframe, ..EncodedFrame::new(0, publisher.now(), payload) };
        match publisher.send_frame(frame) {
            SendOutcome::Queued => last = number,
            // Nothing to repair here: the next keyframe request comes by itself.
            SendOutcome::Dropped(reason) => println!("frame {n} was dropped: {reason:?}"),
        }
        publisher.clock().sleep(Duration::from_millis(40)).await;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: custom_encoder ADDRESS")?;
    // Two people in one process: engines are values.
    let (ann, bob) = (Engine::new(EngineConfig::default())?, Engine::new(EngineConfig::default())?);
    let ann_room = ann.join(JoinOptions::new(&address, "ann"))?;
    let bob_room = bob.join(JoinOptions::new(&address, "bob"))?;
    let publisher = ann_room.publish(PublishOptions::new("numbers").video("x-squares"))?;
    let player = bob_room.play("numbers", PlayOptions::new())?;

    let mut frames = player.frames();
    let decode = async {
        let mut number = None;
        let mut seen = 0;
        while seen < 50 {
            let Some(frame) = frames.next().await else { break };
            let value = u64::from_be_bytes(frame.payload[..].try_into().unwrap_or_default());
            number = match number {
                _ if frame.header.keyframe => Some(value),
                Some(before) if frame.missed == 0 => Some(before + value),
                _ => {
                    // Something is missing: wait for a keyframe rather than show nonsense.
                    player.request_keyframe(0);
                    None
                }
            };
            if let Some(number) = number {
                println!("{number:>6}, {:.1} ms old", frame.age().as_secs_f64() * 1000.0);
                seen += 1;
            }
        }
    };
    tokio::select! {
        biased;
        () = decode => {}
        outcome = encode(&publisher, 1000) => outcome?,
    }
    ann.close().await;
    bob.close().await;
    Ok(())
}
