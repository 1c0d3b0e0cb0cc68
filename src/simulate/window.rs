//! Windows of time: how much a receiver takes in any minute, in each hour by the clock, or as a bucket fills.
//!
//! Rules that always hold:
//! - *sliding*: what was counted at `t` is in the window until just before `t + span`, so no stretch of time as long as the span
//!   ever holds more than was let in;
//! - *by the clock*: spans begin at the multiples of their length since 1970 (UTC), so a day begins at midnight;
//! - *bucket*: it holds `depth` at most and is full in the beginning; `count` flow in during each span, evenly;
//! - counts are exact to the millisecond, and one log serves windows of every length: a window that is new by a change of the
//!   profile knows what was there before it.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{Span, Timestamp};

/// So many recipients in a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowLimit {
    pub count: u32,
    pub span: Span,
    #[serde(default)]
    pub kind: WindowKind,
    /// What a bucket holds at most; only buckets have it.
    #[serde(default)]
    pub depth: Option<u32>,
    /// Whose mail is counted together.
    #[serde(default)]
    pub scope: Scope,
    /// Attempts refused for a rate or during a penalty are counted, too.
    #[serde(default)]
    pub counts_refused: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowKind {
    #[default]
    Sliding,
    Clock,
    Bucket,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Each source address has its own.
    #[default]
    Source,
    /// All sources share one.
    All,
}

impl WindowLimit {
    /// A sliding window of each source.
    pub fn sliding(count: u32, span: Duration) -> WindowLimit {
        let (kind, scope) = (WindowKind::Sliding, Scope::Source);
        WindowLimit { count, span: Span(span), kind, depth: None, scope, counts_refused: false }
    }

    /// When the stretch of time began that is counted at `now`; the beginning itself is part of it.
    fn begin(&self, now: Timestamp) -> Timestamp {
        let span = i64::try_from(self.span.0.as_millis()).unwrap_or(i64::MAX).max(1);
        Timestamp::from_millis(match self.kind {
            WindowKind::Clock => now.millis().div_euclid(span).saturating_mul(span),
            _ => now.millis().saturating_sub(span).saturating_add(1),
        })
    }

    /// What flows into a bucket in so much time.
    fn inflow(&self, time: Duration) -> f64 {
        f64::from(self.count) * time.as_secs_f64() / self.span.0.as_secs_f64()
    }
}

/// What was counted, for as long as any window looks back.
#[derive(Clone, Debug, Default)]
struct Log {
    /// Moments, and how many there were up to then, oldest first.
    moments: VecDeque<(Timestamp, u64)>,
    forgotten: u64,
}

impl Log {
    fn add(&mut self, now: Timestamp, keep: Duration) {
        while let Some((_, total)) = self.moments.front().copied().filter(|(moment, _)| *moment + keep <= now) {
            self.forgotten = total;
            self.moments.pop_front();
        }
        let total = self.total() + 1;
        match self.moments.back_mut() {
            // A clock that went back counts as one that stands.
            Some((last, sum)) if *last >= now => *sum = total,
            _ => self.moments.push_back((now, total)),
        }
    }

    fn total(&self) -> u64 {
        self.moments.back().map_or(self.forgotten, |(_, total)| *total)
    }

    /// Counted at `begin` or later.
    fn since(&self, begin: Timestamp) -> u64 {
        let place = self.moments.partition_point(|(moment, _)| *moment < begin);
        let before = place.checked_sub(1).and_then(|place| self.moments.get(place));
        self.total() - before.map_or(self.forgotten, |(_, total)| *total)
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: f64,
    at: Timestamp,
}

impl Bucket {
    fn fill(&mut self, limit: &WindowLimit, now: Timestamp) {
        let depth = f64::from(limit.depth.unwrap_or(limit.count));
        self.level = (self.level + limit.inflow(now.since(self.at))).min(depth);
        self.at = self.at.max(now);
    }

    fn has_one(&self) -> bool {
        // A sum of shares of a second may miss a whole number by a hair.
        self.level >= 1.0 - 1e-9
    }
}

/// What one source, or all of them together, have used of their windows.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    taken: Log,
    refused: Log,
    /// By the place of their windows in the profile; others have none.
    buckets: Vec<Option<Bucket>>,
}

impl Counts {
    /// Whether one more fits into all windows of this scope.
    pub(super) fn has_room(&mut self, windows: &[WindowLimit], scope: Scope, now: Timestamp) -> bool {
        windows.iter().enumerate().filter(|(_, window)| window.scope == scope).all(|(place, window)| {
            match window.kind {
                WindowKind::Bucket => self.bucket(place, window, now).has_one(),
                WindowKind::Sliding | WindowKind::Clock => {
                    let begin = window.begin(now);
                    let refused = if window.counts_refused { self.refused.since(begin) } else { 0 };
                    self.taken.since(begin) + refused < u64::from(window.count)
                }
            }
        })
    }

    /// One more was let in; what is older than `keep` is of no use any more.
    pub(super) fn take(&mut self, windows: &[WindowLimit], scope: Scope, now: Timestamp, keep: Duration) {
        self.taken.add(now, keep);
        self.drain(windows, now, |window| window.scope == scope);
    }

    /// An attempt was refused.
    pub(super) fn refuse(&mut self, windows: &[WindowLimit], scope: Scope, now: Timestamp, keep: Duration) {
        let is_counted = |window: &WindowLimit| window.scope == scope && window.counts_refused;
        if windows.iter().any(is_counted) {
            self.refused.add(now, keep);
            self.drain(windows, now, is_counted);
        }
    }

    fn drain(&mut self, windows: &[WindowLimit], now: Timestamp, is_meant: impl Fn(&WindowLimit) -> bool) {
        let is_bucket = |window: &WindowLimit| window.kind == WindowKind::Bucket && is_meant(window);
        for (place, window) in windows.iter().enumerate().filter(|(_, window)| is_bucket(window)) {
            let bucket = self.bucket(place, window, now);
            bucket.level = (bucket.level - 1.0).max(0.0);
        }
    }

    fn bucket(&mut self, place: usize, limit: &WindowLimit, now: Timestamp) -> &mut Bucket {
        if self.buckets.len() <= place {
            self.buckets.resize(place + 1, None);
        }
        let full = Bucket { level: f64::from(limit.depth.unwrap_or(limit.count)), at: now };
        let bucket = self.buckets[place].get_or_insert(full);
        bucket.fill(limit, now);
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEEP: Duration = Duration::from_secs(86_400);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + millis)
    }

    /// How many of those who try at these moments are let in.
    fn let_in(window: WindowLimit, moments: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let mut counts = Counts::default();
        let mut try_at = |millis: i64| {
            let has_room = counts.has_room(&[window], window.scope, at(millis));
            match has_room {
                true => counts.take(&[window], window.scope, at(millis), KEEP),
                false => counts.refuse(&[window], window.scope, at(millis), KEEP),
            }
            has_room
        };
        moments.into_iter().filter(|millis| try_at(*millis)).collect()
    }

    #[test]
    fn a_count_leaves_a_sliding_window_exactly_when_the_span_is_over() {
        let window = WindowLimit::sliding(2, Duration::from_secs(60));
        let tried = [0, 30_000, 30_001, 59_999, 60_000, 60_001, 89_999, 90_000];
        assert_eq!(let_in(window, tried), [0, 30_000, 60_000, 90_000]);
    }

    #[test]
    fn a_window_by_the_clock_begins_anew_at_each_multiple_of_its_span() {
        let span = Span(Duration::from_secs(600));
        let window = WindowLimit { kind: WindowKind::Clock, span, ..WindowLimit::sliding(2, Duration::ZERO) };
        let tried = [590_000, 599_998, 599_999, 600_000, 600_001, 600_002, 1_199_999, 1_200_000];
        assert_eq!(let_in(window, tried), [590_000, 599_998, 600_000, 600_001, 1_200_000]);
    }

    #[test]
    fn a_bucket_gives_its_depth_at_once_and_then_its_rate() {
        let window = WindowLimit {
            kind: WindowKind::Bucket,
            depth: Some(5),
            ..WindowLimit::sliding(60, Duration::from_secs(60))
        };
        let each_100_ms = (0..300).map(|n| n * 100);
        assert_eq!(let_in(window, each_100_ms).len(), 5 + 29, "five at once, then one a second");
        let after_rest =
            let_in(window, [0, 0, 0, 0, 0, 0, 3_600_000, 3_600_000, 3_600_000, 3_600_000, 3_600_000, 3_600_000]);
        assert_eq!(after_rest.len(), 10, "it never holds more than its depth");
    }

    #[test]
    fn refused_attempts_count_where_the_window_says_so() {
        let each_second = || (0..180).map(|n| n * 1000);
        let window = WindowLimit::sliding(10, Duration::from_secs(60));
        assert_eq!(let_in(window, each_second()).len(), 30);
        let strict = WindowLimit { counts_refused: true, ..window };
        assert_eq!(let_in(strict, each_second()).len(), 10, "who goes on knocking never gets in again");
        let bucket = WindowLimit { kind: WindowKind::Bucket, depth: Some(10), counts_refused: true, ..window };
        assert_eq!(let_in(bucket, each_second()).len(), 11, "each knock takes what has flowed in");
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_its_count(
            steps in prop::collection::vec(0i64..40, 1..120), count in 1u32..8, clock: bool,
        ) {
            let kind = if clock { WindowKind::Clock } else { WindowKind::Sliding };
            let window = WindowLimit { kind, ..WindowLimit::sliding(count, Duration::from_millis(100)) };
            let mut now = 0;
            let moments: Vec<i64> = steps.iter().map(|step| { now += step; now }).collect();
            let taken = let_in(window, moments.iter().copied());
            let inside = |of: i64, t: i64| if clock { of / 100 == t / 100 } else { of <= t && of + 100 > t };
            for moment in &moments {
                let held = taken.iter().filter(|t| inside(**t, *moment) && *t <= moment).count();
                prop_assert!(held <= count as usize);
                prop_assert!(held == count as usize || taken.contains(moment), "refused with room");
            }
        }
    }
}
