//! The answers behind the control socket: what operators ask, put to the engine, the spool and the suppression list.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::lanes;
use super::listing::narrowed;
use super::rules::InForce;
use super::seen::Seen;
use crate::admin::record::{
    Acted, FeedbackRecord, LaneRecord, OutcomeRecord, QueueDetail, QueueRecord, QueueState, RelayRecord, StatusRecord,
};
use crate::admin::{Action, Answer, Control, Failed, Filter, Input as Lines, Request};
use crate::clock::Clock;
use crate::dispatch::engine::{Handle, Order, row_of};
use crate::dispatch::lifetime_of;
use crate::dispatch::message::{Adjust, Input};
use crate::dispatch::status::{Snapshot, Standing};
use crate::feedback::reading::HEAD_MAX;
use crate::inbound::Gate;
use crate::queue::Retry;
use crate::spool::{self, Listed, Spool};
use crate::state;
use crate::suppress::List;
use crate::throttle::{EVERYTHING, LaneOrder};
use crate::types::{DeliveryId, Event, Mailbox, NextHop, QueueId, Stage, Timestamp, Verdict};

/// Deliveries read and matched in one go.
const PAGE: usize = 500;
/// How often the engine is asked whether a message has its answer.
const OUTCOME_PAUSE: Duration = Duration::from_millis(50);

/// How often a client hears how far long work is.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// What the relay tells about itself and does not change while it runs.
pub(super) struct About {
    pub since: Timestamp,
    pub data_dir: String,
    pub listeners: Vec<String>,
    pub disk_min_bytes: u64,
}

pub(super) struct RelayControl {
    pub about: About,
    pub engine: Handle,
    pub spool: Spool,
    pub suppressions: List,
    pub state: state::Store,
    pub clock: Clock,
    pub rules: Arc<InForce>,
    pub retry: Retry,
    pub identity: Arc<super::identity::Known>,
    pub reading_backlog: Arc<AtomicBool>,
    pub gate: Gate,
    pub seen: Seen,
    pub tasks: TaskTracker,
    /// None: `[feedback]` is off.
    pub feedback: Option<Arc<super::feedback::Feedback>>,
}

/// What is done to deliveries.
#[derive(Clone, Copy)]
enum Act<'a> {
    Adjust(Adjust),
    Reroute(&'a NextHop),
}

/// Tells the client how far long work is, where it asked for that.
struct Teller<'a> {
    answer: &'a Answer,
    /// Milliseconds since 1970; none: it did not ask.
    next: Option<AtomicI64>,
}

impl<'a> Teller<'a> {
    fn new(answer: &'a Answer, is_wanted: bool, now: Timestamp) -> Teller<'a> {
        let next = is_wanted.then(|| AtomicI64::new((now + PROGRESS_EVERY).millis()));
        Teller { answer, next }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let due = |next: &AtomicI64| {
            let is_due = now.millis() >= next.load(Ordering::Relaxed);
            if is_due {
                next.store((now + PROGRESS_EVERY).millis(), Ordering::Relaxed);
            }
            is_due
        };
        self.next.as_ref().is_some_and(due)
    }
}

/// Rows of the queue are being read; when it is dropped, no more.
struct Reading {
    engine: Handle,
    tasks: TaskTracker,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let engine = self.engine.clone();
        // An engine that has ended reads nothing.
        self.tasks.spawn(async move { drop(engine.send(Input::ReadEnd).await) });
    }
}

impl Control for RelayControl {
    async fn answer(&self, request: Request, input: Lines, answer: Answer) -> Result<(), Failed> {
        match request {
            Request::Status => self.status(&answer).await,
            Request::Health { .. } => {
                let counts = self.engine.counts().await.map_err(failed)?;
                Ok(answer.record(&self.relay(&counts).await).await?)
            }
            Request::QueueList { filter } => self.queue_list(filter, &answer).await,
            Request::QueueShow { id } => self.queue_show(id, &answer).await,
            Request::QueueAct { action, filter, progress } => {
                self.queue_act(action, &filter, Teller::new(&answer, progress, self.clock.now())).await
            }
            Request::QueueReroute { filter, to, progress } => {
                self.queue_reroute(&to, &filter, Teller::new(&answer, progress, self.clock.now())).await
            }
            Request::Pause { provider } => {
                self.order(Order::Provider { provider, order: LaneOrder::Pause }, &answer).await
            }
            Request::Resume { provider, force } => {
                self.order(Order::Provider { provider, order: LaneOrder::Resume { force } }, &answer).await
            }
            Request::PauseDomain { domain } => {
                self.order(Order::Domain { domain, order: LaneOrder::Pause }, &answer).await
            }
            Request::ResumeDomain { domain, force } => {
                self.order(Order::Domain { domain, order: LaneOrder::Resume { force } }, &answer).await
            }
            Request::PauseAll => self.order(Order::All { order: LaneOrder::Pause }, &answer).await,
            Request::ResumeAll { force } => {
                self.order(Order::All { order: LaneOrder::Resume { force } }, &answer).await
            }
            Request::Forget { provider, source } => self.order(Order::Forget { provider, source }, &answer).await,
            Request::SuppressList { filter } => self.suppress_list(&filter, &answer).await,
            Request::SuppressCheck { recipient } => self.suppress_check(&recipient, &answer).await,
            Request::SuppressAdd { recipient, class, reason, expires } => {
                self.suppress_add(&recipient, class, &reason, expires, &answer).await
            }
            Request::SuppressRemove { recipients } => self.suppress_remove(recipients, &answer).await,
            Request::SuppressSweep { filter, dry_run } => self.suppress_sweep(&filter, dry_run, &answer).await,
            Request::SuppressWaves => self.suppress_waves(&answer).await,
            Request::SuppressConfirm { wave } => self.suppress_confirm(&wave, &answer).await,
            Request::SuppressImport => self.suppress_import(input, &answer).await,
            Request::Feedback { message, recipient } => {
                let head = BASE64_STANDARD.decode(message).map_err(|_| Failed::new("message: it is no base64"))?;
                Ok(answer.record(&self.feedback(head, recipient.as_ref(), None).await?).await?)
            }
            Request::Outcome { id, wait_ms } => self.outcome(id, Duration::from_millis(wait_ms), &answer).await,
        }
    }
}

impl RelayControl {
    pub(super) async fn snapshot(&self) -> Result<Snapshot, Failed> {
        self.engine.snapshot().await.map_err(failed)
    }

    /// One answer to our mail, from an operator's pipe.
    pub(super) async fn feedback(
        &self,
        mut head: Vec<u8>,
        recipient: Option<&Mailbox>,
        client: Option<IpAddr>,
    ) -> Result<FeedbackRecord, Failed> {
        let Some(feedback) = &self.feedback else {
            return Err(Failed::new(
                "feedback.domain is not set: no mail of this relay carries tokens, and none can be read",
            ));
        };
        head.truncate(HEAD_MAX);
        let outcome = feedback.take(super::feedback::Answer { head, recipient, client }).await.map_err(failed)?;
        let sent = outcome.sent;
        Ok(FeedbackRecord {
            event: outcome.event.to_string(),
            id: sent.as_ref().map(|sent| sent.delivery.message),
            sender: sent.as_ref().map(|sent| sent.sender.to_string()),
            recipient: sent.map(|sent| sent.recipient.to_string()),
            suppressed: outcome.suppressed,
            text: outcome.text,
        })
    }

    async fn status(&self, answer: &Answer) -> Result<(), Failed> {
        let snapshot = self.snapshot().await?;
        answer.record(&StatusRecord::Relay(self.relay(&snapshot).await)).await?;
        let rules = self.rules.get();
        for lane in lanes::records(&snapshot, &rules) {
            answer.record(&StatusRecord::Lane(lane)).await?;
        }
        Ok(())
    }

    pub(super) async fn relay(&self, snapshot: &Snapshot) -> RelayRecord {
        let counts = self.spool.reader().counts().await.unwrap_or_default();
        let room = self.spool.room(0).err().map(|shortage| shortage.to_string());
        let spool_fault = (!self.spool.healthy()).then(|| "the spool cannot write: see the log".to_string());
        let mut problems: Vec<String> = self.identity.problem().into_iter().collect();
        if snapshot.port_shut {
            let text = "port 25 seems closed from this network: ask the provider to open it, or set a [[route]]; \
                        `weir doctor` tries every address";
            problems.push(text.into());
        }
        problems.extend(room.clone());
        problems.extend(spool_fault.clone());
        let panics = self.gate.panics();
        if panics > 0 {
            let sessions = if panics == 1 { "session of a client" } else { "sessions of clients" };
            problems.push(format!("{panics} {sessions} ended in a fault of weir's own: see the log, and report it"));
        }
        let (active, held) = (snapshot.active as u64, snapshot.held as u64);
        RelayRecord {
            version: env!("CARGO_PKG_VERSION").to_string(),
            hostname: self.identity.name(),
            since: self.about.since,
            data_dir: self.about.data_dir.clone(),
            listeners: self.about.listeners.clone(),
            messages: counts.messages,
            waiting: counts.deliveries.saturating_sub(active + held),
            active,
            held,
            oldest: counts.oldest,
            reading_backlog: self.reading_backlog.load(Ordering::Relaxed),
            unrouted: snapshot.waiting.get(&None).copied().unwrap_or(0) as u64,
            disk_free_bytes: self.spool.free_bytes().unwrap_or(0),
            disk_min_bytes: self.about.disk_min_bytes,
            clients: self.gate.open() as u64,
            clients_allowed: self.gate.connections() as u64,
            panics,
            seen: self.seen.records(),
            ready: spool_fault.is_none() && room.is_none() && self.identity.problem().is_none() && !snapshot.port_shut,
            spool_fault,
            problems,
        }
    }

    /// Walks over the deliveries that a filter means; with how each stands, where that is wanted or the filter asks for it.
    pub(super) async fn each<F, R>(&self, filter: &Filter, wanted: bool, mut visit: F) -> Result<(), Failed>
    where
        F: FnMut(Vec<(Listed, Option<Standing>)>) -> R,
        R: Future<Output = Result<(), Failed>>,
    {
        let now = self.clock.now();
        let mut left = filter.limit.unwrap_or(u64::MAX);
        let mut after = None;
        let narrow = narrowed(filter, now);
        while left > 0 {
            let page = self.spool.reader().list(narrow.clone(), after, PAGE).await.map_err(failed)?;
            let ids: Vec<DeliveryId> = page.rows.iter().map(|row| row.delivery.id).collect();
            let standings = match wanted || filter.provider.is_some() || filter.state.is_some() {
                true => self.engine.standing(ids).await.map_err(failed)?,
                false => vec![None; ids.len()],
            };
            let mut meant: Vec<(Listed, Option<Standing>)> = page
                .rows
                .into_iter()
                .zip(standings)
                .filter(|(row, standing)| {
                    let record = record(row, standing.as_ref());
                    let provider = record.provider.as_deref().unwrap_or_default();
                    filter.matches(&row.envelope, &row.delivery, provider, record.state, now)
                })
                .collect();
            meant.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= meant.len() as u64;
            visit(meant).await?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(())
    }

    async fn queue_list(&self, filter: Filter, answer: &Answer) -> Result<(), Failed> {
        self.each(&filter, true, |rows| async move {
            for (row, standing) in rows {
                answer.record(&record(&row, standing.as_ref())).await?;
            }
            Ok(())
        })
        .await
    }

    async fn queue_show(&self, id: QueueId, answer: &Answer) -> Result<(), Failed> {
        let details = self.details(id).await?;
        if details.is_empty() {
            return Err(Failed::new(format!("{id} is not in the queue: it has ended, or never was (weir queue list)")));
        }
        for detail in details {
            answer.record(&detail).await?;
        }
        Ok(())
    }

    /// All that is known of a message's deliveries; none: it is not in the queue.
    pub(super) async fn details(&self, id: QueueId) -> Result<Vec<QueueDetail>, Failed> {
        let (snapshot, rules) = (self.snapshot().await?, self.rules.get());
        let details = std::sync::Mutex::new(Vec::new());
        let filter = Filter { ids: vec![id], ..Filter::default() };
        self.each(&filter, true, |rows| {
            for (row, standing) in rows {
                let mut detail = QueueDetail::of(&row.envelope, &row.delivery);
                detail.record = record(&row, standing.as_ref());
                detail.expires = Some(self.retry.expires(id, lifetime_of(row.envelope.expire)));
                if let Some(standing) = standing {
                    detail.ahead = standing.ahead.map(|ahead| ahead as u64);
                    detail.turn_at = standing.turn_at;
                    detail.waits_for = Some(standing.waits_for);
                }
                let lanes = lanes::records_for(&snapshot, detail.record.provider.as_deref(), &rules);
                detail.lane = lane_of(&detail.record, &lanes).cloned();
                details.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(detail);
            }
            std::future::ready(Ok(()))
        })
        .await?;
        Ok(details.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    async fn queue_act(&self, action: Action, filter: &Filter, teller: Teller<'_>) -> Result<(), Failed> {
        let adjust = match action {
            Action::Flush => Adjust::Flush,
            Action::Hold => Adjust::Hold,
            Action::Release => Adjust::Release,
            Action::Bounce => Adjust::Bounce,
            Action::Remove => Adjust::Remove,
        };
        let (mut acted, skipped) = self.act_on_rows(Act::Adjust(adjust), filter, &teller).await?;
        if skipped > 0 {
            let (are, were) = if skipped == 1 { ("is", "was") } else { ("are", "were") };
            acted.note = Some(match adjust {
                Adjust::Release => format!("{skipped} {were} not held"),
                Adjust::Flush => {
                    format!("{skipped} {are} held or being tried just now: flush lifts no hold, limit or block")
                }
                Adjust::Hold => format!("{skipped} {were} held already, or about to end, and left alone"),
                _ => format!("{skipped} {are} being tried just now and {were} left alone"),
            });
        }
        Ok(teller.answer.record(&acted).await?)
    }

    async fn queue_reroute(&self, to: &NextHop, filter: &Filter, teller: Teller<'_>) -> Result<(), Failed> {
        let (mut acted, skipped) = self.act_on_rows(Act::Reroute(to), filter, &teller).await?;
        if skipped > 0 {
            let (are, were) = if skipped == 1 { ("is", "was") } else { ("are", "were") };
            acted.note = Some(format!("{skipped} {are} being tried just now and {were} left alone"));
        }
        Ok(teller.answer.record(&acted).await?)
    }

    /// What was done to how many, and how many were left alone; answers when it is on disk.
    async fn act_on_rows(&self, act: Act<'_>, filter: &Filter, teller: &Teller<'_>) -> Result<(Acted, usize), Failed> {
        // What ends while the rows are read must not come back with them. Also where the client goes in the middle of it.
        self.engine.begin_read().await.map_err(failed)?;
        let reading = Reading { engine: self.engine.clone(), tasks: self.tasks.clone() };
        let result = self.act_on_each(act, filter, teller).await;
        drop(reading);
        let done = result?;
        self.spool.flush().await.map_err(failed)?;
        Ok(done)
    }

    async fn act_on_each(&self, act: Act<'_>, filter: &Filter, teller: &Teller<'_>) -> Result<(Acted, usize), Failed> {
        self.spool.flush().await.map_err(failed)?;
        let state = std::sync::Mutex::new((BTreeSet::new(), Acted::default(), 0));
        self.each(filter, false, |rows| {
            let state = &state;
            async move {
                let ids = rows.iter().map(|(row, _)| row_of(row)).collect();
                let left_alone = match act {
                    Act::Adjust(adjust) => self.engine.adjust(adjust, ids).await,
                    Act::Reroute(to) => self.engine.reroute(to.clone(), ids).await,
                };
                let left_alone: BTreeSet<DeliveryId> = left_alone.map_err(failed)?.into_iter().collect();
                let so_far = {
                    let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    state.2 += left_alone.len();
                    for (row, _) in rows.iter().filter(|(row, _)| !left_alone.contains(&row.delivery.id)) {
                        state.0.insert(row.envelope.id);
                        state.1.recipients += row.delivery.recipients.len() as u64;
                    }
                    Acted { messages: state.0.len() as u64, ..state.1.clone() }
                };
                if teller.is_due(self.clock.now()) {
                    self.spool.flush().await.map_err(failed)?;
                    teller.answer.record(&so_far).await?;
                }
                Ok(())
            }
        })
        .await?;
        let (messages, mut acted, skipped) = state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        acted.messages = messages.len() as u64;
        Ok((acted, skipped))
    }

    /// Waits until every recipient of the message has a first answer.
    async fn outcome(&self, id: QueueId, wait: Duration, answer: &Answer) -> Result<(), Failed> {
        let wait = wait.min(crate::admin::protocol::OUTCOME_WAIT_MAX);
        let all_answered = async {
            loop {
                let events = self.engine.outcomes(id).await.map_err(failed)?;
                let answered: BTreeSet<&str> = events.iter().filter_map(|event| event.recipient.as_deref()).collect();
                let waiting = self.waiting(id).await?;
                if !answered.is_empty() && waiting.iter().all(|recipient| answered.contains(recipient.as_str())) {
                    return Ok::<_, Failed>(());
                }
                tokio::time::sleep(OUTCOME_PAUSE).await;
            }
        };
        if let Ok(result) = timeout(wait, all_answered).await {
            result?;
        }
        let mut latest: std::collections::BTreeMap<String, Arc<Event>> = std::collections::BTreeMap::new();
        for event in self.engine.outcomes(id).await.map_err(failed)? {
            if let Some(recipient) =
                event.recipient.clone().filter(|_| event.kind != crate::types::EventKind::Suppressed)
            {
                latest.insert(recipient, event);
            }
        }
        for (recipient, event) in latest {
            answer.record(&self.outcome_record(id, recipient, &event).await).await?;
        }
        Ok(())
    }

    async fn waiting(&self, id: QueueId) -> Result<Vec<String>, Failed> {
        let filter = spool::Filter { messages: [id].into(), ..spool::Filter::default() };
        let page = self.spool.reader().list(filter, None, PAGE).await.map_err(failed)?;
        let recipients = page.rows.iter().flat_map(|row| &row.delivery.recipients);
        Ok(recipients.map(|recipient| recipient.address.as_str().to_string()).collect())
    }

    async fn outcome_record(&self, id: QueueId, recipient: String, event: &Event) -> OutcomeRecord {
        let reply = event.reply.as_deref().and_then(crate::types::Reply::parse);
        let reading = reply.map(|reply| {
            let provider = event.provider.as_deref().unwrap_or("default");
            self.rules.get().read(provider, Stage::Rcpt, &reply)
        });
        let filter = spool::Filter { messages: [id].into(), ..spool::Filter::default() };
        let next_attempt = match self.spool.reader().list(filter, None, PAGE).await {
            Ok(page) => page.rows.iter().find_map(|row| row.delivery.next_attempt),
            Err(_) => None,
        };
        OutcomeRecord {
            id,
            recipient,
            event: event.kind,
            reply: event.reply.clone(),
            class: event.class,
            rule: event.rule.as_deref().map(str::to_string),
            verdict: event.verdict.and_then(|word| word.parse::<Verdict>().ok()),
            provider: event.provider.as_deref().map(str::to_string),
            source: event.source.as_deref().map(str::to_string),
            mx: event.mx.as_deref().map(str::to_string),
            tls: event.tls.as_deref().map(str::to_string),
            cause: reading.as_ref().map(|reading| reading.cause.to_string()).filter(|text| !text.is_empty()),
            remedy: reading.as_ref().map(|reading| reading.remedy.to_string()).filter(|text| !text.is_empty()),
            next_attempt,
        }
    }
}

pub(super) fn record(row: &Listed, standing: Option<&Standing>) -> QueueRecord {
    let mut record = QueueRecord::of(&row.envelope, &row.delivery);
    if let Some(standing) = standing {
        if standing.active {
            record.state = QueueState::Active;
        }
        if let Some(stop) = &standing.stop {
            record.stopped = stop.state.parse().ok();
            record.next_attempt = stop.until;
        }
        if let Some(provider) = &standing.provider {
            record.provider = Some(provider.to_string());
        }
        // Not tried yet: what it waits for is the reason.
        record.reason.get_or_insert_with(|| format!("waits for {}", standing.waits_for));
    }
    record
}

/// The lane that a delivery waits for: the pause of its domain, else the lane of the source it was tried from, else the
/// first of its provider, else the pause of everything.
fn lane_of<'a>(record: &QueueRecord, lanes: &'a [LaneRecord]) -> Option<&'a LaneRecord> {
    let paused = |lane: &&LaneRecord| lane.domain.as_ref() == Some(&record.domain);
    let own = |lane: &&LaneRecord| lane.domain.is_none() && Some(&lane.provider) == record.provider.as_ref();
    let same = |lane: &&LaneRecord| own(lane) && Some(&lane.source) == record.source.as_ref();
    let all = |lane: &&LaneRecord| lane.domain.is_none() && lane.provider == EVERYTHING;
    let find = |which: &dyn Fn(&&LaneRecord) -> bool| lanes.iter().find(|lane| which(lane));
    find(&paused).or_else(|| find(&same)).or_else(|| find(&own)).or_else(|| find(&all))
}

pub(super) fn failed(error: impl std::fmt::Display) -> Failed {
    Failed::new(error.to_string())
}
