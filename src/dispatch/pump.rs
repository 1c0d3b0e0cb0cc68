//! Gives what is due to connections.
//!
//! ```text
//! pump(target), unless it waits for a lane's time:
//!   while something stands in the line:
//!     an idle connection of the target?  -> grant for the head of the line -> start
//!     else a permit of the throttle?     -> grant -> open, with the delivery bound to it
//!     else                               -> looked at again when a permit comes back, or at the lane's time
//! ```
//!
//! The grant is asked for before anything is touched: what is not granted stands in the line as before, and an idle
//! connection stays open as long as it may be idle.
//!
//! How a connection is opened is told in `opening`, how targets wait for a lane in `waiting`, for a connection in `hungry`.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::Attempt;
use super::core::{Core, Timer};
use super::destination::TargetId;
use super::errand::Errand;
use super::message::{Action, ConnectionId, Job};
use super::withdraw::Purpose;
use crate::outbound::{Hello, Security};
use crate::queue::Place;
use crate::route::order::Candidate;
use crate::throttle::{Answer, Grant, LaneName, Permit, Probe};
use crate::types::{DeliveryId, Priority, Timestamp};

/// An idle connection is kept this long for the next message.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Mail that waits for our name, or for a lane, is looked at again after this at the latest.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// So many deliveries at the head of a line are found to belong elsewhere in one go; the others right after.
const SET_ASIDE_MAX: usize = 512;
const SET_ASIDE_AGAIN: Duration = Duration::from_millis(1);
/// Mail that is held back rests at least this long.
const HOLD_MIN: Duration = Duration::from_secs(1);

/// A connection, from the decision to open it until its socket is closed.
pub(super) struct Connection {
    pub target: TargetId,
    pub permit: Permit,
    pub candidate: Candidate,
    pub state: State,
    /// When its opening began.
    pub since: Timestamp,
    /// When the transaction, or the opening, began.
    pub started: Timestamp,
    /// What it was opened as.
    pub security: Security,
    /// What was offered, and whether that was less than at first because more had failed.
    pub hello: Hello,
    pub fell_back: bool,
    /// It has been told to close before its dialogue began.
    pub recalled: bool,
    /// Its transaction asks whether the way is free again.
    pub probes: bool,
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
    /// What the throttle said.
    Told(Told),
    /// We do not know our own name yet.
    Nameless,
    /// Its connections on their way are to be greeted first; each of them looks at the target again.
    Ungreeted,
    /// Every address has been tried.
    Exhausted,
}

/// What the lanes that a delivery could use have answered.
#[derive(Debug, Default)]
pub(super) struct Told {
    lanes: Vec<LaneName>,
    /// The soonest time that was named, and by whom.
    at: Option<(LaneName, Timestamp)>,
    /// Somebody must give something back.
    full: Option<Arc<str>>,
    /// That somebody gives something back does not help: no new connection is opened for a while.
    rests: bool,
}

impl Told {
    pub(super) fn until(&mut self, lane: &LaneName, until: Timestamp) {
        self.lanes.push(lane.clone());
        if self.at.as_ref().is_none_or(|(_, soonest)| until < *soonest) {
            self.at = Some((lane.clone(), until));
        }
    }

    pub(super) fn full(&mut self, lane: &LaneName) {
        self.lanes.push(lane.clone());
        self.full = Some(lane.provider.clone());
    }

    pub(super) fn rests(&mut self, lane: &LaneName) {
        self.full(lane);
        self.rests = true;
    }

    /// There is no place for it, whatever the lanes say.
    pub(super) fn crowded(mut self, provider: Arc<str>) -> Told {
        self.full = Some(provider);
        self
    }

    pub(super) fn by(&self, lane: &LaneName) -> bool {
        self.lanes.contains(lane)
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.at.is_none() && self.full.is_none()
    }
}

impl Core {
    pub(super) fn may_begin(&self) -> bool {
        !self.stopping && self.healthy
    }

    /// Everything that is due gets its turn, a part of it at once.
    pub(super) fn pump_all(&mut self, now: Timestamp) {
        self.begin(Errand::Pump { only_urgent: true, from: 0 }, now);
    }

    /// As `pump` for each, the urgent mail of all first, and one delivery of each before a second one of any.
    pub(super) fn pump_in_turns(&mut self, targets: Vec<TargetId>, now: Timestamp) {
        self.pump_class_in_turns(targets.clone(), Some(Priority::High), now);
        self.pump_class_in_turns(targets, None, now);
    }

    /// None: all classes.
    pub(super) fn pump_class_in_turns(&mut self, mut waiting: Vec<TargetId>, class: Option<Priority>, now: Timestamp) {
        while self.may_begin() && !waiting.is_empty() {
            waiting.retain(|target| !self.is_told(*target) && self.step_of(*target, class, now));
        }
    }

    /// Gives out what can go, unless the target has been told when.
    pub(super) fn pump(&mut self, target: TargetId, now: Timestamp) {
        if !self.is_told(target) {
            self.pump_now(target, now);
        }
    }

    /// Does it stand where it will be looked at of itself?
    fn is_told(&self, target: TargetId) -> bool {
        self.places.targets.get(target).is_some_and(|place| {
            place.waits_in.as_ref().is_some_and(|lane| self.lane_has_time(lane) || place.hungry.is_some())
        })
    }

    pub(super) fn pump_now(&mut self, target: TargetId, now: Timestamp) {
        while self.may_begin() && self.step(target, now) {}
    }

    /// Starts the delivery at the head of the line; false: the target cannot go on now.
    pub(super) fn step(&mut self, target: TargetId, now: Timestamp) -> bool {
        self.step_of(target, None, now)
    }

    /// The same with that which is next in one class.
    pub(super) fn step_of(&mut self, target: TargetId, class: Option<Priority>, now: Timestamp) -> bool {
        #[cfg(test)]
        {
            self.steps += 1;
        }
        let Some(id) = self.head(target, class, now) else {
            if self.places.targets.get(target).is_some_and(|place| place.line.is_empty()) {
                self.sated(target);
            }
            return false;
        };
        let mut told = Told::default();
        let needs_another_host = self.attempts.get(&id).is_some_and(|attempt| !attempt.unable.is_empty());
        if !needs_another_host && self.start_on_idle(target, id, &mut told, now) {
            return true;
        }
        let Some(place) = self.places.targets.get(target) else { return false };
        let provider = place.provider.clone();
        if let Some(until) = place.down_until.filter(|until| *until > now) {
            self.look_again(target, until);
            return false;
        }
        if place.suspect && place.open > 0 {
            return false;
        }
        if place.open > 0 && !self.has_room(&provider, now) {
            told.full = Some(provider);
            self.wait(target, NotNow::Told(told), now);
            return false;
        }
        self.open_or_wait(target, id, told, now)
    }

    /// Recipients that the next transaction of a delivery would offer.
    pub(super) fn offered(&self, id: DeliveryId) -> usize {
        match self.attempts.get(&id).filter(|attempt| attempt.goes_on()) {
            Some(attempt) => attempt.pending.len(),
            None => self.queue.get(id).map_or(1, |entry| entry.recipients.as_slice().len()),
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
            NotNow::Told(Told { at, full, rests, .. }) => {
                let what = if at.is_some() { "the lane" } else { "a connection" };
                self.say_waits_for(target, Some(what));
                if let Some(provider) = full {
                    if at.is_none() && !rests {
                        self.make_room(&provider, target);
                    }
                    self.hunger(target, &provider);
                }
                if let Some((lane, until)) = at {
                    self.wait_in_lane(target, &lane, until, now);
                }
            }
            NotNow::Nameless => {
                self.say_waits_for(target, Some("a public hostname (key `hostname`)"));
                self.look_again(target, now + LOOK_AGAIN);
            }
            NotNow::Ungreeted => self.say_waits_for(target, Some("the greeting of its host")),
            NotNow::Exhausted => {}
        }
    }

    pub(super) fn say_waits_for(&mut self, target: TargetId, what: Option<&'static str>) {
        if let Some(place) = self.places.targets.get_mut(target) {
            place.waits_for = what;
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

    /// The delivery at the head of the line, which stays there: known, not expired, its route still good, not held back, no other
    /// at its recipients. What is none of that goes where it belongs.
    /// `wanted`: within one class.
    fn head(&mut self, target: TargetId, wanted: Option<Priority>, now: Timestamp) -> Option<DeliveryId> {
        for _ in 0..SET_ASIDE_MAX {
            let place = self.places.targets.get_mut(target)?;
            let class = wanted.or_else(|| place.line.next_class())?;
            let id = place.line.peek_of(class)?;
            let Some(entry) = self.queue.get(id).filter(|entry| entry.place == Place::Ready) else {
                place.line.pop_of(class);
                continue;
            };
            let domain = self.places.domains.get(entry.domain);
            let is_here = domain.is_some_and(|domain| domain.target == Some(target));
            let is_known = domain.is_some_and(|domain| domain.valid_until > now);
            let rest = self.gate.rests_until(entry.recipients.as_slice(), now);
            let hold = self.held_until(target, entry.sender_domain, entry.domain, now).max(rest);
            let is_free = self.gate.is_open(id, entry.recipients.as_slice());
            if is_here && is_known && hold.is_none() && is_free && !self.is_over(id, now) {
                return Some(id);
            }
            if let Some(place) = self.places.targets.get_mut(target) {
                place.line.pop_of(class);
            }
            self.set_aside(id, is_here, is_known, hold, now);
        }
        self.look_again(target, now + SET_ASIDE_AGAIN);
        None
    }

    pub(super) fn is_over(&self, id: DeliveryId, now: Timestamp) -> bool {
        self.queue.get(id).is_some_and(|entry| now >= self.retry.expires(id.message, entry.lifetime))
    }

    /// From the head of its line to where it has to wait instead.
    fn set_aside(&mut self, id: DeliveryId, is_here: bool, is_known: bool, hold: Option<Timestamp>, now: Timestamp) {
        if self.is_over(id, now) {
            return self.settle_later(id, Purpose::Expire, now);
        }
        let Some(domain_id) = self.queue.get(id).map(|entry| entry.domain) else { return };
        if !is_known {
            // Asked again before the attempt; it may lead elsewhere then.
            let Some(domain) = self.places.domains.get_mut(domain_id) else { return };
            domain.pending.push_back(id);
            self.queue.put(id, Place::Unrouted);
            self.resolve(domain_id);
        } else if !is_here {
            self.queue.put(id, Place::Later(now));
        } else if let Some(until) = hold {
            // Counts no attempt, and is in memory alone: the hold, or the mailbox's limit, is known again after a restart.
            self.release_gate(id);
            let Some(entry) = self.queue.get(id) else { return };
            let expires = self.retry.expires(id.message, entry.lifetime);
            if self.gate.rests_until(entry.recipients.as_slice(), now).is_none() {
                self.held_back.insert(id);
            }
            self.queue.put(id, Place::Later(until.min(expires).max(now + HOLD_MIN)));
        } else {
            let Some(entry) = self.queue.get(id) else { return };
            self.gate.enter(id, entry.recipients.as_slice());
            self.queue.put(id, Place::Parked);
        }
    }

    /// Takes the delivery that `head` showed, or one that was chosen, out of its line.
    pub(super) fn take(&mut self, target: TargetId, id: DeliveryId) {
        let Some(entry) = self.queue.get(id) else { return };
        self.gate.enter(id, entry.recipients.as_slice());
        let Some(place) = self.places.targets.get_mut(target) else { return };
        if place.line.peek_of(entry.class) == Some(id) {
            place.line.pop_of(entry.class);
        } else {
            place.line.remove(entry.class, id);
        }
    }

    pub(super) fn back_to_line(&mut self, target: TargetId, id: DeliveryId) {
        self.queue.put(id, Place::Ready);
        let class = self.queue.get(id).map(|entry| entry.class).unwrap_or_default();
        if let Some(place) = self.places.targets.get_mut(target) {
            place.line.put_back(class, id);
            self.line_grew(target, class);
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
        let class = self.queue.get(id).map(|entry| entry.class).unwrap_or_default();
        match target.and_then(|target| Some((target, self.places.targets.get_mut(target)?))) {
            Some((target, place)) => {
                place.line.put_back(class, id);
                self.line_grew(target, class);
                self.look_again(target, Timestamp::EPOCH);
            }
            None => {
                self.queue.put(id, Place::Later(id.message.received()));
            }
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

    /// Starts the delivery on an idle connection of the target, one whose lane lets it go.
    fn start_on_idle(&mut self, target: TargetId, id: DeliveryId, told: &mut Told, now: Timestamp) -> bool {
        let recipients = self.offered(id);
        let mut place = self.places.targets.get(target).map_or(0, |place| place.idle.len());
        while place > 0 && told.lanes.len() < self.sources.len() {
            place -= 1;
            let idle = self.places.targets.get(target).and_then(|target| target.idle.get(place).copied());
            let Some(connection) = idle else { continue };
            if !self.connections.get(&connection).is_some_and(|held| self.is_secure(held)) {
                self.close(connection);
                continue;
            }
            let Some(held) = self.connections.get_mut(&connection) else { continue };
            let lane = held.permit.lane();
            if told.by(lane) {
                continue;
            }
            let lane = lane.clone();
            let probe = self.throttle.probe(&lane, now);
            if matches!(probe, Some(Probe::Expendable | Probe::OtherSender)) {
                let at = self.waits.probe_time(&lane, now);
                told.until(&lane, at);
                continue;
            }
            match self.throttle.grant(&mut held.permit, recipients, now) {
                Answer::Granted(grant) => {
                    held.probes = probe.is_some();
                    self.start(connection, target, id, &grant, now);
                    return true;
                }
                Answer::Spent => self.close(connection),
                Answer::At(until) => told.until(&lane, until),
                Answer::Full => told.full(&lane),
                Answer::Rests(_) => told.rests(&lane),
            }
        }
        false
    }

    fn start(&mut self, connection: ConnectionId, target: TargetId, id: DeliveryId, grant: &Grant, now: Timestamp) {
        self.take(target, id);
        self.say_waits_for(target, None);
        let Some(held) = self.connections.get_mut(&connection) else { return };
        let before = std::mem::replace(&mut held.state, State::Busy(id));
        held.started = now;
        let (lane, host) = (held.permit.lane().clone(), held.candidate.name.clone());
        if let State::Idle(since) = before {
            self.timers_without_idle(connection, since);
        }
        if let Some(place) = self.places.targets.get_mut(target) {
            place.idle.retain(|other| *other != connection);
        }
        let job = self.job(id, &lane, &host, grant, now);
        self.act(Action::Start { connection, job });
    }

    fn make_idle(&mut self, connection: ConnectionId, now: Timestamp) {
        let Some(held) = self.connections.get_mut(&connection) else { return };
        held.state = State::Idle(now);
        if let Some(place) = self.places.targets.get_mut(held.target) {
            place.idle.push(connection);
            let target = held.target;
            if std::mem::take(&mut place.lacks) {
                self.stand_in_lane(target);
            }
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
        let Some(held) = self.connections.get_mut(&connection) else { return };
        held.state = State::Closing;
        self.throttle.leaves(&mut held.permit);
        self.hungry.closes(&held.permit.lane().provider);
        if !std::mem::replace(&mut held.recalled, true) {
            self.act(Action::Close { connection });
        }
    }

    /// Calls back an opening: its delivery comes back untouched if the dialogue about it has not begun.
    pub(super) fn recall(&mut self, connection: ConnectionId) {
        if let Some(held) = self.connections.get_mut(&connection)
            && !std::mem::replace(&mut held.recalled, true)
        {
            self.act(Action::Close { connection });
        }
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
        let whole = self.is_crowded(Priority::Normal);
        let spare = self
            .connections
            .iter()
            .find(|(_, c)| c.is_idle() && c.target != target && (whole || c.permit.lane().provider == *provider))
            .map(|(id, _)| *id);
        if let Some(spare) = spare {
            self.close(spare);
        }
    }

    /// The transaction for a delivery that starts now.
    pub(super) fn job(&mut self, id: DeliveryId, lane: &LaneName, host: &str, grant: &Grant, now: Timestamp) -> Job {
        self.goes_ahead(id, lane, now);
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
        let chunking = self.chunking && self.throttle.profile(&lane.provider).chunking && self.bdat.may_have(host);
        Job { id, message, recipients, recipients_max: grant.recipients, chunking }
    }

    /// A socket is closed: its permit may serve somebody else.
    pub(super) fn closed(&mut self, connection: ConnectionId, now: Timestamp) {
        let Some(held) = self.connections.remove(&connection) else { return };
        if matches!(held.state, State::Opening(_)) {
            self.is_greeted(held.target);
        }
        if held.state == State::Closing {
            self.hungry.closed(&held.permit.lane().provider);
        }
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
        let was_full = self.is_crowded(Priority::Normal);
        self.throttle.release(permit);
        self.leaves_place(target, &provider, now);
        self.feed_hungry(&provider, was_full, now);
        self.pump(target, now);
    }

    /// After a transaction: the next one, a rest, or the end of the connection.
    pub(super) fn go_on(&mut self, connection: ConnectionId, reusable: bool, now: Timestamp) {
        let Some(held) = self.connections.get_mut(&connection) else { return };
        let (target, candidate, lane) = (held.target, held.candidate.clone(), held.permit.lane().clone());
        held.state = State::Idle(now);
        let (probed, recalled) = (std::mem::take(&mut held.probes), held.recalled);
        let preferred = self.is_preferred(target, &candidate, now);
        let shares = self.connections.get(&connection).is_some_and(|c| self.should_share(c, now));
        let is_secure = self.connections.get(&connection).is_some_and(|c| self.is_secure(c));
        if !reusable || recalled || !is_secure || !preferred || self.stopping || shares {
            self.close(connection);
        } else {
            self.make_idle(connection, now);
        }
        if probed {
            // Others wait for what it found out.
            self.hasten(&lane.provider, now);
        }
        self.share_room(&lane, now);
        // Whoever waits for this very lane has been told when.
        let told = self.places.targets.get(target).is_some_and(|place| place.waits_in.as_ref() == Some(&lane));
        if !told || !self.lane_has_time(&lane) {
            self.pump_now(target, now);
        }
    }
}
