//! The event log: what happened to mail, in files under `data_dir/events`, on standard output, or both.
//!
//! Rules that always hold:
//! - a batch of events is written whole, in one piece, or not at all, and a failure is the caller's to hear: an outcome
//!   is forgotten only when its line is written;
//! - `seq` rises by one from line to line, also over restarts and from file to file (on standard output alone it starts
//!   at 1 with every start, for nothing remembers it);
//! - what a crash left of a line is cut off before the next is written;
//! - a line is in a file that can be found: one that somebody moved away is begun anew;
//! - housekeeping (closing a file, deleting old ones) never fails a batch: it is logged and tried again.
//!
//! Written to the page cache, not synced: a killed process loses nothing, a power cut at most lines of the last seconds,
//! whose outcomes the spool then knows.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::append::{Appender, cut_torn_line};
use super::folder;
use super::line::Lines;
use super::options::{Events, Output};
use super::tail::Tail;
use super::told;
use crate::clock::Clock;
use crate::spool::Journal;
use crate::types::{Event, Timestamp};

/// A file is closed when it is this large, or the UTC day is over; small enough to send around, large enough to be few.
const FILE_SIZE_MAX: u64 = 64 << 20;
/// All together are at least so many files, so that deleting the oldest never takes most of the log.
const FILES_MIN: u64 = 8;
/// Longer than any line.
const LINE_MAX: u64 = 1 << 20;
/// After housekeeping failed it is not tried again for this long.
const HOUSEKEEPING_WAIT: Duration = Duration::from_secs(60);
/// Room for lines that is kept from batch to batch.
const BUFFER_KEPT: usize = 1 << 20;

pub struct EventLog {
    folder: PathBuf,
    options: Events,
    clock: Clock,
    /// The number of the last line.
    seq: u64,
    lines: Lines,
    buffer: Vec<u8>,
    /// None: not opened, or standard output alone.
    current: Option<Current>,
    /// None: files alone.
    stdout: Option<Stdout>,
    housekeeping_after: Timestamp,
}

struct Current {
    appender: Appender<File>,
    path: PathBuf,
    /// Device and number of the file, to notice that somebody moved it away.
    identity: (u64, u64),
    /// The UTC day, counted from 1970, of the first line.
    day: i64,
}

struct Stdout {
    writer: Box<dyn Write + Send>,
    /// It failed before, and that was logged.
    failed: bool,
}

impl EventLog {
    /// Opens the log in `folder`, which is made if need be.
    pub fn open(folder: &Path, options: &Events, clock: Clock) -> io::Result<EventLog> {
        EventLog::open_with(folder, options, clock, Box::new(io::stdout()))
    }

    /// The same with another standard output.
    pub fn open_with(
        folder: &Path,
        options: &Events,
        clock: Clock,
        stdout: Box<dyn Write + Send>,
    ) -> io::Result<EventLog> {
        let stdout = (options.output != Output::File).then_some(Stdout { writer: stdout, failed: false });
        let mut log = EventLog {
            folder: folder.to_path_buf(),
            options: options.clone(),
            clock,
            seq: 0,
            lines: Lines::default(),
            buffer: Vec::new(),
            current: None,
            stdout,
            housekeeping_after: Timestamp::EPOCH,
        };
        if log.writes_files() {
            fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
            log.seq = Tail::read(folder, LINE_MAX).map_err(|error| at(folder, &error))?.last_seq();
            log.current = Some(Current::open(folder, log.clock.now())?);
            log.delete_old();
        }
        Ok(log)
    }

    fn writes_files(&self) -> bool {
        self.options.output != Output::Stdout
    }

    /// A file is closed at this size.
    fn file_size_max(&self) -> u64 {
        FILE_SIZE_MAX.min(self.options.max_size.0 / FILES_MIN)
    }

    fn append(&mut self, now: Timestamp) -> io::Result<()> {
        if self.current.as_ref().is_some_and(|current| current.is_due(now, self.file_size_max())) {
            self.rotate(now);
        }
        if self.current.as_ref().is_none_or(Current::is_gone) {
            self.current = Some(Current::open(&self.folder, now)?);
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        if current.appender.length() == 0 {
            current.day = day(now);
        }
        current.appender.append(&self.buffer).map_err(|error| at(&self.folder, &error))
    }

    /// Closes the current file; the next batch opens a new one. Where that fails, lines go on into the old one.
    fn rotate(&mut self, now: Timestamp) {
        // A wait of longer than that was begun by a clock that was ahead.
        if now < self.housekeeping_after && self.housekeeping_after.since(now) <= HOUSEKEEPING_WAIT {
            return;
        }
        match folder::close_current(&self.folder, now) {
            Ok(()) => {
                self.current = None;
                self.delete_old();
            }
            // `is_gone` sees to it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.housekeeping_failed("close the current file", &error),
        }
    }

    fn delete_old(&mut self) {
        let length = self.current.as_ref().map_or(0, |current| current.appender.length());
        let (keep, size_max) = (self.options.keep.0, self.options.max_size.0);
        match folder::delete_old(&self.folder, self.clock.now(), keep, size_max, length) {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "old files of the event log deleted"),
            Err(error) => self.housekeeping_failed("delete old files", &error),
        }
    }

    fn housekeeping_failed(&mut self, what: &str, error: &io::Error) {
        self.housekeeping_after = self.clock.now() + HOUSEKEEPING_WAIT;
        tracing::warn!(%error, folder = %self.folder.display(), "event log: cannot {what}; trying again in a minute");
    }
}

impl Journal for EventLog {
    fn write(&mut self, events: &[Event]) -> io::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        self.buffer.clear();
        let mut seq = self.seq;
        for event in events {
            seq += 1;
            self.lines.add(&mut self.buffer, seq, event);
        }
        if self.writes_files() {
            self.append(self.clock.now())?;
        }
        if let Some(stdout) = &mut self.stdout {
            let written = stdout.write(&self.buffer);
            if self.options.output == Output::Stdout {
                written?;
            }
        }
        events.iter().for_each(told::tell);
        self.seq = seq;
        self.buffer.shrink_to(BUFFER_KEPT);
        Ok(())
    }
}

impl Current {
    /// Opens or makes the current file and cuts off what a crash left of its last line.
    fn open(folder: &Path, now: Timestamp) -> io::Result<Current> {
        Current::open_file(folder, now).map_err(|error| at(folder, &error))
    }

    fn open_file(folder: &Path, now: Timestamp) -> io::Result<Current> {
        let path = folder.join(folder::CURRENT);
        // Who writes to whom is nobody's business but the owner's.
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        let (length, cut) = cut_torn_line(&mut file)?;
        if cut > 0 {
            tracing::info!(octets = cut, file = %path.display(), "event log: the end of a cut-off line removed");
        }
        let day = day(first_time(&mut file)?.unwrap_or(now));
        let identity = folder::identity(&file.metadata()?);
        Ok(Current { appender: Appender::new(file, length), path, identity, day })
    }

    /// Was the file moved or deleted by somebody else? Lines written to it would be lost.
    fn is_gone(&self) -> bool {
        fs::metadata(&self.path).map_or(true, |metadata| folder::identity(&metadata) != self.identity)
    }

    fn is_due(&self, now: Timestamp, size_max: u64) -> bool {
        let length = self.appender.length();
        length > 0 && (length >= size_max || day(now) > self.day)
    }
}

impl Stdout {
    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        let written = self.writer.write_all(batch).and_then(|()| self.writer.flush());
        if let (Err(error), false) = (&written, self.failed) {
            tracing::warn!(%error, "event log: cannot write to standard output");
        }
        self.failed = written.is_err();
        written
    }
}

/// The error, and where it happened.
fn at(folder: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("event log in {}: {error}", folder.display()))
}

fn day(time: Timestamp) -> i64 {
    time.secs().div_euclid(86_400)
}

/// The time of the first line of the file.
fn first_time(file: &mut File) -> io::Result<Option<Timestamp>> {
    const START: &str = "{\"time\":\"";
    const TIME: usize = "2026-11-21T20:33:40.042Z".len();
    let mut line = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take((START.len() + TIME) as u64).read_to_end(&mut line)?;
    let time = std::str::from_utf8(&line).ok().and_then(|line| line.strip_prefix(START));
    Ok(time.and_then(Timestamp::parse_rfc3339))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::types::{ByteSize, EventKind, QueueId, Span};

    const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);

    struct Place {
        folder: tempfile::TempDir,
        options: Events,
    }

    impl Place {
        fn new() -> Place {
            Place { folder: tempfile::tempdir().unwrap(), options: Events::default() }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("events")
        }

        fn open(&self, clock: &Clock) -> EventLog {
            EventLog::open(&self.path(), &self.options, clock.clone()).unwrap()
        }

        fn current(&self) -> String {
            fs::read_to_string(self.path().join(folder::CURRENT)).unwrap_or_default()
        }

        fn seqs(&self) -> Vec<u64> {
            Tail::read(&self.path(), u64::MAX).unwrap().events.iter().map(|event| event.seq).collect()
        }

        fn closed(&self) -> Vec<String> {
            let name = |file: folder::Closed| file.path.file_name().unwrap().to_str().unwrap().to_string();
            folder::closed_files(&self.path()).unwrap().into_iter().map(name).collect()
        }
    }

    fn clock() -> Clock {
        Clock::starting_at(NOON)
    }

    fn event(recipient: &str) -> Event {
        let mut event = Event::new(NOON, EventKind::Delivered);
        event.id = QueueId::from_key(7);
        event.recipient = Some(recipient.to_string());
        event.reply = Some("250 ok".to_string());
        event
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_go_on_after_a_restart() {
        let place = Place::new();
        place.open(&clock()).write(&[event("a@x.example"), event("b@x.example")]).unwrap();
        let mut log = place.open(&clock());
        log.write(&[]).unwrap();
        log.write(&[event("c@x.example")]).unwrap();
        assert_eq!(place.seqs(), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_off_line_never_merges_with_the_next() {
        let whole = Place::new();
        whole.open(&clock()).write(&[event("a@x.example"), event("b@x.example")]).unwrap();
        let text = whole.current();
        for length in 0..=text.len() {
            let place = Place::new();
            fs::create_dir_all(place.path()).unwrap();
            fs::write(place.path().join(folder::CURRENT), &text[..length]).unwrap();
            place.open(&clock()).write(&[event("c@x.example")]).unwrap();
            let lines = text[..length].matches('\n').count() as u64;
            assert_eq!(place.seqs(), (1..=lines + 1).collect::<Vec<_>>(), "cut at {length}");
            assert_eq!(place.current().lines().count() as u64, lines + 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_closed_when_the_day_is_over() {
        let (place, clock) = (Place::new(), clock());
        let mut log = place.open(&clock);
        log.write(&[event("a@x.example")]).unwrap();
        clock.sleep_until(NOON + Duration::from_secs(12 * 3600 - 1)).await;
        log.write(&[event("b@x.example")]).unwrap();
        assert_eq!(place.closed(), [""; 0]);
        clock.sleep_until(NOON + Duration::from_secs(12 * 3600)).await;
        log.write(&[event("c@x.example")]).unwrap();
        assert_eq!(place.closed(), ["events-20261122T000000Z.jsonl"]);
        assert_eq!(place.current().lines().count(), 1);
        assert_eq!(place.seqs(), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_of_yesterday_is_closed_after_a_restart_too() {
        let place = Place::new();
        place.open(&clock()).write(&[event("a@x.example")]).unwrap();
        let mut log = place.open(&Clock::starting_at(NOON + Duration::from_secs(86_400)));
        log.write(&[event("b@x.example")]).unwrap();
        assert_eq!((place.closed().len(), place.seqs()), (1, vec![1, 2]));
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_go_on_when_the_current_file_is_new() {
        let place = Place::new();
        place.open(&clock()).write(&[event("a@x.example")]).unwrap();
        folder::close_current(&place.path(), NOON).unwrap();
        place.open(&clock()).write(&[event("b@x.example")]).unwrap();
        assert_eq!(place.seqs(), [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn large_files_are_closed_and_the_oldest_deleted() {
        let (mut place, clock) = (Place::new(), clock());
        place.options.max_size = ByteSize(16 << 10);
        let mut log = place.open(&clock);
        for _ in 0..200 {
            log.write(&[event("a@x.example")]).unwrap();
        }
        let files = folder::closed_files(&place.path()).unwrap();
        let size: u64 = files.iter().map(|file| file.size_bytes).sum();
        assert!((5..=8).contains(&files.len()) && size <= 16 << 10, "{} files, {size}", files.len());
        let seqs = place.seqs();
        assert_eq!(seqs.last(), Some(&200));
        assert!(seqs[0] > 1 && seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seqs:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn files_older_than_they_are_kept_are_deleted() {
        let (mut place, clock) = (Place::new(), clock());
        place.options.keep = Span(Duration::from_secs(86_400));
        let mut log = place.open(&clock);
        for day in 1..5 {
            log.write(&[event("a@x.example")]).unwrap();
            clock.sleep_until(NOON + Duration::from_secs(86_400 * day)).await;
        }
        log.write(&[event("a@x.example")]).unwrap();
        assert_eq!(place.closed(), ["events-20261124T120000Z.jsonl", "events-20261125T120000Z.jsonl"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_is_gone_is_an_error_and_gives_no_number_away() {
        let place = Place::new();
        let mut log = place.open(&clock());
        log.write(&[event("a@x.example")]).unwrap();
        let elsewhere = place.folder.path().join("elsewhere");
        fs::rename(place.path(), &elsewhere).unwrap();
        let error = log.write(&[event("b@x.example")]).unwrap_err();
        assert!(error.to_string().starts_with(&format!("event log in {}: ", place.path().display())), "{error}");
        fs::rename(&elsewhere, place.path()).unwrap();
        log.write(&[event("b@x.example")]).unwrap();
        assert_eq!(place.seqs(), [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_somebody_moved_away_is_begun_anew() {
        let place = Place::new();
        let mut log = place.open(&clock());
        log.write(&[event("a@x.example")]).unwrap();
        fs::rename(place.path().join(folder::CURRENT), place.path().join("taken")).unwrap();
        log.write(&[event("b@x.example")]).unwrap();
        log.write(&[event("c@x.example")]).unwrap();
        assert_eq!(place.seqs(), [2, 3]);
    }

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Shut;

    impl Write for Shut {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn both_outputs_get_the_same_lines() {
        let (mut place, memory) = (Place::new(), Memory::default());
        place.options.output = Output::Both;
        let stdout = Box::new(memory.clone());
        let mut log = EventLog::open_with(&place.path(), &place.options, clock(), stdout).unwrap();
        log.write(&[event("a@x.example"), event("b@x.example")]).unwrap();
        assert_eq!(place.current().into_bytes(), *memory.0.lock().unwrap());
        assert_eq!(place.seqs(), [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn standard_output_alone_makes_no_file_and_fails_where_it_fails() {
        let (mut place, memory) = (Place::new(), Memory::default());
        place.options.output = Output::Stdout;
        let stdout = Box::new(memory.clone());
        EventLog::open_with(&place.path(), &place.options, clock(), stdout).unwrap().write(&[event("a@x")]).unwrap();
        assert!(memory.0.lock().unwrap().ends_with(b"}\n") && !place.path().exists());
        let mut log = EventLog::open_with(&place.path(), &place.options, clock(), Box::new(Shut)).unwrap();
        log.write(&[event("a@x")]).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_shut_standard_output_stops_no_file() {
        let mut place = Place::new();
        place.options.output = Output::Both;
        let mut log = EventLog::open_with(&place.path(), &place.options, clock(), Box::new(Shut)).unwrap();
        log.write(&[event("a@x.example")]).unwrap();
        assert_eq!(place.seqs(), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_tail_tells_the_last_events_and_no_part_of_one() {
        let place = Place::new();
        assert_eq!(Tail::read(&place.path(), 1000).unwrap().events, []);
        let mut log = place.open(&clock());
        log.write(&[event("a@x.example"), event("b@x.example"), event("c@x.example")]).unwrap();
        let text = place.current();
        let line = text.len() / 3;
        let recipients = |size: usize| -> String {
            let tail = Tail::read(&place.path(), size as u64).unwrap();
            tail.events.iter().filter_map(|event| event.recipient.as_deref()?.get(..1).map(str::to_string)).collect()
        };
        for (size, expected) in
            [(0, ""), (line - 1, ""), (line, "c"), (2 * line - 1, "c"), (2 * line, "bc"), (9999, "abc")]
        {
            assert_eq!(recipients(size), expected, "{size}");
        }
        let last = Tail::read(&place.path(), line as u64).unwrap().events.remove(0);
        assert_eq!(
            (last.kind, last.id, last.reply.as_deref()),
            (EventKind::Delivered, QueueId::from_key(7), Some("250 ok"))
        );
        fs::write(place.path().join(folder::CURRENT), format!("{text}no JSON\n{}", &text[..20])).unwrap();
        assert_eq!(recipients(9999), "abc");
    }
}
