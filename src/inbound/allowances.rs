//! Recipients a day: how many of a user's `daily_recipients` are left.
//!
//! A day is a calendar day in UTC: everybody can tell when it ends. A recipient is set aside when RCPT is taken, counts when its
//! message is accepted, and is given back where the message is not. Rules that always hold:
//!
//! - in no day are more recipients of a user accepted than its limit, however many connections it has;
//! - what counted is handed over to be kept, so that a kill forgets the last seconds and a restart nothing;
//! - only users with a limit are counted, and what is remembered of them is bounded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::types::Timestamp;

const DAY_SECS: i64 = 86_400;
/// Users remembered at most: twice as many as there can be, for those who were renamed.
const USERS_MAX: usize = 20_000;

/// What users had of their day. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Allowances(Arc<Mutex<BTreeMap<Arc<str>, Count>>>);

/// What is kept of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Days since 1970, UTC.
    pub day: i64,
    /// That were accepted in it.
    pub recipients: u64,
}

#[derive(Debug, Default)]
struct Count {
    used: Used,
    /// Recipients of messages under way.
    aside: u64,
    /// Not handed over yet?
    is_new: bool,
}

/// The recipients of one message under way. Dropped, they are given back.
#[derive(Debug)]
pub(super) struct Aside {
    allowances: Allowances,
    user: Arc<str>,
    recipients: u64,
}

/// Everything is used up until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UsedUp {
    pub(super) until: Timestamp,
}

impl Allowances {
    /// Takes back what was kept.
    pub fn restore(&self, kept: impl IntoIterator<Item = (Arc<str>, Used)>) {
        let mut users = self.lock();
        for (user, used) in kept.into_iter().take(USERS_MAX) {
            users.entry(user).or_default().used = used;
        }
    }

    /// What has counted since the last call.
    pub fn take_new(&self) -> Vec<(Arc<str>, Used)> {
        let mut users = self.lock();
        let new = |count: &mut Count| std::mem::take(&mut count.is_new).then_some(count.used);
        users.iter_mut().filter_map(|(user, count)| Some((user.clone(), new(count)?))).collect()
    }

    /// Is there room for one more recipient of this user, who may have so many a day?
    pub(super) fn has_room(&self, user: &Arc<str>, limit: u64, now: Timestamp) -> Result<(), UsedUp> {
        match self.lock().get_mut(user) {
            Some(count) => count.has_room(limit, now),
            None if limit == 0 => Err(UsedUp { until: end_of(day_of(now)) }),
            None => Ok(()),
        }
    }

    /// Sets one recipient aside for the user, into `aside` if its message has some already.
    pub(super) fn set_aside(
        &self,
        aside: &mut Option<Aside>,
        user: &Arc<str>,
        limit: u64,
        now: Timestamp,
    ) -> Result<(), UsedUp> {
        let mut users = self.lock();
        if users.len() >= USERS_MAX && !users.contains_key(user) {
            // Those who are in the middle of something, or had something today, stay.
            users.retain(|_, count| count.aside > 0 || count.is_new || count.used.day == day_of(now));
        }
        let count = users.entry(user.clone()).or_default();
        count.has_room(limit, now)?;
        count.aside += 1;
        let new = || Aside { allowances: self.clone(), user: user.clone(), recipients: 0 };
        aside.get_or_insert_with(new).recipients += 1;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    fn has_room(&mut self, limit: u64, now: Timestamp) -> Result<(), UsedUp> {
        self.turn_to(day_of(now));
        let has_room = self.used.recipients.saturating_add(self.aside) < limit;
        has_room.then_some(()).ok_or(UsedUp { until: end_of(self.used.day) })
    }

    /// Another day begins with nothing used, also where a clock that was far ahead is set right.
    fn turn_to(&mut self, day: i64) {
        if self.used.day != day {
            self.used = Used { day, recipients: 0 };
        }
    }
}

impl Aside {
    /// The message is accepted: its recipients count in the day that is.
    pub(super) fn count(mut self, now: Timestamp) {
        let recipients = std::mem::take(&mut self.recipients);
        if let Some(count) = self.allowances.lock().get_mut(&self.user) {
            count.turn_to(day_of(now));
            count.aside = count.aside.saturating_sub(recipients);
            count.used.recipients = count.used.recipients.saturating_add(recipients);
            count.is_new = true;
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(count) = self.allowances.lock().get_mut(&self.user) {
            count.aside = count.aside.saturating_sub(self.recipients);
        }
    }
}

fn day_of(now: Timestamp) -> i64 {
    now.secs().div_euclid(DAY_SECS)
}

fn end_of(day: i64) -> Timestamp {
    Timestamp::from_secs(day.saturating_add(1).saturating_mul(DAY_SECS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: i64 = 20_000 * DAY_SECS + DAY_SECS / 2;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(NOON + secs)
    }

    /// How many of `wanted` recipients there was room for.
    fn set_aside(allowances: &Allowances, wanted: u64, limit: u64, now: Timestamp) -> (Option<Aside>, u64) {
        let mut aside = None;
        let taken = (0..wanted).filter(|_| allowances.set_aside(&mut aside, &"app".into(), limit, now).is_ok());
        let taken = taken.count() as u64;
        (aside, taken)
    }

    #[test]
    fn recipients_are_given_back_where_the_message_is_not_accepted() {
        let allowances = Allowances::default();
        let (aside, taken) = set_aside(&allowances, 5, 3, at(0));
        assert_eq!(taken, 3);
        let midnight = at(DAY_SECS / 2);
        assert_eq!(allowances.has_room(&"app".into(), 3, at(0)), Err(UsedUp { until: midnight }));
        assert!(allowances.has_room(&"other".into(), 3, at(0)).is_ok());
        drop(aside);
        let (aside, taken) = set_aside(&allowances, 2, 3, at(1));
        aside.unwrap().count(at(1));
        assert_eq!((taken, set_aside(&allowances, 2, 3, at(2)).1), (2, 1));
    }

    #[test]
    fn a_new_day_begins_with_nothing_used_but_what_is_under_way() {
        let allowances = Allowances::default();
        let (first, _) = set_aside(&allowances, 2, 3, at(0));
        let (second, _) = set_aside(&allowances, 1, 3, at(0));
        first.unwrap().count(at(0));
        let tomorrow = at(DAY_SECS);
        let (third, taken) = set_aside(&allowances, 3, 3, tomorrow);
        assert_eq!(taken, 2);
        drop(third);
        second.unwrap().count(tomorrow);
        assert_eq!(allowances.take_new(), [("app".into(), Used { day: 20_001, recipients: 1 })]);
    }

    #[test]
    fn what_counted_is_handed_over_once_and_taken_back() {
        let allowances = Allowances::default();
        let (aside, _) = set_aside(&allowances, 2, 3, at(0));
        assert_eq!(allowances.take_new(), [], "nothing is accepted yet");
        aside.unwrap().count(at(0));
        let kept = allowances.take_new();
        assert_eq!(kept, [("app".into(), Used { day: 20_000, recipients: 2 })]);
        assert_eq!(allowances.take_new(), []);

        let after_restart = Allowances::default();
        after_restart.restore(kept);
        assert_eq!(set_aside(&after_restart, 3, 3, at(10)).1, 1);
        assert_eq!(set_aside(&after_restart, 3, 3, at(DAY_SECS)).1, 3, "what was kept of yesterday is nothing today");
        assert_eq!(after_restart.take_new(), []);
    }

    #[test]
    fn a_lowered_limit_holds_at_once() {
        let allowances = Allowances::default();
        set_aside(&allowances, 5, 10, at(0)).0.unwrap().count(at(0));
        assert!(allowances.has_room(&"app".into(), 5, at(1)).is_err());
        assert!(allowances.has_room(&"app".into(), 6, at(1)).is_ok());
    }

    #[test]
    fn users_of_other_days_are_forgotten_where_there_are_too_many() {
        let allowances = Allowances::default();
        allowances.restore((0..USERS_MAX + 5).map(|n| (n.to_string().into(), Used { day: 19_999, recipients: 1 })));
        assert_eq!(allowances.lock().len(), USERS_MAX);
        let (_aside, taken) = set_aside(&allowances, 1, 3, at(0));
        assert_eq!((taken, allowances.lock().len()), (1, 1));
    }

    proptest! {
        #[test]
        fn no_day_has_more_than_the_limit(
            limit in 1u64..20, steps in prop::collection::vec((0u64..6, any::<bool>(), 0i64..20_000, any::<prop::sample::Index>()), 1..100)
        ) {
            let allowances = Allowances::default();
            let (mut under_way, mut days, mut now) = (Vec::new(), BTreeMap::<i64, u64>::new(), at(0));
            for (wanted, is_accepted, wait, which) in steps {
                now = now + std::time::Duration::from_secs(wait.unsigned_abs());
                under_way.extend(set_aside(&allowances, wanted, limit, now).0);
                if under_way.is_empty() {
                    continue;
                }
                let aside: Aside = under_way.swap_remove(which.index(under_way.len()));
                if is_accepted {
                    *days.entry(day_of(now)).or_default() += aside.recipients;
                    aside.count(now);
                }
            }
            prop_assert!(days.values().all(|&used| used <= limit), "{days:?}");
            drop(under_way);
            prop_assert_eq!(allowances.lock().get("app").map_or(0, |count| count.aside), 0);
        }
    }
}
