//! Framing of content after DATA, and of content in chunks (`smtp/incoming`): it ends where the standard says and nowhere else, however
//! the octets were cut.

use weir::smtp::{Decoder, Piece};

use super::kit;

pub fn check(wire: &[u8]) {
    let whole = decode(&[wire]);
    assert_eq!(whole, by_the_book(wire), "the framing differs from the standard's");
    for cut in kit::places(wire.len()) {
        let (first, second) = wire.split_at(cut);
        assert_eq!(decode(&[first, second]), whole, "cut at {cut}");
    }
    let octets: Vec<&[u8]> = wire.chunks(1).collect();
    assert_eq!(decode(&octets), whole, "in single octets");
    // In chunks nothing ends it, and no dot is stuffing.
    let counted = kit::normalized(wire);
    assert_eq!(count(&[wire]), counted);
    assert_eq!(count(&octets), counted, "in single octets");
    for cut in kit::places(wire.len()) {
        let (first, second) = wire.split_at(cut);
        assert_eq!(count(&[first, second]), counted, "cut at {cut}");
    }
}

fn count(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut decoder, mut content) = (Decoder::counted(), Vec::new());
    for piece in pieces {
        let mut input = *piece;
        while let Some(next) = decoder.next(&mut input) {
            let Piece::Content(octets) = next else { panic!("an end in {}", piece.escape_ascii()) };
            content.extend_from_slice(octets);
        }
    }
    if let Some(Piece::Content(octets)) = decoder.finish() {
        content.extend_from_slice(octets);
    }
    content
}

#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) content: Vec<u8>,
    /// How many octets belong to the content and its end; none if it does not end.
    length: Option<usize>,
    has_bare_newline: bool,
    has_nul: bool,
}

fn decode(pieces: &[&[u8]]) -> Outcome {
    let mut decoder = Decoder::new();
    let mut outcome = Outcome { content: Vec::new(), length: None, has_bare_newline: false, has_nul: false };
    let mut before = 0;
    'pieces: for piece in pieces {
        let mut input = *piece;
        while let Some(next) = decoder.next(&mut input) {
            match next {
                Piece::Content(octets) => {
                    assert!(
                        !octets.is_empty() && octets.last() != Some(&b'\r'),
                        "a piece is not empty and not cut in CRLF"
                    );
                    outcome.content.extend_from_slice(octets);
                }
                Piece::End => {
                    outcome.length = Some(before + piece.len() - input.len());
                    break 'pieces;
                }
            }
        }
        assert!(input.is_empty(), "what is no end is taken whole");
        before += piece.len();
    }
    outcome.has_bare_newline = decoder.has_bare_newline();
    outcome.has_nul = decoder.has_nul();
    outcome
}

/// RFC 5321 sections 4.1.1.4 and 4.5.2 word for word, octet by octet.
pub(crate) fn by_the_book(wire: &[u8]) -> Outcome {
    let length = kit::content_length(wire);
    let text = match length {
        Some(length) => &wire[..length - b".\r\n".len()],
        // A CR at the end of what has come is not decided yet, and not passed on.
        None => wire.strip_suffix(b"\r").unwrap_or(wire),
    };
    let mut outcome = Outcome { content: Vec::new(), length, has_bare_newline: false, has_nul: text.contains(&0) };
    for (at, &octet) in text.iter().enumerate() {
        let (before, after) = (text[..at].last(), text.get(at + 1));
        match octet {
            b'.' if at == 0 || text[..at].ends_with(b"\r\n") => {}
            b'\r' if after == Some(&b'\n') => {}
            b'\n' if before == Some(&b'\r') => outcome.content.extend_from_slice(b"\r\n"),
            b'\r' | b'\n' => {
                outcome.has_bare_newline = true;
                outcome.content.extend_from_slice(b"\r\n");
            }
            other => outcome.content.push(other),
        }
    }
    outcome
}
