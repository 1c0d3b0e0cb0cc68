//! The relay as `[http]` asks it: pages of what is long, the metrics, the plots and their samples.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{OnceCell, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::control::{RelayControl, failed, record};
use super::feedback::Click;
use super::intake::SpoolIntake;
use super::listing::{narrowed, narrowed_suppressions, suppress_record};
use super::submission::hand_in;
use crate::admin::record::{FeedbackRecord, LaneRecord, LaneState, QueueDetail, QueueRecord, RelayRecord};
use crate::admin::{Answer, Control, Failed, Filter, Input, Request, SuppressFilter, SuppressRecord};
use crate::alert::Alerts;
use crate::auth::Auth;
use crate::clock::Clock;
use crate::config::Config;
use crate::event::backward::{self, Limits};
use crate::event::{Choice, Entry};
use crate::feedback::reading::HEAD_MAX as HEAD_READ;
use crate::http::{Clicked, Counted, EventPage, Means, Page, StandingAlert};
use crate::inbound::Front;
use crate::metrics::history::{History, LaneState as LaneSample, SAMPLE_SECS, Span, State};
use crate::metrics::{File, Gauges, LaneGauges, Meters, OTHER};
use crate::route::dns::Dns;
use crate::submit::keys::{Begun, Keys, Mark};
use crate::submit::{NotTaken, Submission, Submitted};
use crate::suppress::{PIECE, Place};
use crate::throttle::Profiles;
use crate::types::{Body, DeliveryId, Domain, EventKind, Mailbox, QueueId, Timestamp};

/// How long is looked for one page of the queue; it ends then, with what was found and where to go on.
const LOOK_TIME: Duration = Duration::from_millis(80);
/// Deliveries whose standing is asked for at once where a page takes more than one look.
const PIECE_MAX: usize = 1000;
/// Pages of the suppression list that are looked at for one page of an answer.
const LOOKS: usize = 4;
/// How long may be counted for a preview.
const COUNT_TIME: Duration = Duration::from_secs(5);
/// Of the event log that is read for one page: some 50 ms.
const EVENT_OCTETS: u64 = 32 << 20;
/// Events that are read at once in search of one message.
const TAKEN_PAGE: usize = 100;
/// Of a header that is shown.
const HEADER_MAX: usize = 64 << 10;
/// The oldest mail is looked for so often at most, among so many domains and rows.
const OLDEST_EVERY: Duration = Duration::from_secs(30);
const OLDEST_DOMAINS: usize = 2000;
const OLDEST_ROWS: usize = 200_000;
/// Lanes that are asked for: those of a sample.
const LANES_MAX: usize = 10_000;

pub(super) struct RelaySite {
    pub control: Arc<RelayControl>,
    pub meters: Meters,
    pub lines: broadcast::Sender<Bytes>,
    pub alerts: Alerts,
    pub stopping: CancellationToken,
    pub clock: Clock,
    pub settings: RwLock<Arc<InForce>>,
    pub events: PathBuf,
    pub history: Mutex<History>,
    pub oldest: Mutex<Oldest>,
    pub front: Arc<Front<SpoolIntake>>,
    pub auth: Auth,
    /// Opened when the first message with a key comes.
    pub keys: OnceCell<Keys>,
    pub data_dir: PathBuf,
    pub message_size_max: u64,
}

/// What of the configuration is asked for; replaced when that is.
pub(super) struct InForce {
    pub config: Config,
    pub profiles: Profiles,
    pub dns: Arc<dyn Dns>,
}

impl InForce {
    pub(super) fn of(config: &Config, dns: Arc<dyn Dns>) -> Arc<InForce> {
        Arc::new(InForce { config: config.clone(), profiles: Profiles::new(&config.provider), dns })
    }
}

/// The oldest mail by label, as it was found last.
#[derive(Default)]
pub(super) struct Oldest {
    looked: Option<Timestamp>,
    found: BTreeMap<String, Timestamp>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RelaySite {
    /// Takes samples for the plots until `stop`; keeps them in the data folder.
    pub(super) fn keep_history(self: &Arc<RelaySite>, data_dir: PathBuf, tasks: &TaskTracker, stop: CancellationToken) {
        let site = self.clone();
        tasks.spawn(async move {
            let opened = tokio::task::spawn_blocking(move || File::open(&data_dir)).await;
            let mut file = match opened {
                Ok(Ok((file, history))) => {
                    *lock(&site.history) = history;
                    Some(file)
                }
                Ok(Err(fault)) => {
                    tracing::warn!("{fault}; the plots are kept in memory alone");
                    None
                }
                Err(_) => None,
            };
            let mut is_told = false;
            loop {
                let next = site.clock.now() + Duration::from_secs(SAMPLE_SECS.unsigned_abs());
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = site.clock.wake_at(next) => {}
                }
                let now = site.clock.now();
                let Ok(state) = site.state(now).await else { continue };
                let changed = lock(&site.history).add(&site.meters.take_tally(), &state, now);
                let Some(mut taken) = file.take() else { continue };
                let written = tokio::task::spawn_blocking(move || (taken.write(&changed, now), taken)).await;
                let Ok((written, taken)) = written else { return };
                file = Some(taken);
                if let Err(fault) = &written
                    && !is_told
                {
                    tracing::warn!("the history of the plots cannot be written: {fault}");
                }
                is_told = written.is_err();
            }
        });
    }

    /// Takes a changed configuration.
    pub(super) fn reload(&self, config: &Config, dns: Arc<dyn Dns>) {
        let settings = InForce::of(config, dns);
        self.meters.set_named(settings.profiles.iter().map(|profile| profile.name.clone()));
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn settings(&self) -> Arc<InForce> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn state(&self, now: Timestamp) -> Result<State, Failed> {
        let (relay, lanes) = self.standing().await?;
        let of = |lane: &LaneRecord| LaneSample {
            provider: lane.provider.clone(),
            source: lane.source.clone(),
            connections: lane.connections,
            allowed: lane.connections_allowed,
            ceiling: lane.ceiling,
            rate: lane.rate.unwrap_or(0.0),
        };
        // Those with most mail have a place in the plots.
        let mut busy: Vec<&LaneRecord> =
            lanes.iter().filter(|lane| lane.domain.is_none() && lane.source != crate::throttle::EVERY_SOURCE).collect();
        busy.sort_by_key(|lane| std::cmp::Reverse((self.is_named(&lane.provider), lane.waiting, lane.connections)));
        Ok(State {
            queue: relay.messages,
            oldest_seconds: relay.oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64()),
            lanes: busy.into_iter().map(of).collect(),
        })
    }

    fn is_named(&self, provider: &str) -> bool {
        self.meters.label(Some(provider)) != OTHER
    }

    /// The relay and its lanes.
    async fn standing(&self) -> Result<(RelayRecord, Vec<LaneRecord>), Failed> {
        let snapshot = self.control.snapshot().await?;
        let relay = self.control.relay(&snapshot).await;
        let rules = self.control.rules.get();
        Ok((relay, super::lanes::records(&snapshot, &rules).take(LANES_MAX).collect()))
    }

    async fn gauges(&self) -> Result<Gauges, Failed> {
        let now = self.clock.now();
        let (relay, lanes) = self.standing().await?;
        let bytes = self.control.spool.reader().counts().await.map_or(0, |counts| counts.bytes);
        let memory = tokio::task::spawn_blocking(crate::memory::resident_bytes).await.ok().flatten();
        Ok(Gauges {
            queue: vec![("waiting", relay.waiting), ("active", relay.active), ("held", relay.held)],
            queue_messages: relay.messages,
            oldest_seconds: self.oldest(now, relay.messages == 0).await,
            lanes: self.lane_gauges(&lanes, now),
            spool_free_bytes: relay.disk_free_bytes,
            spool_bytes: bytes,
            clients: relay.clients,
            clients_allowed: relay.clients_allowed,
            memory_bytes: memory,
            alerts: self.alerts.standing().len() as u64,
            ready: relay.ready && !self.is_stopping(),
            started: relay.since.millis() as f64 / 1000.0,
        })
    }

    /// Lanes under their labels: those without one of their own are added up.
    fn lane_gauges(&self, lanes: &[LaneRecord], now: Timestamp) -> Vec<LaneGauges> {
        let mut gauges: BTreeMap<(String, String), LaneGauges> = BTreeMap::new();
        for lane in lanes.iter().filter(|lane| lane.domain.is_none()) {
            let (provider, source) = match lane.provider.as_str() {
                crate::throttle::EVERYTHING => (lane.provider.clone(), lane.source.clone()),
                name => (self.meters.label(Some(name)), lane.source.clone()),
            };
            let gauge = gauges.entry((provider.clone(), source.clone())).or_default();
            (gauge.provider, gauge.source) = (provider, source);
            gauge.connections += lane.connections;
            gauge.connections_allowed += lane.connections_allowed;
            gauge.rate_per_minute += lane.rate.unwrap_or(0.0);
            gauge.breaker_open |= lane.state == LaneState::Blocked;
            let is_still = matches!(lane.state, LaneState::Paused | LaneState::Blocked | LaneState::Stopped);
            let still = lane.since.filter(|_| is_still).map_or(0.0, |since| now.since(since).as_secs_f64());
            gauge.paused_seconds = gauge.paused_seconds.max(still);
        }
        gauges.into_values().collect()
    }

    /// The age of the oldest mail by label. A walk over a long queue is not made for each question.
    async fn oldest(&self, now: Timestamp, is_empty: bool) -> Vec<(String, f64)> {
        let is_fresh = lock(&self.oldest).looked.is_some_and(|at| at <= now && now.since(at) < OLDEST_EVERY);
        if is_empty {
            lock(&self.oldest).found.clear();
        } else if !is_fresh {
            let found = self.find_oldest().await.unwrap_or_default();
            let mut oldest = lock(&self.oldest);
            oldest.looked = Some(now);
            oldest.found = found;
        }
        let age = |(label, since): (&String, &Timestamp)| (label.clone(), now.since(*since).as_secs_f64());
        lock(&self.oldest).found.iter().map(age).collect()
    }

    async fn find_oldest(&self) -> Option<BTreeMap<String, Timestamp>> {
        let ids = self.control.spool.reader().oldest_of_domains(OLDEST_DOMAINS, OLDEST_ROWS).await.ok()?;
        let standings = self.control.engine.standing(ids.clone()).await.ok()?;
        let mut found = BTreeMap::new();
        for (id, standing) in ids.into_iter().zip(standings) {
            let label = self.meters.label(standing.and_then(|standing| standing.provider).as_deref());
            found.entry(label).or_insert_with(|| id.message.received());
        }
        Some(found)
    }
}

impl Control for RelaySite {
    async fn answer(&self, request: Request, input: Input, answer: Answer) -> Result<(), Failed> {
        self.control.answer(request, input, answer).await
    }
}

impl Means for RelaySite {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn relay(&self) -> Result<RelayRecord, Failed> {
        let counts = self.control.engine.counts().await.map_err(failed)?;
        Ok(self.control.relay(&counts).await)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    async fn metrics(&self) -> Result<String, Failed> {
        let gauges = self.gauges().await?;
        Ok(self.meters.page(&gauges))
    }

    fn alerts(&self) -> Vec<StandingAlert> {
        let shown = |standing: crate::alert::Standing| StandingAlert {
            key: standing.alert.key,
            since: standing.since,
            text: standing.alert.text,
            remedy: standing.alert.remedy,
            provider: standing.alert.provider,
        };
        self.alerts.standing().into_iter().map(shown).collect()
    }

    async fn queue_page(
        &self,
        filter: Filter,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<QueueRecord>, Failed> {
        let now = self.clock.now();
        let narrow = narrowed(&filter, now);
        let mut after = after.as_deref().map(delivery_id).transpose()?;
        let mut items = Vec::new();
        let begun = self.clock.elapsed();
        let mut piece = limit.max(100);
        loop {
            let page = self.control.spool.reader().list(narrow.clone(), after, piece).await.map_err(failed)?;
            let ids: Vec<DeliveryId> = page.rows.iter().map(|row| row.delivery.id).collect();
            let standings = self.control.engine.standing(ids).await.map_err(failed)?;
            for (row, standing) in page.rows.iter().zip(&standings) {
                let shown = record(row, standing.as_ref());
                let provider = shown.provider.as_deref().unwrap_or_default();
                if filter.matches(&row.envelope, &row.delivery, provider, shown.state, now) {
                    if items.len() == limit {
                        return Ok(Page { items, next: after.map(|id| id.to_string()) });
                    }
                    items.push(shown);
                }
                after = Some(row.delivery.id);
            }
            after = page.next;
            if after.is_none() || items.len() == limit || self.clock.elapsed().saturating_sub(begun) >= LOOK_TIME {
                break;
            }
            piece = PIECE_MAX;
        }
        Ok(Page { items, next: after.map(|id| id.to_string()) })
    }

    async fn queue_count(&self, filter: Filter) -> Result<Counted, Failed> {
        let counted = Mutex::new((Counted::default(), None));
        let counting = self.control.each(&filter, false, |rows| {
            let counted = &counted;
            async move {
                let mut counted = lock(counted);
                for (row, _) in rows {
                    // The deliveries of a message stand beside each other.
                    if counted.1 != Some(row.envelope.id) {
                        counted.1 = Some(row.envelope.id);
                        counted.0.messages += 1;
                    }
                    counted.0.recipients += row.delivery.recipients.len() as u64;
                }
                Ok(())
            }
        });
        let at_least = match tokio::time::timeout(COUNT_TIME, counting).await {
            Ok(done) => done.map(|()| false)?,
            Err(_) => true,
        };
        let (counted, _) = *lock(&counted);
        Ok(Counted { at_least, ..counted })
    }

    async fn queue_message(&self, id: QueueId) -> Result<Vec<QueueDetail>, Failed> {
        self.control.details(id).await
    }

    async fn header(&self, id: QueueId) -> Result<Option<String>, Failed> {
        let filter = Filter { ids: vec![id], ..Filter::default() };
        let page =
            self.control.spool.reader().list(narrowed(&filter, self.clock.now()), None, 1).await.map_err(failed)?;
        let Some(row) = page.rows.first() else { return Ok(None) };
        let Some(stored) = self.control.spool.reader().load(row.delivery.id).await.map_err(failed)? else {
            return Ok(None);
        };
        let head = tokio::task::spawn_blocking(move || head(&stored.body)).await.map_err(failed)?.map_err(failed)?;
        let end = memchr::memmem::find(&head, b"\r\n\r\n").map_or(head.len(), |at| at + 2);
        Ok(Some(String::from_utf8_lossy(&head[..end]).into_owned()))
    }

    async fn suppressions_page(
        &self,
        filter: SuppressFilter,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<SuppressRecord>, Failed> {
        let narrow = narrowed_suppressions(&filter).map_err(Failed::new)?;
        let mut after = after.as_deref().map(Place::parse);
        let list = self.control.suppressions.clone();
        let (mut items, mut looks) = (Vec::new(), 0);
        while looks < LOOKS && items.len() < limit {
            looks += 1;
            let (list, narrow, from, count) =
                (list.clone(), narrow.clone(), after.clone(), (limit - items.len()).min(PIECE));
            let page =
                tokio::task::spawn_blocking(move || list.list(&narrow, from.as_ref(), count)).await.map_err(failed)?;
            let page = page.map_err(failed)?;
            let meant = |entry: &crate::suppress::Entry| {
                filter.recipient.is_none()
                    || crate::types::Mailbox::parse(&entry.recipient)
                        .is_ok_and(|mailbox| filter.matches_recipient(&mailbox))
            };
            items.extend(page.entries.into_iter().filter(meant).map(suppress_record));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(Page { items, next: after.map(|place| place.to_string()) })
    }

    async fn suppressions_count(&self) -> Result<u64, Failed> {
        let list = self.control.suppressions.clone();
        tokio::task::spawn_blocking(move || list.count()).await.map_err(failed)?.map_err(failed)
    }

    async fn undo_wave(&self, wave: String) -> Result<u64, Failed> {
        let filter = SuppressFilter { wave: Some(wave), expired: true, ..SuppressFilter::default() };
        let narrow = narrowed_suppressions(&filter).map_err(Failed::new)?;
        self.control.suppressions.remove_all(&narrow).await.map_err(failed)
    }

    async fn events(&self, choice: Choice, before: Option<String>, limit: usize) -> Result<EventPage, Failed> {
        let before = before.map(|text| text.parse::<u64>());
        let before = before
            .transpose()
            .map_err(|_| Failed::new("before: give the `next` of the page before as it was given"))?;
        let (folder, limits) = (self.events.clone(), Limits { lines: limit, octets: EVENT_OCTETS });
        let page = tokio::task::spawn_blocking(move || backward::page(&folder, &choice, before, limits)).await;
        let page = page.map_err(failed)?.map_err(failed)?;
        let lines = page.lines.into_iter().map(|line| line.text).collect();
        Ok(EventPage { lines, next: page.before.map(|seq| seq.to_string()) })
    }

    fn follow(&self) -> broadcast::Receiver<Bytes> {
        self.lines.subscribe()
    }

    fn history(&self, span: Span) -> Value {
        lock(&self.history).plots(span, self.clock.now())
    }

    fn profiles(&self) -> Vec<Value> {
        self.settings()
            .profiles
            .iter()
            .map(|profile| {
                serde_json::json!({
                    "name": profile.name,
                    "profile": true,
                    "ceiling": profile.max_connections,
                    "lanes": [],
                    "waiting": 0,
                    "pace": null,
                    "empty_at": null,
                    "initial_connections": profile.initial_connections,
                    "messages_per_connection": profile.messages_per_connection,
                    "recipients_per_message": profile.recipients_per_message,
                    "max_rate_per_minute": profile.max_rate,
                    "pause_seconds": profile.pause.as_secs_f64(),
                    "pause_max_seconds": profile.pause_max.as_secs_f64(),
                    "probe_block_seconds": profile.probe_block.as_secs_f64(),
                })
            })
            .collect()
    }

    fn explain(&self, reply: &str, provider: Option<&str>, stage: Option<&str>) -> Result<Value, Failed> {
        let stage =
            stage.map(str::parse).transpose().map_err(|_| Failed::new("stage: one of connect ehlo mail rcpt data"))?;
        let settings = self.settings();
        let pause = |provider: &str| settings.profiles.get(provider).pause;
        let rules = self.control.rules.get();
        let explained = crate::verdict::explained(&rules, reply, provider, stage, pause).map_err(Failed::new)?;
        serde_json::to_value(explained).map_err(failed)
    }

    fn user_of_token(&self, token: &str) -> Option<String> {
        self.auth.user_of_token(token.as_bytes()).map(|user| user.name.to_string())
    }

    async fn log_in(&self, client: IpAddr, user: &str, password: &str) -> Result<String, Failed> {
        let user = self.auth.log_in(client, user, password.as_bytes()).await;
        user.map(|user| user.name.to_string()).map_err(failed)
    }

    fn message_size_max(&self) -> u64 {
        self.message_size_max
    }

    fn message_id(&self, sender: &str, key: Option<&Mark>) -> String {
        let domain = sender.rsplit_once('@').map(|(_, domain)| domain.trim().trim_end_matches('>'));
        let is_plain = |domain: &&str| Domain::parse(domain).is_ok() && domain.is_ascii();
        let own = || self.control.identity.name().unwrap_or_else(super::identity::private_name);
        let domain = domain.filter(is_plain).map_or_else(own, str::to_string);
        let local = match key {
            Some(key) => key[..16].iter().map(|octet| format!("{octet:02x}")).collect::<String>(),
            None => format!("{}.{:08x}", self.control.spool.ids().next(self.clock.now()), fastrand::u32(..)),
        };
        format!("<{local}@{domain}>")
    }

    async fn submit(&self, user: Option<String>, client: IpAddr, message: Submission) -> Result<Submitted, NotTaken> {
        let user = match user {
            None => None,
            Some(name) => match self.auth.user(&name) {
                Some(user) => Some(user),
                None => {
                    return Err(NotTaken { code: 550, text: format!("550 5.7.1 there is no user {name} any more") });
                }
            },
        };
        hand_in(&self.front, user, client, message, &self.stopping).await
    }

    async fn begin_key(&self, key: Mark, body: Mark) -> Result<Begun, Failed> {
        let open = || async {
            let data_dir = self.data_dir.clone();
            tokio::task::spawn_blocking(move || Keys::open(&data_dir)).await.map_err(failed)?.map_err(Failed::new)
        };
        let (keys, now) = (self.keys.get_or_try_init(open).await?.clone(), self.clock.now());
        let begun = tokio::task::spawn_blocking(move || keys.begin(key, body, now)).await;
        begun.map_err(failed)?.map_err(Failed::new)
    }

    async fn taken_since(&self, message_id: &str, since: Timestamp) -> Result<Option<QueueId>, Failed> {
        let choice = Choice {
            kinds: vec![EventKind::Accepted, EventKind::Removed],
            message_id: Some(message_id.to_string()),
            since: Some(since),
            ..Choice::default()
        };
        let (mut before, mut undone) = (None, BTreeSet::new());
        loop {
            let page = self.events(choice.clone(), before, TAKEN_PAGE).await?;
            for line in &page.lines {
                let Some(entry) = Entry::parse(line) else { continue };
                match (entry.kind, entry.id) {
                    // What was told as accepted and was not stored before a crash has come to its end since.
                    (EventKind::Removed, Some(id)) if entry.rule.as_deref() == Some(super::reconcile::NOT_STORED) => {
                        undone.insert(id);
                    }
                    (EventKind::Accepted, Some(id)) if !undone.contains(&id) => return Ok(Some(id)),
                    _ => {}
                }
            }
            before = page.next;
            if before.is_none() {
                return Ok(None);
            }
        }
    }

    async fn feedback(
        &self,
        message: Bytes,
        recipient: Option<Mailbox>,
        client: IpAddr,
    ) -> Result<FeedbackRecord, Failed> {
        let head = message[..message.len().min(HEAD_READ)].to_vec();
        self.control.feedback(head, recipient.as_ref(), Some(client)).await
    }

    async fn click(&self, token: &str, client: IpAddr) -> Clicked {
        match &self.control.feedback {
            Some(feedback) => clicked(feedback.click(token, client).await),
            None => Clicked::Off,
        }
    }

    fn peek(&self, token: &str) -> Clicked {
        self.control.feedback.as_ref().map_or(Clicked::Off, |feedback| clicked(feedback.peek(token)))
    }

    async fn report(&self, provider: String) -> Result<Option<String>, Failed> {
        let (settings, rules) = (self.settings(), self.control.rules.get());
        let made = crate::report::report(&provider, &settings.config, &rules, &*settings.dns, self.clock.now()).await;
        let report = made.map_err(|error| Failed::new(format!("{error:#}")))?;
        Ok((!report.is_empty()).then(|| report.lines().join("\n") + "\n"))
    }
}

fn clicked(click: Click) -> Clicked {
    match click {
        Click::Done => Clicked::Done,
        Click::Unknown => Clicked::Unknown,
        Click::Expired => Clicked::Expired,
        Click::Failed => Clicked::Failed,
    }
}

/// The beginning of a content.
fn head(body: &Body) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    match body {
        Body::Inline(content) => Ok(content[..content.len().min(HEADER_MAX)].to_vec()),
        Body::File { path, .. } | Body::Headed { path, .. } => {
            let mut head = Vec::new();
            std::fs::File::open(&**path)?.take(HEADER_MAX as u64).read_to_end(&mut head)?;
            Ok(head)
        }
    }
}

/// An anchor as it was given out.
fn delivery_id(text: &str) -> Result<DeliveryId, Failed> {
    let parsed = text
        .split_once('/')
        .and_then(|(message, part)| Some(DeliveryId { message: message.parse().ok()?, part: part.parse().ok()? }));
    parsed.ok_or_else(|| Failed::new("after: give the `next` of the page before as it was given"))
}
