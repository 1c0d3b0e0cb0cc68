//! Looks in time whether SPF, DKIM and DMARC speak for the mail of domains that send much, and tells somebody or holds it (`preflight`).
//!
//! What is looked at is a message that is really sent: one that waits, else the next that comes in. Counting costs a look-up for each delivery to a
//! receiver that asks for it; everything else happens a few times a day, beside the mail.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::alerts::RelayMeans;
use super::identity::Known;
use super::sealing::Sealing;
use super::seen::Seen;
use crate::alert::Alerts;
use crate::clock::Clock;
use crate::config::Config;
use crate::dispatch::engine::Handle;
use crate::doctor::{self, Finding};
use crate::event::history;
use crate::preflight::{Due, Plan, Step, Tally, day_end, day_start};
use crate::route::reachable::is_global;
use crate::spool::{Filter, Reader, Spool};
use crate::throttle::{HoldSender, Profiles};
use crate::types::words::count;
use crate::types::{ALL_CLEAR, Alert, DeliveryId, Domain, Event, EventKind, QueueId, Status, Timestamp};

/// A look is over by then.
const LOOK_TIME: Duration = Duration::from_secs(60);
/// So long a message is waited for where none of the domain waits.
const SAMPLE_TIME: Duration = Duration::from_secs(5);
/// Pages of the queue that are looked through for one.
const PAGES: usize = 5;
/// Between looks at a domain for which something is missing, in units of the receiver's pause.
const AGAIN: u32 = 6;
/// Deliveries of today that are counted at the start.
const COUNTED_MAX: u64 = 2_000_000;

/// What is counted while events are written. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Counter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    tally: Mutex<Tally>,
    news: Notify,
    is_idle: AtomicBool,
    /// A message of this domain is looked for; those that came in.
    wanted: Mutex<Option<(String, Vec<QueueId>)>>,
    is_wanted: AtomicBool,
    came: Notify,
    settings: RwLock<Settings>,
}

/// What the configuration says of it.
#[derive(Clone, Debug, Default)]
struct Settings {
    pauses: BTreeMap<Arc<str>, Duration>,
    sources: Vec<Source>,
    /// Domains whose mail goes out under another one, and that.
    return_path: (Vec<Domain>, Option<Domain>),
}

#[derive(Clone, Debug)]
struct Source {
    address: IpAddr,
    public: Option<IpAddr>,
    hostname: String,
}

impl Counter {
    pub(super) fn new(config: &Config) -> Counter {
        let counter = Counter::default();
        counter.set(config);
        counter
    }

    /// From now on as this configuration says.
    pub(super) fn set(&self, config: &Config) {
        let profiles = Profiles::new(&config.provider);
        let plan = |from, mode| Plan { from, mode };
        let plans: Vec<(Arc<str>, Plan)> =
            profiles.iter().map(|p| (p.name.clone(), plan(p.preflight_from, p.preflight))).collect();
        let mut tally = lock(&self.0.tally);
        tally.plan(plans);
        self.0.is_idle.store(tally.is_idle(), Ordering::Relaxed);
        let pauses = profiles.iter().map(|profile| (profile.name.clone(), profile.pause)).collect();
        let source = |source: &crate::outbound::options::Source| Source {
            address: source.address,
            public: source.public_address(),
            hostname: source.hostname.to_ascii_lowercase(),
        };
        let return_path = (config.feedback.return_path.clone(), Domain::parse(&config.feedback.domain).ok());
        let settings = Settings { pauses, sources: config.source.iter().map(source).collect(), return_path };
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Events that are being written.
    pub(super) fn count(&self, events: &[Event]) {
        if self.0.is_idle.load(Ordering::Relaxed) {
            return;
        }
        let mut is_due = false;
        let mut tally = lock(&self.0.tally);
        for event in events.iter().filter(|event| event.kind == EventKind::Delivered) {
            if let (Some(provider), Some(sender)) = (&event.provider, &event.sender) {
                is_due |= tally.took(provider, sender, event.time);
            }
        }
        drop(tally);
        if is_due {
            self.0.news.notify_one();
        }
        if self.0.is_wanted.load(Ordering::Relaxed) {
            self.offer(events);
        }
    }

    fn offer(&self, events: &[Event]) {
        let mut wanted = lock(&self.0.wanted);
        let Some((domain, ids)) = wanted.as_mut() else { return };
        let of_domain = |event: &&Event| {
            let sender = event.sender.as_deref().and_then(|sender| sender.rsplit_once('@'));
            event.kind == EventKind::Accepted && sender.is_some_and(|(_, of)| of.eq_ignore_ascii_case(domain))
        };
        let came: Vec<QueueId> = events.iter().filter(of_domain).filter_map(|event| event.id).collect();
        if !came.is_empty() {
            *ids = came;
            self.0.came.notify_one();
        }
    }
}

/// Who looks.
pub(super) struct Duty {
    pub(super) counter: Counter,
    pub(super) spool: Spool,
    pub(super) sealing: Arc<Sealing>,
    pub(super) means: Arc<RelayMeans>,
    pub(super) seen: Seen,
    pub(super) identity: Arc<Known>,
    pub(super) engine: Handle,
    pub(super) alerts: Alerts,
    pub(super) clock: Clock,
    pub(super) events: PathBuf,
}

impl Duty {
    /// Until the relay stops.
    pub(super) async fn run(self, stop: CancellationToken) {
        let work = async {
            self.catch_up().await;
            self.work().await;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// What was delivered today before the start, from the event log.
    async fn catch_up(&self) {
        let (now, folder, counter) = (self.clock.now(), self.events.clone(), self.counter.clone());
        if counter.0.is_idle.load(Ordering::Relaxed) {
            return;
        }
        let counted = tokio::task::spawn_blocking(move || {
            let mut seen = 0;
            // A log that cannot be read tells nothing, and is told of by others.
            let _unreadable = history::since(&folder, day_start(now), EventKind::Delivered, |line| {
                // What was written since the start was counted as it was.
                if line.time >= now || seen >= COUNTED_MAX {
                    return ControlFlow::Break(());
                }
                seen += 1;
                if let (Some(provider), Some(sender)) = (line.provider.as_deref(), line.sender.as_deref()) {
                    lock(&counter.0.tally).took(provider, sender, line.time);
                }
                ControlFlow::Continue(())
            });
            counter.0.news.notify_one();
        });
        let _ = counted.await;
    }

    async fn work(&self) {
        // When those for which something is missing are looked at again, and when what was told of them is old.
        let (mut again, mut told) = (BTreeMap::<Key, Timestamp>::new(), BTreeMap::<Key, Timestamp>::new());
        loop {
            let next = again.values().chain(told.values()).min().copied();
            let wait = next.map_or(Duration::from_secs(86_400), |at| at.since(self.clock.now()));
            tokio::select! {
                () = self.counter.0.news.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            let now = self.clock.now();
            let mut due: Vec<Key> = lock(&self.counter.0.tally).take_due().into_iter().map(key).collect();
            due.extend(again.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()));
            due.sort();
            due.dedup();
            for key in due {
                again.remove(&key);
                let (due, before) = (Due { provider: key.0.clone(), domain: key.1.clone() }, told.contains_key(&key));
                let step = self.look(&due, before).await;
                let now = self.clock.now();
                if step.again {
                    again.insert(key.clone(), (now + self.again(&due)).min(day_end(now)));
                }
                match step.alert {
                    true => told.insert(key, day_end(now) + Duration::from_secs(86_400)),
                    false => told.remove(&key),
                };
            }
            told.retain(|(provider, domain), until| {
                let is_old = *until <= now;
                if is_old {
                    self.well(provider, domain, "has not sent so much to it for a day");
                }
                !is_old
            });
        }
    }

    fn again(&self, due: &Due) -> Duration {
        let settings = self.counter.0.settings.read().unwrap_or_else(PoisonError::into_inner);
        settings.pauses.get(&due.provider).copied().unwrap_or(Duration::from_secs(600)) * AGAIN
    }

    async fn look(&self, due: &Due, told: bool) -> Step {
        let Ok(domain) = Domain::parse(&due.domain) else { return Step::default() };
        let header = self.sample(&due.domain).await;
        let (addresses, signers, dns) = (self.addresses(), self.sealing.signers(), self.means.dns());
        let mail_from = self.mail_from(&domain);
        let looked = doctor::authentication(&mail_from, &domain, header, &addresses, &signers, &*dns);
        // Where nobody answers nothing is known to be missing.
        let findings = timeout(LOOK_TIME, looked).await.unwrap_or_default();
        let missing: Vec<Finding> = findings.into_iter().filter(|finding| finding.status == Status::Fail).collect();
        let now = self.clock.now();
        let (step, counted) = {
            let mut tally = lock(&self.counter.0.tally);
            (tally.looked(due, !missing.is_empty(), now), tally.of(due))
        };
        if step.alert {
            self.tell(due, &missing, counted.unwrap_or_default(), step.hold);
        } else if told && missing.is_empty() {
            self.well(&due.provider, &due.domain, "is authenticated now");
        }
        if step.hold || told {
            let until = if step.hold { (now + self.again(due) * 2).min(day_end(now)) } else { now };
            let why = missing.iter().map(in_words).collect::<Vec<_>>().join("; ");
            let hold = HoldSender { provider: due.provider.clone(), domain, until, why };
            // A relay that stops holds nothing.
            let _ = self.engine.hold_sender(hold).await;
        }
        step
    }

    fn tell(&self, due: &Due, missing: &[Finding], (recipients, from): (u32, u32), holds: bool) {
        let (Due { provider, domain }, faults) = (due, missing.iter().map(in_words).collect::<Vec<_>>().join("; "));
        let held = if holds { "; its mail waits until that is mended or the day (UTC) is over" } else { "" };
        let remedies: Vec<&str> = missing.iter().filter_map(|finding| finding.remedy.as_deref()).collect();
        self.alerts.tell(Alert {
            key: alert_key(provider, domain),
            raised: true,
            text: format!(
                "{domain} has sent to {} at {provider} today, which refuses what is not authenticated from {from} a day on. {faults}{held}",
                count(recipients, "recipient"),
            ),
            remedy: remedies.join("\n"),
            provider: None,
        });
    }

    fn well(&self, provider: &str, domain: &str, why: &str) {
        self.alerts.tell(Alert {
            key: alert_key(provider, domain),
            raised: false,
            text: format!("{ALL_CLEAR}mail from {domain} to {provider} {why}"),
            remedy: String::new(),
            provider: None,
        });
    }

    /// The domain under which its mail goes out.
    fn mail_from(&self, domain: &Domain) -> Domain {
        let settings = self.counter.0.settings.read().unwrap_or_else(PoisonError::into_inner);
        let (listed, other) = &settings.return_path;
        other.clone().filter(|_| listed.contains(domain)).unwrap_or_else(|| domain.clone())
    }

    /// Those from which mail leaves, as receivers see them, with their HELO names.
    fn addresses(&self) -> Vec<(IpAddr, String)> {
        let settings = self.counter.0.settings.read().unwrap_or_else(PoisonError::into_inner).clone();
        let own = self.identity.name().unwrap_or_default();
        let seen = self.seen.records();
        let seen_of =
            |local: Option<IpAddr>| seen.iter().find(|record| record.local == local).map(|record| record.address);
        if settings.sources.is_empty() {
            return seen_of(None).map(|address| (address, own)).into_iter().collect();
        }
        let of = |source: &Source| {
            let itself = Some(source.address).filter(|address| is_global(*address));
            let address = source.public.or_else(|| seen_of(Some(source.address))).or(itself)?;
            Some((address, if source.hostname.is_empty() { own.clone() } else { source.hostname.clone() }))
        };
        settings.sources.iter().filter_map(of).collect()
    }

    /// The header of a message of the domain: of one that waits, else of one that comes in soon.
    async fn sample(&self, domain: &str) -> Option<String> {
        let reader = self.spool.reader();
        let filter = Filter { sender: Some(format!("@{domain}")), ..Filter::default() };
        let mut after = None;
        for _ in 0..PAGES {
            let page = reader.list(filter.clone(), after, 1).await.ok()?;
            if let Some(row) = page.rows.first()
                && let Some(header) = doctor::header(reader, row.delivery.id).await
            {
                return Some(header);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        *lock(&self.counter.0.wanted) = Some((domain.to_string(), Vec::new()));
        self.counter.0.is_wanted.store(true, Ordering::Relaxed);
        let found = timeout(SAMPLE_TIME, self.next_sample(reader)).await.ok();
        self.counter.0.is_wanted.store(false, Ordering::Relaxed);
        *lock(&self.counter.0.wanted) = None;
        found
    }

    /// It may be delivered and gone before it can be read: then the next one is taken.
    async fn next_sample(&self, reader: &Reader) -> String {
        loop {
            self.counter.0.came.notified().await;
            let ids = lock(&self.counter.0.wanted).as_mut().map(|(_, ids)| std::mem::take(ids)).unwrap_or_default();
            for message in ids {
                if let Some(header) = doctor::header(reader, DeliveryId { message, part: 0 }).await {
                    return header;
                }
            }
        }
    }
}

type Key = (Arc<str>, String);

fn key(due: Due) -> Key {
    (due.provider, due.domain)
}

fn alert_key(provider: &str, domain: &str) -> String {
    format!("preflight {provider} {domain}")
}

fn in_words(finding: &Finding) -> String {
    format!("{} of {}: {}", finding.check.as_str(), finding.subject, finding.text)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
