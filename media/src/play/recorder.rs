//! Recording encoded frames as they came: fragmented MP4 with H.264 and Opus, readable up to the last whole second even
//! if the program dies.
//!
//! Nothing is decoded or encoded again. A gap in the frames is a frame that lasts longer, so both tracks keep the
//! times of capture.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::PlayError;
use super::recorder_boxes as boxes;
use crate::frame::{EncodedAudio, EncodedVideo, MediaTime};
use crate::video::annexb::{self, nal};

/// A fragment is written when it holds this much,
const FRAGMENT_TIME: Duration = Duration::from_secs(1);

/// or this much: 4 MiB, a second at 32 Mbit/s.
const FRAGMENT_BYTES: usize = 4 << 20;

/// Sound that came before the first keyframe, packets: 2 s.
const EARLY_AUDIO_MAX: usize = 100;

/// How long the last picture is shown if it is the only one, ms: one at 15 per second.
const PICTURE_MILLIS: u64 = 67;

/// What a recording holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedTracks {
    /// Pictures. The recording then starts at the first keyframe.
    pub video: bool,
    /// Channels of the sound, 1 or 2; `None` for no sound.
    pub audio: Option<u8>,
}

/// Writes one stream to a file.
pub struct Mp4Recorder {
    path: PathBuf,
    file: BufWriter<File>,
    tracks: RecordedTracks,
    /// `None` until the first frame that is written.
    started: Option<Started>,
    early_audio: Vec<EncodedAudio>,
}

/// A recording whose header is written.
struct Started {
    origin: MediaTime,
    /// Where `moov` lies in the file, for the final durations, and what is in it.
    moov_at: u64,
    header: boxes::Header,
    video: Track,
    audio: Track,
    fragments: u32,
    failed: bool,
}

/// The frames of a track that wait for their fragment.
struct Track {
    timescale: u64,
    samples: Vec<boxes::Sample>,
    /// The newest frame: how long it lasts is known when the next one comes.
    last: Option<(u64, boxes::Sample)>,
    /// Start of the first of `samples`, ticks.
    start: u64,
    /// End of everything written, ticks.
    end: u64,
    usual_duration: u64,
}

impl Mp4Recorder {
    /// Makes the file.
    ///
    /// # Errors
    /// [`PlayError::Output`] if it cannot be made; [`PlayError::Unfit`] if nothing or more than two channels are to be
    /// recorded.
    pub fn create(path: impl AsRef<Path>, tracks: RecordedTracks) -> Result<Mp4Recorder, PlayError> {
        let path = path.as_ref().to_owned();
        let unfit = |reason: &str| Err(PlayError::Unfit { path: path.clone(), reason: reason.into() });
        if tracks == (RecordedTracks { video: false, audio: None }) {
            return unfit("neither pictures nor sound were chosen; choose at least one");
        }
        if tracks.audio.is_some_and(|channels| !(1..=2).contains(&channels)) {
            return unfit("sound has 1 or 2 channels");
        }
        let file = BufWriter::new(File::create(&path).map_err(PlayError::output(&path))?);
        Ok(Mp4Recorder { path, file, tracks, started: None, early_audio: Vec::new() })
    }

    /// Records a picture; frames before the first keyframe are left out.
    ///
    /// # Errors
    /// [`PlayError::Output`]; [`PlayError::Unfit`] if no pictures were chosen, or for a keyframe without parameter sets.
    pub fn video(&mut self, frame: &EncodedVideo) -> Result<(), PlayError> {
        if !self.tracks.video {
            return Err(self.unfit("this recording has no pictures"));
        }
        if self.started.is_none() {
            if !frame.keyframe {
                return Ok(());
            }
            let parameters = boxes::Parameters::of(frame)
                .ok_or_else(|| self.unfit("the keyframe has no parameter sets; force one that has"))?;
            self.start(Some(parameters), frame.time)?;
            for packet in std::mem::take(&mut self.early_audio) {
                self.audio(&packet)?;
            }
        }
        let Some(started) = &mut self.started else { return Ok(()) };
        if frame.keyframe && !started.video.samples.is_empty() {
            started.flush(&mut self.file).map_err(PlayError::output(&self.path))?;
        }
        let sample =
            boxes::Sample { data: length_prefixed(&frame.data), duration: 0, keyframe: frame.keyframe };
        started.video.push(frame.time, started.origin, sample);
        self.flush_if_full()
    }

    /// Records a packet; those before the first picture are left out.
    ///
    /// # Errors
    /// [`PlayError::Output`]; [`PlayError::Unfit`] if no sound was chosen.
    pub fn audio(&mut self, packet: &EncodedAudio) -> Result<(), PlayError> {
        if self.tracks.audio.is_none() {
            return Err(self.unfit("this recording has no sound"));
        }
        if self.started.is_none() {
            if self.tracks.video {
                if self.early_audio.len() == EARLY_AUDIO_MAX {
                    self.early_audio.remove(0);
                }
                self.early_audio.push(packet.clone());
                return Ok(());
            }
            self.start(None, packet.time)?;
        }
        let Some(started) = &mut self.started else { return Ok(()) };
        if packet.time < started.origin {
            return Ok(());
        }
        let sample = boxes::Sample { data: packet.data.to_vec(), duration: 0, keyframe: true };
        started.audio.push(packet.time, started.origin, sample);
        self.flush_if_full()
    }

    /// Writes what is left, and the durations into the header, and closes the file.
    ///
    /// # Errors
    /// [`PlayError::Output`]; [`PlayError::Unfit`] if not one frame was recorded.
    pub fn finish(mut self) -> Result<(), PlayError> {
        let Some(mut started) = self.started.take() else {
            return Err(self.unfit("nothing was recorded: no keyframe came"));
        };
        started.video.end_last();
        started.audio.end_last();
        started
            .flush(&mut self.file)
            .and_then(|()| started.write_durations(&mut self.file))
            .and_then(|()| self.file.flush())
            .map_err(PlayError::output(&self.path))
    }

    fn start(&mut self, video: Option<boxes::Parameters>, origin: MediaTime) -> Result<(), PlayError> {
        let header = boxes::Header { video, audio_channels: self.tracks.audio };
        let output = PlayError::output(&self.path);
        let file_type = boxes::file_type().map_err(&output)?;
        let moov = header.encode([0, 0]).map_err(&output)?;
        self.file.write_all(&file_type).and_then(|()| self.file.write_all(&moov)).map_err(&output)?;
        drop(output);
        self.started = Some(Started {
            origin,
            moov_at: file_type.len() as u64,
            header,
            video: Track::new(boxes::VIDEO_TIMESCALE, boxes::VIDEO_TIMESCALE * PICTURE_MILLIS / 1_000),
            audio: Track::new(boxes::AUDIO_TIMESCALE, boxes::AUDIO_TIMESCALE / 50),
            fragments: 0,
            failed: false,
        });
        Ok(())
    }

    fn flush_if_full(&mut self) -> Result<(), PlayError> {
        match &mut self.started {
            Some(started) if started.is_full() => {
                started.flush(&mut self.file).map_err(PlayError::output(&self.path))
            }
            _ => Ok(()),
        }
    }

    fn unfit(&self, reason: &str) -> PlayError {
        PlayError::Unfit { path: self.path.clone(), reason: reason.into() }
    }
}

impl Drop for Mp4Recorder {
    /// Writes what it can; errors are for [`Mp4Recorder::finish`] to tell.
    fn drop(&mut self) {
        if let Some(started) = &mut self.started {
            started.video.end_last();
            started.audio.end_last();
            let _ = started.flush(&mut self.file).and_then(|()| started.write_durations(&mut self.file));
        }
    }
}

impl Started {
    fn is_full(&self) -> bool {
        [&self.video, &self.audio].iter().any(|track| {
            let ticks: u64 = track.samples.iter().map(|sample| sample.duration).sum();
            let bytes: usize = track.samples.iter().map(|sample| sample.data.len()).sum();
            ticks >= FRAGMENT_TIME.as_secs() * track.timescale || bytes >= FRAGMENT_BYTES
        })
    }

    /// Writes one fragment with all frames whose duration is known.
    fn flush(&mut self, file: &mut impl Write) -> std::io::Result<()> {
        if self.failed || (self.video.samples.is_empty() && self.audio.samples.is_empty()) {
            return Ok(());
        }
        self.fragments += 1;
        let parts = [(boxes::VIDEO_TRACK, &self.video), (boxes::AUDIO_TRACK, &self.audio)]
            .map(|(id, track)| boxes::Run { track: id, start: track.start, samples: &track.samples });
        let fragment = boxes::fragment(self.fragments, &parts)?;
        self.failed = true;
        file.write_all(&fragment)?;
        self.failed = false;
        for track in [&mut self.video, &mut self.audio] {
            track.start += track.samples.drain(..).map(|sample| sample.duration).sum::<u64>();
            track.end = track.start;
        }
        Ok(())
    }

    /// Fills in the durations, which were unknown when the header was written.
    fn write_durations(&mut self, file: &mut (impl Write + Seek)) -> std::io::Result<()> {
        let moov = self.header.encode([self.video.end, self.audio.end])?;
        file.seek(SeekFrom::Start(self.moov_at))?;
        file.write_all(&moov)?;
        file.seek(SeekFrom::End(0))?;
        Ok(())
    }
}

impl Track {
    fn new(timescale: u64, usual_duration: u64) -> Track {
        Track { timescale, samples: Vec::new(), last: None, start: 0, end: 0, usual_duration }
    }

    fn push(&mut self, time: MediaTime, origin: MediaTime, sample: boxes::Sample) {
        let since_origin = u128::from((time - origin).as_micros() as u64);
        let mut tick = (since_origin * u128::from(self.timescale) / 1_000_000) as u64;
        match self.last.take() {
            Some((last_tick, mut last)) => {
                // Time that stands still or goes back would make a sample without duration.
                tick = tick.max(last_tick + 1);
                last.duration = tick - last_tick;
                self.usual_duration = last.duration;
                self.samples.push(last);
            }
            None => self.start = tick,
        }
        self.last = Some((tick, sample));
    }

    /// The last frame lasts as long as the one before.
    fn end_last(&mut self) {
        if let Some((_, mut last)) = self.last.take() {
            last.duration = self.usual_duration.min(self.timescale);
            self.samples.push(last);
        }
    }
}

/// An access unit as MP4 holds it: each unit after its length. Access unit delimiters are left out.
fn length_prefixed(annexb: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(annexb.len() + 16);
    for unit in annexb::units(annexb).filter(|unit| annexb::unit_type(unit) != nal::DELIMITER) {
        // A unit is part of a frame, far below 4 GiB.
        data.extend_from_slice(&(unit.len() as u32).to_be_bytes());
        data.extend_from_slice(unit);
    }
    data
}
