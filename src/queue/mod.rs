//! The queue: which deliveries exist, when each is due, and in which order those that are due go.
//!
//! Pure and small: it holds numbers, some 80 bytes for a typical delivery; addresses and content stay in the spool. It
//! knows nothing of receivers: `dispatch` puts what is due into a `Line` for each target and takes from there.
//!
//! Rules that always hold:
//! - a delivery is in exactly one place: `Place` says which;
//! - `due` gives up a delivery only once its time has come, earliest first;
//! - a `Line` is fair: the urgent goes first and leaves the others a share, senders take turns, within a sender it is first
//!   come, first served; lines that share something scarce take `Turns` by the same rule.

mod few;
mod line;
pub mod options;
mod retry;
mod share;
mod shelf;
mod turns;

use std::collections::BTreeSet;

use crate::types::{DeliveryId, Priority, Timestamp};
use shelf::Shelf;

pub use line::Line;
pub use retry::{Lifetime, Retry};
pub use share::ahead_in_all;
pub use turns::Turns;

/// Recipients as numbers: equal keys may be equal mailboxes, different keys are different ones.
pub type RecipientKey = u32;

/// What is remembered of a delivery.
#[derive(Clone, Debug)]
pub struct Entry {
    pub place: Place,
    /// The recipients' domain, as dispatch numbers them.
    pub domain: u32,
    /// The sender, as a number: senders take turns.
    pub flow: u32,
    /// The sender's domain, as dispatch numbers them.
    pub sender_domain: u32,
    pub class: Priority,
    pub attempts: u32,
    /// Where it differs from `[queue] expire`.
    pub lifetime: Lifetime,
    pub delay_reported: bool,
    /// Hold it as soon as it is not being tried.
    pub hold_wanted: bool,
    pub recipients: Keys,
}

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Waits for its time.
    Later(Timestamp),
    /// Due, and its domain's route is being asked for.
    Unrouted,
    /// In the line of its target.
    Ready,
    /// Behind another delivery to the same recipient, whose answer is not known yet.
    Parked,
    /// In a transaction, or on the way to one.
    Active,
    /// Being read back, to be settled without a transaction.
    Settling,
    /// Stopped by the operator.
    Held,
}

/// The recipients of a delivery; nearly always one.
#[derive(Clone, Debug)]
pub enum Keys {
    One(RecipientKey),
    Many(Box<[RecipientKey]>),
}

impl Keys {
    pub fn as_slice(&self) -> &[RecipientKey] {
        match self {
            Keys::One(key) => std::slice::from_ref(key),
            Keys::Many(keys) => keys,
        }
    }
}

impl FromIterator<RecipientKey> for Keys {
    fn from_iter<T: IntoIterator<Item = RecipientKey>>(keys: T) -> Keys {
        let mut keys: Vec<RecipientKey> = keys.into_iter().collect();
        if let [key] = keys[..] {
            return Keys::One(key);
        }
        keys.sort_unstable();
        keys.dedup();
        Keys::Many(keys.into())
    }
}

/// All deliveries in memory.
#[derive(Debug, Default)]
pub struct Queue {
    entries: Shelf<Entry>,
    /// Exactly the entries whose place is `Later`.
    by_time: BTreeSet<(Timestamp, DeliveryId)>,
    held: usize,
    active: usize,
}

impl Queue {
    /// Adds a delivery; one that is known already stays as it is.
    pub fn insert(&mut self, id: DeliveryId, entry: Entry) -> bool {
        let place = entry.place;
        let is_new = self.entries.insert(id, entry);
        if is_new {
            self.enter(id, place);
        }
        is_new
    }

    pub fn get(&self, id: DeliveryId) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// For everything but the place, which only `put` changes.
    pub fn get_mut(&mut self, id: DeliveryId) -> Option<&mut Entry> {
        self.entries.get_mut(id)
    }

    /// Moves a delivery to another place; returns where it was.
    pub fn put(&mut self, id: DeliveryId, place: Place) -> Option<Place> {
        let entry = self.entries.get_mut(id)?;
        let before = std::mem::replace(&mut entry.place, place);
        self.leave(id, before);
        self.enter(id, place);
        Some(before)
    }

    pub fn remove(&mut self, id: DeliveryId) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        self.leave(id, entry.place);
        Some(entry)
    }

    /// The next delivery whose time has come; its place is for the caller to change.
    pub fn due(&self, now: Timestamp) -> Option<DeliveryId> {
        self.by_time.first().filter(|(time, _)| *time <= now).map(|(_, id)| *id)
    }

    /// When `due` will have something.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(time, _)| *time)
    }

    /// The clock was set by so much: what waits for its time waits no longer for it.
    pub fn shift(&mut self, by_millis: i64) {
        let later: Vec<(Timestamp, DeliveryId)> = self.by_time.iter().copied().collect();
        for (time, id) in later {
            self.put(id, Place::Later(time.shifted(by_millis)));
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    pub fn held(&self) -> usize {
        self.held
    }

    pub fn active(&self) -> usize {
        self.active
    }

    /// In the order of their ids, that is, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (DeliveryId, &Entry)> {
        self.entries.iter()
    }

    fn enter(&mut self, id: DeliveryId, place: Place) {
        match place {
            Place::Later(time) => {
                self.by_time.insert((time, id));
            }
            Place::Held => self.held += 1,
            Place::Active => self.active += 1,
            _ => {}
        }
    }

    fn leave(&mut self, id: DeliveryId, place: Place) {
        match place {
            Place::Later(time) => {
                self.by_time.remove(&(time, id));
            }
            Place::Held => self.held -= 1,
            Place::Active => self.active -= 1,
            _ => {}
        }
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

    fn entry(place: Place) -> Entry {
        Entry {
            place,
            domain: 0,
            flow: 0,
            sender_domain: 0,
            class: Priority::Normal,
            attempts: 0,
            lifetime: None,
            delay_reported: false,
            hold_wanted: false,
            recipients: Keys::One(1),
        }
    }

    #[test]
    fn gives_what_is_due_earliest_first_and_nothing_before_its_time() {
        let mut queue = Queue::default();
        for (n, secs) in [(1, 30), (2, 10), (3, 20)] {
            queue.insert(id(n), entry(Place::Later(Timestamp::from_secs(secs))));
        }
        let mut order = Vec::new();
        while let Some(next) = queue.due(Timestamp::from_secs(20)) {
            queue.put(next, Place::Ready);
            order.push(next);
        }
        assert_eq!(order, [id(2), id(3)]);
        assert_eq!(queue.next_due(), Some(Timestamp::from_secs(30)));
    }

    #[test]
    fn an_entry_is_small() {
        // With its key this keeps a delivery that waits in a line under 100 bytes.
        assert!(size_of::<Entry>() <= 56, "{}", size_of::<Entry>());
    }

    proptest! {
        #[test]
        fn counts_and_times_agree_with_the_places(steps in prop::collection::vec((0i64..20, 0u8..8, 0i64..50), 0..200)) {
            let mut queue = Queue::default();
            for (n, what, secs) in steps {
                let place = match what {
                    0 | 1 => Place::Later(Timestamp::from_secs(secs)),
                    2 => Place::Held,
                    3 => Place::Active,
                    4 => Place::Ready,
                    _ => Place::Unrouted,
                };
                match what {
                    7 => { queue.remove(id(n)); }
                    6 => { queue.insert(id(n), entry(place)); }
                    _ => { queue.put(id(n), place); }
                }
                let count = |wanted: fn(Place) -> bool| queue.iter().filter(|(_, e)| wanted(e.place)).count();
                prop_assert_eq!(queue.held(), count(|p| p == Place::Held));
                prop_assert_eq!(queue.active(), count(|p| p == Place::Active));
                prop_assert_eq!(queue.by_time.len(), count(|p| matches!(p, Place::Later(_))));
                let first = queue.iter().filter_map(|(_, e)| if let Place::Later(t) = e.place { Some(t) } else { None }).min();
                prop_assert_eq!(queue.next_due(), first);
            }
        }
    }
}
