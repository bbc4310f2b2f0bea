//! Pictures and sound into uncompressed files: Y4M and WAV.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use hound::{SampleFormat, WavSpec};

use super::{AudioSink, PlayError, View};
use crate::frame::{FrameError, Picture, SAMPLE_RATE, Samples};
use crate::scale::Scaler;

/// Writes pictures to a Y4M file, scaled to the size of the file.
///
/// As a [`View`], it keeps the first error for [`Y4mWriter::finish`].
pub struct Y4mWriter {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    scaler: Scaler,
    error: Option<PlayError>,
}

impl Y4mWriter {
    /// Makes the file; `fps` is what it says about its rate, in pictures per second.
    ///
    /// # Errors
    /// [`PlayError::Output`] if it cannot be made, [`PlayError::Unfit`] for an impossible size.
    pub fn create(path: impl AsRef<Path>, width: u32, height: u32, fps: u32) -> Result<Y4mWriter, PlayError> {
        let path = path.as_ref().to_owned();
        let unfit = |error: FrameError| PlayError::Unfit { path: path.clone(), reason: error.to_string() };
        let scaler = Scaler::new(width, height).map_err(unfit)?;
        let mut file = BufWriter::new(File::create(&path).map_err(PlayError::output(&path))?);
        writeln!(file, "YUV4MPEG2 W{width} H{height} F{}:1 Ip A1:1 C420jpeg", fps.max(1))
            .map_err(PlayError::output(&path))?;
        Ok(Y4mWriter { file: Some(file), path, scaler, error: None })
    }

    /// Writes one picture.
    ///
    /// # Errors
    /// [`PlayError::Output`]; [`PlayError::Closed`] after an error.
    pub fn write(&mut self, picture: &Picture) -> Result<(), PlayError> {
        let file = self.file.as_mut().ok_or(PlayError::Closed { path: self.path.clone() })?;
        let picture = self.scaler.scale(picture);
        // A frame of C420 is what a picture has in memory.
        file.write_all(b"FRAME\n").and_then(|()| file.write_all(picture.pixels())).map_err(|error| {
            self.file = None;
            PlayError::output(&self.path)(error)
        })
    }

    /// Writes what is left and closes the file.
    ///
    /// # Errors
    /// The first that [`View::show`] met, or [`PlayError::Output`].
    pub fn finish(mut self) -> Result<(), PlayError> {
        match (self.error.take(), self.file.take()) {
            (Some(error), _) => Err(error),
            (None, Some(mut file)) => file.flush().map_err(PlayError::output(&self.path)),
            (None, None) => Err(PlayError::Closed { path: self.path }),
        }
    }
}

impl View for Y4mWriter {
    fn show(&mut self, picture: &Picture) {
        if self.error.is_none() {
            self.error = self.write(picture).err();
        }
    }
}

/// Writes sound to a WAV file, 48 kHz, 16 bits.
///
/// As an [`AudioSink`], it keeps the first error for [`WavWriter::finish`].
pub struct WavWriter {
    path: PathBuf,
    writer: Option<hound::WavWriter<BufWriter<File>>>,
    channels: u8,
    error: Option<PlayError>,
}

impl WavWriter {
    /// Makes the file, for 1 or 2 channels.
    ///
    /// # Errors
    /// [`PlayError::Output`] if it cannot be made, [`PlayError::Unfit`] for other channels.
    pub fn create(path: impl AsRef<Path>, channels: u8) -> Result<WavWriter, PlayError> {
        let path = path.as_ref().to_owned();
        if !(1..=2).contains(&channels) {
            return Err(PlayError::Unfit { path, reason: format!("{channels} channels; choose 1 or 2") });
        }
        let spec = WavSpec {
            channels: channels.into(),
            sample_rate: SAMPLE_RATE,
            bits_per_sample: 16,
            sample_format: SampleFormat::Int,
        };
        let writer = hound::WavWriter::create(&path, spec).map_err(|error| wav_error(&path, error))?;
        Ok(WavWriter { path, writer: Some(writer), channels, error: None })
    }

    /// Writes a block; stereo into a mono file is mixed down, mono into a stereo file goes to both sides.
    ///
    /// # Errors
    /// [`PlayError::Output`]; [`PlayError::Closed`] after an error.
    pub fn write(&mut self, samples: &Samples) -> Result<(), PlayError> {
        let writer = self.writer.as_mut().ok_or(PlayError::Closed { path: self.path.clone() })?;
        let mixed = if self.channels == 1 { samples.to_mono() } else { samples.clone() };
        let copies = usize::from(self.channels / mixed.channels());
        let written = mixed
            .data()
            .iter()
            .try_for_each(|&sample| (0..copies).try_for_each(|_| writer.write_sample(sample)));
        written.map_err(|error| {
            self.writer = None;
            wav_error(&self.path, error)
        })
    }

    /// Writes the lengths into the header and closes the file.
    ///
    /// # Errors
    /// The first that [`AudioSink::play`] met, or [`PlayError::Output`].
    pub fn finish(mut self) -> Result<(), PlayError> {
        match (self.error.take(), self.writer.take()) {
            (Some(error), _) => Err(error),
            (None, Some(writer)) => writer.finalize().map_err(|error| wav_error(&self.path, error)),
            (None, None) => Err(PlayError::Closed { path: self.path }),
        }
    }
}

impl AudioSink for WavWriter {
    fn play(&mut self, samples: &Samples) {
        if self.error.is_none() {
            self.error = self.write(samples).err();
        }
    }
}

fn wav_error(path: &Path, error: hound::Error) -> PlayError {
    let source = match error {
        hound::Error::IoError(source) => source,
        other => std::io::Error::other(other.to_string()),
    };
    PlayError::Output { path: path.to_owned(), source }
}
