//! The kernels for x86-64. `pshufb` looks up sixteen (AVX2: twice sixteen) nibbles at once.
#![expect(unsafe_code, reason = "SIMD loads and stores take pointers")]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_and_si128, _mm_loadu_si128, _mm_set1_epi8, _mm_shuffle_epi8, _mm_srli_epi64,
    _mm_storeu_si128, _mm_xor_si128, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_loadu_si256,
    _mm256_set1_epi8, _mm256_shuffle_epi8, _mm256_srli_epi64, _mm256_storeu_si256, _mm256_xor_si256,
};

#[target_feature(enable = "ssse3")]
pub(super) fn mul_add_ssse3(destination: &mut [u8], source: &[u8], table: &[u8; 32]) {
    let tables = halves(table);
    let (blocks, rest) = destination.as_chunks_mut();
    let (source_blocks, source_rest) = source.as_chunks();
    for (block, source) in blocks.iter_mut().zip(source_blocks) {
        store_16(block, _mm_xor_si128(load_16(block), times_16(tables, load_16(source))));
    }
    if !rest.is_empty() {
        // The last few bytes go through a whole block, of which only they are kept.
        let mut block = [0; 16];
        block[..rest.len()].copy_from_slice(source_rest);
        let product = times_16(tables, load_16(&block));
        store_16(&mut block, product);
        rest.iter_mut().zip(block).for_each(|(rest, product)| *rest ^= product);
    }
}

#[target_feature(enable = "ssse3")]
pub(super) fn mul_ssse3(destination: &mut [u8], table: &[u8; 32]) {
    let tables = halves(table);
    let (blocks, rest) = destination.as_chunks_mut();
    for block in blocks {
        store_16(block, times_16(tables, load_16(block)));
    }
    if !rest.is_empty() {
        let mut block = [0; 16];
        block[..rest.len()].copy_from_slice(rest);
        let product = times_16(tables, load_16(&block));
        store_16(&mut block, product);
        rest.copy_from_slice(&block[..rest.len()]);
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn mul_add_avx2(destination: &mut [u8], source: &[u8], table: &[u8; 32]) {
    let (low, high) = halves(table);
    let tables = (_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high));
    let (blocks, rest) = destination.as_chunks_mut();
    let (source_blocks, source_rest) = source.as_chunks();
    for (block, source) in blocks.iter_mut().zip(source_blocks) {
        store_32(block, _mm256_xor_si256(load_32(block), times_32(tables, load_32(source))));
    }
    if !rest.is_empty() {
        mul_add_ssse3(rest, source_rest, table);
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn mul_avx2(destination: &mut [u8], table: &[u8; 32]) {
    let (low, high) = halves(table);
    let tables = (_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high));
    let (blocks, rest) = destination.as_chunks_mut();
    for block in blocks {
        store_32(block, times_32(tables, load_32(block)));
    }
    if !rest.is_empty() {
        mul_ssse3(rest, table);
    }
}

/// The products with low and with high nibbles.
#[target_feature(enable = "sse2")]
fn halves(table: &[u8; 32]) -> (__m128i, __m128i) {
    let (halves, _) = table.as_chunks();
    (load_16(&halves[0]), load_16(&halves[1]))
}

#[target_feature(enable = "ssse3")]
fn times_16((low, high): (__m128i, __m128i), bytes: __m128i) -> __m128i {
    let nibble = _mm_set1_epi8(15);
    let of_low = _mm_shuffle_epi8(low, _mm_and_si128(bytes, nibble));
    // There is no shift of bytes: bits of the neighbour come in from above and are masked away.
    let of_high = _mm_shuffle_epi8(high, _mm_and_si128(_mm_srli_epi64::<4>(bytes), nibble));
    _mm_xor_si128(of_low, of_high)
}

#[target_feature(enable = "avx2")]
fn times_32((low, high): (__m256i, __m256i), bytes: __m256i) -> __m256i {
    let nibble = _mm256_set1_epi8(15);
    let of_low = _mm256_shuffle_epi8(low, _mm256_and_si256(bytes, nibble));
    let of_high = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi64::<4>(bytes), nibble));
    _mm256_xor_si256(of_low, of_high)
}

#[target_feature(enable = "sse2")]
fn load_16(block: &[u8; 16]) -> __m128i {
    // SAFETY: the reference covers the 16 bytes that are read, and `loadu` needs no alignment.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[target_feature(enable = "sse2")]
fn store_16(block: &mut [u8; 16], value: __m128i) {
    // SAFETY: the exclusive reference covers the 16 bytes that are written, and `storeu` needs no alignment.
    unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), value) }
}

#[target_feature(enable = "avx")]
fn load_32(block: &[u8; 32]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes that are read, and `loadu` needs no alignment.
    unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
}

#[target_feature(enable = "avx")]
fn store_32(block: &mut [u8; 32], value: __m256i) {
    // SAFETY: the exclusive reference covers the 32 bytes that are written, and `storeu` needs no alignment.
    unsafe { _mm256_storeu_si256(block.as_mut_ptr().cast(), value) }
}
