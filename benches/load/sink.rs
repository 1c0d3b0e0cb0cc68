//! A receiver that takes every message and keeps nothing, as cheap as it can be: what it uses is not the relay's.
//!
//! It offers what Outlook.com's hosts offer and reads as they do: whole flights, one answer for all that was read.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use memchr::memmem;

use super::traffic::{SENT, now_micros};

const BYE: &[u8] = b"221 2.0.0 bye\r\n";
const GREETING: &[u8] = b"220 mx.bench.test ESMTP\r\n";
const KEYWORDS: &[u8] = b"250-mx.bench.test\r\n250-SIZE 49283072\r\n250-PIPELINING\r\n250-DSN\r\n\
                          250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-CHUNKING\r\n250 SMTPUTF8\r\n";
const KEYWORDS_FEW: &[u8] = b"250-mx.bench.test\r\n250-SIZE 49283072\r\n250-PIPELINING\r\n250 8BITMIME\r\n";
/// In which a message says when it was sent.
const HEADER: usize = 4 << 10;
const TAKEN: &[u8] = b"250 2.6.0 <1@bench.test> [InternalId=1, Hostname=mx.bench.test] 12345 bytes in 0.1, 100 KB/sec \
                       Queued mail for delivery -> 250 2.1.5\r\n";

/// Listens until the process ends.
pub struct Sink {
    address: SocketAddr,
    counts: Arc<Counts>,
}

/// How it answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// It offers no CHUNKING, so that content comes by DATA.
    pub plain: bool,
    /// Before each answer: half a round trip there and half back.
    pub delay: Duration,
    /// Messages say when they were sent (`traffic`), and it keeps how long they took.
    pub stamped: bool,
}

#[derive(Default)]
struct Counts {
    manner: Manner,
    /// In microseconds.
    delays: Mutex<Vec<u64>>,
    accepted: AtomicUsize,
    /// Of the transactions that were accepted.
    recipients: AtomicUsize,
    open: AtomicUsize,
    peak: AtomicUsize,
}

impl Sink {
    pub fn start() -> Sink {
        Sink::with(Manner::default())
    }

    pub fn with(manner: Manner) -> Sink {
        let listener = TcpListener::bind("127.0.1.1:0").expect("a socket to listen on");
        let address = listener.local_addr().expect("the address of a bound socket");
        let counts = Arc::new(Counts { manner, ..Counts::default() });
        std::thread::spawn({
            let counts = counts.clone();
            move || {
                for stream in listener.incoming().flatten() {
                    let counts = counts.clone();
                    std::thread::spawn(move || counts.serve(stream));
                }
            }
        });
        Sink { address, counts }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Recipients of the messages it took.
    pub fn recipients(&self) -> usize {
        self.counts.recipients.load(Ordering::Relaxed)
    }

    /// How long the messages took that came since the last question, in microseconds, sorted.
    pub fn take_delays(&self) -> Vec<u64> {
        let mut delays = std::mem::take(&mut *self.counts.delays.lock().unwrap_or_else(PoisonError::into_inner));
        delays.sort_unstable();
        delays
    }

    /// The most connections that were open at once.
    pub fn peak(&self) -> usize {
        self.counts.peak.load(Ordering::Relaxed)
    }
}

impl Counts {
    fn serve(&self, stream: TcpStream) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(open, Ordering::Relaxed);
        // However it ends: the relay counts, not the sink.
        let _ = self.talk(stream);
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn talk(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        stream.write_all(GREETING)?;
        let mut buffer = vec![0; 256 << 10];
        let (mut filled, mut answers, mut named) = (0, Vec::new(), 0);
        loop {
            let count = stream.read(&mut buffer[filled..])?;
            if count == 0 {
                return Ok(());
            }
            filled += count;
            let mut taken = 0;
            while let Some(length) = self.take(&buffer[taken..filled], &mut answers, &mut named) {
                taken += length;
            }
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
            if !answers.is_empty() {
                if !self.manner.delay.is_zero() {
                    std::thread::sleep(self.manner.delay);
                }
                stream.write_all(&answers)?;
                // As RFC 5321 section 4.1.1.10 has it; a relay waits for the end, and the place is taken until then.
                if answers.ends_with(BYE) {
                    return Ok(());
                }
                answers.clear();
            }
        }
    }

    /// Answers the command that `input` begins with; its length with its content, none if it is not whole yet.
    fn take(&self, input: &[u8], answers: &mut Vec<u8>, named: &mut usize) -> Option<usize> {
        let line = memchr::memchr(b'\n', input)? + 1;
        let mut length = line;
        let answer: &[u8] = match input.get(..4)? {
            b"EHLO" if self.manner.plain => KEYWORDS_FEW,
            b"EHLO" => KEYWORDS,
            b"MAIL" => b"250 2.1.0 Sender OK\r\n",
            b"RCPT" => {
                *named += 1;
                b"250 2.1.5 Recipient OK\r\n"
            }
            b"BDAT" => {
                let mut words = input[..line].split(|b| b.is_ascii_whitespace()).skip(1);
                length += std::str::from_utf8(words.next()?).ok()?.parse::<usize>().ok()?;
                if input.len() < length {
                    return None;
                }
                self.took(&input[line..length], named);
                TAKEN
            }
            // The content stands behind it once the relay has read 354.
            b"DATA" if input.len() == line => b"354 Start mail input\r\n",
            b"QUIT" => BYE,
            b"RSET" => b"250 2.0.0 reset\r\n",
            _ => {
                length = memmem::find(input, b"\r\n.\r\n")? + 5;
                self.took(&input[..length], named);
                TAKEN
            }
        };
        answers.extend_from_slice(answer);
        Some(length)
    }

    fn took(&self, content: &[u8], named: &mut usize) {
        if self.manner.stamped {
            let header = &content[..content.len().min(HEADER)];
            let stamp = memmem::find(header, SENT).and_then(|at| {
                let digits = header.get(at + SENT.len()..)?.split(|octet| !octet.is_ascii_digit()).next()?;
                std::str::from_utf8(digits).ok()?.parse::<u64>().ok()
            });
            if let Some(stamp) = stamp {
                let delay = now_micros().saturating_sub(stamp);
                self.delays.lock().unwrap_or_else(PoisonError::into_inner).push(delay);
            }
        }
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.recipients.fetch_add(std::mem::take(named), Ordering::Relaxed);
    }
}
