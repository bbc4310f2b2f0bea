//! What a measurement looks like: a table, JSON, a line for each frame, a page.

use std::time::Duration;

use parlor_client::Timestamp;

use crate::cell::{Cell, Feed, Link, Way};
use crate::contender::Wire;
use crate::measure::Measured;
use crate::outcome::{BUFFERS, Outcome, Shown, decodable};
use crate::quantile::{Delays, millis};
use crate::source::Kind;
use crate::table;

pub mod chart;
pub mod page;

/// The limits, from capture, within which frames are counted, ms.
pub const WITHIN: [u64; 4] = [100, 150, 200, 400];

/// Stands where a contender keeps no account.
const NOT_KNOWN: &str = "–";

/// A table for people.
pub fn table(rows: &[Measured]) -> String {
    let heading = [
        "link",
        "who",
        "p50",
        "p95",
        "p99",
        "p99.9",
        "max",
        "missing",
        "decodable p99",
        "freezes/min",
        "overhead %",
        "parity %",
        "repair %",
        "headers %",
        "back %",
        "queue p95",
        "own queue p95",
        "delivered kbit/s",
    ];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    for row in rows {
        let outcome = &row.outcome;
        let delay = |q| millis(outcome.complete.quantile(q));
        let of_media = |bytes: u64| format!("{:.1}", bytes as f64 * 100.0 / outcome.media.max(1) as f64);
        let shares = |bytes: fn(&Wire) -> Option<u64>| {
            let links = outcome.wire.iter();
            join(links.map(|wire| bytes(wire).map_or(NOT_KNOWN.to_owned(), of_media)))
        };
        let own_queue = outcome.own_queue.quantile(0.95);
        let queue = outcome.queue.iter().map(|queue| millis(queue.quantile(0.95)));
        lines.push(vec![
            describe(&row.cell),
            row.who.clone(),
            delay(0.5),
            delay(0.95),
            delay(0.99),
            delay(0.999),
            delay(1.0),
            missing(outcome),
            millis(outcome.decodable.quantile(0.99)),
            format!("{:.1}", outcome.freezes_per_minute()),
            join((0..outcome.wire.len()).map(|link| format!("{:.1}", outcome.overhead(link) * 100.0))),
            shares(|wire| Some(wire.parts?.parity)),
            shares(|wire| Some(wire.parts?.repair)),
            shares(Wire::headers),
            shares(|wire| Some(wire.feedback)),
            join(queue),
            own_queue.map_or(NOT_KNOWN.to_owned(), |age| millis(Some(age))),
            format!("{:.0}", outcome.delivered_rate() / 1000.0),
        ]);
    }
    table::render(&lines)
}

fn missing(outcome: &Outcome) -> String {
    format!("{:.2} %", 100.0 * outcome.complete.never() as f64 / outcome.complete.len().max(1) as f64)
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(" + ")
}

/// The links of a cell in a few words: `50 ms, 5 % ↑ 0 % ↓`.
pub fn describe(cell: &Cell) -> String {
    let mut words: Vec<String> = cell.links().map(describe_link).collect();
    if words.is_empty() {
        words.push("none".to_owned());
    }
    let feed = if cell.feed == Feed::Follow { ", follows" } else { "" };
    format!("{}{feed}", words.join(" + "))
}

fn describe_link(link: &Link) -> String {
    let mut text = format!("{} ms", link.rtt.as_millis());
    let loss = |way: &Way| format!("{} %", (way.loss * 1e4).round() / 100.0);
    if link.media.loss == link.back.loss {
        text += &format!(", {}", loss(&link.media));
    } else {
        text += &format!(", {} and {} back", loss(&link.media), loss(&link.back));
    }
    if link.media.burst > 1.0 {
        text += &format!(" in runs of {}", link.media.burst);
    }
    for (what, length) in
        [("jitter", link.media.jitter.max(link.back.jitter)), ("reordering", link.media.reorder)]
    {
        if !length.is_zero() {
            text += &format!(", {what} {} ms", length.as_millis());
        }
    }
    if link.media.schedule.is_some() {
        text += ", trace";
    } else if let Some(rate) = link.media.rate.filter(|&rate| rate != 10_000_000) {
        text += &format!(", {} Mbit/s", rate as f64 / 1e6);
    }
    text
}

/// Everything as JSON, with the command that made it.
pub fn json(command: &str, rows: &[Measured]) -> serde_json::Value {
    let rows: Vec<_> = rows.iter().map(json_row).collect();
    serde_json::json!({
        "command": command,
        "unit": "ms unless the name says otherwise; delays run from capture, beyond the links' one-way delay",
        "rows": rows,
    })
}

fn json_row(row: &Measured) -> serde_json::Value {
    let Measured { cell, who, outcome, .. } = row;
    let kind = match cell.shape.kind {
        Kind::Video => "video",
        Kind::Audio => "audio",
    };
    let within: serde_json::Map<_, _> = WITHIN
        .iter()
        .map(|&limit| (limit.to_string(), outcome.within(Duration::from_millis(limit)).into()))
        .collect();
    // Of pictures nothing is concealed: they are shown late, or not.
    let concealed = (cell.shape.kind == Kind::Audio).then(|| json_concealed(outcome));
    let links: Vec<_> = cell.links().enumerate().map(|(at, link)| json_link(link, outcome, at)).collect();
    serde_json::json!({
        "who": who, "media": kind, "media_rate_bps": cell.shape.bitrate,
        "frames_per_second": cell.shape.frames_per_second, "follows": cell.feed == Feed::Follow,
        "seed": cell.seed, "seeds": outcome.p99_by_seed.len(), "seconds": cell.length.as_secs(),
        "frames": outcome.complete.len(), "never": outcome.complete.never(),
        "complete": quantiles(&outcome.complete), "decodable": quantiles(&outcome.decodable),
        "complete_keyframes": quantiles(&outcome.complete_by_type[0]),
        "complete_others": quantiles(&outcome.complete_by_type[1]),
        "complete_p99_by_seed": outcome.p99_by_seed.iter().map(|p99| p99.map(as_ms)).collect::<Vec<_>>(),
        "share_within_ms_of_capture": within,
        "late_for_100_ms_playout": outcome.concealed_share(),
        "concealed": concealed,
        "freezes": outcome.shown.freezes, "frozen": as_ms(outcome.shown.frozen),
        "playout_0_ms": json_shown(&outcome.shown, outcome.length),
        "playout_100_ms": json_shown(&outcome.shown_later, outcome.length),
        "frames_shown_per_second": outcome.frames_per_second(),
        "keyframes": outcome.keyframes,
        "delivered_bps": outcome.delivered_rate(),
        "own_queue": quantiles(&outcome.own_queue),
        "links": links,
    })
}

fn json_concealed(outcome: &Outcome) -> serde_json::Value {
    let buffers = BUFFERS.iter().zip(&outcome.concealed).map(|(buffer, concealed)| {
        let share = concealed.frames as f64 / outcome.complete.len().max(1) as f64;
        serde_json::json!({
            "buffer": buffer, "frames": concealed.frames, "events": concealed.events, "share": share,
        })
    });
    buffers.collect()
}

fn json_shown(shown: &Shown, length: Duration) -> serde_json::Value {
    let minutes = length.as_secs_f64() / 60.0;
    serde_json::json!({
        "freezes": shown.freezes, "freezes_per_minute": shown.freezes as f64 / minutes,
        "frozen": as_ms(shown.frozen), "frozen_share": shown.frozen.as_secs_f64() / length.as_secs_f64(),
        "pauses": shown.pauses, "harmonic_frames_per_second": shown.harmonic_rate(),
    })
}

/// What the sender keeps no account of is null.
fn json_link(link: &Link, outcome: &Outcome, at: usize) -> serde_json::Value {
    let wire = outcome.wire[at];
    let way = |way: &Way| {
        serde_json::json!({
            "loss": way.loss, "burst": way.burst, "jitter": as_ms(way.jitter), "reorder": as_ms(way.reorder),
            "rate_bps": way.rate, "queue": as_ms(way.queue), "trace": way.schedule.is_some(),
        })
    };
    serde_json::json!({
        "rtt": as_ms(link.rtt), "media": way(&link.media), "back": way(&link.back),
        "overhead": outcome.overhead(at),
        "bytes": {
            "media": outcome.media, "total": wire.total, "packets": wire.packets,
            "source": wire.parts.map(|parts| parts.source), "parity": wire.parts.map(|parts| parts.parity),
            "repair": wire.parts.map(|parts| parts.repair), "headers": wire.headers(),
            "feedback": wire.feedback,
        },
        "queueing": quantiles(&outcome.queue[at]),
    })
}

fn quantiles(delays: &Delays) -> serde_json::Value {
    let ms = |q| delays.quantile(q).map(as_ms);
    serde_json::json!({ "p50": ms(0.5), "p95": ms(0.95), "p99": ms(0.99), "p999": ms(0.999), "max": ms(1.0) })
}

fn as_ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A line for each frame: what it was, when it was complete, and when all that it builds on was there too.
pub fn csv(rows: &[Measured]) -> String {
    let mut out = String::from("link,who,seed,frame,captured_us,keyframe,bytes,complete_us,decodable_us\n");
    let time = |at: Option<Timestamp>| at.map_or(String::new(), |at| at.as_micros().to_string());
    for row in rows {
        let link = describe(&row.cell).replace(',', ";");
        for (seed, run) in (row.cell.seed..).zip(&row.runs) {
            for ((number, frame), shown) in run.frames.iter().enumerate().zip(decodable(&run.frames)) {
                out += &format!(
                    "{link},{},{seed},{number},{},{},{},{},{}\n",
                    row.who,
                    frame.captured.as_micros(),
                    u8::from(frame.keyframe),
                    frame.bytes,
                    time(frame.complete),
                    time(shown),
                );
            }
        }
    }
    out
}
