//! A camera as a source, by nokhwa: a thin adapter. It compiles everywhere and has never been run on hardware by the
//! project's tests.
//!
//! Only uncompressed formats (YUYV, NV12); a camera that offers nothing but MJPEG is refused.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use nokhwa::utils::{
    ApiBackend, CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType, Resolution,
};

use super::{CaptureError, DeviceError, DeviceInfo, VideoFormat, VideoSource, check_fps};
use crate::clock::Clock;
use crate::frame::{MediaTime, Picture};
use crate::scale::Scaler;

const KIND: &str = "camera";

/// Pictures between the camera's thread and ours; when full, the camera's newest is dropped.
const QUEUE: usize = 2;

/// How long one call waits for a picture.
const PATIENCE: Duration = Duration::from_millis(100);

/// Formats this file can read.
const FORMATS: [FrameFormat; 2] = [FrameFormat::YUYV, FrameFormat::NV12];

/// Cameras the system knows. Empty where there is none.
pub fn cameras() -> Vec<DeviceInfo> {
    nokhwa::query(ApiBackend::Auto)
        .unwrap_or_default()
        .into_iter()
        .map(|info| DeviceInfo { name: info.index().to_string(), description: info.human_name() })
        .collect()
}

/// Gives what a camera sees, scaled to one size.
pub struct Camera {
    format: VideoFormat,
    name: String,
    pictures: Receiver<Result<Picture, DeviceError>>,
}

impl Camera {
    /// Opens the camera of that name (as in [`cameras`]), or the first. `clock` stamps the pictures.
    ///
    /// # Errors
    /// [`CaptureError::Device`] if there is none or it refuses; [`CaptureError::Frame`], [`CaptureError::Fps`].
    pub fn open(
        name: Option<&str>,
        width: u32,
        height: u32,
        fps: f32,
        clock: Clock,
    ) -> Result<Camera, CaptureError> {
        check_fps(fps)?;
        let scaler = Scaler::new(width, height)?;
        let known = cameras();
        let missing = |reason: &str| DeviceError::Missing {
            kind: KIND,
            name: name.map(str::to_owned),
            reason: reason.to_owned(),
        };
        let chosen = match name {
            Some(name) => known.into_iter().find(|camera| camera.name == name),
            None => known.into_iter().next(),
        };
        let name = chosen.ok_or_else(|| missing("the system lists none"))?.name;
        let (sender, pictures) = sync_channel(QUEUE);
        let format = VideoFormat { width, height, fps };
        let for_thread = name.clone();
        // A camera is opened, used and dropped on one thread: it cannot move between threads. The thread ends when the
        // receiver is gone, at the next picture.
        std::thread::Builder::new()
            .name("parlor-camera".into())
            .spawn(move || {
                if let Err(error) = run(&for_thread, format, scaler, &clock, &sender) {
                    let _ = sender.send(Err(error));
                }
            })
            .map_err(CaptureError::Thread)?;
        Ok(Camera { format, name, pictures })
    }
}

impl VideoSource for Camera {
    fn format(&self) -> VideoFormat {
        self.format
    }

    fn next(&mut self, _now: MediaTime) -> Result<Option<Picture>, CaptureError> {
        match self.pictures.recv_timeout(PATIENCE) {
            Ok(Ok(picture)) => Ok(Some(picture)),
            Ok(Err(error)) => Err(error.into()),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                let (name, reason) = (self.name.clone(), "its thread has ended".to_owned());
                Err(DeviceError::Lost { kind: KIND, name, reason }.into())
            }
        }
    }

    fn is_paced(&self) -> bool {
        true
    }
}

/// Opens the camera and sends its pictures until nobody takes them.
fn run(
    name: &str,
    format: VideoFormat,
    mut scaler: Scaler,
    clock: &Clock,
    sender: &SyncSender<Result<Picture, DeviceError>>,
) -> Result<(), DeviceError> {
    let refused = |reason: String| DeviceError::Refused { kind: KIND, name: name.to_owned(), reason };
    let index = name.parse().map_or_else(|_| CameraIndex::String(name.to_owned()), CameraIndex::Index);
    let size = Resolution::new(format.width, format.height);
    let wanted = CameraFormat::new(size, FrameFormat::YUYV, format.fps.round() as u32);
    let request = RequestedFormat::with_formats(RequestedFormatType::Closest(wanted), &FORMATS);
    let mut camera = nokhwa::Camera::new(index, request).map_err(|error| refused(error.to_string()))?;
    camera.open_stream().map_err(|error| refused(error.to_string()))?;
    loop {
        let buffer = camera.frame().map_err(|error| DeviceError::Lost {
            kind: KIND,
            name: name.to_owned(),
            reason: error.to_string(),
        })?;
        let (width, height) = (buffer.resolution().width(), buffer.resolution().height());
        let pixels = match buffer.source_frame_format() {
            FrameFormat::YUYV => yuyv_to_i420(buffer.buffer(), width as usize, height as usize),
            FrameFormat::NV12 => nv12_to_i420(buffer.buffer(), width as usize, height as usize),
            other => return Err(refused(format!("it gives {other}; YUYV or NV12 is needed"))),
        };
        let picture =
            Picture::new(width, height, pixels, clock()).map_err(|error| refused(error.to_string()))?;
        match sender.try_send(Ok(scaler.scale(&picture))) {
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => return Ok(()),
        }
    }
}

/// Pairs of pixels as Y U Y V; two rows share the colours of the mean. Too few bytes give a short picture, which its
/// constructor refuses.
fn yuyv_to_i420(yuyv: &[u8], width: usize, height: usize) -> Vec<u8> {
    let yuyv = &yuyv[..yuyv.len().min(width * height * 2)];
    let mut pixels: Vec<u8> = yuyv.iter().step_by(2).copied().collect();
    for plane in [1, 3] {
        for rows in yuyv.chunks_exact((width * 4).max(1)) {
            let (upper, lower) = rows.split_at(width * 2);
            let pairs = upper[plane..].iter().step_by(4).zip(lower[plane..].iter().step_by(4));
            pixels.extend(pairs.map(|(&a, &b)| a.midpoint(b)));
        }
    }
    pixels
}

/// A plane of Y, then one of U and V in turn.
fn nv12_to_i420(nv12: &[u8], width: usize, height: usize) -> Vec<u8> {
    let (luma, chroma) = nv12.split_at((width * height).min(nv12.len()));
    let chroma = &chroma[..chroma.len().min(width * height / 2)];
    let mut pixels = luma.to_vec();
    pixels.extend(chroma.iter().step_by(2));
    pixels.extend(chroma.iter().skip(1).step_by(2));
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::real_clock;

    #[test]
    fn camera_formats_become_i420() {
        let yuyv: Vec<u8> = (0..16 * 8).flat_map(|_| [10, 20, 11, 30]).collect();
        let picture = Picture::new(16, 16, yuyv_to_i420(&yuyv, 16, 16), MediaTime::ZERO).unwrap();
        assert_eq!((&picture.luma()[..2], picture.u()[5], picture.v()[5]), (&[10, 11][..], 20, 30));
        let nv12 = [vec![10; 256], [20, 30].repeat(64)].concat();
        let picture = Picture::new(16, 16, nv12_to_i420(&nv12, 16, 16), MediaTime::ZERO).unwrap();
        assert_eq!((picture.luma()[9], picture.u()[63], picture.v()[63]), (10, 20, 30));
        assert!(Picture::new(16, 16, yuyv_to_i420(&[1, 2, 3], 16, 16), MediaTime::ZERO).is_err());
        assert!(Picture::new(16, 16, nv12_to_i420(&[1, 2, 3], 16, 16), MediaTime::ZERO).is_err());
    }

    #[test]
    fn a_camera_that_is_not_there_is_an_error_that_says_so() {
        let error = Camera::open(Some("no such camera"), 640, 360, 15.0, real_clock()).err().unwrap();
        assert!(error.to_string().contains("no such camera"), "{error}");
        let _ = cameras();
    }
}
