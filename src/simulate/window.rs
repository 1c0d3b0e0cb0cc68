//! A sliding window: how many in the last minute, hour or day, exactly.
//!
//! A count made at `t` is in the window until just before `t + span`: so no stretch of time as long as the span ever holds more than
//! was let in.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::Timestamp;

#[derive(Clone, Debug)]
pub(super) struct Window {
    span: Duration,
    /// Moments and what was counted at them, oldest first.
    counts: VecDeque<(Timestamp, u32)>,
    sum: u64,
}

impl Window {
    pub(super) fn new(span: Duration) -> Window {
        Window { span, counts: VecDeque::new(), sum: 0 }
    }

    pub(super) fn add(&mut self, count: u32, now: Timestamp) {
        self.forget(now);
        self.sum += u64::from(count);
        match self.counts.back_mut() {
            // A clock that went back counts as one that stands.
            Some((last, sum)) if *last >= now => *sum = sum.saturating_add(count),
            _ => self.counts.push_back((now, count)),
        }
    }

    pub(super) fn sum(&mut self, now: Timestamp) -> u64 {
        self.forget(now);
        self.sum
    }

    fn forget(&mut self, now: Timestamp) {
        while let Some((moment, count)) = self.counts.front().copied() {
            if moment + self.span > now {
                break;
            }
            self.sum -= u64::from(count);
            self.counts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_count_leaves_exactly_when_the_span_is_over() {
        let at = |millis: i64| Timestamp::from_millis(1_000_000 + millis);
        let mut window = Window::new(Duration::from_secs(60));
        window.add(3, at(0));
        window.add(2, at(30_000));
        for (millis, sum) in [(30_000, 5), (59_999, 5), (60_000, 2), (89_999, 2), (90_000, 0)] {
            assert_eq!(window.sum(at(millis)), sum, "after {millis} ms");
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_counting_everything_again(steps in prop::collection::vec((0i64..40, 1u32..4), 1..80)) {
            let mut window = Window::new(Duration::from_millis(100));
            let mut all: Vec<(i64, u32)> = Vec::new();
            let mut now = 0;
            for (step, count) in steps {
                now += step;
                window.add(count, Timestamp::from_millis(now));
                all.push((now, count));
                let sum: u64 = all.iter().filter(|(t, _)| t + 100 > now).map(|(_, n)| u64::from(*n)).sum();
                prop_assert_eq!(window.sum(Timestamp::from_millis(now)), sum);
            }
        }
    }
}
