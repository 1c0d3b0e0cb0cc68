//! What the relay counts: totals of events, times, and what stands just now, for Prometheus and for the plots of the page.
//!
//! Rules that always hold:
//! - labels are bounded: providers without a profile count together as [`OTHER`], and no label is a domain or an address;
//! - counting never waits for a reader, and a reader never holds up the mail;
//! - nothing is counted twice: totals come from the lines of the event log, at the one place that writes them.

mod file;
pub mod history;
mod text;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::types::{Class, Event, EventKind};
use history::Tally;

pub use file::File;
pub use text::{CONTENT_TYPE, Gauges, LaneGauges};

/// The label of all providers without a profile.
pub const OTHER: &str = "other";

/// From half a millisecond to 16 seconds: a commit on any disk.
const SHORT: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 4.0, 16.0];
/// From ten milliseconds to ten minutes: a dialogue with a receiver.
const DIALOGUE: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0];
/// From a tenth of a second to four days: what a message may wait.
const LONG: [f64; 12] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0, 345_600.0];

/// What an outcome is counted under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    provider: String,
    class: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProvider {
    provider: String,
}

/// What an answer came to: `returned`, `complained`, `unsubscribed`, `feedback`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    event: String,
}

/// Counts. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Meters(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Providers with a profile: those that have a label of their own.
    named: Mutex<BTreeSet<Arc<str>>>,
    accepted: Counter,
    refused: Counter,
    suppressed: Counter,
    removed: Counter,
    delivered: Family<OfProvider, Counter>,
    deferred: Family<Outcome, Counter>,
    throttled: Family<Outcome, Counter>,
    bounced: Family<Outcome, Counter>,
    expired: Family<Outcome, Counter>,
    feedback: Family<Answer, Counter>,
    accept_seconds: Histogram,
    commit_seconds: Histogram,
    delivery_delay_seconds: Histogram,
    queue_wait_seconds: Histogram,
    delivery_seconds: Histogram,
    tally: Mutex<Tally>,
}

impl Meters {
    /// `named`: the providers with a profile.
    pub fn new(named: impl IntoIterator<Item = Arc<str>>) -> Meters {
        Meters(Arc::new(Inner {
            named: Mutex::new(named.into_iter().collect()),
            accepted: Counter::default(),
            refused: Counter::default(),
            suppressed: Counter::default(),
            removed: Counter::default(),
            delivered: Family::default(),
            deferred: Family::default(),
            throttled: Family::default(),
            bounced: Family::default(),
            expired: Family::default(),
            feedback: Family::default(),
            accept_seconds: Histogram::new(SHORT),
            commit_seconds: Histogram::new(SHORT),
            delivery_delay_seconds: Histogram::new(LONG),
            queue_wait_seconds: Histogram::new(LONG),
            delivery_seconds: Histogram::new(DIALOGUE),
            tally: Mutex::default(),
        }))
    }

    /// Takes the providers of a changed configuration.
    pub fn set_named(&self, named: impl IntoIterator<Item = Arc<str>>) {
        *lock(&self.0.named) = named.into_iter().collect();
    }

    /// The label of a provider.
    pub fn label(&self, provider: Option<&str>) -> String {
        match provider {
            Some(provider) if lock(&self.0.named).contains(provider) => provider.to_string(),
            _ => OTHER.to_string(),
        }
    }

    /// Counts what was written to the event log.
    pub fn count(&self, events: &[Event]) {
        let mut tally = lock(&self.0.tally);
        for event in events {
            self.count_one(event);
            tally.add(event);
        }
    }

    fn count_one(&self, event: &Event) {
        let provider = || OfProvider { provider: self.label(event.provider.as_deref()) };
        let outcome = || Outcome {
            provider: self.label(event.provider.as_deref()),
            class: event.class.map_or("other", |class| class.as_str()).to_string(),
        };
        let inner = &self.0;
        match event.kind {
            EventKind::Accepted => drop(inner.accepted.inc()),
            EventKind::Delivered => {
                inner.delivered.get_or_create(&provider()).inc();
                if let Some(delay) = event.delay_ms {
                    inner.delivery_delay_seconds.observe(delay as f64 / 1000.0);
                }
            }
            EventKind::Deferred => drop(inner.deferred.get_or_create(&outcome()).inc()),
            EventKind::Bounced => drop(inner.bounced.get_or_create(&outcome()).inc()),
            EventKind::Expired => drop(inner.expired.get_or_create(&outcome()).inc()),
            EventKind::Removed => drop(inner.removed.inc()),
            EventKind::Refused => drop(inner.refused.inc()),
            EventKind::Suppressed => drop(inner.suppressed.inc()),
            EventKind::Returned | EventKind::Complained | EventKind::Unsubscribed | EventKind::Feedback => {
                inner.feedback.get_or_create(&Answer { event: event.kind.as_str().to_string() }).inc();
            }
            EventKind::Throttled | EventKind::Blocked | EventKind::Paused | EventKind::Resumed | EventKind::Alert => {}
        }
    }

    /// A receiver's answer put a message off with its lane: no attempt is counted, and no line of the log tells of it.
    pub fn throttled(&self, provider: &str, class: Class) {
        let outcome = Outcome { provider: self.label(Some(provider)), class: class.as_str().to_string() };
        self.0.throttled.get_or_create(&outcome).inc();
        lock(&self.0.tally).throttled(class);
    }

    /// A message was taken: so long from the end of its content until it was safe.
    pub fn accepted_in(&self, time: Duration) {
        self.0.accept_seconds.observe(time.as_secs_f64());
    }

    /// A commit of the spool took so long.
    pub fn committed_in(&self, time: Duration) {
        self.0.commit_seconds.observe(time.as_secs_f64());
    }

    /// A message was offered to a receiver: so long after it was accepted, and its transaction took so long.
    pub fn attempted_in(&self, waited: Duration, took: Duration) {
        self.0.queue_wait_seconds.observe(waited.as_secs_f64());
        self.0.delivery_seconds.observe(took.as_secs_f64());
    }

    /// What was counted since the last time it was taken.
    pub fn take_tally(&self) -> Tally {
        std::mem::take(&mut *lock(&self.0.tally))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
