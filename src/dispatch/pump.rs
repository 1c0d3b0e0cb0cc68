//! Gives what is due to connections.
//!
//! ```text
//! pump(target):
//!   while something stands in the line:
//!     an idle connection of the target?  -> grant -> start
//!     else a permit of the throttle?     -> grant -> open, with the delivery bound to it
//!     else                               -> hungry: looked at again when a permit comes back, or at the time given
//! ```
//!
//! How a connection is opened is told in `opening`.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::Attempt;
use super::core::{Core, Timer};
use super::destination::TargetId;
use super::message::{Action, ConnectionId, Job};
use super::withdraw::Purpose;
use crate::queue::Place;
use crate::route::order::Candidate;
use crate::throttle::{Answer, Grant, LaneName, Permit};
use crate::types::{DeliveryId, Timestamp};

/// An idle connection is kept this long for the next message.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// When others wait for its permit, a connection is given up after so many messages.
const SHARE_AFTER: u32 = 10;
/// Providers whose waiting targets are looked at when one permit comes back.
const PROVIDERS_FED: usize = 16;
/// Mail that waits for our name, or for a lane, is looked at again after this at the latest.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A connection, from the decision to open it until its socket is closed.
pub(super) struct Connection {
    pub target: TargetId,
    pub permit: Permit,
    pub candidate: Candidate,
    pub state: State,
    /// When the transaction, or the opening, began.
    pub started: Timestamp,
    pub skip_tls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Opening(DeliveryId),
    Busy(DeliveryId),
    Idle(Timestamp),
    Closing,
}

impl Connection {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle(_))
    }

    fn delivery(&self) -> Option<DeliveryId> {
        match self.state {
            State::Opening(id) | State::Busy(id) => Some(id),
            _ => None,
        }
    }
}

/// Why a delivery at the head of its line did not start.
pub(super) enum NotNow {
    /// When a permit comes back.
    Full(Arc<str>),
    At(Timestamp),
    /// We do not know our own name yet.
    Nameless,
    /// Every address has been tried.
    Exhausted,
}

impl Core {
    pub(super) fn pump_all(&mut self, now: Timestamp) {
        let targets: Vec<TargetId> = self.places.targets.iter().map(|(id, _)| id).collect();
        for target in targets {
            self.pump(target, now);
        }
    }

    pub(super) fn pump(&mut self, target: TargetId, now: Timestamp) {
        while !self.stopping && self.healthy {
            let Some(place) = self.places.targets.get(target) else { return };
            let provider = place.provider.clone();
            if place.line.is_empty() {
                self.hungry.remove(&(provider, target));
                return;
            }
            if let Some(connection) = self.take_idle(target) {
                if !self.use_idle(connection, target, now) {
                    return;
                }
                continue;
            }
            let Some(place) = self.places.targets.get(target) else { return };
            if let Some(until) = place.down_until.filter(|until| *until > now) {
                return self.look_again(target, until);
            }
            if place.suspect && place.open > 0 {
                return;
            }
            if place.open > 0 && !self.has_room(&provider, now) {
                return self.wait(target, NotNow::Full(provider), now);
            }
            let Some(id) = self.next_in_line(target, now) else { continue };
            if !self.open_or_wait(target, id, now) {
                return;
            }
        }
    }

    /// May one more connection be had? Asked under load after each message, so before anything is done for it.
    fn has_room(&self, provider: &Arc<str>, now: Timestamp) -> bool {
        self.sources.iter().any(|source| {
            let lane = LaneName { provider: provider.clone(), source: source.name.clone() };
            !self.throttle.is_used_up(&lane, now)
        })
    }

    /// Remembers when a target that cannot go on is to be looked at again.
    pub(super) fn wait(&mut self, target: TargetId, not_now: NotNow, now: Timestamp) {
        match not_now {
            NotNow::Full(provider) => {
                self.say_waits_for(target, Some("a connection"));
                self.make_room(&provider, target);
                self.hungry.insert((provider, target));
            }
            NotNow::At(until) => {
                self.say_waits_for(target, Some("the lane"));
                self.look_again(target, until);
            }
            NotNow::Nameless => {
                self.say_waits_for(target, Some("a public hostname (key `hostname`)"));
                self.look_again(target, now + LOOK_AGAIN);
            }
            NotNow::Exhausted => {}
        }
    }

    pub(super) fn say_waits_for(&mut self, target: TargetId, what: Option<&str>) {
        if let Some(place) = self.places.targets.get_mut(target)
            && place.waits_for.as_deref() != what
        {
            place.waits_for = what.map(Into::into);
        }
    }

    pub(super) fn look_again(&mut self, target: TargetId, at: Timestamp) {
        let Some(place) = self.places.targets.get_mut(target) else { return };
        match place.timer {
            Some(before) if before <= at => return,
            Some(before) => {
                place.timer = Some(at);
                self.clear_timer(before, Timer::Target(target));
            }
            None => place.timer = Some(at),
        }
        self.set_timer(at, Timer::Target(target));
    }

    /// The next delivery of the line that may go: known, not expired, its route still good, no other at its recipients.
    pub(super) fn next_in_line(&mut self, target: TargetId, now: Timestamp) -> Option<DeliveryId> {
        loop {
            let id = self.places.targets.get_mut(target)?.line.pop()?;
            let Some(entry) = self.queue.get(id).filter(|entry| entry.place == Place::Ready) else { continue };
            if now >= self.retry.expires(id.message, entry.lifetime) {
                self.settle_later(id, Purpose::Expire, now);
                continue;
            }
            let Some(domain) = self.places.domains.get_mut(entry.domain) else { continue };
            if domain.valid_until <= now {
                // Asked again before the attempt; it may lead elsewhere then.
                let domain_id = entry.domain;
                domain.pending.push(id);
                self.queue.put(id, Place::Unrouted);
                self.resolve(domain_id);
                continue;
            }
            if domain.target != Some(target) {
                self.queue.put(id, Place::Later(now));
                continue;
            }
            if !self.gate.enter(id, entry.recipients.as_slice()) {
                self.queue.put(id, Place::Parked);
                continue;
            }
            return Some(id);
        }
    }

    pub(super) fn back_to_line(&mut self, target: TargetId, id: DeliveryId) {
        self.queue.put(id, Place::Ready);
        if let Some(place) = self.places.targets.get_mut(target) {
            place.line.push_front(id);
        }
    }

    /// Lets those go on that waited for the recipients of `id`.
    pub(super) fn release_gate(&mut self, id: DeliveryId) {
        let Some(entry) = self.queue.get(id) else { return };
        let keys = entry.recipients.clone();
        let mut free = self.gate.leave(id, keys.as_slice());
        while let Some(next) = free.pop() {
            if !self.unpark(next) {
                // It has left meanwhile: whoever stands behind it must not wait for ever.
                free.extend(self.gate.pass_on(keys.as_slice()));
            }
        }
    }

    /// From behind the gate to the head of its line; false if it is not there any more.
    pub(super) fn unpark(&mut self, id: DeliveryId) -> bool {
        if !self.is_at(id, Place::Parked) {
            return false;
        }
        self.lead_line(id);
        true
    }

    /// To the head of the line of its target, which is looked at before this input is done with.
    pub(super) fn lead_line(&mut self, id: DeliveryId) {
        self.queue.put(id, Place::Ready);
        let target = self.target_of(id);
        match target.and_then(|target| self.places.targets.get_mut(target)) {
            Some(place) => place.line.push_front(id),
            None => {
                self.queue.put(id, Place::Later(id.message.received()));
            }
        }
        if let Some(target) = target {
            self.look_again(target, Timestamp::EPOCH);
        }
    }

    pub(super) fn target_of(&self, id: DeliveryId) -> Option<TargetId> {
        self.places.domains.get(self.queue.get(id)?.domain)?.target
    }

    /// An operator wants it tried now: a host that could not be reached is tried again.
    pub(super) fn wake_target_of(&mut self, id: DeliveryId) {
        let Some(target) = self.target_of(id) else { return };
        if let Some(place) = self.places.targets.get_mut(target) {
            place.down_until = None;
        }
        self.look_again(target, Timestamp::EPOCH);
    }

    fn take_idle(&mut self, target: TargetId) -> Option<ConnectionId> {
        let id = self.places.targets.get_mut(target)?.idle.pop()?;
        if let Some(State::Idle(since)) = self.connections.get(&id).map(|c| c.state) {
            self.clear_timer(since + IDLE_MAX, Timer::Idle(id));
        }
        Some(id)
    }

    /// Gives an idle connection its next transaction; false: the target cannot go on now.
    pub(super) fn use_idle(&mut self, connection: ConnectionId, target: TargetId, now: Timestamp) -> bool {
        let Some(id) = self.next_in_line(target, now) else {
            self.make_idle(connection, now);
            return true;
        };
        if self.attempts.get(&id).is_some_and(|attempt| !attempt.unable.is_empty()) {
            self.make_idle(connection, now);
            return self.open_or_wait(target, id, now);
        }
        let Some(held) = self.connections.get_mut(&connection) else { return true };
        match self.throttle.grant(&mut held.permit, now) {
            Answer::Granted(grant) => {
                held.state = State::Busy(id);
                held.started = now;
                let job = self.job(id, &grant, now);
                self.act(Action::Start { connection, job });
                true
            }
            Answer::Spent => {
                self.back_to_line(target, id);
                self.close(connection);
                true
            }
            Answer::At(until) => {
                self.back_to_line(target, id);
                self.close(connection);
                self.wait(target, NotNow::At(until), now);
                false
            }
            Answer::Full => {
                self.back_to_line(target, id);
                self.close(connection);
                let provider = self.places.targets.get(target).map(|t| t.provider.clone());
                self.wait(target, NotNow::Full(provider.unwrap_or_else(|| "".into())), now);
                false
            }
        }
    }

    fn make_idle(&mut self, connection: ConnectionId, now: Timestamp) {
        let Some(held) = self.connections.get_mut(&connection) else { return };
        held.state = State::Idle(now);
        if let Some(place) = self.places.targets.get_mut(held.target) {
            place.idle.push(connection);
        }
        self.set_timer(now + IDLE_MAX, Timer::Idle(connection));
    }

    pub(super) fn idle_too_long(&mut self, connection: ConnectionId) {
        if self.connections.get(&connection).is_some_and(Connection::is_idle) {
            self.close(connection);
        }
    }

    /// Says good-bye; the permit comes back with `Closed`.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        let Some(held) = self.connections.get_mut(&connection) else { return };
        if held.state == State::Closing {
            return;
        }
        if let State::Idle(since) = held.state {
            let target = held.target;
            self.timers_without_idle(connection, since);
            if let Some(place) = self.places.targets.get_mut(target) {
                place.idle.retain(|id| *id != connection);
            }
        }
        if let Some(held) = self.connections.get_mut(&connection) {
            held.state = State::Closing;
        }
        self.act(Action::Close { connection });
    }

    fn timers_without_idle(&mut self, connection: ConnectionId, since: Timestamp) {
        self.clear_timer(since + IDLE_MAX, Timer::Idle(connection));
    }

    /// Closes an idle connection of somebody else, where one holds the place that `target` needs.
    fn make_room(&mut self, provider: &Arc<str>, target: TargetId) {
        if self.queue.active() >= self.connections.len() {
            // Every connection has its delivery: under load nearly always, and found without a look at each.
            return;
        }
        let whole = self.throttle.is_full();
        let spare = self
            .connections
            .iter()
            .find(|(_, c)| c.is_idle() && c.target != target && (whole || c.permit.lane().provider == *provider))
            .map(|(id, _)| *id);
        if let Some(spare) = spare {
            self.close(spare);
        }
    }

    /// Does somebody without a connection wait for the place that `connection` holds?
    fn should_share(&self, connection: &Connection) -> bool {
        if connection.permit.messages() < SHARE_AFTER {
            return false;
        }
        let provider = &connection.permit.lane().provider;
        let waits = |(of, target): &(Arc<str>, TargetId)| {
            (self.throttle.is_full() || of == provider)
                && *target != connection.target
                && self.places.targets.get(*target).is_some_and(|t| t.open == 0 && !t.line.is_empty())
        };
        self.hungry.iter().any(waits)
    }

    /// The transaction for a delivery that starts now.
    pub(super) fn job(&mut self, id: DeliveryId, grant: &Grant, now: Timestamp) -> Job {
        self.queue.put(id, Place::Active);
        let attempts = self.queue.get(id).map_or(0, |entry| entry.attempts);
        let message = self.fresh.get(id.message).cloned();
        let attempt = self.attempts.entry(id).or_insert_with(Attempt::new);
        let recipients = attempt.goes_on().then(|| attempt.pending.clone());
        if attempts > 0 && recipients.is_none() && !attempt.planned {
            // Written before the try, so that a crash in the middle of it cannot hammer the receiver.
            attempt.planned = true;
            let next_attempt = self.next_attempt(id, attempts + 1, now);
            self.act(Action::Commit(vec![crate::spool::Change::Plan { id, next_attempt }]));
        }
        Job { id, message, recipients, recipients_max: grant.recipients }
    }

    /// A socket is closed: its permit may serve somebody else.
    pub(super) fn closed(&mut self, connection: ConnectionId, now: Timestamp) {
        let Some(held) = self.connections.remove(&connection) else { return };
        if let State::Idle(since) = held.state {
            self.timers_without_idle(connection, since);
            if let Some(place) = self.places.targets.get_mut(held.target) {
                place.idle.retain(|id| *id != connection);
            }
        }
        let (target, lost) = (held.target, held.delivery());
        self.give_back(held.permit, target, now);
        if let Some(id) = lost {
            // Its task ended without a report: nobody knows how far it came.
            self.settle_later(id, Purpose::Lost, now);
        }
    }

    pub(super) fn give_back(&mut self, permit: Permit, target: TargetId, now: Timestamp) {
        let provider = permit.lane().provider.clone();
        let was_full = self.throttle.is_full();
        self.throttle.release(permit);
        if let Some(place) = self.places.targets.get_mut(target) {
            place.open = place.open.saturating_sub(1);
        }
        self.feed_hungry(&provider, was_full, now);
        self.pump(target, now);
    }

    /// A permit came back: those that wait for one take turns. Only where all connections together had been at their
    /// limit can it serve another provider.
    pub(super) fn feed_hungry(&mut self, provider: &Arc<str>, was_full: bool, now: Timestamp) {
        self.feed_provider(provider, now);
        let mut turn = provider.clone();
        for _ in 0..PROVIDERS_FED {
            if !was_full || self.throttle.is_full() {
                return;
            }
            let behind = (Bound::Excluded((turn, TargetId::MAX)), Bound::Unbounded);
            let next = self.hungry.range(behind).next().or_else(|| self.hungry.first());
            let Some((next, _)) = next.cloned() else { return };
            self.feed_provider(&next, now);
            turn = next;
        }
    }

    /// The targets without a connection first, until one gets none.
    fn feed_provider(&mut self, provider: &Arc<str>, now: Timestamp) {
        while !self.throttle.is_full() {
            let waiting = || self.hungry.range((provider.clone(), 0)..=(provider.clone(), TargetId::MAX));
            let has_none = |(_, target): &&(Arc<str>, TargetId)| {
                self.places.targets.get(*target).is_none_or(|target| target.open == 0)
            };
            let Some(key) = waiting().find(has_none).or_else(|| waiting().next()).cloned() else { return };
            self.hungry.remove(&key);
            self.pump(key.1, now);
            if self.hungry.contains(&key) {
                return;
            }
        }
    }

    /// After a transaction: the next one, a rest, or the end of the connection.
    pub(super) fn go_on(&mut self, connection: ConnectionId, reusable: bool, now: Timestamp) {
        let Some(held) = self.connections.get_mut(&connection) else { return };
        let (target, candidate) = (held.target, held.candidate.clone());
        held.state = State::Idle(now);
        let preferred = self.is_preferred(target, &candidate, now);
        let shares = self.connections.get(&connection).is_some_and(|c| self.should_share(c));
        if !reusable || !preferred || self.stopping || shares {
            self.close(connection);
        } else {
            self.make_idle(connection, now);
        }
        self.pump(target, now);
    }
}
