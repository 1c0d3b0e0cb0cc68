//! Room on the disk that is set aside for contents under way, so that all of them together leave `limits.min_free_disk` free.
//!
//! Rules that always hold:
//! - what is set aside is what was announced, or what has come where that is more; what stands in a file by now is not counted
//!   twice: the file system counts it;
//! - a content that stays small is never refused at its end: who announces nothing gets as much room as that takes at the beginning;
//! - a content from outside gets no more than there is above the limit; what weir writes itself (a letter that says the disk is low)
//!   is counted and not refused;
//! - it is given back on drop.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Shortage;
use super::body::INLINE_MAX;
use super::room::Room;
use crate::clock::Clock;

/// The disk of the data folder and what is promised of it.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) room: Room,
    folder: PathBuf,
    clock: Clock,
    /// Set aside, and in no file yet.
    promised: AtomicU64,
}

/// A part of the disk for one content.
#[derive(Debug)]
pub struct Space {
    disk: Arc<Disk>,
    is_limited: bool,
    /// All that was set aside, and what of it stands in a file.
    whole: u64,
    in_file: u64,
    /// What has come of the content.
    come: u64,
}

impl Disk {
    pub(super) fn new(room: Room, folder: PathBuf, clock: Clock) -> Disk {
        Disk { room, folder, clock, promised: AtomicU64::new(0) }
    }

    /// Is there room for `size` more bytes?
    pub(super) fn check(&self, size: u64) -> Result<(), Shortage> {
        self.room.check(&self.folder, self.clock.now(), size, self.promised())
    }

    /// Bytes of contents that were begun and are neither in a file nor committed.
    pub(super) fn promised(&self) -> u64 {
        self.promised.load(Ordering::Relaxed)
    }

    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        self.room.free_bytes(&self.folder, self.clock.now())
    }
}

impl Space {
    /// For what comes from outside: room for `announced` bytes (0: nothing was announced), and more as more comes. None: no room before
    /// something comes.
    pub(super) fn limited(disk: &Arc<Disk>, announced: Option<u64>) -> Result<Space, Shortage> {
        let mut space = Space { disk: disk.clone(), is_limited: true, whole: 0, in_file: 0, come: 0 };
        space.grow(match announced {
            Some(0) => INLINE_MAX as u64,
            announced => announced.unwrap_or(0),
        })?;
        Ok(space)
    }

    /// For what weir writes itself.
    pub(super) fn unlimited(disk: &Arc<Disk>) -> Space {
        Space { disk: disk.clone(), is_limited: false, whole: 0, in_file: 0, come: 0 }
    }

    fn grow(&mut self, more: u64) -> Result<(), Shortage> {
        // First taken and then judged: of many at once none overlooks the others.
        self.disk.promised.fetch_add(more, Ordering::Relaxed);
        self.whole += more;
        let judged = if self.is_limited { self.disk.check(0) } else { Ok(()) };
        if judged.is_err() {
            self.shrink(more);
        }
        judged
    }

    fn shrink(&mut self, by: u64) {
        self.whole -= by;
        self.disk.promised.fetch_sub(by, Ordering::Relaxed);
    }

    /// So many bytes more have come.
    pub(super) fn take(&mut self, bytes: u64) -> io::Result<()> {
        self.come += bytes;
        match self.come.saturating_sub(self.whole) {
            0 => Ok(()),
            more => {
                self.grow(more).map_err(|shortage| io::Error::new(io::ErrorKind::StorageFull, shortage.to_string()))
            }
        }
    }

    /// So many bytes of what has come stand in a file now.
    pub(super) fn wrote(&mut self, bytes: u64) {
        let bytes = bytes.min(self.whole - self.in_file);
        // In this order nobody finds them free in between.
        self.disk.room.wrote_file(bytes);
        self.in_file += bytes;
        self.disk.promised.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The content is whole: what was announced beyond it is given back.
    pub(super) fn settle(&mut self) {
        self.shrink(self.whole.saturating_sub(self.come.max(self.in_file)));
    }

    /// Is there room for it still? Asked of what stands in a file, when it is whole: others may have filled the disk meanwhile.
    pub(super) fn check(&self) -> Result<(), Shortage> {
        let rest = self.whole - self.in_file;
        let room = &self.disk.room;
        match self.is_limited && self.in_file > 0 {
            true => room.check(&self.disk.folder, self.disk.clock.now(), rest, 0),
            false => Ok(()),
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.disk.promised.fetch_sub(self.whole - self.in_file, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Options;
    use crate::types::Timestamp;

    const MIB: u64 = 1 << 20;

    /// A disk that stays as free as it is said to be, and as it was `at` which time.
    fn disk(free: u64, min: u64) -> Arc<Disk> {
        let clock = Clock::starting_at(Timestamp::from_secs(1000));
        let room = Room::new(&Options { folder: "/".into(), queue_messages: 10, min_free_bytes: min });
        room.pretend(clock.now(), free);
        Arc::new(Disk::new(room, "/".into(), clock))
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_leave_the_limit_free() {
        let disk = disk(600 * MIB, 256 * MIB);
        let announced: Vec<Space> = (0..40).map_while(|_| Space::limited(&disk, Some(30 * MIB)).ok()).collect();
        assert_eq!((announced.len(), disk.promised()), (11, 330 * MIB));
        drop(announced);
        assert_eq!(disk.promised(), 0);

        // Who announces nothing gets as much, as it comes.
        let mut spaces: Vec<Space> = (0..40).filter_map(|_| Space::limited(&disk, None).ok()).collect();
        let mut refused = 0;
        for _ in 0..30 {
            refused += spaces.iter_mut().filter_map(|space| space.take(MIB).err()).count();
            assert!(disk.promised() <= 344 * MIB);
        }
        assert_eq!((refused, disk.promised()), (40 * 30 - 344, 344 * MIB));
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_content_that_was_let_in_comes_to_its_end() {
        let disk = disk(257 * MIB, 256 * MIB);
        let small = INLINE_MAX as u64;
        let mut spaces: Vec<Space> = (0..40).map_while(|_| Space::limited(&disk, Some(0)).ok()).collect();
        assert_eq!(spaces.len() as u64, MIB / small);
        assert!(spaces.iter_mut().all(|space| space.take(small).is_ok() && space.check().is_ok()));
        assert!(spaces.iter_mut().all(|space| space.take(1).is_err()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_stands_in_a_file_is_counted_once() {
        let disk = disk(300 * MIB, 256 * MIB);
        let mut space = Space::limited(&disk, Some(6 * MIB)).unwrap();
        space.take(4 * MIB).unwrap();
        space.wrote(3 * MIB);
        assert_eq!(disk.promised(), 3 * MIB);
        assert!(disk.check(38 * MIB).is_ok(), "6 MiB are gone, not 9");
        space.settle();
        assert_eq!(disk.promised(), MIB);
        drop(space);
        assert_eq!(disk.promised(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_content_is_not_kept_where_others_have_filled_the_disk() {
        let disk = disk(300 * MIB, 256 * MIB);
        let mut space = Space::limited(&disk, Some(MIB)).unwrap();
        space.take(MIB).unwrap();
        space.wrote(MIB);
        assert!(space.check().is_ok());
        disk.room.pretend(disk.clock.now(), 255 * MIB);
        assert!(space.check().unwrap_err().to_string().contains("min_free_disk"));
        let mut letter = Space::unlimited(&disk);
        assert!(letter.take(MIB).is_ok() && letter.check().is_ok(), "what says so itself is kept");
    }
}
