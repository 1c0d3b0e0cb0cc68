//! How many wrong passwords are listened to.
//!
//! In any [`WINDOW`] a client gets [`CLIENT_MAX`] wrong answers, whomever it tries to be, and a user is guessed at [`USER_MAX`]
//! times, by however many clients; what comes on top is turned away before any work is done for it. Where a user
//! has logged in from a client lately, the two are *known* to each other, and then only their own count holds, of
//! [`KNOWN_MAX`]: strangers who guess at a user lock nobody out, nor does one program with an old password lock out its
//! neighbours at the same address.
//!
//! Rules that always hold:
//! - an attempt counts as wrong from its beginning, until it turns out to be right: a thousand at once are no way around;
//! - names that exist and names that do not are counted alike, or the answers would tell which is which;
//! - what is remembered is bounded. Whoever makes it forget has spent ten thousand guesses on that.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::aging::Aging;
use crate::types::Timestamp;

/// How long a wrong attempt counts.
pub(super) const WINDOW: Duration = Duration::from_secs(600);
/// Wrong attempts of one client (an IPv4 address, an IPv6 /64): enough for a person with three old passwords in six programs.
pub(super) const CLIENT_MAX: usize = 20;
/// Wrong attempts at one user, by all clients that are not known: a dictionary of a million would take 140 days.
pub(super) const USER_MAX: usize = 50;
/// Wrong attempts of a known client at its user.
pub(super) const KNOWN_MAX: usize = 20;
/// How long client and user stay known to each other: longer than a weekly report is apart.
pub(super) const KNOWN_FOR: Duration = Duration::from_secs(8 * 86_400);

/// Why an attempt is not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many were wrong.
    TooMany,
    /// So many are being checked that they could be too many: soon it will be known.
    Unsure,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Right,
    Wrong,
    /// Nothing was found out about the password.
    Unjudged,
}

/// An attempt that was let through. It counts as wrong until it is settled otherwise.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    client: IpAddr,
    user: Arc<str>,
    known: bool,
    at: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Guesses {
    clients: Windows<IpAddr>,
    users: Windows<Arc<str>>,
    pairs: Windows<(IpAddr, Arc<str>)>,
    known: Aging<(IpAddr, Arc<str>), ()>,
}

impl Guesses {
    /// Is an attempt of `client` at `user` listened to? `client` stands for all addresses of one client.
    pub(super) fn attempt(&mut self, now: Timestamp, client: IpAddr, user: &Arc<str>) -> Result<Attempt, Refused> {
        let known = self.knows(now, client, user);
        if known {
            let pair = (client, user.clone());
            self.pairs.has_room(now, &pair, KNOWN_MAX)?;
            self.pairs.take(now, &pair);
        } else {
            self.clients.has_room(now, &client, CLIENT_MAX)?;
            self.users.has_room(now, user, USER_MAX)?;
            self.clients.take(now, &client);
            self.users.take(now, user);
        }
        Ok(Attempt { client, user: user.clone(), known, at: now })
    }

    pub(super) fn settle(&mut self, attempt: &Attempt, outcome: Outcome) {
        let Attempt { client, user, known, at } = attempt;
        if *known {
            self.pairs.settle(&(*client, user.clone()), *at, outcome);
        } else {
            self.clients.settle(client, *at, outcome);
            self.users.settle(user, *at, outcome);
        }
    }

    /// The user has logged in from there.
    pub(super) fn meet(&mut self, now: Timestamp, client: IpAddr, user: &Arc<str>) {
        self.known.touch(&(client, user.clone()), now);
    }

    /// Has the user logged in from there lately?
    pub(super) fn knows(&mut self, now: Timestamp, client: IpAddr, user: &Arc<str>) -> bool {
        self.known.forget_until(now - KNOWN_FOR);
        self.known.get_mut(&(client, user.clone())).is_some()
    }
}

/// For each key the attempts of the last [`WINDOW`].
#[derive(Debug)]
struct Windows<K>(Aging<K, Window>);

#[derive(Debug, Default)]
struct Window {
    /// When each began, the oldest first.
    attempts: VecDeque<Timestamp>,
    /// So many of them are not settled yet.
    open: usize,
}

impl<K> Default for Windows<K> {
    fn default() -> Windows<K> {
        Windows(Aging::default())
    }
}

impl<K: Ord + Clone> Windows<K> {
    fn has_room(&mut self, now: Timestamp, key: &K, max: usize) -> Result<(), Refused> {
        self.0.forget_until(now - WINDOW);
        let Some(window) = self.0.get_mut(key) else { return Ok(()) };
        window.prune(now);
        match window.attempts.len() {
            wrong if wrong < max => Ok(()),
            all if all - window.open.min(all) < max => Err(Refused::Unsure),
            _ => Err(Refused::TooMany),
        }
    }

    fn take(&mut self, now: Timestamp, key: &K) {
        let window = self.0.touch(key, now);
        window.attempts.push_back(now);
        window.open += 1;
    }

    fn settle(&mut self, key: &K, at: Timestamp, outcome: Outcome) {
        // A window that was forgotten meanwhile holds nothing to settle.
        let Some(window) = self.0.get_mut(key) else { return };
        window.open = window.open.saturating_sub(1);
        if outcome != Outcome::Wrong
            && let Some(place) = window.attempts.iter().rposition(|&began| began == at)
        {
            window.attempts.remove(place);
        }
        if window.attempts.is_empty() {
            self.0.remove(key);
        }
    }
}

impl Window {
    /// A clock that was set back makes what lies ahead of it count from now on, so that nobody waits for years.
    fn prune(&mut self, now: Timestamp) {
        for attempt in &mut self.attempts {
            *attempt = (*attempt).min(now);
        }
        while self.attempts.front().is_some_and(|&began| began <= now - WINDOW) {
            self.attempts.pop_front();
        }
        self.open = self.open.min(self.attempts.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::aging::CAPACITY;
    use super::*;

    fn client(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    impl Guesses {
        fn guess(&mut self, now: Timestamp, who: u32, user: &str, outcome: Outcome) -> Result<(), Refused> {
            let attempt = self.attempt(now, client(who), &user.into())?;
            self.settle(&attempt, outcome);
            if outcome == Outcome::Right {
                self.meet(now, client(who), &user.into());
            }
            Ok(())
        }

        fn wrong(&mut self, now: Timestamp, who: u32, user: &str) -> Result<(), Refused> {
            self.guess(now, who, user, Outcome::Wrong)
        }
    }

    #[test]
    fn a_client_is_turned_away_after_so_many_until_the_window_has_passed() {
        let mut guesses = Guesses::default();
        for n in 0..CLIENT_MAX {
            assert_eq!(guesses.wrong(at(n as i64), 1, &format!("user{n}")), Ok(()));
        }
        assert_eq!(guesses.wrong(at(100), 1, "other"), Err(Refused::TooMany));
        assert_eq!(guesses.wrong(at(100), 2, "other"), Ok(()));
        let window = WINDOW.as_secs() as i64;
        assert_eq!(guesses.wrong(at(window - 1), 1, "other"), Err(Refused::TooMany));
        assert_eq!(guesses.wrong(at(window), 1, "other"), Ok(()));
        assert_eq!(guesses.wrong(at(window), 1, "other"), Err(Refused::TooMany), "one left the window, one came");
    }

    #[test]
    fn a_user_is_guessed_at_so_often_by_all_together() {
        let mut guesses = Guesses::default();
        for n in 0..USER_MAX {
            assert_eq!(guesses.wrong(at(0), n as u32, "app"), Ok(()));
        }
        assert_eq!(guesses.wrong(at(1), 1000, "app"), Err(Refused::TooMany));
        assert_eq!(guesses.wrong(at(1), 1000, "other"), Ok(()));
    }

    #[test]
    fn strangers_lock_no_user_out_of_where_it_logged_in() {
        let mut guesses = Guesses::default();
        assert_eq!(guesses.guess(at(0), 7, "app", Outcome::Right), Ok(()));
        for n in 0..USER_MAX {
            guesses.wrong(at(1), 1000 + n as u32, "app").unwrap();
        }
        assert_eq!(guesses.guess(at(2), 8, "app", Outcome::Right), Err(Refused::TooMany), "not known there");
        assert_eq!(guesses.guess(at(2), 7, "app", Outcome::Right), Ok(()));
        for _ in 0..KNOWN_MAX {
            assert_eq!(guesses.wrong(at(3), 7, "app"), Ok(()));
        }
        assert_eq!(guesses.wrong(at(3), 7, "app"), Err(Refused::TooMany), "a known client may not guess for ever");
    }

    #[test]
    fn a_program_with_an_old_password_locks_no_neighbour_out() {
        let mut guesses = Guesses::default();
        guesses.guess(at(0), 7, "good", Outcome::Right).unwrap();
        while guesses.wrong(at(1), 7, "old").is_ok() {}
        assert_eq!(guesses.guess(at(2), 7, "good", Outcome::Right), Ok(()));
        assert_eq!(guesses.guess(at(2), 7, "new", Outcome::Right), Err(Refused::TooMany));
    }

    #[test]
    fn acquaintance_ends_when_it_is_not_renewed() {
        let mut guesses = Guesses::default();
        let days = |n: u64| at(0) + Duration::from_secs(n * 86_400);
        guesses.guess(days(0), 7, "app", Outcome::Right).unwrap();
        guesses.guess(days(7), 7, "app", Outcome::Right).unwrap();
        assert!(guesses.knows(days(14), client(7), &"app".into()));
        assert!(!guesses.knows(days(15), client(7), &"app".into()));
    }

    #[test]
    fn what_is_right_or_was_not_judged_does_not_count() {
        let mut guesses = Guesses::default();
        for n in 0..1000 {
            let outcome = if n % 2 == 0 { Outcome::Right } else { Outcome::Unjudged };
            assert_eq!(guesses.guess(at(0), 1, &format!("user{n}"), outcome), Ok(()));
        }
        assert_eq!((guesses.clients.0.len(), guesses.users.0.len()), (0, 0));
    }

    #[test]
    fn many_at_once_are_no_way_around_and_no_offence_either() {
        let mut guesses = Guesses::default();
        let user = |n: usize| -> Arc<str> { format!("user{n}").into() };
        let open: Vec<Attempt> =
            (0..CLIENT_MAX).map(|n| guesses.attempt(at(0), client(1), &user(n)).unwrap()).collect();
        assert_eq!(guesses.attempt(at(0), client(1), &user(99)).unwrap_err(), Refused::Unsure);
        for attempt in &open[1..] {
            guesses.settle(attempt, Outcome::Wrong);
        }
        assert_eq!(guesses.attempt(at(1), client(1), &user(99)).unwrap_err(), Refused::Unsure);
        guesses.settle(&open[0], Outcome::Wrong);
        assert_eq!(guesses.attempt(at(1), client(1), &user(99)).unwrap_err(), Refused::TooMany);
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out_for_longer_than_a_window() {
        let mut guesses = Guesses::default();
        while guesses.wrong(at(1_000_000), 1, "app").is_ok() {}
        assert_eq!(guesses.wrong(at(0), 1, "app"), Err(Refused::TooMany));
        assert_eq!(guesses.wrong(at(0) + WINDOW, 1, "app"), Ok(()));
    }

    #[test]
    fn memory_is_bounded_whoever_comes() {
        let mut guesses = Guesses::default();
        for n in 0..3 * CAPACITY {
            let _ = guesses.wrong(at(0), n as u32, &format!("user{n}"));
            guesses.meet(at(0), client(n as u32), &format!("user{n}").into());
        }
        assert_eq!([guesses.clients.0.len(), guesses.users.0.len(), guesses.known.len()], [CAPACITY; 3]);
    }

    proptest! {
        /// Whatever comes when, in no window more wrong attempts go through than the limits say.
        #[test]
        fn no_window_lets_more_wrong_attempts_through(
            steps in prop::collection::vec((0u64..60_000, 0u32..3, 0usize..3, 0u8..8), 1..600),
        ) {
            let mut guesses = Guesses::default();
            let mut now = at(0);
            // When, by whom, at whom, and was it a known pair?
            let mut through: Vec<(Timestamp, u32, usize, bool)> = Vec::new();
            let mut open: Vec<(Attempt, u32, usize)> = Vec::new();
            for (wait, who, user, act) in steps {
                now = now + Duration::from_millis(wait);
                let name: Arc<str> = ["a", "b", "c"][user].into();
                match (act, guesses.attempt(now, client(who), &name)) {
                    (_, Err(_)) => {}
                    (0, Ok(attempt)) => {
                        guesses.settle(&attempt, Outcome::Right);
                        guesses.meet(now, client(who), &name);
                    }
                    (1, Ok(attempt)) => open.push((attempt, who, user)),
                    (_, Ok(attempt)) => {
                        guesses.settle(&attempt, Outcome::Wrong);
                        through.push((attempt.at, who, user, attempt.known));
                    }
                }
                if act == 2 {
                    for (attempt, who, user) in open.drain(..) {
                        guesses.settle(&attempt, Outcome::Wrong);
                        through.push((attempt.at, who, user, attempt.known));
                    }
                }
            }
            for &(end, who, user, known) in &through {
                let inside = |t: Timestamp| t <= end && t > end - WINDOW;
                let count = |wanted: &dyn Fn(u32, usize) -> bool| {
                    through.iter().filter(|(t, w, u, k)| inside(*t) && *k == known && wanted(*w, *u)).count()
                };
                if known {
                    prop_assert!(count(&|w, u| (w, u) == (who, user)) <= KNOWN_MAX);
                } else {
                    prop_assert!(count(&|w, _| w == who) <= CLIENT_MAX);
                    prop_assert!(count(&|_, u| u == user) <= USER_MAX);
                }
            }
        }
    }
}
