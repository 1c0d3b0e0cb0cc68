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

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::climb::{Climb, Cut};
use super::effort::Effort;
use super::forecast::{Filling, Player};
use super::growth::Growth;
use super::history::History;
use super::hold::Holds;
use super::pace::Pacer;
use super::profile::Profile;
use super::rate::{Moment, Rate};
use super::wait::Wait;
use super::warmup::Warmup;
use super::window;
use super::words::{Grouped, count, per_minute};
use super::{About, HoldBegan, Probe, Restraint, Side};
use crate::types::{Class, Reading, Scope, Timestamp};

/// A block is probed at the latest after so many times the first wait.
const BLOCK_DOUBLINGS_MAX: u32 = 24;
/// The first probe after a block that may have been about content, as a part of the usual wait.
const EARLY: f64 = 0.1;
/// After this much silence a lane sends one message first again.
const FORGETS_CONTACT: Duration = Duration::from_secs(86_400);
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
/// The usual waits in hundredths of `pause`: what a rate's first wait is a part of, connections, the successor of a connection.
const RATE_WAIT: u16 = 100;
const CONNECTION_WAIT: u16 = 20;
const SUCCESSOR_WAIT: u16 = 5;
/// A refused connection that may have been chance is asked for again after this part of the wait.
const SUSPECT_PART: f64 = 0.1;
/// A learned rate brings at once what it brings in this part of a second.
const BURST_SECS: f64 = 0.1;
/// Where a window of at least that length is counted, what it holds is saved so often.
const SAVES_COUNTS: Duration = Duration::from_secs(300);
/// A window of at least this length is played for a forecast; shorter ones are a rate.
const FILLS_FROM: Duration = Duration::from_secs(1800);
/// What a lane did before it was stopped is its mean over this.
const WENT_OVER: Duration = Duration::from_secs(600);
/// Chance makes a wait longer by this part at most, so that lanes that were stopped together do not come back together.
const JITTER: f64 = 0.1;
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

    /// The lane as it is played forward for a forecast; none: it opens only by an operator's hand.
    pub fn player(&self, now: Timestamp) -> Option<Player> {
        let opens = self.closed_until(now).unwrap_or(now);
        let held_back = self.policy(now) <= self.rate_per_minute() && self.pacers_are_full(now);
        let fixed = self.profile.max_rate.unwrap_or(f64::INFINITY);
        let takes = match self.learned.rate.lasting(self.profile.pause) {
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
        (opens < Timestamp::NEVER).then_some(Player { opens, takes, filling, growth, warmup, profile })
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
        let window = self.learned.rate.window(pause).map(|(count, length)| {
            format!("{} recipients in any {}", Grouped(count.round() as u64), window::in_words(length))
        });
        let rate = window.or_else(|| self.learned.rate.lasting(self.profile.pause).map(per_minute));
        let connections = &self.learned.connections;
        let messages = &self.learned.messages;
        let connections = connections.found().map(|_| count(connections.limit(), "connection"));
        let messages = messages.found().map(|_| format!("{} a connection", count(messages.limit(), "message")));
        [rate, connections, messages].into_iter().flatten()
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
        self.learned.connections.went_well(self.open);
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

    /// Drops what refusals taught, and says in words what that was. Growth guard and warm-up stay: they are about us.
    pub fn forget(&mut self, now: Timestamp) -> Vec<String> {
        let dropped = self.known(now);
        let Lane { open, last_used, guarded, warming, .. } = *self;
        let Lane { busy, flight, .. } = *self;
        let Learned { history, growth, warmup, accepted_at, closed, .. } = std::mem::take(&mut self.learned);
        // Where it was stopped one message goes first, as at the first contact.
        let accepted_at = accepted_at.filter(|_| closed.is_none());
        let fresh = Lane::new(&self.profile, now);
        let learned = Learned { history, growth, warmup, accepted_at, ..fresh.learned };
        *self = Lane { open, busy, flight, last_used, guarded, warming, learned, unsaved: true, ..fresh };
        dropped
    }

    /// Every limit that a refusal has taught, in words.
    fn known(&self, now: Timestamp) -> Vec<String> {
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

    fn too_many(&mut self, refusal: &Refusal<'_>) -> Option<Change> {
        let Refusal { started, now, .. } = *refusal;
        let before = self.learned.connections.limit();
        let good = self.open.saturating_sub(1);
        let cut = self.learned.connections.refused(good, started, self.profile.pause, now);
        // Only where fewer are taken than were good before it is plain that the receiver wants to be left alone.
        let has_fallen = cut == Cut::Confirmed && self.learned.connections.limit() < good;
        let part = refusal.part(CONNECTION_WAIT) * if has_fallen { 1.0 } else { SUSPECT_PART };
        let (unit, most) = (self.profile.pause.mul_f64(part), self.profile.pause_max.mul_f64(part));
        if cut == Cut::None {
            return None;
        }
        let until = self.learned.connection_wait.next(unit, most, refusal.chance, now);
        let limit = self.learned.connections.limit();
        let text = match cut {
            Cut::Suspected => format!("no new connection before {until}; one refusal may be chance"),
            _ => format!("at most {limit} connections from now on (before: {before}), no new one before {until}"),
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
            Cut::Confirmed => format!("at most {limit} messages on a connection from now on (before: {before})"),
        };
        Some(Change::Throttled { text })
    }

    fn too_wide(&mut self, now: Timestamp) -> Option<Change> {
        let before = self.recipients();
        let fewer = (before / 2).max(1);
        self.learned.recipients = Some(fewer);
        self.learned.recipients_at = now;
        let text = format!("at most {fewer} recipients in a transaction from now on (before: {before})");
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
