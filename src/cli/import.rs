//! `weir suppress import`: a file of addresses, through the running relay or, where none runs, into the data folder.
//!
//! Rules that always hold:
//! - the whole file is read, and every line that is no entry named with its number, before the first entry is written;
//!   `--strict` writes nothing then;
//! - entries go in the order of their addresses, each once: that costs the list a fraction of any other order;
//! - what an import that broke off had done stays done; the same file can be imported again, and what is there already is
//!   only merged.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::config::Config;
use super::output::{self, Output};
use super::progress::{Progress, unless_interrupted};
use super::{Format, human, offline, relay};
use crate::admin::Imported;
use crate::clock::Clock;
use crate::server::listing::import_line;
use crate::suppress::{Entry, LineReader, Sorted, Sorter};
use crate::types::Timestamp;

/// Lines that are no entries and named one by one; the rest is counted.
const FAULTS_NAMED: u64 = 20;
/// Lines between two looks at the clock.
const PROGRESS_LINES: u64 = 4096;

#[derive(Debug, Args)]
pub(super) struct Import {
    /// Default, or -: standard input
    file: Option<PathBuf>,
    /// Import nothing if any line is no entry. Default: pass over such lines
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    format: Format,
}

/// What was done, all in all.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Summary {
    added: u64,
    /// Were on the list before.
    updated: u64,
    /// Stood in the file more than once.
    duplicates: u64,
    /// Had run out before they came: they hold back nobody, and are remembered for the next refusal.
    expired: u64,
    /// Lines that are no entries.
    left_out: u64,
}

pub(super) async fn import(command: Import, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let client = relay::connect_if_running(config).await?;
    let folder = if config.data_dir.is_dir() { config.data_dir.clone() } else { std::env::temp_dir() };
    let clock = Clock::system();
    let mut progress = Progress::new(clock.clone());
    let mut faults = Faults { strict: command.strict, count: 0 };
    let sorted = sort(open(command.file.as_deref())?, &folder, clock.now(), &mut faults, &mut progress)?;

    let mut entries = Entries { sorted, now: clock.now(), expired: 0, broken: None };
    let mut done = Imported::default();
    let each = |so_far| {
        done = so_far;
        progress.say(|| on_the_list(&so_far));
    };
    let work = async {
        match client {
            Some(client) => client.import(entries.by_ref().filter_map(import_line), each).await.map_err(Into::into),
            None => offline::import(&config.data_dir, &mut entries, each).await,
        }
    };
    let written: anyhow::Result<()> =
        unless_interrupted(work).await?.unwrap_or_else(|| Err(anyhow::anyhow!("interrupted")));
    progress.end();
    let broken = entries.broken.take().map_or(Ok(()), Err).context("cannot read what was sorted");
    written.and(broken).with_context(|| format!("{}; import the same file again for the rest", on_the_list(&done)))?;
    let Imported { added, updated } = done;
    let (duplicates, expired) = (entries.sorted.duplicates(), entries.expired);
    let summary = Summary { added, updated, duplicates, expired, left_out: faults.count };
    if command.format.json {
        output.json(&summary)?
    } else {
        output.line(&summary.words())?
    }
    if summary.left_out > 0 {
        bail!("{} held no entry: correct and import them again", human::count(summary.left_out, "line"));
    }
    Ok(ExitCode::SUCCESS)
}

impl Summary {
    fn words(&self) -> String {
        let mut words = format!("{} added, {} updated", human::number(self.added), human::number(self.updated));
        if self.duplicates > 0 {
            words = format!("{words}, {} named more than once", human::number(self.duplicates));
        }
        if self.expired > 0 {
            words = format!("{words}, {} run out already (held back no more)", human::number(self.expired));
        }
        words
    }
}

fn open(file: Option<&Path>) -> anyhow::Result<Box<dyn BufRead>> {
    Ok(match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            Box::new(BufReader::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?))
        }
        None => Box::new(BufReader::new(io::stdin())),
    })
}

/// Reads the file to its end. Blocks: nothing else happens meanwhile in a command that does nothing but import.
fn sort(
    from: impl BufRead,
    folder: &Path,
    now: Timestamp,
    faults: &mut Faults,
    progress: &mut Progress,
) -> anyhow::Result<Sorted> {
    let mut lines = LineReader::new(from, now);
    let mut sorter = Sorter::new(folder);
    let full =
        || format!("cannot sort the list in {}, where it takes some 300 bytes a line for a while", folder.display());
    while let Some(read) =
        lines.next_entry().with_context(|| format!("the input broke off after line {}", lines.line()))?
    {
        match read {
            Ok(entry) => sorter.push(&entry).with_context(full)?,
            Err(text) => faults.tell(lines.line(), &text)?,
        }
        if lines.line().is_multiple_of(PROGRESS_LINES) {
            progress.say(|| human::count_of(lines.line(), "line is read", "lines are read"));
        }
    }
    sorter.sorted().with_context(full)
}

/// Lines that are no entries.
struct Faults {
    strict: bool,
    count: u64,
}

impl Faults {
    fn tell(&mut self, line: u64, text: &str) -> anyhow::Result<()> {
        if self.strict {
            bail!("line {line} {text}; nothing was imported");
        }
        self.count += 1;
        if self.count <= FAULTS_NAMED {
            output::say(&format!("line {line} {text}"));
        }
        Ok(())
    }
}

fn on_the_list(done: &Imported) -> String {
    human::count_of(done.added + done.updated, "entry is on the list", "entries are on the list")
}

/// The sorted entries; ends early where the disk fails, and remembers why.
struct Entries {
    sorted: Sorted,
    now: Timestamp,
    expired: u64,
    broken: Option<io::Error>,
}

impl Iterator for Entries {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let next = self.sorted.next_entry().unwrap_or_else(|error| {
            self.broken = Some(error);
            None
        });
        self.expired += u64::from(next.as_ref().is_some_and(|entry| !entry.is_in_force(self.now)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, strict: bool) -> (anyhow::Result<Vec<String>>, u64) {
        let folder = tempfile::tempdir().unwrap();
        let mut faults = Faults { strict, count: 0 };
        let mut progress = Progress::new(Clock::system());
        let sorted = sort(text.as_bytes(), folder.path(), Timestamp::EPOCH, &mut faults, &mut progress);
        let entries = |sorted| Entries { sorted, now: Timestamp::EPOCH, expired: 0, broken: None };
        let found = sorted.map(|sorted| entries(sorted).map(|entry| entry.recipient).collect());
        (found, faults.count)
    }

    #[test]
    fn bad_lines_are_passed_over_and_counted_and_the_rest_is_sorted() {
        let long = "x".repeat(70_000);
        let text = format!("b@outlook.com\nemail\n{{\"recipient\":1}}\n{long}\na@outlook.com\nB@outlook.com");
        let (found, faults) = read(&text, false);
        assert_eq!((found.unwrap(), faults), (vec!["a@outlook.com".to_string(), "b@outlook.com".into()], 3));
    }

    #[test]
    fn a_strict_import_takes_all_or_nothing() {
        let error = read("a@outlook.com\nnobody\n", true).0.unwrap_err().to_string();
        assert!(error.starts_with("line 2 `nobody`") && error.ends_with("nothing was imported"), "{error}");
        assert_eq!(read("a@outlook.com\n", true).0.unwrap().len(), 1);
    }
}
