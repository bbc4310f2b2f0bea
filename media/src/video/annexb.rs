//! H.264 byte streams: NAL units between start codes (Annex B), and the same units as MP4 files hold them.
//!
//! Only splitting and wrapping; no field of a picture is interpreted.

/// The type of a NAL unit, the low five bits of its first byte.
pub(crate) mod nal {
    /// A mark between access units.
    pub(crate) const DELIMITER: u8 = 9;
    /// A sequence parameter set.
    pub(crate) const SPS: u8 = 7;
    /// A picture parameter set.
    pub(crate) const PPS: u8 = 8;
}

/// The NAL units of an Annex B stream, without start codes and trailing zero bytes; nothing for bytes without a start
/// code.
pub(crate) fn units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = find_start(stream).map_or(&[][..], |at| &stream[at + 3..]);
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let (unit, next) = match find_start(rest) {
                Some(at) => (&rest[..at], &rest[at + 3..]),
                None => (rest, &[][..]),
            };
            rest = next;
            let end = unit.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            if end > 0 {
                return Some(&unit[..end]);
            }
        }
    })
}

/// The type of a unit that [`units`] gave.
pub(crate) fn unit_type(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |first| first & 0x1F)
}

/// Appends `unit` with a four-byte start code.
pub(crate) fn append(stream: &mut Vec<u8>, unit: &[u8]) {
    stream.extend_from_slice(&[0, 0, 0, 1]);
    stream.extend_from_slice(unit);
}

/// Where the next `00 00 01` begins.
fn find_start(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|window| window == [0, 0, 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn splits_three_and_four_byte_start_codes() {
        let stream = [9, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 0, 0, 1, 0, 0, 0, 1, 0x65, 7, 0, 0];
        let found: Vec<&[u8]> = units(&stream).collect();
        assert_eq!(found, [&[0x67, 1][..], &[0x68], &[0x65, 7]]);
        assert_eq!(found.iter().map(|unit| unit_type(unit)).collect::<Vec<_>>(), [nal::SPS, nal::PPS, 5]);
        assert_eq!(units(&[1, 2, 3]).count(), 0);
        assert_eq!(unit_type(&[]), 0);
    }

    proptest! {
        #[test]
        fn appended_units_come_back(parts: Vec<Vec<u8>>) {
            // A real unit holds no start code and does not end in zero: emulation prevention sees to it.
            let parts: Vec<Vec<u8>> = parts.into_iter().map(|p| p.into_iter().map(|b| b | 1 << 3).collect()).filter(|p: &Vec<u8>| !p.is_empty()).collect();
            let mut stream = Vec::new();
            parts.iter().for_each(|part| append(&mut stream, part));
            prop_assert_eq!(units(&stream).collect::<Vec<_>>(), parts);
        }

        #[test]
        fn any_bytes_split(bytes: Vec<u8>) {
            prop_assert!(units(&bytes).all(|unit| !unit.is_empty()));
        }
    }
}
