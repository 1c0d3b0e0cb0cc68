//! A message's header, looked at while it arrives, and what weir puts before it (RFC 5322, RFC 6409 section 8).
//!
//! Rules that always hold:
//! - what weir adds stands in front: our `Received`, then `Date` and `Message-ID` where they are missing. All that the client sent
//!   follows as one piece, octet for octet, but for `X-Weir-Expire`, `X-Weir-At` and `X-Weir-Class`, which are orders to weir and taken out, and
//!   for the domains of addresses that have none, where its owner wants them put in (`Header::qualifying`);
//! - for that the header is held until its end was seen. Mostly it ends in the first piece, which then passes without a copy;
//! - a header of over `HELD_MAX` octets, or one its owner has no memory for, goes on as it comes, and what is missing in it is added
//!   at its end: then only the beginning of a line is held, until it is known what line it is, and no domain is put in;
//! - header and body are always parted by a blank line. Where the client sent none (the header is followed at once by a line that is
//!   no field, or by nothing) it is put in: what we call header and body is what every later reader and signature calls so;
//! - how the octets were cut into pieces changes nothing.

use std::ops::Range;
use std::time::Duration;

use memchr::memchr;

use crate::types::{Domain, Priority, Requests, Span, Timestamp, TransferPriority};

use super::from::{Authors, FROM_MAX};
use super::qualify;
use super::trace::Trace;

/// What must arrive within this time (`X-Weir-Expire`, BY with R) is urgent: a login code, whoever sends it with what header.
const URGENT: Duration = Duration::from_secs(3600);
/// Received fields a message may have: beyond, it goes in a circle (RFC 5321 section 6.3: "at least 100").
pub const RECEIVED_MAX: u32 = 100;
/// The longest header that is held. Usual ones have 1 to 10 KiB, those of mail with many hops and signatures under 50.
pub const HELD_MAX: usize = 64 << 10;
/// The longest field name: a line's length (RFC 5322 section 2.1.1).
const NAME_MAX: usize = 998;
/// The fields that name people (RFC 5322 sections 3.6.2 and 3.6.3).
const PEOPLE: [&str; 6] = ["From", "Sender", "Reply-To", "To", "Cc", "Bcc"];
/// Octets of a field's value that are looked at.
const VALUE_MAX: usize = 998;

/// What the header said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// With its angle brackets; the client's, or the one that was added.
    pub message_id: Option<String>,
    pub received: u32,
    /// `X-Weir-Expire`.
    pub expire: Option<Duration>,
    /// `X-Weir-At`: not to be tried before.
    pub at: Option<Timestamp>,
    /// There is an `X-Weir-At`, and it is no time.
    pub is_at_wrong: bool,
    /// `X-Weir-Class`.
    pub class: Option<Priority>,
    /// It says itself that it goes to many: List-Unsubscribe, List-Id or `Precedence: bulk`.
    pub is_bulk: bool,
    /// Whom it is from; `Missing` where nobody asked (`Header::reading_from`).
    pub authors: Authors,
}

impl Facts {
    /// How urgent the message is: `usual` where it does not say so itself, and never more than `most`. What the header says to weir alone
    /// goes before MT-PRIORITY, which any host on the way may have set.
    pub fn priority(&self, requests: &Requests, usual: Priority, most: Priority) -> Priority {
        let is_urgent = self.expire.into_iter().chain(requests.returns_after()).any(|span| span <= URGENT);
        let named = self.class.or(requests.priority.map(TransferPriority::class));
        let asked = named.unwrap_or(match (is_urgent, self.is_bulk) {
            (true, _) => Priority::High,
            (false, true) => Priority::Bulk,
            (false, false) => usual,
        });
        asked.at_most(most)
    }
}

/// Watches one message's header.
#[derive(Debug)]
pub struct Header {
    /// Our trace, and the values for what is missing, with their line ends.
    received: String,
    date: String,
    message_id: String,
    has_date: bool,
    has_message_id: bool,
    reads_from: bool,
    /// `@` and the domain for addresses without one.
    qualify: Option<Domain>,
    facts: Facts,
    progress: Progress,
    /// Octets that were not passed on, all of the header unless it was `Released`.
    held: Vec<u8>,
    /// How far into them the lines are known.
    known: usize,
    /// Those of the known ones that are taken out, in order.
    orders: Vec<Range<usize>>,
    /// Where among them a domain is put in, in order.
    gaps: Vec<usize>,
    /// Where the value of the field begins that the last known line belongs to, if it names people and the header is held.
    people: Option<usize>,
    /// Do the known ones end within a line?
    in_line: bool,
    field: Field,
    value: Vec<u8>,
}

/// What becomes of the octets that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// They are held until the header ends.
    Held,
    /// They go on: our trace stands before them already.
    Released,
    /// The header is over.
    Body,
}

/// The field the current line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// Before the first one.
    None,
    MessageId,
    Expire,
    At,
    Class,
    Precedence,
    From,
    Other,
}

/// What a line is, as far as its beginning shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Blank,
    Continuation,
    /// Length of the name, and where the colon stands.
    Field(usize, usize),
    /// No line of a header.
    Stranger,
    Unknown,
}

/// What parts header and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Separator {
    BlankLine,
    Missing,
}

impl Header {
    pub fn new(trace: &Trace<'_>) -> Header {
        Header {
            received: trace.received(),
            date: trace.date(),
            message_id: trace.message_id(),
            has_date: false,
            has_message_id: false,
            reads_from: false,
            qualify: None,
            facts: Facts::default(),
            progress: Progress::Held,
            held: Vec::new(),
            known: 0,
            orders: Vec::new(),
            gaps: Vec::new(),
            people: None,
            in_line: false,
            field: Field::None,
            value: Vec::new(),
        }
    }

    /// Finds out whom the message is from, too.
    pub fn reading_from(self) -> Header {
        Header { reads_from: true, ..self }
    }

    /// Puts this domain into the fields that name people, where an address has none.
    pub fn qualifying(self, domain: Option<Domain>) -> Header {
        Header { qualify: domain, ..self }
    }

    /// Is everything from here on body?
    pub fn is_over(&self) -> bool {
        self.progress == Progress::Body
    }

    /// What is known so far; all of it once the header is over.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Memory held back, in octets.
    pub fn held_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// Appends to `out` what may pass, and gives back the end of `piece` that passes behind it as it is.
    ///
    /// Pieces have CR and LF only as CRLF, never cut between the two (`incoming::Decoder` holds to that).
    pub fn pass<'a>(&mut self, piece: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        if self.is_over() {
            return piece;
        }
        let mut held = std::mem::take(&mut self.held);
        let before = held.len();
        if before > 0 {
            held.extend_from_slice(piece);
        }
        let text = if before > 0 { &held[..] } else { piece };
        if let Some(separator) = self.look(text) {
            // Nothing is put into this piece and nothing taken out: it need not be copied.
            let is_whole = before == 0
                && self.progress == Progress::Held
                && self.orders.is_empty()
                && self.gaps.is_empty()
                && (separator == Separator::BlankLine || self.known == 0);
            let written = if is_whole { 0 } else { before.max(self.known) };
            self.end(separator, &text[..written], out);
            return &piece[written - before..];
        }
        self.held = if before > 0 { held } else { piece.to_vec() };
        if self.progress == Progress::Released || self.held.len() > HELD_MAX {
            self.release(out);
        }
        &[]
    }

    /// Appends to `out` what is held and holds no more than the beginning of a line from here on.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        match self.progress {
            Progress::Held => out.extend_from_slice(self.received.as_bytes()),
            Progress::Released => {}
            Progress::Body => return,
        }
        self.progress = Progress::Released;
        self.people = None;
        let held = std::mem::take(&mut self.held);
        let (known, rest) = held.split_at(self.known);
        self.write_known(known, out);
        self.held = rest.to_vec();
        self.known = 0;
    }

    /// The content is complete: a header without an end gets one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.is_over() {
            let held = std::mem::take(&mut self.held);
            self.close_field(&held);
            self.end(Separator::Missing, &held, out);
        }
    }

    /// Goes through the lines of `text` that are not known yet, up to the end of the header.
    fn look(&mut self, text: &[u8]) -> Option<Separator> {
        while self.known < text.len() {
            let start = self.known;
            let mut value = start;
            if !self.in_line {
                match classify(&text[start..]) {
                    Kind::Unknown => return None,
                    Kind::Continuation if self.field != Field::None => {}
                    Kind::Field(name, colon) => {
                        self.close_field(text);
                        value += colon + 1;
                        self.open_field(&text[start..start + name], value);
                    }
                    end => {
                        self.close_field(text);
                        return Some(if end == Kind::Blank { Separator::BlankLine } else { Separator::Missing });
                    }
                }
            }
            let end = memchr(b'\n', &text[value..]).map(|at| value + at + 1);
            self.in_line = end.is_none();
            self.known = end.unwrap_or(text.len());
            self.note(&text[value..self.known]);
            self.mark(start..self.known);
        }
        None
    }

    /// `value`: where its value begins.
    fn open_field(&mut self, written: &[u8], value: usize) {
        let is = |name: &str| written.eq_ignore_ascii_case(name.as_bytes());
        self.field = Field::Other;
        let is_held = self.progress == Progress::Held && self.qualify.is_some();
        self.people = (is_held && PEOPLE.iter().any(|name| is(name))).then_some(value);
        if is("Received") {
            self.facts.received = self.facts.received.saturating_add(1);
        } else if is("Date") {
            self.has_date = true;
        } else if is("Message-ID") {
            self.has_message_id = true;
            self.field = Field::MessageId;
        } else if is("X-Weir-Expire") {
            self.field = Field::Expire;
        } else if is("X-Weir-Class") {
            self.field = Field::Class;
        } else if is("X-Weir-At") {
            self.field = Field::At;
        } else if is("Precedence") {
            self.field = Field::Precedence;
        } else if is("From") && self.reads_from {
            self.field = Field::From;
        } else if is("List-Unsubscribe") || is("List-Id") {
            self.facts.is_bulk = true;
        }
    }

    /// Keeps the value of a field that is read.
    fn note(&mut self, octets: &[u8]) {
        let max = match self.field {
            Field::MessageId | Field::Expire | Field::At | Field::Class | Field::Precedence => VALUE_MAX,
            // One octet more shows that there is more.
            Field::From => FROM_MAX + 1,
            Field::None | Field::Other => return,
        };
        let room = max.saturating_sub(self.value.len()).min(octets.len());
        self.value.extend_from_slice(&octets[..room]);
    }

    /// Notes what is to be taken out.
    fn mark(&mut self, stretch: Range<usize>) {
        if matches!(self.field, Field::Expire | Field::At | Field::Class) {
            match self.orders.last_mut() {
                Some(last) if last.end == stretch.start => last.end = stretch.end,
                _ => self.orders.push(stretch),
            }
        }
    }

    /// `text`: the lines that are known, and more.
    fn close_field(&mut self, text: &[u8]) {
        let mut value = std::mem::take(&mut self.value);
        if let (Some(start), Some(domain)) = (self.people.take(), &self.qualify) {
            let gaps = qualify::gaps(&text[start..self.known]);
            self.gaps.extend(gaps.into_iter().map(|gap| start + gap));
            value = qualify::filled(&value, &qualify::gaps(&value), domain.as_str());
        }
        let text = String::from_utf8_lossy(&value);
        match self.field {
            Field::MessageId if self.facts.message_id.is_none() => self.facts.message_id = bracketed(&text),
            // What cannot be read is passed over: the queue's own expiry holds.
            Field::Expire => {
                self.facts.expire = text.trim().parse::<Span>().ok().map(|span| span.0).or(self.facts.expire);
            }
            // Sent at once would be wrong, and so would any other guess: it is told.
            Field::At => {
                self.facts.at = Timestamp::parse_rfc3339(text.trim());
                self.facts.is_at_wrong |= self.facts.at.is_none();
            }
            Field::Class => {
                self.facts.class = text.trim().to_ascii_lowercase().parse().ok().or(self.facts.class);
            }
            Field::From => self.facts.authors.add(&value),
            Field::Precedence => self.facts.is_bulk |= text.trim().eq_ignore_ascii_case("bulk"),
            _ => {}
        }
        self.field = Field::Other;
    }

    /// Writes `text`, the last of the header and what follows it, with all that is to be added.
    fn end(&mut self, separator: Separator, text: &[u8], out: &mut Vec<u8>) {
        let (header, body) = text.split_at(self.known.min(text.len()));
        if self.progress == Progress::Held {
            out.extend_from_slice(self.received.as_bytes());
            self.add_missing(out);
            self.write_known(header, out);
        } else {
            self.write_known(header, out);
            self.add_missing(out);
        }
        if separator == Separator::Missing {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(body);
        self.progress = Progress::Body;
    }

    fn add_missing(&mut self, out: &mut Vec<u8>) {
        if !self.has_date {
            out.extend_from_slice(self.date.as_bytes());
        }
        if !self.has_message_id {
            for part in ["Message-ID: ", &self.message_id, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
            self.facts.message_id = Some(self.message_id.clone());
        }
    }

    /// Writes known lines without the orders among them, and with the domains that were missing.
    fn write_known(&mut self, known: &[u8], out: &mut Vec<u8>) {
        let (gaps, mut at) = (std::mem::take(&mut self.gaps), 0);
        let mut gaps = gaps.into_iter().peekable();
        let mut write = |stretch: Range<usize>| {
            let mut from = stretch.start;
            while let (Some(gap), Some(domain)) = (gaps.next_if(|gap| *gap <= stretch.end), &self.qualify) {
                out.extend_from_slice(&known[from..gap]);
                out.push(b'@');
                out.extend_from_slice(domain.as_str().as_bytes());
                from = gap;
            }
            out.extend_from_slice(&known[from..stretch.end]);
        };
        for order in self.orders.drain(..) {
            write(at..order.start);
            at = order.end;
        }
        write(at..known.len());
    }
}

/// Judges by the first octets of a line, so that no cut makes a difference.
fn classify(text: &[u8]) -> Kind {
    let line = &text[..text.len().min(NAME_MAX + 1)];
    let undecided = || if line.len() > NAME_MAX { Kind::Stranger } else { Kind::Unknown };
    match line.first() {
        None => return Kind::Unknown,
        Some(b'\r') => return Kind::Blank,
        Some(b' ' | b'\t') => return Kind::Continuation,
        _ => {}
    }
    let Some(name) = line.iter().position(|b| !matches!(b, b'!'..=b'9' | b';'..=b'~')) else {
        return undecided();
    };
    // Blanks between name and colon are obsolete syntax that must still be read (RFC 5322 section 4.5).
    let Some(after) = line[name..].iter().position(|b| !matches!(b, b' ' | b'\t')) else {
        return undecided();
    };
    match line.get(name + after) {
        Some(b':') if name > 0 => Kind::Field(name, name + after),
        _ => Kind::Stranger,
    }
}

/// `<...>` out of a Message-ID field, however it is folded.
fn bracketed(value: &str) -> Option<String> {
    let start = value.find('<')?;
    let end = start + value[start..].find('>')?;
    let id: String = value[start..=end].chars().filter(|c| !c.is_whitespace()).collect();
    (id.len() > 2 && !id.chars().any(char::is_control)).then_some(id)
}

#[cfg(test)]
mod tests;
