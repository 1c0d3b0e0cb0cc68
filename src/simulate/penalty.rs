//! Penalties that grow: a refusal for a rate starts one, and whoever knocks meanwhile makes it longer.
//!
//! While a penalty runs every message is refused. Each refusal within it doubles it from that moment on, up to `penalty_max`; what is
//! refused within `grace` of its beginning was under way already and doubles nothing. A penalty is as long as the last one if it
//! begins within four times the first length after that one's end, else as long as the first.

use std::time::Duration;

use super::profile::Reputation;
use crate::types::Timestamp;

/// So many times the first length without a refusal, and the next penalty is of the first length again.
const QUIET_TIMES: u32 = 4;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Penalty(Option<Running>);

#[derive(Clone, Copy, Debug)]
struct Running {
    begin: Timestamp,
    until: Timestamp,
    length: Duration,
}

impl Penalty {
    pub(super) fn holds(&self, now: Timestamp) -> bool {
        self.0.is_some_and(|running| now < running.until)
    }

    /// A message was refused, for a rate or because a penalty runs.
    pub(super) fn refuse(&mut self, rules: &Reputation, now: Timestamp) {
        let Some(first) = rules.penalty.map(|span| span.0) else { return };
        self.0 = Some(match self.0 {
            Some(running) if now < running.until => running.knocked(rules, now),
            Some(last) if now < last.until + first * QUIET_TIMES => Running::begin(last.length, now),
            _ => Running::begin(first, now),
        });
    }
}

impl Running {
    fn begin(length: Duration, now: Timestamp) -> Running {
        Running { begin: now, until: now + length, length }
    }

    fn knocked(self, rules: &Reputation, now: Timestamp) -> Running {
        if now.since(self.begin) <= rules.grace.0 && now >= self.begin {
            return self;
        }
        let length = (self.length * 2).min(rules.penalty_max.0.max(self.length));
        Running { until: now + length, length, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Span;

    const MINUTE: i64 = 60_000;

    fn rules() -> Reputation {
        let minutes = |minutes: u64| Span(Duration::from_secs(minutes * 60));
        Reputation { penalty: Some(minutes(5)), penalty_max: minutes(30), ..Reputation::default() }
    }

    /// The minute until which a penalty holds after refusals at these moments.
    fn until(refused: &[i64]) -> i64 {
        let at = |millis: i64| Timestamp::from_millis(1_795_000_000_000 + millis);
        let mut penalty = Penalty::default();
        refused.iter().for_each(|millis| penalty.refuse(&rules(), at(*millis)));
        (0..1000).find(|minute| !penalty.holds(at(minute * MINUTE))).unwrap_or(1000)
    }

    #[test]
    fn each_refusal_within_it_doubles_it_up_to_the_most() {
        assert_eq!(until(&[0]), 5);
        assert_eq!(until(&[0, MINUTE]), 11);
        assert_eq!(until(&[0, MINUTE, 2 * MINUTE]), 22);
        assert_eq!(until(&[0, MINUTE, 2 * MINUTE, 3 * MINUTE, 4 * MINUTE]), 34);
    }

    #[test]
    fn what_was_under_way_doubles_nothing() {
        assert_eq!(until(&[0, 1000, 2000, 9000]), 5);
        assert_eq!(until(&[0, 1000, 10_001]), 11, "rounded up");
    }

    #[test]
    fn after_a_long_quiet_time_it_is_back_at_the_first_length() {
        assert_eq!(until(&[0, MINUTE, 11 * MINUTE + 19 * MINUTE]), 40, "as long as the last one");
        assert_eq!(until(&[0, MINUTE, 11 * MINUTE + 21 * MINUTE]), 37);
    }
}
