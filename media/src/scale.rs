//! Scaling pictures to another size, keeping their shape.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::frame::{FrameError, Picture, pixel_bytes};

/// Scales pictures to one size; keeps its work buffers between pictures.
pub struct Scaler {
    resizer: Resizer,
    options: ResizeOptions,
    width: u32,
    height: u32,
}

impl Scaler {
    /// A scaler to `width` x `height` pixels.
    ///
    /// # Errors
    /// [`FrameError::Size`].
    pub fn new(width: u32, height: u32) -> Result<Scaler, FrameError> {
        pixel_bytes(width, height)?;
        // Bilinear with a support that grows when shrinking: no aliasing, and a third of the cost of Lanczos.
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        Ok(Scaler { resizer: Resizer::new(), options, width, height })
    }

    /// The picture at this scaler's size, as large as fits without distortion, the rest black.
    pub fn scale(&mut self, picture: &Picture) -> Picture {
        if (picture.width(), picture.height()) == (self.width, self.height) {
            return picture.clone();
        }
        let (inner_width, inner_height) = fit((picture.width(), picture.height()), (self.width, self.height));
        // Multiples of 4 keep the chroma margins whole.
        let left = (self.width - inner_width) / 4 * 2;
        let top = (self.height - inner_height) / 4 * 2;
        let mut pixels = Vec::with_capacity(self.width as usize * self.height as usize / 2 * 3);
        for (plane, black, shift) in [(picture.luma(), 16, 0), (picture.u(), 128, 1), (picture.v(), 128, 1)] {
            let inner = self.plane(
                plane,
                (picture.width() >> shift, picture.height() >> shift),
                (inner_width >> shift, inner_height >> shift),
            );
            let outer = (self.width >> shift, self.height >> shift);
            let corner = (left >> shift, top >> shift);
            frame_plane(
                &mut pixels,
                &inner,
                (inner_width >> shift, inner_height >> shift),
                outer,
                corner,
                black,
            );
        }
        Picture::new(self.width, self.height, pixels, picture.time())
            .expect("three planes of the size checked in new")
    }

    fn plane(&mut self, plane: &[u8], from: (u32, u32), to: (u32, u32)) -> Vec<u8> {
        let source =
            ImageRef::new(from.0, from.1, plane, PixelType::U8).expect("the plane of a picture has its size");
        let mut target = Image::new(to.0, to.1, PixelType::U8);
        self.resizer
            .resize(&source, &mut target, &self.options)
            .expect("both images are of type U8 and not empty");
        target.into_vec()
    }
}

/// The largest even size of the shape `from` that fits into `to`, at least 2 pixels a side.
fn fit(from: (u32, u32), to: (u32, u32)) -> (u32, u32) {
    let scaled = |side: u32, num: u32, den: u32| {
        let exact = u64::from(side) * u64::from(num) / u64::from(den);
        // Rounded to the nearest even number: at most `to` because the other side decides the scale.
        (u32::try_from(exact).unwrap_or(u32::MAX).saturating_add(1) / 2 * 2).max(2)
    };
    if u64::from(from.0) * u64::from(to.1) >= u64::from(from.1) * u64::from(to.0) {
        (to.0, scaled(from.1, to.0, from.0).min(to.1))
    } else {
        (scaled(from.0, to.1, from.1).min(to.0), to.1)
    }
}

/// Appends a plane of `outer` size to `out`: `inner` at `corner`, the rest `black`.
fn frame_plane(
    out: &mut Vec<u8>,
    inner: &[u8],
    size: (u32, u32),
    outer: (u32, u32),
    corner: (u32, u32),
    black: u8,
) {
    let (width, outer_width) = (size.0 as usize, outer.0 as usize);
    let (left, top) = (corner.0 as usize, corner.1 as usize);
    let start = out.len();
    out.resize(start + outer_width * outer.1 as usize, black);
    for (row, pixels) in inner.chunks_exact(width).enumerate() {
        let at = start + (top + row) * outer_width + left;
        out[at..at + width].copy_from_slice(pixels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::MediaTime;

    #[test]
    fn colours_survive_and_bars_are_black() {
        let red = Picture::filled(64, 64, [80, 90, 240], MediaTime::from_millis(7)).unwrap();
        let wide = Scaler::new(128, 32).unwrap().scale(&red);
        assert_eq!((wide.width(), wide.height(), wide.time()), (128, 32, MediaTime::from_millis(7)));
        assert_eq!((wide.luma()[0], wide.u()[0], wide.v()[0]), (16, 128, 128));
        let middle = 16 * 128 + 64;
        assert_eq!((wide.luma()[middle], wide.u()[8 * 64 + 32], wide.v()[8 * 64 + 32]), (80, 90, 240));
        assert_eq!(wide.luma().iter().filter(|&&p| p == 80).count(), 32 * 32);
    }

    #[test]
    fn every_size_fits() {
        for (from, to) in [
            ((3840, 16), (16, 3840)),
            ((16, 3840), (320, 180)),
            ((1280, 720), (640, 360)),
            ((20, 18), (18, 20)),
        ] {
            let picture = Picture::filled(from.0, from.1, [200, 1, 2], MediaTime::ZERO).unwrap();
            let scaled = Scaler::new(to.0, to.1).unwrap().scale(&picture);
            assert_eq!((scaled.width(), scaled.height()), to);
            assert!(scaled.luma().contains(&200), "{from:?} to {to:?} vanished");
        }
        assert_eq!(fit((1280, 720), (640, 360)), (640, 360));
    }
}
