//! The task of one endpoint: reads the log, sends a batch, waits for its 2xx, goes on.
//!
//! Rules that always hold:
//! - one batch is in flight, and the next follows its 2xx: events keep their order;
//! - a batch that is sent again, also after a restart, is the same one with the same id;
//! - what blocks (files) is done beside the threads of the runtime.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use tokio::sync::watch;

use super::batch::{self, Request};
use super::cursor::{Cursor, Found, Position};
use super::endpoint::Endpoint;
use super::retry::{Patience, remedy};
use super::{Surroundings, sign};
use crate::alert::Alerts;
use crate::clock::Clock;
use crate::event::{Batch, RawLine, Reader};
use crate::post::{Client, Keep, Letter, Names, PostError};
use crate::types::words::count;
use crate::types::{ALL_CLEAR, Alert, Seldom, Timestamp};

/// For one request; Standard Webhooks recommends 15 to 30 s.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// After a line came: more most often follow, and go into the same request.
const GATHER: Duration = Duration::from_millis(250);
/// Lines that are read in one go.
const LINES_MAX: usize = 500;
/// More lines than a batch ever spans, also where some are missing from the log.
const SPAN_MAX: u64 = 100 * LINES_MAX as u64;
/// Until the next try after a file could not be read.
const DISK_WAIT: Duration = Duration::from_secs(10);
/// How long it stands as an alert that events are lost.
const LOSS_STANDS: Duration = Duration::from_secs(3600);

pub(super) struct Hook<N> {
    endpoint: Arc<Endpoint>,
    keys: Vec<hmac::Key>,
    names: Arc<N>,
    alerts: Alerts,
    clock: Clock,
    client: Client,
    /// The number of the last line of the log.
    lines: watch::Receiver<u64>,
    /// Where an endpoint begins that is new.
    end: u64,
    /// Folders of the event log and of the cursors.
    events: PathBuf,
    cursors: PathBuf,
    /// Away while a thread that may block has it.
    store: Option<Store>,
    position: Position,
    /// Lines that are read and not settled.
    ahead: VecDeque<RawLine>,
    /// The end of the log was not in sight when it was last read.
    is_behind: bool,
    is_troubled: bool,
    /// When it was found that events are lost.
    lost_at: Option<Timestamp>,
    disk_fault: Seldom,
}

/// What a thread that may block works with.
struct Store {
    reader: Reader,
    cursor: Cursor,
}

impl<N: Names> Hook<N> {
    pub(super) fn new(endpoint: Arc<Endpoint>, around: &Surroundings<N>) -> Hook<N> {
        Hook {
            // What cannot be read was refused when the configuration was.
            keys: sign::keys(endpoint.secret.expose()).unwrap_or_default(),
            names: around.names.clone(),
            alerts: around.alerts.clone(),
            clock: around.clock.clone(),
            client: Client::new(around.tls.clone()),
            lines: around.lines.clone(),
            end: *around.lines.borrow(),
            events: around.events.clone(),
            cursors: around.cursors.clone(),
            store: None,
            position: Position::default(),
            ahead: VecDeque::new(),
            is_behind: true,
            is_troubled: false,
            lost_at: None,
            disk_fault: Seldom::minutely(),
            endpoint,
        }
    }

    /// Sends events for ever.
    pub(super) async fn work(mut self) {
        self.open().await;
        loop {
            // At the end of the log lines are waited for, and gathered: an endpoint that is quick gets no request for each.
            if self.ahead.is_empty() && !self.is_behind {
                self.wait_for_lines().await;
            }
            self.read_ahead().await;
            let planned = Some(self.position.until).filter(|until| *until > self.position.done);
            let Some(cut) = batch::cut(&mut self.ahead, &self.endpoint, planned) else { continue };
            if let Some(request) = cut.request {
                self.note(Position { done: self.position.done, until: cut.until }).await;
                self.deliver(&request).await;
            }
            self.note(Position { done: cut.until, until: cut.until }).await;
        }
    }

    /// Opens cursor and log.
    async fn open(&mut self) {
        loop {
            let (events, cursors, end) = (self.events.clone(), self.cursors.clone(), self.end);
            let name = self.endpoint.name.clone();
            match blocking(move || Store::open(&events, &cursors, &name, end)).await {
                Ok((store, mut position, found)) => {
                    self.say_start(position, &found);
                    // No batch is so long: what stands there was never written by us.
                    if position.until.saturating_sub(position.done) > SPAN_MAX {
                        position.until = position.done;
                    }
                    (self.store, self.position) = (Some(store), position);
                    return;
                }
                Err(error) => self.disk_failed("open its place in the event log", &error).await,
            }
        }
    }

    fn say_start(&self, position: Position, found: &Found) {
        let (name, place) = (&self.endpoint.name, self.endpoint.target.place());
        let waiting = self.lines.borrow().saturating_sub(position.done);
        match found {
            Found::New => tracing::info!("webhook {name}: events go to {place} from now on"),
            Found::Known if waiting == 0 => tracing::info!("webhook {name}: events go to {place}"),
            Found::Known => {
                tracing::info!("webhook {name}: events go to {place}, {} to look through", count(waiting, "line"))
            }
            Found::Unreadable => tracing::error!(
                "webhook {name}: its place in the event log could not be read: all events there are are sent to {place} again"
            ),
        }
    }

    /// Reads on where nothing is left, or what is planned is not all there.
    async fn read_ahead(&mut self) {
        loop {
            let is_enough = match self.ahead.back() {
                Some(last) => last.seq >= self.position.until,
                None => false,
            };
            if is_enough {
                return;
            }
            self.lines.mark_unchanged();
            let read = self.with_store(|store| store.reader.next(LINES_MAX)).await;
            match read {
                Ok(Batch { lines, missed }) => {
                    if missed > 0 {
                        self.say_lost(missed);
                    }
                    self.is_behind = lines.len() >= LINES_MAX / 2;
                    if lines.is_empty() {
                        return;
                    }
                    self.ahead.extend(lines);
                }
                Err(error) => self.disk_failed("read the event log", &error).await,
            }
        }
    }

    async fn wait_for_lines(&mut self) {
        if !self.lines.has_changed().unwrap_or(false) {
            self.client.rest();
        }
        let found_at = self.lost_at;
        let over = found_at.map_or(Timestamp::NEVER, |at| at + LOSS_STANDS);
        tokio::select! {
            biased;
            changed = self.lines.changed() => match changed {
                Ok(()) => tokio::time::sleep(GATHER).await,
                // The log is closed: nothing comes any more.
                Err(_) => std::future::pending().await,
            },
            () = self.clock.wake_at(over), if found_at.is_some() => {}
        }
        if self.lost_at.is_some_and(|at| self.clock.now().since(at) >= LOSS_STANDS) {
            self.lost_at = None;
            self.alert("lost", false, format!("{ALL_CLEAR}webhook {} loses no events", self.endpoint.name), "");
        }
    }

    /// Keeps the place. Where that fails, a restart repeats more.
    async fn note(&mut self, position: Position) {
        self.position = position;
        let written = self.with_store(move |store| store.cursor.write(position)).await;
        if let Err(error) = written
            && self.disk_fault.is_due(self.clock.now())
        {
            tracing::error!("webhook {}: cannot keep its place in the event log: {error}", self.endpoint.name);
        }
    }

    /// Sends until it has arrived.
    async fn deliver(&mut self, request: &Request) {
        let mut patience = Patience::default();
        loop {
            let Err(error) = self.post(request).await else { break };
            self.client.rest();
            let now = self.clock.now();
            let wait = patience.wait(&error, now, fastrand::f64());
            self.say_failed(&error, &patience, wait, now);
            self.clock.wake_at(now + wait).await;
        }
        let (name, events) = (&self.endpoint.name, count(request.events as u64, "event"));
        match patience.failures() {
            0 => tracing::debug!("webhook {name}: {events} delivered as {}", request.id),
            failures => {
                tracing::info!("webhook {name}: {events} delivered after {}", count(failures, "failure"))
            }
        }
        if std::mem::take(&mut self.is_troubled) {
            let text = format!("{ALL_CLEAR}webhook {name}: events arrive at {} again", self.endpoint.target.place());
            self.alert("failing", false, text, "");
        }
    }

    async fn post(&mut self, request: &Request) -> Result<(), PostError> {
        let headers = sign::headers(&self.keys, &request.id, self.clock.now(), &request.json);
        let letter = Letter {
            target: &self.endpoint.target,
            json: &request.json,
            headers: &headers,
            time_limit: TIME_LIMIT,
            keep: Keep::Open,
        };
        let endpoint = self.endpoint.clone();
        self.client.post(&letter, &*self.names, move |address| endpoint.may_reach(address)).await
    }

    fn say_failed(&mut self, error: &PostError, patience: &Patience, wait: Duration, now: Timestamp) {
        let (name, place) = (&self.endpoint.name, self.endpoint.target.place());
        let again = format!("again in {:.0} s", wait.as_secs_f64().ceil());
        match patience.failures() {
            1 => tracing::warn!("webhook {name}: events did not arrive at {place}: {error}; {again}"),
            failures => tracing::debug!("webhook {name}: failure {failures} at {place}: {error}; {again}"),
        }
        if let Some(since) = patience.troubled_since(error, now) {
            let waiting = self.lines.borrow().saturating_sub(self.position.done);
            let text = format!(
                "webhook {name}: no event has arrived at {place} since {}: {error}; up to {} wait in the event log",
                since.about(now),
                count(waiting, "event")
            );
            self.is_troubled = true;
            let remedy =
                format!("{}; events wait as long as the event log is kept ([events] keep, max_size)", remedy(error));
            self.alert("failing", true, text, &remedy);
        }
    }

    /// Lines are gone before they could be sent.
    fn say_lost(&mut self, missed: u64) {
        let name = &self.endpoint.name;
        let lines = count(missed, "line");
        let text = format!("webhook {name}: {lines} of the event log were deleted before they could be sent");
        tracing::error!("{text}");
        self.lost_at = Some(self.clock.now());
        self.alert(
            "lost",
            true,
            text,
            "let the endpoint be down for less long, or keep the event log longer ([events] keep, max_size)",
        );
    }

    fn alert(&self, what: &str, raised: bool, text: String, remedy: &str) {
        let key = key(what, &self.endpoint.name);
        self.alerts.tell(Alert { key, raised, text, remedy: remedy.to_string(), provider: None });
    }

    async fn disk_failed(&self, what: &str, error: &io::Error) {
        let now = self.clock.now();
        if self.disk_fault.is_due(now) {
            tracing::error!("webhook {}: cannot {what}: {error}; trying again", self.endpoint.name);
        }
        self.clock.wake_at(now + DISK_WAIT).await;
    }

    async fn with_store<T: Send + 'static>(&mut self, work: impl FnOnce(&mut Store) -> T + Send + 'static) -> T {
        let mut store = self.store.take().expect("the store is opened first and comes back from every use");
        let (store, result) = blocking(move || {
            let result = work(&mut store);
            (store, result)
        })
        .await;
        self.store = Some(store);
        result
    }
}

impl Store {
    fn open(events: &Path, cursors: &Path, name: &str, end: u64) -> io::Result<(Store, Position, Found)> {
        let (cursor, position, found) = Cursor::open(cursors, name, end)?;
        Ok((Store { reader: Reader::new(events, position.done), cursor }, position, found))
    }
}

/// Nothing stands against the endpoint any more.
pub(super) fn over(what: &str, name: &str) -> Alert {
    let text = format!("{ALL_CLEAR}webhook {name} is taken out");
    Alert { key: key(what, name), raised: false, text, remedy: String::new(), provider: None }
}

fn key(what: &str, name: &str) -> String {
    format!("webhook {what} {name}")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
