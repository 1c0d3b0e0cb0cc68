//! Addresses without a domain in the header, from programs of our own: where the domain belongs (RFC 5322 section 3.4).
//!
//! `From: root (Cron Daemon)` is what cron writes. Rules that always hold:
//! - only a domain is put in; nothing else of a field changes;
//! - what is no list of addresses in every part is left as it is: a name without an address, quotes or brackets that do not end.

/// The places in a field's value where `@` and the domain are missing, in order. `value` is as it was received, folded or not.
pub(super) fn gaps(value: &[u8]) -> Vec<usize> {
    let mut scan = Scan { gaps: Vec::new(), words: Words::None, end: 0, has_route: false };
    let mut at = 0;
    while let Some(&octet) = value.get(at) {
        match octet {
            b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            b'(' => match comment(&value[at..]) {
                Some(length) => at += length,
                None => return Vec::new(),
            },
            b'"' => match quoted(&value[at..]) {
                Some(length) => {
                    scan.word(at, at + length);
                    at += length;
                }
                None => return Vec::new(),
            },
            b'<' => match bracketed(&value[at..]) {
                Some((length, gap)) => {
                    scan.route(gap.map(|gap| at + gap));
                    at += length;
                }
                None => return Vec::new(),
            },
            b',' | b';' => {
                scan.close();
                at += 1;
            }
            // The name of a group stood before it.
            b':' => {
                scan.reset();
                at += 1;
            }
            octet if is_atom(octet) => {
                let length = value[at..].iter().position(|octet| !is_atom(*octet)).unwrap_or(value.len() - at);
                scan.word(at, at + length);
                at += length;
            }
            // An `@` above all: this one has its domain, or is something else.
            _ => {
                scan.words = Words::Other;
                at += 1;
            }
        }
    }
    scan.close();
    scan.gaps
}

/// `text` with `@domain` in each of the gaps.
pub(super) fn filled(text: &[u8], gaps: &[usize], domain: &str) -> Vec<u8> {
    let mut filled = Vec::with_capacity(text.len() + gaps.len() * (domain.len() + 1));
    let mut from = 0;
    for &gap in gaps {
        filled.extend_from_slice(&text[from..gap]);
        filled.push(b'@');
        filled.extend_from_slice(domain.as_bytes());
        from = gap;
    }
    filled.extend_from_slice(&text[from..]);
    filled
}

/// What stands in the present element of the list, outside brackets and comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    None,
    /// One word, which may be an address.
    One,
    /// More than one, or what is no word.
    Other,
}

struct Scan {
    gaps: Vec<usize>,
    words: Words,
    /// Where the one word ends.
    end: usize,
    /// An address in brackets stood in this element.
    has_route: bool,
}

impl Scan {
    fn word(&mut self, start: usize, end: usize) {
        // Two that touch, as in `"a".b`, are one.
        let continues = self.words == Words::One && self.end == start;
        self.words = if self.words == Words::None || continues { Words::One } else { Words::Other };
        self.end = end;
    }

    fn route(&mut self, gap: Option<usize>) {
        self.gaps.extend(gap);
        self.has_route = true;
    }

    fn close(&mut self) {
        if self.words == Words::One && !self.has_route {
            self.gaps.push(self.end);
        }
        self.reset();
    }

    fn reset(&mut self) {
        (self.words, self.has_route) = (Words::None, false);
    }
}

/// RFC 5322 section 3.2.3, with the dot, and what is beyond ASCII.
fn is_atom(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || octet >= 0x80 || b"!#$%&'*+-/=?^_`{|}~.".contains(&octet)
}

/// The length of what begins with a quote.
fn quoted(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The length of what begins with a parenthesis. Comments may stand in comments.
fn comment(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0);
    loop {
        match text.get(at)? {
            b'(' => depth += 1,
            b')' if depth == 1 => return Some(at + 1),
            b')' => depth -= 1,
            b'\\' => at += 1,
            _ => {}
        }
        at += 1;
    }
}

/// The length of what begins with `<`, and where its domain is missing.
fn bracketed(text: &[u8]) -> Option<(usize, Option<usize>)> {
    let (mut at, mut words, mut end) = (1, Words::None, 0);
    loop {
        let length = match text.get(at)? {
            b'>' => return Some((at + 1, (words == Words::One).then_some(end))),
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'"' => quoted(&text[at..])?,
            octet if is_atom(*octet) => text[at..].iter().position(|octet| !is_atom(*octet))?,
            _ => {
                words = Words::Other;
                at += 1;
                continue;
            }
        };
        let continues = words == Words::One && end == at;
        words = if words == Words::None || continues { Words::One } else { Words::Other };
        at += length;
        end = at;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_an_address_without_a_domain_gets_one() {
        for (value, expected) in [
            (" root\r\n", " root@d.example\r\n"),
            (" root (Cron Daemon)\r\n", " root@d.example (Cron Daemon)\r\n"),
            (" \"(Cron Daemon)\" <root>\r\n", " \"(Cron Daemon)\" <root@d.example>\r\n"),
            (" Cron < root >, b@x.example, c\r\n", " Cron < root@d.example >, b@x.example, c@d.example\r\n"),
            (" a,\r\n\tb\r\n", " a@d.example,\r\n\tb@d.example\r\n"),
            (" \"a b\", \"c@d\"\r\n", " \"a b\"@d.example, \"c@d\"@d.example\r\n"),
            (" undisclosed-recipients:;\r\n", " undisclosed-recipients:;\r\n"),
            (" Team: a, b <c>; d\r\n", " Team: a@d.example, b <c@d.example>; d@d.example\r\n"),
            (" Cron Daemon\r\n", " Cron Daemon\r\n"),
            (" <>, a@b, <c@d>, \"x\" <>\r\n", " <>, a@b, <c@d>, \"x\" <>\r\n"),
            (" a @ b, c@[192.0.2.1]\r\n", " a @ b, c@[192.0.2.1]\r\n"),
            (" \"open\r\n", " \"open\r\n"),
            (" root (open\r\n", " root (open\r\n"),
            (" <root\r\n", " <root\r\n"),
            (" first.last\r\n", " first.last@d.example\r\n"),
            ("\r\n", "\r\n"),
        ] {
            let text = filled(value.as_bytes(), &gaps(value.as_bytes()), "d.example");
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn nothing_else_changes_and_nothing_is_put_in_twice(value in "[a@<>\"(), :;\\\\.\r\n]{0,40}") {
            let text = filled(value.as_bytes(), &gaps(value.as_bytes()), "d.example");
            let text = String::from_utf8(text).unwrap();
            prop_assert_eq!(text.replace("@d.example", ""), value);
            prop_assert_eq!(gaps(text.as_bytes()), Vec::<usize>::new());
        }
    }
}
