//! A publisher of video under Parlor's rate control, and its receiver.

use std::collections::VecDeque;

use parlor_transport::rate::{
    Controller, ControllerConfig, Estimator, FeedbackBuilder, Pacer, PathState, SentPacket,
};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::feedback::Feedback;
use rand::RngExt;

use super::{Event, Kind, Micros, Model, PACKET, Packet, SECOND};

const FRAME: Micros = SECOND / 30;
/// The receiver's clock began earlier.
const CLOCK_OFFSET: Micros = 7 * SECOND;
/// A frame is not begun while so much waits to leave.
const BACKLOG_MAX_MS: u128 = 150;

pub struct Media {
    flow: usize,
    keyframe_every: Option<f64>,
    source_max: u64,
    started: Option<Micros>,
    keyframe_next: Micros,
    /// The rate of one frame ago, which is what an encoder works by.
    target: u64,
    queue: VecDeque<Packet>,
    seq_next: u64,
    pace_at: Option<Micros>,
    estimator: Estimator,
    controller: Controller,
    pacer: Pacer,
    builder: FeedbackBuilder,
    report_at: Option<Micros>,
}

impl Media {
    pub fn new(flow: usize, keyframe_every: Option<f64>, source_max: u64) -> Self {
        let controller = Controller::new(ControllerConfig::default());
        Media {
            flow,
            keyframe_every,
            source_max,
            started: None,
            keyframe_next: 0,
            target: controller.rate(),
            queue: VecDeque::new(),
            seq_next: 0,
            pace_at: None,
            estimator: Estimator::default(),
            controller,
            pacer: Pacer::default(),
            builder: FeedbackBuilder::default(),
            report_at: None,
        }
    }

    /// Captures a frame and cuts it into packets.
    fn capture(&mut self, now: Micros, noise: f64) {
        let keyframe = now >= self.keyframe_next;
        let factor = if keyframe { 5.0 } else { noise };
        if keyframe {
            self.keyframe_next = self.keyframe_every.map_or(Micros::MAX, |s| now + (s * 1e6) as Micros);
        }
        let bytes = ((self.target as f64 / 8.0 / 30.0 * factor) as u32).max(100);
        let count = bytes.div_ceil(PACKET);
        let burst_end = self.seq_next + u64::from(count) - 1;
        for _ in 0..count {
            let seq = self.seq_next;
            self.seq_next += 1;
            let packet =
                Packet { flow: self.flow, seq, bytes: bytes / count, burst_end, captured: now, sent: 0 };
            self.pacer.enqueue(time(now), packet.bytes as usize);
            self.queue.push_back(packet);
        }
    }
}

fn time(now: Micros) -> Timestamp {
    Timestamp::from_micros(now)
}

impl Model {
    fn media(&mut self, flow: usize) -> &mut Media {
        match &mut self.flows[flow] {
            Kind::Media(media) => media,
            Kind::Cubic(_) => unreachable!("events of media go to media"),
        }
    }

    pub(super) fn media_tick(&mut self, flow: usize) {
        let now = self.now;
        let noise = 0.85 + 0.3 * self.rng.random::<f64>();
        self.at(now + FRAME, Event::Tick(flow));
        let media = self.media(flow);
        media.started.get_or_insert(now);
        let silence = media.estimator.silence(time(now));
        media.controller.on_silence(silence);
        media.pacer.set_rates(media.controller.rate(), media.controller.burst_rate());
        let full = media.pacer.drain_time(time(now)).as_millis() > BACKLOG_MAX_MS;
        let skip = full || matches!(media.controller.state(time(now)), PathState::Overfull);
        let target = media.pacer.source_rate().max(media.controller.rate() / 4).min(media.source_max);
        if !skip {
            media.capture(now, noise);
        }
        media.target = target;
        let rate = media.controller.rate();
        self.outcome.skipped[flow] += u64::from(skip);
        self.outcome.rates[flow].push((now, rate));
        self.media_pace(flow);
    }

    pub(super) fn media_pace(&mut self, flow: usize) {
        let now = self.now;
        loop {
            let media = self.media(flow);
            if media.pace_at.is_some_and(|at| at <= now) {
                media.pace_at = None;
            }
            let Some(packet) = media.queue.front().copied() else { return };
            let at = media.pacer.next_send(time(now)).as_micros();
            if at > now {
                if media.pace_at.is_none_or(|set| set > at) {
                    media.pace_at = Some(at);
                    self.at(at, Event::Pace(flow));
                }
                return;
            }
            media.queue.pop_front();
            media.pacer.on_sent(time(now), packet.bytes as usize);
            media.estimator.on_sent(SentPacket {
                tx_seq: packet.seq,
                at: time(now),
                bytes: packet.bytes,
                burst_end: packet.burst_end,
            });
            self.enter(Packet { sent: now, ..packet });
        }
    }

    pub(super) fn media_arrive(&mut self, packet: Packet) {
        let clock = time(self.now + CLOCK_OFFSET);
        let media = self.media(packet.flow);
        media.builder.on_packet(clock, packet.seq, packet.burst_end, packet.bytes as usize);
        self.media_report(packet.flow);
    }

    pub(super) fn media_report(&mut self, flow: usize) {
        let now = self.now;
        let media = self.media(flow);
        if media.report_at.is_some_and(|at| at <= now) {
            media.report_at = None;
        }
        let report = media.builder.poll_feedback(time(now + CLOCK_OFFSET), &[]);
        let due = media.builder.poll_timeout().map(|due| (due.as_micros() - CLOCK_OFFSET).max(now + 1));
        let due = due.filter(|due| media.report_at.is_none_or(|set| set > *due));
        if let Some(due) = due {
            media.report_at = Some(due);
            self.at(due, Event::Report(flow));
        }
        let Some(report) = report else { return };
        let bytes = report.encode();
        self.outcome.reports[flow].0 += 1;
        self.outcome.reports[flow].1 += bytes.len() as u64;
        if self.rng.random::<f64>() < self.link.return_loss || self.link.is_silent(now) {
            return;
        }
        let jitter = self.exponential(self.link.return_jitter_ms);
        let at = (now + self.link.owd_ms * 1000 + jitter).max(self.last_return[flow]);
        self.last_return[flow] = at;
        self.at(at, Event::Feedback(flow, bytes));
    }

    pub(super) fn media_feedback(&mut self, flow: usize, bytes: bytes::Bytes) {
        let now = time(self.now);
        let feedback = Feedback::decode(bytes).expect("our own report");
        let media = self.media(flow);
        media.estimator.on_feedback(now, &feedback).expect("an honest receiver");
        let Some(estimate) = media.estimator.estimate() else { return };
        media.controller.on_estimate(now, &estimate);
        media.pacer.set_rates(media.controller.rate(), media.controller.burst_rate());
        self.outcome.loss_estimates[flow] = estimate.loss_random;
        self.media_pace(flow);
    }
}
