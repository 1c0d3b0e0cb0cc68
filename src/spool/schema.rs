//! The tables of `spool.sqlite`, and how they grow from version to version (`docs/spool.md` explains them to operators).
//!
//! Bodies have a table of their own, so that a walk through the queue never touches them. A delivery that was not tried
//! yet has no `next_attempt` and stands in no index: a message that is delivered at once costs no index a write.

use std::path::{Path, PathBuf};

/// One entry a version; an entry that was released is never changed again.
pub(super) const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3];

const VERSION_1: &str = "
CREATE TABLE meta (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    last_id    INTEGER NOT NULL,
    messages   INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    bytes      INTEGER NOT NULL
);
INSERT INTO meta VALUES (1, 0, 0, 0, 0);
CREATE TABLE message (
    id         INTEGER PRIMARY KEY,
    received   INTEGER NOT NULL,
    sender     TEXT NOT NULL,
    size       INTEGER NOT NULL,
    report     INTEGER NOT NULL,
    in_file    INTEGER NOT NULL,
    client     TEXT,
    user       TEXT,
    message_id TEXT,
    expire     INTEGER,
    parameters TEXT
);
CREATE TABLE body (
    id         INTEGER PRIMARY KEY,
    content    BLOB NOT NULL
);
CREATE TABLE delivery (
    message        INTEGER NOT NULL,
    part           INTEGER NOT NULL,
    domain         TEXT NOT NULL,
    recipients     TEXT NOT NULL,
    state          TEXT NOT NULL,
    attempts       INTEGER NOT NULL,
    next_attempt   INTEGER,
    delay_reported INTEGER NOT NULL,
    provider       TEXT,
    source         TEXT,
    refusal        TEXT,
    failed         TEXT,
    PRIMARY KEY (message, part)
) WITHOUT ROWID;
CREATE INDEX delivery_due ON delivery (next_attempt) WHERE next_attempt IS NOT NULL;
";

/// What urgency and a next hop of the operator's need; both mostly null.
const VERSION_2: &str = "
ALTER TABLE message ADD COLUMN class TEXT;
ALTER TABLE delivery ADD COLUMN next_hop TEXT;
";

/// What one recipient's copy has of its own; the last column, so that a walk through the queue does not read it.
const VERSION_3: &str = "
ALTER TABLE delivery ADD COLUMN own TEXT;
";

pub(super) fn database(folder: &Path) -> PathBuf {
    folder.join("spool.sqlite")
}

/// The write-ahead log of SQLite.
pub(super) fn log_file(folder: &Path) -> PathBuf {
    folder.join("spool.sqlite-wal")
}

pub(super) fn bodies(folder: &Path) -> PathBuf {
    folder.join("bodies")
}

/// One statement a line, blanks made single: the form in which two texts of a schema are compared.
#[cfg(test)]
fn normal(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(").replace(" )", ")").replace(" ,", ",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite;

    #[test]
    fn the_documented_schema_is_the_real_one() {
        let folder = tempfile::tempdir().unwrap();
        let connection = sqlite::open_writer(&database(folder.path()), MIGRATIONS, 256).unwrap();
        let mut statement =
            connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid").unwrap();
        let real: Vec<String> =
            statement.query_map((), |row| row.get::<_, String>(0)).unwrap().map(|sql| normal(&sql.unwrap())).collect();
        let page = include_str!("../../docs/spool.md");
        let block = page.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        // Comments of the page are for people: everything behind `--` is left out.
        let code: String =
            block.lines().map(|line| line.split("--").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
        let documented: Vec<String> = code.split(';').map(normal).filter(|sql| !sql.is_empty()).collect();
        assert_eq!(documented, real);
    }

    #[test]
    fn a_delivery_that_was_never_tried_stands_in_no_index() {
        let folder = tempfile::tempdir().unwrap();
        let connection = sqlite::open_writer(&database(folder.path()), MIGRATIONS, 256).unwrap();
        let plan: String = connection
            .query_row(
                "EXPLAIN QUERY PLAN SELECT message FROM delivery WHERE next_attempt IS NOT NULL AND next_attempt <= 5",
                (),
                |row| row.get(3),
            )
            .unwrap();
        assert!(plan.contains("delivery_due"), "{plan}");
    }
}
