//! Where the H.264 frames of an MP4 file lie, plain or fragmented; `mp4-atom` reads the boxes. Bytes to values: any input
//! gives an index or a reason.

use std::ops::Range;

use mp4_atom::{Atom, Avcc, Codec, Decode, DecodeAtom, Header, Moof, Moov, Stbl, StszSamples, Tfhd, Trak};

/// Frames counted at most: ten hours at 30 per second.
const FRAMES_MAX: usize = 1_080_000;

/// The H.264 track of a file.
pub(super) struct Index {
    /// Where each frame lies in the file, in decoding order; all of them inside of it.
    pub(super) frames: Vec<Range<usize>>,
    /// Pictures per second, 1..=240.
    pub(super) fps: f64,
    /// Parameter sets and the size of length fields.
    pub(super) config: Avcc,
}

/// Reads the boxes of a file.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) fn read(bytes: &[u8]) -> Result<Index, String> {
    let (moov, fragments) = top_level(bytes)?;
    let moov = moov.ok_or("it has no header (moov); it seems to be cut off")?;
    let (track, config) = moov
        .trak
        .iter()
        .find_map(|track| Some((track, h264_config(track)?)))
        .ok_or("there is no H.264 track in it; convert its pictures to H.264")?;
    let mut frames = Vec::new();
    let mut ticks = plain_frames(&track.mdia.minf.stbl, &mut frames)?;
    let defaults =
        moov.mvex.iter().flat_map(|mvex| &mvex.trex).find(|trex| trex.track_id == track.tkhd.track_id);
    let default_size = defaults.map_or(0, |trex| trex.default_sample_size);
    let default_duration = defaults.map_or(0, |trex| trex.default_sample_duration);
    for (start, moof) in &fragments {
        for traf in moof.traf.iter().filter(|traf| traf.tfhd.track_id == track.tkhd.track_id) {
            let tfhd = Tfhd {
                default_sample_size: traf.tfhd.default_sample_size.or(Some(default_size)),
                default_sample_duration: traf.tfhd.default_sample_duration.or(Some(default_duration)),
                ..traf.tfhd.clone()
            };
            for trun in &traf.trun {
                ticks += fragment_frames(*start, &tfhd, trun, &mut frames)?;
            }
        }
    }
    if frames.is_empty() {
        return Err("there is no picture in it".into());
    }
    if frames.iter().any(|frame| frame.end > bytes.len()) {
        return Err("frames lie outside of the file; it seems to be cut off".into());
    }
    let fps = frames.len() as f64 * f64::from(track.mdia.mdhd.timescale) / ticks.max(1) as f64;
    // Anything else comes from broken durations; the pictures may still be good.
    let fps = if (1.0..=240.0).contains(&fps) { fps } else { 25.0 };
    Ok(Index { frames, fps, config: config.clone() })
}

/// A fragment and where it starts in the file.
type Fragment = (usize, Moof);

/// The header and the fragments.
fn top_level(bytes: &[u8]) -> Result<(Option<Moov>, Vec<Fragment>), String> {
    let (mut moov, mut fragments) = (None, Vec::new());
    let mut at = 0;
    // Every round moves on by at least the eight bytes of a header.
    while let Some(mut rest) = bytes.get(at..).filter(|rest| rest.len() >= 8) {
        let before = rest.len();
        let header = Header::decode(&mut rest).map_err(|error| format!("a box is damaged: {error}"))?;
        let size = header.size.unwrap_or(rest.len());
        let body_at = at + before - rest.len();
        let end = body_at.saturating_add(size);
        if header.kind == Moov::KIND || header.kind == Moof::KIND {
            if end > bytes.len() {
                return Err("its header is longer than the file; it seems to be cut off".into());
            }
            let damaged = |error| format!("its header is damaged: {error}; repair or convert it");
            let sized = Header { size: Some(size), ..header };
            if header.kind == Moov::KIND {
                moov = Some(Moov::decode_atom(&sized, &mut rest).map_err(damaged)?);
            } else {
                fragments.push((at, Moof::decode_atom(&sized, &mut rest).map_err(damaged)?));
            }
        }
        at = end;
    }
    Ok((moov, fragments))
}

fn h264_config(track: &Trak) -> Option<&Avcc> {
    track.mdia.minf.stbl.stsd.codecs.iter().find_map(|codec| match codec {
        Codec::Avc1(avc1) => Some(&avc1.avcc),
        Codec::Avc3(avc3) => Some(&avc3.avcc),
        _ => None,
    })
}

/// Appends the frames of the sample tables (ISO/IEC 14496-12, 8.7); gives their length in ticks.
fn plain_frames(tables: &Stbl, frames: &mut Vec<Range<usize>>) -> Result<u64, String> {
    let chunks: Vec<u64> = match (&tables.co64, &tables.stco) {
        (Some(co64), _) => co64.entries.clone(),
        (None, Some(stco)) => stco.entries.iter().map(|&offset| offset.into()).collect(),
        (None, None) => Vec::new(),
    };
    let mut sizes: Box<dyn Iterator<Item = u32> + '_> = match &tables.stsz.samples {
        StszSamples::Identical { count, size } => Box::new(std::iter::repeat_n(*size, *count as usize)),
        StszSamples::Different { sizes } => Box::new(sizes.iter().copied()),
    };
    let mut rules = tables.stsc.entries.iter().peekable();
    let mut per_chunk = 0;
    'file: for (number, &chunk) in (1u32..).zip(&chunks) {
        while let Some(rule) = rules.next_if(|rule| rule.first_chunk <= number) {
            per_chunk = rule.samples_per_chunk;
        }
        let mut at = usize::try_from(chunk).unwrap_or(usize::MAX);
        for _ in 0..per_chunk {
            let Some(size) = sizes.next() else { break 'file };
            at = push(frames, at, size)?;
        }
    }
    Ok(tables.stts.entries.iter().fold(0, |sum: u64, entry| {
        sum.saturating_add(u64::from(entry.sample_count) * u64::from(entry.sample_delta))
    }))
}

/// Appends the frames of one run of a fragment that starts at `moof`; gives their length in ticks.
fn fragment_frames(
    moof: usize,
    tfhd: &Tfhd,
    trun: &mp4_atom::Trun,
    frames: &mut Vec<Range<usize>>,
) -> Result<u64, String> {
    let base = tfhd.base_data_offset.map_or(moof, |offset| usize::try_from(offset).unwrap_or(usize::MAX));
    let start = base.saturating_add_signed(trun.data_offset.unwrap_or(0) as isize);
    let (mut at, mut ticks) = (start, 0u64);
    for entry in &trun.samples {
        at = push(frames, at, entry.size.or(tfhd.default_sample_size).unwrap_or(0))?;
        ticks = ticks.saturating_add(entry.duration.or(tfhd.default_sample_duration).unwrap_or(0).into());
    }
    Ok(ticks)
}

/// Appends a frame; gives where the next one begins.
fn push(frames: &mut Vec<Range<usize>>, at: usize, size: u32) -> Result<usize, String> {
    if frames.len() >= FRAMES_MAX {
        return Err(format!("it has more than {FRAMES_MAX} frames; cut a shorter clip"));
    }
    let end = at.saturating_add(size as usize);
    frames.push(at..end);
    Ok(end)
}
