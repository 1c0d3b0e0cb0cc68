//! The files of the event log: `current.jsonl`, and the closed ones, `events-TIME.jsonl`.
//!
//! TIME is when the file was closed, so the names sort by age. Rule that always holds: no two files are closed under one
//! name, also when the clock goes back.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::types::Timestamp;

pub(super) const CURRENT: &str = "current.jsonl";

/// Tries to see all files at one moment, while the relay closes one.
const LISTINGS: usize = 5;

/// A file that is not written to any more.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Closed {
    pub(super) path: PathBuf,
    pub(super) at: Timestamp,
    pub(super) size_bytes: u64,
    pub(super) identity: (u64, u64),
}

/// The closed files, the oldest first. A folder that is not there has none.
pub(super) fn closed_files(folder: &Path) -> io::Result<Vec<Closed>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(at) = entry.file_name().to_str().and_then(time_of) else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() {
            let (size_bytes, identity) = (metadata.len(), identity(&metadata));
            files.push(Closed { path: entry.path(), at, size_bytes, identity });
        }
    }
    files.sort_by_key(|file| file.at);
    Ok(files)
}

/// The closed files, and the current one opened: at one moment, so that a file that is being closed counts once.
pub(super) fn snapshot(folder: &Path) -> io::Result<(Vec<Closed>, Option<File>)> {
    let mut closed = closed_files(folder)?;
    for _ in 0..LISTINGS {
        let current = match File::open(folder.join(CURRENT)) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let again = closed_files(folder)?;
        if again == closed {
            return Ok((closed, current));
        }
        closed = again;
    }
    Err(io::Error::other("files of the event log are closed faster than they can be listed"))
}

/// Device and number of a file: the same for as long as it is there, whatever its name.
pub(super) fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Closes the current file under a name later than all others.
pub(super) fn close_current(folder: &Path, now: Timestamp) -> io::Result<()> {
    let last = closed_files(folder)?.last().map(|file| file.at);
    let at = last.map_or(now, |last| now.max(last + Duration::from_secs(1)));
    fs::rename(folder.join(CURRENT), folder.join(format!("events-{}.jsonl", at.compact())))
}

/// Deletes closed files older than `keep`, and the oldest while all files together, with `current_bytes` of the current
/// one, are larger than `size_max_bytes`. Tells how many it deleted.
pub(super) fn delete_old(
    folder: &Path,
    now: Timestamp,
    keep: Duration,
    size_max_bytes: u64,
    current_bytes: u64,
) -> io::Result<usize> {
    let files = closed_files(folder)?;
    let mut size: u64 = files.iter().map(|file| file.size_bytes).sum::<u64>().saturating_add(current_bytes);
    let mut deleted = 0;
    for file in &files {
        if now.since(file.at) <= keep && size <= size_max_bytes {
            break;
        }
        fs::remove_file(&file.path)?;
        size = size.saturating_sub(file.size_bytes);
        deleted += 1;
    }
    Ok(deleted)
}

/// The time in the name of a closed file.
fn time_of(name: &str) -> Option<Timestamp> {
    let time = name.strip_prefix("events-")?.strip_suffix(".jsonl")?;
    let digits = time.bytes().enumerate().all(|(at, b)| match at {
        8 => b == b'T',
        15 => b == b'Z',
        _ => b.is_ascii_digit(),
    });
    if time.len() != 16 || !digits {
        return None;
    }
    let part = |from: usize, to: usize| &time[from..to];
    Timestamp::parse_rfc3339(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(9, 11),
        part(11, 13),
        part(13, 15)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_closed_file_tells_its_time() {
        let at = Timestamp::from_secs(1_795_293_220);
        assert_eq!(time_of(&format!("events-{}.jsonl", at.compact())), Some(at));
        for name in
            ["current.jsonl", "events-.jsonl", "events-20261121T203340Z.jsonl.gz", "events-2026112éT20334Z.jsonl"]
        {
            assert_eq!(time_of(name), None, "{name}");
        }
    }

    #[test]
    fn names_rise_when_the_clock_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        for (secs, content) in [(1000, "1"), (1000, "2"), (10, "3"), (2000, "4")] {
            fs::write(folder.path().join(CURRENT), content).unwrap();
            close_current(folder.path(), Timestamp::from_secs(secs)).unwrap();
        }
        let files = closed_files(folder.path()).unwrap();
        let contents: Vec<String> = files.iter().map(|file| fs::read_to_string(&file.path).unwrap()).collect();
        assert_eq!(contents, ["1", "2", "3", "4"]);
    }

    #[test]
    fn old_files_go_by_age_and_the_oldest_by_size() {
        let folder = tempfile::tempdir().unwrap();
        for secs in [1000, 2000, 3000, 4000] {
            fs::write(folder.path().join(CURRENT), [b'x'; 100]).unwrap();
            close_current(folder.path(), Timestamp::from_secs(secs)).unwrap();
        }
        fs::write(folder.path().join("events-of-mine.jsonl"), "stays").unwrap();
        let delete = |now, keep, size| {
            let keep = Duration::from_secs(keep);
            delete_old(folder.path(), Timestamp::from_secs(now), keep, size, 50).unwrap()
        };
        assert_eq!(delete(4000, 3000, 450), 0);
        assert_eq!(delete(4001, 3000, 450), 1);
        assert_eq!(delete(4001, 3000, 349), 1);
        let left: Vec<i64> = closed_files(folder.path()).unwrap().iter().map(|file| file.at.secs()).collect();
        assert_eq!(left, [3000, 4000]);
        assert!(folder.path().join("events-of-mine.jsonl").exists());
    }
}
