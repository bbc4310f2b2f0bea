//! Playing a block of sound in slightly more or less time without changing its pitch.
//!
//! One piece of 2.5 to 10 ms, a whole number of periods of the voice where there is one, is cut out or repeated, with a
//! cross-fade over the joint. It decides where, never whether.

/// The shortest piece, samples per channel: 2.5 ms, one period of a high voice.
const PIECE_MIN: usize = 120;

/// The longest piece, samples per channel: 10 ms, one period of a low voice.
const PIECE_MAX: usize = 480;

/// The cross-fade, samples per channel: 5 ms.
const FADE: usize = 240;

/// Below this mean square, a joint anywhere is inaudible (-54 dB below full scale).
const QUIET: f64 = 4_000.0;

/// How alike (normalised correlation) two places must be for a joint that is not heard.
const ALIKE: f64 = 0.6;

/// Cuts a piece out of `block` (interleaved); gives the samples per channel cut out, or `None` if no place is good
/// enough and `force` is not set, or the block is too short.
pub(super) fn shrink(block: &mut Vec<i16>, channels: usize, force: bool) -> Option<usize> {
    let piece = find_piece(block, channels, force)?;
    let faded =
        cross_fade(&block[..FADE * channels], &block[piece * channels..][..FADE * channels], channels);
    block.drain(..piece * channels);
    block[..FADE * channels].copy_from_slice(&faded);
    Some(piece)
}

/// Repeats a piece of `block` (interleaved); gives the samples per channel added, or `None` as [`shrink`] does.
pub(super) fn grow(block: &mut Vec<i16>, channels: usize, force: bool) -> Option<usize> {
    let piece = find_piece(block, channels, force)?;
    let faded =
        cross_fade(&block[piece * channels..][..FADE * channels], &block[..FADE * channels], channels);
    let mut longer = Vec::with_capacity(block.len() + piece * channels);
    longer.extend_from_slice(&block[..piece * channels]);
    longer.extend_from_slice(&faded);
    longer.extend_from_slice(&block[FADE * channels..]);
    *block = longer;
    Some(piece)
}

/// The distance at which the block is most like its own start.
fn find_piece(block: &[i16], channels: usize, force: bool) -> Option<usize> {
    if block.len() < (PIECE_MAX + FADE) * channels {
        return None;
    }
    let sample = |index: usize| f64::from(block[index * channels]);
    // Every fourth sample: voice has little above 6 kHz, and the search is the dearest part.
    let energy = |start: usize| (0..FADE).step_by(4).map(|i| sample(start + i).powi(2)).sum::<f64>();
    let start_energy = energy(0);
    let points = (FADE / 4) as f64;
    let alike = |piece: usize| {
        let product: f64 = (0..FADE).step_by(4).map(|i| sample(i) * sample(piece + i)).sum();
        product / (start_energy * energy(piece)).sqrt().max(1.0)
    };
    let (best, likeness) = (PIECE_MIN..=PIECE_MAX)
        .step_by(2)
        .map(|piece| (piece, alike(piece)))
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    let quiet = start_energy / points < QUIET && energy(best) / points < QUIET;
    (force || quiet || likeness >= ALIKE).then_some(best)
}

/// From `from` to `to`, equally long, in a straight line.
fn cross_fade(from: &[i16], to: &[i16], channels: usize) -> Vec<i16> {
    let steps = (from.len() / channels) as i32;
    from.iter()
        .zip(to)
        .enumerate()
        .map(|(index, (&a, &b))| {
            let step = (index / channels) as i32;
            // A mean of two i16 with weights that sum to `steps` is an i16 again.
            ((i32::from(a) * (steps - step) + i32::from(b) * step) / steps) as i16
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::MediaTime;
    use crate::pattern::{Tone, tone_level};

    #[test]
    fn a_tone_keeps_its_pitch_and_level() {
        for hz in [200.0, 440.0, 1_000.0] {
            let mut tone = Tone::new(hz, 0.5);
            let (mut shorter, mut longer) = (Vec::new(), Vec::new());
            let (mut cut, mut added) = (0, 0);
            for _ in 0..50 {
                let block = tone.samples(960, MediaTime::ZERO).data().to_vec();
                let (mut short, mut long) = (block.clone(), block);
                cut += shrink(&mut short, 1, false).unwrap();
                added += grow(&mut long, 1, false).unwrap();
                shorter.extend(short);
                longer.extend(long);
            }
            assert_eq!((shorter.len(), longer.len()), (48_000 - cut, 48_000 + added));
            for sound in [shorter, longer] {
                let jump = sound.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max().unwrap();
                assert!(jump < 4_500, "a click of {jump} at {hz} Hz");
                // Each joint shifts the phase a little, so look at blocks.
                let level = sound.chunks_exact(960).map(|block| tone_level(block, hz)).sum::<f64>()
                    / (sound.len() / 960) as f64;
                assert!(level > 0.4, "{hz} Hz at {level}");
            }
        }
    }

    #[test]
    fn noise_is_left_alone_unless_forced_and_silence_never() {
        let mut state = 1u32;
        let noise: Vec<i16> = (0..960)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) as i16 / 4
            })
            .collect();
        assert_eq!(shrink(&mut noise.clone(), 1, false), None);
        assert!(grow(&mut noise.clone(), 1, true).is_some());
        assert!(shrink(&mut vec![0; 960], 1, false).is_some());
        assert_eq!(shrink(&mut vec![0; 600], 1, true), None);
    }

    #[test]
    fn stereo_stays_interleaved() {
        let mut block: Vec<i16> = (0..960).flat_map(|_| [100, -100]).collect();
        let cut = shrink(&mut block, 2, false).unwrap();
        assert_eq!(block.len(), (960 - cut) * 2);
        assert!(block.chunks_exact(2).all(|pair| pair == [100, -100]));
    }
}
