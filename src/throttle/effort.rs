//! Do more connections bring more?
//!
//! While no limit is known, connections grow by one for every two accepted messages up to 16, above that by one for every 32: when the
//! first refusal comes, no more than a small part of what was accepted can be on its way. They grow only while it helps: when a
//! quarter more of them brought less than a tenth more messages, as many as before are enough, for half a `pause`.

use std::time::Duration;

use crate::types::Timestamp;

/// Until here connections grow easily.
const EASY: usize = 16;
const EASY_GROWTH: f64 = 0.5;
const GROWTH: f64 = 1.0 / 32.0;
/// From here on it is looked at whether they help: a few are no burden to anybody.
const JUDGED_FROM: usize = 8;
/// So many messages for each connection tell how fast they go.
const MESSAGES_EACH: u64 = 8;
/// Of what more connections promise, this part must come.
const HELPS: f64 = 0.4;
const ENOUGH_PAUSES: f64 = 0.5;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Effort {
    /// Parts of a connection that are earned.
    credit: f64,
    measured: Option<Measure>,
    running: Option<Start>,
    /// More of them did not help the last time it was looked at.
    doubted: bool,
    enough_until: Option<Timestamp>,
}

/// How fast so many connections went.
#[derive(Clone, Copy, Debug)]
struct Measure {
    connections: usize,
    per_second: f64,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    connections: usize,
    at: Timestamp,
    total: u64,
}

impl Effort {
    pub(super) fn is_enough(&self, now: Timestamp) -> bool {
        self.enough_until.is_some_and(|until| now < until)
    }

    /// A message was accepted while all of `limit` connections were at work: how many may there be now? `total`: recipients
    /// accepted since ever.
    pub(super) fn next(&mut self, limit: usize, total: u64, pause: Duration, now: Timestamp) -> usize {
        if self.is_enough(now) {
            return limit;
        }
        if let Some(fewer) = self.judge(limit, total, now) {
            self.enough_until = Some(now + pause.mul_f64(ENOUGH_PAUSES));
            *self = Effort { enough_until: self.enough_until, ..Effort::default() };
            return fewer;
        }
        self.credit += if limit < EASY { EASY_GROWTH } else { GROWTH };
        if self.credit < 1.0 {
            return limit;
        }
        self.credit = 0.0;
        limit + 1
    }

    /// Fewer would do: how many?
    fn judge(&mut self, limit: usize, total: u64, now: Timestamp) -> Option<usize> {
        if limit < JUDGED_FROM {
            return None;
        }
        let start = *self.running.get_or_insert(Start { connections: limit, at: now, total });
        let accepted = total.saturating_sub(start.total);
        if accepted < MESSAGES_EACH * start.connections as u64 {
            return None;
        }
        let seconds = now.since(start.at).as_secs_f64();
        self.running = None;
        if seconds <= 0.0 {
            return None;
        }
        let here = Measure { connections: (start.connections + limit) / 2, per_second: accepted as f64 / seconds };
        let Some(before) = self.measured else {
            self.measured = Some(here);
            return None;
        };
        let more = here.connections as f64 / before.connections as f64 - 1.0;
        if more < 0.25 {
            return None;
        }
        let helped = here.per_second / before.per_second.max(1e-9) - 1.0;
        if helped >= HELPS * more {
            (self.measured, self.doubted) = (Some(here), false);
            return None;
        }
        // Once may be chance.
        std::mem::replace(&mut self.doubted, true).then_some(before.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(600);

    /// The connections after so many messages at a server that takes `per_second(connections)`.
    fn after(messages: u64, per_second: impl Fn(usize) -> f64) -> usize {
        let (mut effort, mut limit, mut millis) = (Effort::default(), 5, 0.0);
        for total in 1..=messages {
            millis += 1000.0 / per_second(limit);
            limit = effort.next(limit, total, PAUSE, Timestamp::from_millis(millis as i64));
        }
        limit
    }

    #[test]
    fn connections_grow_while_each_brings_its_share() {
        assert!(after(4000, |connections| connections as f64 / 0.5) > 100);
        assert!(after(4000, |connections| connections as f64 / 6.0) > 100, "however long each takes");
    }

    #[test]
    fn a_server_that_gets_no_faster_is_not_sent_more() {
        let most = after(4000, |connections| (connections as f64).min(12.0) / 0.5);
        assert!((12..=20).contains(&most), "{most}");
    }

    #[test]
    fn a_few_are_allowed_in_any_case() {
        assert!(after(100, |_| 1.0) >= 8);
    }
}
