//! The whole event log, read from the oldest line to the newest, of one provider; or one kind of event, from some moment on.
//!
//! Line by line: a log of any size takes no more memory than its longest line. What is no whole line, or no event, is
//! passed over, as is what the relay writes while somebody reads.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use memchr::memmem::Finder;
use serde::Deserialize;

use super::folder;
use super::reader::read_line;
use crate::types::{Class, EventKind, Timestamp};

/// Read from the disk in one go.
const CHUNK: usize = 256 << 10;

/// A line, as far as a story of a provider needs it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Line<'a> {
    pub time: Timestamp,
    #[serde(rename = "event")]
    pub kind: EventKind,
    #[serde(borrow)]
    pub sender: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub provider: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub mx: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub reply: Option<Cow<'a, str>>,
    pub class: Option<Class>,
    #[serde(borrow, default)]
    pub rule: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub text: Option<Cow<'a, str>>,
}

/// Hands `take` every event of `provider` in the log in `folder`, the oldest first. A folder that is not there has none.
pub fn of_provider(folder: &Path, provider: &str, mut take: impl FnMut(&Line<'_>)) -> io::Result<()> {
    // As it stands in a line: most lines of others need not be parsed. Of a name that is escaped there, the key alone.
    let is_plain = provider.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'));
    let mark = if is_plain { format!("\"provider\":\"{provider}\"") } else { "\"provider\":".to_string() };
    let mark = Finder::new(mark.as_bytes());
    let (closed, current) = folder::snapshot(folder)?;
    let mut each = |line: &[u8]| {
        if mark.find(line).is_some()
            && let Ok(line) = serde_json::from_slice::<Line<'_>>(line)
            && line.provider.as_deref() == Some(provider)
        {
            take(&line);
        }
        ControlFlow::Continue(())
    };
    for closed in closed {
        match File::open(&closed.path) {
            Ok(file) => lines(file, &mut each)?,
            // Too old, and deleted since the folder was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    current.map_or(Ok(()), |file| lines(file, &mut each))
}

/// Hands `take` every event of `kind` since then, the oldest first, until it says that it has enough. Files that were closed before
/// are not even opened.
pub fn since(
    folder: &Path,
    since: Timestamp,
    kind: EventKind,
    mut take: impl FnMut(&Line<'_>) -> ControlFlow<()>,
) -> io::Result<()> {
    let mark = format!("\"event\":\"{kind}\"");
    let mark = Finder::new(mark.as_bytes());
    let mut enough = ControlFlow::Continue(());
    let mut each = |line: &[u8]| {
        if enough.is_continue()
            && mark.find(line).is_some()
            && let Ok(line) = serde_json::from_slice::<Line<'_>>(line)
            && line.kind == kind
            && line.time >= since
        {
            enough = take(&line);
        }
        enough
    };
    let closed: Vec<PathBuf> =
        folder::closed_files(folder)?.into_iter().filter(|file| file.at >= since).map(|file| file.path).collect();
    for path in closed.into_iter().chain([folder.join(folder::CURRENT)]) {
        match File::open(&path) {
            Ok(file) => lines(file, &mut each)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn lines(file: File, each: &mut impl FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(CHUNK, file);
    let mut line = Vec::new();
    while read_line(&mut reader, &mut line)? > 0 {
        if each(&line).is_break() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::reader;

    fn event(provider: &str, text: &str) -> String {
        format!(
            "{{\"time\":\"2026-11-21T20:33:40.042Z\",\"seq\":1,\"event\":\"throttled\",\"id\":null,\"sender\":null,\
             \"recipient\":null,\"provider\":\"{provider}\",\"source\":\"a\",\"mx\":null,\"reply\":null,\"class\":null,\
             \"text\":\"{text}\"}}\n"
        )
    }

    fn texts(folder: &Path) -> Vec<String> {
        let mut texts = Vec::new();
        of_provider(folder, "outlook", |line| texts.extend(line.text.as_deref().map(str::to_string))).unwrap();
        texts
    }

    #[test]
    fn all_files_are_read_the_oldest_first_and_only_of_the_provider() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write("events-20261122T000000Z.jsonl", event("outlook", "second") + &event("gmail", "no"));
        write("events-20261121T000000Z.jsonl", event("outlook", "first"));
        write("current.jsonl", event("outlook", "th\\\"ird") + "nonsense\n" + event("outlook", "torn").trim_end());
        assert_eq!(texts(folder.path()), ["first", "second", "th\"ird"]);
    }

    #[test]
    fn one_kind_is_read_from_a_moment_on_until_there_is_enough() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let at = |time: &str, text: &str| event("outlook", text).replace("2026-11-21T20:33:40.042Z", time);
        write("events-20261120T000000Z.jsonl", at("2026-11-21T23:00:00.000Z", "in a file too old to be opened"));
        write("events-20261122T000000Z.jsonl", at("2026-11-20T23:00:00.000Z", "too old") + &event("gmail", "one"));
        write(
            "current.jsonl",
            event("a", "two").replace("throttled", "paused") + &event("b", "three") + &event("c", "x"),
        );
        let mut texts = Vec::new();
        let from = Timestamp::parse_rfc3339("2026-11-21T00:00:00Z").unwrap();
        since(folder.path(), from, EventKind::Throttled, |line| {
            texts.extend(line.text.as_deref().map(str::to_string));
            if texts.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert_eq!(texts, ["one", "three"]);
    }

    #[test]
    fn a_name_is_found_however_it_is_escaped() {
        let folder = tempfile::tempdir().unwrap();
        let lines =
            event("outlook", "other") + &event("a\\u2028b\\u00fc", "escaped") + &event("a\u{2028}b\u{fc}", "plain");
        std::fs::write(folder.path().join("current.jsonl"), lines).unwrap();
        let mut texts = Vec::new();
        of_provider(folder.path(), "a\u{2028}b\u{fc}", |line| texts.extend(line.text.as_deref().map(str::to_string)))
            .unwrap();
        assert_eq!(texts, ["escaped", "plain"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let long = event("outlook", &"x".repeat(reader::LINE_MAX));
        std::fs::write(folder.path().join("current.jsonl"), long + &event("outlook", "next")).unwrap();
        assert_eq!(texts(folder.path()), ["next"]);
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_events() {
        assert_eq!(texts(Path::new("/nowhere/events")), [""; 0]);
    }
}
