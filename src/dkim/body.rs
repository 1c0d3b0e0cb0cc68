//! The hash of a body in its relaxed form (RFC 6376 section 3.4.4), taken while the body comes in.
//!
//! Runs of blanks count as one, blanks at the end of a line and empty lines at the end of the body as none; a last line without an end
//! gets one. How the body is cut into pieces changes nothing. A CR or LF without the other ends a line as well: so it is sent.

use aws_lc_rs::digest::{Context, Digest, SHA256};
use memchr::{memchr, memchr2, memmem};

/// Octets that are collected for the hash.
const BLOCK: usize = 8 << 10;
const EMPTY_LINES: [u8; 512] = empty_lines();

const fn empty_lines() -> [u8; 512] {
    let mut lines = [b'\r'; 512];
    let mut at = 1;
    while at < lines.len() {
        lines[at] = b'\n';
        at += 2;
    }
    lines
}

/// Takes a body piece by piece.
pub struct BodyHash {
    context: Context,
    /// Line ends that count once something follows.
    ends: u64,
    /// A blank that counts once something follows in this line.
    blank: bool,
    /// The last octet was a CR: a LF that follows belongs to it.
    after_cr: bool,
    is_empty: bool,
}

impl Default for BodyHash {
    fn default() -> BodyHash {
        BodyHash { context: Context::new(&SHA256), ends: 0, blank: false, after_cr: false, is_empty: true }
    }
}

impl BodyHash {
    pub fn take(&mut self, mut octets: &[u8]) {
        if octets.is_empty() {
            return;
        }
        if std::mem::take(&mut self.after_cr) {
            octets = octets.strip_prefix(b"\n").unwrap_or(octets);
        }
        let mut out = Vec::with_capacity(octets.len().min(BLOCK) + 2);
        while !octets.is_empty() {
            let end = memchr2(b'\r', b'\n', octets);
            let (line, rest) = octets.split_at(end.unwrap_or(octets.len()));
            self.text(line, &mut out);
            octets = rest;
            if end.is_some() {
                let is_cr = octets[0] == b'\r';
                let is_pair = octets.starts_with(b"\r\n");
                self.after_cr = is_cr && octets.len() == 1;
                octets = &octets[if is_pair { 2 } else { 1 }..];
                self.ends += 1;
                self.blank = false;
            }
            if out.len() >= BLOCK {
                self.flush(&mut out);
            }
        }
        self.flush(&mut out);
    }

    pub fn finish(mut self) -> Digest {
        if !self.is_empty {
            self.context.update(b"\r\n");
        }
        self.context.finish()
    }

    /// Text within a line.
    fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let mut rest = text;
        while let Some(start) = rest.iter().position(|octet| !is_blank(*octet)) {
            self.blank |= start > 0;
            self.begin_word(out);
            rest = &rest[start..];
            // As far as there is nothing to change; mostly that is all of it.
            let end = [memchr(b'\t', rest), memmem::find(rest, b"  "), rest.ends_with(b" ").then(|| rest.len() - 1)];
            let end = end.into_iter().flatten().min().unwrap_or(rest.len());
            let end = rest[..end].iter().rposition(|octet| *octet != b' ').map_or(0, |last| last + 1);
            out.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
        }
        self.blank |= !rest.is_empty();
    }

    /// What was kept back counts now.
    fn begin_word(&mut self, out: &mut Vec<u8>) {
        if self.ends > 0 {
            self.flush(out);
            while self.ends > 0 {
                let some = self.ends.min(EMPTY_LINES.len() as u64 / 2);
                self.context.update(&EMPTY_LINES[..usize::try_from(some).unwrap_or(0) * 2]);
                self.ends -= some;
            }
        }
        if std::mem::take(&mut self.blank) {
            out.push(b' ');
        }
        self.is_empty = false;
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        self.context.update(out);
        out.clear();
    }
}

fn is_blank(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::digest;
    use proptest::prelude::*;

    use super::*;

    /// The slow and plain way, for bodies whose line ends are CRLF or single ones.
    fn relaxed(body: &[u8]) -> Vec<u8> {
        let mut lines: Vec<Vec<u8>> = vec![Vec::new()];
        for (at, &octet) in body.iter().enumerate() {
            match octet {
                b'\n' if at > 0 && body[at - 1] == b'\r' => {}
                b'\r' | b'\n' => lines.push(Vec::new()),
                b' ' | b'\t' if lines.last().unwrap().last() == Some(&b' ') => {}
                b' ' | b'\t' => lines.last_mut().unwrap().push(b' '),
                other => lines.last_mut().unwrap().push(other),
            }
        }
        for line in &mut lines {
            while line.last() == Some(&b' ') {
                line.pop();
            }
        }
        while lines.last().is_some_and(Vec::is_empty) {
            lines.pop();
        }
        lines.into_iter().flat_map(|line| [line, b"\r\n".to_vec()].concat()).collect()
    }

    fn hashed(pieces: &[&[u8]]) -> Vec<u8> {
        let mut hash = BodyHash::default();
        pieces.iter().for_each(|piece| hash.take(piece));
        hash.finish().as_ref().to_vec()
    }

    #[test]
    fn the_relaxed_form_is_that_of_the_standard() {
        for (body, form) in [
            (&b" C \r\nD \t E\r\n\r\n\r\n"[..], &b" C\r\nD E\r\n"[..]),
            (b"", b""),
            (b"\r\n", b""),
            (b" \t\r\n \r\n", b""),
            (b" ", b""),
            (b"a", b"a\r\n"),
            (b"\r\n\r\na", b"\r\n\r\na\r\n"),
            (b"\ta\t\tb  c \r\n", b" a b c\r\n"),
            (b"a\n b\rc", b"a\r\n b\r\nc\r\n"),
        ] {
            assert_eq!(relaxed(body), form, "{}", body.escape_ascii());
            assert_eq!(hashed(&[body]), digest(&SHA256, form).as_ref(), "{}", body.escape_ascii());
        }
        let many = [&b"\r\n".repeat(2000)[..], b"x"].concat();
        assert_eq!(hashed(&[&many]), digest(&SHA256, &relaxed(&many)).as_ref());
    }

    /// Bodies in which blanks and line ends are as frequent as letters.
    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        let octet = prop_oneof![Just(b' '), Just(b'\t'), Just(b'\r'), Just(b'\n'), Just(b'a'), any::<u8>()];
        prop::collection::vec(octet, 0..80)
    }

    proptest! {
        #[test]
        fn every_body_has_the_hash_of_its_relaxed_form_however_it_is_cut(
            body in bodies(),
            cuts in prop::collection::vec(0usize..80, 0..6),
        ) {
            let expected = digest(&SHA256, &relaxed(&body)).as_ref().to_vec();
            prop_assert_eq!(&hashed(&[&body]), &expected);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|window| &body[window[0]..window[1]]).collect();
            prop_assert_eq!(&hashed(&pieces), &expected);
        }
    }
}
