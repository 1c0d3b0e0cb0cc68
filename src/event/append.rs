//! A file that only grows by whole batches of lines.
//!
//! Rule that always holds: what stands in the file is a row of whole lines. A batch that could not be written to its end
//! (a full disk) leaves nothing behind: the caller tries it again, and no line is there twice or in part.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Steps in which the end of the last whole line is looked for.
const STEP: u64 = 64 << 10;

/// What batches are written to.
pub(super) trait Store: Write {
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Store for File {
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

#[derive(Debug)]
pub(super) struct Appender<S> {
    store: S,
    /// Where the last whole batch ends.
    length: u64,
    /// Behind `length` may lie a part of a batch that could not be taken back yet.
    ragged: bool,
}

impl<S: Store> Appender<S> {
    /// `store` holds `length` octets of whole lines, and writes at its end.
    pub(super) fn new(store: S, length: u64) -> Appender<S> {
        Appender { store, length, ragged: false }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Adds `batch`, all of it or nothing.
    pub(super) fn append(&mut self, batch: &[u8]) -> io::Result<()> {
        if self.ragged {
            self.store.cut(self.length)?;
            self.ragged = false;
        }
        match self.store.write_all(batch) {
            Ok(()) => {
                self.length += batch.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.ragged = self.store.cut(self.length).is_err();
                Err(error)
            }
        }
    }
}

/// Cuts off what follows the last line end: it is the beginning of a line whose outcome was never committed. Tells the
/// length that is left, and how much was cut.
pub(super) fn cut_torn_line(file: &mut File) -> io::Result<(u64, u64)> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut end = size;
    let mut chunk = Vec::new();
    let whole = loop {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        chunk.clear();
        Read::by_ref(file).take(end - start).read_to_end(&mut chunk)?;
        match memchr::memrchr(b'\n', &chunk) {
            Some(at) => break start + at as u64 + 1,
            None if start == 0 => break 0,
            None => end = start,
        }
    };
    if whole < size {
        file.set_len(whole)?;
    }
    Ok((whole, size - whole))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A disk with room for so many octets, that may refuse to take anything back.
    #[derive(Default)]
    struct Disk {
        content: Vec<u8>,
        room: usize,
        stuck: bool,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room.saturating_sub(self.content.len()));
            if n == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.content.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Store for Disk {
        fn cut(&mut self, length: u64) -> io::Result<()> {
            if self.stuck {
                return Err(io::ErrorKind::Other.into());
            }
            self.content.truncate(usize::try_from(length).unwrap());
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_leaves_no_part_of_a_batch() {
        let mut appender = Appender::new(Disk { room: 8, ..Disk::default() }, 0);
        appender.append(b"one\n").unwrap();
        assert_eq!(appender.append(b"two\nthree\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(appender.store.content, b"one\n");
        appender.store.room = 100;
        appender.append(b"two\nthree\n").unwrap();
        assert_eq!(appender.store.content, b"one\ntwo\nthree\n");
        assert_eq!(appender.length(), 14);
    }

    #[test]
    fn a_part_that_could_not_be_taken_back_goes_before_the_next_batch() {
        let mut appender = Appender::new(Disk { room: 2, stuck: true, ..Disk::default() }, 0);
        appender.append(b"one\n").unwrap_err();
        assert_eq!(appender.store.content, b"on");
        appender.store.room = 100;
        appender.append(b"one\n").unwrap_err();
        appender.store.stuck = false;
        appender.append(b"one\n").unwrap();
        assert_eq!(appender.store.content, b"one\n");
    }

    proptest! {
        #[test]
        fn only_whole_lines_stay(whole in prop::collection::vec("[a-z]{0,9}\n", 0..4), torn in 0usize..200_000) {
            let whole = whole.concat();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(whole.as_bytes()).unwrap();
            file.write_all(&vec![b'x'; torn]).unwrap();
            prop_assert_eq!(cut_torn_line(&mut file).unwrap(), (whole.len() as u64, torn as u64));
            prop_assert_eq!(file.metadata().unwrap().len(), whole.len() as u64);
        }
    }
}
