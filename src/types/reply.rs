//! An SMTP reply as it was received (RFC 5321 section 4.2), byte for byte.
//!
//! The text keeps the receiver's own words: they stand in bounces, events and `queue show` exactly as they came.
//! Lines of a multi-line reply are separated by line feeds, each without its code. The first digit alone decides
//! whether a reply is a success, a deferral or a rejection (section 4.2.1); the enhanced code (RFC 3463) is only read.

use std::borrow::Cow;
use std::fmt;

/// A reply: its code and its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    text: Box<[u8]>,
}

/// An enhanced status code, `5.1.1` (RFC 3463).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Enhanced {
    pub class: u8,
    pub subject: u16,
    pub detail: u16,
}

impl Reply {
    /// `text`: the lines joined by `\n`, without codes and line ends.
    pub fn new(code: u16, text: impl Into<Vec<u8>>) -> Reply {
        Reply { code, text: text.into().into_boxed_slice() }
    }

    /// Reads the form people write: `550 5.1.1 no such user`, further lines after line feeds, with or without the code.
    pub fn parse(text: &str) -> Option<Reply> {
        let mut code = None;
        let mut lines = Vec::new();
        for line in text.trim_end_matches(['\r', '\n']).split('\n') {
            let line = line.trim_end_matches('\r');
            let digits = line.get(..3).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
            let rest = line.get(3..).filter(|r| r.is_empty() || r.starts_with([' ', '-']));
            match (digits.and_then(|d| d.parse::<u16>().ok()), rest) {
                (Some(number), Some(rest)) if code.is_none_or(|c| c == number) => {
                    code = Some(number);
                    lines.push(rest.get(1..).unwrap_or(""));
                }
                _ => lines.push(line),
            }
        }
        Some(Reply::new(code?, lines.join("\n")))
    }

    pub fn code(&self) -> u16 {
        self.code
    }

    /// The text, lines separated by line feeds.
    pub fn bytes(&self) -> &[u8] {
        &self.text
    }

    /// The text for people; what is not UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.text)
    }

    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text.split(|&b| b == b'\n')
    }

    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// The enhanced code at the start of the first line, if one stands there.
    pub fn enhanced(&self) -> Option<Enhanced> {
        Enhanced::at_start(&self.text)
    }
}

impl Enhanced {
    pub const fn new(class: u8, subject: u16, detail: u16) -> Enhanced {
        Enhanced { class, subject, detail }
    }

    /// Reads `5.1.1` at the start of `text`, ended by a blank, a line end or the end.
    pub fn at_start(text: &[u8]) -> Option<Enhanced> {
        let end = text.iter().position(|b| !b.is_ascii_digit() && *b != b'.').unwrap_or(text.len());
        if text.get(end).is_some_and(|b| !b" \t\r\n-:;,".contains(b)) {
            return None;
        }
        let mut parts = std::str::from_utf8(&text[..end]).ok()?.split('.');
        let mut number = |digits: usize| {
            let part = parts.next()?;
            (1..=digits).contains(&part.len()).then(|| part.parse::<u16>().ok()).flatten()
        };
        let (class, subject, detail) = (number(1)?, number(3)?, number(3)?);
        let class = u8::try_from(class).ok().filter(|c| matches!(c, 2 | 4 | 5))?;
        parts.next().is_none().then_some(Enhanced { class, subject, detail })
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl fmt::Debug for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.code)?;
        if !self.text.is_empty() {
            write!(f, " {}", self.text())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let reply = Reply::parse("550-5.7.1 first\n550 5.7.1 second\r\n").unwrap();
        assert_eq!((reply.code(), reply.bytes()), (550, &b"5.7.1 first\n5.7.1 second"[..]));
        assert_eq!(Reply::parse("421").unwrap().bytes(), b"");
        assert_eq!(Reply::parse("550 one\ntwo").unwrap().bytes(), b"one\ntwo");
        assert!(Reply::parse("no code").is_none());
        assert!(Reply::parse("").is_none());
    }

    #[test]
    fn finds_the_enhanced_code() {
        for (text, code) in [
            ("5.1.1 unknown", Some(Enhanced::new(5, 1, 1))),
            ("4.7.650 slow", Some(Enhanced::new(4, 7, 650))),
            ("5.1.1", Some(Enhanced::new(5, 1, 1))),
            ("RP-001 (x)", None),
            ("1.2.3 x", None),
            ("5.1 x", None),
            ("5.1.1.1 x", None),
            ("5.1.1x", None),
            ("5..1 x", None),
            ("", None),
        ] {
            assert_eq!(Reply::new(550, text).enhanced(), code, "{text}");
        }
    }
}
