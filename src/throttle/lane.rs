//! One lane: what one of our source addresses has learned of one provider.
//!
//! The window says how many connections may be open. It starts at `initial_connections` and doubles each time as many messages
//! were accepted as connections were open, up to the ceiling; the first refusal that asks for less halves it, and from
//! then on it grows by one. Two rules keep it honest:
//!
//! - `1 <= window <= ceiling`: a receiver is slowed down for, but never starved; stopping is the business of a block.
//! - one burst counts once: refusals of what started before the last cut change nothing.
//!
//! A block of our address, or of our HELO name, stops the lane: everything stays queued and one delivery goes out when
//! the wait is over. If that one is blocked too the wait doubles, up to 24 times the first.

use std::time::Duration;

use super::profile::Profile;
use super::rate::Rate;
use crate::types::{Class, Reading, Scope, Timestamp};

/// The first wait after a block.
const BLOCK_WAIT: Duration = Duration::from_secs(3600);
const BLOCK_DOUBLINGS_MAX: u32 = 24;

#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub open: usize,
    window: usize,
    /// Before the first cut the window doubles.
    cut_at: Option<Timestamp>,
    accepted: usize,
    block: Option<Block>,
    recipients: usize,
    /// What the profile says; `recipients` may have been learned to be less.
    recipients_max: usize,
    ceiling: usize,
    pub last_used: Timestamp,
    pub rate: Rate,
}

#[derive(Clone, Debug)]
struct Block {
    until: Timestamp,
    wait: Duration,
    reason: String,
    /// The wait is over and one delivery is on its way.
    probing: bool,
}

/// A change that an operator should see in the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Fewer connections from now on.
    Throttled {
        window: usize,
    },
    /// Nothing goes out until then.
    Blocked {
        until: Timestamp,
    },
    Resumed,
}

impl Lane {
    pub fn new(profile: &Profile, now: Timestamp) -> Lane {
        Lane {
            open: 0,
            window: profile.initial_connections.clamp(1, profile.max_connections.max(1)),
            cut_at: None,
            accepted: 0,
            block: None,
            recipients: profile.recipients_per_message.max(1),
            recipients_max: profile.recipients_per_message.max(1),
            ceiling: profile.max_connections.max(1),
            last_used: now,
            rate: Rate::default(),
        }
    }

    /// Takes new limits; what was learned within them stays.
    pub fn reconfigure(&mut self, profile: &Profile) {
        self.ceiling = profile.max_connections.max(1);
        self.window = self.window.min(self.ceiling);
        let most = profile.recipients_per_message.max(1);
        let learned_less = self.recipients < self.recipients_max;
        self.recipients = if learned_less { self.recipients.min(most) } else { most };
        self.recipients_max = most;
    }

    /// Connections the lane may have now.
    pub fn allowed(&self, now: Timestamp) -> usize {
        match &self.block {
            None => self.window,
            Some(block) if now >= block.until => 1,
            Some(_) => 0,
        }
    }

    /// Until when nothing may start, if that is so now.
    pub fn blocked_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.block.as_ref().map(|b| b.until).filter(|until| *until > now)
    }

    /// May a transaction start? While a block is probed, one in all.
    pub fn may_start(&mut self, now: Timestamp) -> bool {
        match &mut self.block {
            None => true,
            Some(block) if now < block.until || block.probing => false,
            Some(block) => {
                block.probing = true;
                true
            }
        }
    }

    /// Recipients of one transaction.
    pub fn recipients(&self) -> usize {
        self.recipients
    }

    pub fn state(&self, now: Timestamp) -> &'static str {
        match &self.block {
            Some(block) if now < block.until => "blocked",
            Some(_) => "probing",
            None if self.window < self.ceiling => "growing",
            None => "open",
        }
    }

    pub fn reason(&self) -> Option<&str> {
        self.block.as_ref().map(|b| b.reason.as_str())
    }

    pub fn is_idle_since(&self, moment: Timestamp) -> bool {
        self.open == 0 && self.block.is_none() && self.last_used < moment
    }

    /// A message was accepted.
    pub fn accepted(&mut self) -> Option<Change> {
        let resumed = self.block.take().map(|_| {
            self.window = 1;
            self.accepted = 0;
            Change::Resumed
        });
        self.accepted += 1;
        if self.accepted >= self.open.max(1) {
            self.accepted = 0;
            // Only a window that is used up says anything about what the receiver can take.
            if self.open >= self.window {
                let grown = if self.cut_at.is_none() { self.window * 2 } else { self.window + 1 };
                self.window = grown.min(self.ceiling);
            }
        }
        resumed
    }

    /// The receiver refused something; `started` is when that was begun.
    pub fn refused(&mut self, reading: &Reading, reply: &str, started: Timestamp, now: Timestamp) -> Option<Change> {
        if reading.breaker {
            return self.blocked(reply, now);
        }
        if let Some(block) = &mut self.block {
            // Not about our address, but no proof that the block is gone: the next delivery is the next probe.
            block.probing = false;
        }
        match (reading.class, reading.scope) {
            (Class::TooManyRecipients, _) => {
                self.recipients = (self.recipients / 2).max(1);
                None
            }
            (Class::RateLimit | Class::ConnectionLimit, Scope::Source) => self.cut(started, now),
            _ => None,
        }
    }

    /// A probe ended without an answer.
    pub fn inconclusive(&mut self) {
        if let Some(block) = &mut self.block {
            block.probing = false;
        }
    }

    fn cut(&mut self, started: Timestamp, now: Timestamp) -> Option<Change> {
        if self.cut_at.is_some_and(|cut| started <= cut) {
            return None;
        }
        self.cut_at = Some(now);
        self.accepted = 0;
        let before = self.window;
        self.window = (self.window.min(self.open.max(1)) / 2).max(1);
        (self.window < before).then_some(Change::Throttled { window: self.window })
    }

    fn blocked(&mut self, reply: &str, now: Timestamp) -> Option<Change> {
        let wait = match &self.block {
            // Other messages that were on their way when the block struck: one block.
            Some(block) if now < block.until => return None,
            Some(block) => (block.wait * 2).min(BLOCK_WAIT * BLOCK_DOUBLINGS_MAX),
            None => BLOCK_WAIT,
        };
        let until = now + wait;
        self.block = Some(Block { until, wait, reason: reply.to_string(), probing: false });
        Some(Change::Blocked { until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::profile::Profiles;
    use crate::types::Verdict;

    fn reading(class: Class, scope: Scope, breaker: bool) -> Reading {
        Reading {
            verdict: Verdict::Retry,
            class,
            scope,
            suppress: false,
            breaker,
            rule: "test".into(),
            tag: None,
            cause: "".into(),
            remedy: "".into(),
        }
    }

    fn lane() -> Lane {
        Lane::new(&Profiles::new(&[]).get("mx.example.com"), Timestamp::from_secs(0))
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn doubles_when_a_used_up_window_was_accepted_and_stops_at_the_ceiling() {
        let mut lane = lane();
        let mut seen = Vec::new();
        for _ in 0..10 {
            lane.open = lane.allowed(at(0));
            seen.push(lane.open);
            for _ in 0..lane.open {
                lane.accepted();
            }
        }
        assert_eq!(seen, [5, 10, 20, 40, 80, 160, 320, 500, 500, 500]);
    }

    #[test]
    fn does_not_grow_while_the_window_is_not_used() {
        let mut lane = lane();
        lane.open = 1;
        for _ in 0..100 {
            lane.accepted();
        }
        assert_eq!(lane.allowed(at(0)), 5);
    }

    #[test]
    fn halves_once_for_a_burst_and_then_grows_by_one() {
        let mut lane = lane();
        lane.open = 5;
        let limit = reading(Class::ConnectionLimit, Scope::Source, false);
        assert_eq!(lane.refused(&limit, "", at(1), at(10)), Some(Change::Throttled { window: 2 }));
        assert_eq!(lane.refused(&limit, "", at(9), at(11)), None);
        lane.open = 2;
        for _ in 0..2 {
            lane.accepted();
        }
        assert_eq!(lane.allowed(at(12)), 3);
    }

    #[test]
    fn is_never_cut_to_nothing() {
        let mut lane = lane();
        let limit = reading(Class::RateLimit, Scope::Source, false);
        for n in 0..20 {
            lane.refused(&limit, "", at(n * 10), at(n * 10 + 1));
        }
        assert_eq!(lane.allowed(at(300)), 1);
    }

    #[test]
    fn a_block_stops_the_lane_and_lets_one_out_when_its_wait_is_over() {
        let mut lane = lane();
        let block = reading(Class::IpBlock, Scope::Source, true);
        assert_eq!(lane.refused(&block, "550 blocked", at(0), at(0)), Some(Change::Blocked { until: at(3600) }));
        assert_eq!(lane.refused(&block, "550 blocked", at(0), at(1)), None, "one block");
        assert_eq!((lane.allowed(at(3599)), lane.may_start(at(3599))), (0, false));
        assert_eq!((lane.allowed(at(3600)), lane.may_start(at(3600))), (1, true));
        assert!(!lane.may_start(at(3601)), "one probe");
        assert_eq!(
            lane.refused(&block, "550 blocked", at(3601), at(3601)),
            Some(Change::Blocked { until: at(3601 + 7200) })
        );
        assert!(lane.may_start(at(20_000)));
        assert_eq!(lane.accepted(), Some(Change::Resumed));
        assert_eq!(lane.allowed(at(20_001)), 1, "slow start");
    }

    #[test]
    fn too_many_recipients_halves_them_and_nothing_else() {
        let mut lane = lane();
        let many = reading(Class::TooManyRecipients, Scope::Message, false);
        for expected in [50, 25, 12, 6, 3, 1, 1] {
            lane.refused(&many, "", at(0), at(1));
            assert_eq!(lane.recipients(), expected);
        }
        assert_eq!(lane.allowed(at(2)), 5);
    }
}
