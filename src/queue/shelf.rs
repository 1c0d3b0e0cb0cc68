//! Deliveries in the order of their ids, packed closely.
//!
//! New deliveries have the greatest ids, so that a B-tree fed in their order stays half empty for ever. Here they fill one box
//! after the other; what leaves makes room in its box, and boxes that are nearly empty are put together.
//!
//! Rules that always hold:
//! - within a box and from box to box ids rise, and a box is found under an id that is not greater than any of it;
//! - no box is empty.

use std::collections::BTreeMap;

use crate::types::DeliveryId;

/// Deliveries in one box: to move half of them costs as much as finding the box.
const BOX: usize = 64;
/// Two neighbours that hold no more than this together become one.
const FEW: usize = BOX / 2;

type Boxed<V> = Vec<(DeliveryId, V)>;

#[derive(Debug)]
pub(super) struct Shelf<V> {
    boxes: BTreeMap<DeliveryId, Boxed<V>>,
    len: usize,
}

impl<V> Default for Shelf<V> {
    fn default() -> Shelf<V> {
        Shelf { boxes: BTreeMap::new(), len: 0 }
    }
}

impl<V> Shelf<V> {
    pub(super) fn get(&self, id: DeliveryId) -> Option<&V> {
        let (_, found) = self.boxes.range(..=id).next_back()?;
        let place = found.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(&found[place].1)
    }

    pub(super) fn get_mut(&mut self, id: DeliveryId) -> Option<&mut V> {
        let (_, found) = self.boxes.range_mut(..=id).next_back()?;
        let place = found.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(&mut found[place].1)
    }

    /// One that is there already stays as it is; false then.
    pub(super) fn insert(&mut self, id: DeliveryId, value: V) -> bool {
        let Some((_, found)) = self.boxes.range_mut(..=id).next_back() else {
            return self.insert_first(id, value);
        };
        let Err(place) = found.binary_search_by_key(&id, |(id, _)| *id) else { return false };
        self.len += 1;
        if found.len() < BOX {
            if found.len() == found.capacity() {
                // By quarters: a box that does not fill up wastes little.
                found.reserve_exact((found.len() / 4 + 4).min(BOX - found.len()));
            }
            found.insert(place, (id, value));
        } else if place == BOX {
            self.boxes.insert(id, vec![(id, value)]);
        } else {
            let mut upper = found.split_off(BOX / 2);
            if place <= BOX / 2 {
                found.insert(place, (id, value));
            } else {
                upper.insert(place - BOX / 2, (id, value));
            }
            self.boxes.insert(upper[0].0, upper);
        }
        true
    }

    /// Before everything else that is there.
    fn insert_first(&mut self, id: DeliveryId, value: V) -> bool {
        let mut first = match self.boxes.first_key_value() {
            Some((_, first)) if first.len() < BOX => self.boxes.pop_first().map(|(_, first)| first).unwrap_or_default(),
            _ => Vec::new(),
        };
        first.insert(0, (id, value));
        self.boxes.insert(id, first);
        self.len += 1;
        true
    }

    pub(super) fn remove(&mut self, id: DeliveryId) -> Option<V> {
        let (key, found) = self.boxes.range_mut(..=id).next_back()?;
        let place = found.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let (key, (_, value)) = (*key, found.remove(place));
        self.len -= 1;
        match found.len() {
            0 => {
                self.boxes.remove(&key);
            }
            few if few <= FEW / 2 => {
                self.put_together(key);
                let before = self.boxes.range(..key).next_back().map(|(before, _)| *before);
                before.into_iter().for_each(|before| self.put_together(before));
            }
            _ => {}
        }
        Some(value)
    }

    /// A box with few in it takes in the next one, if that has few as well.
    fn put_together(&mut self, key: DeliveryId) {
        let Some(own) = self.boxes.get(&key).map(Vec::len) else { return };
        let next = self.boxes.range(key..).nth(1).filter(|(_, next)| next.len() + own <= FEW).map(|(next, _)| *next);
        if let Some(mut taken) = next.and_then(|next| self.boxes.remove(&next))
            && let Some(found) = self.boxes.get_mut(&key)
        {
            found.append(&mut taken);
            found.shrink_to(FEW);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (DeliveryId, &V)> {
        self.boxes.values().flatten().map(|(id, value)| (*id, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::QueueId;
    use proptest::prelude::*;

    fn id(n: i64) -> DeliveryId {
        DeliveryId { message: QueueId::from_key(n).unwrap(), part: 0 }
    }

    #[test]
    fn what_comes_in_order_fills_its_boxes() {
        let mut shelf = Shelf::default();
        (0..10_000).for_each(|n| assert!(shelf.insert(id(n), n)));
        assert_eq!(shelf.boxes.len(), 10_000_usize.div_ceil(BOX));
        assert!(shelf.boxes.values().all(|found| found.capacity() <= BOX + 4));
        (0..10_000).filter(|n| n % 10 != 0).for_each(|n| assert_eq!(shelf.remove(id(n)), Some(n)));
        assert!(shelf.boxes.len() <= 1000 / (FEW / 2) + 1, "{} boxes for a thousand", shelf.boxes.len());
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((0i64..400, 0u8..3), 0..1500)) {
            let (mut shelf, mut map) = (Shelf::default(), BTreeMap::new());
            for (n, what) in steps {
                if what == 0 {
                    prop_assert_eq!(shelf.remove(id(n)), map.remove(&id(n)));
                } else {
                    prop_assert_eq!(shelf.insert(id(n), n), !map.contains_key(&id(n)));
                    map.entry(id(n)).or_insert(n);
                }
                prop_assert_eq!(shelf.get(id(n)), map.get(&id(n)));
                prop_assert_eq!(shelf.get_mut(id(n)).copied(), map.get(&id(n)).copied());
                prop_assert_eq!(shelf.len(), map.len());
                prop_assert!(shelf.boxes.values().all(|found| !found.is_empty() && found.len() <= BOX));
            }
            let (own, other): (Vec<_>, Vec<_>) = (shelf.iter().collect(), map.iter().map(|(id, n)| (*id, n)).collect());
            prop_assert_eq!(own, other);
        }
    }
}
