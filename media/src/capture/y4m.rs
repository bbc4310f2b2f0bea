//! Y4M files: raw pictures, 4:2:0, 8 bits.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use y4m::{Colorspace, Decoder};

use super::CaptureError;
use super::clip::{Clip, not_a_clip};
use crate::frame::{MediaTime, PICTURE_SIDE_MAX, Picture, pixel_bytes};

/// The largest frame read, bytes.
const FRAME_MAX: usize = PICTURE_SIDE_MAX as usize * PICTURE_SIDE_MAX as usize * 3 / 2;

/// The pictures of a Y4M file.
pub(super) struct Y4mClip {
    path: PathBuf,
    decoder: Decoder<BufReader<File>>,
    fps: f64,
}

impl Y4mClip {
    /// # Errors
    /// [`CaptureError::Unreadable`] or [`CaptureError::NotAClip`].
    pub(super) fn open(path: &Path) -> Result<Y4mClip, CaptureError> {
        let file =
            File::open(path).map_err(|source| CaptureError::Unreadable { path: path.to_owned(), source })?;
        let (decoder, fps) = start(path, BufReader::new(file))?;
        Ok(Y4mClip { path: path.to_owned(), decoder, fps })
    }
}

/// Reads the header; gives the rate too.
fn start<R: Read>(path: &Path, reader: R) -> Result<(Decoder<R>, f64), CaptureError> {
    let decoder = Decoder::new_with_limits(reader, y4m::Limits { bytes: FRAME_MAX })
        .map_err(|error| not_a_clip(path, format!("its Y4M header is wrong: {error}")))?;
    use Colorspace::{C420, C420jpeg, C420mpeg2, C420paldv};
    if !matches!(decoder.get_colorspace(), C420 | C420jpeg | C420mpeg2 | C420paldv) {
        let colours = decoder.get_colorspace();
        return Err(not_a_clip(path, format!("its colours are {colours:?}; convert it to 8-bit yuv420p")));
    }
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    pixel_bytes(side(decoder.get_width()), side(decoder.get_height()))?;
    let rate = decoder.get_framerate();
    let fps = rate.num as f64 / rate.den as f64;
    Ok((decoder, if (1.0..=240.0).contains(&fps) { fps } else { 25.0 }))
}

/// The next picture; `None` at the end.
fn read<R: Read>(path: &Path, decoder: &mut Decoder<R>) -> Result<Option<Picture>, CaptureError> {
    let (width, height) = (decoder.get_width() as u32, decoder.get_height() as u32);
    let frame = match decoder.read_frame() {
        Ok(frame) => frame,
        Err(y4m::Error::EOF) => return Ok(None),
        Err(error) => return Err(not_a_clip(path, format!("a frame is damaged or cut off: {error}"))),
    };
    let pixels = [frame.get_y_plane(), frame.get_u_plane(), frame.get_v_plane()].concat();
    Ok(Some(Picture::new(width, height, pixels, MediaTime::ZERO)?))
}

impl Clip for Y4mClip {
    fn fps(&self) -> f64 {
        self.fps
    }

    fn next(&mut self) -> Result<Option<Picture>, CaptureError> {
        read(&self.path, &mut self.decoder)
    }

    fn rewind(&mut self) -> Result<(), CaptureError> {
        *self = Y4mClip::open(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) {
        let path = Path::new("test.y4m");
        if let Ok((mut decoder, _)) = start(path, bytes) {
            while let Ok(Some(_)) = read(path, &mut decoder) {}
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            read_all(&[b"YUV4MPEG2".as_slice(), &bytes].concat());
        }

        #[test]
        fn odd_headers_never_panic(width: u64, height: u64, num: u64, den: u64, colours in "[a-z0-9]{0,8}", rest: Vec<u8>) {
            let header = format!("YUV4MPEG2 W{width} H{height} F{num}:{den} C{colours}\nFRAME\n");
            read_all(&[header.as_bytes(), &rest].concat());
        }
    }
}
