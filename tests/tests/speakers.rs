//! If this fails, people in a large room do not hear who speaks, or all pay for those who do not; or an app is told
//! that somebody else speaks. The real stack in virtual time.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parlor_client::player::ReceivedFrame;
use parlor_client::publisher::EncodedFrame;
use parlor_client::room::RoomEvent;
use parlor_client::{AudioLevel, PlayOptions, PublishOptions, Publisher, Room, Timestamp};
use parlor_relay::{Config, RelayHandle};
use parlor_tests::world::World;
use parlor_transport::sim::{self, Profile, Sim};

const LISTENERS: usize = 5;
const FRAME: Duration = Duration::from_millis(20);
/// Frames from the begin of one turn to the next.
const TURN: u32 = 33;
const TURNS: u32 = 20;

/// Those who speak in a turn: from one to the next somebody stops and somebody begins.
fn speakers(turn: u32, publishers: usize) -> Vec<usize> {
    (0..3).map(|place| (turn as usize + place) % publishers).collect()
}

/// Publishes silence and, in its turns, speech, the second of three a little louder.
async fn talk(publisher: Publisher, me: usize, publishers: usize, start: Timestamp) -> Publisher {
    let clock = publisher.clock().clone();
    let phase = FRAME * me as u32 / publishers as u32;
    for number in 0..TURN * TURNS {
        clock.sleep_until(start + phase + FRAME * number).await;
        let place = speakers(number / TURN, publishers).iter().position(|&speaker| speaker == me);
        let level = match place {
            Some(1) => AudioLevel { below_full_scale: 16, voice: true },
            Some(_) => AudioLevel { below_full_scale: 24, voice: true },
            None => AudioLevel { below_full_scale: 90, voice: false },
        };
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(60, 0);
        let frame = EncodedFrame::new(0, publisher.now(), payload);
        _ = publisher.send_frame(EncodedFrame { level: Some(level), ..frame });
    }
    publisher
}

struct Heard {
    /// By listener: stream, number and what else the player knows of the frame.
    frames: Vec<Vec<(usize, u32, ReceivedFrame)>>,
    /// By listener: who was said to lead, and when after the start.
    leaders: Vec<Vec<(Duration, Option<String>)>>,
    relay: RelayHandle,
}

async fn meet(sim: &Sim, publishers: usize) -> Heard {
    let world = World::with_config(sim, Config::dev()).await;
    let link = || Profile::perfect().with_rtt(Duration::from_millis(40));
    let mut rooms: Vec<(parlor_tests::world::Person, Room)> = Vec::new();
    let mut stage = Vec::new();
    for number in 0..publishers {
        let person = world.person(&format!("p{number}"), link());
        let room = person.join(&world);
        let publisher = room.publish(PublishOptions::new(format!("s{number}")).audio("test")).unwrap();
        publisher.publishing().await.unwrap();
        stage.push(publisher);
        rooms.push((person, room));
    }
    let (mut listening, mut hearing) = (Vec::new(), Vec::new());
    let start = sim.clock().now() + Duration::from_secs(2);
    for number in 0..LISTENERS {
        let person = world.person(&format!("l{number}"), link());
        let room = person.join(&world);
        room.joined().await.unwrap();
        let mut events = room.events();
        let clock = sim.clock().clone();
        listening.push(tokio::spawn(async move {
            let mut leaders = Vec::new();
            while let Some(event) = events.next().await {
                if let RoomEvent::ActiveSpeaker(speaker) = event {
                    let named = speaker.map(|speaker| {
                        assert_eq!(speaker.stream.as_str()[1..], speaker.user.as_str()[1..]);
                        speaker.user.to_string()
                    });
                    leaders.push((clock.now().saturating_since(start), named));
                }
            }
            leaders
        }));
        let mut tasks = Vec::new();
        for stream in 0..publishers {
            let player = room.play(format!("s{stream}"), PlayOptions::new()).unwrap();
            tasks.push(tokio::spawn(async move {
                let (mut frames, mut heard) = (player.frames(), Vec::new());
                while let Some(frame) = frames.next().await {
                    let number = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
                    heard.push((stream, number, frame));
                }
                assert_eq!(player.stats().lost, 0);
                heard
            }));
        }
        hearing.push(tasks);
        rooms.push((person, room));
    }
    let talking: Vec<_> = stage
        .into_iter()
        .enumerate()
        .map(|(me, publisher)| tokio::spawn(talk(publisher, me, publishers, start)))
        .collect();
    let mut stage = Vec::new();
    for talk in talking {
        stage.push(talk.await.unwrap());
    }
    sim.clock().sleep(Duration::from_secs(3)).await;
    drop(stage);
    for (_, room) in rooms {
        room.leave().await.unwrap();
    }
    let (mut frames, mut leaders) = (Vec::new(), Vec::new());
    for tasks in hearing {
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        frames.push(all);
    }
    for task in listening {
        leaders.push(task.await.unwrap());
    }
    Heard { frames, leaders, relay: world.relay.clone() }
}

#[test]
fn a_large_room_hears_who_speaks_at_once_and_hardly_anybody_else() {
    sim::run(1, async |sim| {
        let publishers = 10;
        let Heard { frames, leaders, relay } = meet(&sim, publishers).await;
        for heard in &frames {
            assert!(heard.iter().all(|(.., frame)| frame.missed == 0), "what is left out is not missed");
            let mut by_number: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
            heard
                .iter()
                .for_each(|&(stream, number, _)| _ = by_number.entry(number).or_default().insert(stream));
            for number in 0..TURN * TURNS {
                let speakers = speakers(number / TURN, publishers);
                let voices = by_number.get(&number).cloned().unwrap_or_default();
                // When turns change, one voice may have had its frame of the same 20 ms before another took its place.
                let most = if number % TURN < 3 { 5 } else { 4 };
                assert!(voices.len() <= most, "frame {number}: {voices:?}");
                // The last of them has just begun, and is heard from the fourth frame on at the latest: after 60 ms.
                let settled = if number % TURN < 3 { &speakers[..2] } else { &speakers[..] };
                assert!(settled.iter().all(|speaker| voices.contains(speaker)), "frame {number}: {voices:?}");
            }
        }
        let sent = relay.counters();
        let published = u64::from(TURN * TURNS) * publishers as u64;
        assert_eq!((sent.frames_received, sent.frames_lost), (published, 0));
        // Three or four of ten are heard.
        let heard = published - sent.frames_unheard;
        assert!((3 * published / 10..=42 * published / 100).contains(&heard), "{heard} of {published}");
        assert_eq!(sent.frames_sent, heard * LISTENERS as u64);

        for told in &leaders {
            let names: Vec<_> = told.iter().map(|(_, name)| name.as_deref()).collect();
            // Who is first at first, then the loudest of each turn.
            let loudest = (0..TURNS).map(|turn| speakers(turn, publishers)[1]);
            let expected: Vec<_> =
                [0].into_iter().chain(loudest).map(|number| format!("p{number}")).collect();
            let expected: Vec<_> = expected.iter().map(|name| Some(name.as_str())).chain([None]).collect();
            assert_eq!(names, expected);
            for (turn, (after, _)) in told[1..].iter().take(TURNS as usize).enumerate() {
                let after = after.saturating_sub(FRAME * TURN * turn as u32);
                assert!((300..600).contains(&after.as_millis()), "turn {turn}: {after:?}");
            }
            let (silence, _) = told.last().unwrap();
            let silence = silence.saturating_sub(FRAME * TURN * TURNS);
            assert!((1900..2200).contains(&silence.as_millis()), "{silence:?}");
        }
    });
}

#[test]
fn a_small_room_hears_everybody_and_is_told_who_leads() {
    sim::run(2, async |sim| {
        let publishers = 8;
        let Heard { frames, leaders, relay } = meet(&sim, publishers).await;
        let each = (TURN * TURNS) as usize * publishers;
        for heard in &frames {
            assert_eq!((heard.len(), heard.iter().map(|(.., frame)| frame.missed).sum::<u64>()), (each, 0));
        }
        assert_eq!(relay.counters().frames_unheard, 0);
        assert!(leaders.iter().all(|told| told.len() == TURNS as usize + 2), "{leaders:?}");
    });
}
