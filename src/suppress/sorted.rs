//! Entries of any number in the order of their addresses, in bounded memory.
//!
//! Ten million addresses in the order of a file touch ten million pages of the list, one after the other; in the order of
//! the list they touch each page once. So an import is sorted first: pieces of it in memory, each written to a nameless
//! file when it is full, and all of them merged while they are read back. What is there twice becomes one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::entry::Entry;

/// Memory for one piece, roughly.
const PIECE_BYTES: usize = 32 << 20;
/// What an entry costs beside its text.
const ENTRY_BYTES: usize = 96;
/// Files that are read side by side: 16 MiB of memory to read them, and far from the 1024 files that a process may open.
/// When there are more they become one; with pieces of this size that takes some twenty million entries.
const PIECES_MAX: usize = 256;
/// An entry on its line, with everything it can hold: address, reply, provider, rule, wave, all escaped.
const LINE_MAX: u64 = 64 << 10;
/// Read at once of each piece.
const READ_BYTES: usize = 64 << 10;

/// One entry as it is sorted: its place, and itself as a line.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    key: Box<str>,
    text: Box<str>,
}

/// Takes entries in any order.
#[derive(Debug)]
pub struct Sorter {
    folder: PathBuf,
    piece_bytes: usize,
    pieces_max: usize,
    lines: Vec<Line>,
    bytes: usize,
    pieces: Vec<File>,
}

impl Sorter {
    /// What does not fit into memory goes to `folder`, on a disk with some 200 bytes for each entry.
    pub fn new(folder: &Path) -> Sorter {
        Sorter {
            folder: folder.to_owned(),
            piece_bytes: PIECE_BYTES,
            pieces_max: PIECES_MAX,
            lines: Vec::new(),
            bytes: 0,
            pieces: Vec::new(),
        }
    }

    /// Errors are of the folder's disk.
    pub fn push(&mut self, entry: &Entry) -> io::Result<()> {
        let place = entry.place();
        // A blank sorts before every character of an address but one in quotes; what counts is that equals meet.
        let key = format!("{} {}", place.recipient, place.sender_domain);
        let text = serde_json::to_string(entry)?;
        self.bytes += key.len() + text.len() + ENTRY_BYTES;
        self.lines.push(Line { key: key.into(), text: text.into() });
        if self.bytes >= self.piece_bytes { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> io::Result<()> {
        self.lines.sort_unstable();
        let piece = write(&self.folder, self.lines.drain(..).map(Ok))?;
        self.pieces.push(piece);
        self.bytes = 0;
        if self.pieces.len() >= self.pieces_max {
            let mut all = Sorted::of(self.pieces.drain(..).map(Piece::from).collect())?;
            let one = write(&self.folder, std::iter::from_fn(|| all.next_line().transpose()))?;
            self.pieces.push(one);
        }
        Ok(())
    }

    /// All of them, in order.
    pub fn sorted(mut self) -> io::Result<Sorted> {
        self.lines.sort_unstable();
        let mut pieces: Vec<Piece> = self.pieces.into_iter().map(Piece::from).collect();
        pieces.push(Piece::Memory(self.lines.into_iter()));
        Sorted::of(pieces)
    }
}

/// One piece as a file, ready to be read.
fn write(folder: &Path, lines: impl Iterator<Item = io::Result<Line>>) -> io::Result<File> {
    let mut to = BufWriter::with_capacity(READ_BYTES, nameless(folder)?);
    for line in lines {
        let Line { key, text } = line?;
        writeln!(to, "{key}\n{text}")?;
    }
    let mut file = to.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

/// A file without a name: it goes away with us, whatever becomes of us.
fn nameless(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!("import-{}.tmp", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[derive(Debug)]
enum Piece {
    Memory(std::vec::IntoIter<Line>),
    File(BufReader<File>),
}

impl From<File> for Piece {
    fn from(file: File) -> Piece {
        Piece::File(BufReader::with_capacity(READ_BYTES, file))
    }
}

impl Piece {
    fn next(&mut self) -> io::Result<Option<Line>> {
        match self {
            Piece::Memory(lines) => Ok(lines.next()),
            Piece::File(from) => {
                let Some(key) = line(from)? else { return Ok(None) };
                let text = line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
                Ok(Some(Line { key, text }))
            }
        }
    }
}

fn line(from: &mut BufReader<File>) -> io::Result<Option<Box<str>>> {
    let mut line = String::new();
    if from.take(LINE_MAX).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    line.truncate(line.trim_end_matches('\n').len());
    Ok(Some(line.into()))
}

/// The entries in order, each address (and sender domain) once.
#[derive(Debug)]
pub struct Sorted {
    pieces: Vec<Piece>,
    heads: BinaryHeap<Reverse<(Line, usize)>>,
    /// The one that is not handed out yet, for the next may be the same address.
    held: Option<(Box<str>, Entry)>,
    duplicates: u64,
}

impl Sorted {
    fn of(mut pieces: Vec<Piece>) -> io::Result<Sorted> {
        let mut heads = BinaryHeap::with_capacity(pieces.len());
        for (number, piece) in pieces.iter_mut().enumerate() {
            if let Some(line) = piece.next()? {
                heads.push(Reverse((line, number)));
            }
        }
        Ok(Sorted { pieces, heads, held: None, duplicates: 0 })
    }

    /// How many entries were merged into others so far.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The next one; none at the end. Errors are of the disk.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        while let Some(line) = self.next_line()? {
            let entry: Entry = serde_json::from_str(&line.text)?;
            match self.held.take() {
                Some((key, held)) if key == line.key => {
                    self.duplicates += 1;
                    self.held = Some((key, held.merged(entry)));
                }
                held => {
                    self.held = Some((line.key, entry));
                    if let Some((_, done)) = held {
                        return Ok(Some(done));
                    }
                }
            }
        }
        Ok(self.held.take().map(|(_, entry)| entry))
    }

    fn next_line(&mut self) -> io::Result<Option<Line>> {
        let Some(mut head) = self.heads.peek_mut() else { return Ok(None) };
        let Reverse((line, number)) = &mut *head;
        let Some(piece) = self.pieces.get_mut(*number) else { return Ok(None) };
        match piece.next()? {
            Some(next) => Ok(Some(std::mem::replace(line, next))),
            None => Ok(Some(PeekMut::pop(head).0.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::suppress::Source;
    use crate::types::{Class, Domain, Mailbox, Timestamp};

    fn entry(n: u32, at: i64) -> Entry {
        let mailbox = Mailbox::parse(&format!("user{n}@x.example")).unwrap();
        let entry = Entry::new(&mailbox, Class::Other, "line\n\"two\"", Source::Import, Timestamp::from_secs(at));
        Entry { expires: Some(Timestamp::from_secs(at + 100)), hits: at as u64, ..entry }
    }

    fn sort(entries: &[Entry], piece_bytes: usize) -> (Vec<Entry>, u64) {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter { piece_bytes, pieces_max: 5, ..Sorter::new(folder.path()) };
        for entry in entries {
            sorter.push(entry).unwrap();
            assert!(sorter.pieces.len() < 5);
        }
        let mut sorted = sorter.sorted().unwrap();
        let mut all = Vec::new();
        while let Some(entry) = sorted.next_entry().unwrap() {
            all.push(entry);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
        (all, sorted.duplicates())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// In pieces of any size the outcome is that of one map in memory.
        #[test]
        fn every_address_comes_once_and_in_order(
            numbers in proptest::collection::vec((0u32..40, 1i64..1000), 0..120),
            piece_bytes in 1usize..20_000,
        ) {
            let entries: Vec<Entry> = numbers.iter().map(|(n, at)| entry(*n, *at)).collect();
            let mut expected = std::collections::BTreeMap::new();
            for entry in &entries {
                let merged = match expected.remove(&entry.recipient) {
                    Some(old) => Entry::merged(old, entry.clone()),
                    None => entry.clone(),
                };
                expected.insert(entry.recipient.clone(), merged);
            }
            let (all, duplicates) = sort(&entries, piece_bytes);
            prop_assert_eq!(all.len() as u64 + duplicates, entries.len() as u64);
            prop_assert_eq!(all, expected.into_values().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_holds_for_one_sender_stands_beside_what_holds_for_all() {
        let scoped = Entry { sender_domain: Domain::parse("a.example").ok(), ..entry(1, 5) };
        let (all, duplicates) = sort(&[scoped.clone(), entry(2, 1), entry(1, 7), scoped.clone()], 1);
        assert_eq!((all, duplicates), (vec![entry(1, 7), scoped, entry(2, 1)], 1));
    }
}
