//! A map that forgets: what is too old, and where it is full, what was touched longest ago.
//!
//! Rule that always holds: it never has more than `CAPACITY` entries, whatever is put in.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::Timestamp;

/// Keys remembered at most; with their values some megabytes.
pub(super) const CAPACITY: usize = 10_000;

#[derive(Debug)]
pub(super) struct Aging<K, V> {
    entries: BTreeMap<K, (Timestamp, V)>,
    ages: BTreeSet<(Timestamp, K)>,
}

impl<K, V> Default for Aging<K, V> {
    fn default() -> Aging<K, V> {
        Aging { entries: BTreeMap::new(), ages: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, V: Default> Aging<K, V> {
    /// The value of `key`, made if it is not there, as touched at `now`.
    pub(super) fn touch(&mut self, key: &K, now: Timestamp) -> &mut V {
        match self.entries.get(key) {
            Some((age, _)) => {
                self.ages.remove(&(*age, key.clone()));
            }
            None if self.entries.len() >= CAPACITY => {
                if let Some((_, oldest)) = self.ages.pop_first() {
                    self.entries.remove(&oldest);
                }
            }
            None => {}
        }
        self.ages.insert((now, key.clone()));
        let entry = self.entries.entry(key.clone()).or_default();
        entry.0 = now;
        &mut entry.1
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some((age, _)) = self.entries.remove(key) {
            self.ages.remove(&(age, key.clone()));
        }
    }

    /// Forgets what was last touched at `moment` or before.
    pub(super) fn forget_until(&mut self, moment: Timestamp) {
        while let Some((_, key)) = self.ages.first().filter(|(age, _)| *age <= moment).cloned() {
            self.remove(&key);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.ages.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn what_was_touched_longest_ago_goes_first() {
        let mut map = Aging::<usize, ()>::default();
        for key in 0..CAPACITY {
            map.touch(&key, at(1));
        }
        map.touch(&0, at(2));
        map.touch(&CAPACITY, at(3));
        assert_eq!(map.len(), CAPACITY);
        assert!(map.get_mut(&0).is_some() && map.get_mut(&1).is_none());
        map.forget_until(at(2));
        assert_eq!(map.len(), 1);
    }
}
