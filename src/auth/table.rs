//! The users in force, and what this process remembers of their passwords.
//!
//! Rules that always hold:
//! - a password that was found right is remembered for [`REMEMBERED_FOR`] as a keyed hash (HMAC-SHA-256) under a key that only
//!   this table has: whoever reads the memory cannot look it up anywhere, and a new table knows nothing of the old one;
//! - one password is remembered for each user, so what is remembered is never more than there are users;
//! - what is compared, is compared in constant time;
//! - those who try the same password for the same user at the same time share one check.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::SHA256_OUTPUT_LEN;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use tokio::sync::OnceCell;

use super::hash::Hash;
use super::users::{Entry, Users};
use crate::types::Timestamp;

pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// A name with a password, under the key of a table: says nothing to anybody else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark([u8; SHA256_OUTPUT_LEN]);

#[derive(Debug)]
pub(super) struct Table {
    pub(super) users: Users,
    /// Checked in place of a user who does not exist.
    nobody: Arc<Hash>,
    key: hmac::Key,
    remembered: Mutex<BTreeMap<Arc<str>, (Mark, Timestamp)>>,
    under_way: Mutex<BTreeMap<Mark, Weak<Check>>>,
}

/// One check of one password, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Check {
    pub(super) right: OnceCell<bool>,
    /// Clients whose attempt was counted: to ask the same twice at once is to ask once.
    pub(super) counted: Mutex<BTreeSet<IpAddr>>,
}

impl Table {
    pub(super) fn new(users: Users) -> Table {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Table {
            users,
            nobody: Arc::new(Hash::of_nothing()),
            key: key.expect("the system has random numbers for us"),
            remembered: Mutex::default(),
            under_way: Mutex::default(),
        }
    }

    pub(super) fn mark(&self, name: &str, password: &[u8]) -> Mark {
        let mut context = hmac::Context::with_key(&self.key);
        // With the length before it no name runs into the password.
        context.update(&(name.len() as u64).to_be_bytes());
        context.update(name.as_bytes());
        context.update(password);
        let mut mark = [0; SHA256_OUTPUT_LEN];
        mark.copy_from_slice(context.sign().as_ref());
        Mark(mark)
    }

    /// What is to be checked for `entry`; for nobody, what takes as long and fits no password.
    pub(super) fn hash_of(&self, entry: Option<&Entry>) -> Arc<Hash> {
        entry.map_or(&self.nobody, |entry| &entry.hash).clone()
    }
    pub(super) fn remember(&self, name: &Arc<str>, mark: Mark, now: Timestamp) {
        lock(&self.remembered).insert(name.clone(), (mark, now));
    }

    /// Was this password found right lately?
    pub(super) fn remembers(&self, name: &str, mark: &Mark, now: Timestamp) -> bool {
        let mut remembered = lock(&self.remembered);
        let Some((known, since)) = remembered.get(name) else { return false };
        // A clock that was set back makes nothing last longer.
        if now < *since || now.since(*since) >= REMEMBERED_FOR {
            remembered.remove(name);
            return false;
        }
        verify_slices_are_equal(&known.0, &mark.0).is_ok()
    }

    /// The check of this password that is under way, else a new one.
    pub(super) fn check(&self, mark: Mark) -> Arc<Check> {
        let mut under_way = lock(&self.under_way);
        if let Some(check) = under_way.get(&mark).and_then(Weak::upgrade) {
            return check;
        }
        // As many as log-ins are under way, and those are bounded by the connections.
        under_way.retain(|_, check| check.strong_count() > 0);
        let check = Arc::new(Check::default());
        under_way.insert(mark, Arc::downgrade(&check));
        check
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(crate::types::MASK)
    }
}

/// Nothing that is done under these locks can break what they guard.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_remembered_for_ten_minutes_for_its_user_alone() {
        let table = Table::new(Users::default());
        let at = Timestamp::from_secs;
        let mark = table.mark("app", b"s3cret");
        assert!(!table.remembers("app", &mark, at(1000)));
        table.remember(&"app".into(), mark, at(1000));
        assert!(table.remembers("app", &mark, at(1599)));
        assert!(!table.remembers("app", &table.mark("app", b"s3cres"), at(1001)));
        assert!(!table.remembers("other", &table.mark("other", b"s3cret"), at(1001)));
        assert!(!table.remembers("app", &mark, at(1600)));
        assert!(!table.remembers("app", &mark, at(1001)), "forgotten is forgotten");
        table.remember(&"app".into(), mark, at(1000));
        assert!(!table.remembers("app", &mark, at(999)), "the clock was set back");
    }

    #[test]
    fn a_mark_belongs_to_one_table_one_name_and_one_password() {
        let (one, other) = (Table::new(Users::default()), Table::new(Users::default()));
        assert_eq!(one.mark("app", b"s3cret"), one.mark("app", b"s3cret"));
        assert_ne!(one.mark("app", b"s3cret"), one.mark("apps", b"3cret"));
        assert_ne!(one.mark("app", b"s3cret"), other.mark("app", b"s3cret"));
        assert_eq!(format!("{:?}", one.mark("app", b"s3cret")), "***");
    }

    #[test]
    fn a_check_is_shared_as_long_as_somebody_waits_for_it() {
        let table = Table::new(Users::default());
        let mark = table.mark("app", b"s3cret");
        let check = table.check(mark);
        assert!(Arc::ptr_eq(&check, &table.check(mark)));
        assert!(!Arc::ptr_eq(&check, &table.check(table.mark("app", b"x"))));
        drop(check);
        table.check(mark);
        assert_eq!(lock(&table.under_way).len(), 1);
    }
}
