//! If this fails, products are wrong: every kernel must agree with the definition, wherever the bytes lie.

use super::*;

/// Bytes that repeat only after 251, so that no block looks like its neighbour.
fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|i| product_by_definition((i % 251) as u8 ^ seed, 0x53) ^ (i >> 8) as u8).collect()
}

#[test]
fn the_tables_follow_from_the_definition() {
    for a in 0..=255 {
        for b in 0..=255 {
            assert_eq!(product(a, b), product_by_definition(a, b), "{a} * {b}");
        }
        if a != 0 {
            assert_eq!(product(a, inverse(a)), 1, "1 / {a}");
        }
    }
    // The powers of 2 run through all 255 elements: 2 is primitive under 0x11d.
    assert_eq!((1..=255).find(|&n| power_of_two(n) == 1), Some(255));
    assert_eq!(power_of_two(8), 0x1d);
}

#[test]
fn a_table_of_nibbles_gives_every_product() {
    for kernel in Kernel::available() {
        for factor in 0..=255 {
            let mut bytes: Vec<u8> = (0..=255).collect();
            kernel.mul(&mut bytes, factor);
            for (byte, &found) in bytes.iter().enumerate() {
                assert_eq!(found, product(factor, byte as u8), "{kernel:?}: {factor} * {byte}");
            }
        }
    }
}

/// All lengths to beyond four of the widest blocks, at all places relative to the widest block.
#[test]
fn kernels_agree_at_every_length_and_alignment() {
    let source = pattern(1, 200);
    let before = pattern(2, 200);
    for kernel in Kernel::available() {
        for start in 0..33 {
            for length in 0..=130 {
                let factor = (start * 131 + length * 7) as u8;
                let range = start..start + length;
                // The source lies at another alignment than the destination.
                let source = &source[32 - start..32 - start + length];

                let mut sum = before.clone();
                kernel.mul_add(&mut sum[range.clone()], source, factor);
                let mut scaled = before.clone();
                kernel.mul(&mut scaled[range.clone()], factor);
                for i in 0..before.len() {
                    let (mut sum_expected, mut scaled_expected) = (before[i], before[i]);
                    if range.contains(&i) {
                        sum_expected ^= product(factor, source[i - start]);
                        scaled_expected = product(factor, before[i]);
                    }
                    assert_eq!(sum[i], sum_expected, "{kernel:?} mul_add, {range:?}, byte {i}");
                    assert_eq!(scaled[i], scaled_expected, "{kernel:?} mul, {range:?}, byte {i}");
                }
            }
        }
    }
}

#[test]
fn kernels_agree_on_every_factor_and_on_long_runs() {
    for factor in 0..=255 {
        for length in [130, 1088, 1091, 1000 + usize::from(factor) * 37] {
            let source = pattern(factor, length);
            let before = pattern(!factor, length);
            let mut sum_expected = before.clone();
            portable::mul_add(&mut sum_expected, &source, &NIBBLES[usize::from(factor)]);
            let mut scaled_expected = before.clone();
            portable::mul(&mut scaled_expected, &NIBBLES[usize::from(factor)]);
            for kernel in Kernel::available() {
                let mut sum = before.clone();
                kernel.mul_add(&mut sum, &source, factor);
                assert_eq!(sum, sum_expected, "{kernel:?} mul_add, factor {factor}, {length} bytes");
                let mut scaled = before.clone();
                kernel.mul(&mut scaled, factor);
                assert_eq!(scaled, scaled_expected, "{kernel:?} mul, factor {factor}, {length} bytes");
            }
        }
    }
}

#[test]
#[should_panic(expected = "one source byte for every destination byte")]
fn lengths_that_differ_are_refused_before_any_byte_is_touched() {
    mul_add(&mut [0; 3], &[0; 4], 1);
}
