//! The threads that keep a source going and hand what it gives to sinks.
//!
//! A sink is called on the capture's thread and delays the others while it runs; there is no queue. Ticks that were
//! missed are left out, so a slow sink costs frames, not memory. Whether anything is sent is up to the sinks.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{AudioSource, CaptureError, VideoFormat, VideoSource};
use crate::clock::{Clock, Ticker};
use crate::frame::{AUDIO_FRAME, MediaTime, Picture, Samples};
use crate::play::View;

/// Names a sink of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkId(u64);

/// What a capture has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureStats {
    /// Pictures or blocks of 20 ms handed to the sinks.
    pub captured: u64,
    /// The source failed and gives nothing more; ask `error` why.
    pub ended: bool,
}

type Sink<T> = Box<dyn FnMut(&T) + Send>;

/// What the handle and the thread share.
struct Shared<T> {
    sinks: BTreeMap<SinkId, Sink<T>>,
    next_id: u64,
    stats: CaptureStats,
    error: Option<CaptureError>,
}

/// Both captures: a source of `T`, a thread, sinks.
struct Capture<T> {
    shared: Arc<Mutex<Shared<T>>>,
    _ticker: Ticker,
}

impl<T: 'static> Capture<T> {
    fn start(
        name: &str,
        clock: Clock,
        interval: Option<Duration>,
        mut next: impl FnMut(MediaTime) -> Result<Option<T>, CaptureError> + Send + 'static,
    ) -> Result<Capture<T>, CaptureError>
    where
        T: Send,
    {
        let shared = Arc::new(Mutex::new(Shared {
            sinks: BTreeMap::new(),
            next_id: 0,
            stats: CaptureStats::default(),
            error: None,
        }));
        let for_thread = shared.clone();
        let ticker = Ticker::start(name, clock, interval, move |now| {
            // The source may wait for its device: sinks can be added meanwhile.
            let result = next(now);
            let mut shared = lock(&for_thread);
            match result {
                Ok(Some(piece)) => {
                    shared.stats.captured += 1;
                    shared.sinks.values_mut().for_each(|sink| sink(&piece));
                    ControlFlow::Continue(())
                }
                Ok(None) => ControlFlow::Continue(()),
                Err(error) => {
                    tracing::warn!(%error, "capture ended");
                    shared.stats.ended = true;
                    shared.error = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        Ok(Capture { shared, _ticker: ticker.map_err(CaptureError::Thread)? })
    }

    fn add(&self, sink: Sink<T>) -> SinkId {
        let mut shared = lock(&self.shared);
        let id = SinkId(shared.next_id);
        shared.next_id += 1;
        shared.sinks.insert(id, sink);
        id
    }
}

/// A sink that panicked ends the thread; the map itself is whole between calls.
fn lock<T>(shared: &Mutex<Shared<T>>) -> MutexGuard<'_, Shared<T>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a [`VideoSource`] at its rate until dropped.
///
/// ```
/// use parlor_media::capture::{PatternSource, VideoCapture};
/// use parlor_media::clock::real_clock;
/// use parlor_media::play::LatestPicture;
///
/// let preview = LatestPicture::new();
/// let capture = VideoCapture::start(Box::new(PatternSource::new(1, 320, 180, 30.0)?), real_clock())?;
/// let shown = capture.preview(preview.clone());
/// # while preview.count() < 2 { std::thread::yield_now(); }
/// capture.remove(shown);
/// # Ok::<(), parlor_media::capture::CaptureError>(())
/// ```
pub struct VideoCapture {
    capture: Capture<Picture>,
    format: VideoFormat,
}

impl VideoCapture {
    /// Starts at once; without sinks, pictures go nowhere. `clock` stamps them.
    ///
    /// # Errors
    /// [`CaptureError::Fps`] or [`CaptureError::Thread`]. What the source reports later is found in
    /// [`VideoCapture::error`].
    pub fn start(mut source: Box<dyn VideoSource>, clock: Clock) -> Result<VideoCapture, CaptureError> {
        let format = source.format();
        super::check_fps(format.fps)?;
        let interval = (!source.is_paced()).then(|| Duration::from_secs_f32(1.0 / format.fps));
        let capture = Capture::start("parlor-video-capture", clock, interval, move |now| source.next(now))?;
        Ok(VideoCapture { capture, format })
    }

    /// Size and rate of the pictures.
    pub fn format(&self) -> VideoFormat {
        self.format
    }

    /// Shows every picture in `view`, with or without a call.
    pub fn preview(&self, mut view: impl View + 'static) -> SinkId {
        self.output(move |picture: &Picture| view.show(picture))
    }

    /// Calls `sink` with every picture, on the capture's thread. It must not call this capture.
    pub fn output(&self, sink: impl FnMut(&Picture) + Send + 'static) -> SinkId {
        self.capture.add(Box::new(sink))
    }

    /// Ends a sink: when this returns, it is not running and will not be called again.
    pub fn remove(&self, id: SinkId) {
        lock(&self.capture.shared).sinks.remove(&id);
    }

    /// Counters.
    pub fn stats(&self) -> CaptureStats {
        lock(&self.capture.shared).stats
    }

    /// Why the source ended, once.
    pub fn error(&self) -> Option<CaptureError> {
        lock(&self.capture.shared).error.take()
    }
}

/// Runs an [`AudioSource`] until dropped: a block of 20 ms every 20 ms.
pub struct AudioCapture {
    capture: Capture<Samples>,
    channels: u8,
}

impl AudioCapture {
    /// Starts at once; without sinks, sound goes nowhere. `clock` stamps it.
    ///
    /// # Errors
    /// [`CaptureError::Thread`]. What the source reports later is found in [`AudioCapture::error`].
    pub fn start(mut source: Box<dyn AudioSource>, clock: Clock) -> Result<AudioCapture, CaptureError> {
        let channels = source.channels();
        let interval = (!source.is_paced()).then_some(AUDIO_FRAME);
        let capture = Capture::start("parlor-audio-capture", clock, interval, move |now| source.next(now))?;
        Ok(AudioCapture { capture, channels })
    }

    /// 1 or 2.
    pub fn channels(&self) -> u8 {
        self.channels
    }

    /// Calls `sink` with every block, on the capture's thread. It must not call this capture.
    pub fn output(&self, sink: impl FnMut(&Samples) + Send + 'static) -> SinkId {
        self.capture.add(Box::new(sink))
    }

    /// Ends a sink: when this returns, it is not running and will not be called again.
    pub fn remove(&self, id: SinkId) {
        lock(&self.capture.shared).sinks.remove(&id);
    }

    /// Counters.
    pub fn stats(&self) -> CaptureStats {
        lock(&self.capture.shared).stats
    }

    /// Why the source ended, once.
    pub fn error(&self) -> Option<CaptureError> {
        lock(&self.capture.shared).error.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{PatternSource, ToneSource};
    use crate::clock::real_clock;
    use crate::pattern;
    use std::sync::mpsc::channel;

    #[test]
    fn preview_and_output_see_the_same_pictures_and_end_alone() {
        let source = PatternSource::new(5, 160, 90, 120.0).unwrap();
        let capture = VideoCapture::start(Box::new(source), real_clock()).unwrap();
        let (to_preview, previewed) = channel();
        let (to_encoder, encoded) = channel();
        // The receivers outlive the capture.
        let preview = capture.preview(move |picture: &Picture| drop(to_preview.send(picture.clone())));
        capture.output(move |picture| drop(to_encoder.send(picture.clone())));
        let stamps: Vec<_> = encoded.iter().take(3).map(|picture| pattern::read(&picture).unwrap()).collect();
        assert!(
            stamps.windows(2).all(|pair| pair[1].frame == pair[0].frame + 1 && pair[0].time < pair[1].time)
        );
        capture.remove(preview);
        assert!(previewed.iter().count() >= 3, "and its sender is gone");
        assert_eq!(encoded.iter().take(3).count(), 3, "the other goes on");
        drop(capture);
        let _ = encoded.iter().count();
    }

    #[test]
    fn a_failing_source_ends_and_says_why() {
        struct Broken;
        impl AudioSource for Broken {
            fn channels(&self) -> u8 {
                1
            }
            fn next(&mut self, _now: MediaTime) -> Result<Option<Samples>, CaptureError> {
                Err(CaptureError::Fps(0.0))
            }
            fn is_paced(&self) -> bool {
                true
            }
        }
        let capture = AudioCapture::start(Box::new(Broken), real_clock()).unwrap();
        while !capture.stats().ended {
            std::thread::yield_now();
        }
        assert!(matches!(capture.error(), Some(CaptureError::Fps(_))));
        assert_eq!((capture.stats().captured, capture.error().is_none()), (0, true));
    }

    #[test]
    fn sound_comes_in_blocks_of_20_ms() {
        let capture = AudioCapture::start(Box::new(ToneSource::of_publisher(1)), real_clock()).unwrap();
        let (sender, blocks) = channel();
        capture.output(move |samples| drop(sender.send(samples.clone())));
        assert!(blocks.iter().take(3).all(|samples| samples.len() == 960));
    }
}
