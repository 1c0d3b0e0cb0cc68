//! Opens connections: which address of a route is tried next, with whose permit, and what it means when it fails.
//!
//! A connection is opened for one delivery. If it cannot be, the delivery goes on to the next address of its route at
//! once, with a permit of that host's provider; only when all have been tried is it deferred, and the target is down
//! until that delivery's next attempt. What else stands in the line waits and counts no attempt.

use super::attempt::{Attempt, Said};
use super::core::Core;
use super::destination::TargetId;
use super::message::{Action, ConnectionId};
use super::pump::{Connection, LOOK_AGAIN, NotNow, State};
use super::withdraw::Purpose;
use crate::outbound::options::TlsMode;
use crate::outbound::{OpenError, OpenStage, Plan};
use crate::queue::Place;
use crate::route::order::{Candidate, candidates};
use crate::route::port25::Connect;
use crate::throttle::{Answer, Grant, LaneName, Permit, Signal};
use crate::types::{DeliveryId, Scope, Stage, Timestamp};

impl Core {
    /// Opens a connection for the delivery; false: the target cannot go on now, and the delivery is back in the line.
    pub(super) fn open_or_wait(&mut self, target: TargetId, id: DeliveryId, now: Timestamp) -> bool {
        match self.open(target, id, now) {
            Ok(()) => self.say_waits_for(target, None),
            Err(NotNow::Exhausted) => self.unreachable(target, id, now),
            Err(not_now) => {
                self.back_to_line(target, id);
                self.wait(target, not_now, now);
                return false;
            }
        }
        true
    }

    /// Begins an attempt, or goes on with it, on a new connection.
    pub(super) fn open(&mut self, target: TargetId, id: DeliveryId, now: Timestamp) -> Result<(), NotNow> {
        let Some(place) = self.places.targets.get_mut(target) else { return Err(NotNow::Exhausted) };
        let route = place.route.clone();
        if self.attempts.get(&id).is_none_or(|attempt| attempt.candidates.is_empty()) {
            let turn = place.turn;
            place.turn += 1;
            let list = candidates(&route, turn, &self.failing, now);
            let attempt = self.attempts.entry(id).or_insert_with(Attempt::new);
            attempt.candidates = list;
            attempt.next = 0;
        }
        loop {
            let Some(attempt) = self.attempts.get(&id) else { return Err(NotNow::Exhausted) };
            let Some(candidate) = attempt.candidates.get(attempt.next).cloned() else { return Err(NotNow::Exhausted) };
            if !self.may_leave_to(candidate.address, route.fixed) {
                return Err(NotNow::Nameless);
            }
            let (source, permit, grant) = match self.permit_for(&candidate, now) {
                Ok(Some(granted)) => granted,
                Ok(None) => {
                    self.skip_candidate(id, &candidate);
                    continue;
                }
                Err(not_now) => return Err(not_now),
            };
            let plan = self.plan(&candidate, source, attempt_skips_tls(self.attempts.get(&id)));
            let skip_tls = plan.skip_tls;
            let connection = self.new_connection_id();
            let job = self.job(id, &grant, now);
            let held = Connection { target, permit, candidate, state: State::Opening(id), started: now, skip_tls };
            self.connections.insert(connection, held);
            if let Some(place) = self.places.targets.get_mut(target) {
                place.open += 1;
            }
            self.act(Action::Open { connection, plan, job });
            return Ok(());
        }
    }

    fn skip_candidate(&mut self, id: DeliveryId, candidate: &Candidate) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.next += 1;
            let text = format!("no [[source]] has an address of the family of {}", candidate.address.ip());
            attempt.said.push(Said { mx: candidate.name.clone(), text, reply: None, permanent: false });
        }
    }

    /// A permit and a grant from the next source in turn that fits; none if no source has the address family.
    fn permit_for(&mut self, candidate: &Candidate, now: Timestamp) -> Result<Option<(usize, Permit, Grant)>, NotNow> {
        let mut not_now = None;
        for step in 0..self.sources.len() {
            let index = (self.source_turn + step) % self.sources.len();
            let source = &self.sources[index];
            if source.address.is_some_and(|own| own.is_ipv4() != candidate.address.is_ipv4()) {
                continue;
            }
            let lane = LaneName { provider: candidate.provider.clone(), source: source.name.clone() };
            match self.throttle.permit(&lane, now) {
                Answer::Granted(mut permit) => match self.throttle.grant(&mut permit, now) {
                    Answer::Granted(grant) => {
                        self.source_turn = index + 1;
                        return Ok(Some((index, permit, grant)));
                    }
                    _ => {
                        self.throttle.release(permit);
                        not_now = Some(NotNow::Full(candidate.provider.clone()));
                    }
                },
                Answer::At(until) if !matches!(not_now, Some(NotNow::Full(_))) => {
                    let soonest = match not_now {
                        Some(NotNow::At(before)) => until.min(before),
                        _ => until,
                    };
                    not_now = Some(NotNow::At(soonest));
                }
                Answer::At(_) => {}
                Answer::Full | Answer::Spent => not_now = Some(NotNow::Full(candidate.provider.clone())),
            }
        }
        not_now.map_or(Ok(None), Err)
    }

    fn plan(&self, candidate: &Candidate, source: usize, skip_tls: bool) -> Plan {
        let source = &self.sources[source];
        Plan {
            host: candidate.name.clone(),
            address: candidate.address,
            bind: source.address,
            helo: source.helo.clone().unwrap_or_else(|| self.helo.clone()),
            tls: self.tls,
            skip_tls,
        }
    }

    pub(super) fn opened(&mut self, connection: ConnectionId, now: Timestamp) {
        let Some(held) = self.connections.get_mut(&connection) else { return };
        if let State::Opening(id) = held.state {
            held.state = State::Busy(id);
            held.started = now;
        }
        let (target, candidate) = (held.target, held.candidate.clone());
        self.failing.succeeded(candidate.address);
        self.watch_port(&candidate, Connect::Succeeded);
        if let Some(place) = self.places.targets.get_mut(target) {
            place.down_until = None;
            if std::mem::take(&mut place.suspect) {
                self.pump(target, now);
            }
        }
    }

    /// No connection came to be: on to the next address, or give the attempt up.
    pub(super) fn open_failed(&mut self, connection: ConnectionId, error: OpenError, now: Timestamp) {
        let Some(held) = self.connections.remove(&connection) else { return };
        let Connection { target, permit, candidate, state, started, skip_tls } = held;
        let id = match state {
            State::Opening(id) | State::Busy(id) => id,
            _ => {
                self.give_back(permit, target, now);
                return;
            }
        };
        let verdict = self.read_open_error(&permit, &candidate, &error, started, now);
        let was_full = self.throttle.is_full();
        self.throttle.release(permit);
        if let Some(place) = self.places.targets.get_mut(target) {
            place.open = place.open.saturating_sub(1);
        }
        self.note_failure(&candidate, &error, now);
        let tls_again = error.stage == OpenStage::Tls && self.tls == TlsMode::Opportunistic && !skip_tls;
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.skip_tls = tls_again;
            match verdict {
                _ if tls_again => {}
                // The lane is stopped, whichever address is tried: all of them are new when it opens.
                Next::Wait => attempt.candidates.clear(),
                _ => attempt.failed(&candidate, &error, verdict),
            }
        }
        self.queue.put(id, Place::Ready);
        match verdict {
            Next::Wait if !tls_again => self.back_to_line(target, id),
            Next::Final | Next::Later if !tls_again => self.unreachable(target, id, now),
            _ => {
                self.open_or_wait(target, id, now);
            }
        }
        self.pump(target, now);
        self.feed_hungry(&candidate.provider, was_full, now);
    }

    fn note_failure(&mut self, candidate: &Candidate, error: &OpenError, now: Timestamp) {
        if error.stage != OpenStage::Tls {
            self.failing.failed(candidate.address, now);
        }
        self.watch_port(
            candidate,
            match error.stage {
                OpenStage::Connect => Connect::Failed,
                OpenStage::ConnectTimeout => Connect::TimedOut,
                _ => Connect::Succeeded,
            },
        );
    }

    fn watch_port(&mut self, candidate: &Candidate, outcome: Connect) {
        let (address, provider) = (candidate.address, &candidate.provider);
        if let Some(text) = self.port25.observe(address.ip(), address.port(), provider, outcome) {
            self.act(Action::Warn(text));
        }
    }

    /// What a failed opening means for the delivery, and for the lane.
    fn read_open_error(
        &mut self,
        permit: &Permit,
        candidate: &Candidate,
        error: &OpenError,
        started: Timestamp,
        now: Timestamp,
    ) -> Next {
        let Some(reply) = &error.reply else { return Next::Address };
        let stage = if error.stage == OpenStage::Greeting { Stage::Connect } else { Stage::Ehlo };
        let reading = self.rules.read(&candidate.provider, stage, reply);
        let text = reply.to_string();
        let signal = Signal::Refused { reading: &reading, reply: &text, started };
        self.tell_lane(permit.lane().clone(), &signal, Some(&reading), now);
        if error.stage == OpenStage::Tls {
            return Next::Address;
        }
        if stage == Stage::Ehlo {
            // About our name, not about the message.
            return if reading.breaker { Next::Wait } else { Next::Address };
        }
        match (reply.is_permanent(), reading.scope) {
            (true, _) if self.throttle.is_microsoft(&candidate.provider) => Next::Final,
            (true, _) => Next::Host,
            // It is we who are too many or too fast: another address of the same receiver would hear the same.
            (false, Scope::Source) => Next::Later,
            (false, _) => Next::Address,
        }
    }

    /// Every address has been tried in vain: this delivery is deferred (or returned), the others of the line wait.
    pub(super) fn unreachable(&mut self, target: TargetId, id: DeliveryId, now: Timestamp) {
        let said = self.attempts.get_mut(&id).map(|attempt| std::mem::take(&mut attempt.said)).unwrap_or_default();
        let is_final = !said.is_empty() && said.iter().all(|s| s.permanent);
        self.settle_later(id, Purpose::Unreachable { said, is_final }, now);
        if is_final {
            return;
        }
        // The others need not find out one by one.
        let again = match self.queue.get(id).map(|entry| entry.place) {
            Some(Place::Later(next)) => next,
            _ => now + LOOK_AGAIN,
        };
        if let Some(place) = self.places.targets.get_mut(target) {
            place.suspect = true;
            place.down_until = Some(again);
        }
        self.look_again(target, again);
    }

    /// Would another delivery be sent to this host now? A connection made as a fall-back is for nobody else as long as
    /// a better host can be reached.
    pub(super) fn is_preferred(&self, target: TargetId, candidate: &Candidate, now: Timestamp) -> bool {
        let Some(place) = self.places.targets.get(target) else { return false };
        let rank = |name: &str| place.route.hosts.iter().find(|host| &*host.name == name).map(|host| host.preference);
        let own = rank(&candidate.name);
        own.is_some()
            && place.provider == candidate.provider
            && (own == place.route.hosts.first().map(|host| host.preference)
                || candidates(&place.route, 0, &self.failing, now).first().and_then(|best| rank(&best.name)) == own)
    }
}

/// Where a delivery goes after a failed opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next address.
    Address,
    /// The next host: this one has said no, whichever of its addresses.
    Host,
    /// Nowhere: the refusal is final.
    Final,
    /// Nowhere for now.
    Later,
    /// Back to the line: it is the lane that is stopped.
    Wait,
}

fn attempt_skips_tls(attempt: Option<&Attempt>) -> bool {
    attempt.is_some_and(|attempt| attempt.skip_tls)
}
