//! If this fails, a slow or late player does not get what it could, or costs others theirs.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use parlor_transport::error::Code;
use parlor_transport::quic::Session;
use parlor_transport::sim::{self, LinkConfig, Profile};
use parlor_transport::wire::control::*;
use support::*;

const VIDEO: &[TrackKind] = &[TrackKind::Video];
/// 30 frames of 4,000 bytes and a keyframe of 20,000 every two seconds: about 1 Mbit/s.
const FRAME: usize = 4_000;
const KEYFRAME: usize = 20_000;

/// Sends 30 frames/s for `frames` frames, with a keyframe every `group` and whenever one is asked for.
async fn film(world: &World, client: &mut Client, cam: &mut Publisher, frames: u64, group: u64) {
    for number in 0..frames {
        let asked = std::iter::from_fn(|| client.answers.try_recv().ok())
            .any(|answer| matches!(answer, RelayMessage::KeyframeWanted(_)));
        let keyframe = asked || number % group == 0;
        cam.send(0, keyframe, if keyframe { KEYFRAME } else { FRAME });
        world.pass(Duration::from_micros(33_333)).await;
    }
}

/// A third of it gets through downwards.
fn modem() -> Profile {
    let mut profile = Profile::perfect().with_rtt(RTT);
    profile.down = LinkConfig { rate: Some(300_000), queue_max: 30_000, ..profile.down };
    profile
}

#[test]
fn a_slow_player_slows_nobody_and_gets_only_what_decodes() {
    for delivery in [Delivery::QuicStream, Delivery::Datagram] {
        sim::run(1, async |sim| {
            let world = World::start(&sim).await;
            let mut u1 = world.enter("r", "u1").await;
            let mut fast = world.enter("r", "fast").await;
            let mut slow = world.enter_with("r", "slow", modem()).await;
            let mut cam = u1.publish("cam", delivery, VIDEO).await;
            fast.play("cam", delivery).await;
            slow.play("cam", delivery).await;
            world.pass(millis(200)).await;
            film(&world, &mut u1, &mut cam, 600, 60).await;
            world.pass(millis(2000)).await;

            for number in 0..600 {
                let received = fast.frame().await;
                assert_eq!((received.frame.header().number, received.missed), (number, 0), "{delivery:?}");
            }
            // What its link loses is counted as missed; everything else decodes.
            let (mut received, mut last, mut lost) = (0, 0, true);
            while let Ok(frame) = slow.frames.try_recv() {
                let header = frame.frame.header();
                lost = !header.keyframe && (lost || frame.missed > 0);
                let decodes = header.keyframe || header.number == last + 1;
                assert!(lost || decodes, "{delivery:?}: frame {} after {last}", header.number);
                (received, last) = (received + 1, header.number);
            }
            assert!((20..400).contains(&received), "{delivery:?}: {received} of 600");
        });
    }
}

#[test]
fn a_late_joiner_sees_a_picture_at_once_and_is_live_within_half_a_second() {
    sim::run(2, async |sim| {
        let world = World::start(&sim).await;
        let mut u1 = world.enter("r", "u1").await;
        let mut cam = u1.publish("cam", Delivery::QuicStream, VIDEO).await;
        // The newest keyframe is 1.5 s old.
        film(&world, &mut u1, &mut cam, 45, 60).await;
        let mut late = world.enter("r", "late").await;
        let start = world.now();
        late.play("cam", Delivery::QuicStream).await;
        let first = late.frame().await;
        assert!(first.frame.header().keyframe);
        let took = first.arrived.saturating_since(start);
        assert!(took <= RTT + millis(5), "the first picture took {took:?}");
        film(&world, &mut u1, &mut cam, 15, 60).await;
        let frames: Vec<_> = std::iter::from_fn(|| late.frames.try_recv().ok()).collect();
        let numbers: Vec<_> = frames.iter().map(|received| received.frame.header().number).collect();
        assert_eq!(numbers, (1..numbers.len() as u64 + 1).collect::<Vec<_>>(), "everything since");
        assert!(numbers.len() >= 56, "live after half a second: {}", numbers.len());
        let backlog = frames[43].arrived.saturating_since(start);
        assert!(backlog <= millis(500), "caught up after {backlog:?}");
    });
}

#[test]
fn many_who_need_a_keyframe_cost_the_publisher_one() {
    sim::run(3, async |sim| {
        let world = World::start(&sim).await;
        let mut u1 = world.enter("r", "u1").await;
        let mut cam = u1.publish("cam", Delivery::QuicStream, VIDEO).await;
        cam.send(0, true, KEYFRAME);
        world.pass(millis(100)).await;
        let mut players = Vec::new();
        for number in 0..10 {
            let mut player = world.enter("r", &format!("p{number}")).await;
            let lane = player.play("cam", Delivery::QuicStream).await;
            player.frame().await;
            players.push((player, lane));
        }
        world.pass(millis(1000)).await;
        for (player, lane) in &mut players {
            let ask = RequestKeyframe { lane: *lane, track: 0 };
            player.send(ClientMessage::RequestKeyframe(ask)).await;
        }
        world.pass(millis(2000)).await;
        let asked: Vec<_> = std::iter::from_fn(|| u1.answers.try_recv().ok()).collect();
        let wanted = KeyframeWanted { lane: cam.lane, track: 0, spatial: 0 };
        assert_eq!(asked, [RelayMessage::KeyframeWanted(wanted)]);
        cam.send(0, false, FRAME);
        cam.send(0, true, KEYFRAME);
        for (player, _) in &mut players {
            let header = player.frame().await.frame.header().clone();
            assert_eq!((header.number, header.keyframe), (2, true), "nothing that does not decode");
        }
    });
}

/// It acknowledges everything, as QUIC does by itself, and takes nothing.
async fn deaf(world: &World, stream: &str) -> (impl Sized, Session) {
    let (endpoint, session) =
        world.open("deaf", Profile::perfect().with_rtt(RTT), world.trust).await.unwrap();
    let (mut requests, answers) = session.open_requests().await.unwrap();
    requests.send(&hello()).await.unwrap();
    requests.send(&join("r", "deaf")).await.unwrap();
    let stream = stream.parse().unwrap();
    requests.send(&ClientMessage::Play(Play { request: 2, stream, wishes: vec![] })).await.unwrap();
    ((endpoint, requests, answers), session)
}

/// 35 s of film for one, and perhaps for a deaf one; gives how long the frames took for the one, sorted, and what became of
/// the other: when it was sent away, and how many keyframes were asked for.
fn film_for(delivery: Delivery, is_deaf_there: bool) -> (Vec<Duration>, Option<(Duration, usize)>) {
    sim::run(5, async |sim| {
        let world = World::start(&sim).await;
        let mut u1 = world.enter("r", "u1").await;
        let mut other = world.enter("r", "other").await;
        let mut cam = u1.publish("cam", delivery, VIDEO).await;
        other.play("cam", delivery).await;
        world.pass(millis(200)).await;
        let mut open = None;
        let began = world.now();
        let ended = if is_deaf_there {
            let (kept, session) = deaf(&world, "cam").await;
            open = Some(kept);
            let clock = sim.clock().clone();
            Some(tokio::spawn(async move { (session.closed().await, clock.now()) }))
        } else {
            None
        };
        let (mut sent, mut asked) = (Vec::new(), 0);
        for number in 0..1050 {
            asked += std::iter::from_fn(|| u1.answers.try_recv().ok())
                .filter(|answer| matches!(answer, RelayMessage::KeyframeWanted(_)))
                .count();
            sent.push(world.now());
            cam.send(0, number % 60 == 0, if number % 60 == 0 { KEYFRAME } else { FRAME });
            world.pass(Duration::from_micros(33_333)).await;
        }
        world.pass(millis(200)).await;
        assert_eq!(world.room("r").unwrap().users.len(), 2, "{delivery:?}");
        let mut ages = Vec::new();
        for (number, sent) in sent.iter().enumerate() {
            let received = other.frame().await;
            assert_eq!((received.frame.header().number, received.missed), (number as u64, 0), "{delivery:?}");
            ages.push(received.arrived.saturating_since(*sent));
        }
        ages.sort_unstable();
        let Some(ended) = ended else { return (ages, None) };
        let (ended, at) = ended.await.unwrap();
        assert_eq!((ended.code, ended.by_peer), (Code::PeerTooSlow, true), "{delivery:?}: {ended}");
        drop(open);
        (ages, Some((at.saturating_since(began), asked)))
    })
}

#[test]
fn who_takes_nothing_is_sent_away_and_nobody_else_notices() {
    for delivery in [Delivery::Datagram, Delivery::Adaptive, Delivery::QuicStream] {
        let (alone, _) = film_for(delivery, false);
        let (beside, deaf) = film_for(delivery, true);
        let (after, asked) = deaf.unwrap();
        assert!((11..14).contains(&after.as_secs()), "{delivery:?}: after {after:?}");
        // Before it was known, within three seconds.
        assert!(asked <= 2, "{delivery:?}: {asked} keyframes for one who takes none");
        let figures =
            |ages: &[Duration]| [50, 99, 100].map(|rank| ages[(ages.len() * rank / 100).min(ages.len() - 1)]);
        let (alone, beside) = (figures(&alone), figures(&beside));
        println!(
            "{delivery:?}: sent away after {after:?}; p50, p99 and max of others {alone:?}, beside it {beside:?}"
        );
        for (alone, beside) in alone.iter().zip(beside) {
            assert!(beside <= *alone + millis(1), "{delivery:?}: {alone:?}, beside it {beside:?}");
        }
    }
}

#[test]
fn who_has_nothing_to_take_stays_and_so_does_whoever_the_operator_lets() {
    sim::run(6, async |sim| {
        let mut config = parlor_relay::Config::dev();
        config.limits.slow_subscriber_timeout = Duration::ZERO;
        let world = World::start_with(&sim, config).await;
        let mut u1 = world.enter("r", "u1").await;
        let mut cam = u1.publish("cam", Delivery::Datagram, VIDEO).await;
        let (_open, session) = deaf(&world, "cam").await;
        film(&world, &mut u1, &mut cam, 900, 60).await;
        assert_eq!(session.close_reason(), None);
    });
    sim::run(7, async |sim| {
        let world = World::start(&sim).await;
        let mut u1 = world.enter("r", "u1").await;
        let mut cam = u1.publish("cam", Delivery::Datagram, VIDEO).await;
        let (_open, session) = deaf(&world, "cam").await;
        // Eight seconds of film, minutes of nothing, and a single frame.
        film(&world, &mut u1, &mut cam, 240, 60).await;
        world.pass(Duration::from_secs(400)).await;
        cam.send(0, true, KEYFRAME);
        world.pass(millis(500)).await;
        assert_eq!(session.close_reason(), None);
    });
}

#[test]
fn sound_does_not_wait_behind_pictures() {
    sim::run(4, async |sim| {
        let world = World::start(&sim).await;
        let mut u1 = world.enter("r", "u1").await;
        let mut slow = world.enter_with("r", "slow", modem()).await;
        let kinds = &[TrackKind::Audio, TrackKind::Video];
        let mut talk = u1.publish("talk", Delivery::QuicStream, kinds).await;
        slow.play("talk", Delivery::QuicStream).await;
        world.pass(millis(200)).await;
        let mut sent = Vec::new();
        for number in 0..500 {
            sent.push(world.now());
            talk.send(0, true, 80);
            if number % 2 == 0 {
                talk.send(1, number % 100 == 0, FRAME);
            }
            world.pass(millis(20)).await;
        }
        world.pass(millis(3000)).await;
        let mut waited = [Vec::new(), Vec::new()];
        while let Ok(received) = slow.frames.try_recv() {
            let number = received.frame.header().number as usize;
            let at = if received.track == 0 { number } else { 2 * number };
            waited[usize::from(received.track)].push(received.arrived.saturating_since(sent[at]));
        }
        let [sound, pictures] = &mut waited;
        sound.sort_unstable();
        pictures.sort_unstable();
        assert!(
            sound.len() >= 475,
            "sound gets through, but for what the link drops: {} of 500",
            sound.len()
        );
        assert!((20..200).contains(&pictures.len()), "the link is too slow for pictures: {}", pictures.len());
        // Both wait in the link's own queue; what waits at the relay is pictures.
        let (sound, pictures) = (sound[sound.len() * 9 / 10], pictures[pictures.len() * 9 / 10]);
        assert!(sound + millis(300) < pictures, "sound {sound:?}, pictures {pictures:?}");
    });
}
