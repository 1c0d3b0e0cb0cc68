//! Reads replies from whatever bytes a peer sends (RFC 5321 section 4.2).
//!
//! - A line is three digits, the first of them 2 to 5, then `-` (more lines follow), or a blank or nothing (the last
//!   one), then text, which is kept byte for byte. Anything else is no reply, and the connection cannot be trusted.
//! - A line feed ends a line, with or without a carriage return before it; a carriage return alone is text.
//! - Where the lines of a reply disagree about the code, the last one's counts. Section 4.2.1 forbids the case and says
//!   that any line may be relied upon; the last is the one the server chose when it knew all.
//! - Memory is bounded whatever comes: see the constants.

use memchr::memchr;

use crate::types::Reply;

/// Text kept of one line; the rest of it is passed over. RFC 5321 section 4.5.3.1.5 allows 512, Microsoft sends up to some 700.
pub const LINE_KEPT_MAX: usize = 4 * 1024;
/// Lines of one reply. The longest EHLO answers have some thirty.
pub const LINES_MAX: usize = 100;
/// Bytes of one reply with all that was passed over: who sends more is not speaking SMTP.
pub const REPLY_BYTES_MAX: usize = 64 * 1024;

/// What of a line that is no reply is quoted in the error.
const QUOTED_MAX: usize = 80;

/// Takes bytes as they come and gives replies.
#[derive(Debug, Default)]
pub struct ReplyReader {
    /// The begun line.
    line: Vec<u8>,
    /// The text of the lines before it, joined by line feeds.
    text: Vec<u8>,
    lines: usize,
    /// Bytes of this reply, kept or not.
    seen: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("not an SMTP reply: \"{0}\"")]
    NotAReply(String),
    #[error("a reply of more than {LINES_MAX} lines or {REPLY_BYTES_MAX} bytes")]
    TooLong,
}

impl ReplyReader {
    pub fn new() -> ReplyReader {
        ReplyReader::default()
    }

    /// Takes bytes up to the end of one reply at most, and returns how many it took. Behind an error the reader is of
    /// no more use: where the next reply would begin is unknown.
    pub fn read(&mut self, input: &[u8]) -> (usize, Option<Result<Reply, ReplyError>>) {
        let mut taken = 0;
        while let Some(rest) = input.get(taken..).filter(|rest| !rest.is_empty()) {
            let line_end = memchr(b'\n', rest);
            let part = &rest[..line_end.unwrap_or(rest.len())];
            let length = line_end.map_or(rest.len(), |end| end + 1);
            taken += length;
            self.seen += length;
            if self.seen > REPLY_BYTES_MAX {
                return (taken, Some(Err(ReplyError::TooLong)));
            }
            let room = LINE_KEPT_MAX - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if line_end.is_some()
                && let Some(result) = self.end_line()
            {
                return (taken, Some(result));
            }
        }
        (taken, None)
    }

    /// A reply has begun and not ended.
    pub fn is_within_reply(&self) -> bool {
        self.seen > 0
    }

    fn end_line(&mut self) -> Option<Result<Reply, ReplyError>> {
        while self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        let Some((code, is_last, text)) = parse_line(&self.line) else {
            return Some(Err(ReplyError::NotAReply(quoted(&self.line))));
        };
        if self.lines > 0 {
            self.text.push(b'\n');
        }
        self.text.extend_from_slice(text);
        self.lines += 1;
        self.line.clear();
        if is_last {
            let text = std::mem::take(&mut self.text);
            (self.lines, self.seen) = (0, 0);
            return Some(Ok(Reply::new(code, text)));
        }
        (self.lines >= LINES_MAX).then_some(Err(ReplyError::TooLong))
    }
}

/// The code, whether this is the reply's last line, and the text.
fn parse_line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (&[a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'], rest) = line.split_first_chunk::<3>()? else {
        return None;
    };
    let code = [a, b, c].iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest {
        [] => Some((code, true, rest)),
        [b' ' | b'\t', text @ ..] => Some((code, true, text)),
        [b'-', text @ ..] => Some((code, false, text)),
        _ => None,
    }
}

/// The beginning of a line for people, without control characters.
fn quoted(line: &[u8]) -> String {
    let kept = &line[..line.len().min(QUOTED_MAX)];
    kept.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) -> Vec<Result<Reply, ReplyError>> {
        let mut reader = ReplyReader::new();
        let (mut replies, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let (taken, reply) = reader.read(&bytes[at..]);
            at += taken;
            let is_error = matches!(reply, Some(Err(_)));
            replies.extend(reply);
            if is_error {
                break;
            }
        }
        replies
    }

    fn one(bytes: &[u8]) -> (u16, Vec<u8>) {
        let replies = read_all(bytes);
        let [Ok(reply)] = &replies[..] else { panic!("{}: {replies:?}", bytes.escape_ascii()) };
        (reply.code(), reply.bytes().to_vec())
    }

    #[test]
    fn reads_every_form_of_a_reply() {
        for (bytes, code, text) in [
            (&b"250 ok\r\n"[..], 250, &b"ok"[..]),
            (b"250 ok\n", 250, b"ok"),
            (b"250 ok\r\r\n", 250, b"ok"),
            (b"250\r\n", 250, b""),
            (b"250 \r\n", 250, b""),
            (b"354\tgo\r\n", 354, b"go"),
            (b"250-a\r\n250-b\r\n250 c\r\n", 250, b"a\nb\nc"),
            (b"250-\r\n250\r\n", 250, b"\n"),
            (b"550 5.1.1 <a@b>: no\rsuch\0user \xff\r\n", 550, b"5.1.1 <a@b>: no\rsuch\0user \xff"),
            (b"550-one\r\n421 two\r\n", 421, b"one\ntwo"),
            (b"599 x\r\n", 599, b"x"),
        ] {
            assert_eq!(one(bytes), (code, text.to_vec()), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn replies_that_come_together_are_told_apart() {
        let codes: Vec<u16> =
            read_all(b"250 a\r\n550-b\r\n550 c\r\n354 d\r\n").into_iter().map(|r| r.unwrap().code()).collect();
        assert_eq!(codes, [250, 550, 354]);
    }

    #[test]
    fn what_is_no_reply_is_quoted() {
        for bytes in [
            &b"hello\r\n"[..],
            b"\r\n",
            b"25\r\n",
            b"-50 x\r\n",
            b"150 x\r\n",
            b"650 x\r\n",
            b"2500 x\r\n",
            b"250ok\r\n",
            b" 250 ok\r\n",
            b"250-a\r\nb\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
        ] {
            let replies = read_all(bytes);
            assert!(matches!(&replies[..], [Err(ReplyError::NotAReply(_))]), "{}: {replies:?}", bytes.escape_ascii());
        }
        assert_eq!(
            read_all(b"\x1b[2Jboo\r\n")[0].clone().unwrap_err().to_string(),
            r#"not an SMTP reply: "\x1b[2Jboo""#
        );
    }

    #[test]
    fn of_a_long_line_the_beginning_is_kept() {
        let line = [b"550 ".as_slice(), &[b'x'; 10_000], b"\r\n250 next\r\n"].concat();
        let replies = read_all(&line);
        assert_eq!(replies[0].as_ref().unwrap().bytes().len(), LINE_KEPT_MAX - 4);
        assert_eq!(replies[1].as_ref().unwrap().code(), 250);
    }

    #[test]
    fn endless_replies_end_in_an_error_and_never_fill_the_memory() {
        let endless_line = [b"250 ".as_slice(), &vec![b'x'; 1 << 20]].concat();
        let endless_lines = b"250-x\r\n".repeat(1000);
        let carriage_returns_only = b"250 ok\r".repeat(20_000);
        for bytes in [endless_line, endless_lines, carriage_returns_only] {
            assert_eq!(read_all(&bytes), [Err(ReplyError::TooLong)]);
            let mut reader = ReplyReader::new();
            for byte in bytes.chunks(100) {
                if let (_, Some(_)) = reader.read(byte) {
                    break;
                }
                assert!(reader.line.len() <= LINE_KEPT_MAX && reader.text.len() <= REPLY_BYTES_MAX);
            }
        }
    }

    #[test]
    fn limits_are_exact() {
        let lines = |n: usize| [b"250-x\r\n".repeat(n - 1), b"250 x\r\n".to_vec()].concat();
        assert!(read_all(&lines(LINES_MAX))[0].is_ok());
        assert!(read_all(&lines(LINES_MAX + 1))[0].is_err());
        let long = |n: usize| [b"250 ".as_slice(), &vec![b'x'; n - 6], b"\r\n"].concat();
        assert!(read_all(&long(REPLY_BYTES_MAX))[0].is_ok());
        assert!(read_all(&long(REPLY_BYTES_MAX + 1))[0].is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_the_cut_changes_nothing(
            bytes in proptest::collection::vec(prop_oneof![Just(b'2'), Just(b'5'), Just(b'-'), Just(b' '), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200),
            cut in 1usize..20,
        ) {
            let whole = read_all(&bytes);
            let mut reader = ReplyReader::new();
            let mut cut_up = Vec::new();
            'pieces: for piece in bytes.chunks(cut) {
                let mut at = 0;
                while at < piece.len() {
                    let (taken, reply) = reader.read(&piece[at..]);
                    at += taken;
                    let is_error = matches!(reply, Some(Err(_)));
                    cut_up.extend(reply);
                    if is_error {
                        break 'pieces;
                    }
                }
            }
            prop_assert_eq!(whole, cut_up);
        }

        #[test]
        fn text_is_kept_byte_for_byte(code in 200u16..600, lines in proptest::collection::vec(proptest::collection::vec(any::<u8>().prop_filter("line end", |b| !b"\r\n".contains(b)), 0..50), 1..5)) {
            let mut wire = Vec::new();
            for (i, line) in lines.iter().enumerate() {
                let separator = if i + 1 == lines.len() { ' ' } else { '-' };
                wire.extend_from_slice(format!("{code}{separator}").as_bytes());
                wire.extend_from_slice(line);
                wire.extend_from_slice(b"\r\n");
            }
            prop_assert_eq!(one(&wire), (code, lines.join(&b'\n')));
        }
    }
}
