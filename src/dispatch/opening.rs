//! Opens connections: which address of a route is tried next, with whose permit, and what it means when it fails.
//!
//! A connection is opened for one delivery. If it cannot be, the delivery goes on to the next address of its route at
//! once, with a permit of that host's provider; only when all have been tried is it deferred, and the target is down
//! until that delivery's next attempt. What else stands in the line waits and counts no attempt. Nor does the delivery
//! itself where the receiver spoke of our address or of the connection: that slows the lane, not the message.

use std::time::Duration;

use super::alarm::PORT_KEY;
use super::attempt::{Attempt, Said};
use super::core::{Core, Timer};
use super::destination::TargetId;
use super::message::{Action, ConnectionId};
use super::pump::{Connection, NotNow, State, Told};
use super::strangers::NoPlace;
use super::withdraw::Purpose;
use super::{hello, lanes};
use crate::outbound::{Hello, OpenError, OpenStage, Plan, Security};
use crate::route::Route;
use crate::route::order::{Candidate, candidates};
use crate::route::port25::Connect;
use crate::throttle::{About, Answer, Grant, LaneName, Permit, Probe, Signal};
use crate::types::{DeliveryId, NamedLimits, Priority, Reading, Scope, Stage, Timestamp, Verdict};

/// Refusals in a row for which a delivery counts no attempt although no lane waits for them.
const UNTOUCHED_MAX: u8 = 2;

/// Hosts that cannot be reached are tried again after this at the latest.
const DOWN_MAX: Duration = Duration::from_secs(1800);

/// Messages in the line of such hosts that are kept no longer to be sent at once, in each class: the first to come are those.
const FRESH_LET_GO: usize = 100;

/// A permit with its first grant, and the source it belongs to.
struct Granted {
    source: usize,
    permit: Permit,
    grant: Grant,
    probes: bool,
}

impl Core {
    /// Opens a connection for the delivery at the head of the line; false: the target cannot go on now, and the delivery
    /// stands in the line as before.
    pub(super) fn open_or_wait(&mut self, target: TargetId, id: DeliveryId, told: Told, now: Timestamp) -> bool {
        match self.open(target, id, told, None, now) {
            Ok(()) => self.say_waits_for(target, None),
            Err(NotNow::Exhausted) => {
                self.take(target, id);
                self.unreachable(target, id, now);
            }
            Err(not_now) => {
                self.wait(target, not_now, now);
                return false;
            }
        }
        true
    }

    /// Begins an attempt, or goes on with it, on a new connection; takes the delivery out of the line if that succeeds.
    /// `only`: from this lane, as its probe.
    pub(super) fn open(
        &mut self,
        target: TargetId,
        id: DeliveryId,
        mut told: Told,
        only: Option<&LaneName>,
        now: Timestamp,
    ) -> Result<(), NotNow> {
        let Some(place) = self.places.targets.get(target) else { return Err(NotNow::Exhausted) };
        let (route, provider) = (place.route.clone(), place.provider.clone());
        let class = self.queue.get(id).map(|entry| entry.class).unwrap_or_default();
        match self.no_place(target, class) {
            None => {}
            Some(NoPlace::Ungreeted) => return Err(NotNow::Ungreeted),
            Some(NoPlace::Strangers | NoPlace::Whole) => return Err(NotNow::Told(told.crowded(provider))),
        }
        let begun = self.attempts.get(&id).filter(|attempt| !attempt.candidates.is_empty());
        let (list, mut next) = match begun {
            Some(attempt) => (attempt.candidates.clone(), attempt.next),
            None => (candidates(&route, self.places.targets.get(target).map_or(0, |t| t.turn), &self.failing, now), 0),
        };
        let mut skipped = Vec::new();
        while let Some(candidate) = list.get(next) {
            if !self.may_leave_to(candidate.address, route.fixed) {
                return Err(NotNow::Nameless);
            }
            let guarded = self.is_guarded(&route, candidate);
            let granted = match self.permit_for(candidate, guarded, self.offered(id), &mut told, only, now) {
                Some(granted) => granted,
                None if told.is_nothing() => {
                    skipped.push(no_source(candidate));
                    next += 1;
                    continue;
                }
                None => return Err(NotNow::Told(told)),
            };
            self.remember_candidates(target, id, list.clone(), next, skipped);
            let security = self.security(&route, candidate);
            self.open_to(target, id, candidate.clone(), security, granted, now);
            return Ok(());
        }
        self.remember_candidates(target, id, list, next, skipped);
        Err(NotNow::Exhausted)
    }

    fn remember_candidates(
        &mut self,
        target: TargetId,
        id: DeliveryId,
        list: Vec<Candidate>,
        next: usize,
        skipped: Vec<Said>,
    ) {
        let attempt = self.attempts.entry(id).or_insert_with(Attempt::new);
        if attempt.candidates.is_empty()
            && let Some(place) = self.places.targets.get_mut(target)
        {
            place.turn += 1;
        }
        attempt.candidates = list;
        attempt.next = next;
        attempt.said.extend(skipped);
    }

    fn open_to(
        &mut self,
        target: TargetId,
        id: DeliveryId,
        candidate: Candidate,
        security: Security,
        granted: Granted,
        now: Timestamp,
    ) {
        self.take(target, id);
        let Granted { source, permit, grant, probes } = granted;
        let less = self.attempts.get(&id).and_then(|attempt| attempt.hello);
        let asked = self.required(security.clone(), &candidate.name);
        let hello = less.unwrap_or_else(|| self.hellos.first(&candidate.name, asked.tls, now));
        let plan = self.plan(&candidate, asked, source, hello, self.greeting_wait(target));
        let connection = self.new_connection_id();
        self.takes_place(target, &permit.lane().provider);
        let job = self.job(id, permit.lane(), &candidate.name, &grant, now);
        let state = State::Opening(id);
        let held = Connection {
            target,
            permit,
            candidate,
            state,
            since: now,
            started: now,
            security,
            hello,
            fell_back: less.is_some(),
            recalled: false,
            probes,
        };
        self.connections.insert(connection, held);
        self.act(Action::Open { connection, plan, job });
    }

    /// First contact and growth guard are for receivers of the public Internet and for hops that stand for one.
    fn is_guarded(&self, route: &Route, candidate: &Candidate) -> bool {
        let is_own_hop = route.fixed && !route.limits_named;
        !is_own_hop && !self.networks.iter().any(|net| net.contains(&candidate.address.ip()))
    }

    /// A permit and a grant from the next source in turn that fits. None: the others have told why, or, where nothing was
    /// told, no source can reach the address.
    fn permit_for(
        &mut self,
        candidate: &Candidate,
        guarded: bool,
        recipients: usize,
        told: &mut Told,
        only: Option<&LaneName>,
        now: Timestamp,
    ) -> Option<Granted> {
        for step in 0..self.sources.len() {
            let index = (self.source_turn + step) % self.sources.len();
            let source = &self.sources[index];
            let lane = LaneName { provider: candidate.provider.clone(), source: source.name.clone() };
            let other_family = source.address.is_some_and(|own| own.is_ipv4() != candidate.address.is_ipv4());
            let wrong_family = candidate.address.is_ipv6() && self.throttle.wants_ipv4(&lane, now);
            if other_family || wrong_family || only.is_some_and(|only| *only != lane) || told.by(&lane) {
                continue;
            }
            let probe = self.throttle.probe(&lane, now);
            if only.is_none() && matches!(probe, Some(Probe::Expendable | Probe::OtherSender)) {
                // Which delivery goes is not for the line to say.
                let at = self.waits.probe_time(&lane, now);
                told.until(&lane, at);
                continue;
            }
            match self.throttle.permit(&lane, guarded, now) {
                Answer::Granted(mut permit) => match self.throttle.grant(&mut permit, recipients, now) {
                    Answer::Granted(grant) => {
                        self.source_turn = index + 1;
                        return Some(Granted { source: index, permit, grant, probes: probe.is_some() });
                    }
                    answer => {
                        self.throttle.release(permit);
                        match answer {
                            Answer::At(until) => told.until(&lane, until),
                            _ => told.full(&lane),
                        }
                    }
                },
                Answer::At(until) => told.until(&lane, until),
                Answer::Rests(until) => {
                    told.rests(&lane);
                    self.set_timer(until, Timer::Feed(lane.provider.clone()));
                }
                Answer::Full | Answer::Spent => told.full(&lane),
            }
        }
        None
    }

    fn plan(&self, candidate: &Candidate, security: Security, source: usize, hello: Hello, greeting: Duration) -> Plan {
        let source = &self.sources[source];
        Plan {
            host: candidate.name.clone(),
            address: candidate.address,
            bind: source.address,
            helo: source.helo.clone().unwrap_or_else(|| self.helo.clone()),
            security,
            hello,
            greeting,
        }
    }

    pub(super) fn opened(&mut self, connection: ConnectionId, limits: NamedLimits, now: Timestamp) {
        let Some(held) = self.connections.get_mut(&connection) else { return };
        let (target, candidate, has_login) = (held.target, held.candidate.clone(), held.security.login.is_some());
        if held.fell_back {
            self.hellos.note(&candidate.name, held.hello, now);
        }
        if let State::Opening(id) = held.state {
            held.state = State::Busy(id);
            held.started = now;
            self.throttle.let_in(&mut held.permit, limits);
            // Where the attempt goes on at another host, that one has shown nothing yet.
            if let Some(attempt) = self.attempts.get_mut(&id) {
                attempt.hello = None;
            }
            self.is_greeted(target);
        }
        self.failing.succeeded(candidate.address);
        self.see_port(&candidate, Connect::Succeeded, now);
        if let Some(place) = self.places.targets.get_mut(target) {
            place.down_until = None;
            place.suspect = false;
            place.failures = 0;
        }
        if has_login {
            self.logged_in(target, &candidate, now);
        }
        self.is_reached(target, now);
        // Others may have waited for this greeting.
        self.pump(target, now);
    }

    /// No connection came to be: on to the next address, or give the attempt up.
    pub(super) fn open_failed(&mut self, connection: ConnectionId, error: OpenError, now: Timestamp) {
        let Some(held) = self.connections.remove(&connection) else { return };
        let Connection { target, permit, candidate, state, started, security, hello, probes, .. } = held;
        let id = match state {
            State::Opening(id) | State::Busy(id) => id,
            State::Idle(_) | State::Closing => {
                if state == State::Closing {
                    self.hungry.closed(&permit.lane().provider);
                }
                self.give_back(permit, target, now);
                return;
            }
        };
        if matches!(state, State::Opening(_)) {
            self.is_greeted(target);
        }
        self.was_silent(&permit.lane().provider, &error);
        let verdict = self.read_open_error(id, &permit, &candidate, &error, started, now);
        let lane = permit.lane().clone();
        let was_full = self.is_crowded(Priority::Normal);
        self.throttle.release(permit);
        self.leaves_place(target, &lane.provider, now);
        self.note_failure(&candidate, &error, now);
        let mode = self.required(security.clone(), &candidate.name).tls;
        let less = hello::next(hello, mode, error.stage);
        let tls_again = less.is_some();
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.hello = less;
            match verdict {
                _ if tls_again => {}
                // The lane is stopped, whichever address is tried: all of them are new when it opens.
                Next::Wait => attempt.candidates.clear(),
                _ => attempt.failed(&candidate, &error, verdict),
            }
        }
        self.back_to_line(target, id);
        if let (Next::Login, Some(login)) = (verdict, &security.login) {
            self.login_refused(target, &candidate, login, &error, now);
        }
        match verdict {
            Next::Wait if !tls_again => {
                self.due_at_next_start(id, now);
                self.forget_fresh_attempt(id);
            }
            Next::Final | Next::Login if !tls_again => {
                self.take(target, id);
                self.unreachable(target, id, now);
            }
            _ => {
                self.open_or_wait(target, id, Told::default(), now);
            }
        }
        if probes {
            self.hasten(&lane.provider, now);
        }
        self.pump(target, now);
        self.feed_hungry(&lane.provider, was_full, now);
    }

    /// An attempt of which nothing has happened yet is begun anew when its turn comes.
    pub(super) fn forget_fresh_attempt(&mut self, id: DeliveryId) {
        if self.attempts.get(&id).is_some_and(|attempt| !attempt.goes_on()) {
            self.attempts.remove(&id);
        }
    }

    fn note_failure(&mut self, candidate: &Candidate, error: &OpenError, now: Timestamp) {
        if error.stage == OpenStage::Ours {
            return;
        }
        if !matches!(error.stage, OpenStage::Tls | OpenStage::Handshake | OpenStage::Login) {
            self.failing.failed(candidate.address, now);
        }
        let outcome = match error.stage {
            OpenStage::Connect => Connect::Failed,
            OpenStage::ConnectTimeout => Connect::TimedOut,
            _ => Connect::Succeeded,
        };
        self.see_port(candidate, outcome, now);
    }

    fn see_port(&mut self, candidate: &Candidate, outcome: Connect, now: Timestamp) {
        let (address, provider) = (candidate.address, &candidate.provider);
        if let Some(text) = self.port25.observe(address.ip(), address.port(), provider, outcome) {
            self.act(Action::Warn(text));
        }
        if self.port25.is_shut() != self.raised.contains(PORT_KEY) {
            self.watch_port(now);
        }
    }

    /// What a failed opening means for the delivery, and for the lane.
    fn read_open_error(
        &mut self,
        id: DeliveryId,
        permit: &Permit,
        candidate: &Candidate,
        error: &OpenError,
        started: Timestamp,
        now: Timestamp,
    ) -> Next {
        if error.stage == OpenStage::Ours {
            // It was waited out for long already, and no other address would help.
            return Next::Wait;
        }
        if error.stage == OpenStage::Login {
            // What is said of our log-in is said of no message and of no address.
            return Next::Login;
        }
        let Some(reply) = &error.reply else { return Next::Address };
        let stage = if error.stage == OpenStage::Greeting { Stage::Connect } else { Stage::Ehlo };
        let reading = self.rules.read(&candidate.provider, stage, reply);
        let text = reply.to_string();
        let signal = Signal::Refused { reading: &reading, reply: &text, started, about: About::default() };
        let flow = self.queue.get(id).map(|entry| entry.flow);
        let said = lanes::Said { reply: &text, reading: &reading, flow };
        let waits = self.tell_lane(permit.lane(), &signal, Some(said), now);
        self.obey(permit.lane(), &candidate.name, &reading);
        if error.stage == OpenStage::Tls {
            return Next::Address;
        }
        // No message was offered: what is said of our address or our name here returns none.
        if self.stands_back(id, &reading, waits) || waits || reading.breaker {
            return Next::Wait;
        }
        match reply.is_permanent() && stage == Stage::Connect && reading.scope != Scope::Source {
            true if self.throttle.is_microsoft(&candidate.provider) => Next::Final,
            true => Next::Host,
            // At EHLO it is about our name, not about the message.
            false => Next::Address,
        }
    }

    /// Is the delivery as if it had not been offered?
    ///
    /// Where the throttle has a wait for the refusal (`waits`), however often it comes; else, where the receiver spoke of our address
    /// or the connection, only some times in a row: whoever always says so must not see one message again and again.
    pub(super) fn stands_back(&mut self, id: DeliveryId, reading: &Reading, waits: bool) -> bool {
        if reading.verdict != Verdict::Retry {
            return false;
        }
        if waits || !matches!(reading.scope, Scope::Source | Scope::Connection) {
            return waits;
        }
        let times = self.untouched.entry(id).or_insert(0);
        *times += 1;
        *times <= UNTOUCHED_MAX
    }

    /// Every address has been tried in vain: this delivery is deferred (or returned), the others of the line wait.
    pub(super) fn unreachable(&mut self, target: TargetId, id: DeliveryId, now: Timestamp) {
        let said = self.attempts.get_mut(&id).map(|attempt| std::mem::take(&mut attempt.said)).unwrap_or_default();
        let is_final = !said.is_empty() && said.iter().all(|s| s.permanent);
        self.settle_later(id, Purpose::Unreachable { said, is_final }, now);
        if is_final {
            return;
        }
        self.is_lost(target);
        // The others need not find out one by one, nor hosts that are gone be asked as often as mail for them is due.
        let Some(place) = self.places.targets.get_mut(target) else { return };
        place.suspect = true;
        place.failures = place.failures.saturating_add(1);
        let again = self.retry.hosts(place.failures, DOWN_MAX, now, &mut self.chance);
        place.down_until = Some(again);
        place.line.shrink();
        // What waits for long is read from the spool when its time comes.
        let first = Priority::ALL.iter().flat_map(|class| place.line.iter(*class).take(FRESH_LET_GO));
        first.for_each(|id| self.fresh.remove(id.message));
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
    /// Nowhere for now: the hop does not let us in.
    Login,
    /// Back to the line: it is the lane that is stopped, or we could open nothing.
    Wait,
}

fn no_source(candidate: &Candidate) -> Said {
    let text = format!("no [[source]] has an address of the family of {}", candidate.address.ip());
    Said { mx: candidate.name.clone(), text, reply: None, permanent: false, is_login: false }
}
