//! Tells a person when one should look: by webhook, mail or command (`[alerts]`), and always in the log and the event log.
//!
//! Whoever finds something says its state, [`Alerts::tell`]: raised, and later cleared, under a key of its own. How often
//! a person hears of it is decided here. Rules that always hold:
//!
//! - telling never waits, and of one key the newest state is the one that counts;
//! - nobody is flooded: `board` decides what is told when;
//! - nothing that hangs outside holds up anything inside: `courier` has a task for each way and a limit for each step.

mod board;
mod command;
mod courier;
mod mail;
mod notice;
pub mod options;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::post::{Names, Tls};
use crate::types::{ALL_CLEAR, Alert, Domain, Event, EventKind, QueueId, Timestamp};
use board::{Board, News};
use courier::{Couriers, Ways};
pub use mail::Letter;
use notice::Notice;

/// Keys that may be said between two looks of the room; as many as it keeps.
const INBOX_MAX: usize = 1000;

/// What the room needs of the rest of the relay, beside names.
pub trait Means: Names {
    /// Our own name, for those who have several relays.
    fn host(&self) -> Arc<str>;

    /// Writes a line into the event log; never waits.
    fn note(&self, event: Event);

    /// An id for a message of ours.
    fn next_id(&self, now: Timestamp) -> QueueId;

    /// The provider that mail to a domain goes to; none: it cannot be told.
    fn provider_of(&self, domain: &Domain) -> impl Future<Output = Option<Arc<str>>> + Send;

    /// Takes a letter of ours for delivery; the error says in words what went wrong.
    fn mail(&self, id: QueueId, letter: Letter) -> impl Future<Output = Result<(), String>> + Send;
}

/// The room as everybody else holds it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Alerts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    news: Notify,
    standing: Mutex<Vec<Standing>>,
}

/// An alert that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub alert: Alert,
    pub since: Timestamp,
}

#[derive(Default)]
struct Inbox {
    /// Of each key the newest, and whether its event is in the log already.
    alerts: BTreeMap<String, (Alert, bool)>,
    lost: u64,
    options: Option<options::Alerts>,
}

impl Alerts {
    /// Says how something stands; the newest word under a key counts. Never waits.
    pub fn tell(&self, alert: Alert) {
        self.put(alert, false);
    }

    /// The same of somebody who writes the event log himself.
    pub fn tell_recorded(&self, alert: Alert) {
        self.put(alert, true);
    }

    fn put(&self, alert: Alert, is_recorded: bool) {
        let mut inbox = self.inbox();
        if inbox.alerts.len() < INBOX_MAX || inbox.alerts.contains_key(&alert.key) {
            inbox.alerts.insert(alert.key.clone(), (alert, is_recorded));
        } else {
            inbox.lost += 1;
        }
        drop(inbox);
        self.0.news.notify_one();
    }

    /// Takes changed settings.
    pub fn reload(&self, options: &options::Alerts) {
        self.inbox().options = Some(options.clone());
        self.0.news.notify_one();
    }

    /// What stands, in the order of the keys.
    pub fn standing(&self) -> Vec<Standing> {
        self.0.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was said and not taken yet, by its keys.
    #[cfg(test)]
    pub fn said(&self) -> Vec<Alert> {
        self.inbox().alerts.values().map(|(alert, _)| alert.clone()).collect()
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.0.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that decides and hands on.
pub struct Room<M> {
    alerts: Alerts,
    board: Board,
    ways: Ways,
    couriers: Couriers,
    means: Arc<M>,
    clock: Clock,
}

impl<M: Means> Room<M> {
    /// `tasks` take those who carry the notices; they end at `stop`.
    pub fn new(
        options: &options::Alerts,
        alerts: Alerts,
        means: Arc<M>,
        clock: Clock,
        tls: &Tls,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Room<M> {
        let couriers = Couriers::start(&means, &clock, tls, tasks, stop);
        let board = Board::new(options.repeat.0);
        Room { alerts, board, ways: Ways::of(options), couriers, means, clock }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            self.look();
            let next = self.board.next().unwrap_or(Timestamp::NEVER);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.alerts.0.news.notified() => {}
                () = self.clock.wake_at(next) => {}
            }
        }
    }

    /// Takes what was said and tells what is due.
    fn look(&mut self) {
        let now = self.clock.now();
        let Inbox { alerts, lost, options } = std::mem::take(&mut *self.alerts.inbox());
        if let Some(options) = options {
            self.ways = Ways::of(&options);
            self.board.set_repeat(options.repeat.0);
        }
        let (mut lost, is_news) = (lost, !alerts.is_empty());
        for (alert, is_recorded) in alerts.into_values() {
            match self.board.note(alert.clone(), now) {
                News::Change => self.record(&alert, is_recorded, now),
                News::Known => {}
                News::NoPlace => lost += 1,
            }
        }
        if lost > 0 {
            tracing::error!("{lost} alerts are not told: {INBOX_MAX} stand already");
        }
        if is_news {
            *self.alerts.0.standing.lock().unwrap_or_else(PoisonError::into_inner) = self.board.standing();
        }
        let told = self.board.take(now);
        if !told.is_empty() {
            self.couriers.send(Notice { time: now, host: self.means.host(), told }, &self.ways);
        }
    }

    /// Every beginning and every end stands in the log and the event log, also where nobody is told of it.
    fn record(&self, alert: &Alert, is_recorded: bool, now: Timestamp) {
        let mut event = Event::new(now, EventKind::Alert);
        if alert.raised {
            tracing::warn!(key = %alert.key, "alert: {} ({})", alert.text, alert.remedy);
            event.text = Some(alert.text.clone());
            event.remedy = Some(alert.remedy.clone());
        } else {
            let words = alert.all_clear().map_or_else(|| format!("{ALL_CLEAR}{}", alert.key), str::to_string);
            tracing::info!(key = %alert.key, "alert is over: {words}");
            event.text = Some(words);
        }
        event.provider = alert.provider.clone();
        if !is_recorded {
            self.means.note(event);
        }
    }
}
