//! Lines that share something scarce (a connection, the time of a lane) take turns.
//!
//! ```text
//! next: the class whose turn it is (`share`), over all lines
//!       within it: lines that have nothing of the scarce thing yet, first come, first served; then the others likewise
//! ```
//!
//! A line stands in each class of which it has mail, so that urgent mail of one line goes before the bulk of all others, and
//! each class gets its share over all lines as it does within one. Every step costs the logarithm of how many wait.

use super::few::Few;
use super::share::{BY_RANK, CLASSES, Share, rank};
use crate::types::Priority;

/// Where a line stands in a class: those that have some already behind those that have none.
type Stand = (bool, u64);

#[derive(Clone, Debug)]
pub struct Turns<K> {
    classes: [Few<Stand, K>; CLASSES],
    stands: Few<K, [Option<Stand>; CLASSES]>,
    /// In each class, lines that have none of the scarce thing.
    without: [usize; CLASSES],
    share: Share,
    arrivals: u64,
}

impl<K> Default for Turns<K> {
    fn default() -> Turns<K> {
        Turns {
            classes: Default::default(),
            stands: Few::default(),
            without: [0; CLASSES],
            share: Share::default(),
            arrivals: 0,
        }
    }
}

impl<K: Clone + Ord> Turns<K> {
    /// The line waits in this class: behind those that do already, or where it stands. `has_some`: of what is scarce.
    pub fn stand(&mut self, key: &K, class: Priority, has_some: bool) {
        let arrival = match self.stands.get(key).and_then(|stands| stands[rank(class)]) {
            Some((before, _)) if before == has_some => return,
            Some((_, arrival)) => arrival,
            None => self.arrival(),
        };
        self.leave_class(key, class);
        self.put(key, class, (has_some, arrival));
    }

    /// It was served: to the end of its class.
    pub fn moves_back(&mut self, key: &K, class: Priority, has_some: bool) {
        self.leave_class(key, class);
        let arrival = self.arrival();
        self.put(key, class, (has_some, arrival));
    }

    fn arrival(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    fn put(&mut self, key: &K, class: Priority, stand: Stand) {
        self.classes[rank(class)].insert(stand, key.clone());
        match self.stands.get_mut(key) {
            Some(stands) => stands[rank(class)] = Some(stand),
            None => {
                let mut stands = [None; CLASSES];
                stands[rank(class)] = Some(stand);
                self.stands.insert(key.clone(), stands);
            }
        }
        self.without[rank(class)] += usize::from(!stand.0);
    }

    pub fn leave_class(&mut self, key: &K, class: Priority) {
        let Some(stands) = self.stands.get_mut(key) else { return };
        if let Some(stand) = stands[rank(class)].take() {
            self.classes[rank(class)].remove(&stand);
            self.without[rank(class)] -= usize::from(!stand.0);
        }
        if stands.iter().all(Option::is_none) {
            self.stands.remove(key);
        }
    }

    pub fn leave(&mut self, key: &K) {
        BY_RANK.into_iter().for_each(|class| self.leave_class(key, class));
    }

    /// Whose turn it is, and with mail of which class.
    pub fn next(&self) -> Option<(Priority, K)> {
        self.next_but(&[])
    }

    /// The same, leaving out these classes; they keep their claim.
    pub fn next_but(&self, passed: &[Priority]) -> Option<(Priority, K)> {
        let waits = |class: usize| !self.classes[class].is_empty() && !passed.contains(&BY_RANK[class]);
        self.next_of(BY_RANK[self.share.next(std::array::from_fn(waits))?])
    }

    /// Whose turn it is within one class.
    pub fn next_of(&self, class: Priority) -> Option<(Priority, K)> {
        self.classes[rank(class)].first().map(|key| (class, key.clone()))
    }

    /// One message of this class went.
    pub fn served(&mut self, class: Priority) {
        let waits = std::array::from_fn(|class| !self.classes[class].is_empty());
        self.share.served(rank(class), waits);
    }

    /// Lines that have none of the scarce thing: those with more urgent mail than `class`; none: all.
    pub fn without(&self, class: Option<Priority>) -> usize {
        let more_urgent = class.map_or(CLASSES, rank);
        self.without[..more_urgent].iter().sum()
    }

    pub fn waits_in(&self, class: Priority) -> bool {
        !self.classes[rank(class)].is_empty()
    }

    pub fn contains(&self, key: &K) -> bool {
        self.stands.get(key).is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.stands.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{Bulk, High, Normal};
    use proptest::prelude::*;

    /// Who goes, one after the other, where each has mail without end.
    fn gone(turns: &mut Turns<u32>, times: usize) -> Vec<(Priority, u32)> {
        let serve = |_| {
            let (class, key) = turns.next()?;
            turns.served(class);
            turns.moves_back(&key, class, false);
            Some((class, key))
        };
        (0..times).filter_map(serve).collect()
    }

    #[test]
    fn lines_are_served_in_the_order_in_which_they_came_whatever_their_numbers() {
        let mut turns = Turns::default();
        for key in [7, 3, 9, 1] {
            turns.stand(&key, Bulk, false);
        }
        turns.stand(&3, Bulk, false);
        let order: Vec<u32> = gone(&mut turns, 6).into_iter().map(|(_, key)| key).collect();
        assert_eq!(order, [7, 3, 9, 1, 7, 3]);
    }

    #[test]
    fn urgent_mail_of_any_line_goes_first_and_each_class_gets_its_tenth() {
        let mut turns = Turns::default();
        (0..50).for_each(|key| turns.stand(&key, Bulk, false));
        turns.stand(&7, Normal, false);
        turns.stand(&49, High, true);
        assert_eq!(turns.next(), Some((High, 49)));
        let order = gone(&mut turns, 200);
        let count = |wanted| order.iter().filter(|(class, _)| *class == wanted).count();
        assert!((18..=21).contains(&count(Bulk)) && (18..=21).contains(&count(Normal)), "{order:?}");
    }

    #[test]
    fn whoever_has_none_goes_before_those_who_have_some_and_keeps_its_place() {
        let mut turns = Turns::default();
        for (key, has_some) in [(1, true), (2, false), (3, false)] {
            turns.stand(&key, Normal, has_some);
        }
        assert_eq!((turns.next(), turns.without(None), turns.without(Some(Normal))), (Some((Normal, 2)), 2, 0));
        // The first to come has lost what it had.
        turns.stand(&1, Normal, false);
        assert_eq!((turns.next(), turns.without(Some(Bulk))), (Some((Normal, 1)), 3));
        turns.leave(&1);
        assert!(!turns.contains(&1) && turns.contains(&2));
    }

    proptest! {
        #[test]
        fn nobody_is_lost_and_nobody_waits_for_ever(
            steps in prop::collection::vec((0u8..5, 0u32..8, 0usize..3, any::<bool>()), 0..200),
        ) {
            let mut turns = Turns::default();
            let mut inside = std::collections::BTreeSet::new();
            for (what, key, class, has_some) in steps {
                let class = Priority::ALL[class];
                match what {
                    0 | 1 => {
                        turns.stand(&key, class, has_some);
                        inside.insert((key, class));
                    }
                    2 => {
                        turns.leave_class(&key, class);
                        inside.remove(&(key, class));
                    }
                    3 => {
                        turns.leave(&key);
                        inside.retain(|(other, _)| *other != key);
                    }
                    _ => drop(gone(&mut turns, 1)),
                }
                for key in 0..8 {
                    prop_assert_eq!(turns.contains(&key), inside.iter().any(|(other, _)| *other == key));
                }
            }
            // Where all have none of it, each has gone once after so many turns: a tenth for each class of eight lines.
            inside.iter().for_each(|(key, class)| turns.stand(key, *class, false));
            let served: std::collections::BTreeSet<_> =
                gone(&mut turns, 8 * 10 + 20).into_iter().map(|(class, key)| (key, class)).collect();
            prop_assert_eq!(served, inside);
        }
    }
}
