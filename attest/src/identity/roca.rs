//! ROCA (CVE-2017-15361): RSA keys whose factors a faulty library made from powers of 65537.
//!
//! Nemec, Sys, Svenda, Klinec, Matyas, "The Return of Coppersmith's Attack", CCS 2017, 2.2: such a prime is k·M + (65537^a mod M), M the
//! product of the first primes, so the modulus modulo each small prime p is a power of 65537. [`is_weak`] tests that for every prime up
//! to 167, the ones of the shortest keys' M, which every longer key's M contains. One fair modulus in 200 million has the fingerprint by
//! chance: refusing it costs a look at the TPM, and no weak key passes. It says nothing of other weaknesses.

/// The odd primes of the smallest M (39 primes up to 167, without 2).
const PRIMES: [u16; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// The generator of the faulty library.
const GENERATOR: u32 = 65537;

/// Whether the modulus (big endian) has the fingerprint.
#[must_use]
pub fn is_weak(modulus: &[u8]) -> bool {
    !modulus.is_empty() && PRIMES.iter().all(|prime| is_power_of_generator(remainder(modulus, *prime), *prime))
}

fn remainder(modulus: &[u8], prime: u16) -> u32 {
    let prime = u32::from(prime);
    modulus.iter().fold(0, |rest, byte| step(rest.wrapping_mul(256).wrapping_add(u32::from(*byte)), prime))
}

/// `value mod prime`; no prime of the table is 0.
const fn step(value: u32, prime: u32) -> u32 {
    match value.checked_rem(prime) {
        Some(rest) => rest,
        None => 0,
    }
}

/// Whether `value` is in the subgroup that the generator spans modulo `prime`: its powers, until they come back to 1.
fn is_power_of_generator(value: u32, prime: u16) -> bool {
    let prime = u32::from(prime);
    let generator = step(GENERATOR, prime);
    let mut power = 1;
    loop {
        if power == value {
            return true;
        }
        power = step(power.wrapping_mul(generator), prime);
        if power == 1 {
            return false;
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "a test counts")]
mod tests {
    use super::*;

    /// `number · factor + add`, little endian.
    fn times(number: &mut Vec<u8>, factor: u32, add: u32) {
        let mut carry = u64::from(add);
        for byte in number.iter_mut() {
            let sum = u64::from(*byte) * u64::from(factor) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        while carry > 0 {
            number.push(carry as u8);
            carry >>= 8;
        }
    }

    fn big_endian(mut number: Vec<u8>) -> Vec<u8> {
        number.reverse();
        number
    }

    #[test]
    fn a26_powers_of_the_generator_are_weak_and_other_moduli_are_not() {
        // 65537^n has the fingerprint for every n, and so has any number that equals it modulo M.
        for exponent in [1, 64, 127, 200] {
            let mut weak = vec![1];
            (0..exponent).for_each(|_| times(&mut weak, GENERATOR, 0));
            assert!(is_weak(&big_endian(weak.clone())), "65537^{exponent}");
            let mut near = big_endian(weak);
            *near.last_mut().unwrap() ^= 2;
            assert!(!is_weak(&near), "beside 65537^{exponent}");
        }
        let mut shifted = vec![1];
        PRIMES.iter().for_each(|prime| times(&mut shifted, u32::from(*prime), 0));
        times(&mut shifted, 2 * 977, GENERATOR);
        assert!(is_weak(&big_endian(shifted)), "977·M + 65537");

        // Numbers as a sound generator gives them: SHA-256 in counter mode.
        for seed in 0u32..2000 {
            let modulus: Vec<u8> =
                (0u8..8).flat_map(|part| crate::digest::sha256(&[&seed.to_be_bytes(), &[part]])).collect();
            assert!(!is_weak(&modulus), "{seed}");
        }
        assert!(!is_weak(&[]));
    }

    #[test]
    fn the_test_is_sharp_enough() {
        // The chance that a fair modulus passes: the product of (order of 65537 mod p) / (p - 1).
        let mut chance = 1f64;
        for prime in PRIMES {
            let members = (1..u32::from(prime)).filter(|value| is_power_of_generator(*value, prime)).count();
            chance *= members as f64 / f64::from(prime - 1);
        }
        assert!(chance < 1.0 / 200e6, "2^{}", chance.log2());
    }
}
