//! The one task that writes: takes all that waits, commits it at once, answers everybody.
//!
//! Rules that always hold:
//! - whoever waits for an acceptance is answered after the COMMIT and after dispatch was told; a commit without anybody
//!   who waits may take 20 ms to gather more;
//! - changes of the queue are never dropped: after an error they are kept and made again, in their order;
//! - after an error nothing is accepted and nothing new should be sent (`Spool::healthy`) until a commit succeeds.
//!
//! Every commit is one `spawn_blocking`, so that the loop also works under tokio's paused clock.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::store::{self, Accept, After, Batch, Settle, Store};
use super::{Change, Committed, Seal, Shared, SpoolError, body, read, schema};
use crate::types::{Body, Seldom, Timestamp};

/// Contents that one commit takes at most: beyond it a longer transaction gains nothing.
const BATCH_BYTES: usize = 16 << 20;
/// Items that one commit takes at most of each kind.
const BATCH_ITEMS: usize = 4096;
/// Reports that one commit takes at most: they are signed before it, and others wait for it.
const BATCH_REPORTS: usize = 64;
/// A log longer than this (128 MiB) makes commits wait for the checkpoint that is under way.
const LOG_PAGES_LIMIT: u64 = 4 * store::LOG_PAGES_MAX;
/// How long changes alone may wait for company.
const GATHER: Duration = Duration::from_millis(20);
/// From one try to the next while the disk fails.
const PROBE: Duration = Duration::from_secs(1);
/// Tries after a stop while the disk fails: what is then still not written happens again after the next start.
const LAST_TRIES: u32 = 5;
/// Quiet time before free pages are given back, and from one slice to the next.
pub(super) const IDLE: Duration = Duration::from_secs(1);
const SLICE: Duration = Duration::from_millis(50);
/// Until it is tried again after it failed: on a full disk it may be what makes room.
const TIDY_RETRY: Duration = Duration::from_secs(60);
/// Until the log is copied again after that failed, so that not every commit tries it in vain.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(5);

/// An acceptance on its way, and who waits for it.
pub(super) struct Request {
    pub accept: Accept,
    pub answer: oneshot::Sender<Result<(), SpoolError>>,
}

/// The writing half of the spool; does nothing until `run`.
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    /// None only while a commit runs.
    pub(super) store: Option<Store>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) committed: mpsc::Sender<Vec<Committed>>,
    pub(super) durable: watch::Sender<u64>,
    /// Changes taken from the queue that no commit holds yet.
    pub(super) kept: VecDeque<Settle>,
    pub(super) checkpoint: Option<JoinHandle<Result<(), SpoolError>>>,
    /// None is begun before then: the last one failed.
    pub(super) checkpoint_after: Timestamp,
    /// The length of the log after the last commit.
    pub(super) log_pages: u64,
    /// What there is to do in an idle moment, and when it is looked at.
    pub(super) tidy_after: Option<Duration>,
    pub(super) said: Said,
    /// Who signs reports.
    pub(super) seal: Option<Arc<dyn Seal>>,
}

/// Which faults of the disk were told of lately: one that comes and goes must not fill it.
pub(super) struct Said {
    fault: Seldom,
    checkpoint: Seldom,
}

impl Default for Said {
    fn default() -> Said {
        Said { fault: Seldom::minutely(), checkpoint: Seldom::minutely() }
    }
}

/// A batch with those who wait for its acceptances, in the same order.
type Waiting = (Batch, Vec<oneshot::Sender<Result<(), SpoolError>>>);

enum Wake {
    Stop,
    Work(Option<Request>),
    CheckpointDone(Result<(), SpoolError>),
    Idle,
}

impl Writer {
    /// Has reports of ours signed.
    #[must_use]
    pub fn sealing(mut self, seal: Arc<dyn Seal>) -> Writer {
        self.seal = Some(seal);
        self
    }

    /// Writes until `stop`, then what is still handed over, and ends. Stop it after everything that settles.
    pub async fn run(mut self, stop: CancellationToken) {
        let sweep = self.start_sweep(&stop);
        loop {
            match self.wake(&stop).await {
                Wake::Stop => break,
                Wake::Work(first) => {
                    self.bound_log().await;
                    let (batch, answers) = self.gather(first).await;
                    self.commit(batch, answers, &stop).await;
                }
                Wake::CheckpointDone(copied) => self.finish_checkpoint(copied).await,
                Wake::Idle => self.tidy().await,
            }
        }
        self.end(&stop).await;
        let _ = sweep.await;
    }

    async fn wake(&mut self, stop: &CancellationToken) -> Wake {
        if stop.is_cancelled() {
            return Wake::Stop;
        }
        if !self.kept.is_empty() {
            return Wake::Work(None);
        }
        tokio::select! {
            biased;
            // Before the work: under constant load there is always work, and the log would never start again.
            copied = finished(&mut self.checkpoint) => Wake::CheckpointDone(copied),
            request = self.requests.recv() => request.map_or(Wake::Stop, |request| Wake::Work(Some(request))),
            () = self.shared.settled.notified() => Wake::Work(None),
            () = stop.cancelled() => Wake::Stop,
            () = idle(self.tidy_after) => Wake::Idle,
        }
    }

    /// Takes all that waits, up to the size of one commit.
    async fn gather(&mut self, first: Option<Request>) -> Waiting {
        let (mut batch, mut answers, mut bytes) = (Batch::default(), Vec::new(), 0);
        let mut next = first.or_else(|| self.requests.try_recv().ok());
        if next.is_none() && self.kept.is_empty() {
            next = tokio::time::timeout(GATHER, self.requests.recv()).await.ok().flatten();
        }
        while let Some(Request { accept, answer }) = next.take() {
            bytes += match &accept.content.body {
                Body::Inline(content) => content.len(),
                Body::File { .. } | Body::Headed { .. } => 0,
            };
            batch.accepts.push(accept);
            answers.push(answer);
            if bytes < BATCH_BYTES && batch.accepts.len() < BATCH_ITEMS {
                next = self.requests.try_recv().ok();
            }
        }
        self.take_settles(&mut batch);
        self.seal(&mut batch).await;
        (batch, answers)
    }

    /// Signs the reports of a batch that are not signed yet.
    async fn seal(&mut self, batch: &mut Batch) {
        let Some(seal) = self.seal.clone() else { return };
        let fresh = || batch.settles.iter().filter(|settle| !settle.is_sealed);
        let contents: Vec<Bytes> = fresh().flat_map(|settle| &settle.changes).filter_map(report_content).collect();
        if contents.is_empty() {
            return;
        }
        let mut sealed = seal.seal(contents).await.into_iter();
        for settle in batch.settles.iter_mut().filter(|settle| !settle.is_sealed) {
            settle.seal(&mut sealed);
        }
    }

    fn take_settles(&mut self, batch: &mut Batch) {
        self.kept.append(&mut self.shared.take_settles());
        let (mut taken, mut bytes, mut reports) = (0, 0, 0);
        while taken < BATCH_ITEMS && bytes < BATCH_BYTES && reports < BATCH_REPORTS {
            let Some(settle) = self.kept.pop_front() else { return };
            taken += settle.changes.len() + 1;
            bytes += settle.changes.iter().map(report_bytes).sum::<usize>();
            reports += settle.changes.iter().filter(|change| matches!(change, Change::Report { .. })).count();
            batch.settles.push(settle);
        }
    }

    async fn commit(
        &mut self,
        batch: Batch,
        answers: Vec<oneshot::Sender<Result<(), SpoolError>>>,
        stop: &CancellationToken,
    ) {
        if batch.accepts.is_empty() && batch.settles.is_empty() {
            return;
        }
        match self.write(batch).await {
            Ok((batch, after)) => self.announce(batch, answers, after, stop).await,
            Err(error) => {
                self.shared.set_health(Some(error.to_string()));
                refuse(answers, &error);
                self.recover(error, stop).await;
            }
        }
    }

    /// One commit on a thread of its own. After an error the changes stand in `kept` again.
    async fn write(&mut self, mut batch: Batch) -> Result<(Batch, After), SpoolError> {
        let (batch, result) = self
            .with_store(move |store| {
                let result = store.timed_commit(&mut batch);
                (batch, result)
            })
            .await;
        match result {
            Ok(after) => Ok((batch, after)),
            Err(error) => {
                for settle in batch.settles.into_iter().rev() {
                    self.kept.push_front(settle);
                }
                Err(error)
            }
        }
    }

    async fn announce(
        &mut self,
        batch: Batch,
        answers: Vec<oneshot::Sender<Result<(), SpoolError>>>,
        after: After,
        stop: &CancellationToken,
    ) {
        self.shared.disk.room.update(after.messages, after.spare);
        self.tidy_after = Some(IDLE);
        self.log_pages = after.log.pages;
        let is_long = after.log.pages > store::LOG_PAGES_MAX;
        let now = self.shared.clock.now();
        // A wait of longer than that was begun by a clock that was ahead.
        let waits = now < self.checkpoint_after && self.checkpoint_after.since(now) <= CHECKPOINT_RETRY;
        if is_long && self.checkpoint.is_none() && !waits {
            self.start_checkpoint();
        }
        let number = batch.settles.last().map(|settle| settle.number);
        let reports = batch.settles.into_iter().flat_map(|settle| settle.changes).filter_map(committed_report);
        let mut news: Vec<Committed> = reports.collect();
        let mut results = Vec::with_capacity(answers.len());
        for accept in batch.accepts {
            if let Body::Inline(content) = &accept.content.body {
                self.shared.disk.room.wrote(content.len() as u64);
            }
            results.push(match accept.fault {
                Some(text) => Err(SpoolError::Failed(text)),
                None => Ok(()),
            });
            if results.last().is_some_and(Result::is_ok) {
                news.push(Committed {
                    envelope: accept.envelope,
                    deliveries: accept.deliveries,
                    body: accept.content.body,
                });
            }
        }
        if let Some(number) = number {
            self.durable.send_replace(number);
        }
        self.tell_dispatch(news, stop).await;
        for (answer, result) in answers.into_iter().zip(results) {
            // Whoever went away meanwhile finds out by the message's arrival.
            let _ = answer.send(result);
        }
    }

    /// Waits while dispatch is behind. After a stop nobody may listen: the messages are found at the next start.
    async fn tell_dispatch(&mut self, news: Vec<Committed>, stop: &CancellationToken) {
        if news.is_empty() {
            return;
        }
        tokio::select! {
            biased;
            _ = self.committed.send(news) => {}
            () = stop.cancelled() => {}
        }
    }

    /// Tries once a second until a commit succeeds, and refuses whoever comes meanwhile.
    async fn recover(&mut self, mut error: SpoolError, stop: &CancellationToken) {
        let is_told = self.said.fault.is_due(self.shared.clock.now());
        if is_told {
            tracing::error!("the spool cannot write: {error}; nothing is accepted or newly sent until it can");
        }
        let mut last_tries = 0;
        loop {
            self.shared.set_health(Some(error.to_string()));
            self.refuse_for(PROBE, &error).await;
            let mut batch = Batch { probe: true, ..Batch::default() };
            self.take_settles(&mut batch);
            self.seal(&mut batch).await;
            match self.write(batch).await {
                Ok((batch, after)) => {
                    self.announce(batch, Vec::new(), after, stop).await;
                    self.shared.set_health(None);
                    if is_told {
                        tracing::warn!("the spool can write again");
                    }
                    return;
                }
                Err(again) => error = again,
            }
            last_tries += u32::from(stop.is_cancelled());
            if last_tries > LAST_TRIES {
                return;
            }
        }
    }

    async fn refuse_for(&mut self, span: Duration, error: &SpoolError) {
        let rest = tokio::time::sleep(span);
        tokio::pin!(rest);
        loop {
            tokio::select! {
                biased;
                () = &mut rest => return,
                Some(request) = self.requests.recv() => refuse(vec![request.answer], error),
            }
        }
    }

    async fn tidy(&mut self) {
        let (more, after) = self.with_store(|store| (store.tidy(), store.after())).await;
        if let Ok(after) = after {
            self.shared.disk.room.update(after.messages, after.spare);
        }
        self.tidy_after = match more {
            Ok(true) => Some(SLICE),
            Ok(false) => None,
            Err(error) => {
                tracing::warn!("free pages of the spool cannot be given back now: {error}");
                Some(TIDY_RETRY)
            }
        };
    }

    fn start_checkpoint(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.checkpoint = Some(tokio::task::spawn_blocking(move || store::checkpoint_beside(&shared.folder)));
    }

    /// Where commits are faster than the copying of the log, they wait for it: the log would grow without end.
    async fn bound_log(&mut self) {
        if self.log_pages > LOG_PAGES_LIMIT && self.checkpoint.is_some() {
            let copied = finished(&mut self.checkpoint).await;
            self.finish_checkpoint(copied).await;
            self.log_pages = 0;
        }
    }

    async fn finish_checkpoint(&mut self, copied: Result<(), SpoolError>) {
        self.checkpoint = None;
        let finished = match copied {
            Ok(()) => self.with_store(|store| store.checkpoint()).await.map_err(SpoolError::from),
            Err(error) => Err(error),
        };
        let now = self.shared.clock.now();
        if let Err(error) = finished {
            self.checkpoint_after = now + CHECKPOINT_RETRY;
            if self.said.checkpoint.is_due(now) {
                tracing::warn!("the log of the spool cannot be copied now, it grows until it can: {error}");
            }
        }
    }

    /// Removes in the background what a crash left in `bodies`.
    fn start_sweep(&self, stop: &CancellationToken) -> JoinHandle<()> {
        let (shared, stop) = (Arc::clone(&self.shared), stop.clone());
        tokio::task::spawn_blocking(move || {
            let ended = AtomicBool::new(false);
            let swept = read::Lookup::open(&shared.folder).and_then(|lookup| {
                let has_message = |id| {
                    ended.store(stop.is_cancelled(), Ordering::Relaxed);
                    lookup.has_message(id).map_err(std::io::Error::other)
                };
                Ok(body::sweep(&schema::bodies(&shared.folder), shared.first, &ended, has_message)?)
            });
            match swept {
                Ok(0) => {}
                Ok(removed) => tracing::info!("removed {removed} contents without a message, left by a crash"),
                Err(error) => tracing::warn!("contents without a message cannot be removed: {error}"),
            }
        })
    }

    /// Everything that was handed over before the end, then the log into the file.
    async fn end(&mut self, stop: &CancellationToken) {
        self.requests.close();
        loop {
            let first = self.requests.recv().await;
            self.kept.append(&mut self.shared.take_settles());
            if first.is_none() && self.kept.is_empty() {
                break;
            }
            let (batch, answers) = self.gather(first).await;
            self.commit(batch, answers, stop).await;
            if !self.shared.is_healthy() {
                let lost: usize = self.kept.iter().map(|settle| settle.changes.len()).sum();
                tracing::error!(
                    "the disk still fails: {lost} changes of the queue are lost, what they tell happens again"
                );
                break;
            }
        }
        if let Some(checkpoint) = self.checkpoint.take() {
            let _ = checkpoint.await;
        }
        if let Err(error) = self.with_store(|store| store.checkpoint()).await {
            tracing::warn!("the log of the spool stays for the next start: {error}");
        }
    }

    async fn with_store<T: Send + 'static>(&mut self, work: impl FnOnce(&mut Store) -> T + Send + 'static) -> T {
        let mut store = self.store.take().expect("one commit at a time");
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut store);
            (store, result)
        });
        match done.await {
            Ok((store, result)) => {
                self.store = Some(store);
                result
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is being torn down: this task ends with it.
            Err(_) => pending().await,
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.set_health(Some("the spool is closed".to_string()));
    }
}

fn refuse(answers: Vec<oneshot::Sender<Result<(), SpoolError>>>, error: &SpoolError) {
    for answer in answers {
        let _ = answer.send(Err(error.clone()));
    }
}

fn report_content(change: &Change) -> Option<Bytes> {
    match change {
        Change::Report { content, .. } => Some(content.clone()),
        _ => None,
    }
}

fn report_bytes(change: &Change) -> usize {
    match change {
        Change::Report { content, .. } => content.len(),
        _ => 0,
    }
}

fn committed_report(change: Change) -> Option<Committed> {
    match change {
        Change::Report { envelope, deliveries, content } => {
            Some(Committed { envelope, deliveries, body: Body::Inline(content) })
        }
        _ => None,
    }
}

async fn finished(task: &mut Option<JoinHandle<Result<(), SpoolError>>>) -> Result<(), SpoolError> {
    match task {
        Some(task) => task.await.unwrap_or_else(|error| Err(SpoolError::Failed(error.to_string()))),
        None => pending().await,
    }
}

async fn idle(after: Option<Duration>) {
    match after {
        Some(span) => tokio::time::sleep(span).await,
        None => pending().await,
    }
}
