//! If this fails, the built-in pipelines lose, spoil or mislabel pictures or sound between a capture and the views of
//! others. Real codecs, real UDP, on this machine's loopback.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use parlor_client::media::frame::{Picture, Samples};
use parlor_client::media::pattern::{self, Stamp, publisher_hz, tone_level};
use parlor_client::media::play::{AudioPump, LatestPicture, Mixer};
use parlor_client::pipeline::{Capture, Recording, Sources, media_clock};
use parlor_client::player::PlayerState;
use parlor_client::publisher::{DropReason, PublisherState};
use parlor_client::{Engine, JoinOptions, PlayOptions, Room, RoomId, Scenario};
use parlor_relay::{Config, Relay};

/// Only a test that hangs gets there.
const HUNG: Duration = Duration::from_secs(60);

async fn relay() -> String {
    let relay = Relay::bind(beside_codecs()).await.unwrap();
    let address = relay.address(Some(RoomId::new("studio").unwrap())).to_string();
    tokio::spawn(relay.run(std::future::pending()));
    address
}

fn person(address: &str, user: &str) -> (Engine, Room) {
    let engine = Engine::new(Scenario::StandardCall).unwrap();
    let room = engine.join(JoinOptions::new(address, user)).unwrap();
    (engine, room)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_and_sound_arrive_as_they_were_captured() {
    let address = relay().await;
    let ((engine, room), (viewer, viewing)) = (person(&address, "ann"), person(&address, "bob"));
    let mirror = LatestPicture::new();
    let capture = Capture::start(&engine, Sources::pattern(7, Scenario::StandardCall).unwrap()).unwrap();
    let _preview = capture.preview(mirror.clone());
    let broadcast = capture.publish(&room, "ann-cam").unwrap();

    let stamps: Arc<Mutex<Vec<Stamp>>> = Arc::default();
    let heard: Arc<Mutex<Vec<i16>>> = Arc::default();
    let mixer = Mixer::new();
    let ear = {
        let heard = Arc::clone(&heard);
        let sink = move |samples: &Samples| heard.lock().unwrap().extend_from_slice(samples.data());
        AudioPump::start(media_clock(viewer.clock()), mixer.clone(), sink).unwrap()
    };
    let player = viewing.play("ann-cam", PlayOptions::new()).unwrap();
    let seen = Arc::clone(&stamps);
    let view = move |picture: &Picture| seen.lock().unwrap().push(pattern::read(picture).unwrap());
    let playback = player.show(view, &mixer).unwrap();
    let clock = viewer.clock().clone();
    let enough = async {
        while stamps.lock().unwrap().len() < 45 || heard.lock().unwrap().len() < 3 * 48_000 {
            clock.sleep(Duration::from_millis(20)).await;
        }
    };
    clock.timeout(HUNG, enough).await.unwrap();

    let all = Arc::clone(&stamps);
    let stamps = stamps.lock().unwrap().clone();
    assert!(stamps.iter().all(|stamp| stamp.publisher == 7));
    assert!(stamps.windows(2).all(|pair| pair[0].frame < pair[1].frame), "pictures go forward");
    assert!(mirror.count() >= 45);
    let heard = heard.lock().unwrap().clone();
    let last = &heard[heard.len() - 48_000..];
    let (own, other) = (tone_level(last, publisher_hz(7)), tone_level(last, publisher_hz(8)));
    assert!(own > 10.0 * other && own > 0.05, "the right tone: {own} against {other}");
    let stats = playback.stats();
    assert!(stats.shown >= 45 && stats.level.is_some() && stats.video.age_p50.is_some());

    // Muted pictures are not sent; unmuted, they come back with a keyframe, and a gap between their numbers.
    let publisher = broadcast.publisher();
    broadcast.mute_video(true);
    let muted = async {
        while publisher.stats().counts.dropped(DropReason::Muted) < 10 {
            clock.sleep(Duration::from_millis(20)).await;
        }
    };
    clock.timeout(HUNG, muted).await.unwrap();
    broadcast.mute_video(false);
    let has_gap = || all.lock().unwrap().windows(2).any(|pair| pair[1].frame >= pair[0].frame + 10);
    let back = async {
        while !has_gap() {
            clock.sleep(Duration::from_millis(20)).await;
        }
    };
    clock.timeout(HUNG, back).await.unwrap();

    let playing = playback.player().status();
    drop(broadcast);
    let ended = clock.timeout(HUNG, playback.player().changed_from(&playing)).await.unwrap();
    assert_eq!((ended.state, ended.error), (PlayerState::Requesting, None));
    drop(ear);
    engine.close().await;
    viewer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_is_a_file_that_others_read() {
    let address = relay().await;
    let ((engine, room), (recorder, recording_room)) = (person(&address, "ann"), person(&address, "tape"));
    let capture = Capture::start(&engine, Sources::pattern(3, Scenario::StandardCall).unwrap()).unwrap();
    let _broadcast = capture.publish(&room, "ann-cam").unwrap();
    let player = recording_room.play("ann-cam", PlayOptions::new()).unwrap();
    let clock = recorder.clock().clone();
    clock.timeout(HUNG, player.playing()).await.unwrap().unwrap();
    let path = std::env::temp_dir().join(format!("parlor-recording-{}.mp4", std::process::id()));
    let mut recording = Recording::start(&player, &path).unwrap();
    // Two seconds of media, however long they take.
    _ = clock.timeout(Duration::from_secs(3), recording.run()).await;
    let recorded = recording.finish().unwrap();
    assert!(recorded.pictures >= 10 && recorded.packets >= 30, "{recorded:?}");
    let probe = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-count_frames",
            "-show_entries",
            "stream=codec_name,width,height,nb_read_frames",
        ])
        .args(["-of", "csv=p=0"])
        .arg(&path)
        .output()
        .expect("ffprobe is installed (make setup)");
    let text = String::from_utf8(probe.stdout).unwrap();
    assert!(probe.status.success() && probe.stderr.is_empty(), "{}", String::from_utf8_lossy(&probe.stderr));
    assert!(text.contains(&format!("h264,640,360,{}", recorded.pictures)), "{text}");
    assert!(text.contains("opus"), "{text}");
    std::fs::remove_file(path).unwrap();
    engine.close().await;
    recorder.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_and_its_preview_go_on_when_the_room_is_switched() {
    let address = relay().await;
    let (engine, mut room) = person(&address, "ann");
    let mirror = LatestPicture::new();
    let capture = Capture::start(&engine, Sources::pattern(7, Scenario::StandardCall).unwrap()).unwrap();
    let _preview = capture.preview(mirror.clone());
    let broadcast = capture.publish(&room, "ann-cam").unwrap();
    broadcast.publisher().publishing().await.unwrap();

    engine.switch_room(&mut room, "lounge").await.unwrap();
    assert_eq!(broadcast.publisher().status().state, PublisherState::Idle);
    let again = capture.publish(&room, "ann-cam").unwrap();
    again.publisher().publishing().await.unwrap();
    let (shown, clock) = (mirror.count(), engine.clock().clone());
    let more = async {
        while mirror.count() < shown + 5 {
            clock.sleep(Duration::from_millis(20)).await;
        }
    };
    clock.timeout(HUNG, more).await.unwrap();
}

/// A relay that leaves nothing out: codecs share its threads here, so that it is woken late without being too slow.
fn beside_codecs() -> Config {
    Config { overload: Some(parlor_relay::overload::Shed::NONE), ..Config::dev() }
}
