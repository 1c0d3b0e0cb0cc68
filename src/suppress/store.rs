//! The tables of the suppression list and their statements.
//!
//! Both tables are keyed by the address itself (WITHOUT ROWID): a look-up is one walk down one tree, at ten million
//! entries as at ten. What is held back for one sender domain alone stands beside what is held back for all, so that one
//! walk finds both. Counts of refusals that came to nothing yet are few and stand apart. What is done with them in one
//! transaction stands in `operation`.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::decision::Count;
use super::entry::{Entry, Filter, Page, Place, Source, Wave, scope};
use crate::types::{Class, Domain, Timestamp};

/// One entry a version; an entry that was released is never changed again.
pub(super) const MIGRATIONS: &[&str] = &[
    "
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
",
    // Copied in the order of the key: at ten million entries a matter of seconds. Before, only a second refusal by a
    // receiver held until it was removed.
    "
ALTER TABLE entry RENAME TO entry_before;
CREATE TABLE entry (
    recipient     TEXT NOT NULL,
    sender_domain TEXT NOT NULL,
    class         TEXT NOT NULL,
    reply         TEXT NOT NULL,
    source        TEXT NOT NULL,
    first         INTEGER NOT NULL,
    last          INTEGER NOT NULL,
    hits          INTEGER NOT NULL,
    expires       INTEGER,
    terms         INTEGER NOT NULL,
    tag           TEXT,
    provider      TEXT,
    rule          TEXT,
    wave          TEXT,
    PRIMARY KEY (recipient, sender_domain)
) WITHOUT ROWID;
INSERT INTO entry
    SELECT recipient, '', class, reply, source, first, last, hits, expires,
           CASE WHEN expires IS NULL AND source = 'bounce' THEN 2 ELSE 1 END, NULL, NULL, NULL, NULL
    FROM entry_before ORDER BY recipient;
DROP TABLE entry_before;
CREATE INDEX entry_wave ON entry (wave) WHERE wave IS NOT NULL;
CREATE TABLE refusal (
    recipient     TEXT NOT NULL,
    sender_domain TEXT NOT NULL,
    class         TEXT NOT NULL,
    hits          INTEGER NOT NULL,
    first         INTEGER NOT NULL,
    last          INTEGER NOT NULL,
    message       INTEGER NOT NULL,
    PRIMARY KEY (recipient, sender_domain, class)
) WITHOUT ROWID;
",
];

/// Memory for pages of the writer and of each reader.
pub(super) const CACHE_KIB: u32 = 2 * 1024;
pub(super) const READER_CACHE_KIB: u32 = 512;
/// Rows that one page of a list looks at: some milliseconds, for it is read where others want to run as well.
const EXAMINED_MAX: usize = 5000;

/// The columns of an entry, in the order in which `entry` and `put` take them.
macro_rules! columns {
    () => {
        "recipient, sender_domain, class, reply, source, first, last, hits, expires, terms, tag, provider, rule, wave"
    };
}
const PLACES: &str = "(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

pub(super) fn delete(on: &Connection, place: &Place) -> rusqlite::Result<()> {
    on.prepare_cached("DELETE FROM entry WHERE recipient = ?1 AND sender_domain = ?2")?
        .execute(params![place.recipient, place.sender_domain])
        .map(drop)
}

pub(super) fn get(on: &Connection, place: &Place) -> rusqlite::Result<Option<Entry>> {
    on.prepare_cached(concat!("SELECT ", columns!(), " FROM entry WHERE recipient = ?1 AND sender_domain = ?2"))?
        .query_row(params![place.recipient, place.sender_domain], entry)
        .optional()
}

/// All entries of a recipient, whoever the sender; nearly always none.
pub(super) fn of_recipient(on: &Connection, key: &str) -> rusqlite::Result<Vec<Entry>> {
    on.prepare_cached(concat!("SELECT ", columns!(), " FROM entry WHERE recipient = ?1"))?
        .query_map(params![key], entry)?
        .collect()
}

/// Where recipients are written down.
pub(super) const TABLES: [&str; 2] = ["entry", "refusal"];

/// Some recipients behind `after` in one of the tables, in their order; none at the end.
pub(super) fn recipients(on: &Connection, table: &str, after: &str) -> rusqlite::Result<Vec<String>> {
    on.prepare_cached(&format!(
        "SELECT DISTINCT recipient FROM {table} WHERE recipient > ?1 ORDER BY recipient LIMIT ?2"
    ))?
    .query_map(params![after, row_limit(EXAMINED_MAX)], |row| row.get(0))?
    .collect()
}

/// Was the recipient refused before, in a way that a delivery would put right?
pub(super) fn is_counted(on: &Connection, key: &str, sender_domain: &str) -> rusqlite::Result<bool> {
    on.prepare_cached("SELECT 1 FROM refusal WHERE recipient = ?1 AND sender_domain IN ('', ?2)")?
        .exists(params![key, sender_domain])
}

pub(super) fn count(on: &Connection) -> rusqlite::Result<u64> {
    let rows: i64 = on.query_row("SELECT count(*) FROM entry", (), |row| row.get(0))?;
    Ok(u64::try_from(rows).unwrap_or(0))
}

pub(super) fn put(on: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    insert(on, "INSERT OR REPLACE", entry).map(drop)
}

pub(super) fn insert(on: &Connection, verb: &str, entry: &Entry) -> rusqlite::Result<usize> {
    on.prepare_cached(&format!(concat!("{} INTO entry (", columns!(), ") VALUES {}"), verb, PLACES))?.execute(params![
        entry.recipient,
        scope(entry.sender_domain.as_ref()),
        entry.class.as_str(),
        entry.reply,
        entry.source.as_str(),
        entry.first.millis(),
        entry.last.millis(),
        i64::try_from(entry.hits).unwrap_or(i64::MAX),
        entry.expires.map(Timestamp::millis),
        entry.terms,
        entry.tag,
        entry.provider,
        entry.rule,
        entry.wave,
    ])
}

/// All that is known of a recipient, whoever the sender: his entries and his counts. Says how many entries those were.
pub(super) fn forget(on: &Connection, key: &str) -> rusqlite::Result<usize> {
    on.prepare_cached("DELETE FROM refusal WHERE recipient = ?1")?.execute(params![key])?;
    on.prepare_cached("DELETE FROM entry WHERE recipient = ?1")?.execute(params![key])
}

/// The counts of a place have done their work.
pub(super) fn forget_counts(on: &Connection, place: &Place) -> rusqlite::Result<()> {
    on.prepare_cached("DELETE FROM refusal WHERE recipient = ?1 AND sender_domain = ?2")?
        .execute(params![place.recipient, place.sender_domain])
        .map(drop)
}

pub(super) fn forget_old_counts(on: &Connection, before: Timestamp) -> rusqlite::Result<usize> {
    on.prepare_cached("DELETE FROM refusal WHERE last < ?1")?.execute(params![before.millis()])
}

/// What was counted, and what had run out. What holds for other senders stands.
pub(super) fn start_afresh(
    on: &Connection,
    recipient: &str,
    sender_domain: &str,
    now: Timestamp,
) -> rusqlite::Result<usize> {
    let counts = on
        .prepare_cached("DELETE FROM refusal WHERE recipient = ?1 AND sender_domain IN ('', ?2)")?
        .execute(params![recipient, sender_domain])?;
    let entries = on
        .prepare_cached("DELETE FROM entry WHERE recipient = ?1 AND sender_domain IN ('', ?2) AND expires <= ?3")?
        .execute(params![recipient, sender_domain, now.millis()])?;
    Ok(counts + entries)
}

pub(super) fn get_count(on: &Connection, place: &Place, class: Class) -> rusqlite::Result<Option<Count>> {
    on.prepare_cached(
        "SELECT hits, first, last, message FROM refusal WHERE recipient = ?1 AND sender_domain = ?2 AND class = ?3",
    )?
    .query_row(params![place.recipient, place.sender_domain, class.as_str()], |row| {
        Ok(Count {
            hits: u32::try_from(row.get::<_, i64>(0)?).unwrap_or(u32::MAX),
            first: Timestamp::from_millis(row.get(1)?),
            last: Timestamp::from_millis(row.get(2)?),
            message: row.get(3)?,
        })
    })
    .optional()
}

pub(super) fn put_count(on: &Connection, place: &Place, class: Class, count: &Count) -> rusqlite::Result<()> {
    on.prepare_cached("INSERT OR REPLACE INTO refusal VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            place.recipient,
            place.sender_domain,
            class.as_str(),
            count.hits,
            count.first.millis(),
            count.last.millis(),
            count.message,
        ])
        .map(drop)
}

pub(super) fn list(
    on: &Connection,
    filter: &Filter,
    after: Option<&Place>,
    limit: usize,
    now: Timestamp,
) -> rusqlite::Result<Page> {
    // Of a wave, its index leads to the entries and to no others.
    let mut statement = on.prepare_cached(if filter.wave.is_some() {
        concat!(
            "SELECT ",
            columns!(),
            " FROM entry WHERE wave = ?4 AND (recipient, sender_domain) > (?1, ?2) \
             ORDER BY recipient, sender_domain LIMIT ?3"
        )
    } else {
        concat!(
            "SELECT ",
            columns!(),
            " FROM entry WHERE ?4 IS NULL AND (recipient, sender_domain) > (?1, ?2) \
             ORDER BY recipient, sender_domain LIMIT ?3"
        )
    })?;
    let (recipient, sender_domain) = after.map_or(("", ""), |place| (&place.recipient, &place.sender_domain));
    let mut rows = statement.query(params![recipient, sender_domain, row_limit(EXAMINED_MAX), filter.wave])?;
    let mut page = Page { entries: Vec::new(), next: None };
    let takes = filter.prepared(now);
    let (mut examined, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        let entry = entry(row)?;
        examined += 1;
        if takes(&entry) {
            page.entries.push(entry);
            if page.entries.len() >= limit {
                page.next = page.entries.last().map(Entry::place);
                return Ok(page);
            }
        } else if examined == EXAMINED_MAX {
            last = Some(entry.place());
        }
    }
    if examined == EXAMINED_MAX {
        page.next = last.or_else(|| page.entries.last().map(Entry::place));
    }
    Ok(page)
}

/// The waves that wait for a decision, latest first.
pub(super) fn waves(on: &Connection, now: Timestamp) -> rusqlite::Result<Vec<Wave>> {
    on.prepare_cached(
        "SELECT wave, max(provider), count(*), min(first), max(last), min(expires) FROM entry \
         WHERE wave IS NOT NULL AND source = ?1 AND expires > ?2 GROUP BY wave ORDER BY max(last) DESC",
    )?
    .query_map(params![Source::Wave.as_str(), now.millis()], |row| {
        Ok(Wave {
            id: row.get(0)?,
            provider: row.get(1)?,
            entries: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
            first: Timestamp::from_millis(row.get(3)?),
            last: Timestamp::from_millis(row.get(4)?),
            expires: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_millis),
        })
    })?
    .collect()
}

fn row_limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let word = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    Ok(Entry {
        recipient: row.get(0)?,
        sender_domain: Some(word(1)?).filter(|text| !text.is_empty()).and_then(|text| Domain::parse(text).ok()),
        // A word of a newer weir, or of an operator's hand, is still an entry.
        class: word(2)?.parse().unwrap_or(Class::Other),
        reply: row.get(3)?,
        source: word(4)?.parse().unwrap_or(Source::Manual),
        first: Timestamp::from_millis(row.get(5)?),
        last: Timestamp::from_millis(row.get(6)?),
        hits: u64::try_from(row.get::<_, i64>(7)?).unwrap_or(0),
        expires: row.get::<_, Option<i64>>(8)?.map(Timestamp::from_millis),
        terms: u32::try_from(row.get::<_, i64>(9)?).unwrap_or(u32::MAX),
        tag: row.get(10)?,
        provider: row.get(11)?,
        rule: row.get(12)?,
        wave: row.get(13)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite;

    fn normal(sql: &str) -> String {
        sql.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(").replace(" )", ")")
    }

    #[test]
    fn the_documented_tables_are_the_real_ones() {
        let folder = tempfile::tempdir().unwrap();
        let connection = sqlite::open_writer(&folder.path().join("list"), MIGRATIONS, 256).unwrap();
        let real: Vec<String> = connection
            .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")
            .unwrap()
            .query_map((), |row| row.get::<_, String>(0))
            .unwrap()
            .map(|sql| normal(&sql.unwrap()))
            .collect();
        // The second block of the page; the first is the spool's.
        let page = include_str!("../../docs/spool.md");
        let block = page.split("```sql\n").nth(2).and_then(|rest| rest.split("```").next()).unwrap();
        let code: String =
            block.lines().map(|line| line.split("--").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
        let mut documented: Vec<String> =
            code.split(';').map(normal).filter(|statement| !statement.is_empty()).collect();
        documented.sort();
        let mut real = real;
        real.sort();
        assert_eq!(documented, real);
    }

    #[test]
    fn a_list_of_the_first_schema_is_brought_up_with_all_it_knew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let old = sqlite::open_writer(&path, &MIGRATIONS[..1], 256).unwrap();
        old.execute_batch(
            "INSERT INTO entry VALUES ('b@x.example', 'mailbox-full', '552 full', 'bounce', 1, 2, 3, 4000);
             INSERT INTO entry VALUES ('a@x.example', 'recipient-unknown', '550 no', 'bounce', 5, 6, 7, NULL);
             INSERT INTO entry VALUES ('c@x.example', 'other', 'asked to', 'manual', 8, 9, 1, NULL);",
        )
        .unwrap();
        drop(old);
        let new = sqlite::open_writer(&path, MIGRATIONS, 256).unwrap();
        let all = list(&new, &Filter::default(), None, 10, Timestamp::EPOCH).unwrap().entries;
        let facts: Vec<_> = all.iter().map(|e| (e.recipient.as_str(), e.class, e.hits, e.terms)).collect();
        let expected = [
            ("a@x.example", Class::RecipientUnknown, 7, 2),
            ("b@x.example", Class::MailboxFull, 3, 1),
            ("c@x.example", Class::Other, 1, 1),
        ];
        assert_eq!(facts, expected);
        assert_eq!((all[1].first.millis(), all[1].last.millis()), (1, 2));
        assert_eq!((all[1].expires, all[1].reply.as_str()), (Some(Timestamp::from_millis(4000)), "552 full"));
        assert_eq!((all[0].expires, &all[2].source, &all[2].wave), (None, &Source::Manual, &None));
    }

    #[test]
    fn look_ups_and_pages_walk_the_tree_and_sort_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let on = sqlite::open_writer(&folder.path().join("list"), MIGRATIONS, 256).unwrap();
        let plan = |sql: &str| -> String {
            let mut statement = on.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let nothing = rusqlite::params_from_iter(vec![rusqlite::types::Null; statement.parameter_count()]);
            let rows = statement.query_map(nothing, |row| row.get::<_, String>(3)).unwrap();
            rows.map(Result::unwrap).collect::<Vec<_>>().join("; ")
        };
        let page =
            "FROM entry WHERE wave = ?4 AND (recipient, sender_domain) > (?1, ?2) ORDER BY recipient, sender_domain";
        for (sql, expected) in [
            ("SELECT reply FROM entry WHERE recipient = ?1".to_string(), "USING PRIMARY KEY (recipient=?)"),
            (
                "SELECT 1 FROM refusal WHERE recipient = ?1 AND sender_domain IN ('', ?2)".into(),
                "(recipient=? AND sender_domain=?)",
            ),
            (format!("SELECT reply {page}"), "USING INDEX entry_wave (wave=?"),
            (
                format!("SELECT reply {}", page.replace("wave = ?4", "?4 IS NULL")),
                "USING PRIMARY KEY ((recipient,sender_domain)>(?,?))",
            ),
        ] {
            let plan = plan(&sql);
            assert!(plan.contains(expected) && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
    }
}
