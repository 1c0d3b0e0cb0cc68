//! How many recipients a lane's receiver accepted in the last minute and the last hour.
//!
//! Limits of receivers are counts within a time, so the place where one lies is read from these: what had been accepted
//! in the minute, or the hour, before a refusal. Seconds for the minute, a third of a minute for the hour; both slide.

use std::time::Duration;

use crate::types::Timestamp;

const SECONDS: usize = 60;
/// The hour, and the slice that is half in it: it is counted whole, as the receiver may.
const THIRDS: usize = 181;
const THIRD_SECS: i64 = 20;

#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    seconds: Ring<SECONDS>,
    thirds: Ring<THIRDS>,
}

/// The last slices of a time line, each with its number and its count.
#[derive(Clone, Debug)]
struct Ring<const N: usize> {
    slices: [u32; N],
    /// The number of the newest slice.
    newest: i64,
    sum: u64,
}

impl Counts {
    /// The clock was set by so much: what was counted lies as far back as before.
    pub(super) fn shift(&mut self, by_millis: i64) {
        self.seconds.shift(by_millis / 1000);
        self.thirds.shift(by_millis / (1000 * THIRD_SECS));
    }

    pub(super) fn add(&mut self, recipients: u32, now: Timestamp) {
        self.seconds.add(now.secs(), recipients);
        self.thirds.add(third(now), recipients);
    }

    /// Recipients accepted in the last minute.
    pub(super) fn minute(&mut self, now: Timestamp) -> f64 {
        self.seconds.sum(now.secs()) as f64
    }

    /// Recipients accepted in the last hour.
    pub(super) fn hour(&mut self, now: Timestamp) -> f64 {
        self.thirds.sum(third(now)) as f64
    }

    /// When the last hour will hold no more than `most`, if nothing else is accepted until then.
    pub(super) fn hour_falls_to(&mut self, most: f64, now: Timestamp) -> Timestamp {
        self.thirds.advance(third(now));
        let newest = self.thirds.newest;
        let mut sum = self.thirds.sum as f64;
        for number in newest - THIRDS as i64 + 1..=newest {
            if sum <= most {
                break;
            }
            sum -= f64::from(self.thirds.slices[Ring::<THIRDS>::place(number)]);
            if sum <= most {
                return Timestamp::from_secs((number + THIRDS as i64) * THIRD_SECS);
            }
        }
        now
    }

    /// The most that one whole minute took, of those that began at `from` or later and ended before `until`.
    pub(super) fn best_minute(&mut self, from: Timestamp, until: Timestamp, now: Timestamp) -> f64 {
        self.thirds.advance(third(now));
        let first = from.secs().div_euclid(60) + 1;
        let last = until.secs().div_euclid(60) - 1;
        let minutes = THIRDS as i64 / 3;
        let this = now.secs().div_euclid(60);
        (first.max(this - minutes + 1)..=last.min(this)).map(|number| self.in_minute(number)).fold(0.0, f64::max)
    }

    fn in_minute(&self, number: i64) -> f64 {
        let thirds = (number * 3..number * 3 + 3).filter(|number| self.thirds.holds(*number));
        thirds.map(|number| f64::from(self.thirds.slices[Ring::<THIRDS>::place(number)])).fold(0.0, |sum, n| sum + n)
    }

    /// Recipients a minute over the last `span` of whole minutes; steadier than the last minute alone.
    pub(super) fn mean(&self, span: Duration, now: Timestamp) -> f64 {
        let minutes = i64::try_from(span.as_secs() / 60).unwrap_or(1).clamp(1, 59);
        let this = now.secs().div_euclid(60);
        (this - minutes..this).map(|number| self.in_minute(number)).fold(0.0, |sum, n| sum + n) / minutes as f64
    }

    /// As `minute`, for those who only look.
    pub(super) fn last_minute(&self, now: Timestamp) -> f64 {
        let this = now.secs();
        let counted = (this - SECONDS as i64 + 1..=this).filter(|number| self.seconds.holds(*number));
        let sum: u64 = counted.map(|number| u64::from(self.seconds.slices[Ring::<SECONDS>::place(number)])).sum();
        sum as f64
    }
}

fn third(now: Timestamp) -> i64 {
    now.secs().div_euclid(THIRD_SECS)
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Ring<N> {
        Ring { slices: [0; N], newest: 0, sum: 0 }
    }
}

impl<const N: usize> Ring<N> {
    fn place(number: i64) -> usize {
        usize::try_from(number.rem_euclid(N as i64)).unwrap_or(0)
    }

    fn holds(&self, number: i64) -> bool {
        number <= self.newest && number > self.newest - N as i64
    }

    fn add(&mut self, number: i64, count: u32) {
        // A clock that went back counts into the newest slice.
        self.advance(number);
        let slice = &mut self.slices[Self::place(self.newest)];
        *slice = slice.saturating_add(count);
        self.sum += u64::from(count);
    }

    fn sum(&mut self, number: i64) -> u64 {
        self.advance(number);
        self.sum
    }

    fn shift(&mut self, by: i64) {
        self.slices.rotate_right(Self::place(by));
        self.newest += by;
    }

    fn advance(&mut self, number: i64) {
        if number - self.newest >= N as i64 {
            *self = Ring { newest: number, ..Ring::default() };
        }
        while self.newest < number {
            self.newest += 1;
            let slice = std::mem::take(&mut self.slices[Self::place(self.newest)]);
            self.sum = self.sum.saturating_sub(u64::from(slice));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    #[test]
    fn counts_what_the_last_minute_and_the_last_hour_took() {
        let mut counts = Counts::default();
        for secs in 0..7200 {
            counts.add(2, at(secs));
        }
        assert_eq!(counts.minute(at(7199)), 120.0);
        assert_eq!(counts.last_minute(at(7199)), 120.0);
        assert!((7200.0..=7240.0).contains(&counts.hour(at(7199))), "{}", counts.hour(at(7199)));
        assert_eq!(counts.mean(Duration::from_secs(300), at(7199)), 120.0);
        assert_eq!(counts.minute(at(7300)), 0.0);
        assert_eq!(counts.hour(at(20_000)), 0.0);
    }

    #[test]
    fn tells_when_the_hour_has_room_again() {
        let mut counts = Counts::default();
        counts.add(100, at(0));
        counts.add(50, at(600));
        assert_eq!(counts.hour_falls_to(150.0, at(700)), at(700));
        let first = counts.hour_falls_to(149.0, at(700));
        assert!(first >= at(3600) && first <= at(3640), "{first}");
        assert_eq!(counts.hour(first), 50.0);
        let second = counts.hour_falls_to(0.0, at(700));
        assert!(second >= at(4200) && second <= at(4240), "{second}");
    }

    #[test]
    fn the_best_minute_is_looked_for_in_the_time_that_is_asked_for() {
        let mut counts = Counts::default();
        for (secs, n) in [(20, 5), (80, 50), (140, 7)] {
            counts.add(n, at(secs));
        }
        assert_eq!(counts.best_minute(at(0), at(600), at(600)), 50.0);
        assert_eq!(counts.best_minute(at(110), at(600), at(600)), 7.0);
        assert_eq!(counts.best_minute(at(500), at(600), at(600)), 0.0);
    }

    #[test]
    fn a_clock_that_is_set_changes_nothing_of_what_was_counted() {
        for by in [-86_400, -7, 0, 61, 86_400 * 30] {
            let mut counts = Counts::default();
            (0..4000).for_each(|secs| counts.add(1, at(secs)));
            counts.shift(by * 1000);
            let now = at(3999 + by);
            assert_eq!((counts.minute(now), counts.last_minute(now)), (60.0, 60.0), "{by}");
            assert!((3560.0..=3640.0).contains(&counts.hour(now)), "{by}: {}", counts.hour(now));
            counts.add(5, now);
            assert_eq!(counts.minute(now + Duration::from_secs(60)), 0.0, "{by}");
        }
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_last_minute_whatever_the_clock_does(steps in prop::collection::vec((0i64..200, 0u32..50), 1..100)) {
            let mut counts = Counts::default();
            let mut log: Vec<(i64, u32)> = Vec::new();
            let mut newest = 0;
            for (secs, n) in steps {
                newest = newest.max(secs);
                counts.add(n, at(secs));
                log.push((newest, n));
                let expected: u32 = log.iter().filter(|(at, _)| *at > newest - 60).map(|(_, n)| n).sum();
                prop_assert_eq!(counts.minute(at(newest)), f64::from(expected));
                prop_assert_eq!(counts.last_minute(at(newest)), f64::from(expected));
            }
        }
    }
}
