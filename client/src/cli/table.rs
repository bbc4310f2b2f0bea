//! A table that is drawn again and again: in place on a terminal, below each other elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Lines of cells; the first line is the heading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this heading.
    pub(crate) fn new(heading: &[&str]) -> Self {
        Table { rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    /// Adds a line. Control characters, which names of others must not send to our terminal, become `?`.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let clean = |cell: String| cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// The lines, columns aligned: the first to the left, the others to the right.
    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                // Writing to a string cannot fail.
                let _ = match column {
                    0 => write!(line, "{cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// Milliseconds, or a dash.
pub(crate) fn millis(time: Option<Duration>) -> String {
    time.map_or("-".to_owned(), |time| format!("{:.0}", time.as_secs_f64() * 1000.0))
}

/// Where tables are drawn.
pub(crate) struct Screen {
    in_place: bool,
    drawn: usize,
}

impl Screen {
    /// Standard output.
    pub(crate) fn new() -> Self {
        Screen { in_place: io::stdout().is_terminal(), drawn: 0 }
    }

    /// Whether a table replaces the one before it.
    pub(crate) fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// Draws `lines`, in place of what was drawn last if this is a terminal.
    pub(crate) fn draw(&mut self, lines: &[String]) {
        let mut out = self.erase();
        for line in lines {
            out.push_str(line);
            out.push('\n');
        }
        self.drawn = if self.in_place { lines.len() } else { 0 };
        write_out(&out);
    }

    /// A line that stays, above the table.
    pub(crate) fn say(&mut self, line: &str) {
        let mut out = self.erase();
        out.extend(line.chars().map(|c| if c.is_control() { '?' } else { c }));
        out.push('\n');
        self.drawn = 0;
        write_out(&out);
    }

    fn erase(&self) -> String {
        // Up to the first line of the table, and everything from there on erased.
        if self.drawn > 0 { format!("\x1b[{}F\x1b[J", self.drawn) } else { String::new() }
    }
}

/// A reader that went away (`parlor join … | head`) is no reason to end a call.
fn write_out(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_names_cannot_send_escapes() {
        let mut table = Table::new(&["stream", "frames/s"]);
        table.row(["a\x1b[2J".to_owned(), "15.0".to_owned()]);
        table.row(["ünï".to_owned(), "7".to_owned()]);
        assert_eq!(table.lines(), ["stream  frames/s", "a?[2J       15.0", "ünï            7"]);
    }

    #[test]
    fn a_terminal_is_drawn_over_and_a_file_is_not() {
        let mut screen = Screen { in_place: true, drawn: 3 };
        assert_eq!(screen.erase(), "\x1b[3F\x1b[J");
        screen.drawn = 0;
        assert_eq!(screen.erase(), "");
    }
}
