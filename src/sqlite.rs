//! What the relay's SQLite files have in common: how they are opened, kept small and read when nothing runs.
//!
//! Rules that always hold:
//! - a commit is on disk before it returns: WAL with `synchronous=FULL`;
//! - freed pages can be given back: `auto_vacuum=INCREMENTAL`, set before the first table exists;
//! - the log is copied into the file when its owner says so, never in the middle of somebody's commit
//!   (`wal_autocheckpoint=0`);
//! - a file of a newer schema is refused, one of an older schema is brought up in one transaction.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Two pages hold a message of 10 KiB; measured best of 4, 8 and 16 KiB.
pub const PAGE_BYTES: u64 = 8192;

/// An operator who looks into the file with `sqlite3` may hold a lock for a moment; nobody else does.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// The statements one connection keeps prepared; no room has more.
const STATEMENTS_MAX: usize = 48;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the database {}: {source}", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
    #[error(
        "{} has schema version {found}, this weir knows up to {known}: start the newer weir again, or put back the copy \
         made before it",
        path.display()
    )]
    Newer { path: PathBuf, found: usize, known: usize },
    #[error("cannot use the folder {} ({source}): let it belong to the relay's user, or set another data_dir", path.display())]
    Folder { path: PathBuf, source: io::Error },
}

/// Opens the file for its one writer; `migrations[n]` leads from schema version n to n + 1. `cache_kib` bounds the
/// memory for pages.
pub fn open_writer(path: &Path, migrations: &[&str], cache_kib: u32) -> Result<Connection, OpenError> {
    let is_new = !path.exists();
    let database = |source| OpenError::Database { path: path.to_owned(), source };
    let mut connection = Connection::open(path).map_err(database)?;
    settings(&connection, cache_kib).map_err(database)?;
    connection
        .execute_batch("PRAGMA page_size=8192; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0")
        .map_err(database)?;
    let mode: String = connection.query_row("PRAGMA journal_mode=WAL", (), |row| row.get(0)).map_err(database)?;
    if mode != "wal" {
        // Where WAL is impossible (a network file system without shared memory) commits would not be what we promise.
        let text = format!("the file system allows no write-ahead log (journal mode {mode}): use a local disk");
        return Err(database(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(1), Some(text))));
    }
    migrate(&mut connection, path, migrations)?;
    if is_new {
        let folder = path.parent().unwrap_or(Path::new("."));
        sync_folder(folder).map_err(|source| OpenError::Folder { path: folder.to_owned(), source })?;
    }
    Ok(connection)
}

/// Opens the file to read it, whether its owner runs or not.
pub fn open_reader(path: &Path, schema_version: usize, cache_kib: u32) -> Result<Connection, OpenError> {
    let database = |source| OpenError::Database { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let try_open = |name: &Path, flags| -> rusqlite::Result<(Connection, usize)> {
        let connection = Connection::open_with_flags(name, flags)?;
        settings(&connection, cache_kib)?;
        let version = version(&connection)?;
        Ok((connection, version))
    };
    let opened = match try_open(path, flags) {
        // A reader who may not write in the folder cannot make the shared-memory file. Without a log there is nothing to
        // share: the file alone is the whole truth.
        Err(error) if !log_exists(path) && is_cannot_open(&error) => {
            let name = format!("file:{}?immutable=1", path.display());
            try_open(Path::new(&name), flags | OpenFlags::SQLITE_OPEN_URI)
        }
        other => other,
    };
    let (connection, found) = opened.map_err(database)?;
    if found > schema_version {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: schema_version });
    }
    if found < schema_version {
        let text = format!("schema version {found} is older than {schema_version}: start the relay once");
        return Err(database(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(1), Some(text))));
    }
    Ok(connection)
}

fn settings(connection: &Connection, cache_kib: u32) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Else a statement is planned anew for each value it is bound to (STAT4): most of the cost of reading one row by its key.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(&format!("PRAGMA cache_size=-{cache_kib}; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY"))
}

fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: i64 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

fn log_exists(path: &Path) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    Path::new(&name).exists()
}

fn is_cannot_open(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}

fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), OpenError> {
    let database = |source| OpenError::Database { path: path.to_owned(), source };
    let found = version(connection).map_err(database)?;
    if found > migrations.len() {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: migrations.len() });
    }
    if found == migrations.len() {
        return Ok(());
    }
    let mut step = || -> rusqlite::Result<()> {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for migration in &migrations[found..] {
            transaction.execute_batch(migration)?;
        }
        transaction.execute_batch(&format!("PRAGMA user_version={}", migrations.len()))?;
        transaction.commit()
    };
    step().map_err(database)
}

/// Makes the folder if it is not there, for its owner alone.
pub fn make_folder(folder: &Path) -> Result<(), OpenError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| OpenError::Folder { path: folder.to_owned(), source })
}

/// What others may do in a folder that keeps mail: nothing. Such rights are taken away where that harms nobody, as the folder is `alone` for
/// weir, else told of.
pub fn keep_private(folder: &Path, alone: bool) {
    let Ok(found) = std::fs::metadata(folder) else { return };
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return;
    }
    let shown = folder.display();
    let is_ours = alone && found.uid() == rustix::process::geteuid().as_raw() && mode & STICKY == 0;
    if mode & 0o007 == 0 {
        // Somebody has chosen a group.
        tracing::warn!("the group of {shown} may look into it (mode {mode:04o}): if it is not to, chmod 700 {shown}");
    } else if is_ours && std::fs::set_permissions(folder, Permissions::from_mode(mode & !0o077)).is_ok() {
        tracing::warn!("everybody could look into {shown} (mode {mode:04o}): now only its owner can");
    } else {
        tracing::warn!("everybody may look into {shown} (mode {mode:04o}), where mail is kept: chmod 700 {shown}");
    }
}

/// Of a folder that many share, such as /tmp.
const STICKY: u32 = 0o1000;

/// Makes names in `folder` durable: a new file's entry, or that a file is gone.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The pages of the log, and how many of them are already in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub pages: u64,
    pub copied: u64,
}

pub fn log(connection: &Connection) -> rusqlite::Result<Log> {
    checkpoint_pragma(connection, "PRAGMA wal_checkpoint=NOOP")
}

/// Copies what no reader still needs from the log into the file, and waits for nobody.
pub fn checkpoint(connection: &Connection) -> rusqlite::Result<Log> {
    checkpoint_pragma(connection, "PRAGMA wal_checkpoint=PASSIVE")
}

fn checkpoint_pragma(connection: &Connection, pragma: &str) -> rusqlite::Result<Log> {
    let count = |value: i64| u64::try_from(value).unwrap_or(0);
    connection
        .prepare_cached(pragma)?
        .query_row((), |row| Ok(Log { pages: count(row.get(1)?), copied: count(row.get(2)?) }))
}

/// Pages of the database as of the last commit, wherever they stand.
pub fn pages(connection: &Connection) -> rusqlite::Result<u64> {
    let pages: i64 = connection.prepare_cached("PRAGMA page_count")?.query_row((), |row| row.get(0))?;
    Ok(u64::try_from(pages).unwrap_or(0))
}

/// Pages of the file that hold nothing and are used before it grows.
pub fn free_pages(connection: &Connection) -> rusqlite::Result<u64> {
    let pages: i64 = connection.prepare_cached("PRAGMA freelist_count")?.query_row((), |row| row.get(0))?;
    Ok(u64::try_from(pages).unwrap_or(0))
}

/// Gives up to `pages` free pages back to the file system.
pub fn give_back(connection: &Connection, pages: u64) -> rusqlite::Result<()> {
    // Each step frees one page: whoever steps once, as execute() does, frees one page only.
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query(())?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Is there no room left on the disk?
pub fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Is it the disk or the file that failed, so that everything else would fail too?
pub fn is_of_the_disk(error: &rusqlite::Error) -> bool {
    !matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::ParameterOutOfRange
        )
    ) && !matches!(error, rusqlite::Error::ToSqlConversionFailure(_) | rusqlite::Error::InvalidParameterCount(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE a (x INTEGER)";
    const SECOND: &str = "ALTER TABLE a ADD COLUMN y TEXT; INSERT INTO a VALUES (1, 'new')";

    #[test]
    fn an_older_file_is_brought_up_and_keeps_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sqlite");
        let old = open_writer(&path, &[FIRST], 256).unwrap();
        old.execute_batch("INSERT INTO a VALUES (7)").unwrap();
        drop(old);
        let new = open_writer(&path, &[FIRST, SECOND], 256).unwrap();
        let rows: i64 = new.query_row("SELECT count(*) FROM a", (), |row| row.get(0)).unwrap();
        assert_eq!(rows, 2);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sqlite");
        drop(open_writer(&path, &[FIRST], 256).unwrap());
        assert!(open_writer(&path, &[FIRST, "CREATE TABLE b (x); SELECT nonsense"], 256).is_err());
        let again = open_writer(&path, &[FIRST], 256).unwrap();
        assert!(again.prepare("SELECT * FROM b").is_err());
    }

    #[test]
    fn a_newer_file_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sqlite");
        drop(open_writer(&path, &[FIRST, SECOND], 256).unwrap());
        let error = open_writer(&path, &[FIRST], 256).unwrap_err().to_string();
        assert!(error.contains("schema version 2") && error.contains("newer weir"), "{error}");
        assert!(matches!(open_reader(&path, 1, 256), Err(OpenError::Newer { .. })));
    }

    #[test]
    fn the_settings_are_those_that_were_measured() {
        let folder = tempfile::tempdir().unwrap();
        let connection = open_writer(&folder.path().join("x.sqlite"), &[FIRST], 256).unwrap();
        for (pragma, value) in [("page_size", 8192), ("auto_vacuum", 2), ("synchronous", 2), ("wal_autocheckpoint", 0)]
        {
            let found: i64 = connection.query_row(&format!("PRAGMA {pragma}"), (), |row| row.get(0)).unwrap();
            assert_eq!(found, value, "{pragma}");
        }
    }

    #[test]
    fn a_statement_is_planned_once_whatever_it_is_bound_to() {
        let folder = tempfile::tempdir().unwrap();
        let tables =
            "CREATE TABLE m (id INTEGER PRIMARY KEY, x INTEGER); CREATE TABLE b (id INTEGER PRIMARY KEY, x BLOB);
                      CREATE TABLE d (m INTEGER, p INTEGER, x INTEGER, PRIMARY KEY (m, p)) WITHOUT ROWID;
                      CREATE INDEX i ON d (x) WHERE x IS NOT NULL";
        let connection = open_writer(&folder.path().join("x.sqlite"), &[tables], 256).unwrap();
        let query =
            "SELECT m.x, b.x FROM d CROSS JOIN m ON m.id = d.m LEFT JOIN b ON b.id = m.id WHERE d.m = ?1 AND d.p = ?2";
        let mut statement = connection.prepare(query).unwrap();
        for value in 0..5 {
            assert!(!statement.exists((value, value)).unwrap());
        }
        assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0);
    }

    #[test]
    fn free_pages_go_back_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sqlite");
        let connection = open_writer(&path, &["CREATE TABLE b (x BLOB)"], 256).unwrap();
        for _ in 0..50 {
            connection.execute("INSERT INTO b VALUES (zeroblob(100000))", ()).unwrap();
        }
        connection.execute_batch("DELETE FROM b").unwrap();
        assert!(free_pages(&connection).unwrap() > 500);
        give_back(&connection, 100_000).unwrap();
        assert_eq!(free_pages(&connection).unwrap(), 0);
        assert!(log(&connection).unwrap().pages > 0);
        checkpoint(&connection).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 100_000);
    }

    #[test]
    fn a_reader_needs_no_running_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sqlite");
        drop(open_writer(&path, &[FIRST], 256).unwrap());
        let reader = open_reader(&path, 1, 256).unwrap();
        assert!(reader.execute_batch("INSERT INTO a VALUES (1)").is_err());
    }
}
