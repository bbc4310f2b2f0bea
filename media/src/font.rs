//! A 5x7 bitmap font for captions and for the digits in test pictures: capitals, digits and a little punctuation.
//!
//! It draws into one luma plane and knows nothing of layout beyond one line of text.

/// Columns of one character cell: 5 of glyph and 1 of space.
pub(crate) const CELL_WIDTH: usize = 6;

/// Rows of a glyph.
pub(crate) const GLYPH_HEIGHT: usize = 7;

/// Seven rows of five pixels each, the most significant of the five bits on the left. Unknown characters are a box.
fn glyph(character: char) -> [u8; GLYPH_HEIGHT] {
    match character.to_ascii_uppercase() {
        ' ' => [0; 7],
        '0' => [14, 17, 19, 21, 25, 17, 14],
        '1' => [4, 12, 4, 4, 4, 4, 14],
        '2' => [14, 17, 1, 2, 4, 8, 31],
        '3' => [31, 2, 4, 2, 1, 17, 14],
        '4' => [2, 6, 10, 18, 31, 2, 2],
        '5' => [31, 16, 30, 1, 1, 17, 14],
        '6' => [6, 8, 16, 30, 17, 17, 14],
        '7' => [31, 1, 2, 4, 8, 8, 8],
        '8' => [14, 17, 17, 14, 17, 17, 14],
        '9' => [14, 17, 17, 15, 1, 2, 12],
        'A' => [14, 17, 17, 31, 17, 17, 17],
        'B' => [30, 17, 17, 30, 17, 17, 30],
        'C' => [14, 17, 16, 16, 16, 17, 14],
        'D' => [28, 18, 17, 17, 17, 18, 28],
        'E' => [31, 16, 16, 30, 16, 16, 31],
        'F' => [31, 16, 16, 30, 16, 16, 16],
        'G' => [14, 17, 16, 23, 17, 17, 15],
        'H' => [17, 17, 17, 31, 17, 17, 17],
        'I' => [14, 4, 4, 4, 4, 4, 14],
        'J' => [7, 2, 2, 2, 2, 18, 12],
        'K' => [17, 18, 20, 24, 20, 18, 17],
        'L' => [16, 16, 16, 16, 16, 16, 31],
        'M' => [17, 27, 21, 21, 17, 17, 17],
        'N' => [17, 17, 25, 21, 19, 17, 17],
        'O' => [14, 17, 17, 17, 17, 17, 14],
        'P' => [30, 17, 17, 30, 16, 16, 16],
        'Q' => [14, 17, 17, 17, 21, 18, 13],
        'R' => [30, 17, 17, 30, 20, 18, 17],
        'S' => [15, 16, 16, 14, 1, 1, 30],
        'T' => [31, 4, 4, 4, 4, 4, 4],
        'U' => [17, 17, 17, 17, 17, 17, 14],
        'V' => [17, 17, 17, 17, 17, 10, 4],
        'W' => [17, 17, 17, 21, 21, 21, 10],
        'X' => [17, 17, 10, 4, 10, 17, 17],
        'Y' => [17, 17, 17, 10, 4, 4, 4],
        'Z' => [31, 1, 2, 4, 8, 16, 31],
        '.' => [0, 0, 0, 0, 0, 12, 12],
        ',' => [0, 0, 0, 0, 12, 4, 8],
        ':' => [0, 12, 12, 0, 12, 12, 0],
        '-' => [0, 0, 0, 31, 0, 0, 0],
        '_' => [0, 0, 0, 0, 0, 0, 31],
        '/' => [0, 1, 2, 4, 8, 16, 0],
        '%' => [24, 25, 2, 4, 8, 19, 3],
        '#' => [10, 10, 31, 10, 31, 10, 10],
        '(' => [2, 4, 8, 8, 8, 4, 2],
        ')' => [8, 4, 2, 2, 2, 4, 8],
        '<' => [2, 4, 8, 16, 8, 4, 2],
        '>' => [8, 4, 2, 1, 2, 4, 8],
        '=' => [0, 0, 31, 0, 31, 0, 0],
        '+' => [0, 4, 4, 31, 4, 4, 0],
        '\'' => [4, 4, 8, 0, 0, 0, 0],
        _ => [31, 17, 17, 17, 17, 17, 31],
    }
}

/// A luma plane to write on.
pub(crate) struct Canvas<'a> {
    /// `width * height` bytes at least.
    pub(crate) luma: &'a mut [u8],
    /// Pixels in a row.
    pub(crate) width: usize,
}

impl Canvas<'_> {
    /// Writes `text` with its upper left corner at (`left`, `top`), each font pixel `scale` pixels wide, in brightness
    /// `ink`. What does not fit is left out.
    pub(crate) fn text(&mut self, left: usize, top: usize, scale: usize, ink: u8, text: &str) {
        for (index, character) in text.chars().enumerate() {
            for (row, bits) in glyph(character).into_iter().enumerate() {
                for column in (0..5).filter(|column| bits & (16 >> column) != 0) {
                    self.block(left + (index * CELL_WIDTH + column) * scale, top + row * scale, scale, ink);
                }
            }
        }
    }

    fn block(&mut self, left: usize, top: usize, side: usize, ink: u8) {
        let right = (left + side).min(self.width);
        if left >= right {
            return;
        }
        for y in top..top + side {
            let Some(row) = self.luma.get_mut(y * self.width + left..y * self.width + right) else { return };
            row.fill(ink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glyphs_differ_and_nothing_is_drawn_outside() {
        let letters: Vec<char> = ('A'..='Z').chain('0'..='9').chain(".,:-_/%#()<>=+'".chars()).collect();
        for (i, &a) in letters.iter().enumerate() {
            for &b in &letters[i + 1..] {
                assert_ne!(glyph(a), glyph(b), "{a} looks like {b}");
            }
        }
        let mut luma = vec![0; 20 * 10];
        Canvas { luma: &mut luma, width: 20 }.text(15, 5, 3, 255, "WWWWWWWW");
        assert!(
            luma.chunks(20).all(|row| row[..15].iter().all(|&p| p == 0)),
            "text wrapped into the next row"
        );
    }
}
