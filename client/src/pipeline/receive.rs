//! Play → decode → playout → view and speaker.
//!
//! A task for each player reads its frames. Decoding and showing happen on tokio's threads for blocking work,
//! sound is pulled by the speaker's own thread from a playout buffer in the mixer.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use parlor_media::audio::{AudioError, OpusDecoder};
use parlor_media::frame::{MediaTime, Picture, Samples};
use parlor_media::jitter::{AudioPlayout, AudioPlayoutStats, VideoPlayout};
use parlor_media::play::{AudioFeed, FeedId, Mixer, View};
use parlor_media::sync::LipSync;
use parlor_media::video::{Decoded, H264Decoder, VideoError};
use parlor_transport::clock::Clock;
use parlor_transport::id::StreamAlias;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::TrackKind;
use parlor_transport::wire::frame::AudioLevel;

use super::map::{is_readable, media_time, to_audio, to_video};
use crate::engine::{Frames, Player};
use crate::player::ReceivedFrame;
use crate::stats::{Meter, PlayerStats, Rates};

/// A decoder that waits for a keyframe asks for it again after this long: more than most round trips.
const KEYFRAME_RETRY: Duration = Duration::from_millis(300);

/// A player whose pictures go to a view and whose sound goes to a mixer. Dropping it stops playing.
pub struct Playback {
    player: Player,
    screen: Arc<Mutex<Screen>>,
    sound: Arc<Mutex<Sound>>,
    clock: Clock,
    mixer: Mixer,
    feed: FeedId,
}

/// What a [`Playback`] has shown and sounded.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct PlaybackStats {
    /// What was received.
    pub player: PlayerStats,
    /// Pictures shown so far.
    pub shown: u64,
    /// Pictures shown over the last 2 s; age is the time from capture to view.
    pub video: Rates,
    /// Times that the picture stood still until a keyframe came.
    pub freezes: u64,
    /// The playout of sound.
    pub audio: AudioPlayoutStats,
    /// How loud the newest sound is that came; `None` before the first.
    pub level: Option<AudioLevel>,
}

impl Player {
    /// Decodes what comes: pictures go to `view`, sound to `mixer` (which a speaker or an
    /// [`AudioPump`](parlor_media::play::AudioPump) pulls). Streams whose codec is not built in stay silent and
    /// dark.
    ///
    /// # Errors
    /// [`AudioError`] when the sound decoder does not start.
    pub fn show(self, view: impl View + 'static, mixer: &Mixer) -> Result<Playback, AudioError> {
        let screen = Arc::new(Mutex::new(Screen {
            view: Box::new(view),
            shown: 0,
            meter: Meter::default(),
            freezes: 0,
        }));
        let sound = Arc::new(Mutex::new(Sound::new()?));
        let frames = self.frames();
        let clock = frames.clock().clone();
        let playing = Playing {
            frames: self.frames(),
            alias: None,
            kinds: Vec::new(),
            pictures: Some(Pictures::new(Arc::clone(&screen))),
            sound: Arc::clone(&sound),
            keyframe_asked: None,
        };
        frames.spawn(playing.run(clock.clone()));
        let feed = mixer.add(Arc::clone(&sound));
        Ok(Playback { player: self, screen, sound, clock, mixer: mixer.clone(), feed })
    }
}

impl Playback {
    /// The player behind it.
    pub fn player(&self) -> &Player {
        &self.player
    }

    /// Shows the pictures on another view from now on.
    pub fn set_view(&self, view: impl View + 'static) {
        lock(&self.screen).view = Box::new(view);
    }

    /// What was received, shown and sounded.
    pub fn stats(&self) -> PlaybackStats {
        let player = self.player.stats();
        let (audio, level) = {
            let sound = lock(&self.sound);
            (sound.playout.stats(), sound.level)
        };
        let mut screen = lock(&self.screen);
        let video = screen.meter.rates(self.clock.now());
        PlaybackStats { player, shown: screen.shown, video, freezes: screen.freezes, audio, level }
    }
}

impl Drop for Playback {
    fn drop(&mut self) {
        self.mixer.remove(self.feed);
    }
}

impl fmt::Debug for Playback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Playback").field("player", &self.player).finish_non_exhaustive()
    }
}

/// The view and what it saw.
struct Screen {
    view: Box<dyn View>,
    shown: u64,
    meter: Meter,
    freezes: u64,
}

/// The playout of sound, and where both playouts tell each other how late they are.
struct Sound {
    playout: AudioPlayout<OpusDecoder>,
    sync: LipSync,
    level: Option<AudioLevel>,
}

impl Sound {
    fn new() -> Result<Self, AudioError> {
        Ok(Sound { playout: AudioPlayout::new(OpusDecoder::new(1)?), sync: LipSync::new(), level: None })
    }
}

impl AudioFeed for Sound {
    fn pull(&mut self, now: MediaTime, len: usize) -> Samples {
        let samples = self.playout.pull(now, len);
        self.sync.sound(self.playout.playout_offset(), self.playout.wished_offset());
        self.playout.set_floor(self.sync.sound_floor());
        samples
    }
}

/// Decoder and playout of pictures; travels between the task and the threads that decode.
struct Pictures {
    /// None when it did not start; the stream stays dark then.
    decoder: Option<H264Decoder>,
    playout: VideoPlayout<Picture>,
    screen: Arc<Mutex<Screen>>,
}

impl Pictures {
    fn new(screen: Arc<Mutex<Screen>>) -> Self {
        let decoder = H264Decoder::new();
        if let Err(error) = &decoder {
            tracing::warn!(%error, "no picture decoder");
        }
        Pictures { decoder: decoder.ok(), playout: VideoPlayout::new(), screen }
    }

    /// Decodes a frame and keeps its picture until it is due. Whether a keyframe is needed to go on.
    fn decode(&mut self, frame: &ReceivedFrame, now: Timestamp) -> bool {
        let Some(decoder) = &mut self.decoder else { return false };
        let was_frozen = decoder.needs_keyframe();
        if frame.missed > 0 {
            decoder.gap();
        }
        let decoded = decoder.decode(&to_video(frame));
        let needs_keyframe = decoder.needs_keyframe();
        match decoded {
            Ok(Decoded::Picture(picture)) => {
                let arrived = media_time(frame.arrived);
                if let Some(crowded_out) = self.playout.push(picture.time(), arrived, picture) {
                    self.show(&crowded_out, now);
                }
            }
            Ok(Decoded::NeedKeyframe) => {}
            Err(VideoError::NoPicture { .. }) if !needs_keyframe => {}
            Err(error) => tracing::debug!(%error, "a picture cannot be decoded"),
        }
        if needs_keyframe && !was_frozen {
            lock(&self.screen).freezes += 1;
        }
        needs_keyframe
    }

    /// Shows what is due; of several at once, the last.
    fn show_due(&mut self, now: Timestamp) {
        let mut newest = None;
        while let Some(picture) = self.playout.poll(media_time(now)) {
            newest = Some(picture);
        }
        if let Some(picture) = newest {
            self.show(&picture, now);
        }
    }

    fn show(&self, picture: &Picture, now: Timestamp) {
        let mut screen = lock(&self.screen);
        screen.shown += 1;
        let age = now.saturating_since(super::timestamp(picture.time()));
        screen.meter.record(now, picture.pixels().len(), age);
        screen.view.show(picture);
    }
}

/// The task of one player.
struct Playing {
    frames: Frames,
    /// The publication the decoders are at; another one starts them anew.
    alias: Option<StreamAlias>,
    /// What each track carries, as far as it can be read.
    kinds: Vec<Option<TrackKind>>,
    /// Elsewhere while it works.
    pictures: Option<Pictures>,
    sound: Arc<Mutex<Sound>>,
    keyframe_asked: Option<Timestamp>,
}

impl Playing {
    async fn run(mut self, clock: Clock) {
        let mut timer = clock.timer();
        loop {
            timer.reset(self.pictures.as_ref().and_then(|p| p.playout.poll_timeout()).map(super::timestamp));
            let frame = tokio::select! {
                biased;
                frame = self.frames.next() => match frame {
                    Some(frame) => Some(frame),
                    None => return,
                },
                () = timer.expired() => None,
            };
            let now = clock.now();
            let video = match frame {
                Some(frame) => match self.sort(frame).await {
                    Some(video) => Some(video),
                    None => continue,
                },
                None => None,
            };
            let track = video.as_ref().map(|frame| frame.header.track);
            let needs_keyframe = self
                .with_pictures(move |pictures| {
                    let needs = video.is_some_and(|frame| pictures.decode(&frame, now));
                    pictures.show_due(now);
                    needs
                })
                .await;
            if let Some(track) = track.filter(|_| needs_keyframe) {
                self.ask_keyframe(now, track);
            }
            self.sync_lips();
        }
    }

    /// Gives sound to its playout, and back what is a picture.
    async fn sort(&mut self, frame: ReceivedFrame) -> Option<ReceivedFrame> {
        if self.alias != Some(frame.header.alias) {
            self.start(frame.header.alias).await;
        }
        match self.kinds.get(usize::from(frame.header.track)).copied().flatten()? {
            TrackKind::Video => Some(frame),
            TrackKind::Audio => {
                let arrived = media_time(frame.arrived);
                let mut sound = lock(&self.sound);
                sound.level = frame.header.level.or(sound.level);
                sound.playout.push(frame.header.number, to_audio(&frame), arrived);
                None
            }
            TrackKind::Data => None,
        }
    }

    /// Another publication: what the decoders know is of no more use.
    async fn start(&mut self, alias: StreamAlias) {
        let Some(played) = self.frames.played().await else { return };
        let stream = &played.user;
        let kind = |track: &crate::TrackInfo| {
            let readable = is_readable(track.kind, &track.codec);
            if !readable && track.kind != TrackKind::Data {
                tracing::warn!(user = %stream, codec = track.codec, "this codec is not built in");
            }
            readable.then_some(track.kind)
        };
        self.kinds = played.tracks.iter().map(kind).collect();
        if self.alias.replace(alias).is_some() {
            if let Ok(sound) = Sound::new() {
                *lock(&self.sound) = sound;
            }
            if let Some(pictures) = &mut self.pictures {
                *pictures = Pictures::new(Arc::clone(&pictures.screen));
            }
        }
    }

    /// Works on the pictures where blocking is allowed.
    async fn with_pictures(&mut self, work: impl FnOnce(&mut Pictures) -> bool + Send + 'static) -> bool {
        let Some(mut pictures) = self.pictures.take() else { return false };
        let done = tokio::task::spawn_blocking(move || {
            let outcome = work(&mut pictures);
            (pictures, outcome)
        });
        match done.await {
            Ok((pictures, outcome)) => {
                self.pictures = Some(pictures);
                outcome
            }
            // The view panicked, or the runtime is going down: this player stays dark, its sound goes on.
            Err(error) => {
                tracing::error!(%error, "showing pictures ended");
                false
            }
        }
    }

    fn ask_keyframe(&mut self, now: Timestamp, track: u8) {
        if self.keyframe_asked.is_none_or(|asked| now.saturating_since(asked) >= KEYFRAME_RETRY) {
            self.keyframe_asked = Some(now);
            self.frames.request_keyframe(track);
        }
    }

    fn sync_lips(&mut self) {
        let Some(pictures) = &mut self.pictures else { return };
        let mut sound = lock(&self.sound);
        sound.sync.picture(pictures.playout.wished_offset());
        pictures.playout.set_floor(sound.sync.picture_floor());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is whole between calls; a view that panicked is not called again.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
