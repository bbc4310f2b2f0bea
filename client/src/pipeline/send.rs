//! Capture → encode → publish.
//!
//! A capture runs by itself, on the threads of `parlor-media`: its preview works before any room is joined. What
//! is published from it is encoded on the same threads, so a machine that is too slow captures fewer frames and
//! keeps no queue of them. Encoders make what the link has room for.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use parlor_media::capture::{
    AudioCapture, AudioSource, CaptureStats, PatternSource, SinkId, ToneSource, VideoCapture, VideoSource,
    WavSource, open_clip,
};
use parlor_media::play::View;

use super::encode::{AudioEncoding, VideoEncoding};
use super::map::{AUDIO_CODEC, VIDEO_CODEC};
use super::{MediaError, media_clock};
use crate::engine::{Engine, Publisher, Room};
use crate::options::{AudioSettings, PublishOptions, Scenario, VideoSettings};

/// Where pictures and sound come from.
#[derive(Default)]
pub struct Sources {
    video: Option<Box<dyn VideoSource>>,
    audio: Option<Box<dyn AudioSource>>,
}

impl Sources {
    /// Nothing yet.
    pub fn none() -> Self {
        Sources::default()
    }

    /// The moving test picture and the tone of `publisher`, in the size and rate of `scenario`.
    ///
    /// # Errors
    /// [`MediaError::Capture`]; the built-in scenarios give none.
    pub fn pattern(publisher: u16, scenario: Scenario) -> Result<Self, MediaError> {
        let mut sources = Sources::none().audio(ToneSource::of_publisher(publisher));
        if let Some(video) = scenario.video() {
            let (width, height, rate) = (video.width, video.height, video.frames_per_second as f32);
            sources = sources.video(PatternSource::new(publisher, width, height, rate)?);
        }
        Ok(sources)
    }

    /// Pictures of a file (MP4 with H.264, or Y4M; scaled, looped) and sound of another (WAV). The sound of an MP4
    /// file is not read.
    ///
    /// # Errors
    /// [`MediaError::Capture`] for a file that cannot be read or is not one.
    pub fn files(video: Option<&Path>, audio: Option<&Path>, scenario: Scenario) -> Result<Self, MediaError> {
        let mut sources = Sources::none();
        if let (Some(path), Some(video)) = (video, scenario.video()) {
            let rate = Some(video.frames_per_second as f32);
            sources = sources.video(open_clip(path, video.width, video.height, rate)?);
        }
        if let Some(path) = audio {
            sources = sources.audio(WavSource::open(path)?);
        }
        Ok(sources)
    }

    /// This machine's default camera.
    ///
    /// # Errors
    /// [`MediaError::Capture`] without a camera, or one that cannot be used.
    #[cfg(feature = "camera")]
    pub fn camera(self, scenario: Scenario) -> Result<Self, MediaError> {
        let Some(video) = scenario.video() else { return Ok(self) };
        let format = parlor_media::capture::VideoFormat {
            width: video.width,
            height: video.height,
            fps: video.frames_per_second as f32,
        };
        Ok(self.video(parlor_media::capture::Camera::open(None, format)?))
    }

    /// This machine's default microphone.
    ///
    /// # Errors
    /// [`MediaError::Capture`] without a microphone, or one that cannot be used.
    #[cfg(feature = "audio-devices")]
    pub fn microphone(self) -> Result<Self, MediaError> {
        Ok(self.audio(parlor_media::capture::Microphone::open(None)?))
    }

    /// Pictures of the app's own making.
    #[must_use]
    pub fn video(mut self, source: impl VideoSource + 'static) -> Self {
        self.video = Some(Box::new(source));
        self
    }

    /// Sound of the app's own making.
    #[must_use]
    pub fn audio(mut self, source: impl AudioSource + 'static) -> Self {
        self.audio = Some(Box::new(source));
        self
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sources { video, audio } = self;
        f.debug_struct("Sources").field("video", &video.is_some()).field("audio", &audio.is_some()).finish()
    }
}

/// Sources that run: pictures and sound for previews and publications, until it and all of these are dropped.
///
/// ```
/// use parlor_client::pipeline::{Capture, Sources};
/// use parlor_client::{Engine, Scenario};
/// use parlor_media::play::LatestPicture;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let engine = Engine::new(Scenario::StandardCall)?;
/// let capture = Capture::start(&engine, Sources::pattern(1, Scenario::StandardCall)?)?;
/// let mirror = LatestPicture::new();
/// let _preview = capture.preview(mirror.clone()); // works before any room is joined
/// # while mirror.get().is_none() { std::thread::yield_now(); }
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Capture {
    video: Option<Arc<VideoCapture>>,
    audio: Option<Arc<AudioCapture>>,
    video_settings: VideoSettings,
    audio_settings: AudioSettings,
}

impl Capture {
    /// Starts at once. Pictures are encoded as the engine's scenario says, in the size that the source has.
    ///
    /// # Errors
    /// [`MediaError::Capture`] when a thread cannot be started or the rate makes no sense.
    pub fn start(engine: &Engine, sources: Sources) -> Result<Self, MediaError> {
        let clock = media_clock(engine.clock());
        let scenario = engine.config().scenario;
        let mut video_settings = scenario.video().or(Scenario::StandardCall.video()).unwrap_or(FALLBACK);
        let video = match sources.video {
            Some(source) => {
                let format = source.format();
                (video_settings.width, video_settings.height) = (format.width, format.height);
                video_settings.frames_per_second = format.fps.round() as u32;
                Some(Arc::new(VideoCapture::start(source, clock.clone())?))
            }
            None => None,
        };
        let audio = match sources.audio {
            Some(source) => Some(Arc::new(AudioCapture::start(source, clock)?)),
            None => None,
        };
        Ok(Capture { video, audio, video_settings, audio_settings: scenario.audio() })
    }

    /// Shows the captured pictures on `view`, with or without a call. Dropping the preview ends it.
    pub fn preview(&self, view: impl View + 'static) -> Preview {
        Preview(self.video.as_ref().map(|video| (Arc::clone(video), video.preview(view))))
    }

    /// Publishes what is captured as `stream`: sound on the first track if there is any, then pictures. May be
    /// called before the room is joined.
    ///
    /// # Errors
    /// [`MediaError`] when the id is not valid, the room has ended or an encoder does not start.
    pub fn publish(&self, room: &Room, stream: impl Into<String>) -> Result<Broadcast, MediaError> {
        let mut options = PublishOptions::new(stream);
        if self.audio.is_some() {
            options = options.audio(AUDIO_CODEC);
        }
        if self.video.is_some() {
            options = options.video(VIDEO_CODEC);
        }
        let publisher = Arc::new(room.publish(options)?);
        let mut broadcast = Broadcast { publisher: Arc::clone(&publisher), video: None, audio: None };
        if let Some(video) = &self.video {
            let beside = if self.audio.is_some() { self.audio_settings.bitrate } else { 0 };
            let track = u8::from(self.audio.is_some());
            let mut encoding =
                VideoEncoding::new(Arc::clone(&publisher), track, self.video_settings, beside)?;
            broadcast.video = Some((Arc::clone(video), video.output(move |picture| encoding.push(picture))));
        }
        if let Some(audio) = &self.audio {
            let mut encoding = AudioEncoding::new(publisher, 0, self.audio_settings)?;
            broadcast.audio = Some((Arc::clone(audio), audio.output(move |samples| encoding.push(samples))));
        }
        Ok(broadcast)
    }

    /// How much was captured: pictures, and blocks of 20 ms of sound.
    pub fn stats(&self) -> (CaptureStats, CaptureStats) {
        let video = self.video.as_ref().map(|video| video.stats()).unwrap_or_default();
        (video, self.audio.as_ref().map(|audio| audio.stats()).unwrap_or_default())
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// A view on a [`Capture`], until dropped.
#[must_use = "dropping a preview ends it"]
pub struct Preview(Option<(Arc<VideoCapture>, SinkId)>);

impl Drop for Preview {
    fn drop(&mut self) {
        if let Some((video, sink)) = self.0.take() {
            video.remove(sink);
        }
    }
}

impl fmt::Debug for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Preview").finish_non_exhaustive()
    }
}

/// A [`Capture`] that is published. Dropping it stops publishing; the capture goes on.
pub struct Broadcast {
    publisher: Arc<Publisher>,
    video: Option<(Arc<VideoCapture>, SinkId)>,
    audio: Option<(Arc<AudioCapture>, SinkId)>,
}

impl Broadcast {
    /// The publisher behind it: status, mutes, stats.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Sends no sound while `muted`; the microphone goes on.
    pub fn mute_audio(&self, muted: bool) {
        if self.audio.is_some() {
            self.publisher.set_muted(0, muted);
        }
    }

    /// Sends no pictures while `muted`; the camera and its preview go on.
    pub fn mute_video(&self, muted: bool) {
        if self.video.is_some() {
            self.publisher.set_muted(u8::from(self.audio.is_some()), muted);
        }
    }
}

impl Drop for Broadcast {
    fn drop(&mut self) {
        self.publisher.stop();
        if let Some((video, sink)) = self.video.take() {
            video.remove(sink);
        }
        if let Some((audio, sink)) = self.audio.take() {
            audio.remove(sink);
        }
    }
}

impl fmt::Debug for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast").field("publisher", &self.publisher).finish_non_exhaustive()
    }
}

/// The settings for pictures in a scenario that has none: an app that brings a picture source to a voice call
/// wants to be seen.
const FALLBACK: VideoSettings = VideoSettings {
    width: 640,
    height: 360,
    frames_per_second: 15,
    bitrate: 600_000,
    keyframe_interval: std::time::Duration::from_secs(2),
};
