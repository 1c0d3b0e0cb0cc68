//! The suppression list: recipients who were refused for good, and are not written to any more.
//!
//! Rules that always hold:
//! - an address is known by `Mailbox::key()`: letter case, quotes that change nothing and the form of the domain make no
//!   second entry; where a refusal spoke of one sender domain's mail alone, the entry holds back that mail alone;
//! - an entry that has expired is no hit, swept or not. It is remembered for a year, so that the second refusal is known as
//!   the second, unless a message was delivered meanwhile;
//! - a look-up never waits for a write (WAL); an import is cut into short transactions, so that no other write waits
//!   for it;
//! - who is not on the list is known from memory (`sieve`), at some two octets an entry; else a list of ten million entries costs memory for a few
//!   pages only.
//!
//! The list is a database of its own beside the spool, so that neither holds up the other. What a refusal comes to is
//! decided in `decision`, within the transaction that writes it.

mod decision;
mod entry;
mod objects;
mod operation;
pub mod options;
mod sieve;
mod sorted;
mod store;
mod sweep;
mod transfer;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use decision::WAVE_KEEP;
pub use entry::{Doubt, Entry, Filter, Hit, Noted, Page, Place, Source, Standing, Wave};
pub use sorted::{Sorted, Sorter};
pub use transfer::{CSV_HEADER, LineReader, csv_line};

use crate::clock::Clock;
use crate::sqlite;
use crate::types::{Domain, Mailbox, Seldom};
use operation::{Operation, Outcome};
use options::Policy;
use sieve::Sieve;

/// Writes that wait for the next commit.
const WRITES_MAX: usize = 256;
/// Refusals that are kept in memory while the disk fails: as many as can be told before deliveries stop, and more.
const KEPT_MAX: usize = 10_000;
/// The end of the id of a wave that the receiver itself decides about, by whom else it takes.
pub const UNPROVEN: &str = "-unproven";
/// Entries of one piece of an import or of a removal: some milliseconds of writing.
pub const PIECE: usize = 500;
/// Connections for look-ups; one more is opened while all are in use, and closed again.
const READERS_KEPT: usize = 4;
/// Time to try a commit again after the disk failed.
const RETRY: Duration = Duration::from_secs(1);

/// What was tried and why it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the suppression list: {0}")]
pub struct ListError(String);

/// The list. Cheap to clone.
#[derive(Clone)]
pub struct List(Arc<Shared>);

struct Shared {
    path: PathBuf,
    clock: Clock,
    policy: Mutex<Policy>,
    readers: Mutex<Vec<Connection>>,
    /// None: opened for reading alone, while somebody else may write.
    sieve: Option<Arc<Sieve>>,
    /// None: opened for reading alone.
    writes: Option<mpsc::Sender<Write>>,
}

/// One write on its way: all its operations in one transaction.
struct Write {
    operations: Vec<Operation>,
    answer: oneshot::Sender<Result<Vec<Outcome>, ListError>>,
}

/// A write that was handed over and is not durable yet.
struct Pending(oneshot::Receiver<Result<Vec<Outcome>, ListError>>);

/// What became of the entries of another list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    pub added: u64,
    /// Were there before.
    pub updated: u64,
}

/// An import on its way: one piece goes to the disk while the next is read.
pub struct Importing<'a> {
    list: &'a List,
    pending: Option<Pending>,
    done: Merged,
}

/// The writing half of the list; does nothing until `run`.
pub struct Writer {
    connection: Option<Connection>,
    writes: mpsc::Receiver<Write>,
    /// What receivers said and the disk has not taken yet.
    kept: VecDeque<Write>,
    path: PathBuf,
    clock: Clock,
    said: Seldom,
    sieve: Arc<Sieve>,
}

impl List {
    /// Opens the list at `path` (`data_dir/suppression.sqlite`). Only the owner of the data folder may do that.
    pub fn open(path: &Path, clock: Clock) -> Result<(List, Writer), ListError> {
        if let Some(folder) = path.parent() {
            sqlite::make_folder(folder)?;
        }
        let connection = sqlite::open_writer(path, store::MIGRATIONS, store::CACHE_KIB)?;
        let (sender, writes) = mpsc::channel(WRITES_MAX);
        let sieve = Arc::<Sieve>::default();
        let list = List::with(path, clock.clone(), Some((sender, sieve.clone())));
        let (kept, said, path) = (VecDeque::new(), Seldom::minutely(), path.to_owned());
        Ok((list, Writer { connection: Some(connection), writes, kept, path, clock, said, sieve }))
    }

    /// Opens the list to read it, whether a relay runs or not.
    pub fn read_only(path: &Path, clock: Clock) -> Result<List, ListError> {
        let list = List::with(path, clock, None);
        list.read(|_| Ok(()))?;
        Ok(list)
    }

    fn with(path: &Path, clock: Clock, writes: Option<(mpsc::Sender<Write>, Arc<Sieve>)>) -> List {
        let (policy, readers) = (Mutex::default(), Mutex::default());
        let (writes, sieve) = writes.unzip();
        List(Arc::new(Shared { path: path.to_owned(), clock, policy, readers, sieve, writes }))
    }

    /// Reads who is written down, so that everybody else is known from memory from then on. Some seconds for ten million; ends early on `stop`.
    pub async fn learn(self, stop: CancellationToken) {
        let done = tokio::task::spawn_blocking(move || self.learn_now(&stop)).await;
        if let Ok(Err(error)) = done {
            tracing::warn!("{error}; each recipient is looked up on the disk until the next start");
        }
    }

    fn learn_now(&self, stop: &CancellationToken) -> Result<(), ListError> {
        let Some(sieve) = &self.0.sieve else { return Ok(()) };
        for table in store::TABLES {
            let mut after = String::new();
            loop {
                if stop.is_cancelled() {
                    return Ok(());
                }
                let keys = self.read(|on| store::recipients(on, table, &after))?;
                keys.iter().for_each(|key| sieve.add(key));
                match keys.into_iter().next_back() {
                    Some(last) => after = last,
                    None => break,
                }
            }
        }
        sieve.is_whole_now();
        Ok(())
    }

    /// False: nothing is written down of the recipient, as memory knows.
    fn may_hold(&self, key: &str) -> bool {
        self.0.sieve.as_ref().is_none_or(|sieve| sieve.may_hold(key))
    }

    /// From now on so many refusals, for so long. What stands already keeps its end.
    pub fn set_policy(&self, policy: Policy) {
        *self.0.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    fn policy(&self) -> Policy {
        *self.0.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is mail from `sender_domain` (none: the empty sender) to this recipient held back now? Takes a few microseconds, and needs no
    /// thread of its own.
    pub fn check(&self, recipient: &Mailbox, sender_domain: Option<&Domain>) -> Result<Option<Entry>, ListError> {
        let (key, now) = (recipient.key(), self.0.clock.now());
        if !self.may_hold(&key) {
            return Ok(None);
        }
        let entries = self.read(|on| store::of_recipient(on, &key))?;
        Ok(entries.into_iter().find(|entry| entry.is_in_force(now) && entry.concerns(sender_domain)))
    }

    /// All that holds back mail to this recipient now, from whomever.
    pub fn entries(&self, recipient: &Mailbox) -> Result<Vec<Entry>, ListError> {
        let now = self.0.clock.now();
        let entries = self.read(|on| store::of_recipient(on, &recipient.key()))?;
        Ok(entries.into_iter().filter(|entry| entry.is_in_force(now)).collect())
    }

    /// As `check`, just before a try: also says whether a delivery would put something right.
    pub fn standing(&self, recipient: &Mailbox, sender_domain: Option<&Domain>) -> Result<Standing, ListError> {
        let (key, now) = (recipient.key(), self.0.clock.now());
        if !self.may_hold(&key) {
            return Ok(Standing::Free);
        }
        let (entries, counted) = self.read(|on| {
            let entries = store::of_recipient(on, &key)?;
            Ok((entries, store::is_counted(on, &key, &entry::scope(sender_domain))?))
        })?;
        let mut concerned = entries.into_iter().filter(|entry| entry.concerns(sender_domain)).peekable();
        let has_run_out = concerned.peek().is_some();
        Ok(match concerned.find(|entry| entry.is_in_force(now)) {
            Some(entry) => Standing::Listed(Box::new(entry)),
            None if counted || has_run_out => Standing::Remembered,
            None => Standing::Free,
        })
    }

    /// Puts an entry onto the list, as a person says; durable when it returns. What was there for the recipient keeps
    /// its beginning and its count.
    pub async fn add(&self, entry: Entry) -> Result<(), ListError> {
        self.write(vec![Operation::Add(entry)]).await.map(drop)
    }

    /// Begins to merge another list into this one.
    pub fn import(&self) -> Importing<'_> {
        Importing { list: self, pending: None, done: Merged::default() }
    }

    /// A refusal for good, counted or brought onto the list as the options say; durable when it returns.
    pub async fn note_refusal(&self, hit: Hit) -> Result<Noted, ListError> {
        match self.write(vec![Operation::Hit(Box::new(hit), self.policy())]).await?.pop() {
            Some(Outcome::Noted(noted)) => Ok(noted),
            _ => Err(no_answer()),
        }
    }

    /// A recipient who was refused before took a message: the counts are forgotten, and what had run out.
    pub async fn note_delivered(&self, recipient: &Mailbox, sender_domain: Option<&Domain>) -> Result<(), ListError> {
        let (recipient, sender_domain) = (recipient.key(), entry::scope(sender_domain));
        let now = self.0.clock.now();
        self.write(vec![Operation::Delivered { recipient, sender_domain, now }]).await.map(drop)
    }

    /// Takes a recipient off the list, with its history. False: it was not there.
    pub async fn remove(&self, recipient: &Mailbox) -> Result<bool, ListError> {
        Ok(changed(&self.write(vec![Operation::Remove(recipient.key())]).await?) > 0)
    }

    /// Takes off the list what `filter` chooses, and says how many that were. An entry that changes just then stays, and so do
    /// counts. Of a wave whose entries had been there before, these go back to what they were.
    pub async fn remove_all(&self, filter: &Filter) -> Result<u64, ListError> {
        let now = self.0.clock.now();
        let remove = |entry: &Entry| Operation::RemoveOne { place: entry.place(), last: entry.last, now };
        self.change_all(filter, remove).await
    }

    /// The waves that wait for a person's decision, latest first.
    pub fn waves(&self) -> Result<Vec<Wave>, ListError> {
        let now = self.0.clock.now();
        let mut waves = self.read(|on| store::waves(on, now))?;
        waves.retain(|wave| !wave.id.ends_with(UNPROVEN));
        Ok(waves)
    }

    /// What stands provisionally in this wave holds as long as any refusal from now on. Says how many those were.
    pub async fn confirm(&self, wave: &str) -> Result<u64, ListError> {
        let (policy, now) = (self.policy(), self.0.clock.now());
        let filter = Filter { wave: Some(wave.to_string()), source: Some(Source::Wave), ..Filter::default() };
        let confirm = |entry: &Entry| {
            let (place, wave) = (entry.place(), wave.to_string());
            Operation::Confirm { place, wave, policy, now }
        };
        self.change_all(&filter, confirm).await
    }

    /// Changes how a recipient stands on the list by what the receiver says of others. `wave`: under which he stands there
    /// provisionally, or is to. False: there was nothing to change.
    pub async fn doubt(&self, recipient: &Mailbox, wave: &str, doubt: Doubt) -> Result<bool, ListError> {
        let place = Place { recipient: recipient.key(), sender_domain: String::new() };
        let (wave, policy, now) = (wave.to_string(), self.policy(), self.0.clock.now());
        let operation = Operation::Doubt { place, wave, doubt, policy, now };
        Ok(changed(&self.write(vec![operation]).await?) > 0)
    }

    /// Does `operation` to each entry that `filter` chooses, a piece at a time, so that others write between.
    async fn change_all(&self, filter: &Filter, operation: impl Fn(&Entry) -> Operation) -> Result<u64, ListError> {
        let (mut after, mut rows) = (None, 0);
        loop {
            let page = self.list(filter, after.as_ref(), PIECE)?;
            let operations: Vec<Operation> = page.entries.iter().map(&operation).collect();
            if operations.is_empty() {
                // Nothing to wait for, and others want to run as well.
                tokio::task::yield_now().await;
            } else {
                rows += changed(&self.write(operations).await?);
            }
            after = page.next;
            if after.is_none() {
                return Ok(rows);
            }
        }
    }

    /// Up to `limit` entries behind `after`. Looks at a bounded number of rows a call.
    pub fn list(&self, filter: &Filter, after: Option<&Place>, limit: usize) -> Result<Page, ListError> {
        let now = self.0.clock.now();
        self.read(|on| store::list(on, filter, after, limit, now))
    }

    /// How many entries there are, expired ones too. Walks through the list: seconds for millions.
    pub fn count(&self) -> Result<u64, ListError> {
        self.read(store::count)
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, ListError> {
        let kept = || self.0.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = kept().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => sqlite::open_reader(&self.0.path, store::MIGRATIONS.len(), store::READER_CACHE_KIB)?,
        };
        let result = work(&connection)?;
        let mut kept = kept();
        if kept.len() < READERS_KEPT {
            kept.push(connection);
        }
        Ok(result)
    }

    async fn write(&self, operations: Vec<Operation>) -> Result<Vec<Outcome>, ListError> {
        self.hand_over(operations).await?.outcomes().await
    }

    async fn hand_over(&self, operations: Vec<Operation>) -> Result<Pending, ListError> {
        let writes = self.0.writes.as_ref().ok_or_else(|| ListError("it was opened for reading alone".to_string()))?;
        let (answer, answered) = oneshot::channel();
        writes.send(Write { operations, answer }).await.map_err(|_| closed())?;
        Ok(Pending(answered))
    }
}

impl Importing<'_> {
    /// Hands over up to `PIECE` entries; in the order of their addresses they cost least. Returns what is durable, which
    /// is all but this piece. After an error nothing more should come: what was durable before stays.
    pub async fn merge(&mut self, piece: Vec<Entry>) -> Result<Merged, ListError> {
        let next = self.list.hand_over(piece.into_iter().map(Operation::Merge).collect()).await?;
        self.settle(Some(next)).await
    }

    /// Waits until all of it is durable.
    pub async fn end(mut self) -> Result<Merged, ListError> {
        self.settle(None).await
    }

    async fn settle(&mut self, next: Option<Pending>) -> Result<Merged, ListError> {
        if let Some(before) = std::mem::replace(&mut self.pending, next) {
            let outcomes = before.outcomes().await?;
            let added = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Added { new: true })).count();
            self.done.added += added as u64;
            self.done.updated += (outcomes.len() - added) as u64;
        }
        Ok(self.done)
    }
}

impl Pending {
    async fn outcomes(self) -> Result<Vec<Outcome>, ListError> {
        self.0.await.map_err(|_| closed())?
    }
}

fn closed() -> ListError {
    ListError("it is closed".to_string())
}

fn no_answer() -> ListError {
    ListError("the writer gave no answer".to_string())
}

fn changed(outcomes: &[Outcome]) -> u64 {
    outcomes.iter().map(|outcome| if let Outcome::Changed(rows) = outcome { *rows } else { 0 }).sum()
}

impl Writer {
    /// Writes until `stop`, then what is still handed over, and ends.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let first = match self.kept.pop_front() {
                Some(kept) => Some(kept),
                None => tokio::select! {
                    biased;
                    write = self.writes.recv() => write,
                    () = stop.cancelled() => {
                        self.writes.close();
                        self.writes.recv().await
                    }
                },
            };
            let Some(first) = first else { return };
            let batch = self.gather(first);
            self.commit(batch, stop.is_cancelled()).await;
        }
    }

    /// Takes what waits, up to the size of one short transaction.
    fn gather(&mut self, first: Write) -> Vec<Write> {
        let mut operations = first.operations.len();
        let mut batch = vec![first];
        while operations < operation::OPERATIONS_MAX
            && let Some(next) = self.kept.pop_front().or_else(|| self.writes.try_recv().ok())
        {
            operations += next.operations.len();
            batch.push(next);
        }
        batch
    }

    /// One transaction on a thread of its own; after an error the file is opened afresh (see `spool::store`).
    async fn commit(&mut self, batch: Vec<Write>, is_last: bool) {
        // An operator can say it again; a receiver's word comes once.
        let lasting: Vec<Option<Vec<Operation>>> = batch.iter().map(Write::lasting).collect();
        let written = batch.iter().flat_map(|write| &write.operations).filter_map(Operation::brings);
        written.for_each(|key| self.sieve.add(&key));
        let (operations, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|write| (write.operations, write.answer)).unzip();
        let (connection, path) = (self.connection.take(), self.path.clone());
        let done = tokio::task::spawn_blocking(move || {
            let opened = match connection {
                Some(connection) => Ok(connection),
                None => sqlite::open_writer(&path, store::MIGRATIONS, store::CACHE_KIB).map_err(Failed::from),
            };
            opened.and_then(|mut connection| {
                let outcomes = operation::commit(&mut connection, operations)?;
                Ok((connection, outcomes))
            })
        });
        let panicked =
            |error: tokio::task::JoinError| Failed { error: ListError(error.to_string()), of_the_disk: false };
        match done.await.unwrap_or_else(|error| Err(panicked(error))) {
            Ok((connection, outcomes)) => {
                self.connection = Some(connection);
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(Failed { error, of_the_disk }) => {
                if self.said.is_due(self.clock.now()) {
                    tracing::error!("{error}");
                }
                let mut kept = VecDeque::new();
                for (answer, lasting) in answers.into_iter().zip(lasting) {
                    match lasting {
                        Some(operations) if of_the_disk && !is_last && self.kept.len() + kept.len() < KEPT_MAX => {
                            kept.push_back(Write { operations, answer });
                        }
                        _ => drop(answer.send(Err(error.clone()))),
                    }
                }
                kept.append(&mut self.kept);
                self.kept = kept;
                // No busy loop on a disk that fails.
                if !is_last {
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

impl Write {
    /// The operations once more, if all of them are what a receiver said.
    fn lasting(&self) -> Option<Vec<Operation>> {
        let is_heard = |operation: &Operation| {
            matches!(operation, Operation::Hit(..) | Operation::Delivered { .. } | Operation::Doubt { .. })
        };
        self.operations.iter().all(is_heard).then(|| self.operations.clone())
    }
}

/// Why a transaction came to nothing.
#[derive(Debug)]
struct Failed {
    error: ListError,
    /// So that the same may succeed later.
    of_the_disk: bool,
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Failed {
        Failed { of_the_disk: sqlite::is_of_the_disk(&error), error: error.into() }
    }
}

impl From<sqlite::OpenError> for Failed {
    fn from(error: sqlite::OpenError) -> Failed {
        Failed { of_the_disk: true, error: error.into() }
    }
}

impl From<rusqlite::Error> for ListError {
    fn from(error: rusqlite::Error) -> ListError {
        ListError(error.to_string())
    }
}

impl From<sqlite::OpenError> for ListError {
    fn from(error: sqlite::OpenError) -> ListError {
        ListError(error.to_string())
    }
}

#[cfg(test)]
mod tests;
