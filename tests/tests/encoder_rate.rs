//! If this fails, the built-in encoders make more than a narrow link carries, and the call grows late, or they never
//! come back to good pictures when there is room again.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::sync::Arc;
use std::time::Duration;

use parlor_client::media::capture::{PatternSource, VideoSource};
use parlor_client::options::VideoSettings;
use parlor_client::pipeline::{VIDEO_CODEC, VideoEncoding};
use parlor_client::publisher::PublisherState;
use parlor_client::{Code, PlayOptions, PublishOptions, Scenario};
use parlor_relay::Config;
use parlor_relay::limits::Limits;
use parlor_tests::world::World;
use parlor_transport::sim::{Profile, Simulation};

const FRAME: Duration = Duration::from_micros(66_667);

/// The narrow link's rate, bits/s: half of what the standard call makes.
const NARROW: u64 = 300_000;

#[test]
fn encoders_follow_the_link_down_and_up_again() {
    Simulation::new(5).run(async |sim| {
        let world = World::new(&sim).await;
        let link = |rate: u64| {
            let queue = (rate, rate as usize / 8 * 3 / 10);
            Profile::perfect().with_rtt(Duration::from_millis(50)).with_rates(queue, queue)
        };
        let ann = world.person("ann", link(5_000_000));
        let bob = world.person("bob", Profile::perfect().with_rtt(Duration::from_millis(50)));
        let viewing = bob.join(&world);
        let player = viewing.play("ann-cam", PlayOptions::new()).unwrap();
        let mut frames = player.frames();
        let room = ann.join(&world);
        let publisher = Arc::new(room.publish(PublishOptions::new("ann-cam").video(VIDEO_CODEC)).unwrap());
        publisher.publishing().await.unwrap();
        let settings = Scenario::StandardCall.video().unwrap();
        let mut encoding = VideoEncoding::new(publisher, 0, settings, 0).unwrap();
        let mut source = PatternSource::new(3, settings.width, settings.height, 15.0).unwrap();
        let clock = sim.clock().clone();
        let watching = clock.clone();
        let ages = tokio::spawn(async move {
            let mut ages = Vec::new();
            while let Some(frame) = frames.next().await {
                if frame.missed > 0 {
                    player.request_keyframe(0);
                }
                ages.push((watching.now(), frame.arrived.saturating_since(frame.header.captured)));
            }
            ages
        });

        let mut picture = async |encoding: &mut VideoEncoding| {
            let picture = source.next(parlor_client::pipeline::media_clock(&clock)()).unwrap().unwrap();
            encoding.push(&picture);
            clock.sleep(FRAME).await;
        };
        for _ in 0..15 * 6 {
            picture(&mut encoding).await;
        }
        assert_eq!(encoding.bitrate(), settings.bitrate, "there is room for all of it");

        ann.host.set_profile(link(NARROW));
        let narrow = sim.clock().now();
        let mut rates = Vec::new();
        for at in 0..15 * 20 {
            picture(&mut encoding).await;
            if at > 15 * 5 {
                rates.push(u64::from(encoding.bitrate()));
            }
        }
        let wide = sim.clock().now();
        let mean = rates.iter().sum::<u64>() / rates.len() as u64;
        assert!((NARROW / 2..=NARROW).contains(&mean), "{mean} bits/s for {NARROW}");

        ann.host.set_profile(link(5_000_000));
        for _ in 0..15 * 15 {
            picture(&mut encoding).await;
        }
        assert_eq!(encoding.bitrate(), settings.bitrate, "it comes back");
        drop((encoding, room));
        viewing.leave().await.unwrap();
        let ages = ages.await.unwrap();
        let mut late: Vec<_> = ages
            .iter()
            .filter(|(at, _)| *at > narrow + Duration::from_secs(5) && *at < wide)
            .map(|(_, age)| *age)
            .collect();
        late.sort_unstable();
        let p95 = late[late.len() * 95 / 100];
        assert!(late.len() > 15 * 12, "{} of {} pictures came", late.len(), 15 * 15);
        assert!(p95 < Duration::from_millis(400), "p95 {p95:?} on a link of {NARROW} bits/s");
    });
}

/// An encoder that may make more than its user may publish.
#[test]
fn encoders_follow_the_relays_limit_and_no_stream_is_lost() {
    Simulation::new(6).time_max(Duration::from_secs(300)).run(async |sim| {
        // The standard call makes up to 600 kbit/s.
        let limits = Limits {
            publish_bytes_per_second_max: 30_000,
            publish_bytes_burst_max: 1 << 20,
            ..Limits::default()
        };
        let limit = 8 * u64::from(limits.publish_bytes_per_second_max);
        let world = World::with_config(&sim, Config { limits, ..Config::dev() }).await;
        let link = Profile::perfect().with_rtt(Duration::from_millis(50));
        let ann = world.person("ann", link);
        let room = ann.join(&world);
        let publisher = Arc::new(room.publish(PublishOptions::new("ann-cam").video(VIDEO_CODEC)).unwrap());
        publisher.publishing().await.unwrap();
        // Small pictures: it is their bytes that count here.
        let settings = VideoSettings { width: 320, height: 180, ..Scenario::StandardCall.video().unwrap() };
        let mut encoding = VideoEncoding::new(publisher.clone(), 0, settings, 0).unwrap();
        let mut source = PatternSource::new(3, settings.width, settings.height, 15.0).unwrap();
        let clock = sim.clock().clone();
        let (mut refused, mut rates) = (Vec::new(), Vec::new());
        for second in 0..150 {
            let before = world.relay.counters();
            for _ in 0..15 {
                let picture = source.next(parlor_client::pipeline::media_clock(&clock)()).unwrap().unwrap();
                encoding.push(&picture);
                clock.sleep(FRAME).await;
            }
            let after = world.relay.counters();
            assert_eq!(publisher.status().state, PublisherState::Publishing, "after {second} s");
            if after.frames_over_limit > before.frames_over_limit {
                refused.push(second);
            }
            rates.push((after.bytes_received - before.bytes_received) * 8);
        }
        println!("frames refused in seconds {refused:?}; bits/s {rates:?}");
        assert_eq!(publisher.status().error.map(|error| error.code), Some(Code::TooManyBytes), "it was told");
        assert!(rates[..5].iter().any(|rate| *rate > limit), "it is over the limit at first");
        let first = refused[0];
        assert!(refused.iter().all(|second| *second <= first + 8 || *second > first + 30), "{refused:?}");
        assert!(refused.len() < 16, "{refused:?}");
        let settled = &rates[first + 10..first + 30];
        let mean = settled.iter().sum::<u64>() / settled.len() as u64;
        assert!((limit / 4..limit).contains(&mean), "{mean} bits/s of {limit}");
    });
}
