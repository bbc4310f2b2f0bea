//! The kernel for aarch64. `tbl` looks up sixteen nibbles at once.
#![expect(unsafe_code, reason = "SIMD loads and stores take pointers")]

use std::arch::aarch64::{
    uint8x16_t, vandq_u8, vdupq_n_u8, veorq_u8, vld1q_u8, vqtbl1q_u8, vshrq_n_u8, vst1q_u8,
};

#[target_feature(enable = "neon")]
pub(super) fn mul_add_neon(destination: &mut [u8], source: &[u8], table: &[u8; 32]) {
    let tables = halves(table);
    let (blocks, rest) = destination.as_chunks_mut();
    let (source_blocks, source_rest) = source.as_chunks();
    for (block, source) in blocks.iter_mut().zip(source_blocks) {
        store(block, veorq_u8(load(block), times(tables, load(source))));
    }
    if !rest.is_empty() {
        // The last few bytes go through a whole block, of which only they are kept.
        let mut block = [0; 16];
        block[..rest.len()].copy_from_slice(source_rest);
        let product = times(tables, load(&block));
        store(&mut block, product);
        rest.iter_mut().zip(block).for_each(|(rest, product)| *rest ^= product);
    }
}

#[target_feature(enable = "neon")]
pub(super) fn mul_neon(destination: &mut [u8], table: &[u8; 32]) {
    let tables = halves(table);
    let (blocks, rest) = destination.as_chunks_mut();
    for block in blocks {
        store(block, times(tables, load(block)));
    }
    if !rest.is_empty() {
        let mut block = [0; 16];
        block[..rest.len()].copy_from_slice(rest);
        let product = times(tables, load(&block));
        store(&mut block, product);
        rest.copy_from_slice(&block[..rest.len()]);
    }
}

/// The products with low and with high nibbles.
#[target_feature(enable = "neon")]
fn halves(table: &[u8; 32]) -> (uint8x16_t, uint8x16_t) {
    let (halves, _) = table.as_chunks();
    (load(&halves[0]), load(&halves[1]))
}

#[target_feature(enable = "neon")]
fn times((low, high): (uint8x16_t, uint8x16_t), bytes: uint8x16_t) -> uint8x16_t {
    let of_low = vqtbl1q_u8(low, vandq_u8(bytes, vdupq_n_u8(15)));
    let of_high = vqtbl1q_u8(high, vshrq_n_u8::<4>(bytes));
    veorq_u8(of_low, of_high)
}

#[target_feature(enable = "neon")]
fn load(block: &[u8; 16]) -> uint8x16_t {
    // SAFETY: the reference covers the 16 bytes that are read; the instruction needs no alignment.
    unsafe { vld1q_u8(block.as_ptr()) }
}

#[target_feature(enable = "neon")]
fn store(block: &mut [u8; 16], value: uint8x16_t) {
    // SAFETY: the exclusive reference covers the 16 bytes that are written; the instruction needs no alignment.
    unsafe { vst1q_u8(block.as_mut_ptr(), value) }
}
