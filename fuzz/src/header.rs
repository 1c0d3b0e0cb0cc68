//! A message's header on its way in (`smtp/header`): what the client sent follows our trace octet for octet, without the orders to weir;
//! how it was cut into pieces changes nothing. The octets come in as lines of the wire, through the framing.

use weir::smtp::header::{Facts, Header};
use weir::smtp::trace::Trace;
use weir::smtp::{Decoder, Piece};
use weir::types::{QueueId, Timestamp};

use super::kit;

pub fn check(bytes: &[u8]) {
    // A message is handed over only when its end has come.
    let wire = &[bytes, b"\r\n.\r\n"].concat();
    let whole = receive(&[wire]);
    is_sound(wire, &whole);
    for cut in kit::places(wire.len()) {
        let (first, second) = wire.split_at(cut);
        assert_eq!(receive(&[first, second]), whole, "cut at {cut}");
    }
    let octets: Vec<&[u8]> = wire.chunks(1).collect();
    assert_eq!(receive(&octets), whole, "in single octets");
    // Without memory to hold it, the same fields stand in another order.
    let released = receive_released(wire);
    assert_eq!(released.facts, whole.facts);
    assert_eq!(sorted_lines(&released.written), sorted_lines(&whole.written));
}

#[derive(Debug, PartialEq)]
struct Received {
    written: Vec<u8>,
    facts: Facts,
}

fn trace() -> Trace<'static> {
    Trace {
        helo: "client.test",
        client: [192, 0, 2, 7].into(),
        hostname: "relay.test",
        protocol: "ESMTP",
        private: false,
        tls: None,
        priority: None,
        id: QueueId::from_key(5).expect("a key"),
        now: Timestamp::from_secs(1_795_293_220),
    }
}

/// As the session does it.
fn receive(pieces: &[&[u8]]) -> Received {
    let (mut header, mut decoder) = (Header::new(&trace()), Decoder::new());
    let mut written = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        while let Some(Piece::Content(octets)) = decoder.next(&mut input) {
            let rest = header.pass(octets, &mut written);
            written.extend_from_slice(rest);
        }
    }
    header.finish(&mut written);
    Received { written, facts: header.facts().clone() }
}

fn receive_released(wire: &[u8]) -> Received {
    let (mut header, mut decoder) = (Header::new(&trace()), Decoder::new());
    let (mut written, mut input) = (Vec::new(), wire);
    header.release(&mut written);
    while let Some(Piece::Content(octets)) = decoder.next(&mut input) {
        let rest = header.pass(octets, &mut written);
        written.extend_from_slice(rest);
    }
    header.finish(&mut written);
    Received { written, facts: header.facts().clone() }
}

fn sorted_lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = text.split_inclusive(|&octet| octet == b'\n').collect();
    lines.sort_unstable();
    lines
}

fn is_sound(wire: &[u8], whole: &Received) {
    let content = decoded(wire);
    let written = &whole.written;
    assert!(written.starts_with(b"Received: from client.test "), "our trace stands in front");
    assert!(kit::contains(written, b"\r\n\r\n"), "a blank line parts header and body");
    if let Some(id) = &whole.facts.message_id {
        assert!(id.starts_with('<') && id.ends_with('>') && !id.contains(char::is_control), "{id:?}");
    }
    if !has_order(&content) {
        let added = written.len() - content.len().min(written.len());
        assert!(added > 0 && added < 1000, "what is added is a few fields: {added}");
        let is_whole = written.ends_with(&content);
        assert!(is_whole || lacks_separator(written, &content), "the client's octets follow as one piece");
    }
}

fn decoded(wire: &[u8]) -> Vec<u8> {
    let (mut decoder, mut input, mut content) = (Decoder::new(), wire, Vec::new());
    while let Some(Piece::Content(octets)) = decoder.next(&mut input) {
        content.extend_from_slice(octets);
    }
    content
}

/// May a line be an order to weir, which is taken out?
pub(crate) fn has_order(content: &[u8]) -> bool {
    kit::contains(&content.to_ascii_lowercase(), b"x-weir-")
}

/// The blank line was put in: without it, the client's octets are there.
pub(crate) fn lacks_separator(written: &[u8], content: &[u8]) -> bool {
    let same = written.iter().rev().zip(content.iter().rev()).take_while(|(a, b)| a == b).count();
    let first = content.len() - same;
    (first..=content.len().min(first + 4)).any(|at| {
        let (fields, body) = content.split_at(at);
        written.ends_with(&[fields, b"\r\n", body].concat())
    })
}
