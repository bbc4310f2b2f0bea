//! If these fail, people do not hear each other: wrong sound, no repair after loss, or pauses that cost bandwidth.
#![cfg(feature = "opus")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use parlor_media::audio::{AudioDecode, AudioError, OpusConfig, OpusDecoder, OpusEncoder};
use parlor_media::frame::{AUDIO_FRAME, AUDIO_FRAME_SAMPLES, EncodedAudio, MediaTime, Samples};
use parlor_media::pattern::{Tone, publisher_hz, tone_level};
use proptest::prelude::*;

fn time(block: usize) -> MediaTime {
    MediaTime::ZERO + AUDIO_FRAME * block as u32
}

/// A voice-like signal whose loudness and pitch change, so that a wrong block is not like the right one.
fn syllables(block: usize) -> Samples {
    let data = (0..AUDIO_FRAME_SAMPLES)
        .map(|index| {
            let at = (block * AUDIO_FRAME_SAMPLES + index) as f64 / 48_000.0;
            let envelope = 0.5 + 0.5 * (at * 25.0).sin();
            let phase = 2.0 * std::f64::consts::PI * (140.0 * at + 4.0 * (at * 9.0).sin());
            let voice: f64 =
                (1..8).map(|harmonic| (phase * f64::from(harmonic)).sin() / f64::from(harmonic)).sum();
            (voice * envelope * 8_000.0) as i16
        })
        .collect();
    Samples::mono(data, time(block))
}

fn encode(config: OpusConfig, blocks: impl Iterator<Item = Samples>) -> Vec<EncodedAudio> {
    let mut encoder = OpusEncoder::new(config).unwrap();
    blocks.map(|block| encoder.encode(&block).unwrap()).collect()
}

#[test]
fn a_tone_comes_back_at_its_frequency_and_loudness() {
    for publisher in [0, 3, 24] {
        let mut tone = Tone::of_publisher(publisher);
        let packets = encode(OpusConfig::default(), (0..50).map(|b| tone.samples(960, time(b))));
        let mut decoder = OpusDecoder::new(1).unwrap();
        let mut sound = Vec::new();
        for packet in &packets {
            let samples = decoder.decode(packet).unwrap();
            assert_eq!((samples.len(), samples.time()), (960, packet.time));
            assert!(packet.level.abs_diff(9) <= 1, "half a full-scale sine is 9 dBov, not {}", packet.level);
            sound.extend_from_slice(samples.data());
        }
        let settled = &sound[9_600..];
        let hz = publisher_hz(publisher);
        assert!((tone_level(settled, hz) - 0.5).abs() < 0.1, "{hz} Hz at {}", tone_level(settled, hz));
        assert!(tone_level(settled, hz + 90.0) < 0.03);
    }
}

#[test]
fn stereo_keeps_its_sides() {
    let (mut left, mut right) = (Tone::new(400.0, 0.4), Tone::new(1_000.0, 0.4));
    let config = OpusConfig { channels: 2, bitrate: 96_000, ..OpusConfig::default() };
    let blocks = (0..50).map(|b| {
        let (l, r) = (left.samples(960, time(b)), right.samples(960, time(b)));
        let both = l.data().iter().zip(r.data()).flat_map(|(&l, &r)| [l, r]).collect();
        Samples::new(both, 2, time(b)).unwrap()
    });
    let mut decoder = OpusDecoder::new(2).unwrap();
    let sound: Vec<i16> =
        encode(config, blocks).iter().flat_map(|p| decoder.decode(p).unwrap().data().to_vec()).collect();
    let side = |offset: usize| sound[9_600..].iter().skip(offset).step_by(2).copied().collect::<Vec<_>>();
    assert!(tone_level(&side(0), 400.0) > 4.0 * tone_level(&side(0), 1_000.0));
    assert!(tone_level(&side(1), 1_000.0) > 4.0 * tone_level(&side(1), 400.0));
}

/// Signal-to-noise ratio in dB of the blocks that were lost, against the same decoder without loss.
fn snr_of_lost(packets: &[EncodedAudio], fec: bool) -> f64 {
    let (mut clean, mut lossy) = (OpusDecoder::new(1).unwrap(), OpusDecoder::new(1).unwrap());
    let (mut signal, mut noise) = (0.0, 0.0);
    for (number, packet) in packets.iter().enumerate() {
        let expected = clean.decode(packet).unwrap();
        let lost = number % 10 == 5 && number + 1 < packets.len();
        let heard = match (lost, fec) {
            (false, _) => lossy.decode(packet).unwrap(),
            (true, false) => lossy.conceal(packet.time),
            (true, true) => lossy.recover(&packets[number + 1]).unwrap(),
        };
        assert_eq!((heard.len(), heard.time()), (expected.len(), expected.time()));
        if lost && number > 20 {
            for (&a, &b) in expected.data().iter().zip(heard.data()) {
                signal += f64::from(a).powi(2);
                noise += (f64::from(a) - f64::from(b)).powi(2);
            }
        }
    }
    10.0 * (signal / noise).log10()
}

#[test]
fn redundancy_repairs_better_than_guessing() {
    let config = OpusConfig { loss_percent: 20, ..OpusConfig::default() };
    let packets = encode(config, (0..200).map(syllables));
    let (guessed, repaired) = (snr_of_lost(&packets, false), snr_of_lost(&packets, true));
    println!("lost blocks: PLC {guessed:.1} dB, FEC {repaired:.1} dB");
    assert!(repaired > guessed + 3.0 && repaired > 5.0, "PLC {guessed:.1} dB, FEC {repaired:.1} dB");
}

#[test]
fn concealment_fades_to_silence() {
    let mut decoder = OpusDecoder::new(1).unwrap();
    encode(OpusConfig::default(), (0..20).map(syllables))
        .iter()
        .for_each(|p| drop(decoder.decode(p).unwrap()));
    let peak = |samples: &Samples| samples.data().iter().map(|s| s.unsigned_abs()).max().unwrap();
    let first = peak(&decoder.conceal(time(20)));
    let late = (21..60).map(|block| peak(&decoder.conceal(time(block)))).last().unwrap();
    assert!(first > 500 && late < first / 10, "first {first}, after 0.8 s {late}");
}

#[test]
fn pauses_need_not_be_sent() {
    let silence = |block| Samples::mono(vec![0; 960], time(block));
    let packets = encode(OpusConfig::default(), (0..100).map(silence));
    let sent: Vec<_> = packets.iter().filter(|packet| !packet.dtx).collect();
    assert!(sent.len() <= 20, "{} of 100 silent packets to be sent", sent.len());
    assert!(packets.iter().all(|packet| packet.level == 127 && !packet.voice));
    let without = encode(OpusConfig { dtx: false, ..OpusConfig::default() }, (0..100).map(silence));
    assert!(without.iter().all(|packet| !packet.dtx));
    let speech = encode(OpusConfig::default(), (0..100).map(syllables));
    assert!(speech.iter().all(|packet| !packet.dtx) && speech.iter().skip(2).all(|packet| packet.voice));
}

#[test]
fn wrong_blocks_and_settings_are_refused() {
    let mut encoder = OpusEncoder::new(OpusConfig::default()).unwrap();
    let short = Samples::mono(vec![0; 480], MediaTime::ZERO);
    assert_eq!(encoder.encode(&short), Err(AudioError::Block { samples: 480, channels: 1, expected: 1 }));
    assert!(encoder.set_bitrate(5).unwrap_err().to_string().contains("6000"));
    assert!(encoder.set_loss_percent(101).is_err());
    assert!(OpusEncoder::new(OpusConfig { channels: 3, ..OpusConfig::default() }).is_err());
    assert!(OpusDecoder::new(0).is_err());
    encoder.set_bitrate(64_000).unwrap();
    assert_eq!(encoder.config().bitrate, 64_000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_panics(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..5)) {
        let mut decoder = OpusDecoder::new(1).unwrap();
        for data in packets {
            let packet = EncodedAudio { data: Bytes::from(data), time: MediaTime::from_millis(100), duration: AUDIO_FRAME, level: 0, voice: false, dtx: false };
            if let Ok(samples) = decoder.decode(&packet) {
                prop_assert!(samples.len() <= 5_760);
            }
            let _ = decoder.recover(&packet);
            prop_assert_eq!(decoder.conceal(MediaTime::ZERO).len(), 960);
        }
    }
}
