//! One page that shows a measurement: charts, the figures, and the command that makes it again.

use super::chart::{Bars, Lines, escape};
use super::{describe, json};
use crate::contender::Sample;
use crate::measure::Measured;
use crate::quantile::Delays;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2530;--mute:#66717e;--grid:#dfe4ea;--page:#fff;--card:#f6f8fa;
--c0:#2563eb;--c1:#d9480f;--c2:#2b8a3e;--c3:#9c36b5;--c4:#e0a800;--c5:#0c8599;--c6:#c2255c;--c7:#5c677d}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--mute:#98a3b0;--grid:#303a46;--page:#11161c;--card:#1a212a;
--c0:#74a7ff;--c1:#ff9a5c;--c2:#69d184;--c3:#d59af0;--c4:#f4cf5a;--c5:#5fd0e0;--c6:#ff8fb1;--c7:#a7b2c2}}
body{margin:2rem auto;max-width:60rem;padding:0 1rem;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2.5rem}figure{margin:1.5rem 0;padding:1rem;background:var(--card);border-radius:8px}
svg{width:100%;height:auto;font:12px ui-monospace,monospace}svg text{fill:var(--mute)}svg .title{fill:var(--ink);font-weight:600}
.grid{stroke:var(--grid);fill:none}.line{fill:none;stroke-width:1.6;stroke-linejoin:round}
.line.s0{stroke:var(--c0)}.line.s1{stroke:var(--c1)}.line.s2{stroke:var(--c2)}.line.s3{stroke:var(--c3)}
.line.s4{stroke:var(--c4)}.line.s5{stroke:var(--c5)}.line.s6{stroke:var(--c6)}.line.s7{stroke:var(--c7)}
.fill.s0{fill:var(--c0)}.fill.s1{fill:var(--c1)}.fill.s2{fill:var(--c2)}.fill.s3{fill:var(--c3)}
.fill.s4{fill:var(--c4)}.fill.s5{fill:var(--c5)}.fill.s6{fill:var(--c6)}.fill.s7{fill:var(--c7)}
pre,code{font:13px ui-monospace,monospace}pre{overflow-x:auto;padding:.8rem;background:var(--card);border-radius:8px}
figcaption,p.note{color:var(--mute);font-size:13px}
";

/// The page. `command` made it, `table` has the figures.
pub fn page(title: &str, command: &str, table: &str, rows: &[Measured]) -> String {
    let caption = format!("<figcaption><code>$ {}</code></figcaption>", escape(command));
    let figure = |svg: String| format!("<figure>{svg}{caption}</figure>");
    let mut body = String::new();
    for (cell, group) in by_cell(rows) {
        body += &format!("<h2>{}</h2>", escape(&cell));
        body += &figure(tail(&group).svg());
        body += &figure(over_time(&group).svg());
        body += &figure(overhead(&group).svg());
        for queue in [queue_over_time(&group), own_queue_over_time(&group)].into_iter().flatten() {
            body += &figure(queue.svg());
        }
    }
    let note = "Delays run from capture to the last byte of a frame, beyond the one-way delay of the links. A frame that \
                never came is later than all others. Everything runs in virtual time: the same command gives the same \
                page on every machine.";
    whole(title, command, note, table, &body, &json(command, rows))
}

/// A page of charts that are SVG already, each with the command under it.
pub fn assemble(
    title: &str,
    command: &str,
    note: &str,
    table: &str,
    charts: &[String],
    figures: &serde_json::Value,
) -> String {
    let caption = format!("<figcaption><code>$ {}</code></figcaption>", escape(command));
    let body: String = charts.iter().map(|svg| format!("<figure>{svg}{caption}</figure>")).collect();
    whole(title, command, note, table, &body, figures)
}

fn whole(
    title: &str,
    command: &str,
    note: &str,
    table: &str,
    body: &str,
    figures: &serde_json::Value,
) -> String {
    let data = figures.to_string().replace("</", "<\\/");
    let (title, command, table, note) = (escape(title), escape(command), escape(table), escape(note));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><h1>{title}</h1><pre>$ {command}</pre><p class=\"note\">{note}</p>\
         <pre>{table}</pre>{body}\
         <script type=\"application/json\" id=\"figures\">{data}</script></body></html>\n"
    )
}

/// Rows that share links and source, in the order in which they first come.
fn by_cell(rows: &[Measured]) -> Vec<(String, Vec<&Measured>)> {
    let mut groups: Vec<(String, Vec<&Measured>)> = Vec::new();
    for row in rows {
        let name = describe(&row.cell);
        match groups.iter_mut().find(|(other, group)| *other == name && group[0].cell == row.cell) {
            Some((_, group)) => group.push(row),
            None => groups.push((name, vec![row])),
        }
    }
    groups
}

fn tail(rows: &[&Measured]) -> Lines {
    let points = |delays: &Delays| {
        let all = delays.len().max(1) as f64;
        let later = |at: usize| (all - at as f64) / all;
        delays.came().iter().enumerate().map(|(at, delay)| (delay.as_secs_f64() * 1e3, later(at))).collect()
    };
    Lines {
        title: "Share of frames that take longer than …".to_owned(),
        x: "ms beyond one-way delay",
        y: "share of frames",
        log: true,
        series: rows.iter().map(|row| (row.who.clone(), points(&row.outcome.complete))).collect(),
    }
}

fn over_time(rows: &[&Measured]) -> Lines {
    let points = |row: &Measured| {
        let frames = &row.runs[0].frames;
        let start = frames.first().map(|frame| frame.captured).unwrap_or_default();
        let delay = |at: parlor_client::Timestamp, captured| {
            at.saturating_since(captured).saturating_sub(row.outcome.one_way).as_secs_f64() * 1e3
        };
        frames
            .iter()
            .map(|frame| {
                let y = frame.complete.map_or(f64::INFINITY, |at| delay(at, frame.captured));
                (frame.captured.saturating_since(start).as_secs_f64(), y)
            })
            .collect()
    };
    Lines {
        title: "Delay of each frame (first seed; gaps are frames that never came)".to_owned(),
        x: "s",
        y: "ms beyond one-way delay",
        log: false,
        series: rows.iter().map(|row| (row.who.clone(), points(row))).collect(),
    }
}

fn overhead(rows: &[&Measured]) -> Bars {
    let mut bars = Vec::new();
    for row in rows {
        for (link, wire) in row.outcome.wire.iter().enumerate() {
            let share = |bytes: u64| bytes as f64 / row.outcome.media.max(1) as f64;
            let name = if row.outcome.wire.len() > 1 {
                format!("{}, link {}", row.who, link + 1)
            } else {
                row.who.clone()
            };
            let parts = wire.parts.unwrap_or_default();
            let headers = wire.headers().unwrap_or(0);
            let not_told_apart = if wire.parts.is_none() { wire.total } else { 0 };
            let parts = [parts.source, parts.parity, parts.repair, headers, not_told_apart, wire.feedback];
            bars.push((name, parts.map(share).to_vec()));
        }
    }
    Bars {
        title: "What went over each link".to_owned(),
        x: "bytes for each byte of media",
        parts: vec!["source", "parity", "repair", "headers", "not told apart", "the way back"],
        bars,
    }
}

fn queue_over_time(rows: &[&Measured]) -> Option<Lines> {
    let series = rows.iter().flat_map(|row| {
        let links = row.runs[0].queue.iter().enumerate();
        links.map(|(link, samples)| (format!("{}, link {}", row.who, link + 1), samples.as_slice()))
    });
    waits("Queue before the bottleneck (first seed)", series)
}

fn own_queue_over_time(rows: &[&Measured]) -> Option<Lines> {
    let series = rows.iter().map(|row| (row.who.clone(), row.runs[0].own_queue.as_slice()));
    waits("Age of what the sender still held when it captured a frame (first seed)", series)
}

/// Lengths of time over time; nothing if there are none.
fn waits<'a>(title: &str, series: impl Iterator<Item = (String, &'a [Sample])>) -> Option<Lines> {
    let series: Vec<_> = series
        .filter_map(|(name, samples)| {
            let (start, _) = *samples.first()?;
            let point =
                |(at, wait): &Sample| (at.saturating_since(start).as_secs_f64(), wait.as_secs_f64() * 1e3);
            Some((name, samples.iter().map(point).collect()))
        })
        .collect();
    (!series.is_empty()).then(|| Lines { title: title.to_owned(), x: "s", y: "ms", log: false, series })
}
