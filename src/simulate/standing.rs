//! How a source stands with the receiver: does it listen when it is refused?
//!
//! A refusal begins a series. What is refused within `grace` of its beginning was under way already; what is refused after that and
//! within `quiet` of the last refusal is *pressing on*. It is remembered, and one mark is forgiven in each `forgives`: past
//! `limit_after` it is a fault, and with `punishes` the source is limited for a time, past `block_after` blocked. A source that waits at
//! least `quiet` after each refusal is never punished, however often it is refused.

use super::profile::Reputation;
use crate::types::Timestamp;

#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Refusals of messages and refusals of connections are series of their own: they ask for different things.
    messages: Option<Series>,
    connections: Option<Series>,
    marks: u32,
    /// Since when marks are being forgiven.
    forgiven: Timestamp,
    limited_until: Option<Timestamp>,
    blocked_until: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Series {
    first: Timestamp,
    last: Timestamp,
}

/// What a refusal turned out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ignored {
    pub(super) pressed_on: bool,
    /// So often that it deserves to be limited.
    pub(super) too_often: bool,
    /// This one brought a block about.
    pub(super) blocked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Good,
    Limited,
    Blocked,
}

impl Standing {
    pub(super) fn trust(&self, now: Timestamp) -> Trust {
        let holds = |until: Option<Timestamp>| until.is_some_and(|until| now < until);
        match (holds(self.blocked_until), holds(self.limited_until)) {
            (true, _) => Trust::Blocked,
            (false, true) => Trust::Limited,
            (false, false) => Trust::Good,
        }
    }

    /// A message was refused because of its source.
    pub(super) fn refuse_message(&mut self, rules: &Reputation, now: Timestamp) -> Ignored {
        let pressed_on = Series::go_on(&mut self.messages, rules, now);
        self.mark(pressed_on, rules, now)
    }

    /// A connection was refused, or what it brought because it was one too many.
    pub(super) fn refuse_connection(&mut self, rules: &Reputation, now: Timestamp) -> Ignored {
        let pressed_on = Series::go_on(&mut self.connections, rules, now);
        self.mark(pressed_on, rules, now)
    }

    fn mark(&mut self, pressed_on: bool, rules: &Reputation, now: Timestamp) -> Ignored {
        if !pressed_on {
            return Ignored::default();
        }
        self.forgive(rules, now);
        self.marks = self.marks.saturating_add(1);
        let too_often = self.marks == rules.limit_after;
        if !rules.punishes {
            return Ignored { pressed_on, too_often, blocked: false };
        }
        if self.marks >= rules.limit_after {
            self.limited_until = Some(now + rules.limited.0);
        }
        let blocked = self.marks >= rules.block_after;
        if blocked {
            self.blocked_until = Some(now + rules.blocked.0);
            // The way back goes through the limit: who presses on after the block is blocked again sooner.
            self.marks = rules.limit_after.min(rules.block_after);
        }
        Ignored { pressed_on, too_often, blocked }
    }

    fn forgive(&mut self, rules: &Reputation, now: Timestamp) {
        let each = rules.forgives.0.as_millis().max(1);
        let due = now.since(self.forgiven).as_millis() / each;
        match u32::try_from(due) {
            Ok(due) if due < self.marks => {
                self.marks -= due;
                self.forgiven = self.forgiven + rules.forgives.0.saturating_mul(due);
            }
            _ => {
                self.marks = 0;
                self.forgiven = now;
            }
        }
    }
}

impl Series {
    /// Goes on with a series or begins one; whether this refusal is one for pressing on.
    fn go_on(series: &mut Option<Series>, rules: &Reputation, now: Timestamp) -> bool {
        match series {
            Some(series) if now.since(series.last) <= rules.quiet.0 => {
                series.last = now;
                now.since(series.first) > rules.grace.0
            }
            _ => {
                *series = Some(Series { first: now, last: now });
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Span;
    use std::time::Duration;

    const RULES: Reputation = Reputation {
        punishes: true,
        grace: Span(Duration::from_secs(10)),
        quiet: Span(Duration::from_secs(60)),
        limit_after: 2,
        limited: Span(Duration::from_secs(600)),
        block_after: 4,
        blocked: Span(Duration::from_secs(3600)),
        forgives: Span(Duration::from_secs(300)),
        penalty: None,
        penalty_max: Span(Duration::from_secs(5 * 3600)),
    };

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    #[test]
    fn who_waits_after_each_refusal_is_never_punished() {
        let mut standing = Standing::default();
        for round in 0..200 {
            assert!(!standing.refuse_message(&RULES, at(round * 61)).pressed_on);
            assert_eq!(standing.trust(at(round * 61)), Trust::Good);
        }
    }

    #[test]
    fn what_was_under_way_is_forgiven_what_follows_is_limited_and_then_blocked() {
        let mut standing = Standing::default();
        let table = [
            (0, false, Trust::Good),
            (10, false, Trust::Good),
            (11, true, Trust::Good),
            (12, true, Trust::Limited),
            (13, true, Trust::Limited),
            (14, true, Trust::Blocked),
        ];
        for (secs, pressed_on, trust) in table {
            let ignored = standing.refuse_message(&RULES, at(secs));
            assert_eq!(ignored.pressed_on, pressed_on, "after {secs} s");
            assert_eq!(standing.trust(at(secs)), trust, "after {secs} s");
            assert_eq!(ignored.blocked, trust == Trust::Blocked);
        }
        assert_eq!(standing.trust(at(14 + 3599)), Trust::Blocked);
        assert_eq!(standing.trust(at(14 + 3600)), Trust::Good, "the limit ran out behind the block");
    }

    #[test]
    fn marks_are_forgiven_one_by_one() {
        let mut standing = Standing::default();
        for secs in [0, 11] {
            standing.refuse_message(&RULES, at(secs));
        }
        // One mark at second 11; 300 seconds later it is forgotten, so the next one does not limit.
        for secs in [400, 411] {
            standing.refuse_message(&RULES, at(secs));
        }
        assert_eq!(standing.trust(at(411)), Trust::Good);
    }

    #[test]
    fn refusals_of_connections_and_of_messages_are_series_of_their_own() {
        let mut standing = Standing::default();
        standing.refuse_message(&RULES, at(0));
        assert!(!standing.refuse_connection(&RULES, at(30)).pressed_on);
        assert!(standing.refuse_connection(&RULES, at(41)).pressed_on);
    }

    #[test]
    fn without_punishment_pressing_on_is_only_noticed() {
        let rules = Reputation { punishes: false, ..RULES };
        let mut standing = Standing::default();
        for secs in 0..100 {
            let ignored = standing.refuse_message(&rules, at(secs));
            assert_eq!((ignored.pressed_on, ignored.too_often), (secs > 10, secs == 12));
        }
        assert_eq!(standing.trust(at(99)), Trust::Good);
    }
}
