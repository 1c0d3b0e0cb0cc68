//! How many recipients a lane's receiver accepted, and when: counted within any span of time up to a day.
//!
//! Receivers count within a time, and nobody says within which. So the history answers for every span: what is old is kept
//! in coarser steps, and a day of any volume takes some hundred of them. Rules that always hold:
//!
//! - a count is off by what lies in one step at most, and a step covers at most a hundredth of its age;
//! - what was accepted counts from the moment at which it was begun, as the receiver counts it.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::Timestamp;

/// A step covers at most this part of its age.
const COARSE: i64 = 100;
/// The finest step, in milliseconds.
const FINE: i64 = 20;
/// Older than this nothing is kept, in milliseconds: a day, and what the coarse steps may be off.
const KEPT: i64 = 90_000_000;
/// Steps are merged when there are so many more than after the last merging.
const SLACK: usize = 256;
/// What is kept over a restart: so many steps, of equal counts.
const SAVED_MAX: usize = 120;

#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Oldest first: the end of a step, and the recipients accepted up to there since ever.
    steps: VecDeque<(i64, u64)>,
    /// Accepted before the oldest step that is kept.
    before: u64,
    /// Steps after the last merging.
    merged: usize,
}

impl History {
    /// Recipients that were accepted, and begun at `started`.
    pub(super) fn add(&mut self, recipients: u32, started: Timestamp, now: Timestamp) {
        let (recipients, moment) = (u64::from(recipients), started.min(now).millis());
        match self.steps.back_mut() {
            Some((at, sum)) if moment < *at + FINE && moment >= *at => *sum += recipients,
            Some((at, _)) if moment < *at => self.add_late(recipients, moment),
            _ => self.steps.push_back((moment, self.total() + recipients)),
        }
        if self.steps.len() > self.merged + SLACK {
            self.merge(now);
        }
    }

    /// Others that were begun later are counted already.
    fn add_late(&mut self, recipients: u64, moment: i64) {
        let place = self.steps.partition_point(|(at, _)| *at < moment);
        let (begins, before) = place.checked_sub(1).map_or((i64::MIN, self.before), |last| self.steps[last]);
        if moment >= begins.saturating_add(FINE) && self.steps[place].0 >= moment + FINE {
            self.steps.insert(place, (moment, before));
        }
        self.steps.range_mut(place..).for_each(|(_, sum)| *sum += recipients);
    }

    /// Recipients accepted since ever.
    pub(super) fn total(&self) -> u64 {
        self.steps.back().map_or(self.before, |(_, sum)| *sum)
    }

    /// Recipients accepted within the span that ends now.
    pub(super) fn count(&self, span: Duration, now: Timestamp) -> u64 {
        self.total() - self.total_at(now - span)
    }

    /// Recipients accepted until then, itself included.
    pub(super) fn total_at(&self, moment: Timestamp) -> u64 {
        let place = self.steps.partition_point(|(at, _)| *at <= moment.millis());
        place.checked_sub(1).map_or(self.before, |place| self.steps[place].1)
    }

    /// When the span will hold no more than `most`, if nothing else is accepted until then.
    pub(super) fn falls_to(&self, most: u64, span: Duration, now: Timestamp) -> Timestamp {
        let wanted = self.total().saturating_sub(most);
        if self.total_at(now - span) >= wanted {
            return now;
        }
        let place = self.steps.partition_point(|(_, sum)| *sum < wanted);
        self.steps.get(place).map_or(now, |(at, _)| Timestamp::from_millis(*at + 1) + span)
    }

    /// When the first of what is known was accepted.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.steps.front().map(|(at, _)| Timestamp::from_millis(*at))
    }

    /// Recipients a minute over the span, or over the time since the first of them.
    pub(super) fn mean(&self, span: Duration, now: Timestamp) -> f64 {
        let known = self.oldest().map_or(Duration::ZERO, |first| now.since(first));
        let over = span.min(known).max(Duration::from_secs(1));
        self.count(over, now) as f64 * 60.0 / over.as_secs_f64()
    }

    /// Moves everything with a clock that was set.
    pub(super) fn shift(&mut self, by_millis: i64) {
        self.steps.iter_mut().for_each(|(at, _)| *at = at.saturating_add(by_millis));
    }

    fn merge(&mut self, now: Timestamp) {
        let now = now.millis();
        while let Some((_, sum)) = self.steps.front().copied().filter(|(at, _)| *at < now.saturating_sub(KEPT)) {
            self.before = sum;
            self.steps.pop_front();
        }
        let mut kept: VecDeque<(i64, u64)> = VecDeque::with_capacity(self.merged + SLACK);
        for (at, sum) in self.steps.drain(..) {
            // A step begins where the one before it ends.
            let begins = kept.len().checked_sub(2).and_then(|place| kept.get(place)).map(|(end, _)| *end);
            match (kept.back_mut(), begins) {
                (Some(last), Some(begins)) if at - begins <= (now - at) / COARSE => *last = (at, sum),
                _ => kept.push_back((at, sum)),
            }
        }
        self.merged = kept.len();
        self.steps = kept;
    }
}

/// Steps of about equal counts: their ends, and what each holds.
impl Serialize for History {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let all = self.total() - self.before;
        let least = all / SAVED_MAX as u64 + 1;
        let (mut sum, mut saved) = (self.before, Vec::new());
        for (place, (at, total)) in self.steps.iter().enumerate() {
            if total - sum >= least || (place + 1 == self.steps.len() && *total > sum) {
                saved.push((*at, total - sum));
                sum = *total;
            }
        }
        saved.serialize(s)
    }
}

impl<'de> Deserialize<'de> for History {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<History, D::Error> {
        let saved: Vec<(i64, u64)> = Vec::deserialize(d)?;
        let mut history = History::default();
        for (at, count) in saved.into_iter().take(2 * SAVED_MAX) {
            let last = history.steps.back().map_or(i64::MIN, |(at, _)| *at);
            history.steps.push_back((at.max(last), history.total().saturating_add(count)));
        }
        history.merged = history.steps.len();
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + millis)
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn counts_within_any_span() {
        let mut history = History::default();
        for second in 0..7200 {
            history.add(2, at(second * 1000), at(second * 1000 + 400));
        }
        let now = at(7_199_500);
        assert_eq!((history.count(secs(1), now), history.count(secs(60), now)), (2, 120));
        let hour = history.count(secs(3600), now);
        assert!((7120..=7280).contains(&hour), "{hour}");
        assert_eq!(history.total(), 14_400);
        assert!(history.steps.len() < 1200, "{}", history.steps.len());
    }

    #[test]
    fn what_is_answered_late_counts_from_its_beginning() {
        let mut history = History::default();
        history.add(1, at(0), at(100));
        history.add(1, at(5000), at(5100));
        history.add(1, at(1000), at(6000));
        assert_eq!(history.count(Duration::from_millis(5500), at(6000)), 2);
        assert_eq!(history.count(Duration::from_millis(4500), at(6000)), 1);
        assert_eq!(history.total(), 3);
    }

    #[test]
    fn tells_when_a_span_has_room_again() {
        let mut history = History::default();
        history.add(100, at(0), at(0));
        history.add(50, at(600_000), at(600_000));
        let now = at(700_000);
        assert_eq!(history.falls_to(150, secs(3600), now), now);
        assert_eq!(history.falls_to(149, secs(3600), now), at(3_600_001));
        assert_eq!(history.falls_to(0, secs(3600), now), at(4_200_001));
        assert_eq!(history.count(secs(3600), at(3_600_001)), 50);
    }

    #[test]
    fn a_restart_keeps_what_long_spans_hold() {
        let mut history = History::default();
        for minute in 0..1500 {
            history.add(7, at(minute * 60_000), at(minute * 60_000));
        }
        let text = serde_json::to_string(&history).unwrap();
        assert!(text.len() < 4000, "{}", text.len());
        let back: History = serde_json::from_str(&text).unwrap();
        let now = at(1500 * 60_000);
        for span in [secs(3600), secs(43_200), secs(86_400)] {
            let (before, after) = (history.count(span, now) as f64, back.count(span, now) as f64);
            assert!((before - after).abs() <= 0.03 * 1500.0 * 7.0, "{span:?}: {before} {after}");
        }
    }

    proptest! {
        #[test]
        fn a_count_is_off_by_a_hundredth_of_the_span_at_most(
            steps in prop::collection::vec((0i64..30_000, 1u32..50), 1..600), span in 1u64..2000,
        ) {
            let (mut history, mut log, mut now) = (History::default(), Vec::new(), 0);
            for (wait, n) in steps {
                now += wait;
                history.add(n, at(now), at(now));
                log.push((now, u64::from(n)));
            }
            let within = |span: i64| log.iter().filter(|(at, _)| *at > now - span).map(|(_, n)| n).sum::<u64>();
            let span = i64::try_from(span * 1000).unwrap();
            let counted = history.count(Duration::from_millis(u64::try_from(span).unwrap()), at(now));
            let (least, most) = (within(span - span / 50 - 100), within(span + span / 50 + 100));
            prop_assert!((least..=most).contains(&counted), "{counted} is not from {least} to {most}");
        }

        #[test]
        fn no_clock_breaks_it(steps in prop::collection::vec((-100_000_000i64..100_000_000, 0u32..50), 0..400)) {
            let (mut history, mut now, mut sum) = (History::default(), 0i64, 0u64);
            for (wait, n) in steps {
                now = now.saturating_add(wait);
                history.add(n, at(now), at(now));
                sum += u64::from(n);
                prop_assert_eq!(history.total(), sum);
                prop_assert!(history.count(secs(3600), at(now)) <= sum);
                prop_assert!(history.falls_to(0, secs(60), at(now)) >= at(now) || history.total() == 0);
            }
        }
    }
}
