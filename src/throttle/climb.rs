//! A learned count: connections of a lane, or messages on one of its connections.
//!
//! One refusal may be chance; a second one at about the same number says where the limit lies. What was good just before is kept to:
//! staying just under a limit that is known beats a saw-tooth. Only after a long quiet time is one more tried; if that is refused, the
//! count goes back to what was known, and the next try comes later still. Where as many as were good are refused, the limit has
//! fallen: the count is halved and held for a while, then it goes back by steps.
//!
//! Rules that always hold:
//! - `1 <= limit <= most`;
//! - one burst counts once: refusals of what started before the last cut only make the known place more exact.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::Timestamp;

/// The first try beyond a known limit comes after so many of the provider's pauses; the later ones wait longer.
const PATIENCE: u32 = 9;
/// Tries beyond a known limit are never rarer than this many pauses.
const PATIENCE_MAX: u32 = 72;
/// After a cut the count is held for so many pauses.
const HOLD: u32 = 3;
/// One step of growth, as a part of a pause.
pub(super) const STEP: f64 = 0.1;
/// Steps that are made up for after a quiet time; more change nothing.
const STEPS_MAX: usize = 64;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Climb {
    limit: usize,
    /// So many were known to be good when one more was refused.
    found: Option<usize>,
    /// Nothing grows before.
    next: Timestamp,
    patience: u32,
    cut_at: Option<Timestamp>,
    /// So many were good at the last refusal, which may have been chance.
    #[serde(default)]
    suspect: Option<usize>,
    /// And at the one before, where the two do not agree: of many begun at once the first is refused at a number that says little.
    #[serde(default)]
    earlier: Option<usize>,
    /// So many have been good since then: the receiver counts connections that are closing as well.
    #[serde(default)]
    well: usize,
}

/// Is it about the same number, or less?
fn agrees(good: usize, suspect: usize) -> bool {
    good <= suspect + suspect / 4 + 1
}

/// What a refusal changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// One of a burst.
    None,
    /// It may have been chance: the next one tells.
    Suspected,
    Confirmed,
}

impl Climb {
    pub(super) fn new(limit: usize) -> Climb {
        Climb {
            limit: limit.max(1),
            found: None,
            next: Timestamp::EPOCH,
            patience: PATIENCE,
            cut_at: None,
            suspect: None,
            earlier: None,
            well: 0,
        }
    }

    /// The clock was set by so much.
    pub(super) fn shift(&mut self, by_millis: i64) {
        self.next = self.next.shifted(by_millis);
        self.cut_at = self.cut_at.map(|at| at.shifted(by_millis));
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Where a refusal came, if one did.
    pub(super) fn found(&self) -> Option<usize> {
        self.found
    }

    /// Sets the limit where nothing was learned.
    pub(super) fn set(&mut self, limit: usize) {
        self.limit = limit.max(1);
    }

    pub(super) fn cap(&mut self, most: usize) {
        self.limit = self.limit.min(most.max(1));
    }

    /// So many were good just now: more than a refusal that came alone let expect.
    pub(super) fn went_well(&mut self, number: usize) {
        let is_refuted = |suspect: usize| number > suspect + suspect / 4 + 1;
        for suspect in [&mut self.suspect, &mut self.earlier] {
            *suspect = suspect.filter(|suspect| !is_refuted(*suspect));
        }
        self.well = self.well.max(number);
    }

    /// One more than `good` was refused; `started` is when the refused thing was begun.
    ///
    /// Where the only one is refused (`good` is 0), that says when, not how many.
    pub(super) fn refused(&mut self, good: usize, started: Timestamp, pause: Duration, now: Timestamp) -> Cut {
        let is_burst = self.cut_at.is_some_and(|cut| started <= cut);
        if good == 0 && !is_burst {
            self.cut_at = Some(now);
            return Cut::Suspected;
        }
        let good = good.max(1);
        if is_burst {
            let Some(suspect) = self.suspect.map(|suspect| suspect.min(good)) else {
                self.found = self.found.map(|found| found.min(good));
                self.limit = self.limit.min(good);
                return Cut::None;
            };
            self.suspect = Some(suspect);
            if self.earlier.is_none_or(|earlier| !agrees(suspect, earlier)) {
                return Cut::None;
            }
            return self.confirm(suspect, pause, now);
        }
        self.cut_at = Some(now);
        let is_search = self.found.is_some_and(|found| self.limit > found && good + 1 + found / 10 >= found);
        if is_search {
            (self.suspect, self.earlier) = (None, None);
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
            self.limit = self.limit.saturating_sub(1).clamp(1, good);
            self.found = Some(self.limit);
            self.next = now + pause * self.patience;
            return Cut::Confirmed;
        }
        // Once may be chance; a second time at about the same number is a limit.
        if self.suspect.is_none_or(|suspect| !agrees(good, suspect)) {
            self.earlier = self.suspect.replace(good);
            self.well = 0;
            return Cut::Suspected;
        }
        self.confirm(good, pause, now)
    }

    fn confirm(&mut self, good: usize, pause: Duration, now: Timestamp) -> Cut {
        let good = good.max(self.well);
        (self.suspect, self.earlier) = (None, None);
        // What was good before is refused now: it has fallen, nobody knows how far.
        let has_fallen = self.found.is_some_and(|found| self.limit <= found);
        self.patience = PATIENCE;
        self.found = Some(good);
        self.limit = if has_fallen { self.limit.min(good).div_ceil(2).max(1).min(good) } else { good };
        self.next = now + pause * if has_fallen { HOLD } else { self.patience };
        Cut::Confirmed
    }

    /// Takes the steps whose time has come. `used`: all of the limit was in use; beyond what is known nothing grows without.
    pub(super) fn grow(&mut self, used: bool, most: usize, pause: Duration, now: Timestamp) {
        if self.cut_at.is_none() || self.next > now || self.limit >= most {
            return;
        }
        let step = pause.mul_f64(STEP);
        for _ in 0..STEPS_MAX {
            if self.next > now || self.limit >= most {
                return;
            }
            match self.found {
                Some(found) if self.limit < found => {
                    self.limit = found.min(self.limit + (found / 10).max(1));
                    self.next =
                        if self.limit == found { now.max(self.next) + pause * self.patience } else { self.next + step };
                }
                _ if !used => self.next = now + step,
                Some(found) => {
                    // One more; then twice as many more at each step, until it is plain that the old limit is gone.
                    self.limit = found + (2 * (self.limit - found)).max(1);
                    self.next = now + step;
                    if self.limit > found + found / 4 + 4 {
                        self.found = None;
                        self.patience = PATIENCE;
                    }
                }
                None => {
                    self.limit += (self.limit / 4).max(1);
                    self.next = now + step;
                }
            }
            self.limit = self.limit.min(most);
        }
        self.next = now + step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAUSE: Duration = Duration::from_secs(600);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    /// 20 were good, and one more was refused twice.
    fn found() -> Climb {
        let mut climb = Climb::new(32);
        assert_eq!(climb.refused(20, at(-1), PAUSE, at(0)), Cut::Suspected);
        assert_eq!(climb.refused(20, at(1), PAUSE, at(2)), Cut::Confirmed);
        climb
    }

    /// As many as were good are refused.
    fn fallen() -> Climb {
        let mut climb = found();
        assert_eq!(climb.refused(20, at(3), PAUSE, at(4)), Cut::Suspected);
        assert_eq!(climb.refused(20, at(5), PAUSE, at(6)), Cut::Confirmed);
        climb
    }

    #[test]
    fn where_the_only_one_is_refused_no_number_is_learned() {
        let mut climb = Climb::new(16);
        for n in 0..20 {
            assert_eq!(climb.refused(0, at(100 * n + 1), PAUSE, at(100 * n + 2)), Cut::Suspected);
        }
        assert_eq!((climb.limit(), climb.found()), (16, None));
    }

    #[test]
    fn one_refusal_changes_nothing_and_is_forgotten_when_more_go_well() {
        let mut climb = Climb::new(32);
        climb.refused(20, at(0), PAUSE, at(1));
        assert_eq!((climb.limit(), climb.found()), (32, None));
        climb.went_well(22);
        assert_eq!(climb.suspect, Some(20), "about as many");
        climb.went_well(27);
        assert_eq!(climb.refused(20, at(2), PAUSE, at(3)), Cut::Suspected);
    }

    #[test]
    fn two_refusals_far_apart_in_number_are_chance() {
        let mut climb = Climb::new(50);
        climb.refused(10, at(0), PAUSE, at(1));
        assert_eq!(climb.refused(30, at(2), PAUSE, at(3)), Cut::Suspected);
        assert_eq!(climb.limit(), 50);
    }

    #[test]
    fn two_at_one_number_make_it_the_limit() {
        assert_eq!((found().limit(), found().found()), (20, Some(20)));
    }

    #[test]
    fn what_has_fallen_is_halved_and_held() {
        let mut climb = fallen();
        assert_eq!(climb.limit(), 10);
        climb.grow(true, 500, PAUSE, at(1800));
        assert_eq!(climb.limit(), 10);
    }

    #[test]
    fn a_burst_counts_once_and_makes_the_place_exact() {
        let mut climb = found();
        assert_eq!(climb.refused(17, at(2), PAUSE, at(3)), Cut::None);
        assert_eq!((climb.limit(), climb.found()), (17, Some(17)));
    }

    #[test]
    fn goes_back_by_steps_to_what_was_good_and_stays_there() {
        let mut climb = fallen();
        let mut seen = Vec::new();
        for secs in (1810..7000).step_by(60) {
            climb.grow(true, 500, PAUSE, at(secs));
            seen.push(climb.limit());
        }
        assert_eq!(seen[..6], [12, 14, 16, 18, 20, 20]);
        assert_eq!(seen.last(), Some(&20));
    }

    #[test]
    fn what_is_tried_beyond_and_refused_costs_nothing_but_a_longer_wait() {
        let mut climb = found();
        let mut secs = 0;
        let mut tries = Vec::new();
        while tries.len() < 3 {
            secs += 10;
            climb.grow(true, 500, PAUSE, at(secs));
            if climb.limit() > 20 {
                assert_eq!(climb.refused(20, at(secs), PAUSE, at(secs)), Cut::Confirmed);
                assert_eq!(climb.limit(), 20);
                tries.push(secs);
            }
        }
        assert!(tries[1] - tries[0] > 9000 && tries[2] - tries[1] > 19_000, "{tries:?}");
    }

    #[test]
    fn a_limit_that_is_gone_is_left_behind() {
        let mut climb = found();
        let mut secs = 0;
        while climb.limit() < 500 && secs < 100_000 {
            secs += 60;
            climb.grow(true, 500, PAUSE, at(secs));
        }
        assert!(secs < 9_000 + 30 * 60, "{secs}");
        assert_eq!(climb.found(), None);
    }

    #[test]
    fn nothing_grows_that_is_not_used() {
        let mut climb = found();
        for secs in (0..100_000).step_by(60) {
            climb.grow(false, 500, PAUSE, at(secs));
        }
        assert_eq!(climb.limit(), 20);
    }

    proptest! {
        #[test]
        fn stays_between_one_and_the_most(steps in prop::collection::vec((0i64..9000, any::<bool>(), 0usize..60), 0..200), most in 1usize..50) {
            let mut climb = Climb::new(5.min(most));
            let mut now = 0;
            for (wait, refused, good) in steps {
                now += wait;
                if refused {
                    climb.refused(good.min(most), at(now), PAUSE, at(now));
                } else {
                    climb.grow(good % 2 == 0, most, PAUSE, at(now));
                }
                prop_assert!((1..=most).contains(&climb.limit()), "{climb:?}");
            }
        }
    }
}
