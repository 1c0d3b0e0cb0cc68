//! Contents on their way in: in memory while they are small and memory lasts, else in a file that is written while the
//! client sends.
//!
//! Rules that always hold:
//! - all contents in flight together hold at most `MEMORY_MAX` (and one piece a writer as it was handed in); while the
//!   system is short of memory they take no more of it;
//! - a file is complete and synced before its message is handed to the writer, and its name is synced before COMMIT;
//! - a writer that is dropped without an accepted message leaves nothing behind; after a crash `sweep` does it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;

use super::space::Space;
use crate::types::{Body, QueueId};

/// Contents up to this stand in the database (measured: beyond it a file is cheaper).
pub(super) const INLINE_MAX: usize = 128 * 1024;
/// Memory for all contents in flight: enough for 2,400 usual messages at once, and far below the relay's 60 MiB.
const MEMORY_MAX: usize = 24 << 20;
/// A content's memory grows by doubling from here; most messages need one or two steps.
const MEMORY_FIRST: usize = 16 * 1024;

/// Memory of what is in flight.
#[derive(Debug, Default)]
pub struct InFlight {
    memory: AtomicUsize,
    /// The system is short of memory.
    short: AtomicBool,
}

impl InFlight {
    pub(super) fn set_short(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
    }

    fn reserve(&self, memory: usize) -> bool {
        if self.short.load(Ordering::Relaxed) {
            return false;
        }
        let take = |held: usize| held.checked_add(memory).filter(|&sum| sum <= MEMORY_MAX);
        self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// Gives back on drop what a content held.
#[derive(Debug)]
pub(super) struct Hold {
    flight: Arc<InFlight>,
    memory: usize,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.flight.memory.fetch_sub(self.memory, Ordering::Relaxed);
    }
}

/// A file that is removed again unless it is kept.
#[derive(Debug)]
pub struct BodyFile {
    path: Arc<PathBuf>,
    kept: bool,
}

impl BodyFile {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on the file belongs to somebody else.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is removed by the sweep of the next start.
            let _ = std::fs::remove_file(&*self.path);
        }
    }
}

/// A complete content, ready for a commit.
#[derive(Debug)]
pub struct Content {
    pub body: Body,
    pub file: Option<BodyFile>,
    pub(super) space: Space,
    _hold: Hold,
}

/// Takes the content of one message, piece by piece.
#[derive(Debug)]
pub struct BodyWriter {
    id: QueueId,
    folder: Arc<PathBuf>,
    memory: Vec<u8>,
    size_bytes: u64,
    file: Option<(BodyFile, Arc<File>)>,
    /// A write failed: what follows would leave a hole.
    failed: bool,
    space: Space,
    hold: Hold,
}

impl BodyWriter {
    /// `folder`: where files of contents lie. `space`: what is set aside of the disk.
    pub(super) fn new(id: QueueId, folder: Arc<PathBuf>, flight: Arc<InFlight>, space: Space) -> BodyWriter {
        let hold = Hold { flight, memory: 0 };
        BodyWriter { id, folder, memory: Vec::new(), size_bytes: 0, file: None, failed: false, space, hold }
    }

    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Bytes taken so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Takes the next piece. After an error (of the disk) the message cannot be accepted any more.
    pub async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier piece of this content could not be written"));
        }
        let length = piece.len() as u64;
        self.size_bytes += length;
        let result = match self.space.take(length) {
            Ok(()) => self.take(piece).await,
            Err(full) => Err(full),
        };
        self.failed |= result.is_err();
        result
    }

    async fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.file.is_none() && !self.has_memory_for(piece.len()) {
            self.open_file().await?;
        }
        if self.file.is_some() && self.memory.len() + piece.len() > self.hold.memory {
            return self.write_out(piece).await;
        }
        self.memory.extend_from_slice(piece);
        Ok(())
    }

    /// Puts `octets` before everything that was taken, where all of it is still in memory; else nothing is done, and false.
    pub fn put_first(&mut self, octets: &[u8]) -> io::Result<bool> {
        if self.failed || self.file.is_some() || !self.has_memory_for(octets.len()) {
            return Ok(false);
        }
        let taken = self.space.take(octets.len() as u64);
        self.failed |= taken.is_err();
        taken?;
        self.size_bytes += octets.len() as u64;
        self.memory.splice(..0, octets.iter().copied());
        Ok(true)
    }

    /// Writes over what was taken `at` octets from the beginning. Its length stays.
    pub async fn overwrite(&mut self, at: u64, octets: &[u8]) -> io::Result<()> {
        if self.failed || at.checked_add(octets.len() as u64).is_none_or(|end| end > self.size_bytes) {
            return Err(io::Error::other("there is nothing to be written over"));
        }
        let written = self.over(at, octets).await;
        self.failed |= written.is_err();
        written
    }

    async fn over(&mut self, at: u64, octets: &[u8]) -> io::Result<()> {
        if self.file.is_some() {
            self.write_out(&[]).await?;
        }
        let Some((_, file)) = &self.file else {
            let at = usize::try_from(at).map_err(io::Error::other)?;
            self.memory[at..at + octets.len()].copy_from_slice(octets);
            return Ok(());
        };
        let (file, octets) = (Arc::clone(file), octets.to_vec());
        blocking(move || file.write_all_at(&octets, at)).await
    }

    /// Makes room for `more` bytes; false if the content has become too large for memory, or memory is short.
    fn has_memory_for(&mut self, more: usize) -> bool {
        let needed = self.memory.len() + more;
        if needed <= self.hold.memory {
            return true;
        }
        let wanted = needed.next_power_of_two().max(MEMORY_FIRST);
        if needed > INLINE_MAX || !self.hold.flight.reserve(wanted - self.hold.memory) {
            return false;
        }
        self.hold.memory = wanted;
        self.memory.reserve_exact(wanted - self.memory.len());
        true
    }

    async fn open_file(&mut self) -> io::Result<()> {
        let path = Arc::new(self.folder.join(self.id.to_string()));
        let opened = Arc::clone(&path);
        // A file of this name would belong to another message: ids are never given twice.
        let file = blocking(move || File::create_new(&*opened)).await?;
        self.file = Some((BodyFile { path, kept: false }, Arc::new(file)));
        Ok(())
    }

    /// Writes what waits in memory and `piece` behind it.
    async fn write_out(&mut self, piece: &[u8]) -> io::Result<()> {
        let Some((_, file)) = &self.file else { return Ok(()) };
        let (file, mut waiting, piece) = (Arc::clone(file), std::mem::take(&mut self.memory), piece.to_vec());
        let written = waiting.len() + piece.len();
        self.memory = blocking(move || {
            (&*file).write_all(&waiting)?;
            (&*file).write_all(&piece)?;
            waiting.clear();
            Ok(waiting)
        })
        .await?;
        self.space.wrote(written as u64);
        Ok(())
    }

    /// The content, on disk if it lies in a file.
    pub async fn finish(mut self) -> io::Result<Content> {
        if self.failed {
            return Err(io::Error::other("a piece of this content could not be written"));
        }
        if self.file.is_some() {
            self.write_out(&[]).await?;
        }
        self.space.settle();
        let Some((file, handle)) = self.file.take() else {
            let body = Body::Inline(Bytes::from(self.memory));
            return Ok(Content { body, file: None, space: self.space, _hold: self.hold });
        };
        blocking(move || handle.sync_all()).await?;
        let body = Body::File { path: Arc::clone(&file.path), size_bytes: self.size_bytes };
        Ok(Content { body, file: Some(file), space: self.space, _hold: self.hold })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Removes files without a message: what a crash left. Ids from `first` on belong to this run and are left alone; so is
/// whatever has no queue id as its name. Returns how many were removed.
pub(super) fn sweep(
    folder: &Path,
    first: QueueId,
    stop: &AtomicBool,
    mut has_message: impl FnMut(QueueId) -> io::Result<bool>,
) -> io::Result<u64> {
    let mut removed = 0;
    for entry in std::fs::read_dir(folder)? {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<QueueId>().ok()) else { continue };
        if id < first && !has_message(id)? {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::spool::Options;
    use crate::spool::room::Room;
    use crate::spool::space::Disk;

    fn writer(folder: &Path, flight: &Arc<InFlight>, key: i64) -> BodyWriter {
        let space = Space::unlimited(&plenty());
        BodyWriter::new(QueueId::from_key(key).unwrap(), Arc::new(folder.to_owned()), Arc::clone(flight), space)
    }

    /// A disk that has room for all.
    fn plenty() -> Arc<Disk> {
        let options = Options { folder: "/".into(), queue_messages: u64::MAX, min_free_bytes: 0 };
        Arc::new(Disk::new(Room::new(&options), "/".into(), Clock::system()))
    }

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[tokio::test]
    async fn a_small_content_stays_in_memory_and_a_large_one_goes_to_a_file() {
        let (folder, flight) = (tempfile::tempdir().unwrap(), Arc::new(InFlight::default()));
        for (size, pieces, in_file) in [
            (0, 1, false),
            (10_000, 3, false),
            (INLINE_MAX, 1, false),
            (INLINE_MAX + 1, 1, true),
            (1_000_003, 17, true),
        ] {
            let text: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let mut writer = writer(folder.path(), &flight, 1);
            for piece in text.chunks((size / pieces).max(1)) {
                writer.write(piece).await.unwrap();
            }
            let content = writer.finish().await.unwrap();
            assert_eq!(content.body.size_bytes(), size as u64);
            let found = match &content.body {
                Body::Inline(bytes) => bytes.to_vec(),
                Body::File { path, .. } | Body::Headed { path, .. } => std::fs::read(&**path).unwrap(),
            };
            assert_eq!((found == text, content.file.is_some()), (true, in_file), "{size}");
        }
        assert_eq!((files(folder.path()), flight.memory.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn what_is_put_first_and_written_over_stands_where_it_should_in_memory_and_in_a_file() {
        let (folder, flight) = (tempfile::tempdir().unwrap(), Arc::new(InFlight::default()));
        for rest in [10, INLINE_MAX - 8, INLINE_MAX, 300_000] {
            let mut writer = writer(folder.path(), &flight, 1);
            writer.write(b"head").await.unwrap();
            assert!(writer.put_first(b"AAAA").unwrap());
            for piece in vec![b'x'; rest].chunks(70_000) {
                writer.write(piece).await.unwrap();
            }
            assert!(writer.overwrite(writer.size_bytes() - 1, b"yz").await.is_err(), "beyond the end");
            writer.overwrite(0, b"BBBB").await.unwrap();
            writer.overwrite(8, b"y").await.unwrap();
            let content = writer.finish().await.unwrap();
            let found = match &content.body {
                Body::Inline(bytes) => bytes.to_vec(),
                Body::File { path, .. } | Body::Headed { path, .. } => std::fs::read(&**path).unwrap(),
            };
            assert_eq!((found.len() as u64, found.len()), (content.body.size_bytes(), 8 + rest));
            assert!(found.starts_with(b"BBBBheadyx") && found.ends_with(b"x"), "{rest}");
        }
        flight.set_short(true);
        let mut short = writer(folder.path(), &flight, 2);
        short.write(b"head").await.unwrap();
        assert!(!short.put_first(b"AAAA").unwrap());
        assert_eq!(short.size_bytes(), 4);
    }

    #[tokio::test]
    async fn when_memory_is_short_even_small_contents_go_to_files() {
        let (folder, flight) = (tempfile::tempdir().unwrap(), Arc::new(InFlight::default()));
        assert!(flight.reserve(MEMORY_MAX - MEMORY_FIRST));
        let (mut first, mut second) = (writer(folder.path(), &flight, 1), writer(folder.path(), &flight, 2));
        first.write(b"one").await.unwrap();
        second.write(b"two").await.unwrap();
        second.write(b"three").await.unwrap();
        assert!(first.finish().await.unwrap().file.is_none());
        let content = second.finish().await.unwrap();
        assert_eq!(std::fs::read(content.file.as_ref().unwrap().path()).unwrap(), b"twothree");
    }

    #[tokio::test]
    async fn while_the_system_is_short_of_memory_contents_take_none() {
        let (folder, flight) = (tempfile::tempdir().unwrap(), Arc::new(InFlight::default()));
        let (mut before, mut during) = (writer(folder.path(), &flight, 1), writer(folder.path(), &flight, 2));
        before.write(b"one").await.unwrap();
        flight.set_short(true);
        before.write(&vec![b'x'; MEMORY_FIRST]).await.unwrap();
        during.write(b"two").await.unwrap();
        assert_eq!(files(folder.path()), 2);
        flight.set_short(false);
        let mut after = writer(folder.path(), &flight, 3);
        after.write(b"three").await.unwrap();
        assert!(after.finish().await.unwrap().file.is_none());
        let content = during.finish().await.unwrap();
        assert_eq!(std::fs::read(content.file.as_ref().unwrap().path()).unwrap(), b"two");
        assert_eq!(before.finish().await.unwrap().body.size_bytes(), 3 + MEMORY_FIRST as u64);
    }

    #[tokio::test]
    async fn a_writer_that_is_dropped_leaves_no_file() {
        let (folder, flight) = (tempfile::tempdir().unwrap(), Arc::new(InFlight::default()));
        let mut writer = writer(folder.path(), &flight, 1);
        writer.write(&vec![0; INLINE_MAX + 1]).await.unwrap();
        assert_eq!(files(folder.path()), 1);
        drop(writer);
        assert_eq!(files(folder.path()), 0);
    }

    #[tokio::test]
    async fn after_a_failed_write_nothing_more_is_taken() {
        let (folder, flight) = (tempfile::tempdir().unwrap(), Arc::new(InFlight::default()));
        let mut writer = writer(&folder.path().join("missing"), &flight, 1);
        assert!(writer.write(&vec![0; INLINE_MAX + 1]).await.is_err());
        assert!(writer.write(b"x").await.is_err());
        assert!(writer.finish().await.is_err());
    }

    #[tokio::test]
    async fn a_content_that_would_leave_less_than_the_limit_ends_there() {
        let (folder, flight) = (tempfile::tempdir().unwrap(), Arc::new(InFlight::default()));
        let options = Options { folder: "/".into(), queue_messages: u64::MAX, min_free_bytes: 0 };
        let (room, clock) = (Room::new(&options), Clock::system());
        room.pretend(clock.now(), 1 << 20);
        let disk = Arc::new(Disk::new(room, "/nowhere".into(), clock));
        let space = Space::limited(&disk, None).unwrap();
        let folder_of_bodies = Arc::new(folder.path().to_owned());
        let mut writer = BodyWriter::new(QueueId::from_key(1).unwrap(), folder_of_bodies, flight, space);
        let mut written = 0;
        let error = loop {
            match writer.write(&[b'x'; 10_000]).await {
                Ok(()) => written += 10_000,
                Err(error) => break error,
            }
        };
        assert!(written <= 1 << 20, "{written}");
        assert!(error.to_string().contains("cannot be asked") || error.kind() == io::ErrorKind::StorageFull, "{error}");
        assert!(writer.finish().await.is_err());
        assert_eq!((files(folder.path()), disk.promised()), (0, 0));
    }

    #[test]
    fn the_sweep_takes_old_files_without_a_message_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let id = |key| QueueId::from_key(key).unwrap();
        for name in [id(1).to_string(), id(2).to_string(), id(9).to_string(), "notes.txt".to_string()] {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        let removed = sweep(folder.path(), id(5), &AtomicBool::new(false), |found| Ok(found == id(2))).unwrap();
        assert_eq!((removed, files(folder.path())), (1, 3));
        assert!(!folder.path().join(id(1).to_string()).exists());
    }
}
