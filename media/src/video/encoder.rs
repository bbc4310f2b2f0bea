//! The H.264 encoder as a call uses it: one layer in space, one to three in time, no B frames, no delay.
//!
//! It decides nothing by itself: the bitrate, the frame rate and most keyframes come from whoever drives it.

use bytes::Bytes;

use super::VideoError;
use super::annexb;
use super::openh264::{Encoder, Setup};
use crate::frame::{EncodedVideo, Picture, pixel_bytes};

/// What an [`H264Encoder`] is to produce.
#[derive(Clone, Debug, PartialEq)]
pub struct H264Config {
    /// Width, pixels; even.
    pub width: u32,
    /// Height, pixels; even.
    pub height: u32,
    /// Expected pictures per second, 1..=120; the rate control shares out the bitrate by it.
    pub fps: f32,
    /// Target in bits/s, 10,000..=50,000,000.
    pub bitrate: u32,
    /// Pictures from one keyframe to the next, rounded up to whole temporal groups; `None`: only on request (and where
    /// the scene changes). A keyframe costs as much as about seven other pictures.
    pub keyframe_interval: Option<u32>,
    /// Layers in time, 1..=3. With 3, half of the pictures are discardable, with 2 too; with 1 none is.
    pub temporal_layers: u8,
    /// Largest slice in bytes, 400..=65,000, or `None` for one slice per picture. Smaller slices lose less to a lost
    /// datagram and cost about 2 % of the rate.
    pub slice_bytes_max: Option<u32>,
    /// Lets the encoder leave out pictures to hold a very low bitrate.
    pub frame_skip: bool,
}

impl H264Config {
    /// One layer in time, no keyframes but on request, no skipped pictures.
    pub fn new(width: u32, height: u32, fps: f32, bitrate: u32) -> H264Config {
        H264Config {
            width,
            height,
            fps,
            bitrate,
            keyframe_interval: None,
            temporal_layers: 1,
            slice_bytes_max: None,
            frame_skip: false,
        }
    }

    /// 320x180, 15 pictures/s, 200 kbit/s.
    pub fn p180() -> H264Config {
        H264Config::new(320, 180, 15.0, 200_000)
    }

    /// 640x360, 15 pictures/s, 600 kbit/s: the standard call.
    pub fn p360() -> H264Config {
        H264Config::new(640, 360, 15.0, 600_000)
    }

    /// 960x540, 24 pictures/s, 1.2 Mbit/s.
    pub fn p540() -> H264Config {
        H264Config::new(960, 540, 24.0, 1_200_000)
    }

    /// 1280x720, 30 pictures/s, 2 Mbit/s.
    pub fn p720() -> H264Config {
        H264Config::new(1280, 720, 30.0, 2_000_000)
    }

    fn setup(&self) -> Result<Setup, VideoError> {
        pixel_bytes(self.width, self.height)?;
        check_fps(self.fps)?;
        check_bitrate(self.bitrate)?;
        if !(1..=3).contains(&self.temporal_layers) {
            return Err(setting("temporal_layers", self.temporal_layers, "1, 2 or 3"));
        }
        if self.slice_bytes_max.is_some_and(|bytes| !(400..=65_000).contains(&bytes)) {
            return Err(setting(
                "slice_bytes_max",
                self.slice_bytes_max.unwrap_or(0),
                "400 to 65000 bytes, or none",
            ));
        }
        if self.keyframe_interval.is_some_and(|frames| !(1..=100_000).contains(&frames)) {
            return Err(setting(
                "keyframe_interval",
                self.keyframe_interval.unwrap_or(0),
                "1 to 100000 pictures, or none",
            ));
        }
        // OpenH264 wants keyframes at the start of a temporal group.
        let group = 1 << (self.temporal_layers - 1);
        Ok(Setup {
            width: self.width,
            height: self.height,
            fps: self.fps,
            bitrate: self.bitrate,
            keyframe_interval: self.keyframe_interval.map_or(0, |frames| frames.next_multiple_of(group)),
            temporal_layers: self.temporal_layers,
            slice_bytes_max: self.slice_bytes_max.unwrap_or(0),
            frame_skip: self.frame_skip,
        })
    }
}

fn check_fps(fps: f32) -> Result<(), VideoError> {
    if (1.0..=120.0).contains(&fps) { Ok(()) } else { Err(setting("fps", fps, "1 to 120 pictures/s")) }
}

fn check_bitrate(bitrate: u32) -> Result<(), VideoError> {
    if (10_000..=50_000_000).contains(&bitrate) {
        Ok(())
    } else {
        Err(setting("bitrate", bitrate, "10000 to 50000000 bits/s"))
    }
}

fn setting(setting: &'static str, value: impl ToString, allowed: &'static str) -> VideoError {
    VideoError::Setting { setting, value: value.to_string(), allowed }
}

/// Encodes the pictures of one stream in one size.
///
/// ```
/// use parlor_media::frame::MediaTime;
/// use parlor_media::pattern::Pattern;
/// use parlor_media::video::{Decoded, H264Config, H264Decoder, H264Encoder};
///
/// let mut encoder = H264Encoder::new(H264Config::p180())?;
/// let mut decoder = H264Decoder::new()?;
/// let picture = Pattern::new(1, 320, 180)?.picture(0, MediaTime::ZERO);
/// let frame = encoder.encode(&picture)?.expect("frame_skip is off");
/// assert!(frame.keyframe, "the first one is a keyframe");
/// assert!(matches!(decoder.decode(&frame)?, Decoded::Picture(_)));
/// # Ok::<(), parlor_media::video::VideoError>(())
/// ```
pub struct H264Encoder {
    encoder: Encoder,
    config: H264Config,
}

impl H264Encoder {
    /// An encoder; its first picture is a keyframe.
    ///
    /// # Errors
    /// [`VideoError::Setting`] or [`VideoError::Frame`] for a value out of range, [`VideoError::Codec`] if OpenH264
    /// does not start.
    pub fn new(config: H264Config) -> Result<H264Encoder, VideoError> {
        let encoder = Encoder::new(&config.setup()?)?;
        Ok(H264Encoder { encoder, config })
    }

    /// The settings in force, with the bitrate and frame rate as last changed.
    pub fn config(&self) -> &H264Config {
        &self.config
    }

    /// Encodes `picture`; `None` only with [`H264Config::frame_skip`], when the rate control left it out.
    ///
    /// # Errors
    /// [`VideoError::SizeChanged`] for a picture of another size, [`VideoError::Codec`] if OpenH264 fails.
    pub fn encode(&mut self, picture: &Picture) -> Result<Option<EncodedVideo>, VideoError> {
        let H264Config { width, height, .. } = self.config;
        if (picture.width(), picture.height()) != (width, height) {
            let (actual_width, actual_height) = (picture.width(), picture.height());
            return Err(VideoError::SizeChanged { width, height, actual_width, actual_height });
        }
        let millis = i64::try_from(picture.time().as_micros() / 1_000).unwrap_or(i64::MAX);
        let planes = [picture.luma(), picture.u(), picture.v()];
        Ok(self.encoder.encode(planes, width, height, millis)?.map(|unit| EncodedVideo {
            discardable: is_discardable(&unit.data),
            keyframe: unit.keyframe,
            temporal_layer: unit.temporal_layer,
            data: Bytes::from(unit.data),
            time: picture.time(),
            width,
            height,
        }))
    }

    /// Makes the next picture a keyframe.
    ///
    /// # Errors
    /// [`VideoError::Codec`].
    pub fn force_keyframe(&mut self) -> Result<(), VideoError> {
        self.encoder.force_keyframe()
    }

    /// Changes the target, in bits/s, up or down, without a keyframe.
    ///
    /// # Errors
    /// [`VideoError::Setting`] out of 10,000..=50,000,000; [`VideoError::Codec`].
    pub fn set_bitrate(&mut self, bitrate: u32) -> Result<(), VideoError> {
        check_bitrate(bitrate)?;
        self.encoder.set_bitrate(bitrate)?;
        self.config.bitrate = bitrate;
        Ok(())
    }

    /// Tells the rate control how many pictures per second will come.
    ///
    /// # Errors
    /// [`VideoError::Setting`] out of 1..=120; [`VideoError::Codec`].
    pub fn set_fps(&mut self, fps: f32) -> Result<(), VideoError> {
        check_fps(fps)?;
        self.encoder.set_fps(fps)?;
        self.config.fps = fps;
        Ok(())
    }
}

/// Whether no other picture refers to this one: H.264 marks it in the two bits nal_ref_idc of every slice.
fn is_discardable(access_unit: &[u8]) -> bool {
    let mut slices =
        annexb::units(access_unit).filter(|unit| matches!(annexb::unit_type(unit), 1..=5)).peekable();
    slices.peek().is_some() && slices.all(|slice| slice[0] >> 5 & 3 == 0)
}
