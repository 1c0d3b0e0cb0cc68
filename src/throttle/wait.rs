//! Waits that grow when they did not help.
//!
//! A wait that was followed by another refusal within its own length after its end was too short: the next one is twice as
//! long, up to a most, unless something was taken in between. A refusal while it lasts says nothing about its length: it begins
//! anew. Each is made a little longer by chance, never shorter, so that lanes that were stopped together do not come back
//! together.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::Timestamp;

/// Chance adds at most this part.
const JITTER: f64 = 0.1;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Wait {
    until: Timestamp,
    /// The end of the wait before.
    reopened: Timestamp,
    length: Duration,
}

impl Wait {
    /// The end of the next wait: `unit`, or twice the last one if it did not help; `most` at most. `chance` from 0 to 1.
    pub(super) fn next(&mut self, unit: Duration, most: Duration, chance: f64, now: Timestamp) -> Timestamp {
        let length = match self.length {
            before if before.is_zero() || now > self.until + before => unit,
            before if now < self.until => before.max(unit),
            before => (before * 2).max(unit),
        };
        if now >= self.until {
            self.reopened = self.until;
        }
        self.length = length.min(most.max(unit));
        self.until = now + self.length.mul_f64(1.0 + JITTER * chance.clamp(0.0, 1.0));
        self.until
    }

    /// What was begun after a wait was taken: it was long enough, also where others that were begun with it were refused sooner.
    pub(super) fn helped(&mut self, started: Timestamp) {
        if started >= self.reopened {
            self.length = Duration::ZERO;
        }
    }

    /// The clock was set by so much.
    pub(super) fn shift(&mut self, by_millis: i64) {
        self.until = self.until.shifted(by_millis);
        self.reopened = self.reopened.shifted(by_millis);
    }

    pub(super) fn until(&self) -> Timestamp {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Duration = Duration::from_secs(600);
    const MOST: Duration = Duration::from_secs(4 * 3600);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    #[test]
    fn a_wait_after_which_something_was_taken_is_followed_by_a_short_one() {
        let mut wait = Wait::default();
        let mut now = at(0);
        for _ in 0..20 {
            let until = wait.next(UNIT, MOST, 0.0, now);
            assert_eq!(until, now + UNIT);
            wait.helped(until);
            now = until + Duration::from_secs(1);
        }
    }

    #[test]
    fn what_was_begun_with_the_refused_and_taken_shows_that_the_wait_before_helped() {
        let mut wait = Wait::default();
        let mut now = at(0);
        for _ in 0..5 {
            let until = wait.next(UNIT, MOST, 0.0, now);
            assert_eq!(until, now + UNIT);
            now = until + Duration::from_secs(2);
            // Begun at once, refused now; what was begun with it is taken later.
            let next = wait.next(UNIT, MOST, 0.0, now);
            wait.helped(until + Duration::from_secs(1));
            now = next + Duration::from_secs(1);
        }
    }

    #[test]
    fn what_was_begun_before_the_wait_says_nothing() {
        let mut wait = Wait::default();
        let first = wait.next(UNIT, MOST, 0.0, at(0));
        let now = first + Duration::from_secs(1);
        wait.next(UNIT, MOST, 0.0, now);
        wait.helped(at(5));
        let now = wait.until() + Duration::from_secs(1);
        assert_eq!(wait.next(UNIT, MOST, 0.0, now), now + UNIT * 4);
    }

    #[test]
    fn doubles_while_it_does_not_help_and_begins_again_when_it_did() {
        let mut wait = Wait::default();
        let (mut now, mut lengths) = (at(0), Vec::new());
        for _ in 0..7 {
            let until = wait.next(UNIT, MOST, 0.0, now);
            lengths.push(until.since(now).as_secs() / 60);
            now = until + Duration::from_secs(1);
        }
        assert_eq!(lengths, [10, 20, 40, 80, 160, 240, 240]);
        let late = now + Duration::from_secs(5 * 3600);
        assert_eq!(wait.next(UNIT, MOST, 0.0, late), late + UNIT);
    }

    #[test]
    fn what_comes_while_it_lasts_begins_it_anew_and_does_not_double_it() {
        let mut wait = Wait::default();
        wait.next(UNIT, MOST, 0.0, at(0));
        for secs in [1, 2, 300] {
            assert_eq!(wait.next(UNIT, MOST, 0.0, at(secs)), at(secs) + UNIT);
        }
        assert_eq!(wait.next(UNIT, MOST, 0.0, at(901)), at(901) + UNIT * 2);
    }

    #[test]
    fn chance_makes_it_longer_and_never_shorter() {
        for chance in [0.0, 0.5, 1.0] {
            let until = Wait::default().next(UNIT, MOST, chance, at(0));
            assert!(until >= at(600) && until <= at(660));
        }
    }
}
