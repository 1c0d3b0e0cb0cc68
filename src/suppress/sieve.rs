//! What certainly is not on the list, from memory: nearly every recipient of nearly every relay.
//!
//! A filter of bits, as Bloom described it (1970), for the recipients of whom anything is written down, entry or count. It may take somebody for one of
//! them who is none (about one in a thousand: then the list itself is asked), and never the other way about.
//!
//! Rules that always hold:
//! - until all that lies on the disk has been read it knows nothing, and the list itself answers;
//! - who comes onto the list is in here before that is on the disk;
//! - who leaves it stays in here until the next start;
//! - it takes two octets a recipient and at most twice that: parts are added as it grows, each twice as large as the one before, up to two million.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

/// Recipients in the first part.
const FIRST: usize = 1 << 12;
/// The part after which they grow no more.
const LARGEST: usize = 9;
const BITS_EACH: usize = 16;
/// Bits that are set for each.
const PROBES: u64 = 5;

#[derive(Default)]
pub(super) struct Sieve {
    parts: RwLock<Vec<Part>>,
    hasher: RandomState,
    is_whole: AtomicBool,
}

/// For so many recipients.
struct Part {
    words: Box<[AtomicU64]>,
    held: AtomicUsize,
}

impl Sieve {
    /// False: nothing is written down of him.
    pub(super) fn may_hold(&self, key: &str) -> bool {
        if !self.is_whole.load(Ordering::Acquire) {
            return true;
        }
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        !parts.is_empty() && {
            let hash = self.hasher.hash_one(key);
            parts.iter().any(|part| part.holds(hash))
        }
    }

    pub(super) fn add(&self, key: &str) {
        let hash = self.hasher.hash_one(key);
        {
            let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
            if parts.iter().any(|part| part.holds(hash)) {
                return;
            }
            if let Some(part) = parts.last().filter(|part| !part.is_full()) {
                return part.add(hash);
            }
        }
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        if parts.last().is_none_or(Part::is_full) {
            let size = FIRST << parts.len().min(LARGEST);
            parts.push(Part::new(size));
        }
        if let Some(part) = parts.last() {
            part.add(hash);
        }
    }

    /// All that lay on the disk has been added: from now on it answers.
    pub(super) fn is_whole_now(&self) {
        self.is_whole.store(true, Ordering::Release);
    }
}

impl Part {
    fn new(recipients: usize) -> Part {
        let words = recipients * BITS_EACH / 64;
        Part { words: std::iter::repeat_with(AtomicU64::default).take(words).collect(), held: AtomicUsize::new(0) }
    }

    fn is_full(&self) -> bool {
        self.held.load(Ordering::Relaxed) * BITS_EACH >= self.words.len() * 64
    }

    fn holds(&self, hash: u64) -> bool {
        self.bits(hash).all(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn add(&self, hash: u64) {
        for (word, bit) in self.bits(hash) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// The bits of a recipient, by two hashes made of one (Kirsch and Mitzenmacher, 2006).
    fn bits(&self, hash: u64) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let step = hash.rotate_left(32) | 1;
        (0..PROBES).filter_map(move |n| {
            let place = hash.wrapping_add(n.wrapping_mul(step)) >> 6;
            // The number of words is a power of two.
            let word = self.words.get(usize::try_from(place).unwrap_or(usize::MAX) & (self.words.len() - 1))?;
            Some((word, 1 << (hash.wrapping_mul(n.wrapping_mul(2) | 1) >> 58)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_added_is_found_and_hardly_anybody_else() {
        let sieve = Sieve::default();
        assert!(sieve.may_hold("anybody@x.example"), "before all was read nobody is ruled out");
        sieve.is_whole_now();
        assert!(!sieve.may_hold("anybody@x.example"), "the empty list holds nobody");
        let key = |n: usize| format!("user{n}@x.example");
        (0..200_000).for_each(|n| sieve.add(&key(n)));
        assert!((0..200_000).all(|n| sieve.may_hold(&key(n))));
        let mistaken = (200_000..400_000).filter(|n| sieve.may_hold(&key(*n))).count();
        assert!(mistaken < 2000, "{mistaken} of 200,000");
    }

    #[test]
    fn it_takes_a_few_octets_a_recipient() {
        let sieve = Sieve::default();
        (0..100_000).for_each(|n| sieve.add(&format!("user{n}@x.example")));
        // Adding them once more changes nothing.
        (0..100_000).for_each(|n| sieve.add(&format!("user{n}@x.example")));
        let parts = sieve.parts.read().unwrap();
        let octets: usize = parts.iter().map(|part| part.words.len() * 8).sum();
        assert!(octets <= 400_000, "{octets} octets in {} parts", parts.len());
    }
}
