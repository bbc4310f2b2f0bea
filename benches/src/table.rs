//! Tables for people to read: columns as wide as their widest cell, numbers to the right.

/// Lines of text, the first being the heading.
pub fn render(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (at, row) in rows.iter().enumerate() {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| {
                let is_number = cell.starts_with(|c: char| c.is_ascii_digit() || c == '-');
                if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            })
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
        if at == 0 {
            out.push_str(&widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>().join("  "));
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_stand_to_the_right() {
        let rows = [vec!["loss".into(), "p50".into()], vec!["none".into(), "3.1".into()]];
        assert_eq!(super::render(&rows), "loss  p50\n----  ---\nnone  3.1\n");
    }
}
