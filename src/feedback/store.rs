//! Whom a token speaks for: a row for each recipient whose mail carries one, in a database of its own.
//!
//! An address does not fit into a local part beside the rest of a token, so the token names the row. Rules that always hold:
//! - a row is on disk before the message that carries its token is accepted;
//! - rows stand in the order of queue ids, which is that of time: what is older than `feedback.keep` goes from the front;
//! - a look-up never waits for a write (WAL);
//! - mail that carries no token costs nothing here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::sqlite;
use crate::types::{DeliveryId, Mailbox, QueueId, ReversePath, Seldom};

/// The database in the data folder.
pub const NAME: &str = "feedback.sqlite";

/// One entry a version; an entry that was released is never changed again.
const MIGRATIONS: &[&str] = &["
CREATE TABLE sent (
    message    INTEGER NOT NULL,
    part       INTEGER NOT NULL,
    recipient  TEXT NOT NULL,
    sender     TEXT NOT NULL,
    message_id TEXT,
    told       INTEGER NOT NULL,
    PRIMARY KEY (message, part)
) WITHOUT ROWID;
CREATE INDEX sent_message_id ON sent (message_id) WHERE message_id IS NOT NULL;
"];

const CACHE_KIB: u32 = 1024;
const READER_CACHE_KIB: u32 = 512;
/// Writes that wait for the next commit.
const WRITES_MAX: usize = 1024;
/// Rows of one transaction: some ten milliseconds.
const ROWS_MAX: usize = 2000;
/// Rows that are taken from the front in one go, and how often that is looked for.
const SWEEP_ROWS: usize = 2000;
const SWEEP_EVERY: Duration = Duration::from_secs(600);
const SWEEP_PAUSE: Duration = Duration::from_millis(100);
/// The log that makes a checkpoint worth its cost: 8 MiB.
const LOG_PAGES_MAX: u64 = (8 << 20) / sqlite::PAGE_BYTES;
/// Given back at once: a few milliseconds.
const SLICE_PAGES: u64 = 128;

/// A recipient whose mail carries a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub delivery: DeliveryId,
    pub recipient: Mailbox,
    /// Of the envelope, as the client gave it.
    pub sender: ReversePath,
    /// With its angle brackets.
    pub message_id: Option<String>,
}

/// What was told of a message with its token. Each is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Returned = 1,
    Complained = 2,
}

/// What was tried and why it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the database of tokens: {0}")]
pub struct StoreError(String);

/// Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    path: PathBuf,
    reader: Mutex<Option<Connection>>,
    writes: mpsc::Sender<Write>,
}

struct Write {
    what: What,
    /// True: a row was changed.
    answer: oneshot::Sender<Result<bool, StoreError>>,
}

#[derive(Clone, Debug)]
enum What {
    Add(Vec<Sent>),
    Tell(DeliveryId, Told),
    /// Some rows of messages received before.
    Sweep(QueueId),
}

/// The writing half; does nothing until `run`.
pub struct Writer {
    connection: Option<Connection>,
    writes: mpsc::Receiver<Write>,
    path: PathBuf,
    clock: Clock,
    said: Seldom,
}

impl Store {
    /// Opens the store of a data folder. Only the folder's owner may do that.
    pub fn open(data_dir: &Path, clock: Clock) -> Result<(Store, Writer), StoreError> {
        let path = data_dir.join(NAME);
        sqlite::make_folder(data_dir)?;
        let connection = sqlite::open_writer(&path, MIGRATIONS, CACHE_KIB)?;
        let (sender, writes) = mpsc::channel(WRITES_MAX);
        let shared = Shared { path: path.clone(), reader: Mutex::default(), writes: sender };
        let writer = Writer { connection: Some(connection), writes, path, clock, said: Seldom::minutely() };
        Ok((Store(Arc::new(shared)), writer))
    }

    /// Rows of one message; durable when it returns.
    pub async fn add(&self, rows: Vec<Sent>) -> Result<(), StoreError> {
        self.write(What::Add(rows)).await.map(drop)
    }

    /// Whom a token speaks for. Takes a few microseconds.
    pub fn get(&self, delivery: DeliveryId) -> Result<Option<Sent>, StoreError> {
        self.read(|on| {
            on.prepare_cached(
                "SELECT message, part, recipient, sender, message_id FROM sent WHERE message = ?1 AND part = ?2",
            )?
            .query_row(params![delivery.message.key(), delivery.part], sent)
            .optional()
        })
        .map(Option::flatten)
    }

    /// The one recipient of the message with this Message-ID; none where there are several, or nobody.
    pub fn find(&self, message_id: &str) -> Result<Option<Sent>, StoreError> {
        self.read(|on| {
            let mut statement = on.prepare_cached(
                "SELECT message, part, recipient, sender, message_id FROM sent WHERE message_id = ?1 LIMIT 2",
            )?;
            let mut rows = statement.query_map(params![message_id], sent)?;
            let first = rows.next().transpose()?.flatten();
            Ok(if rows.next().is_some() { None } else { first })
        })
    }

    /// Remembers that this was told. False: it was told before, or the row is gone.
    pub async fn tell(&self, delivery: DeliveryId, told: Told) -> Result<bool, StoreError> {
        self.write(What::Tell(delivery, told)).await
    }

    /// Was it told before?
    pub fn is_told(&self, delivery: DeliveryId, told: Told) -> Result<bool, StoreError> {
        self.read(|on| {
            on.prepare_cached("SELECT 1 FROM sent WHERE message = ?1 AND part = ?2 AND told & ?3 != 0")?
                .exists(params![delivery.message.key(), delivery.part, told as i64])
        })
    }

    /// Takes what is too old from the front, a piece at a time, until `stop`. `keep` is asked each time.
    pub async fn keep_tidy(self, clock: Clock, keep: impl Fn() -> Duration, stop: CancellationToken) {
        loop {
            // A day more than the token: it is good to the end of its last day.
            let before = QueueId::first_of(clock.now() - keep() - Duration::from_secs(86_400));
            let more = self.write(What::Sweep(before)).await.unwrap_or(false);
            let pause = if more { SWEEP_PAUSE } else { SWEEP_EVERY };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = clock.wake_at(clock.now() + pause) => {}
            }
        }
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let mut reader = self.0.reader.lock().unwrap_or_else(PoisonError::into_inner);
        // A connection that saw an error is not used again.
        let connection = match reader.take() {
            Some(connection) => connection,
            None => sqlite::open_reader(&self.0.path, MIGRATIONS.len(), READER_CACHE_KIB)?,
        };
        let result = work(&connection)?;
        *reader = Some(connection);
        Ok(result)
    }

    async fn write(&self, what: What) -> Result<bool, StoreError> {
        let (answer, answered) = oneshot::channel();
        let closed = || StoreError("it is closed".to_string());
        self.0.writes.send(Write { what, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

impl Writer {
    /// Writes until `stop`, then what is still handed over, and ends.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let first = tokio::select! {
                biased;
                write = self.writes.recv() => write,
                () = stop.cancelled() => {
                    self.writes.close();
                    self.writes.recv().await
                }
            };
            let Some(first) = first else { return };
            let mut rows = first.what.rows();
            let mut batch = vec![first];
            while rows < ROWS_MAX
                && let Ok(next) = self.writes.try_recv()
            {
                rows += next.what.rows();
                batch.push(next);
            }
            self.commit(batch).await;
        }
    }

    /// One transaction on a thread of its own; after an error the file is opened afresh, and all of the batch hear of it.
    async fn commit(&mut self, batch: Vec<Write>) {
        let (work, answers): (Vec<What>, Vec<_>) = batch.into_iter().map(|write| (write.what, write.answer)).unzip();
        let (connection, path) = (self.connection.take(), self.path.clone());
        let done = tokio::task::spawn_blocking(move || -> Result<(Connection, Vec<bool>), StoreError> {
            let mut connection = match connection {
                Some(connection) => connection,
                None => sqlite::open_writer(&path, MIGRATIONS, CACHE_KIB)?,
            };
            let outcomes = commit(&mut connection, &work)?;
            Ok((connection, outcomes))
        });
        match done.await.unwrap_or_else(|error| Err(StoreError(error.to_string()))) {
            Ok((connection, outcomes)) => {
                self.connection = Some(connection);
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                if self.said.is_due(self.clock.now()) {
                    tracing::error!("{error}");
                }
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}

impl What {
    fn rows(&self) -> usize {
        match self {
            What::Add(rows) => rows.len(),
            What::Tell(..) => 1,
            What::Sweep(_) => SWEEP_ROWS,
        }
    }
}

fn commit(connection: &mut Connection, work: &[What]) -> Result<Vec<bool>, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let outcomes: rusqlite::Result<Vec<bool>> = work.iter().map(|what| apply(&transaction, what)).collect();
    let outcomes = outcomes?;
    if work.iter().any(|what| matches!(what, What::Sweep(_))) && sqlite::free_pages(&transaction)? > SLICE_PAGES {
        sqlite::give_back(&transaction, SLICE_PAGES)?;
    }
    transaction.commit()?;
    // The rows are on disk; a checkpoint that fails now is met again after the next commit.
    if sqlite::log(connection).is_ok_and(|log| log.pages > LOG_PAGES_MAX)
        && let Err(error) = sqlite::checkpoint(connection)
    {
        tracing::warn!("the log of the database of tokens cannot be copied now: {error}");
    }
    Ok(outcomes)
}

fn apply(on: &Connection, what: &What) -> rusqlite::Result<bool> {
    match what {
        What::Add(rows) => {
            let mut statement = on.prepare_cached("INSERT OR REPLACE INTO sent VALUES (?1, ?2, ?3, ?4, ?5, 0)")?;
            for row in rows {
                let Sent { delivery, recipient, sender, message_id } = row;
                statement.execute(params![
                    delivery.message.key(),
                    delivery.part,
                    recipient.as_str(),
                    sender.as_str(),
                    message_id
                ])?;
            }
            Ok(true)
        }
        What::Tell(delivery, told) => on
            .prepare_cached("UPDATE sent SET told = told | ?3 WHERE message = ?1 AND part = ?2 AND told & ?3 = 0")?
            .execute(params![delivery.message.key(), delivery.part, *told as i64])
            .map(|rows| rows > 0),
        What::Sweep(before) => on
            .prepare_cached(
                "DELETE FROM sent WHERE (message, part) IN (SELECT message, part FROM sent WHERE message < ?1 ORDER BY message, part LIMIT ?2)",
            )?
            .execute(params![before.key(), i64::try_from(SWEEP_ROWS).unwrap_or(i64::MAX)])
            .map(|rows| rows == SWEEP_ROWS),
    }
}

/// None: somebody has written into the file what is no row of ours.
fn sent(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Sent>> {
    let (message, part): (i64, u16) = (row.get(0)?, row.get(1)?);
    let (recipient, sender): (String, String) = (row.get(2)?, row.get(3)?);
    let message_id = row.get(4)?;
    Ok((|| {
        let delivery = DeliveryId { message: QueueId::from_key(message)?, part };
        let (recipient, sender) = (Mailbox::parse(&recipient).ok()?, ReversePath::parse(&sender).ok()?);
        Some(Sent { delivery, recipient, sender, message_id })
    })())
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        StoreError(error.to_string())
    }
}

impl From<sqlite::OpenError> for StoreError {
    fn from(error: sqlite::OpenError) -> StoreError {
        StoreError(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn row(message: QueueId, part: u16, recipient: &str, message_id: &str) -> Sent {
        Sent {
            delivery: DeliveryId { message, part },
            recipient: Mailbox::parse(recipient).unwrap(),
            sender: ReversePath::parse("news@shop.example").unwrap(),
            message_id: Some(message_id.to_string()),
        }
    }

    struct Running {
        store: Store,
        stop: CancellationToken,
        tasks: tokio_util::task::TaskTracker,
    }

    impl Running {
        fn open(folder: &Path) -> Running {
            let (store, writer) = Store::open(folder, Clock::starting_at(NOW)).unwrap();
            let stop = CancellationToken::new();
            let tasks = tokio_util::task::TaskTracker::new();
            tasks.spawn(writer.run(stop.clone()));
            Running { store, stop, tasks }
        }

        async fn end(self) {
            self.stop.cancel();
            self.tasks.close();
            self.tasks.wait().await;
        }
    }

    #[tokio::test]
    async fn a_row_is_there_after_a_restart_and_each_thing_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::open(folder.path());
        let id = QueueId::first_of(NOW);
        let rows =
            vec![row(id, 0, "Anna@hotmail.com", "<1@shop.example>"), row(id, 1, "b@x.example", "<1@shop.example>")];
        running.store.add(rows.clone()).await.unwrap();
        running.end().await;
        let running = Running::open(folder.path());
        let store = &running.store;
        assert_eq!(store.get(rows[0].delivery).unwrap().as_ref(), Some(&rows[0]));
        assert_eq!(store.get(DeliveryId { message: id, part: 2 }).unwrap(), None);
        assert_eq!(store.find("<1@shop.example>").unwrap(), None, "two recipients: nobody knows which");
        let told = |told| store.tell(rows[1].delivery, told);
        assert!(told(Told::Returned).await.unwrap());
        assert!(!told(Told::Returned).await.unwrap());
        assert!(store.is_told(rows[1].delivery, Told::Returned).unwrap());
        assert!(!store.is_told(rows[0].delivery, Told::Returned).unwrap());
        assert!(told(Told::Complained).await.unwrap());
        running.end().await;
    }

    #[tokio::test]
    async fn what_is_too_old_goes_and_a_message_id_finds_its_one_recipient() {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::open(folder.path());
        let (old, new) = (QueueId::first_of(NOW - DAY * 95), QueueId::first_of(NOW - DAY * 80));
        let rows: Vec<Sent> = (0..3000).map(|part| row(old, part, "a@x.example", "<old@x>")).collect();
        running.store.add(rows).await.unwrap();
        running.store.add(vec![row(new, 0, "b@x.example", "<new@x>")]).await.unwrap();
        assert!(running.store.write(What::Sweep(QueueId::first_of(NOW - DAY * 91))).await.unwrap(), "there is more");
        assert!(!running.store.write(What::Sweep(QueueId::first_of(NOW - DAY * 91))).await.unwrap());
        assert_eq!(running.store.get(DeliveryId { message: old, part: 2999 }).unwrap(), None);
        assert_eq!(running.store.find("<new@x>").unwrap().unwrap().recipient.as_str(), "b@x.example");
        running.end().await;
    }

    #[test]
    fn look_ups_walk_the_tree_and_the_page_shows_the_table() {
        let folder = tempfile::tempdir().unwrap();
        let on = sqlite::open_writer(&folder.path().join(NAME), MIGRATIONS, 256).unwrap();
        let plan = |sql: &str| -> String {
            let mut statement = on.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let nothing = rusqlite::params_from_iter(vec![rusqlite::types::Null; statement.parameter_count()]);
            statement
                .query_map(nothing, |row| row.get::<_, String>(3))
                .unwrap()
                .map(Result::unwrap)
                .collect::<Vec<_>>()
                .join("; ")
        };
        assert!(plan("SELECT recipient FROM sent WHERE message_id = ?1 LIMIT 2").contains("sent_message_id"));
        assert!(plan("SELECT part FROM sent WHERE message < ?1 ORDER BY message, part LIMIT 5").contains("message<?"));
        let normal =
            |sql: &str| sql.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(").replace(" )", ")");
        let page = include_str!("../../docs/spool.md");
        let block = page.split("```sql\n").nth(3).and_then(|rest| rest.split("```").next()).unwrap();
        let code: String =
            block.lines().map(|line| line.split("--").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
        assert_eq!(normal(&code), normal(MIGRATIONS[0]));
    }
}
