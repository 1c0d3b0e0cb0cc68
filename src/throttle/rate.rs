//! The rate a lane has learned: recipients a minute.
//!
//! There is none until a receiver says that we are too fast. What had been accepted by then says where its limit lies: within
//! the minute before, or within the hour before where minutes like it had gone well. The rate is cut to half of that. After
//! the lane's pause it starts small, doubles by steps, then closes in on the known limit and stays a little below it.
//! Only after a long quiet time it looks beyond; the more often it was sent back from the same place, the rarer. Where
//! a limit has fallen far below what it was lately it looks sooner: what has fallen may rise again.
//!
//! Rules that always hold:
//! - one burst counts once: refusals of what started before the last cut change nothing;
//! - the rate is never below `FLOOR`: stopping is the business of a pause;
//! - beyond what is known to be good it grows only while it is used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::climb::STEP;
use super::counts::Counts;
use crate::types::Timestamp;

/// Recipients a minute that a lane is always allowed while it is open.
pub(super) const FLOOR: f64 = 0.5;
/// This part of a known limit is used: the receiver's clock and ours never agree to the second.
const MARGIN: f64 = 0.96;
/// An hour evens out what a minute does not.
const MARGIN_HOURLY: f64 = 0.985;
/// While the hour has room the even rate is exceeded by this, so that what a pause left free is used.
const CATCH_UP: f64 = 1.25;
/// Less than this in an hour is no evidence of a limit by the hour.
const HOURLY_LEAST: f64 = 60.0;
/// Where waits are so short that asking again costs less than being careful for an hour, only minutes count.
const HOURLY_FROM: Duration = Duration::from_secs(300);
/// A pause is made longer for an hour to get room by so many pauses at most.
const ROOM_PAUSES: u32 = 6;
/// A limit that was found is kept to for so many pauses before the first look beyond, and for so many at most.
const PATIENCE: u32 = 9;
const PATIENCE_MAX: u32 = 36;
/// The same where the limit lies far below that of the last day.
const PATIENCE_FALLEN: u32 = 3;
const PATIENCE_FALLEN_MAX: u32 = 6;
/// Below this part of the best of the last day a limit has fallen.
const FALLEN: f64 = 0.7;
/// Two limits that differ by less are the same.
const SAME: f64 = 0.15;
/// The first step beyond a known limit; each further one is twice that.
const BEYOND: f64 = 0.05;
const BEYOND_MAX: f64 = 0.5;
const BEYOND_HOURLY_MAX: f64 = 0.25;
/// An hour with so many times what an hour was known to take, and no refusal: that limit is gone.
const HOUR_PASSED: f64 = 1.1;
/// A minute like one before that went well, up to this part, did not refuse by itself.
const LIKE: f64 = 0.985;
/// So long after a refusal answers to what was sent before it still come in.
const ON_ITS_WAY: Duration = Duration::from_secs(30);
/// The first rate after a pause, as a part of the known limit.
const START: f64 = 1.0 / 16.0;
const DAY: Duration = Duration::from_secs(86_400);
const STEPS_MAX: usize = 64;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Rate {
    /// None: as fast as the connections carry it.
    limit: Option<f64>,
    /// Where the last refusal came.
    found: Option<f64>,
    /// It came from a limit by the hour: so many in an hour.
    hourly: Option<f64>,
    /// The highest limit of the last day, and when it held.
    best: f64,
    best_at: Timestamp,
    patience: u32,
    beyond: f64,
    /// Nothing grows before.
    next: Timestamp,
    cut_at: Option<Timestamp>,
    /// Accepted in the hour before the last cut.
    hour_at_cut: f64,
    /// Without a known limit: the rate before the lane was stopped. When it is reached again there is no limit any more.
    back_to: Option<f64>,
}

impl Default for Rate {
    fn default() -> Rate {
        Rate {
            limit: None,
            found: None,
            hourly: None,
            best: 0.0,
            best_at: Timestamp::EPOCH,
            patience: PATIENCE,
            beyond: BEYOND,
            next: Timestamp::EPOCH,
            cut_at: None,
            hour_at_cut: 0.0,
            back_to: None,
        }
    }
}

impl Rate {
    /// Recipients a minute; none: as fast as the connections carry it.
    pub(super) fn limit(&self) -> Option<f64> {
        self.limit
    }

    /// The clock was set by so much.
    pub(super) fn shift(&mut self, by_millis: i64) {
        self.next = self.next.shifted(by_millis);
        self.best_at = self.best_at.shifted(by_millis);
        self.cut_at = self.cut_at.map(|at| at.shifted(by_millis));
    }

    /// Where the last refusal came.
    pub(super) fn found(&self) -> Option<f64> {
        self.found
    }

    /// When the rate is looked at next while it is on its way back: a wait that was told before is too long by then.
    pub(super) fn next_step(&self) -> Option<Timestamp> {
        let on_its_way = self.limit.zip(self.target()).is_some_and(|(limit, target)| limit < target);
        on_its_way.then_some(self.next)
    }

    /// We are too fast; `started` is when the refused thing was begun. True: the rate was cut.
    pub(super) fn refused(&mut self, counts: &mut Counts, started: Timestamp, pause: Duration, now: Timestamp) -> bool {
        if self.cut_at.is_some_and(|cut| started <= cut) {
            return false;
        }
        let (minute, hour) = (counts.minute(now), counts.hour(now));
        let is_hourly = pause >= HOURLY_FROM && hour >= HOURLY_LEAST && self.is_hourly(counts, minute, hour, now);
        self.cut_at = Some(now);
        self.hour_at_cut = hour;
        self.hourly = is_hourly.then_some(hour);
        let level = if is_hourly { hour / 60.0 } else { minute };
        self.settle_at(level.max(2.0 * FLOOR), now);
        self.limit = self.found.map(|found| found / 2.0);
        // The lane pauses now; what follows is set by `restart`.
        self.next = now + pause;
        true
    }

    /// What was on its way when the refusal came was accepted after all: the limit lies so much higher.
    pub(super) fn refine(&mut self, counts: &mut Counts, now: Timestamp) {
        if self.hourly.is_some() || self.cut_at.is_none_or(|cut| now.since(cut) > ON_ITS_WAY) {
            return;
        }
        let minute = counts.minute(now);
        if let Some(found) = self.found.filter(|found| minute > *found) {
            self.found = Some(minute);
            self.limit = self.limit.map(|limit| limit * minute / found);
            self.hour_at_cut = counts.hour(now);
        }
    }

    /// The one message that asked after a pause was refused too: the minute was empty, so it is a longer time that counts.
    pub(super) fn probe_refused(&mut self, pause: Duration, now: Timestamp) {
        self.cut_at = Some(now);
        if pause < HOURLY_FROM || self.hour_at_cut < HOURLY_LEAST {
            return;
        }
        let by_hour = self.hour_at_cut / 60.0;
        if self.found.is_some_and(|found| by_hour < found) {
            self.hourly = Some(self.hour_at_cut);
            self.settle_at(by_hour.max(2.0 * FLOOR), now);
            self.limit = self.found.map(|found| found / 2.0);
        }
    }

    /// When there is room again in an hour that is known to be full; a pause that ends before would be in vain.
    pub(super) fn room_at(&self, counts: &mut Counts, pause: Duration, now: Timestamp) -> Timestamp {
        let Some(hourly) = self.hourly else { return now };
        counts.hour_falls_to(MARGIN_HOURLY * hourly, now).min(now + pause * ROOM_PAUSES)
    }

    /// Is a known limit by the hour used up? Then when to ask again.
    pub(super) fn hour_is_full(&self, counts: &mut Counts, now: Timestamp) -> Option<Timestamp> {
        let most = self.hourly? * if self.is_looking() { 1.0 + self.beyond } else { MARGIN_HOURLY };
        (counts.hour(now) >= most).then(|| counts.hour_falls_to(most - 1.0, now))
    }

    /// The lane opens again: slow start, from a small part of what was known.
    pub(super) fn restart(&mut self, pause: Duration, now: Timestamp) {
        let Some(target) = self.target() else { return };
        self.limit = Some((target * START).clamp(FLOOR, target.max(FLOOR)));
        self.next = now + pause.mul_f64(STEP);
        self.beyond = BEYOND;
    }

    /// The lane was stopped for another reason than its rate; it is to come back gradually all the same.
    pub(super) fn stopped(&mut self, counts: &mut Counts, now: Timestamp) {
        if self.found.is_none() {
            let before = counts.best_minute(now - Duration::from_secs(3600), now, now).max(counts.minute(now));
            self.back_to = Some(before.max(4.0 * FLOOR).max(self.back_to.unwrap_or(0.0)));
        }
    }

    /// Half of what goes now: the answers are not to our taste, whatever the receiver's limit.
    pub(super) fn halve(&mut self, counts: &mut Counts, pause: Duration, now: Timestamp) {
        let current = self.limit.unwrap_or_else(|| counts.minute(now));
        self.stopped(counts, now);
        self.limit = Some((current / 2.0).max(FLOOR));
        self.next = now + pause * PATIENCE_FALLEN;
    }

    /// Takes the steps whose time has come.
    ///
    /// `settled`: a refusal before then would count as a repeat of the last one, so nothing beyond what is known is tried.
    pub(super) fn grow(&mut self, counts: &mut Counts, pause: Duration, settled: Timestamp, now: Timestamp) {
        self.use_up_hour(counts, now);
        if self.limit.is_none() || self.next > now {
            return;
        }
        let step = pause.mul_f64(STEP).max(Duration::from_millis(1));
        for _ in 0..STEPS_MAX {
            let (Some(limit), Some(target)) = (self.limit, self.target()) else {
                self.limit = None;
                return;
            };
            if self.next > now {
                return;
            }
            if limit < target {
                self.approach(limit, target, step, pause);
            } else if now < settled {
                self.next = settled;
                return;
            } else if counts.minute(now) < 0.7 * limit && counts.mean(Duration::from_secs(120), now) < 0.7 * limit {
                self.next = now + step;
                return;
            } else {
                self.look_beyond(counts, limit, step, now);
            }
        }
        self.next = now + step;
    }

    /// A limit by the hour that is known leaves room after a pause: it is used, at a somewhat higher rate, until the hour is full.
    fn use_up_hour(&mut self, counts: &mut Counts, now: Timestamp) {
        if let (Some(hourly), Some(found), Some(limit), Some(target)) =
            (self.hourly, self.found, self.limit, self.target())
            && limit >= target
            && !self.is_looking()
        {
            let has_room = counts.hour(now) < MARGIN_HOURLY * hourly;
            self.limit = Some(if has_room { found * CATCH_UP } else { target });
        }
    }

    /// Has it begun to try more than what is known?
    fn is_looking(&self) -> bool {
        self.beyond > BEYOND
    }

    /// Doubles up to half of the known limit, then halves what is left.
    fn approach(&mut self, limit: f64, target: f64, step: Duration, pause: Duration) {
        let next = if limit < target / 2.0 { (limit * 2.0).min(target / 2.0) } else { limit + (target - limit) / 2.0 };
        if next < 0.97 * target {
            self.limit = Some(next);
            self.next = self.next + step;
        } else if self.found.is_some() {
            self.limit = Some(target);
            self.next = self.next + pause * self.patience;
        } else {
            self.limit = None;
            self.back_to = None;
        }
    }

    fn look_beyond(&mut self, counts: &mut Counts, limit: f64, step: Duration, now: Timestamp) {
        let Some(found) = self.found else { return };
        // Where it was better lately it is more likely that it is so again.
        let most = if limit < 0.9 * self.best_of_day(now) { 2.0 * BEYOND_MAX } else { BEYOND_MAX };
        self.limit = Some(found * (1.0 + self.beyond));
        self.next = self.next.max(now - step) + step;
        if self.hourly.is_some_and(|hourly| counts.hour(now) > HOUR_PASSED * hourly) {
            self.hourly = None;
        }
        if self.hourly.is_some() {
            // An hour fills slowly: whoever runs ahead cannot tell any more which limit refused.
            self.limit = Some(found * CATCH_UP);
            self.beyond = (self.beyond * 2.0).min(BEYOND_HOURLY_MAX);
            return;
        }
        if self.beyond >= 0.3 {
            self.found = self.limit;
        }
        self.beyond = (self.beyond * 2.0).min(most);
    }

    /// Did the hour refuse rather than the minute?
    fn is_hourly(&self, counts: &mut Counts, minute: f64, hour: f64, now: Timestamp) -> bool {
        if self.hourly.is_none() && self.is_beyond() {
            // It was tried on purpose, and the minute said no.
            return false;
        }
        let as_before = |hourly: f64| (0.93 * hourly..HOUR_PASSED * hourly).contains(&hour);
        if self.hourly.is_some_and(as_before) && minute < 1.4 * hour / 60.0 {
            return true;
        }
        let hour_ago = now - Duration::from_secs(3600);
        let since = self.cut_at.map_or(hour_ago, |cut| cut.max(hour_ago));
        let earlier = counts.best_minute(since, now - Duration::from_secs(180), now);
        minute > 0.0 && earlier >= LIKE * minute
    }

    /// A refusal came at `level`.
    fn settle_at(&mut self, level: f64, now: Timestamp) {
        let same = self.found.is_some_and(|found| (level / found - 1.0).abs() < SAME);
        let fallen = level < FALLEN * self.best_of_day(now);
        self.patience = match (same, fallen) {
            (true, true) => (self.patience * 2).min(PATIENCE_FALLEN_MAX),
            (true, false) => (self.patience * 2).min(PATIENCE_MAX),
            (false, true) => PATIENCE_FALLEN,
            (false, false) => PATIENCE,
        };
        if level >= self.best_of_day(now) {
            (self.best, self.best_at) = (level, now);
        }
        self.found = Some(level);
        self.back_to = None;
        self.beyond = BEYOND;
    }

    /// Is it looking beyond what is known to be good?
    fn is_beyond(&self) -> bool {
        self.limit.zip(self.target()).is_some_and(|(limit, target)| limit > 1.001 * target)
    }

    fn best_of_day(&self, now: Timestamp) -> f64 {
        if now.since(self.best_at) > DAY { 0.0 } else { self.best }
    }

    /// The rate to come back to.
    fn target(&self) -> Option<f64> {
        let margin = if self.hourly.is_some() { MARGIN_HOURLY } else { MARGIN };
        self.found.map(|found| (found * margin).max(FLOOR)).or(self.back_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(600);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_000_000_000 + secs)
    }

    /// `per_minute` accepted over `minutes`.
    fn accepted(counts: &mut Counts, per_minute: u32, from: i64, minutes: i64) {
        for secs in 0..minutes * 60 {
            let n = u32::try_from(i64::from(per_minute) * (secs + 1) / 60 - i64::from(per_minute) * secs / 60).unwrap();
            counts.add(n, at(from + secs));
        }
    }

    #[test]
    fn the_first_refusal_cuts_to_half_of_what_the_minute_took() {
        let (mut rate, mut counts) = (Rate::default(), Counts::default());
        accepted(&mut counts, 40, 0, 1);
        assert!(rate.refused(&mut counts, at(58), PAUSE, at(59)));
        assert_eq!((rate.limit(), rate.found()), (Some(20.0), Some(40.0)));
        assert!(!rate.refused(&mut counts, at(59), PAUSE, at(60)), "one burst");
    }

    #[test]
    fn comes_back_by_doubling_and_stays_just_below_the_known_limit() {
        let (mut rate, mut counts) = (Rate::default(), Counts::default());
        accepted(&mut counts, 160, 0, 1);
        rate.refused(&mut counts, at(58), PAUSE, at(59));
        rate.restart(PAUSE, at(700));
        let mut seen = vec![];
        for minute in 0..10 {
            rate.grow(&mut counts, PAUSE, Timestamp::EPOCH, at(700 + 60 * minute));
            seen.push(rate.limit().unwrap().round());
        }
        assert_eq!(seen, [10.0, 19.0, 38.0, 77.0, 115.0, 134.0, 144.0, 149.0, 154.0, 154.0]);
    }

    #[test]
    fn a_steady_rate_that_is_refused_at_last_met_a_limit_by_the_hour() {
        let (mut rate, mut counts) = (Rate::default(), Counts::default());
        accepted(&mut counts, 60, 0, 20);
        rate.refused(&mut counts, at(1199), PAUSE, at(1200));
        assert_eq!(rate.found(), Some(20.0), "1200 an hour");
    }

    #[test]
    fn a_refused_probe_says_that_more_than_the_minute_counts() {
        let (mut rate, mut counts) = (Rate::default(), Counts::default());
        accepted(&mut counts, 600, 0, 1);
        rate.refused(&mut counts, at(58), PAUSE, at(59));
        assert_eq!(rate.found(), Some(600.0));
        rate.probe_refused(PAUSE, at(700));
        assert_eq!((rate.found(), rate.limit()), (Some(10.0), Some(5.0)));
    }

    #[test]
    fn looks_beyond_a_known_limit_ever_more_rarely_and_finds_a_better_one() {
        let (mut rate, mut counts) = (Rate::default(), Counts::default());
        let (mut now, mut cuts) = (0, Vec::new());
        // A receiver that takes 60 a minute, and 240 from some time on.
        while cuts.len() < 7 && now < 400_000 {
            let allowed = if cuts.len() < 4 { 60.0 } else { 240.0 };
            let limit = rate.limit().unwrap_or(500.0);
            if counts.minute(at(now)) + limit / 60.0 > allowed {
                if rate.refused(&mut counts, at(now), PAUSE, at(now)) {
                    cuts.push((now, rate.found().unwrap()));
                }
                now += 600;
                rate.restart(PAUSE, at(now));
            }
            let due = (limit * (now + 1) as f64 / 60.0).floor() - (limit * now as f64 / 60.0).floor();
            counts.add(due as u32, at(now));
            rate.grow(&mut counts, PAUSE, Timestamp::EPOCH, at(now));
            now += 1;
        }
        let waits: Vec<i64> = cuts.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(waits[1] > 5000 && waits[2] > 2 * waits[1] - 4000, "{cuts:?}");
        assert!((50.0..=60.0).contains(&cuts[3].1) && cuts[4].1 > 200.0, "{cuts:?}");
    }

    #[test]
    fn after_a_stop_without_a_known_limit_it_comes_back_to_none() {
        let (mut rate, mut counts) = (Rate::default(), Counts::default());
        accepted(&mut counts, 100, 0, 2);
        rate.stopped(&mut counts, at(120));
        rate.restart(PAUSE, at(3720));
        assert!(rate.limit().unwrap() < 10.0);
        for secs in 3720..5000 {
            rate.grow(&mut counts, PAUSE, Timestamp::EPOCH, at(secs));
        }
        assert_eq!(rate.limit(), None);
    }

    #[test]
    fn is_never_below_the_floor() {
        let (mut rate, mut counts) = (Rate::default(), Counts::default());
        for n in 0..50 {
            rate.refused(&mut counts, at(n * 1000), PAUSE, at(n * 1000));
            rate.restart(PAUSE, at(n * 1000 + 600));
            rate.halve(&mut counts, PAUSE, at(n * 1000 + 700));
            assert!(rate.limit().is_some_and(|limit| limit >= FLOOR));
        }
    }
}
