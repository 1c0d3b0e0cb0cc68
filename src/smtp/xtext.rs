//! Encoded words in parameters (RFC 3461 section 4, RFC 6533 section 3).
//!
//! The rule that always holds: what is taken decodes to printable characters. It is kept encoded and written into reports, where an
//! encoded control character would come alive.

/// xtext (RFC 3461 section 4) that decodes to printable ASCII: an encoded control character would come alive in a report.
pub(super) fn is_xtext(text: &str) -> bool {
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let decoded = match octet {
            b'+' => match (octets.next().and_then(hex), octets.next().and_then(hex)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return false,
            },
            b'=' | b' ' => return false,
            other => other,
        };
        if !(b' '..=b'~').contains(&decoded) {
            return false;
        }
    }
    true
}

fn hex(octet: u8) -> Option<u8> {
    char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// `rfc822;xtext`, or `utf-8;` with the encodings of RFC 6533 section 3.
pub(super) fn is_orcpt(value: &str) -> bool {
    let Some((kind, address)) = value.split_once(';') else { return false };
    let is_atom = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !is_atom || address.is_empty() {
        return false;
    }
    if kind.eq_ignore_ascii_case("utf-8") { is_utf8_xtext(address) } else { is_xtext(address) }
}

/// utf-8-addr-xtext or utf-8-addr-unitext: `\x{5E73}` for a character, none of them a control character.
fn is_utf8_xtext(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let escape = rest[at..].strip_prefix("\\x{").and_then(|r| r.split_once('}'));
        let Some((digits, after)) = escape else { return false };
        let character = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
        if digits.len() > 6 || character.is_none_or(char::is_control) {
            return false;
        }
        rest = after;
    }
    !text.contains(['=', ' ']) && is_xtext(&text.chars().filter(char::is_ascii).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_printable_characters_hide_in_xtext() {
        for (text, good) in [
            ("QQ314159", true),
            ("a+2Bb+3Dc+20d", true),
            ("", true),
            ("+7E", true),
            ("+7F", false),
            ("+0A", false),
            ("+1", false),
            ("+", false),
            ("+zz", false),
            ("a=b", false),
            ("a b", false),
            ("\u{fc}", false),
        ] {
            assert_eq!(is_xtext(text), good, "{text}");
        }
    }

    #[test]
    fn an_original_recipient_has_a_type_and_an_address() {
        for (text, good) in [
            ("rfc822;u+2Bx@d.example", true),
            ("X-400;c+3Dde", true),
            ("utf-8;\\x{5E73}@d.example", true),
            ("UTF-8;\u{5e73}@d.example", true),
            ("utf-8;\\x{0A}@d.example", false),
            ("utf-8;\\x{}@d.example", false),
            ("utf-8;\\x{D800}@d.example", false),
            ("utf-8;\\y@d.example", false),
            ("rfc822;\u{fc}@d.example", false),
            ("rfc822;", false),
            (";u@d.example", false),
            ("rfc 822;u@d.example", false),
            ("u@d.example", false),
        ] {
            assert_eq!(is_orcpt(text), good, "{text}");
        }
    }
}
