//! `weir suppress`: the list of recipients who are not written to any more.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::config::Config;
use super::output::{self, Output};
use super::table::{Column, Pages};
use super::{Format, human, offline, relay, table};
use crate::admin::{AddressPattern, Filter, ImportEntry, Imported, Removed, Request, SuppressRecord};
use crate::clock::Clock;
use crate::types::{Class, Domain, Mailbox, Span, Timestamp};

#[derive(Debug, Subcommand)]
pub(super) enum Suppress {
    /// List the entries; also without a running relay
    List(List),
    /// Print the entry of one address, or that there is none; also without a running relay
    Check(Check),
    /// Put an address onto the list
    Add(Add),
    /// Take addresses off the list
    Remove(Remove),
    /// Read a list: an address a line, `address,reason`, or what `export` wrote
    Import(Import),
    /// Write the whole list, one JSON object a line; also without a running relay
    Export(Export),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Entries of this domain
    #[arg(long, value_name = "DOMAIN", value_parser = Domain::parse)]
    domain: Option<Domain>,
    /// One address, or @domain
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<AddressPattern>,
    /// At most so many
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    #[arg(value_name = "ADDRESS", value_parser = Mailbox::parse)]
    recipient: Mailbox,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    #[arg(value_name = "ADDRESS", value_parser = Mailbox::parse)]
    recipient: Mailbox,
    /// Why, in your words: senders read it in the refusal
    #[arg(long, value_name = "TEXT", default_value = "put on the list by the operator")]
    reason: String,
    /// As what it is kept, e.g. recipient-unknown
    #[arg(long)]
    class: Option<Class>,
    /// When it ends: a duration from now (90d) or a time (2027-01-31T00:00:00Z). Default: when it is removed
    #[arg(long, value_name = "WHEN")]
    expires: Option<When>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    #[arg(value_name = "ADDRESS", required = true, value_parser = Mailbox::parse)]
    recipients: Vec<Mailbox>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// Default, or -: standard input
    file: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Taken for the sake of habit: an export is always JSON
    #[command(flatten)]
    _format: Format,
}

/// A time, said as such or from now.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    In(Span),
    At(Timestamp),
}

impl std::str::FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        if let Ok(span) = text.parse() {
            return Ok(When::In(span));
        }
        Timestamp::parse_rfc3339(text)
            .map(When::At)
            .ok_or_else(|| "expected a duration (90d) or a time (2027-01-31T00:00:00Z)".to_string())
    }
}

pub(super) async fn suppress(command: Suppress, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        Suppress::List(command) => list(command, config, output).await?,
        Suppress::Check(command) => check(command, config, output).await?,
        Suppress::Add(command) => add(command, config, output).await?,
        Suppress::Remove(command) => remove(command, config, output).await?,
        Suppress::Import(command) => return import(command, config, output).await,
        Suppress::Export(_) => each(config, Filter::default(), &mut |record| output.json(&record)).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Every entry that `filter` chooses, from the relay or, where none runs, from the data folder.
async fn each(config: &Config, filter: Filter, print: offline::Each<'_, SuppressRecord>) -> anyhow::Result<()> {
    let Some(mut client) = relay::connect_if_running(config).await? else {
        return offline::suppressed(&config.data_dir, &filter, print).await;
    };
    let mut records = client.ask(&Request::SuppressList { filter }).await?;
    while let Some(record) = records.next().await? {
        print(record)?;
    }
    Ok(())
}

const COLUMNS: [Column; 7] = [
    Column::Left("RECIPIENT"),
    Column::Left("CLASS"),
    Column::Right("HITS"),
    Column::Left("LAST"),
    Column::Left("EXPIRES"),
    Column::Left("SOURCE"),
    Column::Left("REPLY"),
];

async fn list(command: List, config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let List { domain, recipient, limit, format } = command;
    let filter = Filter { domain, recipient, limit, ..Filter::default() };
    if format.json {
        return each(config, filter, &mut |record| output.json(&record)).await;
    }
    let now = Clock::system().now();
    let mut pages = Pages::new(&COLUMNS);
    each(config, filter, &mut |record| pages.row(row(&record, now), output)).await?;
    pages.finish("no address is suppressed, or none matches", output)
}

fn row(record: &SuppressRecord, now: Timestamp) -> Vec<String> {
    vec![
        record.recipient.clone(),
        record.class.map(|class| class.to_string()).unwrap_or_default(),
        human::number(record.hits),
        record.last.map(|last| human::relative(last, now)).unwrap_or_default(),
        record.expires.map_or_else(|| "when removed".to_string(), |expires| human::relative(expires, now)),
        record.source.clone(),
        record.reply.clone().unwrap_or_default(),
    ]
}

/// The entry of `suppress check --json`, or the fact that there is none.
#[derive(serde::Serialize)]
struct Checked<'a> {
    recipient: &'a str,
    suppressed: bool,
    #[serde(flatten)]
    entry: Option<Entry<'a>>,
}

#[derive(serde::Serialize)]
struct Entry<'a> {
    class: Option<Class>,
    reply: Option<&'a str>,
    source: &'a str,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    hits: u64,
    expires: Option<Timestamp>,
}

impl<'a> Checked<'a> {
    fn of(recipient: &'a Mailbox, record: Option<&'a SuppressRecord>) -> Checked<'a> {
        let entry = record.map(|record| Entry {
            class: record.class,
            reply: record.reply.as_deref(),
            source: &record.source,
            first: record.first,
            last: record.last,
            hits: record.hits,
            expires: record.expires,
        });
        let recipient = record.map_or(recipient.as_str(), |record| &record.recipient);
        Checked { recipient, suppressed: record.is_some(), entry }
    }
}

async fn check(command: Check, config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let recipient = command.recipient;
    let record = match relay::connect_if_running(config).await? {
        Some(mut client) => {
            let request = Request::SuppressCheck { recipient: recipient.clone() };
            client.all(&request).await?.into_iter().next()
        }
        None => offline::suppression_of(&config.data_dir, &recipient).await?,
    };
    if command.format.json {
        return output.json(&Checked::of(&recipient, record.as_ref()));
    }
    match record {
        Some(record) => output.raw(&describe(&record, Clock::system().now())),
        None => output.line(&format!("{} is not suppressed", recipient.as_str())),
    }
}

fn describe(record: &SuppressRecord, now: Timestamp) -> String {
    let moment = |at: Option<Timestamp>| at.map(|at| format!("{} ({})", human::date(at), human::relative(at, now)));
    table::facts(&[
        ("recipient", record.recipient.clone()),
        ("class", record.class.map(|class| class.to_string()).unwrap_or_default()),
        ("reply", record.reply.clone().unwrap_or_default()),
        ("source", record.source.clone()),
        ("first", moment(record.first).unwrap_or_default()),
        ("last", moment(record.last).unwrap_or_default()),
        ("hits", human::number(record.hits)),
        ("expires", moment(record.expires).unwrap_or_else(|| "when it is removed".to_string())),
    ])
}

async fn add(command: Add, config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let now = Clock::system().now();
    let expires = command.expires.map(|when| match when {
        When::In(span) => now + span.0,
        When::At(moment) => moment,
    });
    let Add { recipient, reason, class, format, .. } = command;
    let request = Request::SuppressAdd { recipient, class, reason, expires };
    let records: Vec<SuppressRecord> = relay::connect(config).await?.all(&request).await?;
    let Some(record) = records.first() else { bail!("the relay did not confirm the entry: see its log") };
    if format.json { output.json(record) } else { output.raw(&describe(record, now)) }
}

async fn remove(command: Remove, config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let mut client = relay::connect(config).await?;
    // Addresses by the hundred, so that a list of any length fits into its requests.
    for recipients in command.recipients.chunks(100) {
        let request = Request::SuppressRemove { recipients: recipients.to_vec() };
        let mut records = client.ask(&request).await?;
        while let Some(record) = records.next::<Removed>().await? {
            if command.format.json {
                output.json(&record)?;
                continue;
            }
            let words = if record.removed { "is off the list" } else { "was not on the list" };
            output.line(&format!("{} {words}", record.recipient.as_str()))?;
        }
    }
    Ok(())
}

/// Lines of an import that are no entries and named one by one; the rest is counted.
const FAULTS_NAMED: u64 = 20;
/// A line of an import: an address, a long reply, room for more.
const LINE_MAX: u64 = 64 << 10;

async fn import(command: Import, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let client = relay::connect(config).await?;
    let file = command.file.filter(|file| file != Path::new("-"));
    let reader: Box<dyn BufRead> = match &file {
        Some(file) => {
            Box::new(BufReader::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?))
        }
        None => Box::new(BufReader::new(io::stdin())),
    };
    let mut lines = ImportLines::new(reader);
    let answer: Vec<Imported> = client.import(&mut lines).await?;
    let imported = answer.into_iter().next().unwrap_or_default();
    if command.format.json {
        output.json(&imported)?;
    } else {
        output.line(&format!(
            "{} added, {} updated",
            human::number(imported.added),
            human::number(imported.updated)
        ))?;
    }
    lines.verdict()
}

/// Reads entries line by line. What is no entry is named on standard error and passed over.
///
/// Reading blocks: nothing else happens meanwhile in a command that does nothing but import.
struct ImportLines<R> {
    reader: R,
    line: u64,
    faults: u64,
    broken: Option<io::Error>,
}

impl<R: BufRead> ImportLines<R> {
    fn new(reader: R) -> ImportLines<R> {
        ImportLines { reader, line: 0, faults: 0, broken: None }
    }

    /// One line without its end; `None` at the end of the input.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        (&mut self.reader).take(LINE_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        if line.last() != Some(&b'\n') && line.len() as u64 == LINE_MAX {
            // The rest of a line beyond the limit belongs to no other entry.
            self.reader.skip_until(b'\n')?;
        }
        Ok(Some(line))
    }

    fn fault(&mut self, text: &str) {
        self.faults += 1;
        if self.faults <= FAULTS_NAMED {
            output::say(&format!("line {}: {text}", self.line));
        }
    }

    /// Did everything go in?
    fn verdict(self) -> anyhow::Result<ExitCode> {
        if let Some(error) = self.broken {
            return Err(anyhow::Error::new(error).context(format!("the input broke off after line {}", self.line)));
        }
        if self.faults > 0 {
            bail!(
                "{} held no entry and were passed over: correct them and import them again",
                human::count(self.faults, "line")
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl<R: BufRead> Iterator for ImportLines<R> {
    type Item = ImportEntry;

    fn next(&mut self) -> Option<ImportEntry> {
        loop {
            let line = match self.read() {
                Ok(line) => line?,
                Err(error) => {
                    self.broken = Some(error);
                    return None;
                }
            };
            match entry(&line) {
                Ok(Some(entry)) => return Some(entry),
                Ok(None) => {}
                Err(text) => self.fault(&text),
            }
        }
    }
}

/// What a line says; `None` for an empty line or a comment.
fn entry(line: &[u8]) -> Result<Option<ImportEntry>, String> {
    let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8".to_string())?.trim();
    let text = text.trim_start_matches('\u{feff}');
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    if text.starts_with('{') {
        return serde_json::from_str(text).map(Some).map_err(|error| format!("is no entry: {error}"));
    }
    let (address, reason) = text.split_once(',').unwrap_or((text, ""));
    let recipient = Mailbox::parse(address.trim())
        .map_err(|error| format!("`{}` is no mail address: {error}", human::short(address.trim(), 60)))?;
    let reply = Some(reason.trim().to_string()).filter(|reason| !reason.is_empty());
    Ok(Some(ImportEntry {
        recipient,
        class: None,
        reply,
        source: None,
        first: None,
        last: None,
        hits: None,
        expires: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::record::tests::suppressed;

    #[test]
    fn an_export_is_what_import_reads() {
        let line = serde_json::to_vec(&suppressed()).unwrap();
        let entry = entry(&line).unwrap().unwrap();
        assert_eq!(entry.recipient.as_str(), "gone@outlook.com");
        assert_eq!((entry.class, entry.hits, entry.first), (suppressed().class, Some(2), suppressed().first));
    }

    #[test]
    fn lists_of_other_programs_are_read() {
        for (line, address, reply) in [
            ("a@outlook.com\r\n", "a@outlook.com", None),
            ("  a@outlook.com , user unknown \n", "a@outlook.com", Some("user unknown")),
            ("\u{feff}a@outlook.com", "a@outlook.com", None),
        ] {
            let entry = entry(line.as_bytes()).unwrap().unwrap();
            assert_eq!((entry.recipient.as_str(), entry.reply.as_deref()), (address, reply), "{line:?}");
        }
        for line in ["", "\n", "# a comment", "   "] {
            assert_eq!(entry(line.as_bytes()).unwrap(), None, "{line:?}");
        }
    }

    #[test]
    fn bad_lines_are_passed_over_and_counted() {
        let long = "x".repeat(70_000);
        let text = format!("a@outlook.com\nemail\n{{\"recipient\":1}}\n{long}\nb@outlook.com");
        let mut lines = ImportLines::new(text.as_bytes());
        let found: Vec<String> = (&mut lines).map(|entry| entry.recipient.as_str().to_string()).collect();
        assert_eq!(found, ["a@outlook.com", "b@outlook.com"]);
        assert_eq!(lines.faults, 3);
        assert!(lines.verdict().unwrap_err().to_string().starts_with("3 lines held no entry"));
    }

    #[test]
    fn an_entry_ends_when_it_is_said_to() {
        assert_eq!("90d".parse(), Ok(When::In(Span(std::time::Duration::from_secs(90 * 86_400)))));
        let moment = Timestamp::parse_rfc3339("2027-01-31T00:00:00Z").unwrap();
        assert_eq!("2027-01-31T00:00:00Z".parse(), Ok(When::At(moment)));
        assert!("tomorrow".parse::<When>().is_err());
    }

    #[test]
    fn check_says_yes_or_no_with_the_same_keys() {
        let recipient = Mailbox::parse("gone@outlook.com").unwrap();
        let yes = serde_json::to_value(Checked::of(&recipient, Some(&suppressed()))).unwrap();
        for key in "recipient class reply source first last hits expires suppressed".split(' ') {
            assert!(yes.get(key).is_some(), "{key} is missing in {yes}");
        }
        let no = serde_json::to_value(Checked::of(&recipient, None)).unwrap();
        assert_eq!(no, serde_json::json!({"recipient": "gone@outlook.com", "suppressed": false}));
    }

    #[test]
    fn people_see_until_when() {
        let now = Timestamp::from_secs(1_795_293_220);
        assert!(describe(&suppressed(), now).contains("expires:    when it is removed\n"));
        assert_eq!(row(&suppressed(), now)[4], "when removed");
    }
}
