//! The server's dialogue, through the real connection code: octets thrown at it in every state.
//!
//! A client that knows nothing but the standard follows along: it takes the octets apart by the replies alone, and must agree with the
//! server about what was a command, what was content, and which messages were taken. However the octets are cut, the same is said.
//!
//! The input: an octet for the state the octets meet, one for client, settings and cut, then the octets.

use weir::smtp::Command;

use super::kit;
use super::shelf::{MESSAGE_SIZE, Outcome, STRANGER, Setting, converse};

/// How far a client has come when the octets are thrown.
const STATES: [&[u8]; 8] = [
    b"",
    b"HELO client.test\r\n",
    b"EHLO client.test\r\n",
    b"EHLO client.test\r\nMAIL FROM:<app@own.test> SMTPUTF8\r\n",
    b"EHLO client.test\r\nMAIL FROM:<app@own.test>\r\nRCPT TO:<u@x.test>\r\n",
    b"EHLO client.test\r\nMAIL FROM:<app@own.test>\r\nRCPT TO:<u@x.test>\r\nDATA\r\n",
    b"EHLO client.test\r\nMAIL FROM:<app@own.test>\r\nRCPT TO:<u@x.test>\r\nDATA\r\nSubject: s\r\n\r\nx\r\n.\r\n",
    b"EHLO client.test\r\nMAIL FROM:<app@own.test>\r\nRCPT TO:<suppressed@x.test>\r\n",
];

pub fn check(mut bytes: &[u8]) {
    let state = STATES[usize::from(kit::first(&mut bytes)) % STATES.len()];
    let choice = kit::first(&mut bytes);
    throw(Setting::of(choice), state, bytes, usize::from(choice >> 3));
}

/// Throws `octets` at a server in `state`: whole, cut once, and in pieces of `size`.
pub fn throw(setting: Setting, state: &[u8], octets: &[u8], size: usize) {
    let wire = [state, octets].concat();
    let whole = converse(setting, &[state, octets]);
    let replies = replies(&whole.heard);
    follow(&wire, &replies, &whole);
    if setting.client == STRANGER {
        assert!(whole.stored.is_empty(), "a stranger relays nothing");
    }
    let middle = octets.len() / 2;
    says_the_same(&whole, &converse(setting, &[state, &octets[..middle], &octets[middle..]]), "cut in the middle");
    let mut pieces = vec![state];
    // At most some 64 pieces: less than a second of the paused clock.
    pieces.extend(octets.chunks(size.max(octets.len().div_ceil(64)).max(1)));
    says_the_same(&whole, &converse(setting, &pieces), "in small pieces");
}

fn says_the_same(whole: &Outcome, cut: &Outcome, how: &str) {
    // Who talks before it is his turn is sent away only where that shows: in octets that came together.
    let is_out_of_step = |outcome: &Outcome| kit::contains(&outcome.heard, b"554 5.5.0 ");
    if !is_out_of_step(whole) && !is_out_of_step(cut) {
        let text = |outcome: &Outcome| outcome.heard.escape_ascii().to_string();
        assert_eq!(text(cut), text(whole), "{how}");
        assert_eq!(cut.stored, whole.stored, "{how}");
    }
}

/// The replies, each with all its lines: ASCII, CRLF, 512 octets a line at most (RFC 5321 section 4.5.3.1.5).
fn replies(heard: &[u8]) -> Vec<String> {
    let mut replies: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in heard.split_inclusive(|&octet| octet == b'\n') {
        let text = line.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("no CRLF: {}", line.escape_ascii()));
        assert!(
            line.len() <= 512 && text.iter().all(|&b| b == b' ' || b.is_ascii_graphic()),
            "{}",
            text.escape_ascii()
        );
        let text = String::from_utf8_lossy(text).into_owned();
        let code: u16 = text.get(..3).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no code: {text}"));
        assert!((200..600).contains(&code), "{text}");
        match replies.last_mut().filter(|_| is_open) {
            Some(open) => {
                assert_eq!(open.get(..3), text.get(..3), "one code in all lines of a reply");
                open.push('\n');
                open.push_str(&text);
            }
            None => replies.push(text.clone()),
        }
        is_open = text.as_bytes()[3] == b'-';
    }
    assert!(!is_open, "a reply has a last line");
    replies
}

/// Takes the octets apart by the replies, as the client understands them, and counts the messages that were taken.
fn follow(wire: &[u8], replies: &[String], outcome: &Outcome) {
    let mut client = Follower { wire, replies, taken: Vec::new(), chunks: Vec::new() };
    assert!(client.reply().is_some_and(|greeting| greeting.starts_with("220 ")));
    let (mut last, mut last_line): (&str, &[u8]) = ("", b"");
    while let Some(line) = client.line() {
        let Some(reply) = client.reply() else {
            assert!(may_close(last_line, last), "closed after {last:?}, before {}", line.escape_ascii());
            break;
        };
        assert!(answers(line, reply) || last.starts_with("334 "), "{reply:?} to {}", line.escape_ascii());
        (last, last_line) = (reply, line);
        if reply.starts_with("354 ") {
            let Some(answer) = client.content() else { break };
            last = answer;
        } else if let Ok(Command::Bdat { octets, .. }) = Command::parse(line.strip_suffix(b"\r").unwrap_or(line)) {
            // The reply to a chunk comes behind it; what is closed after a refusal takes none.
            if !client.chunk(octets, reply) {
                break;
            }
        } else if reply.starts_with("250") && !is(line, b"RCPT") {
            client.chunks.clear();
        }
    }
    // Content behind a refused DATA is answered without being asked.
    let rest: Vec<&String> = client.replies.iter().collect();
    assert!(
        rest.is_empty() || (rest.len() == 1 && rest[0].starts_with("554 5.5.0 ")),
        "nobody asked for {rest:?}, after {last:?}"
    );
    assert_eq!(outcome.stored.len(), client.taken.len(), "250 at the end of data, and messages taken");
    for (stored, content) in outcome.stored.iter().zip(&client.taken) {
        is_the_content(&stored.body, content);
        assert!(!stored.recipients.is_empty(), "a message goes to somebody");
    }
}

/// Does the line begin with this word, in whatever case?
fn is(line: &[u8], word: &[u8]) -> bool {
    line.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// Can the reply be one to this line? If lines were obeyed that are none, some answers stand beside the wrong line.
fn answers(line: &[u8], reply: &str) -> bool {
    match reply.get(..4).unwrap_or_default() {
        "250-" => is(line, b"EHLO"),
        "221 " => is(line, b"QUIT"),
        "214 " => is(line, b"HELP"),
        "252 " => is(line, b"VRFY"),
        "354 " => is(line, b"DATA"),
        "220 " => is(line, b"STARTTLS"),
        "235 " | "334 " => is(line, b"AUTH"),
        "250 " if reply.contains(" 2.1.0 ") => is(line, b"MAIL"),
        "250 " if reply.contains(" 2.1.5 ") => is(line, b"RCPT"),
        "250 " if reply.contains("queued as") || reply.contains("octets taken") => is(line, b"BDAT"),
        "250 " => [&b"HELO"[..], b"EHLO", b"RSET", b"NOOP"].iter().any(|word| is(line, word)),
        _ => true,
    }
}

/// After which words the dialogue may be over, and to which lines.
fn may_close(line: &[u8], reply: &str) -> bool {
    // Octets that nobody can count, or nobody takes; a line without end; HTTP.
    let is_refusal = reply.starts_with('5') && is(line, b"BDAT");
    is_refusal || ["221 ", "421 ", "500 5.5.2 ", "554 5.5.0 "].iter().any(|code| reply.starts_with(code))
}

/// A client that reads what it wrote a second time, beside the replies.
struct Follower<'a> {
    wire: &'a [u8],
    replies: &'a [String],
    /// Contents that were taken, as they should stand in the spool.
    taken: Vec<Vec<u8>>,
    chunks: Vec<u8>,
}

impl<'a> Follower<'a> {
    fn reply(&mut self) -> Option<&'a str> {
        let (reply, rest) = self.replies.split_first()?;
        self.replies = rest;
        Some(reply)
    }

    /// The next line, without its line feed; none where there is no whole one.
    fn line(&mut self) -> Option<&'a [u8]> {
        let length = self.wire.iter().position(|&octet| octet == b'\n')?;
        let line = &self.wire[..length];
        self.wire = &self.wire[length + 1..];
        Some(line)
    }

    /// Content behind 354, and the answer to it; none where it does not end.
    fn content(&mut self) -> Option<&'a str> {
        let (content, rest) = self.wire.split_at(kit::content_length(self.wire)?);
        self.wire = rest;
        let answer = self.reply().expect("an answer to the message");
        if answer.starts_with("250 ") {
            self.taken.push(super::incoming::by_the_book(content).content);
        }
        Some(answer)
    }

    /// The octets of a chunk, which `reply` was said to. False where the dialogue does not go on.
    fn chunk(&mut self, octets: Option<u64>, reply: &str) -> bool {
        let length = octets.filter(|octets| *octets <= MESSAGE_SIZE).and_then(|octets| usize::try_from(octets).ok());
        let Some(length) = length.filter(|length| *length <= self.wire.len()) else { return false };
        let (chunk, rest) = self.wire.split_at(length);
        self.wire = rest;
        self.chunks.extend_from_slice(chunk);
        if reply.contains("queued as") {
            self.taken.push(kit::normalized(&std::mem::take(&mut self.chunks)));
        } else if !reply.starts_with("250") {
            self.chunks.clear();
        }
        true
    }
}

/// What was taken is what the client sent, its lines mended, behind our trace.
fn is_the_content(body: &[u8], sent: &[u8]) {
    assert!(body.starts_with(b"Received: from "), "{}", body.escape_ascii());
    assert!(!body.contains(&0) && body.ends_with(b"\r\n") && kit::normalized(body) == body, "{}", body.escape_ascii());
    let is_whole = body.ends_with(sent) || super::header::lacks_separator(body, sent);
    assert!(is_whole || super::header::has_order(sent), "{}", body.escape_ascii());
}
