//! The task that feeds the core and carries its actions out.
//!
//! It waits for nothing but its next message: look-ups, reads, connections and commits are tasks that send theirs when they are
//! done. The channel is wide enough that every connection can always report its end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::carrier::{Carrier, Parts, excerpt};
use super::core::{Core, Settings};
use super::message::{Action, Adjust, ConnectionId, Fetched, Input, Job, Row, Ticket};
use super::status::{Snapshot, Standing};
use crate::clock::Clock;
use crate::outbound::Connector;
use crate::route::Router;
use crate::spool::{Change, Committed, Listed, Spool, Summary};
use crate::suppress::List;
use crate::types::{DeliveryId, DeliveryState, Domain, Event, EventKind, Mailbox, QueueId, ReversePath};

/// Messages taken in one go before the actions are carried out.
const BATCH: usize = 256;
/// Places in the channel beside one for each connection.
const SPARE_PLACES: usize = 1024;
/// Rows read from the spool in one go.
const PAGE: usize = 2000;
/// Outcomes kept for `weir send` and others who ask just after the fact.
const RECENT_MAX: usize = 2000;

/// What the engine is sent.
pub enum Message {
    Input(Input),
    Snapshot(oneshot::Sender<Snapshot>),
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
    Reconfigure {
        settings: Box<Settings>,
        router: Arc<Router>,
    },
    /// The latest outcome of each recipient of a message, as far as it is still remembered.
    Outcomes {
        id: QueueId,
        answer: oneshot::Sender<Vec<Arc<Event>>>,
    },
}

/// The engine as others hold it. Cheap to clone.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Message>);

#[derive(Debug, thiserror::Error)]
#[error("the relay is stopping")]
pub struct Stopping;

impl Handle {
    pub async fn send(&self, input: Input) -> Result<(), Stopping> {
        self.0.send(Message::Input(input)).await.map_err(|_| Stopping)
    }

    pub async fn snapshot(&self) -> Result<Snapshot, Stopping> {
        self.ask(Message::Snapshot).await
    }

    pub async fn standing(&self, ids: Vec<DeliveryId>) -> Result<Vec<Option<Standing>>, Stopping> {
        self.ask(|answer| Message::Standing { ids, answer }).await
    }

    pub async fn begin_read(&self) -> Result<(), Stopping> {
        self.ask(Message::BeginRead).await
    }

    /// Returns the deliveries that were left alone: they are in a transaction, or the command means nothing to them.
    pub async fn adjust(&self, adjust: Adjust, rows: Vec<Row>) -> Result<Vec<DeliveryId>, Stopping> {
        self.ask(|answer| Message::Adjust { adjust, rows, answer }).await
    }

    pub async fn reconfigure(&self, settings: Settings, router: Arc<Router>) -> Result<(), Stopping> {
        let message = Message::Reconfigure { settings: Box::new(settings), router };
        self.0.send(message).await.map_err(|_| Stopping)
    }

    pub async fn outcomes(&self, id: QueueId) -> Result<Vec<Arc<Event>>, Stopping> {
        self.ask(|answer| Message::Outcomes { id, answer }).await
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.0.send(message(answer)).await.map_err(|_| Stopping)?;
        answered.await.map_err(|_| Stopping)
    }
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
    next_ticket: Ticket,
    recent: VecDeque<Arc<Event>>,
    healthy: bool,
}

/// What the engine works with.
pub struct Resources {
    pub connector: Connector,
    pub router: Arc<Router>,
    pub spool: Spool,
    pub suppressions: List,
    pub committed: mpsc::Receiver<Vec<Committed>>,
    pub clock: Clock,
    pub tasks: TaskTracker,
    /// Outbound connections in all: each has a place in the channel.
    pub max_connections: usize,
}

impl Engine {
    pub fn new(core: Core, resources: Resources) -> (Engine, Handle) {
        let (sender, messages) = mpsc::channel(resources.max_connections + SPARE_PLACES);
        let Resources { connector, router, spool, suppressions, committed, clock, tasks, .. } = resources;
        let engine = Engine {
            core,
            parts: Arc::new(Parts { connector, spool, suppressions }),
            router,
            clock,
            tasks,
            committed,
            messages,
            sender: sender.clone(),
            carriers: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            recent: VecDeque::new(),
            healthy: true,
        };
        (engine, Handle(sender))
    }

    /// Runs until `stop`, and then until what had begun has ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut stopping = false;
        loop {
            let wake = self.core.next_wake();
            tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.core.handle(Input::Stop, self.clock.now());
                }
                taken = self.messages.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    for message in batch.drain(..) {
                        self.take(message);
                    }
                }
                Some(committed) = self.committed.recv() => {
                    self.core.handle(Input::Accepted(committed), self.clock.now());
                }
                () = self.clock.sleep_until(wake) => self.core.handle(Input::Tick, self.clock.now()),
            }
            self.look_at_spool();
            self.carry_out();
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
            Message::Snapshot(answer) => {
                let _ = answer.send(self.core.snapshot(now));
            }
            Message::Standing { ids, answer } => {
                let standings = ids.into_iter().map(|id| self.core.standing(id, now)).collect();
                let _ = answer.send(standings);
            }
            Message::BeginRead(answer) => {
                self.core.handle(Input::ReadBegin, now);
                let _ = answer.send(());
            }
            Message::Adjust { adjust, rows, answer } => {
                self.next_ticket += 1;
                self.tickets.insert(self.next_ticket, answer);
                self.core.handle(Input::Command { ticket: self.next_ticket, adjust, rows }, now);
            }
            Message::Reconfigure { settings, router } => {
                self.router = router;
                self.core.reconfigure(*settings, now);
            }
            Message::Outcomes { id, answer } => {
                let found = self.recent.iter().filter(|event| event.id == Some(id)).cloned().collect();
                let _ = answer.send(found);
            }
        }
    }

    fn look_at_spool(&mut self) {
        let healthy = self.parts.spool.healthy();
        if healthy != self.healthy {
            self.healthy = healthy;
            if healthy {
                tracing::info!("the spool can write again: deliveries go on");
            } else {
                tracing::error!("the spool cannot write: no delivery is begun, because its outcome could be lost");
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
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
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
            Action::Suppress { mailbox, class, reply, key } => self.suppress(mailbox, class, reply, key),
            Action::Load { until } => self.load(until),
            Action::Answer { ticket, left_alone } => {
                if let Some(answer) = self.tickets.remove(&ticket) {
                    let _ = answer.send(left_alone);
                }
            }
            Action::Warn(text) => tracing::warn!("{text}"),
        }
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
        self.tasks.spawn(carrier.carry(plan, job));
    }

    fn fetch(&self, id: DeliveryId) {
        let (spool, sender) = (self.parts.spool.clone(), self.sender.clone());
        self.tasks.spawn(async move {
            let stored = match spool.load(id).await {
                Ok(Some(stored)) => {
                    let excerpt = excerpt(&stored.body).await;
                    Some(Box::new(Fetched { stored, excerpt }))
                }
                Ok(None) => None,
                Err(error) => {
                    tracing::error!(%id, %error, "a delivery cannot be read from the spool; it comes back at the next start");
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

    fn suppress(&self, mailbox: Mailbox, class: crate::types::Class, reply: crate::types::Reply, key: u32) {
        let (parts, sender, now) = (self.parts.clone(), self.sender.clone(), self.clock.now());
        self.tasks.spawn(async move {
            if let Err(error) = parts.suppressions.note_refusal(&mailbox, class, &reply.to_string(), now).await {
                tracing::error!(recipient = %mailbox, %error, "cannot write the suppression list");
            }
            let _ = sender.send(Message::Input(Input::Suppressed { key })).await;
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
                    let rows = page.into_iter().filter_map(row).collect();
                    if sender.send(Message::Input(Input::Loaded(rows))).await.is_err() || complete || after.is_none() {
                        break;
                    }
                }
            }
            let _ = sender.send(Message::Input(Input::ReadEnd)).await;
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
        delay_reported: summary.delay_reported,
        recipients: recipients.map(|mailbox| super::key_of(&mailbox)).collect(),
        flow: super::flow_of(&sender),
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
        delay_reported: delivery.delay_reported,
        recipients: delivery.recipients.iter().map(|recipient| super::key_of(&recipient.address)).collect(),
        flow: super::flow_of(&listed.envelope.sender),
    }
}

/// Reads the whole queue at start, oldest first, while the relay already works. Says how many deliveries there were.
pub async fn read_backlog(spool: &Spool, handle: &Handle) -> Result<usize, String> {
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
        let rows = page.into_iter().filter_map(row).collect();
        if handle.send(Input::Loaded(rows)).await.is_err() || complete {
            break Ok(count);
        }
    };
    let _ = handle.send(Input::ReadEnd).await;
    result
}
