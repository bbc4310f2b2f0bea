//! Playout of sound: the sink pulls blocks on its own clock, and there is always something to play.
//!
//! A packet that is there is decoded; one that is lost is rebuilt from its successor or guessed; and the sound is
//! played a little faster or slower to hold the delay that arrivals ask for, whichever clock runs fast. It never waits
//! and reorders only what is early.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::delay::{DELAY_MAX, DelayEstimator};
use super::stretch;
use crate::audio::AudioDecode;
use crate::frame::{AUDIO_FRAME, EncodedAudio, MediaTime, SAMPLE_RATE, Samples, samples_to_duration};

/// Packets held at most: 1.28 s of 20 ms packets, more than twice [`DELAY_MAX`].
const HELD_MAX: usize = 64;

/// Samples per channel given at most in one pull: 100 ms.
const PULL_MAX: usize = 4_800;

/// Packets are wanted this long before they must be decoded: a little for a busy machine.
const MARGIN: Duration = Duration::from_millis(5);

/// The same while packets get lost: one packet more, so that the one that repairs a loss is there in time.
const MARGIN_LOSSY: Duration = Duration::from_millis(25);

/// How long after a missing packet the link counts as lossy.
const LOSSY_FOR: Duration = Duration::from_secs(10);

/// Packets whose capture times differ by less than this from the expected are neighbours, µs.
const SLACK: i64 = 10_000;

/// Guessing for longer than this sounds worse than silence.
const CONCEAL_MAX: u32 = 5;

/// With this much delay too much for [`CALM_BLOCKS`], µs, sound is played faster; with any too little, slower. Too little
/// loses packets, too much only costs time, hence the one-sided gap in which nothing is done.
const TOO_LATE: i64 = 20_000;

/// Blocks over which the least error counts: a sink that pulls unevenly makes the error swing by one block.
const CALM_BLOCKS: usize = 10;

/// With this much error, µs, every block is changed, at whatever place; below it every third, at good places.
const URGENT: i64 = 80_000;

/// With this much too much delay, µs, whole packets are skipped.
const HOPELESS: i64 = 250_000;

/// A packet this far from where playing is, µs, was captured on another clock: start anew.
const CLOCK_JUMP: i64 = 2_000_000;

/// What an [`AudioPlayout`] has done, in packets or blocks of 20 ms unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AudioPlayoutStats {
    /// Packets decoded and played.
    pub decoded: u64,
    /// Lost packets rebuilt from their successor (FEC).
    pub recovered: u64,
    /// Blocks guessed (PLC) because of a loss or a late packet.
    pub concealed: u64,
    /// Packets that came too late to be played, or twice.
    pub late: u64,
    /// Packets skipped, or pushed out of a full buffer, to catch up.
    pub skipped: u64,
    /// Packets that were none.
    pub broken: u64,
    /// Samples added per channel by playing slower.
    pub stretched_samples: u64,
    /// Samples cut out per channel by playing faster.
    pub shrunk_samples: u64,
    /// Times that playing stopped and silence was given until sound came again: pauses of the speaker and outages.
    pub pauses: u64,
    /// Packets held now.
    pub held: usize,
    /// How long the fastest packets are held back now.
    pub delay: Duration,
}

/// Turns packets that arrive unevenly into sound pulled evenly.
pub struct AudioPlayout<D> {
    decoder: D,
    estimator: DelayEstimator,
    held: BTreeMap<u64, EncodedAudio>,
    /// Decoded and not yet pulled, interleaved: less than one block and one pull.
    ready: VecDeque<i16>,
    /// `None`: silent until the next packet is due.
    playing: Option<Position>,
    /// The highest sequence number that arrived, and when one was last found missing.
    highest: Option<u64>,
    missed_at: Option<MediaTime>,
    floor: Option<i64>,
    offset: Option<i64>,
    /// The errors of the last [`CALM_BLOCKS`] blocks, µs.
    errors: VecDeque<i64>,
    blocks_since_change: u32,
    stats: AudioPlayoutStats,
}

/// Where playing is.
#[derive(Clone, Copy, Debug)]
struct Position {
    /// Sequence number expected next.
    sequence: u64,
    /// Capture time of the next sample to be decoded.
    time: MediaTime,
    /// Blocks guessed in a row.
    concealed: u32,
}

impl<D: AudioDecode> AudioPlayout<D> {
    /// Silent until packets come.
    pub fn new(decoder: D) -> AudioPlayout<D> {
        AudioPlayout {
            decoder,
            estimator: DelayEstimator::new(MARGIN),
            held: BTreeMap::new(),
            ready: VecDeque::new(),
            playing: None,
            highest: None,
            missed_at: None,
            floor: None,
            offset: None,
            errors: VecDeque::with_capacity(CALM_BLOCKS),
            blocks_since_change: 0,
            stats: AudioPlayoutStats::default(),
        }
    }

    /// Takes a packet that arrived at `arrival`. `sequence` counts the packets *sent*: a pause leaves no gap in it.
    pub fn push(&mut self, sequence: u64, packet: EncodedAudio, arrival: MediaTime) {
        self.watch_for_loss(sequence, arrival);
        if let Some(position) = self.playing {
            let ahead = packet.time.micros_since(position.time);
            if sequence >= position.sequence && ahead.unsigned_abs() > CLOCK_JUMP.unsigned_abs() {
                self.held.clear();
                self.pause();
            } else if sequence < position.sequence || ahead < -SLACK {
                self.stats.late += 1;
                // It still says how late packets can be.
                self.estimator.observe(packet.time, arrival);
                return;
            }
        }
        self.estimator.observe(packet.time, arrival);
        if self.held.insert(sequence, packet).is_some() {
            self.stats.late += 1;
        }
        while self.held.len() > HELD_MAX {
            self.held.pop_first();
            self.stats.skipped += 1;
        }
    }

    /// The next `len` samples per channel (at most 4,800), of which the first sounds at `now`. Silence if there is
    /// nothing to play.
    pub fn pull(&mut self, now: MediaTime, len: usize) -> Samples {
        let len = len.min(PULL_MAX);
        let channels = self.channels();
        while self.ready.len() < len * channels {
            let lead = samples_to_duration(self.ready.len() / channels).as_micros() as i64;
            let block = self.block(now, lead, len - self.ready.len() / channels);
            self.ready.extend(block);
        }
        let data: Vec<i16> = self.ready.drain(..len * channels).collect();
        let end = now + samples_to_duration(len + self.ready.len() / channels);
        self.offset = self.playing.map(|position| end.micros_since(position.time));
        let time = self.offset.map_or(now, |offset| now.offset_by(offset.saturating_neg()));
        Samples::new(data, self.decoder.channels(), time)
            .expect("whole frames of the decoder's channels were drained")
    }

    /// The offset that arrivals ask for, µs.
    pub fn wished_offset(&self) -> Option<i64> {
        self.estimator.wished_offset()
    }

    /// The offset at which sound really plays, µs, as of the last pull; `None` while silent.
    pub fn playout_offset(&self) -> Option<i64> {
        self.offset
    }

    /// Moves towards playing at `floor` µs or later (within [`DELAY_MAX`]), to wait for the pictures; `None` to play
    /// when ready.
    pub fn set_floor(&mut self, floor: Option<i64>) {
        self.floor = floor;
    }

    /// Counters and the present delay.
    pub fn stats(&self) -> AudioPlayoutStats {
        AudioPlayoutStats { held: self.held.len(), delay: self.estimator.delay(), ..self.stats }
    }

    fn watch_for_loss(&mut self, sequence: u64, arrival: MediaTime) {
        if self.highest.is_some_and(|highest| sequence > highest.saturating_add(1)) {
            self.missed_at = Some(arrival);
        }
        self.highest = self.highest.max(Some(sequence));
        let lossy = self.missed_at.is_some_and(|missed_at| arrival - missed_at < LOSSY_FOR);
        self.estimator.set_margin(if lossy { MARGIN_LOSSY } else { MARGIN });
    }

    fn channels(&self) -> usize {
        usize::from(self.decoder.channels().max(1))
    }

    /// How much delay is too much, µs, for a sample captured at `capture` and decoded at `now`, `lead` µs before it
    /// sounds; negative if it is too little. `None` before the first packet.
    fn error(&self, capture: MediaTime, now: MediaTime, lead: i64) -> Option<i64> {
        let (wished, fastest) = (self.estimator.wished_offset()?, self.estimator.fastest()?);
        let offset = now.micros_since(capture);
        // Packets must be there when they are decoded, lips want to meet the sound when it is heard.
        let most = fastest.saturating_add(DELAY_MAX.as_micros() as i64);
        let too_late_for_floor =
            self.floor.map(|floor| offset.saturating_add(lead).saturating_sub(floor.min(most)));
        let error = offset.saturating_sub(wished);
        Some(too_late_for_floor.map_or(error, |other| error.min(other)))
    }

    /// At least one sample of sound, decoded at `now` and heard `lead` µs later; the pull lacks `missing` samples.
    fn block(&mut self, now: MediaTime, lead: i64, missing: usize) -> Vec<i16> {
        // Every turn takes a packet out of the buffer, starts playing, or returns.
        loop {
            let Some((&sequence, first)) = self.held.first_key_value() else {
                return self.without_packet(now, lead, missing);
            };
            let first_time = first.time;
            let Some(position) = self.playing else {
                if self.error(first_time, now, lead).is_none_or(|error| error < 0) {
                    return self.silence(missing);
                }
                self.playing = Some(Position { sequence, time: first_time, concealed: 0 });
                self.errors.clear();
                continue;
            };
            let error = self.error(position.time, now, lead).unwrap_or(0);
            let ahead = first_time.micros_since(position.time);
            if ahead > SLACK {
                return self.before(position, sequence, ahead, missing);
            }
            let (sequence, packet) = self.held.pop_first().expect("looked at above");
            if ahead < -SLACK || sequence < position.sequence {
                self.stats.late += 1;
                continue;
            }
            self.playing = Some(after(sequence, &packet));
            if error > HOPELESS && !self.held.is_empty() {
                self.stats.skipped += 1;
            } else if let Some(block) = self.decode(&packet, error) {
                return block;
            }
        }
    }

    /// Sound for a place that no packet is there for, while a later one (`ahead` µs) is.
    fn before(&mut self, position: Position, sequence: u64, ahead: i64, missing: usize) -> Vec<i16> {
        let frame = AUDIO_FRAME.as_micros() as i64;
        let lost = sequence > position.sequence;
        if lost && ahead <= frame + SLACK {
            let next = self.held.first_key_value().map(|(_, packet)| packet.clone());
            if let Some(Ok(samples)) = next.map(|next| self.decoder.recover(&next)) {
                self.stats.recovered += 1;
                let time = position.time.offset_by(ahead);
                self.playing = Some(Position { sequence, time, concealed: 0 });
                return samples.data().to_vec();
            }
        }
        if position.concealed >= CONCEAL_MAX {
            // A long pause or a long loss: silence until the next packet is due.
            self.pause();
            return self.silence(missing);
        }
        if lost {
            self.stats.concealed += 1;
        }
        self.conceal(position, true)
    }

    /// Sound when the buffer is empty.
    fn without_packet(&mut self, now: MediaTime, lead: i64, missing: usize) -> Vec<i16> {
        let Some(position) = self.playing else { return self.silence(missing) };
        if position.concealed >= CONCEAL_MAX {
            self.pause();
            return self.silence(missing);
        }
        self.stats.concealed += 1;
        // With less delay than wished, the packet is only late: play it after this instead of throwing it away.
        let give_up_on_it = self.error(position.time, now, lead).is_none_or(|error| error >= 0);
        self.conceal(position, give_up_on_it)
    }

    fn conceal(&mut self, position: Position, advance: bool) -> Vec<i16> {
        let samples = self.decoder.conceal(position.time);
        let time = if advance { position.time + samples.duration() } else { position.time };
        self.playing = Some(Position { time, concealed: position.concealed + 1, ..position });
        samples.data().to_vec()
    }

    /// The sound of `packet`, faster or slower by `error` µs of delay too much; `None` if it is no packet.
    fn decode(&mut self, packet: &EncodedAudio, error: i64) -> Option<Vec<i16>> {
        let samples = match self.decoder.decode(packet) {
            Ok(samples) if !samples.is_empty() => samples,
            _ => {
                self.stats.broken += 1;
                let samples = self.decoder.conceal(packet.time);
                return (!samples.is_empty()).then(|| samples.data().to_vec());
            }
        };
        self.stats.decoded += 1;
        let mut block = samples.data().to_vec();
        if self.errors.len() == CALM_BLOCKS {
            self.errors.pop_front();
        }
        self.errors.push_back(error);
        self.blocks_since_change += 1;
        let least = self.errors.iter().copied().min().unwrap_or(0);
        let settled = self.errors.len() == CALM_BLOCKS;
        let urgent = least.abs() > URGENT;
        if self.blocks_since_change >= 3 || urgent {
            let channels = self.channels();
            let changed = if settled && least > TOO_LATE {
                let cut = stretch::shrink(&mut block, channels, urgent);
                self.stats.shrunk_samples += cut.unwrap_or(0) as u64;
                cut.map(|cut| -(cut as i64))
            } else if error < 0 {
                let added = stretch::grow(&mut block, channels, urgent);
                self.stats.stretched_samples += added.unwrap_or(0) as u64;
                added.map(|added| added as i64)
            } else {
                None
            };
            if let Some(samples) = changed {
                self.blocks_since_change = 0;
                let micros = samples * 1_000_000 / i64::from(SAMPLE_RATE);
                self.errors.iter_mut().for_each(|error| *error += micros);
            }
        }
        Some(block)
    }

    fn pause(&mut self) {
        self.playing = None;
        self.stats.pauses += 1;
    }

    fn silence(&self, samples: usize) -> Vec<i16> {
        vec![0; samples.max(1) * self.channels()]
    }
}

/// Where playing is after `packet`.
fn after(sequence: u64, packet: &EncodedAudio) -> Position {
    Position { sequence: sequence.saturating_add(1), time: packet.time + packet.duration, concealed: 0 }
}
