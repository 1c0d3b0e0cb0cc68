//! `[[webhook]]`: events to HTTP endpoints, from the event log, none lost (see `docs/webhooks.md`).
//!
//! `endpoint` is one as configured, `hook` the task that serves it. What decides is pure: `batch` what goes into a request, `format` in
//! whose words, `sign` how it is signed, `retry` how long to wait. `cursor` keeps how far an endpoint has got. Rules that
//! always hold:
//! - each endpoint has a task of its own: one that is slow, hangs or is dead delays neither mail nor the others;
//! - an event is sent until the endpoint has answered with 2xx, or the log's age has taken its line, which is told;
//! - where there is no endpoint, nothing of this runs.

mod batch;
mod cursor;
mod endpoint;
mod format;
mod hook;
pub mod options;
mod retry;
mod sign;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alert::Alerts;
use crate::clock::Clock;
use crate::post::{Names, Tls};
pub use endpoint::{Endpoint, LoadError};
use hook::Hook;
use options::Webhook;

/// What endpoints have in common.
pub struct Surroundings<N> {
    pub names: Arc<N>,
    pub alerts: Alerts,
    pub clock: Clock,
    pub tls: Tls,
    /// The number of the last line of the event log: who waits for it hears of new ones.
    pub lines: watch::Receiver<u64>,
    /// The folder of the event log.
    pub events: PathBuf,
    /// Where it is kept how far each has got.
    pub cursors: PathBuf,
}

/// The endpoints that are served.
pub struct Hooks<N> {
    around: Surroundings<N>,
    tasks: TaskTracker,
    stop: CancellationToken,
    running: Mutex<BTreeMap<String, Running>>,
}

struct Running {
    endpoint: Arc<Endpoint>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// All endpoints of a configuration. For a thread that may block: it reads files.
pub fn load(hooks: &[Webhook]) -> Result<Vec<Endpoint>, LoadError> {
    hooks.iter().map(Endpoint::load).collect()
}

impl<N: Names> Hooks<N> {
    /// Serves nobody yet. `tasks` take those who do; they end at `stop`.
    pub fn new(around: Surroundings<N>, tasks: &TaskTracker, stop: &CancellationToken) -> Hooks<N> {
        Hooks { around, tasks: tasks.clone(), stop: stop.clone(), running: Mutex::default() }
    }

    /// Serves these from now on. One that stays as it was is not disturbed.
    pub async fn serve(&self, endpoints: Vec<Endpoint>) {
        let mut before = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        let mut after = BTreeMap::new();
        for endpoint in endpoints {
            let name = endpoint.name.clone();
            let running = match before.remove(&name) {
                Some(running) if *running.endpoint == endpoint => running,
                other => {
                    if let Some(running) = other {
                        running.end().await;
                    }
                    self.start(Arc::new(endpoint))
                }
            };
            after.insert(name, running);
        }
        for (name, running) in before {
            running.end().await;
            tracing::info!("webhook {name}: no more events are sent");
            self.forget(&name);
        }
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = after;
    }

    fn start(&self, endpoint: Arc<Endpoint>) -> Running {
        let stop = self.stop.child_token();
        let (hook, ended) = (Hook::new(endpoint.clone(), &self.around), stop.clone());
        let task = self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = hook.work() => {}
            }
        });
        Running { endpoint, stop, task }
    }

    /// Nothing stands against an endpoint that is there no more.
    fn forget(&self, name: &str) {
        for what in ["failing", "lost"] {
            self.around.alerts.tell(hook::over(what, name));
        }
    }
}

impl Running {
    /// Ends it; two must not write one cursor.
    async fn end(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}
