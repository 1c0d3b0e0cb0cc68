//! Warm-up: a new address sends little at first, and more from day to day.
//!
//! Outlook.com's postmaster pages want new addresses ramped up over about two weeks. For each source and provider that the
//! configuration names, a schedule says how many recipients a day may get mail. Rules that always hold:
//!
//! - in no 24 hours do more go than the day's step of the schedule says (and the rest of the one message that filled it);
//! - they are spread: an eighth may go at once, the rest evenly over the day, so that midnight (UTC) brings no burst;
//! - a step is made only by a day on which mail was accepted and nothing was refused for our address;
//! - after the last step there is no allowance any more; after 30 days without mail the schedule begins again.

use serde::{Deserialize, Serialize};

use super::pace::Pacer;
use super::words::Grouped;
use crate::types::Timestamp;

const DAY_MILLIS: i64 = 86_400_000;
const MINUTES_PER_DAY: f64 = 1440.0;
/// An address without mail for so long is new again to a receiver.
const IDLE_DAYS: i64 = 30;
/// The part of a day's recipients that may go at once.
const BURST: f64 = 0.125;
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
    /// Something was refused on it for our address.
    refused: bool,
    /// The last day on which mail was accepted.
    used: Option<i64>,
    pace: Pacer,
}

impl Warmup {
    /// Lets `n` recipients through, or says when to ask again. `schedule`: recipients on the first, second, … day.
    pub fn ask(&mut self, schedule: &[u32], n: usize, now: Timestamp) -> Result<(), Timestamp> {
        self.roll(now);
        let Some(most) = self.most(schedule, now) else { return Ok(()) };
        self.pace.ask_in_bursts(rate(most), f64::from(most) * BURST, n, now)
    }

    /// How many recipients may go now, at least one, or when to ask.
    pub fn room(&self, schedule: &[u32], now: Timestamp) -> Result<usize, Timestamp> {
        match self.most(schedule, now) {
            None => Ok(usize::MAX),
            Some(most) => self.pace.room_in_bursts(rate(most), f64::from(most) * BURST, now),
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

    /// The receiver refused something for our address: tomorrow is as today.
    pub fn refused(&mut self, now: Timestamp) {
        self.roll(now);
        self.refused = true;
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
            "warm-up, day {day} of {days}: at most {} recipients a day; [[source]] warm_up without this provider ends it",
            Grouped(u64::from(most))
        ))
    }

    fn roll(&mut self, now: Timestamp) {
        let Count { step, day, accepted, refused, used } = self.rolled(now);
        (self.step, self.day, self.accepted, self.refused, self.used) = (step, Some(day), accepted, refused, used);
    }

    /// What is counted, with `now`'s day begun if it is another one.
    fn rolled(&self, now: Timestamp) -> Count {
        let today = now.millis().div_euclid(DAY_MILLIS);
        let Count { mut step, day, accepted, refused, mut used } = Count {
            step: self.step,
            day: self.day.unwrap_or(today),
            accepted: self.accepted,
            refused: self.refused,
            used: self.used,
        };
        let was_wrong = today + WRONG_CLOCK_DAYS < day;
        if today <= day && !was_wrong {
            return Count { step, day, accepted, refused, used };
        }
        if was_wrong {
            // What was counted under the wrong date stays, under today's.
            used = used.map(|used| used.min(today));
        } else if accepted > 0 {
            used = Some(day);
            step = step.saturating_add(usize::from(!refused));
        }
        if used.is_some_and(|used| today - used > IDLE_DAYS) {
            (step, used) = (0, None);
        }
        Count { step, day: today, accepted: 0, refused: false, used }
    }
}

struct Count {
    step: usize,
    day: i64,
    accepted: u64,
    refused: bool,
    used: Option<i64>,
}

/// Recipients a minute behind the burst, so that both together are the day's.
fn rate(most: u32) -> f64 {
    f64::from(most) * (1.0 - BURST) / MINUTES_PER_DAY
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
    fn a_day_with_a_refusal_is_no_step() {
        let mut warmup = Warmup::default();
        warmup.accepted(50, at(0));
        warmup.refused(at(60));
        assert_eq!(warmup.most(&SCHEDULE, at(DAY)), Some(80));
        warmup.accepted(50, at(DAY));
        assert_eq!(warmup.most(&SCHEDULE, at(2 * DAY)), Some(160));
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
        assert_eq!(warmup.room(&long, at(DAY)), Ok(187));
        warmup.ask(&long, 187, at(DAY)).unwrap();
        assert!(warmup.room(&long, at(DAY)).is_err());
        warmup.refund(100);
        assert_eq!(warmup.room(&long, at(DAY)), Ok(100));
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
