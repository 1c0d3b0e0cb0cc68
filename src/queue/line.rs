//! Deliveries that are due for one target, in the order in which they go.
//!
//! ```text
//! peek: the class whose turn it is (`share`)
//! within a class: what was put back, oldest first; then the senders in turn
//! ```
//!
//! Rules that always hold:
//! - `pop` takes what `peek` shows;
//! - a class in which something waits gets at least a tenth of what goes;
//! - each sender has a queue of its own and senders take turns, so that one newsletter does not stand before everybody
//!   else's mail of its class;
//! - what was taken and could not be sent goes back to the front of its class and keeps its turn.

use std::collections::{BTreeMap, VecDeque};

use super::share::{BY_RANK, CLASSES, Share, rank};
use crate::types::{DeliveryId, Priority};

#[derive(Debug, Default)]
pub struct Line {
    /// None: nothing stands in it. There may be very many lines, most of them empty.
    classes: [Option<Box<ClassLine>>; CLASSES],
    share: Share,
}

#[derive(Debug, Default)]
struct ClassLine {
    /// Went back; goes before everything else, oldest first.
    first: VecDeque<DeliveryId>,
    flows: Flows,
    len: usize,
}

/// Each sender's own queue.
#[derive(Debug)]
enum Flows {
    /// The mail of one sender, as nearly everywhere.
    One(u32, VecDeque<DeliveryId>),
    Many {
        queues: BTreeMap<u32, VecDeque<DeliveryId>>,
        /// The senders with something in their queue, the next one in front.
        turns: VecDeque<u32>,
    },
}

impl Default for Flows {
    fn default() -> Flows {
        Flows::One(0, VecDeque::new())
    }
}

impl Line {
    pub fn push(&mut self, class: Priority, flow: u32, id: DeliveryId) {
        self.class_mut(class).push(flow, id);
    }

    /// Puts back what was taken.
    pub fn put_back(&mut self, class: Priority, id: DeliveryId) {
        self.class_mut(class).put_back(id);
    }

    /// What `pop` would take.
    pub fn peek(&self) -> Option<DeliveryId> {
        self.classes[self.next()?].as_ref()?.peek()
    }

    pub fn pop(&mut self) -> Option<DeliveryId> {
        self.pop_of(self.next_class()?)
    }

    /// What is next within one class, whose turn it may not be.
    pub fn peek_of(&self, class: Priority) -> Option<DeliveryId> {
        self.classes[rank(class)].as_ref()?.peek()
    }

    /// Takes what `peek_of` shows.
    pub fn pop_of(&mut self, class: Priority) -> Option<DeliveryId> {
        let id = self.classes[rank(class)].as_mut()?.pop()?;
        self.tidy(class);
        self.share.served(rank(class), self.waits());
        Some(id)
    }

    /// The class whose turn it is.
    pub fn next_class(&self) -> Option<Priority> {
        self.next().map(|rank| BY_RANK[rank])
    }

    fn next(&self) -> Option<usize> {
        self.share.next(self.waits())
    }

    fn waits(&self) -> [bool; CLASSES] {
        std::array::from_fn(|class| self.classes[class].is_some())
    }

    pub fn len_of(&self, class: Priority) -> usize {
        self.classes[rank(class)].as_ref().map_or(0, |class| class.len)
    }

    pub fn len(&self) -> usize {
        self.classes.iter().flatten().map(|class| class.len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.classes.iter().all(Option::is_none)
    }

    /// What waits in one class, in no order.
    pub fn iter(&self, class: Priority) -> impl Iterator<Item = DeliveryId> {
        self.classes[rank(class)].iter().flat_map(|class| class.iter())
    }

    /// How many of its class go before this one, as if nothing came meanwhile. None if it does not stand in the line. Costs a
    /// pass over its class.
    pub fn ahead_of(&self, class: Priority, id: DeliveryId) -> Option<usize> {
        self.classes[rank(class)].as_ref()?.ahead_of(id)
    }

    /// Takes one out, wherever it stands; costs a pass over the class where it was not put back.
    pub fn remove(&mut self, class: Priority, id: DeliveryId) {
        let Some(line) = &mut self.classes[rank(class)] else { return };
        match line.first.binary_search(&id) {
            Ok(place) => {
                line.first.remove(place);
                line.len -= 1;
            }
            Err(_) => line.retain(|other| other != id),
        }
        self.tidy(class);
    }

    fn class_mut(&mut self, class: Priority) -> &mut ClassLine {
        self.classes[rank(class)].get_or_insert_default()
    }

    /// What is empty takes no place.
    fn tidy(&mut self, class: Priority) {
        self.classes[rank(class)].take_if(|class| class.len == 0);
    }

    /// It rests for long: gives room back that it does not need now.
    pub fn shrink(&mut self) {
        for class in self.classes.iter_mut().flatten() {
            class.first.shrink_to_fit();
            class.flows.shrink();
        }
    }

    /// Empties the line, in the order in which it would have gone.
    pub fn drain(&mut self) -> Vec<DeliveryId> {
        std::iter::from_fn(|| self.pop()).collect()
    }
}

impl ClassLine {
    fn push(&mut self, flow: u32, id: DeliveryId) {
        self.flows.push(flow, id);
        self.len += 1;
    }

    fn put_back(&mut self, id: DeliveryId) {
        let place = self.first.partition_point(|other| *other < id);
        self.first.insert(place, id);
        self.len += 1;
    }

    fn peek(&self) -> Option<DeliveryId> {
        self.first.front().copied().or_else(|| self.flows.peek())
    }

    fn pop(&mut self) -> Option<DeliveryId> {
        let id = self.first.pop_front().or_else(|| self.flows.pop())?;
        self.len -= 1;
        Some(id)
    }

    fn iter(&self) -> impl Iterator<Item = DeliveryId> {
        self.first.iter().chain(self.flows.queues().flat_map(|(_, queue)| queue)).copied()
    }

    fn ahead_of(&self, id: DeliveryId) -> Option<usize> {
        if let Some(place) = self.first.iter().position(|other| *other == id) {
            return Some(place);
        }
        let place = |queue: &VecDeque<DeliveryId>| queue.iter().position(|other| *other == id);
        let (flow, place) = self.flows.queues().find_map(|(flow, queue)| Some((flow, place(queue)?)))?;
        let others = self.flows.queues().filter(|(other, _)| *other != flow);
        Some(self.first.len() + place + others.map(|(_, queue)| queue.len().min(place + 1)).sum::<usize>())
    }

    fn retain(&mut self, mut keep: impl FnMut(DeliveryId) -> bool) {
        self.first.retain(|id| keep(*id));
        self.flows.retain(keep);
        self.len = self.first.len() + self.flows.queues().map(|(_, queue)| queue.len()).sum::<usize>();
    }
}

impl Flows {
    fn push(&mut self, flow: u32, id: DeliveryId) {
        match self {
            Flows::One(own, queue) if *own == flow || queue.is_empty() => {
                *own = flow;
                queue.push_back(id);
            }
            Flows::One(own, queue) => {
                let queues = BTreeMap::from([(*own, std::mem::take(queue)), (flow, VecDeque::from([id]))]);
                *self = Flows::Many { turns: VecDeque::from([*own, flow]), queues };
            }
            Flows::Many { queues, turns } => {
                let queue = queues.entry(flow).or_default();
                if queue.is_empty() {
                    turns.push_back(flow);
                }
                queue.push_back(id);
            }
        }
    }

    fn peek(&self) -> Option<DeliveryId> {
        match self {
            Flows::One(_, queue) => queue.front().copied(),
            Flows::Many { queues, turns } => queues.get(turns.front()?)?.front().copied(),
        }
    }

    fn pop(&mut self) -> Option<DeliveryId> {
        let Flows::Many { queues, turns } = self else {
            let Flows::One(_, queue) = self else { return None };
            return queue.pop_front();
        };
        let flow = turns.pop_front()?;
        let queue = queues.get_mut(&flow)?;
        let id = queue.pop_front()?;
        if queue.is_empty() {
            queues.remove(&flow);
        } else {
            turns.push_back(flow);
        }
        Some(id)
    }

    fn queues(&self) -> impl Iterator<Item = (u32, &VecDeque<DeliveryId>)> {
        let (one, many) = match self {
            Flows::One(flow, queue) => (Some((*flow, queue)), None),
            Flows::Many { queues, .. } => (None, Some(queues.iter().map(|(flow, queue)| (*flow, queue)))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn retain(&mut self, mut keep: impl FnMut(DeliveryId) -> bool) {
        match self {
            Flows::One(_, queue) => queue.retain(|id| keep(*id)),
            Flows::Many { queues, turns } => {
                queues.retain(|_, queue| {
                    queue.retain(|id| keep(*id));
                    !queue.is_empty()
                });
                turns.retain(|flow| queues.contains_key(flow));
            }
        }
    }

    fn shrink(&mut self) {
        match self {
            Flows::One(_, queue) => queue.shrink_to_fit(),
            Flows::Many { queues, turns } => {
                queues.values_mut().for_each(VecDeque::shrink_to_fit);
                turns.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::QueueId;
    use Priority::{Bulk, High, Normal};
    use proptest::prelude::*;

    fn id(n: i64) -> DeliveryId {
        DeliveryId { message: QueueId::from_key(n).unwrap(), part: 0 }
    }

    #[test]
    fn senders_take_turns_and_each_keeps_its_order() {
        let mut line = Line::default();
        for n in 0..4 {
            line.push(Normal, 7, id(n));
        }
        line.push(Normal, 8, id(10));
        line.push(Normal, 8, id(11));
        assert_eq!(line.ahead_of(Normal, id(11)), Some(3));
        assert_eq!(line.drain(), [0, 10, 1, 11, 2, 3].map(id));
        assert!(line.is_empty());
    }

    #[test]
    fn what_goes_back_is_next_in_its_old_order() {
        let mut line = Line::default();
        for n in 0..5 {
            line.push(Normal, 1, id(n));
        }
        let taken = [line.pop(), line.pop(), line.pop()].map(Option::unwrap);
        for id in [taken[1], taken[2], taken[0]] {
            line.put_back(Normal, id);
        }
        assert_eq!(line.drain(), [0, 1, 2, 3, 4].map(id));
    }

    #[test]
    fn a_login_code_is_not_behind_a_newsletter() {
        let mut line = Line::default();
        for n in 0..100 {
            line.push(Bulk, 1, id(n));
        }
        let newsletter = line.pop().unwrap();
        line.put_back(Bulk, newsletter);
        line.push(Normal, 2, id(200));
        line.push(High, 3, id(300));
        assert_eq!([line.pop(), line.pop(), line.pop()], [300, 200, 0].map(|n| Some(id(n))));
    }

    #[test]
    fn every_class_that_waits_gets_its_tenth() {
        let mut line = Line::default();
        for n in 0..1000 {
            line.push(High, 1, id(n));
            line.push(Normal, 2, id(n + 1000));
            line.push(Bulk, 3, id(n + 2000));
        }
        let gone: Vec<i64> = (0..200).map(|_| line.pop().unwrap().message.key()).collect();
        let count = |from: i64| gone.iter().filter(|key| (from..from + 1000).contains(*key)).count();
        assert!((18..=21).contains(&count(2000)) && (18..=21).contains(&count(1000)), "{gone:?}");
        assert_eq!(count(0), 200 - count(1000) - count(2000));
    }

    #[test]
    fn what_is_taken_out_leaves_turns_and_count_right() {
        let mut line = Line::default();
        for n in 0..6 {
            line.push(Normal, (n % 2) as u32, id(n));
        }
        [1, 3, 5].iter().for_each(|n| line.remove(Normal, id(*n)));
        assert_eq!(line.len(), 3);
        line.push(Normal, 1, id(9));
        line.remove(Normal, id(2));
        assert_eq!(line.drain(), [0, 9, 4].map(id));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_pop_takes_what_peek_shows(steps in prop::collection::vec((0u8..4, 0usize..3, 0u32..4), 0..200)) {
            let mut line = Line::default();
            let (mut inside, mut next) = (std::collections::BTreeMap::new(), 0);
            for (what, class, flow) in steps {
                let class = Priority::ALL[class];
                if what < 2 {
                    next += 1;
                    inside.insert(id(next), class);
                    line.push(class, flow, id(next));
                } else {
                    let shown = line.peek();
                    prop_assert_eq!(line.pop(), shown);
                    let Some(taken) = shown else { continue };
                    let class = inside.remove(&taken).unwrap();
                    if what == 2 {
                        inside.insert(taken, class);
                        line.put_back(class, taken);
                    }
                }
                prop_assert_eq!(line.len(), inside.len());
            }
            let left: std::collections::BTreeSet<_> = line.drain().into_iter().collect();
            prop_assert_eq!(left, inside.into_keys().collect());
        }
    }
}
