//! One commit: a batch of new messages and changes in one transaction.
//!
//! The order inside a commit: files' names synced, SQL, events written, COMMIT, files of ended messages removed. So an
//! event stands in the log before its outcome is forgotten, and a row never names a file that a power cut could take.
//!
//! Rules that always hold:
//! - a failed COMMIT is not tried again on the same connection: what the kernel did with the pages is unknown (after a
//!   failed sync Linux counts them as clean, written or not), so the file is opened afresh and every page written anew;
//! - a failed COMMIT may still be found in the log: after a power cut, after a kill, or when the file is opened afresh and
//!   nobody else had it open. So the files of its messages stay until a later commit has taken its place, and that commit
//!   first takes out what came back: clients have heard that it was refused;
//! - whom the event log calls accepted has an end there as well: `removed`, if the COMMIT behind it failed;
//! - one item that cannot be stored (an id given twice) fails alone.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, TransactionBehavior, params};

use super::body::{BodyFile, Content};
use super::{Change, Journal, SpoolError, row, schema};
use crate::clock::Clock;
use crate::sqlite;
use crate::types::{Body, Class, Delivery, Envelope, Event, EventKind, QueueId, Seldom, Verdict};

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
    /// The event log says that it was accepted.
    pub told: bool,
}

/// Changes handed over in one call.
pub(super) struct Settle {
    pub number: u64,
    pub changes: Vec<Change>,
    pub events: Vec<Event>,
    /// Its reports are signed, if they are at all: what is made again is not signed again.
    pub is_sealed: bool,
}

impl Settle {
    /// Takes the signed contents of its reports, with all that says how long they are.
    pub(super) fn seal(&mut self, sealed: &mut impl Iterator<Item = Bytes>) {
        self.is_sealed = true;
        for change in &mut self.changes {
            let Change::Report { envelope, content, .. } = change else { continue };
            let Some(signed) = sealed.next() else { return };
            *content = signed;
            Arc::make_mut(envelope).size_bytes = content.len() as u64;
            for event in self.events.iter_mut().filter(|event| event.id == Some(envelope.id)) {
                event.size_bytes = event.size_bytes.map(|_| content.len() as u64);
            }
        }
    }
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
    pub spare: Spare,
    pub log: sqlite::Log,
}

/// What the file system counts as taken and the next messages can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spare {
    /// Free pages of the database.
    pub page_bytes: u64,
    /// The part of the log's file that is written anew before it grows: all of it once it is copied.
    pub log_bytes: u64,
    /// And the reverse: by so much the database has to grow when the log is copied.
    pub owed_bytes: u64,
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
    doubtful: Doubtful,
    /// Held open, so that a commit needs no descriptor that may just not be there.
    bodies: File,
    clock: Clock,
    /// Files that cannot be removed are told of now and then.
    removal: Seldom,
}

/// What failed commits may have left in the log.
#[derive(Default)]
struct Doubtful {
    /// A commit has failed and none has succeeded since.
    any: bool,
    /// Messages that were refused; no more than one batch, for none is accepted while the disk fails.
    messages: Vec<QueueId>,
    files: Vec<BodyFile>,
    /// The end of those whose acceptance is in the event log already.
    retractions: Vec<Event>,
}

impl Store {
    pub(super) fn open(folder: &Path, journal: Box<dyn Journal>, clock: Clock) -> Result<Store, SpoolError> {
        let connection = sqlite::open_writer(&schema::database(folder), schema::MIGRATIONS, CACHE_KIB)?;
        let counters = read_counters(&connection)?;
        let bodies = File::open(schema::bodies(folder))?;
        Ok(Store {
            folder: folder.to_owned(),
            journal,
            connection: Some(connection),
            counters,
            doubtful: Doubtful::default(),
            bodies,
            clock,
            removal: Seldom::minutely(),
        })
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// Commits, and tells the journal how long that took.
    pub(super) fn timed_commit(&mut self, batch: &mut Batch) -> Result<After, SpoolError> {
        let begun = self.clock.elapsed();
        let result = self.commit(batch);
        self.journal.committed(self.clock.elapsed().saturating_sub(begun));
        result
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
                self.doubt(batch);
                return Err(SpoolError::Failed(text));
            }
        };
        for accept in &mut batch.accepts {
            if let (None, Some(file)) = (&accept.fault, &mut accept.content.file) {
                file.keep();
            }
        }
        self.doubtful = Doubtful::default();
        self.remove_files(&ended);
        // The batch is committed, whatever these numbers say: an error here is met again by the next commit.
        Ok(self.after().unwrap_or(After { messages: positive(self.counters.messages), ..After::default() }))
    }

    fn attempt(&mut self, batch: &mut Batch, grouping: Grouping) -> Result<Vec<QueueId>, Failed> {
        if batch.accepts.iter().any(|accept| accept.content.file.is_some()) {
            self.bodies.sync_all().map_err(|e| Failed::Disk(format!("sync of bodies: {e}")))?;
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let (connection, counters) = open_afresh(&self.folder).map_err(|e| Failed::Disk(e.to_string()))?;
                self.counters = counters;
                none.insert(connection)
            }
        };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut work = Work { counters: self.counters, ended: Vec::new(), grouping, again: self.doubtful.any };
        for refused in &self.doubtful.messages {
            work.take_back(&transaction, *refused)?;
        }
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
        write_events(&mut *self.journal, batch, &mut self.doubtful.retractions)?;
        transaction.commit()?;
        self.counters = work.counters;
        Ok(work.ended)
    }

    /// Takes note of messages that were not committed, and their files; see the rules above.
    fn doubt(&mut self, batch: &mut Batch) {
        self.doubtful.any = true;
        for accept in &batch.accepts {
            self.doubtful.messages.push(accept.envelope.id);
            if accept.told {
                self.doubtful.retractions.extend(retractions(accept));
            }
        }
        self.doubtful.files.extend(batch.accepts.iter_mut().filter_map(|accept| accept.content.file.take()));
    }

    fn remove_files(&self, ended: &[QueueId]) {
        let bodies = schema::bodies(&self.folder);
        for id in ended {
            // What cannot be removed now is removed by the sweep of the next start.
            if let Err(error) = std::fs::remove_file(bodies.join(id.to_string()))
                && error.kind() != io::ErrorKind::NotFound
                && self.removal.is_due(self.clock.now())
            {
                tracing::warn!("the content of the ended message {id} cannot be removed: {error}");
            }
        }
    }

    /// The numbers as of the last commit.
    pub(super) fn after(&self) -> rusqlite::Result<After> {
        let messages = positive(self.counters.messages);
        let Some(connection) = &self.connection else { return Ok(After { messages, ..After::default() }) };
        let log = sqlite::log(connection)?;
        // What does not exist has nothing to spare.
        let length = |file: PathBuf| std::fs::metadata(file).map_or(0, |found| found.len());
        let needed = if log.copied == log.pages { 0 } else { log.pages * sqlite::PAGE_BYTES };
        let spare = Spare {
            page_bytes: sqlite::free_pages(connection)? * sqlite::PAGE_BYTES,
            log_bytes: length(schema::log_file(&self.folder)).saturating_sub(needed),
            owed_bytes: (sqlite::pages(connection)? * sqlite::PAGE_BYTES)
                .saturating_sub(length(schema::database(&self.folder))),
        };
        Ok(After { messages, spare, log })
    }

    /// Copies the little that came into the log while the second connection copied, so that the log starts again.
    pub(super) fn checkpoint(&self) -> rusqlite::Result<()> {
        self.connection.as_ref().map_or(Ok(()), |connection| sqlite::checkpoint(connection).map(drop))
    }

    /// A slice of the work that waits for idle moments. False: there is no more of it.
    pub(super) fn tidy(&mut self) -> rusqlite::Result<bool> {
        let result = self.tidy_a_little();
        if result.as_ref().is_err_and(|error| !sqlite::is_full(error)) {
            // It may have been a sync that failed.
            self.connection = None;
        }
        result
    }

    fn tidy_a_little(&self) -> rusqlite::Result<bool> {
        let Some(connection) = &self.connection else { return Ok(false) };
        let free = sqlite::free_pages(connection)?;
        if free > FREE_PAGES_KEPT {
            sqlite::give_back(connection, SLICE_PAGES.min(free - FREE_PAGES_KEPT))?;
            if sqlite::log(connection)?.pages > LOG_PAGES_MAX {
                sqlite::checkpoint(connection)?;
            }
            return Ok(true);
        }
        match sqlite::checkpoint(connection) {
            // The database would have to grow for pages that hold nothing any more: without them it need not.
            Err(error) if sqlite::is_full(&error) && free > 0 => {
                sqlite::give_back(connection, SLICE_PAGES.min(free)).map(|()| true)
            }
            copied => copied.map(|_| false),
        }
    }
}

impl Drop for Store {
    /// The next start may find the failed commit in the log. Then its files are needed; else the sweep removes them.
    fn drop(&mut self) {
        self.doubtful.files.iter_mut().for_each(BodyFile::keep);
    }
}

/// After an error. Copies the log if that is possible: on a full disk the next commit then finds room in it.
fn open_afresh(folder: &Path) -> Result<(Connection, Counters), SpoolError> {
    let connection = sqlite::open_writer(&schema::database(folder), schema::MIGRATIONS, CACHE_KIB)?;
    let _ = sqlite::checkpoint(&connection);
    let counters = read_counters(&connection)?;
    Ok((connection, counters))
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

/// Hands the events of what was stored to the log; those of what is settled first, which whatever happens are not written
/// twice. `retractions` go before all.
fn write_events(journal: &mut dyn Journal, batch: &mut Batch, retractions: &mut Vec<Event>) -> Result<(), Failed> {
    let mut events = retractions.clone();
    for settle in &mut batch.settles {
        events.append(&mut settle.events);
    }
    let settled = events.len();
    for accept in batch.accepts.iter_mut().filter(|accept| accept.fault.is_none()) {
        accept.told |= !accept.events.is_empty();
        events.append(&mut accept.events);
    }
    if events.is_empty() {
        return Ok(());
    }
    let result = journal.write(&events);
    if let Err(error) = result {
        batch.accepts.iter_mut().for_each(|accept| accept.told = false);
        events.truncate(settled);
        if let Some(first) = batch.settles.first_mut() {
            first.events = events.split_off(retractions.len());
        }
        return Err(Failed::Disk(format!("the event log: {error}")));
    }
    retractions.clear();
    Ok(())
}

/// The client was told to come again, so this is where its recipients end under this id.
fn retractions(accept: &Accept) -> impl Iterator<Item = Event> {
    let envelope = &accept.envelope;
    accept.deliveries.iter().flat_map(|delivery| &delivery.recipients).map(|recipient| {
        let mut event = Event::new(envelope.received, EventKind::Removed);
        event.id = Some(envelope.id);
        event.sender = Some(envelope.sender.as_str().into());
        event.recipient = Some(recipient.address.as_str().to_string());
        event.message_id = envelope.message_id.clone();
        event.class = Some(Class::Temporary);
        event.rule = Some("not-stored".into());
        event.verdict = Some(Verdict::Retry.as_str());
        event
    })
}

/// A transaction under way.
struct Work {
    counters: Counters,
    /// Messages that ended and whose content lies in a file.
    ended: Vec<QueueId>,
    grouping: Grouping,
    /// Some of it may have been done already, by a commit that failed and came back.
    again: bool,
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
            Body::File { .. } | Body::Headed { .. } => None,
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
                Change::Report { envelope, .. } if self.again && is_there(on, envelope.id)? => {}
                Change::Report { envelope, deliveries, content } => {
                    self.insert(on, envelope, deliveries, Some(content))?;
                }
                // Events were taken out when the changes were handed over.
                Change::Note(_) => {}
            }
        }
        Ok(())
    }

    /// Takes out a message that was refused because its COMMIT failed, should it be there all the same.
    fn take_back(&mut self, on: &Connection, id: QueueId) -> rusqlite::Result<()> {
        if !is_there(on, id)? {
            return Ok(());
        }
        let gone = on.execute("DELETE FROM delivery WHERE message = ?1", params![id.key()])?;
        self.counters.deliveries -= count(gone);
        self.end_if_last(on, id)
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

fn is_there(on: &Connection, id: QueueId) -> rusqlite::Result<bool> {
    on.prepare_cached("SELECT 1 FROM message WHERE id = ?1")?.exists(params![id.key()])
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::spool::body::{BodyWriter, INLINE_MAX};
    use crate::spool::room::Room;
    use crate::spool::space::{Disk, Space};
    use crate::spool::tests::{delivery, envelope};
    use crate::types::{Origin, Timestamp};

    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<(EventKind, QueueId)>>>);

    impl Journal for Told {
        fn write(&mut self, events: &[Event]) -> io::Result<()> {
            self.0.lock().unwrap().extend(events.iter().filter_map(|event| Some((event.kind, event.id?))));
            Ok(())
        }
    }

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn id(key: i64) -> QueueId {
        QueueId::from_key(key).unwrap()
    }

    fn open(folder: &Path, told: &Told) -> Store {
        std::fs::create_dir_all(schema::bodies(folder)).unwrap();
        Store::open(folder, Box::new(told.clone()), Clock::starting_at(NOW)).unwrap()
    }

    async fn accept(folder: &Path, key: i64, size: usize) -> Accept {
        let options = crate::spool::Options { folder: folder.to_owned(), queue_messages: 9, min_free_bytes: 0 };
        let disk = Arc::new(Disk::new(Room::new(&options), folder.to_owned(), Clock::starting_at(NOW)));
        let space = Space::unlimited(&disk);
        let mut body = BodyWriter::new(id(key), Arc::new(schema::bodies(folder)), Arc::default(), space);
        body.write(&vec![b'x'; size]).await.unwrap();
        let mut event = Event::new(NOW, EventKind::Accepted);
        event.id = Some(id(key));
        Accept {
            envelope: Arc::new(envelope(id(key), size)),
            deliveries: vec![delivery(id(key), 0, "a.example")],
            content: body.finish().await.unwrap(),
            events: vec![event],
            fault: None,
            told: false,
        }
    }

    fn messages(store: &Store) -> Vec<i64> {
        let on = store.connection.as_ref().unwrap();
        let mut found = on.prepare("SELECT id FROM message ORDER BY id").unwrap();
        found.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// The sync after it failed, so it counts as failed; but the log holds it, and whoever opens the file finds it.
    fn fails_and_comes_back(store: &mut Store, batch: &mut Batch) {
        let before = store.counters;
        store.commit(batch).unwrap();
        (store.counters, store.connection) = (before, None);
        store.doubt(batch);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_message_whose_commit_comes_back_is_taken_out_and_told() {
        let (folder, told) = (tempfile::tempdir().unwrap(), Told::default());
        let mut store = open(folder.path(), &told);
        let kept = accept(folder.path(), 1, 10).await;
        store.commit(&mut Batch { accepts: vec![kept], ..Batch::default() }).unwrap();
        let refused = vec![accept(folder.path(), 2, 10).await, accept(folder.path(), 3, INLINE_MAX + 1).await];
        fails_and_comes_back(&mut store, &mut Batch { accepts: refused, ..Batch::default() });

        let after = store.commit(&mut Batch { probe: true, ..Batch::default() }).unwrap();
        assert_eq!((messages(&store), after.messages), (vec![1], 1));
        assert_eq!(std::fs::read_dir(schema::bodies(folder.path())).unwrap().count(), 0);
        let (accepted, removed) = (EventKind::Accepted, EventKind::Removed);
        let expected = [(accepted, id(1)), (accepted, id(2)), (accepted, id(3)), (removed, id(2)), (removed, id(3))];
        assert_eq!(*told.0.lock().unwrap(), expected);
        store.commit(&mut Batch { probe: true, ..Batch::default() }).unwrap();
        assert_eq!(told.0.lock().unwrap().len(), expected.len(), "told once");
        assert_eq!(store.counters, read_counters(store.connection.as_ref().unwrap()).unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn changes_whose_commit_comes_back_are_made_once() {
        let (folder, told) = (tempfile::tempdir().unwrap(), Told::default());
        let mut store = open(folder.path(), &told);
        let first = accept(folder.path(), 1, 10).await;
        store.commit(&mut Batch { accepts: vec![first], ..Batch::default() }).unwrap();
        let settle = || {
            let envelope = Arc::new(Envelope { origin: Origin::Report, ..envelope(id(9), 6) });
            let report = Change::Report {
                envelope,
                deliveries: vec![delivery(id(9), 0, "b.example")],
                content: "report".into(),
            };
            let changes = vec![Change::Finish(crate::types::DeliveryId { message: id(1), part: 0 }), report];
            Batch {
                settles: vec![Settle { number: 1, changes, events: Vec::new(), is_sealed: false }],
                ..Batch::default()
            }
        };
        fails_and_comes_back(&mut store, &mut settle());
        let after = store.commit(&mut settle()).unwrap();
        assert_eq!((messages(&store), after.messages), (vec![9], 1));
        assert_eq!((store.counters.deliveries, store.counters.bytes), (1, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn files_of_a_failed_commit_outlive_the_store() {
        let (folder, told) = (tempfile::tempdir().unwrap(), Told::default());
        let mut store = open(folder.path(), &told);
        let refused = accept(folder.path(), 2, INLINE_MAX + 1).await;
        store.doubt(&mut Batch { accepts: vec![refused], ..Batch::default() });
        drop(store);
        assert_eq!(std::fs::read_dir(schema::bodies(folder.path())).unwrap().count(), 1);
    }
}
