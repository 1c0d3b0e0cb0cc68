//! Framing of content on its way out (`smtp/outgoing`): one end, at the end; CR and LF as CRLF alone; and our own reading of it gives
//! the content back.

use weir::smtp::outgoing::{DataEncoder, has_clean_lines};
use weir::smtp::{Decoder, Piece};

use super::kit::{self, normalized};

pub fn check(content: &[u8]) {
    let wire = encode(&[content]);
    assert_eq!(kit::content_length(&wire), Some(wire.len()), "one end of data, behind everything else");
    assert_eq!(normalized(&wire), wire, "CR and LF as CRLF alone");
    let plain = normalized(content);
    assert_eq!(read_back(&wire), plain);
    assert_eq!(has_clean_lines(content), !content.is_empty() && plain == content);
    for cut in kit::places(content.len()) {
        let (first, second) = content.split_at(cut);
        assert_eq!(encode(&[first, second]), wire, "cut at {cut}");
        assert_eq!(encode(&[first, b"", second, b""]), wire, "with pieces of nothing");
    }
    let octets: Vec<&[u8]> = content.chunks(1).collect();
    assert_eq!(encode(&octets), wire, "in single octets");
}

/// The second of two messages, so that nothing of the first may linger.
fn encode(pieces: &[&[u8]]) -> Vec<u8> {
    let mut encoder = DataEncoder::new();
    encoder.encode(b"first\r", &mut Vec::new());
    encoder.finish(&mut Vec::new());
    let mut wire = Vec::new();
    for piece in pieces {
        encoder.encode(piece, &mut wire);
    }
    encoder.finish(&mut wire);
    wire
}

fn read_back(wire: &[u8]) -> Vec<u8> {
    let (mut decoder, mut input, mut content) = (Decoder::new(), wire, Vec::new());
    while let Some(Piece::Content(octets)) = decoder.next(&mut input) {
        content.extend_from_slice(octets);
    }
    assert!(input.is_empty() && !decoder.has_bare_newline(), "our own server reads it as one clean message");
    content
}
