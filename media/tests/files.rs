//! If these fail, recordings cannot be played, clips cannot be published, or a bad file brings a call down.
#![cfg(all(feature = "files", feature = "h264", feature = "opus"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

use parlor_media::audio::{OpusConfig, OpusEncoder};
use parlor_media::capture::{AudioSource, CaptureError, VideoSource, WavSource, open_clip};
use parlor_media::frame::{AUDIO_FRAME, AUDIO_FRAME_SAMPLES, MediaTime, Picture, Samples};
use parlor_media::pattern::{self, Pattern, Tone, tone_level};
use parlor_media::play::{ContactSheet, Mp4Recorder, PlayError, RecordedTracks, View, WavWriter, Y4mWriter};
use parlor_media::video::{Decoded, H264Config, H264Decoder, H264Encoder};

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("parlor-media-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The clip and the speech that stand beside the workspace, if they do.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/media").join(name);
    path.exists().then_some(path)
}

/// What ffprobe says; a missing ffprobe fails the test.
fn ffprobe(path: &Path, entries: &str) -> String {
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-count_packets",
            "-of",
            "default=noprint_wrappers=1",
            "-show_entries",
            entries,
        ])
        .arg(path)
        .output()
        .expect("ffprobe is needed by this test: install ffmpeg (make setup does)");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn number(probe: &str, key: &str) -> f64 {
    let line = probe.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
    line.unwrap_or_else(|| panic!("no {key} in\n{probe}")).parse().unwrap()
}

/// Records `seconds` of pattern at 15 pictures/s, tone, or both, from a clock that does not start at zero.
fn record(path: &Path, tracks: RecordedTracks, seconds: u64) {
    let mut recorder = Mp4Recorder::create(path, tracks).unwrap();
    let pattern = Pattern::new(1, 320, 180).unwrap();
    let mut encoder =
        H264Encoder::new(H264Config { keyframe_interval: Some(30), ..H264Config::p180() }).unwrap();
    let mut opus = OpusEncoder::new(OpusConfig::default()).unwrap();
    let mut tone = Tone::new(440.0, 0.5);
    let origin = MediaTime::from_millis(7_777_777);
    let (mut pictures, mut blocks) = (0, 0);
    for millis in 0..seconds * 1_000 {
        let now = origin + std::time::Duration::from_millis(millis);
        if tracks.video && millis * 15 >= u64::from(pictures) * 1_000 {
            let frame = encoder.encode(&pattern.picture(pictures, now)).unwrap().unwrap();
            recorder.video(&frame).unwrap();
            pictures += 1;
        }
        if tracks.audio.is_some() && millis >= blocks * 20 {
            recorder.audio(&opus.encode(&tone.samples(960, now)).unwrap()).unwrap();
            blocks += 1;
        }
    }
    recorder.finish().unwrap();
}

#[test]
fn ffprobe_reads_recordings_and_their_durations() {
    let folder = Folder::new("ffprobe");
    let both = folder.file("both.mp4");
    record(&both, RecordedTracks { video: true, audio: Some(1) }, 5);
    let all = ffprobe(&both, "format=duration");
    assert!((number(&all, "duration") - 5.0).abs() < 0.1, "{all}");
    for (stream, codec, packets) in [("v", "h264", 75.0), ("a", "opus", 250.0)] {
        let output = Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-count_packets",
                "-of",
                "default=noprint_wrappers=1",
                "-select_streams",
                stream,
            ])
            .args([
                "-show_entries",
                "stream=codec_name,width,sample_rate,channels,duration,start_time,nb_read_packets",
            ])
            .arg(&both)
            .output()
            .unwrap();
        let probe = String::from_utf8(output.stdout).unwrap();
        assert!(probe.contains(&format!("codec_name={codec}")), "{probe}");
        assert_eq!(number(&probe, "nb_read_packets"), packets, "{probe}");
        assert!((number(&probe, "duration") - 5.0).abs() < 0.1, "{probe}");
        assert!(number(&probe, "start_time").abs() < 0.05, "{probe}");
    }

    let sound = folder.file("sound.mp4");
    record(&sound, RecordedTracks { video: false, audio: Some(1) }, 3);
    assert!((number(&ffprobe(&sound, "format=duration"), "duration") - 3.0).abs() < 0.1);
    let pictures = folder.file("pictures.mp4");
    record(&pictures, RecordedTracks { video: true, audio: None }, 3);
    let probe = ffprobe(&pictures, "stream=duration,width,height,nb_read_packets");
    assert_eq!((number(&probe, "width"), number(&probe, "height")), (320.0, 180.0));
    assert!((number(&probe, "duration") - 3.0).abs() < 0.1, "{probe}");
}

#[test]
fn ffmpeg_decodes_a_recording_without_a_complaint() {
    let folder = Folder::new("ffmpeg");
    let path = folder.file("both.mp4");
    record(&path, RecordedTracks { video: true, audio: Some(1) }, 3);
    let wav = folder.file("sound.wav");
    let output = Command::new("ffmpeg")
        .args(["-v", "warning", "-i"])
        .arg(&path)
        .args(["-map", "0:v", "-f", "null", "-", "-map", "0:a", "-ac", "1"])
        .arg(&wav)
        .output()
        .expect("ffmpeg is needed by this test: install ffmpeg (make setup does)");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut source = WavSource::open(&wav).unwrap();
    let sound: Vec<i16> =
        (0..140).flat_map(|_| source.next(MediaTime::ZERO).unwrap().unwrap().data().to_vec()).collect();
    assert!((tone_level(&sound[48_000..], 440.0) - 0.5).abs() < 0.1);
}

#[test]
fn a_recording_is_a_clip_again() {
    let folder = Folder::new("again");
    let path = folder.file("clip.mp4");
    record(&path, RecordedTracks { video: true, audio: Some(1) }, 2);
    let mut clip = open_clip(&path, 320, 180, None).unwrap();
    assert!((clip.format().fps - 15.0).abs() < 0.1, "{:?}", clip.format());
    for number in 0..70u32 {
        let now = MediaTime::from_millis(u64::from(number) * 66);
        let picture = clip.next(now).unwrap().unwrap();
        assert_eq!(picture.time(), now);
        assert_eq!(pattern::read(&picture).unwrap().frame, number % 30, "loops after its 30 pictures");
    }
    // At another rate, pictures are left out or repeated.
    let mut fast = open_clip(&path, 320, 180, Some(30.0)).unwrap();
    let frames: Vec<u32> =
        (0..6).map(|_| pattern::read(&fast.next(MediaTime::ZERO).unwrap().unwrap()).unwrap().frame).collect();
    assert_eq!(frames, [0, 0, 1, 1, 2, 2]);
}

#[test]
fn a_gap_in_the_frames_is_time_in_the_recording() {
    let folder = Folder::new("gap");
    let path = folder.file("gap.mp4");
    let mut recorder = Mp4Recorder::create(&path, RecordedTracks { video: true, audio: Some(1) }).unwrap();
    let pattern = Pattern::new(1, 320, 180).unwrap();
    let mut encoder = H264Encoder::new(H264Config::p180()).unwrap();
    let mut opus = OpusEncoder::new(OpusConfig::default()).unwrap();
    let mut tone = Tone::new(440.0, 0.5);
    for second in [0, 1, 4, 5] {
        for tick in 0..50 {
            let now = MediaTime::from_millis(second * 1_000 + tick * 20);
            if tick % 5 == 0 {
                recorder.video(&encoder.encode(&pattern.picture(0, now)).unwrap().unwrap()).unwrap();
            }
            recorder.audio(&opus.encode(&tone.samples(960, now)).unwrap()).unwrap();
        }
    }
    recorder.finish().unwrap();
    let probe = ffprobe(&path, "format=duration");
    assert!((number(&probe, "duration") - 6.0).abs() < 0.1, "{probe}");
}

#[test]
fn raw_files_come_back_bit_by_bit() {
    let folder = Folder::new("raw");
    let pattern = Pattern::new(2, 160, 90).unwrap();
    let pictures: Vec<Picture> = (0..5).map(|n| pattern.picture(n, MediaTime::ZERO)).collect();
    let y4m = folder.file("a.y4m");
    let mut writer = Y4mWriter::create(&y4m, 160, 90, 15).unwrap();
    pictures.iter().for_each(|picture| writer.show(picture));
    writer.finish().unwrap();
    let mut clip = open_clip(&y4m, 160, 90, None).unwrap();
    assert_eq!(clip.format().fps, 15.0);
    for picture in pictures.iter().chain(&pictures) {
        assert_eq!(clip.next(MediaTime::ZERO).unwrap().unwrap(), *picture);
    }

    let wav = folder.file("a.wav");
    let mut writer = WavWriter::create(&wav, 1).unwrap();
    let sound = Tone::new(440.0, 0.5).samples(960, MediaTime::ZERO);
    writer.write(&sound).unwrap();
    writer.finish().unwrap();
    let read = WavSource::open(&wav).unwrap().next(MediaTime::ZERO).unwrap().unwrap();
    assert!(read.data().iter().zip(sound.data()).all(|(a, b)| a.abs_diff(*b) <= 1));
}

#[test]
fn a_contact_sheet_is_a_png_with_the_tiles_in_it() {
    let folder = Folder::new("sheet");
    let path = folder.file("sheet.png");
    let mut sheet = ContactSheet::new(160, 90, 2).unwrap();
    let red = Picture::filled(640, 360, [81, 90, 240], MediaTime::ZERO).unwrap();
    assert!(sheet.add(Some(&red), "u1 sees u2: 15.0 f/s, 42 ms"));
    assert!(sheet.add(Some(&Pattern::new(1, 320, 180).unwrap().picture(7, MediaTime::ZERO)), "u1 sees u3"));
    assert!(sheet.add(None, "u1 sees nothing"));
    sheet.write_png(&path).unwrap();
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut rgb).unwrap();
    assert_eq!((info.width, info.height), (2 * 164 + 4, 2 * (90 + 22) + 4));
    let pixel = |x: usize, y: usize| &rgb[(y * info.width as usize + x) * 3..][..3];
    assert!(
        pixel(80, 50)[0] > 240 && pixel(80, 50)[1] < 15 && pixel(80, 50)[2] < 15,
        "red is {:?}",
        pixel(80, 50)
    );
    assert_eq!(pixel(80, 50 + 112), [0, 0, 0], "a missing picture is black");
    let caption =
        (94..116).flat_map(|y| (4..164).map(move |x| (x, y))).filter(|&(x, y)| pixel(x, y)[0] == 230).count();
    assert!(caption > 100, "{caption} pixels of caption");
}

#[test]
fn a_path_that_cannot_be_written_is_named() {
    let path = Path::new("/nonexistent-folder/out.mp4");
    let tracks = RecordedTracks { video: true, audio: None };
    let mut sheet = ContactSheet::new(160, 90, 1).unwrap();
    sheet.add(None, "");
    let errors = [
        Mp4Recorder::create(path, tracks).err(),
        Y4mWriter::create(path, 160, 90, 15).err(),
        WavWriter::create(path, 1).err(),
        sheet.write_png(path).err(),
    ];
    for error in errors {
        let error = error.unwrap();
        assert!(matches!(&error, PlayError::Output { path: named, .. } if named == path), "{error}");
        assert!(error.to_string().contains("/nonexistent-folder/out.mp4"), "{error}");
    }
    let folder = Folder::new("unfit");
    let recorder = Mp4Recorder::create(folder.file("empty.mp4"), tracks).unwrap();
    assert!(recorder.finish().unwrap_err().to_string().contains("nothing was recorded"));
    assert!(Mp4Recorder::create(folder.file("x"), RecordedTracks { video: false, audio: None }).is_err());
}

#[test]
fn what_is_no_clip_says_so() {
    let folder = Folder::new("bad");
    let open = |name: &str, bytes: &[u8]| {
        let path = folder.file(name);
        std::fs::write(&path, bytes).unwrap();
        open_clip(&path, 320, 180, None).err().unwrap().to_string()
    };
    assert!(open("text.mp4", b"this is no clip at all").contains("neither MP4 nor Y4M"));
    assert!(open("empty.y4m", b"").contains("neither MP4 nor Y4M"));
    assert!(open("head.mp4", b"\0\0\0\x14ftypiso6\0\0\x02\0mp41").contains("head.mp4"));
    assert!(open("none.y4m", b"YUV4MPEG2 W320 H180 F15:1 C420jpeg\n").contains("no picture"));
    assert!(open("cut.y4m", b"YUV4MPEG2 W320 H180 F15:1 C420jpeg\nFRAME\nxx").contains("cut.y4m"));
    assert!(open("444.y4m", b"YUV4MPEG2 W320 H180 F15:1 C444\nFRAME\n").contains("yuv420p"));
    let missing = open_clip(folder.file("missing.mp4"), 320, 180, None).err().unwrap();
    assert!(matches!(missing, CaptureError::Unreadable { .. }), "{missing}");

    let wav = folder.file("no.wav");
    std::fs::write(&wav, b"RIFF but no wave").unwrap();
    assert!(matches!(WavSource::open(&wav), Err(CaptureError::NotAClip { .. })));
    record(&folder.file("sound.mp4"), RecordedTracks { video: false, audio: Some(1) }, 1);
    let sound_only = open_clip(folder.file("sound.mp4"), 320, 180, None).err().unwrap().to_string();
    assert!(sound_only.contains("no H.264 track"), "{sound_only}");
}

/// The clip if it is there, else the pattern, at 640x360 and 600 kbit/s.
#[test]
fn psnr_at_600_kbits_is_37_db_or_more() {
    let mut source: Box<dyn VideoSource> = match shared("bigbuckbunny.mp4") {
        Some(path) => Box::new(open_clip(path, 640, 360, None).unwrap()),
        None => Box::new(parlor_media::capture::PatternSource::new(1, 640, 360, 25.0).unwrap()),
    };
    let fps = source.format().fps;
    let mut encoder = H264Encoder::new(H264Config::new(640, 360, fps, 600_000)).unwrap();
    let mut decoder = H264Decoder::new().unwrap();
    let (mut psnr, mut bytes) = (0.0, 0);
    const PICTURES: u32 = 132;
    for number in 0..PICTURES {
        let picture = source.next(MediaTime::ZERO + AUDIO_FRAME * number * 2).unwrap().unwrap();
        let frame = encoder.encode(&picture).unwrap().unwrap();
        bytes += frame.data.len();
        let Decoded::Picture(shown) = decoder.decode(&frame).unwrap() else { panic!("frozen") };
        psnr += shown.psnr_luma(&picture).unwrap() / f64::from(PICTURES);
    }
    let rate = bytes as f64 * 8.0 / f64::from(PICTURES) * f64::from(fps) / 1e3;
    println!("{psnr:.2} dB at {rate:.0} kbit/s, {fps} pictures/s");
    assert!(psnr >= 37.0, "{psnr:.2} dB at {rate:.0} kbit/s");
    assert!(rate <= 660.0, "{rate:.0} kbit/s");
}

#[test]
fn speech_is_voice_and_comes_through() {
    let folder = Folder::new("speech");
    let made = folder.file("made.wav");
    let mut writer = WavWriter::create(&made, 1).unwrap();
    (0..250).for_each(|block| writer.write(&voice(block)).unwrap());
    writer.finish().unwrap();
    speech_comes_through(&made);
    match shared("speech.wav") {
        Some(path) => speech_comes_through(&path),
        None => {
            eprintln!("NOT TRIED: real speech (../shared/media/speech.wav is not there); a made voice was")
        }
    }
}

/// A voice-like signal: harmonics of a pitch that wanders, in syllables.
fn voice(block: u32) -> Samples {
    let sample = |index: u32| {
        let at = f64::from(block * AUDIO_FRAME_SAMPLES as u32 + index) / 48_000.0;
        let phase = std::f64::consts::TAU * (140.0 * at + 4.0 * (at * 9.0).sin());
        let sum: f64 = (1..8).map(|harmonic| (phase * f64::from(harmonic)).sin() / f64::from(harmonic)).sum();
        (sum * (0.5 + 0.5 * (at * 25.0).sin()) * 8_000.0) as i16
    };
    Samples::mono(
        (0..AUDIO_FRAME_SAMPLES as u32).map(sample).collect(),
        MediaTime::ZERO + AUDIO_FRAME * block,
    )
}

fn speech_comes_through(path: &Path) {
    let mut source = WavSource::open(path).unwrap();
    let mut encoder = OpusEncoder::new(OpusConfig::default()).unwrap();
    let packets: Vec<_> =
        (0..250).map(|_| encoder.encode(&source.next(MediaTime::ZERO).unwrap().unwrap()).unwrap()).collect();
    let voice = packets.iter().filter(|packet| packet.voice).count();
    assert!(voice > 125, "{voice} of 250 blocks are voice");
    let bytes: usize = packets.iter().map(|packet| packet.data.len()).sum();
    assert!(bytes * 8 / 5 < 36_000, "{} bits/s", bytes * 8 / 5);
}
