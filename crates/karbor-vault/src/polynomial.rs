//! The `chunker_polynomial` of a repository: restic refuses a config whose polynomial is not irreducible
//! over GF(2). We cut by another method, but seed it with this number, so that it is as secret.

use crate::{VaultError, crypto};

const DEGREE: u32 = 53;

/// A random irreducible polynomial of degree 53; bit `n` is the factor of `x^n`.
pub(crate) fn random_irreducible() -> Result<u64, VaultError> {
    // About one in 27 candidates is irreducible.
    loop {
        let mut bytes = [0; 8];
        crypto::random(&mut bytes)?;
        let candidate = u64::from_le_bytes(bytes) & ((1 << DEGREE) - 1) | 1 << DEGREE | 1;
        if is_irreducible(candidate) {
            return Ok(candidate);
        }
    }
}

/// Rabin's test. As 53 is prime: `f` is irreducible if it divides `x^(2^53) - x` and has no root.
pub(crate) fn is_irreducible(f: u64) -> bool {
    if f >> DEGREE != 1 || f & 1 == 0 || f.count_ones().is_multiple_of(2) {
        return false;
    }
    let x = 2;
    (0..DEGREE).fold(x, |power, _| multiply(power, power, f)) == x
}

/// `a * b mod f` for `a` and `b` below `f`.
fn multiply(mut a: u64, mut b: u64, f: u64) -> u64 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        b >>= 1;
        a <<= 1;
        if a >> DEGREE & 1 == 1 {
            a ^= f;
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_polynomials_are_told_apart() {
        // Those that restic's own documentation and tests use.
        for irreducible in [0x25_b468_838d_cb75, 0x3d_a335_8b4d_c173] {
            assert!(is_irreducible(irreducible), "{irreducible:x}");
        }
        for reducible in [0x25_b468_838d_cb74, 0x25_b468_838d_cb77, 1 << 53 | 1, 0, 7] {
            assert!(!is_irreducible(reducible), "{reducible:x}");
        }
        assert!(is_irreducible(random_irreducible().unwrap()));
    }
}
