//! One lane: what one of our source addresses has learned of one provider.
//!
//! Each kind of refusal has a lever of its own, and moves no other:
//!
//! | the receiver says | lever |
//! | --- | --- |
//! | too fast (RP-001, 4.7.650, server busy) | pause, one probe, slow start; the rate is cut (`rate`) |
//! | too many messages on this connection (RP-002) | fewer messages on each; its successor waits |
//! | too many connections (RP-003, 4.7.652) | fewer connections; no new one for a while |
//! | too many recipients (452 4.5.3) | fewer in a transaction |
//! | our address is blocked | stop; rare probes |
//! | our HELO name is wrong | stop until it changes or a person says so |
//! | our IPv6 address is not known to be good | IPv4 |
//!
//! Rules that always hold:
//! - `1 <= connections <= ceiling` while the lane is open: a receiver is slowed down for, but never starved;
//! - while it is closed nothing starts, and when its wait is over one transaction does, whose answer decides;
//! - one burst counts once: refusals of what started before the last cut change nothing.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::climb::Climb;
use super::counts::Counts;
use super::growth::Growth;
use super::hold::Holds;
use super::pace::Pacer;
use super::profile::Profile;
use super::rate::Rate;
use super::wait::Wait;
use super::warmup::Warmup;
use super::{About, HoldBegan, Probe, Side};
use crate::types::{Class, Reading, Scope, Timestamp};

/// A block is probed at the latest after so many times the first wait.
const BLOCK_DOUBLINGS_MAX: u32 = 24;
/// The first probe after a block that may have been about content, as a part of the usual wait.
const EARLY: f64 = 0.1;
/// After this much silence a lane sends one message first again.
const FORGETS_CONTACT: Duration = Duration::from_secs(86_400);
/// Until here connections grow by one for every two accepted messages, above it for every 32: when the first refusal comes, no
/// more than a small part of what was accepted can be on its way.
const EASY_CONNECTIONS: usize = 16;
const EASY_GROWTH: f64 = 0.5;
const GROWTH: f64 = 1.0 / 32.0;
/// What was learned of a lane that is not used is kept for this long.
const KEEPS_LIMITS: Duration = Duration::from_secs(30 * 86_400);
/// That mail is accepted is saved anew this often.
const SAVES_CONTACT: Duration = Duration::from_secs(3600);
/// A lane that is told to use IPv4 tries IPv6 again after this.
const IPV4_FOR: Duration = Duration::from_secs(30 * 86_400);
/// A smaller number of recipients that was learned is doubled again after this.
const RECIPIENTS_FOR: Duration = Duration::from_secs(86_400);
/// Successors of connections that were ended by the receiver: more are not waited for one by one.
const SUCCESSORS_MAX: usize = 500;
/// The usual waits in hundredths of `pause`: rate, connections, the successor of a connection.
const RATE_WAIT: u16 = 100;
const CONNECTION_WAIT: u16 = 20;
const SUCCESSOR_WAIT: u16 = 5;
const REPLY_CHARS_MAX: usize = 500;

#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub open: usize,
    pub last_used: Timestamp,
    /// Something changed that should survive a restart.
    pub unsaved: bool,
    saved_at: Option<Timestamp>,
    /// First contact and growth guard hold for it.
    pub guarded: bool,
    /// Its source is new to the provider: the warm-up holds for it.
    pub warming: bool,
    pub counts: Counts,
    pub learned: Learned,
    pacer: Pacer,
    /// Growth before the first cut, in parts of a connection.
    credit: f64,
    /// One transaction is under way whose answer decides whether the lane opens.
    asking: bool,
    /// No connection is opened before these; each stands for one that was ended.
    successors: Vec<Timestamp>,
    /// Connections there were when the first of them was ended.
    standing: usize,
    profile: Arc<Profile>,
}

/// What survives a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Learned {
    closed: Option<Closed>,
    rate: Rate,
    connections: Climb,
    messages: Climb,
    recipients: Option<usize>,
    recipients_at: Timestamp,
    rate_wait: Wait,
    connection_wait: Wait,
    successor_wait: Wait,
    growth: Growth,
    warmup: Warmup,
    pub holds: Holds,
    ipv4_until: Timestamp,
    accepted_at: Option<Timestamp>,
    /// The last refusal that moved a lever, and what it moved.
    refusal: Option<String>,
}

impl Default for Learned {
    fn default() -> Learned {
        Learned {
            closed: None,
            rate: Rate::default(),
            connections: Climb::new(1),
            messages: Climb::new(1),
            recipients: None,
            recipients_at: Timestamp::EPOCH,
            rate_wait: Wait::default(),
            connection_wait: Wait::default(),
            successor_wait: Wait::default(),
            growth: Growth::default(),
            warmup: Warmup::default(),
            holds: Holds::default(),
            ipv4_until: Timestamp::EPOCH,
            accepted_at: None,
            refusal: None,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Closed {
    cause: Cause,
    since: Timestamp,
    until: Timestamp,
    /// For a block: the wait that is doubled.
    wait: Duration,
    reply: String,
    probe: ProbeKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Cause {
    Rate,
    Block,
    /// Our HELO name was refused.
    Name,
    Operator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProbeKind {
    Next,
    Expendable,
    OtherSender,
}

/// A change that an operator should see.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Less from now on: of what, in words.
    Throttled {
        text: String,
    },
    /// Nothing goes out until then; then one message asks.
    Paused {
        until: Timestamp,
    },
    /// Our address is refused. `NEVER`: our name is, and no probe goes out.
    Blocked {
        until: Timestamp,
    },
    /// Over IPv4 from now on.
    Ipv4Only,
    /// Mail from or to one domain waits.
    Held(HoldBegan),
    /// A wave of unknown recipients: half the rate, and what is listed is listed provisionally.
    Wave {
        id: Arc<str>,
        text: String,
    },
    WaveEnded {
        id: Arc<str>,
    },
    Resumed,
}

impl Lane {
    pub fn new(profile: &Arc<Profile>, now: Timestamp) -> Lane {
        let learned = Learned {
            connections: Climb::new(profile.initial_connections.min(profile.max_connections)),
            messages: Climb::new(messages_max(profile)),
            ..Learned::default()
        };
        Lane {
            open: 0,
            last_used: now,
            unsaved: false,
            saved_at: None,
            guarded: false,
            warming: false,
            counts: Counts::default(),
            learned,
            pacer: Pacer::default(),
            credit: 0.0,
            asking: false,
            successors: Vec::new(),
            standing: 0,
            profile: Arc::clone(profile),
        }
    }

    /// A lane as it was saved; none if the text is not one.
    pub fn restored(profile: &Arc<Profile>, text: &str, now: Timestamp) -> Option<Lane> {
        let learned: Learned = serde_json::from_str(text).ok()?;
        let mut lane = Lane { learned, ..Lane::new(profile, now) };
        lane.reconfigure(profile);
        Some(lane)
    }

    pub fn saved(&self) -> String {
        serde_json::to_string(&self.learned).unwrap_or_default()
    }

    /// Takes new limits; what was learned within them stays.
    pub fn reconfigure(&mut self, profile: &Arc<Profile>) {
        if self.learned.messages.found().is_none() {
            self.learned.messages.set(messages_max(profile));
        }
        self.learned.messages.cap(messages_max(profile));
        self.learned.connections.cap(profile.max_connections);
        self.profile = Arc::clone(profile);
    }

    /// Connections the lane may have now.
    pub fn allowed(&self, now: Timestamp) -> usize {
        match &self.learned.closed {
            Some(closed) if now < closed.until => 0,
            Some(_) => 1,
            None if self.is_first_contact(now) => 1,
            None => self.learned.connections.limit().min(self.profile.max_connections.max(1)),
        }
    }

    /// Until when nothing may start, if that is so now.
    pub fn closed_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.learned.closed.as_ref().map(|closed| closed.until).filter(|until| *until > now)
    }

    /// May a connection be opened? Else when, or that one must be closed first.
    pub fn may_open(&mut self, now: Timestamp) -> Result<(), Option<Timestamp>> {
        self.refresh(now);
        if let Some(until) = self.closed_until(now) {
            return Err(Some(until));
        }
        let wait = self.learned.connection_wait.until();
        if wait > now && self.learned.closed.is_none() {
            return Err(Some(wait));
        }
        let allowed = self.allowed(now);
        if self.open >= allowed {
            return Err(None);
        }
        // While a successor waits no other connection comes in its place.
        if self.open + self.successors.len() >= allowed.min(self.standing)
            && let Some(first) = self.successors.first()
        {
            return Err(Some(*first));
        }
        if self.asks(now) {
            return if self.asking { Err(None) } else { Ok(()) };
        }
        self.may_send(now).map_err(|at| Some(self.sooner(at, now)))
    }

    /// When to ask again: not later than the rate rises.
    fn sooner(&self, at: Timestamp, now: Timestamp) -> Timestamp {
        self.learned.rate.next_step().filter(|next| *next > now).map_or(at, |next| next.min(at))
    }

    /// Do the rate, the growth guard and the warm-up let a recipient through?
    fn may_send(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        if let Some(at) = self.learned.rate.hour_is_full(&mut self.counts, now) {
            return Err(at);
        }
        if self.guarded {
            self.learned.growth.room(&self.profile, now)?;
        }
        if self.warming {
            self.learned.warmup.room(&self.profile.warm_up, now)?;
        }
        self.pacer.may(self.rate_per_minute(), 1, now)
    }

    /// Takes so many recipients from all that limit them, or from none.
    fn take(&mut self, recipients: usize, now: Timestamp) -> Result<(), Timestamp> {
        self.may_send(now)?;
        if self.guarded {
            self.learned.growth.ask(&self.profile, recipients, now)?;
        }
        if self.warming
            && let Err(at) = self.learned.warmup.ask(&self.profile.warm_up, recipients, now)
        {
            self.learned.growth.refund(recipients);
            return Err(at);
        }
        let taken = self.pacer.ask(self.rate_per_minute(), recipients, now);
        if taken.is_err() {
            self.learned.growth.refund(recipients);
            self.learned.warmup.refund(recipients);
        }
        taken
    }

    /// Takes up the right to one transaction of so many recipients; else when, or that an answer must come first.
    pub fn start(&mut self, recipients: usize, now: Timestamp) -> Result<(), Option<Timestamp>> {
        self.refresh(now);
        if let Some(until) = self.closed_until(now) {
            return Err(Some(until));
        }
        if self.asks(now) {
            if self.asking {
                return Err(None);
            }
            self.asking = true;
        } else {
            self.take(recipients, now).map_err(|at| Some(self.sooner(at, now)))?;
        }
        self.last_used = now;
        Ok(())
    }

    /// Is the connection one too many, or has it carried what it may?
    pub fn is_spent(&self, carried: usize, now: Timestamp) -> bool {
        carried >= self.learned.messages.limit() || self.open > self.allowed(now).max(1)
    }

    /// Which delivery is wanted while only a probe may go.
    pub fn probe(&self, now: Timestamp) -> Option<Probe> {
        let closed = self.learned.closed.as_ref().filter(|closed| closed.until <= now)?;
        Some(match closed.probe {
            ProbeKind::Next => Probe::Next,
            ProbeKind::Expendable => Probe::Expendable,
            ProbeKind::OtherSender => Probe::OtherSender,
        })
    }

    /// Recipients of one transaction.
    pub fn recipients(&self) -> usize {
        let most = self.profile.recipients_per_message.max(1);
        self.learned.recipients.map_or(most, |learned| learned.min(most))
    }

    pub fn wants_ipv4(&self, now: Timestamp) -> bool {
        self.learned.ipv4_until > now
    }

    /// What the lane is expected to take a minute while it is open; none: not known yet.
    pub fn pace(&self, now: Timestamp) -> Option<f64> {
        let (mean, last) = (self.counts.mean(Duration::from_secs(1800), now), self.counts.last_minute(now));
        // Half an hour says more than a minute, once there is one: a cut and the way back even out in it.
        let seen = if mean > 0.5 * last { mean } else { last };
        let limit = self.rate_limit(now).unwrap_or(f64::INFINITY);
        match self.learned.rate.found() {
            // On its way back it will soon be there.
            Some(found) if limit.is_finite() => Some(limit.clamp(0.9 * found, found).min(self.policy(now))),
            // What we hold back ourselves goes as fast as we let it.
            _ if limit.is_finite() => Some(limit),
            _ => (seen > 0.0).then_some(seen),
        }
    }

    pub fn state(&self, now: Timestamp) -> &'static str {
        match &self.learned.closed {
            Some(closed) if closed.until <= now => "probing",
            Some(closed) => match closed.cause {
                Cause::Rate | Cause::Operator => "paused",
                Cause::Block => "blocked",
                Cause::Name => "stopped",
            },
            None if self.allowed(now) < self.profile.max_connections || self.learned.rate.limit().is_some() => {
                "growing"
            }
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
        let limits = [
            self.learned.rate.limit().map(|rate| format!("{rate:.0} recipients a minute")),
            self.learned.connections.found().map(|_| format!("{} connections", self.learned.connections.limit())),
            self.learned.messages.found().map(|_| format!("{} messages a connection", self.learned.messages.limit())),
        ];
        let limits: Vec<String> = limits.into_iter().flatten().collect();
        let Some(refusal) = self.learned.refusal.as_ref().filter(|_| !limits.is_empty()) else {
            return self.held_back(now);
        };
        Some(format!("at most {}; it refused more: {refusal}", limits.join(", ")))
    }

    /// The first of the domains that are held back.
    fn held_back(&self, now: Timestamp) -> Option<String> {
        let (side, domain, held) = self.learned.holds.iter(now).next()?;
        let mail = if side == Side::Sender { "from" } else { "to" };
        Some(format!("mail {mail} {domain} alone is held back until {}: {}", held.until, held.reason))
    }

    /// The fixed or learned rate that holds now; none: no limit.
    pub fn rate_limit(&self, now: Timestamp) -> Option<f64> {
        Some(self.rate_per_minute().min(self.policy(now))).filter(|rate| rate.is_finite())
    }

    /// Since when nothing went, if the lane is closed.
    pub fn closed_since(&self) -> Option<Timestamp> {
        self.learned.closed.as_ref().map(|closed| closed.since)
    }

    /// Has it been quiet for so long that what it knows is not worth its place?
    pub fn is_stale(&self, now: Timestamp) -> bool {
        let learned = &self.learned;
        let knows_limits = learned.closed.is_some()
            || learned.rate.limit().is_some()
            || learned.connections.found().is_some()
            || learned.messages.found().is_some()
            || learned.recipients.is_some()
            || self.wants_ipv4(now);
        let kept = if knows_limits { KEEPS_LIMITS } else { FORGETS_CONTACT };
        self.open == 0 && now.since(self.last_used) > kept
    }

    /// A message was accepted.
    pub fn accepted(&mut self, recipients: u32, about: &About<'_>, now: Timestamp) -> Option<Change> {
        if !self.learned.holds.is_empty() {
            self.learned.holds.accepted(about, now);
        }
        self.counts.add(recipients, now);
        self.learned.growth.accepted(recipients, now);
        if self.warming {
            self.learned.warmup.accepted(recipients, now);
        }
        self.learned.accepted_at = Some(now);
        if self.saved_at.is_none_or(|at| now.since(at) >= SAVES_CONTACT) {
            self.saved_at = Some(now);
            self.unsaved = true;
        }
        if let Some(closed) = &self.learned.closed {
            let answers = closed.until <= now && self.asking;
            self.asking = false;
            if !answers {
                self.learned.rate.refine(&mut self.counts, now);
                return None;
            }
            self.reopen(now);
            return Some(Change::Resumed);
        }
        self.asking = false;
        let limit = self.learned.connections.limit();
        if self.open >= limit {
            self.used(limit, now);
        }
        None
    }

    /// Every connection that is allowed is in use, and a message was accepted: there is room for more.
    fn used(&mut self, limit: usize, now: Timestamp) {
        let most = self.profile.max_connections.max(1);
        self.learned.connections.grow(true, most, self.profile.pause, now);
        if self.learned.connections.found().is_none() && limit < most {
            self.credit += if limit < EASY_CONNECTIONS { EASY_GROWTH } else { GROWTH };
            if self.credit >= 1.0 {
                self.credit = 0.0;
                self.learned.connections.set((limit + 1).min(most));
            }
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
        let refusal = Refusal { reading, reply, started, chance, now };
        let held = self.learned.holds.refused(reading, reply, about, &self.profile, now);
        let change = match Lever::of(reading) {
            Lever::Stop => {
                self.unclean(now);
                return self.blocked(&refusal);
            }
            Lever::Rate => self.too_fast(&refusal),
            Lever::Connections => self.too_many(&refusal),
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
        self.asking = false;
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
    pub fn slow_down(&mut self, now: Timestamp) {
        self.learned.rate.halve(&mut self.counts, self.profile.pause, now);
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
        match &self.learned.closed {
            Some(closed) if closed.until > now || started < closed.until => return None,
            Some(closed) => {
                if closed.cause == Cause::Rate {
                    self.learned.rate.probe_refused(self.profile.pause, now);
                }
            }
            None => {
                if !self.learned.rate.refused(&mut self.counts, started, self.profile.pause, now) {
                    return None;
                }
            }
        }
        let part = refusal.part(RATE_WAIT);
        let (unit, most) = (self.profile.pause.mul_f64(part), self.profile.pause_max.mul_f64(part.max(1.0)));
        self.learned.rate_wait.next(unit, most, refusal.chance, now);
        let room = self.learned.rate.room_at(&mut self.counts, self.profile.pause, now);
        let until = self.learned.rate_wait.extend(room);
        self.close(Cause::Rate, until, unit, refusal.reply, ProbeKind::Next, now);
        Some(Change::Paused { until })
    }

    fn too_many(&mut self, refusal: &Refusal<'_>) -> Option<Change> {
        let Refusal { started, now, .. } = *refusal;
        let before = self.learned.connections.limit();
        let good = self.open.saturating_sub(1);
        if !self.learned.connections.refused(good, started, self.profile.pause, now) {
            return None;
        }
        self.credit = 0.0;
        let part = refusal.part(CONNECTION_WAIT);
        let (unit, most) = (self.profile.pause.mul_f64(part), self.profile.pause_max.mul_f64(part));
        let until = self.learned.connection_wait.next(unit, most, refusal.chance, now);
        let limit = self.learned.connections.limit();
        let text = format!("at most {limit} connections from now on (before: {before}), no new one before {until}");
        Some(Change::Throttled { text })
    }

    /// The connection carried too many messages.
    fn too_long(&mut self, refusal: &Refusal<'_>, about: &About<'_>) -> Option<Change> {
        let Refusal { started, now, .. } = *refusal;
        let part = refusal.part(SUCCESSOR_WAIT);
        let (unit, most) = (self.profile.pause.mul_f64(part), self.profile.pause_max.mul_f64(part));
        let before = self.learned.messages.limit();
        let good = usize::try_from(about.carried).unwrap_or(usize::MAX);
        let is_cut = self.learned.messages.refused(good, started, self.profile.pause, now);
        // Each connection that was ended has a successor that waits; the wait grows with the cuts, not with the burst.
        let until = if is_cut {
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
        let text = format!("at most {limit} messages on a connection from now on (before: {before})");
        is_cut.then_some(Change::Throttled { text })
    }

    fn too_wide(&mut self, now: Timestamp) -> Option<Change> {
        let before = self.recipients();
        let fewer = (before / 2).max(1);
        self.learned.recipients = Some(fewer);
        self.learned.recipients_at = now;
        let text = format!("at most {fewer} recipients in a transaction from now on (before: {before})");
        (fewer < before).then_some(Change::Throttled { text })
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
        if self.learned.closed.is_none() {
            self.learned.rate.stopped(&mut self.counts, now);
        }
        let same = self.learned.closed.as_ref().filter(|closed| closed.cause == cause);
        let since = same.map_or(now, |closed| closed.since);
        self.learned.closed = Some(Closed { cause, since, until, wait, reply: shortened(reply), probe });
        self.asking = false;
        self.unsaved = true;
    }

    /// The way is free again: slow start.
    fn reopen(&mut self, now: Timestamp) {
        self.learned.closed = None;
        self.asking = false;
        self.unsaved = true;
        self.learned.rate.restart(self.profile.pause, now);
        if self.learned.rate.limit().is_none() && self.learned.connections.found().is_none() {
            self.learned.connections.set(1);
        }
        self.pacer = Pacer::default();
    }

    /// Takes the steps whose time has come.
    fn refresh(&mut self, now: Timestamp) {
        if self.learned.closed.is_none() {
            let settled = self.learned.rate_wait.forgotten_at();
            self.learned.rate.grow(&mut self.counts, self.profile.pause, settled, now);
        }
        let pause = self.profile.pause;
        self.learned.connections.grow(false, self.profile.max_connections.max(1), pause, now);
        // A connection that carries all it may shows that more is wanted.
        self.learned.messages.grow(self.open > 0, messages_max(&self.profile), pause, now);
        let waiting = self.successors.partition_point(|until| *until <= now);
        self.successors.drain(..waiting);
        if let Some(learned) = self.learned.recipients
            && now.since(self.learned.recipients_at) >= RECIPIENTS_FOR
        {
            self.learned.recipients_at = now;
            self.learned.recipients =
                (learned * 2 < self.profile.recipients_per_message).then_some(learned.saturating_mul(2));
        }
    }

    /// Does one transaction have to be answered before others start?
    fn asks(&self, now: Timestamp) -> bool {
        self.learned.closed.is_some() || self.is_first_contact(now)
    }

    fn is_first_contact(&self, now: Timestamp) -> bool {
        self.guarded && self.learned.accepted_at.is_none_or(|at| now.since(at) >= FORGETS_CONTACT)
    }

    /// What may go a minute beside what the receiver's refusals taught: fixed rate, growth guard, warm-up.
    fn policy(&self, now: Timestamp) -> f64 {
        let guard = self.learned.growth.most(&self.profile, now).filter(|_| self.guarded).map(|hour| hour / 60.0);
        let warmup = self.learned.warmup.most(&self.profile.warm_up, now).filter(|_| self.warming);
        let limits = [self.profile.max_rate, guard, warmup.map(|day| f64::from(day) / 1440.0)];
        limits.into_iter().flatten().fold(f64::INFINITY, f64::min)
    }

    /// The lowest of the rates that hold.
    fn rate_per_minute(&self) -> f64 {
        let fixed = self.profile.max_rate.unwrap_or(f64::INFINITY);
        self.learned.rate.limit().unwrap_or(f64::INFINITY).min(fixed)
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
pub(super) fn has_wait(reading: &Reading) -> bool {
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

fn messages_max(profile: &Profile) -> usize {
    usize::try_from(profile.messages_per_connection.max(1)).unwrap_or(usize::MAX)
}

fn shortened(reply: &str) -> String {
    match reply.char_indices().nth(REPLY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &reply[..end]),
        None => reply.to_string(),
    }
}
