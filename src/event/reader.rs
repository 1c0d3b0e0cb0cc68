//! Every line of the event log from a cursor on, the oldest first, a batch at a time.
//!
//! The cursor is the `seq` of the last line that was taken; whoever keeps it goes on behind it, also after a restart. For a
//! thread that may block. Rules that always hold:
//!
//! - each line behind the cursor is handed out once, in order, whatever happens to the files meanwhile: the current one is
//!   closed, or moved away by somebody (it is read to its end first), old ones are deleted;
//! - lines that are not there any more are counted, and the oldest that is there comes next;
//! - what is no whole line yet is not read, what is no line of the log is passed over;
//! - the cursor never stands beyond the end of the log: after a power cut numbers are given again, and their lines are read.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::entry::{seq_of, time_of};
use super::folder::{self, identity};
use crate::types::Timestamp;

/// A longer line is none of the log's.
pub(super) const LINE_MAX: usize = 1 << 20;
/// A batch ends when it holds so much text, however few its lines are.
const BATCH_SIZE_MAX: usize = 1 << 20;
/// Read from the disk in one go.
const CHUNK: usize = 256 << 10;
/// The same where a line here and there is looked at.
const LOOK: usize = 4 << 10;
/// Lines are written in the order of their times, but for clocks that are set, and for what waited for its commit.
const DISORDER_MILLIS: i64 = 3_600_000;
/// A line is looked for by halving down to this, in octets.
const NEAR: u64 = 64 << 10;

/// A line as it stands in the log, without its line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawLine {
    pub seq: u64,
    pub text: String,
}

/// What was read in one go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Empty: that was the last one for now.
    pub lines: Vec<RawLine>,
    /// Lines between the cursor and these that are not there any more.
    pub missed: u64,
}

/// A reader of the log in a folder.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    after: u64,
    open: Option<Open>,
    /// When it was last looked for, there was no line in the whole log.
    was_empty: bool,
}

impl Reader {
    /// Reads what comes behind the line with the number `after_seq`. 0: from the oldest line on that is there, and none was missed.
    pub fn new(folder: &Path, after_seq: u64) -> Reader {
        Reader { folder: folder.to_path_buf(), after: after_seq, open: None, was_empty: false }
    }

    /// Reads what was written since then, and somewhat more: clocks may have been set.
    pub fn since(folder: &Path, since: Timestamp) -> io::Result<Reader> {
        let early = Timestamp::from_millis(since.millis().saturating_sub(DISORDER_MILLIS)).to_string();
        let is_early = |line: &[u8]| time_of(line).is_some_and(|time| time < early.as_bytes());
        let mut files = Files::of(folder)?;
        let mut after = 0;
        for at in (0..files.len()).rev() {
            let Some(mut file) = files.open(at)? else { continue };
            let length = file.metadata()?.len();
            let start = halve(&mut file, length, is_early)?;
            let Some((first, begins_early)) = first_behind(&mut file, start, is_early)? else { continue };
            after = first.saturating_sub(1);
            if start > 0 || begins_early {
                break;
            }
        }
        Ok(Reader::new(folder, after))
    }

    /// The number of the last line that was handed out.
    pub fn cursor(&self) -> u64 {
        self.after
    }

    /// The next lines, `lines_max` at most and some MiB. None: it is at the end for now, and looking again costs little.
    /// A folder that is not there has none. After an error nothing is lost: the next call goes on where this one began.
    pub fn next(&mut self, lines_max: usize) -> io::Result<Batch> {
        let mut batch = Batch::default();
        loop {
            if let Some(open) = &mut self.open {
                open.take(&mut self.after, lines_max, &mut batch)?;
                if !batch.lines.is_empty() || lines_max == 0 {
                    return Ok(batch);
                }
                if open.has_shrunk()? {
                    self.open = None;
                } else if !open.is_over {
                    if open.is_current(&self.folder) {
                        return Ok(batch);
                    }
                    // What was written just before it was closed.
                    open.is_over = true;
                    continue;
                }
            }
            if !self.go_on()? {
                return Ok(batch);
            }
        }
    }

    /// Opens the file with the next line. False: there is none yet.
    fn go_on(&mut self) -> io::Result<bool> {
        let mut files = Files::of(&self.folder)?;
        let at = match &self.open {
            Some(open) => match files.position(open.identity) {
                Some(at) => at + 1,
                // It was deleted, or moved away.
                None => files.holding(self.after)?,
            },
            None => {
                let Some(last) = files.last_seq()? else {
                    self.was_empty = true;
                    return Ok(false);
                };
                if last < self.after {
                    self.after = if self.was_empty { 0 } else { last };
                }
                files.holding(self.after)?
            }
        };
        self.was_empty = false;
        match files.open(at)? {
            Some(file) => {
                self.open = Some(Open::new(file, at < files.closed.len(), self.after)?);
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

/// The number of the last line of the log, for who wants only what comes from now on; 0: there is none.
pub fn last(folder: &Path) -> io::Result<u64> {
    Ok(Files::of(folder)?.last_seq()?.unwrap_or(0))
}

/// A file that is being read.
#[derive(Debug)]
struct Open {
    reader: BufReader<File>,
    identity: (u64, u64),
    /// Where the next line begins.
    offset: u64,
    /// The reader has come to the end and must be set back to `offset`.
    is_at_end: bool,
    /// Nothing is written to it any more.
    is_over: bool,
}

impl Open {
    fn new(mut file: File, is_over: bool, after: u64) -> io::Result<Open> {
        let metadata = file.metadata()?;
        let offset = near(&mut file, metadata.len(), after)?;
        let reader = BufReader::with_capacity(CHUNK, file);
        Ok(Open { reader, identity: identity(&metadata), offset, is_at_end: true, is_over })
    }

    /// Adds lines behind `after` to the batch.
    fn take(&mut self, after: &mut u64, lines_max: usize, batch: &mut Batch) -> io::Result<()> {
        if self.is_at_end {
            self.reader.seek(SeekFrom::Start(self.offset))?;
            self.is_at_end = false;
        }
        let mut size = 0;
        let mut line = Vec::new();
        while batch.lines.len() < lines_max && size < BATCH_SIZE_MAX {
            let length = match read_line(&mut self.reader, &mut line) {
                Ok(0) => {
                    self.is_at_end = true;
                    break;
                }
                Ok(length) => length,
                Err(error) => {
                    self.is_at_end = true;
                    // What was read is handed out first.
                    return if batch.lines.is_empty() { Err(error) } else { Ok(()) };
                }
            };
            self.offset += length;
            let Some(line) = raw(&line).filter(|line| line.seq > *after) else { continue };
            if *after > 0 {
                batch.missed += line.seq - *after - 1;
            }
            *after = line.seq;
            size += line.text.len();
            batch.lines.push(line);
        }
        Ok(())
    }

    /// Was something cut off that had been read?
    fn has_shrunk(&self) -> io::Result<bool> {
        Ok(self.reader.get_ref().metadata()?.len() < self.offset)
    }

    fn is_current(&self, folder: &Path) -> bool {
        fs::metadata(folder.join(folder::CURRENT)).is_ok_and(|metadata| identity(&metadata) == self.identity)
    }
}

/// The files of the log at one moment.
pub(super) struct Files {
    pub(super) closed: Vec<folder::Closed>,
    current: Option<File>,
}

impl Files {
    pub(super) fn of(folder: &Path) -> io::Result<Files> {
        let (closed, current) = folder::snapshot(folder)?;
        Ok(Files { closed, current })
    }

    pub(super) fn len(&self) -> usize {
        self.closed.len() + usize::from(self.current.is_some())
    }

    /// `None`: there is none, or it was deleted meanwhile.
    pub(super) fn open(&mut self, at: usize) -> io::Result<Option<File>> {
        match self.closed.get(at) {
            Some(closed) => match File::open(&closed.path) {
                Ok(file) => Ok(Some(file)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            None if at == self.closed.len() => self.current.as_ref().map(File::try_clone).transpose(),
            None => Ok(None),
        }
    }

    fn position(&self, wanted: (u64, u64)) -> Option<usize> {
        let current = || {
            let metadata = self.current.as_ref()?.metadata().ok()?;
            (identity(&metadata) == wanted).then_some(self.closed.len())
        };
        self.closed.iter().position(|closed| closed.identity == wanted).or_else(current)
    }

    /// The newest file that begins before the line behind `after` or with it; the oldest, if none does.
    fn holding(&mut self, after: u64) -> io::Result<usize> {
        for at in (0..self.len()).rev() {
            if let Some(mut file) = self.open(at)?
                && first_seq(&mut file)?.is_some_and(|first| first <= after.saturating_add(1))
            {
                return Ok(at);
            }
        }
        Ok(0)
    }

    /// The number of the last line of all.
    fn last_seq(&mut self) -> io::Result<Option<u64>> {
        for at in (0..self.len()).rev() {
            if let Some(file) = self.open(at)?
                && let Some(last) = last_seq(file)?
            {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }
}

/// The line of these octets, if they are one.
pub(super) fn raw(line: &[u8]) -> Option<RawLine> {
    let line = line.strip_suffix(b"\n")?;
    let seq = seq_of(line).filter(|_| line.ends_with(b"}"))?;
    Some(RawLine { seq, text: std::str::from_utf8(line).ok()?.to_string() })
}

/// Reads the next whole line with its end, and tells how long it is; 0: there is no whole line. Of one that is too long
/// nothing is kept.
pub(super) fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let mut length = 0;
    loop {
        let read = match reader.fill_buf() {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if read.is_empty() {
            line.clear();
            return Ok(0);
        }
        let end = memchr::memchr(b'\n', read);
        let taken = end.map_or(read.len(), |end| end + 1);
        length += taken;
        if length <= LINE_MAX {
            line.extend_from_slice(&read[..taken]);
        } else {
            line.clear();
        }
        reader.consume(taken);
        if end.is_some() {
            return Ok(length as u64);
        }
    }
}

/// A line's beginning at or before the first line behind `after`, and not far from it.
pub(super) fn near(file: &mut File, length: u64, after: u64) -> io::Result<u64> {
    halve(file, length, |line| seq_of(line).is_some_and(|seq| seq <= after))
}

/// A line's beginning at or before the first line that is not `early`, and not far from it; lines are early first and then not.
fn halve(file: &mut File, length: u64, early: impl Fn(&[u8]) -> bool) -> io::Result<u64> {
    let (mut low, mut high) = (0, length);
    while high - low > NEAR {
        let middle = low + (high - low) / 2;
        match numbered_behind(file, middle, high, &early)? {
            Some((start, true)) => low = start,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The first line of the log that begins behind `from` and before `to`: where, and whether it is early.
fn numbered_behind(
    file: &mut File,
    from: u64,
    to: u64,
    early: &impl Fn(&[u8]) -> bool,
) -> io::Result<Option<(u64, bool)>> {
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::with_capacity(LOOK, file);
    let mut line = Vec::new();
    let mut start = from + read_line(&mut reader, &mut line)?;
    while start > from && start < to {
        let length = read_line(&mut reader, &mut line)?;
        if seq_of(&line).is_some() {
            return Ok(Some((start, early(&line))));
        }
        if length == 0 {
            break;
        }
        start += length;
    }
    Ok(None)
}

pub(super) fn first_seq(file: &mut File) -> io::Result<Option<u64>> {
    Ok(first_behind(file, 0, |_| false)?.map(|(seq, _)| seq))
}

/// The first line from `start` on: its number, and whether it is early.
fn first_behind(file: &mut File, start: u64, early: impl Fn(&[u8]) -> bool) -> io::Result<Option<(u64, bool)>> {
    file.seek(SeekFrom::Start(start))?;
    let mut reader = BufReader::with_capacity(LOOK, file);
    let mut line = Vec::new();
    while read_line(&mut reader, &mut line)? > 0 {
        if let Some(seq) = seq_of(&line) {
            return Ok(Some((seq, early(&line))));
        }
    }
    Ok(None)
}

fn last_seq(mut file: File) -> io::Result<Option<u64>> {
    let length = file.metadata()?.len();
    let start = near(&mut file, length, u64::MAX)?;
    file.seek(SeekFrom::Start(start))?;
    let mut reader = BufReader::with_capacity(CHUNK, file);
    let (mut line, mut last) = (Vec::new(), None);
    while read_line(&mut reader, &mut line)? > 0 {
        last = seq_of(&line).or(last);
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(seq: u64) -> String {
        format!(
            "{{\"time\":\"2026-11-21T20:33:40.042Z\",\"seq\":{seq},\"event\":\"alert\",\"id\":null,\"text\":\"x\"}}\n"
        )
    }

    fn lines(numbers: impl IntoIterator<Item = u64>) -> String {
        numbers.into_iter().map(line).collect()
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Place {
            Place(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        fn add(&self, text: &str) {
            let path = self.path(folder::CURRENT);
            let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn close(&self, day: u32) {
            self.rename(&format!("events-202611{day:02}T000000Z.jsonl"));
        }

        fn rename(&self, name: &str) {
            fs::rename(self.path(folder::CURRENT), self.path(name)).unwrap();
        }

        fn reader(&self, after: u64) -> Reader {
            Reader::new(self.0.path(), after)
        }
    }

    /// Everything up to the end for now, in batches of three; and how much was missed.
    fn rest(reader: &mut Reader) -> (Vec<u64>, u64) {
        let (mut numbers, mut missed) = (Vec::new(), 0);
        loop {
            let batch = reader.next(3).unwrap();
            missed += batch.missed;
            if batch.lines.is_empty() {
                return (numbers, missed);
            }
            assert!(batch.lines.len() <= 3);
            assert!(batch.lines.iter().all(|raw| format!("{}\n", raw.text) == line(raw.seq)));
            numbers.extend(batch.lines.iter().map(|line| line.seq));
            assert_eq!(reader.cursor(), *numbers.last().unwrap());
        }
    }

    fn rest_from(mut reader: Reader) -> u64 {
        reader.next(1).unwrap().lines[0].seq
    }

    fn all(numbers: std::ops::RangeInclusive<u64>) -> (Vec<u64>, u64) {
        (numbers.collect(), 0)
    }

    #[test]
    fn every_cursor_goes_on_behind_itself_over_all_files() {
        let place = Place::new();
        place.write("events-20261120T000000Z.jsonl", &lines(1..=10));
        place.write("events-20261121T000000Z.jsonl", &lines(11..=20));
        place.add(&lines(21..=25));
        for after in 0..=25 {
            assert_eq!(rest(&mut place.reader(after)), all(after + 1..=25), "after {after}");
        }
    }

    #[test]
    fn a_line_far_inside_a_large_file_is_found_without_reading_it_all() {
        let place = Place::new();
        let text = "no line\n".to_string() + &lines(1..=30_000);
        place.write("events-20261120T000000Z.jsonl", &text);
        let mut file = File::open(place.path("events-20261120T000000Z.jsonl")).unwrap();
        for after in [0, 1, 2, 777, 14_999, 29_998, 29_999, 30_000, 40_000] {
            let start = usize::try_from(near(&mut file, text.len() as u64, after).unwrap()).unwrap();
            let wanted = text.find(&line(after + 1)).unwrap_or(text.len());
            assert!(start <= wanted && wanted - start <= NEAR as usize + 200, "after {after}: {start} for {wanted}");
            assert!(start == 0 || text.as_bytes()[start - 1] == b'\n');
        }
        assert_eq!(rest(&mut place.reader(29_990)), all(29_991..=30_000));
    }

    #[test]
    fn a_reader_follows_what_is_written_over_a_rotation() {
        let place = Place::new();
        place.add(&lines(1..=4));
        let mut reader = place.reader(0);
        assert_eq!(rest(&mut reader), all(1..=4));
        place.add(&lines(5..=6));
        place.close(21);
        assert_eq!(rest(&mut reader), all(5..=6), "written just before it was closed");
        assert_eq!(rest(&mut reader), (vec![], 0), "no current file for a moment");
        place.add(&lines(7..=8));
        place.close(22);
        place.add(&lines(9..=9));
        place.close(23);
        place.add("");
        assert_eq!(rest(&mut reader), all(7..=9));
        place.add(&lines(10..=10));
        assert_eq!(rest(&mut reader), all(10..=10));
    }

    #[test]
    fn what_was_deleted_is_counted_and_the_oldest_that_is_there_comes_next() {
        let place = Place::new();
        place.write("events-20261120T000000Z.jsonl", &lines(1..=10));
        place.write("events-20261121T000000Z.jsonl", &lines(11..=20));
        place.add(&lines(21..=22));
        let mut slow = place.reader(0);
        assert_eq!(slow.next(3).unwrap().lines.len(), 3);
        let mut late = place.reader(5);
        fs::remove_file(place.path("events-20261120T000000Z.jsonl")).unwrap();
        fs::remove_file(place.path("events-20261121T000000Z.jsonl")).unwrap();
        assert_eq!(rest(&mut slow), ([4, 5, 6, 7, 8, 9, 10, 21, 22].to_vec(), 10), "what is open is read to its end");
        assert_eq!(rest(&mut late), (vec![21, 22], 15));
        assert_eq!(rest(&mut place.reader(0)), (vec![21, 22], 0), "who had none has missed none");
    }

    #[test]
    fn a_torn_line_is_read_when_it_is_whole_and_never_in_part() {
        let place = Place::new();
        let (whole, torn) = (line(1), line(2));
        place.add(&whole);
        let mut reader = place.reader(0);
        let mut numbers = Vec::new();
        for at in 0..torn.len() {
            place.add(&torn[at..=at]);
            numbers.extend(rest(&mut reader).0);
            assert_eq!(numbers.len(), if at + 1 < torn.len() { 1 } else { 2 });
        }
        place.add(&line(3)[..20]);
        assert_eq!(rest(&mut reader), (vec![], 0));
        // A start cuts it off.
        let file = fs::OpenOptions::new().write(true).open(place.path(folder::CURRENT)).unwrap();
        file.set_len((whole.len() + torn.len()) as u64).unwrap();
        place.add(&line(3));
        assert_eq!(rest(&mut reader), all(3..=3));
    }

    #[test]
    fn a_file_that_somebody_moved_away_is_read_to_its_end() {
        let place = Place::new();
        place.write("events-20261120T000000Z.jsonl", &lines(1..=2));
        place.add(&lines(3..=4));
        let mut reader = place.reader(0);
        assert_eq!(rest(&mut reader), all(1..=4));
        place.add(&lines(5..=5));
        place.rename("saved");
        assert_eq!(rest(&mut reader), all(5..=5));
        assert_eq!(rest(&mut reader), (vec![], 0));
        place.add(&lines(6..=7));
        assert_eq!(rest(&mut reader), all(6..=7));
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        let place = Place::new();
        let long = line(3).replace("\"x\"", &format!("\"{}\"", "x".repeat(LINE_MAX)));
        place.add(&(line(1) + "\n\nnonsense\n" + &long));
        place.add("{\"time\":\"2026-11-21T20:33:40.042Z\",\"seq\":4,\"event\":\"al\n");
        fs::OpenOptions::new()
            .append(true)
            .open(place.path(folder::CURRENT))
            .unwrap()
            .write_all(b"{\"seq\":5,\"text\":\"\xff\"}\n")
            .unwrap();
        place.add(&line(6));
        assert_eq!(rest(&mut place.reader(0)), (vec![1, 6], 4));
    }

    #[test]
    fn a_cursor_beyond_the_end_goes_back_to_it() {
        // A power cut took the last lines, and their numbers are given again.
        let place = Place::new();
        place.add(&lines(1..=5));
        let mut reader = place.reader(9);
        assert_eq!(rest(&mut reader), (vec![], 0));
        place.add(&lines(6..=7));
        assert_eq!(rest(&mut reader), all(6..=7));
        // A batch that the disk had no room for was taken back.
        let file = fs::OpenOptions::new().write(true).open(place.path(folder::CURRENT)).unwrap();
        file.set_len(lines(1..=6).len() as u64).unwrap();
        assert_eq!(rest(&mut reader), (vec![], 0));
        place.add(&lines(7..=8));
        assert_eq!(rest(&mut reader), all(7..=8));
    }

    #[test]
    fn a_log_that_begins_anew_is_read_from_its_beginning() {
        let place = Place::new();
        let mut reader = place.reader(4711);
        assert_eq!(rest(&mut reader), (vec![], 0));
        place.add("");
        assert_eq!(rest(&mut reader), (vec![], 0));
        place.add(&lines(1..=2));
        assert_eq!(rest(&mut reader), all(1..=2));
    }

    #[test]
    fn reading_since_a_moment_begins_near_it() {
        let place = Place::new();
        let at = |seq: u64| Timestamp::from_secs(1_795_262_400 + 60 * i64::try_from(seq).unwrap());
        let timed = |numbers: std::ops::RangeInclusive<u64>| -> String {
            numbers.map(|seq| line(seq).replace("2026-11-21T20:33:40.042Z", &at(seq).to_string())).collect()
        };
        place.write("events-20261120T000000Z.jsonl", &timed(1..=3_000));
        place.write("events-20261121T000000Z.jsonl", &timed(3_001..=6_000));
        place.add(&timed(6_001..=9_000));
        for seq in [1, 2, 1_500, 2_999, 3_000, 3_001, 3_061, 5_000, 6_000, 6_100, 8_999, 9_000] {
            let first = rest_from(Reader::since(place.0.path(), at(seq)).unwrap());
            assert!(first <= seq && seq - first < 1_000 + NEAR / 90, "{seq}: {first}");
        }
        let small = Place::new();
        small.write("events-20261120T000000Z.jsonl", &timed(1..=99));
        small.write("events-20261121T000000Z.jsonl", &timed(100..=199));
        small.add(&timed(200..=299));
        assert_eq!(rest_from(Reader::since(small.0.path(), at(280)).unwrap()), 200, "the older files are not read");
        assert_eq!(rest_from(Reader::since(small.0.path(), at(220)).unwrap()), 100);
        assert_eq!(Reader::since(Path::new("/nowhere"), at(1)).unwrap().next(1).unwrap(), Batch::default());
        assert_eq!((last(place.0.path()).unwrap(), last(Path::new("/nowhere")).unwrap()), (9_000, 0));
    }

    #[test]
    fn a_batch_has_a_limit_in_octets() {
        let place = Place::new();
        let large = |seq| line(seq).replace("\"x\"", &format!("\"{}\"", "x".repeat(600 << 10)));
        place.add(&(large(1) + &large(2) + &large(3)));
        let mut reader = place.reader(0);
        assert_eq!(reader.next(100).unwrap().lines.len(), 2);
        assert_eq!(reader.next(100).unwrap().lines.len(), 1);
        assert_eq!(reader.next(0).unwrap(), Batch::default());
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_lines() {
        assert_eq!(Reader::new(Path::new("/nowhere/events"), 3).next(10).unwrap(), Batch::default());
    }
}
