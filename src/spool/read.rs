//! Reading the spool: single deliveries, the walk at the start, what is due, and lists for people.
//!
//! Every read is a short transaction of a pooled read-only connection: a long one would keep the log from starting
//! again. So everything that can be large is read in pages, each of which looks at a bounded number of rows. A
//! `Reader` also works on the folder of a relay that does not run.

use std::collections::{BTreeSet, Bound};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::Semaphore;

use super::{SpoolError, Stored, row, schema, store};
use crate::sqlite;
use crate::types::{
    Body, Delivery, DeliveryId, DeliveryState, Domain, Envelope, Mailbox, NextHop, Priority, QueueId, Timestamp,
};

/// Reads at the same time; each holds one connection and its page cache.
const READERS: usize = 2;
const CACHE_KIB: u32 = 1024;
/// Rows that one page of a filtered list looks at: some 50 ms.
const EXAMINED_MAX: usize = 20_000;

/// A delivery in numbers: what the queue keeps in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub id: DeliveryId,
    pub domain: Domain,
    pub state: DeliveryState,
    pub attempts: u32,
    pub next_attempt: Option<Timestamp>,
    pub delay_reported: bool,
    /// Without angle brackets.
    pub recipients: Vec<Box<str>>,
    /// Empty for `<>`.
    pub sender: Box<str>,
    /// Where it differs from `[queue] expire`.
    pub expire: Option<Duration>,
    /// Its sender wants to hear if it is late then.
    pub late_at: Option<Timestamp>,
    pub size_bytes: u64,
    /// It is a report of ours.
    pub report: bool,
    pub class: Priority,
    pub next_hop: Option<NextHop>,
    /// The rule that read its last refusal.
    pub refusal_rule: Option<Box<str>>,
}

/// A delivery as `queue list` shows it.
#[derive(Clone, Debug)]
pub struct Listed {
    pub envelope: Arc<Envelope>,
    pub delivery: Delivery,
}

/// What a list is asked for; `None` takes all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The recipients' domain.
    pub domain: Option<Domain>,
    /// An address, `@domain`, or empty for `<>`.
    pub sender: Option<String>,
    /// An address or a part of one.
    pub recipient: Option<String>,
    /// The provider of the last refusal; what was never tried has none here.
    pub provider: Option<String>,
    pub state: Option<DeliveryState>,
    pub user: Option<String>,
    /// With or without angle brackets.
    pub message_id: Option<String>,
    /// Received before this moment.
    pub older_than: Option<Timestamp>,
    /// One of these, if not empty. They are found by their keys, without walking to them.
    pub messages: BTreeSet<QueueId>,
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    pub rows: Vec<Listed>,
    /// Where to go on; none at the end. A page may be empty and not the last.
    pub next: Option<DeliveryId>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub messages: u64,
    pub deliveries: u64,
    /// Contents of all messages.
    pub bytes: u64,
    /// When the oldest message was received.
    pub oldest: Option<Timestamp>,
}

/// Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Reader(Arc<Pool>);

struct Pool {
    folder: PathBuf,
    idle: Mutex<Vec<Connection>>,
    turns: Semaphore,
}

// CROSS JOIN keeps the planner from walking through `message` instead, however it counts the rows.
const SUMMARY: &str = "SELECT d.message, d.part, d.domain, d.recipients, d.state, d.attempts, d.next_attempt, \
                       d.delay_reported, m.sender, m.expire, m.size, m.report, m.class, d.next_hop, \
                       json_extract(d.refusal, '$.rule'), m.parameters FROM delivery d CROSS JOIN message m ON m.id = d.message";

const WALK: &str = "WHERE (d.message, d.part) > (?1, ?2) ORDER BY d.message, d.part LIMIT ?3";

const DUE: &str = "WHERE d.next_attempt IS NOT NULL AND d.next_attempt <= ?1 AND d.state = 'waiting' \
                   AND (d.next_attempt, d.message, d.part) > (?2, ?3, ?4) \
                   ORDER BY d.next_attempt, d.message, d.part LIMIT ?5";

impl Reader {
    /// Opens the spool in `folder` (`data_dir`) for reading alone.
    pub fn open(folder: &Path) -> Result<Reader, SpoolError> {
        let first = connect(folder)?;
        let pool = Pool { folder: folder.to_owned(), idle: Mutex::new(vec![first]), turns: Semaphore::new(READERS) };
        Ok(Reader(Arc::new(pool)))
    }

    /// A delivery with its envelope and content; none if it has ended.
    pub async fn load(&self, id: DeliveryId) -> Result<Option<Stored>, SpoolError> {
        let folder = self.0.folder.clone();
        self.with(move |on| load(on, &folder, id)).await
    }

    pub async fn envelope(&self, id: QueueId) -> Result<Option<Arc<Envelope>>, SpoolError> {
        self.with(move |on| envelope(on, id)).await
    }

    /// All deliveries in the order of their ids, `limit` at a time, from behind `after` on.
    pub async fn scan(&self, after: Option<DeliveryId>, limit: usize) -> Result<Vec<Summary>, SpoolError> {
        self.with(move |on| {
            let (message, part) = key_of(after);
            let mut statement = on.prepare_cached(&format!("{SUMMARY} {WALK}"))?;
            collect(statement.query(params![message, part, rows_max(limit)])?, summary)
        })
        .await
    }

    /// Deliveries that wait and whose next attempt lies before or at `until`, earliest first, from behind the last one seen.
    pub async fn due(
        &self,
        until: Timestamp,
        after: Option<(Timestamp, DeliveryId)>,
        limit: usize,
    ) -> Result<Vec<Summary>, SpoolError> {
        self.with(move |on| {
            let (message, part) = key_of(after.map(|(_, id)| id));
            let since = after.map_or(i64::MIN, |(at, _)| at.millis());
            let mut statement = on.prepare_cached(&format!("{SUMMARY} {DUE}"))?;
            collect(statement.query(params![until.millis(), since, message, part, rows_max(limit)])?, summary)
        })
        .await
    }

    /// Up to `limit` deliveries that pass the filter, in the order of their ids, from behind `after` on.
    pub async fn list(&self, filter: Filter, after: Option<DeliveryId>, limit: usize) -> Result<Page, SpoolError> {
        self.with(move |on| list(on, &filter, after, limit)).await
    }

    /// As of the last commit.
    pub async fn counts(&self) -> Result<Counts, SpoolError> {
        self.with(|on| {
            let counters = store::read_counters(on)?;
            let oldest: Option<i64> =
                on.query_row("SELECT received FROM message ORDER BY id LIMIT 1", (), |row| row.get(0)).optional()?;
            Ok(Counts {
                messages: store::positive(counters.messages),
                deliveries: store::positive(counters.deliveries),
                bytes: store::positive(counters.bytes),
                oldest: oldest.map(Timestamp::from_millis),
            })
        })
        .await
    }

    /// Of each domain the oldest delivery, in the order of their ids: of `domains` domains at most, and as far as `rows` rows of the
    /// queue tell.
    pub async fn oldest_of_domains(&self, domains: usize, rows: usize) -> Result<Vec<DeliveryId>, SpoolError> {
        self.with(move |on| {
            let mut seen = std::collections::BTreeSet::new();
            let mut statement =
                on.prepare_cached("SELECT message, part, domain FROM delivery ORDER BY message, part LIMIT ?1")?;
            let mut found = Vec::new();
            let mut walk = statement.query(params![rows_max(rows)])?;
            while let Some(row) = walk.next()? {
                let domain = row.get_ref("domain")?.as_str().map_err(rusqlite::Error::from)?;
                if !seen.contains(domain) {
                    seen.insert(domain.to_string());
                    let (message, part) = (row.get("message")?, row.get("part")?);
                    found.extend(QueueId::from_key(message).map(|message| DeliveryId { message, part }));
                    if found.len() == domains {
                        break;
                    }
                }
            }
            Ok(found)
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let closed = || SpoolError::Failed("the spool is closed".to_string());
        let _turn = self.0.turns.acquire().await.map_err(|_| closed())?;
        let pool = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || pool.with(work)).await.map_err(|_| closed())?
    }
}

impl Pool {
    /// A connection that saw an error is not used again.
    fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T, SpoolError>) -> Result<T, SpoolError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = idle.map_or_else(|| connect(&self.folder), Ok)?;
        let result = work(&connection)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(result)
    }
}

fn connect(folder: &Path) -> Result<Connection, SpoolError> {
    Ok(sqlite::open_reader(&schema::database(folder), schema::MIGRATIONS.len(), CACHE_KIB)?)
}

/// Answers one question many times, on a connection of its own.
pub(super) struct Lookup(Connection);

impl Lookup {
    pub(super) fn open(folder: &Path) -> Result<Lookup, SpoolError> {
        connect(folder).map(Lookup)
    }

    pub(super) fn has_message(&self, id: QueueId) -> rusqlite::Result<bool> {
        self.0.prepare_cached("SELECT 1 FROM message WHERE id = ?1")?.exists(params![id.key()])
    }
}

fn load(on: &Connection, folder: &Path, id: DeliveryId) -> Result<Option<Stored>, SpoolError> {
    let mut statement = on.prepare_cached(&format!(
        "SELECT {}, {}, b.content FROM delivery d CROSS JOIN message m ON m.id = d.message LEFT JOIN body b ON b.id = m.id \
         WHERE d.message = ?1 AND d.part = ?2",
        row::ENVELOPE,
        row::DELIVERY
    ))?;
    let mut rows = statement.query(params![id.message.key(), id.part])?;
    let Some(found) = rows.next()? else { return Ok(None) };
    let (envelope, in_file) = row::shared_envelope(found)?;
    let delivery = row::delivery(found, row::DELIVERY_START)?;
    let body = if in_file {
        let path = schema::bodies(folder).join(id.message.to_string());
        let size_bytes = envelope.size_bytes;
        check_file(&path, size_bytes)?;
        Body::File { path: Arc::new(path), size_bytes }
    } else {
        let content: Option<Vec<u8>> = found.get("content")?;
        let content =
            content.ok_or_else(|| SpoolError::Failed(format!("message {}: its content is missing", id.message)))?;
        Body::Inline(content.into())
    };
    Ok(Some(Stored { envelope, delivery, body }))
}

/// A file that is missing or was cut is never sent in part.
fn check_file(path: &Path, size_bytes: u64) -> Result<(), SpoolError> {
    let fault = |what: String| SpoolError::Failed(format!("the content {}: {what}", path.display()));
    let found = std::fs::metadata(path).map_err(|e| fault(e.to_string()))?.len();
    if found == size_bytes { Ok(()) } else { Err(fault(format!("has {found} bytes instead of {size_bytes}"))) }
}

fn envelope(on: &Connection, id: QueueId) -> Result<Option<Arc<Envelope>>, SpoolError> {
    let mut statement = on.prepare_cached(&format!("SELECT {} FROM message m WHERE m.id = ?1", row::ENVELOPE))?;
    let mut rows = statement.query(params![id.key()])?;
    rows.next()?.map(|found| Ok(row::shared_envelope(found)?.0)).transpose()
}

fn summary(row: &Row<'_>) -> Result<Summary, SpoolError> {
    let id = row::delivery_id(row, 0)?;
    let fault =
        |what: &str, error: &dyn std::fmt::Display| SpoolError::Failed(format!("delivery {id}: {what}: {error}"));
    Ok(Summary {
        id,
        domain: Domain::parse(row::text(row, 2)?).map_err(|e| fault("its domain cannot be read", &e))?,
        recipients: row::addresses(row::text(row, 3)?).map_err(|e| fault("its recipients cannot be read", &e))?,
        state: row::state(row::text(row, 4)?),
        attempts: row.get(5)?,
        next_attempt: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_millis),
        delay_reported: row.get(7)?,
        sender: row::text(row, 8)?.into(),
        expire: row::expire(row, 9)?,
        size_bytes: store::positive(row.get(10)?),
        report: row.get(11)?,
        class: row::class(row, 12)?,
        next_hop: row::next_hop(row, 13)?,
        refusal_rule: row.get(14)?,
        late_at: row::late_at(row, 15, id.message)?,
    })
}

fn list(on: &Connection, filter: &Filter, after: Option<DeliveryId>, limit: usize) -> Result<Page, SpoolError> {
    if filter.messages.is_empty() {
        return walk(on, filter, key_of(after), limit);
    }
    let mut page = Page { rows: Vec::new(), next: None };
    let from = after.map_or(Bound::Unbounded, |id| Bound::Included(id.message));
    for id in filter.messages.range((from, Bound::Unbounded)) {
        let begin = after.filter(|after| after.message == *id).map_or(-1, |after| i64::from(after.part));
        let found = only(on, filter, *id, begin, limit - page.rows.len())?;
        page.rows.extend(found.rows);
        if found.next.is_some() {
            page.next = found.next;
            break;
        }
    }
    Ok(page)
}

fn walk(on: &Connection, filter: &Filter, (message, part): (i64, i64), limit: usize) -> Result<Page, SpoolError> {
    let mut statement = on.prepare_cached(&format!(
        "SELECT {}, {} FROM delivery d CROSS JOIN message m ON m.id = d.message WHERE (d.message, d.part) > (?1, ?2) \
         ORDER BY d.message, d.part LIMIT ?3",
        row::ENVELOPE,
        row::DELIVERY
    ))?;
    let examined_max = rows_max(EXAMINED_MAX);
    gather(statement.query(params![message, part, examined_max])?, filter, examined_max, limit)
}

/// The deliveries of one message.
fn only(on: &Connection, filter: &Filter, id: QueueId, after: i64, limit: usize) -> Result<Page, SpoolError> {
    let mut statement = on.prepare_cached(&format!(
        "SELECT {}, {} FROM delivery d CROSS JOIN message m ON m.id = d.message WHERE d.message = ?1 AND d.part > ?2 \
         ORDER BY d.part LIMIT ?3",
        row::ENVELOPE,
        row::DELIVERY
    ))?;
    let examined_max = rows_max(EXAMINED_MAX);
    gather(statement.query(params![id.key(), after, examined_max])?, filter, examined_max, limit)
}

fn gather(mut rows: rusqlite::Rows<'_>, filter: &Filter, most: i64, limit: usize) -> Result<Page, SpoolError> {
    let (mut page, mut examined, mut last) = (Page { rows: Vec::new(), next: None }, 0, None);
    let wanted = Wanted::new(filter);
    while let Some(found) = rows.next()? {
        examined += 1;
        last = Some(row::delivery_id(found, row::DELIVERY_START)?);
        if wanted.takes(found)? {
            let delivery = row::delivery(found, row::DELIVERY_START)?;
            page.rows.push(Listed { envelope: row::shared_envelope(found)?.0, delivery });
        }
        if page.rows.len() >= limit {
            page.next = last;
            return Ok(page);
        }
    }
    page.next = last.filter(|_| examined == most);
    Ok(page)
}

/// A filter made ready to look at raw rows, so that only what passes is read whole.
struct Wanted<'f> {
    filter: &'f Filter,
    sender: Option<String>,
    recipient: Option<String>,
}

impl<'f> Wanted<'f> {
    fn new(filter: &'f Filter) -> Wanted<'f> {
        let lower = |text: &Option<String>| text.as_ref().map(|text| comparable(text));
        Wanted { filter, sender: lower(&filter.sender), recipient: lower(&filter.recipient) }
    }

    fn takes(&self, row: &Row<'_>) -> Result<bool, SpoolError> {
        let at = row::DELIVERY_START;
        let column = |index: usize| -> Result<Option<&str>, SpoolError> {
            row.get_ref(index)?.as_str_or_null().map_err(|e| SpoolError::Failed(format!("column {index}: {e}")))
        };
        let filter = self.filter;
        Ok(filter.domain.as_ref().is_none_or(|domain| column(at + 2).is_ok_and(|c| c == Some(domain.as_str())))
            && filter.older_than.is_none_or(|moment| row.get::<_, i64>(1).is_ok_and(|at| at < moment.millis()))
            && filter.state.is_none_or(|state| column(at + 4).is_ok_and(|c| c.map(row::state) == Some(state)))
            && filter.provider.as_deref().is_none_or(|name| column(at + 9).is_ok_and(|c| c == Some(name)))
            && filter.user.as_deref().is_none_or(|user| column(7).is_ok_and(|c| c == Some(user)))
            && filter
                .message_id
                .as_deref()
                .is_none_or(|id| column(8).is_ok_and(|c| c.is_some_and(|c| is_message_id(c, id))))
            && self.takes_sender(column(2)?.unwrap_or(""))
            && self.takes_recipient(column(at + 3)?.unwrap_or(""))?)
    }

    fn takes_sender(&self, sender: &str) -> bool {
        match self.sender.as_deref() {
            None => true,
            Some("") => sender.is_empty(),
            Some(domain) if domain.starts_with('@') => comparable(sender).ends_with(domain),
            Some(address) => comparable(sender) == address,
        }
    }

    fn takes_recipient(&self, recipients: &str) -> Result<bool, SpoolError> {
        let Some(wanted) = &self.recipient else { return Ok(true) };
        // Nearly every row is told apart without reading it: plain text has its letters where the address has them.
        let is_plain = recipients.is_ascii() && !recipients.contains('\\');
        if is_plain && !recipients.to_ascii_lowercase().contains(wanted.as_str()) {
            return Ok(false);
        }
        let all =
            row::addresses(recipients).map_err(|e| SpoolError::Failed(format!("recipients cannot be read: {e}")))?;
        Ok(all.iter().any(|address| comparable(address).contains(wanted.as_str())))
    }
}

/// The form in which addresses are compared: as the suppression list does it, if it is an address.
fn comparable(text: &str) -> String {
    Mailbox::parse(text).map_or_else(|_| text.to_lowercase(), |mailbox| mailbox.key())
}

fn is_message_id(column: &str, wanted: &str) -> bool {
    column.trim_start_matches('<').trim_end_matches('>') == wanted.trim_start_matches('<').trim_end_matches('>')
}

fn key_of(after: Option<DeliveryId>) -> (i64, i64) {
    after.map_or((-1, -1), |id| (id.message.key(), i64::from(id.part)))
}

fn rows_max(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn collect<T>(
    mut rows: rusqlite::Rows<'_>,
    read: impl Fn(&Row<'_>) -> Result<T, SpoolError>,
) -> Result<Vec<T>, SpoolError> {
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The planner's words for a statement.
    fn plan(on: &Connection, sql: &str) -> String {
        let mut statement = on.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let values = vec![0_i64; statement.parameter_count()];
        let lines = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
        lines.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn pages_are_read_in_place_never_sorted() {
        let folder = tempfile::tempdir().unwrap();
        let on = sqlite::open_writer(&schema::database(folder.path()), schema::MIGRATIONS, 256).unwrap();
        let walk = plan(&on, &format!("{SUMMARY} {WALK}"));
        assert!(walk.contains("(message,part)>(?,?)"), "{walk}");
        assert!(walk.contains("SEARCH d USING PRIMARY KEY") && !walk.contains("TEMP B-TREE"), "{walk}");
        let due = plan(&on, &format!("{SUMMARY} {DUE}"));
        // Without the left end each page would begin again at the first row.
        assert!(due.contains("(next_attempt,message,part)>(?,?,?)"), "{due}");
        assert!(due.contains("SEARCH d USING INDEX delivery_due") && !due.contains("TEMP B-TREE"), "{due}");
    }
}
