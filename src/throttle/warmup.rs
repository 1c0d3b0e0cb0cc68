//! Warm-up: a new address sends little at first, and more from day to day.
//!
//! Outlook.com's postmaster pages want new addresses ramped up over about two weeks. For each source and provider that the
//! configuration names, a schedule says how many recipients a day may get mail. Rules that always hold:
//!
//! - in no 24 hours do more go than the day's step of the schedule says (and the rest of the one message that filled it);
//! - they are spread: 25 may go at once, an eighth at most, the rest evenly over the day, so that midnight (UTC) brings no burst;
//! - a step is made only by a day on which mail was accepted and less than one in a hundred refused for our address;
//! - after the last step there is no allowance any more; after 30 days without mail the schedule begins again.

use serde::{Deserialize, Serialize};

use super::growth::{self, BURST};
use super::pace::Pacer;
use crate::types::Timestamp;
use crate::types::words::count;

const DAY_MILLIS: i64 = 86_400_000;
const MINUTES_PER_DAY: f64 = 1440.0;
/// An address without mail for so long is new again to a receiver.
const IDLE_DAYS: i64 = 30;
/// The part of a day's recipients that may go at once, at most.
const BURST_PART: f64 = 0.125;
/// A clock this many days behind what was counted was wrong before, not now.
const WRONG_CLOCK_DAYS: i64 = 1;

/// How far a source has come at a provider. The empty one stands before its first day.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Warmup {
    /// Steps of the schedule that are behind it.
    step: usize,
    /// The day that is counted, in days since 1970; none before the first mail.
    day: Option<i64>,
    /// Recipients accepted on it.
    accepted: u64,
    /// What was refused on it for our address.
    #[serde(default)]
    refusals: u64,
    /// The last day on which mail was accepted.
    used: Option<i64>,
    pace: Pacer,
}

impl Warmup {
    /// Lets `n` recipients through, or says when to ask again. `schedule`: recipients on the first, second, … day.
    pub fn ask(&mut self, schedule: &[u32], n: usize, now: Timestamp) -> Result<(), Timestamp> {
        self.roll(now);
        let Some(most) = self.most(schedule, now) else { return Ok(()) };
        self.pace.ask_in_bursts(rate(most), burst(most), n, now)
    }

    /// How many recipients may go now, at least one, or when to ask.
    pub fn room(&self, schedule: &[u32], now: Timestamp) -> Result<usize, Timestamp> {
        match self.most(schedule, now) {
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

    /// Recipients a minute that go while mail waits; none: the address is warm.
    pub(super) fn pace(&self, schedule: &[u32], now: Timestamp) -> Option<f64> {
        self.most(schedule, now).map(rate)
    }

    /// The clock was set by so much. Days are those of the calendar: they stay where they were counted.
    pub(super) fn shift(&mut self, by_millis: i64) {
        self.pace.shift(by_millis);
    }

    /// Recipients a day that may go now; none: the address is warm.
    pub fn most(&self, schedule: &[u32], now: Timestamp) -> Option<u32> {
        schedule.get(self.rolled(now).step).copied()
    }

    /// Where it stands, for people; none: the address is warm.
    pub fn reason(&self, schedule: &[u32], now: Timestamp) -> Option<String> {
        let most = self.most(schedule, now)?;
        let (day, days) = (self.rolled(now).step + 1, schedule.len());
        Some(format!(
            "warm-up, day {day} of {days}: at most {} a day; [[source]] warm_up without this provider ends it",
            count(most, "recipient")
        ))
    }

    /// What it lets through and why, for those who wonder why much waits; none: the address is warm.
    pub(super) fn because(&self, schedule: &[u32], now: Timestamp) -> Option<String> {
        let most = count(self.most(schedule, now)?, "recipient");
        let (day, days) = (self.rolled(now).step + 1, schedule.len());
        Some(format!(
            "the warm-up lets {most} go on day {day} of {days}; [[source]] `warm_up` without this provider ends it"
        ))
    }

    fn roll(&mut self, now: Timestamp) {
        let Count { step, day, accepted, refusals, used } = self.rolled(now);
        (self.step, self.day, self.accepted, self.refusals, self.used) = (step, Some(day), accepted, refusals, used);
    }

    /// What is counted, with `now`'s day begun if it is another one.
    fn rolled(&self, now: Timestamp) -> Count {
        let today = now.millis().div_euclid(DAY_MILLIS);
        let Count { mut step, day, accepted, refusals, mut used } = Count {
            step: self.step,
            day: self.day.unwrap_or(today),
            accepted: self.accepted,
            refusals: self.refusals,
            used: self.used,
        };
        let was_wrong = today + WRONG_CLOCK_DAYS < day;
        if today <= day && !was_wrong {
            return Count { step, day, accepted, refusals, used };
        }
        if was_wrong {
            // What was counted under the wrong date stays, under today's.
            used = used.map(|used| used.min(today));
        } else if accepted > 0 {
            used = Some(day);
            step = step.saturating_add(usize::from(growth::is_clean(accepted, refusals)));
        }
        if used.is_some_and(|used| today - used > IDLE_DAYS) {
            (step, used) = (0, None);
        }
        Count { step, day: today, accepted: 0, refusals: 0, used }
    }
}

struct Count {
    step: usize,
    day: i64,
    accepted: u64,
    refusals: u64,
    used: Option<i64>,
}

fn burst(most: u32) -> f64 {
    BURST.min(f64::from(most) * BURST_PART)
}

/// Recipients a minute behind the burst, so that both together are the day's.
fn rate(most: u32) -> f64 {
    (f64::from(most) - burst(most)) / MINUTES_PER_DAY
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The beginning of a day.
    const START: i64 = 1_794_960_000;
    const DAY: i64 = 86_400;
    const SCHEDULE: [u32; 4] = [80, 160, 320, 640];

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(START + secs)
    }

    /// Sends whatever is let through; the seconds at which each went.
    fn press(warmup: &mut Warmup, from: i64, to: i64) -> Vec<i64> {
        let (mut now, mut gone) = (at(from), Vec::new());
        while now < at(to) && gone.len() < 100_000 {
            match warmup.ask(&SCHEDULE, 1, now) {
                Ok(()) => {
                    warmup.accepted(1, now);
                    gone.push(now.secs() - START);
                }
                Err(moment) => now = moment,
            }
        }
        gone
    }

    #[test]
    fn each_day_with_mail_is_a_step_and_after_the_last_there_is_no_limit() {
        let mut warmup = Warmup::default();
        for (day, most) in (0..).zip(SCHEDULE) {
            assert_eq!(warmup.most(&SCHEDULE, at(day * DAY)), Some(most));
            let sent = press(&mut warmup, day * DAY, (day + 1) * DAY).len();
            assert!(sent <= most as usize && sent * 10 >= most as usize * 9, "day {day}: {sent} of {most}");
        }
        assert_eq!(warmup.most(&SCHEDULE, at(4 * DAY)), None);
        assert_eq!(warmup.ask(&SCHEDULE, 1_000_000, at(4 * DAY)), Ok(()));
        assert_eq!(warmup.reason(&SCHEDULE, at(4 * DAY)), None);
    }

    #[test]
    fn a_day_without_mail_is_no_step() {
        let mut warmup = Warmup::default();
        warmup.accepted(1, at(0));
        for day in 1..5 {
            assert_eq!(warmup.ask(&SCHEDULE, 1, at(day * DAY)), Ok(()));
            assert_eq!(warmup.most(&SCHEDULE, at(day * DAY)), Some(160), "let through, but not accepted");
        }
    }

    #[test]
    fn a_day_with_one_refusal_in_a_hundred_is_no_step_and_one_with_fewer_is() {
        let mut warmup = Warmup::default();
        warmup.accepted(50, at(0));
        warmup.refused(at(60));
        assert_eq!(warmup.most(&SCHEDULE, at(DAY)), Some(80));
        warmup.accepted(50, at(DAY));
        assert_eq!(warmup.most(&SCHEDULE, at(2 * DAY)), Some(160));
        warmup.accepted(150, at(2 * DAY));
        warmup.refused(at(2 * DAY));
        assert_eq!(warmup.most(&SCHEDULE, at(3 * DAY)), Some(320));
    }

    #[test]
    fn a_month_without_mail_begins_it_again() {
        let mut warmup = Warmup::default();
        (0..10).for_each(|day| warmup.accepted(50, at(day * DAY)));
        assert_eq!(warmup.most(&SCHEDULE, at(39 * DAY)), None);
        assert_eq!(warmup.most(&SCHEDULE, at(40 * DAY)), Some(80));
        warmup.accepted(1, at(40 * DAY));
        assert_eq!(warmup.most(&SCHEDULE, at(41 * DAY)), Some(160));
    }

    #[test]
    fn midnight_brings_no_burst() {
        let mut warmup = Warmup::default();
        let gone = press(&mut warmup, 0, 3 * DAY);
        let around_midnight = gone.iter().filter(|secs| (DAY..DAY + 60).contains(*secs)).count();
        assert!(around_midnight <= 11, "the larger burst less the smaller one: {around_midnight}");
        for (i, from) in gone.iter().enumerate() {
            let within = gone[i..].iter().take_while(|to| **to - from < DAY).count();
            assert!(within <= if *from < DAY { 160 } else { 320 }, "{within} from {from}");
        }
    }

    #[test]
    fn it_says_where_it_stands() {
        let mut warmup = Warmup::default();
        warmup.accepted(1, at(0));
        let long = [100, 1500];
        assert_eq!(
            warmup.reason(&long, at(DAY)).as_deref(),
            Some(
                "warm-up, day 2 of 2: at most 1,500 recipients a day; [[source]] warm_up without this provider ends it"
            )
        );
        assert_eq!(warmup.room(&long, at(DAY)), Ok(25));
        warmup.ask(&long, 25, at(DAY)).unwrap();
        assert!(warmup.room(&long, at(DAY)).is_err());
        warmup.refund(20);
        assert_eq!(warmup.room(&long, at(DAY)), Ok(20));
    }

    #[test]
    fn a_clock_that_was_far_ahead_neither_makes_steps_nor_stops_them() {
        let mut warmup = Warmup::default();
        warmup.accepted(1, at(20 * DAY));
        warmup.accepted(1, at(0));
        assert_eq!(warmup.most(&SCHEDULE, at(0)), Some(80));
        assert_eq!(warmup.most(&SCHEDULE, at(DAY)), Some(160));
    }

    proptest! {
        #[test]
        fn a_step_is_made_at_most_once_a_day_and_state_is_read_as_it_was_written(
            steps in prop::collection::vec((0i64..100_000, 0u32..3, any::<bool>()), 0..200),
        ) {
            let mut warmup = Warmup::default();
            let (mut now, schedule) = (0, [1u32; 500]);
            for (wait, n, refused) in steps {
                now += wait;
                let _ = warmup.ask(&schedule, n as usize, at(now));
                warmup.accepted(n, at(now));
                if refused {
                    warmup.refused(at(now));
                }
                prop_assert!(warmup.step as i64 <= now / DAY);
                let text = serde_json::to_string(&warmup).unwrap();
                let kept: Warmup = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(kept.room(&schedule, at(now)).is_ok(), warmup.room(&schedule, at(now)).is_ok());
                prop_assert_eq!(&Warmup { pace: warmup.pace, ..kept }, &warmup);
            }
        }
    }
}
