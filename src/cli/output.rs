//! Standard output and standard error as the commands use them.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::human;

/// Whoever read our output went away. No fault: the command ends quietly.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub(super) struct ReaderGone;

/// Where records and tables go. Buffered; flushed at the end and where somebody watches.
pub(super) struct Output {
    writer: Box<dyn Write>,
    is_terminal: bool,
}

impl Output {
    pub(super) fn stdout() -> Output {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        Output { writer: Box::new(io::BufWriter::with_capacity(64 << 10, stdout.lock())), is_terminal }
    }

    #[cfg(test)]
    pub(super) fn to(writer: impl Write + 'static) -> Output {
        Output { writer: Box::new(writer), is_terminal: false }
    }

    /// Is a person in front of it?
    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    pub(super) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        self.raw(text)?;
        self.raw("\n")
    }

    pub(super) fn raw(&mut self, text: &str) -> anyhow::Result<()> {
        reader_gone(self.writer.write_all(text.as_bytes()))
    }

    pub(super) fn json(&mut self, record: &impl Serialize) -> anyhow::Result<()> {
        self.line(&serde_json::to_string(record)?)
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        reader_gone(self.writer.flush())
    }
}

fn reader_gone(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output")),
    }
}

/// An error as one line on standard error, its causes behind it.
pub(super) fn complain(error: &anyhow::Error) {
    say(&with_causes(error));
}

/// Some libraries put the cause into their own text as well: what was said is not said again.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A line for the person on standard error.
pub(super) fn say(text: &str) {
    for line in text.lines() {
        let _ = writeln!(io::stderr(), "weir: {}", human::clean(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let cause = || io::Error::other("no such folder");
        let twice =
            anyhow::Error::new(cause()).context("cannot open: no such folder").context("the relay does not start");
        assert_eq!(with_causes(&twice), "the relay does not start: cannot open: no such folder");
        let once = anyhow::Error::new(cause()).context("cannot open");
        assert_eq!(with_causes(&once), "cannot open: no such folder");
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_closed_pipe_is_told_from_a_real_fault() {
        let error = Output::to(Closed).line("x").unwrap_err();
        assert!(error.is::<ReaderGone>());
        assert!(Output::to(Closed).flush().unwrap_err().is::<ReaderGone>());
    }
}
