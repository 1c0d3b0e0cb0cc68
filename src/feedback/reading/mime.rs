//! The parts of a message (RFC 2045, RFC 2046), as far as a report needs them.
//!
//! Rules that always hold:
//! - whatever comes, the work is bounded: so many parts, so deep, so many fields; what is beyond is not looked at;
//! - nothing calls itself: a tree of any depth costs no stack;
//! - the library that turns charsets and encodings into text is handed single texts, never a tree.

use mail_parser::MessageParser;

/// A report has three parts, and what it returns has some; more than these hold no more news.
const PARTS_MAX: usize = 40;
const DEPTH_MAX: usize = 8;
const FIELDS_MAX: usize = 400;
/// Of a text that is decoded.
const TEXT_MAX: usize = 64 << 10;
const VALUE_MAX: usize = 4 << 10;

/// A header, unfolded.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads fields from the beginning of `octets`; gives where the body begins.
    pub(super) fn read(octets: &[u8]) -> (Fields, usize) {
        let (mut fields, mut at) = (Fields::default(), 0);
        while at < octets.len() {
            let (line, next) = line_at(octets, at);
            if line.is_empty() {
                return (fields, next);
            }
            let begin = at;
            at = next;
            let text = String::from_utf8_lossy(line);
            if text.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.0.last_mut()
                    && value.len() < VALUE_MAX
                {
                    value.push(' ');
                    value.push_str(text.trim());
                }
                continue;
            }
            // mbox files, and programs that pipe them.
            if text.starts_with("From ") || text.starts_with(">From ") {
                continue;
            }
            match text.split_once(':') {
                Some((name, value)) if is_name(name.trim_end()) => {
                    if fields.0.len() < FIELDS_MAX {
                        let value: String = value.trim().chars().take(VALUE_MAX).collect();
                        fields.0.push((name.trim_end().to_ascii_lowercase(), value));
                    }
                }
                // No header goes on like this: the blank line is missing.
                _ => return (fields, begin),
            }
        }
        (fields, octets.len())
    }

    /// The first field of this name, given in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A field for people: encoded words are read (RFC 2047).
    pub(super) fn words(&self, name: &str) -> Option<String> {
        let value = self.get(name)?;
        if !value.contains("=?") {
            return Some(value.to_string());
        }
        let made = format!("Subject: {value}\r\n\r\n");
        MessageParser::default().parse_headers(made.as_bytes())?.subject().map(str::to_string)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 80 && name.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':')
}

/// The line that begins at `at`, without its end, and where the next begins.
fn line_at(octets: &[u8], at: usize) -> (&[u8], usize) {
    let rest = &octets[at..];
    let (line, next) = match memchr::memchr(b'\n', rest) {
        Some(end) => (&rest[..end], at + end + 1),
        None => (rest, octets.len()),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), next)
}

/// What a part says it is.
#[derive(Debug, Default)]
pub(super) struct Kind {
    /// `text/plain`, in lower case.
    pub(super) name: String,
    parameters: Vec<(String, String)>,
}

impl Kind {
    fn parse(value: &str) -> Kind {
        let mut pieces = split_outside_quotes(value).into_iter();
        let name = pieces.next().unwrap_or_default();
        let name = name.split(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default().to_ascii_lowercase();
        let parameter = |piece: String| {
            let (name, value) = piece.split_once('=')?;
            let value = value.trim().trim_matches('"').to_string();
            Some((name.trim().trim_end_matches("*0").to_ascii_lowercase(), value))
        };
        Kind { name, parameters: pieces.filter_map(parameter).take(20).collect() }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn split_outside_quotes(value: &str) -> Vec<String> {
    let (mut pieces, mut piece, mut quoted) = (Vec::new(), String::new(), false);
    for c in value.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                piece.push(c);
            }
            ';' if !quoted => pieces.push(std::mem::take(&mut piece)),
            c => piece.push(c),
        }
    }
    pieces.push(piece);
    pieces
}

/// One part; the message itself is the first.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) kind: Kind,
    pub(super) fields: Fields,
    pub(super) body: &'a [u8],
    /// In how many messages it lies that are part of another: 0 for what the report itself says.
    pub(super) nested: usize,
}

impl Part<'_> {
    /// Its text, whatever its encoding and charset.
    pub(super) fn text(&self) -> String {
        let body = &self.body[..self.body.len().min(TEXT_MAX)];
        let encoding = self.fields.get("content-transfer-encoding").unwrap_or_default().trim().to_ascii_lowercase();
        let encoding = if matches!(&*encoding, "base64" | "quoted-printable") { &*encoding } else { "8bit" };
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || "-_.:+".contains(*c);
        let charset: String =
            self.kind.parameter("charset").unwrap_or("utf-8").chars().filter(is_plain).take(40).collect();
        let html = if self.kind.name == "text/html" { "html" } else { "plain" };
        let mut made = format!(
            "Content-Type: text/{html}; charset=\"{charset}\"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        )
        .into_bytes();
        made.extend_from_slice(body);
        let parsed = MessageParser::default().parse(&made);
        let text = parsed.and_then(|message| message.body_text(0).map(std::borrow::Cow::into_owned));
        text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
    }
}

/// Something that may hold parts and was not looked at yet.
struct Open<'a> {
    octets: &'a [u8],
    depth: usize,
    nested: usize,
    /// What it is where it does not say.
    default: &'static str,
}

/// All parts, in the order in which they stand.
pub(super) fn parts(message: &[u8]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut open = vec![Open { octets: message, depth: 0, nested: 0, default: "text/plain" }];
    while let Some(Open { octets, depth, nested, default }) = open.pop() {
        if parts.len() >= PARTS_MAX {
            break;
        }
        let (fields, start) = Fields::read(octets);
        let kind = fields.get("content-type").map(Kind::parse).filter(|kind| kind.name.contains('/'));
        let kind = kind.unwrap_or_else(|| Kind::parse(default));
        let body = octets.get(start..).unwrap_or_default();
        if depth < DEPTH_MAX {
            let below = below(&kind, &fields, body, depth, nested);
            // The last one first, so that the first is taken next.
            open.extend(below.into_iter().rev());
        }
        parts.push(Part { kind, fields, body, nested });
    }
    parts
}

fn below<'a>(kind: &Kind, fields: &Fields, body: &'a [u8], depth: usize, nested: usize) -> Vec<Open<'a>> {
    if kind.name.starts_with("multipart/") {
        let Some(boundary) = kind.parameter("boundary").filter(|boundary| !boundary.is_empty()) else {
            return Vec::new();
        };
        let default = if kind.name == "multipart/digest" { "message/rfc822" } else { "text/plain" };
        let open = |octets| Open { octets, depth: depth + 1, nested, default };
        return pieces(body, boundary).into_iter().map(open).collect();
    }
    let encoding = fields.get("content-transfer-encoding").unwrap_or_default().trim().to_ascii_lowercase();
    let is_message = matches!(&*kind.name, "message/rfc822" | "message/global");
    if is_message && !matches!(&*encoding, "base64" | "quoted-printable") {
        return vec![Open { octets: body, depth: depth + 1, nested: nested + 1, default: "text/plain" }];
    }
    Vec::new()
}

/// What stands between the boundaries (RFC 2046 section 5.1.1); the last piece may lack its end.
fn pieces<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let (mut pieces, mut begun, mut at) = (Vec::new(), None, 0);
    while at < body.len() && pieces.len() < PARTS_MAX {
        let (line, next) = line_at(body, at);
        let rest = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary.as_bytes()));
        if let Some(rest) = rest
            && matches!(rest.trim_ascii(), b"" | b"--")
        {
            if let Some(start) = begun {
                pieces.push(&body[start..at]);
            }
            begun = Some(next);
            if rest.trim_ascii() == b"--" {
                return pieces;
            }
        }
        at = next;
    }
    if let Some(start) = begun
        && start < body.len()
        && pieces.len() < PARTS_MAX
    {
        pieces.push(&body[start..]);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(message: &str) -> Vec<(String, usize)> {
        parts(message.as_bytes()).into_iter().map(|part| (part.kind.name, part.nested)).collect()
    }

    #[test]
    fn parts_come_in_the_order_in_which_they_stand() {
        let message = "Content-Type: multipart/report;\n boundary=\"a;b\"\n\npreamble\n--a;b\nContent-Type: text/plain\n\nHello\n--a;b\n\
                       Content-Type: message/rfc822\n\nSubject: x\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\nin\n--c--\n--a;b--\nepilogue\n";
        let expected = [
            ("multipart/report", 0),
            ("text/plain", 0),
            ("message/rfc822", 0),
            ("multipart/mixed", 1),
            ("text/plain", 1),
        ];
        assert_eq!(names(message), expected.map(|(name, nested)| (name.to_string(), nested)));
        assert_eq!(parts(message.as_bytes())[1].text().trim(), "Hello");
    }

    #[test]
    fn a_text_is_read_whatever_its_encoding_and_charset() {
        for (fields, body, expected) in [
            (
                "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable",
                "M=FCller",
                "Müller",
            ),
            ("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64", "TcO8bGxlcg==", "Müller"),
            ("Content-Type: text/plain; charset=windows-1252\nContent-Transfer-Encoding: 8bit", "x", "x"),
            ("Content-Type: text/plain; charset=x-nobody-knows", "M\u{fc}ller", "Müller"),
            ("Content-Type: text/plain; charset=\"a\r\nX: y\"", "x", "x"),
        ] {
            let message = format!("{fields}\n\n{body}");
            assert_eq!(parts(message.as_bytes())[0].text().trim(), expected, "{fields}");
        }
    }

    #[test]
    fn a_header_without_a_blank_line_loses_nothing_of_the_body() {
        let (fields, start) = Fields::read(b"A: 1\r\nb : 2\r\n three\r\nno field at all\r\nrest");
        assert_eq!((fields.get("a"), fields.get("b"), start), (Some("1"), Some("2 three"), 21));
        assert_eq!(Fields::read(b"").1, 0);
    }

    #[test]
    fn no_tree_however_deep_or_wide_costs_more_than_its_limit() {
        let deep = "Content-Type: message/rfc822\n\n".repeat(10_000);
        assert!(parts(deep.as_bytes()).len() <= DEPTH_MAX + 1);
        let mixed: String =
            (0..10_000).map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n")).collect();
        assert!(parts(mixed.as_bytes()).len() <= PARTS_MAX);
        let wide = format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\nx\n".repeat(10_000));
        assert!(parts(wide.as_bytes()).len() <= PARTS_MAX);
    }
}
