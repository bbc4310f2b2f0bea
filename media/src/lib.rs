//! Media for calls, without the call: codecs, capture, playout, and pictures and tones that a test can recognise.
//!
//! Nothing here knows of a network. Encoded frames go out and come in as values ([`frame`]); how they travel, which are
//! asked for again and who gets which is decided elsewhere. The code is synchronous; threads exist only where a device or
//! a clock needs one ([`capture`], [`play`]), and time is an argument everywhere else.
//!
//! # The way of a picture
//! [`capture::VideoSource`] → [`capture::VideoCapture`] (own thread; previews, and an output) → [`video::H264Encoder`] →
//! *the network* → [`jitter::VideoPlayout`] (when?) → [`video::H264Decoder`] (freezes rather than show a broken picture)
//! → [`play::View`], which an app implements.
//!
//! # The way of sound
//! [`capture::AudioSource`] → [`capture::AudioCapture`] → [`audio::OpusEncoder`] → *the network* →
//! [`jitter::AudioPlayout`] (decodes, repairs, conceals, and holds the delay) → [`play::Mixer`] → a speaker or
//! [`play::AudioPump`], which pull on their own clock. [`sync::LipSync`] passes offsets between the two playouts.
//!
//! # A call with oneself
#![cfg_attr(all(feature = "h264", feature = "opus"), doc = "```")]
#![cfg_attr(not(all(feature = "h264", feature = "opus")), doc = "```ignore")]
//! use parlor_media::audio::{OpusConfig, OpusDecoder, OpusEncoder};
//! use parlor_media::frame::MediaTime;
//! use parlor_media::jitter::{AudioPlayout, VideoPlayout};
//! use parlor_media::pattern::{self, Pattern, Tone};
//! use parlor_media::video::{Decoded, H264Config, H264Decoder, H264Encoder};
//!
//! // Publisher number 1: a test picture and a tone, 15 pictures and 50 packets a second.
//! let (pattern, mut tone) = (Pattern::new(1, 320, 180)?, Tone::of_publisher(1));
//! let mut h264 = H264Encoder::new(H264Config::p180())?;
//! let mut opus = OpusEncoder::new(OpusConfig::default())?;
//!
//! // Player: playout buffers and decoders.
//! let mut pictures = VideoPlayout::new();
//! let mut decoder = H264Decoder::new()?;
//! let mut sound = AudioPlayout::new(OpusDecoder::new(1)?);
//!
//! let mut heard = Vec::new();
//! for number in 0..50u64 {
//!     let now = MediaTime::from_millis(number * 20);
//!     sound.push(number, opus.encode(&tone.samples(960, now))?, now);
//!     heard.extend_from_slice(sound.pull(now, 960).data());
//!     if number % 4 == 0 {
//!         let frame = h264.encode(&pattern.picture(number as u32, now))?.expect("frame_skip is off");
//!         assert!(pictures.push(now, now, frame).is_none(), "there is room");
//!     }
//!     while let Some(frame) = pictures.poll(now) {
//!         match decoder.decode(&frame)? {
//!             Decoded::Picture(picture) => assert_eq!(pattern::read(&picture).unwrap().publisher, 1),
//!             Decoded::NeedKeyframe => h264.force_keyframe()?,
//!         }
//!     }
//! }
//! assert!(pattern::tone_level(&heard[24_000..], pattern::publisher_hz(1)) > 0.3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//! | feature | default | brings | needs to build |
//! |---|---|---|---|
//! | `h264` | yes | OpenH264 from source; see the README on patents | g++; nasm makes it 2.5 times faster, [`video::assembler_build`] tells |
//! | `opus` | yes | libopus from source | cmake |
//! | `files` | yes | MP4, Y4M, WAV, PNG | |
//! | `camera` | no | [`capture::Camera`](capture) by nokhwa; not proven on hardware | libclang |
//! | `audio-devices` | no | [`capture::Microphone`](capture), [`play::Speaker`](play) by cpal | ALSA headers on Linux |
//! | `pulseaudio` | no | the same, directly on PulseAudio where it runs | |
//!
//! Without any feature, frames, the pattern, playout, and the traits remain, for apps with codecs of their own.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod audio;
pub mod capture;
pub mod clock;
#[cfg(feature = "audio-devices")]
mod device;
mod font;
pub mod frame;
pub mod jitter;
pub mod level;
pub mod pattern;
pub mod play;
pub mod scale;
pub mod sync;
pub mod video;
