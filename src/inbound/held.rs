//! Memory that all sessions share: for headers that are held until their end was seen, and for the recipients of messages under way.
//!
//! The rule that always holds: all sessions together hold at most so much of each. A header that would go beyond it is released: the
//! message is taken all the same, with what is missing in its header added at the header's end. A recipient that would go beyond it
//! is put off alone.

use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::types::Recipient;

/// A thousand clients whose headers of usual size come in small packets, or 128 headers of the greatest length held.
const HEADERS_MAX: usize = 8 << 20;
/// A hundred messages to a thousand recipients each, under way at once, besides what every session may hold.
const RECIPIENTS_MAX: usize = 32 << 20;
/// Of its recipients every session may hold this much whatever the others hold: some twenty, so that what applications send to single
/// people is taken while others fill the rest.
const RECIPIENTS_OWN: usize = 4 << 10;
/// What the allocations of a recipient cost beside their text: two or three blocks, rounded up.
const BLOCKS: usize = 64;

/// What all sessions hold of one kind. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    octets: Arc<AtomicUsize>,
    octets_max: usize,
    /// Of each session, not counted.
    own: usize,
}

/// One session's part; given back on drop.
#[derive(Debug)]
pub(super) struct Hold {
    all: Held,
    /// What the session holds, and what of it is counted.
    octets: usize,
    counted: usize,
}

impl Held {
    pub(super) fn headers() -> Held {
        Held { octets: Arc::default(), octets_max: HEADERS_MAX, own: 0 }
    }

    pub(super) fn recipients() -> Held {
        Held { octets: Arc::default(), octets_max: RECIPIENTS_MAX, own: RECIPIENTS_OWN }
    }

    /// A part of nothing yet.
    pub(super) fn hold(&self) -> Hold {
        Hold { all: self.clone(), octets: 0, counted: 0 }
    }
}

impl Hold {
    /// Holds `octets` from now on; false, and the part is as it was, where that is more than there is.
    pub(super) fn resize(&mut self, octets: usize) -> bool {
        let counted = octets.saturating_sub(self.all.own);
        let others = |all: usize| all.saturating_sub(self.counted);
        let change = |all| Some(others(all).saturating_add(counted)).filter(|&sum| sum <= self.all.octets_max);
        let is_there = counted == self.counted
            || self.all.octets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok();
        if is_there {
            (self.octets, self.counted) = (octets, counted);
        }
        is_there
    }

    /// Holds one recipient more; false where there is no room for it.
    pub(super) fn add(&mut self, recipient: &Recipient) -> bool {
        self.resize(self.octets.saturating_add(footprint(recipient)))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.all.octets.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// What a recipient takes in memory, at most: a list that grows is half empty at times.
fn footprint(recipient: &Recipient) -> usize {
    let address = &recipient.address;
    let text = address.as_str().len() + address.domain().as_str().len();
    2 * size_of::<Recipient>() + BLOCKS + text + recipient.orcpt.as_ref().map_or(0, String::capacity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Mailbox, Notify};

    #[test]
    fn all_parts_together_stay_within_the_limit_and_come_back() {
        let all = Held::headers();
        let (mut one, mut two) = (all.hold(), all.hold());
        assert!(one.resize(HEADERS_MAX - 10) && two.resize(10));
        assert!(!two.resize(11) && two.resize(5) && one.resize(HEADERS_MAX - 5));
        drop(one);
        assert_eq!(all.octets.load(Ordering::Relaxed), 5);
        assert!(two.resize(HEADERS_MAX) && two.resize(0));
        assert_eq!(all.octets.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn every_session_has_room_for_some_recipients_whatever_the_others_hold() {
        let recipient =
            |text: &str| Recipient { address: Mailbox::parse(text).unwrap(), orcpt: None, notify: Notify::default() };
        let all = Held::recipients();
        let (mut greedy, mut modest) = (all.hold(), all.hold());
        let label = "d".repeat(63);
        let long = recipient(&format!("{}@{label}.{label}.{label}", "l".repeat(62)));
        let taken = (0..1_000_000).take_while(|_| greedy.add(&long)).count();
        assert!((30_000..60_000).contains(&taken), "{taken} of the longest fit: a bound, and a useful one");
        let usual = recipient("somebody@customer.example");
        let own = (0..1000).take_while(|_| modest.add(&usual)).count();
        assert!((15..30).contains(&own), "{own}");
        assert!(modest.resize(0), "the transaction is over");
        assert!(greedy.resize(0) && modest.resize(RECIPIENTS_MAX));
    }
}
