//! What the throttle has learned, kept over a restart, so that a restart does not hammer a receiver that said "slower".
//!
//! `state.sqlite` in the data folder, apart from spool and suppression list: an import must not hold it up, and it may be
//! lost. The text of a record is its owner's own; here it is only kept. Rules that always hold:
//!
//! - what is handed over is on disk within moments, of one lane the newest alone; [`Store::flush`] says when;
//! - handing over never waits, and neither a slow nor a full disk holds up anybody else;
//! - a file that cannot be read never stops the start: it is set aside, and we learn anew;
//! - the file has a limit: records nobody renewed for `KEEP` are dropped.

mod file;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::types::Seldom;
use crate::types::words::count_of;
use file::File;

/// A receiver that has not seen us for so long has forgotten us too.
pub const KEEP: Duration = Duration::from_secs(60 * 86_400);
/// Between two commits: what changes all the time is written together.
const REST: Duration = Duration::from_millis(100);
/// Until the next try after a commit failed.
const RETRY: Duration = Duration::from_secs(5);
/// Lanes kept: as many as a relay meets that sends to every receiver there is from a few addresses.
const RECORDS_MAX: usize = 50_000;
/// Of one record. What is longer is not what anybody learned.
const STATE_MAX_BYTES: usize = 64 << 10;

/// What is kept of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub provider: String,
    pub source: String,
    /// JSON of its owner's own.
    pub state: String,
}

/// Where records are handed over. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    pending: Mutex<Pending>,
    handed: Notify,
    /// The number of the last hand-over that is on disk.
    durable: watch::Receiver<u64>,
}

/// What is not on disk yet, of each lane the newest.
#[derive(Default)]
struct Pending {
    number: u64,
    records: BTreeMap<(String, String), String>,
}

/// The task that writes.
pub struct Writer {
    shared: Arc<Shared>,
    file: Option<File>,
    durable: watch::Sender<u64>,
    clock: Clock,
    said: Seldom,
}

/// A store with what the last run left in it.
pub struct Opened {
    pub store: Store,
    pub writer: Writer,
    /// In the order of their names.
    pub records: Vec<Record>,
    /// What was wrong with the file, and what became of it.
    pub problem: Option<String>,
}

/// Opens the store of a data folder, whose lock the caller holds. Never fails: what cannot be read is set aside.
pub fn open(data_dir: &Path, clock: Clock) -> Opened {
    let file::Start { file, records, problem } = File::start(data_dir, clock.now());
    let (durable_now, durable) = watch::channel(0);
    let shared = Arc::new(Shared { pending: Mutex::default(), handed: Notify::new(), durable });
    let writer =
        Writer { shared: shared.clone(), file: Some(file), durable: durable_now, clock, said: Seldom::minutely() };
    Opened { store: Store(shared), writer, records, problem }
}

/// What is kept, without the lock of the folder: beside a running relay, or where none runs. Nothing where there is no file.
pub fn read(data_dir: &Path) -> Result<Vec<Record>, String> {
    file::kept(data_dir)
}

/// The relay stopped before everything was written.
#[derive(Debug, thiserror::Error)]
#[error("what was learned of the receivers could not be written: see the log")]
pub struct NotWritten;

impl Store {
    /// Hands records over; never waits.
    pub fn save(&self, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        let mut lost = 0;
        let mut pending = self.0.pending();
        pending.number += 1;
        for Record { provider, source, state } in records {
            let name = (provider, source);
            let has_place = pending.records.len() < RECORDS_MAX || pending.records.contains_key(&name);
            if state.len() <= STATE_MAX_BYTES && has_place {
                pending.records.insert(name, state);
            } else {
                lost += 1;
            }
        }
        drop(pending);
        if lost > 0 {
            let lanes = count_of(lost, "lane is", "lanes are");
            tracing::error!("{lanes} not remembered over a restart: the records are too long or too many");
        }
        self.0.handed.notify_one();
    }

    /// Returns when everything handed over so far is on disk. While the disk fails it waits for it.
    pub async fn flush(&self) -> Result<(), NotWritten> {
        let number = self.0.pending().number;
        let mut durable = self.0.durable.clone();
        durable.wait_for(|&done| done >= number).await.map(drop).map_err(|_| NotWritten)
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Writes what is handed over until `stop`, and then what is left.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let is_last = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                () = self.shared.handed.notified() => false,
            };
            let is_written = self.write().await;
            if is_last {
                return;
            }
            let rest = if is_written { REST } else { RETRY };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// One commit of all that waits. False: it failed, and everything waits again.
    async fn write(&mut self) -> bool {
        let (number, records) = {
            let mut pending = self.shared.pending();
            (pending.number, std::mem::take(&mut pending.records))
        };
        if records.is_empty() {
            let _ = self.durable.send(number);
            return true;
        }
        let Some(file) = self.file.take() else { return false };
        let now = self.clock.now();
        let work = tokio::task::spawn_blocking(move || {
            let mut file = file;
            let result = file.put(&records, now);
            (file, records, result)
        });
        let Ok((file, records, result)) = work.await else {
            tracing::error!(
                "the task that writes state.sqlite has ended: nothing is remembered over a restart any more"
            );
            return false;
        };
        self.file = Some(file);
        match result {
            Ok(()) => {
                let _ = self.durable.send(number);
                true
            }
            Err(error) => {
                if self.said.is_due(now) {
                    tracing::error!(
                        "state.sqlite: what was learned of the receivers cannot be written, trying again: {error}"
                    );
                }
                self.take_back(records);
                false
            }
        }
    }

    /// What was not written waits again, unless something newer came.
    fn take_back(&self, records: BTreeMap<(String, String), String>) {
        let mut pending = self.shared.pending();
        for (name, state) in records {
            pending.records.entry(name).or_insert(state);
        }
        drop(pending);
        self.shared.handed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    fn record(provider: &str, state: &str) -> Record {
        Record { provider: provider.into(), source: "default".into(), state: state.into() }
    }

    fn clock() -> Clock {
        Clock::starting_at(Timestamp::from_secs(1_795_293_220))
    }

    /// Opens the store and lets it write, without ever stopping it in order.
    fn run(folder: &Path) -> (Store, Vec<Record>, Option<String>) {
        let Opened { store, writer, records, problem } = open(folder, clock());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime, as with a SIGKILL")]
        tokio::spawn(writer.run(CancellationToken::new()));
        (store, records, problem)
    }

    #[tokio::test]
    async fn what_was_flushed_is_there_after_a_kill_the_newest_of_each_lane() {
        let folder = tempfile::tempdir().unwrap();
        let (store, before, _) = run(folder.path());
        assert!(before.is_empty());
        store.save(vec![record("outlook", "{\"n\":1}"), record("gmail", "{}")]);
        store.save(vec![record("outlook", "{\"n\":2}")]);
        store.flush().await.unwrap();
        // No stop, no close: a copy of the files is what a killed process leaves.
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        let (_, records, problem) = run(copy.path());
        assert_eq!(records, [record("gmail", "{}"), record("outlook", "{\"n\":2}")]);
        assert_eq!(problem, None);
    }

    #[tokio::test]
    async fn what_waits_at_a_stop_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let Opened { store, writer, .. } = open(folder.path(), clock());
        let stop = CancellationToken::new();
        stop.cancel();
        store.save(vec![record("outlook", "{}")]);
        writer.run(stop).await;
        assert!(store.flush().await.is_ok());
        assert_eq!(open(folder.path(), clock()).records.len(), 1);
    }

    #[tokio::test]
    async fn without_a_writer_a_flush_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let Opened { store, writer, .. } = open(folder.path(), clock());
        store.save(vec![record("outlook", "{}")]);
        drop(writer);
        assert!(store.flush().await.is_err());
    }

    #[tokio::test]
    async fn odd_names_are_kept_and_huge_records_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (store, ..) = run(folder.path());
        let odd = record("mx'); DROP TABLE lane; --\n\u{1f4e8}", "{}");
        store.save(vec![odd.clone(), record("huge", &"x".repeat(STATE_MAX_BYTES + 1))]);
        store.flush().await.unwrap();
        assert_eq!(open(folder.path(), clock()).records, [odd]);
    }

    #[tokio::test]
    async fn a_damaged_file_is_set_aside_and_the_store_works() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("state.sqlite"), b"this is no database at all".repeat(1000)).unwrap();
        let (store, records, problem) = run(folder.path());
        assert!(records.is_empty());
        let problem = problem.unwrap();
        assert!(problem.contains("state.sqlite.damaged"), "{problem}");
        assert!(folder.path().join("state.sqlite.damaged").exists());
        store.save(vec![record("outlook", "{}")]);
        store.flush().await.unwrap();
        assert_eq!(open(folder.path(), clock()).records.len(), 1);
    }

    #[tokio::test]
    async fn torn_pages_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let Opened { store, writer, .. } = open(folder.path(), clock());
        let stop = CancellationToken::new();
        stop.cancel();
        store.save((0..500).map(|n| record(&format!("provider {n}"), &"x".repeat(200))).collect());
        writer.run(stop).await;
        drop(store);
        let path = folder.path().join("state.sqlite");
        let mut bytes = std::fs::read(&path).unwrap();
        let half = bytes.len() / 2;
        bytes[half..half + 8192].fill(0xA5);
        std::fs::write(&path, bytes).unwrap();
        let Opened { records, problem, .. } = open(folder.path(), clock());
        assert!(records.is_empty() && problem.is_some(), "{problem:?}");
    }

    #[tokio::test]
    async fn while_the_disk_fails_nothing_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (store, ..) = run(folder.path());
        store.save(vec![record("outlook", "{\"n\":1}")]);
        store.flush().await.unwrap();
        // Somebody else holds the lock for longer than we wait.
        let other = rusqlite::Connection::open(folder.path().join("state.sqlite")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        store.save(vec![record("outlook", "{\"n\":2}"), record("gmail", "{\"n\":2}")]);
        tokio::time::sleep(file::BUSY_WAIT + Duration::from_millis(200)).await;
        store.save(vec![record("outlook", "{\"n\":3}")]);
        other.execute_batch("ROLLBACK").unwrap();
        store.flush().await.unwrap();
        let records = open(folder.path(), clock()).records;
        assert_eq!(records, [record("gmail", "{\"n\":2}"), record("outlook", "{\"n\":3}")]);
    }
}
