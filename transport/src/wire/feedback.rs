//! The feedback datagram: what a receiver says of the media datagrams that reached it.
//!
//! It serves two masters: repair learns which packets and frames are missing, rate control learns
//! when packets arrived. When one is sent is decided in [`rate::receive`](crate::rate::receive);
//! what follows from one is decided by the sender ([`rate::estimate`](crate::rate::estimate)).
//!
//! Every media datagram of a connection and direction carries a number, its `tx_seq`, one higher
//! than the last. A report covers the packet `highest` and up to [`OLDER_MAX`] packets before it;
//! reports overlap, so that losing one loses nothing. In order, all integers varints unless said:
//!
//! | field | meaning |
//! |---|---|
//! | kind | one byte, `0x05` |
//! | highest | the highest `tx_seq` that arrived |
//! | arrived | when it arrived, µs on the receiver's clock, exact |
//! | hold | µs from then until this report was made, at most [`HOLD_MAX`] |
//! | tail | so many packets after `highest` are missing too: their burst should have ended by now; at most [`TAIL_MAX`] |
//! | older | how many packets before `highest` are covered, at most [`OLDER_MAX`] |
//! | bitmap | `older` bits in whole bytes, lowest bit first: bit 0 of byte 0 is `highest − 1`; 1 = arrived; spare bits are 0 |
//! | timed | how many of the ones in the bitmap, from the newest on, have a time |
//! | times | `timed` differences in units of 250 µs, zigzag (0, −1, 1, −2, …), each how much *earlier* the packet arrived than the one listed before it (the first: than `highest`), within ±[`STEP_MAX`] |
//! | lost | how many packets never came, since the connection began, those still awaited not counted |
//! | runs | in how many runs of neighbouring numbers those were lost; at most `lost` |
//! | frames | how many incomplete frames follow, at most [`FRAMES_MAX`] |
//! | each frame | lane, track (one byte), hop sequence, and how many more symbols are needed to complete it, 1 to [`DEFICIT_MAX`] |
//!
//! Nothing follows. Bounded so, a report has at most 1,090 bytes; an ordinary one has 40 to 80.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::frame::TRACKS_MAX;
use super::hop::{DATAGRAM_MAX, LANE_MAX};
use super::{WireError, varint};
use crate::units::Timestamp;

/// First byte of a feedback datagram.
pub const KIND_FEEDBACK: u8 = 0x05;
/// The most packets before the highest that one report covers: two seconds of 1 Mbit/s.
pub const OLDER_MAX: usize = 255;
/// The most packets after the highest that a report may call missing: more than the largest frame has.
pub const TAIL_MAX: u64 = 1024;
/// A report is never held for longer; after that it would say nothing of the path.
pub const HOLD_MAX: Duration = Duration::from_secs(60);
/// The largest difference between two arrival times in a report, in units (2 s): it fits two bytes.
pub const STEP_MAX: i64 = 8191;
/// The most incomplete frames in one report: a second of one picture, or one frame each of 32.
pub const FRAMES_MAX: usize = 32;
/// The largest deficit: above the symbols of the largest object.
pub const DEFICIT_MAX: u64 = 1023;

/// The unit of arrival times: fine enough for queues of milliseconds, coarse enough for one byte.
const UNIT_US: i64 = 250;

/// What is known of one packet before the highest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reception {
    /// It has not arrived.
    Missing,
    /// It arrived; the time, on the receiver's clock to 250 µs, only if it is recent.
    Received(Option<Timestamp>),
}

/// A frame that some symbols have reached, but not enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IncompleteFrame {
    /// The publication or play, at most [`LANE_MAX`].
    pub lane: u32,
    /// The track within it, below [`TRACKS_MAX`].
    pub track: u8,
    /// The frame's hop sequence.
    pub sequence: u64,
    /// How many more useful symbols complete it, 1 to [`DEFICIT_MAX`].
    pub deficit: u64,
}

/// One report. [`encode`](Self::encode) brings every field within its bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feedback {
    /// The highest `tx_seq` that arrived.
    pub highest: u64,
    /// When it arrived, on the receiver's clock.
    pub arrived: Timestamp,
    /// From then until this report was made.
    pub hold: Duration,
    /// So many packets after `highest` are missing as well.
    pub tail: u64,
    /// The packets before `highest`, newest first: `older[0]` is `highest − 1`.
    pub older: Vec<Reception>,
    /// Packets that never came, since the connection began.
    pub lost: u64,
    /// In how many runs of neighbouring numbers they were lost.
    pub runs: u64,
    /// Frames that need more symbols, the most urgent first.
    pub frames: Vec<IncompleteFrame>,
}

impl Feedback {
    /// A report of one packet and nothing else.
    pub fn new(highest: u64, arrived: Timestamp, hold: Duration) -> Self {
        Feedback { highest, arrived, hold, tail: 0, older: Vec::new(), lost: 0, runs: 0, frames: Vec::new() }
    }

    /// Every packet before and including the highest that the report covers, newest first.
    pub fn packets(&self) -> impl Iterator<Item = (u64, Reception)> {
        let highest = Reception::Received(Some(self.arrived));
        let older =
            (1..).zip(&self.older).map_while(|(back, &it)| Some((self.highest.checked_sub(back)?, it)));
        std::iter::once((self.highest, highest)).chain(older)
    }

    /// The last packet of which the report says something.
    pub fn covered(&self) -> u64 {
        self.highest.saturating_add(self.tail)
    }

    /// The report as a datagram of at most [`DATAGRAM_MAX`] bytes. What is beyond a bound is left
    /// out (the oldest packets and times, the last frames) or brought to it.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        let covered = self.older.len().min(OLDER_MAX).min(self.highest as usize);
        let older = &self.older[..covered];
        out.put_u8(KIND_FEEDBACK);
        varint::put(&mut out, self.highest.min(varint::MAX));
        varint::put(&mut out, self.arrived.as_micros().min(varint::MAX));
        varint::put(&mut out, self.hold.min(HOLD_MAX).as_micros() as u64);
        varint::put(&mut out, self.tail.min(TAIL_MAX));
        varint::put(&mut out, older.len() as u64);
        for eight in older.chunks(8) {
            let bits = eight.iter().enumerate().map(|(bit, it)| u8::from(*it != Reception::Missing) << bit);
            out.put_u8(bits.sum());
        }
        let steps = self.steps(older);
        varint::put(&mut out, steps.len() as u64);
        for step in steps {
            varint::put(&mut out, zigzag(step));
        }
        varint::put(&mut out, self.lost.min(varint::MAX));
        varint::put(&mut out, self.runs.min(self.lost).min(varint::MAX));
        let frames = &self.frames[..self.frames.len().min(FRAMES_MAX)];
        varint::put(&mut out, frames.len() as u64);
        for frame in frames {
            varint::put(&mut out, frame.lane.min(LANE_MAX).into());
            out.put_u8(frame.track.min(TRACKS_MAX - 1));
            varint::put(&mut out, frame.sequence.min(varint::MAX));
            varint::put(&mut out, frame.deficit.clamp(1, DEFICIT_MAX));
        }
        debug_assert!(out.len() <= DATAGRAM_MAX, "the bounds add up to less");
        out.freeze()
    }

    /// Times from the newest on, up to the first packet without one or too far from its neighbour.
    /// Rounded against `arrived`, not against the neighbour, so that errors do not add up.
    fn steps(&self, older: &[Reception]) -> Vec<i64> {
        let mut last = 0;
        let received = older.iter().filter_map(|it| match it {
            Reception::Missing => None,
            Reception::Received(time) => Some(time),
        });
        received
            .map_while(|time| {
                let units =
                    self.arrived.signed_since((*time)?).saturating_add(UNIT_US / 2).div_euclid(UNIT_US);
                let step = units.saturating_sub(last);
                last = units;
                (step.abs() <= STEP_MAX).then_some(step)
            })
            .collect()
    }

    /// Reads a feedback datagram.
    ///
    /// # Errors
    /// [`WireError`] when it is not one, is cut short, has bytes left over or a field out of range.
    pub fn decode(mut bytes: Bytes) -> Result<Self, WireError> {
        let kind = varint::get_u8(&mut bytes, "datagram kind")?;
        if kind != KIND_FEEDBACK {
            return Err(WireError::invalid("datagram kind", format!("{kind:#04x} is not feedback")));
        }
        let highest = varint::get(&mut bytes, "highest packet")?;
        let arrived = Timestamp::from_micros(varint::get(&mut bytes, "arrival time")?);
        let hold = varint::get_bounded(&mut bytes, "hold time", HOLD_MAX.as_micros() as u64)?;
        let tail = varint::get_bounded(&mut bytes, "missing tail", TAIL_MAX)?;
        let covered =
            varint::get_bounded(&mut bytes, "packets covered", highest.min(OLDER_MAX as u64))? as usize;
        let mut older = get_bitmap(&mut bytes, covered)?;
        get_times(&mut bytes, arrived, &mut older)?;
        let lost = varint::get(&mut bytes, "packets lost")?;
        let runs = varint::get_bounded(&mut bytes, "loss runs", lost)?;
        let count = varint::get_bounded(&mut bytes, "incomplete frames", FRAMES_MAX as u64)?;
        let frames = (0..count).map(|_| IncompleteFrame::decode(&mut bytes)).collect::<Result<_, _>>()?;
        if bytes.has_remaining() {
            return Err(WireError::invalid("feedback", format!("{} bytes too many", bytes.len())));
        }
        Ok(Feedback { highest, arrived, hold: Duration::from_micros(hold), tail, older, lost, runs, frames })
    }
}

impl IncompleteFrame {
    fn decode(bytes: &mut Bytes) -> Result<Self, WireError> {
        let lane = varint::get_bounded(bytes, "lane", LANE_MAX.into())? as u32;
        let track = varint::get_u8(bytes, "track")?;
        if track >= TRACKS_MAX {
            let max = u64::from(TRACKS_MAX - 1);
            return Err(WireError::TooLarge { what: "track", value: track.into(), max });
        }
        let sequence = varint::get(bytes, "hop sequence")?;
        let deficit = varint::get_bounded(bytes, "deficit", DEFICIT_MAX)?;
        if deficit == 0 {
            return Err(WireError::invalid("deficit", "0 for an incomplete frame"));
        }
        Ok(IncompleteFrame { lane, track, sequence, deficit })
    }
}

fn get_bitmap(bytes: &mut Bytes, covered: usize) -> Result<Vec<Reception>, WireError> {
    let length = covered.div_ceil(8);
    if bytes.len() < length {
        return Err(WireError::Truncated { what: "receive bitmap" });
    }
    let bitmap = bytes.split_to(length);
    let bit = |at: usize| bitmap[at / 8] >> (at % 8) & 1 == 1;
    if (covered..length * 8).any(bit) {
        return Err(WireError::invalid("receive bitmap", "a spare bit is set"));
    }
    Ok((0..covered).map(|at| if bit(at) { Reception::Received(None) } else { Reception::Missing }).collect())
}

fn get_times(bytes: &mut Bytes, arrived: Timestamp, older: &mut [Reception]) -> Result<(), WireError> {
    let received = older.iter().filter(|it| **it != Reception::Missing).count();
    let timed = varint::get_bounded(bytes, "arrival times", received as u64)? as usize;
    let mut units = 0;
    for reception in older.iter_mut().filter(|it| **it != Reception::Missing).take(timed) {
        let step = unzigzag(varint::get(bytes, "arrival time")?);
        if step.abs() > STEP_MAX {
            return Err(WireError::invalid("arrival time", "more than 2 s from its neighbour"));
        }
        units += step;
        *reception = Reception::Received(Some(arrived.offset_by(-units * UNIT_US)));
    }
    Ok(())
}

/// 0, −1, 1, −2 … as 0, 1, 2, 3 …
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn example() -> Feedback {
        Feedback {
            tail: 3,
            older: vec![
                Reception::Received(Some(at(1_000_000 - 1000))),
                Reception::Missing,
                Reception::Received(Some(at(1_000_000 + 500))),
                Reception::Received(None),
            ],
            lost: 5,
            runs: 2,
            frames: vec![IncompleteFrame { lane: 1, track: 2, sequence: 70, deficit: 4 }],
            ..Feedback::new(100, at(1_000_000), Duration::from_micros(50))
        }
    }

    #[test]
    fn byte_by_byte_as_documented() {
        let bytes = example().encode();
        let expected: &[u8] = &[
            5, // kind
            0x40, 100, // highest
            0x80, 0x0f, 0x42, 0x40,   // arrived
            50,     // hold
            3,      // tail
            4,      // older
            0b1101, // bitmap: 99, 97 and 96 arrived, 98 is missing
            2,      // timed
            8,      // 99 came 4 units before 100
            11,     // 97 came 6 units after 99
            5, 2, // lost, runs
            1, 1, 2, 0x40, 70, 4, // one frame
        ];
        assert_eq!(bytes, expected);
        assert_eq!(Feedback::decode(bytes), Ok(example()));
        let seqs: Vec<u64> = example().packets().map(|(seq, _)| seq).collect();
        assert_eq!((seqs, example().covered()), (vec![100, 99, 98, 97, 96], 103));
    }

    #[test]
    fn every_cut_and_every_byte_too_many_is_refused() {
        let bytes = example().encode();
        for cut in 0..bytes.len() {
            assert!(Feedback::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        assert!(Feedback::decode([&bytes[..], &[0]].concat().into()).is_err());
        for (at, bad) in [(0, 2), (10, 0x1d), (11, 4), (15, 6), (16, 33), (18, TRACKS_MAX), (21, 0)] {
            let mut wrong = bytes.to_vec();
            wrong[at] = bad;
            assert!(Feedback::decode(wrong.into()).is_err(), "byte {at} = {bad}");
        }
    }

    #[test]
    fn a_report_cannot_cover_packets_before_the_first() {
        let mut feedback = Feedback::new(2, at(9), Duration::ZERO);
        feedback.older = vec![Reception::Missing; 5];
        assert_eq!(Feedback::decode(feedback.encode()).unwrap().older.len(), 2);
        assert_eq!(feedback.packets().count(), 3);
    }

    #[test]
    fn the_longest_report_fits_a_datagram() {
        let frame = IncompleteFrame { lane: u32::MAX, track: 255, sequence: u64::MAX, deficit: u64::MAX };
        let longest = Feedback {
            tail: u64::MAX,
            older: (0..900)
                .map(|i| Reception::Received(Some(at(1 << 60) - Duration::from_secs(2 * i))))
                .collect(),
            lost: u64::MAX,
            runs: u64::MAX,
            frames: vec![frame; 100],
            ..Feedback::new(u64::MAX, at(1 << 60), Duration::MAX)
        };
        let bytes = longest.encode();
        assert!(bytes.len() <= 1090, "{} bytes", bytes.len());
        let back = Feedback::decode(bytes).unwrap();
        assert_eq!((back.older.len(), back.frames.len(), back.hold), (OLDER_MAX, FRAMES_MAX, HOLD_MAX));
    }

    #[test]
    fn a_time_too_far_from_its_neighbour_ends_the_list_of_times() {
        let mut feedback = Feedback::new(9, at(10_000_000), Duration::ZERO);
        feedback.older = [9_999_000, 1_000, 0].map(|micros| Reception::Received(Some(at(micros)))).to_vec();
        let back = Feedback::decode(feedback.encode()).unwrap();
        assert_eq!(back.older[0], feedback.older[0]);
        assert_eq!(back.older[1..], [Reception::Received(None); 2]);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_report_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for head in [vec![], vec![KIND_FEEDBACK], vec![KIND_FEEDBACK, 0x7f, 0xff, 9, 9, 9]] {
                if let Ok(feedback) = Feedback::decode([head, bytes.clone()].concat().into()) {
                    prop_assert!(feedback.encode().len() <= DATAGRAM_MAX);
                }
            }
        }

        #[test]
        fn what_was_written_is_read(
            highest in 300u64..varint::MAX,
            arrivals in proptest::collection::vec(proptest::option::of(0i64..400_000), 0..OLDER_MAX),
        ) {
            let newest = at(50_000_000);
            let mut feedback = Feedback::new(highest, newest, Duration::from_micros(1234));
            feedback.older = arrivals
                .iter()
                .map(|ago| ago.map_or(Reception::Missing, |ago| Reception::Received(Some(newest.offset_by(-ago)))))
                .collect();
            let back = Feedback::decode(feedback.encode()).unwrap();
            prop_assert_eq!(back.older.len(), feedback.older.len());
            for (sent, read) in feedback.older.iter().zip(&back.older) {
                match (sent, read) {
                    (Reception::Received(Some(sent)), Reception::Received(Some(read))) => {
                        prop_assert!(sent.signed_since(*read).abs() <= UNIT_US / 2);
                    }
                    (sent, read) => prop_assert_eq!(sent, read),
                }
            }
        }
    }
}
