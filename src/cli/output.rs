//! Standard output and standard error as the commands use them.
//!
//! The rule that always holds: a receiver, a client or a name server may have chosen the words; nothing of them steers a terminal.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::human;
use crate::types::printable;

/// Whoever read our output went away. No fault: the command ends quietly.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub(super) struct ReaderGone;

/// A terminal that says it is narrower does not know.
const WIDTH_MIN: usize = 20;

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

    /// To somewhere else, where nobody watches.
    pub(super) fn to(writer: impl Write + 'static) -> Output {
        Output { writer: Box::new(writer), is_terminal: false }
    }

    /// Is a person in front of it?
    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// How many characters a line of the terminal holds; none where there is no terminal, or it does not say.
    pub(super) fn width(&self) -> Option<usize> {
        self.size().map(|size| usize::from(size.ws_col)).filter(|&width| width >= WIDTH_MIN)
    }

    /// The same for its lines.
    pub(super) fn height(&self) -> Option<usize> {
        self.size().map(|size| usize::from(size.ws_row)).filter(|&height| height > 0)
    }

    fn size(&self) -> Option<rustix::termios::Winsize> {
        if self.is_terminal { rustix::termios::tcgetwinsize(io::stdout()).ok() } else { None }
    }

    /// A line for people, or several.
    pub(super) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        self.text(text)?;
        self.write("\n")
    }

    /// Text for people, its lines ended already. Whatever foreign words stand in it, nothing steers their terminal.
    pub(super) fn text(&mut self, text: &str) -> anyhow::Result<()> {
        self.write(&human::clean_lines(text))
    }

    /// A line for programs, as it is; where a person looks at it, as a line for people.
    pub(super) fn data(&mut self, line: &str) -> anyhow::Result<()> {
        if self.is_terminal {
            return self.line(line);
        }
        self.write(line)?;
        self.write("\n")
    }

    /// Text for another program, octet for octet: of our own making, with no foreign word in it.
    pub(super) fn program(&mut self, text: &str) -> anyhow::Result<()> {
        self.write(text)
    }

    /// What steers the terminal: our own words, never foreign ones.
    pub(super) fn control(&mut self, codes: &'static str) -> anyhow::Result<()> {
        self.write(codes)
    }

    /// A JSON object that stands on a line already.
    pub(super) fn json_line(&mut self, line: &str) -> anyhow::Result<()> {
        self.write(&printable::json(line))?;
        self.write("\n")
    }

    /// Has the reader gone, though nothing was written to it since?
    pub(super) fn is_closed(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let stdout = io::stdout();
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut watched, Some(&at_once)).is_ok_and(|found| found > 0)
            && watched[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL)
    }

    pub(super) fn json(&mut self, record: &impl Serialize) -> anyhow::Result<()> {
        self.write(&printable::json(&serde_json::to_string(record)?))?;
        self.write("\n")
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        reader_gone(self.writer.write_all(text.as_bytes()))
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
pub(super) fn with_causes(error: &anyhow::Error) -> String {
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
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What a terminal gets.
    fn shown(print: impl Fn(&mut Output)) -> String {
        let screen = Screen::default();
        let mut output = Output { writer: Box::new(screen.clone()), is_terminal: true };
        print(&mut output);
        let bytes = screen.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn no_words_steer_the_terminal(any in any::<String>(), tricky in "[\\x00-\\x20\\x7f-\\xa0\"\\\\\u{61c}\u{2028}-\u{202e}\u{2066}a]{0,20}") {
            for words in [any, tricky] {
                let steers = |c: char| c != '\n' && printable::steers(c);
                for text in [shown(|o| o.line(&words).unwrap()), shown(|o| o.text(&words).unwrap()), shown(|o| o.data(&words).unwrap())] {
                    prop_assert!(!text.contains(steers), "{:?}", text);
                }
                let json = shown(|o| o.json(&words).unwrap());
                prop_assert_eq!(&json, &shown(|o| o.json_line(&serde_json::to_string(&words).unwrap()).unwrap()));
                prop_assert!(!json.strip_suffix('\n').unwrap().contains(printable::steers), "{:?}", json);
                prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), words);
            }
        }
    }

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
