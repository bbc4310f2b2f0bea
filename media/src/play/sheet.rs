//! A contact sheet: many small pictures with captions on one PNG, to see at a glance what everybody saw.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use super::PlayError;
use crate::font::{CELL_WIDTH, Canvas, GLYPH_HEIGHT};
use crate::frame::{FrameError, MediaTime, Picture};
use crate::scale::Scaler;

/// Tiles at most: with the usual 320x180, 24 million pixels.
const TILES_MAX: usize = 400;

/// Space between tiles, and around captions, pixels.
const GAP: usize = 4;

/// Size of a caption's font pixels.
const CAPTION_SCALE: usize = 2;

/// Collects tiles and writes them row by row.
pub struct ContactSheet {
    scaler: Scaler,
    tile: (usize, usize),
    columns: usize,
    tiles: Vec<(Picture, String)>,
}

impl ContactSheet {
    /// A sheet of `columns` (at least 1) tiles of `tile_width` x `tile_height` pixels in a row.
    ///
    /// # Errors
    /// [`FrameError::Size`].
    pub fn new(tile_width: u32, tile_height: u32, columns: usize) -> Result<ContactSheet, FrameError> {
        Ok(ContactSheet {
            scaler: Scaler::new(tile_width, tile_height)?,
            tile: (tile_width as usize, tile_height as usize),
            columns: columns.max(1),
            tiles: Vec::new(),
        })
    }

    /// Adds a tile: the picture (black for `None`) and a line under it. Letters beyond the tile's width are cut off.
    ///
    /// Gives `false`, and adds nothing, if the sheet has 400 tiles.
    pub fn add(&mut self, picture: Option<&Picture>, caption: impl Into<String>) -> bool {
        if self.tiles.len() >= TILES_MAX {
            return false;
        }
        let (width, height) = (self.tile.0 as u32, self.tile.1 as u32);
        let black = || {
            Picture::filled(width, height, [16, 128, 128], MediaTime::ZERO)
                .expect("the size was checked in new")
        };
        let tile = picture.map_or_else(black, |picture| self.scaler.scale(picture));
        let letters = (self.tile.0 / (CELL_WIDTH * CAPTION_SCALE)).max(1);
        self.tiles.push((tile, caption.into().chars().take(letters).collect()));
        true
    }

    /// Writes the PNG.
    ///
    /// # Errors
    /// [`PlayError::Output`].
    pub fn write_png(&self, path: impl AsRef<Path>) -> Result<(), PlayError> {
        let path = path.as_ref();
        let (width, height, rgb) = self.render();
        let file = BufWriter::new(File::create(path).map_err(PlayError::output(path))?);
        let mut encoder = png::Encoder::new(file, width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let write = || -> Result<(), png::EncodingError> {
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&rgb)?;
            writer.finish()
        };
        write().map_err(|error| PlayError::Output {
            path: path.to_owned(),
            source: match error {
                png::EncodingError::IoError(source) => source,
                other => std::io::Error::other(other),
            },
        })
    }

    /// Width, height and RGB bytes of the whole sheet.
    fn render(&self) -> (usize, usize, Vec<u8>) {
        let caption_height = GLYPH_HEIGHT * CAPTION_SCALE + 2 * GAP;
        let cell = (self.tile.0 + GAP, self.tile.1 + caption_height);
        let rows = self.tiles.len().div_ceil(self.columns).max(1);
        let columns = self.columns.min(self.tiles.len()).max(1);
        let (width, height) = (columns * cell.0 + GAP, rows * cell.1 + GAP);
        let mut rgb = vec![24; width * height * 3];
        let mut captions = vec![0; width * height];
        for (index, (picture, caption)) in self.tiles.iter().enumerate() {
            let (left, top) = (GAP + index % columns * cell.0, GAP + index / columns * cell.1);
            draw(&mut rgb, width, left, top, picture);
            let mut canvas = Canvas { luma: &mut captions, width };
            canvas.text(left, top + self.tile.1 + GAP, CAPTION_SCALE, 230, caption);
        }
        for (pixel, &ink) in rgb.chunks_exact_mut(3).zip(&captions) {
            if ink > 0 {
                pixel.fill(ink);
            }
        }
        (width, height, rgb)
    }
}

/// Copies `picture` as RGB (BT.601, video range) into a wider image.
fn draw(rgb: &mut [u8], width: usize, left: usize, top: usize, picture: &Picture) {
    let tile_width = picture.width() as usize;
    for (y, row) in picture.luma().chunks_exact(tile_width).enumerate() {
        let chroma = y / 2 * (tile_width / 2);
        let out = &mut rgb[((top + y) * width + left) * 3..][..tile_width * 3];
        for (x, (pixel, &luma)) in out.chunks_exact_mut(3).zip(row).enumerate() {
            let (u, v) = (picture.u()[chroma + x / 2], picture.v()[chroma + x / 2]);
            let (luma, u, v) = (298 * (i32::from(luma) - 16), i32::from(u) - 128, i32::from(v) - 128);
            // Integer BT.601, weights times 256.
            let colours = [luma + 409 * v, luma - 100 * u - 208 * v, luma + 516 * u];
            for (byte, colour) in pixel.iter_mut().zip(colours) {
                *byte = ((colour + 128) >> 8).clamp(0, 255) as u8;
            }
        }
    }
}
