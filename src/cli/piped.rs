//! What comes by standard input to `weir send`: a whole message, or the text of one.
//!
//! It is a message if it begins with a header: fields up to the first empty line, one of those that every message has among them
//! (RFC 5322 section 3.6). Such a message goes as it is; only what it lacks of From, Date and Message-ID is put before it.

/// Fields of which one tells that this is a header and no text with a colon in its first line.
const TELLING: [&str; 6] = ["from", "to", "subject", "date", "message-id", "mime-version"];

/// Is there anything in it?
pub(super) fn is_empty(input: &[u8]) -> bool {
    input.iter().all(u8::is_ascii_whitespace)
}

/// A message with its own header.
#[derive(Debug, PartialEq)]
pub(super) struct Piped {
    /// In lower case.
    names: Vec<String>,
    /// With CRLF between its lines.
    content: Vec<u8>,
}

impl Piped {
    /// None: it has no header.
    pub(super) fn read(input: &[u8]) -> Option<Piped> {
        // As programs write a message to a mailbox file.
        let input = match input.strip_prefix(b"From ") {
            Some(_) => input.iter().position(|&b| b == b'\n').map_or(input, |end| &input[end + 1..]),
            None => input,
        };
        let mut names = Vec::new();
        for line in input.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)) {
            match line {
                [] => break,
                [b' ' | b'\t', ..] if !names.is_empty() => {}
                _ => names.push(name_of(line)?),
            }
        }
        let is_header = names.iter().any(|name| TELLING.contains(&name.as_str()));
        is_header.then(|| Piped { names, content: with_crlf(input) })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// With those of `fields`, names and whole lines, before it that it has not.
    pub(super) fn completed(self, fields: &[(String, String)]) -> Vec<u8> {
        let missing = fields.iter().filter(|(name, _)| !self.has(name));
        let mut content: Vec<u8> = missing.flat_map(|(_, line)| line.bytes()).collect();
        content.extend(&self.content);
        content
    }
}

/// The name of a field (RFC 5322 section 3.6.8: printable characters without the colon).
fn name_of(line: &[u8]) -> Option<String> {
    let end = line.iter().position(|&b| b == b':')?;
    let name = &line[..end];
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic))
        .then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

/// With CRLF between the lines; that of the last comes with the end of the data.
fn with_crlf(input: &[u8]) -> Vec<u8> {
    let lines = input.strip_suffix(b"\n").unwrap_or(input).split(|&b| b == b'\n');
    lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect::<Vec<&[u8]>>().join(&b"\r\n"[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_makes_a_message() {
        for input in [
            "Subject: hello\n\nHello: there.\n",
            "Received: by x\n\tat noon\nFrom: a@b.example\r\n\r\ntext",
            "From a@b.example Mon Nov 30 15:00:00 2026\nX-A: 1\nTo: b@c.example\n\ntext",
            "Subject: only a header\n",
        ] {
            assert!(Piped::read(input.as_bytes()).is_some(), "{input}");
        }
        for input in [
            "",
            "Hello,\n\nSubject: x\n",
            "Note: bring milk\n\nSubject: x",
            " Subject: x\n\n",
            "Subject hello\n\nx",
            "a b: c\n\n",
        ] {
            assert_eq!(Piped::read(input.as_bytes()), None, "{input}");
        }
        assert!(is_empty(b" \r\n\t\n") && is_empty(b"") && !is_empty(b"\n."));
    }

    #[test]
    fn it_goes_as_it_is_with_what_it_lacks_before_it() {
        let piped = Piped::read(b"subject: hello\nFrom: a@b.example\n\nline\r\n\xFFend").unwrap();
        let fields = [("From", "From: other@b.example\r\n"), ("Date", "Date: today\r\n")];
        let fields = fields.map(|(name, line)| (name.to_string(), line.to_string()));
        assert_eq!(
            piped.completed(&fields),
            b"Date: today\r\nsubject: hello\r\nFrom: a@b.example\r\n\r\nline\r\n\xFFend"
        );
    }
}
