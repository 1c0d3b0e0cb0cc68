//! The end of the event log, read back.
//!
//! A line is written before the outcome it tells of is committed. After a crash the last lines may therefore tell of
//! outcomes the spool does not know yet; whoever starts compares the two and makes the spool follow. A line that was
//! cut off was never followed by a commit, so it counts for nothing.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::folder;
use crate::types::{Class, EventKind, QueueId, Timestamp};

/// A higher number is none that weir gave: numbers stay below what every reader of JSON keeps exactly (RFC 8259 section 6).
pub(super) const SEQ_MAX: u64 = 1 << 53;

/// The last events of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tail {
    /// The oldest first.
    pub events: Vec<Written>,
}

/// An event as it was written, with what a start needs of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Written {
    pub time: Timestamp,
    pub seq: u64,
    #[serde(rename = "event")]
    pub kind: EventKind,
    pub id: Option<QueueId>,
    pub recipient: Option<String>,
    pub provider: Option<String>,
    pub reply: Option<String>,
    pub class: Option<Class>,
    pub sender: Option<String>,
    pub message_id: Option<String>,
    /// Of `accepted`.
    pub recipients: Option<usize>,
}

impl Tail {
    /// The events in the last `size_max_bytes` of the log in `folder`, across its files. What is no whole line, or no
    /// event, is passed over. A folder that is not there has no events.
    pub fn read(folder: &Path, size_max_bytes: u64) -> io::Result<Tail> {
        let mut events = Vec::new();
        let mut left = size_max_bytes;
        for path in newest_first(folder)? {
            let (bytes, size) = match last_bytes(&path, left) {
                Ok(read) => read,
                // Deleted since the folder was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut older = parse(&bytes);
            older.append(&mut events);
            events = older;
            left = left.saturating_sub(size);
            if left == 0 {
                break;
            }
        }
        Ok(Tail { events })
    }

    /// The highest number given so far; 0 where there was none. A line that somebody has damaged does not bring the count to its end.
    pub fn last_seq(&self) -> u64 {
        self.events.iter().map(|event| event.seq).filter(|seq| *seq < SEQ_MAX).max().unwrap_or(0)
    }
}

fn newest_first(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = folder::closed_files(folder)?.into_iter().map(|file| file.path).collect();
    files.push(folder.join(folder::CURRENT));
    files.reverse();
    Ok(files)
}

/// The whole lines in the last `max` bytes of a file, and the file's size.
fn last_bytes(path: &Path, max: u64) -> io::Result<(Vec<u8>, u64)> {
    let mut file = File::open(path)?;
    let size = file.seek(SeekFrom::End(0))?;
    // One byte more shows whether the first line is whole.
    let start = size.saturating_sub(max.saturating_add(1));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if start > 0 {
        let first = memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |at| at + 1);
        bytes.drain(..first);
    }
    let end = memchr::memrchr(b'\n', &bytes).map_or(0, |at| at + 1);
    bytes.truncate(end);
    Ok((bytes, size))
}

fn parse(bytes: &[u8]) -> Vec<Written> {
    bytes.split(|&b| b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_no_line_can_have_does_not_end_the_count() {
        let line = |seq: u64| {
            format!("{{\"time\":\"2026-11-21T20:33:40.042Z\",\"seq\":{seq},\"event\":\"alert\",\"id\":null}}\n")
                .into_bytes()
        };
        let events = |numbers: &[u64]| Tail { events: numbers.iter().flat_map(|seq| parse(&line(*seq))).collect() };
        assert_eq!(events(&[41, 42, u64::MAX, SEQ_MAX]).last_seq(), 42);
        assert_eq!(events(&[SEQ_MAX - 1]).last_seq(), SEQ_MAX - 1);
        assert_eq!(events(&[u64::MAX]).last_seq(), 0);
    }
}
