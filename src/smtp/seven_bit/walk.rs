//! Goes through a content and says where its parts begin and end (RFC 2046 section 5.1), piece by piece.
//!
//! Rules that always hold:
//! - every octet is in one event, in order: the events put together are the content;
//! - the line end before a delimiter belongs to the delimiter;
//! - a delimiter of a multipart ends all that is open within it.

use super::fields::{self, Kind};

/// The longest header of a part that is looked at.
const HEADER_MAX: usize = 256 << 10;
/// Multiparts and messages within each other.
const DEPTH_MAX: usize = 50;
/// No line this long is a delimiter: a boundary has at most 70 octets, and blanks may follow.
const DELIMITER_MAX: usize = 1000;

#[derive(Debug)]
pub(super) enum Event<'a> {
    /// The whole header with its blank line. `parent`: the place, in the order of these events, of the part that holds it.
    Header {
        octets: &'a [u8],
        kind: Kind,
        parent: Option<usize>,
        /// The header of a message, not that of a part.
        is_message: bool,
    },
    /// Of a part without parts.
    Body(&'a [u8]),
    /// Before the first part, or behind the last.
    Outside(&'a [u8]),
    /// With the line end before it.
    Delimiter(&'a [u8]),
    /// Nothing more is told apart: all that follows is `Outside`.
    TooComplex,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Body,
    Outside,
}

struct Open {
    /// None: a message, which ends where what holds it ends.
    boundary: Option<Vec<u8>>,
    part: usize,
}

pub(super) struct Walker {
    state: State,
    open: Vec<Open>,
    parts: usize,
    header: Vec<u8>,
    /// Where the current line of the header begins.
    header_line: usize,
    /// The beginning of a line that may be a delimiter.
    line: Vec<u8>,
    /// CR, or CR LF, that may belong to a delimiter.
    held: Vec<u8>,
    is_line_start: bool,
}

impl Default for Walker {
    fn default() -> Walker {
        Walker {
            state: State::Header,
            open: Vec::new(),
            parts: 0,
            header: Vec::new(),
            header_line: 0,
            line: Vec::new(),
            held: Vec::new(),
            is_line_start: true,
        }
    }
}

impl Walker {
    pub(super) fn feed(&mut self, mut octets: &[u8], tell: &mut impl FnMut(Event<'_>)) {
        while !octets.is_empty() {
            let used = match self.state {
                State::Header => self.take_header(octets, tell),
                State::Body | State::Outside => self.take_body(octets, tell),
            };
            octets = &octets[used..];
        }
    }

    /// What is there belongs to what is open.
    pub(super) fn finish(&mut self, tell: &mut impl FnMut(Event<'_>)) {
        if self.state == State::Header {
            if !self.header.is_empty() || self.parts == 0 {
                self.end_header(tell);
            }
            return;
        }
        let line = std::mem::take(&mut self.line);
        if self.closes(&line).is_some() {
            self.delimiter(&line, tell);
        } else {
            self.tell_held(tell);
            self.tell(&line, tell);
        }
        self.tell_held(tell);
    }

    /// Takes up to the end of a line; gives how much.
    fn take_header(&mut self, octets: &[u8], tell: &mut impl FnMut(Event<'_>)) -> usize {
        let end = memchr::memchr(b'\n', octets).map(|at| at + 1);
        let used = end.unwrap_or(octets.len());
        self.header.extend_from_slice(&octets[..used]);
        if self.header.len() > HEADER_MAX {
            self.give_up(tell);
            return used;
        }
        if end.is_none() {
            return used;
        }
        let line = &self.header[self.header_line..];
        if fields::is_blank(line) {
            self.end_header(tell);
        } else if self.closes(line).is_some() {
            // A part that ends in its header: its fields are all there is.
            let line = self.header.split_off(self.header_line);
            self.end_header(tell);
            self.delimiter(&line, tell);
        } else {
            self.header_line = self.header.len();
        }
        used
    }

    fn end_header(&mut self, tell: &mut impl FnMut(Event<'_>)) {
        let header = std::mem::take(&mut self.header);
        self.header_line = 0;
        let parent = self.open.last().map(|open| open.part);
        let is_message = self.open.last().is_none_or(|open| open.boundary.is_none());
        let (kind, boundary) = fields::kind(&header);
        let part = self.parts;
        self.parts += 1;
        tell(Event::Header { octets: &header, kind, parent, is_message });
        self.is_line_start = true;
        self.state = match kind {
            Kind::Message => State::Header,
            _ if kind.holds_others() => State::Outside,
            _ => State::Body,
        };
        if kind.holds_others() {
            self.open.push(Open { boundary, part });
            if self.open.len() > DEPTH_MAX {
                self.give_up(tell);
            }
        }
    }

    fn take_body(&mut self, octets: &[u8], tell: &mut impl FnMut(Event<'_>)) -> usize {
        if !self.line.is_empty() || (self.is_line_start && self.may_begin_delimiter(octets)) {
            return self.take_line(octets, tell);
        }
        self.is_line_start = false;
        // A CR that was held, and what it turns out to be.
        if self.held == b"\r" {
            if octets[0] == b'\n' {
                self.held.push(b'\n');
                self.is_line_start = true;
                return 1;
            }
            self.tell_held(tell);
        }
        self.tell_held(tell);
        let end = memchr::memchr2(b'\r', b'\n', octets).unwrap_or(octets.len());
        self.tell(&octets[..end], tell);
        match octets.get(end) {
            Some(b'\r') => self.held.push(b'\r'),
            // A line end of its own making: what follows may be a delimiter all the same.
            Some(_) => {
                self.held.push(b'\n');
                self.is_line_start = true;
            }
            None => return end,
        }
        end + 1
    }

    fn may_begin_delimiter(&self, octets: &[u8]) -> bool {
        octets[0] == b'-' && self.held != b"\r" && self.open.iter().any(|open| open.boundary.is_some())
    }

    /// Takes what may be a delimiter, up to the end of its line.
    fn take_line(&mut self, octets: &[u8], tell: &mut impl FnMut(Event<'_>)) -> usize {
        let end = memchr::memchr(b'\n', octets).map(|at| at + 1);
        let used = end.unwrap_or(octets.len()).min(DELIMITER_MAX);
        self.line.extend_from_slice(&octets[..used]);
        let is_whole = end == Some(used);
        let may_be = self.line.len() < 2 || self.line.starts_with(b"--");
        if may_be && !is_whole && self.line.len() < DELIMITER_MAX {
            return used;
        }
        let line = std::mem::take(&mut self.line);
        self.is_line_start = false;
        if is_whole && self.closes(&line).is_some() {
            self.delimiter(&line, tell);
            return used;
        }
        self.tell_held(tell);
        let text = line.strip_suffix(b"\r\n").or(line.strip_suffix(b"\n")).unwrap_or(&line);
        let (text, held) = match is_whole {
            true => (text, &line[text.len()..]),
            // A CR at the end may have its LF still to come.
            false => text.strip_suffix(b"\r").map_or((text, &b""[..]), |text| (text, &b"\r"[..])),
        };
        self.tell(text, tell);
        self.held.extend_from_slice(held);
        self.is_line_start = is_whole;
        used
    }

    /// Of which open multipart this is a delimiter, and whether it is the last one.
    fn closes(&self, line: &[u8]) -> Option<(usize, bool)> {
        let text = line.strip_prefix(b"--")?.trim_ascii_end();
        self.open.iter().enumerate().rev().find_map(|(at, open)| {
            let after = text.strip_prefix(open.boundary.as_deref()?)?;
            match after {
                b"" => Some((at, false)),
                b"--" => Some((at, true)),
                _ => None,
            }
        })
    }

    fn delimiter(&mut self, line: &[u8], tell: &mut impl FnMut(Event<'_>)) {
        let Some((at, is_last)) = self.closes(line) else { return };
        self.held.extend_from_slice(line);
        let end = match is_last {
            // The line end behind it begins what is outside.
            true => self.held.len() - (line.len() - line.trim_ascii_end().len()),
            false => self.held.len(),
        };
        let whole = std::mem::take(&mut self.held);
        tell(Event::Delimiter(&whole[..end]));
        self.open.truncate(if is_last { at } else { at + 1 });
        self.state = if is_last { State::Outside } else { State::Header };
        self.is_line_start = true;
        if is_last {
            self.held = whole[end..].to_vec();
            // Blanks behind a delimiter are padding, and no line end.
            let line_end = self.held.iter().position(|octet| matches!(octet, b'\r' | b'\n')).unwrap_or(self.held.len());
            let padding: Vec<u8> = self.held.drain(..line_end).collect();
            self.tell(&padding, tell);
        }
    }

    fn tell_held(&mut self, tell: &mut impl FnMut(Event<'_>)) {
        let held = std::mem::take(&mut self.held);
        self.tell(&held, tell);
    }

    fn tell(&self, octets: &[u8], tell: &mut impl FnMut(Event<'_>)) {
        match self.state {
            _ if octets.is_empty() => {}
            State::Body => tell(Event::Body(octets)),
            State::Header | State::Outside => tell(Event::Outside(octets)),
        }
    }

    fn give_up(&mut self, tell: &mut impl FnMut(Event<'_>)) {
        self.open.clear();
        self.state = State::Outside;
        tell(Event::TooComplex);
        let header = std::mem::take(&mut self.header);
        self.tell(&header, tell);
    }
}
