//! The boxes of a fragmented MP4 file, by `mp4-atom`: header, fragments. Values to bytes, no file.

use std::io;

use mp4_atom::{
    Audio, Avc3, Avcc, Dinf, Dops, Dref, Encode, Ftyp, Hdlr, Mdat, Mdhd, Mdia, Mehd, Mfhd, Minf, Moof, Moov,
    Mvex, Mvhd, Opus, Smhd, Stbl, Stco, Stsd, Tfdt, Tfhd, Tkhd, Traf, Trak, Trex, Trun, TrunEntry,
    TrunSamples, Url, Visual, Vmhd,
};

use crate::frame::{EncodedVideo, SAMPLE_RATE};
use crate::video::annexb::{self, nal};

pub(super) const VIDEO_TRACK: u32 = 1;
pub(super) const AUDIO_TRACK: u32 = 2;

/// Ticks per second: what video tools expect.
pub(super) const VIDEO_TIMESCALE: u64 = 90_000;
pub(super) const AUDIO_TIMESCALE: u64 = SAMPLE_RATE as u64;

/// Ticks per second of the whole movie.
const MOVIE_TIMESCALE: u64 = 1_000;

/// Samples to cut from the start of Opus sound: the encoder's lookahead, 6.5 ms (RFC 7845, 5.1).
const OPUS_PRE_SKIP: u16 = 312;

/// ISO/IEC 14496-12, 8.8.3.1: a sample that others depend on and that depends on none; and one that depends on others.
const FLAGS_KEYFRAME: u32 = 0x0200_0000;
const FLAGS_DEPENDENT: u32 = 0x0101_0000;

/// One frame of a fragment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) data: Vec<u8>,
    /// Ticks of its track.
    pub(super) duration: u64,
    pub(super) keyframe: bool,
}

/// The frames of one track in a fragment.
pub(super) struct Run<'a> {
    pub(super) track: u32,
    /// Ticks.
    pub(super) start: u64,
    pub(super) samples: &'a [Sample],
}

/// What the header says of H.264.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    sps: Vec<u8>,
    pps: Vec<u8>,
    width: u16,
    height: u16,
}

impl Parameters {
    /// From a keyframe; `None` if it does not carry both parameter sets.
    pub(super) fn of(keyframe: &EncodedVideo) -> Option<Parameters> {
        let find = |kind| {
            annexb::units(&keyframe.data).find(|unit| annexb::unit_type(unit) == kind).map(<[u8]>::to_vec)
        };
        Some(Parameters {
            sps: find(nal::SPS).filter(|sps| sps.len() >= 4)?,
            pps: find(nal::PPS)?,
            width: u16::try_from(keyframe.width).ok()?,
            height: u16::try_from(keyframe.height).ok()?,
        })
    }
}

/// What the header says.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) video: Option<Parameters>,
    pub(super) audio_channels: Option<u8>,
}

impl Header {
    /// The `moov` box, with the durations of the video and the audio track in their ticks. Always as long.
    pub(super) fn encode(&self, durations: [u64; 2]) -> io::Result<Vec<u8>> {
        let movie_ticks = |duration: u64, timescale: u64| duration * MOVIE_TIMESCALE / timescale;
        let [video_ticks, audio_ticks] = durations;
        let video_movie_ticks = movie_ticks(video_ticks, VIDEO_TIMESCALE);
        let audio_movie_ticks = movie_ticks(audio_ticks, AUDIO_TIMESCALE);
        let mut tracks = Vec::new();
        if let Some(parameters) = &self.video {
            tracks.push(video_track(parameters, video_movie_ticks, video_ticks)?);
        }
        if let Some(channels) = self.audio_channels {
            tracks.push(audio_track(channels, audio_movie_ticks, audio_ticks));
        }
        let fragment_duration = video_movie_ticks.max(audio_movie_ticks);
        let moov = Moov {
            mvhd: Mvhd {
                timescale: MOVIE_TIMESCALE as u32,
                duration: fragment_duration,
                rate: 1.into(),
                volume: 1.into(),
                next_track_id: AUDIO_TRACK + 1,
                ..Mvhd::default()
            },
            mvex: Some(Mvex {
                mehd: Some(Mehd { fragment_duration }),
                trex: tracks
                    .iter()
                    .map(|track| Trex {
                        track_id: track.tkhd.track_id,
                        default_sample_description_index: 1,
                        default_sample_duration: 0,
                        default_sample_size: 0,
                        default_sample_flags: 0,
                    })
                    .collect(),
            }),
            trak: tracks,
            ..Moov::default()
        };
        to_bytes(&moov)
    }
}

/// The `ftyp` box.
pub(super) fn file_type() -> io::Result<Vec<u8>> {
    let brands = [b"iso6", b"mp41", b"Opus"];
    let compatible_brands = brands.into_iter().map(Into::into).collect();
    to_bytes(&Ftyp { major_brand: b"iso6".into(), minor_version: 0, compatible_brands })
}

/// A `moof` box and its `mdat`.
pub(super) fn fragment(number: u32, runs: &[Run<'_>]) -> io::Result<Vec<u8>> {
    // The offsets of the data count from the start of `moof`, whose length does not depend on them.
    let length = to_bytes(&moof(number, runs, 0)?)?.len();
    let mut bytes = to_bytes(&moof(number, runs, length + MDAT_HEADER)?)?;
    let samples = runs.iter().flat_map(|run| run.samples);
    let data = samples.flat_map(|sample| sample.data.iter().copied()).collect();
    bytes.extend(to_bytes(&Mdat { data })?);
    Ok(bytes)
}

/// Size and name.
const MDAT_HEADER: usize = 8;

fn moof(number: u32, runs: &[Run<'_>], data_start: usize) -> io::Result<Moof> {
    let too_long = |_| io::Error::other("a fragment with a number that does not fit its field");
    let mut offset = data_start;
    let mut traf = Vec::new();
    for run in runs.iter().filter(|run| !run.samples.is_empty()) {
        let entry = |sample: &Sample| -> io::Result<TrunEntry> {
            Ok(TrunEntry {
                duration: Some(u32::try_from(sample.duration).map_err(too_long)?),
                size: Some(u32::try_from(sample.data.len()).map_err(too_long)?),
                flags: Some(if sample.keyframe { FLAGS_KEYFRAME } else { FLAGS_DEPENDENT }),
                cts: None,
            })
        };
        traf.push(Traf {
            tfhd: Tfhd { track_id: run.track, default_base_is_moof: true, ..Tfhd::default() },
            tfdt: Some(Tfdt { base_media_decode_time: run.start }),
            trun: vec![Trun {
                data_offset: Some(i32::try_from(offset).map_err(too_long)?),
                samples: TrunSamples::Explicit(run.samples.iter().map(entry).collect::<io::Result<_>>()?),
            }],
            ..Traf::default()
        });
        offset += run.samples.iter().map(|sample| sample.data.len()).sum::<usize>();
    }
    Ok(Moof { mfhd: Mfhd { sequence_number: number }, traf })
}

fn video_track(parameters: &Parameters, movie_ticks: u64, ticks: u64) -> io::Result<Trak> {
    let Parameters { sps, pps, width, height } = parameters;
    // avc3: parameter sets may change in the stream, as they do when the sender changes its size.
    let avc3 = Avc3 {
        visual: Visual { data_reference_index: 1, width: *width, height: *height, ..Visual::default() },
        avcc: Avcc::new(sps, pps).map_err(io::Error::other)?,
        ..Avc3::default()
    };
    let tkhd =
        Tkhd { track_id: VIDEO_TRACK, width: (*width).into(), height: (*height).into(), ..Tkhd::default() };
    let minf = Minf { vmhd: Some(Vmhd::default()), ..media_info(avc3.into()) };
    Ok(track(tkhd, movie_ticks, VIDEO_TIMESCALE, ticks, b"vide", minf))
}

fn audio_track(channels: u8, movie_ticks: u64, ticks: u64) -> Trak {
    let opus = Opus {
        audio: Audio {
            data_reference_index: 1,
            channel_count: channels.into(),
            sample_size: 16,
            sample_rate: (SAMPLE_RATE as u16).into(),
        },
        dops: Dops {
            output_channel_count: channels,
            pre_skip: OPUS_PRE_SKIP,
            input_sample_rate: SAMPLE_RATE,
            output_gain: 0,
            channel_mapping: None,
        },
        btrt: None,
    };
    let tkhd = Tkhd { track_id: AUDIO_TRACK, volume: 1.into(), ..Tkhd::default() };
    let minf = Minf { smhd: Some(Smhd::default()), ..media_info(opus.into()) };
    track(tkhd, movie_ticks, AUDIO_TIMESCALE, ticks, b"soun", minf)
}

fn track(tkhd: Tkhd, movie_ticks: u64, timescale: u64, ticks: u64, handler: &[u8; 4], minf: Minf) -> Trak {
    Trak {
        tkhd: Tkhd { enabled: true, in_movie: true, duration: movie_ticks, ..tkhd },
        mdia: Mdia {
            mdhd: Mdhd {
                timescale: timescale as u32,
                duration: ticks,
                language: "und".into(),
                ..Mdhd::default()
            },
            hdlr: Hdlr { handler: handler.into(), name: "Parlor".into() },
            minf,
        },
        ..Trak::default()
    }
}

/// A description of the samples, and empty tables: fragments bring the samples.
fn media_info(codec: mp4_atom::Codec) -> Minf {
    Minf {
        dinf: Dinf { dref: Dref { entries: vec![Url::default().into()] } },
        stbl: Stbl { stsd: Stsd { codecs: vec![codec] }, stco: Some(Stco::default()), ..Stbl::default() },
        ..Minf::default()
    }
}

fn to_bytes(atom: &impl Encode) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    atom.encode(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}
