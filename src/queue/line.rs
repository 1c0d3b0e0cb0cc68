//! Deliveries that are due for one target, in the order in which they go.
//!
//! Each sender has a queue of its own and senders take turns, so that one newsletter does not stand before everybody
//! else's mail. What was taken and could not be sent goes back to the front and keeps its turn.

use std::collections::{BTreeMap, VecDeque};

use crate::types::DeliveryId;

#[derive(Debug, Default)]
pub struct Line {
    /// Went back; goes before everything else.
    first: VecDeque<DeliveryId>,
    flows: BTreeMap<u32, VecDeque<DeliveryId>>,
    /// The flows with something in them, the next one in front.
    turns: VecDeque<u32>,
    len: usize,
}

impl Line {
    pub fn push(&mut self, flow: u32, id: DeliveryId) {
        let queue = self.flows.entry(flow).or_default();
        if queue.is_empty() {
            self.turns.push_back(flow);
        }
        queue.push_back(id);
        self.len += 1;
    }

    /// Puts back what was taken.
    pub fn push_front(&mut self, id: DeliveryId) {
        self.first.push_front(id);
        self.len += 1;
    }

    pub fn pop(&mut self) -> Option<DeliveryId> {
        if let Some(id) = self.first.pop_front() {
            self.len -= 1;
            return Some(id);
        }
        let flow = self.turns.pop_front()?;
        let queue = self.flows.get_mut(&flow)?;
        let id = queue.pop_front()?;
        if queue.is_empty() {
            self.flows.remove(&flow);
        } else {
            self.turns.push_back(flow);
        }
        self.len -= 1;
        Some(id)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes out everything for which `keep` is false. For the rare sweep; costs a pass over all.
    pub fn retain(&mut self, mut keep: impl FnMut(DeliveryId) -> bool) {
        self.first.retain(|id| keep(*id));
        self.flows.retain(|_, queue| {
            queue.retain(|id| keep(*id));
            !queue.is_empty()
        });
        self.turns.retain(|flow| self.flows.contains_key(flow));
        self.len = self.first.len() + self.flows.values().map(VecDeque::len).sum::<usize>();
    }

    /// Empties the line, in the order in which it would have gone.
    pub fn drain(&mut self) -> Vec<DeliveryId> {
        std::iter::from_fn(|| self.pop()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::QueueId;

    fn id(n: i64) -> DeliveryId {
        DeliveryId { message: QueueId::from_key(n).unwrap(), part: 0 }
    }

    #[test]
    fn senders_take_turns_and_each_keeps_its_order() {
        let mut line = Line::default();
        for n in 0..4 {
            line.push(7, id(n));
        }
        line.push(8, id(10));
        line.push(8, id(11));
        assert_eq!(line.drain(), [0, 10, 1, 11, 2, 3].map(id));
        assert!(line.is_empty());
    }

    #[test]
    fn what_goes_back_is_next() {
        let mut line = Line::default();
        line.push(1, id(1));
        line.push(1, id(2));
        let taken = line.pop().unwrap();
        line.push_front(taken);
        assert_eq!(line.drain(), [1, 2].map(id));
    }

    #[test]
    fn retain_keeps_turns_and_count_right() {
        let mut line = Line::default();
        for n in 0..6 {
            line.push((n % 2) as u32, id(n));
        }
        line.retain(|d| d.message.key() % 2 == 0);
        assert_eq!(line.len(), 3);
        line.push(1, id(9));
        assert_eq!(line.drain(), [0, 9, 2, 4].map(id));
    }
}
