//! The receiver's side of SMTP (RFC 5321) without I/O: octets in, replies out, one at a time.
//!
//! Knows PIPELINING, 8BITMIME, SIZE, ENHANCEDSTATUSCODES, DSN's parameters, SMTPUTF8 and CHUNKING (RFC 3030). Nothing is shared with the
//! relay's own reading of SMTP: a judge does not use the eyes of the judged. Rules that always hold:
//!
//! - replies come in the order of their commands, and [`Dialogue::next`] is asked for one only when the one before has been said, so
//!   each decision is taken at its own time, however much was pipelined;
//! - content is counted and not kept: what is held of a connection is one unfinished line and what was read with it.

use super::receiver::{Receiver, Said, SessionId};
use super::transaction::Mail;
use crate::types::{Reply, Timestamp};

/// A command line with its parameters, far above RFC 5321 section 4.5.3.1.4 and the extensions' additions.
const LINE_MAX: usize = 8192;
/// Content beyond what SIZE offers is read on, to answer it properly; beyond this the connection ends.
const CONTENT_MAX: u64 = 1 << 30;

#[derive(Debug)]
pub struct Dialogue {
    session: SessionId,
    /// EHLO or HELO was taken.
    greeted: bool,
    state: State,
    /// What was read and not yet understood, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// Octets of the content so far, over all chunks.
    content_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Commands,
    Data(Ending),
    Chunk { left: u64, last: bool, wanted: bool },
    Ended,
}

/// How much of CR LF dot CR LF the last octets are (RFC 5321 section 4.1.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Text,
    Cr,
    /// The beginning of a line.
    Line,
    Dot,
    DotCr,
}

impl Dialogue {
    pub fn new(session: SessionId) -> Dialogue {
        Dialogue { session, greeted: false, state: State::Commands, buffer: Vec::new(), start: 0, content_bytes: 0 }
    }

    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Takes what was read. Ask [`Dialogue::next`] until it wants more before the next read.
    pub fn feed(&mut self, octets: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(octets);
    }

    /// The next reply; none: more must be read first.
    pub fn next(&mut self, receiver: &mut Receiver, now: Timestamp) -> Option<Said> {
        loop {
            let said = match self.state {
                State::Ended => return None,
                State::Commands => self.command(receiver, now)?,
                State::Data(ending) => Some(self.data(ending, receiver, now)?),
                State::Chunk { .. } => Some(self.chunk(receiver, now)?),
            };
            if let Some(said) = said {
                if said.closes {
                    self.state = State::Ended;
                }
                return Some(said);
            }
        }
    }

    /// Outer none: no whole line yet; inner none: nothing is said to it.
    fn command(&mut self, receiver: &mut Receiver, now: Timestamp) -> Option<Option<Said>> {
        let unread = &self.buffer[self.start..];
        let Some(end) = memchr::memchr(b'\n', unread) else {
            return (unread.len() > LINE_MAX).then(|| Some(closing(receiver, 500, "5.5.2 Line too long")));
        };
        let line = String::from_utf8_lossy(&unread[..end]).trim_end_matches('\r').to_string();
        self.start += end + 1;
        Some(self.answer(&line, receiver, now))
    }

    fn answer(&mut self, line: &str, receiver: &mut Receiver, now: Timestamp) -> Option<Said> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let session = self.session;
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" | "HELO" => {
                let said = receiver.ehlo(session, rest.trim(), now);
                if said.reply.as_ref().is_some_and(Reply::is_positive) {
                    self.greeted = true;
                }
                Some(if verb.eq_ignore_ascii_case("HELO") { first_line(said) } else { said })
            }
            "MAIL" if !self.greeted => Some(receiver.object(503, "5.5.2 Send hello first")),
            "MAIL" => Some(match path(rest, "FROM:") {
                Some((sender, parameters)) => receiver.mail(session, &offer(sender, parameters), now),
                None => receiver.object(501, "5.1.7 Invalid address"),
            }),
            "RCPT" => Some(match path(rest, "TO:") {
                Some((recipient, _)) if !recipient.is_empty() => receiver.rcpt(session, recipient, now),
                _ => receiver.object(501, "5.1.3 Invalid address"),
            }),
            "DATA" => {
                let said = receiver.data(session, now);
                if said.reply.as_ref().is_some_and(|reply| reply.code() == 354) {
                    self.state = State::Data(Ending::Line);
                    self.content_bytes = 0;
                }
                Some(said)
            }
            "BDAT" => self.begin_chunk(rest, receiver),
            "RSET" => {
                self.content_bytes = 0;
                Some(receiver.reset(session, now))
            }
            "QUIT" => Some(receiver.quit(session, now)),
            "NOOP" => Some(receiver.say(250, "2.0.0 OK")),
            "VRFY" => Some(receiver.say(252, "2.1.5 Cannot VRFY user")),
            _ => Some(receiver.object(500, "5.3.3 Unrecognized command")),
        }
    }

    fn begin_chunk(&mut self, rest: &str, receiver: &mut Receiver) -> Option<Said> {
        let mut words = rest.split_ascii_whitespace();
        let left = words.next().and_then(|size| size.parse().ok()).filter(|left| *left <= CONTENT_MAX);
        let last = words.next().map(|word| word.eq_ignore_ascii_case("LAST"));
        match (left, last) {
            (Some(left), None | Some(true)) => {
                let wanted = receiver.has_recipients(self.session);
                self.state = State::Chunk { left, last: last.is_some(), wanted };
                None
            }
            // Where the chunk ends is unknown: nothing after it could be understood.
            _ => Some(closing(receiver, 501, "5.5.4 Invalid arguments")),
        }
    }

    fn chunk(&mut self, receiver: &mut Receiver, now: Timestamp) -> Option<Said> {
        let State::Chunk { left, last, wanted } = self.state else { return None };
        let unread = (self.buffer.len() - self.start) as u64;
        let taken = left.min(unread);
        self.start += usize::try_from(taken).unwrap_or(0);
        self.content_bytes = self.content_bytes.saturating_add(taken);
        if taken < left {
            self.state = State::Chunk { left: left - taken, last, wanted };
            return None;
        }
        self.state = State::Commands;
        if self.content_bytes > CONTENT_MAX {
            return Some(closing(receiver, 552, "5.3.4 Message size exceeds fixed maximum message size"));
        }
        if last || !wanted {
            let content_bytes = std::mem::take(&mut self.content_bytes);
            return Some(receiver.data_end(self.session, content_bytes, now));
        }
        Some(receiver.say(250, format!("2.0.0 {left} octets received")))
    }

    fn data(&mut self, mut ending: Ending, receiver: &mut Receiver, now: Timestamp) -> Option<Said> {
        while let Some(octet) = self.buffer.get(self.start) {
            self.start += 1;
            if ending == Ending::DotCr && *octet == b'\n' {
                self.state = State::Commands;
                let content_bytes = std::mem::take(&mut self.content_bytes);
                return Some(receiver.data_end(self.session, content_bytes, now));
            }
            self.content_bytes += ending.content(*octet);
            ending = ending.then(*octet);
        }
        self.state = State::Data(ending);
        (self.content_bytes > CONTENT_MAX)
            .then(|| closing(receiver, 552, "5.3.4 Message size exceeds fixed maximum message size"))
    }
}

impl Ending {
    /// How many octets of content it is now known that there are. A dot at the beginning of a line is never content: it is doubled, or
    /// the end. The CR behind it is content only if no LF follows.
    fn content(self, octet: u8) -> u64 {
        match (self, octet) {
            (Ending::Line, b'.') | (Ending::Dot, b'\r') => 0,
            (Ending::DotCr, _) => 2,
            _ => 1,
        }
    }

    fn then(self, octet: u8) -> Ending {
        match (self, octet) {
            (Ending::Line, b'.') => Ending::Dot,
            (Ending::Dot, b'\r') => Ending::DotCr,
            (Ending::Cr, b'\n') => Ending::Line,
            (_, b'\r') => Ending::Cr,
            _ => Ending::Text,
        }
    }
}

/// A refusal after which nothing can be understood any more.
fn closing(receiver: &mut Receiver, code: u16, text: &str) -> Said {
    Said { closes: true, ..receiver.object(code, text) }
}

/// HELO is answered with one line.
fn first_line(said: Said) -> Said {
    let reply = said.reply.map(|reply| Reply::new(reply.code(), reply.lines().next().unwrap_or_default()));
    Said { reply, ..said }
}

/// The path of MAIL or RCPT without its angle brackets, and the parameters behind it.
fn path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let head = rest.get(..keyword.len()).filter(|head| head.eq_ignore_ascii_case(keyword))?;
    let inner = rest[head.len()..].trim_start().strip_prefix('<')?;
    let (mut quoted, mut escaped) = (false, false);
    let end = inner.bytes().position(|octet| {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return true,
            _ => {}
        }
        false
    })?;
    Some((&inner[..end], &inner[end + 1..]))
}

fn offer<'a>(sender: &'a str, parameters: &'a str) -> Mail<'a> {
    let parameter = |name: &str| {
        let mut words = parameters.split_ascii_whitespace().filter_map(|word| word.split_once('='));
        words.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let size_bytes = parameter("SIZE").and_then(|size| size.parse().ok());
    Mail { sender, size_bytes, identity: parameter("ENVID") }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::simulate::Profile;

    /// Plays `octets` in pieces of `width`; all replies, as codes and first words.
    fn play(profile: &str, octets: &str, width: usize) -> (Vec<String>, Receiver) {
        let now = Timestamp::from_secs(1_795_000_000);
        let mut receiver = Receiver::new(Profile::parse(profile).unwrap(), 1, now);
        let (session, _) = receiver.connect(IpAddr::from([192, 0, 2, 1]), "mx.test", now);
        let mut dialogue = Dialogue::new(session.unwrap());
        let mut replies = Vec::new();
        for piece in octets.as_bytes().chunks(width) {
            dialogue.feed(piece);
            while let Some(said) = dialogue.next(&mut receiver, now) {
                let text = said.reply.unwrap().to_string();
                replies.push(text.chars().take(9).collect::<String>().trim_end().to_string());
            }
        }
        (replies, receiver)
    }

    #[test]
    fn dialogues_go_as_written_however_they_are_cut() {
        let table: &[(&str, &str, &[&str])] = &[
            (
                "a message",
                "EHLO a.test\r\nMAIL FROM:<a@a.test> SIZE=5\r\nRCPT TO:<b@b.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\nNOOP\r\n",
                &["250 mx.te", "250 2.1.0", "250 2.1.5", "354 Start", "250 2.6.0", "221 2.0.0"],
            ),
            (
                "dots that do not end it",
                "helo a\r\nmail from: <>\r\nrcpt to:<b@b.test>\r\ndata\r\n..\r\n.\r.\r\n.x\r\n\n.\n.\n\r\n.\r\n",
                &["250 mx.te", "250 2.1.0", "250 2.1.5", "354 Start", "250 2.6.0"],
            ),
            (
                "an empty message",
                "HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n.\r\nRSET\r\n",
                &["250 mx.te", "250 2.1.0", "250 2.1.5", "354 Start", "250 2.6.0", "250 2.0.0"],
            ),
            (
                "chunks",
                "EHLO a\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nBDAT 9\r\nQUIT\r\n.\r\nBDAT 0\r\nBDAT 3 LAST\r\n.\r\nNOOP\r\n",
                &["250 mx.te", "250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0", "250 2.6.0", "250 2.0.0"],
            ),
            (
                "chunks nobody wants",
                "EHLO a\r\nBDAT 6\r\nQUIT\r\nBDAT 2 LAST\r\nxxNOOP\r\n",
                &["250 mx.te", "503 5.5.2", "503 5.5.2", "250 2.0.0"],
            ),
            ("a chunk without a size", "EHLO a\r\nBDAT x\r\nNOOP\r\n", &["250 mx.te", "501 5.5.4"]),
            (
                "out of order",
                "MAIL FROM:<>\r\nEHLO a\r\nDATA\r\nRCPT TO:<b@b.test>\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\n",
                &["503 5.5.2", "250 mx.te", "503 5.5.2", "503 5.5.2", "250 2.1.0", "503 5.5.2", "503 5.5.2"],
            ),
            (
                "no paths",
                "EHLO a\r\nMAIL TO:<>\r\nMAIL FROM:a@a.test\r\nMAIL FROM:<a\r\nRCPT TO:<>\r\nMAI\r\n\r\nVRFY x\r\n",
                &[
                    "250 mx.te",
                    "501 5.1.7",
                    "501 5.1.7",
                    "501 5.1.7",
                    "501 5.1.3",
                    "500 5.3.3",
                    "500 5.3.3",
                    "252 2.1.5",
                ],
            ),
        ];
        for (name, octets, expected) in table {
            for width in [1, 7, 65_536] {
                let (replies, _) = play("", octets, width);
                assert_eq!(replies, *expected, "{name}, in pieces of {width}");
            }
        }
    }

    #[test]
    fn content_is_counted_without_its_stuffing_and_its_end() {
        let head = "HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n";
        for (content, bytes) in
            [("", 0), ("x\r\n", 3), ("..\r\n", 3), (".\rx\r\n", 4), (".\r\r\n", 3), ("a\r\r\n\n.\n\r\n", 9)]
        {
            for width in [1, 4096] {
                let octets = format!("{head}{content}.\r\n");
                let fits = format!("message_size = '{bytes} B'");
                assert_eq!(play(&fits, &octets, width).0.last().unwrap(), "250 2.6.0", "{content:?}");
                if bytes > 0 {
                    let too_small = format!("message_size = '{} B'", bytes - 1);
                    assert_eq!(play(&too_small, &octets, width).0.last().unwrap(), "552 5.3.4", "{content:?}");
                }
            }
        }
    }

    #[test]
    fn a_421_in_a_pipeline_ends_everything_behind_it() {
        let message = "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nBDAT 1 LAST\r\nx";
        let octets = format!("EHLO a\r\n{message}{message}");
        let (replies, receiver) = play("limits = { per_minute = 1 }", &octets, 65_536);
        assert_eq!(replies, ["250 mx.te", "250 2.1.0", "250 2.1.5", "250 2.6.0", "421 RP-00"]);
        assert_eq!(receiver.judgement().refused.rate, 1);
    }

    #[test]
    fn envid_tells_messages_apart_and_their_retransmission_is_seen() {
        let offer = |envid: &str| format!("MAIL FROM:<a@a.test> ENVID={envid}\r\nRCPT TO:<\"x>y\"@b.test>\r\nRSET\r\n");
        let profile = "mailboxes = { unknown = ['\"x>y\"@b.test'] }";
        let octets = format!("EHLO a\r\n{}{}", offer("1"), offer("2"));
        assert_eq!(play(profile, &octets, 4096).1.judgement().retransmitted, 0);
        let octets = format!("EHLO a\r\n{}{}", offer("1"), offer("1"));
        assert_eq!(play(profile, &octets, 4096).1.judgement().retransmitted, 1);
    }

    #[test]
    fn what_has_no_end_is_cut_off() {
        assert_eq!(play("", &"x".repeat(LINE_MAX + 10), 1000).0, ["500 5.5.2"]);
    }
}
