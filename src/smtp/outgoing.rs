//! A message's content as it is sent behind DATA (RFC 5321 sections 2.3.8 and 4.5.2).
//!
//! Rules that always hold, whatever the content and however it is cut into pieces:
//! - a CR is followed by a LF and a LF preceded by a CR: a stray one of either becomes CRLF, so that no receiver can
//!   see a line end where another sees none (CVE-2023-51764 and its like);
//! - a dot at the beginning of a line is doubled;
//! - the output ends with CRLF, a dot, CRLF, and has that sequence nowhere before.

use memchr::memchr2;

const CRLF: &[u8] = b"\r\n";

/// Encodes one message after the other, each as any number of `encode` and one `finish`.
#[derive(Clone, Debug)]
pub struct DataEncoder {
    /// The next byte begins a line.
    at_line_start: bool,
    /// The last byte was a CR, already written as CRLF: a LF that follows belongs to it.
    after_cr: bool,
}

impl Default for DataEncoder {
    fn default() -> DataEncoder {
        DataEncoder::new()
    }
}

impl DataEncoder {
    pub fn new() -> DataEncoder {
        DataEncoder { at_line_start: true, after_cr: false }
    }

    /// Appends the encoded form of `input` to `out`.
    pub fn encode(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        if input.is_empty() {
            return;
        }
        if std::mem::take(&mut self.after_cr) {
            input = input.strip_prefix(b"\n").unwrap_or(input);
        }
        out.reserve(input.len());
        // `input[..copied]` stands in `out`; `input[..at]` was looked at. Good lines are copied many at a time.
        let (mut copied, mut at) = (0, 0);
        while at < input.len() {
            if self.at_line_start && input[at] == b'.' {
                out.extend_from_slice(&input[copied..at]);
                out.push(b'.');
                copied = at;
            }
            let Some(length) = memchr2(b'\r', b'\n', &input[at..]) else {
                self.at_line_start = false;
                break;
            };
            let end = at + length;
            if input[end..].starts_with(CRLF) {
                at = end + CRLF.len();
            } else {
                out.extend_from_slice(&input[copied..end]);
                out.extend_from_slice(CRLF);
                at = end + 1;
                copied = at;
                self.after_cr = input[end] == b'\r' && at == input.len();
            }
            self.at_line_start = true;
        }
        out.extend_from_slice(&input[copied..]);
    }

    /// Appends the end of data, and a CRLF before it if the content lacks one. Ready for the next message then.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.at_line_start {
            out.extend_from_slice(CRLF);
        }
        out.extend_from_slice(b".\r\n");
        *self = DataEncoder::new();
    }
}

/// Does `content` have only CRLF line ends, the last one at its end? Then it may be sent as it is behind BDAT (RFC 3030).
pub fn has_clean_lines(content: &[u8]) -> bool {
    let mut rest = content;
    while let Some(length) = memchr2(b'\r', b'\n', rest) {
        match rest[length..].strip_prefix(CRLF) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty() && !content.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(pieces: &[&[u8]]) -> Vec<u8> {
        let mut encoder = DataEncoder::new();
        let mut out = Vec::new();
        for piece in pieces {
            encoder.encode(piece, &mut out);
        }
        encoder.finish(&mut out);
        out
    }

    #[test]
    fn line_ends_are_crlf_and_dots_are_doubled() {
        for (content, wire) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"..a\r\n.b", b"...a\r\n..b\r\n.\r\n"),
            (b"a.b\r\nc.\r\n", b"a.b\r\nc.\r\n.\r\n"),
            (b"a\nb\rc", b"a\r\nb\r\nc\r\n.\r\n"),
            (b"a\n.b\r.c", b"a\r\n..b\r\n..c\r\n.\r\n"),
            (b"a\r\r\n", b"a\r\n\r\n.\r\n"),
            (b"a\n\r\n", b"a\r\n\r\n.\r\n"),
            (b"a\n\rb", b"a\r\n\r\nb\r\n.\r\n"),
            (b"\r", b"\r\n.\r\n"),
            (b"\r\n.\r\nMAIL FROM:<>\r\n", b"\r\n..\r\nMAIL FROM:<>\r\n.\r\n"),
            (b"a\0\x85\xff\r\n", b"a\0\x85\xff\r\n.\r\n"),
        ] {
            assert_eq!(encode(&[content]).escape_ascii().to_string(), wire.escape_ascii().to_string());
        }
    }

    /// Every way of writing an end of data that some server takes for one (see CVE-2023-51764, -51765, -51766).
    #[test]
    fn no_content_ends_the_data_early() {
        for trick in [
            &b"\n.\n"[..],
            b"\n.\r\n",
            b"\n.\r",
            b"\r.\r",
            b"\r.\n",
            b"\r.\r\n",
            b"\r\n.\n",
            b"\r\n.\rx",
            b"\r\n.\r\r\n",
            b"\r\r\n.\r\r\n",
            b"\r\r\n.\r\n",
            b"\r\n.\r\n",
        ] {
            let content = [b"a", trick, b"MAIL FROM:<x@y.test>\r\n"].concat();
            let wire = encode(&[&content]);
            assert!(decode(&wire).is_some(), "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn an_encoder_serves_again_after_the_end() {
        let mut encoder = DataEncoder::new();
        let mut out = Vec::new();
        encoder.encode(b"a\r", &mut out);
        encoder.finish(&mut out);
        encoder.encode(b"\n.b", &mut out);
        encoder.finish(&mut out);
        assert_eq!(out, b"a\r\n.\r\n\r\n..b\r\n.\r\n");
    }

    #[test]
    fn clean_lines_are_known() {
        for (content, clean) in [
            (&b"a\r\nb\r\n"[..], true),
            (b"\r\n", true),
            (b"", false),
            (b"a", false),
            (b"a\nb\r\n", false),
            (b"a\rb\r\n", false),
            (b"a\r\n\r", false),
            (b"a\r\r\n", false),
        ] {
            assert_eq!(has_clean_lines(content), clean, "{}", content.escape_ascii());
        }
    }

    /// A receiver that knows no mercy: CRLF or nothing, one end, nothing behind it.
    fn decode(wire: &[u8]) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        let mut rest = wire;
        loop {
            let end = rest.iter().position(|b| matches!(b, b'\r' | b'\n'))?;
            let (line, after) = (&rest[..end], rest[end..].strip_prefix(b"\r\n")?);
            if line == b"." {
                return after.is_empty().then_some(content);
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            content.extend_from_slice(b"\r\n");
            rest = after;
        }
    }

    /// What the content is, byte by byte: the slow and plain way.
    fn normalized(content: &[u8]) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::new();
        for (i, &byte) in content.iter().enumerate() {
            match byte {
                b'\n' if i > 0 && content[i - 1] == b'\r' => {}
                b'\r' | b'\n' => out.extend_from_slice(b"\r\n"),
                other => out.push(other),
            }
        }
        if !out.is_empty() && !out.ends_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    /// Bytes in which line ends and dots are as frequent as letters.
    fn contents() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a'), any::<u8>()], 0..60)
    }

    proptest! {
        #[test]
        fn a_strict_receiver_reads_the_normalized_content(content in contents()) {
            prop_assert_eq!(decode(&encode(&[&content])), Some(normalized(&content)));
        }

        #[test]
        fn the_cut_into_pieces_changes_nothing(content in contents(), cuts in proptest::collection::vec(0usize..60, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(content.len())).collect();
            cuts.extend([0, content.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &content[w[0]..w[1]]).collect();
            prop_assert_eq!(encode(&pieces), encode(&[&content]));
        }

        #[test]
        fn clean_content_is_what_normalizing_leaves_alone(content in contents()) {
            prop_assert_eq!(has_clean_lines(&content), !content.is_empty() && normalized(&content) == content);
        }
    }
}
