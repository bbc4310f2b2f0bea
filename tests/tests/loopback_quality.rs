//! What was encoded is what is decoded, over real UDP and TLS: if this fails, the transport changes
//! bytes, or the pictures and sound that people get are worse than promised.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::path::Path;

use parlor_client::media::audio::{AudioDecode, OpusConfig, OpusDecoder, OpusEncoder};
use parlor_client::media::capture::{PatternSource, VideoSource, open_clip};
use parlor_client::media::frame::{EncodedAudio, EncodedVideo, MediaTime};
use parlor_client::media::pattern::{Tone, tone_level};
use parlor_client::media::video::{Decoded, H264Config, H264Decoder, H264Encoder};
use parlor_client::publisher::{EncodedFrame, SendOutcome};
use parlor_client::{
    Delivery, Engine, Frames, JoinOptions, PlayOptions, Player, PublishOptions, Publisher, Room, RoomId,
    Scenario,
};
use parlor_relay::{Config, Relay};

/// Two people and a stream with sound on track 0 and pictures on track 1.
struct Call {
    publisher: Publisher,
    frames: Frames,
    _handles: (Engine, Engine, Room, Room, Player),
}

impl Call {
    async fn new(delivery: Delivery) -> Self {
        let relay = Relay::bind(beside_codecs()).await.unwrap();
        let address = relay.address(Some(RoomId::new("quality").unwrap())).to_string();
        tokio::spawn(relay.run(std::future::pending()));
        let engine = || Engine::new(Scenario::StandardCall).unwrap();
        let (sending, receiving) = (engine(), engine());
        let room = sending.join(JoinOptions::new(&address, "ann")).unwrap();
        let options = PublishOptions::new("ann-cam").audio("opus").video("avc1.42e01f").delivery(delivery);
        let publisher = room.publish(options).unwrap();
        publisher.publishing().await.unwrap();
        let viewing = receiving.join(JoinOptions::new(&address, "bob")).unwrap();
        let player = viewing.play("ann-cam", PlayOptions::new()).unwrap();
        player.playing().await.unwrap();
        let frames = player.frames();
        Call { publisher, frames, _handles: (sending, receiving, room, viewing, player) }
    }

    /// Sends one frame and gives its payload as it came. One at a time: nothing depends on how fast
    /// this machine is.
    async fn pass(&mut self, frame: EncodedFrame) -> bytes::Bytes {
        let sent = frame.clone();
        assert_eq!(self.publisher.send_frame(frame), SendOutcome::Queued);
        let came = self.frames.next().await.unwrap();
        assert_eq!((came.header.track, came.header.keyframe), (sent.track, sent.keyframe));
        assert_eq!(came.missed, 0);
        assert_eq!(came.payload, sent.payload, "bit-exact");
        came.payload
    }
}

fn source() -> Box<dyn VideoSource> {
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/media/bigbuckbunny.mp4");
    if clip.exists() {
        Box::new(open_clip(clip, 640, 360, Some(30.0)).unwrap())
    } else {
        Box::new(PatternSource::new(1, 640, 360, 30.0).unwrap())
    }
}

async fn three_hundred_pictures(delivery: Delivery) {
    let mut call = Call::new(delivery).await;
    let mut source = source();
    let mut encoder = H264Encoder::new(H264Config::new(640, 360, 30.0, 600_000)).unwrap();
    let mut decoder = H264Decoder::new().unwrap();
    let (mut psnr, mut shown, mut bytes) = (0.0, 0, 0);
    for number in 0..300u64 {
        let now = MediaTime::from_micros(number * 1_000_000 / 30);
        let picture = source.next(now).unwrap().unwrap();
        let Some(encoded) = encoder.encode(&picture).unwrap() else { continue };
        let frame = EncodedFrame {
            keyframe: encoded.keyframe,
            ..EncodedFrame::new(1, call.publisher.now(), encoded.data.clone())
        };
        let payload = call.pass(frame).await;
        bytes += payload.len();
        let came = EncodedVideo { data: payload, ..encoded };
        match decoder.decode(&came).unwrap() {
            Decoded::Picture(decoded) => {
                psnr += decoded.psnr_luma(&picture).unwrap();
                shown += 1;
            }
            Decoded::NeedKeyframe => panic!("picture {number} does not decode"),
        }
    }
    let (psnr, kbits) = (psnr / f64::from(shown), bytes as f64 * 8.0 / 10.0 / 1000.0);
    println!("{delivery:?}: {shown} pictures, {kbits:.0} kbit/s, PSNR {psnr:.2} dB");
    assert_eq!(shown, 300);
    assert!(psnr >= 37.0, "{psnr:.2} dB at {kbits:.0} kbit/s");
    assert!(kbits <= 660.0, "{kbits:.0} kbit/s");
}

#[tokio::test]
async fn pictures_arrive_bit_exact_as_packets() {
    three_hundred_pictures(Delivery::Adaptive).await;
}

#[tokio::test]
async fn pictures_arrive_bit_exact_on_quic_streams() {
    three_hundred_pictures(Delivery::QuicStream).await;
}

#[tokio::test]
async fn a_tone_comes_out_as_it_went_in() {
    let mut call = Call::new(Delivery::Adaptive).await;
    let mut tone = Tone::new(440.0, 0.5);
    let mut encoder = OpusEncoder::new(OpusConfig::default()).unwrap();
    let mut decoder = OpusDecoder::new(1).unwrap();
    let mut heard = Vec::new();
    for number in 0..150u64 {
        let encoded = encoder.encode(&tone.samples(960, MediaTime::from_millis(number * 20))).unwrap();
        let frame = EncodedFrame {
            keyframe: true,
            ..EncodedFrame::new(0, call.publisher.now(), encoded.data.clone())
        };
        let payload = call.pass(frame).await;
        heard.extend_from_slice(decoder.decode(&EncodedAudio { data: payload, ..encoded }).unwrap().data());
    }
    let last = &heard[heard.len() - 48_000..];
    let (right, wrong) = (tone_level(last, 440.0), tone_level(last, 660.0));
    println!("440 Hz: {right:.3}, 660 Hz: {wrong:.5}");
    assert!((0.4..0.6).contains(&right) && wrong < 0.01, "{right} {wrong}");
}

/// A relay that leaves nothing out: codecs share its threads here, so that it is woken late without being too slow.
fn beside_codecs() -> Config {
    Config { overload: Some(parlor_relay::overload::Shed::NONE), ..Config::dev() }
}
