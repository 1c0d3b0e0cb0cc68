//! Mail handed in by plain SMTP over many sessions at once, to any relay: every message says when it was sent, so that whoever receives it knows
//! how long it took.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Before the number of microseconds, in the first field of a message.
pub const SENT: &[u8] = b"X-Sent: ";
const DIGITS: usize = 16;

static BEGIN: OnceLock<Instant> = OnceLock::new();

/// Microseconds since the first question.
pub fn now_micros() -> u64 {
    u64::try_from(BEGIN.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// How mail is handed in.
#[derive(Clone, Debug)]
pub struct Traffic {
    pub sessions: usize,
    pub size_bytes: usize,
    /// Of each message.
    pub recipients: usize,
    /// Messages a second in all; none: as fast as they are taken.
    pub rate: Option<f64>,
    /// Each message on a connection of its own.
    pub connection_each: bool,
}

/// When it ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    Messages(usize),
    Time(Duration),
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Taken {
    pub messages: usize,
    pub took: Duration,
    /// From each end of data to its 250, sorted.
    pub waits: Vec<Duration>,
}

impl Traffic {
    /// Hands in mail until then; every refusal ends the program, for a rate with refusals says nothing.
    pub fn run(&self, relay: SocketAddr, until: Until) -> Taken {
        let content = self.content();
        let begun = Instant::now();
        let mut waits: Vec<Duration> = std::thread::scope(|scope| {
            let content = &content;
            let sessions: Vec<_> = (0..self.sessions)
                .map(|number| scope.spawn(move || self.session(relay, number, content, until, begun)))
                .collect();
            sessions.into_iter().flat_map(|session| session.join().expect("a session of the load")).collect()
        });
        let took = begun.elapsed();
        waits.sort();
        Taken { messages: waits.len(), took, waits }
    }

    fn session(&self, relay: SocketAddr, number: usize, content: &[u8], until: Until, begun: Instant) -> Vec<Duration> {
        let (mut waits, mut content, mut connection) = (Vec::new(), content.to_vec(), None);
        let share = |messages: usize| messages / self.sessions + usize::from(number < messages % self.sessions);
        for n in 0.. {
            let is_over = match until {
                Until::Messages(messages) => n >= share(messages),
                Until::Time(length) => begun.elapsed() >= length,
            };
            if is_over {
                break;
            }
            if let Some(rate) = self.rate {
                let due = begun + Duration::from_secs_f64((n * self.sessions + number) as f64 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let client = connection.get_or_insert_with(|| Client::connect(relay));
            let stamp = format!("{:0width$}", now_micros(), width = DIGITS);
            content[SENT.len()..SENT.len() + DIGITS].copy_from_slice(stamp.as_bytes());
            waits.push(client.hand_in(&self.envelope(number, n), self.recipients, &content));
            if self.connection_each {
                connection.take().expect("there is one").quit();
            }
        }
        if let Some(client) = connection {
            client.quit();
        }
        waits
    }

    /// In one flight, as Postfix sends it. Every message to somebody else, as in a mailing.
    fn envelope(&self, session: usize, n: usize) -> String {
        let mut text = "MAIL FROM:<app@sender.test>\r\n".to_string();
        for k in 0..self.recipients {
            text.push_str(&format!("RCPT TO:<u{session}.{n}.{k}@bench.test>\r\n"));
        }
        text + "DATA\r\n"
    }

    /// With its end of data.
    fn content(&self) -> Vec<u8> {
        let mut chance = fastrand::Rng::with_seed(10);
        let mut content =
            [SENT, &[b'0'; DIGITS], b"\r\nFrom: App <app@sender.test>\r\nTo: u@bench.test\r\nSubject: load\r\n"]
                .concat();
        content.extend_from_slice(b"Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <load@sender.test>\r\n\r\n");
        while content.len() < self.size_bytes.saturating_sub(2) {
            let length = (self.size_bytes - 2 - content.len()).min(76);
            content.extend(std::iter::repeat_with(|| chance.alphanumeric() as u8).take(length));
            content.extend_from_slice(b"\r\n");
        }
        content.extend_from_slice(b".\r\n");
        content
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(relay: SocketAddr) -> Client {
        let stream = TcpStream::connect(relay).expect("the relay's port");
        stream.set_nodelay(true).expect("no delay");
        let mut client = Client(BufReader::new(stream));
        client.expect("220");
        client.send(b"EHLO client.test\r\n");
        client.expect("250");
        client
    }

    /// How long the end of data waited for its answer.
    fn hand_in(&mut self, envelope: &str, recipients: usize, content: &[u8]) -> Duration {
        self.send(envelope.as_bytes());
        for _ in 0..=recipients {
            self.expect("250");
        }
        self.expect("354");
        self.send(content);
        let sent = Instant::now();
        self.expect("250");
        sent.elapsed()
    }

    fn quit(mut self) {
        self.send(b"QUIT\r\n");
        self.expect("221");
    }

    fn send(&mut self, octets: &[u8]) {
        self.0.get_mut().write_all(octets).expect("the relay reads");
    }

    fn expect(&mut self, code: &str) {
        let mut line = String::new();
        loop {
            line.clear();
            self.0.read_line(&mut line).expect("the relay answers");
            assert!(line.starts_with(code), "{code} was expected: {line:?}");
            if line.as_bytes().get(3) != Some(&b'-') {
                return;
            }
        }
    }
}
