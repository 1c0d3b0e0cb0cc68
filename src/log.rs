//! `[log]`: what weir says about itself, on standard error.
//!
//! For people; what happened to mail is data and goes to the event log (`crate::event`). Rules that always hold: the
//! log never fails the program, whatever becomes of standard error; an entry is one line, whatever a peer has said in it.

use std::io::{self, IsTerminal, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::types::printable;

/// Options of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub level: Levels,
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line for people, with colours on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// From which level on is logged: `info`, or with exceptions for parts of the program, `info,weir::outbound=debug`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Levels {
    text: String,
    targets: Targets,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no log level: write off, error, warn, info, debug or trace, also as in \"info,weir::outbound=debug\""
)]
pub struct LevelsError(String);

impl FromStr for Levels {
    type Err = LevelsError;

    fn from_str(text: &str) -> Result<Levels, LevelsError> {
        let error = || LevelsError(text.chars().take(40).collect());
        let mut targets = Targets::new();
        // `Targets` itself takes a misspelt level for the name of a part.
        for part in text.split(',') {
            targets = match part.trim().split_once('=') {
                None => targets.with_default(level(part).ok_or_else(error)?),
                Some((target, word)) if is_target(target.trim()) => {
                    targets.with_target(target.trim(), level(word).ok_or_else(error)?)
                }
                Some(_) => return Err(error()),
            };
        }
        Ok(Levels { text: text.to_string(), targets })
    }
}

fn level(word: &str) -> Option<LevelFilter> {
    match word.trim() {
        "off" => Some(LevelFilter::OFF),
        "error" => Some(LevelFilter::ERROR),
        "warn" => Some(LevelFilter::WARN),
        "info" => Some(LevelFilter::INFO),
        "debug" => Some(LevelFilter::DEBUG),
        "trace" => Some(LevelFilter::TRACE),
        _ => None,
    }
}

fn is_target(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

impl TryFrom<String> for Levels {
    type Error = LevelsError;

    fn try_from(text: String) -> Result<Levels, LevelsError> {
        text.parse()
    }
}

impl From<Levels> for String {
    fn from(levels: Levels) -> String {
        levels.text
    }
}

impl Default for Log {
    fn default() -> Log {
        let targets = Targets::new().with_default(LevelFilter::INFO);
        Log { level: Levels { text: "info".to_string(), targets }, format: Format::Text }
    }
}

/// From here on everything logged goes to standard error. Does nothing where a log is set up already.
pub fn init(options: &Log) {
    let layer = layer(options, std::io::stderr().is_terminal(), std::io::stderr);
    let _already_set = tracing_subscriber::registry().with(layer).try_init();
}

/// The layer that writes what `options` ask for to what `writer` makes.
fn layer<S, W>(options: &Log, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let form = match options.format {
        Format::Json => Form::Json,
        Format::Text if colours => Form::Colours,
        Format::Text => Form::Text,
    };
    let writer = Entries { inner: writer, form };
    // An internal error would be printed to standard error, and that panics when standard error is gone.
    let base = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours).log_internal_errors(false);
    let targets = options.level.targets.clone();
    match options.format {
        Format::Text => base.with_filter(targets).boxed(),
        Format::Json => base.json().flatten_event(true).with_ansi(false).with_filter(targets).boxed(),
    }
}

/// Makes writers that keep each entry on one line.
struct Entries<W> {
    inner: W,
    form: Form,
}

/// What an entry looks like when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    /// With colour codes of our own in it.
    Colours,
    /// One object.
    Json,
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Entries<W> {
    type Writer = Entry<W::Writer>;

    fn make_writer(&'w self) -> Entry<W::Writer> {
        Entry { inner: self.inner.make_writer(), form: self.form }
    }
}

/// Takes one whole entry with each write.
struct Entry<W> {
    inner: W,
    form: Form,
}

impl<W: Write> Write for Entry<W> {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(entry);
        let body = text.strip_suffix('\n').unwrap_or(&text);
        if body.contains(printable::steers) {
            let line = match self.form {
                Form::Json => printable::json(body).into_owned(),
                form => harmless(body, form == Form::Colours),
            };
            self.inner.write_all((line + "\n").as_bytes())?;
        } else {
            self.inner.write_all(entry)?;
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// `text` with what steers escaped: what a peer says must neither forge a line nor steer a terminal.
fn harmless(text: &str, colours: bool) -> String {
    let mut line = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = match colour_length(rest).filter(|_| colours) {
            Some(length) => {
                line.push_str(&rest[..length]);
                length
            }
            None if printable::steers(c) => {
                line.extend(c.escape_default());
                c.len_utf8()
            }
            None => {
                line.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    line
}

/// The length of the colour code that `text` begins with: ESC, `[`, numbers, `m` (ECMA-48 section 8.3.117).
fn colour_length(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\u{1b}[")?;
    let end = numbers.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    numbers[end..].starts_with('m').then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;

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

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    fn logged(level: &str, format: Format) -> String {
        let memory = Memory::default();
        let options = Log { level: level.parse().unwrap(), format };
        let writer = memory.clone();
        let subscriber = tracing_subscriber::registry().with(layer(&options, false, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(number = 7, "hello");
            tracing::debug!(target: "weir::outbound", "detail");
        });
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn levels_hold_for_all_or_for_one_part() {
        assert!(logged("info", Format::Text).contains("hello"));
        assert!(!logged("info", Format::Text).contains("detail"));
        let both = logged("info,weir::outbound=debug", Format::Text);
        assert!(both.contains("hello") && both.contains("detail"), "{both}");
        assert_eq!(logged("off", Format::Text), "");
    }

    #[test]
    fn an_entry_is_one_line_whatever_a_peer_said() {
        let (memory, options) = (Memory::default(), Log::default());
        let writer = memory.clone();
        let subscriber = tracing_subscriber::registry().with(layer(&options, false, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(reply = %"250 ok\r\n2026 ERROR forged\u{1b}[2J", "said\nmore");
        });
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        assert_eq!((text.matches('\n').count(), text.chars().filter(|c| c.is_control()).count()), (1, 1), "{text:?}");
        assert!(text.contains("250 ok\\r\\n2026 ERROR forged"), "{text:?}");
    }

    #[test]
    fn colours_pass_only_on_a_terminal_and_nothing_else_does() {
        let text = "\u{1b}[1;32mINFO\u{1b}[0m\u{1b}[2J\u{9b}m\u{1b}";
        assert_eq!(harmless(text, true), "\u{1b}[1;32mINFO\u{1b}[0m\\u{1b}[2J\\u{9b}m\\u{1b}");
        assert!(!harmless(text, false).contains(char::is_control));
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged("trace", Format::Json);
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line).unwrap();
        }
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for text in ["", "inof", "INFO", "info,", "info,weir", "weir=", "=debug", "weir::x=loud", "a b=info"] {
            assert!(text.parse::<Levels>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_standard_error_that_is_gone_hurts_nobody() {
        let subscriber = tracing_subscriber::registry().with(layer(&Log::default(), false, || Gone));
        tracing::subscriber::with_default(subscriber, || tracing::error!("nobody hears this"));
    }

    fn entry(form: Format, words: &str) -> String {
        let memory = Memory::default();
        let options = Log { format: form, ..Log::default() };
        let writer = memory.clone();
        let subscriber = tracing_subscriber::registry().with(layer(&options, false, move || writer.clone()));
        tracing::subscriber::with_default(
            subscriber,
            || tracing::info!(shown = %words, debug = ?words, "said {words}"),
        );
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn no_words_make_two_entries_of_one(any in any::<String>(), tricky in "[\\x00-\\x20\\x7f-\\xa0\"\\\\{}\u{61c}\u{2028}-\u{202e}\u{2066}a]{0,20}") {
            for words in [any, tricky] {
                for form in [Format::Text, Format::Json] {
                    let entry = entry(form, &words);
                    let line = entry.strip_suffix('\n').unwrap();
                    prop_assert!(!line.contains(printable::steers), "{:?}", line);
                }
                let json: serde_json::Value = serde_json::from_str(&entry(Format::Json, &words)).unwrap();
                prop_assert_eq!(&json["shown"], &words);
            }
        }
    }
}
