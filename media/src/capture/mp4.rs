//! H.264 in MP4 files: [`mp4_index`](super::mp4_index) finds the frames, OpenH264 decodes them, in the order they are shown.

use std::path::{Path, PathBuf};

use openh264::OpenH264API;
use openh264::decoder::{Decoder, DecoderConfig, Flush};

use super::clip::{Clip, not_a_clip};
use super::{CaptureError, mp4_index};
use crate::frame::{MediaTime, Picture};
use crate::video::{annexb, to_picture};

/// The whole file is read into memory, so it must not be larger than this: 512 MiB, an hour at 1 Mbit/s.
const FILE_MAX: u64 = 512 << 20;

/// The pictures of an MP4 file.
pub(super) struct Mp4Clip {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where each frame lies in `bytes`, in decoding order.
    frames: Vec<std::ops::Range<usize>>,
    fps: f64,
    /// The parameter sets as Annex B.
    parameters: Vec<u8>,
    /// How many bytes the length before each unit has, 1..=4.
    length_bytes: usize,
    decoder: Decoder,
    next_frame: usize,
    /// Pictures that came out at the end all at once, the next last.
    rest: Option<Vec<Picture>>,
}

impl Mp4Clip {
    /// # Errors
    /// [`CaptureError::Unreadable`] or [`CaptureError::NotAClip`].
    pub(super) fn open(path: &Path) -> Result<Mp4Clip, CaptureError> {
        let unreadable = |source| CaptureError::Unreadable { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > FILE_MAX {
            return Err(not_a_clip(
                path,
                format!("it has {size} bytes, more than {FILE_MAX}; cut a shorter clip"),
            ));
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        Mp4Clip::parse(path, bytes)
    }

    fn parse(path: &Path, bytes: Vec<u8>) -> Result<Mp4Clip, CaptureError> {
        let index = mp4_index::read(&bytes).map_err(|reason| not_a_clip(path, reason))?;
        let config = index.config;
        let mut parameters = Vec::new();
        let sets = config.sequence_parameter_sets.iter().chain(&config.picture_parameter_sets);
        sets.for_each(|set| annexb::append(&mut parameters, set));
        let length_bytes = usize::from(config.length_size.clamp(1, 4));
        let (frames, fps) = (index.frames, index.fps);
        let decoder = start_decoder(path)?;
        let path = path.to_owned();
        Ok(Mp4Clip { path, frames, fps, parameters, length_bytes, decoder, next_frame: 0, rest: None, bytes })
    }

    /// The frame as Annex B, with the parameter sets before the first.
    fn access_unit(&self, index: usize) -> Result<Vec<u8>, CaptureError> {
        let mut unit = if index == 0 { self.parameters.clone() } else { Vec::new() };
        let mut rest = &self.bytes[self.frames[index].clone()];
        while !rest.is_empty() {
            let split = rest.split_at_checked(self.length_bytes).and_then(|(length, after)| {
                let length = length.iter().fold(0usize, |sum, &byte| sum << 8 | usize::from(byte));
                after.split_at_checked(length)
            });
            let Some((nal, after)) = split else {
                return Err(not_a_clip(
                    &self.path,
                    format!("frame {index} is damaged; repair or convert it"),
                ));
            };
            annexb::append(&mut unit, nal);
            rest = after;
        }
        Ok(unit)
    }
}

impl Clip for Mp4Clip {
    fn fps(&self) -> f64 {
        self.fps
    }

    fn next(&mut self) -> Result<Option<Picture>, CaptureError> {
        loop {
            if let Some(rest) = &mut self.rest {
                return Ok(rest.pop());
            }
            let path = self.path.clone();
            let broken = |what: String| not_a_clip(&path, format!("{what}; repair or convert it"));
            if self.next_frame == self.frames.len() {
                let decoded = self.decoder.flush_remaining().map_err(|error| broken(error.to_string()))?;
                let pictures = decoded.iter().map(|picture| to_picture(picture, MediaTime::ZERO));
                let mut rest =
                    pictures.collect::<Result<Vec<_>, _>>().map_err(|error| broken(error.to_string()))?;
                rest.reverse();
                self.rest = Some(rest);
                continue;
            }
            let index = self.next_frame;
            let unit = self.access_unit(index)?;
            self.next_frame += 1;
            let decoded = self.decoder.decode(&unit).map_err(|error| {
                broken(format!("frame {index} does not decode (OpenH264 code {:#x})", error.native_code()))
            })?;
            if let Some(decoded) = decoded {
                return to_picture(&decoded, MediaTime::ZERO)
                    .map(Some)
                    .map_err(|error| broken(error.to_string()));
            }
        }
    }

    fn rewind(&mut self) -> Result<(), CaptureError> {
        self.decoder = start_decoder(&self.path)?;
        self.next_frame = 0;
        self.rest = None;
        Ok(())
    }
}

/// A decoder that holds pictures back until it is their turn, as files with B frames need.
fn start_decoder(path: &Path) -> Result<Decoder, CaptureError> {
    let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
    Decoder::with_api_config(OpenH264API::from_source(), config)
        .map_err(|error| not_a_clip(path, format!("the H.264 decoder did not start: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(bytes: Vec<u8>) {
        if let Ok(mut clip) = Mp4Clip::parse(Path::new("test.mp4"), bytes) {
            for _ in 0..5 {
                if !matches!(clip.next(), Ok(Some(_))) {
                    return;
                }
            }
        }
    }

    /// A recording of five pictures.
    fn recording() -> Vec<u8> {
        use crate::play::{Mp4Recorder, RecordedTracks};
        let path = std::env::temp_dir().join(format!("parlor-mp4-{}.mp4", std::process::id()));
        let mut encoder = crate::video::H264Encoder::new(crate::video::H264Config::p180()).unwrap();
        let mut recorder = Mp4Recorder::create(&path, RecordedTracks { video: true, audio: None }).unwrap();
        let pattern = crate::pattern::Pattern::new(1, 320, 180).unwrap();
        for frame in 0..5 {
            let picture = pattern.picture(frame, MediaTime::from_millis(u64::from(frame) * 66));
            recorder.video(&encoder.encode(&picture).unwrap().unwrap()).unwrap();
        }
        recorder.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn garbage_is_no_clip(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            read_all([b"\0\0\0\x14ftypiso6\0\0\0\0mp41".as_slice(), &bytes].concat());
        }

        #[test]
        fn damaged_files_never_panic(changes in proptest::collection::vec((0usize..4_000, any::<u8>()), 1..6), cut in 0usize..6_000) {
            static RECORDING: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let mut bytes = RECORDING.get_or_init(recording).clone();
            let length = bytes.len();
            changes.iter().for_each(|&(at, value)| bytes[at % length] = value);
            bytes.truncate(length.saturating_sub(cut / 3));
            read_all(bytes);
        }
    }
}
