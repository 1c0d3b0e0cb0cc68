//! Is there room for another message? Asked at MAIL, before a client sends what could not be kept, and again as it comes.
//!
//! Rules that always hold:
//! - bytes that were set aside but are not written yet count as taken (`space`), and so does what was written since the file system
//!   was asked;
//! - pages of the database that hold nothing, and what the log's file has to spare, count as free, or a drained queue would
//!   still refuse; but the log must be able to grow and a large content needs a file, so some of the file system must be
//!   free in any case;
//! - what stands in the log alone needs its place in the database as well: that is not free any more;
//! - asking is cheap: the file system is asked once a second, or when much was taken since.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::StatVfsMountFlags;

use super::store::Spare;
use super::{Options, Shortage};
use crate::types::{ByteSize, Timestamp};

/// How long an answer of the file system is believed.
const FRESH: Duration = Duration::from_secs(1);
/// What may be promised before the file system is asked again.
const TAKEN_MAX: u64 = 8 << 20;
/// The log grows to some 32 MiB before it starts again; twice that is kept free of the promise that free pages make.
const LOG_BYTES: u64 = 64 << 20;
/// Large contents, the log and the events need some inodes.
const INODES_MIN: u64 = 1000;

#[derive(Debug)]
pub(super) struct Room {
    min_free_bytes: u64,
    messages_max: u64,
    messages: AtomicU64,
    page_bytes: AtomicU64,
    log_bytes: AtomicU64,
    owed_bytes: AtomicU64,
    /// What was written to the disk since the file system was asked, in bytes of the disk.
    written: AtomicU64,
    answer: Mutex<Option<Answer>>,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    at: Timestamp,
    free_bytes: u64,
    /// None: the file system counts no inodes (btrfs).
    free_inodes: Option<u64>,
    /// Nothing can be written, whatever is free.
    read_only: bool,
    taken: u64,
}

impl Room {
    pub(super) fn new(options: &Options) -> Room {
        Room {
            min_free_bytes: options.min_free_bytes,
            messages_max: options.queue_messages,
            messages: AtomicU64::new(0),
            page_bytes: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            owed_bytes: AtomicU64::new(0),
            written: AtomicU64::new(0),
            answer: Mutex::new(None),
        }
    }

    /// What the writer knows after each commit.
    pub(super) fn update(&self, messages: u64, spare: Spare) {
        self.messages.store(messages, Ordering::Relaxed);
        self.page_bytes.store(spare.page_bytes, Ordering::Relaxed);
        self.log_bytes.store(spare.log_bytes, Ordering::Relaxed);
        self.owed_bytes.store(spare.owed_bytes, Ordering::Relaxed);
    }

    /// Contents of so many bytes are in the database now, and in flight no more: they stand in the log, and soon in the file as well.
    pub(super) fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes.saturating_mul(2), Ordering::Relaxed);
    }

    /// So many bytes of a content are in a file of their own now.
    pub(super) fn wrote_file(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// As if the file system had said this.
    #[cfg(test)]
    pub(super) fn pretend(&self, at: Timestamp, free_bytes: u64) {
        let answer = Answer { at, free_bytes, free_inodes: None, read_only: false, taken: 0 };
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        self.written.store(0, Ordering::Relaxed);
    }

    /// Messages in the spool.
    pub(super) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Bytes the file system has free, as of the last question.
    pub(super) fn free_bytes(&self, folder: &Path, now: Timestamp) -> std::io::Result<u64> {
        self.ask(folder, now, 0).map(|answer| answer.free_bytes)
    }

    pub(super) fn check(&self, folder: &Path, now: Timestamp, size: u64, in_flight: u64) -> Result<(), Shortage> {
        let judged = self.judge(folder, now, size, in_flight);
        if judged.is_err() && self.written.load(Ordering::Relaxed) > 0 {
            // That was a guess on the safe side. The file system knows.
            *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return self.judge(folder, now, size, in_flight);
        }
        judged
    }

    fn judge(&self, folder: &Path, now: Timestamp, size: u64, in_flight: u64) -> Result<(), Shortage> {
        if self.messages() >= self.messages_max {
            return Err(Shortage::Queue { messages: self.messages(), max: self.messages_max });
        }
        let answer =
            self.ask(folder, now, size).map_err(|e| Shortage::Disk(format!("the disk cannot be asked: {e}")))?;
        if answer.read_only {
            return Err(Shortage::Disk(format!(
                "{} lies on a file system that is mounted read-only",
                folder.display()
            )));
        }
        let written = self.written.load(Ordering::Relaxed);
        let wanted = size.saturating_add(in_flight).saturating_add(written);
        let free = answer.free_bytes.saturating_sub(self.owed_bytes.load(Ordering::Relaxed));
        let with_log = free.saturating_add(self.log_bytes.load(Ordering::Relaxed));
        let with_pages = with_log.saturating_add(self.page_bytes.load(Ordering::Relaxed));
        let bare_min = self.min_free_bytes.min(LOG_BYTES);
        if with_pages < self.min_free_bytes.saturating_add(wanted)
            || with_log < bare_min.saturating_add(wanted)
            || free < wanted
        {
            return Err(Shortage::Disk(format!(
                "{} free, limits.min_free_disk is {}",
                ByteSize(free & !0xFFFFF),
                ByteSize(self.min_free_bytes)
            )));
        }
        match answer.free_inodes {
            Some(free) if free < INODES_MIN => {
                Err(Shortage::Disk(format!("{free} inodes free, {INODES_MIN} are needed")))
            }
            _ => Ok(()),
        }
    }

    fn ask(&self, folder: &Path, now: Timestamp, size: u64) -> std::io::Result<Answer> {
        let mut guard = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = guard.as_mut()
            && now.since(known.at) < FRESH
            && now >= known.at
            && known.taken.saturating_add(self.written.load(Ordering::Relaxed)) < TAKEN_MAX
        {
            known.taken = known.taken.saturating_add(size);
            return Ok(*known);
        }
        self.written.store(0, Ordering::Relaxed);
        let found = rustix::fs::statvfs(folder)?;
        let answer = Answer {
            at: now,
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            free_inodes: (found.f_files > 0).then_some(found.f_favail),
            read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
            taken: size,
        };
        *guard = Some(answer);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(min_free_bytes: u64, answer: Answer) -> Room {
        let room = Room::new(&Options { folder: "/".into(), queue_messages: 10, min_free_bytes });
        *room.answer.lock().unwrap() = Some(answer);
        room
    }

    const NOW: Timestamp = Timestamp::from_secs(1000);
    const MIB: u64 = 1 << 20;

    fn free(free_bytes: u64) -> Answer {
        Answer { at: NOW, free_bytes, free_inodes: Some(5000), read_only: false, taken: 0 }
    }

    #[test]
    fn the_promise_is_kept_free() {
        for (free_mib, pages_mib, log_mib, owed_mib, in_flight_mib, size_mib, has_room) in [
            (300, 0, 0, 0, 0, 10, true),
            (260, 0, 0, 0, 0, 10, false),
            (300, 0, 0, 0, 40, 10, false),
            // The log has still to be copied into a database that must grow for it.
            (300, 0, 0, 40, 0, 10, false),
            // A drained queue: the file system looks full, the database has room.
            (100, 500, 0, 0, 0, 10, true),
            // But not if the log could not grow.
            (60, 500, 0, 0, 0, 10, false),
            // It need not, where its file is large already and may be written anew.
            (60, 500, 40, 0, 0, 10, true),
            // A large content needs a file in any case.
            (60, 500, 400, 0, 0, 61, false),
        ] {
            let room = room(256 * MIB, free(free_mib * MIB));
            let spare = Spare { page_bytes: pages_mib * MIB, log_bytes: log_mib * MIB, owed_bytes: owed_mib * MIB };
            room.update(0, spare);
            let answer = room.check(Path::new("/"), NOW, size_mib * MIB, in_flight_mib * MIB);
            assert_eq!(answer.is_ok(), has_room, "{free_mib} {pages_mib} {log_mib} {in_flight_mib}: {answer:?}");
        }
    }

    #[test]
    fn what_was_written_since_the_answer_is_not_free_any_more() {
        let room = room(256 * MIB, free(260 * MIB));
        assert!(room.check(Path::new("/"), NOW, 0, 0).is_ok());
        room.wrote(3 * MIB);
        assert!(room.judge(Path::new("/"), NOW, 0, 0).is_err());
        // But before a client is refused for it the file system is asked.
        let _ = room.check(Path::new("/"), NOW, 0, 0);
        assert_eq!(room.written.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn inodes_count_too() {
        let room = room(MIB, Answer { free_inodes: Some(3), ..free(1 << 40) });
        assert!(room.check(Path::new("/"), NOW, 1, 0).unwrap_err().to_string().contains("inodes"));
    }

    #[test]
    fn a_file_system_that_takes_no_writes_has_no_room() {
        let room = room(MIB, Answer { read_only: true, ..free(1 << 40) });
        assert!(room.check(Path::new("/data"), NOW, 1, 0).unwrap_err().to_string().contains("/data lies on"));
    }

    #[test]
    fn a_full_queue_is_full() {
        let room = room(MIB, free(1 << 40));
        room.update(10, Spare::default());
        assert!(room.check(Path::new("/"), NOW, 1, 0).unwrap_err().to_string().contains("queue_messages"));
        room.update(9, Spare::default());
        assert!(room.check(Path::new("/"), NOW, 1, 0).is_ok());
    }

    #[test]
    fn the_file_system_is_asked_again_after_a_second_or_much_mail() {
        let room = room(MIB, free(7));
        let asked = |now, size| room.ask(Path::new("/"), now, size).unwrap().free_bytes != 7;
        assert!(!asked(NOW + Duration::from_millis(999), 1));
        assert!(!asked(NOW, TAKEN_MAX));
        assert!(asked(NOW, 1));
        *room.answer.lock().unwrap() = Some(free(7));
        room.wrote(TAKEN_MAX / 2 - 1);
        assert!(!asked(NOW, 0));
        room.wrote_file(2);
        assert!(asked(NOW, 0));
        *room.answer.lock().unwrap() = Some(free(7));
        assert!(asked(NOW + Duration::from_secs(1), 1));
    }
}
