//! If these fail, the pictures of a call are wrong: garbled, out of order, too coarse, or shown although broken.
#![cfg(feature = "h264")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use parlor_media::frame::{EncodedVideo, MediaTime, Picture};
use parlor_media::pattern::{self, Pattern};
use parlor_media::video::{Decoded, H264Config, H264Decoder, H264Encoder, VideoError, assembler_build};
use proptest::prelude::*;

const FRAME_MICROS: u64 = 66_667;

fn time(frame: u32) -> MediaTime {
    MediaTime::from_micros(u64::from(frame) * FRAME_MICROS)
}

/// Encodes `count` pictures of the pattern.
fn encode(config: H264Config, count: u32) -> (Vec<Picture>, Vec<EncodedVideo>) {
    let pattern = Pattern::new(7, config.width, config.height).unwrap();
    let mut encoder = H264Encoder::new(config).unwrap();
    (0..count)
        .map(|frame| {
            let picture = pattern.picture(frame, time(frame));
            let encoded = encoder.encode(&picture).unwrap().unwrap();
            (picture, encoded)
        })
        .unzip()
}

fn picture(decoded: Decoded) -> Picture {
    match decoded {
        Decoded::Picture(picture) => picture,
        Decoded::NeedKeyframe => panic!("frozen"),
    }
}

fn kbits_per_second(frames: &[EncodedVideo]) -> f64 {
    let bytes: usize = frames.iter().map(|frame| frame.data.len()).sum();
    bytes as f64 * 8.0 / (frames.len() as f64 * FRAME_MICROS as f64 / 1e6) / 1e3
}

#[test]
fn every_stamp_of_300_pictures_reads_back_in_order() {
    for (config, psnr_min) in [(H264Config::p360(), 35.0), (H264Config::p180(), 33.0)] {
        let (pictures, frames) = encode(config.clone(), 300);
        assert!(frames[0].keyframe, "the first is a keyframe");
        assert!(frames[1..].iter().all(|frame| !frame.keyframe), "no keyframe without being asked");
        let rate = kbits_per_second(&frames);
        assert!(rate < f64::from(config.bitrate) / 1e3 * 1.1, "{rate:.0} kbit/s");
        let mut decoder = H264Decoder::new().unwrap();
        let mut psnr = 0.0;
        for (number, (frame, original)) in frames.iter().zip(&pictures).enumerate() {
            let shown = picture(decoder.decode(frame).unwrap());
            let stamp = pattern::read(&shown).unwrap_or_else(|| panic!("no stamp in picture {number}"));
            assert_eq!((stamp.publisher, stamp.frame as usize, stamp.time), (7, number, time(number as u32)));
            assert_eq!(shown.time(), original.time());
            psnr += shown.psnr_luma(original).unwrap() / 300.0;
        }
        println!("{}x{}: {rate:.0} kbit/s, {psnr:.1} dB", config.width, config.height);
        assert!(psnr >= psnr_min, "{psnr:.1} dB");
    }
}

#[test]
fn bitrate_goes_down_and_far_above_its_start() {
    let config = H264Config::new(640, 360, 15.0, 300_000);
    let pattern = Pattern::new(1, 640, 360).unwrap();
    let mut encoder = H264Encoder::new(config).unwrap();
    let mut frame_number = 0;
    for target in [300_000, 150_000, 1_200_000] {
        encoder.set_bitrate(target).unwrap();
        assert_eq!(encoder.config().bitrate, target);
        let frames: Vec<_> = (0..150)
            .map(|_| {
                frame_number += 1;
                encoder.encode(&pattern.picture(frame_number, time(frame_number))).unwrap().unwrap()
            })
            .collect();
        // The first two seconds of a step are the controller's to settle.
        let ratio = kbits_per_second(&frames[30..]) * 1e3 / f64::from(target);
        assert!((0.9..1.1).contains(&ratio), "{target} bits/s missed: {ratio:.2}");
        assert!(frames[1..].iter().all(|frame| !frame.keyframe), "a new bitrate costs no keyframe");
    }
}

#[test]
fn temporal_layers_can_be_left_out() {
    for layers in 1..=3u8 {
        let (_, frames) = encode(H264Config { temporal_layers: layers, ..H264Config::p360() }, 61);
        let top = layers - 1;
        let expected: &[u8] = [&[0][..], &[0, 1], &[0, 2, 1, 2]][usize::from(top)];
        let found: Vec<u8> = frames[..8].iter().map(|frame| frame.temporal_layer).collect();
        assert_eq!(found, expected.iter().copied().cycle().take(8).collect::<Vec<_>>());
        for frame in &frames {
            assert_eq!(
                frame.discardable,
                layers > 1 && frame.temporal_layer == top,
                "layer {}",
                frame.temporal_layer
            );
        }
        for keep in 0..layers {
            let mut decoder = H264Decoder::new().unwrap();
            for (number, frame) in frames.iter().enumerate().filter(|(_, frame)| frame.temporal_layer <= keep)
            {
                let shown = picture(decoder.decode(frame).unwrap());
                assert_eq!(pattern::read(&shown).map(|stamp| stamp.frame as usize), Some(number));
            }
        }
    }
}

#[test]
fn keyframes_come_on_request_and_by_interval() {
    let pattern = Pattern::new(1, 320, 180).unwrap();
    let mut encoder =
        H264Encoder::new(H264Config { keyframe_interval: Some(30), ..H264Config::p180() }).unwrap();
    let mut keyframes = Vec::new();
    for number in 0..70 {
        if number == 40 {
            encoder.force_keyframe().unwrap();
        }
        if encoder.encode(&pattern.picture(number, time(number))).unwrap().unwrap().keyframe {
            keyframes.push(number);
        }
    }
    assert_eq!(keyframes[..3], [0, 30, 40]);
}

#[test]
fn a_lost_frame_freezes_until_the_next_keyframe() {
    let (_, frames) = encode(H264Config { keyframe_interval: Some(30), ..H264Config::p360() }, 60);
    let mut decoder = H264Decoder::new().unwrap();
    assert_eq!(decoder.decode(&frames[5]), Ok(Decoded::NeedKeyframe), "nothing before the first keyframe");
    for frame in &frames[..10] {
        picture(decoder.decode(frame).unwrap());
    }
    decoder.gap();
    assert!(decoder.needs_keyframe());
    for frame in &frames[11..30] {
        assert_eq!(decoder.decode(frame), Ok(Decoded::NeedKeyframe));
    }
    for (number, frame) in frames.iter().enumerate().skip(30) {
        assert_eq!(pattern::read(&picture(decoder.decode(frame).unwrap())).unwrap().frame as usize, number);
    }
}

#[test]
fn a_loss_nobody_told_of_never_shows_a_broken_picture() {
    let (pictures, frames) = encode(H264Config { keyframe_interval: Some(20), ..H264Config::p360() }, 60);
    for lost in [1, 7, 20, 33] {
        let mut decoder = H264Decoder::new().unwrap();
        for (number, frame) in frames.iter().enumerate().filter(|&(number, _)| number != lost) {
            if let Ok(Decoded::Picture(shown)) = decoder.decode(frame) {
                let psnr = shown.psnr_luma(&pictures[number]).unwrap();
                assert!(psnr > 25.0, "frame {number} after the loss of {lost} at {psnr:.1} dB");
            } else {
                assert!(decoder.needs_keyframe());
            }
        }
        assert!(!decoder.needs_keyframe(), "the last keyframe healed it");
    }
}

#[test]
fn truncated_and_missing_slices_are_errors_not_pictures() {
    let (_, frames) = encode(H264Config { slice_bytes_max: Some(1_100), ..H264Config::p360() }, 12);
    let longest_unit = |data: &[u8]| data.windows(4).filter(|w| w == &[0, 0, 0, 1]).count();
    assert!(longest_unit(&frames[0].data) > 4, "a keyframe has several slices");
    for (index, keep) in [(0, 3_000), (0, 40), (5, 60), (5, 3)] {
        let mut decoder = H264Decoder::new().unwrap();
        frames[..index].iter().for_each(|frame| drop(picture(decoder.decode(frame).unwrap())));
        let mut cut = frames[index].clone();
        cut.data.truncate(keep);
        let error = decoder.decode(&cut).unwrap_err();
        assert!(matches!(error, VideoError::Codec { .. } | VideoError::NoPicture { .. }), "{error}");
        assert!(decoder.needs_keyframe());
        assert_eq!(decoder.decode(&frames[index + 1]), Ok(Decoded::NeedKeyframe));
        picture(decoder.decode(&frames[0]).unwrap());
    }
}

#[test]
fn settings_out_of_range_say_what_is_possible() {
    let bad = [
        H264Config { bitrate: 1, ..H264Config::p360() },
        H264Config { fps: f32::NAN, ..H264Config::p360() },
        H264Config { temporal_layers: 4, ..H264Config::p360() },
        H264Config { width: 641, ..H264Config::p360() },
        H264Config { slice_bytes_max: Some(10), ..H264Config::p360() },
        H264Config { keyframe_interval: Some(0), ..H264Config::p360() },
    ];
    for config in bad {
        assert!(H264Encoder::new(config.clone()).is_err(), "{config:?}");
    }
    let mut encoder = H264Encoder::new(H264Config::p360()).unwrap();
    assert!(encoder.set_bitrate(0).unwrap_err().to_string().contains("choose 10000"));
    let small = Pattern::new(0, 320, 180).unwrap().picture(0, MediaTime::ZERO);
    assert!(matches!(encoder.encode(&small), Err(VideoError::SizeChanged { actual_width: 320, .. })));
}

#[test]
fn codecs_may_move_between_threads() {
    let (_, frames) = encode(H264Config::p180(), 3);
    let mut decoder = H264Decoder::new().unwrap();
    picture(decoder.decode(&frames[0]).unwrap());
    let mut encoder = H264Encoder::new(H264Config::p180()).unwrap();
    let first = Pattern::new(7, 320, 180).unwrap().picture(0, MediaTime::ZERO);
    encoder.encode(&first).unwrap();
    std::thread::spawn(move || {
        picture(decoder.decode(&frames[1]).unwrap());
        encoder.encode(&first).unwrap();
    })
    .join()
    .unwrap();
}

/// The assembler's functions are in this very program, or they are not: their names are in its symbol table.
#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn the_assembler_is_reported_exactly_when_it_is_linked() {
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    // Spliced, or the searched name would be found in the test's own constants.
    let name = ["WelsSampleSad16x16", "_sse2"].concat();
    let linked = program.windows(name.len()).any(|window| window == name.as_bytes());
    println!("assembler build: {}", assembler_build());
    assert_eq!(assembler_build(), linked);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_panics_and_never_shows(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), start: bool) {
        if start {
            bytes.splice(0..0, [0, 0, 0, 1, 0x67]);
        }
        let frame = EncodedVideo { data: Bytes::from(bytes), keyframe: true, temporal_layer: 0, discardable: false, time: MediaTime::ZERO, width: 640, height: 360 };
        let mut decoder = H264Decoder::new().unwrap();
        let _ = decoder.decode(&frame);
    }

    #[test]
    fn damaged_frames_never_panic(positions in proptest::collection::vec((0usize..4_000, any::<u8>()), 1..20), cut in 1usize..4_000) {
        let (_, frames) = encode(H264Config::p180(), 3);
        let mut decoder = H264Decoder::new().unwrap();
        for frame in &frames {
            let mut data = frame.data.to_vec();
            let length = data.len();
            positions.iter().for_each(|&(at, value)| data[at % length] = value);
            data.truncate(cut);
            let _ = decoder.decode(&EncodedVideo { data: data.into(), ..frame.clone() });
        }
    }
}
