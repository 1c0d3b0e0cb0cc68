//! MTA-STS (RFC 8461): what a recipient domain says of the hosts that take its mail, found, kept and renewed.
//!
//! Rules that always hold:
//! - no policy host can keep mail: a discovery is waited for [`WAIT`] at most, by the mail of its own domain alone; what is known by
//!   then holds, and where nothing is, mail goes as without a policy (sections 3.3 and 5.1);
//! - a domain's policy is fetched once at a time, however many ask;
//! - what was fetched is kept over a restart.

mod cache;
mod fetch;
pub mod policy;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use fetch::{Around, Fetch, Fetching, Https};
pub use policy::{Mode, Policy};

use crate::clock::Clock;
use crate::types::{Domain, Span, Timestamp};
use cache::{Cache, Step};

/// How long the mail of a domain waits for its policy.
pub const WAIT: Duration = Duration::from_secs(5);
/// Where the policy was not there in time, or could not be had, the domain is looked up again after this.
const AGAIN: Duration = Duration::from_secs(60);
/// Fetches at once; those beyond wait, up to so many in all.
const FETCHES_MAX: usize = 50;
const FLIGHTS_MAX: usize = 1000;
/// How often policies that nobody asks for are looked through, and how many are renewed each time: all of them in a day, and most of
/// the places stay free for mail.
const RENEW_EVERY: Duration = Duration::from_secs(60);
const RENEW_COUNT: usize = 10;

/// Writes a domain's policy down; never waits.
pub type Keep = Box<dyn Fn(&Domain, String) + Send + Sync>;

/// Knows the policies. Shared behind an `Arc` by the routers of one configuration after the other.
pub struct Sts {
    fetch: Box<dyn Fetch>,
    keep: Keep,
    clock: Clock,
    around: RwLock<Around>,
    cache: Mutex<Cache>,
    flights: Mutex<BTreeMap<Domain, watch::Receiver<()>>>,
    fetches: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Who runs the fetches, and until when.
pub struct Life {
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

/// What is known of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub policy: Option<Arc<Policy>>,
    /// To be asked again after this.
    pub holds: Option<Duration>,
}

/// A fetch under way. However it ends, the next one may begin, and those who wait for it go on.
struct Flight {
    sts: Arc<Sts>,
    domain: Domain,
    /// Goes with it.
    _done: watch::Sender<()>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        lock(&self.sts.flights).remove(&self.domain);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sts {
    pub fn new(fetch: Box<dyn Fetch>, keep: Keep, around: Around, clock: Clock, life: Life) -> Arc<Sts> {
        Arc::new(Sts {
            fetch,
            keep,
            clock,
            around: RwLock::new(around),
            cache: Mutex::default(),
            flights: Mutex::default(),
            fetches: Semaphore::new(FETCHES_MAX),
            tasks: life.tasks,
            stop: life.stop,
        })
    }

    /// Takes back what the last run wrote down: domain and text.
    pub fn restore(&self, written: &[(String, String)]) {
        let (mut cache, now) = (lock(&self.cache), self.clock.now());
        written.iter().for_each(|(domain, text)| cache.restore(domain, text, now));
    }

    /// Takes a changed configuration.
    pub fn set_around(&self, around: Around) {
        *self.around.write().unwrap_or_else(PoisonError::into_inner) = around;
    }

    fn around(&self) -> Around {
        self.around.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The policy that holds for the mail of `domain` now. Ends within [`WAIT`].
    pub async fn ask(self: &Arc<Sts>, domain: &Domain) -> Known {
        let is_known = timeout(WAIT, self.discover(domain)).await.unwrap_or(false);
        let policy = lock(&self.cache).policy(domain, self.clock.now());
        let again = (!is_known).then_some(AGAIN);
        let holds = policy.as_ref().map(|(_, left)| *left).into_iter().chain(again).min();
        Known { policy: policy.map(|(policy, _)| policy), holds }
    }

    /// Asks whether there is a policy, and another than is known; true: what is known afterwards is the truth.
    async fn discover(self: &Arc<Sts>, domain: &Domain) -> bool {
        let name = format!("_mta-sts.{domain}.");
        let records = match self.around().dns.txt(&name).await {
            Ok(found) => found.records,
            Err(why) if why.is_temporary() => return false,
            Err(_) => return true,
        };
        let Some(id) = policy::announced(&records) else { return true };
        let now = self.clock.now();
        let step = lock(&self.cache).step(domain, id, now);
        if step == Step::Known {
            return lock(&self.cache).policy(domain, now).is_some();
        }
        let flight = self.flight(domain, id);
        if step == Step::Renew {
            return true;
        }
        let Some(mut flight) = flight else { return false };
        // The sender goes when the fetch has ended.
        let _ = flight.changed().await;
        let (mut cache, now) = (lock(&self.cache), self.clock.now());
        cache.step(domain, id, now) == Step::Known && cache.policy(domain, now).is_some()
    }

    /// The fetch of a domain's policy, begun if none is under way. None: there are too many.
    fn flight(self: &Arc<Sts>, domain: &Domain, id: &str) -> Option<watch::Receiver<()>> {
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get(domain) {
            return Some(flight.clone());
        }
        if flights.len() >= FLIGHTS_MAX || self.stop.is_cancelled() {
            return None;
        }
        let (done, ends) = watch::channel(());
        flights.insert(domain.clone(), ends.clone());
        // A runtime that stops drops the task at once, and with it the flight, which takes the lock.
        drop(flights);
        let (flight, id) = (Flight { sts: self.clone(), domain: domain.clone(), _done: done }, id.to_string());
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = flight.sts.stop.cancelled() => {}
                () = flight.sts.fly(&flight.domain, &id) => {}
            }
        });
        Some(ends)
    }

    async fn fly(&self, domain: &Domain, id: &str) {
        // Never closed, so a permit always comes.
        let _permit = self.fetches.acquire().await;
        let fetched = self.fetch.fetch(domain, &self.around()).await;
        let now = self.clock.now();
        match fetched {
            Ok(policy) => {
                tracing::debug!("MTA-STS policy of {domain}: {}, for {}", policy.mode().as_str(), policy.hosts());
                let written = lock(&self.cache).fetched(domain, id, policy, now);
                if let Some(written) = written {
                    (self.keep)(domain, written);
                }
            }
            Err(why) => self.failed(domain, id, &why, now),
        }
    }

    fn failed(&self, domain: &Domain, id: &str, why: &str, now: Timestamp) {
        let mut cache = lock(&self.cache);
        let wait = Span(cache.failed(domain, id, now));
        let until = match cache.standing(domain, now) {
            Some((policy, left)) => format!("the known one ({}) holds for {}", policy.mode().as_str(), Span(left)),
            None => "its mail goes as without one".to_string(),
        };
        drop(cache);
        tracing::warn!(
            "the MTA-STS policy that {domain} announces cannot be had: {why}; {until}; tried again after {wait}"
        );
    }

    /// Renews policies before they end, also those of domains that get mail seldom, until the end.
    pub async fn keep_fresh(self: Arc<Sts>) {
        loop {
            let next = self.clock.now() + RENEW_EVERY;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.clock.wake_at(next) => {}
            }
            let due = lock(&self.cache).due(RENEW_COUNT, self.clock.now());
            for (domain, id) in due {
                let _ = self.flight(&domain, &id);
            }
        }
    }
}
