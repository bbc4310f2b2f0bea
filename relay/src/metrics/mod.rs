//! What the relay counts, as the text that Prometheus reads. Values only: where they come from is `server`'s business.

pub mod latency;

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::lobby::{Survey, Tally};
use crate::server::{Counters, OverloadFigures};
use crate::webhook::WebhookCounters;
use latency::Histogram;

/// Everything at one moment.
#[derive(Clone, Default, Debug)]
pub struct Figures {
    /// How much there is.
    pub survey: Survey,
    /// What happened to frames.
    pub counters: Counters,
    /// What happened to requests.
    pub tally: Tally,
    /// How long requests took, by operation.
    pub latencies: BTreeMap<&'static str, Histogram>,
    /// Round trip of each connection.
    pub rtts: Vec<Duration>,
    /// How long the oldest frame has waited, of each connection.
    pub queue_ages: Vec<Duration>,
    /// Symbols that were too old to be sent, over all connections that there are now.
    pub symbols_expired: u64,
    /// How posting to the app's server goes.
    pub webhooks: WebhookCounters,
    /// Whether the relay is about to end.
    pub is_draining: bool,
    /// Whether the machine keeps up.
    pub overload: OverloadFigures,
}

impl Figures {
    /// The text, as `text/plain; version=0.0.4`.
    pub fn to_text(mut self) -> String {
        let Survey { connections, rooms, users, streams, players, cached_bytes, pending, .. } = self.survey;
        let mut page = Page::default();
        for (name, help, value) in [
            ("connections", "Connections now.", connections),
            ("rooms", "Rooms with somebody in them.", rooms),
            ("users", "Users in all rooms.", users),
            ("streams", "Streams published in all rooms.", streams),
            ("players", "Plays that frames go to.", players),
            ("cached_bytes", "Bytes of frames kept for late and slow players.", cached_bytes),
            ("pending", "Proposals without a verdict, and notices not handed out.", pending),
            (
                "queued_bytes",
                "Bytes of app messages that wait for their receivers.",
                self.survey.queued_bytes,
            ),
            ("handshakes", "Handshakes under way.", self.counters.gate.handshakes),
            ("webhooks_waiting", "Events that wait for the app's server.", self.webhooks.waiting),
            ("draining", "1 while the relay waits for its users to go.", usize::from(self.is_draining)),
            (
                "overload_level",
                "What is left out: 0 nothing, 1 parity, 2 highest layers, 3 discardable frames, 4 video.",
                self.overload.shed.level().into(),
            ),
            (
                "overload_video_eighths",
                "Of so many eighths of a player's streams the video is left out.",
                self.overload.shed.share().into(),
            ),
            (
                "overload_joins_refused",
                "1 while nobody may join because of overload.",
                usize::from(self.overload.is_full),
            ),
        ] {
            page.metric(name, "gauge", help);
            page.sample(name, "", value);
        }
        let counters = &self.counters;
        for (name, help, value) in [
            ("connections_total", "Connections taken.", counters.connections),
            ("joins_total", "Users who joined a room.", self.tally.joins),
            ("frames_received_total", "Frames from publishers.", counters.frames_received),
            ("bytes_received_total", "Bytes of those frames.", counters.bytes_received),
            (
                "handshakes_proof_asked_total",
                "Attempts that had to prove their address.",
                counters.gate.proofs_asked,
            ),
            ("handshakes_refused_total", "Attempts that were refused.", counters.gate.refused),
            ("handshakes_ignored_total", "Attempts that were not answered.", counters.gate.ignored),
            ("webhooks_delivered_total", "Events that the app's server took.", self.webhooks.delivered),
            ("webhooks_dropped_total", "Events that were given up.", self.webhooks.dropped),
            ("webhooks_failures_total", "Posts that failed and were tried again.", self.webhooks.failures),
            ("frames_sent_total", "Frames to players, each counted once for each.", counters.frames_sent),
            ("bytes_sent_total", "Bytes of those frames.", counters.bytes_sent),
        ] {
            page.metric(name, "counter", help);
            page.sample(name, "", value);
        }
        page.metric("frames_dropped_total", "counter", "Frames that somebody did not get, by reason.");
        for (reason, value) in [
            ("lost_from_publisher", counters.frames_lost),
            ("over_limit", counters.frames_over_limit),
            ("not_among_loudest", counters.frames_unheard),
            ("skipped_for_player", counters.frames_skipped),
            ("gone_before_sent", counters.frames_gone),
            ("overload_layer", counters.frames_cut.layers),
            ("overload_discardable", counters.frames_cut.discardable),
            ("overload_video", counters.frames_cut.video),
        ] {
            page.sample("frames_dropped_total", &format!("{{reason=\"{reason}\"}}"), value);
        }
        page.metric("wakeup_lateness_seconds", "gauge", "How late tasks are woken, in the mean of 250 ms.");
        page.sample("wakeup_lateness_seconds", "", self.overload.lateness.as_secs_f64());
        page.metric("symbols_expired", "gauge", "Symbols too old to be sent, of the connections there are.");
        page.sample("symbols_expired", "", self.symbols_expired);
        page.metric("refused_total", "counter", "Requests and connections refused, by code.");
        for (code, count) in &self.tally.refused {
            page.sample("refused_total", &format!("{{code=\"{}\"}}", code.number()), count);
        }
        page.summary("rtt_seconds", "Round trips of the connections.", &mut self.rtts);
        let age = "Age of the oldest frame that waits to be sent, by connection.";
        page.summary("queue_age_seconds", age, &mut self.queue_ages);
        page.histograms("request_seconds", "How long requests took, by operation.", &self.latencies);
        page.text
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP parlor_{name} {help}\n# TYPE parlor_{name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        self.line(format_args!("parlor_{name}{labels} {value}"));
    }

    fn summary(&mut self, name: &str, help: &str, values: &mut [Duration]) {
        values.sort_unstable();
        self.metric(name, "summary", help);
        for (quantile, hundredths) in [("0.5", 50), ("0.9", 90), ("0.99", 99), ("1", 100)] {
            // The nearest rank; without any value there is no quantile.
            let rank = (values.len() * hundredths).div_ceil(100).saturating_sub(1);
            if let Some(value) = values.get(rank) {
                self.sample(name, &format!("{{quantile=\"{quantile}\"}}"), value.as_secs_f64());
            }
        }
        let sum: Duration = values.iter().sum();
        self.sample(&format!("{name}_sum"), "", sum.as_secs_f64());
        self.sample(&format!("{name}_count"), "", values.len());
    }

    fn histograms(&mut self, name: &str, help: &str, histograms: &BTreeMap<&'static str, Histogram>) {
        self.metric(name, "histogram", help);
        for (operation, histogram) in histograms {
            let bucket = format!("{name}_bucket");
            for (end, count) in histogram.cumulative() {
                let labels = format!("{{operation=\"{operation}\",le=\"{}\"}}", end.as_secs_f64());
                self.sample(&bucket, &labels, count);
            }
            self.sample(&bucket, &format!("{{operation=\"{operation}\",le=\"+Inf\"}}"), histogram.count());
            let labels = format!("{{operation=\"{operation}\"}}");
            self.sample(&format!("{name}_sum"), &labels, histogram.sum().as_secs_f64());
            self.sample(&format!("{name}_count"), &labels, histogram.count());
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing into memory cannot fail.
        _ = writeln!(self.text, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use parlor_transport::error::Code;

    use super::*;
    use crate::overload::Shed;

    #[test]
    fn every_sample_has_its_type_and_a_number() {
        let mut join = Histogram::default();
        join.record(Duration::from_micros(20));
        let text = Figures {
            survey: Survey { users: 3, ..Survey::default() },
            tally: Tally { joins: 5, refused: [(Code::RoomFull, 2)].into() },
            counters: Counters { frames_unheard: 4, ..Counters::default() },
            latencies: [("join", join)].into(),
            overload: OverloadFigures {
                shed: Shed::ALL,
                lateness: Duration::from_millis(12),
                ..OverloadFigures::default()
            },
            rtts: (1..=100).rev().map(Duration::from_millis).collect(),
            ..Figures::default()
        }
        .to_text();
        for line in [
            "parlor_users 3",
            "parlor_joins_total 5",
            "parlor_refused_total{code=\"1007\"} 2",
            "parlor_rtt_seconds{quantile=\"0.5\"} 0.05",
            "parlor_rtt_seconds{quantile=\"0.99\"} 0.099",
            "parlor_rtt_seconds{quantile=\"1\"} 0.1",
            "parlor_rtt_seconds_count 100",
            "parlor_queue_age_seconds_count 0",
            "parlor_frames_dropped_total{reason=\"skipped_for_player\"} 0",
            "parlor_frames_dropped_total{reason=\"not_among_loudest\"} 4",
            "parlor_overload_level 4",
            "parlor_overload_video_eighths 8",
            "parlor_wakeup_lateness_seconds 0.012",
            "parlor_request_seconds_bucket{operation=\"join\",le=\"0.00001\"} 0",
            "parlor_request_seconds_bucket{operation=\"join\",le=\"0.000025\"} 1",
            "parlor_request_seconds_bucket{operation=\"join\",le=\"+Inf\"} 1",
            "parlor_request_seconds_sum{operation=\"join\"} 0.00002",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let mut typed = Vec::new();
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                typed.push(kind.split(' ').next().unwrap());
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let name = name.split('{').next().unwrap();
                assert!(typed.iter().any(|kind| name.starts_with(kind)), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
