//! If this fails, a peer can make a sender send more than the rate controller allows for, by what it says or by saying
//! nothing at all.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use parlor_transport::hop::{CodedFrame, HopReceiver, HopSender, SendStats};
use parlor_transport::id::StreamAlias;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::Delivery;
use parlor_transport::wire::feedback::{
    DEFICIT_MAX, FRAMES_MAX, Feedback, IncompleteFrame, Reception, TAIL_MAX,
};
use parlor_transport::wire::frame::{Frame, FrameHeader};
use parlor_transport::wire::hop::DATAGRAM_MAX;
use parlor_transport::wire::packet::Packet;
use rand::{RngExt, SeedableRng};

/// A packet's head, rounded up: a frame is cut into equal symbols of at least a thousand bytes where it is large; of a
/// voice packet it is as much as the sound.
const HEAD: u64 = 56;
const RTT: Duration = Duration::from_millis(50);
const STEP: Duration = Duration::from_micros(500);
/// 30 frames/s of 1 Mbit/s, a keyframe five times as large every 4 s.
const INTERVAL: Duration = Duration::from_micros(33_333);
const FRAME: usize = 4_032;
const KEYFRAME: usize = 5 * FRAME;
const VIDEO: u32 = 1;
/// Opus of 32 kbit/s.
const VOICE_INTERVAL: Duration = Duration::from_millis(20);
const VOICE_FRAME: usize = 80;
const VOICE: u32 = 2;

fn frame(number: u64, size: usize, keyframe: bool) -> CodedFrame {
    let header = FrameHeader {
        alias: StreamAlias(1),
        track: 0,
        spatial: 0,
        temporal: 0,
        number,
        captured: Timestamp::from_micros(number),
        keyframe,
        discardable: false,
        level: None,
        metadata: Bytes::new(),
    };
    Frame::new(header, &vec![number as u8; size]).unwrap().into()
}

fn steps(seconds: u64) -> u128 {
    Duration::from_secs(seconds).as_micros() / STEP.as_micros()
}

/// A sender with a camera and a microphone, and what left it.
struct Stage {
    sender: HopSender,
    now: Timestamp,
    start: Timestamp,
    video: u64,
    voice: u64,
    /// Payload handed in so far.
    handed: u64,
    /// The same with the heads of its packets.
    once: u64,
    /// What repair of all those frames may take, bytes, where four of five packets are lost.
    repairs_most: u64,
    /// What left in this step.
    left: Vec<(u64, Bytes)>,
    /// The integral of the controller's rate, bytes.
    allowed: f64,
    /// The highest rate so far, bits/s.
    rate_most: u64,
}

impl Stage {
    fn new() -> Self {
        let now = Timestamp::from_micros(1_000_000);
        Stage {
            sender: HopSender::default(),
            now,
            start: now,
            video: 0,
            voice: 0,
            handed: 0,
            once: 0,
            repairs_most: 0,
            left: Vec::new(),
            allowed: 0.0,
            rate_most: 0,
        }
    }

    /// What any caller does: hands in what is due if there is room, and sends what may leave.
    fn step(&mut self) {
        self.now += STEP;
        self.rate_most = self.rate_most.max(self.sender.rate());
        self.allowed += self.sender.rate() as f64 / 8.0 * STEP.as_secs_f64();
        while self.start + INTERVAL * self.video as u32 <= self.now {
            let keyframe = self.video.is_multiple_of(120);
            self.hand_in(VIDEO, self.video, if keyframe { KEYFRAME } else { FRAME }, keyframe);
            self.video += 1;
        }
        while self.start + VOICE_INTERVAL * self.voice as u32 <= self.now {
            self.hand_in(VOICE, self.voice, VOICE_FRAME, true);
            self.voice += 1;
        }
        self.left.clear();
        while let Some(packet) = self.sender.poll_transmit(self.now) {
            self.left.push((Packet::decode(packet.clone()).unwrap().tx_seq, packet));
        }
    }

    fn hand_in(&mut self, lane: u32, number: u64, size: usize, keyframe: bool) {
        let (now, urgent) = (self.now, lane == VOICE);
        if !self.sender.has_room(now, size, urgent) {
            return;
        }
        let frame = frame(number, size, keyframe);
        self.sender.send(now, lane, Delivery::Adaptive, urgent, &frame).unwrap();
        let size = size as u64;
        // Symbols of a thousand bytes would be more of them than there are.
        let symbols = size.div_ceil(1_000);
        self.handed += size;
        self.once += size + symbols * HEAD;
        self.repairs_most += 5 * (2 * symbols + 8) * (size / symbols * 5 / 4 + HEAD);
    }

    fn sent(&self) -> u64 {
        let SendStats { source, parity, repair, .. } = self.sender.stats();
        source + parity + repair
    }

    /// The rate is the least there is, and nothing piles up behind it.
    fn assert_broken(&self) {
        assert_eq!(self.sender.rate(), 50_000, "the rate fell to its floor");
        assert!(self.sender.is_overfull(self.now), "the breaker is open");
        // A keyframe of 20 kB takes 3.3 s at that rate, and no frame is handed in behind it.
        assert!(
            self.sender.queue_age(self.now) < Duration::from_secs(4),
            "{:?}",
            self.sender.queue_age(self.now)
        );
    }
}

/// How a peer lies.
#[derive(Clone, Copy, Debug)]
enum Liar {
    /// Nothing came but the last packet, and every frame lacks everything.
    LostAll,
    /// All packets came at once, and every frame lacks everything.
    GotAllWantsAll,
    /// Four of five are lost, the round trip is nothing, and every frame lacks everything.
    LostMost,
    /// Anything that can be written, seldom true.
    Raving,
}

impl Liar {
    fn report(self, rng: &mut impl RngExt, stage: &Stage, tx_seq: u64) -> Feedback {
        let mut feedback = Feedback::new(tx_seq, stage.now, Duration::ZERO);
        let is_missing = |back: u64| match self {
            Liar::LostAll => true,
            Liar::GotAllWantsAll => false,
            Liar::LostMost => !(tx_seq - back).is_multiple_of(5),
            Liar::Raving => back % 3 == 1,
        };
        feedback.older = (1..=tx_seq.min(255))
            .map(
                |back| {
                    if is_missing(back) { Reception::Missing } else { Reception::Received(Some(stage.now)) }
                },
            )
            .collect();
        feedback.tail = TAIL_MAX;
        feedback.lost = tx_seq;
        feedback.runs = tx_seq / 2;
        // Half of them of the picture, half of the sound; the newest and those before.
        let wanted = |of: u64, lane| {
            (0..FRAMES_MAX as u64 / 2).filter_map(move |back| {
                let sequence = of.checked_sub(back + 1)?;
                Some(IncompleteFrame { lane, track: 0, sequence, deficit: DEFICIT_MAX })
            })
        };
        feedback.frames = wanted(stage.video, VIDEO).chain(wanted(stage.voice, VOICE)).collect();
        if let Liar::Raving = self {
            feedback.highest = rng.random_range(0..=tx_seq + 2);
            feedback.arrived = Timestamp::from_micros(rng.random_range(0..1 << 40));
            feedback.hold = Duration::from_micros(rng.random_range(0..100_000));
            feedback.tail = rng.random_range(0..=TAIL_MAX);
            for frame in &mut feedback.frames {
                frame.sequence = frame.sequence.saturating_add(rng.random_range(0..200)).saturating_sub(100);
                frame.lane = rng.random_range(0..4);
            }
        }
        feedback
    }
}

/// No lie makes the sender send more than what it was given, once; parity of at most three symbols for each of those,
/// as each frame earns; and repair within two bounds. One is the rate: repair takes at most 1.04 of it (1.3 × the largest
/// loss that is believed, 0.8), and what that share may have saved up. The other is the frame's own: two symbols for each of
/// its own and eight more, and where four of five are lost five times that. Without the second, a peer that says it got all
/// that is sent, and still lacks every frame, makes the rate grow by what it is sent.
#[test]
fn whatever_a_peer_claims_it_gets_no_more_than_the_rate_and_its_frames_allow() {
    const PARITY_MAX: u64 = 3;
    const REPAIR_SHARE: f64 = 1.04;
    // 64 symbols of 1,150 bytes, or a quarter of a second of the share if that is more; and the packet with which it
    // is overdrawn.
    let saved =
        |rate: u64| (64.0 * 1150.0_f64).max(REPAIR_SHARE * rate as f64 / 8.0 * 0.25) + DATAGRAM_MAX as f64;
    for liar in [Liar::LostAll, Liar::GotAllWantsAll, Liar::LostMost, Liar::Raving] {
        for reports_a_step in [1, 8] {
            let mut rng = rand::rngs::Xoshiro256PlusPlus::seed_from_u64(7);
            let mut stage = Stage::new();
            let mut newest = None;
            for _ in 0..steps(10) {
                stage.step();
                newest = stage.left.last().map(|(tx_seq, _)| *tx_seq).or(newest);
                for _ in 0..reports_a_step {
                    let Some(tx_seq) = newest else { break };
                    let report = liar.report(&mut rng, &stage, tx_seq);
                    // As it would come out of a datagram, whatever its fields were.
                    if let Ok(report) = Feedback::decode(report.encode()) {
                        _ = stage.sender.handle_feedback(stage.now, &report);
                    }
                }
            }
            let stats = stage.sender.stats();
            let by_rate = REPAIR_SHARE * stage.allowed + saved(stage.rate_most);
            // Who says that nothing is lost is believed, and gets a fifth.
            let by_frames =
                stage.repairs_most as f64 * if let Liar::GotAllWantsAll = liar { 0.2 } else { 1.0 };
            let repair = stats.repair as f64;
            let what = format!(
                "{liar:?}, {reports_a_step} reports a step: {} bytes handed in, {stats:?}, rate up to {}, repair {:.2} of what \
                 the rate and {:.2} of what the frames allow",
                stage.handed,
                stage.rate_most,
                repair / by_rate,
                repair / by_frames,
            );
            println!("{what}");
            assert!(repair <= by_rate && repair <= by_frames, "{what}");
            // Voice carries its redundancy in the packet of the sound itself.
            assert!(stats.source + stats.parity <= (1 + PARITY_MAX) * stage.once, "{what}");
        }
    }
}

/// Who never reports gets what is sent on trust, a keyframe and some, and sound; after that the picture stops.
#[test]
fn who_never_reports_gets_sound_and_one_keyframe() {
    let mut stage = Stage::new();
    let seconds = 60;
    for _ in 0..steps(seconds) {
        stage.step();
    }
    // The picture: 32 KiB of trust, overdrawn by one frame at most. Sound: every frame of it.
    let bound = 32 * 1024 + KEYFRAME as u64 + HEAD * 32 + seconds * 50 * (VOICE_FRAME as u64 + HEAD);
    println!("{} of {bound}", stage.sent());
    assert!(stage.sent() <= bound, "{} of {bound}", stage.sent());
    stage.assert_broken();
}

/// Who stops reporting gets ever less: each time without a report halves the rate, to the least, at which sound goes
/// on. Before that everybody was honest.
#[test]
fn who_stops_reporting_gets_ever_less() {
    let mut stage = Stage::new();
    let mut receiver = HopReceiver::default();
    receiver.open_lane(VIDEO, Delivery::Adaptive);
    receiver.open_lane(VOICE, Delivery::Adaptive);
    let mut under_way = VecDeque::new();
    for _ in 0..steps(10) {
        stage.step();
        let now = stage.now;
        under_way.extend(stage.left.drain(..).map(|(_, packet)| (now + RTT, packet)));
        // The whole round trip lies before the receiver here; its reports take no time.
        while under_way.front().is_some_and(|(at, _)| *at <= now) {
            let (_, packet) = under_way.pop_front().unwrap();
            let bytes = packet.len();
            receiver.handle_packet(now, Packet::decode(packet).unwrap(), bytes).unwrap();
        }
        receiver.handle_timeout(now);
        while let Some(report) = receiver.poll_feedback(now) {
            stage.sender.handle_feedback(now, &report).unwrap();
        }
        while receiver.poll_output().is_some() {}
    }
    let (rate, before) = (stage.sender.rate(), stage.sent());
    assert!(rate > 1_000_000 && before > 1_000_000, "the call went well: {rate} bits/s, {before} bytes");
    let silent = 60;
    for _ in 0..steps(silent) {
        stage.step();
    }
    let sent = stage.sent() - before;
    // Until the first half second is over, all that the camera and the microphone make goes out: 1 Mbit/s and, there, at
    // most a keyframe. Then the rate is halved every half second: what it lets out in all is what it lets out in one
    // second of the old one; after that the least of 50 kbit/s, of which a pace is half as much again at most. The frame
    // that may always be handed in comes on top, and sound, which does not wait for the rate.
    let first = 1_250_000 / 8 / 2 + KEYFRAME as u64;
    let bound =
        first + rate / 8 + silent * 75_000 / 8 + KEYFRAME as u64 + silent * 50 * (VOICE_FRAME as u64 + HEAD);
    println!("{sent} of {bound}, rate was {rate}");
    assert!(sent <= bound, "{sent} of {bound}");
    stage.assert_broken();
    let late = stage.sent();
    for _ in 0..steps(20) {
        stage.step();
    }
    let sent = (stage.sent() - late) * 8 / 20;
    assert!(sent <= 75_000 + 50 * 8 * (VOICE_FRAME as u64 + HEAD), "{sent} bits/s after a minute of silence");
}
