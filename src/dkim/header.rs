//! Watches the header of a content that comes in, and keeps the fields that matter to signatures in their relaxed form (RFC 6376 section
//! 3.4.2): names in lower case, unfolded, runs of blanks as one.
//!
//! Rules that always hold: of everything else nothing is kept; what is kept has a limit; how the header is cut into pieces changes nothing.

use memchr::memchr;

use super::select;

/// Octets of fields that are kept of one message: some thousand addresses in To and Cc.
const KEPT_MAX: usize = 256 << 10;
/// The longest name of a field: a line's length (RFC 5322 section 2.1.1).
const NAME_MAX: usize = 998;
/// A signature that is there already.
const SIGNATURE: &str = "DKIM-Signature";

/// A field in its relaxed form: `name:value` and CRLF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    text: Vec<u8>,
    /// Where its colon stands.
    colon: usize,
}

impl Field {
    /// None: there is no name.
    pub(super) fn of(raw: &[u8]) -> Option<Field> {
        let colon = memchr(b':', raw)?;
        let name = raw[..colon].trim_ascii_end().to_ascii_lowercase();
        let colon = name.len();
        let mut text = name;
        text.push(b':');
        let start = text.len();
        relax(&raw[memchr(b':', raw)? + 1..], &mut text);
        debug_assert!(text.len() >= start);
        text.extend_from_slice(b"\r\n");
        (colon > 0).then_some(Field { text, colon })
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.text[..self.colon].eq_ignore_ascii_case(name.as_bytes())
    }

    /// As it is hashed.
    pub(super) fn relaxed(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.text[self.colon + 1..self.text.len() - 2]
    }
}

/// Appends `value` with its runs of blanks and line ends as one blank, and none at its ends.
pub(super) fn relax(value: &[u8], out: &mut Vec<u8>) {
    let words = value.split(|octet| matches!(octet, b' ' | b'\t' | b'\r' | b'\n')).filter(|word| !word.is_empty());
    for (at, word) in words.enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

/// What becomes of the field whose lines come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Now {
    /// Its name is not known yet.
    #[default]
    Unknown,
    Kept,
    Passed,
}

#[derive(Debug)]
pub(super) struct Scan {
    fields: Vec<Field>,
    /// The field whose lines come, as they are.
    raw: Vec<u8>,
    now: Now,
    at_line_start: bool,
    kept_octets: usize,
    /// Of the fields that are over.
    closed_octets: usize,
}

impl Default for Scan {
    fn default() -> Scan {
        Scan {
            fields: Vec::new(),
            raw: Vec::new(),
            now: Now::Unknown,
            at_line_start: true,
            kept_octets: 0,
            closed_octets: 0,
        }
    }
}

impl Scan {
    /// Takes the next octets of a header; gives how many of them belong to it when it ends within them: the blank line comes
    /// behind it. CRLF are never cut in two.
    pub(super) fn take(&mut self, octets: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < octets.len() {
            if self.at_line_start {
                match octets[at] {
                    b'\r' | b'\n' => {
                        self.close();
                        return Some(at);
                    }
                    b' ' | b'\t' => {}
                    _ => self.close(),
                }
            }
            let end = memchr(b'\n', &octets[at..]).map(|length| at + length + 1);
            self.line(&octets[at..end.unwrap_or(octets.len())]);
            self.at_line_start = end.is_some();
            at = end.unwrap_or(octets.len());
        }
        None
    }

    /// The header is over without a blank line.
    pub(super) fn close(&mut self) {
        if self.now == Now::Kept
            && let Some(field) = Field::of(&self.raw)
        {
            self.closed_octets += field.text.len();
            self.fields.push(field);
        }
        self.raw.clear();
        self.now = Now::Unknown;
    }

    /// Memory in use.
    pub(super) fn held_octets(&self) -> usize {
        self.closed_octets + self.raw.capacity()
    }

    /// Are there more of them than are kept?
    pub(super) fn is_too_large(&self) -> bool {
        self.kept_octets > KEPT_MAX
    }

    /// Those that are over, from the top down.
    pub(super) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The signatures that are there already.
    pub(super) fn signatures(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.is(SIGNATURE))
    }

    /// Takes a part of a line.
    fn line(&mut self, octets: &[u8]) {
        if self.now == Now::Passed {
            return;
        }
        let before = self.raw.len();
        self.raw.extend_from_slice(octets);
        if self.now == Now::Unknown {
            match memchr(b':', &self.raw) {
                Some(colon) => {
                    let name = self.raw[..colon].trim_ascii_end();
                    let is_kept = select::is_signed(name) || name.eq_ignore_ascii_case(SIGNATURE.as_bytes());
                    self.now = if is_kept { Now::Kept } else { Now::Passed };
                    self.kept_octets += if is_kept { before } else { 0 };
                }
                None if self.raw.len() > NAME_MAX || self.raw.ends_with(b"\n") => self.now = Now::Passed,
                None => return,
            }
        }
        self.kept_octets += if self.now == Now::Kept { octets.len() } else { 0 };
        if self.now == Now::Passed || self.is_too_large() {
            self.raw.clear();
            self.now = Now::Passed;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(header: &[u8], size: usize) -> (Vec<Field>, usize) {
        let (mut scan, mut taken) = (Scan::default(), 0);
        for piece in header.chunks(size) {
            match scan.take(piece) {
                Some(end) => return (scan.fields, taken + end),
                None => taken += piece.len(),
            }
        }
        scan.close();
        (scan.fields, taken)
    }

    #[test]
    fn fields_are_kept_in_their_relaxed_form() {
        for (raw, relaxed) in [
            ("A: X\r\n", "a:X\r\n"),
            ("B : Y\t\r\n\tZ  \r\n", "b:Y Z\r\n"),
            ("Subject:\r\n", "subject:\r\n"),
            ("SUBJECT \t:\r\n \r\n\t x\r\n", "subject:x\r\n"),
            ("From:a@b (c:d)\r\n", "from:a@b (c:d)\r\n"),
        ] {
            let field = Field::of(raw.as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(field.relaxed()), relaxed, "{raw}");
        }
        assert_eq!(Field::of(b": x"), None);
    }

    #[test]
    fn only_what_matters_is_kept_however_the_header_is_cut() {
        let header = b"Received: from a\r\n by b\r\nFROM: a@b\r\n c\r\nX-Long: x\r\nTo:\r\n b@c\r\n\r\nDate: body\r\n";
        let end = header.len() - 14;
        for size in 1..header.len() {
            // A CRLF is never cut in two.
            if header.chunks(size).any(|piece| piece.ends_with(b"\r")) {
                continue;
            }
            let (fields, at) = kept(header, size);
            let texts: Vec<_> = fields.iter().map(|field| String::from_utf8_lossy(field.relaxed())).collect();
            assert_eq!((texts, at), (vec!["from:a@b c\r\n".into(), "to:b@c\r\n".into()], end), "{size}");
        }
    }

    #[test]
    fn what_is_kept_has_a_limit() {
        let mut scan = Scan::default();
        scan.take(b"From: a@b\r\nTo: x\r\n");
        for _ in 0..KEPT_MAX / 16 + 1 {
            scan.take(b" 0123456789abc\r\n");
        }
        assert!(scan.is_too_large() && scan.raw.is_empty());
        let mut long = Scan::default();
        long.take(&[b'x'; 5000]);
        assert!(long.raw.is_empty() && !long.is_too_large());
    }

    proptest! {
        #[test]
        fn nothing_panics(header in prop::collection::vec(any::<u8>(), 0..300)) {
            Scan::default().take(&header);
        }
    }
}
