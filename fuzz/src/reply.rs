//! Replies of receivers (`outbound/reply`): however the octets come in, the same replies are read, and never more is kept than the
//! limits say.

use weir::outbound::reply::{LINE_KEPT_MAX, LINES_MAX, REPLY_BYTES_MAX, ReplyError, ReplyReader};
use weir::types::Reply;

use super::kit;

pub fn check(bytes: &[u8]) {
    let whole = read(&[bytes]);
    for reply in whole.replies.iter() {
        is_sound(reply);
    }
    assert_eq!(whole, by_the_book(bytes), "read otherwise than the standard says");
    for cut in kit::places(bytes.len()) {
        let (first, second) = bytes.split_at(cut);
        assert_eq!(read(&[first, second]), whole, "cut at {cut}");
    }
    let octets: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(&octets), whole, "in single octets");
}

#[derive(Debug, PartialEq)]
struct Heard {
    replies: Vec<Reply>,
    error: Option<ReplyError>,
    /// A reply has begun.
    is_within: bool,
}

fn read(pieces: &[&[u8]]) -> Heard {
    let mut reader = ReplyReader::new();
    let mut heard = Heard { replies: Vec::new(), error: None, is_within: false };
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let (taken, reply) = reader.read(rest);
            assert!(taken > 0 && taken <= rest.len(), "it takes something, and no more than there is");
            rest = &rest[taken..];
            match reply {
                Some(Ok(reply)) => heard.replies.push(reply),
                Some(Err(error)) => {
                    heard.error = Some(error);
                    return heard;
                }
                None => assert!(rest.is_empty(), "it stops at the end of a reply alone"),
            }
        }
    }
    heard.is_within = reader.is_within_reply();
    heard
}

fn is_sound(reply: &Reply) {
    let code = reply.code();
    assert!((200..=599).contains(&code), "{code}");
    assert!(reply.bytes().len() <= REPLY_BYTES_MAX && reply.lines().count() <= LINES_MAX);
    assert!(reply.lines().all(|line| line.len() <= LINE_KEPT_MAX));
    let digits = [reply.is_positive(), code / 100 == 3, reply.is_transient(), reply.is_permanent()];
    assert_eq!(digits.iter().filter(|is| **is).count(), 1, "the first digit decides");
    if let Some(enhanced) = reply.enhanced() {
        assert!(matches!(enhanced.class, 2 | 4 | 5) && enhanced.subject <= 999 && enhanced.detail <= 999, "{enhanced}");
    }
    // What is written down for people is read as the same verdict.
    let written = reply.to_string();
    assert_eq!(Reply::parse(&written).map(|again| again.code()), Some(code), "{written:?}");
}

/// RFC 5321 section 4.2.1, line by line, with the limits of the reader.
fn by_the_book(bytes: &[u8]) -> Heard {
    let mut heard = Heard { replies: Vec::new(), error: None, is_within: false };
    let (mut lines, mut seen): (Vec<&[u8]>, usize) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|&octet| octet == b'\n') {
        seen += line.len();
        heard.is_within = true;
        if seen > REPLY_BYTES_MAX {
            return Heard { error: Some(ReplyError::TooLong), is_within: false, ..heard };
        }
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let kept = &line[..line.len().min(LINE_KEPT_MAX)];
        let end = kept.iter().rposition(|&octet| octet != b'\r').map_or(0, |at| at + 1);
        let kept = &kept[..end];
        let is_code = kept.len() >= 3 && (b'2'..=b'5').contains(&kept[0]) && kept[1..3].iter().all(u8::is_ascii_digit);
        if !is_code || !matches!(kept.get(3), None | Some(b' ' | b'\t' | b'-')) {
            let quoted = kept[..kept.len().min(80)].escape_ascii().to_string();
            return Heard { error: Some(ReplyError::NotAReply(quoted)), is_within: false, ..heard };
        }
        lines.push(kept.get(4..).unwrap_or(b""));
        if kept.get(3) == Some(&b'-') {
            if lines.len() >= LINES_MAX {
                return Heard { error: Some(ReplyError::TooLong), is_within: false, ..heard };
            }
            continue;
        }
        let code = kept[..3].iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        heard.replies.push(Reply::new(code, lines.join(&b'\n')));
        (lines, seen, heard.is_within) = (Vec::new(), 0, false);
    }
    heard
}
