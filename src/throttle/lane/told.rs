//! What a lane says of itself: its state, why it is not faster, what it has learned, and how it is played forward.

use std::sync::Arc;
use std::time::Duration;

use super::{Cause, Lane, Learned};
use crate::throttle::forecast::{Filling, Player};
use crate::throttle::{Restraint, Side, window};
use crate::types::Timestamp;
use crate::types::words::{count, per_minute};

/// A window of at least this length is played for a forecast; shorter ones are a rate.
const FILLS_FROM: Duration = Duration::from_secs(1800);

impl Lane {
    /// The lane as it is played forward for a forecast; none: it opens only by an operator's hand.
    pub fn player(&self, now: Timestamp) -> Option<Player> {
        let opens = self.closed_until(now).unwrap_or(now);
        let held_back = self.policy(now) <= self.rate_per_minute() && self.pacers_are_full(now);
        let fixed = self.profile.max_rate.unwrap_or(f64::INFINITY);
        let lasting = self.learned.rate.lasting(self.profile.pause);
        let is_known = lasting.is_some() || fixed.is_finite();
        let takes = match lasting {
            Some(rate) => rate.min(fixed),
            None if fixed.is_finite() => fixed,
            // It waits for us, not for the receiver: what went lately is no measure.
            None if held_back || self.learned.rate.is_at_a_loss() => f64::INFINITY,
            None => self.pace(now).unwrap_or(f64::INFINITY),
        };
        let filling = self.learned.rate.window(self.profile.pause).filter(|(_, length)| *length >= FILLS_FROM);
        let filling = filling.map(|(count, length)| Filling {
            history: self.learned.history.clone(),
            most: count,
            length,
            fastest: self.learned.rate.limit().unwrap_or(takes).min(fixed),
        });
        let growth = self.guarded.then(|| self.learned.growth.clone());
        let warmup = self.warming.then(|| self.learned.warmup.clone());
        let profile = Arc::clone(&self.profile);
        (opens < Timestamp::NEVER).then_some(Player { opens, takes, is_known, filling, growth, warmup, profile })
    }

    /// Does guard or warm-up say "later" now?
    fn pacers_are_full(&self, now: Timestamp) -> bool {
        (self.guarded && self.learned.growth.room(&self.profile, now).is_err())
            || (self.warming && self.learned.warmup.room(&self.profile.warm_up, now).is_err())
    }

    /// Where guard or warm-up is the lowest limit: what it lets through, and why.
    pub fn restraint(&self, now: Timestamp) -> Option<Restraint> {
        let (growth, warmup) = (&self.learned.growth, &self.learned.warmup);
        let guard = growth.most(&self.profile, now).filter(|_| self.guarded).map(|hour| hour / 60.0);
        let day = warmup.most(&self.profile.warm_up, now).filter(|_| self.warming).map(f64::from);
        let (guard, warm) = (guard.unwrap_or(f64::INFINITY), day.map_or(f64::INFINITY, |day| day / 1440.0));
        let because = match guard <= warm {
            _ if self.rate_per_minute() <= guard.min(warm) => None,
            true => growth.because(&self.profile, now),
            false => warmup.because(&self.profile.warm_up, now),
        };
        let worth = if guard <= warm { guard * 60.0 } else { warm * 1440.0 };
        because.map(|because| Restraint { worth: worth as usize, because })
    }

    pub fn state(&self, now: Timestamp) -> &'static str {
        match &self.learned.closed {
            Some(closed) if closed.until <= now => "probing",
            Some(closed) => match closed.cause {
                Cause::Rate | Cause::Operator => "paused",
                Cause::Block => "blocked",
                Cause::Name => "stopped",
            },
            None if self.is_growing(now) => "growing",
            None => "open",
        }
    }

    /// Why it is not faster, in words.
    pub fn reason(&self, now: Timestamp) -> Option<String> {
        if let Some(closed) = &self.learned.closed {
            return Some(closed.reply.clone());
        }
        if self.is_first_contact(now) {
            return Some("first contact: one message goes first".to_string());
        }
        let guard = self.learned.growth.reason(&self.profile, now).filter(|_| self.guarded);
        let warmup = self.learned.warmup.reason(&self.profile.warm_up, now).filter(|_| self.warming);
        if guard.is_some() || warmup.is_some() {
            return guard.or(warmup);
        }
        let limits: Vec<String> = self.limits_in_words().collect();
        let Some(refusal) = self.learned.refusal.as_ref().filter(|_| !limits.is_empty()) else {
            return self.held_back(now);
        };
        Some(format!("at most {}{}; it refused more: {refusal}", limits.join(", "), self.evidence()))
    }

    /// The limits that refusals have taught.
    fn limits_in_words(&self) -> impl Iterator<Item = String> {
        let pause = self.profile.pause;
        let window = self.learned.rate.window(pause).map(|(most, length)| {
            format!("{} in any {}", count(most.round() as u64, "recipient"), window::in_words(length))
        });
        let rate = window.or_else(|| self.learned.rate.lasting(self.profile.pause).map(per_minute));
        let connections = &self.learned.connections;
        let messages = &self.learned.messages;
        let connections = connections.found().map(|_| count(connections.limit(), "connection"));
        let messages = messages.found().map(|_| format!("{} a connection", count(messages.limit(), "message")));
        [rate, connections, messages].into_iter().flatten()
    }

    /// Has a refusal taught any limit of the receiver?
    pub fn knows_limits(&self) -> bool {
        self.limits_in_words().next().is_some()
    }

    /// How often it was refused there.
    fn evidence(&self) -> String {
        match self.learned.rate.agreed() {
            (0, _) | (_, None) => String::new(),
            (1, Some(at)) => format!(" (refused there at {at})"),
            (times, Some(at)) => format!(" (refused there {times} times, the last at {at})"),
        }
    }

    /// Is it on its way to more?
    fn is_growing(&self, now: Timestamp) -> bool {
        let is_searching = self.learned.rate.is_growing() || self.slow.is_some();
        let is_used = self.busy > 0 && self.learned.rate.is_free();
        let grows = is_used && self.learned.connections.found().is_none() && !self.effort.is_enough(now);
        self.is_first_contact(now) || is_searching || (grows && self.allowed(now) < self.profile.max_connections)
    }

    /// The first of the domains that are held back.
    fn held_back(&self, now: Timestamp) -> Option<String> {
        let (side, domain, held) = self.learned.holds.iter(now).next()?;
        let mail = if side == Side::Sender { "from" } else { "to" };
        Some(format!("mail {mail} {domain} alone is held back until {}: {}", held.until, held.reason))
    }

    /// Every limit that a refusal has taught, in words.
    pub(super) fn known(&self, now: Timestamp) -> Vec<String> {
        let Learned { closed, rate, connections, messages, recipients, holds, .. } = &self.learned;
        let closed = closed.as_ref().map(|closed| {
            let stop = match closed.cause {
                Cause::Rate => "the pause",
                Cause::Block => "the block",
                Cause::Name => "the stop because of our name",
                Cause::Operator => "the question that an operator ordered",
            };
            let until =
                if closed.until == Timestamp::NEVER { String::new() } else { format!(" until {}", closed.until) };
            format!("{stop}{until} ({})", closed.reply)
        });
        let held = holds.iter(now).count();
        [
            closed,
            rate.lasting(self.profile.pause).map(|rate| format!("at most {}", per_minute(rate))),
            connections.found().map(|found| format!("at most {}", count(found, "connection"))),
            messages.found().map(|found| format!("at most {} on a connection", count(found, "message"))),
            recipients.map(|most| format!("at most {} in a transaction", count(most, "recipient"))),
            self.wants_ipv4(now).then(|| "over IPv4 alone".to_string()),
            (held > 0).then(|| format!("mail of {} held back", count(held, "domain"))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
