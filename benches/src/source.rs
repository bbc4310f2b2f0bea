//! A synthetic encoder: frames of the sizes that a video encoder at a constant bitrate makes, with
//! their number in the payload. What is measured is the transport; a codec would only blur it.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Pictures, of which all but keyframes build on those before.
    Video,
    /// Sound, of which every frame stands by itself.
    Audio,
}

/// The shape of the stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// What it carries.
    pub kind: Kind,
    /// Bits per second on average, payload only.
    pub bitrate: u64,
    /// Frames per second.
    pub frames_per_second: u32,
    /// Time between keyframes, unless one is asked for sooner.
    pub keyframe_interval: Duration,
    /// A keyframe's size in ordinary frames.
    pub keyframe_factor: u32,
}

impl Default for Shape {
    /// 1 Mbit/s, 30 frames/s, a keyframe five times an ordinary frame every 4 s.
    fn default() -> Self {
        Shape {
            kind: Kind::Video,
            bitrate: 1_000_000,
            frames_per_second: 30,
            keyframe_interval: Duration::from_secs(4),
            keyframe_factor: 5,
        }
    }
}

impl Shape {
    /// Opus as calls have it: 20 ms a frame.
    pub fn audio(bitrate: u64) -> Self {
        Shape {
            kind: Kind::Audio,
            bitrate,
            frames_per_second: 50,
            keyframe_interval: Duration::from_millis(20),
            keyframe_factor: 1,
        }
    }

    /// Time between frames.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.frames_per_second
    }

    /// Frames from one keyframe to the next.
    pub fn group(&self) -> u64 {
        ((self.keyframe_interval.as_secs_f64() * f64::from(self.frames_per_second)) as u64).max(1)
    }

    /// Bytes of an ordinary frame and of a keyframe.
    pub fn sizes(&self) -> (usize, usize) {
        let group = self.group();
        let bytes = self.bitrate as f64 / 8.0 * group as f64 / f64::from(self.frames_per_second);
        let ordinary = bytes / (group - 1 + u64::from(self.keyframe_factor)) as f64;
        (ordinary as usize, (ordinary * f64::from(self.keyframe_factor)) as usize)
    }
}

/// Makes the frames of one stream.
#[derive(Debug)]
pub struct Source {
    shape: Shape,
    number: u64,
    since_keyframe: u64,
}

/// One frame.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its number, from 0.
    pub number: u64,
    /// Whether it is a keyframe.
    pub keyframe: bool,
    /// Its bytes, the number first.
    pub payload: Bytes,
}

impl Source {
    /// A stream that begins with a keyframe.
    pub fn new(shape: Shape) -> Self {
        Source { shape, number: 0, since_keyframe: 0 }
    }

    /// The next frame is a keyframe.
    pub fn force_keyframe(&mut self) {
        self.since_keyframe = 0;
    }

    /// From the next frame on, this many bits per second on average.
    pub fn set_bitrate(&mut self, bitrate: u64) {
        self.shape.bitrate = bitrate;
    }

    /// The next frame.
    pub fn make(&mut self) -> Made {
        let keyframe = self.since_keyframe == 0;
        let (ordinary, key) = self.shape.sizes();
        let size = if keyframe { key } else { ordinary }.max(8);
        let mut payload = BytesMut::zeroed(size);
        (&mut payload[..]).put_u64(self.number);
        let made = Made { number: self.number, keyframe, payload: payload.freeze() };
        self.number += 1;
        self.since_keyframe = (self.since_keyframe + 1) % self.shape.group();
        made
    }
}

/// The number that [`Source`] wrote into a payload.
pub fn number_of(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bitrate_is_what_was_asked_for() {
        let mut source = Source::new(Shape::default());
        let made: Vec<Made> = (0..1200).map(|_| source.make()).collect();
        let bits: usize = made.iter().map(|frame| frame.payload.len() * 8).sum();
        assert!((bits as f64 / 40.0 - 1e6).abs() < 1e4, "{bits}");
        assert_eq!(made.iter().filter(|frame| frame.keyframe).count(), 10);
        let sound = Source::new(Shape::audio(32_000)).make();
        assert_eq!((sound.keyframe, sound.payload.len()), (true, 80));
        assert!(made.iter().enumerate().all(|(at, frame)| number_of(&frame.payload) == Some(at as u64)));
    }
}
