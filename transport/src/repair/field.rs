//! Arithmetic on runs of bytes in GF(2^8), the field of polynomial `x^8 + x^4 + x^3 + x^2 + 1` (0x11d):
//! all the work of the code on data is done by [`mul_add`] and [`mul`]. It knows nothing of frames.
//!
//! The product of a byte and a constant is the sum of two table entries, one for each half of the byte
//! (`NIBBLES`), and looking up sixteen entries at once is one instruction on x86-64 (SSSE3, AVX2) and on
//! aarch64 (NEON). What the machine can do is found out at run time; a portable kernel is always there.

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Powers of 2 in the field, twice over, so that the sum of two logarithms needs no reduction.
const POWERS: [u8; 510] = powers();
/// `LOGARITHMS[POWERS[n]] == n` for n below 255; the entry of 0 has no meaning.
const LOGARITHMS: [u8; 256] = logarithms();
/// For each constant its products with 0x00..=0x0f, then with 0x00, 0x10 ..= 0xf0.
static NIBBLES: [[u8; 32]; 256] = nibbles();

/// The product of two elements.
pub const fn product(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    POWERS[LOGARITHMS[a as usize] as usize + LOGARITHMS[b as usize] as usize]
}

/// The element whose product with `a` is 1. That of 0, which has none, is given as 1.
pub const fn inverse(a: u8) -> u8 {
    POWERS[255 - LOGARITHMS[a as usize] as usize]
}

/// 2 to the power of `exponent`.
pub const fn power_of_two(exponent: usize) -> u8 {
    POWERS[exponent % 255]
}

/// `destination += factor * source`, byte by byte, on the best kernel of this machine.
///
/// # Panics
/// When the lengths differ.
pub fn mul_add(destination: &mut [u8], source: &[u8], factor: u8) {
    Kernel::best().mul_add(destination, source, factor);
}

/// `destination *= factor`, byte by byte, on the best kernel of this machine.
pub fn mul(destination: &mut [u8], factor: u8) {
    Kernel::best().mul(destination, factor);
}

/// One way of doing the arithmetic. A value exists only where the machine can run it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel(Isa);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Ssse3,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Kernel {
    /// The fastest kernel of this machine. Asking costs a load: the answer is remembered.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2") {
                return Kernel(Isa::Avx2);
            }
            if std::arch::is_x86_feature_detected!("ssse3") {
                return Kernel(Isa::Ssse3);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            return Kernel(Isa::Neon);
        }
        Kernel(Isa::Portable)
    }

    /// Every kernel that this machine can run, the portable one first.
    pub fn available() -> Vec<Self> {
        let mut kernels = vec![Kernel(Isa::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("ssse3") {
                kernels.push(Kernel(Isa::Ssse3));
            }
            if std::arch::is_x86_feature_detected!("avx2") {
                kernels.push(Kernel(Isa::Avx2));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            kernels.push(Kernel(Isa::Neon));
        }
        kernels
    }

    /// See [`mul_add`].
    ///
    /// # Panics
    /// When the lengths differ.
    #[allow(unsafe_code, reason = "calls of kernels; none on machines that have only the portable one")]
    pub fn mul_add(self, destination: &mut [u8], source: &[u8], factor: u8) {
        assert_eq!(destination.len(), source.len(), "one source byte for every destination byte");
        let table = &NIBBLES[usize::from(factor)];
        match self.0 {
            Isa::Portable => portable::mul_add(destination, source, table),
            // SAFETY: a `Kernel` of this kind is made only after the feature was detected.
            #[cfg(target_arch = "x86_64")]
            Isa::Ssse3 => unsafe { x86::mul_add_ssse3(destination, source, table) },
            // SAFETY: a `Kernel` of this kind is made only after the feature was detected.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { x86::mul_add_avx2(destination, source, table) },
            // SAFETY: a `Kernel` of this kind is made only after the feature was detected.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => unsafe { arm::mul_add_neon(destination, source, table) },
        }
    }

    /// See [`mul`].
    #[allow(unsafe_code, reason = "calls of kernels; none on machines that have only the portable one")]
    pub fn mul(self, destination: &mut [u8], factor: u8) {
        let table = &NIBBLES[usize::from(factor)];
        match self.0 {
            Isa::Portable => portable::mul(destination, table),
            // SAFETY: a `Kernel` of this kind is made only after the feature was detected.
            #[cfg(target_arch = "x86_64")]
            Isa::Ssse3 => unsafe { x86::mul_ssse3(destination, table) },
            // SAFETY: a `Kernel` of this kind is made only after the feature was detected.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { x86::mul_avx2(destination, table) },
            // SAFETY: a `Kernel` of this kind is made only after the feature was detected.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => unsafe { arm::mul_neon(destination, table) },
        }
    }
}

/// The kernel that runs everywhere, two look-ups a byte.
mod portable {
    fn times(table: &[u8; 32], byte: u8) -> u8 {
        table[usize::from(byte & 15)] ^ table[usize::from(16 | byte >> 4)]
    }

    pub(super) fn mul_add(destination: &mut [u8], source: &[u8], table: &[u8; 32]) {
        for (destination, &source) in destination.iter_mut().zip(source) {
            *destination ^= times(table, source);
        }
    }

    pub(super) fn mul(destination: &mut [u8], table: &[u8; 32]) {
        for destination in destination {
            *destination = times(table, *destination);
        }
    }
}

/// Multiplication by long division of polynomials: the definition, from which the tables are made.
const fn product_by_definition(a: u8, b: u8) -> u8 {
    let (mut sum, mut a, mut b) = (0u8, a, b);
    while b != 0 {
        if b & 1 != 0 {
            sum ^= a;
        }
        a = if a & 0x80 != 0 { a << 1 ^ 0x1d } else { a << 1 };
        b >>= 1;
    }
    sum
}

const fn powers() -> [u8; 510] {
    let mut table = [1; 510];
    let mut n = 1;
    while n < table.len() {
        table[n] = product_by_definition(table[n - 1], 2);
        n += 1;
    }
    table
}

const fn logarithms() -> [u8; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 255 {
        table[POWERS[n] as usize] = n as u8;
        n += 1;
    }
    table
}

const fn nibbles() -> [[u8; 32]; 256] {
    let mut table = [[0; 32]; 256];
    let mut factor = 0;
    while factor < 256 {
        let mut nibble = 0;
        while nibble < 16 {
            table[factor][nibble] = product(factor as u8, nibble as u8);
            table[factor][16 + nibble] = product(factor as u8, (nibble as u8) << 4);
            nibble += 1;
        }
        factor += 1;
    }
    table
}

#[cfg(test)]
mod tests;
