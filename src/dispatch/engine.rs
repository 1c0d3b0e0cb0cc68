//! The task that feeds the core and carries its actions out.
//!
//! It waits for nothing but its next message: look-ups, reads, connections and commits are tasks that send theirs when they are
//! done. The channel is wide enough that every connection can always report its end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::carrier::{Carrier, Greeted, Parts, Said, Timed, excerpt};
use super::core::{Core, Settings};
use super::doubt::Relist;
use super::message::{Action, Adjust, ConnectionId, Fetched, Input, Job, Row, Ticket};
use super::status::{Snapshot, Standing};
use super::survey::{Depth, Facts, Survey};
use super::unreached::{LOGIN_REFUSED, NO_ROUTE, UNREACHABLE};
use crate::clock::Clock;
use crate::outbound::Connector;
use crate::queue::RecipientKey;
use crate::route::Router;
use crate::spool::{Change, Committed, Listed, Spool, Summary};
use crate::suppress::{Doubt, Hit, List};
use crate::throttle::{HoldSender, LaneOrder, LaneRecord};
use crate::types::{
    Alert, Class, DeliveryId, DeliveryState, Domain, Event, EventKind, Mailbox, NextHop, QueueId, ReversePath, Seldom,
    Submitter, Timestamp,
};

/// Messages taken in one go before the actions are carried out.
const BATCH: usize = 256;
/// Places in the channel beside one for each connection.
const SPARE_PLACES: usize = 1024;
/// Up to so many deliveries are told their place in the line: each costs a pass over it.
const STANDINGS_IN_LINE: usize = 4;
/// Deliveries that an operator's question or order is about and that are looked at in one go: some 2 ms.
const AT_ONCE: usize = 128;
/// Places that a survey looks at in one go.
const SURVEYED_AT_ONCE: usize = 256;
/// Rows read from the spool in one go.
const PAGE: usize = 500;
/// Outcomes kept for `weir send` and others who ask just after the fact.
const RECENT_MAX: usize = 2000;

/// Seconds until the queue is read again because something in it could not be read, and at most.
const READ_AGAIN_FIRST: u64 = 10;
const READ_AGAIN_MAX: u64 = 3600;

/// What the engine is sent.
pub enum Message {
    Input(Input),
    Survey {
        depth: Depth,
        answer: oneshot::Sender<Facts>,
    },
    Standing {
        ids: Vec<DeliveryId>,
        answer: oneshot::Sender<Vec<Option<Standing>>>,
    },
    /// Rows will be read: what ends from now on is remembered until `Input::ReadEnd`.
    BeginRead(oneshot::Sender<()>),
    Adjust {
        adjust: Adjust,
        rows: Vec<Row>,
        answer: oneshot::Sender<Vec<DeliveryId>>,
    },
    Order {
        order: Order,
        answer: oneshot::Sender<Result<Vec<String>, String>>,
    },
    Reroute {
        to: NextHop,
        rows: Vec<Row>,
        answer: oneshot::Sender<Vec<DeliveryId>>,
    },
    Reconfigure {
        settings: Box<Settings>,
        router: Arc<Router>,
    },
    /// How many deliveries wait for a domain.
    WaitingFor {
        domain: Domain,
        answer: oneshot::Sender<usize>,
    },
    /// The latest outcome of each recipient of a message, as far as it is still remembered.
    Outcomes {
        id: QueueId,
        answer: oneshot::Sender<Vec<Arc<Event>>>,
    },
}

/// What an operator orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// To all lanes of a provider.
    Provider { provider: String, order: LaneOrder },
    /// To the mail of one recipient domain.
    Domain { domain: Domain, order: LaneOrder },
    /// To everything.
    All { order: LaneOrder },
    /// Drop what was learned of a provider's limits; `source`: of one of our addresses alone.
    Forget { provider: String, source: Option<String> },
}

/// The engine as others hold it. Cheap to clone.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Message>);

#[derive(Debug, thiserror::Error)]
#[error("the relay is stopping")]
pub struct Stopping;

/// Why an order to lanes was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error(transparent)]
    Stopping(#[from] Stopping),
    /// No such provider.
    #[error("{0}")]
    Refused(String),
}

/// Keeps what lanes have learned over a restart. Takes it over at once and writes it in its own time.
pub trait Memory: Send + Sync + 'static {
    fn save(&self, records: Vec<LaneRecord>);
}

/// Remembers nothing.
pub struct Forgetful;

impl Memory for Forgetful {
    fn save(&self, _records: Vec<LaneRecord>) {}
}

impl Order {
    fn input(self, ticket: Ticket) -> Input {
        match self {
            Order::Provider { provider, order } => Input::Lane { ticket, provider: provider.into(), order },
            Order::Domain { domain, order } => Input::LaneDomain { ticket, domain, order },
            Order::All { order } => Input::LaneAll { ticket, order },
            Order::Forget { provider, source } => {
                Input::Forget { ticket, provider: provider.into(), source: source.map(Into::into) }
            }
        }
    }
}

impl Handle {
    pub async fn send(&self, input: Input) -> Result<(), Stopping> {
        self.0.send(Message::Input(input)).await.map_err(|_| Stopping)
    }

    /// The state of everything, collected in steps between other work.
    pub async fn snapshot(&self) -> Result<Snapshot, Stopping> {
        let facts = self.ask(|answer| Message::Survey { depth: Depth::All, answer }).await?;
        // Forecasts may take seconds where mail waits for a thousand receivers.
        tokio::task::spawn_blocking(|| facts.finish()).await.map_err(|_| Stopping)
    }

    /// The same without lanes and forecasts.
    pub async fn counts(&self) -> Result<Snapshot, Stopping> {
        let facts = self.ask(|answer| Message::Survey { depth: Depth::Counts, answer }).await?;
        Ok(facts.finish())
    }

    pub async fn standing(&self, ids: Vec<DeliveryId>) -> Result<Vec<Option<Standing>>, Stopping> {
        let mut standings = Vec::with_capacity(ids.len());
        for few in ids.chunks(AT_ONCE) {
            standings.append(&mut self.ask(|answer| Message::Standing { ids: few.to_vec(), answer }).await?);
        }
        Ok(standings)
    }

    pub async fn begin_read(&self) -> Result<(), Stopping> {
        self.ask(Message::BeginRead).await
    }

    /// Returns the deliveries that were left alone: they are in a transaction, or the command means nothing to them.
    pub async fn adjust(&self, adjust: Adjust, rows: Vec<Row>) -> Result<Vec<DeliveryId>, Stopping> {
        self.in_parts(rows, |rows, answer| Message::Adjust { adjust, rows, answer }).await
    }

    /// Pauses, resumes or forgets; says in words what changed.
    pub async fn order(&self, order: Order) -> Result<Vec<String>, OrderError> {
        let answer = self.ask(|answer| Message::Order { order, answer }).await?;
        answer.map_err(OrderError::Refused)
    }

    /// Holds mail of a sender domain back at a provider, or lets it go.
    pub async fn hold_sender(&self, hold: HoldSender) -> Result<(), Stopping> {
        self.send(Input::HoldSender(hold)).await
    }

    pub async fn waiting_for(&self, domain: Domain) -> Result<usize, Stopping> {
        self.ask(|answer| Message::WaitingFor { domain, answer }).await
    }

    /// Sends deliveries to a next hop instead of the MX hosts of their domains, from now on and over restarts. Returns
    /// those that were left alone, as `adjust` does.
    pub async fn reroute(&self, to: NextHop, rows: Vec<Row>) -> Result<Vec<DeliveryId>, Stopping> {
        self.in_parts(rows, |rows, answer| Message::Reroute { to: to.clone(), rows, answer }).await
    }

    /// A few rows after the other: between them the engine does its other work.
    async fn in_parts(
        &self,
        mut rows: Vec<Row>,
        message: impl Fn(Vec<Row>, oneshot::Sender<Vec<DeliveryId>>) -> Message,
    ) -> Result<Vec<DeliveryId>, Stopping> {
        let mut left_alone = Vec::new();
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(AT_ONCE));
            let few = std::mem::replace(&mut rows, rest);
            left_alone.append(&mut self.ask(|answer| message(few, answer)).await?);
        }
        Ok(left_alone)
    }

    pub async fn reconfigure(&self, settings: Settings, router: Arc<Router>) -> Result<(), Stopping> {
        let message = Message::Reconfigure { settings: Box::new(settings), router };
        self.0.send(message).await.map_err(|_| Stopping)
    }

    pub async fn outcomes(&self, id: QueueId) -> Result<Vec<Arc<Event>>, Stopping> {
        self.ask(|answer| Message::Outcomes { id, answer }).await
    }

    /// Waits; false: the engine has ended meanwhile.
    async fn rest(&self, span: Duration) -> bool {
        tokio::time::timeout(span, self.0.closed()).await.is_err()
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.0.send(message(answer)).await.map_err(|_| Stopping)?;
        answered.await.map_err(|_| Stopping)
    }
}

/// Why the engine runs.
enum Wake {
    Stop,
    Messages(usize),
    Committed(Vec<Committed>),
    Time,
    /// Somebody has asked how everything stands.
    Survey,
}

pub struct Engine {
    core: Core,
    parts: Arc<Parts>,
    router: Arc<Router>,
    clock: Clock,
    tasks: TaskTracker,
    committed: mpsc::Receiver<Vec<Committed>>,
    messages: mpsc::Receiver<Message>,
    sender: mpsc::Sender<Message>,
    carriers: BTreeMap<ConnectionId, mpsc::Sender<Job>>,
    tickets: BTreeMap<Ticket, oneshot::Sender<Vec<DeliveryId>>>,
    orders: BTreeMap<Ticket, oneshot::Sender<Result<Vec<String>, String>>>,
    alerts: mpsc::Sender<Alert>,
    slow: Box<SlowSubmitter>,
    throttled: Box<Throttled>,
    memory: Arc<dyn Memory>,
    next_ticket: Ticket,
    recent: VecDeque<Arc<Event>>,
    healthy: bool,
    health_said: Seldom,
    read_again: Arc<ReadAgain>,
    surveys: Surveys,
    /// Steps of the wall clock that the core knows of.
    clock_stepped: i64,
}

/// Who has asked how everything stands. One survey at a time; whoever asks while it goes on shares the next one, whose moment is
/// later than the question.
#[derive(Default)]
struct Surveys {
    /// With what was found so far.
    current: Option<(Survey, Asked)>,
    next: Option<(Depth, Asked)>,
}

type Asked = Vec<oneshot::Sender<Facts>>;

impl Surveys {
    fn ask(&mut self, depth: Depth, answer: oneshot::Sender<Facts>) {
        let (deepest, asked) = self.next.get_or_insert_with(|| (depth, Vec::new()));
        *deepest = (*deepest).max(depth);
        asked.push(answer);
    }

    fn is_any(&self) -> bool {
        self.current.is_some() || self.next.is_some()
    }

    /// One step.
    fn go_on(&mut self, core: &Core, now: Timestamp) {
        if self.current.is_none() {
            self.current = self.next.take().map(|(depth, asked)| (core.begin_survey(depth, now), asked));
        }
        let Some((survey, asked)) = &mut self.current else { return };
        // A client that went away needs no answer.
        asked.retain(|answer| !answer.is_closed());
        let is_done = asked.is_empty() || core.survey(survey, SURVEYED_AT_ONCE);
        if is_done && let Some((survey, asked)) = self.current.take() {
            let facts = survey.facts();
            for answer in asked {
                let _ = answer.send(facts.clone());
            }
        }
    }
}

/// The walk through the whole queue that brings back what could not be read when it was wanted.
struct ReadAgain {
    planned: AtomicBool,
    /// Until the next walk, in seconds: longer each time, for what is damaged stays so.
    wait: AtomicU64,
    said: Seldom,
}

impl Default for ReadAgain {
    fn default() -> ReadAgain {
        ReadAgain { planned: AtomicBool::new(false), wait: AtomicU64::new(READ_AGAIN_FIRST), said: Seldom::minutely() }
    }
}

/// What is done about a user or client of ours that seems to guess names.
pub type SlowSubmitter = dyn Fn(Submitter, &str, Timestamp) + Send + Sync;

/// Hears of an answer by which a receiver, named first, put a message off with its lane.
pub type Throttled = dyn Fn(&str, Class) + Send + Sync;

/// What the engine works with.
pub struct Resources {
    pub connector: Connector,
    pub router: Arc<Router>,
    pub spool: Spool,
    pub suppressions: List,
    pub committed: mpsc::Receiver<Vec<Committed>>,
    /// Where alerts go; one that finds no room is in the log alone.
    pub alerts: mpsc::Sender<Alert>,
    pub memory: Arc<dyn Memory>,
    /// Has somebody's mail come slowly until then, for this reason.
    pub slow: Box<SlowSubmitter>,
    /// Hears what each host answers to EHLO: from which address of ours it was asked, its name, its first line.
    pub greeted: Box<Greeted>,
    /// Is told how long each message waited and its transaction took.
    pub timed: Box<Timed>,
    /// Is told of each answer that put a message off with its lane.
    pub throttled: Box<Throttled>,
    pub clock: Clock,
    pub tasks: TaskTracker,
    /// Outbound connections in all: each has a place in the channel.
    pub max_connections: usize,
}

impl Engine {
    pub fn new(core: Core, resources: Resources) -> (Engine, Handle) {
        let (sender, messages) = mpsc::channel(resources.max_connections + SPARE_PLACES);
        let Resources {
            connector,
            router,
            spool,
            suppressions,
            committed,
            alerts,
            memory,
            slow,
            timed,
            throttled,
            greeted,
            clock,
            tasks,
            ..
        } = resources;
        let clock_stepped = clock.stepped_millis();
        let engine = Engine {
            core,
            parts: Arc::new(Parts {
                connector,
                spool,
                suppressions,
                clock: clock.clone(),
                said: Said::default(),
                timed,
                greeted,
            }),
            router,
            clock,
            tasks,
            committed,
            messages,
            sender: sender.clone(),
            carriers: BTreeMap::new(),
            tickets: BTreeMap::new(),
            orders: BTreeMap::new(),
            alerts,
            slow,
            throttled,
            memory,
            next_ticket: 0,
            recent: VecDeque::new(),
            healthy: true,
            health_said: Seldom::minutely(),
            read_again: Arc::new(ReadAgain::default()),
            surveys: Surveys::default(),
            clock_stepped,
        };
        (engine, Handle(sender))
    }

    /// Runs until `stop`, and then until what had begun has ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut stopping = false;
        loop {
            let due = self.core.next_wake();
            let wake = tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => Wake::Stop,
                taken = self.messages.recv_many(&mut batch, BATCH) => Wake::Messages(taken),
                Some(committed) = self.committed.recv() => Wake::Committed(committed),
                () = self.clock.wake_at(due) => Wake::Time,
                () = tokio::task::yield_now(), if self.surveys.is_any() => Wake::Survey,
            };
            self.look_at_clock();
            // Before anything is decided: nothing must begin whose outcome could be lost.
            self.look_at_spool();
            match wake {
                Wake::Stop => {
                    stopping = true;
                    self.core.handle(Input::Stop, self.clock.now());
                }
                Wake::Messages(0) => return,
                Wake::Messages(_) => batch.drain(..).for_each(|message| self.take(message)),
                Wake::Committed(committed) => self.core.handle(Input::Accepted(committed), self.clock.now()),
                Wake::Time => self.core.handle(Input::Tick, self.clock.now()),
                Wake::Survey => {}
            }
            self.carry_out();
            // Each time round, so that an answer comes however much there is to do.
            self.surveys.go_on(&self.core, self.clock.now());
            if stopping && self.core.is_quiet() {
                return;
            }
        }
    }

    fn take(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Input(input) => {
                if let Input::OpenFailed { connection, .. } | Input::Closed { connection } = &input {
                    self.carriers.remove(connection);
                }
                self.core.handle(input, now);
            }
            Message::Survey { depth, answer } => self.surveys.ask(depth, answer),
            Message::Standing { ids, answer } => {
                let in_line = ids.len() <= STANDINGS_IN_LINE;
                let standing =
                    |id| if in_line { self.core.standing_in_line(id, now) } else { self.core.standing(id, now) };
                let standings = ids.into_iter().map(standing).collect();
                let _ = answer.send(standings);
            }
            Message::BeginRead(answer) => {
                self.core.handle(Input::ReadBegin, now);
                let _ = answer.send(());
            }
            Message::Adjust { adjust, rows, answer } => {
                let ticket = self.ticket(answer);
                self.core.handle(Input::Command { ticket, adjust, rows }, now);
            }
            Message::Reroute { to, rows, answer } => {
                let ticket = self.ticket(answer);
                self.core.handle(Input::Reroute { ticket, to, rows }, now);
            }
            Message::Order { order, answer } => {
                self.next_ticket += 1;
                self.orders.insert(self.next_ticket, answer);
                self.core.handle(order.input(self.next_ticket), now);
            }
            Message::Reconfigure { settings, router } => {
                self.router = router;
                self.core.reconfigure(*settings, now);
            }
            Message::WaitingFor { domain, answer } => {
                let _ = answer.send(self.core.waiting_for(&domain));
            }
            Message::Outcomes { id, answer } => {
                let found = self.recent.iter().filter(|event| event.id == Some(id)).cloned().collect();
                let _ = answer.send(found);
            }
        }
    }

    fn ticket(&mut self, answer: oneshot::Sender<Vec<DeliveryId>>) -> Ticket {
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, answer);
        self.next_ticket
    }

    /// The core is told of a step of the wall clock before it is told anything else.
    fn look_at_clock(&mut self) {
        let now = self.clock.now();
        let stepped = self.clock.stepped_millis();
        let by_millis = stepped - std::mem::replace(&mut self.clock_stepped, stepped);
        if by_millis != 0 {
            self.core.handle(Input::ClockStepped { by_millis }, now);
        }
    }

    fn look_at_spool(&mut self) {
        let healthy = self.parts.spool.healthy();
        if healthy != self.healthy {
            self.healthy = healthy;
            let is_told = self.health_said.is_due(self.clock.now());
            match healthy {
                true if is_told => tracing::info!("the spool can write again: deliveries go on"),
                false if is_told => {
                    tracing::error!("the spool cannot write: no delivery is begun, because its outcome could be lost");
                }
                _ => {}
            }
            if healthy {
                self.read_again.wait.store(READ_AGAIN_FIRST, Ordering::Relaxed);
            } else {
                self.watch_spool();
            }
            self.core.handle(Input::SpoolHealth(healthy), self.clock.now());
        }
    }

    /// Wakes the engine once a second until the spool is well again.
    fn watch_spool(&self) {
        let (spool, sender) = (self.parts.spool.clone(), self.sender.clone());
        self.tasks.spawn(async move {
            while !spool.healthy() && !sender.is_closed() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let _ = sender.send(Message::Input(Input::Tick)).await;
        });
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
        match action {
            Action::Resolve(domain) => self.resolve(domain),
            Action::ResolveAfresh(domain) => {
                self.router.forget(&domain);
                self.resolve(domain);
            }
            Action::ResolveHop { domain, hop } => self.resolve_hop(domain, hop),
            Action::Open { connection, plan, job } => self.open(connection, plan, job),
            Action::Start { connection, job } => {
                // Never full: the core gives the next job only when the last is done. Closed: the carrier is on its way
                // out and its end will be reported.
                let lost = match self.carriers.get(&connection) {
                    Some(jobs) => jobs.try_send(job).is_err(),
                    None => true,
                };
                if lost {
                    let done = super::message::Done::NotStarted;
                    self.core.handle(Input::Done { connection, done }, self.clock.now());
                }
            }
            Action::Close { connection } => drop(self.carriers.remove(&connection)),
            Action::Fetch { id } => self.fetch(id),
            Action::Commit(changes) => self.commit(changes),
            Action::Suppress { hit, key } => self.suppress(hit, key),
            Action::Relist { whom, wave } => self.relist(whom, wave),
            Action::Load { until } => self.load(until),
            Action::LoadAll => {
                let handle = Handle(self.sender.clone());
                self.read_again.plan(self.parts.spool.clone(), handle, &self.tasks);
            }
            Action::Answer { ticket, left_alone } => {
                if let Some(answer) = self.tickets.remove(&ticket) {
                    let _ = answer.send(left_alone);
                }
            }
            Action::LaneAnswer { ticket, answer } => {
                if let Some(order) = self.orders.remove(&ticket) {
                    let _ = order.send(answer);
                }
            }
            Action::Slow { who, reason, until } => (self.slow)(who, &reason, until),
            Action::Throttled { provider, class } => (self.throttled)(&provider, class),
            Action::Alert(alert) => self.alert(alert),
            Action::Remember(records) => self.memory.save(records),
            Action::Warn(text) => tracing::warn!("{text}"),
        }
    }

    fn alert(&self, alert: Alert) {
        if let Err(error) = self.alerts.try_send(alert) {
            let (mpsc::error::TrySendError::Full(alert) | mpsc::error::TrySendError::Closed(alert)) = error;
            tracing::warn!(key = %alert.key, "alert, {}: {}", if alert.raised { "raised" } else { "over" }, alert.text);
        }
    }

    fn resolve_hop(&self, domain: Domain, hop: NextHop) {
        let (router, sender) = (self.router.clone(), self.sender.clone());
        self.tasks.spawn(async move {
            let result = router.resolve_hop(&domain, &hop).await;
            let _ = sender.send(Message::Input(Input::HopRouted { domain, hop, result })).await;
        });
    }

    fn resolve(&self, domain: Domain) {
        let (router, sender) = (self.router.clone(), self.sender.clone());
        self.tasks.spawn(async move {
            let result = router.resolve(&domain).await;
            let _ = sender.send(Message::Input(Input::Routed { domain, result })).await;
        });
    }

    fn open(&mut self, connection: ConnectionId, plan: crate::outbound::Plan, job: Job) {
        let (jobs_sender, jobs) = mpsc::channel(1);
        self.carriers.insert(connection, jobs_sender);
        let carrier = Carrier { id: connection, parts: self.parts.clone(), inputs: self.sender.clone(), jobs };
        let (host, address) = (&*plan.host, plan.address.ip());
        let span = tracing::debug_span!(target: "weir::outbound", "connection", host, %address, id = ?connection);
        self.tasks.spawn(carrier.carry(plan, job).instrument(span));
    }

    fn fetch(&self, id: DeliveryId) {
        let (spool, sender, again) = (self.parts.spool.clone(), self.sender.clone(), self.read_again.clone());
        let (tasks, clock) = (self.tasks.clone(), self.clock.clone());
        self.tasks.spawn(async move {
            let stored = match spool.load(id).await {
                Ok(Some(stored)) => {
                    let excerpt = excerpt(&stored.body).await;
                    Some(Box::new(Fetched { stored, excerpt }))
                }
                Ok(None) => None,
                Err(error) => {
                    if again.said.is_due(clock.now()) {
                        tracing::error!(%id, %error, "a delivery cannot be read from the spool; it is tried again");
                    }
                    again.plan(spool, Handle(sender.clone()), &tasks);
                    None
                }
            };
            let _ = sender.send(Message::Input(Input::Fetched { id, stored })).await;
        });
    }

    fn commit(&mut self, changes: Vec<Change>) {
        for change in &changes {
            if let Change::Note(event) = change
                && event.id.is_some()
                && event.kind != EventKind::Accepted
            {
                if self.recent.len() >= RECENT_MAX {
                    self.recent.pop_front();
                }
                self.recent.push_back(Arc::new(event.clone()));
            }
        }
        self.parts.spool.settle(changes);
    }

    fn suppress(&self, hit: Box<Hit>, key: RecipientKey) {
        let (parts, sender) = (self.parts.clone(), self.sender.clone());
        self.tasks.spawn(async move {
            let recipient = hit.mailbox.clone();
            let listed = match parts.suppressions.note_refusal(*hit).await {
                Ok(noted) => noted.is_new,
                Err(error) => {
                    tracing::error!(%recipient, %error, "cannot write the suppression list");
                    false
                }
            };
            let _ = sender.send(Message::Input(Input::Suppressed { key, listed })).await;
        });
    }

    fn relist(&self, whom: Vec<(Mailbox, Relist)>, wave: Arc<str>) {
        let parts = self.parts.clone();
        self.tasks.spawn(async move {
            for (mailbox, how) in whom {
                let (wave, doubt) = match how {
                    Relist::Firmly => (&wave, Doubt::Settled),
                    Relist::Provisionally(ref other) => (other, Doubt::Raised),
                    Relist::Off => (&wave, Doubt::Justified),
                };
                if let Err(error) = parts.suppressions.doubt(&mailbox, wave, doubt).await {
                    tracing::error!(recipient = %mailbox, %error, "cannot write the suppression list");
                }
            }
        });
    }

    /// Reads what comes due from the spool. First everything that is settled is written, so that nothing that has
    /// ended is read as if it had not.
    fn load(&mut self, until: crate::types::Timestamp) {
        self.core.handle(Input::ReadBegin, self.clock.now());
        let (spool, sender) = (self.parts.spool.clone(), self.sender.clone());
        self.tasks.spawn(async move {
            if spool.flush().await.is_ok() {
                let mut after = None;
                loop {
                    let page = match spool.reader().due(until, after, PAGE).await {
                        Ok(page) => page,
                        Err(error) => {
                            tracing::error!(%error, "cannot read what is due from the spool");
                            break;
                        }
                    };
                    let Some(last) = page.last() else { break };
                    after = last.next_attempt.map(|at| (at, last.id));
                    let complete = page.len() < PAGE;
                    if !hand_over(&Handle(sender.clone()), page).await || complete || after.is_none() {
                        break;
                    }
                }
            }
            let _ = sender.send(Message::Input(Input::ReadEnd)).await;
        });
    }
}

impl ReadAgain {
    fn plan(self: &Arc<Self>, spool: Spool, handle: Handle, tasks: &TaskTracker) {
        if self.planned.swap(true, Ordering::Relaxed) {
            return;
        }
        let wait = self.wait.load(Ordering::Relaxed);
        self.wait.store((wait * 2).min(READ_AGAIN_MAX), Ordering::Relaxed);
        let this = self.clone();
        tasks.spawn(async move {
            if handle.rest(Duration::from_secs(wait)).await {
                this.planned.store(false, Ordering::Relaxed);
                read_backlog_until_done(&spool, &handle).await;
            }
        });
    }
}

/// A row of the spool as the core takes it.
pub fn row(summary: Summary) -> Option<Row> {
    let recipients = summary.recipients.iter().filter_map(|address| Mailbox::parse(address).ok());
    let sender = ReversePath::parse(&summary.sender).unwrap_or(ReversePath::Null);
    Some(Row {
        id: summary.id,
        domain: summary.domain,
        held: summary.state == DeliveryState::Held,
        attempts: summary.attempts,
        next_attempt: summary.next_attempt,
        lifetime: super::lifetime_of(summary.expire),
        late_at: summary.late_at,
        delay_reported: summary.delay_reported,
        recipients: recipients.map(|mailbox| super::key_of(&mailbox)).collect(),
        flow: super::flow_of(&sender),
        sender_domain: sender.mailbox().map(|mailbox| mailbox.domain().clone()),
        class: summary.class,
        next_hop: summary.next_hop,
    })
}

/// The same of a listed row.
pub fn row_of(listed: &Listed) -> Row {
    let delivery = &listed.delivery;
    Row {
        id: delivery.id,
        domain: delivery.domain.clone(),
        held: delivery.state == DeliveryState::Held,
        attempts: delivery.attempts,
        next_attempt: delivery.next_attempt,
        lifetime: super::lifetime_of(listed.envelope.expire),
        late_at: listed.envelope.requests.notifies_at(listed.envelope.received),
        delay_reported: delivery.delay_reported,
        recipients: delivery.recipients.iter().map(|recipient| super::key_of(&recipient.address)).collect(),
        flow: super::flow_of(&listed.envelope.sender),
        sender_domain: listed.envelope.sender.mailbox().map(|mailbox| mailbox.domain().clone()),
        class: listed.envelope.class,
        next_hop: delivery.next_hop.clone(),
    }
}

/// Reads the whole queue, oldest first, while the relay already works, and says how many deliveries there were. While the
/// disk cannot be read it tries again; none if the engine stops before.
pub async fn read_backlog_until_done(spool: &Spool, handle: &Handle) -> Option<usize> {
    let mut wait = READ_AGAIN_FIRST;
    loop {
        match read_backlog(spool, handle).await {
            Ok(count) => return Some(count),
            Err(error) => tracing::error!("{error}; trying again in {wait} s"),
        }
        if !handle.rest(Duration::from_secs(wait)).await {
            return None;
        }
        wait = (wait * 2).min(READ_AGAIN_MAX);
    }
}

/// Gives a page of the spool to the core; false: the engine has ended.
async fn hand_over(handle: &Handle, page: Vec<Summary>) -> bool {
    let is_unreached =
        |summary: &&Summary| matches!(summary.refusal_rule.as_deref(), Some(UNREACHABLE | NO_ROUTE | LOGIN_REFUSED));
    let unreached: Vec<DeliveryId> = page.iter().filter(is_unreached).map(|summary| summary.id).collect();
    let rows = page.into_iter().filter_map(row).collect();
    handle.send(Input::Loaded(rows)).await.is_ok()
        && (unreached.is_empty() || handle.send(Input::Unreached(unreached)).await.is_ok())
}

async fn read_backlog(spool: &Spool, handle: &Handle) -> Result<usize, String> {
    handle.begin_read().await.map_err(|e| e.to_string())?;
    let (mut after, mut count) = (None, 0);
    let result = loop {
        let page = match spool.reader().scan(after, PAGE).await {
            Ok(page) => page,
            Err(error) => break Err(format!("cannot read the queue: {error}")),
        };
        let Some(last) = page.last() else { break Ok(count) };
        after = Some(last.id);
        count += page.len();
        let complete = page.len() < PAGE;
        if !hand_over(handle, page).await || complete {
            break Ok(count);
        }
    };
    let _ = handle.send(Input::ReadEnd).await;
    result
}
