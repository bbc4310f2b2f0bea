//! WAV files: any rate, any usual sample format, turned into 48 kHz mono and looped.

use std::io::Read;
use std::path::Path;

use hound::{SampleFormat, WavReader};
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Async, FixedAsync, Resampler, SincInterpolationParameters};

use super::clip::not_a_clip;
use super::{AudioSource, CaptureError};
use crate::frame::{AUDIO_FRAME_SAMPLES, MediaTime, SAMPLE_RATE, Samples};

/// The whole file is read into memory, so it must not be larger than this: 128 MiB, 23 minutes of mono at 48 kHz.
const FILE_MAX: u64 = 128 << 20;

/// Rates that can be turned into 48 kHz.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=384_000;

/// Plays a WAV file over and over, mixed to mono.
pub struct WavSource {
    /// At least one block.
    samples: Vec<i16>,
    position: usize,
}

impl WavSource {
    /// Reads the whole file.
    ///
    /// # Errors
    /// [`CaptureError::Unreadable`] or [`CaptureError::NotAClip`].
    pub fn open(path: impl AsRef<Path>) -> Result<WavSource, CaptureError> {
        let path = path.as_ref();
        let unreadable = |source| CaptureError::Unreadable { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > FILE_MAX {
            return Err(not_a_clip(
                path,
                format!("it has {size} bytes, more than {FILE_MAX}; cut a shorter one"),
            ));
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        WavSource::parse(path, bytes.as_slice())
    }

    fn parse(path: &Path, bytes: impl Read) -> Result<WavSource, CaptureError> {
        let broken =
            |error: hound::Error| not_a_clip(path, format!("{error}; convert it to a 16-bit WAV file"));
        let mut reader = WavReader::new(bytes).map_err(broken)?;
        let spec = reader.spec();
        if !RATES.contains(&spec.sample_rate) || spec.channels == 0 {
            let reason = format!(
                "{} Hz and {} channels; convert it to 48000 Hz mono",
                spec.sample_rate, spec.channels
            );
            return Err(not_a_clip(path, reason));
        }
        let interleaved: Vec<f32> = match spec.sample_format {
            SampleFormat::Float => reader.samples::<f32>().collect::<Result<_, _>>(),
            SampleFormat::Int => {
                let full_scale = 2f32.powi(i32::from(spec.bits_per_sample.clamp(1, 32)) - 1);
                reader.samples::<i32>().map(|sample| Ok(sample? as f32 / full_scale)).collect()
            }
        }
        .map_err(broken)?;
        let channels = usize::from(spec.channels);
        let mono: Vec<f32> = interleaved
            .chunks_exact(channels)
            .map(|frame| frame.iter().sum::<f32>() / channels as f32)
            .collect();
        let mono =
            if spec.sample_rate == SAMPLE_RATE { mono } else { resample(path, &mono, spec.sample_rate)? };
        if mono.is_empty() {
            return Err(not_a_clip(path, "there is no sound in it"));
        }
        let mut samples: Vec<i16> = mono.iter().map(|sample| (sample * 32_767.0) as i16).collect();
        while samples.len() < AUDIO_FRAME_SAMPLES {
            samples.extend_from_within(..);
        }
        Ok(WavSource { samples, position: 0 })
    }
}

fn resample(path: &Path, mono: &[f32], rate: u32) -> Result<Vec<f32>, CaptureError> {
    let failed = |error: String| {
        not_a_clip(path, format!("{rate} Hz cannot be turned into {SAMPLE_RATE} Hz: {error}"))
    };
    let ratio = f64::from(SAMPLE_RATE) / f64::from(rate);
    let mut resampler = Async::<f32>::new_sinc(
        ratio,
        1.0,
        &SincInterpolationParameters::default(),
        1_024,
        1,
        FixedAsync::Input,
    )
    .map_err(|error| failed(error.to_string()))?;
    let input = InterleavedSlice::new(mono, 1, mono.len()).map_err(|error| failed(error.to_string()))?;
    let output =
        resampler.process_all(&input, mono.len(), None).map_err(|error| failed(error.to_string()))?;
    Ok(output.take_data())
}

impl AudioSource for WavSource {
    fn channels(&self) -> u8 {
        1
    }

    fn next(&mut self, now: MediaTime) -> Result<Option<Samples>, CaptureError> {
        let rest = &self.samples[self.position..];
        let mut block = rest[..rest.len().min(AUDIO_FRAME_SAMPLES)].to_vec();
        // The file has at least one block, so one round more is always enough.
        let missing = AUDIO_FRAME_SAMPLES - block.len();
        block.extend_from_slice(&self.samples[..missing]);
        self.position = if missing > 0 { missing } else { self.position + AUDIO_FRAME_SAMPLES };
        Ok(Some(Samples::mono(block, now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::tone_level;
    use hound::{WavSpec, WavWriter};
    use proptest::prelude::*;
    use std::io::Cursor;

    /// Half a second of a 440 Hz tone, half of full scale.
    fn tone(sample_rate: u32, channels: u16, bits_per_sample: u16, sample_format: SampleFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let spec = WavSpec { channels, sample_rate, bits_per_sample, sample_format };
        let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
        for index in 0..sample_rate / 2 {
            let value =
                0.5 * (f64::from(index) * 440.0 * std::f64::consts::TAU / f64::from(sample_rate)).sin();
            for _ in 0..channels {
                match sample_format {
                    SampleFormat::Float => writer.write_sample(value as f32).unwrap(),
                    SampleFormat::Int => {
                        writer
                            .write_sample((value * (2f64.powi(i32::from(bits_per_sample) - 1) - 1.0)) as i32)
                            .unwrap();
                    }
                }
            }
        }
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    #[test]
    fn every_usual_format_becomes_48_khz_mono_and_loops() {
        use SampleFormat::{Float, Int};
        for (rate, channels, bits, format) in [
            (48_000, 1, 16, Int),
            (44_100, 2, 16, Int),
            (8_000, 1, 8, Int),
            (96_000, 1, 24, Int),
            (16_000, 2, 32, Float),
        ] {
            let mut source =
                WavSource::parse(Path::new("t.wav"), tone(rate, channels, bits, format).as_slice()).unwrap();
            let sound: Vec<i16> = (0..50)
                .flat_map(|_| source.next(MediaTime::ZERO).unwrap().unwrap().data().to_vec())
                .collect();
            assert_eq!(sound.len(), 48_000);
            for half in sound.chunks(24_000) {
                let level = tone_level(&half[2_000..20_000], 440.0);
                assert!((level - 0.5).abs() < 0.03, "{rate} Hz, {channels} channels, {bits} bits: {level}");
            }
        }
    }

    #[test]
    fn a_very_short_file_is_a_loop_too() {
        let mut source = WavSource::parse(Path::new("t.wav"), &tone(4_000, 1, 16, SampleFormat::Int)[..60]);
        if let Ok(source) = &mut source {
            assert_eq!(source.next(MediaTime::ZERO).unwrap().unwrap().len(), 960);
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, change in proptest::collection::vec((0usize..80, any::<u8>()), 0..6), cut in 0usize..200) {
            let _ = WavSource::parse(Path::new("t.wav"), bytes.as_slice());
            let mut damaged = tone(8_000, 1, 16, SampleFormat::Int);
            change.iter().for_each(|&(at, value)| damaged[at] = value);
            damaged.truncate(cut);
            let _ = WavSource::parse(Path::new("t.wav"), damaged.as_slice());
        }
    }
}
