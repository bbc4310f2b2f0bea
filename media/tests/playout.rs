//! If these fail, sound stutters, lags or drifts away from the lips although the network did nothing unusual.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use bytes::Bytes;
use parlor_media::audio::{AudioDecode, AudioError};
use parlor_media::frame::{AUDIO_FRAME, EncodedAudio, MediaTime, Samples};
use parlor_media::jitter::{AudioPlayout, AudioPlayoutStats, VideoPlayout};
use parlor_media::pattern::tone_level;
use parlor_media::sync::LipSync;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

const HZ: f64 = 400.0;

/// "Decodes" a packet to a tone whose phase follows from the capture time, and everything else to silence, so that what
/// is heard tells what was played.
struct ToneDecoder;

impl AudioDecode for ToneDecoder {
    fn channels(&self) -> u8 {
        1
    }

    fn decode(&mut self, packet: &EncodedAudio) -> Result<Samples, AudioError> {
        if packet.data.is_empty() {
            return Err(AudioError::Codec { operation: "decoding", reason: "empty".into() });
        }
        let start = packet.time.as_micros() as f64 / 1e6;
        let data = (0..960)
            .map(|n| ((start + f64::from(n) / 48_000.0) * HZ * std::f64::consts::TAU).sin() * 16_000.0);
        Ok(Samples::mono(data.map(|sample| sample as i16).collect(), packet.time))
    }

    fn recover(&mut self, next: &EncodedAudio) -> Result<Samples, AudioError> {
        self.decode(&EncodedAudio { time: next.time - AUDIO_FRAME, ..next.clone() })
    }

    fn conceal(&mut self, time: MediaTime) -> Samples {
        Samples::mono(vec![0; 960], time)
    }
}

fn packet(time: MediaTime) -> EncodedAudio {
    EncodedAudio {
        data: Bytes::from_static(b"tone"),
        time,
        duration: AUDIO_FRAME,
        level: 10,
        voice: true,
        dtx: false,
    }
}

/// A run of a sender, a network and a sink.
struct Run {
    sound: Vec<i16>,
    stats: AudioPlayoutStats,
    /// Offset at each pull, µs.
    offsets: Vec<Option<i64>>,
}

/// Sends `count` packets; `delay(n)` in µs, `None` for lost. The sink's clock runs faster than the sender's by `drift`
/// and it pulls `block` samples at a time.
fn run(count: u64, block: usize, drift: f64, mut delay: impl FnMut(u64) -> Option<u64>) -> Run {
    let mut arrivals: Vec<(u64, u64)> = (0..count)
        .filter_map(|n| Some(((n * 20_000) as f64 * (1.0 + drift)) as u64 + delay(n)?).map(|at| (at, n)))
        .collect();
    arrivals.sort_unstable();
    let mut arrivals = arrivals.into_iter().peekable();
    let mut playout = AudioPlayout::new(ToneDecoder);
    let (mut sound, mut offsets) = (Vec::new(), Vec::new());
    for pull in 0..(count * 960 / block as u64) {
        let now = MediaTime::from_micros(pull * block as u64 * 1_000_000 / 48_000);
        while let Some((at, n)) = arrivals.next_if(|&(at, _)| at <= now.as_micros()) {
            playout.push(n, packet(MediaTime::from_millis(n * 20)), MediaTime::from_micros(at));
        }
        sound.extend_from_slice(playout.pull(now, block).data());
        offsets.push(playout.playout_offset());
    }
    Run { sound, stats: playout.stats(), offsets }
}

/// The part of the 20 ms blocks, after the first two seconds, in which the tone is heard.
fn heard(sound: &[i16]) -> f64 {
    let blocks: Vec<_> = sound.chunks_exact(960).skip(100).collect();
    blocks.iter().filter(|block| tone_level(block, HZ) > 0.3).count() as f64 / blocks.len() as f64
}

#[test]
fn even_arrival_plays_every_packet_with_the_least_delay() {
    for block in [480, 960, 441, 1_024] {
        let run = run(500, block, 0.0, |_| Some(30_000));
        assert!(run.stats.decoded >= 494, "{block}: {:?}", run.stats);
        assert_eq!((run.stats.late, run.stats.skipped, run.stats.pauses), (0, 0, 0), "{block}");
        // A sink whose blocks are no fraction of 20 ms needs two at once now and then, which is learnt at the first.
        assert!(run.stats.concealed <= 1, "{block}: {:?}", run.stats);
        assert_eq!(heard(&run.sound), 1.0);
        let offset = run.offsets.last().copied().flatten().unwrap();
        assert!((30_000..=75_000).contains(&offset), "{block}: 30 ms of network became {offset} us");
    }
}

#[test]
fn jitter_is_absorbed() {
    for seed in 0..5 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let run = run(1_500, 960, 0.0, |_| Some(30_000 + rng.random_range(0..60_000)));
        let Run { stats, .. } = &run;
        assert!(stats.concealed + stats.late <= 45, "more than 3 % was not in time; seed {seed}: {stats:?}");
        assert!(heard(&run.sound) > 0.97, "seed {seed}: {}", heard(&run.sound));
        // 60 ms, and the margin of a link that looks lossy because packets overtake each other.
        assert!(stats.delay <= Duration::from_millis(86), "{stats:?}");
    }
}

#[test]
fn single_losses_are_recovered_and_runs_concealed() {
    let run = run(1_000, 960, 0.0, |n| (n % 10 != 5).then_some(30_000));
    assert!((95..=100).contains(&run.stats.recovered), "{:?}", run.stats);
    assert!(run.stats.concealed <= 3 && heard(&run.sound) > 0.99, "{:?}", run.stats);
    let run = self::run(1_000, 960, 0.0, |n| (n % 50 >= 3).then_some(30_000));
    assert!((17..=21).contains(&run.stats.recovered), "the last of three: {:?}", run.stats);
    assert!((30..=45).contains(&run.stats.concealed), "the first two: {:?}", run.stats);
    assert_eq!(run.stats.pauses, 0);
}

#[test]
fn clocks_may_drift() {
    for drift in [-500e-6, 500e-6, 2_000e-6] {
        let run = run(6_000, 960, drift, |_| Some(30_000));
        let Run { stats, offsets, .. } = &run;
        assert!(stats.concealed <= 6 && stats.late <= 6 && stats.skipped == 0, "{drift}: {stats:?}");
        assert!(heard(&run.sound) > 0.99, "{drift}: {}", heard(&run.sound));
        // 120 s at 500 ppm are 60 ms: the offset follows the sender's clock, the delay stays.
        let drifted = (120e6 * drift) as i64;
        let last = offsets.last().copied().flatten().unwrap();
        assert!(
            (last - drifted - 30_000).abs() <= 60_000,
            "{drift}: {last} us after {drifted} us of drift; {stats:?}"
        );
        let changed = if drift > 0.0 { stats.stretched_samples } else { stats.shrunk_samples };
        assert!(changed > 0, "{drift}: {stats:?}");
    }
}

#[test]
fn delay_comes_down_again_after_a_bad_minute() {
    let mut rng = SmallRng::seed_from_u64(1);
    let run = run(3_000, 960, 0.0, |n| Some(30_000 + if n < 500 { rng.random_range(0..200_000) } else { 0 }));
    let offset_at = |pull: usize| run.offsets[pull].unwrap();
    assert!(offset_at(499) > 150_000, "{}", offset_at(499));
    assert!(offset_at(2_900) < 80_000, "{}: {:?}", offset_at(2_900), run.stats);
    assert!(run.stats.shrunk_samples > 2_400, "{:?}", run.stats);
}

#[test]
fn a_stalled_network_is_caught_up_with() {
    // One second of nothing, then everything at once.
    let run =
        run(1_000, 960, 0.0, |n| Some(30_000 + if (300..350).contains(&n) { (350 - n) * 20_000 } else { 0 }));
    assert!(run.stats.pauses >= 1, "{:?}", run.stats);
    let late = run.offsets[700].unwrap();
    assert!(late < 560_000, "{late} us of delay 7 s after the stall; {:?}", run.stats);
    assert!(heard(&run.sound[480_000..]) > 0.98);
}

#[test]
fn a_pause_of_the_speaker_is_silence_not_loss() {
    let mut playout = AudioPlayout::new(ToneDecoder);
    let ms = MediaTime::from_millis;
    let mut sequence = 0;
    let mut sound = Vec::new();
    for n in 0..300u64 {
        let now = ms(n * 20 + 30);
        if !(100..200).contains(&n) {
            playout.push(sequence, packet(ms(n * 20)), now);
            sequence += 1;
        }
        sound.push(tone_level(playout.pull(now, 960).data(), HZ));
    }
    let stats = playout.stats();
    assert!(stats.concealed <= 5 && stats.late == 0 && stats.recovered == 0, "{stats:?}");
    assert_eq!(stats.pauses, 1);
    assert!(sound[110..195].iter().all(|&level| level < 0.01), "silent in the pause");
    assert!(sound[210..].iter().all(|&level| level > 0.3), "back after it");
}

#[test]
fn odd_input_is_survived() {
    let mut playout = AudioPlayout::new(ToneDecoder);
    assert_eq!(playout.pull(MediaTime::ZERO, 960).data(), [0; 960]);
    assert_eq!(playout.pull(MediaTime::ZERO, usize::MAX).len(), 4_800);
    let mut rng = SmallRng::seed_from_u64(3);
    for round in 0..20_000u64 {
        let time = MediaTime::from_micros(rng.random::<u64>() >> rng.random_range(0..64));
        let data = if rng.random_bool(0.1) { Bytes::new() } else { Bytes::from_static(b"x") };
        let sequence = rng.random::<u64>() >> rng.random_range(0..64);
        playout.push(sequence, EncodedAudio { data, ..packet(time) }, MediaTime::from_millis(round));
        if round % 20 == 0 {
            assert_eq!(playout.pull(MediaTime::from_millis(round), 960).len(), 960);
        }
        assert!(playout.stats().held <= 64);
    }
    // And then an ordinary stream, on yet another clock.
    let start = 50_000_000;
    for n in 0..200 {
        playout.push(
            u64::MAX - 1_000 + n,
            packet(MediaTime::from_millis(start + n * 20)),
            MediaTime::from_millis(20_000 + n * 20),
        );
        let heard = playout.pull(MediaTime::from_millis(20_000 + n * 20), 960);
        assert!(n < 100 || tone_level(heard.data(), HZ) > 0.3, "block {n}: {:?}", playout.stats());
    }
}

/// Sound and pictures of one stream over different delays; gives their offsets after ten seconds and the largest
/// difference of the last ten.
fn lips(sound_delay: u64, picture_delay: u64, jitter: u64, seed: u64) -> (i64, i64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut random = |delay: u64| delay + rng.random_range(0..=jitter);
    let mut sound: Vec<(u64, u64)> = (0..1_000).map(|n| (n * 20 + random(sound_delay), n)).collect();
    let mut pictures: Vec<(u64, u64)> = (0..600).map(|n| (n * 33 + random(picture_delay), n)).collect();
    sound.sort_unstable();
    for index in 1..pictures.len() {
        // Pictures come out of a reorder buffer.
        pictures[index].0 = pictures[index].0.max(pictures[index - 1].0);
    }
    let (mut sound, mut pictures) = (sound.into_iter().peekable(), pictures.into_iter().peekable());
    let (mut audio, mut video, mut sync) =
        (AudioPlayout::new(ToneDecoder), VideoPlayout::new(), LipSync::new());
    let (mut worst, mut last) = (0, 0);
    for millis in 0..19_000 {
        let now = MediaTime::from_millis(millis);
        while let Some((_, n)) = sound.next_if(|&(at, _)| at <= millis) {
            audio.push(n, packet(MediaTime::from_millis(n * 20)), now);
        }
        while let Some((_, n)) = pictures.next_if(|&(at, _)| at <= millis) {
            assert_eq!(video.push(MediaTime::from_millis(n * 33), now, n * 33), None);
            sync.picture(video.wished_offset());
        }
        if millis % 20 == 0 {
            audio.set_floor(sync.sound_floor());
            audio.pull(now, 960);
            sync.sound(audio.playout_offset(), audio.wished_offset());
        }
        video.set_floor(sync.picture_floor());
        while let Some(capture) = video.poll(now) {
            let picture_offset = now.micros_since(MediaTime::from_millis(capture));
            if let (true, Some(sound_offset)) = (millis > 9_000, audio.playout_offset()) {
                worst = worst.max((picture_offset - sound_offset).abs());
                last = sound_offset;
            }
        }
    }
    (worst, last)
}

#[test]
fn lips_and_voice_agree_within_40_ms() {
    for (sound, pictures, jitter) in [(40, 40, 0), (30, 120, 10), (150, 30, 10), (40, 90, 40)] {
        for seed in 0..3 {
            let (worst, offset) = lips(sound, pictures, jitter, seed);
            assert!(worst <= 40_000, "{sound}/{pictures}/{jitter} ms, seed {seed}: {worst} us apart");
            assert!(
                offset <= (sound.max(pictures) + jitter + 75) as i64 * 1_000,
                "agreeing cost too much: {offset} us"
            );
        }
    }
}
