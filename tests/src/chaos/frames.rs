//! The frames of these calls: each says whose it is, which one it is, and proves that it came whole.

use parlor_client::Timestamp;

/// What a frame says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Label {
    /// The publisher.
    pub person: u8,
    /// Its stream: 0 the camera, 1 the screen.
    pub stream: u8,
    /// Which of all publications of the run.
    pub publication: u32,
    /// Counts the frames of a publication.
    pub number: u32,
    /// When it was made, on the clock that all share in a simulation.
    pub made: Timestamp,
}

/// One packet, sound or picture, headers included.
const BYTES: usize = 90;
const LABEL: usize = 18;

impl Label {
    /// The frame: the label, a filling, and a hash of both.
    pub fn frame(&self) -> Vec<u8> {
        let mut bytes = vec![self.person, self.stream];
        bytes.extend(self.publication.to_be_bytes());
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.made.as_micros().to_be_bytes());
        bytes.extend((LABEL..BYTES - 8).map(|at| at as u8 ^ self.number as u8));
        let hash = fnv(&bytes);
        bytes.extend(hash.to_be_bytes());
        bytes
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// When it is not what was sent.
    pub fn read(frame: &[u8]) -> Result<Self, String> {
        let bad = || format!("a frame of {} bytes is not as it was sent", frame.len());
        let (content, hash) = frame.split_last_chunk::<8>().ok_or_else(bad)?;
        if frame.len() != BYTES || fnv(content) != u64::from_be_bytes(*hash) {
            return Err(bad());
        }
        let number = |from: usize| u32::from_be_bytes(content[from..from + 4].try_into().unwrap_or_default());
        let (high, low) = (u64::from(number(10)), u64::from(number(14)));
        Ok(Label {
            person: content[0],
            stream: content[1],
            publication: number(2),
            number: number(6),
            made: Timestamp::from_micros(high << 32 | low),
        })
    }
}

/// FNV-1a, also of the log.
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
