//! Octets of one connection: what has come and was not used yet, and what is to be sent.
//!
//! Rules that always hold:
//! - every read and every write has a time limit, here or where it is called;
//! - replies are sent when nothing more can be done without hearing from the client, so that the answers to a pipelined batch
//!   travel together (RFC 2920 section 3.2);
//! - a connection that waits for a command holds a small buffer; the large one exists only while content comes.

use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::stream::Stream;

use crate::smtp::replies::Said;

/// The longest command line with its line end: 512 octets (RFC 5321 section 4.5.3.1.4) and what SIZE, BODY, SMTPUTF8, DSN and AUTH
/// add to MAIL and RCPT, which is under 1,200 together.
pub(super) const LINE_MAX: usize = 2048;
/// What is skipped of a longer line before the client is given up.
const SKIPPED_MAX: u64 = 4 << 20;
/// What is read at once while content comes: little of a client that sends little, so that many slow ones hold little.
const CONTENT_CHUNK_MIN: usize = 4 << 10;
const CONTENT_CHUNK_MAX: usize = 32 << 10;
/// Replies that are held back for the batch at most.
const OUTPUT_MAX: usize = 8 << 10;
/// For the last word: a client that does not read it by then is gone.
const WRITE_MAX: Duration = Duration::from_secs(10);
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
    /// A line that was too long was skipped.
    TooLong,
    /// It does not end.
    Endless,
    /// More must be read first.
    Partial,
}

pub(super) struct Wire<S> {
    stream: Stream<S>,
    pub(super) input: BytesMut,
    pub(super) output: Vec<u8>,
    /// Octets skipped so far of a line that is too long.
    skipped: u64,
    /// What the next read of content takes at most.
    chunk: usize,
    /// Octets of `output` that the log has shown.
    logged: usize,
    /// Replies are on their way that the client has not taken yet.
    sending: bool,
    /// The client has been greeted.
    has_spoken: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Wire<S> {
        Wire {
            stream: Stream::Clear(stream),
            input: BytesMut::new(),
            output: Vec::new(),
            skipped: 0,
            chunk: CONTENT_CHUNK_MIN,
            logged: 0,
            sending: false,
            has_spoken: false,
        }
    }

    /// Goes over to TLS. What the client sent before it is thrown away: somebody between the two may have written it
    /// (CVE-2011-0411). The caller sets the limit of time.
    pub(super) async fn secure(&mut self, acceptor: &TlsAcceptor) -> Result<(), Lost> {
        self.flush().await?;
        self.input = BytesMut::new();
        self.skipped = 0;
        self.stream.secure(acceptor).await.map_err(|error| {
            tracing::debug!("handshake: {error}");
            Lost::Gone
        })
    }

    /// `TLSv1.3 TLS_AES_256_GCM_SHA384`; none in clear text.
    pub(super) fn tls(&self) -> Option<String> {
        self.stream.tls()
    }

    /// Looks for a line of less than `line_max` octets in what has come. Commands may end in a bare LF, as everywhere; content may not.
    pub(super) fn line(&mut self, line_max: usize) -> Line {
        let Some(end) = memchr(b'\n', &self.input) else {
            if self.input.len() >= line_max || self.skipped > 0 {
                self.skipped += self.input.len() as u64;
                self.input.clear();
            }
            return if self.skipped > SKIPPED_MAX { Line::Endless } else { Line::Partial };
        };
        if self.skipped > 0 || end >= line_max {
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
        self.chunk = CONTENT_CHUNK_MIN;
        self.read(LINE_MAX).await
    }

    pub(super) async fn read_content(&mut self) -> Result<usize, Lost> {
        let octets = self.read(self.chunk).await?;
        if octets == self.chunk {
            self.chunk = (2 * self.chunk).min(CONTENT_CHUNK_MAX);
        }
        Ok(octets)
    }

    /// Appends what comes, at most `limit` octets. Cancelled: nothing is lost.
    async fn read(&mut self, limit: usize) -> Result<usize, Lost> {
        self.input.reserve(limit);
        match self.stream.read_buf(&mut (&mut self.input).limit(limit)).await {
            Ok(0) | Err(_) => Err(Lost::Gone),
            Ok(octets) => Ok(octets),
        }
    }

    /// Have so many replies gathered that they have to be sent?
    pub(super) fn is_full(&self) -> bool {
        self.output.len() >= OUTPUT_MAX
    }

    /// Sends the replies that have gathered. It has no limit of time: the caller sets one. Cancelled: what was sent is not sent
    /// again, and `output` holds the rest.
    pub(super) async fn flush(&mut self) -> Result<(), Lost> {
        self.sending |= !self.output.is_empty();
        self.log_replies();
        if !self.sending {
            return Ok(());
        }
        while !self.output.is_empty() {
            match self.stream.write(&self.output).await {
                Ok(0) | Err(_) => return Err(Lost::Gone),
                Ok(octets) if octets == self.output.len() => (self.output, self.logged) = (Vec::new(), 0),
                Ok(octets) => {
                    self.output.drain(..octets);
                    self.logged -= octets;
                }
            }
        }
        self.stream.flush().await.map_err(|_| Lost::Gone)?;
        self.sending = false;
        self.has_spoken = true;
        Ok(())
    }

    /// Each reply once, also where it goes out in pieces.
    fn log_replies(&mut self) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            for line in String::from_utf8_lossy(&self.output[self.logged..]).lines() {
                tracing::debug!("S: {line}");
            }
        }
        self.logged = self.output.len();
    }

    /// Says what is left and the last word, and closes, as far as that can be done at once: others wait for the place. A client that
    /// reads hears of the message it has just sent; one that does not hears no more. Nothing is said before the greeting, or a refusal
    /// would stand in its place.
    pub(super) async fn close_at_once(&mut self, last_word: &Said) {
        if self.has_spoken {
            last_word.write(&mut self.output);
            let parting = async {
                self.flush().await?;
                self.stream.shutdown().await.map_err(|_| Lost::Gone)
            };
            // Heard or not: the place is given back.
            let _ = timeout(Duration::ZERO, parting).await;
        }
    }

    /// Sends what is left and closes; a client that was sent away gets the time to read why.
    pub(super) async fn close(&mut self, linger: bool) {
        let said = timeout(WRITE_MAX, self.flush()).await;
        if !matches!(said, Ok(Ok(()))) || timeout(LINGER, self.stream.shutdown()).await.is_err() || !linger {
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
            drop(wire);
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
        wire.close(true).await;
        assert_eq!(clock.now().since(START), WRITE_MAX);
    }
}
