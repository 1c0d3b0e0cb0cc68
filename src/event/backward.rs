//! The event log from its newest line backwards, a page at a time.
//!
//! For who wants the last events of some kind, and more of them only when asked: a page reads so many octets at most, and says
//! where the next one begins. A line's number is that anchor, so pages stay what they are while the log grows, is closed, or
//! loses its oldest files.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::choice::{Choice, Sieve};
use super::entry::{seq_of, time_of};
use super::folder::Closed;
use super::reader::{Files, LINE_MAX, RawLine, first_seq, near, raw, read_line};
use crate::types::Timestamp;

/// Read from the disk in one go.
const BLOCK: u64 = 256 << 10;
/// Events are written down in the order of their times, but for clocks that are set: so much before `since` nothing is looked for.
const DISORDER_SECS: i64 = 3600;

/// The newest lines, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub lines: Vec<RawLine>,
    /// Give this to see what is older. `None`: there is nothing older that is meant.
    pub before: Option<u64>,
}

/// How much a page may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub lines: usize,
    /// Read from the disk, about.
    pub octets: u64,
}

/// The newest lines that are meant, of those before the line with the number `before`, or of all. A page may be short, or empty, and
/// still not the last one.
pub fn page(folder: &Path, choice: &Choice, before: Option<u64>, limits: Limits) -> io::Result<Page> {
    let mut files = Files::of(folder)?;
    let earliest = choice.since.map(|since| Timestamp::from_secs(since.secs() - DISORDER_SECS).to_string());
    let mut search = Search { sieve: choice.sieve(), earliest, limits, page: Page::default(), read: 0 };
    for at in (0..files.len()).rev() {
        let is_too_old = |closed: &Closed| choice.since.is_some_and(|since| closed.at < since);
        if files.closed.get(at).is_some_and(is_too_old) {
            break;
        }
        let Some(mut file) = files.open(at)? else { continue };
        let end = match before {
            Some(before) => end_before(&mut file, before)?,
            None => file.metadata()?.len(),
        };
        if search.file(&mut file, end)? == Goes::Enough {
            return Ok(search.page);
        }
    }
    search.page.before = None;
    Ok(search.page)
}

#[derive(Clone, Copy, PartialEq)]
enum Goes {
    On,
    Enough,
}

struct Search<'a> {
    sieve: Sieve<'a>,
    /// As it stands in a line.
    earliest: Option<String>,
    limits: Limits,
    /// Its anchor is the last line that was looked at.
    page: Page,
    read: u64,
}

impl Search<'_> {
    /// Looks at the lines of a file that end before `end`, the last one first.
    fn file(&mut self, file: &mut File, mut end: u64) -> io::Result<Goes> {
        let mut block = Vec::new();
        let mut size = BLOCK;
        while end > 0 {
            let start = end.saturating_sub(size);
            file.seek(SeekFrom::Start(start))?;
            block.clear();
            Read::by_ref(file).take(end - start).read_to_end(&mut block)?;
            self.read += block.len() as u64;
            // What stands before the first line end may be a part of a line.
            let first = if start == 0 { Some(0) } else { memchr::memchr(b'\n', &block).map(|at| at + 1) };
            match first.filter(|first| *first < block.len() || start == 0) {
                Some(first) => {
                    if self.lines(&block[first..]) == Goes::Enough {
                        return Ok(Goes::Enough);
                    }
                    end = start + first as u64;
                    size = BLOCK;
                }
                // A line that is longer than the block; one that is longer than any is none.
                None if size <= LINE_MAX as u64 => size *= 2,
                None => end = start,
            }
        }
        Ok(Goes::On)
    }

    fn lines(&mut self, block: &[u8]) -> Goes {
        let whole = memchr::memrchr(b'\n', block).map_or(0, |at| at + 1);
        let mut rest = &block[..whole];
        while !rest.is_empty() {
            let start = memchr::memrchr(b'\n', &rest[..rest.len() - 1]).map_or(0, |at| at + 1);
            let line = &rest[start..];
            rest = &rest[..start];
            let Some(seq) = seq_of(line) else { continue };
            if self.is_too_early(line) {
                self.page.before = None;
                return Goes::Enough;
            }
            self.page.before = Some(seq);
            if self.sieve.take(line).is_some() {
                self.page.lines.extend(raw(line));
                if self.page.lines.len() >= self.limits.lines {
                    return Goes::Enough;
                }
            }
        }
        // Whoever reads on must come further.
        let is_enough = self.read >= self.limits.octets && self.page.before.is_some();
        if is_enough { Goes::Enough } else { Goes::On }
    }

    fn is_too_early(&self, line: &[u8]) -> bool {
        let time = time_of(line);
        self.earliest.as_deref().is_some_and(|earliest| time.is_some_and(|time| time < earliest.as_bytes()))
    }
}

/// Where the line with the number `before`, or the next one that is there, begins.
fn end_before(file: &mut File, before: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if first_seq(file)?.is_none_or(|first| first >= before) {
        return Ok(0);
    }
    let mut end = near(file, length, before.saturating_sub(1))?;
    file.seek(SeekFrom::Start(end))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        let length = read_line(&mut reader, &mut line)?;
        if length == 0 || seq_of(&line).is_some_and(|seq| seq >= before) {
            return Ok(end);
        }
        end += length;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::event::folder;
    use crate::types::EventKind;

    fn line(seq: u64, kind: EventKind) -> String {
        let time = Timestamp::from_secs(1_795_262_400 + i64::try_from(seq).unwrap());
        format!("{{\"time\":\"{time}\",\"seq\":{seq},\"event\":\"{kind}\",\"id\":null,\"text\":\"é\"}}\n")
    }

    fn lines(numbers: std::ops::RangeInclusive<u64>) -> String {
        let kind = |seq: u64| if seq.is_multiple_of(10) { EventKind::Alert } else { EventKind::Accepted };
        numbers.map(|seq| line(seq, kind(seq))).collect()
    }

    fn log(files: &[(&str, String)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    /// All pages one after the other, and how many they were.
    fn pages(folder: &Path, choice: &Choice, limits: Limits) -> (Vec<u64>, usize) {
        let (mut numbers, mut before, mut count) = (Vec::new(), None, 0);
        loop {
            let page = page(folder, choice, before, limits).unwrap();
            count += 1;
            assert!(page.lines.len() <= limits.lines);
            assert!(page.before.is_none_or(|next| before.is_none_or(|last| next < last)), "it comes further");
            numbers.extend(page.lines.iter().map(|line| line.seq));
            before = page.before;
            if before.is_none() {
                return (numbers, count);
            }
        }
    }

    fn limits(lines: usize) -> Limits {
        Limits { lines, octets: 1 << 30 }
    }

    #[test]
    fn the_newest_come_first_over_all_files_however_small_the_page() {
        let folder = log(&[
            ("events-20261120T000000Z.jsonl", lines(1..=4)),
            ("events-20261121T000000Z.jsonl", "nonsense\n".to_string() + &lines(5..=9) + "\n\n"),
            (folder::CURRENT, lines(10..=12) + "{\"torn"),
        ]);
        let expected: Vec<u64> = (1..=12).rev().collect();
        for lines in 1..14 {
            assert_eq!(pages(folder.path(), &Choice::default(), limits(lines)).0, expected, "{lines}");
        }
    }

    #[test]
    fn what_is_not_meant_is_passed_over_and_an_anchor_need_not_be_there_any_more() {
        let folder = log(&[("events-20261120T000000Z.jsonl", lines(1..=25)), (folder::CURRENT, lines(40..=55))]);
        let choice = Choice { kinds: vec![EventKind::Alert], ..Choice::default() };
        assert_eq!(pages(folder.path(), &choice, limits(2)).0, [50, 40, 20, 10]);
        let page = page(folder.path(), &choice, Some(30), limits(9)).unwrap();
        assert_eq!(page.lines.iter().map(|line| line.seq).collect::<Vec<_>>(), [20, 10]);
        assert_eq!(format!("{}\n", page.lines[0].text), line(20, EventKind::Alert));
    }

    #[test]
    fn a_page_reads_no_more_than_it_may_and_says_where_to_go_on() {
        let folder =
            log(&[("events-20261120T000000Z.jsonl", lines(1..=20_000)), (folder::CURRENT, lines(20_001..=30_000))]);
        let choice = Choice { kinds: vec![EventKind::Bounced], ..Choice::default() };
        let limits = Limits { lines: 10, octets: BLOCK };
        let first = page(folder.path(), &choice, None, limits).unwrap();
        assert!(first.lines.is_empty() && first.before.unwrap() > 25_000, "{first:?}");
        let (found, count) = pages(folder.path(), &choice, limits);
        assert!(found.is_empty() && count > 5, "{count}");
        let alerts = Choice { kinds: vec![EventKind::Alert], ..Choice::default() };
        let expected: Vec<u64> = (1..=3_000).rev().map(|n| n * 10).collect();
        assert_eq!(pages(folder.path(), &alerts, limits).0, expected);
    }

    #[test]
    fn what_is_older_than_asked_for_is_not_read() {
        let at = |seq: i64| Some(Timestamp::from_secs(1_795_262_400 + seq));
        let name = |seq| format!("events-{}.jsonl", at(seq).unwrap().compact());
        let folder = log(&[(&name(9_999), lines(1..=9_999)), (folder::CURRENT, lines(10_000..=30_000))]);
        let choice = Choice { since: at(29_995), until: at(29_998), ..Choice::default() };
        let page = page(folder.path(), &choice, None, limits(100)).unwrap();
        assert_eq!(page.lines.iter().map(|line| line.seq).collect::<Vec<_>>(), [29_997, 29_996, 29_995]);
        assert_eq!(page.before, None);
        // An hour earlier it stops, though more could be read.
        let stopped = Limits { lines: 100, octets: 1 };
        let late = super::page(folder.path(), &choice, Some(26_000), stopped).unwrap();
        assert_eq!((late.lines.len(), late.before), (0, None));
    }

    #[test]
    fn lines_longer_than_a_block_are_read_and_those_longer_than_any_passed_over() {
        let long = |seq, size: usize| line(seq, EventKind::Alert).replace('é', &"x".repeat(size));
        let text = lines(1..=2) + &long(3, 600 << 10) + &long(4, 3 << 20) + &lines(5..=6) + &"x".repeat(2 << 20);
        let folder = log(&[(folder::CURRENT, text)]);
        assert_eq!(pages(folder.path(), &Choice::default(), limits(3)).0, [6, 5, 3, 2, 1]);
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_pages() {
        let page = page(Path::new("/nowhere/events"), &Choice::default(), None, limits(3)).unwrap();
        assert_eq!(page, Page::default());
    }
}
