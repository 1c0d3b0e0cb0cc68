//! The part that is returned: the message, or its header alone.
//!
//! What is returned can be sent as it stands: a message that breaks SMTP's rules for lines comes back as its header,
//! with the lines mended.

use lettre::message::SinglePart;

use super::{LINE_MAX, Original, RETURNED_MAX, ReportRequest, pre_encoded};

pub(super) fn part(request: &ReportRequest<'_>) -> SinglePart {
    if let Original::Whole(content) = request.original
        && request.kind.returns_whole(request.envelope)
        && can_be_a_part(content)
    {
        let is_global = is_global(&content[..header_length(content)]);
        return pre_encoded(if is_global { "message/global" } else { "message/rfc822" }, content.to_vec());
    }
    let (Original::Header(content) | Original::Whole(content)) = request.original;
    let header = mended_lines(&content[..header_length(content)]);
    pre_encoded(if is_global(&header) { "message/global-headers" } else { "text/rfc822-headers" }, header)
}

/// A header in UTF-8 (RFC 6532 section 3.2). Other bytes beyond ASCII are a fault of old programs and no such header.
fn is_global(header: &[u8]) -> bool {
    !header.is_ascii() && std::str::from_utf8(header).is_ok()
}

/// May it stand in a report untouched? Every line ends in CR LF, none is too long, and there is no NUL.
fn can_be_a_part(content: &[u8]) -> bool {
    let is_good = |line: &[u8]| {
        line.strip_suffix(b"\r\n")
            .is_some_and(|line| line.len() <= LINE_MAX && memchr::memchr2(0, b'\r', line).is_none())
    };
    content.len() <= RETURNED_MAX && content.split_inclusive(|&b| b == b'\n').all(is_good)
}

/// Up to the empty line, that line not included.
fn header_length(content: &[u8]) -> usize {
    let limit = content.len().min(RETURNED_MAX);
    let mut at = 0;
    while at < limit {
        let end = memchr::memchr(b'\n', &content[at..]).map_or(content.len(), |i| at + i + 1);
        if matches!(&content[at..end], b"\r\n" | b"\n") {
            return at;
        }
        if end > limit {
            return at;
        }
        at = end;
    }
    at
}

/// Lines that can be sent: CR LF at their ends, cut where they are too long, NUL and stray CR as blanks.
fn mended_lines(text: &[u8]) -> Vec<u8> {
    let mut mended = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.get(..LINE_MAX).unwrap_or(line);
        mended.extend(line.iter().map(|&b| if matches!(b, 0 | b'\r') { b' ' } else { b }));
        mended.extend_from_slice(b"\r\n");
    }
    mended
}
