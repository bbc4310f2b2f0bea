//! One bulk TCP flow with Cubic (RFC 9438) and nothing more: slow start without HyStart, fast
//! recovery on a gap of three, a retransmission timeout of a second, an ack for every packet.

use std::collections::BTreeMap;

use super::{Micros, PACKET, Packet, SECOND};

const BETA: f64 = 0.7;
const C: f64 = 0.4;

pub struct Cubic {
    flow: usize,
    stop: Micros,
    next: u64,
    window: f64,
    threshold: f64,
    window_max: f64,
    epoch: Option<Micros>,
    in_flight: BTreeMap<u64, Micros>,
    /// Losses before this packet belong to the last reduction.
    recovery_end: u64,
    rtt: f64,
    last_ack: Micros,
    timer: Micros,
}

impl Cubic {
    pub fn new(flow: usize, stop: f64) -> Self {
        Cubic {
            flow,
            stop: (stop * 1e6) as Micros,
            next: 0,
            window: 10.0,
            threshold: f64::INFINITY,
            window_max: 0.0,
            epoch: None,
            in_flight: BTreeMap::new(),
            recovery_end: 0,
            rtt: 0.1,
            last_ack: 0,
            timer: 0,
        }
    }

    pub fn next(&mut self, now: Micros) -> Option<Packet> {
        if !self.in_flight.is_empty() && now > self.last_ack + SECOND {
            self.in_flight.clear();
            self.threshold = self.window / 2.0;
            self.window = 2.0;
            self.last_ack = now;
        }
        if now >= self.stop || self.in_flight.len() as f64 >= self.window {
            return None;
        }
        if self.in_flight.is_empty() {
            self.last_ack = now;
        }
        let seq = self.next;
        self.next += 1;
        self.in_flight.insert(seq, now);
        Some(Packet { flow: self.flow, seq, bytes: PACKET, burst_end: seq, captured: now, sent: now })
    }

    /// When to look again if no ack comes; once for each second.
    pub fn timeout(&mut self) -> Option<Micros> {
        let at = self.last_ack + SECOND + 1;
        (at > self.timer + SECOND / 2).then(|| {
            self.timer = at;
            at
        })
    }

    pub fn on_ack(&mut self, now: Micros, seq: u64) {
        self.last_ack = now;
        if let Some(sent) = self.in_flight.remove(&seq) {
            self.rtt += ((now - sent) as f64 / 1e6 - self.rtt) / 8.0;
        }
        let lost: Vec<u64> = self.in_flight.range(..seq.saturating_sub(2)).map(|(seq, _)| *seq).collect();
        for seq in &lost {
            self.in_flight.remove(seq);
        }
        if lost.iter().any(|seq| *seq >= self.recovery_end) {
            self.window_max =
                if self.window < self.window_max { self.window * (1.0 + BETA) / 2.0 } else { self.window };
            self.window = (self.window * BETA).max(2.0);
            self.threshold = self.window;
            self.recovery_end = self.next;
            self.epoch = None;
        } else if seq >= self.recovery_end || self.window < self.threshold {
            self.grow(now);
        }
    }

    fn grow(&mut self, now: Micros) {
        if self.window < self.threshold {
            self.window += 1.0;
            return;
        }
        let start = *self.epoch.get_or_insert(now);
        let t = (now - start) as f64 / 1e6;
        let k = ((self.window_max - self.window_max * BETA).max(0.0) / C).cbrt();
        let target = (C * (t + self.rtt - k).powi(3) + self.window_max).clamp(self.window, 1.5 * self.window);
        let reno = self.window_max * BETA + 3.0 * (1.0 - BETA) / (1.0 + BETA) * t / self.rtt;
        if reno > target {
            self.window += (reno - self.window).max(0.0) / self.window;
        } else {
            self.window += (target - self.window) / self.window;
        }
    }
}
