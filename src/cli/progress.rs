//! Long work on the command line: how far it is, and Ctrl-C.
//!
//! Rules that always hold: nothing is shown where no terminal is; what was shown is gone when the work is over; an interrupted
//! command says how far it came.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Clock;
use crate::types::Timestamp;

/// How often a person sees how far it is.
const EVERY: Duration = Duration::from_millis(500);
/// As shells have it for a program that Ctrl-C has ended.
pub(super) const INTERRUPTED: u8 = 130;

/// A line on standard error that overwrites itself, for a person who waits.
pub(super) struct Progress {
    clock: Clock,
    is_terminal: bool,
    last: Timestamp,
    shown: bool,
}

impl Progress {
    pub(super) fn new(clock: Clock) -> Progress {
        let last = clock.now();
        Progress { clock, is_terminal: io::stderr().is_terminal(), last, shown: false }
    }

    /// The same for a command whose records go to a terminal: these say enough.
    pub(super) fn beside(clock: Clock, records_are_seen: bool) -> Progress {
        let mut progress = Progress::new(clock);
        progress.is_terminal &= !records_are_seen;
        progress
    }

    /// `text` holds no foreign words.
    pub(super) fn say(&mut self, text: impl FnOnce() -> String) {
        if !self.is_terminal || self.clock.now().since(self.last) < EVERY {
            return;
        }
        (self.last, self.shown) = (self.clock.now(), true);
        // Nobody loses anything when this cannot be written.
        let _ = write!(io::stderr(), "\r\x1b[K{}", text());
    }

    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// Does `work` to its end, or until Ctrl-C: `None`.
pub(super) async fn unless_interrupted<T>(work: impl Future<Output = T>) -> io::Result<Option<T>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        biased;
        _ = interrupt.recv() => Ok(None),
        done = work => Ok(Some(done)),
    }
}
