//! Who may log in (SMTP AUTH, RFC 4954), and what those who did may do.
//!
//! The room knows users and passwords and nothing of SMTP: the dialogue hands it what a client said, and gets a user or a
//! refusal. Rules that always hold:
//!
//! - a refused client learns nothing: a user who does not exist costs the same work as one who does, and a refusal comes
//!   [`DELAY`] after the question, whatever happened in between;
//! - guessing costs the guesser more than us: after so many wrong answers nothing is checked any more (`guesses`), and
//!   checks never take more than the cores there are (`checks`);
//! - who logs in rightly and often pays once in ten minutes: what was checked is remembered (`table`);
//! - no password and no hash reaches a log, an error or what `{:?}` shows.

mod aging;
mod checks;
mod guesses;
mod hash;
mod lines;
pub mod options;
mod table;
#[cfg(test)]
mod tests;
mod users;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

pub use crate::types::Secret;
pub use hash::{Hash, HashError};
pub use users::{UserFault, Users, UsersError};

use tokio::time::timeout;

use crate::clock::Clock;
use crate::types::{Domain, Priority, RateLimit, client_of};

use checks::{Busy, Checks, WAIT_MAX};
use guesses::{Attempt, Guesses, Outcome, Refused};
use lines::Lines;
use table::{Check, Mark, Table, lock};

/// A refusal comes so long after the question. Longer than any check takes, shorter than a client waits.
pub const DELAY: Duration = Duration::from_secs(2);

/// Somebody who may log in, with what is allowed to them.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub name: Arc<str>,
    pub class: Priority,
    /// The most urgent that mail may call itself.
    pub class_max: Priority,
    /// If not empty: the only domains mail may come from.
    pub sender_domains: Vec<Domain>,
    /// Messages in a time.
    pub rate: RateLimit,
    /// Recipients a day; none: as many as one likes.
    pub daily_recipients: Option<u64>,
    /// How long messages are tried; none: as long as the queue does.
    pub expire: Option<Duration>,
}

/// Why somebody was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No such user, or not the password: `535 5.7.8`.
    #[error("wrong user or password")]
    Wrong,
    /// Too many wrong guesses lately; says nothing about this one: `454 4.7.0`.
    #[error("too many failed attempts")]
    TooMany,
    /// No check could be made in time; says nothing about the password either: `454 4.7.0`.
    #[error("too many log-ins at once")]
    Busy,
}

/// Answers log-ins. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Auth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    table: RwLock<Arc<Table>>,
    guesses: Mutex<Guesses>,
    checks: Checks,
    lines: Mutex<Lines>,
}

impl Auth {
    pub fn new(users: Users, clock: Clock) -> Auth {
        Auth(Arc::new(Inner {
            clock,
            table: RwLock::new(Arc::new(Table::new(users))),
            guesses: Mutex::default(),
            checks: Checks::new(),
            lines: Mutex::default(),
        }))
    }

    /// Takes a table that was read again. What was remembered of passwords is dropped; wrong guesses still count. A log-in
    /// that is under way is answered by the old one.
    pub fn replace(&self, users: Users) {
        *self.0.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Table::new(users));
    }

    pub fn has_users(&self) -> bool {
        !self.0.table().users.is_empty()
    }

    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        self.0.table().users.get(name).map(|entry| entry.user.clone())
    }

    /// Whose token this is; none: nobody's.
    pub fn user_of_token(&self, token: &[u8]) -> Option<Arc<User>> {
        self.0.table().users.of_token(token).map(|entry| entry.user.clone())
    }

    /// Answers a log-in of `client`. To give up waiting for the answer is to have guessed wrong.
    pub async fn log_in(&self, client: IpAddr, name: &str, password: &[u8]) -> Result<Arc<User>, Denied> {
        let clock = &self.0.clock;
        let begun = clock.now();
        let answer = self.0.judge(client_of(client), name, password).await;
        if let Err(denied) = answer {
            if let Some(line) = lock(&self.0.lines).line(clock.now(), client, name, denied) {
                tracing::warn!("{line}");
            }
            clock.wake_at(begun + DELAY).await;
        }
        answer
    }
}

impl Inner {
    fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn judge(&self, client: IpAddr, name: &str, password: &[u8]) -> Result<Arc<User>, Denied> {
        let table = self.table();
        let entry = table.users.get(name);
        let name = entry.map_or_else(|| options::cut_name(name).into(), |entry| entry.user.name.clone());
        let mark = table.mark(&name, password);
        let check = table.check(mark);
        let mut attempt = self.attempt(client, &name, &check)?;
        let right = match entry {
            Some(entry) if table.remembers(&entry.user.name, &mark, self.clock.now()) => Ok(true),
            _ => self.check(&table, client, &name, mark, &check, password).await,
        };
        let outcome = match right {
            Ok(true) => Outcome::Right,
            Ok(false) => Outcome::Wrong,
            Err(Busy) => Outcome::Unjudged,
        };
        if outcome != Outcome::Unjudged && attempt.attempt.is_none() {
            // Whoever asked first, and was counted, may have given up.
            attempt = self.attempt(client, &name, &check)?;
        }
        attempt.settle(outcome);
        match (outcome, entry) {
            (Outcome::Right, Some(entry)) => {
                lock(&self.guesses).meet(self.clock.now(), client, &name);
                Ok(entry.user.clone())
            }
            (Outcome::Unjudged, _) => Err(Denied::Busy),
            _ => Err(Denied::Wrong),
        }
    }

    /// Counts the attempt, unless this client is asking the very same already.
    fn attempt<'a>(&'a self, client: IpAddr, name: &Arc<str>, check: &'a Check) -> Result<Counted<'a>, Denied> {
        let mut counted = lock(&check.counted);
        if counted.contains(&client) {
            return Ok(Counted { inner: self, check, client, attempt: None });
        }
        let attempt = lock(&self.guesses).attempt(self.clock.now(), client, name);
        let attempt = attempt.map_err(|refused| match refused {
            Refused::TooMany => Denied::TooMany,
            Refused::Unsure => Denied::Busy,
        })?;
        counted.insert(client);
        Ok(Counted { inner: self, check, client, attempt: Some(attempt) })
    }

    /// Is the password right? Asked by many at once, it is worked out once.
    async fn check(
        &self,
        table: &Arc<Table>,
        client: IpAddr,
        name: &Arc<str>,
        mark: Mark,
        check: &Check,
        password: &[u8],
    ) -> Result<bool, Busy> {
        let known = lock(&self.guesses).knows(self.clock.now(), client, name);
        let right = check.right.get_or_try_init(|| {
            let (table, clock, name) = (table.clone(), self.clock.clone(), name.clone());
            let password = Secret::new(password);
            self.checks.run(known, move || {
                let entry = table.users.get(&name);
                let right = table.hash_of(entry).matches(password.expose()) && entry.is_some();
                // Here, so that the work is not lost where nobody waits for it any more.
                if right {
                    table.remember(&name, mark, clock.now());
                }
                right
            })
        });
        // Those behind one who gave up do not wait all over again.
        timeout(WAIT_MAX, right).await.unwrap_or(Err(Busy)).copied()
    }
}

/// An attempt that is counted as wrong where nobody stays to hear the answer.
struct Counted<'a> {
    inner: &'a Inner,
    check: &'a Check,
    client: IpAddr,
    /// None: another one of the same client, for the same check, is counted.
    attempt: Option<Attempt>,
}

impl Counted<'_> {
    fn settle(&mut self, outcome: Outcome) {
        let Some(attempt) = self.attempt.take() else { return };
        lock(&self.inner.guesses).settle(&attempt, outcome);
        if outcome == Outcome::Unjudged {
            lock(&self.check.counted).remove(&self.client);
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.settle(Outcome::Wrong);
    }
}
