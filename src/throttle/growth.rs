//! The growth guard: a sudden jump of volume is what receivers distrust most, so volume grows step by step.
//!
//! Microsoft answers volume jumps with 4.7.500 and its kin, and takes days to forget them. The guard remembers how
//! many recipients were accepted in the busiest clean hour of the last 30 days, one in which less than one in a hundred was
//! refused for our address, and lets at most `growth` times as many through in any hour. Rules that always hold:
//!
//! - in no hour, wherever it begins, do more go than the guard says (and the rest of the one message that filled it);
//! - the hour is not spent in its first minutes: 25 recipients may go at once (a burst of a hundred is itself what small
//!   receivers refuse), the rest evenly behind them, so that after a burst there is never silence;
//! - `growth_floor` goes in any case; `growth` 0 is no guard, and the hours are counted all the same;
//! - the hour that runs is not yet history: what is allowed rises from one hour of the clock to the next and not within.

use serde::{Deserialize, Serialize};

use super::pace::Pacer;
use super::profile::Profile;
use crate::types::Timestamp;
use crate::types::words::Grouped;

/// The history that counts.
const DAYS: i64 = 30;
const HOUR_MILLIS: i64 = 3_600_000;
const DAY_HOURS: i64 = 24;
/// Recipients that may go at once, and the part of an hour's that they are at most.
pub(super) const BURST: f64 = 25.0;
const BURST_PART: f64 = 0.25;
/// With one refusal in so many, or fewer, what was sent is a measure for more: a busy receiver says no now and then.
pub(super) const CLEAN_ONE_IN: u64 = 100;
/// A clock this many hours behind what was counted was wrong before, not now.
const WRONG_CLOCK_HOURS: i64 = 2;

/// What one lane has sent. The empty one has sent nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// The hour that is counted, in hours since 1970.
    hour: i64,
    /// Recipients accepted in it.
    accepted: u64,
    /// What was refused in it for our address.
    #[serde(default)]
    refusals: u64,
    /// The busiest clean hour of each day that had one, oldest first; at most 31 days.
    days: Vec<(i64, u64)>,
    pace: Pacer,
}

impl Growth {
    /// Lets `n` recipients through, or says when to ask again.
    pub fn ask(&mut self, profile: &Profile, n: usize, now: Timestamp) -> Result<(), Timestamp> {
        let Some(most) = self.most(profile, now) else { return Ok(()) };
        self.pace.ask_in_bursts(rate(most), burst(most), n, now)
    }

    /// How many recipients may go now, at least one, or when to ask.
    pub fn room(&self, profile: &Profile, now: Timestamp) -> Result<usize, Timestamp> {
        match self.most(profile, now) {
            None => Ok(usize::MAX),
            Some(most) => self.pace.room_in_bursts(rate(most), burst(most), now),
        }
    }

    /// Takes back `n` recipients that were let through and not offered to the receiver.
    pub fn refund(&mut self, n: usize) {
        self.pace.refund(n);
    }

    /// `n` recipients were accepted.
    pub fn accepted(&mut self, n: u32, now: Timestamp) {
        self.roll(now);
        self.accepted = self.accepted.saturating_add(u64::from(n));
    }

    /// The receiver refused something for our address.
    pub fn refused(&mut self, now: Timestamp) {
        self.roll(now);
        self.refusals = self.refusals.saturating_add(1);
    }

    /// Recipients a minute that go while mail waits; none: no guard.
    pub(super) fn pace(&self, profile: &Profile, now: Timestamp) -> Option<f64> {
        self.most(profile, now).map(rate)
    }

    /// The clock was set by so much. Hours and days are those of the calendar: they stay where they were counted, and what lies
    /// ahead of a clock that was set back is left out.
    pub(super) fn shift(&mut self, by_millis: i64) {
        self.pace.shift(by_millis);
    }

    /// Recipients an hour that may go now; none: no guard.
    pub fn most(&self, profile: &Profile, now: Timestamp) -> Option<f64> {
        let guarded = profile.growth > 0.0;
        guarded.then(|| (profile.growth * self.busiest(now) as f64).max(profile.growth_floor))
    }

    /// Why mail waits, and how to lift it; none: the guard holds nothing back now.
    pub fn reason(&self, profile: &Profile, now: Timestamp) -> Option<String> {
        let most = self.most(profile, now)?;
        self.room(profile, now).err()?;
        let (most, busiest) = (Grouped(most as u64), Grouped(self.busiest(now)));
        Some(format!(
            "growth guard: at most {most} an hour after a busiest hour of {busiest} in {DAYS} days; [[provider]] growth = 0 lifts it"
        ))
    }

    /// What it lets through and why, for those who wonder why much waits; none: no guard.
    pub(super) fn because(&self, profile: &Profile, now: Timestamp) -> Option<String> {
        let (most, busiest) = (Grouped(self.most(profile, now)? as u64), Grouped(self.busiest(now)));
        let growth = profile.growth;
        Some(format!(
            "the growth guard lets {most} an hour go after a busiest hour of {busiest} in {DAYS} days, and in each hour {growth} \
             times what the busiest took; `growth = 0` lifts it"
        ))
    }

    /// Recipients of the busiest clean hour, without the one that runs.
    fn busiest(&self, now: Timestamp) -> u64 {
        let hour = hour_of(now);
        let past = self.days.iter().filter(|(day, _)| is_recent(*day, hour)).map(|(_, accepted)| *accepted);
        let ended =
            (self.hour < hour && self.is_clean() && is_recent(day_of(self.hour), hour)).then_some(self.accepted);
        past.chain(ended).max().unwrap_or(0)
    }

    /// Closes the hour that was counted, if another one runs.
    fn roll(&mut self, now: Timestamp) {
        let hour = hour_of(now);
        let was_wrong = hour + WRONG_CLOCK_HOURS < self.hour;
        if hour <= self.hour && !was_wrong {
            return;
        }
        if was_wrong {
            self.days.retain(|(day, _)| *day <= day_of(hour));
        } else if self.accepted > 0 && self.is_clean() {
            self.remember(day_of(self.hour));
        }
        self.days.retain(|(day, _)| is_recent(*day, hour));
        (self.hour, self.accepted, self.refusals) = (hour, 0, 0);
    }

    fn is_clean(&self) -> bool {
        is_clean(self.accepted, self.refusals)
    }

    fn remember(&mut self, day: i64) {
        match self.days.last_mut() {
            Some((last, busiest)) if *last == day => *busiest = (*busiest).max(self.accepted),
            _ => self.days.push((day, self.accepted)),
        }
    }
}

/// Was less than one in a hundred refused?
pub(super) fn is_clean(accepted: u64, refusals: u64) -> bool {
    refusals.saturating_mul(CLEAN_ONE_IN) < accepted.saturating_add(refusals).max(1)
}

fn burst(most: f64) -> f64 {
    BURST.min(most * BURST_PART)
}

/// Recipients a minute behind the burst, so that both together are the hour's.
fn rate(most: f64) -> f64 {
    (most - burst(most)) / 60.0
}

fn hour_of(now: Timestamp) -> i64 {
    now.millis().div_euclid(HOUR_MILLIS)
}

fn day_of(hour: i64) -> i64 {
    hour.div_euclid(DAY_HOURS)
}

fn is_recent(day: i64, hour: i64) -> bool {
    (0..=DAYS).contains(&(day_of(hour) - day))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::Profiles;
    use proptest::prelude::*;

    /// The beginning of a day and so of an hour.
    const START: i64 = 1_794_960_000;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(START + secs)
    }

    fn outlook() -> Profile {
        Profiles::new(&[]).get("outlook")
    }

    /// Sends whatever is let through, message by message; the seconds at which each went.
    fn press(growth: &mut Growth, profile: &Profile, from: i64, to: i64) -> Vec<i64> {
        let (mut now, mut gone) = (at(from), Vec::new());
        while now < at(to) {
            match growth.ask(profile, 1, now) {
                Ok(()) => {
                    growth.accepted(1, now);
                    gone.push(now.secs() - START);
                }
                Err(moment) => now = moment,
            }
        }
        gone
    }

    #[test]
    fn volume_doubles_from_hour_to_hour() {
        let (mut growth, profile) = (Growth::default(), outlook());
        let hours: Vec<usize> =
            (0..6).map(|hour| press(&mut growth, &profile, hour * 3600, (hour + 1) * 3600).len()).collect();
        assert!((480..=500).contains(&hours[0]), "{hours:?}");
        for two in hours.windows(2) {
            assert!(two[1] <= 2 * two[0] && 2 * two[1] >= 3 * two[0], "{hours:?}");
        }
    }

    #[test]
    fn no_hour_wherever_it_begins_has_more_than_allowed() {
        let (mut growth, profile) = (Growth::default(), outlook());
        growth.accepted(3000, at(-7200));
        let gone = press(&mut growth, &profile, 1800, 3600);
        assert_eq!(growth.most(&profile, at(0)), Some(6000.0));
        for (i, from) in gone.iter().enumerate() {
            let within = gone[i..].iter().take_while(|to| **to - from < 3600).count();
            assert!(within <= 6000, "{within} from {from}");
        }
        assert!(gone.len() > 3000, "half an hour gives half of it, and the burst: {}", gone.len());
    }

    #[test]
    fn a_burst_is_followed_by_a_steady_flow() {
        let (mut growth, profile) = (Growth::default(), outlook());
        let gone = press(&mut growth, &profile, 0, 3600);
        assert_eq!(gone.iter().take_while(|secs| **secs == 0).count(), 25);
        let pauses = gone.windows(2).map(|two| two[1] - two[0]);
        assert!(pauses.max() <= Some(8), "one in 7.6 seconds");
    }

    #[test]
    fn an_hour_with_one_refusal_in_a_hundred_proves_nothing_and_one_with_fewer_is_clean() {
        for (refusals, most) in [(0, 10_000.0), (1, 10_000.0), (50, 10_000.0), (51, 800.0)] {
            let (mut growth, profile) = (Growth::default(), outlook());
            growth.accepted(5000, at(0));
            (0..refusals).for_each(|_| growth.refused(at(60)));
            growth.accepted(400, at(3600));
            assert_eq!(growth.most(&profile, at(7200)), Some(most), "{refusals}");
        }
        let (mut growth, profile) = (Growth::default(), outlook());
        growth.accepted(600, at(0));
        (0..7).for_each(|_| growth.refused(at(60)));
        assert_eq!(growth.most(&profile, at(3600)), Some(500.0), "7 of 607");
    }

    #[test]
    fn a_small_allowance_has_a_small_burst() {
        let (mut growth, mut profile) = (Growth::default(), outlook());
        profile.growth_floor = 20.0;
        let gone = press(&mut growth, &profile, 0, 3600);
        assert_eq!(gone.iter().take_while(|secs| **secs == 0).count(), 5);
        assert!((19..=20).contains(&gone.len()), "{}", gone.len());
    }

    #[test]
    fn the_running_hour_is_not_yet_history() {
        let (mut growth, profile) = (Growth::default(), outlook());
        growth.accepted(5000, at(0));
        assert_eq!(growth.most(&profile, at(3599)), Some(500.0));
        assert_eq!(growth.most(&profile, at(3600)), Some(10_000.0));
    }

    #[test]
    fn thirty_days_later_it_begins_again() {
        let (mut growth, profile) = (Growth::default(), outlook());
        growth.accepted(5000, at(0));
        growth.accepted(1, at(3600));
        assert_eq!(growth.most(&profile, at(30 * 86_400)), Some(10_000.0));
        assert_eq!(growth.most(&profile, at(31 * 86_400)), Some(500.0));
    }

    #[test]
    fn without_growth_there_is_no_guard() {
        let (mut growth, mut profile) = (Growth::default(), outlook());
        profile.growth = 0.0;
        assert_eq!((growth.ask(&profile, 1_000_000, at(0)), growth.room(&profile, at(0))), (Ok(()), Ok(usize::MAX)));
        assert_eq!((growth.most(&profile, at(0)), growth.reason(&profile, at(0))), (None, None));
    }

    #[test]
    fn it_says_why_it_holds_and_what_lifts_it() {
        let (mut growth, profile) = (Growth::default(), outlook());
        growth.accepted(600, at(-3600));
        assert_eq!(growth.room(&profile, at(0)), Ok(25));
        assert_eq!(growth.reason(&profile, at(0)), None);
        growth.ask(&profile, 25, at(0)).unwrap();
        assert_eq!(
            growth.reason(&profile, at(0)).as_deref(),
            Some(
                "growth guard: at most 1,200 an hour after a busiest hour of 600 in 30 days; [[provider]] growth = 0 lifts it"
            )
        );
        growth.refund(20);
        assert_eq!((growth.room(&profile, at(0)), growth.reason(&profile, at(0))), (Ok(20), None));
    }

    #[test]
    fn a_clock_that_was_far_ahead_is_put_right() {
        let (mut growth, profile) = (Growth::default(), outlook());
        growth.accepted(1000, at(0));
        growth.accepted(7000, at(20 * 86_400));
        growth.accepted(1, at(20 * 86_400 + 3600));
        growth.accepted(100, at(7200));
        assert_eq!(growth.most(&profile, at(10_800)), Some(2000.0), "what lies ahead is no history");
        growth.accepted(50, at(7199));
        assert_eq!(growth.accepted, 150, "a small step back is the same hour");
    }

    proptest! {
        #[test]
        fn state_stays_small_and_is_read_as_it_was_written(
            steps in prop::collection::vec((-5_000i64..400_000, 0u32..1000, any::<bool>()), 0..300),
        ) {
            let (mut growth, profile) = (Growth::default(), outlook());
            let mut now = 0;
            for (step, n, refused) in steps {
                now += step;
                if growth.ask(&profile, n as usize, at(now)).is_ok() {
                    growth.accepted(n, at(now));
                }
                if refused {
                    growth.refused(at(now));
                }
                prop_assert!(growth.days.len() <= 31);
                prop_assert!(growth.days.windows(2).all(|two| two[0].0 < two[1].0));
                prop_assert!(growth.most(&profile, at(now)) >= Some(500.0));
            }
            let text = serde_json::to_string(&growth).unwrap();
            prop_assert!(text.len() < 1000, "{}", text);
            let kept: Growth = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(kept.room(&profile, at(now)).is_ok(), growth.room(&profile, at(now)).is_ok());
            prop_assert_eq!(Growth { pace: growth.pace, ..kept }, growth);
        }
    }
}
