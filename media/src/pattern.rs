//! The test picture and the test tone: made by a publisher, told apart by whoever sees and hears them.
//!
//! A picture carries a [`Stamp`] (who, which frame, captured when) in large black and white cells that survive strong
//! compression, so that a test can tell which frame it looks at and how old it is. The rest moves and has texture, so
//! that an encoder has real work to do. A tone has one frequency per publisher, found again by [`tone_level`].
//! Everything is a pure function of its arguments: the same call gives the same pixels on every machine.

use std::f64::consts::TAU;

use crate::font::{CELL_WIDTH, Canvas, GLYPH_HEIGHT};
use crate::frame::{FrameError, MediaTime, Picture, SAMPLE_RATE, Samples, pixel_bytes};

/// What a test picture says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Who made it.
    pub publisher: u16,
    /// Its number.
    pub frame: u32,
    /// When it was captured, on the publisher's clock; 56 bits, so exact for 2,283 years of microseconds.
    pub time: MediaTime,
}

/// Cells in a row and rows of cells: 16 + 32 + 56 bits of stamp and 24 of checksum make 128.
const CELL_COLUMNS: usize = 32;
const CELL_ROWS: usize = 4;

/// A row of cells is this part of the picture's height; four rows take the upper two ninths.
const CELL_ROWS_PER_HEIGHT: usize = 18;

/// Cell brightness; not the extremes, so that ringing does not clip.
const CELL_DARK: u8 = 40;
const CELL_BRIGHT: u8 = 216;

/// A cell whose mean is nearer than this to the middle is no cell.
const CELL_MARGIN: u32 = 20;

const TIME_BITS: u32 = 56;
const CHECKSUM_BITS: u32 = 24;

/// Side of the square of texture, pixels; a power of two so that it wraps by masking.
const TEXTURE_SIDE: usize = 512;

/// Makes the pictures of one publisher at one size.
pub struct Pattern {
    publisher: u16,
    width: usize,
    height: usize,
    coarse: Vec<i8>,
    fine: Vec<i8>,
}

impl Pattern {
    /// A generator for `publisher` at `width` x `height` pixels.
    ///
    /// The stamp reads back after H.264 from about 320x180 at 200 kbit/s upwards.
    ///
    /// # Errors
    /// [`FrameError::Size`].
    pub fn new(publisher: u16, width: u32, height: u32) -> Result<Pattern, FrameError> {
        pixel_bytes(width, height)?;
        Ok(Pattern {
            publisher,
            width: width as usize,
            height: height as usize,
            coarse: texture(publisher, 0..4, 44),
            fine: texture(publisher, 4..7, 9),
        })
    }

    /// The picture numbered `frame`, captured at `time`.
    pub fn picture(&self, frame: u32, time: MediaTime) -> Picture {
        let luma_len = self.width * self.height;
        let mut pixels = vec![0; luma_len / 2 * 3];
        let (luma, chroma) = pixels.split_at_mut(luma_len);
        let (u, v) = chroma.split_at_mut(luma_len / 4);
        self.background(luma, u, v, frame);
        for index in 0..3 {
            self.disc(luma, u, v, frame, index);
        }
        self.digits(luma, frame, time);
        self.stamp(luma, Stamp { publisher: self.publisher, frame, time });
        self.grey_stamp_area(u, v);
        Picture::new(self.width as u32, self.height as u32, pixels, time)
            .expect("the size was checked in new")
    }

    /// Coarse texture pans to one side and fine texture over it to the other, so that no motion vector fits both and
    /// the encoder is left with a residue as in a real picture; the colours stand still.
    fn background(&self, luma: &mut [u8], u: &mut [u8], v: &mut [u8], frame: u32) {
        let shift = frame as usize;
        for (y, row) in luma.chunks_exact_mut(self.width).enumerate() {
            let coarse = line(&self.coarse, y + shift / 2);
            let fine = line(&self.fine, y + shift);
            let start = TEXTURE_SIDE - shift % TEXTURE_SIDE;
            for (x, pixel) in row.iter_mut().enumerate() {
                let sum = i16::from(coarse[(x + shift) % TEXTURE_SIDE])
                    + i16::from(fine[(x + start) % TEXTURE_SIDE]);
                // Both are within -64..=63, so the sum is a byte; the casts lose nothing.
                *pixel = (124 + sum) as u8;
            }
        }
        let half = self.width / 2;
        let hue = u32::from(self.publisher).wrapping_mul(37);
        for (y, (u_row, v_row)) in u.chunks_exact_mut(half).zip(v.chunks_exact_mut(half)).enumerate() {
            for (x, (u, v)) in u_row.iter_mut().zip(v_row).enumerate() {
                *u = wave(x as u32 * 256 / self.width as u32 + hue);
                *v = wave(y as u32 * 256 / self.height as u32 + hue * 3);
            }
        }
    }

    /// One of three coloured discs on its own closed path.
    fn disc(&self, luma: &mut [u8], u: &mut [u8], v: &mut [u8], frame: u32, index: u32) {
        let (width, height) = (self.width as f64, self.height as f64);
        let phase = f64::from(frame) * TAU / (90.0 + 40.0 * f64::from(index)) + f64::from(index);
        let centre_x = width * (0.5 + 0.35 * phase.cos());
        let centre_y = height * (0.6 + 0.22 * (phase * 1.5).sin());
        let radius = height * 0.09;
        let colour = [[180, 70, 180], [120, 180, 80], [90, 110, 190]][index as usize];
        let range = |centre: f64, side: usize| {
            ((centre - radius).max(0.0) as usize)..(((centre + radius) as usize + 1).min(side))
        };
        for y in range(centre_y, self.height) {
            for x in range(centre_x, self.width) {
                if (x as f64 - centre_x).powi(2) + (y as f64 - centre_y).powi(2) <= radius * radius {
                    luma[y * self.width + x] = colour[0];
                    let chroma = y / 2 * (self.width / 2) + x / 2;
                    u[chroma] = colour[1];
                    v[chroma] = colour[2];
                }
            }
        }
    }

    /// Publisher, frame number and seconds for people, in a dark band at the bottom.
    fn digits(&self, luma: &mut [u8], frame: u32, time: MediaTime) {
        let scale = (self.height / 90).max(1);
        let band = (GLYPH_HEIGHT + 2) * scale;
        let top = self.height.saturating_sub(band);
        luma[top * self.width..].fill(30);
        let millis = time.as_micros() / 1_000;
        let text = format!("P{} F{frame:06} {}.{:03}", self.publisher, millis / 1_000, millis % 1_000);
        let left = CELL_WIDTH * scale / 2;
        Canvas { luma, width: self.width }.text(left, top + scale, scale, 225, &text);
    }

    fn stamp(&self, luma: &mut [u8], stamp: Stamp) {
        let bits = encode(stamp);
        for index in 0..CELL_COLUMNS * CELL_ROWS {
            let ink = if bits >> index & 1 == 1 { CELL_BRIGHT } else { CELL_DARK };
            let (columns, rows) = cell(index, self.width, self.height);
            for y in rows {
                luma[y * self.width..][columns.clone()].fill(ink);
            }
        }
    }

    fn grey_stamp_area(&self, u: &mut [u8], v: &mut [u8]) {
        let area = (self.height * CELL_ROWS / CELL_ROWS_PER_HEIGHT).div_ceil(2) * (self.width / 2);
        u[..area].fill(128);
        v[..area].fill(128);
    }
}

/// The stamp in a picture made by [`Pattern`], at whatever size and after whatever compression; `None` if there is
/// none or a single cell of it cannot be trusted.
pub fn read(picture: &Picture) -> Option<Stamp> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let mut bits = 0u128;
    for index in 0..CELL_COLUMNS * CELL_ROWS {
        let (columns, rows) = cell(index, width, height);
        let (columns, rows) = (inner(columns), inner(rows));
        let count = (columns.len() * rows.len()) as u32;
        let sum: u32 = rows
            .map(|y| picture.luma()[y * width..][columns.clone()].iter().map(|&p| u32::from(p)).sum::<u32>())
            .sum();
        let mean = sum.checked_div(count)?;
        if mean.abs_diff(128) < CELL_MARGIN {
            return None;
        }
        bits |= u128::from(mean > 128) << index;
    }
    decode(bits)
}

/// Pixel columns and rows of a cell.
fn cell(index: usize, width: usize, height: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let (column, row) = (index % CELL_COLUMNS, index / CELL_COLUMNS);
    let at = |step: usize, side: usize, steps: usize| step * side / steps;
    (
        at(column, width, CELL_COLUMNS)..at(column + 1, width, CELL_COLUMNS),
        at(row, height, CELL_ROWS_PER_HEIGHT)..at(row + 1, height, CELL_ROWS_PER_HEIGHT),
    )
}

/// The middle half of a range: what the edges of neighbours do not reach.
fn inner(range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let margin = range.len() / 4;
    range.start + margin..range.end - margin
}

fn encode(stamp: Stamp) -> u128 {
    let time = stamp.time.as_micros() & ((1 << TIME_BITS) - 1);
    let body = u128::from(stamp.publisher) | u128::from(stamp.frame) << 16 | u128::from(time) << 48;
    body << CHECKSUM_BITS | u128::from(checksum(body))
}

fn decode(bits: u128) -> Option<Stamp> {
    let body = bits >> CHECKSUM_BITS;
    if u128::from(checksum(body)) != bits & ((1 << CHECKSUM_BITS) - 1) {
        return None;
    }
    // The casts cut out the fields.
    Some(Stamp {
        publisher: body as u16,
        frame: (body >> 16) as u32,
        time: MediaTime::from_micros((body >> 48) as u64),
    })
}

/// The checksum of a stamp's 104 bits.
fn checksum(body: u128) -> u32 {
    crc24(&body.to_be_bytes()[3..])
}

/// CRC-24 of OpenPGP (RFC 9580, 6.1). Its start value is not zero, so a picture of one colour does not pass.
fn crc24(bytes: &[u8]) -> u32 {
    let mut crc = 0x00B7_04CE_u32;
    for byte in bytes {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= 0x0186_4CFB;
            }
        }
    }
    crc & 0x00FF_FFFF
}

/// A gentle colour wave, 104..=152.
fn wave(position: u32) -> u8 {
    (128.0 + 24.0 * (f64::from(position) * TAU / 256.0).sin()).round() as u8
}

/// Row `y` of a texture, wrapping.
fn line(texture: &[i8], y: usize) -> &[i8] {
    &texture[y % TEXTURE_SIDE * TEXTURE_SIDE..][..TEXTURE_SIDE]
}

/// Octaves of smooth noise around zero that wrap at the edges: octave n has 8 * 2^n waves across, the first of
/// `octaves` has the height `amplitude`, each following half of the one before. Limited to -64..=63.
fn texture(publisher: u16, octaves: std::ops::Range<u32>, amplitude: i32) -> Vec<i8> {
    let mut sum = vec![0i32; TEXTURE_SIDE * TEXTURE_SIDE];
    for octave in octaves.clone() {
        let cells = 8usize << octave;
        let step = TEXTURE_SIDE / cells;
        let height = amplitude >> (octave - octaves.start);
        let corner = |x: usize, y: usize| {
            let seed = (x % cells) as u32 | ((y % cells) as u32) << 10 | octave << 20;
            (hash(seed ^ hash(publisher.into())) & 0xFF) as i32 - 128
        };
        for y in 0..TEXTURE_SIDE {
            for x in 0..TEXTURE_SIDE {
                let (column, row) = (x / step, y / step);
                let (right, down, step) = ((x % step) as i32, (y % step) as i32, step as i32);
                let top = corner(column, row) * (step - right) + corner(column + 1, row) * right;
                let bottom = corner(column, row + 1) * (step - right) + corner(column + 1, row + 1) * right;
                sum[y * TEXTURE_SIDE + x] +=
                    (top * (step - down) + bottom * down) / (step * step) * height / 128;
            }
        }
    }
    sum.into_iter().map(|value| value.clamp(-64, 63) as i8).collect()
}

/// A fixed scrambling of 32 bits (the finaliser of MurmurHash3).
fn hash(mut value: u32) -> u32 {
    value = (value ^ value >> 16).wrapping_mul(0x85EB_CA6B);
    value = (value ^ value >> 13).wrapping_mul(0xC2B2_AE35);
    value ^ value >> 16
}

/// A continuous sine, cut into blocks.
#[derive(Clone, Debug)]
pub struct Tone {
    hz: f64,
    amplitude: f64,
    /// Samples given so far; the phase follows from it, so blocks join without a click.
    position: u64,
}

impl Tone {
    /// A tone of `hz` with a peak of `amplitude`, 0..=1 of full scale (clamped).
    pub fn new(hz: f64, amplitude: f64) -> Tone {
        Tone { hz, amplitude: amplitude.clamp(0.0, 1.0), position: 0 }
    }

    /// The tone of a publisher, at half of full scale.
    pub fn of_publisher(publisher: u16) -> Tone {
        Tone::new(publisher_hz(publisher), 0.5)
    }

    /// The next `len` mono samples, captured at `time`.
    pub fn samples(&mut self, len: usize, time: MediaTime) -> Samples {
        let step = self.hz * TAU / f64::from(SAMPLE_RATE);
        let peak = self.amplitude * f64::from(i16::MAX);
        let start = self.position;
        self.position += len as u64;
        // Exact enough for days: 2^53 samples would be 5,900 years.
        let data = (start..self.position).map(|index| (peak * (index as f64 * step).sin()) as i16).collect();
        Samples::mono(data, time)
    }
}

/// The frequency that stands for a publisher, Hz: 400, 490, … 2560, then again. 25 differ, 90 Hz apart, so 50 ms of
/// sound tell neighbours apart.
pub fn publisher_hz(publisher: u16) -> f64 {
    400.0 + 90.0 * f64::from(publisher % 25)
}

/// How strong the tone `hz` is in mono `samples` at [`SAMPLE_RATE`]: the peak amplitude, 0..=1 of full scale
/// (Goertzel's algorithm). At least 50 ms are needed to tell tones 90 Hz apart.
pub fn tone_level(samples: &[i16], hz: f64) -> f64 {
    if samples.is_empty() {
        return 0.0;
    }
    let coefficient = 2.0 * (hz * TAU / f64::from(SAMPLE_RATE)).cos();
    let (mut last, mut before) = (0.0, 0.0);
    for &sample in samples {
        let next = f64::from(sample) + coefficient * last - before;
        (last, before) = (next, last);
    }
    let power = last * last + before * before - coefficient * last * before;
    2.0 * power.max(0.0).sqrt() / samples.len() as f64 / f64::from(i16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn checksum_is_the_published_one() {
        assert_eq!(crc24(b"123456789"), 0x0021_CF02, "the check value in the catalogue of CRCs");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_stamp_reads_back(publisher: u16, frame: u32, time in 0u64..1 << 56, size in 0usize..4) {
            let (width, height) = [(160, 90), (320, 180), (640, 360), (322, 240)][size];
            let picture = Pattern::new(publisher, width, height).unwrap().picture(frame, MediaTime::from_micros(time));
            prop_assert_eq!(read(&picture), Some(Stamp { publisher, frame, time: MediaTime::from_micros(time) }));
        }

        #[test]
        fn a_flipped_cell_is_noticed(frame: u32, cell in 0usize..128) {
            let stamp = Stamp { publisher: 1, frame, time: MediaTime::from_millis(5) };
            prop_assert_eq!(decode(encode(stamp) ^ 1 << cell), None);
        }
    }

    #[test]
    fn other_pictures_have_no_stamp() {
        for luma in [0, 16, 40, 128, 216, 255] {
            let flat = Picture::filled(320, 180, [luma, 128, 128], MediaTime::ZERO).unwrap();
            assert_eq!(read(&flat), None, "flat {luma}");
        }
        assert_eq!(read(&Picture::filled(16, 16, [0; 3], MediaTime::ZERO).unwrap()), None);
        assert!(Pattern::new(0, 16, 16).unwrap().picture(0, MediaTime::ZERO).time() == MediaTime::ZERO);
    }

    #[test]
    fn pictures_move_and_have_texture() {
        let pattern = Pattern::new(3, 640, 360).unwrap();
        let (a, b) = (pattern.picture(10, MediaTime::ZERO), pattern.picture(11, MediaTime::ZERO));
        let psnr = a.psnr_luma(&b).unwrap();
        assert!((15.0..35.0).contains(&psnr), "neighbouring pictures differ by {psnr} dB");
        let line = &a.luma()[200 * 640..201 * 640];
        let (low, high) = (line.iter().min().unwrap(), line.iter().max().unwrap());
        assert!(high - low > 40, "only {low}..{high} in a line");
    }

    #[test]
    fn a_tone_is_found_and_only_where_it_is() {
        let mut tone = Tone::new(440.0, 0.5);
        let first = tone.samples(1_000, MediaTime::ZERO);
        let second = tone.samples(1_400, MediaTime::ZERO);
        let joined = [first.data(), second.data()].concat();
        assert!((tone_level(&joined, 440.0) - 0.5).abs() < 0.01);
        assert!(tone_level(&joined, 530.0) < 0.05);
        assert_eq!(joined, Tone::new(440.0, 0.5).samples(2_400, MediaTime::ZERO).data());
        assert_eq!(tone_level(&[], 440.0), 0.0);
    }
}
