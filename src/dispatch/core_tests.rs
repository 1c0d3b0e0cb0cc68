//! The core against a simulated world: random receivers, faults and delays, days of mail in milliseconds.
//!
//! The world carries the core's actions out at random later moments and keeps its own books. What must always hold is
//! checked at each step and at the end; a failure prints the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, Settings, SourceAddress};
use super::doubt::Relist;
use super::message::*;
use super::options::Bounces;
use crate::outbound::options::TlsMode;
use crate::outbound::{Bdat, OpenError, OpenStage, Outcome};
use crate::queue::options::Queue as QueueOptions;
use crate::route::{Host, Route, Unroutable};
use crate::spool::{Change, Committed, Stored};
use crate::throttle::Profiles;
use crate::throttle::options::ProviderOptions;
use crate::types::*;
use crate::verdict::Rules;

const CEILING: usize = 7;

/// What the world knows of a message.
pub(super) struct Message {
    pub(super) envelope: Arc<Envelope>,
    body: Body,
    pub(super) deliveries: BTreeMap<DeliveryId, Delivery>,
}

pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: Timestamp,
    pub(super) chance: fastrand::Rng,
    pub(super) ids: Arc<QueueIds>,
    /// What will be said to the core, and when.
    pub(super) coming: BTreeMap<(Timestamp, u64), Input>,
    pub(super) sequence: u64,
    pub(super) spool: BTreeMap<QueueId, Message>,
    pub(super) open: BTreeMap<ConnectionId, Open>,
    pub(super) peak: usize,
    pub(super) suppressed: BTreeSet<String>,
    /// Recipients whose reply was a 5xx, or a 2xx, by message.
    pub(super) settled: BTreeSet<(QueueId, String)>,
    pub(super) ends: BTreeMap<(QueueId, String), usize>,
    pub(super) deferrals: usize,
    pub(super) expired: usize,
    pub(super) rcpts: BTreeMap<String, usize>,
    pub(super) in_flight: BTreeMap<String, ConnectionId>,
    pub(super) proven: BTreeSet<String>,
    pub(super) answers: Vec<(Ticket, usize)>,
    pub(super) lane_answers: Vec<Result<Vec<String>, String>>,
    pub(super) alerts: Vec<Alert>,
    /// What domains ask for of themselves.
    pub(super) demands: BTreeMap<Domain, crate::route::Demand>,
    pub(super) mood: Mood,
    /// So many connections cannot be opened because we have no descriptor for them.
    pub(super) short: usize,
    /// What every receiver says at this stage.
    pub(super) script: Option<(Stage, &'static str)>,
    /// What is said to RCPT about single mailboxes.
    pub(super) says: BTreeMap<String, &'static str>,
    /// Messages in the order in which they were offered.
    pub(super) log: Vec<QueueId>,
    pub(super) plans: Vec<crate::outbound::Plan>,
    /// Next attempts that were written, and each try with what was written for the case that it does not end.
    planned: BTreeMap<DeliveryId, Timestamp>,
    pub(super) tries: Vec<(Timestamp, QueueId, Option<Timestamp>)>,
    pub(super) resolved_afresh: usize,
    pub(super) remembered: usize,
    /// The newest record of each lane.
    pub(super) records: BTreeMap<crate::throttle::LaneName, crate::throttle::LaneRecord>,
    pub(super) last_remembered: Vec<crate::throttle::LaneRecord>,
    /// Nobody listens there.
    pub(super) dead_hosts: BTreeSet<Arc<str>>,
    /// How every host takes BDAT; none: as it should.
    pub(super) bdat: Option<Bdat>,
    /// Whether each job might use it.
    pub(super) chunked: Vec<bool>,
    /// Domains whose hosts take the connection and say nothing, by how they begin.
    pub(super) silent: Option<&'static str>,
    /// Changes of lanes, as the event log has them.
    pub(super) events: Vec<EventKind>,
    /// Actions carried out, and changes of deliveries written.
    pub(super) acts: usize,
    pub(super) updates: usize,
    pub(super) ticks: usize,
    /// After each step it is looked whether something is forgotten; costs a pass over everything.
    pub(super) checks: bool,
}

pub(super) struct Open {
    recipients: Vec<String>,
    closing: bool,
}

/// How the receivers behave.
#[derive(Clone, Copy)]
pub(super) struct Mood {
    pub(super) refuse_connect: f64,
    pub(super) greet_badly: f64,
    pub(super) defer: f64,
    pub(super) drop: f64,
    pub(super) unknown: f64,
    pub(super) too_many: f64,
    pub(super) no_route: f64,
    pub(super) doubt: f64,
}

pub(super) const CALM: Mood = Mood {
    refuse_connect: 0.0,
    greet_badly: 0.0,
    defer: 0.0,
    drop: 0.0,
    unknown: 0.0,
    too_many: 0.0,
    no_route: 0.0,
    doubt: 0.0,
};
const STORMY: Mood = Mood {
    refuse_connect: 0.1,
    greet_badly: 0.05,
    defer: 0.15,
    drop: 0.05,
    unknown: 0.1,
    too_many: 0.1,
    no_route: 0.05,
    doubt: 0.05,
};

pub(super) fn start() -> Timestamp {
    Timestamp::from_secs(1_800_000_000)
}

/// A message of one recipient with a content of so many bytes.
pub(super) fn committed(key: i64, bytes: usize) -> Committed {
    let mut world = World::new(1, CALM);
    world.submit("", &["u@a.test"]);
    let Some((_, Input::Accepted(mut messages))) = world.coming.pop_first() else { panic!("it was just handed in") };
    let mut message = messages.remove(0);
    let id = QueueId::from_key(key).unwrap();
    message.envelope = Arc::new(Envelope { id, ..(*message.envelope).clone() });
    message.deliveries[0].id = DeliveryId { message: id, part: 0 };
    message.body = Body::Inline(vec![b'x'; bytes].into());
    message
}

impl World {
    pub(super) fn new(seed: u64, mood: Mood) -> World {
        World::with(seed, mood, Vec::new())
    }

    /// With these profiles beside the usual ones.
    pub(super) fn with(seed: u64, mood: Mood, profiles: Vec<ProviderOptions>) -> World {
        World::sized(seed, mood, profiles, 10)
    }

    /// With so many connections in all.
    pub(super) fn sized(seed: u64, mood: Mood, profiles: Vec<ProviderOptions>, max_connections: usize) -> World {
        let ids = Arc::new(QueueIds::new(0, seed));
        let provider = |name: &str| ProviderOptions {
            name: name.into(),
            max_connections: Some(CEILING),
            recipients_per_message: Some(3),
            ..Default::default()
        };
        let settings = Settings {
            sources: vec![SourceAddress { name: "default".into(), address: None, helo: None, warm_up: Vec::new() }],
            networks: Vec::new(),
            tls: TlsMode::Opportunistic,
            chunking: true,
            max_connections,
            queue: QueueOptions::default(),
            bounces: Bounces::default(),
            postmaster: None,
            profiles: Profiles::new(&[vec![provider("shared"), provider("own")], profiles].concat()),
            rules: Rules::shipped(),
            ids: {
                let ids = ids.clone();
                Arc::new(move |now| ids.next(now))
            },
            seed,
        };
        let mut core = Core::new(settings, start());
        core.handle(Input::Identity { known: true, helo: "relay.test".into() }, start());
        World {
            core,
            now: start(),
            chance: fastrand::Rng::with_seed(seed),
            ids,
            coming: BTreeMap::new(),
            sequence: 0,
            spool: BTreeMap::new(),
            open: BTreeMap::new(),
            peak: 0,
            suppressed: BTreeSet::new(),
            settled: BTreeSet::new(),
            ends: BTreeMap::new(),
            deferrals: 0,
            expired: 0,
            rcpts: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            proven: BTreeSet::new(),
            answers: Vec::new(),
            lane_answers: Vec::new(),
            alerts: Vec::new(),
            demands: BTreeMap::new(),
            mood,
            short: 0,
            script: None,
            says: BTreeMap::new(),
            log: Vec::new(),
            plans: Vec::new(),
            planned: BTreeMap::new(),
            tries: Vec::new(),
            resolved_afresh: 0,
            remembered: 0,
            records: BTreeMap::new(),
            last_remembered: Vec::new(),
            dead_hosts: BTreeSet::new(),
            bdat: None,
            chunked: Vec::new(),
            silent: None,
            events: Vec::new(),
            acts: 0,
            updates: 0,
            ticks: 0,
            checks: true,
        }
    }

    /// A message for these recipients, accepted now.
    pub(super) fn submit(&mut self, sender: &str, recipients: &[&str]) -> QueueId {
        self.submit_as(Priority::Normal, sender, recipients)
    }

    pub(super) fn submit_as(&mut self, class: Priority, sender: &str, recipients: &[&str]) -> QueueId {
        let id = self.ids.next(self.now);
        let envelope = Arc::new(Envelope {
            id,
            received: self.now,
            sender: ReversePath::parse(sender).unwrap(),
            ret: None,
            envid: None,
            body_type: BodyType::Undeclared,
            smtputf8: false,
            size_bytes: 20,
            message_id: None,
            client: None,
            user: None,
            requests: Default::default(),
            expire: None,
            class,
            origin: Origin::Client,
        });
        let mut by_domain: BTreeMap<Domain, Vec<Recipient>> = BTreeMap::new();
        for text in recipients {
            let address = Mailbox::parse(text).unwrap();
            let recipient = Recipient { address: address.clone(), orcpt: None, notify: Notify::default() };
            by_domain.entry(address.domain().clone()).or_default().push(recipient);
            self.ends.insert((id, (*text).to_string()), 0);
        }
        let deliveries: Vec<Delivery> = (0..)
            .zip(by_domain)
            .map(|(part, (domain, recipients))| Delivery {
                id: DeliveryId { message: id, part },
                domain,
                recipients,
                state: DeliveryState::Waiting,
                attempts: 0,
                next_attempt: None,
                delay_reported: false,
                refusal: None,
                failed: Vec::new(),
                next_hop: None,
                own: None,
            })
            .collect();
        let body = Body::Inline(bytes::Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n"));
        self.store(envelope.clone(), deliveries.clone(), body.clone());
        self.say_in(Duration::ZERO, Input::Accepted(vec![Committed { envelope, deliveries, body }]));
        id
    }

    /// As if it had been handed in.
    pub(super) fn keep(&mut self, message: &Committed) {
        self.store(message.envelope.clone(), message.deliveries.clone(), message.body.clone());
    }

    fn store(&mut self, envelope: Arc<Envelope>, deliveries: Vec<Delivery>, body: Body) {
        let deliveries = deliveries.into_iter().map(|d| (d.id, d)).collect();
        self.spool.insert(envelope.id, Message { envelope, body, deliveries });
    }

    pub(super) fn say_in(&mut self, wait: Duration, input: Input) {
        self.sequence += 1;
        self.coming.insert((self.now + wait, self.sequence), input);
    }

    fn soon(&mut self) -> Duration {
        Duration::from_millis(self.chance.u64(1..2000))
    }

    fn likely(&mut self, share: f64) -> bool {
        self.chance.f64() < share
    }

    /// Lets time pass until nothing more happens, or `until`.
    pub(super) fn run(&mut self, until: Timestamp) {
        loop {
            self.carry_out();
            let next = self.coming.first_key_value().map(|(key, _)| *key);
            let wake = self.core.next_wake();
            let idle = next.is_none() && self.core.is_quiet() && self.spool.is_empty();
            if idle || next.map_or(wake, |(at, _)| at.min(wake)) > until {
                return;
            }
            match next {
                Some(key) if key.0 <= wake => {
                    self.now = self.now.max(key.0);
                    let Some(input) = self.coming.remove(&key) else { continue };
                    if let Input::OpenFailed { connection, .. } | Input::Closed { connection } = &input {
                        self.open.remove(connection);
                    }
                    if let Input::Done { connection, .. } = &input
                        && let Some(open) = self.open.get(connection)
                    {
                        self.in_flight.retain(|key, _| !open.recipients.contains(key));
                    }
                    self.core.handle(input, self.now);
                    self.assert_nothing_is_forgotten();
                }
                _ => {
                    assert!(wake > self.now || self.core.next_wake() <= self.now, "the core never sleeps");
                    self.now = self.now.max(wake);
                    self.ticks += 1;
                    self.core.handle(Input::Tick, self.now);
                    self.assert_nothing_is_forgotten();
                }
            }
        }
    }

    /// No lane starves: something will look at every line in which something stands.
    fn assert_nothing_is_forgotten(&self) {
        if !self.checks {
            return;
        }
        let forgotten = self.core.forgotten_targets(self.now);
        assert!(forgotten.is_empty(), "nothing wakes {forgotten:?}");
    }

    fn carry_out(&mut self) {
        loop {
            let actions = self.core.actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.act(action);
            }
        }
    }

    fn act(&mut self, action: Action) {
        self.acts += 1;
        match action {
            Action::Resolve(domain) => self.resolve(domain, None),
            Action::ResolveAfresh(domain) => {
                self.resolved_afresh += 1;
                self.resolve(domain, None);
            }
            Action::ResolveHop { domain, hop } => self.resolve(domain, Some(hop)),
            Action::Open { connection, plan, job } => {
                self.open.insert(connection, Open { recipients: Vec::new(), closing: false });
                self.peak = self.peak.max(self.open.len());
                self.note_try(job.id);
                self.begin_open(connection, &plan, job);
                self.plans.push(plan);
            }
            Action::Start { connection, job } => {
                self.note_try(job.id);
                let wait = self.soon();
                self.transact(connection, job, wait);
            }
            Action::Close { connection } => {
                if let Some(open) = self.open.get_mut(&connection) {
                    assert!(!open.closing, "closed twice");
                    open.closing = true;
                    let wait = self.soon();
                    self.say_in(wait, Input::Closed { connection });
                }
            }
            Action::Fetch { id } => {
                let stored = self.spool.get(&id.message).and_then(|message| {
                    let delivery = message.deliveries.get(&id)?.clone();
                    let excerpt = Excerpt::of(&message.body)?;
                    let stored = Stored { envelope: message.envelope.clone(), delivery, body: message.body.clone() };
                    Some(Box::new(Fetched { stored, excerpt }))
                });
                let wait = self.soon();
                self.say_in(wait, Input::Fetched { id, stored });
            }
            Action::Commit(changes) => changes.into_iter().for_each(|change| self.commit(change)),
            Action::Suppress { hit, key } => {
                let listed = matches!(hit.class, Class::RecipientUnknown | Class::RecipientDisabled)
                    && self.suppressed.insert(hit.mailbox.key());
                let wait = self.soon();
                self.say_in(wait, Input::Suppressed { key, listed });
            }
            Action::Relist { whom, .. } => {
                for (mailbox, _) in whom.iter().filter(|(_, how)| *how == Relist::Off) {
                    self.suppressed.remove(&mailbox.key());
                }
            }
            Action::Load { .. }
            | Action::LoadAll
            | Action::Warn(_)
            | Action::Slow { .. }
            | Action::Throttled { .. } => {}
            Action::LaneAnswer { answer, .. } => self.lane_answers.push(answer),
            Action::Alert(alert) => self.alerts.push(alert),
            Action::Remember(records) => {
                self.remembered += 1;
                self.last_remembered = records.clone();
                self.records.extend(records.into_iter().map(|record| (record.name.clone(), record)));
            }
            Action::Answer { ticket, left_alone } => self.answers.push((ticket, left_alone.len())),
        }
    }

    fn note_try(&mut self, id: DeliveryId) {
        let planned = self.planned.remove(&id);
        self.tries.push((self.now, id.message, planned));
    }

    fn resolve(&mut self, domain: Domain, hop: Option<NextHop>) {
        let result = if self.likely(self.mood.no_route) {
            Err(Unroutable {
                permanent: false,
                status: "4.4.3",
                text: "the name server is silent".into(),
                valid_until: self.now + Duration::from_secs(45),
            })
        } else {
            let own = !domain.as_str().starts_with(['a', 'b']);
            let provider: Arc<str> = match domain.as_str() {
                _ if hop.is_some() => "hop".into(),
                many if many.starts_with("many") => many.into(),
                own if own.starts_with("own") => "own".into(),
                office if office.starts_with("office") => "microsoft365".into(),
                _ => "shared".into(),
            };
            let host = |n: u8, preference: u16| Host {
                name: if own { format!("mx{n}.{domain}").into() } else { format!("mx{n}.shared.test").into() },
                preference,
                addresses: vec![([192, 0, 2, n], 25).into()],
                provider: provider.clone(),
            };
            Ok(Route {
                hosts: vec![host(1, 10), host(2, 10), host(3, 20)],
                valid_until: self.now + Duration::from_secs(300),
                fixed: false,
                limits_named: false,
                access: None,
                demand: self.demands.get(&domain).cloned(),
                sts: None,
            })
        };
        let wait = self.soon();
        let input = match hop {
            Some(hop) => Input::HopRouted { domain, hop, result },
            None => Input::Routed { domain, result },
        };
        self.say_in(wait, input);
    }

    fn begin_open(&mut self, connection: ConnectionId, plan: &crate::outbound::Plan, job: Job) {
        if self.silent.is_some_and(|domain| plan.host.contains(domain)) {
            let error = OpenError { stage: OpenStage::Greeting, reply: None, text: "silence".into() };
            return self.say_in(plan.greeting, Input::OpenFailed { connection, error });
        }
        let error = if let Some((Stage::Connect, reply)) = self.script {
            Some((OpenStage::Greeting, Reply::parse(reply)))
        } else if self.short > 0 {
            self.short -= 1;
            Some((OpenStage::Ours, None))
        } else if self.dead_hosts.contains(&plan.host) || self.likely(self.mood.refuse_connect) {
            Some((OpenStage::Connect, None))
        } else if self.likely(self.mood.greet_badly) {
            let reply = if self.chance.bool() { "421 busy" } else { "554 go away" };
            Some((OpenStage::Greeting, Reply::parse(reply)))
        } else {
            None
        };
        let wait = self.soon();
        if let Some((stage, reply)) = error {
            let error = OpenError { stage, reply, text: "no".into() };
            return self.say_in(wait, Input::OpenFailed { connection, error });
        }
        self.say_in(wait, Input::Opened { connection, limits: Default::default() });
        let after = wait + self.soon();
        self.transact(connection, job, after);
    }

    /// Holds a transaction whose end is told after `wait`. What must hold of every job is checked here.
    fn transact(&mut self, connection: ConnectionId, job: Job, wait: Duration) {
        let Some(message) = self.spool.get(&job.id.message) else {
            return self.say_in(wait, Input::Done { connection, done: Done::Missing { reusable: true } });
        };
        let Some(stored) = message.deliveries.get(&job.id).cloned() else {
            return self.say_in(wait, Input::Done { connection, done: Done::Missing { reusable: true } });
        };
        let envelope = message.envelope.clone();
        let fresh = job.message.as_ref().and_then(|m| m.deliveries.iter().find(|d| d.id == job.id).cloned());
        let goes_on = job.recipients.is_some();
        let delivery = fresh.unwrap_or(stored);
        let recipients = job.recipients.unwrap_or_else(|| delivery.recipients.clone());
        let (listed, mut offered): (Vec<_>, Vec<_>) =
            recipients.into_iter().partition(|r| self.suppressed.contains(&r.address.key()));
        let rest = offered.split_off(job.recipients_max.min(offered.len()));
        assert!(offered.len() <= 3, "more recipients than granted");
        self.log.push(envelope.id);
        for recipient in &offered {
            let key = recipient.address.key();
            assert!(
                !self.settled.contains(&(envelope.id, key.clone())),
                "{key} of {} tried after its end",
                envelope.id
            );
            if !self.proven.contains(&key) {
                let other = self.in_flight.insert(key.clone(), connection);
                assert!(other.is_none(), "two jobs at once to {key}");
            }
            *self.rcpts.entry(key).or_default() += 1;
        }
        self.chunked.push(job.chunking);
        let bdat = self.bdat.filter(|_| job.chunking);
        let by_bdat = |bdat: Bdat| match bdat {
            Bdat::Refused => Outcome::Unsaid { stage: Stage::Data, text: "502 not implemented".into() },
            _ => Outcome::InDoubt { text: "closed at BDAT".into() },
        };
        let (outcomes, reusable) = match bdat {
            Some(bdat) => (offered.iter().map(|_| by_bdat(bdat)).collect(), false),
            None => self.outcomes(&offered, envelope.id),
        };
        let bdat = bdat.unwrap_or_default();
        let keys = offered.iter().map(|r| r.address.key()).collect();
        if let Some(open) = self.open.get_mut(&connection) {
            open.recipients = keys;
        }
        let listed = listed.into_iter().map(|r| {
            let resolved = Resolved::Suppressed { class: Class::RecipientUnknown, reply: "550 5.1.1 unknown".into() };
            (r, resolved)
        });
        let results = listed.chain(offered.into_iter().zip(outcomes.into_iter().map(Resolved::Outcome))).collect();
        let held = Transacted {
            envelope,
            delivery: (!goes_on).then_some(delivery),
            results,
            rest,
            reusable,
            offered: Default::default(),
            bdat,
            tls: "none".into(),
            excerpt: Some(Excerpt::default()),
        };
        self.say_in(wait, Input::Done { connection, done: Done::Held(Box::new(held)) });
    }

    fn outcomes(&mut self, offered: &[Recipient], id: QueueId) -> (Vec<Outcome>, bool) {
        if self.likely(self.mood.drop) {
            let lost = |_: &Recipient| Outcome::Unsaid { stage: Stage::Mail, text: "connection reset".into() };
            return (offered.iter().map(lost).collect(), false);
        }
        if self.likely(self.mood.doubt) {
            let lost = |_: &Recipient| Outcome::InDoubt { text: "no answer to the end of data".into() };
            return (offered.iter().map(lost).collect(), false);
        }
        if let Some((stage, text)) = self.script {
            let reply = Reply::parse(text).unwrap();
            if reply.is_permanent() {
                self.settled.extend(offered.iter().map(|recipient| (id, recipient.address.key())));
            }
            return (
                offered.iter().map(|_| Outcome::Replied { stage, reply: reply.clone() }).collect(),
                reply.code() != 421,
            );
        }
        let replied = |stage, text: &str| Outcome::Replied { stage, reply: Reply::parse(text).unwrap() };
        let outcomes = offered
            .iter()
            .map(|recipient| {
                let key = recipient.address.key();
                if let Some(text) = self.says.get(&key) {
                    replied(Stage::Rcpt, text)
                } else if key.starts_with("unknown") || (!self.proven.contains(&key) && self.likely(self.mood.unknown))
                {
                    self.settled.insert((id, key));
                    replied(Stage::Rcpt, "550 5.1.1 no such user")
                } else if self.likely(self.mood.too_many) {
                    replied(Stage::Rcpt, "452 4.5.3 too many recipients")
                } else if self.likely(self.mood.defer) {
                    replied(Stage::Rcpt, "450 4.2.0 try later")
                } else {
                    self.settled.insert((id, key.clone()));
                    self.proven.insert(key);
                    replied(Stage::Data, "250 2.0.0 ok")
                }
            })
            .collect();
        (outcomes, true)
    }

    fn commit(&mut self, change: Change) {
        match change {
            Change::Plan { id, next_attempt } => {
                if let Some(delivery) = self.spool.get_mut(&id.message).and_then(|m| m.deliveries.get_mut(&id)) {
                    delivery.next_attempt = Some(next_attempt);
                }
                self.planned.insert(id, next_attempt);
            }
            Change::Update(delivery) => {
                self.updates += 1;
                if let Some(message) = self.spool.get_mut(&delivery.id.message) {
                    message.deliveries.insert(delivery.id, delivery);
                }
            }
            Change::Finish(id) => {
                let Some(message) = self.spool.get_mut(&id.message) else { return };
                message.deliveries.remove(&id);
                if message.deliveries.is_empty() {
                    self.spool.remove(&id.message);
                }
            }
            Change::Report { envelope, deliveries, content } => {
                for recipient in deliveries.iter().flat_map(|d| &d.recipients) {
                    self.ends.insert((envelope.id, recipient.address.as_str().to_string()), 0);
                }
                let body = Body::Inline(content);
                self.store(envelope.clone(), deliveries.clone(), body.clone());
                let wait = self.soon();
                self.say_in(wait, Input::Accepted(vec![Committed { envelope, deliveries, body }]));
            }
            Change::Note(event) => self.note(&event),
        }
    }

    fn note(&mut self, event: &Event) {
        if matches!(event.kind, EventKind::Throttled | EventKind::Paused | EventKind::Blocked | EventKind::Resumed) {
            self.events.push(event.kind);
        }
        let (Some(id), Some(recipient)) = (event.id, &event.recipient) else { return };
        self.expired += usize::from(event.kind == EventKind::Expired);
        match event.kind {
            EventKind::Delivered | EventKind::Bounced | EventKind::Expired | EventKind::Removed => {
                *self.ends.entry((id, recipient.clone())).or_default() += 1;
            }
            EventKind::Deferred => {
                self.deferrals += 1;
            }
            _ => {}
        }
    }

    pub(super) fn assert_all_ended_once(&self, seed: u64) {
        for ((id, recipient), ends) in &self.ends {
            assert_eq!(*ends, 1, "seed {seed}: {recipient} of {id} ended {ends} times");
        }
        assert!(self.spool.is_empty(), "seed {seed}: something is left in the spool");
    }
}

#[test]
fn whatever_receivers_do_each_recipient_ends_once_and_no_limit_is_passed() {
    let long = std::env::var("WEIR_TEST").is_ok_and(|kind| kind == "long");
    for seed in 0..if long { 300 } else { 25 } {
        let mut world = World::new(seed, STORMY);
        world.bdat = [None, Some(Bdat::Refused), Some(Bdat::Lost), Some(Bdat::Suspect)][(seed % 4) as usize];
        for n in 0..120u32 {
            let names: Vec<String> = (0..world.chance.usize(1..9))
                .map(|_| {
                    let domain = ["a.test", "b.test", "own1.test", "own2.test"][world.chance.usize(0..4)];
                    format!("user{}@{domain}", world.chance.u32(0..40))
                })
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect();
            let sender = if n % 5 == 0 { String::new() } else { format!("s{}@sender.test", n % 4) };
            world.submit(&sender, &names.iter().map(String::as_str).collect::<Vec<_>>());
            if n % 10 == 0 {
                let now = world.now;
                world.run(now + Duration::from_secs(5));
            }
        }
        world.run(start() + Duration::from_secs(12 * 86_400));
        world.assert_all_ended_once(seed);
        assert!(world.peak <= 10, "seed {seed}: {} connections at once", world.peak);
        assert!(world.deferrals > 0, "the storm was none");
        assert_eq!(world.expired, 0, "seed {seed}: something stood still until it expired");
    }
}

#[test]
fn five_messages_to_one_unknown_address_put_one_rcpt_on_the_wire() {
    let mut world = World::new(1, CALM);
    for _ in 0..5 {
        world.submit("s@sender.test", &["unknown@a.test"]);
    }
    world.run(start() + Duration::from_secs(3600));
    assert_eq!(world.rcpts.get("unknown@a.test"), Some(&1));
    world.assert_all_ended_once(1);
}

#[test]
fn a_calm_backlog_uses_the_window_and_ends() {
    let mut world = World::new(3, CALM);
    for n in 0..500 {
        world.submit("s@sender.test", &[&format!("u{n}@a.test")]);
    }
    world.run(start() + Duration::from_secs(86_400));
    world.assert_all_ended_once(3);
    assert_eq!(world.peak, CEILING, "the ceiling was not used, or passed");
}

#[test]
fn many_receivers_share_the_connections_that_there_are() {
    let mut world = World::new(6, CALM);
    for n in 0..400 {
        world.submit("s@sender.test", &[&format!("u{n}@many{}.test", n % 40)]);
    }
    world.run(start() + Duration::from_secs(1800));
    world.assert_all_ended_once(6);
    assert!(world.peak <= 10);
}

#[test]
fn what_cannot_be_delivered_expires_and_the_sender_hears_of_it() {
    let mut world = World::new(4, Mood { refuse_connect: 1.0, ..CALM });
    let id = world.submit("s@sender.test", &["u@a.test"]);
    world.run(start() + Duration::from_secs(4 * 86_400 + 3600));
    assert_eq!(world.ends.get(&(id, "u@a.test".into())), Some(&1));
    assert!(world.ends.keys().any(|(_, recipient)| recipient == "s@sender.test"), "no report");
}

#[test]
fn a_command_is_answered_when_its_deliveries_are_settled() {
    let mut world = World::new(5, Mood { defer: 1.0, ..CALM });
    let id = world.submit("s@sender.test", &["u@a.test"]);
    world.run(start() + Duration::from_secs(30));
    let row = |world: &World| {
        let delivery = world.spool.get(&id).unwrap().deliveries.values().next().unwrap();
        Row {
            id: delivery.id,
            domain: delivery.domain.clone(),
            held: delivery.state == DeliveryState::Held,
            attempts: delivery.attempts,
            next_attempt: delivery.next_attempt,
            lifetime: None,
            late_at: None,
            delay_reported: false,
            recipients: delivery.recipients.iter().map(|r| super::key_of(&r.address)).collect(),
            flow: 0,
            sender_domain: None,
            class: Priority::Normal,
            next_hop: None,
        }
    };
    for (ticket, adjust) in [(1, Adjust::Hold), (2, Adjust::Flush), (3, Adjust::Release), (4, Adjust::Remove)] {
        let rows = vec![row(&world)];
        world.say_in(Duration::ZERO, Input::Command { ticket, adjust, rows });
        let until = world.now + Duration::from_secs(5);
        world.run(until);
    }
    assert_eq!(world.answers, [(1, 0), (2, 1), (3, 0), (4, 0)]);
    world.assert_all_ended_once(5);
}
