//! Variable-length integers as in RFC 9000, section 16: 1, 2, 4 or 8 bytes, values below 2^62.

use bytes::{Buf, BufMut};

use super::WireError;

/// The largest value.
pub const MAX: u64 = (1 << 62) - 1;

/// Appends `value`.
///
/// # Panics
/// When `value` is above [`MAX`]; every caller's values are bounded far below it.
pub fn put(buffer: &mut impl BufMut, value: u64) {
    match value {
        0..=0x3f => buffer.put_u8(value as u8),
        0x40..=0x3fff => buffer.put_u16(1 << 14 | value as u16),
        0x4000..=0x3fff_ffff => buffer.put_u32(2 << 30 | value as u32),
        0x4000_0000..=MAX => buffer.put_u64(3 << 62 | value),
        _ => panic!("a varint holds at most 62 bits"),
    }
}

/// How many bytes [`put`] appends for `value`.
pub const fn size(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Reads a value from the front of `buffer`; `what` names it in the error.
///
/// # Errors
/// [`WireError::Truncated`]; `buffer` is then unchanged.
pub fn get(buffer: &mut impl Buf, what: &'static str) -> Result<u64, WireError> {
    let first = *buffer.chunk().first().ok_or(WireError::Truncated { what })?;
    let length = 1usize << (first >> 6);
    if buffer.remaining() < length {
        return Err(WireError::Truncated { what });
    }
    Ok(match length {
        1 => u64::from(buffer.get_u8() & 0x3f),
        2 => u64::from(buffer.get_u16() & 0x3fff),
        4 => u64::from(buffer.get_u32() & 0x3fff_ffff),
        _ => buffer.get_u64() & MAX,
    })
}

/// [`get`] with an upper bound.
///
/// # Errors
/// [`WireError::Truncated`], or [`WireError::TooLarge`] above `max`.
pub fn get_bounded(buffer: &mut impl Buf, what: &'static str, max: u64) -> Result<u64, WireError> {
    let value = get(buffer, what)?;
    if value > max {
        return Err(WireError::TooLarge { what, value, max });
    }
    Ok(value)
}

/// Reads one byte.
pub(crate) fn get_u8(buffer: &mut impl Buf, what: &'static str) -> Result<u8, WireError> {
    if buffer.has_remaining() { Ok(buffer.get_u8()) } else { Err(WireError::Truncated { what }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_9000_appendix_a() {
        let examples: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (mut bytes, value) in examples {
            assert_eq!(get(&mut bytes, "example"), Ok(value));
            assert!(bytes.is_empty());
        }
    }

    #[test]
    fn every_size_boundary_reads_back() {
        for value in [0, 0x3f, 0x40, 0x3fff, 0x4000, 0x3fff_ffff, 0x4000_0000, MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(bytes.len(), size(value));
            for cut in 0..bytes.len() {
                assert_eq!(get(&mut &bytes[..cut], "value"), Err(WireError::Truncated { what: "value" }));
            }
            assert_eq!(get(&mut bytes.as_slice(), "value"), Ok(value));
        }
    }
}
