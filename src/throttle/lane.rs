//! One lane: what one of our source addresses has learned of one provider.
//!
//! Each kind of refusal has a lever of its own, and moves no other:
//!
//! | the receiver says | lever |
//! | --- | --- |
//! | too fast (RP-001, 4.7.650, server busy) | a short wait, one message asks; the rate is found (`rate`) |
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

mod answers;
mod told;

pub(super) use answers::has_wait;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::climb::Climb;
use super::effort::Effort;
use super::growth::Growth;
use super::history::History;
use super::hold::Holds;
use super::pace::Pacer;
use super::profile::Profile;
use super::rate::{Moment, Rate};
use super::wait::Wait;
use super::warmup::Warmup;
use super::{HoldBegan, Probe};
use crate::types::Timestamp;

/// After this much silence a lane sends one message first again.
const FORGETS_CONTACT: Duration = Duration::from_secs(86_400);
/// What was learned of a lane that is not used is kept for this long.
const KEEPS_LIMITS: Duration = Duration::from_secs(30 * 86_400);
/// A smaller number of recipients that was learned is doubled again after this.
const RECIPIENTS_FOR: Duration = Duration::from_secs(86_400);
/// A learned rate brings at once what it brings in this part of a second.
const BURST_SECS: f64 = 0.1;

#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub open: usize,
    /// Of these, the ones the receiver has let in, and that have not taken leave.
    pub ready: usize,
    pub last_used: Timestamp,
    /// Something changed that should survive a restart.
    pub unsaved: bool,
    saved_at: Option<Timestamp>,
    /// First contact and growth guard hold for it.
    pub guarded: bool,
    /// Its source is new to the provider: the warm-up holds for it.
    pub warming: bool,
    pub learned: Learned,
    pacer: Pacer,
    /// Transactions under way, and their recipients.
    busy: usize,
    flight: u64,
    /// Connections that are allowed while the lane comes back from a stop; each accepted message adds one.
    slow: Option<usize>,
    effort: Effort,
    /// One transaction is under way whose answer decides whether the lane opens.
    asking: bool,
    /// No connection is opened before these; each stands for one that was ended.
    successors: Vec<Timestamp>,
    /// Connections there were when the first of them was ended.
    standing: usize,
    /// The most that were let in at a time since the last connection was refused.
    kept: usize,
    /// Since when a connection was wanted, and until when none is opened.
    rest: Option<(Timestamp, Timestamp)>,
    /// The last answer to a transaction.
    answered_at: Timestamp,
    /// Recipients a minute before the lane was stopped.
    went_before: f64,
    profile: Arc<Profile>,
}

/// What survives a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Learned {
    /// When it was saved.
    at: Timestamp,
    closed: Option<Closed>,
    pub history: History,
    rate: Rate,
    connections: Climb,
    messages: Climb,
    recipients: Option<usize>,
    recipients_at: Timestamp,
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
            at: Timestamp::EPOCH,
            closed: None,
            history: History::default(),
            rate: Rate::default(),
            connections: Climb::new(1),
            messages: Climb::new(1),
            recipients: None,
            recipients_at: Timestamp::EPOCH,
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
            ready: 0,
            last_used: now,
            unsaved: false,
            saved_at: None,
            guarded: false,
            warming: false,
            learned,
            pacer: Pacer::default(),
            busy: 0,
            flight: 0,
            slow: None,
            effort: Effort::default(),
            asking: false,
            successors: Vec::new(),
            standing: 0,
            kept: 0,
            rest: None,
            answered_at: now,
            went_before: 0.0,
            profile: Arc::clone(profile),
        }
    }

    /// A lane as it was saved; none if the text is not one.
    pub fn restored(profile: &Arc<Profile>, text: &str, now: Timestamp) -> Option<Lane> {
        let learned: Learned = serde_json::from_str(text).ok()?;
        let mut lane = Lane { learned, ..Lane::new(profile, now) };
        lane.reconfigure(profile);
        // Saved in the future: the clock was ahead then, and so are all moments.
        let ahead = lane.learned.at.millis() - now.millis();
        if ahead > 0 {
            lane.shift(-ahead);
        }
        Some(lane)
    }

    /// The clock was set by so much: every moment moves with it, so that no wait becomes longer or shorter.
    pub fn shift(&mut self, by_millis: i64) {
        let moved = |at: &mut Timestamp| *at = at.shifted(by_millis);
        self.effort = Effort::default();
        let learned = &mut self.learned;
        learned.closed.iter_mut().flat_map(|closed| [&mut closed.since, &mut closed.until]).for_each(moved);
        learned.history.shift(by_millis);
        learned.rate.shift(by_millis);
        [&mut learned.connections, &mut learned.messages].into_iter().for_each(|climb| climb.shift(by_millis));
        [&mut learned.connection_wait, &mut learned.successor_wait].into_iter().for_each(|wait| wait.shift(by_millis));
        learned.growth.shift(by_millis);
        learned.warmup.shift(by_millis);
        learned.holds.shift(by_millis);
        [&mut learned.recipients_at, &mut learned.ipv4_until, &mut learned.at, &mut self.last_used]
            .into_iter()
            .chain(&mut learned.accepted_at)
            .chain(&mut self.saved_at)
            .chain(&mut self.successors)
            .chain(self.rest.iter_mut().flat_map(|(since, until)| [since, until]))
            .chain([&mut self.answered_at])
            .for_each(moved);
        self.pacer.shift(by_millis);
        self.unsaved = true;
    }

    /// As it is to be kept: what it knows is that of now.
    pub fn stamped(&mut self, now: Timestamp) -> String {
        self.learned.at = now;
        self.saved()
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
            None => {
                let limit = self.learned.connections.limit().min(self.profile.max_connections.max(1));
                self.slow.map_or(limit, |slow| limit.min(slow.max(1)))
            }
        }
    }

    /// Until when nothing may start, if that is so now.
    pub fn closed_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.learned.closed.as_ref().map(|closed| closed.until).filter(|until| *until > now)
    }

    /// Until when no new connection is opened, while those that are open go on.
    pub fn rests_until(&self, now: Timestamp) -> Option<Timestamp> {
        let wait = self.learned.connection_wait.until();
        // In the place of one that the receiver let in another may come.
        if wait > now && self.learned.closed.is_none() && self.open >= self.kept {
            return Some(wait);
        }
        // While a successor waits no other connection comes in its place.
        let waiting = &self.successors[self.successors.partition_point(|until| *until <= now)..];
        let allowed = self.allowed(now);
        let is_taken = self.open < allowed && self.open + waiting.len() >= allowed.min(self.standing);
        waiting.first().copied().filter(|_| is_taken)
    }

    /// The receiver has let a connection in.
    pub fn let_in(&mut self) {
        self.ready += 1;
        if self.kept > 0 {
            self.kept = self.kept.max(self.ready);
        }
    }

    /// A connection was wanted, and none is opened until then.
    pub fn wanted(&mut self, until: Timestamp, now: Timestamp) {
        let since = self.rest.map_or(now, |(since, _)| since);
        self.rest = Some((since, until));
    }

    /// A transaction begins: was there a rest for which nothing was under way?
    fn end_rest(&mut self, now: Timestamp) {
        if self.busy > 0 {
            return;
        }
        if let Some((since, until)) = self.rest.take() {
            let rested = until.min(now).since(since.max(self.answered_at));
            self.learned.rate.rested(rested.as_secs_f64());
        }
    }

    /// May a connection be opened? Else when, or that one must be closed first.
    pub fn may_open(&mut self, now: Timestamp) -> Result<(), Option<Timestamp>> {
        self.refresh(now);
        if let Some(until) = self.closed_until(now) {
            return Err(Some(until));
        }
        if self.open >= self.allowed(now) {
            return Err(None);
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
        self.learned.rate.room(self.flight, self.at(now))?;
        if self.guarded {
            self.learned.growth.room(&self.profile, now)?;
        }
        if self.warming {
            self.learned.warmup.room(&self.profile.warm_up, now)?;
        }
        let (rate, burst) = self.paced();
        self.pacer.may_in_bursts(rate, burst, 1, now)
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
        let (rate, burst) = self.paced();
        let taken = self.pacer.ask_in_bursts(rate, burst, recipients, now);
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
        self.end_rest(now);
        self.last_used = now;
        self.busy += 1;
        self.flight += recipients as u64;
        Ok(())
    }

    /// A transaction of so many recipients is over.
    pub fn ended(&mut self, recipients: u64) {
        self.busy = self.busy.saturating_sub(1);
        self.flight = self.flight.saturating_sub(recipients);
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
        let fixed = self.policy(now);
        match self.learned.rate.lasting(self.profile.pause) {
            Some(rate) => Some(rate.min(fixed)),
            None if fixed.is_finite() => Some(fixed),
            None => {
                let over = |secs| self.learned.history.mean(Duration::from_secs(secs), now);
                // Half an hour says more than a minute, once there is one.
                let (long, last) = (over(1800), over(60));
                let mean = if long > 0.5 * last { long } else { last };
                (mean > 0.0).then_some(mean)
            }
        }
    }

    /// The moment as the rate sees it.
    fn at(&self, now: Timestamp) -> Moment<'_> {
        Moment { history: &self.learned.history, pause: self.profile.pause, now }
    }

    /// The rate, and the moment as it sees it.
    fn rate_at(&mut self, now: Timestamp) -> (&mut Rate, Moment<'_>) {
        let Learned { rate, history, .. } = &mut self.learned;
        (rate, Moment { history, pause: self.profile.pause, now })
    }

    /// Recipients a minute that are let through, and how many of them at once.
    fn paced(&self) -> (f64, f64) {
        let rate = self.rate_per_minute();
        let is_learned = self.learned.rate.limit().is_some_and(|limit| limit <= rate);
        (rate, (rate / 60.0 * if is_learned { BURST_SECS } else { 1.0 }).max(1.0))
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

    /// Drops what refusals taught, and says in words what that was. Growth guard and warm-up stay: they are about us.
    pub fn forget(&mut self, now: Timestamp) -> Vec<String> {
        let dropped = self.known(now);
        let Lane { open, last_used, guarded, warming, .. } = *self;
        let Lane { ready, busy, flight, .. } = *self;
        let Learned { history, growth, warmup, accepted_at, closed, .. } = std::mem::take(&mut self.learned);
        // Where it was stopped one message goes first, as at the first contact.
        let accepted_at = accepted_at.filter(|_| closed.is_none());
        let fresh = Lane::new(&self.profile, now);
        let learned = Learned { history, growth, warmup, accepted_at, ..fresh.learned };
        *self = Lane { open, ready, busy, flight, last_used, guarded, warming, learned, unsaved: true, ..fresh };
        dropped
    }

    /// Takes the steps whose time has come.
    fn refresh(&mut self, now: Timestamp) {
        if self.learned.closed.is_none() {
            let (rate, at) = self.rate_at(now);
            rate.grow(at);
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

fn messages_max(profile: &Profile) -> usize {
    usize::try_from(profile.messages_per_connection.max(1)).unwrap_or(usize::MAX)
}
