//! One commit: a batch of new messages and changes in one transaction.
//!
//! The order inside a commit: files' names synced, SQL, events written, COMMIT, files of ended messages removed. So an
//! event stands in the log before its outcome is forgotten, and a row never names a file that a power cut could take.
//!
//! Rules that always hold:
//! - a failed COMMIT is not tried again on the same connection: what the kernel did with the pages is unknown, so the
//!   file is opened afresh and the changes are made anew;
//! - a failed COMMIT may still be found in the log after a power cut. So the files of its messages stay until a later
//!   commit has taken its place;
//! - one item that cannot be stored (an id given twice) fails alone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior, params};

use super::body::{BodyFile, Content};
use super::{Change, Journal, SpoolError, row, schema};
use crate::sqlite;
use crate::types::{Body, Delivery, Envelope, Event, QueueId};

/// Memory for pages: a batch of the usual size with what it touches. A larger one spills into the log.
const CACHE_KIB: u32 = 6 * 1024;
/// The second connection only copies.
const CHECKPOINT_CACHE_KIB: u32 = 256;
/// The log that makes a checkpoint worth its cost: 32 MiB.
pub(super) const LOG_PAGES_MAX: u64 = (32 << 20) / sqlite::PAGE_BYTES;
/// Free pages that stay in the file for the mail of the next minutes: 16 MiB.
const FREE_PAGES_KEPT: u64 = (16 << 20) / sqlite::PAGE_BYTES;
/// Free pages given back in one idle slice: a few milliseconds.
const SLICE_PAGES: u64 = 256;

/// A message that waits for its commit.
pub(super) struct Accept {
    pub envelope: Arc<Envelope>,
    pub deliveries: Vec<Delivery>,
    pub content: Content,
    pub events: Vec<Event>,
    /// Why it cannot be stored, if it is this message's own fault.
    pub fault: Option<String>,
}

/// Changes handed over in one call.
pub(super) struct Settle {
    pub number: u64,
    pub changes: Vec<Change>,
    pub events: Vec<Event>,
}

/// What one commit holds.
#[derive(Default)]
pub(super) struct Batch {
    pub accepts: Vec<Accept>,
    pub settles: Vec<Settle>,
    /// Write something in any case, so that success proves something.
    pub probe: bool,
}

/// The spool's counters as of the last commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub last_id: i64,
    pub messages: i64,
    pub deliveries: i64,
    pub bytes: i64,
}

/// What the writer wants to know after a commit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct After {
    pub messages: u64,
    pub free_page_bytes: u64,
    pub log: sqlite::Log,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grouping {
    Together,
    /// Each item in a savepoint of its own, after one of them made the whole fail.
    Each,
}

/// The database as its one writer holds it.
pub(super) struct Store {
    folder: PathBuf,
    journal: Box<dyn Journal>,
    /// None after an error: opened afresh by the next commit.
    connection: Option<Connection>,
    counters: Counters,
    /// Files of messages whose COMMIT failed.
    condemned: Vec<BodyFile>,
}

impl Store {
    pub(super) fn open(folder: &Path, journal: Box<dyn Journal>) -> Result<Store, SpoolError> {
        let connection = sqlite::open_writer(&schema::database(folder), schema::MIGRATIONS, CACHE_KIB)?;
        let counters = read_counters(&connection)?;
        Ok(Store { folder: folder.to_owned(), journal, connection: Some(connection), counters, condemned: Vec::new() })
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// Commits the batch. On an error nothing of it is in the spool; accepts and settles are as they were, but events
    /// that are already in the log are taken out, so that they are not written twice.
    pub(super) fn commit(&mut self, batch: &mut Batch) -> Result<After, SpoolError> {
        let result = match self.attempt(batch, Grouping::Together) {
            Err(Failed::Item(_)) => self.attempt(batch, Grouping::Each),
            other => other,
        };
        let ended = match result {
            Ok(ended) => ended,
            Err(Failed::Item(text) | Failed::Disk(text)) => {
                self.connection = None;
                self.condemn(batch);
                return Err(SpoolError::Failed(text));
            }
        };
        for accept in &mut batch.accepts {
            if let (None, Some(file)) = (&accept.fault, &mut accept.content.file) {
                file.keep();
            }
        }
        self.condemned.clear();
        self.remove_files(&ended);
        // The batch is committed, whatever these numbers say: an error here is met again by the next commit.
        Ok(self.after().unwrap_or(After { messages: positive(self.counters.messages), ..After::default() }))
    }

    fn attempt(&mut self, batch: &mut Batch, grouping: Grouping) -> Result<Vec<QueueId>, Failed> {
        if batch.accepts.iter().any(|accept| accept.content.file.is_some()) {
            sqlite::sync_folder(&schema::bodies(&self.folder))
                .map_err(|e| Failed::Disk(format!("sync of bodies: {e}")))?;
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(
                sqlite::open_writer(&schema::database(&self.folder), schema::MIGRATIONS, CACHE_KIB)
                    .map_err(|e| Failed::Disk(e.to_string()))?,
            ),
        };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut work = Work { counters: self.counters, ended: Vec::new(), grouping };
        for accept in &mut batch.accepts {
            accept.fault = work.item(&transaction, |work, on| work.accept(on, accept))?;
        }
        for settle in &mut batch.settles {
            let changes = &settle.changes;
            if let Some(text) = work.item(&transaction, |work, on| work.settle(on, changes))? {
                tracing::error!("a change of the queue cannot be stored and is left out: {text}");
            }
        }
        if work.counters != self.counters || batch.probe {
            work.counters.write(&transaction)?;
        }
        write_events(&mut *self.journal, batch)?;
        transaction.commit()?;
        self.counters = work.counters;
        Ok(work.ended)
    }

    /// Takes the files of messages that were not committed; see the rules above.
    fn condemn(&mut self, batch: &mut Batch) {
        self.condemned.extend(batch.accepts.iter_mut().filter_map(|accept| accept.content.file.take()));
    }

    fn remove_files(&self, ended: &[QueueId]) {
        let bodies = schema::bodies(&self.folder);
        for id in ended {
            // What cannot be removed now is removed by the sweep of the next start.
            if let Err(error) = std::fs::remove_file(bodies.join(id.to_string())) {
                tracing::warn!("the content of the ended message {id} cannot be removed: {error}");
            }
        }
    }

    fn after(&self) -> rusqlite::Result<After> {
        let messages = positive(self.counters.messages);
        let Some(connection) = &self.connection else { return Ok(After { messages, ..After::default() }) };
        let free_page_bytes = sqlite::free_pages(connection)? * sqlite::PAGE_BYTES;
        Ok(After { messages, free_page_bytes, log: sqlite::log(connection)? })
    }

    /// Copies the little that came into the log while the second connection copied, so that the log starts again.
    pub(super) fn checkpoint(&self) -> rusqlite::Result<()> {
        self.connection.as_ref().map_or(Ok(()), |connection| sqlite::checkpoint(connection).map(drop))
    }

    /// A slice of the work that waits for idle moments. False: there is no more of it.
    pub(super) fn tidy(&self) -> rusqlite::Result<bool> {
        let Some(connection) = &self.connection else { return Ok(false) };
        let free = sqlite::free_pages(connection)?;
        if free > FREE_PAGES_KEPT {
            sqlite::give_back(connection, SLICE_PAGES.min(free - FREE_PAGES_KEPT))?;
            if sqlite::log(connection)?.pages > LOG_PAGES_MAX {
                sqlite::checkpoint(connection)?;
            }
            return Ok(true);
        }
        sqlite::checkpoint(connection)?;
        Ok(false)
    }
}

/// The second connection of the writer: copies the log while commits go on.
pub(super) fn checkpoint_beside(folder: &Path) -> Result<(), SpoolError> {
    let connection = sqlite::open_writer(&schema::database(folder), schema::MIGRATIONS, CHECKPOINT_CACHE_KIB)?;
    sqlite::checkpoint(&connection)?;
    Ok(())
}

enum Failed {
    /// One item of the batch cannot be stored.
    Item(String),
    /// Nothing can be stored now.
    Disk(String),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Failed {
        if sqlite::is_of_the_disk(&error) { Failed::Disk(error.to_string()) } else { Failed::Item(error.to_string()) }
    }
}

/// Hands the events of what was stored to the log; settled ones first, whatever happens they are not written twice.
fn write_events(journal: &mut dyn Journal, batch: &mut Batch) -> Result<(), Failed> {
    let mut events = Vec::new();
    for settle in &mut batch.settles {
        events.append(&mut settle.events);
    }
    let settled = events.len();
    for accept in batch.accepts.iter_mut().filter(|accept| accept.fault.is_none()) {
        events.append(&mut accept.events);
    }
    if events.is_empty() {
        return Ok(());
    }
    let result = journal.write(&events);
    if let Err(error) = result {
        events.truncate(settled);
        if let Some(first) = batch.settles.first_mut() {
            first.events = events;
        }
        return Err(Failed::Disk(format!("the event log: {error}")));
    }
    Ok(())
}

/// A transaction under way.
struct Work {
    counters: Counters,
    /// Messages that ended and whose content lies in a file.
    ended: Vec<QueueId>,
    grouping: Grouping,
}

impl Work {
    /// Does one item. Its own fault comes back as text, if items are done each for itself.
    fn item(
        &mut self,
        on: &Connection,
        work: impl FnOnce(&mut Work, &Connection) -> rusqlite::Result<()>,
    ) -> Result<Option<String>, Failed> {
        if self.grouping == Grouping::Together {
            return Ok(work(self, on).map(|()| None)?);
        }
        let (counters, ended) = (self.counters, self.ended.len());
        on.execute_batch("SAVEPOINT item")?;
        match work(self, on).map_err(Failed::from) {
            Ok(()) => {
                on.execute_batch("RELEASE item")?;
                Ok(None)
            }
            Err(Failed::Item(text)) => {
                on.execute_batch("ROLLBACK TO item; RELEASE item")?;
                self.counters = counters;
                self.ended.truncate(ended);
                Ok(Some(text))
            }
            Err(disk) => Err(disk),
        }
    }

    fn accept(&mut self, on: &Connection, accept: &Accept) -> rusqlite::Result<()> {
        let content = match &accept.content.body {
            Body::Inline(bytes) => Some(&bytes[..]),
            Body::File { .. } => None,
        };
        self.insert(on, &accept.envelope, &accept.deliveries, content)
    }

    fn insert(
        &mut self,
        on: &Connection,
        envelope: &Envelope,
        deliveries: &[Delivery],
        content: Option<&[u8]>,
    ) -> rusqlite::Result<()> {
        row::insert_message(on, envelope, content.is_none())?;
        if let Some(bytes) = content {
            on.prepare_cached("INSERT INTO body (id, content) VALUES (?1, ?2)")?
                .execute(params![envelope.id.key(), bytes])?;
        }
        for delivery in deliveries {
            row::insert_delivery(on, delivery)?;
        }
        self.counters.last_id = self.counters.last_id.max(envelope.id.key());
        self.counters.messages += 1;
        self.counters.deliveries += count(deliveries.len());
        self.counters.bytes += i64::try_from(envelope.size_bytes).unwrap_or(0);
        Ok(())
    }

    fn settle(&mut self, on: &Connection, changes: &[Change]) -> rusqlite::Result<()> {
        for change in changes {
            match change {
                Change::Plan { id, next_attempt } => {
                    on.prepare_cached("UPDATE delivery SET next_attempt = ?3 WHERE message = ?1 AND part = ?2")?
                        .execute(params![id.message.key(), id.part, next_attempt.millis()])?;
                }
                Change::Update(delivery) => {
                    row::update_delivery(on, delivery)?;
                }
                Change::Finish(id) => {
                    let gone = on
                        .prepare_cached("DELETE FROM delivery WHERE message = ?1 AND part = ?2")?
                        .execute(params![id.message.key(), id.part])?;
                    self.counters.deliveries -= count(gone);
                    if gone > 0 {
                        self.end_if_last(on, id.message)?;
                    }
                }
                Change::Report { envelope, deliveries, content } => {
                    self.insert(on, envelope, deliveries, Some(content))?;
                }
                // Events were taken out when the changes were handed over.
                Change::Note(_) => {}
            }
        }
        Ok(())
    }

    fn end_if_last(&mut self, on: &Connection, id: QueueId) -> rusqlite::Result<()> {
        let mut delete = on.prepare_cached(
            "DELETE FROM message WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM delivery WHERE message = ?1) \
             RETURNING size, in_file",
        )?;
        let mut rows = delete.query(params![id.key()])?;
        let Some(row) = rows.next()? else { return Ok(()) };
        let (size, in_file): (i64, bool) = (row.get(0)?, row.get(1)?);
        // The statement deletes for good only when it has come to its end.
        while rows.next()?.is_some() {}
        self.counters.messages -= 1;
        self.counters.bytes -= size;
        if in_file {
            self.ended.push(id);
            return Ok(());
        }
        on.prepare_cached("DELETE FROM body WHERE id = ?1")?.execute(params![id.key()]).map(drop)
    }
}

impl Counters {
    fn write(&self, on: &Connection) -> rusqlite::Result<()> {
        on.prepare_cached("UPDATE meta SET last_id = ?1, messages = ?2, deliveries = ?3, bytes = ?4")?
            .execute(params![self.last_id, self.messages, self.deliveries, self.bytes])
            .map(drop)
    }
}

pub(super) fn read_counters(on: &Connection) -> rusqlite::Result<Counters> {
    on.query_row("SELECT last_id, messages, deliveries, bytes FROM meta", (), |row| {
        Ok(Counters { last_id: row.get(0)?, messages: row.get(1)?, deliveries: row.get(2)?, bytes: row.get(3)? })
    })
}

pub(super) fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl From<io::Error> for SpoolError {
    fn from(error: io::Error) -> SpoolError {
        SpoolError::Failed(error.to_string())
    }
}

impl From<rusqlite::Error> for SpoolError {
    fn from(error: rusqlite::Error) -> SpoolError {
        SpoolError::Failed(error.to_string())
    }
}

impl From<sqlite::OpenError> for SpoolError {
    fn from(error: sqlite::OpenError) -> SpoolError {
        SpoolError::Failed(error.to_string())
    }
}
