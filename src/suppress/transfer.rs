//! The suppression list as a file: CSV (RFC 4180) with a line of names, or one JSON object a line.
//!
//! Rules that always hold:
//! - what was exported can be imported and is the same list;
//! - memory is bounded: lines of a bounded length, a bounded number of entries at a time;
//! - a line that cannot be read is reported with its number and what to do, and left out; the others are taken;
//! - a plain list of addresses, one a line, is a CSV file too.

use std::io::{BufRead, Read, Write};

use super::{Entry, Filter, List, ListError, Source, store};
use crate::types::{Class, Mailbox, Timestamp};

/// Longer than any entry: an address and a reply of 1,000 characters, all escaped.
const LINE_MAX: u64 = 16 * 1024;
/// Faults that are told one by one; the rest is only counted.
const FAULTS_MAX: usize = 1000;
/// Entries handed to the writer at once: some ten milliseconds.
const CHUNK: usize = 500;
const COLUMNS: [&str; 8] = ["recipient", "class", "reply", "source", "first", "last", "hits", "expires"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Csv,
    /// One JSON object a line, with the keys of `suppress list --json`.
    JsonLines,
}

/// A line that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// Counted from 1.
    pub line: u64,
    /// What is wrong and what to do.
    pub text: String,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub added: u64,
    pub left_out: u64,
    /// The first 1,000 lines that were left out.
    pub faults: Vec<LineFault>,
}

impl List {
    /// Takes a file, line by line. `progress` hears how many entries are durable, every few hundred. What stands
    /// without times came at `now`. Errors are of the reader or the disk; what was taken before stays.
    pub async fn import(
        &self,
        format: Format,
        mut from: impl BufRead + Send,
        now: Timestamp,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<Imported, ListError> {
        let mut lines = Lines { format, columns: None, number: 0, now };
        let (mut done, mut chunk) = (Imported::default(), Vec::new());
        loop {
            let record =
                lines.next(&mut from).map_err(|error| ListError(format!("the file cannot be read: {error}")))?;
            let is_last = record.is_none();
            match record {
                Some(Ok(Some(entry))) => chunk.push(store::Operation::Add(entry)),
                Some(Err(text)) => done.leave_out(lines.number, text),
                Some(Ok(None)) | None => {}
            }
            if chunk.len() >= CHUNK || (is_last && !chunk.is_empty()) {
                let added = chunk.len() as u64;
                self.write(std::mem::take(&mut chunk)).await?;
                done.added += added;
                progress(done.added);
            }
            if is_last {
                return Ok(done);
            }
        }
    }

    /// Writes all entries that pass the filter; returns how many.
    pub fn export(&self, format: Format, filter: &Filter, to: &mut impl Write) -> Result<u64, ListError> {
        let fault = |error: std::io::Error| ListError(format!("the file cannot be written: {error}"));
        if format == Format::Csv {
            writeln!(to, "{}", COLUMNS.join(",")).map_err(fault)?;
        }
        let (mut count, mut after) = (0, None::<String>);
        loop {
            let page = self.list(filter, after.as_deref(), CHUNK)?;
            for entry in &page.entries {
                let line = match format {
                    Format::Csv => csv_line(entry),
                    Format::JsonLines => serde_json::to_string(entry).map_err(|error| ListError(error.to_string()))?,
                };
                writeln!(to, "{line}").map_err(fault)?;
                count += 1;
            }
            after = page.next;
            if after.is_none() {
                to.flush().map_err(fault)?;
                return Ok(count);
            }
        }
    }
}

impl Imported {
    fn leave_out(&mut self, line: u64, text: String) {
        self.left_out += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(LineFault { line, text });
        }
    }
}

/// A file that is read record by record.
struct Lines {
    format: Format,
    /// The names of the first line, once it was seen.
    columns: Option<Vec<String>>,
    number: u64,
    now: Timestamp,
}

impl Lines {
    /// The next line: an entry, nothing (blank, comment, names), or what is wrong with it. None at the end.
    fn next(&mut self, from: &mut impl BufRead) -> std::io::Result<Option<Result<Option<Entry>, String>>> {
        let mut line = Vec::new();
        if from.take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if !line.ends_with(b"\n") && line.len() as u64 >= LINE_MAX {
            skip_line(from)?;
            return Ok(Some(Err(format!("longer than {LINE_MAX} octets: is this a list of addresses?"))));
        }
        // Spreadsheets put a byte order mark before the first name.
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&line);
        let Ok(text) = std::str::from_utf8(line) else {
            return Ok(Some(Err("not UTF-8: save the file as UTF-8".to_string())));
        };
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            return Ok(Some(Ok(None)));
        }
        Ok(Some(match self.format {
            Format::Csv => self.csv(text),
            Format::JsonLines => self.json(text).map(Some),
        }))
    }

    fn csv(&mut self, text: &str) -> Result<Option<Entry>, String> {
        let fields = csv_fields(text).ok_or("a quote does not end on this line: write a quote inside quotes twice")?;
        if self.columns.is_none() {
            let names: Vec<String> = fields.iter().map(|field| field.trim().to_lowercase()).collect();
            let has_names = names.iter().any(|name| ["recipient", "email", "address"].contains(&name.as_str()));
            let plain = || COLUMNS.iter().map(ToString::to_string).collect();
            self.columns = Some(if has_names { names } else { plain() });
            if has_names {
                return Ok(None);
            }
        }
        let columns = self.columns.as_deref().unwrap_or_default();
        let field = |wanted: &[&str]| {
            let at = columns.iter().position(|name| wanted.contains(&name.as_str()))?;
            fields.get(at).map(|field| field.trim().to_string()).filter(|field| !field.is_empty())
        };
        let value = |name: &str, text: Option<String>| text.map(|text| (name.to_string(), text));
        let mut values = Vec::new();
        values.extend(value("recipient", field(&["recipient", "email", "address"])));
        for name in COLUMNS[1..].iter().filter(|name| **name != "reply") {
            values.extend(value(name, field(&[name])));
        }
        let reply = columns.iter().position(|name| name == "reply").and_then(|at| fields.get(at));
        values.extend(value("reply", reply.map(|text| unescaped(text))));
        self.entry(&values).map(Some)
    }

    fn json(&self, text: &str) -> Result<Entry, String> {
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|error| format!("not a JSON object on one line: {error}"))?;
        let values: Vec<(String, String)> = object
            .into_iter()
            .filter_map(|(name, value)| match value {
                serde_json::Value::Null => None,
                serde_json::Value::String(text) => Some((name, text)),
                other => Some((name, other.to_string())),
            })
            .collect();
        self.entry(&values)
    }

    fn entry(&self, values: &[(String, String)]) -> Result<Entry, String> {
        let value = |name: &str| values.iter().find(|(key, _)| key == name).map(|(_, text)| text.as_str());
        let address = value("recipient").ok_or("there is no recipient: write the address in the column `recipient`")?;
        let mailbox = Mailbox::parse(address).map_err(|error| format!("`{address}` is no mail address: {error}"))?;
        let class: Class =
            value("class").map_or(Ok(Class::Other), |word| word.parse().map_err(|e| format!("class: {e}")))?;
        let source =
            value("source").map_or(Ok(Source::Import), |word| word.parse().map_err(|e| format!("source: {e}")))?;
        let time = |name: &str| -> Result<Option<Timestamp>, String> {
            let Some(text) = value(name) else { return Ok(None) };
            let wrong = || format!("{name}: `{text}` is no time: write it as 2026-11-21T20:33:40Z");
            Timestamp::parse_rfc3339(text).map(Some).ok_or_else(wrong)
        };
        let first = time("first")?.unwrap_or(self.now);
        let hits = value("hits")
            .map_or(Ok(1), |text| text.parse().map_err(|_| format!("hits: `{text}` is no whole number")))?;
        let entry = Entry::new(&mailbox, class, value("reply").unwrap_or(""), source, first);
        Ok(Entry { last: time("last")?.unwrap_or(first), hits, expires: time("expires")?, ..entry })
    }
}

fn skip_line(from: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let mut piece = Vec::new();
        let read = from.take(LINE_MAX).read_until(b'\n', &mut piece)?;
        if read == 0 || piece.ends_with(b"\n") {
            return Ok(());
        }
    }
}

fn csv_line(entry: &Entry) -> String {
    let time = |moment: Timestamp| moment.to_string();
    let fields = [
        entry.recipient.clone(),
        entry.class.to_string(),
        escaped(&entry.reply),
        entry.source.to_string(),
        time(entry.first),
        time(entry.last),
        entry.hits.to_string(),
        entry.expires.map(time).unwrap_or_default(),
    ];
    fields.map(|field| csv_field(&field)).join(",")
}

/// A record is one line: line ends inside a reply are written as `\n`.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescaped(text: &str) -> String {
    let (mut out, mut characters) = (String::with_capacity(text.len()), text.chars());
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

fn csv_field(text: &str) -> String {
    if text.contains(['"', ',']) || text.starts_with('#') || text.trim() != text {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_string()
    }
}

/// The fields of one line (RFC 4180 section 2); none if a quote does not end.
fn csv_fields(line: &str) -> Option<Vec<String>> {
    let (mut fields, mut field, mut in_quotes) = (Vec::new(), String::new(), false);
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if in_quotes && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if in_quotes || field.is_empty() => in_quotes = !in_quotes,
            ',' if !in_quotes => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    (!in_quotes).then_some(fields)
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::clock::Clock;

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn open(folder: &std::path::Path) -> List {
        let (list, writer) = List::open(&folder.join("suppression.sqlite"), Clock::starting_at(NOW)).unwrap();
        TaskTracker::new().spawn(writer.run(CancellationToken::new()));
        list
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_exported_comes_back_the_same() {
        for format in [Format::Csv, Format::JsonLines] {
            let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let (from, to) = (open(folders[0].path()), open(folders[1].path()));
            for (address, reply) in [
                ("plain@example.com", "550 5.1.1 no such user"),
                ("\"a,b\\\"c\"@example.com", "550-5.1.1 two \"lines\",\n550 and C:\\new"),
                ("ü@bücher.example", " blanks around "),
            ] {
                let mailbox = Mailbox::parse(address).unwrap();
                from.note_refusal(&mailbox, Class::RecipientUnknown, reply, NOW).await.unwrap();
            }
            let mut file = Vec::new();
            assert_eq!(from.export(format, &Filter::default(), &mut file).unwrap(), 3);
            let done = to.import(format, &file[..], NOW, |_| {}).await.unwrap();
            assert_eq!((done.added, done.left_out, &done.faults[..]), (3, 0, &[][..]));
            let all = |list: &List| list.list(&Filter::default(), None, 10).unwrap().entries;
            assert_eq!(all(&from), all(&to), "{format:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bad_lines_are_named_and_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let list = open(folder.path());
        let mut file = b"\xEF\xBB\xBFEmail,class,expires\r\n\
            a@example.com,recipient-unknown,2027-01-01T00:00:00Z\r\n\
            no-at-sign\r\n\
            # a comment\r\n\
            b@example.com,nonsense\r\n\
            c@example.com,,tomorrow\r\n\
            \"d@example.com\r\n\
            \xFF@example.com\r\n"
            .to_vec();
        file.extend(vec![b'x'; 40_000]);
        file.extend(b"\ne@example.com\n");
        let done = list.import(Format::Csv, &file[..], NOW, |_| {}).await.unwrap();
        assert_eq!((done.added, done.left_out), (2, 6));
        let told: Vec<(u64, &str)> = done.faults.iter().map(|fault| (fault.line, fault.text.as_str())).collect();
        for ((line, text), (expected, part)) in told.iter().zip([
            (3, "no mail address"),
            (5, "nonsense"),
            (6, "no time"),
            (7, "quote"),
            (8, "UTF-8"),
            (9, "longer"),
        ]) {
            assert!(*line == expected && text.contains(part), "{line}: {text}");
        }
        let found = list.check(&Mailbox::parse("A@example.com").unwrap()).unwrap().unwrap();
        assert_eq!((found.class, found.source), (Class::RecipientUnknown, Source::Import));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_import_reports_its_progress_and_lets_other_writes_through() {
        let folder = tempfile::tempdir().unwrap();
        let list = open(folder.path());
        let file: String = (0..100_000).map(|n| format!("user{n}@example{}.com\n", n % 100)).collect();
        let user = Mailbox::parse("between@example.com").unwrap();
        let (mut steps, mut between) = (0, None);
        let import = list.import(Format::Csv, file.as_bytes(), NOW, |done| steps = done);
        let other = async {
            between = Some(list.note_refusal(&user, Class::RecipientUnknown, "550 no", NOW).await.unwrap());
            list.count().unwrap()
        };
        let (done, seen) = tokio::join!(import, other);
        assert_eq!((done.unwrap().added, steps), (100_000, 100_000));
        assert!(seen < 10_000, "the other write waited for {seen} entries");
        assert_eq!(list.count().unwrap(), 100_001);
        let last = Mailbox::parse("user99999@EXAMPLE99.com").unwrap();
        assert!(list.check(&last).unwrap().is_some());
    }
}
