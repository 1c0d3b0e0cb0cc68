//! The table of the suppression list and its statements.
//!
//! One table, keyed by the address itself (WITHOUT ROWID): a look-up is one walk down one tree, at ten million entries
//! as at ten.

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::{Entry, Filter, ListError, Page};
use crate::sqlite;
use crate::types::Timestamp;

/// One entry a version; an entry that was released is never changed again.
pub(super) const MIGRATIONS: &[&str] = &["
CREATE TABLE entry (
    recipient TEXT PRIMARY KEY,
    class     TEXT NOT NULL,
    reply     TEXT NOT NULL,
    source    TEXT NOT NULL,
    first     INTEGER NOT NULL,
    last      INTEGER NOT NULL,
    hits      INTEGER NOT NULL,
    expires   INTEGER
) WITHOUT ROWID;
"];

/// Memory for pages of the writer and of each reader.
pub(super) const CACHE_KIB: u32 = 2 * 1024;
pub(super) const READER_CACHE_KIB: u32 = 512;
/// Operations in one transaction: some tens of milliseconds, so that nobody waits longer for another's import.
pub(super) const OPERATIONS_MAX: usize = 1000;
/// Rows that one page of a list looks at.
const EXAMINED_MAX: usize = 20_000;
/// The log that makes a checkpoint worth its cost: 8 MiB.
const LOG_PAGES_MAX: u64 = (8 << 20) / sqlite::PAGE_BYTES;

#[derive(Clone, Debug)]
pub(super) enum Operation {
    Add(Entry),
    /// Carries the entry as it would be were this the first.
    Refusal(Entry),
    Remove(String),
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Entry(Entry),
    /// An entry was put on the list; `new`: nothing was there for the recipient.
    Added {
        new: bool,
    },
    Removed(bool),
}

/// Makes all operations in one transaction; the answers come in their order.
pub(super) fn commit(connection: &mut Connection, writes: Vec<Vec<Operation>>) -> Result<Vec<Vec<Outcome>>, ListError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut all = Vec::with_capacity(writes.len());
    for operations in writes {
        let outcomes: rusqlite::Result<Vec<Outcome>> =
            operations.into_iter().map(|operation| apply(&transaction, operation)).collect();
        all.push(outcomes?);
    }
    transaction.commit()?;
    // The entries are on disk; a checkpoint that fails now is met again after the next commit.
    if sqlite::log(connection).is_ok_and(|log| log.pages > LOG_PAGES_MAX)
        && let Err(error) = sqlite::checkpoint(connection)
    {
        tracing::warn!("the log of the suppression list cannot be copied now: {error}");
    }
    Ok(all)
}

fn apply(on: &Connection, operation: Operation) -> rusqlite::Result<Outcome> {
    match operation {
        Operation::Add(new) => {
            let old = get(on, &new.recipient)?;
            let is_new = old.is_none();
            let entry = match old {
                Some(old) => merged(old, new),
                None => new,
            };
            put(on, &entry)?;
            Ok(Outcome::Added { new: is_new })
        }
        Operation::Refusal(new) => {
            let entry = match get(on, &new.recipient)? {
                Some(old) => refused_again(old, new),
                None => new,
            };
            put(on, &entry)?;
            Ok(Outcome::Entry(entry))
        }
        Operation::Remove(key) => {
            let rows = on.prepare_cached("DELETE FROM entry WHERE recipient = ?1")?.execute(params![key])?;
            Ok(Outcome::Removed(rows > 0))
        }
    }
}

/// The newer entry counts; what was known of the address before stays known.
fn merged(old: Entry, new: Entry) -> Entry {
    Entry { first: old.first.min(new.first), last: old.last.max(new.last), hits: old.hits.max(new.hits), ..new }
}

fn refused_again(old: Entry, new: Entry) -> Entry {
    let is_second_time = !old.is_in_force(new.last);
    let (last, hits) = (old.last.max(new.last), old.hits.saturating_add(1));
    if is_second_time {
        Entry { first: old.first, last, hits, expires: None, ..new }
    } else {
        // Who put it there, and for how long, stands; only a bounce's words give way to newer ones.
        Entry { last, hits, ..old }
    }
}

pub(super) fn get(on: &Connection, key: &str) -> rusqlite::Result<Option<Entry>> {
    on.prepare_cached(
        "SELECT recipient, class, reply, source, first, last, hits, expires FROM entry WHERE recipient = ?1",
    )?
    .query_row(params![key], entry)
    .optional()
}

pub(super) fn count(on: &Connection) -> rusqlite::Result<u64> {
    let rows: i64 = on.query_row("SELECT count(*) FROM entry", (), |row| row.get(0))?;
    Ok(u64::try_from(rows).unwrap_or(0))
}

fn put(on: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    on.prepare_cached(
        "INSERT OR REPLACE INTO entry (recipient, class, reply, source, first, last, hits, expires) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        entry.recipient,
        entry.class.as_str(),
        entry.reply,
        entry.source.as_str(),
        entry.first.millis(),
        entry.last.millis(),
        i64::try_from(entry.hits).unwrap_or(i64::MAX),
        entry.expires.map(Timestamp::millis),
    ])
    .map(drop)
}

pub(super) fn list(
    on: &Connection,
    filter: &Filter,
    after: &str,
    limit: usize,
    now: Timestamp,
) -> rusqlite::Result<Page> {
    let mut statement = on.prepare_cached(
        "SELECT recipient, class, reply, source, first, last, hits, expires FROM entry WHERE recipient > ?1 \
         ORDER BY recipient LIMIT ?2",
    )?;
    let examined_max = i64::try_from(EXAMINED_MAX).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![after, examined_max])?;
    let mut page = Page { entries: Vec::new(), next: None };
    let suffix = filter.domain.as_ref().map(|domain| format!("@{domain}").to_lowercase());
    let part = filter.recipient.as_ref().map(|part| part.to_lowercase());
    let (mut examined, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        let entry = entry(row)?;
        examined += 1;
        last = Some(entry.recipient.clone());
        let takes = (filter.expired || entry.is_in_force(now))
            && filter.class.is_none_or(|class| entry.class == class)
            && filter.source.is_none_or(|source| entry.source == source)
            && suffix.as_ref().is_none_or(|suffix| entry.recipient.ends_with(suffix))
            && part.as_ref().is_none_or(|part| entry.recipient.contains(part));
        if takes {
            page.entries.push(entry);
        }
        if page.entries.len() >= limit {
            page.next = last;
            return Ok(page);
        }
    }
    page.next = last.filter(|_| examined == EXAMINED_MAX);
    Ok(page)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let word = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    Ok(Entry {
        recipient: row.get(0)?,
        // A word of a newer weir, or of an operator's hand, is still an entry.
        class: word(1)?.parse().unwrap_or(crate::types::Class::Other),
        reply: row.get(2)?,
        source: word(3)?.parse().unwrap_or(super::Source::Manual),
        first: Timestamp::from_millis(row.get(4)?),
        last: Timestamp::from_millis(row.get(5)?),
        hits: u64::try_from(row.get::<_, i64>(6)?).unwrap_or(0),
        expires: row.get::<_, Option<i64>>(7)?.map(Timestamp::from_millis),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(sql: &str) -> String {
        sql.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(").replace(" )", ")")
    }

    #[test]
    fn the_documented_table_is_the_real_one() {
        let folder = tempfile::tempdir().unwrap();
        let connection = sqlite::open_writer(&folder.path().join("list"), MIGRATIONS, 256).unwrap();
        let real: String =
            connection.query_row("SELECT sql FROM sqlite_schema WHERE name = 'entry'", (), |row| row.get(0)).unwrap();
        // The second block of the page; the first is the spool's.
        let page = include_str!("../../docs/spool.md");
        let block = page.split("```sql\n").nth(2).and_then(|rest| rest.split("```").next()).unwrap();
        let code: String =
            block.lines().map(|line| line.split("--").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
        assert_eq!(normal(code.trim_end().trim_end_matches(';')), normal(&real));
    }
}
