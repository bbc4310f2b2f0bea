//! Microphones and speakers, by cpal: finding them, and keeping a stream alive on an own thread.
//!
//! Between the device, whose callbacks come in sizes nobody asked for, and the blocks of 20 ms of this crate lies a ring
//! of mono samples. A stream that fails again and again is built anew, with growing pauses. What is played or done with
//! the sound is not known here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{BufferSize, SampleFormat, StreamConfig, SupportedStreamConfig};

use crate::capture::{DeviceError, DeviceInfo};
use crate::frame::{AUDIO_FRAME_SAMPLES, SAMPLE_RATE};

/// Samples held at most: 400 ms. A microphone nobody reads loses the oldest; a speaker's feeder stops far below.
const RING_MAX: usize = 19_200;

/// How often the thread looks at its stream.
const LOOK: Duration = Duration::from_millis(100);

/// So many errors between two looks mean that the stream is broken: a backend that does not recover from an underrun
/// reports hundreds, a hiccup reports one or two.
const ERRORS_BROKEN: u32 = 5;

/// The pause before a broken stream is built again doubles from the first to the second.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Which way sound goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From a microphone.
    Input,
    /// To a speaker.
    Output,
}

impl Direction {
    fn kind(self) -> &'static str {
        match self {
            Direction::Input => "microphone",
            Direction::Output => "speaker",
        }
    }
}

/// All devices of a direction that answer.
pub(crate) fn list(direction: Direction) -> Vec<DeviceInfo> {
    let host = cpal::default_host();
    let Ok(devices) = host.devices() else { return Vec::new() };
    devices
        .filter(|device| match direction {
            Direction::Input => device.supports_input(),
            Direction::Output => device.supports_output(),
        })
        .map(|device| DeviceInfo {
            description: device.description().map(|it| it.name().to_owned()).unwrap_or_default(),
            name: name_of(&device),
        })
        .collect()
}

fn name_of(device: &cpal::Device) -> String {
    device.id().map(|id| id.id().to_owned()).unwrap_or_default()
}

/// A device and how it is to be used.
struct AudioDevice {
    device: cpal::Device,
    direction: Direction,
    name: String,
    config: StreamConfig,
    format: SampleFormat,
}

impl AudioDevice {
    /// The device of that name, or the default. A default device is always offered; whether it is real shows when it is
    /// asked for its format.
    fn find(direction: Direction, name: Option<&str>) -> Result<AudioDevice, DeviceError> {
        let kind = direction.kind();
        let missing = |reason: String| DeviceError::Missing { kind, name: name.map(str::to_owned), reason };
        let host = cpal::default_host();
        let device = match name {
            Some(name) => host
                .devices()
                .map_err(|error| missing(error.to_string()))?
                .find(|device| name_of(device) == name)
                .ok_or_else(|| missing("the list of devices does not have it".into()))?,
            None => match direction {
                Direction::Input => host.default_input_device(),
                Direction::Output => host.default_output_device(),
            }
            .ok_or_else(|| missing("the system has no default".into()))?,
        };
        let config = choose(&device, direction).map_err(missing)?;
        let mut stream = config.config();
        // On PulseAudio the default would be two seconds; elsewhere anything but the default tends to underrun.
        let pulse = host.id().name().eq_ignore_ascii_case("pulseaudio");
        stream.buffer_size =
            if pulse { BufferSize::Fixed(AUDIO_FRAME_SAMPLES as u32) } else { BufferSize::Default };
        Ok(AudioDevice {
            name: name_of(&device),
            device,
            direction,
            config: stream,
            format: config.sample_format(),
        })
    }

    fn build(&self, ring: &Arc<Ring>) -> Result<cpal::Stream, DeviceError> {
        let refused = |reason: String| DeviceError::Refused {
            kind: self.direction.kind(),
            name: self.name.clone(),
            reason,
        };
        let stream = match self.format {
            SampleFormat::I16 => self.build_as::<i16>(ring),
            SampleFormat::F32 => self.build_as::<f32>(ring),
            other => {
                return Err(refused(format!(
                    "its samples are {other:?}; 16-bit integers or floats are needed"
                )));
            }
        }
        .map_err(|error| refused(error.to_string()))?;
        stream.play().map_err(|error| refused(error.to_string()))?;
        Ok(stream)
    }

    fn build_as<T: cpal::SizedSample + Pcm + 'static>(
        &self,
        ring: &Arc<Ring>,
    ) -> Result<cpal::Stream, cpal::Error> {
        let channels = usize::from(self.config.channels.max(1));
        let (data, errors) = (ring.clone(), ring.clone());
        // Counted, never printed one by one: there may be hundreds a second.
        let on_error = move |_error| {
            errors.errors.fetch_add(1, Ordering::Relaxed);
        };
        match self.direction {
            Direction::Input => self.device.build_input_stream(
                self.config,
                move |input: &[T], _: &cpal::InputCallbackInfo| data.push_frames(input, channels),
                on_error,
                None,
            ),
            Direction::Output => self.device.build_output_stream(
                self.config,
                move |output: &mut [T], _: &cpal::OutputCallbackInfo| data.pop_frames(output, channels),
                on_error,
                None,
            ),
        }
    }
}

/// The default format at 48 kHz, or any format that has 48 kHz and a kind of sample we know.
fn choose(device: &cpal::Device, direction: Direction) -> Result<SupportedStreamConfig, String> {
    let default = match direction {
        Direction::Input => device.default_input_config(),
        Direction::Output => device.default_output_config(),
    }
    .map_err(|error| error.to_string())?;
    let usable = |format| matches!(format, SampleFormat::I16 | SampleFormat::F32);
    if default.sample_rate() == SAMPLE_RATE && usable(default.sample_format()) {
        return Ok(default);
    }
    let pick = |configs: &mut dyn Iterator<Item = cpal::SupportedStreamConfigRange>| {
        configs
            .filter(|range| usable(range.sample_format()))
            .find_map(|range| range.try_with_sample_rate(SAMPLE_RATE))
    };
    let found = match direction {
        Direction::Input => device.supported_input_configs().ok().and_then(|mut configs| pick(&mut configs)),
        Direction::Output => {
            device.supported_output_configs().ok().and_then(|mut configs| pick(&mut configs))
        }
    };
    found.ok_or_else(|| format!("it does not run at {SAMPLE_RATE} Hz; let the system's sound server convert"))
}

/// A kind of sample.
trait Pcm: Copy + Send {
    fn to_i16(self) -> i16;
    fn from_i16(sample: i16) -> Self;
}

impl Pcm for i16 {
    fn to_i16(self) -> i16 {
        self
    }

    fn from_i16(sample: i16) -> i16 {
        sample
    }
}

impl Pcm for f32 {
    fn to_i16(self) -> i16 {
        (self * 32_767.0) as i16
    }

    fn from_i16(sample: i16) -> f32 {
        f32::from(sample) / 32_768.0
    }
}

/// Mono samples between the device's thread and ours.
#[derive(Default)]
pub(crate) struct Ring {
    samples: Mutex<VecDeque<i16>>,
    arrived: Condvar,
    errors: AtomicU32,
    /// The largest callback so far, samples.
    callback_max: AtomicUsize,
}

impl Ring {
    /// Samples held.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// The largest number of samples the device took or gave at once.
    pub(crate) fn callback_max(&self) -> usize {
        self.callback_max.load(Ordering::Relaxed)
    }

    /// Appends samples for the speaker.
    pub(crate) fn push(&self, samples: &[i16]) {
        let mut ring = self.lock();
        ring.extend(samples);
        let over = ring.len().saturating_sub(RING_MAX);
        ring.drain(..over);
        drop(ring);
        self.arrived.notify_one();
    }

    /// Takes `len` samples of the microphone and says how many are left; `None` if they do not come within `patience`.
    pub(crate) fn take(&self, len: usize, patience: Duration) -> Option<(Vec<i16>, usize)> {
        let waited = self.arrived.wait_timeout_while(self.lock(), patience, |ring| ring.len() < len);
        let (mut ring, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if ring.len() < len {
            return None;
        }
        let samples = ring.drain(..len).collect();
        Some((samples, ring.len()))
    }

    fn push_frames<T: Pcm>(&self, input: &[T], channels: usize) {
        let mono: Vec<i16> = input
            .chunks_exact(channels)
            .map(|frame| {
                (frame.iter().map(|sample| i32::from(sample.to_i16())).sum::<i32>() / channels as i32) as i16
            })
            .collect();
        self.callback_max.fetch_max(mono.len(), Ordering::Relaxed);
        self.push(&mono);
    }

    fn pop_frames<T: Pcm>(&self, output: &mut [T], channels: usize) {
        self.callback_max.fetch_max(output.len() / channels, Ordering::Relaxed);
        let mut ring = self.lock();
        for frame in output.chunks_mut(channels) {
            frame.fill(T::from_i16(ring.pop_front().unwrap_or(0)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<i16>> {
        // A queue of numbers is whole at any time.
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a device's stream alive until dropped.
pub(crate) struct DeviceStream {
    ring: Arc<Ring>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl DeviceStream {
    /// Opens the device of that name, or the default, and starts it.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] or [`DeviceError::Refused`].
    pub(crate) fn open(direction: Direction, name: Option<&str>) -> Result<DeviceStream, DeviceError> {
        let ring = Arc::new(Ring::default());
        let (stop, stopped) = sync_channel(1);
        let (started, result) = sync_channel(1);
        let (for_thread, name_for_thread) = (ring.clone(), name.map(str::to_owned));
        // Devices are found, used and dropped on one thread: not every system lets them move.
        let thread =
            std::thread::Builder::new().name(format!("parlor-{}", direction.kind())).spawn(move || {
                let opened = AudioDevice::find(direction, name_for_thread.as_deref())
                    .and_then(|device| device.build(&for_thread).map(|stream| (device, stream)));
                match opened {
                    Ok((device, stream)) => {
                        let _ = started.send(Ok(()));
                        keep_alive(&device, stream, &for_thread, &stopped);
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        let refused = |reason: String| DeviceError::Refused {
            kind: direction.kind(),
            name: name.unwrap_or("default").to_owned(),
            reason,
        };
        let thread = thread.map_err(|error| refused(error.to_string()))?;
        result.recv().map_err(|_| refused("its driver failed while starting".into()))??;
        Ok(DeviceStream { ring, stop: Some(stop), thread: Some(thread) })
    }

    /// What lies between the device and us.
    pub(crate) fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }
}

impl Drop for DeviceStream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed by its own thread.
            let _ = thread.join();
        }
    }
}

/// Watches `stream` and builds it again when it is broken, until told to stop.
fn keep_alive(device: &AudioDevice, stream: cpal::Stream, ring: &Arc<Ring>, stopped: &Receiver<()>) {
    let mut stream = Some(stream);
    let mut pause = PAUSE_MIN;
    loop {
        let wait = if stream.is_some() { LOOK } else { pause };
        if !matches!(stopped.recv_timeout(wait), Err(RecvTimeoutError::Timeout)) {
            return;
        }
        let errors = ring.errors.swap(0, Ordering::Relaxed);
        if stream.is_none() {
            stream = device.build(ring).ok();
            pause = (pause * 2).min(PAUSE_MAX);
        } else if errors >= ERRORS_BROKEN {
            tracing::warn!(device = device.name, errors, "the sound device fails and is opened again");
            stream = None;
        } else if errors == 0 {
            // Each quiet look pays back a little, so that a device that fails every second stays on long pauses.
            pause = pause.saturating_sub(LOOK / 10).max(PAUSE_MIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_joins_channels_and_is_bounded() {
        let ring = Ring::default();
        ring.push_frames(&[100i16, 200, -300, -100], 2);
        assert_eq!(ring.take(2, Duration::ZERO), Some((vec![150, -200], 0)));
        assert_eq!(ring.take(1, Duration::ZERO), None);
        ring.push(&vec![7; RING_MAX + 500]);
        assert_eq!((ring.len(), ring.callback_max()), (RING_MAX, 2));
        ring.push_frames(&[1.0f32, -1.0], 1);
        let mut out = [0i16; 6];
        ring.pop_frames(&mut out, 3);
        assert_eq!(out, [7; 6]);
        let empty = Ring::default();
        empty.pop_frames(&mut out, 2);
        assert_eq!(out, [0; 6]);
    }

    /// With or without a sound card: an answer, not a panic, and for a name that cannot be there, an error naming it.
    #[test]
    fn a_device_that_is_not_there_is_an_error_that_says_so() {
        for direction in [Direction::Input, Direction::Output] {
            let _ = list(direction);
            let error = DeviceStream::open(direction, Some("no such device")).err().unwrap();
            assert!(matches!(error, DeviceError::Missing { .. }), "{error}");
            assert!(error.to_string().contains("no such device"), "{error}");
            let _ = DeviceStream::open(direction, None);
        }
    }
}
