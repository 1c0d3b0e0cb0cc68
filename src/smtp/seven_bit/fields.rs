//! The fields of a header, and what they say of the body behind it (RFC 2045).
//!
//! What cannot be read says nothing, as RFC 2045 section 5.2 has it: then the part is text.

use super::Obstacle;

/// Octets of a value that are read.
const VALUE_MAX: usize = 8 << 10;

/// One field with its line ends.
pub(super) struct Field<'a> {
    octets: &'a [u8],
    /// Where the colon stands; a line without one is no field, and passed on.
    colon: Option<usize>,
}

impl<'a> Field<'a> {
    pub(super) fn octets(&self) -> &'a [u8] {
        self.octets
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.colon.is_some_and(|colon| self.octets[..colon].trim_ascii_end().eq_ignore_ascii_case(name.as_bytes()))
    }

    pub(super) fn value(&self) -> &'a [u8] {
        let value = self.colon.map_or(&b""[..], |colon| &self.octets[colon + 1..]);
        &value[..value.len().min(VALUE_MAX)]
    }
}

/// The fields up to the blank line.
pub(super) fn fields(header: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut rest = header;
    std::iter::from_fn(move || {
        let mut end = line_end(rest);
        if is_blank(&rest[..end]) {
            return None;
        }
        while end < rest.len() && matches!(rest[end], b' ' | b'\t') {
            end += line_end(&rest[end..]);
        }
        let (octets, after) = rest.split_at(end);
        rest = after;
        let first = &octets[..line_end(octets)];
        Some(Field { octets, colon: memchr::memchr(b':', first) })
    })
}

fn line_end(text: &[u8]) -> usize {
    memchr::memchr(b'\n', text).map_or(text.len(), |at| at + 1)
}

pub(super) fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"" | b"\r\n" | b"\n")
}

/// Content-Transfer-Encoding (section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    SevenBit,
    EightBit,
    Binary,
    /// The octets of the body stand for others.
    Encoded,
}

impl Encoding {
    pub(super) fn parse(value: &[u8]) -> Encoding {
        match words(value).trim().to_ascii_lowercase().as_str() {
            "7bit" | "" => Encoding::SevenBit,
            "8bit" => Encoding::EightBit,
            "binary" => Encoding::Binary,
            _ => Encoding::Encoded,
        }
    }

    pub(super) fn is_identity(self) -> bool {
        self != Encoding::Encoded
    }
}

/// What a Content-Type means for a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Any other octets.
    Data,
    Multipart,
    /// `multipart/signed` (RFC 1847).
    SignedParts,
    /// `multipart/encrypted`.
    EncryptedParts,
    /// `application/pkcs7-mime` (RFC 8551): signed or encrypted.
    Smime,
    /// `message/rfc822`: a message with parts of its own.
    Message,
    /// Has to stay in seven or eight bits (RFC 2046 section 5.2).
    Fixed,
}

impl Kind {
    pub(super) fn holds_others(self) -> bool {
        matches!(self, Kind::Multipart | Kind::SignedParts | Kind::EncryptedParts | Kind::Message)
    }

    /// Why nothing in it, or of it, may be changed.
    pub(super) fn seals(self) -> Option<Obstacle> {
        match self {
            Kind::SignedParts | Kind::Smime => Some(Obstacle::Signed),
            Kind::EncryptedParts => Some(Obstacle::Encrypted),
            _ => None,
        }
    }
}

/// The kind of a part with this header, and the boundary of its parts.
pub(super) fn kind(header: &[u8]) -> (Kind, Option<Vec<u8>>) {
    let Some(field) = fields(header).find(|field| field.is("Content-Type")) else { return (Kind::Text, None) };
    let value = words(field.value());
    let (kind, parameters) = value.split_once(';').unwrap_or((&value, ""));
    let kind = kind.trim().to_ascii_lowercase();
    if let Some(subtype) = kind.strip_prefix("multipart/") {
        let boundary = parameter(parameters, "boundary").filter(|boundary| !boundary.is_empty());
        let kind = match subtype.trim() {
            // Its parts are messages without saying so (RFC 2046 section 5.1.5).
            "digest" => return (Kind::Fixed, None),
            "signed" => Kind::SignedParts,
            "encrypted" => Kind::EncryptedParts,
            _ => Kind::Multipart,
        };
        // Without a boundary nobody knows where its parts are.
        return boundary.map_or((Kind::Fixed, None), |boundary| (kind, Some(boundary.into_bytes())));
    }
    let kind = match kind.as_str() {
        "message/rfc822" => Kind::Message,
        // RFC 6532 section 3.7 and RFC 6533 section 6 let these be encoded.
        "message/global" | "message/global-headers" | "message/global-delivery-status" => Kind::Data,
        "application/pkcs7-mime" | "application/x-pkcs7-mime" => Kind::Smime,
        _ if kind.starts_with("message/") => Kind::Fixed,
        _ if kind.starts_with("text/") || !kind.contains('/') => Kind::Text,
        _ => Kind::Data,
    };
    (kind, None)
}

/// A value with folding undone and comments left out (RFC 5322 section 3.2.2); quotes stay.
fn words(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let (mut out, mut depth, mut is_quoted) = (String::with_capacity(text.len()), 0_usize, false);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => {
                let next = characters.next();
                if depth == 0 {
                    out.push(c);
                    out.extend(next);
                }
            }
            '"' if depth == 0 => {
                is_quoted = !is_quoted;
                out.push(c);
            }
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted && depth > 0 => depth -= 1,
            '\r' | '\n' => {}
            _ if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

/// The value of a parameter, its quotes undone.
fn parameter(text: &str, name: &str) -> Option<String> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, end) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let end = after.find([';', ' ', '\t']).unwrap_or(after.len());
                (after[..end].to_string(), &after[end..])
            }
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = end.split_once(';')?.1;
    }
}

/// Up to the closing quote, and what follows it.
fn unquoted(text: &str) -> (String, &str) {
    let (mut value, mut characters) = (String::new(), text.char_indices());
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            _ => value.push(c),
        }
    }
    (value, "")
}
