//! The core of dispatch: inputs and the time go in, actions come out. Pure.
//!
//! It owns the queue, the throttle and the known routes, and nobody else has them. The way of a delivery through it:
//!
//! ```text
//! Later --due--> route known? --no--> Unrouted --Routed--> line of its target (Ready)
//! Ready --gate, permit, grant--> Active --Done--> settled, or Later again, or Ready with what is left
//! anything but Active --command, expiry, no route--> Settling --Fetched--> settled, Held or Later
//! ```
//!
//! Rules that always hold:
//! - an outcome is in a `Commit` before the delivery leaves the queue;
//! - a recipient whose reply was a 5xx is in no later job;
//! - a job is given out only with a grant, on a connection that holds a permit;
//! - no two jobs with the same recipient are out at once unless that recipient has accepted mail before.
//!
//! The parts: this file takes inputs and keeps the books; `pump` gives work to connections; `settle` turns what
//! receivers said into outcomes; `command` does what operators ask for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::attempt::Attempt;
use super::bdat::BdatHosts;
use super::command::Commands;
use super::destination::{Destinations, DomainId, TargetId};
use super::doubt::Doubts;
use super::errand::Errand;
use super::fresh::Fresh;
use super::gate::Gate;
use super::hello::Hellos;
use super::hungry::{Among, Hungry};
use super::listing::Listing;
use super::message::{Action, ConnectionId, Input, Row};
use super::options::Bounces;
use super::pump::Connection;
use super::senders::Senders;
use super::unreached::Unreached;
use super::waiting::Waits;
use super::withdraw::Purpose;
use crate::outbound::options::TlsMode;
use crate::queue::options::Queue as QueueOptions;
use crate::queue::{Entry, Place, Queue, RecipientKey, Retry};
use crate::route::order::FailureMemory;
use crate::route::port25::Port25Watcher;
use crate::route::{Route, Unroutable};
use crate::throttle::{LaneName, LaneRecord, Profiles, Throttle};
use crate::types::{DeliveryId, Domain, Mailbox, NextHop, QueueId, SCHEDULE_MAX, Timestamp};
use crate::verdict::Rules;

/// How often expiry is looked for among what is due and cannot go, and the unused is forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Reads from the spool that are under way at once.
const FETCHES_MAX: usize = 32;
/// Look-ups of routes that are under way at once.
const RESOLVING_MAX: usize = 400;
/// Up to here everything is kept in memory, whatever its time.
const MEMORY_EASY: usize = 200_000;
/// Beyond it, only what is due within this; the rest is read again when its time comes near.
const HORIZON: Duration = Duration::from_secs(20 * 60);
/// So many deliveries become due in one go; the others right after, and what else happens is heard in between.
const DUE_AT_ONCE: usize = 256;
/// The same for timers.
const TIMERS_AT_ONCE: usize = 256;
/// How often the spool is asked for what comes within the horizon.
const LOAD_EVERY: Duration = Duration::from_secs(10 * 60);
/// What lanes know, and what operators have ordered, is written again so often although nothing changes: the spool forgets
/// what nobody has written for weeks.
const SAVE_EVERY: Duration = Duration::from_secs(86_400);

/// One of our sending addresses.
#[derive(Clone, Debug)]
pub struct SourceAddress {
    pub name: Arc<str>,
    /// None: the system chooses.
    pub address: Option<IpAddr>,
    /// None: the relay's own name.
    pub helo: Option<Arc<str>>,
    /// Providers that know nothing of it yet: a daily allowance grows.
    pub warm_up: Vec<Arc<str>>,
}

impl SourceAddress {
    pub(super) fn lane(&self, provider: &Arc<str>) -> LaneName {
        LaneName { provider: provider.clone(), source: self.name.clone() }
    }
}

/// Gives the next queue id.
pub type IdSource = Arc<dyn Fn(Timestamp) -> QueueId + Send + Sync>;

/// What the core is made with.
pub struct Settings {
    pub sources: Vec<SourceAddress>,
    pub networks: Vec<IpNet>,
    pub tls: TlsMode,
    /// BDAT may be used where it is offered.
    pub chunking: bool,
    pub max_connections: usize,
    pub queue: QueueOptions,
    pub bounces: Bounces,
    pub postmaster: Option<Mailbox>,
    pub profiles: Profiles,
    pub rules: Rules,
    /// Gives out queue ids for reports.
    pub ids: IdSource,
    pub seed: u64,
}

pub struct Core {
    pub(super) sources: Vec<SourceAddress>,
    pub(super) networks: Vec<IpNet>,
    pub(super) tls: TlsMode,
    pub(super) chunking: bool,
    pub(super) bounces: Bounces,
    pub(super) postmaster: Option<Mailbox>,
    pub(super) rules: Rules,
    pub(super) ids: IdSource,
    pub(super) retry: Retry,
    pub(super) chance: fastrand::Rng,

    pub(super) throttle: Throttle,
    pub(super) queue: Queue,
    pub(super) places: Destinations,
    pub(super) gate: Gate,
    /// Refusals that the suppression list was told of, each with the event for the case that it puts the recipient there.
    pub(super) listings: BTreeMap<RecipientKey, VecDeque<Listing>>,
    pub(super) doubts: Doubts,
    pub(super) fresh: Fresh,
    pub(super) failing: FailureMemory,
    pub(super) port25: Port25Watcher,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    pub(super) attempts: BTreeMap<DeliveryId, Attempt>,
    pub(super) commands: Commands,
    pub(super) waits: Waits,
    pub(super) senders: Senders,
    /// Hosts that have asked for TLS.
    pub(super) tls_wanted: BTreeSet<Arc<str>>,
    pub(super) bdat: BdatHosts,
    pub(super) hellos: Hellos,
    /// How often each was refused in a row without an attempt being counted.
    pub(super) untouched: BTreeMap<DeliveryId, u8>,
    /// The sender whose message met the block.
    pub(super) blocked_by: BTreeMap<LaneName, u32>,
    pub(super) canaries: BTreeMap<LaneName, DeliveryId>,
    /// Blocked lanes that have nothing but urgent mail to ask with, and when one of it may be risked.
    pub(super) only_urgent: BTreeMap<LaneName, Timestamp>,
    /// What waits because mail like it is held back; an attempt was not planned for it.
    pub(super) held_back: BTreeSet<DeliveryId>,
    pub(super) unreached: Unreached,
    /// Alerts that end by themselves, and when.
    pub(super) ending_alerts: BTreeMap<String, Timestamp>,
    /// Alerts that stand, by key.
    pub(super) raised: BTreeSet<String>,
    /// When each of them began.
    pub(super) raised_at: BTreeMap<String, Timestamp>,
    pub(super) stopped_since: BTreeMap<LaneName, Timestamp>,
    pub(super) save_planned: bool,
    saved_all: Timestamp,
    pub(super) profile_names: BTreeSet<Arc<str>>,
    pub(super) hungry: Hungry,
    /// Providers that have taken a message, and greeted us ever since.
    pub(super) proven: BTreeSet<Arc<str>>,
    /// Connections to all others.
    pub(super) strangers: usize,
    /// Turns that targets were given.
    #[cfg(test)]
    pub(super) steps: usize,
    pub(super) source_turn: usize,
    pub(super) identity_known: bool,
    pub(super) helo: Arc<str>,
    pub(super) stopping: bool,
    pub(super) healthy: bool,

    /// Look-ups under way, and the domains whose turn comes when one of them is done.
    resolving: usize,
    to_resolve: VecDeque<DomainId>,
    /// Deliveries with a time to live of their own, by its end.
    short_lived: BTreeSet<(Timestamp, DeliveryId)>,
    /// Deliveries whose sender wants to hear when they are late, by when they are.
    pub(super) late: BTreeSet<(Timestamp, DeliveryId)>,
    fetching: BTreeMap<DeliveryId, Purpose>,
    to_fetch: VecDeque<(DeliveryId, Purpose)>,
    /// Reads from the spool under way, and what ended meanwhile.
    reading: usize,
    ended: BTreeSet<DeliveryId>,
    next_connection: ConnectionId,
    timers: BTreeSet<(Timestamp, Timer)>,
    actions: Vec<Action>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Target(TargetId),
    /// The next share of the mail that was put off while it could not be reached.
    Unreached(TargetId),
    Lane(LaneName),
    /// Those who wait for a connection of the provider.
    Feed(Arc<str>),
    /// Those who wait for any.
    FeedAmong(Among),
    Save,
    SaveRest,
    Errand(Errand),
    Idle(ConnectionId),
    /// A message is late whose sender wants to hear so.
    Late,
    Sweep,
    Load,
}

impl Core {
    pub fn new(settings: Settings, now: Timestamp) -> Core {
        let mut core = Core {
            sources: settings.sources,
            networks: settings.networks,
            tls: settings.tls,
            chunking: settings.chunking,
            bounces: settings.bounces,
            postmaster: settings.postmaster,
            rules: settings.rules,
            ids: settings.ids,
            retry: Retry::new(&settings.queue),
            chance: fastrand::Rng::with_seed(settings.seed),
            profile_names: names_of(&settings.profiles),
            throttle: Throttle::new(settings.profiles, settings.max_connections, settings.seed),
            queue: Queue::default(),
            places: Destinations::default(),
            gate: Gate::default(),
            listings: BTreeMap::new(),
            doubts: Doubts::default(),
            fresh: Fresh::default(),
            failing: FailureMemory::default(),
            port25: Port25Watcher::default(),
            connections: BTreeMap::new(),
            attempts: BTreeMap::new(),
            commands: Commands::default(),
            waits: Waits::default(),
            senders: Senders::default(),
            tls_wanted: BTreeSet::new(),
            bdat: BdatHosts::default(),
            hellos: Hellos::default(),
            untouched: BTreeMap::new(),
            blocked_by: BTreeMap::new(),
            canaries: BTreeMap::new(),
            only_urgent: BTreeMap::new(),
            held_back: BTreeSet::new(),
            unreached: Unreached::default(),
            ending_alerts: BTreeMap::new(),
            raised: BTreeSet::new(),
            raised_at: BTreeMap::new(),
            stopped_since: BTreeMap::new(),
            save_planned: false,
            saved_all: now,
            hungry: Hungry::default(),
            proven: BTreeSet::new(),
            strangers: 0,
            #[cfg(test)]
            steps: 0,
            source_turn: 0,
            identity_known: false,
            helo: "localhost".into(),
            stopping: false,
            healthy: true,
            resolving: 0,
            to_resolve: VecDeque::new(),
            short_lived: BTreeSet::new(),
            late: BTreeSet::new(),
            fetching: BTreeMap::new(),
            to_fetch: VecDeque::new(),
            reading: 0,
            ended: BTreeSet::new(),
            next_connection: 1,
            timers: BTreeSet::new(),
            actions: Vec::new(),
        };
        core.warm_up();
        core.set_timer(now + SWEEP_EVERY, Timer::Sweep);
        core.set_timer(now + LOAD_EVERY, Timer::Load);
        core
    }

    /// Takes back what lanes had learned before a restart; before the first input.
    pub fn restore(&mut self, records: Vec<LaneRecord>, now: Timestamp) {
        self.throttle.restore(records, now);
    }

    /// Takes new settings. What is learned stays; routes are asked for again.
    pub fn reconfigure(&mut self, settings: Settings, now: Timestamp) {
        self.profile_names = names_of(&settings.profiles);
        self.throttle.reconfigure(settings.profiles, settings.max_connections);
        self.sources = settings.sources;
        self.warm_up();
        self.networks = settings.networks;
        self.tls = settings.tls;
        self.chunking = settings.chunking;
        self.bounces = settings.bounces;
        self.postmaster = settings.postmaster;
        self.rules = settings.rules;
        self.retry = Retry::new(&settings.queue);
        self.places.expire_routes(now);
        self.log_in_again(now);
        self.hasten_all(now);
        self.pump_all(now);
        self.run_timers(now);
    }

    fn warm_up(&mut self) {
        let lane =
            |provider: &Arc<str>, source: &Arc<str>| LaneName { provider: provider.clone(), source: source.clone() };
        let lanes = self.sources.iter().flat_map(|s| s.warm_up.iter().map(|provider| lane(provider, &s.name)));
        self.throttle.warm_up(lanes.collect());
    }

    /// Takes one input. What is to be done about it is in `actions` afterwards.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Accepted(messages) => {
                for message in messages {
                    self.accept(Arc::new(message), now);
                }
            }
            Input::Loaded(rows) => {
                for row in rows {
                    self.load(row, now);
                }
            }
            Input::Unreached(ids) => ids.into_iter().for_each(|id| self.note_unreached(id)),
            Input::ReadBegin => self.reading += 1,
            Input::ReadEnd => self.read_end(),
            Input::Routed { domain, result } => self.routed(&domain, None, result, now),
            Input::HopRouted { domain, hop, result } => self.routed(&domain, Some(&hop), result, now),
            Input::Opened { connection, limits } => self.opened(connection, limits, now),
            Input::OpenFailed { connection, error } => self.open_failed(connection, error, now),
            Input::Done { connection, done } => self.done(connection, done, now),
            Input::Closed { connection } => self.closed(connection, now),
            Input::Fetched { id, stored } => self.fetched(id, stored, now),
            Input::Suppressed { key, listed } => self.suppressed(key, listed, now),
            Input::Command { ticket, adjust, rows } => self.command(ticket, adjust, rows, now),
            Input::Lane { ticket, provider, order } => self.order_lanes(ticket, &provider, order, now),
            Input::LaneDomain { ticket, domain, order } => self.order_domain(ticket, &domain, order, now),
            Input::HoldSender(hold) => self.hold_sender(&hold, now),
            Input::LaneAll { ticket, order } => self.order_all(ticket, order, now),
            Input::Forget { ticket, provider, source } => self.order_forget(ticket, &provider, source.as_deref(), now),
            Input::Reroute { ticket, to, rows } => self.reroute(ticket, &to, rows, now),
            Input::Identity { known, helo } => {
                self.identity_known = known;
                if self.helo != helo {
                    self.throttle.renamed(now);
                    self.hasten_all(now);
                }
                self.helo = helo;
                self.pump_all(now);
            }
            Input::SpoolHealth(healthy) => {
                self.healthy = healthy;
                if healthy {
                    self.hasten_all(now);
                    self.pump_all(now);
                }
            }
            Input::MemoryShort(short) => self.fresh.set_short(short),
            Input::ClockStepped { by_millis } => self.clock_stepped(by_millis, now),
            Input::Tick => {}
            Input::Stop => self.stop(now),
        }
        self.run_due(now);
        self.run_timers(now);
        self.answer_commands();
    }

    /// What is to be done, in this order.
    pub fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When `Tick` is needed at the latest.
    pub fn next_wake(&self) -> Timestamp {
        let timer = self.timers.first().map_or(Timestamp::NEVER, |(time, _)| *time);
        let due = if self.stopping { None } else { self.queue.next_due() };
        timer.min(due.unwrap_or(Timestamp::NEVER))
    }

    /// Everything that had begun has come to its end.
    pub fn is_quiet(&self) -> bool {
        self.connections.is_empty() && self.fetching.is_empty() && self.listings.is_empty()
    }

    fn accept(&mut self, message: Arc<crate::spool::Committed>, now: Timestamp) {
        let flow = super::flow_of(&message.envelope.sender);
        let sender_domain = self.senders.number(message.envelope.sender.mailbox().map(Mailbox::domain));
        // The walk through the spool may have met it first, and it may even have ended since.
        let is_new = |id: &DeliveryId| !self.ended.contains(id) && self.queue.get(*id).is_none();
        if message.deliveries.iter().all(|delivery| is_new(&delivery.id)) {
            self.fresh.insert(&message);
        }
        for delivery in &message.deliveries {
            if self.ended.contains(&delivery.id) {
                continue;
            }
            let domain = self.places.take_domain(&delivery.domain, delivery.next_hop.as_ref());
            let entry = Entry {
                // In the future where its sender asks for that.
                place: Place::Later(delivery.next_attempt.unwrap_or(now)),
                domain,
                flow,
                sender_domain,
                class: message.envelope.class,
                attempts: delivery.attempts,
                lifetime: super::lifetime_of(message.envelope.expire),
                delay_reported: delivery.delay_reported,
                hold_wanted: false,
                recipients: delivery.recipients.iter().map(|r| super::key_of(&r.address)).collect(),
            };
            self.enter(delivery.id, entry, message.envelope.requests.notifies_at(message.envelope.received));
        }
    }

    fn enter(&mut self, id: DeliveryId, entry: Entry, late_at: Option<Timestamp>) -> bool {
        let late_at = late_at.filter(|_| !entry.delay_reported);
        let (domain, lifetime) = (entry.domain, entry.lifetime);
        let is_new = self.queue.insert(id, entry);
        if !is_new {
            self.places.leave_domain(domain);
            return false;
        }
        if lifetime.is_some() {
            self.short_lived.insert((self.retry.expires(id.message, lifetime), id));
        }
        if let Some(at) = late_at {
            self.watch_lateness(id, at);
        }
        is_new
    }

    /// Takes a delivery that was read back. What is known, or ended since the reading began, is passed over.
    pub(super) fn load(&mut self, row: Row, now: Timestamp) -> bool {
        if self.ended.contains(&row.id) || self.queue.get(row.id).is_some() {
            return false;
        }
        // What was never tried and has a time was given it by its sender.
        let latest = now + if row.attempts == 0 { SCHEDULE_MAX } else { self.retry.longest() };
        let due = row.next_attempt.unwrap_or(now).clamp(now, latest);
        if row.next_attempt.is_some_and(|next| next > latest) {
            // Planned by a clock that was ahead. Written down, so that it is found when its time comes near.
            self.act(Action::Commit(vec![crate::spool::Change::Plan { id: row.id, next_attempt: due }]));
        }
        if !row.held && self.queue.len() >= MEMORY_EASY && due > now + HORIZON {
            return false;
        }
        let domain = self.places.take_domain(&row.domain, row.next_hop.as_ref());
        let sender_domain = self.senders.number(row.sender_domain.as_ref());
        let place = if row.held { Place::Held } else { Place::Later(due) };
        let entry = Entry {
            place,
            domain,
            flow: row.flow,
            sender_domain,
            class: row.class,
            attempts: row.attempts,
            lifetime: row.lifetime,
            delay_reported: row.delay_reported,
            hold_wanted: false,
            recipients: row.recipients,
        };
        self.enter(row.id, entry, row.late_at)
    }

    fn read_end(&mut self) {
        self.reading = self.reading.saturating_sub(1);
        if self.reading == 0 {
            self.ended.clear();
        }
    }

    fn run_due(&mut self, now: Timestamp) {
        if self.stopping {
            return;
        }
        let mut touched = Vec::new();
        let mut known = BTreeSet::new();
        for _ in 0..DUE_AT_ONCE {
            let Some(id) = self.queue.due(now) else { break };
            // In the order in which their mail was due.
            touched.extend(self.due(id, now).filter(|target| known.insert(*target)));
        }
        self.pump_in_turns(touched, now);
    }

    /// A delivery's time has come: to the line of its target if the way is known.
    fn due(&mut self, id: DeliveryId, now: Timestamp) -> Option<TargetId> {
        self.held_back.remove(&id);
        let entry = self.queue.get(id)?;
        if entry.recipients.as_slice().is_empty() {
            self.settle_later(id, Purpose::Ended, now);
            return None;
        }
        if now >= self.retry.expires(id.message, entry.lifetime) {
            self.settle_later(id, Purpose::Expire, now);
            return None;
        }
        let entry = self.queue.get(id)?;
        self.unreached.leave(entry.domain, id);
        let (domain_id, flow, class) = (entry.domain, entry.flow, entry.class);
        let waits_for_operator = self.throttle.everything_paused().is_some();
        let domain = self.places.domains.get_mut(domain_id)?;
        if now < domain.valid_until {
            if let Some(failure) = domain.failure.clone().filter(|_| !waits_for_operator) {
                self.settle_later(id, Purpose::Unroutable(failure), now);
                return None;
            }
            if let Some(target) = domain.target {
                self.queue.put(id, Place::Ready);
                self.places.targets.get_mut(target)?.line.push(class, flow, id);
                self.line_grew(target, class);
                return Some(target);
            }
        }
        self.queue.put(id, Place::Unrouted);
        domain.pending.push_back(id);
        self.resolve(domain_id);
        None
    }

    /// Asks for a domain's route, once however many deliveries wait for it.
    pub(super) fn resolve(&mut self, id: DomainId) {
        if self.is_set_aside(id) {
            return;
        }
        let Some(domain) = self.places.domains.get_mut(id).filter(|domain| !domain.resolving) else { return };
        domain.resolving = true;
        if self.resolving < RESOLVING_MAX {
            self.resolving += 1;
            self.ask_route(id);
        } else {
            self.to_resolve.push_back(id);
        }
    }

    fn ask_route(&mut self, id: DomainId) {
        let Some(domain) = self.places.domains.get_mut(id) else { return };
        let name = domain.name.clone();
        let afresh = std::mem::take(&mut domain.asks_afresh);
        let action = match domain.next_hop.clone() {
            Some(hop) => Action::ResolveHop { domain: name, hop },
            None if afresh => Action::ResolveAfresh(name),
            None => Action::Resolve(name),
        };
        self.act(action);
    }

    fn routed(&mut self, name: &Domain, hop: Option<&NextHop>, result: Result<Route, Unroutable>, now: Timestamp) {
        match self.to_resolve.pop_front() {
            Some(next) => self.ask_route(next),
            None => self.resolving = self.resolving.saturating_sub(1),
        }
        let Some(id) = self.places.domain_id(name, hop) else { return };
        let Some(domain) = self.places.domains.get_mut(id) else { return };
        domain.resolving = false;
        let is_paused = self.throttle.domain_paused(name).is_some();
        // While an operator has stopped everything nobody's mail is returned for want of a route.
        let is_kept = self.throttle.everything_paused().is_some();
        match result {
            _ if is_paused => {}
            Ok(route) => {
                let Some(target) = self.places.set_route(id, route) else { return };
                self.unreached.routed(id, Some(target));
                self.ask_domain_first(id, now);
                self.begin(Errand::Join(id), now);
            }
            Err(failure) => {
                let pending = if is_kept { VecDeque::new() } else { std::mem::take(&mut domain.pending) };
                let failure = Arc::new(failure);
                self.places.set_failure(id, failure.clone());
                self.unreached.routed(id, None);
                for delivery in pending.into_iter().filter(|d| self.is_at(*d, Place::Unrouted)).collect::<Vec<_>>() {
                    self.settle_later(delivery, Purpose::Unroutable(failure.clone()), now);
                }
            }
        }
    }

    /// From waiting for a route into the line of its target.
    pub(super) fn join_line(&mut self, id: DeliveryId, target: TargetId) {
        if !self.is_at(id, Place::Unrouted) {
            return;
        }
        let Some((flow, class)) = self.queue.get(id).map(|entry| (entry.flow, entry.class)) else { return };
        self.queue.put(id, Place::Ready);
        if let Some(place) = self.places.targets.get_mut(target) {
            place.line.push(class, flow, id);
            self.line_grew(target, class);
        }
    }

    /// Settles a delivery without a transaction, as soon as its content is at hand.
    pub(super) fn settle_later(&mut self, id: DeliveryId, purpose: Purpose, now: Timestamp) {
        self.release_gate(id);
        self.queue.put(id, Place::Settling);
        if let Some((stored, excerpt)) = self.at_hand(id) {
            self.settle_without_transaction(id, purpose, stored, excerpt, now);
        } else if self.fetching.len() < FETCHES_MAX {
            self.fetching.insert(id, purpose);
            self.act(Action::Fetch { id });
        } else {
            self.to_fetch.push_back((id, purpose));
        }
    }

    fn fetched(&mut self, id: DeliveryId, stored: Option<Box<super::message::Fetched>>, now: Timestamp) {
        let Some(purpose) = self.fetching.remove(&id) else { return };
        if let Some((next, purpose)) = self.to_fetch.pop_front() {
            self.fetching.insert(next, purpose);
            self.act(Action::Fetch { id: next });
        }
        match stored {
            Some(fetched) => {
                let super::message::Fetched { stored, excerpt } = *fetched;
                self.settle_without_transaction(id, purpose, stored, excerpt, now);
            }
            // Not in the spool any more; or not readable now, and the engine has the queue read again.
            None => {
                self.commands.settled(purpose.ticket(), id, false);
                self.forget(id);
            }
        }
    }

    /// Takes a delivery out of the queue.
    pub(super) fn forget(&mut self, id: DeliveryId) {
        self.release_gate(id);
        self.attempts.remove(&id);
        self.untouched.remove(&id);
        self.held_back.remove(&id);
        if let Some(entry) = self.queue.remove(id) {
            self.unreached.leave(entry.domain, id);
            self.places.leave_domain(entry.domain);
        }
        self.fresh.leave(id.message);
        if self.reading > 0 {
            self.ended.insert(id);
        }
    }

    /// When a delivery is tried again after so many deferrals.
    pub(super) fn next_attempt(&mut self, id: DeliveryId, attempts: u32, now: Timestamp) -> Timestamp {
        let lifetime = self.queue.get(id).and_then(|entry| entry.lifetime);
        self.retry.next(id.message, lifetime, attempts, now, &mut self.chance)
    }

    /// The same where the receiver's reply asks for a wait of the delivery's own.
    pub(super) fn own_attempt(&mut self, id: DeliveryId, attempts: u32, wait: Duration, now: Timestamp) -> Timestamp {
        let lifetime = self.queue.get(id).and_then(|entry| entry.lifetime);
        self.retry.own(id.message, lifetime, attempts, wait, now, &mut self.chance)
    }

    /// Puts a delivery off until `next`; one far off leaves the memory when that is well filled.
    pub(super) fn put_off(&mut self, id: DeliveryId, next: Timestamp, now: Timestamp) {
        self.release_gate(id);
        self.attempts.remove(&id);
        self.untouched.remove(&id);
        self.fresh.leave(id.message);
        self.queue.put(id, Place::Later(next));
        if self.queue.len() > MEMORY_EASY
            && next > now + HORIZON
            && let Some(entry) = self.queue.remove(id)
        {
            self.places.leave_domain(entry.domain);
        }
    }

    pub(super) fn is_at(&self, id: DeliveryId, place: Place) -> bool {
        self.queue.get(id).is_some_and(|entry| entry.place == place)
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn new_connection_id(&mut self) -> ConnectionId {
        self.next_connection += 1;
        self.next_connection
    }

    pub(super) fn set_timer(&mut self, at: Timestamp, timer: Timer) {
        self.timers.insert((at, timer));
    }

    pub(super) fn clear_timer(&mut self, at: Timestamp, timer: Timer) {
        self.timers.remove(&(at, timer));
    }

    #[cfg(test)]
    pub(super) fn has_timer(&self, at: Timestamp, timer: Timer) -> bool {
        self.timers.contains(&(at, timer))
    }

    #[cfg(test)]
    pub(super) fn has_timer_of(&self, timer: Timer) -> bool {
        self.timers.iter().any(|(_, other)| *other == timer)
    }

    /// Addresses on the public Internet need a name that others can check; our own networks do not.
    pub(super) fn may_leave_to(&self, address: SocketAddr, fixed: bool) -> bool {
        self.identity_known || fixed || self.networks.iter().any(|net| net.contains(&address.ip()))
    }

    fn run_timers(&mut self, now: Timestamp) {
        for _ in 0..TIMERS_AT_ONCE {
            if self.timers.first().is_none_or(|(at, _)| *at > now) {
                return;
            }
            let Some((_, timer)) = self.timers.pop_first() else { return };
            match timer {
                Timer::Target(id) => {
                    if let Some(target) = self.places.targets.get_mut(id) {
                        target.timer = None;
                        self.pump_now(id, now);
                    }
                }
                Timer::Unreached(id) => self.wake_unreached(id, now),
                Timer::Lane(lane) => self.lane_wakes(&lane, now),
                Timer::FeedAmong(among) => self.feed_among(among, now),
                Timer::Feed(provider) => self.feed_provider(&provider, now),
                Timer::Save => {
                    self.save_planned = false;
                    self.save(now);
                }
                Timer::SaveRest => self.save(now),
                Timer::Errand(errand) => self.go_on_errand(errand, now),
                Timer::Idle(id) => self.idle_too_long(id),
                Timer::Late => self.tell_late(now),
                Timer::Sweep => self.sweep(now),
                Timer::Load => {
                    self.set_timer(now + LOAD_EVERY, Timer::Load);
                    if !self.stopping {
                        self.act(Action::Load { until: now + HORIZON });
                    }
                }
            }
        }
    }

    /// Finds what has expired while it could not go, and forgets what is not used.
    fn sweep(&mut self, now: Timestamp) {
        self.set_timer(now + SWEEP_EVERY, Timer::Sweep);
        // Ids rise with the time of acceptance; only those with a time of their own stand elsewhere.
        let old = self.queue.iter().take_while(|(id, _)| self.retry.expires(id.message, None) <= now).map(|(id, _)| id);
        let later = self.short_lived.split_off(&(now + Duration::from_millis(1), DeliveryId::FIRST));
        let short = std::mem::replace(&mut self.short_lived, later);
        let candidates: Vec<DeliveryId> = old.chain(short.into_iter().map(|(_, id)| id)).collect();
        for id in candidates {
            let is_over = |entry: &Entry| {
                matches!(entry.place, Place::Ready | Place::Unrouted | Place::Parked)
                    && self.retry.expires(id.message, entry.lifetime) <= now
            };
            if self.queue.get(id).is_some_and(is_over) {
                self.settle_later(id, Purpose::Expire, now);
            }
        }
        self.places.sweep(now);
        self.watch_logins();
        self.gate.sweep(now);
        self.hellos.sweep(now);
        self.sweep_proven();
        self.throttle.sweep(now);
        self.watch(now);
        if now.since(self.saved_all) >= SAVE_EVERY {
            self.saved_all = now;
            self.save(now);
        }
    }

    /// The wall clock was set: what is to come is as far away as before.
    ///
    /// Forward, deliveries are due sooner, as after a standstill; promises to receivers keep their length both ways.
    fn clock_stepped(&mut self, by_millis: i64, now: Timestamp) {
        self.throttle.shift(by_millis);
        self.places.shift(by_millis);
        self.failing.shift(by_millis);
        self.hellos.shift(by_millis);
        let alerts = self.ending_alerts.values_mut().chain(self.raised_at.values_mut());
        let alerts = alerts.chain(self.stopped_since.values_mut());
        let starts = self.connections.values_mut().map(|connection| &mut connection.started);
        alerts.chain(starts).chain([&mut self.saved_all]).for_each(|at| *at = at.shifted(by_millis));
        if by_millis < 0 {
            self.queue.shift(by_millis);
            // Each timer is looked at now, and finds out what is left of its time.
            let timers = std::mem::take(&mut self.timers);
            self.timers = timers.into_iter().map(|(_, timer)| (now, timer)).collect();
            self.act(Action::LoadAll);
        }
        let direction = if by_millis < 0 { "back" } else { "forward" };
        let by = Duration::from_millis(by_millis.unsigned_abs());
        self.act(Action::Warn(format!(
            "the clock was set {direction} by {} s: what waits moves with it",
            by.as_secs()
        )));
    }

    fn stop(&mut self, now: Timestamp) {
        self.stopping = true;
        self.save_all(now);
        let idle: Vec<ConnectionId> = self.connections.iter().filter(|(_, c)| c.is_idle()).map(|(id, _)| *id).collect();
        for id in idle {
            self.close(id);
        }
    }
}

fn names_of(profiles: &Profiles) -> BTreeSet<Arc<str>> {
    profiles.iter().map(|profile| profile.name.clone()).collect()
}
