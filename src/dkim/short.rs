//! RSA keys of 1024 to 2047 bits, which aws-lc-rs does not take any more: old keys go on signing until they are replaced.
//!
//! The private operation of RFC 8017 section 5.2.1 by Montgomery's multiplication. Each step takes the same time whatever the key's bits are,
//! and what it gives is checked with the public key before anybody sees it.

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::{RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};

use super::der::{self, RsaNumbers};

/// Before a SHA-256 digest (RFC 8017 section 9.2, note 1).
const DIGEST_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];

/// Numbers are kept with the least significant word first.
pub(super) struct ShortKey {
    modulus: Vec<u64>,
    /// `-modulus⁻¹` modulo 2⁶⁴.
    inverse: u64,
    /// 2^(2 · 64 · words) modulo the modulus.
    square: Vec<u64>,
    /// Most significant octet first.
    private_exponent: Vec<u8>,
    /// As PKCS#1.
    public: Vec<u8>,
    octets: usize,
}

impl Drop for ShortKey {
    fn drop(&mut self) {
        self.private_exponent.fill(0);
        std::hint::black_box(&self.private_exponent);
    }
}

impl ShortKey {
    /// None: the numbers are no key.
    pub(super) fn of(numbers: &RsaNumbers<'_>) -> Option<ShortKey> {
        let modulus = words(numbers.modulus);
        let is_odd = modulus.first().is_some_and(|word| word & 1 == 1);
        let is_in_range = (1024..2048).contains(&der::bits(numbers.modulus));
        if !is_odd || !is_in_range || numbers.private_exponent.len() > numbers.modulus.len() {
            return None;
        }
        // Newton's iteration: each step doubles the bits that are right.
        let inverse = (0..6).fold(1u64, |x, _| x.wrapping_mul(2u64.wrapping_sub(modulus[0].wrapping_mul(x))));
        let square = power_of_two(128 * modulus.len(), &modulus);
        Some(ShortKey {
            inverse: inverse.wrapping_neg(),
            square,
            private_exponent: numbers.private_exponent.to_vec(),
            public: der::public_key(numbers.modulus, numbers.public_exponent),
            octets: numbers.modulus.len(),
            modulus,
        })
    }

    /// The length of a signature.
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// None: the numbers do not belong together.
    pub(super) fn sign(&self, digest: &Digest) -> Option<Vec<u8>> {
        let padding = self.octets.checked_sub(DIGEST_INFO.len() + digest.as_ref().len() + 3)?;
        let padded = [&[0, 1][..], &vec![0xff; padding], &[0], &DIGEST_INFO, digest.as_ref()].concat();
        let mut message = words(&padded);
        message.resize(self.modulus.len(), 0);
        let signature = octets(&self.power(&message), self.octets);
        let key = UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, &self.public);
        key.verify_digest(digest, &signature).is_ok().then_some(signature)
    }

    /// `base` to the power of the private exponent, modulo the modulus.
    fn power(&self, base: &[u64]) -> Vec<u64> {
        let one: Vec<u64> = (0..self.modulus.len()).map(|at| u64::from(at == 0)).collect();
        let base = self.multiply(base, &self.square);
        let mut power = self.multiply(&one, &self.square);
        for octet in &self.private_exponent {
            for bit in (0..8).rev() {
                power = self.multiply(&power, &power);
                let more = self.multiply(&power, &base);
                choose(&mut power, &more, octet >> bit & 1);
            }
        }
        self.multiply(&power, &one)
    }

    /// `a · b / 2^(64 · words)` modulo the modulus.
    fn multiply(&self, a: &[u64], b: &[u64]) -> Vec<u64> {
        let count = self.modulus.len();
        let mut sum = vec![0u64; count + 2];
        for &word in b {
            add_product(&mut sum, a, word);
            let factor = sum[0].wrapping_mul(self.inverse);
            add_product(&mut sum, &self.modulus, factor);
            // Its last word is zero now.
            sum.copy_within(1.., 0);
            sum[count + 1] = 0;
        }
        let (less, borrow) = subtracted(&sum[..=count], &self.modulus);
        choose(&mut sum[..=count], &less, u8::from(borrow == 0));
        sum.truncate(count);
        sum
    }
}

/// Adds `a · b` to `sum`.
fn add_product(sum: &mut [u64], a: &[u64], b: u64) {
    let mut carry = 0u128;
    for (at, word) in sum.iter_mut().enumerate() {
        let product = u128::from(a.get(at).copied().unwrap_or(0)) * u128::from(b);
        carry += u128::from(*word) + product;
        *word = carry as u64;
        carry >>= 64;
    }
}

/// `a - b`, and what was borrowed beyond it.
fn subtracted(a: &[u64], b: &[u64]) -> (Vec<u64>, u64) {
    let mut borrow = 0u64;
    let words = a.iter().enumerate().map(|(at, word)| {
        let (first, under) = word.overflowing_sub(b.get(at).copied().unwrap_or(0));
        let (second, under_too) = first.overflowing_sub(borrow);
        borrow = u64::from(under) | u64::from(under_too);
        second
    });
    let words = words.collect();
    (words, borrow)
}

/// Makes `words` to `others` where `bit` is 1, without a branch.
fn choose(words: &mut [u64], others: &[u64], bit: u8) {
    let mask = u64::from(bit).wrapping_neg();
    for (word, other) in words.iter_mut().zip(others) {
        *word ^= mask & (*word ^ other);
    }
}

/// 2 to the power of `exponent` modulo `modulus`, by doubling. No secret is in it.
fn power_of_two(exponent: usize, modulus: &[u64]) -> Vec<u64> {
    let mut number: Vec<u64> = (0..=modulus.len()).map(|at| u64::from(at == 0)).collect();
    for _ in 0..exponent {
        let mut carry = 0;
        for word in &mut number {
            (*word, carry) = (*word << 1 | carry, *word >> 63);
        }
        let (less, borrow) = subtracted(&number, modulus);
        if borrow == 0 {
            number = less;
        }
    }
    number.truncate(modulus.len());
    number
}

fn words(octets: &[u8]) -> Vec<u64> {
    let word = |octets: &[u8]| octets.iter().fold(0, |word, &octet| word << 8 | u64::from(octet));
    octets.rchunks(8).map(word).collect()
}

fn octets(words: &[u64], count: usize) -> Vec<u8> {
    let mut octets: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).take(count).collect();
    octets.reverse();
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_written_alike() {
        let text: Vec<u8> = (1..=131).collect();
        assert_eq!(octets(&words(&text), text.len()), text);
        assert_eq!(power_of_two(10, &[1000]), [24]);
        assert_eq!(power_of_two(130, &[0, 0, 3]), [0, 0, 1]);
    }

    #[test]
    fn numbers_that_do_not_belong_together_sign_nothing() {
        let odd = [0xc1; 128];
        let numbers = RsaNumbers { modulus: &odd, public_exponent: &[1, 0, 1], private_exponent: &odd[..100] };
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"x");
        assert_eq!(ShortKey::of(&numbers).unwrap().sign(&digest), None);
        let even = [0xc2; 128];
        assert!(ShortKey::of(&RsaNumbers { modulus: &even, ..numbers }).is_none());
    }
}
