//! The file behind the store: one table, one row a lane (`docs/spool.md` explains it to operators).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};

use super::{KEEP, RECORDS_MAX, Record};
use crate::sqlite;
use crate::types::Timestamp;

/// One entry a version; an entry that was released is never changed again.
const MIGRATIONS: &[&str] = &["
CREATE TABLE lane (
    provider TEXT NOT NULL,
    source   TEXT NOT NULL,
    saved    INTEGER NOT NULL,
    state    TEXT NOT NULL,
    PRIMARY KEY (provider, source)
) WITHOUT ROWID;
"];

const NAME: &str = "state.sqlite";
const ASIDE: &str = "state.sqlite.damaged";
const CACHE_KIB: u32 = 512;
/// The log that makes a checkpoint worth its cost: 1 MiB.
const LOG_PAGES_MAX: u64 = (1 << 20) / sqlite::PAGE_BYTES;
/// How long a commit waits for an operator who looks into the file; what fails is tried again anyway.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(1);

/// The file. Opened anew after an error: what a failed sync did to the kernel's pages is unknown.
pub(super) struct File {
    path: PathBuf,
    connection: Option<Connection>,
}

/// What a start finds.
pub(super) struct Start {
    pub file: File,
    pub records: Vec<Record>,
    pub problem: Option<String>,
}

impl File {
    pub(super) fn start(data_dir: &Path, now: Timestamp) -> Start {
        let path = data_dir.join(NAME);
        match open(&path).and_then(|connection| Ok((read(&connection, now)?, connection))) {
            Ok((records, connection)) => {
                Start { file: File { path, connection: Some(connection) }, records, problem: None }
            }
            Err(fault) => {
                let aside = data_dir.join(ASIDE);
                let problem = match set_aside(&path, &aside) {
                    Ok(()) => format!(
                        "{} cannot be used ({fault}): it is set aside as {ASIDE}, and limits of receivers are learned anew",
                        path.display()
                    ),
                    Err(error) => format!("{} cannot be used ({fault}) nor set aside ({error})", path.display()),
                };
                Start { file: File { path, connection: None }, records: Vec::new(), problem: Some(problem) }
            }
        }
    }

    /// Writes all of it in one transaction; it is on disk when this returns.
    pub(super) fn put(&mut self, records: &BTreeMap<(String, String), String>, now: Timestamp) -> Result<(), String> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => open(&self.path)?,
        };
        commit(&mut connection, records, now).map_err(|error| error.to_string())?;
        // The records are on disk; a checkpoint that fails now is met again after the next commit.
        if sqlite::log(&connection).is_ok_and(|log| log.pages > LOG_PAGES_MAX) {
            let _ = sqlite::checkpoint(&connection);
        }
        self.connection = Some(connection);
        Ok(())
    }
}

fn open(path: &Path) -> Result<Connection, String> {
    let connection = sqlite::open_writer(path, MIGRATIONS, CACHE_KIB).map_err(|error| error.to_string())?;
    connection.busy_timeout(BUSY_WAIT).map_err(|error| error.to_string())?;
    Ok(connection)
}

/// Drops what is too old and reads the rest, newest first where there is too much.
fn read(connection: &Connection, now: Timestamp) -> Result<Vec<Record>, String> {
    let read = || -> rusqlite::Result<Result<Vec<Record>, String>> {
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
        if verdict != "ok" {
            return Ok(Err(verdict));
        }
        connection.execute("DELETE FROM lane WHERE saved < ?1", params![(now - KEEP).millis()])?;
        Ok(Ok(records(connection)?))
    };
    read().map_err(|error| error.to_string())?
}

fn records(connection: &Connection) -> rusqlite::Result<Vec<Record>> {
    let mut statement = connection.prepare("SELECT provider, source, state FROM lane ORDER BY saved DESC LIMIT ?1")?;
    let limit = i64::try_from(RECORDS_MAX).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![limit], |row| {
        Ok(Record { provider: row.get(0)?, source: row.get(1)?, state: row.get(2)? })
    })?;
    let mut records = rows.collect::<rusqlite::Result<Vec<Record>>>()?;
    records.sort_by(|a, b| (&a.provider, &a.source).cmp(&(&b.provider, &b.source)));
    Ok(records)
}

/// For whoever only looks, whether the owner of the folder runs or not.
pub(super) fn kept(data_dir: &Path) -> Result<Vec<Record>, String> {
    let path = data_dir.join(NAME);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let cannot = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
    let connection = sqlite::open_reader(&path, MIGRATIONS.len(), CACHE_KIB).map_err(|error| cannot(&error))?;
    connection.busy_timeout(BUSY_WAIT).map_err(|error| cannot(&error))?;
    records(&connection).map_err(|error| cannot(&error))
}

fn commit(
    connection: &mut Connection,
    records: &BTreeMap<(String, String), String>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for ((provider, source), state) in records {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO lane (provider, source, saved, state) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![provider, source, now.millis(), state])?;
    }
    transaction.commit()
}

/// Renames the file, in the place of one that was set aside before, and takes its log away: it belongs to no other file.
fn set_aside(path: &Path, aside: &Path) -> std::io::Result<()> {
    std::fs::rename(path, aside)?;
    for end in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_293_220);

    fn records(names: &[&str]) -> BTreeMap<(String, String), String> {
        names.iter().map(|name| ((name.to_string(), "default".to_string()), "{}".to_string())).collect()
    }

    #[test]
    fn old_records_are_dropped_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut start = File::start(folder.path(), NOW);
        start.file.put(&records(&["old"]), NOW - KEEP - Duration::from_secs(1)).unwrap();
        start.file.put(&records(&["new"]), NOW - KEEP + Duration::from_secs(1)).unwrap();
        drop(start);
        let names: Vec<String> = File::start(folder.path(), NOW).records.into_iter().map(|r| r.provider).collect();
        assert_eq!(names, ["new"]);
    }

    #[test]
    fn a_file_of_a_newer_weir_is_set_aside_with_words() {
        let folder = tempfile::tempdir().unwrap();
        drop(File::start(folder.path(), NOW));
        let connection = Connection::open(folder.path().join(NAME)).unwrap();
        connection.execute_batch("PRAGMA user_version=99").unwrap();
        drop(connection);
        let start = File::start(folder.path(), NOW);
        assert!(start.problem.unwrap().contains("schema version 99"));
        assert!(folder.path().join(ASIDE).exists());
    }

    #[test]
    fn the_log_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::start(folder.path(), NOW).file;
        for _ in 0..600 {
            file.put(&records(&["outlook"]), NOW).unwrap();
        }
        let log = std::fs::metadata(folder.path().join("state.sqlite-wal")).unwrap().len();
        assert!(log < 3 << 20, "{log}");
    }

    #[test]
    fn the_documented_schema_is_the_real_one() {
        let normal =
            |sql: &str| sql.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(").replace(" )", ")");
        let page = include_str!("../../docs/spool.md");
        let section = page.split("## What the throttle has learned").nth(1).unwrap();
        let block = section.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let code: String =
            block.lines().map(|line| line.split("--").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
        assert_eq!(normal(&code), normal(MIGRATIONS[0]));
    }
}
