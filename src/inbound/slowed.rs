//! Users and clients that are kept waiting because receivers do not know whom they write to.
//!
//! A client whose recipients are mostly unknown checks addresses by sending to them, or has a list that is. Receivers forbid
//! the one and distrust the other, and it is our address that pays. Rules that always hold:
//!
//! - a user is slowed wherever it comes from, and nobody else at its addresses; a client's address where it sends without a log-in;
//! - who is slowed hears `450 4.7.1` at MAIL, with the reason, and nothing else is changed: no connection is refused and
//!   no message under way is cut off;
//! - it is over by itself at the time that was set;
//! - who is slowed stands in the log by name, each time.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use crate::types::{Submitter, Timestamp};

/// Nobody is slowed for longer at a time: what lies further ahead was set by a clock that was ahead.
const SLOWED_FOR_MAX: Duration = Duration::from_secs(3600);
/// Slowed at once. One more takes the place of the one whose time ends first.
const SLOWED_MAX: usize = 1000;

/// Who is slowed. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Slowed(Arc<RwLock<BTreeMap<Submitter, Slow>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Slow {
    until: Timestamp,
    reason: Arc<str>,
}

impl Slow {
    fn holds(&self, now: Timestamp) -> bool {
        now < self.until && self.until.since(now) <= SLOWED_FOR_MAX
    }
}

impl Slowed {
    /// Keeps `who` waiting until then. `reason`: in words, for the client and the log.
    pub fn slow(&self, who: Submitter, reason: &str, until: Timestamp) {
        tracing::warn!("{who} is slowed down until {until}: {reason}");
        let mut slowed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if slowed.len() >= SLOWED_MAX && !slowed.contains_key(&who) {
            let first = slowed.iter().min_by_key(|(_, slow)| slow.until).map(|(who, _)| who.clone());
            first.map(|first| slowed.remove(&first));
        }
        slowed.insert(who, Slow { until, reason: reason.into() });
    }

    /// Why `who` is kept waiting; none: it is not.
    pub fn reason(&self, who: &Submitter, now: Timestamp) -> Option<Arc<str>> {
        let slow = self.read().get(who)?.clone();
        if slow.holds(now) {
            return Some(slow.reason);
        }
        self.sweep(now);
        None
    }

    /// Everybody who is kept waiting, until when and why.
    pub fn list(&self, now: Timestamp) -> Vec<(Submitter, Timestamp, Arc<str>)> {
        let slowed = self.read();
        let slowed = slowed.iter().filter(|(_, slow)| slow.holds(now));
        slowed.map(|(who, slow)| (who.clone(), slow.until, slow.reason.clone())).collect()
    }

    fn sweep(&self, now: Timestamp) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|_, slow| slow.holds(now));
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Submitter, Slow>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn client(address: &str) -> Submitter {
        Submitter::new(None, address.parse().unwrap())
    }

    #[test]
    fn a_clock_that_was_ahead_slows_nobody_for_as_long() {
        let slowed = Slowed::default();
        slowed.slow(client("192.0.2.5"), "why", at(86_400 + 600));
        assert_eq!(slowed.reason(&client("192.0.2.5"), at(0)), None);
        assert!(slowed.list(at(0)).is_empty());
    }

    #[test]
    fn a_client_is_slowed_until_then_and_under_either_form_of_its_address() {
        let slowed = Slowed::default();
        slowed.slow(client("::ffff:192.0.2.5"), "why", at(100));
        let one = client("192.0.2.5");
        assert_eq!(slowed.reason(&one, at(99)).as_deref(), Some("why"));
        assert_eq!(slowed.reason(&client("192.0.2.6"), at(99)), None);
        slowed.slow(one.clone(), "again", at(200));
        assert_eq!(slowed.list(at(150)), [(one.clone(), at(200), "again".into())]);
        assert_eq!(slowed.reason(&one, at(200)), None);
        assert!(slowed.read().is_empty());
    }

    #[test]
    fn a_user_is_slowed_and_its_neighbours_at_the_same_address_are_not() {
        let slowed = Slowed::default();
        let address = [192, 0, 2, 5].into();
        let [app, other] = ["app", "other"].map(|user| Submitter::new(Some(user), address));
        slowed.slow(app.clone(), "why", at(100));
        assert!(slowed.reason(&app, at(99)).is_some());
        assert!(slowed.reason(&other, at(99)).is_none() && slowed.reason(&client("192.0.2.5"), at(99)).is_none());
    }

    #[test]
    fn it_never_remembers_more_than_its_limit() {
        let slowed = Slowed::default();
        let one = |n: u32| Submitter::Client(std::net::Ipv4Addr::from(n).into());
        for n in 0..2000u32 {
            slowed.slow(one(n), "why", at(1000 + i64::from(n)));
        }
        assert_eq!(slowed.list(at(0)).len(), SLOWED_MAX);
        assert!(slowed.reason(&one(1999), at(0)).is_some());
        assert!(slowed.reason(&one(0), at(0)).is_none());
    }
}
