//! `submissions.sqlite`: what was handed in under which key (`Idempotency-Key`), for a day, also over restarts.
//!
//! A key is written down before its message is taken, and the answer after it. So a request that is repeated gets the first one's
//! answer; and where a crash came between, it is known that nobody knows, and the event log is asked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use rusqlite::{Connection, OptionalExtension, params};

use crate::sqlite;
use crate::types::Timestamp;

const MIGRATIONS: &[&str] = &["
CREATE TABLE submission (
    key    BLOB PRIMARY KEY,
    at     INTEGER NOT NULL,
    body   BLOB NOT NULL,
    answer TEXT
) WITHOUT ROWID;
CREATE INDEX submission_at ON submission (at);
"];
const CACHE_KIB: u32 = 512;
/// How long a key is known.
pub const KEEP: Duration = Duration::from_secs(86_400);
/// Old ones are dropped a few at a time.
const DROP_AT_ONCE: u32 = 20;

/// A hash of who asks and the key, or of what is asked.
pub type Mark = [u8; 32];

/// A mark of several texts; their lengths count, so none runs into the next.
pub fn mark(texts: &[&[u8]]) -> Mark {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text);
    }
    let mut mark = [0; 32];
    mark.copy_from_slice(context.finish().as_ref());
    mark
}

/// What is known of a key.
#[derive(Debug)]
pub enum Begun {
    /// Nothing: it is this request's from now on.
    New(Ticket),
    /// It was begun then, and a crash came before its answer was written down.
    Unsure(Ticket, Timestamp),
    /// The answer it had.
    Done(String),
    /// Another request has it just now.
    UnderWay,
    /// It was used for something else.
    Other,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keys(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    connection: Mutex<Connection>,
    under_way: Mutex<BTreeSet<Mark>>,
}

/// A key under way; dropped without an answer, it stays as one of which nobody knows.
#[derive(Debug)]
pub struct Ticket {
    keys: Keys,
    key: Mark,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.keys.0.under_way).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keys {
    pub fn open(data_dir: &Path) -> Result<Keys, String> {
        let path = data_dir.join("submissions.sqlite");
        let connection = sqlite::open_writer(&path, MIGRATIONS, CACHE_KIB).map_err(|error| error.to_string())?;
        Ok(Keys(Arc::new(Shared { path, connection: Mutex::new(connection), under_way: Mutex::default() })))
    }

    /// Asks for a key. Waits for the disk: not for a thread that others wait for.
    pub fn begin(&self, key: Mark, body: Mark, now: Timestamp) -> Result<Begun, String> {
        if !lock(&self.0.under_way).insert(key) {
            return Ok(Begun::UnderWay);
        }
        let ticket = Ticket { keys: self.clone(), key };
        self.try_begin(ticket, body, now).map_err(|error| self.fault(&error))
    }

    fn try_begin(&self, ticket: Ticket, body: Mark, now: Timestamp) -> rusqlite::Result<Begun> {
        let connection = lock(&self.0.connection);
        let oldest = now.millis() - i64::try_from(KEEP.as_millis()).unwrap_or(i64::MAX);
        let drop = "DELETE FROM submission WHERE key IN (SELECT key FROM submission WHERE at < ?1 LIMIT ?2)";
        connection.prepare_cached(drop)?.execute(params![oldest, DROP_AT_ONCE])?;
        let known: Option<(i64, Vec<u8>, Option<String>)> = connection
            .prepare_cached("SELECT at, body, answer FROM submission WHERE key = ?1 AND at >= ?2")?
            .query_row(params![ticket.key, oldest], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        match known {
            Some((_, other, _)) if other != body => Ok(Begun::Other),
            Some((_, _, Some(answer))) => Ok(Begun::Done(answer)),
            Some((at, _, None)) => Ok(Begun::Unsure(ticket, Timestamp::from_millis(at))),
            None => {
                let insert = "INSERT OR REPLACE INTO submission (key, at, body) VALUES (?1, ?2, ?3)";
                connection.prepare_cached(insert)?.execute(params![ticket.key, now.millis(), body])?;
                sqlite::checkpoint(&connection)?;
                Ok(Begun::New(ticket))
            }
        }
    }

    fn fault(&self, error: &dyn std::fmt::Display) -> String {
        format!("{}: {error}", self.0.path.display())
    }
}

impl Ticket {
    /// Writes the answer down.
    pub fn done(self, answer: &str) -> Result<(), String> {
        let keys = self.keys.clone();
        let connection = lock(&keys.0.connection);
        let update = "UPDATE submission SET answer = ?2 WHERE key = ?1";
        let written =
            connection.prepare_cached(update).and_then(|mut update| update.execute(params![self.key, answer]));
        written.map(|_| ()).map_err(|error| keys.fault(&error))
    }

    /// Nothing was taken: the same may be tried again under this key.
    pub fn give_up(self) -> Result<(), String> {
        let keys = self.keys.clone();
        let connection = lock(&keys.0.connection);
        let delete = "DELETE FROM submission WHERE key = ?1";
        let deleted = connection.prepare_cached(delete).and_then(|mut delete| delete.execute(params![self.key]));
        deleted.map(|_| ()).map_err(|error| keys.fault(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);

    fn ticket(begun: Begun) -> Ticket {
        match begun {
            Begun::New(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_gives_the_first_answer_until_its_day_is_over_and_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let (key, body) = (mark(&[b"app", b"1"]), mark(&[b"body"]));
        assert_ne!(mark(&[b"ap", b"p1"]), key);
        let first = ticket(keys.begin(key, body, NOON).unwrap());
        assert!(matches!(keys.begin(key, body, NOON).unwrap(), Begun::UnderWay));
        first.done("answer").unwrap();
        drop(keys);
        let keys = Keys::open(folder.path()).unwrap();
        assert!(matches!(keys.begin(key, body, NOON + KEEP).unwrap(), Begun::Done(answer) if answer == "answer"));
        assert!(matches!(keys.begin(key, mark(&[b"other"]), NOON).unwrap(), Begun::Other));
        ticket(keys.begin(key, body, NOON + KEEP + Duration::from_secs(1)).unwrap()).give_up().unwrap();
        ticket(keys.begin(key, body, NOON).unwrap());
    }

    #[test]
    fn of_a_key_without_an_answer_nobody_knows() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let (key, body) = (mark(&[b"1"]), mark(&[b"body"]));
        drop(ticket(keys.begin(key, body, NOON).unwrap()));
        let later = NOON + Duration::from_secs(60);
        assert!(matches!(keys.begin(key, body, later).unwrap(), Begun::Unsure(_, since) if since == NOON));
    }
}
