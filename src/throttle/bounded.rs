//! A map that keeps what was used last: what comes from outside (domains, clients) must not fill the memory.
//!
//! Rule that always holds: there are never more than `MAX` entries; when one too many comes, the eighth part that was used
//! longest ago goes, so that looking for it costs little on each entry.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::Timestamp;

/// Part of the entries that make room at once.
const ROOM: usize = 8;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bounded<K: Ord, V, const MAX: usize> {
    entries: BTreeMap<K, (Timestamp, V)>,
}

impl<K: Ord, V, const MAX: usize> Default for Bounded<K, V, MAX> {
    fn default() -> Self {
        Bounded { entries: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, V, const MAX: usize> Bounded<K, V, MAX> {
    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(super) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q, now: Timestamp) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let (used, value) = self.entries.get_mut(key)?;
        *used = now;
        Some(value)
    }

    /// The entry of `key`, a new one if there is none.
    pub(super) fn entry(&mut self, key: &K, now: Timestamp) -> &mut V
    where
        V: Default,
    {
        if self.entries.len() >= MAX && !self.entries.contains_key(key) {
            self.make_room();
        }
        let (used, value) = self.entries.entry(key.clone()).or_default();
        *used = now;
        value
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (_, value))| (key, value))
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.entries.retain(|_, (_, value)| keep(value));
    }

    /// Every entry, and when each was used.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&mut Timestamp, &mut V)> {
        self.entries.values_mut().map(|(used, value)| (used, value))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn make_room(&mut self) {
        let mut times: Vec<Timestamp> = self.entries.values().map(|(used, _)| *used).collect();
        let mut going = times.len() / ROOM + 1;
        let (_, last, _) = times.select_nth_unstable(going - 1);
        let last = *last;
        // Several may have been used at the moment of the last that goes: then the first of them by name.
        self.entries.retain(|_, (used, _)| {
            let goes = going > 0 && *used <= last;
            going -= usize::from(goes);
            !goes
        });
    }
}

impl<K: Ord + Serialize, V: Serialize, const MAX: usize> Serialize for Bounded<K, V, MAX> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.entries.iter().map(|(key, (used, value))| (key, used, value)))
    }
}

impl<'de, K: Ord + Clone + Deserialize<'de>, V: Deserialize<'de>, const MAX: usize> Deserialize<'de>
    for Bounded<K, V, MAX>
{
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let entries: Vec<(K, Timestamp, V)> = Vec::deserialize(d)?;
        let entries = entries.into_iter().take(MAX).map(|(key, used, value)| (key, (used, value)));
        Ok(Bounded { entries: entries.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_used_last_stays() {
        let mut map: Bounded<u32, u32, 16> = Bounded::default();
        for n in 0..16 {
            *map.entry(&n, Timestamp::from_secs(i64::from(n))) = n;
        }
        map.get_mut(&0, Timestamp::from_secs(100));
        map.entry(&16, Timestamp::from_secs(101));
        let left: Vec<u32> = map.iter().map(|(key, _)| *key).collect();
        assert_eq!(left, [0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!(map.get(&5), Some(&5));
    }

    proptest! {
        #[test]
        fn it_never_grows_beyond_its_limit(steps in prop::collection::vec((0u32..100, 0i64..20), 0..300)) {
            let mut map: Bounded<u32, u32, 10> = Bounded::default();
            for (key, secs) in steps {
                *map.entry(&key, Timestamp::from_secs(secs)) = key;
                prop_assert!(map.iter().count() <= 10);
                prop_assert_eq!(map.get(&key), Some(&key));
            }
            let text = serde_json::to_string(&map).unwrap();
            prop_assert_eq!(serde_json::from_str::<Bounded<u32, u32, 10>>(&text).unwrap(), map);
        }
    }
}
