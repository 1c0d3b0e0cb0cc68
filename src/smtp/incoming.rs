//! Framing of content after DATA (RFC 5321 sections 4.1.1.4 and 4.5.2): where it ends, and its octets without stuffing. Content in
//! chunks (RFC 3030) has its length beside it: nothing in it ends it, and no dot is stuffing.
//!
//! Rules that always hold:
//! - the content ends at CR LF . CR LF, or at . CR LF right after 354, and at nothing else: no bare CR, bare LF, NUL, blank or foreign
//!   newline makes a line as far as framing is concerned, and no option changes that (CVE-2023-51764 to 51766 came from it);
//! - a dot at the start of such a line is taken off, every other octet passes;
//! - what goes out has CR and LF only as CRLF, whole in one piece: a CR or LF that stood alone becomes CRLF and is noted;
//! - how the octets were cut into reads changes nothing.

use memchr::{memchr, memchr2};

const CRLF: &[u8] = b"\r\n";

/// Finds the end of one message's content.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    state: State,
    /// The content comes in chunks.
    is_counted: bool,
    bare_newline: bool,
    nul: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Never empty; never ends between CR and LF.
    Content(&'a [u8]),
    /// The message is complete; what is left of the input follows it.
    End,
}

/// Where in a line the framing stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// After CRLF, or at the very start.
    #[default]
    LineStart,
    Text,
    /// A CR that was not passed on yet: LF or not decides what it is.
    Cr,
    /// A dot at the start of a line, not passed on.
    Dot,
    DotCr,
    Ended,
}

impl Decoder {
    /// For content behind DATA.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// For content in chunks: whoever reads it counts its octets, and says `finish` at its end.
    pub fn counted() -> Decoder {
        Decoder { is_counted: true, ..Decoder::default() }
    }

    /// Takes the next piece off `input`; `None` when more input is needed.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        loop {
            let first = *input.first()?;
            match (self.state, first) {
                (State::Ended, _) => return Some(Piece::End),
                (State::LineStart, b'.') if !self.is_counted => self.step(input, State::Dot),
                (State::Dot, b'\r') => self.step(input, State::DotCr),
                // The dot was stuffing, or should have been: RFC 5321 section 4.5.2 takes it off either way.
                (State::Dot, _) => self.state = State::Text,
                (State::DotCr, b'\n') => {
                    self.step(input, State::Ended);
                    return Some(Piece::End);
                }
                (State::Cr, b'\n') => {
                    self.step(input, State::LineStart);
                    return Some(Piece::Content(CRLF));
                }
                (State::Cr | State::DotCr, _) => return Some(self.bare()),
                (State::LineStart | State::Text, _) => {
                    if let Some(piece) = self.run(input) {
                        return Some(piece);
                    }
                }
            }
        }
    }

    /// What is missing at the end of counted content: its last line may have come without a line end.
    pub fn finish(&mut self) -> Option<Piece<'static>> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Cr => Some(self.bare()),
            State::Text => Some(Piece::Content(CRLF)),
            _ => None,
        }
    }

    /// Has a CR or LF stood alone?
    pub fn has_bare_newline(&self) -> bool {
        self.bare_newline
    }

    /// Has there been a NUL octet (RFC 5322 section 2.2 and 4 forbid it)?
    pub fn has_nul(&self) -> bool {
        self.nul
    }

    /// The longest stretch that passes as it is. Lines that end in CRLF and do not begin with a dot make one piece.
    fn run<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        let text = *input;
        let mut at = 0;
        loop {
            let Some(found) = memchr2(b'\r', b'\n', &text[at..]) else {
                return self.pass(input, text.len(), State::Text);
            };
            let end = at + found;
            match (text[end], text.get(end + 1)) {
                (b'\r', Some(b'\n')) => {
                    at = end + 2;
                    if text.get(at).is_none_or(|&b| b == b'.' && !self.is_counted) {
                        return self.pass(input, at, State::LineStart);
                    }
                }
                (b'\r', None) => {
                    let piece = self.pass(input, end, State::Cr);
                    *input = &input[1..];
                    return piece;
                }
                _ if end > 0 => return self.pass(input, end, State::Text),
                _ => {
                    self.step(input, State::Text);
                    return Some(self.bare());
                }
            }
        }
    }

    fn pass<'a>(&mut self, input: &mut &'a [u8], length: usize, state: State) -> Option<Piece<'a>> {
        let (piece, rest) = input.split_at(length);
        *input = rest;
        self.state = state;
        self.nul = self.nul || memchr(0, piece).is_some();
        (!piece.is_empty()).then_some(Piece::Content(piece))
    }

    fn step(&mut self, input: &mut &[u8], state: State) {
        *input = &input[1..];
        self.state = state;
    }

    /// A newline that was none: text goes on behind it as far as framing is concerned, where that looks for an end.
    fn bare(&mut self) -> Piece<'static> {
        self.bare_newline = true;
        self.state = if self.is_counted { State::LineStart } else { State::Text };
        Piece::Content(CRLF)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Content, what follows the end (none: no end came), and whether a bare newline or a NUL was noted.
    type Outcome = (Vec<u8>, Option<Vec<u8>>, bool, bool);

    fn decode(wire: &[u8], cuts: &[usize]) -> Outcome {
        let mut decoder = Decoder::new();
        let mut content = Vec::new();
        let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
        bounds.extend([0, wire.len()]);
        bounds.sort_unstable();
        for pair in bounds.windows(2) {
            let mut input = &wire[pair[0]..pair[1]];
            while let Some(piece) = decoder.next(&mut input) {
                match piece {
                    Piece::Content(bytes) => {
                        assert!(!bytes.is_empty() && bytes.last() != Some(&b'\r'));
                        content.extend_from_slice(bytes);
                    }
                    Piece::End => {
                        let rest = wire[pair[1] - input.len()..].to_vec();
                        return (content, Some(rest), decoder.has_bare_newline(), decoder.has_nul());
                    }
                }
            }
            assert!(input.is_empty());
        }
        (content, None, decoder.has_bare_newline(), decoder.has_nul())
    }

    #[test]
    fn only_crlf_dot_crlf_ends_the_content() {
        // (octets after "x", what becomes of them)
        let not_the_end: [(&[u8], &[u8]); 23] = [
            (b"\n.\n", b"\r\n.\r\n"),
            (b"\n.\r\n", b"\r\n.\r\n"),
            (b"\n.\r", b"\r\n.\r\n"),
            (b"\r.\r", b"\r\n.\r\n"),
            (b"\r.\n", b"\r\n.\r\n"),
            (b"\r.\r\n", b"\r\n.\r\n"),
            (b"\r\n.\n", b"\r\n\r\n"),
            (b"\r\n.\r", b"\r\n\r\n"),
            (b"\r\n.\r\r\n", b"\r\n\r\n\r\n"),
            (b"\r\r\n.\r\r\n", b"\r\n\r\n\r\n\r\n"),
            (b"\r\n\0.\r\n", b"\r\n\0.\r\n"),
            (b"\r\n.\0\r\n", b"\r\n\0\r\n"),
            (b"\r\n. \r\n", b"\r\n \r\n"),
            (b"\r\n .\r\n", b"\r\n .\r\n"),
            (b"\r\n.\t\r\n", b"\r\n\t\r\n"),
            (b"\r\n.\x0b\r\n", b"\r\n\x0b\r\n"),
            (b"\r\n.\x0c\r\n", b"\r\n\x0c\r\n"),
            (b"\x0b.\x0b", b"\x0b.\x0b"),
            (b"\x0c.\x0c", b"\x0c.\x0c"),
            (b"\x85.\x85", b"\x85.\x85"),
            ("\u{2028}.\u{2029}".as_bytes(), "\u{2028}.\u{2029}".as_bytes()),
            (b"\x8d\x8a\xae\x8d\x8a", b"\x8d\x8a\xae\x8d\x8a"),
            (b"\r\n..\r\n", b"\r\n.\r\n"),
        ];
        for (octets, becomes) in not_the_end {
            let wire = [b"x", octets, b"MAIL FROM:<a@b.example>\r\nDATA\r\n.\r\n"].concat();
            let expected = [b"x", becomes, b"MAIL FROM:<a@b.example>\r\nDATA\r\n"].concat();
            for cut in 0..wire.len() {
                let (content, rest, ..) = decode(&wire, &[cut, cut + 1]);
                assert_eq!(content, expected, "{}", octets.escape_ascii());
                assert_eq!(rest.as_deref(), Some(&b""[..]), "{}", octets.escape_ascii());
            }
        }
    }

    #[test]
    fn the_true_end_is_found_however_it_is_cut() {
        let wire = b"a\r\n.\r\nQUIT\r\n";
        for first in 0..wire.len() {
            for second in first..wire.len() {
                let (content, rest, bare, nul) = decode(wire, &[first, second]);
                assert_eq!(
                    (&content[..], rest.as_deref(), bare, nul),
                    (&b"a\r\n"[..], Some(&b"QUIT\r\n"[..]), false, false)
                );
            }
        }
        // Everything in pieces of one octet.
        let every: Vec<usize> = (0..wire.len()).collect();
        assert_eq!(decode(wire, &every).1.as_deref(), Some(&b"QUIT\r\n"[..]));
    }

    #[test]
    fn an_empty_message_ends_at_once() {
        assert_eq!(decode(b".\r\nQUIT", &[]), (vec![], Some(b"QUIT".to_vec()), false, false));
        assert_eq!(decode(b"\r\n.\r\n", &[]), (b"\r\n".to_vec(), Some(vec![]), false, false));
    }

    #[test]
    fn a_stray_cr_before_a_true_end_is_noted_and_the_end_kept() {
        let (content, rest, bare, _) = decode(b"x\r\r\n.\r\nQUIT", &[]);
        assert_eq!((&content[..], rest.as_deref(), bare), (&b"x\r\n\r\n"[..], Some(&b"QUIT"[..]), true));
    }

    #[test]
    fn notes_nul_and_bare_newlines() {
        for (wire, bare, nul) in [
            (&b"a\r\n.\r\n"[..], false, false),
            (b"a\nb\r\n.\r\n", true, false),
            (b"a\rb\r\n.\r\n", true, false),
            (b"a\0b\r\n.\r\n", false, true),
            (b".\rx\r\n.\r\n", true, false),
        ] {
            let outcome = decode(wire, &[]);
            assert_eq!((outcome.2, outcome.3), (bare, nul), "{}", wire.escape_ascii());
        }
    }

    /// The framing rule word for word: the first CRLF.CRLF, the start counting as if CRLF stood before it.
    fn end_by_the_book(wire: &[u8]) -> Option<usize> {
        let whole = [b"\r\n", wire].concat();
        whole.windows(5).position(|w| w == b"\r\n.\r\n").map(|at| at + 3)
    }

    fn wire() -> impl Strategy<Value = Vec<u8>> {
        let octet = prop_oneof![
            4 => Just(b"\r\n".to_vec()),
            3 => Just(b".".to_vec()),
            2 => Just(b"\r".to_vec()),
            2 => Just(b"\n".to_vec()),
            1 => Just(b"\0".to_vec()),
            2 => Just(b"text".to_vec()),
        ];
        prop::collection::vec(octet, 0..24).prop_map(|parts| parts.concat())
    }

    /// Content in chunks, read at these places; and whether a bare newline was noted.
    fn count(wire: &[u8], cuts: &[usize]) -> (Vec<u8>, bool) {
        let mut decoder = Decoder::counted();
        let mut content = Vec::new();
        let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
        bounds.extend([0, wire.len()]);
        bounds.sort_unstable();
        for pair in bounds.windows(2) {
            let mut input = &wire[pair[0]..pair[1]];
            while let Some(Piece::Content(octets)) = decoder.next(&mut input) {
                content.extend_from_slice(octets);
            }
            assert!(input.is_empty(), "counted content has no end of its own");
        }
        if let Some(Piece::Content(octets)) = decoder.finish() {
            content.extend_from_slice(octets);
        }
        (content, decoder.has_bare_newline())
    }

    #[test]
    fn nothing_in_chunks_ends_them_and_their_last_line_gets_its_end() {
        for (wire, content, bare) in [
            (&b"a\r\n.\r\n.b\r\n..\r\n"[..], &b"a\r\n.\r\n.b\r\n..\r\n"[..], false),
            (b".\r\n", b".\r\n", false),
            (b"", b"", false),
            (b"a", b"a\r\n", false),
            (b"a\r", b"a\r\n", true),
            (b"a\n.\n", b"a\r\n.\r\n", true),
        ] {
            assert_eq!(count(wire, &[]), (content.to_vec(), bare), "{}", wire.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn cuts_change_nothing_in_chunks_and_lines_end_in_crlf(wire in wire(), cuts in prop::collection::vec(any::<usize>(), 0..8)) {
            let whole = count(&wire, &[]);
            prop_assert_eq!(&count(&wire, &cuts), &whole);
            prop_assert!(whole.0.is_empty() || whole.0.ends_with(CRLF));
            prop_assert!(!String::from_utf8_lossy(&whole.0).replace("\r\n", "").contains(['\r', '\n']));
        }

        #[test]
        fn cuts_change_nothing_and_the_end_is_the_books(wire in wire(), cuts in prop::collection::vec(any::<usize>(), 0..8)) {
            let whole = decode(&wire, &[]);
            prop_assert_eq!(&decode(&wire, &cuts), &whole);
            prop_assert_eq!(whole.1.map(|rest| wire.len() - rest.len()), end_by_the_book(&wire));
            let without_pairs = String::from_utf8_lossy(&whole.0).replace("\r\n", "");
            prop_assert!(!without_pairs.contains(['\r', '\n']));
        }

        #[test]
        fn stuffed_text_comes_out_as_it_was(lines in prop::collection::vec("[.a\u{e9}\t ]{0,6}", 0..12)) {
            let mut stuffed = String::new();
            let mut plain = String::new();
            for line in &lines {
                stuffed.push_str(if line.starts_with('.') { "." } else { "" });
                stuffed.push_str(&format!("{line}\r\n"));
                plain.push_str(&format!("{line}\r\n"));
            }
            stuffed.push_str(".\r\nNOOP");
            let (content, rest, bare, _) = decode(stuffed.as_bytes(), &[]);
            prop_assert_eq!(content, plain.into_bytes());
            prop_assert_eq!(rest, Some(b"NOOP".to_vec()));
            prop_assert!(!bare);
        }
    }
}
