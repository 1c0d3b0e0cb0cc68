//! Octets of one connection: what has come and was not used yet, and what is to be sent.
//!
//! Rules that always hold:
//! - every read and every write has a time limit;
//! - replies are sent when nothing more can be done without hearing from the client, so that the answers to a pipelined batch
//!   travel together (RFC 2920 section 3.2);
//! - a connection that waits for a command holds a small buffer; the large one exists only while content comes.

use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// The longest command line with its line end: 512 octets (RFC 5321 section 4.5.3.1.4) and what SIZE, BODY, SMTPUTF8, DSN and AUTH
/// add to MAIL and RCPT, which is under 1,200 together.
pub(super) const LINE_MAX: usize = 2048;
/// What is skipped of a longer line before the client is given up.
const SKIPPED_MAX: u64 = 4 << 20;
/// What is read at once while content comes.
const CONTENT_CHUNK: usize = 32 << 10;
/// Replies that are held back for the batch at most.
const OUTPUT_MAX: usize = 8 << 10;
/// A client that does not read for this long is gone.
const WRITE_MAX: Duration = Duration::from_secs(300);
/// After the last reply: how long, and for how much, the client may still talk, so that a reset does not take the reply from it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 << 10;

/// Why the dialogue ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The client closed, or the connection broke: nobody hears a reply.
    Gone,
    /// The client did not say what was due in time.
    Silent,
    /// Asked to make room for another connection.
    MakeRoom,
    /// The relay stops.
    Stopping,
    /// The session said its last word.
    SentAway,
    /// The client said QUIT.
    Parted,
}

/// The next line in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Its length without and with its line end.
    Whole(usize, usize),
    /// A line longer than `LINE_MAX` was skipped.
    TooLong,
    /// It does not end.
    Endless,
    /// More must be read first.
    Partial,
}

pub(super) struct Wire<S> {
    stream: S,
    pub(super) input: BytesMut,
    pub(super) output: Vec<u8>,
    /// Octets skipped so far of a line that is too long.
    skipped: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Wire<S> {
        Wire { stream, input: BytesMut::new(), output: Vec::new(), skipped: 0 }
    }

    /// Looks for a line in what has come. Commands may end in a bare LF, as everywhere; content may not.
    pub(super) fn line(&mut self) -> Line {
        let Some(end) = memchr(b'\n', &self.input) else {
            if self.input.len() >= LINE_MAX || self.skipped > 0 {
                self.skipped += self.input.len() as u64;
                self.input.clear();
            }
            return if self.skipped > SKIPPED_MAX { Line::Endless } else { Line::Partial };
        };
        if self.skipped > 0 || end >= LINE_MAX {
            self.skipped = 0;
            self.input.advance(end + 1);
            return Line::TooLong;
        }
        let has_cr = end > 0 && self.input[end - 1] == b'\r';
        Line::Whole(end - usize::from(has_cr), end + 1)
    }

    pub(super) async fn read_command(&mut self) -> Result<usize, Lost> {
        if self.input.capacity() > 2 * LINE_MAX && self.input.len() < LINE_MAX {
            self.input = BytesMut::from(&self.input[..]);
        }
        self.read(LINE_MAX).await
    }

    pub(super) async fn read_content(&mut self) -> Result<usize, Lost> {
        self.read(CONTENT_CHUNK).await
    }

    /// Appends what comes, at most `limit` octets. Cancelled: nothing is lost.
    async fn read(&mut self, limit: usize) -> Result<usize, Lost> {
        self.input.reserve(limit);
        match self.stream.read_buf(&mut (&mut self.input).limit(limit)).await {
            Ok(0) | Err(_) => Err(Lost::Gone),
            Ok(octets) => Ok(octets),
        }
    }

    /// Sends the replies that have gathered if they are many.
    pub(super) async fn flush_if_full(&mut self) -> Result<(), Lost> {
        if self.output.len() < OUTPUT_MAX { Ok(()) } else { self.flush().await }
    }

    /// Sends the replies that have gathered.
    pub(super) async fn flush(&mut self) -> Result<(), Lost> {
        if self.output.is_empty() {
            return Ok(());
        }
        let Wire { stream, output, .. } = self;
        let send = async {
            stream.write_all(output).await?;
            stream.flush().await
        };
        let sent = timeout(WRITE_MAX, send).await;
        self.output = Vec::new();
        if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(Lost::Gone) }
    }

    /// Sends what is left and closes; a client that was sent away gets the time to read why.
    pub(super) async fn close(mut self, linger: bool) {
        if self.flush().await.is_err() || timeout(LINGER, self.stream.shutdown()).await.is_err() || !linger {
            return;
        }
        let rest = async {
            let mut heard = self.input.len();
            while heard < LINGER_BYTES {
                self.input.clear();
                match self.read(LINE_MAX).await {
                    Ok(octets) => heard += octets,
                    Err(_) => break,
                }
            }
        };
        // Time is up or the client has closed: the same to us.
        let _ = timeout(LINGER, rest).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::clock::Clock;
    use crate::types::Timestamp;

    const START: Timestamp = Timestamp::from_secs(1000);

    /// How long closing takes, and how much of its talk the client got rid of.
    async fn close(linger: bool, talk: usize, hangs_up: bool) -> (Duration, usize) {
        let (mut here, there) = duplex(4096);
        let mut wire = Wire::new(there);
        wire.output.extend_from_slice(b"421 4.7.0 no more\r\n");
        let clock = Clock::starting_at(START);
        let server = async {
            wire.close(linger).await;
            clock.now().since(START)
        };
        let client = async {
            let mut written = 0;
            while written < talk && here.write_all(&[b'x'; 1024]).await.is_ok() {
                written += 1024;
            }
            let mut heard = String::new();
            here.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "421 4.7.0 no more\r\n");
            let keeps = (!hangs_up).then_some(here);
            (written, keeps)
        };
        let (took, (written, _here)) = tokio::join!(server, client);
        (took, written)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_sent_away_may_finish_what_it_says_within_limits() {
        assert_eq!(close(true, 100 << 10, true).await, (Duration::ZERO, 100 << 10));
        assert_eq!(close(true, 100 << 10, false).await, (LINGER, 100 << 10));
        assert_eq!(close(true, 0, false).await, (LINGER, 0));
        let (took, written) = close(true, 10 << 20, false).await;
        assert_eq!(took, Duration::ZERO);
        assert!((LINGER_BYTES..LINGER_BYTES + (16 << 10)).contains(&written), "{written}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_quit_nobody_is_waited_for() {
        assert_eq!(close(false, 0, false).await, (Duration::ZERO, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_given_up() {
        let (_here, there) = duplex(16);
        let mut wire = Wire::new(there);
        wire.output.extend_from_slice(&[b'x'; 100]);
        let clock = Clock::starting_at(START);
        assert_eq!((wire.flush().await, clock.now().since(START)), (Err(Lost::Gone), WRITE_MAX));
    }
}
