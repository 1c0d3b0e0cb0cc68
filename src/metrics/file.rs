//! `history.sqlite`: the steps of the plots, kept over a restart.
//!
//! It may be lost: a file that cannot be read is set aside, and the plots begin anew; what cannot be written is told once.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::history::{History, Point, Span};
use crate::sqlite;
use crate::types::Timestamp;

const MIGRATIONS: &[&str] = &["
CREATE TABLE point (
    span INTEGER NOT NULL,
    step INTEGER NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (span, step)
) WITHOUT ROWID;
"];
const CACHE_KIB: u32 = 512;

pub struct File {
    path: PathBuf,
    connection: Connection,
}

impl File {
    /// Opens the file in the data folder, and what it holds.
    pub fn open(data_dir: &Path) -> Result<(File, History), String> {
        let path = data_dir.join("history.sqlite");
        match File::read(&path) {
            Ok(opened) => Ok(opened),
            Err(fault) => {
                let aside = path.with_extension("sqlite.damaged");
                std::fs::rename(&path, &aside).map_err(|_| fault.clone())?;
                for end in ["-wal", "-shm"] {
                    let mut beside = path.clone().into_os_string();
                    beside.push(end);
                    // Often there is none.
                    let _ = std::fs::remove_file(beside);
                }
                tracing::warn!("{fault}; it is now {}, and the plots begin anew", aside.display());
                File::read(&path)
            }
        }
    }

    fn read(path: &Path) -> Result<(File, History), String> {
        let failed = |error: &dyn std::fmt::Display| {
            format!("the history of the plots cannot be read: {}: {error}", path.display())
        };
        let connection = sqlite::open_writer(path, MIGRATIONS, CACHE_KIB).map_err(|error| failed(&error))?;
        let mut history = History::default();
        let read = |history: &mut History| -> rusqlite::Result<()> {
            let mut statement = connection.prepare("SELECT span, step, data FROM point")?;
            let mut rows = statement.query(())?;
            while let Some(row) = rows.next()? {
                let (span, step, data): (u32, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                // What another version wrote and nobody can read any more is a gap.
                if let (Some(span), Ok(point)) = (Span::ALL.get(span as usize), serde_json::from_str::<Point>(&data)) {
                    history.restore(*span, step, point);
                }
            }
            Ok(())
        };
        read(&mut history).map_err(|error| failed(&error))?;
        Ok((File { path: path.to_path_buf(), connection }, history))
    }

    /// Writes the steps that changed and drops those that are too old, in one transaction.
    pub fn write(&mut self, changed: &[(Span, i64, Point)], now: Timestamp) -> Result<(), String> {
        self.try_write(changed, now).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    fn try_write(&mut self, changed: &[(Span, i64, Point)], now: Timestamp) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for (span, step, point) in changed {
            let Ok(data) = serde_json::to_string(point) else { continue };
            let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO point VALUES (?1, ?2, ?3)")?;
            insert.execute(params![*span as i64, step, data])?;
        }
        for span in Span::ALL {
            let mut delete = transaction.prepare_cached("DELETE FROM point WHERE span = ?1 AND step < ?2")?;
            delete.execute(params![span as i64, History::kept_from(span, now)])?;
        }
        transaction.commit()?;
        sqlite::checkpoint(&self.connection)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::history::{State, Tally};

    const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);

    #[test]
    fn what_was_written_is_there_after_a_restart_and_what_is_old_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, mut history) = File::open(folder.path()).unwrap();
        let old = history.add(&Tally::default(), &State { queue: 1, ..State::default() }, NOON);
        file.write(&old, NOON).unwrap();
        let later = NOON + std::time::Duration::from_secs(3600);
        let changed = history.add(&Tally::default(), &State { queue: 7, ..State::default() }, later);
        file.write(&changed, later).unwrap();
        drop(file);
        let (_, again) = File::open(folder.path()).unwrap();
        for span in Span::ALL {
            assert_eq!(again.plots(span, later), history.plots(span, later));
        }
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("history.sqlite"), "no database at all, but long enough to be looked at")
            .unwrap();
        let (mut file, mut history) = File::open(folder.path()).unwrap();
        file.write(&history.add(&Tally::default(), &State::default(), NOON), NOON).unwrap();
        assert!(folder.path().join("history.sqlite.damaged").exists());
    }
}
