//! What will happen, and when: earliest first, and in the order of planning where the time is the same.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use weir::types::Timestamp;

pub struct Agenda<T> {
    entries: BinaryHeap<Reverse<Entry<T>>>,
    planned: u64,
}

struct Entry<T> {
    at: Timestamp,
    number: u64,
    what: T,
}

impl<T> Default for Agenda<T> {
    fn default() -> Agenda<T> {
        Agenda { entries: BinaryHeap::new(), planned: 0 }
    }
}

impl<T> Agenda<T> {
    pub fn plan(&mut self, at: Timestamp, what: T) {
        self.planned += 1;
        self.entries.push(Reverse(Entry { at, number: self.planned, what }));
    }

    /// When the next thing happens; never, if nothing is planned.
    pub fn next_at(&self) -> Timestamp {
        self.entries.peek().map_or(Timestamp::NEVER, |Reverse(entry)| entry.at)
    }

    pub fn pop(&mut self) -> Option<T> {
        self.entries.pop().map(|Reverse(entry)| entry.what)
    }
}

impl<T> Entry<T> {
    fn rank(&self) -> (Timestamp, u64) {
        (self.at, self.number)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.rank() == other.rank()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}
