//! One unknown recipient at a time.
//!
//! While the answer about a recipient is not known, no second delivery to the same recipient starts: if the answer is
//! "no such user", the others must not ask again (five queued messages to one unknown address put one RCPT on the wire).
//! A recipient that has accepted mail lately is known to exist and needs no gate. Keys are hashes: a collision makes a
//! delivery wait that need not, nothing worse.
//!
//! A mailbox that takes only so many messages in a time rests: nothing for it starts before that is over, then one delivery
//! goes ahead of the others.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use std::time::Duration;

use crate::queue::RecipientKey;
use crate::types::{DeliveryId, Timestamp};

/// Recipients remembered as good in one generation; two generations are kept (some 1 MiB).
const GOOD_MAX: usize = 32_768;
/// Mailboxes that rest; beyond it their deliveries find out one by one.
const RESTING_MAX: usize = 100_000;
/// A mailbox rests no longer than this: its limits are by the hour.
const REST_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub struct Gate {
    in_flight: BTreeMap<RecipientKey, DeliveryId>,
    waiting: BTreeMap<RecipientKey, VecDeque<DeliveryId>>,
    /// Refused for good, and not on the suppression list yet.
    held: BTreeSet<RecipientKey>,
    good: HashSet<RecipientKey>,
    good_before: HashSet<RecipientKey>,
    resting: BTreeMap<RecipientKey, Rest>,
}

#[derive(Debug)]
struct Rest {
    until: Timestamp,
    wait: Duration,
}

impl Gate {
    /// Lets a delivery through, or says behind which recipient it must wait (and remembers that it does).
    pub fn enter(&mut self, id: DeliveryId, keys: &[RecipientKey]) -> bool {
        if let Some(key) = self.taken(id, keys) {
            self.waiting.entry(key).or_default().push_back(id);
            return false;
        }
        for key in keys {
            if !self.is_good(*key) {
                self.in_flight.insert(*key, id);
            }
        }
        true
    }

    /// Would `enter` let it through?
    pub fn is_open(&self, id: DeliveryId, keys: &[RecipientKey]) -> bool {
        self.taken(id, keys).is_none()
    }

    fn taken(&self, id: DeliveryId, keys: &[RecipientKey]) -> Option<RecipientKey> {
        let is_taken = |key: &&RecipientKey| match self.in_flight.get(key) {
            Some(holder) => *holder != id,
            None => self.held.contains(key),
        };
        keys.iter().find(is_taken).copied()
    }

    /// The recipient accepted mail.
    pub fn good(&mut self, key: RecipientKey) {
        if self.is_good(key) {
            return;
        }
        if self.good.len() >= GOOD_MAX {
            self.good_before = std::mem::take(&mut self.good);
        }
        self.good.insert(key);
    }

    /// The mailbox takes no more for now. A repeat soon after the last rest doubles it; one while it lasts changes nothing.
    pub fn rest(&mut self, key: RecipientKey, first: Duration, now: Timestamp) -> Timestamp {
        let wait = match self.resting.get(&key) {
            Some(rest) if now < rest.until => return rest.until,
            Some(rest) if now < rest.until + rest.wait => rest.wait * 2,
            _ => first,
        };
        let wait = wait.clamp(first.min(REST_MAX), REST_MAX);
        let until = now + wait;
        // Whoever goes ahead afterwards goes alone.
        self.good.remove(&key);
        self.good_before.remove(&key);
        if self.resting.len() < RESTING_MAX || self.resting.contains_key(&key) {
            self.resting.insert(key, Rest { until, wait });
        }
        until
    }

    /// Until when one of these mailboxes rests.
    pub fn rests_until(&self, keys: &[RecipientKey], now: Timestamp) -> Option<Timestamp> {
        if self.resting.is_empty() {
            return None;
        }
        keys.iter().filter_map(|key| self.resting.get(key)).map(|rest| rest.until).filter(|until| *until > now).max()
    }

    /// Forgets the rests that nothing follows from any more.
    pub fn sweep(&mut self, now: Timestamp) {
        self.resting.retain(|_, rest| now < rest.until + rest.wait);
    }

    /// The delivery has its answer or is out of the race; returns who may try next. All of those that wait if the
    /// recipient has proven good, else the first.
    pub fn leave(&mut self, id: DeliveryId, keys: &[RecipientKey]) -> Vec<DeliveryId> {
        let mut free = Vec::new();
        for key in keys {
            match self.in_flight.get(key) {
                Some(holder) if *holder != id => continue,
                Some(_) => {
                    self.in_flight.remove(key);
                }
                None => {}
            }
            if !self.held.contains(key) {
                free.extend(self.next(*key));
            }
        }
        free
    }

    /// Nobody enters for this recipient until `let_go`.
    pub fn hold(&mut self, key: RecipientKey) {
        self.held.insert(key);
    }

    /// Returns who may try next.
    pub fn let_go(&mut self, key: RecipientKey) -> Vec<DeliveryId> {
        self.held.remove(&key);
        self.next(key)
    }

    /// Whoever was let go on did not want to: the next one, where nobody is in flight.
    pub fn pass_on(&mut self, keys: &[RecipientKey]) -> Vec<DeliveryId> {
        let free: Vec<RecipientKey> =
            keys.iter().filter(|key| !self.held.contains(key) && !self.in_flight.contains_key(key)).copied().collect();
        free.into_iter().flat_map(|key| self.next(key)).collect()
    }

    fn next(&mut self, key: RecipientKey) -> Vec<DeliveryId> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        if self.is_good(key) {
            return self.waiting.remove(&key).map(Vec::from).unwrap_or_default();
        }
        let Some(queue) = self.waiting.get_mut(&key) else { return Vec::new() };
        let first = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&key);
        }
        first.into_iter().collect()
    }

    fn is_good(&self, key: RecipientKey) -> bool {
        self.good.contains(&key) || self.good_before.contains(&key)
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
    fn the_second_waits_until_the_first_has_its_answer() {
        let mut gate = Gate::default();
        assert!(gate.enter(id(1), &[7]));
        assert!(!gate.enter(id(2), &[7, 8]));
        assert!(!gate.enter(id(3), &[7]));
        assert!(gate.enter(id(4), &[8]));
        assert_eq!(gate.leave(id(1), &[7]), [id(2)]);
    }

    #[test]
    fn once_the_recipient_is_good_everybody_may_go() {
        let mut gate = Gate::default();
        assert!(gate.enter(id(1), &[7]));
        assert!(!gate.enter(id(2), &[7]));
        assert!(!gate.enter(id(3), &[7]));
        gate.good(7);
        assert_eq!(gate.leave(id(1), &[7]), [id(2), id(3)]);
        assert!(gate.enter(id(2), &[7]) && gate.enter(id(3), &[7]));
    }

    #[test]
    fn whoever_gives_up_lets_the_next_one_try() {
        let mut gate = Gate::default();
        assert!(gate.enter(id(1), &[7]));
        assert!(!gate.enter(id(2), &[7]));
        assert!(!gate.enter(id(3), &[7]));
        assert_eq!(gate.leave(id(1), &[7]), [id(2)]);
        assert_eq!(gate.leave(id(2), &[7]), [id(3)], "2 was removed before it entered");
    }

    #[test]
    fn what_others_hold_is_not_given_up() {
        let mut gate = Gate::default();
        assert!(gate.enter(id(1), &[7]));
        assert!(!gate.enter(id(2), &[7]));
        assert!(gate.leave(id(2), &[7]).is_empty());
        assert!(!gate.enter(id(3), &[7]));
    }

    #[test]
    fn a_refused_recipient_is_closed_until_the_list_knows_it() {
        let mut gate = Gate::default();
        assert!(gate.enter(id(1), &[7]));
        assert!(!gate.enter(id(2), &[7]));
        gate.hold(7);
        assert!(gate.leave(id(1), &[7]).is_empty());
        assert!(!gate.enter(id(3), &[7]));
        assert_eq!(gate.let_go(7), [id(2)]);
        assert!(gate.enter(id(2), &[7]));
    }

    #[test]
    fn an_attempt_that_goes_on_does_not_wait_for_its_own_recipients() {
        let mut gate = Gate::default();
        assert!(gate.enter(id(1), &[7, 8]));
        gate.hold(7);
        assert!(gate.enter(id(1), &[7, 8]));
    }

    #[test]
    fn a_mailbox_rests_longer_each_time_and_one_delivery_goes_ahead() {
        let at = |secs: u64| Timestamp::from_secs(1_000_000) + Duration::from_secs(secs);
        let first = Duration::from_secs(600);
        let mut gate = Gate::default();
        gate.good(7);
        assert_eq!(gate.rest(7, first, at(0)), at(600));
        assert_eq!(gate.rest(7, first, at(5)), at(600), "what was on its way changes nothing");
        assert_eq!((gate.rests_until(&[7, 8], at(599)), gate.rests_until(&[8], at(0))), (Some(at(600)), None));
        assert_eq!(gate.rests_until(&[7], at(600)), None);
        assert!(gate.enter(id(1), &[7]) && !gate.enter(id(2), &[7]));
        let mut now = 600;
        let waits: Vec<u64> = (0..4)
            .map(|_| {
                let until = gate.rest(7, first, at(now));
                let wait = until.since(at(now)).as_secs();
                now += wait;
                wait
            })
            .collect();
        assert_eq!(waits, [1200, 2400, 3600, 3600]);
        gate.sweep(at(now + 3600));
        assert_eq!(gate.rest(7, first, at(now + 3600)), at(now + 4200));
    }

    #[test]
    fn goodness_is_remembered_within_bounds() {
        let mut gate = Gate::default();
        for key in 0..200_000 {
            gate.good(key);
        }
        assert!(gate.good.len() + gate.good_before.len() <= 2 * GOOD_MAX);
    }
}
