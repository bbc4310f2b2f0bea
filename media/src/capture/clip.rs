//! A clip as a source: looped, scaled, at the wanted rate.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{CaptureError, VideoFormat, VideoSource, check_fps};
use crate::frame::{MediaTime, Picture};
use crate::scale::Scaler;

/// A file of pictures, read from start to end and again.
pub(super) trait Clip: Send {
    /// Pictures per second.
    fn fps(&self) -> f64;

    /// The next picture; `None` at the end.
    fn next(&mut self) -> Result<Option<Picture>, CaptureError>;

    /// Back to the start.
    fn rewind(&mut self) -> Result<(), CaptureError>;
}

/// Plays a clip over and over, scaled to one size, with pictures left out or repeated to keep its speed at any rate.
pub struct ClipSource {
    clip: Box<dyn Clip>,
    scaler: Scaler,
    format: VideoFormat,
    /// Pictures of the clip for one of ours.
    step: f64,
    /// The newest picture of the clip and how many were read, over all rounds.
    picture: Picture,
    read: u64,
    given: u64,
}

/// Opens a clip of pictures: MP4 with H.264 (feature `h264`) or Y4M, told apart by their first bytes.
///
/// `fps` is the rate wanted; `None` for the clip's own.
///
/// # Errors
/// [`CaptureError::Unreadable`], [`CaptureError::NotAClip`], [`CaptureError::Frame`] or [`CaptureError::Fps`].
pub fn open_clip(
    path: impl AsRef<Path>,
    width: u32,
    height: u32,
    fps: Option<f32>,
) -> Result<ClipSource, CaptureError> {
    let path = path.as_ref();
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(16).read_to_end(&mut start))
        .map_err(|source| CaptureError::Unreadable { path: path.to_owned(), source })?;
    let clip: Box<dyn Clip> = if start.starts_with(b"YUV4MPEG2") {
        Box::new(super::y4m::Y4mClip::open(path)?)
    } else if start.get(4..8) == Some(b"ftyp") {
        #[cfg(feature = "h264")]
        let clip = super::mp4::Mp4Clip::open(path)?;
        #[cfg(not(feature = "h264"))]
        return Err(not_a_clip(
            path,
            "MP4 needs the feature h264, which is not in this build; convert to Y4M",
        ));
        #[cfg(feature = "h264")]
        Box::new(clip)
    } else {
        return Err(not_a_clip(path, "it is neither MP4 nor Y4M; convert it to MP4 with H.264"));
    };
    ClipSource::new(clip, path, width, height, fps)
}

impl ClipSource {
    fn new(
        mut clip: Box<dyn Clip>,
        path: &Path,
        width: u32,
        height: u32,
        fps: Option<f32>,
    ) -> Result<ClipSource, CaptureError> {
        let step = fps.map_or(1.0, |fps| clip.fps() / f64::from(fps));
        let fps = fps.unwrap_or(clip.fps() as f32);
        check_fps(fps)?;
        let mut scaler = Scaler::new(width, height)?;
        // Reading the first picture now makes a file without one an error here and not in the middle of a call.
        let first = clip.next()?.ok_or_else(|| not_a_clip(path, "there is no picture in it"))?;
        let picture = scaler.scale(&first);
        Ok(ClipSource {
            clip,
            scaler,
            format: VideoFormat { width, height, fps },
            picture,
            step,
            read: 1,
            given: 0,
        })
    }

    fn read_next(&mut self) -> Result<Option<Picture>, CaptureError> {
        if let Some(picture) = self.clip.next()? {
            return Ok(Some(picture));
        }
        self.clip.rewind()?;
        self.clip.next()
    }
}

impl VideoSource for ClipSource {
    fn format(&self) -> VideoFormat {
        self.format
    }

    fn next(&mut self, now: MediaTime) -> Result<Option<Picture>, CaptureError> {
        // The clip's picture that is on screen when the n-th of ours is due; a little early, so that a rate that is
        // rounded in the file does not repeat one picture and leave out the next.
        let wanted = (self.given as f64 * self.step + 0.01) as u64;
        self.given += 1;
        let mut newest = None;
        while self.read <= wanted {
            newest = self.read_next()?;
            self.read += 1;
        }
        if let Some(picture) = newest {
            self.picture = self.scaler.scale(&picture);
        }
        Ok(Some(self.picture.clone().with_time(now)))
    }
}

pub(super) fn not_a_clip(path: &Path, reason: impl Into<String>) -> CaptureError {
    CaptureError::NotAClip { path: path.to_owned(), reason: reason.into() }
}
