//! A small map that nearly always holds one thing: no memory of its own until there is a second.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(super) enum Few<K, V> {
    #[default]
    None,
    One(K, V),
    Many(BTreeMap<K, V>),
}

impl<K: Ord, V> Few<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        match self {
            Few::One(own, value) if own == key => Some(value),
            Few::Many(all) => all.get(key),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self {
            Few::One(own, value) if own == key => Some(value),
            Few::Many(all) => all.get_mut(key),
            _ => None,
        }
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        *self = match std::mem::take(self) {
            Few::None => Few::One(key, value),
            Few::One(own, _) if own == key => Few::One(key, value),
            Few::One(own, before) => Few::Many(BTreeMap::from([(own, before), (key, value)])),
            Few::Many(mut all) => {
                all.insert(key, value);
                Few::Many(all)
            }
        };
    }

    pub(super) fn remove(&mut self, key: &K) {
        match self {
            Few::One(own, _) if own == key => *self = Few::None,
            Few::Many(all) => {
                all.remove(key);
                if all.is_empty() {
                    *self = Few::None;
                }
            }
            _ => {}
        }
    }

    /// That of the least key.
    pub(super) fn first(&self) -> Option<&V> {
        match self {
            Few::None => None,
            Few::One(_, value) => Some(value),
            Few::Many(all) => all.values().next(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Few::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((0u8..4, any::<bool>()), 0..60)) {
            let (mut few, mut map) = (Few::default(), BTreeMap::new());
            for (n, (key, comes)) in steps.into_iter().enumerate() {
                if comes {
                    few.insert(key, n);
                    map.insert(key, n);
                } else {
                    few.remove(&key);
                    map.remove(&key);
                }
                prop_assert_eq!(few.first(), map.values().next());
                prop_assert_eq!(few.is_empty(), map.is_empty());
                for key in 0..4 {
                    prop_assert_eq!(few.get(&key), map.get(&key));
                    prop_assert_eq!(few.get_mut(&key), map.get_mut(&key));
                }
            }
        }
    }
}
