//! `docs/protocol.md` as data: its examples and its tables. What they must agree with is decided in
//! `tests/protocol.rs`; the fuzz targets take their seeds from the examples.

use std::collections::BTreeMap;
use std::path::Path;

/// Bytes and what a reader makes of them.
#[derive(Debug)]
pub struct Example {
    /// Where it stands in the document.
    pub line: usize,
    /// What the bytes are: a message of one of the QUIC streams, a frame, a datagram, …
    pub group: String,
    /// Its name; for messages the name of the type.
    pub name: String,
    /// Encoding the value gives other bytes, because a reader leaves something out.
    pub is_one_way: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What comes of them.
    pub outcome: Outcome,
}

/// See [`Example::outcome`].
#[derive(Debug)]
pub enum Outcome {
    /// The value in `Debug` form, with single spaces between words.
    Value(String),
    /// The number and name of the code that they are refused with.
    Refused(String),
}

/// A table: its first row and the others, cell by cell.
#[derive(Debug)]
pub struct Table {
    /// Where it stands in the document.
    pub line: usize,
    /// The cells of the first row.
    pub head: Vec<String>,
    /// The cells of the other rows.
    pub rows: Vec<Vec<String>>,
}

/// The whole document.
#[derive(Debug)]
pub struct Document {
    /// Its text.
    pub text: String,
    /// Its examples, in order.
    pub examples: Vec<Example>,
    /// Its tables, in order.
    pub tables: Vec<Table>,
}

impl Document {
    /// Reads `docs/protocol.md`.
    ///
    /// # Panics
    /// When it is not there, or an example in it is not written as one.
    pub fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (examples, tables) = (examples(&text), tables(&text));
        Document { text, examples, tables }
    }

    /// The table whose first row begins with these cells.
    ///
    /// # Panics
    /// When there is none, or more than one.
    pub fn table(&self, head: &[&str]) -> &Table {
        let mut found = self.tables.iter().filter(|table| {
            table.head.len() >= head.len() && head.iter().zip(&table.head).all(|(a, b)| a == b)
        });
        let table = found.next().unwrap_or_else(|| panic!("no table begins with {head:?}"));
        assert!(found.next().is_none(), "two tables begin with {head:?}");
        table
    }
}

impl Table {
    /// Two columns of it as keys and values.
    pub fn columns(&self, key: usize, value: usize) -> BTreeMap<String, String> {
        self.rows.iter().map(|row| (row[key].clone(), row[value].clone())).collect()
    }
}

/// Text with single spaces between words and none behind `[`, so that lists may be broken into lines.
pub fn normal(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace("[ ", "[")
}

/// A number as people write it, with commas or in hexadecimal, perhaps as code.
///
/// # Panics
/// When it is not one.
pub fn number(text: &str) -> u64 {
    let text = text.trim_matches('`').replace(',', "");
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{text:?} is not a number"))
}

/// Bytes as people write them: two hexadecimal digits each, perhaps as code.
///
/// # Panics
/// When they are not.
pub fn bytes(text: &str) -> Vec<u8> {
    let byte = |digits: &str| match (digits.len(), u8::from_str_radix(digits, 16)) {
        (2, Ok(byte)) => byte,
        _ => panic!("{digits:?} in {text:?} is not a byte"),
    };
    text.trim_matches('`').split_whitespace().map(byte).collect()
}

/// An example is a block ```` ```hex group name [one-way] ```` and, right behind it, a block `value` or `refused`.
fn examples(text: &str) -> Vec<Example> {
    let mut blocks = blocks(text).into_iter().peekable();
    let mut examples = Vec::new();
    while let Some((line, info, content)) = blocks.next() {
        let words: Vec<_> = info.split_whitespace().collect();
        let (group, name, rest) = match words[..] {
            ["hex", group, name, ref rest @ ..] => (group, name, rest),
            ["value" | "refused", ..] => panic!("line {line}: a block {info:?} without bytes before it"),
            _ => continue,
        };
        let (_, kind, outcome) =
            blocks.next().unwrap_or_else(|| panic!("line {line}: an example without a value"));
        let outcome = match kind.as_str() {
            "value" => Outcome::Value(normal(&outcome)),
            "refused" => Outcome::Refused(normal(&outcome)),
            _ => panic!("line {line}: an example without a value"),
        };
        let code = |line: &str| bytes(line.split('#').next().unwrap_or_default());
        examples.push(Example {
            line,
            group: group.to_owned(),
            name: name.to_owned(),
            is_one_way: rest == ["one-way"],
            bytes: content.lines().flat_map(code).collect(),
            outcome,
        });
    }
    examples
}

/// The fenced blocks: line, what stands behind the fence, content.
fn blocks(text: &str) -> Vec<(usize, String, String)> {
    let mut blocks = Vec::new();
    let mut open = false;
    for (at, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), blocks.last_mut()) {
            (Some(_), Some(_)) if open => open = false,
            (Some(info), _) => {
                blocks.push((at + 1, info.trim().to_owned(), String::new()));
                open = true;
            }
            (None, Some((_, _, content))) if open => {
                content.push_str(line);
                content.push('\n');
            }
            _ => {}
        }
    }
    assert!(!open, "the last block of the document has no end");
    blocks
}

fn tables(text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut in_table = false;
    for (at, line) in text.lines().enumerate() {
        let Some(row) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            in_table = false;
            continue;
        };
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
        match tables.last_mut().filter(|_| in_table) {
            None => tables.push(Table { line: at + 1, head: cells, rows: Vec::new() }),
            Some(table) => {
                assert_eq!(cells.len(), table.head.len(), "line {}: cells in a row", at + 1);
                if !cells.iter().all(|cell| cell.starts_with("---")) {
                    table.rows.push(cells);
                }
            }
        }
        in_table = true;
    }
    tables
}
