//! What the receiver's answers and the operator's hand do to a lane: each kind of refusal moves its own lever.

use std::time::Duration;

use super::{Cause, Change, Closed, Lane, ProbeKind};
use crate::throttle::About;
use crate::throttle::climb::Cut;
use crate::throttle::effort::Effort;
use crate::throttle::pace::Pacer;
use crate::types::words::count;
use crate::types::{Class, Reading, Scope, Timestamp};

/// A block is probed at the latest after so many times the first wait.
const BLOCK_DOUBLINGS_MAX: u32 = 24;
/// The first probe after a block that may have been about content, as a part of the usual wait.
const EARLY: f64 = 0.1;
/// That mail is accepted is saved anew this often.
const SAVES_CONTACT: Duration = Duration::from_secs(3600);
/// A lane that is told to use IPv4 tries IPv6 again after this.
const IPV4_FOR: Duration = Duration::from_secs(30 * 86_400);
/// Successors of connections that were ended by the receiver: more are not waited for one by one.
const SUCCESSORS_MAX: usize = 500;
/// The usual waits in hundredths of `pause`: what a rate's first wait is a part of, connections, the successor of a connection.
const RATE_WAIT: u16 = 100;
const CONNECTION_WAIT: u16 = 20;
const SUCCESSOR_WAIT: u16 = 5;
/// A refused connection that may have been chance is asked for again after this part of the wait.
const SUSPECT_PART: f64 = 0.1;
/// Where a window of at least that length is counted, what it holds is saved so often.
const SAVES_COUNTS: Duration = Duration::from_secs(300);
/// What a lane did before it was stopped is its mean over this.
const WENT_OVER: Duration = Duration::from_secs(600);
/// Chance makes a wait longer by this part at most, so that lanes that were stopped together do not come back together.
const JITTER: f64 = 0.1;
const REPLY_CHARS_MAX: usize = 500;

impl Lane {
    /// A message was accepted.
    pub fn accepted(
        &mut self,
        recipients: u32,
        started: Timestamp,
        about: &About<'_>,
        now: Timestamp,
    ) -> Option<Change> {
        if !self.learned.holds.is_empty() {
            self.learned.holds.accepted(about, now);
        }
        self.answered_at = now;
        self.learned.history.add(recipients, started, now);
        self.learned.growth.accepted(recipients, now);
        if self.warming {
            self.learned.warmup.accepted(recipients, now);
        }
        self.learned.accepted_at = Some(now);
        self.save_contact(now);
        if let Some(closed) = &self.learned.closed {
            let answers = closed.until <= now && started >= closed.until && self.asking;
            if !answers {
                self.learned.rate.late(recipients);
                return None;
            }
            self.asking = false;
            self.reopen(now);
            return Some(Change::Resumed);
        }
        self.asking = false;
        self.slow = self.slow.map(|slow| slow + 1).filter(|slow| *slow < self.learned.connections.limit());
        self.learned.connections.went_well(self.ready);
        if about.carried == 0 {
            self.learned.connection_wait.helped(started);
        }
        self.learned.messages.went_well(usize::try_from(about.carried).unwrap_or(usize::MAX).saturating_add(1));
        let limit = self.learned.connections.limit();
        // The transaction that was just accepted is over already.
        if self.open >= limit && self.busy + 1 >= limit {
            self.used(limit, now);
        }
        None
    }

    fn save_contact(&mut self, now: Timestamp) {
        let counts = self.learned.rate.window(self.profile.pause).is_some_and(|(_, length)| length > 2 * SAVES_COUNTS);
        let every = if counts { SAVES_COUNTS } else { SAVES_CONTACT };
        if self.saved_at.is_none_or(|at| now.since(at) >= every) {
            self.saved_at = Some(now);
            self.unsaved = true;
        }
    }

    /// Every connection that is allowed is at work, and a message was accepted: there is room for more.
    fn used(&mut self, limit: usize, now: Timestamp) {
        let most = self.profile.max_connections.max(1);
        self.learned.connections.grow(true, most, self.profile.pause, now);
        if self.learned.connections.found().is_none() && limit < most {
            let total = self.learned.history.total();
            let limit = self.effort.next(limit, total, self.profile.pause, now);
            self.learned.connections.set(limit.min(most));
        }
    }

    /// The receiver refused something; `started` is when that was begun, `chance` from 0 to 1.
    pub fn refused(
        &mut self,
        reading: &Reading,
        reply: &str,
        started: Timestamp,
        about: &About<'_>,
        chance: f64,
        now: Timestamp,
    ) -> Option<Change> {
        self.answered_at = now;
        let refusal = Refusal { reading, reply, started, chance, now };
        let held = self.learned.holds.refused(reading, reply, about, &self.profile, now);
        let change = match Lever::of(reading) {
            Lever::Stop => {
                self.unclean(now);
                return self.blocked(&refusal);
            }
            Lever::Rate => self.too_fast(&refusal),
            Lever::Connections => self.too_many(&refusal, about),
            Lever::Messages => self.too_long(&refusal, about),
            Lever::Recipients => self.too_wide(now),
            Lever::Ipv4 => {
                let is_new = !self.wants_ipv4(now);
                self.learned.ipv4_until = now + IPV4_FOR;
                is_new.then_some(Change::Ipv4Only)
            }
            Lever::None => None,
        };
        if matches!(Lever::of(reading), Lever::Rate | Lever::Connections | Lever::Ipv4) {
            self.unclean(now);
        }
        if change.is_some() {
            self.learned.refusal = Some(shortened(reply));
            self.unsaved = true;
        }
        // No word about what closed the lane: the next one asks again.
        self.asking &= self.learned.closed.as_ref().is_some_and(|closed| started < closed.until);
        self.unsaved |= held.is_some();
        change.or_else(|| held.map(Change::Held))
    }

    /// The receiver complained about our address: what was sent just now is no measure for more.
    fn unclean(&mut self, now: Timestamp) {
        self.learned.growth.refused(now);
        if self.warming {
            self.learned.warmup.refused(now);
        }
    }

    /// The last connection is closed: whatever was asked gets no answer any more.
    pub fn lost(&mut self) {
        self.asking = false;
    }

    /// A transaction ended without an answer.
    pub fn inconclusive(&mut self, about: &About<'_>, now: Timestamp) {
        self.asking = false;
        if !self.learned.holds.is_empty() {
            self.learned.holds.broken(about, now);
        }
    }

    /// Of what it sends too much is unknown there: half of it from now on.
    ///
    /// `answered`: recipients the receiver spoke of in one of the last minutes, known there or not.
    pub fn slow_down(&mut self, answered: f64, now: Timestamp) {
        let went = self.learned.history.mean(Duration::from_secs(60), now);
        let (rate, at) = self.rate_at(now);
        rate.halve(went.max(answered), at);
        self.unsaved = true;
    }

    /// The operator stops it.
    pub fn pause(&mut self, reason: &str, now: Timestamp) {
        self.close(Cause::Operator, Timestamp::NEVER, Duration::ZERO, reason, ProbeKind::Next, now);
    }

    /// The operator opens it: by one probe at once, or without.
    pub fn resume(&mut self, force: bool, now: Timestamp) -> Option<Change> {
        self.learned.holds.release();
        let closed = self.learned.closed.as_mut()?;
        self.unsaved = true;
        self.asking = false;
        if force {
            self.reopen(now);
            return Some(Change::Resumed);
        }
        closed.until = now;
        closed.probe = ProbeKind::Next;
        None
    }

    /// Our name is another one now: what stopped because of it may ask again.
    pub fn renamed(&mut self, now: Timestamp) {
        if self.learned.closed.as_ref().is_some_and(|closed| closed.cause == Cause::Name) {
            self.resume(false, now);
        }
    }

    fn too_fast(&mut self, refusal: &Refusal<'_>) -> Option<Change> {
        let Refusal { started, now, .. } = *refusal;
        if self.learned.closed.as_ref().is_some_and(|closed| closed.until > now || started < closed.until) {
            return None;
        }
        let part = refusal.part(RATE_WAIT);
        let (rate, at) = self.rate_at(now);
        let wait = rate.refused(started, part, at)?;
        let wait = wait.min(self.profile.pause_max.max(self.profile.pause));
        let until = now + wait.mul_f64(1.0 + JITTER * refusal.chance.clamp(0.0, 1.0));
        self.close(Cause::Rate, until, wait, refusal.reply, ProbeKind::Next, now);
        Some(Change::Paused { until })
    }

    fn too_many(&mut self, refusal: &Refusal<'_>, about: &About<'_>) -> Option<Change> {
        let Refusal { started, now, .. } = *refusal;
        let before = self.learned.connections.limit();
        let good = self.open.saturating_sub(1);
        let cut = self.learned.connections.refused(good, started, self.profile.pause, now);
        // Only where fewer are taken than were good before it is plain that the receiver wants to be left alone.
        let has_fallen = cut == Cut::Confirmed && self.learned.connections.limit() < good;
        let part = refusal.part(CONNECTION_WAIT) * if has_fallen { 1.0 } else { SUSPECT_PART };
        let (unit, most) = (self.profile.pause.mul_f64(part), self.profile.pause_max.mul_f64(part));
        // Who is refused in the greeting leaves the others as they are; where one that had been let in is told so, they may be too many.
        let in_greeting = about.message.is_none();
        if cut != Cut::None || !in_greeting {
            self.kept = if in_greeting { self.ready.min(good) } else { 0 };
        }
        if cut == Cut::None {
            return None;
        }
        let until = self.learned.connection_wait.next(unit, most, refusal.chance, now);
        let limit = self.learned.connections.limit();
        let text = match cut {
            Cut::Suspected => format!("no new connection before {until}; one refusal may be chance"),
            _ => format!(
                "at most {} from now on (before: {before}), no new one before {until}",
                count(limit, "connection")
            ),
        };
        Some(Change::Throttled { text })
    }

    /// The connection carried too many messages.
    fn too_long(&mut self, refusal: &Refusal<'_>, about: &About<'_>) -> Option<Change> {
        let Refusal { started, now, .. } = *refusal;
        let part = refusal.part(SUCCESSOR_WAIT);
        let (unit, most) = (self.profile.pause.mul_f64(part), self.profile.pause_max.mul_f64(part));
        let before = self.learned.messages.limit();
        // A connection that may carry nothing at all is asked for ever more rarely: one message is the least limit.
        let good = usize::try_from(about.carried).unwrap_or(usize::MAX).max(1);
        let cut = self.learned.messages.refused(good, started, self.profile.pause, now);
        // Each connection that was ended has a successor that waits; the wait grows with the cuts, not with the burst.
        let until = if cut == Cut::Confirmed {
            self.learned.successor_wait.next(unit, most, refusal.chance, now)
        } else {
            (now + unit).max(self.learned.successor_wait.until())
        };
        if self.successors.is_empty() {
            self.standing = self.open;
        }
        if self.successors.len() < SUCCESSORS_MAX {
            let place = self.successors.partition_point(|other| *other <= until);
            self.successors.insert(place, until);
        }
        let limit = self.learned.messages.limit();
        let text = match cut {
            Cut::None => return None,
            Cut::Suspected => format!("the next connection waits until {until}; one refusal may be chance"),
            Cut::Confirmed => {
                format!("at most {} on a connection from now on (before: {before})", count(limit, "message"))
            }
        };
        Some(Change::Throttled { text })
    }

    fn too_wide(&mut self, now: Timestamp) -> Option<Change> {
        let before = self.recipients();
        let fewer = (before / 2).max(1);
        self.learned.recipients = Some(fewer);
        self.learned.recipients_at = now;
        let text = format!("at most {} in a transaction from now on (before: {before})", count(fewer, "recipient"));
        (fewer < before).then_some(Change::Throttled { text })
    }

    /// Each refusal for good costs mail: the number that was taken is obeyed at once.
    pub fn took_at_once(&mut self, recipients: usize, now: Timestamp) {
        if recipients < self.recipients() {
            self.learned.recipients = Some(recipients.max(1));
            self.learned.recipients_at = now;
        }
    }

    fn blocked(&mut self, refusal: &Refusal<'_>) -> Option<Change> {
        let Refusal { reading, reply, started, chance, now } = *refusal;
        let is_name = reading.class == Class::Protocol;
        let first = self.profile.probe_block;
        let wait = match &self.learned.closed {
            Some(closed) if closed.cause == Cause::Operator && closed.until > now => return None,
            // Other messages that were on their way when the block struck: one block.
            Some(closed) if closed.until > now || started < closed.until => return None,
            Some(closed) if closed.cause == Cause::Block && !closed.wait.is_zero() => {
                (closed.wait * 2).max(first).min(first * BLOCK_DOUBLINGS_MAX)
            }
            _ if reading.effects.probe_early => first.mul_f64(EARLY),
            _ => first,
        };
        let until = if is_name { Timestamp::NEVER } else { now + wait.mul_f64(1.0 + 0.1 * chance) };
        let cause = if is_name { Cause::Name } else { Cause::Block };
        let probe = if reading.effects.probe_early { ProbeKind::OtherSender } else { ProbeKind::Expendable };
        self.close(cause, until, wait, reply, probe, now);
        Some(Change::Blocked { until })
    }

    fn close(&mut self, cause: Cause, until: Timestamp, wait: Duration, reply: &str, probe: ProbeKind, now: Timestamp) {
        if self.learned.closed.is_none() && cause != Cause::Rate {
            self.went_before = self.learned.history.mean(WENT_OVER, now);
        }
        let same = self.learned.closed.as_ref().filter(|closed| closed.cause == cause);
        let since = same.map_or(now, |closed| closed.since);
        self.learned.closed = Some(Closed { cause, since, until, wait, reply: shortened(reply), probe });
        self.asking = false;
        self.unsaved = true;
    }

    /// The way is free again: slow start.
    fn reopen(&mut self, now: Timestamp) {
        let cause = self.learned.closed.take().map(|closed| closed.cause);
        self.asking = false;
        self.unsaved = true;
        let before = self.went_before;
        let (rate, at) = self.rate_at(now);
        match cause {
            Some(Cause::Rate) => rate.opened(at),
            _ => rate.come_back(before, at),
        }
        self.effort = Effort::default();
        // Gradually: one, then two, four, eight at a time.
        let is_short = cause == Some(Cause::Rate) && self.learned.rate.is_free();
        self.slow = (!is_short).then_some(1);
        let (rate, _) = self.paced();
        self.pacer = Pacer::default();
        self.pacer.pay(rate, 1, now);
    }
}

/// What a refusal is about, for the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lever {
    Stop,
    Rate,
    Connections,
    Messages,
    Recipients,
    Ipv4,
    None,
}

/// Does the lane wait for what was refused so, and the delivery with it?
pub(in crate::throttle) fn has_wait(reading: &Reading) -> bool {
    matches!(Lever::of(reading), Lever::Stop | Lever::Rate | Lever::Connections | Lever::Messages)
}

impl Lever {
    fn of(reading: &Reading) -> Lever {
        match (reading.class, reading.scope) {
            _ if reading.breaker => Lever::Stop,
            (Class::RateLimit, Scope::Source) => Lever::Rate,
            (Class::ConnectionLimit, Scope::Source) => Lever::Connections,
            (Class::MessageLimit, _) => Lever::Messages,
            (Class::TooManyRecipients, _) => Lever::Recipients,
            (Class::Authentication, Scope::Source) => Lever::Ipv4,
            _ => Lever::None,
        }
    }
}

#[derive(Clone, Copy)]
struct Refusal<'a> {
    reading: &'a Reading,
    reply: &'a str,
    started: Timestamp,
    chance: f64,
    now: Timestamp,
}

impl Refusal<'_> {
    /// The wait in units of `pause`.
    fn part(&self, usual: u16) -> f64 {
        f64::from(self.reading.effects.wait.unwrap_or(usual)) / 100.0
    }
}

fn shortened(reply: &str) -> String {
    match reply.char_indices().nth(REPLY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &reply[..end]),
        None => reply.to_string(),
    }
}
